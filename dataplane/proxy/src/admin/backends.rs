//! Backends by address: one live state each, shared by every route that leads there, and the checks that
//! these routes want.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use foldhash::HashMap;
use mc_core::backend::{BackendLive, Checked, Health, RouteBackend, overall};
use mc_core::model::Route;

use crate::health::{CheckKey, Target};
use crate::snapshot::RouteEntry;
use crate::tls::BackendTls;

/// Backends that routes lead to, and which addresses drain.
#[derive(Debug, Default)]
pub(crate) struct Backends {
    live: HashMap<SocketAddr, Used>,
    /// As stored: an address keeps its flag while no route leads there.
    draining: BTreeSet<SocketAddr>,
    /// Checks that routes want.
    checks: HashMap<CheckKey, UsedCheck>,
    /// Whether other checks are wanted since [`Self::take_checks`].
    checks_changed: bool,
}

/// The checks that are to run, and whom they tell.
pub(crate) type Wanted = std::collections::HashMap<CheckKey, Target>;

#[derive(Debug)]
struct Used {
    live: Arc<BackendLive>,
    routes: u64,
}

/// A check, and how many routes want it.
#[derive(Clone, Debug)]
struct UsedCheck {
    checked: Arc<Checked>,
    tls: Option<Arc<BackendTls>>,
    routes: u64,
}

/// A backend and how it is used.
#[derive(Clone, Debug)]
pub struct BackendUse {
    /// Where it is.
    pub address: SocketAddr,
    /// Its state; none while no route leads there (it is known because it drains).
    pub live: Option<Arc<BackendLive>>,
    /// Routes that lead there.
    pub routes: u64,
    /// How these routes check it, each way once.
    pub checks: Vec<CheckUse>,
}

/// A check of a backend, and how it is used.
#[derive(Clone, Debug)]
pub struct CheckUse {
    /// What is checked.
    pub key: CheckKey,
    /// What it has found.
    pub checked: Arc<Checked>,
    /// Routes that ask for it.
    pub routes: u64,
}

impl BackendUse {
    /// Its health over all routes that lead there.
    #[must_use]
    pub fn health(&self, now_ms: u64) -> Health {
        let address = self.live.as_ref().map_or(Health::Unknown, |live| live.health(now_ms));
        let checks: Vec<_> = self.checks.iter().map(|used| (used.checked.health(), used.routes)).collect();
        overall(address, self.routes, &checks)
    }
}

impl Backends {
    /// None yet, but these addresses drain.
    pub(crate) fn new(draining: impl IntoIterator<Item = SocketAddr>) -> Self {
        Self { draining: draining.into_iter().collect(), ..Self::default() }
    }

    /// The same backends, with no route counted yet: for counting all routes anew.
    pub(crate) fn uncounted(&self) -> Self {
        let unused = |(&address, used): (&SocketAddr, &Used)| {
            (address, Used { live: Arc::clone(&used.live), routes: 0 })
        };
        let unwanted =
            |(key, used): (&CheckKey, &UsedCheck)| (key.clone(), UsedCheck { routes: 0, ..used.clone() });
        Self {
            live: self.live.iter().map(unused).collect(),
            draining: self.draining.clone(),
            checks: self.checks.iter().map(unwanted).collect(),
            checks_changed: true,
        }
    }

    /// Forgets addresses that no route leads to, and checks that none wants.
    pub(crate) fn forget_unused(&mut self) {
        self.checks.retain(|_, used| used.routes > 0);
        self.live.retain(|_, used| used.routes > 0);
    }

    /// The states of a route's backends, in its order; made where they are new. `tls`: how they prove who they are, as
    /// in [`RouteEntry::backend_tls`]. Counts the route.
    pub(crate) fn acquire(
        &mut self,
        route: &Route,
        tls: &[Option<Arc<BackendTls>>],
        now_ms: u64,
    ) -> Vec<RouteBackend> {
        let mut checks = CheckKey::of(route);
        let backends = route.backends.iter().enumerate().map(|(index, backend)| RouteBackend {
            live: self.acquire_one(backend.address, now_ms),
            checked: checks
                .next()
                .map(|key| self.acquire_check(key, tls.get(index).and_then(Option::as_ref))),
        });
        backends.collect()
    }

