//! Active health checks: one task for each thing that is checked, on the admin side's runtime.
//!
//! A check is what a client would do first: a TCP connection, a TLS handshake, a request. Certificates are not
//! judged: whether a name's certificate is right is the client's business, and a backend with an expired one
//! still answers.
//!
//! Health is an address's, and routes may check one address in several ways. Each check counts its own rise and
//! fall; an address is down when all its checks *of one kind* are: a port that opens does not excuse requests
//! that fail, and one name that is broken does not take its neighbours down.

mod probe;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mc_core::backend::{BackendLive, Health};
use mc_core::model::{Check, CheckKind, ProxyOut, Route};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use crate::clock;
use probe::{Tls, probe};

/// What is checked and how. Routes that say the same share one check.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CheckKey {
    /// The backend.
    pub address: SocketAddr,
    /// As configured, its host filled in from the route's name.
    pub check: Check,
    /// A backend that expects a PROXY header gets one from checks too.
    pub proxy_protocol: ProxyOut,
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
    live: Arc<BackendLive>,
}

/// What every check has at hand.
struct Shared {
    tls: Tls,
    /// Taken for the time of one check.
    places: Semaphore,
    found: Mutex<HashMap<SocketAddr, Found>>,
    on_change: OnChange,
}

/// Hears of a backend that went down, and why, or came up. Must not wait.
pub type OnChange = Box<dyn Fn(SocketAddr, Health, &str) + Send + Sync>;

/// What the checks of one address have found.
#[derive(Debug)]
struct Found {
    live: Arc<BackendLive>,
    checks: HashMap<CheckKey, One>,
}

/// What one check has found.
#[derive(Debug)]
struct One {
    /// Counts this check's rise and fall, and nothing else.
    counts: BackendLive,
    /// Why it failed the last time; none where it passed.
    error: Option<String>,
}

/// Checks that are made at the same time, at most: a descriptor each.
const AT_ONCE: usize = 256;

/// The first check begins at a random moment within this, or within the interval where that is shorter.
const START: Duration = Duration::from_secs(1);

impl Checks {
    /// No checks yet. `on_change` hears of each backend that goes down (and why) or comes up.
    #[must_use]
    pub fn new(on_change: OnChange) -> Self {
        let shared = Shared {
            tls: Tls::default(),
            places: Semaphore::new(AT_ONCE),
            found: Mutex::default(),
            on_change,
        };
        Self { running: HashMap::new(), shared: Arc::new(shared) }
    }

    /// Starts what is wanted and does not run, ends what runs and is not wanted. Call on a tokio runtime.
    pub fn sync(&mut self, wanted: &HashMap<CheckKey, Arc<BackendLive>>) {
        let now_ms = clock::millis();
        self.running.retain(|key, running| {
            // The same address may have got a new state, where no route led there for a moment.
            let keep = wanted.get(key).is_some_and(|live| Arc::ptr_eq(live, &running.live));
            if !keep {
                running.task.abort();
                self.shared.end(key, now_ms);
            }
            keep
        });
        for (key, live) in wanted {
            if !self.running.contains_key(key) {
                self.shared.begin(key, live);
                let task = tokio::spawn(run(key.clone(), Arc::clone(&self.shared))).abort_handle();
                self.running.insert(key.clone(), Running { task, live: Arc::clone(live) });
            }
        }
    }

    /// Where the errors of failing checks can be read, by address.
    #[must_use]
    pub fn errors(&self) -> CheckErrors {
        CheckErrors(Arc::clone(&self.shared))
    }
}

impl Drop for Checks {
    fn drop(&mut self) {
        for running in self.running.values() {
            running.task.abort();
        }
    }
}

/// Why backends' last checks failed.
#[derive(Clone, Debug)]
pub struct CheckErrors(Arc<Shared>);

impl CheckErrors {
    /// Why the last check of this backend failed; `None` where it passed or there is none.
    #[must_use]
    pub fn get(&self, address: SocketAddr) -> Option<String> {
        self.0.found().get(&address)?.checks.values().find_map(|one| one.error.clone())
    }
}

