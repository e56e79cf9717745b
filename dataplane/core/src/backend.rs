//! What is known of a backend: connections, health, ejection, slow start, drain.
//!
//! One [`BackendLive`] stands for one address, whichever routes lead there; every worker writes to it, and
//! nobody waits: it is a handful of relaxed atomics. Two workers that report at the same instant may see each
//! other's report late, which moves a decision by one connection; an ejection is announced once all the same.
//!
//! Two sources of health: *connect failures* of real connections eject for a time (passive), and *checks*
//! take down until they pass again (active). A drain is neither: it is what an operator asked for.
//!
//! Left out: who is picked ([`crate::balance`]) and when checks run. Times are milliseconds on a clock that
//! starts above 0 and never goes back.

use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64};

use crate::balance::stable_hash;
use crate::rate::source;

#[cfg(test)]
mod tests;

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
    checked: AtomicU8,
    /// Checks in a row that contradict `checked`.
    contradictions: AtomicU32,
    draining: AtomicBool,
    /// When health or drain last changed (the end of an ejection aside); 0: never.
    changed_ms: AtomicU64,
    /// When it came back from down or drain; 0: it was never away.
    back_ms: AtomicU64,
}

/// Whether a backend can be reached, as far as is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Its checks pass, or connections succeed.
    Up,
    /// Its checks fail. It gets no connection.
    Down,
    /// Too many connects failed in a row. For a time it gets none, unless all are ejected.
    Ejected,
    /// Nothing was tried yet. It counts as up.
    Unknown,
}

const CHECK_UNKNOWN: u8 = 0;
const CHECK_UP: u8 = 1;
const CHECK_DOWN: u8 = 2;

/// An ejection lasts at most this many times the configured time.
const MAX_EJECTION_FACTOR: u32 = 10;

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
            checked: AtomicU8::new(CHECK_UNKNOWN),
            contradictions: AtomicU32::new(0),
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

    /// A check passed. `rise` in a row bring a backend up that was down; the first is enough where nothing was
    /// known. Returns the new health where this changed it.
    pub fn check_passed(&self, now_ms: u64, rise: u32) -> Option<Health> {
        match self.checked.load(Relaxed) {
            CHECK_UP => {
                self.contradictions.store(0, Relaxed);
                None
            }
            CHECK_UNKNOWN => self.turn(CHECK_UNKNOWN, CHECK_UP, now_ms),
            _ => {
                self.contradicted(rise)?;
                let health = self.turn(CHECK_DOWN, CHECK_UP, now_ms)?;
                self.back_ms.store(now_ms, Relaxed);
                self.end_ejection(now_ms);
                Some(health)
            }
        }
    }

    /// A check failed. `fall` in a row take the backend down. Returns the new health where this changed it.
    pub fn check_failed(&self, now_ms: u64, fall: u32) -> Option<Health> {
        match self.checked.load(Relaxed) {
            CHECK_DOWN => {
                self.contradictions.store(0, Relaxed);
                None
            }
            state => {
                self.contradicted(fall)?;
                self.turn(state, CHECK_DOWN, now_ms)
            }
        }
    }

    /// Nobody checks it any more: it counts as up, as before the first check.
    pub fn checks_ended(&self, now_ms: u64) {
        if self.checked.swap(CHECK_UNKNOWN, Relaxed) == CHECK_DOWN {
            self.changed_ms.store(now_ms, Relaxed);
            self.back_ms.store(now_ms, Relaxed);
        }
        self.contradictions.store(0, Relaxed);
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

    /// What is known of it: checks speak louder than ejections.
    #[must_use]
    pub fn health(&self, now_ms: u64) -> Health {
        match self.checked.load(Relaxed) {
            CHECK_DOWN => Health::Down,
            _ if self.ejected_until_ms.load(Relaxed) > now_ms => Health::Ejected,
            CHECK_UNKNOWN if self.total.load(Relaxed) == 0 => Health::Unknown,
            _ => Health::Up,
        }
    }

    /// Whether it gets new connections in the ordinary way: neither down nor ejected nor draining.
    #[must_use]
    pub fn usable(&self, now_ms: u64) -> bool {
        self.allowed() && self.ejected_until_ms.load(Relaxed) <= now_ms
    }

    /// Whether it may get a connection at all, should every other be worse: neither down nor draining.
    #[must_use]
    pub fn allowed(&self) -> bool {
        self.checked.load(Relaxed) != CHECK_DOWN && !self.draining()
    }

    /// Whether an operator took it out.
    #[must_use]
    pub fn draining(&self) -> bool {
        self.draining.load(Relaxed)
    }

    /// Its share at this moment, in thousandths of the configured weight: a tenth when it comes back from down,
    /// ejected or drain, rising evenly to the whole in `slow_start_ms`. At least 1.
    #[must_use]
    pub fn effective_weight(&self, configured: u32, slow_start_ms: u64, now_ms: u64) -> u32 {
        let thousandths = if slow_start_ms == 0 {
            1000
        } else {
            match self.back_since(now_ms) {
                0 => 1000,
                back => {
                    let age = now_ms.saturating_sub(back).min(slow_start_ms);
                    100 + 900_u64.saturating_mul(age) / slow_start_ms
                }
            }
        };
        let weight = u64::from(configured).saturating_mul(thousandths).max(1);
        u32::try_from(weight).unwrap_or(u32::MAX)
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
    fn end_ejection(&self, now_ms: u64) {
        if self.ejected_until_ms.load(Relaxed) > now_ms {
            self.ejected_until_ms.store(now_ms, Relaxed);
        }
    }

    /// Counts a check that contradicts what was known; something where there are `enough` in a row.
    fn contradicted(&self, enough: u32) -> Option<()> {
        (self.contradictions.fetch_add(1, Relaxed).saturating_add(1) >= enough).then_some(())
    }

    /// Moves from one result to the other, once.
    fn turn(&self, from: u8, to: u8, now_ms: u64) -> Option<Health> {
        self.checked.compare_exchange(from, to, Relaxed, Relaxed).ok()?;
        self.contradictions.store(0, Relaxed);
        self.changed_ms.store(now_ms, Relaxed);
        Some(if to == CHECK_DOWN { Health::Down } else { Health::Up })
    }
}
