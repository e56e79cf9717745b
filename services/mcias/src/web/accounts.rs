//! Pages for admins: accounts and the tokens of services.

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
use mcdsl::web::{self, Action, Choice, Field, FieldError, Kind, Page, Tone, Width};
use serde::Deserialize;
use uuid::Uuid;

use super::login::Nothing;
use super::own::{ask, once, session_table};
use super::visit::{Answer, Posted, Visitor, errors};
use super::{split, when, when_or, words};
use crate::domain::Name;

const TYPES: [Choice<'static>; 3] = [
    Choice { value: "", label: "All" },
    Choice { value: "human", label: "People" },
    Choice { value: "system", label: "Services" },
];

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
    let body = html! {
        (web::search_form("/accounts", html! {
            (web::field(Field { value: &search.contains, required: false, ..Field::new("contains", "Name holds", Kind::Text) }))
            (web::field(Field { value: &search.account_type, ..Field::new("account_type", "Whose", Kind::Select(&TYPES)) }))
            (web::button("Search", Action::Secondary))
        }))
        @if rows.is_empty() {
            (web::empty_state("No accounts", "There is none like that.", None))
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
        html! { (if account.account_type == "system" { "service" } else { "person" }) },
        html! { (words(&account.roles)) },
        html! { (words(&account.tags)) },
        state(account),
        when_or(account.last_login_at, "never"),
    ]
}

fn state(account: &Account) -> Markup {
    if !account.enabled {
        return web::badge("Disabled", Tone::Bad);
    }
    if account.account_type == "human" && !account.has_password && account.passkeys == 0 {
        return web::badge("No password yet", Tone::Info);
    }
    web::badge("Enabled", Tone::Good)
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

/// Roles as boxes to tick.
fn role_boxes(is_ticked: impl Fn(&str) -> bool) -> Markup {
    let roles = [
        ("admin", "Administrator", "Manages accounts and policy."),
        ("user", "User", "As each service's policy says."),
        ("guest", "Guest", "As restricted as each service likes."),
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
        hint: Some("Words that the login policy can be about, separated by spaces."),
        required: false,
        ..Field::new("tags", "Tags", Kind::Text).error_from(errors)
    })
}

fn new_page(visitor: &Visitor, status: StatusCode, given: &New, errors: &[FieldError]) -> Response {
    let fields = html! {
        (web::field(Field {
            value: &given.name,
            hint: Some("Small letters, digits, and - _ . @ between them."),
            autocomplete: Some("off"),
            ..Field::new("name", "Name", Kind::Text).error_from(errors)
        }))
        (web::field(Field {
            value: &given.account_type,
            hint: Some("A person gets a password by a link; a service gets tokens, and has no roles."),
            ..Field::new("account_type", "Whose", Kind::Select(&TYPES[1..])).error_from(errors)
        }))
        (role_boxes(|role| match role {
            "admin" => given.admin.is_some(),
            "user" => given.user.is_some(),
            _ => given.guest.is_some(),
        }))
        (tags_field(&given.tags, errors))
        (web::field(Field {
            value: &given.service,
            hint: Some("For a service: the name that the login policy knows it by. Its account's name where this is empty."),
            required: false,
            ..Field::new("service", "Service", Kind::Text).error_from(errors)
        }))
        (web::button("Make the account", Action::Primary))
    };
    let body = html! { div.card { (web::form("/new-account", &visitor.csrf(), fields)) } };
    visitor.page_with(status, |page| Page { width: Width::Text, errors, ..page }, "New account", body)
}

fn ticked(boxes: [(&str, &Option<String>); 3]) -> Vec<String> {
    boxes.iter().filter(|(_, ticked)| ticked.is_some()).map(|(role, _)| (*role).to_owned()).collect()
}

