//! Who may connect at all: networks, countries, autonomous systems, and how fast.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use mc_api::mcproxy::TestFirewallRequest;
use mc_testkit::backend::Backend;
use mc_testkit::client::Raw;
use mc_testkit::clock::PATIENCE;
use mc_testkit::header::v2;
use mc_testkit::proxy::{Config, Proxy};
use mc_testkit::{clock, fresh_ip, venv};
use nix::sys::signal::Signal;

use crate::common::{hello, wait_counted};
use crate::grpc::Grpc;

/// A proxy that believes everyone's PROXY header, with these further tables.
fn guarded(backend: &Backend, tables: &str) -> Proxy {
    let listener = "proxy_protocol = \"required\"";
    Proxy::start(Config::new().listener_with("web", listener).route("*", backend.address()).toml(tables))
}

/// What a client with this address gets: the backend's name, or nothing.
fn visit(proxy: &Proxy, client: &str) -> String {
    let client = SocketAddr::new(client.parse().unwrap(), 1234);
    let reached = if client.is_ipv4() { "192.0.2.1:443" } else { "[2001:db8::1]:443" }.parse().unwrap();
    let mut connection = Raw::connect(proxy.web());
    connection.send(&[v2(client, reached, &[]), hello()].concat());
    first_line(&mut connection)
}

fn first_line(connection: &mut Raw) -> String {
    connection.stream.shutdown(std::net::Shutdown::Write).ok();
    let (answer, _) = connection.read_to_end(PATIENCE);
    String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned()
}

fn check(proxy: &Proxy, client: &str, outcome: &str) {
    let answer = visit(proxy, client);
    assert_eq!(answer == "origin", outcome == "completed", "{client} got {answer:?}");
    let port = if client.contains(':') { format!("[{client}]:1234") } else { format!("{client}:1234") };
    let line = proxy.wait_log(client, |line| line["client"] == port);
    assert_eq!(line["outcome"], outcome, "{line}");
}

#[test]
fn networks_are_denied_and_allowed_and_the_more_specific_wins() {
    let origin = Backend::named("origin");
    let proxy = guarded(
        &origin,
        "[firewall]\nrules = [\n\
         { action = \"deny\", cidr = \"198.51.100.0/24\" },\n\
         { action = \"allow\", cidr = \"198.51.100.7/32\" },\n\
         { action = \"deny\", cidr = \"2001:db8:bad::/48\", comment = \"scanner\" },\n]",
    );
    check(&proxy, "192.0.2.9", "completed");
    check(&proxy, "198.51.100.1", "denied_cidr");
    check(&proxy, "198.51.100.7", "completed");
    check(&proxy, "2001:db8:bad::1", "denied_cidr");
    check(&proxy, "2001:db8:900d::1", "completed");
    wait_counted(&proxy, "denied_cidr", 2.0);
}

#[test]
fn where_the_default_is_deny_only_the_allowed_pass() {
    let origin = Backend::named("origin");
    let proxy = guarded(
        &origin,
        "[firewall]\ndefault = \"deny\"\nrules = [{ action = \"allow\", cidr = \"192.0.2.0/24\" }]",
    );
    check(&proxy, "192.0.2.9", "completed");
    check(&proxy, "198.51.100.1", "denied_default");
}

#[test]
fn a_peer_without_a_header_is_judged_itself() {
    let origin = Backend::named("origin");
    let denied = fresh_ip();
    let rule = format!("[firewall]\nrules = [{{ action = \"deny\", cidr = \"{denied}/32\" }}]");
    let proxy = Proxy::start(Config::new().listener("web").route("*", origin.address()).toml(&rule));
    // It is reset before it has said anything, perhaps before it has noticed that it is connected.
    if let Ok(mut from_denied) = Raw::try_connect(Some(denied), proxy.web()) {
        std::io::Write::write_all(&mut from_denied.stream, &hello()).ok();
        assert_eq!(first_line(&mut from_denied), "");
    }
    proxy.wait_outcome("denied_cidr");
    let mut other = Raw::connect_from(fresh_ip(), proxy.web());
    other.send(&hello());
    assert_eq!(first_line(&mut other), "origin");
}

