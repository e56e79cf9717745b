//! What can be wrong with a database, each with its remedy.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::ErrorCode;

/// Why the database could not be opened, or a change not be stored. After an error nothing was stored.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DbError {
    /// Another process uses it.
    #[error(
        "{0} is in use by another process of this program: stop it first; each process needs its own database"
    )]
    InUse(PathBuf),
    /// A newer version wrote it.
    #[error(
        "{path} is a database of version {found}, and this program knows versions up to {known}: run the one that wrote it or a newer one, or restore a backup from before the upgrade; the file was not changed"
    )]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The newest version that is known here.
        known: i64,
    },
    /// A database that is none of this program's.
    #[error(
        "{path} is a database of another application (application id {id:#010x}): configure another directory or file; the file was not changed"
    )]
    OtherApplication {
        /// The database.
        path: PathBuf,
        /// Its application id; 0 where it has none, but tables.
        id: i64,
    },
    /// No database at all.
    #[error(
        "{0} is not an SQLite database: configure another directory or file, or move this one away to start with an empty one; the file was not changed"
    )]
    NotSqlite(PathBuf),
    /// Something else than a file.
    #[error("{0} is not a regular file: configure a file")]
    NotAFile(PathBuf),
    /// Damaged.
    #[error(
        "{path} is damaged: {what}: restore it from a backup, or move it away to start with an empty one"
    )]
    Corrupt {
        /// The database.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// The file or its file system cannot be written.
    #[error(
        "{0} cannot be written: mount its file system read-write and let this program's user write the file and its directory"
    )]
    ReadOnly(PathBuf),
    /// It is being closed.
    #[error("{0} is closed: the program is stopping")]
    Closed(PathBuf),
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
        source: Arc<io::Error>,
    },
    /// SQLite says something that is not expected.
    #[error("the database {path} refuses")]
    Sqlite {
        /// The database.
        path: PathBuf,
        /// SQLite's word.
        #[source]
        source: Arc<rusqlite::Error>,
    },
}

impl DbError {
    /// What SQLite says, in words for an operator.
    #[must_use]
    pub fn sqlite(path: &Path, source: rusqlite::Error) -> Self {
        let path = path.to_owned();
        let rusqlite::Error::SqliteFailure(error, text) = &source else {
            return match source {
                // A column that is missing or of another type: the schema is not what it claims.
                rusqlite::Error::InvalidColumnType(..)
                | rusqlite::Error::FromSqlConversionFailure(..)
                | rusqlite::Error::QueryReturnedNoRows => Self::Corrupt { path, what: source.to_string() },
                _ => Self::Sqlite { path, source: Arc::new(source) },
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
            ErrorCode::SystemIoFailure => {
                Self::Io { doing: "read or write", path, source: Arc::new(io::Error::other(source)) }
            }
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => Self::InUse(path),
            _ => Self::Sqlite { path, source: Arc::new(source) },
        }
    }

    /// What the operating system says, in words for an operator.
    #[must_use]
    pub fn io(doing: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly(path),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full(path),
            _ => Self::Io { doing, path, source: Arc::new(source) },
        }
    }

    /// A row that cannot be read.
    #[must_use]
    pub fn corrupt(path: &Path, what: impl std::fmt::Display) -> Self {
        Self::Corrupt { path: path.to_owned(), what: what.to_string() }
    }
}
