//! The one writer: takes a change, makes it durable, then live.
//!
//! Order of every change: judged, (for a listener) bound, stored, published. What can fail comes before the
//! store, so that a change is whole or was not made at all; what comes after cannot fail. Nothing here is
//! async: the caller runs it where waiting for a disk is allowed, and does what [`After`] asks.
//!
//! Invariants: only this writes the database and publishes snapshots; a published revision is stored; an
//! entry's [`crate::stats::RouteLive`] stays the same while a route with its key exists; a change to one route copies one
//! path of the table and nothing else.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use mc_core::firewall::Compiled;
use mc_core::model::{
    Firewall, FirewallRule, Invalid, Listener, Rate, Route, RouteKey, check_config, check_route_listener,
    normalize_firewall, normalize_listener, normalize_route, normalize_rule,
};
use mc_core::table::RouteTable;
use serde_json::json;

use super::backends::Backends;
use super::build;
use super::error::ChangeError;
use super::events::{Events, Kind};
use super::listing::Listing;
use crate::clock;
use crate::geoip::GeoIp;
use crate::snapshot::{FirewallEntry, ListenerEntry, ListenerIds, RouteEntry, Snapshot};
use crate::store::{Change, Loaded, Store, StoreError};
use crate::workers::{Bound, ConnectionFilter, Workers};

/// Makes changes durable. There is one implementation outside tests.
pub(crate) trait Commit: Send {
    /// Stores a change and says the revision that it made.
    fn commit(&mut self, change: &Change) -> Result<u64, StoreError>;
}

impl Commit for Store {
    fn commit(&mut self, change: &Change) -> Result<u64, StoreError> {
        Self::commit(self, change)
    }
}

/// What is listed without waiting for the writer.
#[derive(Debug, Default)]
pub(crate) struct View {
    pub(crate) listing: Listing,
    pub(crate) backends: Backends,
}

/// A [`View`] that one writes, for an instant at a time, and many read.
#[derive(Clone, Debug, Default)]
pub(crate) struct SharedView(Arc<RwLock<View>>);

/// The state and its one writer.
pub(crate) struct State {
    store: Box<dyn Commit>,
    revision: u64,
    /// By name; as published.
    listeners: BTreeMap<String, Arc<ListenerEntry>>,
    /// As configured: the address may have port 0, which is published as the kernel chose it.
    configured: HashMap<String, Listener>,
    view: SharedView,
    firewall: Arc<FirewallEntry>,
    ids: ListenerIds,
    workers: Arc<Workers>,
    events: Events,
    /// Snapshots that a worker may still hold: it must not be the one that frees a million routes.
    retired: Vec<Arc<Snapshot>>,
}

/// What is left to do with the workers after a change, in this order.
#[derive(Debug, Default)]
pub(crate) struct After {
    /// Stop accepting on this listener.
    pub(crate) close: Option<u32>,
    /// Accept on these sockets.
    pub(crate) open: Option<(Arc<ListenerEntry>, Bound)>,
    /// Close these connections.
    pub(crate) kill: Option<ConnectionFilter>,
}

/// A change that was made.
#[derive(Debug)]
pub(crate) struct Done<T> {
    pub(crate) value: T,
    pub(crate) after: After,
}

/// What fills an empty database.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seed {
    pub(crate) listeners: Vec<Listener>,
    pub(crate) routes: Vec<Route>,
    pub(crate) firewall: Firewall,
}

/// What the state acts on.
#[derive(Clone, Debug)]
pub(crate) struct Shell {
    pub(crate) workers: Arc<Workers>,
    pub(crate) geo: Arc<GeoIp>,
    pub(crate) events: Events,
}

/// Result of adding or updating a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoutePut {
    /// Revision at which it is live.
    pub revision: u64,
    /// It was not there before.
    pub created: bool,
    /// It is not what it was before.
    pub changed: bool,
    /// As stored.
    pub route: Route,
}

/// Result of adding or replacing a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerPut {
    /// Revision at which it is live.
    pub revision: u64,
    /// It was not there before.
    pub created: bool,
    /// As published.
    pub listener: Listener,
}

