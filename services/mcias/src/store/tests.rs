//! Migrations: what an earlier version stored means the same to this one.

use mcdsl::policy::{Document, store};
use rusqlite::Connection;

use super::SCHEMA;

/// A database as an earlier version left it.
fn of_version(version: usize) -> Connection {
    let db = Connection::open_in_memory().unwrap();
    for migration in &SCHEMA.migrations[..version] {
        db.execute_batch(migration).unwrap();
    }
    db
}

fn migrate(db: &Connection, from: usize) {
    for migration in &SCHEMA.migrations[from..] {
        db.execute_batch(migration).unwrap();
    }
}

#[test]
fn the_policy_of_version_2_keeps_its_rules() {
    let db = of_version(2);
    let old = r#"{"default":"deny","rules":[
        {"name":"b","priority":4294967295,"effect":"allow","roles":[],"account_types":["human"],"usernames":["ada","bob"],
         "services":["mcr"],"tags":["x","y"]},
        {"name":"a","priority":1,"effect":"deny","roles":["guest"],"account_types":[],"usernames":[],"services":[],"tags":[]}]}"#;
    db.execute("UPDATE policy SET revision = 7, document = ?1", [old]).unwrap();
    let entry = "INSERT INTO audit VALUES (1, 5000, 'ada', 'policy.set', '', 'done', '', '', '', '', x'00')";
    db.execute_batch(entry).unwrap();
    migrate(&db, 2);
    let expected: Document = serde_json::from_str(
        r#"{"default":"deny","rules":[
            {"name":"b","priority":4294967295,"effect":"allow","account_types":["human"],"accounts":["ada","bob"],
             "resources":["mcr"],"resource_tags":["x","y"]},
            {"name":"a","priority":1,"effect":"deny","roles":["guest"]}]}"#,
    )
    .unwrap();
    let stored = store::current(&db).unwrap();
    assert_eq!(stored.document, expected);
    assert_eq!((stored.revision, stored.created_at, stored.actor.as_str()), (7, 5, "ada"));
}

#[test]
fn a_new_database_has_an_open_policy() {
    let db = of_version(SCHEMA.migrations.len());
    let stored = store::current(&db).unwrap();
    assert_eq!(serde_json::to_string(&stored.document).unwrap(), r#"{"default":"allow","rules":[]}"#);
    assert_eq!((stored.revision, stored.actor.as_str()), (1, "-"));
}

#[test]
fn the_table_is_that_of_the_library() {
    assert!(include_str!("3.sql").contains(store::TABLE));
}