impl CheckKey {
    /// The checks that a route wants, one for each backend; none where it has no check.
    pub fn of(route: &Route) -> impl Iterator<Item = Self> + '_ {
        let check = route.check.as_ref().map(|check| {
            // A wildcard or the default names no host that one could ask for.
            let host = if route.name.starts_with('*') { "" } else { &route.name };
            let host = if check.host.is_empty() { host } else { &check.host };
            Check { host: host.to_owned(), ..check.clone() }
        });
        route.backends.iter().filter_map(move |backend| {
            let check = check.clone()?;
            Some(Self { address: backend.address, check, proxy_protocol: backend.proxy_protocol })
        })
    }
}

impl Shared {
    fn found(&self) -> MutexGuard<'_, HashMap<SocketAddr, Found>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A check is to run from now on.
    fn begin(&self, key: &CheckKey, live: &Arc<BackendLive>) {
        let mut all = self.found();
        let new = || Found { live: Arc::clone(live), checks: HashMap::new() };
        let found = all.entry(key.address).or_insert_with(new);
        found.live = Arc::clone(live);
        let one = One { counts: BackendLive::new(key.address), error: None };
        found.checks.insert(key.clone(), one);
    }

    /// A check does not run any more: what the others have found counts without it.
    fn end(&self, key: &CheckKey, now_ms: u64) {
        let mut all = self.found();
        let Some(found) = all.get_mut(&key.address) else { return };
        found.checks.remove(key);
        let change = if found.checks.is_empty() {
            found.live.checks_ended(now_ms);
            all.remove(&key.address);
            None
        } else {
            found.settle(now_ms)
        };
        drop(all);
        self.tell(key.address, change, "");
    }

    /// A check has an answer.
    fn judge(&self, key: &CheckKey, answer: Result<(), String>, now_ms: u64) {
        let mut all = self.found();
        let Some(found) = all.get_mut(&key.address) else { return };
        let Some(one) = found.checks.get_mut(key) else { return };
        match &answer {
            Ok(()) => one.counts.check_passed(now_ms, key.check.rise),
            Err(_) => one.counts.check_failed(now_ms, key.check.fall),
        };
        let reason = answer.as_ref().err().cloned().unwrap_or_default();
        one.error = answer.err();
        let change = found.settle(now_ms);
        drop(all);
        self.tell(key.address, change, &reason);
    }

    fn tell(&self, address: SocketAddr, change: Option<Health>, reason: &str) {
        if let Some(health) = change {
            tracing::info!(backend = %address, ?health, reason, "health changed");
            (self.on_change)(address, health, reason);
        }
    }
}

impl Found {
    /// Brings the address's health to what its checks say; the new one where that changes it.
    fn settle(&self, now_ms: u64) -> Option<Health> {
        let all = self.checks.iter().map(|(key, one)| (key.check.kind, one.counts.health(now_ms)));
        match verdict(all) {
            Health::Down => self.live.check_failed(now_ms, 1),
            Health::Up => self.live.check_passed(now_ms, 1),
            Health::Unknown | Health::Ejected => None,
        }
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("found", &self.found).finish_non_exhaustive()
    }
}

/// What the checks of one address say together; see the module's first lines.
fn verdict(all: impl Iterator<Item = (CheckKind, Health)> + Clone) -> Health {
    let down = |kind| {
        let mut of_kind = all.clone().filter(|one| one.0 == kind).peekable();
        of_kind.peek().is_some() && of_kind.all(|one| one.1 == Health::Down)
    };
    if [CheckKind::Tcp, CheckKind::Tls, CheckKind::Http, CheckKind::Https].into_iter().any(down) {
        Health::Down
    } else if all.clone().any(|one| one.1 == Health::Up) {
        Health::Up
    } else {
        Health::Unknown
    }
}

/// Checks one backend again and again.
async fn run(key: CheckKey, shared: Arc<Shared>) {
    let interval = Duration::from_millis(key.check.interval_ms.max(1));
    // Checks that are wanted at the same time, as at a start, are not all made at the same time.
    let first = Instant::now() + interval.min(START).mul_f64(fastrand::f64());
    let mut ticks = interval_at(first, interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // Waiting for a place is not the backend's fault: its time begins after.
        let place = shared.places.acquire().await.expect("it is never closed");
        let answer = timeout(Duration::from_millis(key.check.timeout_ms), probe(&key, &shared.tls)).await;
        drop(place);
        let answer =
            answer.unwrap_or_else(|_elapsed| Err(format!("no answer within {} ms", key.check.timeout_ms)));
        shared.judge(&key, answer, clock::millis());
    }
}
