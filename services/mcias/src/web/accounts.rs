//! Pages for admins: accounts, and the tokens of services.

use axum::http::StatusCode;
use axum::response::Response;
use maud::{Markup, html};
use mc_api::mcias::{
    Account, CreateAccountRequest, DeleteAccountRequest, EndAccountSessionRequest, EndAccountSessionsRequest,
    GetAccountRequest, IssueLinkRequest, IssueTokenRequest, ListAccountSessionsRequest, ListAccountsRequest,
    ListTokensRequest, ResetFactorsRequest, RevokeTokenRequest, Token, UpdateAccountRequest,
};
use mcdsl::http::{Path, Query};
use mcdsl::problem::Problem;
use mcdsl::web::session::{NoFields, expired_form, field_errors};
use mcdsl::web::{self, Action, Choice, Field, FieldError, Kind, Page, Tone, Width};
use serde::Deserialize;
use uuid::Uuid;

use super::own::{ask, once, session_table};
use super::visitor::{Posted, Submission, Visitor};
use super::{Answer, split};
use crate::domain::Name;

const TYPES: [Choice<'static>; 3] = [
    Choice { value: "", label: "All types" },
    Choice { value: "human", label: "People" },
    Choice { value: "system", label: "Services" },
];

const NEW_TYPES: [Choice<'static>; 2] =
    [Choice { value: "human", label: "Person" }, Choice { value: "system", label: "Service" }];

#[derive(Debug, Default, Deserialize)]
pub(super) struct Search {
    #[serde(default)]
    contains: String,
    #[serde(default)]
    account_type: String,
    after: Option<String>,
}

pub(super) async fn list(visitor: Visitor, Query(search): Query<Search>) -> Answer {
    let given = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let request = ListAccountsRequest {
        limit: Some(50),
        after: search.after.clone(),
        account_type: given(&search.account_type),
        contains: given(search.contains.trim()),
    };
    let found = visitor.calls.list_accounts(request).await?;
    let at = |after: Option<&str>| {
        let mut pairs = vec![("contains", search.contains.as_str()), ("account_type", &search.account_type)];
        pairs.extend(after.map(|after| ("after", after)));
        format!("/accounts?{}", serde_urlencoded::to_string(pairs).expect("pairs of texts can be written"))
    };
    let next = found.next.as_deref().map(|next| at(Some(next)));
    let first = search.after.as_ref().map(|_after| at(None));
    let rows: Vec<_> = found.accounts.iter().map(row).collect();
    let clear = html! { a href="/accounts" { "Clear filters" } };
    let body = html! {
        (web::search_form("/accounts", html! {
            (web::field(Field {
                value: &search.contains,
                hint: Some("Part of a name"),
                required: false,
                ..Field::new("contains", "Name", Kind::Text)
            }))
            (web::field(Field { value: &search.account_type, ..Field::new("account_type", "Type", Kind::Select(&TYPES)) }))
            (web::button("Search", Action::Secondary))
        }))
        @if rows.is_empty() {
            (web::empty_state("Nothing matches", "No account has this name and type.", Some(clear)))
        } @else {
            (web::table("Accounts", &["Name", "Type", "Roles", "Tags", "State", "Last login"], &rows))
        }
        (web::pagination(first.as_deref(), next.as_deref()))
    };
    let change =
        |page| Page { actions: web::link_button("/new-account", "New account", Action::Primary), ..page };
    Ok(visitor.page_with(StatusCode::OK, change, "Accounts", body))
}

fn row(account: &Account) -> Vec<Markup> {
    vec![
        html! { a href={ "/accounts/" (account.name) } { (account.name) } },
        html! { (type_name(account)) },
        html! { (account.roles.join(", ")) },
        html! { (account.tags.join(", ")) },
        state(account),
        web::when_or(account.last_login_at, "never"),
    ]
}

fn type_name(account: &Account) -> &'static str {
    if account.account_type == "system" { "Service" } else { "Person" }
}

