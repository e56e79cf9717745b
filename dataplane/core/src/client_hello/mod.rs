//! Reads the name that a TLS client asks for out of the first bytes it sends, without answering them.
//!
//! A router must decide before TLS begins, and from bytes that arrive in any pieces: a ClientHello may be
//! split over any number of TCP segments and, inside TLS, over several records. [`Parser`] is given all
//! bytes received so far each time and says [`Progress::NeedMore`] or [`Progress::Done`]. A hello inside one
//! record is read in place, without an allocation; one that is split over records is put together in the
//! parser. The work is linear in the bytes, however they arrive.
//!
//! Left out: whether the hello can lead to a handshake (cipher suites, key shares, order of extensions) is
//! for the backend to judge. What is refused here is what two readers could read differently.
//!
//! RFC 8446 (TLS 1.3) sections 4.1.2, 4.2 and 5.1; RFC 6066 section 3 (names); RFC 7301 (ALPN);
//! RFC 8701 (GREASE); RFC 9849 (ECH: the outer name is what counts).

pub mod build;
mod hello;
pub mod reply;
#[cfg(test)]
mod tests;

use crate::hostname::HostNameError;
use crate::outcome::Outcome;

pub use hello::{Alpn, Hello, Versions, asked_name};

/// The state of one connection's hello.
#[derive(Clone, Debug)]
pub struct Parser {
    /// Most bytes of TLS records that the hello may take.
    limit: usize,
    /// Bytes from the start without which another look is useless.
    need: usize,
    /// Where the current record starts; what is before is in `message`.
    at: usize,
    /// The handshake message so far, where it is split over records.
    message: Vec<u8>,
}

/// How far a hello has come.
#[derive(Clone, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "made once for each connection and taken apart at once; a box would allocate"
)]
pub enum Progress<'a> {
    /// Not complete.
    NeedMore {
        /// Bytes from the start that must be there before another call can say more.
        at_least: usize,
    },
    /// Complete.
    Done(Hello<'a>),
}

/// Why the bytes are no ClientHello that can be routed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    /// It takes more bytes of TLS records than allowed.
    #[error("the ClientHello takes more than {limit} bytes of TLS records")]
    TooLarge {
        /// What is allowed.
        limit: usize,
    },
    /// It is TLS, but not a well-formed ClientHello.
    #[error("{0}")]
    Malformed(Malformed),
    /// It is no TLS: garbage, another protocol, or an SSLv2 hello.
    #[error("what came is no TLS")]
    NotTls,
    /// It is an HTTP request without TLS.
    #[error("what came is HTTP without TLS")]
    PlainHttp,
}

