//! From a client of HTTP/1.1 to a backend of the same: bodies pass in the framing that they came in.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::Poll;

use mc_core::http1::{
    Body, Decoder, Framing, Malformed, Request, RequestLine, Response, Version, write_request, write_response,
};
use mc_core::outcome::RequestOutcome;
use mc_core::relay::{Choice, Method};
use mc_uring::relay::Failure;
use mc_uring::tls::{Received, Spliced};

use super::super::backend::{self, Fault, Lease, Progress, Source, Upload, beside};
use super::super::encode::Coder;
use super::super::session::{Note, Session};
use super::super::stream::Came;
use super::{Asked, End, UpError, connection, facts, gone, measure, put, take, watch};
use crate::clock;

/// Has a backend of HTTP/1.1 answer.
pub(super) async fn serve(
    session: &Session,
    lease: Lease,
    asked: &Asked<'_>,
    plain: &mut Vec<u8>,
    decoder: &mut Decoder,
    note: &mut Note,
) -> Result<End, Fault> {
    let Asked { request, head, copied } = *asked;
    let mut out = Vec::with_capacity(head.len() + 256);
    let facts = facts(session, note);
    let target = note.target(request.target.of(head));
    let line = RequestLine { method: request.method.of(head), target };
    let upgrade = request.upgrade.map(|upgrade| upgrade.of(head));
    let edits = note.request_edits();
    let fields = edits.apply(request.section.end_to_end(head));
    write_request(&mut out, line, request.framing(head), upgrade, &facts, fields);
    // What has come of the body goes along.
    let ready = measure(decoder, plain).map_err(|error| Fault::before(RequestOutcome::Malformed, error))?;
    if let Some(copied) = copied {
        copied.raw(&plain[..ready]);
        if decoder.is_done() {
            copied.finish(true);
        }
    }
    out.extend(plain.drain(..ready));
    note.bytes_in += ready as u64;
    if note.bytes_in > note.most_bytes() {
        return Err(Fault::before(RequestOutcome::TooLarge, ""));
    }
    session.connection.up.count(out.len(), session.now_ms());
    if lease.send(&out).await.is_err() {
        return Err(Fault::before(RequestOutcome::BackendClosed, "sending the request failed"));
    }
    drop(out);
    let progress = Progress { delivered: Cell::new(decoder.is_done()), ..Progress::default() };
    let result = {
        let most = note.most_bytes().saturating_sub(note.bytes_in);
        let upload = Upload { most, progress: &progress, copied };
        let up = pin!(send_body(session, &lease, decoder, plain, &upload));
        let down = pin!(pass_response(session, &lease, request, head, note, &progress));
        beside(up, down, |error| error.fault(session, &progress)).await
    };
    note.bytes_in += progress.bytes.get();
    let passed = result?;
    if passed.switched {
        let outcome = tunnel(session, &lease, plain, passed.rest, note).await;
        return Ok(End { outcome, persistent: false });
    }
    // What the client still sends of this request cannot be told from the next one.
    let persistent = passed.persistent && progress.delivered.get();
    if passed.reusable && progress.delivered.get() {
        lease.give_back(&session.worker);
    }
    Ok(End { outcome: RequestOutcome::Completed, persistent })
}

