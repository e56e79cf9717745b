//! Connections to backends: chosen, opened or taken from the pool, and given back.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::ops::Range;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use foldhash::HashMap;
use mc_core::backend::BackendLive;
use mc_core::balance::Tried;
use mc_core::http1::{Body, Decoder, HeadEnd, Limits, Malformed, Step};
use mc_core::outcome::RequestOutcome;
use mc_uring::relay::Shared;
use mc_uring::{Socket, runtime};

use super::mirror::Copied;
use super::mux::{Channel, Mux, MuxPool};
use super::open::{Key, Opened, Way};
use super::session::{Note, Session};
use super::stream::{Came, Stream};
use crate::clock;
use crate::snapshot::RouteEntry;
use crate::worker::Worker;
use crate::worker::connect::{OnBackend, header, is_overload, pick};

/// Backend connections of a worker that wait for their next request.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    idle: RefCell<HashMap<Key, Vec<Idle>>>,
    mux: MuxPool,
}

#[derive(Debug)]
struct Idle {
    stream: Stream,
    since_ms: u64,
}

/// Connections kept for each backend and worker.
const KEPT: usize = 128;

/// How long one is kept, in milliseconds: less than the five seconds after which some backends close, so that a
/// request rarely meets a connection that is just being closed.
const KEPT_MS: u64 = 4_000;

/// What a response's head may take. Backends are trusted with more than clients are.
pub(super) const LIMITS: Limits = Limits { head_bytes: 128 * 1024, target_bytes: 0, fields: 500 };

/// 1xx responses before a response.
const MAX_INTERIM: u32 = 100;

/// A backend's connection, for one request.
pub(super) enum Upstream {
    /// All of a connection.
    Http1(Lease),
    /// A share of one.
    Http2(Channel),
}

/// A connection to a backend of HTTP/1.1, for one request.
pub(super) struct Lease {
    pub(super) worker: Rc<Worker>,
    stream: Stream,
    /// It has carried a request before: it may turn out to be closed.
    pub(super) reused: bool,
    /// For whom it may be used after this request; absent where a PROXY header has named the client.
    key: Option<Key>,
    _on_backend: OnBackend,
}

/// A response that was not passed on, or not all of it.
pub(super) struct Fault {
    pub(super) outcome: RequestOutcome,
    /// The client has got a part of it.
    pub(super) told: bool,
    pub(super) detail: String,
}

/// How far a request's body is, while its response is waited for.
#[derive(Default)]
pub(super) struct Progress {
    /// Bytes that have come.
    pub(super) bytes: Cell<u64>,
    /// The backend was sent all of it.
    pub(super) delivered: Cell<bool>,
    /// More of it is waited for.
    pub(super) waits_for_client: Cell<bool>,
    /// The client has been told the first of the response.
    pub(super) answering: Cell<bool>,
}

impl Progress {
    /// A request is not answered in time: whose time is over.
    pub(super) fn too_late(&self) -> Fault {
        if self.waits_for_client.get() {
            Fault::before(RequestOutcome::ClientTimeout, "no more of the request's body in time")
        } else {
            Fault::before(RequestOutcome::BackendTimeout, "no response in time")
        }
    }
}

/// What there is to know while a request's body is passed on.
pub(super) struct Upload<'a> {
    /// Bytes that it may have.
    pub(super) most: u64,
    pub(super) progress: &'a Progress,
    /// A copy goes elsewhere, too.
    pub(super) copied: Option<&'a Copied>,
}

impl Upload<'_> {
    /// Counts more bytes. Whether the body may have them.
    #[must_use]
    pub(super) fn admits(&self, bytes: usize) -> bool {
        let count = &self.progress.bytes;
        count.set(count.get() + bytes as u64);
        count.get() <= self.most
    }

    /// Waits for more of the body.
    pub(super) async fn more<T>(&self, wait: impl Future<Output = T>) -> T {
        self.progress.waits_for_client.set(true);
        let more = wait.await;
        self.progress.waits_for_client.set(false);
        more
    }
}

/// A response's body, read piece by piece as content alone.
pub(super) struct Source {
    decoder: Decoder,
    /// What has come and was not looked at.
    held: Bytes,
}

/// Counts a response's 1xx: a backend that has no end of them has nothing to say.
#[derive(Default)]
pub(super) struct Interim(u32);

impl Interim {
    pub(super) fn another(&mut self) -> Result<(), Fault> {
        self.0 += 1;
        if self.0 > MAX_INTERIM {
            return Err(Fault::before(RequestOutcome::BackendMalformed, "it sends 1xx without end"));
        }
        Ok(())
    }
}

