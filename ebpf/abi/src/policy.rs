//! The policy as it lies in the kernel: what becomes of a source by its address alone, in one or two cache misses.
//!
//! A *generation* is what a packet is judged by. Its root is one small array of [`Line`]s, one cache line each: first the
//! [`Header`], then [`LISTENERS`] places of listeners. The header names the tables. User space builds all of it aside and
//! replaces the root by one write, so that no packet is judged by two.
//!
//! The tables are one array of lines, of a fixed size, because the kernel finds a line of such an array without a call:
//!
//! | lines | what |
//! |---|---|
//! | 131,072 | a class for each /24 of IPv4: four bits each, 128 in a line |
//! | 512 | a class for each /16 of IPv6, in the same way |
//! | 262,144 | longer prefixes: a hash of [`entry`]s, eight in a line |
//!
//! A *class* is the number of one of the first eight [`Verdict`]s, which are those about an address, with [`LONGER`] where longer prefixes within say otherwise. Networks,
//! countries and systems all come down to classes when user space compiles them, so that they are one look-up.
//!
//! Longer prefixes of IPv4 are looked for at 32 and at 28 bits; those of IPv6 by binary search on their lengths
//! (Waldvogel and others 1997): 32 bits first, then 40 and 48, or else 24. What lies between two lengths is written out
//! at the longer one. What is longer than 48 bits, which is rare, lies in a trie that an entry at 48 bits points to.

use crate::bucket::{Limit, Source};
use crate::mix;
use crate::verdict::Verdict;

/// A cache line.
pub type Line = [u64; 8];

/// The first line of a generation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Tokens of an address; an interval of 0: no limit.
    pub address: Limit,
    /// Tokens of a prefix; an interval of 0: no limit.
    pub prefix: Limit,
    /// Of the buckets' places: random, secret, and the same for all generations of a process.
    pub seed: u64,
    /// Which tables, and which trie of what is longer than 48 bits. [`NO_TABLES`]: all is `default`.
    pub tables: u32,
    /// Which trie of trusted peers.
    pub trusted: u32,
    /// Class of every address where there are no tables.
    pub default: u8,
}

/// A place that a listener may be in, or is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Where it is, or with port 0 an address that has one.
    pub endpoint: Endpoint,
    /// Where its trusted peers are written down, in [`Trusted::listener`]; 0: it has none.
    pub trusted: u32,
}

/// Where a listener is, or with port 0 an address that has one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// The address.
    pub address: Source,
    /// The port.
    pub port: u16,
}

/// A length at which longer prefixes are written out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Level {
    /// IPv4, 28 bits.
    V4Net = 1,
    /// IPv4, whole addresses.
    V4Host = 2,
    /// IPv6, 24 bits.
    V6At24 = 3,
    /// IPv6, 32 bits.
    V6At32 = 4,
    /// IPv6, 40 bits.
    V6At40 = 5,
    /// IPv6, 48 bits.
    V6At48 = 6,
}

/// Where a generation's lines are read from.
pub trait Lines {
    /// The line with this number; `None` past the end.
    fn line(&self, index: u32) -> Option<&Line>;
}

/// In a class: prefixes within that are longer have classes of their own.
pub const LONGER: u8 = 8;

/// In [`Header::tables`]: there are none.
pub const NO_TABLES: u32 = u32::MAX;

/// The line in which the classes of IPv4's /24s start.
pub const V4_LINES: u32 = 0;

/// The line in which the classes of IPv6's /16s start.
pub const V6_LINES: u32 = V4_LINES + (1 << 17);

/// The line in which the hash starts.
pub const HASH_LINES: u32 = V6_LINES + (1 << 9);

/// Lines of the hash less one.
pub const HASH_MASK: u32 = (1 << 18) - 1;

/// Lines of the tables.
pub const TABLE_LINES: usize = (HASH_LINES + HASH_MASK + 1) as usize;

/// Places of listeners, four words each.
pub const LISTENERS: usize = 2048;

/// Lines of a generation's root.
pub const ROOT_LINES: usize = 1 + LISTENERS / 2;

/// Places in which a listener may be, from its own on.
pub const LISTENER_PROBES: u32 = 4;

/// Lines in which an entry may be, from its own on.
pub const PROBES: u32 = 4;

/// What the kernel decides, by number: verdicts first, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Reason {
    /// Passed: nothing for a listener.
    Other = 10,
    /// Passed: a peer that may speak for others by PROXY protocol.
    Trusted = 11,
    /// Passed: of a connection that exists, or says so, from a source that no rule denies.
    Established = 12,
    /// Dropped: a TCP header that no sender of good will makes.
    Malformed = 13,
    /// Dropped: for an address with a listener, with headers that cannot be read to the end.
    Hidden = 14,
    /// Answered with a SYN cookie.
    CookieSent = 15,
    /// Passed: answers a SYN cookie.
    CookieValid = 16,
    /// Dropped: acknowledges what was never sent, while SYN cookies are in use.
    CookieInvalid = 17,
}

