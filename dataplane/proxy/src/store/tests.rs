//! The database: what is kept comes back, and what cannot be used is refused by name.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use mc_core::model::{
    Action, Backend, Balance, Check, CheckKind, CustomTlv, FirewallRule, Http, Mode, Protocol, ProxyIn,
    ProxyOut, Rate, Subject, TlvsOut,
};
use mcdsl::db::DbError;
use rusqlite::Connection;
use tempfile::TempDir;

use super::*;

fn directory() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sub/mc-proxy.db");
    (directory, path)
}

fn listener(name: &str) -> Listener {
    serde_json::from_value(serde_json::json!({ "name": name, "address": "127.0.0.1:443" })).unwrap()
}

fn route(name: &str) -> Route {
    let backends = [serde_json::json!({ "address": "192.0.2.1:443" })];
    serde_json::from_value(serde_json::json!({ "listener": "web", "name": name, "backends": backends }))
        .unwrap()
}

/// A route whose every setting is something else than the default.
fn odd_route(name: &str) -> Route {
    let tlvs = TlvsOut {
        alpn: true,
        authority: true,
        unique_id: true,
        crc32c: true,
        pass: true,
        custom: vec![CustomTlv { kind: 0xE1, value: "\"quoted\" é".to_owned() }],
    };
    let address = "[2001:db8::1]:8443".parse().unwrap();
    Route {
        owner: String::new(),
        listener: "web".to_owned(),
        name: name.to_owned(),
        alpn: "h2".to_owned(),
        any_depth: true,
        mode: Mode::L7,
        backends: vec![
            Backend {
                address,
                weight: 7,
                proxy_protocol: ProxyOut::V2,
                tlvs,
                protocol: Protocol::H2c,
                path: "/api".into(),
                server_name: "b.internal".into(),
            },
            route("").backends.remove(0),
        ],
        balance: Balance::SourceHash,
        connect_timeout_ms: 1,
        retries: 0,
        idle_timeout_ms: 2,
        total_timeout_ms: 3,
        max_connections: 4,
        max_connections_per_source: 5,
        check: Some(Check {
            kind: CheckKind::Https,
            interval_ms: 6,
            timeout_ms: 7,
            rise: 8,
            fall: 9,
            host: "check.example.org".to_owned(),
            path: "/health?a=b".to_owned(),
            service: String::new(),
        }),
        eject_after: 10,
        eject_ms: 11,
        slow_start_ms: 12,
        http: Http { max_body_bytes: 9, ..Http::default() },
    }
}

fn odd_listener() -> Listener {
    Listener {
        proxy_protocol: ProxyIn::Optional,
        trusted: vec!["192.0.2.0/24".parse().unwrap(), "2001:db8::/32".parse().unwrap()],
        hello_timeout_ms: 1,
        max_hello_bytes: 2,
        ..listener("odd")
    }
}

fn firewall() -> Firewall {
    let rule = |action, subject| FirewallRule { action, subject, comment: "because".to_owned() };
    Firewall {
        rules: vec![
            rule(Action::Deny, Subject::Cidr("198.51.100.0/24".parse().unwrap())),
            rule(Action::Allow, Subject::Country("CH".to_owned())),
            rule(Action::Deny, Subject::Asn(64496)),
        ],
        default: Action::Deny,
        rate: Rate { per_address: 1, address_burst: 2, per_prefix: 3, prefix_burst: 4 },
    }
}

/// Opens, makes the changes, closes; what is there when it is opened again.
fn after(changes: &[Change]) -> Loaded {
    let (_directory, path) = directory();
    let (mut store, _) = Store::open(&path).unwrap();
    for (index, change) in changes.iter().enumerate() {
        assert_eq!(store.commit(change).unwrap(), index as u64 + 1);
    }
    drop(store);
    let (_, loaded) = Store::open(&path).unwrap();
    assert_eq!(loaded.revision, changes.len() as u64);
    loaded
}

fn names(loaded: &Loaded) -> Vec<&str> {
    loaded.routes.iter().map(|route| &*route.name).collect()
}

#[test]
fn an_empty_database_is_not_seeded_and_a_seeded_one_stays_so() {
    let loaded = after(&[]);
    assert!(!loaded.seeded && loaded.listeners.is_empty() && loaded.routes.is_empty());
    assert_eq!(loaded.firewall, Firewall::default());
    let loaded = after(&[Change::Seed { listeners: vec![], routes: vec![], firewall: Firewall::default() }]);
    assert!(loaded.seeded);
}

