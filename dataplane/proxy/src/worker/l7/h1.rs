//! A client that speaks HTTP/1.1: its requests, one after the other.
//!
//! The request's body goes to the backend while the response comes back: either may end first. Bodies pass in the
//! framing that they came in, piece by piece, and each piece is looked at before it is passed on: what the next
//! message is can then not be two opinions.

mod to_http1;
mod to_http2;

use std::io;
use std::sync::Arc;

use mc_core::http1::{
    self, Body, Decoder, Facts, Framing, HeadEnd, Known, Limits, Malformed, Request, RequestLine, Step,
    Version,
};
use mc_core::outcome::{Outcome, RequestOutcome};
use mc_core::policy::Seen;
use mc_uring::tls::Received;

use super::backend::{Fault, Progress, Upstream, lease};
use super::mirror::{self, Copied};
use super::session::{Note, Said, Session};
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
    loop {
        let head = match next_head(session, &mut plain).await {
            Ok(Some(head)) => head,
            Ok(None) => return Outcome::Completed,
            Err(NoHead::Gone) => return Outcome::ClientReset,
            Err(NoHead::Malformed(error)) => {
                Box::pin(refuse(session, session.note("HTTP/1.1", None), error)).await;
                return Outcome::Completed;
            }
        };
        let rest = plain.split_off(head.end);
        let bytes = std::mem::replace(&mut plain, rest);
        let bytes = &bytes[head.start..];
        // In a box, for as long as it takes: a connection that waits for its next request is a fraction of it.
        match Box::pin(one(session, bytes, &mut plain)).await {
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
            let deadline = session.now_ms() + session.keepalive_ms();
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
async fn one(session: &Session, head: &[u8], plain: &mut Vec<u8>) -> After {
    let mut request = Request::default();
    if let Err(error) = request.parse(head, &LIMITS) {
        refuse(session, session.note("HTTP/1.1", None), error).await;
        return After::Close(Outcome::Completed);
    }
    let (mut note, said) = note(session, &request, head);
    let route = match session.route(request.host.of(head)) {
        Ok(route) => route,
        Err(outcome) => {
            answer(session, &mut note, outcome, None, false).await.unwrap_or(());
            session.finish(note, said, outcome);
            return After::Close(Outcome::Completed);
        }
    };
    note.route = Some(Arc::clone(&route));
    let asked = Seen {
        method: request.method.of(head),
        target: request.target.of(head),
        host: request.host.of(head),
        fields: || request.section.end_to_end(head),
    };
    if let Err(outcome) = session.judge(&mut note, &asked) {
        // A body that nobody reads cannot be told from the next request.
        let persistent = request.persistent && request.body == Body::None && !session.is_draining();
        let told = answer(session, &mut note, outcome, None, persistent).await;
        session.finish(note, said, outcome);
        return if persistent && told.is_ok() { After::Next } else { After::Close(Outcome::Completed) };
    }
    if let Body::Length(length) = request.body
        && length > note.most_bytes()
    {
        answer(session, &mut note, RequestOutcome::TooLarge, None, false).await.unwrap_or(());
        session.finish(note, said, RequestOutcome::TooLarge);
        return After::Close(Outcome::Completed);
    }
    enter_relay(&session.worker, &session.connection, &route);
    let end = exchange(session, &route, &request, head, plain, &mut note).await;
    match end {
        Ok(End { outcome, persistent }) => {
            session.finish(note, said, outcome);
            if persistent { After::Next } else { After::Close(Outcome::Completed) }
        }
        Err(Fault { outcome, told, detail }) => {
            if !detail.is_empty() {
                note.detail = detail;
            }
            let was_ended = session.connection.stop.get() == Some(Outcome::IdleTimeout);
            let outcome = match outcome {
                // It took nothing for so long that its connection was ended.
                RequestOutcome::ClientGone if was_ended => RequestOutcome::ClientTimeout,
                outcome => outcome,
            };
            if !told && outcome != RequestOutcome::ClientGone {
                answer(session, &mut note, outcome, None, false).await.unwrap_or(());
            }
            session.finish(note, said, outcome);
            if told {
                // The client must not take what it has for all of it.
                session.abort();
            }
            After::Close(match outcome {
                RequestOutcome::ClientGone | RequestOutcome::ClientTimeout => Outcome::ClientReset,
                RequestOutcome::BackendCut => Outcome::BackendReset,
                _ => Outcome::Completed,
            })
        }
    }
}

fn note<'a>(session: &Session, request: &'a Request, head: &'a [u8]) -> (Note, Said<'a>) {
    let protocol = if request.version == Version::Http10 { "HTTP/1.0" } else { "HTTP/1.1" };
    let find = |name| request.section.values(head, name).next().unwrap_or_default();
    let id = request.section.fields().iter().find(|field| field.known == Known::XRequestId);
    let mut note = session.note(protocol, id.map(|id| id.value.of(head)));
    note.to_head = request.is(head, "HEAD");
    note.host = request.host.of(head).into();
    if note.host.is_empty() {
        // HTTP/1.0 does without Host; TLS has told for whom the request is.
        note.host = session.connection.target.borrow().name.as_bytes().into();
    }
    let said = Said {
        method: request.method.of(head),
        target: request.target.of(head),
        user_agent: find("user-agent"),
        referer: find("referer"),
    };
    (note, said)
}

/// A response that was passed on.
struct End {
    outcome: RequestOutcome,
    /// Whether the client's connection may carry another request.
    persistent: bool,
}

/// A request that is passed on.
struct Asked<'a> {
    request: &'a Request,
    head: &'a [u8],
    copied: Option<&'a Copied>,
}

