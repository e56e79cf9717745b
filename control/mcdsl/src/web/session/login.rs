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
use super::super::parts::{padded, plain_panel};
use super::backend::{LoggedIn, PasskeyAnswer, PasskeyChallenge, PasswordLogin};
use super::browser::{Browser, Visitor, with_cookie};
use super::form::{NoFields, Posted, Shown, Submission};
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
    let site = &browser.pages.0.site;
    let has_passkeys = browser.pages.0.backend.offers_passkeys();
    browser.page(status, &format!("Log in to {}", site.name), errors, |csrf| {
        let next = html! { input type="hidden" name="next" value=(next); };
        let password = if has_passkeys {
            ("Log in with password", Action::Secondary)
        } else {
            ("Log in", Action::Primary)
        };
        let fields = html! {
            (next)
            (field(Field {
                value: username,
                autocomplete: Some("username webauthn"),
                autofocus: username.is_empty(),
                ..Field::new("username", "Username", FieldKind::Text).error_from(errors)
            }))
            (field(Field {
                autocomplete: Some("current-password"),
                autofocus: !username.is_empty(),
                ..Field::new("password", "Password", FieldKind::Password).error_from(errors)
            }))
            (button(password.0, password.1))
        };
        html! {
            (plain_panel(padded(html! {
                @if has_passkeys {
                    (passkey_form("get", "/login/passkey", csrf, next, ("Continue with a passkey", Action::Primary)))
                    p.or.js { "or" }
                }
                (form(LOGIN, csrf, fields))
            })))
            p.hint { "Locked out? Ask an administrator for a setup link." }
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
    let show = async |browser: &Browser, form: &LoginForm, shown: Shown| {
        Ok(login_page(browser, shown.status, &form.next, form.username.trim(), &shown.errors))
    };
    let act = async |browser: &Browser, form: &LoginForm| {
        let (username, password) = (form.username.trim().to_owned(), form.password.clone());
        let login = PasswordLogin { username, password, totp: None, recovery_code: None };
        match browser.pages.0.backend.login(&browser.context, login.clone()).await {
            Ok(logged_in) => enter(browser, &logged_in, &form.next).await,
            Err(problem) if problem.reason == "second-factor-required" => {
                let id = wait_for_code(browser, login.username, login.password);
                Ok(code_page(browser, StatusCode::OK, &id, &form.next, &[]))
            }
            Err(problem) if problem.kind == Kind::Unauthenticated => {
                let errors = [whole("Login failed: wrong username, password or passkey.")];
                Ok(login_page(browser, problem.status(), &form.next, &login.username, &errors))
            }
            Err(problem) => {
                let Shown { status, errors } = Shown::again(&problem, &["username", "password"]);
                Ok(login_page(browser, status, &form.next, &login.username, &errors))
            }
        }
    };
    submission.handle(&[], show, act).await
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
        let fields = |body| {
            html! {
                input type="hidden" name="next" value=(next);
                input type="hidden" name="login" value=(id);
                (body)
            }
        };
        let code = fields(html! {
            (field(Field {
                hint: Some("Six digits from your authenticator app."),
                autocomplete: Some("one-time-code"),
                autofocus: true,
                ..Field::new("code", "Code", FieldKind::Code).error_from(errors)
            }))
            (button("Log in", Action::Primary))
        });
        let recovery = fields(html! {
            (field(Field {
                hint: Some("One of those that you kept for a lost phone. Each is valid once."),
                autocomplete: Some("off"),
                ..Field::new("recovery_code", "Recovery code", FieldKind::RecoveryCode).error_from(errors)
            }))
            (button("Log in with recovery code", Action::Secondary))
        });
        html! {
            (plain_panel(padded(html! {
                (form("/login/code", csrf, code))
                details.more open[errors.iter().any(|error| error.field == "recovery_code")] {
                    summary { "Use a recovery code" }
                    (form("/login/code", csrf, recovery))
                }
            })))
            p.hint { a href=(LOGIN) { "Start again" } }
        }
    })
}

#[derive(Debug, Deserialize)]
struct CodeForm {
    login: String,
    code: Option<Secret>,
    recovery_code: Option<Secret>,
    #[serde(default)]
    next: String,
}

async fn second_factor(submission: Submission<Browser, CodeForm>) -> Result<Response, Problem> {
    // Its login waits no longer: it belonged to another cookie, or to an earlier start.
    let show = async |browser: &Browser, form: &CodeForm, _shown| Ok(start_again(browser, &form.next));
    submission.handle(&[], show, check_code).await
}

async fn check_code(browser: &Browser, form: &CodeForm) -> Result<Response, Problem> {
    let shared = &browser.pages.0;
    let Some(pending) = shared.pending.take(shared.clock.elapsed(), &form.login, &browser.id) else {
        return Ok(start_again(browser, &form.next));
    };
    let PendingLogin { username, password, .. } = pending;
    let without_spaces =
        |code: &Secret| code.expose().chars().filter(|c| !c.is_whitespace()).collect::<String>();
    let totp = form.code.as_ref().map(|code| Secret::from(without_spaces(code)));
    let recovery_code = form.recovery_code.as_ref().map(|code| Secret::from(code.expose().trim()));
    let login = PasswordLogin { username, password, totp, recovery_code };
    match shared.backend.login(&browser.context, login.clone()).await {
        Ok(logged_in) => enter(browser, &logged_in, &form.next).await,
        Err(problem) => {
            let field = if form.recovery_code.is_some() { "recovery_code" } else { "code" };
            let errors = [FieldError { field, text: problem.detail.clone() }];
            let id = wait_for_code(browser, login.username, login.password);
            Ok(code_page(browser, problem.status(), &id, &form.next, &errors))
        }
    }
}

fn start_again(browser: &Browser, next: &str) -> Response {
    let errors = [whole("This login has expired. Start again.")];
    login_page(browser, StatusCode::FORBIDDEN, next, "", &errors)
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
