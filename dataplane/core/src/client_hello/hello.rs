//! The ClientHello message itself: what a router needs of it (RFC 8446, section 4.1.2).

use std::net::{IpAddr, Ipv6Addr};

use super::{CLIENT_HELLO, HANDSHAKE, Malformed, RECORD_HEADER};
use crate::hostname::HostName;
use crate::read::Reader;

/// A complete ClientHello, borrowed from the bytes received or from the parser.
#[derive(Clone, Debug)]
pub struct Hello<'a> {
    record_bytes: usize,
    legacy_version: u16,
    session_id: &'a [u8],
    cipher_suites: &'a [u8],
    name: Option<HostName>,
    ip_literal: Option<IpAddr>,
    alpn: &'a [u8],
    versions: &'a [u8],
    ech: bool,
}

/// The protocols that a client offers, the most wanted first.
#[derive(Clone, Copy, Debug)]
pub struct Alpn<'a>(Reader<'a>);

/// The versions of TLS that a client offers.
#[derive(Clone, Copy, Debug)]
pub struct Versions<'a>(Reader<'a>);

impl<'a> Hello<'a> {
    /// Reads the body of the message, which took `record_bytes` bytes of records.
    pub(super) fn read(body: &'a [u8], record_bytes: usize) -> Result<Self, Malformed> {
        let mut body = Reader::new(body);
        let legacy_version = body.u16().ok_or(Malformed::Truncated("version"))?;
        body.take(RANDOM).ok_or(Malformed::Truncated("random"))?;
        let session_id = body.vec8().ok_or(Malformed::Truncated("session id"))?;
        if session_id.len() > 32 {
            return Err(Malformed::BadLength("session id"));
        }
        let cipher_suites = body.vec16().ok_or(Malformed::Truncated("cipher suites"))?;
        if cipher_suites.is_empty() || !cipher_suites.len().is_multiple_of(2) {
            return Err(Malformed::BadLength("cipher suites"));
        }
        if body.vec8().ok_or(Malformed::Truncated("compression methods"))?.is_empty() {
            return Err(Malformed::BadLength("compression methods"));
        }
        let mut hello = Self {
            record_bytes,
            legacy_version,
            session_id,
            cipher_suites,
            name: None,
            ip_literal: None,
            alpn: &[],
            versions: &[],
            ech: false,
        };
        // A client before TLS 1.3 may leave the extensions out altogether (RFC 5246, section 7.4.1.2).
        if !body.is_empty() {
            hello.read_extensions(body.vec16().ok_or(Malformed::Truncated("extensions"))?)?;
        }
        if body.is_empty() { Ok(hello) } else { Err(Malformed::BadLength("extensions")) }
    }

    fn read_extensions(&mut self, block: &'a [u8]) -> Result<(), Malformed> {
        let mut block = Reader::new(block);
        let mut seen = Seen::default();
        while !block.is_empty() {
            let kind = block.u16().ok_or(Malformed::Truncated("extensions"))?;
            let body = block.vec16().ok_or(Malformed::Truncated("extensions"))?;
            if !seen.insert(kind) {
                return Err(Malformed::DuplicateExtension(kind));
            }
            match kind {
                SERVER_NAME => self.read_server_name(body)?,
                ALPN => self.alpn = read_alpn(body)?,
                SUPPORTED_VERSIONS => self.versions = read_versions(body)?,
                ENCRYPTED_CLIENT_HELLO => self.ech = true,
                // Unknown extensions and GREASE mean nothing here and must be ignored (RFC 8701).
                _ => {}
            }
        }
        Ok(())
    }

    fn read_server_name(&mut self, body: &[u8]) -> Result<(), Malformed> {
        let raw = host_name(body)?;
        match HostName::parse(raw) {
            Ok(name) => self.name = Some(name),
            // RFC 6066 forbids addresses, yet clients send them; they are served as if they had sent nothing.
            Err(error) => self.ip_literal = Some(ip_literal(raw).ok_or(Malformed::BadHostName(error))?),
        }
        Ok(())
    }

