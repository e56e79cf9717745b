//! Finds the route for a listener, a name and the client's ALPN offers.
//!
//! The table is an immutable value that workers share: a clone is one reference count, and a change to the
//! clone copies one path of a two-level tree (128 nodes of 128 shards) and nothing else, so that a change costs
//! the same small time with ten and with a million routes and nobody ever waits for it. A look-up hashes the
//! name once for each level at which a route may exist, allocates nothing, and touches a handful of cache lines
//! whatever the size.
//!
//! Order of a look-up: the exact name; then `*.parent`, the longest parent first (the star stands for one
//! label, or for several where the route says so); then the listener's `*`. At each of these, routes for an
//! ALPN protocol that the client offers come first, in the client's order, then the one for any protocol;
//! where only others exist, the search goes on.
//!
//! Left out: validation. Names must come in lower case without a trailing dot ([`crate::model`] says so), and
//! what is no name (absent, or an IP address) as `None`.

mod shard;

#[cfg(test)]
mod tests;

use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use foldhash::quality::RandomState;

use shard::{Key, Level, Shard};

/// Routes by listener, name and ALPN. Cloning is cheap and shares everything.
#[derive(Clone)]
pub struct RouteTable<T> {
    root: Arc<Node<Node<Shard<T>>>>,
    /// By listener, those with wildcards only.
    wildcards: Arc<Vec<Wildcards>>,
    len: usize,
    /// Seeded at random: nobody can choose names that fall into one shard.
    hasher: RandomState,
}

/// A route as it goes in ([`RouteTable::extend`]) and comes out ([`RouteTable::iter`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row<'a, V> {
    /// The listener's number in this process.
    pub listener: u32,
    /// `example.org`, `*.example.org` or `*`.
    pub name: &'a str,
    /// Empty: whatever the client offers.
    pub alpn: &'a str,
    /// Whether the star stands for several labels, not just one.
    pub any_depth: bool,
    /// What the look-up finds.
    pub value: V,
}

impl<T: Clone> RouteTable<T> {
    /// The table with no route.
    #[must_use]
    pub fn new() -> Self {
        let node: Arc<Node<Shard<T>>> = Arc::new(Node::of(Arc::new(Shard::default())));
        Self {
            root: Arc::new(Node::of(node)),
            wildcards: Arc::default(),
            len: 0,
            hasher: RandomState::default(),
        }
    }

    /// Adds a route, or replaces the one with the same listener, name and ALPN, which is returned. Clones made
    /// before do not see it.
    ///
    /// # Panics
    /// Where a name is longer than 65,535 bytes or a protocol longer than 255: validation allows less.
    pub fn insert(&mut self, listener: u32, name: &str, alpn: &str, any_depth: bool, value: T) -> Option<T> {
        let place = self.place(listener, Level::of(name));
        self.insert_at(place, Row { listener, name, alpn, any_depth, value })
    }

    /// Removes a route and returns it. Clones made before still have it.
    pub fn remove(&mut self, listener: u32, name: &str, alpn: &str) -> Option<T> {
        let level = Level::of(name);
        let place = self.place(listener, level);
        let key = Key { listener, name, alpn };
        // Looked for first: nothing is copied for a route that is not there.
        self.shard(place).position(place.order(), key)?;
        let (any_depth, value) = self.shard_mut(place).remove(place.order(), key)?;
        self.len -= 1;
        if let Level::Wildcard(parent) = level {
            self.note_wildcard(listener, parent, any_depth, Note::Gone);
        }
        Some(value)
    }

    /// Adds many routes, each as [`Self::insert`] does: the fast way to fill a table.
    pub fn extend<'a>(&mut self, rows: impl IntoIterator<Item = Row<'a, T>>) {
        let mut rows: Vec<Option<Row<'a, T>>> = rows.into_iter().map(Some).collect();
        // In the order of the shards and within them, so that each is filled at its end; of equal keys the first
        // comes first, and is replaced by the last.
        let mut order: Vec<(Place, usize)> =
            rows.iter().flatten().map(|row| self.place(row.listener, Level::of(row.name))).zip(0..).collect();
        order.sort_unstable();
        for run in order.chunk_by(|(a, _), (b, _)| a.same_shard(*b)) {
            let text =
                run.iter().flat_map(|(_, index)| &rows[*index]).map(|row| row.name.len() + row.alpn.len());
            self.shard_mut(run[0].0).reserve(run.len(), text.sum());
            for (place, index) in run {
                if let Some(row) = rows[*index].take() {
                    self.insert_at(*place, row);
                }
            }
        }
    }

    fn insert_at(&mut self, place: Place, row: Row<'_, T>) -> Option<T> {
        let Row { listener, name, any_depth, .. } = row;
        let old = self.shard_mut(place).insert(place.order(), row);
        if old.is_none() {
            self.len += 1;
        }
        if let Level::Wildcard(parent) = Level::of(name) {
            if let Some((old_depth, _)) = &old {
                self.note_wildcard(listener, parent, *old_depth, Note::Gone);
            }
            self.note_wildcard(listener, parent, any_depth, Note::Added);
        }
        old.map(|(_, value)| value)
    }

    fn shard_mut(&mut self, place: Place) -> &mut Shard<T> {
        let (high, low) = place.shard();
        let node = Arc::make_mut(&mut Arc::make_mut(&mut self.root).0[high]);
        Arc::make_mut(&mut node.0[low])
    }
}

