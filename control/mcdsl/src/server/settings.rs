//! `[server]`: what every service is told of its sockets.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::tls::Files;

/// `[server]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Directory of everything that must not be lost: `/srv/<service>`. Relative paths start here. Absent (empty): where the
    /// configuration file is.
    pub root: PathBuf,
    /// REST and pages, over TLS. `$PORT` is above it.
    pub listen_addr: SocketAddr,
    /// gRPC, over TLS. `$PORT_GRPC` is above it.
    pub grpc_addr: SocketAddr,
    /// `/metrics`, `/healthz` and `/readyz` in plain HTTP: for this machine alone.
    pub metrics_addr: SocketAddr,
    /// The certificate's chain, PEM, the leaf first. Read again when it changes, as the key is.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// Who may say, in a PROXY header, where a connection comes from.
    pub proxy_protocol: ProxyProtocol,
    /// Connections at the same time, at each address.
    pub max_connections: u32,
    /// Time in which nothing moves over a connection, in milliseconds: then it takes no further request, and is cut off
    /// once it has lasted twice as long. The first request must come within it, and the head of each of HTTP/1.1 be whole. Not
    /// less than `request_timeout_ms`.
    pub idle_timeout_ms: u64,
    /// Time until an answer begins, in milliseconds.
    pub request_timeout_ms: u64,
    /// The largest body of a request, in bytes.
    pub max_body_bytes: usize,
    /// Time that requests get to end after SIGTERM, in milliseconds.
    pub drain_timeout_ms: u64,
}

/// Whether connections begin with a PROXY header.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProxyProtocol {
    /// None does.
    #[default]
    Off,
    /// Those from these networks do, always; others never.
    From(Vec<IpNet>),
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
            idle_timeout_ms: 60_000,
            request_timeout_ms: 30_000,
            max_body_bytes: 1024 * 1024,
            drain_timeout_ms: 10_000,
        }
    }
}

impl Settings {
    /// Whether the numbers make sense. The key of the first that does not, and what it must be.
    ///
    /// # Errors
    /// One does not.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        let body = u64::try_from(self.max_body_bytes).unwrap_or(u64::MAX);
        let least = [
            ("server.max_connections", u64::from(self.max_connections), 1),
            // Nothing moves while a request is answered.
            ("server.idle_timeout_ms", self.idle_timeout_ms, self.request_timeout_ms.max(1000)),
            ("server.request_timeout_ms", self.request_timeout_ms, 100),
            ("server.max_body_bytes", body, 64 * 1024),
        ];
        let wrong = least.into_iter().find(|(_, value, least)| value < least);
        wrong.map_or(Ok(()), |(key, value, least)| {
            Err((key, format!("{value} is too little: {least} at least")))
        })
    }

    /// Says where the root is, once the configuration is read: what the command line says, or the file, or where the file is.
    pub fn set_root(&mut self, told: Option<&Path>, file: &Path) {
        if let Some(root) = told {
            root.clone_into(&mut self.root);
        } else if self.root.as_os_str().is_empty() {
            let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
            folder.unwrap_or_else(|| Path::new(".")).clone_into(&mut self.root);
        }
    }

    /// A path of the configuration: from the root, where it is relative.
    #[must_use]
    pub fn path(&self, path: &Path) -> PathBuf {
        self.root.join(path)
    }

    /// Where the certificate is.
    #[must_use]
    pub fn certificate(&self) -> Files {
        Files { certificate: self.path(&self.certificate), key: self.path(&self.key) }
    }

    /// What requests may take.
    #[must_use]
    pub const fn limits(&self) -> crate::http::Limits {
        crate::http::Limits {
            time: std::time::Duration::from_millis(self.request_timeout_ms),
            body: self.max_body_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_what_is_told_or_where_the_file_is() {
        let check = |root: &str, told: Option<&str>, file: &str, expect: &str| {
            let mut settings = Settings { root: root.into(), ..Settings::default() };
            settings.set_root(told.map(Path::new), Path::new(file));
            assert_eq!(settings.root, Path::new(expect), "{root} {told:?} {file}");
        };
        check("", None, "/srv/mcias/mcias.toml", "/srv/mcias");
        check("", None, "mcias.toml", ".");
        check("/srv/a", None, "/srv/mcias/mcias.toml", "/srv/a");
        check("/srv/a", Some("/srv/b"), "/srv/mcias/mcias.toml", "/srv/b");
    }
}