fn state(account: &Account) -> Markup {
    if !account.enabled {
        return web::badge("Disabled", Tone::Bad);
    }
    if account.account_type == "human" && !account.has_password && account.passkeys == 0 {
        return web::badge("No password yet", Tone::Info);
    }
    web::badge("Active", Tone::Good)
}

pub(super) async fn new(visitor: Visitor) -> Answer {
    Ok(new_page(&visitor, StatusCode::OK, &New::default(), &[]))
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct New {
    name: String,
    account_type: String,
    admin: Option<String>,
    user: Option<String>,
    guest: Option<String>,
    #[serde(default)]
    tags: String,
    #[serde(default)]
    service: String,
}

/// Roles as checkboxes.
fn role_boxes(is_ticked: impl Fn(&str) -> bool) -> Markup {
    let roles = [
        ("admin", "Administrator", "Manages accounts and policy."),
        ("user", "User", "Governed by each service's policy."),
        ("guest", "Guest", "Restricted by each service."),
    ];
    web::fieldset(
        "Roles",
        html! {
            @for (name, label, hint) in roles {
                (web::field(Field {
                    hint: Some(hint),
                    required: false,
                    ..Field::new(name, label, Kind::Checkbox { checked: is_ticked(name) })
                }))
            }
        },
    )
}

fn tags_field<'a>(value: &'a str, errors: &'a [FieldError]) -> Markup {
    web::field(Field {
        value,
        hint: Some("Words that policy rules can match, separated by spaces."),
        required: false,
        ..Field::new("tags", "Tags", Kind::Text).error_from(errors)
    })
}

fn new_page(visitor: &Visitor, status: StatusCode, given: &New, errors: &[FieldError]) -> Response {
    let fields = html! {
        (web::field(Field {
            value: &given.name,
            hint: Some("Lowercase letters, digits and - _ . @"),
            autocomplete: Some("off"),
            ..Field::new("name", "Name", Kind::Text).error_from(errors)
        }))
        (web::field(Field {
            value: &given.account_type,
            hint: Some("A person gets a setup link. A service gets tokens and has no roles."),
            ..Field::new("account_type", "Type", Kind::Select(&NEW_TYPES)).error_from(errors)
        }))
        (role_boxes(|role| match role {
            "admin" => given.admin.is_some(),
            "user" => given.user.is_some(),
            _ => given.guest.is_some(),
        }))
        (tags_field(&given.tags, errors))
        (web::field(Field {
            value: &given.service,
            hint: Some("For a service: its name in the login policy. Empty: the account's name."),
            required: false,
            ..Field::new("service", "Service", Kind::Text).error_from(errors)
        }))
        (web::button("Create account", Action::Primary))
    };
    let body = html! { div.card { (web::form("/new-account", &visitor.csrf(), fields)) } };
    visitor.page_with(status, |page| Page { width: Width::Text, errors, ..page }, "New account", body)
}

fn ticked(boxes: [(&str, &Option<String>); 3]) -> Vec<String> {
    boxes.iter().filter(|(_, ticked)| ticked.is_some()).map(|(role, _)| (*role).to_owned()).collect()
}

pub(super) async fn create(submission: Submission<New>) -> Answer {
    let (visitor, form) = match submission {
        Submission::Valid(visitor, form) => (visitor, form),
        Submission::Expired(visitor, form) => {
            return Ok(new_page(&visitor, StatusCode::FORBIDDEN, &form, &expired_form()));
        }
    };
    let request = CreateAccountRequest {
        name: form.name.trim().to_owned(),
        account_type: form.account_type.clone(),
        roles: ticked([("admin", &form.admin), ("user", &form.user), ("guest", &form.guest)]),
        tags: split(&form.tags),
        service: Some(form.service.trim().to_owned()).filter(|service| !service.is_empty()),
    };
    match visitor.calls.create_account(request).await {
        Ok(account) => {
            let next = if account.account_type == "human" {
                "Create a setup link for its owner."
            } else {
                "Create a token for it."
            };
            let text = format!("Account {} created. {next}", account.name);
            Ok(visitor.done(&format!("/accounts/{}", account.name), text))
        }
        Err(problem) => {
            let errors = field_errors(&problem, &["name", "account_type", "roles", "tags", "service"]);
            Ok(new_page(&visitor, problem.status(), &form, &errors))
        }
    }
}

