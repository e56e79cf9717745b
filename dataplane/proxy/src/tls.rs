//! TLS: certificates by name, session tickets, one configuration that all workers share, and whom routes trust.
//!
//! Certificates are files: each `*.pem` of one folder holds a private key and its chain, and serves the names
//! that its leaf has. They are read again when they change, on SIGHUP, and when an operator asks; a file that
//! cannot be used leaves what it held before in use and is named in the log, as is a certificate that expires.

mod authorities;
mod certificates;
mod tickets;
mod warnings;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use mc_core::model::ClientAuth;
use mc_uring::ktls::KernelTls;
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::clock;

pub use authorities::{Asked, Authorities, Authority, AuthorityError, AuthorityProblem, BackendTls, Trust};
pub(crate) use certificates::fingerprint;
pub use certificates::{CertificateError, CertificateInfo, Certificates, Leaf, Shadowed};
pub use tickets::{TicketError, Tickets};
pub use warnings::{is_reminder_due, log_warnings};

/// What terminates TLS.
#[derive(Debug)]
pub struct Tls {
    folder: PathBuf,
    certificates: Arc<ArcSwap<Certificates>>,
    /// Held while files are read, so that two reloads do not overtake each other.
    reload: Mutex<()>,
    server: Server,
    config: Arc<ServerConfig>,
    /// Whom routes trust.
    pub authorities: Authorities,
    /// What the kernel does; or why nothing.
    kernel: Result<KernelTls, String>,
}

/// What a reload came to.
#[derive(Debug, Default)]
pub struct Reloaded {
    /// Files that are in use now.
    pub files: usize,
    /// Files that cannot be used: what they held before stays in use.
    pub problems: Vec<CertificateError>,
    /// Certificates that expire or that no client is shown, a sentence for each.
    pub warnings: Vec<String>,
}

impl Reloaded {
    /// Writes it to the log.
    pub fn log(&self) {
        for problem in &self.problems {
            tracing::error!("Certificate file cannot be used, what it held before stays in use: {problem}");
        }
        log_warnings(&self.warnings);
        tracing::info!(files = self.files, "certificates are loaded");
    }
}

/// Finds the certificate for the name that a client asks for.
#[derive(Debug)]
struct ByName(Arc<ArcSwap<Certificates>>);

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load().find(hello.server_name(), hello.signature_schemes(), clock::unix_seconds())
    }
}

impl Tls {
    /// Reads the certificates of `folder` and the ticket keys of `ticket_file`, which is made where it is not
    /// there. `kernel`: what the kernel takes over after handshakes, or why nothing. A folder that does not exist holds no certificate. Paths that routes name begin at `root`.
    ///
    /// # Errors
    /// The ticket file cannot be used. Certificates that cannot be are for the caller to tell of.
    pub fn open(
        folder: &Path,
        ticket_file: &Path,
        root: &Path,
        unix_s: u64,
        kernel: Result<KernelTls, String>,
    ) -> Result<(Self, Reloaded), TicketError> {
        let tickets = Arc::new(Tickets::open(ticket_file, unix_s)?);
        let certificates = Arc::new(ArcSwap::from_pointee(Certificates::default()));
        let by_name = Arc::new(ByName(Arc::clone(&certificates)));
        let server = Server { tickets, by_name, gives_keys: kernel.is_ok() };
        let config = Arc::new(server.config(None, &[]));
        let authorities = Authorities::new(root);
        let folder = folder.to_owned();
        let tls = Self { folder, certificates, reload: Mutex::new(()), server, config, authorities, kernel };
        let reloaded = tls.reload();
        Ok((tls, reloaded))
    }

    /// What the kernel does of TLS; or why it does nothing of it.
    ///
    /// # Errors
    /// In words.
    pub fn kernel(&self) -> Result<&KernelTls, &str> {
        self.kernel.as_ref().map_err(String::as_str)
    }

    /// Reads all certificates again. Handshakes that are under way keep what they began with.
    pub fn reload(&self) -> Reloaded {
        let _one_at_a_time = self.reload.lock().unwrap_or_else(PoisonError::into_inner);
        let (next, problems) = Certificates::load(&self.folder, &self.certificates.load(), &provider());
        let files = next.len();
        self.certificates.store(Arc::new(next));
        Reloaded { files, problems, warnings: self.warnings(clock::unix_seconds()) }
    }

    /// Certificates that expire or that no client is shown at this time, a sentence for each.
    #[must_use]
    pub fn warnings(&self, now_s: i64) -> Vec<String> {
        warnings::warnings(&self.certificates(now_s), now_s)
    }

    /// Whether a file of the folder is not the one that was read.
    #[must_use]
    pub fn has_changed(&self) -> bool {
        self.certificates.load().has_changed(&self.folder)
    }

    /// The folder's files at this time.
    #[must_use]
    pub fn certificates(&self, now_s: i64) -> Vec<CertificateInfo> {
        self.certificates.load().infos(now_s)
    }

    /// Whether there is a certificate for this name.
    #[must_use]
    pub fn serves(&self, name: Option<&str>) -> bool {
        self.certificates.load().serves(name)
    }

    /// Makes a new ticket key where the current one is a day old.
    ///
    /// # Errors
    /// The file cannot be written; the current key stays in use.
    pub fn rotate_tickets(&self, unix_s: u64) -> Result<(), TicketError> {
        self.server.tickets.rotate(unix_s)
    }

    /// When the current session ticket key was made, in seconds of Unix time.
    #[must_use]
    pub fn ticket_key_made_s(&self) -> u64 {
        self.server.tickets.made_s()
    }

    /// What handshakes are made with where clients are asked so, and verified by `authority`; `None`: they could not be.
    #[must_use]
    pub fn config(&self, auth: ClientAuth, authority: Option<&Authority>) -> Option<Arc<ServerConfig>> {
        if auth == ClientAuth::Off {
            return Some(Arc::clone(&self.config));
        }
        authority?.trust()?.server_config(auth, &self.server)
    }
}

/// The cryptography in use: aws-lc-rs, X25519MLKEM768 among its key exchanges.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// What all handshakes as a server have in common.
#[derive(Debug)]
pub(crate) struct Server {
    tickets: Arc<Tickets>,
    by_name: Arc<ByName>,
    /// Whether keys are handed to the kernel.
    gives_keys: bool,
}

impl Server {
    /// `verifier`: where clients are asked for a certificate. Tickets are good for handshakes of the same `context` only.
    fn config(&self, verifier: Option<Arc<dyn ClientCertVerifier>>, context: &[u8]) -> ServerConfig {
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("the provider has suites for TLS 1.2 and 1.3");
        let builder = match verifier {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::clone(&self.by_name) as _);
        // Old clients offer only `http/1.0`, and would be refused where it is not known.
        config.alpn_protocols = [b"h2".as_slice(), b"http/1.1", b"http/1.0"].map(<[u8]>::to_vec).into();
        config.ticketer = Arc::new(tickets::Bound::new(&self.tickets, context));
        // Sessions live in tickets alone: nothing is kept for clients that do not come back.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.enable_secret_extraction = self.gives_keys;
        config
    }
}
