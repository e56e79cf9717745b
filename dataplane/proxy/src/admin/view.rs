//! What the admin side lists: kept by the one writer, read without waiting for it.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use mc_core::model::RouteKey;

use super::backends::Backends;
use super::listing::Listing;
use crate::stats::RouteLive;

/// What is listed without waiting for the writer.
#[derive(Debug, Default)]
pub(crate) struct View {
    pub(crate) listing: Listing,
    pub(crate) backends: Backends,
    /// Listeners whose sockets cannot be had now, by name, and why. They are tried again each second.
    pub(crate) closed: BTreeMap<String, String>,
    /// Routes that were put on hold: those whose time is over may still be among them.
    pub(crate) holds: BTreeMap<RouteKey, Arc<RouteLive>>,
}

/// A [`View`] that one writes, for an instant at a time, and many read.
#[derive(Clone, Debug, Default)]
pub(crate) struct SharedView(Arc<RwLock<View>>);

impl SharedView {
    pub(crate) fn new(view: View) -> Self {
        Self(Arc::new(RwLock::new(view)))
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, View> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// For the writer alone.
    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, View> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}
