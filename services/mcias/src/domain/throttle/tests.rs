//! The throttle: rules by hand, and attackers who try to get more guesses or to keep the owner out.

use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

/// Directly from an address.
fn at(text: &str) -> Origin {
    Origin::from(text.parse::<IpAddr>().unwrap())
}

/// From an address, as a service states it.
fn stated(service: &str, text: &str) -> Origin {
    Origin { stated_by: Some(name(service)), ..at(text) }
}

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn throttle() -> Throttle {
    Throttle::new(Limits::default())
}

/// One attempt that fails at once, where it is let through.
fn guess(
    throttle: &mut Throttle,
    account: &Name,
    source: &Origin,
    familiar: bool,
    now: Duration,
) -> Result<(), Duration> {
    throttle.check(account, source, familiar, now)?;
    throttle.failed(account, source, familiar, now);
    Ok(())
}

#[test]
fn a_source_is_an_address_or_a_customer_s_network() {
    let check = |a, b, same| assert_eq!(at(a).source == at(b).source, same, "{a} {b}");
    check("192.0.2.1", "192.0.2.1", true);
    check("192.0.2.1", "192.0.2.2", false);
    check("192.0.2.1", "::ffff:192.0.2.1", true);
    check("2001:db8::1", "2001:db8::ffff:1:2:3", true);
    check("2001:db8::1", "2001:db8:0:1::1", false);
    assert_eq!(at("2001:db8::1").source.to_string(), "2001:db8::/64");
    assert_eq!(at("192.0.2.1").source.to_string(), "192.0.2.1");
}

#[test]
fn a_pair_waits_twice_as_long_each_time() {
    let (mut throttle, ada, source) = (throttle(), name("ada"), at("192.0.2.1"));
    let mut now = s(1000);
    for _ in 0..5 {
        assert_eq!(guess(&mut throttle, &ada, &source, true, now), Ok(()));
    }
    for delay in [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900, 900] {
        assert_eq!(throttle.check(&ada, &source, true, now), Err(s(delay)));
        // Trying too early prolongs nothing.
        assert_eq!(throttle.check(&ada, &source, true, now + s(delay) - s(1)), Err(s(1)));
        now += s(delay);
        assert_eq!(guess(&mut throttle, &ada, &source, true, now), Ok(()));
    }
    // The delay begins when the attempt has failed: hashing takes a while.
    throttle.failed(&ada, &source, true, now + s(5));
    assert_eq!(throttle.check(&ada, &source, true, now + s(5)), Err(s(900)));
    // An hour later all is as it was.
    for _ in 0..5 {
        assert_eq!(guess(&mut throttle, &ada, &source, true, now + s(3605)), Ok(()));
    }
    assert_eq!(throttle.check(&ada, &source, true, now + s(3605)), Err(s(1)));
}

/// Clients are told in whole seconds: a rest of a second is one, in the message as in `retry-after`.
#[test]
fn the_time_to_wait_is_in_whole_seconds() {
    let (mut throttle, ada, source) = (throttle(), name("ada"), at("192.0.2.1"));
    for _ in 0..6 {
        guess(&mut throttle, &ada, &source, true, s(0)).ok();
    }
    for (passed_ms, expect) in [(1, s(1)), (999, s(1))] {
        let now = Duration::from_millis(passed_ms);
        assert_eq!(throttle.check(&ada, &source, true, now), Err(expect), "{passed_ms}");
    }
    let mut codes = Throttle::new(Limits { code_free: 0, ..Limits::default() });
    codes.code(&ada, false, s(0)).ok();
    let Err(wait) = codes.code(&ada, false, Duration::from_millis(300)) else { panic!("it is delayed") };
    assert_eq!(wait.subsec_nanos(), 0);
}

#[test]
fn attempts_at_once_are_all_counted() {
    let (mut throttle, source) = (throttle(), at("192.0.2.1"));
    let one = (0..1000).filter(|_| throttle.check(&name("ada"), &source, true, s(1)).is_ok()).count();
    assert_eq!(one, 5);
    let many =
        (0..1000).filter(|n| throttle.check(&name(&format!("a{n}")), &source, false, s(1)).is_ok()).count();
    assert_eq!(many, 20);
    // None was answered: they were given up, which does not take them back.
    assert!(throttle.check(&name("ada"), &source, true, s(1)).is_err());
    // In the delay, one at a time.
    let next = (0..1000).filter(|_| throttle.check(&name("ada"), &source, true, s(2)).is_ok()).count();
    assert_eq!(next, 1);
}

