//! The admin side over a real database, real sockets and real workers, in a directory of its own.

mod grpc;
mod state;

use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use mc_core::rate::RateTable;
use tempfile::TempDir;

use super::state::Commit;
use super::*;
use crate::access_log::{Format, LogSink, Target};
use crate::budgets::SharedPolicy;
use crate::store::{Change, StoreError};
use crate::tls::Tls;
use mcdsl::db::DbError;

/// An admin side in a directory of its own.
struct Site {
    dir: TempDir,
    admin: Admin,
    /// Makes every change fail to be stored.
    broken: Arc<AtomicBool>,
}

/// A database whose disk can be full.
struct Breakable {
    store: Store,
    broken: Arc<AtomicBool>,
}

impl Commit for Breakable {
    fn commit(&mut self, change: &Change) -> Result<u64, StoreError> {
        if self.broken.load(Ordering::Relaxed) {
            return Err(DbError::Full("/full/mc-proxy.db".into()).into());
        }
        self.store.commit(change)
    }

    fn lock(&self) -> std::io::Result<OwnedFd> {
        Commit::lock(&self.store)
    }
}

impl Site {
    /// With a listener `web`, and routes for these names to 192.0.2.1.
    async fn new(names: &[&str]) -> Self {
        let routes = names.iter().map(|name| route(name, "192.0.2.1:443")).collect();
        let listeners = vec![listener("web", "127.0.0.1:0")];
        Self::open(TempDir::new().unwrap(), Seed { listeners, routes, ..Seed::default() }).await.unwrap()
    }

    async fn open(dir: TempDir, seed: Seed) -> Result<Self, StartError> {
        let (store, loaded) = Store::open(&dir.path().join("mc-proxy.db"))?;
        let broken = Arc::new(AtomicBool::new(false));
        let store = Breakable { store, broken: Arc::clone(&broken) };
        let shell = Shell {
            workers: workers(),
            kernel: Arc::default(),
            geo: Arc::default(),
            events: Events::default(),
        };
        let (state, bound) = State::start(Box::new(store), loaded, seed, shell.clone(), Vec::new())?;
        let admin = Admin::new(state, bound, shell, dir.path()).await;
        Ok(Self { dir, admin, broken })
    }

    /// Stops and starts again, on the same database.
    async fn restart(self, seed: Seed) -> Self {
        let Self { dir, admin, .. } = self;
        // The database is closed with its last owner.
        let state = Arc::clone(&admin.state);
        drop(admin);
        drop(Arc::into_inner(state).expect("no change is being made").into_inner());
        Self::open(dir, seed).await.unwrap()
    }

    fn revision(&self) -> u64 {
        self.admin.snapshot().revision
    }

    fn names(&self) -> Vec<String> {
        self.admin.routes_after(None, usize::MAX).iter().map(|entry| entry.spec.name.clone()).collect()
    }

    /// The route that a client of `web` gets who asks for `name`.
    fn lookup(&self, name: &str) -> Option<Arc<RouteEntry>> {
        let snapshot = self.admin.snapshot();
        let web = snapshot.listeners.iter().find(|listener| listener.spec.name == "web")?.id;
        snapshot.routes.lookup(web, Some(name), std::iter::empty()).cloned()
    }

    fn address(&self, listener: &str) -> SocketAddr {
        let snapshot = self.admin.snapshot();
        snapshot.listeners.iter().find(|entry| entry.spec.name == listener).unwrap().spec.address
    }
}

fn workers() -> Arc<Workers> {
    // No certificates, and keys that nothing reads again: the folder may go at once.
    let folder = tempfile::tempdir().unwrap();
    let (certs, keys) = (folder.path().join("certs"), folder.path().join("ticket-keys"));
    let (tls, _) = Tls::open(&certs, &keys, folder.path(), 0, Err("not asked for".to_owned())).unwrap();
    let policy = SharedPolicy {
        rates: RateTable::new(1),
        request_rates: RateTable::new(1),
        budgets: crate::budgets::Budgets::new(1000, 0, crate::memory::Memory::new(u64::MAX)),
        tls: Arc::new(tls),
        on_refused: Box::new(|_| {}),
        on_ejected: Box::new(|_| {}),
    };
    let log = LogSink::open(Target::Off, Format::Json).unwrap();
    let snapshot = Arc::new(ArcSwap::from_pointee(Snapshot::empty()));
    Arc::new(Workers::start(1, snapshot, Arc::new(policy), &log, None).unwrap())
}

fn listener(name: &str, address: &str) -> Listener {
    toml::from_str(&format!("name = \"{name}\"\naddress = \"{address}\"")).unwrap()
}

fn route(name: &str, backend: &str) -> Route {
    toml::from_str(&format!(
        "listener = \"web\"\nname = \"{name}\"\nbackends = [{{ address = \"{backend}\" }}]"
    ))
    .unwrap()
}

fn key(name: &str) -> RouteKey {
    route(name, "192.0.2.1:443").key()
}

fn rule(action: &str, cidr: &str) -> FirewallRule {
    toml::from_str(&format!("action = \"{action}\"\ncidr = \"{cidr}\"")).unwrap()
}
