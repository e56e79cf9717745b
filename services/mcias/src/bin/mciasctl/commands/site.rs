//! The audit log, and the keys that tokens are signed with.

use mc_api::audit::{AuditEntry, ListAuditRequest, VerifyAuditRequest};
use mc_api::mcias::{Key as Message, ListKeysRequest, RotateKeysRequest, WithdrawKeyRequest};

use serde_json::json;

use super::{Session, when};
use crate::cli::{Audit, Key};
use crate::error::Error;

/// Entries of one answer.
const PAGE: u32 = 1000;

pub(super) async fn audit(session: &mut Session<'_>, command: Audit) -> Result<(), Error> {
    match command {
        Audit::List { account, last } => list(session, account, last).await,
        Audit::Verify { known: _ } => {
            let verdict =
                session.client.audit.verify_audit(VerifyAuditRequest::default()).await?.into_inner();
            let lines = [
                ("intact", if verdict.intact { "yes" } else { "no" }.to_owned()),
                ("entries", verdict.last_entry.to_string()),
                ("last hash", verdict.last_hash.clone()),
            ];
            session.printer.record(&verdict, &lines)?;
            verdict.problem.map_or(Ok(()), |problem| Err(Error::Broken(problem)))
        }
    }
}

async fn list(session: &mut Session<'_>, account: Option<String>, last: u32) -> Result<(), Error> {
    let mut found: Vec<AuditEntry> = Vec::new();
    let mut before = None;
    loop {
        let left = last.saturating_sub(u32::try_from(found.len()).unwrap_or(u32::MAX));
        if left == 0 {
            break;
        }
        let request = ListAuditRequest {
            limit: Some(left.min(PAGE)),
            before,
            account: account.clone(),
            ..ListAuditRequest::default()
        };
        let page = session.client.audit.list_audit(request).await?.into_inner();
        found.extend(page.entries);
        before = page.next;
        if before.is_none() {
            break;
        }
    }
    let row = |entry: &AuditEntry| {
        [
            entry.number.to_string(),
            when(entry.at_ms.div_euclid(1000)),
            entry.actor.clone(),
            entry.action.clone(),
            entry.target.clone(),
            entry.outcome.clone(),
            entry.source.clone(),
            entry.service.clone(),
            entry.detail.clone(),
        ]
    };
    let head = ["NUMBER", "AT", "WHO", "DID", "TO", "OUTCOME", "FROM", "THROUGH", "DETAIL"];
    Ok(session.printer.rows(&found, head, row)?)
}

pub(super) async fn key(session: &mut Session<'_>, command: Key) -> Result<(), Error> {
    let keys = match command {
        Key::List => session.client.keys.list_keys(ListKeysRequest {}).await?,
        Key::Withdraw { id } => {
            let what = "Withdraw this key? All that it signed has ended then: sessions, yours among them, and services' tokens";
            session.sure(what)?;
            let changed = session.client.keys.withdraw_key(WithdrawKeyRequest { id }).await?.into_inner();
            let ended = changed.changed;
            let text = || format!("the key is withdrawn; {ended} sessions and tokens have ended\n");
            return Ok(session.printer.print(|| json!({ "ended": ended }), text)?);
        }
        Key::Rotate => session.client.keys.rotate_keys(RotateKeysRequest {}).await?,
    };
    let row = |key: &Message| {
        [
            key.id.clone(),
            if key.signing { "yes" } else { "no" }.to_owned(),
            when(key.created_at),
            when(key.active_from),
            when(key.verify_until),
        ]
    };
    let keys = keys.into_inner().keys;
    Ok(session.printer.rows(&keys, ["ID", "SIGNS", "MADE", "SIGNS FROM", "NEEDED UNTIL"], row)?)
}
