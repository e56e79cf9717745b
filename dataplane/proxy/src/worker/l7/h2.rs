//! A client that speaks HTTP/2 (RFC 9113): many requests at the same time, each in a task of its own.
//!
//! Frames, flow control and HPACK are the `h2` crate's, which also refuses what RFC 9113 calls malformed. It works on
//! a [`Wire`] in memory: the connection's task moves bytes between that and TLS.

use std::cell::Cell;
use std::fmt::Write as _;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use base64::Engine as _;
use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::ext::Protocol;
use h2::server::{Connection, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, StatusCode};
use mc_core::http1::{
    self, Authority, Body, Decoder, Facts, Forwarded, Framing, Known, RequestLine, Response, is_target,
    write_request,
};
use mc_core::outcome::{Outcome, RequestOutcome};
use mc_uring::runtime;

use super::backend::{self, Fault, IDLE_MS, Lease, RESPONSE, Source, Upstream, lease, read_head};
use super::mux::{self, Channel, Head};
use super::session::{Note, Session};
use super::wire::{self, Wire};
use crate::clock;
use crate::snapshot::RouteEntry;
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

/// Bytes of a response that wait for the client's flow control.
const SEND_BUFFER: usize = 256 * 1024;

/// Requests that a client may reset before it is looked at whether it does little else (CVE-2023-44487).
const RESETS: u64 = 100;

/// One client's connection, shared by the tasks of its streams.
struct Client {
    session: Rc<Session>,
    /// Streams that are being served.
    active: Cell<usize>,
    served: Cell<u64>,
    /// Those that the client gave up.
    reset: Cell<u64>,
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
        let deadline = self.session.now_ms() + IDLE_MS;
        self.session.worker.connections.enter(&self.session.connection, Phase::Idle, deadline, deadline);
    }
}

/// A request as its backend will see it.
struct Asked<'a> {
    method: &'a [u8],
    target: &'a str,
    host: &'a str,
    framing: Framing<'a>,
    /// The protocol of an extended CONNECT (RFC 8441), which a backend of HTTP/1.1 knows as an upgrade.
    upgrade: Option<&'a str>,
    /// Cookies in one field, as HTTP/1.1 wants them (RFC 9113, section 8.2.3).
    cookies: Vec<u8>,
}

/// Serves one request.
async fn stream(client: Rc<Client>, request: http::Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    let session = &client.session;
    let (parts, mut body) = request.into_parts();
    let mut note = note(session, &parts);
    let end = match asked(&parts, body.is_end_stream()) {
        Ok(asked) => match session.route(asked.host.as_bytes()) {
            Ok(route) => {
                if client.active.get() == 1 {
                    enter_relay(&session.worker, &session.connection, &route);
                }
                note.route = Some(Arc::clone(&route));
                note.host = asked.host.as_bytes().into();
                exchange(session, &route, &parts, &asked, &mut body, &mut respond, &mut note).await
            }
            Err(outcome) => Err(Fault::before(outcome, "")),
        },
        Err(why) => Err(Fault::before(RequestOutcome::Malformed, why)),
    };
    let outcome = match end {
        Ok(outcome) => outcome,
        Err(fault) => {
            if !fault.detail.is_empty() {
                note.detail = fault.detail;
            }
            if fault.outcome == RequestOutcome::ClientGone {
                client.reset.set(client.reset.get() + 1);
                respond.send_reset(Reason::CANCEL);
            } else if !fault.told {
                answer(&mut respond, &mut note, fault.outcome.status());
            }
            fault.outcome
        }
    };
    session.finish(note, outcome);
    client.active.set(client.active.get() - 1);
    if client.active.get() == 0 {
        client.rest();
    }
}

