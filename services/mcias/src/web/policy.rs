//! Pages for admins: the login policy, and what it says of whom.

use axum::http::StatusCode;
use axum::response::Response;
use maud::{Markup, html};
use mc_api::mcias::{ExplainPolicyRequest, Explanation, GetPolicyRequest, Policy, Rule, SetPolicyRequest};
use mcdsl::http::Query;
use mcdsl::problem::Problem;
use mcdsl::web::{self, Action, Choice, Field, FieldError, Kind, Page, Tone, Width};
use serde::Deserialize;

use super::visit::{Answer, Posted, Visitor, errors};
use super::{split, words};

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
    let policy = visitor.calls.get_policy(GetPolicyRequest {}).await?;
    let asked = !question.username.is_empty() || !question.service.is_empty();
    let answer = if asked { Some(explain(&visitor, &question).await) } else { None };
    let failed = match &answer {
        Some(Err(problem)) => errors(problem, &["username", "service", "tags"]),
        _ => Vec::new(),
    };
    let csrf = visitor.csrf();
    let body = html! {
        (web::card("Rules", html! {
            p { "Of the rules that match, those of the lowest number decide; where one of them denies, it is denied." }
            @if policy.rules.is_empty() {
                (web::empty_state("No rules", "The default decides.", None))
            } @else {
                (web::table("Rules, in the order in which they decide", &["Name", "Priority", "Effect", "Matches", ""], &rows(&policy)))
            }
            (web::form("/policy/default", &csrf, html! {
                input type="hidden" name="revision" value=(policy.revision);
                (web::field(Field { value: &policy.default, ..Field::new("default", "Where no rule matches", Kind::Select(&EFFECTS)) }))
                (web::button("Save", Action::Secondary))
            }))
        }))
        (web::card("What would happen?", html! {
            (question_form(&question, &failed))
            @if let Some(Ok(explained)) = &answer { (answered(&question, explained)) }
        }))
    };
    let add = web::link_button("/policy/rule", "New rule", Action::Primary);
    let change = |page| Page { actions: add, errors: &failed, ..page };
    Ok(visitor.page_with(StatusCode::OK, change, "Login policy", body))
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
            (web::field(Field { value: &question.username, ..Field::new("username", "Account", Kind::Text).error_from(errors) }))
            (web::field(Field { value: &question.service, ..Field::new("service", "Service", Kind::Text).error_from(errors) }))
            (web::field(Field {
                value: &question.tags,
                hint: Some("Those that it is registered with, where this is empty."),
                required: false,
                ..Field::new("tags", "Tags of the service", Kind::Text).error_from(errors)
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
    let also: Vec<String> =
        explained.also.iter().map(|rule| format!("{} ({})", rule.name, rule.effect)).collect();
    web::facts(&[
        ("Login", html! { (question.username) " at " (question.service) " " (effect(&explained.effect)) }),
        ("Decided by", by),
        ("Also match", html! { (words(&also)) }),
        ("Tags of the service", html! { (words(&explained.tags)) }),
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
            effect(&rule.effect),
            html! { (matches(rule)) },
            html! { a href=(edit) { "Change" span.hidden { " " (rule.name) } } },
        ]
    };
    policy.rules.iter().map(row).collect()
}

/// What a rule is about, in words.
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

/// All of a policy, as it is sent back.
fn request(policy: Policy, revision: i64) -> SetPolicyRequest {
    SetPolicyRequest { default: policy.default, rules: policy.rules, revision: Some(revision) }
}

#[derive(Deserialize)]
pub(super) struct Default {
    default: String,
    revision: i64,
}

pub(super) async fn set_default(posted: Posted<Default>) -> Answer {
    let Posted { visitor, form } = posted;
    let policy = visitor.calls.get_policy(GetPolicyRequest {}).await?;
    let request = request(Policy { default: form.default, ..policy }, form.revision);
    let set = visitor.calls.set_policy(request).await;
    visitor.told("/policy", set, "Saved.")
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
            let rule = found.ok_or_else(|| Problem::not_found(format!("there is no rule `{name}`")))?;
            RuleForm::of(rule, policy.revision)
        }
    };
    Ok(rule_page(&visitor, StatusCode::OK, &form, &[]))
}

#[derive(Debug, std::default::Default, Deserialize)]
pub(super) struct RuleForm {
    /// The rule that it replaces; none where this is empty.
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
        let wrong =
            |_no_number| Problem::field("priority", format!("`{}` is no whole number", self.priority));
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

/// Fields of a rule that list words.
const LISTS: [(&str, &str, &str); 5] = [
    ("roles", "Roles", "The account has one of these: admin, user, guest."),
    ("account_types", "Types", "The account is of one of these: human, system."),
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
            hint: Some("The lowest number decides."),
            ..Field::new("priority", "Priority", Kind::Number).error_from(errors)
        }))
        (web::field(Field { value: &form.effect, ..Field::new("effect", "Effect", Kind::Select(&EFFECTS)).error_from(errors) }))
        (web::fieldset("Matches, where each of these does; an empty one matches everything", html! {
            @for (name, label, hint) in LISTS {
                (web::field(Field {
                    value: value(name),
                    hint: Some(hint),
                    required: false,
                    ..Field::new(name, label, Kind::Text).error_from(errors)
                }))
            }
        }))
        (web::button("Save", Action::Primary))
    };
    let csrf = visitor.csrf();
    let body = html! {
        div.card { (web::form("/policy/rule", &csrf, fields)) }
        @if !form.old.is_empty() {
            (web::card("Remove", web::form("/policy/rule/remove", &csrf, html! {
                input type="hidden" name="name" value=(form.old);
                input type="hidden" name="revision" value=(form.revision);
                (web::button("Remove the rule", Action::Danger))
            })))
        }
    };
    let title = if form.old.is_empty() { "New rule" } else { "Rule" };
    visitor.page_with(status, |page| Page { width: Width::Text, errors, ..page }, title, body)
}

pub(super) async fn save_rule(posted: Posted<RuleForm>) -> Answer {
    let Posted { visitor, form } = posted;
    let saved = async {
        let rule = form.rule()?;
        let mut policy = visitor.calls.get_policy(GetPolicyRequest {}).await?;
        policy.rules.retain(|other| other.name != form.old);
        // Last, so that what is wrong with it is told of it and not of another of the same name.
        policy.rules.push(rule);
        visitor.calls.set_policy(request(policy, form.revision)).await
    };
    match saved.await {
        Ok(_) => visitor.done("/policy", "Saved."),
        Err(problem) => {
            let mut fields = vec!["name", "priority", "effect"];
            fields.extend(LISTS.iter().map(|(name, _, _)| *name));
            // `rules[7].tags[0]` is about the field `tags` of the one rule that is shown.
            let errors = errors(&problem, &fields);
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
    let Posted { visitor, form } = posted;
    let mut policy = visitor.calls.get_policy(GetPolicyRequest {}).await?;
    policy.rules.retain(|rule| rule.name != form.name);
    let removed = visitor.calls.set_policy(request(policy, form.revision)).await;
    visitor.told("/policy", removed, "The rule is removed.")
}
