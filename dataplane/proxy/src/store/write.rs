//! Writes a change and its revision in one transaction.

use std::path::Path;

use mc_core::model::{Firewall, Listener, Route, RouteKey};
use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior, params};
use serde::Serialize;

use super::load::Typical;
use super::{Change, StoreError};

/// What went wrong; which file is for the caller to say.
#[derive(Debug)]
pub(super) enum Failed {
    Sqlite(rusqlite::Error),
    Duplicate(RouteKey),
}

impl From<rusqlite::Error> for Failed {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl Failed {
    pub(super) fn at(self, path: &Path) -> StoreError {
        match self {
            Self::Sqlite(error) => StoreError::sqlite(path, error),
            Self::Duplicate(key) => StoreError::Duplicate(key),
        }
    }
}

/// Stores the change; the revision that it made.
pub(super) fn commit(connection: &mut Connection, typical: &Typical, change: &Change) -> Result<u64, Failed> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    apply(&transaction, typical, change)?;
    let revision = transaction
        .prepare_cached("UPDATE site SET revision = revision + 1 RETURNING revision")?
        .query_row([], |row| row.get::<_, i64>(0))?;
    transaction.commit()?;
    Ok(u64::try_from(revision).expect("it was not negative when loaded and only rises"))
}

fn apply(transaction: &Transaction<'_>, typical: &Typical, change: &Change) -> Result<(), Failed> {
    match change {
        Change::PutListener(listener) => put_listener(transaction, listener)?,
        Change::RemoveListener { name, with_routes } => {
            if *with_routes {
                transaction.execute("DELETE FROM routes WHERE listener = ?1", [name])?;
            }
            transaction.execute("DELETE FROM listeners WHERE name = ?1", [name])?;
        }
        Change::PutRoute(route) => {
            let sql = "INSERT INTO routes VALUES (?1, ?2, ?3, ?4)
                ON CONFLICT (listener, name, alpn) DO UPDATE SET spec = excluded.spec";
            let (spec, key) = (spec(typical, route), route);
            transaction.prepare_cached(sql)?.execute(params![key.listener, key.name, key.alpn, spec])?;
        }
        Change::RemoveRoute(key) => {
            let sql = "DELETE FROM routes WHERE listener = ?1 AND name = ?2 AND alpn = ?3";
            transaction.prepare_cached(sql)?.execute([&key.listener, &key.name, &key.alpn])?;
        }
        Change::ReplaceRoutes(routes) => replace_routes(transaction, typical, routes)?,
        Change::SetFirewall(firewall) => set_firewall(transaction, firewall)?,
        Change::SetDraining(address, true) => {
            transaction.execute("INSERT OR IGNORE INTO draining VALUES (?1)", [address.to_string()])?;
        }
        Change::SetDraining(address, false) => {
            transaction.execute("DELETE FROM draining WHERE address = ?1", [address.to_string()])?;
        }
        Change::Seed { listeners, routes, firewall } => {
            transaction
                .execute_batch("DELETE FROM routes; DELETE FROM listeners; UPDATE site SET seeded = 1")?;
            for listener in listeners {
                put_listener(transaction, listener)?;
            }
            replace_routes(transaction, typical, routes)?;
            set_firewall(transaction, firewall)?;
        }
    }
    Ok(())
}

fn put_listener(transaction: &Transaction<'_>, listener: &Listener) -> Result<(), rusqlite::Error> {
    let sql = "INSERT INTO listeners VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET spec = excluded.spec";
    transaction.execute(sql, [&listener.name, &json(listener)])?;
    Ok(())
}

fn set_firewall(transaction: &Transaction<'_>, firewall: &Firewall) -> Result<(), rusqlite::Error> {
    transaction.execute("UPDATE site SET firewall = ?1", [json(firewall)])?;
    Ok(())
}

/// Writes all routes in the order of their keys: then the table grows at its end only, however large it is.
fn replace_routes(transaction: &Transaction<'_>, typical: &Typical, routes: &[Route]) -> Result<(), Failed> {
    let mut sorted: Vec<&Route> = routes.iter().collect();
    sorted.sort_unstable_by(|a, b| key(a).cmp(&key(b)));
    transaction.execute("DELETE FROM routes", [])?;
    let mut insert = transaction.prepare_cached("INSERT INTO routes VALUES (?1, ?2, ?3, ?4)")?;
    for route in sorted {
        let (listener, name, alpn) = key(route);
        insert.execute([listener, name, alpn, &spec(typical, route)]).map_err(|error| match &error {
            rusqlite::Error::SqliteFailure(inner, _)
                if inner.code == ErrorCode::ConstraintViolation
                    && inner.extended_code == rusqlite::ffi::SQLITE_CONSTRAINT_PRIMARYKEY =>
            {
                Failed::Duplicate(route.key())
            }
            _ => Failed::Sqlite(error),
        })?;
    }
    Ok(())
}

fn key(route: &Route) -> (&str, &str, &str) {
    (&route.listener, &route.name, &route.alpn)
}

fn spec(typical: &Typical, route: &Route) -> String {
    typical.address_of(route).map_or_else(|| json(route), |address| address.to_string())
}

fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("the model has no map keys that are not text")
}
