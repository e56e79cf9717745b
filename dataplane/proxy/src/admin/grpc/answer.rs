//! What the API says of the running state.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ipnet::IpNet;
use mc_api::mcproxy as api;
use mc_core::backend::{Checked, Health};
use mc_core::certificate::Validity;
use mc_core::model::RouteKey;
use mc_core::outcome::Outcome;
use mc_core::validate::Invalid;

use crate::admin::{Admin, CheckUse};
use crate::clock;
use crate::connections::{ConnectionFilter, ConnectionInfo};
use crate::handover::Identity;
use crate::old_process::{Order, Report, Silent};
use crate::snapshot::{FirewallEntry, RouteEntry, Snapshot};
use crate::tls::Shadowed;

/// What runs.
pub(super) fn status(admin: &Admin) -> api::Status {
    let snapshot = admin.snapshot();
    let workers = admin.workers();
    let (country_database, asn_database) = snapshot.firewall.geo.describe();
    let Identity { process, pid, version } = Identity::current();
    let (mut draining, mut problems) = (Vec::new(), admin.problems());
    for asked in admin.ask_old(Order::Report) {
        match asked {
            Ok(report) => draining.push(old_process(report)),
            Err(Silent(process)) => problems.push(format!("The old process {process} does not answer")),
        }
    }
    api::Status {
        version,
        process,
        pid,
        draining,
        revision: snapshot.revision,
        workers: u32::try_from(workers.stats.len()).unwrap_or(u32::MAX),
        routes: snapshot.route_count,
        listeners: u32::try_from(snapshot.listeners.len()).unwrap_or(u32::MAX),
        connections: workers.connections(),
        uptime_ms: admin.uptime_ms(),
        country_database,
        asn_database,
        problems,
        routes_on_hold: u32::try_from(admin.holds().len()).unwrap_or(u32::MAX),
        waiting: workers.stats.iter().map(|stats| stats.waiting()).sum(),
    }
}

/// Routes on hold.
pub(super) fn holds(admin: &Admin) -> api::ListHoldsResponse {
    let hold = |(key, left_ms, waiting): (RouteKey, u64, u32)| api::RouteHold {
        key: Some((&key).into()),
        left_ms,
        waiting: waiting.into(),
    };
    api::ListHoldsResponse { holds: admin.holds().into_iter().map(hold).collect() }
}

fn old_process(report: Report) -> api::OldProcess {
    let Report { process, pid, version, since_ms, connections, closes_after_ms } = report;
    api::OldProcess { process, pid, version, since_ms, connections, closes_after_ms }
}

/// What works, and why something does not.
pub(super) fn capabilities(admin: &Admin) -> api::Capabilities {
    let report = admin.kernel().report();
    let capability = |name: &str, state: &str, detail: String| api::Capability {
        name: name.to_owned(),
        state: state.to_owned(),
        detail,
    };
    // Without it nobody would answer.
    let mut capabilities = vec![capability("io_uring", "on", String::new())];
    let off: Vec<&str> =
        report.interfaces.iter().filter(|(_, how)| how.is_err()).map(|(name, _)| name.as_str()).collect();
    let (state, detail) = match report.problem.as_str() {
        "" if report.interfaces.is_empty() => ("off", "no interface is named in [xdp] interfaces".to_owned()),
        "" if off.len() == report.interfaces.len() => ("off", format!("not on {}", off.join(", "))),
        "" if off.is_empty() => ("on", format!("last change of policy took {} us", report.policy_us)),
        "" => ("on", format!("but not on {}", off.join(", "))),
        problem => ("off", problem.to_owned()),
    };
    capabilities.push(capability("xdp", state, detail));
    capabilities.push(match admin.workers().policy.tls.kernel() {
        Ok(_) => capability("kernel_tls", "on", String::new()),
        Err(problem) => capability("kernel_tls", "off", problem.to_owned()),
    });
    capabilities.push(match &report.steering {
        None => capability("steering", "off", "no listener has steered addresses".to_owned()),
        Some(problem) if problem.is_empty() => capability("steering", "on", String::new()),
        Some(problem) => capability("steering", "off", problem.clone()),
    });
    for (name, how) in &report.interfaces {
        let name = format!("xdp:{name}");
        capabilities.push(match how {
            Err(problem) => capability(&name, "off", problem.clone()),
            Ok(attached) => {
                let detail = match (&attached.not_pinned, report.pinned) {
                    (Some(problem), _) => format!("ends with this process: {problem}"),
                    (None, false) => "ends with this process, as configured".to_owned(),
                    (None, true) => "outlives a restart".to_owned(),
                };
                capability(&name, attached.mode.word(), detail)
            }
        });
    }
    api::Capabilities { capabilities }
}

