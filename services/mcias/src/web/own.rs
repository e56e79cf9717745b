//! Pages about the visitor's own account.

use axum::http::StatusCode;
use axum::response::Response;
use maud::{Markup, html};
use mc_api::audit::{AuditEntry, ListAuditRequest};
use mc_api::mcias::{
    Account, BeginPasskeyRequest, BeginTotpRequest, ChangePasswordRequest, ConfirmTotpRequest,
    EndOtherSessionsRequest, EndSessionRequest, FinishPasskeyRequest, GetMeRequest, ListPasskeysRequest,
    ListSessionsRequest, Passkey, RemovePasskeyRequest, RemoveTotpRequest, RenamePasskeyRequest,
    ReplaceRecoveryCodesRequest, Session, TotpEnrolment,
};
use mcdsl::Secret;
use mcdsl::http::{Json, Path};
use mcdsl::problem::Problem;
use mcdsl::web::audit::times;
use mcdsl::web::session::{GoTo, NoFields, PasskeyChallenge, Shown, passkey_form};
use mcdsl::web::{
    self, Action, Attention, Column, Confirm, Field, Icon, Kind, Layout, Once, Page, Tone,
    username_for_managers,
};
use serde::Deserialize;

use super::visitor::{Posted, Submission, Visitor};
use super::{Answer, challenge, count, differing_passwords};
use crate::domain::Role;

/// The page above those about ways to log in.
const SECURITY: [(&str, &str); 1] = [("Sign-in methods", "/security")];

pub(super) async fn overview(visitor: Visitor) -> Answer {
    let me = visitor.calls.get_me(GetMeRequest {}).await?;
    let sessions = visitor.calls.list_sessions(ListSessionsRequest {}).await?.sessions;
    let mut needs = own_needs(&me);
    if visitor.is_admin() {
        needs.extend(admin_needs(&visitor).await?);
    }
    needs.sort_by_key(|need| need.tone != Tone::Bad);
    let meta = match needs.len() {
        0 => web::state(Tone::Good, "All well"),
        1 => web::state(Tone::Warning, "1 thing needs attention"),
        more => web::state(Tone::Warning, &format!("{more} things need attention")),
    };
    let now = visitor.now();
    let facts = [
        ("Username", html! { (me.name) }),
        ("Roles", html! { (role_names(&me)) }),
        ("Tags", web::tags(&me.tags)),
        ("Created", web::when(me.created_at)),
        ("Last login", web::ago_or(now, me.last_login_at, "never")),
    ];
    let facts: Vec<_> = facts.into_iter().filter(|(_, value)| !value.0.is_empty()).collect();
    let body = html! {
        (web::attention(&needs))
        (web::split(
            html! {
                (web::panel("Sign-in methods", "", html! { a href="/security" { "Manage" } }, method_items(&me)))
                (web::panel(
                    "Sessions",
                    &format!("{} active", sessions.len()),
                    html! { a href="/sessions" { "All sessions" } },
                    session_table(now, "Sessions", &sessions, "/sessions", &visitor.csrf()),
                ))
            },
            web::panel("Your account", "", html! {}, web::facts(&facts)),
        ))
    };
    Ok(visitor.page_with(StatusCode::OK, |page| Page { meta: vec![meta], ..page }, "Overview", body))
}

/// Fewer than this are few recovery codes.
const FEW_CODES: u32 = 4;

/// What the visitor's own account needs.
fn own_needs(me: &Account) -> Vec<Attention<'static>> {
    let need = |kind, text, href: &str| Attention { tone: Tone::Warning, kind, text, href: href.to_owned() };
    let mut needs = Vec::new();
    if me.has_totp && me.recovery_codes < FEW_CODES {
        let left = count(me.recovery_codes as usize, "recovery code");
        let text = html! { b { (left) " left" } ": create new ones before you lose your phone" };
        needs.push(need("Recovery codes", text, "/security/recovery-codes"));
    }
    if !me.has_totp && me.passkeys == 0 {
        let text = html! { b { "Your password alone is enough to log in" } ": add a passkey or an authenticator app" };
        needs.push(need("Sign-in", text, "/security"));
    }
    needs
}

