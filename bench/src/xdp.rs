//! What a packet costs the firewall in the kernel: the shipped program, run by the kernel on a frame over and over
//! (`BPF_PROG_TEST_RUN`), each time from another source.
//!
//! Half a million prefixes, half of them of IPv4 in the lengths that the Internet's routes and blocklists have, half of
//! IPv6 between 29 and 48 bits within one /16. Sources are drawn from all of IPv4, and from that /16 of IPv6.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::Context as _;
use clap::Args;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use mc_core::firewall::Compiled;
use mc_core::firewall::tables::{Places, Tables};
use mc_core::model::{Action, Firewall as Rules, FirewallRule, Rate, Subject};
use mc_xdp::{Firewall, Where};
use serde::Serialize;

use crate::clock::now_ns;

#[derive(Args, Debug)]
pub(crate) struct Xdp {
    /// Rounds; a row's figure is the median.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Packets in a round.
    #[arg(long, default_value_t = 1_000_000)]
    packets: u32,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

/// One row.
#[derive(Debug, Serialize)]
struct Row {
    prefixes: u32,
    /// Whether there are rates per address and per prefix.
    rates: bool,
    family: &'static str,
    /// Nanoseconds for a packet, one for each round.
    ns: Vec<u128>,
    /// From rules to a policy in force.
    policy_ms: u64,
}

pub(crate) const RATES: Rate =
    Rate { per_address: 1_000, address_burst: 0, per_prefix: 100_000, prefix_burst: 0 };

impl Xdp {
    /// Measures all rows, and prints them.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let mut firewall =
            Firewall::load_to_measure(fastrand::u64(..)).context("see `mcproxyctl capabilities`")?;
        let at = |address: &str| Where { address: address.parse().expect("an address"), trusted: Vec::new() };
        firewall.set_listeners(&[at("192.0.2.1:443"), at("[2001:db8::1]:443")])?;
        let mut rows = Vec::new();
        for (prefixes, rates) in [(0, false), (0, true), (500_000, false), (500_000, true)] {
            let rules = Rules {
                rules: rules(prefixes),
                rate: if rates { RATES } else { Rate::default() },
                ..Rules::default()
            };
            let began_ns = now_ns();
            firewall.set_policy(&Tables::new(&Compiled::new(&rules), &Places::default())?)?;
            let policy_ms = (now_ns() - began_ns) / 1_000_000;
            for (family, frame) in [("IPv4", ipv4()), ("IPv6", ipv6())] {
                rows.push(Row { prefixes, rates, family, ns: Vec::new(), policy_ms });
                // The first warms up.
                for round in 0..=self.rounds {
                    let ns = firewall.run(&frame, self.packets)?.duration.as_nanos();
                    if round > 0
                        && let Some(row) = rows.last_mut()
                    {
                        row.ns.push(ns);
                    }
                }
            }
        }
        if self.json {
            println!("{}", serde_json::to_string_pretty(&rows)?);
            return Ok(());
        }
        println!("{} instructions verified", firewall.instructions()?);
        println!("| prefixes | rates | family | ns a packet | policy in force after |");
        println!("|---|---|---|---|---|");
        for Row { prefixes, rates, family, mut ns, policy_ms } in rows {
            ns.sort_unstable();
            let (least, median, most) = (ns[0], ns[ns.len() / 2], ns[ns.len() - 1]);
            let rates = if rates { "both" } else { "none" };
            println!("| {prefixes} | {rates} | {family} | {median} ({least} to {most}) | {policy_ms} ms |");
        }
        Ok(())
    }
}

/// Networks that are denied.
pub(crate) fn rules(count: u32) -> Vec<FirewallRule> {
    let mut random = fastrand::Rng::with_seed(7);
    let mut one = |index: u32| -> IpNet {
        if index.is_multiple_of(2) {
            let len = match index / 2 % 20 {
                0..12 => 24,
                12..14 => 23,
                14..16 => 22,
                16..18 => 32,
                _ => random.u8(16..=21),
            };
            Ipv4Net::new_assert(Ipv4Addr::from_bits(random.u32(..)), len).trunc().into()
        } else {
            let bits = 0x2001_u128 << 112 | random.u128(..) >> 16;
            Ipv6Net::new_assert(Ipv6Addr::from_bits(bits), random.u8(29..=48)).trunc().into()
        }
    };
    let rule =
        |net| FirewallRule { action: Action::Deny, subject: Subject::Cidr(net), comment: String::new() };
    (0..count).map(|index| rule(one(index))).collect()
}

/// A SYN over IPv4.
fn ipv4() -> Vec<u8> {
    let mut frame = vec![0; 12];
    frame.extend([8, 0, 0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, 198, 51, 100, 7, 192, 0, 2, 1]);
    frame.extend(SYN);
    frame
}

/// A SYN over IPv6.
fn ipv6() -> Vec<u8> {
    let mut frame = vec![0; 12];
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, 6, 64]);
    frame.extend(Ipv6Addr::new(0x2001, 0, 1, 0, 0, 0, 0, 7).octets());
    frame.extend(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).octets());
    frame.extend(SYN);
    frame
}

/// From port 40,000 to port 443.
const SYN: [u8; 20] = [0x9c, 0x40, 1, 0xbb, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0];
