//! A client that speaks HTTP/2 (RFC 9113): many requests at the same time, each in a task of its own.
//!
//! Frames, flow control and HPACK are the `h2` crate's, which also refuses what RFC 9113 calls malformed. It works on
//! a [`Wire`] in memory: the connection's task moves bytes between that and TLS.

mod to_http1;
mod to_http2;

use std::cell::Cell;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::ext::Protocol;
use h2::server::{Connection, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use http::header::{self, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, StatusCode};
use mc_core::http1::{Authority, Facts, Framing, Known, RequestLine, is_target, may_become};
use mc_core::outcome::{Outcome, RequestOutcome};
use mc_core::policy::{FieldRef, Seen};
use mc_uring::runtime;

use super::backend::{Fault, Progress, Upstream, lease};
use super::checks;
use super::mirror::{self, Copied};
use super::mux;
use super::session::{Note, Said, Session};
use super::wire::{self, Wire};
use crate::clock;
use crate::snapshot::RouteEntry;
use crate::worker::Worker;
use crate::worker::connection::Phase;
use crate::worker::serve::enter_relay;

/// Streams that a client may have open.
const STREAMS: u32 = 128;

/// Bytes that a client may send on one stream before its backend has taken them.
const WINDOW: u32 = 256 * 1024;

/// The same for all streams of a connection.
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// Bytes of the fields of a request, counted as RFC 9113 section 10.5.1 does.
const FIELDS: u32 = 32 * 1024;

/// Bytes of a response that wait for the client. All streams of one that grants much and reads nothing cost 8 MiB of these,
/// and as much again of pieces that are on their way.
const SEND_BUFFER: usize = 64 * 1024;

/// Requests that a client may reset before it is looked at whether it does little else (CVE-2023-44487).
const RESETS: u64 = 100;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// How long a request that is answered is heard out.
const LINGER: Duration = Duration::from_secs(1);

/// One client's connection, shared by the tasks of its streams.
struct Client {
    session: Rc<Session>,
    /// Streams that are being served.
    active: Cell<usize>,
    served: Cell<u64>,
    /// Those that the client gave up.
    reset: Cell<u64>,
    /// The client knows that this process stops.
    told_to_leave: Cell<bool>,
    /// It asked for nothing, and knows that its connection ends.
    left: Cell<bool>,
}

/// Serves a client; `plain`: what it said right after its handshake.
pub(super) async fn serve(session: Rc<Session>, plain: Vec<u8>) -> Outcome {
    let wire = Wire::default();
    wire.bring(|inbound| inbound.extend_from_slice(&plain));
    drop(plain);
    let client = Rc::new(Client {
        session: Rc::clone(&session),
        active: Cell::new(0),
        served: Cell::new(0),
        reset: Cell::new(0),
        told_to_leave: Cell::new(false),
        left: Cell::new(false),
    });
    client.rest();
    let mut handshake = pin!(
        h2::server::Builder::new()
            .max_concurrent_streams(STREAMS)
            .initial_window_size(WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(FIELDS)
            .max_send_buffer_size(SEND_BUFFER)
            .enable_connect_protocol()
            .handshake::<_, Bytes>(wire.clone())
    );
    let mut engine = None;
    let moved = |up, down| {
        session.connection.up.count(up, session.now_ms());
        session.connection.down.count(down, session.now_ms());
    };
    wire::drive(&wire, &session.tls, &session.worker.shared, moved, |cx| {
        if engine.is_none() {
            match handshake.as_mut().poll(cx) {
                Poll::Ready(Ok(ready)) => engine = Some(ready),
                Poll::Ready(Err(error)) => return Poll::Ready(client.broken(&error)),
                Poll::Pending => {}
            }
        }
        engine.as_mut().map_or(Poll::Pending, |engine| client.turn(engine, cx))
    })
    .await
}

impl Client {
    /// Lets the engine work, and begins the streams that it brings.
    fn turn(self: &Rc<Self>, engine: &mut Connection<Wire, Bytes>, cx: &mut Context<'_>) -> Poll<Outcome> {
        if !self.session.is_draining() {
            self.session.connection.tell(cx.waker());
        } else if !self.told_to_leave.replace(true) {
            // What is under way ends in peace; what comes after goes elsewhere (RFC 9113, section 6.8).
            engine.graceful_shutdown();
        }
        if self.session.connection.stop.get().is_some() && !self.left.replace(true) {
            engine.abrupt_shutdown(Reason::NO_ERROR);
        }
        loop {
            match engine.poll_accept(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => return Poll::Ready(Outcome::Completed),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(self.broken(&error)),
                Poll::Ready(Some(Ok((request, respond)))) => {
                    let served = self.served.get() + 1;
                    self.served.set(served);
                    if self.reset.get() > RESETS && self.reset.get() * 2 > served {
                        engine.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                        self.session.connection.target.borrow_mut().detail =
                            "the client resets most of its requests".into();
                        continue;
                    }
                    self.active.set(self.active.get() + 1);
                    runtime::spawn(stream(Rc::clone(self), request, respond));
                }
            }
        }
    }

    /// Why the engine gave up.
    fn broken(&self, error: &h2::Error) -> Outcome {
        if error.is_io() {
            return Outcome::ClientReset;
        }
        self.session.connection.target.borrow_mut().detail = format!("HTTP/2: {error}").into();
        Outcome::Completed
    }

    /// No stream is open: the client has a while for the next.
    fn rest(&self) {
        let deadline = self.session.now_ms() + self.session.keepalive_ms();
        self.session.worker.connections.enter(&self.session.connection, Phase::Idle, deadline, deadline);
    }
}

/// A request as its backend will see it.
struct Asked<'a> {
    method: &'a [u8],
    target: &'a str,
    host: &'a str,
    framing: Framing<'a>,
    /// Its stream ended with its head.
    no_body: bool,
    /// The protocol of an extended CONNECT (RFC 8441), which a backend of HTTP/1.1 knows as an upgrade.
    upgrade: Option<&'a str>,
    /// Cookies in one field, as HTTP/1.1 wants them (RFC 9113, section 8.2.3).
    cookies: Vec<u8>,
    /// A copy goes elsewhere, too.
    copied: Option<&'a Copied>,
}

/// Serves one request.
async fn stream(client: Rc<Client>, request: http::Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    let session = &client.session;
    let (parts, mut body) = request.into_parts();
    let (mut note, said) = note(session, &parts);
    // Asked once: the engine locks its state for each question.
    let no_body = body.is_end_stream();
    let mut copied = None;
    let end = match asked(&parts, no_body) {
        Ok(asked) => match session.route(asked.host.as_bytes()) {
            Ok(route) => {
                if session.connection.phase.get() == Phase::Idle {
                    enter_relay(&session.worker, &session.connection, &route);
                }
                note.route = Some(Arc::clone(&route));
                note.host = asked.host.as_bytes().into();
                let judged = session.judge(
                    &mut note,
                    &Seen {
                        method: parts.method.as_str().as_bytes(),
                        target: asked.target.as_bytes(),
                        host: asked.host.as_bytes(),
                        fields: || fields(&parts, &asked),
                    },
                );
                let rewritten =
                    note.rewritten.take().map(|target| String::from_utf8_lossy(&target).into_owned());
                let mut asked = Asked { target: rewritten.as_deref().unwrap_or(asked.target), ..asked };
                let length = match asked.framing {
                    Framing::Length(length) => str::from_utf8(length).ok().and_then(|text| text.parse().ok()),
                    _ => None,
                };
                if let Err(outcome) = judged {
                    Err(Fault::before(outcome, ""))
                } else if length.is_some_and(|length: u64| length > note.most_bytes()) {
                    Err(Fault::before(RequestOutcome::TooLarge, ""))
                } else {
                    copied = mirror(session, &parts, &asked, &note);
                    asked.copied = copied.as_ref();
                    exchange(session, &route, &parts, &asked, &mut body, &mut respond, &mut note).await
                }
            }
            Err(outcome) => Err(Fault::before(outcome, "")),
        },
        Err(why) => Err(Fault::before(RequestOutcome::Malformed, why)),
    };
    let outcome = match end {
        Ok(outcome) => outcome,
        Err(fault) => {
            // What was taken of the body is perhaps not in it.
            copied = None;
            if !fault.detail.is_empty() {
                note.detail = fault.detail;
            }
            if fault.outcome == RequestOutcome::ClientGone {
                client.reset.set(client.reset.get() + 1);
                respond.send_reset(Reason::CANCEL);
            } else if !fault.told {
                answer(&mut respond, &mut note, fault.outcome);
            }
            fault.outcome
        }
    };
    session.finish(note, said, outcome);
    if !no_body && !body.is_end_stream() {
        runtime::timeout(LINGER, pin!(hear_out(&mut body, copied.as_ref()))).await;
    }
    client.active.set(client.active.get() - 1);
    if client.active.get() == 0 {
        client.rest();
    }
}

/// Takes what a client still sends of a request that is answered, as far as its window goes: some take the reset of
/// a stream on which they are sending for a failure, whatever its reason (RFC 9113, section 8.1). A copy of the request wants
/// it, too: its backend has perhaps answered without looking at the body.
async fn hear_out(body: &mut RecvStream, copied: Option<&Copied>) {
    while let Some(data) = body.data().await {
        match (data, copied) {
            (Ok(data), Some(copied)) => copied.content(&data),
            (Ok(_), None) => {}
            (Err(_), _) => return,
        }
    }
    if let Some(copied) = copied {
        copied.finish(false);
    }
}

fn note<'a>(session: &Session, parts: &'a Parts) -> (Note, Said<'a>) {
    let find = |name: HeaderName| parts.headers.get(name).map(HeaderValue::as_bytes).unwrap_or_default();
    let id = parts.headers.get(X_REQUEST_ID).map(HeaderValue::as_bytes);
    let mut note = session.note("HTTP/2.0", id);
    note.to_head = parts.method == Method::HEAD;
    let said = Said {
        method: parts.method.as_str().as_bytes(),
        target: parts.uri.path_and_query().map_or("", |target| target.as_str()).as_bytes(),
        user_agent: find(header::USER_AGENT),
        referer: find(header::REFERER),
    };
    (note, said)
}

