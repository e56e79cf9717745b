//! Certificate authorities by file: whom a route trusts.
//!
//! Nobody is trusted by default. A route names a PEM bundle; routes that name the same one share what was read from it,
//! and with it the TLS sessions that were agreed under it. A bundle is read when a route first names it and again when
//! the file changes; one that cannot be used any more leaves in use what was there before.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use arc_swap::ArcSwap;
use aws_lc_rs::digest;
use mc_core::model::{Backend, ClientAuth, Route};
use mc_core::validate::Invalid;
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{AlertDescription, CertificateError, ClientConfig, Error, RootCertStore, ServerConfig};

use super::certificates::Stamp;
use super::{Server, provider};

/// All bundles that routes name.
#[derive(Debug)]
pub struct Authorities {
    root: PathBuf,
    files: Mutex<BTreeMap<PathBuf, Weak<Authority>>>,
}

/// The authorities of one file.
#[derive(Debug)]
pub struct Authority {
    path: PathBuf,
    state: ArcSwap<State>,
}

/// A bundle as it was last looked at.
#[derive(Debug, Default)]
struct State {
    stamp: Option<Stamp>,
    /// Absent where it never could be used: nobody is trusted then.
    trust: Option<Arc<Trust>>,
}

/// What one version of a bundle leads to.
#[derive(Debug)]
pub struct Trust {
    /// Not given to any other version of any bundle, as long as this process lives.
    pub id: u64,
    certificates: Vec<CertificateDer<'static>>,
    /// For backends of HTTP/1.1.
    pub https: Arc<ClientConfig>,
    /// For backends of HTTP/2.
    pub h2: Arc<ClientConfig>,
    roots: Arc<RootCertStore>,
    /// For clients, made when the first one comes.
    optional: OnceLock<Arc<ServerConfig>>,
    required: OnceLock<Arc<ServerConfig>>,
}

/// How a route asks its clients for a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    auth: ClientAuth,
    /// [`Trust::id`]; 0: of nobody.
    trust: u64,
}

impl Asked {
    /// How a route asks now that verifies clients by `authority`.
    #[must_use]
    pub fn of(auth: ClientAuth, authority: Option<&Authority>) -> Self {
        Self { auth, trust: authority.and_then(Authority::trust).map_or(0, |trust| trust.id) }
    }

    /// Whether it does not ask.
    #[must_use]
    pub fn is_nothing(self) -> bool {
        self.auth == ClientAuth::Off
    }
}

/// How a backend proves who it is.
#[derive(Clone, Debug)]
pub struct BackendTls {
    /// Who vouches for it.
    pub authority: Arc<Authority>,
    /// Whom its certificate must be for.
    pub name: ServerName<'static>,
}

/// Why a bundle is of no use.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", path.display())]
pub struct AuthorityError {
    /// Which file.
    pub path: PathBuf,
    /// What is wrong.
    pub problem: AuthorityProblem,
}

/// What is wrong with a bundle.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityProblem {
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Read(#[source] io::Error),
    /// It is larger than any bundle.
    #[error(
        "has more than {MAX_BYTES} bytes: write a bundle of the authorities that are meant, not of all there are"
    )]
    TooLarge,
    /// There is no certificate in it.
    #[error("has no certificate: put those of the authorities into it, as PEM")]
    None,
    /// A block or a certificate in it is malformed.
    #[error("is malformed: {0}")]
    Malformed(String),
}

/// Bytes of the largest bundle.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// Backends whose TLS sessions are remembered, for each bundle and version of HTTP.
const SESSIONS: usize = 256;

