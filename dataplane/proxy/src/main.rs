//! `mc-proxy`: reads its configuration, starts the workers and the admin side, and stops when it is told to.

use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use clap::Parser;
use mc_core::limits::Descriptors;
use mc_core::rate::RateTable;
use mc_proxy::access_log::{LogSink, Target};
use mc_proxy::admin::{Admin, Events, Service};
use mc_proxy::budgets::{Budgets, SharedPolicy};
use mc_proxy::config::{Config, Server};
use mc_proxy::geoip::GeoIp;
use mc_proxy::handover::{Handed, Predecessor};
use mc_proxy::kernel::Kernel;
use mc_proxy::memory::{self, Memory};
use mc_proxy::old_process::{Countdown, OldSocket, Order, Silent};
use mc_proxy::process::ProcessId;
use mc_proxy::snapshot::Snapshot;
use mc_proxy::tls::{Tls, is_reminder_due, log_warnings};
use mc_proxy::upgrade::report_failure;
use mc_proxy::workers::Workers;
use mc_proxy::{clock, metrics};
use mc_uring::ktls::KernelTls;
use mc_uring::socket::Keepalive;
use mcdsl::chain;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// SNI router, firewall and reverse proxy.
///
/// Routes TLS connections by the name that the client asks for. It is operated with mcproxyctl while it runs;
/// the listeners, routes and firewall of the configuration only fill an empty database.
#[derive(Debug, Parser)]
#[command(version, after_help = HELP)]
struct Args {
    /// The configuration file.
    #[arg(long, short, value_name = "FILE", default_value = "/srv/mc-proxy/mc-proxy.toml")]
    config: PathBuf,
    /// Directory of everything that must not be lost, instead of `[server] root`.
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Only says whether the configuration is in order.
    #[arg(long)]
    check: bool,
    /// Takes over from the mc-proxy that runs with this root, if one does: no connection is refused, and those that are
    /// there go on.
    #[arg(long)]
    take_over: bool,
}

const HELP: &str = "\
Signals:
  SIGTERM, SIGINT  stop accepting, let connections end ([server] drain_timeout_ms), then stop; twice: now
  SIGUSR2          start a new process and hand over to it (as mcproxyctl upgrade does, which also reports the result); long
                   connections go on here until they end
  SIGHUP           reopen the access log (also of processes that have handed over), reload the certificates and the GeoIP databases; edits of the configuration file
                   are logged, and take effect at the next start

Exit codes:
  0  stopped as asked, or the configuration is in order
  1  could not start, or failed
  2  usage, or the configuration is wrong

Examples:
  mc-proxy --config ./mc-proxy.toml --root ./data
  mc-proxy --config ./mc-proxy.toml --check
  mc-proxy --config ./mc-proxy.toml --take-over";

fn main() -> ExitCode {
    let args = Args::parse();
    let load = if args.check { Config::check } else { Config::load };
    let config = match load(&args.config, args.root.as_deref()) {
        Ok(config) => config,
        Err(error) => {
            complain(&error.into());
            return ExitCode::from(2);
        }
    };
    if args.check {
        return ExitCode::SUCCESS;
    }
    config.log.set_up_as(&ProcessId::current().to_string());
    match run(&config, args.take_over) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

/// One line with the whole chain of causes.
fn complain(error: &anyhow::Error) {
    report_failure(&format!("{error:#}"));
    #[expect(clippy::print_stderr, reason = "the last word of a process that cannot go on")]
    {
        eprintln!("mc-proxy: {error:#}");
    }
}

/// Runs until a signal says to stop.
/// How long threads that wait for somebody else may take when this process ends.
const SHUTDOWN: Duration = Duration::from_secs(1);

fn run(config: &Config, take_over: bool) -> anyhow::Result<()> {
    let connections = most_connections(config, raise_descriptor_limit());
    let (country, asn) = geo_paths(config);
    let geo = Arc::new(GeoIp::open_available(country.as_deref(), asn.as_deref()));
    let tls = Arc::new(open_tls(config)?);
    let log = open_access_log(config)?;
    let events = Events::default();
    let workers = Arc::new(start_workers(config, connections, &log, &events, tls)?);
    let kernel = Arc::new(Kernel::open(&config.xdp, &config.server.root));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let handed = if take_over { Handed::ask(&config.server.root)? } else { None };
    let end = runtime.block_on(operate(config, &workers, &kernel, geo, events, &log, handed))?;
    if matches!(end, End::Stopped) {
        kernel.close();
    }
    // A process that takes over and says nothing must not keep this one.
    runtime.shutdown_timeout(SHUTDOWN);
    if let Some(workers) = Arc::into_inner(workers) {
        workers.join();
    }
    log.close();
    Ok(())
}

/// How this process ends.
enum End {
    /// Nobody serves after it.
    Stopped,
    /// Another process does; this one can be asked here.
    HandedOver(Option<OldSocket>),
}

/// What this process listens to besides operators.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    upgrade: Signal,
}

