//! Acknowledged changes are never lost: kills, a full disk, a flood of logins.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mc_testkit::mcias::{Answer, Connection, Mcias, PASSWORD, introspect};
use mc_testkit::trace::{STRACE, violations_behind_tls};
use mc_testkit::{clock, fresh_ip, heavy, requires, rounds};
use serde_json::{Value, json};

/// What was acknowledged.
#[derive(Debug, Default)]
struct Acknowledged {
    /// People who were made, and whether they became guests.
    people: BTreeMap<String, bool>,
    /// Tokens that were issued and that nobody tried to revoke, by id.
    issued: BTreeMap<String, String>,
    /// Tokens that were revoked.
    revoked: BTreeMap<String, String>,
    /// Sessions that began, and that nobody tried to end.
    entered: BTreeMap<String, String>,
    /// Sessions that were ended.
    left: BTreeMap<String, String>,
}

impl Acknowledged {
    fn merge(&mut self, other: Self) {
        self.people.extend(other.people);
        self.issued.extend(other.issued);
        self.revoked.extend(other.revoked);
        self.entered.extend(other.entered);
        self.left.extend(other.left);
    }

    fn count(&self) -> usize {
        let guests = self.people.values().filter(|is_guest| **is_guest).count();
        let twice = self.revoked.len() + self.left.len();
        self.people.len() + guests + self.issued.len() + self.entered.len() + 2 * twice
    }
}

/// Counts the answer, where there is one before the connection breaks.
fn acknowledged(heard: &AtomicUsize, answer: io::Result<Answer>) -> Option<Answer> {
    let answer = answer.ok()?;
    heard.fetch_add(1, Ordering::SeqCst);
    assert!(matches!(answer.status, 200 | 201), "{} {}", answer.status, answer.text);
    Some(answer)
}

/// Creates people and makes each a guest, until the connection breaks.
fn make_people(mut connection: Connection, heard: &AtomicUsize, admin: &str, round: usize) -> Acknowledged {
    let mut done = Acknowledged::default();
    for number in 0.. {
        let name = format!("p{number}.k{round}");
        let body = json!({ "name": name, "account_type": "human", "roles": ["user"] });
        let Some(_) = acknowledged(heard, connection.ask("POST", "/v1/accounts", admin, &body)) else {
            break;
        };
        done.people.insert(name.clone(), false);
        let body = json!({ "enabled": true, "roles": ["guest"], "tags": [], "revision": 1 });
        let Some(_) =
            acknowledged(heard, connection.ask("PUT", &format!("/v1/accounts/{name}"), admin, &body))
        else {
            break;
        };
        done.people.insert(name, true);
    }
    done
}

/// Issues tokens, and revokes every other one.
fn issue_tokens(mut connection: Connection, heard: &AtomicUsize, admin: &str) -> Acknowledged {
    let mut done = Acknowledged::default();
    for number in 0.. {
        let answer = connection.ask(
            "POST",
            "/v1/accounts/mcr/tokens",
            admin,
            &json!({ "label": format!("t{number}"), "audience": ["mcias", "mcr"] }),
        );
        let Some(answer) = acknowledged(heard, answer) else { break };
        let (id, token) =
            (answer.body["details"]["id"].as_str().unwrap().to_owned(), answer.text_of("token"));
        if number % 2 == 0 {
            done.issued.insert(id, token);
            continue;
        }
        let path = format!("/v1/accounts/mcr/tokens/{id}");
        let Some(_) = acknowledged(heard, connection.ask("DELETE", &path, admin, &Value::Null)) else {
            break;
        };
        done.revoked.insert(id, token);
    }
    done
}

/// Logs in, and out again every other time.
fn come_and_go(mut connection: Connection, heard: &AtomicUsize) -> Acknowledged {
    let mut done = Acknowledged::default();
    let body = json!({ "username": "bob", "password": PASSWORD, "audience": ["mcias", "mcr"] });
    for number in 0.. {
        let Some(answer) = acknowledged(heard, connection.ask("POST", "/v1/login", "", &body)) else { break };
        let (id, token) = (answer.text_of("session_id"), answer.text_of("token"));
        if number % 2 == 0 {
            done.entered.insert(id, token);
            continue;
        }
        let Some(_) = acknowledged(heard, connection.ask("POST", "/v1/me/logout", &token, &Value::Null))
        else {
            break;
        };
        done.left.insert(id, token);
    }
    done
}