/// Checks what the engine does not: the request must mean the same to a backend of HTTP/1.1.
fn asked(parts: &Parts, no_body: bool) -> Result<Asked<'_>, &'static str> {
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (_, Some(_)) => return Err("there is more than one Host"),
        (Some(host), None) => Some(host.to_str().map_err(|_not_ascii| "Host is no name or address")?),
        (None, None) => None,
    };
    let scheme = parts.uri.scheme_str().unwrap_or("https");
    let default_port = if scheme.eq_ignore_ascii_case("https") {
        443
    } else if scheme.eq_ignore_ascii_case("http") {
        80
    } else {
        return Err(":scheme is neither https nor http");
    };
    let authority = parts.uri.authority().map(http::uri::Authority::as_str);
    let host = match (authority, host) {
        (Some(authority), Some(host)) if !is_same(authority, host, default_port) => {
            return Err(":authority and Host differ");
        }
        (Some(host), _) | (None, Some(host)) => host,
        (None, None) => return Err("there is neither :authority nor Host"),
    };
    if Authority::parse(host.as_bytes()).is_none() {
        return Err(":authority is no name or address");
    }
    let upgrade = match (&parts.method, parts.extensions.get::<Protocol>().map(Protocol::as_str)) {
        (&Method::CONNECT, None) => return Err("CONNECT is for proxies of clients"),
        (_, Some(protocol)) if !may_become(protocol.as_bytes()) => return Err(":protocol is malformed"),
        (_, protocol) => protocol,
    };
    checks::values(&parts.headers)?;
    let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
    let is_fit = target.starts_with('/') || (target == "*" && parts.method == Method::OPTIONS);
    if !is_fit || !is_target(target.as_bytes()) {
        return Err(":path is malformed");
    }
    let framing = match checks::length(&parts.headers)? {
        Some(_) if upgrade.is_some() => return Err("CONNECT has no Content-Length"),
        Some(length) => Framing::Length(length),
        None if no_body || upgrade.is_some() => Framing::None,
        None => Framing::Chunked,
    };
    let cookies: Vec<&[u8]> =
        parts.headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    Ok(Asked {
        method: if upgrade.is_some() { b"GET" } else { parts.method.as_str().as_bytes() },
        target,
        host,
        framing,
        no_body,
        upgrade,
        cookies: cookies.join(b"; ".as_slice()),
        copied: None,
    })
}

