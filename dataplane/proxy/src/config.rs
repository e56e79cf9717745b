//! The configuration file: what it may say, its defaults, and where exactly it is wrong.
//!
//! Everything but the seed (`[[listeners]]`, `[[routes]]`, `[firewall]`) is read at every start. The seed
//! fills an empty database and is ignored afterwards: from then on the admin API is the way.
//! A mistake is refused with file, line, column, key and remedy; nothing of a wrong file is used.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use mc_core::model::{Firewall, Listener, Route};
use mc_core::validate::{self, Invalid};
use mcdsl::config::ReadError;
use mcdsl::log::Log;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use crate::access_log::{Format, Target};

mod hints;
#[cfg(test)]
mod tests;

pub use mcdsl::config::Problem;

/// The configuration file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The process.
    pub server: Server,
    /// How operators reach it.
    pub admin: Admin,
    /// Prometheus metrics.
    pub metrics: Metrics,
    /// What it says about itself, on standard error.
    pub log: Log,
    /// A line for each connection.
    pub access_log: AccessLog,
    /// Databases for countries and autonomous systems.
    pub geoip: GeoIp,
    /// Certificates, for routes that terminate TLS.
    pub tls: Tls,
    /// TCP keepalive of clients and backends.
    pub keepalive: Keepalive,
    /// The firewall in the kernel.
    pub xdp: Xdp,
    /// Seed: listeners.
    pub listeners: Vec<Listener>,
    /// Seed: routes.
    pub routes: Vec<Route>,
    /// Seed: firewall.
    pub firewall: Firewall,
    #[serde(skip)]
    source: Option<Source>,
}

/// `[server]`: the process.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Server {
    /// Directory of everything that must not be lost. Relative paths of this file start here.
    pub root: PathBuf,
    /// SQLite database; absent: `mc-proxy.db`.
    pub database: Option<PathBuf>,
    /// Worker threads; 0: one per core.
    pub workers: u16,
    /// Time that connections get to end by themselves after SIGTERM, in milliseconds.
    pub drain_timeout_ms: u64,
    /// Time that they get after another process has taken over, in milliseconds; 0: as long as they take.
    pub handover_timeout_ms: u64,
    /// Connections from clients at the same time, on all listeners; 0: as many as there are descriptors for.
    pub max_connections: u32,
    /// Connections at the same time from one client (an address of IPv4, a /64 of IPv6), on all listeners, from before
    /// they have said anything; 0: no limit.
    pub max_connections_per_source: u32,
    /// Memory from which new connections are refused and idle ones ended, in bytes; 0: four fifths of the machine's, or of
    /// what the process's control group allows.
    pub max_memory_bytes: u64,
}

/// `[admin]`: how operators reach it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Admin {
    /// Unix socket, mode 0600; absent: `mc-proxy.sock`.
    pub socket: Option<PathBuf>,
    /// Also over TCP, with TLS and a token.
    pub tcp: Option<AdminTcp>,
}

/// `[admin.tcp]`: the admin API over TCP. All of it or none.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdminTcp {
    /// Where to listen.
    pub listen_addr: SocketAddr,
    /// Certificate chain, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// File of mode 0600 that holds the bearer token; read at each use, so that it can be rotated.
    pub token_file: PathBuf,
}

/// `[metrics]`: Prometheus metrics.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Metrics {
    /// Where to serve `/metrics`; `None` (written `""`): nowhere.
    #[serde(deserialize_with = "address_or_empty")]
    pub listen_addr: Option<SocketAddr>,
}

/// `[access_log]`: a line for each connection.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AccessLog {
    /// Where lines go: `"-"`, `""` or a file.
    pub path: Target,
    /// How a line looks.
    pub format: Format,
}

/// `[geoip]`: databases in MaxMind's format.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GeoIp {
    /// Country of an address.
    pub country_database: Option<PathBuf>,
    /// Autonomous system of an address.
    pub asn_database: Option<PathBuf>,
}

/// `[tls]`: certificates, for routes that terminate TLS.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// Folder of `*.pem`: each holds a private key and its certificate chain, and perhaps an OCSP response. Read
    /// again when it changes. `default.pem` is for clients that send no name.
    pub certificates: PathBuf,
    /// File of session ticket keys, mode 0600; made, and made anew every day.
    pub ticket_keys: PathBuf,
    /// Whether keys are handed to the kernel after the handshake, where it takes them.
    pub kernel: bool,
}

/// `[keepalive]`: TCP keepalive of clients and backends, so that a peer that vanished is noticed.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Keepalive {
    /// Silence before the first probe, in milliseconds; 0: no keepalive. Connections get it when they are a
    /// second old.
    pub idle_ms: u64,
    /// Time between probes, in milliseconds.
    pub interval_ms: u64,
    /// Unanswered probes that end the connection.
    pub probes: u32,
}

