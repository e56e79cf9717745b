//! Changes with their entries, refusals, lists, exports and verification, on a database of their own.

use std::sync::Arc;

use futures_util::TryStreamExt as _;
use mc_api::audit::{ExportAuditRequest, ListAuditRequest, VerifyAuditRequest};

use super::*;
use crate::db::Schema;

const SCHEMA: Schema = Schema {
    application_id: 0x7465_7374,
    migrations: &[TABLE, "CREATE TABLE things (name TEXT NOT NULL) STRICT;"],
};

struct Log {
    db: Arc<AuditedDatabase>,
    clock: Clock,
    _folder: tempfile::TempDir,
}

fn log() -> Log {
    let folder = tempfile::tempdir().unwrap();
    let db = Database::open(&folder.path().join("test.db"), &SCHEMA, 2).unwrap();
    let clock = Clock::system();
    let revalidate: Revalidate = |_db, context, _now| match context.request_id.as_ref() {
        "revoked" => Err(Problem::unauthenticated("The token is no longer valid.").into()),
        _ => Ok(()),
    };
    let service = Name::parse("test").unwrap();
    let db = Arc::new(AuditedDatabase::new(db, clock.clone(), service, revalidate));
    Log { db, clock, _folder: folder }
}

fn permit() -> Permit {
    Permit::for_job("test", "thing.add")
}

impl Log {
    async fn add(&self, name: &'static str) {
        let added = self.db.change(Event::from(permit()).with_target(name), move |db, _event| {
            Ok(db.execute("INSERT INTO things VALUES (?1)", [name])?)
        });
        added.await.unwrap();
    }

    async fn refuse(&self, target: &str, reason: &'static str) {
        let event = Event::of(RequestContext::of_job("test"), "thing.remove").with_target(target);
        let problem = Problem::new(Kind::Forbidden, reason, "No.");
        assert_eq!(self.db.refuse(event, problem.clone()).await, problem);
    }

    /// `action outcome target detail` of each entry, the newest first.
    async fn entries(&self, request: ListAuditRequest) -> Vec<String> {
        let found = self.db.list(permit(), request).await.unwrap().entries;
        let line = |entry: mc_api::audit::AuditEntry| {
            format!("{} {} {} {}", entry.action, entry.outcome, entry.target, entry.detail)
        };
        found.into_iter().map(line).collect()
    }
}

#[tokio::test]
async fn a_change_has_its_entry_and_one_that_changes_nothing_has_none() {
    let log = log();
    log.add("a").await;
    let unchanged = log.db.change(permit(), |_db, event| {
        event.unchanged();
        Ok(())
    });
    unchanged.await.unwrap();
    let refused = log.db.change(permit(), |db, _event| -> Result<(), Fault> {
        db.execute("INSERT INTO things VALUES ('b')", [])?;
        Err(Problem::new(Kind::FailedPrecondition, "no", "No.").into())
    });
    refused.await.unwrap_err();
    let things =
        log.db.read(|db| db.query_row("SELECT count(*) FROM things", [], |row| row.get::<_, i64>(0)));
    assert_eq!(things.await.unwrap(), 1);
    assert_eq!(log.entries(ListAuditRequest::default()).await, ["thing.add done a "]);
}

