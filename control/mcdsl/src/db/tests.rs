//! The database: what is acknowledged is there, and one change does not hurt another.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::mpsc;
use std::task::Poll;
use std::time::Duration;

use rusqlite::params;
use tempfile::TempDir;

use super::*;

const FIRST: &str = "CREATE TABLE notes (text TEXT NOT NULL UNIQUE) STRICT";
const SCHEMA: Schema = Schema { application_id: 0x4d43_5445, migrations: &[FIRST] };
const NEXT: Schema = Schema { migrations: &[FIRST, "CREATE TABLE more (x)"], ..SCHEMA };
const BROKEN: Schema =
    Schema { migrations: &[FIRST, "CREATE TABLE more (x); INSERT INTO nowhere VALUES (1)"], ..SCHEMA };

fn open_new() -> (TempDir, Arc<Database>) {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(&folder.path().join("sub/test.db"), &SCHEMA, 2).unwrap();
    (folder, Arc::new(database))
}

async fn add(database: &Database, text: &str) -> Result<(), WriteError<rusqlite::Error>> {
    let text = text.to_owned();
    database.write(move |db| db.execute("INSERT INTO notes VALUES (?1)", [text]).map(|_| ())).await
}

fn count(db: &Connection) -> rusqlite::Result<i64> {
    db.query_row("SELECT count(*) FROM notes", [], |row| row.get(0))
}

#[tokio::test]
async fn what_is_written_is_read_and_there_when_it_is_opened_again() {
    let (folder, database) = open_new();
    add(&database, "one").await.unwrap();
    assert_eq!(database.read(count).await.unwrap(), 1);
    let path = database.path.clone();
    for file in [&path, &path.with_extension("db-wal"), &path.with_extension("db-shm")] {
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600, "{}", file.display());
    }
    assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
    let error = Database::open(&path, &SCHEMA, 1).unwrap_err();
    assert!(matches!(error, DbError::InUse(_)), "{error:?}");
    drop(database);
    let database = Database::open(&path, &SCHEMA, 1).unwrap();
    assert_eq!(database.read(count).await.unwrap(), 1);
    drop(folder);
}

/// A process that is being started has the lock with its parent's files, until it executes its program.
#[test]
fn a_lock_that_outlives_its_holder_for_a_moment_is_waited_for() {
    let (folder, database) = open_new();
    let path = database.path.clone();
    drop(database);
    let inherited = File::open(path.with_extension("db.lock")).unwrap();
    inherited.lock().unwrap();
    let (opened, is_opened) = mpsc::channel();
    let opening = std::thread::spawn(move || {
        let database = Database::open(&path, &SCHEMA, 1);
        opened.send(()).unwrap();
        database.map(drop)
    });
    assert!(is_opened.recv_timeout(Duration::from_millis(50)).is_err());
    drop(inherited);
    opening.join().unwrap().unwrap();
    drop(folder);
}

/// Changes that wait while another is written go to the disk together: within the group nothing of it is seen from outside.
#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_written_together() {
    let (_folder, database) = open_new();
    let (begun, is_begun) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel::<()>();
    let first = tokio::spawn({
        let database = Arc::clone(&database);
        async move {
            let work = move |db: &Connection| {
                begun.send(()).unwrap();
                may_go_on.recv().unwrap();
                db.execute("INSERT INTO notes VALUES ('first')", []).map(|_| ())
            };
            database.write(work).await
        }
    });
    tokio::task::spawn_blocking(move || is_begun.recv().unwrap()).await.unwrap();
    let mut others: Vec<_> = (0..100)
        .map(|number: u32| {
            let path = database.path.clone();
            let work = move |db: &Connection| {
                let outside = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
                let seen = count(&outside)?;
                db.execute("INSERT INTO notes VALUES (?1)", [number.to_string()])?;
                Ok::<_, rusqlite::Error>((seen, count(db)?))
            };
            Box::pin(database.write(work))
        })
        .collect();
    // Each is in the queue once it was polled.
    for other in &mut others {
        let polled = std::future::poll_fn(|cx| Poll::Ready(other.as_mut().poll(cx).is_pending()));
        assert!(polled.await, "it waits for the first");
    }
    go_on.send(()).unwrap();
    first.await.unwrap().unwrap();
    let mut seen = Vec::new();
    for other in others {
        seen.push(other.await.unwrap());
    }
    assert_eq!(seen.iter().map(|(_, inside)| *inside).collect::<Vec<_>>(), (2..=101).collect::<Vec<_>>());
    assert!(seen.iter().all(|(outside, _)| *outside == 1), "{seen:?}");
    assert_eq!(database.read(count).await.unwrap(), 101);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_fails_or_panics_leaves_the_others_as_they_are() {
    let (_folder, database) = open_new();
    add(&database, "taken").await.unwrap();
    let fails = |number: u32| {
        let database = Arc::clone(&database);
        tokio::spawn(async move {
            let work = move |db: &Connection| {
                db.execute("INSERT INTO notes VALUES (?1)", params![format!("half {number}")])?;
                assert_ne!(number % 3, 2, "on purpose");
                db.execute("INSERT INTO notes VALUES ('taken')", []).map(|_| ())
            };
            database.write(work).await
        })
    };
    let mut waiting = Vec::new();
    for number in 0..30 {
        waiting.push((number, fails(number)));
        add(&database, &format!("whole {number}")).await.unwrap();
    }
    for (number, change) in waiting {
        match change.await {
            Ok(told) => assert!(matches!(told, Err(WriteError::Refused(_))), "{number}: {told:?}"),
            Err(panicked) => assert!(panicked.is_panic() && number % 3 == 2),
        }
    }
    let texts = |db: &Connection| -> rusqlite::Result<Vec<String>> {
        db.prepare("SELECT text FROM notes")?.query_map([], |row| row.get(0))?.collect()
    };
    let texts = database.read(texts).await.unwrap();
    assert_eq!(texts.len(), 31, "{texts:?}");
    assert!(texts.iter().all(|text| text == "taken" || text.starts_with("whole")), "{texts:?}");
}

