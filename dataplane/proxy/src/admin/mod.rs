//! The admin side: the state and its one writer, the gRPC API, events.
//!
//! It runs on one thread of its own. Reading never waits for a change that is being made durable: the writer
//! works beside it, on a thread where waiting for a disk is allowed, and what is read is published or under a
//! lock that is held for an instant. A change that was begun is finished, even where its caller has gone.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use mc_core::model::{ChangedBy, Firewall, FirewallRule, Listener, Rate, Route, RouteKey};
use serde_json::json;
use tokio::sync::{Mutex, mpsc, watch};

use crate::clock;
use crate::config::Config;
use crate::connections::{ConnectionFilter, ConnectionInfo, Ended};
use crate::geoip::GeoIp;
use crate::handover::Handed;
use crate::health::Checks;
use crate::kernel::Kernel;
use crate::old_process::{self, OldSocket, Order, Report, Silent};
use crate::snapshot::{RouteEntry, Snapshot};
use crate::store::Store;
use crate::upgrade::Upgrade;
use crate::workers::Workers;
use mcdsl::chain;

pub mod auth;
mod backends;
mod build;
mod error;
pub mod events;
mod grpc;
mod listen;
mod listing;
mod state;
#[cfg(test)]
mod tests;
mod view;

pub use backends::{BackendUse, CheckUse};
pub use error::ChangeError;
pub use events::Events;
pub use listen::ListenError;
pub use state::{Existing, ListenerPut, RoutePut, RoutesReplaced, StartError};

use backends::Wanted;
use events::Kind;
use listen::{Beside, Handing};
use state::{Done, Opening, Seed, Shell, State};
use view::SharedView;

/// The state, for everyone who reads or changes it. A clone is the same state.
#[derive(Clone)]
pub struct Admin {
    state: Arc<Mutex<State>>,
    view: SharedView,
    workers: Arc<Workers>,
    kernel: Arc<Kernel>,
    events: Events,
    checks: Arc<std::sync::Mutex<Checks>>,
    started_ms: u64,
    is_stopping: Arc<AtomicBool>,
    /// On whose behalf routes are changed.
    by: ChangedBy,
    upgrade: Upgrade,
    root: Arc<Path>,
}

/// The admin side, ready to be served: everything is open.
#[derive(Debug)]
pub struct Service {
    admin: Admin,
    sockets: listen::Sockets,
    metrics: Option<(SocketAddr, OwnedFd)>,
}

