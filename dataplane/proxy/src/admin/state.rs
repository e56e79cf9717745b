//! The one writer: takes a change, makes it durable, then live.
//!
//! Order of every change: judged, (for a listener) bound, stored, published. What can fail comes before the
//! store, so that a change is whole or was not made at all; what comes after cannot fail. Nothing here is
//! async: the caller runs it where waiting for a disk is allowed, and does what [`After`] asks.
//!
//! Invariants: only this writes the database and publishes snapshots; a published revision is stored; an
//! entry's counters stay the same while a route with its key exists; a change to one route copies one path of
//! the table and nothing else.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use mc_core::firewall::Compiled;
use mc_core::model::{Firewall, Listener, Route, Steered};
use mc_core::table::RouteTable;
use mc_core::validate::Invalid;
use mc_xdp::{Steer, SteerError};
use serde_json::json;

use super::backends::{Backends, Wanted};
use super::build;
use super::error::ChangeError;
use super::events::{Events, Kind};
use super::view::SharedView;
use crate::clock;
use crate::connections::ConnectionFilter;
use crate::geoip::GeoIp;
use crate::handover::HandedListener;
use crate::kernel::Kernel;
use crate::snapshot::{FirewallEntry, ListenerEntry, ListenerIds, RouteEntry, Snapshot};
use crate::store::{Change, Loaded, Store, StoreError};
use crate::tls::{Authorities, Authority};
use crate::workers::{BindError, Bound, Workers};
use mcdsl::chain;

mod firewall;
mod holds;
mod listeners;
mod routes;

pub use listeners::ListenerPut;
pub(crate) use routes::{MAX_ROUTES, normalize_key};
pub use routes::{RoutePut, RoutesReplaced};

use listeners::{adopt, bind};

/// Makes changes durable. There is one implementation outside tests.
pub(crate) trait Commit: Send {
    /// Stores a change and says the revision that it made.
    fn commit(&mut self, change: &Change) -> Result<u64, StoreError>;

    /// What keeps other processes away, once more.
    fn lock(&self) -> io::Result<OwnedFd>;
}

impl Commit for Store {
    fn commit(&mut self, change: &Change) -> Result<u64, StoreError> {
        Self::commit(self, change)
    }

    fn lock(&self) -> io::Result<OwnedFd> {
        Self::lock(self)
    }
}

/// The state and its one writer.
pub(crate) struct State {
    /// `None` once another process has taken over: a later process must find the database's lock free.
    store: Option<Box<dyn Commit>>,
    revision: u64,
    /// By name; as published.
    listeners: BTreeMap<String, Arc<ListenerEntry>>,
    /// As configured: the address may have port 0, which is published as the kernel chose it.
    configured: HashMap<String, Listener>,
    view: SharedView,
    firewall: Arc<FirewallEntry>,
    /// The sockets of listeners once more, by name, to be handed over.
    sockets: HashMap<String, Vec<OwnedFd>>,
    /// Another process has taken over: nothing is changed here any more.
    is_over: bool,
    ids: ListenerIds,
    workers: Arc<Workers>,
    kernel: Arc<Kernel>,
    events: Events,
    /// Snapshots that a worker may still hold: it must not be the one that frees a million routes.
    retired: Vec<Arc<Snapshot>>,
}

/// A listener and the sockets on which it is to accept.
pub(crate) type Opening = (Arc<ListenerEntry>, Bound);

/// What is left to do with the workers after a change, in this order.
#[derive(Debug, Default)]
pub(crate) struct After {
    /// Stop accepting on this listener.
    pub(crate) close: Option<u32>,
    /// Accept on these sockets.
    pub(crate) open: Option<Opening>,
    /// Close the connections to this backend that wait for a request.
    pub(crate) close_idle: Option<SocketAddr>,
    /// Close these connections.
    pub(crate) kill: Option<ConnectionFilter>,
    /// See that holds have begun or ended.
    pub(crate) holds: bool,
}

/// What may be there already where a route or listener is put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Existing<T> {
    /// Anything, or nothing: what is there is replaced.
    Any,
    /// Nothing.
    None,
    /// Something; this one where it is said.
    Some(Option<T>),
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
    pub(crate) kernel: Arc<Kernel>,
    pub(crate) geo: Arc<GeoIp>,
    pub(crate) events: Events,
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
    /// What was to fill the database would do nothing.
    #[error("the file's configuration cannot be used: {0}")]
    Seed(Invalid),
    /// A listener's address cannot be had.
    #[error(transparent)]
    Bind(ChangeError),
}

impl<T> Done<T> {
    pub(crate) fn only(value: T) -> Self {
        Self { value, after: After::default() }
    }
}

/// Listeners at the start: by name, those that are open, and why the others are not.
#[derive(Default)]
struct Opened {
    listeners: BTreeMap<String, Arc<ListenerEntry>>,
    bound: Vec<Opening>,
    closed: BTreeMap<String, String>,
}

