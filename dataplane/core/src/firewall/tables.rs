//! Compiles the firewall into the tables that the kernel looks up ([`mc_ebpf_abi::policy`]).
//!
//! Networks, systems and countries each are steps over the line of all addresses; laid over each other and judged by
//! [`verdict::judge`] they become one line of classes, which is cut into the tables. So the kernel's answer is the one
//! that [`Compiled::verdict`](super::Compiled::verdict) gives, whatever decided it.
//!
//! Half a million prefixes take tenths of a second. Left out: where countries and systems come from, and the rate's
//! buckets, which are the kernel's own.

use mc_ebpf_abi::policy::{
    HASH_LINES, HASH_MASK, Header, LONGER, Level, Line, PROBES, TABLE_LINES, V4_LINES, V6_LINES, entry, home,
};
use mc_ebpf_abi::verdict::{self, GeoOpinion, Opinion};

use super::Compiled;
use super::intervals::Intervals;

/// What a generation of the kernel's policy says of sources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tables {
    /// Its first line. Places and the seed are the loader's to fill in.
    pub header: Header,
    /// The tables, [`TABLE_LINES`] of them; none where all addresses have the header's default.
    pub lines: Vec<Line>,
    /// What is longer than 48 bits of IPv6.
    pub longest: Vec<LongPrefix>,
}

/// A prefix of IPv6 longer than 48 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LongPrefix {
    /// Its address; what follows the prefix is 0.
    pub bits: u128,
    /// Its length, 49 to 128.
    pub len: u8,
    /// Its class.
    pub class: u8,
}

/// What a database says, as steps: from an address to before the next, rising. Nothing is known before the first.
#[derive(Clone, Debug)]
pub struct Steps<T> {
    /// Of IPv4.
    pub v4: Vec<(u32, Option<T>)>,
    /// Of IPv6, without what maps or embeds IPv4.
    pub v6: Vec<(u128, Option<T>)>,
}

/// What the databases say of all addresses. Asked only where rules are about it.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// ISO 3166-1 alpha-2 in upper case.
    pub countries: Steps<[u8; 2]>,
    /// Autonomous systems.
    pub asns: Steps<u32>,
}

/// The rules have more to say than the kernel is given room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the firewall's rules need more room than the kernel's table has: they are judged in user space alone"
)]
pub struct TooLarge;

impl<T> Default for Steps<T> {
    fn default() -> Self {
        Self { v4: Vec::new(), v6: Vec::new() }
    }
}

impl<T: PartialEq> Steps<T> {
    /// Adds a network of IPv4 behind those that are there.
    pub fn push_v4(&mut self, first: u32, last: u32, what: T) {
        push(&mut self.v4, first, last.checked_add(1), what);
    }

    /// Adds a network of IPv6 behind those that are there.
    pub fn push_v6(&mut self, first: u128, last: u128, what: T) {
        push(&mut self.v6, first, last.checked_add(1), what);
    }

    /// Forgets what is known of part of IPv6, and knows this instead: steps within it.
    pub fn replace_v6(&mut self, first: u128, last: u128, by: Vec<(u128, Option<T>)>)
    where
        T: Copy,
    {
        let begin = self.v6.partition_point(|(start, _)| *start < first);
        let mut new = Vec::with_capacity(by.len() + 2);
        new.push((first, None));
        new.extend(by.into_iter().filter(|(start, _)| (first..=last).contains(start)));
        let mut end = self.v6.len();
        if let Some(after) = last.checked_add(1) {
            end = self.v6.partition_point(|(start, _)| *start < after);
            // What was known before it ends is known behind it.
            if self.v6.get(end).is_none_or(|(start, _)| *start != after) {
                new.push((after, end.checked_sub(1).and_then(|last| self.v6[last].1)));
            }
        }
        new.dedup_by(|later, earlier| {
            let same_place = later.0 == earlier.0;
            if same_place {
                earlier.1 = later.1;
            }
            same_place
        });
        self.v6.splice(begin..end, new);
    }
}

fn push<A: Copy + PartialEq, T: PartialEq>(
    steps: &mut Vec<(A, Option<T>)>,
    first: A,
    after: Option<A>,
    what: T,
) {
    // The end of the one before is the start of this one, or there is a gap that stays.
    if steps.last().is_some_and(|(start, known)| *start == first && known.is_none()) {
        steps.pop();
    }
    if steps.last().is_none_or(|(_, known)| known.as_ref() != Some(&what)) {
        steps.push((first, Some(what)));
    }
    if let Some(after) = after {
        steps.push((after, None));
    }
}

