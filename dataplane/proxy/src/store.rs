//! Stand-in until the database is merged: keeps nothing.

use std::net::SocketAddr;
use std::path::Path;

use mc_core::model::{Firewall, Listener, Route, RouteKey};

/// Stand-in.
#[derive(Debug, Default)]
pub struct Store {
    revision: u64,
}

/// What the database holds.
#[derive(Debug, Default)]
pub struct Loaded {
    /// Revision.
    pub revision: u64,
    /// Listeners.
    pub listeners: Vec<Listener>,
    /// Routes.
    pub routes: Vec<Route>,
    /// Firewall.
    pub firewall: Firewall,
    /// Draining backends.
    pub draining: Vec<SocketAddr>,
    /// Whether it was ever seeded.
    pub seeded: bool,
}

/// One change.
#[derive(Clone, Debug)]
pub enum Change {
    /// Listener.
    PutListener(Listener),
    /// Listener.
    RemoveListener {
        /// Which.
        name: String,
        /// Its routes too.
        with_routes: bool,
    },
    /// Route.
    PutRoute(Route),
    /// Route.
    RemoveRoute(RouteKey),
    /// Routes.
    ReplaceRoutes(Vec<Route>),
    /// Firewall.
    SetFirewall(Firewall),
    /// Drain.
    SetDraining(SocketAddr, bool),
    /// Seed.
    Seed {
        /// Listeners.
        listeners: Vec<Listener>,
        /// Routes.
        routes: Vec<Route>,
        /// Firewall.
        firewall: Firewall,
    },
}

/// Stand-in.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Stand-in.
    #[error("{0}")]
    Io(String),
}

impl Store {
    /// Opens.
    ///
    /// # Errors
    /// None.
    pub fn open(_path: &Path) -> Result<(Self, Loaded), StoreError> {
        Ok((Self::default(), Loaded::default()))
    }

    /// Commits.
    ///
    /// # Errors
    /// None.
    pub fn commit(&mut self, _change: &Change) -> Result<u64, StoreError> {
        self.revision += 1;
        Ok(self.revision)
    }
}