/// Several write at once, and the server is killed so long after the first answers; what was acknowledged.
fn write_until_killed(mcias: &mut Mcias, admin: &str, round: usize, after: Duration) -> Acknowledged {
    let [people, tokens, bob] = [(); 3].map(|()| mcias.connection());
    let heard = &AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let writers = [
            scope.spawn(move || make_people(people, heard, admin, round)),
            scope.spawn(move || issue_tokens(tokens, heard, admin)),
            scope.spawn(move || come_and_go(bob, heard)),
        ];
        clock::wait_until("changes to be acknowledged", || heard.load(Ordering::SeqCst) >= 5);
        clock::sleep(after);
        mcias.kill9();
        let mut done = Acknowledged::default();
        writers.into_iter().for_each(|writer| done.merge(writer.join().unwrap()));
        done
    })
}

/// Checks what was acknowledged by requests to the server.
fn is_there(mcias: &Mcias, admin: &str, service: &str, done: &Acknowledged) {
    let mut connection = mcias.connection();
    for (name, is_guest) in &done.people {
        let found = connection.ask("GET", &format!("/v1/accounts/{name}"), admin, &Value::Null).unwrap();
        assert_eq!(found.status, 200, "{name}: {}", found.text);
        let guest = found.body["roles"] == json!(["guest"]);
        assert!(guest || (!is_guest && found.body["roles"] == json!(["user"])), "{name}: {}", found.text);
    }
    let good = done.issued.values().chain(done.entered.values()).map(|token| (token, true));
    let ended = done.revoked.values().chain(done.left.values()).map(|token| (token, false));
    for (token, is_good) in good.chain(ended) {
        let told = introspect(&mut connection, service, token).unwrap();
        assert_eq!((told.status, &told.body["active"]), (200, &json!(is_good)), "{}", told.text);
    }
}

#[test]
fn kills_during_writes_lose_nothing_acknowledged() {
    let kills = rounds(10, 200);
    let _machine = heavy();
    let mut mcias = Mcias::start_with("", &[]);
    let admin = mcias.login("ada");
    let service = mcias.service(&admin, "mcr", &[]);
    mcias.person(&admin, "bob", &["user"]);
    let mut all = Acknowledged::default();
    let mut moments = fastrand::Rng::with_seed(7);
    for round in 0..kills {
        let after = Duration::from_micros(moments.u64(500..60_000));
        let done = write_until_killed(&mut mcias, &admin, round, after);
        mcias.restart(&[]);
        is_there(&mcias, &admin, &service, &done);
        all.merge(done);
        if round % 20 == 0 {
            is_intact(&mcias, &admin);
        }
    }
    is_intact(&mcias, &admin);
    mcias.stop();
    let db = rusqlite::Connection::open(mcias.database()).unwrap();
    is_stored(&db, &all);
    let count = all.count();
    assert!(count > 2 * kills, "only {count} changes were acknowledged");
    println!("{count} changes acknowledged, {kills} kills, none lost");
}

fn is_intact(mcias: &Mcias, admin: &str) {
    let verdict = mcias.done("POST", "/v1/audit/verify", admin, &json!({}));
    assert_eq!(verdict["intact"], json!(true), "{verdict}");
}

