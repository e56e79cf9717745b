//! PROXY protocol in and out, alone and with haproxy and nginx on the other side.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use mc_testkit::backend::{Backend, Expect};
use mc_testkit::ca::{Ca, Certificate};
use mc_testkit::client::{End, Raw, Request};
use mc_testkit::clock::PATIENCE;
use mc_testkit::header::{self, v1, v2, v2_local, v2_with_crc};
use mc_testkit::peer::Peer;
use mc_testkit::proxy::{Config, Proxy};
use mc_testkit::{fresh_address, fresh_ip, requires};
use serde_json::Value;

use crate::common::{hello, wait_counted};

const CLIENT: &str = "192.0.2.77:54321";
const CLIENT6: &str = "[2001:db8::77]:54321";
const REACHED: &str = "198.51.100.1:443";
const REACHED6: &str = "[2001:db8::1]:443";

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A proxy whose listener has these lines, in front of a backend called `origin`.
fn listening(lines: &str) -> (Proxy, Backend) {
    let backend = Backend::named("origin");
    let proxy = Proxy::start(Config::new().listener_with("web", lines).route("*", backend.address()));
    (proxy, backend)
}

/// A connection that starts with this header is taken as one from this client.
fn check_taken(proxy: &Proxy, header: &[u8], client: &str) {
    let bytes = [header, &hello()].concat();
    for size in [bytes.len(), header.len().max(1), 1] {
        let mut connection = Raw::connect(proxy.web());
        connection.send_in_pieces(&bytes, size, Duration::from_micros(300));
        let (answer, end) = connection.finish_and_read();
        // The header is for the proxy: the backend gets the hello alone.
        assert!(
            answer == [b"origin\n", &hello()[..]].concat(),
            "{client}: {}",
            String::from_utf8_lossy(&answer)
        );
        assert_eq!(end, End::Fin);
        let peer = connection.local().to_string();
        let client = if client.is_empty() { &peer } else { client };
        let line = proxy.wait_log("this connection", |line| line["peer"] == peer);
        assert_eq!(line["client"], *client, "{line}");
    }
}

/// A connection that starts with these bytes is refused.
fn check_refused(proxy: &Proxy, bytes: &[u8], outcome: &str) {
    let mut connection = Raw::connect(proxy.web());
    connection.send(bytes);
    let (answer, end) = connection.read_to_end(PATIENCE);
    assert!(!answer.starts_with(b"origin") && end != End::Silence, "{answer:?} {end:?}");
    let peer = connection.local().to_string();
    let line = proxy.wait_log("this connection", |line| line["peer"] == peer);
    assert_eq!(line["outcome"], outcome, "{line}");
    wait_counted(proxy, outcome, 1.0);
}

#[test]
fn both_versions_and_families_are_read() {
    let (proxy, _backend) = listening("proxy_protocol = \"required\"");
    check_taken(&proxy, &v1(address(CLIENT), address(REACHED)), CLIENT);
    check_taken(&proxy, &v1(address(CLIENT6), address(REACHED6)), CLIENT6);
    check_taken(&proxy, b"PROXY UNKNOWN\r\n", "");
    check_taken(&proxy, &v2(address(CLIENT), address(REACHED), &[]), CLIENT);
    check_taken(&proxy, &v2(address(CLIENT6), address(REACHED6), &[(header::ALPN, b"h2")]), CLIENT6);
    check_taken(&proxy, &v2_with_crc(address(CLIENT), address(REACHED), &[(0xE1, b"custom")]), CLIENT);
    check_taken(&proxy, &v2_local(), "");
}

#[test]
fn a_required_header_must_come() {
    let (proxy, _backend) = listening("proxy_protocol = \"required\"");
    check_refused(&proxy, &hello(), "proxy_missing");
    check_refused(&proxy, b"GET / HTTP/1.1\r\n\r\n", "proxy_missing");
}

#[test]
fn a_broken_header_is_refused() {
    let (proxy, _backend) = listening("proxy_protocol = \"required\"");
    check_refused(&proxy, b"PROXY TCP4 192.0.2.777 198.51.100.1 1 2\r\n", "proxy_invalid");
    let mut wrong_sum = v2_with_crc(address(CLIENT), address(REACHED), &[]);
    wrong_sum[16] ^= 1;
    check_refused(&proxy, &wrong_sum, "proxy_invalid");
    let mut long_tlv = v2(address(CLIENT), address(REACHED), &[(header::ALPN, b"h2")]);
    let at = long_tlv.len() - 3;
    long_tlv[at] = 200;
    check_refused(&proxy, &long_tlv, "proxy_invalid");
}

