//! The policy of a service: messages, client and operations.

mod generated;

pub use generated::*;

/// Who may call each rpc, how REST reaches it, and what the audit log calls it.
pub mod operations {
    use crate::operation::{Body, Kind, Method, Need, Operation, Parameter, Rest};

    include!(concat!(env!("OUT_DIR"), "/policy.operations.rs"));
}

include!(concat!(env!("OUT_DIR"), "/policy.macro.rs"));

/// The services' descriptors, for reflection: an encoded `FileDescriptorSet`.
pub const DESCRIPTORS: &[u8] = tonic::include_file_descriptor_set!("policy");

/// The messages as OpenAPI schemas: a JSON object.
pub const SCHEMAS: &str = include_str!(concat!(env!("OUT_DIR"), "/policy.schemas.json"));
