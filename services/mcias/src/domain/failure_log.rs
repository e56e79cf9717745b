//! Which failed logins have a line in the log: few enough that a flood cannot fill the disk, and enough of each source that a program which
//! reads the log (fail2ban, CrowdSec) sees who is at it.
//!
//! Within a minute a source has some lines and all sources together have some more. What has none is counted, and the number is
//! a line of its own afterwards. The audit log does not depend on this.

use std::collections::HashMap;
use std::time::Duration;

use super::throttle::Source;

/// Lines of the last minute. Times are since an arbitrary start, the same for all calls.
#[derive(Debug, Default)]
pub struct FailureLog {
    since: Duration,
    /// Only sources with a line: there are never more than [`MAX_LINES`].
    lines: HashMap<Source, u32>,
    total: u32,
    left_out: u64,
}

/// Lines of all sources in a minute.
pub const MAX_LINES: u32 = 100;

/// Lines of one source in a minute.
pub const MAX_LINES_OF_SOURCE: u32 = 10;

const WINDOW: Duration = Duration::from_secs(60);

impl FailureLog {
    /// Whether a failure from there has a line now.
    pub fn admits(&mut self, source: Source, now: Duration) -> bool {
        if now.saturating_sub(self.since) >= WINDOW {
            self.since = now;
            self.lines.clear();
            self.total = 0;
        }
        let of_source = self.lines.get(&source).copied().unwrap_or_default();
        if self.total >= MAX_LINES || of_source >= MAX_LINES_OF_SOURCE {
            self.left_out += 1;
            return false;
        }
        self.lines.insert(source, of_source + 1);
        self.total += 1;
        true
    }

    /// How many failures had no line, once their minute is over.
    pub fn take_left_out(&mut self, now: Duration) -> Option<u64> {
        if self.left_out == 0 || now.saturating_sub(self.since) < WINDOW {
            return None;
        }
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    fn at(number: u32) -> Source {
        Source::from(IpAddr::V4(Ipv4Addr::from_bits(number)))
    }

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_source_has_some_lines_a_minute_and_all_have_some_more() {
        let mut log = FailureLog::default();
        let mut lines = |sources: u32, times: u32, now| {
            let all = (0..times).flat_map(|_| (0..sources).map(at));
            all.filter(|source| log.admits(*source, now)).count()
        };
        assert_eq!(lines(1, 1000, s(100)), 10);
        assert_eq!(lines(1000, 10, s(159)), 90);
        assert_eq!(lines(1, 1000, s(160)), 10, "a minute later");
        assert_eq!(log.take_left_out(s(219)), None, "its minute is not over");
        assert_eq!(log.take_left_out(s(220)), Some(990 + 9910 + 990));
        assert_eq!(log.take_left_out(s(300)), None);
        assert!(log.lines.len() <= MAX_LINES as usize);
    }
}
