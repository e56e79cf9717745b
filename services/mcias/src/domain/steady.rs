//! Whether the machine's clock may be believed: it is, once it has gone like the time that cannot be set for a while.
//!
//! A machine may start with a clock that is years ahead, until a time server sets it right. What is taken away for good by what
//! the clock says must wait for that.

use std::time::Duration;

/// Since when the clock was not set.
#[derive(Clone, Copy, Debug)]
pub struct Steady {
    /// Time since any start.
    elapsed: Duration,
    /// Seconds since 1970.
    unix_s: i64,
}

/// How far the two may be apart, in seconds: time servers slew clocks.
const APART_S: u64 = 60;

impl Steady {
    /// From now on.
    #[must_use]
    pub const fn new(elapsed: Duration, unix_s: i64) -> Self {
        Self { elapsed, unix_s }
    }

    /// For how long the clock has not been set. Both times are now's, and `elapsed` never goes back.
    pub fn lasts(&mut self, elapsed: Duration, unix_s: i64) -> Duration {
        let gone = elapsed.saturating_sub(self.elapsed);
        let told = unix_s.saturating_sub(self.unix_s);
        let apart = told.saturating_sub_unsigned(gone.as_secs());
        if apart.unsigned_abs() > APART_S {
            *self = Self::new(elapsed, unix_s);
            return Duration::ZERO;
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_set_is_new() {
        let s = Duration::from_secs;
        let mut steady = Steady::new(s(100), 1_000_000);
        assert_eq!(steady.lasts(s(100), 1_000_000), s(0));
        assert_eq!(steady.lasts(s(3700), 1_003_600), s(3600));
        // Slewed.
        assert_eq!(steady.lasts(s(7300), 1_007_259), s(7200));
        assert_eq!(steady.lasts(s(7300), 1_007_261), s(0));
        assert_eq!(steady.lasts(s(7400), 1_007_361), s(100));
        // Back, and far.
        assert_eq!(steady.lasts(s(7400), 1_000_000), s(0));
        assert_eq!(steady.lasts(s(7500), i64::MIN), s(0));
        assert_eq!(steady.lasts(s(7500), i64::MAX), s(0));
    }
}
