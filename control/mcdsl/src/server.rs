//! Listeners of a service, and how connections begin and end: TCP, a PROXY header, TLS 1.3, HTTP/1.1 and HTTP/2.
//!
//! REST and pages have one address, gRPC another, metrics a third, for this machine alone. All are served by the same
//! code: a router in, connections handled until the server stops. Then no new connection is accepted, requests in
//! progress may end, and connections that have not ended in time are cut off.
//!
//! Limits hold before there is a request: connections in total and by source, time for the handshake, streams and
//! unread bytes of each HTTP/2 connection.

mod accept;
mod idle;
mod linger;
mod metrics;
mod settings;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

pub use metrics::ConnectionMetrics;
use settings::Header;
pub use settings::{ProxyProtocol, Settings};

use crate::http::Peer;
use crate::quota::{Quota, Share};
use metrics::Refusal;

/// A socket that is served.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    proxy: ProxyProtocol,
    slots: Arc<Semaphore>,
    max_connections: u32,
    sources: Arc<Quota>,
    idle: Duration,
    metrics: Arc<ConnectionMetrics>,
}

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error(
    "Cannot listen on {address} (server.{key}): stop the program that does, or configure another address"
)]
pub struct ListenError {
    pub address: SocketAddr,
    /// The configuration key that named it.
    pub key: &'static str,
    #[source]
    pub source: std::io::Error,
}

/// Becomes true when the server is to stop. Cheap to clone.
pub type Stop = watch::Receiver<bool>;

impl Listener {
    /// Listens on an address of the configuration, which `key` names.
    ///
    /// # Errors
    /// Returns an error if the system refuses the address.
    pub async fn bind(
        address: SocketAddr,
        key: &'static str,
        tls: Option<Arc<ServerConfig>>,
        settings: &Settings,
    ) -> Result<Self, ListenError> {
        let socket =
            TcpListener::bind(address).await.map_err(|source| ListenError { address, key, source })?;
        // Metrics are read from this machine, without a proxy in between.
        let proxy = if tls.is_some() { settings.proxy_protocol.clone() } else { ProxyProtocol::Off };
        let max_connections = settings.max_connections;
        Ok(Self {
            socket,
            tls,
            proxy,
            slots: Arc::new(Semaphore::new(max_connections as usize)),
            max_connections,
            sources: Quota::new(usize::MAX, settings.max_connections_per_source as usize),
            idle: Duration::from_millis(settings.idle_timeout_ms),
            metrics: Arc::new(ConnectionMetrics::new(key)),
        })
    }

    /// The address: with the port that the system chose, where port 0 was configured.
    ///
    /// # Panics
    /// A bound socket has an address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.socket.local_addr().expect("a bound socket has an address")
    }

    /// The counters, which outlive the listener.
    #[must_use]
    pub fn metrics(&self) -> Arc<ConnectionMetrics> {
        Arc::clone(&self.metrics)
    }

    /// Serves until `stop` becomes true, then waits up to `drain` for requests in progress.
    pub async fn serve(self, app: Router, mut stop: Stop, drain: Duration) {
        let tls = self.tls.map(TlsAcceptor::from);
        loop {
            let accepted = tokio::select! {
                accepted = accept::one(&self.socket, &self.slots) => accepted,
                _ = stop.wait_for(|stop| *stop) => break,
            };
            let Some((stream, address, slot)) = accepted else { continue };
            let open = Open::new(&self.metrics, &self.sources, slot);
            let Some(open) = open.count_direct(address, &self.proxy) else {
                // A reset, so that the kernel keeps nothing of it either.
                stream.set_zero_linger().ok();
                continue;
            };
            let connection = Connection {
                tls: tls.clone(),
                proxy: self.proxy.clone(),
                app: app.clone(),
                idle: self.idle,
                stop: stop.clone(),
                open,
            };
            tokio::spawn(connection.run(stream, address));
        }
        drop(self.socket);
        // All connections have ended when all slots are free.
        if tokio::time::timeout(drain, self.slots.acquire_many(self.max_connections)).await.is_err() {
            tracing::warn!("some connections had not ended within server.drain_timeout_ms");
        }
    }
}

/// What a connection holds while it is open: a slot, and a share of its source's connections once the source is known.
struct Open {
    metrics: Arc<ConnectionMetrics>,
    sources: Arc<Quota>,
    share: Option<Share>,
    _slot: OwnedSemaphorePermit,
}

impl Open {
    fn new(metrics: &Arc<ConnectionMetrics>, sources: &Arc<Quota>, slot: OwnedSemaphorePermit) -> Self {
        metrics.accepted.fetch_add(1, Ordering::Relaxed);
        metrics.open.fetch_add(1, Ordering::Relaxed);
        Self { metrics: Arc::clone(metrics), sources: Arc::clone(sources), share: None, _slot: slot }
    }

    /// Counts a connection that must not begin with a PROXY header. This machine's own are not counted. `None`: its source
    /// has too many.
    fn count_direct(self, address: SocketAddr, proxy: &ProxyProtocol) -> Option<Self> {
        let ip = address.ip().to_canonical();
        if proxy.header_from(ip) != Header::None || ip.is_loopback() {
            Some(self)
        } else {
            self.count(address)
        }
    }