impl Tables {
    /// Compiles the tables.
    ///
    /// # Errors
    /// The rules are too many by far.
    pub fn new(compiled: &Compiled, places: &Places) -> Result<Self, TooLarge> {
        let limit = |limit: &Option<mc_ebpf_abi::bucket::Limit>| limit.unwrap_or_default();
        let mut header = Header {
            address: limit(&compiled.limits.address),
            prefix: limit(&compiled.limits.prefix),
            ..Header::default()
        };
        let v4 = compiled.classes(&compiled.v4, &places.asns.v4, &places.countries.v4);
        let v6 = compiled.classes(&compiled.v6, &places.asns.v6, &places.countries.v6);
        if let ([(_, all)], [(_, same)]) = (v4.as_slice(), v6.as_slice())
            && all == same
        {
            header.default = *all;
            return Ok(Self { header, lines: Vec::new(), longest: Vec::new() });
        }
        let mut build =
            Build { lines: vec![Line::default(); TABLE_LINES], longest: Vec::new(), is_full: false };
        build.v4(&v4);
        build.v6(&v6);
        let Build { lines, longest, is_full } = build;
        if is_full { Err(TooLarge) } else { Ok(Self { header, lines, longest }) }
    }
}

impl Compiled {
    /// The class of every address, as steps that rise from the first address on. There is at least one.
    fn classes<A: Number>(
        &self,
        networks: &Intervals<A>,
        asns: &[(A, Option<u32>)],
        countries: &[(A, Option<[u8; 2]>)],
    ) -> Vec<(A, u8)> {
        let asns = if self.needs_asn() { asns } else { &[] };
        let countries = if self.needs_country() { countries } else { &[] };
        let mut classes: Vec<(A, u8)> = Vec::new();
        let (mut networks, mut asns, mut countries) =
            (networks.steps().peekable(), asns.iter().peekable(), countries.iter().peekable());
        let (mut network, mut geo) = (Opinion::None, GeoOpinion::default());
        let mut at = A::FIRST;
        loop {
            while let Some((_, rule)) = networks.next_if(|(start, _)| *start <= at) {
                network = super::opinion_of(rule);
            }
            while let Some((_, asn)) = asns.next_if(|(start, _)| *start <= at) {
                geo.asn = super::opinion_of(asn.and_then(|asn| self.asns.get(&asn)).copied());
            }
            while let Some((_, code)) = countries.next_if(|(start, _)| *start <= at) {
                geo.country = super::opinion_of(code.and_then(|code| self.countries.get(&code)).copied());
            }
            let class = verdict::judge(network, || geo, self.default) as u8;
            if classes.last().is_none_or(|(_, last)| *last != class) {
                classes.push((at, class));
            }
            let next = [
                networks.peek().map(|(start, _)| *start),
                asns.peek().map(|(start, _)| *start),
                countries.peek().map(|(start, _)| *start),
            ];
            let Some(next) = next.into_iter().flatten().min() else { return classes };
            at = next;
        }
    }
}

/// Tables that are being filled.
struct Build {
    lines: Vec<Line>,
    longest: Vec<LongPrefix>,
    /// Whether an entry found no room.
    is_full: bool,
}

/// Part of the line of all addresses, and its class.
#[derive(Clone, Copy)]
struct Piece {
    first: u128,
    last: u128,
    class: u8,
}

/// Consecutive children of a block that are alike, or one that is not alike within.
enum Children<'a> {
    /// So many from this number on, all of this class.
    Alike { number: u128, count: u128, class: u8 },
    /// One of several classes.
    Mixed { number: u128, pieces: &'a [Piece] },
}

impl Build {
    fn v4(&mut self, classes: &[(u32, u8)]) {
        let pieces = pieces(classes, u32::MAX.into());
        children(&pieces, 0, 8, 1 << 24, |children| match children {
            Children::Alike { number, count, class } => self.flat(V4_LINES, number, count, class),
            Children::Mixed { number, pieces } => {
                let base = widest(pieces);
                self.flat(V4_LINES, number, 1, base | LONGER);
                for piece in pieces.iter().filter(|piece| piece.class != base) {
                    let within = piece.clip(number << 8, (number << 8) + 255);
                    self.v4_within(within);
                }
            }
        });
    }

