//! What is known of a backend: connections, health, ejection, slow start, drain.
//!
//! One [`BackendLive`] stands for one address, whichever routes lead there; every worker writes to it, and
//! nobody waits: it is a handful of relaxed atomics. Two workers that report at the same instant may see each
//! other's report late, which moves a decision by one connection; an ejection is announced once all the same.
//!
//! Two sources of health: *connect failures* of real connections eject the address for a time (passive), and *checks*
//! take it down for the routes that ask for them until they pass again ([`Checked`], active). A drain is neither: it is
//! what an operator asked for, of the address.
//!
//! Left out: who is picked ([`crate::balance`]) and when checks run. Times are milliseconds on a clock that
//! starts above 0 and never goes back.

use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};

use mc_ebpf_abi::bucket::Source;
use mc_ebpf_abi::mix;

use crate::rate::source;

mod checked;
#[cfg(test)]
mod tests;

pub use checked::{Checked, RouteBackend, overall};

/// A backend's state, shared by every route that leads to its address.
#[derive(Debug)]
pub struct BackendLive {
    /// Where it is.
    pub address: SocketAddr,
    /// Of the address, the same in every process: clients stay with their backend across restarts.
    pub hash: u64,
    active: AtomicU32,
    total: AtomicU64,
    failures: AtomicU64,
    /// Connect failures since the last success.
    failed_in_a_row: AtomicU32,
    /// End of the latest ejection; 0: there was none.
    ejected_until_ms: AtomicU64,
    /// Length of the latest ejection.
    ejected_for_ms: AtomicU64,
    /// Ejections since the backend last proved itself.
    ejections: AtomicU32,
    draining: AtomicBool,
    /// When ejection or drain last changed (the end of an ejection aside); 0: never.
    changed_ms: AtomicU64,
    /// When it came back from drain; 0: it never drained.
    back_ms: AtomicU64,
}

/// Whether a backend can be reached, as far as is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Its checks pass, or connections succeed.
    Up,
    /// Its checks fail. It gets no connection from the routes that ask for them.
    Down,
    /// Of an address: its checks fail for some of the routes that lead there, and not for the others.
    PartlyDown,
    /// Too many connects failed in a row. For a time it gets none, unless all are ejected.
    Ejected,
    /// Nothing was tried yet. It counts as up.
    Unknown,
}

/// An ejection lasts at most this many times the configured time.
const MAX_EJECTION_FACTOR: u32 = 10;

/// A number for an address and port, the same in every process and version.
pub(crate) fn stable_hash(source: Source, port: u16) -> u64 {
    mix(mix(mix(source.high) ^ source.low) ^ u64::from(port))
}

