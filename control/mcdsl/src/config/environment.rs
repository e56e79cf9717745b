//! Environment variables that override the configuration file.
//!
//! Each key has a variable: the service's name and the key's path in capitals, joined by `_`: `MCIAS_SERVER_LISTEN_ADDR` for
//! `server.listen_addr` of `mcias`. The keys are those that the configuration has when it is serialised, so that no list can be
//! incomplete; keys without a value are named in [`Environment::optional`]. A variable with the service's prefix that belongs to
//! no key is an error: nothing is set without an effect.

use std::collections::BTreeMap;

use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::{Problem, meant};

/// Environment variables by name.
pub type Variables = BTreeMap<String, String>;

/// Which environment variables a service reads.
#[derive(Clone, Copy, Debug)]
pub struct Environment<'a> {
    /// The service's name in lower case: `mcias`.
    pub service: &'a str,
    /// Paths of keys that may have no value, and are strings if they have one.
    pub optional: &'a [&'a str],
    /// Variables with the service's prefix that other programs read: those of its command line.
    pub foreign: &'a [&'a str],
}

/// The MCP agent says on which port of a container to listen: on all addresses, since the port is forwarded.
const PORTS: [(&str, &str); 3] =
    [("PORT", "server.listen_addr"), ("PORT_REST", "server.listen_addr"), ("PORT_GRPC", "server.grpc_addr")];

impl Environment<'_> {
    /// The variables of this process.
    #[must_use]
    pub fn of_process() -> Variables {
        let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
        std::env::vars_os().map(|(name, value)| (text(name), text(value))).collect()
    }

    /// The variable that overrides a key.
    #[must_use]
    pub fn variable(&self, key: &str) -> String {
        format!("{}_{key}", self.service).replace(['.', '-'], "_").to_uppercase()
    }

    /// The configuration with the variables applied.
    ///
    /// # Errors
    /// A variable's value does not fit its key, or the variable belongs to no key; the problem's file is `environment`.
    ///
    /// # Panics
    /// The configuration cannot be written as TOML, or not be read again from what was written.
    pub fn apply<T: Serialize + DeserializeOwned>(
        &self,
        config: &T,
        variables: &Variables,
    ) -> Result<T, Problem> {
        let mut tree = Table::try_from(config).expect("a configuration can be written as TOML");
        let mut keys = Vec::new();
        paths(&tree, "", &mut keys);
        keys.extend(self.optional.iter().map(|path| (*path).to_owned()));
        let known: BTreeMap<String, String> =
            keys.into_iter().map(|path| (self.variable(&path), path)).collect();
        self.refuse_unknown(&known, variables)?;
        let mut overrides = Vec::new();
        for (name, path) in known {
            if let Some(text) = variables.get(&name) {
                overrides.push((name, path, text.clone()));
            }
        }
        for (name, path) in PORTS {
            if let Some(text) = variables.get(name) {
                let port = text.parse::<u16>().ok().filter(|port| *port != 0);
                let port = port.ok_or_else(|| {
                    problem(name, format!("`{text}` is not a port: it must be a number from 1 to 65535"))
                })?;
                overrides.push((name.to_owned(), path.to_owned(), format!("0.0.0.0:{port}")));
            }
        }
        let mut read = tree.clone().try_into().expect("what was written can be read again");
        for (name, path, text) in overrides {
            set(&mut tree, &path, &text, &name)?;
            // One by one, so that the invalid one can be named. Ranges are checked later, as the file's values are.
            read = tree.clone().try_into().map_err(|error: toml::de::Error| {
                problem(&name, format!("`{text}` is invalid: {}", error.message()))
            })?;
        }
        Ok(read)
    }

    /// A misspelt variable would have no effect, and nobody would notice.
    fn refuse_unknown(&self, known: &BTreeMap<String, String>, variables: &Variables) -> Result<(), Problem> {
        let prefix = self.variable("");
        let is_unknown = |name: &&String| {
            name.starts_with(&prefix) && !known.contains_key(*name) && !self.foreign.contains(&name.as_str())
        };
        let Some(name) = variables.keys().find(is_unknown) else { return Ok(()) };
        let names: Vec<&str> = known.keys().map(String::as_str).collect();
        Err(problem(name, format!("no configuration key has this variable{}", meant(name, &names))))
    }
}

fn problem(variable: &str, message: String) -> Problem {
    Problem { file: "environment".to_owned(), line: 0, column: 0, key: variable.to_owned(), message }
}

/// Paths of all keys that have a value which is no table.
fn paths(table: &Table, before: &str, found: &mut Vec<String>) {
    for (key, value) in table {
        let path = super::join(before, key);
        match value {
            Value::Table(inner) => paths(inner, &path, found),
            _ => found.push(path),
        }
    }
}

