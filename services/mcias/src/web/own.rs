//! Pages about the visitor's own account.

use axum::http::StatusCode;
use axum::response::Response;
use maud::{Markup, html};
use mc_api::mcias::{
    BeginPasskeyRequest, BeginTotpRequest, ChangePasswordRequest, ConfirmTotpRequest,
    EndOtherSessionsRequest, EndSessionRequest, FinishPasskeyRequest, GetMeRequest, ListPasskeysRequest,
    ListSessionsRequest, Passkey, RemovePasskeyRequest, RemoveTotpRequest, RenamePasskeyRequest,
    ReplaceRecoveryCodesRequest, Session, TotpEnrolment,
};
use mcdsl::Secret;
use mcdsl::http::{Json, Path};
use mcdsl::problem::Problem;
use mcdsl::web::session::{GoTo, NoFields, PasskeyChallenge, expired_form, field_errors, passkey_form};
use mcdsl::web::{self, Action, Field, FieldError, Kind, Page, Tone, Width};
use serde::Deserialize;

use super::visitor::{Posted, Submission, Visitor};
use super::{Answer, challenge, differing_passwords};

pub(super) async fn overview(visitor: Visitor) -> Answer {
    let me = visitor.calls.get_me(GetMeRequest {}).await?;
    let sessions = visitor.calls.list_sessions(ListSessionsRequest {}).await?.sessions;
    let factor = if me.has_totp {
        html! { (web::badge("On", Tone::Good)) " " (me.recovery_codes) " recovery codes left" }
    } else {
        html! { (web::badge("Off", Tone::Warning)) " " a href="/security" { "Set up authenticator app" } }
    };
    let facts = [
        ("Account", html! { (me.name) }),
        ("Roles", html! { (me.roles.join(", ")) }),
        ("Tags", html! { (me.tags.join(", ")) }),
        ("Created", web::when(me.created_at)),
        ("Last login", web::when_or(me.last_login_at, "never")),
        ("Authenticator app", factor),
        ("Passkeys", html! { (me.passkeys) }),
        ("Sessions", html! { a href="/sessions" { (sessions.len()) " active" } }),
    ];
    Ok(visitor.page("Overview", web::card("Your account", web::facts(&facts))))
}

pub(super) async fn security(visitor: Visitor) -> Answer {
    security_page(&visitor, StatusCode::OK, &[]).await
}

async fn security_page(visitor: &Visitor, status: StatusCode, errors: &[FieldError]) -> Answer {
    let me = visitor.calls.get_me(GetMeRequest {}).await?;
    let passkeys = visitor.calls.list_passkeys(ListPasskeysRequest {}).await?.passkeys;
    let csrf = visitor.csrf();
    let body = html! {
        (web::card("Password", password_form(&csrf, me.has_password, me.has_totp, errors)))
        (web::card("Authenticator app", html! {
            @if me.has_totp {
                p { (web::badge("On", Tone::Good)) " Login by password also requires a code." }
                p { (me.recovery_codes) " recovery codes left." }
                div.actions {
                    (web::link_button("/security/recovery-codes", "Create recovery codes…", Action::Secondary))
                    (web::link_button("/security/totp/remove", "Remove authenticator app…", Action::Danger))
                }
            } @else {
                p { (web::badge("Off", Tone::Warning)) " With an authenticator app, a stolen password is not enough to log in." }
                (web::form("/security/totp/begin", &csrf, web::button("Set up authenticator app…", Action::Primary)))
            }
        }))
        (web::card("Passkeys", html! {
            p { "A passkey replaces password and code: your device verifies you." }
            @if passkeys.is_empty() {
                (web::empty_state("No passkeys yet", "Add one on each device that you use.", None))
            } @else {
                (web::table("Your passkeys", &["Name", "Added", "Last used", ""], &rows(&passkeys)))
            }
            (add_passkey(&csrf))
        }))
    };
    let change = |page| Page { width: Width::Text, errors, ..page };
    Ok(visitor.page_with(status, change, "Sign-in methods", body))
}

fn rows(passkeys: &[Passkey]) -> Vec<Vec<Markup>> {
    let row = |passkey: &Passkey| {
        vec![
            html! { (passkey.label) },
            web::when(passkey.created_at),
            web::when_or(passkey.last_used_at, "never"),
            html! { a href={ "/security/passkeys/" (passkey.id) } { "Edit" span.hidden { " " (passkey.label) } } },
        ]
    };
    passkeys.iter().map(row).collect()
}

fn add_passkey(csrf: &str) -> Markup {
    let label = web::field(Field {
        hint: Some("For example the device that it is on."),
        value: "My device",
        ..Field::new("label", "Name of the new passkey", Kind::Text)
    });
    passkey_form("create", "/security/passkeys", csrf, label, ("Add passkey", Action::Primary))
}

