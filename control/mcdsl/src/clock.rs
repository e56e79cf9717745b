//! The clock: the only place that reads the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The machine's clock, which a test can move.
#[derive(Clone, Debug)]
pub struct Clock {
    start: Instant,
    /// What a test adds to the wall clock, in milliseconds.
    ahead_ms: Arc<AtomicI64>,
    /// What a test adds to the wall clock and the elapsed time, in milliseconds.
    passed_ms: Arc<AtomicU64>,
}

impl Clock {
    /// The machine's clock.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the clock module")]
    pub fn system() -> Self {
        Self { start: Instant::now(), ahead_ms: Arc::default(), passed_ms: Arc::default() }
    }

    /// Milliseconds since 1970. It jumps when the machine's clock is set.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the clock module")]
    pub fn unix_ms(&self) -> i64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(now.as_millis())
            .unwrap_or(i64::MAX)
            .saturating_add(self.ahead_ms.load(Ordering::Relaxed))
            .saturating_add_unsigned(self.passed_ms.load(Ordering::Relaxed))
    }

    /// Seconds since 1970. It jumps when the machine's clock is set.
    #[must_use]
    pub fn unix_s(&self) -> i64 {
        self.unix_ms().div_euclid(1000)
    }

    /// Time since this clock was created. It is monotonic.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the clock module")]
    pub fn elapsed(&self) -> Duration {
        let passed = Duration::from_millis(self.passed_ms.load(Ordering::Relaxed));
        Instant::now().saturating_duration_since(self.start).saturating_add(passed)
    }

    /// Advances the wall clock and the elapsed time. For tests.
    pub fn pass(&self, time: Duration) {
        let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.passed_ms.fetch_add(ms, Ordering::Relaxed);
    }

    /// Sets the wall clock forward or back, as an operator or a time server may. For tests.
    pub fn jump(&self, by_s: i64) {
        self.ahead_ms.fetch_add(by_s * 1000, Ordering::Relaxed);
    }
}
