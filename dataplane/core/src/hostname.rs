//! A host name in its one form: lower case, no trailing dot, ASCII; held without an allocation.
//!
//! Names come from ClientHellos (RFC 6066, section 3) and from configuration, and both must end up in the
//! same form to meet in the route table. Labels are those of RFC 1123 plus `_`, and `-` may stand anywhere
//! in a label, as real names have it; internationalised names are A-labels (RFC 5890) by then. A name whose
//! last label is a number is none: software may take it for an IPv4 address. Wildcards are not names.

use std::fmt;
use std::hash::{Hash, Hasher};

/// A host name of 1 to 253 bytes, lower case, without a trailing dot.
#[derive(Clone)]
pub struct HostName {
    len: u8,
    bytes: [u8; Self::MAX],
}

/// Why some bytes are no host name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostNameError {
    /// Nothing, or only a dot.
    #[error("the name is empty")]
    Empty,
    /// More than 253 bytes.
    #[error("the name has {0} bytes, 253 are the most")]
    TooLong(usize),
    /// Two dots in a row, or one at the start.
    #[error("the name has an empty label")]
    EmptyLabel,
    /// A label of more than 63 bytes.
    #[error("a label of the name has more than 63 bytes")]
    LongLabel,
    /// A byte that is none of `a-z`, `A-Z`, `0-9`, `-`, `_`.
    #[error("the name contains the byte {0:#04x}")]
    BadByte(u8),
    /// The last label is all digits.
    #[error("the name ends in a number, as an IPv4 address does")]
    EndsInNumber,
}

impl HostName {
    /// Bytes of the longest name, its trailing dot not counted.
    pub const MAX: usize = 253;

    /// Reads a name: folds upper case, drops one trailing dot.
    ///
    /// # Errors
    /// Why it is no host name. IP addresses are none.
    pub fn parse(text: &[u8]) -> Result<Self, HostNameError> {
        let text = text.strip_suffix(b".").unwrap_or(text);
        if text.is_empty() {
            return Err(HostNameError::Empty);
        }
        let Some(len) = u8::try_from(text.len()).ok().filter(|&len| usize::from(len) <= Self::MAX) else {
            return Err(HostNameError::TooLong(text.len()));
        };
        let mut bytes = [0; Self::MAX];
        let mut label = 0;
        let mut numeric = true;
        for (to, &from) in bytes.iter_mut().zip(text) {
            match from {
                b'a'..=b'z' | b'A'..=b'Z' | b'-' | b'_' => numeric = false,
                b'0'..=b'9' => {}
                b'.' if label == 0 => return Err(HostNameError::EmptyLabel),
                b'.' => {
                    *to = b'.';
                    label = 0;
                    numeric = true;
                    continue;
                }
                other => return Err(HostNameError::BadByte(other)),
            }
            *to = from.to_ascii_lowercase();
            label += 1;
            if label > Self::MAX_LABEL {
                return Err(HostNameError::LongLabel);
            }
        }
        if label == 0 {
            return Err(HostNameError::EmptyLabel);
        }
        if numeric {
            return Err(HostNameError::EndsInNumber);
        }
        Ok(Self { len, bytes })
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        str::from_utf8(self.as_bytes()).expect("parse lets only ASCII in")
    }

    /// The name's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    const MAX_LABEL: usize = 63;
}

impl AsRef<str> for HostName {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl PartialEq for HostName {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for HostName {}

impl Hash for HostName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(input: &str, expect: Result<&str, HostNameError>) {
        let name = HostName::parse(input.as_bytes());
        assert_eq!(name.as_ref().map(HostName::as_str).map_err(|e| *e), expect, "{input}");
    }

    #[test]
    fn folds_case_and_drops_one_dot() {
        check("example.org", Ok("example.org"));
        check("EXAMPLE.Org.", Ok("example.org"));
        check("localhost", Ok("localhost"));
        check("_acme.x-.-y.1a", Ok("_acme.x-.-y.1a"));
        check("xn--bcher-kva.example", Ok("xn--bcher-kva.example"));
        check("1.2.3.example", Ok("1.2.3.example"));
    }

    #[test]
    fn refuses_what_is_no_name() {
        check("", Err(HostNameError::Empty));
        check(".", Err(HostNameError::Empty));
        check("..", Err(HostNameError::EmptyLabel));
        check(".org", Err(HostNameError::EmptyLabel));
        check("a..b", Err(HostNameError::EmptyLabel));
        check("a.b..", Err(HostNameError::EmptyLabel));
        check("a b", Err(HostNameError::BadByte(b' ')));
        check("a\0b", Err(HostNameError::BadByte(0)));
        check("*.example.org", Err(HostNameError::BadByte(b'*')));
        check("bücher.example", Err(HostNameError::BadByte(0xc3)));
        check("::1", Err(HostNameError::BadByte(b':')));
        check("192.0.2.1", Err(HostNameError::EndsInNumber));
        check("example.1", Err(HostNameError::EndsInNumber));
    }

    #[test]
    fn lengths_at_their_bounds() {
        let label = "a".repeat(63);
        check(&label, Ok(&label));
        check(&"a".repeat(64), Err(HostNameError::LongLabel));
        let longest = format!("{label}.{label}.{label}.{}", "b".repeat(61));
        check(&longest, Ok(&longest));
        check(&format!("{longest}."), Ok(&longest));
        check(&format!("{longest}b"), Err(HostNameError::TooLong(254)));
        check(&"a.".repeat(200), Err(HostNameError::TooLong(399)));
    }
}
