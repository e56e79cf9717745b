//! The compiled firewall: order of the rules, longest match against a linear search, and its words.

use std::cell::Cell;

use proptest::prelude::*;

use super::*;
use crate::model::{FirewallRule, Rate};
use crate::rate::RateTable;

/// Rules as `allow 192.0.2.0/24`, `deny country DE`, `deny asn 64500`; a last `deny *` is the default.
fn firewall(rules: &[&str]) -> Firewall {
    let mut firewall = Firewall::default();
    for rule in rules {
        let (action, subject) = rule.split_once(' ').unwrap();
        let action = if action == "allow" { Action::Allow } else { Action::Deny };
        let subject = match subject.split_once(' ') {
            Some(("country", code)) => Subject::Country(code.to_owned()),
            Some((_, asn)) => Subject::Asn(asn.parse().unwrap()),
            None if subject == "*" => {
                firewall.default = action;
                continue;
            }
            None => Subject::Cidr(subject.parse().unwrap()),
        };
        firewall.rules.push(FirewallRule { action, subject, comment: String::new() });
    }
    firewall
}

const GEO: Geo = Geo { country: Some(*b"DE"), asn: Some(64500) };

fn check(rules: &[&str], address: &str, verdict: Verdict, rule: Option<usize>) {
    let decision = Compiled::new(&firewall(rules)).verdict(address.parse().unwrap(), || GEO, None);
    assert_eq!(decision, Decision { verdict, rule }, "{address} by {rules:?}");
    assert_eq!(decision.pass(), decision.outcome().is_none());
}

#[test]
fn no_rule_lets_pass_and_asks_nothing() {
    let compiled = Compiled::new(&Firewall::default());
    let decision = compiled.verdict("192.0.2.1".parse().unwrap(), || panic!("asked"), None);
    assert_eq!(decision, Decision { verdict: Verdict::AllowedDefault, rule: None });
    assert!(!compiled.needs_country() && !compiled.needs_asn() && !compiled.needs_rate());
    check(&["deny *"], "192.0.2.1", Verdict::DeniedDefault, None);
}

#[test]
fn the_more_specific_network_decides_and_between_equals_allow() {
    let rules =
        ["deny 10.0.0.0/8", "allow 10.1.0.0/16", "deny 10.1.1.0/24", "deny 10.1.1.1/32", "allow 10.1.1.1/32"];
    check(&rules, "10.0.0.1", Verdict::DeniedCidr, Some(0));
    check(&rules, "10.255.255.255", Verdict::DeniedCidr, Some(0));
    check(&rules, "10.1.0.1", Verdict::AllowedCidr, Some(1));
    check(&rules, "10.1.1.0", Verdict::DeniedCidr, Some(2));
    check(&rules, "10.1.1.1", Verdict::AllowedCidr, Some(4));
    check(&rules, "10.1.1.2", Verdict::DeniedCidr, Some(2));
    check(&rules, "10.1.2.0", Verdict::AllowedCidr, Some(1));
    check(&rules, "9.255.255.255", Verdict::AllowedDefault, None);
    check(&rules, "11.0.0.0", Verdict::AllowedDefault, None);
    check(&["deny 0.0.0.0/0", "allow ::/0"], "255.255.255.255", Verdict::DeniedCidr, Some(0));
    check(&["deny 0.0.0.0/0", "deny ::/0"], "ffff::ffff", Verdict::DeniedCidr, Some(1));
    check(&["deny 255.255.255.255/32"], "255.255.255.255", Verdict::DeniedCidr, Some(0));
    check(&["deny 192.0.2.7/24"], "192.0.2.1", Verdict::DeniedCidr, Some(0));
}

#[test]
fn mapped_addresses_and_networks_are_those_of_ipv4() {
    check(&["deny 192.0.2.0/24"], "::ffff:192.0.2.1", Verdict::DeniedCidr, Some(0));
    check(&["deny ::ffff:192.0.2.0/120"], "192.0.2.1", Verdict::DeniedCidr, Some(0));
    check(&["deny ::ffff:0:0/96"], "192.0.2.1", Verdict::DeniedCidr, Some(0));
    check(&["deny ::/0"], "::ffff:192.0.2.1", Verdict::AllowedDefault, None);
    check(&["deny ::/0"], "2001:db8::1", Verdict::DeniedCidr, Some(0));
}

#[test]
fn networks_before_systems_before_countries_before_the_default() {
    let rules = ["deny 192.0.2.0/24", "allow asn 64500", "deny country DE", "deny *"];
    check(&rules, "192.0.2.1", Verdict::DeniedCidr, Some(0));
    check(&rules, "192.0.3.1", Verdict::AllowedAsn, Some(1));
    check(&rules[2..], "192.0.3.1", Verdict::DeniedCountry, Some(0));
    check(&["allow country DE", "deny *"], "192.0.3.1", Verdict::AllowedCountry, Some(0));
    check(&["allow country FR", "deny *"], "192.0.3.1", Verdict::DeniedDefault, None);
    check(&["deny asn 64500", "allow country DE"], "192.0.3.1", Verdict::DeniedAsn, Some(0));
    check(&["deny country DE", "allow country DE"], "192.0.3.1", Verdict::AllowedCountry, Some(1));
    check(&["allow country DE", "deny country DE"], "192.0.3.1", Verdict::AllowedCountry, Some(0));
}