impl Fault {
    /// The client knows of nothing yet.
    pub(super) fn before(outcome: RequestOutcome, detail: impl ToString) -> Self {
        Self { outcome, told: false, detail: detail.to_string() }
    }

    /// The client has got a part.
    pub(super) fn amid(outcome: RequestOutcome, detail: impl ToString) -> Self {
        Self { outcome, told: true, detail: detail.to_string() }
    }

    /// Whether a request that may be repeated is sent once more: the backend had closed a kept connection, or went down
    /// with the request. It was not answered, and has no effect, or the same one however often it is sent (RFC 9110,
    /// section 9.2.2).
    pub(super) fn may_repeat(&self, reused: bool, repeats: u32, route: &RouteEntry) -> bool {
        // A kept connection may be found closed whatever the backend's state.
        self.outcome == RequestOutcome::BackendClosed
            && repeats < route.spec.retries.max(u32::from(reused && repeats == 0))
    }
}

/// Passes the request's body on beside the response, which decides when it is over. `fault`: what it means for the
/// request that its body failed.
pub(super) async fn beside<T, E>(
    mut up: Pin<&mut impl Future<Output = Result<(), E>>>,
    mut down: Pin<&mut impl Future<Output = Result<T, Fault>>>,
    fault: impl Fn(E) -> Option<Fault>,
) -> Result<T, Fault> {
    let mut sending = true;
    poll_fn(|cx| {
        if sending && let Poll::Ready(end) = up.as_mut().poll(cx) {
            sending = false;
            if let Some(fault) = end.err().and_then(&fault) {
                return Poll::Ready(Err(fault));
            }
        }
        down.as_mut().poll(cx)
    })
    .await
}

impl Source {
    /// A body of which `held` has come with the head.
    pub(super) fn new(decoder: Decoder, held: Bytes) -> Self {
        Self { decoder, held }
    }

    /// Whether all of it was read.
    pub(super) fn is_done(&self) -> bool {
        self.decoder.is_done()
    }

    /// Whether nothing came that does not belong to it.
    pub(super) fn is_clean(&self) -> bool {
        self.decoder.is_done() && self.held.is_empty()
    }

    /// Its trailer fields, once it is done.
    pub(super) fn trailers(&self) -> &[u8] {
        self.decoder.trailers()
    }

    /// The next piece. It is empty only where the body ended without another.
    pub(super) async fn next(&mut self, lease: &Lease) -> Result<Bytes, Fault> {
        let cut = |error: io::Error| Fault::amid(RequestOutcome::BackendCut, error);
        let held = std::mem::take(&mut self.held);
        let mut content = self.take(held)?;
        while content.is_empty() && !self.decoder.is_done() {
            lease.readable().await.map_err(cut)?;
            match lease.recv(|bytes| self.take(Bytes::copy_from_slice(bytes))).map_err(cut)? {
                Came::Bytes(more) => content = more?,
                Came::Nothing => {}
                Came::End if self.decoder.ends_with_connection() => {
                    self.decoder = Decoder::new(Body::None, &LIMITS);
                }
                Came::End => return Err(Fault::amid(RequestOutcome::BackendCut, "closed within the body")),
            }
        }
        Ok(content)
    }

    /// The content of these bytes, which is a part of them where it stands in one piece; what follows the body is held.
    fn take(&mut self, mut bytes: Bytes) -> Result<Bytes, Fault> {
        let mut content = Vec::new();
        loop {
            let step = self.decoder.next(&bytes);
            match step.map_err(|error| Fault::amid(RequestOutcome::BackendMalformed, error))? {
                Step::Content(len) => {
                    let piece = bytes.split_to(len);
                    if content.is_empty() && (bytes.is_empty() || self.decoder.is_done()) {
                        self.held = bytes;
                        return Ok(piece);
                    }
                    content.extend_from_slice(&piece);
                }
                Step::Framing(len) => bytes.advance(len),
                Step::NeedMore | Step::End => break,
            }
        }
        self.held = bytes;
        Ok(content.into())
    }
}

impl Pool {
    /// A connection that is still open.
    fn take(&self, key: &Key, shared: &Shared) -> Option<Stream> {
        let mut idle = self.idle.borrow_mut();
        let kept = idle.get_mut(key)?;
        while let Some(Idle { stream, .. }) = kept.pop() {
            if stream.is_quiet(shared) {
                return Some(stream);
            }
        }
        None
    }

    fn give(&self, key: Key, stream: Stream, now_ms: u64) {
        stream.watch();
        let mut idle = self.idle.borrow_mut();
        let kept = idle.entry(key).or_default();
        if kept.len() < KEPT {
            kept.push(Idle { stream, since_ms: now_ms });
        }
    }