impl BackendLive {
    /// One of which nothing is known yet: it counts as up.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            hash: stable_hash(source(address.ip()), address.port()),
            active: AtomicU32::new(0),
            total: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            failed_in_a_row: AtomicU32::new(0),
            ejected_until_ms: AtomicU64::new(0),
            ejected_for_ms: AtomicU64::new(0),
            ejections: AtomicU32::new(0),
            draining: AtomicBool::new(false),
            changed_ms: AtomicU64::new(0),
            back_ms: AtomicU64::new(0),
        }
    }

    /// Counts a connection from the moment this backend is picked, so that the next pick sees it. Each call is
    /// matched by one of [`Self::release`], however the connection ends.
    pub fn acquire(&self) {
        self.active.fetch_add(1, Relaxed);
    }

    /// The end of a connection that [`Self::acquire`] counted. One too many does nothing.
    pub fn release(&self) {
        let released = self.active.fetch_update(Relaxed, Relaxed, |active| active.checked_sub(1));
        debug_assert!(released.is_ok(), "{} released more often than acquired", self.address);
    }

    /// A connect succeeded, and that is all that is asked of the backend.
    pub fn connect_ok(&self, now_ms: u64) {
        self.connected();
        self.works(now_ms);
    }

    /// A connect succeeded: whether the backend works is seen by what comes.
    pub fn connected(&self) {
        self.total.fetch_add(1, Relaxed);
    }

    /// The backend did what was asked: proof that ends an ejection, and forgives earlier ones once it has stayed well for
    /// as long as the latest of them lasted.
    pub fn works(&self, now_ms: u64) {
        if self.failed_in_a_row.load(Relaxed) > 0 {
            self.failed_in_a_row.store(0, Relaxed);
        }
        let until = self.ejected_until_ms.load(Relaxed);
        if until > now_ms {
            self.end_ejection(now_ms);
        } else if self.ejections.load(Relaxed) > 0
            && now_ms >= until.saturating_add(self.ejected_for_ms.load(Relaxed))
        {
            self.ejections.store(0, Relaxed);
        }
    }

    /// A connect failed, or the backend took a request and closed. Ejects after `eject_after` failures in a row (0: never) for `eject_ms`, and for twice,
    /// three times, up to ten times as long where it fails again soon: after an ejection one failure is enough.
    /// Returns whether it was ejected just now.
    pub fn connect_failed(&self, now_ms: u64, eject_after: u32, eject_ms: u64) -> bool {
        self.failures.fetch_add(1, Relaxed);
        let failed = self.failed_in_a_row.fetch_add(1, Relaxed).saturating_add(1);
        let until = self.ejected_until_ms.load(Relaxed);
        if eject_after == 0 || failed < eject_after || until > now_ms {
            return false;
        }
        let factor = self.ejections.load(Relaxed).saturating_add(1).min(MAX_EJECTION_FACTOR);
        let length = eject_ms.saturating_mul(u64::from(factor));
        let ejected = length > 0
            && self
                .ejected_until_ms
                .compare_exchange(until, now_ms.saturating_add(length), Relaxed, Relaxed)
                .is_ok();
        if ejected {
            self.ejections.store(factor, Relaxed);
            self.ejected_for_ms.store(length, Relaxed);
            self.changed_ms.store(now_ms, Relaxed);
        }
        ejected
    }

    /// Takes it out for new connections, or back in. Returns whether that was a change.
    pub fn set_draining(&self, draining: bool, now_ms: u64) -> bool {
        let changed = self.draining.swap(draining, Relaxed) != draining;
        if changed {
            self.changed_ms.store(now_ms, Relaxed);
            if !draining {
                self.back_ms.store(now_ms, Relaxed);
            }
        }
        changed
    }

    /// What its connections tell: up, ejected or unknown. What checks find is [`Checked`]'s.
    #[must_use]
    pub fn health(&self, now_ms: u64) -> Health {
        if self.is_ejected(now_ms) {
            Health::Ejected
        } else if self.total() == 0 {
            Health::Unknown
        } else {
            Health::Up
        }
    }

    /// Whether too many connects failed a moment ago.
    #[must_use]
    pub fn is_ejected(&self, now_ms: u64) -> bool {
        self.ejected_until_ms.load(Relaxed) > now_ms
    }

    /// Whether an operator took it out.
    #[must_use]
    pub fn draining(&self) -> bool {
        self.draining.load(Relaxed)
    }

    /// Connections now, those being opened included.
    #[must_use]
    pub fn active(&self) -> u32 {
        self.active.load(Relaxed)
    }

    /// Connects that succeeded.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total.load(Relaxed)
    }

    /// Connects that failed.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failures.load(Relaxed)
    }

    /// When it came into its present state; 0: it was never in another.
    #[must_use]
    pub fn since_ms(&self, now_ms: u64) -> u64 {
        self.changed_ms.load(Relaxed).max(self.ejection_ended(now_ms))
    }

    /// When it last came back from anything; 0: it was never away.
    fn back_since(&self, now_ms: u64) -> u64 {
        self.back_ms.load(Relaxed).max(self.ejection_ended(now_ms))
    }

    /// When the latest ejection ended; 0: there was none, or it goes on.
    fn ejection_ended(&self, now_ms: u64) -> u64 {
        let until = self.ejected_until_ms.load(Relaxed);
        if until <= now_ms { until } else { 0 }
    }

    /// Ends an ejection now, if there is one.
    pub fn end_ejection(&self, now_ms: u64) {
        if self.ejected_until_ms.load(Relaxed) > now_ms {
            self.ejected_until_ms.store(now_ms, Relaxed);
        }
    }
}
