//! The throttle: rules by hand, and attackers who try to get more guesses or to keep the owner out.

use proptest::prelude::*;

use super::*;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn at(text: &str) -> Source {
    Source::from(text.parse::<IpAddr>().unwrap())
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
    source: Source,
    familiar: bool,
    now: Duration,
) -> Result<(), Duration> {
    throttle.check(account, source, familiar, now)?;
    throttle.failed(account, source, familiar, now);
    Ok(())
}

#[test]
fn a_source_is_an_address_or_a_customer_s_network() {
    let check = |a, b, same| assert_eq!(at(a) == at(b), same, "{a} {b}");
    check("192.0.2.1", "192.0.2.1", true);
    check("192.0.2.1", "192.0.2.2", false);
    check("192.0.2.1", "::ffff:192.0.2.1", true);
    check("2001:db8::1", "2001:db8::ffff:1:2:3", true);
    check("2001:db8::1", "2001:db8:0:1::1", false);
    assert_eq!(at("2001:db8::1").to_string(), "2001:db8::/64");
    assert_eq!(at("192.0.2.1").to_string(), "192.0.2.1");
}

#[test]
fn a_pair_waits_twice_as_long_each_time() {
    let (mut throttle, ada, source) = (throttle(), name("ada"), at("192.0.2.1"));
    let mut now = s(1000);
    for _ in 0..5 {
        assert_eq!(guess(&mut throttle, &ada, source, true, now), Ok(()));
    }
    for delay in [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900, 900] {
        assert_eq!(throttle.check(&ada, source, true, now), Err(s(delay)));
        // Trying too early prolongs nothing.
        assert_eq!(throttle.check(&ada, source, true, now + s(delay) - s(1)), Err(s(1)));
        now += s(delay);
        assert_eq!(guess(&mut throttle, &ada, source, true, now), Ok(()));
    }
    // The delay begins when the attempt has failed: hashing takes a while.
    throttle.failed(&ada, source, true, now + s(5));
    assert_eq!(throttle.check(&ada, source, true, now + s(5)), Err(s(900)));
    // An hour later all is as it was.
    for _ in 0..5 {
        assert_eq!(guess(&mut throttle, &ada, source, true, now + s(3605)), Ok(()));
    }
    assert_eq!(throttle.check(&ada, source, true, now + s(3605)), Err(s(1)));
}

/// Clients are told in whole seconds: a rest of a second is one, in the message as in `retry-after`.
#[test]
fn the_time_to_wait_is_in_whole_seconds() {
    let (mut throttle, ada, source) = (throttle(), name("ada"), at("192.0.2.1"));
    for _ in 0..6 {
        guess(&mut throttle, &ada, source, true, s(0)).ok();
    }
    for (passed_ms, expect) in [(1, s(1)), (999, s(1))] {
        let now = Duration::from_millis(passed_ms);
        assert_eq!(throttle.check(&ada, source, true, now), Err(expect), "{passed_ms}");
    }
    let mut codes = Throttle::new(Limits { code_free: 0, ..Limits::default() });
    codes.code(&ada, false, s(0)).ok();
    let Err(wait) = codes.code(&ada, false, Duration::from_millis(300)) else { panic!("it is delayed") };
    assert_eq!(wait.subsec_nanos(), 0);
}

#[test]
fn attempts_at_once_are_all_counted() {
    let (mut throttle, source) = (throttle(), at("192.0.2.1"));
    let one = (0..1000).filter(|_| throttle.check(&name("ada"), source, true, s(1)).is_ok()).count();
    assert_eq!(one, 5);
    let many =
        (0..1000).filter(|n| throttle.check(&name(&format!("a{n}")), source, false, s(1)).is_ok()).count();
    assert_eq!(many, 20);
    // None was answered: they were given up, which does not take them back.
    assert!(throttle.check(&name("ada"), source, true, s(1)).is_err());
    // In the delay, one at a time.
    let next = (0..1000).filter(|_| throttle.check(&name("ada"), source, true, s(2)).is_ok()).count();
    assert_eq!(next, 1);
}