    fn count(mut self, address: SocketAddr) -> Option<Self> {
        match self.sources.take(address.ip(), 1) {
            Ok(share) => {
                self.share = Some(share);
                Some(self)
            }
            Err(_) => {
                self.metrics.refuse(Refusal::SourceLimit);
                None
            }
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.metrics.open.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Connection {
    tls: Option<TlsAcceptor>,
    proxy: ProxyProtocol,
    app: Router,
    idle: Duration,
    stop: Stop,
    open: Open,
}

/// Failures of a client's connection are the client's: they are logged for debugging only.
fn log_failure(address: SocketAddr, error: &dyn std::fmt::Display) {
    tracing::debug!(%address, %error, "a connection failed");
}

impl Connection {
    async fn run(self, mut stream: TcpStream, address: SocketAddr) {
        let Self { tls, proxy, app, idle, mut stop, mut open } = self;
        let metrics = Arc::clone(&open.metrics);
        let failed = |error: &dyn std::fmt::Display| log_failure(address, error);
        let handshake = tokio::time::timeout(HANDSHAKE_TIME, async {
            let mut client = address;
            let ip = address.ip().to_canonical();
            let header = proxy.header_from(ip);
            if header != Header::None {
                let source = match accept::proxy_header(&mut stream, header == Header::Optional).await {
                    Ok(source) => source,
                    Err(error) => {
                        if metrics.refuse(Refusal::ProxyHeader) {
                            tracing::warn!(
                                %address, %error,
                                "a connection from a network of server.proxy_protocol was closed; further ones are counted only"
                            );
                        }
                        return Err(error);
                    }
                };
                if let Some(source) = source {
                    client = source;
                    open = open.count(source).ok_or(std::io::ErrorKind::QuotaExceeded)?;
                } else if header == Header::Optional && !ip.is_loopback() {
                    open = open.count(address).ok_or(std::io::ErrorKind::QuotaExceeded)?;
                }
            }
            let stream = match &tls {
                None => accept::Stream::Plain(stream),
                Some(tls) => {
                    let accepted = tls.accept(stream).await;
                    let stream = accepted.inspect_err(|_| {
                        metrics.refuse(Refusal::Tls);
                    })?;
                    accept::Stream::Tls(Box::new(stream))
                }
            };
            Ok::<_, std::io::Error>((client, stream, open))
        });
        let handshaken = tokio::select! {
            handshaken = handshake => handshaken,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        let (client, stream, _open) = match handshaken {
            Ok(Ok(handshaken)) => handshaken,
            Ok(Err(error)) => return failed(&error),
            Err(elapsed) => {
                metrics.refuse(Refusal::Timeout);
                return failed(&elapsed);
            }
        };
        let client = SocketAddr::new(client.ip().to_canonical(), client.port());
        let has_request = Arc::new(AtomicBool::new(false));
        let set_request = Arc::clone(&has_request);
        let app = app.map_request(move |mut request: http::Request<hyper::body::Incoming>| {
            set_request.store(true, Ordering::Relaxed);
            request.extensions_mut().insert(Peer(client));
            request.map(axum::body::Body::new)
        });
        let (stream, activity) = idle::Watched::new(linger::Lingering::new(stream));
        let builder = builder(idle);
        let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(app));
        let mut connection = std::pin::pin!(connection);
        // Bytes alone do not keep a connection: it must carry a request.
        let no_request = async {
            tokio::time::sleep(idle).await;
            if has_request.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            ended = connection.as_mut() => return ended.unwrap_or_else(|error| failed(&*error)),
            () = no_request => return failed(&"no request arrived"),
            () = activity.idle_for(idle) => connection.as_mut().graceful_shutdown(),
            _ = stop.wait_for(|stop| *stop) => connection.as_mut().graceful_shutdown(),
        }
        // Requests in progress may end, as long as bytes are transferred; but not for ever.
        activity.record();
        tokio::select! {
            ended = connection.as_mut() => ended.unwrap_or_else(|error| failed(&*error)),
            () = activity.idle_for(idle) => failed(&"it is idle while it shuts down"),
            () = tokio::time::sleep(idle.saturating_mul(SHUTDOWN_FACTOR)) => failed(&"it does not shut down"),
        }
    }
}

/// HTTP's limits on a connection.
fn builder(idle: Duration) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    let http1 = &mut builder.http1();
    http1.timer(TokioTimer::new()).header_read_timeout(idle).max_buf_size(HEAD_BYTES as usize);
    let http2 = &mut builder.http2();
    http2
        .timer(TokioTimer::new())
        .max_header_list_size(HEAD_BYTES)
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(MAX_RESETS_BEFORE_ACCEPT)
        .max_local_error_reset_streams(MAX_LOCAL_RESETS);
    builder
}

/// How many times the idle time a connection may take to shut down.
const SHUTDOWN_FACTOR: u32 = 5;

/// Time that a client has for its PROXY header and the TLS handshake.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);

/// The longest head of a request.
const HEAD_BYTES: u32 = 32 * 1024;

/// Requests at the same time on one connection.
const MAX_STREAMS: u32 = 100;

/// Bytes of one stream, and of all streams of a connection, that a client may send before the server has read them. This is
/// what unread bodies can take of the memory.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 256 * 1024;

/// Bytes of a response that wait for one stream's client to read.
const SEND_BUFFER: usize = 64 * 1024;

/// Streams that a client reset before they were accepted, at most at the same time: rapid reset (CVE-2023-44487) costs it
/// the connection.
const MAX_RESETS_BEFORE_ACCEPT: usize = 20;

/// Streams that the server reset because of the client's errors, over the life of a connection; then it closes the connection
/// (CVE-2025-8671). Data of a body that was refused counts too when it arrives late, so that it must not be few.
const MAX_LOCAL_RESETS: usize = 1024;

/// Becomes true on SIGTERM or SIGINT.
///
/// # Panics
/// Panics outside of a runtime, and if signals cannot be waited for.
#[must_use]
pub fn stop_on_signal() -> Stop {
    let (sender, stop) = watch::channel(false);
    let mut terminate = signal(SignalKind::terminate()).expect("signals can be waited for");
    let mut interrupt = signal(SignalKind::interrupt()).expect("signals can be waited for");
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
        sender.send(true).unwrap_or(());
    });
    stop
}
