//! Routes: one changed, or all at once.

use std::sync::Arc;

use mc_core::model::{ChangedBy, Listener, Route, RouteKey};
use mc_core::validate::{Invalid, check_config, check_route_listener, normalize_route};
use serde_json::json;

use super::{After, Done, Existing, State, check_room};
use crate::admin::build;
use crate::admin::error::ChangeError;
use crate::admin::events::Kind;
use crate::admin::listing::Listing;
use crate::admin::view::View;
use crate::clock;
use crate::connections::ConnectionFilter;
use crate::snapshot::RouteEntry;
use crate::stats::RouteLive;
use crate::store::Change;
use crate::tls::{Authorities, Authority};

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

impl State {
    /// Puts a route in the place of what may be there. The same again is no change.
    pub(crate) fn put_route(
        &mut self,
        mut route: Route,
        existing: Existing<Route>,
        by: &ChangedBy,
    ) -> Result<Done<RoutePut>, ChangeError> {
        let expected = match &existing {
            Existing::Some(Some(expected)) => Some(normalize_route(expected.clone())?),
            _ => None,
        };
        by.own(&mut route);
        let route = normalize_route(route)?;
        let listener = self.listener_of(&route)?;
        let key = route.key();
        let old = self.view.read().listing.get(&key).cloned();
        match &old {
            Some(_) if existing == Existing::None => return Err(ChangeError::RouteExists(key)),
            None if matches!(existing, Existing::Some(_)) => return Err(ChangeError::NoRoute(key)),
            Some(old) if expected.is_some_and(|expected| old.spec != expected) => {
                return Err(ChangeError::OtherRoute(key));
            }
            Some(old) if !by.may_change(&old.spec) => return Err(owned(&old.spec, by)),
            None => check_room("routes", self.view.read().listing.len() + 1, MAX_ROUTES)?,
            Some(old) if old.spec == route => {
                let put = RoutePut { revision: self.revision, created: false, changed: false, route };
                return Ok(Done::only(put));
            }
            Some(_) => {}
        }
        let workers = Arc::clone(&self.workers);
        let authorities = &workers.policy.tls.authorities;
        let _open = authorities.of(&route)?;
        self.commit(&Change::PutRoute(Box::new(route.clone())))?;

        let created = old.is_none();
        let entry = {
            let mut view = self.view.write();
            let entry = build::entry(route.clone(), old, &mut view.backends, authorities, clock::millis());
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
        by: &ChangedBy,
    ) -> Result<Done<(u64, bool)>, ChangeError> {
        let key = normalize_key(key);
        let Some(old) = self.view.read().listing.get(&key).cloned() else {
            return Ok(Done::only((self.revision, false)));
        };
        check_owner([&old.spec], by)?;
        self.commit(&Change::RemoveRoute(key.clone()))?;
        {
            let mut view = self.view.write();
            view.listing.remove(&key);
            view.backends.release(&old);
        }
        let mut table = self.table();
        table.remove(self.listeners[&key.listener].id, &key.name, &key.alpn);
        let mut after = retire(&[Arc::clone(&old)], kill);
        self.publish(table);
        after.holds = self.release([&old.live]);
        self.events.announce(Kind::RouteRemoved, key.to_string(), &json!({ "kill": kill }));
        Ok(Done { value: (self.revision, true), after })
    }

    /// Replaces all routes, where the revision is the expected one. The same again is no change.
    pub(crate) fn replace_routes(
        &mut self,
        routes: Vec<Route>,
        expected: Option<u64>,
        kill: bool,
        by: &ChangedBy,
    ) -> Result<Done<RoutesReplaced>, ChangeError> {
        self.check_revision(expected)?;
        let routes = self.normalize_routes(routes)?;
        let Comparison { old, gone, mut result } = compare(&routes, &self.view.read().listing);
        let changed =
            old.iter().zip(&routes).filter_map(|(old, new)| old.as_ref().filter(|old| old.spec != *new));
        check_owner(changed.chain(&gone).map(|entry| &entry.spec), by)?;
        result.revision = self.revision;
        if result.added + result.updated + result.removed == 0 {
            return Ok(Done::only(result));
        }
        let workers = Arc::clone(&self.workers);
        let authorities = &workers.policy.tls.authorities;
        let _open = authorities_of(authorities, &routes)?;
        let change = Change::ReplaceRoutes(routes);
        self.commit(&change)?;
        let Change::ReplaceRoutes(routes) = change else { unreachable!("it was made above") };
        let built = build::all(routes, old, &self.listeners, &self.view.read().backends, authorities)
            .expect("listeners and backends were checked before the change was stored");
        let before = {
            let mut view = self.view.write();
            // Which listeners are closed is not the routes' to say, and holds end when all is published.
            let (closed, holds) = (std::mem::take(&mut view.closed), std::mem::take(&mut view.holds));
            std::mem::replace(&mut *view, View { closed, holds, ..built.view })
        };
        let mut after = retire(&gone, kill);
        self.publish(built.table);
        after.holds = self.release(&self.held_and_changed(&before));
        drop(before);
        result.revision = self.revision;
        let detail = json!({ "added": result.added, "updated": result.updated, "removed": result.removed });
        self.events.announce(Kind::RoutesReplaced, "", &detail);
        Ok(Done { value: result, after })
    }

    /// Routes on hold that are not what they were before all were replaced.
    fn held_and_changed(&self, before: &View) -> Vec<Arc<RouteLive>> {
        let view = self.view.read();
        let entry = |view: &View, key: &RouteKey| view.listing.get(key).map(Arc::as_ptr);
        let changed = view.holds.iter().filter(|(key, _)| entry(&view, key) != entry(before, key));
        changed.map(|(_, live)| Arc::clone(live)).collect()
    }

    /// The id of a route's listener.
    fn listener_of(&self, route: &Route) -> Result<u32, Invalid> {
        check_route_listener(route, self.listeners.keys().map(String::as_str))?;
        Ok(self.listeners[&route.listener].id)
    }

    /// Each in its one form, in the order of their keys, none twice.
    fn normalize_routes(&self, routes: Vec<Route>) -> Result<Vec<Route>, ChangeError> {
        check_room("routes", routes.len() as u64, MAX_ROUTES)?;
        let mut normal = Vec::with_capacity(routes.len());
        for (index, route) in routes.into_iter().enumerate() {
            let route =
                normalize_route(route).map_err(|invalid| invalid.within(format_args!("routes[{index}]")))?;
            normal.push(route);
        }
        let listeners: Vec<Listener> = self.configured.values().cloned().collect();
        check_config(&listeners, &normal)?;
        normal.sort_by(|a, b| by_key(a).cmp(&by_key(b)));
        Ok(normal)
    }
}

/// Opens the bundles that routes name: they stay open as long as this is held.
fn authorities_of(authorities: &Authorities, routes: &[Route]) -> Result<Vec<Arc<Authority>>, Invalid> {
    let mut all = Vec::new();
    for route in routes {
        let opened = authorities.of(route);
        all.extend(opened.map_err(|invalid| invalid.within(format_args!("route {}", route.key())))?);
    }
    Ok(all)
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

/// Refuses a change to routes of which one has another owner.
pub(super) fn check_owner<'a>(
    routes: impl IntoIterator<Item = &'a Route>,
    by: &ChangedBy,
) -> Result<(), ChangeError> {
    let other = routes.into_iter().find(|route| !by.may_change(route));
    other.map_or(Ok(()), |route| Err(owned(route, by)))
}

fn owned(route: &Route, by: &ChangedBy) -> ChangeError {
    ChangeError::Owned { key: route.key(), owner: route.owner.clone(), by: by.owner.clone() }
}

/// What is to be done about the connections of routes that are gone. Only those that are to be closed are
/// marked: an earlier route's connections that drain must not be closed with a later one's.
pub(super) fn retire(gone: &[Arc<RouteEntry>], kill: bool) -> After {
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
pub(crate) fn normalize_key(key: RouteKey) -> RouteKey {
    let name = key.name.trim_end_matches('.').to_ascii_lowercase();
    RouteKey { name, ..key }
}

/// Routes at the same time: a few gigabytes of memory.
pub(crate) const MAX_ROUTES: u64 = 4_000_000;
