//! Accounts, their tags, and the addresses from which they have logged in.

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension as _, Result, Row, params};
use uuid::Uuid;

use crate::domain::{Account, Name, Role, Roles};

/// An account as it is stored.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Row id.
    pub id: i64,
    /// Name, type and roles.
    pub account: Account,
    /// A system account's service.
    pub service: Option<Name>,
    /// In order.
    pub tags: BTreeSet<Name>,
    /// Whether it may log in.
    pub enabled: bool,
    /// Seconds since 1970.
    pub created_at: i64,
    /// Seconds since 1970.
    pub last_login_at: Option<i64>,
    /// PHC string. Not shown: `Debug` of an account goes to logs.
    pub password: Option<Phc>,
    /// Whether it has a second factor.
    pub has_totp: bool,
    /// `sub` of its tokens, and the user handle that authenticators know it by (WebAuthn Level 3, section 4). No other account ever gets it.
    pub uuid: Uuid,
    /// Changes with each update.
    pub revision: i64,
}

/// A stored password hash. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Phc(pub String);

impl std::fmt::Debug for Phc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Phc(redacted)")
    }
}

/// Numbers of things that belong to an account.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Passkeys.
    pub passkeys: u32,
    /// Unused recovery codes.
    pub recovery_codes: u32,
}

const COLUMNS: &str = "id, name, kind, roles, service, enabled, created_at, last_login_at, password, totp IS NOT NULL, uuid, \
     revision";

/// The account of this name.
///
/// # Errors
/// Returns an error if the database fails.
pub fn by_name(db: &Connection, name: &str) -> Result<Option<Stored>> {
    one(db, "name = ?1", name)
}

/// The account of this row.
///
/// # Errors
/// Returns an error if the database fails.
pub fn by_id(db: &Connection, id: i64) -> Result<Option<Stored>> {
    one(db, "id = ?1", id)
}

/// The account of the token with this id.
///
/// # Errors
/// Returns an error if the database fails.
pub fn by_token(db: &Connection, token: &str) -> Result<Option<Stored>> {
    one(db, "id = (SELECT account FROM tokens WHERE id = ?1)", token)
}

/// The account with this UUID.
///
/// # Errors
/// Returns an error if the database fails.
pub fn by_uuid(db: &Connection, uuid: Uuid) -> Result<Option<Stored>> {
    one(db, "uuid = ?1", uuid.as_bytes().as_slice())
}

fn one(db: &Connection, condition: &str, key: impl rusqlite::ToSql) -> Result<Option<Stored>> {
    let mut select = db.prepare_cached(&format!("SELECT {COLUMNS} FROM accounts WHERE {condition}"))?;
    let found = select.query_row([key], read).optional()?;
    found.map(|found| with_tags(db, found)).transpose()
}

/// Accounts in the order of their names.
///
/// # Errors
/// Returns an error if the database fails.
pub fn list(
    db: &Connection,
    after: &str,
    system: Option<bool>,
    contains: &str,
    limit: u32,
) -> Result<Vec<Stored>> {
    let mut select = db.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM accounts
         WHERE name > ?1 AND (?2 IS NULL OR kind = ?2) AND instr(name, ?3) > 0 ORDER BY name LIMIT ?4"
    ))?;
    let found: Result<Vec<_>> = select.query_map(params![after, system, contains, limit], read)?.collect();
    found?.into_iter().map(|found| with_tags(db, found)).collect()
}

fn read(row: &Row<'_>) -> Result<Stored> {
    let name = name(row, 1)?;
    let account = match row.get(2)? {
        0 => Account::Human { name, roles: roles_of(row.get(3)?) },
        _ => Account::System { name },
    };
    Ok(Stored {
        id: row.get(0)?,
        account,
        service: row.get::<_, Option<String>>(4)?.map(|text| parsed(4, &text)).transpose()?,
        tags: BTreeSet::new(),
        enabled: row.get(5)?,
        created_at: row.get(6)?,
        last_login_at: row.get(7)?,
        password: row.get::<_, Option<String>>(8)?.map(Phc),
        has_totp: row.get(9)?,
        uuid: uuid(row, 10)?,
        revision: row.get(11)?,
    })
}

fn with_tags(db: &Connection, mut stored: Stored) -> Result<Stored> {
    let mut select = db.prepare_cached("SELECT tag FROM tags WHERE account = ?1")?;
    stored.tags = select.query_map([stored.id], |row| name(row, 0))?.collect::<Result<_>>()?;
    Ok(stored)
}

/// A name in a column.
pub(super) fn name(row: &Row<'_>, column: usize) -> Result<Name> {
    parsed(column, &row.get::<_, String>(column)?)
}