impl Authorities {
    /// Bundles whose relative paths begin at `root`.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), files: Mutex::default() }
    }

    /// The authorities of this file, which is read where nobody has named it before. Where it cannot be, nobody is
    /// trusted until it can be; the error says why.
    pub fn open(&self, path: &str) -> (Arc<Authority>, Option<AuthorityError>) {
        let path = self.root.join(path);
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = files.get(&path).and_then(Weak::upgrade) {
            // It may have been put right a moment ago.
            let error = if known.trust().is_none() { known.reload().err() } else { None };
            return (known, error);
        }
        let authority = Arc::new(Authority { path: path.clone(), state: ArcSwap::default() });
        let error = authority.reload().err();
        files.insert(path, Arc::downgrade(&authority));
        (authority, error)
    }

    /// All bundles that a route names. They stay open as long as this is held.
    ///
    /// # Errors
    /// One cannot be used: the field that names it, and why.
    pub fn of(&self, route: &Route) -> Result<Vec<Arc<Authority>>, Invalid> {
        let http = &route.http;
        let named = [("http.backend_ca", &http.backend_ca), ("http.client_ca", &http.client_ca)];
        let mut all = Vec::new();
        for (field, path) in named.into_iter().filter(|(_, path)| !path.is_empty()) {
            let (authority, error) = self.open(path);
            if let Some(error) = error {
                return Err(Invalid { field: field.to_owned(), problem: error.to_string() });
            }
            all.push(authority);
        }
        Ok(all)
    }

    /// How each of a route's backends proves who it is; empty where none speaks TLS.
    #[must_use]
    pub fn of_backends(&self, route: &Route) -> Vec<Option<Arc<BackendTls>>> {
        if route.http.backend_ca.is_empty() {
            return Vec::new();
        }
        let (authority, _told_before) = self.open(&route.http.backend_ca);
        let of = |backend: &Backend| {
            let name = if backend.server_name.is_empty() { &route.name } else { &backend.server_name };
            let name = ServerName::try_from(name.clone()).ok()?;
            let tls = BackendTls { authority: Arc::clone(&authority), name };
            backend.protocol.is_tls().then(|| Arc::new(tls))
        };
        route.backends.iter().map(of).collect()
    }

    /// Whom a route's clients must be certified by; `None`: they are not asked.
    #[must_use]
    pub fn of_clients(&self, route: &Route) -> Option<Arc<Authority>> {
        let is_asked = route.http.client_auth != ClientAuth::Off;
        is_asked.then(|| self.open(&route.http.client_ca).0)
    }

    /// Reads those again that have changed. Those that cannot be used stay as they were.
    pub fn reload_changed(&self) -> Vec<AuthorityError> {
        let all: Vec<_> = {
            let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
            files.retain(|_, authority| authority.strong_count() > 0);
            files.values().filter_map(Weak::upgrade).collect()
        };
        all.iter().filter(|authority| authority.has_changed()).filter_map(|it| it.reload().err()).collect()
    }
}

impl BackendTls {
    /// Says for people why a handshake failed.
    #[must_use]
    pub fn explain(&self, error: io::Error) -> io::Error {
        let rustls = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
        let text = match rustls {
            Some(Error::InvalidCertificate(why)) => match why {
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                    "its certificate has expired".to_owned()
                }
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                    "its certificate is not valid yet".to_owned()
                }
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                    format!("its certificate is not for {}", self.name.to_str())
                }
                // A wrong signature: an authority of the same name has another key.
                CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                    format!("its certificate is of no authority in {}", self.authority.path().display())
                }
                other => format!("its certificate is refused: {other}"),
            },
            Some(Error::AlertReceived(AlertDescription::NoApplicationProtocol)) => {
                "it does not speak HTTP/2 over TLS: it did not choose h2 by ALPN".to_owned()
            }
            _ if error.kind() == io::ErrorKind::UnexpectedEof => "closed within the TLS handshake".to_owned(),
            _ => format!("TLS handshake failed: {error}"),
        };
        io::Error::other(text)
    }
}

impl Authority {
    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it holds; `None`: it never could be used.
    #[must_use]
    pub fn trust(&self) -> Option<Arc<Trust>> {
        self.state.load().trust.clone()
    }

    fn has_changed(&self) -> bool {
        Stamp::of(&self.path).ok() != self.state.load().stamp
    }

    fn reload(&self) -> Result<(), AuthorityError> {
        let failed = |problem| AuthorityError { path: self.path.clone(), problem };
        // Before its content: what changes in between is read again.
        let stamp = Stamp::of(&self.path);
        let before = self.trust();
        let read = match &stamp {
            Ok(stamp) if stamp.bytes > MAX_BYTES => Err(AuthorityProblem::TooLarge),
            Ok(_) => read(&self.path),
            Err(error) => Err(AuthorityProblem::Read(error.kind().into())),
        };
        let (trust, error) = match read {
            // A file that was only touched: connections and sessions are as good as before.
            Ok(same) if before.as_ref().is_some_and(|trust| trust.certificates == same) => (before, None),
            Ok(certificates) => match Trust::new(certificates) {
                Ok(trust) => (Some(Arc::new(trust)), None),
                Err(problem) => (before, Some(problem)),
            },
            Err(problem) => (before, Some(problem)),
        };
        self.state.store(Arc::new(State { stamp: stamp.ok(), trust }));
        error.map_or(Ok(()), |problem| Err(failed(problem)))
    }
}

