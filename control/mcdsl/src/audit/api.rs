//! What every service answers about its audit log: a list, an export and a verification.

use std::sync::Arc;

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use futures_util::TryStreamExt as _;
use futures_util::stream::{BoxStream, StreamExt as _, iter, try_unfold};
use mc_api::audit::{
    AuditEntry, ExportAuditRequest, ListAuditRequest, ListAuditResponse, VerifyAuditRequest,
    VerifyAuditResponse,
};
use rusqlite::Connection;

use super::chain::{Broken, Checkpoint, Entry, Hash};
use super::store::{self, Filter};
use super::{AuditedDatabase, Outcome};
use crate::permit::Permit;
use crate::problem::Problem;

/// Entries of a page of an export.
const EXPORT_PAGE: u32 = 1000;

impl AuditedDatabase {
    /// Lists entries, newest first.
    ///
    /// # Errors
    /// A filter is malformed, or the database fails.
    pub async fn list(
        &self,
        _permit: Permit,
        request: ListAuditRequest,
    ) -> Result<ListAuditResponse, Problem> {
        let limit = match request.limit.unwrap_or(100) {
            limit @ 1..=1000 => limit,
            other => {
                return Err(Problem::field("limit", format!("{other} is out of range; expected 1 to 1000")));
            }
        };
        let wrong = |_| Problem::field("before", "is not a cursor: send `next` of the page before");
        let before = request.before.as_deref().map(str::parse::<i64>).transpose().map_err(wrong)?;
        let filter = Filter {
            account: request.account,
            action: request.action,
            outcome: outcome(request.outcome)?,
            target: request.target,
            since_ms: request.since_ms,
            until_ms: request.until_ms,
        };
        // One more than asked for: so it is known whether there is another page.
        let mut found =
            self.read(move |db| store::list(db, before.unwrap_or(i64::MAX), &filter, limit + 1)).await?;
        let more = found.len() > limit as usize;
        found.truncate(limit as usize);
        let next = found.last().filter(|_| more).map(|(entry, _)| entry.number.to_string());
        Ok(ListAuditResponse { entries: found.into_iter().map(message).collect(), next })
    }

    /// Exports entries, oldest first, a page at a time: the log may be larger than the memory.
    ///
    /// # Errors
    /// A filter is malformed.
    pub fn export(
        self: &Arc<Self>,
        _permit: Permit,
        request: ExportAuditRequest,
    ) -> Result<BoxStream<'static, Result<AuditEntry, Problem>>, Problem> {
        let filter = Arc::new(Filter {
            account: request.account,
            action: request.action,
            outcome: outcome(request.outcome)?,
            target: request.target,
            since_ms: request.since_ms,
            until_ms: request.until_ms,
        });
        let database = Arc::clone(self);
        let pages = try_unfold(request.after.unwrap_or(0), move |after| {
            let (database, filter) = (Arc::clone(&database), Arc::clone(&filter));
            async move {
                let page = database.read(move |db| store::after(db, after, &filter, EXPORT_PAGE)).await?;
                Ok::<_, Problem>(page.last().map(|(entry, _)| entry.number).map(|last| (page, last)))
            }
        });
        Ok(pages.map_ok(|page| iter(page.into_iter().map(|entry| Ok(message(entry))))).try_flatten().boxed())
    }

    /// Verifies a slice of the chain, from its beginning or from a checkpoint.
    ///
    /// # Errors
    /// The checkpoint is malformed, or the database fails.
    pub async fn verify(
        &self,
        _permit: Permit,
        request: VerifyAuditRequest,
    ) -> Result<VerifyAuditResponse, Problem> {
        let limit = match request.limit.unwrap_or(100_000) {
            limit @ 1..=1_000_000 => limit,
            other => {
                return Err(Problem::field(
                    "limit",
                    format!("{other} is out of range; expected 1 to 1000000"),
                ));
            }
        };
        let from = checkpoint(request.after_entry, request.after_hash.as_deref())?;
        let (reached, complete, broken) = self.read(move |db| verify(db, from, limit)).await?;
        Ok(VerifyAuditResponse {
            intact: broken.is_none(),
            complete,
            last_entry: reached.number,
            last_hash: HEXLOWER.encode(&reached.hash),
            problem: broken.map(|broken| broken.to_string()),
        })
    }
}

/// How far the chain is whole, whether that is its end, and where it is broken.
fn verify(
    db: &Connection,
    from: Checkpoint,
    limit: u32,
) -> rusqlite::Result<(Checkpoint, bool, Option<Broken>)> {
    if from != Checkpoint::FIRST && store::hash_of(db, from.number)? != Some(from.hash) {
        return Ok((from, false, Some(Broken::Checkpoint { number: from.number })));
    }
    let mut reached = from;
    let mut broken = None;
    let seen = store::each(db, from.number, limit, |entry, hash| {
        broken = reached.next(entry, hash).err();
        broken.is_none()
    })?;
    let complete = broken.is_none() && seen < limit;
    Ok((reached, complete, broken))
}

fn checkpoint(entry: Option<i64>, hash: Option<&str>) -> Result<Checkpoint, Problem> {
    match (entry, hash) {
        (None | Some(0), None) => Ok(Checkpoint::FIRST),
        (Some(number), Some(text)) if number > 0 => {
            let bytes = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok();
            let hash = bytes.and_then(|bytes| Hash::try_from(bytes).ok());
            let wrong =
                || Problem::field("after_hash", "is not a SHA-256 in hexadecimal: expected 64 digits");
            Ok(Checkpoint { number, hash: hash.ok_or_else(wrong)? })
        }
        (Some(number), Some(_)) => Err(Problem::field(
            "after_entry",
            format!("{number} is not an entry's number; expected 1 or more"),
        )),
        (Some(_), None) => {
            Err(Problem::field("after_hash", "is missing: a checkpoint has a number and a hash"))
        }
        (None, Some(_)) => {
            Err(Problem::field("after_entry", "is missing: a checkpoint has a number and a hash"))
        }
    }
}

fn outcome(word: Option<String>) -> Result<Option<Outcome>, Problem> {
    let known = |word: String| {
        let found = [Outcome::Done, Outcome::Refused].into_iter().find(|known| known.as_str() == word);
        let wrong =
            || Problem::field("outcome", format!("`{word}` is not an outcome; expected `done` or `refused`"));
        found.ok_or_else(wrong)
    };
    word.map(known).transpose()
}

fn message((entry, hash): (Entry, Hash)) -> AuditEntry {
    AuditEntry {
        number: entry.number,
        at_ms: entry.at_ms,
        actor: entry.actor,
        action: entry.action,
        target: entry.target,
        outcome: entry.outcome,
        detail: entry.detail,
        source: entry.source,
        service: entry.service,
        request_id: entry.request_id,
        hash: HEXLOWER.encode(&hash),
    }
}