    /// The right to make a request on a connection that has carried others.
    fn upstream(
        &self,
        worker: &Rc<Worker>,
        key: &Key,
        is_http2: bool,
        live: &Arc<BackendLive>,
    ) -> Option<Upstream> {
        if is_http2 {
            let mux = self.mux.take(key)?;
            let on_backend = OnBackend::acquire(live);
            return Some(Upstream::Http2(Channel::new(Rc::clone(worker), mux, true, on_backend)));
        }
        let stream = self.take(key, &worker.shared)?;
        let (worker, key, _on_backend) = (Rc::clone(worker), Some(key.clone()), OnBackend::acquire(live));
        Some(Upstream::Http1(Lease { worker, stream, reused: true, key, _on_backend }))
    }

    /// Closes all that carry nothing.
    pub(crate) fn clear(&self) {
        self.idle.borrow_mut().clear();
        self.mux.sweep(u64::MAX);
    }

    /// Closes those that have waited long.
    pub(crate) fn sweep(&self, now_ms: u64) {
        self.idle.borrow_mut().retain(|_, kept| {
            kept.retain(|idle| now_ms < idle.since_ms + KEPT_MS);
            !kept.is_empty()
        });
        self.mux.sweep(now_ms);
    }
}

impl Lease {
    /// Gives the connection back after a response that leaves it in order.
    pub(super) fn give_back(self, worker: &Worker) {
        if let Some(key) = self.key {
            worker.pool.give(key, self.stream, worker.shared.now_ms.get());
        }
    }

    /// Sends all of this to the backend.
    pub(super) async fn send(&self, bytes: &[u8]) -> io::Result<()> {
        self.stream.send_all(&self.worker.shared, bytes).await
    }

    /// Waits until there is something to read, an end or an error.
    pub(super) async fn readable(&self) -> io::Result<()> {
        self.stream.readable().await
    }

    /// Lets `work` have what has come.
    pub(super) fn recv<R>(&self, work: impl FnOnce(&[u8]) -> R) -> io::Result<Came<R>> {
        self.stream.recv(&self.worker.shared, work)
    }

    /// Reads until a response's head is complete; says where in `bytes` it is. It may take `limit_ms` milliseconds from
    /// when the request's body last moved.
    pub(super) async fn head(
        &self,
        limit_ms: u64,
        progress: &Progress,
        bytes: &mut Vec<u8>,
    ) -> Result<Range<usize>, Fault> {
        let reading = pin!(self.read_head(bytes));
        let head = self.worker.deadlines.within(limit_ms, || progress.bytes.get(), reading).await;
        head.unwrap_or_else(|| Err(progress.too_late()))
    }

    async fn read_head(&self, bytes: &mut Vec<u8>) -> Result<Range<usize>, Fault> {
        let malformed = |error: Malformed| Fault::before(RequestOutcome::BackendMalformed, error);
        let mut end = HeadEnd::default();
        loop {
            if let Some(head) = end.find(bytes, &LIMITS).map_err(malformed)? {
                return Ok(head);
            }
            let is_begun = !bytes.is_empty();
            let came = match self.readable().await {
                Ok(()) => self.recv(|more| bytes.extend_from_slice(more)),
                Err(error) => Err(error),
            };
            match came {
                Ok(Came::Bytes(()) | Came::Nothing) => {}
                Ok(Came::End) | Err(_) if is_begun => {
                    return Err(Fault::before(RequestOutcome::BackendMalformed, "closed within the head"));
                }
                Ok(Came::End) | Err(_) => {
                    return Err(Fault::before(RequestOutcome::BackendClosed, "closed without a response"));
                }
            }
        }
    }

    /// The socket, where it carries what the backend says as it is.
    pub(super) fn plain_socket(&self) -> Option<&Socket> {
        match &self.stream {
            Stream::Plain(plain) => Some(plain.socket()),
            Stream::Tls(_) => None,
        }
    }

    /// Says that nothing more is sent.
    pub(super) fn finish(&self) {
        self.stream.finish(&self.worker.shared);
    }
}

/// A connection to one of the route's backends; `fresh`: one that has carried nothing.
pub(super) async fn lease(
    session: &Session,
    route: &Arc<RouteEntry>,
    note: &mut Note,
    fresh: bool,
) -> Result<Upstream, RequestOutcome> {
    // The coarse clock, here and below: reading the other one for each request shows in a profile.
    let now_ms = &session.worker.shared.now_ms;
    let give_up_ms = now_ms.get() + RESTART_MS.min(route.spec.connect_timeout_ms);
    let mut pause = PAUSE;
    loop {
        let outcome = match one_of(session, route, note, fresh).await {
            Ok(upstream) => return Ok(upstream),
            Err(outcome) => outcome,
        };
        let soon_better = match outcome {
            // Nobody listens: a backend that restarts is back in a moment, and has not seen the request.
            None => route.spec.retries > 0,
            // Descriptors that can be spared are spared when the workers next look.
            Some(outcome) => outcome == RequestOutcome::Overload,
        };
        if !soon_better || now_ms.get() >= give_up_ms {
            return Err(outcome.unwrap_or(RequestOutcome::ConnectFailed));
        }
        runtime::sleep(pause).await;
        pause = (pause * 2).min(MAX_PAUSE);
    }
}

