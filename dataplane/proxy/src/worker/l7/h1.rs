//! A client that speaks HTTP/1.1: its requests, one after the other.
//!
//! The request's body goes to the backend while the response comes back: either may end first. Bodies pass in the
//! framing that they came in, piece by piece, and each piece is looked at before it is passed on: what the next
//! message is can then not be two opinions.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{Reason, SendStream};
use http::header::{self, HeaderMap, HeaderValue};
use mc_core::http1::{
    self, Body, Decoder, Facts, Forwarded, Framing, HeadEnd, Known, Limits, Malformed, Request, RequestLine,
    Response, Step, Version, write_request, write_response, write_translated,
};
use mc_core::outcome::{Outcome, RequestOutcome};
use mc_uring::runtime;
use mc_uring::tls::Received;

use super::backend::{self, Fault, IDLE_MS, Lease, RESPONSE, Upstream, lease, read_head};
use super::mux::{self, Channel, Head};
use super::session::{Note, Session};
use crate::clock;
use crate::snapshot::RouteEntry;
use crate::worker::connection::Phase;
use crate::worker::serve::enter_relay;

/// How long a client may take for a head that it has begun.
const HEAD_MS: u64 = 10_000;

/// Bytes of further requests that are read before the response to the current one is over.
const AHEAD: usize = 64 * 1024;

/// What a client's head may take.
const LIMITS: Limits = Limits { head_bytes: 32 * 1024, target_bytes: 16 * 1024, fields: 100 };

/// Serves one request after the other; `plain`: what the client said right after its handshake.
pub(super) async fn serve(session: &Session, mut plain: Vec<u8>) -> Outcome {
    let mut request = Request::default();
    loop {
        let head = match next_head(session, &mut plain).await {
            Ok(Some(head)) => head,
            Ok(None) => return Outcome::Completed,
            Err(NoHead::Gone) => return Outcome::ClientReset,
            Err(NoHead::Malformed(error)) => {
                refuse(session, session.note("HTTP/1.1", None), error).await;
                return Outcome::Completed;
            }
        };
        let rest = plain.split_off(head.end);
        let bytes = std::mem::replace(&mut plain, rest);
        let bytes = &bytes[head.start..];
        match one(session, &mut request, bytes, &mut plain).await {
            After::Next => {}
            After::Close(outcome) => return outcome,
        }
    }
}

enum NoHead {
    /// The client left.
    Gone,
    /// What it sent is no request.
    Malformed(Malformed),
}

/// What becomes of the connection after a request.
enum After {
    Next,
    Close(Outcome),
}

/// Reads until a head is complete; `None`: the client has finished.
async fn next_head(session: &Session, plain: &mut Vec<u8>) -> Result<Option<std::ops::Range<usize>>, NoHead> {
    let connections = &session.worker.connections;
    let connection = &session.connection;
    let mut end = HeadEnd::default();
    let mut begun = false;
    loop {
        if let Some(head) = end.find(plain, &LIMITS).map_err(NoHead::Malformed)? {
            return Ok(Some(head));
        }
        if plain.is_empty() {
            // Nothing is held for a client that waits.
            *plain = Vec::new();
            let deadline = session.now_ms() + IDLE_MS;
            connections.enter(connection, Phase::Idle, deadline, deadline);
        } else if !begun {
            begun = true;
            let deadline = session.now_ms() + HEAD_MS;
            connections.enter(connection, Phase::Idle, deadline, deadline);
        }
        match session.receive(plain).await {
            Ok(Received::End { .. }) if plain.is_empty() => return Ok(None),
            Ok(Received::End { .. }) | Err(_) => return Err(NoHead::Gone),
            Ok(_) => {}
        }
    }
}

