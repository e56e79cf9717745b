//! Counters that workers write and the admin side reads: relaxed atomics, no lock, bounded in number.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use mc_core::model::RouteKey;
use mc_core::outcome::Outcome;

/// What one worker counts. Only that worker writes, so an increment is a load and a store.
#[derive(Debug)]
pub struct WorkerStats {
    /// Connections accepted.
    pub accepted: Counter,
    /// Connections that have ended.
    pub closed: Counter,
    /// Bytes from clients, at the end of each connection and each second.
    pub bytes_in: Counter,
    /// Bytes to clients.
    pub bytes_out: Counter,
    /// Ended connections by outcome, in the order of [`Outcome::ALL`].
    pub outcomes: [Counter; Outcome::ALL.len()],
    /// From accept to a complete ClientHello.
    pub hello_time: Histogram,
    /// From the route's choice to a connected backend.
    pub connect_time: Histogram,
    /// From accept to the end.
    pub duration: Histogram,
}

/// What is counted of a route, kept while the route exists, whatever is changed in it.
#[derive(Debug)]
pub struct RouteLive {
    /// Which route.
    pub key: RouteKey,
    /// Connections now: the route's limit is judged by it.
    pub active: AtomicU32,
    /// Set when the route is gone from the table.
    pub removed: std::sync::atomic::AtomicBool,
    counters: OnceLock<Box<RouteCounters>>,
}

/// Counters of a route that has seen a connection.
#[derive(Debug, Default)]
pub struct RouteCounters {
    /// Connections routed here.
    pub total: AtomicU64,
    /// Bytes from clients.
    pub bytes_in: AtomicU64,
    /// Bytes to clients.
    pub bytes_out: AtomicU64,
    /// Ended connections by outcome, in the order of [`Outcome::ALL`].
    pub outcomes: [AtomicU64; Outcome::ALL.len()],
}

/// A counter with one writer.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

/// Times in buckets of powers of two: bucket i counts times below 2^i times 64 microseconds, the last the rest.
#[derive(Debug, Default)]
pub struct Histogram {
    /// Counts by bucket, not cumulative.
    pub buckets: [Counter; Self::BUCKETS],
    /// Sum of all times in microseconds.
    pub sum_us: Counter,
}

impl Default for WorkerStats {
    fn default() -> Self {
        Self {
            accepted: Counter::default(),
            closed: Counter::default(),
            bytes_in: Counter::default(),
            bytes_out: Counter::default(),
            outcomes: std::array::from_fn(|_| Counter::default()),
            hello_time: Histogram::default(),
            connect_time: Histogram::default(),
            duration: Histogram::default(),
        }
    }
}

impl RouteLive {
    /// A route that has seen nothing.
    #[must_use]
    pub fn new(key: RouteKey) -> Self {
        Self {
            key,
            active: AtomicU32::new(0),
            removed: std::sync::atomic::AtomicBool::new(false),
            counters: OnceLock::new(),
        }
    }

    /// The counters, made at the first connection: a million idle routes cost nothing here.
    pub fn counters(&self) -> &RouteCounters {
        self.counters.get_or_init(Box::default)
    }

    /// The counters of a route that has seen a connection.
    pub fn seen(&self) -> Option<&RouteCounters> {
        self.counters.get().map(|counters| &**counters)
    }
}

impl Counter {
    /// Adds; only the one writer may.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// The count now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Histogram {
    /// Number of buckets: the last but one ends at 2^20 times 64 us, about 67 s.
    pub const BUCKETS: usize = 22;

    /// Counts one time.
    pub fn record_us(&self, us: u64) {
        let index = (64 - (us / 64).leading_zeros() as usize).min(Self::BUCKETS - 1);
        self.buckets[index].add(1);
        self.sum_us.add(us);
    }

    /// Upper end of bucket `index` in microseconds; `None` for the last, which has none.
    #[must_use]
    pub fn bound_us(index: usize) -> Option<u64> {
        (index < Self::BUCKETS - 1).then(|| 64 << index)
    }
}
