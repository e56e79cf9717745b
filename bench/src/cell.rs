//! One measurement: one proxy, one row of the table, in a network namespace of its own.
//!
//! The program calls itself for each under `unshare`, so that ports, sockets and processes of one measurement
//! are gone before the next. The load and the backends stay on one core, the proxy on another; what is
//! reported is the proxy's own CPU time and memory. Anything that was not answered rightly is a failure.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};

use crate::backend::{self, Mode};
use crate::clock::{now_ns, sleep};
use crate::hello::Hello;
use crate::load::bulk::{self, Direction};
use crate::load::churn::Churn;
use crate::load::{Names, Outcome, ask, open_echo, ping, route_name};
use crate::peer::{Peer, Programs, Proxy, Site};
use crate::{proc, stats};

mod changes;
pub(crate) mod http;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Row {
    /// New connections.
    New,
    /// The same with a post-quantum ClientHello.
    PostQuantum,
    /// Bulk, 1 and 16 connections, both directions.
    Bulk,
    /// Latency of small round trips, and the CPU of many.
    Ping,
    /// Memory of idle connections.
    Idle,
    /// Start, memory and new connections with so many routes.
    Routes(u32),
    /// Routes added under load.
    Changes,
    /// Full TLS handshakes, a GET on each connection.
    Handshake,
    /// Resumed ones.
    Resumed,
    /// HTTP/1.1 requests on connections that stay.
    Http1,
    /// HTTP/2 requests.
    Http2,
    /// Large bodies over TLS.
    Bodies,
    /// Memory of idle connections after one request each.
    IdleHttp,
}

/// How much of it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Sizes {
    /// New connections.
    pub(crate) churn: u64,
    /// MiB for each direction and number of connections.
    pub(crate) bulk_mib: u64,
    /// Round trips for latency.
    pub(crate) ping: u64,
    /// Round trips over 64 connections.
    pub(crate) pong: u64,
    /// Idle connections.
    pub(crate) idle: u32,
    /// How long routes are changed.
    pub(crate) change_s: u32,
    /// TLS handshakes.
    pub(crate) handshakes: u64,
    /// Requests on connections that stay.
    pub(crate) requests: u64,
    /// Bodies of 64 MiB.
    pub(crate) bodies: u64,
    /// Idle connections of HTTP.
    pub(crate) idle_http: u32,
}

/// One measurement to make.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Cell {
    /// Of whom.
    pub(crate) peer: Peer,
    /// Of what.
    pub(crate) row: Row,
    /// How much.
    pub(crate) sizes: Sizes,
    /// With which programs.
    pub(crate) programs: Programs,
    /// Where the proxy's files are; kept between measurements with the same routes.
    pub(crate) dir: PathBuf,
    /// Where the proxy runs.
    pub(crate) proxy_core: u32,
    /// Where load and backends run.
    pub(crate) load_core: u32,
}

/// What came out.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Measured {
    /// By the name of the metric.
    pub(crate) values: BTreeMap<String, f64>,
    /// What was not answered as it should.
    pub(crate) failures: Vec<String>,
    /// Why there is nothing to report, where the proxy cannot do it.
    pub(crate) unable: Option<String>,
}

/// Makes the measurement. To be called in a fresh network namespace.
///
/// # Errors
/// The namespace, the backends or the proxy cannot be set up, or the load cannot go on.
pub(crate) fn run(cell: &Cell) -> anyhow::Result<Measured> {
    prepare_network()?;
    // Direct: client and backend on two cores, as client and proxy are otherwise.
    pin(if cell.peer == Peer::Direct { cell.proxy_core } else { cell.load_core })?;
    let site = spawn_backends()?;
    pin(cell.load_core)?;
    let mut bench = Bench { cell, site, measured: Measured::default() };
    match cell.row {
        Row::New => bench.new_connections("new", false)?,
        Row::PostQuantum => bench.new_connections("pq", true)?,
        Row::Bulk => bench.bulk()?,
        Row::Ping => bench.ping()?,
        Row::Idle => bench.idle()?,
        Row::Routes(routes) => bench.routes(routes)?,
        Row::Changes => changes::run(&mut bench)?,
        Row::Handshake | Row::Resumed | Row::Http1 | Row::Http2 | Row::Bodies | Row::IdleHttp => {
            http::run(&mut bench)?;
        }
    }
    Ok(bench.measured)
}

