//! Where a service listens, and how connections begin and end: TCP, a PROXY header, TLS 1.3, HTTP/1.1 and HTTP/2.
//!
//! REST and pages have one address, gRPC another, metrics a third, for this machine alone. All are served by the same code:
//! a router in, connections handled until it is told to stop. Then nobody new is taken, what is under way may end, and what
//! has not ended in time is cut off.

mod accept;
mod idle;
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

pub use settings::{ProxyProtocol, Settings};

use crate::http::Peer;

/// A socket that is served.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    proxy: ProxyProtocol,
    places: Arc<Semaphore>,
    most: u32,
    idle: Duration,
}

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} (server.{key}): stop what does, or name another")]
pub struct ListenError {
    /// The address.
    pub address: SocketAddr,
    /// The key that named it.
    pub key: &'static str,
    /// The system's word.
    #[source]
    pub source: std::io::Error,
}

/// Told when to stop. Cheap to copy.
pub type Stop = watch::Receiver<bool>;

impl Listener {
    /// Listens on an address of the configuration, which `key` names.
    ///
    /// # Errors
    /// The system refuses.
    pub async fn bind(
        address: SocketAddr,
        key: &'static str,
        tls: Option<Arc<ServerConfig>>,
        settings: &Settings,
    ) -> Result<Self, ListenError> {
        let socket =
            TcpListener::bind(address).await.map_err(|source| ListenError { address, key, source })?;
        // Metrics are asked for from this machine: nobody is in front of them.
        let proxy = if tls.is_some() { settings.proxy_protocol.clone() } else { ProxyProtocol::Off };
        let most = settings.max_connections;
        let places = Arc::new(Semaphore::new(most as usize));
        let idle = Duration::from_millis(settings.idle_timeout_ms);
        Ok(Self { socket, tls, proxy, places, most, idle })
    }

    /// Where it listens: with the port that the system chose, where port 0 was asked for.
    ///
    /// # Panics
    /// A bound socket has an address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.socket.local_addr().expect("a bound socket has an address")
    }

    /// Serves until it is told to stop, then for as long as `drain` what is under way.
    pub async fn serve(self, app: Router, mut stop: Stop, drain: Duration) {
        let tls = self.tls.map(TlsAcceptor::from);
        loop {
            let accepted = tokio::select! {
                accepted = accept::one(&self.socket, &self.places) => accepted,
                _ = stop.wait_for(|stop| *stop) => break,
            };
            let Some((stream, address, place)) = accepted else { continue };
            let one = Connection {
                tls: tls.clone(),
                proxy: self.proxy.clone(),
                app: app.clone(),
                idle: self.idle,
                stop: stop.clone(),
                place,
            };
            tokio::spawn(one.run(stream, address));
        }
        drop(self.socket);
        // Everybody has left when all places are free.
        if tokio::time::timeout(drain, self.places.acquire_many(self.most)).await.is_err() {
            tracing::warn!("some connections had not ended when the time for it was over");
        }
    }
}

struct Connection {
    tls: Option<TlsAcceptor>,
    proxy: ProxyProtocol,
    app: Router,
    idle: Duration,
    stop: Stop,
    place: OwnedSemaphorePermit,
}

impl Connection {
    async fn run(self, mut stream: TcpStream, address: SocketAddr) {
        let Self { tls, proxy, app, idle, mut stop, place: _place } = self;
        // A failure of a client's connection is the client's: it is told in the log of those who look for it.
        let said = |error: &dyn std::fmt::Display| tracing::debug!(%address, %error, "a connection failed");
        let begin = tokio::time::timeout(BEGIN, async {
            let client = accept::client(&mut stream, address, &proxy).await?;
            let stream = match &tls {
                None => accept::Stream::Plain(stream),
                Some(tls) => accept::Stream::Tls(Box::new(tls.accept(stream).await?)),
            };
            Ok::<_, std::io::Error>((client, stream))
        });
        let begun = tokio::select! {
            begun = begin => begun,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        let (client, stream) = match begun {
            Ok(Ok(begun)) => begun,
            Ok(Err(error)) => return said(&error),
            Err(late) => return said(&late),
        };
        let heard = Arc::new(AtomicBool::new(false));
        let hears = Arc::clone(&heard);
        let app = app.map_request(move |mut request: http::Request<hyper::body::Incoming>| {
            hears.store(true, Ordering::Relaxed);
            request.extensions_mut().insert(Peer(client));
            request.map(axum::body::Body::new)
        });
        let mut builder = Builder::new(TokioExecutor::new());
        let http1 = &mut builder.http1();
        http1.timer(TokioTimer::new()).header_read_timeout(idle).max_buf_size(HEAD_BYTES as usize);
        let http2 = &mut builder.http2();
        http2.timer(TokioTimer::new()).max_concurrent_streams(STREAMS).max_header_list_size(HEAD_BYTES);
        let (stream, moved) = idle::Watched::new(stream);
        let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(app));
        let mut connection = std::pin::pin!(connection);
        // Bytes alone are no reason to stay: whoever has a connection asks for something.
        let silent = async {
            tokio::time::sleep(idle).await;
            if heard.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            ended = connection.as_mut() => return ended.unwrap_or_else(|error| said(&*error)),
            () = silent => return said(&"nothing was asked"),
            () = moved.nothing_for(idle) => connection.as_mut().graceful_shutdown(),
            _ = stop.wait_for(|stop| *stop) => connection.as_mut().graceful_shutdown(),
        }
        // What is under way may end, as long as it gets on from here; not for ever, though.
        moved.now();
        tokio::select! {
            ended = connection.as_mut() => ended.unwrap_or_else(|error| said(&*error)),
            () = moved.nothing_for(idle) => said(&"nothing moved any more"),
            () = tokio::time::sleep(idle.saturating_mul(LEAVING)) => said(&"it does not end"),
        }
    }
}

/// How many times as long as it may be idle a connection that is to end may take to.
const LEAVING: u32 = 5;

/// Time that a client has for its PROXY header and TLS.
const BEGIN: Duration = Duration::from_secs(10);

/// The longest head of a request.
const HEAD_BYTES: u32 = 32 * 1024;

/// Requests at the same time on one connection.
const STREAMS: u32 = 256;

/// Says when SIGTERM or SIGINT came.
///
/// # Panics
/// There is no runtime, or signals cannot be waited for in it.
#[must_use]
pub fn stop_on_signal() -> Stop {
    let (tell, stop) = watch::channel(false);
    let mut terminate = signal(SignalKind::terminate()).expect("signals can be waited for");
    let mut interrupt = signal(SignalKind::interrupt()).expect("signals can be waited for");
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("told to stop");
        tell.send(true).unwrap_or(());
    });
    stop
}