#[test]
fn every_setting_comes_back_as_it_was() {
    let listeners = vec![odd_listener(), listener("web")];
    let routes = vec![odd_route("*"), odd_route("*.example.org"), route("a.example.org")];
    let seed = Change::Seed { listeners: listeners.clone(), routes: routes.clone(), firewall: firewall() };
    let address: SocketAddr = "[2001:db8::1]:8443".parse().unwrap();
    let loaded = after(&[seed, Change::SetDraining(address, true)]);
    assert_eq!(loaded.listeners, listeners);
    assert_eq!(loaded.routes, routes);
    assert_eq!(loaded.firewall, firewall());
    assert_eq!(loaded.draining, [address]);
    assert!(loaded.seeded);
}

#[test]
fn each_change_does_what_it_says() {
    let web = Change::PutListener(listener("web"));
    let put = |name| Change::PutRoute(Box::new(route(name)));
    let loaded = after(&[web.clone(), put("b.org"), put("a.org"), put("b.org")]);
    assert_eq!(names(&loaded), ["a.org", "b.org"]);

    let changed = Route { retries: 9, ..route("b.org") };
    let loaded = after(&[web.clone(), put("b.org"), Change::PutRoute(Box::new(changed.clone()))]);
    assert_eq!(loaded.routes, [changed]);

    let alpn = Route { alpn: "h2".to_owned(), ..route("a.org") };
    let loaded = after(&[web.clone(), put("a.org"), Change::PutRoute(Box::new(alpn.clone()))]);
    assert_eq!(loaded.routes, [route("a.org"), alpn.clone()]);
    let loaded = after(&[
        web.clone(),
        put("a.org"),
        Change::PutRoute(Box::new(alpn)),
        Change::RemoveRoute(route("a.org").key()),
    ]);
    assert_eq!(loaded.routes[0].alpn, "h2");
    assert_eq!(loaded.routes.len(), 1);

    let replace = Change::ReplaceRoutes(vec![route("z.org"), route("c.org")]);
    assert_eq!(names(&after(&[web.clone(), put("a.org"), replace])), ["c.org", "z.org"]);

    let moved = Listener { address: "[::1]:1".parse().unwrap(), ..listener("web") };
    let loaded = after(&[web.clone(), put("a.org"), Change::PutListener(moved.clone())]);
    assert_eq!((loaded.listeners, loaded.routes.len()), (vec![moved], 1));

    let gone = |with_routes| Change::RemoveListener { name: "web".to_owned(), with_routes };
    let loaded = after(&[web.clone(), put("a.org"), gone(true)]);
    assert_eq!((loaded.listeners.len(), loaded.routes.len()), (0, 0));
    assert!(after(&[web, gone(false)]).listeners.is_empty());

    let address = "192.0.2.1:1".parse().unwrap();
    let drain = |draining| Change::SetDraining(address, draining);
    assert_eq!(after(&[drain(true), drain(true)]).draining, [address]);
    assert!(after(&[drain(true), drain(false)]).draining.is_empty());
    assert_eq!(after(&[Change::SetFirewall(firewall())]).firewall, firewall());
}

#[test]
fn a_change_that_cannot_be_is_not_stored_and_the_next_one_is() {
    let (_directory, path) = directory();
    let (mut store, _) = Store::open(&path).unwrap();
    store.commit(&Change::PutListener(listener("web"))).unwrap();
    store.commit(&Change::PutRoute(Box::new(route("a.org")))).unwrap();
    let orphan = Route { listener: "none".to_owned(), ..route("b.org") };
    let removal = Change::RemoveListener { name: "web".to_owned(), with_routes: false };
    for change in [
        Change::PutRoute(Box::new(orphan.clone())),
        Change::ReplaceRoutes(vec![route("c.org"), orphan]),
        removal,
    ] {
        assert!(matches!(store.commit(&change), Err(StoreError::Reference)), "{change:?}");
    }
    let twice = Change::ReplaceRoutes(vec![route("c.org"), route("d.org"), route("c.org")]);
    let error = store.commit(&twice).unwrap_err();
    assert_eq!(error.to_string(), "route web/c.org is there twice: keep one of the two");
    assert_eq!(store.commit(&Change::PutRoute(Box::new(route("e.org")))).unwrap(), 3);
    drop(store);
    assert_eq!(names(&Store::open(&path).unwrap().1), ["a.org", "e.org"]);
}

