//! Reads what the database holds: a million routes are to cost less than a second of the start.
//!
//! Most routes are a name and one backend, and everything else as by default. Those are stored as just the
//! backend's address ([`Typical`]): half the bytes, and no JSON to parse.

use std::net::SocketAddr;
use std::path::Path;

use mc_core::model::{Backend, Route};
use rusqlite::{Connection, Row};
use serde::de::DeserializeOwned;

use super::{Loaded, StoreError};

/// A route with one backend and every setting as by default.
#[derive(Debug)]
pub(super) struct Typical {
    route: Route,
    backend: Backend,
}

impl Default for Typical {
    fn default() -> Self {
        // Read rather than written out: what is the default is the model's to say.
        let mut route: Route =
            serde_json::from_str(r#"{"listener":"","name":"","backends":[{"address":"0.0.0.0:0"}]}"#)
                .expect("a route needs no more than this");
        let backend = route.backends.pop().expect("it has one");
        Self { route, backend }
    }
}

impl Typical {
    /// The route with this key and this one backend.
    fn with(&self, listener: &str, name: &str, alpn: &str, address: SocketAddr) -> Route {
        let mut route = self.route.clone();
        route.listener.push_str(listener);
        route.name.push_str(name);
        route.alpn.push_str(alpn);
        let mut backend = self.backend.clone();
        backend.address = address;
        route.backends = vec![backend];
        route
    }

    /// The address of its backend, where nothing else about the route is special.
    pub(super) fn address_of(&self, route: &Route) -> Option<SocketAddr> {
        let [backend] = route.backends.as_slice() else { return None };
        let typical = self.with(&route.listener, &route.name, &route.alpn, backend.address);
        (typical == *route).then_some(backend.address)
    }
}

/// All that is stored.
pub(super) fn all(connection: &Connection, typical: &Typical, path: &Path) -> Result<Loaded, StoreError> {
    let sqlite = |error| StoreError::sqlite(path, error);
    let (revision, seeded, firewall): (i64, bool, String) = connection
        .query_row("SELECT revision, seeded, firewall FROM site", [], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .map_err(sqlite)?;
    let revision = u64::try_from(revision)
        .map_err(|_| StoreError::corrupt(path, format_args!("its revision is {revision}")))?;
    let firewall = json("the firewall", &firewall, path)?;
    let listeners = rows(connection, "SELECT name, spec FROM listeners ORDER BY name", path, |row| {
        let name = text(row, 0, path)?;
        json(&format!("listener {name}"), text(row, 1, path)?, path)
    })?;
    let draining = rows(connection, "SELECT address FROM draining ORDER BY address", path, |row| {
        let address = text(row, 0, path)?;
        address.parse().map_err(|_| {
            StoreError::corrupt(path, format_args!("{address} is no address of a draining backend"))
        })
    })?;
    let query = "SELECT listener, name, alpn, spec FROM routes ORDER BY listener, name, alpn";
    let routes = rows(connection, query, path, |row| route(row, typical, path))?;
    Ok(Loaded { revision, listeners, routes, firewall, draining, seeded })
}

/// One route.
fn route(row: &Row<'_>, typical: &Typical, path: &Path) -> Result<Route, StoreError> {
    let (listener, name) = (text(row, 0, path)?, text(row, 1, path)?);
    let (alpn, spec) = (text(row, 2, path)?, text(row, 3, path)?);
    if !spec.starts_with('{') {
        let Ok(address) = spec.parse() else {
            let what = format!("the backend of route {listener}/{name} is \"{spec}\"");
            return Err(StoreError::corrupt(path, what));
        };
        return Ok(typical.with(listener, name, alpn, address));
    }
    let route: Route = json(&format!("route {listener}/{name}"), spec, path)?;
    if (&*route.listener, &*route.name, &*route.alpn) != (listener, name, alpn) {
        let what = format!("route {listener}/{name} is stored as that of {}", route.key());
        return Err(StoreError::corrupt(path, what));
    }
    Ok(route)
}

/// Each row of a query, read by `read`.
fn rows<T>(
    connection: &Connection,
    query: &str,
    path: &Path,
    mut read: impl FnMut(&Row<'_>) -> Result<T, StoreError>,
) -> Result<Vec<T>, StoreError> {
    let sqlite = |error| StoreError::sqlite(path, error);
    let mut statement = connection.prepare(query).map_err(sqlite)?;
    let mut rows = statement.query([]).map_err(sqlite)?;
    let mut all = Vec::new();
    while let Some(row) = rows.next().map_err(sqlite)? {
        all.push(read(row)?);
    }
    Ok(all)
}

/// A column's text, not copied.
fn text<'a>(row: &'a Row<'_>, column: usize, path: &Path) -> Result<&'a str, StoreError> {
    let value = row.get_ref(column).map_err(|error| StoreError::sqlite(path, error))?;
    value.as_str().map_err(|error| StoreError::corrupt(path, format_args!("column {column}: {error}")))
}

fn json<T: DeserializeOwned>(what: &str, text: &str, path: &Path) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|error| StoreError::corrupt(path, format_args!("{what}: {error}")))
}