    /// The name that is asked for, to be routed by: `None` where the client sent none or an IP address.
    #[must_use]
    pub const fn server_name(&self) -> Option<&HostName> {
        self.name.as_ref()
    }

    /// The IP address that was sent in place of a name, for the log.
    #[must_use]
    pub const fn ip_literal(&self) -> Option<IpAddr> {
        self.ip_literal
    }

    /// The application protocols that are offered, in the client's order (RFC 7301).
    #[must_use]
    pub const fn alpn(&self) -> Alpn<'a> {
        Alpn(Reader::new(self.alpn))
    }

    /// The versions of supported_versions (RFC 8446, section 4.2.1), GREASE included; nothing where a client
    /// up to TLS 1.2 did not send it.
    #[must_use]
    pub const fn supported_versions(&self) -> Versions<'a> {
        Versions(Reader::new(self.versions))
    }

    /// Whether Encrypted Client Hello is there: the name is then that of the outer hello (RFC 9849).
    #[must_use]
    pub const fn has_ech(&self) -> bool {
        self.ech
    }

    /// The legacy_version field: the highest version of a client up to TLS 1.2, 0x0303 from then on.
    #[must_use]
    pub const fn legacy_version(&self) -> u16 {
        self.legacy_version
    }

    /// The legacy_session_id field, at most 32 bytes.
    #[must_use]
    pub const fn session_id(&self) -> &'a [u8] {
        self.session_id
    }

    /// The cipher suites, two bytes each.
    #[must_use]
    pub const fn cipher_suites(&self) -> &'a [u8] {
        self.cipher_suites
    }

    /// Bytes of TLS records, from the first byte received, that the hello takes.
    #[must_use]
    pub const fn record_bytes(&self) -> usize {
        self.record_bytes
    }
}

impl<'a> Iterator for Alpn<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<Self::Item> {
        self.0.vec8()
    }
}

impl Iterator for Versions<'_> {
    type Item = u16;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.u16()
    }
}

/// The name that was asked for, as far as it can be read from a hello that is incomplete or was refused.
/// For the log: printable ASCII, anything else escaped, at most [`HostName::MAX`] bytes of the original.
#[must_use]
pub fn asked_name(received: &[u8]) -> Option<String> {
    let mut records = Reader::new(received);
    let mut message = Vec::new();
    while let Some(&[HANDSHAKE, 3, _, high, low]) = records.array::<RECORD_HEADER>() {
        let len = usize::from(u16::from_be_bytes([high, low]));
        match records.take(len) {
            Some(payload) => message.extend_from_slice(payload),
            None => message.extend_from_slice(records.take_rest()),
        }
    }
    // What stands behind the hello, or behind its extensions, nobody asked for.
    let mut message = Reader::new(&message);
    let &[CLIENT_HELLO, high, middle, low] = message.array::<4>()? else { return None };
    let len = u32::from_be_bytes([0, high, middle, low]);
    let mut body = Reader::new(at_most(message.take_rest(), len));
    body.take(VERSION + RANDOM)?;
    body.vec8()?;
    body.vec16()?;
    body.vec8()?;
    let len = body.u16()?;
    let mut extensions = Reader::new(at_most(body.take_rest(), len.into()));
    loop {
        let kind = extensions.u16()?;
        let extension = extensions.vec16()?;
        if kind == SERVER_NAME {
            let name = host_name(extension).ok()?;
            return Some(name[..name.len().min(HostName::MAX)].escape_ascii().to_string());
        }
    }
}

/// As many of these bytes as are said to belong together, or fewer where they have not come.
fn at_most(bytes: &[u8], len: u32) -> &[u8] {
    &bytes[..bytes.len().min(usize::try_from(len).unwrap_or(usize::MAX))]
}