fn parsed(column: usize, text: &str) -> Result<Name> {
    Name::parse(text).map_err(|error| unreadable(column, error))
}

fn uuid(row: &Row<'_>, column: usize) -> Result<Uuid> {
    let bytes: Vec<u8> = row.get(column)?;
    Uuid::from_slice(&bytes).map_err(|error| unreadable(column, error))
}

/// A stored value that cannot be read.
pub(super) fn unreadable(
    column: usize,
    error: impl std::error::Error + Send + Sync + 'static,
) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error))
}

const ROLES: [(Role, i64); 3] = [(Role::Admin, 1), (Role::User, 2), (Role::Guest, 4)];

fn roles_of(bits: i64) -> Roles {
    ROLES.iter().filter(|(_, bit)| bits & bit != 0).map(|(role, _)| *role).collect()
}

fn bits_of(roles: Roles) -> i64 {
    ROLES.iter().filter(|(role, _)| roles.has(*role)).map(|(_, bit)| bit).sum()
}

/// What came of adding an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addition {
    /// It is there.
    Added,
    /// Another account has the name.
    NameInUse,
    /// A deleted account had the name, which is not released.
    NameTaken,
}

/// Adds an account. Neither its row id nor its UUID was ever another's.
///
/// # Errors
/// Returns an error if the database fails.
pub fn add(
    db: &Connection,
    account: &Account,
    service: Option<&Name>,
    uuid: Uuid,
    now: i64,
) -> Result<Addition> {
    let name = account.name().as_str();
    let taken = "SELECT EXISTS (SELECT 1 FROM deleted_accounts WHERE name = ?1 AND released_at IS NULL)";
    if db.prepare_cached(taken)?.query_row([name], |row| row.get(0))? {
        return Ok(Addition::NameTaken);
    }
    let system = matches!(account, Account::System { .. });
    let mut insert = db.prepare_cached(
        "INSERT INTO accounts (id, name, kind, roles, service, enabled, created_at, uuid)
         SELECT 1 + max((SELECT coalesce(max(id), 0) FROM accounts), (SELECT coalesce(max(id), 0) FROM deleted_accounts)),
                ?1, ?2, ?3, ?4, 1, ?5, ?6
         WHERE NOT EXISTS (SELECT 1 FROM accounts WHERE name = ?1)",
    )?;
    let added = insert.execute(params![
        name,
        system,
        bits_of(account.roles()),
        service.map(Name::as_str),
        now,
        uuid.as_bytes().as_slice()
    ])?;
    Ok(if added == 1 { Addition::Added } else { Addition::NameInUse })
}

/// Replaces the settings of an account, and raises its revision.
///
/// # Errors
/// Returns an error if the database fails, or the account's type does not allow such settings.
pub fn update(
    db: &Connection,
    id: i64,
    enabled: bool,
    roles: Roles,
    service: Option<&Name>,
    tags: &BTreeSet<Name>,
) -> Result<()> {
    let update =
        "UPDATE accounts SET enabled = ?2, roles = ?3, service = ?4, revision = revision + 1 WHERE id = ?1";
    db.execute(update, params![id, enabled, bits_of(roles), service.map(Name::as_str)])?;
    set_tags(db, id, tags)
}

/// Replaces its tags.
///
/// # Errors
/// Returns an error if the database fails.
pub fn set_tags(db: &Connection, id: i64, tags: &BTreeSet<Name>) -> Result<()> {
    db.execute("DELETE FROM tags WHERE account = ?1", [id])?;
    let mut insert = db.prepare_cached("INSERT INTO tags VALUES (?1, ?2)")?;
    tags.iter().try_for_each(|tag| insert.execute(params![id, tag.as_str()]).map(drop))
}

/// Deletes it with everything that belongs to it. Its name stays taken.
///
/// # Errors
/// Returns an error if the database fails.
pub fn remove(db: &Connection, id: i64, now: i64) -> Result<()> {
    let keep =
        "INSERT INTO deleted_accounts SELECT id, uuid, name, kind, ?2, NULL FROM accounts WHERE id = ?1";
    db.execute(keep, params![id, now])?;
    db.execute("DELETE FROM accounts WHERE id = ?1", [id]).map(drop)
}

/// A deleted account whose name is taken.
#[derive(Clone, Debug)]
pub struct Deleted {
    /// Its name.
    pub name: Name,
    /// Its UUID.
    pub uuid: Uuid,
    /// Whether it was a system account.
    pub system: bool,
    /// Seconds since 1970.
    pub deleted_at: i64,
}