/// So many failed logins in a day are not somebody's slips.
const MANY_FAILURES: u64 = 5;

/// What the whole site needs.
async fn admin_needs(visitor: &Visitor) -> Result<Vec<Attention<'static>>, Problem> {
    let now = visitor.now();
    let expiring = visitor.app().expiring_tokens().await?;
    let mut needs: Vec<_> = expiring
        .iter()
        .map(|token| Attention {
            tone: if token.expires_at - now < 2 * DAY_S { Tone::Bad } else { Tone::Warning },
            kind: "Token",
            text: html! {
                "Token " b { (token.label) } " of " b { (token.account) } " expires " (web::ago(now, token.expires_at))
            },
            href: format!("/accounts/{}", token.account),
        })
        .collect();
    let request = ListAuditRequest {
        limit: Some(MAX_FAILURES),
        action: Some("login".to_owned()),
        outcome: Some("refused".to_owned()),
        since_ms: Some((now - DAY_S) * 1000),
        ..ListAuditRequest::default()
    };
    let found = visitor.calls.list_audit(request).await?;
    // A code that is asked for is a step of a login.
    let is_step = |entry: &&AuditEntry| entry.detail.starts_with("second-factor-required");
    let failed: u64 = found.entries.iter().filter(|entry| !is_step(entry)).map(times).sum();
    if failed >= MANY_FAILURES {
        let or_more = if found.next.is_some() { " or more" } else { "" };
        needs.push(Attention {
            tone: Tone::Warning,
            kind: "Logins",
            text: html! { b { (failed) (or_more) " failed logins" } " in the last 24 hours" },
            href: "/audit?action=login&outcome=refused&hours=24".to_owned(),
        });
    }
    Ok(needs)
}

const DAY_S: i64 = 24 * 3600;
const MAX_FAILURES: u32 = 100;

/// The roles of an account in words.
pub(super) fn role_names(account: &Account) -> String {
    let known = Role::ALL.into_iter().filter(|role| account.roles.iter().any(|word| word == role.as_str()));
    known.map(Role::title).collect::<Vec<_>>().join(", ")
}

/// What an account logs in with, as rows of a panel.
pub(super) fn method_items(account: &Account) -> Markup {
    let passkeys = match account.passkeys {
        0 => "No passkeys".to_owned(),
        some => count(some as usize, "passkey"),
    };
    html! {
        (web::item(Icon::PASSKEY, "Passkeys", html! { (passkeys) }, html! {}))
        (web::item(Icon::KEY, "Password", html! { (if account.has_password { "Set" } else { "Not set" }) }, html! {}))
        (web::item(Icon::PHONE, "Authenticator app", html! { (if account.has_totp { "On" } else { "Off" }) }, html! {}))
        @if account.has_totp {
            (web::item(Icon::LIST, "Recovery codes", html! { (account.recovery_codes) " left" }, html! {}))
        }
    }
}

pub(super) async fn security(visitor: Visitor) -> Answer {
    let me = visitor.calls.get_me(GetMeRequest {}).await?;
    let passkeys = visitor.calls.list_passkeys(ListPasskeysRequest {}).await?.passkeys;
    let csrf = visitor.csrf();
    let begin = |label| web::form("/security/totp/begin", &csrf, web::button(label, Action::Secondary));
    let app = if me.has_totp {
        let detail = html! { "On: login by password also requires a code" };
        html! {
            (web::item(Icon::PHONE, "Authenticator app", detail, html! {
                div.actions {
                    (begin("Move to new phone…"))
                    (web::link_button("/security/totp/remove", "Remove app…", Action::Risk))
                }
            }))
            (web::item(
                Icon::LIST,
                "Recovery codes",
                html! { (me.recovery_codes) " left. Each replaces a code of the app, once." },
                web::link_button("/security/recovery-codes", "Create recovery codes…", Action::Secondary),
            ))
        }
    } else {
        let detail = html! { "Off: with one, a stolen password is not enough to log in" };
        web::item(Icon::PHONE, "Authenticator app", detail, begin("Set up authenticator app…"))
    };
    let password = if me.has_password { "Change password" } else { "Set password" };
    let body = html! {
        (web::panel("Passkeys", "A passkey replaces password and code", html! {}, html! {
            @if passkeys.is_empty() {
                (web::empty_state("No passkeys yet", "Your device verifies you. Add one on each device that you use.", None))
            } @else {
                (passkey_table(visitor.now(), &passkeys))
            }
            (web::padded(add_passkey(&csrf)))
        }))
        (web::panel("Password and code", "", html! {}, html! {
            (web::item(
                Icon::KEY,
                "Password",
                html! { (if me.has_password { "Set" } else { "Not set" }) },
                web::link_button("/security/password", password, Action::Secondary),
            ))
            (app)
        }))
    };
    let change = |page| Page { layout: Layout::Text, lead: Some("What you log in with."), ..page };
    Ok(visitor.page_with(StatusCode::OK, change, "Sign-in methods", body))
}