/// Result of replacing all routes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RoutesReplaced {
    /// Revision at which they are live.
    pub revision: u64,
    /// Keys that are new.
    pub added: u64,
    /// Keys whose route is another.
    pub updated: u64,
    /// Keys that are gone.
    pub removed: u64,
}

/// Why the state could not be brought up.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The database.
    #[error("the database cannot be used")]
    Store(#[from] StoreError),
    /// A listener or route that cannot be.
    #[error("the stored configuration cannot be used: {0}")]
    Stored(Invalid),
    /// A listener's address cannot be had.
    #[error(transparent)]
    Bind(ChangeError),
}

impl<T> Done<T> {
    fn only(value: T) -> Self {
        Self { value, after: After::default() }
    }
}

impl SharedView {
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, View> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, View> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seed {
    fn is_empty(&self) -> bool {
        self.listeners.is_empty() && self.routes.is_empty() && self.firewall == Firewall::default()
    }

    fn as_long_as(&self, loaded: &Loaded) -> bool {
        self.listeners.len() == loaded.listeners.len()
            && self.routes.len() == loaded.routes.len()
            && self.firewall.rules.len() == loaded.firewall.rules.len()
    }
}

impl State {
    /// Brings up what is stored, or where nothing ever was, the seed: binds every listener, then stores, then
    /// publishes. The listeners are still to be opened.
    pub(crate) fn start(
        mut store: Box<dyn Commit>,
        loaded: Loaded,
        seed: Seed,
        shell: Shell,
    ) -> Result<(Self, Vec<(Arc<ListenerEntry>, Bound)>), StartError> {
        let use_seed = !loaded.seeded && loaded.listeners.is_empty() && loaded.routes.is_empty();
        let use_seed = use_seed && !seed.is_empty();
        if !use_seed && !seed.is_empty() && !seed.as_long_as(&loaded) {
            tracing::info!(
                stored_routes = loaded.routes.len(),
                file_routes = seed.routes.len(),
                "listeners, routes and firewall of the file only seed an empty database: not used"
            );
        }
        let Loaded { mut revision, draining, .. } = loaded;
        let mut what = Seed { listeners: loaded.listeners, routes: loaded.routes, firewall: loaded.firewall };
        if use_seed {
            what = seed;
        }
        let ids = ListenerIds::default();
        let mut listeners = BTreeMap::new();
        let mut bound = Vec::new();
        for listener in &what.listeners {
            let (entry, sockets) = bind(&shell.workers, listener, ids.next(), 0).map_err(StartError::Bind)?;
            listeners.insert(listener.name.clone(), Arc::clone(&entry));
            bound.push((entry, sockets));
        }
        if use_seed {
            let Seed { listeners, routes, firewall } = what;
            let change = Change::Seed { listeners, routes, firewall };
            revision = store.commit(&change)?;
            let Change::Seed { listeners, routes, firewall } = change else {
                unreachable!("it was made above")
            };
            what = Seed { listeners, routes, firewall };
        }
        let built = build::all(what.routes, Vec::new(), &listeners, &Backends::new(draining))
            .map_err(StartError::Stored)?;
        let compiled = Compiled::new(&what.firewall);
        let mut state = Self {
            store,
            revision,
            configured: what
                .listeners
                .into_iter()
                .map(|listener| (listener.name.clone(), listener))
                .collect(),
            listeners,
            view: SharedView(Arc::new(RwLock::new(built.view))),
            firewall: Arc::new(FirewallEntry { spec: what.firewall, compiled, geo: shell.geo }),
            ids,
            workers: shell.workers,
            events: shell.events,
            retired: Vec::new(),
        };
        state.publish(built.table);
        Ok((state, bound))
    }

    /// What is listed without waiting for the writer.
    pub(crate) fn view(&self) -> SharedView {
        self.view.clone()
    }

