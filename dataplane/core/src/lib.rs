//! What MC-Proxy decides, as plain functions and state machines.
//!
//! No socket, no clock, no SQL, no async: bytes and times come in as values, decisions go out as values.
//! That makes fuzzing, property tests and simulation cheap, and keeps the shell that does the I/O thin.

pub mod backend;
pub mod balance;
pub mod certificate;
pub mod client_hello;
pub mod content_coding;
pub mod firewall;
pub mod flood;
pub mod hold;
pub mod hostname;
pub mod http1;
pub mod limits;
pub mod model;
pub mod outcome;
pub mod policy;
pub mod proxy_protocol;
pub mod rate;
mod read;
pub mod redact;
pub mod refusal;
pub mod relay;
pub mod table;
pub mod validate;
