//! A backend that speaks HTTP/1.1: it has a connection to itself while it answers.

use std::io;

use bytes::{Buf as _, Bytes};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use mc_core::http1::{
    self, Body, Decoder, Framing, Malformed, RequestLine, Response, Step, Version, write_request,
};
use mc_core::outcome::RequestOutcome;
use mc_core::policy::FieldRef;
use mc_core::relay::{Choice, Method};
use mc_uring::Failure;
use mc_uring::tls::Spliced;

use super::backend::{LIMITS, Lease};
use super::checks;
use super::fault::Fault;
use super::mux::write_trailers;
use super::session::{Note, Session};
use super::sides::{Closed, Part, Progress, Receiver, RequestHead, ResponseHead, Sender, Upstream, facts};
use super::stream::Came;

/// Content that is spliced where it can be, in bytes.
const LONG: u64 = 64 * 1024;

/// Takes a request.
pub(super) struct ToHttp1<'a> {
    lease: &'a Lease,
    /// The head, until it is sent with the first of the body.
    out: Vec<u8>,
    /// Content is framed in chunks here.
    chunked: bool,
}

/// Gives a response.
pub(super) struct FromHttp1<'a> {
    lease: &'a Lease,
    to_head: bool,
    /// What has come of heads.
    heads: Vec<u8>,
    decoder: Decoder,
    /// What has come of the body and was not looked at.
    held: Bytes,
    /// The backend will take another request on this connection.
    is_persistent: bool,
}

/// A response's head, and the bytes that it stands in.
pub(super) struct Head {
    response: Response,
    bytes: Bytes,
}

impl Upstream for Lease {
    const IS_HTTP1: bool = true;
    type Sender<'a> = ToHttp1<'a>;
    type Receiver<'a> = FromHttp1<'a>;

    fn is_reused(&self) -> bool {
        self.reused
    }

    async fn begin<'a, H: RequestHead>(
        &'a self,
        session: &Session,
        note: &Note,
        head: &H,
        raw: bool,
        _is_over: bool,
    ) -> Result<(ToHttp1<'a>, FromHttp1<'a>), Fault> {
        let mut out = Vec::with_capacity(1024);
        let line = RequestLine { method: head.method(), target: note.target(head.target()) };
        let edits = note.request_edits();
        let framing = head.framing();
        let fields = edits.apply(head.fields());
        write_request(&mut out, line, framing, head.upgrade(), &facts(session, note), fields);
        let chunked = !raw && framing == Framing::Chunked;
        let sender = ToHttp1 { lease: self, out, chunked };
        let receiver = FromHttp1 {
            lease: self,
            to_head: note.to_head,
            heads: Vec::new(),
            decoder: Decoder::new(Body::None, &LIMITS),
            held: Bytes::new(),
            is_persistent: false,
        };
        Ok((sender, receiver))
    }

    fn give_back(self, session: &Session) {
        self.give_back(&session.worker);
    }
}

impl ToHttp1<'_> {
    async fn write(&self, bytes: &[u8]) -> Result<(), Closed> {
        self.lease.send(bytes).await.map_err(|_error| Closed)
    }
}

impl Sender for ToHttp1<'_> {
    async fn flush(&mut self) -> Result<(), Closed> {
        let out = std::mem::take(&mut self.out);
        self.write(&out).await
    }

    async fn send<P: AsRef<[u8]> + Into<Bytes>>(
        &mut self,
        piece: P,
        last: bool,
    ) -> Result<Option<P>, Closed> {
        if self.out.is_empty() && !self.chunked {
            self.write(piece.as_ref()).await?;
            return Ok(Some(piece));
        }
        put(&mut self.out, piece.as_ref(), self.chunked);
        if last && self.chunked {
            write_trailers(&mut self.out, None);
        }
        let out = std::mem::take(&mut self.out);
        self.write(&out).await?;
        Ok(Some(piece))
    }

    async fn end(&mut self, trailers: HeaderMap) -> Result<(), Closed> {
        if self.chunked {
            write_trailers(&mut self.out, Some(&trailers));
        }
        let out = std::mem::take(&mut self.out);
        self.write(&out).await
    }

    fn finish(&mut self) {
        self.lease.finish();
    }

    fn cancel(&mut self) {
        // Its connection is closed.
    }
}

