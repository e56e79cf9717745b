//! Generated from `proto/mcat.proto`. Its lints are its generator's business.

#![allow(
    missing_debug_implementations,
    unused_qualifications,
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::use_self,
    reason = "generated"
)]

tonic::include_proto!("metacircular.mcat.v1");

include!(concat!(env!("OUT_DIR"), "/mcat.redacted.rs"));
