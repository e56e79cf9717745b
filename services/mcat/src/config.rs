//! The configuration file: its keys, their defaults and ranges.

use std::net::SocketAddr;

use mcdsl::auth;
use mcdsl::config::{InvalidValue, Range};
use mcdsl::log::Log;
use mcdsl::program::Configuration;
use mcdsl::server::Settings;
use serde::{Deserialize, Serialize};

/// The configuration file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Sockets, limits, and the directory at which paths start.
    pub server: Settings,
    /// The public URL.
    pub site: Site,
    /// MCIAS, and the system account by which it is asked.
    pub mcias: auth::Settings,
    /// The log on standard error.
    pub log: Log,
}

/// `[site]`: the public URL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Site {
    /// The URL for browsers: forms are accepted from it alone, and passkeys are asked for by it.
    pub public_url: String,
    /// The name of the site, on pages. Empty: the host of `public_url`.
    pub name: String,
}

impl Default for Config {
    fn default() -> Self {
        // Ports of its own, so that it runs beside MCIAS on one machine: docs/ports.md.
        let server = Settings {
            listen_addr: SocketAddr::from(([0, 0, 0, 0], 8444)),
            grpc_addr: SocketAddr::from(([0, 0, 0, 0], 9444)),
            metrics_addr: SocketAddr::from(([127, 0, 0, 1], 9093)),
            ..Settings::default()
        };
        Self { server, site: Site::default(), mcias: auth::Settings::default(), log: Log::default() }
    }
}

impl Default for Site {
    fn default() -> Self {
        Self { public_url: "https://localhost:8444".to_owned(), name: String::new() }
    }
}

impl Site {
    /// The site's name, as people read it.
    #[must_use]
    pub fn display_name(&self) -> &str {
        let host = self.public_url.trim_start_matches("https://").split(':').next().unwrap_or_default();
        if self.name.is_empty() { host } else { &self.name }
    }
}

impl Configuration for Config {
    const RANGES: &'static [&'static [Range]] = &[Settings::RANGES];
    const FOREIGN_VARIABLES: &'static [&'static str] = &["MCAT_SERVER", "MCAT_CA", "MCAT_TOKEN_FILE"];

    fn server(&self) -> &Settings {
        &self.server
    }

    fn server_mut(&mut self) -> &mut Settings {
        &mut self.server
    }

    fn log(&self) -> Log {
        self.log
    }

    fn public_url(&self) -> Option<&str> {
        Some(&self.site.public_url)
    }

    fn check(&self) -> Vec<InvalidValue> {
        let origin = mcdsl::web::check_origin(&self.site.public_url);
        let origin = origin.err().map(|message| InvalidValue::new("site.public_url", message));
        origin.into_iter().chain(self.mcias.check()).collect()
    }
}

#[cfg(test)]
mod tests {
    use mcdsl::config::{Variables, numbers_without_range};
    use mcdsl::program::LoadError;

    use super::*;

    fn load(text: &str) -> Result<Config, LoadError> {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let file = folder.path().join("mcat.toml");
        std::fs::write(&file, text).expect("it is writable");
        mcdsl::program::load("mcat", &file, None, &Variables::default())
    }

    #[test]
    fn the_example_contains_every_key_with_its_default() {
        let text = include_str!("../../../deploy/config/mcat.toml");
        let mut example = load(text).unwrap();
        example.server.root = std::path::PathBuf::new();
        assert_eq!(example, Config::default());
        let all = toml::Table::try_from(Config::default()).unwrap();
        for key in all.values().filter_map(toml::Value::as_table).flat_map(|table| table.keys()) {
            assert!(text.contains(&format!("{key} =")), "{key}");
        }
        assert_eq!(numbers_without_range(&Config::default(), Config::RANGES), Vec::<String>::new());
    }

    #[test]
    fn ports_are_its_own_where_the_file_does_not_name_them() {
        let config = load("[server]\ngrpc_addr = \"127.0.0.1:7000\"").unwrap();
        let ports = [config.server.listen_addr, config.server.grpc_addr, config.server.metrics_addr];
        assert_eq!(ports.map(|address| address.port()), [8444, 7000, 9093]);
    }

    #[test]
    fn an_invalid_value_is_refused_with_its_place() {
        for (text, expect) in [
            ("[site]\npublic_url = \"http://mcat.test\"", "site.public_url"),
            ("[site]\npublic_url = \"https://mcat.test/\"", "must be written `https://mcat.test`"),
            ("[mcias]\nserver_url = \"https://mcias.test\"", "mcias.server_url"),
            ("[mcias]\nserver_url = \"http://mcias.test:9443\"", "tokens may only travel encrypted"),
            ("[mcias]\ntoken = \"x\"", "token_file"),
        ] {
            let error = load(text).unwrap_err().to_string();
            assert!(error.contains(expect), "{text}: {error}");
        }
    }
}
