//! Listeners and routes together.

use std::collections::HashMap;
use std::hash::Hash;

use foldhash::fast::RandomState;

use super::{Invalid, quoted};
use crate::model::{Listener, Route};

/// Refuses duplicates and routes on listeners that do not exist. All values must be normalized.
///
/// # Errors
/// The first that is wrong, its field beginning with `listeners[` or `routes[`.
pub fn check_config(listeners: &[Listener], routes: &[Route]) -> Result<(), Invalid> {
    let mut names = Firsts::new(listeners.len());
    let mut addresses = Firsts::new(listeners.len());
    for (index, listener) in listeners.iter().enumerate() {
        if let Some(first) = names.first(listener.name.as_str(), index) {
            let problem = format!("{} is also the name of listeners[{first}]: choose another", listener.name);
            return Err(Invalid::new(format!("listeners[{index}].name"), problem));
        }
        // Port 0 is another port each time.
        let fixed = listener.address.port() != 0;
        if let Some(first) = fixed.then(|| addresses.first(listener.address, index)).flatten() {
            let problem = format!("{} is also that of listeners[{first}]: choose another", listener.address);
            return Err(Invalid::new(format!("listeners[{index}].address"), problem));
        }
    }
    let mut keys = Firsts::new(routes.len());
    for (index, route) in routes.iter().enumerate() {
        if !names.0.contains_key(route.listener.as_str()) {
            let known = listeners.iter().map(|listener| listener.name.as_str());
            return Err(unknown_listener(&route.listener, known).within(format_args!("routes[{index}]")));
        }
        let key = (route.listener.as_str(), route.name.as_str(), route.alpn.as_str());
        if let Some(first) = keys.first(key, index) {
            let problem = format!("{} is also routes[{first}]: remove one", route.key());
            return Err(Invalid::new(format!("routes[{index}].name"), problem));
        }
    }
    Ok(())
}

/// Refuses a route whose listener is not among the known ones.
///
/// # Errors
/// Names those that come closest.
pub fn check_route_listener<'a>(
    route: &Route,
    known: impl IntoIterator<Item = &'a str, IntoIter: Clone>,
) -> Result<(), Invalid> {
    let known = known.into_iter();
    if known.clone().any(|name| name == route.listener) {
        return Ok(());
    }
    Err(unknown_listener(&route.listener, known))
}

fn unknown_listener<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Invalid {
    let mut known: Vec<_> = known.map(|other| (distance(name, other), other)).collect();
    known.sort_unstable();
    let shown: Vec<_> = known.iter().take(SHOWN).map(|(_, name)| *name).collect();
    let remedy = match known.len() {
        0 => "there are none yet: add it first".to_owned(),
        1..=SHOWN => format!("write one of {}, or add it", shown.join(", ")),
        count => format!("write one of {} (of {count}), or add it", shown.join(", ")),
    };
    Invalid::new("listener", format!("{} is no listener: {remedy}", quoted(name)))
}

/// Where each value was first seen.
struct Firsts<T>(HashMap<T, usize, RandomState>);

impl<T: Eq + Hash> Firsts<T> {
    fn new(capacity: usize) -> Self {
        Self(HashMap::with_capacity_and_hasher(capacity, RandomState::default()))
    }

    /// The index at which the value was before; notes it where it is new.
    fn first(&mut self, value: T, index: usize) -> Option<usize> {
        let first = *self.0.entry(value).or_insert(index);
        (first != index).then_some(first)
    }
}

/// Edits (a byte added, removed, replaced) from one name to another.
fn distance(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.bytes().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, b) in to.bytes().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[to.len()]
}

/// Names in a message.
const SHOWN: usize = 8;
