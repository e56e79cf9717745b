//! A table of configurations, each with one mistake, and what is said of it.

use mcdsl::log::Level;

use super::*;

/// What is said of a configuration that is wrong, from its line on.
#[track_caller]
fn check(text: &str, expect: &str) {
    match Config::parse(text, "c.toml") {
        Ok(config) => panic!("accepted: {text}\n{config:?}"),
        Err(problem) => assert_eq!(problem.to_string(), format!("c.toml:{expect}"), "for {text}"),
    }
}

/// The same of a listener with this line in it, the third.
#[track_caller]
fn check_listener(line: &str, expect: &str) {
    check(&format!("[[listeners]]\nname = \"web\"\n{line}"), &format!("3:{expect}"));
}

/// The same of a route with this line in it, the third.
#[track_caller]
fn check_route(line: &str, expect: &str) {
    check(&format!("[[routes]]\nlistener = \"web\"\n{line}"), &format!("3:{expect}"));
}

/// The same of a firewall rule with this line in it, the third.
#[track_caller]
fn check_rule(line: &str, expect: &str) {
    check(&format!("[[firewall.rules]]\naction = \"deny\"\n{line}"), &format!("3:{expect}"));
}

const LISTENER: &str = "[[listeners]]\nname = \"web\"\naddress = \"127.0.0.1:443\"\n";

#[test]
fn text_that_is_no_toml() {
    check("x = [", "1:6: unclosed array, expected `]`, after `x = [`");
    check("[server]\nroot = \"a\nb\"\n", "3:3: key with no value, expected `=`, after `b\"`");
    check("x = 1\nx = 2", "2:1: duplicate key");
    check("[log]\n[log]\n", "2:2: duplicate key, after `[`");
}

#[test]
fn unknown_keys() {
    check("[sever]\n", "1:2: sever: unknown field `sever`, did you mean `server`?");
    check("[server]\nworkrs = 3", "2:1: server.workrs: unknown field `workrs`, did you mean `workers`?");
    check(
        "[server]\nport = 3",
        "2:1: server.port: unknown field `port`: expected one of root, database, workers, drain_timeout_ms, handover_timeout_ms, max_connections, max_connections_per_source, max_memory_bytes",
    );
    check("[admin.tpc]\n", "1:8: admin.tpc: unknown field `tpc`, did you mean `tcp`?");
    check_listener(
        "adress = \"127.0.0.1:443\"",
        "1: listeners[0].adress: unknown field `adress`, did you mean `address`?",
    );
    check_route(
        "backends = [{ address = \"1.2.3.4:5\", wieght = 1 }]",
        "38: routes[0].backends[0].wieght: unknown field `wieght`, did you mean `weight`?",
    );
    check_rule(
        "coment = 'x'\ncidr = \"10.0.0.0/8\"",
        "1: firewall.rules[0].coment: unknown field `coment`, did you mean `comment`?",
    );
    check_rule(
        "cidrr = \"10.0.0.0/8\"",
        "1: firewall.rules[0].cidrr: unknown field `cidrr`, did you mean `cidr`?",
    );
}

#[test]
fn values_of_the_wrong_type() {
    check(
        "[server]\nworkers = \"a\"",
        "2:11: server.workers: expected a whole number from 0 to 65535, found string \"a\"",
    );
    check(
        "[server]\nmax_memory_bytes = 1000",
        "2:20: server.max_memory_bytes: 1000 is less than 33554432, and mc-proxy itself needs some",
    );
    check("[server]\nroot = 1", "2:8: server.root: expected a string in quotes, found integer `1`");
    check("server = 1", "1:10: server: expected a table, found integer `1`");
    check(
        "[metrics]\nlisten_addr = 1",
        "2:15: metrics.listen_addr: expected a string in quotes, found integer `1`",
    );
    check(
        "[firewall]\nrate = { per_address = -1 }",
        "2:24: firewall.rate.per_address: expected a whole number from 0 to 4294967295, found integer `-1`",
    );
    check(
        "[listeners]\nname = \"web\"\n",
        "1:1: listeners: this is a list: write [[listeners]] instead of [listeners]",
    );
    check_route(
        "backends = [{ address = \"1.2.3.4:5\", weight = 1.5 }]",
        "47: routes[0].backends[0].weight: expected a whole number from 0 to 4294967295, found floating point `1.5`",
    );
    check_route(
        "any_depth = \"yes\"",
        "13: routes[0].any_depth: expected true or false, found string \"yes\"",
    );
    check_rule("asn = \"10\"", "7: firewall.rules[0].asn: expected a whole number from 0 to 4294967295");
    check_rule("cidr = 10", "8: firewall.rules[0].cidr: expected a string in quotes, found integer");
}

