//! The policy in SQL: a table of revisions, of which none is ever changed or removed.
//!
//! A service copies [`TABLE`] into one of its migrations and inserts its first document there as revision 1.

use rusqlite::types::Type;
use rusqlite::{Connection, Error, OptionalExtension as _, Result, Row, params};

use super::{Diff, Document, diff};

/// The table `policy_revisions`.
pub const TABLE: &str = include_str!("table.sql");

/// A document as it was in force from some time on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision {
    /// From 1, without gaps.
    pub revision: i64,
    /// What was set.
    pub document: Document,
    /// Seconds since 1970.
    pub created_at: i64,
    /// The account that set it; `-` for the first revision.
    pub actor: String,
}

/// A revision without its rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// As in [`Revision`].
    pub revision: i64,
    /// As in [`Revision`].
    pub created_at: i64,
    /// As in [`Revision`].
    pub actor: String,
    /// `allow` or `deny`: the decision where no rule matches.
    pub default: String,
    /// How many rules there are.
    pub rules: u32,
}

/// What became of a document that was to be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// It is in force, as this revision.
    As(i64),
    /// It differs in nothing from the revision in force: no revision was added.
    Unchanged,
    /// Another revision than the expected one is in force: nothing was stored.
    Conflict {
        /// The revision in force.
        current: i64,
    },
}

/// The revision in force.
///
/// # Errors
/// Returns an error if the database fails or the service's migrations inserted no first revision.
pub fn current(db: &Connection) -> Result<Revision> {
    let mut select = db.prepare_cached(
        "SELECT revision, document, created_at, actor FROM policy_revisions ORDER BY revision DESC LIMIT 1",
    )?;
    select.query_row([], read)
}

/// A revision, if there is one of this number.
///
/// # Errors
/// Returns an error if the database fails.
pub fn get(db: &Connection, revision: i64) -> Result<Option<Revision>> {
    let mut select = db.prepare_cached(
        "SELECT revision, document, created_at, actor FROM policy_revisions WHERE revision = ?1",
    )?;
    select.query_row([revision], read).optional()
}

/// Revisions below a number, newest first.
///
/// # Errors
/// Returns an error if the database fails.
pub fn list(db: &Connection, before: i64, limit: u32) -> Result<Vec<Summary>> {
    let mut select = db.prepare_cached(
        "SELECT revision, created_at, actor, document ->> 'default', json_array_length(document, '$.rules') FROM policy_revisions \
         WHERE revision < ?1 ORDER BY revision DESC LIMIT ?2",
    )?;
    let read = |row: &Row<'_>| {
        Ok(Summary {
            revision: row.get(0)?,
            created_at: row.get(1)?,
            actor: row.get(2)?,
            default: row.get(3)?,
            rules: row.get(4)?,
        })
    };
    select.query_map(params![before, limit], read)?.collect()
}

/// Stores a document if the expected revision is in force.
///
/// # Errors
/// Returns an error if the database fails.
pub fn set(db: &Connection, expected: i64, document: &Document, now_s: i64, actor: &str) -> Result<Stored> {
    let Revision { revision, document: in_force, .. } = current(db)?;
    if revision != expected {
        return Ok(Stored::Conflict { current: revision });
    }
    if diff(&in_force, document) == Diff::default() {
        return Ok(Stored::Unchanged);
    }
    let text = serde_json::to_string(document).expect("a policy can be written as JSON");
    let mut insert = db.prepare_cached("INSERT INTO policy_revisions VALUES (?1, ?2, ?3, ?4)")?;
    insert.execute(params![revision + 1, text, now_s, actor])?;
    Ok(Stored::As(revision + 1))
}

fn read(row: &Row<'_>) -> Result<Revision> {
    let text: String = row.get(1)?;
    let unreadable = |error| Error::FromSqlConversionFailure(1, Type::Text, Box::new(error));
    let document = serde_json::from_str(&text).map_err(unreadable)?;
    Ok(Revision { revision: row.get(0)?, document, created_at: row.get(2)?, actor: row.get(3)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Effect, Rule};

    fn document(default: Effect, rules: &[&str]) -> Document {
        let rule = |name: &&str| -> Rule {
            serde_json::from_str(&format!(
                r#"{{"name":"{name}","priority":1,"effect":"allow","resources":["a/*"]}}"#
            ))
            .unwrap()
        };
        Document { default, rules: rules.iter().map(rule).collect() }
    }

    fn database() -> Connection {
        let db = Connection::open_in_memory().unwrap();
        db.execute_batch(TABLE).unwrap();
        let first = r#"INSERT INTO policy_revisions VALUES (1, '{"default":"deny","rules":[]}', 5, '-')"#;
        db.execute_batch(first).unwrap();
        db
    }

    #[test]
    fn a_revision_is_stored_only_on_top_of_the_expected_one() {
        let db = database();
        let new = document(Effect::Deny, &["a", "b"]);
        assert_eq!(set(&db, 2, &new, 10, "ada").unwrap(), Stored::Conflict { current: 1 });
        assert_eq!(set(&db, 1, &new, 10, "ada").unwrap(), Stored::As(2));
        assert_eq!(set(&db, 1, &new, 10, "bob").unwrap(), Stored::Conflict { current: 2 });
        let expected = Revision { revision: 2, document: new, created_at: 10, actor: "ada".to_owned() };
        assert_eq!(current(&db).unwrap(), expected);
    }

    #[test]
    fn what_changes_nothing_adds_no_revision() {
        let db = database();
        set(&db, 1, &document(Effect::Deny, &["a", "b"]), 10, "ada").unwrap();
        let same = document(Effect::Deny, &["b", "a"]);
        assert_eq!(set(&db, 2, &same, 11, "bob").unwrap(), Stored::Unchanged);
        assert_eq!(current(&db).unwrap().actor, "ada");
    }

    #[test]
    fn earlier_revisions_are_kept() {
        let db = database();
        set(&db, 1, &document(Effect::Allow, &[]), 10, "ada").unwrap();
        set(&db, 2, &document(Effect::Allow, &["a"]), 11, "bob").unwrap();
        let numbers = |before, limit| -> Vec<i64> {
            list(&db, before, limit).unwrap().iter().map(|it| it.revision).collect()
        };
        assert_eq!((numbers(9, 10), numbers(3, 1), numbers(1, 10)), (vec![3, 2, 1], vec![2], vec![]));
        let (default, actor) = ("allow".to_owned(), "bob".to_owned());
        let expected = Summary { revision: 3, created_at: 11, actor, default, rules: 1 };
        assert_eq!(list(&db, 4, 1).unwrap(), [expected]);
        assert_eq!(get(&db, 1).unwrap().unwrap().document, document(Effect::Deny, &[]));
        assert_eq!(get(&db, 4).unwrap(), None);
        for statement in ["DELETE FROM policy_revisions", "UPDATE policy_revisions SET actor = 'eve'"] {
            let error = db.execute_batch(statement).unwrap_err().to_string();
            assert!(error.contains("policy revisions are"), "{error}");
        }
    }
}
