//! The one place that reads a clock: how long a step took, for the person who waited.

use std::time::{Duration, Instant};

/// A stopwatch.
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts now.
    #[expect(clippy::disallowed_methods, reason = "this is the clock module")]
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    /// Time since the start.
    pub(crate) fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// `4.2 s` or `3 min 07 s`.
pub(crate) fn words(time: Duration) -> String {
    let seconds = time.as_secs();
    if seconds < 60 {
        format!("{:.1} s", time.as_secs_f64())
    } else {
        format!("{} min {:02} s", seconds / 60, seconds % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_like_a_person_says_them() {
        let check = |millis, expect: &str| assert_eq!(words(Duration::from_millis(millis)), expect);
        check(0, "0.0 s");
        check(4_240, "4.2 s");
        check(60_000, "1 min 00 s");
        check(187_900, "3 min 07 s");
    }
}