/// Opens listeners at the start; `must`: all of them, or none.
fn open_at_start(
    workers: &Workers,
    listeners: &[Listener],
    ids: &ListenerIds,
    mut handed: Vec<HandedListener>,
    must: bool,
) -> Result<Opened, StartError> {
    let mut opened = Opened::default();
    let give_up_ms = clock::millis() + IN_USE_MS;
    for listener in listeners {
        let id = ids.next();
        let entry = match bind_at_start(workers, listener, id, &mut handed, give_up_ms) {
            Ok((entry, sockets)) => {
                opened.bound.push((Arc::clone(&entry), sockets));
                entry
            }
            Err(error) if must => return Err(StartError::Bind(error)),
            Err(error) => {
                let problem = chain(&error);
                tracing::error!("{problem}; it is tried again each second");
                opened.closed.insert(listener.name.clone(), problem);
                Arc::new(ListenerEntry { id, spec: listener.clone(), accepted: 0.into() })
            }
        };
        opened.listeners.insert(listener.name.clone(), entry);
    }
    Ok(opened)
}

impl Seed {
    fn is_empty(&self) -> bool {
        self.listeners.is_empty() && self.routes.is_empty() && self.firewall == Firewall::default()
    }

    /// Whether the database holds the same.
    fn is_stored(&self, loaded: &Loaded) -> bool {
        let lengths = |listeners: &[Listener], routes: &[Route]| (listeners.len(), routes.len());
        if lengths(&self.listeners, &self.routes) != lengths(&loaded.listeners, &loaded.routes)
            || self.firewall != loaded.firewall
        {
            return false;
        }
        let routes: HashMap<_, _> = loaded.routes.iter().map(|route| (route.key(), route)).collect();
        self.listeners.iter().all(|listener| loaded.listeners.contains(listener))
            && self.routes.iter().all(|route| routes.get(&route.key()) == Some(&route))
    }
}

/// Binds a listener. A process that was killed leaves its sockets to the kernel, which gives up those of an
/// io_uring a moment after the process: the process that starts in its place retries until `give_up_ms`.
fn bind_at_start(
    workers: &Workers,
    listener: &Listener,
    id: u32,
    handed: &mut Vec<HandedListener>,
    give_up_ms: u64,
) -> Result<Opening, ChangeError> {
    let is_same = |it: &HandedListener| {
        let port = listener.address.port();
        it.name == listener.name
            && it.address.ip() == listener.address.ip()
            && (port == 0 || port == it.address.port())
    };
    if let Some(at) = handed.iter().position(is_same) {
        let HandedListener { address, sockets, .. } = handed.swap_remove(at);
        return adopt(workers, listener, id, address, sockets);
    }
    loop {
        match bind(workers, listener, id, 0) {
            Err(ChangeError::Bind { source: BindError::InUse(_), .. }) if clock::millis() < give_up_ms => {
                clock::pause(Duration::from_millis(10));
            }
            bound => return bound,
        }
    }
}

/// Opens the bundles that routes name. One that cannot be used holds nobody up: its routes trust nobody until it can.
fn open_authorities(authorities: &Authorities, routes: &[Route]) -> Vec<Arc<Authority>> {
    let mut all = Vec::new();
    for route in routes {
        match authorities.of(route) {
            Ok(opened) => all.extend(opened),
            Err(invalid) => tracing::error!("route {}: {invalid}", route.key()),
        }
    }
    all
}

/// How long an address that is in use is waited for at start, in milliseconds.
const IN_USE_MS: u64 = 2_000;

