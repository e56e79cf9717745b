//! The kernel and user space judge the same frames alike: every length from 14 to 128 bytes, every byte of every header
//! at its edge values, and random damage.

use std::net::IpAddr;

use mc_core::firewall::Compiled;
use mc_core::firewall::tables::{Places, Tables};
use mc_core::model::{Action, Firewall as Rules, FirewallRule, Subject};
use mc_core::rate::{Limit, RateTable};
use mc_testkit::requires;
use mc_xdp::{Firewall, Where};

use crate::frames::{ACK, FIN, Flow, RST, SYN, SYN_OPTIONS, Shape, extension, frame, tcp};
use crate::oracle::{Oracle, name};

const SEED: u64 = 0x5eed;

/// The kernel's half and the oracle, set up alike.
struct Both {
    kernel: Firewall,
    oracle: Oracle,
    judged: [u64; mc_ebpf_abi::policy::REASONS],
}

impl Both {
    fn new(rules: Vec<FirewallRule>, limits: Option<(Limit, Limit)>) -> Self {
        let rules = Rules { rules, ..Rules::default() };
        let compiled = Compiled::new(&rules);
        let mut tables = Tables::new(&compiled, &Places::default()).unwrap();
        if let Some((address, prefix)) = limits {
            (tables.header.address, tables.header.prefix) = (address, prefix);
        }
        let mut kernel = Firewall::load(SEED).unwrap();
        let at = |address: &str, trusted: &[&str]| Where {
            address: address.parse().unwrap(),
            trusted: trusted.iter().map(|net| net.parse().unwrap()).collect(),
        };
        let listeners = [
            at("192.0.2.1:443", &[]),
            at("192.0.2.1:8443", &["198.51.100.0/28", "2001:db8:7::/48"]),
            at("[2001:db8::1]:443", &[]),
            at("[2001:db8::1]:8443", &["2001:db8:7::/48"]),
        ];
        kernel.set_policy(&tables).unwrap();
        kernel.set_listeners(&listeners).unwrap();
        let listeners = listeners.into_iter().map(|it| (it.address, it.trusted)).collect();
        let oracle = Oracle { compiled, listeners, rates: RateTable::new(SEED), limits };
        Self { kernel, oracle, judged: [0; _] }
    }

    #[track_caller]
    fn same(&mut self, bytes: &[u8]) {
        let expect = self.oracle.judge(bytes);
        let before = self.kernel.counts().unwrap();
        let passed = self.kernel.run(bytes, 1).unwrap().passed;
        let after = self.kernel.counts().unwrap();
        let counted = (0_u32..).zip(before.iter().zip(&after)).find(|(_, (before, after))| before != after);
        let number = counted.map_or(u32::MAX, |(number, _)| number);
        assert!(
            (passed, number) == expect,
            "the kernel says {passed} {}, user space {} {}, of {bytes:02x?}",
            name(number),
            expect.0,
            name(expect.1)
        );
        self.judged[number as usize] += 1;
    }
}

fn deny(net: &str) -> FirewallRule {
    let net = net.parse().unwrap();
    FirewallRule { action: Action::Deny, subject: Subject::Cidr(net), comment: String::new() }
}

fn rules() -> Vec<FirewallRule> {
    let allow = |net: &str| FirewallRule { action: Action::Allow, ..deny(net) };
    vec![
        deny("198.51.100.0/24"),
        allow("198.51.100.64/27"),
        deny("203.0.113.7/32"),
        deny("10.0.0.0/8"),
        deny("2001:db8:bad::/48"),
        allow("2001:db8:bad:1::/64"),
        deny("2001:db8:1::7/128"),
        deny("fd00::/8"),
    ]
}

fn flow(source: &str) -> Flow {
    let source: IpAddr = source.parse().unwrap();
    let destination = if source.is_ipv4() { "192.0.2.1" } else { "2001:db8::1" };
    Flow { source, destination: destination.parse().unwrap() }
}