/// Why the admin side could not be brought up.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The database cannot be used.
    #[error("cannot use the database {0}")]
    Store(PathBuf, #[source] crate::store::StoreError),
    /// The state cannot be brought up.
    #[error(transparent)]
    State(#[from] StartError),
    /// The admin socket or address cannot be had.
    #[error(transparent)]
    Listen(#[from] ListenError),
}

impl Service {
    /// Opens the admin sockets and the database, brings up what is stored (or seeds it), and accepts
    /// connections on every listener.
    ///
    /// # Errors
    /// [`OpenError`] says what cannot be had; nothing is left open.
    pub async fn open(
        config: &Config,
        workers: Arc<Workers>,
        kernel: Arc<Kernel>,
        geo: Arc<GeoIp>,
        events: Events,
        handed: Option<Handed>,
    ) -> Result<Self, OpenError> {
        let mut lock = None;
        let (mut listeners, mut beside) = (Vec::new(), None);
        if let Some(handed) = handed {
            lock = Some(handed.lock.into());
            listeners = handed.listeners;
            beside =
                Some(Beside { unix: handed.admin, handover: handed.handover, admin_tcp: handed.admin_tcp });
        }
        // First: it tells whether another one runs here already.
        let sockets = listen::Sockets::open(config, beside).await?;
        let database = config.database();
        let (store, loaded) =
            Store::open_with(&database, lock).map_err(|source| OpenError::Store(database.clone(), source))?;
        let seed = Seed {
            listeners: config.listeners.clone(),
            routes: config.routes.clone(),
            firewall: config.firewall.clone(),
        };
        let shell = Shell { workers, kernel, geo, events };
        let (state, bound) = State::start(Box::new(store), loaded, seed, shell.clone(), listeners)?;
        let admin = Admin::new(state, bound, shell, &config.server.root).await;
        Ok(Self { admin, sockets, metrics: None })
    }

    /// The state, for metrics and health checks.
    #[must_use]
    pub fn admin(&self) -> &Admin {
        &self.admin
    }

    /// Where metrics are served, to be handed over with the rest.
    pub fn keep_metrics(&mut self, address: SocketAddr, socket: OwnedFd) {
        self.metrics = Some((address, socket));
    }

    /// Serves until `stop` becomes true (or its sender is gone), then ends open calls within a second. `over` is told
    /// when another process has taken over, with the socket at which this one is asked from then on, if it can have one.
    pub async fn run(self, stop: watch::Receiver<bool>, over: mpsc::Sender<Option<OldSocket>>) {
        let Self { admin, sockets, metrics } = self;
        let handing = Handing { beside: sockets.beside(), metrics, root: admin.root.to_path_buf(), over };
        let upkeep = tokio::spawn(admin.clone().upkeep());
        let samples = tokio::spawn(watch_kernel(Arc::clone(&admin.kernel), admin.events.clone()));
        sockets.serve(admin, stop, handing).await;
        upkeep.abort();
        samples.abort();
    }
}

impl Admin {
    async fn new(mut state: State, bound: Vec<Opening>, shell: Shell, root: &Path) -> Self {
        for (entry, sockets) in bound {
            tracing::info!(listener = entry.spec.name, address = %entry.spec.address, "listening");
            shell.workers.open(entry, sockets).await;
        }
        let checks = state.take_checks();
        let events = shell.events.clone();
        let health = Checks::new(Box::new(move |check, health, why| events.checked(check, health, why)));
        let admin = Self {
            view: state.view(),
            state: Arc::new(Mutex::new(state)),
            workers: shell.workers,
            kernel: shell.kernel,
            events: shell.events,
            checks: Arc::new(std::sync::Mutex::new(health)),
            started_ms: clock::millis(),
            is_stopping: Arc::default(),
            by: ChangedBy::default(),
            upgrade: Upgrade::default(),
            root: root.into(),
        };
        admin.sync_checks(checks);
        admin
    }

    /// The same state, for changes of routes on behalf of this owner.
    #[must_use]
    pub fn on_behalf_of(&self, by: ChangedBy) -> Self {
        Self { by, ..self.clone() }
    }

    /// Puts a route in the place of what may be there.
    ///
    /// # Errors
    /// See [`ChangeError`]; so for all changes.
    pub async fn put_route(&self, route: Route, existing: Existing<Route>) -> Result<RoutePut, ChangeError> {
        let by = self.by.clone();
        self.change(move |state| state.put_route(route, existing, &by)).await.map(|(put, _)| put)
    }

    /// Removes a route; `kill` closes its connections. Says at which revision it is gone, whether it existed,
    /// and how many connections were closed.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn remove_route(&self, key: RouteKey, kill: bool) -> Result<(u64, bool, u64), ChangeError> {
        let by = self.by.clone();
        let ((revision, existed), ended) =
            self.change(move |state| state.remove_route(key, kill, &by)).await?;
        Ok((revision, existed, ended.connections))
    }

    /// Has new connections and requests of a route wait. When this returns, what does not wait is counted on its backend.
    ///
    /// # Errors
    /// [`ChangeError::NoRoute`] where there is none.
    pub async fn hold_route(&self, key: RouteKey, hold_ms: u64) -> Result<(), ChangeError> {
        if self.is_stopping() {
            return Err(ChangeError::Stopping);
        }
        let by = self.by.clone();
        self.change(move |state| state.hold_route(key, hold_ms, &by)).await.map(|((), _)| ())
    }

    /// Ends a route's hold: what waits takes the route as it is now. Whether it was on hold.
    ///
    /// # Errors
    /// [`ChangeError::NoRoute`] where there is none.
    pub async fn release_route(&self, key: RouteKey) -> Result<bool, ChangeError> {
        let by = self.by.clone();
        self.change(move |state| state.release_route(key, &by)).await.map(|(was_held, _)| was_held)
    }

    /// Ends the hold of a route that was put just now.
    async fn release_put(&self, key: RouteKey) -> Result<(), ChangeError> {
        self.change(move |state| Ok(state.release_put(&key))).await.map(|((), _)| ())
    }

    /// Routes on hold, with the milliseconds that are left and how many wait, in the order of their keys.
    #[must_use]
    pub fn holds(&self) -> Vec<(RouteKey, u64, u32)> {
        let now_ms = clock::millis();
        let view = self.view.read();
        let held = view.holds.iter();
        held.filter_map(|(key, live)| Some((key.clone(), live.hold.left_ms(now_ms)?, live.hold.waiting())))
            .collect()
    }

    /// Replaces all routes; `expected` is the revision that the caller has seen; `kill` closes connections of
    /// routes that are gone.
    ///
    /// # Errors
    /// [`ChangeError::Revision`] where the revision is another.
    pub async fn replace_routes(
        &self,
        routes: Vec<Route>,
        expected: Option<u64>,
        kill: bool,
    ) -> Result<RoutesReplaced, ChangeError> {
        let by = self.by.clone();
        let replace = move |state: &mut State| state.replace_routes(routes, expected, kill, &by);
        self.change(replace).await.map(|(result, _)| result)
    }

    /// Puts a listener in the place of what may be there.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn put_listener(
        &self,
        listener: Listener,
        existing: Existing<Listener>,
    ) -> Result<ListenerPut, ChangeError> {
        self.change(move |state| state.put_listener(listener, existing)).await.map(|(put, _)| put)
    }

    /// Removes a listener, its routes too where `with_routes`; `kill` closes its connections.
    ///
    /// # Errors
    /// [`ChangeError::HasRoutes`] where it has routes and they are not to go with it.
    pub async fn remove_listener(
        &self,
        name: String,
        with_routes: bool,
        kill: bool,
    ) -> Result<u64, ChangeError> {
        let by = self.by.clone();
        self.change(move |state| state.remove_listener(&name, with_routes, kill, &by))
            .await
            .map(|(revision, _)| revision)
    }

    /// Replaces the firewall.
    ///
    /// # Errors
    /// [`ChangeError::Revision`] where the revision is not `expected`.
    pub async fn set_firewall(&self, firewall: Firewall, expected: Option<u64>) -> Result<u64, ChangeError> {
        self.change(move |state| state.set_firewall(firewall, expected)).await.map(|(revision, _)| revision)
    }

    /// Adds a firewall rule.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn add_rule(&self, rule: FirewallRule) -> Result<u64, ChangeError> {
        self.change(move |state| state.add_rule(rule)).await.map(|(revision, _)| revision)
    }

    /// Removes a firewall rule.
    ///
    /// # Errors
    /// [`ChangeError::NoRule`] where there is none.
    pub async fn remove_rule(&self, rule: FirewallRule) -> Result<u64, ChangeError> {
        self.change(move |state| state.remove_rule(rule)).await.map(|(revision, _)| revision)
    }

    /// Changes the firewall's rate.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn set_rate(&self, rate: Rate) -> Result<u64, ChangeError> {
        self.change(move |state| state.set_rate(rate)).await.map(|(revision, _)| revision)
    }

    /// Takes a backend out for new connections and requests, or back in; `kill` closes those that it has. Says at which
    /// revision, and what was ended.
    ///
    /// # Errors
    /// [`ChangeError::NoBackend`] where no route leads there.
    pub async fn drain_backend(
        &self,
        address: SocketAddr,
        drain: bool,
        kill: bool,
    ) -> Result<(u64, Ended), ChangeError> {
        self.change(move |state| state.drain_backend(address, drain, kill)).await
    }

    /// Judges by other GeoIP databases from now on.
    ///
    /// # Errors
    /// [`ChangeError::Stopping`] only.
    pub async fn set_geo(&self, geo: Arc<GeoIp>) -> Result<(), ChangeError> {
        let set = move |state: &mut State| {
            state.set_geo(geo);
            Ok(Done::only(()))
        };
        self.change(set).await.map(drop)
    }

    /// Closes the connections that match, and ends requests of those that several share; says how many.
    pub async fn kill(&self, filter: ConnectionFilter) -> Ended {
        let subject = filter.to_string();
        let ended = self.workers.kill(filter).await;
        if ended != Ended::default() {
            let detail = json!({ "killed": ended.connections, "requests": ended.requests });
            self.events.announce(Kind::ConnectionsKilled, subject, &detail);
        }
        ended
    }

    /// Live connections that match, at most `limit` (0: all).
    pub async fn connections(&self, filter: ConnectionFilter, limit: usize) -> Vec<ConnectionInfo> {
        self.workers.list(filter, limit).await
    }

    /// What workers see.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.workers.snapshot.load_full()
    }

    /// The workers.
    #[must_use]
    pub fn workers(&self) -> &Arc<Workers> {
        &self.workers
    }

    /// The kernel's half of the firewall.
    #[must_use]
    pub fn kernel(&self) -> &Arc<Kernel> {
        &self.kernel
    }

    /// Where to watch and to announce.
    #[must_use]
    pub fn events(&self) -> &Events {
        &self.events
    }

    /// Time since the state was brought up, in milliseconds.
    #[must_use]
    pub fn uptime_ms(&self) -> u64 {
        clock::millis().saturating_sub(self.started_ms)
    }

    /// The route with this key, as it is live.
    #[must_use]
    pub fn route(&self, key: &RouteKey) -> Option<Arc<RouteEntry>> {
        self.view.read().listing.get(&state::normalize_key(key.clone())).cloned()
    }

    /// Up to `limit` routes that come after `key`, in order; from the first on without one.
    #[must_use]
    pub fn routes_after(&self, key: Option<&RouteKey>, limit: usize) -> Vec<Arc<RouteEntry>> {
        self.view.read().listing.after(key).take(limit).cloned().collect()
    }

    /// How many routes a listener has.
    #[must_use]
    pub fn routes_of(&self, listener: &str) -> u64 {
        self.view.read().listing.count(listener)
    }

    /// Starts a new process of the program, which takes over from this one.
    #[must_use]
    pub fn upgrade(&self) -> &Upgrade {
        &self.upgrade
    }

    /// Has each old process do this, and say how it is. Waits: call it where that is allowed.
    #[must_use]
    pub fn ask_old(&self, order: Order) -> Vec<Result<Report, Silent>> {
        old_process::ask_all(&self.root, order)
    }

    /// Connections end now, and nothing is opened any more. Nothing waits for a hold, which nobody could end.
    pub async fn stop(&self) {
        self.is_stopping.store(true, Ordering::Relaxed);
        let now_ms = clock::millis();
        for live in self.view.read().holds.values() {
            live.hold.end(now_ms);
        }
        self.workers.look_at_holds().await;
    }

    /// Whether connections end now.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Relaxed)
    }

    /// Why this listener does not accept; `None`: it does.
    #[must_use]
    pub fn closed(&self, listener: &str) -> Option<String> {
        self.view.read().closed.get(listener).cloned()
    }

    /// Why listeners do not accept, of those that do not.
    #[must_use]
    pub fn closed_listeners(&self) -> Vec<String> {
        self.view.read().closed.values().cloned().collect()
    }

    /// What an operator has to see to, a sentence each; empty: nothing.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut problems = self.closed_listeners();
        problems.extend(self.snapshot().firewall.problems());
        problems
    }

    /// Backends that routes lead to or that drain, in order of their addresses.
    #[must_use]
    pub fn backends(&self) -> Vec<BackendUse> {
        self.view.read().backends.list()
    }

    /// Makes a change and does with the workers what it asks for. Says what was ended.
    async fn change<T: Send + 'static>(
        &self,
        make: impl FnOnce(&mut State) -> Result<Done<T>, ChangeError> + Send + 'static,
    ) -> Result<(T, Ended), ChangeError> {
        let (state, admin) = (Arc::clone(&self.state), self.clone());
        // A task of its own: between store and publication nobody may drop it.
        let change = tokio::spawn(async move {
            let mut state = state.lock_owned().await;
            if state.is_over() {
                return Err(ChangeError::Stopping);
            }
            let made = tokio::task::spawn_blocking(move || {
                let made = make(&mut state);
                let checks = state.take_checks();
                (state, made, checks)
            });
            let (state, made, checks) = made.await.map_err(|_stopped| ChangeError::Stopping)?;
            let Done { value, after } = made?;
            admin.sync_checks(checks);
            if let Some(listener) = after.close {
                admin.workers.close(listener).await;
            }
            if let Some((listener, sockets)) = after.open {
                admin.workers.open(listener, sockets).await;
            }
            drop(state);
            if after.holds {
                admin.workers.look_at_holds().await;
            }
            if let Some(backend) = after.close_idle {
                admin.workers.close_idle(backend).await;
            }
            let ended = match after.kill {
                Some(filter) => admin.kill(filter).await,
                None => Ended::default(),
            };
            Ok((value, ended))
        });
        change.await.map_err(|_stopped| ChangeError::Stopping)?
    }

    /// Whether another process has taken over.
    async fn is_over(&self) -> bool {
        self.state.lock().await.is_over()
    }

    /// Hands everything over to a process that asks, and accepts nothing any more. Where that process breaks off,
    /// nothing has happened, and what would have been handed over comes back.
    async fn hand_over(
        &self,
        mut stream: UnixStream,
        beside: Beside,
        metrics: Option<(SocketAddr, OwnedFd)>,
        root: &Path,
    ) -> Result<Option<OldSocket>, Option<(Beside, Option<(SocketAddr, OwnedFd)>)>> {
        tracing::info!("another process takes over");
        // Nothing is changed from here on.
        let state = Arc::clone(&self.state).lock_owned().await;
        let sent = tokio::task::spawn_blocking(move || {
            stream.set_nonblocking(false).unwrap_or(());
            let sent = match state.hand_over() {
                Err(error) => Err((error.into(), beside, metrics)),
                Ok((lock, listeners)) => {
                    let Beside { unix, handover, admin_tcp } = beside;
                    let handed = Handed { lock, handover, admin: unix, admin_tcp, metrics, listeners };
                    let sent = handed.send(&mut stream);
                    let Handed { admin, handover, admin_tcp, metrics, .. } = handed;
                    sent.map_err(|error| (error, Beside { unix: admin, handover, admin_tcp }, metrics))
                }
            };
            (stream, state, sent)
        });
        // A panic there has taken the sockets with it.
        let Ok((mut stream, mut state, sent)) = sent.await else { return Err(None) };
        let successor = match sent {
            Ok(successor) => successor,
            Err((error, beside, metrics)) => {
                tracing::error!("it did not, and this process goes on: {}", chain(&error));
                // It may have had the firewall already.
                self.kernel.take_back();
                return Err(Some((beside, metrics)));
            }
        };
        state.end();
        drop(state);
        self.workers.retire().await;
        // Whoever asks the new process from now on finds this one.
        let old = OldSocket::bind(root);
        Handed::gone(&mut stream);
        tracing::info!(to = successor.process, pid = successor.pid, "another process has taken over");
        self.upgrade.taken_over(successor);
        Ok(old.inspect_err(|error| tracing::warn!(%error, "nobody will see this process any more")).ok())
    }

    /// Runs these health checks from now on, where there are others.
    fn sync_checks(&self, wanted: Option<Wanted>) {
        if let Some(wanted) = wanted {
            self.checks.lock().unwrap_or_else(PoisonError::into_inner).sync(&wanted);
        }
    }

    /// What is to be done each second.
    async fn upkeep(self) {
        let mut second = tokio::time::interval(Duration::from_secs(1));
        second.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            second.tick().await;
            self.events.tick();
            let mut state = Arc::clone(&self.state).lock_owned().await;
            let looks = self.kernel.is_loaded();
            let retries = state.has_closed() && !state.is_over() && !self.is_stopping();
            if looks || retries || state.can_reap() {
                let work = move || {
                    state.reap();
                    let opened = if retries { state.retry_closed() } else { Vec::new() };
                    if looks {
                        state.look_at_interfaces();
                    }
                    (state, opened)
                };
                // A panic there is not this task's to handle.
                let Ok((state, opened)) = tokio::task::spawn_blocking(work).await else { continue };
                for (listener, sockets) in opened {
                    self.workers.open(listener, sockets).await;
                }
                drop(state);
            }
        }
    }
}

/// Watches the kernel's half: tells of packets that it drops, as it samples them, and looks for floods.
async fn watch_kernel(kernel: Arc<Kernel>, events: Events) {
    let Some(mut samples) = kernel.samples() else { return };
    let mut look = tokio::time::interval(KERNEL_LOOK);
    loop {
        look.tick().await;
        if let Some(on) = kernel.look_for_flood() {
            let kind = if on { Kind::FloodBegan } else { Kind::FloodEnded };
            events.announce(kind, "", &json!({ "syn_cookies": on }));
        }
        while let Some(sample) = samples.take() {
            events.dropped(&sample, || kernel.interface(sample.interface));
        }
    }
}

/// How often that is: samples are few, and a queue fills in tenths of a second.
const KERNEL_LOOK: Duration = Duration::from_millis(100);

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admin").finish_non_exhaustive()
    }
}
