//! Forms: fields with their labels, hints and errors, and buttons.
//!
//! An error is said three times: in the summary at the top, which has the focus and leads to the field; at the field; and by
//! the page's title (see [`super::Page::errors`]).

use maud::{Markup, html};

use super::csrf::CSRF_FIELD;

/// A field of a form. Take the rest from [`Field::new`]: `Field { hint: Some("…"), ..Field::new(…) }`.
#[derive(Clone, Copy, Debug)]
pub struct Field<'a> {
    /// What the form sends it as, and its `id` too. A checkbox that has a value has `name-value` as its `id`.
    pub name: &'a str,
    /// What the reader calls it.
    pub label: &'a str,
    /// What can be put in.
    pub kind: Kind<'a>,
    /// What is in it. A password is never sent back. For a checkbox it is what is sent when it is ticked; empty: `on`.
    pub value: &'a str,
    /// How to fill it in.
    pub hint: Option<&'a str>,
    /// What is wrong with what was put in, and what to do.
    pub error: Option<&'a str>,
    /// What a browser may fill in (HTML, section 4.10.18.7): `username`, `current-password`, `off`.
    pub autocomplete: Option<&'a str>,
    /// Whether it must be filled in. Where not, the label says so.
    pub required: bool,
}

/// What can be put into a field.
#[derive(Clone, Copy, Debug)]
pub enum Kind<'a> {
    /// A line of text.
    Text,
    /// A whole number.
    Number,
    /// A password.
    Password,
    /// A code of digits, from an app or a message.
    Code,
    /// Some lines of text.
    TextArea {
        /// How many of them are seen.
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

/// One of the values that a field can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice<'a> {
    /// What the form sends.
    pub value: &'a str,
    /// What the reader calls it.
    pub label: &'a str,
}

/// What is wrong with a field, for the summary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// The field's `id`, which is its name. Empty: it is the form as a whole that is wrong.
    pub field: &'static str,
    /// What is wrong and what to do.
    pub text: String,
}

/// What a button is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// What the page is for. One for each form.
    Primary,
    /// Something else.
    Secondary,
    /// It destroys something.
    Danger,
}

impl Action {
    const fn class(self) -> &'static str {
        match self {
            Self::Primary => "button primary",
            Self::Secondary => "button secondary",
            Self::Danger => "button danger",
        }
    }
}

impl<'a> Field<'a> {
    /// An empty field that must be filled in.
    #[must_use]
    pub const fn new(name: &'a str, label: &'a str, kind: Kind<'a>) -> Self {
        Self { name, label, kind, value: "", hint: None, error: None, autocomplete: None, required: true }
    }

    /// The error about this field, from those of the form.
    #[must_use]
    pub fn error_from(self, errors: &'a [FieldError]) -> Self {
        let error = errors.iter().find(|error| error.field == self.name).map(|error| error.text.as_str());
        Self { error, ..self }
    }

    /// The ids of the texts about it, for a screen reader to read out.
    fn described_by(&self, id: &str) -> Option<String> {
        let hint = self.hint.map(|_hint| format!("{id}-hint"));
        let error = self.error.map(|_error| format!("{id}-error"));
        let ids: Vec<_> = [hint, error].into_iter().flatten().collect();
        (!ids.is_empty()).then(|| ids.join(" "))
    }

    fn texts(&self, id: &str) -> Markup {
        html! {
            @if let Some(hint) = self.hint { p.hint id={ (id) "-hint" } { (hint) } }
            @if let Some(error) = self.error {
                p.error id={ (id) "-error" } { span.hidden { "Error: " } (error) }
            }
        }
    }
}

/// A form that changes something. `csrf` is [`super::Csrf::token`] for who is to send it.
#[must_use]
pub fn form(action: &str, csrf: &str, body: Markup) -> Markup {
    html! {
        form method="post" action=(action) {
            input type="hidden" name=(CSRF_FIELD) value=(csrf);
            (body)
        }
    }
}