impl<T> RouteTable<T> {
    /// The route for a client that asks for `name` and offers the protocols `alpn`, in its order of preference.
    #[must_use]
    pub fn lookup<'a>(
        &self,
        listener: u32,
        name: Option<&str>,
        alpn: impl Iterator<Item = &'a [u8]> + Clone,
    ) -> Option<&T> {
        if let Some(name) = name {
            let found = self
                .lookup_at(listener, Level::Exact(name), false, &alpn)
                .or_else(|| self.lookup_wildcard(listener, name, &alpn));
            if found.is_some() {
                return found;
            }
        }
        self.lookup_at(listener, Level::Default, false, &alpn)
    }

    /// The route with exactly this key.
    #[must_use]
    pub fn get(&self, listener: u32, name: &str, alpn: &str) -> Option<&T> {
        let place = self.place(listener, Level::of(name));
        let shard = self.shard(place);
        shard.position(place.order(), Key { listener, name, alpn }).map(|index| shard.row(index).value)
    }

    /// Every route, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = Row<'_, &T>> {
        self.root.0.iter().flat_map(|node| &node.0).flat_map(|shard| shard.rows())
    }

    /// How many routes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn lookup_wildcard<'a>(
        &self,
        listener: u32,
        name: &str,
        alpn: &(impl Iterator<Item = &'a [u8]> + Clone),
    ) -> Option<&T> {
        let index = self.wildcards.binary_search_by_key(&listener, |entry| entry.listener).ok()?;
        let wildcards = &self.wildcards[index];
        // The star of the first parent stands for one label, that of those above it for several.
        let mut several = false;
        let mut rest = name;
        let mut labels = labels(name);
        while let Some((_, parent)) = rest.split_once('.') {
            labels -= 1;
            if wildcards.exist(labels, several)
                && let Some(found) = self.lookup_at(listener, Level::Wildcard(parent), several, alpn)
            {
                return Some(found);
            }
            several = true;
            rest = parent;
        }
        None
    }

    fn lookup_at<'a>(
        &self,
        listener: u32,
        level: Level<'_>,
        several: bool,
        alpn: &(impl Iterator<Item = &'a [u8]> + Clone),
    ) -> Option<&T> {
        let place = self.place(listener, level);
        self.shard(place).choose(place.order(), listener, level, several, alpn)
    }

    fn place(&self, listener: u32, level: Level<'_>) -> Place {
        let (kind, text) = level.parts();
        let mut hasher = self.hasher.build_hasher();
        hasher.write_u64(u64::from(listener) << 8 | u64::from(kind));
        hasher.write(text.as_bytes());
        Place(hasher.finish())
    }

    fn shard(&self, place: Place) -> &Shard<T> {
        let (high, low) = place.shard();
        &self.root.0[high].0[low]
    }

    fn note_wildcard(&mut self, listener: u32, parent: &str, any_depth: bool, note: Note) {
        let all = Arc::make_mut(&mut self.wildcards);
        let index = match all.binary_search_by_key(&listener, |entry| entry.listener) {
            Ok(index) => index,
            Err(index) => {
                all.insert(index, Wildcards { listener, by_labels: Vec::new() });
                index
            }
        };
        all[index].note(labels(parent), any_depth, note);
        if all[index].is_empty() {
            all.remove(index);
        }
    }
}

impl<T: Clone> Default for RouteTable<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a, T: Clone> FromIterator<Row<'a, T>> for RouteTable<T> {
    fn from_iter<I: IntoIterator<Item = Row<'a, T>>>(rows: I) -> Self {
        let mut table = Self::new();
        table.extend(rows);
        table
    }
}

impl<T> fmt::Debug for RouteTable<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RouteTable").field("len", &self.len).finish_non_exhaustive()
    }
}

/// Where a level's routes are: the top 14 bits of its hash name the shard, the next 32 order it within.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place(u64);

impl Place {
    fn shard(self) -> (usize, usize) {
        (bits(self.0, 57) as usize % FANOUT, bits(self.0, 50) as usize % FANOUT)
    }

    fn order(self) -> u32 {
        bits(self.0, 18)
    }

    fn same_shard(self, other: Self) -> bool {
        self.0 >> 50 == other.0 >> 50
    }
}

/// Children, each shared until it is changed.
struct Node<C>([Arc<C>; FANOUT]);

/// A change with n routes copies two nodes and a shard of n / FANOUT^2.
const FANOUT: usize = 128;

impl<C> Node<C> {
    fn of(child: Arc<C>) -> Self {
        Self(std::array::from_fn(|_| Arc::clone(&child)))
    }
}

// Derived, it would ask for `C: Clone`.
impl<C> Clone for Node<C> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// How many wildcards a listener has for parents of each number of labels: the levels that a look-up can skip.
#[derive(Clone)]
struct Wildcards {
    listener: u32,
    by_labels: Vec<Count>,
}

#[derive(Clone, Copy, Default)]
struct Count {
    all: u32,
    /// Those among them whose star stands for several labels.
    any_depth: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Note {
    Added,
    Gone,
}

impl Wildcards {
    fn note(&mut self, labels: usize, any_depth: bool, note: Note) {
        if self.by_labels.len() <= labels {
            self.by_labels.resize(labels + 1, Count::default());
        }
        let count = &mut self.by_labels[labels];
        let step = |n: u32| if note == Note::Added { n + 1 } else { n - 1 };
        count.all = step(count.all);
        if any_depth {
            count.any_depth = step(count.any_depth);
        }
    }

    fn exist(&self, labels: usize, several: bool) -> bool {
        self.by_labels.get(labels).is_some_and(|count| if several { count.any_depth } else { count.all } > 0)
    }

    fn is_empty(&self) -> bool {
        self.by_labels.iter().all(|count| count.all == 0)
    }
}

fn labels(name: &str) -> usize {
    1 + name.bytes().filter(|byte| *byte == b'.').count()
}

/// 32 bits of `word` from bit `from` on.
#[expect(clippy::cast_possible_truncation, reason = "the lower half is what is asked for")]
fn bits(word: u64, from: u32) -> u32 {
    (word >> from) as u32
}
