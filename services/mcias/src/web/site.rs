//! Pages for admins: the audit log and the signing keys.

use axum::http::StatusCode;
use maud::html;
use mc_api::audit::VerifyAuditResponse;
use mc_api::mcias::{Key, ListKeysRequest, RotateKeysRequest, WithdrawKeyRequest};
use mcdsl::audit::page::{self as audit, Search, Verification};
use mcdsl::http::{Path, Query};
use mcdsl::problem::Problem;
use mcdsl::web::session::NoFields;
use mcdsl::web::{self, Action, Page, Tone};

use super::Answer;
use super::own::ask;
use super::visitor::{Posted, Visitor};

pub(super) async fn audit(visitor: Visitor, Query(search): Query<Search>) -> Answer {
    audit_page(&visitor, &search, None).await
}

async fn audit_page(visitor: &Visitor, search: &Search, verdict: Option<&VerifyAuditResponse>) -> Answer {
    let found = visitor.calls.list_audit(search.request()).await?;
    let body = audit::page("/audit", "/audit/verify", &visitor.csrf(), search, found, verdict);
    Ok(visitor.page("Audit log", body))
}

pub(super) async fn verify(posted: Posted<Verification>) -> Answer {
    let Posted { sender: visitor, form } = posted;
    let verdict = visitor.calls.verify_audit(form.into()).await?;
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
            web::when(key.active_from),
            web::when(key.verify_until),
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