/// Serves one request whose head is complete; `plain`: what came after it.
async fn one(session: &Session, request: &mut Request, head: &[u8], plain: &mut Vec<u8>) -> After {
    if let Err(error) = request.parse(head, &LIMITS) {
        refuse(session, session.note("HTTP/1.1", None), error).await;
        return After::Close(Outcome::Completed);
    }
    let mut note = note(session, request, head);
    let route = match session.route(request.host.of(head)) {
        Ok(route) => route,
        Err(outcome) => {
            answer(session, &mut note, outcome.status(), false).await.unwrap_or(());
            session.finish(note, outcome);
            return After::Close(Outcome::Completed);
        }
    };
    enter_relay(&session.worker, &session.connection, &route);
    note.route = Some(Arc::clone(&route));
    let end = exchange(session, &route, request, head, plain, &mut note).await;
    match end {
        Ok(End { outcome, persistent }) => {
            session.finish(note, outcome);
            if persistent { After::Next } else { After::Close(Outcome::Completed) }
        }
        Err(Fault { outcome, told, detail }) => {
            if !detail.is_empty() {
                note.detail = detail;
            }
            if !told && outcome != RequestOutcome::ClientGone {
                answer(session, &mut note, outcome.status(), false).await.unwrap_or(());
            }
            session.finish(note, outcome);
            if told {
                // The client must not take what it has for all of it.
                session.abort();
            }
            After::Close(match outcome {
                RequestOutcome::ClientGone => Outcome::ClientReset,
                RequestOutcome::BackendCut => Outcome::BackendReset,
                _ => Outcome::Completed,
            })
        }
    }
}

fn note(session: &Session, request: &Request, head: &[u8]) -> Note {
    let protocol = if request.version == Version::Http10 { "HTTP/1.0" } else { "HTTP/1.1" };
    let find = |name| request.section.values(head, name).next().unwrap_or_default();
    let id = request.section.fields().iter().find(|field| field.known == Known::XRequestId);
    let mut note = session.note(protocol, id.map(|id| id.value.of(head)));
    note.method = request.method.of(head).into();
    note.host = request.host.of(head).into();
    if note.host.is_empty() {
        // HTTP/1.0 does without Host; TLS has told for whom the request is.
        note.host = session.connection.target.borrow().name.as_bytes().into();
    }
    note.target = request.target.of(head).into();
    note.user_agent = find("user-agent").into();
    note.referer = find("referer").into();
    note
}

/// A response that was passed on.
struct End {
    outcome: RequestOutcome,
    /// Whether the client's connection may carry another request.
    persistent: bool,
}

/// Finds a backend and has it answer; once more where a kept connection turned out to be closed.
async fn exchange(
    session: &Session,
    route: &Arc<RouteEntry>,
    request: &Request,
    head: &[u8],
    plain: &mut Vec<u8>,
    note: &mut Note,
) -> Result<End, Fault> {
    let mut fresh = false;
    loop {
        let upstream = lease(session, route, note, fresh)
            .await
            .map_err(|outcome| Fault::before(outcome, std::mem::take(&mut note.detail)))?;
        note.times.connect_us = clock::micros() - note.started_us;
        let mut decoder = Decoder::new(request.body, &LIMITS);
        let (reused, end) = match upstream {
            Upstream::Http1(lease) => {
                (lease.reused, with_backend(session, lease, request, head, plain, &mut decoder, note).await)
            }
            Upstream::Http2(channel) => (
                channel.reused,
                with_channel(session, &channel, request, head, plain, &mut decoder, note).await,
            ),
        };
        match end {
            // A kept connection that the backend had closed: nothing was done with the request, as far as anyone
            // can know where the method has no effect or can be repeated (RFC 9110, section 9.2.2).
            Err(fault)
                if fault.outcome == RequestOutcome::BackendClosed
                    && reused
                    && !fresh
                    && is_repeatable(request, head) =>
            {
                fresh = true;
            }
            end => return end,
        }
    }
}

/// Whether the request may be sent again: no body to be lost, and a method that may be repeated.
fn is_repeatable(request: &Request, head: &[u8]) -> bool {
    let idempotent: [&[u8]; 6] = [b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"];
    request.body == Body::None && idempotent.contains(&request.method.of(head))
}

fn facts<'a>(session: &Session, note: &'a Note) -> Facts<'a> {
    Facts {
        client: session.connection.client.get().ip(),
        host: &note.host,
        request_id: &note.id,
        forwarded: Forwarded::Set,
    }
}

