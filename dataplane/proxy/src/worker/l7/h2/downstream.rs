//! The client's side of a request by HTTP/2.

use std::task::{Context, Poll};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use h2::ext::Protocol;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, StatusCode};
use mc_core::http1::{Authority, Framing, Known, Version, is_target, may_become};
use mc_core::outcome::RequestOutcome;
use mc_core::policy::{Edits, FieldRef};

use crate::worker::l7::checks;
use crate::worker::l7::fault::Fault;
use crate::worker::l7::mux;
use crate::worker::l7::session::{Note, Session};
use crate::worker::l7::sides::{
    Gone, How, Part, Refused, Reply, RequestBody, RequestHead, ResponseHead, UpError,
};

/// A request, as a backend of either version will see it.
pub(super) struct Asked<'a> {
    parts: &'a Parts,
    pub(super) target: &'a str,
    pub(super) host: &'a str,
    pub(super) framing: Framing<'a>,
    /// The protocol of an extended CONNECT (RFC 8441), which a backend of HTTP/1.1 knows as an upgrade.
    upgrade: Option<&'a str>,
    /// RFC 8441, section 5: HTTP/2 has no use for the key, HTTP/1.1 asks for one.
    websocket_key: Option<String>,
    /// Cookies in one field, as HTTP/1.1 wants them (RFC 9113, section 8.2.3).
    cookies: Vec<u8>,
}

/// Its body.
pub(super) struct Body<'a> {
    stream: &'a mut RecvStream,
    is_over: bool,
}

/// The way of its response.
pub(super) struct Answer<'a> {
    session: &'a Session,
    respond: &'a mut SendResponse<Bytes>,
    /// Once the response has begun.
    send: Option<SendStream<Bytes>>,
}

impl<'a> Asked<'a> {
    /// Checks what the engine does not: the request must mean the same to a backend of HTTP/1.1.
    ///
    /// # Errors
    /// What is malformed.
    pub(super) fn new(parts: &'a Parts, no_body: bool) -> Result<Self, &'static str> {
        let upgrade = match (&parts.method, parts.extensions.get::<Protocol>().map(Protocol::as_str)) {
            (&Method::CONNECT, None) => return Err("CONNECT is for proxies of clients"),
            (_, Some(protocol)) if !may_become(protocol.as_bytes()) => return Err(":protocol is malformed"),
            (_, protocol) => protocol,
        };
        let host = host(parts)?;
        checks::values(&parts.headers)?;
        let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
        let is_fit = target.starts_with('/') || (target == "*" && parts.method == Method::OPTIONS);
        if !is_fit || !is_target(target.as_bytes()) {
            return Err(":path is malformed");
        }
        let framing = match checks::length(&parts.headers)? {
            Some(_) if upgrade.is_some() => return Err("CONNECT has no Content-Length"),
            Some(length) => Framing::Length(length),
            None if no_body || upgrade.is_some() => Framing::None,
            None => Framing::Chunked,
        };
        let cookies: Vec<&[u8]> =
            parts.headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
        let is_websocket = upgrade.is_some_and(|protocol| protocol.eq_ignore_ascii_case("websocket"));
        let websocket_key = is_websocket.then(|| STANDARD.encode(fastrand::u128(..).to_le_bytes()));
        Ok(Self {
            parts,
            target,
            host,
            framing,
            upgrade,
            websocket_key,
            cookies: cookies.join(b"; ".as_slice()),
        })
    }

    /// What the request says that its body has, in bytes.
    pub(super) fn length(&self) -> Option<u64> {
        match self.framing {
            Framing::Length(length) => str::from_utf8(length).ok()?.parse().ok(),
            _ => None,
        }
    }
}

/// Whom the request is for.
fn host(parts: &Parts) -> Result<&str, &'static str> {
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (_, Some(_)) => return Err("there is more than one Host"),
        (Some(host), None) => {
            Some(host.to_str().map_err(|_not_ascii| "Host is not a host name or an address")?)
        }
        (None, None) => None,
    };
    let scheme = parts.uri.scheme_str().unwrap_or("https");
    let default_port = if scheme.eq_ignore_ascii_case("https") {
        443
    } else if scheme.eq_ignore_ascii_case("http") {
        80
    } else {
        return Err(":scheme is neither https nor http");
    };
    let authority = parts.uri.authority().map(http::uri::Authority::as_str);
    let host = match (authority, host) {
        (Some(authority), Some(host)) if !is_same(authority, host, default_port) => {
            return Err(":authority and Host differ");
        }
        (Some(host), _) | (None, Some(host)) => host,
        (None, None) => return Err("there is neither :authority nor Host"),
    };
    if Authority::parse(host.as_bytes()).is_none() {
        return Err(":authority is not a host name or an address");
    }
    Ok(host)
}

