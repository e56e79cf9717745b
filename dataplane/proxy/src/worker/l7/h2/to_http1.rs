//! From a client of HTTP/2 to a backend of HTTP/1.1.

use std::cell::Cell;
use std::future::poll_fn;
use std::ops::Range;
use std::pin::pin;
use std::task::{Poll, Waker};

use base64::Engine as _;
use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, StatusCode};
use mc_core::http1::{self, Body, Decoder, Framing, Known, RequestLine, Response, write_request};
use mc_core::outcome::RequestOutcome;
use mc_core::policy::FieldRef;

use super::super::backend::{self, Fault, Lease, Progress, Source, Upload, beside};
use super::super::encode::Coder;
use super::super::session::{Note, Session};
use super::super::{checks, mux};
use super::{Asked, UpError, facts, fields, more, pass};
use crate::clock;

/// The request's head, for a backend of HTTP/1.1.
fn head(session: &Session, parts: &Parts, asked: &Asked<'_>, note: &Note) -> Vec<u8> {
    // RFC 8441, section 5: HTTP/2 has no use for the key, HTTP/1.1 asks for one.
    let is_websocket = asked.upgrade.is_some_and(|protocol| protocol.eq_ignore_ascii_case("websocket"));
    let key = is_websocket
        .then(|| base64::engine::general_purpose::STANDARD.encode(fastrand::u128(..).to_le_bytes()));
    let key = key.as_ref().map(|key| (Known::Other, b"sec-websocket-key".as_slice(), key.as_bytes()));
    let mut out = Vec::with_capacity(1024);
    let edits = note.request_edits();
    write_request(
        &mut out,
        RequestLine { method: asked.method, target: asked.target.as_bytes() },
        asked.framing,
        asked.upgrade.map(str::as_bytes),
        &facts(session, asked, note),
        edits.apply(fields(parts, asked)).chain(key),
    );
    out
}

/// Has a backend of HTTP/1.1 answer.
pub(super) async fn serve(
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
    let progress = Progress::default();
    let most = note.most_bytes();
    let switched = Gate::default();
    let result = {
        let up = pin!(async {
            if asked.upgrade.is_some() {
                // A backend that does not switch would take for its next request what is another protocol's.
                switched.passed().await;
            }
            let upload = Upload { most, progress: &progress, copied: asked.copied };
            let end = send_body(&lease, body, asked, &upload).await;
            progress.delivered.set(end.is_ok());
            end
        });
        let down = pin!(pass_response(&lease, parts, asked, &switched, respond, note, &progress));
        beside(up, down, UpError::fault).await
    };
    note.bytes_in += progress.bytes.get();
    let (outcome, reusable) = result?;
    if reusable && progress.delivered.get() {
        lease.give_back(&session.worker);
    }
    Ok(outcome)
}

/// Says that the backend speaks the protocol that the client wants.
#[derive(Default)]
struct Gate {
    open: Cell<bool>,
    waiting: Cell<Option<Waker>>,
}

impl Gate {
    fn open(&self) {
        self.open.set(true);
        if let Some(waiting) = self.waiting.take() {
            waiting.wake();
        }
    }

