//! Reads an Ethernet frame as far as the firewall has to: who sends to which port, and what the TCP header says.
//!
//! What is read: up to two VLAN tags (IEEE 802.1Q, 802.1ad), IPv4 with options and fragments (RFC 791), IPv6 with up
//! to [`MAX_EXTENSIONS`] extension headers (RFC 8200, section 4), TCP (RFC 9293). A frame that the kernel's own stack
//! would not take for TCP is nobody's business here. What could be TCP for one of our listeners and cannot be read to
//! the end is told as such, so that nothing gets around the firewall by being hard to read.
//!
//! Left out: checksums, which the kernel verifies, and every fragment but the first: without the first, which is
//! judged, no packet comes of the others.

use crate::bucket::Source;

/// A frame, or the part of it that lies in one piece.
pub trait Frame {
    /// Bytes that were looked for and found.
    type Window: Window;
    /// The `N` bytes from `at`, where they lie in one piece.
    fn window<const N: usize>(&self, at: usize) -> Option<Self::Window>;
    /// Whether the frame is so long, also where it does not lie in one piece.
    fn reaches(&self, end: usize) -> bool;
}

/// Bytes of a frame, read in network order. `AT` lies within what was asked for, aligned to what is read.
pub trait Window {
    /// One byte.
    fn u8<const AT: usize>(&self) -> u8;
    /// Two bytes.
    fn u16<const AT: usize>(&self) -> u16;
    /// Four bytes.
    fn u32<const AT: usize>(&self) -> u32;
}

/// A packet of TCP whose header starts in this frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Who sends it.
    pub source: Source,
    /// To whom.
    pub destination: Source,
    /// Where its IP header starts.
    pub network_at: usize,
    /// Where its TCP header starts.
    pub tcp_at: usize,
    /// Where the packet ends: what follows in the frame is not of it.
    pub end: usize,
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// Nothing that could reach a listener.
    Other,
    /// A packet of TCP.
    Tcp(Packet),
    /// A packet of IP to this address that may be TCP behind what cannot be read.
    Hidden(Source),
}

/// The ports of a packet, which are there in all that the kernel would look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// Whose.
    pub source: u16,
    /// To which.
    pub destination: u16,
}

/// What a TCP header says of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment {
    /// It asks for one.
    Syn,
    /// It belongs to one, or says so.
    Other,
    /// No sender of good will makes it: too short for itself, or with flags that contradict each other.
    Malformed,
}

/// Extension headers of IPv6 that are read. Real packets have one or two.
pub const MAX_EXTENSIONS: usize = 8;

/// Length of a TCP header without options.
pub const TCP_HEADER: usize = 20;

const ETHERNET: usize = 14;
const VLAN: usize = 4;
const IPV4: usize = 20;
const IPV6: usize = 40;

const TYPE_VLAN: u16 = 0x8100;
const TYPE_QINQ: u16 = 0x88a8;
const TYPE_IPV4: u16 = 0x0800;
const TYPE_IPV6: u16 = 0x86dd;

const TCP: u8 = 6;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;
const MOBILITY: u8 = 135;
const HIP: u8 = 139;
const SHIM6: u8 = 140;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// Finds the TCP header.
#[inline(always)]
pub fn parse(frame: &impl Frame) -> Parsed {
    let Some(ethernet) = frame.window::<ETHERNET>(0) else { return Parsed::Other };
    let (mut at, mut kind) = (ETHERNET, ethernet.u16::<12>());
    if kind == TYPE_VLAN || kind == TYPE_QINQ {
        let Some(tag) = frame.window::<VLAN>(at) else { return Parsed::Other };
        (at, kind) = (at + VLAN, tag.u16::<2>());
        if kind == TYPE_VLAN || kind == TYPE_QINQ {
            let Some(tag) = frame.window::<VLAN>(at) else { return Parsed::Other };
            (at, kind) = (at + VLAN, tag.u16::<2>());
        }
    }
    match kind {
        TYPE_IPV4 => ipv4(frame, at),
        TYPE_IPV6 => ipv6(frame, at),
        _ => Parsed::Other,
    }
}

