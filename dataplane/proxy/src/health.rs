//! Active health checks: one task for each thing that is checked, on the admin side's runtime.
//!
//! A check is what a client would do first: a TCP connection, a TLS handshake, a request. On a route that terminates TLS it
//! asks a backend as requests do: by its protocol, and verified by the same authorities for the same name. On a route
//! that passes TLS through, certificates are not judged: whether a name's certificate is right is the client's business,
//! and a backend with an expired one still answers.
//!
//! What a check finds concerns the routes that ask for it, and no others ([`mc_core::backend::Checked`]). Routes that ask
//! for the very same check of the same address share it.

mod http2;
mod probe;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use mc_core::backend::{BackendLive, Checked, Health};
use mc_core::model::{Backend, Check, CheckKind, Mode, ProxyOut, Route};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use crate::clock;
use crate::tls::BackendTls;
use probe::{Tls, probe};

/// What is checked and how. Routes that say the same share one check.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CheckKey {
    /// The backend.
    pub address: SocketAddr,
    /// As configured, its host filled in from the route's name, and what has no meaning for its kind left out.
    pub check: Check,
    /// A backend that expects a PROXY header gets one from checks too.
    pub proxy_protocol: ProxyOut,
    /// Whether TLS is spoken, and who the backend must prove to be.
    pub tls: CheckTls,
    /// Whether HTTP/2 is spoken.
    pub is_http2: bool,
}

/// What a check does of TLS.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CheckTls {
    /// None.
    Off,
    /// A handshake whose certificate is not judged.
    Unverified,
    /// A handshake as requests make it.
    Verified {
        /// See [`mc_core::model::Http::backend_ca`].
        ca: String,
        /// Whom the certificate must be for.
        name: String,
    },
}

/// What a check writes to, and what it verifies by.
#[derive(Clone, Debug)]
pub struct Target {
    /// The address's state.
    pub live: Arc<BackendLive>,
    /// What the check has found.
    pub checked: Arc<Checked>,
    /// For [`CheckTls::Verified`].
    pub tls: Option<Arc<BackendTls>>,
}

/// All checks that run.
#[derive(Debug)]
pub struct Checks {
    running: HashMap<CheckKey, Running>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Running {
    task: AbortHandle,
    checked: Arc<Checked>,
}

/// What every check has at hand.
struct Shared {
    tls: Tls,
    /// Taken for the time of one check.
    places: Semaphore,
    on_change: OnChange,
}

/// Hears of a check that takes a backend down, and why, or up. Must not wait.
pub type OnChange = Box<dyn Fn(&CheckKey, Health, &str) + Send + Sync>;

/// Checks that are made at the same time, at most: a descriptor each.
const AT_ONCE: usize = 256;

/// The first check begins at a random moment within this, or within the interval where that is shorter.
const START: Duration = Duration::from_secs(1);

impl Checks {
    /// No checks yet. `on_change` hears of each check that takes its backend down (and why) or up.
    #[must_use]
    pub fn new(on_change: OnChange) -> Self {
        let shared = Shared { tls: Tls::default(), places: Semaphore::new(AT_ONCE), on_change };
        Self { running: HashMap::new(), shared: Arc::new(shared) }
    }

    /// Starts what is wanted and does not run, ends what runs and is not wanted. Call on a tokio runtime.
    pub fn sync(&mut self, wanted: &HashMap<CheckKey, Target>) {
        self.running.retain(|key, running| {
            // The same check may have got a new state, where no route asked for it for a moment.
            let keep = wanted.get(key).is_some_and(|target| Arc::ptr_eq(&target.checked, &running.checked));
            if !keep {
                running.task.abort();
            }
            keep
        });
        for (key, target) in wanted {
            if !self.running.contains_key(key) {
                let checking = run(key.clone(), target.clone(), Arc::clone(&self.shared));
                let task = tokio::spawn(checking).abort_handle();
                self.running.insert(key.clone(), Running { task, checked: Arc::clone(&target.checked) });
            }
        }
    }
}

impl Drop for Checks {
    fn drop(&mut self) {
        for running in self.running.values() {
            running.task.abort();
        }
    }
}

impl CheckKey {
    /// The checks that a route wants, one for each backend in their order; none where it has no check.
    pub fn of(route: &Route) -> impl Iterator<Item = Self> + '_ {
        let check = route.check.as_ref();
        route.backends.iter().filter_map(move |backend| Some(Self::of_backend(route, backend, check?)))
    }

