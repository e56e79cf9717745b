//! Reads the binary header of version 2 (section 2.2 of the specification).

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Addresses, Command, Header, Progress, ProxyError, Tlvs, Version, addresses};
use crate::read::Reader;

/// Reads a header that starts with [`SIGNATURE`].
pub(super) fn parse(received: &[u8]) -> Result<Progress, ProxyError> {
    let mut reader = Reader::new(&received[SIGNATURE.len()..]);
    // Each byte is judged as soon as it is there.
    let one_more = Ok(Progress::NeedMore { at_least: received.len() + 1 });
    let command = match reader.u8() {
        None => return one_more,
        Some(0x20) => Command::Local,
        Some(0x21) => Command::Proxy,
        Some(byte) if byte >> 4 == 2 => return Err(ProxyError::Command(byte & 15)),
        Some(byte) => return Err(ProxyError::Version(byte >> 4)),
    };
    let family = match reader.u8() {
        None => return one_more,
        Some(family) if family >> 4 <= 3 && family & 15 <= 2 => family,
        // LOCAL has the family ignored.
        Some(_) if command == Command::Local => 0,
        Some(family) => return Err(ProxyError::Family(family)),
    };
    let Some(len) = reader.u16() else { return Ok(Progress::NeedMore { at_least: HEADER }) };
    let end = HEADER + usize::from(len);
    let Some(whole) = received.get(..end) else { return Ok(Progress::NeedMore { at_least: end }) };
    let (addresses, tlvs) =
        if command == Command::Local { (None, Tlvs::default()) } else { block(family, whole)? };
    Ok(Progress::Done { header: Header { version: Version::V2, command, addresses, tlvs }, len: end })
}

/// Reads the addresses and the TLVs of a whole header.
fn block(family: u8, whole: &[u8]) -> Result<(Option<Addresses>, Tlvs), ProxyError> {
    let mut block = Reader::new(&whole[HEADER..]);
    let addresses = match (family >> 4, family & 15) {
        // There may be addresses of a kind nobody knows, so nobody knows where TLVs would start.
        (0, _) | (_, 0) => return Ok((None, Tlvs::default())),
        (1, stream) => ipv4(&mut block).map(|addresses| (stream == STREAM).then_some(addresses)),
        (2, stream) => ipv6(&mut block).map(|addresses| (stream == STREAM).then_some(addresses)),
        _ => block.take(UNIX_ADDRESSES).map(|_| None),
    };
    let addresses = addresses.ok_or(ProxyError::AddressLength)?;
    let start = whole.len() - block.take_rest().len();
    Ok((addresses, Tlvs::read(whole, start)?))
}

fn ipv4(block: &mut Reader<'_>) -> Option<Addresses> {
    let (source, destination) = (Ipv4Addr::from(*block.array()?), Ipv4Addr::from(*block.array()?));
    let (source_port, destination_port) = (block.u16()?, block.u16()?);
    let end = |ip: Ipv4Addr, port| SocketAddr::new(ip.into(), port);
    Some(addresses(end(source, source_port), end(destination, destination_port)))
}

fn ipv6(block: &mut Reader<'_>) -> Option<Addresses> {
    let (source, destination) =
        (Ipv6Addr::from(*block.array::<16>()?), Ipv6Addr::from(*block.array::<16>()?));
    let (source_port, destination_port) = (block.u16()?, block.u16()?);
    let end = |ip: Ipv6Addr, port| SocketAddr::new(ip.into(), port);
    Some(addresses(end(source, source_port), end(destination, destination_port)))
}

/// Seeing it means that this is version 2.
pub(super) const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family and transport, length.
pub(super) const HEADER: usize = 16;
/// Transport: a stream, not datagrams.
const STREAM: u8 = 1;
/// Two paths of 108 bytes.
const UNIX_ADDRESSES: usize = 216;
