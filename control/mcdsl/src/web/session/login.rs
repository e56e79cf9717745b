//! The login page, the second factor, passkeys, and logout.

use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodRouter, get, post};
use maud::html;
use mc_api::operation::Need;
use serde::Deserialize;

use super::super::cookies::clear_session;
use super::super::csrf::Purpose;
use super::super::form::{Action, Field, FieldError, Kind as FieldKind, button, field, form};
use super::super::local::{local_path, redirect};
use super::backend::{LoggedIn, PasskeyAnswer, PasskeyChallenge, PasswordLogin};
use super::browser::{Browser, Visitor, with_cookie};
use super::form::{NoFields, Posted, Submission, expired_form, field_errors};
use super::passkey::{GoTo, passkey_form};
use super::pending::PendingLogin;
use super::{LOGIN, Pages};
use crate::http::{Json, Query};
use crate::problem::{Kind, Problem};
use crate::secret::Secret;

/// The routes of login and logout.
pub(super) fn routes(pages: &Pages) -> [(Method, &'static str, Need, MethodRouter); 6] {
    let route = |method, path, handler: MethodRouter<Pages>| {
        (method, path, Need::Public, handler.with_state(pages.clone()))
    };
    let logout = post(logout).with_state(pages.clone());
    [
        route(Method::GET, LOGIN, get(login_form)),
        route(Method::POST, LOGIN, post(login)),
        route(Method::POST, "/login/code", post(second_factor)),
        route(Method::POST, "/login/passkey/begin", post(begin_passkey)),
        route(Method::POST, "/login/passkey/finish", post(finish_passkey)),
        // Logout is allowed even if the policy now denies access.
        (Method::POST, pages.0.site.logout, Need::Token, logout),
    ]
}

/// The page to open after the login.
#[derive(Debug, Default, Deserialize)]
struct Next {
    #[serde(default)]
    next: String,
}

/// A page of this service, or its start page: anybody can write a `next`.
fn next_path(pages: &Pages, next: &str) -> String {
    let decoded = data_encoding::BASE64URL_NOPAD.decode(next.as_bytes()).ok();
    let text = decoded.and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
    local_path(&text).unwrap_or(pages.0.site.home).to_owned()
}

async fn login_form(browser: Browser, Query(query): Query<Next>) -> Response {
    login_page(&browser, StatusCode::OK, &query.next, "", &[])
}

fn login_page(
    browser: &Browser,
    status: StatusCode,
    next: &str,
    username: &str,
    errors: &[FieldError],
) -> Response {
    browser.page(status, "Log in", errors, |csrf| {
        let next = html! { input type="hidden" name="next" value=(next); };
        let fields = html! {
            (next)
            (field(Field {
                value: username,
                autocomplete: Some("username webauthn"),
                ..Field::new("username", "Username", FieldKind::Text).error_from(errors)
            }))
            (field(Field {
                autocomplete: Some("current-password"),
                ..Field::new("password", "Password", FieldKind::Password).error_from(errors)
            }))
            (button("Log in", Action::Primary))
        };
        html! {
            div.card {
                (form(LOGIN, csrf, fields))
                @if browser.pages.0.backend.offers_passkeys() {
                    (passkey_form("get", "/login/passkey", csrf, next, ("Continue with a passkey", Action::Secondary)))
                }
            }
        }
    })
}

#[derive(Debug, Deserialize)]
struct LoginForm {
    username: String,
    password: Secret,
    #[serde(default)]
    next: String,
}

async fn login(submission: Submission<Browser, LoginForm>) -> Result<Response, Problem> {
    let (browser, form) = match submission {
        Submission::Valid(browser, form) => (browser, form),
        Submission::Expired(browser, form) => {
            let status = StatusCode::FORBIDDEN;
            return Ok(login_page(&browser, status, &form.next, form.username.trim(), &expired_form()));
        }
    };
    let username = form.username.trim().to_owned();
    let login = PasswordLogin { username, password: form.password, totp: None, recovery_code: None };
    match browser.pages.0.backend.login(&browser.context, login.clone()).await {
        Ok(logged_in) => enter(&browser, &logged_in, &form.next).await,
        Err(problem) if problem.reason == "second-factor-required" => {
            let id = wait_for_code(&browser, login.username, login.password);
            Ok(code_page(&browser, StatusCode::OK, &id, &form.next, &[]))
        }
        Err(problem) => {
            let errors = match problem.kind {
                Kind::Unauthenticated => [whole("Login failed: wrong username, password or passkey.")],
                _ => field_errors(&problem, &["username", "password"]),
            };
            Ok(login_page(&browser, problem.status(), &form.next, &login.username, &errors))
        }
    }
}

/// An error of a form as a whole.
fn whole(text: &str) -> FieldError {
    FieldError { field: "", text: text.to_owned() }
}

/// Sets the session's cookie and opens the page that was asked for.
async fn enter(browser: &Browser, login: &LoggedIn, next: &str) -> Result<Response, Problem> {
    let cookie = browser.open_session(login).await?;
    Ok(with_cookie(redirect(&next_path(&browser.pages, next)), cookie))
}

fn wait_for_code(browser: &Browser, username: String, password: Secret) -> String {
    let shared = &browser.pages.0;
    let login = PendingLogin { browser: browser.id.clone(), username, password };
    shared.pending.insert(shared.clock.elapsed(), browser.context.client.ip(), login)
}

fn code_page(browser: &Browser, status: StatusCode, id: &str, next: &str, errors: &[FieldError]) -> Response {
    browser.page(status, "Enter your code", errors, |csrf| {
        let fields = html! {
            input type="hidden" name="next" value=(next);
            input type="hidden" name="login" value=(id);
            (field(Field {
                hint: Some("Six digits from your authenticator app, or a recovery code."),
                autocomplete: Some("one-time-code"),
                ..Field::new("code", "Code", FieldKind::Text).error_from(errors)
            }))
            (button("Log in", Action::Primary))
        };
        html! { div.card { (form("/login/code", csrf, fields)) p { a href=(LOGIN) { "Start again" } } } }
    })
}

#[derive(Debug, Deserialize)]
struct CodeForm {
    login: String,
    code: Secret,
    #[serde(default)]
    next: String,
}

async fn second_factor(submission: Submission<Browser, CodeForm>) -> Result<Response, Problem> {
    let (browser, form) = match submission {
        Submission::Valid(browser, form) => (browser, form),
        // Its login waits no longer: it belonged to another cookie, or to an earlier start.
        Submission::Expired(browser, form) => return Ok(start_again(&browser, &form.next)),
    };
    let shared = &browser.pages.0;
    let Some(pending) = shared.pending.take(shared.clock.elapsed(), &form.login, &browser.id) else {
        return Ok(start_again(&browser, &form.next));
    };
    let PendingLogin { username, password, .. } = pending;
    let (totp, recovery_code) = parse_code(&form.code);
    let login = PasswordLogin { username, password, totp, recovery_code };
    match shared.backend.login(&browser.context, login.clone()).await {
        Ok(logged_in) => enter(&browser, &logged_in, &form.next).await,
        Err(problem) => {
            let errors = [FieldError { field: "code", text: problem.detail.clone() }];
            let id = wait_for_code(&browser, login.username, login.password);
            Ok(code_page(&browser, problem.status(), &id, &form.next, &errors))
        }
    }
}

fn start_again(browser: &Browser, next: &str) -> Response {
    let errors = [whole("This login has expired. Start again.")];
    login_page(browser, StatusCode::FORBIDDEN, next, "", &errors)
}

/// Six digits are a code of the authenticator app; anything else is taken for a recovery code.
fn parse_code(code: &Secret) -> (Option<Secret>, Option<Secret>) {
    let digits: String = code.expose().chars().filter(|c| !c.is_whitespace()).collect();
    if digits.len() == 6 && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        (Some(Secret::from(digits)), None)
    } else {
        (None, Some(Secret::from(code.expose().trim())))
    }
}