    async fn passed(&self) {
        poll_fn(|cx| {
            if self.open.get() {
                return Poll::Ready(());
            }
            self.waiting.set(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await;
    }
}

/// Passes the request's body on, as fast as the backend takes it.
async fn send_body(
    lease: &Lease,
    body: &mut RecvStream,
    asked: &Asked<'_>,
    upload: &Upload<'_>,
) -> Result<(), UpError> {
    if asked.no_body {
        return Ok(());
    }
    let chunked = asked.framing == Framing::Chunked;
    let mut out = Vec::new();
    while let Some(data) = upload.more(body.data()).await {
        let data = data.map_err(|_reset| UpError::Client)?;
        out.clear();
        if chunked && !data.is_empty() {
            http1::write_chunk_size(&mut out, data.len());
            out.extend_from_slice(&data);
            out.extend_from_slice(b"\r\n");
        } else {
            out.extend_from_slice(&data);
        }
        if !upload.admits(data.len()) {
            return Err(UpError::TooLarge);
        }
        if let Some(copied) = upload.copied {
            copied.content(&data);
        }
        lease.send(&out).await.map_err(|_closed| UpError::Backend)?;
        // The engine's own bookkeeping: a stream that is over by now does not mind.
        body.flow_control().release_capacity(data.len()).unwrap_or(());
    }
    if let Some(copied) = upload.copied {
        copied.finish(false);
    }
    if asked.upgrade.is_some() {
        lease.finish();
    }
    if chunked {
        let trailers = upload.more(body.trailers()).await.map_err(|_reset| UpError::Client)?;
        let trailers = trailers.as_ref().map(checks::trailers).transpose().map_err(UpError::Malformed)?;
        out.clear();
        mux::write_trailers(&mut out, trailers.as_ref());
        lease.send(&out).await.map_err(|_closed| UpError::Backend)?;
    }
    Ok(())
}

/// Waits for the response's head, and passes on the 1xx before it. Says where the head is in `bytes`, which also hold what
/// came behind it.
async fn final_head(
    lease: &Lease,
    parts: &Parts,
    respond: &mut SendResponse<Bytes>,
    note: &Note,
    response: &mut Response,
    bytes: &mut Vec<u8>,
    progress: &Progress,
) -> Result<Range<usize>, Fault> {
    let limit_ms = note.http().response_timeout_ms;
    let mut interim = backend::Interim::default();
    loop {
        let head = {
            let mut reading = pin!(lease.head(limit_ms, progress, bytes));
            poll_fn(|cx| match respond.poll_reset(cx) {
                Poll::Ready(_) => {
                    Poll::Ready(Err(Fault::before(RequestOutcome::ClientGone, "the client gave up")))
                }
                Poll::Pending => reading.as_mut().poll(cx),
            })
            .await?
        };
        response
            .parse(&bytes[head.clone()], parts.method == Method::HEAD, &backend::LIMITS)
            .map_err(|error| Fault::before(RequestOutcome::BackendMalformed, error))?;
        if !response.is_informational() || response.status == 101 {
            return Ok(head);
        }
        interim.another()?;
        // 100 and 103, which tell of what is to come; a client that is not interested ignores them.
        let text = &bytes[head.clone()];
        let fields = response.section.end_to_end(text);
        let informational = to_http(response.status, fields, Framing::None, &Bytes::new())?;
        respond.send_informational(informational).unwrap_or(());
        bytes.drain(..head.end);
    }
}

/// Passes on what the backend answers; says also whether its connection may be used again.
async fn pass_response(
    lease: &Lease,
    parts: &Parts,
    asked: &Asked<'_>,
    switching: &Gate,
    respond: &mut SendResponse<Bytes>,
    note: &mut Note,
    progress: &Progress,
) -> Result<(RequestOutcome, bool), Fault> {
    let mut response = Response::default();
    let mut bytes = Vec::new();
    let head = final_head(lease, parts, respond, note, &mut response, &mut bytes, progress).await?;
    note.times.response_us = clock::micros() - note.started_us - note.times.connect_us;
    note.status = response.status;
    // Pieces of it are passed on as they are, without a copy.
    let bytes = Bytes::from(bytes);
    let text = &bytes[head.clone()];
    let switched = response.status == 101;
    if switched && (asked.upgrade.is_none() || response.upgrade(text).is_none()) {
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
        switching.open();
    }
    let framing = response.framing(text, http1::Version::Http11);
    let all = response
        .section
        .fields()
        .iter()
        .map(|field| (field.known, field.name.of(text), field.value.of(text)));
    let no_content = parts.method == Method::HEAD || response.body == Body::None || switched;
    let coded = note.coding(no_content, all);
    let coding = coded.as_ref().and_then(|(_, coding)| *coding);
    let framing = if coding.is_some() { Framing::None } else { framing };
    let mut coder = Coder::new(coding)?;
    let edits = note.response_edits().with_coding(coded);
    note.tap_response(edits.apply(response.section.end_to_end(text)));
    let fields = edits.apply(response.section.end_to_end(text));
    let answer = to_http(response.status, fields, framing, &bytes)?;
    let mut source = Source::new(Decoder::new(response.body, &backend::LIMITS), bytes.slice(head.end..));
    let gone = |error: h2::Error| Fault::amid(RequestOutcome::ClientGone, error);
    let mut send = respond.send_response(answer, source.is_done()).map_err(gone)?;
    drop(bytes);
    while !source.is_done() {
        let piece = {
            let mut reading = pin!(source.next(lease));
            let reading = pin!(poll_fn(|cx| match send.poll_reset(cx) {
                Poll::Ready(_) => {
                    Poll::Ready(Err(Fault::amid(RequestOutcome::ClientGone, "the client gave up")))
                }
                Poll::Pending => reading.as_mut().poll(cx),
            }));
            more(&lease.worker, note, progress, reading).await
        };
        let piece = match piece {
            Ok(piece) => piece,
            Err(fault) => {
                // The client must not take what it has for all of it. RFC 8441, section 5: CANCEL stands for TCP's RST.
                send.send_reset(if switched { Reason::CANCEL } else { Reason::INTERNAL_ERROR });
                return Err(fault);
            }
        };
        let last = source.is_done();
        let piece = coder.pass(piece, last)?;
        note.bytes_out += piece.len() as u64;
        let trailers = if last { trailers(source.trailers()) } else { None };
        pass(&lease.worker, note, progress, &mut send, piece, last && trailers.is_none()).await?;
        if let Some(trailers) = trailers {
            send.send_trailers(trailers).map_err(gone)?;
        }
    }
    let outcome = if switched { RequestOutcome::Upgraded } else { RequestOutcome::Completed };
    Ok((outcome, response.persistent && !switched && source.is_clean()))
}

/// The response's head as HTTP/2 has it; `bytes`: where most values stand.
fn to_http<'a>(
    status: u16,
    fields: impl Iterator<Item = FieldRef<'a>>,
    framing: Framing<'a>,
    bytes: &Bytes,
) -> Result<http::Response<()>, Fault> {
    let malformed = |why: &str| Fault::before(RequestOutcome::BackendMalformed, why);
    let status = StatusCode::from_u16(status).map_err(|_range| malformed("its status is malformed"))?;
    let mut answer = http::Response::new(());
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    let length = match framing {
        Framing::Length(length) => Some((Known::ContentLength, b"content-length".as_slice(), length)),
        _ => None,
    };
    for (_, name, value) in fields.chain(length) {
        let name = HeaderName::from_bytes(name).map_err(|_bad| malformed("a field's name is malformed"))?;
        let value = if bytes.as_ptr_range().contains(&value.as_ptr()) {
            HeaderValue::from_maybe_shared(bytes.slice_ref(value))
        } else {
            HeaderValue::from_bytes(value)
        };
        let value = value.map_err(|_bad| malformed("a field's value is malformed"))?;
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