/// What a signal asks for.
enum Heard {
    Stop,
    Reload,
    Upgrade,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            upgrade: signal(SignalKind::user_defined2())?,
        })
    }

    async fn next(&mut self) -> Heard {
        tokio::select! {
            _ = self.terminate.recv() => Heard::Stop,
            _ = self.interrupt.recv() => Heard::Stop,
            _ = self.hangup.recv() => Heard::Reload,
            _ = self.upgrade.recv() => Heard::Upgrade,
        }
    }

    /// Waits for one to stop.
    async fn stop(&mut self) {
        while !matches!(self.next().await, Heard::Stop) {}
    }
}

/// The admin side's thread: serves operators, watches signals, drains at the end.
async fn operate(
    config: &Config,
    workers: &Arc<Workers>,
    kernel: &Arc<Kernel>,
    geo: Arc<GeoIp>,
    events: Events,
    log: &LogSink,
    handed: Option<(Handed, Predecessor)>,
) -> anyhow::Result<End> {
    let mut signals = Signals::new()?;
    let (mut handed, predecessor) = handed.unzip();
    let handed_metrics = handed.as_mut().and_then(|handed| handed.metrics.take());
    let mut service =
        Service::open(config, Arc::clone(workers), Arc::clone(kernel), geo, events, handed).await?;
    let (stop, stopped) = watch::channel(false);
    let (over, mut is_over) = mpsc::channel(1);
    let admin = service.admin().clone();
    if let Some(address) = config.metrics.listen_addr {
        let source = metrics::Source { admin: admin.clone(), log: log.clone() };
        let listener = metrics::bind(address, handed_metrics).await?;
        service.keep_metrics(address, listener.as_fd().try_clone_to_owned()?);
        tokio::spawn(metrics::serve(listener, source, stopped.clone()));
    }
    if let Some(predecessor) = predecessor {
        // It stops accepting now, and this process does already.
        let relieved = tokio::task::spawn_blocking(move || predecessor.relieve()).await?;
        tracing::info!(said_so = relieved.is_ok(), "took over from another process");
    }
    let watched = Arc::clone(&workers.policy);
    let memory = tokio::spawn(async move { watched.budgets.memory.watch().await });
    let tls = tokio::spawn(keep_tls(Arc::clone(&workers.policy.tls)));
    let served = tokio::spawn(service.run(stopped, over));
    let (version, pid) = (env!("CARGO_PKG_VERSION"), std::process::id());
    tracing::info!(version, pid, workers = workers.stats.len(), "running");
    tell_service_manager();
    let end = loop {
        tokio::select! {
            Some(old) = is_over.recv() => break End::HandedOver(old),
            heard = signals.next() => match heard {
                Heard::Stop => break End::Stopped,
                Heard::Upgrade => drop(tokio::spawn(upgrade(admin.clone()))),
                Heard::Reload => reload(config, workers, &admin, log).await?,
            },
        }
    };
    admin.stop().await;
    let left = match &end {
        End::Stopped => drain(config, workers, &admin, &mut signals).await,
        End::HandedOver(old) => {
            // The other one serves operators; this one only has connections left.
            stop.send(true).unwrap_or(());
            finish(config, workers, log, old.as_ref(), &mut signals).await
        }
    };
    tracing::info!(closed = left, "stopped");
    stop.send(true).unwrap_or(());
    tls.abort();
    memory.abort();
    served.await?;
    Ok(end)
}

/// Reopens and reloads files, as SIGHUP asks.
async fn reload(config: &Config, workers: &Workers, admin: &Admin, log: &LogSink) -> anyhow::Result<()> {
    tell_of_edits(config);
    log.reopen();
    ask_old(admin, Order::ReopenLog).await;
    workers.policy.tls.reload().log();
    // What is there stays in use where the new one cannot be read.
    match open_geo(config) {
        Ok(geo) => admin.set_geo(Arc::new(geo)).await?,
        Err(error) => tracing::error!("the GeoIP databases stay as they were: {error:#}"),
    }
    Ok(())
}

/// Says what an edit of the configuration changes: nothing, until the next start.
fn tell_of_edits(config: &Config) {
    let changed = match config.changed_tables() {
        Ok(changed) => changed,
        Err(error) => {
            let error = anyhow::Error::new(error);
            tracing::error!("mc-proxy will not start again with its configuration as it is now: {error:#}");
            return;
        }
    };
    let (seed, settings): (Vec<String>, Vec<String>) =
        changed.into_iter().partition(|table| ["listeners", "routes", "firewall"].contains(&table.as_str()));
    if !settings.is_empty() {
        let tables = settings.join(", ");
        tracing::warn!(tables, "the configuration was edited: it is read at the next start, or by SIGUSR2");
    }
    if !seed.is_empty() {
        let tables = seed.join(", ");
        tracing::warn!(
            tables,
            "the file's listeners, routes and firewall were edited, which changes nothing: they only fill an empty \
             database; use mcproxyctl"
        );
    }
}

