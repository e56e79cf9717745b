//! Migrations: what an earlier version stored means the same to this one.

use mcdsl::policy::{Document, store};
use rusqlite::Connection;
use uuid::Uuid;

use super::accounts::Addition;
use super::{SCHEMA, accounts};
use crate::domain::{Account, Name};

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

#[test]
fn a_name_and_an_id_are_never_given_again() {
    let db = of_version(SCHEMA.migrations.len());
    let ada = Account::System { name: Name::parse("ada").unwrap() };
    let service = Name::parse("ada").unwrap();
    let add = |db: &Connection| accounts::add(db, &ada, Some(&service), Uuid::new_v4(), 1).unwrap();
    assert_eq!((add(&db), add(&db)), (Addition::Added, Addition::NameInUse));
    let first = accounts::by_name(&db, "ada").unwrap().unwrap();
    accounts::remove(&db, first.id, 2).unwrap();
    assert_eq!(add(&db), Addition::NameTaken);
    let deleted = accounts::deleted(&db, "", 10).unwrap();
    assert_eq!((deleted[0].name.as_str(), deleted[0].uuid, deleted[0].deleted_at), ("ada", first.uuid, 2));
    assert!(
        accounts::release_name(&db, "ada", 3).unwrap() && !accounts::release_name(&db, "ada", 3).unwrap()
    );
    assert!(accounts::deleted(&db, "", 10).unwrap().is_empty());
    assert_eq!(add(&db), Addition::Added);
    let second = accounts::by_name(&db, "ada").unwrap().unwrap();
    assert!(second.id > first.id && second.uuid != first.uuid);
    // Released or not: what was deleted twice is there twice.
    accounts::remove(&db, second.id, 4).unwrap();
    assert_eq!(accounts::deleted(&db, "", 10).unwrap().len(), 1);
}

#[test]
fn accounts_of_version_3_keep_their_uuid() {
    let db = of_version(3);
    let insert = "INSERT INTO accounts (name, kind, roles, enabled, created_at, handle)
                  VALUES ('ada', 0, 1, 1, 5, x'0b6c7bb73f0a4a3e9a0e5f1d5c2f9d11')";
    db.execute_batch(insert).unwrap();
    migrate(&db, 3);
    let ada = accounts::by_name(&db, "ada").unwrap().unwrap();
    assert_eq!(ada.uuid.to_string(), "0b6c7bb7-3f0a-4a3e-9a0e-5f1d5c2f9d11");
}
