//! Backends that are killed and started again under load: no request that may be repeated fails.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use mc_testkit::ca::Ca;
use mc_testkit::proxy::{Config, Proxy};
use mc_testkit::{clock, fresh_address, heavy, requires};

const NAME: &str = "www.example.org";

/// What is spoken to a backend that can be killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Http1,
    H2c,
}

/// A backend in a process of its own.
struct Killable {
    kind: Kind,
    address: SocketAddr,
    pages: PathBuf,
    child: Child,
}

impl Killable {
    fn start(kind: Kind, pages: &Path) -> Self {
        let address = fresh_address();
        let child = Self::spawn(kind, address, pages);
        Self { kind, address, pages: pages.to_owned(), child }
    }

    fn spawn(kind: Kind, address: SocketAddr, pages: &Path) -> Child {
        let (ip, port) = (address.ip().to_string(), address.port().to_string());
        let mut command = match kind {
            Kind::Http1 => {
                let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/restart_origin.py");
                let mut command = Command::new("python3");
                command.arg(script).args([&ip, &port]);
                command
            }
            Kind::H2c => {
                let mut command = Command::new("nghttpd");
                command.args(["--no-tls", "--address", &ip, "--htdocs"]).arg(pages).arg(&port);
                command
            }
        };
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        clock::wait_until("the backend to listen", || TcpStream::connect(address).is_ok());
        child
    }

    /// Kills it, and starts it again after a while.
    fn restart(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        clock::sleep_ms(300);
        self.child = Self::spawn(self.kind, self.address, &self.pages);
    }
}

impl Drop for Killable {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Asks through the proxy without a pause while the first backend is restarted again and again.
fn nothing_fails(kind: Kind, backends: usize) {
    requires!("h2load", "nghttpd", "python3");
    let _alone = heavy();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("index.html"), "ok").unwrap();
    let mut all: Vec<Killable> = (0..backends).map(|_| Killable::start(kind, folder.path())).collect();
    let protocol = if kind == Kind::H2c { "h2c" } else { "http1" };
    let list: Vec<String> = all
        .iter()
        .map(|backend| format!("{{ address = \"{}\", protocol = \"{protocol}\" }}", backend.address))
        .collect();
    let ca = Ca::new();
    let lines = format!("mode = \"l7\"\nbackends = [{}]", list.join(", "));
    let config =
        Config::new().listener("web").certificate("www", &ca.issue(&[NAME])).route_lines("web", NAME, &lines);
    let proxy = Proxy::start(config);
    let web = proxy.web();
    let loads: Vec<Child> = ["--h1", "--npn-list=h2"]
        .into_iter()
        .map(|version| {
            Command::new("h2load")
                .args([version, "-D", "6", "-c", "8", "-t", "1", &format!("--connect-to={web}")])
                .arg(format!("https://{NAME}:{}/", web.port()))
                .stdout(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    for _ in 0..6 {
        clock::sleep_ms(300);
        all[0].restart();
    }
    for load in loads {
        let output = load.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains(" 0 failed, 0 errored, 0 timeout"), "{kind:?}: {text}\n{:?}", failures(&proxy));
        assert!(text.contains(" 0 4xx, 0 5xx"), "{kind:?}: {text}\n{:?}", failures(&proxy));
    }
    let answered = proxy.metric("mcproxy_requests_total", &["outcome=\"completed\""]);
    assert!(answered > 0.0, "no request was answered");
}

fn failures(proxy: &Proxy) -> Vec<String> {
    let failed = |line: &serde_json::Value| line["status"].as_u64().is_some_and(|status| status >= 500);
    proxy.log().into_iter().filter(failed).take(3).map(|line| line.to_string()).collect()
}

#[test]
fn one_of_two_backends_is_killed_and_no_request_fails() {
    nothing_fails(Kind::Http1, 2);
    nothing_fails(Kind::H2c, 2);
}

#[test]
fn the_only_backend_is_killed_and_requests_wait_for_it() {
    nothing_fails(Kind::Http1, 1);
    nothing_fails(Kind::H2c, 1);
}