#[test]
fn only_trusted_networks_speak_for_others() {
    let (proxy, _backend) = listening("proxy_protocol = \"required\"\ntrusted = [\"192.0.2.0/24\"]");
    check_refused(
        &proxy,
        &[&v1(address(CLIENT), address(REACHED)), &hello()[..]].concat(),
        "proxy_untrusted",
    );
}

#[test]
fn an_optional_header_is_believed_from_trusted_networks_only() {
    let (proxy, _backend) = listening("proxy_protocol = \"optional\"\ntrusted = [\"127.0.0.1/32\"]");
    check_taken(&proxy, &v2(address(CLIENT), address(REACHED), &[]), CLIENT);
    check_taken(&proxy, b"", "");
    let mut stranger = Raw::connect_from(fresh_ip(), proxy.web());
    stranger.send(&v2(address(CLIENT), address(REACHED), &[])).send(&hello());
    let (answer, _) = stranger.read_to_end(PATIENCE);
    assert!(!answer.starts_with(b"origin"));
    assert_eq!(proxy.wait_outcome("not_tls")["client"], stranger.local().to_string());
    // Without a header the stranger is served like anyone.
    let mut stranger = Raw::connect_from(fresh_ip(), proxy.web());
    assert_eq!(stranger.send(&hello()).read_line(), "origin");
}

#[test]
fn where_headers_are_off_one_is_garbage() {
    let (proxy, _backend) = listening("");
    check_refused(&proxy, &v1(address(CLIENT), address(REACHED)), "not_tls");
}

/// What a TLS backend that expects a header sees of a client of a proxy whose backend and listener have these lines.
fn seen(ca: &Ca, listener: &str, backend: &str, incoming: &[u8]) -> (Value, Proxy) {
    let certificate = ca.issue(&["www.example.org"]);
    let origin = Backend::tls("origin", &certificate, Expect::Header);
    let lines = format!("backends = [{{ address = \"{}\", {backend} }}]", origin.address());
    let proxy = Proxy::start(Config::new().listener_with("web", listener).route_lines("web", "*", &lines));
    let request = Request::new(ca, proxy.web(), "www.example.org").alpn(&["h2", "http/1.1"]);
    (request.from(fresh_ip()).header(incoming.to_vec()).get().unwrap(), proxy)
}

#[test]
fn backends_are_told_the_client_in_the_version_they_want() {
    let ca = Ca::new();
    for version in ["v1", "v2"] {
        let (who, proxy) = seen(&ca, "", &format!("proxy_protocol = \"{version}\""), b"");
        let line = proxy.wait_outcome("completed");
        assert_eq!((&who["client"], &who["destination"]), (&line["client"], &proxy.web().to_string().into()));
        assert_eq!(who["tlvs"], serde_json::json!({}), "{version}");
    }
}

#[test]
fn tlvs_are_made_as_chosen() {
    let ca = Ca::new();
    let tlvs = "tlvs = { alpn = true, authority = true, unique_id = true, crc32c = true, custom = [{ type = 225, value = \"edge\" }] }";
    let (who, proxy) = seen(&ca, "", &format!("proxy_protocol = \"v2\", {tlvs}"), b"");
    let line = proxy.wait_outcome("completed");
    let made = &who["tlvs"];
    assert_eq!(
        (&made["1"], &made["2"], &made["225"]),
        (&"h2".into(), &"www.example.org".into(), &"edge".into())
    );
    assert_eq!(made["5"], line["id"], "the connection's id as in the log");
    assert_eq!(who["crc_ok"], true, "{who}");
}

