//! Times and durations, as users type and read them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A time that a user typed: `2026-11-30`, `2026-11-30T09:13:00Z`, or `7d` (7 days ago).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// So long ago.
    Ago(Duration),
    /// A time, in seconds since 1970 (UTC).
    At(i64),
}

impl Moment {
    /// The moment in seconds since 1970 (UTC).
    #[must_use]
    pub fn unix_s(self, now: i64) -> i64 {
        match self {
            Self::Ago(duration) => now.saturating_sub_unsigned(duration.as_secs()),
            Self::At(unix_s) => unix_s,
        }
    }
}

impl std::str::FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(duration) = humantime::parse_duration(text) {
            return Ok(Self::Ago(duration));
        }
        let midnight = format!("{text} 00:00:00");
        let time = [text, &midnight].iter().find_map(|text| humantime::parse_rfc3339_weak(text).ok());
        let time =
            time.ok_or("expected a date (2026-11-30), a time (2026-11-30T09:13:00Z) or an age (7d)")?;
        Ok(Self::At(unix_s(time)))
    }
}

fn unix_s(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// Reads a lifetime in seconds: `90d`, `12h`, `1h 30m`.
///
/// # Errors
/// The text is not a duration.
pub fn parse_lifetime(text: &str) -> Result<i64, String> {
    let duration =
        humantime::parse_duration(text).map_err(|error| format!("{error}; write 90d, 12h or 30m"))?;
    i64::try_from(duration.as_secs()).ok().ok_or_else(|| "the lifetime is too long".to_owned())
}

/// Reads a duration in milliseconds: `500ms`, `5s`, `1m 30s`.
///
/// # Errors
/// The text is not a duration.
pub fn parse_millis(text: &str) -> Result<u64, String> {
    let duration =
        humantime::parse_duration(text).map_err(|error| format!("{error}; write 500ms, 5s or 1m 30s"))?;
    u64::try_from(duration.as_millis()).ok().ok_or_else(|| "the time is too long".to_owned())
}

/// A duration by its two largest units: `2h 1m`.
#[must_use]
pub fn duration(ms: u64) -> String {
    let text = humantime::format_duration(Duration::from_millis(ms)).to_string();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

/// A time to the minute, in UTC.
#[must_use]
pub fn when(unix_s: i64) -> String {
    let format = ::time::macros::format_description!("[year]-[month]-[day] [hour]:[minute]");
    let time = ::time::OffsetDateTime::from_unix_timestamp(unix_s).ok();
    time.and_then(|time| time.format(&format).ok()).unwrap_or_else(|| unix_s.to_string())
}

/// [`when`], or `-`.
#[must_use]
pub fn when_or_dash(unix_s: Option<i64>) -> String {
    unix_s.map_or_else(|| "-".to_owned(), when)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes() {
        let check = |text, expect: Option<i64>| assert_eq!(parse_lifetime(text).ok(), expect, "{text}");
        check("90d", Some(90 * 86_400));
        check("12h", Some(43_200));
        check("1h 30m", Some(5400));
        check("3600s", Some(3600));
        check("", None);
        check("d", None);
        check("7", None);
        check("-1d", None);
        check("7é", None);
    }

    #[test]
    fn milliseconds() {
        let check = |text, expect: Option<u64>| assert_eq!(parse_millis(text).ok(), expect, "{text}");
        check("5s", Some(5000));
        check("1m 30s", Some(90_000));
        check("250ms", Some(250));
        check("5", None);
        check("", None);
    }

    #[test]
    fn moments() {
        let check = |text: &str, expect: Option<i64>| {
            let moment = text.parse::<Moment>().ok();
            assert_eq!(moment.map(|moment| moment.unix_s(1_000_000)), expect, "{text}");
        };
        check("1970-01-02", Some(86_400));
        check("1970-01-02 01:00:00", Some(90_000));
        check("1970-01-02T01:00:00Z", Some(90_000));
        check("1d", Some(1_000_000 - 86_400));
        check("yesterday", None);
        check("1970-13-02", None);
        check("", None);
    }

    #[test]
    fn durations_have_two_units() {
        let check = |ms, expect: &str| assert_eq!(duration(ms), expect);
        check(7, "7ms");
        check(93_000, "1m 33s");
        check(7_265_000, "2h 1m");
        check(90_000_000, "1day 1h");
    }

    #[test]
    fn times_are_utc() {
        assert_eq!(when(1_796_116_402), "2026-12-01 09:13");
        assert_eq!(when_or_dash(None), "-");
    }
}
