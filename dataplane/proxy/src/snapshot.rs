//! What workers see: one immutable snapshot of listeners, routes and firewall, replaced as a whole.
//!
//! The admin side builds the next snapshot beside the current one and publishes it by one atomic store.
//! Workers load it once for each connection and never wait. What outlives a snapshot (counters, health,
//! open connections) hangs in `Arc`s that the next snapshot carries on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use mc_core::backend::RouteBackend;
use mc_core::model::{Action, Backend, Firewall, Listener, Route, Subject};
use mc_core::table::RouteTable;

use crate::geoip::GeoIp;
use crate::kernel::Covered;
use crate::stats::{PolicyLive, RouteLive};
use crate::tls::{Asked, Authority, BackendTls};

/// All that decides about a connection, at one revision.
#[derive(Debug)]
pub struct Snapshot {
    /// Rises by one with every change; kept in the database.
    pub revision: u64,
    /// Open listeners.
    pub listeners: Vec<Arc<ListenerEntry>>,
    /// Routes, by [`ListenerEntry::id`].
    pub routes: RouteTable<Arc<RouteEntry>>,
    /// Routes in the table.
    pub route_count: u64,
    /// The firewall as written and as compiled.
    pub firewall: Arc<FirewallEntry>,
    /// Local addresses whose connections the kernel rates.
    pub covered: Arc<Covered>,
}

/// A listener and what is counted of it.
#[derive(Debug)]
pub struct ListenerEntry {
    /// Short name of the listener inside this process; not reused.
    pub id: u32,
    /// As configured.
    pub spec: Listener,
    /// Connections accepted, over all workers.
    pub accepted: AtomicU64,
}

/// A route, resolved: its backends' live state, what its checks have found, and its counters at hand.
#[derive(Debug)]
pub struct RouteEntry {
    /// As configured, normalized.
    pub spec: Route,
    /// In the order of [`Route::backends`].
    pub backends: Vec<RouteBackend>,
    /// Survives updates of the route.
    pub live: Arc<RouteLive>,
    /// What is counted of its policies, in their order.
    pub policies: Vec<Arc<PolicyLive>>,
    /// How its backends prove who they are, in their order; empty where none speaks TLS.
    pub backend_tls: Vec<Option<Arc<BackendTls>>>,
    /// Whom its clients must be certified by, where they are asked.
    pub client_ca: Option<Arc<Authority>>,
}

/// The firewall as written and as compiled.
#[derive(Debug, Default)]
pub struct FirewallEntry {
    /// As configured.
    pub spec: Firewall,
    /// As looked up.
    pub compiled: mc_core::firewall::Compiled,
    /// Databases for countries and ASNs, where configured.
    pub geo: Arc<GeoIp>,
}

impl FirewallEntry {
    /// How many rules do nothing, as the database is missing in which their subject would be looked up.
    #[must_use]
    pub fn rules_without_database(&self) -> usize {
        self.spec.rules.iter().filter(|rule| self.geo.lacks(&rule.subject).is_some()).count()
    }

    /// What is wrong with rules that do nothing: a sentence for each missing database.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut by_reason: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for rule in &self.spec.rules {
            let Some(missing) = self.geo.lacks(&rule.subject) else { continue };
            let action = if rule.action == Action::Allow { "allow" } else { "deny" };
            let text = match &rule.subject {
                Subject::Cidr(network) => format!("{action} {network}"),
                Subject::Country(code) => format!("{action} country:{code}"),
                Subject::Asn(number) => format!("{action} asn:{number}"),
            };
            by_reason.entry(missing.to_string()).or_default().push(text);
        }
        let sentence = |(reason, rules): (String, Vec<String>)| {
            let some = rules[..rules.len().min(RULES_NAMED)].join(", ");
            let more = match rules.len().saturating_sub(RULES_NAMED) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            format!("firewall rules that do nothing: {some}{more}; {reason}")
        };
        by_reason.into_iter().map(sentence).collect()
    }
}

/// Rules that a problem names.
const RULES_NAMED: usize = 10;

impl Snapshot {
    /// The snapshot of a proxy with nothing configured.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            revision: 0,
            listeners: Vec::new(),
            routes: RouteTable::new(),
            route_count: 0,
            firewall: Arc::default(),
            covered: Arc::default(),
        }
    }
}

impl Snapshot {
    /// The listener with this id.
    #[must_use]
    pub fn listener(&self, id: u32) -> Option<&Arc<ListenerEntry>> {
        self.listeners.iter().find(|listener| listener.id == id)
    }
}

impl ListenerEntry {
    /// Counts an accepted connection.
    pub fn count_accepted(&self) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
    }
}

impl RouteEntry {
    /// The backend at `index` as configured.
    #[must_use]
    pub fn backend(&self, index: usize) -> &Backend {
        &self.spec.backends[index]
    }

    /// How the route asks clients for a certificate now.
    #[must_use]
    pub fn asked(&self) -> Asked {
        Asked::of(self.spec.http.client_auth, self.client_ca.as_deref())
    }

    /// How the backend at `index` proves who it is; `None`: it speaks no TLS.
    #[must_use]
    pub fn backend_tls(&self, index: usize) -> Option<&Arc<BackendTls>> {
        self.backend_tls.get(index)?.as_ref()
    }
}

/// Hands out [`ListenerEntry::id`]s.
#[derive(Debug, Default)]
pub struct ListenerIds {
    next: AtomicU32,
}

impl ListenerIds {
    /// The next id.
    pub fn next(&self) -> u32 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }
}
