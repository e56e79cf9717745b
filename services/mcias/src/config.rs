//! The configuration file: its keys, their defaults and ranges.

use std::path::{Path, PathBuf};

use mcdsl::config::{InvalidValue, Range};
use mcdsl::log::Log;
use mcdsl::program::Configuration;
use mcdsl::server::Settings;
use serde::{Deserialize, Serialize};

use crate::domain::password::Params;
use crate::domain::throttle::Limits;

/// The configuration file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Sockets, limits, and the directory of all data.
    pub server: Settings,
    /// The public URL and name.
    pub site: Site,
    /// Password hashing.
    pub passwords: Passwords,
    /// Lifetimes of sessions, tokens, links and keys.
    pub tokens: Tokens,
    /// Delays after failed logins.
    pub throttle: Limits,
    /// The log on standard error.
    pub log: Log,
}

/// `[site]`: the public URL and name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Site {
    /// The URL for browsers and services: the issuer of tokens, the origin of passkeys and the beginning of links. Passkeys and
    /// tokens are bound to it: choose a name that stays.
    pub public_url: String,
    /// Earlier values of `public_url`, whose tokens are accepted until they expire. Passkeys that were made at another host name stay useless:
    /// browsers bind them to it.
    pub former_public_urls: Vec<String>,
    /// The name of the site, on pages and beside codes in authenticator apps. Empty: the host of `public_url`.
    pub name: String,
    /// The domain that passkeys are bound to; empty: the host of `public_url`. With a domain above it, pages of other services may ask for
    /// passkeys too.
    pub passkey_domain: String,
    /// Origins of those pages: `https://mcat.svc.example.org`.
    pub passkey_origins: Vec<String>,
}

/// `[passwords]`: password hashing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Passwords {
    /// Parameters of Argon2id. After a rise, each password is hashed again at its next login.
    pub argon2: Params,
    /// Concurrent hashes; 0: one per core. Times `argon2.memory_kib`, that is the memory that logins use at most.
    pub concurrent: u16,
    /// Logins that wait for a hash; more are rejected.
    pub waiting: u16,
}

/// `[tokens]`: lifetimes of sessions, tokens, links and keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tokens {
    /// Lifetime of a person's session, in seconds.
    pub session_s: i64,
    /// Maximum age of a login for sensitive changes, in seconds.
    pub reauth_window_s: i64,
    /// Default lifetime of a service's token, in seconds.
    pub service_s: i64,
    /// Time before a service's token expires at which warnings begin, in seconds.
    pub warn_s: i64,
    /// Lifetime of a one-time link, in seconds.
    pub link_s: i64,
    /// Time for which a new signing key is published before it signs, in seconds: long enough for others to fetch it.
    pub key_overlap_s: i64,
}

impl Default for Site {
    fn default() -> Self {
        Self {
            public_url: "https://localhost:8443".to_owned(),
            former_public_urls: Vec::new(),
            passkey_domain: String::new(),
            passkey_origins: Vec::new(),
            name: String::new(),
        }
    }
}

impl Site {
    /// The site's name, as people read it.
    #[must_use]
    pub fn display_name(&self) -> &str {
        if self.name.is_empty() { host(&self.public_url) } else { &self.name }
    }
}

impl Default for Passwords {
    fn default() -> Self {
        Self { argon2: Params::default(), concurrent: 0, waiting: 64 }
    }
}

impl Default for Tokens {
    fn default() -> Self {
        Self {
            session_s: 12 * 3600,
            reauth_window_s: 15 * 60,
            service_s: 365 * DAY,
            warn_s: 14 * DAY,
            link_s: DAY,
            key_overlap_s: 3600,
        }
    }
}

const DAY: i64 = 24 * 3600;

/// Ten years, in seconds: the longest time that a key of the configuration allows.
pub const LONGEST: i64 = 10 * 365 * DAY;

impl Passwords {
    const RANGES: &[Range] = &[
        Range::new("passwords.argon2.memory_kib", 8, 1024 * 1024),
        Range::new("passwords.argon2.passes", 1, 10),
        Range::new("passwords.argon2.lanes", 1, 16),
        Range::new("passwords.concurrent", 0, 1024),
        Range::new("passwords.waiting", 0, 65_535),
    ];
}

impl Tokens {
    const RANGES: &[Range] = &[
        Range::new("tokens.session_s", 60, LONGEST),
        Range::new("tokens.reauth_window_s", 30, LONGEST),
        Range::new("tokens.service_s", 60, LONGEST),
        Range::new("tokens.warn_s", 0, LONGEST),
        Range::new("tokens.link_s", 60, LONGEST),
        Range::new("tokens.key_overlap_s", 0, LONGEST),
    ];
}

