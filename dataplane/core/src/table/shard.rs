//! One shard of the route table: some 60 routes of a million, in two allocations.
//!
//! Entries lie in the order of 32 bits of their hash. As these are spread evenly, the place of one is guessed
//! from its value and found a few steps on: one or two cache lines, then its text. A copy is two `memcpy` and one
//! clone of each value; there is no allocation for each route.

use super::{Row, bits};

/// Routes whose hash falls here.
#[derive(Clone)]
pub(super) struct Shard<T> {
    /// By rising `order`.
    entries: Vec<Entry<T>>,
    /// Name and ALPN of each entry, in any order.
    text: String,
}

#[derive(Clone)]
struct Entry<T> {
    order: u32,
    /// Where in the shard's text the name starts; the ALPN follows it.
    start: u32,
    listener: u32,
    name_len: u16,
    alpn_len: u8,
    any_depth: bool,
    value: T,
}

/// What identifies a route.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Key<'a> {
    pub(super) listener: u32,
    pub(super) name: &'a str,
    pub(super) alpn: &'a str,
}

/// What a route's name stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Level<'a> {
    /// This name.
    Exact(&'a str),
    /// `*.` before this parent.
    Wildcard(&'a str),
    /// `*`.
    Default,
}

impl<'a> Level<'a> {
    pub(super) fn of(name: &'a str) -> Self {
        match name.strip_prefix("*.") {
            Some(parent) => Self::Wildcard(parent),
            None if name == "*" => Self::Default,
            None => Self::Exact(name),
        }
    }

    /// What is hashed.
    pub(super) fn parts(self) -> (u8, &'a str) {
        match self {
            Self::Exact(name) => (0, name),
            Self::Wildcard(parent) => (1, parent),
            Self::Default => (2, ""),
        }
    }
}

impl<T> Shard<T> {
    /// Adds or replaces; the replaced `any_depth` and value are returned.
    pub(super) fn insert(&mut self, order: u32, row: Row<'_, T>) -> Option<(bool, T)> {
        let Row { listener, name, alpn, any_depth, value } = row;
        if let Some(index) = self.position(order, Key { listener, name, alpn }) {
            let entry = &mut self.entries[index];
            let old_depth = std::mem::replace(&mut entry.any_depth, any_depth);
            return Some((old_depth, std::mem::replace(&mut entry.value, value)));
        }
        if self.entries.len() == self.entries.capacity() {
            // Not doubled: with a million routes that would be half the table.
            self.reserve(4 + self.entries.len() / 8, 0);
        }
        let entry = Entry {
            order,
            start: u32::try_from(self.text.len()).expect("a shard's names are less than 4 GiB"),
            listener,
            name_len: u16::try_from(name.len()).expect("validated names are at most 255 bytes long"),
            alpn_len: u8::try_from(alpn.len()).expect("validated protocols are at most 255 bytes long"),
            any_depth,
            value,
        };
        let index = self.lower_bound(order);
        self.entries.insert(index, entry);
        self.text.push_str(name);
        self.text.push_str(alpn);
        None
    }

    /// Removes the entry and its text.
    pub(super) fn remove(&mut self, order: u32, key: Key<'_>) -> Option<(bool, T)> {
        let index = self.position(order, key)?;
        let gone = self.entries.remove(index);
        let len = u32::from(gone.name_len) + u32::from(gone.alpn_len);
        self.text.drain(gone.start as usize..(gone.start + len) as usize);
        for entry in self.entries.iter_mut().filter(|entry| entry.start > gone.start) {
            entry.start -= len;
        }
        Some((gone.any_depth, gone.value))
    }

    /// Makes room for `routes` more with `text` bytes of names and protocols.
    pub(super) fn reserve(&mut self, routes: usize, text: usize) {
        self.entries.reserve_exact(routes);
        self.text.reserve_exact(text);
    }

    /// The index of the route with this key.
    pub(super) fn position(&self, order: u32, key: Key<'_>) -> Option<usize> {
        self.run(order).find(|index| self.key(&self.entries[*index]) == key)
    }

    /// The best route at one level: for a protocol that the client offers, in its order, or else for any.
    pub(super) fn choose<'a>(
        &self,
        order: u32,
        listener: u32,
        level: Level<'_>,
        several: bool,
        alpn: &(impl Iterator<Item = &'a [u8]> + Clone),
    ) -> Option<&T> {
        let at_level = self.run(order).map(|index| &self.entries[index]).filter(|entry| {
            let key = self.key(entry);
            key.listener == listener && Level::of(key.name) == level && (entry.any_depth || !several)
        });
        let mut restricted = at_level.clone().filter(|entry| entry.alpn_len > 0).peekable();
        if restricted.peek().is_some() {
            let offered =
                |offer: &[u8]| restricted.clone().find(|entry| self.key(entry).alpn.as_bytes() == offer);
            if let Some(entry) = alpn.clone().find_map(offered) {
                return Some(&entry.value);
            }
        }
        at_level.clone().find(|entry| entry.alpn_len == 0).map(|entry| &entry.value)
    }

    /// The route at `index`.
    pub(super) fn row(&self, index: usize) -> Row<'_, &T> {
        let entry = &self.entries[index];
        let Key { listener, name, alpn } = self.key(entry);
        Row { listener, name, alpn, any_depth: entry.any_depth, value: &entry.value }
    }

    /// Every route.
    pub(super) fn rows(&self) -> impl Iterator<Item = Row<'_, &T>> {
        (0..self.entries.len()).map(|index| self.row(index))
    }

    fn key(&self, entry: &Entry<T>) -> Key<'_> {
        let start = entry.start as usize;
        let middle = start + usize::from(entry.name_len);
        let end = middle + usize::from(entry.alpn_len);
        Key { listener: entry.listener, name: &self.text[start..middle], alpn: &self.text[middle..end] }
    }

    /// The entries of this order: as a rule one, or those of one name that differ in ALPN.
    fn run(&self, order: u32) -> impl Iterator<Item = usize> + Clone {
        let first = self.lower_bound(order);
        let len = self.entries[first..].iter().take_while(|entry| entry.order == order).count();
        first..first + len
    }

    /// The first index whose order is not below this one.
    fn lower_bound(&self, order: u32) -> usize {
        let entries = self.entries.as_slice();
        if entries.last().is_none_or(|last| last.order < order) {
            return entries.len();
        }
        let mut index = bits(u64::from(order) * entries.len() as u64, 32) as usize;
        while index > 0 && entries[index - 1].order >= order {
            index -= 1;
        }
        while entries[index].order < order {
            index += 1;
        }
        index
    }
}

impl<T> Default for Shard<T> {
    fn default() -> Self {
        Self { entries: Vec::new(), text: String::new() }
    }
}
