//! Tests of what is refused, with the field and the remedy, and that the one form is reached at once.

use proptest::prelude::*;
use serde::de::DeserializeOwned;

use super::*;
use crate::model::{Action, Firewall, FirewallRule, Listener, Rate, Route, Subject};

/// Normalizes TOML. `expect`: `Ok(part of the result's Debug)` or `Err((field, part of the problem))`.
#[track_caller]
fn check_toml<T: DeserializeOwned + std::fmt::Debug>(
    normalize: fn(T) -> Result<T, Invalid>,
    toml: &str,
    expect: Result<&str, (&str, &str)>,
) {
    let value = toml::from_str(toml).unwrap_or_else(|error| panic!("{toml}: {error}"));
    match (normalize(value), expect) {
        (Ok(value), Ok(part)) => assert!(format!("{value:?}").contains(part), "{value:?} without {part}"),
        (Err(error), Err((field, part))) => {
            assert_eq!(error.field, field, "{error}");
            assert!(error.problem.contains(part), "{error}");
        }
        (got, expect) => panic!("{toml}: {got:?}, not {expect:?}"),
    }
}

/// A listener with these lines in addition or instead.
#[track_caller]
fn listener(lines: &str, expect: Result<&str, (&str, &str)>) {
    let mut toml = lines.to_owned();
    for (key, value) in [("name", "web"), ("address", "0.0.0.0:443")] {
        if !lines.contains(&format!("{key} =")) {
            toml += &format!("\n{key} = {value:?}");
        }
    }
    check_toml::<Listener>(normalize_listener, &toml, expect);
}

/// A route with these lines in addition or instead.
#[track_caller]
fn route(lines: &str, expect: Result<&str, (&str, &str)>) {
    let mut toml = String::new();
    for (key, value) in
        [("listener", "\"web\""), ("name", "\"a.org\""), ("backends", "[{address = \"10.0.0.1:443\"}]")]
    {
        if !lines.lines().any(|line| line.starts_with(key)) {
            toml += &format!("{key} = {value}\n");
        }
    }
    check_toml::<Route>(normalize_route, &(toml + lines), expect);
}

#[track_caller]
fn name(name: &str, expect: Result<&str, &str>) {
    let expect = expect.map(|name| format!("name: {name:?}"));
    route(&format!("name = {name:?}"), expect.as_deref().map_err(|part| ("name", *part)));
}

#[track_caller]
fn backend(inner: &str, expect: Result<&str, (&str, &str)>) {
    let address = if inner.contains("address") { "" } else { "address = \"10.0.0.1:443\", " };
    route(&format!("backends = [{{{address}{inner}}}]"), expect);
}

#[track_caller]
fn rule(toml: &str, expect: Result<&str, (&str, &str)>) {
    check_toml::<FirewallRule>(normalize_rule, &format!("action = \"deny\"\n{toml}"), expect);
}

#[test]
fn listeners() {
    listener("", Ok("web"));
    listener("address = \"[::]:0\"", Ok("[::]:0"));
    listener("name = \"\"", Err(("name", "1 to 63")));
    listener("name = \"Web\"", Err(("name", "a-z")));
    listener(&format!("name = {:?}", "a".repeat(64)), Err(("name", "1 to 63")));
    listener("address = \"224.0.0.1:443\"", Err(("address", "multicast")));
    listener("address = \"[::ffff:10.0.0.1]:443\"", Err(("address", "write 10.0.0.1:443")));
    listener("proxy_protocol = \"required\"", Ok("Required"));
    listener("proxy_protocol = \"optional\"", Err(("trusted", "name the proxies' networks")));
    listener("trusted = [\"10.0.0.0/8\"]", Err(("trusted", "no meaning")));
    let trusted = |networks: &str| format!("proxy_protocol = \"optional\"\ntrusted = {networks}");
    listener(&trusted("[\"10.0.0.0/8\", \"::1/128\"]"), Ok("10.0.0.0/8"));
    listener(&trusted("[\"::1/128\", \"10.0.0.1/8\"]"), Err(("trusted[1]", "write 10.0.0.0/8")));
    listener(&trusted("[\"::ffff:10.0.0.0/104\"]"), Err(("trusted[0]", "write 10.0.0.0/8")));
    listener(&trusted("[\"::1/128\", \"::1/128\"]"), Err(("trusted[1]", "twice")));
    listener("hello_timeout_ms = 0", Err(("hello_timeout_ms", "1 to 600000")));
    listener("max_hello_bytes = 511", Err(("max_hello_bytes", "512 to 1048576")));
    listener("max_hello_bytes = 1048576", Ok("1048576"));
}