fn note(session: &Session, parts: &Parts) -> Note {
    let find = |name: HeaderName| parts.headers.get(name).map(HeaderValue::as_bytes).unwrap_or_default();
    let id = parts.headers.get("x-request-id").map(HeaderValue::as_bytes);
    let mut note = session.note("HTTP/2.0", id);
    note.method = parts.method.as_str().as_bytes().into();
    note.target = parts.uri.path_and_query().map_or("", |target| target.as_str()).as_bytes().into();
    note.user_agent = find(header::USER_AGENT).into();
    note.referer = find(header::REFERER).into();
    note
}

/// Checks what the engine does not: the request must mean the same to a backend of HTTP/1.1.
fn asked(parts: &Parts, no_body: bool) -> Result<Asked<'_>, &'static str> {
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (_, Some(_)) => return Err("there is more than one Host"),
        (Some(host), None) => Some(host.to_str().map_err(|_not_ascii| "Host is no name or address")?),
        (None, None) => None,
    };
    let authority = parts.uri.authority().map(http::uri::Authority::as_str);
    let host = match (authority, host) {
        (Some(authority), Some(host)) if !authority.eq_ignore_ascii_case(host) => {
            return Err(":authority and Host differ");
        }
        (Some(host), _) | (None, Some(host)) => host,
        (None, None) => return Err("there is neither :authority nor Host"),
    };
    if Authority::parse(host.as_bytes()).is_none() {
        return Err(":authority is no name or address");
    }
    let upgrade = match (&parts.method, parts.extensions.get::<Protocol>()) {
        (&Method::CONNECT, None) => return Err("CONNECT is for proxies of clients"),
        (_, protocol) => protocol.map(Protocol::as_str),
    };
    let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
    let is_fit = target.starts_with('/') || (target == "*" && parts.method == Method::OPTIONS);
    if !is_fit || !is_target(target.as_bytes()) {
        return Err(":path is malformed");
    }
    let mut lengths = parts.headers.get_all(header::CONTENT_LENGTH).iter();
    let framing = match (lengths.next(), lengths.next()) {
        (_, Some(_)) => return Err("there is more than one Content-Length"),
        (Some(length), None) if length.as_bytes().iter().all(u8::is_ascii_digit) => {
            Framing::Length(length.as_bytes())
        }
        (Some(_), None) => return Err("Content-Length is no number"),
        (None, None) if no_body || upgrade.is_some() => Framing::None,
        (None, None) => Framing::Chunked,
    };
    let cookies: Vec<&[u8]> =
        parts.headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    Ok(Asked {
        method: if upgrade.is_some() { b"GET" } else { parts.method.as_str().as_bytes() },
        target,
        host,
        framing,
        upgrade,
        cookies: cookies.join(b"; ".as_slice()),
    })
}

fn facts<'a>(session: &Session, asked: &Asked<'a>, note: &'a Note) -> Facts<'a> {
    Facts {
        client: session.connection.client.get().ip(),
        host: asked.host.as_bytes(),
        request_id: &note.id,
        forwarded: Forwarded::Set,
    }
}

/// The request's fields, cookies in one.
fn fields<'a>(parts: &'a Parts, asked: &'a Asked<'_>) -> impl Iterator<Item = (Known, &'a [u8], &'a [u8])> {
    let fields = parts.headers.iter().filter(|(name, _)| *name != header::COOKIE);
    let fields = fields.map(|(name, value)| {
        let name = name.as_str().as_bytes();
        (Known::of(name), name, value.as_bytes())
    });
    let cookies = (Known::Other, b"cookie".as_slice(), asked.cookies.as_slice());
    fields.chain((!asked.cookies.is_empty()).then_some(cookies))
}

