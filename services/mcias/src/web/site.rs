//! Pages for admins: the audit log and the signing keys.

use axum::http::StatusCode;
use maud::{Markup, html};
use mc_api::audit::{AuditEntry, ListAuditRequest, VerifyAuditRequest, VerifyAuditResponse};
use mc_api::mcias::{Key, ListKeysRequest, RotateKeysRequest, WithdrawKeyRequest};
use mcdsl::http::{Path, Query};
use mcdsl::problem::Problem;
use mcdsl::web::session::NoFields;
use mcdsl::web::{self, Action, Field, Kind, Page, Tone};
use serde::Deserialize;

use super::own::ask;
use super::visitor::{Posted, Visitor};
use super::{Answer, when};

#[derive(Debug, Default, Deserialize)]
pub(super) struct Search {
    #[serde(default)]
    account: String,
    before: Option<String>,
}

pub(super) async fn audit(visitor: Visitor, Query(search): Query<Search>) -> Answer {
    audit_page(&visitor, &search, None).await
}

async fn audit_page(visitor: &Visitor, search: &Search, verdict: Option<&VerifyAuditResponse>) -> Answer {
    let account = Some(search.account.trim().to_owned()).filter(|account| !account.is_empty());
    let request = ListAuditRequest {
        limit: Some(50),
        before: search.before.clone(),
        account,
        ..ListAuditRequest::default()
    };
    let found = visitor.calls.list_audit(request).await?;
    let at = |before: Option<String>| {
        let mut pairs = vec![("account", search.account.as_str())];
        pairs.extend(before.as_deref().map(|before| ("before", before)));
        format!("/audit?{}", serde_urlencoded::to_string(pairs).expect("pairs of texts can be written"))
    };
    let next = found.next.map(|next| at(Some(next)));
    let first = search.before.as_ref().map(|_| at(None));
    let rows: Vec<_> = found.entries.iter().map(row).collect();
    let csrf = visitor.csrf();
    let body = html! {
        @if let Some(verdict) = verdict { (verdict_notice(verdict)) }
        (web::search_form("/audit", html! {
            (web::field(Field { value: &search.account, required: false, ..Field::new("account", "Account", Kind::Text) }))
            (web::button("Search", Action::Secondary))
        }))
        (web::table("Audit log entries, newest first", &["Entry", "Time", "Account", "Action", "Target", "Result", "Source", "Detail"], &rows))
        (web::pagination(first.as_deref(), next.as_deref()))
        (web::card("Verification", html! {
            p { "Each entry contains the hash of the previous one, so a later change is detected." }
            (web::form("/audit/verify", &csrf, web::button("Verify now", Action::Secondary)))
        }))
    };
    Ok(visitor.page_with(StatusCode::OK, |page| page, "Audit log", body))
}

fn row(entry: &AuditEntry) -> Vec<Markup> {
    let result = match entry.outcome.as_str() {
        "done" => html! { "Done" },
        _ if entry.action == "login" => web::badge("Failed", Tone::Bad),
        _ => web::badge("Denied", Tone::Bad),
    };
    vec![
        html! { (entry.number) },
        when(entry.at_ms.div_euclid(1000)),
        html! { (entry.actor) },
        html! { (entry.action) },
        html! { (entry.target) },
        result,
        html! { (entry.source) },
        html! { (detail(&entry.detail)) },
    ]
}

/// The detail of an entry: reasons, which are words for programs, as sentences.
fn detail(text: &str) -> &str {
    match text {
        "wrong-login" => "Wrong username, password or passkey",
        "wrong-password" => "Wrong password",
        "wrong-code" => "Wrong code",
        "used-code" => "Code already used",
        "second-factor-required" => "Code missing",
        "fresh-login-required" => "Recent login required",
        "forged-form" => "Form not from this site",
        "forbidden" => "Not permitted",
        "denied-by-policy" => "Denied by the login policy",
        "too-many-attempts" => "Too many attempts",
        text => text,
    }
}

fn verdict_notice(verdict: &VerifyAuditResponse) -> Markup {
    match &verdict.problem {
        None => web::notice(
            Tone::Good,
            html! { p { strong { "Chain verified to #" (verdict.last_entry) ". " } "Store the last hash elsewhere: " code { (verdict.last_hash) } } },
        ),
        Some(problem) => web::notice(Tone::Bad, html! { p { strong { "Chain broken. " } (problem) } }),
    }
}

pub(super) async fn verify(posted: Posted<NoFields>) -> Answer {
    let Posted { sender: visitor, form: NoFields {} } = posted;
    let verdict = visitor.calls.verify_audit(VerifyAuditRequest::default()).await?;
    audit_page(&visitor, &Search::default(), Some(&verdict)).await
}

pub(super) async fn keys(visitor: Visitor) -> Answer {
    let keys = visitor.calls.list_keys(ListKeysRequest {}).await?.keys;
    let row = |key: &Key| {
        let state =
            if key.signing { web::badge("Signing", Tone::Good) } else { web::badge("Published", Tone::Info) };
        vec![
            html! { code title=(key.id) { (short(&key.id)) } },
            state,
            when(key.active_from),
            when(key.verify_until),
            web::link_button(&format!("/keys/{}/withdraw", key.id), "Withdraw key…", Action::Danger),
        ]
    };
    let rows: Vec<_> = keys.iter().map(row).collect();
    let rotate = web::form("/keys", &visitor.csrf(), web::button("Rotate key", Action::Primary));
    let overlap = visitor.app().config().tokens.key_overlap_s;
    let body = html! {
        (web::table("Signing keys", &["Key", "State", "Signing since", "Kept until", ""], &rows))
        (web::card("Rotation", html! {
            p {
                "A new key is published at once and signs after " (overlap / 60) " minutes, when all services have fetched it. The old key is kept "
                "for the tokens that it signed."
            }
            (rotate)
        }))
    };
    let lead = Some("Keys that sign tokens, and that services verify them with.");
    Ok(visitor.page_with(StatusCode::OK, |page| Page { lead, ..page }, "Signing keys", body))
}

/// The beginning of a key's id.
fn short(id: &str) -> String {
    let begin: String = id.chars().take(10).collect();
    format!("{begin}…")
}

pub(super) async fn rotate(posted: Posted<NoFields>) -> Answer {
    let Posted { sender: visitor, form: NoFields {} } = posted;
    let rotated = visitor.calls.rotate_keys(RotateKeysRequest {}).await;
    Ok(visitor.finish("/keys", rotated, "Key rotated."))
}

pub(super) async fn ask_withdraw(visitor: Visitor, Path(id): Path<String>) -> Answer {
    // Checks the visitor's role, and that the key exists.
    let keys = visitor.calls.list_keys(ListKeysRequest {}).await?.keys;
    let key =
        keys.iter().find(|key| key.id == id).ok_or_else(|| Problem::not_found("There is no such key."))?;
    let what = "For a key that others may have. Ends all that it signed at once: sessions, yours among them, and tokens of \
                services, which need new ones. This cannot be undone.";
    let at = format!("/keys/{}/withdraw", key.id);
    Ok(ask(&visitor, &format!("Withdraw the key {}?", short(&key.id)), &at, what, "Withdraw key", "/keys"))
}

pub(super) async fn withdraw(Path(id): Path<String>, posted: Posted<NoFields>) -> Answer {
    let Posted { sender: visitor, form: NoFields {} } = posted;
    let withdrawn = visitor.calls.withdraw_key(WithdrawKeyRequest { id }).await;
    Ok(visitor.finish("/keys", withdrawn, "Key withdrawn."))
}
