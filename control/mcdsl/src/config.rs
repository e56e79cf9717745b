//! A TOML file and the environment become a typed configuration.
//!
//! What decides, from the strongest: `$PORT` and `$PORT_GRPC`, which whoever starts a service in a container gives it;
//! `<SERVICE>_...` variables; the file; the documented defaults. Unknown keys are refused, with their place and the nearest
//! known one. Secrets are no values here, but paths to files.

mod environment;
mod explain;

use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

pub use environment::Environment;
pub use explain::{Found, Hints, Problem, join, meant, no_network, refused, walk};

/// Why a configuration file could not be read at all.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the configuration {path}: {remedy}")]
pub struct ReadError {
    /// The file.
    pub path: PathBuf,
    /// What to do.
    pub remedy: &'static str,
    /// The system's word.
    #[source]
    pub source: io::Error,
}

/// The text of a configuration file.
///
/// # Errors
/// It cannot be read, or is no text.
pub fn text(path: &Path) -> Result<String, ReadError> {
    std::fs::read_to_string(path).map_err(|source| ReadError {
        path: path.to_owned(),
        remedy: match source.kind() {
            io::ErrorKind::NotFound => "name one that exists with --config",
            io::ErrorKind::PermissionDenied => "let this user read it",
            io::ErrorKind::InvalidData => "it must be UTF-8 text",
            _ => "see the cause",
        },
        source,
    })
}

/// Reads a configuration from `text`; problems call the file `name`.
///
/// # Errors
/// The first thing that is wrong.
pub fn read<T: DeserializeOwned>(text: &str, name: &str, hints: Hints) -> Result<T, Problem> {
    toml::from_str(text).map_err(|error| explain::malformed(text, name, &error, hints))
}