fn facts<'a>(session: &'a Session, asked: &Asked<'a>, note: &'a Note) -> Facts<'a> {
    Facts {
        client: session.connection.client.get().ip(),
        host: asked.host.as_bytes(),
        request_id: &note.id,
        forwarded: note.http().forwarded,
        client_cert: session.client_cert(note),
    }
}

/// Whether `:authority` and `Host` say the same (RFC 9113, section 8.3.1).
fn is_same(authority: &str, host: &str, default_port: u16) -> bool {
    let (authority, host) = (Authority::parse(authority.as_bytes()), Authority::parse(host.as_bytes()));
    authority.zip(host).is_some_and(|(one, other)| {
        let port = |of: Authority<'_>| of.port.unwrap_or(default_port);
        one.same_host(other.host) && port(one) == port(other)
    })
}

/// The request's fields, cookies in one.
fn fields<'a>(parts: &'a Parts, asked: &'a Asked<'_>) -> impl Iterator<Item = FieldRef<'a>> {
    let fields = parts.headers.iter().filter(|(name, _)| *name != header::COOKIE);
    let fields = fields.map(|(name, value)| {
        let name = name.as_str().as_bytes();
        (Known::of(name), name, value.as_bytes())
    });
    let cookies = (Known::Other, b"cookie".as_slice(), asked.cookies.as_slice());
    fields.chain((!asked.cookies.is_empty()).then_some(cookies))
}

