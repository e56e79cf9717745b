//! The web pages: people log in and manage their own account; admins manage all accounts, the login policy and the
//! signing keys.
//!
//! Pages call the use cases of [`Mcias`] and nothing else. They work without JavaScript, except for passkeys. Login,
//! logout and what surrounds each page are [`mcdsl::web::session`].

mod account;
mod accounts;
mod backend;
mod deleted;
mod own;
mod policy;
mod site;
mod tokens;
mod visitor;
mod welcome;
mod words;

use std::sync::Arc;

use axum::extract::FromRef;
use axum::http::Method;
use axum::response::Response;
use axum::routing::{MethodRouter, get, post};
use mc_api::mcias::PasskeyChallenge;
use mc_api::operation::Need;
use mcdsl::operation::RouteTable;
use mcdsl::problem::Problem;
use mcdsl::web::session::{self, NavEntry, Pages};
use mcdsl::web::{self, Icon};

use crate::app::Mcias;

/// What pages share.
#[derive(Clone, Debug)]
struct Shared {
    app: Arc<Mcias>,
    pages: Pages,
}

impl FromRef<Shared> for Pages {
    fn from_ref(shared: &Shared) -> Self {
        shared.pages.clone()
    }
}

type Answer = Result<Response, Problem>;

const NAVIGATION: [NavEntry; 7] = [
    entry("", "Overview", Icon::HOME, "/", &[]),
    entry("Your account", "Sign-in methods", Icon::KEY, "/security", &["/security/"]),
    entry("Your account", "Sessions", Icon::SCREEN, "/sessions", &["/sessions/"]),
    for_admins(entry(
        "Directory",
        "Accounts",
        Icon::ACCOUNTS,
        "/accounts",
        &["/accounts/", "/new-account", "/deleted-accounts"],
    )),
    for_admins(entry("Directory", "Login policy", Icon::RULES, "/policy", &["/policy/"])),
    for_admins(entry("System", "Audit log", Icon::LOG, "/audit", &["/audit/"])),
    for_admins(entry("System", "Signing keys", Icon::SHIELD, "/keys", &["/keys/"])),
];

const fn entry(
    group: &'static str,
    label: &'static str,
    icon: Icon,
    href: &'static str,
    prefixes: &'static [&'static str],
) -> NavEntry {
    NavEntry { group, label, icon, href, prefixes, for_admins: false }
}

const fn for_admins(entry: NavEntry) -> NavEntry {
    NavEntry { for_admins: true, ..entry }
}