fn passkey_table(now: i64, passkeys: &[Passkey]) -> Markup {
    let row = |passkey: &Passkey| {
        let href = format!("/security/passkeys/{}", passkey.id);
        vec![
            html! { a href=(href) { (passkey.label) } },
            web::ago(now, passkey.created_at),
            web::ago_or(now, passkey.last_used_at, "never"),
            html! { a.bare href=(href) { "Edit" span.hidden { " " (passkey.label) } } },
        ]
    };
    let rows: Vec<_> = passkeys.iter().map(row).collect();
    let columns =
        [Column::plain("Name"), Column::text("Added").third(), Column::text("Last used"), Column::action()];
    web::table("Your passkeys", &columns, &rows)
}

fn add_passkey(csrf: &str) -> Markup {
    let label = web::field(Field {
        hint: Some("For example the device that it is on."),
        value: "My device",
        ..Field::new("label", "Name of the new passkey", Kind::Text)
    });
    passkey_form("create", "/security/passkeys", csrf, label, ("Add passkey", Action::Primary))
}

/// Where password managers send people (W3C, A Well-Known URL for Changing Passwords).
pub(super) async fn where_to_change_password() -> Answer {
    Ok(web::redirect("/security/password"))
}

pub(super) async fn password(visitor: Visitor) -> Answer {
    password_page(&visitor, Shown::first()).await
}

async fn password_page(visitor: &Visitor, shown: Shown) -> Answer {
    let Shown { status, errors } = shown;
    let me = visitor.calls.get_me(GetMeRequest {}).await?;
    let hint = if me.has_totp {
        "At least 8 characters."
    } else {
        "At least 15 characters; 8 with an authenticator app."
    };
    let fields = html! {
        (username_for_managers(&me.name))
        @if me.has_password {
            (web::field(Field {
                autocomplete: Some("current-password"),
                autofocus: true,
                ..Field::new("current", "Current password", Kind::Password).error_from(&errors)
            }))
        }
        (web::field(Field {
            hint: Some(hint),
            autocomplete: Some("new-password"),
            autofocus: !me.has_password,
            ..Field::new("password", "New password", Kind::Password).error_from(&errors)
        }))
        (web::field(Field {
            autocomplete: Some("new-password"),
            ..Field::new("again", "Repeat new password", Kind::Password).error_from(&errors)
        }))
        p.hint { "Ends all your other sessions." }
        div.actions {
            (web::button(if me.has_password { "Change password" } else { "Set password" }, Action::Primary))
            (web::link_button("/security", "Cancel", Action::Secondary))
        }
    };
    let body = web::plain_panel(web::padded(web::form("/security/password", &visitor.csrf(), fields)));
    let change = |page| Page { layout: Layout::Text, crumbs: &SECURITY, errors: &errors, ..page };
    let title = if me.has_password { "Change password" } else { "Set password" };
    Ok(visitor.page_with(status, change, title, body))
}

#[derive(Deserialize)]
pub(super) struct NewPassword {
    current: Option<Secret>,
    password: Secret,
    again: Secret,
}

