//! Pages about one's own account.

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
use mcdsl::web::{self, Action, Field, FieldError, Kind, Page, Tone, Width};
use serde::Deserialize;

use super::login::{Challenge, GoTo, Nothing};
use super::visit::{Answer, Posted, Visitor, errors};
use super::{when, when_or, words};

pub(super) async fn overview(visitor: Visitor) -> Answer {
    let me = visitor.calls.get_me(GetMeRequest {}).await?;
    let sessions = visitor.calls.list_sessions(ListSessionsRequest {}).await?.sessions;
    let factor = if me.has_totp {
        html! { (web::badge("On", Tone::Good)) " " (me.recovery_codes) " recovery codes left" }
    } else {
        html! { (web::badge("Off", Tone::Warning)) " " a href="/security" { "Turn it on" } }
    };
    let facts = [
        ("Account", html! { (me.name) }),
        ("Roles", html! { (words(&me.roles)) }),
        ("Tags", html! { (words(&me.tags)) }),
        ("Since", when(me.created_at)),
        ("Last login", when_or(me.last_login_at, "never")),
        ("Second factor", factor),
        ("Passkeys", html! { (me.passkeys) }),
        ("Sessions", html! { a href="/sessions" { (sessions.len()) " live" } }),
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
        (web::card("Second factor", html! {
            @if me.has_totp {
                p { (web::badge("On", Tone::Good)) " Logging in by password takes a code as well." }
                p { (me.recovery_codes) " recovery codes are left." }
                div.actions {
                    (web::link_button("/security/recovery-codes", "New recovery codes", Action::Secondary))
                    (web::link_button("/security/totp/remove", "Turn it off", Action::Danger))
                }
            } @else {
                p { (web::badge("Off", Tone::Warning)) " With a second factor, a password alone is of no use to whoever gets it." }
                (web::form("/security/totp/begin", &csrf, web::button("Turn it on", Action::Primary)))
            }
        }))
        (web::card("Passkeys", html! {
            p { "A passkey replaces password and code: your device checks that it is you." }
            @if passkeys.is_empty() {
                (web::empty_state("No passkeys yet", "Add one on each device that you use.", None))
            } @else {
                (web::table("Your passkeys", &["Name", "Added", "Last used", ""], &rows(&passkeys)))
            }
            (add_passkey(&csrf))
        }))
    };
    let change = |page| Page { width: Width::Text, errors, ..page };
    Ok(visitor.page_with(status, change, "Security", body))
}

fn rows(passkeys: &[Passkey]) -> Vec<Vec<Markup>> {
    let row = |passkey: &Passkey| {
        vec![
            html! { (passkey.label) },
            when(passkey.created_at),
            when_or(passkey.last_used_at, "never"),
            html! { a href={ "/security/passkeys/" (passkey.id) } { "Change" span.hidden { " " (passkey.label) } } },
        ]
    };
    passkeys.iter().map(row).collect()
}

fn add_passkey(csrf: &str) -> Markup {
    let label = web::field(Field {
        hint: Some("The device that it is on, for example."),
        value: "My device",
        ..Field::new("label", "Name of the new passkey", Kind::Text)
    });
    html! {
        div.passkey data-passkey="add" data-csrf=(csrf) {
            (label)
            p { button.button.primary type="button" disabled { "Add a passkey" } }
            p.hint role="status" aria-live="polite" { "Passkeys need JavaScript." }
        }
    }
}

