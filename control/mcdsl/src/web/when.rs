//! Times on pages, in UTC: how long ago or until then, with the exact time for programs and on hover; and exact times for evidence.

use maud::{Markup, html};
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

type Format = &'static [BorrowedFormatItem<'static>];

const DATE: Format = format_description!("[day padding:none] [month repr:short] [year]");
const MINUTE: Format =
    format_description!("[day padding:none] [month repr:short] [year], [hour]:[minute] UTC");
const EXACT: Format = format_description!("[year]-[month]-[day] [hour]:[minute]:[second] UTC");
const CLOCK: Format = format_description!("[hour]:[minute]:[second]");
const DAY: Format = format_description!("[day padding:none] [month repr:long] [year] (UTC)");

/// A time in seconds since 1970, with its minute: for facts and evidence.
#[must_use]
pub fn when(unix_s: i64) -> Markup {
    element(unix_s, &format(unix_s, MINUTE))
}

/// How long ago a time was, or how long it is until then: `4 min ago`, `in 6 days`; from 30 days on its date. Both times are seconds since 1970.
#[must_use]
pub fn ago(now: i64, unix_s: i64) -> Markup {
    element(unix_s, &distance(now, unix_s))
}

/// The same; `never` where there is none.
#[must_use]
pub fn ago_or(now: i64, unix_s: Option<i64>, never: &str) -> Markup {
    unix_s.map_or_else(|| html! { (never) }, |unix_s| ago(now, unix_s))
}

/// The clock's time of a moment: for lines below the heading of their [`day`].
#[must_use]
pub fn clock(unix_s: i64) -> Markup {
    element(unix_s, &format(unix_s, CLOCK))
}

/// The day of a moment: `30 November 2026 (UTC)`, with `Today, ` or `Yesterday, ` before it.
#[must_use]
pub fn day(now: i64, unix_s: i64) -> String {
    let date = format(unix_s, DAY);
    match now.div_euclid(DAY_S) - unix_s.div_euclid(DAY_S) {
        0 => format!("Today, {date}"),
        1 => format!("Yesterday, {date}"),
        _ => date,
    }
}

fn element(unix_s: i64, shown: &str) -> Markup {
    let machine =
        OffsetDateTime::from_unix_timestamp(unix_s).ok().and_then(|time| time.format(&Rfc3339).ok());
    match machine {
        Some(machine) => html! { time datetime=(machine) title=(format(unix_s, EXACT)) { (shown) } },
        None => html! { (shown) },
    }
}

/// A time that no calendar has stays a number.
fn format(unix_s: i64, format: Format) -> String {
    let time = OffsetDateTime::from_unix_timestamp(unix_s).ok();
    time.and_then(|time| time.format(format).ok()).unwrap_or_else(|| unix_s.to_string())
}

fn distance(now: i64, unix_s: i64) -> String {
    let seconds = unix_s.abs_diff(now);
    let is_past = unix_s <= now;
    // Whole units that have passed, but the nearest unit ahead: a session of 12 hours begins with `in 12 h`.
    let units = |unit: u64| if is_past { seconds / unit } else { seconds.saturating_add(unit / 2) / unit };
    let (minutes, hours, days) = (units(60), units(3600), units(24 * 3600));
    let span = if seconds < 10 {
        return "now".to_owned();
    } else if seconds < 60 {
        format!("{seconds} s")
    } else if minutes < 60 {
        format!("{minutes} min")
    } else if hours < 24 {
        format!("{hours} h")
    } else if days < 2 {
        return if is_past { "yesterday" } else { "tomorrow" }.to_owned();
    } else if days < 30 {
        format!("{days} days")
    } else {
        return format(unix_s, DATE);
    };
    if is_past { format!("{span} ago") } else { format!("in {span}") }
}

const DAY_S: i64 = 24 * 3600;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_for_people_and_for_programs() {
        let shown = when(1_796_063_380).into_string();
        let expect = r#"<time datetime="2026-11-30T18:29:40Z" title="2026-11-30 18:29:40 UTC">30 Nov 2026, 18:29 UTC</time>"#;
        assert_eq!(shown, expect);
        let shown = ago(1_796_063_380 + 240, 1_796_063_380).into_string();
        assert!(shown.ends_with(r#"title="2026-11-30 18:29:40 UTC">4 min ago</time>"#), "{shown}");
        assert_eq!(when(i64::MAX).into_string(), i64::MAX.to_string());
        assert_eq!(ago_or(0, None, "never").into_string(), "never");
    }

    #[test]
    fn a_distance_is_in_the_unit_that_fits() {
        let now = 1_796_063_380;
        for (past, text) in [
            (0, "now"),
            (9, "now"),
            (10, "10 s ago"),
            (59, "59 s ago"),
            (60, "1 min ago"),
            (3599, "59 min ago"),
            (3600, "1 h ago"),
            (86_399, "23 h ago"),
            (86_400, "yesterday"),
            (172_799, "yesterday"),
            (172_800, "2 days ago"),
            (2_591_999, "29 days ago"),
            (2_592_000, "31 Oct 2026"),
        ] {
            assert_eq!(distance(now, now - past), text, "{past}");
        }
        for (ahead, text) in [
            (9, "now"),
            (12, "in 12 s"),
            (59, "in 59 s"),
            (60, "in 1 min"),
            (89, "in 1 min"),
            (90, "in 2 min"),
            (3569, "in 59 min"),
            // What rounds to a whole larger unit is said in that.
            (3570, "in 1 h"),
            (43_199, "in 12 h"),
            (43_200, "in 12 h"),
            (84_599, "in 23 h"),
            (84_600, "tomorrow"),
            (86_399, "tomorrow"),
            (129_599, "tomorrow"),
            (129_600, "in 2 days"),
            (259_190, "in 3 days"),
            (518_400, "in 6 days"),
            (2_548_799, "in 29 days"),
            (2_548_800, "30 Dec 2026"),
            (2_592_000, "30 Dec 2026"),
        ] {
            assert_eq!(distance(now, now + ahead), text, "{ahead}");
        }
        assert_eq!(distance(i64::MIN, i64::MAX), i64::MAX.to_string());
    }

    #[test]
    fn lines_of_a_log_have_a_day_and_a_clock() {
        let now = 1_796_063_380;
        assert_eq!(day(now, now), "Today, 30 November 2026 (UTC)");
        assert_eq!(day(now, now - DAY_S), "Yesterday, 29 November 2026 (UTC)");
        assert_eq!(day(now, now - 10 * DAY_S), "20 November 2026 (UTC)");
        assert!(clock(now).into_string().ends_with(">18:29:40</time>"));
    }
}
