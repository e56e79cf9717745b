//! The configuration file: what it may say, its defaults, and what is wrong with it.

use std::path::{Path, PathBuf};

use mcdsl::config::{self, Environment, Hints, Problem, ReadError};
use mcdsl::log::Log;
use mcdsl::server::Settings;
use serde::{Deserialize, Serialize};
use webauthn_rs::prelude::Url;

use crate::domain::password::Params;
use crate::domain::throttle::Limits;

/// The configuration file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where it listens, and where everything is that it must not lose.
    pub server: Settings,
    /// What the outside knows it by.
    pub site: Site,
    /// How passwords are hashed.
    pub passwords: Passwords,
    /// What people and services get.
    pub tokens: Tokens,
    /// How guessing is slowed down.
    pub throttle: Limits,
    /// What it says about itself, on standard error.
    pub log: Log,
}

/// Bytes of a body that anybody may send: no token is needed, or it is not known yet.
pub(crate) const SMALL: usize = 64 * 1024;

/// `[site]`: what the outside knows it by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Site {
    /// Where browsers and services reach it: the issuer of tokens, the origin of passkeys and the beginning of links.
    /// Passkeys and tokens are bound to it: choose a name that stays.
    pub public_url: String,
    /// What authenticators show beside a code.
    pub name: String,
}

/// `[passwords]`: how passwords are hashed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Passwords {
    /// Argon2id's parameters. Where they rise, each password is hashed anew at its next login.
    pub argon2: Params,
    /// Hashes at the same time; 0: one per core. Times `argon2.memory_kib`, that is the memory logins take at most.
    pub concurrent: u16,
    /// Logins that wait for a hash; more are turned away.
    pub waiting: u16,
}

/// `[tokens]`: what people and services get.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tokens {
    /// How long a person's login is good for, in seconds.
    pub session_s: i64,
    /// How long ago it may be for changes of how one logs in, in seconds.
    pub fresh_s: i64,
    /// How long a service's token is good for where nobody says otherwise, in seconds.
    pub service_s: i64,
    /// How long before its end a service's token is warned about, in seconds.
    pub warn_s: i64,
    /// How long a one-time link is good for, in seconds.
    pub link_s: i64,
    /// How long a new signing key is published before it signs, in seconds: what others take to fetch it.
    pub key_overlap_s: i64,
}

impl Default for Site {
    fn default() -> Self {
        Self { public_url: "https://localhost:8443".to_owned(), name: "Metacircular".to_owned() }
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
            fresh_s: 15 * 60,
            service_s: 365 * DAY,
            warn_s: 14 * DAY,
            link_s: DAY,
            key_overlap_s: 3600,
        }
    }
}

const DAY: i64 = 24 * 3600;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Something in it is wrong.
    #[error(transparent)]
    Wrong(#[from] Problem),
    /// A value makes no sense.
    #[error("{file}: {field}: {what}")]
    Value {
        /// The file.
        file: String,
        /// The key.
        field: &'static str,
        /// What is wrong, and what it must be.
        what: String,
    },
}

impl Config {
    /// Reads a file, with the environment above it and `root` above that. Relative paths start at the root.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn load(
        file: &Path,
        root: Option<&Path>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let text = config::text(file)?;
        let name = file.display().to_string();
        let read: Self = config::read(&text, &name, HINTS)?;
        let environment = Environment { service: "mcias", optional: &[] };
        let mut config = environment.over(&read, variable)?;
        config.server.set_root(root, file);
        config.check(&name)?;
        Ok(config)
    }

    fn check(&self, file: &str) -> Result<(), ConfigError> {
        let wrong = |field, what: String| ConfigError::Value { file: file.to_owned(), field, what };
        self.server.check().map_err(|(key, what)| wrong(key, what))?;
        let url = &self.site.public_url;
        let read = Url::parse(url).ok().filter(|read| read.scheme() == "https" && read.domain().is_some());
        let origin = read.map(|read| read.origin().ascii_serialization());
        match origin {
            None => {
                let what = format!("`{url}` is not `https://` and a name, with a port if need be");
                return Err(wrong("site.public_url", what));
            }
            // Browsers say it so, and forms are taken from there alone.
            Some(origin) if origin != *url => {
                return Err(wrong("site.public_url", format!("`{url}` is to be written `{origin}`")));
            }
            Some(_) => {}
        }
        crate::domain::password::Hasher::new(self.passwords.argon2)
            .map_err(|error| wrong("passwords.argon2", error.to_string()))?;
        let Tokens { session_s, fresh_s, service_s, warn_s, link_s, key_overlap_s } = self.tokens;
        for (field, value, least) in [
            ("tokens.session_s", session_s, 60),
            ("tokens.fresh_s", fresh_s, 30),
            ("tokens.service_s", service_s, 60),
            ("tokens.warn_s", warn_s, 0),
            ("tokens.link_s", link_s, 60),
            ("tokens.key_overlap_s", key_overlap_s, 0),
        ] {
            if !(least..=LONGEST).contains(&value) {
                return Err(wrong(
                    field,
                    format!("{value} is out of range: it must be {least} to {LONGEST}"),
                ));
            }
        }
        Ok(())
    }

    /// The database.
    #[must_use]
    pub fn database(&self) -> PathBuf {
        self.server.path(Path::new("mcias.db"))
    }
}

