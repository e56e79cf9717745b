//! From a client of HTTP/1.1 to a backend of HTTP/2: content alone passes, framed anew on each side.

use std::cell::Cell;
use std::pin::pin;

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{Reason, RecvStream, SendStream};
use http::header::{self, HeaderValue};
use mc_core::http1::{Decoder, Framing, Version, write_translated};
use mc_core::outcome::RequestOutcome;
use mc_uring::tls::Received;

use super::super::backend::{Fault, Interim, Progress, Upload, beside};
use super::super::checks;
use super::super::encode::Coder;
use super::super::mux::{self, Channel, Head, pairs};
use super::super::session::{Note, Session};
use super::{Asked, End, UpError, connection, facts, gone, put, take, watch};
use crate::clock;

/// Has a backend of HTTP/2 answer.
pub(super) async fn serve(
    session: &Session,
    channel: &Channel,
    asked: &Asked<'_>,
    plain: &mut Vec<u8>,
    decoder: &mut Decoder,
    note: &mut Note,
) -> Result<End, Fault> {
    let Asked { request, head, copied } = *asked;
    if request.upgrade.is_some() {
        return Err(Fault::before(
            RequestOutcome::BackendMalformed,
            "the backend's protocol has no upgrades",
        ));
    }
    let text = |bytes| str::from_utf8(bytes).unwrap_or_default();
    let (target, host) = (text(note.target(request.target.of(head))), text(request.host.of(head)));
    let facts = facts(session, note);
    let edits = note.request_edits();
    let fields = edits.apply(request.section.end_to_end(head));
    let mut sent = mux::request(request.method.of(head), target, host, false, &facts, fields)?;
    if let Framing::Length(length) = request.framing(head)
        && let Ok(length) = HeaderValue::from_bytes(length)
    {
        sent.headers_mut().insert(header::CONTENT_LENGTH, length);
    }
    let (mut response, mut upstream) = channel.send(sent, decoder.is_done()).await?;
    if let (Some(copied), true) = (copied, decoder.is_done()) {
        copied.finish(false);
    }
    let progress = Progress { delivered: Cell::new(decoder.is_done()), ..Progress::default() };
    let result = {
        let most = note.most_bytes().saturating_sub(note.bytes_in);
        let upload = Upload { most, progress: &progress, copied };
        let up = pin!(send_body(session, &mut upstream, decoder, plain, &upload));
        let down = pin!(pass_response(session, channel, &mut response, asked, note, &progress));
        beside(up, down, |error| error.fault(session, &progress)).await
    };
    note.bytes_in += progress.bytes.get();
    if result.is_err() {
        // The backend need not go on.
        upstream.send_reset(Reason::CANCEL);
    }
    let persistent = result? && progress.delivered.get();
    Ok(End { outcome: RequestOutcome::Completed, persistent })
}

/// Passes the content of the request's body on, then watches whether the client leaves.
async fn send_body(
    session: &Session,
    upstream: &mut SendStream<Bytes>,
    decoder: &mut Decoder,
    plain: &mut Vec<u8>,
    upload: &Upload<'_>,
) -> Result<(), UpError> {
    while !decoder.is_done() {
        let mut content = Vec::new();
        let used = take(decoder, plain, false, &mut content).map_err(UpError::Malformed)?;
        plain.drain(..used);
        session.connection.up.count(used, session.now_ms());
        if !upload.admits(used) {
            return Err(UpError::TooLarge);
        }
        let last = decoder.is_done();
        if let Some(copied) = upload.copied {
            copied.content(&content);
            if last {
                copied.finish(false);
            }
        }
        mux::send_data(upstream, content.into(), last).await.map_err(|_closed| UpError::Backend)?;
        if last {
            upload.progress.delivered.set(true);
            break;
        }
        match upload.more(session.receive(plain)).await {
            Ok(Received::End { .. }) | Err(_) => return Err(UpError::Client),
            Ok(_) => {}
        }
    }
    watch(session, plain).await
}

