//! MC-Proxy, as shipped, with a configuration made for one test.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::chown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::ca::Certificate;
use crate::clock;
use crate::net::Host;
use crate::process::Process;
use crate::tools::{binaries_dir, fresh_address};

/// What a proxy is started with.
#[derive(Clone, Debug, Default)]
pub struct Config {
    listeners: Vec<(String, SocketAddr, String)>,
    routes: String,
    server: String,
    extra: String,
    certificates: Vec<(String, String)>,
    host: Option<Host>,
    program: Option<PathBuf>,
    wrapper: Vec<String>,
    nobody: bool,
}

/// A running proxy: killed on drop.
#[derive(Debug)]
pub struct Proxy {
    root: TempDir,
    config: Config,
    process: Process,
}

/// Why a proxy did not start.
#[derive(Clone, Debug)]
pub struct Failed {
    /// How it ended.
    pub status: ExitStatus,
    /// What it said.
    pub errors: String,
}

impl Config {
    /// A proxy with two workers and nothing to do.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A listener on an address of its own.
    #[must_use]
    pub fn listener(self, name: &str) -> Self {
        self.listener_with(name, "")
    }

    /// A listener on an address of its own, with further lines of its table.
    #[must_use]
    pub fn listener_with(self, name: &str, lines: &str) -> Self {
        self.listener_at(name, fresh_address(), lines)
    }

    /// A listener at this address, with further lines of its table.
    #[must_use]
    pub fn listener_at(mut self, name: &str, address: SocketAddr, lines: &str) -> Self {
        self.listeners.push((name.to_owned(), address, lines.to_owned()));
        self
    }

    /// A route of the listener `web` to one backend.
    #[must_use]
    pub fn route(self, name: &str, to: SocketAddr) -> Self {
        self.route_with(name, &[to], "")
    }

    /// A route of the listener `web` to several backends, with further lines of its table.
    #[must_use]
    pub fn route_with(self, name: &str, to: &[SocketAddr], lines: &str) -> Self {
        let backends: Vec<String> =
            to.iter().map(|address| format!("{{ address = \"{address}\" }}")).collect();
        self.route_lines("web", name, &format!("backends = [{}]\n{lines}", backends.join(", ")))
    }

    /// A route whose table has these lines.
    #[must_use]
    pub fn route_lines(mut self, listener: &str, name: &str, lines: &str) -> Self {
        self.routes += &format!("[[routes]]\nlistener = \"{listener}\"\nname = \"{name}\"\n{lines}\n");
        self
    }

    /// A certificate for routes that terminate TLS, in the file `certs/<name>.pem` of its folder.
    #[must_use]
    pub fn certificate(mut self, name: &str, certificate: &Certificate) -> Self {
        self.certificates.push((name.to_owned(), certificate.bundle()));
        self
    }

    /// Further lines of `[server]`.
    #[must_use]
    pub fn server(mut self, lines: &str) -> Self {
        self.server += lines;
        self.server += "\n";
        self
    }

    /// Further tables, as they are.
    #[must_use]
    pub fn toml(mut self, tables: &str) -> Self {
        self.extra += tables;
        self.extra += "\n";
        self
    }

    /// Runs on this host.
    #[must_use]
    pub fn on(mut self, host: &Host) -> Self {
        self.host = Some(host.clone());
        self
    }

    /// Runs another build.
    #[must_use]
    pub fn program(mut self, program: &Path) -> Self {
        self.program = Some(program.to_owned());
        self
    }

