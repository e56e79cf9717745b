//! The public URL that tokens and passkeys are bound to.

use rusqlite::{Connection, OptionalExtension as _, Result};

/// The public URL of the last start; `None`: there was none.
///
/// # Errors
/// Returns an error if the database fails.
pub fn public_url(db: &Connection) -> Result<Option<String>> {
    db.query_row("SELECT public_url FROM site", [], |row| row.get(0)).optional()
}

/// Notes the public URL.
///
/// # Errors
/// Returns an error if the database fails.
pub fn set_public_url(db: &Connection, url: &str) -> Result<()> {
    let set =
        "INSERT INTO site VALUES (1, ?1) ON CONFLICT (one) DO UPDATE SET public_url = excluded.public_url";
    db.execute(set, [url]).map(drop)
}