pub(super) async fn create(posted: Posted<New>) -> Answer {
    let Posted { visitor, form } = posted;
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
                "Make a link for its owner."
            } else {
                "Issue a token for it."
            };
            let text = format!("The account {} is made. {next}", account.name);
            visitor.done(&format!("/accounts/{}", account.name), text)
        }
        Err(problem) => {
            let errors = errors(&problem, &["name", "account_type", "roles", "tags", "service"]);
            Ok(new_page(&visitor, problem.status(), &form, &errors))
        }
    }
}

pub(super) async fn show(visitor: Visitor, Path(name): Path<String>) -> Answer {
    let account = visitor.calls.get_account(GetAccountRequest { name: name.clone() }).await?;
    let csrf = visitor.csrf();
    let is_person = account.account_type == "human";
    let mut facts = vec![
        ("State", state(&account)),
        ("Type", html! { (if is_person { "person" } else { "service" }) }),
        ("Made", when(account.created_at)),
    ];
    if is_person {
        facts.push(("Last login", when_or(account.last_login_at, "never")));
        facts.push(("Second factor", html! { (if account.has_totp { "on" } else { "off" }) }));
        facts.push(("Passkeys", html! { (account.passkeys) }));
    }
    let rest = if is_person {
        person(&visitor, &account, &csrf).await?
    } else {
        let tokens = visitor.calls.list_tokens(ListTokensRequest { name: name.clone() }).await?.tokens;
        token_card(&account, &tokens, &csrf, visitor.app().clock().unix_s())
    };
    let body = html! {
        (web::card("What there is to know", web::facts(&facts)))
        (rest)
        (web::card("Change", change_form(&account, &csrf)))
        (web::card("Remove", html! {
            p { "Its tokens, sessions and passkeys go with it. What it did stays in the audit log." }
            (web::link_button(&format!("/accounts/{name}/delete"), "Remove the account", Action::Danger))
        }))
    };
    Ok(visitor.page(&name, body))
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
            p { "A link lets its owner set a password, once. Give it by a way that nobody else reads." }
            div.actions {
                (web::form(&format!("/accounts/{name}/link"), csrf, web::button("Make a link", Action::Primary)))
                (web::link_button(&format!("/accounts/{name}/reset-factors"), "Take second factor and passkeys", Action::Danger))
            }
        }))
        (web::card("Sessions", html! {
            @if sessions.is_empty() {
                (web::empty_state("No live sessions", "It is logged in nowhere.", None))
            } @else {
                (session_table("Live sessions", &sessions, &format!("/accounts/{name}/sessions"), csrf))
                (web::form(&format!("/accounts/{name}/end-sessions"), csrf, web::button("End all of them", Action::Danger)))
            }
        }))
    })
}

fn change_form(account: &Account, csrf: &str) -> Markup {
    let tags = account.tags.join(" ");
    let fields = html! {
        input type="hidden" name="revision" value=(account.revision);
        (web::field(Field {
            hint: Some("Whoever is not enabled is out at once."),
            required: false,
            ..Field::new("enabled", "Enabled", Kind::Checkbox { checked: account.enabled })
        }))
        @if account.account_type == "human" {
            (role_boxes(|role| account.roles.iter().any(|held| held == role)))
        } @else {
            (web::field(Field {
                value: account.service.as_deref().unwrap_or(""),
                ..Field::new("service", "Service", Kind::Text)
            }))
        }
        (tags_field(&tags, &[]))
        (web::button("Save", Action::Primary))
    };
    web::form(&format!("/accounts/{}", account.name), csrf, fields)
}

#[derive(Deserialize)]
pub(super) struct Change {
    enabled: Option<String>,
    admin: Option<String>,
    user: Option<String>,
    guest: Option<String>,
    #[serde(default)]
    tags: String,
    service: Option<String>,
    revision: i64,
}