/// Begins a copy for another backend, where a policy wants one.
fn mirror(session: &Session, parts: &Parts, asked: &Asked<'_>, note: &Note) -> Option<Copied> {
    if note.mirror().is_none() || asked.upgrade.is_some() {
        return None;
    }
    let line = RequestLine { method: asked.method, target: asked.target.as_bytes() };
    let facts = facts(session, asked, note);
    let edits = note.request_edits();
    let fields = edits.apply(fields(parts, asked));
    let copied = mirror::begin(session, note, line, asked.framing, &facts, fields)?;
    if asked.no_body {
        copied.finish(false);
    }
    Some(copied)
}

impl UpError {
    /// What it means for the request. A backend that takes no more may still answer.
    fn fault(self) -> Option<Fault> {
        match self {
            Self::Backend => None,
            Self::Client => Some(Fault::amid(RequestOutcome::ClientGone, "the client gave up")),
            Self::TooLarge => Some(Fault::before(RequestOutcome::TooLarge, "")),
            Self::Malformed(why) => Some(Fault::before(RequestOutcome::Malformed, why)),
        }
    }
}

/// Finds a backend and has it answer; once more where a kept connection turned out to be closed.
async fn exchange(
    session: &Session,
    route: &Arc<RouteEntry>,
    parts: &Parts,
    asked: &Asked<'_>,
    body: &mut RecvStream,
    respond: &mut SendResponse<Bytes>,
    note: &mut Note,
) -> Result<RequestOutcome, Fault> {
    let repeatable = asked.no_body && parts.method.is_idempotent() && asked.upgrade.is_none();
    let mut repeats = 0;
    loop {
        let upstream = lease(session, route, note, repeats > 0)
            .await
            .map_err(|outcome| Fault::before(outcome, std::mem::take(&mut note.detail)))?;
        note.times.connect_us = clock::micros() - note.started_us;
        let (reused, end) = match upstream {
            Upstream::Http1(lease) => {
                (lease.reused, to_http1::serve(session, lease, parts, asked, body, respond, note).await)
            }
            Upstream::Http2(channel) => {
                (channel.reused, to_http2::serve(session, &channel, parts, asked, body, respond, note).await)
            }
        };
        match end {
            Err(fault) if repeatable && fault.may_repeat(reused, repeats, route) => repeats += 1,
            end => return end,
        }
    }
}