/// The one host_name of a server_name extension (RFC 6066, section 3).
fn host_name(extension: &[u8]) -> Result<&[u8], Malformed> {
    let mut extension = Reader::new(extension);
    let list = extension.vec16().ok_or(Malformed::Truncated("server_name"))?;
    if list.is_empty() || !extension.is_empty() {
        return Err(Malformed::BadLength("server_name"));
    }
    let mut list = Reader::new(list);
    let mut found = None;
    while let Some(HOST_NAME) = list.u8() {
        let name = list.vec16().ok_or(Malformed::Truncated("server_name"))?;
        if name.is_empty() {
            return Err(Malformed::BadLength("server_name"));
        }
        if found.replace(name).is_some() {
            return Err(Malformed::SeveralHostNames);
        }
    }
    // A name of an unknown type ends the list: its length cannot be known.
    found.ok_or(Malformed::NoHostName)
}

/// An IP address, as clients write it where a name belongs: with or without brackets, also with a final dot.
fn ip_literal(raw: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(raw).ok()?;
    match text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        Some(inner) => inner.parse().ok().map(|address: Ipv6Addr| address.into()),
        None => text.strip_suffix('.').unwrap_or(text).parse().ok(),
    }
}

/// The list inside an ALPN extension (RFC 7301, section 3.1): at least one name, none of them empty.
fn read_alpn(extension: &[u8]) -> Result<&[u8], Malformed> {
    let mut extension = Reader::new(extension);
    let list = extension.vec16().ok_or(Malformed::Truncated("ALPN extension"))?;
    let mut names = Reader::new(list);
    while !names.is_empty() {
        if names.vec8().ok_or(Malformed::Truncated("ALPN extension"))?.is_empty() {
            return Err(Malformed::BadLength("ALPN extension"));
        }
    }
    if list.is_empty() || !extension.is_empty() {
        return Err(Malformed::BadLength("ALPN extension"));
    }
    Ok(list)
}

/// The list inside a supported_versions extension (RFC 8446, section 4.2.1).
fn read_versions(extension: &[u8]) -> Result<&[u8], Malformed> {
    let mut extension = Reader::new(extension);
    let list = extension.vec8().ok_or(Malformed::Truncated("supported_versions"))?;
    if list.is_empty() || !list.len().is_multiple_of(2) || !extension.is_empty() {
        return Err(Malformed::BadLength("supported_versions"));
    }
    Ok(list)
}

/// Extension types that were there. Real hellos have about twenty, most of them below 64; a hostile one may
/// have sixteen thousand, which must not cost their square.
#[derive(Default)]
struct Seen {
    low: u64,
    few: [u16; 32],
    few_len: usize,
    many: Option<Box<[u64; 1024]>>,
}

impl Seen {
    /// False where it was there.
    fn insert(&mut self, kind: u16) -> bool {
        if kind < 64 {
            return set_bit(&mut self.low, kind);
        }
        if let Some(many) = &mut self.many {
            return set_bit(&mut many[usize::from(kind / 64)], kind);
        }
        if self.few[..self.few_len].contains(&kind) {
            return false;
        }
        if let Some(free) = self.few.get_mut(self.few_len) {
            *free = kind;
            self.few_len += 1;
            return true;
        }
        let many = self.many.insert(Box::new([0; 1024]));
        for &kind in self.few.iter().chain([&kind]) {
            set_bit(&mut many[usize::from(kind / 64)], kind);
        }
        true
    }
}

/// Sets a bit by the low six bits of `index`; false where it was set.
fn set_bit(word: &mut u64, index: u16) -> bool {
    let bit = 1 << (index % 64);
    let new = *word & bit == 0;
    *word |= bit;
    new
}

const VERSION: usize = 2;
const RANDOM: usize = 32;
const HOST_NAME: u8 = 0;
const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;
const SUPPORTED_VERSIONS: u16 = 43;
const ENCRYPTED_CLIENT_HELLO: u16 = 0xfe0d;
