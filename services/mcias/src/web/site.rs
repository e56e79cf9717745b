//! Pages for admins: the audit log and the signing keys.

use axum::http::StatusCode;
use maud::{Markup, html};
use mc_api::audit::{AuditEntry, ListAuditRequest, VerifyAuditRequest, VerifyAuditResponse};
use mc_api::mcias::{Key, ListKeysRequest, RotateKeysRequest, WithdrawKeyRequest};
use mcdsl::http::{Path, Query};
use mcdsl::problem::Problem;
use mcdsl::web::{self, Action, Field, Kind, Page, Tone};
use serde::Deserialize;

use super::login::Nothing;
use super::own::ask;
use super::visit::{Answer, Posted, Visitor};
use super::when;

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
    let first = search.before.as_ref().map(|_before| at(None));
    let rows: Vec<_> = found.entries.iter().map(row).collect();
    let csrf = visitor.csrf();
    let body = html! {
        @if let Some(verdict) = verdict { (told(verdict)) }
        (web::search_form("/audit", html! {
            (web::field(Field { value: &search.account, required: false, ..Field::new("account", "Account", Kind::Text) }))
            (web::button("Search", Action::Secondary))
        }))
        (web::table("Entries, the newest first", &["No.", "At", "Who", "Did", "To", "Outcome", "From", "Detail"], &rows))
        (web::pagination(first.as_deref(), next.as_deref()))
        (web::card("Is it intact?", html! {
            p { "Each entry holds the hash of the one before: what was changed afterwards is found." }
            (web::form("/audit/verify", &csrf, web::button("Check all entries", Action::Secondary)))
        }))
    };
    Ok(visitor.page_with(StatusCode::OK, |page| page, "Audit log", body))
}

fn row(entry: &AuditEntry) -> Vec<Markup> {
    let tone = if entry.outcome == "done" { Tone::Good } else { Tone::Bad };
    vec![
        html! { (entry.number) },
        when(entry.at_ms.div_euclid(1000)),
        html! { (entry.actor) },
        html! { (entry.action) },
        html! { (entry.target) },
        web::badge(&entry.outcome, tone),
        html! { (entry.source) },
        html! { (entry.detail) },
    ]
}

fn told(verdict: &VerifyAuditResponse) -> Markup {
    match &verdict.problem {
        None => web::notice(
            Tone::Good,
            html! { p { strong { "Intact. " } (verdict.last_entry) " entries. Note the last hash elsewhere: " code { (verdict.last_hash) } } },
        ),
        Some(problem) => web::notice(Tone::Bad, html! { p { strong { "Not intact. " } (problem) } }),
    }
}

pub(super) async fn verify(posted: Posted<Nothing>) -> Answer {
    let Posted { visitor, form: Nothing {} } = posted;
    let verdict = visitor.calls.verify_audit(VerifyAuditRequest::default()).await?;
    audit_page(&visitor, &Search::default(), Some(&verdict)).await
}

pub(super) async fn keys(visitor: Visitor) -> Answer {
    let keys = visitor.calls.list_keys(ListKeysRequest {}).await?.keys;
    let row = |key: &Key| {
        let state =
            if key.signing { web::badge("Signs", Tone::Good) } else { web::badge("Published", Tone::Info) };
        vec![
            html! { code title=(key.id) { (short(&key.id)) } },
            state,
            when(key.active_from),
            when(key.verify_until),
            web::link_button(&format!("/keys/{}/withdraw", key.id), "Withdraw", Action::Danger),
        ]
    };
    let rows: Vec<_> = keys.iter().map(row).collect();
    let rotate = web::form("/keys", &visitor.csrf(), web::button("Make a new key", Action::Primary));
    let overlap = visitor.app().config().tokens.key_overlap_s;
    let body = html! {
        (web::table("Signing keys", &["Id", "State", "Signs from", "Needed until", ""], &rows))
        (web::card("Rotation", html! {
            p {
                "A new key is published at once and signs after " (overlap / 60) " minutes, so that everybody had time to fetch it. The old one stays "
                "for the tokens that it has signed."
            }
            (rotate)
        }))
    };
    let lead = Some("What tokens are signed with, and what others check them by.");
    Ok(visitor.page_with(StatusCode::OK, |page| Page { lead, ..page }, "Signing keys", body))
}

/// The beginning of a key's id, which tells it from the others.
fn short(id: &str) -> String {
    let begin: String = id.chars().take(10).collect();
    format!("{begin}…")
}

pub(super) async fn rotate(posted: Posted<Nothing>) -> Answer {
    let Posted { visitor, form: Nothing {} } = posted;
    let rotated = visitor.calls.rotate_keys(RotateKeysRequest {}).await;
    visitor.told("/keys", rotated, "There is a new key.")
}

pub(super) async fn ask_withdraw(visitor: Visitor, Path(id): Path<String>) -> Answer {
    // The page is for admins, and its address for keys that there are.
    let keys = visitor.calls.list_keys(ListKeysRequest {}).await?.keys;
    let key =
        keys.iter().find(|key| key.id == id).ok_or_else(|| Problem::not_found("there is no such key"))?;
    let what = "For a key that others may have. All that it signed has ended at once: sessions, yours among them, and tokens of \
                services, which need new ones. This cannot be undone.";
    let at = format!("/keys/{}/withdraw", key.id);
    Ok(ask(&visitor, &format!("Withdraw the key {}?", short(&key.id)), &at, what, "Withdraw it", "/keys"))
}

pub(super) async fn withdraw(Path(id): Path<String>, posted: Posted<Nothing>) -> Answer {
    let Posted { visitor, form: Nothing {} } = posted;
    let withdrawn = visitor.calls.withdraw_key(WithdrawKeyRequest { id }).await;
    visitor.told("/keys", withdrawn, "The key is withdrawn.")
}
