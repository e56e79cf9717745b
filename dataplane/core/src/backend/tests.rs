//! A backend's life, step by step and in a seeded simulation with several.

use std::sync::Arc;

use mc_ebpf_abi::mix;

use super::*;
use crate::balance::{Choice, Tried, pick};
use crate::model::Balance;

fn backend() -> BackendLive {
    BackendLive::new("192.0.2.1:443".parse().unwrap())
}

/// As a route without a check sees it.
fn unchecked(backend: &Arc<BackendLive>) -> RouteBackend {
    Arc::clone(backend).into()
}

#[test]
fn failures_in_a_row_eject_for_longer_each_time() {
    let backend = backend();
    assert!(!backend.connect_failed(1000, 3, 100));
    backend.connect_ok(1000);
    assert!(!backend.connect_failed(1000, 3, 100));
    assert!(!backend.connect_failed(1000, 3, 100));
    assert!(backend.connect_failed(1000, 3, 100), "three in a row");
    assert!(!backend.connect_failed(1001, 3, 100), "announced once");
    assert_eq!((backend.health(1099), backend.health(1100)), (Health::Ejected, Health::Up));
    assert!(backend.is_ejected(1099) && !backend.is_ejected(1100));
    // From now on one failure is enough.
    let mut now = 1100;
    for times in (2..=10).chain([10, 10]) {
        assert!(backend.connect_failed(now, 3, 100));
        now += times * 100;
        assert!(backend.is_ejected(now - 1) && !backend.is_ejected(now), "{times} times as long");
    }
    // The last took 1000 ms: a success within as long forgives the failures, not the ejections.
    backend.connect_ok(now + 999);
    for _ in 0..2 {
        assert!(!backend.connect_failed(now + 999, 3, 100));
    }
    assert!(backend.connect_failed(now + 999, 3, 100));
    now += 1999;
    assert!(backend.is_ejected(now - 1) && !backend.is_ejected(now), "still ten times");
    backend.connect_ok(now + 1000);
    for _ in 0..3 {
        backend.connect_failed(now + 1000, 3, 100);
    }
    assert!(backend.is_ejected(now + 1099) && !backend.is_ejected(now + 1100), "forgiven");
    assert_eq!((backend.total(), backend.failures()), (3, 22));
}

#[test]
fn who_may_not_be_ejected_is_not() {
    let backend = backend();
    assert!((0..100).all(|_| !backend.connect_failed(1000, 0, 100)));
    assert!((0..100).all(|_| !backend.connect_failed(1000, 1, 0)));
    assert!(!backend.is_ejected(1000));
}

#[test]
fn a_success_ends_an_ejection() {
    let backend = backend();
    assert!(backend.connect_failed(1000, 1, 100));
    backend.connect_ok(1050);
    assert_eq!(backend.health(1050), Health::Up);
    assert_eq!(backend.since_ms(1050), 1050);
}

#[test]
fn checks_in_a_row_turn_health() {
    let checked = Checked::default();
    let failed = |now_ms, fall| checked.failed(now_ms, fall, format!("at {now_ms}"));
    assert_eq!(checked.health(), Health::Unknown);
    assert_eq!(failed(1, 2), None);
    assert_eq!((checked.is_down(), checked.last_error().as_deref()), (false, Some("at 1")));
    assert_eq!(checked.passed(2, 2), Some(Health::Up), "the first that passes is enough");
    assert_eq!(checked.last_error(), None);
    assert_eq!(checked.passed(3, 2), None);
    assert_eq!(failed(4, 2), None);
    assert_eq!(checked.passed(5, 2), None);
    assert_eq!(failed(6, 2), None, "not in a row");
    assert_eq!(failed(7, 2), Some(Health::Down));
    assert_eq!(failed(8, 2), None);
    assert_eq!((checked.is_down(), checked.since_ms()), (true, 7));
    assert_eq!(checked.last_error().as_deref(), Some("at 8"));
    assert_eq!(checked.passed(9, 2), None);
    assert_eq!(failed(10, 2), None);
    assert_eq!(checked.passed(11, 2), None, "not in a row");
    assert_eq!(checked.passed(12, 2), Some(Health::Up));
    assert_eq!((checked.is_down(), checked.health(), checked.since_ms()), (false, Health::Up, 12));
}