/// What a response says of the connection.
fn connection(request: &Request, persistent: bool) -> Option<&'static [u8]> {
    match (request.version, persistent) {
        (Version::Http11, true) => None,
        (Version::Http10, true) => Some(b"keep-alive"),
        (_, false) => Some(b"close"),
    }
}

/// Has a backend of HTTP/1.1 answer.
async fn with_backend(
    session: &Session,
    lease: Lease,
    request: &Request,
    head: &[u8],
    plain: &mut Vec<u8>,
    decoder: &mut Decoder,
    note: &mut Note,
) -> Result<End, Fault> {
    let mut out = Vec::with_capacity(head.len() + 256);
    let facts = facts(session, note);
    let line = RequestLine { method: request.method.of(head), target: request.target.of(head) };
    let upgrade = request.upgrade.map(|upgrade| upgrade.of(head));
    write_request(&mut out, line, request.framing(head), upgrade, &facts, request.end_to_end(head));
    // What has come of the body goes along.
    let ready = measure(decoder, plain).map_err(|error| Fault::before(RequestOutcome::Malformed, error))?;
    out.extend(plain.drain(..ready));
    note.bytes_in += ready as u64;
    session.connection.up.count(out.len(), session.now_ms());
    if lease.send(&out).await.is_err() {
        return Err(Fault::before(RequestOutcome::BackendClosed, "sending the request failed"));
    }
    drop(out);
    let mut bytes_in = 0;
    let (delivered, answering) = (Cell::new(false), Cell::new(false));
    let result = {
        let mut up = pin!(send_body(session, &lease, decoder, plain, &mut bytes_in, &delivered));
        let mut down = pin!(pass_response(session, &lease, request, head, note, &answering));
        let mut sending = true;
        poll_fn(|cx| {
            if sending && let Poll::Ready(end) = up.as_mut().poll(cx) {
                sending = false;
                if let Some(fault) = end.err().and_then(|error| error.fault(answering.get())) {
                    return Poll::Ready(Err(fault));
                }
            }
            down.as_mut().poll(cx)
        })
        .await
    };
    note.bytes_in += bytes_in;
    let passed = result?;
    if passed.switched {
        let outcome = tunnel(session, &lease, plain, passed.rest, note).await;
        return Ok(End { outcome, persistent: false });
    }
    // What the client still sends of this request cannot be told from the next one.
    let persistent = passed.persistent && delivered.get();
    if passed.reusable && delivered.get() {
        lease.give_back(&session.worker);
    }
    Ok(End { outcome: RequestOutcome::Completed, persistent })
}

/// Has a backend of HTTP/2 answer.
async fn with_channel(
    session: &Session,
    channel: &Channel,
    request: &Request,
    head: &[u8],
    plain: &mut Vec<u8>,
    decoder: &mut Decoder,
    note: &mut Note,
) -> Result<End, Fault> {
    if request.upgrade.is_some() {
        return Err(Fault::before(
            RequestOutcome::BackendMalformed,
            "the backend's protocol has no upgrades",
        ));
    }
    let text = |bytes| str::from_utf8(bytes).unwrap_or_default();
    let (target, host) = (text(request.target.of(head)), text(request.host.of(head)));
    let facts = facts(session, note);
    let mut sent =
        mux::request(request.method.of(head), target, host, false, &facts, request.end_to_end(head))?;
    if let Framing::Length(length) = request.framing(head)
        && let Ok(length) = HeaderValue::from_bytes(length)
    {
        sent.headers_mut().insert(header::CONTENT_LENGTH, length);
    }
    let (mut response, mut upstream) = channel.send(sent, decoder.is_done()).await?;
    let mut bytes_in = 0;
    let (delivered, answering) = (Cell::new(decoder.is_done()), Cell::new(false));
    let result = {
        let mut up = pin!(send_body_on(session, &mut upstream, decoder, plain, &mut bytes_in, &delivered));
        let mut down = pin!(pass_response_on(session, &mut response, request, head, note, &answering));
        let mut sending = true;
        poll_fn(|cx| {
            if sending && let Poll::Ready(end) = up.as_mut().poll(cx) {
                sending = false;
                if let Some(fault) = end.err().and_then(|error| error.fault(answering.get())) {
                    return Poll::Ready(Err(fault));
                }
            }
            down.as_mut().poll(cx)
        })
        .await
    };
    note.bytes_in += bytes_in;
    if result.is_err() {
        // The backend need not go on.
        upstream.send_reset(Reason::CANCEL);
    }
    let persistent = result? && delivered.get();
    Ok(End { outcome: RequestOutcome::Completed, persistent })
}

