//! Backends that speak TLS: who they are is proven before they are told anything.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use mc_testkit::backend::{Backend, Expect};
use mc_testkit::ca::Ca;
use mc_testkit::client::Request;
use mc_testkit::http::{Client, Response};
use mc_testkit::peer::Peer;
use mc_testkit::proxy::{Config, Proxy};
use mc_testkit::{clock, fresh_address};
use tempfile::TempDir;

const NAME: &str = "www.example.org";
const OTHER: &str = "other.example.org";

/// A proxy that terminates TLS, with authorities that its routes may trust.
struct Site {
    ca: Ca,
    proxy: Proxy,
    files: TempDir,
}

/// A site whose routes, each a name and its backends as TOML, trust the bundle `ca.pem` of `files`.
fn site(files: TempDir, routes: &[(&str, &str, &str)]) -> Site {
    let ca = Ca::new();
    let mut config = Config::new().server("workers = 1").listener("web");
    config = config.certificate("www", &ca.issue(&[NAME, OTHER, "third.example.org"]));
    for (name, backends, lines) in routes {
        let bundle = files.path().join("ca.pem").display().to_string();
        let http = if lines.contains("http =") {
            String::new()
        } else {
            format!("http = {{ backend_ca = \"{bundle}\" }}")
        };
        let lines = format!("mode = \"l7\"\nbackends = [{backends}]\n{lines}\n{http}");
        config = config.route_lines("web", name, &lines);
    }
    Site { proxy: Proxy::start(config), ca, files }
}

fn backend(address: SocketAddr, protocol: &str, rest: &str) -> String {
    format!("{{ address = \"{address}\", protocol = \"{protocol}\"{rest} }}")
}

impl Site {
    fn ask(&self, name: &str) -> Response {
        let request = Request::new(&self.ca, self.proxy.web(), name).alpn(&["http/1.1"]);
        let mut client = Client::on(request.open().unwrap());
        client.send(format!("GET / HTTP/1.1\r\nHost: {name}\r\n\r\n"));
        let response = client.try_response(false);
        response.unwrap_or_else(|error| panic!("{error}; mc-proxy said: {}", self.proxy.errors()))
    }

    /// Why the last request that could not be passed on was not.
    fn wait_detail(&self, contains: &str) {
        self.proxy.wait_log(contains, |line| {
            line["outcome"] == "connect_failed" && line["detail"].as_str().unwrap_or("").contains(contains)
        });
    }
}

fn folder_trusting(ca: &Ca) -> TempDir {
    let files = tempfile::tempdir().unwrap();
    let _ca_file = ca.write(files.path());
    files
}

/// nginx at these addresses, of HTTP/1.1 and of HTTP/2, with a certificate of this authority.
fn origin(ca: &Ca, names: &[&str], folder: &Path) -> ([SocketAddr; 2], Peer) {
    let addresses = [fresh_address(), fresh_address()];
    let (certificate, key) = ca.issue(names).write(folder);
    let text = |path: PathBuf| path.display().to_string();
    let values = [
        ("HTTPS", addresses[0].to_string()),
        ("H2", addresses[1].to_string()),
        ("CERTIFICATE", text(certificate)),
        ("KEY", text(key)),
    ];
    let mut origin = Peer::nginx("nginx_tls_origin.conf", &values, None);
    origin.wait_ready(|| addresses.iter().all(|address| std::net::TcpStream::connect(address).is_ok()));
    (addresses, origin)
}

#[test]
fn both_versions_of_http_are_spoken_over_tls() {
    let inner = Ca::new();
    let files = folder_trusting(&inner);
    let ([https, h2], _origin) = origin(&inner, &[NAME, "inner.test"], files.path());
    let routes = [
        (NAME, backend(https, "https", ""), "HTTP/1.1 https www.example.org"),
        (OTHER, backend(h2, "h2", ", server_name = \"inner.test\""), "HTTP/2.0 https inner.test"),
    ];
    let lines: Vec<_> = routes.iter().map(|(name, backends, _)| (*name, backends.as_str(), "")).collect();
    let site = site(files, &lines);
    for (name, _, expect) in &routes {
        for number in 1..=2 {
            let response = site.ask(name);
            // The connection is kept, and used again.
            let expect = format!("{expect} . {number}\n");
            assert_eq!((response.status(), response.text()), (200, expect), "{name}");
        }
    }
}

#[test]
fn a_name_may_be_an_address() {
    let inner = Ca::new();
    let address = fresh_address();
    let ip = address.ip().to_string();
    let files = folder_trusting(&inner);
    let certificate = inner.issue(&[&ip]);
    let host = Backend::tls("by address", &certificate, Expect::Plain);
    let named = format!(", server_name = \"{ip}\"");
    let site = site(files, &[(NAME, &backend(host.address(), "https", &named), "")]);
    assert_eq!(site.ask(NAME).status(), 200);
}

