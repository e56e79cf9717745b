//! A response's head (RFC 9112, sections 4 and 6.3).

use super::field::{Known, Section, Span, framing, trim};
use super::request::version;
use super::table::is_value;
use super::{Body, Limits, Lines, Malformed, Version};

/// A response's head, as spans of the bytes that it was read from.
#[derive(Clone, Debug)]
pub struct Response {
    /// 100 to 999.
    pub status: u16,
    /// The words after it; may be empty.
    pub reason: Span,
    /// What the backend speaks.
    pub version: Version,
    /// How the body ends.
    pub body: Body,
    /// Whether the connection may carry another request after this one.
    pub persistent: bool,
    /// Everything else.
    pub section: Section,
}

impl Default for Response {
    fn default() -> Self {
        Self {
            status: 0,
            reason: Span::default(),
            version: Version::Http11,
            body: Body::None,
            persistent: false,
            section: Section::default(),
        }
    }
}

impl Response {
    /// Reads a complete head; `to_head`: it answers a `HEAD` request and has no body whatever it says.
    ///
    /// # Errors
    /// Why it is no response that can be forwarded; `self` is then of no use until the next success.
    pub fn parse(&mut self, head: &[u8], to_head: bool, limits: &Limits) -> Result<(), Malformed> {
        let mut lines = Lines::new(head);
        let (_, line) = lines.next()?.ok_or(Malformed::StartLine)?;
        if line.len() < 12 || line[8] != b' ' {
            return Err(Malformed::StartLine);
        }
        self.version = version(&line[..8])?;
        self.status = status(&line[9..12])?;
        // The space before the reason is left out by some where the reason is empty; it decides nothing.
        let reason = match &line[12..] {
            [] => &[],
            [b' ', reason @ ..] if is_value(reason) => reason,
            _ => return Err(Malformed::StartLine),
        };
        self.reason = Span::new(line.len() - reason.len(), line.len());
        self.section.parse(&mut lines, limits)?;
        let framing = framing(&self.section, head, self.version)?;
        self.body = match framing {
            // RFC 9112, section 6.3, rules 1 and 2.
            _ if to_head || self.is_informational() || matches!(self.status, 204 | 304) => Body::None,
            Some(body) => body,
            None => Body::UntilClose,
        };
        let options = self.section.connection;
        self.persistent = !options.close
            && self.body != Body::UntilClose
            && (self.version == Version::Http11 || options.keep_alive);
        Ok(())
    }

    /// Whether another response to the same request follows (1xx; 101 ends HTTP on the connection).
    #[must_use]
    pub fn is_informational(&self) -> bool {
        (100..200).contains(&self.status)
    }

    /// The protocol that a 101 switches to.
    #[must_use]
    pub fn upgrade<'a>(&self, head: &'a [u8]) -> Option<&'a [u8]> {
        let value = self.section.single(Known::Upgrade).ok().flatten()?;
        self.section.connection.upgrade.then(|| trim(value.of(head)))
    }
}

fn status(digits: &[u8]) -> Result<u16, Malformed> {
    if !digits.iter().all(u8::is_ascii_digit) || digits[0] == b'0' {
        return Err(Malformed::Status);
    }
    Ok(digits.iter().fold(0, |number, digit| number * 10 + u16::from(digit - b'0')))
}
