//! The PROXY protocol, versions 1 and 2: who the client really is, told by the proxy in front of us and told
//! to the backend behind us.
//!
//! [`parse`] is given all bytes received so far and says whether they are a header, could become one, or are
//! none; [`write()`] makes the header for a backend. Both are plain functions over bytes. Who may send a
//! header is the caller's to judge (the specification's section 2 and 5): this module believes nobody.
//!
//! Left out: headers for datagrams (a UDP or UNIX address counts as none), and the content of headers that
//! say LOCAL or UNSPEC, which the specification has ignored.
//!
//! Specification: "The PROXY protocol, versions 1 & 2", doc/proxy-protocol.txt of HAProxy.

#[cfg(test)]
mod tests;
mod tlv;
mod v1;
mod v2;
mod write;

use std::net::SocketAddr;

pub use tlv::{Ssl, Tlv, TlvIter, Tlvs, kind};
pub use write::{Facts, Outgoing, write, write_for_check, write_v1, write_v2};

/// What the bytes are so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// A header may be there, but is not complete.
    NeedMore {
        /// Bytes from the start that must be there before another call can say more.
        at_least: usize,
    },
    /// No header: neither signature matches. Said as soon as it is certain, for a TLS record at its first byte.
    NotProxy,
    /// A header.
    Done {
        /// What it says.
        header: Header,
        /// Bytes it takes; what follows is the client's.
        len: usize,
    },
}

/// What a PROXY header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Which form it had.
    pub version: Version,
    /// Relayed, or the proxy's own connection.
    pub command: Command,
    /// Where the connection came from and where it went. `None` for LOCAL, UNKNOWN, UNSPEC, UNIX and
    /// datagrams: then the addresses of the connection itself are the true ones.
    pub addresses: Option<Addresses>,
    /// What else was said, in version 2.
    pub tlvs: Tlvs,
}

/// Both ends of a relayed connection. An IPv4 address that was written as IPv4-mapped IPv6 is IPv4 here, so
/// that a rule for its network meets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// The client.
    pub source: SocketAddr,
    /// Where the client connected to.
    pub destination: SocketAddr,
}

/// The form of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// Why there is a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// The proxy opened it for itself, e.g. a health check. Version 1 has no word for it.
    Local,
    /// The proxy relays it for a client.
    Proxy,
}

/// Why a header is refused. The signature was right, so this is nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    /// No CR LF within the first 107 bytes, or a CR or LF alone.
    #[error("the PROXY line does not end in CR LF within 107 bytes")]
    LineEnd,
    /// The line has other words than the protocol's.
    #[error("the PROXY line has no valid {0}")]
    Line(&'static str),
    /// The version's nibble is not 2.
    #[error("the binary PROXY header has version {0}, only 2 exists")]
    Version(u8),
    /// The command's nibble is neither 0 nor 1.
    #[error("the PROXY header has the unassigned command {0}")]
    Command(u8),
    /// An address family or transport that is not assigned.
    #[error("the PROXY header has the unassigned family and transport {0:#04x}")]
    Family(u8),
    /// The block is too short for its addresses.
    #[error("the PROXY header is too short for its addresses")]
    AddressLength,
    /// A TLV leads beyond the end.
    #[error("a TLV of the PROXY header is cut off")]
    TlvLength,
    /// A TLV of this type cannot have this length, or is there twice where it must not.
    #[error("the PROXY header has an impossible TLV of type {0:#04x}")]
    Tlv(u8),
    /// The checksum does not match.
    #[error("the PROXY header's CRC32C does not match")]
    Checksum,
}

/// Looks at all bytes received so far, from the first byte of the connection.
///
/// # Errors
/// The signature is that of a header, but it is malformed.
pub fn parse(received: &[u8]) -> Result<Progress, ProxyError> {
    if received.starts_with(v2::SIGNATURE) {
        v2::parse(received)
    } else if received.starts_with(v1::SIGNATURE) {
        v1::parse(received)
    } else if v2::SIGNATURE.starts_with(received) || v1::SIGNATURE.starts_with(received) {
        Ok(Progress::NeedMore { at_least: received.len() + 1 })
    } else {
        Ok(Progress::NotProxy)
    }
}

/// Addresses in the form in which everything else compares them.
fn addresses(source: SocketAddr, destination: SocketAddr) -> Addresses {
    Addresses { source: canonical(source), destination: canonical(destination) }
}

/// IPv4-mapped addresses as IPv4, and without the scope and flow that no header carries.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
