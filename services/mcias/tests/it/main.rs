//! MCIAS as it is shipped, over real sockets; and within this process, where a test sets the clock.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod access;
mod accounts;
mod auth;
mod clients;
mod clocks;
mod ctl;
mod faults;
mod flood;
mod input;
mod local;
mod login_tests;
mod pages;
mod program;
mod protection;
mod revocation;
mod roles;
