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
//! A context has one token (MCIAS's are valid for the services that a login names), in `tokens/contexts/` beside this file.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tonic::transport::Uri;

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
    /// Reads the file; without one there are no contexts. Who can write it says where passwords and tokens are sent: nobody
    /// but its owner may.
    pub(super) fn read(file: &Path) -> Result<Self, Error> {
        let text = match crate::file::text(file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(Error::file("read", file, error)),
        };
        let mode = std::fs::metadata(file).map_err(|error| Error::file("read", file, error))?.mode();
        if mode & 0o022 != 0 {
            let detail = format!(
                "{0} can be written by others: check what is in it, then run `chmod 600 {0}`",
                file.display()
            );
            return Err(Error::new(Exit::NotPermitted, detail));
        }
        config::read(&text, &file.display().to_string(), Hints::NONE)
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

/// Checks the address of a server before it is kept.
pub(super) fn check_server(url: &str) -> Result<(), Error> {
    let refuse = |what: &str| {
        let detail = format!(
            "`{url}` is not the address of a server: {what}, as in `https://mcias.svc.example.org:9443`"
        );
        Err(Error::usage(detail))
    };
    let Ok(read) = url.parse::<Uri>() else { return refuse("write a URL") };
    if read.scheme_str() != Some("https") {
        return refuse("write `https://`, host and port (passwords and tokens may only travel encrypted)");
    }
    let Some(authority) = read.authority().filter(|authority| !authority.host().is_empty()) else {
        return refuse("the host is missing");
    };
    let after_host = authority.as_str().rsplit(']').next().unwrap_or_default().split_once(':');
    if authority.as_str().contains('@')
        || after_host.is_some_and(|_| authority.port_u16().is_none_or(|port| port == 0))
    {
        return refuse("write host and port alone");
    }
    if !matches!(read.path(), "" | "/") || read.query().is_some() {
        return refuse("write no path after the port");
    }
    Ok(())
}

/// Checks that a file has certificates, before its name is kept.
pub(super) fn check_ca(file: &Path) -> Result<(), Error> {
    let text = crate::file::text(file).map_err(|source| Error::unusable_ca(file, source))?;
    let (begin, end) = ("-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----");
    if text.split_once(begin).is_some_and(|(_, rest)| rest.contains(end)) {
        return Ok(());
    }
    Err(Error::unusable_ca(
        file,
        io::Error::new(io::ErrorKind::InvalidData, "it contains no certificate in PEM form"),
    ))
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

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

    #[test]
    fn a_file_that_others_can_write_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("contexts.toml");
        Contexts::default().write(&file).unwrap();
        for (mode, is_refused) in
            [(0o600, false), (0o644, false), (0o660, true), (0o666, true), (0o602, true)]
        {
            std::fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
            let refused = Contexts::read(&file).err();
            assert_eq!(
                refused.map(|error| error.exit()),
                is_refused.then_some(Exit::NotPermitted),
                "{mode:o}"
            );
        }
    }

    #[test]
    fn only_the_address_of_a_server_is_kept() {
        for url in [
            "https://mcias.example.org:9443",
            "https://localhost:9443/",
            "https://mcias",
            "https://[::1]:9443",
        ] {
            check_server(url).unwrap();
        }
        for (url, expect) in [
            ("mcias.example.org:9443", "write `https://`"),
            ("http://mcias.example.org:9443", "write `https://`"),
            ("https://", "is not the address"),
            ("https://mcias:port", "is not the address"),
            ("https://mcias:99999", "is not the address"),
            ("https://mcias:0", "host and port alone"),
            ("https://mcias:", "host and port alone"),
            ("https://ada@mcias:9443", "host and port alone"),
            ("https://mcias:9443/v1", "no path"),
            ("https://mcias:9443/?a", "no path"),
            ("not a url", "is not the address"),
        ] {
            let error = check_server(url).unwrap_err();
            assert!(error.exit() == Exit::Usage && error.to_string().contains(expect), "{url}: {error}");
        }
    }

    #[test]
    fn only_a_file_with_certificates_is_a_ca() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        let check = || check_ca(&file).map_err(|error| (error.exit(), crate::chain(&error)));
        assert!(check().is_err_and(|(exit, text)| exit == Exit::Usage && text.contains("No such file")));
        std::fs::write(&file, "-----BEGIN PRIVATE KEY-----\n").unwrap();
        assert!(check().is_err_and(|(_, text)| text.contains("contains no certificate")));
        std::fs::write(&file, "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n").unwrap();
        assert_eq!(check(), Ok(()));
    }
}
