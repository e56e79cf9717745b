//! The keys that tokens are signed with.

use rusqlite::{Connection, Result, params};
use zeroize::Zeroizing;

/// A key as it is stored. `Debug` does not show the private key.
pub struct StoredKey {
    /// `kid`.
    pub id: String,
    /// The private key.
    pub pkcs8: Zeroizing<Vec<u8>>,
    /// Seconds since 1970, as all times here.
    pub created_at: i64,
    /// When it starts to sign.
    pub active_from: i64,
    /// When the last token that it signed expires.
    pub verify_until: i64,
}

impl std::fmt::Debug for StoredKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StoredKey({}, redacted)", self.id)
    }
}

/// All of them, the oldest first.
///
/// # Errors
/// Returns an error if the database fails.
pub fn all(db: &Connection) -> Result<Vec<StoredKey>> {
    let select = "SELECT id, pkcs8, created_at, active_from, verify_until FROM signing_keys ORDER BY active_from, created_at";
    db.prepare_cached(select)?
        .query_map([], |row| {
            Ok(StoredKey {
                id: row.get(0)?,
                pkcs8: Zeroizing::new(row.get(1)?),
                created_at: row.get(2)?,
                active_from: row.get(3)?,
                verify_until: row.get(4)?,
            })
        })?
        .collect()
}

/// Adds one.
///
/// # Errors
/// Returns an error if the database fails.
pub fn add(db: &Connection, key: &StoredKey) -> Result<()> {
    let insert = "INSERT INTO signing_keys VALUES (?1, ?2, ?3, ?4, ?5)";
    let StoredKey { id, pkcs8, created_at, active_from, verify_until } = key;
    db.execute(insert, params![id, &pkcs8[..], created_at, active_from, verify_until]).map(drop)
}

/// Keeps a key until a token that it signed expires; `false`: there is no such key.
///
/// # Errors
/// Returns an error if the database fails.
pub fn extend(db: &Connection, id: &str, until: i64) -> Result<bool> {
    let update = "UPDATE signing_keys SET verify_until = max(verify_until, ?2) WHERE id = ?1";
    Ok(db.prepare_cached(update)?.execute(params![id, until])? == 1)
}

/// Removes one; `false`: there is no such key.
///
/// # Errors
/// Returns an error if the database fails.
pub fn remove(db: &Connection, id: &str) -> Result<bool> {
    Ok(db.execute("DELETE FROM signing_keys WHERE id = ?1", [id])? == 1)
}
