//! The client's side of a request by HTTP/1.1 or HTTP/1.0.

use std::io;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::HeaderMap;
use mc_core::http1::{Decoder, Framing, Request, Step, Version, write_response};
use mc_core::policy::{Edits, FieldRef};
use mc_uring::tls::Received;

use super::LIMITS;
use crate::worker::l7::fault::Fault;
use crate::worker::l7::mux::write_trailers;
use crate::worker::l7::session::{Note, Session};
use crate::worker::l7::sides::{
    Gone, How, Part, Refused, Reply, RequestBody, RequestHead, ResponseHead, UpError, framing,
};
use crate::worker::l7::to_http1::{measure, put, trailers};

/// Bytes of further requests that are read before the response to the current one is over.
const AHEAD: usize = 64 * 1024;

/// A request, and the bytes that its head stands in.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) request: &'a Request,
    pub(super) head: &'a [u8],
}

/// Its body.
pub(super) struct Body<'a> {
    session: &'a Session,
    /// What the client has said and was not looked at.
    plain: &'a mut Vec<u8>,
    decoder: Decoder,
    /// It is another protocol's.
    is_switched: bool,
}

/// The way of its response.
pub(super) struct Answer<'a> {
    session: &'a Session,
    request: &'a Request,
    /// The head, until it is sent with the first of the content.
    out: Vec<u8>,
    is_chunked: bool,
    /// The client's connection may carry another request.
    pub(super) is_persistent: bool,
}

impl RequestHead for Asked<'_> {
    fn method(&self) -> &[u8] {
        self.request.method.of(self.head)
    }

    fn target(&self) -> &[u8] {
        self.request.target.of(self.head)
    }

    fn framing(&self) -> Framing<'_> {
        self.request.framing(self.head)
    }

    fn upgrade(&self) -> Option<&[u8]> {
        self.request.upgrade.map(|upgrade| upgrade.of(self.head))
    }

    fn websocket_key(&self) -> Option<&str> {
        None
    }

    fn takes_trailers(&self) -> bool {
        false
    }

    fn authorization(&self) -> impl Iterator<Item = &[u8]> {
        self.request.section.values(self.head, "authorization")
    }

    fn fields(&self) -> impl Iterator<Item = FieldRef<'_>> {
        self.request.section.end_to_end(self.head)
    }
}

impl<'a> Body<'a> {
    /// The body of a request whose head is complete; `plain`: what came after it.
    pub(super) fn new(session: &'a Session, request: &Request, plain: &'a mut Vec<u8>) -> Self {
        session.connection.unread.set(false);
        Self { session, plain, decoder: Decoder::new(request.body, &LIMITS), is_switched: false }
    }

    /// What is here of it; `None`: nothing yet.
    fn here(&mut self, raw: bool) -> Result<Option<Part<Vec<u8>>>, UpError> {
        let malformed = |error: mc_core::http1::Malformed| UpError::Malformed(error.to_string());
        let piece = if raw {
            let len = measure(&mut self.decoder, self.plain).map_err(malformed)?;
            let rest = if len == self.plain.len() { Vec::new() } else { self.plain.split_off(len) };
            std::mem::replace(self.plain, rest)
        } else {
            self.content().map_err(malformed)?
        };
        self.session.connection.up.count(piece.len(), self.session.now_ms());
        if !self.decoder.is_done() {
            return Ok((!piece.is_empty()).then_some(Part::More(piece)));
        }
        let trailers = if raw { HeaderMap::new() } else { trailers(self.decoder.trailers()) };
        Ok(Some(match (trailers.is_empty(), piece.is_empty()) {
            (true, _) => Part::Last(piece),
            (false, true) => Part::End(trailers),
            // They are asked for once more.
            (false, false) => Part::More(piece),
        }))
    }

    fn content(&mut self) -> Result<Vec<u8>, mc_core::http1::Malformed> {
        let (mut content, mut used) = (Vec::new(), 0);
        loop {
            match self.decoder.next(&self.plain[used..])? {
                Step::Content(len) => {
                    content.extend_from_slice(&self.plain[used..used + len]);
                    used += len;
                }
                Step::Framing(len) => used += len,
                Step::NeedMore | Step::End => break,
            }
        }
        self.plain.drain(..used);
        Ok(content)
    }
}