/// Checks that everything acknowledged is in the database, each with its audit entry.
fn is_stored(db: &rusqlite::Connection, all: &Acknowledged) {
    let rows = |sql: &str| -> BTreeSet<(String, String)> {
        let mut select = db.prepare(sql).unwrap();
        select.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect()
    };
    let people = rows("SELECT name, CAST(roles AS TEXT) FROM accounts");
    let created = rows("SELECT target, '' FROM audit WHERE action = 'account.create' AND outcome = 'done'");
    let updated = rows("SELECT target, '' FROM audit WHERE action = 'account.update' AND outcome = 'done'");
    for (name, is_guest) in &all.people {
        let has = |roles: &str| people.contains(&(name.clone(), roles.to_owned()));
        assert!(has("4") || (!is_guest && has("2")), "{name} is lost");
        assert!(created.contains(&(name.clone(), String::new())), "{name} is not in the log");
        assert!(
            !is_guest || updated.contains(&(name.clone(), String::new())),
            "the change of {name} is not in the log"
        );
    }
    let tokens = rows("SELECT id, CASE WHEN revoked_at IS NULL THEN 'good' ELSE 'ended' END FROM tokens");
    let issued = rows("SELECT substr(detail, -37, 36), '' FROM audit WHERE action = 'token.issue'");
    let revoked = rows("SELECT detail, '' FROM audit WHERE action = 'token.revoke'");
    for id in all.issued.keys().chain(all.entered.keys()) {
        assert!(tokens.contains(&(id.clone(), "good".to_owned())), "{id} is lost");
    }
    for id in all.revoked.keys().chain(all.left.keys()) {
        assert!(tokens.contains(&(id.clone(), "ended".to_owned())), "the end of {id} is lost");
    }
    for id in all.issued.keys().chain(all.revoked.keys()) {
        assert!(issued.contains(&(id.clone(), String::new())), "{id} is not in the log");
    }
    for id in all.revoked.keys() {
        assert!(revoked.contains(&(id.clone(), String::new())), "the end of {id} is not in the log");
    }
    let count = |action: &str| -> i64 {
        let select = "SELECT count(*) FROM audit WHERE action = ?1 AND target = 'bob' AND outcome = 'done'";
        db.query_row(select, [action], |row| row.get(0)).unwrap()
    };
    let logins = all.entered.len() + all.left.len();
    assert!(count("login") >= i64::try_from(logins).unwrap(), "logins are not in the log");
    assert!(count("logout") >= i64::try_from(all.left.len()).unwrap(), "logouts are not in the log");
}

