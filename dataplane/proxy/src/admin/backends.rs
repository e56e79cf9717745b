//! Backends by address: one live state each, shared by every route that leads there, and the checks that
//! these routes want.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use foldhash::HashMap;
use mc_core::backend::BackendLive;
use mc_core::model::Route;

use crate::health::CheckKey;
use crate::snapshot::RouteEntry;

/// Backends that routes lead to, and which addresses drain.
#[derive(Debug, Default)]
pub(crate) struct Backends {
    live: HashMap<SocketAddr, Used>,
    /// As stored: an address keeps its flag while no route leads there.
    draining: BTreeSet<SocketAddr>,
    /// Checks that routes want, and how many do.
    checks: HashMap<CheckKey, u64>,
    /// Whether other checks are wanted since [`Self::take_checks`].
    checks_changed: bool,
}

/// The checks that are to run, and whom they tell.
pub(crate) type Wanted = std::collections::HashMap<CheckKey, Arc<BackendLive>>;

#[derive(Debug)]
struct Used {
    live: Arc<BackendLive>,
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
        Self {
            live: self.live.iter().map(unused).collect(),
            draining: self.draining.clone(),
            checks: HashMap::default(),
            checks_changed: true,
        }
    }

    /// Forgets addresses that no route leads to.
    pub(crate) fn forget_unused(&mut self) {
        self.live.retain(|_, used| used.routes > 0);
    }

    /// The states of a route's backends, in its order; made where they are new. Counts the route.
    pub(crate) fn acquire(&mut self, route: &Route, now_ms: u64) -> Vec<Arc<BackendLive>> {
        for check in CheckKey::of(route) {
            let wanted = self.checks.entry(check).or_default();
            self.checks_changed |= *wanted == 0;
            *wanted += 1;
        }
        route.backends.iter().map(|backend| self.acquire_one(backend.address, now_ms)).collect()
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
            if let Some(wanted) = self.checks.get_mut(&check) {
                *wanted -= 1;
                if *wanted == 0 {
                    self.checks.remove(&check);
                    self.checks_changed = true;
                }
            }
        }
        for backend in &entry.backends {
            if let Some(used) = self.live.get_mut(&backend.address) {
                used.routes -= 1;
                if used.routes == 0 {
                    self.live.remove(&backend.address);
                }
            }
        }
    }

    /// All checks that are wanted, where that has changed since it was asked.
    pub(crate) fn take_checks(&mut self) -> Option<Wanted> {
        std::mem::take(&mut self.checks_changed).then(|| {
            let live =
                |check: &CheckKey| Some((check.clone(), Arc::clone(&self.live.get(&check.address)?.live)));
            self.checks.keys().filter_map(live).collect()
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
        let unused =
            self.draining.iter().map(|&address| (address, BackendUse { address, live: None, routes: 0 }));
        let mut all: BTreeMap<SocketAddr, BackendUse> = unused.collect();
        for (&address, used) in &self.live {
            let live = Some(Arc::clone(&used.live));
            all.insert(address, BackendUse { address, live, routes: used.routes });
        }
        all.into_values().collect()
    }
}
