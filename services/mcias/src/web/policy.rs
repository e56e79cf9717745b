//! Pages for admins: the login policy, and explanations of its decisions.

use axum::http::StatusCode;
use axum::response::Response;
use maud::{Markup, html};
use mc_api::mcias::{ExplainPolicyRequest, Explanation, GetPolicyRequest, Policy, Rule, SetPolicyRequest};
use mcdsl::http::Query;
use mcdsl::problem::Problem;
use mcdsl::web::session::{expired_form, field_errors};
use mcdsl::web::{self, Action, Choice, Field, FieldError, Kind, Page, Tone, Width};
use serde::Deserialize;

use super::visitor::{Posted, Submission, Visitor};
use super::{Answer, split};

const EFFECTS: [Choice<'static>; 2] =
    [Choice { value: "allow", label: "Allow" }, Choice { value: "deny", label: "Deny" }];

#[derive(Debug, Default, Deserialize)]
pub(super) struct Question {
    #[serde(default)]
    username: String,
    #[serde(default)]
    service: String,
    #[serde(default)]
    tags: String,
}

pub(super) async fn page(visitor: Visitor, Query(question): Query<Question>) -> Answer {
    policy_page(&visitor, StatusCode::OK, &question, None, &[]).await
}

async fn policy_page(
    visitor: &Visitor,
    status: StatusCode,
    question: &Question,
    default: Option<&str>,
    errors: &[FieldError],
) -> Answer {
    let policy = visitor.calls.get_policy(GetPolicyRequest {}).await?;
    let is_asked = !question.username.is_empty() || !question.service.is_empty();
    let answer = if is_asked { Some(explain(visitor, question).await) } else { None };
    let failed = match &answer {
        Some(Err(problem)) => field_errors(problem, &["username", "service", "tags"]).to_vec(),
        _ => errors.to_vec(),
    };
    let csrf = visitor.csrf();
    let body = html! {
        (web::card("Rules", html! {
            p { "The lowest matching priority decides; on a tie, Deny wins." }
            @if policy.rules.is_empty() {
                (web::empty_state("No rules", "The default decides.", None))
            } @else {
                (web::table("Rules by priority", &["Name", "Priority", "Effect", "Matches", ""], &rows(&policy)))
            }
            (web::form("/policy/default", &csrf, html! {
                input type="hidden" name="revision" value=(policy.revision);
                (web::field(Field { value: default.unwrap_or(&policy.default), ..Field::new("default", "No rule matches (default)", Kind::Select(&EFFECTS)) }))
                (web::button("Save default", Action::Secondary))
            }))
        }))
        (web::card("Explain a login", html! {
            (question_form(question, &failed))
            @if let Some(Ok(explained)) = &answer { (answered(question, explained)) }
        }))
    };
    let add = web::link_button("/policy/rule", "New rule", Action::Primary);
    let change = |page| Page { actions: add, errors: &failed, ..page };
    Ok(visitor.page_with(status, change, "Login policy", body))
}

async fn explain(visitor: &Visitor, question: &Question) -> Result<Explanation, Problem> {
    let request = ExplainPolicyRequest {
        username: question.username.trim().to_owned(),
        service: question.service.trim().to_owned(),
        tags: split(&question.tags),
        registered_tags: None,
    };
    visitor.calls.explain_policy(request).await
}

fn question_form(question: &Question, errors: &[FieldError]) -> Markup {
    web::search_form(
        "/policy",
        html! {
            (web::field(Field { value: &question.username, ..Field::new("username", "Username", Kind::Text).error_from(errors) }))
            (web::field(Field { value: &question.service, ..Field::new("service", "Service", Kind::Text).error_from(errors) }))
            (web::field(Field {
                value: &question.tags,
                hint: Some("Empty: the tags that the service is registered with."),
                required: false,
                ..Field::new("tags", "Service tags", Kind::Text).error_from(errors)
            }))
            (web::button("Explain", Action::Secondary))
        },
    )
}

fn answered(question: &Question, explained: &Explanation) -> Markup {
    let by = explained.by.as_ref();
    let by = by.map_or_else(
        || html! { "the default" },
        |rule| html! { "rule " strong { (rule.name) } ": " (matches(rule)) },
    );
    let others: Vec<String> =
        explained.also.iter().map(|rule| format!("{} ({})", rule.name, rule.effect)).collect();
    web::facts(&[
        ("Login", html! { (question.username) " to " (question.service) " " (effect(&explained.effect)) }),
        ("Decided by", by),
        ("Other matching rules", html! { (others.join(", ")) }),
        ("Service tags", html! { (explained.tags.join(", ")) }),
    ])
}

fn effect(word: &str) -> Markup {
    if word == "deny" { web::badge("Denied", Tone::Bad) } else { web::badge("Allowed", Tone::Good) }
}

fn rows(policy: &Policy) -> Vec<Vec<Markup>> {
    let row = |rule: &Rule| {
        let edit = format!("/policy/rule?name={}", rule.name);
        vec![
            html! { (rule.name) },
            html! { (rule.priority) },
            html! { (if rule.effect == "deny" { "Deny" } else { "Allow" }) },
            html! { (matches(rule)) },
            html! { a href=(edit) { "Edit" span.hidden { " " (rule.name) } } },
        ]
    };
    policy.rules.iter().map(row).collect()
}

/// What a rule matches, as a sentence.
fn matches(rule: &Rule) -> String {
    let parts = [
        ("role", &rule.roles),
        ("type", &rule.account_types),
        ("account", &rule.usernames),
        ("service", &rule.services),
        ("all tags", &rule.tags),
    ];
    let said = parts.iter().filter(|(_, words)| !words.is_empty());
    let said: Vec<_> = said.map(|(what, words)| format!("{what}: {}", words.join(" or "))).collect();
    if said.is_empty() { "everything".to_owned() } else { said.join("; ") }
}

/// A whole policy, to be stored again.
fn request(policy: Policy, revision: i64) -> SetPolicyRequest {
    SetPolicyRequest { default: policy.default, rules: policy.rules, revision: Some(revision) }
}

#[derive(Deserialize)]
pub(super) struct Default {
    default: String,
    revision: i64,
}

pub(super) async fn set_default(submission: Submission<Default>) -> Answer {
    let (visitor, form) = match submission {
        Submission::Valid(visitor, form) => (visitor, form),
        Submission::Expired(visitor, form) => {
            let (status, typed) = (StatusCode::FORBIDDEN, Some(form.default.as_str()));
            return policy_page(&visitor, status, &Question::default(), typed, &expired_form()).await;
        }
    };
    let policy = visitor.calls.get_policy(GetPolicyRequest {}).await?;
    let request = request(Policy { default: form.default, ..policy }, form.revision);
    let set = visitor.calls.set_policy(request).await;
    Ok(visitor.finish("/policy", set, "Default saved."))
}

#[derive(Debug, Deserialize)]
pub(super) struct Which {
    name: Option<String>,
}

pub(super) async fn rule(visitor: Visitor, Query(which): Query<Which>) -> Answer {
    let policy = visitor.calls.get_policy(GetPolicyRequest {}).await?;
    let form = match which.name {
        None => RuleForm { priority: "100".to_owned(), revision: policy.revision, ..RuleForm::default() },
        Some(name) => {
            let found = policy.rules.iter().find(|rule| rule.name == name);
            let rule = found.ok_or_else(|| Problem::not_found(format!("There is no rule `{name}`.")))?;
            RuleForm::of(rule, policy.revision)
        }
    };
    Ok(rule_page(&visitor, StatusCode::OK, &form, &[]))
}

#[derive(Debug, std::default::Default, Deserialize)]
pub(super) struct RuleForm {
    /// The rule that it replaces; empty for a new one.
    #[serde(default)]
    old: String,
    revision: i64,
    name: String,
    priority: String,
    effect: String,
    #[serde(default)]
    roles: String,
    #[serde(default)]
    account_types: String,
    #[serde(default)]
    usernames: String,
    #[serde(default)]
    services: String,
    #[serde(default)]
    tags: String,
}

impl RuleForm {
    fn of(rule: &Rule, revision: i64) -> Self {
        Self {
            old: rule.name.clone(),
            revision,
            name: rule.name.clone(),
            priority: rule.priority.to_string(),
            effect: rule.effect.clone(),
            roles: rule.roles.join(" "),
            account_types: rule.account_types.join(" "),
            usernames: rule.usernames.join(" "),
            services: rule.services.join(" "),
            tags: rule.tags.join(" "),
        }
    }

    fn rule(&self) -> Result<Rule, Problem> {
        let wrong = |_| Problem::field("priority", format!("`{}` is not a whole number.", self.priority));
        Ok(Rule {
            name: self.name.trim().to_owned(),
            priority: self.priority.trim().parse().map_err(wrong)?,
            effect: self.effect.clone(),
            roles: split(&self.roles),
            account_types: split(&self.account_types),
            usernames: split(&self.usernames),
            services: split(&self.services),
            tags: split(&self.tags),
        })
    }
}

/// A rule's conditions, each a list of words.
const LISTS: [(&str, &str, &str); 5] = [
    ("roles", "Roles", "The account has one of these roles: admin, user, guest."),
    ("account_types", "Types", "The account has one of these types: human, system."),
    ("usernames", "Accounts", "The account has one of these names."),
    ("services", "Services", "The service has one of these names."),
    ("tags", "Tags", "The service has all of these."),
];

fn rule_page(visitor: &Visitor, status: StatusCode, form: &RuleForm, errors: &[FieldError]) -> Response {
    let value = |name: &str| match name {
        "roles" => form.roles.as_str(),
        "account_types" => &form.account_types,
        "usernames" => &form.usernames,
        "services" => &form.services,
        _ => &form.tags,
    };
    let fields = html! {
        input type="hidden" name="old" value=(form.old);
        input type="hidden" name="revision" value=(form.revision);
        (web::field(Field { value: &form.name, ..Field::new("name", "Name", Kind::Text).error_from(errors) }))
        (web::field(Field {
            value: &form.priority,
            hint: Some("The lowest matching priority decides."),
            ..Field::new("priority", "Priority", Kind::Number).error_from(errors)
        }))
        (web::field(Field { value: &form.effect, ..Field::new("effect", "Effect", Kind::Select(&EFFECTS)).error_from(errors) }))
        (web::fieldset("Conditions: all must match, and an empty one matches everything", html! {
            @for (name, label, hint) in LISTS {
                (web::field(Field {
                    value: value(name),
                    hint: Some(hint),
                    required: false,
                    ..Field::new(name, label, Kind::Text).error_from(errors)
                }))
            }
        }))
        (web::button("Save rule", Action::Primary))
    };
    let csrf = visitor.csrf();
    let body = html! {
        div.card { (web::form("/policy/rule", &csrf, fields)) }
        @if !form.old.is_empty() {
            (web::card("Delete", web::form("/policy/rule/remove", &csrf, html! {
                input type="hidden" name="name" value=(form.old);
                input type="hidden" name="revision" value=(form.revision);
                (web::button("Delete rule", Action::Danger))
            })))
        }
    };
    let title = if form.old.is_empty() { "New rule" } else { form.old.as_str() };
    visitor.page_with(status, |page| Page { width: Width::Text, errors, ..page }, title, body)
}

pub(super) async fn save_rule(submission: Submission<RuleForm>) -> Answer {
    let (visitor, form) = match submission {
        Submission::Valid(visitor, form) => (visitor, form),
        Submission::Expired(visitor, form) => {
            return Ok(rule_page(&visitor, StatusCode::FORBIDDEN, &form, &expired_form()));
        }
    };
    let saved = async {
        let rule = form.rule()?;
        let mut policy = visitor.calls.get_policy(GetPolicyRequest {}).await?;
        policy.rules.retain(|other| other.name != form.old);
        // Last, so that an error names it and not another rule of the same name.
        policy.rules.push(rule);
        visitor.calls.set_policy(request(policy, form.revision)).await
    };
    match saved.await {
        Ok(_) => Ok(visitor.done("/policy", format!("Rule {} saved.", form.name.trim()))),
        Err(problem) => {
            let mut fields = vec!["name", "priority", "effect"];
            fields.extend(LISTS.iter().map(|(name, _, _)| *name));
            let errors = field_errors(&problem, &fields);
            Ok(rule_page(&visitor, problem.status(), &form, &errors))
        }
    }
}

#[derive(Deserialize)]
pub(super) struct Remove {
    name: String,
    revision: i64,
}

pub(super) async fn remove_rule(posted: Posted<Remove>) -> Answer {
    let Posted { sender: visitor, form } = posted;
    let mut policy = visitor.calls.get_policy(GetPolicyRequest {}).await?;
    policy.rules.retain(|rule| rule.name != form.name);
    let removed = visitor.calls.set_policy(request(policy, form.revision)).await;
    Ok(visitor.finish("/policy", removed, &format!("Rule {} deleted.", form.name)))
}
