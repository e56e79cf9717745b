//! What is known of a backend: connections, health, ejection, slow start, drain.

use std::net::SocketAddr;

/// A backend's state, shared by every route that leads to its address.
#[derive(Debug)]
pub struct BackendLive {
    /// Where it is.
    pub address: SocketAddr,
}

impl BackendLive {
    /// One of which nothing is known yet: it counts as up.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self { address }
    }
}
