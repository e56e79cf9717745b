//! Environment variables that override the configuration file.
//!
//! Each key has a variable: the service's name and the key's path in capitals, joined by `_`:
//! `MCIAS_SERVER_LISTEN_ADDR` for `server.listen_addr` of `mcias`. The keys are those that the default configuration
//! has when it is serialised, so that no list can be incomplete; keys without a value are named in
//! [`Environment::optional`]. A variable with the service's prefix that belongs to no key is an error: nothing is set
//! without an effect.

use std::collections::BTreeMap;

use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::explain::explain_value;
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

    /// The configuration with the variables applied, and those that are invalid: a variable whose value does not fit its
    /// key, or one that belongs to no key. Their file is `environment`. Ranges are checked later, as the file's values are.
    ///
    /// # Panics
    /// The configuration cannot be written as TOML, or not be read again from what was written.
    pub fn apply<T: Serialize + DeserializeOwned + Default>(
        &self,
        config: &T,
        variables: &Variables,
    ) -> (T, Vec<Problem>) {
        let to_tree = |config: &T| Table::try_from(config).expect("a configuration can be written as TOML");
        let mut keys = Vec::new();
        paths(&to_tree(&T::default()), "", &mut keys);
        keys.extend(self.optional.iter().map(|path| (*path).to_owned()));
        let known: BTreeMap<String, String> =
            keys.into_iter().map(|path| (self.variable(&path), path)).collect();
        let mut problems = self.unknown(&known, variables);
        let mut overrides = Vec::new();
        for (name, path) in known {
            if let Some(text) = variables.get(&name) {
                overrides.push((name, path, text.clone()));
            }
        }
        for (name, path) in PORTS {
            let Some(text) = variables.get(name) else { continue };
            match text.parse::<u16>().ok().filter(|port| *port != 0) {
                Some(port) => overrides.push((name.to_owned(), path.to_owned(), format!("0.0.0.0:{port}"))),
                None => {
                    let message = format!("`{text}` is not a port: it must be a number from 1 to 65535");
                    problems.push(problem(name, message));
                }
            }
        }
        let mut tree = to_tree(config);
        let mut read = tree.clone().try_into().expect("what was written can be read again");
        for (name, path, text) in overrides {
            match set(&tree, &path, &text) {
                Ok((changed, config)) => (tree, read) = (changed, config),
                Err(message) => problems.push(problem(&name, message)),
            }
        }
        (read, problems)
    }

    /// A misspelt variable would have no effect, and nobody would notice.
    fn unknown(&self, known: &BTreeMap<String, String>, variables: &Variables) -> Vec<Problem> {
        let prefix = self.variable("");
        let is_unknown = |name: &&String| {
            name.starts_with(&prefix) && !known.contains_key(*name) && !self.foreign.contains(&name.as_str())
        };
        let names: Vec<&str> = known.keys().map(String::as_str).collect();
        let refuse = |name: &String| {
            problem(name, format!("no configuration key has this variable{}", meant(name, &names)))
        };
        variables.keys().filter(is_unknown).map(refuse).collect()
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

/// The tree with a variable's text at `path`, and what is read from it; or what is wrong with the text.
fn set<T: DeserializeOwned>(tree: &Table, path: &str, text: &str) -> Result<(Table, T), String> {
    let mut refused = String::new();
    for value in values(get(tree, path), text)? {
        let mut tree = tree.clone();
        put(&mut tree, path, value);
        match tree.clone().try_into() {
            Ok(read) => return Ok((tree, read)),
            Err(error) => {
                let error: toml::de::Error = error;
                refused = explain_value(error.message(), &format!("`{text}`"), path);
            }
        }
    }
    let quoted = format!("`{text}`");
    Err(if refused.starts_with(&quoted) { refused } else { format!("{quoted} is invalid: {refused}") })
}

/// The values that a variable's text can be, where this one is now: the first that fits is meant.
fn values(present: Option<&Value>, text: &str) -> Result<Vec<Value>, String> {
    let invalid = |expected: &str| format!("`{text}` is invalid: expected {expected}");
    let value = match present {
        Some(Value::Integer(_)) => {
            text.parse().map(Value::Integer).map_err(|_error| invalid("a whole number"))?
        }
        Some(Value::Float(_)) => text.parse().map(Value::Float).map_err(|_error| invalid("a number"))?,
        Some(Value::Boolean(_)) => {
            text.parse().map(Value::Boolean).map_err(|_error| invalid("true or false"))?
        }
        // A list or a table as in the file; or a word, where some words are tables with more in them.
        _ => {
            let mut line: Table = toml::from_str(&format!("value = {text}")).unwrap_or_default();
            let written = line.remove("value").filter(|value| value.is_array() || value.is_table());
            return Ok(std::iter::once(text.into()).chain(written).collect());
        }
    };
    Ok(vec![value])
}

fn get<'a>(tree: &'a Table, path: &str) -> Option<&'a Value> {
    let (first, rest) = path.split_once('.').unwrap_or((path, ""));
    let value = tree.get(first)?;
    if rest.is_empty() { Some(value) } else { get(value.as_table()?, rest) }
}