#[test]
fn a_change_is_on_the_disk_before_it_is_acknowledged() {
    requires!("strace");
    let found = traced(&[]);
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn the_trace_shows_a_server_that_acknowledges_too_early() {
    requires!("strace");
    let found = traced(&[("MC_FAULT", "early-ack")]);
    assert_eq!(found.len(), CHANGES, "the planted fault was not found: {found:#?}");
    assert!(found[0].contains("acknowledged before"), "{found:#?}");
}

const CHANGES: usize = 20;

/// Makes accounts in a traced server with these variables in its environment; what is wrong with the order of its system calls.
fn traced(environment: &[(&str, &str)]) -> Vec<String> {
    let program = Path::new(env!("CARGO_BIN_EXE_mcias"));
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace");
    let under = format!("{} -o {} --", STRACE.join(" "), trace.display());
    let wrapper = server_under(folder.path(), program, &format!("exec {under} {} \"$@\"", program.display()));
    let mut mcias = Mcias::start_program(&wrapper, "", environment);
    let names: Vec<String> = (0..CHANGES).map(|number| format!("traced-{number}-x")).collect();
    let mut connection = mcias.connection();
    let login = json!({ "username": "ada", "password": PASSWORD });
    let admin = connection.ask("POST", "/v1/login", "", &login).unwrap().text_of("token");
    // The first is not judged: an earlier connection may still be ending.
    for name in std::iter::once("warm-up").chain(names.iter().map(String::as_str)) {
        let body = json!({ "name": name, "account_type": "human" });
        assert_eq!(connection.ask("POST", "/v1/accounts", &admin, &body).unwrap().status, 201);
    }
    drop(connection);
    mcias.stop();
    // The tracer writes its last lines when the program has ended.
    let read = || String::from_utf8_lossy(&std::fs::read(&trace).unwrap_or_default()).into_owned();
    clock::wait_until("the trace to be complete", || read().contains("exited with"));
    violations_behind_tls(&read(), &names)
}

/// A program that is another one, but whose server is started by these lines of shell.
pub(crate) fn server_under(folder: &Path, program: &Path, lines: &str) -> PathBuf {
    let wrapper = folder.join("wrapper");
    let text =
        format!("#!/bin/sh\nset -eu\n[ \"$1\" = serve ] || exec {} \"$@\"\n{lines}\n", program.display());
    std::fs::write(&wrapper, text).unwrap();
    std::fs::set_permissions(&wrapper, std::fs::Permissions::from_mode(0o755)).unwrap();
    wrapper
}

#[test]
fn a_full_disk_refuses_changes_and_keeps_reads() {
    requires!(root, "unshare", "mount");
    let folder = tempfile::tempdir().unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_mcias"));
    // The server's root is a file system of its own, which nobody else sees and which goes with it.
    let lines = format!(
        "root=$(dirname \"$3\")\nmkdir -p \"$root/small\"\nexec unshare --mount sh -c '\
         mount -t tmpfs -o size=2m none \"$1/small\" && cp -a \"$1\"/mcias.db* \"$1/certs\" \"$1/small\" && \
         exec {} serve --config \"$1/mcias.toml\" --root \"$1/small\"' sh \"$root\"",
        program.display()
    );
    let mcias = Mcias::start_program(&server_under(folder.path(), program, &lines), "", &[]);
    let small = PathBuf::from(format!("/proc/{}/root", mcias.process().pid()))
        .join(mcias.folder().join("small").strip_prefix("/").unwrap());
    let admin = mcias.login("ada");
    let service = mcias.service(&admin, "mcr", &[]);
    mcias.person(&admin, "bob", &["user"]);
    let bob = mcias.login("bob");
    let filler = small.join("filler");
    let filled = std::fs::write(&filler, vec![1; 4 << 20]);
    assert_eq!(filled.unwrap_err().kind(), io::ErrorKind::StorageFull);
    let refused = fill_up(&mcias, &admin, &service, &bob);
    std::fs::remove_file(&filler).unwrap();
    // Changes work again, and what was refused does not exist.
    let made =
        mcias.ask("POST", "/v1/accounts", &admin, &json!({ "name": "after", "account_type": "human" }));
    assert_eq!(made.status, 201, "{}", made.text);
    drop(mcias.login("bob"));
    for name in &refused {
        assert_eq!(
            mcias.ask("GET", &format!("/v1/accounts/{name}"), &admin, &Value::Null).status,
            404,
            "{name}"
        );
    }
    is_intact(&mcias, &admin);
    let copy = folder.path().join("copy.db");
    for end in ["", "-wal"] {
        let from = small.join(format!("mcias.db{end}"));
        std::fs::copy(from, folder.path().join(format!("copy.db{end}"))).unwrap();
    }
    let db = rusqlite::Connection::open(copy).unwrap();
    let check: String = db.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");
    for name in &refused {
        let entries: i64 = db
            .query_row("SELECT count(*) FROM audit WHERE target = ?1 AND outcome = 'done'", [name], |row| {
                row.get(0)
            })
            .unwrap();
        assert_eq!(entries, 0, "{name}");
    }
}

/// Writes on a full disk, over several connections at once. Returns the accounts that were refused.
fn fill_up(mcias: &Mcias, admin: &str, service: &str, bob: &str) -> Vec<String> {
    let is_refused = |answer: &Answer| {
        let refused = !matches!(answer.status, 200 | 201);
        let told = (answer.status, answer.body["reason"].as_str().unwrap_or_default());
        assert!(!refused || told == (503, "storage"), "{}", answer.text);
        refused
    };
    let write = |writer: usize| {
        let (mut connection, mut refused, mut made) = (mcias.connection(), Vec::new(), Vec::new());
        for number in 0..40 {
            let name = format!("w{writer}-{number}");
            let body = json!({ "name": name, "account_type": "human", "tags": ["a", "b", "c"] });
            let answer = connection.ask("POST", "/v1/accounts", admin, &body).unwrap();
            if is_refused(&answer) { refused.push(name) } else { made.push(name) }
        }
        (refused, made)
    };
    let written: Vec<_> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..4).map(|writer| scope.spawn(move || write(writer))).collect();
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    let (refused, made): (Vec<_>, Vec<_>) = written.into_iter().unzip();
    let refused: Vec<String> = refused.concat();
    assert!(refused.len() > 40, "only {} were refused", refused.len());
    for name in made.concat() {
        assert_eq!(
            mcias.ask("GET", &format!("/v1/accounts/{name}"), admin, &Value::Null).status,
            200,
            "{name}"
        );
    }
    // A login writes a session, and a refusal an audit entry: both fail.
    let login = |password| json!({ "username": "bob", "password": password });
    assert!(is_refused(&mcias.ask("POST", "/v1/login", "", &login(PASSWORD))));
    assert!(is_refused(&mcias.ask("POST", "/v1/login", "", &login("wrong"))));
    assert!(is_refused(&mcias.ask("GET", "/v1/accounts", bob, &Value::Null)));
    // Reads go on; an invalid token is only counted.
    assert_eq!(mcias.introspect(service, "nonsense").body["active"], json!(false));
    for token in [bob, admin] {
        let told = mcias.introspect(service, token);
        assert_eq!((told.status, &told.body["active"]), (200, &json!(true)), "{}", told.text);
        assert_eq!(mcias.ask("GET", "/v1/me", token, &Value::Null).status, 200);
    }
    assert_eq!(mcias.ask("GET", "/v1/audit", admin, &Value::Null).status, 200);
    refused
}

