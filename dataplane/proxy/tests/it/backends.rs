//! Which of several backends gets a connection, and what happens when one is slow, sick or gone.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mc_api::mcproxy::Health;
use mc_testkit::backend::{Backend, Expect};
use mc_testkit::ca::Ca;
use mc_testkit::client::{End, Raw};
use mc_testkit::net::Host;
use mc_testkit::proxy::{Config, Proxy};
use mc_testkit::{clock, fresh_address, fresh_ip, requires};

use crate::common::{alert, ask, assert_alive, greet, hello, open, wait_counted};
use crate::grpc::Grpc;

/// A proxy whose every name leads to these backends, with these lines in the route.
fn among(backends: &[SocketAddr], lines: &str) -> Proxy {
    Proxy::start(Config::new().listener("web").route_with("*", backends, lines))
}

/// Opens so many connections and keeps them; how many each backend got.
fn spread(proxy: &Proxy, connections: usize) -> (Vec<Raw>, HashMap<String, usize>) {
    let mut held = Vec::new();
    let mut counts = HashMap::new();
    for _ in 0..connections {
        let (client, name) = open(proxy);
        held.push(client);
        *counts.entry(name).or_default() += 1;
    }
    (held, counts)
}

fn client(proxy: &Proxy) -> Grpc {
    Grpc::connect(&proxy.socket())
}

fn weighted(a: &Backend, b: &Backend, balance: &str) -> Proxy {
    let lines = format!(
        "backends = [{{ address = \"{}\", weight = 1 }}, {{ address = \"{}\", weight = 3 }}]\nbalance = \"{balance}\"",
        a.address(),
        b.address()
    );
    Proxy::start(Config::new().listener("web").route_lines("web", "*", &lines))
}

fn wait_health(client: &Grpc, address: SocketAddr, health: Health) {
    clock::wait_until(&format!("{address} to be {health:?}"), || client.backend(address).health() == health);
}

#[test]
fn the_least_loaded_backend_for_its_weight_gets_the_connection() {
    let (a, b) = (Backend::named("a"), Backend::named("b"));
    let proxy = weighted(&a, &b, "least-connections");
    let (mut held, counts) = spread(&proxy, 40);
    assert_eq!((counts["a"], counts["b"]), (10, 30));
    // Whoever is freed gets the next: all of a's connections end.
    held.clear();
    clock::wait_until("the connections to end", || a.active() + b.active() == 0);
    let (_held, counts) = spread(&proxy, 8);
    assert_eq!((counts["a"], counts["b"]), (2, 6));
}

#[test]
fn the_better_of_two_random_backends_gets_the_connection() {
    let (a, b) = (Backend::named("a"), Backend::named("b"));
    let proxy = weighted(&a, &b, "random-of-two");
    let (_held, counts) = spread(&proxy, 80);
    let share = counts["a"];
    assert!((12..=30).contains(&share), "weight 1 of 4 got {share} of 80");
}

#[test]
fn a_client_stays_with_its_backend() {
    let backends: Vec<Backend> = ["a", "b", "c", "d"].iter().map(|name| Backend::named(name)).collect();
    let addresses: Vec<SocketAddr> = backends.iter().map(Backend::address).collect();
    let proxy = among(&addresses, "balance = \"source-hash\"");
    let sources: Vec<IpAddr> = (0..40).map(|_| fresh_ip()).collect();
    let homes = |count: usize| -> Vec<String> {
        sources[..count].iter().map(|from| greet(Raw::connect_from(*from, proxy.web())).1).collect()
    };
    let first = homes(40);
    assert_eq!(first, homes(40));
    for name in ["a", "b", "c", "d"] {
        let clients = first.iter().filter(|home| *home == name).count();
        assert!((2..=20).contains(&clients), "{name} got {clients} of 40 clients");
    }
    // Without d, only d's clients move.
    client(&proxy).drain(addresses[3], true);
    for (before, after) in first.iter().zip(homes(40)) {
        assert!(after != "d" && (before == "d" || *before == after), "{before} became {after}");
    }
}

#[test]
fn another_backend_is_tried_when_one_refuses() {
    let alive = Backend::named("alive");
    let proxy = among(&[fresh_address(), alive.address(), fresh_address()], "retries = 2\neject_after = 0");
    for _ in 0..20 {
        assert_eq!(open(&proxy).1, "alive");
    }
}

#[test]
fn no_more_backends_are_tried_than_allowed() {
    let proxy = among(&[fresh_address(), fresh_address(), fresh_address()], "retries = 1\neject_after = 0");
    assert_eq!(ask(&proxy, &hello()), (alert(80), End::Fin));
    proxy.wait_outcome("connect_failed");
    wait_counted(&proxy, "connect_failed", 1.0);
    let failures: u64 = client(&proxy).backends().iter().map(|backend| backend.failures).sum();
    assert_eq!(failures, 2);
}

