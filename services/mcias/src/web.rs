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

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::{get, post};
use maud::{Markup, html};
use mcdsl::web::{self, Asset, Csrf, Tone};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::app::Mcias;
use crate::config::SMALL;
use crate::domain::Role;

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

/// The pages.
pub fn router(app: Arc<Mcias>) -> Router {
    let mut key = [0; 32];
    aws_lc_rs::rand::fill(&mut key).expect("the system has randomness");
    let shared = Arc::new(Web { app, csrf: Csrf::new(key), pending: login::Pending::default() });
    Router::new()
        .route("/login", get(login::page).post(login::password))
        .route("/login/code", post(login::code))
        .route("/login/passkey/begin", post(login::begin_passkey))
        .route("/login/passkey/finish", post(login::finish_passkey))
        .route("/logout", post(login::logout))
        .route("/welcome/{secret}", get(login::welcome).post(login::redeem))
        .route("/", get(own::overview))
        .route("/security", get(own::security))
        .route("/security/password", post(own::change_password))
        .route("/security/totp/begin", post(own::begin_totp))
        .route("/security/totp/confirm", post(own::confirm_totp))
        .route("/security/totp/remove", get(own::ask_remove_totp).post(own::remove_totp))
        .route("/security/recovery-codes", get(own::ask_recovery_codes).post(own::recovery_codes))
        .route("/security/passkeys/begin", post(own::begin_passkey))
        .route("/security/passkeys/finish", post(own::finish_passkey))
        .route("/security/passkeys/{id}", get(own::passkey).post(own::rename_passkey))
        .route("/security/passkeys/{id}/remove", post(own::remove_passkey))
        .route("/sessions", get(own::sessions))
        .route("/sessions/end-others", post(own::end_others))
        .route("/sessions/{id}/end", post(own::end_session))
        .route("/accounts", get(accounts::list))
        .route("/new-account", get(accounts::new).post(accounts::create))
        .route("/accounts/{name}", get(accounts::show).post(accounts::update))
        .route("/accounts/{name}/link", post(accounts::link))
        .route("/accounts/{name}/reset-factors", get(accounts::ask_reset).post(accounts::reset))
        .route("/accounts/{name}/sessions/{id}/end", post(accounts::end_session))
        .route("/accounts/{name}/end-sessions", post(accounts::end_sessions))
        .route("/accounts/{name}/delete", get(accounts::ask_delete).post(accounts::delete))
        .route("/accounts/{name}/tokens", post(accounts::issue_token))
        .route("/accounts/{name}/tokens/{id}/revoke", get(accounts::ask_revoke).post(accounts::revoke_token))
        .route("/policy", get(policy::page))
        .route("/policy/default", post(policy::set_default))
        .route("/policy/rule", get(policy::rule).post(policy::save_rule))
        .route("/policy/rule/remove", post(policy::remove_rule))
        .route("/audit", get(site::audit))
        .route("/audit/verify", post(site::verify))
        .route("/keys", get(site::keys).post(site::rotate))
        .route("/keys/{id}/withdraw", get(site::ask_withdraw).post(site::withdraw))
        .layer(from_fn(web::secure))
        .layer(DefaultBodyLimit::max(SMALL))
        .with_state(shared)
        .merge(web::static_files(&[SCRIPT]))
}

/// Says to a browser in a page what a program is told in a problem document: a layer around everything that is served.
pub async fn speak_to_browsers(request: Request, next: Next) -> Response {
    let accepts = request.headers().get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    let is_browser = accepts.is_some_and(|accept| accept.contains("text/html"));
    let is_api = request.uri().path().starts_with("/v1/");
    let response = next.run(request).await;
    let kind = response.headers().get(header::CONTENT_TYPE);
    if !is_browser || is_api || kind.is_none_or(|kind| kind != "application/problem+json") {
        return response;
    }
    let (title, what) = match response.status() {
        StatusCode::NOT_FOUND => {
            ("There is no such page", "The address is wrong, or what was there is gone.")
        }
        StatusCode::METHOD_NOT_ALLOWED => ("That does not go", "This address takes something else."),
        _ => ("That did not work", "Go back, and try again."),
    };
    let body = html! {
        (web::notice(Tone::Bad, html! { p { (what) } }))
        p { a href="/" { "To the first page" } }
    };
    let mut page = web::Page::new(&PAGES, title, body).respond(response.status());
    // The request's id, when to try again, what else goes: all but what the body was.
    for (name, value) in response.headers() {
        if name != header::CONTENT_TYPE && name != header::CONTENT_LENGTH {
            page.headers_mut().append(name, value.clone());
        }
    }
    for (name, value) in web::security_headers() {
        page.headers_mut().insert(name, value);
    }
    page
}

/// Whether these roles make an admin.
fn is_admin(bearer: &crate::app::Bearer) -> bool {
    bearer.account.roles().has(Role::Admin)
}

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