/// What is wrong with a ClientHello.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The record holds something else: an alert (21), application data (23).
    #[error("a TLS record of type {0} came instead of a handshake record")]
    NotHandshake(u8),
    /// The handshake message is another one.
    #[error("a handshake message of type {0} came instead of a ClientHello")]
    NotClientHello(u8),
    /// A handshake record without content (RFC 8446, section 5.1).
    #[error("a handshake record is empty")]
    EmptyRecord,
    /// A record longer than 2^14 bytes (RFC 8446, section 5.1).
    #[error("a TLS record says it has {0} bytes, 16384 are the most")]
    RecordTooLong(u16),
    /// A later record has a version that is not 3.x.
    #[error("a TLS record has the version {0:#06x}")]
    RecordVersion(u16),
    /// Something follows the ClientHello inside its last record.
    #[error("the record in which the ClientHello ends goes on")]
    DataAfterHello,
    /// A length leads beyond the end of what contains it, or the content is shorter than it must be.
    #[error("the ClientHello ends inside its {0}")]
    Truncated(&'static str),
    /// A length is not one that the field may have.
    #[error("the ClientHello's {0} has a length that is not allowed")]
    BadLength(&'static str),
    /// An extension came twice (RFC 8446, section 4.2).
    #[error("the ClientHello has extension {0} twice")]
    DuplicateExtension(u16),
    /// The server_name extension has no name of type host_name where it must be.
    #[error("the ClientHello's server_name extension has no host name")]
    NoHostName,
    /// The server_name extension has two names (RFC 6066, section 3).
    #[error("the ClientHello's server_name extension has several host names")]
    SeveralHostNames,
    /// The name that is asked for cannot be one.
    #[error("the ClientHello asks for an impossible name: {0}")]
    BadHostName(HostNameError),
}

/// Where a complete handshake message is.
enum Source {
    /// In the first record, which ends here.
    Received { end: usize },
    /// In the parser.
    Message,
}

impl Parser {
    /// A parser for a hello of at most `limit` bytes of TLS records, their headers included.
    #[must_use]
    pub const fn new(limit: usize) -> Self {
        Self { limit, need: 1, at: 0, message: Vec::new() }
    }

    /// Looks at all bytes received so far, from the first byte of TLS. Bytes after the hello are no concern.
    ///
    /// # Errors
    /// Why this is no hello. Further calls are then without meaning.
    pub fn parse<'a>(&'a mut self, received: &'a [u8]) -> Result<Progress<'a>, HelloError> {
        if received.len() < self.need {
            return Ok(Progress::NeedMore { at_least: self.need });
        }
        let (message, end) = match self.advance(received)? {
            None => return Ok(Progress::NeedMore { at_least: self.need }),
            Some(Source::Received { end }) => (&received[RECORD_HEADER..end], end),
            Some(Source::Message) => (&self.message[..], self.at),
        };
        Hello::read(&message[MESSAGE_HEADER..], end).map(Progress::Done).map_err(HelloError::Malformed)
    }

    /// Goes from record to record until the message is complete or bytes are missing; [`Self::need`] then
    /// says how many there must be.
    fn advance(&mut self, received: &[u8]) -> Result<Option<Source>, HelloError> {
        loop {
            if !self.message.is_empty() && self.message_len(&[])? == Some(self.message.len()) {
                return Ok(Some(Source::Message));
            }
            let start = self.at + RECORD_HEADER;
            let Some(len) = self.record_len(received)? else { return Ok(None) };
            let end = start + len;
            if end > self.limit {
                return Err(HelloError::TooLarge { limit: self.limit });
            }
            let payload = &received[start..received.len().min(end)];
            let total = self.message_len(payload)?;
            if let Some(total) = total {
                let missing = total - self.message.len();
                if missing < len {
                    return Err(HelloError::Malformed(Malformed::DataAfterHello));
                }
                if start + missing > self.limit {
                    return Err(HelloError::TooLarge { limit: self.limit });
                }
            }
            if payload.len() < len {
                // The message's type and its header are worth a look of their own: much can be refused by them.
                self.need = match (total, self.message.len() + payload.len()) {
                    (Some(_), _) => end,
                    (None, 0) => start + 1,
                    (None, _) => end.min(start + MESSAGE_HEADER - self.message.len()),
                };
                return Ok(None);
            }
            if self.message.is_empty() && total == Some(len) {
                return Ok(Some(Source::Received { end }));
            }
            self.message.extend_from_slice(payload);
            self.at = end;
        }
    }

    /// The length of the current record's content, once its header is there and in order.
    fn record_len(&mut self, received: &[u8]) -> Result<Option<usize>, HelloError> {
        let header = &received[self.at.min(received.len())..];
        if self.at == 0 {
            match looks_like(header) {
                First::Tls => {}
                First::Unclear => {
                    self.need = received.len() + 1;
                    return Ok(None);
                }
                First::Http => return Err(HelloError::PlainHttp),
                First::Other => return Err(HelloError::NotTls),
            }
        }
        let Some(&[kind, major, minor, high, low]) = header.first_chunk::<RECORD_HEADER>() else {
            self.need = self.at + RECORD_HEADER;
            return Ok(None);
        };
        let len = u16::from_be_bytes([high, low]);
        let malformed = match (kind, major, len) {
            (HANDSHAKE, 3, 1..=MAX_RECORD) => return Ok(Some(usize::from(len))),
            (HANDSHAKE, 3, 0) => Malformed::EmptyRecord,
            (HANDSHAKE, 3, _) => Malformed::RecordTooLong(len),
            (HANDSHAKE, _, _) => Malformed::RecordVersion(u16::from_be_bytes([major, minor])),
            _ => Malformed::NotHandshake(kind),
        };
        Err(HelloError::Malformed(malformed))
    }

    /// The length of the whole handshake message, once its header is there, `payload` being what follows
    /// what is already in `message`.
    fn message_len(&self, payload: &[u8]) -> Result<Option<usize>, HelloError> {
        let mut bytes = self.message.iter().chain(payload);
        match bytes.next() {
            None => return Ok(None),
            Some(&CLIENT_HELLO) => {}
            Some(&kind) => return Err(HelloError::Malformed(Malformed::NotClientHello(kind))),
        }
        let (Some(&a), Some(&b), Some(&c)) = (bytes.next(), bytes.next(), bytes.next()) else {
            return Ok(None);
        };
        let body = usize::try_from(u32::from_be_bytes([0, a, b, c])).expect("24 bits fit");
        Ok(Some(MESSAGE_HEADER + body))
    }
}

impl HelloError {
    /// How the connection ended, for log and metrics.
    #[must_use]
    pub const fn outcome(&self) -> Outcome {
        match self {
            Self::TooLarge { .. } => Outcome::HelloTooLarge,
            Self::Malformed(_) => Outcome::HelloMalformed,
            Self::NotTls => Outcome::NotTls,
            Self::PlainHttp => Outcome::PlainHttp,
        }
    }
}

/// What a connection's first bytes can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum First {
    Tls,
    Http,
    Other,
    /// More bytes decide.
    Unclear,
}

/// Tells TLS from HTTP and from the rest with as few bytes as it takes.
fn looks_like(bytes: &[u8]) -> First {
    match bytes {
        [] | [CHANGE_CIPHER_SPEC..=APPLICATION_DATA] => First::Unclear,
        [CHANGE_CIPHER_SPEC..=APPLICATION_DATA, 3, ..] => First::Tls,
        _ if METHODS.iter().any(|method| bytes.starts_with(method)) => First::Http,
        _ if METHODS.iter().any(|method| method.starts_with(bytes)) => First::Unclear,
        _ => First::Other,
    }
}

/// Type, version, length.
const RECORD_HEADER: usize = 5;
/// Type, length.
const MESSAGE_HEADER: usize = 4;
/// Most bytes in a record that is not encrypted.
const MAX_RECORD: u16 = 1 << 14;
const CHANGE_CIPHER_SPEC: u8 = 20;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;
const CLIENT_HELLO: u8 = 1;
/// HTTP methods with their space, and how HTTP/2 begins.
const METHODS: [&[u8]; 10] = [
    b"GET ",
    b"POST ",
    b"HEAD ",
    b"PUT ",
    b"DELETE ",
    b"OPTIONS ",
    b"CONNECT ",
    b"PATCH ",
    b"TRACE ",
    b"PRI ",
];
