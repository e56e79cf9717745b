//! Counters that workers write and the admin side reads: relaxed atomics, no lock, bounded in number.

use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use mc_api::mcproxy::TappedHead;
use mc_core::hold::Hold;
use mc_core::limits::SourceCounts;
use mc_core::model::RouteKey;
use mc_core::outcome::{Outcome, RequestOutcome};
use mc_uring::ktls::InUserSpace;
use tokio::sync::broadcast;

/// What one worker counts. Only that worker writes, so an increment is a load and a store.
#[derive(Debug)]
pub struct WorkerStats {
    /// Connections accepted.
    pub accepted: Counter,
    /// Connections that have ended.
    pub closed: Counter,
    /// Bytes from clients, counted when their connection ends.
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
    /// Connections whose TLS the kernel does.
    pub tls_in_kernel: Counter,
    /// Bytes of responses that went to such connections without coming through user space.
    pub tls_spliced: Counter,
    /// Connections whose TLS stays in user space, by [`InUserSpace`].
    pub tls_in_user_space: [Counter; InUserSpace::ALL.len()],
    /// Requests by class of status: 0 none was told, 1 to 5 as `1xx` to `5xx`.
    pub requests: [Counter; CLASSES],
    /// Requests by outcome, in the order of [`RequestOutcome::ALL`].
    pub request_outcomes: [Counter; RequestOutcome::ALL.len()],
    /// Copies of requests that a mirror has answered.
    pub mirrored: Counter,
    /// Copies that were given up.
    pub mirror_failed: Counter,
    /// Copies that were not begun, because too many were on their way.
    pub mirror_dropped: Counter,
    /// From a request's complete head to its backend's connection.
    pub request_connect_time: Histogram,
    /// From that to the head of the response.
    pub request_response_time: Histogram,
    /// From a request's complete head to its end.
    pub request_time: Histogram,
    /// Connections and requests that began to wait because their route was on hold.
    pub hold_waits: Counter,
    /// Those that wait no longer.
    pub hold_waits_over: Counter,
}

/// Classes of status: none, and `1xx` to `5xx`.
pub const CLASSES: usize = 6;

/// What is counted of a route, kept while the route exists, whatever is changed in it.
#[derive(Debug)]
pub struct RouteLive {
    /// Which route.
    pub key: RouteKey,
    /// Whether new connections and requests wait.
    pub hold: Hold,
    active: AtomicU32,
    removed: AtomicBool,
    counters: OnceLock<Box<RouteCounters>>,
    sources: OnceLock<Box<SourceCounts>>,
    tap: OnceLock<Box<Tap>>,
}

/// Heads of a route's requests and responses, for those who tap it. Whoever has a head never waits.
#[derive(Debug)]
pub struct Tap {
    watchers: AtomicU32,
    heads: broadcast::Sender<TappedHead>,
}

/// Somebody who taps a route.
#[derive(Debug)]
pub struct TapGuard {
    /// What comes; those who are too slow are told how much they lost.
    pub heads: broadcast::Receiver<TappedHead>,
    /// The route.
    pub live: Arc<RouteLive>,
}

/// Heads that a watcher may be behind before it loses some.
const TAP_BACKLOG: usize = 256;

impl Default for Tap {
    fn default() -> Self {
        Self { watchers: AtomicU32::new(0), heads: broadcast::Sender::new(TAP_BACKLOG) }
    }
}

impl Tap {
    /// Shows a head to all.
    pub fn show(&self, head: TappedHead) {
        // The last watcher may have left just now: then nobody misses it.
        drop(self.heads.send(head));
    }
}

impl Drop for TapGuard {
    fn drop(&mut self) {
        if let Some(tap) = self.live.tap.get() {
            tap.watchers.fetch_sub(1, Ordering::Relaxed);
        }
    }
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
    /// Requests by class of status, as [`WorkerStats::requests`].
    pub requests: [AtomicU64; CLASSES],
}

