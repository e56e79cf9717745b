//! Builds the whole table at once: at the start, and when all routes are replaced.

use std::collections::BTreeMap;
use std::sync::Arc;

use mc_core::model::Route;
use mc_core::table::{RouteTable, Row};
use mc_core::validate::Invalid;

use super::backends::Backends;
use super::listing::Listing;
use super::view::View;
use crate::clock;
use crate::snapshot::{ListenerEntry, RouteEntry};
use crate::stats::{PolicyLive, RouteLive};
use crate::tls::Authorities;

/// All routes, as workers and as operators look them up.
#[derive(Debug)]
pub(crate) struct Built {
    pub(crate) table: RouteTable<Arc<RouteEntry>>,
    pub(crate) view: View,
}

/// Builds from normalized `routes`, fastest in the order of their keys. `old` holds for each the entry that its
/// key had, whose counters live on; it may be shorter.
///
/// # Errors
/// A route's listener does not exist, or it has no backend.
pub(crate) fn all(
    routes: Vec<Route>,
    old: Vec<Option<Arc<RouteEntry>>>,
    listeners: &BTreeMap<String, Arc<ListenerEntry>>,
    backends: &Backends,
    authorities: &Authorities,
) -> Result<Built, Invalid> {
    let now_ms = clock::millis();
    let mut backends = backends.uncounted();
    let mut old = old.into_iter();
    let mut entries = Vec::with_capacity(routes.len());
    let mut ids = Vec::with_capacity(routes.len());
    for route in routes {
        let Some(listener) = listeners.get(&route.listener) else {
            return Err(Invalid {
                field: format!("route {}", route.key()),
                problem: format!("there is no listener `{}`: add it first", route.listener),
            });
        };
        if route.backends.is_empty() {
            let field = format!("route {}", route.key());
            return Err(Invalid { field, problem: "it has no backend: give it one".to_owned() });
        }
        ids.push(listener.id);
        entries.push(entry(route, old.next().flatten(), &mut backends, authorities, now_ms));
    }
    backends.forget_unused();
    // Two looks at the same entries, at the same time: each is half of the work.
    let (table, listing) = std::thread::scope(|scope| {
        let listing = scope.spawn(|| Listing::build(entries.iter().cloned()));
        let mut table = RouteTable::new();
        table.extend(entries.iter().zip(&ids).map(|(entry, &listener)| Row {
            listener,
            name: &entry.spec.name,
            alpn: &entry.spec.alpn,
            any_depth: entry.spec.any_depth,
            value: Arc::clone(entry),
        }));
        (table, listing.join().expect("building a listing does not panic"))
    });
    Ok(Built { table, view: View { listing, backends, ..View::default() } })
}

/// A route's entry: the old one where nothing has changed, else one that carries its counters on.
pub(crate) fn entry(
    route: Route,
    old: Option<Arc<RouteEntry>>,
    backends: &mut Backends,
    authorities: &Authorities,
    now_ms: u64,
) -> Arc<RouteEntry> {
    let backend_tls = authorities.of_backends(&route);
    let backends = backends.acquire(&route, &backend_tls, now_ms);
    let (live, before) = match old {
        Some(old) if old.spec == route => return old,
        Some(old) => (Arc::clone(&old.live), old.policies.clone()),
        None => (Arc::new(RouteLive::new(route.key())), Vec::new()),
    };
    let policies = route.http.policies.iter().map(|policy| {
        let same = before.iter().find(|live| live.name == policy.name).cloned();
        same.unwrap_or_else(|| Arc::new(PolicyLive::new(&live.key, &policy.name)))
    });
    let policies = policies.collect();
    let client_ca = authorities.of_clients(&route);
    Arc::new(RouteEntry { spec: route, backends, live, policies, backend_tls, client_ca })
}
