//! Starting, stopping and restarting, and every reason for which it does not start.

use std::net::{SocketAddr, TcpListener};
use std::process::Command;

use mc_testkit::backend::Backend;
use mc_testkit::client::{End, Raw};
use mc_testkit::proxy::{Config, Proxy, binary};
use mc_testkit::{clock, fresh_address, requires};
use nix::sys::signal::Signal;

use crate::common::{assert_alive, greet, open, to};
use crate::grpc::{Grpc, route};

#[test]
fn sigterm_lets_connections_end() {
    let backend = Backend::named("origin");
    let mut proxy = to(backend.address());
    let (mut client, _) = open(&proxy);
    proxy.term();
    clock::wait_until("new connections to be refused", || Raw::try_connect(None, proxy.web()).is_err());
    assert_alive(&mut client);
    clock::sleep_ms(300);
    assert_alive(&mut client);
    assert!(proxy.process().ended().is_none(), "it did not wait for its connection");
    let (_, end) = client.finish_and_read();
    assert_eq!(end, End::Fin);
    assert_eq!(proxy.process().wait(clock::PATIENCE).code(), Some(0));
    proxy.wait_outcome("completed");
}

#[test]
fn connections_that_wait_in_the_queue_are_served_before_the_end() {
    let backend = Backend::named("origin");
    let mut proxy = to(backend.address());
    let clients: Vec<Raw> = (0..50).map(|_| Raw::connect(proxy.web())).collect();
    proxy.term();
    for client in clients {
        let (mut client, name) = greet(client);
        assert_eq!(name, "origin");
        client.finish_and_read();
    }
    assert_eq!(proxy.process().wait(clock::PATIENCE).code(), Some(0));
}

#[test]
fn the_drain_time_is_limited() {
    let backend = Backend::named("origin");
    let config = Config::new().listener("web").route("*", backend.address()).server("drain_timeout_ms = 700");
    let mut proxy = Proxy::start(config);
    let (mut client, _) = open(&proxy);
    let start = clock::now();
    proxy.term();
    let (_, end) = client.read_to_end(clock::PATIENCE);
    assert_ne!(end, End::Silence);
    let waited = start.elapsed();
    assert!(waited.as_millis() >= 600, "{waited:?}");
    assert_eq!(proxy.process().wait(clock::PATIENCE).code(), Some(0));
    proxy.wait_outcome("drained");
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let backend = Backend::named("origin");
    let config =
        Config::new().listener("web").route("*", backend.address()).server("drain_timeout_ms = 600000");
    let mut proxy = Proxy::start(config);
    let (mut client, _) = open(&proxy);
    proxy.term();
    clock::wait_until("new connections to be refused", || Raw::try_connect(None, proxy.web()).is_err());
    assert_alive(&mut client);
    proxy.process().signal(Signal::SIGINT);
    assert_eq!(proxy.process().wait(clock::PATIENCE).code(), Some(0));
    proxy.wait_outcome("drained");
}

#[test]
fn what_was_changed_outlives_a_restart_and_the_seed_does_not_come_back() {
    let (seed, added) = (Backend::named("seed"), Backend::named("added"));
    let mut proxy = to(seed.address());
    let client = Grpc::connect(&proxy.socket());
    client.add_route(route("www.example.org", &added.address().to_string())).unwrap();
    client.remove_route("*", false).unwrap();
    let revision = client.revision();
    assert_eq!(open(&proxy).1, "added");
    proxy.term();
    proxy.process().wait(clock::PATIENCE);
    proxy.restart();
    let client = Grpc::connect(&proxy.socket());
    assert_eq!((client.route_names(), client.revision()), (vec!["www.example.org".to_owned()], revision));
    assert_eq!(open(&proxy).1, "added");
}

#[test]
fn sighup_writes_to_a_new_access_log() {
    let backend = Backend::named("origin");
    let mut proxy = to(backend.address());
    open(&proxy).0.finish_and_read();
    proxy.wait_outcome("completed");
    let (log, rotated) = (proxy.root().join("access.log"), proxy.root().join("access.log.1"));
    std::fs::rename(&log, &rotated).unwrap();
    proxy.process().signal(Signal::SIGHUP);
    clock::wait_until("a new log", || log.exists());
    open(&proxy).0.finish_and_read();
    proxy.wait_outcome("completed");
    assert_eq!(proxy.log().len(), 1);
    assert_eq!(std::fs::read_to_string(&rotated).unwrap().lines().count(), 1);
}

