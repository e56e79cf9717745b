//! Which backend a name leads to, however the ClientHello arrives, and what becomes of anything else.

use std::net::SocketAddr;
use std::time::Duration;

use mc_testkit::backend::{Backend, Expect};
use mc_testkit::ca::Ca;
use mc_testkit::client::{End, Raw, Request};
use mc_testkit::clock;
use mc_testkit::hello::{Hello, record};
use mc_testkit::proxy::{Config, Proxy};

use crate::common::{alert, ask, greet, hello, wait_counted};

/// A proxy whose routes lead to backends called after them.
struct Site {
    proxy: Proxy,
    _backends: Vec<Backend>,
}

fn site(config: Config, routes: &[(&str, &str)]) -> Site {
    let mut config = config;
    let mut backends = Vec::new();
    for (name, lines) in routes {
        let label = if lines.is_empty() { (*name).to_owned() } else { format!("{name} {lines}") };
        let backend = Backend::named(&label);
        config = config.route_with(name, &[backend.address()], lines);
        backends.push(backend);
    }
    Site { proxy: Proxy::start(config), _backends: backends }
}

impl Site {
    /// A client that sends these bytes reaches this backend, which gets these bytes and no others.
    fn check(&self, bytes: &[u8], backend: &str) {
        let mut client = Raw::connect(self.proxy.web());
        client.send(bytes);
        Self::check_answer(&mut client, bytes, backend);
    }

    /// The same where they arrive in pieces.
    fn check_in_pieces(&self, bytes: &[u8], size: usize, pause: Duration, backend: &str) {
        let mut client = Raw::connect(self.proxy.web());
        client.send_in_pieces(bytes, size, pause);
        Self::check_answer(&mut client, bytes, backend);
    }

    fn check_answer(client: &mut Raw, bytes: &[u8], backend: &str) {
        let (answer, end) = client.finish_and_read();
        let expect = [format!("{backend}\n").as_bytes(), bytes].concat();
        assert!(answer == expect, "{} bytes came back: {:?}", answer.len(), String::from_utf8_lossy(&answer));
        assert_eq!(end, End::Fin);
    }

    fn check_name(&self, name: &str, backend: &str) {
        self.check(&Hello::to(name).bytes(), backend);
    }

    /// A client that sends these bytes is told this, and the log says so.
    fn check_refused(&self, bytes: &[u8], reply: &[u8], outcome: &str, name: &str) {
        let (answer, end) = ask(&self.proxy, bytes);
        let text = String::from_utf8_lossy(&answer);
        assert!(answer == reply, "{outcome}: {text:?} {answer:?}");
        assert_eq!(end, End::Fin, "{outcome}");
        let line = self.proxy.wait_outcome(outcome);
        assert_eq!(line["name"].as_str().unwrap_or_default(), name, "{line}");
        wait_counted(&self.proxy, outcome, 1.0);
    }
}

fn plain(routes: &[(&str, &str)]) -> Site {
    site(Config::new().listener("web"), routes)
}

#[test]
fn the_most_specific_route_wins() {
    let any = "any_depth = true";
    let site =
        plain(&[("www.example.org", ""), ("*.example.org", ""), ("*.deep.example.org", any), ("*", "")]);
    site.check_name("www.example.org", "www.example.org");
    site.check_name("mail.example.org", "*.example.org");
    site.check_name("a.mail.example.org", "*");
    site.check_name("a.deep.example.org", "*.deep.example.org any_depth = true");
    site.check_name("a.b.c.deep.example.org", "*.deep.example.org any_depth = true");
    site.check_name("deep.example.org", "*.example.org");
    site.check_name("example.org", "*");
    site.check_name("elsewhere.example.com", "*");
}

#[test]
fn every_worker_accepts_and_metrics_tell_worker_route_and_outcome() {
    let site = plain(&[("www.example.org", "")]);
    // The kernel spreads connections by their addresses: 64 that all went to one of two workers would be a
    // chance of one in 2^63.
    for _ in 0..64 {
        site.check_name("www.example.org", "www.example.org");
    }
    let metrics = site.proxy.metrics();
    let value = |series: &str| -> u64 {
        let line = metrics.lines().find_map(|line| line.strip_prefix(series));
        line.unwrap_or_else(|| panic!("no {series} in {metrics}")).trim().parse().unwrap()
    };
    let worker = |number: u32| value(&format!("mcproxy_connections_accepted_total{{worker=\"{number}\"}}"));
    assert!(worker(0) > 0 && worker(1) > 0, "{} and {}", worker(0), worker(1));
    assert!(worker(0) + worker(1) >= 64);
    let listener = value("mcproxy_listener_accepted_total{listener=\"web\"}");
    assert_eq!(listener, worker(0) + worker(1));
    let routed =
        "mcproxy_route_connections_total{listener=\"web\",name=\"www.example.org\",alpn=\"\",outcome=";
    assert!(metrics.lines().any(|line| line.starts_with(routed)), "{metrics}");
    assert!(value("mcproxy_connect_seconds_count ") >= 64);
}

