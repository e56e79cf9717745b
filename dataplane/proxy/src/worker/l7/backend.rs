//! Connections to backends: chosen, opened or taken from the pool, and given back.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use foldhash::HashMap;
use mc_core::backend::BackendLive;
use mc_core::balance::Tried;
use mc_core::http1::{HeadEnd, Limits, Malformed};
use mc_core::outcome::RequestOutcome;
use mc_core::refusal::RESTART_MS;
use mc_uring::{Shared, Socket, runtime};

use super::attempt::{Attempt, Restarting};
use super::fault::Fault;
use super::mux::{Channel, Mux, MuxPool};
use super::open::{Key, Opened, Way};
use super::route::renew;
use super::session::{Note, Session};
use super::sides::Progress;
use super::stream::{Came, Stream};
use crate::clock;
use crate::snapshot::RouteEntry;
use crate::worker::Worker;
use crate::worker::connect::{OnBackend, header, is_overload, pick};
use crate::worker::in_flight::InFlight;

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

/// What a response's head may take. Backends are trusted with more than clients are.
pub(super) const LIMITS: Limits = Limits { head_bytes: 128 * 1024, target_bytes: 0, fields: 500 };

/// Connections kept for each backend and worker.
const KEPT: usize = 128;

/// How long one is kept, in milliseconds: less than the five seconds after which some backends close, so that a
/// request rarely meets a connection that is just being closed.
const KEPT_MS: u64 = 4_000;

