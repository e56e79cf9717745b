//! Routes on hold: who waits, for how long, and what ends a wait.

use std::io::Write as _;
use std::time::Duration;

use mc_api::mcproxy as api;
use mc_core::hold::{MAX_WAITING, MAX_WAITING_PER_CLIENT};
use mc_testkit::backend::Backend;
use mc_testkit::ca::Ca;
use mc_testkit::client::{End, Raw, Request};
use mc_testkit::clock::{self, PATIENCE};
use mc_testkit::http::{Client, Origin};
use mc_testkit::net::Host;
use mc_testkit::proxy::{Config, Proxy};
use mc_testkit::{fresh_address, fresh_ip, requires};
use tonic::{Code, Status};

use crate::common::{alert, greet, hello, wait_counted};
use crate::grpc::{Grpc, route};
use crate::http1::get;

const NAME: &str = "www.example.org";

fn key(name: &str) -> Option<api::RouteKey> {
    Some(api::RouteKey { listener: "web".into(), name: name.into(), alpn: String::new() })
}

/// Puts a route on hold.
pub(crate) fn hold(client: &Grpc, name: &str, hold_ms: u64) -> Result<api::HoldRouteResponse, Status> {
    let request = api::HoldRouteRequest { key: key(name), hold_ms, ..Default::default() };
    client.call(|mut client| async move { client.hold_route(request).await })
}

fn release(client: &Grpc, name: &str) -> bool {
    let request = api::ReleaseRouteRequest { key: key(name), ..Default::default() };
    client.call(|mut client| async move { client.release_route(request).await }).unwrap().was_held
}

/// Waits until so many connections and requests wait.
pub(crate) fn wait_waiting(client: &Grpc, is_so: impl Fn(u64) -> bool) {
    clock::wait_until("another number to wait", || is_so(client.status().waiting));
}

/// A proxy whose route passes through to this backend, and a client of its admin API.
fn passing(to: &Backend, lines: &str) -> (Proxy, Grpc) {
    let config = Config::new().server("workers = 1").listener("web").route_with(NAME, &[to.address()], lines);
    let proxy = Proxy::start(config);
    let client = Grpc::connect(&proxy.socket());
    (proxy, client)
}

/// A client that has said its hello and got nothing yet.
fn waiting(proxy: &Proxy, client: &Grpc) -> Raw {
    let before = client.status().waiting;
    let mut raw = Raw::connect(proxy.web());
    raw.send(&hello());
    wait_waiting(client, |waiting| waiting > before);
    raw
}

/// A proxy that terminates TLS for a route, with its authority.
fn terminating(to: &Origin) -> (Proxy, Grpc, Ca) {
    let ca = Ca::new();
    let config = Config::new().server("workers = 1").listener("web").certificate("www", &ca.issue(&[NAME]));
    let proxy = Proxy::start(config.route_with(NAME, &[to.address()], "mode = \"l7\""));
    let client = Grpc::connect(&proxy.socket());
    (proxy, client, ca)
}

fn http(proxy: &Proxy, ca: &Ca) -> Client {
    Client::on(Request::new(ca, proxy.web(), NAME).alpn(&["http/1.1"]).open().unwrap())
}

#[test]
fn a_hold_is_over_when_it_is_released() {
    let backend = Backend::named("origin");
    let (proxy, client) = passing(&backend, "");
    let (mut old, _) = greet(Raw::connect(proxy.web()));
    hold(&client, NAME, 30_000).unwrap();
    let mut held = waiting(&proxy, &client);
    assert_eq!(client.status().routes_on_hold, 1);
    assert!(client.connections().iter().any(|connection| connection.phase == "hold"));
    assert_eq!(proxy.metric("mcproxy_routes_on_hold", &[]), 1.0);
    assert_eq!(proxy.metric("mcproxy_hold_waiting", &[]), 1.0);
    let listed = proxy.ctl(&["route", "list"]);
    assert!(listed[0]["hold_left_ms"].as_u64().unwrap() > 0, "{listed}");
    // What was there goes on.
    crate::common::assert_alive(&mut old);
    assert_eq!(backend.accepted(), 1);
    assert!(release(&client, NAME));
    assert_eq!(held.read_line(), "origin");
    assert!(!release(&client, NAME));
    assert_eq!((client.status().routes_on_hold, client.status().waiting), (0, 0));
}

