//! The two sides of an exchange: what who speaks a version of HTTP brings, as a client or as a backend.

use std::cell::Cell;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::HeaderMap;
use mc_core::http1::{Facts, Framing, Version};
use mc_core::outcome::RequestOutcome;
use mc_core::policy::{Edits, FieldRef};

use super::fault::Fault;
use super::session::{Note, Session};

/// What a client asks for.
pub(super) trait RequestHead {
    fn method(&self) -> &[u8];

    /// Path and query, or `*`.
    fn target(&self) -> &[u8];

    /// How its body is framed for a backend of HTTP/1.1.
    fn framing(&self) -> Framing<'_>;

    /// The protocol that the client wants to switch to.
    fn upgrade(&self) -> Option<&[u8]>;

    /// The `Sec-WebSocket-Key` that was made up here, whose answer nobody else judges (RFC 8441, section 5).
    fn websocket_key(&self) -> Option<&str>;

    /// Whether the client says that it takes trailers.
    fn takes_trailers(&self) -> bool;

    /// What it says in `Authorization`.
    fn authorization(&self) -> impl Iterator<Item = &[u8]>;

    /// The fields that go further than this connection.
    fn fields(&self) -> impl Iterator<Item = FieldRef<'_>>;
}

/// A piece of a body.
#[derive(Debug)]
pub(super) enum Part<P> {
    /// There is more, or may be.
    More(P),
    /// The last one.
    Last(P),
    /// The body is over, with these trailers.
    End(HeaderMap),
}

/// The body of a client's request.
pub(super) trait RequestBody {
    /// It can be passed on as it is framed to whom the same is true of.
    const IS_HTTP1: bool;

    /// Some of it.
    type Piece: AsRef<[u8]> + Into<Bytes>;

    /// Whether all of it was given.
    fn is_over(&self) -> bool;

    /// What has come with the head. `raw`: as it is framed, else its content alone.
    ///
    /// # Errors
    /// [`UpError`]
    fn ready(&mut self, raw: bool) -> Result<Option<Part<Self::Piece>>, UpError>;

    /// Waits for more.
    ///
    /// # Errors
    /// [`UpError`]
    async fn next(&mut self, raw: bool) -> Result<Part<Self::Piece>, UpError>;

    /// A piece of this many bytes was passed on; `piece`: its memory, where it was not given away.
    fn took(&mut self, len: usize, piece: Option<Self::Piece>);

    /// Waits for the client to leave, while its response is waited for; what it says meanwhile is kept for later.
    ///
    /// # Errors
    /// It left.
    async fn watch(&mut self) -> Result<(), UpError>;

    /// From here on the client speaks another protocol.
    fn switch(&mut self);
}

/// Where a client gets its response.
pub(super) trait Reply {
    /// As of [`RequestBody`].
    const IS_HTTP1: bool;

    /// The status that says that the protocol was switched.
    const SWITCHED: u16;

    /// What the client speaks, where HTTP/1.0 is different.
    fn version(&self) -> Version;

    /// How long nothing may move, in milliseconds, where others on the connection may go on meanwhile; `None`: the
    /// connection's own limit is enough.
    fn limit_ms(&self, note: &Note) -> Option<u64>;

    /// Whether the client gave up, or was given up.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// Passes on a 1xx.
    ///
    /// # Errors
    /// The client is gone.
    async fn interim(&mut self, head: &impl ResponseHead) -> Result<(), Gone>;

    /// Begins the response, which may be held until the first of its content, or [`Self::flush`].
    ///
    /// # Errors
    /// The client is gone, or the head cannot be passed on.
    fn begin(&mut self, head: impl ResponseHead, edits: &Edits<'_>, how: How) -> Result<(), Refused>;

    /// Sends what is held.
    ///
    /// # Errors
    /// The client is gone.
    async fn flush(&mut self) -> Result<(), Gone>;

    /// What is held, for who sends bytes as they are framed.
    fn take_held(&mut self) -> Vec<u8>;

    /// Passes content on.
    ///
    /// # Errors
    /// The client is gone.
    async fn send(&mut self, piece: Bytes, last: bool) -> Result<(), Gone>;

    /// Ends the response.
    ///
    /// # Errors
    /// The client is gone.
    async fn end(&mut self, trailers: HeaderMap) -> Result<(), Gone>;

    /// Breaks the response off, so that the client does not take what it has for all of it.
    fn abort(&mut self, fault: &Fault);
}

/// A backend that is to answer one request.
pub(super) trait Upstream {
    /// As of [`RequestBody`].
    const IS_HTTP1: bool;

    /// Takes the request.
    type Sender<'a>: Sender
    where
        Self: 'a;

    /// Gives the response.
    type Receiver<'a>: Receiver
    where
        Self: 'a;

    /// Whether it has carried a request before: it may turn out to be closed.
    fn is_reused(&self) -> bool;

    /// Begins the request, which may be held until the first of its body, or [`Sender::flush`]. `raw`: its body comes as it
    /// is framed. `is_over`: there is none.
    ///
    /// # Errors
    /// The backend cannot be asked.
    async fn begin<'a, H: RequestHead>(
        &'a self,
        session: &Session,
        note: &Note,
        head: &H,
        raw: bool,
        is_over: bool,
    ) -> Result<(Self::Sender<'a>, Self::Receiver<'a>), Fault>;

    /// It has answered, and is in order.
    fn give_back(self, session: &Session);
}

/// The way of a request to its backend.
pub(super) trait Sender {
    /// Sends what is held.
    ///
    /// # Errors
    /// The backend takes no more.
    async fn flush(&mut self) -> Result<(), Closed>;