/// The request's head, for a backend of HTTP/1.1.
fn head(session: &Session, parts: &Parts, asked: &Asked<'_>, note: &Note) -> Vec<u8> {
    // RFC 8441, section 5: HTTP/2 has no use for the key, HTTP/1.1 asks for one.
    let key = base64::engine::general_purpose::STANDARD.encode(fastrand::u128(..).to_le_bytes());
    let key = asked.upgrade.is_some_and(|protocol| protocol.eq_ignore_ascii_case("websocket")).then_some((
        Known::Other,
        b"sec-websocket-key".as_slice(),
        key.as_bytes(),
    ));
    let mut out = Vec::with_capacity(1024);
    write_request(
        &mut out,
        RequestLine { method: asked.method, target: asked.target.as_bytes() },
        asked.framing,
        asked.upgrade.map(str::as_bytes),
        &facts(session, asked, note),
        fields(parts, asked).chain(key),
    );
    out
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
    let repeatable = body.is_end_stream() && parts.method.is_idempotent() && asked.upgrade.is_none();
    let mut fresh = false;
    loop {
        let upstream = lease(session, route, note, fresh)
            .await
            .map_err(|outcome| Fault::before(outcome, std::mem::take(&mut note.detail)))?;
        note.times.connect_us = clock::micros() - note.started_us;
        let (reused, end) = match upstream {
            Upstream::Http1(lease) => {
                (lease.reused, with_backend(session, lease, parts, asked, body, respond, note).await)
            }
            Upstream::Http2(channel) => {
                (channel.reused, with_channel(session, &channel, parts, asked, body, respond, note).await)
            }
        };
        match end {
            Err(fault)
                if fault.outcome == RequestOutcome::BackendClosed && reused && !fresh && repeatable =>
            {
                fresh = true;
            }
            end => return end,
        }
    }
}

/// Has a backend of HTTP/1.1 answer.
async fn with_backend(
    session: &Session,
    lease: Lease,
    parts: &Parts,
    asked: &Asked<'_>,
    body: &mut RecvStream,
    respond: &mut SendResponse<Bytes>,
    note: &mut Note,
) -> Result<RequestOutcome, Fault> {
    let head = head(session, parts, asked, note);
    if lease.send(&head).await.is_err() {
        return Err(Fault::before(RequestOutcome::BackendClosed, "sending the request failed"));
    }
    let bytes_in = Cell::new(0);
    let sent_all = Cell::new(false);
    let result = {
        let upgraded = asked.upgrade.is_some();
        let up = async {
            let end = send_body(&lease, body, asked.framing == Framing::Chunked, upgraded, &bytes_in).await;
            sent_all.set(end.is_ok());
            end
        };
        let mut up = pin!(up);
        let mut down = pin!(pass_response(session, &lease, parts, asked, respond, note));
        let mut sending = true;
        poll_fn(|cx| {
            if sending && let Poll::Ready(end) = up.as_mut().poll(cx) {
                sending = false;
                if let Err(UpError::Client) = end {
                    return Poll::Ready(Err(Fault::amid(RequestOutcome::ClientGone, "the client gave up")));
                }
            }
            down.as_mut().poll(cx)
        })
        .await
    };
    note.bytes_in += bytes_in.get();
    let (outcome, reusable) = result?;
    if reusable && sent_all.get() {
        lease.give_back(&session.worker);
    }
    Ok(outcome)
}

