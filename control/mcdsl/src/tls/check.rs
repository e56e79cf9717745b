//! What is wrong with a certificate: its validity, its names, and who can read its key.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rustls::client::verify_server_name;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::ParsedCertificate;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{Files, Loaded, TlsError};

/// When a certificate is valid (RFC 5280, section 4.1.2.5), in seconds since 1970, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Validity {
    not_before_s: i64,
    pub(super) not_after_s: i64,
}

impl Validity {
    pub(super) fn of(leaf: &CertificateDer<'_>, file: &Path) -> Result<Self, TlsError> {
        let (_, parsed) = x509_parser::parse_x509_certificate(leaf)
            .map_err(|error| TlsError::Malformed { file: file.to_owned(), message: error.to_string() })?;
        let validity = parsed.validity();
        let (not_before_s, not_after_s) = (validity.not_before.timestamp(), validity.not_after.timestamp());
        Ok(Self { not_before_s, not_after_s })
    }

    pub(super) fn check(self, now_s: i64, file: &Path) -> Result<(), TlsError> {
        let file = file.to_owned();
        if now_s > self.not_after_s {
            return Err(TlsError::Expired { file, at: rfc3339(self.not_after_s) });
        }
        if now_s < self.not_before_s {
            return Err(TlsError::NotYetValid { file, at: rfc3339(self.not_before_s) });
        }
        Ok(())
    }
}

impl Validity {
    /// [`TlsError::ExpiresSoon`], where it is time to replace the certificate.
    pub(super) fn warn(self, now_s: i64, file: &Path) -> Result<(), TlsError> {
        // A certificate of a few days is meant to be replaced shortly before its end.
        let before_s = SOON_S.min(self.not_after_s.saturating_sub(self.not_before_s) / 10);
        if now_s > self.not_after_s.saturating_sub(before_s) {
            return Err(TlsError::ExpiresSoon { file: file.to_owned(), at: rfc3339(self.not_after_s) });
        }
        Ok(())
    }
}

/// How long before its end a certificate expires soon, in seconds: two weeks.
const SOON_S: i64 = 14 * 24 * 3600;

/// Everything that is wrong with a certificate: what makes it unusable, then its validity, whether it is for `host` (RFC 6125,
/// as rustls clients check it), and the permissions of the key's file.
#[must_use]
pub fn problems(files: &Files, host: Option<&str>, now_s: i64) -> Vec<TlsError> {
    let mut found = Vec::new();
    match Loaded::read(files) {
        Ok(loaded) => {
            let (validity, file) = (loaded.validity, &files.certificate);
            found.extend(validity.check(now_s, file).and_then(|()| validity.warn(now_s, file)).err());
            let leaf = loaded.key.end_entity_cert().ok();
            if let (Some(leaf), Some(host)) = (leaf, host) {
                found.extend(wrong_name(leaf, host, &files.certificate));
            }
        }
        Err(error) => found.push(error),
    }
    if let Ok(meta) = std::fs::metadata(&files.key) {
        let mode = meta.permissions().mode() & 0o7777;
        if mode & 0o007 != 0 {
            found.push(TlsError::KeyAccess { key: files.key.clone(), mode });
        }
    }
    found
}

fn wrong_name(leaf: &CertificateDer<'_>, host: &str, file: &Path) -> Option<TlsError> {
    let wrong = |source| TlsError::WrongName { file: file.to_owned(), name: host.to_owned(), source };
    let Ok(name) = ServerName::try_from(host) else {
        return Some(wrong(rustls::Error::General("this is not a host name".to_owned())));
    };
    let parsed = ParsedCertificate::try_from(leaf);
    parsed.and_then(|parsed| verify_server_name(&parsed, &name)).err().map(wrong)
}

/// A time as RFC 3339.
pub(super) fn rfc3339(unix_s: i64) -> String {
    let time = OffsetDateTime::from_unix_timestamp(unix_s).ok();
    time.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_else(|| format!("{unix_s} s after 1970"))
}