/// How many reasons there are, those of [`Verdict`] included.
pub const REASONS: usize = 18;

impl Reason {
    /// Those beside the verdicts.
    pub const ALL: [Self; 8] = [
        Self::Other,
        Self::Trusted,
        Self::Established,
        Self::Malformed,
        Self::Hidden,
        Self::CookieSent,
        Self::CookieValid,
        Self::CookieInvalid,
    ];
}

/// A reason or verdict in a word, as metrics, logs and events have it.
#[must_use]
pub const fn word(number: u32) -> &'static str {
    match number {
        0 => "allowed_default",
        1 => "allowed_cidr",
        2 => "allowed_asn",
        3 => "allowed_country",
        4 => "denied_cidr",
        5 => "denied_asn",
        6 => "denied_country",
        7 => "denied_default",
        8 => "rate_address",
        9 => "rate_prefix",
        10 => "other",
        11 => "trusted",
        12 => "established",
        13 => "malformed",
        14 => "hidden",
        15 => "cookie_sent",
        16 => "cookie_valid",
        17 => "cookie_invalid",
        _ => "unknown",
    }
}

/// What is counted of a reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Count {
    /// Frames.
    pub packets: u64,
    /// Their bytes, from the Ethernet header on.
    pub bytes: u64,
}

/// A network of peers that may speak for others: a key of a trie, in network order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Trusted {
    /// [`Place::trusted`].
    pub listener: [u8; 4],
    /// IPv4 in its mapped form.
    pub address: [u8; 16],
}

/// A dropped packet, as it is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Sample {
    /// Who sent it.
    pub source: [u64; 2],
    /// To whom.
    pub destination: [u64; 2],
    /// From which port.
    pub source_port: u16,
    /// To which.
    pub destination_port: u16,
    /// A [`Verdict`]'s or a [`Reason`]'s number.
    pub reason: u32,
    /// Index of the interface.
    pub interface: u32,
    /// 0.
    pub reserved: u32,
}

impl Sample {
    /// From how it lies in the ring, on this machine.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 48]) -> Self {
        let part = |at: usize| u64::from_ne_bytes([0, 1, 2, 3, 4, 5, 6, 7].map(|byte| bytes[at + byte]));
        let small = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        let word = |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        Self {
            source: [part(0), part(8)],
            destination: [part(16), part(24)],
            source_port: small(32),
            destination_port: small(34),
            reason: word(36),
            interface: word(40),
            reserved: 0,
        }
    }
}

/// What user space tells the program while it runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Control {
    /// Whether SYNs are answered with cookies: 0 or 1.
    pub cookies: u32,
    /// Least time between two samples of a CPU, in nanoseconds.
    pub sample_ns: u32,
}

/// An entry of the hash. Never 0: no level is.
#[must_use]
#[inline(always)]
pub const fn entry(prefix: u64, level: Level, class: u8) -> u64 {
    prefix << 16 | (level as u64) << 8 | class as u64
}

/// The line in which an entry belongs, of those of the hash.
#[must_use]
#[inline(always)]
pub const fn home(entry: u64) -> u32 {
    mix(entry >> 8) as u32 & HASH_MASK
}

impl Header {
    /// As it lies in memory.
    #[must_use]
    pub const fn to_line(&self) -> Line {
        [
            self.address.interval_ns,
            self.address.capacity_ns,
            self.prefix.interval_ns,
            self.prefix.capacity_ns,
            self.seed,
            self.tables as u64 | (self.trusted as u64) << 32,
            self.default as u64,
            0,
        ]
    }

    /// From how it lies in memory.
    #[must_use]
    #[inline(always)]
    pub const fn from_line(line: &Line) -> Self {
        Self {
            address: Limit { interval_ns: line[0], capacity_ns: line[1] },
            prefix: Limit { interval_ns: line[2], capacity_ns: line[3] },
            seed: line[4],
            tables: line[5] as u32,
            trusted: (line[5] >> 32) as u32,
            default: line[6] as u8,
        }
    }
}

impl Endpoint {
    /// Where the places start in which it may be. Nobody gains by making them collide: it is us who choose where to listen.
    #[must_use]
    #[inline(always)]
    pub const fn home(self) -> u32 {
        let word = self.address.high ^ self.address.low.rotate_left(17) ^ self.port as u64;
        (word.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48) as u32
    }

    /// The line and the word in it of the `probe`th place from `home` on.
    #[must_use]
    #[inline(always)]
    pub const fn place(home: u32, probe: u32) -> (u32, usize) {
        let number = home.wrapping_add(probe) & (LISTENERS as u32 - 1);
        (1 + number / 2, (number & 1) as usize * 4)
    }
}

