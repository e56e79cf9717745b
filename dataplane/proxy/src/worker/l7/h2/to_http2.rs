//! From a client of HTTP/2 to a backend of the same: bodies and trailers pass in both directions at the same time.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use mc_core::http1::Framing;
use mc_core::outcome::RequestOutcome;
use mc_core::policy::Edits;

use super::super::backend::{Fault, Interim, Progress, Upload, beside};
use super::super::checks;
use super::super::encode::Coder;
use super::super::mux::{self, Channel, Head, pairs};
use super::super::session::{Note, Session};
use super::{Asked, UpError, facts, fields, more, pass};
use crate::clock;

/// Has a backend of HTTP/2 answer: bodies and trailers pass in both directions at the same time.
pub(super) async fn serve(
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
    let edits = note.request_edits();
    let fields = edits.apply(fields(parts, asked));
    let mut request = mux::request(asked.method, asked.target, asked.host, te, &facts, fields)?;
    if let Some(length) = length {
        request.headers_mut().insert(header::CONTENT_LENGTH, length);
    }
    let (mut response, mut upstream) = channel.send(request, body.is_end_stream()).await?;
    let progress = Progress::default();
    let result = {
        let upload = Upload { most: note.most_bytes(), progress: &progress, copied: asked.copied };
        let up = pin!(send_body(&mut upstream, body, &upload));
        let down = pin!(pass_response(channel, &mut response, respond, note, &progress));
        beside(up, down, UpError::fault).await
    };
    note.bytes_in += progress.bytes.get();
    if result.is_err() {
        // The backend need not go on.
        upstream.send_reset(Reason::CANCEL);
    }
    result
}

/// Passes the request's body and trailers on, as fast as the backend takes them.
async fn send_body(
    upstream: &mut SendStream<Bytes>,
    body: &mut RecvStream,
    upload: &Upload<'_>,
) -> Result<(), UpError> {
    if body.is_end_stream() {
        return Ok(());
    }
    while let Some(data) = upload.more(body.data()).await {
        let data = data.map_err(|_reset| UpError::Client)?;
        let len = data.len();
        let last = body.is_end_stream();
        if !upload.admits(len) {
            return Err(UpError::TooLarge);
        }
        if let Some(copied) = upload.copied {
            copied.content(&data);
            if last {
                copied.finish(false);
            }
        }
        mux::send_data(upstream, data, last).await.map_err(|_closed| UpError::Backend)?;
        body.flow_control().release_capacity(len).unwrap_or(());
        if last {
            return Ok(());
        }
    }
    let trailers = upload.more(body.trailers()).await.map_err(|_reset| UpError::Client)?.unwrap_or_default();
    let trailers = checks::trailers(&trailers).map_err(UpError::Malformed)?;
    if let Some(copied) = upload.copied {
        copied.finish(false);
    }
    mux::end(upstream, trailers).map_err(|_closed| UpError::Backend)
}

/// Waits for the response's head, and passes on the 1xx before it.
async fn final_head(
    channel: &Channel,
    response: &mut ResponseFuture,
    respond: &mut SendResponse<Bytes>,
    note: &Note,
    progress: &Progress,
) -> Result<http::Response<RecvStream>, Fault> {
    let limit_ms = note.http().response_timeout_ms;
    let mut interim = Interim::default();
    loop {
        let head = {
            let mut waiting = pin!(channel.head(response, limit_ms, progress));
            poll_fn(|cx| match respond.poll_reset(cx) {
                Poll::Ready(_) => Poll::Ready(Err(gave_up())),
                Poll::Pending => waiting.as_mut().poll(cx),
            })
            .await?
        };
        match head {
            Head::Informational(told) => {
                interim.another()?;
                respond.send_informational(told).unwrap_or(());
            }
            Head::Final(answer) => return Ok(answer),
        }
    }
}

fn gave_up() -> Fault {
    Fault::amid(RequestOutcome::ClientGone, "the client gave up")
}