#[test]
fn logging_in_to_one_s_own_account_takes_back_one_attempt_of_the_source() {
    let (mut throttle, source, own) = (throttle(), at("192.0.2.1"), name("mallory"));
    let mut guesses = 0;
    for n in 0..1000 {
        for familiar in [false, true] {
            if throttle.check(&own, source, familiar, s(1)).is_ok() {
                throttle.succeeded(&own, source);
            }
        }
        guesses += u32::from(guess(&mut throttle, &name(&format!("a{n}")), source, false, s(1)).is_ok());
    }
    assert_eq!(guesses, 20);
    // Success with nothing pending is harmless too.
    throttle.succeeded(&own, source);
    assert!(guess(&mut throttle, &name("other"), source, false, s(1)).is_err());
}

#[test]
fn a_success_takes_back_what_it_reserved_and_no_more() {
    let (mut throttle, source, own, now) = (throttle(), at("192.0.2.1"), name("mallory"), s(1));
    throttle.check(&name("ada"), source, false, now).unwrap();
    throttle.check(&own, source, false, now).unwrap();
    throttle.check(&own, source, true, now).unwrap();
    let check = |throttle: &Throttle, of_source, of_pair| {
        assert_eq!(throttle.sources.get(&source, now).attempts(), of_source);
        assert_eq!(throttle.pairs.get(&(name("mallory"), source), now).attempts(), of_pair);
    };
    check(&throttle, 2, 2);
    throttle.succeeded(&own, source);
    check(&throttle, 1, 1);
    throttle.succeeded(&own, source);
    check(&throttle, 1, 0);
    throttle.check(&own, source, true, now).unwrap();
    throttle.succeeded(&own, source);
    check(&throttle, 1, 0);
    // Failures of the pair are forgotten, what is pending is not.
    guess(&mut throttle, &own, source, true, now).unwrap();
    throttle.check(&own, source, true, now).unwrap();
    throttle.check(&own, source, true, now).unwrap();
    check(&throttle, 1, 3);
    throttle.succeeded(&own, source);
    check(&throttle, 1, 1);
}

#[test]
fn a_success_ends_the_delay_of_its_pair() {
    let (mut throttle, ada, source) = (throttle(), name("ada"), at("192.0.2.1"));
    for _ in 0..5 {
        guess(&mut throttle, &ada, source, true, s(1)).unwrap();
    }
    throttle.check(&ada, source, true, s(2)).unwrap();
    throttle.succeeded(&ada, source);
    assert_eq!(guess(&mut throttle, &ada, source, true, s(2)), Ok(()));
    assert_eq!(throttle.pairs.get(&(ada, source), s(2)).attempts(), 1);
}

#[test]
fn an_account_under_attack_slows_each_new_source_by_itself() {
    let (mut throttle, ada) = (throttle(), name("ada"));
    for n in 0..100 {
        let source = at(&format!("198.51.100.{n}"));
        assert_eq!(guess(&mut throttle, &ada, source, false, s(1)), Ok(()));
    }
    let (phone, home) = (at("192.0.2.1"), at("192.0.2.2"));
    // On a new device: at once, and 30 s after a mistake, whatever is tried meanwhile.
    assert_eq!(guess(&mut throttle, &ada, phone, false, s(2)), Ok(()));
    assert_eq!(throttle.check(&ada, phone, false, s(2)), Err(s(30)));
    for n in 0..100 {
        guess(&mut throttle, &ada, at(&format!("203.0.113.{n}")), false, s(20)).unwrap();
    }
    assert_eq!(throttle.check(&ada, phone, false, s(32)), Ok(()));
    // At home: as ever.
    for _ in 0..5 {
        assert_eq!(guess(&mut throttle, &ada, home, true, s(21)), Ok(()));
    }
    // An hour after the attack a new device is as any other.
    let new = at("192.0.2.3");
    for _ in 0..5 {
        assert_eq!(guess(&mut throttle, &ada, new, false, s(3700)), Ok(()));
    }
}