fn put(tree: &mut Table, path: &str, value: Value) {
    let Some((first, rest)) = path.split_once('.') else {
        tree.insert(path.to_owned(), value);
        return;
    };
    if let Value::Table(inner) = tree.entry(first).or_insert_with(|| Table::new().into()) {
        put(inner, rest, value);
    }
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
        proxies: Proxies,
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

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Proxies {
        Off,
        All,
        From(Vec<String>),
    }

    fn config() -> Config {
        let server = Server { listen_addr: "[::]:1".into(), grpc_addr: None, workers: 2, strict: false };
        Config { server, names: vec!["a".into()], proxies: Proxies::Off, token_file: None }
    }

    impl Default for Config {
        fn default() -> Self {
            config()
        }
    }

    fn apply(variables: &[(&str, &str)]) -> Result<Config, String> {
        apply_to(&config(), variables)
    }

    fn apply_to(config: &Config, variables: &[(&str, &str)]) -> Result<Config, String> {
        let optional = &["token_file", "server.grpc_addr"];
        let environment = Environment { service: "mcias", optional, foreign: &["MCIAS_CA"] };
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let (read, problems) = environment.apply(config, &variables.collect());
        let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
        if problems.is_empty() { Ok(read) } else { Err(problems.join("\n")) }
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
        assert!(
            error.contains("expected one of MCIAS_NAMES, MCIAS_PROXIES, MCIAS_SERVER_GRPC_ADDR"),
            "{error}"
        );
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
        refused(
            "MCIAS_NAMES",
            "b, c",
            "`b, c` is invalid: expected a list in brackets, found string \"b, c\"",
        );
        refused("MCIAS_PROXIES", "on", "`on` is invalid: unknown value `on`: expected one of off, all, from");
        refused(
            "MCIAS_PROXIES",
            "{ from = 1 }",
            "`{ from = 1 }` is invalid: expected a list in brackets, found integer `1`",
        );
        refused("PORT", "0", "`0` is not a port: it must be a number from 1 to 65535");
        refused("PORT", "http", "`http` is not a port: it must be a number from 1 to 65535");
        let error = apply(&[("MCIAS_SERVER_WORKERS", "70000")]).unwrap_err();
        let expect = "`70000` is invalid: expected a whole number from 0 to 65535, found integer `70000`";
        assert_eq!(error, format!("environment: MCIAS_SERVER_WORKERS: {expect}"));
    }

    #[test]
    fn a_word_or_a_table_is_what_it_is_in_the_file() {
        let from = Proxies::From(vec!["a".to_owned()]);
        let file = Config { proxies: from.clone(), ..config() };
        let proxies =
            |file: &Config, text| apply_to(file, &[("MCIAS_PROXIES", text)]).map(|read| read.proxies);
        assert_eq!(proxies(&config(), "{ from = [\"a\"] }"), Ok(from));
        // Whatever the file has there.
        assert_eq!(proxies(&file, "all"), Ok(Proxies::All));
        assert_eq!(proxies(&file, "{ from = [] }"), Ok(Proxies::From(Vec::new())));
    }

    #[test]
    fn every_invalid_variable_is_named_and_the_others_are_applied() {
        let variables = [("MCIAS_SERVER_WORKERS", "x"), ("MCIAS_SERVER_STRCT", "true"), ("PORT", "0")];
        let found = apply(&variables).unwrap_err();
        assert_eq!(found.lines().count(), 3, "{found}");
    }
}
