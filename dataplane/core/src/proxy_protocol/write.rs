//! Makes headers for backends.
//!
//! Addresses of two families, of which one is then IPv4, are written as TCP6 with that one IPv4-mapped, in
//! both versions: nothing is lost, and `UNKNOWN` is refused by some receivers (section 2.1).

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::tlv::{MAX_UNIQUE_ID, checksum};
use super::{Tlvs, canonical, kind, v2};
use crate::model::{CustomTlv, ProxyOut, TlvsOut};

/// What is known of a connection when its backend is connected.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The true client.
    pub source: SocketAddr,
    /// Where the client connected to.
    pub destination: SocketAddr,
    /// The first protocol that the client offered.
    pub alpn: Option<&'a [u8]>,
    /// The name that the client asked for.
    pub authority: Option<&'a str>,
    /// The connection's id as in the log.
    pub id: &'a str,
    /// What came in with the client's own header.
    pub incoming: Option<&'a Tlvs>,
}

/// The content of a version 2 header.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// The true client.
    pub source: SocketAddr,
    /// Where the client connected to.
    pub destination: SocketAddr,
    /// PP2_TYPE_ALPN.
    pub alpn: Option<&'a [u8]>,
    /// PP2_TYPE_AUTHORITY.
    pub authority: Option<&'a str>,
    /// PP2_TYPE_UNIQUE_ID; one of more than 128 bytes is left out.
    pub unique_id: Option<&'a [u8]>,
    /// Custom types with their values.
    pub custom: &'a [CustomTlv],
    /// TLVs passed on: all but padding, the checksum, and types that are set above.
    pub pass: Option<&'a Tlvs>,
    /// PP2_TYPE_CRC32C.
    pub crc32c: bool,
}

/// Appends the header that a backend is to be sent, as it is configured.
pub fn write(out: &mut Vec<u8>, form: ProxyOut, wanted: &TlvsOut, facts: &Facts<'_>) {
    match form {
        ProxyOut::Off => {}
        ProxyOut::V1 => write_v1(out, facts.source, facts.destination),
        ProxyOut::V2 => {
            let came_in = facts.incoming.and_then(Tlvs::unique_id);
            let outgoing = Outgoing {
                source: facts.source,
                destination: facts.destination,
                alpn: facts.alpn.filter(|_| wanted.alpn),
                authority: facts.authority.filter(|_| wanted.authority),
                unique_id: wanted.unique_id.then(|| came_in.unwrap_or(facts.id.as_bytes())),
                custom: &wanted.custom,
                pass: facts.incoming.filter(|_| wanted.pass),
                crc32c: wanted.crc32c,
            };
            write_v2(out, &outgoing);
        }
    }
}

/// Appends the header for a connection of our own, a health check, from `local` to `peer`: in version 2
/// `LOCAL`; version 1 has no word for it and the specification wants the connection's own addresses.
pub fn write_for_check(out: &mut Vec<u8>, form: ProxyOut, local: SocketAddr, peer: SocketAddr) {
    match form {
        ProxyOut::Off => {}
        ProxyOut::V1 => write_v1(out, local, peer),
        ProxyOut::V2 => {
            out.extend(v2::SIGNATURE);
            out.extend([0x20, 0, 0, 0]);
        }
    }
}

/// Appends a line of version 1, at most 104 bytes.
pub fn write_v1(out: &mut Vec<u8>, source: SocketAddr, destination: SocketAddr) {
    match same_family(source.ip(), destination.ip()) {
        Pair::V4(source, destination) => write!(out, "PROXY TCP4 {source} {destination}").expect(TO_MEMORY),
        Pair::V6(source, destination) => {
            out.extend(b"PROXY TCP6 ");
            write_ipv6(out, source);
            out.push(b' ');
            write_ipv6(out, destination);
        }
    }
    write!(out, " {} {}\r\n", source.port(), destination.port()).expect(TO_MEMORY);
}

