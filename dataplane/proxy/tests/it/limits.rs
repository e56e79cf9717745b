//! What becomes of clients when there is no more: of connections in all and of each client's share.

use std::time::Duration;

use mc_testkit::backend::Backend;
use mc_testkit::client::Raw;
use mc_testkit::clock::wait_until;
use mc_testkit::fresh_ip;
use mc_testkit::header::v2;
use mc_testkit::proxy::{Config, Proxy};

use super::common::{assert_alive, greet, hello, open};

fn refused(proxy: &Proxy, outcome: &str) -> f64 {
    proxy.metric("mcproxy_connections_total", &[&format!("outcome=\"{outcome}\"")])
}

/// Whether the connection is ended before anything is said on it.
fn is_ended(mut client: Raw) -> bool {
    client.stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
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
