//! Pages for admins: accounts, and the tokens of services.

use axum::http::StatusCode;
use axum::response::Response;
use maud::{Markup, html};
use mc_api::audit::ListAuditRequest;
use mc_api::mcias::{
    Account, CreateAccountRequest, DeleteAccountRequest, EndAccountSessionRequest, EndAccountSessionsRequest,
    IssueLinkRequest, ListAccountSessionsRequest, ListAccountsRequest, ListTokensRequest,
    ResetFactorsRequest, Session, UpdateAccountRequest,
};
use mcdsl::http::{Path, Query};
use mcdsl::problem::Problem;
use mcdsl::web::audit;
use mcdsl::web::session::{NoFields, Shown};
use mcdsl::web::{
    self, Action, Choice, Column, Confirm, Danger, Field, FieldError, Icon, Kind, Layout, Once, Page, Tone,
};
use serde::Deserialize;

use super::account::{ACCOUNTS, account, ask_about, named};
use super::own::{method_items, once, role_names, session_table};
use super::tokens::{is_valid, token_panel};
use super::visitor::{Posted, Submission, Visitor};
use super::words::WORDS;
use super::{Answer, count, split};

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

/// A list of fewer accounts needs no filters.
const MANY: usize = 20;

pub(super) async fn list(visitor: Visitor, Query(search): Query<Search>) -> Answer {
    let given = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let request = ListAccountsRequest {
        limit: Some(50),
        after: search.after.clone(),
        account_type: given(&search.account_type),
        contains: given(search.contains.trim()),
    };
    let found = visitor.calls.list_accounts(request).await?;
    let at = |contains: &str, account_type: &str, after: Option<&str>| {
        let mut pairs = vec![("contains", contains), ("account_type", account_type)];
        pairs.extend(after.map(|after| ("after", after)));
        pairs.retain(|(_, value)| !value.is_empty());
        format!("/accounts?{}", serde_urlencoded::to_string(pairs).expect("pairs of texts can be written"))
    };
    let (contains, kind) = (search.contains.as_str(), search.account_type.as_str());
    let next = found.next.as_deref().map(|next| at(contains, kind, Some(next)));
    let first = search.after.as_ref().map(|_after| at(contains, kind, None));
    let mut chips = Vec::new();
    if !contains.is_empty() {
        chips.push((format!("Name: {contains}"), at("", kind, None)));
    }
    if let Some(choice) = TYPES.iter().find(|choice| choice.value == kind && !kind.is_empty()) {
        chips.push((format!("Type: {}", choice.label), at(contains, "", None)));
    }
    let shown = if first.is_none() && next.is_none() {
        count(found.accounts.len(), "account")
    } else {
        "By name".to_owned()
    };
    let now = visitor.now();
    let rows: Vec<_> = found.accounts.iter().map(|account| row(now, account)).collect();
    let columns = [
        Column::plain("Name"),
        Column::plain("Type"),
        Column::plain("Tags").third(),
        Column::plain("Signs in with").fourth(),
        Column::state("State"),
        Column::number("Last login"),
    ];
    let body = html! {
        @if rows.len() >= MANY || first.is_some() || !chips.is_empty() {
            (web::filters("/accounts", html! {
                (web::field(Field { value: contains, ..Field::new("contains", "Name", Kind::Filter("Part of a name")) }))
                (web::field(Field { value: kind, required: false, ..Field::new("account_type", "Type", Kind::Select(&TYPES)) }))
                (web::button("Filter", Action::Secondary))
            }))
            (web::chips(&chips, "/accounts"))
        }
        (web::plain_panel(html! {
            @if rows.is_empty() {
                (web::nothing_matches("No account has this name and type.", "/accounts"))
            } @else {
                (web::table("Accounts", &columns, &rows))
                (web::pager(&shown, &[("First", first.as_deref()), ("Next", next.as_deref())]))
            }
        }))
    };
    let lead = Some("People and services that can log in.");
    let actions = html! {
        (web::link_button("/deleted-accounts", "Deleted accounts", Action::Secondary))
        a.btn.main-btn href="/new-account" { (Icon::PLUS.svg()) "New account" }
    };
    Ok(visitor.page_with(StatusCode::OK, |page| Page { actions, lead, ..page }, "Accounts", body))
}

