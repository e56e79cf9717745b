//! What the proxy counts, for Prometheus: `/metrics`, and `/healthz` and `/readyz` beside it.
//!
//! The number of series is bounded whatever is configured and whoever connects: outcomes are a closed list,
//! names that clients ask for are no labels, and only [`MOST`] routes and backends have series of their own:
//! the routes with the most connections, while the others are one series; the backends that are not well, then
//! those with the most connections, while all are counted by health.
//! Text exposition format, version 0.0.4; durations in seconds, sizes in bytes.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use mc_core::backend::{BackendLive, Health, RouteBackend};
use mc_core::certificate::Validity;
use mc_core::outcome::{Outcome, RequestOutcome};
use mc_ebpf_abi::policy::{self, Count};
use mc_uring::ktls::InUserSpace;
use mcdsl::prometheus::{Page, seconds};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use crate::access_log::LogSink;
use crate::admin::{Admin, BackendUse};
use crate::budgets::Budgets;
use crate::clock;
use crate::kernel::Kernel;
use crate::old_process::Order;
use crate::snapshot::{RouteEntry, Snapshot};
use crate::stats::{self, Counter, Histogram, WorkerStats};
use crate::tls::{CertificateInfo, Tls};

/// Where the numbers are.
#[derive(Clone, Debug)]
pub struct Source {
    /// Routes, backends, workers.
    pub admin: Admin,
    /// Lines that were lost.
    pub log: LogSink,
}

/// Routes, and backends, that have series of their own.
pub const MOST: usize = 1000;

/// What scrapes share.
struct Exporter {
    source: Source,
    /// What was last said of routes without series of their own: see [`RouteSum::raise`].
    others: Mutex<RouteSum>,
}

/// Scrapes at the same time.
const SCRAPERS: usize = 16;

/// How long a scraper may take for its request.
const REQUEST_TIME: Duration = Duration::from_secs(10);

/// Serves until `stop` becomes true.
pub async fn serve(listener: TcpListener, source: Source, mut stop: watch::Receiver<bool>) {
    let places = Arc::new(Semaphore::new(SCRAPERS));
    let exporter = Arc::new(Exporter { source, others: Mutex::default() });
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        let Ok((stream, _)) = accepted else {
            // No descriptor left: the next may have one.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let exporter = Arc::clone(&exporter);
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(request, Arc::clone(&exporter)));
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(REQUEST_TIME)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            if let Ok(Err(error)) = tokio::time::timeout(REQUEST_TIME, connection).await {
                tracing::debug!(%error, "a scrape failed");
            }
            drop(place);
        });
    }
}

async fn answer(request: Request<Incoming>, exporter: Arc<Exporter>) -> Result<Response<String>, Infallible> {
    let plain = |status, text: &str| (status, "text/plain; charset=utf-8", text.to_owned());
    let (status, kind, body) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/metrics") => {
            // A million routes take a moment to look through: not on the admin side's only thread.
            let text = tokio::task::spawn_blocking(move || render(&exporter)).await.unwrap_or_default();
            (StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text)
        }
        (&Method::GET | &Method::HEAD, "/healthz") => plain(StatusCode::OK, "ok\n"),
        (&Method::GET | &Method::HEAD, "/readyz") => {
            let admin = &exporter.source.admin;
            let (listeners, closed) = (admin.snapshot().listeners.len(), admin.closed_listeners());
            if admin.is_stopping() {
                plain(StatusCode::SERVICE_UNAVAILABLE, "stopping\n")
            } else if listeners == 0 {
                plain(StatusCode::SERVICE_UNAVAILABLE, "no listener: add one with mcproxyctl listener add\n")
            } else if !closed.is_empty() {
                plain(StatusCode::SERVICE_UNAVAILABLE, &format!("{}\n", closed.join("\n")))
            } else {
                plain(StatusCode::OK, "ok\n")
            }
        }
        _ => plain(StatusCode::NOT_FOUND, "/metrics, /healthz and /readyz are here\n"),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    Ok(response)
}

