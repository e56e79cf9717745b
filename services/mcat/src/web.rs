//! The page: a login to describe, a draft to try, and below them what is decided. It calls the use cases of [`Mcat`] and nothing else. Login,
//! logout and what surrounds the page are [`mcdsl::web::session`].

use std::sync::Arc;

use axum::extract::{FromRef, State};
use axum::http::Method;
use axum::response::Response;
use axum::routing::{get, post};
use maud::{Markup, html};
use mc_api::mcat::{CheckDraftRequest, Context, Decisions, ExplainRequest, ExplainResponse};
use mc_api::operation::Need;
use mc_api::policy::{CheckPolicyResponse, ExplainPolicyResponse, PolicyDraft};
use mcdsl::http::Query;
use mcdsl::operation::RouteTable;
use mcdsl::policy::{Noun, parse_draft};
use mcdsl::problem::{Kind as ProblemKind, Problem};
use mcdsl::web::session::{NavEntry, Pages, Shown, Submission, Visitor};
use mcdsl::web::{self, Action, Column, Field, FieldError, Icon, Kind, Layout, Page, policy as parts};
use serde::Deserialize;

use crate::app::{Calls, Mcat};

/// What pages share.
#[derive(Clone, Debug)]
struct Shared {
    app: Arc<Mcat>,
    pages: Pages,
}

impl FromRef<Shared> for Pages {
    fn from_ref(shared: &Shared) -> Self {
        shared.pages.clone()
    }
}

const NAVIGATION: [NavEntry; 1] = [NavEntry {
    group: "",
    label: "Test a login",
    icon: Icon::RULES,
    href: "/",
    prefixes: &[],
    for_admins: false,
}];

const NOUN: Noun = Noun { one: "service", many: "services" };

/// Adds the pages to the table of routes.
pub(crate) fn add_pages(table: &mut RouteTable<Mcat>, app: &Arc<Mcat>) {
    let config = &app.config().site;
    let (origin, name) = (config.public_url.clone(), config.display_name().to_owned());
    let site = web::Site { service: "MCAT", name, home: "/", account: None, logout: "/logout" };
    let pages = Pages::new(site, origin, &NAVIGATION, app.client().clone(), app.clock().clone());
    pages.add_to(table, &["/v1/"]);
    let shared = Shared { app: Arc::clone(app), pages: pages.clone() };
    pages.add_page(table, Method::GET, "/", Need::Person, get(asked).with_state(shared.clone()));
    pages.add_page(table, Method::POST, "/", Need::Person, post(submitted).with_state(shared));
}

/// What is asked: a login, another one to compare with, and a draft.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Question {
    service: String,
    tags: String,
    /// Whether it is taken to have no tags.
    untagged: Option<String>,
    other: String,
    other_tags: String,
    other_untagged: Option<String>,
    draft: String,
}

/// What is decided; for admins with what the draft would change for everybody.
struct Answer {
    explained: ExplainResponse,
    check: Option<CheckPolicyResponse>,
}

impl Question {
    fn is_empty(&self) -> bool {
        self.service.trim().is_empty()
    }

    fn request(&self, draft: Option<PolicyDraft>) -> ExplainRequest {
        let context = |service: &str, tags: &str, untagged: bool| Context {
            service: service.trim().to_owned(),
            service_tags: words(tags),
            registered_tags: untagged.then_some(false),
        };
        let Context { service, service_tags, registered_tags } =
            context(&self.service, &self.tags, self.untagged.is_some());
        let other = || context(&self.other, &self.other_tags, self.other_untagged.is_some());
        let other = (!self.other.trim().is_empty()).then(other);
        ExplainRequest { service, service_tags, registered_tags, other, draft }
    }

    /// The draft that was written, if any.
    fn draft(&self) -> Result<Option<PolicyDraft>, Problem> {
        if self.draft.trim().is_empty() {
            return Ok(None);
        }
        parse_draft(&self.draft, "draft").map(Some).map_err(|error| Problem::field("draft", error))
    }

    /// Leads to the answer again. A draft is not in it: it may be long, and is not for logs.
    fn link(&self) -> String {
        let pairs = [
            ("service", &self.service),
            ("tags", &self.tags),
            ("other", &self.other),
            ("other_tags", &self.other_tags),
        ];
        let mut pairs: Vec<(&str, &str)> = pairs.map(|(name, value)| (name, value.trim())).to_vec();
        pairs.retain(|(_, value)| !value.is_empty());
        pairs.extend(self.untagged.iter().map(|_| ("untagged", "on")));
        pairs.extend(self.other_untagged.iter().map(|_| ("other_untagged", "on")));
        format!("/?{}", serde_urlencoded::to_string(pairs).expect("texts can be written as a query"))
    }
}

