//! A string that is redacted in `Debug` and wiped from memory when it is dropped.

use std::fmt;
use std::io;
use std::path::Path;

use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

/// A secret string: a password, a token, a code. Only [`Secret::expose`] returns it, which is easy to search for.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Reads a secret from a file, without the trailing newline. Callers read it at each use, so that rotation needs no restart.
    ///
    /// # Errors
    /// The file cannot be read, or is not UTF-8.
    pub fn read(path: &Path) -> io::Result<Self> {
        let text = Zeroizing::new(std::fs::read_to_string(path)?);
        Ok(Self::from(text.trim_end_matches(['\r', '\n'])))
    }

    /// The secret in plain text.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(Zeroizing::new(text.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_redacted_in_debug() {
        let secret = Secret::from("hunter2");
        assert_eq!(format!("{secret:?} {:?}", Some(&secret)), "Secret(redacted) Some(Secret(redacted))");
        assert_eq!(secret.expose(), "hunter2");
    }

    #[test]
    fn the_trailing_newline_of_a_file_is_not_part_of_the_secret() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        std::fs::write(&file, " with spaces \r\n").unwrap();
        assert_eq!(Secret::read(&file).unwrap().expose(), " with spaces ");
    }
}
