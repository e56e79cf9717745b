//! The audit log in SQL: entries are appended, and never changed.

use rusqlite::{Connection, OptionalExtension as _, Result, Row, named_params, params};

use super::Outcome;
use super::chain::{Checkpoint, Entry, Hash, chain};

/// The table, for the first migration of a service that has none yet.
pub const TABLE: &str = include_str!("table.sql");

/// Appends an entry: its number is set here.
///
/// # Errors
/// Returns an error if the database fails.
pub(super) fn append(db: &Connection, mut entry: Entry) -> Result<()> {
    let mut last = db.prepare_cached("SELECT number, hash FROM audit ORDER BY number DESC LIMIT 1")?;
    let last =
        last.query_row([], |row| Ok(Checkpoint { number: row.get(0)?, hash: row.get(1)? })).optional()?;
    let last = last.unwrap_or(Checkpoint::FIRST);
    entry.number = last.number + 1;
    let hash = chain(&last.hash, &entry);
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

/// Which entries are looked for. What is absent does not narrow.
#[derive(Debug, Default)]
pub(super) struct Filter {
    /// As actor or as target.
    pub(super) account: Option<String>,
    pub(super) action: Option<String>,
    pub(super) outcome: Option<Outcome>,
    pub(super) target: Option<String>,
    pub(super) since_ms: Option<i64>,
    pub(super) until_ms: Option<i64>,
}

impl Filter {
    /// The condition, with named parameters.
    const CONDITION: &str = "(:action IS NULL OR action = :action) AND (:outcome IS NULL OR outcome = :outcome) \
         AND (:target IS NULL OR target = :target) AND (:since IS NULL OR at_ms >= :since) AND (:until IS NULL OR at_ms < :until)";

    fn outcome(&self) -> Option<&'static str> {
        self.outcome.map(Outcome::as_str)
    }
}

/// Entries before a number, the newest first.
///
/// # Errors
/// Returns an error if the database fails.
pub(super) fn list(db: &Connection, before: i64, filter: &Filter, limit: u32) -> Result<Vec<(Entry, Hash)>> {
    select(db, "number < :bound", "DESC", before, filter, limit)
}

/// Entries after a number, the oldest first.
///
/// # Errors
/// Returns an error if the database fails.
pub(super) fn after(db: &Connection, after: i64, filter: &Filter, limit: u32) -> Result<Vec<(Entry, Hash)>> {
    select(db, "number > :bound", "ASC", after, filter, limit)
}

fn select(
    db: &Connection,
    bound: &str,
    order: &str,
    number: i64,
    filter: &Filter,
    limit: u32,
) -> Result<Vec<(Entry, Hash)>> {
    let matching = |condition: &str| {
        let other = Filter::CONDITION;
        format!(
            "SELECT {COLUMNS} FROM audit WHERE {bound} AND {other} AND {condition} ORDER BY number {order} LIMIT :limit"
        )
    };
    // Each half by its index: an OR would read everything.
    let sql = match filter.account {
        None => matching("(:account IS NULL)"),
        Some(_) => format!(
            "SELECT * FROM ({}) UNION SELECT * FROM ({}) ORDER BY number {order} LIMIT :limit",
            matching("actor = :account"),
            matching("target = :account"),
        ),
    };
    let parameters = named_params! {
        ":bound": number,
        ":account": filter.account,
        ":action": filter.action,
        ":outcome": filter.outcome(),
        ":target": filter.target,
        ":since": filter.since_ms,
        ":until": filter.until_ms,
        ":limit": limit,
    };
    db.prepare_cached(&sql)?.query_map(parameters, read)?.collect()
}

/// The hash of an entry; `None`: it is not there.
///
/// # Errors
/// Returns an error if the database fails.
pub(super) fn hash_of(db: &Connection, number: i64) -> Result<Option<Hash>> {
    db.query_row("SELECT hash FROM audit WHERE number = ?1", [number], |row| row.get(0)).optional()
}

/// Hands on each of so many entries after a number, the oldest first, until `each` returns `false`. How many there were.
///
/// # Errors
/// Returns an error if the database fails.
pub(super) fn each(
    db: &Connection,
    after: i64,
    limit: u32,
    mut each: impl FnMut(&Entry, &Hash) -> bool,
) -> Result<u32> {
    let mut select =
        db.prepare(&format!("SELECT {COLUMNS} FROM audit WHERE number > ?1 ORDER BY number LIMIT ?2"))?;
    let mut rows = select.query(params![after, limit])?;
    let mut seen = 0;
    while let Some(row) = rows.next()? {
        seen += 1;
        let (entry, hash) = read(row)?;
        if !each(&entry, &hash) {
            break;
        }
    }
    Ok(seen)
}
