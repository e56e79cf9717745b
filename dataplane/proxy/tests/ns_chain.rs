//! Four hosts in a row, each in its network namespace: clients of every kind, an edge that sends PROXY
//! headers, an origin that reads them, and a TLS backend that says whom it sees.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use mc_testkit::backend::{Backend, Expect};
use mc_testkit::ca::Ca;
use mc_testkit::client::{Raw, Request};
use mc_testkit::clock::PATIENCE;
use mc_testkit::hello::Hello;
use mc_testkit::net::Host;
use mc_testkit::proxy::{Config, Proxy};
use mc_testkit::{requires, venv};
use serde_json::Value;
use tempfile::TempDir;

/// client -- edge -- origin -- backend, joined by cables with these networks.
struct Chain {
    client: Host,
    edge: Proxy,
    origin: Proxy,
    origin_host: Host,
    ca: Ca,
    ca_file: PathBuf,
    _backend: Backend,
    _folder: TempDir,
}

const CLIENT: [&str; 2] = ["10.64.96.2/24", "fd64:96::2/64"];
const EDGE: [&str; 2] = ["10.64.96.1", "fd64:96::1"];
const NAME: &str = "www.example.org";

impl Chain {
    /// Builds it; `origin_tables` are further tables of the origin's configuration.
    fn new(origin_tables: &str) -> Self {
        let (client, edge, origin, backend) = (Host::new(), Host::new(), Host::new(), Host::new());
        client.link(&CLIENT, &edge, &["10.64.96.1/24", "fd64:96::1/64"]);
        edge.link(&["10.64.97.1/24", "fd64:97::1/64"], &origin, &["10.64.97.2/24", "fd64:97::2/64"]);
        origin.link(&["10.64.98.1/24"], &backend, &["10.64.98.2/24"]);
        let ca = Ca::new();
        let folder = tempfile::tempdir().unwrap();
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let certificate = ca.issue(&[NAME]);
        let backend =
            Backend::tls_on(&backend, address("10.64.98.2:443"), "backend", &certificate, Expect::Header);
        let to = |address: &str, tlvs: &str| {
            format!("backends = [{{ address = \"{address}\", proxy_protocol = \"v2\"{tlvs} }}]")
        };
        let trust_edge = "proxy_protocol = \"required\"\ntrusted = [\"10.64.97.1/32\", \"fd64:97::1/128\"]";
        let origin_host = origin;
        let origin = Proxy::start(
            Config::new()
                .on(&origin_host)
                .listener_at("web", address("10.64.97.2:443"), trust_edge)
                .listener_at("web6", address("[fd64:97::2]:443"), trust_edge)
                .route_lines(
                    "web",
                    "*",
                    &to("10.64.98.2:443", ", tlvs = { pass = true, unique_id = true, authority = true }"),
                )
                .route_lines("web6", "*", &to("10.64.98.2:443", ", tlvs = { pass = true, unique_id = true }"))
                .toml(origin_tables),
        );
        // IPv4 clients go to the origin over IPv4, IPv6 clients over IPv6.
        let tlvs = ", tlvs = { alpn = true, authority = true, unique_id = true, crc32c = true }";
        let edge = Proxy::start(
            Config::new()
                .on(&edge)
                .listener_at("web", address("0.0.0.0:443"), "")
                .listener_at("web6", address("[::]:443"), "")
                .route_lines("web", "*", &to("10.64.97.2:443", tlvs))
                .route_lines("web6", "*", &to("[fd64:97::2]:443", tlvs)),
        );
        let ca_file = ca.write(folder.path());
        Self { client, edge, origin, origin_host, ca, ca_file, _backend: backend, _folder: folder }
    }

    /// Runs a program on the client's host; the JSON that the backend answered with.
    fn run(&self, program: &str, arguments: &[&str]) -> Value {
        let output = self.client.output(program, arguments);
        let text = String::from_utf8_lossy(&output.stdout);
        let json = text.lines().find(|line| line.starts_with('{'));
        let errors = String::from_utf8_lossy(&output.stderr);
        let json =
            json.unwrap_or_else(|| panic!("{program} {arguments:?}: {}\n{text}{errors}", output.status));
        serde_json::from_str(json).unwrap()
    }

    /// The backend saw the client itself, and all three logs have the same connection.
    fn check(&self, who: &Value, family: usize) {
        let client = CLIENT[family].split('/').next().unwrap();
        let seen: SocketAddr = who["client"].as_str().unwrap().parse().unwrap();
        assert_eq!(seen.ip(), client.parse::<IpAddr>().unwrap(), "{who}");
        let reached: SocketAddr = who["destination"].as_str().unwrap().parse().unwrap();
        assert_eq!(reached.ip(), EDGE[family].parse::<IpAddr>().unwrap(), "{who}");
        assert_eq!((&who["backend"], &who["sni"]), (&"backend".into(), &NAME.into()), "{who}");
        let line = self.edge.wait_log("the edge", |line| line["client"] == who["client"]);
        assert_eq!(line["id"], who["tlvs"]["5"], "the edge's id reaches the backend");
        self.origin.wait_log("the origin", |line| line["client"] == who["client"]);
    }
}

/// A URL host, and `host:port` for connecting, by family.
fn target(family: usize) -> String {
    if family == 0 { format!("{}:443", EDGE[0]) } else { format!("[{}]:443", EDGE[1]) }
}