#[test]
fn a_check_is_of_the_routes_that_ask_for_it() {
    let live = Arc::new(backend());
    let (good, bad) = (Arc::new(Checked::default()), Arc::new(Checked::default()));
    let of = |checked| RouteBackend { live: Arc::clone(&live), checked };
    let (without, passes, fails) =
        (unchecked(&live), of(Some(Arc::clone(&good))), of(Some(Arc::clone(&bad))));
    good.passed(5, 1);
    bad.failed(5, 1, String::new());
    let usable = |now_ms| [&without, &passes, &fails].map(|backend| backend.usable(now_ms));
    assert_eq!(usable(6), [true, true, false]);
    assert!(!fails.allowed());
    // Ejection and drain are the address's.
    assert!(live.connect_failed(7, 1, 100));
    assert_eq!((usable(8), usable(107)), ([false; 3], [true, true, false]));
    live.set_draining(true, 108);
    assert_eq!(usable(109), [false; 3]);
}

#[test]
fn an_address_is_down_where_it_is_for_every_route() {
    use Health::{Down, Ejected, PartlyDown, Unknown, Up};
    let check = |address, routes, checks: &[(Health, u64)], expect| {
        assert_eq!(overall(address, routes, checks), expect, "{address:?} of {routes} {checks:?}");
    };
    check(Unknown, 1, &[], Unknown);
    check(Ejected, 1, &[], Ejected);
    check(Unknown, 1, &[(Unknown, 1)], Unknown);
    check(Unknown, 1, &[(Up, 1)], Up);
    check(Ejected, 1, &[(Up, 1)], Ejected);
    check(Up, 1, &[(Down, 1)], Down);
    check(Ejected, 3, &[(Down, 1), (Down, 2)], Down);
    check(Up, 2, &[(Down, 1)], PartlyDown);
    check(Up, 2, &[(Down, 1), (Up, 1)], PartlyDown);
    check(Up, 2, &[(Unknown, 1), (Up, 1)], Up);
    check(Unknown, 0, &[], Unknown);
}

#[test]
fn a_drain_is_an_operators_and_outlives_health() {
    let backend = backend();
    assert!(backend.set_draining(true, 5));
    assert!(!backend.set_draining(true, 6));
    let backend = unchecked(&Arc::new(backend));
    assert!(!backend.usable(6) && !backend.allowed());
    assert_eq!((backend.live.health(6), backend.live.since_ms(6)), (Health::Unknown, 5));
    assert!(backend.live.set_draining(false, 7));
    assert!(backend.usable(7));
}

#[test]
fn who_comes_back_starts_slowly() {
    let check = |backend: &RouteBackend, now_ms: u64, expect: u32| {
        assert_eq!(backend.effective_weight(2, 1000, now_ms), expect, "at {now_ms}");
    };
    let fresh = unchecked(&Arc::new(backend()));
    check(&fresh, 1, 2000);
    assert!(fresh.live.connect_failed(1000, 1, 100));
    check(&fresh, 1100, 200);
    check(&fresh, 1600, 1100);
    check(&fresh, 2100, 2000);
    assert_eq!(fresh.effective_weight(2, 0, 1100), 2000);
    let drained = unchecked(&Arc::new(backend()));
    drained.live.set_draining(true, 5000);
    drained.live.set_draining(false, 6000);
    check(&drained, 6000, 200);
    check(&drained, 7000, 2000);
    let found = Arc::new(Checked::default());
    let checked = RouteBackend { live: Arc::new(backend()), checked: Some(Arc::clone(&found)) };
    found.passed(4000, 1);
    check(&checked, 4000, 2000);
    found.failed(5000, 1, String::new());
    found.passed(6000, 1);
    check(&checked, 6000, 200);
    assert_eq!(fresh.effective_weight(u32::MAX, 0, 0), u32::MAX);
    assert_eq!(fresh.effective_weight(0, 0, 0), 1);
}

#[test]
fn connections_are_counted_and_never_below_none() {
    let backend = backend();
    backend.acquire();
    backend.acquire();
    backend.release();
    assert_eq!(backend.active(), 1);
    backend.release();
    assert_eq!(backend.active(), 0);
}

#[test]
fn threads_announce_one_ejection_and_lose_no_connection() {
    let backend = backend();
    let announced = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..10_000 {
                    backend.acquire();
                    announced.fetch_add(u32::from(backend.connect_failed(1000, 5, 100)), Relaxed);
                    backend.release();
                }
            });
        }
    });
    assert_eq!((announced.into_inner(), backend.active(), backend.failures()), (1, 0, 40_000));
}

