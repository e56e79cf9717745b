//! Sign-in methods: passwords, TOTP, recovery codes, passkeys, and the one-time links that set a password.

use rusqlite::{Connection, OptionalExtension as _, Result, Row, params};

use super::accounts::Phc;

/// A passkey as it is stored.
#[derive(Clone, Debug)]
pub struct StoredPasskey {
    /// Its credential's id, base64url.
    pub id: String,
    /// Row id of its account.
    pub account: i64,
    /// A name for it, chosen by its owner.
    pub label: String,
    /// As webauthn-rs writes it: public key and counter.
    pub credential: String,
    /// Seconds since 1970.
    pub created_at: i64,
    /// Seconds since 1970.
    pub last_used_at: Option<i64>,
}

/// A password as it is stored, and whether it is strong enough without a second factor.
#[derive(Clone, Debug)]
pub struct NewPassword {
    /// The hash.
    pub phc: Phc,
    /// Whether it is strong enough without a second factor.
    pub alone: bool,
}

/// Replaces a password.
///
/// # Errors
/// Returns an error if the database fails.
pub fn set_password(db: &Connection, account: i64, password: &NewPassword) -> Result<()> {
    let update = "UPDATE accounts SET password = ?2, password_alone = ?3 WHERE id = ?1";
    db.execute(update, params![account, password.phc.0, password.alone]).map(drop)
}

/// Replaces the hash of the same password.
///
/// # Errors
/// Returns an error if the database fails.
pub fn rehash(db: &Connection, account: i64, phc: &Phc) -> Result<()> {
    db.execute("UPDATE accounts SET password = ?2 WHERE id = ?1", params![account, phc.0]).map(drop)
}

/// Whether the account has a password that is too weak without a second factor.
///
/// # Errors
/// Returns an error if the database fails.
pub fn needs_factor(db: &Connection, account: i64) -> Result<bool> {
    let select = "SELECT password IS NOT NULL AND NOT password_alone FROM accounts WHERE id = ?1";
    db.query_row(select, [account], |row| row.get(0))
}

/// Removes the password.
///
/// # Errors
/// Returns an error if the database fails.
pub fn remove_password(db: &Connection, account: i64) -> Result<()> {
    db.execute("UPDATE accounts SET password = NULL, password_alone = 0 WHERE id = ?1", [account]).map(drop)
}

/// The TOTP secret, and the time step of the last code that was accepted.
///
/// # Errors
/// Returns an error if the database fails.
pub fn totp(db: &Connection, account: i64) -> Result<Option<(Vec<u8>, Option<u64>)>> {
    let mut select =
        db.prepare_cached("SELECT totp, totp_step FROM accounts WHERE id = ?1 AND totp IS NOT NULL")?;
    let read = |row: &Row<'_>| Ok((row.get(0)?, row.get::<_, Option<i64>>(1)?.map(i64::unsigned_abs)));
    select.query_row([account], read).optional()
}

/// Sets the TOTP secret, with the time step of the code that confirmed it; or removes it.
///
/// # Errors
/// Returns an error if the database fails.
pub fn set_totp(db: &Connection, account: i64, secret: Option<(&[u8], u64)>) -> Result<()> {
    let step = secret.map(|(_, step)| step.cast_signed());
    let secret = secret.map(|(bytes, _)| bytes);
    let update = "UPDATE accounts SET totp = ?2, totp_step = ?3 WHERE id = ?1";
    db.execute(update, params![account, secret, step]).map(drop)
}

/// Uses up the code of a time step; `false`: it, or a later one, was used before.
///
/// # Errors
/// Returns an error if the database fails.
pub fn take_totp(db: &Connection, account: i64, step: u64) -> Result<bool> {
    let mut update = db.prepare_cached(
        "UPDATE accounts SET totp_step = ?2 WHERE id = ?1 AND (totp_step IS NULL OR totp_step < ?2)",
    )?;
    Ok(update.execute(params![account, step.cast_signed()])? == 1)
}

/// Replaces all recovery codes.
///
/// # Errors
/// Returns an error if the database fails.
pub fn set_recovery_codes(db: &Connection, account: i64, digests: &[[u8; 32]]) -> Result<()> {
    db.execute("DELETE FROM recovery_codes WHERE account = ?1", [account])?;
    let mut insert = db.prepare_cached("INSERT INTO recovery_codes VALUES (?1, ?2)")?;
    digests.iter().try_for_each(|digest| insert.execute(params![account, digest]).map(drop))
}

