//! The program itself: what the verifier makes of it, and how its policy is replaced.

use std::net::Ipv4Addr;
use std::time::Duration;

use ipnet::Ipv4Net;
use mc_core::firewall::Compiled;
use mc_core::firewall::tables::{Places, Tables};
use mc_core::model::{Action, Firewall as Rules, FirewallRule, Subject};
use mc_ebpf_abi::verdict::Verdict;
use mc_testkit::clock::{PATIENCE, wait_for};
use mc_testkit::net::Host;
use mc_testkit::requires;
use mc_xdp::{Ask, Firewall, Where};

/// The verifier gives up at a million, and older kernels go further into the same program: this one must stay far below.
const MOST_INSTRUCTIONS: u32 = 150_000;

#[test]
fn the_verifier_has_little_to_do() {
    requires!(root);
    let firewall = Firewall::load(1).unwrap();
    let count = firewall.instructions().unwrap();
    println!("mc_firewall: {count} instructions verified, at most {MOST_INSTRUCTIONS} wanted");
    assert!(count < MOST_INSTRUCTIONS, "{count}: look for what made the paths multiply");
}

/// A rule for each of so many networks that no flood comes from, and these besides.
fn policy(default: Action, rules: Vec<FirewallRule>) -> Tables {
    let mut random = fastrand::Rng::with_seed(3);
    let others = (0..500_000).map(|_| {
        let net = Ipv4Net::new(Ipv4Addr::from_bits(random.u32(0x1000_0000..0xa000_0000)), 24).unwrap();
        rule(if default == Action::Allow { Action::Deny } else { Action::Allow }, net.trunc())
    });
    let rules = others.chain(rules).collect();
    Tables::new(&Compiled::new(&Rules { rules, default, ..Rules::default() }), &Places::default()).unwrap()
}

fn rule(action: Action, net: Ipv4Net) -> FirewallRule {
    FirewallRule { action, subject: Subject::Cidr(net.into()), comment: String::new() }
}

/// Two policies of half a million networks that deny the same sources for different reasons take turns while packets
/// come. Whatever packet were judged by parts of both would be allowed.
#[test]
fn no_packet_is_judged_by_a_mix() {
    requires!(root, "python3");
    let (client, host) = (Host::new(), Host::new());
    let [outer, interface] = client.link(&["10.66.1.2/24"], &host, &["10.66.1.1/24"]);
    let policies = [
        policy(Action::Allow, vec![rule(Action::Deny, "198.18.0.0/15".parse().unwrap())]),
        policy(Action::Deny, Vec::new()),
    ];
    let to = "10.66.1.1:443".parse().unwrap();
    let mut firewall = host.enter(|| {
        let mut firewall = Firewall::load(1).unwrap();
        firewall.set_policy(&policies[0]).unwrap();
        firewall.set_listeners(&[Where { address: to, trusted: Vec::new() }]).unwrap();
        firewall.attach(&interface, Ask::Any, None).unwrap();
        firewall
    });
    let hour = Duration::from_secs(3600);
    let mut flood = client.syn_flood(&outer, &host.mac(&interface), to, 50_000, hour);
    let mut swaps = 0;
    let counts = wait_for("swaps, and packets under either policy", PATIENCE * 2, || {
        assert!(flood.try_wait().unwrap().is_none(), "the flood has ended");
        swaps += 1;
        firewall.set_policy(&policies[swaps % 2]).unwrap();
        let counts = firewall.counts().unwrap().map(|count| count.packets);
        let by = |verdict: Verdict| counts[verdict as usize];
        let enough = by(Verdict::DeniedCidr) > 10_000 && by(Verdict::DeniedDefault) > 10_000;
        (enough && swaps > 20).then_some(counts)
    });
    flood.kill().unwrap();
    flood.wait().unwrap();
    let by = |verdict: Verdict| counts[verdict as usize];
    assert_eq!(by(Verdict::AllowedDefault) + by(Verdict::AllowedCidr), 0, "{counts:?}");
}
