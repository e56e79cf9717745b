//! Listeners whose address cannot be had: they hold nobody up, are tried again, and are told of wherever somebody looks.

use std::net::{SocketAddr, TcpListener};

use mc_testkit::backend::Backend;
use mc_testkit::clock::{PATIENCE, wait_until};
use mc_testkit::net::Host;
use mc_testkit::proxy::{Config, Proxy};
use mc_testkit::{fresh_address, requires};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::common::{assert_alive, greet, open};
use mc_testkit::client::Raw;

/// Status and text of `/readyz`.
fn readiness(proxy: &Proxy) -> (u16, String) {
    let response = proxy.ops("/readyz");
    let status = response.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap();
    (status, response.rsplit("\r\n\r\n").next().unwrap().to_owned())
}

fn problem(proxy: &Proxy, listener: &str) -> String {
    let all = proxy.ctl(&["listener", "list"]);
    let found = all.as_array().unwrap().iter().find(|it| it["listener"]["name"] == listener);
    found.unwrap_or_else(|| panic!("no {listener}: {all}"))["problem"].as_str().unwrap().to_owned()
}

fn open_metric(proxy: &Proxy, listener: &str) -> f64 {
    proxy.metric("mcproxy_listener_open", &[&format!("listener=\"{listener}\"")])
}

/// Stored listeners `web`, on which the proxy was started, and `more` at `address`; then the proxy stops.
fn stored(proxy: &mut Proxy, address: SocketAddr) {
    drop(proxy.ctl(&["listener", "add", "more", &address.to_string()]));
    drop(proxy.ctl(&["route", "add", "--listener", "more", "--name", "*", "--backend", "127.0.0.1:9"]));
    proxy.term();
    assert!(proxy.process().wait(PATIENCE).success());
}

#[test]
fn a_port_that_another_program_took_holds_nobody_up_and_is_opened_when_it_is_free() {
    let origin = Backend::named("origin");
    let mut proxy = Proxy::start(Config::new().listener("web").route("*", origin.address()));
    let address = fresh_address();
    stored(&mut proxy, address);
    let taken = TcpListener::bind(address).unwrap();
    proxy.restart();
    // What can be served is, what cannot is told of everywhere.
    let (mut client, _) = open(&proxy);
    let text = problem(&proxy, "more");
    assert!(text.contains("`more`") && text.contains(&format!("{address} is in use")), "{text}");
    assert_eq!(problem(&proxy, "web"), "");
    assert_eq!(proxy.ctl(&["status"])["problems"], Value::from(vec![text.clone()]));
    assert!(proxy.ctl_text(&["status"]).contains(&format!("{address} is in use")));
    assert_eq!(readiness(&proxy), (503, format!("{text}\n")));
    assert!(open_metric(&proxy, "more") < 1.0 && open_metric(&proxy, "web") > 0.0);
    assert_eq!(proxy.errors().matches("is tried again").count(), 1, "{}", proxy.errors());
    // Its routes are there, and can be changed meanwhile; so can it itself, but not to what cannot be had either.
    let route = ["route", "add", "--listener", "more", "--name", "a.example.org", "--backend"];
    drop(proxy.ctl(&[&route[..], &[&origin.address().to_string()]].concat()));
    assert!(!proxy.ctl_output(&["listener", "update", "more", "--hello-timeout-ms", "5"]).status.success());
    let routes = proxy.root().join("routes.toml");
    let exported = proxy.ctl_text(&["route", "export"]);
    std::fs::write(&routes, exported.replace("a.example.org", "b.example.org")).unwrap();
    drop(proxy.ctl(&["route", "replace", &routes.display().to_string()]));
    assert_eq!(problem(&proxy, "more"), text);
    // A new process takes over what there is, and goes on trying.
    let mut old = proxy.take_over();
    assert!(problem(&proxy, "more").contains("is in use"));
    assert_alive(&mut client);
    drop(taken);
    wait_until("the listener to be opened", || problem(&proxy, "more").is_empty());
    drop(proxy.ctl(&[
        "route",
        "update",
        "--listener",
        "more",
        "--name",
        "*",
        "--backend",
        &origin.address().to_string(),
    ]));
    greet(Raw::connect(address));
    assert_eq!(readiness(&proxy), (200, "ok\n".to_owned()));
    assert_eq!(proxy.ctl(&["status"])["problems"], Value::Array(Vec::new()));
    assert!(open_metric(&proxy, "more") > 0.0);
    drop(client);
    assert!(old.wait(PATIENCE).success());
}

#[test]
fn an_address_that_the_machine_lost_holds_nobody_up_and_is_opened_when_it_is_back() {
    requires!(root, "nsenter", "ip");
    let host = Host::new();
    host.ip("address add 10.65.5.1/32 dev lo");
    host.ip("address add 10.65.5.2/32 dev lo");
    let web: SocketAddr = "10.65.5.1:443".parse().unwrap();
    let mut proxy = Proxy::start(Config::new().on(&host).listener_at("web", web, ""));
    stored(&mut proxy, "10.65.5.2:443".parse().unwrap());
    host.ip("address delete 10.65.5.2/32 dev lo");
    proxy.restart();
    let text = problem(&proxy, "more");
    assert!(text.contains("10.65.5.2 is not an address of this machine"), "{text}");
    // It can be removed, and moved to where it can be.
    drop(proxy.ctl(&["listener", "update", "more", "10.65.5.1:8443"]));
    assert_eq!(problem(&proxy, "more"), "");
    host.ip("address add 10.65.5.2/32 dev lo");
    drop(proxy.ctl(&["listener", "remove", "more", "--with-routes"]));
    stored(&mut proxy, "10.65.5.2:443".parse().unwrap());
    host.ip("address delete 10.65.5.2/32 dev lo");
    proxy.restart();
    assert!(!problem(&proxy, "more").is_empty());
    host.ip("address add 10.65.5.2/32 dev lo");
    wait_until("the listener to be opened", || problem(&proxy, "more").is_empty());
    assert_eq!(readiness(&proxy).0, 200);
}

/// While connections drain, nothing is opened any more, and the proxy is not ready.
#[test]
fn nothing_is_opened_while_it_stops() {
    let origin = Backend::named("origin");
    let config = Config::new().listener("web").route("*", origin.address());
    let mut proxy = Proxy::start(config);
    let address = fresh_address();
    stored(&mut proxy, address);
    let taken = TcpListener::bind(address).unwrap();
    proxy.restart();
    let (mut client, _) = open(&proxy);
    proxy.process().signal(Signal::SIGTERM);
    wait_until("the proxy to drain", || readiness(&proxy) == (503, "stopping\n".to_owned()));
    drop(taken);
    // Two rounds of what is done each second: an event that does not happen cannot be waited for.
    mc_testkit::clock::sleep_ms(2500);
    assert!(!proxy.errors().contains("listening, after it could not"), "{}", proxy.errors());
    assert_alive(&mut client);
    drop(client);
    assert!(proxy.process().wait(PATIENCE).success());
}

/// The first start from a seed is refused as a whole: nobody is there yet whom that could hurt, and nothing is stored.
#[test]
fn a_seed_whose_address_cannot_be_had_is_refused() {
    let address = fresh_address();
    let _taken = TcpListener::bind(address).unwrap();
    let failed =
        Proxy::try_start(Config::new().listener("web").listener_at("more", address, "")).unwrap_err();
    assert_eq!(failed.status.code(), Some(1));
    assert!(failed.errors.contains("`more`") && failed.errors.contains("is in use"), "{}", failed.errors);
}
