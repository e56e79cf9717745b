//! What the firewall should say of a frame, written down a second time and differently: by slices, from the standards,
//! with user space's own compiled rules and buckets. The program in the kernel is compared with it.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;
use mc_core::firewall::{Compiled, Geo};
use mc_core::rate::{Limit, RateTable, Scope, source};
use mc_ebpf_abi::policy::Reason;
use mc_ebpf_abi::verdict::{Verdict, rated};

/// Rules, buckets and listeners of user space.
pub(crate) struct Oracle {
    pub(crate) compiled: Compiled,
    /// Where we listen, and whom each trusts.
    pub(crate) listeners: HashMap<SocketAddr, Vec<IpNet>>,
    pub(crate) rates: RateTable,
    pub(crate) limits: Option<(Limit, Limit)>,
}

/// What becomes of a frame: whether it passes, and under which number it is counted.
pub(crate) type Expect = (bool, u32);

const NOW_NS: u64 = 1 << 40;

enum Read<'a> {
    Nothing,
    Tcp { source: IpAddr, destination: IpAddr, segment: &'a [u8] },
    Unreadable { destination: IpAddr },
}

impl Oracle {
    pub(crate) fn judge(&self, frame: &[u8]) -> Expect {
        match read(frame) {
            Read::Nothing => (true, Reason::Other as u32),
            Read::Unreadable { destination } => {
                match self.listeners.keys().any(|listener| listener.ip() == destination) {
                    true => (false, Reason::Hidden as u32),
                    false => (true, Reason::Other as u32),
                }
            }
            Read::Tcp { source, destination, segment } => self.segment(source, destination, segment),
        }
    }

    fn segment(&self, from: IpAddr, destination: IpAddr, segment: &[u8]) -> Expect {
        let Some(port) = segment.get(2..4) else { return (true, Reason::Other as u32) };
        let port = u16::from_be_bytes([port[0], port[1]]);
        let Some(trusted) = self.listeners.get(&SocketAddr::new(destination, port)) else {
            return (true, Reason::Other as u32);
        };
        let canonical = from.to_canonical();
        if trusted.iter().any(|net| net.contains(&canonical)) {
            return (true, Reason::Trusted as u32);
        }
        let (Some(offset), Some(flags)) = (segment.get(12), segment.get(13)) else {
            return (false, Reason::Malformed as u32);
        };
        let (fin, syn, rst, ack) = (flags & 1 != 0, flags & 2 != 0, flags & 4 != 0, flags & 16 != 0);
        let sensible = match (syn, fin, rst, ack) {
            (true, false, false, _) => true,
            (true, _, _, _) => false,
            (false, _, true, _) => true,
            (false, _, false, ack) => ack,
        };
        if segment.len() < 20 || offset >> 4 < 5 || !sensible {
            return (false, Reason::Malformed as u32);
        }
        let judged = self.compiled.verdict(from, Geo::default, None).verdict;
        if !syn || ack {
            let number = if judged.passes() { Reason::Established as u32 } else { judged as u32 };
            return (judged.passes(), number);
        }
        let verdict = match &self.limits {
            None => judged,
            Some((address, prefix)) => {
                let take = |scope, limit| self.rates.take(source(from), scope, NOW_NS, limit);
                rated(judged, || take(Scope::Address, address), || take(Scope::Prefix, prefix))
            }
        };
        (verdict.passes(), verdict as u32)
    }
}

fn read(frame: &[u8]) -> Read<'_> {
    let Some(mut kind) = frame.get(12..14) else { return Read::Nothing };
    let mut rest = &frame[14..];
    for _ in 0..2 {
        if kind == [0x81, 0] || kind == [0x88, 0xa8] {
            let Some(tag) = rest.get(..4) else { return Read::Nothing };
            (kind, rest) = (&tag[2..], &rest[4..]);
        }
    }
    match kind {
        [8, 0] => ipv4(rest),
        [0x86, 0xdd] => ipv6(rest),
        _ => Read::Nothing,
    }
}

/// RFC 791, section 3.1, and what Linux checks before it looks at a packet.
fn ipv4(packet: &[u8]) -> Read<'_> {
    if packet.len() < 20 || packet[0] >> 4 != 4 {
        return Read::Nothing;
    }
    let header = usize::from(packet[0] & 15) * 4;
    let total = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
    let offset = u16::from_be_bytes([packet[6], packet[7]]) & 0x1fff;
    if header < 20 || total < header || total > packet.len() || packet[9] != 6 || offset > 0 {
        return Read::Nothing;
    }
    let address =
        |at: usize| IpAddr::V4(Ipv4Addr::new(packet[at], packet[at + 1], packet[at + 2], packet[at + 3]));
    Read::Tcp { source: address(12), destination: address(16), segment: &packet[header..total] }
}

/// RFC 8200, sections 3 and 4; RFC 7112 for first fragments.
fn ipv6(packet: &[u8]) -> Read<'_> {
    if packet.len() < 40 || packet[0] >> 4 != 6 {
        return Read::Nothing;
    }
    let payload = usize::from(u16::from_be_bytes([packet[4], packet[5]]));
    if payload == 0 || 40 + payload > packet.len() {
        return Read::Nothing;
    }
    let address = |at: usize| {
        let octets: [u8; 16] = packet[at..at + 16].try_into().unwrap();
        IpAddr::V6(Ipv6Addr::from(octets))
    };
    let (source, destination) = (address(8), address(24));
    let mut rest = &packet[40..40 + payload];
    let (mut kind, mut first_fragment) = (packet[6], false);
    for _ in 0..=8 {
        match kind {
            6 if first_fragment && rest.len() < 20 => return Read::Unreadable { destination },
            6 => return Read::Tcp { source, destination, segment: rest },
            0 | 43 | 44 | 51 | 60 | 135 | 139 | 140 => {}
            _ => return Read::Nothing,
        }
        if rest.len() < 8 {
            return if first_fragment { Read::Unreadable { destination } } else { Read::Nothing };
        }
        let len = match kind {
            44 => 8,
            51 => (usize::from(rest[1]) + 2) * 4,
            _ => (usize::from(rest[1]) + 1) * 8,
        };
        if kind == 44 {
            if u16::from_be_bytes([rest[2], rest[3]]) >> 3 != 0 {
                return Read::Nothing;
            }
            first_fragment = true;
        }
        kind = rest[0];
        // Past the end nothing can be read, whatever is said to follow.
        rest = rest.get(len..).unwrap_or_default();
    }
    Read::Unreadable { destination }
}

/// All that is counted, with its number's meaning, for messages.
pub(crate) fn name(number: u32) -> String {
    match Verdict::from_number(number) {
        Some(verdict) => format!("{verdict:?}"),
        None => Reason::ALL
            .iter()
            .find(|reason| **reason as u32 == number)
            .map_or_else(|| format!("{number}?"), |reason| format!("{reason:?}")),
    }
}
