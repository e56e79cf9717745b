//! The fields of a head or of a trailer section (RFC 9112, section 5).

use super::table::{is_token, is_value};
use super::{Limits, Lines, Malformed};

/// A piece of the buffer that holds a head, from the head's first byte on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    start: u32,
    end: u32,
}

/// One field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name, as it was written.
    pub name: Span,
    /// Its value, without white space around it.
    pub value: Span,
    /// Which field it is, where that decides about the message or the connection.
    pub known: Known,
}

/// Fields that decide about a message or a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// Any other.
    Other,
    /// `Connection`.
    Connection,
    /// `Content-Length`.
    ContentLength,
    /// `Expect`.
    Expect,
    /// `Client-Cert` (RFC 9440).
    ClientCert,
    /// `Client-Cert-Chain` (RFC 9440).
    ClientCertChain,
    /// `Forwarded`.
    Forwarded,
    /// `Host`.
    Host,
    /// `Keep-Alive`.
    KeepAlive,
    /// `Proxy-Connection`, which no standard has and some clients send.
    ProxyConnection,
    /// `TE`.
    Te,
    /// `Transfer-Encoding`.
    TransferEncoding,
    /// `Upgrade`.
    Upgrade,
    /// `X-Forwarded-For`.
    XForwardedFor,
    /// `X-Forwarded-Host`.
    XForwardedHost,
    /// `X-Forwarded-Proto`.
    XForwardedProto,
    /// `X-Real-IP`, which no standard has and many applications read.
    XRealIp,
    /// `X-Request-ID`.
    XRequestId,
    /// A field by which proxies tell applications who a client is: `X-Original-URL`, `Remote-User` and their kind.
    Identity,
}

/// The fields of one head. Its allocation is used again for the next.
#[derive(Clone, Debug, Default)]
pub struct Section {
    pub(super) fields: Vec<Field>,
    /// Names that `Connection` nominates, besides `close`, `keep-alive` and those that are dropped anyway.
    nominated: Vec<Span>,
    /// What `Connection` says.
    pub(super) connection: Options,
}

/// What `Connection` says (RFC 9110, section 7.6.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) close: bool,
    pub(super) keep_alive: bool,
    pub(super) upgrade: bool,
}

impl Span {
    pub(super) fn new(start: usize, end: usize) -> Self {
        let offset = |at: usize| u32::try_from(at).expect("a head is far below 4 GiB");
        Self { start: offset(start), end: offset(end) }
    }

    /// The bytes, out of the head.
    #[must_use]
    pub fn of<'a>(&self, head: &'a [u8]) -> &'a [u8] {
        &head[self.start as usize..self.end as usize]
    }

    /// Whether it is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// A part of this span: `start..end` counted from its beginning.
    pub(super) fn part(self, start: usize, end: usize) -> Self {
        Self::new(self.start as usize + start, self.start as usize + end)
    }
}

/// More bytes than any name in [`Known`] and `identity` has.
const LONGEST: usize = 40;

/// Whether two names are one to applications that read fields as variables of CGI (RFC 3875, section 4.1.18): case does not
/// count, and `_` is `-`.
#[must_use]
pub fn is_same_variable(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(one, other)| fold(*one) == fold(*other))
}

/// Whether a name is one of `identity`, in any case.
fn is_identity(name: &[u8]) -> bool {
    let Some(first) = name.first() else { return false };
    identity(*first).iter().any(|known| {
        let begins = name.get(..known.len()).is_some_and(|it| it.eq_ignore_ascii_case(known.as_bytes()));
        begins && (name.len() == known.len() || known.ends_with('-'))
    })
}

/// Fields by which proxies tell applications who a client is and what it has asked for, of those whose name begins with this
/// letter. Applications trust them. A name that ends in `-` is a prefix. `Proxy` is here for another reason: CGI applications take it
/// for the address of their own outgoing proxy (CVE-2016-5385).
const fn identity(first: u8) -> &'static [&'static str] {
    match first.to_ascii_lowercase() {
        b'c' => {
            &["cf-access-authenticated-user-email", "cf-connecting-ip", "cf-connecting-ipv6", "client-ip"]
        }
        b'f' => &["fastly-client-ip", "fly-client-ip", "forwarded-for", "front-end-https"],
        b'p' => &["proxy"],
        b'r' => &["remote-addr", "remote-email", "remote-groups", "remote-name", "remote-user"],
        b's' => &["ssl-client-"],
        b't' => &["true-client-ip"],
        b'x' => &[
            "x-amzn-oidc-",
            "x-appengine-user-ip",
            "x-arr-clientcert",
            "x-auth-request-",
            "x-authenticated-user",
            "x-authentik-",
            "x-azure-clientip",
            "x-client-cert",
            "x-client-dn",
            "x-client-ip",
            "x-cluster-client-ip",
            "x-envoy-external-address",
            "x-envoy-internal",
            "x-envoy-original-path",
            "x-forwarded-",
            "x-goog-authenticated-user-",
            "x-host",
            "x-ms-client-principal",
            "x-original-",
            "x-proxyuser-ip",
            "x-remote-addr",
            "x-remote-user",
            "x-rewrite-url",
            "x-scheme",
            "x-ssl-cert",
            "x-ssl-client-",
            "x-url-scheme",
            "x-webauth-",
        ],
        _ => &[],
    }
}

