//! Reads HTTP/1.1 messages (RFC 9112) strictly, in place, and without a socket.
//!
//! Request smuggling is two readers of the same bytes that disagree where a message ends. An edge stands in
//! front of readers that it does not know, so what could be read in two ways is refused here, also where the
//! RFC allows a recipient to be lenient: a bare LF, a folded line, a repeated `Content-Length`, a
//! `Content-Length` beside `Transfer-Encoding`, white space before a colon. A head is parsed once, into spans
//! of the buffer that holds it; a body is told apart from its framing piece by piece, and nothing of it is
//! kept.
//!
//! Left out: what a message means (methods, caching, ranges) and whatever a request's route decides.

mod authority;
mod body;
mod field;
mod forward;
mod request;
mod response;
mod table;
#[cfg(test)]
mod tests;
mod write;

pub use authority::Authority;
pub use body::{Decoder, Step};
pub use field::{Field, Known, Section, Span, content_length, identity_fields, is_same_variable};
pub use forward::{Facts, Forwarded, Framing, RequestLine, for_backend, write_request, write_response};
pub use request::{Request, may_become};
pub use response::Response;
pub use table::is_target;
pub(crate) use table::{is_token, is_value};
pub use write::{reason, write_chunk_size, write_status_line};

/// What a head may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the whole head, its empty line included; also those of a trailer section.
    pub head_bytes: usize,
    /// Bytes of the request target.
    pub target_bytes: usize,
    /// Fields in a head.
    pub fields: usize,
}

impl Default for Limits {
    /// What nginx and Apache allow in sum, which browsers and their cookies have to live with.
    fn default() -> Self {
        Self { head_bytes: 32 * 1024, target_bytes: 8 * 1024, fields: 100 }
    }
}

/// The protocol version that a message states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// `HTTP/1.0`.
    Http10,
    /// `HTTP/1.1`.
    Http11,
}

/// How a message's body ends (RFC 9112, section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// There is none.
    None,
    /// After so many bytes, at least one.
    Length(u64),
    /// With the last chunk and the trailer section.
    Chunked,
    /// With the connection; responses only.
    UntilClose,
}

/// Why bytes are no message that can be forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A line ends with LF alone.
    #[error("a line ends without CR")]
    BareLf,
    /// CR inside a line.
    #[error("a line has a CR that no LF follows")]
    BareCr,
    /// The start line is not three parts with one space between.
    #[error("the first line is not what HTTP/1.1 begins with")]
    StartLine,
    /// The method is no token.
    #[error("the method is no token")]
    Method,
    /// A byte in the request target that no URI has, or a form that does not fit the method.
    #[error("the request target is malformed")]
    Target,
    /// The request target is too long.
    #[error("the request target is longer than {0} bytes")]
    TargetTooLong(usize),
    /// HTTP, but neither 1.0 nor 1.1.
    #[error("the version is neither HTTP/1.0 nor HTTP/1.1")]
    Version,
    /// The head, or a trailer section, is too long.
    #[error("the fields take more than {0} bytes")]
    TooLarge(usize),
    /// More fields than allowed.
    #[error("there are more than {0} fields")]
    TooManyFields(usize),
    /// A line that begins with white space: a folded field, or white space before the first.
    #[error("a line begins with white space")]
    Folded,
    /// A field line without a colon.
    #[error("a field has no colon")]
    NoColon,
    /// A field name that is no token, or white space between it and its colon.
    #[error("a field's name is no token")]
    FieldName,
    /// A control character in a field's value.
    #[error("a field's value has a control character")]
    FieldValue,
    /// No `Host`.
    #[error("there is no Host")]
    NoHost,
    /// More than one `Host`.
    #[error("there is more than one Host")]
    RepeatedHost,
    /// `Host` is neither a name nor an address, with or without a port.
    #[error("Host is not a host name or an address")]
    Host,
    /// The target names another host than `Host` does.
    #[error("the request target and Host name different hosts")]
    HostDisagrees,
    /// More than one `Content-Length`, or a list in one.
    #[error("there is more than one Content-Length")]
    RepeatedLength,
    /// `Content-Length` is no number that fits 63 bits.
    #[error("Content-Length is no number")]
    Length,
    /// `Content-Length` beside `Transfer-Encoding`.
    #[error("there are both Content-Length and Transfer-Encoding")]
    LengthAndEncoding,
    /// A transfer coding other than `chunked`, or `chunked` more than once.
    #[error("Transfer-Encoding is not just chunked")]
    Encoding,
    /// `Transfer-Encoding` in HTTP/1.0, which has none.
    #[error("HTTP/1.0 has no Transfer-Encoding")]
    EncodingInHttp10,
    /// `Connection` is no list of tokens, or names a field that is not for this connection alone.
    #[error("Connection names a field that is not for one connection")]
    Connection,
    /// A chunk's size is no hexadecimal number that fits 63 bits.
    #[error("a chunk's size is no hexadecimal number")]
    ChunkSize,
    /// Something else than CRLF follows a chunk's size or data.
    #[error("a chunk does not end with CRLF")]
    ChunkEnd,
    /// Chunk extensions beyond reason.
    #[error("chunk extensions take more than {} bytes", body::MAX_EXTENSIONS)]
    ChunkExtensions,
    /// A field in a trailer section that decides about framing or routing.
    #[error("a trailer field may not come after the body")]
    Trailer,
    /// The status code is not three digits from 100 on.
    #[error("the status code is malformed")]
    Status,
}

