//! What all workers share besides the snapshot: limits for all clients together, and callbacks for refusals and ejections.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mc_core::limits::{Count, SourceCounts};
use mc_core::outcome::Outcome;
use mc_core::rate::RateTable;

use crate::memory::Memory;
use crate::tls::Tls;

/// What all workers share besides the snapshot.
pub struct SharedPolicy {
    /// What terminates TLS.
    pub tls: Arc<Tls>,
    /// How fast each source opens connections.
    pub rates: RateTable,
    /// How fast each client asks, by policy.
    pub request_rates: RateTable,
    /// What clients may have at the same time.
    pub budgets: Budgets,
    /// Told of each refused connection; must not wait.
    pub on_refused: Box<dyn Fn(Refused<'_>) + Send + Sync>,
    /// Told when a backend was ejected; must not wait.
    pub on_ejected: Box<dyn Fn(SocketAddr) + Send + Sync>,
}

/// What clients may have at the same time, on all listeners.
#[derive(Debug)]
pub struct Budgets {
    /// Connections of all.
    pub connections: Count,
    /// Connections of each client; 0: no limit.
    pub per_source: u32,
    /// How many each has.
    pub sources: SourceCounts,
    /// Memory.
    pub memory: Memory,
    /// Responses that are compressed at the same time: see [`Self::begin_coding`].
    pub coders: Count,
    /// How often a descriptor was missing: see [`Self::missed_descriptor`].
    pub missed: AtomicU64,
}

/// Bytes that compressing a response takes while it lasts, at most.
const CODER_BYTES: u64 = 1280 * 1024;

impl Budgets {
    /// For so many connections, `per_source` of each client (0: no limit), and this memory, a quarter of which may go
    /// into compressing responses.
    #[must_use]
    pub fn new(connections: u32, per_source: u32, memory: Memory) -> Self {
        let coders = (memory.most() / 4 / CODER_BYTES).max(1);
        Self {
            connections: Count::new(connections),
            per_source,
            sources: SourceCounts::default(),
            memory,
            coders: Count::new(u32::try_from(coders).unwrap_or(u32::MAX)),
            missed: AtomicU64::new(0),
        }
    }

    /// Counts one more response that is compressed, unless there are as many as there may be or memory is short. Whether it
    /// was counted; if so, it is matched by one [`Count::release`].
    #[must_use]
    pub fn begin_coding(&self) -> bool {
        !self.memory.is_short() && self.coders.acquire()
    }

    /// Has every worker close the connections to backends that carry nothing: there was no descriptor for a client or a
    /// backend, and another worker may have those that can be spared.
    pub fn missed_descriptor(&self) {
        self.missed.fetch_add(1, Ordering::Relaxed);
    }
}

/// A connection that was refused.
#[derive(Clone, Copy, Debug)]
pub struct Refused<'a> {
    /// Why.
    pub outcome: Outcome,
    /// The true client.
    pub client: SocketAddr,
    /// The name that it asked for; empty where it did not.
    pub name: &'a str,
}

impl fmt::Debug for SharedPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedPolicy").finish_non_exhaustive()
    }
}
