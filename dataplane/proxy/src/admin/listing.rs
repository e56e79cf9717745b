//! Routes in the order of their keys: for listing, for exact look-ups, and for counting by listener.
//!
//! The workers' table is made for names that clients ask for and has no order. This one shares its entries,
//! so that a route costs eight bytes more and not another copy of its key.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use mc_core::model::RouteKey;

use crate::snapshot::RouteEntry;

/// Routes in the order of their keys.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    routes: BTreeSet<ByKey>,
    by_listener: HashMap<String, u64>,
}

impl Listing {
    /// All of `entries` at once: fast where they are in order already.
    #[expect(clippy::mutable_key_type, reason = "counters change, keys do not")]
    pub(crate) fn build(entries: impl IntoIterator<Item = Arc<RouteEntry>>) -> Self {
        let routes: BTreeSet<ByKey> = entries.into_iter().map(ByKey).collect();
        let mut by_listener: HashMap<String, u64> = HashMap::new();
        for ByKey(entry) in &routes {
            match by_listener.get_mut(&entry.spec.listener) {
                Some(count) => *count += 1,
                None => drop(by_listener.insert(entry.spec.listener.clone(), 1)),
            }
        }
        Self { routes, by_listener }
    }

    /// Adds an entry, or replaces the one with its key, which is returned.
    pub(crate) fn insert(&mut self, entry: Arc<RouteEntry>) -> Option<Arc<RouteEntry>> {
        let listener = entry.spec.listener.clone();
        let old = self.routes.replace(ByKey(entry)).map(|ByKey(entry)| entry);
        if old.is_none() {
            *self.by_listener.entry(listener).or_default() += 1;
        }
        old
    }

    /// Removes the entry with this key and returns it.
    pub(crate) fn remove(&mut self, key: &RouteKey) -> Option<Arc<RouteEntry>> {
        let ByKey(entry) = self.routes.take(key as &dyn Keyed)?;
        if let Some(count) = self.by_listener.get_mut(&key.listener) {
            *count -= 1;
            if *count == 0 {
                self.by_listener.remove(&key.listener);
            }
        }
        Some(entry)
    }

    /// The entry with this key.
    pub(crate) fn get(&self, key: &RouteKey) -> Option<&Arc<RouteEntry>> {
        self.routes.get(key as &dyn Keyed).map(|ByKey(entry)| entry)
    }

    /// Entries that come after `key`, in order; from the first on without one.
    pub(crate) fn after(&self, key: Option<&RouteKey>) -> impl Iterator<Item = &Arc<RouteEntry>> {
        let start = key.map_or(Bound::Unbounded, |key| Bound::Excluded(key as &dyn Keyed));
        self.routes.range::<dyn Keyed, _>((start, Bound::Unbounded)).map(|ByKey(entry)| entry)
    }

    /// Entries of one listener.
    pub(crate) fn of_listener(&self, listener: &str) -> impl Iterator<Item = &Arc<RouteEntry>> {
        let first = RouteKey { listener: listener.to_owned(), name: String::new(), alpn: String::new() };
        let range =
            self.routes.range::<dyn Keyed, _>((Bound::Included(&first as &dyn Keyed), Bound::Unbounded));
        range.map(|ByKey(entry)| entry).take_while(move |entry| entry.spec.listener == listener)
    }

    /// How many routes a listener has.
    pub(crate) fn count(&self, listener: &str) -> u64 {
        self.by_listener.get(listener).copied().unwrap_or(0)
    }

    /// How many routes there are.
    pub(crate) fn len(&self) -> u64 {
        self.routes.len() as u64
    }
}

/// An entry that is ordered by its key.
#[derive(Debug)]
struct ByKey(Arc<RouteEntry>);

/// What has a route's key, in whatever form: a set of entries is asked with a key.
trait Keyed {
    fn key(&self) -> (&str, &str, &str);
}

impl Keyed for ByKey {
    fn key(&self) -> (&str, &str, &str) {
        let spec = &self.0.spec;
        (&spec.listener, &spec.name, &spec.alpn)
    }
}

impl Keyed for RouteKey {
    fn key(&self) -> (&str, &str, &str) {
        (&self.listener, &self.name, &self.alpn)
    }
}

impl<'a> Borrow<dyn Keyed + 'a> for ByKey {
    fn borrow(&self) -> &(dyn Keyed + 'a) {
        self
    }
}

impl PartialEq for dyn Keyed + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for dyn Keyed + '_ {}

impl PartialOrd for dyn Keyed + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for dyn Keyed + '_ {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl PartialEq for ByKey {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for ByKey {}

impl PartialOrd for ByKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ByKey {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}