/// Passes the content of the request's body on, then watches whether the client leaves.
async fn send_body_on(
    session: &Session,
    upstream: &mut SendStream<Bytes>,
    decoder: &mut Decoder,
    plain: &mut Vec<u8>,
    count: &mut u64,
    delivered: &Cell<bool>,
) -> Result<(), UpError> {
    while !decoder.is_done() {
        let mut content = Vec::new();
        let used = take(decoder, plain, false, &mut content).map_err(UpError::Malformed)?;
        plain.drain(..used);
        session.connection.up.count(used, session.now_ms());
        *count += used as u64;
        let last = decoder.is_done();
        mux::send_data(upstream, content.into(), last).await.map_err(|_closed| UpError::Backend)?;
        if last {
            delivered.set(true);
            break;
        }
        match session.receive(plain).await {
            Ok(Received::End { .. }) | Err(_) => return Err(UpError::Client),
            Ok(_) => {}
        }
    }
    watch(session, plain).await
}

/// Passes on what a backend of HTTP/2 answers; says whether the client's connection may go on.
async fn pass_response_on(
    session: &Session,
    response: &mut ResponseFuture,
    request: &Request,
    request_head: &[u8],
    note: &mut Note,
    answering: &Cell<bool>,
) -> Result<bool, Fault> {
    let mut out = Vec::new();
    let answer = loop {
        match mux::head(response).await? {
            Head::Informational(told) if request.version == Version::Http11 => {
                write_translated(
                    &mut out,
                    told.status().as_u16(),
                    pairs(told.headers()),
                    Framing::None,
                    None,
                );
                session.send(&out).await.map_err(gone)?;
                out.clear();
            }
            Head::Informational(_) => {}
            Head::Final(answer) => break answer,
        }
    };
    note.times.response_us = clock::micros() - note.started_us - note.times.connect_us;
    note.status = answer.status().as_u16();
    let (parts, mut body) = answer.into_parts();
    let length = parts.headers.get(header::CONTENT_LENGTH).map(HeaderValue::as_bytes);
    let no_body = request.is(request_head, "HEAD") || matches!(note.status, 204 | 304);
    let framing = match length {
        Some(length) => Framing::Length(length),
        None if no_body => Framing::None,
        None if body.is_end_stream() => Framing::Length(b"0"),
        None if request.version == Version::Http10 => Framing::UntilClose,
        None => Framing::Chunked,
    };
    let persistent = request.persistent && framing != Framing::UntilClose;
    let fields = pairs(&parts.headers).filter(|(name, _)| *name != b"content-length");
    write_translated(&mut out, note.status, fields, framing, connection(request, persistent));
    answering.set(true);
    let chunked = framing == Framing::Chunked;
    let cut = |error: h2::Error| Fault::amid(RequestOutcome::BackendCut, error);
    while let Some(data) = body.data().await {
        let data = data.map_err(cut)?;
        body.flow_control().release_capacity(data.len()).unwrap_or(());
        note.bytes_out += data.len() as u64;
        if chunked && !data.is_empty() {
            http1::write_chunk_size(&mut out, data.len());
        }
        out.extend_from_slice(&data);
        if chunked && !data.is_empty() {
            out.extend_from_slice(b"\r\n");
        }
        session.send(&out).await.map_err(gone)?;
        out.clear();
    }
    let trailers = body.trailers().await.map_err(cut)?;
    if chunked {
        mux::write_trailers(&mut out, trailers.as_ref());
    }
    session.send(&out).await.map_err(gone)?;
    Ok(persistent)
}