struct Bench<'a> {
    cell: &'a Cell,
    site: Site,
    measured: Measured,
}

impl Bench<'_> {
    fn new_connections(&mut self, metric: &str, post_quantum: bool) -> anyhow::Result<()> {
        let mut proxy = self.start(FEW_ROUTES)?;
        let value = self.churn_cost(&mut proxy, FEW_ROUTES, post_quantum)?;
        self.set(metric, value);
        Ok(())
    }

    fn bulk(&mut self) -> anyhow::Result<()> {
        let mut proxy = self.start(FEW_ROUTES)?;
        let (target, mib) = (self.site.listen, self.cell.sizes.bulk_mib);
        for connections in [1, 16] {
            for (direction, word, name) in
                [(Direction::Down, "down", "source.bench.test"), (Direction::Up, "up", "sink.bench.test")]
            {
                let load = || bulk::run(target, name, direction, connections, mib << 20);
                let (outcome, cpu) = self.cost(&mut proxy, load)?;
                let gib = exact(outcome.done) / exact(1 << 30);
                self.set(&format!("bulk_{connections}_{word}"), cpu / gib);
                self.set(&format!("rate_{connections}_{word}"), gib / seconds(outcome.elapsed_ns));
            }
        }
        Ok(())
    }

    fn ping(&mut self) -> anyhow::Result<()> {
        let mut proxy = None;
        let mut target = self.site.echo;
        if self.cell.peer != Peer::Direct {
            proxy = Some(self.start(FEW_ROUTES)?);
            target = self.site.listen;
        }
        let hello = Hello::classic("echo.bench.test");
        let stream = open_echo(target, &hello)?;
        ping::latency(&stream, 64, WARM_UP)?;
        let outcome = ping::latency(&stream, 64, self.cell.sizes.ping)?;
        for percent in [50, 99] {
            let us = exact(stats::percentile(&outcome.each_ns, percent)) / 1000.0;
            self.set(&format!("ping_p{percent}"), us);
        }
        let Some(mut proxy) = proxy else { return Ok(()) };
        let streams: Vec<_> = (0..64).map(|_| open_echo(target, &hello)).collect::<Result<_, _>>()?;
        let count = self.cell.sizes.pong;
        let (outcome, cpu) = self.cost(&mut proxy, || ping::many(&streams, 1024, count))?;
        self.set("pong", cpu / exact(outcome.done) * 1e5);
        Ok(())
    }

    fn idle(&mut self) -> anyhow::Result<()> {
        let mut proxy = self.start(FEW_ROUTES)?;
        // So that code and tables that every proxy touches once are in memory before.
        let churn = self.churn(FEW_ROUTES, false);
        self.count(&churn.run(WARM_UP)?);
        sleep(REST);
        let pids = proxy.pids();
        let before = proc::pss_kib(&pids)?;
        let hello = Hello::classic("echo.bench.test");
        let mut streams = Vec::new();
        for index in 0..self.cell.sizes.idle {
            let stream = open_echo(self.site.listen, &hello);
            streams.push(stream.with_context(|| format!("idle connection {index}"))?);
        }
        sleep(REST);
        let after = proc::pss_kib(&pids)?;
        self.set("idle", (exact(after) - exact(before)) / f64::from(self.cell.sizes.idle));
        // They were established and idle, not dead.
        let dead = streams.iter().filter(|stream| crate::load::echo(stream, 64).is_err()).count();
        if dead > 0 {
            self.measured.failures.push(format!("{dead} idle connections were dead"));
        }
        proxy.check_runs()
    }

    fn routes(&mut self, routes: u32) -> anyhow::Result<()> {
        self.seed(routes)?;
        let start = now_ns();
        let mut proxy = match self.start_within(routes, START_LIMIT) {
            Ok(proxy) => proxy,
            Err(reason) => {
                self.measured.unable = Some(format!("{reason:#}"));
                return Ok(());
            }
        };
        self.set(&format!("start_{routes}"), seconds(now_ns() - start));
        sleep(REST);
        let mib = exact(proc::pss_kib(&proxy.pids())?) / 1024.0;
        self.set(&format!("mib_{routes}"), mib);
        let value = self.churn_cost(&mut proxy, routes, false)?;
        self.set(&format!("new_{routes}"), value);
        Ok(())
    }

    /// MC-Proxy keeps its routes in a database: it is filled once, and starts are measured with it full.
    fn seed(&self, routes: u32) -> anyhow::Result<()> {
        if self.cell.peer != Peer::McProxy || self.cell.dir.join("mc-proxy.db").exists() {
            return Ok(());
        }
        self.cell.peer.configure(&self.site, &self.cell.dir, routes)?;
        self.start_configured(routes, SEED_LIMIT)?.stop().context("after seeding")
    }

    /// CPU-seconds for 1,000 new connections; also sees that each was logged.
    fn churn_cost(&mut self, proxy: &mut Proxy, routes: u32, post_quantum: bool) -> anyhow::Result<f64> {
        let churn = self.churn(routes, post_quantum);
        self.count(&churn.run(WARM_UP)?);
        let (outcome, cpu) = self.cost(proxy, || churn.run(self.cell.sizes.churn))?;
        self.check_log(proxy, outcome.done + WARM_UP);
        Ok(cpu / exact(outcome.done.max(1)) * 1000.0)
    }

    /// Sees that each of so many units was logged.
    fn check_log(&mut self, proxy: &Proxy, expect: u64) {
        let deadline = now_ns() + 3_000_000_000;
        // Lines of the last units may be written later, and a few of a proxy that was not told to.
        while proxy.logged() * 100 < expect * 99 && now_ns() < deadline {
            sleep(SETTLE);
        }
        let logged = proxy.logged();
        if logged * 100 < expect * 99 {
            self.measured.failures.push(format!("{logged} lines in the access log of {expect} units"));
        }
    }

    fn churn(&self, routes: u32, post_quantum: bool) -> Churn {
        let names = Names::Spread(routes);
        Churn { target: self.site.listen, names, post_quantum, connections: CONCURRENT }
    }

    /// Runs a load and returns with it what CPU it cost the proxy, in seconds.
    fn cost(
        &mut self,
        proxy: &mut Proxy,
        load: impl FnOnce() -> anyhow::Result<Outcome>,
    ) -> anyhow::Result<(Outcome, f64)> {
        sleep(SETTLE);
        let pids = proxy.pids();
        let before = proc::cpu(&pids);
        let outcome = load()?;
        sleep(SETTLE);
        let cpu = proc::cpu(&pids).saturating_sub(before).as_secs_f64();
        self.count(&outcome);
        proxy.check_runs()?;
        Ok((outcome, cpu))
    }

    fn start(&self, routes: u32) -> anyhow::Result<Proxy> {
        self.start_within(routes, START_LIMIT)
    }

    /// Starts the proxy and returns when it answered for its last route.
    fn start_within(&self, routes: u32, limit: Duration) -> anyhow::Result<Proxy> {
        // A full database needs no seed, and reading it would be paid for at every start.
        let seeded = self.cell.dir.join("mc-proxy.db").exists();
        self.cell.peer.configure(&self.site, &self.cell.dir, if seeded { 0 } else { routes })?;
        self.start_configured(routes, limit)
    }

    fn start_configured(&self, routes: u32, limit: Duration) -> anyhow::Result<Proxy> {
        let hello = Hello::classic(&route_name(routes - 1));
        self.start_until(limit, || ask(self.site.listen, &hello))
    }

    /// Starts the proxy as it was configured and returns when `answers` finds that it is up.
    fn start_until(
        &self,
        limit: Duration,
        mut answers: impl FnMut() -> anyhow::Result<()>,
    ) -> anyhow::Result<Proxy> {
        let Cell { peer, programs, dir, proxy_core, .. } = self.cell;
        let deadline = now_ns() + u64::try_from(limit.as_nanos()).expect("a short time");
        let mut proxy = peer.start(programs, self.site, dir, *proxy_core)?;
        while let Err(reason) = answers() {
            proxy.check_runs()?;
            ensure!(now_ns() < deadline, "not up in {} s ({reason:#})", limit.as_secs());
            sleep(Duration::from_millis(1));
        }
        Ok(proxy)
    }

    fn count(&mut self, outcome: &Outcome) {
        if outcome.failed > 0 {
            let reason = outcome.first_failure.as_deref().unwrap_or("unknown");
            self.measured.failures.push(format!("{} failed, the first: {reason}", outcome.failed));
        }
    }

    fn set(&mut self, metric: &str, value: f64) {
        self.measured.values.insert(metric.to_owned(), value);
    }
}

