//! `[server]`: addresses, certificate and limits of every service.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, MapAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::config::{InvalidValue, Range};
use crate::http::body::SOURCES_AT_LEAST;
use crate::http::{BodyBudget, BodyLimits, Limits};
use crate::tls::Files;

/// `[server]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Directory of everything that must not be lost: `/srv/<service>`. Relative paths start here. Empty: the directory of
    /// the configuration file.
    pub root: PathBuf,
    /// REST and pages, over TLS. `$PORT` and `$PORT_REST` override it.
    pub listen_addr: SocketAddr,
    /// gRPC, over TLS. `$PORT_GRPC` overrides it.
    pub grpc_addr: SocketAddr,
    /// `/metrics`, `/healthz` and `/readyz` in plain HTTP: for this machine only.
    pub metrics_addr: SocketAddr,
    /// The certificate chain, PEM, the leaf first. It and the key are reloaded when they change.
    pub certificate: PathBuf,
    /// The private key, PEM.
    pub key: PathBuf,
    /// Which proxies name the client's address in a PROXY header.
    pub proxy_protocol: ProxyProtocol,
    /// Connections at the same time, for each listener.
    pub max_connections: u32,
    /// Connections at the same time from one source (an IPv4 address, an IPv6 /64), for each listener. Connections from
    /// this machine are not counted, unless a PROXY header names it.
    pub max_connections_per_source: u32,
    /// Time in which no byte is transferred, in milliseconds: then a connection takes no further request, and after twice
    /// that time it is cut off. The first request, and the head of each HTTP/1.1 request, must arrive within it. At least
    /// `request_timeout_ms`.
    pub idle_timeout_ms: u64,
    /// Time until the response to a request begins, in milliseconds.
    pub request_timeout_ms: u64,
    /// The largest body of a request, in bytes.
    pub max_body_bytes: usize,
    /// Bytes of all bodies that are being read at the same time. One source (an IPv4 address, an IPv6 /64) gets at most a
    /// quarter. What does not fit is refused with 503. At least four times `max_body_bytes`.
    pub max_body_bytes_in_flight: usize,
    /// Time in which no byte of a body arrives, in milliseconds: then it is refused with 408.
    pub body_idle_timeout_ms: u64,
    /// Time in which requests may end after SIGTERM, in milliseconds.
    pub drain_timeout_ms: u64,
}

/// Whether connections begin with a PROXY header.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProxyProtocol {
    /// No connection does.
    #[default]
    Off,
    /// All connections from these networks do, and no others.
    From(Vec<IpNet>),
    /// Connections from these networks may, and no others do: a proxy on this machine, beside clients of this machine.
    OptionalFrom(Vec<IpNet>),
}

/// By hand: a word or a table. What serde derives speaks of variants.
impl<'de> Deserialize<'de> for ProxyProtocol {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ProxyProtocolVisitor)
    }
}

struct ProxyProtocolVisitor;