#[test]
fn logging_in_to_one_s_own_account_takes_back_one_attempt_of_the_source() {
    let (mut throttle, source, own) = (throttle(), at("192.0.2.1"), name("mallory"));
    let mut guesses = 0;
    for n in 0..1000 {
        for familiar in [false, true] {
            if throttle.check(&own, &source, familiar, s(1)).is_ok() {
                throttle.succeeded(&own, &source);
            }
        }
        guesses += u32::from(guess(&mut throttle, &name(&format!("a{n}")), &source, false, s(1)).is_ok());
    }
    assert_eq!(guesses, 20);
    // Success with nothing pending is harmless too.
    throttle.succeeded(&own, &source);
    assert!(guess(&mut throttle, &name("other"), &source, false, s(1)).is_err());
}

#[test]
fn a_success_takes_back_what_it_reserved_and_no_more() {
    let (mut throttle, source, own, now) = (throttle(), at("192.0.2.1"), name("mallory"), s(1));
    throttle.check(&name("ada"), &source, false, now).unwrap();
    throttle.check(&own, &source, false, now).unwrap();
    throttle.check(&own, &source, true, now).unwrap();
    let check = |throttle: &Throttle, of_source, of_pair| {
        assert_eq!(throttle.direct.sources.get(&source.source, now).attempts(), of_source);
        assert_eq!(throttle.direct.pairs.get(&(name("mallory"), source.source), now).attempts(), of_pair);
    };
    check(&throttle, 2, 2);
    throttle.succeeded(&own, &source);
    check(&throttle, 1, 1);
    throttle.succeeded(&own, &source);
    check(&throttle, 1, 0);
    throttle.check(&own, &source, true, now).unwrap();
    throttle.succeeded(&own, &source);
    check(&throttle, 1, 0);
    // Failures of the pair are forgotten, what is pending is not.
    guess(&mut throttle, &own, &source, true, now).unwrap();
    throttle.check(&own, &source, true, now).unwrap();
    throttle.check(&own, &source, true, now).unwrap();
    check(&throttle, 1, 3);
    throttle.succeeded(&own, &source);
    check(&throttle, 1, 1);
}

#[test]
fn a_success_ends_the_delay_of_its_pair() {
    let (mut throttle, ada, source) = (throttle(), name("ada"), at("192.0.2.1"));
    for _ in 0..5 {
        guess(&mut throttle, &ada, &source, true, s(1)).unwrap();
    }
    throttle.check(&ada, &source, true, s(2)).unwrap();
    throttle.succeeded(&ada, &source);
    assert_eq!(guess(&mut throttle, &ada, &source, true, s(2)), Ok(()));
    assert_eq!(throttle.direct.pairs.get(&(ada, source.source), s(2)).attempts(), 1);
}

#[test]
fn an_account_under_attack_slows_each_new_source_by_itself() {
    let (mut throttle, ada) = (throttle(), name("ada"));
    // Three hundred addresses with one guess each: those after the free ones wait before the first.
    let sources: Vec<_> = (0..300).map(|n| at(&format!("198.51.{}.{}", n / 250, n % 250))).collect();
    let guesses = |throttle: &mut Throttle, now| {
        sources.iter().filter(|source| guess(throttle, &ada, source, false, now).is_ok()).count()
    };
    assert_eq!(guesses(&mut throttle, s(1)), 20);
    assert_eq!(guesses(&mut throttle, s(1)), 0);
    let (phone, home) = (at("192.0.2.1"), at("192.0.2.2"));
    // On a new device: up to 30 s after having asked, and 30 s after a mistake, whatever is tried meanwhile.
    assert_eq!(throttle.check(&ada, &phone, false, s(2)), Err(s(1)));
    for now in 2..32 {
        guesses(&mut throttle, s(now));
    }
    assert!(throttle.check(&ada, &phone, false, s(31)).is_err());
    assert_eq!(guess(&mut throttle, &ada, &phone, false, s(32)), Ok(()));
    assert_eq!(throttle.check(&ada, &phone, false, s(32)), Err(s(30)));
    // What is given up or refused unseen does not start the wait again.
    let tablet = at("192.0.2.4");
    assert_eq!(throttle.check(&ada, &tablet, false, s(33)), Err(s(30)));
    assert_eq!(throttle.check(&ada, &tablet, false, s(63)), Ok(()));
    throttle.turned_away(&ada, &tablet, s(63));
    assert_eq!(throttle.check(&ada, &tablet, false, s(63)), Ok(()));
    throttle.released(&ada, &tablet);
    assert_eq!(throttle.check(&ada, &tablet, false, s(63)), Ok(()));
    throttle.succeeded(&ada, &tablet);
    // At home: as ever.
    for _ in 0..5 {
        assert_eq!(guess(&mut throttle, &ada, &home, true, s(21)), Ok(()));
    }
    // An hour after the attack a new device is as any other.
    let new = at("192.0.2.3");
    for _ in 0..5 {
        assert_eq!(guess(&mut throttle, &ada, &new, false, s(3700)), Ok(()));
    }
}