fn row(now: i64, account: &Account) -> Vec<Markup> {
    let is_person = is_person(account);
    let mut methods = Vec::new();
    if account.passkeys > 0 {
        methods.push("Passkey");
    }
    if account.has_password {
        methods.push(if account.has_totp { "Password + code" } else { "Password" });
    }
    vec![
        html! { a href={ "/accounts/" (account.name) } { (account.name) } },
        html! {
            (type_name(account))
            @if !account.roles.is_empty() { span.muted { " · " (role_names(account)) } }
        },
        web::tags(&account.tags),
        html! { @if is_person { (methods.join(", ")) } @else { "Tokens" } },
        state(account),
        html! { @if is_person { (web::ago_or(now, account.last_login_at, "never")) } },
    ]
}

fn is_person(account: &Account) -> bool {
    account.account_type == "human"
}

fn type_name(account: &Account) -> &'static str {
    if is_person(account) { "Person" } else { "Service" }
}

fn state(account: &Account) -> Markup {
    if !account.enabled {
        return web::state(Tone::Neutral, "Disabled");
    }
    if is_person(account) && !account.has_password && account.passkeys == 0 {
        return web::pill(Tone::Warning, "No sign-in method");
    }
    web::state(Tone::Good, "Active")
}

pub(super) async fn new(visitor: Visitor) -> Answer {
    Ok(new_page(&visitor, &New::default(), &Shown::first()))
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

fn new_page(visitor: &Visitor, given: &New, shown: &Shown) -> Response {
    let Shown { status, errors } = shown;
    let fields = html! {
        (web::field(Field {
            value: &given.name,
            hint: Some("Lowercase letters, digits and - _ . @"),
            autocomplete: Some("off"),
            autofocus: true,
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
        div.actions {
            (web::button("Create account", Action::Primary))
            (web::link_button("/accounts", "Cancel", Action::Secondary))
        }
    };
    let body = web::plain_panel(web::padded(web::form("/new-account", &visitor.csrf(), fields)));
    let change = |page| Page { layout: Layout::Text, crumbs: &[ACCOUNTS], errors, ..page };
    visitor.page_with(*status, change, "New account", body)
}

fn ticked(boxes: [(&str, &Option<String>); 3]) -> Vec<String> {
    boxes.iter().filter(|(_, ticked)| ticked.is_some()).map(|(role, _)| (*role).to_owned()).collect()
}

pub(super) async fn create(submission: Submission<New>) -> Answer {
    let show = async |visitor: &Visitor, form: &New, shown: Shown| Ok(new_page(visitor, form, &shown));
    let act = async |visitor: &Visitor, form: &New| {
        let request = CreateAccountRequest {
            name: form.name.trim().to_owned(),
            account_type: form.account_type.clone(),
            roles: ticked([("admin", &form.admin), ("user", &form.user), ("guest", &form.guest)]),
            tags: split(&form.tags),
            service: Some(form.service.trim().to_owned()).filter(|service| !service.is_empty()),
        };
        let account = visitor.calls.create_account(request).await?;
        let next =
            if is_person(&account) { "Create a setup link for its owner." } else { "Create a token for it." };
        let text = format!("Account {} created. {next}", account.name);
        Ok(visitor.done(&format!("/accounts/{}", account.name), text))
    };
    submission.handle(&["name", "account_type", "roles", "tags", "service"], show, act).await
}

pub(super) async fn show(visitor: Visitor, Path(name): Path<String>) -> Answer {
    let account = account(&visitor, &name).await?;
    let name = account.name.as_str();
    let (now, csrf) = (visitor.now(), visitor.csrf());
    let mut meta = vec![state(&account), html! { (type_name(&account)) }];
    if !account.roles.is_empty() {
        meta.push(html! { (role_names(&account)) });
    }
    let (main, danger, action) = if is_person(&account) {
        let request = ListAccountSessionsRequest { name: account.name.clone() };
        let sessions = visitor.calls.list_account_sessions(request).await?.sessions;
        let link = web::form(
            &format!("/accounts/{name}/link"),
            &csrf,
            web::button("Create setup link", Action::Primary),
        );
        (person(&account, &sessions, now, &csrf), person_danger(&account, sessions.len()), link)
    } else {
        let tokens =
            visitor.calls.list_tokens(ListTokensRequest { name: account.name.clone() }).await?.tokens;
        let valid = tokens.iter().filter(|token| is_valid(token, now)).count();
        let new = html! {
            a.btn.main-btn href={ "/accounts/" (name) "/new-token" } { (Icon::PLUS.svg()) "Create token" }
        };
        (token_panel(&account, &tokens, now), service_danger(&account, valid), new)
    };
    let enable = html! {
        input type="hidden" name="revision" value=(account.revision);
        (web::button("Enable account", Action::Primary))
    };
    let enable = web::form(&format!("/accounts/{name}/enable"), &csrf, enable);
    // While it is disabled there are no links, and tokens are of no use.
    let actions = if account.enabled { action } else { enable };
    let recent = ListAuditRequest {
        limit: Some(5),
        account: Some(account.name.clone()),
        ..ListAuditRequest::default()
    };
    let recent = visitor.calls.list_audit(recent).await?.entries;
    let aside = html! {
        (web::panel(
            "Details",
            "",
            html! { a href={ "/accounts/" (name) "/edit" } { "Edit" span.hidden { " details" } } },
            web::facts(&details(&account, now)),
        ))
        (web::panel(
            "Recent activity",
            "",
            html! { a href={ "/audit?account=" (name) } { "Audit log" } },
            audit::recent(now, &WORDS, &recent),
        ))
    };
    let body = html! { (web::split(main, aside)) (web::danger_zone(&danger)) };
    let change = |page| Page { crumbs: &[ACCOUNTS], is_account: true, meta, actions, ..page };
    Ok(visitor.page_with(StatusCode::OK, change, name, body))
}

fn details(account: &Account, now: i64) -> Vec<(&'static str, Markup)> {
    let mut details = vec![("Type", html! { (type_name(account)) })];
    if let Some(service) = &account.service {
        details.push(("Service", html! { (service) }));
    }
    if !account.roles.is_empty() {
        details.push(("Roles", html! { (role_names(account)) }));
    }
    if !account.tags.is_empty() {
        details.push(("Tags", web::tags(&account.tags)));
    }
    details.push(("Created", web::when(account.created_at)));
    if is_person(account) {
        details.push(("Last login", web::ago_or(now, account.last_login_at, "never")));
    }
    details
}

fn person(account: &Account, sessions: &[Session], now: i64, csrf: &str) -> Markup {
    let name = &account.name;
    let end_all = html! {
        @if !sessions.is_empty() {
            (web::form(&format!("/accounts/{name}/end-sessions"), csrf, web::button("End all sessions", Action::Bare)))
        }
    };
    html! {
        (web::panel("Sign-in methods", "", html! {}, method_items(account)))
        (web::panel("Sessions", &format!("{} active", sessions.len()), end_all, html! {
            @if sessions.is_empty() {
                (web::empty_state("No active sessions", "A session appears here when the person logs in.", None))
            } @else {
                (session_table(now, "Sessions", sessions, &format!("/accounts/{name}/sessions"), csrf))
            }
        }))
    }
}

/// How many sessions of a person are active, or how many tokens of a service are valid.
async fn uses(visitor: &Visitor, account: &Account) -> Result<usize, Problem> {
    let name = account.name.clone();
    Ok(if is_person(account) {
        visitor.calls.list_account_sessions(ListAccountSessionsRequest { name }).await?.sessions.len()
    } else {
        let tokens = visitor.calls.list_tokens(ListTokensRequest { name }).await?.tokens;
        tokens.iter().filter(|token| is_valid(token, visitor.now())).count()
    })
}

/// What ending all of a person's sessions does, where there are any.
fn ends_sessions(sessions: usize) -> Option<String> {
    (sessions > 0).then(|| format!("Ends {} at once", count(sessions, "session")))
}

fn person_danger(account: &Account, sessions: usize) -> Vec<Danger<'static>> {
    let mut list = Vec::new();
    if let Some(lost) = reset_lost(account) {
        let what = format!("{lost}. {} then needs the password alone.", account.name);
        list.push(danger(account, "Reset sign-in methods", what, "reset-factors"));
    }
    if account.enabled {
        let ends = ends_sessions(sessions).map_or(String::new(), |ends| format!("{ends}. "));
        let what = format!("{ends}Nothing is lost; enable it again at any time.");
        list.push(danger(account, "Disable account", what, "disable"));
    }
    let what = "Deletes the account, its sessions and passkeys. The audit log keeps what it did.".to_owned();
    list.push(danger(account, "Delete account", what, "delete"));
    list
}

fn danger(account: &Account, name: &'static str, consequence: String, page: &str) -> Danger<'static> {
    Danger { name, consequence, href: Some(format!("/accounts/{}/{page}", account.name)) }
}

fn reset_lost(account: &Account) -> Option<String> {
    let passkeys = count(account.passkeys as usize, "passkey");
    match (account.has_totp, account.passkeys) {
        (true, 0) => Some("Removes the authenticator app and its recovery codes".to_owned()),
        (true, _) => Some(format!("Removes {passkeys}, the authenticator app and its recovery codes")),
        (false, 0) => None,
        (false, _) => Some(format!("Removes {passkeys}")),
    }
}

/// `its tokens`, with their number where there are any that are valid.
fn its_tokens(valid: usize) -> String {
    if valid == 0 { "its tokens".to_owned() } else { format!("its {}", count(valid, "valid token")) }
}

fn service_danger(account: &Account, tokens: usize) -> Vec<Danger<'static>> {
    let tokens = its_tokens(tokens);
    let mut list = Vec::new();
    if account.enabled {
        let what = format!("No service accepts {tokens} while it is disabled; enable it again at any time.");
        list.push(danger(account, "Disable account", what, "disable"));
    }
    let what = format!("Deletes the account and {tokens}. The audit log keeps what it did.");
    list.push(danger(account, "Delete account", what, "delete"));
    list
}

pub(super) async fn edit(visitor: Visitor, Path(name): Path<String>) -> Answer {
    let account = account(&visitor, &name).await?;
    Ok(edit_page(&visitor, &account, &Change::of(&account), &Shown::first()))
}

fn edit_page(visitor: &Visitor, account: &Account, form: &Change, shown: &Shown) -> Response {
    let Shown { status, errors } = shown;
    let name = &account.name;
    let at = format!("/accounts/{name}");
    let fields = html! {
        input type="hidden" name="revision" value=(form.revision);
        @if form.enabled.is_some() { input type="hidden" name="enabled" value="on"; }
        @if is_person(account) {
            (role_boxes(|role| match role {
                "admin" => form.admin.is_some(),
                "user" => form.user.is_some(),
                _ => form.guest.is_some(),
            }))
        } @else {
            (web::field(Field {
                value: form.service.as_deref().unwrap_or(""),
                hint: Some("Its name in the login policy."),
                ..Field::new("service", "Service", Kind::Text).error_from(errors)
            }))
        }
        (tags_field(&form.tags, errors))
        div.actions {
            (web::button("Save changes", Action::Primary))
            (web::link_button(&at, "Cancel", Action::Secondary))
        }
    };
    let body = web::plain_panel(web::padded(web::form(&at, &visitor.csrf(), fields)));
    let crumbs = [ACCOUNTS, (name.as_str(), at.as_str())];
    let change = |page| Page { layout: Layout::Text, crumbs: &crumbs, errors, ..page };
    visitor.page_with(*status, change, &format!("Edit {name}"), body)
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
    let show = async |visitor: &Visitor, form: &Change, shown: Shown| {
        let account = account(visitor, &name).await?;
        Ok(edit_page(visitor, &account, form, &shown))
    };
    let act = async |visitor: &Visitor, form: &Change| {
        let request = UpdateAccountRequest {
            name: name.clone(),
            enabled: form.enabled.is_some(),
            roles: ticked([("admin", &form.admin), ("user", &form.user), ("guest", &form.guest)]),
            tags: split(&form.tags),
            revision: form.revision,
            service: form.service.as_ref().map(|service| service.trim().to_owned()),
        };
        visitor.calls.update_account(request).await?;
        Ok(visitor.done(&format!("/accounts/{name}"), "Account saved."))
    };
    submission.handle(&["tags", "service"], show, act).await
}

#[derive(Deserialize)]
pub(super) struct Revision {
    revision: i64,
}

/// Enables or disables an account, and leaves all else as it is in this revision.
async fn set_enabled(
    visitor: &Visitor,
    name: &str,
    enabled: bool,
    revision: i64,
) -> Result<Account, Problem> {
    let Account { name, roles, tags, service, .. } = account(visitor, name).await?;
    visitor.calls.update_account(UpdateAccountRequest { name, enabled, roles, tags, service, revision }).await
}

pub(super) async fn enable(Path(name): Path<String>, posted: Posted<Revision>) -> Answer {
    let Posted { sender: visitor, form } = posted;
    let enabled = set_enabled(&visitor, &name, true, form.revision).await;
    Ok(visitor.finish(&format!("/accounts/{name}"), enabled, "Account enabled."))
}

pub(super) async fn ask_disable(visitor: Visitor, Path(name): Path<String>) -> Answer {
    let account = account(&visitor, &name).await?;
    let uses = uses(&visitor, &account).await?;
    let lost = if is_person(&account) {
        ends_sessions(uses)
    } else {
        Some(format!("No service accepts {} any more", its_tokens(uses)))
    };
    let asked = Confirm {
        question: &format!("Disable account {name}?"),
        lost: lost.as_slice(),
        rest: html! { @if lost.is_some() { "Nothing else is lost." } @else { "Nothing is lost." } " Enable it again at any time." },
        fields: html! { input type="hidden" name="revision" value=(account.revision); },
        action: &format!("/accounts/{name}/disable"),
        button: "Disable account",
        back: &format!("/accounts/{name}"),
    };
    Ok(ask_about(&visitor, &account.name, "Disable account", &asked))
}

pub(super) async fn disable(Path(name): Path<String>, posted: Posted<Revision>) -> Answer {
    let Posted { sender: visitor, form } = posted;
    let disabled = set_enabled(&visitor, &name, false, form.revision).await;
    Ok(visitor.finish(&format!("/accounts/{name}"), disabled, "Account disabled."))
}

pub(super) async fn link(Path(name): Path<String>, posted: Posted<NoFields>) -> Answer {
    let Posted { sender: visitor, form: NoFields {} } = posted;
    let at = format!("/accounts/{name}");
    match visitor.calls.issue_link(IssueLinkRequest { name: name.clone() }).await {
        Ok(link) => {
            let secret = Once {
                label: "Setup link",
                text: &link.url,
                what: "The owner sets a password with it, once. Send it over a private channel.",
                file: None,
                done: &at,
            };
            Ok(once(&visitor, &[ACCOUNTS, (&name, &at)], &format!("Setup link for {name}"), secret))
        }
        Err(problem) => Ok(visitor.failed(&at, &problem)),
    }
}

pub(super) async fn ask_reset(visitor: Visitor, Path(name): Path<String>) -> Answer {
    let name = named(&name)?;
    let account = account(&visitor, name.as_str()).await?;
    let ends = ends_sessions(uses(&visitor, &account).await?);
    let lost: Vec<_> = reset_lost(&account).into_iter().chain(ends).collect();
    let asked = Confirm {
        question: &format!("Reset the sign-in methods of {name}?"),
        lost: &lost,
        rest: html! { "For an owner who has lost them. The password alone is then enough to log in." },
        fields: html! {},
        action: &format!("/accounts/{name}/reset-factors"),
        button: "Reset sign-in methods",
        back: &format!("/accounts/{name}"),
    };
    Ok(ask_about(&visitor, name.as_str(), "Reset sign-in methods", &asked))
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
    delete_page(&visitor, &name, Shown::first()).await
}

async fn delete_page(visitor: &Visitor, name: &str, shown: Shown) -> Answer {
    let name = named(name)?;
    let account = account(visitor, name.as_str()).await?;
    let mut lost = vec!["Deletes the account".to_owned()];
    let uses = uses(visitor, &account).await?;
    if is_person(&account) {
        lost.extend(reset_lost(&account));
        lost.extend(ends_sessions(uses));
    } else if uses > 0 {
        lost.push(format!("Locks out who uses {}", its_tokens(uses)));
    }
    let back = format!("/accounts/{name}");
    let asked = Confirm {
        question: &format!("Delete account {name}?"),
        lost: &lost,
        rest: html! {
            "Its name stays taken until it is released, and the audit log keeps what it did. It cannot be undone: to keep the account, "
            a href={ (back) "/disable" } { "disable it instead" } "."
        },
        fields: web::field(Field {
            autocomplete: Some("off"),
            autofocus: true,
            ..Field::new("typed", &format!("Type {name} to confirm"), Kind::Text).error_from(&shown.errors)
        }),
        action: &format!("{back}/delete"),
        button: "Delete account",
        back: &back,
    };
    let body = web::confirm(&visitor.csrf(), &asked);
    let crumbs = [ACCOUNTS, (name.as_str(), back.as_str())];
    let change = |page| Page { layout: Layout::Text, crumbs: &crumbs, errors: &shown.errors, ..page };
    Ok(visitor.page_with(shown.status, change, "Delete account", body))
}

#[derive(Deserialize)]
pub(super) struct Deletion {
    #[serde(default)]
    typed: String,
}

pub(super) async fn delete(Path(name): Path<String>, submission: Submission<Deletion>) -> Answer {
    let show = async |visitor: &Visitor, _form: &Deletion, shown| delete_page(visitor, &name, shown).await;
    let act = async |visitor: &Visitor, form: &Deletion| {
        if form.typed.trim() != name {
            return Err(Problem::field("typed", format!("Type {name} to confirm.")));
        }
        visitor.calls.delete_account(DeleteAccountRequest { name: name.clone() }).await?;
        Ok(visitor.done("/accounts", format!("Account {name} deleted.")))
    };
    submission.handle(&["typed"], show, act).await
}