impl<'de> Visitor<'de> for ProxyProtocolVisitor {
    type Value = ProxyProtocol;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"off\", { from = [\"10.0.0.0/8\"] } or { optional_from = [\"127.0.0.0/8\"] }")
    }

    fn visit_str<E: de::Error>(self, word: &str) -> Result<ProxyProtocol, E> {
        if word == "off" {
            Ok(ProxyProtocol::Off)
        } else {
            Err(E::invalid_value(Unexpected::Str(word), &self))
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ProxyProtocol, A::Error> {
        match From::deserialize(MapAccessDeserializer::new(map))? {
            From { from: Some(networks), optional_from: None } => Ok(ProxyProtocol::From(networks)),
            From { from: None, optional_from: Some(networks) } => Ok(ProxyProtocol::OptionalFrom(networks)),
            From { from: None, optional_from: None } => {
                Err(de::Error::custom("add `from` or `optional_from`"))
            }
            From { .. } => Err(de::Error::custom("`from` and `optional_from` exclude each other")),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct From {
    from: Option<Vec<IpNet>>,
    optional_from: Option<Vec<IpNet>>,
}

impl ProxyProtocol {
    /// What a connection from this address begins with.
    pub(super) fn header_from(&self, ip: IpAddr) -> Header {
        let (networks, header) = match self {
            Self::Off => return Header::None,
            Self::From(networks) => (networks, Header::Required),
            Self::OptionalFrom(networks) => (networks, Header::Optional),
        };
        if networks.iter().any(|network| network.contains(&ip)) { header } else { Header::None }
    }

    fn networks(&self) -> &[IpNet] {
        match self {
            Self::Off => &[],
            Self::From(networks) | Self::OptionalFrom(networks) => networks,
        }
    }
}

/// Whether a connection begins with a PROXY header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Header {
    None,
    Optional,
    Required,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            root: PathBuf::new(),
            listen_addr: SocketAddr::from(([0, 0, 0, 0], 8443)),
            grpc_addr: SocketAddr::from(([0, 0, 0, 0], 9443)),
            metrics_addr: SocketAddr::from(([127, 0, 0, 1], 9092)),
            certificate: PathBuf::from("certs/server.pem"),
            key: PathBuf::from("certs/server.key"),
            proxy_protocol: ProxyProtocol::Off,
            max_connections: 10_000,
            max_connections_per_source: 200,
            idle_timeout_ms: 60_000,
            request_timeout_ms: 30_000,
            max_body_bytes: 1024 * 1024,
            max_body_bytes_in_flight: 8 * 1024 * 1024,
            body_idle_timeout_ms: 10_000,
            drain_timeout_ms: 10_000,
        }
    }
}

impl Settings {
    /// The range of each number.
    pub const RANGES: &[Range] = &[
        Range::new("server.max_connections", 1, 1_000_000),
        Range::new("server.max_connections_per_source", 1, 1_000_000),
        Range::new("server.idle_timeout_ms", 1000, 3_600_000),
        Range::new("server.request_timeout_ms", 100, 600_000),
        Range::new("server.max_body_bytes", 64 * 1024, 1024 * 1024 * 1024),
        Range::new("server.max_body_bytes_in_flight", 256 * 1024, 64 * 1024 * 1024 * 1024),
        Range::new("server.body_idle_timeout_ms", 100, 600_000),
        Range::new("server.drain_timeout_ms", 0, 600_000),
    ];

    /// The values that contradict others.
    #[must_use]
    pub fn check(&self) -> Vec<InvalidValue> {
        let mut invalid = Vec::new();
        // A connection is idle while its request is handled.
        if self.idle_timeout_ms < self.request_timeout_ms {
            let (idle, request) = (self.idle_timeout_ms, self.request_timeout_ms);
            let message = format!("{idle} is less than server.request_timeout_ms ({request})");
            invalid.push(InvalidValue::new("server.idle_timeout_ms", message));
        }
        let networks = self.proxy_protocol.networks();
        if let Some(all) = networks.iter().find(|network| network.prefix_len() == 0) {
            let message =
                format!("`{all}` is everybody: any client could state any address; name the proxy's network");
            invalid.push(InvalidValue::new("server.proxy_protocol", message));
        }
        if networks.is_empty() && self.proxy_protocol != ProxyProtocol::Off {
            let message = "no network is named: name the proxy's, or write \"off\"".to_owned();
            invalid.push(InvalidValue::new("server.proxy_protocol", message));
        }
        let min = self.max_body_bytes.saturating_mul(SOURCES_AT_LEAST);
        if self.max_body_bytes_in_flight < min {
            let value = self.max_body_bytes_in_flight;
            let message =
                format!("{value} is less than {SOURCES_AT_LEAST} times server.max_body_bytes ({min})");
            invalid.push(InvalidValue::new("server.max_body_bytes_in_flight", message));
        }
        invalid
    }

    /// Sets the root once the configuration is read: the command line's, or the file's, or the file's directory.
    pub fn set_root(&mut self, argument: Option<&Path>, file: &Path) {
        if let Some(root) = argument {
            root.clone_into(&mut self.root);
        } else if self.root.as_os_str().is_empty() {
            let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
            folder.unwrap_or_else(|| Path::new(".")).clone_into(&mut self.root);
        }
    }

    /// A path of the configuration; relative paths start at the root.
    #[must_use]
    pub fn path(&self, path: &Path) -> PathBuf {
        self.root.join(path)
    }

    /// The files of the certificate.
    #[must_use]
    pub fn certificate(&self) -> Files {
        Files { certificate: self.path(&self.certificate), key: self.path(&self.key) }
    }

    /// What requests may take. Call it once for each server: each call makes a new budget.
    #[must_use]
    pub fn limits(&self) -> Limits {
        let time = Duration::from_millis(self.request_timeout_ms);
        let body = BodyLimits {
            max_bytes: self.max_body_bytes,
            total_time: time,
            idle_time: Duration::from_millis(self.body_idle_timeout_ms),
        };
        Limits { time, body, budget: BodyBudget::new(self.max_body_bytes_in_flight) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Hints};

    #[test]
    fn values_that_contradict_each_other_are_refused() {
        let check = |change: fn(&mut Settings), expect: &str| {
            let mut settings = Settings::default();
            change(&mut settings);
            let invalid: Vec<_> = settings.check().into_iter().map(|invalid| invalid.key).collect();
            assert_eq!(invalid.join(" "), expect);
        };
        check(|_| {}, "");
        check(|settings| settings.idle_timeout_ms = 29_999, "server.idle_timeout_ms");
        check(|settings| settings.max_body_bytes = 2 << 20, "");
        for all in ["0.0.0.0/0", "::/0"] {
            let networks: Vec<IpNet> = vec![all.parse().unwrap()];
            for proxy_protocol in
                [ProxyProtocol::From(networks.clone()), ProxyProtocol::OptionalFrom(networks)]
            {
                let settings = Settings { proxy_protocol, ..Settings::default() };
                assert_eq!(settings.check()[0].key, "server.proxy_protocol", "{all}");
            }
        }
        check(|settings| settings.proxy_protocol = ProxyProtocol::From(Vec::new()), "server.proxy_protocol");
        check(|settings| settings.max_body_bytes = (2 << 20) + 1, "server.max_body_bytes_in_flight");
    }

    #[test]
    fn proxy_protocol_is_a_word_or_a_table_and_says_so() {
        let read = |value: &str| {
            let text = format!("proxy_protocol = {value}");
            config::read::<Settings>(&text, "a.toml", Hints::NONE).map_err(|problem| problem.to_string())
        };
        assert_eq!(read("\"off\"").unwrap().proxy_protocol, ProxyProtocol::Off);
        let from = read("{ from = [\"10.0.0.0/8\"] }").unwrap();
        assert_eq!(from.proxy_protocol.header_from([10, 1, 2, 3].into()), Header::Required);
        let optional = read("{ optional_from = [\"10.0.0.0/8\"] }").unwrap();
        assert_eq!(optional.proxy_protocol.header_from([10, 1, 2, 3].into()), Header::Optional);
        assert_eq!(toml::from_str::<Settings>(&toml::to_string(&optional).unwrap()).unwrap(), optional);
        assert_eq!(toml::from_str::<Settings>(&toml::to_string(&from).unwrap()).unwrap(), from);
        let refused = |value: &str, expect: &str| {
            let error = read(value).unwrap_err();
            assert!(error.starts_with("a.toml:1:") && error.contains(expect), "{value}: {error}");
        };
        let words = "proxy_protocol: expected \"off\", { from = [\"10.0.0.0/8\"] } or { optional_from = [\"127.0.0.0/8\"] }, found ";
        refused("\"on\"", &format!("{words}string \"on\""));
        refused("\"from\"", words);
        refused("true", &format!("{words}boolean `true`"));
        refused("[\"10.0.0.0/8\"]", words);
        refused("{ from = [\"x\"] }", "\"x\" is not a network");
        refused("{ frm = [] }", "unknown field `frm`, did you mean `from`?");
        refused("{}", "add `from` or `optional_from`");
        refused("{ from = [], optional_from = [] }", "exclude each other");
    }

    #[test]
    fn the_root_is_the_argument_or_the_setting_or_the_directory_of_the_file() {
        let check = |root: &str, argument: Option<&str>, file: &str, expect: &str| {
            let mut settings = Settings { root: root.into(), ..Settings::default() };
            settings.set_root(argument.map(Path::new), Path::new(file));
            assert_eq!(settings.root, Path::new(expect), "{root} {argument:?} {file}");
        };
        check("", None, "/srv/mcias/mcias.toml", "/srv/mcias");
        check("", None, "mcias.toml", ".");
        check("/srv/a", None, "/srv/mcias/mcias.toml", "/srv/a");
        check("/srv/a", Some("/srv/b"), "/srv/mcias/mcias.toml", "/srv/b");
    }
}
