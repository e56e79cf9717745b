//! A typed configuration from a TOML file and the environment.
//!
//! Precedence, highest first: `$PORT`, `$PORT_REST` and `$PORT_GRPC`, which the MCP agent sets for a container;
//! `<SERVICE>_...` variables; the file; the documented defaults. Unknown keys and unknown variables are errors that
//! name the nearest known one. Every number has a range. Secrets are never values in the configuration: it names the
//! files that hold them.

mod environment;
mod explain;
mod range;

use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml::de::{DeTable, Deserializer};

use crate::file;

pub use environment::{Environment, Variables};
pub use explain::{Found, Hints, Problem, join, meant, not_a_network, refused, walk};
pub use range::{InvalidValue, Range, check_ranges, numbers_without_range};

/// Why a configuration file could not be read at all.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the configuration {path}: {remedy}")]
pub struct ReadError {
    /// The file.
    pub path: PathBuf,
    /// What to do.
    pub remedy: &'static str,
    /// The operating system's error.
    #[source]
    pub source: io::Error,
}

/// Reads the text of a configuration file.
///
/// # Errors
/// The file cannot be read, is not a regular file, is too large or is not UTF-8.
pub fn text(path: &Path) -> Result<String, ReadError> {
    file::text_up_to(path, MAX_BYTES).map_err(|source| ReadError {
        path: path.to_owned(),
        remedy: match source.kind() {
            io::ErrorKind::NotFound => "name one that exists with --config",
            io::ErrorKind::PermissionDenied => "let this user read it",
            io::ErrorKind::InvalidData => "it must be UTF-8 text",
            io::ErrorKind::InvalidInput | io::ErrorKind::FileTooLarge => "name a TOML file with --config",
            _ => "see the cause",
        },
        source,
    })
}

/// The largest configuration file: one with a route for each of some hundred thousand names fits.
const MAX_BYTES: u64 = 64 << 20;

/// Parses a configuration from `text`; problems call the file `name`.
///
/// # Errors
/// The first problem, with its place in the file.
pub fn read<T: DeserializeOwned>(text: &str, name: &str, hints: Hints) -> Result<T, Problem> {
    toml::from_str(text).map_err(|error| explain::malformed(text, name, &error, hints))
}

/// The same for a configuration whose keys all have defaults: what is invalid is left out, and the rest is read. `None`: the
/// text is not TOML.
#[must_use]
pub fn read_all<T: DeserializeOwned>(text: &str, name: &str, hints: Hints) -> (Option<T>, Vec<Problem>) {
    let mut tree = match DeTable::parse(text) {
        Ok(tree) => tree,
        Err(error) => return (None, vec![explain::malformed(text, name, &error, hints)]),
    };
    let mut problems: Vec<Problem> = Vec::new();
    loop {
        match T::deserialize(Deserializer::from(tree.clone())) {
            Ok(read) => {
                problems.sort_by_key(|problem| (problem.line, problem.column));
                return (Some(read), problems);
            }
            Err(error) => {
                problems.push(explain::malformed(text, name, &error, hints));
                let place = error.span().unwrap_or_default();
                if !explain::remove_at(tree.get_mut(), &place) {
                    return (None, problems);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Config {
        server: Server,
        names: Vec<String>,
        rules: Vec<Rule>,
    }

    #[derive(Debug, Default, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Server {
        workers: u16,
        strict: bool,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Rule {
        weight: u8,
    }

    fn all(text: &str) -> (Option<Config>, Vec<String>) {
        let (config, problems) = read_all(text, "a.toml", Hints::NONE);
        (config, problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn every_problem_is_found_and_the_rest_is_read() {
        let (config, problems) =
            all("[server]\nworkers = \"two\"\nstrct = true\nstrict = true\n[other]\na = 1\n");
        let expect = [
            "a.toml:2:11: server.workers: expected a whole number from 0 to 65535, found string \"two\"",
            "a.toml:3:1: server.strct: unknown field `strct`, did you mean `strict`?",
            "a.toml:5:2: other: unknown field `other`: expected one of server, names, rules",
        ];
        assert_eq!(problems, expect);
        assert!(config.unwrap().server.strict);
        let (config, problems) =
            all("names = [1]\nserver.workers = 2\n[[rules]]\nweight = 1\n[[rules]]\nweigth = 1\n");
        assert_eq!(problems.len(), 2, "{problems:?}");
        let config = config.unwrap();
        assert_eq!((config.server.workers, config.names.len(), config.rules.len()), (2, 0, 0));
        let (config, _) = all("[[rules]]\nweight = 3\n");
        assert_eq!(config.unwrap().rules[0].weight, 3);
    }

    #[test]
    fn what_is_not_toml_is_one_problem() {
        let (config, problems) = all("[server\nworkers = 1\n");
        assert!(config.is_none() && problems.len() == 1, "{problems:?}");
    }

    #[test]
    fn what_a_terminal_would_act_on_is_escaped() {
        for text in
            ["\"a\\u001b[2J\\nb\" = 1\n", "a\x1b[2J = 1\n", "names = [\"x\"]\nserver = \"\\u001b[2J\"\n"]
        {
            let (_, problems) = all(text);
            let shown = problems.join("");
            assert!(!problems.is_empty() && !shown.chars().any(crate::escape::must_be_escaped), "{shown:?}");
        }
    }
}
