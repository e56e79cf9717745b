//! A MCIAS as it is shipped: its configuration, its start, and requests to it.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::ca::Ca;
use crate::client::Request;
use crate::clock;
use crate::http;
use crate::process::Process;
use crate::tools::{binaries_dir, fresh_ip};

/// The name that it is reached by, and which resolves nowhere.
pub const NAME: &str = "mcias.test";

/// The first admin.
pub const ADMIN: &str = "ada";

/// The password of whoever [`Mcias::person`] makes, and of the admin.
pub const PASSWORD: &str = "violet gravel umbrella";

/// A running MCIAS, with a first admin who has a password. Killed on drop.
#[derive(Debug)]
pub struct Mcias {
    folder: TempDir,
    program: PathBuf,
    /// Who signed its certificate.
    pub ca: Ca,
    process: Option<Process>,
    /// REST and pages.
    pub rest: SocketAddr,
    /// gRPC.
    pub grpc: SocketAddr,
    /// Metrics and health, in plain HTTP.
    pub about: SocketAddr,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP's status.
    pub status: u16,
    /// The head of the answer.
    pub head: String,
    /// The body as JSON; null where it is none.
    pub body: Value,
    /// The body as it came.
    pub text: String,
}

impl Answer {
    /// A text of the body.
    ///
    /// # Panics
    /// There is none of this name.
    #[must_use]
    pub fn text_of(&self, key: &str) -> String {
        let found = self.body[key].as_str();
        found.unwrap_or_else(|| panic!("no text `{key}` in {} {}", self.status, self.text)).to_owned()
    }
}

/// A connection for many requests.
#[derive(Debug)]
pub struct Line(http::Client);

impl Line {
    /// A request as [`Mcias::ask`] makes it.
    ///
    /// # Errors
    /// The connection broke before the answer was there.
    pub fn ask(&mut self, method: &str, path: &str, token: &str, body: &Value) -> io::Result<Answer> {
        let text = if body.is_null() { String::new() } else { body.to_string() };
        self.raw(method, path, token, "application/json", text.as_bytes())
    }

    /// A request with a body as it is.
    ///
    /// # Errors
    /// The connection broke before the answer was there.
    pub fn raw(
        &mut self,
        method: &str,
        path: &str,
        token: &str,
        kind: &str,
        body: &[u8],
    ) -> io::Result<Answer> {
        let bearer =
            if token.is_empty() { String::new() } else { format!("authorization: Bearer {token}\r\n") };
        self.send(method, path, &bearer, kind, body)
    }

    fn send(
        &mut self,
        method: &str,
        path: &str,
        fields: &str,
        kind: &str,
        body: &[u8],
    ) -> io::Result<Answer> {
        let kind = if body.is_empty() { String::new() } else { format!("content-type: {kind}\r\n") };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {NAME}:8443\r\n{fields}{kind}content-length: {}\r\n\r\n",
            body.len()
        );
        let response = self.0.try_ask(&[head.as_bytes(), body].concat())?;
        let text = response.text();
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Ok(Answer { status: response.status(), head: response.head, body, text })
    }

    /// What a service is told of a token.
    ///
    /// # Errors
    /// The connection broke before the answer was there.
    pub fn introspect(&mut self, service: &str, token: &str) -> io::Result<Answer> {
        let body = format!("token={token}");
        self.raw("POST", "/v1/introspect", service, "application/x-www-form-urlencoded", body.as_bytes())
    }
}