#[test]
fn a_backend_that_does_not_answer_is_given_up_in_time() {
    requires!(root, "iptables", "nsenter");
    let host = Host::new();
    let (hole, alive): (SocketAddr, SocketAddr) =
        ("127.0.0.2:443".parse().unwrap(), "127.0.0.3:443".parse().unwrap());
    host.run("iptables", &["-A", "INPUT", "-d", "127.0.0.2", "-j", "DROP"]);
    let backend = Backend::start_on(&host, alive, |mut stream| {
        stream.write_all(b"alive\n").ok();
    });
    let config = |name, to: &[SocketAddr]| {
        let listener = "127.0.0.1:4433".parse().unwrap();
        let lines = "connect_timeout_ms = 400\neject_after = 0\nretries = 1";
        Config::new().on(&host).listener_at("web", listener, "").route_with(name, to, lines)
    };
    let proxy = Proxy::start(config("*", &[hole]));
    let start = clock::now();
    let (answer, end) = host.enter(|| ask(&proxy, &hello()));
    let waited = start.elapsed();
    assert_eq!((answer, end), (alert(80), End::Fin));
    assert!(waited.as_millis() >= 350, "{waited:?}");
    proxy.wait_outcome("connect_timeout");
    drop(proxy);
    let proxy = Proxy::start(config("*", &[hole, backend.address()]));
    for _ in 0..4 {
        let line = host.enter(|| Raw::connect(proxy.web()).send(&hello()).read_line());
        assert_eq!(line, "alive");
    }
}

#[test]
fn a_failing_backend_is_ejected_and_comes_back() {
    let alive = Backend::named("alive");
    let dead = fresh_address();
    let proxy = among(&[dead, alive.address()], "eject_after = 2\neject_ms = 2000\nretries = 1");
    for _ in 0..6 {
        assert_eq!(open(&proxy).1, "alive");
    }
    let ejected = client(&proxy).backend(dead);
    assert_eq!((ejected.health(), ejected.failures), (Health::Ejected, 2), "{ejected:?}");
    // It recovers, and gets nothing until its time is over.
    let back = Backend::named_at(dead, "back");
    assert_eq!(open(&proxy).1, "alive");
    clock::wait_until("the backend to be used again", || open(&proxy).1 == "back");
    assert!(back.accepted() > 0);
}

#[test]
fn tcp_checks_take_a_backend_down_and_up() {
    let steady = Backend::named("steady");
    let flaky_address = fresh_address();
    let check = "check = { kind = \"tcp\", interval_ms = 250, timeout_ms = 250, rise = 2, fall = 2 }\neject_after = 0";
    let proxy = among(&[flaky_address, steady.address()], check);
    wait_health(&client(&proxy), flaky_address, Health::Down);
    let connections = |count| (0..count).map(|_| open(&proxy).1).collect::<Vec<_>>();
    assert!(connections(10).iter().all(|name| name == "steady"));
    let flaky = Backend::named_at(flaky_address, "flaky");
    wait_health(&client(&proxy), flaky_address, Health::Up);
    clock::wait_until("the backend to be used again", || open(&proxy).1 == "flaky");
    drop(flaky);
    wait_health(&client(&proxy), flaky_address, Health::Down);
    assert!(connections(10).iter().all(|name| name == "steady"));
}

#[test]
fn tls_checks_want_a_handshake() {
    let ca = Ca::new();
    let speaks = Backend::tls("speaks", &ca.issue(&["www.example.org"]), Expect::Plain);
    let mute = Backend::start(|mut stream| {
        stream.write_all(b"220 I speak something else\r\n").ok();
        stream.read_exact(&mut [0; 1]).ok();
    });
    let check = "check = { kind = \"tls\", interval_ms = 250, timeout_ms = 250, rise = 1, fall = 1, host = \"www.example.org\" }";
    let proxy = among(&[speaks.address(), mute.address()], check);
    wait_health(&client(&proxy), mute.address(), Health::Down);
    wait_health(&client(&proxy), speaks.address(), Health::Up);
}