#[inline(always)]
fn ipv4(frame: &impl Frame, at: usize) -> Parsed {
    let Some(header) = frame.window::<IPV4>(at) else { return Parsed::Other };
    let first = header.u8::<0>();
    let header_len = usize::from(first & 0xf) * 4;
    let total_len = usize::from(header.u16::<2>());
    let offset = header.u16::<6>() & 0x1fff;
    if first >> 4 != 4 || header_len < IPV4 || total_len < header_len || !frame.reaches(at + total_len) {
        return Parsed::Other;
    }
    if header.u8::<9>() != TCP || offset != 0 {
        return Parsed::Other;
    }
    Parsed::Tcp(Packet {
        source: Source::v4(header.u32::<12>()),
        destination: Source::v4(header.u32::<16>()),
        network_at: at,
        tcp_at: at + header_len,
        end: at + total_len,
    })
}

#[inline(always)]
fn ipv6(frame: &impl Frame, at: usize) -> Parsed {
    let Some(header) = frame.window::<IPV6>(at) else { return Parsed::Other };
    let payload_len = usize::from(header.u16::<4>());
    let end = at + IPV6 + payload_len;
    // A length of 0 would be a jumbogram's (RFC 2675): no network carries TCP so.
    if header.u8::<0>() >> 4 != 6 || payload_len == 0 || !frame.reaches(end) {
        return Parsed::Other;
    }
    let word = |high: u32, low: u32| u64::from(high) << 32 | u64::from(low);
    let source =
        Source::v6(word(header.u32::<8>(), header.u32::<12>()), word(header.u32::<16>(), header.u32::<20>()));
    let destination = Source::v6(
        word(header.u32::<24>(), header.u32::<28>()),
        word(header.u32::<32>(), header.u32::<36>()),
    );
    let (mut next, mut tcp_at, mut is_fragment) = (header.u8::<6>(), at + IPV6, false);
    for _ in 0..=MAX_EXTENSIONS {
        match next {
            TCP => {
                // The first fragment holds all headers (RFC 7112), and what does not is made to be misread.
                return if is_fragment && tcp_at + TCP_HEADER > end {
                    Parsed::Hidden(destination)
                } else {
                    Parsed::Tcp(Packet { source, destination, network_at: at, tcp_at, end })
                };
            }
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS | FRAGMENT | AUTHENTICATION | MOBILITY | HIP
            | SHIM6 => {}
            _ => return Parsed::Other,
        }
        if tcp_at + 8 > end {
            // Whole packets that end so are refused by the kernel.
            return if is_fragment { Parsed::Hidden(destination) } else { Parsed::Other };
        }
        let Some(extension) = frame.window::<8>(tcp_at) else { return Parsed::Hidden(destination) };
        let len = usize::from(extension.u8::<1>());
        tcp_at += match next {
            FRAGMENT => {
                if extension.u16::<2>() >> 3 != 0 {
                    return Parsed::Other;
                }
                is_fragment = true;
                8
            }
            // RFC 4302, section 2.2.
            AUTHENTICATION => (len + 2) * 4,
            _ => (len + 1) * 8,
        };
        next = extension.u8::<0>();
    }
    Parsed::Hidden(destination)
}

/// A packet's ports; `None` where not even those are there, or it is for port 0, on which nobody can listen.
#[inline(always)]
pub fn ports(frame: &impl Frame, packet: &Packet) -> Option<Ports> {
    if packet.tcp_at + 4 > packet.end {
        return None;
    }
    let ports = frame.window::<4>(packet.tcp_at)?;
    let ports = Ports { source: ports.u16::<0>(), destination: ports.u16::<2>() };
    (ports.destination != 0).then_some(ports)
}

/// What the rest of the TCP header says.
#[inline(always)]
pub fn segment(frame: &impl Frame, packet: &Packet) -> Segment {
    if packet.tcp_at + TCP_HEADER > packet.end {
        return Segment::Malformed;
    }
    let Some(header) = frame.window::<TCP_HEADER>(packet.tcp_at) else { return Segment::Malformed };
    let header_len = usize::from(header.u8::<12>() >> 4) * 4;
    let flags = header.u8::<13>();
    if header_len < TCP_HEADER {
        return Segment::Malformed;
    }
    let asks = flags & SYN != 0;
    match flags & (SYN | FIN | RST | ACK) {
        SYN => Segment::Syn,
        // Each segment but a SYN and some RST acknowledges (RFC 9293, section 3.10.7).
        RST => Segment::Other,
        flags if asks && flags & (FIN | RST) != 0 || flags & (ACK | RST) == 0 => Segment::Malformed,
        _ => Segment::Other,
    }
}