#[tokio::test]
async fn what_follows_a_change_follows_only_a_change() {
    let log = log();
    let followed = Arc::new(std::sync::atomic::AtomicU32::new(0));
    for changes in [true, false] {
        let followed = Arc::clone(&followed);
        let work = move |_db: &Connection, event: &mut Event| {
            if !changes {
                event.unchanged();
            }
            Ok(())
        };
        let then = move |(): &()| {
            followed.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        };
        log.db.change_then(permit(), work, then).await.unwrap();
    }
    assert_eq!(followed.load(std::sync::atomic::Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_caller_who_is_no_longer_valid_changes_nothing() {
    let log = log();
    let context = RequestContext { request_id: "revoked".into(), ..RequestContext::of_job("test") };
    let event = Event::of(context, "thing.add");
    let problem = log.db.change(event, |_db, _event| Ok(())).await.unwrap_err();
    assert_eq!(problem.kind, Kind::Unauthenticated);
    assert_eq!(log.entries(ListAuditRequest::default()).await, ["thing.add refused  unauthenticated"]);
}

#[tokio::test]
async fn refusals_of_one_kind_are_coalesced() {
    let log = log();
    for _ in 0..100 {
        log.refuse("thing", "forbidden").await;
    }
    log.refuse("thing", "denied-by-policy").await;
    assert_eq!(
        log.entries(ListAuditRequest::default()).await,
        ["thing.remove refused thing denied-by-policy", "thing.remove refused thing forbidden"]
    );
    log.db.write_refusals(false).await.unwrap();
    assert_eq!(log.entries(ListAuditRequest::default()).await.len(), 2);
    log.clock.pass(REFUSALS_WINDOW);
    // Counted until it is written, however late that is.
    log.refuse("thing", "forbidden").await;
    log.db.write_refusals(false).await.unwrap();
    assert_eq!(
        log.entries(ListAuditRequest::default()).await[0],
        "thing.remove refused thing forbidden (100 times)"
    );
    log.refuse("thing", "forbidden").await;
    assert_eq!(log.entries(ListAuditRequest::default()).await.len(), 4);
}

#[tokio::test]
async fn a_refusal_keeps_its_reason_beside_its_details_and_its_target_beside_others() {
    let log = log();
    let event =
        Event::of(RequestContext::of_job("test"), "thing.remove").with_target("a").with_detail("for mcr");
    log.db.refuse(event, Problem::new(Kind::Forbidden, "denied-by-policy", "No.")).await;
    log.refuse("a", "forbidden").await;
    log.refuse("b", "forbidden").await;
    assert_eq!(
        log.entries(ListAuditRequest::default()).await,
        [
            "thing.remove refused b forbidden",
            "thing.remove refused a forbidden",
            "thing.remove refused a denied-by-policy; for mcr"
        ]
    );
}

#[tokio::test]
async fn refusals_that_cannot_be_written_are_written_later() {
    let log = log();
    log.refuse("a", "forbidden").await;
    log.refuse("a", "forbidden").await;
    let fail = |is_failing: bool| {
        let change = if is_failing {
            "CREATE TEMP TRIGGER fail BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'disk'); END"
        } else {
            "DROP TRIGGER fail"
        };
        log.db.database().write(move |db| db.execute_batch(change))
    };
    fail(true).await.unwrap();
    log.clock.pass(REFUSALS_WINDOW);
    log.db.write_refusals(false).await.unwrap_err();
    // Neither is one that nobody has seen yet.
    let event = Event::of(RequestContext::of_job("test"), "thing.remove").with_target("b");
    let problem = log.db.refuse(event, Problem::new(Kind::Forbidden, "forbidden", "No.")).await;
    assert_eq!(problem.kind, Kind::Internal);
    fail(false).await.unwrap();
    log.refuse("a", "forbidden").await;
    log.db.write_refusals(true).await.unwrap();
    let mut entries = log.entries(ListAuditRequest::default()).await;
    entries.sort();
    assert_eq!(
        entries,
        [
            "thing.remove refused a forbidden",
            "thing.remove refused a forbidden (2 times)",
            "thing.remove refused b forbidden"
        ]
    );
}

#[test]
fn a_disk_that_fails_is_storage() {
    let error = rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(778), None);
    let problem = storage(&DbError::sqlite(std::path::Path::new("test.db"), error));
    assert_eq!((problem.kind, problem.reason), (Kind::Unavailable, "storage"));
}

#[tokio::test]
async fn lists_are_filtered_and_paged() {
    let log = log();
    for name in ["a", "b", "c"] {
        log.add(name).await;
    }
    log.refuse("a", "forbidden").await;
    let only = |change: fn(&mut ListAuditRequest)| {
        let mut request = ListAuditRequest::default();
        change(&mut request);
        log.entries(request)
    };
    assert_eq!(
        only(|it| it.account = Some("a".into())).await,
        ["thing.remove refused a forbidden", "thing.add done a "]
    );
    assert_eq!(only(|it| it.account = Some("job test".into())).await.len(), 4);
    assert_eq!(only(|it| it.action = Some("thing.remove".into())).await.len(), 1);
    assert_eq!(only(|it| it.outcome = Some("done".into())).await.len(), 3);
    assert_eq!(only(|it| it.target = Some("b".into())).await, ["thing.add done b "]);
    assert_eq!(only(|it| it.since_ms = Some(i64::MAX)).await.len(), 0);
    assert_eq!(only(|it| it.until_ms = Some(0)).await.len(), 0);
    let mut seen = 0;
    let mut request = ListAuditRequest { limit: Some(3), ..ListAuditRequest::default() };
    loop {
        let page = log.db.list(permit(), request.clone()).await.unwrap();
        seen += page.entries.len();
        let Some(next) = page.next else { break };
        request.before = Some(next);
    }
    assert_eq!(seen, 4);
    for (wrong, field) in [
        (ListAuditRequest { limit: Some(0), ..ListAuditRequest::default() }, "limit"),
        (ListAuditRequest { before: Some("x".into()), ..ListAuditRequest::default() }, "before"),
        (ListAuditRequest { outcome: Some("maybe".into()), ..ListAuditRequest::default() }, "outcome"),
    ] {
        assert_eq!(log.db.list(permit(), wrong).await.unwrap_err().field.as_deref(), Some(field));
    }
}

#[tokio::test]
async fn an_export_has_every_entry_in_order() {
    let log = log();
    let fill = log.db.database().write(|db| {
        for number in 0..2500 {
            let event =
                Event::of(RequestContext::of_job("test"), "thing.add").with_target(format!("{number}"));
            store::append(db, event.entry(&Name::parse("test").unwrap(), number, Outcome::Done))?;
        }
        Ok::<_, rusqlite::Error>(())
    });
    fill.await.unwrap();
    let export = |request| log.db.export(permit(), request).unwrap().try_collect::<Vec<_>>();
    let all = export(ExportAuditRequest::default()).await.unwrap();
    assert!(all.len() == 2500 && all.iter().zip(1..).all(|(entry, number)| entry.number == number));
    let some = ExportAuditRequest {
        after: Some(2000),
        target: Some("2400".into()),
        ..ExportAuditRequest::default()
    };
    assert_eq!(export(some).await.unwrap().len(), 1);
}

#[tokio::test]
async fn verification_goes_slice_by_slice_and_finds_what_was_changed() {
    let log = log();
    for name in ["a", "b", "c", "d", "e"] {
        log.add(name).await;
    }
    let verify = |request| log.db.verify(permit(), request);
    let first = verify(VerifyAuditRequest { limit: Some(2), ..VerifyAuditRequest::default() }).await.unwrap();
    assert_eq!((first.intact, first.complete, first.last_entry), (true, false, 2));
    let from = |number, hash: &str| VerifyAuditRequest {
        after_entry: Some(number),
        after_hash: Some(hash.to_owned()),
        limit: None,
    };
    let rest = verify(from(2, &first.last_hash)).await.unwrap();
    assert_eq!((rest.intact, rest.complete, rest.last_entry), (true, true, 5));
    let end = verify(from(5, &rest.last_hash)).await.unwrap();
    assert_eq!((end.intact, end.complete, end.last_entry), (true, true, 5));
    // A checkpoint of another log, of an entry that is gone, and what is not one.
    for request in [from(3, &first.last_hash), from(6, &rest.last_hash)] {
        let found = verify(request).await.unwrap();
        assert!(!found.intact && found.problem.unwrap().contains("rewritten"));
    }
    for (request, field) in [
        (from(0, &first.last_hash), "after_entry"),
        (from(2, "xy"), "after_hash"),
        (VerifyAuditRequest { after_entry: Some(2), ..VerifyAuditRequest::default() }, "after_hash"),
    ] {
        assert_eq!(verify(request).await.unwrap_err().field.as_deref(), Some(field));
    }
    let change = log.db.database().write(|db| {
        db.execute_batch("DROP TRIGGER audit_stays; UPDATE audit SET target = 'x' WHERE number = 4;")
    });
    change.await.unwrap();
    let found = verify(VerifyAuditRequest::default()).await.unwrap();
    assert_eq!((found.intact, found.complete, found.last_entry), (false, false, 3));
    assert!(found.problem.unwrap().starts_with("Entry 4 "));
}

#[tokio::test]
async fn entries_are_kept() {
    let log = log();
    log.add("a").await;
    for change in ["UPDATE audit SET target = 'x'", "DELETE FROM audit"] {
        let refused = log.db.database().write(move |db| db.execute(change, [])).await;
        assert!(refused.is_err(), "{change}");
    }
}

#[test]
fn without_a_database_refusals_are_logged_and_coalesced() {
    let clock = Clock::system();
    let log = RefusalLog::new(Name::parse("test").unwrap(), clock.clone());
    let problem = Problem::forbidden("No.");
    let lines = |target: &str, many: usize| -> usize {
        let context = RequestContext::of_job("test");
        (0..many).map(|_| log.refused(&context, "thing.remove", target, &problem)).sum()
    };
    assert_eq!((lines("a", 100), lines("b", 100)), (1, 1));
    clock.pass(REFUSALS_WINDOW);
    // The counted ones of both, and this one.
    assert_eq!(lines("a", 1), 3);
    clock.pass(REFUSALS_WINDOW);
    assert_eq!(lines("a", 1), 1, "nothing was counted since");
}