/// Uses up a recovery code; `false`: there is no such code.
///
/// # Errors
/// Returns an error if the database fails.
pub fn take_recovery_code(db: &Connection, account: i64, digest: &[u8; 32]) -> Result<bool> {
    let mut delete = db.prepare_cached("DELETE FROM recovery_codes WHERE account = ?1 AND digest = ?2")?;
    Ok(delete.execute(params![account, digest])? == 1)
}

const COLUMNS: &str = "id, account, label, credential, created_at, last_used_at";

fn passkey(row: &Row<'_>) -> Result<StoredPasskey> {
    Ok(StoredPasskey {
        id: row.get(0)?,
        account: row.get(1)?,
        label: row.get(2)?,
        credential: row.get(3)?,
        created_at: row.get(4)?,
        last_used_at: row.get(5)?,
    })
}

/// An account's passkeys, the oldest first.
///
/// # Errors
/// Returns an error if the database fails.
pub fn passkeys(db: &Connection, account: i64) -> Result<Vec<StoredPasskey>> {
    let select = format!("SELECT {COLUMNS} FROM passkeys WHERE account = ?1 ORDER BY created_at, id");
    db.prepare_cached(&select)?.query_map([account], passkey)?.collect()
}

/// A passkey of an account.
///
/// # Errors
/// Returns an error if the database fails.
pub fn passkey_of(db: &Connection, account: i64, id: &str) -> Result<Option<StoredPasskey>> {
    let select = format!("SELECT {COLUMNS} FROM passkeys WHERE account = ?1 AND id = ?2");
    db.prepare_cached(&select)?.query_row(params![account, id], passkey).optional()
}

/// Adds a passkey; `false`: it exists, of this account or another.
///
/// # Errors
/// Returns an error if the database fails.
pub fn add_passkey(db: &Connection, passkey: &StoredPasskey) -> Result<bool> {
    let insert = "INSERT INTO passkeys VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (id) DO NOTHING";
    let StoredPasskey { id, account, label, credential, created_at, last_used_at } = passkey;
    Ok(db.execute(insert, params![id, account, label, credential, created_at, last_used_at])? == 1)
}

/// Records the use of a passkey, with its counter.
///
/// # Errors
/// Returns an error if the database fails.
pub fn passkey_used(db: &Connection, id: &str, credential: &str, now: i64) -> Result<()> {
    let update = "UPDATE passkeys SET credential = ?2, last_used_at = ?3 WHERE id = ?1";
    db.execute(update, params![id, credential, now]).map(drop)
}

/// Renames a passkey; `false`: the account has no such passkey.
///
/// # Errors
/// Returns an error if the database fails.
pub fn rename_passkey(db: &Connection, account: i64, id: &str, label: &str) -> Result<bool> {
    let update = "UPDATE passkeys SET label = ?3 WHERE account = ?1 AND id = ?2";
    Ok(db.execute(update, params![account, id, label])? == 1)
}

/// Removes a passkey, or all of an account. Returns how many.
///
/// # Errors
/// Returns an error if the database fails.
pub fn remove_passkeys(db: &Connection, account: i64, id: Option<&str>) -> Result<usize> {
    db.execute("DELETE FROM passkeys WHERE account = ?1 AND (?2 IS NULL OR id = ?2)", params![account, id])
}

/// Sets an account's one-time link; an earlier one is void.
///
/// # Errors
/// Returns an error if the database fails.
pub fn set_link(db: &Connection, account: i64, digest: &[u8; 32], expires_at: i64) -> Result<()> {
    let replace = "INSERT OR REPLACE INTO links (account, digest, expires_at) VALUES (?1, ?2, ?3)";
    db.execute(replace, params![account, digest, expires_at]).map(drop)
}

/// The account of a link and when the link expires, if it is valid and its account is enabled.
///
/// # Errors
/// Returns an error if the database fails.
pub fn link(db: &Connection, digest: &[u8; 32], now: i64) -> Result<Option<(i64, i64)>> {
    let select = "SELECT account, expires_at FROM links JOIN accounts ON accounts.id = account
         WHERE digest = ?1 AND expires_at > ?2 AND enabled";
    db.query_row(select, params![digest, now], |row| Ok((row.get(0)?, row.get(1)?))).optional()
}

/// Removes an account's link.
///
/// # Errors
/// Returns an error if the database fails.
pub fn remove_link(db: &Connection, account: i64) -> Result<()> {
    db.execute("DELETE FROM links WHERE account = ?1", [account]).map(drop)
}
