//! Parts of pages: states, notes, panels and what is in them, texts to copy, and secrets that are shown once.

use data_encoding::BASE64;
use maud::{Markup, html};

use super::form::{Action, form, link_button};
use super::icon::{Icon, mark};

/// The tone of a state or a message. The text must say the same without the colour.
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

    pub(crate) const fn class(self) -> &'static str {
        match self {
            Self::Neutral => "off",
            Self::Info => "info",
            Self::Good => "good",
            Self::Warning => "warn",
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

/// A state: a small shape and a word.
#[must_use]
pub fn state(tone: Tone, word: &str) -> Markup {
    html! { span class={ "st " (tone.class()) } { (word) } }
}

/// A state that asks for a look. What is as it should be is a [`state`].
#[must_use]
pub fn pill(tone: Tone, word: &str) -> Markup {
    html! { span class={ "st pill " (tone.class()) } { (word) } }
}

/// A message.
#[must_use]
pub fn note(tone: Tone, body: Markup) -> Markup {
    html! { div class={ "note " (tone.class()) } { (body) } }
}

/// A word that a machine has for something: a tag, a role.
#[must_use]
pub fn tag(word: &str) -> Markup {
    html! { span.tag { (word) } }
}

/// Several of them.
#[must_use]
pub fn tags(words: &[String]) -> Markup {
    html! { @for (at, word) in words.iter().enumerate() { @if at > 0 { " " } (tag(word)) } }
}

/// A panel with a heading. `remark` is muted beside it, `action` at the right.
#[must_use]
pub fn panel(title: &str, remark: &str, action: Markup, body: Markup) -> Markup {
    html! {
        section.panel {
            header {
                h2 { (title) }
                @if !remark.is_empty() { span.muted { (remark) } }
                (action)
            }
            (body)
        }
    }
}

/// A panel without a heading: a list, or a form.
#[must_use]
pub fn plain_panel(body: Markup) -> Markup {
    html! { div.panel { (body) } }
}

/// Text or a form within a panel.
#[must_use]
pub fn padded(body: Markup) -> Markup {
    html! { div.pad { (body) } }
}

/// Two columns where there is room: what the page is about, and a narrow one of facts.
#[must_use]
pub fn split(main: Markup, aside: Markup) -> Markup {
    html! { div.split { div.stack { (main) } div.stack { (aside) } } }
}

/// The same with a wider second column.
#[must_use]
pub fn split_wide(main: Markup, aside: Markup) -> Markup {
    html! { div.split-wide { div.stack { (main) } div.stack { (aside) } } }
}

/// A row of a panel: an icon, a name with a sentence, and what can be done.
#[must_use]
pub fn item(icon: Icon, name: &str, detail: Markup, action: Markup) -> Markup {
    html! { div.item { (icon.svg()) div { b { (name) } p { (detail) } } (action) } }
}

/// Something that needs a person.
#[derive(Clone, Debug)]
pub struct Attention<'a> {
    /// [`Tone::Warning`] or [`Tone::Bad`].
    pub tone: Tone,
    /// What kind of thing it is about, in a word.
    pub kind: &'a str,
    /// What is the matter.
    pub text: Markup,
    /// Where it is solved.
    pub href: String,
}