pub(super) async fn update(Path(name): Path<String>, posted: Posted<Change>) -> Answer {
    let Posted { visitor, form } = posted;
    let request = UpdateAccountRequest {
        name: name.clone(),
        enabled: form.enabled.is_some(),
        roles: ticked([("admin", &form.admin), ("user", &form.user), ("guest", &form.guest)]),
        tags: split(&form.tags),
        service: form.service.map(|service| service.trim().to_owned()),
        revision: form.revision,
    };
    let updated = visitor.calls.update_account(request).await;
    visitor.told(&format!("/accounts/{name}"), updated, "Saved.")
}

pub(super) async fn link(Path(name): Path<String>, posted: Posted<Nothing>) -> Answer {
    let Posted { visitor, form: Nothing {} } = posted;
    let at = format!("/accounts/{name}");
    match visitor.calls.issue_link(IssueLinkRequest { name: name.clone() }).await {
        Ok(link) => {
            let what =
                "Give it to the owner of the account by a way that nobody else reads. It is good once.";
            Ok(once(&visitor, &format!("A link for {name}"), "Link", &link.url, what, &at))
        }
        Err(problem) => visitor.failed(&at, &problem),
    }
}

pub(super) async fn ask_reset(visitor: Visitor, Path(name): Path<String>) -> Answer {
    let name = named(&name)?;
    let title = format!("Take second factor and passkeys from {name}?");
    let what =
        "For somebody who has lost them. The password alone is a login from then on, and all sessions end.";
    let (at, back) = (format!("/accounts/{name}/reset-factors"), format!("/accounts/{name}"));
    Ok(ask(&visitor, &title, &at, what, "Take them", &back))
}

pub(super) async fn reset(Path(name): Path<String>, posted: Posted<Nothing>) -> Answer {
    let Posted { visitor, form: Nothing {} } = posted;
    let reset = visitor.calls.reset_factors(ResetFactorsRequest { name: name.clone() }).await;
    visitor.told(&format!("/accounts/{name}"), reset, "They are gone, and the sessions are ended.")
}

pub(super) async fn end_sessions(Path(name): Path<String>, posted: Posted<Nothing>) -> Answer {
    let Posted { visitor, form: Nothing {} } = posted;
    let ended = visitor.calls.end_account_sessions(EndAccountSessionsRequest { name: name.clone() }).await;
    visitor.told(&format!("/accounts/{name}"), ended, "All sessions are ended.")
}

pub(super) async fn end_session(Path((name, id)): Path<(String, String)>, posted: Posted<Nothing>) -> Answer {
    let Posted { visitor, form: Nothing {} } = posted;
    let ended = visitor.calls.end_account_session(EndAccountSessionRequest { name: name.clone(), id }).await;
    visitor.told(&format!("/accounts/{name}"), ended, "The session is ended.")
}

pub(super) async fn ask_delete(visitor: Visitor, Path(name): Path<String>) -> Answer {
    let name = named(&name)?;
    let title = format!("Remove {name}?");
    let what = "Its tokens, sessions and passkeys go with it. This cannot be undone.";
    let (at, back) = (format!("/accounts/{name}/delete"), format!("/accounts/{name}"));
    Ok(ask(&visitor, &title, &at, what, "Remove the account", &back))
}

pub(super) async fn delete(Path(name): Path<String>, posted: Posted<Nothing>) -> Answer {
    let Posted { visitor, form: Nothing {} } = posted;
    match visitor.calls.delete_account(DeleteAccountRequest { name: name.clone() }).await {
        Ok(_) => visitor.done("/accounts", format!("The account {name} is removed.")),
        Err(problem) => visitor.failed(&format!("/accounts/{name}"), &problem),
    }
}