#[test]
fn route_names() {
    name("Example.ORG.", Ok("example.org"));
    name("*.Example.org.", Ok("*.example.org"));
    name("*", Ok("*"));
    name("xn--bcher-kva.example", Ok("xn--bcher-kva.example"));
    name("_dns.a-b.org", Ok("_dns.a-b.org"));
    name("", Err("write a host name"));
    name("*.", Err("write a host name"));
    name("bücher.example", Err("xn--"));
    name("**.example.org", Err("a star stands alone"));
    name("a.*.org", Err("a star stands alone"));
    name("*.*.org", Err("a star stands alone"));
    name("a*.org", Err("a star stands alone"));
    name("192.0.2.1", Err("IP address"));
    name("2001:db8::1", Err("IP address"));
    name("*.192.0.2.1", Err("IP address"));
    name("https://a.org", Err("without scheme"));
    name("a.org:443", Err("without scheme"));
    name("a b", Err("letters, digits"));
    name("a..b", Err("one dot"));
    name("a.1", Err("not a number"));
    let long = format!("{0}.{0}.{0}.{1}", "a".repeat(63), "b".repeat(60));
    name(&long, Ok(&long));
    name(&format!("*.{long}"), Err("more than 253"));
    name(&format!("*.{}", &long[2..]), Ok(&format!("*.{}", &long[2..])));
}

#[test]
fn routes() {
    route("", Ok("a.org"));
    route("listener = \"We b\"", Err(("listener", "no listener name")));
    route("any_depth = true", Err(("any_depth", "*.example.org")));
    route("name = \"*\"\nany_depth = true", Err(("any_depth", "remove it")));
    route("name = \"*.a.org\"\nany_depth = true", Ok("any_depth: true"));
    route("alpn = \"acme-tls/1\"", Ok("acme-tls/1"));
    route("alpn = \"h 2\"", Err(("alpn", "visible ASCII")));
    route(&format!("alpn = {:?}", "x".repeat(256)), Err(("alpn", "255")));
    route("connect_timeout_ms = 0", Err(("connect_timeout_ms", "1 to 300000")));
    route("retries = 17", Err(("retries", "0 to 16")));
    route("idle_timeout_ms = 0", Ok("idle_timeout_ms: 0"));
    route("idle_timeout_ms = 604800001", Err(("idle_timeout_ms", "604800000")));
    route("total_timeout_ms = 604800001", Err(("total_timeout_ms", "604800000")));
    route("eject_ms = 3600001", Err(("eject_ms", "3600000")));
    route("eject_ms = 0", Err(("eject_ms", "eject_after = 0")));
    route("eject_ms = 0\neject_after = 0", Ok("eject_after: 0"));
    route("slow_start_ms = 3600001", Err(("slow_start_ms", "3600000")));
}

