//! Connections as the admin side asks for them: by which filter, what is listed of one, and what was ended.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use ipnet::IpNet;

use crate::access_log::id_text;

/// Which connections a call is about. Empty parts match all.
#[derive(Clone, Debug, Default)]
pub struct ConnectionFilter {
    /// Any of these ids.
    pub ids: Vec<u64>,
    /// [`mc_core::model::Listener::name`].
    pub listener: Option<String>,
    /// The name that the client asked for.
    pub name: Option<String>,
    /// The client's network.
    pub client: Option<IpNet>,
    /// Where it goes.
    pub backend: Option<SocketAddr>,
    /// Routes that were removed or replaced: connections whose route is marked so
    /// ([`crate::stats::RouteLive::is_removed`]).
    pub removed_routes: bool,
}

/// A live connection.
#[derive(Clone, Debug)]
pub struct ConnectionInfo {
    /// As in the log.
    pub id: u64,
    /// The true client.
    pub client: SocketAddr,
    /// Who connected to us.
    pub peer: SocketAddr,
    /// Listener's name.
    pub listener: String,
    /// Name that the client asked for; empty where it did not.
    pub name: String,
    /// The route's name; empty before it is known.
    pub route: String,
    /// Where it goes, or where its requests in flight do.
    pub backends: Vec<SocketAddr>,
    /// Its requests in flight, where it speaks HTTP.
    pub requests: usize,
    /// Since accept.
    pub age: Duration,
    /// Since something moved.
    pub idle: Duration,
    /// Bytes from the client.
    pub bytes_in: u64,
    /// Bytes to the client.
    pub bytes_out: u64,
    /// `hello`, `hold`, `connect`, `relay`, `idle` or `refused` (it was told why and has a moment to hear it).
    pub phase: &'static str,
}

/// What was ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// Connections.
    pub connections: u64,
    /// Requests of connections that go on.
    pub requests: u64,
}

impl fmt::Display for ConnectionFilter {
    /// As an operator writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts: Vec<String> = self.ids.iter().map(|id| format!("id={}", id_text(*id))).collect();
        parts.extend(self.listener.iter().map(|listener| format!("listener={listener}")));
        parts.extend(self.name.iter().map(|name| format!("name={name}")));
        parts.extend(self.client.iter().map(|network| format!("client={network}")));
        parts.extend(self.backend.iter().map(|backend| format!("backend={backend}")));
        parts.extend(self.removed_routes.then(|| "removed routes".to_owned()));
        if parts.is_empty() { f.write_str("all") } else { f.write_str(&parts.join(" ")) }
    }
}