#[test]
fn a_hold_is_over_at_its_time() {
    let (backend, origin) = (Backend::named("origin"), Origin::echoing());
    let (proxy, client) = passing(&backend, "");
    hold(&client, NAME, 600).unwrap();
    let start = clock::now();
    assert_eq!(greet(Raw::connect(proxy.web())).1, "origin");
    assert!(start.elapsed() >= Duration::from_millis(300), "{:?}", start.elapsed());
    let (proxy, client, ca) = terminating(&origin);
    hold(&client, NAME, 2000).unwrap();
    let start = clock::now();
    assert_eq!(http(&proxy, &ca).ask(get("/x")).text(), "/x");
    assert!(start.elapsed() >= Duration::from_millis(500), "{:?}", start.elapsed());
}

#[test]
fn a_hold_that_makes_no_sense_is_refused() {
    let backend = Backend::named("origin");
    let (_proxy, client) = passing(&backend, "");
    for hold_ms in [0, 30_001] {
        let refused = hold(&client, NAME, hold_ms).unwrap_err();
        assert_eq!(
            (refused.code(), refused.metadata().get("field").unwrap().as_bytes()),
            (Code::InvalidArgument, &b"hold_ms"[..])
        );
    }
    assert_eq!(hold(&client, "other.example.org", 1000).unwrap_err().code(), Code::NotFound);
}

#[test]
fn a_client_that_leaves_waits_no_longer() {
    let (backend, origin) = (Backend::named("origin"), Origin::echoing());
    let (proxy, client) = passing(&backend, "");
    hold(&client, NAME, 30_000).unwrap();
    drop(waiting(&proxy, &client));
    wait_waiting(&client, |waiting| waiting == 0);
    waiting(&proxy, &client).reset();
    wait_waiting(&client, |waiting| waiting == 0);
    assert_eq!(backend.accepted(), 0);
    wait_counted(&proxy, "client_reset", 2.0);
    let (proxy, client, ca) = terminating(&origin);
    hold(&client, NAME, 30_000).unwrap();
    let mut asking = http(&proxy, &ca);
    asking.send(get("/"));
    wait_waiting(&client, |waiting| waiting == 1);
    drop(asking);
    wait_waiting(&client, |waiting| waiting == 0);
    // One that says that it sends no more still listens.
    let mut asking = http(&proxy, &ca);
    asking.send(get("/half")).finish();
    wait_waiting(&client, |waiting| waiting == 1);
    clock::sleep_ms(300);
    release(&client, NAME);
    assert_eq!(asking.response(false).text(), "/half");
    assert_eq!(origin.accepted(), 1);
}

#[test]
fn a_waiting_connection_can_be_killed_and_times_out() {
    let backend = Backend::named("origin");
    let (proxy, client) = passing(&backend, "idle_timeout_ms = 1500");
    hold(&client, NAME, 30_000).unwrap();
    let mut killed = waiting(&proxy, &client);
    let request = api::KillConnectionsRequest { all: true, ..Default::default() };
    client.call(|mut client| async move { client.kill_connections(request).await }).unwrap();
    assert_ne!(killed.read_to_end(PATIENCE).1, End::Silence);
    proxy.wait_outcome("killed");
    let mut idle = waiting(&proxy, &client);
    assert_ne!(idle.read_to_end(PATIENCE).1, End::Silence);
    proxy.wait_outcome("idle_timeout");
    assert_eq!(client.status().routes_on_hold, 1);
}

#[test]
fn a_proxy_that_stops_holds_nobody_up() {
    let (backend, origin) = (Backend::named("origin"), Origin::echoing());
    let (mut proxy, client) = passing(&backend, "");
    hold(&client, NAME, 30_000).unwrap();
    let mut held = waiting(&proxy, &client);
    proxy.term();
    assert_eq!(held.read_line(), "origin");
    drop(held);
    proxy.process().wait(PATIENCE);
    let (mut proxy, client, ca) = terminating(&origin);
    hold(&client, NAME, 30_000).unwrap();
    let mut asking = http(&proxy, &ca);
    asking.send(get("/last"));
    wait_waiting(&client, |waiting| waiting == 1);
    proxy.term();
    assert_eq!(asking.response(false).text(), "/last");
    drop(asking);
    proxy.process().wait(PATIENCE);
}