#[test]
fn missing_keys() {
    check(
        "[[listeners]]\nname = \"web\"\n",
        "1:1: listeners[0].address: missing: add `address = ...`, e.g. \"0.0.0.0:443\"",
    );
    check(
        "[[routes]]\nlistener = \"web\"\nname = \"a\"",
        "1:1: routes[0].backends: missing: add `backends = ...`, e.g. [{ address = \"192.0.2.1:443\" }]",
    );
    check(
        "[admin.tcp]\nlisten_addr = \"127.0.0.1:1\"",
        "1:1: admin.tcp.certificate: missing: add `certificate = ...`",
    );
    check(
        "[[firewall.rules]]\naction = \"deny\"",
        "1:1: firewall.rules[0]: a rule needs exactly one of `cidr`, `country` and `asn`, e.g. cidr = \"192.0.2.0/24\"",
    );
    check(
        "[[firewall.rules]]\naction = \"deny\"\nasn = 1\ncountry = \"DE\"",
        "1:1: firewall.rules[0]: a rule needs exactly one of `cidr`, `country` and `asn`, e.g. cidr = \"192.0.2.0/24\"",
    );
}

#[test]
fn words_that_are_not_known() {
    check("[log]\nlevel = \"inof\"", "2:9: log.level: unknown value `inof`, did you mean `info`?");
    check(
        "[log]\nformat = \"xml\"",
        "2:10: log.format: unknown value `xml`: expected one of auto, json, text",
    );
    check(
        "[access_log]\nformat = \"jsn\"",
        "2:10: access_log.format: unknown value `jsn`, did you mean `json`?",
    );
    check(
        &format!("{LISTENER}proxy_protocol = \"requird\""),
        "4:18: listeners[0].proxy_protocol: unknown value `requird`, did you mean `required`?",
    );
}

#[test]
fn addresses_and_networks() {
    let wrong = "is not an address with a port: write \"192.0.2.1:443\" or \"[2001:db8::1]:443\"";
    check_listener("address = \"127.0.0.1\"", &format!("11: listeners[0].address: \"127.0.0.1\" {wrong}"));
    check_listener(
        "address = \"localhost:443\"",
        &format!("11: listeners[0].address: \"localhost:443\" {wrong}"),
    );
    check_listener(
        "address = \"127.0.0.1:65536\"",
        &format!("11: listeners[0].address: \"127.0.0.1:65536\" {wrong}"),
    );
    check_listener("address = 5", &format!("11: listeners[0].address: 5 {wrong}"));
    check("[metrics]\nlisten_addr = \"x\"", &format!("2:15: metrics.listen_addr: \"x\" {wrong}"));
    check(
        &format!("{LISTENER}trusted = [\"10.0.0.0/8\", \"10.0.0.0/40\"]"),
        "4:26: listeners[0].trusted[1]: \"10.0.0.0/40\" is not a network: write \"192.0.2.0/24\" or \"2001:db8::/32\"",
    );
    check_rule(
        "cidr = \"x\"",
        "8: firewall.rules[0].cidr: \"x\" is not a network: write \"192.0.2.0/24\" or \"2001:db8::/32\"",
    );
}

#[test]
fn what_makes_no_sense_is_placed_where_it_is_written() {
    let route = "[[routes]]\nlistener = \"web\"\nname = \"a.example.org\"\nbackends = [{ address = \"1.2.3.4:5\" }]\n";
    let with = |from: &str, to: &str| format!("{LISTENER}{}", route.replace(from, to));
    check(
        &format!("{LISTENER}hello_timeout_ms = 0"),
        "4:20: listeners[0].hello_timeout_ms: 0 is out of range: write 1 to 600000",
    );
    check(
        &format!("{LISTENER}{LISTENER}"),
        "5:8: listeners[1].name: web is also the name of listeners[0]: choose another",
    );
    check(
        &format!("{LISTENER}[[listeners]]\nname = \"api\"\naddress = \"127.0.0.1:443\""),
        "6:11: listeners[1].address: 127.0.0.1:443 is also that of listeners[0]: choose another",
    );
    check(
        &with("\"web\"", "\"wbe\""),
        "5:12: routes[0].listener: \"wbe\" is no listener: write one of web, or add it",
    );
    check(
        &format!("{LISTENER}{route}{}", route.replace("a.ex", "A.ex")),
        "10:8: routes[1].name: web/a.example.org is also routes[0]: remove one",
    );
    check(
        &with("a.example", "a b"),
        "6:8: routes[0].name: \"a b.org\" is no host name, the name contains the byte 0x20: write letters, digits, - and _ between dots",
    );
    check(
        &with(":5\"", ":5\", weight = 0"),
        "7:47: routes[0].backends[0].weight: 0 is out of range: write 1 to 1000",
    );
    check(&with("{ address = \"1.2.3.4:5\" }", ""), "7:12: routes[0].backends: 0 backends: write 1 to 256");
    check(
        "[[firewall.rules]]\naction = \"deny\"\ncountry = \"Germany\"",
        "3:11: firewall.rules[0].country: \"Germany\" is no country: write two letters of ISO 3166-1, e.g. DE",
    );
    check(
        "[firewall]\nrate = { address_burst = 5 }",
        "2:26: firewall.rate.address_burst: 5 has no meaning without per_address: set that, or write 0 here",
    );
    check(
        "[keepalive]\nprobes = 0",
        "2:10: keepalive.probes: 0 makes no sense: write 1 or more, or idle_ms = 0 for no keepalive",
    );
}