/// Appends a header of version 2. Passed TLVs for which the header's 65535 bytes have no room are left out.
pub fn write_v2(out: &mut Vec<u8>, outgoing: &Outgoing<'_>) {
    let start = out.len();
    out.extend(v2::SIGNATURE);
    let pair = same_family(outgoing.source.ip(), outgoing.destination.ip());
    // Version 2, PROXY; the stream of a family; the length, when it is known.
    out.extend([0x21, if matches!(pair, Pair::V4(..)) { 0x11 } else { 0x21 }, 0, 0]);
    match pair {
        Pair::V4(source, destination) => out.extend([source.octets(), destination.octets()].as_flattened()),
        Pair::V6(source, destination) => out.extend([source.octets(), destination.octets()].as_flattened()),
    }
    out.extend(outgoing.source.port().to_be_bytes());
    out.extend(outgoing.destination.port().to_be_bytes());
    write_tlvs(out, start, outgoing);
    if outgoing.crc32c {
        push_tlv(out, start, kind::CRC32C, &[0; 4]);
    }
    let len = u16::try_from(out.len() - start - v2::HEADER).expect("push_tlv keeps the bound");
    out[start + v2::HEADER - 2..start + v2::HEADER].copy_from_slice(&len.to_be_bytes());
    if outgoing.crc32c {
        let end = out.len();
        let crc = checksum(&out[start..end - 4], &[]);
        out[end - 4..].copy_from_slice(&crc.to_be_bytes());
    }
}

fn write_tlvs(out: &mut Vec<u8>, start: usize, outgoing: &Outgoing<'_>) {
    let own = [
        (kind::ALPN, outgoing.alpn),
        (kind::AUTHORITY, outgoing.authority.map(str::as_bytes)),
        (kind::UNIQUE_ID, outgoing.unique_id.filter(|id| id.len() <= MAX_UNIQUE_ID)),
    ];
    for (kind, value) in own {
        if let Some(value) = value {
            push_tlv(out, start, kind, value);
        }
    }
    for custom in outgoing.custom {
        push_tlv(out, start, custom.kind, custom.value.as_bytes());
    }
    for tlv in outgoing.pass.into_iter().flatten() {
        let made_here = own.iter().any(|(kind, value)| *kind == tlv.kind && value.is_some())
            || outgoing.custom.iter().any(|custom| custom.kind == tlv.kind);
        if !made_here && !matches!(tlv.kind, kind::CRC32C | kind::NOOP) {
            push_tlv(out, start, tlv.kind, tlv.value);
        }
    }
}

/// Appends a TLV where it, and a checksum after it, fits into the header that began at `start`.
fn push_tlv(out: &mut Vec<u8>, start: usize, kind: u8, value: &[u8]) {
    let reserved = if kind == kind::CRC32C { 0 } else { CHECKSUM_TLV };
    let after = out.len() - start - v2::HEADER + TLV_HEADER + value.len() + reserved;
    let Some(len) = u16::try_from(value.len()).ok().filter(|_| after <= usize::from(u16::MAX)) else {
        return;
    };
    out.push(kind);
    out.extend(len.to_be_bytes());
    out.extend(value);
}

/// Two addresses of one family.
enum Pair {
    V4(Ipv4Addr, Ipv4Addr),
    V6(Ipv6Addr, Ipv6Addr),
}

/// Brings two addresses to one family: IPv4 where both are.
fn same_family(source: IpAddr, destination: IpAddr) -> Pair {
    let canonical = |ip| canonical(SocketAddr::new(ip, 0)).ip();
    let as_v6 = |ip| match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    match (canonical(source), canonical(destination)) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => Pair::V4(source, destination),
        (source, destination) => Pair::V6(as_v6(source), as_v6(destination)),
    }
}

/// IPv6 in hexadecimal only, as version 1 wants it; the standard form of mapped addresses ends in decimals.
fn write_ipv6(out: &mut Vec<u8>, ip: Ipv6Addr) {
    if ip.to_ipv4_mapped().is_some() {
        let [.., high, low] = ip.segments();
        write!(out, "::ffff:{high:x}:{low:x}").expect(TO_MEMORY);
    } else {
        write!(out, "{ip}").expect(TO_MEMORY);
    }
}

const TO_MEMORY: &str = "writing to memory does not fail";
/// Type and length.
const TLV_HEADER: usize = 3;
const CHECKSUM_TLV: usize = TLV_HEADER + 4;
