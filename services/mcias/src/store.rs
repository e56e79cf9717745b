//! What MCIAS keeps: SQL and rows, and nothing else.
//!
//! Each function takes a connection: the writer's savepoint, or a reader's view. What may be, and who may do it, is decided
//! elsewhere; what must never be, whoever decides (a system account with roles, an audit entry that is changed), the schema
//! refuses as well.

pub mod accounts;
pub mod factors;
pub mod keys;
pub mod policy;
pub mod tokens;

use mcdsl::db::Schema;

/// Whose database it is, and how it becomes what this program writes.
pub const SCHEMA: Schema = Schema {
    application_id: 0x6d63_6961, // "mcia"
    migrations: &[include_str!("store/1.sql"), include_str!("store/2.sql"), include_str!("store/3.sql")],
};