    /// Adds a route or replaces the one with its key; `must_exist` refuses to add. The same again is no change.
    pub(crate) fn put_route(
        &mut self,
        route: Route,
        must_exist: bool,
    ) -> Result<Done<RoutePut>, ChangeError> {
        let route = normalize_route(route)?;
        let listener = self.listener_of(&route)?;
        let key = route.key();
        let old = self.view.read().listing.get(&key).cloned();
        match &old {
            None if must_exist => return Err(ChangeError::NoRoute(key)),
            None => check_room("routes", self.view.read().listing.len() + 1, MAX_ROUTES)?,
            Some(old) if old.spec == route => {
                let put = RoutePut { revision: self.revision, created: false, changed: false, route };
                return Ok(Done::only(put));
            }
            Some(_) => {}
        }
        self.commit(&Change::PutRoute(route.clone()))?;

        let created = old.is_none();
        let entry = {
            let mut view = self.view.write();
            let entry = build::entry(route.clone(), old, &mut view.backends, clock::millis());
            if let Some(old) = view.listing.insert(Arc::clone(&entry)) {
                view.backends.release(&old);
            }
            entry
        };
        let mut table = self.table();
        table.insert(listener, &key.name, &key.alpn, route.any_depth, entry);
        self.publish(table);
        let kind = if created { Kind::RouteAdded } else { Kind::RouteUpdated };
        self.events.announce(kind, key.to_string(), &json!(route));
        Ok(Done::only(RoutePut { revision: self.revision, created, changed: true, route }))
    }

    /// Removes a route; `kill` closes its connections. Says at which revision, and whether it existed.
    pub(crate) fn remove_route(
        &mut self,
        key: RouteKey,
        kill: bool,
    ) -> Result<Done<(u64, bool)>, ChangeError> {
        let key = normalize_key(key);
        let Some(old) = self.view.read().listing.get(&key).cloned() else {
            return Ok(Done::only((self.revision, false)));
        };
        self.commit(&Change::RemoveRoute(key.clone()))?;
        {
            let mut view = self.view.write();
            view.listing.remove(&key);
            view.backends.release(&old);
        }
        let mut table = self.table();
        table.remove(self.listeners[&key.listener].id, &key.name, &key.alpn);
        let after = retire(&[old], kill);
        self.publish(table);
        self.events.announce(Kind::RouteRemoved, key.to_string(), &json!({ "kill": kill }));
        Ok(Done { value: (self.revision, true), after })
    }

    /// Replaces all routes, where the revision is the expected one. The same again is no change.
    pub(crate) fn replace_routes(
        &mut self,
        routes: Vec<Route>,
        expected: Option<u64>,
        kill: bool,
    ) -> Result<Done<RoutesReplaced>, ChangeError> {
        self.check_revision(expected)?;
        let routes = self.normalize_routes(routes)?;
        let Comparison { old, gone, mut result } = compare(&routes, &self.view.read().listing);
        result.revision = self.revision;
        if result.added + result.updated + result.removed == 0 {
            return Ok(Done::only(result));
        }
        let change = Change::ReplaceRoutes(routes);
        self.commit(&change)?;
        let Change::ReplaceRoutes(routes) = change else { unreachable!("it was made above") };
        let built = build::all(routes, old, &self.listeners, &self.view.read().backends)
            .expect("listeners and backends were checked before the change was stored");
        let before = std::mem::replace(&mut *self.view.write(), built.view);
        let after = retire(&gone, kill);
        self.publish(built.table);
        drop(before);
        result.revision = self.revision;
        let detail = json!({ "added": result.added, "updated": result.updated, "removed": result.removed });
        self.events.announce(Kind::RoutesReplaced, "", &detail);
        Ok(Done { value: result, after })
    }