impl Mcias {
    /// Starts one with its defaults, but for hashes that cost little: tests log in often.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with("", &[])
    }

    /// Starts one with more lines of configuration, and with these variables in its environment.
    ///
    /// # Panics
    /// It does not start.
    #[must_use]
    pub fn start_with(lines: &str, environment: &[(&str, &str)]) -> Self {
        Self::start_program(&binaries_dir().join("mcias"), lines, environment)
    }

    /// The same of another program, which is MCIAS with a fault.
    ///
    /// # Panics
    /// It does not start.
    #[must_use]
    pub fn start_program(program: &Path, lines: &str, environment: &[(&str, &str)]) -> Self {
        let ip = fresh_ip();
        let ca = Ca::new();
        let folder = tempfile::tempdir().expect("a folder can be made");
        let certs = folder.path().join("certs");
        std::fs::create_dir(&certs).expect("the test's folder is writable");
        let certificate = ca.issue(&[NAME, "localhost", &ip.to_string()]);
        std::fs::write(certs.join("server.pem"), &certificate.pem).expect("the test's folder is writable");
        write_key(&certs.join("server.key"), &certificate.key_pem);
        drop(ca.write(folder.path()));
        let at = |port| SocketAddr::new(ip, port);
        let (rest, grpc, about) = (at(8443), at(9443), at(9092));
        let text = format!(
            "[server]\nlisten_addr = \"{rest}\"\ngrpc_addr = \"{grpc}\"\nmetrics_addr = \"{about}\"\n\
             [site]\npublic_url = \"https://{NAME}:8443\"\n\
             [passwords.argon2]\nmemory_kib = 1024\npasses = 1\n{lines}\n"
        );
        std::fs::write(folder.path().join("mcias.toml"), text).expect("the test's folder is writable");
        let mut mcias = Self { folder, program: program.to_owned(), ca, process: None, rest, grpc, about };
        let link = mcias.run(&["init", ADMIN]);
        mcias.restart(environment);
        mcias.redeem(link.trim());
        mcias
    }

    /// Runs a command of the program to its end. What it prints.
    ///
    /// # Panics
    /// It fails.
    pub fn run(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().expect("the program can be started");
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {}: {errors}", output.status);
        String::from_utf8(output.stdout).expect("it prints text")
    }

    /// A command of the program, with this one's configuration.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).arg("--config").arg(self.folder.path().join("mcias.toml"));
        command
    }

    /// Starts it again, where it has ended, and waits until it serves.
    ///
    /// # Panics
    /// It does not serve.
    pub fn restart(&mut self, environment: &[(&str, &str)]) {
        let mut command = self.command(&["server"]);
        command.envs(environment.iter().copied());
        self.process = None;
        let mut process = Process::start(&command, self.folder.path(), "mcias", None, false);
        clock::wait_for("MCIAS to serve", clock::PATIENCE, || {
            assert!(process.ended().is_none(), "MCIAS ended: {}", process.errors());
            std::net::TcpStream::connect(self.about).ok()
        });
        self.process = Some(process);
    }

    /// Ends it at once, as a power cut would.
    pub fn kill9(&mut self) {
        if let Some(process) = &mut self.process {
            process.kill9();
        }
    }

    /// Asks it to end, and waits until it has.
    ///
    /// # Panics
    /// It does not end, or not well.
    pub fn stop(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        process.signal(Signal::SIGTERM);
        let status = process.wait(clock::PATIENCE);
        assert!(status.success(), "{status}: {}", process.errors());
    }

    /// What it has said so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.as_ref().map(Process::errors).unwrap_or_default()
    }

    /// Its process.
    ///
    /// # Panics
    /// It does not run.
    #[must_use]
    pub fn process(&self) -> &Process {
        self.process.as_ref().expect("it runs")
    }

    /// Everything it must not lose, and this test's files.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its database.
    #[must_use]
    pub fn database(&self) -> PathBuf {
        self.folder.path().join("mcias.db")
    }

    /// The authority's certificate, for clients that read a file.
    #[must_use]
    pub fn ca_file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// What it says of itself to this machine, in plain HTTP: the head and the body.
    ///
    /// # Panics
    /// It does not answer.
    #[must_use]
    pub fn about_page(&self, path: &str) -> String {
        let mut stream = std::net::TcpStream::connect(self.about).expect("MCIAS takes connections");
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        let mut text = String::new();
        stream
            .write_all(request.as_bytes())
            .and_then(|()| stream.read_to_string(&mut text))
            .expect("MCIAS answers");
        text
    }

    /// Where the outside reaches it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{NAME}:8443")
    }

    /// A connection of HTTP/1.1.
    ///
    /// # Panics
    /// There is none to be had.
    #[must_use]
    pub fn connect(&self) -> http::Client {
        let tls = Request::new(&self.ca, self.rest, NAME).alpn(&["http/1.1"]).open();
        http::Client::on(tls.expect("MCIAS takes connections"))
    }

    /// A request with a JSON body (null: none), with a token (empty: none).
    ///
    /// # Panics
    /// There is no answer.
    pub fn ask(&self, method: &str, path: &str, token: &str, body: &Value) -> Answer {
        let text = if body.is_null() { String::new() } else { body.to_string() };
        self.raw(method, path, token, "application/json", text.as_bytes())
    }

    /// A request with a body as it is.
    ///
    /// # Panics
    /// There is no answer.
    pub fn raw(&self, method: &str, path: &str, token: &str, kind: &str, body: &[u8]) -> Answer {
        let mut line = self.line();
        line.raw(method, path, token, kind, body).unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// A request with more fields in its head, each with its end.
    ///
    /// # Panics
    /// There is no answer.
    pub fn raw_with(&self, method: &str, path: &str, fields: &str, kind: &str, body: &[u8]) -> Answer {
        let mut line = self.line();
        line.send(method, path, fields, kind, body).unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// A connection that is used again and again, and may break.
    ///
    /// # Panics
    /// There is none to be had.
    #[must_use]
    pub fn line(&self) -> Line {
        Line(self.connect())
    }

    /// The same from another address of this machine.
    ///
    /// # Errors
    /// There is none to be had.
    pub fn line_from(&self, from: IpAddr) -> io::Result<Line> {
        let tls = Request::new(&self.ca, self.rest, NAME).from(from).alpn(&["http/1.1"]).open()?;
        Ok(Line(http::Client::on(tls)))
    }

    /// Replaces an account's settings, of which only these are others.
    ///
    /// # Panics
    /// There is no answer.
    pub fn edit(&self, token: &str, name: &str, change: &Value) -> Answer {
        let path = format!("/v1/accounts/{name}");
        let account = self.ask("GET", &path, token, &Value::Null).body;
        let mut settings = json!({});
        for field in ["enabled", "roles", "tags", "service", "revision"] {
            if !account[field].is_null() {
                settings[field] = account[field].clone();
            }
        }
        settings
            .as_object_mut()
            .expect("it is an object")
            .extend(change.as_object().expect("it is an object").clone());
        self.ask("PUT", &path, token, &settings)
    }

    /// The same, where it succeeds.
    ///
    /// # Panics
    /// It does not.
    pub fn edited(&self, token: &str, name: &str, change: &Value) -> Value {
        let answer = self.edit(token, name, change);
        assert_eq!(answer.status, 200, "{name} {change}: {}", answer.text);
        answer.body
    }

    /// Replaces the policy in force.
    ///
    /// # Panics
    /// There is no answer.
    pub fn set_policy(&self, token: &str, default: &str, rules: &Value) -> Answer {
        let revision = self.ask("GET", "/v1/policy", token, &Value::Null).body["revision"].clone();
        // Where the policy cannot be read, it cannot be set: any revision will do.
        let revision = if revision.is_null() { json!(1) } else { revision };
        let body = json!({ "default": default, "rules": rules, "revision": revision });
        self.ask("PUT", "/v1/policy", token, &body)
    }

    /// A login that succeeds: its token.
    ///
    /// # Panics
    /// It does not.
    #[must_use]
    pub fn login(&self, name: &str) -> String {
        let body = json!({ "username": name, "password": PASSWORD });
        self.ask("POST", "/v1/login", "", &body).text_of("token")
    }

    /// A request that succeeds.
    ///
    /// # Panics
    /// It does not.
    pub fn done(&self, method: &str, path: &str, token: &str, body: &Value) -> Value {
        let answer = self.ask(method, path, token, body);
        assert!(matches!(answer.status, 200 | 201), "{method} {path}: {} {}", answer.status, answer.text);
        answer.body
    }

    /// Makes a person with [`PASSWORD`].
    ///
    /// # Panics
    /// It cannot be made.
    pub fn person(&self, admin: &str, name: &str, roles: &[&str]) {
        let body = json!({ "name": name, "account_type": "human", "roles": roles });
        self.done("POST", "/v1/accounts", admin, &body);
        let link = self.ask("POST", &format!("/v1/accounts/{name}/link"), admin, &Value::Null);
        self.redeem(&link.text_of("url"));
    }

    /// Makes a system account with these tags: its token.
    ///
    /// # Panics
    /// It cannot be made.
    #[must_use]
    pub fn service(&self, admin: &str, name: &str, tags: &[&str]) -> String {
        let body = json!({ "name": name, "account_type": "system", "tags": tags });
        self.done("POST", "/v1/accounts", admin, &body);
        let path = format!("/v1/accounts/{name}/tokens");
        self.ask("POST", &path, admin, &json!({ "label": "first" })).text_of("token")
    }

    /// What a service is told of a token.
    #[must_use]
    pub fn introspect(&self, service: &str, token: &str) -> Answer {
        self.line().introspect(service, token).unwrap_or_else(|error| panic!("introspecting: {error}"))
    }

    /// Sets [`PASSWORD`] by a one-time link.
    ///
    /// # Panics
    /// The link is not good.
    pub fn redeem(&self, link: &str) {
        let secret = link.rsplit('/').next().expect("a link has parts");
        let body = json!({ "secret": secret, "password": PASSWORD });
        self.done("POST", "/v1/link/redeem", "", &body);
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