/// Fields by which applications take a client for somebody else, in lower case; a name that ends in `-` is a prefix. They are removed
/// from requests, unless the route passes them.
pub fn identity_fields() -> impl Iterator<Item = &'static str> {
    (b'a'..=b'z').flat_map(|first| identity(first).iter().copied())
}

const fn fold(byte: u8) -> u8 {
    if byte == b'_' { b'-' } else { byte.to_ascii_lowercase() }
}

impl Known {
    /// Which field has this name, in any case.
    #[must_use]
    pub fn of(name: &[u8]) -> Self {
        let all: &[(&str, Self)] = match name.len() {
            2 => &[("te", Self::Te)],
            4 => &[("host", Self::Host)],
            6 => &[("expect", Self::Expect)],
            7 => &[("upgrade", Self::Upgrade)],
            9 => &[("forwarded", Self::Forwarded), ("x-real-ip", Self::XRealIp)],
            10 => &[("connection", Self::Connection), ("keep-alive", Self::KeepAlive)],
            11 => &[("client-cert", Self::ClientCert)],
            12 => &[("x-request-id", Self::XRequestId)],
            14 => &[("content-length", Self::ContentLength)],
            15 => &[("x-forwarded-for", Self::XForwardedFor)],
            16 => &[("proxy-connection", Self::ProxyConnection), ("x-forwarded-host", Self::XForwardedHost)],
            17 => &[
                ("transfer-encoding", Self::TransferEncoding),
                ("x-forwarded-proto", Self::XForwardedProto),
                ("client-cert-chain", Self::ClientCertChain),
            ],
            _ => &[],
        };
        let found = all.iter().find(|(known, _)| name.eq_ignore_ascii_case(known.as_bytes()));
        match found {
            Some((_, known)) => *known,
            None if is_identity(name) => Self::Identity,
            None => Self::Other,
        }
    }

    /// Which field an application takes one of this name for that reads fields as variables of CGI (RFC 3875, section
    /// 4.1.18), where `Client_Cert` and `Client-Cert` are one. Never a field of this name itself.
    #[must_use]
    pub fn disguised(name: &[u8]) -> Self {
        let mut folded = [0; LONGEST];
        if memchr::memchr(b'_', name).is_none() {
            return Self::Other;
        }
        // Of a longer one the beginning decides.
        let folded = &mut folded[..name.len().min(LONGEST)];
        folded.iter_mut().zip(name).for_each(|(to, from)| *to = fold(*from));
        Self::of(folded)
    }

    /// Whether it is for this connection alone and never forwarded as it is (RFC 9110, section 7.6.1).
    pub(super) const fn is_hop_by_hop(self) -> bool {
        matches!(
            self,
            Self::Connection
                | Self::KeepAlive
                | Self::ProxyConnection
                | Self::Te
                | Self::TransferEncoding
                | Self::Upgrade
        )
    }

    /// Whether it decides about framing or routing: neither `Connection` may drop it nor a trailer bring it.
    const fn decides(self) -> bool {
        matches!(self, Self::ContentLength | Self::Host | Self::TransferEncoding)
    }
}

impl Section {
    /// Reads field lines up to the empty line.
    pub(super) fn parse(&mut self, lines: &mut Lines<'_>, limits: &Limits) -> Result<(), Malformed> {
        self.fields.clear();
        self.nominated.clear();
        self.connection = Options::default();
        // Most have fewer, so that it does not grow again and again.
        self.fields.reserve(limits.fields.min(16));
        while let Some((start, line)) = lines.next()? {
            if self.fields.len() == limits.fields {
                return Err(Malformed::TooManyFields(limits.fields));
            }
            let field = field(start, line)?;
            if field.known == Known::Connection {
                self.read_connection(field.value, lines.bytes)?;
            }
            self.fields.push(field);
        }
        Ok(())
    }