    fn acquire_check(&mut self, key: CheckKey, tls: Option<&Arc<BackendTls>>) -> Arc<Checked> {
        let used = self.checks.entry(key).or_insert_with(|| {
            self.checks_changed = true;
            UsedCheck { checked: Arc::default(), tls: tls.cloned(), routes: 0 }
        });
        used.routes += 1;
        Arc::clone(&used.checked)
    }

    fn acquire_one(&mut self, address: SocketAddr, now_ms: u64) -> Arc<BackendLive> {
        let used = self.live.entry(address).or_insert_with(|| {
            let live = BackendLive::new(address);
            if self.draining.contains(&address) {
                live.set_draining(true, now_ms);
            }
            Used { live: Arc::new(live), routes: 0 }
        });
        used.routes += 1;
        Arc::clone(&used.live)
    }

    /// Uncounts a route that is gone; an address that no route leads to any more is forgotten.
    pub(crate) fn release(&mut self, entry: &RouteEntry) {
        for check in CheckKey::of(&entry.spec) {
            if let Some(used) = self.checks.get_mut(&check) {
                used.routes -= 1;
                if used.routes == 0 {
                    self.checks.remove(&check);
                    self.checks_changed = true;
                }
            }
        }
        for backend in &entry.backends {
            if let Some(used) = self.live.get_mut(&backend.live.address) {
                used.routes -= 1;
                if used.routes == 0 {
                    self.live.remove(&backend.live.address);
                }
            }
        }
    }

    /// All checks that are wanted, where that has changed since it was asked.
    pub(crate) fn take_checks(&mut self) -> Option<Wanted> {
        std::mem::take(&mut self.checks_changed).then(|| {
            let target = |(key, used): (&CheckKey, &UsedCheck)| {
                let live = Arc::clone(&self.live.get(&key.address)?.live);
                Some((
                    key.clone(),
                    Target { live, checked: Arc::clone(&used.checked), tls: used.tls.clone() },
                ))
            };
            self.checks.iter().filter_map(target).collect()
        })
    }

    /// Sets the flag, on the live state too.
    pub(crate) fn set_draining(&mut self, address: SocketAddr, drain: bool, now_ms: u64) {
        if drain {
            self.draining.insert(address);
        } else {
            self.draining.remove(&address);
        }
        if let Some(used) = self.live.get(&address) {
            used.live.set_draining(drain, now_ms);
        }
    }

    /// Whether the address drains.
    pub(crate) fn drains(&self, address: SocketAddr) -> bool {
        self.draining.contains(&address)
    }

    /// Whether a route leads to the address.
    pub(crate) fn is_used(&self, address: SocketAddr) -> bool {
        self.live.contains_key(&address)
    }

    /// Every address that is used or drains, in order.
    pub(crate) fn list(&self) -> Vec<BackendUse> {
        let unused = |address| BackendUse { address, live: None, routes: 0, checks: Vec::new() };
        let mut all: BTreeMap<SocketAddr, BackendUse> =
            self.draining.iter().map(|&address| (address, unused(address))).collect();
        for (&address, used) in &self.live {
            let live = Some(Arc::clone(&used.live));
            all.insert(address, BackendUse { live, routes: used.routes, ..unused(address) });
        }
        for (key, used) in &self.checks {
            if let Some(backend) = all.get_mut(&key.address) {
                let (checked, routes) = (Arc::clone(&used.checked), used.routes);
                backend.checks.push(CheckUse { key: key.clone(), checked, routes });
            }
        }
        for backend in all.values_mut() {
            backend.checks.sort_by_cached_key(|used| used.key.to_string());
        }
        all.into_values().collect()
    }
}