/// What the simulation knows of a backend: the truth that its state is to follow.
#[derive(Clone, Debug, Default)]
struct Model {
    open: u32,
    failed_in_a_row: u32,
    ejected_until: u64,
    down: bool,
    draining: bool,
    /// Whether connects to it succeed.
    alive: bool,
}

const EJECT_AFTER: u32 = 3;
const EJECT_MS: u64 = 50;

/// Five backends that live, die, drain and are checked at random. After each step: who is picked was allowed, and
/// usable where anyone was; nobody is refused while one may be tried; counts are true; ejections end.
fn simulate(seed: u64, balance: Balance) {
    let one = |host| RouteBackend {
        live: Arc::new(BackendLive::new(([192, 0, 2, host], 443).into())),
        checked: Some(Arc::default()),
    };
    let backends: Vec<RouteBackend> = (1..=5).map(one).collect();
    let mut models = vec![Model { alive: true, ..Model::default() }; backends.len()];
    let mut random = seed;
    let mut next = |bound: u64| {
        random = mix(random);
        random % bound
    };
    let mut now = 1000;
    let mut picked_ejected = 0;
    for step in 0..3000 {
        let context = || format!("seed {seed}, step {step}, {balance:?}");
        now += next(10);
        let who = usize::try_from(next(5)).unwrap();
        let (backend, model) = (&backends[who].live, &mut models[who]);
        match next(20) {
            0 => model.alive = !model.alive,
            1 => {
                model.draining = !model.draining;
                assert!(backend.set_draining(model.draining, now), "{}", context());
            }
            2 => {
                let checked = backends[who].checked.as_ref().unwrap();
                if model.alive {
                    checked.passed(now, 1);
                } else {
                    checked.failed(now, 1, String::new());
                }
                model.down = !model.alive;
            }
            3..=7 if model.open > 0 => {
                model.open -= 1;
                backend.release();
            }
            _ => {
                let mut tried = Tried::default();
                for _ in 0..3 {
                    let choice = Choice {
                        balance,
                        slow_start_ms: 100,
                        tried,
                        random: next(u64::MAX),
                        source: next(50),
                        now_ms: now,
                    };
                    let index = pick(&choice, &backends, |_| 1);
                    let left = || (0..5).filter(|index| !tried.contains(*index));
                    let allowed = |index: usize| !models[index].down && !models[index].draining;
                    let usable = |index: usize| allowed(index) && models[index].ejected_until <= now;
                    let Some(index) = index else {
                        assert!(!left().any(allowed), "refused, {}", context());
                        break;
                    };
                    assert!(!tried.contains(index) && allowed(index), "{index}, {}", context());
                    assert!(usable(index) || !left().any(usable), "ejected {index}, {}", context());
                    picked_ejected += u32::from(!usable(index));
                    tried.insert(index);
                    backends[index].live.acquire();
                    let model = &mut models[index];
                    if model.alive {
                        model.open += 1;
                        model.failed_in_a_row = 0;
                        model.ejected_until = model.ejected_until.min(now);
                        backends[index].live.connect_ok(now);
                        break;
                    }
                    model.failed_in_a_row += 1;
                    let due = model.failed_in_a_row >= EJECT_AFTER && model.ejected_until <= now;
                    assert_eq!(
                        backends[index].live.connect_failed(now, EJECT_AFTER, EJECT_MS),
                        due,
                        "{}",
                        context()
                    );
                    if due {
                        model.ejected_until = backends[index].live.ejected_until_ms.load(Relaxed);
                        assert!(
                            (now + 1..=now + 10 * EJECT_MS).contains(&model.ejected_until),
                            "{}",
                            context()
                        );
                    }
                    backends[index].live.release();
                }
            }
        }
        for (backend, model) in backends.iter().zip(&models) {
            assert_eq!(backend.live.active(), model.open, "{}", context());
            assert_eq!(
                backend.usable(now),
                !model.down && !model.draining && model.ejected_until <= now,
                "{}",
                context()
            );
            assert!(backend.effective_weight(1, 100, now) >= 100, "{}", context());
        }
    }
    assert!(picked_ejected > 0, "seed {seed}: the simulation never came to panic mode");
    let later = now + 10 * EJECT_MS;
    assert!(backends.iter().all(|backend| backend.live.health(later) != Health::Ejected), "ejections end");
}

#[test]
fn whatever_happens_the_right_one_is_picked() {
    for seed in 0..40 {
        for balance in [Balance::LeastConnections, Balance::RandomOfTwo, Balance::SourceHash] {
            simulate(seed, balance);
        }
    }
}