#[test]
fn a_full_disk_is_said_and_nothing_of_the_change_is_stored() {
    let (_directory, path) = directory();
    let (mut store, _) = Store::open(&path).unwrap();
    store.commit(&Change::PutListener(listener("web"))).unwrap();
    store.commit(&Change::PutRoute(Box::new(route("a.org")))).unwrap();
    store.connection.pragma_update(None, "max_page_count", 8).unwrap();
    let many = (0..10_000).map(|number| route(&format!("{number}.org"))).collect();
    let error = store.commit(&Change::ReplaceRoutes(many)).unwrap_err();
    assert!(matches!(&error, StoreError::Db(DbError::Full(at)) if *at == path), "{error:?}");
    assert_eq!(store.commit(&Change::SetFirewall(firewall())).unwrap(), 3);
    drop(store);
    assert_eq!(names(&Store::open(&path).unwrap().1), ["a.org"]);
}

#[test]
fn the_file_is_ours_alone_and_durable() {
    let (_directory, path) = directory();
    let (store, _) = Store::open(&path).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    let log = path.with_extension("db-wal");
    assert_eq!(mode(&log), 0o600);
    let pragma = |name| store.connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).unwrap();
    let full = 2;
    assert_eq!((pragma("synchronous"), pragma("foreign_keys")), (full, 1));
    drop(store);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let _store = Store::open(&path).unwrap();
    assert_eq!(mode(&path), 0o600);
}

#[test]
fn a_second_process_is_refused_and_a_reader_is_not() {
    let (_directory, path) = directory();
    let (store, _) = Store::open(&path).unwrap();
    let error = Store::open(&path).unwrap_err();
    assert!(matches!(error, StoreError::Db(DbError::InUse(_))), "{error:?}");
    let reader = Connection::open(&path).unwrap();
    assert_eq!(reader.query_row("SELECT revision FROM site", [], |row| row.get::<_, i64>(0)).unwrap(), 0);
    drop(store);
    Store::open(&path).unwrap();
}

/// What is said of a file made by `make`, which must stay as it was.
fn check_refused(make: impl FnOnce(&Path), expect: &str) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.db");
    make(&path);
    let before = fs::read(&path).unwrap();
    let error = Store::open(&path).unwrap_err().to_string();
    let said = error.replace(directory.path().to_str().unwrap(), "");
    assert!(said.contains(expect), "{said}");
    assert!(said.contains(": "), "no remedy: {said}");
    assert!(fs::read(&path).unwrap() == before, "the file has changed");
}

/// A database of this version, changed by `sql`.
fn changed(path: &Path, sql: &str) {
    let (mut store, _) = Store::open(path).unwrap();
    store.commit(&Change::PutListener(listener("web"))).unwrap();
    store.commit(&Change::PutRoute(Box::new(route("a.org")))).unwrap();
    drop(store);
    Connection::open(path).unwrap().execute_batch(sql).unwrap();
}

#[test]
fn a_newer_database_is_refused_even_where_only_its_log_says_so() {
    let expect = "/x.db is a database of version 2, and this program knows versions up to 1";
    check_refused(|path| changed(path, "PRAGMA user_version = 2"), expect);
    check_refused(
        |path| {
            changed(path, "");
            let connection = Connection::open(path).unwrap();
            connection
                .set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
                .unwrap();
            connection.execute_batch("PRAGMA user_version = 2").unwrap();
            drop(connection);
            assert!(path.with_extension("db-wal").exists());
        },
        expect,
    );
}

#[test]
fn what_is_no_database_of_ours_is_refused_and_not_touched() {
    check_refused(
        |path| fs::write(path, "listen_addr = 1\n".repeat(100)).unwrap(),
        "is not an SQLite database",
    );
    check_refused(|path| fs::write(path, "short").unwrap(), "is not an SQLite database");
    let other = "another application (application id 0x00000000)";
    check_refused(|path| Connection::open(path).unwrap().execute_batch("CREATE TABLE t (a)").unwrap(), other);
    check_refused(|path| changed(path, "PRAGMA application_id = 7"), "(application id 0x00000007)");
}