#[test]
fn the_text_log_has_a_line_for_each_connection() {
    let backend = Backend::named("origin");
    let config = Config::new()
        .listener("web")
        .route("*", backend.address())
        .toml("[access_log]\npath = \"-\"\nformat = \"text\"");
    let mut proxy = Proxy::start(config);
    let (mut client, _) = open(&proxy);
    let from = client.local().to_string();
    client.finish_and_read();
    clock::wait_until("the line", || proxy.process().output().lines().count() == 1);
    let line = proxy.process().output();
    for word in [&from, "completed", "www.example.org", &backend.address().to_string()] {
        assert!(line.contains(word), "no {word} in {line}");
    }
}

#[test]
fn without_root_it_serves() {
    requires!(root, "setpriv");
    let backend = Backend::named("origin");
    // The build's folder may be closed to others.
    let folder = tempfile::Builder::new()
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .tempdir()
        .unwrap();
    let program = folder.path().join("mc-proxy");
    std::fs::copy(binary("mc-proxy"), &program).unwrap();
    let config = || Config::new().program(&program).as_nobody();
    let proxy = Proxy::start(config().listener("web").route("*", backend.address()));
    assert_eq!(open(&proxy).1, "origin");
    let status = std::fs::read_to_string(format!("/proc/{}/status", proxy.pid())).unwrap();
    assert!(status.contains("Uid:\t65534\t65534"), "{status}");
    // And says what a port below 1024 needs.
    let low = SocketAddr::new(mc_testkit::fresh_ip(), 443);
    check_fails(config().listener_at("web", low, ""), 1, &["443", "CAP_NET_BIND_SERVICE"]);
}

/// A proxy that does not start, says these words in one line, and ends with this code.
fn check_fails(config: Config, code: i32, words: &[&str]) {
    let Err(failed) = Proxy::try_start(config) else { panic!("it started, and should have said {words:?}") };
    check_said(&failed.errors, words);
    assert_eq!(failed.status.code(), Some(code), "{}", failed.errors);
}

fn check_said(errors: &str, words: &[&str]) {
    let said: Vec<&str> = errors.lines().filter(|line| line.starts_with("mc-proxy: ")).collect();
    assert_eq!(said.len(), 1, "one clear line: {errors}");
    let repeated = said[0].split(": ").filter(|part| part.len() > 30 && said[0].matches(part).count() > 1);
    assert_eq!(repeated.count(), 0, "it says things twice: {}", said[0]);
    for word in words {
        assert!(said[0].contains(word), "no {word:?} in: {}", said[0]);
    }
}

#[test]
fn a_port_in_use_is_named() {
    let taken = fresh_address();
    let _other = TcpListener::bind(taken).unwrap();
    check_fails(Config::new().listener_at("web", taken, ""), 1, &[&taken.to_string(), "in use"]);
}

#[test]
fn a_port_of_another_mc_proxy_is_in_use_too() {
    let proxy = Proxy::start(Config::new().listener("web"));
    check_fails(Config::new().listener_at("web", proxy.web(), ""), 1, &[&proxy.web().to_string(), "in use"]);
}

#[test]
fn an_address_that_is_not_ours_is_named() {
    let address = "192.0.2.1:4433".parse().unwrap();
    check_fails(
        Config::new().listener_at("web", address, ""),
        1,
        &["192.0.2.1", "not an address of this machine"],
    );
}

#[test]
fn a_database_of_a_newer_version_is_left_alone() {
    let mut proxy = Proxy::start(Config::new().listener("web"));
    proxy.term();
    proxy.process().wait(clock::PATIENCE);
    let root = proxy.into_root();
    let database = root.path().join("mc-proxy.db");
    rusqlite::Connection::open(&database).unwrap().pragma_update(None, "user_version", 999).unwrap();
    let before = std::fs::read(&database).unwrap();
    let path = root.path().display().to_string();
    let kept = root.path().join("kept.db");
    std::fs::copy(&database, &kept).unwrap();
    let failed = Proxy::try_start_in(root, Config::new().listener("web")).expect_err("it must not start");
    check_said(&failed.errors, &[&path, "999", "newer"]);
    assert_eq!(failed.status.code(), Some(1));
    assert!(!before.is_empty());
}

#[test]
fn two_proxies_do_not_share_a_database() {
    let proxy = Proxy::start(Config::new().listener("web"));
    let config = Config::new()
        .listener("web")
        .server(&format!("database = \"{}/mc-proxy.db\"", proxy.root().display()));
    check_fails(config, 1, &["mc-proxy.db", "use"]);
}

#[test]
fn a_read_only_disk_is_named() {
    requires!(root, "unshare", "mount");
    // Its folder becomes read-only in a mount namespace of its own.
    let script = "root=$(dirname \"$3\"); mount --bind \"$root\" \"$root\" && mount -o remount,ro,bind \"$root\" && exec \"$@\"";
    let config = Config::new()
        .listener("web")
        .toml("[access_log]\npath = \"\"")
        .under(&["unshare", "--mount", "--", "sh", "-c", script, "sh"]);
    check_fails(config, 1, &["Read-only file system"]);
}