/// Says that this process serves, and is the one: a service manager that has started another one goes by that.
fn tell_service_manager() {
    let states = [sd_notify::NotifyState::MainPid(std::process::id()), sd_notify::NotifyState::Ready];
    if let Err(error) = sd_notify::notify(&states) {
        tracing::warn!(%error, "the service manager cannot be told that mc-proxy runs");
    }
}

/// Starts a new process that takes over, as SIGUSR2 asks.
async fn upgrade(admin: Admin) {
    if let Err(error) = admin.upgrade().run().await {
        tracing::error!("{}", chain(&error));
    }
}

/// Has each old process do this; says how many there are.
async fn ask_old(admin: &Admin, order: Order) -> usize {
    let admin = admin.clone();
    let asked = tokio::task::spawn_blocking(move || admin.ask_old(order)).await.unwrap_or_default();
    for Silent(process) in asked.iter().filter_map(|asked| asked.as_ref().err()) {
        tracing::warn!(process, ?order, "an old process does not answer");
    }
    asked.len()
}

/// Stops: connections of this process and of old ones have the time to drain, which a second signal ends. This process ends as the
/// last one: a service manager takes its end for that of the service. Says how many connections were closed here.
async fn drain(config: &Config, workers: &Workers, admin: &Admin, signals: &mut Signals) -> u64 {
    let time = Duration::from_millis(config.server.drain_timeout_ms);
    tracing::info!(most_ms = config.server.drain_timeout_ms, "draining");
    let mut limit = pin!(tokio::time::sleep(time + OLD_TIME));
    let drained = async { tokio::join!(workers.drain(time, true), ask_old(admin, Order::Stop)) };
    let left = tokio::select! {
        (left, _) = drained => left,
        () = signals.stop() => {
            let (left, _) = tokio::join!(workers.drain(Duration::ZERO, true), ask_old(admin, Order::StopNow));
            left
        }
    };
    loop {
        tokio::select! {
            number = ask_old(admin, Order::Report) => if number == 0 { break },
            () = &mut limit => break,
        }
        tokio::select! {
            () = tokio::time::sleep(OLD_LOOK) => {}
            () = signals.stop() => drop(ask_old(admin, Order::StopNow).await),
            () = &mut limit => break,
        }
    }
    left
}

/// How often old processes are looked at that are to end.
const OLD_LOOK: Duration = Duration::from_millis(100);

/// How long they may take after the time to drain.
const OLD_TIME: Duration = Duration::from_secs(5);

/// Finishes the connections that this process has, after another one has taken over. Says how many were closed.
async fn finish(
    config: &Config,
    workers: &Workers,
    log: &LogSink,
    old: Option<&OldSocket>,
    signals: &mut Signals,
) -> u64 {
    let Server { handover_timeout_ms, drain_timeout_ms, .. } = config.server;
    let mut countdown = Countdown::new(clock::millis(), handover_timeout_ms, drain_timeout_ms);
    tracing::info!(connections = workers.connections(), "finishing the connections that are left");
    let mut is_hurrying = false;
    let mut drained = pin!(workers.drained(is_hurrying));
    loop {
        if countdown.is_stopping() && !is_hurrying {
            is_hurrying = true;
            drained.set(workers.drained(is_hurrying));
        }
        let left_ms = countdown.left_ms(clock::millis());
        let deadline = async {
            match left_ms {
                Some(left_ms) => tokio::time::sleep(Duration::from_millis(left_ms)).await,
                None => std::future::pending().await,
            }
        };
        let obey = |order| {
            if order == Order::ReopenLog {
                log.reopen();
            }
            countdown.obey(order, clock::millis());
            countdown.report(clock::millis(), workers.connections())
        };
        let asked = async {
            match old {
                Some(old) => old.next(obey).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = &mut drained => return 0,
            () = deadline => return workers.close_all().await,
            () = asked => {}
            heard = signals.next() => match heard {
                Heard::Stop => countdown.signal(clock::millis()),
                Heard::Reload => log.reopen(),
                Heard::Upgrade => tracing::warn!("another process has taken over: that one can be upgraded"),
            },
        }
    }
}

fn start_workers(
    config: &Config,
    connections: u32,
    log: &LogSink,
    events: &Events,
    tls: Arc<Tls>,
) -> anyhow::Result<Workers> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let count = match config.server.workers {
        0 => u16::try_from(cores).unwrap_or(u16::MAX),
        count => count,
    };
    let refused = events.clone();
    let ejected = events.clone();
    let policy = Arc::new(SharedPolicy {
        tls,
        rates: RateTable::new(fastrand::u64(..)),
        request_rates: RateTable::new(fastrand::u64(..)),
        budgets: Budgets::new(
            connections,
            config.server.max_connections_per_source,
            Memory::new(match config.server.max_memory_bytes {
                0 => memory::default_most(),
                bytes => bytes,
            }),
        ),
        on_refused: Box::new(move |it| refused.refused(it.outcome, it.client.ip(), it.name)),
        on_ejected: Box::new(move |address| ejected.ejected(address)),
    });
    let snapshot = Arc::new(ArcSwap::from_pointee(Snapshot::empty()));
    let keepalive = (config.keepalive.idle_ms > 0).then(|| Keepalive {
        idle: Duration::from_millis(config.keepalive.idle_ms),
        interval: Duration::from_millis(config.keepalive.interval_ms),
        probes: config.keepalive.probes,
    });
    Workers::start(count, snapshot, policy, log, keepalive).context(
        "the kernel gives no io_uring (Linux 6.1 or newer is needed, and kernel.io_uring_disabled must be 0)",
    )
}