pub(super) async fn show(visitor: Visitor, Path(name): Path<String>) -> Answer {
    account_page(&visitor, StatusCode::OK, &name, &Typed::default(), &[]).await
}

/// What was typed into the forms of an account's page, where one of them is shown again.
#[derive(Default)]
struct Typed<'a> {
    change: Option<&'a Change>,
    token: Option<&'a NewTokenForm>,
}

async fn account_page(
    visitor: &Visitor,
    status: StatusCode,
    name: &str,
    typed: &Typed<'_>,
    errors: &[FieldError],
) -> Answer {
    let account = visitor.calls.get_account(GetAccountRequest { name: name.to_owned() }).await?;
    let csrf = visitor.csrf();
    let is_person = account.account_type == "human";
    let mut facts = vec![
        ("State", state(&account)),
        ("Type", html! { (type_name(&account)) }),
        ("Created", web::when(account.created_at)),
    ];
    if is_person {
        facts.push(("Last login", web::when_or(account.last_login_at, "never")));
        facts.push(("Authenticator app", html! { (if account.has_totp { "On" } else { "Off" }) }));
        facts.push(("Passkeys", html! { (account.passkeys) }));
    }
    let rest = if is_person {
        person(visitor, &account, &csrf).await?
    } else {
        let tokens = visitor.calls.list_tokens(ListTokensRequest { name: name.to_owned() }).await?.tokens;
        let form = token_form(name, &csrf, typed.token, errors);
        token_card(&account, &tokens, form, visitor.app().clock().unix_s())
    };
    let body = html! {
        (web::card("Details", web::facts(&facts)))
        (rest)
        (web::card("Edit", change_form(&account, &csrf, typed.change, errors)))
        (web::card("Delete", html! {
            p { "Deletes its tokens, sessions and passkeys. Its entries in the audit log stay." }
            (web::link_button(&format!("/accounts/{name}/delete"), "Delete account…", Action::Danger))
        }))
    };
    Ok(visitor.page_with(status, |page| Page { errors, ..page }, name, body))
}

async fn person(visitor: &Visitor, account: &Account, csrf: &str) -> Result<Markup, Problem> {
    let name = &account.name;
    let sessions = visitor
        .calls
        .list_account_sessions(ListAccountSessionsRequest { name: name.clone() })
        .await?
        .sessions;
    Ok(html! {
        (web::card("Access", html! {
            p { "A setup link lets the owner set a password, once. Send it over a private channel." }
            div.actions {
                (web::form(&format!("/accounts/{name}/link"), csrf, web::button("Create setup link", Action::Primary)))
                (web::link_button(&format!("/accounts/{name}/reset-factors"), "Reset sign-in methods…", Action::Danger))
            }
        }))
        (web::card("Sessions", html! {
            @if sessions.is_empty() {
                (web::empty_state("No active sessions", "A session appears here when the person logs in.", None))
            } @else {
                (session_table("Sessions", &sessions, &format!("/accounts/{name}/sessions"), csrf))
                (web::form(&format!("/accounts/{name}/end-sessions"), csrf, web::button("End all sessions", Action::Danger)))
            }
        }))
    })
}