#[test]
fn case_and_a_trailing_dot_make_no_difference() {
    let site = plain(&[("www.example.org", "")]);
    for name in ["WWW.Example.ORG", "www.example.org.", "WWW.EXAMPLE.ORG."] {
        site.check_name(name, "www.example.org");
    }
}

#[test]
fn clients_without_a_name_or_with_an_address_for_one_get_the_default() {
    let site = plain(&[("www.example.org", ""), ("*", "")]);
    site.check(&Hello::nameless().bytes(), "*");
    site.check_name("192.0.2.1", "*");
    site.check_name("[2001:db8::1]", "*");
}

#[test]
fn a_route_may_be_for_one_protocol_only() {
    let site = plain(&[("www.example.org", ""), ("www.example.org", "alpn = \"acme-tls/1\"")]);
    let validation = Hello::to("www.example.org").alpn(&["acme-tls/1"]);
    site.check(&validation.bytes(), "www.example.org alpn = \"acme-tls/1\"");
    site.check(&Hello::to("www.example.org").alpn(&["h2", "http/1.1"]).bytes(), "www.example.org");
    site.check_name("www.example.org", "www.example.org");
}

#[test]
fn routes_belong_to_their_listener() {
    let (one, two) = (Backend::named("one"), Backend::named("two"));
    let proxy = Proxy::start(
        Config::new().listener("web").listener("other").route("www.example.org", one.address()).route_lines(
            "other",
            "www.example.org",
            &format!("backends = [{{ address = \"{}\" }}]", two.address()),
        ),
    );
    for (listener, backend) in [("web", "one"), ("other", "two")] {
        let mut client = Raw::connect(proxy.address(listener));
        assert_eq!(client.send(&hello()).read_line(), backend);
    }
}

#[test]
fn the_proxy_listens_on_ipv6_too() {
    let backend = Backend::named("six");
    // A port of its own: IPv6 has one loopback address.
    let port = 20_000 + u16::try_from(std::process::id() % 10_000).unwrap();
    let address: SocketAddr = format!("[::1]:{port}").parse().unwrap();
    let proxy = Proxy::start(Config::new().listener_at("web", address, "").route("*", backend.address()));
    let (mut client, name) = greet(Raw::connect(proxy.web()));
    assert_eq!(name, "six");
    client.finish_and_read();
    let line = proxy.wait_outcome("completed");
    assert!(line["client"].as_str().unwrap().starts_with("[::1]:"), "{line}");
}

#[test]
fn a_hello_may_arrive_byte_by_byte() {
    let site = plain(&[("www.example.org", "")]);
    site.check_in_pieces(&hello(), 1, Duration::from_micros(200), "www.example.org");
}

#[test]
fn a_hello_may_be_split_over_records() {
    let site = plain(&[("www.example.org", ""), ("*", "")]);
    let hello = Hello::to("www.example.org");
    let whole = hello.message().len();
    for size in [1, 4, 5, whole / 2, whole - 1] {
        site.check(&hello.records(size), "www.example.org");
    }
    site.check_in_pieces(&hello.records(100), 7, Duration::from_micros(200), "www.example.org");
}

#[test]
fn large_hellos_are_read() {
    let site = plain(&[("www.example.org", "")]);
    let post_quantum = Hello::to("www.example.org").post_quantum();
    site.check(&post_quantum.bytes(), "www.example.org");
    site.check_in_pieces(&post_quantum.bytes(), 600, Duration::from_millis(5), "www.example.org");
    let huge = Hello::to("www.example.org").post_quantum().padded_to(60 * 1024);
    site.check(&huge.bytes(), "www.example.org");
    site.check_in_pieces(&huge.bytes(), 5_000, Duration::from_millis(1), "www.example.org");
}

#[test]
fn what_follows_the_hello_at_once_is_not_lost() {
    let site = plain(&[("www.example.org", "")]);
    let early: Vec<u8> = [hello(), record(20, &[1]), record(23, &[0x55; 9000])].concat();
    site.check(&early, "www.example.org");
}

#[test]
fn real_tls_passes_through() {
    let ca = Ca::new();
    let backend = Backend::tls("origin", &ca.issue(&["www.example.org"]), Expect::Plain);
    let proxy = crate::common::to(backend.address());
    let who = Request::new(&ca, proxy.web(), "www.example.org").alpn(&["http/1.1"]).get().unwrap();
    assert_eq!(
        (&who["backend"], &who["sni"], &who["alpn"]),
        (&"origin".into(), &"www.example.org".into(), &"http/1.1".into())
    );
}

