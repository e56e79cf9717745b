//! Sessions of people and tokens of services, without the tokens themselves.

use rusqlite::{Connection, OptionalExtension as _, Result, Row, params};

use super::accounts::unreadable;

/// A token as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredToken {
    /// `jti`.
    pub id: String,
    /// Row id of its account.
    pub account: i64,
    /// A person's session, or issued to a service.
    pub kind: Kind,
    /// Services that it is for; empty: all.
    pub audience: Vec<String>,
    /// Of a session: the service that was logged in to. Of an issued token: its label.
    pub label: String,
    /// Of a session: the sign-in method. Of an issued token: the account that issued it.
    pub origin: String,
    /// The client's address at login or issue.
    pub source: String,
    /// Seconds since 1970, as all times here.
    pub created_at: i64,
    /// When it expires.
    pub expires_at: i64,
    /// When it was revoked.
    pub revoked_at: Option<i64>,
    /// When it was last used, to within some seconds.
    pub last_used_at: Option<i64>,
    /// Of a session: what the client that logged in said it is, in a few words.
    pub device: String,
    /// The key that signed it; absent in rows of database version 1.
    pub key_id: Option<String>,
}

/// The kind of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A person's session: from a login.
    Session,
    /// A system account's token: issued by an admin.
    Issued,
}

const COLUMNS: &str = "id, account, kind, audience, label, origin, source, created_at, expires_at, revoked_at, \
                       last_used_at, key_id, device";

fn read(row: &Row<'_>) -> Result<StoredToken> {
    let audience: String = row.get(3)?;
    Ok(StoredToken {
        id: row.get(0)?,
        account: row.get(1)?,
        kind: if row.get(2)? { Kind::Issued } else { Kind::Session },
        audience: serde_json::from_str(&audience).map_err(|error| unreadable(3, error))?,
        label: row.get(4)?,
        origin: row.get(5)?,
        source: row.get(6)?,
        created_at: row.get(7)?,
        expires_at: row.get(8)?,
        revoked_at: row.get(9)?,
        last_used_at: row.get(10)?,
        key_id: row.get(11)?,
        device: row.get(12)?,
    })
}

/// Adds one.
///
/// # Errors
/// Returns an error if the database fails.
pub fn add(db: &Connection, token: &StoredToken) -> Result<()> {
    let mut insert = db.prepare_cached(
        "INSERT INTO tokens (id, account, kind, audience, label, origin, source, created_at, expires_at, key_id, device)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
    )?;
    let audience = serde_json::to_string(&token.audience).expect("texts can be written as JSON");
    insert
        .execute(params![
            token.id,
            token.account,
            token.kind == Kind::Issued,
            audience,
            token.label,
            token.origin,
            token.source,
            token.created_at,
            token.expires_at,
            token.key_id,
            token.device
        ])
        .map(drop)
}

/// The token of this id.
///
/// # Errors
/// Returns an error if the database fails.
pub fn by_id(db: &Connection, id: &str) -> Result<Option<StoredToken>> {
    let mut select = db.prepare_cached(&format!("SELECT {COLUMNS} FROM tokens WHERE id = ?1"))?;
    select.query_row([id], read).optional()
}

/// Tokens of an account, the newest first. Of sessions, only the active ones.
///
/// # Errors
/// Returns an error if the database fails.
pub fn of(db: &Connection, account: i64, kind: Kind, now: i64) -> Result<Vec<StoredToken>> {
    let mut select = db.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM tokens WHERE account = ?1 AND kind = ?2
         AND (kind = 1 OR (revoked_at IS NULL AND expires_at > ?3)) ORDER BY created_at DESC, id"
    ))?;
    select.query_map(params![account, kind == Kind::Issued, now], read)?.collect()
}

/// Revokes a token of an account; `false`: there is no such token, or it was revoked. An expired one too: the clock may be wrong now,
/// and be corrected later.
///
/// # Errors
/// Returns an error if the database fails.
pub fn revoke(db: &Connection, account: i64, kind: Kind, id: &str, now: i64) -> Result<bool> {
    let update = "UPDATE tokens SET revoked_at = ?4 WHERE id = ?1 AND account = ?2 AND kind = ?3 AND revoked_at IS NULL";
    Ok(db.execute(update, params![id, account, kind == Kind::Issued, now])? == 1)
}

/// Revokes all sessions of an account but one, expired ones included (see [`revoke`]). Returns how many were active.
///
/// # Errors
/// Returns an error if the database fails.
pub fn revoke_sessions(db: &Connection, account: i64, but: Option<&str>, now: i64) -> Result<usize> {
    let ended = "account = ?1 AND kind = 0 AND id IS NOT ?2 AND revoked_at IS NULL AND expires_at";
    let expired = format!("UPDATE tokens SET revoked_at = ?3 WHERE {ended} <= ?3");
    db.execute(&expired, params![account, but, now])?;
    let live = format!("UPDATE tokens SET revoked_at = ?3 WHERE {ended} > ?3");
    db.execute(&live, params![account, but, now])
}

/// Revokes all tokens that a key signed, expired ones included (see [`revoke`]). Returns how many were active.
///
/// # Errors
/// Returns an error if the database fails.
pub fn revoke_signed(db: &Connection, key: &str, now: i64) -> Result<usize> {
    let ended = "key_id = ?1 AND revoked_at IS NULL AND expires_at";
    db.execute(&format!("UPDATE tokens SET revoked_at = ?2 WHERE {ended} <= ?2"), params![key, now])?;
    db.execute(&format!("UPDATE tokens SET revoked_at = ?2 WHERE {ended} > ?2"), params![key, now])
}

/// Records when tokens were last used.
///
/// # Errors
/// Returns an error if the database fails.
pub fn used(db: &Connection, seen: &[(String, i64)]) -> Result<()> {
    let mut update =
        db.prepare_cached("UPDATE tokens SET last_used_at = max(ifnull(last_used_at, 0), ?2) WHERE id = ?1")?;
    seen.iter().try_for_each(|(id, at)| update.execute(params![id, at]).map(drop))
}

/// Deletes tokens that expired before a time.
///
/// # Errors
/// Returns an error if the database fails.
pub fn delete_expired(db: &Connection, before: i64) -> Result<usize> {
    db.execute("DELETE FROM tokens WHERE expires_at < ?1", [before])
}

/// A system account's token that expires soon.
#[derive(Clone, Debug)]
pub struct Expiring {
    /// The account's name.
    pub account: String,
    /// The token's label.
    pub label: String,
    /// `jti`.
    pub id: String,
    /// When it expires.
    pub expires_at: i64,
}

/// Valid tokens of system accounts that expire before a time, the next first.
///
/// # Errors
/// Returns an error if the database fails.
pub fn expiring(db: &Connection, now: i64, before: i64) -> Result<Vec<Expiring>> {
    let mut select = db.prepare_cached(
        "SELECT name, label, tokens.id, expires_at FROM tokens JOIN accounts ON accounts.id = account
         WHERE tokens.kind = 1 AND revoked_at IS NULL AND expires_at > ?1 AND expires_at < ?2 ORDER BY expires_at",
    )?;
    let read = |row: &Row<'_>| {
        Ok(Expiring { account: row.get(0)?, label: row.get(1)?, id: row.get(2)?, expires_at: row.get(3)? })
    };
    select.query_map([now, before], read)?.collect()
}