fn pairs(headers: &HeaderMap) -> impl Iterator<Item = (&[u8], &[u8])> {
    headers.iter().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()))
}

/// How many of these bytes belong to the body.
fn measure(decoder: &mut Decoder, bytes: &[u8]) -> Result<usize, Malformed> {
    let mut used = 0;
    loop {
        match decoder.next(&bytes[used..])? {
            Step::Content(len) | Step::Framing(len) => used += len,
            Step::NeedMore | Step::End => return Ok(used),
        }
    }
}

enum UpError {
    /// The client left.
    Client,
    /// The backend takes no more.
    Backend,
    /// The body's framing is malformed.
    Malformed(Malformed),
}

impl UpError {
    /// What it means for the request, to which the client has perhaps been told a part of the answer. A backend that
    /// does not want the body may still answer.
    fn fault(self, answering: bool) -> Option<Fault> {
        match self {
            Self::Backend => None,
            Self::Client => Some(Fault::amid(RequestOutcome::ClientGone, "the client left")),
            Self::Malformed(error) if answering => Some(Fault::amid(RequestOutcome::Malformed, error)),
            Self::Malformed(error) => Some(Fault::before(RequestOutcome::Malformed, error)),
        }
    }
}

/// Passes the rest of the request's body on, then watches whether the client leaves. `delivered` becomes true once
/// the backend has been sent all of it: a response may come before that, and end this.
async fn send_body(
    session: &Session,
    lease: &Lease,
    decoder: &mut Decoder,
    plain: &mut Vec<u8>,
    count: &mut u64,
    delivered: &Cell<bool>,
) -> Result<(), UpError> {
    while !decoder.is_done() {
        match session.receive(plain).await {
            Ok(Received::End { .. }) | Err(_) => return Err(UpError::Client),
            Ok(_) => {}
        }
        let ready = measure(decoder, plain).map_err(UpError::Malformed)?;
        lease.send(&plain[..ready]).await.map_err(|_closed| UpError::Backend)?;
        session.connection.up.count(ready, session.now_ms());
        *count += ready as u64;
        plain.drain(..ready);
    }
    delivered.set(true);
    watch(session, plain).await
}

/// Watches whether the client leaves; what it says meanwhile is kept for later.
async fn watch(session: &Session, plain: &mut Vec<u8>) -> Result<(), UpError> {
    while plain.len() < AHEAD {
        match session.receive(plain).await {
            // It has said all it wanted to say, and may still listen.
            Ok(Received::End { clean: true }) => break,
            Ok(Received::End { clean: false }) | Err(_) => return Err(UpError::Client),
            Ok(_) => {}
        }
    }
    Ok(())
}

/// What is known after a response.
struct Passed {
    /// The client's connection may go on.
    persistent: bool,
    /// The backend's may.
    reusable: bool,
    /// Another protocol is spoken from here on.
    switched: bool,
    /// What the backend said after the head of its 101.
    rest: Vec<u8>,
}