/// Has a backend of HTTP/2 answer: bodies and trailers pass in both directions at the same time.
async fn with_channel(
    session: &Session,
    channel: &Channel,
    parts: &Parts,
    asked: &Asked<'_>,
    body: &mut RecvStream,
    respond: &mut SendResponse<Bytes>,
    note: &mut Note,
) -> Result<RequestOutcome, Fault> {
    if asked.upgrade.is_some() {
        return Err(Fault::before(
            RequestOutcome::BackendMalformed,
            "the backend's protocol has no upgrades",
        ));
    }
    let te = parts.headers.get(header::TE).is_some_and(|te| te == "trailers");
    let length = match asked.framing {
        Framing::Length(length) => HeaderValue::from_bytes(length).ok(),
        _ => None,
    };
    let facts = facts(session, asked, note);
    let mut request = mux::request(asked.method, asked.target, asked.host, te, &facts, fields(parts, asked))?;
    if let Some(length) = length {
        request.headers_mut().insert(header::CONTENT_LENGTH, length);
    }
    let (mut response, mut upstream) = channel.send(request, body.is_end_stream()).await?;
    let bytes_in = Cell::new(0);
    let result = {
        let mut up = pin!(send_body_on(&mut upstream, body, &bytes_in));
        let mut down = pin!(pass_response_on(&mut response, respond, note));
        let mut sending = true;
        poll_fn(|cx| {
            if sending && let Poll::Ready(end) = up.as_mut().poll(cx) {
                sending = false;
                if let Err(UpError::Client) = end {
                    return Poll::Ready(Err(Fault::amid(RequestOutcome::ClientGone, "the client gave up")));
                }
            }
            down.as_mut().poll(cx)
        })
        .await
    };
    note.bytes_in += bytes_in.get();
    if result.is_err() {
        // The backend need not go on.
        upstream.send_reset(Reason::CANCEL);
    }
    result
}

/// Passes the request's body and trailers on, as fast as the backend takes them.
async fn send_body_on(
    upstream: &mut SendStream<Bytes>,
    body: &mut RecvStream,
    count: &Cell<u64>,
) -> Result<(), UpError> {
    if body.is_end_stream() {
        return Ok(());
    }
    while let Some(data) = body.data().await {
        let data = data.map_err(|_reset| UpError::Client)?;
        let len = data.len();
        let last = body.is_end_stream();
        mux::send_data(upstream, data, last).await.map_err(|_closed| UpError::Backend)?;
        count.set(count.get() + len as u64);
        body.flow_control().release_capacity(len).unwrap_or(());
        if last {
            return Ok(());
        }
    }
    match body.trailers().await.map_err(|_reset| UpError::Client)? {
        Some(trailers) => upstream.send_trailers(trailers),
        None => upstream.send_data(Bytes::new(), true),
    }
    .map_err(|_closed| UpError::Backend)
}

/// Passes on what a backend of HTTP/2 answers.
async fn pass_response_on(
    response: &mut ResponseFuture,
    respond: &mut SendResponse<Bytes>,
    note: &mut Note,
) -> Result<RequestOutcome, Fault> {
    let gave_up = || Fault::amid(RequestOutcome::ClientGone, "the client gave up");
    let gone = |error: h2::Error| Fault::amid(RequestOutcome::ClientGone, error);
    let answer = loop {
        let head = {
            let mut waiting = pin!(mux::head(response));
            poll_fn(|cx| match respond.poll_reset(cx) {
                Poll::Ready(_) => Poll::Ready(Err(gave_up())),
                Poll::Pending => waiting.as_mut().poll(cx),
            })
            .await?
        };
        match head {
            Head::Informational(told) => respond.send_informational(told).unwrap_or(()),
            Head::Final(answer) => break answer,
        }
    };
    note.times.response_us = clock::micros() - note.started_us - note.times.connect_us;
    note.status = answer.status().as_u16();
    let (head, mut body) = answer.into_parts();
    let mut send =
        respond.send_response(http::Response::from_parts(head, ()), body.is_end_stream()).map_err(gone)?;
    if body.is_end_stream() {
        return Ok(RequestOutcome::Completed);
    }
    loop {
        let data = poll_fn(|cx| match send.poll_reset(cx) {
            Poll::Ready(_) => Poll::Ready(Err(gave_up())),
            Poll::Pending => body.poll_data(cx).map(Ok),
        })
        .await?;
        let data = match data {
            None => break,
            Some(Ok(data)) => data,
            Some(Err(error)) => {
                send.send_reset(error.reason().unwrap_or(Reason::INTERNAL_ERROR));
                return Err(Fault::amid(RequestOutcome::BackendCut, error));
            }
        };
        let (len, last) = (data.len(), body.is_end_stream());
        note.bytes_out += len as u64;
        mux::send_data(&mut send, data, last).await.map_err(gone)?;
        body.flow_control().release_capacity(len).unwrap_or(());
        if last {
            return Ok(RequestOutcome::Completed);
        }
    }
    match body.trailers().await {
        Ok(Some(trailers)) => send.send_trailers(trailers).map_err(gone)?,
        Ok(None) => send.send_data(Bytes::new(), true).map_err(gone)?,
        Err(error) => {
            send.send_reset(error.reason().unwrap_or(Reason::INTERNAL_ERROR));
            return Err(Fault::amid(RequestOutcome::BackendCut, error));
        }
    }
    Ok(RequestOutcome::Completed)
}

