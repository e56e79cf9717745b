//! A client that speaks HTTP/1.1: its requests, one after the other.
//!
//! A body is looked at piece by piece before it is passed on, also where it passes as it is framed: what the next message is
//! can then not be two opinions.

mod downstream;

use std::io;
use std::sync::Arc;
use std::task::Context;

use mc_core::http1::{self, Body as Framed, Framing, HeadEnd, Known, Limits, Malformed, Request, Version};
use mc_core::outcome::{Outcome, RequestOutcome};
use mc_core::policy::Seen;
use mc_uring::tls::Received;

use self::downstream::{Answer, Asked, Body};
use super::exchange::{Client, exchange, mirrored};
use super::fault::Fault;
use super::route::{Waiting, current_route};
use super::session::{Note, Said, Session};
use super::sides::RequestBody as _;
use crate::worker::connection::Phase;
use crate::worker::phase::enter_relay;

/// How long a client may take for a head that it has begun.
const HEAD_MS: u64 = 10_000;

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
    let host = request.host.of(head);
    let waiting =
        Waiting { is_http1: true, poll_gone: |cx: &mut Context<'_>| session.connection.poll_stopped(cx) };
    let route = match current_route(session, host, &mut note, waiting).await {
        Ok(route) => route,
        Err(RequestOutcome::ClientGone) => {
            session.finish(note, said, RequestOutcome::ClientGone);
            return After::Close(Outcome::ClientReset);
        }
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
        let persistent = request.persistent && request.body == Framed::None && !session.is_draining();
        let told = answer(session, &mut note, outcome, None, persistent).await;
        session.finish(note, said, outcome);
        return if persistent && told.is_ok() { After::Next } else { After::Close(Outcome::Completed) };
    }
    if let Framed::Length(length) = request.body
        && length > note.most_bytes()
    {
        answer(session, &mut note, RequestOutcome::TooLarge, None, false).await.unwrap_or(());
        session.finish(note, said, RequestOutcome::TooLarge);
        return After::Close(Outcome::Completed);
    }
    enter_relay(&session.worker, &session.connection, &route);
    // A response that comes before all of the body was read ends the connection: what the client still sends of it cannot
    // be told from the next request.
    session.connection.up.count(head.len(), session.now_ms());
    let asked = Asked { request: &request, head };
    let copied = mirrored(session, &asked, &note);
    let mut body = Body::new(session, &request, plain);
    let mut reply = Answer::new(session, &request);
    let client = Client { head: &asked, body: &mut body, reply: &mut reply, copied: copied.as_ref() };
    let end = exchange(session, &route, client, &mut note).await;
    let persistent = reply.is_persistent && body.is_over();
    let (outcome, after) = match end {
        Ok(outcome) if persistent => (outcome, After::Next),
        Ok(outcome) => (outcome, After::Close(Outcome::Completed)),
        Err(fault) => (fault.outcome, failed(session, &mut note, fault).await),
    };
    session.finish(note, said, outcome);
    after
}

/// Tells the client of a fault, where it may still be told.
async fn failed(session: &Session, note: &mut Note, fault: Fault) -> After {
    let Fault { outcome, told, detail, .. } = fault;
    if !detail.is_empty() {
        note.detail = detail;
    }
    if !told && outcome != RequestOutcome::ClientGone {
        answer(session, note, outcome, None, false).await.unwrap_or(());
    }
    After::Close(match outcome {
        RequestOutcome::ClientGone | RequestOutcome::ClientTimeout => Outcome::ClientReset,
        RequestOutcome::BackendCut => Outcome::BackendReset,
        _ => Outcome::Completed,
    })
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
    let (fields, framing) = (edits.apply(fields), Framing::Length(length.as_bytes()));
    http1::write_response(&mut out, own.status, b"", fields, framing, connection, None);
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