    /// What lies within a /24: as /28s where it fills them, as addresses where not.
    fn v4_within(&mut self, piece: Piece) {
        let mut at = piece.first;
        while at <= piece.last {
            let whole = at & 15 == 0 && at + 15 <= piece.last;
            let (prefix, level, step) =
                if whole { (at >> 4, Level::V4Net, 16) } else { (at, Level::V4Host, 1) };
            self.add(prefix, level, piece.class);
            at += step;
        }
    }

    fn v6(&mut self, classes: &[(u128, u8)]) {
        let pieces = pieces(classes, u128::MAX);
        children(&pieces, 0, 112, 1 << 16, |children| match children {
            Children::Alike { number, count, class } => self.flat(V6_LINES, number, count, class),
            Children::Mixed { number, pieces } => {
                let base = widest(pieces);
                self.flat(V6_LINES, number, 1, base | LONGER);
                self.v6_level(number << 8, pieces, base, 0);
            }
        });
    }

    /// The 256 children of a block of several classes, of which `base` is said already.
    fn v6_level(&mut self, first_child: u128, pieces: &[Piece], base: u8, depth: usize) {
        let Some(&(level, bits)) = V6_LEVELS.get(depth) else {
            for piece in pieces.iter().filter(|piece| piece.class != base) {
                // `first_child` is that of 256 parts of a /48.
                let first = first_child << 72;
                self.v6_longest(piece.clip(first, first + ((1 << 80) - 1)));
            }
            return;
        };
        children(pieces, first_child, bits, 256, |children| match children {
            Children::Alike { class, .. } if class == base => {}
            Children::Alike { number, count, class } => {
                for number in number..number + count {
                    self.add(number, level, class);
                }
            }
            Children::Mixed { number, pieces } => {
                let own = widest(pieces);
                // Nobody goes on from an entry at 24 bits: what is longer is found first.
                if level != Level::V6At24 {
                    self.add(number, level, own | LONGER);
                } else if own != base {
                    self.add(number, level, own);
                }
                self.v6_level(number << 8, pieces, own, depth + 1);
            }
        });
    }

    /// A piece as the fewest prefixes that make it up.
    fn v6_longest(&mut self, piece: Piece) {
        let mut at = piece.first;
        loop {
            let left = piece.last - at;
            // As wide as the address is aligned and as the piece has room for.
            let room = if left == u128::MAX { 128 } else { (left + 1).ilog2() };
            let width = at.trailing_zeros().min(room);
            let len = u8::try_from(128 - width).unwrap_or(0);
            self.longest.push(LongPrefix { bits: at, len, class: piece.class });
            match at.checked_add(1 << width) {
                Some(next) if next <= piece.last => at = next,
                _ => return,
            }
        }
    }

    fn add(&mut self, prefix: u128, level: Level, class: u8) {
        // 48 bits at most.
        let prefix = u64::try_from(prefix).unwrap_or(u64::MAX);
        let entry = entry(prefix, level, class);
        let start = home(entry);
        for probe in 0..PROBES {
            let line = HASH_LINES + (start.wrapping_add(probe) & HASH_MASK);
            if let Some(free) = self.lines[line as usize].iter_mut().find(|word| **word == 0) {
                *free = entry;
                return;
            }
        }
        self.is_full = true;
    }

    /// Fills part of a flat table.
    fn flat(&mut self, start: u32, number: u128, count: u128, class: u8) {
        let index = |number: u128| usize::try_from(number).unwrap_or(usize::MAX);
        let (mut at, end) = (index(number), index(number + count));
        while at < end {
            let line = &mut self.lines[start as usize + at / 128];
            let word = &mut line[at / 16 % 8];
            if at.is_multiple_of(16) && at + 16 <= end {
                *word = u64::from(class) * 0x1111_1111_1111_1111;
                at += 16;
            } else {
                let shift = at % 16 * 4;
                *word = *word & !(0xf << shift) | u64::from(class) << shift;
                at += 1;
            }
        }
    }
}

/// The levels of IPv6 below the flat table, each with the bits that follow its prefixes.
const V6_LEVELS: [(Level, u32); 4] =
    [(Level::V6At24, 104), (Level::V6At32, 96), (Level::V6At40, 88), (Level::V6At48, 80)];

