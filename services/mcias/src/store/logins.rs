//! Logins, as the audit log has them.

use rusqlite::{Connection, Result, params};

use super::accounts::name;
use crate::domain::Name;

/// Logins since a time in milliseconds: account, service, and how often. Of the newest million entries of the log, so that it takes
/// a second at most.
///
/// # Errors
/// Returns an error if the database fails.
pub fn since(db: &Connection, since_ms: i64) -> Result<Vec<(Name, String, u32)>> {
    let mut select = db.prepare_cached(
        "SELECT actor, service, count(*) FROM audit
         WHERE number > (SELECT coalesce(max(number), 0) FROM audit) - 1000000
         AND action = 'login' AND outcome = 'done' AND at_ms >= ?1 GROUP BY actor, service",
    )?;
    select.query_map(params![since_ms], |row| Ok((name(row, 0)?, row.get(1)?, row.get(2)?)))?.collect()
}
