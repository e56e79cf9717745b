//! The audit log of a service: messages, client and operations.

mod generated;

pub use generated::*;

/// Who may call each rpc, how REST reaches it, and what the audit log calls it.
pub mod operations {
    use crate::operation::{Body, Kind, Method, Need, Operation, Parameter, Rest};

    include!(concat!(env!("OUT_DIR"), "/audit.operations.rs"));
}

include!(concat!(env!("OUT_DIR"), "/audit.macro.rs"));

/// The services' descriptors, for reflection: an encoded `FileDescriptorSet`.
pub const DESCRIPTORS: &[u8] = tonic::include_file_descriptor_set!("audit");

/// The messages as OpenAPI schemas: a JSON object.
pub const SCHEMAS: &str = include_str!(concat!(env!("OUT_DIR"), "/audit.schemas.json"));