    /// Adds a listener or replaces the one with its name. Where the address stays, so do the sockets.
    pub(crate) fn put_listener(&mut self, listener: Listener) -> Result<Done<ListenerPut>, ChangeError> {
        let listener = normalize_listener(listener)?;
        let name = listener.name.clone();
        let old = self.listeners.get(&name).cloned();
        if let Some(old) = &old
            && self.configured.get(&name) == Some(&listener)
        {
            let put = ListenerPut { revision: self.revision, created: false, listener: old.spec.clone() };
            return Ok(Done::only(put));
        }
        self.check_address(&listener)?;
        let stays = self.configured.get(&name).is_some_and(|before| before.address == listener.address);
        let mut after = After::default();
        let entry = match &old {
            Some(old) if stays => renewed(old, listener.clone()),
            Some(old) => {
                let (entry, sockets) = bind(&self.workers, &listener, old.id, accepted(old))?;
                // The new sockets queue what comes until the old ones are closed.
                after.close = Some(old.id);
                after.open = Some((Arc::clone(&entry), sockets));
                entry
            }
            None => {
                check_room("listeners", self.listeners.len() as u64 + 1, MAX_LISTENERS)?;
                let (entry, sockets) = bind(&self.workers, &listener, self.ids.next(), 0)?;
                after.open = Some((Arc::clone(&entry), sockets));
                entry
            }
        };
        self.commit(&Change::PutListener(listener.clone()))?;
        self.configured.insert(name.clone(), listener);
        self.listeners.insert(name.clone(), Arc::clone(&entry));
        self.publish(self.table());
        let listener = entry.spec.clone();
        self.events.announce(Kind::ListenerAdded, name, &json!(listener));
        Ok(Done { value: ListenerPut { revision: self.revision, created: old.is_none(), listener }, after })
    }

    /// Removes a listener, its routes too where `with_routes`; `kill` closes its connections.
    pub(crate) fn remove_listener(
        &mut self,
        name: &str,
        with_routes: bool,
        kill: bool,
    ) -> Result<Done<u64>, ChangeError> {
        let Some(listener) = self.listeners.get(name).cloned() else {
            return Err(ChangeError::NoListener(name.to_owned()));
        };
        let gone: Vec<_> = self.view.read().listing.of_listener(name).cloned().collect();
        if !gone.is_empty() && !with_routes {
            return Err(ChangeError::HasRoutes { name: name.to_owned(), routes: gone.len() as u64 });
        }
        self.commit(&Change::RemoveListener { name: name.to_owned(), with_routes })?;
        let mut table = self.table();
        for entry in &gone {
            table.remove(listener.id, &entry.spec.name, &entry.spec.alpn);
        }
        {
            let mut view = self.view.write();
            for entry in &gone {
                view.listing.remove(&entry.spec.key());
                view.backends.release(entry);
            }
        }
        let mut after = retire(&gone, kill);
        self.listeners.remove(name);
        self.configured.remove(name);
        self.publish(table);
        after.close = Some(listener.id);
        if kill {
            after.kill = Some(ConnectionFilter { listener: Some(name.to_owned()), ..Default::default() });
        }
        let detail = json!({ "routes": gone.len(), "kill": kill });
        self.events.announce(Kind::ListenerRemoved, name, &detail);
        Ok(Done { value: self.revision, after })
    }

    /// Replaces the firewall, where the revision is the expected one. The same again is no change.
    pub(crate) fn set_firewall(
        &mut self,
        firewall: Firewall,
        expected: Option<u64>,
    ) -> Result<Done<u64>, ChangeError> {
        self.check_revision(expected)?;
        let firewall = normalize_firewall(firewall)?;
        if firewall == self.firewall.spec {
            return Ok(Done::only(self.revision));
        }
        let compiled = Compiled::new(&firewall);
        self.commit(&Change::SetFirewall(firewall.clone()))?;
        let detail =
            json!({ "rules": firewall.rules.len(), "default": firewall.default, "rate": firewall.rate });
        let geo = Arc::clone(&self.firewall.geo);
        self.firewall = Arc::new(FirewallEntry { spec: firewall, compiled, geo });
        self.publish(self.table());
        self.events.announce(Kind::FirewallChanged, "", &detail);
        Ok(Done::only(self.revision))
    }

    /// Adds a rule; one that says the same of the same subject takes the new comment.
    pub(crate) fn add_rule(&mut self, rule: FirewallRule) -> Result<Done<u64>, ChangeError> {
        let rule = normalize_rule(rule)?;
        let mut firewall = self.firewall.spec.clone();
        match firewall.rules.iter_mut().find(|known| same_rule(known, &rule)) {
            Some(known) => *known = rule,
            None => firewall.rules.push(rule),
        }
        self.set_firewall(firewall, None)
    }

