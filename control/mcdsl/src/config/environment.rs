//! Variables of the environment above what the file says.
//!
//! Each key has a variable: the service's name, the key's path in capitals, joined by `_`: `MCIAS_SERVER_LISTEN_ADDR` for
//! `server.listen_addr` of `mcias`. Which keys there are is what the configuration itself has when it is written out, so
//! that no list can be forgotten; those without a value are named beside it.

use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::Problem;

/// The environment of a service.
#[derive(Clone, Copy, Debug)]
pub struct Environment<'a> {
    /// The service's name, in small letters: `mcias`.
    pub service: &'a str,
    /// Paths of keys that may have no value, and are texts if they have one.
    pub optional: &'a [&'a str],
}

/// Whoever starts a service in a container says so where it is to listen: on all addresses, since the port is forwarded.
const PORTS: [(&str, &str); 2] = [("PORT", "server.listen_addr"), ("PORT_GRPC", "server.grpc_addr")];

impl Environment<'_> {
    /// The configuration with what `variable` says above it.
    ///
    /// # Errors
    /// A variable's value is none for its key; the problem's file is `environment`.
    ///
    /// # Panics
    /// The configuration cannot be written as TOML, or not be read again from what was written.
    pub fn over<T: Serialize + DeserializeOwned>(
        &self,
        config: &T,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<T, Problem> {
        let mut tree = Table::try_from(config).expect("a configuration can be written as TOML");
        let mut keys = Vec::new();
        paths(&tree, "", &mut keys);
        keys.extend(self.optional.iter().map(|path| (*path).to_owned()));
        let named = keys.into_iter().map(|path| {
            let name = format!("{}_{path}", self.service).replace(['.', '-'], "_").to_uppercase();
            (name, path)
        });
        let mut above = Vec::new();
        for (name, path) in named {
            if let Some(text) = variable(&name) {
                above.push((name, path, text));
            }
        }
        for (name, path) in PORTS {
            if let Some(text) = variable(name) {
                let port = text.parse::<u16>().map_err(|_no_port| {
                    problem(name, format!("`{text}` is no port: it must be a number from 1 to 65535"))
                })?;
                above.push((name.to_owned(), path.to_owned(), format!("0.0.0.0:{port}")));
            }
        }
        let mut read = tree.clone().try_into().expect("what was written can be read again");
        for (name, path, text) in above {
            set(&mut tree, &path, &text, &name)?;
            // One by one, so that the one that is wrong can be named. What a value means is judged later, as the file's is.
            read = tree.clone().try_into().map_err(|error: toml::de::Error| {
                problem(&name, format!("`{text}` makes no sense: {}", error.message()))
            })?;
        }
        Ok(read)
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

/// Puts a variable's text where `path` leads, as the kind of value that is there.
fn set(tree: &mut Table, path: &str, text: &str, name: &str) -> Result<(), Problem> {
    let (tables, key) = path.rsplit_once('.').unwrap_or(("", path));
    let mut table = tree;
    for part in tables.split('.').filter(|part| !part.is_empty()) {
        let inner = table.entry(part).or_insert_with(|| Table::new().into());
        let Value::Table(inner) = inner else { return Ok(()) };
        table = inner;
    }
    let wrong = |expected: &str| problem(name, format!("`{text}` makes no sense: expected {expected}"));
    let value = match table.get(key) {
        None | Some(Value::String(_)) => text.into(),
        Some(Value::Integer(_)) => {
            Value::Integer(text.parse().map_err(|_no_number| wrong("a whole number"))?)
        }
        Some(Value::Float(_)) => Value::Float(text.parse().map_err(|_no_number| wrong("a number"))?),
        Some(Value::Boolean(_)) => Value::Boolean(text.parse().map_err(|_neither| wrong("true or false"))?),
        Some(_) => {
            let line = format!("value = {text}");
            let mut read: Table =
                toml::from_str(&line).map_err(|_no_toml| wrong("a value as in the file"))?;
            read.remove("value").ok_or_else(|| wrong("a value as in the file"))?
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

    fn over(variables: &[(&str, &str)]) -> Result<Config, String> {
        let environment = Environment { service: "mcias", optional: &["token_file", "server.grpc_addr"] };
        let find =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, v)| (*v).to_owned());
        environment.over(&config(), find).map_err(|problem| problem.to_string())
    }

    #[test]
    fn each_key_has_its_variable_and_ports_are_above_all() {
        assert_eq!(over(&[]), Ok(config()));
        assert_eq!(over(&[("OTHER_SERVER_WORKERS", "3"), ("SERVER_WORKERS", "3")]), Ok(config()));
        let found = over(&[
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
            over(&[("PORT", "10001"), ("PORT_GRPC", "10002"), ("MCIAS_SERVER_LISTEN_ADDR", "x")]).unwrap();
        assert_eq!(found.server.listen_addr, "0.0.0.0:10001");
        assert_eq!(found.server.grpc_addr.as_deref(), Some("0.0.0.0:10002"));
    }

    #[test]
    fn a_variable_that_makes_no_sense_is_named() {
        let refused = |name: &str, text: &str, expect: &str| {
            assert_eq!(over(&[(name, text)]), Err(format!("environment: {name}: {expect}")));
        };
        refused("MCIAS_SERVER_WORKERS", "two", "`two` makes no sense: expected a whole number");
        refused("MCIAS_SERVER_STRICT", "yes", "`yes` makes no sense: expected true or false");
        refused("MCIAS_NAMES", "b, c", "`b, c` makes no sense: expected a value as in the file");
        refused("PORT", "http", "`http` is no port: it must be a number from 1 to 65535");
        let error = over(&[("MCIAS_SERVER_WORKERS", "70000")]).unwrap_err();
        assert!(error.starts_with("environment: MCIAS_SERVER_WORKERS: `70000` makes no sense: "), "{error}");
    }
}