/// Passes on what the backend answers: any number of 1xx, and the response. `answering` becomes true with the first
/// byte of the response.
async fn pass_response(
    session: &Session,
    lease: &Lease,
    request: &Request,
    request_head: &[u8],
    note: &mut Note,
    answering: &Cell<bool>,
) -> Result<Passed, Fault> {
    let worker = &session.worker;
    let to_head = request.is(request_head, "HEAD");
    let mut response = Response::default();
    let mut bytes = Vec::new();
    let mut out = Vec::new();
    let head = loop {
        let head = runtime::timeout(RESPONSE, read_head(worker, &lease.socket, &mut bytes)).await;
        let head = Fault::of_head(head)?;
        response
            .parse(&bytes[head.clone()], to_head, &backend::LIMITS)
            .map_err(|error| Fault::before(RequestOutcome::BackendMalformed, error))?;
        if !response.is_informational() || response.status == 101 {
            break head;
        }
        if request.version == Version::Http11 {
            let text = &bytes[head.clone()];
            write_response(&mut out, &response, text, Framing::None, None);
            session.send(&out).await.map_err(gone)?;
            out.clear();
        }
        bytes.drain(..head.end);
    };
    note.times.response_us = clock::micros() - note.started_us - note.times.connect_us;
    note.status = response.status;
    let switched = response.status == 101;
    if switched && (request.upgrade.is_none() || response.upgrade(&bytes[head.clone()]).is_none()) {
        return Err(Fault::before(
            RequestOutcome::BackendMalformed,
            "101 to a request that did not ask for it",
        ));
    }
    // A chunked response to a client of HTTP/1.0 loses its framing, and ends with the connection.
    let raw = request.version == Version::Http11 || response.body != Body::Chunked;
    let persistent = request.persistent && raw && response.body != Body::UntilClose && !switched;
    let connection = connection(request, persistent);
    let text = &bytes[head.clone()];
    write_response(&mut out, &response, text, response.framing(text, request.version), connection);
    let mut decoder = Decoder::new(if switched { Body::None } else { response.body }, &backend::LIMITS);
    // What has come of the body goes along with the head.
    let before = out.len();
    let used = take(&mut decoder, &bytes[head.end..], raw, &mut out)
        .map_err(|error| Fault::before(RequestOutcome::BackendMalformed, error))?;
    note.bytes_out += (out.len() - before) as u64;
    let rest = bytes.split_off(head.end + used);
    answering.set(true);
    session.send(&out).await.map_err(gone)?;
    drop((bytes, out));
    let mut exact = rest.is_empty();
    if !decoder.is_done() {
        exact = pass_body(session, lease, &mut decoder, raw, note).await?;
    }
    let reusable = response.persistent && exact;
    Ok(Passed { persistent, reusable, switched, rest })
}

fn gone(error: io::Error) -> Fault {
    Fault::amid(RequestOutcome::ClientGone, error)
}

/// Appends what belongs to the body, `raw` as it is framed, else its content alone; says how many bytes it took.
fn take(decoder: &mut Decoder, bytes: &[u8], raw: bool, out: &mut Vec<u8>) -> Result<usize, Malformed> {
    let mut used = 0;
    loop {
        match decoder.next(&bytes[used..])? {
            Step::Content(len) => {
                out.extend_from_slice(&bytes[used..used + len]);
                used += len;
            }
            Step::Framing(len) => {
                if raw {
                    out.extend_from_slice(&bytes[used..used + len]);
                }
                used += len;
            }
            Step::NeedMore | Step::End => return Ok(used),
        }
    }
}

/// Passes the rest of a response's body on; says whether nothing came after it.
async fn pass_body(
    session: &Session,
    lease: &Lease,
    decoder: &mut Decoder,
    raw: bool,
    note: &mut Note,
) -> Result<bool, Fault> {
    let mut exact = true;
    let shared = &session.worker.shared;
    let malformed = |error: Malformed| Fault::amid(RequestOutcome::BackendMalformed, error);
    while !decoder.is_done() {
        lease.socket.readable().await.map_err(|error| Fault::amid(RequestOutcome::BackendCut, error))?;
        let passed = shared.with_buffer(|buffer| {
            let read = match lease.socket.recv(buffer) {
                Ok(0) if decoder.ends_with_connection() => return Ok(None),
                Ok(0) => return Err(Fault::amid(RequestOutcome::BackendCut, "closed within the body")),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Some(0)),
                Err(error) => return Err(Fault::amid(RequestOutcome::BackendCut, error)),
            };
            let used = if raw {
                let used = measure(decoder, &buffer[..read]).map_err(malformed)?;
                session.tls.try_send(shared, &buffer[..used]).map_err(gone)?;
                exact = used == read;
                used
            } else {
                let mut content = Vec::with_capacity(read);
                exact = take(decoder, &buffer[..read], false, &mut content).map_err(malformed)? == read;
                session.tls.try_send(shared, &content).map_err(gone)?;
                content.len()
            };
            Ok(Some(used))
        })?;
        let Some(passed) = passed else { return Ok(exact) };
        session.connection.down.count(passed, session.now_ms());
        note.bytes_out += passed as u64;
        if session.tls.has_unsent() {
            session.tls.flush(shared).await.map_err(gone)?;
        }
    }
    Ok(exact)
}