fn change_form(account: &Account, csrf: &str, typed: Option<&Change>, errors: &[FieldError]) -> Markup {
    let stored = Change::of(account);
    let form = typed.unwrap_or(&stored);
    let fields = html! {
        input type="hidden" name="revision" value=(form.revision);
        (web::field(Field {
            hint: Some("Disabling ends all sessions at once."),
            required: false,
            ..Field::new("enabled", "Enabled", Kind::Checkbox { checked: form.enabled.is_some() })
        }))
        @if account.account_type == "human" {
            (role_boxes(|role| match role {
                "admin" => form.admin.is_some(),
                "user" => form.user.is_some(),
                _ => form.guest.is_some(),
            }))
        } @else {
            (web::field(Field {
                value: form.service.as_deref().unwrap_or(""),
                ..Field::new("service", "Service", Kind::Text).error_from(errors)
            }))
        }
        (tags_field(&form.tags, errors))
        (web::button("Save changes", Action::Primary))
    };
    web::form(&format!("/accounts/{}", account.name), csrf, fields)
}

#[derive(Deserialize)]
pub(super) struct Change {
    revision: i64,
    enabled: Option<String>,
    admin: Option<String>,
    user: Option<String>,
    guest: Option<String>,
    #[serde(default)]
    tags: String,
    service: Option<String>,
}

impl Change {
    /// The form as it is filled in at first.
    fn of(account: &Account) -> Self {
        let on = |is_on: bool| is_on.then(|| "on".to_owned());
        let has = |role: &str| on(account.roles.iter().any(|held| held == role));
        Self {
            revision: account.revision,
            enabled: on(account.enabled),
            admin: has("admin"),
            user: has("user"),
            guest: has("guest"),
            tags: account.tags.join(" "),
            service: account.service.clone(),
        }
    }
}

pub(super) async fn update(Path(name): Path<String>, submission: Submission<Change>) -> Answer {
    let (visitor, form) = match submission {
        Submission::Valid(visitor, form) => (visitor, form),
        Submission::Expired(visitor, form) => {
            let typed = Typed { change: Some(&form), token: None };
            return account_page(&visitor, StatusCode::FORBIDDEN, &name, &typed, &expired_form()).await;
        }
    };
    let request = UpdateAccountRequest {
        name: name.clone(),
        enabled: form.enabled.is_some(),
        roles: ticked([("admin", &form.admin), ("user", &form.user), ("guest", &form.guest)]),
        tags: split(&form.tags),
        revision: form.revision,
        service: form.service.as_ref().map(|service| service.trim().to_owned()),
    };
    match visitor.calls.update_account(request).await {
        Err(problem) if problem.field.is_some() => {
            let errors = field_errors(&problem, &["tags", "service"]);
            let typed = Typed { change: Some(&form), token: None };
            account_page(&visitor, problem.status(), &name, &typed, &errors).await
        }
        updated => Ok(visitor.finish(&format!("/accounts/{name}"), updated, "Account updated.")),
    }
}

pub(super) async fn link(Path(name): Path<String>, posted: Posted<NoFields>) -> Answer {
    let Posted { sender: visitor, form: NoFields {} } = posted;
    let at = format!("/accounts/{name}");
    match visitor.calls.issue_link(IssueLinkRequest { name: name.clone() }).await {
        Ok(link) => {
            let what = "Send it to the owner over a private channel. It is valid once.";
            Ok(once(&visitor, &format!("Setup link for {name}"), "Setup link", &link.url, what, &at))
        }
        Err(problem) => Ok(visitor.failed(&at, &problem)),
    }
}

pub(super) async fn ask_reset(visitor: Visitor, Path(name): Path<String>) -> Answer {
    let name = named(&name)?;
    let title = format!("Reset the sign-in methods of {name}?");
    let what = "For an owner who has lost them. Removes the authenticator app and all passkeys, and ends all sessions. The \
                password alone is then enough to log in.";
    let (at, back) = (format!("/accounts/{name}/reset-factors"), format!("/accounts/{name}"));
    Ok(ask(&visitor, &title, &at, what, "Reset sign-in methods", &back))
}

