//! Routes whose clients show certificates: who is let in, what backends are told, and that no way leads around it.

use std::io;
use std::sync::Arc;

use base64::Engine as _;
use mc_testkit::ca::{Ca, Certificate};
use mc_testkit::client::Request;
use mc_testkit::clock;
use mc_testkit::http::{Client, Origin, Response, Then};
use mc_testkit::proxy::{Config, Proxy};
use rustls::{ClientConfig, HandshakeKind};

const NAME: &str = "www.example.org";
const OPEN: &str = "open.example.org";

/// A proxy with one open route, and one whose clients are asked as these lines say (`clients.pem` is there).
struct Site {
    ca: Ca,
    clients: Ca,
    proxy: Proxy,
    origin: Origin,
}

/// Says what it was told of the client's certificate.
fn origin() -> Origin {
    Origin::start(|exchange| {
        exchange.body()?;
        let told = [exchange.values("client-cert"), exchange.values("client-cert-chain")].concat().join("|");
        exchange.say(&format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{told}", told.len()))?;
        Ok(Then::Keep)
    })
}

fn site() -> Site {
    let (ca, clients, origin) = (Ca::new(), Ca::new(), origin());
    let config =
        Config::new().server("workers = 1").listener("web").certificate("www", &ca.issue(&[NAME, OPEN]));
    let config = config.route_with(NAME, &[origin.address()], "mode = \"l7\"");
    let config = config.route_with(OPEN, &[origin.address()], "mode = \"l7\"");
    let proxy = Proxy::start(config);
    let site = Site { ca, clients, proxy, origin };
    site.trust(&site.clients);
    site
}

impl Site {
    /// Whom clients must be certified by from now on.
    fn trust(&self, clients: &Ca) {
        let file = clients.write(self.proxy.root());
        std::fs::rename(file, self.proxy.root().join("clients.pem")).unwrap();
    }

    fn set(&self, arguments: &[&str]) {
        let base = ["route", "update", "--listener", "web", "--name", NAME];
        let _changed = self.proxy.ctl(&[&base[..], arguments].concat());
    }

    fn ask_for(&self, auth: &str) {
        self.set(&["--client-auth", auth, "--client-ca", "clients.pem"]);
    }

    /// What a client is made with that shows this certificate.
    fn config(&self, name: &str, alpn: &str, shows: Option<&Certificate>) -> Arc<ClientConfig> {
        let config = Request::new(&self.ca, self.proxy.web(), name).alpn(&[alpn]).config().unwrap();
        let mut config = Arc::into_inner(config).unwrap();
        if let Some(certificate) = shows {
            config.client_auth_cert_resolver = certificate.client_resolver();
        }
        Arc::new(config)
    }

    /// Asks on a connection of its own; says also what kind of handshake it was.
    fn ask(&self, config: &Arc<ClientConfig>) -> io::Result<(Response, Option<HandshakeKind>)> {
        let tls = Request::new(&self.ca, self.proxy.web(), NAME).open_with(config)?;
        let mut client = Client::on(tls);
        // Who is refused may hear of it only now.
        io::Write::write_all(&mut client.tls, get(NAME, "").as_bytes())?;
        let response = client.try_response(false)?;
        let kind = client.tls.conn.handshake_kind();
        Ok((response, kind))
    }

    fn told(&self, shows: Option<&Certificate>) -> io::Result<String> {
        let (response, _) = self.ask(&self.config(NAME, "http/1.1", shows))?;
        assert_eq!(response.status(), 200);
        Ok(response.text())
    }
}

fn get(host: &str, fields: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n")
}

fn field_of(certificate: &Certificate) -> String {
    format!(":{}:", base64::engine::general_purpose::STANDARD.encode(certificate.der()))
}

/// Of the certificate, by another implementation than the one that is tested.
fn sha256_of(certificate: &Certificate) -> String {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("der"), certificate.der()).unwrap();
    let said = std::process::Command::new("sha256sum").arg(folder.path().join("der")).output().unwrap();
    String::from_utf8_lossy(&said.stdout[..64]).into_owned()
}