#[test]
fn a_process_that_takes_over_knows_no_hold() {
    let backend = Backend::named("origin");
    let (mut proxy, client) = passing(&backend, "");
    hold(&client, NAME, 30_000).unwrap();
    let mut held = waiting(&proxy, &client);
    let _old = proxy.take_over();
    assert_eq!(held.read_line(), "origin");
    assert_eq!(greet(Raw::connect(proxy.web())).1, "origin");
}

#[test]
fn a_route_that_is_gone_is_no_route_for_those_who_wait() {
    let (backend, origin) = (Backend::named("origin"), Origin::echoing());
    let (proxy, client) = passing(&backend, "");
    hold(&client, NAME, 30_000).unwrap();
    let mut held = waiting(&proxy, &client);
    client.remove_route(NAME, false).unwrap();
    assert_eq!(held.read_to_end(PATIENCE), (alert(112), End::Fin));
    // A route that is added again is not on hold.
    client.add_route(route(NAME, &backend.address().to_string())).unwrap();
    assert_eq!(greet(Raw::connect(proxy.web())).1, "origin");
    let (proxy, client, ca) = terminating(&origin);
    hold(&client, NAME, 30_000).unwrap();
    let mut asking = http(&proxy, &ca);
    asking.send(get("/"));
    wait_waiting(&client, |waiting| waiting == 1);
    client.remove_route(NAME, false).unwrap();
    assert_eq!(asking.response(false).status(), 421);
}

#[test]
fn a_change_ends_the_hold_unless_it_is_to_stay() {
    let (old, new) = (Backend::named("old"), Backend::named("new"));
    let (proxy, client) = passing(&old, "");
    let put = |to: &Backend, keep_hold| {
        let route = Some(route(NAME, &to.address().to_string()));
        let request = api::AddRouteRequest { route, keep_hold, ..Default::default() };
        client.call(|mut client| async move { client.add_route(request).await }).unwrap();
    };
    hold(&client, NAME, 30_000).unwrap();
    let mut held = waiting(&proxy, &client);
    put(&new, true);
    assert_eq!(client.status().routes_on_hold, 1);
    put(&new, false);
    assert_eq!(held.read_line(), "new");
    // What replaces all routes ends the holds of those that it changes.
    let replace = |to: &Backend| {
        let routes = vec![route(NAME, &to.address().to_string())];
        let messages = vec![api::ReplaceRoutesRequest { routes, ..Default::default() }];
        client
            .call(|mut client| async move { client.replace_routes(tokio_stream::iter(messages)).await })
            .unwrap();
    };
    hold(&client, NAME, 30_000).unwrap();
    let mut held = waiting(&proxy, &client);
    replace(&new);
    assert_eq!(client.status().routes_on_hold, 1, "it is the same");
    replace(&old);
    assert_eq!(held.read_line(), "old");
}

#[test]
fn no_more_wait_than_may() {
    let (backend, origin, ca) = (Backend::named("origin"), Origin::echoing(), Ca::new());
    let config = Config::new().server("workers = 1").listener("web").certificate("www", &ca.issue(&[NAME]));
    let config = config.route("*", backend.address());
    let proxy = Proxy::start(config.route_with(NAME, &[origin.address()], "mode = \"l7\""));
    let client = Grpc::connect(&proxy.socket());
    hold(&client, "*", 30_000).unwrap();
    let other = mc_testkit::hello::Hello::to("other.example.org").bytes();
    let wait_from = |address, number: u32| -> Vec<Raw> {
        let open = |_| {
            let mut raw = Raw::connect_from(address, proxy.web());
            raw.send(&other);
            raw
        };
        (0..number).map(open).collect()
    };
    // One client has its share, and leaves places for others.
    let greedy = fresh_ip();
    let mut held = wait_from(greedy, MAX_WAITING_PER_CLIENT);
    wait_waiting(&client, |waiting| waiting == u64::from(MAX_WAITING_PER_CLIENT));
    let mut refused = Raw::connect_from(greedy, proxy.web());
    refused.send(&other);
    assert_eq!(refused.read_to_end(PATIENCE), (alert(80), End::Fin));
    for _ in 1..MAX_WAITING as u64 / u64::from(MAX_WAITING_PER_CLIENT) {
        held.extend(wait_from(fresh_ip(), MAX_WAITING_PER_CLIENT));
    }
    wait_waiting(&client, |waiting| waiting == MAX_WAITING as u64);
    // The time for all of them to come counts, too.
    hold(&client, "*", 30_000).unwrap();
    hold(&client, NAME, 30_000).unwrap();
    let mut refused = Raw::connect(proxy.web());
    refused.send(&other);
    assert_eq!(refused.read_to_end(PATIENCE), (alert(80), End::Fin));
    proxy.wait_outcome("hold_limit");
    let response = http(&proxy, &ca).ask(get("/"));
    assert_eq!((response.status(), response.values("retry-after")), (503, vec!["1"]));
    wait_counted(&proxy, "hold_limit", 2.0);
    proxy.wait_metric("mcproxy_requests_total", &["outcome=\"hold_limit\""], 1.0);
    drop(held);
    wait_waiting(&client, |waiting| waiting == 0);
    assert_eq!(client.status().routes_on_hold, 2);
}