#[test]
fn a_kernel_without_io_uring_is_named() {
    mc_testkit::requires!("python3");
    let config = Config::new().listener("web").under(&mc_testkit::peer::without("io_uring_setup"));
    check_fails(config, 1, &["no io_uring", "Linux 6.1"]);
}

#[test]
fn every_mistake_in_the_file_is_one_clear_line() {
    let listener = "[[listeners]]\nname = \"web\"\naddress = \"127.0.0.1:4433\"\n";
    let route = |lines: &str| format!("{listener}[[routes]]\nlistener = \"web\"\n{lines}\n");
    let backend = "backends = [{ address = \"127.0.0.1:1\" }]";
    let cases: Vec<(String, &[&str])> = vec![
        ("[server]\nworkrs = 1".into(), &["2:1", "server.workrs", "workers"]),
        ("[server]\nworkers = \"two\"".into(), &["2:11", "server.workers"]),
        ("[server".into(), &["1:"]),
        ("x = 1\nx = 2".into(), &["2:1", "x"]),
        ("[metrics]\nlisten_addr = \"nowhere\"".into(), &["2:", "metrics.listen_addr"]),
        ("[admin.tcp]\nlisten_addr = \"127.0.0.1:1\"".into(), &["admin.tcp"]),
        (
            "[admin.tcp]\nlisten_addr = \"127.0.0.1:1\"\ncertificate = \"no.pem\"\nkey = \"no.pem\"\ntoken_file = \"no\"".into(),
            &["admin.tcp.certificate", "no.pem"],
        ),
        ("[geoip]\ncountry_database = \"no.mmdb\"".into(), &["geoip.country_database", "no.mmdb"]),
        ("[[listeners]]\nname = \"web\"\naddress = \"localhost:443\"".into(), &["3:", "listeners[0].address"]),
        ("[[listeners]]\nname = \"We b\"\naddress = \"127.0.0.1:1\"".into(), &["listeners[0].name"]),
        (format!("{listener}{listener}"), &["listeners[1].name", "web"]),
        (format!("{listener}trusted = [\"10.0.0.0/40\"]"), &["listeners[0].trusted", "10.0.0.0/40"]),
        (route(&format!("name = \"exa mple.org\"\n{backend}")), &["routes[0].name", "exa mple.org"]),
        (route(&format!("name = \"*.*.org\"\n{backend}")), &["routes[0].name", "star"]),
        (route("name = \"a.org\"\nbackends = []"), &["routes[0].backends"]),
        (route("name = \"a.org\"\nbackends = [{ address = \"host:1\" }]"), &["routes[0].backends[0].address"]),
        (
            route("name = \"a.org\"\nbackends = [{ address = \"127.0.0.1:1\", weight = 0 }]"),
            &["routes[0].backends[0].weight"],
        ),
        (route(&format!("name = \"a.org\"\nbalance = \"fair\"\n{backend}")), &["routes[0].balance", "fair"]),
        (
            format!("{}[[routes]]\nlistener = \"web\"\nname = \"A.org.\"\n{backend}", route(&format!("name = \"a.org\"\n{backend}"))),
            &["routes[1].name", "web/a.org"],
        ),
        (format!("[[routes]]\nlistener = \"wbe\"\nname = \"a.org\"\n{backend}\n{listener}"), &["routes[0].listener", "wbe", "web"]),
        ("[[firewall.rules]]\naction = \"deny\"\ncidr = \"10.0.0.0/33\"".into(), &["3:", "cidr"]),
        ("[[firewall.rules]]\naction = \"deny\"\ncountry = \"Germany\"".into(), &["country", "Germany"]),
        ("[firewall]\nrate = { per_address = -1 }".into(), &["per_address"]),
    ];
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mc-proxy.toml");
    for (text, words) in cases {
        std::fs::write(&file, &text).unwrap();
        let mut command = Command::new(binary("mc-proxy"));
        let output = command
            .arg("--check")
            .arg("--config")
            .arg(&file)
            .arg("--root")
            .arg(folder.path())
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "for\n{text}\n{errors}");
        check_said(&errors, &[&["mc-proxy.toml"], words].concat());
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let output =
        Command::new(binary("mc-proxy")).args(["--config", "/nowhere/mc-proxy.toml"]).output().unwrap();
    check_said(&String::from_utf8_lossy(&output.stderr), &["/nowhere/mc-proxy.toml"]);
    assert_eq!(output.status.code(), Some(2));
}