#[test]
fn attempts_at_once_from_many_sources_are_all_counted() {
    let (mut throttle, ada) = (throttle(), name("ada"));
    let admitted =
        (0..200).filter(|n| throttle.check(&ada, &at(&format!("198.51.100.{n}")), false, s(1)).is_ok());
    assert_eq!(admitted.count(), 20);
}

#[test]
fn what_is_refused_unseen_costs_its_source_and_nobody_else() {
    let (mut throttle, source) = (throttle(), at("192.0.2.1"));
    let mut now = s(1);
    let turned_away = |throttle: &mut Throttle, familiar, now| {
        throttle
            .check(&name("ada"), &source, familiar, now)
            .map(|()| throttle.turned_away(&name("ada"), &source, now))
    };
    for _ in 0..20 {
        assert_eq!(turned_away(&mut throttle, false, now), Ok(()));
    }
    for delay in [1, 2, 4, 8, 10, 10] {
        assert_eq!(turned_away(&mut throttle, false, now), Err(s(delay)));
        now += s(delay);
        assert_eq!(turned_away(&mut throttle, false, now), Ok(()));
    }
    // Where it is familiar, it may go on; others are not concerned, and neither is the account.
    for _ in 0..100 {
        assert_eq!(turned_away(&mut throttle, true, now), Ok(()));
    }
    assert_eq!(throttle.check(&name("ada"), &at("192.0.2.2"), false, now), Ok(()));
    assert_eq!(throttle.direct.accounts.get(&name("ada"), now).attempts(), 1);
    // A minute later all is as it was.
    for _ in 0..20 {
        assert_eq!(turned_away(&mut throttle, false, now + s(60)), Ok(()));
    }
}

#[test]
fn what_a_service_states_is_counted_apart_and_bounded() {
    let (mut throttle, ada) = (throttle(), name("ada"));
    // A service that lies about ada's own address shuts her out of itself, and nothing else.
    let home = "192.0.2.1";
    for _ in 0..12 {
        guess(&mut throttle, &ada, &stated("liar", home), true, s(1)).ok();
    }
    assert!(throttle.check(&ada, &stated("liar", home), true, s(1)).is_err());
    for origin in [at(home), stated("mcr", home)] {
        assert_eq!(throttle.check(&ada, &origin, true, s(1)), Ok(()));
        throttle.succeeded(&ada, &origin);
    }
    // It can make up addresses and accounts, and has a thousand failures in an hour: then one each 3.6 s.
    let origin = |n: u32| stated("liar", &Ipv4Addr::from_bits(n).to_string());
    let mut guesses = 0_u32;
    let mut number = 0;
    for second in 0..7200 {
        for _ in 0..10 {
            number += 1;
            let account = name(&format!("a{number}"));
            guesses += u32::from(guess(&mut throttle, &account, &origin(number), false, s(second)).is_ok());
        }
    }
    assert!((2990..=3010).contains(&guesses), "{guesses}");
    // Who is familiar logs in through it all the same, and directly nobody notices.
    let known = stated("liar", "192.0.2.9");
    assert_eq!(throttle.check(&ada, &known, true, s(7200)), Ok(()));
    assert_eq!(throttle.check(&ada, &at("192.0.2.10"), false, s(7200)), Ok(()));
    throttle.succeeded(&ada, &known);
}

#[test]
fn logins_that_succeed_do_not_use_up_a_service_s_failures() {
    let mut throttle = Throttle::new(Limits { service_max_per_hour: 10, ..Limits::default() });
    for n in 0..1000 {
        let (account, origin) = (name(&format!("a{n}")), stated("mcr", &Ipv4Addr::from_bits(n).to_string()));
        assert_eq!(throttle.check(&account, &origin, false, s(1)), Ok(()));
        if n % 2 == 0 { throttle.succeeded(&account, &origin) } else { throttle.released(&account, &origin) }
    }
    let space = &throttle.stated[&name("mcr")];
    assert!(
        space.pairs.counts.is_empty() && space.sources.counts.is_empty() && space.accounts.counts.is_empty()
    );
}

