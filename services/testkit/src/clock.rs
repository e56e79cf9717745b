//! The one place that reads the clock and waits.

use std::time::{Duration, Instant};

/// How long a test waits for what must happen. Long, so that no slow machine fails a test: waiting costs nothing where it happens.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Now, on the monotonic clock.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the clock module")]
pub fn now() -> Instant {
    Instant::now()
}

/// Waits. A test that can wait for an event uses [`wait_for`] instead.
#[expect(clippy::disallowed_methods, reason = "this is the clock module")]
pub fn sleep(time: Duration) {
    std::thread::sleep(time);
}

/// Waits so many milliseconds.
pub fn sleep_ms(ms: u64) {
    sleep(Duration::from_millis(ms));
}

/// Asks again and again until there is an answer.
///
/// # Panics
/// When there is none within `limit`, naming `what`.
pub fn wait_for<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = now();
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < limit, "waited {limit:?} in vain for {what}");
        sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// Waits until something is so.
///
/// # Panics
/// When it is not within [`PATIENCE`], naming `what`.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    wait_for(what, PATIENCE, || is_so().then_some(()));
}
