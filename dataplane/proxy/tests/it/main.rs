//! MC-Proxy as shipped, over real sockets: what it promises, one file for each theme.
//!
//! One program, so that themes run beside each other and are linked once. Tests that lay out several hosts
//! are in `ns_chain.rs`.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod admin;
mod backend_tls;
mod backends;
mod browser;
mod certificates;
mod checks;
mod client_auth;
mod common;
mod connections;
mod durability;
mod edge_and_origin;
mod firewall;
mod grpc;
mod handover;
mod hold;
mod hold_moves;
mod http1;
mod http1_conformance;
mod http2;
mod http2_conformance;
mod http2_floods;
mod http2_smuggling;
mod lifecycle;
mod limits;
mod listeners;
mod logs;
mod mcproxyctl;
mod names;
mod owner;
mod policy;
mod proxy_protocol;
mod reference;
mod refusals;
mod relay;
mod restarts;
mod samples;
mod slow;
mod tap;
mod testssl;
mod tls_records;
mod upgrade;
mod volume;