/// Loopback up, and the same settings for every proxy.
fn prepare_network() -> anyhow::Result<()> {
    let status =
        Command::new("ip").args(["link", "set", "lo", "up"]).status().context("ip (Debian: iproute2)")?;
    ensure!(status.success(), "loopback cannot be brought up: is this a network namespace of ours?");
    for (key, value) in SYSCTLS {
        let path = format!("/proc/sys/{key}");
        fs::write(&path, value).with_context(|| format!("writing {value} to {path}"))?;
    }
    Ok(())
}

/// Keeps this thread, and those that it starts from now on, on one core.
pub(crate) fn pin(core: u32) -> anyhow::Result<()> {
    let mut cores = rustix::thread::CpuSet::new();
    cores.set(usize::try_from(core)?);
    rustix::thread::sched_setaffinity(None, &cores).with_context(|| format!("moving to core {core}"))
}

fn spawn_backends() -> anyhow::Result<Site> {
    let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let site = Site {
        listen: at(8443),
        answer: at(9001),
        echo: at(9002),
        sink: at(9003),
        source: at(9004),
        web: at(9005),
    };
    backend::spawn(&[
        (site.answer, Mode::Answer),
        (site.echo, Mode::Echo),
        (site.sink, Mode::Sink),
        (site.source, Mode::Source),
    ])?;
    Ok(site)
}