/// Whether `:authority` and `Host` say the same (RFC 9113, section 8.3.1).
fn is_same(authority: &str, host: &str, default_port: u16) -> bool {
    let (authority, host) = (Authority::parse(authority.as_bytes()), Authority::parse(host.as_bytes()));
    authority.zip(host).is_some_and(|(one, other)| {
        let port = |of: Authority<'_>| of.port.unwrap_or(default_port);
        one.same_host(other.host) && port(one) == port(other)
    })
}

impl RequestHead for Asked<'_> {
    fn method(&self) -> &[u8] {
        if self.upgrade.is_some() { b"GET" } else { self.parts.method.as_str().as_bytes() }
    }

    fn target(&self) -> &[u8] {
        self.target.as_bytes()
    }

    fn framing(&self) -> Framing<'_> {
        self.framing
    }

    fn upgrade(&self) -> Option<&[u8]> {
        self.upgrade.map(str::as_bytes)
    }

    fn websocket_key(&self) -> Option<&str> {
        self.websocket_key.as_deref()
    }

    fn takes_trailers(&self) -> bool {
        self.parts.headers.get(header::TE).is_some_and(|te| te == "trailers")
    }

    fn authorization(&self) -> impl Iterator<Item = &[u8]> {
        self.parts.headers.get_all(header::AUTHORIZATION).iter().map(HeaderValue::as_bytes)
    }

    fn fields(&self) -> impl Iterator<Item = FieldRef<'_>> {
        let fields = self.parts.headers.iter().filter(|(name, _)| *name != header::COOKIE);
        let fields = fields.map(|(name, value)| {
            let name = name.as_str().as_bytes();
            (Known::of(name), name, value.as_bytes())
        });
        let cookies = (Known::Other, b"cookie".as_slice(), self.cookies.as_slice());
        let key = self.websocket_key.as_ref();
        let key = key.map(|key| (Known::Other, b"sec-websocket-key".as_slice(), key.as_bytes()));
        fields.chain((!self.cookies.is_empty()).then_some(cookies)).chain(key)
    }
}

impl<'a> Body<'a> {
    /// The body of a request; `no_body`: its stream ended with its head.
    pub(super) fn new(stream: &'a mut RecvStream, asked: &Asked<'_>, no_body: bool) -> Self {
        // A backend that does not switch would take for its next request what is another protocol's.
        Self { stream, is_over: no_body || asked.upgrade.is_some() }
    }
}

impl RequestBody for Body<'_> {
    const IS_HTTP1: bool = false;
    type Piece = Bytes;

    fn is_over(&self) -> bool {
        self.is_over
    }

    fn ready(&mut self, _raw: bool) -> Result<Option<Part<Bytes>>, UpError> {
        Ok(None)
    }

    async fn next(&mut self, _raw: bool) -> Result<Part<Bytes>, UpError> {
        let gone = |_reset: h2::Error| UpError::Client;
        if let Some(data) = self.stream.data().await {
            let data = data.map_err(gone)?;
            self.is_over = self.stream.is_end_stream();
            return Ok(if self.is_over { Part::Last(data) } else { Part::More(data) });
        }
        self.is_over = true;
        let trailers = self.stream.trailers().await.map_err(gone)?.unwrap_or_default();
        let trailers = checks::trailers(&trailers);
        trailers.map(Part::End).map_err(|why| UpError::Malformed(why.to_owned()))
    }

    fn took(&mut self, len: usize, _piece: Option<Bytes>) {
        // The engine's own bookkeeping: a stream that is over by now does not mind.
        self.stream.flow_control().release_capacity(len).unwrap_or(());
    }

    async fn watch(&mut self) -> Result<(), UpError> {
        // The reply hears of it.
        Ok(())
    }

    fn switch(&mut self) {
        self.is_over = false;
    }
}

impl<'a> Answer<'a> {
    pub(super) fn new(session: &'a Session, respond: &'a mut SendResponse<Bytes>) -> Self {
        Self { session, respond, send: None }
    }