#[test]
fn services_take_bounded_memory() {
    let limits = Limits { entries: 3200, ..Limits::default() };
    let mut throttle = Throttle::new(limits);
    for n in 0..40_u32 {
        for address in 0..500 {
            let origin = stated(&format!("s{n}"), &Ipv4Addr::from_bits(address).to_string());
            guess(&mut throttle, &name(&format!("a{address}")), &origin, false, s(n.into())).ok();
        }
    }
    assert_eq!(throttle.stated.len(), 32);
    let entries: usize = throttle.stated.values().map(|space| space.pairs.counts.len()).sum();
    assert!(entries <= 3200, "{entries}");
    assert!(throttle.stated.contains_key(&name("s39")) && !throttle.stated.contains_key(&name("s0")));
}

/// Guesses in a day: as soon as each is let through, and an hour's pause after every so many.
fn guesses_a_day(pause_after: u32, account: impl Fn(u32) -> Name) -> u32 {
    let (mut throttle, source, mut now, mut guesses) = (throttle(), at("192.0.2.1"), s(0), 0);
    while now < DAY {
        match guess(&mut throttle, &account(guesses), &source, false, now) {
            Ok(()) => {
                guesses += 1;
                if guesses % pause_after == 0 {
                    now += s(3600);
                }
            }
            Err(wait) => now += wait,
        }
    }
    guesses
}

#[test]
fn guesses_of_one_source_are_bounded() {
    // Pauses pay: failures are forgotten in them. The best is taken, of any regular ones.
    let best = |account: &dyn Fn(u32) -> Name| {
        (1..100).chain([u32::MAX]).map(|pause| guesses_a_day(pause, account)).max().unwrap()
    };
    let (one, all) = (best(&|_| name("ada")), best(&|n| name(&format!("a{n}"))));
    assert!((280..=320).contains(&one), "{one}");
    assert!((580..=660).contains(&all), "{all}");
}

#[test]
fn memory_is_bounded_and_the_worst_is_not_forgotten() {
    let mut throttle = Throttle::new(Limits { entries: 100, ..Limits::default() });
    let (ada, mallory) = (name("ada"), at("192.0.2.66"));
    let mut now = s(0);
    for _ in 0..25 {
        while let Err(wait) = guess(&mut throttle, &ada, &mallory, false, now) {
            now += wait;
        }
    }
    for n in 0..5000 {
        let source = at(&format!("10.0.{}.{}", n / 250, n % 250));
        guess(&mut throttle, &name(&format!("a{n}")), &source, false, now).unwrap();
        let sizes = [
            throttle.direct.pairs.counts.len(),
            throttle.direct.sources.counts.len(),
            throttle.direct.accounts.counts.len(),
        ];
        assert!(sizes.iter().all(|size| *size <= 100), "{sizes:?}");
    }
    assert!(throttle.direct.pairs.counts.len() > 80);
    assert_eq!(throttle.check(&ada, &mallory, false, now), Err(s(900)));
    assert_eq!(throttle.direct.accounts.get(&ada, now).attempts(), 25);
    let tiny = Limits { entries: 0, ..Limits::default() };
    assert_eq!(guess(&mut Throttle::new(tiny), &ada, &mallory, false, now), Ok(()));
}

