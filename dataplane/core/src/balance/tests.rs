//! Who is picked, and how connections spread.

use std::sync::Arc;

use mc_ebpf_abi::mix;

use super::*;
use crate::backend::{BackendLive, Checked};

const NOW: u64 = 10_000;

fn backends(count: u8) -> Vec<RouteBackend> {
    let one = |host| Arc::new(BackendLive::new(([192, 0, 2, host], 443).into()));
    (0..count).map(|host| one(host).into()).collect()
}

fn choice(balance: Balance, random: u64) -> Choice {
    Choice {
        balance,
        slow_start_ms: 0,
        tried: Tried::default(),
        random: mix(random),
        source: mix(random),
        now_ms: NOW,
    }
}

/// How often each is picked in `rounds`; each connection lasts while `open` are younger.
fn spread(balance: Balance, weights: &[u32], rounds: u64, open: usize) -> Vec<u32> {
    let backends = backends(u8::try_from(weights.len()).unwrap());
    let mut counts = vec![0; weights.len()];
    let mut live = std::collections::VecDeque::new();
    for round in 0..rounds {
        let index = pick(&choice(balance, round), &backends, |index| weights[index]).unwrap();
        counts[index] += 1;
        backends[index].live.acquire();
        live.push_back(index);
        if live.len() > open {
            backends[live.pop_front().unwrap()].live.release();
        }
    }
    counts
}

/// Each share is within `percent` of what its weight asks for.
fn check(balance: Balance, weights: &[u32], open: usize, percent: f64) {
    let counts = spread(balance, weights, 20_000, open);
    let total: u32 = weights.iter().sum();
    for (count, weight) in counts.iter().zip(weights) {
        let expect = 20_000.0 * f64::from(*weight) / f64::from(total);
        let off = (f64::from(*count) - expect).abs() / expect * 100.0;
        assert!(off <= percent, "{balance:?} of {weights:?}: {counts:?}, {off:.1} % off");
    }
}

#[test]
fn shares_follow_the_weights() {
    check(Balance::LeastConnections, &[1, 1, 1, 1], 100, 1.0);
    check(Balance::LeastConnections, &[1, 2, 3, 4], 100, 2.0);
    check(Balance::LeastConnections, &[1, 2, 3, 4], 0, 5.0);
    check(Balance::LeastConnections, &[1, 1000], 5000, 20.0);
    check(Balance::RandomOfTwo, &[1, 1, 1, 1], 100, 2.0);
    check(Balance::RandomOfTwo, &[1, 2, 3, 4], 1000, 3.0);
    check(Balance::SourceHash, &[1, 1, 1, 1], 0, 5.0);
    check(Balance::SourceHash, &[1, 2, 3, 4], 0, 5.0);
}

#[test]
fn the_least_loaded_for_its_weight_is_picked() {
    let backends = backends(3);
    for (index, connections) in [(0, 2), (1, 3), (2, 9)] {
        (0..connections).for_each(|_| backends[index].live.acquire());
    }
    for random in 0..100 {
        let pick =
            |weights: [u32; 3]| pick(&choice(Balance::LeastConnections, random), &backends, |i| weights[i]);
        assert_eq!(pick([1, 1, 1]), Some(0));
        assert_eq!(pick([1, 2, 1]), Some(1));
        assert_eq!(pick([1, 1, 5]), Some(2));
    }
}

#[test]
fn the_better_of_two_is_picked_and_the_worst_never() {
    let backends = backends(4);
    (0..5).for_each(|_| backends[3].live.acquire());
    let mut seen = [0; 4];
    for random in 0..6000 {
        seen[pick(&choice(Balance::RandomOfTwo, random), &backends, |_| 1).unwrap()] += 1;
    }
    assert_eq!(seen[3], 0);
    assert!(seen[..3].iter().all(|count| (1800..2200).contains(count)), "{seen:?}");
}