impl Malformed {
    /// The status that tells a client so (RFC 9110, section 15; RFC 6585).
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::TargetTooLong(_) => 414,
            Self::TooLarge(_) | Self::TooManyFields(_) => 431,
            Self::Encoding => 501,
            Self::Version => 505,
            _ => 400,
        }
    }
}

/// Finds the end of a head in bytes that arrive in pieces. Each byte is looked at once.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeadEnd {
    /// Where to go on.
    at: usize,
    /// Where the current line starts.
    line: usize,
    /// Bytes of an empty line before the head.
    skip: usize,
}

impl HeadEnd {
    /// Where the head starts and ends, its empty line included, once it is complete. `bytes` are all received so
    /// far, from the first. One empty line before the head is skipped (RFC 9112, section 2.2).
    ///
    /// # Errors
    /// A line ends with a bare LF, or the head is too long.
    pub fn find(
        &mut self,
        bytes: &[u8],
        limits: &Limits,
    ) -> Result<Option<std::ops::Range<usize>>, Malformed> {
        while let Some(found) = memchr::memchr(b'\n', &bytes[self.at..]) {
            let lf = self.at + found;
            if lf == self.line || bytes[lf - 1] != b'\r' {
                return Err(Malformed::BareLf);
            }
            let empty = lf == self.line + 1;
            self.at = lf + 1;
            self.line = lf + 1;
            if !empty {
                continue;
            }
            if lf == 1 {
                self.skip = 2;
                continue;
            }
            if lf < self.skip + 2 {
                // A second empty line.
                return Err(Malformed::StartLine);
            }
            let head = self.skip..lf + 1;
            return if head.len() > limits.head_bytes {
                Err(Malformed::TooLarge(limits.head_bytes))
            } else {
                Ok(Some(head))
            };
        }
        self.at = bytes.len();
        if bytes.len() > limits.head_bytes + self.skip {
            return Err(Malformed::TooLarge(limits.head_bytes));
        }
        Ok(None)
    }
}

/// A head's lines, without their CRLF, up to the empty one.
pub(crate) struct Lines<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Lines<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The next line and where it starts; `None` at the empty line or the end.
    fn next(&mut self) -> Result<Option<(usize, &'a [u8])>, Malformed> {
        let start = self.at;
        let Some(lf) = memchr::memchr(b'\n', &self.bytes[start..]) else { return Ok(None) };
        let line = self.bytes[start..start + lf].strip_suffix(b"\r").ok_or(Malformed::BareLf)?;
        self.at = start + lf + 1;
        Ok((!line.is_empty()).then_some((start, line)))
    }
}
