//! MC-Proxy's administration: the generated messages, client and server (`proto/mcproxy.proto`).

#![allow(
    missing_debug_implementations,
    unused_qualifications,
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::unwrap_used,
    reason = "generated"
)]

pub mod convert;

tonic::include_proto!("metacircular.mcproxy.v1");