/// Listeners and what is counted of them.
pub(super) fn listeners(admin: &Admin) -> api::ListListenersResponse {
    let state = |listener: &Arc<crate::snapshot::ListenerEntry>| api::ListenerState {
        listener: Some((&listener.spec).into()),
        accepted: listener.accepted.load(Ordering::Relaxed),
        routes: admin.routes_of(&listener.spec.name),
        problem: admin.closed(&listener.spec.name).unwrap_or_default(),
    };
    api::ListListenersResponse { listeners: admin.snapshot().listeners.iter().map(state).collect() }
}

/// Certificates by file.
pub(super) fn certificates(admin: &Admin) -> api::ListCertificatesResponse {
    let now_s = clock::unix_seconds();
    let certificates = admin.workers().policy.tls.certificates(now_s).into_iter().map(|info| {
        let validity = info.validity(now_s).map_or("", Validity::as_str);
        let period = info.leaf.as_ref().map(|leaf| leaf.period);
        let shadowed = |it: Shadowed| api::ShadowedName { name: it.name, by: it.by };
        api::CertificateState {
            file: info.file,
            names: info.names,
            not_before_s: period.map_or(0, |period| period.not_before_s),
            not_after_s: period.map_or(0, |period| period.not_after_s),
            key: info.leaf.as_ref().map(|leaf| leaf.key.clone()).unwrap_or_default(),
            stapled: info.stapled,
            sha256: info.leaf.map(|leaf| leaf.sha256).unwrap_or_default(),
            problem: info.problem.unwrap_or_default(),
            validity: validity.to_owned(),
            days_left: period.map_or(0, |period| period.days_left(now_s)),
            shadowed: info.shadowed.into_iter().map(shadowed).collect(),
        }
    });
    api::ListCertificatesResponse { certificates: certificates.collect() }
}

/// Backends and what is known of them.
pub(super) fn backends(admin: &Admin) -> api::ListBackendsResponse {
    let now_ms = clock::millis();
    let all = admin.backends();
    let is_checked = all.iter().any(|used| !used.checks.is_empty());
    let snapshot = admin.snapshot();
    let askers = if is_checked { some_routes(&snapshot) } else { HashMap::new() };
    let backends = all.into_iter().map(|used| {
        let checks: Vec<_> = used.checks.iter().map(|check| check_state(check, &askers, now_ms)).collect();
        let mut state = api::BackendState {
            address: used.address.to_string(),
            health: health(used.health(now_ms)).into(),
            draining: true,
            routes: used.routes,
            last_error: checks
                .iter()
                .map(|check| &check.last_error)
                .find(|error| !error.is_empty())
                .cloned()
                .unwrap_or_default(),
            ..Default::default()
        };
        if let Some(live) = used.live {
            state.draining = live.draining();
            state.connections = live.active().into();
            state.total = live.total();
            state.failures = live.failures();
            let of_checks = used.checks.iter().map(|check| check.checked.since_ms());
            let since_ms = of_checks.chain([live.since_ms(now_ms)]).max().unwrap_or_default();
            state.since_ms = now_ms.saturating_sub(since_ms);
        }
        state.checks = checks;
        state
    });
    api::ListBackendsResponse { backends: backends.collect() }
}