#[test]
fn a_request_whose_backends_refuse_takes_those_that_the_route_has_by_then() {
    let origin = Origin::echoing();
    let ca = Ca::new();
    let config = Config::new().server("workers = 1").listener("web").certificate("www", &ca.issue(&[NAME]));
    // Each attempt finds that nobody listens; the request gives up after more than a second.
    let lines = "mode = \"l7\"\neject_after = 0";
    let proxy = Proxy::start(config.route_with(NAME, &[fresh_address()], lines));
    let client = Grpc::connect(&proxy.socket());
    let mut asking = http(&proxy, &ca);
    asking.send(get("/late"));
    let dead = |client: &Grpc| client.backends()[0].failures > 0;
    clock::wait_until("the backend to refuse", || dead(&client));
    let moved = api::Route { mode: api::Mode::L7.into(), ..route(NAME, &origin.address().to_string()) };
    client.add_route(moved).unwrap();
    assert_eq!(asking.response(false).text(), "/late");
}

#[test]
fn a_connection_that_no_backend_takes_goes_to_those_that_the_route_has_by_then() {
    requires!(root, "iptables", "nsenter");
    let host = Host::new();
    host.run("iptables", &["-A", "INPUT", "-d", "127.0.0.2", "-j", "DROP"]);
    let backend = Backend::start_on(&host, "127.0.0.3:443".parse().unwrap(), |mut stream| {
        stream.write_all(b"alive\n").ok();
    });
    let lines = "connect_timeout_ms = 3000\nretries = 0";
    let config = Config::new().on(&host).listener_at("web", "127.0.0.1:4433".parse().unwrap(), "");
    let proxy = Proxy::start(config.route_with(NAME, &["127.0.0.2:443".parse().unwrap()], lines));
    let client = Grpc::connect(&proxy.socket());
    let mut late = host.enter(|| Raw::connect(proxy.web()));
    late.send(&hello());
    let connects = || client.connections().iter().any(|connection| connection.phase == "connect");
    clock::wait_until("the connection to be tried", connects);
    client.add_route(route(NAME, &backend.address().to_string())).unwrap();
    assert_eq!(late.read_line(), "alive");
}

#[test]
fn the_command_line_holds_and_releases() {
    let backend = Backend::named("origin");
    let (proxy, client) = passing(&backend, "");
    let of = ["--listener", "web", "--name", NAME];
    let run = |words: &[&str]| proxy.ctl_text(&[words, &of].concat());
    assert!(run(&["route", "hold", "--for", "20s"]).contains("on hold for 20s"));
    let held = waiting(&proxy, &client);
    assert!(proxy.ctl_text(&["route", "list"]).contains("HOLD"));
    assert!(proxy.ctl_text(&["status"]).contains("1 routes, 1 waiting"));
    assert!(run(&["route", "release"]).contains("is released"));
    assert!(run(&["route", "release"]).contains("was not on hold"));
    drop(held);
    let refused = proxy.ctl_output(&[&["route", "hold", "--for", "31s"], &of[..]].concat());
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("1 to 30000"));
}