#[test]
fn http_checks_want_a_good_status() {
    let well = Arc::new(AtomicBool::new(false));
    let backend = {
        let well = Arc::clone(&well);
        Backend::start(move |mut stream| {
            let mut request = [0; 1024];
            let length = stream.read(&mut request).unwrap_or(0);
            let request = String::from_utf8_lossy(&request[..length]).into_owned();
            let good = request.starts_with("GET /healthz HTTP/1.1\r\n")
                && request.to_lowercase().contains("host: health.example.org\r\n")
                && well.load(Ordering::SeqCst);
            let status = if good { "204 No Content" } else { "503 Service Unavailable" };
            write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").ok();
        })
    };
    let check = "check = { kind = \"http\", interval_ms = 250, timeout_ms = 250, rise = 2, fall = 2, host = \"health.example.org\", path = \"/healthz\" }";
    let proxy = among(&[backend.address()], check);
    wait_health(&client(&proxy), backend.address(), Health::Down);
    assert_eq!(ask(&proxy, &hello()), (alert(80), End::Fin));
    proxy.wait_outcome("no_backend");
    well.store(true, Ordering::SeqCst);
    wait_health(&client(&proxy), backend.address(), Health::Up);
    well.store(false, Ordering::SeqCst);
    wait_health(&client(&proxy), backend.address(), Health::Down);
}

#[test]
fn https_checks_ask_inside_tls() {
    let ca = Ca::new();
    let backend = Backend::tls("speaks", &ca.issue(&["www.example.org"]), Expect::Plain);
    let check = "check = { kind = \"https\", interval_ms = 250, timeout_ms = 250, rise = 1, fall = 1, host = \"www.example.org\" }";
    let proxy = among(&[backend.address()], check);
    clock::wait_until("checks to arrive", || backend.accepted() >= 3);
    wait_health(&client(&proxy), backend.address(), Health::Up);
}

#[test]
fn a_draining_backend_keeps_its_connections_and_gets_no_new_one() {
    let (a, b) = (Backend::named("a"), Backend::named("b"));
    let proxy = among(&[a.address(), b.address()], "");
    let (mut held, counts) = spread(&proxy, 10);
    assert_eq!(counts["a"], 5);
    client(&proxy).drain(a.address(), true);
    assert!(client(&proxy).backend(a.address()).draining);
    for connection in &mut held {
        assert_alive(connection);
    }
    assert!((0..6).all(|_| open(&proxy).1 == "b"));
    client(&proxy).drain(a.address(), false);
    clock::wait_until("the backend to be used again", || open(&proxy).1 == "a");
}

#[test]
fn a_backend_that_comes_back_starts_slowly() {
    let steady = Backend::named("steady");
    let returned = |slow_start_ms: u32| {
        let address = fresh_address();
        let lines = format!(
            "check = {{ kind = \"tcp\", interval_ms = 500, timeout_ms = 500, rise = 1, fall = 1 }}\nslow_start_ms = {slow_start_ms}\neject_after = 0"
        );
        let proxy = among(&[steady.address(), address], &lines);
        wait_health(&client(&proxy), address, Health::Down);
        let returning = Backend::named_at(address, "returning");
        wait_health(&client(&proxy), address, Health::Up);
        (proxy, returning)
    };
    let share = |proxy: &Proxy| spread(proxy, 20).1.get("returning").copied().unwrap_or(0);
    // No machine is so slow that this start is over, and none so fast that the other is not within the wait.
    let (proxy, _returning) = returned(600_000);
    let early = share(&proxy);
    assert!(early <= 7, "a backend that has just come back got {early} of 20");
    let (proxy, _returning) = returned(1_000);
    clock::wait_until("the slow start to be over", || (9..=11).contains(&share(&proxy)));
}

#[test]
fn a_route_has_no_more_connections_than_it_may() {
    let backend = Backend::named("origin");
    let proxy = among(&[backend.address()], "max_connections = 3");
    let (mut held, _) = spread(&proxy, 3);
    let (_, end) = ask(&proxy, &hello());
    assert_ne!(end, End::Silence);
    proxy.wait_outcome("route_limit");
    wait_counted(&proxy, "route_limit", 1.0);
    assert_alive(&mut held[0]);
    drop(held.pop());
    clock::wait_until("the place to be free", || {
        let mut client = Raw::connect(proxy.web());
        client.send(&hello()).finish_and_read().0.starts_with(b"origin")
    });
}

#[test]
fn a_source_has_no_more_connections_than_it_may() {
    let backend = Backend::named("origin");
    let proxy = among(&[backend.address()], "max_connections_per_source = 2");
    let (one, other) = (fresh_ip(), fresh_ip());
    let _first = greet(Raw::connect_from(one, proxy.web()));
    let _second = greet(Raw::connect_from(one, proxy.web()));
    let mut third = Raw::connect_from(one, proxy.web());
    third.send(&hello());
    let (answer, _) = third.read_to_end(clock::PATIENCE);
    assert!(!answer.starts_with(b"origin"));
    let line = proxy.wait_outcome("source_limit");
    assert!(line["client"].as_str().unwrap().starts_with(&one.to_string()), "{line}");
    assert_eq!(greet(Raw::connect_from(other, proxy.web())).1, "origin");
}