enum UpError {
    /// The client gave the request up.
    Client,
    /// The backend takes no more: it may still answer.
    Backend,
}

/// Passes the request's body on, as fast as the backend takes it.
async fn send_body(
    lease: &Lease,
    body: &mut RecvStream,
    chunked: bool,
    upgraded: bool,
    count: &Cell<u64>,
) -> Result<(), UpError> {
    let mut out = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.map_err(|_reset| UpError::Client)?;
        out.clear();
        if chunked && !data.is_empty() {
            http1::write_chunk_size(&mut out, data.len());
            out.extend_from_slice(&data);
            out.extend_from_slice(b"\r\n");
        } else {
            out.extend_from_slice(&data);
        }
        lease.send(&out).await.map_err(|_closed| UpError::Backend)?;
        count.set(count.get() + data.len() as u64);
        // The engine's own bookkeeping: a stream that is over by now does not mind.
        body.flow_control().release_capacity(data.len()).unwrap_or(());
    }
    if upgraded {
        lease.socket.shutdown(std::net::Shutdown::Write);
    }
    if chunked {
        let trailers = body.trailers().await.map_err(|_reset| UpError::Client)?;
        out.clear();
        mux::write_trailers(&mut out, trailers.as_ref());
        lease.send(&out).await.map_err(|_closed| UpError::Backend)?;
    }
    Ok(())
}

