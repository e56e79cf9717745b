//! What was acknowledged is never lost: killed in the middle of writes, and by the order of the system calls.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mc_testkit::proxy::{Config, Proxy};
use mc_testkit::trace::{STRACE, violations};
use mc_testkit::{clock, heavy, requires};

use crate::grpc::{Grpc, route};

#[test]
fn killed_200_times_during_writes_nothing_acknowledged_is_lost() {
    const KILLS: usize = 200;
    let _machine = heavy();
    let mut proxy = Proxy::start(Config::new().listener("web"));
    let mut acknowledged: Vec<String> = Vec::new();
    let mut moments = fastrand::Rng::with_seed(7);
    for round in 0..KILLS {
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
    assert!(acknowledged.len() > KILLS, "only {} routes were acknowledged", acknowledged.len());
    println!("{} routes acknowledged, {KILLS} kills, none lost", acknowledged.len());
}

/// Adds routes one after the other and kills the proxy after a while; the names that were acknowledged.
fn write_until_killed(proxy: &mut Proxy, round: usize, after: Duration) -> Vec<String> {
    let client = Grpc::connect(&proxy.socket());
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| {
            let mut done = Vec::new();
            for number in 0.. {
                let name = format!("r{number}.k{round}.example.org");
                if stop.load(Ordering::SeqCst) || client.add_route(route(&name, "192.0.2.1:443")).is_err() {
                    break;
                }
                done.push(name);
            }
            done
        });
        clock::sleep(after);
        proxy.process().kill9();
        stop.store(true, Ordering::SeqCst);
        writing.join().unwrap()
    })
}

#[test]
fn a_route_is_on_the_disk_before_it_is_acknowledged() {
    requires!("strace");
    let found = traced(None);
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn the_trace_shows_a_build_that_acknowledges_too_early() {
    requires!("strace");
    let found = traced(Some(planted()));
    assert_eq!(found.len(), ROUTES, "the planted build was not found out: {found:#?}");
    assert!(found[0].contains("acknowledged before"), "{found:#?}");
}

const ROUTES: usize = 20;

/// Adds routes to a traced proxy; what is wrong with the order of its system calls.
fn traced(program: Option<PathBuf>) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace");
    let output = trace.display().to_string();
    let mut config = Config::new().listener("web").under(&[STRACE, &["-o", &output, "--"]].concat());
    if let Some(program) = program {
        config = config.program(&program);
    }
    let mut proxy = Proxy::start(config);
    let client = Grpc::connect(&proxy.socket());
    let names: Vec<String> = (0..ROUTES).map(|number| format!("traced-{number}-.example.org")).collect();
    for name in &names {
        client.add_route(route(name, "192.0.2.1:443")).unwrap();
    }
    proxy.term();
    proxy.process().wait(Duration::from_secs(60));
    // The tracer writes its last lines when the program has ended.
    clock::wait_until("the trace to be complete", || read(&trace).contains("exited with"));
    let text = read(&trace);
    violations(&text, &names)
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}

/// A build with the feature `planted-early-ack`: `MC_PLANTED_PROXY`, or made in a target folder of its own.
fn planted() -> PathBuf {
    if let Some(program) = std::env::var_os("MC_PLANTED_PROXY") {
        return program.into();
    }
    let target = mc_testkit::proxy::binary("mc-proxy").parent().unwrap().join("../planted");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--package", "mc-proxy", "--bin", "mc-proxy"]);
    cargo.args(["--features", "planted-early-ack", "--target-dir"]).arg(&target);
    let output = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    target.join("debug/mc-proxy")
}
