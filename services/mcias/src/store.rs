//! MCIAS's storage: SQL and rows, and nothing else.
//!
//! Each function takes a connection: the writer's savepoint, or a reader's view. What is allowed is decided elsewhere;
//! what must never happen (a system account with roles, a changed audit entry) the schema refuses as well.

pub mod accounts;
pub mod factors;
pub mod keys;
pub mod logins;
pub mod site;
pub mod tokens;

use mcdsl::db::Schema;

/// The application id and the migrations of MCIAS's database.
pub const SCHEMA: Schema = Schema {
    application_id: 0x6d63_6961, // "mcia"
    migrations: &[
        include_str!("store/1.sql"),
        include_str!("store/2.sql"),
        include_str!("store/3.sql"),
        include_str!("store/4.sql"),
    ],
};

#[cfg(test)]
mod tests;