#[test]
fn curl_reaches_the_backend_as_itself() {
    requires!(root, "nsenter", "ip", "curl");
    let chain = Chain::new("");
    for family in [0, 1] {
        let connect_to = format!("{NAME}:443:{}", target(family));
        let ca = chain.ca_file.display().to_string();
        let who = chain
            .run("curl", &["-sS", "--cacert", &ca, "--connect-to", &connect_to, &format!("https://{NAME}/")]);
        chain.check(&who, family);
        assert_eq!(who["tlvs"]["2"].as_str().unwrap_or(NAME), NAME);
    }
}

#[test]
fn openssl_reaches_the_backend_as_itself() {
    requires!(root, "nsenter", "ip", "openssl");
    let chain = Chain::new("");
    for family in [0, 1] {
        let line = format!(
            "(printf 'GET / HTTP/1.1\\r\\nHost: {NAME}\\r\\nConnection: close\\r\\n\\r\\n'; sleep 2) | openssl s_client -quiet -verify_return_error \
             -CAfile {} -servername {NAME} -connect {}",
            chain.ca_file.display(),
            target(family)
        );
        let who = chain.run("sh", &["-c", &line]);
        chain.check(&who, family);
    }
}

#[test]
fn python_requests_reaches_the_backend_as_itself() {
    requires!(root, "nsenter", "ip", "python3");
    let chain = Chain::new("");
    let python = venv().join("bin/python").display().to_string();
    for family in [0, 1] {
        // The name is resolved to the edge; certificate and name are checked as ever.
        let program = format!(
            "import socket, requests\n\
             resolve = socket.getaddrinfo\n\
             socket.getaddrinfo = lambda host, *rest, **more: resolve('{}' if host == '{NAME}' else host, *rest, **more)\n\
             print(requests.get('https://{NAME}/', verify='{}', timeout=10).text)",
            EDGE[family],
            chain.ca_file.display()
        );
        let who = chain.run(&python, &["-c", &program]);
        chain.check(&who, family);
    }
}

#[test]
fn gnutls_reaches_the_backend_as_itself() {
    requires!(root, "nsenter", "ip", "gnutls-cli");
    let chain = Chain::new("");
    for family in [0, 1] {
        let line = format!(
            "(printf 'GET / HTTP/1.1\\r\\nHost: {NAME}\\r\\nConnection: close\\r\\n\\r\\n'; sleep 2) | gnutls-cli --logfile=/dev/null \
             --x509cafile {} --sni-hostname {NAME} --verify-hostname {NAME} -p 443 {}",
            chain.ca_file.display(),
            EDGE[family]
        );
        let who = chain.run("sh", &["-c", &line]);
        chain.check(&who, family);
    }
}

#[test]
fn many_clients_at_once_are_not_mixed_up() {
    requires!(root, "nsenter", "ip");
    let chain = Chain::new("");
    let edge: SocketAddr = "10.64.96.1:443".parse().unwrap();
    for last in 10..30 {
        chain.client.ip(&format!("address add 10.64.96.{last}/32 dev lo"));
    }
    std::thread::scope(|scope| {
        for last in 10..30 {
            let chain = &chain;
            scope.spawn(move || {
                let from: IpAddr = format!("10.64.96.{last}").parse().unwrap();
                for _ in 0..5 {
                    let request = Request::new(&chain.ca, edge, NAME).from(from);
                    let who = chain.client.enter(|| request.get()).unwrap();
                    let seen: SocketAddr = who["client"].as_str().unwrap().parse().unwrap();
                    assert_eq!(seen.ip(), from);
                }
            });
        }
    });
}

#[test]
fn the_origin_judges_the_client_and_spares_the_edge() {
    requires!(root, "nsenter", "ip");
    let chain = Chain::new(
        "[firewall]\nrules = [{ action = \"deny\", cidr = \"10.64.96.66/32\" }]\n\
         rate = { per_address = 1, address_burst = 4 }",
    );
    let edge: SocketAddr = "10.64.96.1:443".parse().unwrap();
    for last in 10..=66 {
        chain.client.ip(&format!("address add 10.64.96.{last}/32 dev lo"));
    }
    let get = |last: u8| {
        let from = format!("10.64.96.{last}").parse().unwrap();
        let request = Request::new(&chain.ca, edge, NAME).from(from);
        chain.client.enter(|| request.get())
    };
    assert!(get(66).is_err(), "a denied client came through");
    let line = chain.origin.wait_outcome("denied_cidr");
    assert!(line["client"].as_str().unwrap().starts_with("10.64.96.66:"), "{line}");
    assert!(line["peer"].as_str().unwrap().starts_with("10.64.97.1:"), "{line}");
    // Twenty clients through one edge: more than one address may open.
    for last in 10..30 {
        assert!(get(last).is_ok(), "10.64.96.{last} was refused");
    }
    let passed = (0..12).filter(|_| get(40).is_ok()).count();
    assert!((4..=8).contains(&passed), "{passed} of 12 from one client passed");
    chain.origin.wait_outcome("rate_address");
}

#[test]
fn nobody_but_the_edge_speaks_for_clients() {
    requires!(root, "nsenter", "ip");
    let chain = Chain::new("");
    let origin: SocketAddr = "10.64.97.2:443".parse().unwrap();
    let forged = mc_testkit::header::v1("192.0.2.1:1".parse().unwrap(), origin);
    // From the origin's own host: its address is not the edge's.
    let bytes = [forged, Hello::to(NAME).bytes()].concat();
    let answer = chain.origin_host.enter(|| {
        // It may be reset before it has noticed that it is connected.
        let Ok(mut raw) = Raw::try_connect(None, origin) else { return Vec::new() };
        std::io::Write::write_all(&mut raw.stream, &bytes).ok();
        raw.read_to_end(PATIENCE).0
    });
    assert!(answer.is_empty());
    chain.origin.wait_outcome("proxy_untrusted");
}
