//! Logging in and out, and the first password.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use maud::{Markup, html};
use mc_api::mcias::{
    BeginPasskeyLoginRequest, FinishPasskeyLoginRequest, GetLinkRequest, LoginRequest, LoginResponse,
    LogoutRequest, RedeemLinkRequest,
};
use mcdsl::Secret;
use mcdsl::http::{Json, Path, Query};
use mcdsl::problem::Problem;
use mcdsl::web::{self, Action, Field, FieldError, Flash, Kind, Page, Width};
use serde::{Deserialize, Serialize};

use super::visit::{Answer, Posted, PostedByStranger, Stranger, errors, with_cookie};
use super::{PAGES, SCRIPT, Shared, when};
use crate::domain::challenges::{Challenges, Room};
use crate::domain::throttle::Source;

/// Logins whose password was right, and which wait for a code: the password is not sent back to the browser for that.
#[derive(Debug)]
pub(super) struct Pending(Mutex<Challenges<Waiting>>);

#[derive(Debug)]
struct Waiting {
    name: String,
    password: Secret,
}

/// How many wait.
const ROOM: Room = Room { time: Duration::from_secs(180), all: 1000, of_one: 100 };

impl Default for Pending {
    fn default() -> Self {
        Self(Mutex::new(Challenges::new(ROOM)))
    }
}

impl Pending {
    fn put(&self, stranger: &Stranger, name: String, password: Secret) -> String {
        let (id, _) = web::anonymous();
        let id = id.expose().to_owned();
        let (now, from) =
            (stranger.web.app.clock().elapsed(), Source::from(stranger.calls.context().client.ip()));
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.put(now, from, id.clone(), Waiting { name, password });
        id
    }

    fn take(&self, id: &str, now: Duration) -> Option<Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take(now, id)
    }
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Next {
    #[serde(default)]
    next: String,
}

impl Next {
    /// Where to go after a login: a page of ours, or the first one.
    fn path(&self) -> String {
        let decoded = data_encoding::BASE64URL_NOPAD.decode(self.next.as_bytes()).ok();
        let text = decoded.and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
        web::local_path(&text).unwrap_or("/").to_owned()
    }
}

pub(super) async fn page(stranger: Stranger, Query(next): Query<Next>) -> Response {
    login_page(&stranger, StatusCode::OK, &next.next, "", &[])
}

/// A page for somebody who is not logged in, with a form's token bound to a cookie of theirs.
fn for_stranger(
    stranger: &Stranger,
    status: StatusCode,
    title: &str,
    errors: &[FieldError],
    body: impl FnOnce(&str) -> Markup,
) -> Response {
    let (binding, cookie) = match web::anonymous_of(&stranger.headers) {
        Some(binding) => (binding, None),
        None => {
            let (binding, cookie) = web::anonymous();
            (binding, Some(cookie))
        }
    };
    let csrf = stranger.web.csrf.token(&binding);
    let flash = Flash::of(&stranger.headers, &stranger.web.csrf);
    let script = SCRIPT.href();
    let page = Page {
        flash: flash.as_ref(),
        errors,
        csrf: &csrf,
        scripts: &[&script],
        width: Width::Narrow,
        ..Page::new(&PAGES, title, body(&csrf))
    };
    let response = page.respond(status);
    match cookie {
        Some(cookie) => with_cookie(response, cookie),
        None => response,
    }
}

fn login_page(
    stranger: &Stranger,
    status: StatusCode,
    next: &str,
    name: &str,
    errors: &[FieldError],
) -> Response {
    for_stranger(stranger, status, "Log in", errors, |csrf| {
        let fields = html! {
            input type="hidden" name="next" value=(next);
            (web::field(Field {
                value: name,
                autocomplete: Some("username webauthn"),
                ..Field::new("username", "Account", Kind::Text).error_from(errors)
            }))
            (web::field(Field {
                autocomplete: Some("current-password"),
                ..Field::new("password", "Password", Kind::Password).error_from(errors)
            }))
            (web::button("Log in", Action::Primary))
        };
        html! {
            div.card {
                (web::form("/login", csrf, fields))
                (passkey_button("login", csrf, next, "Log in with a passkey"))
            }
        }
    })
}

/// A button that the script brings to life.
fn passkey_button(what: &str, csrf: &str, next: &str, label: &str) -> Markup {
    html! {
        div.passkey data-passkey=(what) data-csrf=(csrf) data-next=(next) {
            p { button.button.secondary type="button" disabled { (label) } }
            p.hint role="status" aria-live="polite" { "Passkeys need JavaScript." }
        }
    }
}