pub(super) async fn reset(Path(name): Path<String>, posted: Posted<NoFields>) -> Answer {
    let Posted { sender: visitor, form: NoFields {} } = posted;
    let reset = visitor.calls.reset_factors(ResetFactorsRequest { name: name.clone() }).await;
    Ok(visitor.finish(&format!("/accounts/{name}"), reset, "Sign-in methods reset. All sessions ended."))
}

pub(super) async fn end_sessions(Path(name): Path<String>, posted: Posted<NoFields>) -> Answer {
    let Posted { sender: visitor, form: NoFields {} } = posted;
    let ended = visitor.calls.end_account_sessions(EndAccountSessionsRequest { name: name.clone() }).await;
    Ok(visitor.finish(&format!("/accounts/{name}"), ended, "All sessions ended."))
}

pub(super) async fn end_session(
    Path((name, id)): Path<(String, String)>,
    posted: Posted<NoFields>,
) -> Answer {
    let Posted { sender: visitor, form: NoFields {} } = posted;
    let ended = visitor.calls.end_account_session(EndAccountSessionRequest { name: name.clone(), id }).await;
    Ok(visitor.finish(&format!("/accounts/{name}"), ended, "Session ended."))
}

pub(super) async fn ask_delete(visitor: Visitor, Path(name): Path<String>) -> Answer {
    let name = named(&name)?;
    let title = format!("Delete {name}?");
    let what = "Deletes its tokens, sessions and passkeys. This cannot be undone.";
    let (at, back) = (format!("/accounts/{name}/delete"), format!("/accounts/{name}"));
    Ok(ask(&visitor, &title, &at, what, "Delete account", &back))
}

pub(super) async fn delete(Path(name): Path<String>, posted: Posted<NoFields>) -> Answer {
    let Posted { sender: visitor, form: NoFields {} } = posted;
    match visitor.calls.delete_account(DeleteAccountRequest { name: name.clone() }).await {
        Ok(_) => Ok(visitor.done("/accounts", format!("Account {name} deleted."))),
        Err(problem) => Ok(visitor.failed(&format!("/accounts/{name}"), &problem)),
    }
}

fn token_card(account: &Account, tokens: &[Token], form: Markup, now: i64) -> Markup {
    let name = &account.name;
    let row = |token: &Token| {
        let is_live = token.revoked_at.is_none() && token.expires_at > now;
        vec![
            html! { (token.label) },
            html! { (if token.audience.is_empty() { "All services".to_owned() } else { token.audience.join(", ") }) },
            html! { (web::when(token.created_at)) " by " (token.issued_by) },
            web::when_or(token.last_used_at, "never"),
            until(token, now),
            html! {
                @if is_live {
                    a href={ "/accounts/" (name) "/tokens/" (token.id) "/revoke" } { "Revoke…" span.hidden { " " (token.label) } }
                }
            },
        ]
    };
    let rows: Vec<_> = tokens.iter().map(row).collect();
    web::card(
        "Tokens",
        html! {
            @if rows.is_empty() {
                (web::empty_state("No tokens yet", "The service authenticates with a token.", None))
            } @else {
                (web::table("Tokens", &["Label", "Services", "Created", "Last used", "Expires", ""], &rows))
            }
            (form)
        },
    )
}

fn token_form(name: &str, csrf: &str, typed: Option<&NewTokenForm>, errors: &[FieldError]) -> Markup {
    let value = |of: fn(&NewTokenForm) -> &str, default| typed.map_or(default, of);
    let fields = html! {
        (web::field(Field {
            value: value(|form| &form.label, ""),
            hint: Some("What it is for, or where it is used."),
            ..Field::new("label", "Label", Kind::Text).error_from(errors)
        }))
        (web::field(Field {
            value: value(|form| &form.audience, ""),
            hint: Some("Services that accept it, separated by spaces. Empty: all services."),
            required: false,
            ..Field::new("audience", "Services", Kind::Text).error_from(errors)
        }))
        (web::field(Field {
            value: value(|form| &form.days, "365"),
            ..Field::new("days", "Valid for (days)", Kind::Number).error_from(errors)
        }))
        (web::button("Create token", Action::Primary))
    };
    web::form(&format!("/accounts/{name}/tokens"), csrf, fields)
}

