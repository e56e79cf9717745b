//! Escapes what a terminal would act on, in texts from elsewhere that are printed or logged.

/// Escapes control characters and line ends in a text from elsewhere, so that it can be printed in a line.
#[must_use]
pub fn clean(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut clean, character| {
        if must_be_escaped(character) {
            clean.extend(character.escape_default());
        } else {
            clean.push(character);
        }
        clean
    })
}

/// [`clean`], but keeps line ends.
#[cfg(feature = "terminal")]
#[must_use]
pub fn clean_lines(text: &str) -> String {
    text.split('\n').map(clean).collect::<Vec<_>>().join("\n")
}

/// Whether a terminal would act on the character instead of showing it: controls, line separators, and changes of the
/// writing direction (Unicode Standard Annex 9, section 2).
pub(crate) fn must_be_escaped(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{061c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{feff}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_control_characters_are_escaped() {
        let check = |text, expect: &str| assert_eq!(clean(text), expect);
        check("Zoë's €5, 日本 \\n", "Zoë's €5, 日本 \\n");
        check("\t\r\n\0\x7f", "\\t\\r\\n\\u{0}\\u{7f}");
        check("\x1b]0;title\x07", "\\u{1b}]0;title\\u{7}");
        check("\u{85}\u{2028}\u{200f}", "\\u{85}\\u{2028}\\u{200f}");
    }
}