/// All metrics as text.
fn render(exporter: &Exporter) -> String {
    let Source { admin, log } = &exporter.source;
    let snapshot = admin.snapshot();
    let mut page = Page::default();
    page.family("mcproxy_build_info", "gauge", "The version that runs.");
    page.sample("mcproxy_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
    page.one("mcproxy_uptime_seconds", "gauge", "Time since start.", seconds(admin.uptime_ms() * 1000));
    page.one("mcproxy_revision", "gauge", "Revision of the configuration.", snapshot.revision);
    let old = admin.ask_old(Order::Report);
    let help = "Processes that have handed over and finish the connections that they have.";
    page.one("mcproxy_old_processes", "gauge", help, old.len() as u64);
    let connections = old.iter().flatten().map(|report| report.connections).sum::<u64>();
    page.one("mcproxy_old_processes_connections", "gauge", "Connections that those have left.", connections);
    page.one("mcproxy_routes", "gauge", "Routes.", snapshot.route_count);
    page.one("mcproxy_routes_on_hold", "gauge", "Routes on hold.", admin.holds().len() as u64);
    page.one("mcproxy_access_log_lost_lines_total", "counter", "Log lines dropped.", log.lost());
    page.process();
    let help = "Firewall rules that do nothing, as there is no database for them.";
    let count = snapshot.firewall.rules_without_database() as u64;
    page.one("mcproxy_firewall_rules_without_database", "gauge", help, count);
    budgets(&mut page, &admin.workers().policy.budgets);
    kernel(&mut page, admin.kernel());
    certificates(&mut page, &admin.workers().policy.tls);
    workers(&mut page, &admin.workers().stats);
    listeners(&mut page, &snapshot, admin);
    let mut others = exporter.others.lock().unwrap_or_else(PoisonError::into_inner);
    routes(&mut page, &snapshot, &mut others);
    drop(others);
    checks(&mut page, &snapshot);
    backends(&mut page, admin.backends());
    page.text
}

/// The kernel's half of the firewall. Series are there where it is asked for.
fn kernel(page: &mut Page, kernel: &Kernel) {
    let report = kernel.report();
    let name = "mcproxy_xdp_attached";
    page.family(name, "gauge", "Whether the firewall is in the kernel on an interface, and in which mode.");
    for (interface, how) in &report.interfaces {
        let mode = how.as_ref().map_or("off", |attached| attached.mode.word());
        let is_there = how.is_ok() && report.problem.is_empty();
        page.sample(name, &[("interface", interface), ("mode", mode)], u64::from(is_there));
    }
    let Some(counts) = kernel.counts() else { return };
    let help = "Time that the last change of the kernel's policy took.";
    page.one("mcproxy_xdp_policy_seconds", "gauge", help, seconds(report.policy_us));
    let help = "Whether SYNs are answered with cookies.";
    page.one("mcproxy_xdp_syn_cookies", "gauge", help, u64::from(report.cookies));
    type Part = fn(&Count) -> u64;
    let families: [(&str, &str, Part); 2] = [
        (
            "mcproxy_xdp_packets_total",
            "Frames that the kernel's half has judged, by what came of it.",
            |count| count.packets,
        ),
        ("mcproxy_xdp_bytes_total", "Bytes of those frames.", |count| count.bytes),
    ];
    for (name, help, part) in families {
        page.family(name, "counter", help);
        for (number, count) in (0..).zip(&counts) {
            page.sample(name, &[("reason", policy::word(number))], part(count));
        }
    }
}

/// Until when certificates are valid, of the first [`MAX_CERTIFICATES`] files.
fn certificates(page: &mut Page, tls: &Tls) {
    let age_s = (clock::unix_millis() / 1000).saturating_sub(tls.ticket_key_made_s());
    page.one("mcproxy_ticket_key_age_seconds", "gauge", "Age of the session ticket key in use.", age_s);
    let now_s = clock::unix_seconds();
    let infos = tls.certificates(now_s);
    let name = "mcproxy_certificate_not_after_seconds";
    page.family(name, "gauge", "Unix time until which a certificate is valid, by file.");
    for info in infos.iter().take(MAX_CERTIFICATES) {
        let until = info.leaf.as_ref().and_then(|leaf| u64::try_from(leaf.period.not_after_s).ok());
        if let Some(until) = until {
            page.sample(name, &[("file", &info.file)], until);
        }
    }
    let name = "mcproxy_certificate_files";
    page.family(name, "gauge", "Certificate files by state; broken: the file as it is now cannot be used.");
    let state = |info: &CertificateInfo| match info.validity(now_s) {
        Some(validity) if info.problem.is_none() => validity.as_str(),
        _ => "broken",
    };
    for word in Validity::ALL.map(Validity::as_str).into_iter().chain(["broken"]) {
        let count = infos.iter().filter(|info| state(info) == word).count();
        page.sample(name, &[("state", word)], count as u64);
    }
}

/// Certificates that have a series of their own.
const MAX_CERTIFICATES: usize = 1000;

/// What workers count, all together.
fn workers(page: &mut Page, workers: &[Arc<WorkerStats>]) {
    of_connections(page, workers);
    of_requests(page, workers);
    of_times(page, workers);
}

fn sum(workers: &[Arc<WorkerStats>], of: fn(&WorkerStats) -> &Counter) -> u64 {
    workers.iter().map(|stats| of(stats).get()).sum()
}

fn of_connections(page: &mut Page, workers: &[Arc<WorkerStats>]) {
    let sum = |of| sum(workers, of);
    page.family("mcproxy_connections_accepted_total", "counter", "Connections accepted, by worker.");
    for (number, stats) in workers.iter().enumerate() {
        let labels = [("worker", &*number.to_string())];
        page.sample("mcproxy_connections_accepted_total", &labels, stats.accepted.get());
    }
    page.family("mcproxy_connections_active", "gauge", "Connections now, by worker.");
    for (number, stats) in workers.iter().enumerate() {
        // Read in this order, a connection that ends in between cannot make it negative.
        let closed = stats.closed.get();
        let active = stats.accepted.get().saturating_sub(closed);
        page.sample("mcproxy_connections_active", &[("worker", &number.to_string())], active);
    }
    let help = "Connections and requests that wait because their route is on hold.";
    page.one("mcproxy_hold_waiting", "gauge", help, workers.iter().map(|stats| stats.waiting()).sum::<u64>());
    let help = "Connections and requests that have waited, or wait, because their route was on hold.";
    page.one("mcproxy_hold_waits_total", "counter", help, sum(|stats| &stats.hold_waits));
    let ended = "Bytes of connections that have ended.";
    page.one("mcproxy_received_bytes_total", "counter", ended, sum(|stats| &stats.bytes_in));
    page.one("mcproxy_sent_bytes_total", "counter", ended, sum(|stats| &stats.bytes_out));
    page.family("mcproxy_connections_total", "counter", "Connections that have ended, by outcome.");
    for outcome in Outcome::ALL {
        let count = workers.iter().map(|stats| stats.outcomes[outcome as usize].get()).sum::<u64>();
        page.sample("mcproxy_connections_total", &[("outcome", outcome.as_str())], count);
    }
    let name = "mcproxy_tls_connections_total";
    page.family(name, "counter", "Connections that were terminated, by where TLS is done and why there.");
    page.sample(name, &[("in", "kernel"), ("reason", "")], sum(|stats| &stats.tls_in_kernel));
    for reason in InUserSpace::ALL {
        let count = workers.iter().map(|stats| stats.tls_in_user_space[reason as usize].get()).sum::<u64>();
        page.sample(name, &[("in", "user_space"), ("reason", reason.word())], count);
    }
    let help = "Bytes of responses spliced to connections whose keys the kernel has.";
    page.one("mcproxy_tls_spliced_bytes_total", "counter", help, sum(|stats| &stats.tls_spliced));
}

fn of_requests(page: &mut Page, workers: &[Arc<WorkerStats>]) {
    let sum = |of| sum(workers, of);
    page.family(
        "mcproxy_responses_total",
        "counter",
        "Requests by the class of the status told; none: none was.",
    );
    for (class, word) in CLASSES.iter().enumerate() {
        let count = workers.iter().map(|stats| stats.requests[class].get()).sum::<u64>();
        page.sample("mcproxy_responses_total", &[("class", word)], count);
    }
    page.family("mcproxy_requests_total", "counter", "Requests that have ended, by outcome.");
    for outcome in RequestOutcome::ALL {
        let count = workers.iter().map(|stats| stats.request_outcomes[outcome as usize].get()).sum::<u64>();
        page.sample("mcproxy_requests_total", &[("outcome", outcome.as_str())], count);
    }
    page.family(
        "mcproxy_mirrored_requests_total",
        "counter",
        "Copies of requests for mirrors, by what became of them.",
    );
    let mirrored = [
        ("answered", sum(|stats| &stats.mirrored)),
        ("given_up", sum(|stats| &stats.mirror_failed)),
        ("dropped", sum(|stats| &stats.mirror_dropped)),
    ];
    for (word, count) in mirrored {
        page.sample("mcproxy_mirrored_requests_total", &[("state", word)], count);
    }
}

fn of_times(page: &mut Page, workers: &[Arc<WorkerStats>]) {
    type Time = fn(&WorkerStats) -> &Histogram;
    let times: [(&str, &str, Time); 6] = [
        ("mcproxy_hello_seconds", "From accept to a complete ClientHello.", |stats| &stats.hello_time),
        ("mcproxy_connect_seconds", "From the route to a connected backend.", |stats| &stats.connect_time),
        ("mcproxy_connection_seconds", "From accept to the end.", |stats| &stats.duration),
        ("mcproxy_request_connect_seconds", "From a request's head to its backend's connection.", |stats| {
            &stats.request_connect_time
        }),
        ("mcproxy_request_response_seconds", "From that to the head of the response.", |stats| {
            &stats.request_response_time
        }),
        ("mcproxy_request_seconds", "From a request's head to its end.", |stats| &stats.request_time),
    ];
    for (name, help, of) in times {
        let parts = || workers.iter().map(|stats| of(stats));
        let buckets = (0..Histogram::BUCKETS).map(|index| {
            (Histogram::bound_us(index), parts().map(|part| part.buckets[index].get()).sum::<u64>())
        });
        page.histogram(name, help, buckets, parts().map(|part| part.sum_us.get()).sum());
    }
}

fn listeners(page: &mut Page, snapshot: &Snapshot, admin: &Admin) {
    let name = "mcproxy_listener_open";
    page.family(
        name,
        "gauge",
        "Whether a listener accepts; where it does not, it is tried again each second.",
    );
    for listener in &snapshot.listeners {
        let is_open = admin.closed(&listener.spec.name).is_none();
        page.sample(name, &[("listener", &*listener.spec.name)], u64::from(is_open));
    }
    page.family("mcproxy_listener_accepted_total", "counter", "Connections accepted, by listener.");
    for listener in &snapshot.listeners {
        let labels = [("listener", &*listener.spec.name)];
        page.sample("mcproxy_listener_accepted_total", &labels, listener.accepted.load(Ordering::Relaxed));
    }
}

/// What is counted of a route, or of all that have no series of their own.
#[derive(Clone, Copy, Default)]
struct RouteSum {
    active: u64,
    bytes_in: u64,
    bytes_out: u64,
    outcomes: [u64; Outcome::ALL.len()],
    requests: [u64; CLASSES.len()],
}

/// Words for the classes of status, in the order of [`WorkerStats::requests`].
const CLASSES: [&str; stats::CLASSES] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

impl RouteSum {
    fn add(&mut self, entry: &RouteEntry) {
        let Some(counters) = entry.live.seen() else { return };
        self.active += u64::from(entry.live.active());
        self.bytes_in += counters.bytes_in.load(Ordering::Relaxed);
        self.bytes_out += counters.bytes_out.load(Ordering::Relaxed);
        for (sum, count) in self.outcomes.iter_mut().zip(&counters.outcomes) {
            *sum += count.load(Ordering::Relaxed);
        }
        for (sum, count) in self.requests.iter_mut().zip(&counters.requests) {
            *sum += count.load(Ordering::Relaxed);
        }
    }

    /// Keeps counters from falling, as they would when a route gets series of its own or goes: a scraper takes
    /// that for a restart, and counts all of the rest a second time.
    fn raise(&mut self, before: &Self) {
        self.bytes_in = self.bytes_in.max(before.bytes_in);
        self.bytes_out = self.bytes_out.max(before.bytes_out);
        for (sum, before) in self.outcomes.iter_mut().zip(before.outcomes) {
            *sum = before.max(*sum);
        }
        for (sum, before) in self.requests.iter_mut().zip(before.requests) {
            *sum = before.max(*sum);
        }
    }
}

/// How often the policies of these routes applied.
fn policies<'a>(page: &mut Page, routes: impl Iterator<Item = &'a RouteEntry>) {
    page.family(
        "mcproxy_route_policy_requests_total",
        "counter",
        "Requests to which a route's policy applied, or would have but for its dry run.",
    );
    for entry in routes {
        let spec = &entry.spec;
        for policy in &entry.policies {
            for (state, count) in [("applied", &policy.applied), ("dry_run", &policy.dry_run)] {
                let labels = [
                    ("listener", &*spec.listener),
                    ("name", &*spec.name),
                    ("alpn", &*spec.alpn),
                    ("policy", &*policy.name),
                    ("state", state),
                ];
                page.sample("mcproxy_route_policy_requests_total", &labels, count.load(Ordering::Relaxed));
            }
        }
    }
}

