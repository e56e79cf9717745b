//! MCIAS as it is shipped, over real sockets; and within this process, where a test sets the clock.
#![allow(clippy::unwrap_used, reason = "helpers of tests, too, panic where they are wrong")]

mod accounts;
mod clients;
mod clocks;
mod ctl;
mod faults;
mod input;
mod local;
mod pages;
mod revocation;
mod roles;
