//! Which responses with a server error have a line in the log: a flood that is refused must not fill the disk.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Lines of the last minute. Times are since an arbitrary start, the same for all calls.
#[derive(Debug, Default)]
pub(super) struct Lines(Mutex<Minute>);

#[derive(Debug, Default)]
struct Minute {
    since: Duration,
    count: u64,
}

/// Lines in a minute. What is beyond is counted by the metrics.
const MAX: u64 = 100;

const WINDOW: Duration = Duration::from_secs(60);

impl Lines {
    /// Whether a response has a line now. When a minute with more is over, their number is a line of its own.
    pub(super) fn admits(&self, now: Duration) -> bool {
        let mut minute = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_sub(minute.since) >= WINDOW {
            let left_out = minute.count.saturating_sub(MAX);
            *minute = Minute { since: now, count: 0 };
            if left_out > 0 {
                tracing::warn!(left_out, "responses with a server error that had no line of their own");
            }
        }
        minute.count += 1;
        minute.count <= MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_has_so_many_lines() {
        let lines = Lines::default();
        let admitted =
            |count: usize, at: u64| (0..count).filter(|_| lines.admits(Duration::from_secs(at))).count();
        assert_eq!(admitted(150, 100), 100);
        assert_eq!(admitted(10, 159), 0);
        assert_eq!(admitted(10, 160), 10);
    }
}
