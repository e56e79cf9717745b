//! Routes added while connections come and go and others live on: what is lost.

use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::{Bench, FEW_ROUTES, exact};
use crate::clock::{now_ns, sleep};
use crate::hello::Hello;
use crate::load::churn::Churn;
use crate::load::{Names, Outcome, ask, echo, open_echo, route_name};
use crate::peer::Proxy;
use crate::stats;

/// Adds routes at the peer's pace for the time that the row says.
pub(super) fn run(bench: &mut Bench<'_>) -> anyhow::Result<()> {
    let mut proxy = bench.start(FEW_ROUTES)?;
    let target = bench.site.listen;
    let streams = keep_open(target)?;
    let stop = AtomicBool::new(false);
    let churn =
        Churn { target, names: Names::Spread(FEW_ROUTES), post_quantum: false, connections: CONCURRENT };
    let (changed, new, lost) = std::thread::scope(|scope| {
        let new = scope.spawn(|| churn.run_while(|| !stop.load(Ordering::Relaxed)));
        let lost = scope.spawn(|| count_lost(streams, &stop));
        let per_second = bench.cell.peer.changes_per_second();
        let changed = change(&proxy, target, per_second, bench.cell.sizes.change_s);
        stop.store(true, Ordering::Relaxed);
        (changed, new.join().expect("the load returns"), lost.join().expect("the pinger returns"))
    });
    let new = new?;
    proxy.check_runs()?;
    bench.count(&changed);
    if let (0, Some(reason)) = (changed.failed, &changed.first_failure) {
        bench.measured.failures.push(reason.clone());
    }
    bench.set("changes_made", exact(changed.done));
    bench.set("changes_ms", exact(stats::percentile(&changed.each_ns, 50)) / 1e6);
    bench.set("changes_new", exact(new.done));
    bench.set("changes_failed", exact(new.failed));
    bench.set("changes_lost", exact(lost));
    Ok(())
}

fn keep_open(target: SocketAddr) -> anyhow::Result<Vec<TcpStream>> {
    let hello = Hello::classic("echo.bench.test");
    let streams = (0..STREAMS).map(|_| {
        let stream = open_echo(target, &hello)?;
        stream.set_read_timeout(Some(LOST_AFTER))?;
        Ok(stream)
    });
    streams.collect()
}

/// Pings each stream ten times a second until told to stop, and returns how many died.
fn count_lost(mut streams: Vec<TcpStream>, stop: &AtomicBool) -> u64 {
    let opened = streams.len();
    loop {
        // One more round after the end: what the last change broke shows only then.
        let last = stop.load(Ordering::Relaxed);
        streams.retain(|stream| echo(stream, 64).is_ok());
        if last {
            return (opened - streams.len()) as u64;
        }
        sleep(Duration::from_millis(100));
    }
}

/// Adds routes, some at the same time where there are many, and sees at the end that the last ones are there.
fn change(proxy: &Proxy, target: SocketAddr, per_second: u32, for_s: u32) -> Outcome {
    let end = now_ns() + u64::from(for_s) * 1_000_000_000;
    let adders = per_second.div_ceil(MOST_BY_ONE);
    let mut outcome = Outcome::default();
    let mut last = Vec::new();
    std::thread::scope(|scope| {
        let step = 1_000_000_000 * u64::from(adders) / u64::from(per_second);
        let threads: Vec<_> =
            (0..adders).map(|adder| scope.spawn(move || add(proxy, adder, adders, step, end))).collect();
        for thread in threads {
            let (added, name) = thread.join().expect("an adder returns its failures");
            outcome.merge(added);
            last.push(name);
        }
    });
    let deadline = now_ns() + 3_000_000_000;
    for name in last {
        while let Err(error) = ask(target, &Hello::classic(&name)) {
            if now_ns() > deadline {
                outcome.first_failure.get_or_insert(format!("the route {name} is not there: {error:#}"));
                break;
            }
            sleep(Duration::from_millis(10));
        }
    }
    outcome
}

/// Adds a route every `step` nanoseconds until `end`, and returns the name of the last.
fn add(proxy: &Proxy, adder: u32, adders: u32, step: u64, end: u64) -> (Outcome, String) {
    let mut outcome = Outcome::default();
    let mut index = ADDED_FROM + adder;
    let mut due = now_ns() + step / u64::from(adders) * u64::from(adder);
    loop {
        sleep(Duration::from_nanos(due.saturating_sub(now_ns())));
        let name = route_name(index);
        let before = now_ns();
        let result = proxy.add_route(&name);
        outcome.each_ns.push(now_ns() - before);
        outcome.record(result.map_err(|error| format!("{error:#}")));
        index += adders;
        // A proxy that is slower than asked is not hurried afterwards.
        due = (due + step).max(before);
        if due >= end {
            return (outcome, name);
        }
    }
}

/// New connections at the same time.
const CONCURRENT: usize = 16;
/// Connections that live through all changes.
const STREAMS: usize = 50;
/// An echo that takes longer counts as lost.
const LOST_AFTER: Duration = Duration::from_secs(3);
/// Number of the first route that is added.
const ADDED_FROM: u32 = 5_000_000;
/// Routes that one thread adds in a second.
const MOST_BY_ONE: u32 = 25;