#[derive(Deserialize)]
pub(super) struct Login {
    username: String,
    password: Secret,
    #[serde(default)]
    next: String,
}

pub(super) async fn password(posted: PostedByStranger<Login>) -> Answer {
    let PostedByStranger { stranger, form } = posted;
    let name = form.username.trim().to_owned();
    match log_in(&stranger, &name, &form.password, None, None).await {
        Ok(reply) => entered(&stranger, &reply, &form.next).await,
        Err(problem) if problem.reason == "second-factor-required" => {
            let id = stranger.web.pending.put(&stranger, name, form.password);
            Ok(code_page(&stranger, StatusCode::OK, &id, &form.next, &[]))
        }
        Err(problem) => {
            let errors = errors(&problem, &["username", "password"]);
            Ok(login_page(&stranger, problem.status(), &form.next, &name, &errors))
        }
    }
}

async fn log_in(
    stranger: &Stranger,
    name: &str,
    password: &Secret,
    totp: Option<String>,
    recovery_code: Option<String>,
) -> Result<LoginResponse, Problem> {
    let request = LoginRequest {
        username: name.to_owned(),
        password: password.expose().to_owned(),
        totp,
        recovery_code,
        // A session of the browser is for these pages.
        audience: vec!["mcias".to_owned()],
        client_address: None,
    };
    stranger.calls.login(request).await
}

/// Lets somebody in: the session is in a cookie from now on.
async fn entered(stranger: &Stranger, reply: &LoginResponse, next: &str) -> Answer {
    let cookie = session_cookie(stranger, reply).await?;
    let path = Next { next: next.to_owned() }.path();
    Ok(with_cookie(web::redirect(&path), cookie))
}

async fn session_cookie(stranger: &Stranger, reply: &LoginResponse) -> Result<HeaderValue, Problem> {
    let web = &stranger.web;
    // The session that the new one takes the place of would live on where nobody can reach it.
    if let Some(old) = web::session_of(&stranger.headers)
        && let Ok(calls) = stranger.as_session(&old).await
    {
        calls.logout(LogoutRequest {}).await?;
    }
    let left = u64::try_from(reply.expires_at - web.app.clock().unix_s()).unwrap_or(0);
    let token = Secret::from(reply.token.as_str());
    web::session_cookie(&token, Duration::from_secs(left))
        .ok_or_else(|| Problem::unauthenticated("the token cannot be kept in a cookie"))
}

fn code_page(
    stranger: &Stranger,
    status: StatusCode,
    id: &str,
    next: &str,
    errors: &[FieldError],
) -> Response {
    for_stranger(stranger, status, "Second factor", errors, |csrf| {
        let fields = html! {
            input type="hidden" name="next" value=(next);
            input type="hidden" name="login" value=(id);
            (web::field(Field {
                hint: Some("Six digits from your authenticator, or one of your recovery codes."),
                autocomplete: Some("one-time-code"),
                ..Field::new("code", "Code", Kind::Text).error_from(errors)
            }))
            (web::button("Log in", Action::Primary))
        };
        html! { div.card { (web::form("/login/code", csrf, fields)) p { a href="/login" { "Begin anew" } } } }
    })
}

#[derive(Deserialize)]
pub(super) struct Code {
    login: String,
    code: Secret,
    #[serde(default)]
    next: String,
}

pub(super) async fn code(posted: PostedByStranger<Code>) -> Answer {
    let PostedByStranger { stranger, form } = posted;
    let now = stranger.web.app.clock().elapsed();
    let Some(waiting) = stranger.web.pending.take(&form.login, now) else {
        let text = "That took too long: begin anew.".to_owned();
        let errors = [FieldError { field: "", text }];
        return Ok(login_page(&stranger, StatusCode::BAD_REQUEST, &form.next, "", &errors));
    };
    let code = form.code.expose().trim().to_owned();
    let digits = code.chars().filter(|c| !c.is_whitespace()).collect::<String>();
    let is_totp = digits.len() == 6 && digits.bytes().all(|byte| byte.is_ascii_digit());
    let (totp, recovery) = if is_totp { (Some(digits), None) } else { (None, Some(code)) };
    match log_in(&stranger, &waiting.name, &waiting.password, totp, recovery).await {
        Ok(reply) => entered(&stranger, &reply, &form.next).await,
        Err(problem) => {
            let errors = [FieldError { field: "code", text: problem.detail.clone() }];
            let id = stranger.web.pending.put(&stranger, waiting.name, waiting.password);
            Ok(code_page(&stranger, problem.status(), &id, &form.next, &errors))
        }
    }
}

