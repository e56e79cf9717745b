//! What was acknowledged is never lost: killed in the middle of writes, and by the order of the system calls.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use mc_testkit::proxy::{Config, Proxy};
use mc_testkit::trace::{STRACE, violations};
use mc_testkit::{clock, heavy, requires, rounds};

use crate::grpc::{Grpc, route};

#[test]
fn kills_during_writes_lose_nothing_acknowledged() {
    let kills = rounds(10, 200);
    let _machine = heavy();
    let mut proxy = Proxy::start(Config::new().listener("web"));
    let mut acknowledged: Vec<String> = Vec::new();
    let mut moments = fastrand::Rng::with_seed(7);
    for round in 0..kills {
        acknowledged.extend(write_until_killed(
            &mut proxy,
            round,
            Duration::from_micros(moments.u64(500..80_000)),
        ));
        proxy.restart();
        let there = Grpc::connect(&proxy.socket()).route_names();
        let lost: Vec<_> = acknowledged.iter().filter(|name| !there.contains(name)).collect();
        assert!(lost.is_empty(), "after kill {round}: {lost:?} of {} were acknowledged", acknowledged.len());
        // At most the one that was on its way is there without having been acknowledged.
        assert!(there.len() <= acknowledged.len() + round + 1, "{} routes", there.len());
    }
    assert!(acknowledged.len() >= kills, "only {} routes were acknowledged", acknowledged.len());
    println!("{} routes acknowledged, {kills} kills, none lost", acknowledged.len());
}

/// Adds routes one after the other and kills the proxy so long after the first was acknowledged; the names that were.
fn write_until_killed(proxy: &mut Proxy, round: usize, after: Duration) -> Vec<String> {
    let client = Grpc::connect(&proxy.socket());
    let (stop, count) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| {
            let mut done = Vec::new();
            for number in 0.. {
                let name = format!("r{number}.k{round}.example.org");
                if stop.load(Ordering::SeqCst) || client.add_route(route(&name, "192.0.2.1:443")).is_err() {
                    break;
                }
                done.push(name);
                count.fetch_add(1, Ordering::SeqCst);
            }
            done
        });
        clock::wait_until("a change to be acknowledged", || count.load(Ordering::SeqCst) > 0);
        clock::sleep(after);
        proxy.process().kill9();
        stop.store(true, Ordering::SeqCst);
        writing.join().unwrap()
    })
}

#[test]
fn a_route_is_on_the_disk_before_it_is_acknowledged() {
    requires!("strace");
    let found = traced(&[]);
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn the_trace_shows_a_server_that_acknowledges_too_early() {
    requires!("strace");
    let found = traced(&["env", "MC_FAULT=early-ack"]);
    assert_eq!(found.len(), ROUTES, "the planted fault was not found: {found:#?}");
    assert!(found[0].contains("acknowledged before"), "{found:#?}");
}

const ROUTES: usize = 20;

/// Adds routes to a traced proxy that is started under `wrapper`; what is wrong with the order of its system calls.
fn traced(wrapper: &[&str]) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace");
    let output = trace.display().to_string();
    let wrapper = [wrapper, STRACE, &["-o", &output, "--"]].concat();
    let mut proxy = Proxy::start(Config::new().listener("web").under(&wrapper));
    let client = Grpc::connect(&proxy.socket());
    let names: Vec<String> = (0..ROUTES).map(|number| format!("traced-{number}-.example.org")).collect();
    for name in &names {
        client.add_route(route(name, "192.0.2.1:443")).unwrap();
    }
    proxy.term();
    proxy.process().wait(clock::PATIENCE);
    // The tracer writes its last lines when the program has ended.
    clock::wait_until("the trace to be complete", || read(&trace).contains("exited with"));
    let text = read(&trace);
    violations(&text, &names)
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}