/// What its keys are called needs no explanation.
const HINTS: Hints = Hints { example: |_key| "", within: |_tree, _path| None };

/// Ten years, in seconds: the most that anything here lasts.
pub const LONGEST: i64 = 10 * 365 * DAY;

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str, variable: impl Fn(&str) -> Option<String>) -> Result<Config, ConfigError> {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let file = folder.path().join("mcias.toml");
        std::fs::write(&file, text).expect("it is writable");
        Config::load(&file, None, variable)
    }

    #[test]
    fn the_example_is_the_defaults() {
        let text = include_str!("../../../deploy/config/mcias.toml");
        let mut example = load(text, |_| None).unwrap();
        assert!(example.server.root.is_absolute());
        example.server.root = PathBuf::new();
        assert_eq!(example, Config::default());
        // And it names each key that there is.
        let all = toml::Table::try_from(Config::default()).unwrap();
        let keys = all.values().filter_map(toml::Value::as_table).flat_map(|table| table.keys());
        for key in keys {
            assert!(text.contains(&format!("{key} =")) || text.contains(&format!(".{key}]")), "{key}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let check = |text: &str, expect: &str| {
            let error = load(text, |_| None).unwrap_err().to_string();
            assert!(error.contains(expect), "{text}: {error}");
        };
        check("[server]\nlisten_adr = \"x\"", "listen_addr");
        check("[server]\nlisten_addr = \"x\"", "mcias.toml:2:");
        check("[site]\npublic_url = \"http://mcias.test\"", "site.public_url");
        check("[site]\npublic_url = \"https://\"", "site.public_url");
        check("[site]\npublic_url = \"https://mcias.test/path\"", "is to be written `https://mcias.test`");
        check("[site]\npublic_url = \"https://mcias.test:443\"", "is to be written `https://mcias.test`");
        check(
            "[site]\npublic_url = \"https://Mcias.test:8443\"",
            "is to be written `https://mcias.test:8443`",
        );
        check("[site]\npublic_url = \"https://192.0.2.1:8443\"", "is not `https://` and a name");
        check(
            "[server]\nidle_timeout_ms = 5000",
            "server.idle_timeout_ms: 5000 is too little: 30000 at least",
        );
        check("[server]\nmax_connections = 0", "server.max_connections: 0 is too little: 1 at least");
        check("[passwords.argon2]\npasses = 0", "passwords.argon2: passes: 0 is not between 1 and 10");
        check("[tokens]\nsession_s = 1", "tokens.session_s: 1 is out of range");
        check("[tokens]\nlink_s = 999999999999", "tokens.link_s");
    }

    #[test]
    fn the_environment_is_above_the_file() {
        let variable = |name: &str| match name {
            "PORT" => Some("1234".to_owned()),
            "MCIAS_TOKENS_SESSION_S" => Some("600".to_owned()),
            _ => None,
        };
        let config =
            load("[tokens]\nsession_s = 700\n[server]\nlisten_addr = \"127.0.0.1:1\"", variable).unwrap();
        assert_eq!(
            (config.tokens.session_s, config.server.listen_addr.to_string()),
            (600, "0.0.0.0:1234".to_owned())
        );
    }
}
