//! Whether the wall clock can be trusted: it can once it has kept pace with the monotonic clock for a while.
//!
//! A machine may start with a clock that is years ahead, until a time server sets it. Whatever is deleted for good
//! because of its age must wait for that.

use std::time::Duration;

/// Since when the wall clock has not been set.
#[derive(Clone, Copy, Debug)]
pub struct ClockStability {
    /// Monotonic time since an arbitrary start.
    elapsed: Duration,
    /// Seconds since 1970.
    unix_s: i64,
}

/// How far the two clocks may differ, in seconds: time servers slew clocks.
const TOLERANCE_S: u64 = 60;

impl ClockStability {
    /// Starts to observe the clocks.
    #[must_use]
    pub const fn new(elapsed: Duration, unix_s: i64) -> Self {
        Self { elapsed, unix_s }
    }

    /// For how long the wall clock has not been set. Both times are those of now; `elapsed` never goes back.
    pub fn stable_for(&mut self, elapsed: Duration, unix_s: i64) -> Duration {
        let monotonic = elapsed.saturating_sub(self.elapsed);
        let wall = unix_s.saturating_sub(self.unix_s);
        let difference = wall.saturating_sub_unsigned(monotonic.as_secs());
        if difference.unsigned_abs() > TOLERANCE_S {
            *self = Self::new(elapsed, unix_s);
            return Duration::ZERO;
        }
        monotonic
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn setting_the_clock_starts_again() {
        let s = Duration::from_secs;
        let mut stability = ClockStability::new(s(100), 1_000_000);
        assert_eq!(stability.stable_for(s(100), 1_000_000), s(0));
        assert_eq!(stability.stable_for(s(3700), 1_003_600), s(3600));
        // Slewed.
        assert_eq!(stability.stable_for(s(7300), 1_007_259), s(7200));
        assert_eq!(stability.stable_for(s(7300), 1_007_261), s(0));
        assert_eq!(stability.stable_for(s(7400), 1_007_361), s(100));
        // Back, and far.
        assert_eq!(stability.stable_for(s(7400), 1_000_000), s(0));
        assert_eq!(stability.stable_for(s(7500), i64::MIN), s(0));
        assert_eq!(stability.stable_for(s(7500), i64::MAX), s(0));
    }
}