#[test]
fn backends() {
    route("backends = []", Err(("backends", "1 to 256")));
    let many = |count: u16| {
        let all: Vec<_> = (1..=count).map(|port| format!("{{address = \"10.0.0.1:{port}\"}}")).collect();
        format!("backends = [{}]", all.join(", "))
    };
    route(&many(256), Ok("10.0.0.1:256"));
    route(&many(257), Err(("backends", "257 backends")));
    let twice = "backends = [{address = \"10.0.0.1:1\"}, {address = \"10.0.0.1:1\", weight = 2}]";
    route(twice, Err(("backends[1].address", "backends[0]")));
    backend("address = \"0.0.0.0:443\"", Err(("backends[0].address", "127.0.0.1")));
    backend("address = \"[::]:443\"", Err(("backends[0].address", "every address")));
    backend("address = \"10.0.0.1:0\"", Err(("backends[0].address", "port 0")));
    backend("address = \"[ff02::1]:443\"", Err(("backends[0].address", "multicast")));
    backend("address = \"255.255.255.255:443\"", Err(("backends[0].address", "broadcast")));
    backend("address = \"[::ffff:10.0.0.1]:443\"", Err(("backends[0].address", "write 10.0.0.1:443")));
    let tls = |inner: &str, lines: &str, expect| {
        route(
            &format!("mode = \"l7\"\nbackends = [{{address = \"10.0.0.1:443\", {inner}}}]\n{lines}"),
            expect,
        );
    };
    let ca = "http = {backend_ca = \"ca.pem\"}";
    tls("protocol = \"https\"", ca, Ok("protocol: Https"));
    tls("protocol = \"h2\", server_name = \"B.Internal.\"", ca, Ok("server_name: \"b.internal\""));
    tls("protocol = \"h2\", server_name = \"FD00::01\"", ca, Ok("server_name: \"fd00::1\""));
    tls("protocol = \"https\"", "", Err(("http.backend_ca", "nobody is trusted by default")));
    tls("protocol = \"h2c\"", ca, Err(("http.backend_ca", "https or h2")));
    tls("server_name = \"b\"", "", Err(("backends[0].server_name", "https")));
    tls("protocol = \"h2\", server_name = \"a b\"", ca, Err(("backends[0].server_name", "no host name")));
    let any = format!("name = \"*.a.org\"\n{ca}");
    tls("protocol = \"https\"", &any, Err(("backends[0].server_name", "*.a.org is not one name")));
    tls("protocol = \"https\", server_name = \"b.a.org\"", &any, Ok("b.a.org"));
    tls("protocol = \"https\"", "http = {backend_ca = \"a\\nb\"}", Err(("http.backend_ca", "no path")));
    let l7 = |http: &str, expect| route(&format!("mode = \"l7\"\nhttp = {{{http}}}"), expect);
    l7("client_auth = \"required\", client_ca = \"a.pem\"", Ok("client_auth: Required"));
    l7("client_auth = \"optional\"", Err(("http.client_ca", "is missing")));
    l7("client_ca = \"a.pem\"", Err(("http.client_ca", "client_auth")));
    backend("protocol = \"https\"", Err(("backends[0].protocol", "l7")));
    backend("weight = 0", Err(("backends[0].weight", "1 to 1000")));
    backend("weight = 1001", Err(("backends[0].weight", "1 to 1000")));
    backend("tlvs = {alpn = true}", Err(("backends[0].tlvs", "v2")));
    backend("proxy_protocol = \"v1\", tlvs = {alpn = true}", Err(("backends[0].tlvs", "v2")));
    let custom = |tlvs: &str| format!("proxy_protocol = \"v2\", tlvs = {{custom = [{tlvs}]}}");
    backend(&custom("{type = 224, value = \"x\"}"), Ok("224"));
    backend(&custom("{type = 223, value = \"x\"}"), Err(("backends[0].tlvs.custom[0].type", "224 to 239")));
    let twice = custom("{type = 224, value = \"x\"}, {type = 224, value = \"y\"}");
    backend(&twice, Err(("backends[0].tlvs.custom[1].type", "twice")));
    let long = custom(&format!("{{type = 224, value = {:?}}}", "x".repeat(256)));
    backend(&long, Err(("backends[0].tlvs.custom[0].value", "at most 255")));
}

#[test]
fn health_checks() {
    let check = |lines: &str, expect| route(&format!("[check]\n{lines}"), expect);
    check("", Ok("interval_ms: 5000"));
    check("interval_ms = 99", Err(("check.interval_ms", "100 to 3600000")));
    check("timeout_ms = 0", Err(("check.timeout_ms", "1 to 60000")));
    check("timeout_ms = 5001", Err(("check.timeout_ms", "interval_ms")));
    check("rise = 0", Err(("check.rise", "1 to 100")));
    check("fall = 101", Err(("check.fall", "1 to 100")));
    check("host = \"A.org.\"", Ok("host: \"a.org\""));
    check("host = \"*.a.org\"", Err(("check.host", "star")));
    check("path = \"/healthz?x=1\"", Ok("/healthz?x=1"));
    check("path = \"healthz\"", Err(("check.path", "write /")));
    check("path = \"/a b\"", Err(("check.path", "without spaces")));
    check("path = \"/a\\r\\nX: y\"", Err(("check.path", r"/a\r\nX: y")));
    check("path = \"/ü\"", Err(("check.path", "%-encoded")));
    check("kind = \"grpc\"\nservice = \"a.B\"", Ok("service: \"a.B\""));
    check("kind = \"grpc\"\nservice = \"a b\"", Err(("check.service", "full name")));
    check("kind = \"http\"\nservice = \"a.B\"", Err(("check.service", "grpc")));
}

