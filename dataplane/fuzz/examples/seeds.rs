//! Rewrites the seeds: `cargo run --example mc-fuzz-seeds`.

use std::fs;
use std::path::Path;

use mc_core::client_hello::build::HelloBuilder;
use mc_core::model::CustomTlv;
use mc_core::proxy_protocol::{Outgoing, write_v1, write_v2};

fn main() -> std::io::Result<()> {
    for (name, input) in client_hellos() {
        put("client_hello", name, &input)?;
    }
    for (name, input) in proxy_headers() {
        put("proxy_protocol", name, &input)?;
    }
    for (name, input) in configurations() {
        put("admin_validation", name, &input)?;
    }
    Ok(())
}

fn put(target: &str, name: &str, input: &[u8]) -> std::io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target);
    fs::create_dir_all(&folder)?;
    fs::write(folder.join(name), input)
}

/// Cuts lie before and behind the name, never in it: that is left to find.
fn client_hellos() -> Vec<(&'static str, Vec<u8>)> {
    let named = HelloBuilder::new().server_name("a.example.org");
    let message = |sizes: &[u8], hello: &HelloBuilder| {
        let count = u8::try_from(sizes.len()).expect("few sizes");
        [&[count][..], sizes, &hello.message()].concat()
    };
    let raw = |bytes: &[u8]| [&[0x80], bytes].concat();
    let browser = named.clone().grease().alpn(&[b"h2", b"http/1.1"]).ech(100);
    vec![
        ("name", message(&[], &named)),
        ("no_name", message(&[], &HelloBuilder::new())),
        ("tls12", message(&[], &named.clone().tls12().alpn(&[b"h2"]))),
        ("browser", message(&[], &browser)),
        ("two_records", message(&[200], &browser)),
        ("three_records", message(&[150, 40], &named.clone().padding(100))),
        ("upper_case_and_dot", message(&[], &HelloBuilder::new().server_name("A-B.Example.org."))),
        ("address", message(&[], &HelloBuilder::new().server_name("192.0.2.1"))),
        ("post_quantum_on_the_wire", raw(&named.post_quantum().build())),
        ("browser_on_the_wire", raw(&browser.build_records(&[180]))),
        ("http", raw(b"GET / HTTP/1.1\r\nHost: a.example.org\r\n\r\n")),
        ("alert", raw(&[21, 3, 3, 0, 2, 2, 40])),
    ]
}

/// No TLV is empty: that is left to find.
fn proxy_headers() -> Vec<(&'static str, Vec<u8>)> {
    let v4 = |port| std::net::SocketAddr::from(([192, 0, 2, 1], port));
    let v6 = |port| std::net::SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], port));
    let line = |source, destination| {
        let mut out = vec![0x80];
        write_v1(&mut out, source, destination);
        out
    };
    let custom = [CustomTlv { kind: 0xe0, value: "custom".into() }];
    let mut binary = vec![0x80];
    let outgoing = Outgoing {
        source: v6(1),
        destination: v6(443),
        alpn: Some(b"h2"),
        authority: Some("a.example.org"),
        unique_id: Some(b"id-1"),
        custom: &custom,
        pass: None,
        crc32c: true,
    };
    write_v2(&mut binary, &outgoing);
    let ssl = [&[0x20, 0, 24, 7, 0, 0, 0, 0, 0x21, 0, 7][..], b"TLSv1.3", &[0x22, 0, 6], b"client"].concat();
    let tlvs = [&[1, 0, 2][..], b"h2", &[4, 0, 1, 0, 5, 0, 1, 7, 0x30, 0, 2], b"ns"].concat();
    vec![
        ("tcp4", line(v4(1), v4(443))),
        ("tcp6", line(v6(1), v6(443))),
        ("mixed", line(v4(1), v6(443))),
        ("unknown", b"\x80PROXY UNKNOWN\r\n".to_vec()),
        ("binary_on_the_wire", binary),
        ("ipv4", [&[0][..], &[7; 12], &tlvs].concat()),
        ("ipv4_checksum", [&[4][..], &[7; 12], &tlvs].concat()),
        ("ipv6_ssl", [&[1][..], &[9; 36], &ssl].concat()),
        ("unix", [&[2][..], &[b'x'; 216], &tlvs].concat()),
        ("local", vec![3]),
        ("tls", b"\x80\x16\x03\x01\x00\x05".to_vec()),
    ]
}

/// Names are in lower case: the other is left to find.
fn configurations() -> Vec<(&'static str, Vec<u8>)> {
    let input = |kind: u8, json: bool, text: &str| [&[kind << 1 | u8::from(!json)], text.as_bytes()].concat();
    let listener = "name = \"web\"\naddress = \"[::]:443\"\nproxy_protocol = \"optional\"\n\
        trusted = [\"10.0.0.0/8\", \"2001:db8::/32\"]\nhello_timeout_ms = 5000\nmax_hello_bytes = 16384\n";
    let route = "listener = \"web\"\nname = \"*.example.org\"\nalpn = \"h2\"\nany_depth = true\nmode = \"l4\"\n\
        balance = \"source-hash\"\nconnect_timeout_ms = 100\nretries = 1\nidle_timeout_ms = 1000\n\
        total_timeout_ms = 2000\nmax_connections = 10\nmax_connections_per_source = 2\neject_after = 3\n\
        eject_ms = 1000\nslow_start_ms = 500\n\
        backends = [{ address = \"10.0.0.1:443\", weight = 2, proxy_protocol = \"v2\", \
        tlvs = { alpn = true, authority = true, unique_id = true, crc32c = true, pass = true, \
        custom = [{ type = 224, value = \"x\" }] } }]\n\
        [check]\nkind = \"https\"\ninterval_ms = 1000\ntimeout_ms = 500\nrise = 1\nfall = 2\nhost = \"a.org\"\npath = \"/healthz\"\n";
    let firewall = r#"{"rules":[{"action":"deny","cidr":"192.0.2.0/24","comment":"why"},{"action":"allow","country":"DE"},
        {"action":"deny","asn":64496}],"default":"deny","rate":{"per_address":5,"address_burst":10,"per_prefix":50}}"#;
    let whole = format!(
        "[[listeners]]\n{listener}[[listeners]]\nname = \"api\"\naddress = \"127.0.0.1:0\"\n\
        [[routes]]\nlistener = \"api\"\nname = \"*\"\nbackends = [{{ address = \"[::1]:1\" }}]\n[[routes]]\n{}",
        route.split("[check]").next().unwrap_or_default()
    );
    vec![
        ("listener", input(0, false, listener)),
        ("route", input(1, false, route)),
        (
            "route_json",
            input(1, true, r#"{"listener":"web","name":"a.org","backends":[{"address":"10.0.0.1:443"}]}"#),
        ),
        ("firewall", input(2, true, firewall)),
        ("rule", input(3, false, "action = \"deny\"\ncidr = \"2001:db8::/32\"\ncomment = \"why\"\n")),
        ("rule_json", input(3, true, r#"{"action":"allow","country":"DE"}"#)),
        ("rate", input(4, false, "per_address = 5\naddress_burst = 10\nper_prefix = 50\nprefix_burst = 0\n")),
        ("whole", input(5, false, &whole)),
        ("exact_name", input(6, true, "a-b.example.org.")),
        ("wildcard", input(6, true, "*.example.org")),
    ]
}