/// What the script gets: a challenge.
#[derive(Serialize)]
pub(super) struct Challenge {
    ceremony_id: String,
    options: String,
}

impl From<mc_api::mcias::PasskeyChallenge> for Challenge {
    fn from(challenge: mc_api::mcias::PasskeyChallenge) -> Self {
        Self { ceremony_id: challenge.ceremony_id, options: challenge.options }
    }
}

/// What the script gets: where to go.
#[derive(Serialize)]
pub(super) struct GoTo {
    pub(super) to: String,
}

#[derive(Deserialize)]
pub(super) struct Nothing {}

pub(super) async fn begin_passkey(posted: PostedByStranger<Nothing>) -> Result<Json<Challenge>, Problem> {
    let Nothing {} = posted.form;
    let challenge = posted.stranger.calls.begin_passkey_login(BeginPasskeyLoginRequest {}).await?;
    Ok(Json(challenge.into()))
}

#[derive(Deserialize)]
pub(super) struct Credential {
    ceremony_id: String,
    credential: String,
    #[serde(default)]
    next: String,
}

pub(super) async fn finish_passkey(posted: PostedByStranger<Credential>) -> Result<Response, Problem> {
    let PostedByStranger { stranger, form } = posted;
    let request = FinishPasskeyLoginRequest {
        ceremony_id: form.ceremony_id,
        credential: form.credential,
        audience: vec!["mcias".to_owned()],
    };
    let reply = stranger.calls.finish_passkey_login(request).await?;
    let cookie = session_cookie(&stranger, &reply).await?;
    let to = Next { next: form.next }.path();
    Ok(with_cookie(Json(GoTo { to }).into_response(), cookie))
}

pub(super) async fn logout(posted: Posted<Nothing>) -> Answer {
    let Nothing {} = posted.form;
    posted.visitor.calls.logout(LogoutRequest {}).await?;
    Ok(with_cookie(web::redirect("/login"), web::clear_session()))
}

pub(super) async fn welcome(stranger: Stranger, Path(secret): Path<String>) -> Answer {
    welcome_page(&stranger, StatusCode::OK, secret, &[]).await
}

async fn welcome_page(
    stranger: &Stranger,
    status: StatusCode,
    secret: String,
    errors: &[FieldError],
) -> Answer {
    let action = format!("/welcome/{secret}");
    let link = stranger.calls.get_link(GetLinkRequest { secret }).await?;
    let hint = if link.has_second_factor {
        "8 characters at least, since you have a second factor. A few words that do not belong together are easy to keep."
    } else {
        "15 characters at least. A few words that do not belong together are easy to keep."
    };
    Ok(for_stranger(stranger, status, "Set your password", errors, |csrf| {
        let fields = html! {
            // For the browser, which keeps the password by it.
            input type="hidden" name="username" value=(link.account) autocomplete="username";
            (web::field(Field {
                hint: Some(hint),
                autocomplete: Some("new-password"),
                ..Field::new("password", "New password", Kind::Password).error_from(errors)
            }))
            (web::field(Field {
                autocomplete: Some("new-password"),
                ..Field::new("again", "Once more", Kind::Password).error_from(errors)
            }))
            (web::button("Set it", Action::Primary))
        };
        html! {
            p { "For the account " strong { (link.account) } ". The link is good once, until " (when(link.expires_at)) "." }
            div.card { (web::form(&action, csrf, fields)) }
        }
    }))
}

#[derive(Deserialize)]
pub(super) struct NewPassword {
    password: Secret,
    again: Secret,
}

pub(super) async fn redeem(
    State(_web): State<Shared>,
    Path(secret): Path<String>,
    posted: PostedByStranger<NewPassword>,
) -> Answer {
    let PostedByStranger { stranger, form } = posted;
    if form.password.expose() != form.again.expose() {
        let errors = [FieldError { field: "again", text: "It is not the same.".to_owned() }];
        return welcome_page(&stranger, StatusCode::UNPROCESSABLE_ENTITY, secret, &errors).await;
    }
    let request = RedeemLinkRequest { secret: secret.clone(), password: form.password.expose().to_owned() };
    match stranger.calls.redeem_link(request).await {
        Ok(_) => {
            let flash = Flash::new(web::Tone::Good, "Your password is set: log in with it.");
            Ok(with_cookie(web::redirect("/login"), flash.cookie(&stranger.web.csrf)))
        }
        Err(problem) if problem.field.is_some() => {
            let errors = errors(&problem, &["password"]);
            welcome_page(&stranger, StatusCode::UNPROCESSABLE_ENTITY, secret, &errors).await
        }
        Err(problem) => Err(problem.into()),
    }
}