#[test]
fn a_check_that_no_backend_of_this_protocol_can_pass_is_refused() {
    let check = |protocol: &str, kind: &str, expect| {
        let tls = matches!(protocol, "https" | "h2");
        let trust = if tls { "http = {backend_ca = \"ca.pem\"}\n" } else { "" };
        let first = if tls { ", protocol = \"h2\"" } else { ", protocol = \"h2c\"" };
        let lines = format!(
            "mode = \"l7\"\nbackends = [{{address = \"10.0.0.2:1\"{first}}}, {{address = \"10.0.0.1:443\", protocol = \
             \"{protocol}\"}}]\n{trust}check = {{kind = \"{kind}\"}}"
        );
        route(&lines, expect);
    };
    for protocol in ["http1", "h2c", "https", "h2"] {
        check(protocol, "tcp", Ok("kind: Tcp"));
        check(protocol, "http", Ok("kind: Http"));
    }
    for kind in ["tls", "https"] {
        check("http1", kind, Err(("check.kind", "backends[0] speaks no TLS: write http")));
        check("h2c", kind, Err(("check.kind", "speaks no TLS")));
        check("https", kind, Ok("kind: "));
        check("h2", kind, Ok("kind: "));
    }
    check("http1", "grpc", Err(("check.kind", "backends[1] speaks HTTP/1.1")));
    check("https", "grpc", Err(("check.kind", "backends[1] speaks HTTP/1.1")));
    check("h2c", "grpc", Ok("kind: Grpc"));
    check("h2", "grpc", Ok("kind: Grpc"));
    // What a backend of mode l4 speaks is not stated.
    for kind in ["tls", "https", "grpc"] {
        route(&format!("check = {{kind = \"{kind}\"}}"), Ok("kind: "));
    }
}

#[test]
fn rules() {
    rule("cidr = \"192.0.2.0/24\"", Ok("192.0.2.0/24"));
    rule("cidr = \"192.0.2.1/24\"", Err(("cidr", "write 192.0.2.0/24 for the network or 192.0.2.1/32")));
    rule("cidr = \"2001:db8::1/32\"", Err(("cidr", "2001:db8::1/128")));
    rule("cidr = \"::ffff:192.0.2.0/120\"", Err(("cidr", "write 192.0.2.0/24")));
    rule("country = \"de\"", Ok("\"DE\""));
    rule("country = \"DEU\"", Err(("country", "two letters")));
    rule("country = \"ß\"", Err(("country", "two letters")));
    rule("asn = 64496", Ok("64496"));
    rule("asn = 0", Err(("asn", "64496")));
    rule(&format!("asn = 1\ncomment = {:?}", "ü".repeat(200)), Ok("ü"));
    rule(&format!("asn = 1\ncomment = {:?}", "x".repeat(201)), Err(("comment", "at most 200")));
    rule("asn = 1\ncomment = \"a\\nb\"", Err(("comment", "one line")));
}

#[test]
fn firewalls() {
    #[track_caller]
    fn check(toml: &str, expect: Result<&str, (&str, &str)>) {
        check_toml::<Firewall>(normalize_firewall, toml, expect);
    }
    check("", Ok("rules: []"));
    let rules = |rules: &str| format!("rules = [{rules}]");
    check(
        &rules("{action = \"deny\", country = \"DE\"}, {action = \"deny\", country = \"de\"}"),
        Err(("rules[1]", "deny country DE is also rules[0]")),
    );
    check(
        &rules(
            "{action = \"allow\", cidr = \"::/0\"}, {action = \"deny\", asn = 1}, {action = \"deny\", cidr = \"::/0\"}",
        ),
        Err(("rules[2]", "deny ::/0 contradicts rules[0], allow ::/0")),
    );
    check(
        &rules("{action = \"deny\", asn = 1}, {action = \"deny\", asn = 0}"),
        Err(("rules[1].asn", "number")),
    );
    check("rate = {address_burst = 5}", Err(("rate.address_burst", "without per_address")));
    check("rate = {per_address = 1, prefix_burst = 5}", Err(("rate.prefix_burst", "without per_prefix")));
    check("rate = {per_address = 1, address_burst = 5}", Ok("address_burst: 5"));
    let rule = FirewallRule { action: Action::Deny, subject: Subject::Asn(1), comment: String::new() };
    let too_many = Firewall { rules: vec![rule; 1_000_001], ..Firewall::default() };
    assert_eq!(normalize_firewall(too_many).unwrap_err().field, "rules");
}

/// Listeners and routes with these names.
fn config(listeners: &[(&str, &str)], routes: &[(&str, &str, &str)]) -> Result<(), (String, String)> {
    let listener = |(name, address): &(&str, &str)| -> Listener {
        toml::from_str(&format!("name = {name:?}\naddress = {address:?}")).unwrap()
    };
    let route = |(listener, name, alpn): &(&str, &str, &str)| -> Route {
        let backend = "backends = [{address = \"10.0.0.1:443\"}]";
        toml::from_str(&format!("listener = {listener:?}\nname = {name:?}\nalpn = {alpn:?}\n{backend}"))
            .unwrap()
    };
    let listeners: Vec<_> = listeners.iter().map(listener).collect();
    let routes: Vec<_> = routes.iter().map(route).collect();
    check_config(&listeners, &routes).map_err(|error| (error.field, error.problem))
}