impl RequestBody for Body<'_> {
    const IS_HTTP1: bool = true;
    type Piece = Vec<u8>;

    fn is_over(&self) -> bool {
        self.decoder.is_done()
    }

    fn ready(&mut self, raw: bool) -> Result<Option<Part<Vec<u8>>>, UpError> {
        if self.is_over() { Ok(None) } else { self.here(raw) }
    }

    async fn next(&mut self, raw: bool) -> Result<Part<Vec<u8>>, UpError> {
        loop {
            if self.is_switched {
                if !self.plain.is_empty() {
                    let piece = std::mem::take(self.plain);
                    self.session.connection.up.count(piece.len(), self.session.now_ms());
                    return Ok(Part::More(piece));
                }
            } else if let Some(part) = self.here(raw)? {
                return Ok(part);
            }
            match self.session.receive(self.plain).await {
                Ok(Received::End { .. }) if self.is_switched => return Ok(Part::End(HeaderMap::new())),
                Ok(Received::End { .. }) | Err(_) => return Err(UpError::Client),
                Ok(_) => {}
            }
        }
    }

    fn took(&mut self, _len: usize, piece: Option<Vec<u8>>) {
        // Its memory serves for what comes next.
        if let Some(mut piece) = piece
            && self.plain.is_empty()
        {
            piece.clear();
            *self.plain = piece;
        }
    }

    async fn watch(&mut self) -> Result<(), UpError> {
        while self.plain.len() < AHEAD {
            match self.session.receive(self.plain).await {
                // It has said all it wanted to say, and may still listen.
                Ok(Received::End { clean: true }) => break,
                Ok(Received::End { clean: false }) | Err(_) => return Err(UpError::Client),
                Ok(_) => {}
            }
        }
        let connection = &self.session.connection;
        self.session.worker.connections.set_unread(connection, true, self.session.now_ms());
        Ok(())
    }

    fn switch(&mut self) {
        self.is_switched = true;
        self.session.connection.unread.set(false);
    }
}

impl<'a> Answer<'a> {
    pub(super) fn new(session: &'a Session, request: &'a Request) -> Self {
        Self { session, request, out: Vec::new(), is_chunked: false, is_persistent: false }
    }

    async fn send_held(&mut self) -> Result<(), Gone> {
        if self.out.is_empty() {
            return Ok(());
        }
        let sent = self.session.send(&self.out).await;
        self.out.clear();
        sent.map_err(gone)
    }
}

impl Reply for Answer<'_> {
    const IS_HTTP1: bool = true;
    const SWITCHED: u16 = 101;

    fn version(&self) -> Version {
        self.request.version
    }

    fn limit_ms(&self, _note: &Note) -> Option<u64> {
        None
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.session.connection.poll_stopped(cx)
    }

    async fn interim(&mut self, head: &impl ResponseHead) -> Result<(), Gone> {
        // A client of HTTP/1.0 knows none.
        if self.request.version == Version::Http11 {
            let fields = head.fields();
            write_response(&mut self.out, head.status(), head.words(), fields, Framing::None, None, None);
        }
        self.send_held().await
    }

    fn begin(&mut self, head: impl ResponseHead, edits: &Edits<'_>, how: How) -> Result<(), Refused> {
        let version = self.request.version;
        let framing = framing(&head, version, how.is_coded);
        let upgrade = head.upgrade().filter(|_| head.status() == Self::SWITCHED);
        self.is_chunked = framing == Framing::Chunked;
        self.is_persistent = self.request.persistent
            && how.is_delivered
            && !self.session.is_draining()
            && framing != Framing::UntilClose
            && upgrade.is_none();
        let connection: Option<&[u8]> = match (version, self.is_persistent) {
            (Version::Http11, true) => None,
            (Version::Http10, true) => Some(b"keep-alive"),
            (_, false) => Some(b"close"),
        };
        let (status, words) = (head.status(), head.words());
        let fields = edits.apply(head.fields());
        write_response(&mut self.out, status, words, fields, framing, connection, upgrade);
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Gone> {
        self.send_held().await
    }

    fn take_held(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    async fn send(&mut self, piece: Bytes, last: bool) -> Result<(), Gone> {
        if self.out.is_empty() && !self.is_chunked {
            return if piece.is_empty() { Ok(()) } else { self.session.send(&piece).await.map_err(gone) };
        }
        put(&mut self.out, &piece, self.is_chunked);
        if last && self.is_chunked {
            write_trailers(&mut self.out, None);
        }
        self.send_held().await
    }

    async fn end(&mut self, trailers: HeaderMap) -> Result<(), Gone> {
        if self.is_chunked {
            write_trailers(&mut self.out, Some(&trailers));
        }
        self.send_held().await
    }

    fn abort(&mut self, _fault: &Fault) {
        self.session.abort();
    }
}

fn gone(error: io::Error) -> Gone {
    Gone(error.to_string())
}