fn token_card(account: &Account, tokens: &[Token], csrf: &str, now: i64) -> Markup {
    let name = &account.name;
    let row = |token: &Token| {
        let is_live = token.revoked_at.is_none() && token.expires_at > now;
        vec![
            html! { (token.label) },
            html! { (if token.audience.is_empty() { "all services".to_owned() } else { words(&token.audience) }) },
            html! { (when(token.created_at)) " by " (token.issued_by) },
            when_or(token.last_used_at, "never"),
            until(token, now),
            html! {
                @if is_live {
                    a href={ "/accounts/" (name) "/tokens/" (token.id) "/revoke" } { "Revoke" span.hidden { " " (token.label) } }
                }
            },
        ]
    };
    let rows: Vec<_> = tokens.iter().map(row).collect();
    let fields = html! {
        (web::field(Field { hint: Some("What it is for, or where it is."), ..Field::new("label", "Label", Kind::Text) }))
        (web::field(Field {
            hint: Some("Services that it is for, separated by spaces; all where this is empty."),
            required: false,
            ..Field::new("audience", "For", Kind::Text)
        }))
        (web::field(Field { value: "365", ..Field::new("days", "Good for so many days", Kind::Number) }))
        (web::button("Issue a token", Action::Primary))
    };
    web::card(
        "Tokens",
        html! {
            @if rows.is_empty() {
                (web::empty_state("No tokens", "The service cannot show who it is.", None))
            } @else {
                (web::table("Tokens", &["Label", "For", "Issued", "Last used", "Until", ""], &rows))
            }
            (web::form(&format!("/accounts/{name}/tokens"), csrf, fields))
        },
    )
}

/// When a token ends, and whether that is soon.
fn until(token: &Token, now: i64) -> Markup {
    let days = (token.expires_at - now) / (24 * 3600);
    html! {
        (when(token.expires_at)) " "
        @if token.revoked_at.is_some() { (web::badge("Revoked", Tone::Bad)) }
        @else if token.expires_at <= now { (web::badge("Ended", Tone::Neutral)) }
        @else if days < 14 { (web::badge(&format!("In {days} days"), Tone::Warning)) }
    }
}

#[derive(Deserialize)]
pub(super) struct NewTokenForm {
    label: String,
    #[serde(default)]
    audience: String,
    days: String,
}

pub(super) async fn issue_token(Path(name): Path<String>, posted: Posted<NewTokenForm>) -> Answer {
    let Posted { visitor, form } = posted;
    let at = format!("/accounts/{name}");
    let Ok(days) = form.days.trim().parse::<u32>() else {
        let what = Problem::field("days", format!("`{}` is no number of days", form.days));
        return visitor.failed(&at, &what);
    };
    let request = IssueTokenRequest {
        name: name.clone(),
        label: form.label,
        audience: split(&form.audience),
        lifetime_seconds: Some(i64::from(days) * 24 * 3600),
    };
    match visitor.calls.issue_token(request).await {
        Ok(issued) => {
            let what = "Put it into a file that only the service can read.";
            Ok(once(&visitor, &format!("A token of {name}"), "Token", &issued.token, what, &at))
        }
        Err(problem) => visitor.failed(&at, &problem),
    }
}

pub(super) async fn ask_revoke(visitor: Visitor, Path((name, id)): Path<(String, String)>) -> Answer {
    let name = named(&name)?;
    let id = Uuid::parse_str(&id).map_err(|_no_id| Problem::not_found("there is no such token"))?;
    let what = "Within 30 seconds no service takes it any more. This cannot be undone.";
    let (at, back) = (format!("/accounts/{name}/tokens/{id}/revoke"), format!("/accounts/{name}"));
    Ok(ask(&visitor, &format!("Revoke this token of {name}?"), &at, what, "Revoke it", &back))
}

pub(super) async fn revoke_token(
    Path((name, id)): Path<(String, String)>,
    posted: Posted<Nothing>,
) -> Answer {
    let Posted { visitor, form: Nothing {} } = posted;
    let revoked = visitor.calls.revoke_token(RevokeTokenRequest { name: name.clone(), id }).await;
    visitor.told(&format!("/accounts/{name}"), revoked, "The token is revoked.")
}

/// A name of an account: what is none must not lead a form elsewhere.
fn named(text: &str) -> Result<Name, Problem> {
    Name::parse(text).map_err(|_no_name| Problem::not_found("there is no such account"))
}
