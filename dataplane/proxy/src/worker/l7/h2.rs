//! A client that speaks HTTP/2 (RFC 9113): many requests at the same time, each in a task of its own.
//!
//! Frames, flow control and HPACK are the `h2` crate's, which also refuses what RFC 9113 calls malformed. It works on
//! a [`Wire`] in memory: the connection's task moves bytes between that and TLS.

mod downstream;

use std::cell::Cell;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::header::{self, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, StatusCode};
use mc_core::http1::Known;
use mc_core::outcome::{Outcome, RequestOutcome};
use mc_core::policy::Seen;
use mc_uring::runtime;

use self::downstream::{Answer, Asked, Body};
use super::exchange::{self, exchange, mirrored};
use super::fault::Fault;
use super::mirror::Copied;
use super::route::{Waiting, current_route};
use super::session::{Note, Said, Session};
use super::sides::RequestHead as _;
use super::wire::{self, Wire};
use crate::worker::connection::Phase;
use crate::worker::phase::enter_relay;

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
    session.connection.requests.multiplex();
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
            self.session.connection.watch(cx.waker());
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

/// Serves one request.
async fn stream(client: Rc<Client>, request: http::Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    let session = &client.session;
    let (parts, mut body) = request.into_parts();
    let (mut note, said) = note(session, &parts);
    // Asked once: the engine locks its state for each question.
    let no_body = body.is_end_stream();
    let mut copied = None;
    let end = one(&client, &parts, no_body, &mut body, &mut respond, &mut copied, &mut note).await;
    let outcome = end.unwrap_or_else(|fault| {
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
    });
    session.finish(note, said, outcome);
    if !no_body && !body.is_end_stream() {
        runtime::timeout(LINGER, pin!(hear_out(&mut body, copied.as_ref()))).await;
    }
    client.active.set(client.active.get() - 1);
    if client.active.get() == 0 {
        client.rest();
    }
}

/// Judges one request, and has a backend answer it. `copied`: the copy that goes elsewhere, if one does.
async fn one(
    client: &Client,
    parts: &Parts,
    no_body: bool,
    body: &mut RecvStream,
    respond: &mut SendResponse<Bytes>,
    copied: &mut Option<Copied>,
    note: &mut Note,
) -> Result<RequestOutcome, Fault> {
    let session = &client.session;
    let asked = Asked::new(parts, no_body).map_err(|why| Fault::before(RequestOutcome::Malformed, why))?;
    let refused = |outcome| Fault::before(outcome, "");
    let waiting =
        Waiting { is_http1: false, poll_gone: |cx: &mut Context<'_>| respond.poll_reset(cx).map(drop) };
    let route = current_route(session, asked.host.as_bytes(), note, waiting).await.map_err(refused)?;
    if session.connection.phase.get() == Phase::Idle {
        enter_relay(&session.worker, &session.connection, &route);
    }
    note.route = Some(Arc::clone(&route));
    note.host = asked.host.as_bytes().into();
    let seen = Seen {
        method: parts.method.as_str().as_bytes(),
        target: asked.target.as_bytes(),
        host: asked.host.as_bytes(),
        fields: || asked.fields(),
    };
    session.judge(note, &seen).map_err(refused)?;
    if asked.length().is_some_and(|length| length > note.most_bytes()) {
        return Err(refused(RequestOutcome::TooLarge));
    }
    *copied = mirrored(session, &asked, note);
    let (mut body, mut reply) = (Body::new(body, &asked, no_body), Answer::new(session, respond));
    let client =
        exchange::Client { head: &asked, body: &mut body, reply: &mut reply, copied: copied.as_ref() };
    exchange(session, &route, client, note).await
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