#[test]
fn countries_are_denied_by_the_database() {
    // The database that the documentation names; without it a small one in the same format.
    let (database, denied, allowed) = match std::env::var_os("MC_COUNTRY_MMDB") {
        Some(path) => (PathBuf::from(path), "1.0.1.1", "8.8.8.8"),
        None => (made_databases().0, "203.0.113.5", "192.0.2.5"),
    };
    let origin = Backend::named("origin");
    let tables = format!(
        "[geoip]\ncountry_database = \"{}\"\n[firewall]\nrules = [{{ action = \"deny\", country = \"CN\" }}]",
        database.display()
    );
    let proxy = guarded(&origin, &tables);
    check(&proxy, denied, "denied_country");
    check(&proxy, allowed, "completed");
    // An address that the database does not know has no country.
    check(&proxy, "10.0.0.1", "completed");
    let request = TestFirewallRequest { address: denied.into() };
    let test = Grpc::connect(&proxy.socket());
    let test = test.call(|mut client| async move { client.test_firewall(request).await }).unwrap();
    assert_eq!((test.allowed, test.country.as_str()), (false, "CN"), "{test:?}");
}

/// A database that has gone is no reason not to start. Its rules do nothing then, and that is said wherever somebody looks.
#[test]
fn a_database_that_goes_away_is_told_of_until_it_is_back() {
    let (database, _) = made_databases();
    let origin = Backend::named("origin");
    let tables = "[geoip]\ncountry_database = \"country.mmdb\"";
    let config = Config::new()
        .listener_with("web", "proxy_protocol = \"required\"")
        .route("*", origin.address())
        .toml(tables);
    let root = tempfile::Builder::new().prefix("mc").tempdir().unwrap();
    let there = root.path().join("country.mmdb");
    std::fs::copy(&database, &there).unwrap();
    let mut proxy = Proxy::try_start_in(root, config).unwrap();
    drop(proxy.ctl(&["firewall", "deny", "country:CN"]));
    check(&proxy, "203.0.113.5", "denied_country");
    let rules = |proxy: &Proxy| proxy.metric("mcproxy_firewall_rules_without_database", &[]);
    assert!(rules(&proxy) < 1.0);
    proxy.process().kill9();
    std::fs::remove_file(&there).unwrap();
    proxy.restart();
    check(&proxy, "203.0.113.6", "completed");
    assert!((rules(&proxy) - 1.0).abs() < 0.1);
    let says = |text: &str| {
        ["deny country:CN", "do nothing", "country.mmdb", "SIGHUP"].iter().all(|word| text.contains(word))
    };
    for command in [&["status"][..], &["firewall", "show"]] {
        let (text, json) = (proxy.ctl_text(command), proxy.ctl(command)["problems"].to_string());
        assert!(says(&text) && says(&json), "{text}\n{json}");
    }
    assert!(proxy.errors().lines().any(says), "{}", proxy.errors());
    // What is about something else can be changed, and rules can be removed; there is no new one that does nothing.
    drop(proxy.ctl(&["firewall", "deny", "192.0.2.0/24"]));
    assert!(!proxy.ctl_output(&["firewall", "deny", "country:US"]).status.success());
    std::fs::copy(&database, &there).unwrap();
    proxy.process().signal(Signal::SIGHUP);
    clock::wait_until("the database to be read", || rules(&proxy) < 1.0);
    check(&proxy, "203.0.113.7", "denied_country");
    assert_eq!(proxy.ctl(&["status"])["problems"], serde_json::json!([]));
}

/// A seed with a rule that would do nothing is refused, and nothing is stored.
#[test]
fn a_seed_with_a_rule_that_would_do_nothing_is_refused() {
    let rules = "[firewall]\nrules = [{ action = \"deny\", country = \"CN\" }]";
    let failed = Proxy::try_start(Config::new().listener("web").toml(rules)).unwrap_err();
    assert!(failed.errors.contains("firewall.rules[0].country"), "{}", failed.errors);
}

#[test]
fn autonomous_systems_are_denied_by_the_database() {
    let database = std::env::var_os("MC_ASN_MMDB").map_or_else(|| made_databases().1, PathBuf::from);
    let origin = Backend::named("origin");
    let tables = format!(
        "[geoip]\nasn_database = \"{}\"\n[firewall]\nrules = [\n\
         {{ action = \"deny\", asn = 64497 }},\n\
         {{ action = \"allow\", cidr = \"198.51.100.8/32\" }},\n]",
        database.display()
    );
    let proxy = guarded(&origin, &tables);
    check(&proxy, "198.51.100.1", "denied_asn");
    check(&proxy, "2001:db8:2::1", "denied_asn");
    check(&proxy, "192.0.2.1", "completed");
    check(&proxy, "198.51.100.8", "completed");
}