/// What needs a person, worst first; nothing where there is nothing. The first five are shown.
#[must_use]
pub fn attention(list: &[Attention<'_>]) -> Markup {
    html! {
        @if !list.is_empty() {
            (panel("Needs attention", &list.len().to_string(), html! {}, html! {
                @for Attention { tone, kind, text, href } in list.iter().take(5) {
                    div.item {
                        (pill(*tone, kind))
                        a.row href=(href) { (text) }
                        (Icon::RIGHT.svg())
                    }
                }
                @if list.len() > 5 { p.foot { (list.len() - 5) " more" } }
            }))
        }
    }
}

/// Shown where a list has nothing: what would be in it, and how to create the first.
#[must_use]
pub fn empty_state(title: &str, text: &str, action: Option<Markup>) -> Markup {
    html! {
        div.empty {
            (mark(32))
            h2 { (title) }
            p { (text) }
            @if let Some(action) = action { (action) }
        }
    }
}

/// Shown where nothing of a list matches its filters. `clear` is the address without them.
#[must_use]
pub fn nothing_matches(text: &str, clear: &str) -> Markup {
    empty_state("Nothing matches", text, Some(link_button(clear, "Clear filters", Action::Secondary)))
}

/// The properties of a thing.
#[must_use]
pub fn facts(facts: &[(&str, Markup)]) -> Markup {
    html! { dl.facts { @for (term, value) in facts { div { dt { (term) } dd { (value) } } } } }
}

/// The foot of a list: what of it is shown, and links to other parts of it.
#[must_use]
pub fn pager(shown: &str, links: &[(&str, Option<&str>)]) -> Markup {
    html! {
        div.foot {
            span { (shown) }
            @if links.iter().any(|(_, href)| href.is_some()) {
                nav aria-label="Pages" {
                    @for (label, href) in links {
                        @if let Some(href) = href { a href=(href) { (label) } }
                    }
                }
            }
        }
    }
}

/// The filters of a list that are in force: what each says, and the address without it.
#[must_use]
pub fn chips(active: &[(String, String)], clear: &str) -> Markup {
    html! {
        @if !active.is_empty() {
            p.chips {
                @for (text, href) in active { a href=(href) { (text) (Icon::CROSS.svg()) span.hidden { " (remove filter)" } } }
                a href=(clear) { "Clear all" }
            }
        }
    }
}

/// Monospaced text. Lines wider than the panel scroll.
#[must_use]
pub fn code_block(label: &str, text: &str) -> Markup {
    html! { pre role="region" tabindex="0" aria-label=(label) { code { (text) } } }
}

/// What changes, line by line: lines begin with `+`, `-` or a space.
#[must_use]
pub fn diff_block(label: &str, lines: &[String]) -> Markup {
    html! {
        pre role="region" tabindex="0" aria-label=(label) {
            @for line in lines {
                span class=[diff_class(line)] { (line) }
            }
        }
    }
}

fn diff_class(line: &str) -> Option<&'static str> {
    match line.as_bytes().first() {
        Some(b'+') => Some("add"),
        Some(b'-') => Some("del"),
        _ => None,
    }
}

/// A text to copy: a click selects the whole of it without a script, and with one there is a button.
#[must_use]
pub fn copy(id: &str, label: &str, text: &str) -> Markup {
    html! {
        div.field {
            div.with {
                b id={ (id) "-label" } { (label) }
                span.hint { "Click to select" }
                button.bare.js type="button" data-copy=(id) { "Copy" span.hidden { " " (label) } }
            }
            code.copy id=(id) tabindex="0" aria-labelledby={ (id) "-label" } role="textbox" aria-readonly="true" aria-multiline="true" { (text) }
        }
    }
}

/// A secret that is shown once.
#[derive(Clone, Copy, Debug)]
pub struct Once<'a> {
    /// What it is: `Token`.
    pub label: &'a str,
    /// The secret; several have a line each.
    pub text: &'a str,
    /// Where it goes, in a sentence.
    pub what: &'a str,
    /// The name of the file that it can be downloaded as.
    pub file: Option<&'a str>,
    /// The page to go to afterwards.
    pub done: &'a str,
}

/// The body of the page that shows a secret once.
#[must_use]
pub fn once(once: Once<'_>) -> Markup {
    let Once { label, text, what, file, done } = once;
    let (copy_now, rest) = if text.contains('\n') {
        ("Copy them now. ", "They are shown this once and cannot be read again.")
    } else {
        ("Copy it now. ", "It is shown this once and cannot be read again.")
    };
    plain_panel(padded(html! {
        (note(Tone::Warning, html! {
            p { strong { (copy_now) } (rest) }
        }))
        (copy("once", label, text))
        p.hint { (what) }
        div.actions {
            (link_button(done, "Done", Action::Primary))
            @if let Some(file) = file {
                a.btn download=(file) href={ "data:text/plain;base64," (BASE64.encode(text.as_bytes())) } { "Download as file" }
            }
        }
    }))
}

/// Something that destroys or locks out.
#[derive(Clone, Debug)]
pub struct Danger<'a> {
    /// What it does: `Delete account`.
    pub name: &'a str,
    /// What comes of it, with real counts; or why it is not possible now.
    pub consequence: String,
    /// The page that asks for confirmation. `None`: it is not possible now.
    pub href: Option<String>,
}

/// The last panel of a page: what is dangerous, mildest first. Each leads to a page that asks.
#[must_use]
pub fn danger_zone(list: &[Danger<'_>]) -> Markup {
    html! {
        section.panel.risk-zone {
            header { h2 { "Danger zone" } }
            @for Danger { name, consequence, href } in list {
                div.item {
                    div { b { (name) } p { (consequence) } }
                    @if let Some(href) = href { (link_button(href, &format!("{name}…"), Action::Risk)) }
                }
            }
        }
    }
}

/// What a page asks before something is destroyed. A page of its own needs no script.
#[derive(Debug)]
pub struct Confirm<'a> {
    /// The question, with the name of the thing.
    pub question: &'a str,
    /// What is lost, with counts.
    pub lost: &'a [String],
    /// What stays, or the milder way.
    pub rest: Markup,
    /// Fields of the form, such as a revision, or the name that has to be typed.
    pub fields: Markup,
    /// The path that the form is posted to.
    pub action: &'a str,
    /// Verb and object.
    pub button: &'a str,
    /// Where `Cancel` leads.
    pub back: &'a str,
}

