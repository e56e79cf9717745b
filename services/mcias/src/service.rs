//! MCIAS as a program: what the frame of `mcdsl` needs to run it.

use std::path::Path;
use std::sync::Arc;

use mcdsl::clock::Clock;
use mcdsl::db::DbError;
use mcdsl::http::Limits;
use mcdsl::operation::Routes;
use mcdsl::program::{Failure, Finding, Service};
use mcdsl::prometheus::Page;
use mcdsl::server::Stop;
use rusqlite::{Connection, OpenFlags};

use crate::app::{self, Mcias, StartError};
use crate::config::{Config, Site};
use crate::{store, web};

/// Creates the first admin and prints a link to set a password. The server must not be running.
///
/// For an account that exists, it is the way back in: the account becomes an admin's and is enabled, and loses its password,
/// second factor and passkeys.
#[derive(Debug, clap::Args)]
pub struct Init {
    /// The admin's account name.
    admin: String,
}

impl Service for Mcias {
    const NAME: &'static str = "mcias";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const ABOUT: &'static str = "Identity and access: accounts, tokens, roles, login policy.";
    const DESCRIPTORS: &'static [&'static [u8]] =
        &[mc_api::mcias::DESCRIPTORS, mc_api::audit::DESCRIPTORS, mc_api::policy::DESCRIPTORS];
    type Config = Config;
    type Init = Init;

    fn inspect(config: &Config) -> Vec<Finding> {
        inspect_database(&config.database(), &config.site).into_iter().collect()
    }

    fn openapi() -> serde_json::Value {
        app::openapi()
    }

    async fn open(config: Config, clock: Clock) -> Result<Self, Failure> {
        Ok(Self::open(config, clock).await?)
    }

    async fn init(&self, args: Init) -> Result<String, Failure> {
        Ok(self.make_admin(&args.admin).await?.url)
    }

    fn routes(self: &Arc<Self>, limits: Limits) -> Routes {
        let mut table = self.operations(limits);
        web::add_pages(&mut table, self);
        table.finish()
    }

    async fn ready(&self) -> Result<(), String> {
        self.probe_storage().await
    }

    fn write_metrics(&self, page: &mut Page) {
        self.write_metrics(page);
    }

    async fn work(&self, stop: Stop) {
        self.run_jobs(stop).await;
    }
}

/// Whether the database can be used, and has somebody who can administer the server.
fn inspect_database(path: &Path, site: &Site) -> Option<Finding> {
    let state = if path.exists() { read_state(path) } else { Ok(Some(State::default())) };
    match state {
        Ok(Some(State { public_url: Some(old), .. })) if !site.accepts(&old) => {
            let error = StartError::PublicUrl { old, new: site.public_url.clone() };
            Some(Finding::Error(mcdsl::chain(&error)))
        }
        Ok(Some(State { admins: 0, .. })) => {
            let text = "nobody can administer this server: no admin can log in. Use the link that `mcias init` printed, \
                        or print one with `mcias init NAME` while the server does not run";
            Some(Finding::Warning(text.to_owned()))
        }
        Ok(_) => None,
        Err(error) => Some(Finding::Error(mcdsl::chain(&error))),
    }
}

/// What is stored, as far as it can be wrong.
#[derive(Default)]
struct State {
    /// Admins who can log in.
    admins: usize,
    /// What tokens are bound to; `None`: the server has not started yet.
    public_url: Option<String>,
}

/// Reads it. `None`: the database is of an earlier version, and will be brought to this one at the start.
/// Nothing is written: not even the files beside the database, which would belong to whoever checks.
fn read_state(path: &Path) -> Result<Option<State>, DbError> {
    let sqlite = |error| DbError::sqlite(path, error);
    let db = open_without_writing(path).map_err(sqlite)?;
    let number = |pragma| db.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0)).map_err(sqlite);
    let (id, found, known) = (number("application_id")?, number("user_version")?, store::SCHEMA.version());
    match (id, found) {
        // An empty file: it will be filled.
        (0, 0) => Ok(Some(State::default())),
        (id, _) if id != store::SCHEMA.application_id => {
            Err(DbError::OtherApplication { path: path.to_owned(), id })
        }
        (_, found) if found > known => Err(DbError::Newer { path: path.to_owned(), found, known }),
        (_, found) if found < known => Ok(None),
        _ => {
            let admins = store::accounts::admins(&db).map_err(sqlite)?.len();
            Ok(Some(State { admins, public_url: store::site::public_url(&db).map_err(sqlite)? }))
        }
    }
}

fn open_without_writing(path: &Path) -> rusqlite::Result<Connection> {
    let companion = |end: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        Path::new(&name).exists()
    };
    // SQLite would make the files that are missing. Without them nobody uses the database, and all of it is in its file.
    let how = if companion("-wal") && companion("-shm") { "" } else { "?immutable=1" };
    let escaped = path.to_string_lossy().replace('%', "%25").replace('?', "%3f").replace('#', "%23");
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    Connection::open_with_flags(format!("file:{escaped}{how}"), flags)
}

#[cfg(test)]
mod tests {
    use mcdsl::db::Database;

    use super::*;

    #[test]
    fn a_database_is_judged_without_being_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("100% of it?#.db");
        let site = Site::default();
        let found = || inspect_database(&path, &site);
        let is_warning = |found: Option<Finding>| matches!(found, Some(Finding::Warning(text)) if text.contains("mcias init"));
        assert!(is_warning(found()) && !path.exists());
        let database = Database::open(&path, &store::SCHEMA, 1).unwrap();
        assert!(is_warning(found()));
        drop(database);
        assert!(is_warning(found()));
        let set = |pragma: &str, value: i64| {
            let db = Connection::open(&path).unwrap();
            db.pragma_update(None, pragma, value).unwrap();
        };
        let is_error = |found: Option<Finding>| matches!(found, Some(Finding::Error(_)));
        set("user_version", store::SCHEMA.version() + 1);
        assert!(is_error(found()));
        set("user_version", 1);
        assert_eq!(found(), None);
        set("application_id", 7);
        assert!(is_error(found()));
        std::fs::write(&path, "no database").unwrap();
        assert!(is_error(found()));
    }
}
