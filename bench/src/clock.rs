//! The crate's one clock: everything else is handed times as values.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Nanoseconds since the program's first call.
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub(crate) fn now_ns() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    u64::try_from(START.get_or_init(Instant::now).elapsed().as_nanos()).expect("a run ends within 584 years")
}

/// Lets time pass: a measurement that lasts, a proxy that settles, a load that is paced.
#[expect(clippy::disallowed_methods, reason = "a benchmark is about time that passes")]
pub(crate) fn sleep(duration: Duration) {
    std::thread::sleep(duration);
}