impl Trust {
    fn new(certificates: Vec<CertificateDer<'static>>) -> Result<Self, AuthorityProblem> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let mut roots = RootCertStore::empty();
        for certificate in &certificates {
            let added = roots.add(certificate.clone());
            added.map_err(|error| AuthorityProblem::Malformed(error.to_string()))?;
        }
        let roots = Arc::new(roots);
        Ok(Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            certificates,
            https: Arc::new(client_config(&roots, b"http/1.1")),
            h2: Arc::new(client_config(&roots, b"h2")),
            roots,
            optional: OnceLock::new(),
            required: OnceLock::new(),
        })
    }

    /// What handshakes are made with whose clients are asked for a certificate. Its tickets are good for this way of
    /// asking only: a session that was agreed on without a certificate, or under other authorities, is not resumed here.
    pub(super) fn server_config(&self, auth: ClientAuth, server: &Server) -> Option<Arc<ServerConfig>> {
        let (made, mode) = match auth {
            ClientAuth::Off => return None,
            ClientAuth::Optional => (&self.optional, 1),
            ClientAuth::Required => (&self.required, 2),
        };
        if let Some(config) = made.get() {
            return Some(Arc::clone(config));
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&self.roots), provider());
        let verifier = if mode == 1 { verifier.allow_unauthenticated() } else { verifier };
        let config = Arc::new(server.config(Some(verifier.build().ok()?), &self.context(mode)));
        Some(Arc::clone(made.get_or_init(|| config)))
    }

    /// A digest of the way of asking, the same after a restart.
    fn context(&self, mode: u8) -> Vec<u8> {
        let mut digest = digest::Context::new(&digest::SHA256);
        digest.update(&[mode]);
        for certificate in &self.certificates {
            digest.update(&(certificate.len() as u64).to_be_bytes());
            digest.update(certificate);
        }
        digest.finish().as_ref().to_vec()
    }
}

fn read(path: &Path) -> Result<Vec<CertificateDer<'static>>, AuthorityProblem> {
    let text = fs::read(path).map_err(AuthorityProblem::Read)?;
    let certificates = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>();
    let certificates = certificates.map_err(|error| AuthorityProblem::Malformed(error.to_string()))?;
    if certificates.is_empty() { Err(AuthorityProblem::None) } else { Ok(certificates) }
}

/// Sessions live in it, so that none is resumed that was agreed under other authorities.
fn client_config(roots: &Arc<RootCertStore>, alpn: &[u8]) -> ClientConfig {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("the provider has suites for TLS 1.2 and 1.3")
        .with_root_certificates(Arc::clone(roots))
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = Resumption::in_memory_sessions(SESSIONS);
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pem() -> String {
        rcgen::generate_simple_self_signed(["ca".to_owned()]).unwrap().cert.pem()
    }

    #[test]
    fn says_what_is_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let authorities = Authorities::new(folder.path());
        let check = |name: &str, text: Option<&str>, problem: &str| {
            if let Some(text) = text {
                fs::write(folder.path().join(name), text).unwrap();
            }
            let (authority, error) = authorities.open(name);
            let error = error.unwrap().to_string();
            assert!(error.contains(name) && error.contains(problem), "{error}");
            assert!(authority.trust().is_none());
        };
        check("missing.pem", None, "cannot be read");
        check("empty.pem", Some(""), "no certificate");
        check(
            "key.pem",
            Some("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
            "no certificate",
        );
        check("cut.pem", Some("-----BEGIN CERTIFICATE-----\nAAAA\n"), "malformed");
        check("bad.pem", Some("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), "malformed");
        assert!(authorities.open(".").1.is_some());
    }

    #[test]
    fn a_bundle_is_shared_and_read_again_only_where_it_differs() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        let first = pem();
        fs::write(&path, &first).unwrap();
        let authorities = Authorities::new(folder.path());
        let (authority, error) = authorities.open("ca.pem");
        assert!(error.is_none());
        assert!(Arc::ptr_eq(&authority, &authorities.open("ca.pem").0));
        let id = || authority.trust().unwrap().id;
        let before = id();
        let put = |text: &str| {
            fs::write(folder.path().join("new"), text).unwrap();
            fs::rename(folder.path().join("new"), &path).unwrap();
            authorities.reload_changed()
        };
        assert!(put(&first).is_empty());
        assert_eq!(id(), before);
        assert!(put(&pem()).is_empty());
        let second = id();
        assert_ne!(second, before);
        // Told once, and what was there stays in use.
        assert_eq!(put("nothing").len(), 1);
        assert!(authorities.reload_changed().is_empty());
        assert_eq!(id(), second);
        drop(authority);
        // Nobody names it any more: what it held is not kept for whoever comes next.
        assert!(authorities.open("ca.pem").1.is_some());
    }
}
