//! Keeps the configuration in one SQLite database: a change is on the disk when [`Store::commit`] returns.
//!
//! The configuration file only seeds it; afterwards the database is the truth, so that an acknowledged change
//! survives a crash. It runs in WAL mode with `synchronous=FULL`: a commit appends to the log and waits for
//! the disk. One process has it at a time (a lock on `<database>.lock`), while `sqlite3` may read beside it.
//!
//! Left out: what a change means and whether it makes sense (that is the caller's, before it comes here).
//! Calls are synchronous and wait for the disk: run them where that is allowed.

mod error;
mod load;
#[cfg(test)]
mod tests;
mod write;

use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use mc_core::model::{Firewall, Listener, Route, RouteKey};
use mcdsl::db::{self, Schema};
use rusqlite::Connection;

pub use error::StoreError;

/// "MCPX": says whose database it is, to us and to `file`.
const SCHEMA: Schema = Schema { application_id: 0x4d43_5058, migrations: &[include_str!("schema.sql")] };

/// The database, open.
#[derive(Debug)]
pub struct Store {
    connection: Connection,
    path: PathBuf,
    typical: load::Typical,
    /// Locked for as long as it is open. Dropped after the connection.
    lock: File,
}

/// What the database held when it was opened.
#[derive(Debug, Default)]
pub struct Loaded {
    /// Rises by one with each change.
    pub revision: u64,
    /// By name.
    pub listeners: Vec<Listener>,
    /// By listener, name, ALPN.
    pub routes: Vec<Route>,
    /// The firewall.
    pub firewall: Firewall,
    /// Backends that an operator drains, in the order of their text.
    pub draining: Vec<SocketAddr>,
    /// Whether it was ever seeded; a database that was emptied since stays empty.
    pub seeded: bool,
}

/// A change, stored whole or not at all.
#[derive(Clone, Debug)]
pub enum Change {
    /// Adds the listener or replaces the one of its name.
    PutListener(Listener),
    /// Removes a listener.
    RemoveListener {
        /// Which.
        name: String,
        /// Together with its routes; without, a listener that routes refer to stays and is an error.
        with_routes: bool,
    },
    /// Adds the route or replaces the one with its key.
    PutRoute(Box<Route>),
    /// Removes a route.
    RemoveRoute(RouteKey),
    /// These are all routes.
    ReplaceRoutes(Vec<Route>),
    /// Replaces the firewall.
    SetFirewall(Firewall),
    /// A backend drains, or does no longer.
    SetDraining(SocketAddr, bool),
    /// What is in the configuration file, into a database that never held anything; replaces what is there.
    Seed {
        /// All listeners.
        listeners: Vec<Listener>,
        /// All routes.
        routes: Vec<Route>,
        /// The firewall.
        firewall: Firewall,
    },
}

impl Store {
    /// Opens the database, made where there is none (mode 0600, its directory 0700), brought to this version
    /// where it is older, and reads all that it holds.
    ///
    /// # Errors
    /// [`StoreError`] says what is wrong with it and what to do. A database that cannot be used is not changed.
    pub fn open(path: &Path) -> Result<(Self, Loaded), StoreError> {
        Self::open_with(path, None)
    }

    /// As [`Self::open`], with the lock that another process has, and gives to us. It changes nothing any more.
    ///
    /// # Errors
    /// As there.
    pub fn open_with(path: &Path, lock: Option<File>) -> Result<(Self, Loaded), StoreError> {
        let (connection, lock) = db::open(path, &SCHEMA, lock)?;
        let store = Self { connection, path: path.to_owned(), typical: load::Typical::default(), lock };
        let loaded = load::all(&store.connection, &store.typical, path)?;
        Ok((store, loaded))
    }

    /// The lock once more, for another process.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn lock(&self) -> std::io::Result<OwnedFd> {
        self.lock.try_clone().map(OwnedFd::from)
    }

    /// Stores a change and says the revision that it made. It is on the disk when this returns.
    ///
    /// # Errors
    /// [`StoreError`]; then nothing of it was stored, and the next change may be tried.
    pub fn commit(&mut self, change: &Change) -> Result<u64, StoreError> {
        write::commit(&mut self.connection, &self.typical, change).map_err(|error| error.at(&self.path))
    }
}