/// Puts a variable's text at `path`, as the type of value that is there.
fn set(tree: &mut Table, path: &str, text: &str, name: &str) -> Result<(), Problem> {
    let (tables, key) = path.rsplit_once('.').unwrap_or(("", path));
    let mut table = tree;
    for part in tables.split('.').filter(|part| !part.is_empty()) {
        let inner = table.entry(part).or_insert_with(|| Table::new().into());
        let Value::Table(inner) = inner else { return Ok(()) };
        table = inner;
    }
    let invalid = |expected: &str| problem(name, format!("`{text}` is invalid: expected {expected}"));
    let value = match table.get(key) {
        None | Some(Value::String(_)) => text.into(),
        Some(Value::Integer(_)) => {
            Value::Integer(text.parse().map_err(|_no_number| invalid("a whole number"))?)
        }
        Some(Value::Float(_)) => Value::Float(text.parse().map_err(|_no_number| invalid("a number"))?),
        Some(Value::Boolean(_)) => Value::Boolean(text.parse().map_err(|_neither| invalid("true or false"))?),
        Some(_) => {
            let line = format!("value = {text}");
            let mut read: Table =
                toml::from_str(&line).map_err(|_no_toml| invalid("a value as in the file"))?;
            read.remove("value").ok_or_else(|| invalid("a value as in the file"))?
        }
    };
    table.insert(key.to_owned(), value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Config {
        server: Server,
        names: Vec<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        token_file: Option<String>,
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Server {
        listen_addr: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        grpc_addr: Option<String>,
        workers: u16,
        strict: bool,
    }

    fn config() -> Config {
        let server = Server { listen_addr: "[::]:1".into(), grpc_addr: None, workers: 2, strict: false };
        Config { server, names: vec!["a".into()], token_file: None }
    }

    fn apply(variables: &[(&str, &str)]) -> Result<Config, String> {
        let optional = &["token_file", "server.grpc_addr"];
        let environment = Environment { service: "mcias", optional, foreign: &["MCIAS_CA"] };
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        environment.apply(&config(), &variables.collect()).map_err(|problem| problem.to_string())
    }

    #[test]
    fn each_key_has_its_variable_and_ports_come_first() {
        assert_eq!(apply(&[]), Ok(config()));
        assert_eq!(apply(&[("OTHER_SERVER_WORKERS", "3"), ("SERVER_WORKERS", "3")]), Ok(config()));
        let found = apply(&[
            ("MCIAS_SERVER_WORKERS", "3"),
            ("MCIAS_SERVER_STRICT", "true"),
            ("MCIAS_SERVER_LISTEN_ADDR", "192.0.2.1:2"),
            ("MCIAS_NAMES", "[\"b\", \"c\"]"),
            ("MCIAS_TOKEN_FILE", "/run/token"),
        ])
        .unwrap();
        assert_eq!((found.server.workers, found.server.strict), (3, true));
        assert_eq!(found.server.listen_addr, "192.0.2.1:2");
        assert_eq!(
            (found.names, found.token_file),
            (vec!["b".into(), "c".into()], Some("/run/token".into()))
        );
        let found =
            apply(&[("PORT", "10001"), ("PORT_GRPC", "10002"), ("MCIAS_SERVER_LISTEN_ADDR", "x")]).unwrap();
        assert_eq!(found.server.listen_addr, "0.0.0.0:10001");
        assert_eq!(found.server.grpc_addr.as_deref(), Some("0.0.0.0:10002"));
        assert_eq!(apply(&[("PORT_REST", "10003")]).unwrap().server.listen_addr, "0.0.0.0:10003");
    }

    #[test]
    fn a_misspelt_variable_is_refused_with_the_nearest_known() {
        let refused = |name: &str, expect: &str| {
            let error = apply(&[(name, "3")]).unwrap_err();
            assert_eq!(error, format!("environment: {name}: no configuration key has this variable{expect}"));
        };
        refused("MCIAS_SERVER_WORKER", ", did you mean `MCIAS_SERVER_WORKERS`?");
        refused("MCIAS_SERVR_STRICT", ", did you mean `MCIAS_SERVER_STRICT`?");
        let error = apply(&[("MCIAS_COMPLETELY_DIFFERENT_NAME", "3")]).unwrap_err();
        assert!(error.contains("expected one of MCIAS_NAMES, MCIAS_SERVER_GRPC_ADDR"), "{error}");
        // Those of its command line, and of other programs.
        assert_eq!(apply(&[("MCIAS_CA", "/ca.pem"), ("MCIASX_SERVER", "x")]), Ok(config()));
    }

    #[test]
    fn an_invalid_value_is_refused_with_its_variable() {
        let refused = |name: &str, text: &str, expect: &str| {
            assert_eq!(apply(&[(name, text)]), Err(format!("environment: {name}: {expect}")));
        };
        refused("MCIAS_SERVER_WORKERS", "two", "`two` is invalid: expected a whole number");
        refused("MCIAS_SERVER_STRICT", "yes", "`yes` is invalid: expected true or false");
        refused("MCIAS_NAMES", "b, c", "`b, c` is invalid: expected a value as in the file");
        refused("PORT", "0", "`0` is not a port: it must be a number from 1 to 65535");
        refused("PORT", "http", "`http` is not a port: it must be a number from 1 to 65535");
        let error = apply(&[("MCIAS_SERVER_WORKERS", "70000")]).unwrap_err();
        assert!(error.starts_with("environment: MCIAS_SERVER_WORKERS: `70000` is invalid: "), "{error}");
    }
}