/// Waits for the response's head, and passes on the 1xx before it to clients that know them.
async fn final_head(
    session: &Session,
    channel: &Channel,
    response: &mut ResponseFuture,
    version: Version,
    limit_ms: u64,
    progress: &Progress,
) -> Result<http::Response<RecvStream>, Fault> {
    let mut interim = Interim::default();
    loop {
        let told = match channel.head(response, limit_ms, progress).await? {
            Head::Informational(told) => told,
            Head::Final(answer) => return Ok(answer),
        };
        interim.another()?;
        if version == Version::Http11 {
            let mut out = Vec::new();
            write_translated(&mut out, told.status().as_u16(), pairs(told.headers()), Framing::None, None);
            session.send(&out).await.map_err(gone)?;
        }
    }
}

/// Passes on what a backend of HTTP/2 answers; says whether the client's connection may go on.
async fn pass_response(
    session: &Session,
    channel: &Channel,
    response: &mut ResponseFuture,
    asked: &Asked<'_>,
    note: &mut Note,
    progress: &Progress,
) -> Result<bool, Fault> {
    let Asked { request, head, .. } = *asked;
    let answer =
        final_head(session, channel, response, request.version, note.http().response_timeout_ms, progress)
            .await?;
    let mut out = Vec::new();
    note.times.response_us = clock::micros() - note.started_us - note.times.connect_us;
    note.status = answer.status().as_u16();
    let (parts, mut body) = answer.into_parts();
    let length = parts.headers.get(header::CONTENT_LENGTH).map(HeaderValue::as_bytes);
    let no_body = request.is(head, "HEAD") || mux::has_no_content(note.status);
    let coded = note.coding(no_body || body.is_end_stream(), pairs(&parts.headers));
    let coding = coded.as_ref().and_then(|(_, coding)| *coding);
    let mut coder = Coder::new(coding)?;
    let framing = match length.filter(|_| coding.is_none()) {
        Some(length) => Framing::Length(length),
        None if no_body => Framing::None,
        None if body.is_end_stream() => Framing::Length(b"0"),
        None if request.version == Version::Http10 => Framing::UntilClose,
        None => Framing::Chunked,
    };
    let persistent = request.persistent
        && progress.delivered.get()
        && !session.is_draining()
        && framing != Framing::UntilClose;
    let edits = note.response_edits().with_coding(coded);
    note.tap_response(edits.apply(pairs(&parts.headers)));
    let fields = edits.apply(pairs(&parts.headers).filter(|(_, name, _)| *name != b"content-length"));
    write_translated(&mut out, note.status, fields, framing, connection(request, persistent));
    progress.answering.set(true);
    let chunked = framing == Framing::Chunked;
    let cut = |error: h2::Error| Fault::amid(RequestOutcome::BackendCut, error);
    while let Some(data) = body.data().await {
        let data = data.map_err(cut)?;
        if no_body && !data.is_empty() {
            // The client would take it for its next response.
            return Err(Fault::amid(RequestOutcome::BackendMalformed, "content where there is none"));
        }
        body.flow_control().release_capacity(data.len()).unwrap_or(());
        let data = coder.pass(data, false)?;
        note.bytes_out += data.len() as u64;
        put(&mut out, &data, chunked);
        session.send(&out).await.map_err(gone)?;
        out.clear();
    }
    let rest = coder.pass(Bytes::new(), true)?;
    note.bytes_out += rest.len() as u64;
    put(&mut out, &rest, chunked);
    let trailers = body.trailers().await.map_err(cut)?;
    let trailers = trailers.as_ref().map(checks::trailers).transpose();
    let trailers = trailers.map_err(|why| Fault::amid(RequestOutcome::BackendMalformed, why))?;
    if chunked {
        mux::write_trailers(&mut out, trailers.as_ref());
    }
    session.send(&out).await.map_err(gone)?;
    Ok(persistent)
}
