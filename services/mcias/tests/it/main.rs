//! MCIAS as it is shipped, over real sockets; and within this process, where a test sets the clock.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod clocks;
mod faults;
mod local;
mod revocation;
mod roles;
