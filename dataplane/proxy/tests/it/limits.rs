//! What becomes of clients when there is no more: of connections in all, of each client's share, of descriptors, of memory.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use mc_testkit::backend::Backend;
use mc_testkit::ca::Ca;
use mc_testkit::client::{Raw, Request};
use mc_testkit::clock::{self, wait_until};
use mc_testkit::header::v2;
use mc_testkit::http::{Client, Origin, TlsEnd};
use mc_testkit::proxy::{Config, Proxy};
use mc_testkit::{fresh_ip, requires};

use super::common::{assert_alive, greet, hello, open};
use super::http1::{NAME, OK, get};

fn refused(proxy: &Proxy, outcome: &str) -> f64 {
    proxy.metric("mcproxy_connections_total", &[&format!("outcome=\"{outcome}\"")])
}

/// Whether the connection is ended before anything is said on it.
fn is_ended(mut client: Raw) -> bool {
    client.stream.set_read_timeout(Some(clock::PATIENCE)).unwrap();
    !matches!(std::io::Read::read(&mut client.stream, &mut [0]), Ok(1..))
}

#[test]
fn more_connections_than_allowed_are_reset_and_those_that_are_there_go_on() {
    let origin = Backend::named("origin");
    let config = Config::new().server("workers = 1\nmax_connections = 10\n").listener("web");
    let proxy = Proxy::start(config.route("*", origin.address()));
    let mut all: Vec<Raw> = (0..10).map(|_| open(&proxy).0).collect();
    for _ in 0..20 {
        if let Ok(client) = Raw::try_connect(None, proxy.web()) {
            assert!(is_ended(client));
        }
    }
    proxy.wait_metric("mcproxy_connections_total", &["outcome=\"overload\""], 20.0);
    for client in &mut all {
        assert_alive(client);
    }
    // One that leaves makes room for one.
    drop(all.pop());
    wait_until("room", || proxy.metric("mcproxy_connections_active", &[]) < 10.0);
    let (mut client, name) = open(&proxy);
    assert_eq!(name, "origin");
    assert_alive(&mut client);
    // Operators are not clients.
    assert_eq!(proxy.ctl(&["status"])["connections"], 10);
}

/// Clients that say nothing count, too.
#[test]
fn a_client_has_its_share_and_no_more() {
    let origin = Backend::named("origin");
    let config = Config::new().server("max_connections_per_source = 5\n").listener("web");
    let proxy = Proxy::start(config.route("*", origin.address()));
    let (greedy, modest) = (fresh_ip(), fresh_ip());
    let silent: Vec<Raw> = (0..5).map(|_| Raw::connect_from(greedy, proxy.web())).collect();
    wait_until("all to be taken", || proxy.metric("mcproxy_connections_active", &[]) >= 5.0);
    assert!(is_ended(Raw::connect_from(greedy, proxy.web())));
    let line = proxy.wait_outcome("source_limit");
    assert!(line["client"].as_str().unwrap().starts_with(&format!("{greedy}:")), "{line}");
    let (mut client, name) = greet(Raw::connect_from(modest, proxy.web()));
    assert_eq!(name, "origin");
    assert_alive(&mut client);
    drop(silent);
    wait_until("the greedy one's to be gone", || proxy.metric("mcproxy_connections_active", &[]) < 2.0);
    let (_, name) = greet(Raw::connect_from(greedy, proxy.web()));
    assert_eq!(name, "origin");
}

/// The share is the true client's, where a peer speaks for others.
#[test]
fn the_share_is_the_true_clients() {
    let origin = Backend::named("origin");
    let listener = "proxy_protocol = \"required\"";
    let config = Config::new().server("max_connections_per_source = 2\n").listener_with("web", listener);
    let proxy = Proxy::start(config.route("*", origin.address()));
    let visit = |client: &str| {
        let (client, reached) = (format!("{client}:1234").parse().unwrap(), "192.0.2.1:443".parse().unwrap());
        let mut connection = Raw::connect(proxy.web());
        connection.send(&[v2(client, reached, &[]), hello()].concat());
        connection
    };
    let mut first = [visit("198.51.100.1"), visit("198.51.100.1"), visit("198.51.100.2")];
    for client in &mut first {
        assert_eq!(client.read_line(), "origin");
    }
    assert!(is_ended(visit("198.51.100.1")));
    assert_eq!(visit("198.51.100.3").read_line(), "origin");
    assert!(refused(&proxy, "source_limit") >= 1.0);
}

/// As many connections as there are descriptors for, and operators find one at once.
#[test]
fn clients_do_not_get_the_descriptors_of_operators() {
    requires!("prlimit");
    let origin = Backend::named("origin");
    let config = Config::new().listener("web").route("*", origin.address());
    let proxy = Proxy::start(config.under(&["prlimit", "--nofile=150:150"]));
    let most = proxy.metric("mcproxy_connections_limit", &[]);
    assert!((20.0..60.0).contains(&most), "{most}");
    let active = || proxy.metric("mcproxy_connections_active", &[]);
    let mut all = Vec::new();
    while (all.len() as f64) < most {
        all.push(open(&proxy).0);
    }
    for _ in 0..100 {
        if let Ok(client) = Raw::try_connect(None, proxy.web()) {
            assert!(is_ended(client));
        }
    }
    assert!(refused(&proxy, "overload") >= 100.0);
    assert!(proxy.ctl(&["status"])["uptime_ms"].is_u64());
    assert!(proxy.metric("process_open_fds", &[]) < 120.0);
    all.iter_mut().for_each(assert_alive);
    drop(all);
    wait_until("room", || active() < most);
    let (mut client, name) = open(&proxy);
    assert_eq!(name, "origin");
    assert_alive(&mut client);
}