#[test]
fn whole_configurations() {
    #[track_caller]
    fn check(got: Result<(), (String, String)>, field: &str, part: &str) {
        let (at, problem) = got.unwrap_err();
        assert_eq!(at, field);
        assert!(problem.contains(part), "{problem}");
    }
    let two = [("web", "0.0.0.0:443"), ("api", "10.0.0.1:443")];
    assert_eq!(config(&two, &[("web", "a", ""), ("web", "a", "h2"), ("api", "a", "")]), Ok(()));
    assert_eq!(config(&[("web", "[::]:0"), ("api", "[::]:0")], &[]), Ok(()));
    check(config(&[two[0], ("web", "[::]:1")], &[]), "listeners[1].name", "listeners[0]");
    check(config(&[two[0], ("api", "0.0.0.0:443")], &[]), "listeners[1].address", "listeners[0]");
    check(config(&two, &[("web", "a", ""), ("wbe", "b", "")]), "routes[1].listener", "one of web, api");
    check(config(&[], &[("web", "a", "")]), "routes[0].listener", "add it first");
    check(
        config(&two, &[("web", "a", "h2"), ("web", "a", "h2")]),
        "routes[1].name",
        "web/a#h2 is also routes[0]",
    );
}

#[test]
fn a_single_route_against_listeners() {
    let route: Route = toml::from_str("listener = \"wob\"\nname = \"a\"\nbackends = []").unwrap();
    assert_eq!(check_route_listener(&route, ["wob"]), Ok(()));
    let error = check_route_listener(&route, ["api", "web"]).unwrap_err();
    assert_eq!(error.to_string(), "listener: \"wob\" is no listener: write one of web, api, or add it");
}

#[test]
fn unknown_keys_of_a_rule_are_refused() {
    let rule = |toml: &str| toml::from_str::<FirewallRule>(toml).is_ok();
    assert!(rule("action = \"deny\"\nasn = 1\ncomment = \"why\""));
    assert!(!rule("action = \"deny\"\nasn = 1\nport = 1"));
    assert!(!rule("action = \"deny\"\nasn = 1\ncountry = \"DE\""));
    assert!(!rule("action = \"deny\""));
}

#[test]
fn many_routes_are_checked_in_linear_time() {
    let count = 200_000;
    let template: Route =
        toml::from_str("listener = \"web\"\nname = \"a\"\nbackends = [{address = \"10.0.0.1:1\"}]").unwrap();
    let listeners: Vec<Listener> = vec![toml::from_str("name = \"web\"\naddress = \"[::]:1\"").unwrap()];
    let named = |i| Route { name: format!("H{i}.example.org"), ..template.clone() };
    let mut routes: Vec<_> = (0..count).map(|i| normalize_route(named(i)).unwrap()).collect();
    assert_eq!(check_config(&listeners, &routes), Ok(()));
    routes.push(routes[7].clone());
    assert!(check_config(&listeners, &routes).unwrap_err().problem.contains("routes[7]"));
}

proptest! {
    #[test]
    fn normalizing_again_changes_nothing(
        name in "(\\*\\.)?([A-Za-z0-9_-]{1,9}\\.){0,3}[a-zA-Z]{1,5}\\.?",
        host in "([A-Z]{1,5}\\.org\\.?)?",
        country in "[a-zA-Z]{2}",
        bits in any::<(u32, u8)>(),
    ) {
        let toml = format!(
            "listener = \"web\"\nname = {name:?}\nbackends = [{{address = \"10.0.0.1:1\"}}]\n[check]\nhost = {host:?}"
        );
        let once = normalize_route(toml::from_str(&toml).unwrap()).unwrap();
        prop_assert_eq!(normalize_route(once.clone()), Ok(once));
        let subjects = [
            Subject::Country(country),
            Subject::Cidr(ipnet::Ipv4Net::new(bits.0.into(), bits.1 % 33).unwrap().trunc().into()),
        ];
        let rule = |subject| FirewallRule { action: Action::Deny, subject, comment: String::new() };
        let firewall = Firewall { rules: subjects.map(rule).into(), ..Firewall::default() };
        let once = normalize_firewall(firewall).unwrap();
        prop_assert_eq!(normalize_firewall(once.clone()), Ok(once));
    }
}

#[test]
fn a_rate_alone() {
    let rate = Rate { per_prefix: 0, prefix_burst: 3, ..Rate::default() };
    assert_eq!(normalize_rate(rate).unwrap_err().field, "prefix_burst");
}
