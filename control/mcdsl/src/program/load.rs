//! Loads a service's configuration: the file, the environment, the command line, and all checks.

use std::fmt;
use std::path::Path;

use crate::config::{self, Environment, InvalidValue, Problem, ReadError, Variables};

use super::Configuration;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Things in the file or the environment are invalid.
    #[error(transparent)]
    Invalid(Problems),
}

/// Everything that is invalid in a configuration: a line each.
#[derive(Debug)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<_> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for Problems {}

/// Loads the configuration of the service `name`. Variables override the file, `root` overrides both; relative paths start at the
/// root.
///
/// # Errors
/// All problems, each with its place in the file or the name of the variable.
pub fn load<C: Configuration>(
    name: &str,
    file: &Path,
    root: Option<&Path>,
    variables: &Variables,
) -> Result<C, LoadError> {
    match load_all(name, file, root, variables)? {
        (Some(config), problems) if problems.is_empty() => Ok(config),
        (_, problems) => Err(LoadError::Invalid(Problems(problems))),
    }
}

/// The same, with what can be read of a configuration that is not valid: keys whose values are of the wrong type have their
/// defaults. `None`: the file is not TOML.
///
/// # Errors
/// The file cannot be read.
pub(super) fn load_all<C: Configuration>(
    name: &str,
    file: &Path,
    root: Option<&Path>,
    variables: &Variables,
) -> Result<(Option<C>, Vec<Problem>), ReadError> {
    let text = config::text(file)?;
    let file_name = file.display().to_string();
    let (read, mut problems) = config::read_all::<C>(&text, &file_name, C::HINTS);
    let Some(mut read) = read else { return Ok((None, problems)) };
    set_own_addresses(&mut read, &text);
    let environment = Environment { service: name, optional: C::OPTIONAL, foreign: C::FOREIGN_VARIABLES };
    let (mut config, invalid) = environment.apply(&read, variables);
    problems.extend(invalid);
    config.server_mut().set_root(root, file);
    let mut invalid = config::check_ranges(&config, C::RANGES);
    invalid.extend(config.server().check());
    invalid.extend(config.check());
    problems.extend(invalid.into_iter().map(|InvalidValue { key, message }| {
        let variable = environment.variable(&key);
        if variables.contains_key(&variable) {
            Problem { file: "environment".to_owned(), line: 0, column: 0, key: variable, message }
        } else {
            config::refused(&text, &file_name, &key, message)
        }
    }));
    Ok((Some(config), problems))
}

/// Gives addresses that the file does not have the service's own defaults: `[server]` by itself knows only those that all
/// services share.
fn set_own_addresses<C: Configuration>(read: &mut C, text: &str) {
    let file: toml::Table = toml::from_str(text).unwrap_or_default();
    let is_set = |key: &str| file.get("server").is_some_and(|server| server.get(key).is_some());
    let own = C::default();
    let (own, server) = (own.server(), read.server_mut());
    for (key, own, address) in [
        ("listen_addr", own.listen_addr, &mut server.listen_addr),
        ("grpc_addr", own.grpc_addr, &mut server.grpc_addr),
        ("metrics_addr", own.metrics_addr, &mut server.metrics_addr),
    ] {
        if !is_set(key) {
            *address = own;
        }
    }
}
