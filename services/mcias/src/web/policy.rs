//! Pages for admins: the login policy, what it decides for an account and why, and its history.

use axum::http::StatusCode;
use axum::response::Response;
use maud::{Markup, html};
use mc_api::policy::{
    CheckPolicyRequest, DiffPolicyRequest, ExplainPolicyRequest, ExplainPolicyResponse, GetPolicyRequest,
    ListPolicyRevisionsRequest, PolicyDocument, Rule, SetPolicyRequest, Warning,
};
use mcdsl::http::Query;
use mcdsl::problem::Problem;
use mcdsl::web::policy::{self as parts, Links};
use mcdsl::web::session::Shown;
use mcdsl::web::{self, Action, Choice, Confirm, Danger, Field, FieldError, Icon, Kind, Layout, Page};
use serde::Deserialize;

use super::own::ask;
use super::visitor::{Posted, Submission, Visitor};
use super::{Answer, split};
use crate::domain::policy::SPEC;

const EFFECTS: [Choice<'static>; 2] =
    [Choice { value: "allow", label: "Allow" }, Choice { value: "deny", label: "Deny" }];

const LINKS: Links<'static> = Links { edit_rule: "/policy/rule?name=", edit_default: "/policy/default" };

#[derive(Debug, Default, Deserialize)]
pub(super) struct Question {
    #[serde(default)]
    account: String,
    #[serde(default)]
    service: String,
    #[serde(default)]
    tags: String,
}

/// The page above those about rules.
const POLICY: [(&str, &str); 1] = [("Login policy", "/policy")];

pub(super) async fn page(visitor: Visitor, Query(question): Query<Question>) -> Answer {
    let policy = visitor.calls.get_policy(GetPolicyRequest {}).await?;
    let is_asked = !question.account.is_empty() || !question.service.is_empty();
    let answer = if is_asked { Some(explain(&visitor, &question).await) } else { None };
    let errors = match &answer {
        Some(Err(problem)) => question_errors(problem),
        _ => Vec::new(),
    };
    let warnings = warnings(&visitor, policy.clone()).await;
    let body = html! {
        (parts::warnings(&warnings))
        (web::split_wide(
            parts::rules(&policy, SPEC.resource_noun, LINKS),
            web::panel("Explain a login", "", html! {}, html! {
                (web::padded(question_form(&question, &errors)))
                @if let Some(Ok(explained)) = &answer { (parts::explanation(explained, SPEC.resource_noun, &link(&question))) }
            }),
        ))
    };
    let actions = html! {
        (web::link_button("/policy/history", "History", Action::Secondary))
        a.btn.main-btn href="/policy/rule" { (Icon::PLUS.svg()) "New rule" }
    };
    let change =
        |page| Page { actions, errors: &errors, lead: Some("Who may log in to which service."), ..page };
    Ok(visitor.page_with(StatusCode::OK, change, "Login policy", body))
}

/// What is probably a mistake in the policy in force.
async fn warnings(visitor: &Visitor, policy: PolicyDocument) -> Vec<Warning> {
    let PolicyDocument { default, rules, .. } = policy;
    let request = CheckPolicyRequest { default, rules, revision: None };
    // The page is of use without.
    visitor.calls.check_policy(request).await.map(|response| response.warnings).unwrap_or_default()
}

async fn explain(visitor: &Visitor, question: &Question) -> Result<ExplainPolicyResponse, Problem> {
    let request = ExplainPolicyRequest {
        account: question.account.trim().to_owned(),
        resource: question.service.trim().to_owned(),
        resource_tags: split(&question.tags),
        ..ExplainPolicyRequest::default()
    };
    visitor.calls.explain_policy(request).await
}

/// What is wrong with a question, by the fields of its form.
fn question_errors(problem: &Problem) -> Vec<FieldError> {
    let mut errors = Shown::again(problem, &["account", "resource", "resource_tags"]).errors;
    for error in &mut errors {
        error.field = match error.field {
            "resource" => "service",
            "resource_tags" => "tags",
            other => other,
        };
    }
    errors
}

fn link(question: &Question) -> String {
    let pairs = [("account", &question.account), ("service", &question.service), ("tags", &question.tags)];
    let query = serde_urlencoded::to_string(pairs).expect("texts can be written as a query");
    format!("/policy?{query}")
}

fn question_form(question: &Question, errors: &[FieldError]) -> Markup {
    web::search_form(
        "/policy",
        html! {
            (web::field(Field { value: &question.account, ..Field::new("account", "Account", Kind::Text).error_from(errors) }))
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

#[derive(Debug, Deserialize)]
pub(super) struct Older {
    before: Option<String>,
}

pub(super) async fn history(visitor: Visitor, Query(older): Query<Older>) -> Answer {
    let first = older.before.as_ref().map(|_| "/policy/history");
    let request = ListPolicyRevisionsRequest { limit: Some(50), before: older.before.clone() };
    let list = visitor.calls.list_policy_revisions(request).await?;
    let next = list.next.as_ref().map(|next| format!("/policy/history?before={next}"));
    let body = web::plain_panel(html! {
        (parts::revisions(visitor.now(), &list, "/policy/diff?to="))
        (web::pager("Newest first", &[("Newest", first), ("Older", next.as_deref())]))
    });
    let lead = Some("Every change of the login policy.");
    Ok(visitor.page_with(StatusCode::OK, |page| Page { crumbs: &POLICY, lead, ..page }, "History", body))
}

#[derive(Debug, Deserialize)]
pub(super) struct Compared {
    from: Option<i64>,
    to: i64,
}

pub(super) async fn diff(visitor: Visitor, Query(Compared { from, to }): Query<Compared>) -> Answer {
    let from = from.unwrap_or_else(|| to.saturating_sub(1));
    let diff = visitor.calls.diff_policy(DiffPolicyRequest { from, to: Some(to) }).await?;
    let title = format!("Revision {to}");
    let lead = format!("What changed since revision {from}.");
    let crumbs = [POLICY[0], ("History", "/policy/history")];
    let body = web::plain_panel(parts::diff(&diff));
    Ok(visitor.page_with(
        StatusCode::OK,
        |page| Page { crumbs: &crumbs, lead: Some(&lead), ..page },
        &title,
        body,
    ))
}

/// A request that replaces the policy.
fn request(policy: PolicyDocument, revision: i64) -> SetPolicyRequest {
    SetPolicyRequest { default: policy.default, rules: policy.rules, revision }
}

#[derive(Deserialize)]
pub(super) struct Default {
    default: String,
    revision: i64,
}

pub(super) async fn default(visitor: Visitor) -> Answer {
    let PolicyDocument { default, revision, .. } = visitor.calls.get_policy(GetPolicyRequest {}).await?;
    Ok(default_page(&visitor, &Default { default, revision }, &Shown::first()))
}

fn default_page(visitor: &Visitor, form: &Default, shown: &Shown) -> Response {
    let fields = html! {
        input type="hidden" name="revision" value=(form.revision);
        (web::field(Field {
            value: &form.default,
            hint: Some("Decides where no rule matches."),
            ..Field::new("default", "Effect", Kind::Select(&EFFECTS)).error_from(&shown.errors)
        }))
        div.actions {
            (web::button("Save default", Action::Primary))
            (web::link_button("/policy", "Cancel", Action::Secondary))
        }
    };
    let body = web::plain_panel(web::padded(web::form("/policy/default", &visitor.csrf(), fields)));
    let change = |page| Page { layout: Layout::Text, crumbs: &POLICY, errors: &shown.errors, ..page };
    visitor.page_with(shown.status, change, "No rule matches", body)
}

pub(super) async fn set_default(submission: Submission<Default>) -> Answer {
    let show =
        async |visitor: &Visitor, form: &Default, shown: Shown| Ok(default_page(visitor, form, &shown));
    let act = async |visitor: &Visitor, form: &Default| {
        let policy = visitor.calls.get_policy(GetPolicyRequest {}).await?;
        let request = request(PolicyDocument { default: form.default.clone(), ..policy }, form.revision);
        visitor.calls.set_policy(request).await?;
        Ok(visitor.done("/policy", "Default saved."))
    };
    submission.handle(&["default"], show, act).await
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
    Ok(rule_page(&visitor, &form, &Shown::first()))
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
    accounts: String,
    #[serde(default)]
    resources: String,
    #[serde(default)]
    resource_tags: String,
    /// Not in the form: kept as it is.
    #[serde(default)]
    operations: String,
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
            accounts: rule.accounts.join(" "),
            resources: rule.resources.join(" "),
            resource_tags: rule.resource_tags.join(" "),
            operations: rule.operations.join(" "),
        }
    }

    fn rule(&self) -> Result<Rule, Problem> {
        let wrong = |_| Problem::field("priority", "Use a whole number.");
        Ok(Rule {
            name: self.name.trim().to_owned(),
            priority: self.priority.trim().parse().map_err(wrong)?,
            effect: self.effect.clone(),
            roles: split(&self.roles),
            account_types: split(&self.account_types),
            accounts: split(&self.accounts),
            resources: split(&self.resources),
            resource_tags: split(&self.resource_tags),
            operations: split(&self.operations),
        })
    }
}

/// A rule's conditions, each a list of words.
const LISTS: [(&str, &str, &str); 5] = [
    ("roles", "Roles", "The account has one of these: admin, user, guest. Services have none."),
    ("account_types", "Types", "The account is one of these: human (person), system (service)."),
    ("accounts", "Accounts", "The account has one of these names."),
    ("resources", "Services", "The service has one of these names; * stands for any characters."),
    ("resource_tags", "Service tags", "The service has all of these tags."),
];

/// What comes of deleting a rule.
const DELETED: &str = "The rules after it, or the default, then decide these logins";

fn rule_page(visitor: &Visitor, form: &RuleForm, shown: &Shown) -> Response {
    let Shown { status, errors } = shown;
    let value = |name: &str| match name {
        "roles" => form.roles.as_str(),
        "account_types" => &form.account_types,
        "accounts" => &form.accounts,
        "resources" => &form.resources,
        _ => &form.resource_tags,
    };
    let fields = html! {
        input type="hidden" name="old" value=(form.old);
        input type="hidden" name="revision" value=(form.revision);
        input type="hidden" name="operations" value=(form.operations);
        (web::field(Field {
            value: &form.name,
            autofocus: form.old.is_empty(),
            ..Field::new("name", "Name", Kind::Text).error_from(errors)
        }))
        (web::field(Field {
            value: &form.priority,
            hint: Some("The lowest matching priority decides; on a tie, Deny wins."),
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
        div.actions {
            (web::button(if form.old.is_empty() { "Create rule" } else { "Save rule" }, Action::Primary))
            (web::link_button("/policy", "Cancel", Action::Secondary))
        }
    };
    let delete = serde_urlencoded::to_string([("name", &form.old)]).expect("texts can be written as a query");
    let delete = format!("/policy/rule/delete?{delete}");
    let body = html! {
        (web::plain_panel(web::padded(web::form("/policy/rule", &visitor.csrf(), fields))))
        @if !form.old.is_empty() {
            (web::danger_zone(&[Danger {
                name: "Delete rule",
                consequence: format!("{DELETED}."),
                href: Some(delete),
            }]))
        }
    };
    let title = if form.old.is_empty() { "New rule" } else { form.old.as_str() };
    visitor.page_with(
        *status,
        |page| Page { layout: Layout::Text, crumbs: &POLICY, errors, ..page },
        title,
        body,
    )
}

pub(super) async fn save_rule(submission: Submission<RuleForm>) -> Answer {
    let show = async |visitor: &Visitor, form: &RuleForm, shown: Shown| Ok(rule_page(visitor, form, &shown));
    let act = async |visitor: &Visitor, form: &RuleForm| {
        let rule = form.rule()?;
        let mut policy = visitor.calls.get_policy(GetPolicyRequest {}).await?;
        policy.rules.retain(|other| other.name != form.old);
        // Last, so that an error names this rule and not another of the same name.
        policy.rules.push(rule);
        visitor.calls.set_policy(request(policy, form.revision)).await?;
        Ok(visitor.done("/policy", format!("Rule {} saved.", form.name.trim())))
    };
    let mut fields = vec!["name", "priority", "effect"];
    fields.extend(LISTS.iter().map(|(name, _, _)| *name));
    // `rules[7].resources[0]` is the field `resources` of this form.
    submission.handle(&fields, show, act).await
}

pub(super) async fn ask_delete_rule(visitor: Visitor, Query(which): Query<Which>) -> Answer {
    let policy = visitor.calls.get_policy(GetPolicyRequest {}).await?;
    let name = which.name.unwrap_or_default();
    let found = policy.rules.iter().find(|rule| rule.name == name);
    let rule = found.ok_or_else(|| Problem::not_found(format!("There is no rule `{name}`.")))?;
    let query = serde_urlencoded::to_string([("name", &name)]).expect("texts can be written as a query");
    let back = format!("/policy/rule?{query}");
    let asked = Confirm {
        question: &format!("Delete rule {name}?"),
        lost: &[DELETED.to_owned()],
        rest: html! { (parts::sentence(rule, SPEC.resource_noun)) ": " (rule.effect) },
        fields: html! {
            input type="hidden" name="name" value=(name);
            input type="hidden" name="revision" value=(policy.revision);
        },
        action: "/policy/rule/delete",
        button: "Delete rule",
        back: &back,
    };
    Ok(ask(&visitor, &[POLICY[0], (&name, &back)], "Delete rule", &asked))
}

#[derive(Deserialize)]
pub(super) struct Delete {
    name: String,
    revision: i64,
}

pub(super) async fn delete_rule(posted: Posted<Delete>) -> Answer {
    let Posted { sender: visitor, form } = posted;
    let mut policy = visitor.calls.get_policy(GetPolicyRequest {}).await?;
    let before = policy.rules.len();
    policy.rules.retain(|rule| rule.name != form.name);
    if policy.rules.len() == before {
        return Err(Problem::not_found(format!("There is no rule `{}`.", form.name)));
    }
    let deleted = visitor.calls.set_policy(request(policy, form.revision)).await;
    Ok(visitor.finish("/policy", deleted, &format!("Rule {} deleted.", form.name)))
}