#[test]
fn the_database_is_read_where_it_can_matter_only() {
    let rules = ["allow 192.0.2.0/24", "deny country DE"];
    let compiled = Compiled::new(&firewall(&rules));
    let asked = Cell::new(0);
    let geo = || {
        asked.set(asked.get() + 1);
        Geo::default()
    };
    assert!(compiled.verdict("192.0.2.1".parse().unwrap(), geo, None).pass());
    assert_eq!(asked.get(), 0);
    assert!(compiled.verdict("192.0.3.1".parse().unwrap(), geo, None).pass(), "unknown country");
    assert_eq!(asked.get(), 1);
}

#[test]
fn the_rate_spares_allowed_networks_and_whoever_is_not_counted() {
    let rate = Rate { per_address: 2, per_prefix: 3, ..Rate::default() };
    let firewall = Firewall { rate, ..firewall(&["allow 198.51.100.0/24", "deny 203.0.113.0/24"]) };
    let compiled = Compiled::new(&firewall);
    let table = RateTable::new(1);
    let check = |address: &str, rated: bool, expect: Verdict| {
        let rates = rated.then_some(Rates { table: &table, now_ns: 1_000_000_000 });
        assert_eq!(
            compiled.verdict(address.parse().unwrap(), Geo::default, rates).verdict,
            expect,
            "{address}"
        );
    };
    check("192.0.2.1", true, Verdict::AllowedDefault);
    check("192.0.2.1", true, Verdict::AllowedDefault);
    check("192.0.2.1", true, Verdict::RateAddress);
    check("192.0.2.1", false, Verdict::AllowedDefault);
    check("192.0.2.2", true, Verdict::AllowedDefault);
    check("192.0.2.2", true, Verdict::RatePrefix);
    check("::ffff:192.0.2.1", true, Verdict::RateAddress);
    check("192.0.3.1", true, Verdict::AllowedDefault);
    for _ in 0..9 {
        check("198.51.100.1", true, Verdict::AllowedCidr);
        check("203.0.113.1", true, Verdict::DeniedCidr);
    }
}

#[test]
fn a_decision_says_which_rule_and_why() {
    let mut firewall = firewall(&["allow 10.0.0.0/8", "deny country DE", "deny asn 64500"]);
    firewall.rules[0].comment = "the office".to_owned();
    let explain = |firewall: &Firewall, address: &str, geo: Geo| {
        Compiled::new(firewall).verdict(address.parse().unwrap(), || geo, None).explain(firewall)
    };
    assert_eq!(explain(&firewall, "10.0.0.1", GEO), "allowed by rule 1: cidr 10.0.0.0/8 (the office)");
    assert_eq!(explain(&firewall, "11.0.0.1", GEO), "denied by rule 3: asn 64500");
    assert_eq!(explain(&firewall, "11.0.0.1", Geo { asn: None, ..GEO }), "denied by rule 2: country DE");
    assert_eq!(explain(&firewall, "11.0.0.1", Geo::default()), "allowed by default: no rule is about it");
    firewall.default = Action::Deny;
    assert_eq!(explain(&firewall, "11.0.0.1", Geo::default()), "denied by default: no rule is about it");
}

/// The specification: every network is tried.
fn longest(rules: &[(IpNet, Action)], address: IpAddr) -> Option<usize> {
    let matching = rules.iter().enumerate().filter(|(_, (net, _))| net.contains(&address));
    let rank = |(index, (net, action)): &(usize, &(IpNet, Action))| {
        (net.prefix_len(), *action == Action::Allow, std::cmp::Reverse(*index))
    };
    matching.max_by_key(rank).map(|(index, _)| index)
}

/// Networks that nest and touch: few bits vary, at both ends of the range too.
fn networks() -> impl Strategy<Value = IpNet> {
    prop_oneof![
        (any::<u32>(), 0..=32_u8)
            .prop_map(|(bits, len)| (bits & 0xc000_000f, len))
            .prop_map(|(bits, len)| { IpNet::new(IpAddr::V4(bits.into()), len).unwrap() }),
        (any::<u128>(), 0..=128_u8).prop_map(|(bits, len)| IpNet::new(
            IpAddr::V6((bits & (0xf << 124 | 0xf)).into()),
            len
        )
        .unwrap()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn finds_the_rule_that_a_linear_search_finds(
        rules in prop::collection::vec((networks(), prop::sample::select(vec![Action::Allow, Action::Deny])), 0..30),
        others in prop::collection::vec(networks(), 0..10),
    ) {
        let written = rules.iter().map(|(net, action)| FirewallRule {
            action: *action,
            subject: Subject::Cidr(*net),
            comment: String::new(),
        });
        let compiled = Compiled::new(&Firewall { rules: written.collect(), ..Firewall::default() });
        for net in rules.iter().map(|(net, _)| *net).chain(others) {
            for address in [net.addr(), net.network(), net.broadcast(), after(net.broadcast())] {
                let decision = compiled.verdict(address, Geo::default, None);
                // An address that maps one of IPv4 is judged as that; the linear search knows nothing of it.
                if address == address.to_canonical() {
                    prop_assert_eq!(decision.rule, longest(&rules, address), "{}", address);
                }
            }
        }
    }
}

fn after(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(address) => IpAddr::V4(address.to_bits().wrapping_add(1).into()),
        IpAddr::V6(address) => IpAddr::V6(address.to_bits().wrapping_add(1).into()),
    }
}