impl Receiver for FromHttp1<'_> {
    const IS_HTTP1: bool = true;
    type Head = Head;

    async fn head(&mut self, limit_ms: u64, progress: &Progress) -> Result<Head, Fault> {
        let range = self.lease.head(limit_ms, progress, &mut self.heads).await?;
        let mut response = Response::default();
        response
            .parse(&self.heads[range.clone()], self.to_head, &LIMITS)
            .map_err(|error| Fault::before(RequestOutcome::BackendMalformed, error))?;
        if response.is_informational() && response.status != 101 {
            let rest = self.heads.split_off(range.end);
            let bytes = Bytes::from(std::mem::replace(&mut self.heads, rest)).slice(range);
            return Ok(Head { response, bytes });
        }
        let bytes = Bytes::from(std::mem::take(&mut self.heads));
        self.held = bytes.slice(range.end..);
        self.decoder = Decoder::new(response.body, &LIMITS);
        self.is_persistent = response.persistent && response.status != 101;
        Ok(Head { response, bytes: bytes.slice(range) })
    }

    fn is_over(&self) -> bool {
        self.decoder.is_done()
    }

    async fn next(&mut self) -> Result<Part<Bytes>, Fault> {
        let held = std::mem::take(&mut self.held);
        let mut content = self.take(held)?;
        while content.is_empty() && !self.decoder.is_done() {
            self.lease.readable().await.map_err(cut)?;
            let lease = self.lease;
            match lease.recv(|bytes| self.take(Bytes::copy_from_slice(bytes))).map_err(cut)? {
                Came::Bytes(more) => content = more?,
                Came::Nothing => {}
                Came::End if self.decoder.ends_with_connection() => {
                    self.decoder = Decoder::new(Body::None, &LIMITS);
                }
                Came::End => return Err(Fault::amid(RequestOutcome::BackendCut, "closed within the body")),
            }
        }
        if !self.decoder.is_done() {
            return Ok(Part::More(content));
        }
        let trailers = trailers(self.decoder.trailers());
        Ok(match (trailers.is_empty(), content.is_empty()) {
            (true, _) => Part::Last(content),
            (false, true) => Part::End(trailers),
            (false, false) => Part::More(content),
        })
    }

    fn took(&mut self, _len: usize) {
        // TCP's window is all there is.
    }

    async fn relay(&mut self, session: &Session, mut held: Vec<u8>, note: &mut Note) -> Result<(), Fault> {
        // What has come of the body goes along with the head: the client knows of nothing yet.
        let mut rest = std::mem::take(&mut self.held);
        let used = measure(&mut self.decoder, &rest)
            .map_err(|error| Fault::before(RequestOutcome::BackendMalformed, error))?;
        held.extend_from_slice(&rest[..used]);
        note.bytes_out += used as u64;
        rest.advance(used);
        self.held = rest;
        session.send(&held).await.map_err(gone)?;
        drop(held);
        // Where the kernel has the keys, what is long need not come through here.
        let mut choice = Choice::new();
        let from = self.lease.plain_socket().filter(|_| session.tls.is_in_kernel());
        while !self.decoder.is_done() {
            self.lease.readable().await.map_err(cut)?;
            if let Some(from) = from
                && choice.method() == Method::Splice
                && self.decoder.ahead() >= LONG
            {
                let moved = |bytes: usize| {
                    session.connection.down.count(bytes, session.now_ms());
                    session.worker.stats.tls_spliced.add(bytes as u64);
                    note.bytes_out += bytes as u64;
                };
                let shared = &session.worker.shared;
                match session.tls.splice(shared, from, self.decoder.ahead(), moved).await {
                    Ok(Spliced::Moved(bytes)) => {
                        self.decoder.skip(bytes);
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
            if !self.copy(session, &mut choice, note).await? {
                return Ok(());
            }
        }
        Ok(())
    }

    fn switch(&mut self) {
        self.decoder = Decoder::new(Body::UntilClose, &LIMITS);
    }

    fn is_reusable(&self) -> bool {
        self.is_persistent && self.decoder.is_done() && self.held.is_empty()
    }
}

impl FromHttp1<'_> {
    /// Passes on what has come of a body, as it is framed; `false`: the body ended with the connection.
    async fn copy(&mut self, session: &Session, choice: &mut Choice, note: &mut Note) -> Result<bool, Fault> {
        let shared = &session.worker.shared;
        let (lease, decoder, held) = (self.lease, &mut self.decoder, &mut self.held);
        let came = lease.recv(|bytes| {
            choice.copied(bytes.len());
            let used = measure(decoder, bytes).map_err(malformed)?;
            session.tls.try_send(shared, &bytes[..used]).map_err(gone)?;
            // What follows the body is nobody's.
            *held = Bytes::copy_from_slice(&bytes[used..]);
            Ok(used)
        });
        let passed = match came.map_err(cut)? {
            Came::Bytes(passed) => passed?,
            Came::Nothing => return Ok(true),
            Came::End if self.decoder.ends_with_connection() => return Ok(false),
            Came::End => return Err(Fault::amid(RequestOutcome::BackendCut, "closed within the body")),
        };
        session.connection.down.count(passed, session.now_ms());
        note.bytes_out += passed as u64;
        if session.tls.has_unsent() {
            session.blocking(session.tls.flush(shared)).await.map_err(gone)?;
        }
        Ok(true)
    }

    /// The content of these bytes, which is a part of them where it stands in one piece; what follows the body is held.
    fn take(&mut self, mut bytes: Bytes) -> Result<Bytes, Fault> {
        let mut content = Vec::new();
        loop {
            match self.decoder.next(&bytes).map_err(malformed)? {
                Step::Content(len) => {
                    let piece = bytes.split_to(len);
                    if content.is_empty() && (bytes.is_empty() || self.decoder.is_done()) {
                        self.held = bytes;
                        return Ok(piece);
                    }
                    content.extend_from_slice(&piece);
                }
                Step::Framing(len) => bytes.advance(len),
                Step::NeedMore | Step::End => break,
            }
        }
        self.held = bytes;
        Ok(content.into())
    }
}

impl ResponseHead for Head {
    fn status(&self) -> u16 {
        self.response.status
    }

    fn words(&self) -> &[u8] {
        self.response.reason.of(&self.bytes)
    }

    fn all(&self) -> impl Iterator<Item = FieldRef<'_>> {
        let fields = self.response.section.fields().iter();
        fields.map(|field| (field.known, field.name.of(&self.bytes), field.value.of(&self.bytes)))
    }

    fn fields(&self) -> impl Iterator<Item = FieldRef<'_>> {
        self.response.section.end_to_end(&self.bytes)
    }

    fn framing(&self, version: Version) -> Framing<'_> {
        self.response.framing(&self.bytes, version)
    }

    fn has_no_content(&self) -> bool {
        self.response.body == Body::None
    }

    fn upgrade(&self) -> Option<&[u8]> {
        self.response.upgrade(&self.bytes)
    }

    fn bytes(&self) -> Option<&Bytes> {
        Some(&self.bytes)
    }

    fn headers(&mut self) -> Option<HeaderMap> {
        None
    }
}