    /// Runs under another program: `["strace", "-f"]`.
    #[must_use]
    pub fn under(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// Runs as `nobody`. Needs root to become so.
    #[must_use]
    pub fn as_nobody(mut self) -> Self {
        self.nobody = true;
        self
    }

    /// The file's text for a proxy that keeps everything in `root`.
    #[must_use]
    pub fn text(&self, root: &Path) -> String {
        let mut text = String::new();
        text += &format!("[server]\nroot = \"{}\"\n", root.display());
        if !self.server.contains("workers") {
            text += "workers = 2\n";
        }
        text += &self.server;
        // Metrics have a port for the whole machine: each host's own here.
        if !self.extra.contains("[metrics]") {
            text += &format!("[metrics]\nlisten_addr = \"{}\"\n", self.metrics_address(root));
        }
        if !self.extra.contains("[access_log]") {
            text += "[access_log]\npath = \"access.log\"\n";
        }
        text += &self.extra;
        for (name, address, lines) in &self.listeners {
            text += &format!("[[listeners]]\nname = \"{name}\"\naddress = \"{address}\"\n{lines}\n");
        }
        text + &self.routes
    }

    fn metrics_address(&self, root: &Path) -> SocketAddr {
        // Kept in the root so that a restart finds the same.
        let file = root.join("metrics.address");
        if let Some(address) = std::fs::read_to_string(&file).ok().and_then(|text| text.parse().ok()) {
            return address;
        }
        let address = fresh_address();
        std::fs::write(file, address.to_string()).expect("the test's folder is writable");
        address
    }
}

impl Proxy {
    /// Starts a proxy and waits until it serves.
    ///
    /// # Panics
    /// With what it said, when it does not.
    #[must_use]
    pub fn start(config: Config) -> Self {
        Self::try_start(config)
            .unwrap_or_else(|failed| panic!("mc-proxy {}:\n{}", failed.status, failed.errors))
    }

    /// Starts a proxy and waits until it serves or gives up.
    ///
    /// # Errors
    /// It ended.
    pub fn try_start(config: Config) -> Result<Self, Failed> {
        let root = tempfile::Builder::new().prefix("mc").tempdir().expect("there is room for a test");
        Self::try_start_in(root, config)
    }

    /// Starts a proxy on what another one left in `root`.
    ///
    /// # Errors
    /// It ended.
    pub fn try_start_in(root: TempDir, config: Config) -> Result<Self, Failed> {
        let text = config.text(root.path());
        std::fs::write(root.path().join("mc-proxy.toml"), text).expect("the test's folder is writable");
        for (name, bundle) in &config.certificates {
            write_certificate(root.path(), name, bundle);
        }
        if config.nobody {
            chown(root.path(), Some(65534), None).expect("root may give a folder away");
        }
        let process = launch(root.path(), &config);
        let mut proxy = Self { root, config, process };
        proxy.wait_ready().map(|()| proxy)
    }

    /// Starts a second process that takes over from this one, which goes on with its connections: its guard is returned.
    ///
    /// # Panics
    /// With what it said, when it does not take over.
    #[must_use]
    pub fn take_over(&mut self) -> Process {
        let said = self.errors().matches("took over from another process").count();
        let new = launch_with(self.root.path(), &self.config, &["--take-over"]);
        let old = std::mem::replace(&mut self.process, new);
        clock::wait_until("the new mc-proxy to have taken over", || {
            if let Some(status) = self.process.ended() {
                panic!("mc-proxy does not take over: {status}:\n{}", self.process.errors());
            }
            self.errors().matches("took over from another process").count() > said
        });
        old
    }

    /// Starts it again after it has ended, on the same files.
    pub fn restart(&mut self) {
        self.process = launch(self.root.path(), &self.config);
        if let Err(failed) = self.wait_ready() {
            panic!("mc-proxy does not start again: {}:\n{}", failed.status, failed.errors);
        }
    }

    fn wait_ready(&mut self) -> Result<(), Failed> {
        let socket = self.socket();
        let addresses: Vec<SocketAddr> =
            self.config.listeners.iter().map(|(_, address, _)| *address).collect();
        clock::wait_for("mc-proxy to serve", clock::PATIENCE, || {
            if let Some(status) = self.process.ended() {
                return Some(Err(Failed { status, errors: self.process.errors() }));
            }
            (serves(&socket) && self.on_host(|| all_open(&addresses))).then_some(Ok(()))
        })
    }

    /// Runs code where the proxy runs.
    fn on_host<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        match &self.config.host {
            Some(host) => host.enter(work),
            None => work(),
        }
    }

    /// Where a listener of the configuration listens.
    ///
    /// # Panics
    /// When there is none of that name.
    #[must_use]
    pub fn address(&self, listener: &str) -> SocketAddr {
        let found = self.config.listeners.iter().find(|(name, ..)| name == listener);
        found.unwrap_or_else(|| panic!("no listener {listener}")).1
    }