/// Adds the pages to the table of routes.
pub(crate) fn add_pages(table: &mut RouteTable<Mcias>, app: &Arc<Mcias>) {
    let config = &app.config().site;
    let origin = config.public_url.clone();
    let name = config.display_name().to_owned();
    let site = web::Site { service: "MCIAS", name, home: "/", account: Some("/security"), logout: "/logout" };
    let backend = backend::Backend(Arc::clone(app));
    let pages = Pages::new(site, origin, &NAVIGATION, backend, app.clock().clone());
    pages.add_to(table, &[API]);
    let shared = Shared { app: Arc::clone(app), pages: pages.clone() };
    let mut page = |method: Method, path: &str, need: Need, handler: MethodRouter<Shared>| {
        pages.add_page(table, method, path, need, handler.with_state(shared.clone()));
    };
    page(Method::GET, welcome::WELCOME, Need::Public, get(welcome::show));
    page(Method::GET, welcome::SCRIPT, Need::Public, get(welcome::script));
    page(Method::POST, welcome::WELCOME, Need::Public, post(welcome::open));
    page(Method::POST, "/welcome/password", Need::Public, post(welcome::redeem));
    page(Method::GET, "/", Need::Person, get(own::overview));
    page(Method::GET, "/security", Need::Person, get(own::security));
    page(Method::GET, "/.well-known/change-password", Need::Public, get(own::where_to_change_password));
    page(Method::GET, "/security/password", Need::Person, get(own::password));
    page(Method::POST, "/security/password", Need::Person, post(own::change_password));
    page(Method::POST, "/security/totp/begin", Need::Person, post(own::begin_totp));
    page(Method::POST, "/security/totp/confirm", Need::Person, post(own::confirm_totp));
    page(Method::GET, "/security/totp/remove", Need::Person, get(own::ask_remove_totp));
    page(Method::POST, "/security/totp/remove", Need::Person, post(own::remove_totp));
    page(Method::GET, "/security/recovery-codes", Need::Person, get(own::ask_recovery_codes));
    page(Method::POST, "/security/recovery-codes", Need::Person, post(own::recovery_codes));
    page(Method::POST, "/security/passkeys/begin", Need::Person, post(own::begin_passkey));
    page(Method::POST, "/security/passkeys/finish", Need::Person, post(own::finish_passkey));
    page(Method::GET, "/security/passkeys/{id}", Need::Person, get(own::passkey));
    page(Method::POST, "/security/passkeys/{id}", Need::Person, post(own::rename_passkey));
    page(Method::POST, "/security/passkeys/{id}/remove", Need::Person, post(own::remove_passkey));
    page(Method::GET, "/sessions", Need::Person, get(own::sessions));
    page(Method::POST, "/sessions/end-others", Need::Person, post(own::end_others));
    page(Method::POST, "/sessions/{id}/end", Need::Person, post(own::end_session));
    page(Method::GET, "/accounts", Need::Admin, get(accounts::list));
    page(Method::GET, "/new-account", Need::Admin, get(accounts::new));
    page(Method::POST, "/new-account", Need::Admin, post(accounts::create));
    page(Method::GET, "/accounts/{name}", Need::Admin, get(accounts::show));
    page(Method::POST, "/accounts/{name}", Need::Admin, post(accounts::update));
    page(Method::GET, "/accounts/{name}/edit", Need::Admin, get(accounts::edit));
    page(Method::POST, "/accounts/{name}/enable", Need::Admin, post(accounts::enable));
    page(Method::GET, "/accounts/{name}/disable", Need::Admin, get(accounts::ask_disable));
    page(Method::POST, "/accounts/{name}/disable", Need::Admin, post(accounts::disable));
    page(Method::POST, "/accounts/{name}/link", Need::Admin, post(accounts::link));
    page(Method::GET, "/accounts/{name}/reset-factors", Need::Admin, get(accounts::ask_reset));
    page(Method::POST, "/accounts/{name}/reset-factors", Need::Admin, post(accounts::reset));
    page(Method::POST, "/accounts/{name}/sessions/{id}/end", Need::Admin, post(accounts::end_session));
    page(Method::POST, "/accounts/{name}/end-sessions", Need::Admin, post(accounts::end_sessions));
    page(Method::GET, "/accounts/{name}/delete", Need::Admin, get(accounts::ask_delete));
    page(Method::POST, "/accounts/{name}/delete", Need::Admin, post(accounts::delete));
    page(Method::GET, "/accounts/{name}/new-token", Need::Admin, get(tokens::new_token));
    page(Method::POST, "/accounts/{name}/tokens", Need::Admin, post(tokens::issue_token));
    page(Method::GET, "/accounts/{name}/tokens/{id}/revoke", Need::Admin, get(tokens::ask_revoke));
    page(Method::POST, "/accounts/{name}/tokens/{id}/revoke", Need::Admin, post(tokens::revoke_token));
    page(Method::GET, "/deleted-accounts", Need::Admin, get(deleted::list));
    page(Method::GET, "/deleted-accounts/{name}/release", Need::Admin, get(deleted::ask_release));
    page(Method::POST, "/deleted-accounts/{name}/release", Need::Admin, post(deleted::release));
    page(Method::GET, "/policy", Need::Admin, get(policy::page));
    page(Method::GET, "/policy/history", Need::Admin, get(policy::history));
    page(Method::GET, "/policy/diff", Need::Admin, get(policy::diff));
    page(Method::GET, "/policy/default", Need::Admin, get(policy::default));
    page(Method::POST, "/policy/default", Need::Admin, post(policy::set_default));
    page(Method::GET, "/policy/rule", Need::Admin, get(policy::rule));
    page(Method::POST, "/policy/rule", Need::Admin, post(policy::save_rule));
    page(Method::GET, "/policy/rule/delete", Need::Admin, get(policy::ask_delete_rule));
    page(Method::POST, "/policy/rule/delete", Need::Admin, post(policy::delete_rule));
    page(Method::GET, "/audit", Need::Admin, get(site::audit));
    page(Method::POST, "/audit/verify", Need::Admin, post(site::verify));
    page(Method::GET, "/keys", Need::Admin, get(site::keys));
    page(Method::POST, "/keys", Need::Admin, post(site::rotate));
    page(Method::GET, "/keys/{id}/withdraw", Need::Admin, get(site::ask_withdraw));
    page(Method::POST, "/keys/{id}/withdraw", Need::Admin, post(site::withdraw));
}

/// The API's paths: their errors are problem documents, for browsers too.
const API: &str = "/v1/";

fn challenge(challenge: PasskeyChallenge) -> session::PasskeyChallenge {
    session::PasskeyChallenge { ceremony_id: challenge.ceremony_id, options: challenge.options }
}

/// The problem of a form with a new password that was typed twice.
fn differing_passwords() -> Problem {
    Problem::field("again", "The two passwords differ.")
}

/// `1 session`, `2 sessions`.
fn count(number: usize, one: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {one}s") }
}

/// The words of a form's field: separated by spaces or commas.
fn split(text: &str) -> Vec<String> {
    let words = text.split([' ', ',', '\n', '\r', '\t']).filter(|word| !word.is_empty());
    words.map(str::to_owned).collect()
}
