//! Parts of pages: tables, badges, facts, notices, and texts to copy.

use data_encoding::BASE64;
use maud::{Markup, html};

/// The tone of a badge, a notice or a message. The text must say the same without the colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// An ordinary state.
    Neutral,
    /// Information.
    Info,
    /// Success, or a good state.
    Good,
    /// Needs attention.
    Warning,
    /// Denied, failed, dangerous.
    Bad,
}

impl Tone {
    #[cfg(test)]
    pub(super) const ALL: [Self; 5] = [Self::Neutral, Self::Info, Self::Good, Self::Warning, Self::Bad];

    const fn class(self) -> &'static str {
        match self {
            Self::Neutral => "neutral",
            Self::Info => "info",
            Self::Good => "good",
            Self::Warning => "warning",
            Self::Bad => "bad",
        }
    }

    /// Its letter in a cookie.
    pub(super) const fn letter(self) -> u8 {
        match self {
            Self::Neutral => b'n',
            Self::Info => b'i',
            Self::Good => b'g',
            Self::Warning => b'w',
            Self::Bad => b'b',
        }
    }

    pub(super) const fn of_letter(letter: u8) -> Option<Self> {
        match letter {
            b'n' => Some(Self::Neutral),
            b'i' => Some(Self::Info),
            b'g' => Some(Self::Good),
            b'w' => Some(Self::Warning),
            b'b' => Some(Self::Bad),
            _ => None,
        }
    }
}

/// A state, in a word or two.
#[must_use]
pub fn badge(text: &str, tone: Tone) -> Markup {
    html! { span class={ "badge " (tone.class()) } { (text) } }
}

/// A message box.
#[must_use]
pub fn notice(tone: Tone, body: Markup) -> Markup {
    html! { div class={ "notice " (tone.class()) } { (body) } }
}

/// A section with a heading.
#[must_use]
pub fn card(title: &str, body: Markup) -> Markup {
    html! { section.card { h2 { (title) } (body) } }
}

/// A table. The first cell of a row is its header; a column of buttons or links needs no heading (`""`). A table wider than the screen scrolls.
#[must_use]
pub fn table(caption: &str, headers: &[&str], rows: &[Vec<Markup>]) -> Markup {
    html! {
        div.scroll role="region" tabindex="0" aria-label=(caption) {
            table {
                caption { (caption) }
                thead {
                    tr {
                        @for header in headers {
                            @if header.is_empty() { td {} } @else { th scope="col" { (header) } }
                        }
                    }
                }
                tbody {
                    @for row in rows {
                        tr {
                            @for (at, cell) in row.iter().enumerate() {
                                @if at == 0 { th scope="row" { (cell) } } @else { td { (cell) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Shown instead of an empty table: what would be there, and how to create the first.
#[must_use]
pub fn empty_state(title: &str, text: &str, action: Option<Markup>) -> Markup {
    html! {
        div.empty {
            p.empty-title { (title) }
            p { (text) }
            @if let Some(action) = action { (action) }
        }
    }
}

/// The properties of a thing.
#[must_use]
pub fn facts(facts: &[(&str, Markup)]) -> Markup {
    html! { dl.facts { @for (term, value) in facts { div { dt { (term) } dd { (value) } } } } }
}

/// Links to the first and the next page of a list.
#[must_use]
pub fn pagination(first: Option<&str>, next: Option<&str>) -> Markup {
    html! {
        @if first.is_some() || next.is_some() {
            nav.pages aria-label="Pages" {
                @if let Some(first) = first { a.button.secondary href=(first) { "First page" } }
                @if let Some(next) = next { a.button.secondary rel="next" href=(next) { "Next page" } }
            }
        }
    }
}

/// Monospaced text. Lines wider than the screen scroll.
#[must_use]
pub fn code_block(label: &str, text: &str) -> Markup {
    html! { pre.code role="region" tabindex="0" aria-label=(label) { code { (text) } } }
}

/// A text to copy, in a read-only field: a click and "select all" select the whole without a script.
#[must_use]
pub fn copyable(id: &str, label: &str, text: &str) -> Markup {
    let lines = text.lines().count();
    html! {
        div.field {
            label for=(id) { (label) }
            @if lines > 1 {
                // A line's end after the tag is not part of the text: without one of ours, its first would be lost.
                textarea.mono id=(id) rows=(lines.min(16)) readonly spellcheck="false" { "\n" (text) }
            } @else {
                input.mono id=(id) type="text" value=(text) readonly spellcheck="false";
            }
        }
    }
}

/// A QR code, from an SVG document. It becomes an image, in which no script of the document runs.
#[must_use]
pub fn qr(svg: &str, label: &str) -> Markup {
    let data = BASE64.encode(svg.as_bytes());
    html! { img.qr src={ "data:image/svg+xml;base64," (data) } alt=(label) width="216" height="216"; }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tone_s_letter_is_its_own() {
        for tone in Tone::ALL {
            assert_eq!(Tone::of_letter(tone.letter()), Some(tone));
        }
    }

    #[test]
    fn the_first_cell_is_the_row_header() {
        let table =
            table("Accounts", &["Name", "State"], &[vec![html! { "ada" }, badge("<on>", Tone::Good)]]);
        let row = r#"<th scope="row">ada</th><td><span class="badge good">&lt;on&gt;</span></td>"#;
        assert!(table.0.contains(row), "{}", table.0);
    }

    #[test]
    fn a_list_of_one_page_has_no_links() {
        assert_eq!(pagination(None, None).0, "");
        let pages = pagination(None, Some("/accounts?after=a&b")).0;
        assert!(pages.contains(r#"rel="next" href="/accounts?after=a&amp;b""#), "{pages}");
        assert!(!pages.contains("First"), "{pages}");
    }

    #[test]
    fn an_image_runs_no_script() {
        let qr = qr("<svg onload='alert(1)'/>", "Code");
        assert!(!qr.0.contains("<svg") && !qr.0.contains("onload"), "{}", qr.0);
    }
}
