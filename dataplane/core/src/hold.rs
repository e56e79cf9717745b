//! A route on hold: its new connections and requests wait until the hold is over, while its backend moves.
//!
//! The admin side begins and ends holds, workers ask. Time comes in as a value: a hold that nobody ends is over at its
//! time.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// The longest hold, in milliseconds: clients wait as long.
pub const MAX_HOLD_MS: u64 = 30_000;

/// Connections and requests that wait on one worker, over all routes: each costs its client's first bytes.
pub const MAX_WAITING: usize = 1024;

/// Those of one client on one worker: no client takes the places of all others. HTTP/2 has as many streams.
pub const MAX_WAITING_PER_CLIENT: u32 = 128;

/// Whether and until when a route is on hold.
#[derive(Debug, Default)]
pub struct Hold {
    /// 0: it is not.
    until_ms: AtomicU64,
    waiting: AtomicU32,
}

impl Hold {
    /// Begins a hold of `hold_ms`, in the place of one that is on.
    pub fn begin(&self, now_ms: u64, hold_ms: u64) {
        self.until_ms.store(now_ms.saturating_add(hold_ms), Ordering::Release);
    }

    /// Ends the hold. Whether it was on.
    pub fn end(&self, now_ms: u64) -> bool {
        // Release: a worker that sees the end of the hold also sees the snapshot that was published before it.
        self.until_ms.swap(0, Ordering::AcqRel) > now_ms
    }

    /// Whether it is on.
    #[must_use]
    pub fn is_on(&self, now_ms: u64) -> bool {
        self.until_ms.load(Ordering::Acquire) > now_ms
    }

    /// How long it lasts, in milliseconds; `None`: it is not on.
    #[must_use]
    pub fn left_ms(&self, now_ms: u64) -> Option<u64> {
        self.until_ms.load(Ordering::Acquire).checked_sub(now_ms).filter(|left| *left > 0)
    }

    /// Counts one more that waits.
    pub fn wait(&self) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
    }

    /// One waits no longer.
    pub fn leave(&self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }

    /// How many wait, over all workers.
    #[must_use]
    pub fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hold_is_over_at_its_time_or_when_it_is_ended() {
        let hold = Hold::default();
        assert_eq!((hold.is_on(0), hold.left_ms(0), hold.end(0)), (false, None, false));
        hold.begin(1000, 500);
        for (now_ms, left) in [(1000, Some(500)), (1499, Some(1)), (1500, None), (9999, None)] {
            assert_eq!((hold.is_on(now_ms), hold.left_ms(now_ms)), (left.is_some(), left), "at {now_ms}");
        }
        assert!(!hold.end(1500), "its time was over");
        hold.begin(2000, 500);
        assert!(hold.end(2100));
        assert!(!hold.is_on(2100));
    }

    #[test]
    fn another_hold_takes_the_place_of_the_first() {
        let hold = Hold::default();
        hold.begin(1000, 5000);
        hold.begin(1100, 100);
        assert_eq!(hold.left_ms(1100), Some(100));
    }

    #[test]
    fn who_waits_is_counted() {
        let hold = Hold::default();
        hold.wait();
        hold.wait();
        hold.leave();
        assert_eq!(hold.waiting(), 1);
    }
}
