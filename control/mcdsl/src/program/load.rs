//! Loads a service's configuration: the file, the environment, the command line, and all checks.

use std::path::Path;

use crate::config::{self, Environment, InvalidValue, Problem, ReadError, Variables};

use super::Configuration;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Something in the file or the environment is invalid.
    #[error(transparent)]
    Invalid(#[from] Problem),
}

/// Loads the configuration of the service `name`. Variables override the file, `root` overrides both; relative paths start at the
/// root.
///
/// # Errors
/// The first problem, with the place in the file or the name of the variable.
pub fn load<C: Configuration>(
    name: &str,
    file: &Path,
    root: Option<&Path>,
    variables: &Variables,
) -> Result<C, LoadError> {
    let text = config::text(file)?;
    let file_name = file.display().to_string();
    let read: C = config::read(&text, &file_name, C::HINTS)?;
    let environment = Environment { service: name, optional: C::OPTIONAL, foreign: C::FOREIGN_VARIABLES };
    let mut config = environment.apply(&read, variables)?;
    config.server_mut().set_root(root, file);
    let checked = config::check_ranges(&config, C::RANGES)
        .and_then(|()| config.server().check())
        .and_then(|()| config.check());
    checked.map_err(|InvalidValue { key, message }| {
        let variable = environment.variable(&key);
        if variables.contains_key(&variable) {
            Problem { file: "environment".to_owned(), line: 0, column: 0, key: variable, message }
        } else {
            config::refused(&text, &file_name, &key, message)
        }
    })?;
    Ok(config)
}