/// Databases of countries and of autonomous systems, made by PyPI's `mmdb_writer`.
fn made_databases() -> (PathBuf, PathBuf) {
    use std::sync::OnceLock;
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    let folder = MADE.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("databases");
        std::fs::create_dir_all(&folder).unwrap();
        let mut python = Command::new(venv().join("bin/python"));
        python.arg(mc_testkit::peer::folder().join("databases.py")).arg(&folder);
        let output = python.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        folder
    });
    (folder.join("country.mmdb"), folder.join("asn.mmdb"))
}

/// How many of so many connections at once the clients got through, each from the next of these addresses.
fn burst(proxy: &Proxy, connections: usize, clients: &[&str]) -> usize {
    let passed = |number: usize| visit(proxy, clients[number % clients.len()]) == "origin";
    (0..connections).filter(|number| passed(*number)).count()
}

#[test]
fn an_address_opens_no_more_connections_than_its_rate_over_all_workers() {
    let origin = Backend::named("origin");
    let proxy = guarded(&origin, "[firewall]\nrate = { per_address = 2, address_burst = 10 }");
    // Ten at once and two a second, whichever of the two workers they reach.
    let passed = burst(&proxy, 40, &["192.0.2.1"]);
    assert!((10..=16).contains(&passed), "{passed} of 40 passed");
    assert_eq!(burst(&proxy, 5, &["192.0.2.2"]), 5, "another address has its own");
    proxy.wait_outcome("rate_address");
    // Both workers had a part in it.
    for worker in ["0", "1"] {
        let label = format!("worker=\"{worker}\"");
        assert!(proxy.metric("mcproxy_connections_accepted_total", &[&label]) > 0.0);
    }
}

#[test]
fn a_prefix_opens_no_more_connections_than_its_rate() {
    let origin = Backend::named("origin");
    let proxy = guarded(&origin, "[firewall]\nrate = { per_prefix = 2, prefix_burst = 10 }");
    let clients: Vec<String> = (1..=40).map(|last| format!("192.0.2.{last}")).collect();
    let clients: Vec<&str> = clients.iter().map(String::as_str).collect();
    let passed = burst(&proxy, 40, &clients);
    assert!((10..=16).contains(&passed), "{passed} of 40 passed");
    assert_eq!(burst(&proxy, 5, &["198.51.100.1"]), 5, "another prefix has its own");
    let six: Vec<String> = (1..=30).map(|last| format!("2001:db8:7:{last:x}::1")).collect();
    let six: Vec<&str> = six.iter().map(String::as_str).collect();
    let passed = burst(&proxy, 30, &six);
    assert!((10..=16).contains(&passed), "{passed} of 30 in one /48 passed");
    proxy.wait_outcome("rate_prefix");
}

#[test]
fn tokens_come_back_with_time() {
    let origin = Backend::named("origin");
    let proxy = guarded(&origin, "[firewall]\nrate = { per_address = 5, address_burst = 5 }");
    while visit(&proxy, "192.0.2.1") == "origin" {}
    clock::sleep_ms(1_100);
    assert_eq!(visit(&proxy, "192.0.2.1"), "origin");
}

#[test]
fn allowed_networks_and_the_trusted_edge_itself_have_no_rate() {
    let origin = Backend::named("origin");
    let config = Config::new()
        .listener_with("web", "proxy_protocol = \"optional\"\ntrusted = [\"127.0.0.1/32\"]")
        .route("*", origin.address())
        .toml(
            "[firewall]\nrules = [{ action = \"allow\", cidr = \"192.0.2.0/24\" }]\n\
             rate = { per_address = 1, address_burst = 2 }",
        );
    let proxy = Proxy::start(config);
    // All come through the edge at 127.0.0.1: its own address has no rate.
    let clients: Vec<String> = (1..=30).map(|last| format!("198.51.100.{last}")).collect();
    let clients: Vec<&str> = clients.iter().map(String::as_str).collect();
    assert_eq!(burst(&proxy, 30, &clients), 30);
    assert_eq!(burst(&proxy, 20, &["192.0.2.1"]), 20, "an allowed network has no rate");
    let passed = burst(&proxy, 20, &["203.0.113.1"]);
    assert!((2..=5).contains(&passed), "{passed} of 20 from the carried address passed");
}