#[test]
fn a_flood_of_logins_stays_within_its_memory() {
    const LOGINS: usize = 200;
    const HASH_KIB: u64 = 19_456;
    let _machine = heavy();
    let places = 2;
    let environment = [
        ("MCIAS_PASSWORDS_ARGON2_MEMORY_KIB", "19456"),
        ("MCIAS_PASSWORDS_ARGON2_PASSES", "2"),
        ("MCIAS_PASSWORDS_CONCURRENT", "2"),
    ];
    let mcias = Mcias::start_with("", &environment);
    let admin = mcias.login("ada");
    let service = mcias.service(&admin, "mcr", &[]);
    let mut connections: Vec<Connection> =
        (0..LOGINS).map(|_| mcias.connection_from(fresh_ip()).unwrap()).collect();
    let base = memory_kib(&mcias, "VmRSS");
    let answers: Vec<Answer> = std::thread::scope(|scope| {
        let flood: Vec<_> = connections
            .iter_mut()
            .enumerate()
            .map(|(number, connection)| {
                let body = json!({ "username": format!("nobody-{number}"), "password": "wrong" });
                scope.spawn(move || connection.ask("POST", "/v1/login", "", &body).unwrap())
            })
            .collect();
        let mut asked = 0;
        while flood.iter().any(|login| !login.is_finished()) {
            assert_eq!(mcias.introspect(&service, &admin).body["active"], json!(true));
            asked += 1;
        }
        assert!(asked > 0, "none was answered during the flood");
        flood.into_iter().map(|login| login.join().unwrap()).collect()
    });
    let (refused, hashed): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 503);
    assert!(refused.len() > 10 && hashed.len() >= 50, "{} refused, {} hashed", refused.len(), hashed.len());
    for answer in refused {
        assert_eq!(answer.body["reason"], json!("busy"), "{}", answer.text);
        assert!(answer.head.to_ascii_lowercase().contains("retry-after: 1"), "{}", answer.head);
    }
    assert!(hashed.iter().all(|answer| answer.status == 401), "{hashed:?}");
    let most = memory_kib(&mcias, "VmHWM");
    let allowed = base + places * HASH_KIB + 24 * 1024;
    assert!(most < allowed, "{base} KiB before, {most} KiB at most, {allowed} KiB allowed");
    is_intact(&mcias, &admin);
}

fn memory_kib(mcias: &Mcias, what: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", mcias.process().pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(':'));
    line.unwrap().trim().trim_end_matches(" kB").parse().unwrap()
}