#[test]
fn clients_are_let_in_by_their_certificates() {
    let site = site();
    let good = site.clients.issue(&["client.test"]);
    let bad = [Ca::new().issue(&["client.test"]), site.clients.issue_expired(&["client.test"])];
    site.ask_for("required");
    assert_eq!(site.told(Some(&good)).unwrap(), field_of(&good));
    let line = site.proxy.wait_log("the request", |line| !line["request"].is_null());
    assert_eq!(line["client_cert"], sha256_of(&good));
    assert!(site.told(None).is_err());
    assert!(bad.iter().all(|bad| site.told(Some(bad)).is_err()));
    site.proxy.wait_outcome("tls_failed");
    site.ask_for("optional");
    assert_eq!(site.told(Some(&good)).unwrap(), field_of(&good));
    assert_eq!(site.told(None).unwrap(), "");
    assert!(bad.iter().all(|bad| site.told(Some(bad)).is_err()));
    site.set(&["--client-auth", "off"]);
    assert_eq!(site.told(Some(&good)).unwrap(), "");
}

#[test]
fn nobody_says_for_itself_what_its_certificate_is() {
    let site = site();
    let good = site.clients.issue(&["client.test"]);
    let lies = "Client-Cert: :AAAA:\r\nclient-cert-chain: :BBBB:\r\n";
    for (auth, shows, expect) in [
        ("off", None, String::new()),
        ("optional", None, String::new()),
        ("required", Some(&good), field_of(&good)),
    ] {
        if auth != "off" {
            site.ask_for(auth);
        }
        let tls = Request::new(&site.ca, site.proxy.web(), NAME);
        let tls = tls.open_with(&site.config(NAME, "http/1.1", shows)).unwrap();
        assert_eq!(Client::on(tls).ask(get(NAME, lies)).text(), expect, "{auth}");
    }
}

#[test]
fn a_session_without_a_certificate_is_not_resumed_where_one_is_asked_for() {
    let site = site();
    let good = site.clients.issue(&["client.test"]);
    let nobody = site.config(NAME, "http/1.1", None);
    let someone = site.config(NAME, "http/1.1", Some(&good));
    let kinds = |config| [site.ask(config), site.ask(config)].map(|asked| asked.unwrap().1);
    let resumed = [Some(HandshakeKind::Full), Some(HandshakeKind::Resumed)];
    assert_eq!(kinds(&nobody), resumed);
    site.ask_for("optional");
    assert_eq!(kinds(&nobody), resumed);
    site.ask_for("required");
    assert!(site.ask(&nobody).is_err());
    // With a certificate sessions are resumed, and the certificate is still known.
    assert_eq!(kinds(&someone), resumed);
    assert_eq!(site.ask(&someone).unwrap().0.text(), field_of(&good));
    // Other authorities: sessions of the old ones are over.
    let others = Ca::new();
    site.trust(&others);
    clock::wait_until("the old authority not to be trusted", || site.ask(&someone).is_err());
    let other = site.config(NAME, "http/1.1", Some(&others.issue(&["client.test"])));
    assert_eq!(kinds(&other), resumed);
}

#[test]
fn an_open_connection_is_no_way_around() {
    let site = site();
    let open = |config: &Arc<ClientConfig>, name: &str| {
        Client::on(Request::new(&site.ca, site.proxy.web(), name).open_with(config).unwrap())
    };
    // A connection from before clients were asked.
    let nobody = site.config(NAME, "http/1.1", None);
    let mut early = open(&nobody, NAME);
    assert_eq!(early.ask(get(NAME, "")).status(), 200);
    site.ask_for("required");
    assert_eq!(early.ask(get(NAME, "")).status(), 421);
    // A connection for another name: of HTTP/1.1 here, of HTTP/2 below.
    let before = site.origin.text();
    assert_eq!(open(&nobody, OPEN).ask(get(NAME, "")).status(), 421);
    let ca = site.ca.write(site.proxy.root());
    let web = site.proxy.web();
    let output = std::process::Command::new("curl")
        .args(["-sS", "--http2", "-o", "/dev/null", "-w", "%{http_version} %{http_code}", "--cacert"])
        .arg(ca)
        .args(["--resolve", &format!("{OPEN}:{}:{}", web.port(), web.ip())])
        .args(["-H", &format!("Host: {NAME}"), &format!("https://{OPEN}:{}/", web.port())])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "2 421");
    assert_eq!(site.origin.text(), before);
}