/// A form that only asks: what is put in becomes part of the address.
#[must_use]
pub fn search_form(action: &str, body: Markup) -> Markup {
    html! { form.search role="search" method="get" action=(action) { (body) } }
}

/// Fields that belong together, such as checkboxes that answer one question.
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
                @if !field.required { " " span.optional { "(optional)" } }
            }
            (field.texts(id))
            (control(&field, id))
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
    // What was typed as a password does not come back in a page.
    let value = if matches!(field.kind, Kind::Password | Kind::Code) { "" } else { field.value };
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
                input class=[digits.map(|_digits| "short")] id=(id) name=(field.name) type=(kind) value=(value) inputmode=[digits]
                    required[field.required] autocomplete=[field.autocomplete] autocapitalize="none"
                    spellcheck="false" aria-describedby=[about] aria-invalid=[invalid];
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
                (field.texts(&id))
            }
        }
    }
}

/// Sends the form.
#[must_use]
pub fn button(label: &str, action: Action) -> Markup {
    html! { button class=(action.class()) type="submit" { (label) } }
}

/// A link that looks like a button: it leads somewhere, and changes nothing.
#[must_use]
pub fn link_button(href: &str, label: &str, action: Action) -> Markup {
    html! { a class=(action.class()) href=(href) { (label) } }
}

/// What is wrong with a form, in one place that gets the focus, with a link to each field. [`super::Page`] shows it.
#[must_use]
pub fn error_summary(errors: &[FieldError]) -> Markup {
    html! {
        @if !errors.is_empty() {
            div.summary role="alert" tabindex="-1" autofocus aria-labelledby="error-summary" {
                h2 #error-summary { "There is a problem" }
                ul {
                    @for error in errors {
                        li {
                            @if error.field.is_empty() { (error.text) }
                            @else { a href={ "#" (error.field) } { (error.text) } }
                        }
                    }
                }
            }
        }
    }
}

/// The body of a page that asks once more before something is destroyed: what will happen, the button that does it, and the
/// way back. A page of its own needs no script, and can be read in peace.
#[must_use]
pub fn confirm(action: &str, csrf: &str, what: Markup, label: &str, back: &str) -> Markup {
    let buttons = html! {
        div.actions {
            (button(label, Action::Danger))
            (link_button(back, "Cancel", Action::Secondary))
        }
    };
    html! { div.card.confirm { (what) (form(action, csrf, buttons)) } }
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
    fn an_error_is_told_at_its_field() {
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
    fn a_password_does_not_come_back() {
        for kind in [Kind::Password, Kind::Code] {
            let html = field(Field { value: "hunter2", ..Field::new("p", "Password", kind) }).0;
            assert!(!html.contains("hunter2"), "{html}");
        }
    }

    #[test]
    fn what_need_not_be_filled_in_says_so() {
        check(
            Field { required: false, ..Field::new("note", "Note", Kind::TextArea { rows: 3 }) },
            &[r#"Note <span class="optional">(optional)</span>"#],
        );
        check(Field::new("note", "Note", Kind::Text), &[" required "]);
    }

    #[test]
    fn text_that_begins_with_a_line_s_end_keeps_it() {
        let note = Field { value: "\nx", ..Field::new("note", "Note", Kind::TextArea { rows: 3 }) };
        check(note, &[">\n\nx</textarea>"]);
    }

    #[test]
    fn the_choice_that_was_made_is_selected() {
        let choices = [Choice { value: "a", label: "A" }, Choice { value: "b", label: "B" }];
        let kind = Field { value: "b", ..Field::new("kind", "Kind", Kind::Select(&choices)) };
        check(kind, &[r#"<option value="a">A</option><option value="b" selected>B</option>"#]);
    }

    #[test]
    fn checkboxes_of_one_name_have_ids_of_their_own() {
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
        let html = confirm("/x/delete", "tok", html! { p { "Gone" } }, "Delete", "/x").0;
        assert!(
            html.contains(r#"name="csrf" value="tok""#) && html.contains(r#"href="/x">Cancel"#),
            "{html}"
        );
    }
}
