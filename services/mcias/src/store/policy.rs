//! The login policy.

use rusqlite::{Connection, Result, params};
use serde::{Deserialize, Serialize};

use super::accounts::unreadable;
use crate::domain::policy::{Effect, Rule};

/// The policy as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// The effect where no rule matches.
    pub default: Effect,
    /// In any order.
    pub rules: Vec<Rule>,
}

/// The policy and its revision.
///
/// # Errors
/// Returns an error if the database fails.
pub fn get(db: &Connection) -> Result<(i64, Document)> {
    db.query_row("SELECT revision, document FROM policy", [], |row| {
        let text: String = row.get(1)?;
        Ok((row.get(0)?, serde_json::from_str(&text).map_err(|error| unreadable(1, error))?))
    })
}

/// Replaces it.
///
/// # Errors
/// Returns an error if the database fails.
pub fn set(db: &Connection, revision: i64, document: &Document) -> Result<()> {
    let text = serde_json::to_string(document).expect("a policy can be written as JSON");
    db.execute("UPDATE policy SET revision = ?1, document = ?2", params![revision, text]).map(drop)
}