/// Brings the [`MOST`] items of the greatest keys to the front; those, and the rest.
fn top<T, K: Ord>(items: &mut [T], key: impl Fn(&T) -> K) -> (&mut [T], &mut [T]) {
    if items.len() > MOST {
        items.select_nth_unstable_by(MOST, |a, b| key(b).cmp(&key(a)));
    }
    items.split_at_mut(items.len().min(MOST))
}

fn routes(page: &mut Page, snapshot: &Snapshot, others: &mut RouteSum) {
    let mut seen: Vec<(u64, &RouteEntry)> = Vec::new();
    for row in snapshot.routes.iter() {
        if let Some(counters) = row.value.live.seen() {
            seen.push((counters.total.load(Ordering::Relaxed), row.value));
        }
    }
    let (own, rest) = top(&mut seen, |(total, _)| *total);
    own.sort_unstable_by_key(|(_, entry)| (&entry.spec.listener, &entry.spec.name, &entry.spec.alpn));
    let mut rows: Vec<([&str; 3], RouteSum)> = Vec::with_capacity(own.len() + 1);
    for (_, entry) in own.iter() {
        let mut sum = RouteSum::default();
        sum.add(entry);
        rows.push(([&entry.spec.listener, &entry.spec.name, &entry.spec.alpn], sum));
    }
    if !rest.is_empty() {
        let mut sum = RouteSum::default();
        rest.iter().for_each(|(_, entry)| sum.add(entry));
        sum.raise(others);
        *others = sum;
        rows.push((["", "other", ""], sum));
    }
    let labels = |[listener, name, alpn]: [&'_ str; 3]| {
        [("listener", listener.to_owned()), ("name", name.to_owned()), ("alpn", alpn.to_owned())]
    };
    page.family("mcproxy_route_connections_total", "counter", "Ended connections, by route and outcome.");
    for (key, sum) in &rows {
        for outcome in Outcome::ALL {
            let count = sum.outcomes[outcome as usize];
            if count > 0 {
                let [listener, name, alpn] = *key;
                let all =
                    [("listener", listener), ("name", name), ("alpn", alpn), ("outcome", outcome.as_str())];
                page.sample("mcproxy_route_connections_total", &all, count);
            }
        }
    }
    page.family(
        "mcproxy_route_responses_total",
        "counter",
        "Requests, by route and class of the status told.",
    );
    for (key, sum) in &rows {
        for (count, class) in sum.requests.into_iter().zip(CLASSES).filter(|(count, _)| *count > 0) {
            let [listener, name, alpn] = *key;
            let all = [("listener", listener), ("name", name), ("alpn", alpn), ("class", class)];
            page.sample("mcproxy_route_responses_total", &all, count);
        }
    }
    policies(page, own.iter().map(|(_, entry)| *entry));
    type Number = fn(&RouteSum) -> u64;
    let numbers: [(&str, &str, &str, Number); 3] = [
        ("mcproxy_route_connections_active", "gauge", "Connections now.", |sum| sum.active),
        ("mcproxy_route_received_bytes_total", "counter", "Bytes from clients.", |sum| sum.bytes_in),
        ("mcproxy_route_sent_bytes_total", "counter", "Bytes to clients.", |sum| sum.bytes_out),
    ];
    for (name, kind, help, of) in numbers {
        page.family(name, kind, help);
        for (key, sum) in &rows {
            let labels = labels(*key);
            page.sample(name, &labels.each_ref().map(|(name, value)| (*name, &**value)), of(sum));
        }
    }
}