/// Passes the rest of the request's body on, then watches whether the client leaves. A response may come before all of it
/// is delivered, and end this.
async fn send_body(
    session: &Session,
    lease: &Lease,
    decoder: &mut Decoder,
    plain: &mut Vec<u8>,
    upload: &Upload<'_>,
) -> Result<(), UpError> {
    while !decoder.is_done() {
        match upload.more(session.receive(plain)).await {
            Ok(Received::End { .. }) | Err(_) => return Err(UpError::Client),
            Ok(_) => {}
        }
        let ready = measure(decoder, plain).map_err(UpError::Malformed)?;
        if !upload.admits(ready) {
            return Err(UpError::TooLarge);
        }
        if let Some(copied) = upload.copied {
            copied.raw(&plain[..ready]);
            if decoder.is_done() {
                copied.finish(true);
            }
        }
        lease.send(&plain[..ready]).await.map_err(|_closed| UpError::Backend)?;
        session.connection.up.count(ready, session.now_ms());
        plain.drain(..ready);
    }
    upload.progress.delivered.set(true);
    watch(session, plain).await
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

/// Passes on what the backend answers: any number of 1xx, and the response.
async fn pass_response(
    session: &Session,
    lease: &Lease,
    request: &Request,
    request_head: &[u8],
    note: &mut Note,
    progress: &Progress,
) -> Result<Passed, Fault> {
    let limit_ms = note.http().response_timeout_ms;
    let to_head = request.is(request_head, "HEAD");
    let mut response = Response::default();
    let mut interim = backend::Interim::default();
    let mut bytes = Vec::new();
    let mut out = Vec::new();
    let head = loop {
        let head = lease.head(limit_ms, progress, &mut bytes).await?;
        response
            .parse(&bytes[head.clone()], to_head, &backend::LIMITS)
            .map_err(|error| Fault::before(RequestOutcome::BackendMalformed, error))?;
        if !response.is_informational() || response.status == 101 {
            break head;
        }
        interim.another()?;
        if request.version == Version::Http11 {
            let text = &bytes[head.clone()];
            let fields = response.section.end_to_end(text);
            write_response(&mut out, &response, text, fields, Framing::None, None);
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
    let text = &bytes[head.clone()];
    let all = response
        .section
        .fields()
        .iter()
        .map(|field| (field.known, field.name.of(text), field.value.of(text)));
    let coded = note.coding(to_head || response.body == Body::None || switched, all);
    let coding = coded.as_ref().and_then(|(_, coding)| *coding);
    let persistent = request.persistent
        && (coding.is_none() || request.version == Version::Http11)
        && progress.delivered.get()
        && !session.is_draining()
        && raw
        && response.body != Body::UntilClose
        && !switched;
    let connection = connection(request, persistent);
    let edits = note.response_edits().with_coding(coded);
    note.tap_response(edits.apply(response.section.end_to_end(text)));
    let fields = edits.apply(response.section.end_to_end(text));
    let framing = match (coding, request.version) {
        (None, version) => response.framing(text, version),
        (Some(_), Version::Http11) => Framing::Chunked,
        (Some(_), Version::Http10) => Framing::UntilClose,
    };
    write_response(&mut out, &response, text, fields, framing, connection);
    let chunked = framing == Framing::Chunked;
    if coding.is_some() {
        let decoder = Decoder::new(response.body, &backend::LIMITS);
        let source = Source::new(decoder, bytes.split_off(head.end).into());
        progress.answering.set(true);
        let exact = pass_coded(session, lease, source, Coder::new(coding)?, out, chunked, note).await?;
        let reusable = response.persistent && exact;
        return Ok(Passed { persistent, reusable, switched: false, rest: Vec::new() });
    }
    let mut decoder = Decoder::new(if switched { Body::None } else { response.body }, &backend::LIMITS);
    // What has come of the body goes along with the head.
    let before = out.len();
    let used = take(&mut decoder, &bytes[head.end..], raw, &mut out)
        .map_err(|error| Fault::before(RequestOutcome::BackendMalformed, error))?;
    note.bytes_out += (out.len() - before) as u64;
    let rest = bytes.split_off(head.end + used);
    progress.answering.set(true);
    session.send(&out).await.map_err(gone)?;
    drop((bytes, out));
    let mut exact = rest.is_empty();
    if !decoder.is_done() {
        exact = pass_body(session, lease, &mut decoder, raw, note).await?;
    }
    let reusable = response.persistent && exact;
    Ok(Passed { persistent, reusable, switched, rest })
}

/// Passes a response on whose content is encoded here; `out`: its head. Says whether nothing came after it.
async fn pass_coded(
    session: &Session,
    lease: &Lease,
    mut source: Source,
    mut coder: Coder,
    mut out: Vec<u8>,
    chunked: bool,
    note: &mut Note,
) -> Result<bool, Fault> {
    while !source.is_done() {
        let piece = source.next(lease).await?;
        let piece = coder.pass(piece, source.is_done())?;
        note.bytes_out += piece.len() as u64;
        put(&mut out, &piece, chunked);
        if source.is_done() && chunked {
            out.extend_from_slice(b"0\r\n\r\n");
        }
        session.send(&out).await.map_err(gone)?;
        out.clear();
    }
    Ok(source.is_clean())
}

/// Content that is spliced where it can be, in bytes.
const LONG: u64 = 64 * 1024;

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
    let cut = |error: io::Error| Fault::amid(RequestOutcome::BackendCut, error);
    // Where nothing is looked at and the kernel has the keys, what is long need not come through here.
    let mut choice = Choice::new();
    let from = lease.plain_socket().filter(|_| raw && session.tls.is_in_kernel());
    while !decoder.is_done() {
        lease.readable().await.map_err(cut)?;
        if let Some(from) = from
            && choice.method() == Method::Splice
            && decoder.ahead() >= LONG
        {
            let moved = |bytes: usize| {
                session.connection.down.count(bytes, session.now_ms());
                session.worker.stats.tls_spliced.add(bytes as u64);
                note.bytes_out += bytes as u64;
            };
            match session.tls.splice(shared, from, decoder.ahead(), moved).await {
                Ok(Spliced::Moved(bytes)) => {
                    decoder.skip(bytes);
                    choice.spliced(usize::try_from(bytes).unwrap_or(usize::MAX));
                    continue;
                }
                // The next read says so, too, and what it means.
                Ok(Spliced::End) => {}
                Ok(Spliced::NoPipe) => choice.cannot_splice(),
                Err(Failure::Client(error)) => return Err(gone(error)),
                Err(Failure::Backend(error)) => return Err(cut(error)),
            }
        }
        let came = lease.recv(|bytes| {
            choice.copied(bytes.len());
            if raw {
                let used = measure(decoder, bytes).map_err(malformed)?;
                session.tls.try_send(shared, &bytes[..used]).map_err(gone)?;
                exact = used == bytes.len();
                return Ok(used);
            }
            let mut content = Vec::with_capacity(bytes.len());
            exact = take(decoder, bytes, false, &mut content).map_err(malformed)? == bytes.len();
            session.tls.try_send(shared, &content).map_err(gone)?;
            Ok(content.len())
        });
        let passed = match came.map_err(cut)? {
            Came::Bytes(passed) => passed?,
            Came::Nothing => continue,
            Came::End if decoder.ends_with_connection() => return Ok(exact),
            Came::End => return Err(Fault::amid(RequestOutcome::BackendCut, "closed within the body")),
        };
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
                lease.finish();
                return Ok::<_, io::Error>(());
            }
        }
    };
    let down = async {
        let shared = &session.worker.shared;
        session.send(&rest).await?;
        loop {
            lease.readable().await?;
            match lease.recv(|bytes| session.tls.try_send(shared, bytes).map(|()| bytes.len()))? {
                Came::Nothing => {}
                Came::End => return Ok::<_, io::Error>(()),
                Came::Bytes(read) => {
                    let read = read?;
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
