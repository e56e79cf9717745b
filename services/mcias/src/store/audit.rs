//! The audit log: each entry is chained to the one before.

use rusqlite::{Connection, OptionalExtension as _, Result, Row, params};

use crate::domain::audit::{Entry, Hash, START, chain};

/// Appends an entry: its number is set here.
///
/// # Errors
/// The database's.
pub fn append(db: &Connection, mut entry: Entry) -> Result<()> {
    let mut last = db.prepare_cached("SELECT number, hash FROM audit ORDER BY number DESC LIMIT 1")?;
    let last = last.query_row([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Hash>(1)?))).optional()?;
    let (number, before) = last.unwrap_or((0, START));
    entry.number = number + 1;
    let hash = chain(&before, &entry);
    let mut insert =
        db.prepare_cached("INSERT INTO audit VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)")?;
    insert
        .execute(params![
            entry.number,
            entry.at_ms,
            entry.actor,
            entry.action,
            entry.target,
            entry.outcome,
            entry.detail,
            entry.source,
            entry.service,
            entry.request_id,
            hash
        ])
        .map(drop)
}

const COLUMNS: &str =
    "number, at_ms, actor, action, target, outcome, detail, source, service, request_id, hash";

fn read(row: &Row<'_>) -> Result<(Entry, Hash)> {
    let entry = Entry {
        number: row.get(0)?,
        at_ms: row.get(1)?,
        actor: row.get(2)?,
        action: row.get(3)?,
        target: row.get(4)?,
        outcome: row.get(5)?,
        detail: row.get(6)?,
        source: row.get(7)?,
        service: row.get(8)?,
        request_id: row.get(9)?,
    };
    Ok((entry, row.get(10)?))
}

/// The newest first: those before `before`, of what `account` did or what was done to it where one is given.
///
/// # Errors
/// The database's.
pub fn list(db: &Connection, before: i64, account: Option<&str>, limit: u32) -> Result<Vec<(Entry, Hash)>> {
    match account {
        None => {
            let select =
                format!("SELECT {COLUMNS} FROM audit WHERE number < ?1 ORDER BY number DESC LIMIT ?2");
            db.prepare_cached(&select)?.query_map(params![before, limit], read)?.collect()
        }
        // Each half by its index: an OR would read everything.
        Some(account) => {
            let half = |column: &str| {
                format!(
                    "SELECT * FROM (SELECT {COLUMNS} FROM audit WHERE {column} = ?2 AND number < ?1
                     ORDER BY number DESC LIMIT ?3)"
                )
            };
            let select = format!("{} UNION {} ORDER BY number DESC LIMIT ?3", half("actor"), half("target"));
            db.prepare_cached(&select)?.query_map(params![before, account, limit], read)?.collect()
        }
    }
}

/// Hands on each entry, the oldest first, until `each` says that it is enough.
///
/// # Errors
/// The database's.
pub fn each(db: &Connection, mut each: impl FnMut(&Entry, &Hash) -> bool) -> Result<()> {
    let mut select = db.prepare(&format!("SELECT {COLUMNS} FROM audit ORDER BY number"))?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let (entry, hash) = read(row)?;
        if !each(&entry, &hash) {
            break;
        }
    }
    Ok(())
}
