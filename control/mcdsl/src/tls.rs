//! A service's certificate, read again when its files change: no restart, no connection lost.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{RootCertStore, ServerConfig};

/// Where a certificate is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// PEM: the chain, the leaf first.
    pub certificate: PathBuf,
    /// PEM: the private key. It may be in the same file.
    pub key: PathBuf,
}

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {0}: put a PEM certificate and its key there, or name others in [server]")]
    Read(PathBuf, #[source] pem::Error),
    /// There is no certificate in it.
    #[error("{0} holds no certificate: it must hold the chain as PEM, the leaf first")]
    Empty(PathBuf),
    /// They do not fit together, or rustls knows no such key.
    #[error("the certificate {certificate} and the key {key} cannot be used together")]
    Pair {
        /// The certificate.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
        /// What rustls says.
        #[source]
        source: rustls::Error,
    },
}

/// A server's certificate: the one that was read last and could be used.
#[derive(Debug)]
pub struct ServerCertificate {
    files: Files,
    current: ArcSwap<CertifiedKey>,
    /// The files as they were before they were read first.
    first: Stamps,
}

impl ServerCertificate {
    /// Reads it.
    ///
    /// # Errors
    /// It cannot be used.
    pub fn open(files: Files) -> Result<Arc<Self>, TlsError> {
        let first = stamps(&files);
        let current = ArcSwap::new(Arc::new(read(&files)?));
        Ok(Arc::new(Self { files, current, first }))
    }

    /// Reads it again. What is in use stays in use where it cannot be used.
    ///
    /// # Errors
    /// It cannot be used.
    pub fn reload(&self) -> Result<(), TlsError> {
        self.current.store(Arc::new(read(&self.files)?));
        Ok(())
    }

    /// Reads it again whenever one of its files is another, and says so in the log. Never ends.
    pub async fn watch(self: Arc<Self>) {
        let mut seen = self.first;
        let mut warned = None;
        let mut ticks = tokio::time::interval(LOOK);
        loop {
            ticks.tick().await;
            let now = stamps(&self.files);
            if now == seen {
                continue;
            }
            match self.reload() {
                Ok(()) => {
                    seen = now;
                    tracing::info!(file = %self.files.certificate.display(), "read a new certificate");
                }
                // It is tried again: what is in the way may be gone without the files being others. It is said once.
                Err(_) if warned == Some(now) => {}
                Err(error) => {
                    warned = Some(now);
                    tracing::warn!(
                        error = crate::chain(&error),
                        "a new certificate cannot be used: the one before stays in use"
                    );
                }
            }
        }
    }

    /// How to speak TLS 1.3 with it, in these protocols (ALPN).
    #[must_use]
    pub fn config(self: &Arc<Self>, alpn: &[&str]) -> Arc<ServerConfig> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider);
        let builder = builder.with_protocol_versions(&[&TLS13]).expect("the provider knows TLS 1.3");
        let resolver = Arc::<Self>::clone(self);
        let mut config = builder.with_no_client_auth().with_cert_resolver(resolver);
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}

/// How often files are looked at.
const LOOK: Duration = Duration::from_secs(2);

impl ResolvesServerCert for ServerCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

fn read(files: &Files) -> Result<CertifiedKey, TlsError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error| TlsError::Read(path, error)
    };
    let chain = CertificateDer::pem_file_iter(&files.certificate).map_err(failed(&files.certificate))?;
    let chain: Vec<_> = chain.collect::<Result<_, _>>().map_err(failed(&files.certificate))?;
    if chain.is_empty() {
        return Err(TlsError::Empty(files.certificate.clone()));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(failed(&files.key))?;
    CertifiedKey::from_der(chain, key, &rustls::crypto::aws_lc_rs::default_provider()).map_err(|source| {
        TlsError::Pair { certificate: files.certificate.clone(), key: files.key.clone(), source }
    })
}

/// What tells one version of the files from another: inode, size, and when the file changed or anything about it did.
type Stamps = [Option<(u64, u64, i64, i64)>; 2];

fn stamps(files: &Files) -> Stamps {
    use std::os::unix::fs::MetadataExt as _;
    let stamp = |path: &Path| {
        let meta = std::fs::metadata(path).ok()?;
        Some((meta.ino(), meta.len(), meta.ctime(), meta.ctime_nsec()))
    };
    [stamp(&files.certificate), stamp(&files.key)]
}

/// The authorities in a PEM file, for checking a server's certificate.
///
/// # Errors
/// It cannot be read, or holds none.
pub fn authorities(file: &Path) -> io::Result<RootCertStore> {
    let certificates = CertificateDer::pem_file_iter(file).map_err(io::Error::other)?;
    let mut store = RootCertStore::empty();
    for certificate in certificates {
        store.add(certificate.map_err(io::Error::other)?).map_err(io::Error::other)?;
    }
    if store.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it holds no certificate"));
    }
    Ok(store)
}
