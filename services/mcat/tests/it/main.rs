//! MCAT as it is shipped, over real sockets, beside a real MCIAS; and within this process, for every route with every caller.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod access;
mod clients;
mod ctl;
mod explain;
mod pages;
mod program;
mod site;