/// When a token expires, and whether that is soon.
fn until(token: &Token, now: i64) -> Markup {
    let days = (token.expires_at - now) / (24 * 3600);
    html! {
        (web::when(token.expires_at)) " "
        @if token.revoked_at.is_some() { (web::badge("Revoked", Tone::Bad)) }
        @else if token.expires_at <= now { (web::badge("Expired", Tone::Neutral)) }
        @else if days < 14 { (web::badge(&format!("Expires in {days} days"), Tone::Warning)) }
    }
}

#[derive(Deserialize)]
pub(super) struct NewTokenForm {
    label: String,
    #[serde(default)]
    audience: String,
    days: String,
}

pub(super) async fn issue_token(Path(name): Path<String>, submission: Submission<NewTokenForm>) -> Answer {
    let (visitor, form) = match submission {
        Submission::Valid(visitor, form) => (visitor, form),
        Submission::Expired(visitor, form) => {
            let typed = Typed { change: None, token: Some(&form) };
            return account_page(&visitor, StatusCode::FORBIDDEN, &name, &typed, &expired_form()).await;
        }
    };
    let typed = Typed { change: None, token: Some(&form) };
    let at = format!("/accounts/{name}");
    let Ok(days) = form.days.trim().parse::<u32>() else {
        let text = format!("`{}` is not a whole number of days.", form.days);
        let errors = [FieldError { field: "days", text }];
        return account_page(&visitor, StatusCode::UNPROCESSABLE_ENTITY, &name, &typed, &errors).await;
    };
    let request = IssueTokenRequest {
        name: name.clone(),
        label: form.label.clone(),
        audience: split(&form.audience),
        lifetime_seconds: Some(i64::from(days) * 24 * 3600),
    };
    match visitor.calls.issue_token(request).await {
        Ok(issued) => {
            let what = "Store it in a file that only the service can read.";
            Ok(once(&visitor, &format!("Token of {name}"), "Token", &issued.token, what, &at))
        }
        Err(problem) if problem.field.is_some() => {
            let errors = field_errors(&problem, &["label", "audience", "days"]);
            account_page(&visitor, problem.status(), &name, &typed, &errors).await
        }
        Err(problem) => Ok(visitor.failed(&at, &problem)),
    }
}

pub(super) async fn ask_revoke(visitor: Visitor, Path((name, id)): Path<(String, String)>) -> Answer {
    let name = named(&name)?;
    let id = Uuid::parse_str(&id).map_err(|_error| Problem::not_found("There is no such token."))?;
    let what = "Within 30 seconds no service accepts it any more. This cannot be undone.";
    let (at, back) = (format!("/accounts/{name}/tokens/{id}/revoke"), format!("/accounts/{name}"));
    Ok(ask(&visitor, &format!("Revoke this token of {name}?"), &at, what, "Revoke token", &back))
}

pub(super) async fn revoke_token(
    Path((name, id)): Path<(String, String)>,
    posted: Posted<NoFields>,
) -> Answer {
    let Posted { sender: visitor, form: NoFields {} } = posted;
    let revoked = visitor.calls.revoke_token(RevokeTokenRequest { name: name.clone(), id }).await;
    Ok(visitor.finish(&format!("/accounts/{name}"), revoked, "Token revoked."))
}

/// The name of an account in a path. Anything else could lead a form to another path.
fn named(text: &str) -> Result<Name, Problem> {
    Name::parse(text).map_err(|_error| Problem::not_found("There is no such account."))
}
