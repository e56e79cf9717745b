//! Where the admin API is served: a Unix socket that only its owner can open, and TCP with TLS and a token.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Server;

use super::auth::{TokenError, TokenFile};
use super::{Admin, grpc};
use crate::config::{AdminTcp, Config};
use crate::handover;
use crate::old_process::OldSocket;
use crate::private_socket::{SocketPath, bind_private};
use mcdsl::chain;

/// The open sockets of the admin API.
#[derive(Debug)]
pub(crate) struct Sockets {
    unix: UnixListener,
    path: SocketPath,
    tcp: Option<Tcp>,
    /// Where a new process asks for all this.
    handover: UnixListener,
    handover_path: SocketPath,
}

struct Tcp {
    listener: TcpListener,
    tls: TlsAcceptor,
    token: TokenFile,
}

/// Why the admin API cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Somebody answers on the socket.
    #[error("another mc-proxy runs with {0}: stop it, or use another --root or admin.socket")]
    Runs(PathBuf),
    /// Something else has the path.
    #[error("{0} exists and is no socket: remove it, or set admin.socket")]
    NoSocket(PathBuf),
    /// The socket cannot be made.
    #[error("cannot listen on {0}: see that its directory exists and is writable")]
    Unix(PathBuf, #[source] io::Error),
    /// The address cannot be had.
    #[error("admin.tcp.listen_addr: cannot listen on {0}: see `ss -ltnp`, or choose another")]
    Tcp(SocketAddr, #[source] io::Error),
    /// The certificate or key is no good.
    #[error("{key}: {path}: {problem}")]
    Tls {
        /// Which setting.
        key: &'static str,
        /// Its file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The token is no good.
    #[error("admin.tcp.token_file: {0}")]
    Token(#[from] TokenError),
}

impl Sockets {
    /// Opens what the configuration names. Calls wait in the sockets' queues until [`Self::serve`].
    pub(crate) async fn open(config: &Config, handed: Option<Beside>) -> Result<Self, ListenError> {
        let handover_path = config.server.root.join(handover::PATH);
        let (unix, handover, admin_tcp) = match handed {
            Some(Beside { unix, handover, admin_tcp }) => (Some(unix), Some(handover), admin_tcp),
            None => (None, None, None),
        };
        let (unix, path) = open_unix(&config.socket(), unix)?;
        let (handover, handover_path) = open_unix(&handover_path, handover)?;
        let tcp = match &config.admin.tcp {
            Some(tcp) => Some(Tcp::open(config, tcp, admin_tcp).await?),
            None => None,
        };
        Ok(Self { unix, path, tcp, handover, handover_path })
    }

    /// The sockets once more, for another process.
    ///
    /// # Errors
    /// No descriptor is left.
    pub(crate) fn beside(&self) -> io::Result<Beside> {
        let admin_tcp = match &self.tcp {
            Some(tcp) => Some((tcp.listener.local_addr()?, tcp.listener.as_fd().try_clone_to_owned()?)),
            None => None,
        };
        Ok(Beside {
            unix: self.unix.as_fd().try_clone_to_owned()?,
            handover: self.handover.as_fd().try_clone_to_owned()?,
            admin_tcp,
        })
    }

    /// The TCP address, with the port that the kernel chose where 0 was asked.
    #[cfg(test)]
    pub(crate) fn tcp_address(&self) -> Option<SocketAddr> {
        self.tcp.as_ref()?.listener.local_addr().ok()
    }

    /// Serves until `stop` is true, then ends open calls within a second. The name of the sockets stays where another process
    /// has taken over.
    pub(crate) async fn serve(self, admin: Admin, stop: watch::Receiver<bool>, handing: Handing) {
        let Self { unix, mut path, tcp, handover, mut handover_path } = self;
        let handing_over = tokio::spawn(hand_over(handover, admin.clone(), handing));
        let is_over = admin.clone();
        let service = grpc::service(admin);
        let over_unix = builder()
            .add_service(service.clone())
            .serve_with_incoming_shutdown(UnixListenerStream::new(unix), stopped(stop.clone()));
        let over_tcp = async {
            let Some(Tcp { listener, tls, token }) = tcp else { return Ok(()) };
            let service = InterceptedService::new(service, move |request| grpc::authorize(&token, request));
            let (accepted, incoming) = mpsc::channel(1);
            let accepting = tokio::spawn(accept(listener, tls, accepted));
            let served = builder()
                .add_service(service)
                .serve_with_incoming_shutdown(ReceiverStream::new(incoming), stopped(stop.clone()))
                .await;
            accepting.abort();
            served
        };
        let both = async {
            for served in <[_; 2]>::from(tokio::join!(over_unix, over_tcp)) {
                if let Err(error) = served {
                    tracing::error!(error = chain(&error), "the admin API has ended");
                }
            }
        };
        // Watchers never end by themselves.
        let late = async {
            stopped(stop.clone()).await;
            tokio::time::sleep(LAST_CALLS).await;
        };
        tokio::select! {
            () = both => {}
            () = late => {}
        }
        handing_over.abort();
        let is_over = is_over.is_over().await;
        (path.is_kept, handover_path.is_kept) = (is_over, is_over);
    }
}

impl Tcp {
    async fn open(
        config: &Config,
        tcp: &AdminTcp,
        handed: Option<(SocketAddr, OwnedFd)>,
    ) -> Result<Self, ListenError> {
        let token = TokenFile::new(config.resolve(&tcp.token_file));
        token.check()?;
        let tls = tls(&config.resolve(&tcp.certificate), &config.resolve(&tcp.key))?;
        let failed = |error| ListenError::Tcp(tcp.listen_addr, error);
        let listener = match handed {
            Some((address, fd)) if address == tcp.listen_addr => {
                TcpListener::from_std(fd.into()).map_err(failed)?
            }
            _ => TcpListener::bind(tcp.listen_addr).await.map_err(failed)?,
        };
        Ok(Self { listener, tls, token })
    }
}

impl std::fmt::Debug for Tcp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tcp")
            .field("listener", &self.listener)
            .field("token", &self.token)
            .finish_non_exhaustive()
    }
}

/// The sockets of the admin side, as they are handed over.
pub(crate) struct Beside {
    pub(crate) unix: OwnedFd,
    pub(crate) handover: OwnedFd,
    pub(crate) admin_tcp: Option<(SocketAddr, OwnedFd)>,
}

/// What it takes to hand over.
pub(crate) struct Handing {
    pub(crate) beside: io::Result<Beside>,
    pub(crate) metrics: Option<(SocketAddr, OwnedFd)>,
    /// The folder in which this process is found as an old one.
    pub(crate) root: PathBuf,
    /// Told when another process has taken over, with the socket at which this one is asked from then on.
    pub(crate) over: mpsc::Sender<Option<OldSocket>>,
}

/// Hands over to whoever asks, until one has taken over.
async fn hand_over(listener: UnixListener, admin: Admin, handing: Handing) {
    let Handing { beside, metrics, root, over } = handing;
    let mut beside = match beside {
        Ok(beside) => Some((beside, metrics)),
        Err(error) => return tracing::warn!(%error, "nobody can take over from this process"),
    };
    loop {
        let Ok(stream) = listener.accept().await.and_then(|(stream, _)| stream.into_std()) else {
            // No descriptor is left: perhaps there is one later.
            tokio::time::sleep(Duration::from_secs(1)).await;
            continue;
        };
        let Some((sockets, metrics)) = beside.take() else { return };
        match admin.hand_over(stream, sockets, metrics, &root).await {
            // Who would hear it has ended.
            Ok(old) => return over.send(old).await.unwrap_or(()),
            Err(back) => beside = back,
        }
    }
}

/// The socket that was handed over, or a new one.
fn open_unix(path: &Path, handed: Option<OwnedFd>) -> Result<(UnixListener, SocketPath), ListenError> {
    let Some(fd) = handed else { return bind_unix(path) };
    let listener = UnixListener::from_std(fd.into());
    let listener = listener.map_err(|error| ListenError::Unix(path.to_owned(), error))?;
    // Until this process serves, it is the other's.
    Ok((listener, SocketPath::new(path, true)))
}

/// A Unix socket with mode 0600 from its first moment: the mode is set before it has a name (unix(7): the
/// file takes it from the socket, less the umask).
fn bind_unix(path: &Path) -> Result<(UnixListener, SocketPath), ListenError> {
    let failed = |error| ListenError::Unix(path.to_owned(), error);
    make_way(path)?;
    let listener = bind_private(path).map_err(failed)?;
    Ok((listener, SocketPath::new(path, false)))
}

/// Removes the socket that a process left behind which is no more.
fn make_way(path: &Path) -> Result<(), ListenError> {
    let failed = |error| ListenError::Unix(path.to_owned(), error);
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(found) if !found.file_type().is_socket() => return Err(ListenError::NoSocket(path.to_owned())),
        Ok(_) => {}
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(ListenError::Runs(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            tracing::info!(path = %path.display(), "replacing the socket of a process that is gone");
            std::fs::remove_file(path).map_err(failed)
        }
        Err(error) => Err(failed(error)),
    }
}

/// TLS 1.3 only: every client of this API is ours.
fn tls(certificate: &Path, key: &Path) -> Result<TlsAcceptor, ListenError> {
    let wrong = |key, path: &Path, problem: String| ListenError::Tls { key, path: path.to_owned(), problem };
    let certificates = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| wrong("admin.tcp.certificate", certificate, error.to_string()))?;
    if certificates.is_empty() {
        let problem = "there is no certificate in it: put the chain there, PEM".to_owned();
        return Err(wrong("admin.tcp.certificate", certificate, problem));
    }
    let secret =
        PrivateKeyDer::from_pem_file(key).map_err(|error| wrong("admin.tcp.key", key, error.to_string()))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider has TLS 1.3")
        .with_no_client_auth()
        .with_single_cert(certificates, secret)
        .map_err(|error| wrong("admin.tcp.key", key, format!("does not fit the certificate: {error}")))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Accepts and shakes hands, a bounded number at a time, each within a time.
async fn accept(
    listener: TcpListener,
    tls: TlsAcceptor,
    accepted: mpsc::Sender<io::Result<TlsStream<TcpStream>>>,
) {
    let room = Arc::new(Semaphore::new(HANDSHAKES));
    loop {
        let permit = Arc::clone(&room).acquire_owned().await;
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, most likely: others will be closed meanwhile.
                tracing::warn!(%error, "cannot accept an admin connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (tls, accepted) = (tls.clone(), accepted.clone());
        tokio::spawn(async move {
            let shaken = tokio::time::timeout(HANDSHAKE_TIME, tls.accept(stream)).await;
            drop(permit);
            match shaken {
                // The server may have stopped meanwhile.
                Ok(Ok(stream)) => accepted.send(Ok(stream)).await.unwrap_or(()),
                Ok(Err(error)) => {
                    tracing::debug!(%peer, %error, "TLS handshake of an admin connection failed")
                }
                Err(_late) => tracing::debug!(%peer, "TLS handshake of an admin connection took too long"),
            }
        });
    }
}

fn builder() -> Server {
    Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        .max_concurrent_streams(128)
}

/// Ends when `stop` is true or nobody can make it so any more.
async fn stopped(mut stop: watch::Receiver<bool>) {
    drop(stop.wait_for(|&stop| stop).await);
}

/// Handshakes at the same time.
const HANDSHAKES: usize = 64;

/// Time for a handshake.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);

/// Time for open calls to end when the proxy stops.
const LAST_CALLS: Duration = Duration::from_secs(1);
