//! Times on pages, in UTC: for people as text, for programs as an attribute.

use maud::{Markup, html};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A time, in seconds since 1970.
#[must_use]
pub fn when(unix_s: i64) -> Markup {
    let format = time::macros::format_description!("[year]-[month]-[day] [hour]:[minute] UTC");
    let time = OffsetDateTime::from_unix_timestamp(unix_s).ok();
    let shown = time.and_then(|time| time.format(&format).ok());
    let machine = time.and_then(|time| time.format(&Rfc3339).ok());
    match (shown, machine) {
        (Some(shown), Some(machine)) => html! { time datetime=(machine) { (shown) } },
        _ => html! { (unix_s) },
    }
}

/// The same; `never` where there is none.
#[must_use]
pub fn when_or(unix_s: Option<i64>, never: &str) -> Markup {
    unix_s.map_or_else(|| html! { (never) }, when)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_for_people_and_for_programs() {
        let shown = when(1_796_063_380).into_string();
        assert_eq!(shown, r#"<time datetime="2026-11-30T18:29:40Z">2026-11-30 18:29 UTC</time>"#);
        assert_eq!(when(i64::MAX).into_string(), i64::MAX.to_string());
        assert_eq!(when_or(None, "never").into_string(), "never");
    }
}