    /// Where the listener `web` listens.
    #[must_use]
    pub fn web(&self) -> SocketAddr {
        self.address("web")
    }

    /// Its folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// Puts a certificate in the place of the one of this name, in one step, while it runs.
    pub fn replace_certificate(&self, name: &str, certificate: &Certificate) {
        self.replace_bundle(name, &certificate.bundle());
    }

    /// The same with a file of this text.
    pub fn replace_bundle(&self, name: &str, text: &str) {
        write_certificate(self.root(), name, text);
    }

    /// Its admin socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.root.path().join("mc-proxy.sock")
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// What it said on standard error.
    #[must_use]
    pub fn errors(&self) -> String {
        self.process.errors()
    }

    /// Asks it to stop.
    pub fn term(&self) {
        self.process.signal(Signal::SIGTERM);
    }

    /// Runs `mcproxyctl` on it.
    ///
    /// # Panics
    /// When it is not built.
    #[must_use]
    pub fn ctl_output(&self, arguments: &[&str]) -> Output {
        self.ctl_command(arguments).output().expect("mcproxyctl is a program")
    }

    /// `mcproxyctl` with these arguments, to be started.
    ///
    /// # Panics
    /// When it is not built.
    #[must_use]
    pub fn ctl_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary("mcproxyctl"));
        command.arg("--yes").arg("--socket").arg(self.socket()).args(arguments);
        command
    }

    /// Runs `mcproxyctl` on it and returns what it printed.
    ///
    /// # Panics
    /// With what it said, when it fails.
    #[must_use]
    pub fn ctl_text(&self, arguments: &[&str]) -> String {
        let output = self.ctl_output(arguments);
        let (text, errors) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "mcproxyctl {arguments:?}: {}\n{text}{errors}", output.status);
        text.into_owned()
    }

    /// Runs `mcproxyctl --output json` on it.
    ///
    /// # Panics
    /// With what it said, when it fails or prints no JSON.
    #[must_use]
    pub fn ctl(&self, arguments: &[&str]) -> Value {
        let text = self.ctl_text(&[&["--output", "json"], arguments].concat());
        serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("mcproxyctl {arguments:?}: {error}: {text}"))
    }

    /// The access log so far. Every line has a `peer`: the client itself where the log does not say.
    ///
    /// # Panics
    /// When a line is no JSON.
    #[must_use]
    pub fn log(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.root.path().join("access.log")).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let parse = |line| {
            let mut line: Value =
                serde_json::from_str(line).unwrap_or_else(|error| panic!("log line {line}: {error}"));
            if line["peer"].is_null() {
                line["peer"] = line["client"].clone();
            }
            line
        };
        whole.lines().map(parse).collect()
    }

    /// Waits for an access log line of which this is so.
    ///
    /// # Panics
    /// When there is none within [`clock::PATIENCE`].
    pub fn wait_log(&self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        let mut seen = Vec::new();
        let start = clock::now();
        loop {
            if let Some(line) = self.log().into_iter().find(|line| is_it(line)) {
                return line;
            }
            if start.elapsed() > clock::PATIENCE {
                seen.extend(self.log());
                panic!("no line of {what} in the access log: {seen:#?}");
            }
            clock::sleep_ms(20);
        }
    }

    /// Waits for the line of a connection that ended so.
    pub fn wait_outcome(&self, outcome: &str) -> Value {
        self.wait_log(outcome, |line| line["outcome"] == outcome)
    }

    /// Its metrics, in Prometheus' text format.
    ///
    /// # Panics
    /// When it serves none.
    #[must_use]
    pub fn metrics(&self) -> String {
        let text = self.ops("/metrics");
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
        text
    }

    /// What is answered at this path where metrics are served, with its head.
    ///
    /// # Panics
    /// When nothing is.
    #[must_use]
    pub fn ops(&self, path: &str) -> String {
        let address = self.config.metrics_address(self.root.path());
        let mut stream = self.on_host(|| TcpStream::connect(address)).expect("mc-proxy serves metrics");
        write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")
            .expect("mc-proxy reads requests");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("metrics are text");
        text
    }

    /// The sum of a metric's samples whose labels contain each of these texts (`outcome="no_route"`).
    #[must_use]
    pub fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let text = self.metrics();
        let samples = text.lines().filter(|line| {
            let this = line.split(['{', ' ']).next().unwrap_or_default();
            this == name && labels.iter().all(|label| line.contains(label))
        });
        samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Waits until a metric's sum is at least this.
    pub fn wait_metric(&self, name: &str, labels: &[&str], least: f64) {
        clock::wait_until(&format!("{name} {labels:?} to reach {least}"), || {
            self.metric(name, labels) >= least
        });
    }

    /// Resident memory, in KiB.
    ///
    /// # Panics
    /// When it has ended.
    #[must_use]
    pub fn rss_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("mc-proxy runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a process has memory");
        line.trim().trim_end_matches(" kB").parse().expect("a number of KiB")
    }

    /// Stops it and returns its folder, for what comes after.
    #[must_use]
    pub fn into_root(self) -> TempDir {
        let Self { root, mut process, .. } = self;
        process.kill9();
        root
    }
}

