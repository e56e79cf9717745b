//! Connections to backends that speak HTTP/2: each carries many requests at the same time.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use foldhash::HashMap;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, SendStream};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::uri::Scheme;
use http::{Method, StatusCode, Uri, Version};
use mc_core::http1::{Facts, Known, for_backend};
use mc_core::outcome::RequestOutcome;
use mc_core::policy::FieldRef;
use mc_uring::runtime;

use super::checks;
use super::fault::Fault;
use super::open::{Key, Opened};
use super::sides::Progress;
use super::stream::Stream;
use super::wire::{self, Wire};
use crate::worker::Worker;
use crate::worker::connect::OnBackend;

/// A backend's connection.
pub(super) struct Mux {
    sender: SendRequest<Bytes>,
    active: Cell<usize>,
    idle_since_ms: Cell<u64>,
    /// It takes no more requests.
    gone: Cell<bool>,
    is_tls: bool,
}

/// The right to make one request on a backend's connection.
pub(super) struct Channel {
    mux: Rc<Mux>,
    /// It has carried a request before: it may turn out to be closed.
    pub(super) reused: bool,
    worker: Rc<Worker>,
    _on_backend: OnBackend,
}

/// A worker's HTTP/2 connections.
#[derive(Default)]
pub(super) struct MuxPool(RefCell<HashMap<Key, Vec<Rc<Mux>>>>);

/// Requests at the same time on one connection, unless the backend allows fewer.
const STREAMS: u32 = 100;

/// How long a connection without requests is kept, in milliseconds.
const KEPT_MS: u64 = 30_000;

/// Bytes that a backend may send on one stream before the client has taken them.
const WINDOW: u32 = 256 * 1024;

/// The same for all streams of a connection: as much as all of them together, so that clients that take nothing stop no others.
const CONNECTION_WINDOW: u32 = WINDOW * STREAMS;

impl MuxPool {
    /// A connection with room for another request.
    pub(super) fn take(&self, key: &Key) -> Option<Rc<Mux>> {
        let pool = self.0.borrow();
        pool.get(key)?.iter().find(|mux| mux.has_room()).cloned()
    }

    pub(super) fn put(&self, key: Key, mux: &Rc<Mux>) {
        self.0.borrow_mut().entry(key).or_default().push(Rc::clone(mux));
    }

    /// Gives those to this backend no more requests, and closes each when it has none left.
    pub(super) fn close_idle(&self, backend: SocketAddr) {
        self.0.borrow_mut().retain(|key, _| !key.is_to(backend));
    }

    /// Closes those that are over or have waited long.
    pub(super) fn sweep(&self, now_ms: u64) {
        self.0.borrow_mut().retain(|_, all| {
            all.retain(|mux| {
                let rested = mux.active.get() == 0 && now_ms > mux.idle_since_ms.get() + KEPT_MS;
                !mux.gone.get() && !rested
            });
            !all.is_empty()
        });
    }
}

impl std::fmt::Debug for MuxPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("MuxPool").field(&self.0.borrow().len()).finish()
    }
}

impl Mux {
    /// Begins HTTP/2 on a connection (RFC 9113, section 3.3).
    pub(super) async fn start(worker: &Rc<Worker>, opened: Opened) -> Result<Rc<Self>, h2::Error> {
        let Opened { stream, early } = opened;
        let wire = Wire::default();
        wire.bring(|inbound| inbound.extend_from_slice(&early));
        let (sender, mut connection) = h2::client::Builder::new()
            .initial_window_size(WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(128 * 1024)
            .enable_push(false)
            .handshake(wire.clone())
            .await?;
        let now_ms = worker.shared.now_ms.get();
        let mux = Rc::new(Self {
            sender,
            active: Cell::new(0),
            idle_since_ms: Cell::new(now_ms),
            gone: Cell::new(false),
            is_tls: matches!(stream, Stream::Tls(_)),
        });
        let (worker, known) = (Rc::clone(worker), Rc::downgrade(&mux));
        runtime::spawn(async move {
            let ended = wire::drive(
                &wire,
                &stream,
                &worker.shared,
                |_, _| {},
                |cx| Pin::new(&mut connection).poll(cx),
            )
            .await;
            if let Err(error) = ended {
                tracing::debug!(%error, "a backend's HTTP/2 connection has ended");
            }
            if let Some(mux) = known.upgrade() {
                mux.gone.set(true);
            }
        });
        Ok(mux)
    }

    fn has_room(&self) -> bool {
        // A backend that has said GOAWAY takes no more, although it may not be done with what it has (RFC 9113, section
        // 6.8); and identifiers come to an end. Nobody waits for the answer: a stream that waits for its turn is no error.
        let mut context = Context::from_waker(Waker::noop());
        if let Poll::Ready(Err(_)) = self.sender.clone().poll_ready(&mut context) {
            self.gone.set(true);
        }
        let allowed = self.sender.current_max_send_streams().min(STREAMS as usize);
        !self.gone.get() && self.active.get() < allowed.max(1)
    }
}

impl Channel {
    pub(super) fn new(worker: Rc<Worker>, mux: Rc<Mux>, reused: bool, on_backend: OnBackend) -> Self {
        mux.active.set(mux.active.get() + 1);
        Self { mux, reused, worker, _on_backend: on_backend }
    }

    /// Sends the request's head.
    pub(super) async fn send(
        &self,
        mut request: http::Request<()>,
        no_body: bool,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), Fault> {
        let closed = |error: h2::Error| {
            self.mux.gone.set(true);
            Fault::before(RequestOutcome::BackendClosed, error)
        };
        if self.mux.is_tls {
            set_https(&mut request);
        }
        let mut sender = self.mux.sender.clone().ready().await.map_err(closed)?;
        sender.send_request(request, no_body).map_err(closed)
    }