fn mirror(session: &Session, request: &Request, head: &[u8], note: &Note) -> Option<Copied> {
    let line = RequestLine { method: request.method.of(head), target: request.target.of(head) };
    let edits = note.request_edits();
    let fields = edits.apply(request.section.end_to_end(head));
    mirror::begin(session, note, line, request.framing(head), &facts(session, note), fields)
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
    let copied = match note.mirror() {
        Some(_) if request.upgrade.is_none() => mirror(session, request, head, note),
        _ => None,
    };
    let mut repeats = 0;
    loop {
        let upstream = lease(session, route, note, repeats > 0)
            .await
            .map_err(|outcome| Fault::before(outcome, std::mem::take(&mut note.detail)))?;
        note.times.connect_us = clock::micros() - note.started_us;
        let mut decoder = Decoder::new(request.body, &LIMITS);
        let asked = Asked { request, head, copied: copied.as_ref() };
        let (reused, end) = match upstream {
            Upstream::Http1(lease) => {
                (lease.reused, to_http1::serve(session, lease, &asked, plain, &mut decoder, note).await)
            }
            Upstream::Http2(channel) => {
                (channel.reused, to_http2::serve(session, &channel, &asked, plain, &mut decoder, note).await)
            }
        };
        match end {
            Err(fault) if is_repeatable(request, head) && fault.may_repeat(reused, repeats, route) => {
                repeats += 1;
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

fn facts<'a>(session: &'a Session, note: &'a Note) -> Facts<'a> {
    Facts {
        client: session.connection.client.get().ip(),
        host: &note.host,
        request_id: &note.id,
        forwarded: note.http().forwarded,
        client_cert: session.client_cert(note),
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
    /// The body is larger than the route allows.
    TooLarge,
}

impl UpError {
    /// What it means for the request, to which the client has perhaps been told a part of the answer. A backend that
    /// does not want the body may still answer.
    fn fault(self, session: &Session, progress: &Progress) -> Option<Fault> {
        let answering = progress.answering.get();
        match self {
            Self::Backend => None,
            Self::Client if session.connection.stop.get() == Some(Outcome::IdleTimeout) => {
                // It did not leave: it was ended, because nothing moved.
                let is_clients = !progress.delivered.get() || (answering && session.tls.has_unsent());
                Some(if is_clients {
                    Fault::amid(RequestOutcome::ClientTimeout, "the client neither sends nor takes anything")
                } else {
                    Fault::amid(RequestOutcome::BackendTimeout, "no more of the response in time")
                })
            }
            Self::Client => Some(Fault::amid(RequestOutcome::ClientGone, "the client left")),
            Self::TooLarge if answering => Some(Fault::amid(RequestOutcome::TooLarge, "")),
            Self::TooLarge => Some(Fault::before(RequestOutcome::TooLarge, "")),
            Self::Malformed(error) if answering => Some(Fault::amid(RequestOutcome::Malformed, error)),
            Self::Malformed(error) => Some(Fault::before(RequestOutcome::Malformed, error)),
        }
    }
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

/// Appends content as it is framed.
fn put(out: &mut Vec<u8>, content: &[u8], chunked: bool) {
    if chunked && !content.is_empty() {
        http1::write_chunk_size(out, content.len());
        out.extend_from_slice(content);
        out.extend_from_slice(b"\r\n");
    } else {
        out.extend_from_slice(content);
    }
}

/// Answers instead of a backend, with this status where it is not the outcome's.
async fn answer(
    session: &Session,
    note: &mut Note,
    outcome: RequestOutcome,
    status: Option<u16>,
    persistent: bool,
) -> io::Result<()> {
    let own = note.own_answer(outcome, status);
    let length = own.body.len().to_string();
    let mut fields = vec![("Content-Type", own.content_type.as_str()), ("X-Request-ID", note.id.as_str())];
    fields.extend(note.own_fields.iter().map(|(name, value)| (*name, value.as_str())));
    let fields = fields.iter().map(|(name, value)| (Known::Other, name.as_bytes(), value.as_bytes()));
    let edits = note.response_edits();
    note.tap_response(edits.apply(fields.clone()));
    let mut out = Vec::new();
    // A client of HTTP/1.0 goes on only where it is told so.
    let connection = match (persistent, note.protocol) {
        (true, "HTTP/1.0") => Some(b"keep-alive".as_slice()),
        (true, _) => None,
        (false, _) => Some(b"close".as_slice()),
    };
    http1::write_translated(
        &mut out,
        own.status,
        edits.apply(fields),
        Framing::Length(length.as_bytes()),
        connection,
    );
    if !note.to_head {
        out.extend_from_slice(own.body.as_bytes());
    }
    session.send(&out).await
}

/// Tells a client that what it sent is no request, and logs it.
async fn refuse(session: &Session, mut note: Note, error: Malformed) {
    note.detail = error.to_string();
    answer(session, &mut note, RequestOutcome::Malformed, Some(error.status()), false).await.unwrap_or(());
    session.finish(note, Said::default(), RequestOutcome::Malformed);
}