/// Frames of every shape that the program reads.
fn shapes() -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let syn = |port| tcp(port, SYN, &SYN_OPTIONS);
    for source in ["192.0.2.77", "198.51.100.3", "198.51.100.70", "203.0.113.7"] {
        for port in [443, 8443, 22] {
            for shape in [
                Shape::default(),
                Shape { tags: vec![0x8100], ..Shape::default() },
                Shape { tags: vec![0x88a8, 0x8100], ..Shape::default() },
                Shape { tags: vec![0x8100, 0x8100, 0x8100], ..Shape::default() },
                Shape { options: vec![1; 4], ..Shape::default() },
                Shape { options: vec![1; 40], ..Shape::default() },
                Shape { fragment: 0x2000, ..Shape::default() },
                Shape { fragment: 0x2001, ..Shape::default() },
            ] {
                frames.push(frame(flow(source), &shape, &syn(port)));
            }
        }
    }
    let fragment = |more: bool, offset: u16| {
        let (kind, mut bytes) = extension(44, 8);
        bytes[2..4].copy_from_slice(&(offset << 3 | u16::from(more)).to_be_bytes());
        (kind, bytes)
    };
    for source in [
        "2001:db8:2::77",
        "2001:db8:bad::1",
        "2001:db8:bad:1::1",
        "2001:db8:1::7",
        "2001:db8:7::1",
        "::ffff:10.0.0.1",
    ] {
        for port in [443, 8443, 22] {
            for extensions in [
                vec![],
                vec![extension(0, 8)],
                vec![extension(0, 16), extension(43, 24), extension(60, 8)],
                vec![fragment(true, 0)],
                vec![fragment(false, 0), extension(60, 8)],
                vec![fragment(true, 1)],
                vec![extension(51, 24)],
                vec![extension(135, 8), extension(139, 8), extension(140, 8)],
                vec![extension(60, 8); 8],
                vec![extension(60, 8); 9],
                vec![extension(17, 8)],
            ] {
                let shape = Shape { extensions, ..Shape::default() };
                frames.push(frame(flow(source), &shape, &syn(port)));
                let shape = Shape { tags: vec![0x8100], ..shape };
                frames.push(frame(flow(source), &shape, &syn(port)));
            }
        }
    }
    // Without a whole TCP header: as a packet, and as a first fragment, whose rest would follow.
    for len in [0, 2, 8, 16] {
        let short = &syn(443)[..len];
        frames.push(frame(flow("192.0.2.77"), &Shape::default(), short));
        let shape = Shape { extensions: vec![fragment(true, 0)], ..Shape::default() };
        frames.push(frame(flow("2001:db8:2::77"), &shape, short));
    }
    frames
}

#[test]
fn frames_cut_or_padded_to_every_length_are_judged_alike() {
    requires!(root);
    let mut both = Both::new(rules(), None);
    for whole in shapes() {
        for len in 14..=128 {
            let mut bytes = whole.clone();
            bytes.resize(len, 0);
            both.same(&bytes);
        }
    }
    // Each kind of end was among them.
    for number in [0, 1, 4, 10, 11, 13, 14] {
        assert!(both.judged[number] > 0, "no frame came to {}", name(u32::try_from(number).unwrap()));
    }
}

#[test]
fn every_byte_at_its_edges_is_judged_alike() {
    requires!(root);
    let mut both = Both::new(rules(), None);
    for whole in shapes() {
        for at in 0..whole.len() {
            let was = whole[at];
            for value in [0, 1, was.wrapping_sub(1), was.wrapping_add(1), was ^ 0x10, was ^ 0x80, 0x7f, 0xff]
            {
                let mut bytes = whole.clone();
                bytes[at] = value;
                both.same(&bytes);
            }
        }
    }
}