pub(crate) fn seconds(ns: u64) -> f64 {
    Duration::from_nanos(ns).as_secs_f64()
}

/// A count as a float: exact up to 2^53, which no count here reaches.
#[expect(clippy::cast_precision_loss, reason = "counts stay below 2^53")]
pub(crate) fn exact(count: u64) -> f64 {
    count as f64
}

/// The same for everybody, written below /proc/sys.
pub(crate) const SYSCTLS: [(&str, &str); 5] = [
    // bbr paces loopback and slows a relay by three; cubic cannot be chosen in a namespace everywhere.
    ("net/ipv4/tcp_congestion_control", "reno"),
    // Away from our own ports, and enough for a run.
    ("net/ipv4/ip_local_port_range", "10000 65535"),
    ("net/ipv4/tcp_tw_reuse", "1"),
    ("net/core/somaxconn", "8192"),
    ("net/ipv4/tcp_max_syn_backlog", "8192"),
];

/// Routes of rows that are not about their number.
pub(crate) const FEW_ROUTES: u32 = 10;
/// New connections at the same time.
const CONCURRENT: usize = 32;
/// Units before the measurement begins.
const WARM_UP: u64 = 500;
/// Before CPU time is read: what was asked is then also closed and logged.
const SETTLE: Duration = Duration::from_millis(300);
/// Before memory is read.
const REST: Duration = Duration::from_secs(2);
/// A proxy that answers later than this counts as not up.
const START_LIMIT: Duration = Duration::from_secs(25);
/// For filling MC-Proxy's database.
const SEED_LIMIT: Duration = Duration::from_secs(300);