/// What the checks of routes say, of those that fail first.
fn checks(page: &mut Page, snapshot: &Snapshot) {
    let name = "mcproxy_route_backend_up";
    page.family(name, "gauge", "0 where a route's check takes a backend down for this route, else 1.");
    let mut all: Vec<(bool, &RouteEntry, &RouteBackend)> = Vec::new();
    for row in snapshot.routes.iter() {
        let checked = row.value.backends.iter().filter(|backend| backend.checked.is_some());
        all.extend(checked.map(|backend| (backend.is_down(), &**row.value, backend)));
        if all.len() >= 2 * MOST {
            top(&mut all, |(is_down, ..)| *is_down);
            all.truncate(MOST);
        }
    }
    for (is_down, entry, backend) in &*top(&mut all, |(is_down, ..)| *is_down).0 {
        let (spec, address) = (&entry.spec, backend.live.address.to_string());
        let labels = [
            ("listener", &*spec.listener),
            ("name", &*spec.name),
            ("alpn", &*spec.alpn),
            ("backend", &*address),
        ];
        page.sample(name, &labels, u64::from(!is_down));
    }
}

fn backends(page: &mut Page, used: Vec<BackendUse>) {
    let now_ms = clock::millis();
    let used = used.into_iter().filter_map(|used| Some((used.health(now_ms), used.live?)));
    let mut all: Vec<(Health, Arc<BackendLive>)> = used.collect();
    page.family("mcproxy_backends", "gauge", "Backends that routes lead to, by health.");
    let states = [
        ("up", Health::Up),
        ("down", Health::Down),
        ("partly_down", Health::PartlyDown),
        ("ejected", Health::Ejected),
        ("unknown", Health::Unknown),
    ];
    for (word, health) in states {
        let count = all.iter().filter(|(found, _)| *found == health).count();
        page.sample("mcproxy_backends", &[("health", word)], count as u64);
    }
    let is_well = |health| matches!(health, Health::Up | Health::Unknown);
    let (live, _) =
        top(&mut all, |(health, backend)| (!is_well(*health), backend.total() + backend.failures()));
    live.sort_unstable_by_key(|(_, backend)| backend.address);
    let help = "1 unless its checks fail for every route that leads there, or it is ejected.";
    page.family("mcproxy_backend_up", "gauge", help);
    for (health, backend) in &*live {
        let labels = [("backend", &*backend.address.to_string())];
        let serves = is_well(*health) || *health == Health::PartlyDown;
        page.sample("mcproxy_backend_up", &labels, serves.into());
    }
    type Number = fn(&BackendLive) -> u64;
    let numbers: [(&str, &str, &str, Number); 4] = [
        ("mcproxy_backend_draining", "gauge", "1 while it gets no new connection.", |it| {
            it.draining().into()
        }),
        ("mcproxy_backend_connections_active", "gauge", "Connections now.", |it| it.active().into()),
        ("mcproxy_backend_connections_total", "counter", "Connections made.", |it| it.total()),
        ("mcproxy_backend_connect_failures_total", "counter", "Connects that failed.", |it| it.failures()),
    ];
    for (name, kind, help, of) in numbers {
        page.family(name, kind, help);
        for (_, backend) in &*live {
            page.sample(name, &[("backend", &backend.address.to_string())], of(backend));
        }
    }
}