/// One client's requests may take many connections to backends: those for which there is no descriptor are answered with
/// 503, the backend is not blamed, and operators find one.
#[test]
fn requests_do_not_get_the_descriptors_of_operators() {
    requires!("prlimit", "curl");
    let (asked, go_on) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let (counts, waits) = (Arc::clone(&asked), Arc::clone(&go_on));
    let origin = Origin::start(move |exchange| {
        counts.fetch_add(1, Ordering::Relaxed);
        while exchange.target() == "/slow" && !waits.load(Ordering::Relaxed) {
            clock::sleep_ms(20);
        }
        exchange.say(OK)
    });
    let ca = Ca::new();
    let config = Config::new()
        .listener("web")
        .route_with(NAME, &[origin.address()], "mode = \"l7\"\neject_after = 1")
        .certificate("www", &ca.issue(&[NAME]));
    let proxy = Proxy::start(config.under(&["prlimit", "--nofile=150:150"]));
    let files = tempfile::tempdir().unwrap();
    let to = format!("{NAME}:443:{}:{}", proxy.web().ip(), proxy.web().port());
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--http2", "--parallel", "--parallel-max", "100", "--cacert"])
        .arg(ca.write(files.path()));
    curl.args(["--connect-to", &to, "-w", "%{http_code}\n"]);
    for _ in 0..100 {
        curl.args(["-o", "/dev/null", &format!("https://{NAME}/slow")]);
    }
    let output = std::thread::scope(|scope| {
        let curl = scope.spawn(move || curl.output().unwrap());
        let overload = "outcome=\"overload\"";
        wait_until("every request to be answered or to wait", || {
            let refused = proxy.metric("mcproxy_requests_total", &[overload]);
            refused > 0.0 && refused + asked.load(Ordering::Relaxed) as f64 >= 100.0
        });
        assert!(proxy.ctl(&["status"])["uptime_ms"].is_u64());
        assert_eq!(proxy.metric("mcproxy_backends", &["health=\"ejected\""]), 0.0);
        go_on.store(true, Ordering::Relaxed);
        curl.join().unwrap()
    });
    let codes = String::from_utf8(output.stdout).unwrap();
    let count = |code: &str| codes.lines().filter(|line| *line == code).count();
    assert_eq!(count("200") + count("503"), 100, "{codes}");
    assert!(count("200") >= 20 && count("503") >= 20, "{codes}");
    // Connections to the backend that wait for requests have them until a worker looks.
    let open = || Request::new(&ca, proxy.web(), NAME).alpn(&["http/1.1"]).open();
    wait_until("a client to be let in", || {
        open().is_ok_and(|tls| Client::on(tls).ask(get("/")).status() == 200)
    });
}

/// Where memory is short, nobody new comes in, and who asks for nothing goes; who has something under way stays, and all
/// is well again when there is some to spare.
#[test]
fn without_memory_nobody_comes_and_the_idle_go() {
    let over = Arc::new(AtomicBool::new(false));
    let is_over = Arc::clone(&over);
    let origin = Origin::start(move |exchange| {
        while exchange.target() == "/slow" && !is_over.load(Ordering::Relaxed) {
            clock::sleep_ms(20);
        }
        exchange.say(OK)
    });
    let ca = Ca::new();
    let config = Config::new()
        .server("workers = 1\nmax_memory_bytes = 67108864\n")
        .listener_with("web", "hello_timeout_ms = 60000\nmax_hello_bytes = 65536")
        .route_with(NAME, &[origin.address()], "mode = \"l7\"")
        .certificate("www", &ca.issue(&[NAME]));
    let proxy = Proxy::start(config);
    let short = || proxy.metric("mcproxy_memory_short", &[]) > 0.0;
    assert!(!short());
    let tls = || Request::new(&ca, proxy.web(), NAME).alpn(&["http/1.1"]).open();
    let (mut idle, mut busy) = (Client::on(tls().unwrap()), Client::on(tls().unwrap()));
    assert_eq!(idle.ask(get("/")).status(), 200);
    busy.send(get("/slow"));
    // A ClientHello of 65,000 bytes of which nearly all has come, in records of 16,000.
    let mut hello = vec![1, 0, 0xfd, 0xe8];
    hello.resize(64_000, 0);
    let records = hello.chunks(16_000).flat_map(|part| [&[22, 3, 1, 0x3e, 0x80], part].concat());
    let hello: Vec<u8> = records.collect();
    let mut hoard = Vec::new();
    for _ in 0..40 {
        for _ in 0..100 {
            let Ok(mut client) = Raw::try_connect(None, proxy.web()) else { continue };
            // Those that are refused already hear of it as they speak.
            std::io::Write::write_all(&mut client.stream, &hello).unwrap_or(());
            hoard.push(client);
        }
        if refused(&proxy, "overload") >= 100.0 {
            break;
        }
    }
    assert!(refused(&proxy, "overload") >= 100.0, "{} connections cost nothing", hoard.len());
    assert_eq!(idle.read_to_end().1, TlsEnd::Clean);
    assert!(proxy.ctl(&["status"])["uptime_ms"].is_u64());
    assert!(proxy.rss_kib() < 256 * 1024, "{} KiB", proxy.rss_kib());
    drop(hoard);
    over.store(true, Ordering::Relaxed);
    assert_eq!(busy.response(false).status(), 200);
    wait_until("memory to suffice", || !short());
    assert_eq!(Client::on(tls().unwrap()).ask(get("/")).status(), 200);
}