    /// Passes some of the body on; gives its memory back where it can.
    ///
    /// # Errors
    /// The backend takes no more.
    async fn send<P: AsRef<[u8]> + Into<Bytes>>(&mut self, piece: P, last: bool)
    -> Result<Option<P>, Closed>;

    /// Ends the body.
    ///
    /// # Errors
    /// The backend takes no more.
    async fn end(&mut self, trailers: HeaderMap) -> Result<(), Closed>;

    /// Says that no more is sent, in another protocol.
    fn finish(&mut self);

    /// The backend need not go on.
    fn cancel(&mut self);
}

/// The way of a response from its backend.
pub(super) trait Receiver {
    /// As of [`RequestBody`].
    const IS_HTTP1: bool;

    /// Its head.
    type Head: ResponseHead;

    /// Waits for the next head, which may take `limit_ms` milliseconds from when the request's body last moved.
    ///
    /// # Errors
    /// The backend does not answer, or not in time, or not in order.
    async fn head(&mut self, limit_ms: u64, progress: &Progress) -> Result<Self::Head, Fault>;

    /// Whether there is no more content.
    fn is_over(&self) -> bool;

    /// Waits for more content.
    ///
    /// # Errors
    /// It was cut off, or is malformed.
    async fn next(&mut self) -> Result<Part<Bytes>, Fault>;

    /// So much was passed on.
    fn took(&mut self, len: usize);

    /// Passes all that is left to a client of the same version as it is framed; `held`: what goes before it.
    ///
    /// # Errors
    /// It was cut off, or is malformed, or the client is gone.
    async fn relay(&mut self, session: &Session, held: Vec<u8>, note: &mut Note) -> Result<(), Fault>;

    /// From here on the backend speaks another protocol.
    fn switch(&mut self);

    /// Whether the backend's connection may carry another request.
    fn is_reusable(&self) -> bool;
}

/// The head of a backend's response.
pub(super) trait ResponseHead {
    fn status(&self) -> u16;

    /// What the backend calls its status; empty where it does not.
    fn words(&self) -> &[u8];

    /// All fields.
    fn all(&self) -> impl Iterator<Item = FieldRef<'_>>;

    /// The fields that go further than the backend's connection, without a length.
    fn fields(&self) -> impl Iterator<Item = FieldRef<'_>>;

    /// How its content is framed for a client of HTTP/1, as it is.
    fn framing(&self, version: Version) -> Framing<'_>;

    /// Whether it has none, whatever it says of a length.
    fn has_no_content(&self) -> bool;

    /// The protocol that it switches to.
    fn upgrade(&self) -> Option<&[u8]>;

    /// The bytes among which values of fields stand, where they can be shared.
    fn bytes(&self) -> Option<&Bytes>;

    /// The fields as HTTP/2 has them, with the length, where they are there.
    fn headers(&mut self) -> Option<HeaderMap>;
}

/// How a response begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct How {
    /// Its content is encoded here.
    pub(super) is_coded: bool,
    /// It has no content.
    pub(super) is_over: bool,
    /// The backend was sent all of the request before it.
    pub(super) is_delivered: bool,
}

/// The client takes no more.
#[derive(Debug)]
pub(super) struct Gone(pub(super) String);

/// The response cannot be begun.
#[derive(Debug)]
pub(super) enum Refused {
    Gone(Gone),
    /// What the backend says has no form in the client's version.
    Malformed(&'static str),
}

/// The backend takes no more: it may still answer.
#[derive(Debug)]
pub(super) struct Closed;

/// Why a request's body was not passed on.
#[derive(Debug)]
pub(super) enum UpError {
    /// The client left, or gave the request up.
    Client,
    /// The backend takes no more: it may still answer.
    Backend,
    /// Its framing or its trailers are malformed.
    Malformed(String),
    /// It is larger than the route allows.
    TooLarge,
}

/// How far a request's body is, while its response is waited for.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Bytes that have come: a backend that still gets some has time to answer.
    pub(super) bytes: Cell<u64>,
    /// The backend was sent all of it.
    pub(super) is_delivered: Cell<bool>,
    /// More of it is waited for.
    pub(super) waits_for_client: Cell<bool>,
    /// The client has been told the first of the response.
    pub(super) is_answering: Cell<bool>,
}

impl Progress {
    /// A request is not answered in time: whose time is over.
    pub(super) fn too_late(&self) -> Fault {
        if self.waits_for_client.get() {
            Fault::before(RequestOutcome::ClientTimeout, "no more of the request's body in time")
        } else {
            Fault::before(RequestOutcome::BackendTimeout, "no response in time")
        }
    }
}

impl From<Closed> for UpError {
    fn from(_: Closed) -> Self {
        Self::Backend
    }
}

/// What the proxy adds to a request's fields: the client's address, the host, the request id, the client's certificate.
pub(super) fn facts<'a>(session: &'a Session, note: &'a Note) -> Facts<'a> {
    Facts {
        client: session.connection.client.get().ip(),
        host: &note.host,
        request_id: &note.id,
        forwarded: note.http().forwarded,
        pass_identity_fields: note.http().pass_identity_fields,
        client_cert: session.client_cert(note),
    }
}

/// How a response's content is framed for a client of HTTP/1; `coded`: it is encoded here.
pub(super) fn framing(head: &impl ResponseHead, version: Version, coded: bool) -> Framing<'_> {
    match (coded, version) {
        (false, _) => head.framing(version),
        (true, Version::Http11) => Framing::Chunked,
        (true, Version::Http10) => Framing::UntilClose,
    }
}