#[test]
fn damage_is_said_with_its_place() {
    let damage = |offset: usize| {
        move |path: &Path| {
            changed(path, "PRAGMA wal_checkpoint(TRUNCATE)");
            let mut bytes = fs::read(path).unwrap();
            let end = (offset + 2048).min(bytes.len());
            bytes[offset..end].fill(0xA5);
            fs::write(path, bytes).unwrap();
        }
    };
    check_refused(damage(100), "/x.db is damaged");
    check_refused(damage(4096 * 3), "/x.db is damaged");
    let sql = |sql: &'static str| move |path: &Path| changed(path, sql);
    check_refused(
        sql("UPDATE routes SET spec = 'no address'"),
        "/x.db is damaged: the backend of route web/a.org is \"no address\"",
    );
    check_refused(sql("UPDATE routes SET spec = '{}'"), "/x.db is damaged: route web/a.org: missing field");
    check_refused(
        sql("UPDATE routes SET spec = '{\"listener\":\"web\",\"name\":\"b.org\",\"backends\":[]}'"),
        "route web/a.org is stored as that of web/b.org",
    );
    check_refused(sql("UPDATE listeners SET spec = '{'"), "/x.db is damaged: listener web: EOF");
    check_refused(sql("UPDATE site SET firewall = '[1]'"), "/x.db is damaged: the firewall: ");
    check_refused(sql("UPDATE site SET revision = -1"), "/x.db is damaged: its revision is -1");
    check_refused(sql("INSERT INTO draining VALUES ('x')"), "x is no address of a draining backend");
    check_refused(sql("DELETE FROM site"), "/x.db is damaged");
    check_refused(sql("PRAGMA user_version = -3"), "/x.db is damaged: its version is -3");
}

#[test]
fn what_is_no_file_is_refused() {
    let (directory, _) = directory();
    let error = Store::open(directory.path()).unwrap_err();
    assert!(matches!(error, StoreError::Db(DbError::NotAFile(_))), "{error:?}");
    assert!(matches!(Store::open(Path::new("/dev/null")).unwrap_err(), StoreError::Db(DbError::NotAFile(_))));
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    let error = Store::open(&file.join("x.db")).unwrap_err();
    assert!(matches!(error, StoreError::Db(DbError::Io { .. })), "{error:?}");
}

/// Runs in a thread that is bound by permissions even where the tests run as root.
fn unprivileged(work: impl FnOnce() + Send) {
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let mut sets = capabilities(None).unwrap();
            sets.effective.remove(CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH);
            set_capabilities(None, sets).unwrap();
            work();
        });
        thread.join().unwrap();
    });
}

#[test]
fn a_file_or_directory_that_cannot_be_written_is_refused() {
    let (_directory, path) = directory();
    changed(&path, "");
    let parent = path.parent().unwrap();
    let chmod = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let check = |path: &Path| {
        let error = Store::open(path).unwrap_err();
        assert!(matches!(error, StoreError::Db(DbError::ReadOnly(_))), "{error:?}");
    };
    chmod(&path, 0o400);
    unprivileged(|| check(&path));
    chmod(&path, 0o000);
    unprivileged(|| check(&path));
    chmod(&path, 0o600);
    fs::remove_file(path.with_extension("db.lock")).unwrap();
    chmod(parent, 0o500);
    unprivileged(|| check(&path));
    unprivileged(|| check(&parent.join("new.db")));
    chmod(parent, 0o700);
    Store::open(&path).unwrap();
}

#[test]
fn routes_by_the_hundred_thousand_come_back() {
    let (_directory, path) = directory();
    let routes: Vec<_> = (0..100_000)
        .map(|number| {
            if number % 10 == 0 {
                odd_route(&format!("{number:06}.org"))
            } else {
                route(&format!("{number:06}.org"))
            }
        })
        .collect();
    let (mut store, _) = Store::open(&path).unwrap();
    store.commit(&Change::PutListener(listener("web"))).unwrap();
    store.commit(&Change::ReplaceRoutes(routes.clone())).unwrap();
    drop(store);
    let (_store, loaded) = Store::open(&path).unwrap();
    assert!(loaded.routes == routes);
}
