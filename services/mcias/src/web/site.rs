//! Pages for admins: the audit log and the signing keys.

use axum::http::StatusCode;
use maud::html;
use mc_api::audit::VerifyAuditResponse;
use mc_api::mcias::{Key, ListKeysRequest, RotateKeysRequest, WithdrawKeyRequest};
use mcdsl::http::{Path, Query};
use mcdsl::problem::Problem;
use mcdsl::web::audit::{self, Search, Verification};
use mcdsl::web::session::NoFields;
use mcdsl::web::{self, Action, Column, Confirm, Page, Tone};

use super::Answer;
use super::own::ask;
use super::visitor::{Posted, Visitor};
use super::words::WORDS;

pub(super) async fn audit(visitor: Visitor, Query(search): Query<Search>) -> Answer {
    audit_page(&visitor, &search, None).await
}

async fn audit_page(visitor: &Visitor, search: &Search, verdict: Option<&VerifyAuditResponse>) -> Answer {
    let (now, csrf) = (visitor.now(), visitor.csrf());
    let found = visitor.calls.list_audit(search.request(now)).await?;
    let body = audit::page(("/audit", "/audit/verify", &csrf), now, &WORDS, search, &found, verdict);
    let actions = audit::verify_button("/audit/verify", &csrf);
    let lead =
        Some("Who did what. Each entry holds the hash of the one before, so that a later change is seen.");
    Ok(visitor.page_with(StatusCode::OK, |page| Page { actions, lead, ..page }, "Audit log", body))
}

pub(super) async fn verify(posted: Posted<Verification>) -> Answer {
    let Posted { sender: visitor, form } = posted;
    let verdict = visitor.calls.verify_audit(form.into()).await?;
    audit_page(&visitor, &Search::default(), Some(&verdict)).await
}

pub(super) async fn keys(visitor: Visitor) -> Answer {
    let keys = visitor.calls.list_keys(ListKeysRequest {}).await?.keys;
    let now = visitor.now();
    let row = |key: &Key| {
        let state = if key.signing {
            web::state(Tone::Good, "Signing")
        } else if key.active_from > now {
            web::state(Tone::Info, "Signs soon")
        } else {
            web::state(Tone::Neutral, "Kept to verify")
        };
        let withdraw = format!("/keys/{}/withdraw", key.id);
        vec![
            html! { code title=(key.id) { (short(&key.id)) } },
            web::ago(now, key.active_from),
            web::ago(now, key.verify_until),
            state,
            html! { a.bare href=(withdraw) { "Withdraw…" span.hidden { " key " (short(&key.id)) } } },
        ]
    };
    let rows: Vec<_> = keys.iter().map(row).collect();
    let columns = [
        Column::plain("Key"),
        Column::text("Signing since"),
        Column::text("Kept until"),
        Column::state("State"),
        Column::action(),
    ];
    let body = web::plain_panel(web::table("Signing keys", &columns, &rows));
    let minutes = visitor.app().config().tokens.key_overlap_s / 60;
    let lead = format!("A new key signs after {minutes} minutes; the old one stays until its tokens expire.");
    let actions = web::form("/keys", &visitor.csrf(), web::button("Rotate key", Action::Primary));
    let change = |page| Page { lead: Some(&lead), actions, ..page };
    Ok(visitor.page_with(StatusCode::OK, change, "Signing keys", body))
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
    let asked = Confirm {
        question: &format!("Withdraw key {}?", short(&key.id)),
        lost: &[
            "All sessions that it signed end at once, yours among them".to_owned(),
            "Services whose tokens it signed are locked out until they get new ones".to_owned(),
        ],
        rest: html! { "For a key that others may have. It cannot be undone; to replace a key that nobody else has, rotate it instead." },
        fields: html! {},
        action: &format!("/keys/{}/withdraw", key.id),
        button: "Withdraw key",
        back: "/keys",
    };
    Ok(ask(&visitor, &[("Signing keys", "/keys")], &short(&key.id), &asked))
}

pub(super) async fn withdraw(Path(id): Path<String>, posted: Posted<NoFields>) -> Answer {
    let Posted { sender: visitor, form: NoFields {} } = posted;
    let withdrawn = visitor.calls.withdraw_key(WithdrawKeyRequest { id }).await;
    Ok(visitor.finish("/keys", withdrawn, "Key withdrawn."))
}
