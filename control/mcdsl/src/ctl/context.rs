//! Contexts: the servers of several sites in one file, shared by all ctls.
//!
//! `~/.config/metacircular/contexts.toml`:
//!
//! ```toml
//! current = "home"
//!
//! [contexts.home]
//! ca = "/home/ada/home-ca.pem"
//!
//! [contexts.home.servers]
//! mcias = "https://mcias.svc.example.org:9443"
//! ```
//!
//! A context has one token (MCIAS's are valid for all services of a site), in `tokens/` beside this file.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Error, Exit, token_file};
use crate::config::{self, Hints};

#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Contexts {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) current: Option<String>,
    #[serde(default)]
    pub(super) contexts: BTreeMap<String, Context>,
}

#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Context {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ca: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) token_file: Option<PathBuf>,
    /// Addresses by the services' names.
    #[serde(default)]
    pub(super) servers: BTreeMap<String, String>,
}

impl Contexts {
    /// Reads the file; without one there are no contexts.
    pub(super) fn read(file: &Path) -> Result<Self, Error> {
        let text = match std::fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(Error::file("read", file, error)),
        };
        let hints = Hints { example: |_key| "", within: |_tree, _path| None };
        config::read(&text, &file.display().to_string(), hints)
            .map_err(|problem| Error::usage(problem.to_string()))
    }

    pub(super) fn write(&self, file: &Path) -> Result<(), Error> {
        let text = toml::to_string(self).expect("contexts can be written as TOML");
        token_file::replace(file, &text).map_err(|source| Error::file("write", file, source))
    }

    /// The context of this name.
    pub(super) fn find(&self, name: &str) -> Result<&Context, Error> {
        self.contexts.get(name).ok_or_else(|| {
            Error::new(Exit::NotFound, format!("There is no context `{name}`; `context list` shows all"))
        })
    }

    pub(super) fn add(&mut self, name: &str, context: Context) -> Result<(), Error> {
        // The name is also that of the token file.
        let is_valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || name.starts_with('.') || !name.chars().all(is_valid) {
            let detail = format!("`{name}` is not a context name: expected letters, digits and - _ .");
            return Err(Error::usage(detail));
        }
        let found = self.contexts.entry(name.to_owned()).or_default();
        if context.servers.keys().any(|service| found.servers.contains_key(service)) {
            let detail = format!("There is a context `{name}`; to change it, remove it first");
            return Err(Error::new(Exit::Conflict, detail));
        }
        found.servers.extend(context.servers);
        found.ca = context.ca.or_else(|| found.ca.take());
        found.token_file = context.token_file.or_else(|| found.token_file.take());
        self.current.get_or_insert_with(|| name.to_owned());
        Ok(())
    }

    pub(super) fn select(&mut self, name: &str) -> Result<(), Error> {
        self.find(name)?;
        self.current = Some(name.to_owned());
        Ok(())
    }

    pub(super) fn remove(&mut self, name: &str) -> Result<(), Error> {
        self.find(name)?;
        self.contexts.remove(name);
        self.current.take_if(|current| current == name);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(service: &str, ca: Option<&str>) -> Context {
        let servers = BTreeMap::from([(service.to_owned(), format!("https://{service}.example.org:9443"))]);
        Context { ca: ca.map(PathBuf::from), servers, ..Context::default() }
    }

    #[test]
    fn contexts_are_kept_in_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("metacircular/contexts.toml");
        let mut contexts = Contexts::read(&file).unwrap();
        assert_eq!(contexts, Contexts::default());
        contexts.add("home", context("mcias", Some("/ca.pem"))).unwrap();
        contexts.add("work", context("mcias", None)).unwrap();
        assert_eq!(contexts.current.as_deref(), Some("home"));
        // Another service of the same site.
        contexts.add("home", context("mcr", None)).unwrap();
        assert_eq!(contexts.find("home").unwrap().servers.len(), 2);
        assert_eq!(contexts.find("home").unwrap().ca.as_deref(), Some(Path::new("/ca.pem")));
        contexts.select("work").unwrap();
        contexts.write(&file).unwrap();
        assert_eq!(Contexts::read(&file).unwrap(), contexts);
        contexts.remove("work").unwrap();
        assert_eq!(contexts.current, None);
    }

    #[test]
    fn wrong_names_are_refused() {
        let mut contexts = Contexts::default();
        contexts.add("home", context("mcias", None)).unwrap();
        assert_eq!(contexts.add("home", context("mcias", None)).unwrap_err().exit(), Exit::Conflict);
        for name in ["", "a/b", "..", ".hidden", "a b"] {
            assert_eq!(contexts.add(name, context("mcias", None)).unwrap_err().exit(), Exit::Usage, "{name}");
        }
        assert_eq!(contexts.select("work").unwrap_err().exit(), Exit::NotFound);
        assert_eq!(contexts.remove("work").unwrap_err().exit(), Exit::NotFound);
    }

    #[test]
    fn a_wrong_file_is_refused_with_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("contexts.toml");
        std::fs::write(&file, "[contexts.home]\nserver = \"x\"\n").unwrap();
        let error = Contexts::read(&file).unwrap_err();
        assert_eq!(error.exit(), Exit::Usage);
        assert!(error.to_string().contains("contexts.toml:2"), "{error}");
    }
}