/// Passes on what a backend of HTTP/2 answers.
async fn pass_response(
    channel: &Channel,
    response: &mut ResponseFuture,
    respond: &mut SendResponse<Bytes>,
    note: &mut Note,
    progress: &Progress,
) -> Result<RequestOutcome, Fault> {
    let gone = |error: h2::Error| Fault::amid(RequestOutcome::ClientGone, error);
    let answer = final_head(channel, response, respond, note, progress).await?;
    note.times.response_us = clock::micros() - note.started_us - note.times.connect_us;
    note.status = answer.status().as_u16();
    let (mut head, mut body) = answer.into_parts();
    let coded = note.coding(body.is_end_stream(), pairs(&head.headers));
    let mut coder = Coder::new(coded.as_ref().and_then(|(_, coding)| *coding))?;
    edit(&mut head.headers, &note.response_edits().with_coding(coded));
    note.tap_response(pairs(&head.headers));
    let mut send =
        respond.send_response(http::Response::from_parts(head, ()), body.is_end_stream()).map_err(gone)?;
    if body.is_end_stream() {
        return Ok(RequestOutcome::Completed);
    }
    loop {
        let reading = pin!(poll_fn(|cx| match send.poll_reset(cx) {
            Poll::Ready(_) => Poll::Ready(Err(gave_up())),
            Poll::Pending => body.poll_data(cx).map(Ok),
        }));
        let data = match more(&channel.worker, note, progress, reading).await {
            Ok(None) => break,
            Ok(Some(Ok(data))) => data,
            Err(fault) => {
                send.send_reset(Reason::INTERNAL_ERROR);
                return Err(fault);
            }
            Ok(Some(Err(error))) => {
                send.send_reset(reset(&error));
                return Err(Fault::amid(RequestOutcome::BackendCut, error));
            }
        };
        let (len, last) = (data.len(), body.is_end_stream());
        if len > 0 && mux::has_no_content(note.status) {
            send.send_reset(Reason::INTERNAL_ERROR);
            return Err(Fault::amid(RequestOutcome::BackendMalformed, "content where there is none"));
        }
        let data = coder.pass(data, last)?;
        note.bytes_out += data.len() as u64;
        pass(&channel.worker, note, progress, &mut send, data, last).await?;
        body.flow_control().release_capacity(len).unwrap_or(());
        if last {
            return Ok(RequestOutcome::Completed);
        }
    }
    let rest = coder.pass(Bytes::new(), true)?;
    note.bytes_out += rest.len() as u64;
    pass(&channel.worker, note, progress, &mut send, rest, false).await?;
    let trailers =
        match more(&channel.worker, note, progress, pin!(async { Ok(body.trailers().await) })).await {
            Ok(Ok(trailers)) => trailers.unwrap_or_default(),
            Err(fault) => {
                send.send_reset(Reason::INTERNAL_ERROR);
                return Err(fault);
            }
            Ok(Err(error)) => {
                send.send_reset(reset(&error));
                return Err(Fault::amid(RequestOutcome::BackendCut, error));
            }
        };
    match checks::trailers(&trailers) {
        Ok(trailers) => mux::end(&mut send, trailers).map_err(gone)?,
        Err(why) => {
            send.send_reset(Reason::INTERNAL_ERROR);
            return Err(Fault::amid(RequestOutcome::BackendMalformed, why));
        }
    }
    Ok(RequestOutcome::Completed)
}

/// How a client is told that its response broke off: with the backend's reason, but for those that say that all is well, or
/// that nothing was done and the request may come again (RFC 9113, sections 8.1 and 8.7).
fn reset(error: &h2::Error) -> Reason {
    match error.reason() {
        None | Some(Reason::NO_ERROR | Reason::REFUSED_STREAM | Reason::HTTP_1_1_REQUIRED) => {
            Reason::INTERNAL_ERROR
        }
        Some(reason) => reason,
    }
}

/// Changes a response's fields.
fn edit(headers: &mut HeaderMap, edits: &Edits<'_>) {
    if edits.is_empty() {
        return;
    }
    let before = std::mem::take(headers);
    for (_, name, value) in edits.apply(pairs(&before)) {
        // They were in order before, or were validated.
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            headers.append(name, value);
        }
    }
}