/// Passes bytes both ways until both sides have finished: what an upgrade leads to is not HTTP.
async fn tunnel(
    session: &Session,
    lease: &Lease,
    plain: &mut Vec<u8>,
    rest: Vec<u8>,
    note: &mut Note,
) -> RequestOutcome {
    let (bytes_in, bytes_out) = (Cell::new(0), Cell::new(rest.len() as u64));
    let up = async {
        loop {
            lease.send(plain).await?;
            session.connection.up.count(plain.len(), session.now_ms());
            bytes_in.set(bytes_in.get() + plain.len() as u64);
            plain.clear();
            if let Received::End { .. } = session.receive(plain).await? {
                lease.socket.shutdown(std::net::Shutdown::Write);
                return Ok::<_, io::Error>(());
            }
        }
    };
    let down = async {
        let shared = &session.worker.shared;
        session.send(&rest).await?;
        loop {
            lease.socket.readable().await?;
            let read = shared.with_buffer(|buffer| match lease.socket.recv(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
                Ok(0) => Ok(Some(0)),
                Ok(read) => session.tls.try_send(shared, &buffer[..read]).map(|()| Some(read)),
                Err(error) => Err(error),
            })?;
            match read {
                None => {}
                Some(0) => return Ok::<_, io::Error>(()),
                Some(read) => {
                    session.connection.down.count(read, session.now_ms());
                    bytes_out.set(bytes_out.get() + read as u64);
                    session.tls.flush(shared).await?;
                }
            }
        }
    };
    let (mut up, mut down) = (pin!(up), pin!(down));
    let mut up_done = false;
    // The backend's end is the end: a client that has finished may still listen, the other way round nothing is
    // left to be said.
    let _broken: io::Result<()> = poll_fn(|cx| {
        if !up_done && let Poll::Ready(end) = up.as_mut().poll(cx) {
            up_done = true;
            if end.is_err() {
                return Poll::Ready(end);
            }
        }
        down.as_mut().poll(cx)
    })
    .await;
    note.bytes_in += bytes_in.get();
    note.bytes_out += bytes_out.get();
    RequestOutcome::Upgraded
}

/// Answers for the backend that did not. The connection is closed after it.
async fn answer(session: &Session, note: &mut Note, status: u16, persistent: bool) -> io::Result<()> {
    let reason = http1::reason(status);
    let body = format!("{status} {reason}\n");
    note.status = status;
    note.bytes_out = body.len() as u64;
    let mut out = Vec::new();
    http1::write_status_line(&mut out, status, reason.as_bytes());
    let connection = if persistent { "" } else { "Connection: close\r\n" };
    let fields = format!(
        "Content-Type: text/plain\r\nContent-Length: {}\r\nX-Request-ID: {}\r\n{connection}\r\n",
        body.len(),
        note.id,
    );
    out.extend_from_slice(fields.as_bytes());
    if &*note.method != b"HEAD" {
        out.extend_from_slice(body.as_bytes());
    }
    session.send(&out).await
}

/// Tells a client that what it sent is no request, and logs it.
async fn refuse(session: &Session, mut note: Note, error: Malformed) {
    note.detail = error.to_string();
    answer(session, &mut note, error.status(), false).await.unwrap_or(());
    session.finish(note, RequestOutcome::Malformed);
}
