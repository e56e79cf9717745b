//! The web pages: people log in and look after their own account; admins look after everybody's.
//!
//! Pages ask the use cases of [`Mcias`] and nothing else. They work without JavaScript; passkeys alone need it. Every form carries
//! a token against forgery that is bound to the session.

mod accounts;
mod login;
mod own;
mod policy;
mod site;
mod visit;

use std::sync::Arc;

use axum::http::{HeaderMap, Method, header};
use axum::middleware::from_fn;
use axum::routing::{MethodRouter, get, post};
use maud::{Markup, html};
use mc_api::operation::Need;
use mcdsl::http::Dialect;
use mcdsl::operation::RouteTable;
use mcdsl::permit::Access;
use mcdsl::problem::Problem;
use mcdsl::secret::Secret;
use mcdsl::web::{self, Asset, Csrf};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::app::Mcias;

/// What pages share.
#[derive(Debug)]
struct Web {
    app: Arc<Mcias>,
    /// Made anew at each start: a form that was open then is asked for again.
    csrf: Csrf,
    /// Logins that wait for a second factor.
    pending: login::Pending,
}

type Shared = Arc<Web>;

const PAGES: web::Site =
    web::Site { service: "MCIAS", home: "/", account: Some("/security"), logout: "/logout" };

/// The one script: passkeys.
const SCRIPT: Asset = Asset {
    name: "passkey.js",
    content_type: "text/javascript; charset=utf-8",
    bytes: include_bytes!("web/passkey.js"),
};

/// Adds the pages to the table of routes.
pub(crate) fn add_pages(table: &mut RouteTable<Mcias>, app: &Arc<Mcias>) {
    let mut key = [0; 32];
    aws_lc_rs::rand::fill(&mut key).expect("the system has randomness");
    let app = Arc::clone(app);
    let shared = Arc::new(Web { app, csrf: Csrf::new(key), pending: login::Pending::default() });
    let mut page = |method: Method, path: &str, access: Access, handler: MethodRouter<Shared>| {
        let handler = handler.layer(from_fn(web::secure)).with_state(Arc::clone(&shared));
        table.page(method, path, access, session, handler);
    };
    page(Method::GET, "/login", PUBLIC, get(login::page));
    page(Method::POST, "/login", PUBLIC, post(login::password));
    page(Method::POST, "/login/code", PUBLIC, post(login::code));
    page(Method::POST, "/login/passkey/begin", PUBLIC, post(login::begin_passkey));
    page(Method::POST, "/login/passkey/finish", PUBLIC, post(login::finish_passkey));
    page(Method::POST, "/logout", TOKEN, post(login::logout));
    page(Method::GET, "/welcome/{secret}", PUBLIC, get(login::welcome));
    page(Method::POST, "/welcome/{secret}", PUBLIC, post(login::redeem));
    page(Method::GET, "/", PERSON, get(own::overview));
    page(Method::GET, "/security", PERSON, get(own::security));
    page(Method::POST, "/security/password", PERSON, post(own::change_password));
    page(Method::POST, "/security/totp/begin", PERSON, post(own::begin_totp));
    page(Method::POST, "/security/totp/confirm", PERSON, post(own::confirm_totp));
    page(Method::GET, "/security/totp/remove", PERSON, get(own::ask_remove_totp));
    page(Method::POST, "/security/totp/remove", PERSON, post(own::remove_totp));
    page(Method::GET, "/security/recovery-codes", PERSON, get(own::ask_recovery_codes));
    page(Method::POST, "/security/recovery-codes", PERSON, post(own::recovery_codes));
    page(Method::POST, "/security/passkeys/begin", PERSON, post(own::begin_passkey));
    page(Method::POST, "/security/passkeys/finish", PERSON, post(own::finish_passkey));
    page(Method::GET, "/security/passkeys/{id}", PERSON, get(own::passkey));
    page(Method::POST, "/security/passkeys/{id}", PERSON, post(own::rename_passkey));
    page(Method::POST, "/security/passkeys/{id}/remove", PERSON, post(own::remove_passkey));
    page(Method::GET, "/sessions", PERSON, get(own::sessions));
    page(Method::POST, "/sessions/end-others", PERSON, post(own::end_others));
    page(Method::POST, "/sessions/{id}/end", PERSON, post(own::end_session));
    page(Method::GET, "/accounts", ADMIN, get(accounts::list));
    page(Method::GET, "/new-account", ADMIN, get(accounts::new));
    page(Method::POST, "/new-account", ADMIN, post(accounts::create));
    page(Method::GET, "/accounts/{name}", ADMIN, get(accounts::show));
    page(Method::POST, "/accounts/{name}", ADMIN, post(accounts::update));
    page(Method::POST, "/accounts/{name}/link", ADMIN, post(accounts::link));
    page(Method::GET, "/accounts/{name}/reset-factors", ADMIN, get(accounts::ask_reset));
    page(Method::POST, "/accounts/{name}/reset-factors", ADMIN, post(accounts::reset));
    page(Method::POST, "/accounts/{name}/sessions/{id}/end", ADMIN, post(accounts::end_session));
    page(Method::POST, "/accounts/{name}/end-sessions", ADMIN, post(accounts::end_sessions));
    page(Method::GET, "/accounts/{name}/delete", ADMIN, get(accounts::ask_delete));
    page(Method::POST, "/accounts/{name}/delete", ADMIN, post(accounts::delete));
    page(Method::POST, "/accounts/{name}/tokens", ADMIN, post(accounts::issue_token));
    page(Method::GET, "/accounts/{name}/tokens/{id}/revoke", ADMIN, get(accounts::ask_revoke));
    page(Method::POST, "/accounts/{name}/tokens/{id}/revoke", ADMIN, post(accounts::revoke_token));
    page(Method::GET, "/policy", ADMIN, get(policy::page));
    page(Method::GET, "/policy/history", ADMIN, get(policy::history));
    page(Method::GET, "/policy/diff", ADMIN, get(policy::diff));
    page(Method::POST, "/policy/default", ADMIN, post(policy::set_default));
    page(Method::GET, "/policy/rule", ADMIN, get(policy::rule));
    page(Method::POST, "/policy/rule", ADMIN, post(policy::save_rule));
    page(Method::POST, "/policy/rule/remove", ADMIN, post(policy::remove_rule));
    page(Method::GET, "/audit", ADMIN, get(site::audit));
    page(Method::POST, "/audit/verify", ADMIN, post(site::verify));
    page(Method::GET, "/keys", ADMIN, get(site::keys));
    page(Method::POST, "/keys", ADMIN, post(site::rotate));
    page(Method::GET, "/keys/{id}/withdraw", ADMIN, get(site::ask_withdraw));
    page(Method::POST, "/keys/{id}/withdraw", ADMIN, post(site::withdraw));
    table.files(web::static_files(&[SCRIPT]));
}