fn password_form(csrf: &str, has_password: bool, has_totp: bool, errors: &[FieldError]) -> Markup {
    let hint = if has_totp {
        "At least 8 characters."
    } else {
        "At least 15 characters; 8 with an authenticator app."
    };
    let fields = html! {
        @if has_password {
            (web::field(Field {
                autocomplete: Some("current-password"),
                ..Field::new("current", "Current password", Kind::Password).error_from(errors)
            }))
        }
        (web::field(Field {
            hint: Some(hint),
            autocomplete: Some("new-password"),
            ..Field::new("password", "New password", Kind::Password).error_from(errors)
        }))
        (web::field(Field {
            autocomplete: Some("new-password"),
            ..Field::new("again", "Repeat new password", Kind::Password).error_from(errors)
        }))
        p.hint { "Ends all your other sessions." }
        (web::button("Change password", Action::Primary))
    };
    web::form("/security/password", csrf, fields)
}

#[derive(Deserialize)]
pub(super) struct NewPassword {
    current: Option<Secret>,
    password: Secret,
    again: Secret,
}

pub(super) async fn change_password(submission: Submission<NewPassword>) -> Answer {
    let (visitor, form) = match submission {
        Submission::Valid(visitor, form) => (visitor, form),
        Submission::Expired(visitor, _) => {
            return security_page(&visitor, StatusCode::FORBIDDEN, &expired_form()).await;
        }
    };
    if form.password.expose() != form.again.expose() {
        return security_page(&visitor, StatusCode::UNPROCESSABLE_ENTITY, &differing_passwords()).await;
    }
    let request = ChangePasswordRequest {
        current: form.current.map(|current| current.expose().to_owned()),
        password: form.password.expose().to_owned(),
    };
    match visitor.calls.change_password(request).await {
        Ok(ended) => {
            let text = format!("Password changed. {} other sessions ended.", ended.changed);
            Ok(visitor.done("/security", text))
        }
        Err(problem) if problem.field.is_some() => {
            let errors = field_errors(&problem, &["current", "password"]);
            security_page(&visitor, problem.status(), &errors).await
        }
        Err(problem) => Ok(visitor.failed("/security", &problem)),
    }
}

pub(super) async fn begin_totp(posted: Posted<NoFields>) -> Answer {
    let Posted { sender: visitor, form: NoFields {} } = posted;
    match visitor.calls.begin_totp(BeginTotpRequest {}).await {
        Ok(begun) => Ok(totp_page(&visitor, StatusCode::OK, &begun, &[])),
        Err(problem) => Ok(visitor.failed("/security", &problem)),
    }
}