#[test]
fn an_unknown_name_is_told_so() {
    let site = plain(&[("www.example.org", "")]);
    site.check_refused(
        &Hello::to("Nobody.example.org").bytes(),
        &alert(112),
        "no_route",
        "nobody.example.org",
    );
    site.check_refused(
        &Hello::to("nobody.example.net").padded_to(9000).bytes(),
        &alert(112),
        "no_route",
        "nobody.example.org",
    );
}

#[test]
fn a_route_that_terminates_tls_needs_a_certificate() {
    let site = plain(&[("www.example.org", "mode = \"l7\"")]);
    site.check_refused(&hello(), &alert(112), "no_certificate", "www.example.org");
}

#[test]
fn garbage_gets_an_alert() {
    let site = plain(&[("*", "")]);
    site.check_refused(b"\x00\x01\x02\x03 what is this? \xff\xff\xff", &alert(70), "not_tls", "");
    site.check_refused(b"SSH-2.0-OpenSSH_9.2p1\r\n", &alert(70), "not_tls", "");
}

#[test]
fn a_broken_hello_gets_an_alert_and_is_logged_with_the_name_it_asked_for() {
    let site = plain(&[("*", "")]);
    // Its extensions end in the middle of one that nobody sent: the list says two bytes more.
    let mut message = Hello::to("www.example.org").message();
    message.extend([0xAA, 0xAA]);
    let length = u32::try_from(message.len() - 4).unwrap().to_be_bytes();
    message[1..4].copy_from_slice(&length[1..]);
    let (answer, end) = ask(&site.proxy, &record(22, &message));
    assert_eq!((answer.first(), answer.len(), end), (Some(&21), 7, End::Fin));
    assert_eq!(site.proxy.wait_outcome("hello_malformed")["name"], "www.example.org");
    wait_counted(&site.proxy, "hello_malformed", 1.0);
}

#[test]
fn application_data_instead_of_a_hello_gets_an_alert() {
    let site = plain(&[("*", "")]);
    let (answer, end) = ask(&site.proxy, &record(23, &[1; 64]));
    assert_eq!((answer, end), (alert(10), End::Fin));
    site.proxy.wait_outcome("hello_malformed");
}

#[test]
fn plain_http_gets_a_400() {
    let site = plain(&[("*", "")]);
    let (answer, end) = ask(&site.proxy, b"GET / HTTP/1.1\r\nHost: www.example.org\r\n\r\n");
    let text = String::from_utf8_lossy(&answer);
    assert!(text.starts_with("HTTP/1.1 400 "), "{text}");
    assert_eq!(end, End::Fin);
    site.proxy.wait_outcome("plain_http");
    wait_counted(&site.proxy, "plain_http", 1.0);
}

#[test]
fn a_hello_larger_than_allowed_is_refused() {
    let site = site(Config::new().listener_with("web", "max_hello_bytes = 4096"), &[("*", "")]);
    site.check(&Hello::to("www.example.org").padded_to(3900).bytes(), "*");
    site.check_refused(
        &Hello::to("www.example.org").padded_to(4200).bytes(),
        &alert(50),
        "hello_too_large",
        "www.example.org",
    );
}

#[test]
fn a_hello_must_arrive_in_time_however_busy_the_client_looks() {
    let site = site(Config::new().listener_with("web", "hello_timeout_ms = 500"), &[("*", "")]);
    let mut silent = Raw::connect(site.proxy.web());
    let mut dripping = Raw::connect(site.proxy.web());
    dripping.send_in_pieces(&hello(), 1, Duration::from_millis(20));
    let (_, end) = dripping.read_to_end(clock::PATIENCE);
    assert_ne!(end, End::Silence);
    let (_, end) = silent.read_to_end(clock::PATIENCE);
    assert_ne!(end, End::Silence);
    let line = site.proxy.wait_outcome("hello_timeout");
    let ms = line["duration_us"].as_f64().unwrap() / 1e3;
    assert!(ms >= 450.0, "{line}");
    wait_counted(&site.proxy, "hello_timeout", 2.0);
}

#[test]
fn a_client_that_gives_up_is_counted_as_such() {
    let site = plain(&[("*", "")]);
    let mut client = Raw::connect(site.proxy.web());
    client.send(&hello()[..50]);
    let (answer, _) = client.finish_and_read();
    assert!(answer.is_empty() || answer[0] == 21, "{answer:?}");
    site.proxy.wait_outcome("hello_incomplete");
    wait_counted(&site.proxy, "hello_incomplete", 1.0);
}
