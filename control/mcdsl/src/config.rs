//! A typed configuration from a TOML file and the environment.
//!
//! Precedence, highest first: `$PORT`, `$PORT_REST` and `$PORT_GRPC`, which the MCP agent sets for a container; `<SERVICE>_...`
//! variables; the file; the documented defaults. Unknown keys and unknown variables are errors that name the nearest known one.
//! Every number has a range. Secrets are never values in the configuration: it names the files that hold them.

mod environment;
mod explain;
mod range;

use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

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
/// The file cannot be read, or is not UTF-8.
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

/// Parses a configuration from `text`; problems call the file `name`.
///
/// # Errors
/// The first problem, with its place in the file.
pub fn read<T: DeserializeOwned>(text: &str, name: &str, hints: Hints) -> Result<T, Problem> {
    toml::from_str(text).map_err(|error| explain::malformed(text, name, &error, hints))
}
