//! What MCIAS decides, as plain functions: no socket, no SQL, no clock.

pub mod clock_stability;
pub mod device;
pub mod failure_log;
pub mod password;
pub mod policy;
pub mod queue;
pub mod recovery;
pub mod throttle;
pub mod token;
pub mod totp;

pub use mcdsl::identity::{Account, AccountType, InvalidName, Name, Role, Roles, ServiceContext};