/// Writes a file of certificates so that nobody sees half of it.
fn write_certificate(root: &Path, name: &str, bundle: &str) {
    let folder = root.join("certs");
    let (beside, file) = (folder.join(format!("{name}.new")), folder.join(format!("{name}.pem")));
    std::fs::create_dir_all(&folder).expect("the test's folder is writable");
    std::fs::write(&beside, bundle).expect("the test's folder is writable");
    std::fs::rename(&beside, &file).expect("the test's folder is writable");
}

fn launch(root: &Path, config: &Config) -> Process {
    launch_with(root, config, &[])
}

fn launch_with(root: &Path, config: &Config, arguments: &[&str]) -> Process {
    let program = config.program.clone().unwrap_or_else(|| binary("mc-proxy"));
    let mut words: Vec<String> = config.wrapper.clone();
    words.push(program.display().to_string());
    words.extend(["--config".to_owned(), root.join("mc-proxy.toml").display().to_string()]);
    words.extend(arguments.iter().map(|&argument| argument.to_owned()));
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    let namespace = config.host.as_ref().map(Host::path);
    Process::start(&command, root, "mc-proxy", namespace.as_deref(), config.nobody)
}

/// Whether calls are answered there: the socket is open long before. A client's first bytes of HTTP/2 are
/// answered by the server's (RFC 9113, section 3.4).
fn serves(socket: &Path) -> bool {
    let ask = || {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_millis(500)))?;
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")?;
        stream.read_exact(&mut [0; 1])
    };
    ask().is_ok()
}

fn all_open(addresses: &[SocketAddr]) -> bool {
    addresses.iter().all(|address| listens(*address))
}

/// Whether some socket listens there, without connecting to it: a connection would be counted.
fn listens(address: SocketAddr) -> bool {
    let table = if address.is_ipv4() { "tcp" } else { "tcp6" };
    let text = std::fs::read_to_string(format!("/proc/thread-self/net/{table}")).unwrap_or_default();
    let wanted = kernel_name(address);
    text.lines().skip(1).any(|line| {
        let mut words = line.split_whitespace().skip(1);
        // State 0A is LISTEN.
        words.next() == Some(wanted.as_str()) && words.nth(1) == Some("0A")
    })
}

/// An address as `/proc/net/tcp` writes it: words of four bytes in the machine's order.
fn kernel_name(address: SocketAddr) -> String {
    let octets: Vec<u8> = match address.ip() {
        std::net::IpAddr::V4(ip) => ip.octets().to_vec(),
        std::net::IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let word = |four: &[u8]| u32::from_ne_bytes(four.try_into().expect("chunks of four"));
    let ip: String = octets.chunks(4).map(|four| format!("{:08X}", word(four))).collect();
    format!("{ip}:{:04X}", address.port())
}

/// A binary of this build.
///
/// # Panics
/// When it is not built, saying how to.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    let path = binaries_dir().join(name);
    assert!(path.is_file(), "{} is not built: run `cargo build --workspace` first", path.display());
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listening_socket_is_seen() {
        let address = fresh_address();
        assert!(!listens(address));
        let _listener = std::net::TcpListener::bind(address).unwrap();
        assert!(listens(address));
    }
}
