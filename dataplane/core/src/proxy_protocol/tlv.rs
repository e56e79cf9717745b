//! The type-length-value vectors of a version 2 header (sections 2.2.1 to 2.2.8 of the specification).

use super::{ProxyError, v2};
use crate::read::Reader;

/// The TLVs of a header, checked, in the order in which they came. Owned, so that they outlive the buffer
/// they came in: they are passed on when the backend is connected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tlvs(Box<[u8]>);

/// One TLV.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tlv<'a> {
    /// See [`kind`].
    pub kind: u8,
    /// Its value.
    pub value: &'a [u8],
}

/// Goes over TLVs.
#[derive(Clone, Copy, Debug)]
pub struct TlvIter<'a>(Reader<'a>);

/// PP2_TYPE_SSL: what the proxy in front knows of a TLS connection that it terminated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ssl<'a> {
    /// Bits: 1 the client connected over TLS, 2 it gave a certificate on this connection, 4 on this session.
    pub client: u8,
    /// 0: the client's certificate was verified.
    pub verify: u32,
    sub: &'a [u8],
}

/// Types of TLVs.
pub mod kind {
    /// The application protocol.
    pub const ALPN: u8 = 0x01;
    /// The name the client asked for.
    pub const AUTHORITY: u8 = 0x02;
    /// A checksum over the header.
    pub const CRC32C: u8 = 0x03;
    /// Padding.
    pub const NOOP: u8 = 0x04;
    /// A unique id of the connection, at most 128 bytes.
    pub const UNIQUE_ID: u8 = 0x05;
    /// TLS as the proxy in front saw it.
    pub const SSL: u8 = 0x20;
    /// Inside [`SSL`]: version of TLS.
    pub const SSL_VERSION: u8 = 0x21;
    /// Inside [`SSL`]: common name of the client's certificate.
    pub const SSL_CN: u8 = 0x22;
    /// Inside [`SSL`]: cipher suite.
    pub const SSL_CIPHER: u8 = 0x23;
    /// Inside [`SSL`]: how the server's certificate is signed.
    pub const SSL_SIG_ALG: u8 = 0x24;
    /// Inside [`SSL`]: the server's key.
    pub const SSL_KEY_ALG: u8 = 0x25;
    /// A network namespace.
    pub const NETNS: u8 = 0x30;
    /// The first custom type.
    pub const MIN_CUSTOM: u8 = 0xe0;
    /// The last custom type.
    pub const MAX_CUSTOM: u8 = 0xef;
}

impl Tlvs {
    /// Reads the TLVs from `start` to the end of a whole header, and verifies its checksum where there is one.
    pub(super) fn read(whole: &[u8], start: usize) -> Result<Self, ProxyError> {
        let block = &whole[start..];
        let mut rest = Reader::new(block);
        let mut checksum = false;
        while !rest.is_empty() {
            let kind = rest.u8().ok_or(ProxyError::TlvLength)?;
            let value = rest.vec16().ok_or(ProxyError::TlvLength)?;
            let possible = match kind {
                kind::CRC32C if checksum || value.len() != 4 => false,
                kind::CRC32C => {
                    checksum = true;
                    let value_end = whole.len() - rest.len();
                    verify_checksum(whole, value_end - 4)?;
                    true
                }
                kind::UNIQUE_ID => value.len() <= MAX_UNIQUE_ID,
                kind::SSL => Ssl::read(value).is_some(),
                _ => true,
            };
            if !possible {
                return Err(ProxyError::Tlv(kind));
            }
        }
        Ok(Self(block.into()))
    }

    /// All of them.
    #[must_use]
    pub const fn iter(&self) -> TlvIter<'_> {
        TlvIter(Reader::new(&self.0))
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of the first TLV of a type; custom types are found so as well.
    #[must_use]
    pub fn get(&self, kind: u8) -> Option<&[u8]> {
        self.iter().find(|tlv| tlv.kind == kind).map(|tlv| tlv.value)
    }

    /// The application protocol.
    #[must_use]
    pub fn alpn(&self) -> Option<&[u8]> {
        self.get(kind::ALPN)
    }