impl Place {
    /// As it lies in memory. Never all 0.
    #[must_use]
    pub const fn to_words(self) -> [u64; 4] {
        let Endpoint { address, port } = self.endpoint;
        [address.high, address.low, port as u64 | 1 << 16 | (self.trusted as u64) << 32, 0]
    }
}

/// The listener there, with a root whose lines are these: [`Place::trusted`]. `None`: there is none.
#[inline(always)]
pub fn listener(root: &impl Lines, endpoint: Endpoint) -> Option<u32> {
    let home = endpoint.home();
    for probe in 0..LISTENER_PROBES {
        let (line, at) = Endpoint::place(home, probe);
        let line = root.line(line)?;
        let what = line[at + 2];
        if what as u32 == u32::from(endpoint.port) | 1 << 16
            && line[at] == endpoint.address.high
            && line[at + 1] == endpoint.address.low
        {
            return Some((what >> 32) as u32);
        }
        // Places fill from a listener's own on.
        if what == 0 {
            return None;
        }
    }
    None
}

/// The class of a source in the tables whose lines are these. `longest` is asked for what is longer than 48 bits of IPv6;
/// `None` where it says nothing.
#[inline(always)]
pub fn class(lines: &impl Lines, source: Source, longest: impl FnOnce() -> Option<u8>) -> u8 {
    let found = if source.is_v4() { v4(lines, source.low as u32) } else { v6(lines, source.high, longest) };
    found & !LONGER
}

/// Has the line brought into the cache that [`class`] reads first.
#[inline(always)]
pub fn touch(lines: &impl Lines, source: Source, read: impl FnOnce(&Line)) {
    let index = if source.is_v4() {
        V4_LINES + (source.low as u32 >> 15)
    } else {
        V6_LINES + ((source.high >> 55) as u32)
    };
    if let Some(line) = lines.line(index) {
        read(line);
    }
}

#[inline(always)]
fn v4(lines: &impl Lines, address: u32) -> u8 {
    let base = flat(lines, V4_LINES, address >> 8);
    if base & LONGER == 0 {
        return base;
    }
    if let Some(class) = find(lines, address.into(), Level::V4Host) {
        return class;
    }
    find(lines, (address >> 4).into(), Level::V4Net).unwrap_or(base)
}

#[inline(always)]
fn v6(lines: &impl Lines, high: u64, longest: impl FnOnce() -> Option<u8>) -> u8 {
    let base = flat(lines, V6_LINES, (high >> 48) as u32);
    if base & LONGER == 0 {
        return base;
    }
    let Some(at32) = find(lines, high >> 32, Level::V6At32) else {
        return find(lines, high >> 40, Level::V6At24).unwrap_or(base);
    };
    if at32 & LONGER == 0 {
        return at32;
    }
    let Some(at40) = find(lines, high >> 24, Level::V6At40) else { return at32 };
    if at40 & LONGER == 0 {
        return at40;
    }
    let Some(at48) = find(lines, high >> 16, Level::V6At48) else { return at40 };
    if at48 & LONGER == 0 {
        return at48;
    }
    longest().unwrap_or(at48)
}

/// A class of a flat table that starts at a line.
#[inline(always)]
fn flat(lines: &impl Lines, start: u32, index: u32) -> u8 {
    let Some(line) = lines.line(start + (index >> 7)) else { return Verdict::AllowedDefault as u8 };
    // The verifier knows the bounds from the mask.
    let word = line[(index >> 4 & 7) as usize];
    (word >> ((index & 15) * 4)) as u8 & 15
}

/// The class of a prefix that has an entry of its own.
#[inline(always)]
fn find(lines: &impl Lines, prefix: u64, level: Level) -> Option<u8> {
    let wanted = entry(prefix, level, 0);
    let start = home(wanted);
    for probe in 0..PROBES {
        let line = lines.line(HASH_LINES + (start.wrapping_add(probe) & HASH_MASK))?;
        for word in line {
            if (word ^ wanted) >> 8 == 0 {
                return Some(*word as u8);
            }
        }
        // A line fills from the front: one with room left never overflowed.
        if line[7] == 0 {
            return None;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_comes_back_from_its_line() {
        let header = Header {
            address: Limit { interval_ns: 1, capacity_ns: u64::MAX },
            prefix: Limit { interval_ns: u64::MAX - 1, capacity_ns: 4 },
            seed: 0x0102_0304_0506_0708,
            tables: NO_TABLES,
            trusted: 1,
            default: 7,
        };
        assert_eq!(Header::from_line(&header.to_line()), header);
        assert_eq!(Header::from_line(&[0; 8]), Header::default());
    }

    #[test]
    fn reasons_follow_the_verdicts() {
        let verdicts = Verdict::ALL.iter().map(|verdict| *verdict as usize);
        let numbers = verdicts.chain(Reason::ALL.iter().map(|reason| *reason as usize));
        assert!(numbers.eq(0..REASONS));
    }
}
