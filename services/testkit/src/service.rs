//! A service as it is shipped: its directory, its certificate, its process, and requests to it.
//!
//! What all services share is here: one configuration section for the server, three listeners, one name. A service adds its own
//! configuration and its own requests; [`crate::mcias`] shows how.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::ca::Ca;
use crate::client::Request;
use crate::clock;
use crate::http;
use crate::process::Process;
use crate::tools::fresh_ip;

/// A service under test. Killed on drop.
#[derive(Debug)]
pub struct Service {
    name: &'static str,
    folder: TempDir,
    program: PathBuf,
    /// The CA of its certificate.
    pub ca: Ca,
    process: Option<Process>,
    /// REST and pages.
    pub rest: SocketAddr,
    /// gRPC.
    pub grpc: SocketAddr,
    /// Metrics and health, in plain HTTP.
    pub ops: SocketAddr,
}

/// The response to a request.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The status line and the headers.
    pub head: String,
    /// The body as JSON; null if it is not JSON.
    pub body: Value,
    /// The body as text.
    pub text: String,
}

/// A connection for many requests.
#[derive(Debug)]
pub struct Connection {
    client: http::Client,
    host: String,
}

impl Answer {
    /// The reason of the problem document; empty if it is none.
    #[must_use]
    pub fn reason(&self) -> &str {
        self.body["reason"].as_str().unwrap_or_default()
    }

    /// A string in the body.
    ///
    /// # Panics
    /// There is no string with this key.
    #[must_use]
    pub fn text_of(&self, key: &str) -> String {
        let found = self.body[key].as_str();
        found.unwrap_or_else(|| panic!("no text `{key}` in {} {}", self.status, self.text)).to_owned()
    }
}

impl Connection {
    /// Sends a request with a JSON body (null: no body) and a token (empty: no token).
    ///
    /// # Errors
    /// The connection broke before the response was there.
    pub fn ask(&mut self, method: &str, path: &str, token: &str, body: &Value) -> io::Result<Answer> {
        let text = if body.is_null() { String::new() } else { body.to_string() };
        self.raw(method, path, token, "application/json", text.as_bytes())
    }

    /// Sends a request with a body of any media type.
    ///
    /// # Errors
    /// The connection broke before the response was there.
    pub fn raw(
        &mut self,
        method: &str,
        path: &str,
        token: &str,
        media_type: &str,
        body: &[u8],
    ) -> io::Result<Answer> {
        let headers =
            if token.is_empty() { String::new() } else { format!("authorization: Bearer {token}\r\n") };
        self.raw_with(method, path, &headers, media_type, body)
    }

    /// Sends a request with these headers, each with its line end.
    ///
    /// # Errors
    /// The connection broke before the response was there.
    pub fn raw_with(
        &mut self,
        method: &str,
        path: &str,
        headers: &str,
        media_type: &str,
        body: &[u8],
    ) -> io::Result<Answer> {
        let media_type =
            if body.is_empty() { String::new() } else { format!("content-type: {media_type}\r\n") };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\n{headers}{media_type}content-length: {}\r\n\r\n",
            self.host,
            body.len()
        );
        let response = self.client.try_ask(&[head.as_bytes(), body].concat())?;
        let text = response.text();
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Ok(Answer { status: response.status(), head: response.head, body, text })
    }
}

impl Service {
    /// The directory of a service that is not started yet: a certificate for `<name>.test`, `localhost` and its address, and
    /// `<name>.toml` with its listeners and these lines.
    ///
    /// # Panics
    /// The directory cannot be written.
    #[must_use]
    pub fn create(name: &'static str, program: &Path, lines: &str) -> Self {
        let ip = fresh_ip();
        let ca = Ca::new();
        let folder = tempfile::tempdir().expect("a folder can be made");
        let certs = folder.path().join("certs");
        std::fs::create_dir(&certs).expect("the test's folder is writable");
        let certificate = ca.issue(&[&format!("{name}.test"), "localhost", &ip.to_string()]);
        std::fs::write(certs.join("server.pem"), &certificate.pem).expect("the test's folder is writable");
        write_key(&certs.join("server.key"), &certificate.key_pem);
        drop(ca.write(folder.path()));
        let at = |port| SocketAddr::new(ip, port);
        let (rest, grpc, ops) = (at(8443), at(9443), at(9092));
        let text = format!(
            "[server]\nlisten_addr = \"{rest}\"\ngrpc_addr = \"{grpc}\"\nmetrics_addr = \"{ops}\"\n{lines}\n"
        );
        std::fs::write(folder.path().join(format!("{name}.toml")), text)
            .expect("the test's folder is writable");
        Self { name, folder, program: program.to_owned(), ca, process: None, rest, grpc, ops }
    }

    /// Runs a command of the program to its end. Returns what it prints.
    ///
    /// # Panics
    /// It fails.
    pub fn run(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().expect("the program can be started");
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {}: {errors}", output.status);
        String::from_utf8(output.stdout).expect("it prints text")
    }

