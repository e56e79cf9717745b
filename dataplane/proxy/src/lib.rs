//! MC-Proxy: SNI router, firewall and reverse proxy.
//!
//! Workers (one io_uring runtime per core) move connections by the current [`snapshot::Snapshot`]; the admin
//! side (one tokio runtime on its own thread) changes it. Neither waits for the other.

pub mod access_log;
pub mod admin;
pub mod budgets;
pub mod clock;
pub mod config;
pub mod connections;
pub mod geoip;
pub mod handover;
pub mod health;
pub mod kernel;
pub mod memory;
pub mod metrics;
pub mod old_process;
mod private_socket;
pub mod process;
pub mod snapshot;
pub mod stats;
pub mod store;
pub mod tls;
pub mod upgrade;
mod worker;
pub mod workers;
