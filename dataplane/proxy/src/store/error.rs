//! What can be wrong with the database or a change, each with its remedy.

use std::path::Path;

use mc_core::model::RouteKey;
use mcdsl::db::DbError;
use rusqlite::ErrorCode;

/// Why the database could not be opened, or a change not be stored. After an error nothing was stored.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database itself.
    #[error(transparent)]
    Db(#[from] DbError),
    /// A route refers to a listener that is not there, or a listener goes while routes refer to it.
    #[error(
        "a route refers to a listener that is not there: add the listener first, remove its routes first"
    )]
    Reference,
    /// The same route twice in one change.
    #[error("route {0} is there twice: keep one of the two")]
    Duplicate(RouteKey),
}

impl StoreError {
    /// What SQLite says, in words for an operator.
    pub(super) fn sqlite(path: &Path, source: rusqlite::Error) -> Self {
        match source.sqlite_error_code() {
            Some(ErrorCode::ConstraintViolation) => Self::Reference,
            _ => DbError::sqlite(path, source).into(),
        }
    }

    /// A row that cannot be read.
    pub(super) fn corrupt(path: &Path, what: impl std::fmt::Display) -> Self {
        DbError::corrupt(path, what).into()
    }
}
