//! What can be wrong with the database, each with its remedy.

use std::io;
use std::path::{Path, PathBuf};

use mc_core::model::RouteKey;
use rusqlite::ErrorCode;

/// Why the database could not be opened, or a change not be stored. After an error nothing was stored.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process uses it.
    #[error(
        "{0} is in use by another mc-proxy: stop that one, or give this one its own database ([server] root or database)"
    )]
    InUse(PathBuf),
    /// A newer version wrote it.
    #[error(
        "{path} is a database of version {found}, and this mc-proxy knows versions up to {known}: run the mc-proxy that wrote it or a newer one, or restore a backup from before the upgrade; the file was not changed"
    )]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The newest version that is known here.
        known: i64,
    },
    /// A database that is none of MC-Proxy's.
    #[error(
        "{path} is a database of another application (application id {id:#010x}): name another file in [server] database; the file was not changed"
    )]
    OtherApplication {
        /// The database.
        path: PathBuf,
        /// Its application id; 0 where it has none, but tables.
        id: i64,
    },
    /// No database at all.
    #[error(
        "{0} is not an SQLite database: name another file in [server] database, or move this one away to start with an empty one; the file was not changed"
    )]
    NotSqlite(PathBuf),
    /// Something else than a file.
    #[error("{0} is not a regular file: name a file in [server] database")]
    NotAFile(PathBuf),
    /// Damaged.
    #[error(
        "{path} is damaged: {what}: restore it from a backup, or move it away to start anew from the configuration file"
    )]
    Corrupt {
        /// The database.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// The file or its file system cannot be written.
    #[error(
        "{0} cannot be written: mount its file system read-write and let the user of mc-proxy write the file and its directory"
    )]
    ReadOnly(PathBuf),
    /// No room.
    #[error("no space left for {0}: free some on its file system or raise the quota, then try again")]
    Full(PathBuf),
    /// The operating system refuses something else.
    #[error("cannot {doing} {path}")]
    Io {
        /// What was tried, as a verb.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// The system's word.
        #[source]
        source: io::Error,
    },
    /// A route refers to a listener that is not there, or a listener goes while routes refer to it.
    #[error(
        "a route refers to a listener that is not there: add the listener first, remove its routes first"
    )]
    Reference,
    /// The same route twice in one change.
    #[error("route {0} is there twice: keep one of the two")]
    Duplicate(RouteKey),
    /// SQLite says something that is not expected.
    #[error("the database {path} refuses")]
    Sqlite {
        /// The database.
        path: PathBuf,
        /// SQLite's word.
        #[source]
        source: rusqlite::Error,
    },
}

impl StoreError {
    /// What SQLite says, in words for an operator.
    pub(super) fn sqlite(path: &Path, source: rusqlite::Error) -> Self {
        let path = path.to_owned();
        let rusqlite::Error::SqliteFailure(error, text) = &source else {
            return match source {
                // A column that is missing or of another type: the schema is not what it claims.
                rusqlite::Error::InvalidColumnType(..)
                | rusqlite::Error::FromSqlConversionFailure(..)
                | rusqlite::Error::QueryReturnedNoRows => Self::Corrupt { path, what: source.to_string() },
                _ => Self::Sqlite { path, source },
            };
        };
        match error.code {
            ErrorCode::NotADatabase => Self::NotSqlite(path),
            ErrorCode::DatabaseCorrupt => {
                let what = text.clone().unwrap_or_else(|| error.to_string());
                Self::Corrupt { path, what }
            }
            ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen => Self::ReadOnly(path),
            ErrorCode::DiskFull => Self::Full(path),
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => Self::InUse(path),
            ErrorCode::ConstraintViolation => Self::Reference,
            _ => Self::Sqlite { path, source },
        }
    }

    /// What the operating system says, in words for an operator.
    pub(super) fn io(doing: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly(path),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full(path),
            _ => Self::Io { doing, path, source },
        }
    }

    /// A row that cannot be read.
    pub(super) fn corrupt(path: &Path, what: impl std::fmt::Display) -> Self {
        Self::Corrupt { path: path.to_owned(), what: what.to_string() }
    }
}
