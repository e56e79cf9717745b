//! A service's certificate: read from PEM files, checked, and replaced while the service runs.
//!
//! A new certificate takes effect without a restart and without closing a connection. A valid certificate is never
//! replaced by one that has expired, is not valid yet, or whose key does not match.

mod check;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{RootCertStore, ServerConfig};
use zeroize::Zeroizing;

pub use check::problems;

use crate::clock::Clock;
use crate::file;
use crate::prometheus::Page;
use check::Validity;

/// The files of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// PEM: the chain, the leaf first.
    pub certificate: PathBuf,
    /// PEM: the private key. It may be in the same file.
    pub key: PathBuf,
}

/// Why a certificate cannot be used, or should not be.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {0}: put a PEM certificate and its key there, or name other files in [server]")]
    Read(PathBuf, #[source] pem::Error),
    /// The file has no certificate.
    #[error("{0} contains no certificate: it must contain the chain as PEM, the leaf first")]
    Empty(PathBuf),
    /// The leaf is not an X.509 certificate.
    #[error("{file}: the first certificate cannot be parsed: {message}")]
    Malformed {
        /// The file.
        file: PathBuf,
        /// The parser's message.
        message: String,
    },
    /// The key is not the certificate's, or its kind is not supported.
    #[error("the certificate {certificate} and the key {key} cannot be used together")]
    Pair {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
        /// The message of rustls.
        #[source]
        source: rustls::Error,
    },
    /// The certificate has expired.
    #[error("{file}: the certificate expired at {at}: replace it")]
    Expired {
        /// The file.
        file: PathBuf,
        /// When it expired.
        at: String,
    },
    /// The certificate expires soon.
    #[error("{file}: the certificate expires at {at}: replace it before")]
    ExpiresSoon {
        /// The file.
        file: PathBuf,
        /// When it expires.
        at: String,
    },
    /// The certificate is not valid yet.
    #[error("{file}: the certificate is not valid before {at}: check this machine's clock, or replace it")]
    NotYetValid {
        /// The file.
        file: PathBuf,
        /// When it becomes valid.
        at: String,
    },
    /// The certificate is for other names than the one that clients use.
    #[error("{file}: the certificate is not for `{name}`, the host of the public URL")]
    WrongName {
        /// The file.
        file: PathBuf,
        /// The name that clients use.
        name: String,
        /// The message of rustls: which names it is for.
        #[source]
        source: rustls::Error,
    },
    /// Other users of the machine have access to the key.
    #[error(
        "{key}: every user of this machine can access the private key (mode {mode:04o}): run `chmod 600`"
    )]
    KeyAccess {
        /// The file.
        key: PathBuf,
        /// Its permissions.
        mode: u32,
    },
}

/// A server's certificate in use, and its files.
#[derive(Debug)]
pub struct ServerCertificate {
    files: Files,
    clock: Clock,
    current: ArcSwap<Loaded>,
    /// The state of the files when the certificate in use was read.
    read_from: Mutex<Stamps>,
    reload_failures: AtomicU64,
}

/// A certificate with its key, as read from the files.
#[derive(Debug)]
struct Loaded {
    key: Arc<CertifiedKey>,
    validity: Validity,
}

impl ServerCertificate {
    /// Reads the certificate. One that has expired or is not valid yet is used: the machine's clock may be wrong, and the
    /// certificate may be replaced while the service runs. [`problems`] finds that.
    ///
    /// # Errors
    /// The certificate cannot be used.
    pub fn open(files: Files, clock: Clock) -> Result<Arc<Self>, TlsError> {
        let stamps = stamps(&files);
        let loaded = Loaded::read(&files)?;
        Ok(Arc::new(Self {
            files,
            clock,
            current: ArcSwap::from_pointee(loaded),
            read_from: Mutex::new(stamps),
            reload_failures: AtomicU64::new(0),
        }))
    }

    /// Reads the files again and uses what they contain.
    ///
    /// # Errors
    /// The new certificate cannot be used, or has expired or is not valid yet while the one in use is valid: that one stays.
    pub fn reload(&self) -> Result<(), TlsError> {
        let stamps = stamps(&self.files);
        let new = Loaded::read(&self.files)?;
        let (file, now) = (&self.files.certificate, self.clock.unix_s());
        if self.current.load().validity.check(now, file).is_ok() {
            new.validity.check(now, file)?;
        }
        self.current.store(Arc::new(new));
        *self.read_from.lock().unwrap_or_else(PoisonError::into_inner) = stamps;
        Ok(())
    }

    /// Reloads and logs the outcome.
    pub fn reload_and_log(&self) {
        match self.reload() {
            Ok(()) => self.log_success(),
            Err(error) => self.log_failure(&error),
        }
    }

    fn log_success(&self) {
        let expires = check::rfc3339(self.current.load().validity.not_after_s);
        tracing::info!(file = %self.files.certificate.display(), expires, "loaded a new certificate");
    }