    /// Removes a rule, whatever its comment.
    pub(crate) fn remove_rule(&mut self, rule: FirewallRule) -> Result<Done<u64>, ChangeError> {
        let rule = normalize_rule(rule)?;
        let mut firewall = self.firewall.spec.clone();
        firewall.rules.retain(|known| !same_rule(known, &rule));
        if firewall.rules.len() == self.firewall.spec.rules.len() {
            return Err(ChangeError::NoRule);
        }
        self.set_firewall(firewall, None)
    }

    /// Changes the rate and leaves the rules.
    pub(crate) fn set_rate(&mut self, rate: Rate) -> Result<Done<u64>, ChangeError> {
        self.set_firewall(Firewall { rate, ..self.firewall.spec.clone() }, None)
    }

    /// Takes a backend out for new connections, or back in; `kill` closes those that it has.
    pub(crate) fn drain_backend(
        &mut self,
        address: SocketAddr,
        drain: bool,
        kill: bool,
    ) -> Result<Done<u64>, ChangeError> {
        let (known, drains) = {
            let view = self.view.read();
            (view.backends.is_used(address), view.backends.drains(address))
        };
        if !known && !drains {
            return Err(ChangeError::NoBackend(address));
        }
        if drains != drain {
            self.commit(&Change::SetDraining(address, drain))?;
            self.view.write().backends.set_draining(address, drain, clock::millis());
            self.publish(self.table());
            let kind = if drain { Kind::BackendDraining } else { Kind::BackendUndrained };
            self.events.announce(kind, address.to_string(), &json!({ "kill": kill }));
        }
        let mut done = Done::only(self.revision);
        if drain && kill {
            done.after.kill = Some(ConnectionFilter { backend: Some(address), ..Default::default() });
        }
        Ok(done)
    }

    /// Frees old snapshots that no worker holds any more.
    pub(crate) fn reap(&mut self) {
        self.retired.retain(|snapshot| Arc::strong_count(snapshot) > 1);
    }

    /// Whether [`Self::reap`] has work.
    pub(crate) fn can_reap(&self) -> bool {
        self.retired.iter().any(|snapshot| Arc::strong_count(snapshot) == 1)
    }

    /// Makes `table` and everything else what workers see.
    fn publish(&mut self, table: RouteTable<Arc<RouteEntry>>) {
        let next = Snapshot {
            revision: self.revision,
            listeners: self.listeners.values().cloned().collect(),
            route_count: table.len() as u64,
            routes: table,
            firewall: Arc::clone(&self.firewall),
        };
        let old = self.workers.snapshot.swap(Arc::new(next));
        self.events.set_revision(self.revision);
        self.retired.push(old);
        self.reap();
    }

    fn commit(&mut self, change: &Change) -> Result<(), ChangeError> {
        self.revision = self.store.commit(change)?;
        Ok(())
    }

    /// The table that is published, to be changed.
    fn table(&self) -> RouteTable<Arc<RouteEntry>> {
        self.workers.snapshot.load().routes.clone()
    }

    fn check_revision(&self, expected: Option<u64>) -> Result<(), ChangeError> {
        match expected {
            Some(expected) if expected != self.revision => {
                Err(ChangeError::Revision { expected, current: self.revision })
            }
            _ => Ok(()),
        }
    }

    /// The id of a route's listener.
    fn listener_of(&self, route: &Route) -> Result<u32, Invalid> {
        check_route_listener(route, self.listeners.keys().map(String::as_str))?;
        Ok(self.listeners[&route.listener].id)
    }

    /// Refuses an address that another listener has.
    fn check_address(&self, listener: &Listener) -> Result<(), ChangeError> {
        let taken = |other: &&Listener| other.name != listener.name && other.address == listener.address;
        match self.configured.values().find(taken) {
            Some(other) if listener.address.port() != 0 => {
                Err(ChangeError::AddressTaken { name: other.name.clone(), address: other.address })
            }
            _ => Ok(()),
        }
    }