#[test]
fn tlvs_that_came_are_passed_on() {
    let ca = Ca::new();
    let came = v2_with_crc(
        address(CLIENT),
        address(REACHED),
        &[
            (0xEA, b"aws"),
            (header::UNIQUE_ID, b"from-the-edge"),
            (0x30, b"blue"),
            (header::AUTHORITY, b"outer.example"),
        ],
    );
    let to =
        "proxy_protocol = \"v2\", tlvs = { pass = true, unique_id = true, authority = true, crc32c = true }";
    let (who, _proxy) = seen(&ca, "proxy_protocol = \"required\"", to, &came);
    assert_eq!((&who["client"], &who["destination"]), (&CLIENT.into(), &REACHED.into()));
    let passed = &who["tlvs"];
    assert_eq!(
        (&passed["234"], &passed["5"], &passed["48"]),
        (&"aws".into(), &"from-the-edge".into(), &"blue".into()),
        "{who}"
    );
    // The name is the one of this ClientHello, whatever the header said.
    assert_eq!(passed["2"], "www.example.org");
    assert_eq!(who["crc_ok"], true, "{who}");
}

#[test]
fn haproxy_and_nginx_in_front_tell_us_the_client() {
    requires!("haproxy", "nginx");
    let ca = Ca::new();
    let certificate = ca.issue(&["www.example.org"]);
    let origin = Backend::tls("origin", &certificate, Expect::Header);
    let lines = format!("backends = [{{ address = \"{}\", proxy_protocol = \"v2\" }}]", origin.address());
    let proxy = Proxy::start(
        Config::new().listener_with("web", "proxy_protocol = \"required\"").route_lines("web", "*", &lines),
    );
    for peer in ["haproxy_to_ours.cfg", "nginx_to_ours.conf"] {
        let front = fresh_address();
        let values = [("LISTEN", front.to_string()), ("TO", proxy.web().to_string())];
        let mut running = start(peer, &values);
        running.wait_ready(|| Raw::try_connect(None, front).is_ok());
        let from = fresh_ip();
        let who = Request::new(&ca, front, "www.example.org").from(from).get();
        let who = who.unwrap_or_else(|error| panic!("{peer}: {error}: {}", running.log()));
        assert!(who["client"].as_str().unwrap().starts_with(&format!("{from}:")), "{peer}: {who}");
        proxy.wait_log("the same client", |line| line["client"] == who["client"]);
    }
}

#[test]
fn haproxy_and_nginx_behind_are_told_the_client() {
    requires!("haproxy", "nginx");
    let ca = Ca::new();
    let certificate = ca.issue(&["www.example.org"]);
    let folder = tempfile::tempdir().unwrap();
    for (peer, version) in [
        ("haproxy_behind_ours.cfg", "v1"),
        ("haproxy_behind_ours.cfg", "v2"),
        ("nginx_behind_ours.conf", "v1"),
        ("nginx_behind_ours.conf", "v2"),
    ] {
        let behind = fresh_address();
        let mut running = start(peer, &certificate_values(&certificate, folder.path(), behind));
        running.wait_ready(|| Raw::try_connect(None, behind).is_ok());
        let tlvs = if version == "v2" { ", tlvs = { authority = true, crc32c = true }" } else { "" };
        let lines =
            format!("backends = [{{ address = \"{behind}\", proxy_protocol = \"{version}\"{tlvs} }}]");
        let proxy = Proxy::start(Config::new().listener("web").route_lines("web", "*", &lines));
        let from = fresh_ip();
        let who = Request::new(&ca, proxy.web(), "www.example.org").from(from).get();
        let who = who.unwrap_or_else(|error| panic!("{peer} {version}: {error}: {}", running.log()));
        assert!(who["client"].as_str().unwrap().starts_with(&format!("{from}:")), "{peer} {version}: {who}");
        if version == "v2" && who["backend"] == "haproxy" {
            assert_eq!(who["authority"], "www.example.org");
        }
    }
}

fn start(peer: &str, values: &[(&str, String)]) -> Peer {
    if peer.starts_with("haproxy") {
        Peer::haproxy(peer, values, None)
    } else {
        Peer::nginx(peer, values, None)
    }
}

fn certificate_values(
    certificate: &Certificate,
    folder: &Path,
    listen: SocketAddr,
) -> [(&'static str, String); 4] {
    let (cert, key) = certificate.write(folder);
    let both = folder.join("both.pem");
    std::fs::write(&both, format!("{}{}", certificate.pem, certificate.key_pem)).unwrap();
    [
        ("LISTEN", listen.to_string()),
        ("PEM", both.display().to_string()),
        ("CERT", cert.display().to_string()),
        ("KEY", key.display().to_string()),
    ]
}