#[test]
fn the_empty_file_is_a_configuration() {
    let config = Config::parse("", "c.toml").unwrap();
    assert_eq!(config.database(), Path::new("/srv/mc-proxy/mc-proxy.db"));
    assert_eq!(config.socket(), Path::new("/srv/mc-proxy/mc-proxy.sock"));
    assert_eq!(config.metrics.listen_addr, Some("127.0.0.1:9091".parse().unwrap()));
    assert_eq!((config.server.workers, config.server.drain_timeout_ms), (0, 30_000));
    assert_eq!((config.log.level, config.log.format), (Level::Info, mcdsl::log::Format::Auto));
    assert_eq!((config.access_log.path, config.access_log.format), (Target::Stdout, Format::Json));
    assert_eq!(config.keepalive, Keepalive { idle_ms: 60_000, interval_ms: 10_000, probes: 6 });
    assert!(config.admin.tcp.is_none() && config.geoip.country_database.is_none());
}

#[test]
fn values_have_their_meaning() {
    let text =
        "[metrics]\nlisten_addr = \"\"\n[access_log]\npath = \"\"\n[keepalive]\nidle_ms = 0\nprobes = 0";
    let config = Config::parse(text, "c.toml").unwrap();
    assert_eq!((config.metrics.listen_addr, config.access_log.path), (None, Target::Off));
    let text = "[server]\nroot = \"/x\"\ndatabase = \"a.db\"\n[admin]\nsocket = \"/run/s\"\n[access_log]\npath = \"a.log\"";
    let config = Config::parse(text, "c.toml").unwrap();
    assert_eq!((config.database(), config.socket()), ("/x/a.db".into(), "/run/s".into()));
    assert_eq!(config.access_log.path, Target::File("a.log".into()));
}

#[test]
fn the_example_states_the_defaults() {
    let text = include_str!("../../../../deploy/config/mc-proxy.toml");
    let example = Config::parse(text, "mc-proxy.toml").unwrap();
    assert_eq!(format!("{example:?}"), format!("{:?}", Config::default()), "as it is, it changes nothing");
    // Each line that is commented out with `#` and no blank is one that may be used.
    let mut lines: Vec<&str> = text
        .lines()
        .map(|line| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line))
        .collect();
    lines.retain(|line| !line.starts_with('#'));
    let full = Config::parse(&lines.join("\n"), "mc-proxy.toml").unwrap();
    assert!(full.admin.tcp.is_some() && full.geoip.asn_database.is_some());
    assert_eq!((full.listeners.len(), full.routes.len(), full.firewall.rules.len()), (2, 4, 4));
}

/// What is said of files that a configuration refers to.
fn load(dir: &Path, text: &str) -> Result<Config, String> {
    let path = dir.join("c.toml");
    std::fs::write(&path, text).unwrap();
    Config::check(&path, Some(dir))
        .map_err(|error| error.to_string().replace(&dir.display().to_string(), "DIR"))
}

#[test]
fn files_that_are_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    assert!(load(dir, "").is_ok());
    let tcp = "[admin.tcp]\nlisten_addr = \"127.0.0.1:0\"\ncertificate = \"c.pem\"\nkey = \"k.pem\"\ntoken_file = \"t\"";
    assert_eq!(
        load(dir, tcp).unwrap_err(),
        "DIR/c.toml:3:15: admin.tcp.certificate: cannot read DIR/c.pem: No such file or directory (os error 2): \
         put the certificate chain there (PEM)"
    );
    for name in ["c.pem", "k.pem", "t"] {
        std::fs::write(dir.join(name), "").unwrap();
    }
    assert!(load(dir, tcp).is_ok());
    assert_eq!(
        load(dir, "[geoip]\nasn_database = \"/nowhere/a.mmdb\"").unwrap_err(),
        "DIR/c.toml:2:16: geoip.asn_database: cannot read /nowhere/a.mmdb: No such file or directory (os error 2): \
         fetch it (see docs/mc-proxy.md) or remove the key"
    );
    assert!(Config::load(&dir.join("c.toml"), Some(dir)).is_ok(), "the proxy runs without a database");
    let long = format!("[admin]\nsocket = \"/{}\"", "x".repeat(107));
    assert!(
        load(dir, &long)
            .unwrap_err()
            .ends_with("has 108 bytes and a socket's path at most 107: choose a shorter one")
    );
    let missing = Config::load(&dir.join("d.toml"), None).unwrap_err().to_string();
    assert!(missing.ends_with("d.toml: name one that exists with --config"), "{missing}");
    let error = Config::load(&dir.join("c.toml"), Some(&dir.join("none"))).unwrap_err().to_string();
    assert!(error.contains("none is not a directory: create it"), "{error}");
}