/// `[xdp]`: the firewall in the kernel, at the network card.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Xdp {
    /// Interfaces through which clients come; none: the firewall is in user space alone.
    pub interfaces: Vec<String>,
    /// How it is attached.
    pub mode: XdpMode,
    /// The bpffs in which it outlives a restart; `""`: it does not.
    pub pins: PathBuf,
    /// Connections asked for in a second above which SYN cookies are in use; 0: never.
    pub syn_cookies_above: u32,
}

/// How the firewall is attached to interfaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum XdpMode {
    /// In the driver, else in the kernel's stack.
    #[default]
    Auto,
    /// In the driver.
    Native,
    /// In the kernel's stack.
    Generic,
}

/// Why a configuration file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Something in it is wrong.
    #[error(transparent)]
    Wrong(#[from] Problem),
}

/// The least that `server.max_memory_bytes` may be: what a proxy without clients takes, and as much again.
const MIN_MEMORY: u64 = 32 * 1024 * 1024;

impl Default for Server {
    fn default() -> Self {
        Self {
            root: "/srv/mc-proxy".into(),
            database: None,
            workers: 0,
            drain_timeout_ms: 30_000,
            handover_timeout_ms: 0,
            max_connections: 0,
            max_connections_per_source: 0,
            max_memory_bytes: 0,
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self { listen_addr: Some(SocketAddr::from(([127, 0, 0, 1], 9091))) }
    }
}

impl Default for AccessLog {
    fn default() -> Self {
        Self { path: Target::Stdout, format: Format::Json }
    }
}

impl Default for Tls {
    fn default() -> Self {
        Self { certificates: "certs".into(), ticket_keys: "ticket-keys".into(), kernel: true }
    }
}

impl Default for Xdp {
    fn default() -> Self {
        Self {
            interfaces: Vec::new(),
            mode: XdpMode::Auto,
            pins: "/sys/fs/bpf".into(),
            syn_cookies_above: 10_000,
        }
    }
}

impl Default for Keepalive {
    fn default() -> Self {
        Self { idle_ms: 60_000, interval_ms: 10_000, probes: 6 }
    }
}

/// The file that a configuration was read from, as it was then.
#[derive(Clone, Debug)]
struct Source {
    path: PathBuf,
    root: Option<PathBuf>,
    tables: toml::Table,
}

/// A value that is refused for what it means.
fn refused(text: &str, name: &str, Invalid { field, problem }: Invalid) -> Problem {
    mcdsl::config::refused(text, name, &field, problem)
}

impl Config {
    /// Reads a file and checks what it refers to. `root` takes the place of `server.root`.
    ///
    /// # Errors
    /// The file cannot be read, or the first thing in it that is wrong.
    pub fn load(path: &Path, root: Option<&Path>) -> Result<Self, ConfigError> {
        Self::load_with(path, root, Self::check_files)
    }

    /// The same, and checks files too without which the proxy runs.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn check(path: &Path, root: Option<&Path>) -> Result<Self, ConfigError> {
        Self::load_with(path, root, |config| {
            config.check_files()?;
            config.check_databases()
        })
    }

    /// The tables of the file that say something else now than when it was read.
    ///
    /// # Errors
    /// The file cannot be used any more: see [`Self::load`].
    pub fn changed_tables(&self) -> Result<Vec<String>, ConfigError> {
        let Some(before) = &self.source else { return Ok(Vec::new()) };
        let now = Self::load(&before.path, before.root.as_deref())?;
        let now = now.source.map(|source| source.tables).unwrap_or_default();
        let names: BTreeSet<&String> = before.tables.keys().chain(now.keys()).collect();
        let changed = names.into_iter().filter(|name| before.tables.get(*name) != now.get(*name));
        Ok(changed.cloned().collect())
    }

    fn load_with(
        path: &Path,
        root: Option<&Path>,
        check: impl FnOnce(&Self) -> Result<(), Invalid>,
    ) -> Result<Self, ConfigError> {
        let text = mcdsl::config::text(path)?;
        let name = path.display().to_string();
        let mut config = Self::parse(&text, &name)?;
        if let Some(root) = root {
            root.clone_into(&mut config.server.root);
        }
        check(&config).map_err(|invalid| refused(&text, &name, invalid))?;
        let tables = text.parse().unwrap_or_default();
        config.source = Some(Source { path: path.to_owned(), root: root.map(Path::to_owned), tables });
        Ok(config)
    }