    fn of_backend(route: &Route, backend: &Backend, check: &Check) -> Self {
        let kind = check.kind;
        let (tls, is_http2) = match (route.mode, kind) {
            (_, CheckKind::Tcp) | (Mode::L4, CheckKind::Http) => (CheckTls::Off, false),
            (Mode::L4, _) => (CheckTls::Unverified, kind == CheckKind::Grpc),
            (Mode::L7, _) if backend.protocol.is_tls() => {
                let name = if backend.server_name.is_empty() { &route.name } else { &backend.server_name };
                let ca = route.http.backend_ca.clone();
                (CheckTls::Verified { ca, name: name.clone() }, backend.protocol.is_http2())
            }
            (Mode::L7, _) => (CheckTls::Off, backend.protocol.is_http2()),
        };
        let mut check = check.clone();
        let asks = matches!(kind, CheckKind::Http | CheckKind::Https | CheckKind::Grpc);
        if !asks && tls != CheckTls::Unverified {
            check.host.clear();
        } else if check.host.is_empty() && !route.name.starts_with('*') {
            // A wildcard or the default names no host that one could ask for.
            check.host.clone_from(&route.name);
        }
        if !asks || kind == CheckKind::Grpc {
            "/".clone_into(&mut check.path);
        }
        let (address, proxy_protocol) = (backend.address, backend.proxy_protocol);
        Self { address, check, proxy_protocol, tls, is_http2 }
    }

    /// What is said for the host: the address where there is no name.
    fn authority(&self) -> String {
        if self.check.host.is_empty() { self.address.to_string() } else { self.check.host.clone() }
    }
}

/// For people: what is checked, without the address.
impl fmt::Display for CheckKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Check { kind, host, path, service, .. } = &self.check;
        match kind {
            CheckKind::Tcp => f.write_str("tcp"),
            CheckKind::Tls => write!(f, "tls {host}"),
            CheckKind::Http => write!(f, "http {host}{path}"),
            CheckKind::Https => write!(f, "https {host}{path}"),
            CheckKind::Grpc if service.is_empty() => write!(f, "grpc {host}"),
            CheckKind::Grpc => write!(f, "grpc {host} {service}"),
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

/// Counts what a check has found; the new health where that changed it.
fn judge(key: &CheckKey, target: &Target, answer: Result<(), String>, now_ms: u64) -> Option<Health> {
    match answer {
        Ok(()) => {
            let was_down = target.checked.is_down();
            let change = target.checked.passed(now_ms, key.check.rise);
            if was_down && change.is_some() {
                // It is back: what its connections told is of before.
                target.live.end_ejection(now_ms);
            }
            change
        }
        Err(error) => target.checked.failed(now_ms, key.check.fall, error),
    }
}

/// Checks one backend again and again.
async fn run(key: CheckKey, target: Target, shared: Arc<Shared>) {
    let interval = Duration::from_millis(key.check.interval_ms.max(1));
    // Checks that are wanted at the same time, as at a start, are not all made at the same time.
    let first = Instant::now() + interval.min(START).mul_f64(fastrand::f64());
    let mut ticks = interval_at(first, interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // Waiting for a place is not the backend's fault: its time begins after.
        let place = shared.places.acquire().await.expect("it is never closed");
        let limit = Duration::from_millis(key.check.timeout_ms);
        let answer = timeout(limit, probe(&key, target.tls.as_deref(), &shared.tls)).await;
        drop(place);
        let answer =
            answer.unwrap_or_else(|_elapsed| Err(format!("no answer within {} ms", key.check.timeout_ms)));
        if let Some(health) = judge(&key, &target, answer, clock::millis()) {
            let reason = target.checked.last_error().unwrap_or_default();
            tracing::info!(backend = %key.address, check = %key, ?health, reason, "health changed");
            (shared.on_change)(&key, health, &reason);
        }
    }
}

/// What answers 200 to 399 is well.
fn judge_status(key: &CheckKey, status: StatusCode) -> Result<(), String> {
    if (200..400).contains(&status.as_u16()) {
        Ok(())
    } else {
        Err(format!("GET {} answered {status}", key.check.path))
    }
}