/// How pages say what went wrong: in a page, to browsers.
pub const DIALECT: Dialect = Dialect {
    prefix: "/",
    write: |problem, request| {
        let accept = request.headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
        let is_browser = accept.is_some_and(|accept| accept.contains("text/html"));
        is_browser.then(|| visit::page_of(problem, request))
    },
};

/// How the API says what went wrong: in problem documents, to browsers too.
pub const API_DIALECT: Dialect = Dialect { prefix: "/v1/", write: |_problem, _request| None };

/// Pages read the token from a cookie.
fn session(headers: &HeaderMap) -> Result<Option<Secret>, Problem> {
    Ok(web::session_of(headers))
}

/// What a page is in the audit log, where somebody is refused it. What it shows and does is authorised for itself.
const fn access(need: Need) -> Access {
    Access { action: "page", need, fresh: false }
}

const PUBLIC: Access = access(Need::Public);
const TOKEN: Access = access(Need::Token);
const PERSON: Access = access(Need::Person);
const ADMIN: Access = access(Need::Admin);

/// A time: UTC, for people and for programs.
fn when(unix_s: i64) -> Markup {
    let format = time::macros::format_description!("[year]-[month]-[day] [hour]:[minute] UTC");
    let time = OffsetDateTime::from_unix_timestamp(unix_s).ok();
    let shown = time.and_then(|time| time.format(&format).ok());
    let machine = time.and_then(|time| time.format(&Rfc3339).ok());
    match (shown, machine) {
        (Some(shown), Some(machine)) => html! { time datetime=(machine) { (shown) } },
        _ => html! { (unix_s) },
    }
}

fn when_or(unix_s: Option<i64>, never: &str) -> Markup {
    unix_s.map_or_else(|| html! { (never) }, when)
}

/// Words, or a dash.
fn words(words: &[String]) -> String {
    if words.is_empty() { "–".to_owned() } else { words.join(", ") }
}

/// A text of a form as words: separated by spaces or commas.
fn split(text: &str) -> Vec<String> {
    let words = text.split([' ', ',', '\n', '\r', '\t']).filter(|word| !word.is_empty());
    words.map(str::to_owned).collect()
}