    fn log_failure(&self, error: &TlsError) {
        self.reload_failures.fetch_add(1, Ordering::Relaxed);
        let error = crate::chain(error);
        tracing::warn!(error, "the new certificate was not loaded; the previous one stays in use");
    }

    /// Reloads whenever one of the files has changed. Never returns.
    pub async fn watch(self: Arc<Self>) {
        let mut state = WatchState { warned: self.clock.elapsed(), ..WatchState::default() };
        let mut ticks = tokio::time::interval(WATCH_INTERVAL);
        loop {
            ticks.tick().await;
            self.reload_if_changed(&mut state);
            self.warn_of_expiry(&mut state);
        }
    }

    /// Warns once a day while the certificate in use expires soon or has expired. The first day's is that of the start.
    fn warn_of_expiry(&self, state: &mut WatchState) {
        let now = self.clock.elapsed();
        if now.saturating_sub(state.warned) < WARN_INTERVAL {
            return;
        }
        state.warned = now;
        let (validity, file) = (self.current.load().validity, &self.files.certificate);
        if let Err(error) =
            validity.check(self.clock.unix_s(), file).and_then(|()| validity.warn(self.clock.unix_s(), file))
        {
            tracing::warn!(error = crate::chain(&error), "replace the certificate");
        }
    }

    /// A failure is retried each time, since its cause may go away without a change of the files. It is logged once, and only
    /// when the files have stayed the same since the previous attempt: a certificate and its key are replaced one after the other.
    fn reload_if_changed(&self, state: &mut WatchState) {
        let now = stamps(&self.files);
        if now == *self.read_from.lock().unwrap_or_else(PoisonError::into_inner) {
            return;
        }
        match self.reload() {
            Ok(()) => self.log_success(),
            Err(error) => {
                if state.failed == Some(now) && state.logged != Some(now) {
                    state.logged = Some(now);
                    self.log_failure(&error);
                }
                state.failed = Some(now);
            }
        }
    }

    /// A TLS 1.3 configuration with this certificate and these protocols (ALPN).
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

    /// Writes when the certificate in use expires, and how often a new one was not loaded.
    pub fn write_metrics(&self, page: &mut Page) {
        let not_after_s = self.current.load().validity.not_after_s;
        let help = "When the certificate in use expires, in seconds since 1970.";
        page.one("tls_certificate_not_after_seconds", "gauge", help, not_after_s);
        let help = "New certificates that were not loaded.";
        let failures = self.reload_failures.load(Ordering::Relaxed);
        page.one("tls_certificate_reload_failures_total", "counter", help, failures);
    }
}

/// What was logged: the states of the files whose reload failed last and was logged last, and the last warning.
#[derive(Debug, Default)]
struct WatchState {
    failed: Option<Stamps>,
    logged: Option<Stamps>,
    /// When the expiry of the certificate was warned of last.
    warned: Duration,
}

/// How often the expiry of the certificate is warned of.
const WARN_INTERVAL: Duration = Duration::from_secs(24 * 3600);

/// How often the files are checked for changes.
const WATCH_INTERVAL: Duration = Duration::from_secs(2);

impl ResolvesServerCert for ServerCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.load().key))
    }
}

impl Loaded {
    fn read(files: &Files) -> Result<Self, TlsError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |error| TlsError::Read(path, error)
        };
        let text = |path: &Path| file::bytes(path).map_err(pem::Error::Io).map_err(failed(path));
        let chain = text(&files.certificate)?;
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&chain)
            .collect::<Result<_, _>>()
            .map_err(failed(&files.certificate))?;
        let leaf = chain.first().ok_or_else(|| TlsError::Empty(files.certificate.clone()))?;
        let validity = Validity::of(leaf, &files.certificate)?;
        let key = Zeroizing::new(text(&files.key)?);
        let key = PrivateKeyDer::from_pem_slice(&key).map_err(failed(&files.key))?;
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let key = CertifiedKey::from_der(chain, key, &provider).map_err(|source| TlsError::Pair {
            certificate: files.certificate.clone(),
            key: files.key.clone(),
            source,
        })?;
        Ok(Self { key: Arc::new(key), validity })
    }
}

/// The state of both files, for noticing a change: inode, size and change time.
type Stamps = [Option<(u64, u64, i64, i64)>; 2];

fn stamps(files: &Files) -> Stamps {
    use std::os::unix::fs::MetadataExt as _;
    let stamp = |path: &Path| {
        let meta = std::fs::metadata(path).ok()?;
        Some((meta.ino(), meta.len(), meta.ctime(), meta.ctime_nsec()))
    };
    [stamp(&files.certificate), stamp(&files.key)]
}

/// The authorities in a PEM file, for verifying a server's certificate.
///
/// # Errors
/// The file cannot be read, or contains no certificate.
pub fn authorities(file: &Path) -> io::Result<RootCertStore> {
    let text = file::bytes(file)?;
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&text) {
        store.add(certificate.map_err(io::Error::other)?).map_err(io::Error::other)?;
    }
    if store.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it contains no certificate"));
    }
    Ok(store)
}