/// How many of these bytes belong to the body.
pub(super) fn measure(decoder: &mut Decoder, bytes: &[u8]) -> Result<usize, Malformed> {
    let mut used = 0;
    loop {
        match decoder.next(&bytes[used..])? {
            Step::Content(len) | Step::Framing(len) => used += len,
            Step::NeedMore | Step::End => return Ok(used),
        }
    }
}

/// Appends content as it is framed.
pub(super) fn put(out: &mut Vec<u8>, content: &[u8], chunked: bool) {
    if chunked && !content.is_empty() {
        http1::write_chunk_size(out, content.len());
        out.extend_from_slice(content);
        out.extend_from_slice(b"\r\n");
    } else {
        out.extend_from_slice(content);
    }
}

/// The fields of a trailer section, which the decoder has found to be in order.
pub(super) fn trailers(lines: &[u8]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let name = HeaderName::from_bytes(&line[..colon]);
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(line[colon + 1..].trim_ascii()))
            && checks::is_fit_trailer(&name)
        {
            map.append(name, value);
        }
    }
    map
}

fn gone(error: io::Error) -> Fault {
    Fault::amid(RequestOutcome::ClientGone, error)
}

fn cut(error: io::Error) -> Fault {
    Fault::amid(RequestOutcome::BackendCut, error)
}

fn malformed(error: Malformed) -> Fault {
    Fault::amid(RequestOutcome::BackendMalformed, error)
}