/// What clients may have together.
fn budgets(page: &mut Page, budgets: &Budgets) {
    let (most, memory) = (budgets.connections.most(), &budgets.memory);
    page.one("mcproxy_connections_limit", "gauge", "Connections that clients may have.", most);
    page.one("mcproxy_memory_used_bytes", "gauge", "Memory taken, as it is limited.", memory.used());
    page.one("mcproxy_memory_limit_bytes", "gauge", "Memory from which connections are shed.", memory.most());
    let coders = &budgets.coders;
    page.one("mcproxy_compressing", "gauge", "Responses that are being compressed.", coders.open());
    page.one("mcproxy_compressing_limit", "gauge", "Responses that may be, by memory.", coders.most());
    let help = "1 while memory is short: new connections and requests are refused, idle connections and those that \
                clients block are ended.";
    page.one("mcproxy_memory_short", "gauge", help, u64::from(memory.is_short()));
}

/// Binds the address for [`serve`].
/// `handed`: what another process has handed over, used where it is the same address.
///
/// # Errors
/// It is in use or not ours; the message says what to change.
pub async fn bind(address: SocketAddr, handed: Option<(SocketAddr, OwnedFd)>) -> anyhow::Result<TcpListener> {
    if let Some((there, socket)) = handed
        && there == address
    {
        return Ok(TcpListener::from_std(socket.into())?);
    }
    TcpListener::bind(address).await.map_err(|error| {
        anyhow::anyhow!(
            "cannot serve metrics on {address}: {error}; change [metrics] listen_addr, or \"\" for none"
        )
    })
}