#[test]
fn limits_are_read_from_the_configuration() {
    assert_eq!(serde_json::from_str::<Limits>("{}").unwrap(), Limits::default());
    assert!(serde_json::from_str::<Limits>(r#"{"pair": 1}"#).is_err());
    // Whatever they say, no delay is longer than it and nothing overflows.
    let limits = Limits { pair_free: 0, pair_max_delay_s: u32::MAX, ..Limits::default() };
    let (mut throttle, ada, source, mut now) = (Throttle::new(limits), name("ada"), at("192.0.2.1"), s(0));
    for _ in 0..50 {
        if let Err(wait) = guess(&mut throttle, &ada, &source, true, now) {
            now += wait;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Attackers may do all they like from elsewhere: fail, give up, log in to their own accounts, also from the owner's
    /// address to other accounts.
    #[test]
    fn the_owner_is_not_kept_out(
        moves in prop::collection::vec((0_u8..40, 0_u8..4, any::<bool>(), 0_u64..20), 1..400),
        small in any::<bool>(),
    ) {
        let entries = if small { 10 } else { 100_000 };
        let mut throttle = Throttle::new(Limits { entries, ..Limits::default() });
        let (ada, home, phone) = (name("ada"), at("192.0.2.1"), at("192.0.2.2"));
        let mut now = s(0);
        let mut waits_since: Option<Duration> = None;
        for (place, what, own, later) in moves {
            now += s(later);
            let elsewhere = at(&format!("198.51.100.{place}"));
            let target = if own { name("mallory") } else { ada.clone() };
            match what {
                0 => { throttle.check(&target, &elsewhere, false, now).ok(); }
                1 => { guess(&mut throttle, &name(&format!("a{place}")), &home, false, now).ok(); }
                2 if own => throttle.succeeded(&target, &elsewhere),
                _ => { guess(&mut throttle, &target, &elsewhere, false, now).ok(); }
            }
            // At home: at once, always; whatever a service states.
            let lie = stated("liar", if own { "192.0.2.1" } else { "192.0.2.2" });
            guess(&mut throttle, &ada, &lie, place % 3 == 0, now).ok();
            prop_assert_eq!(throttle.check(&ada, &home, true, now), Ok(()));
            throttle.succeeded(&ada, &home);
            // On a new device: mistakes, and never more than 30 s after one, or after it first asked.
            match throttle.check(&ada, &phone, false, now) {
                Ok(()) if place % 2 == 0 => {
                    throttle.failed(&ada, &phone, false, now);
                    waits_since = Some(now);
                }
                Ok(()) => {
                    throttle.succeeded(&ada, &phone);
                    waits_since = None;
                }
                Err(wait) => {
                    // Its own failures count, and 30 s after the last one those of others. Nothing else.
                    let since = *waits_since.get_or_insert(now);
                    let others = (since + s(30)).saturating_sub(now);
                    let own = throttle.direct.pairs.get(&(ada.clone(), phone.source), now);
                    let own_delay = own.wait(5, 900, now);
                    let source = throttle.direct.sources.get(&phone.source, now);
                    let source_delay = source.wait(20, 300, now);
                    let most = own_delay.max(source_delay).max(others);
                    prop_assert!(small || wait <= most, "{wait:?} > {most:?}");
                }
            }
        }
    }

    /// In any order of answers, at most the free ones and one for each delay are in flight.
    #[test]
    fn no_order_of_answers_gives_more_guesses(moves in prop::collection::vec((any::<bool>(), 0_u64..40), 1..300)) {
        let (mut throttle, ada, source) = (throttle(), name("ada"), at("192.0.2.1"));
        let (mut now, mut let_through, mut pending) = (s(0), 0_u32, 0_u32);
        let mut last = s(0);
        for (answer, later) in moves {
            now += Duration::from_millis(later * 25);
            if answer && pending > 0 {
                throttle.failed(&ada, &source, true, now);
                pending -= 1;
            } else if throttle.check(&ada, &source, true, now).is_ok() {
                let least = let_through.checked_sub(5).map_or(Duration::ZERO, |over| s(1 << over.min(9)));
                prop_assert!(now - last >= least);
                let_through += 1;
                pending += 1;
                last = now;
            }
        }
    }
}

#[test]
fn codes_are_slowed_down_wherever_they_come_from() {
    let (mut throttle, ada) = (throttle(), name("ada"));
    let mut now = s(1000);
    for _ in 0..5 {
        assert_eq!(throttle.code(&ada, false, now), Ok(()));
    }
    for delay in [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900] {
        // A right one is not told from a wrong one.
        assert_eq!(throttle.code(&ada, true, now), Err(s(delay)));
        assert_eq!(throttle.code(&ada, false, now + s(delay) - s(1)), Err(s(1)));
        now += s(delay);
        assert_eq!(throttle.code(&ada, false, now), Ok(()));
    }
    assert_eq!(throttle.code(&name("bob"), false, now), Ok(()));
    // Passwords are not: others cannot keep her from showing hers.
    assert_eq!(throttle.check(&ada, &at("192.0.2.1"), false, now), Ok(()));
    now += s(900);
    assert_eq!(throttle.code(&ada, true, now), Ok(()));
    for _ in 0..5 {
        assert_eq!(throttle.code(&ada, false, now), Ok(()));
    }
}

#[test]
fn a_day_has_few_codes() {
    // Whether the guesser goes on and on, or rests now and then: in a week.
    for (works, rests) in [(7 * 86_400, 0), (520, 3600), (520, 7200), (900, 40_000), (4000, 86_000)] {
        let (mut throttle, ada) = (throttle(), name("ada"));
        let at_work = (0..7 * 86_400).filter(|second| second % (works + rests) < works);
        let guesses = at_work.filter(|second| throttle.code(&ada, false, s(*second)).is_ok()).count();
        assert!(guesses <= 7 * 110, "{works} {rests}: {guesses}");
    }
}
