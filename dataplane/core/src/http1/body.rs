//! Tells a body's content from its framing, piece by piece (RFC 9112, sections 6 and 7).

use super::field::{Section, may_trail};
use super::{Body, Limits, Lines, Malformed};

/// Bytes of chunk extensions in one body: nobody uses them, and some have used them to keep readers busy.
pub(super) const MAX_EXTENSIONS: u32 = 16 * 1024;

/// Where in a body the reader is.
#[derive(Clone, Debug)]
pub struct Decoder {
    state: State,
    limits: Limits,
    extensions: u32,
    /// The trailer section's lines, and the empty one.
    trailers: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// So many bytes of content are left, and then it is over.
    Length(u64),
    /// Content until the connection ends.
    UntilClose,
    /// In the digits of a chunk's size.
    Size { size: u64, digits: u8 },
    /// In white space after the size: an extension may come, but nothing that another reader could take for digits.
    Pad { size: u64 },
    /// After the size's semicolon, before the line's CR.
    Extension { size: u64 },
    /// After the size line's CR.
    SizeEnd { size: u64 },
    /// In a chunk.
    Data(u64),
    /// After a chunk.
    DataCr,
    /// After a chunk's CR.
    DataLf,
    /// In the trailer section.
    Trailers,
    /// Everything has come.
    Done,
}

/// What the next bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// So many bytes of content, at least one.
    Content(usize),
    /// So many bytes that frame it, at least one.
    Framing(usize),
    /// Nothing: more bytes are needed.
    NeedMore,
    /// Nothing: the body is over.
    End,
}

impl Decoder {
    /// A reader for a body that ends so.
    #[must_use]
    pub fn new(body: Body, limits: &Limits) -> Self {
        let state = match body {
            Body::None => State::Done,
            Body::Length(length) => State::Length(length),
            Body::Chunked => State::Size { size: 0, digits: 0 },
            Body::UntilClose => State::UntilClose,
        };
        Self { state, limits: *limits, extensions: 0, trailers: Vec::new() }
    }

    /// What the next of `bytes` are. The caller takes them away before it asks again.
    ///
    /// # Errors
    /// The framing is malformed: nothing that follows can be trusted.
    pub fn next(&mut self, bytes: &[u8]) -> Result<Step, Malformed> {
        match self.state {
            State::Done => Ok(Step::End),
            _ if bytes.is_empty() => Ok(Step::NeedMore),
            State::UntilClose => Ok(Step::Content(bytes.len())),
            State::Length(left) => {
                let (taken, left) = take(bytes, left);
                self.state = if left == 0 { State::Done } else { State::Length(left) };
                Ok(Step::Content(taken))
            }
            State::Data(left) => {
                let (taken, left) = take(bytes, left);
                self.state = if left == 0 { State::DataCr } else { State::Data(left) };
                Ok(Step::Content(taken))
            }
            _ => self.framing(bytes).map(Step::Framing),
        }
    }

    /// Bytes of content that come next with nothing between them, or before the connection ends: whoever need not see
    /// them may pass them on without a look.
    #[must_use]
    pub fn ahead(&self) -> u64 {
        match self.state {
            State::Length(left) | State::Data(left) => left,
            State::UntilClose => u64::MAX,
            _ => 0,
        }
    }

    /// Takes note of so many bytes that were passed on without a look, at most [`Self::ahead`].
    pub fn skip(&mut self, bytes: u64) {
        let left = self.ahead().saturating_sub(bytes);
        self.state = match (self.state, left) {
            (State::Length(_), 0) => State::Done,
            (State::Length(_), left) => State::Length(left),
            (State::Data(_), 0) => State::DataCr,
            (State::Data(_), left) => State::Data(left),
            (other, _) => other,
        };
    }

    /// What the end of the connection means: `true` where the body ends with it.
    #[must_use]
    pub fn ends_with_connection(&self) -> bool {
        matches!(self.state, State::UntilClose | State::Done)
    }

    /// Whether the body is over.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// The trailer fields as they came, each line with its CRLF; empty where there were none.
    #[must_use]
    pub fn trailers(&self) -> &[u8] {
        self.trailers.strip_suffix(b"\r\n").unwrap_or(&self.trailers)
    }

    /// Takes bytes that are no content, for as long as there are some.
    fn framing(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        for (index, &byte) in bytes.iter().enumerate() {
            self.state = match self.state {
                State::Size { size, digits } => match (hex(byte), byte) {
                    // 15 digits: below 2^60.
                    (Some(digit), _) if digits < 15 => {
                        State::Size { size: size << 4 | digit, digits: digits + 1 }
                    }
                    (None, b'\r') if digits > 0 => State::SizeEnd { size },
                    (None, b';') if digits > 0 => self.extension(size)?,
                    (None, b' ' | b'\t') if digits > 0 => self.pad(size)?,
                    _ => return Err(Malformed::ChunkSize),
                },
                State::Pad { size } => match byte {
                    b'\r' => State::SizeEnd { size },
                    b';' => self.extension(size)?,
                    b' ' | b'\t' => self.pad(size)?,
                    _ => return Err(Malformed::ChunkEnd),
                },
                State::Extension { size } => match byte {
                    b'\r' => State::SizeEnd { size },
                    b'\t' | b' '..=b'~' => self.extension(size)?,
                    _ => return Err(Malformed::ChunkEnd),
                },
                State::SizeEnd { size } => match (byte, size) {
                    (b'\n', 0) => State::Trailers,
                    (b'\n', size) => State::Data(size),
                    _ => return Err(Malformed::ChunkEnd),
                },
                State::DataCr if byte == b'\r' => State::DataLf,
                State::DataLf if byte == b'\n' => State::Size { size: 0, digits: 0 },
                State::DataCr | State::DataLf => return Err(Malformed::ChunkEnd),
                State::Trailers => self.trailer(byte)?,
                State::Length(_) | State::UntilClose | State::Data(_) | State::Done => return Ok(index),
            };
        }
        Ok(bytes.len())
    }

    fn extension(&mut self, size: u64) -> Result<State, Malformed> {
        self.count_extension()?;
        Ok(State::Extension { size })
    }

    fn pad(&mut self, size: u64) -> Result<State, Malformed> {
        self.count_extension()?;
        Ok(State::Pad { size })
    }

    /// Takes a byte that neither frames nor is content out of what a body may have of those.
    fn count_extension(&mut self) -> Result<(), Malformed> {
        self.extensions += 1;
        if self.extensions > MAX_EXTENSIONS { Err(Malformed::ChunkExtensions) } else { Ok(()) }
    }

    fn trailer(&mut self, byte: u8) -> Result<State, Malformed> {
        self.trailers.push(byte);
        if self.trailers.len() > self.limits.head_bytes {
            return Err(Malformed::TooLarge(self.limits.head_bytes));
        }
        if byte != b'\n' {
            return Ok(State::Trailers);
        }
        if !self.trailers.ends_with(b"\r\n") {
            return Err(Malformed::BareLf);
        }
        if self.trailers != b"\r\n" && !self.trailers.ends_with(b"\r\n\r\n") {
            return Ok(State::Trailers);
        }
        let mut section = Section::default();
        section.parse(&mut Lines::new(&self.trailers), &self.limits)?;
        if section.fields().iter().all(|field| may_trail(field, &self.trailers)) {
            Ok(State::Done)
        } else {
            Err(Malformed::Trailer)
        }
    }
}

fn take(bytes: &[u8], left: u64) -> (usize, u64) {
    let taken = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
    (taken, left - taken as u64)
}

fn hex(byte: u8) -> Option<u64> {
    char::from(byte).to_digit(16).map(u64::from)
}