#[test]
fn one_that_leaves_moves_its_own_clients_only() {
    let backends = backends(5);
    let weights = [1, 2, 1, 3, 1];
    let of =
        |client: u64| pick(&choice(Balance::SourceHash, client), &backends, |index| weights[index]).unwrap();
    let before: Vec<usize> = (0..5000).map(of).collect();
    backends[3].live.set_draining(true, NOW);
    let after: Vec<usize> = (0..5000).map(of).collect();
    assert!(before.iter().zip(&after).all(|(before, after)| before == after || *before == 3));
    assert!(after.iter().all(|index| *index != 3));
    for other in [0, 1, 2, 4] {
        let gained =
            before.iter().zip(&after).filter(|(before, after)| **before == 3 && **after == other).count();
        assert!(gained > 200, "{other} gained {gained}");
    }
    backends[3].live.set_draining(false, NOW);
    assert_eq!((0..5000).map(of).collect::<Vec<_>>(), before);
}

#[test]
fn the_order_of_backends_does_not_matter_to_a_client() {
    let backends = backends(5);
    let reversed: Vec<_> = backends.iter().rev().cloned().collect();
    for client in 0..1000 {
        let choice = choice(Balance::SourceHash, client);
        assert_eq!(pick(&choice, &backends, |_| 1).unwrap(), 4 - pick(&choice, &reversed, |_| 1).unwrap());
    }
}

#[test]
fn a_client_is_known_again_in_every_process() {
    let hash = |address: &str| source_hash(address.parse().unwrap());
    assert_eq!(hash("192.0.2.1"), 0x6823_0e03_9f36_48b7, "a change moves every client");
    assert_eq!(hash("::ffff:192.0.2.1"), hash("192.0.2.1"));
    assert_ne!(hash("192.0.2.2"), hash("192.0.2.1"));
    assert_eq!(hash("2001:db8::1"), hash("2001:db8::2"), "one /64");
    assert_ne!(hash("2001:db8:0:1::1"), hash("2001:db8::1"));
}

#[test]
fn who_is_down_draining_or_tried_is_never_picked() {
    for balance in [Balance::LeastConnections, Balance::RandomOfTwo, Balance::SourceHash] {
        let mut backends = backends(4);
        let checked = Arc::new(Checked::default());
        checked.failed(1, 1, String::new());
        backends[0].checked = Some(checked);
        backends[1].live.set_draining(true, 1);
        let mut choice = choice(balance, 1);
        choice.tried.insert(2);
        assert_eq!(pick(&choice, &backends, |_| 1), Some(3), "{balance:?}");
        choice.tried.insert(3);
        assert_eq!(pick(&choice, &backends, |_| 1), None, "{balance:?}");
        assert_eq!(pick(&choice, &backends[..1], |_| 1), None);
        assert_eq!(pick(&choice, &backends[1..2], |_| 1), None);
        assert_eq!(pick(&choice, &[], |_| 1), None);
    }
}

#[test]
fn the_ejected_are_tried_when_no_other_is_left() {
    for balance in [Balance::LeastConnections, Balance::RandomOfTwo, Balance::SourceHash] {
        let backends = backends(3);
        assert!(backends[0].live.connect_failed(NOW - 1, 1, 100));
        assert!(backends[1].live.connect_failed(NOW - 1, 1, 100));
        let mut choice = choice(balance, 1);
        assert_eq!(pick(&choice, &backends, |_| 1), Some(2), "{balance:?}");
        choice.tried.insert(2);
        assert!(pick(&choice, &backends, |_| 1).is_some_and(|index| index < 2), "{balance:?}");
        assert_eq!(pick(&choice, &backends[..1], |_| 1), Some(0), "the only one");
    }
}

#[test]
fn slow_start_gives_a_smaller_share() {
    let backends = backends(2);
    backends[1].live.set_draining(true, 1);
    backends[1].live.set_draining(false, NOW);
    let mut seen = [0_u32; 2];
    for random in 0..11_000 {
        let choice = Choice { slow_start_ms: 1000, ..choice(Balance::SourceHash, random) };
        seen[pick(&choice, &backends, |_| 1).unwrap()] += 1;
    }
    assert!((850..1150).contains(&seen[1]), "{seen:?}: a tenth of the other");
}

#[test]
fn tried_remembers_256() {
    let mut tried = Tried::default();
    for index in [0, 63, 64, 255, 256, 100_000] {
        assert!(!tried.contains(index));
        tried.insert(index);
        assert_eq!(tried.contains(index), index < 256);
    }
    assert!(!tried.contains(1));
}