impl Piece {
    fn clip(self, first: u128, last: u128) -> Self {
        Self { first: self.first.max(first), last: self.last.min(last), class: self.class }
    }
}

fn pieces<A: Number>(classes: &[(A, u8)], last: u128) -> Vec<Piece> {
    let ends = classes.iter().skip(1).map(|(start, _)| start.wide() - 1).chain([last]);
    classes
        .iter()
        .zip(ends)
        .map(|((start, class), last)| Piece { first: start.wide(), last, class: *class })
        .collect()
}

/// The class of most of the addresses.
fn widest(pieces: &[Piece]) -> u8 {
    pieces.iter().max_by_key(|piece| piece.last - piece.first).map_or(0, |piece| piece.class)
}

/// Walks the `count` children of a block from `first_child` on, each of `bits` bits. The pieces cover it.
fn children(
    mut pieces: &[Piece],
    first_child: u128,
    bits: u32,
    count: u128,
    mut each: impl FnMut(Children<'_>),
) {
    let end = first_child + count;
    let mut number = first_child;
    while number < end {
        let first = number << bits;
        let last = first + ((1 << bits) - 1);
        // Those that end before it are done.
        while pieces.first().is_some_and(|piece| piece.last < first) {
            pieces = &pieces[1..];
        }
        let Some(piece) = pieces.first() else { return };
        if piece.last >= last {
            let until = if piece.last >> bits >= end - 1 { end } else { (piece.last + 1) >> bits };
            each(Children::Alike { number, count: until - number, class: piece.class });
            number = until;
        } else {
            let within = pieces.iter().position(|piece| piece.last >= last).map_or(pieces.len(), |at| at + 1);
            each(Children::Mixed { number, pieces: &pieces[..within] });
            number += 1;
        }
    }
}

/// An address as a number of its own width.
trait Number: super::intervals::Address {
    /// The first of all.
    const FIRST: Self;
    /// In the widest type.
    fn wide(self) -> u128;
}

impl Number for u32 {
    const FIRST: Self = 0;
    fn wide(self) -> u128 {
        self.into()
    }
}

impl Number for u128 {
    const FIRST: Self = 0;
    fn wide(self) -> u128 {
        self
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    use mc_ebpf_abi::policy::{self, Lines};
    use mc_ebpf_abi::verdict::Verdict;
    use proptest::prelude::*;

    use super::*;
    use crate::firewall::Geo;
    use crate::model::{Action, Firewall, FirewallRule, Subject};
    use crate::rate::source;

    struct InMemory<'a>(&'a [Line]);

    impl Lines for InMemory<'_> {
        fn line(&self, index: u32) -> Option<&Line> {
            self.0.get(index as usize)
        }
    }

    /// What the kernel would say.
    fn kernel(tables: &Tables, address: IpAddr) -> Verdict {
        let IpAddr::V6(v6) = address else { return look(tables, address, None) };
        let bits = v6.to_bits();
        let longest = tables.longest.iter().filter(|long| (long.bits ^ bits) >> (128 - long.len) == 0);
        look(tables, address, longest.max_by_key(|long| long.len).map(|long| long.class))
    }

    fn look(tables: &Tables, address: IpAddr, longest: Option<u8>) -> Verdict {
        let class = match tables.lines.as_slice() {
            [] => tables.header.default,
            lines => policy::class(&InMemory(lines), source(address), || longest),
        };
        Verdict::from_number(class.into()).unwrap()
    }

    /// Databases of a few networks.
    fn places(of_countries: &[(u32, u32)], of_asns: &[(u128, u128)]) -> Places {
        let mut places = Places::default();
        for (index, (first, last)) in of_countries.iter().enumerate() {
            places.countries.push_v4(*first, *last, if index % 2 == 0 { *b"CH" } else { *b"DE" });
        }
        for (index, (first, last)) in of_asns.iter().enumerate() {
            places.asns.push_v6(*first, *last, if index % 2 == 0 { 1 } else { 2 });
        }
        places
    }

    fn at<A: PartialOrd + Copy, T: Copy>(steps: &[(A, Option<T>)], address: A) -> Option<T> {
        steps.iter().rev().find(|(start, _)| *start <= address)?.1
    }

    fn geo(places: &Places, address: IpAddr) -> Geo {
        match address {
            IpAddr::V4(v4) => Geo {
                country: at(&places.countries.v4, v4.to_bits()),
                asn: at(&places.asns.v4, v4.to_bits()),
            },
            IpAddr::V6(v6) => Geo {
                country: at(&places.countries.v6, v6.to_bits()),
                asn: at(&places.asns.v6, v6.to_bits()),
            },
        }
    }

    /// Kernel and user space say the same of each network's first and last address, their neighbours and some within.
    #[track_caller]
    fn agree(firewall: &Firewall, places: &Places, more: &[IpAddr]) {
        let compiled = Compiled::new(firewall);
        let tables = Tables::new(&compiled, places).unwrap();
        let mut addresses = more.to_vec();
        for rule in &firewall.rules {
            let Subject::Cidr(net) = rule.subject else { continue };
            match (net.network(), net.broadcast()) {
                (IpAddr::V4(first), IpAddr::V4(last)) => {
                    let (first, last) = (first.to_bits(), last.to_bits());
                    let some =
                        [first.wrapping_sub(1), first, first / 2 + last / 2, last, last.wrapping_add(1)];
                    addresses.extend(some.map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits))));
                }
                (IpAddr::V6(first), IpAddr::V6(last)) => {
                    let (first, last) = (first.to_bits(), last.to_bits());
                    let some =
                        [first.wrapping_sub(1), first, first / 2 + last / 2, last, last.wrapping_add(1)];
                    addresses.extend(some.map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits))));
                }
                _ => unreachable!("a network is of one family"),
            }
        }
        for address in addresses {
            let address = address.to_canonical();
            let user = compiled.verdict(address, || geo(places, address), None);
            assert_eq!(kernel(&tables, address), user.verdict, "{address} with {firewall:?}");
        }
    }

    fn rule(action: Action, net: &str) -> FirewallRule {
        FirewallRule { action, subject: Subject::Cidr(net.parse().unwrap()), comment: String::new() }
    }

    #[test]
    fn part_of_what_is_known_is_replaced() {
        let before = vec![(10, Some(1)), (20, None), (30, Some(2)), (40, None)];
        let check = |first, last, by: &[(u128, Option<i32>)], expect: &[(u128, Option<i32>)]| {
            let mut steps = Steps { v4: Vec::new(), v6: before.clone() };
            steps.replace_v6(first, last, by.to_vec());
            for address in 0..60 {
                assert_eq!(at(&steps.v6, address), at(expect, address), "{address} of {first} to {last}");
            }
            assert!(steps.v6.is_sorted_by_key(|(start, _)| *start), "{:?}", steps.v6);
        };
        check(
            12,
            14,
            &[],
            &[(10, Some(1)), (12, None), (15, Some(1)), (20, None), (30, Some(2)), (40, None)],
        );
        check(
            12,
            34,
            &[(15, Some(7)), (18, None)],
            &[(10, Some(1)), (12, None), (15, Some(7)), (18, None), (35, Some(2)), (40, None)],
        );
        check(30, 39, &[(30, Some(5)), (40, None)], &[(10, Some(1)), (20, None), (30, Some(5)), (40, None)]);
        check(0, u128::MAX, &[(5, Some(3))], &[(5, Some(3))]);
        check(50, 55, &[], &before);
    }

    #[test]
    fn without_rules_there_are_no_tables() {
        for (default, class) in [(Action::Allow, 0), (Action::Deny, 7)] {
            let firewall = Firewall { default, ..Firewall::default() };
            let tables = Tables::new(&Compiled::new(&firewall), &Places::default()).unwrap();
            assert_eq!((tables.lines.len(), tables.header.default), (0, class));
            agree(
                &firewall,
                &Places::default(),
                &["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
            );
        }
    }

    #[test]
    fn every_length_of_prefix_is_found_within_every_other() {
        let lengths = [0, 3, 15, 16, 17, 24, 25, 28, 31, 32, 33, 40, 41, 48, 49, 65, 128];
        for outer in lengths {
            let mut rules =
                vec![rule(Action::Deny, &format!("2001:db8:8182:8384:8586:8788:898a:8b8c/{outer}"))];
            if outer <= 32 {
                rules.push(rule(Action::Deny, &format!("198.51.100.129/{outer}")));
            }
            for inner in lengths {
                let mut rules = rules.clone();
                rules.push(rule(Action::Allow, &format!("2001:db8:8182:8384:8586:8788:898a:8b8c/{inner}")));
                if inner <= 32 {
                    rules.push(rule(Action::Allow, &format!("198.51.100.129/{inner}")));
                }
                for rule in &mut rules {
                    if let Subject::Cidr(net) = &mut rule.subject {
                        *net = net.trunc();
                    }
                }
                agree(&Firewall { rules, ..Firewall::default() }, &Places::default(), &[]);
            }
        }
    }

    #[test]
    fn half_a_million_prefixes_have_room_and_far_more_are_refused() {
        let hosts = |count: u32| {
            let rules = (0..count).map(|number| {
                // Each in a /24 of its own where there are enough, so that each is an entry.
                let address = Ipv4Addr::from_bits(number.wrapping_mul(0x9e37_79b1));
                FirewallRule {
                    action: Action::Deny,
                    subject: Subject::Cidr(ipnet::Ipv4Net::from(address).into()),
                    comment: String::new(),
                }
            });
            Tables::new(
                &Compiled::new(&Firewall { rules: rules.collect(), ..Firewall::default() }),
                &Places::default(),
            )
        };
        let tables = hosts(500_000).unwrap();
        let hash = &tables.lines[HASH_LINES as usize..];
        assert_eq!(hash.iter().flatten().filter(|word| **word != 0).count(), 500_000);
        assert_eq!(hosts(2_500_000).unwrap_err(), TooLarge);
    }

    fn net() -> impl Strategy<Value = Subject> {
        // Close together, so that they lie within each other.
        let v4 = (0_u32..64, 8_u8..=32).prop_map(|(low, len)| {
            let address = Ipv4Addr::from_bits(0xC633_6400 | low << 5 | low);
            Subject::Cidr(ipnet::Ipv4Net::new(address, len).unwrap().trunc().into())
        });
        let v6 = (any::<[u8; 4]>(), 0_usize..15, 0_u8..=128).prop_map(|(bytes, at, len)| {
            let mut octets = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            octets[at] ^= bytes[0] & 3;
            octets[at + 1] ^= bytes[1] & 0x81;
            let net = ipnet::Ipv6Net::new(Ipv6Addr::from(octets), len).unwrap().trunc();
            Subject::Cidr(net.into())
        });
        prop_oneof![v4, v6]
    }

    proptest! {
        // Each fills 17 MiB.
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn the_kernel_says_what_user_space_says(
            nets in proptest::collection::vec((net(), any::<bool>()), 1..30),
            deny_rest: bool,
            geo_rules in 0_u8..16,
            ends in proptest::collection::btree_set(0_u32..2000, 8),
        ) {
            let action = |allow| if allow { Action::Allow } else { Action::Deny };
            let mut rules: Vec<FirewallRule> = nets
                .into_iter()
                .map(|(subject, allow)| FirewallRule { action: action(allow), subject, comment: String::new() })
                .collect();
            let mut more = |subject, allow| {
                rules.push(FirewallRule { action: action(allow), subject, comment: String::new() });
            };
            if geo_rules & 1 != 0 { more(Subject::Country("CH".into()), geo_rules & 2 != 0) }
            if geo_rules & 4 != 0 { more(Subject::Asn(1), geo_rules & 8 != 0) }
            let ends: Vec<u32> = ends.into_iter().collect();
            let countries: Vec<(u32, u32)> =
                ends.chunks_exact(2).map(|pair| (0xC633_6400 + pair[0], 0xC633_6400 + pair[1])).collect();
            let top = 0x2001_0db8_u128 << 96;
            let asns: Vec<(u128, u128)> = ends
                .chunks_exact(2)
                .map(|pair| (top + (u128::from(pair[0]) << 76), top + (u128::from(pair[1]) << 76)))
                .collect();
            let places = places(&countries, &asns);
            let mut addresses = Vec::new();
            for end in ends {
                for bits in [0xC633_6400 + end, 0xC633_6400 + end + 1] {
                    addresses.push(IpAddr::V4(Ipv4Addr::from_bits(bits)));
                }
                let bits = top + (u128::from(end) << 76);
                addresses.extend([bits, bits - 1, bits + 1].map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits))));
            }
            agree(&Firewall { rules, default: action(!deny_rest), ..Firewall::default() }, &places, &addresses);
        }
    }
}