async fn begin_passkey(posted: Posted<Browser, NoFields>) -> Result<Json<PasskeyChallenge>, Problem> {
    let Posted { sender: browser, form: NoFields {} } = posted;
    let challenge = browser.pages.0.backend.begin_passkey(&browser.context).await?;
    let ceremony_id = bound_to(&browser, &challenge.ceremony_id);
    Ok(Json(PasskeyChallenge { ceremony_id, ..challenge }))
}

/// The id of a challenge, with a MAC that binds it to the browser that requested it: another browser cannot answer it.
fn bound_to(browser: &Browser, id: &str) -> String {
    let tag = browser.pages.csrf().sign(Purpose::Ceremony, &ceremony_of(browser, id));
    format!("{id}.{}", data_encoding::BASE64URL_NOPAD.encode(&tag))
}

/// The id of a challenge that this browser requested.
fn unbound(browser: &Browser, bound: &str) -> Option<String> {
    let (id, tag) = bound.rsplit_once('.')?;
    let tag = data_encoding::BASE64URL_NOPAD.decode(tag.as_bytes()).ok()?;
    browser.pages.csrf().signed(Purpose::Ceremony, &ceremony_of(browser, id), &tag).then(|| id.to_owned())
}

/// What is under the MAC: a browser's id has no space.
fn ceremony_of(browser: &Browser, id: &str) -> Vec<u8> {
    format!("{} {id}", browser.id.expose()).into_bytes()
}

#[derive(Debug, Deserialize)]
struct PasskeyLogin {
    ceremony_id: String,
    credential: String,
    #[serde(default)]
    next: String,
}

async fn finish_passkey(posted: Posted<Browser, PasskeyLogin>) -> Result<Response, Problem> {
    let Posted { sender: browser, form: PasskeyLogin { ceremony_id, credential, next } } = posted;
    let ceremony_id = unbound(&browser, &ceremony_id).ok_or_else(|| {
        Problem::field("ceremony_id", "is not of a challenge that this browser requested: start again")
    })?;
    let answer = PasskeyAnswer { ceremony_id, credential };
    let logged_in = browser.pages.0.backend.finish_passkey(&browser.context, answer).await?;
    let cookie = browser.open_session(&logged_in).await?;
    let to = next_path(&browser.pages, &next);
    Ok(with_cookie(Json(GoTo { to }).into_response(), cookie))
}

async fn logout(posted: Posted<Visitor, NoFields>) -> Result<Response, Problem> {
    let Posted { sender: visitor, form: NoFields {} } = posted;
    visitor.browser.pages.0.backend.logout(visitor.context(), visitor.token()).await?;
    Ok(with_cookie(redirect(LOGIN), clear_session()))
}