    /// Reads a configuration from `text`; errors call the file `name`. Looks at no other file.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn parse(text: &str, name: &str) -> Result<Self, Problem> {
        let mut config: Self = mcdsl::config::read(text, name, hints::HINTS)?;
        config.normalize().map_err(|invalid| refused(text, name, invalid))?;
        Ok(config)
    }

    /// A path of the file: relative ones start at the root.
    #[must_use]
    pub fn resolve(&self, path: &Path) -> PathBuf {
        self.server.root.join(path)
    }

    /// Where the database is.
    #[must_use]
    pub fn database(&self) -> PathBuf {
        self.resolve(self.server.database.as_deref().unwrap_or(Path::new("mc-proxy.db")))
    }

    /// Where the admin socket is.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.resolve(self.admin.socket.as_deref().unwrap_or(Path::new("mc-proxy.sock")))
    }

    /// Brings the seed to its one form and refuses what makes no sense, alone or together.
    fn normalize(&mut self) -> Result<(), Invalid> {
        let Keepalive { idle_ms, interval_ms, probes } = self.keepalive;
        // tcp(7): more than this the kernel refuses.
        const MAX_MS: u64 = 32_767_000;
        let within = [
            ("idle_ms", idle_ms, MAX_MS),
            ("interval_ms", interval_ms, MAX_MS),
            ("probes", probes.into(), 127),
        ];
        for (key, value, most) in within {
            if idle_ms > 0 && value == 0 {
                let problem = "0 makes no sense: write 1 or more, or idle_ms = 0 for no keepalive";
                return Err(invalid(format!("keepalive.{key}"), problem));
            }
            if value > most {
                return Err(invalid(
                    format!("keepalive.{key}"),
                    format!("{value} is more than {most}, the kernel's limit"),
                ));
            }
        }
        let memory = self.server.max_memory_bytes;
        if memory != 0 && memory < MIN_MEMORY {
            let problem = format!("{memory} is less than {MIN_MEMORY}, and mc-proxy itself needs some");
            return Err(invalid("server.max_memory_bytes", problem));
        }
        for (index, name) in self.xdp.interfaces.iter().enumerate() {
            // IFNAMSIZ, and what the kernel's dev_valid_name() says.
            if name.is_empty()
                || name.len() > 15
                || name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace())
            {
                let problem = format!("`{name}` is no interface's name: see `ip link`");
                return Err(invalid(format!("xdp.interfaces[{index}]"), problem));
            }
        }
        self.listeners =
            each("listeners", std::mem::take(&mut self.listeners), validate::normalize_listener)?;
        self.routes = each("routes", std::mem::take(&mut self.routes), validate::normalize_route)?;
        self.firewall = validate::normalize_firewall(std::mem::take(&mut self.firewall))
            .map_err(|invalid| invalid.within("firewall"))?;
        validate::check_config(&self.listeners, &self.routes)
    }

    /// Checks that the files it refers to can be read.
    fn check_files(&self) -> Result<(), Invalid> {
        let root = &self.server.root;
        if !root.is_dir() {
            let problem = format!(
                "{} is not a directory: create it (`install -d -m 700 {0}`) or name another with --root",
                root.display()
            );
            return Err(invalid("server.root", problem));
        }
        let socket = self.socket();
        let length = socket.as_os_str().len();
        if length > MAX_SOCKET_PATH {
            let problem = format!(
                "{} has {length} bytes and a socket's path at most {MAX_SOCKET_PATH}: choose a shorter one",
                socket.display()
            );
            return Err(invalid("admin.socket", problem));
        }
        if let Some(tcp) = &self.admin.tcp {
            self.check_file(
                "admin.tcp.certificate",
                &tcp.certificate,
                "put the certificate chain there (PEM)",
            )?;
            self.check_file("admin.tcp.key", &tcp.key, "put the private key there (PEM, mode 0600)")?;
            self.check_file("admin.tcp.token_file", &tcp.token_file, "put a token there (mode 0600)")?;
        }
        Ok(())
    }

    /// Checks that the GeoIP databases can be read. Without one the proxy runs, and says which rules do nothing.
    fn check_databases(&self) -> Result<(), Invalid> {
        let remedy = "fetch it (see docs/mc-proxy.md) or remove the key";
        if let Some(path) = &self.geoip.country_database {
            self.check_file("geoip.country_database", path, remedy)?;
        }
        if let Some(path) = &self.geoip.asn_database {
            self.check_file("geoip.asn_database", path, remedy)?;
        }
        Ok(())
    }

    fn check_file(&self, key: &str, path: &Path, remedy: &str) -> Result<(), Invalid> {
        let path = self.resolve(path);
        match std::fs::File::open(&path) {
            Ok(_) => Ok(()),
            Err(error) => Err(invalid(key, format!("cannot read {}: {error}: {remedy}", path.display()))),
        }
    }
}

/// Brings each of a list to its one form.
fn each<T>(list: &str, all: Vec<T>, normalize: fn(T) -> Result<T, Invalid>) -> Result<Vec<T>, Invalid> {
    let normalized = all.into_iter().enumerate().map(|(index, one)| {
        normalize(one).map_err(|invalid| invalid.within(format_args!("{list}[{index}]")))
    });
    normalized.collect()
}

fn invalid(field: impl Into<String>, problem: impl Into<String>) -> Invalid {
    Invalid { field: field.into(), problem: problem.into() }
}

fn address_or_empty<'de, D: Deserializer<'de>>(input: D) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(input)?;
    if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(D::Error::custom) }
}

/// What `sockaddr_un` holds, less its closing zero byte.
const MAX_SOCKET_PATH: usize = 107;
