//! A backend that speaks HTTP/2: a stream of a connection that it shares with others while it answers.

use std::future::poll_fn;

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{Reason, RecvStream, SendStream};
use http::header::{self, HeaderMap, HeaderValue};
use http::response::Parts;
use mc_core::http1::{Framing, Version};
use mc_core::outcome::RequestOutcome;
use mc_core::policy::FieldRef;

use super::checks;
use super::fault::Fault;
use super::mux::{self, Channel, pairs};
use super::session::{Note, Session};
use super::sides::{Closed, Part, Progress, Receiver, RequestHead, ResponseHead, Sender, Upstream, facts};

/// Takes a request.
pub(super) struct ToHttp2(SendStream<Bytes>);

/// Gives a response.
pub(super) struct FromHttp2<'a> {
    channel: &'a Channel,
    to_head: bool,
    response: ResponseFuture,
    body: Option<RecvStream>,
    /// Its status has no content.
    has_no_content: bool,
}

/// A response's head.
pub(super) struct Head {
    parts: Parts,
    /// It is all of the response.
    is_over: bool,
    has_no_content: bool,
}

impl Upstream for Channel {
    const IS_HTTP1: bool = false;
    type Sender<'a> = ToHttp2;
    type Receiver<'a> = FromHttp2<'a>;

    fn is_reused(&self) -> bool {
        self.reused
    }

    async fn begin<'a, H: RequestHead>(
        &'a self,
        session: &Session,
        note: &Note,
        head: &H,
        _raw: bool,
        is_over: bool,
    ) -> Result<(ToHttp2, FromHttp2<'a>), Fault> {
        if head.upgrade().is_some() {
            let why = "the backend's protocol has no upgrades";
            return Err(Fault::before(RequestOutcome::BackendMalformed, why));
        }
        let edits = note.request_edits();
        let (target, facts) = (note.target(head.target()), facts(session, note));
        let fields = edits.apply(head.fields());
        let mut request = mux::request(head.method(), target, head.takes_trailers(), &facts, fields)?;
        if let Framing::Length(length) = head.framing()
            && let Ok(length) = HeaderValue::from_bytes(length)
        {
            request.headers_mut().insert(header::CONTENT_LENGTH, length);
        }
        let (response, stream) = self.send(request, is_over).await?;
        let receiver =
            FromHttp2 { channel: self, to_head: note.to_head, response, body: None, has_no_content: false };
        Ok((ToHttp2(stream), receiver))
    }

    fn give_back(self, _session: &Session) {
        // It is others' already.
    }
}

impl Sender for ToHttp2 {
    async fn flush(&mut self) -> Result<(), Closed> {
        Ok(())
    }

    async fn send<P: AsRef<[u8]> + Into<Bytes>>(
        &mut self,
        piece: P,
        last: bool,
    ) -> Result<Option<P>, Closed> {
        mux::send_data(&mut self.0, piece.into(), last).await.map_err(|_error| Closed)?;
        Ok(None)
    }

    async fn end(&mut self, trailers: HeaderMap) -> Result<(), Closed> {
        mux::end(&mut self.0, trailers).map_err(|_error| Closed)
    }

    fn finish(&mut self) {
        // There are no upgrades.
    }

    fn cancel(&mut self) {
        self.0.send_reset(Reason::CANCEL);
    }
}

impl Receiver for FromHttp2<'_> {
    const IS_HTTP1: bool = false;
    type Head = Head;

    async fn head(&mut self, limit_ms: u64, progress: &Progress) -> Result<Head, Fault> {
        let response = match self.channel.head(&mut self.response, limit_ms, progress).await? {
            mux::Head::Informational(response) => response,
            mux::Head::Final(response) => {
                let (parts, body) = response.into_parts();
                self.has_no_content = self.to_head || mux::has_no_content(parts.status.as_u16());
                self.body = Some(body);
                http::Response::from_parts(parts, ())
            }
        };
        let (parts, ()) = response.into_parts();
        Ok(Head { parts, is_over: self.is_over(), has_no_content: self.has_no_content })
    }

    fn is_over(&self) -> bool {
        self.body.as_ref().is_some_and(RecvStream::is_end_stream)
    }

    async fn next(&mut self) -> Result<Part<Bytes>, Fault> {
        let Some(body) = &mut self.body else { return Ok(Part::End(HeaderMap::new())) };
        match poll_fn(|cx| body.poll_data(cx)).await {
            Some(Err(error)) => Err(cut(&error)),
            Some(Ok(data)) if self.has_no_content && !data.is_empty() => {
                // A client of HTTP/1.1 would take it for its next response.
                Err(Fault::amid(RequestOutcome::BackendMalformed, "content where there is none"))
            }
            Some(Ok(data)) if body.is_end_stream() => Ok(Part::Last(data)),
            Some(Ok(data)) => Ok(Part::More(data)),
            None => {
                let trailers = body.trailers().await.map_err(|error| cut(&error))?.unwrap_or_default();
                let trailers = checks::trailers(&trailers);
                trailers.map(Part::End).map_err(|why| Fault::amid(RequestOutcome::BackendMalformed, why))
            }
        }
    }

    fn took(&mut self, len: usize) {
        if let Some(body) = &mut self.body {
            // The engine's own bookkeeping: a stream that is over by now does not mind.
            body.flow_control().release_capacity(len).unwrap_or(());
        }
    }

    async fn relay(&mut self, _: &Session, _: Vec<u8>, _: &mut Note) -> Result<(), Fault> {
        unreachable!("HTTP/2 is passed on as it is framed to nobody")
    }

    fn switch(&mut self) {
        // There are no upgrades.
    }

    fn is_reusable(&self) -> bool {
        false
    }
}

impl ResponseHead for Head {
    fn status(&self) -> u16 {
        self.parts.status.as_u16()
    }

    fn words(&self) -> &[u8] {
        b""
    }

    fn all(&self) -> impl Iterator<Item = FieldRef<'_>> {
        pairs(&self.parts.headers)
    }

    fn fields(&self) -> impl Iterator<Item = FieldRef<'_>> {
        self.all().filter(|(_, name, _)| *name != b"content-length")
    }

    fn framing(&self, version: Version) -> Framing<'_> {
        let length = self.parts.headers.get(header::CONTENT_LENGTH).map(HeaderValue::as_bytes);
        match (length, version) {
            (Some(length), _) => Framing::Length(length),
            (None, _) if self.has_no_content => Framing::None,
            (None, _) if self.is_over => Framing::Length(b"0"),
            (None, Version::Http10) => Framing::UntilClose,
            (None, Version::Http11) => Framing::Chunked,
        }
    }

    fn has_no_content(&self) -> bool {
        self.has_no_content || self.is_over
    }

    fn upgrade(&self) -> Option<&[u8]> {
        None
    }

    fn bytes(&self) -> Option<&Bytes> {
        None
    }

    fn headers(&mut self) -> Option<HeaderMap> {
        Some(std::mem::take(&mut self.parts.headers))
    }
}

/// The response broke off. A client of HTTP/2 hears the backend's reason, but for those that say that all is well, or that
/// nothing was done and the request may come again (RFC 9113, sections 8.1 and 8.7).
fn cut(error: &h2::Error) -> Fault {
    let reason = error.reason().filter(|reason| {
        !matches!(*reason, Reason::NO_ERROR | Reason::REFUSED_STREAM | Reason::HTTP_1_1_REQUIRED)
    });
    Fault { reset: reason, ..Fault::amid(RequestOutcome::BackendCut, error) }
}