#[tokio::test]
async fn a_full_disk_is_said_and_got_over() {
    let (_folder, database) = open_new();
    let limit = |db: &Connection| db.query_row("PRAGMA max_page_count = 8", [], |_| Ok(()));
    database.write(limit).await.unwrap();
    let long = "x".repeat(100_000);
    let error = add(&database, &long).await.unwrap_err();
    let WriteError::Refused(error) = error else { panic!("{error:?}") };
    assert!(matches!(DbError::sqlite(&database.path, error), DbError::Full(_)));
    add(&database, "short").await.unwrap();
    assert_eq!(database.read(count).await.unwrap(), 1);
}

#[test]
fn a_migration_that_fails_leaves_the_database_as_it_was() {
    let (folder, database) = open_new();
    let path = database.path.clone();
    drop(database);
    let before = fs::read(&path).unwrap();
    assert!(Database::open(&path, &BROKEN, 1).is_err());
    assert_eq!(fs::read(&path).unwrap(), before);
    drop(Database::open(&path, &NEXT, 1).unwrap());
    // Each attempt leaves a copy of before, which the older program can go on with.
    for number in 1..=2 {
        let name = format!("{}-before-migration-1-{number}.db", path.file_stem().unwrap().display());
        let copy = path.parent().unwrap().join("backups").join(name);
        assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
        drop(Database::open(&copy, &SCHEMA, 1).unwrap());
    }
    let error = Database::open(&path, &SCHEMA, 1).unwrap_err();
    assert!(matches!(error, DbError::Newer { found: 2, known: 1, .. }), "{error:?}");
    let other = Schema { application_id: 1, ..NEXT };
    let error = Database::open(&path, &other, 1).unwrap_err();
    assert!(matches!(error, DbError::OtherApplication { .. }), "{error:?}");
    drop(folder);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_whole_while_others_write() {
    let (folder, database) = open_new();
    for number in 0..50 {
        add(&database, &format!("{number}")).await.unwrap();
    }
    let writing = tokio::spawn({
        let database = Arc::clone(&database);
        async move {
            for number in 50..150 {
                add(&database, &format!("{number}")).await.unwrap();
            }
        }
    });
    let to = folder.path().join("copy.db");
    database.snapshot(&to).await.unwrap();
    writing.await.unwrap();
    assert_eq!(fs::metadata(&to).unwrap().permissions().mode() & 0o777, 0o600);
    let copy = Database::open(&to, &SCHEMA, 1).unwrap();
    assert!(copy.check().await.unwrap().is_empty());
    assert!((50..=150).contains(&copy.read(count).await.unwrap()));
    assert!(database.check().await.unwrap().is_empty());
    // What is there is not overwritten.
    assert!(database.snapshot(&to).await.is_err());
    assert!((50..=150).contains(&copy.read(count).await.unwrap()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_sees_one_state_and_holds_nobody_up() {
    let (_folder, database) = open_new();
    add(&database, "before").await.unwrap();
    let (begun, is_begun) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel::<()>();
    let reading = tokio::spawn({
        let database = Arc::clone(&database);
        async move {
            let twice = move |db: &Connection| {
                let first = count(db)?;
                begun.send(()).unwrap();
                may_go_on.recv().unwrap();
                Ok((first, count(db)?))
            };
            database.read(twice).await.unwrap()
        }
    });
    tokio::task::spawn_blocking(move || is_begun.recv().unwrap()).await.unwrap();
    add(&database, "meanwhile").await.unwrap();
    assert_eq!(database.read(count).await.unwrap(), 2);
    go_on.send(()).unwrap();
    assert_eq!(reading.await.unwrap(), (1, 1));
    // One that panics gives its connection back.
    for _ in 0..3 {
        let database = Arc::clone(&database);
        let panicking =
            tokio::spawn(
                async move { database.read(|_| -> rusqlite::Result<()> { panic!("on purpose") }).await },
            );
        assert!(panicking.await.unwrap_err().is_panic());
    }
    assert_eq!(database.read(count).await.unwrap(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_follows_a_change_follows_it_even_if_nobody_waits() {
    let (_folder, database) = open_new();
    let (begun, is_begun) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel::<()>();
    let (followed, has_followed) = mpsc::channel();
    let asking = tokio::spawn({
        let database = Arc::clone(&database);
        async move {
            let work = move |db: &Connection| {
                begun.send(()).unwrap();
                may_go_on.recv().unwrap();
                db.execute("INSERT INTO notes VALUES ('there')", [])
            };
            database.write_then(work, move |rows| followed.send(*rows).unwrap()).await
        }
    });
    tokio::task::spawn_blocking(move || is_begun.recv().unwrap()).await.unwrap();
    asking.abort();
    assert!(asking.await.unwrap_err().is_cancelled());
    go_on.send(()).unwrap();
    let rows =
        tokio::task::spawn_blocking(move || has_followed.recv_timeout(Duration::from_secs(60)).unwrap());
    assert_eq!(rows.await.unwrap(), 1);
    assert_eq!(database.read(count).await.unwrap(), 1);
    // What fails has nothing that follows.
    let failing = |db: &Connection| db.execute("INSERT INTO nothing VALUES (1)", []);
    assert!(database.write_then(failing, |_rows| panic!("on purpose")).await.is_err());
}