/// Guesses in a day: as soon as each is let through, and an hour's pause after every so many.
fn guesses_a_day(pause_after: u32, account: impl Fn(u32) -> Name) -> u32 {
    let (mut throttle, source, mut now, mut guesses) = (throttle(), at("192.0.2.1"), s(0), 0);
    while now < DAY {
        match guess(&mut throttle, &account(guesses), source, false, now) {
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
        while let Err(wait) = guess(&mut throttle, &ada, mallory, false, now) {
            now += wait;
        }
    }
    for n in 0..5000 {
        let source = at(&format!("10.0.{}.{}", n / 250, n % 250));
        guess(&mut throttle, &name(&format!("a{n}")), source, false, now).unwrap();
        let sizes =
            [throttle.pairs.counts.len(), throttle.sources.counts.len(), throttle.accounts.counts.len()];
        assert!(sizes.iter().all(|size| *size <= 100), "{sizes:?}");
    }
    assert!(throttle.pairs.counts.len() > 80);
    assert_eq!(throttle.check(&ada, mallory, false, now), Err(s(900)));
    assert_eq!(throttle.accounts.get(&ada, now).attempts(), 25);
    let tiny = Limits { entries: 0, ..Limits::default() };
    assert_eq!(guess(&mut Throttle::new(tiny), &ada, mallory, false, now), Ok(()));
}

#[test]
fn limits_are_read_from_the_configuration() {
    assert_eq!(serde_json::from_str::<Limits>("{}").unwrap(), Limits::default());
    assert!(serde_json::from_str::<Limits>(r#"{"pair": 1}"#).is_err());
    // Whatever they say, no delay is longer than it and nothing overflows.
    let limits = Limits { pair_free: 0, pair_max_delay_s: u32::MAX, ..Limits::default() };
    let (mut throttle, ada, source, mut now) = (Throttle::new(limits), name("ada"), at("192.0.2.1"), s(0));
    for _ in 0..50 {
        if let Err(wait) = guess(&mut throttle, &ada, source, true, now) {
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
        let mut typo: Option<Duration> = None;
        for (place, what, own, later) in moves {
            now += s(later);
            let elsewhere = at(&format!("198.51.100.{place}"));
            let target = if own { name("mallory") } else { ada.clone() };
            match what {
                0 => { throttle.check(&target, elsewhere, false, now).ok(); }
                1 => { guess(&mut throttle, &name(&format!("a{place}")), home, false, now).ok(); }
                2 if own => throttle.succeeded(&target, elsewhere),
                _ => { guess(&mut throttle, &target, elsewhere, false, now).ok(); }
            }
            // At home: at once, always.
            prop_assert_eq!(throttle.check(&ada, home, true, now), Ok(()));
            throttle.succeeded(&ada, home);
            // On a new device: mistakes, and never more than 30 s after one.
            match throttle.check(&ada, phone, false, now) {
                Ok(()) if place % 2 == 0 => {
                    throttle.failed(&ada, phone, false, now);
                    typo = Some(now);
                }
                Ok(()) => {
                    throttle.succeeded(&ada, phone);
                    typo = None;
                }
                Err(wait) => {
                    // Its own failures count, and 30 s after the last one those of others. Nothing else.
                    let others = typo.map_or(Duration::ZERO, |typo| (typo + s(30)).saturating_sub(now));
                    let own = throttle.pairs.get(&(ada.clone(), phone), now);
                    let own_delay = own.wait(own.attempts(), 5, 900, now);
                    let source = throttle.sources.get(&phone, now);
                    let source_delay = source.wait(source.attempts(), 20, 300, now);
                    let most = own_delay.max(source_delay).max(others);
                    prop_assert!(wait <= most, "{wait:?} > {most:?}");
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
                throttle.failed(&ada, source, true, now);
                pending -= 1;
            } else if throttle.check(&ada, source, true, now).is_ok() {
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
    assert_eq!(throttle.check(&ada, at("192.0.2.1"), false, now), Ok(()));
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