    /// All fields, in their order.
    #[must_use]
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// The values of a field, by its name in lower case.
    pub fn values<'a>(&'a self, head: &'a [u8], name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        let named = move |field: &&Field| field.name.of(head).eq_ignore_ascii_case(name.as_bytes());
        self.fields.iter().filter(named).map(|field| field.value.of(head))
    }

    /// Whether this field of the section is meant for this connection alone.
    #[must_use]
    pub fn is_hop_by_hop(&self, field: &Field, head: &[u8]) -> bool {
        field.known.is_hop_by_hop()
            || self.nominated.iter().any(|name| name.of(head).eq_ignore_ascii_case(field.name.of(head)))
    }

    /// The one value of a known field; `Err` where there are several.
    pub(super) fn single(&self, known: Known) -> Result<Option<Span>, ()> {
        let mut found = self.fields.iter().filter(|field| field.known == known).map(|field| field.value);
        let first = found.next();
        if found.next().is_some() { Err(()) } else { Ok(first) }
    }

    fn read_connection(&mut self, value: Span, head: &[u8]) -> Result<(), Malformed> {
        let mut start = 0;
        for item in value.of(head).split(|byte| *byte == b',') {
            let option = item.trim_ascii();
            let at = start + (item.len() - item.trim_ascii_start().len());
            start += item.len() + 1;
            if option.is_empty() {
                // Empty list elements are to be ignored (RFC 9110, section 5.6.1.2).
                continue;
            }
            if !is_token(option) {
                return Err(Malformed::Connection);
            }
            let is = |word: &str| option.eq_ignore_ascii_case(word.as_bytes());
            if is("close") {
                self.connection.close = true;
            } else if is("keep-alive") {
                self.connection.keep_alive = true;
            } else if is("upgrade") {
                self.connection.upgrade = true;
            } else if Known::of(option).decides() {
                return Err(Malformed::Connection);
            } else if !Known::of(option).is_hop_by_hop() {
                self.nominated.push(value.part(at, at + option.len()));
            }
        }
        Ok(())
    }
}

/// Reads one field line.
fn field(start: usize, line: &[u8]) -> Result<Field, Malformed> {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Err(Malformed::Folded);
    }
    let colon = memchr::memchr(b':', line).ok_or(Malformed::NoColon)?;
    let (name, rest) = (&line[..colon], &line[colon + 1..]);
    if !is_token(name) {
        return Err(Malformed::FieldName);
    }
    if !is_value(rest) {
        return Err(if rest.contains(&b'\r') { Malformed::BareCr } else { Malformed::FieldValue });
    }
    let value = trim(rest);
    let value_start = start + colon + 1 + (rest.len() - trim_start(rest).len());
    Ok(Field {
        name: Span::new(start, start + colon),
        value: Span::new(value_start, value_start + value.len()),
        known: Known::of(name),
    })
}

fn trim_start(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    bytes
}

/// Without the optional white space around it (RFC 9110, section 5.6.3): spaces and tabs, nothing else.
pub(super) fn trim(bytes: &[u8]) -> &[u8] {
    let mut bytes = trim_start(bytes);
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// Whether a trailer section may bring this field (RFC 9110, section 6.5.1): nothing that decides about the message or
/// says who the client is, in no disguise either. Some readers take trailers for fields of the head.
pub(super) fn may_trail(field: &Field, section: &[u8]) -> bool {
    field.known == Known::Other && Known::disguised(field.name.of(section)) == Known::Other
}

/// How the body ends, as `Content-Length` and `Transfer-Encoding` say; `None` where neither is there.
pub(super) fn framing(
    section: &Section,
    head: &[u8],
    version: super::Version,
) -> Result<Option<super::Body>, Malformed> {
    use super::Body;
    let length = section.single(Known::ContentLength).map_err(|()| Malformed::RepeatedLength)?;
    let encoding = section.single(Known::TransferEncoding).map_err(|()| Malformed::Encoding)?;
    match (length, encoding) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err(Malformed::LengthAndEncoding),
        (None, Some(encoding)) => {
            if version == super::Version::Http10 {
                return Err(Malformed::EncodingInHttp10);
            }
            let is_chunked = encoding.of(head).eq_ignore_ascii_case(b"chunked");
            if is_chunked { Ok(Some(Body::Chunked)) } else { Err(Malformed::Encoding) }
        }
        (Some(length), None) => match content_length(length.of(head))? {
            0 => Ok(Some(Body::None)),
            length => Ok(Some(Body::Length(length))),
        },
    }
}

/// Reads a `Content-Length`: digits and nothing else, below 2^63 so that no reader's number overflows.
///
/// # Errors
/// It is a list, or no such number.
pub fn content_length(text: &[u8]) -> Result<u64, Malformed> {
    if text.contains(&b',') {
        return Err(Malformed::RepeatedLength);
    }
    if text.is_empty() || text.len() > 19 || !text.iter().all(u8::is_ascii_digit) {
        return Err(Malformed::Length);
    }
    let number = text.iter().fold(0_u64, |number, digit| number * 10 + u64::from(digit - b'0'));
    if number > i64::MAX.unsigned_abs() { Err(Malformed::Length) } else { Ok(number) }
}