/// The words of a field: separated by spaces or commas.
fn words(text: &str) -> Vec<String> {
    text.split([' ', ',', '\n', '\r', '\t']).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

async fn asked(
    State(shared): State<Shared>,
    visitor: Visitor,
    Query(question): Query<Question>,
) -> Result<Response, Problem> {
    let answer = if question.is_empty() { None } else { Some(answer(&shared, &visitor, &question).await) };
    show(&visitor, &question, answer)
}

async fn submitted(
    State(shared): State<Shared>,
    submission: Submission<Visitor, Question>,
) -> Result<Response, Problem> {
    let show = async |visitor: &Visitor, question: &Question, shown: Shown| {
        Ok(page(visitor, question, &shown, None))
    };
    let act = async |visitor: &Visitor, question: &Question| {
        let answer = answer(&shared, visitor, question).await;
        self::show(visitor, question, Some(answer))
    };
    submission.handle(&[], show, act).await
}

async fn answer(shared: &Shared, visitor: &Visitor, question: &Question) -> Result<Answer, Problem> {
    let calls = Calls::new(Arc::clone(&shared.app), visitor.context().clone());
    let draft = question.draft()?;
    let explained = calls.explain(question.request(draft.clone())).await?;
    let check = match draft {
        Some(draft) if visitor.is_admin() => {
            calls.check_draft(CheckDraftRequest { draft: Some(draft) }).await?.check
        }
        _ => None,
    };
    Ok(Answer { explained, check })
}

/// The page, with the answer below the form; what can be corrected is said at the form.
fn show(
    visitor: &Visitor,
    question: &Question,
    answer: Option<Result<Answer, Problem>>,
) -> Result<Response, Problem> {
    match answer {
        None => Ok(page(visitor, question, &Shown::first(), None)),
        Some(Ok(answer)) => Ok(page(visitor, question, &Shown::first(), Some(&answer))),
        Some(Err(problem)) if problem.kind == ProblemKind::Invalid => {
            let shown = Shown { status: problem.status(), errors: vec![error_of(&problem)] };
            Ok(page(visitor, question, &shown, None))
        }
        Some(Err(problem)) => Err(problem),
    }
}

/// What is wrong, at the field of the form that it is about.
fn error_of(problem: &Problem) -> FieldError {
    let path = problem.field.as_deref().unwrap_or_default();
    let fields = [
        ("other.service_tags", "other_tags"),
        ("other.", "other"),
        ("service_tags", "tags"),
        ("service", "service"),
        ("draft", "draft"),
    ];
    let field = fields.into_iter().find(|(begin, _)| path.starts_with(begin)).map_or("", |(_, field)| field);
    let text = match path.strip_prefix("draft") {
        Some("") => place_in_words(&problem.detail),
        // Of a draft, the path within it says what is meant.
        Some(within) => format!("`{}`: {}", within.trim_start_matches('.'), problem.detail),
        None if field.is_empty() => problem.to_string(),
        None => problem.detail.clone(),
    };
    FieldError { field, text: web::sentence(&text) }
}

/// What is wrong with the text of a draft: `draft:6:9: is …`, as compilers write it, becomes `Line 6, column 9: is …`.
fn place_in_words(detail: &str) -> String {
    let rest = detail.strip_prefix("draft:").unwrap_or(detail);
    let mut parts = rest.splitn(3, ':');
    match [parts.next(), parts.next(), parts.next()] {
        [Some(line), Some(column), Some(what)]
            if [line, column].iter().all(|it| it.parse::<u32>().is_ok()) =>
        {
            format!("Line {line}, column {column}:{what}")
        }
        _ => rest.trim_start().to_owned(),
    }
}

/// The form; beside it where there is room, and otherwise above it, the answer.
fn page(visitor: &Visitor, question: &Question, shown: &Shown, answer: Option<&Answer>) -> Response {
    let errors = &shown.errors;
    let form = web::form("/", &visitor.csrf(), fields(question, errors));
    let form = web::panel("Login to test", "", html! {}, web::padded(form));
    let (layout, body) = match answer {
        Some(answer) => (Layout::Wide, web::split_wide(result(question, answer), form)),
        None => (Layout::Text, form),
    };
    let lead = Some("What the login policy decides for you, and why. Nothing is changed.");
    visitor.page_with(shown.status, |page| Page { lead, errors, layout, ..page }, "Test a login", body)
}

fn fields(question: &Question, errors: &[FieldError]) -> Markup {
    let text = |name, label, value, hint, required| {
        web::field(Field { value, hint, required, ..Field::new(name, label, Kind::Text).error_from(errors) })
    };
    let untagged = |name, label, value: &Option<String>| {
        let kind = Kind::Checkbox { checked: value.is_some() };
        web::field(Field { required: false, ..Field::new(name, label, kind) })
    };
    let tags_hint = Some("Empty: the tags that the service is registered with.");
    html! {
        (text("service", "Service", question.service.as_str(), Some("The name of the service that you would log in to."), true))
        (text("tags", "Service tags", &question.tags, tags_hint, false))
        (untagged("untagged", "Ignore registered tags", &question.untagged))
        (web::fieldset("Compare with another login", html! {
            (text("other", "Other service", &question.other, Some("The same service with other tags, or another service."), false))
            (text("other_tags", "Tags of the other service", &question.other_tags, tags_hint, false))
            (untagged("other_untagged", "Ignore the other service's registered tags", &question.other_untagged))
        }))
        (web::field(Field {
            value: &question.draft,
            hint: Some("Policy to test: TOML from “mciasctl policy export”, or JSON. Up to 64 KiB."),
            required: false,
            ..Field::new("draft", "Draft", Kind::TextArea { rows: 10 }).error_from(errors)
        }))
        (web::button("Test", Action::Primary))
    }
}

fn result(question: &Question, answer: &Answer) -> Markup {
    let explained = &answer.explained;
    let link = question.link();
    let logins = [
        (named(&question.service, &question.tags, question.untagged.is_some()), explained.decisions.as_ref()),
        (
            named(&question.other, &question.other_tags, question.other_untagged.is_some()),
            explained.other.as_ref(),
        ),
    ];
    let logins: Vec<(String, &Decisions)> =
        logins.into_iter().filter_map(|(login, decisions)| Some((login, decisions?))).collect();
    let all: Vec<(String, &ExplainPolicyResponse, &str)> = logins
        .iter()
        .flat_map(|(login, decisions)| {
            let in_force = decisions.in_force.as_ref();
            let in_force = in_force.map(|it| (format!("{login}: policy in force"), it, link.as_str()));
            let draft = decisions.draft.as_ref().map(|it| (format!("{login}: draft"), it, ""));
            in_force.into_iter().chain(draft)
        })
        .collect();
    html! {
        @if all.len() > 1 { (comparison(&logins)) }
        @for (title, decision, link) in &all {
            (web::panel(title, "", html! {}, html! {
                (parts::explanation(decision, NOUN, link))
            }))
        }
        @if let Some(check) = &answer.check {
            (web::panel("What the draft would change for everybody", "", html! {}, parts::changes(check, NOUN)))
        }
        (web::panel("Your token", "", html! {}, html! {
            (web::facts(&[
                ("Account", html! { (explained.account) }),
                ("Roles", html! { @if explained.roles.is_empty() { "none" } @else { (web::tags(&explained.roles)) } }),
            ]))
            (web::padded(web::code_block("Claims", &pretty(&explained.claims))))
        }))
    }
}

/// A login in words: two may be to the same service.
fn named(service: &str, tags: &str, is_untagged: bool) -> String {
    let service = service.trim();
    match words(tags).join(", ") {
        tags if !tags.is_empty() => format!("{service}, tagged {tags}"),
        _ if is_untagged => format!("{service}, without tags"),
        _ => service.to_owned(),
    }
}

/// The decisions beside each other.
fn comparison(logins: &[(String, &Decisions)]) -> Markup {
    let decided = |answer: &Option<ExplainPolicyResponse>| match answer {
        Some(answer) => parts::verdict(answer),
        None => html! { "–" },
    };
    let row = |(login, decisions): &(String, &Decisions)| {
        vec![html! { (login) }, decided(&decisions.in_force), decided(&decisions.draft)]
    };
    let rows: Vec<_> = logins.iter().map(row).collect();
    let columns = [Column::plain("Login to"), Column::text("Policy in force"), Column::text("Draft")];
    web::panel("Compared", "", html! {}, web::table("Decisions", &columns, &rows))
}

/// JSON, a line for each claim.
fn pretty(claims: &str) -> String {
    let read: Option<serde_json::Value> = serde_json::from_str(claims).ok();
    read.map_or_else(|| claims.to_owned(), |read| format!("{read:#}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_at_its_field_and_says_where() {
        for (path, detail, field, text) in [
            ("service_tags[0]", "use lowercase letters", "tags", "Use lowercase letters."),
            ("other.service_tags[1]", "is empty", "other_tags", "Is empty."),
            ("draft", "draft:6:9: `a` is no number: 7", "draft", "Line 6, column 9: “a” is no number: 7."),
            ("draft", "draft: EOF at line 1", "draft", "EOF at line 1."),
            ("draft", "draft:6: x", "draft", "6: x."),
            ("draft.rules[0].roles[0]", "is not a role", "draft", "“rules[0].roles[0]”: is not a role."),
            ("limit", "is too large", "", "Limit: is too large."),
        ] {
            let error = error_of(&Problem::field(path, detail));
            assert_eq!((error.field, error.text.as_str()), (field, text));
        }
    }
}
