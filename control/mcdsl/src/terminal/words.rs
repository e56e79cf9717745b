//! Numbers and texts as people read them.

use std::io::{IsTerminal as _, stderr};

/// 1536 as `1.5 KiB`.
#[must_use]
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let unit = (count.ilog2() / 10) as usize;
    let tenths = (u128::from(count) * 10) >> (10 * unit);
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit - 1])
}

/// 93000 ms as `1m 33s`.
#[must_use]
pub fn duration(ms: u64) -> String {
    let s = ms / 1000;
    match s {
        0 => format!("{ms}ms"),
        1..60 => format!("{s}.{}s", ms % 1000 / 100),
        60..3600 => format!("{}m {}s", s / 60, s % 60),
        3600..86400 => format!("{}h {}m", s / 3600, s / 60 % 60),
        _ => format!("{}d {}h", s / 86400, s / 3600 % 24),
    }
}

/// Empty as `-`.
#[must_use]
pub fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}

/// A text from elsewhere, fit to be printed in a line: what a terminal would obey is escaped as Rust escapes it.
#[must_use]
pub fn clean(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut clean, character| {
        if must_not_be_raw(character) {
            clean.extend(character.escape_default());
        } else {
            clean.push(character);
        }
        clean
    })
}

/// [`clean`], with the ends of lines left as they are.
#[must_use]
pub fn clean_lines(text: &str) -> String {
    text.split('\n').map(clean).collect::<Vec<_>>().join("\n")
}

/// Whether a terminal would obey it, or show other text in another place for it: controls, ends of lines, and what turns
/// the direction of writing (Unicode Standard Annex 9, section 2).
pub(super) fn must_not_be_raw(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}

/// A text for standard error that must be seen: red where that is a terminal and `NO_COLOR` is not set.
#[must_use]
pub fn alarm(text: &str) -> String {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    coloured(text, stderr().is_terminal() && !refused)
}

fn coloured(text: &str, colour: bool) -> String {
    if colour { format!("\x1b[1;31m{text}\x1b[0m") } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_readable() {
        let check = |count, expect: &str| assert_eq!(bytes(count), expect);
        check(0, "0 B");
        check(1023, "1023 B");
        check(1536, "1.5 KiB");
        check(10 << 30, "10.0 GiB");
        check(u64::MAX, "15.9 EiB");
        let check = |ms, expect: &str| assert_eq!(duration(ms), expect);
        check(7, "7ms");
        check(1_250, "1.2s");
        check(93_000, "1m 33s");
        check(7_260_000, "2h 1m");
        check(90_000_000, "1d 1h");
    }

    #[test]
    fn only_what_a_terminal_would_obey_is_changed() {
        let check = |text, expect: &str| assert_eq!(clean(text), expect);
        check("Zoë's €5, 日本 \\n", "Zoë's €5, 日本 \\n");
        check("\t\r\n\0\x7f", "\\t\\r\\n\\u{0}\\u{7f}");
        check("\x1b]0;title\x07", "\\u{1b}]0;title\\u{7}");
        check("\u{85}\u{2028}\u{200f}", "\\u{85}\\u{2028}\\u{200f}");
    }

    #[test]
    fn colour_is_only_where_it_is_wanted() {
        assert_eq!(coloured("no", false), "no");
        assert_eq!(coloured("no", true), "\x1b[1;31mno\x1b[0m");
    }
}