    fn begun(&mut self) -> Result<&mut SendStream<Bytes>, Gone> {
        self.send.as_mut().ok_or_else(|| Gone("the response is over".to_owned()))
    }
}

impl Reply for Answer<'_> {
    const IS_HTTP1: bool = false;
    /// RFC 8441, section 5: what is 101 to HTTP/1.1 is 200 here.
    const SWITCHED: u16 = 200;

    fn version(&self) -> Version {
        Version::Http11
    }

    fn limit_ms(&self, note: &Note) -> Option<u64> {
        Some(note.idle_ms())
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.send {
            Some(send) => send.poll_reset(cx).map(|_reason| ()),
            None => self.respond.poll_reset(cx).map(|_reason| ()),
        }
    }

    async fn interim(&mut self, head: &impl ResponseHead) -> Result<(), Gone> {
        // One that has no form in HTTP/2 is left out: it decides nothing.
        if let Ok(headers) = headers(head.fields(), Framing::None, None) {
            let mut interim = http::Response::new(());
            *interim.status_mut() = StatusCode::from_u16(head.status()).unwrap_or(StatusCode::CONTINUE);
            *interim.headers_mut() = headers;
            self.respond.send_informational(interim).unwrap_or(());
        }
        Ok(())
    }

    fn begin(&mut self, mut head: impl ResponseHead, edits: &Edits<'_>, how: How) -> Result<(), Refused> {
        let status = if head.status() == 101 { Self::SWITCHED } else { head.status() };
        let status =
            StatusCode::from_u16(status).map_err(|_range| Refused::Malformed("its status is malformed"))?;
        let as_it_is = if edits.is_empty() { head.headers() } else { None };
        let headers = match as_it_is {
            Some(headers) => headers,
            None => {
                let framing = if how.is_coded { Framing::None } else { head.framing(Version::Http11) };
                headers(edits.apply(head.fields()), framing, head.bytes()).map_err(Refused::Malformed)?
            }
        };
        let mut response = http::Response::new(());
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        let sent = self.respond.send_response(response, how.is_over);
        self.send = Some(sent.map_err(|error| Refused::Gone(gone(&error)))?);
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Gone> {
        Ok(())
    }

    fn take_held(&mut self) -> Vec<u8> {
        Vec::new()
    }

    async fn send(&mut self, piece: Bytes, last: bool) -> Result<(), Gone> {
        let session = self.session;
        session.blocking(mux::send_data(self.begun()?, piece, last)).await.map_err(|error| gone(&error))
    }

    async fn end(&mut self, trailers: HeaderMap) -> Result<(), Gone> {
        mux::end(self.begun()?, trailers).map_err(|error| gone(&error))
    }

    fn abort(&mut self, fault: &Fault) {
        let reason = match fault.outcome {
            RequestOutcome::ClientGone | RequestOutcome::ClientTimeout => Reason::CANCEL,
            _ => fault.reset.unwrap_or(Reason::INTERNAL_ERROR),
        };
        match &mut self.send {
            Some(send) => send.send_reset(reason),
            None => self.respond.send_reset(reason),
        }
    }
}

fn gone(error: &h2::Error) -> Gone {
    Gone(error.to_string())
}

/// Fields as HTTP/2 has them; `bytes`: where most values stand.
fn headers<'a>(
    fields: impl Iterator<Item = FieldRef<'a>>,
    framing: Framing<'a>,
    bytes: Option<&Bytes>,
) -> Result<HeaderMap, &'static str> {
    let mut headers = HeaderMap::new();
    let length = match framing {
        Framing::Length(length) => Some((Known::ContentLength, b"content-length".as_slice(), length)),
        _ => None,
    };
    for (_, name, value) in fields.chain(length) {
        let name = HeaderName::from_bytes(name).map_err(|_bad| "a field's name is malformed")?;
        // Values are shared where they can be.
        let shared = bytes.filter(|bytes| bytes.as_ptr_range().contains(&value.as_ptr()));
        let value = match shared {
            Some(bytes) => HeaderValue::from_maybe_shared(bytes.slice_ref(value)),
            None => HeaderValue::from_bytes(value),
        };
        headers.append(name, value.map_err(|_bad| "a field's value is malformed")?);
    }
    Ok(headers)
}