#[cfg(test)]
mod tests {
    use mc_core::backend::Checked;
    use mc_core::model::Route;

    use super::*;
    use crate::admin::CheckUse;
    use crate::health::CheckKey;
    use crate::stats::RouteLive;
    #[test]
    fn workers_are_summed_and_every_outcome_has_its_series() {
        let workers = [Arc::new(WorkerStats::default()), Arc::new(WorkerStats::default())];
        workers[0].accepted.add(5);
        workers[0].closed.add(2);
        workers[1].outcomes[Outcome::NoRoute as usize].add(3);
        let mut page = Page::default();
        super::workers(&mut page, &workers);
        assert!(page.text.contains("mcproxy_connections_active{worker=\"0\"} 3\n"), "{}", page.text);
        assert!(page.text.contains("mcproxy_connections_total{outcome=\"no_route\"} 3\n"));
        for outcome in Outcome::ALL {
            assert!(page.text.contains(&format!("outcome=\"{}\"", outcome.as_str())));
        }
        assert_format(&page.text);
    }

    fn route(name: &str, connections: u64) -> Arc<RouteEntry> {
        let spec: Route =
            toml::from_str(&format!("listener = 'web'\nname = '{name}'\nbackends = []")).unwrap();
        let live = Arc::new(RouteLive::new(spec.key()));
        for _ in 0..connections {
            live.counters().begun();
            live.counters().ended(Outcome::Completed, 10, 100);
        }
        Arc::new(RouteEntry {
            spec,
            backends: Vec::new(),
            live,
            policies: Vec::new(),
            backend_tls: Vec::new(),
            client_ca: None,
        })
    }