    /// The name the client asked for; `None` also where it is not UTF-8.
    #[must_use]
    pub fn authority(&self) -> Option<&str> {
        text(self.get(kind::AUTHORITY)?)
    }

    /// The connection's unique id, 0 to 128 bytes.
    #[must_use]
    pub fn unique_id(&self) -> Option<&[u8]> {
        self.get(kind::UNIQUE_ID)
    }

    /// TLS as the proxy in front saw it.
    #[must_use]
    pub fn ssl(&self) -> Option<Ssl<'_>> {
        Ssl::read(self.get(kind::SSL)?)
    }

    /// The client's network namespace; `None` also where it is not UTF-8.
    #[must_use]
    pub fn netns(&self) -> Option<&str> {
        text(self.get(kind::NETNS)?)
    }
}

impl<'a> IntoIterator for &'a Tlvs {
    type Item = Tlv<'a>;
    type IntoIter = TlvIter<'a>;

    fn into_iter(self) -> TlvIter<'a> {
        self.iter()
    }
}

impl<'a> Iterator for TlvIter<'a> {
    type Item = Tlv<'a>;

    fn next(&mut self) -> Option<Tlv<'a>> {
        Some(Tlv { kind: self.0.u8()?, value: self.0.vec16()? })
    }
}

impl<'a> Ssl<'a> {
    fn read(value: &'a [u8]) -> Option<Self> {
        let mut value = Reader::new(value);
        let client = value.u8()?;
        let verify = u32::from_be_bytes(*value.array()?);
        let sub = value.take_rest();
        let mut rest = Reader::new(sub);
        while !rest.is_empty() {
            rest.u8()?;
            rest.vec16()?;
        }
        Some(Self { client, verify, sub })
    }

    /// Whether the client connected over TLS.
    #[must_use]
    pub const fn is_tls(&self) -> bool {
        self.client & 1 != 0
    }

    /// Whether the client gave a certificate, on this connection or on an earlier one of its session, and it
    /// was verified.
    #[must_use]
    pub const fn is_verified(&self) -> bool {
        self.client & 6 != 0 && self.verify == 0
    }

    /// Version of TLS, e.g. `TLSv1.3`.
    #[must_use]
    pub fn version(&self) -> Option<&'a str> {
        self.get(kind::SSL_VERSION)
    }

    /// Common name of the client's certificate.
    #[must_use]
    pub fn common_name(&self) -> Option<&'a str> {
        self.get(kind::SSL_CN)
    }

    /// Cipher suite.
    #[must_use]
    pub fn cipher(&self) -> Option<&'a str> {
        self.get(kind::SSL_CIPHER)
    }

    /// How the certificate of the proxy in front is signed, e.g. `RSA-SHA256`.
    #[must_use]
    pub fn signature_algorithm(&self) -> Option<&'a str> {
        self.get(kind::SSL_SIG_ALG)
    }

    /// The key of that certificate, e.g. `RSA2048`.
    #[must_use]
    pub fn key_algorithm(&self) -> Option<&'a str> {
        self.get(kind::SSL_KEY_ALG)
    }

    fn get(&self, kind: u8) -> Option<&'a str> {
        text(TlvIter(Reader::new(self.sub)).find(|tlv| tlv.kind == kind)?.value)
    }
}

/// Compares the checksum at `at` with that of the header, in which its four bytes count as zeros.
fn verify_checksum(whole: &[u8], at: usize) -> Result<(), ProxyError> {
    let (before, rest) = whole.split_at(at);
    let (stored, after) = rest.split_at(4);
    if checksum(before, after).to_be_bytes() == stored { Ok(()) } else { Err(ProxyError::Checksum) }
}

/// CRC32C of a header whose four bytes between `before` and `after` are zeros.
pub(super) fn checksum(before: &[u8], after: &[u8]) -> u32 {
    debug_assert!(before.starts_with(v2::SIGNATURE), "the whole header counts");
    let crc = crc32c::crc32c_append(crc32c::crc32c(before), &[0; 4]);
    crc32c::crc32c_append(crc, after)
}

fn text(value: &[u8]) -> Option<&str> {
    str::from_utf8(value).ok()
}

/// Bytes of the longest unique id.
pub(super) const MAX_UNIQUE_ID: usize = 128;