/// Waits for more of a response, as long as the route lets a stream idle: others on the connection may go on meanwhile, so
/// that its own idle time is not enough.
async fn more<T>(
    worker: &Worker,
    note: &Note,
    progress: &Progress,
    reading: Pin<&mut impl Future<Output = Result<T, Fault>>>,
) -> Result<T, Fault> {
    let more = worker.deadlines.within(note.idle_ms(), || progress.bytes.get(), reading).await;
    more.unwrap_or_else(|| {
        Err(Fault::amid(RequestOutcome::BackendTimeout, "no more of the response in time"))
    })
}

/// Passes a piece of a response on, as the client's flow control lets it, and as long as [`more`] would wait.
async fn pass(
    worker: &Worker,
    note: &Note,
    progress: &Progress,
    send: &mut SendStream<Bytes>,
    piece: Bytes,
    last: bool,
) -> Result<(), Fault> {
    let sent = {
        let sending = pin!(mux::send_data(send, piece, last));
        worker.deadlines.within(note.idle_ms(), || progress.bytes.get(), sending).await
    };
    match sent {
        Some(sent) => sent.map_err(|error| Fault::amid(RequestOutcome::ClientGone, error)),
        None => {
            send.send_reset(Reason::CANCEL);
            Err(Fault::amid(RequestOutcome::ClientTimeout, "the client takes no more of the response"))
        }
    }
}

enum UpError {
    /// The body is larger than the route allows.
    TooLarge,
    /// Its trailers are malformed.
    Malformed(&'static str),
    /// The client gave the request up.
    Client,
    /// The backend takes no more: it may still answer.
    Backend,
}

/// Answers instead of a backend.
fn answer(respond: &mut SendResponse<Bytes>, note: &mut Note, outcome: RequestOutcome) {
    let own = note.own_answer(outcome, None);
    let mut head = http::Response::new(());
    *head.status_mut() = StatusCode::from_u16(own.status).unwrap_or(StatusCode::BAD_GATEWAY);
    let length = own.body.len().to_string();
    let usual = [
        ("content-type", own.content_type.as_str()),
        ("content-length", &length),
        ("x-request-id", &note.id),
    ];
    let more = note.own_fields.iter().map(|(name, value)| (*name, value.as_str()));
    let fields = usual.into_iter().chain(more);
    let fields = fields.map(|(name, value)| (Known::Other, name.as_bytes(), value.as_bytes()));
    for (_, name, value) in note.response_edits().apply(fields) {
        // They were validated, or made here.
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            head.headers_mut().append(name, value);
        }
    }
    note.tap_response(
        head.headers().iter().map(|(name, value)| (Known::Other, name.as_str().as_bytes(), value.as_bytes())),
    );
    // Where the stream is gone there is nobody to tell.
    if let Ok(mut send) = respond.send_response(head, note.to_head)
        && !note.to_head
    {
        send.send_data(Bytes::from(own.body), true).unwrap_or(());
    }
}