#[test]
fn who_is_not_who_it_should_be_gets_no_request() {
    let inner = Ca::new();
    let good = Backend::tls("good", &inner.issue(&[NAME]), Expect::Plain);
    let tls = |certificate| Backend::tls("bad", &certificate, Expect::Plain);
    let plain = Backend::named("says something that is no TLS");
    let cases = [
        (tls(inner.issue(&[OTHER])), "https", "its certificate is not for www.example.org"),
        (tls(Ca::new().issue(&[NAME])), "https", "its certificate is of no authority in"),
        (tls(inner.issue_expired(&[NAME])), "https", "its certificate has expired"),
        (tls(inner.issue(&[NAME])), "h2", "did not choose h2 by ALPN"),
    ];
    for (bad, protocol, detail) in &cases {
        let bad_line = backend(bad.address(), protocol, "");
        let alone = site(folder_trusting(&inner), &[(NAME, &bad_line, "eject_after = 0")]);
        assert_eq!(alone.ask(NAME).status(), 502, "{detail}");
        alone.wait_detail(detail);
        // It counts as a failure to connect: another one answers, and it is not tried again.
        let before = bad.accepted();
        let both = format!("{bad_line}, {}", backend(good.address(), "https", ""));
        let both =
            site(folder_trusting(&inner), &[(NAME, &both, "eject_after = 1\nbalance = \"source-hash\"")]);
        for _ in 0..3 {
            let response = both.ask(NAME);
            assert_eq!(response.status(), 200, "{detail}");
            assert!(response.text().contains("\"backend\":\"good\""), "{}", response.text());
        }
        assert!(bad.accepted() <= before + 1, "{detail}: an ejected backend was tried");
    }
    let site = site(folder_trusting(&inner), &[(NAME, &backend(plain.address(), "https", ""), "")]);
    assert_eq!(site.ask(NAME).status(), 502);
    site.wait_detail("TLS handshake failed");
}

#[test]
fn a_handshake_that_takes_too_long_is_given_up() {
    let silent = Backend::start(|stream| {
        clock::sleep_ms(20_000);
        drop(stream);
    });
    let inner = Ca::new();
    let line = backend(silent.address(), "https", "");
    let site = site(folder_trusting(&inner), &[(NAME, &line, "connect_timeout_ms = 200\nretries = 0")]);
    assert_eq!(site.ask(NAME).status(), 502);
    site.wait_detail("connecting took too long");
}

#[test]
fn a_bundle_that_changes_is_read_again() {
    let (first, second) = (Ca::new(), Ca::new());
    let certificate = second.issue(&[NAME]);
    let files = folder_trusting(&first);
    let host = Backend::tls("backend", &certificate, Expect::Plain);
    let site = site(files, &[(NAME, &backend(host.address(), "https", ""), "eject_after = 0")]);
    assert_eq!(site.ask(NAME).status(), 502);
    let wait = |what: &str, status| {
        clock::wait_for(what, clock::PATIENCE, || (site.ask(NAME).status() == status).then_some(()));
    };
    let _ca_file = second.write(site.files.path());
    wait("the new authority to be trusted", 200);
    // A connection that was verified by it is there, and is not used any more either.
    let _ca_file = first.write(site.files.path());
    wait("the old authority not to be trusted", 502);
    // A bundle that is of no use leaves in use what was there.
    std::fs::write(site.files.path().join("ca.pem"), "nothing").unwrap();
    clock::wait_until("the log to tell", || site.proxy.errors().contains("has no certificate"));
    assert_eq!(site.ask(NAME).status(), 502);
    let _ca_file = second.write(site.files.path());
    wait("the authority to be trusted again", 200);
}

#[test]
fn connections_serve_only_routes_that_would_have_verified_them_so() {
    let inner = Ca::new();
    let files = folder_trusting(&inner);
    let stranger = tempfile::tempdir().unwrap();
    let stranger_file = Ca::new().write(stranger.path()).display().to_string();
    let (addresses, _origin) = origin(&inner, &[NAME], files.path());
    for (address, protocol) in addresses.into_iter().zip(["https", "h2"]) {
        let files = folder_trusting(&inner);
        let right = backend(address, protocol, "");
        let same_name = backend(address, protocol, &format!(", server_name = \"{NAME}\""));
        let other_ca = format!("eject_after = 0\nhttp = {{ backend_ca = \"{stranger_file}\" }}");
        let routes = [
            (NAME, right.as_str(), "eject_after = 0"),
            // The route's own name, for which the certificate is not.
            (OTHER, right.as_str(), "eject_after = 0"),
            ("third.example.org", same_name.as_str(), other_ca.as_str()),
        ];
        let site = site(files, &routes);
        for number in 1..=3 {
            let response = site.ask(NAME);
            let text = response.text();
            assert!(
                response.status() == 200 && text.ends_with(&format!(" {number}\n")),
                "{protocol}: {text}"
            );
            assert_eq!(site.ask(OTHER).status(), 502, "{protocol}");
            assert_eq!(site.ask("third.example.org").status(), 502, "{protocol}");
        }
        site.wait_detail("is not for other.example.org");
        site.wait_detail("is of no authority in");
    }
}

#[test]
fn a_route_needs_a_bundle_that_can_be_used() {
    let site = site(tempfile::tempdir().unwrap(), &[]);
    let refused = |arguments: &[&str], part: &str| {
        let base = ["route", "add", "--listener", "web", "--mode", "l7"];
        let output = site.proxy.ctl_output(&[&base[..], arguments].concat());
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && errors.contains(part), "{arguments:?}: {errors}");
    };
    let https = ["--name", NAME, "--backend", "127.0.0.1:9,protocol=https"];
    refused(&https, "http.backend_ca: is missing");
    let with = |ca: &'static str| [&https[..], &["--backend-ca", ca]].concat();
    refused(&with("ca.pem"), "http.backend_ca:");
    std::fs::write(site.proxy.root().join("ca.pem"), "nothing").unwrap();
    refused(&with("ca.pem"), "has no certificate");
    let wild = ["--name", "*.example.org", "--backend", "127.0.0.1:9,protocol=h2", "--backend-ca", "ca.pem"];
    refused(&wild, "backends[0].server_name: is missing");
    // Relative to the server's root.
    let _ca_file = site.ca.write(site.proxy.root());
    let base = ["route", "add", "--listener", "web", "--mode", "l7"];
    let _added = site.proxy.ctl(&[&base[..], &with("ca.pem")].concat());
}