/// The body of a page that asks.
#[must_use]
pub fn confirm(csrf: &str, confirm: &Confirm<'_>) -> Markup {
    let Confirm { question, lost, rest, fields, action, button, back } = confirm;
    panel(
        question,
        "",
        html! {},
        padded(html! {
            @if !lost.is_empty() { ul { @for line in *lost { li { (line) } } } }
            @if !rest.0.is_empty() { p.muted { (rest) } }
            (form(action, csrf, html! {
                (fields)
                div.actions {
                    (super::form::button(button, Action::Kill))
                    (link_button(back, "Cancel", Action::Secondary))
                }
            }))
        }),
    )
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
    fn a_list_of_one_page_has_no_links() {
        assert!(!pager("1–9 of 9", &[("First", None), ("Next", None)]).0.contains("<nav"));
        let pages = pager("", &[("First", None), ("Next", Some("/accounts?after=a&b"))]).0;
        assert!(pages.contains(r#"<a href="/accounts?after=a&amp;b">Next</a>"#), "{pages}");
        assert!(!pages.contains("First"), "{pages}");
    }

    #[test]
    fn secrets_are_shown_once_each() {
        let shown = |text| once(Once { label: "Token", text, what: "", file: None, done: "/" }).0;
        assert!(shown("a").contains("Copy it now. </strong>It is shown this once"), "{}", shown("a"));
        assert!(shown("a\nb").contains("Copy them now. </strong>They are shown this once"));
    }

    #[test]
    fn an_image_runs_no_script() {
        let qr = qr("<svg onload='alert(1)'/>", "Code");
        assert!(!qr.0.contains("<svg") && !qr.0.contains("onload"), "{}", qr.0);
    }

    #[test]
    fn what_is_dangerous_is_asked_on_a_page() {
        let danger = |name, href: Option<&str>| Danger {
            name,
            consequence: "Ends 2 sessions.".to_owned(),
            href: href.map(str::to_owned),
        };
        let zone =
            danger_zone(&[danger("Delete account", Some("/x/delete")), danger("Disable account", None)]).0;
        assert!(zone.contains(r#"<a class="btn risk" href="/x/delete">Delete account…</a>"#), "{zone}");
        assert!(!zone.contains("Disable account…") && !zone.contains("<form"), "{zone}");
        let asked = Confirm {
            question: "Delete <x>?",
            lost: &["2 tokens".to_owned()],
            rest: html! {},
            fields: html! {},
            action: "/x/delete",
            button: "Delete account",
            back: "/x",
        };
        let page = confirm("tok", &asked).0;
        for part in
            ["Delete &lt;x&gt;?", "<li>2 tokens</li>", r#"name="csrf" value="tok""#, r#"href="/x">Cancel"#]
        {
            assert!(page.contains(part), "{part} is not in {page}");
        }
    }

    #[test]
    fn what_needs_nobody_is_not_there() {
        assert_eq!(attention(&[]).0, "");
        let one = Attention {
            tone: Tone::Bad,
            kind: "Token",
            text: html! { "It ends" },
            href: "/a?b&c".to_owned(),
        };
        let shown = attention(&vec![one; 7]).0;
        assert!(shown.contains("2 more") && shown.contains("/a?b&amp;c"), "{shown}");
        assert_eq!(shown.matches("a class=\"row\"").count(), 5);
    }

    #[test]
    fn parts_have_no_inline_style() {
        let parts = [
            state(Tone::Good, "Active"),
            pill(Tone::Bad, "Denied"),
            copy("a", "Token", "x"),
            once(Once { label: "Token", text: "<x>", what: "", file: Some("a.token"), done: "/" }),
            diff_block("Changes", &["+ a".to_owned(), "- b".to_owned(), "  c".to_owned()]),
            empty_state("No tokens yet", "", None),
            facts(&[("A", html! { "b" })]),
            chips(&[("A".to_owned(), "/".to_owned())], "/"),
            item(Icon::KEY, "Password", html! {}, html! {}),
            qr("<svg/>", "Code"),
        ];
        for part in parts {
            assert!(!part.0.contains("style=") && !part.0.contains("<x>"), "{}", part.0);
        }
    }
}
