//! What MCIAS decides, as plain functions: no socket, no SQL, no clock.

pub mod password;
pub mod policy;
pub mod recovery;
pub mod steady;
pub mod throttle;
pub mod token;
pub mod totp;

pub use mcdsl::identity::{Account, AccountType, InvalidName, Name, Role, Roles, ServiceContext};
