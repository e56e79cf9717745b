//! What MCIAS decides, as plain functions: no socket, no SQL, no clock.

mod account;
pub mod policy;

pub use account::{Account, Name, Role, Roles};

/// A value that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct Invalid {
    /// Its path in the request or file: `rules[2].services[0]`.
    pub field: String,
    /// What is wrong and what to write instead.
    pub problem: String,
}

impl Invalid {
    fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { field: field.into(), problem: problem.into() }
    }
}