fn password_form(csrf: &str, has_password: bool, has_totp: bool, errors: &[FieldError]) -> Markup {
    let least =
        if has_totp { "8 characters at least." } else { "15 characters at least; 8 with a second factor." };
    let fields = html! {
        @if has_password {
            (web::field(Field {
                autocomplete: Some("current-password"),
                ..Field::new("current", "Password now", Kind::Password).error_from(errors)
            }))
        }
        (web::field(Field {
            hint: Some(least),
            autocomplete: Some("new-password"),
            ..Field::new("password", "New password", Kind::Password).error_from(errors)
        }))
        (web::field(Field {
            autocomplete: Some("new-password"),
            ..Field::new("again", "Once more", Kind::Password).error_from(errors)
        }))
        p.hint { "Every other session of yours ends." }
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

pub(super) async fn change_password(posted: Posted<NewPassword>) -> Answer {
    let Posted { visitor, form } = posted;
    if form.password.expose() != form.again.expose() {
        let errors = [FieldError { field: "again", text: "It is not the same.".to_owned() }];
        return security_page(&visitor, StatusCode::UNPROCESSABLE_ENTITY, &errors).await;
    }
    let request = ChangePasswordRequest {
        current: form.current.map(|current| current.expose().to_owned()),
        password: form.password.expose().to_owned(),
    };
    match visitor.calls.change_password(request).await {
        Ok(ended) => visitor
            .done("/security", format!("Your password is changed; {} other sessions ended.", ended.changed)),
        Err(problem) if problem.field.is_some() => {
            let errors = errors(&problem, &["current", "password"]);
            security_page(&visitor, problem.status(), &errors).await
        }
        Err(problem) => visitor.failed("/security", &problem),
    }
}

pub(super) async fn begin_totp(posted: Posted<Nothing>) -> Answer {
    let Posted { visitor, form: Nothing {} } = posted;
    match visitor.calls.begin_totp(BeginTotpRequest {}).await {
        Ok(begun) => Ok(totp_page(&visitor, StatusCode::OK, &begun, &[])),
        Err(problem) => visitor.failed("/security", &problem),
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
        // Shown again where the code was wrong: it counts only once it is confirmed.
        input type="hidden" name="secret" value=(begun.secret);
        input type="hidden" name="uri" value=(begun.uri);
        (web::field(Field {
            hint: Some("The six digits that the authenticator shows now."),
            autocomplete: Some("one-time-code"),
            ..Field::new("code", "Code", Kind::Code).error_from(errors)
        }))
        (web::button("Turn it on", Action::Primary))
    };
    let body = html! {
        div.card {
            p { "Scan this with your authenticator app, or type the secret into it." }
            @if let Some(svg) = svg { (web::qr(&svg, "QR code for your authenticator app")) }
            (web::copyable("totp-secret", "Secret", &begun.secret))
            (web::form("/security/totp/confirm", &visitor.csrf(), fields))
        }
    };
    visitor.page_with(status, |page| Page { width: Width::Text, errors, ..page }, "Second factor", body)
}

#[derive(Deserialize)]
pub(super) struct Confirm {
    code: Secret,
    secret: String,
    uri: String,
}

pub(super) async fn confirm_totp(posted: Posted<Confirm>) -> Answer {
    let Posted { visitor, form } = posted;
    let code = form.code.expose().chars().filter(|c| !c.is_whitespace()).collect();
    match visitor.calls.confirm_totp(ConfirmTotpRequest { code }).await {
        Ok(codes) => Ok(codes_page(&visitor, &codes.codes, "The second factor is on.")),
        Err(problem) if problem.field.is_some() => {
            let begun = TotpEnrolment { secret: form.secret, uri: form.uri };
            let errors = errors(&problem, &["code"]);
            Ok(totp_page(&visitor, problem.status(), &begun, &errors))
        }
        Err(problem) => visitor.failed("/security", &problem),
    }
}

fn codes_page(visitor: &Visitor, codes: &[String], what: &str) -> Response {
    let body = html! {
        (web::notice(Tone::Warning, html! {
            p {
                strong { (what) } " These recovery codes stand in for your authenticator, each once. They are not shown again: "
                "print them, and keep them where your authenticator is not."
            }
        }))
        div.card { (web::copyable("codes", "Recovery codes", &codes.join("\n"))) }
        p { (web::link_button("/security", "I have them", Action::Primary)) }
    };
    visitor.page_with(StatusCode::OK, |page| Page { width: Width::Text, ..page }, "Recovery codes", body)
}

/// A page that asks before something is lost.
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
    let what = "Logging in takes your password alone from then on, and your recovery codes are void.";
    Ok(ask(
        &visitor,
        "Turn the second factor off?",
        "/security/totp/remove",
        what,
        "Turn it off",
        "/security",
    ))
}

pub(super) async fn remove_totp(posted: Posted<Nothing>) -> Answer {
    let Posted { visitor, form: Nothing {} } = posted;
    let removed = visitor.calls.remove_totp(RemoveTotpRequest {}).await;
    visitor.told("/security", removed, "The second factor is off.")
}

pub(super) async fn ask_recovery_codes(visitor: Visitor) -> Answer {
    let what = "Those that you have are void from then on.";
    Ok(ask(
        &visitor,
        "Make new recovery codes?",
        "/security/recovery-codes",
        what,
        "Make new ones",
        "/security",
    ))
}

pub(super) async fn recovery_codes(posted: Posted<Nothing>) -> Answer {
    let Posted { visitor, form: Nothing {} } = posted;
    match visitor.calls.replace_recovery_codes(ReplaceRecoveryCodesRequest {}).await {
        Ok(codes) => Ok(codes_page(&visitor, &codes.codes, "The old ones are void.")),
        Err(problem) => visitor.failed("/security", &problem),
    }
}

pub(super) async fn begin_passkey(posted: Posted<Nothing>) -> Result<Json<Challenge>, Problem> {
    let Posted { visitor, form: Nothing {} } = posted;
    Ok(Json(visitor.calls.begin_passkey(BeginPasskeyRequest {}).await?.into()))
}

#[derive(Deserialize)]
pub(super) struct NewPasskey {
    ceremony_id: String,
    credential: String,
    label: String,
}

pub(super) async fn finish_passkey(posted: Posted<NewPasskey>) -> Result<Json<GoTo>, Problem> {
    let Posted { visitor, form } = posted;
    let NewPasskey { ceremony_id, credential, label } = form;
    let request = FinishPasskeyRequest { ceremony_id, label, credential };
    visitor.calls.finish_passkey(request).await?;
    Ok(Json(GoTo { to: "/security".to_owned() }))
}

pub(super) async fn passkey(visitor: Visitor, Path(id): Path<String>) -> Answer {
    let found = visitor.calls.list_passkeys(ListPasskeysRequest {}).await?.passkeys;
    let found = found.into_iter().find(|passkey| passkey.id == id);
    let passkey = found.ok_or_else(|| Problem::not_found("you have no such passkey"))?;
    let csrf = visitor.csrf();
    let at = format!("/security/passkeys/{id}");
    let fields = html! {
        (web::field(Field { value: &passkey.label, ..Field::new("label", "Name", Kind::Text) }))
        (web::button("Save", Action::Primary))
    };
    let body = html! {
        (web::card("Name", web::form(&at, &csrf, fields)))
        (web::card("Remove", html! {
            p { "You cannot log in with it any more then. Remove it from the device as well." }
            (web::form(&format!("{at}/remove"), &csrf, web::button("Remove the passkey", Action::Danger)))
        }))
    };
    Ok(visitor.page_with(StatusCode::OK, |page| Page { width: Width::Text, ..page }, "Passkey", body))
}

#[derive(Deserialize)]
pub(super) struct Label {
    label: String,
}

pub(super) async fn rename_passkey(Path(id): Path<String>, posted: Posted<Label>) -> Answer {
    let Posted { visitor, form } = posted;
    let renamed = visitor.calls.rename_passkey(RenamePasskeyRequest { id, label: form.label }).await;
    visitor.told("/security", renamed, "The passkey has its new name.")
}

pub(super) async fn remove_passkey(Path(id): Path<String>, posted: Posted<Nothing>) -> Answer {
    let Posted { visitor, form: Nothing {} } = posted;
    let removed = visitor.calls.remove_passkey(RemovePasskeyRequest { id }).await;
    visitor.told("/security", removed, "The passkey is removed.")
}

pub(super) async fn sessions(visitor: Visitor) -> Answer {
    let found = visitor.calls.list_sessions(ListSessionsRequest {}).await?.sessions;
    let csrf = visitor.csrf();
    let body = html! {
        (session_table("Your sessions", &found, "/sessions", &csrf))
        @if found.len() > 1 {
            (web::form("/sessions/end-others", &csrf, web::button("End all others", Action::Danger)))
        }
    };
    let lead = Some(
        "Where you are logged in: each is a token, of a browser, of mciasctl, or of a service. End what you do not know, and change your password.",
    );
    Ok(visitor.page_with(StatusCode::OK, |page| Page { lead, ..page }, "Sessions", body))
}

/// Live sessions, each of which can be ended by a form below `at`.
pub(super) fn session_table(caption: &str, found: &[Session], at: &str, csrf: &str) -> Markup {
    let end = |session: &Session| {
        let label = html! { span.hidden { " the session from " (session.source) } };
        if session.current {
            return web::badge("This one", Tone::Info);
        }
        let action = format!("{at}/{}/end", session.id);
        web::form(&action, csrf, html! { button.button.secondary type="submit" { "End" (label) } })
    };
    let row = |session: &Session| {
        vec![
            html! { (session.source) },
            html! { (session.service) },
            html! { (session.method) },
            when(session.created_at),
            when_or(session.last_used_at, "–"),
            when(session.expires_at),
            end(session),
        ]
    };
    let rows: Vec<_> = found.iter().map(row).collect();
    web::table(caption, &["From", "Through", "By", "Since", "Last used", "Until", ""], &rows)
}

pub(super) async fn end_session(Path(id): Path<String>, posted: Posted<Nothing>) -> Answer {
    let Posted { visitor, form: Nothing {} } = posted;
    let ended = visitor.calls.end_session(EndSessionRequest { id }).await;
    visitor.told("/sessions", ended, "The session is ended.")
}

pub(super) async fn end_others(posted: Posted<Nothing>) -> Answer {
    let Posted { visitor, form: Nothing {} } = posted;
    let ended = visitor.calls.end_other_sessions(EndOtherSessionsRequest {}).await;
    visitor.told("/sessions", ended, "All other sessions are ended.")
}

/// A page that shows something once, and says so.
pub(super) fn once(
    visitor: &Visitor,
    title: &str,
    label: &str,
    text: &str,
    what: &str,
    back: &str,
) -> Response {
    let body = html! {
        (web::notice(Tone::Warning, html! { p { strong { "This is shown once. " } (what) } }))
        div.card { (web::copyable("once", label, text)) }
        p { (web::link_button(back, "I have it", Action::Primary)) }
    };
    visitor.page_with(StatusCode::OK, |page| Page { width: Width::Text, ..page }, title, body)
}