impl State {
    /// Brings up what is stored, or where nothing ever was, the seed: binds every listener, then stores, then
    /// publishes. The listeners are still to be opened. A stored listener whose address cannot be had holds nobody up:
    /// it is tried again ([`Self::retry_closed`]). One of the seed does, and nothing is stored.
    pub(crate) fn start(
        mut store: Box<dyn Commit>,
        loaded: Loaded,
        seed: Seed,
        shell: Shell,
        handed: Vec<HandedListener>,
    ) -> Result<(Self, Vec<Opening>), StartError> {
        let use_seed = !loaded.seeded && loaded.listeners.is_empty() && loaded.routes.is_empty();
        let use_seed = use_seed && !seed.is_empty();
        if !use_seed && !seed.is_empty() && !seed.is_stored(&loaded) {
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
        if use_seed {
            firewall::check_databases(&what.firewall.rules, &[], &shell.geo)
                .map_err(|invalid| StartError::Seed(invalid.within("firewall")))?;
        }
        let ids = ListenerIds::default();
        let Opened { listeners, bound, closed } =
            open_at_start(&shell.workers, &what.listeners, &ids, handed, use_seed)?;
        if use_seed {
            let Seed { listeners, routes, firewall } = what;
            let change = Change::Seed { listeners, routes, firewall };
            revision = store.commit(&change)?;
            let Change::Seed { listeners, routes, firewall } = change else {
                unreachable!("it was made above")
            };
            what = Seed { listeners, routes, firewall };
        }
        let authorities = &shell.workers.policy.tls.authorities;
        let trusted = open_authorities(authorities, &what.routes);
        let built = build::all(what.routes, Vec::new(), &listeners, &Backends::new(draining), authorities)
            .map_err(StartError::Stored)?;
        drop(trusted);
        let compiled = Compiled::new(&what.firewall);
        // All that the kernel's half is to say, before it says anything.
        shell.kernel.set_policy(&compiled, &shell.geo);
        shell.kernel.set_listeners(bound.iter().map(|(listener, _)| &listener.spec));
        shell.kernel.look();
        let sockets = bound
            .iter()
            .filter_map(|(entry, bound): &Opening| Some((entry.spec.name.clone(), bound.sockets().ok()?)));
        let mut view = built.view;
        view.closed = closed;
        let mut state = Self {
            sockets: sockets.collect(),
            is_over: false,
            store: Some(store),
            revision,
            configured: what
                .listeners
                .into_iter()
                .map(|listener| (listener.name.clone(), listener))
                .collect(),
            listeners,
            view: SharedView::new(view),
            firewall: Arc::new(FirewallEntry { spec: what.firewall, compiled, geo: shell.geo }),
            ids,
            workers: shell.workers,
            kernel: shell.kernel,
            events: shell.events,
            retired: Vec::new(),
        };
        if let Err(error) = state.steer(None) {
            tracing::error!("connections to steered addresses are refused: {}", chain(&error));
        }
        for problem in state.firewall.problems() {
            tracing::error!("{problem}");
        }
        state.publish(built.table);
        Ok((state, bound))
    }

    /// What is listed without waiting for the writer.
    pub(crate) fn view(&self) -> SharedView {
        self.view.clone()
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
        done.after.close_idle = drain.then_some(address);
        if drain && kill {
            done.after.kill = Some(ConnectionFilter { backend: Some(address), ..Default::default() });
        }
        Ok(done)
    }

    /// All health checks that are wanted, where that has changed since it was asked.
    pub(crate) fn take_checks(&mut self) -> Option<Wanted> {
        self.view.write().backends.take_checks()
    }

    /// All that another process needs in order to go on here, but for what is served beside.
    pub(crate) fn hand_over(&self) -> io::Result<(OwnedFd, Vec<HandedListener>)> {
        let mut handed = Vec::with_capacity(self.listeners.len());
        for (name, entry) in &self.listeners {
            // One that is closed has none: the other process tries for itself.
            let Some(sockets) = self.sockets.get(name) else { continue };
            let sockets = sockets.iter().map(OwnedFd::try_clone).collect::<io::Result<Vec<_>>>()?;
            handed.push(HandedListener { name: name.clone(), address: entry.spec.address, sockets });
        }
        let store = self.store.as_ref().ok_or(io::ErrorKind::NotFound)?;
        Ok((store.lock()?, handed))
    }

    /// Another process has taken over.
    pub(crate) fn end(&mut self) {
        self.is_over = true;
        self.store = None;
        self.kernel.stop_steering();
        self.sockets.clear();
    }

    /// Whether another process has taken over.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Has the kernel give connections to steered addresses to their listeners, of which one is perhaps another.
    fn steer(&self, other: Option<(&Listener, &[OwnedFd])>) -> Result<(), SteerError> {
        let all =
            self.listeners.iter().filter(|(name, _)| other.is_none_or(|(other, _)| other.name != **name));
        let known = all.filter_map(|(name, entry)| Some((&entry.spec, self.sockets.get(name)?.as_slice())));
        let mut wanted = Vec::new();
        for (spec, sockets) in known.chain(other) {
            let Some(socket) = sockets.first() else { continue };
            for &Steered { network, first, last } in &spec.steered {
                wanted.push(Steer { network, first, last, socket: socket.as_fd() });
            }
        }
        self.kernel.set_steering(&wanted)
    }

    /// Follows the machine's interfaces.
    pub(crate) fn look_at_interfaces(&mut self) {
        if self.kernel.look() {
            self.publish(self.table());
        }
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
        if self.firewall.compiled.needs_rate() {
            self.workers.policy.rates.prepare();
        }
        let next = Snapshot {
            revision: self.revision,
            listeners: self.listeners.values().cloned().collect(),
            route_count: table.len() as u64,
            routes: table,
            firewall: Arc::clone(&self.firewall),
            covered: self.kernel.covered(),
        };
        let old = self.workers.snapshot.swap(Arc::new(next));
        self.events.set_revision(self.revision);
        self.retired.push(old);
        self.reap();
    }

    fn commit(&mut self, change: &Change) -> Result<(), ChangeError> {
        let store = self.store.as_mut().ok_or(ChangeError::Stopping)?;
        self.revision = store.commit(change)?;
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
}

fn check_room(what: &'static str, count: u64, limit: u64) -> Result<(), ChangeError> {
    if count > limit { Err(ChangeError::TooMany { what, limit }) } else { Ok(()) }
}