fn totp_page(
    visitor: &Visitor,
    status: StatusCode,
    begun: &TotpEnrolment,
    errors: &[FieldError],
) -> Response {
    let code = qrcode::QrCode::new(begun.uri.as_bytes()).ok();
    let svg =
        code.map(|code| code.render::<qrcode::render::svg::Color<'_>>().min_dimensions(216, 216).build());
    let fields = html! {
        // Shown again if the code is wrong: it takes effect only once it is confirmed.
        input type="hidden" name="secret" value=(begun.secret);
        input type="hidden" name="uri" value=(begun.uri);
        (web::field(Field {
            hint: Some("Six digits that the app shows now."),
            autocomplete: Some("one-time-code"),
            ..Field::new("code", "Code", Kind::Code).error_from(errors)
        }))
        (web::button("Confirm code", Action::Primary))
    };
    let body = html! {
        div.card {
            p { "Scan this code with your authenticator app, or enter the secret." }
            @if let Some(svg) = svg { (web::qr(&svg, "QR code for your authenticator app")) }
            (web::copyable("totp-secret", "Secret", &begun.secret))
            (web::form("/security/totp/confirm", &visitor.csrf(), fields))
        }
    };
    visitor.page_with(
        status,
        |page| Page { width: Width::Text, errors, ..page },
        "Set up authenticator app",
        body,
    )
}

#[derive(Deserialize)]
pub(super) struct Confirm {
    code: Secret,
    secret: String,
    uri: String,
}

pub(super) async fn confirm_totp(submission: Submission<Confirm>) -> Answer {
    let (visitor, form) = match submission {
        Submission::Valid(visitor, form) => (visitor, form),
        Submission::Expired(visitor, Confirm { secret, uri, .. }) => {
            let begun = TotpEnrolment { secret, uri };
            return Ok(totp_page(&visitor, StatusCode::FORBIDDEN, &begun, &expired_form()));
        }
    };
    let code = form.code.expose().chars().filter(|c| !c.is_whitespace()).collect();
    match visitor.calls.confirm_totp(ConfirmTotpRequest { code }).await {
        Ok(codes) => Ok(codes_page(&visitor, &codes.codes, "Authenticator app set up.")),
        Err(problem) if problem.field.is_some() => {
            let begun = TotpEnrolment { secret: form.secret, uri: form.uri };
            let errors = field_errors(&problem, &["code"]);
            Ok(totp_page(&visitor, problem.status(), &begun, &errors))
        }
        Err(problem) => Ok(visitor.failed("/security", &problem)),
    }
}

fn codes_page(visitor: &Visitor, codes: &[String], what: &str) -> Response {
    let body = html! {
        (web::notice(Tone::Warning, html! {
            p {
                strong { (what) } " Each recovery code replaces a code of the app, once. Copy them now: they are shown this once and cannot be "
                "read again. Keep them where your authenticator is not."
            }
        }))
        div.card { (web::copyable("codes", "Recovery codes", &codes.join("\n"))) }
        p { (web::link_button("/security", "Done", Action::Primary)) }
    };
    visitor.page_with(StatusCode::OK, |page| Page { width: Width::Text, ..page }, "Recovery codes", body)
}

/// A page that asks for confirmation.
pub(super) fn ask(
    visitor: &Visitor,
    title: &str,
    action: &str,
    what: &str,
    label: &str,
    back: &str,
) -> Response {
    let body = web::confirm(action, &visitor.csrf(), html! { p { (what) } }, label, back);
    visitor.page_with(StatusCode::OK, |page| Page { width: Width::Text, ..page }, title, body)
}

pub(super) async fn ask_remove_totp(visitor: Visitor) -> Answer {
    let what = "Login then requires your password alone, and your recovery codes become invalid.";
    Ok(ask(
        &visitor,
        "Remove the authenticator app?",
        "/security/totp/remove",
        what,
        "Remove authenticator app",
        "/security",
    ))
}

pub(super) async fn remove_totp(posted: Posted<NoFields>) -> Answer {
    let Posted { sender: visitor, form: NoFields {} } = posted;
    let removed = visitor.calls.remove_totp(RemoveTotpRequest {}).await;
    Ok(visitor.finish("/security", removed, "Authenticator app removed."))
}

pub(super) async fn ask_recovery_codes(visitor: Visitor) -> Answer {
    let what = "Your current recovery codes become invalid.";
    Ok(ask(
        &visitor,
        "Create new recovery codes?",
        "/security/recovery-codes",
        what,
        "Create recovery codes",
        "/security",
    ))
}

pub(super) async fn recovery_codes(posted: Posted<NoFields>) -> Answer {
    let Posted { sender: visitor, form: NoFields {} } = posted;
    match visitor.calls.replace_recovery_codes(ReplaceRecoveryCodesRequest {}).await {
        Ok(codes) => Ok(codes_page(&visitor, &codes.codes, "The previous codes are invalid.")),
        Err(problem) => Ok(visitor.failed("/security", &problem)),
    }
}

pub(super) async fn begin_passkey(posted: Posted<NoFields>) -> Result<Json<PasskeyChallenge>, Problem> {
    let Posted { sender: visitor, form: NoFields {} } = posted;
    Ok(Json(challenge(visitor.calls.begin_passkey(BeginPasskeyRequest {}).await?)))
}

#[derive(Deserialize)]
pub(super) struct NewPasskey {
    ceremony_id: String,
    credential: String,
    label: String,
}

pub(super) async fn finish_passkey(posted: Posted<NewPasskey>) -> Result<Json<GoTo>, Problem> {
    let Posted { sender: visitor, form } = posted;
    let NewPasskey { ceremony_id, credential, label } = form;
    let request = FinishPasskeyRequest { ceremony_id, label, credential };
    visitor.calls.finish_passkey(request).await?;
    Ok(Json(GoTo { to: "/security".to_owned() }))
}

pub(super) async fn passkey(visitor: Visitor, Path(id): Path<String>) -> Answer {
    passkey_page(&visitor, StatusCode::OK, &id, None, &[]).await
}

async fn passkey_page(
    visitor: &Visitor,
    status: StatusCode,
    id: &str,
    label: Option<&str>,
    errors: &[FieldError],
) -> Answer {
    let found = visitor.calls.list_passkeys(ListPasskeysRequest {}).await?.passkeys;
    let found = found.into_iter().find(|passkey| passkey.id == id);
    let passkey = found.ok_or_else(|| Problem::not_found("You have no such passkey."))?;
    let csrf = visitor.csrf();
    let at = format!("/security/passkeys/{id}");
    let fields = html! {
        (web::field(Field {
            value: label.unwrap_or(&passkey.label),
            ..Field::new("label", "Name", Kind::Text).error_from(errors)
        }))
        (web::button("Rename passkey", Action::Primary))
    };
    let body = html! {
        (web::card("Name", web::form(&at, &csrf, fields)))
        (web::card("Remove", html! {
            p { "You can no longer log in with it. Remove it from the device as well." }
            (web::form(&format!("{at}/remove"), &csrf, web::button("Remove passkey", Action::Danger)))
        }))
    };
    let change = |page| Page { width: Width::Text, errors, ..page };
    Ok(visitor.page_with(status, change, "Passkey", body))
}

#[derive(Deserialize)]
pub(super) struct Label {
    label: String,
}

pub(super) async fn rename_passkey(Path(id): Path<String>, submission: Submission<Label>) -> Answer {
    let (visitor, form) = match submission {
        Submission::Valid(visitor, form) => (visitor, form),
        Submission::Expired(visitor, form) => {
            let (status, label) = (StatusCode::FORBIDDEN, Some(form.label.as_str()));
            return passkey_page(&visitor, status, &id, label, &expired_form()).await;
        }
    };
    match visitor
        .calls
        .rename_passkey(RenamePasskeyRequest { id: id.clone(), label: form.label.clone() })
        .await
    {
        Err(problem) if problem.field.is_some() => {
            let errors = field_errors(&problem, &["label"]);
            passkey_page(&visitor, problem.status(), &id, Some(&form.label), &errors).await
        }
        renamed => Ok(visitor.finish("/security", renamed, "Passkey renamed.")),
    }
}

pub(super) async fn remove_passkey(Path(id): Path<String>, posted: Posted<NoFields>) -> Answer {
    let Posted { sender: visitor, form: NoFields {} } = posted;
    let removed = visitor.calls.remove_passkey(RemovePasskeyRequest { id }).await;
    Ok(visitor.finish("/security", removed, "Passkey removed."))
}

pub(super) async fn sessions(visitor: Visitor) -> Answer {
    let found = visitor.calls.list_sessions(ListSessionsRequest {}).await?.sessions;
    let csrf = visitor.csrf();
    let body = html! {
        (session_table("Sessions", &found, "/sessions", &csrf))
        @if found.len() > 1 {
            (web::form("/sessions/end-others", &csrf, web::button("End other sessions", Action::Danger)))
        }
    };
    let lead = Some(
        "Where you are logged in: each session is a token of a browser, of mciasctl or of a service. End sessions that you do not recognise, and change your password.",
    );
    Ok(visitor.page_with(StatusCode::OK, |page| Page { lead, ..page }, "Sessions", body))
}

/// Active sessions, each with a form below `at` that ends it.
pub(super) fn session_table(caption: &str, found: &[Session], at: &str, csrf: &str) -> Markup {
    let end = |session: &Session| {
        let label = html! { span.hidden { " session from " (session.source) } };
        if session.current {
            return web::badge("This session", Tone::Info);
        }
        let action = format!("{at}/{}/end", session.id);
        web::form(&action, csrf, html! { button.button.secondary type="submit" { "End" (label) } })
    };
    let row = |session: &Session| {
        vec![
            html! { (session.source) },
            html! { (session.service) },
            html! { (session.method) },
            web::when(session.created_at),
            web::when_or(session.last_used_at, ""),
            web::when(session.expires_at),
            end(session),
        ]
    };
    let rows: Vec<_> = found.iter().map(row).collect();
    web::table(caption, &["Source", "Service", "Method", "Started", "Last used", "Expires", ""], &rows)
}

pub(super) async fn end_session(Path(id): Path<String>, posted: Posted<NoFields>) -> Answer {
    let Posted { sender: visitor, form: NoFields {} } = posted;
    let ended = visitor.calls.end_session(EndSessionRequest { id }).await;
    Ok(visitor.finish("/sessions", ended, "Session ended."))
}

pub(super) async fn end_others(posted: Posted<NoFields>) -> Answer {
    let Posted { sender: visitor, form: NoFields {} } = posted;
    let ended = visitor.calls.end_other_sessions(EndOtherSessionsRequest {}).await;
    Ok(visitor.finish("/sessions", ended, "Other sessions ended."))
}

/// A page that shows a secret, once.
pub(super) fn once(
    visitor: &Visitor,
    title: &str,
    label: &str,
    text: &str,
    what: &str,
    back: &str,
) -> Response {
    let body = html! {
        (web::notice(Tone::Warning, html! { p { strong { "Copy it now. It is shown this once and cannot be read again. " } (what) } }))
        div.card { (web::copyable("once", label, text)) }
        p { (web::link_button(back, "Done", Action::Primary)) }
    };
    visitor.page_with(StatusCode::OK, |page| Page { width: Width::Text, ..page }, title, body)
}
