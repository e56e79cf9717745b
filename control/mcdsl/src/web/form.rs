//! Forms: fields with their labels, hints and errors, and buttons.
//!
//! An error appears three times: in the summary at the top, which has the focus and links to the field; at the field;
//! and in the page's title (see [`super::Page::errors`]).

use maud::{Markup, html};

use super::csrf::CSRF_FIELD;

/// A field of a form. Take the rest from [`Field::new`]: `Field { hint: Some("…"), ..Field::new(…) }`.
#[derive(Clone, Copy, Debug)]
pub struct Field<'a> {
    /// Its name in the form, and its `id`. A checkbox with a value has the `id` `name-value`.
    pub name: &'a str,
    /// Its label.
    pub label: &'a str,
    /// Its kind.
    pub kind: Kind<'a>,
    /// Its value. Passwords and codes are never sent back. Of a checkbox: what is sent when it is ticked; empty: `on`.
    pub value: &'a str,
    /// How to fill it in.
    pub hint: Option<&'a str>,
    /// What is wrong with the value, and what to do.
    pub error: Option<&'a str>,
    /// What a browser may fill in (HTML, section 4.10.18.7): `username`, `current-password`, `off`.
    pub autocomplete: Option<&'a str>,
    /// Whether it must be filled in. If not, the label says so.
    pub required: bool,
    /// Whether it has the focus when the page opens: the first field of a page that is there to be filled in.
    pub autofocus: bool,
}

/// The kind of a field.
#[derive(Clone, Copy, Debug)]
pub enum Kind<'a> {
    /// A line of text.
    Text,
    /// A part of what a list is searched for, with what an empty field means: `Any account`.
    Filter(&'a str),
    /// A whole number.
    Number,
    /// A password.
    Password,
    /// A code of digits, from an app or a message.
    Code,
    /// A code of letters and digits. It does not come back either.
    RecoveryCode,
    /// Some lines of text.
    TextArea {
        /// How many are visible.
        rows: u8,
    },
    /// One of these.
    Select(&'a [Choice<'a>]),
    /// Yes or no.
    Checkbox {
        /// Whether it is ticked.
        checked: bool,
    },
}

/// One of the values of a select field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice<'a> {
    /// Its value in the form.
    pub value: &'a str,
    /// Its label.
    pub label: &'a str,
}

/// An error of a field, for the summary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// The field's `id`, which is its name. Empty: the error is about the whole form.
    pub field: &'static str,
    /// What is wrong and what to do.
    pub text: String,
}

/// The role of a button.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The purpose of the page: one on each page.
    Primary,
    /// Something else.
    Secondary,
    /// Something else, without a frame: in a row, or in the head of a panel.
    Bare,
    /// Leads to a page that asks before something is destroyed.
    Risk,
    /// Destroys something: on the page that asks, and nowhere else.
    Kill,
}

impl Action {
    pub(super) const fn class(self) -> &'static str {
        match self {
            Self::Primary => "btn main-btn",
            Self::Secondary => "btn",
            Self::Bare => "bare",
            Self::Risk => "btn risk",
            Self::Kill => "btn kill",
        }
    }
}

impl<'a> Field<'a> {
    /// An empty field that must be filled in.
    #[must_use]
    pub const fn new(name: &'a str, label: &'a str, kind: Kind<'a>) -> Self {
        let (value, hint, error, autocomplete) = ("", None, None, None);
        Self { name, label, kind, value, hint, error, autocomplete, required: true, autofocus: false }
    }

    /// The error about this field, from those of the form.
    #[must_use]
    pub fn error_from(self, errors: &'a [FieldError]) -> Self {
        let error = errors.iter().find(|error| error.field == self.name).map(|error| error.text.as_str());
        Self { error, ..self }
    }

    /// The ids of its hint and error, for screen readers.
    fn described_by(&self, id: &str) -> Option<String> {
        let hint = self.hint.map(|_hint| format!("{id}-hint"));
        let error = self.error.map(|_error| format!("{id}-error"));
        let ids: Vec<_> = [hint, error].into_iter().flatten().collect();
        (!ids.is_empty()).then(|| ids.join(" "))
    }

    fn error_text(&self, id: &str) -> Markup {
        html! {
            @if let Some(error) = self.error {
                p.error id={ (id) "-error" } { span.hidden { "Error: " } (error) }
            }
        }
    }

    fn hint_text(&self, id: &str) -> Markup {
        html! {
            @if let Some(hint) = self.hint { p.hint id={ (id) "-hint" } { (hint) } }
        }
    }
}

/// A form that changes something. `csrf` is [`super::Csrf::token`] for its sender.
#[must_use]
pub fn form(action: &str, csrf: &str, body: Markup) -> Markup {
    html! {
        form method="post" action=(action) {
            input type="hidden" name=(CSRF_FIELD) value=(csrf);
            (body)
        }
    }
}