    fn snapshot<'a>(routes: impl IntoIterator<Item = &'a Arc<RouteEntry>>) -> Snapshot {
        let mut snapshot = Snapshot::empty();
        for route in routes {
            snapshot.routes.insert(0, &route.spec.name, "", false, Arc::clone(route));
        }
        snapshot
    }

    fn routes_page(snapshot: &Snapshot, others: &mut RouteSum) -> String {
        let mut page = Page::default();
        routes(&mut page, snapshot, others);
        assert_format(&page.text);
        page.text
    }

    #[test]
    fn a_route_has_its_counters_and_an_idle_one_has_none() {
        let text =
            routes_page(&snapshot(&[route("a.org", 3), route("idle.org", 0)]), &mut RouteSum::default());
        let labels = "listener=\"web\",name=\"a.org\",alpn=\"\"";
        for line in [
            format!("mcproxy_route_connections_total{{{labels},outcome=\"completed\"}} 3"),
            format!("mcproxy_route_connections_active{{{labels}}} 0"),
            format!("mcproxy_route_received_bytes_total{{{labels}}} 30"),
            format!("mcproxy_route_sent_bytes_total{{{labels}}} 300"),
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("idle.org") && !text.contains("other"), "{text}");
    }

    #[test]
    fn routes_beyond_the_busiest_are_one_series_that_never_falls() {
        let routes: Vec<_> =
            (0..MOST as u64 + 2).map(|number| route(&format!("r{number}.org"), 2 + number % 3)).collect();
        let quiet = [route("quiet.org", 1), route("silent.org", 1)];
        let mut others = RouteSum::default();
        let other = |text: &str| {
            let start = "mcproxy_route_received_bytes_total{listener=\"\",name=\"other\",alpn=\"\"} ";
            text.lines().find_map(|line| line.strip_prefix(start)).map(str::to_owned)
        };
        let text = routes_page(&snapshot(routes.iter().chain(&quiet)), &mut others);
        assert_eq!(text.lines().filter(|line| line.contains("_active{")).count(), MOST + 1);
        // Two of one connection each, two of two.
        assert_eq!(other(&text).as_deref(), Some("60"));
        assert!(!text.contains("quiet.org"));
        let text = routes_page(&snapshot(routes.iter()), &mut others);
        assert_eq!(other(&text).as_deref(), Some("60"));
    }

    #[test]
    fn backends_that_are_not_well_come_first_and_all_are_counted() {
        let live = |number: u32| {
            let address = format!("10.0.{}.{}:443", number / 256, number % 256).parse().unwrap();
            let live = Some(Arc::new(BackendLive::new(address)));
            BackendUse { address, live, routes: 2, checks: Vec::new() }
        };
        let mut all: Vec<_> = (0..1002).map(live).collect();
        all[..1000].iter().for_each(|backend| backend.live.as_ref().unwrap().connect_ok(1));
        all[1001].checks = vec![failing(2)];
        // One of its two routes goes there.
        all[999].checks = vec![failing(1)];
        let mut page = Page::default();
        backends(&mut page, all);
        assert_format(&page.text);
        let has = |line: &str| page.text.lines().any(|l| l == line);
        assert!(has("mcproxy_backends{health=\"up\"} 999"), "{}", page.text);
        assert!(has("mcproxy_backends{health=\"partly_down\"} 1"), "{}", page.text);
        assert!(has("mcproxy_backend_up{backend=\"10.0.3.231:443\"} 1"), "it serves");
        assert!(has("mcproxy_backends{health=\"down\"} 1") && has("mcproxy_backends{health=\"unknown\"} 1"));
        assert!(has("mcproxy_backend_up{backend=\"10.0.3.233:443\"} 0"));
        assert!(!page.text.contains("10.0.3.232:443"), "nothing went there");
        assert_eq!(page.text.lines().filter(|line| line.starts_with("mcproxy_backend_up{")).count(), MOST);
    }

    /// A check that so many routes ask for, and that fails.
    fn failing(routes: u64) -> CheckUse {
        let text = "listener = 'web'\nname = 'a'\nbackends = [{ address = '10.0.0.1:1' }]\ncheck = {}";
        let key = CheckKey::of(&toml::from_str(text).unwrap()).next().unwrap();
        let checked = Arc::new(Checked::default());
        checked.failed(1, 1, String::new());
        CheckUse { key, checked, routes }
    }

    /// Each sample belongs to the family before it and ends in a number.
    fn assert_format(text: &str) {
        let mut family = "";
        for line in text.lines() {
            if let Some(header) = line.strip_prefix("# TYPE ") {
                family = header.split(' ').next().unwrap();
            } else if !line.starts_with('#') {
                assert!(line.starts_with(family), "{line} is not of {family}");
                let value = line.rsplit(' ').next().unwrap();
                assert!(value.parse::<f64>().is_ok(), "{line}");
            }
        }
    }
}