/// How long a backend that refuses connections, or a descriptor, is waited for, in milliseconds.
const RESTART_MS: u64 = 1_500;

/// The first pause before it is asked again, and the longest.
const PAUSE: Duration = Duration::from_millis(20);
const MAX_PAUSE: Duration = Duration::from_millis(200);

/// A connection to one of the route's backends, each of which is tried once; `None`: all that were tried refused.
async fn one_of(
    session: &Session,
    route: &Arc<RouteEntry>,
    note: &mut Note,
    fresh: bool,
) -> Result<Upstream, Option<RequestOutcome>> {
    let (worker, connection) = (&session.worker, &session.connection);
    let mut tried = note.excluded;
    let (mut is_tried, mut all_refused) = (false, true);
    for _ in 0..=route.spec.retries {
        let now_ms = worker.shared.now_ms.get();
        let chosen = by_cookie(note, route, &tried, now_ms);
        let chosen = chosen.or_else(|| pick(worker, connection, route, &tried, now_ms));
        let Some(index) = chosen else { break };
        let live = &route.backends[index];
        note.stick(live.hash);
        let address = live.address;
        note.backend = Some(address);
        let header = header(connection, route, index, session.incoming.as_deref());
        let way = Way::to(route, index);
        let key = way.key();
        if header.is_empty()
            && !fresh
            && let Some(kept) = worker.pool.upstream(worker, &key, way.is_http2(), live)
        {
            return Ok(kept);
        }
        let key = header.is_empty().then_some(key);
        let on_backend = OnBackend::acquire(live);
        let limit = Duration::from_millis(route.spec.connect_timeout_ms);
        // In a box: what a new connection needs must not weigh on requests that find a kept one.
        let opened = runtime::timeout(limit, Box::pin(way.open(&worker.shared, &header))).await;
        match opened {
            Some(Ok(opened)) => match start(worker, opened, way.is_http2(), key, on_backend).await {
                Ok(upstream) => {
                    live.connect_ok(now_ms);
                    return Ok(upstream);
                }
                Err(error) => (note.detail, all_refused) = (format!("{address}: {error}"), false),
            },
            Some(Err(error)) if is_overload(&error) => {
                // That is not the backend's fault.
                worker.policy.budgets.missed_descriptor();
                note.detail = error.to_string();
                return Err(Some(RequestOutcome::Overload));
            }
            Some(Err(error)) => {
                note.detail = format!("{address}: {error}");
                all_refused &= error.kind() == io::ErrorKind::ConnectionRefused;
            }
            None => (note.detail, all_refused) = (format!("{address}: connecting took too long"), false),
        }
        is_tried = true;
        if live.connect_failed(clock::millis(), route.spec.eject_after, route.spec.eject_ms) {
            (worker.policy.on_ejected)(address);
        }
        tried.insert(index);
    }
    match (is_tried, all_refused) {
        (false, _) => Err(Some(RequestOutcome::NoBackend)),
        (true, true) => Err(None),
        (true, false) => Err(Some(RequestOutcome::ConnectFailed)),
    }
}

/// Begins HTTP on a connection that was opened; `key`: for whom it may be used besides, if for anybody.
async fn start(
    worker: &Rc<Worker>,
    opened: Opened,
    is_http2: bool,
    key: Option<Key>,
    on_backend: OnBackend,
) -> Result<Upstream, h2::Error> {
    if !is_http2 {
        let (worker, stream) = (Rc::clone(worker), opened.stream);
        return Ok(Upstream::Http1(Lease { worker, stream, reused: false, key, _on_backend: on_backend }));
    }
    // In a box, as the connection was opened.
    let mux = Box::pin(Mux::start(worker, opened)).await?;
    if let Some(key) = key {
        worker.pool.mux.put(key, &mux);
    }
    Ok(Upstream::Http2(Channel::new(Rc::clone(worker), mux, false, on_backend)))
}

/// The backend that the client's cookie names, while it may be used.
fn by_cookie(note: &Note, route: &RouteEntry, tried: &Tried, now_ms: u64) -> Option<usize> {
    let hash = note.sticky?;
    let index = route.backends.iter().position(|backend| backend.hash == hash)?;
    (!tried.contains(index) && route.backends[index].usable(now_ms)).then_some(index)
}