/// What is counted of a route's policy, kept while the route has a policy of this name.
#[derive(Debug)]
pub struct PolicyLive {
    /// Its name.
    pub name: String,
    /// Whose tokens are taken from the table that all rates share.
    pub owner: u64,
    /// Requests to which it applied.
    pub applied: AtomicU64,
    /// Requests to which it would have, had it not been in dry run.
    pub dry_run: AtomicU64,
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
            tls_in_kernel: Counter::default(),
            tls_spliced: Counter::default(),
            tls_in_user_space: std::array::from_fn(|_| Counter::default()),
            requests: std::array::from_fn(|_| Counter::default()),
            request_outcomes: std::array::from_fn(|_| Counter::default()),
            mirrored: Counter::default(),
            mirror_failed: Counter::default(),
            mirror_dropped: Counter::default(),
            request_connect_time: Histogram::default(),
            request_response_time: Histogram::default(),
            request_time: Histogram::default(),
            hold_waits: Counter::default(),
            hold_waits_over: Counter::default(),
        }
    }
}

impl WorkerStats {
    /// Connections and requests that wait now because their route is on hold.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        // Read in this order, one that goes on in between cannot make it negative.
        let over = self.hold_waits_over.get();
        self.hold_waits.get().saturating_sub(over)
    }
}

impl RouteLive {
    /// A route that has seen nothing.
    #[must_use]
    pub fn new(key: RouteKey) -> Self {
        Self {
            key,
            hold: Hold::default(),
            active: AtomicU32::new(0),
            removed: AtomicBool::new(false),
            counters: OnceLock::new(),
            sources: OnceLock::new(),
            tap: OnceLock::new(),
        }
    }

    /// Counts a connection, unless there are `limit` already (0: no limit).
    pub fn acquire(&self, limit: u32) -> bool {
        if limit == 0 {
            self.active.fetch_add(1, Ordering::Relaxed);
            return true;
        }
        let more = |active| (active < limit).then_some(active + 1);
        self.active.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    /// Uncounts a connection.
    pub fn release(&self) {
        self.active.fetch_sub(1, Ordering::Relaxed);
    }

    /// Connections now.
    #[must_use]
    pub fn active(&self) -> u32 {
        self.active.load(Ordering::Relaxed)
    }

    /// Marks the route as gone from the table.
    pub fn remove(&self) {
        self.removed.store(true, Ordering::Relaxed);
    }

    /// Whether the route is gone from the table.
    #[must_use]
    pub fn is_removed(&self) -> bool {
        self.removed.load(Ordering::Relaxed)
    }

    /// The counters, made at the first connection: a million idle routes cost nothing here.
    pub fn counters(&self) -> &RouteCounters {
        self.counters.get_or_init(Box::default)
    }

    /// Connections by source, made where a route first has a limit for them.
    pub fn sources(&self) -> &SourceCounts {
        self.sources.get_or_init(Box::default)
    }

    /// Where heads go while somebody taps the route.
    pub fn tapped(&self) -> Option<&Tap> {
        self.tap.get().map(|tap| &**tap).filter(|tap| tap.watchers.load(Ordering::Relaxed) > 0)
    }

    /// Begins to tap.
    pub fn tap(self: &Arc<Self>) -> TapGuard {
        let tap = self.tap.get_or_init(Box::default);
        tap.watchers.fetch_add(1, Ordering::Relaxed);
        TapGuard { heads: tap.heads.subscribe(), live: Arc::clone(self) }
    }

    /// The counters of a route that has seen a connection.
    pub fn seen(&self) -> Option<&RouteCounters> {
        self.counters.get().map(|counters| &**counters)
    }
}

impl PolicyLive {
    /// A policy of the route with this key that has seen nothing.
    #[must_use]
    pub fn new(route: &RouteKey, name: &str) -> Self {
        let owner = foldhash::fast::FixedState::default().hash_one((route, name));
        Self { name: name.to_owned(), owner, applied: AtomicU64::new(0), dry_run: AtomicU64::new(0) }
    }
}

impl RouteCounters {
    /// Counts a connection that was routed here.
    pub fn begun(&self) {
        self.total.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a connection that has ended.
    pub fn ended(&self, outcome: Outcome, bytes_in: u64, bytes_out: u64) {
        self.bytes_in.fetch_add(bytes_in, Ordering::Relaxed);
        self.bytes_out.fetch_add(bytes_out, Ordering::Relaxed);
        self.outcomes[outcome as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a request that has ended with this status; 0: none was told.
    pub fn request(&self, status: u16) {
        self.requests[class(status)].fetch_add(1, Ordering::Relaxed);
    }
}

/// The class of a status, as an index into [`WorkerStats::requests`].
#[must_use]
pub fn class(status: u16) -> usize {
    usize::from((status / 100).min(5))
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
