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
        Route {
            listener: listener.to_owned(),
            name: name.to_owned(),
            alpn: alpn.to_owned(),
            backends: vec![Backend { address, ..self.backend.clone() }],
            ..self.route.clone()
        }
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
        .map_err(|_negative| StoreError::corrupt(path, format_args!("its revision is {revision}")))?;
    let firewall = json("the firewall", &firewall, path)?;
    let mut listeners = Vec::new();
    each_row(connection, "SELECT name, spec FROM listeners ORDER BY name", path, |row| {
        let name = text(row, 0, path)?;
        listeners.push(json(&format!("listener {name}"), text(row, 1, path)?, path)?);
        Ok(())
    })?;
    let mut draining = Vec::new();
    each_row(connection, "SELECT address FROM draining ORDER BY address", path, |row| {
        let address = text(row, 0, path)?;
        draining.push(address.parse().map_err(|_no_address| {
            StoreError::corrupt(path, format_args!("{address} is no address of a draining backend"))
        })?);
        Ok(())
    })?;
    let count: i64 =
        connection.query_row("SELECT count(*) FROM routes", [], |row| row.get(0)).map_err(sqlite)?;
    let mut routes = Vec::with_capacity(usize::try_from(count).unwrap_or(0));
    let query = "SELECT listener, name, alpn, spec FROM routes ORDER BY listener, name, alpn";
    each_row(connection, query, path, |row| {
        routes.push(route(row, typical, path)?);
        Ok(())
    })?;
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

/// Reads each row of a query.
fn each_row(
    connection: &Connection,
    query: &str,
    path: &Path,
    mut read: impl FnMut(&Row<'_>) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let sqlite = |error| StoreError::sqlite(path, error);
    let mut statement = connection.prepare(query).map_err(sqlite)?;
    let mut rows = statement.query([]).map_err(sqlite)?;
    while let Some(row) = rows.next().map_err(sqlite)? {
        read(row)?;
    }
    Ok(())
}

/// A column's text, not copied.
fn text<'a>(row: &'a Row<'_>, column: usize, path: &Path) -> Result<&'a str, StoreError> {
    let value = row.get_ref(column).map_err(|error| StoreError::sqlite(path, error))?;
    value.as_str().map_err(|error| StoreError::corrupt(path, format_args!("column {column}: {error}")))
}

fn json<T: DeserializeOwned>(what: &str, text: &str, path: &Path) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|error| StoreError::corrupt(path, format_args!("{what}: {error}")))
}