/// `[throttle]`. No value turns it off.
const THROTTLE_RANGES: &[Range] = &[
    Range::new("throttle.pair_free", 0, 100),
    Range::new("throttle.pair_max_delay_s", 60, DAY),
    Range::new("throttle.source_free", 0, 10_000),
    Range::new("throttle.source_max_delay_s", 10, DAY),
    Range::new("throttle.account_free", 0, 1000),
    Range::new("throttle.account_max_delay_s", 1, DAY),
    Range::new("throttle.service_max_per_hour", 10, 1_000_000),
    Range::new("throttle.code_free", 0, 100),
    Range::new("throttle.code_max_delay_s", 60, DAY),
    Range::new("throttle.failure_ttl_s", 60, 30 * DAY),
    Range::new("throttle.entries", 1000, 10_000_000),
];

impl Configuration for Config {
    const RANGES: &'static [&'static [Range]] =
        &[Settings::RANGES, Passwords::RANGES, Tokens::RANGES, THROTTLE_RANGES];
    const FOREIGN_VARIABLES: &'static [&'static str] = &["MCIAS_SERVER", "MCIAS_CA", "MCIAS_TOKEN_FILE"];

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
        let mut invalid = self.site.check();
        let Params { memory_kib, lanes, .. } = self.passwords.argon2;
        if memory_kib < lanes.saturating_mul(8) {
            let message = format!("{memory_kib} is less than 8 for each lane ({lanes})");
            invalid.push(InvalidValue::new("passwords.argon2.memory_kib", message));
        }
        invalid
    }
}

/// That a URL is an origin.
fn check_origin(key: &'static str, url: &str) -> Result<(), InvalidValue> {
    mcdsl::web::check_origin(url).map_err(|message| InvalidValue::new(key, message))
}

impl Site {
    fn check(&self) -> Vec<InvalidValue> {
        let domain = self.passkey_domain();
        let mut found = vec![check_origin("site.public_url", &self.public_url)];
        found.extend(self.former_public_urls.iter().map(|url| check_origin("site.former_public_urls", url)));
        if !is_below(&self.public_url, domain) {
            let message = format!("`{domain}` must be the host of site.public_url, or a domain above it");
            found.push(Err(InvalidValue::new("site.passkey_domain", message)));
        }
        for origin in &self.passkey_origins {
            found.push(check_origin("site.passkey_origins", origin));
            if !is_below(origin, domain) {
                let message = format!(
                    "`{origin}` is not below `{domain}` (site.passkey_domain): browsers would refuse"
                );
                found.push(Err(InvalidValue::new("site.passkey_origins", message)));
            }
        }
        found.into_iter().filter_map(Result::err).collect()
    }

    /// Whether tokens of this issuer are accepted.
    #[must_use]
    pub fn accepts(&self, issuer: &str) -> bool {
        self.public_url == issuer || self.former_public_urls.iter().any(|url| url == issuer)
    }

    /// The domain that passkeys are bound to.
    #[must_use]
    pub fn passkey_domain(&self) -> &str {
        match self.passkey_domain.as_str() {
            "" => host(&self.public_url),
            domain => domain,
        }
    }
}

/// The host of an origin.
fn host(origin: &str) -> &str {
    let host = origin.strip_prefix("https://").unwrap_or(origin);
    host.split(':').next().unwrap_or_default()
}

/// Whether an origin's host is a domain, or below it.
fn is_below(origin: &str, domain: &str) -> bool {
    let host = host(origin);
    host == domain || host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.') && !domain.is_empty())
}

impl Config {
    /// The database.
    #[must_use]
    pub fn database(&self) -> PathBuf {
        self.server.path(Path::new("mcias.db"))
    }
}

#[cfg(test)]
mod tests {
    use mcdsl::config::{Variables, numbers_without_range};
    use mcdsl::program::LoadError;

    use super::*;

    fn load(text: &str, variables: &[(&str, &str)]) -> Result<Config, LoadError> {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let file = folder.path().join("mcias.toml");
        std::fs::write(&file, text).expect("it is writable");
        let variables: Variables =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        mcdsl::program::load("mcias", &file, None, &variables)
    }

    #[test]
    fn the_example_contains_every_key_with_its_default() {
        let text = include_str!("../../../deploy/config/mcias.toml");
        let mut example = load(text, &[]).unwrap();
        assert!(example.server.root.is_absolute());
        example.server.root = PathBuf::new();
        assert_eq!(example, Config::default());
        let all = toml::Table::try_from(Config::default()).unwrap();
        let keys = all.values().filter_map(toml::Value::as_table).flat_map(|table| table.keys());
        for key in keys {
            assert!(text.contains(&format!("{key} =")) || text.contains(&format!(".{key}]")), "{key}");
        }
    }

    #[test]
    fn every_number_has_a_range_and_the_defaults_are_in_them() {
        assert_eq!(numbers_without_range(&Config::default(), Config::RANGES), Vec::<String>::new());
        assert_eq!(mcdsl::config::check_ranges(&Config::default(), Config::RANGES), []);
        // Each range is of a key that there is.
        let tree = toml::Table::try_from(Config::default()).unwrap();
        for range in Config::RANGES.iter().copied().flatten() {
            let mut value = Some(&toml::Value::Table(tree.clone()));
            for part in range.key.split('.') {
                value = value.and_then(|value| value.get(part));
            }
            assert!(value.is_some_and(toml::Value::is_integer), "{}", range.key);
        }
    }

