//! The one place where the time is read; everything else takes it as a value.

use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

static START: LazyLock<Instant> = LazyLock::new(read);

/// Microseconds since this process first asked; never goes back.
#[must_use]
pub fn micros() -> u64 {
    let start = *START;
    u64::try_from(read().saturating_duration_since(start).as_micros()).unwrap_or(u64::MAX)
}

/// Milliseconds since this process first asked; never goes back.
#[must_use]
pub fn millis() -> u64 {
    micros() / 1000
}

/// Nanoseconds since this process first asked; never goes back.
#[must_use]
pub fn nanos() -> u64 {
    let start = *START;
    u64::try_from(read().saturating_duration_since(start).as_nanos()).unwrap_or(u64::MAX)
}

/// Wall-clock time in milliseconds since 1970.
#[must_use]
pub fn unix_millis() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "this is the clock module")]
    let now = SystemTime::now();
    now.duration_since(UNIX_EPOCH).map_or(0, |age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX))
}

/// Wall-clock time in seconds since 1970, as certificates have it.
#[must_use]
pub fn unix_seconds() -> i64 {
    i64::try_from(unix_millis() / 1000).unwrap_or(i64::MAX)
}

/// Stops this thread for a while. Only for a program that has not begun to serve.
pub fn pause(time: Duration) {
    #[expect(clippy::disallowed_methods, reason = "this is the clock module")]
    std::thread::sleep(time);
}

fn read() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "this is the clock module")]
    Instant::now()
}