    /// Waits for the next head, which may take `limit_ms` milliseconds from when the request's body last moved.
    pub(super) async fn head(
        &self,
        response: &mut ResponseFuture,
        limit_ms: u64,
        progress: &Progress,
    ) -> Result<Head, Fault> {
        let next = poll_fn(|cx| {
            if let Poll::Ready(Some(Ok(informational))) = response.poll_informational(cx) {
                return Poll::Ready(Ok(Head::Informational(informational)));
            }
            Pin::new(&mut *response).poll(cx).map_ok(Head::Final)
        });
        match self.worker.deadlines.within(limit_ms, || progress.bytes.get(), pin!(next)).await {
            None => Err(progress.too_late()),
            Some(Ok(head)) => checked(head),
            Some(Err(error)) => {
                // Refused before anything was done with it (RFC 9113, sections 6.8 and 8.7), or gone with its connection.
                let unprocessed =
                    error.is_io() || error.is_go_away() || error.reason() == Some(Reason::REFUSED_STREAM);
                let outcome = if unprocessed {
                    RequestOutcome::BackendClosed
                } else {
                    RequestOutcome::BackendMalformed
                };
                Err(Fault::before(outcome, error))
            }
        }
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.mux.active.set(self.mux.active.get() - 1);
        self.mux.idle_since_ms.set(self.worker.shared.now_ms.get());
    }
}

/// A request's head for a backend of HTTP/2.
pub(super) fn request<'a>(
    method: &[u8],
    target: &[u8],
    trailers: bool,
    facts: &Facts<'_>,
    fields: impl Iterator<Item = (Known, &'a [u8], &'a [u8])>,
) -> Result<http::Request<()>, Fault> {
    let malformed = |why: &str| Fault::before(RequestOutcome::Malformed, why);
    let uri = Uri::builder().scheme("http").authority(facts.host).path_and_query(target).build();
    let mut request = http::Request::new(());
    *request.version_mut() = Version::HTTP_2;
    *request.method_mut() =
        Method::from_bytes(method).map_err(|_bad| malformed("the method is malformed"))?;
    *request.uri_mut() = uri.map_err(|_bad| malformed("the target is malformed"))?;
    let headers = request.headers_mut();
    let mut bad = false;
    for_backend(fields, facts, |name, value| {
        match (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            (Ok(name), Ok(value)) => drop(headers.append(name, value)),
            _ => bad = true,
        }
    });
    if trailers {
        headers.insert(http::header::TE, HeaderValue::from_static("trailers"));
    }
    if bad { Err(malformed("a field cannot be passed on")) } else { Ok(request) }
}

/// Says that the request goes over TLS: some backends refuse one that says otherwise.
fn set_https(request: &mut http::Request<()>) {
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.scheme = Some(Scheme::HTTPS);
    *request.uri_mut() = Uri::from_parts(parts).expect("it had all its parts before");
}

/// What comes before the body of a response.
pub(super) enum Head {
    /// 100 or 103.
    Informational(http::Response<()>),
    /// The response itself.
    Final(http::Response<h2::RecvStream>),
}

/// Checks what the engine does not of a response's head, and takes out a length that its status does not have (RFC 9110,
/// section 8.6).
fn checked(mut head: Head) -> Result<Head, Fault> {
    let malformed = |why: &str| Fault::before(RequestOutcome::BackendMalformed, why);
    let (status, headers) = match &mut head {
        Head::Informational(response) => (response.status(), response.headers_mut()),
        Head::Final(response) => (response.status(), response.headers_mut()),
    };
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(malformed("HTTP/2 has no 101"));
    }
    checks::values(headers).map_err(malformed)?;
    if status.is_informational() || status == StatusCode::NO_CONTENT {
        headers.remove(http::header::CONTENT_LENGTH);
    }
    checks::length(headers).map_err(malformed)?;
    Ok(head)
}

/// Whether a response of this status has no content, whatever a backend sends (RFC 9110, section 6.4.1).
pub(super) const fn has_no_content(status: u16) -> bool {
    matches!(status, 204 | 304)
}

/// A message's fields.
pub(super) fn pairs(headers: &HeaderMap) -> impl Iterator<Item = FieldRef<'_>> {
    headers.iter().map(|(name, value)| (Known::Other, name.as_str().as_bytes(), value.as_bytes()))
}

/// Sends a piece as the other side's flow control lets it.
pub(super) async fn send_data(
    send: &mut SendStream<Bytes>,
    mut piece: Bytes,
    last: bool,
) -> Result<(), h2::Error> {
    if piece.is_empty() {
        return if last { send.send_data(piece, true) } else { Ok(()) };
    }
    while !piece.is_empty() {
        send.reserve_capacity(piece.len());
        let room = match send.capacity() {
            0 => match poll_fn(|cx| send.poll_capacity(cx)).await {
                None => return Err(Reason::CANCEL.into()),
                Some(room) => room?,
            },
            room => room,
        };
        let part = piece.split_to(room.min(piece.len()));
        let end = last && piece.is_empty();
        send.send_data(part, end)?;
    }
    Ok(())
}

/// Trailer fields as lines, for a body in chunks.
pub(super) fn write_trailers(out: &mut Vec<u8>, trailers: Option<&HeaderMap>) {
    out.extend_from_slice(b"0\r\n");
    for (name, value) in trailers.into_iter().flatten() {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// Ends a stream, with these trailer fields where there are some.
pub(super) fn end(send: &mut SendStream<Bytes>, trailers: HeaderMap) -> Result<(), h2::Error> {
    if trailers.is_empty() { send.send_data(Bytes::new(), true) } else { send.send_trailers(trailers) }
}
