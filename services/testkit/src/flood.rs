//! A hostile HTTP/2 client: many streams on few connections, each with a large body that nobody asked for.
//!
//! It keeps to the protocol (windows, concurrent streams), because a server ends a connection that does not.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use rustls::pki_types::ServerName;
use tokio::net::TcpSocket;

use crate::ca::Ca;
use crate::client::Request;

/// What each stream asks for.
#[derive(Clone, Debug)]
pub struct Target {
    pub method: http::Method,
    /// Path and query.
    pub path: String,
    pub content_type: &'static str,
    /// The beginning of each body; the rest is filled up.
    pub prefix: Vec<u8>,
}

/// How much of it.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub connections: usize,
    /// Streams of each connection, as many at a time as the server allows.
    pub streams: usize,
    /// Bytes of each body.
    pub body: usize,
    pub then: Then,
    /// The flood ends after this time at the latest.
    pub max_time: Duration,
}

/// What happens to a stream whose body is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// It ends, and its response is awaited.
    End,
    /// It stays open, and its response is awaited.
    Wait,
    /// It stays open until all streams are sent or answered; then the flood is over.
    Hold,
}

/// How the streams ended.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// By status (`503`, `grpc 16`), `reset` or `open`.
    pub streams: BTreeMap<String, usize>,
    pub bytes_sent: usize,
}

/// A server to flood.
#[derive(Clone, Copy, Debug)]
pub struct Server<'a> {
    pub ca: &'a Ca,
    pub address: SocketAddr,
    pub name: &'a str,
    /// The client's address.
    pub from: IpAddr,
}

/// Floods it, from its own thread's runtime.
///
/// # Panics
/// Panics if no connection can be made.
#[must_use]
pub fn flood(server: Server<'_>, target: &Target, load: Load) -> Outcome {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be built");
    let outcome = Arc::new(Mutex::new(Outcome::default()));
    let config = Request::new(server.ca, server.address, server.name)
        .alpn(&["h2"])
        .config()
        .expect("the authority's certificate is valid");
    let connections: Vec<_> = (0..load.connections)
        .map(|_| {
            let opened = runtime.block_on(open(server, Arc::clone(&config)));
            opened.unwrap_or_else(|error| panic!("cannot connect to {}: {error}", server.address))
        })
        .collect();
    let run = async {
        let mut tasks = Vec::new();
        for send in connections {
            tasks.push(tokio::spawn(run(send, target.clone(), load, Arc::clone(&outcome))));
        }
        for task in tasks {
            task.await.ok();
        }
    };
    // Streams that are still open when the time is over stay counted as such.
    runtime.block_on(async { tokio::time::timeout(load.max_time, run).await.ok() });
    drop(runtime);
    outcome.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

async fn open(server: Server<'_>, config: Arc<rustls::ClientConfig>) -> io::Result<SendRequest<Bytes>> {
    let socket = if server.address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.bind(SocketAddr::new(server.from, 0))?;
    let stream = socket.connect(server.address).await?;
    let name = ServerName::try_from(server.name.to_owned()).map_err(io::Error::other)?;
    let tls = tokio_rustls::TlsConnector::from(config).connect(name, stream).await?;
    let mut builder = h2::client::Builder::new();
    builder.initial_max_send_streams(0).max_send_buffer_size(64 * 1024);
    let (send, connection) = builder.handshake(tls).await.map_err(io::Error::other)?;
    tokio::spawn(async move { connection.await.ok() });
    Ok(send)
}

async fn run(send: SendRequest<Bytes>, target: Target, load: Load, outcome: Arc<Mutex<Outcome>>) {
    let mut tasks = Vec::new();
    let held = Held::default();
    for _ in 0..load.streams {
        let Ok(mut ready) = send.clone().ready().await else { break };
        let mut request = http::Request::builder()
            .method(target.method.clone())
            .uri(format!("https://mcias.test{}", target.path))
            .header("content-type", target.content_type);
        if target.content_type.starts_with("application/grpc") {
            request = request.header("te", "trailers");
        }
        let request = request.body(()).expect("the target is a valid request");
        let Ok((response, body)) = ready.send_request(request, false) else { break };
        let counted = Counted { outcome: Arc::clone(&outcome), label: "open".to_owned() };
        tasks.push(tokio::spawn(stream(
            response,
            body,
            target.prefix.clone(),
            load,
            counted,
            Arc::clone(&held),
        )));
    }
    for task in tasks {
        task.await.ok();
    }
}

/// Streams that stay open: a stream that is dropped is reset.
type Held = Arc<Mutex<Vec<SendStream<Bytes>>>>;

/// Counts a stream when it ends, in whichever way.
struct Counted {
    outcome: Arc<Mutex<Outcome>>,
    label: String,
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut outcome = self.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        *outcome.streams.entry(std::mem::take(&mut self.label)).or_default() += 1;
    }
}

async fn stream(
    response: ResponseFuture,
    mut body: SendStream<Bytes>,
    prefix: Vec<u8>,
    load: Load,
    mut counted: Counted,
    held: Held,
) {
    let outcome = Arc::clone(&counted.outcome);
    let sending = async {
        let (mut left, mut next) = (load.body, Bytes::from(prefix));
        while left > 0 {
            if next.is_empty() {
                next = Bytes::from_static(&FILLER);
            }
            body.reserve_capacity(next.len().min(left));
            let Some(Ok(size)) = std::future::poll_fn(|cx| body.poll_capacity(cx)).await else {
                return false;
            };
            let piece = next.split_to(size.min(left).min(next.len()));
            left -= piece.len();
            outcome.lock().unwrap_or_else(PoisonError::into_inner).bytes_sent += piece.len();
            let ends = load.then == Then::End && left == 0;
            if body.send_data(piece, ends).is_err() {
                return false;
            }
        }
        true
    };
    let answered = async {
        match response.await {
            Ok(response) => label(response).await,
            Err(error) if error.is_reset() || error.is_go_away() => "reset".to_owned(),
            Err(error) => format!("{error}"),
        }
    };
    tokio::pin!(answered);
    let is_sent = tokio::select! {
        is_sent = sending => is_sent,
        label = &mut answered => {
            counted.label = label;
            return;
        }
    };
    if is_sent && load.then == Then::Hold {
        held.lock().unwrap_or_else(PoisonError::into_inner).push(body);
    } else {
        counted.label = answered.await;
    }
}

/// What a response says, once it is whole.
async fn label(response: http::Response<RecvStream>) -> String {
    let status = response.status().as_u16().to_string();
    let grpc = |headers: &http::HeaderMap| {
        let code = headers.get("grpc-status")?.to_str().ok()?;
        Some(format!("grpc {code}"))
    };
    if let Some(label) = grpc(response.headers()) {
        return label;
    }
    let mut body = response.into_body();
    while let Some(Ok(data)) = body.data().await {
        body.flow_control().release_capacity(data.len()).ok();
    }
    let trailers = body.trailers().await.ok().flatten();
    trailers.as_ref().and_then(grpc).unwrap_or(status)
}

/// Neither the end of a JSON text or form nor of a gRPC message.
static FILLER: [u8; 16 * 1024] = [b'a'; 16 * 1024];