#[test]
fn random_damage_is_judged_alike() {
    requires!(root);
    let mut both = Both::new(rules(), None);
    let mut random = fastrand::Rng::with_seed(7);
    let shapes = shapes();
    for _ in 0..100_000 {
        let mut bytes = random.choice(&shapes).unwrap().clone();
        for _ in 0..random.usize(1..4) {
            let at = random.usize(12..bytes.len());
            bytes[at] = random.u8(..);
        }
        bytes.truncate(random.usize(14..=bytes.len()));
        both.same(&bytes);
    }
}

#[test]
fn all_flags_are_judged_alike() {
    requires!(root);
    let mut both = Both::new(rules(), None);
    for source in ["192.0.2.77", "203.0.113.7", "2001:db8:2::77", "2001:db8:bad::1"] {
        for flags in 0..=255 {
            both.same(&frame(flow(source), &Shape::default(), &tcp(443, flags, &[])));
        }
    }
    // Some that have names: SYN, SYN with FIN, nothing, Christmas tree, RST, FIN without ACK.
    let named = [(SYN, true), (SYN | FIN, false), (0, false), (0xff, false), (RST, true), (FIN, false)];
    for (flags, passes) in named.into_iter().chain([(ACK, true), (SYN | ACK, true), (RST | ACK, true)]) {
        let bytes = frame(flow("192.0.2.77"), &Shape::default(), &tcp(443, flags, &[]));
        assert_eq!(both.kernel.run(&bytes, 1).unwrap().passed, passes, "flags {flags:#x}");
    }
}

/// The buckets are filled once an hour, so that what is judged depends on nothing but the order.
#[test]
fn rates_are_judged_alike() {
    requires!(root);
    let hour = 3_600_000_000_000;
    let limit = |takes: u64| Limit { interval_ns: hour, capacity_ns: takes * hour };
    let mut both = Both::new(rules(), Some((limit(3), limit(8))));
    let mut random = fastrand::Rng::with_seed(9);
    for _ in 0..20_000 {
        let source = match random.u8(..4) {
            0 => format!("192.0.2.{}", random.u8(..40)),
            1 => format!("172.16.{}.{}", random.u8(..40), random.u8(..4)),
            2 => format!("2001:db8:{:x}::{:x}", random.u8(..40), random.u8(..4)),
            // Denied and exempt ones among them.
            _ => format!("198.51.100.{}", random.u8(..)),
        };
        let flags = if random.u8(..8) == 0 { ACK } else { SYN };
        both.same(&frame(flow(&source), &Shape::default(), &tcp(443, flags, &SYN_OPTIONS)));
    }
    for number in [0, 1, 4, 8, 9, 12] {
        assert!(both.judged[number] > 50, "too few came to {}", name(u32::try_from(number).unwrap()));
    }
}

#[test]
fn long_frames_are_judged_alike_in_one_piece_or_several() {
    requires!(root);
    let mut both = Both::new(rules(), None);
    for len in [1500, 3000, 4096, 9000] {
        for source in ["192.0.2.77", "203.0.113.7", "2001:db8:2::77", "2001:db8:bad::1"] {
            for flags in [SYN, ACK, SYN | FIN] {
                let shape = Shape { payload: vec![0x55; len], ..Shape::default() };
                both.same(&frame(flow(source), &shape, &tcp(443, flags, &[])));
            }
        }
    }
}

/// What the program cannot reach, because it lies behind the part of a long frame that is in one piece, does not pass.
#[test]
fn headers_behind_the_first_piece_of_a_long_frame_are_refused() {
    requires!(root);
    let both = Both::new(rules(), None);
    let run = |extensions: usize| {
        let shape = Shape { extensions: vec![extension(60, 2048); extensions], ..Shape::default() };
        let bytes = frame(flow("2001:db8:2::77"), &shape, &tcp(443, SYN, &[]));
        both.kernel.run(&bytes, 1).unwrap().passed
    };
    assert!(run(1), "2 KiB of headers lie in the first piece");
    assert!(!run(4), "8 KiB of headers do not");
}