    /// Each in its one form, in the order of their keys, none twice.
    fn normalize_routes(&self, routes: Vec<Route>) -> Result<Vec<Route>, ChangeError> {
        check_room("routes", routes.len() as u64, MAX_ROUTES)?;
        let mut normal = Vec::with_capacity(routes.len());
        for (index, route) in routes.into_iter().enumerate() {
            let route = normalize_route(route)
                .map_err(|invalid| invalid.within(format_args!("routes[{index}]")))?;
            normal.push(route);
        }
        let listeners: Vec<Listener> = self.configured.values().cloned().collect();
        check_config(&listeners, &normal)?;
        normal.sort_by(|a, b| by_key(a).cmp(&by_key(b)));
        Ok(normal)
    }
}

/// What becomes of each route when all are replaced.
struct Comparison {
    /// For each new route the entry that its key had.
    old: Vec<Option<Arc<RouteEntry>>>,
    /// Entries whose key is gone.
    gone: Vec<Arc<RouteEntry>>,
    result: RoutesReplaced,
}

/// Walks along both at once: `routes` is in the order of the keys, too.
fn compare(routes: &[Route], listing: &Listing) -> Comparison {
    let mut before = listing.after(None).peekable();
    let mut old = Vec::with_capacity(routes.len());
    let mut gone = Vec::new();
    let mut result = RoutesReplaced::default();
    for route in routes {
        while let Some(entry) = before.next_if(|entry| by_key(&entry.spec) < by_key(route)) {
            gone.push(Arc::clone(entry));
        }
        let same = before.next_if(|entry| by_key(&entry.spec) == by_key(route));
        match same {
            None => result.added += 1,
            Some(entry) if entry.spec != *route => result.updated += 1,
            Some(_) => {}
        }
        old.push(same.cloned());
    }
    gone.extend(before.cloned());
    result.removed = gone.len() as u64;
    Comparison { old, gone, result }
}

/// Binds a listener's sockets; its entry has the address as the kernel chose it.
fn bind(
    workers: &Workers,
    listener: &Listener,
    id: u32,
    accepted: u64,
) -> Result<(Arc<ListenerEntry>, Bound), ChangeError> {
    let bound = workers
        .bind(listener.address)
        .map_err(|source| ChangeError::Bind { name: listener.name.clone(), source })?;
    let spec = Listener { address: bound.address, ..listener.clone() };
    Ok((Arc::new(ListenerEntry { id, spec, accepted: accepted.into() }), bound))
}

/// A listener's entry with another setting, on the same sockets.
fn renewed(old: &ListenerEntry, listener: Listener) -> Arc<ListenerEntry> {
    let spec = Listener { address: old.spec.address, ..listener };
    Arc::new(ListenerEntry { id: old.id, spec, accepted: accepted(old).into() })
}

fn accepted(entry: &ListenerEntry) -> u64 {
    entry.accepted.load(Ordering::Relaxed)
}

/// What is to be done about the connections of routes that are gone. Only those that are to be closed are
/// marked: an earlier route's connections that drain must not be closed with a later one's.
fn retire(gone: &[Arc<RouteEntry>], kill: bool) -> After {
    let mut after = After::default();
    if kill && !gone.is_empty() {
        for entry in gone {
            entry.live.remove();
        }
        after.kill = Some(ConnectionFilter { removed_routes: true, ..Default::default() });
    }
    after
}

fn by_key(route: &Route) -> (&str, &str, &str) {
    (&route.listener, &route.name, &route.alpn)
}

/// A key in the form in which routes are kept.
fn normalize_key(key: RouteKey) -> RouteKey {
    let name = key.name.trim_end_matches('.').to_ascii_lowercase();
    RouteKey { name, ..key }
}

/// Whether two rules say the same of the same subject.
fn same_rule(a: &FirewallRule, b: &FirewallRule) -> bool {
    a.action == b.action && a.subject == b.subject
}

fn check_room(what: &'static str, count: u64, limit: u64) -> Result<(), ChangeError> {
    if count > limit { Err(ChangeError::TooMany { what, limit }) } else { Ok(()) }
}

/// Routes at the same time: a few gigabytes of memory.
pub(crate) const MAX_ROUTES: u64 = 4_000_000;

/// Listeners at the same time: each has a socket on each worker.
const MAX_LISTENERS: u64 = 1_000;
