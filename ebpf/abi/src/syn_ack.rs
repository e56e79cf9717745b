//! The answer to a SYN that costs no memory: a SYN-ACK whose sequence number is a cookie (RFC 4987, section 3.6).
//!
//! It has one option, the MSS. Window scaling, SACK and timestamps would have to be remembered in the timestamp, whose
//! random offset only the kernel knows (RFC 7323, section 5.4); so a connection made during a flood has a window of at
//! most 64 KiB.
//!
//! Headers are words in host order here: whoever writes them turns each into network order.

use crate::bucket::Source;
use crate::frame::Ports;

/// A TCP header with the MSS option.
pub type Tcp = [u32; 6];

/// The length of [`Tcp`] in bytes.
pub const TCP_LEN: u16 = 24;

/// What a client may send in one segment: what tunnels on its way leave of an Ethernet frame.
const MSS_V4: u32 = 1400;
const MSS_V6: u32 = 1380;

/// What a client may send before the kernel has told it more (RFC 6928).
const WINDOW: u32 = 14_600;

const PROTOCOL: u32 = 6;
const SYN_ACK: u32 = 0x12;
const HOP_LIMIT: u32 = 64;
const DO_NOT_FRAGMENT: u32 = 0x4000;

/// The segment from us (`local`) to whoever has sent a SYN with this sequence number.
#[must_use]
#[inline(always)]
pub const fn tcp(peer: Source, local: Source, syn: Ports, sequence: u32, cookie: u32) -> Tcp {
    let mss = if local.is_v4() { MSS_V4 } else { MSS_V6 };
    let mut segment = [
        (syn.destination as u32) << 16 | syn.source as u32,
        cookie,
        sequence.wrapping_add(1),
        (TCP_LEN as u32 / 4) << 28 | SYN_ACK << 16 | WINDOW,
        0,
        2 << 24 | 4 << 16 | mss,
    ];
    // The pseudo header: of IPv4 (RFC 9293, section 3.1) or IPv6 (RFC 8200, section 8.1); zeros count nothing.
    let mut sum = PROTOCOL as u64 + TCP_LEN as u64;
    if local.is_v4() {
        sum += halves(peer.low as u32) + halves(local.low as u32);
    } else {
        sum += halves((peer.high >> 32) as u32) + halves(peer.high as u32);
        sum += halves((peer.low >> 32) as u32) + halves(peer.low as u32);
        sum += halves((local.high >> 32) as u32) + halves(local.high as u32);
        sum += halves((local.low >> 32) as u32) + halves(local.low as u32);
    }
    sum += halves(segment[0])
        + halves(segment[1])
        + halves(segment[2])
        + halves(segment[3])
        + halves(segment[5]);
    segment[4] = checksum(sum) << 16;
    segment
}

/// The header of IPv4 before it.
#[must_use]
#[inline(always)]
pub const fn ipv4(peer: Source, local: Source) -> [u32; 5] {
    let mut header = [
        0x45 << 24 | (20 + TCP_LEN as u32),
        DO_NOT_FRAGMENT,
        HOP_LIMIT << 24 | PROTOCOL << 16,
        local.low as u32,
        peer.low as u32,
    ];
    let sum =
        halves(header[0]) + halves(header[1]) + halves(header[2]) + halves(header[3]) + halves(header[4]);
    header[2] |= checksum(sum);
    header
}

/// The header of IPv6 before it.
#[must_use]
#[inline(always)]
pub const fn ipv6(peer: Source, local: Source) -> [u32; 10] {
    [
        6 << 28,
        (TCP_LEN as u32) << 16 | PROTOCOL << 8 | HOP_LIMIT,
        (local.high >> 32) as u32,
        local.high as u32,
        (local.low >> 32) as u32,
        local.low as u32,
        (peer.high >> 32) as u32,
        peer.high as u32,
        (peer.low >> 32) as u32,
        peer.low as u32,
    ]
}

#[inline(always)]
const fn halves(word: u32) -> u64 {
    (word >> 16) as u64 + (word & 0xffff) as u64
}

/// RFC 1071.
#[inline(always)]
const fn checksum(sum: u64) -> u32 {
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    !(sum as u32) & 0xffff
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: Source = Source::v4(0xc000_0202);
    const LOCAL: Source = Source::v4(0xc000_0201);
    const PEER6: Source = Source::v6(0x2001_0db8_0000_0001, 0xffff_0000_1234_abcd);
    const LOCAL6: Source = Source::v6(0x2001_0db8_0000_0002, 1);
    const PORTS: Ports = Ports { source: 40_000, destination: 443 };

    /// The sum over a header and its pseudo header, which is all ones where the checksum is right.
    fn sum(words: &[u32]) -> u32 {
        let mut sum: u64 = words.iter().map(|word| halves(*word)).sum();
        while sum > 0xffff {
            sum = (sum >> 16) + (sum & 0xffff);
        }
        sum as u32
    }

    #[test]
    fn checksums_are_right() {
        assert_eq!(sum(&ipv4(PEER, LOCAL)), 0xffff);
        for cookie in [0, 1, 0xffff_ffff, 0x1234_5678] {
            let tcp4 = tcp(PEER, LOCAL, PORTS, 0xffff_ffff, cookie);
            let pseudo = [PEER.low as u32, LOCAL.low as u32, 6, 24];
            assert_eq!(sum(&[&tcp4[..], &pseudo].concat()), 0xffff);
            let tcp6 = tcp(PEER6, LOCAL6, PORTS, 7, cookie);
            let words =
                |it: Source| [(it.high >> 32) as u32, it.high as u32, (it.low >> 32) as u32, it.low as u32];
            assert_eq!(sum(&[&tcp6[..], &words(PEER6), &words(LOCAL6), &[6, 24]].concat()), 0xffff);
        }
    }

    #[test]
    fn it_answers_the_syn() {
        let segment = tcp(PEER, LOCAL, PORTS, 0xffff_ffff, 0xabcd_ef01);
        assert_eq!(segment[0], 443 << 16 | 40_000);
        assert_eq!((segment[1], segment[2]), (0xabcd_ef01, 0), "the cookie, and what is expected next");
        assert_eq!(segment[3] >> 28, 6, "six words");
        assert_eq!(segment[3] >> 16 & 0xfff, 0x12, "SYN and ACK");
        assert_eq!(segment[5], 0x0204_0578, "an MSS of 1400");
        let header = ipv6(PEER6, LOCAL6);
        assert_eq!((header[2], header[9]), (0x2001_0db8, 0x1234_abcd), "from us, to the peer");
    }
}