    #[test]
    fn every_number_beyond_its_range_is_refused() {
        for range in Config::RANGES.iter().copied().flatten() {
            let variable = format!("MCIAS_{}", range.key.replace('.', "_").to_uppercase());
            let below = range.min.checked_sub(1).filter(|below| *below >= 0);
            for value in below.into_iter().chain([range.max + 1]) {
                let error = load("", &[(&variable, &value.to_string())]).unwrap_err().to_string();
                assert!(error.contains(&variable), "{variable}={value}: {error}");
            }
        }
    }

    #[test]
    fn no_value_turns_throttling_off() {
        let off = THROTTLE_RANGES.iter().filter(|range| !range.key.ends_with("_free") && range.min <= 0);
        assert_eq!(off.map(|range| range.key).collect::<Vec<_>>(), Vec::<&str>::new());
        let lax = THROTTLE_RANGES.iter().filter(|range| range.key.ends_with("_free") && range.max > 10_000);
        assert_eq!(lax.map(|range| range.key).collect::<Vec<_>>(), Vec::<&str>::new());
        let error = load("[throttle]\nfailure_ttl_s = 0", &[]).unwrap_err().to_string();
        assert!(error.contains("throttle.failure_ttl_s: 0 is out of range; expected 60 to"), "{error}");
    }

    #[test]
    fn a_site_without_a_name_is_called_like_its_host() {
        let site = |name: &str| Site {
            public_url: "https://mcias.example.net:8443".to_owned(),
            name: name.to_owned(),
            ..Site::default()
        };
        assert_eq!(site("").display_name(), "mcias.example.net");
        assert_eq!(site("Example").display_name(), "Example");
    }

    #[test]
    fn an_invalid_value_is_refused_with_its_place() {
        let check = |text: &str, expect: &str| {
            let error = load(text, &[]).unwrap_err().to_string();
            assert!(error.contains(expect), "{text}: {error}");
        };
        check("[server]\nlisten_adr = \"x\"", "listen_addr");
        check("[server]\nlisten_addr = \"x\"", "mcias.toml:2:");
        check("[site]\npublic_url = \"http://mcias.test\"", "site.public_url");
        check("[site]\npublic_url = \"https://\"", "site.public_url");
        check("[site]\npublic_url = \"https://mcias.test/path\"", "must be written `https://mcias.test`");
        check("[site]\npublic_url = \"https://mcias.test:443\"", "must be written `https://mcias.test`");
        check(
            "[site]\npublic_url = \"https://Mcias.test:8443\"",
            "must be written `https://mcias.test:8443`",
        );
        check("[site]\npublic_url = \"https://192.0.2.1:8443\"", "must be `https://` and a host name");
        check(
            "[server]\nidle_timeout_ms = 5000",
            "mcias.toml:2:19: server.idle_timeout_ms: 5000 is less than server.request_timeout_ms (30000)",
        );
        check(
            "[server]\nmax_connections = 0",
            "mcias.toml:2:19: server.max_connections: 0 is out of range; expected 1 to 1000000",
        );
        check(
            "[passwords.argon2]\npasses = 0",
            "passwords.argon2.passes: 0 is out of range; expected 1 to 10",
        );
        check("[passwords.argon2]\nmemory_kib = 16\nlanes = 4", "16 is less than 8 for each lane (4)");
        check(
            "[site]\npublic_url = \"https://mcias.test\"\npasskey_domain = \"cias.test\"",
            "a domain above it",
        );
        check(
            "[site]\npublic_url = \"https://mcias.test\"\npasskey_domain = \"other\"",
            "site.passkey_domain",
        );
        check("[site]\npasskey_origins = [\"https://mcat.test\"]", "is not below `localhost`");
        check("[site]\nformer_public_urls = [\"http://a\"]", "site.former_public_urls");
        check("[tokens]\nsession_s = 1", "tokens.session_s: 1 is out of range");
        check("[tokens]\nlink_s = 999999999999", "tokens.link_s");
    }

    #[test]
    fn variables_override_the_file_and_are_named_when_they_are_invalid() {
        let text = "[tokens]\nsession_s = 700\n[server]\nlisten_addr = \"127.0.0.1:1\"";
        let config = load(text, &[("PORT", "1234"), ("MCIAS_TOKENS_SESSION_S", "600")]).unwrap();
        assert_eq!(
            (config.tokens.session_s, config.server.listen_addr.to_string()),
            (600, "0.0.0.0:1234".to_owned())
        );
        let check = |name: &str, expect: &str| {
            let error = load(text, &[(name, "1")]).unwrap_err().to_string();
            assert!(error.contains(expect), "{error}");
        };
        check("MCIAS_TOKENS_SESSION_S", "environment: MCIAS_TOKENS_SESSION_S: 1 is out of range");
        check(
            "MCIAS_TOKENS_SESION_S",
            "MCIAS_TOKENS_SESION_S: no configuration key has this variable, did you",
        );
    }
}