    /// A command of the program, with this service's configuration.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        let config = self.folder.path().join(format!("{}.toml", self.name));
        command.args(arguments).arg("--config").arg(config);
        command
    }

    /// Starts the server, killing the one that runs, and waits until it serves.
    ///
    /// # Panics
    /// It does not serve.
    pub fn restart(&mut self, environment: &[(&str, &str)]) {
        let mut command = self.command(&["serve"]);
        command.envs(environment.iter().copied());
        self.process = None;
        let mut process = Process::start(&command, self.folder.path(), self.name, None, false);
        clock::wait_for("the service to listen", clock::PATIENCE, || {
            assert!(process.ended().is_none(), "{} ended: {}", self.name, process.errors());
            TcpStream::connect(self.ops).ok()
        });
        self.process = Some(process);
    }

    /// Starts the server, which refuses to. What it prints to standard error.
    ///
    /// # Panics
    /// It starts.
    #[must_use]
    pub fn refuses_to_start(&self, environment: &[(&str, &str)]) -> String {
        let mut command = self.command(&["serve"]);
        command.envs(environment.iter().copied());
        let mut process = Process::start(&command, self.folder.path(), "refused", None, false);
        let status = process.wait(clock::PATIENCE);
        assert!(!status.success(), "it has started and stopped");
        process.errors()
    }

    /// Kills the server at once, as a power cut would.
    pub fn kill9(&mut self) {
        if let Some(process) = &mut self.process {
            process.kill9();
        }
    }

    /// Stops the server's threads: its sockets stay, and nobody answers. When this returns, none of them runs any more.
    ///
    /// # Panics
    /// It does not run.
    pub fn pause(&self) {
        let process = self.process();
        process.signal(Signal::SIGSTOP);
        clock::wait_until("the server's threads stop", || process.is_stopped());
    }

    /// Lets a paused server go on.
    ///
    /// # Panics
    /// It does not run.
    pub fn resume(&self) {
        self.process().signal(Signal::SIGCONT);
    }

    /// Sends SIGTERM, and waits for the server's end.
    ///
    /// # Panics
    /// It does not end, or not with success.
    pub fn stop(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        process.signal(Signal::SIGTERM);
        let status = process.wait(clock::PATIENCE);
        assert!(status.success(), "{status}: {}", process.errors());
    }

    /// The server's log so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.as_ref().map(Process::errors).unwrap_or_default()
    }

    /// The server's process.
    ///
    /// # Panics
    /// It does not run.
    #[must_use]
    pub fn process(&self) -> &Process {
        self.process.as_ref().expect("it runs")
    }

    /// The service's directory, which also has this test's files.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The service's database.
    #[must_use]
    pub fn database(&self) -> PathBuf {
        self.folder.path().join(format!("{}.db", self.name))
    }

    /// The CA's certificate, for clients that read a file.
    #[must_use]
    pub fn ca_file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// The host name in its certificate, which resolves nowhere.
    #[must_use]
    pub fn host(&self) -> String {
        format!("{}.test", self.name)
    }

    /// Its public address.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}:8443", self.host())
    }

    /// A page of the ops listener: head and body.
    ///
    /// # Panics
    /// There is no response.
    #[must_use]
    pub fn ops_page(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.ops).expect("the ops listener takes connections");
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        let mut text = String::new();
        stream
            .write_all(request.as_bytes())
            .and_then(|()| stream.read_to_string(&mut text))
            .expect("the ops listener answers");
        text
    }

    /// A connection of HTTP/1.1 for raw bytes.
    ///
    /// # Panics
    /// The server does not accept it.
    #[must_use]
    pub fn connect(&self) -> http::Client {
        self.open(None).expect("the service takes connections").client
    }

    /// A connection for many requests.
    ///
    /// # Panics
    /// The server does not accept it.
    #[must_use]
    pub fn connection(&self) -> Connection {
        self.open(None).expect("the service takes connections")
    }

    /// A connection from another address of this machine.
    ///
    /// # Errors
    /// The server does not accept it.
    pub fn connection_from(&self, from: IpAddr) -> io::Result<Connection> {
        self.open(Some(from))
    }

    fn open(&self, from: Option<IpAddr>) -> io::Result<Connection> {
        let host = self.host();
        let mut request = Request::new(&self.ca, self.rest, &host).alpn(&["http/1.1"]);
        if let Some(from) = from {
            request = request.from(from);
        }
        Ok(Connection { client: http::Client::on(request.open()?), host: format!("{host}:8443") })
    }

    /// Sends a request with a JSON body (null: no body) and a token (empty: no token).
    ///
    /// # Panics
    /// There is no response.
    pub fn ask(&self, method: &str, path: &str, token: &str, body: &Value) -> Answer {
        let answer = self.connection().ask(method, path, token, body);
        answer.unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// Sends a request that succeeds. Returns the body of its response.
    ///
    /// # Panics
    /// It does not succeed.
    pub fn done(&self, method: &str, path: &str, token: &str, body: &Value) -> Value {
        let answer = self.ask(method, path, token, body);
        assert!(matches!(answer.status, 200 | 201), "{method} {path}: {} {}", answer.status, answer.text);
        answer.body
    }

    /// Sends a request with a body of any media type.
    ///
    /// # Panics
    /// There is no response.
    pub fn raw(&self, method: &str, path: &str, token: &str, media_type: &str, body: &[u8]) -> Answer {
        let answer = self.connection().raw(method, path, token, media_type, body);
        answer.unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// Sends a request with these headers, each with its line end.
    ///
    /// # Panics
    /// There is no response.
    pub fn raw_with(&self, method: &str, path: &str, headers: &str, media_type: &str, body: &[u8]) -> Answer {
        let answer = self.connection().raw_with(method, path, headers, media_type, body);
        answer.unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }
}

/// Writes a private key that only its owner can read.
///
/// # Panics
/// The test's folder is not writable.
pub fn write_key(file: &Path, pem: &str) {
    std::fs::write(file, pem).expect("the test's folder is writable");
    let mode = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(file, mode).expect("the file is this test's");
}