/// Deleted accounts whose names are taken, in the order of their names.
///
/// # Errors
/// Returns an error if the database fails.
pub fn deleted(db: &Connection, after: &str, limit: u32) -> Result<Vec<Deleted>> {
    let mut select = db.prepare_cached(
        "SELECT name, uuid, kind, deleted_at FROM deleted_accounts
         WHERE released_at IS NULL AND name > ?1 ORDER BY name LIMIT ?2",
    )?;
    let read = |row: &Row<'_>| {
        Ok(Deleted { name: name(row, 0)?, uuid: uuid(row, 1)?, system: row.get(2)?, deleted_at: row.get(3)? })
    };
    select.query_map(params![after, limit], read)?.collect()
}

/// Releases the name of a deleted account; `false`: there is none of this name.
///
/// # Errors
/// Returns an error if the database fails.
pub fn release_name(db: &Connection, name: &str, now: i64) -> Result<bool> {
    let update = "UPDATE deleted_accounts SET released_at = ?2 WHERE name = ?1 AND released_at IS NULL";
    Ok(db.execute(update, params![name, now])? == 1)
}

/// Admins who are enabled and have a password or a passkey; without their tags.
///
/// # Errors
/// Returns an error if the database fails.
pub fn admins(db: &Connection) -> Result<Vec<Stored>> {
    let mut select = db.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM accounts WHERE enabled AND roles & 1
         AND (password IS NOT NULL OR EXISTS (SELECT 1 FROM passkeys WHERE account = accounts.id))"
    ))?;
    select.query_map([], read)?.collect()
}

/// Tags of the service of this name, as its system accounts have them.
///
/// # Errors
/// Returns an error if the database fails.
pub fn tags_of_service(db: &Connection, service: &Name) -> Result<BTreeSet<Name>> {
    let mut select = db.prepare_cached(
        "SELECT DISTINCT tag FROM tags JOIN accounts ON accounts.id = account WHERE service = ?1",
    )?;
    select.query_map([service.as_str()], |row| name(row, 0))?.collect()
}

/// Whether a system account acts for a service of this name.
///
/// # Errors
/// Returns an error if the database fails.
pub fn is_service(db: &Connection, service: &Name) -> Result<bool> {
    let mut select = db.prepare_cached("SELECT EXISTS (SELECT 1 FROM accounts WHERE service = ?1)")?;
    select.query_row([service.as_str()], |row| row.get(0))
}

/// Records a login and its source.
///
/// # Errors
/// Returns an error if the database fails.
pub fn logged_in(db: &Connection, id: i64, source: &str, now: i64) -> Result<()> {
    db.prepare_cached("UPDATE accounts SET last_login_at = ?2 WHERE id = ?1")?.execute(params![id, now])?;
    db.prepare_cached(
        "INSERT INTO familiar VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET last_at = excluded.last_at",
    )?
    .execute(params![id, source, now])?;
    Ok(())
}

/// Whether somebody has logged in to this account from this source since a time.
///
/// # Errors
/// Returns an error if the database fails.
pub fn is_familiar(db: &Connection, id: i64, source: &str, since: i64) -> Result<bool> {
    let mut select = db.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM familiar WHERE account = ?1 AND source = ?2 AND last_at >= ?3)",
    )?;
    select.query_row(params![id, source, since], |row| row.get(0))
}

/// Deletes sources of logins before a time.
///
/// # Errors
/// Returns an error if the database fails.
pub fn delete_familiar(db: &Connection, before: i64) -> Result<()> {
    db.execute("DELETE FROM familiar WHERE last_at < ?1", [before]).map(drop)
}

/// Numbers of things that belong to the account.
///
/// # Errors
/// Returns an error if the database fails.
pub fn counts(db: &Connection, id: i64) -> Result<Counts> {
    let mut select = db.prepare_cached(
        "SELECT (SELECT count(*) FROM passkeys WHERE account = ?1),
                (SELECT count(*) FROM recovery_codes WHERE account = ?1)",
    )?;
    select.query_row([id], |row| Ok(Counts { passkeys: row.get(0)?, recovery_codes: row.get(1)? }))
}

/// The number of accounts: of people, and of services.
///
/// # Errors
/// Returns an error if the database fails.
pub fn count(db: &Connection) -> Result<(u64, u64)> {
    let count = "SELECT count(*) FILTER (WHERE kind = 0), count(*) FILTER (WHERE kind = 1) FROM accounts";
    db.query_row(count, [], |row| {
        Ok((row.get::<_, i64>(0)?.unsigned_abs(), row.get::<_, i64>(1)?.unsigned_abs()))
    })
}