/// Routes that ask for each check, at most [`ROUTES_NAMED`] of each.
type Askers<'a> = HashMap<*const Checked, Vec<&'a Arc<RouteEntry>>>;

/// Routes that are named of each check.
const ROUTES_NAMED: usize = 10;

fn some_routes(snapshot: &Snapshot) -> Askers<'_> {
    let mut askers = Askers::new();
    for row in snapshot.routes.iter() {
        for checked in row.value.backends.iter().filter_map(|backend| backend.checked.as_ref()) {
            let routes = askers.entry(Arc::as_ptr(checked)).or_default();
            if routes.len() < ROUTES_NAMED {
                routes.push(row.value);
            }
        }
    }
    askers
}

fn check_state(used: &CheckUse, askers: &Askers<'_>, now_ms: u64) -> api::CheckState {
    let checked = &used.checked;
    let mut routes: Vec<_> =
        askers.get(&Arc::as_ptr(checked)).into_iter().flatten().map(|entry| &entry.live.key).collect();
    routes.sort_unstable();
    api::CheckState {
        check: Some((&used.key.check).into()),
        summary: used.key.to_string(),
        health: health(checked.health()).into(),
        last_error: checked.last_error().unwrap_or_default(),
        since_ms: now_ms.saturating_sub(checked.since_ms()),
        routes: used.routes,
        some_routes: routes.into_iter().map(Into::into).collect(),
    }
}

/// Counters of all workers and of the `top` busiest routes.
pub(super) fn stats(admin: &Admin, top: usize) -> api::Stats {
    let snapshot = admin.snapshot();
    let mut stats = api::Stats {
        uptime_ms: admin.uptime_ms(),
        revision: snapshot.revision,
        outcomes: HashMap::with_capacity(Outcome::ALL.len()),
        ..Default::default()
    };
    for (worker, counted) in (0_u32..).zip(&admin.workers().stats) {
        let (accepted, closed) = (counted.accepted.get(), counted.closed.get());
        stats.accepted += accepted;
        stats.active += active(accepted, closed);
        stats.bytes_in += counted.bytes_in.get();
        stats.bytes_out += counted.bytes_out.get();
        stats.workers.push(api::WorkerStats { worker, accepted, active: active(accepted, closed) });
        for (outcome, count) in Outcome::ALL.iter().zip(&counted.outcomes) {
            *stats.outcomes.entry(outcome.as_str().to_owned()).or_default() += count.get();
        }
    }
    stats.outcomes.retain(|_, count| *count > 0);
    stats.routes = busiest(snapshot.routes.iter().map(|row| row.value), top);
    stats
}

/// The routes with the most connections now, then ever; none that never had one.
fn busiest<'a>(routes: impl Iterator<Item = &'a Arc<RouteEntry>>, top: usize) -> Vec<api::RouteStats> {
    // The least busy of the best so far is at the head, to be replaced.
    let mut best: BinaryHeap<Reverse<(u32, u64, usize)>> = BinaryHeap::new();
    let mut kept: Vec<&Arc<RouteEntry>> = Vec::new();
    for entry in routes {
        let Some(counters) = entry.live.seen() else { continue };
        let rank = (entry.live.active(), counters.total.load(Ordering::Relaxed));
        if best.len() < top {
            best.push(Reverse((rank.0, rank.1, kept.len())));
            kept.push(entry);
        } else if let Some(mut least) = best.peek_mut()
            && (least.0.0, least.0.1) < rank
        {
            let slot = least.0.2;
            kept[slot] = entry;
            *least = Reverse((rank.0, rank.1, slot));
        }
    }
    best.into_sorted_vec().into_iter().map(|Reverse((.., slot))| route_stats(kept[slot])).collect()
}