/// Reads certificates and ticket keys. A certificate that cannot be used is told of and does not hold the others up.
fn open_tls(config: &Config) -> anyhow::Result<Tls> {
    let certificates = config.resolve(&config.tls.certificates);
    let tickets = config.resolve(&config.tls.ticket_keys);
    let kernel = if config.tls.kernel { KernelTls::probe() } else { Err("[tls] kernel is false".to_owned()) };
    let now_s = clock::unix_millis() / 1000;
    let (tls, reloaded) = Tls::open(&certificates, &tickets, &config.server.root, now_s, kernel)?;
    reloaded.log();
    Ok(tls)
}

/// Reads certificates and bundles of authorities again when they change, makes new ticket keys when it is time, and warns once
/// a day of certificates that expire.
async fn keep_tls(tls: Arc<Tls>) {
    let mut warned_s = clock::unix_seconds();
    loop {
        tokio::time::sleep(CERTIFICATES_LOOK).await;
        let now_s = clock::unix_seconds();
        if tls.has_changed() {
            tls.reload().log();
            warned_s = now_s;
        } else if is_reminder_due(warned_s, now_s) {
            log_warnings(&tls.warnings(now_s));
            warned_s = now_s;
        }
        for problem in tls.authorities.reload_changed() {
            tracing::error!("a bundle of certificate authorities stays as it was: {problem}");
        }
        if let Err(error) = tls.rotate_tickets(clock::unix_millis() / 1000) {
            tracing::error!("session ticket keys stay as they were: {:#}", anyhow::Error::new(error));
        }
    }
}

/// How often the folder of certificates is looked at.
const CERTIFICATES_LOOK: Duration = Duration::from_secs(2);

/// Where the databases are.
fn geo_paths(config: &Config) -> (Option<PathBuf>, Option<PathBuf>) {
    let path = |path: &Option<PathBuf>| path.as_ref().map(|path| config.resolve(path));
    (path(&config.geoip.country_database), path(&config.geoip.asn_database))
}

fn open_geo(config: &Config) -> anyhow::Result<GeoIp> {
    let (country, asn) = geo_paths(config);
    Ok(GeoIp::open(country.as_deref(), asn.as_deref())?)
}

fn open_access_log(config: &Config) -> anyhow::Result<LogSink> {
    let target = match &config.access_log.path {
        Target::File(path) => Target::File(config.resolve(path)),
        other => other.clone(),
    };
    LogSink::open(target, config.access_log.format)
        .context("cannot open the access log: see [access_log] path")
}

/// Takes as many descriptors as the system lets us have; says how many.
fn raise_descriptor_limit() -> u64 {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    let raised = match rustix::process::setrlimit(rustix::process::Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(error) => {
            tracing::warn!(%error, limit = limit.current, "the limit of open files stays as it is");
            limit.current
        }
    };
    raised.unwrap_or(u64::MAX)
}

/// Divides the descriptors; says how many connections clients may have.
fn most_connections(config: &Config, descriptors: u64) -> u32 {
    let Descriptors { bound, connections } = Descriptors::of(descriptors);
    mc_uring::descriptors::keep_from(bound);
    match config.server.max_connections {
        0 => connections,
        asked if asked > connections => {
            tracing::warn!(
                asked,
                connections,
                descriptors,
                "server.max_connections is lowered: raise the limit of open files (LimitNOFILE) to twice as many and 1,000"
            );
            connections
        }
        asked => asked,
    }
}