pub(super) async fn change_password(submission: Submission<NewPassword>) -> Answer {
    let show = async |visitor: &Visitor, _form: &NewPassword, shown| password_page(visitor, shown).await;
    let act = async |visitor: &Visitor, form: &NewPassword| {
        if form.password.expose() != form.again.expose() {
            return Err(differing_passwords());
        }
        let request = ChangePasswordRequest {
            current: form.current.as_ref().map(|current| current.expose().to_owned()),
            password: form.password.expose().to_owned(),
        };
        let ended = visitor.calls.change_password(request).await?.changed;
        let text = format!("Password changed. {} ended.", count(ended as usize, "other session"));
        Ok(visitor.done("/security", text))
    };
    submission.handle(&["current", "password", "again"], show, act).await
}

pub(super) async fn begin_totp(posted: Posted<NoFields>) -> Answer {
    let Posted { sender: visitor, form: NoFields {} } = posted;
    let is_move = visitor.calls.get_me(GetMeRequest {}).await?.has_totp;
    match visitor.calls.begin_totp(BeginTotpRequest {}).await {
        Ok(begun) => Ok(totp_page(&visitor, &begun, is_move, &Shown::first())),
        Err(problem) => Ok(visitor.failed("/security", &problem)),
    }
}

/// The page that sets up an authenticator app, or another one in the place of the first.
fn totp_page(visitor: &Visitor, begun: &TotpEnrolment, is_move: bool, shown: &Shown) -> Response {
    let code = qrcode::QrCode::new(begun.uri.as_bytes()).ok();
    let svg =
        code.map(|code| code.render::<qrcode::render::svg::Color<'_>>().min_dimensions(216, 216).build());
    let fields = html! {
        // Shown again if the code is wrong: it takes effect only once it is confirmed.
        input type="hidden" name="secret" value=(begun.secret);
        input type="hidden" name="uri" value=(begun.uri);
        @if is_move { input type="hidden" name="is_move" value="on"; }
        (web::field(Field {
            hint: Some("Six digits that the app shows now."),
            autocomplete: Some("one-time-code"),
            autofocus: true,
            ..Field::new("code", "Code", Kind::Code).error_from(&shown.errors)
        }))
        div.actions {
            (web::button("Confirm code", Action::Primary))
            (web::link_button("/security", "Cancel", Action::Secondary))
        }
    };
    let title = if is_move { "Move authenticator app" } else { "Set up authenticator app" };
    let body = web::plain_panel(web::padded(html! {
        @if is_move {
            p { "Scan this code with the app on the new phone. The app on the old phone works until you confirm." }
        } @else {
            p { "Scan this code with your authenticator app, or enter the secret." }
        }
        @if let Some(svg) = svg { (web::qr(&svg, "QR code for your authenticator app")) }
        (web::copy("totp-secret", "Secret", &begun.secret))
        (web::form("/security/totp/confirm", &visitor.csrf(), fields))
    }));
    let change = |page| Page { layout: Layout::Text, crumbs: &SECURITY, errors: &shown.errors, ..page };
    visitor.page_with(shown.status, change, title, body)
}

#[derive(Deserialize)]
pub(super) struct Confirmation {
    code: Secret,
    secret: String,
    uri: String,
    is_move: Option<String>,
}

pub(super) async fn confirm_totp(submission: Submission<Confirmation>) -> Answer {
    let show = async |visitor: &Visitor, form: &Confirmation, shown: Shown| {
        let begun = TotpEnrolment { secret: form.secret.clone(), uri: form.uri.clone() };
        Ok(totp_page(visitor, &begun, form.is_move.is_some(), &shown))
    };
    let act = async |visitor: &Visitor, form: &Confirmation| {
        let code = form.code.expose().chars().filter(|c| !c.is_whitespace()).collect();
        let codes = visitor.calls.confirm_totp(ConfirmTotpRequest { code }).await?.codes;
        let what = if form.is_move.is_some() {
            "Authenticator app moved: the old phone's codes and your previous recovery codes are invalid."
        } else {
            "Authenticator app set up."
        };
        Ok(codes_page(visitor, &codes, what))
    };
    submission.handle(&["code"], show, act).await
}

fn codes_page(visitor: &Visitor, codes: &[String], what: &str) -> Response {
    let what = format!(
        "{what} Each recovery code replaces a code of the app, once. Keep them where your phone is not."
    );
    let once = Once {
        label: "Recovery codes",
        text: &codes.join("\n"),
        what: &what,
        file: Some("recovery-codes.txt"),
        done: "/security",
    };
    let change = |page| Page { layout: Layout::Text, crumbs: &SECURITY, ..page };
    visitor.page_with(StatusCode::OK, change, "Recovery codes", web::once(once))
}

/// A page that asks for confirmation.
pub(super) fn ask(visitor: &Visitor, crumbs: &[(&str, &str)], title: &str, asked: &Confirm<'_>) -> Response {
    let body = web::confirm(&visitor.csrf(), asked);
    visitor.page_with(StatusCode::OK, |page| Page { layout: Layout::Text, crumbs, ..page }, title, body)
}

pub(super) async fn ask_remove_totp(visitor: Visitor) -> Answer {
    let me = visitor.calls.get_me(GetMeRequest {}).await?;
    let asked = Confirm {
        question: "Remove the authenticator app?",
        lost: &[vec!["Your password alone is then enough to log in".to_owned()], invalid_codes(&me)].concat(),
        rest: html! { "For a new phone, move the app instead: " a href="/security" { "Sign-in methods" } "." },
        fields: html! {},
        action: "/security/totp/remove",
        button: "Remove authenticator app",
        back: "/security",
    };
    Ok(ask(&visitor, &SECURITY, "Authenticator app", &asked))
}

/// What becomes of the recovery codes that are left, if any are.
fn invalid_codes(me: &Account) -> Vec<String> {
    let left = me.recovery_codes as usize;
    let text = || format!("Makes {} invalid", count(left, "recovery code"));
    (left > 0).then(text).into_iter().collect()
}

pub(super) async fn remove_totp(posted: Posted<NoFields>) -> Answer {
    let Posted { sender: visitor, form: NoFields {} } = posted;
    let removed = visitor.calls.remove_totp(RemoveTotpRequest {}).await;
    Ok(visitor.finish("/security", removed, "Authenticator app removed."))
}

pub(super) async fn ask_recovery_codes(visitor: Visitor) -> Answer {
    let me = visitor.calls.get_me(GetMeRequest {}).await?;
    let asked = Confirm {
        question: "Create new recovery codes?",
        lost: &invalid_codes(&me),
        rest: html! {},
        fields: html! {},
        action: "/security/recovery-codes",
        button: "Create recovery codes",
        back: "/security",
    };
    Ok(ask(&visitor, &SECURITY, "Recovery codes", &asked))
}

pub(super) async fn recovery_codes(posted: Posted<NoFields>) -> Answer {
    let Posted { sender: visitor, form: NoFields {} } = posted;
    match visitor.calls.replace_recovery_codes(ReplaceRecoveryCodesRequest {}).await {
        Ok(codes) => Ok(codes_page(&visitor, &codes.codes, "Your previous codes are invalid.")),
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
    passkey_page(&visitor, &id, None, Shown::first()).await
}

async fn passkey_page(visitor: &Visitor, id: &str, label: Option<&str>, shown: Shown) -> Answer {
    let Shown { status, errors } = shown;
    let found = visitor.calls.list_passkeys(ListPasskeysRequest {}).await?.passkeys;
    let found = found.into_iter().find(|passkey| passkey.id == id);
    let passkey = found.ok_or_else(|| Problem::not_found("You have no such passkey."))?;
    let csrf = visitor.csrf();
    let at = format!("/security/passkeys/{id}");
    let fields = html! {
        (web::field(Field {
            value: label.unwrap_or(&passkey.label),
            ..Field::new("label", "Name", Kind::Text).error_from(&errors)
        }))
        div.actions {
            (web::button("Rename passkey", Action::Primary))
            (web::link_button("/security", "Cancel", Action::Secondary))
        }
    };
    let remove = web::form(&format!("{at}/remove"), &csrf, web::button("Remove passkey", Action::Secondary));
    let body = html! {
        (web::plain_panel(web::padded(web::form(&at, &csrf, fields))))
        (web::plain_panel(web::item(
            Icon::PASSKEY,
            "Remove",
            html! { "You can no longer log in with this passkey. Remove it from the device as well." },
            remove,
        )))
    };
    let meta = vec![
        html! { "Added " (web::ago(visitor.now(), passkey.created_at)) },
        html! { "Last used " (web::ago_or(visitor.now(), passkey.last_used_at, "never")) },
    ];
    let change = |page| Page { layout: Layout::Text, crumbs: &SECURITY, meta, errors: &errors, ..page };
    Ok(visitor.page_with(status, change, &passkey.label, body))
}

#[derive(Deserialize)]
pub(super) struct Label {
    label: String,
}

pub(super) async fn rename_passkey(Path(id): Path<String>, submission: Submission<Label>) -> Answer {
    let show = async |visitor: &Visitor, form: &Label, shown| {
        passkey_page(visitor, &id, Some(&form.label), shown).await
    };
    let act = async |visitor: &Visitor, form: &Label| {
        let request = RenamePasskeyRequest { id: id.clone(), label: form.label.clone() };
        visitor.calls.rename_passkey(request).await?;
        Ok(visitor.done("/security", "Passkey renamed."))
    };
    submission.handle(&["label"], show, act).await
}

pub(super) async fn remove_passkey(Path(id): Path<String>, posted: Posted<NoFields>) -> Answer {
    let Posted { sender: visitor, form: NoFields {} } = posted;
    let removed = visitor.calls.remove_passkey(RemovePasskeyRequest { id }).await;
    Ok(visitor.finish("/security", removed, "Passkey removed."))
}

pub(super) async fn sessions(visitor: Visitor) -> Answer {
    let found = visitor.calls.list_sessions(ListSessionsRequest {}).await?.sessions;
    let csrf = visitor.csrf();
    let body = web::plain_panel(html! {
        (session_table(visitor.now(), "Sessions", &found, "/sessions", &csrf))
        (web::pager(&format!("{} active", found.len()), &[]))
    });
    let actions = if found.len() > 1 {
        web::form("/sessions/end-others", &csrf, web::button("End other sessions", Action::Secondary))
    } else {
        html! {}
    };
    let lead = Some(
        "Where you are logged in: in browsers, by mciasctl, and through services. End sessions that you do not recognise, and change your password.",
    );
    Ok(visitor.page_with(StatusCode::OK, |page| Page { lead, actions, ..page }, "Sessions", body))
}

/// Active sessions, each with a form below `at` that ends it.
pub(super) fn session_table(now: i64, caption: &str, found: &[Session], at: &str, csrf: &str) -> Markup {
    let end = |session: &Session| {
        if session.current {
            return html! { span.muted { "Current" } };
        }
        let label = html! { "End" span.hidden { " session from " (session.source) } };
        let action = format!("{at}/{}/end", session.id);
        web::form(&action, csrf, html! { button.bare type="submit" { (label) } })
    };
    let row = |session: &Session| {
        vec![
            html! {
                @if session.device.is_empty() { "Unknown device" } @else { (session.device) }
                small.mono { (session.source) }
            },
            html! { (session.service) },
            html! { (method_name(&session.method)) },
            web::ago(now, session.created_at),
            // This page is the latest use of the current one, which is recorded from time to time.
            if session.current {
                html! { "now" }
            } else {
                web::ago_or(now, session.last_used_at, "")
            },
            web::ago(now, session.expires_at),
            end(session),
        ]
    };
    let rows: Vec<_> = found.iter().map(row).collect();
    let columns = [
        Column::plain("Device"),
        Column::plain("Service"),
        Column::plain("Method").third(),
        Column::text("Started").fourth(),
        Column::text("Last active").third(),
        Column::text("Expires"),
        Column::action(),
    ];
    web::table(caption, &columns, &rows)
}

fn method_name(method: &str) -> &str {
    match method {
        "password" => "Password",
        "password+totp" => "Password + code",
        "password+recovery" => "Password + recovery code",
        "passkey" => "Passkey",
        other => other,
    }
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
pub(super) fn once(visitor: &Visitor, crumbs: &[(&str, &str)], title: &str, once: Once<'_>) -> Response {
    let change = |page| Page { layout: Layout::Text, crumbs, ..page };
    visitor.page_with(StatusCode::OK, change, title, web::once(once))
}