fn route_stats(entry: &RouteEntry) -> api::RouteStats {
    let mut stats = api::RouteStats {
        key: Some((&entry.live.key).into()),
        active: entry.live.active().into(),
        ..Default::default()
    };
    if let Some(counters) = entry.live.seen() {
        stats.total = counters.total.load(Ordering::Relaxed);
        stats.bytes_in = counters.bytes_in.load(Ordering::Relaxed);
        stats.bytes_out = counters.bytes_out.load(Ordering::Relaxed);
        let refused = Outcome::ALL.iter().zip(&counters.outcomes).filter(|(outcome, _)| outcome.is_refusal());
        stats.failed = refused.map(|(_, count)| count.load(Ordering::Relaxed)).sum();
    }
    stats
}

/// A live connection.
pub(super) fn connection(info: ConnectionInfo) -> api::Connection {
    api::Connection {
        id: info.id,
        client: info.client.to_string(),
        peer: info.peer.to_string(),
        listener: info.listener,
        name: info.name,
        route: info.route,
        backend: info.backends.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        requests: u32::try_from(info.requests).unwrap_or(u32::MAX),
        age_ms: millis(info.age),
        idle_ms: millis(info.idle),
        bytes_in: info.bytes_in,
        bytes_out: info.bytes_out,
        phase: info.phase.to_owned(),
    }
}

/// What the firewall would say of an address, and why. Takes no token.
pub(super) fn test_firewall(firewall: &FirewallEntry, address: IpAddr) -> api::TestFirewallResponse {
    let geo = firewall.geo.lookup(address);
    let decision = firewall.compiled.verdict(address, || geo, None);
    let why = decision.explain(&firewall.spec);
    api::TestFirewallResponse {
        allowed: decision.pass(),
        reason: decision
            .outcome()
            .map_or_else(|| why.clone(), |outcome| format!("{}: {why}", outcome.as_str())),
        country: geo.country.map(|code| String::from_utf8_lossy(&code).into_owned()).unwrap_or_default(),
        asn: geo.asn.unwrap_or(0),
    }
}

/// Which connections are meant.
pub(super) fn filter(filter: api::ConnectionFilter) -> Result<ConnectionFilter, Invalid> {
    let given = |text: String| (!text.is_empty()).then_some(text);
    Ok(ConnectionFilter {
        ids: filter.ids,
        listener: given(filter.listener),
        name: given(filter.name).map(|name| name.trim_end_matches('.').to_ascii_lowercase()),
        client: given(filter.client_network)
            .map(|text| network("filter.client_network", &text))
            .transpose()?,
        backend: given(filter.backend).map(|text| socket_address("filter.backend", &text)).transpose()?,
        removed_routes: false,
    })
}

/// An address with a port.
pub(super) fn socket_address(field: &str, text: &str) -> Result<SocketAddr, Invalid> {
    text.parse().map_err(|_unparsed| Invalid {
        field: field.to_owned(),
        problem: format!("`{text}` is no address with a port: write 192.0.2.1:443 or [2001:db8::1]:443"),
    })
}

/// A network, or one address.
fn network(field: &str, text: &str) -> Result<IpNet, Invalid> {
    let one = |_| text.parse::<IpAddr>().map(IpNet::from);
    text.parse::<IpNet>().or_else(one).map_err(|_unparsed| Invalid {
        field: field.to_owned(),
        problem: format!("`{text}` is no network: write 192.0.2.0/24, 2001:db8::/32 or one address"),
    })
}

fn health(health: Health) -> api::Health {
    match health {
        Health::Up => api::Health::Up,
        Health::Down => api::Health::Down,
        Health::PartlyDown => api::Health::PartlyDown,
        Health::Ejected => api::Health::Ejected,
        Health::Unknown => api::Health::Unknown,
    }
}

/// Connections that have begun and not ended: the two are read one after the other.
fn active(accepted: u64, closed: u64) -> u64 {
    accepted.saturating_sub(closed)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