/// A backend's connection, for one request.
pub(super) enum Chosen {
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
    on_backend: OnBackend,
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
    ) -> Option<Chosen> {
        if is_http2 {
            let mux = self.mux.take(key)?;
            let on_backend = OnBackend::acquire(live);
            return Some(Chosen::Http2(Channel::new(Rc::clone(worker), mux, true, on_backend)));
        }
        let stream = self.take(key, &worker.shared)?;
        let (worker, key, on_backend) = (Rc::clone(worker), Some(key.clone()), OnBackend::acquire(live));
        Some(Chosen::Http1(Lease { worker, stream, reused: true, key, on_backend }))
    }

    /// Closes all that carry nothing.
    pub(crate) fn clear(&self) {
        self.idle.borrow_mut().clear();
        self.mux.sweep(u64::MAX);
    }

    /// Closes those to this backend, which is to get nothing more.
    pub(crate) fn close_idle(&self, backend: SocketAddr) {
        self.idle.borrow_mut().retain(|key, _| !key.is_to(backend));
        self.mux.close_idle(backend);
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
    /// Gives the connection back after a response that leaves it in order, unless its backend is to get nothing more.
    pub(super) fn give_back(self, worker: &Worker) {
        if let Some(key) = self.key.filter(|_| !self.on_backend.is_draining()) {
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

/// A connection to one of the route's backends; `fresh`: one that has carried nothing, for a request that is repeated. Where
/// none takes it, the route is looked up again.
pub(super) async fn lease(
    session: &Session,
    route: &mut Arc<RouteEntry>,
    note: &mut Note,
    target: &[u8],
    in_flight: &InFlight,
    fresh: bool,
) -> Result<Chosen, RequestOutcome> {
    if fresh {
        renew(session, route, note, target).await?;
    }
    // The coarse clock, here and below: reading the other one for each request shows in a profile.
    let now_ms = &session.worker.shared.now_ms;
    let mut give_up_ms = now_ms.get() + RESTART_MS.min(route.spec.connect_timeout_ms);
    let mut pause = PAUSE;
    loop {
        let missed = match one_of(session, route, note, in_flight, fresh).await {
            Ok(upstream) => return Ok(upstream),
            Err(missed) => missed,
        };
        let before_ms = now_ms.get();
        if renew(session, route, note, target).await? {
            give_up_ms = now_ms.get() + RESTART_MS.min(route.spec.connect_timeout_ms);
            continue;
        }
        // Time on hold does not count.
        give_up_ms += now_ms.get() - before_ms;
        let is_late = now_ms.get() >= give_up_ms;
        match missed {
            // Nobody listens: a backend that restarts is back in a moment, and has not seen the request.
            Missed::Refused(Some(restarting)) if !is_late && route.spec.retries > 0 => {
                if !restarting.wait(&session.worker).await {
                    return Err(RequestOutcome::ConnectFailed);
                }
            }
            // Descriptors that can be spared are spared when the workers next look.
            Missed::For(RequestOutcome::Overload) if !is_late => {
                runtime::sleep(pause).await;
                pause = (pause * 2).min(MAX_PAUSE);
            }
            Missed::Refused(_) => return Err(RequestOutcome::ConnectFailed),
            Missed::For(outcome) => return Err(outcome),
        }
    }
}

/// Why there is no connection.
enum Missed {
    /// All backends that were tried refuse; there is one that may be restarting.
    Refused(Option<Restarting>),
    /// For another reason.
    For(RequestOutcome),
}

/// The first pause before a descriptor is asked for again, and the longest.
const PAUSE: Duration = Duration::from_millis(20);
const MAX_PAUSE: Duration = Duration::from_millis(200);

/// A connection to one of the route's backends, each of which is tried once.
async fn one_of(
    session: &Session,
    route: &Arc<RouteEntry>,
    note: &mut Note,
    in_flight: &InFlight,
    fresh: bool,
) -> Result<Chosen, Missed> {
    let (worker, connection) = (&session.worker, &session.connection);
    let mut tried = avoided(session, route, note);
    let (mut is_tried, mut all_refused, mut restarting) = (false, true, None);
    let mut attempts_left = route.spec.retries + 1;
    while attempts_left > 0 {
        let Some(index) = choose(session, route, note, &tried) else { break };
        let live = &route.backends[index].live;
        note.stick(live.hash);
        let address = live.address;
        (note.backend, note.index) = (Some(address), Some(index));
        in_flight.goes_to(address);
        let header = header(connection, route, index, session.incoming.as_deref());
        let way = Way::to(route, index);
        let key = way.key();
        if header.is_empty()
            && !fresh
            && let Some(kept) = worker.pool.upstream(worker, &key, way.is_http2(), live)
        {
            return Ok(kept);
        }
        is_tried = true;
        tried.insert(index);
        let attempt = match Attempt::begin(worker, address) {
            Ok(attempt) => attempt,
            Err(again) => {
                // It costs no connect, and counts as none.
                note.detail = format!("{address}: connections were refused a moment ago");
                restarting = Restarting::first(restarting, again);
                continue;
            }
        };
        attempts_left -= 1;
        let key = header.is_empty().then_some(key);
        let limit = Duration::from_millis(route.spec.connect_timeout_ms);
        match connect(worker, &way, &header, key, live, limit).await {
            Ok(upstream) => {
                attempt.ended();
                live.connected();
                return Ok(upstream);
            }
            Err(NotConnected::Overload(error)) => {
                // That is not the backend's fault.
                worker.policy.budgets.missed_descriptor();
                note.detail = error.to_string();
                return Err(Missed::For(RequestOutcome::Overload));
            }
            Err(NotConnected::Refused(error)) => {
                note.detail = format!("{address}: {error}");
                restarting = Restarting::first(restarting, attempt.refused());
            }
            Err(NotConnected::Failed(problem)) => {
                (note.detail, all_refused) = (format!("{address}: {problem}"), false);
                attempt.ended();
            }
        }
        failed(worker, route, index);
    }
    match (is_tried, all_refused) {
        (false, _) => Err(Missed::For(RequestOutcome::NoBackend)),
        (true, true) => Err(Missed::Refused(restarting)),
        (true, false) => Err(Missed::For(RequestOutcome::ConnectFailed)),
    }
}

/// Backends that the request does not go to: those that have failed with it come last.
fn avoided(session: &Session, route: &Arc<RouteEntry>, note: &Note) -> Tried {
    let avoided = note.excluded.and(note.failed);
    let is_all = !note.failed.is_empty() && choose(session, route, note, &avoided).is_none();
    if is_all { note.excluded } else { avoided }
}

/// Why a backend was not connected.
enum NotConnected {
    /// This proxy has no descriptor.
    Overload(io::Error),
    /// Nobody listens there.
    Refused(io::Error),
    /// For another reason.
    Failed(String),
}

/// Opens a connection to a backend and begins HTTP on it; `key`: for whom it may be used besides, if for anybody.
async fn connect(
    worker: &Rc<Worker>,
    way: &Way,
    header: &[u8],
    key: Option<Key>,
    live: &Arc<BackendLive>,
    limit: Duration,
) -> Result<Chosen, NotConnected> {
    let on_backend = OnBackend::acquire(live);
    // In a box: what a new connection needs must not weigh on requests that find a kept one.
    let opened = runtime::timeout(limit, Box::pin(way.open(&worker.shared, header))).await;
    match opened {
        Some(Ok(opened)) => start(worker, opened, way.is_http2(), key, on_backend)
            .await
            .map_err(|error| NotConnected::Failed(error.to_string())),
        Some(Err(error)) if is_overload(&error) => Err(NotConnected::Overload(error)),
        Some(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            Err(NotConnected::Refused(error))
        }
        Some(Err(error)) => Err(NotConnected::Failed(error.to_string())),
        None => Err(NotConnected::Failed("connecting took too long".to_owned())),
    }
}

/// Begins HTTP on a connection that was opened; `key`: for whom it may be used besides, if for anybody.
async fn start(
    worker: &Rc<Worker>,
    opened: Opened,
    is_http2: bool,
    key: Option<Key>,
    on_backend: OnBackend,
) -> Result<Chosen, h2::Error> {
    if !is_http2 {
        let (worker, stream) = (Rc::clone(worker), opened.stream);
        return Ok(Chosen::Http1(Lease { worker, stream, reused: false, key, on_backend }));
    }
    // In a box, as the connection was opened.
    let mux = Box::pin(Mux::start(worker, opened)).await?;
    if let Some(key) = key.filter(|_| !on_backend.is_draining()) {
        worker.pool.mux.put(key, &mux);
    }
    Ok(Chosen::Http2(Channel::new(Rc::clone(worker), mux, false, on_backend)))
}

/// A backend for the request, of those that were not tried.
fn choose(session: &Session, route: &Arc<RouteEntry>, note: &Note, tried: &Tried) -> Option<usize> {
    let now_ms = session.worker.shared.now_ms.get();
    by_cookie(note, route, tried, now_ms)
        .or_else(|| pick(&session.worker, &session.connection, route, tried, now_ms))
}

/// Counts a failure of a backend: it is ejected where it has had too many.
pub(super) fn failed(worker: &Worker, route: &RouteEntry, index: usize) {
    let live = &route.backends[index].live;
    if live.connect_failed(clock::millis(), route.spec.eject_after, route.spec.eject_ms) {
        (worker.policy.on_ejected)(live.address);
    }
}

/// The backend that the client's cookie names, while it may be used.
fn by_cookie(note: &Note, route: &RouteEntry, tried: &Tried, now_ms: u64) -> Option<usize> {
    let hash = note.sticky?;
    let index = route.backends.iter().position(|backend| backend.live.hash == hash)?;
    (!tried.contains(index) && route.backends[index].usable(now_ms)).then_some(index)
}