/// A form that only reads: its fields become the query of the address.
#[must_use]
pub fn search_form(action: &str, body: Markup) -> Markup {
    html! { form role="search" method="get" action=(action) { (body) } }
}

/// The same above a list, with its fields in a row: what is shown of the list.
#[must_use]
pub fn filters(action: &str, body: Markup) -> Markup {
    html! { form.filters role="search" method="get" action=(action) { (body) } }
}

/// A group of fields, such as checkboxes of one choice.
#[must_use]
pub fn fieldset(legend: &str, body: Markup) -> Markup {
    html! { fieldset { legend { (legend) } (body) } }
}

/// A field with its label, hint and error.
#[must_use]
pub fn field(field: Field<'_>) -> Markup {
    if let Kind::Checkbox { checked } = field.kind {
        return checkbox(&field, checked);
    }
    let id = field.name;
    html! {
        div.field.invalid[field.error.is_some()] {
            label for=(id) {
                (field.label)
                @if !field.required && !matches!(field.kind, Kind::Select(_)) { " " span.optional { "optional" } }
            }
            (field.hint_text(id))
            @if matches!(field.kind, Kind::Password) {
                // The button needs a script: without one it is not displayed.
                div.with {
                    (control(&field, id))
                    button.btn.js type="button" data-reveal=(id) aria-pressed="false" aria-controls=(id) {
                        "Show" span.hidden { " " (field.label) }
                    }
                }
            } @else {
                (control(&field, id))
            }
            (field.error_text(id))
        }
    }
}

fn control(field: &Field<'_>, id: &str) -> Markup {
    let about = field.described_by(id);
    let invalid = field.error.map(|_error| "true");
    let (kind, digits) = match field.kind {
        Kind::Password => ("password", None),
        Kind::Number | Kind::Code => ("text", Some("numeric")),
        _ => ("text", None),
    };
    let class = match field.kind {
        Kind::Number => Some("short"),
        Kind::Code => Some("code"),
        _ => None,
    };
    let placeholder = match field.kind {
        Kind::Filter(empty) => Some(empty),
        _ => None,
    };
    let required = field.required && placeholder.is_none();
    // Passwords and codes do not come back in a page.
    let is_secret = matches!(field.kind, Kind::Password | Kind::Code | Kind::RecoveryCode);
    let value = if is_secret { "" } else { field.value };
    html! {
        @match field.kind {
            Kind::Select(choices) => {
                select id=(id) name=(field.name) required[field.required] autocomplete=[field.autocomplete]
                    aria-describedby=[about] aria-invalid=[invalid] {
                    @for choice in choices {
                        option value=(choice.value) selected[choice.value == field.value] { (choice.label) }
                    }
                }
            }
            Kind::TextArea { rows } => {
                textarea id=(id) name=(field.name) rows=(rows) required[field.required]
                    autocomplete=[field.autocomplete] aria-describedby=[about] aria-invalid=[invalid] {
                    "\n" (value)
                }
            }
            _ => {
                input class=[class] id=(id) name=(field.name) type=(kind) value=(value) inputmode=[digits]
                    placeholder=[placeholder] required[required] autocomplete=[field.autocomplete] autocapitalize="none"
                    spellcheck="false" autofocus[field.autofocus] aria-describedby=[about] aria-invalid=[invalid];
            }
        }
    }
}

fn checkbox(field: &Field<'_>, checked: bool) -> Markup {
    let (id, value) = match field.value {
        "" => (field.name.to_owned(), "on"),
        value => (format!("{}-{value}", field.name), value),
    };
    html! {
        div.check.invalid[field.error.is_some()] {
            input id=(id) name=(field.name) type="checkbox" value=(value) checked[checked]
                aria-describedby=[field.described_by(&id)] aria-invalid=[field.error.map(|_error| "true")];
            div {
                label for=(id) { (field.label) }
                (field.hint_text(&id))
                (field.error_text(&id))
            }
        }
    }
}

/// The button that sends the form.
#[must_use]
pub fn button(label: &str, action: Action) -> Markup {
    html! { button class=(action.class()) type="submit" { (label) } }
}

/// A link that looks like a button. It changes nothing.
#[must_use]
pub fn link_button(href: &str, label: &str, action: Action) -> Markup {
    html! { a class=(action.class()) href=(href) { (label) } }
}

/// All errors of a form, in one box that gets the focus, with a link to each field. [`super::Page`] shows it.
#[must_use]
pub fn error_summary(errors: &[FieldError]) -> Markup {
    let count = errors.iter().filter(|error| !error.field.is_empty()).count();
    html! {
        @if !errors.is_empty() {
            div.note.bad role="alert" tabindex="-1" autofocus {
                @if count > 0 {
                    h2 { (count) @if count == 1 { " thing to correct" } @else { " things to correct" } }
                }
                @for error in errors.iter().filter(|error| error.field.is_empty()) { p { strong { (error.text) } } }
                @if count > 0 {
                    ul {
                        @for error in errors.iter().filter(|error| !error.field.is_empty()) {
                            li { a href={ "#" (error.field) } { (error.text) } }
                        }
                    }
                }
            }
        }
    }
}

