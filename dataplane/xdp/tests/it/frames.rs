//! Frames as tests need them, byte by byte.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Who sends, to whom.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flow {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
}

/// What stands between the Ethernet and the TCP header, besides IP.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shape {
    /// Types of VLAN tags, the outer first.
    pub(crate) tags: Vec<u16>,
    /// Options of IPv4, a multiple of four bytes.
    pub(crate) options: Vec<u8>,
    /// Fragment field of IPv4: flags and offset.
    pub(crate) fragment: u16,
    /// Extension headers of IPv6: type, and bytes of which the first is filled in.
    pub(crate) extensions: Vec<(u8, Vec<u8>)>,
    /// What follows the TCP header.
    pub(crate) payload: Vec<u8>,
}

pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
pub(crate) const ACK: u8 = 0x10;

/// The options of a Linux client's SYN: MSS, SACK, timestamps, window scale.
pub(crate) const SYN_OPTIONS: [u8; 20] =
    [2, 4, 0x05, 0xb4, 4, 2, 8, 10, 0, 0, 0x12, 0x34, 0, 0, 0, 0, 1, 3, 3, 7];

/// A TCP header with these flags and options, without a checksum.
pub(crate) fn tcp(port: u16, flags: u8, options: &[u8]) -> Vec<u8> {
    let mut header = Vec::new();
    header.extend(40_000_u16.to_be_bytes());
    header.extend(port.to_be_bytes());
    header.extend(0x1122_3344_u32.to_be_bytes());
    header.extend(0_u32.to_be_bytes());
    header.push(u8::try_from((20 + options.len()) / 4).unwrap() << 4);
    header.push(flags);
    header.extend([0xff, 0xff, 0, 0, 0, 0]);
    header.extend(options);
    header
}

/// The whole frame.
pub(crate) fn frame(flow: Flow, shape: &Shape, tcp: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2];
    for tag in &shape.tags {
        frame.extend(tag.to_be_bytes());
        frame.extend([0, 42]);
    }
    let body: Vec<u8> = tcp.iter().chain(&shape.payload).copied().collect();
    match (flow.source, flow.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            frame.extend(0x0800_u16.to_be_bytes());
            frame.extend(ipv4(source, destination, shape, &body));
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            frame.extend(0x86dd_u16.to_be_bytes());
            frame.extend(ipv6(source, destination, shape, &body));
        }
        _ => panic!("{flow:?} is of two families"),
    }
    frame
}

fn ipv4(source: Ipv4Addr, destination: Ipv4Addr, shape: &Shape, body: &[u8]) -> Vec<u8> {
    let len = 20 + shape.options.len();
    let mut packet = vec![0x40 | u8::try_from(len / 4).unwrap(), 0];
    packet.extend(u16::try_from(len + body.len()).unwrap().to_be_bytes());
    packet.extend([0x12, 0x34]);
    packet.extend(shape.fragment.to_be_bytes());
    packet.extend([64, 6, 0, 0]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend(&shape.options);
    packet.extend(body);
    packet
}

fn ipv6(source: Ipv6Addr, destination: Ipv6Addr, shape: &Shape, body: &[u8]) -> Vec<u8> {
    let extensions: usize = shape.extensions.iter().map(|(_, bytes)| bytes.len()).sum();
    let mut kinds = shape.extensions.iter().map(|(kind, _)| *kind).chain([6]);
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(u16::try_from(extensions + body.len()).unwrap().to_be_bytes());
    packet.extend([kinds.next().unwrap(), 64]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    for ((_, bytes), next) in shape.extensions.iter().zip(kinds) {
        packet.push(next);
        packet.extend(&bytes[1..]);
    }
    packet.extend(body);
    packet
}

/// An extension header of IPv6 of so many bytes, a multiple of eight, with its length where it has one.
pub(crate) fn extension(kind: u8, len: usize) -> (u8, Vec<u8>) {
    let mut bytes = vec![0; len];
    bytes[1] = match kind {
        44 => 0,
        51 => u8::try_from(len / 4 - 2).unwrap(),
        _ => u8::try_from(len / 8 - 1).unwrap(),
    };
    (kind, bytes)
}