/// Passes on what the backend answers; says also whether its connection may be used again.
async fn pass_response(
    session: &Session,
    lease: &Lease,
    parts: &Parts,
    asked: &Asked<'_>,
    respond: &mut SendResponse<Bytes>,
    note: &mut Note,
) -> Result<(RequestOutcome, bool), Fault> {
    let worker = &session.worker;
    let mut response = Response::default();
    let mut bytes = Vec::new();
    let head = loop {
        let head = {
            let mut reading = pin!(runtime::timeout(RESPONSE, read_head(worker, &lease.socket, &mut bytes)));
            poll_fn(|cx| match respond.poll_reset(cx) {
                Poll::Ready(_) => {
                    Poll::Ready(Err(Fault::before(RequestOutcome::ClientGone, "the client gave up")))
                }
                Poll::Pending => reading.as_mut().poll(cx).map(Ok),
            })
            .await?
        };
        let head = Fault::of_head(head)?;
        response
            .parse(&bytes[head.clone()], parts.method == Method::HEAD, &backend::LIMITS)
            .map_err(|error| Fault::before(RequestOutcome::BackendMalformed, error))?;
        if !response.is_informational() || response.status == 101 {
            break head;
        }
        // 100 and 103, which tell of what is to come; a client that is not interested ignores them.
        let informational = to_http(&response, &bytes[head.clone()], Framing::None)?.map(|_nothing| ());
        respond.send_informational(informational).unwrap_or(());
        bytes.drain(..head.end);
    };
    note.times.response_us = clock::micros() - note.started_us - note.times.connect_us;
    note.status = response.status;
    let text = &bytes[head.clone()];
    let switched = response.status == 101;
    if switched != asked.upgrade.is_some() && switched {
        return Err(Fault::before(
            RequestOutcome::BackendMalformed,
            "101 to a request that did not ask for it",
        ));
    }
    if switched {
        // RFC 8441, section 5: what is 101 there is 200 here.
        response.status = 200;
        note.status = 200;
        response.body = Body::UntilClose;
    }
    let answer = to_http(&response, text, response.framing(text, http1::Version::Http11))?;
    let mut source = Source::new(Decoder::new(response.body, &backend::LIMITS), bytes.split_off(head.end));
    let gone = |error: h2::Error| Fault::amid(RequestOutcome::ClientGone, error);
    let mut send = respond.send_response(answer, source.is_done()).map_err(gone)?;
    drop(bytes);
    while !source.is_done() {
        let piece = {
            let mut reading = pin!(source.next(worker, &lease.socket));
            poll_fn(|cx| match send.poll_reset(cx) {
                Poll::Ready(_) => {
                    Poll::Ready(Err(Fault::amid(RequestOutcome::ClientGone, "the client gave up")))
                }
                Poll::Pending => reading.as_mut().poll(cx),
            })
            .await
        };
        let piece = match piece {
            Ok(piece) => piece,
            Err(fault) => {
                // The client must not take what it has for all of it.
                send.send_reset(Reason::INTERNAL_ERROR);
                return Err(fault);
            }
        };
        note.bytes_out += piece.len() as u64;
        let last = source.is_done();
        let trailers = if last { trailers(source.trailers()) } else { None };
        mux::send_data(&mut send, piece, last && trailers.is_none()).await.map_err(gone)?;
        if let Some(trailers) = trailers {
            send.send_trailers(trailers).map_err(gone)?;
        }
    }
    let outcome = if switched { RequestOutcome::Upgraded } else { RequestOutcome::Completed };
    Ok((outcome, response.persistent && !switched && source.is_clean()))
}

/// The response's head as HTTP/2 has it.
fn to_http(response: &Response, head: &[u8], framing: Framing<'_>) -> Result<http::Response<()>, Fault> {
    let malformed = |why: &str| Fault::before(RequestOutcome::BackendMalformed, why);
    let status =
        StatusCode::from_u16(response.status).map_err(|_range| malformed("its status is malformed"))?;
    let mut answer = http::Response::new(());
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    let length = match framing {
        Framing::Length(length) => Some((Known::ContentLength, b"content-length".as_slice(), length)),
        _ => None,
    };
    for (_, name, value) in response.end_to_end(head).chain(length) {
        let name = HeaderName::from_bytes(name).map_err(|_bad| malformed("a field's name is malformed"))?;
        let value =
            HeaderValue::from_bytes(value).map_err(|_bad| malformed("a field's value is malformed"))?;
        headers.append(name, value);
    }
    Ok(answer)
}

/// The fields of a trailer section, which the decoder has found to be in order.
fn trailers(lines: &[u8]) -> Option<HeaderMap> {
    let mut map = HeaderMap::new();
    for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = HeaderName::from_bytes(&line[..colon]).ok()?;
        map.append(name, HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?);
    }
    (!map.is_empty()).then_some(map)
}

/// Answers for the backend that did not.
fn answer(respond: &mut SendResponse<Bytes>, note: &mut Note, status: u16) {
    let mut body = String::new();
    // Writing to a string cannot fail.
    writeln!(body, "{status} {}", http1::reason(status)).unwrap_or(());
    note.status = status;
    note.bytes_out = body.len() as u64;
    let mut head = http::Response::new(());
    *head.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    let headers = head.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    if let Ok(id) = HeaderValue::from_str(&note.id) {
        headers.insert("x-request-id", id);
    }
    let to_head = &*note.method == b"HEAD";
    // Where the stream is gone there is nobody to tell.
    if let Ok(mut send) = respond.send_response(head, to_head)
        && !to_head
    {
        send.send_data(Bytes::from(body), true).unwrap_or(());
    }
}