/// What is wrong, as people read it: with a capital letter and a full stop, and with quotation marks for what is literal.
#[must_use]
pub fn sentence(detail: &str) -> String {
    let mut text = String::new();
    for (at, part) in detail.split('`').enumerate() {
        if at > 0 {
            text.push(if at % 2 == 1 { '“' } else { '”' });
        }
        text.push_str(part);
    }
    let mut characters = text.chars();
    let Some(first) = characters.next() else { return text };
    let end = if text.ends_with(['.', '!', '?']) { "" } else { "." };
    first.to_uppercase().collect::<String>() + characters.as_str() + end
}

/// The account's name in a form for a new password: for password managers, which store the password under it.
#[must_use]
pub fn username_for_managers(name: &str) -> Markup {
    html! { input type="text" name="username" autocomplete="username" value=(name) readonly hidden; }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(field_: Field<'_>, parts: &[&str]) {
        let html = field(field_).0;
        for part in parts {
            assert!(html.contains(part), "{part} is not in {html}");
        }
    }

    #[test]
    fn an_error_appears_at_its_field() {
        let errors = [FieldError { field: "name", text: "Name: <b> is no name".to_owned() }];
        let name = Field { value: "<b>", hint: Some("Short"), ..Field::new("name", "Name", Kind::Text) };
        check(
            name.error_from(&errors),
            &[
                r#"<label for="name">Name</label>"#,
                r#"<p class="hint" id="name-hint">Short</p>"#,
                r#"<p class="error" id="name-error"><span class="hidden">Error: </span>Name: &lt;b&gt; is no name"#,
                r#"id="name" name="name" type="text" value="&lt;b&gt;""#,
                r#"aria-describedby="name-hint name-error" aria-invalid="true""#,
            ],
        );
        assert_eq!(name.error_from(&[]).error, None);
        assert!(error_summary(&errors).0.contains(r##"<a href="#name">Name: &lt;b&gt; is no name</a>"##));
    }

    #[test]
    fn an_error_is_a_sentence() {
        for (detail, expect) in [
            ("is empty", "Is empty."),
            ("Try again.", "Try again."),
            ("`Ä b` is no name: use `a`", "“Ä b” is no name: use “a”."),
            ("", ""),
        ] {
            assert_eq!(sentence(detail), expect);
        }
    }

    #[test]
    fn a_password_does_not_come_back() {
        for kind in [Kind::Password, Kind::Code, Kind::RecoveryCode] {
            let html = field(Field { value: "hunter2", ..Field::new("p", "Password", kind) }).0;
            assert!(!html.contains("hunter2"), "{html}");
        }
    }

    #[test]
    fn optional_fields_say_so() {
        check(
            Field { required: false, ..Field::new("note", "Note", Kind::TextArea { rows: 3 }) },
            &[r#"Note <span class="optional">optional</span>"#],
        );
        check(Field::new("note", "Note", Kind::Text), &[" required "]);
    }

    #[test]
    fn text_keeps_a_leading_newline() {
        let note = Field { value: "\nx", ..Field::new("note", "Note", Kind::TextArea { rows: 3 }) };
        check(note, &[">\n\nx</textarea>"]);
    }

    #[test]
    fn the_chosen_value_is_selected() {
        let choices = [Choice { value: "a", label: "A" }, Choice { value: "b", label: "B" }];
        let kind = Field { value: "b", ..Field::new("kind", "Kind", Kind::Select(&choices)) };
        check(kind, &[r#"<option value="a">A</option><option value="b" selected>B</option>"#]);
    }

    #[test]
    fn checkboxes_of_one_name_have_distinct_ids() {
        let admin =
            Field { value: "admin", ..Field::new("roles", "Admin", Kind::Checkbox { checked: true }) };
        check(admin, &[r#"id="roles-admin" name="roles" type="checkbox" value="admin" checked"#]);
        check(admin, &[r#"<label for="roles-admin">Admin</label>"#]);
        let on = Field::new("on", "On", Kind::Checkbox { checked: false });
        check(on, &[r#"id="on" name="on" type="checkbox" value="on">"#]);
    }

    #[test]
    fn a_form_that_changes_something_is_posted_with_its_token() {
        let html = form("/accounts", "tok", html! {}).0;
        let expect =
            r#"<form method="post" action="/accounts"><input type="hidden" name="csrf" value="tok"></form>"#;
        assert_eq!(html, expect);
    }
}
