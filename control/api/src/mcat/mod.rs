//! MCAT's messages, which are also the bodies of its REST API, its clients and its operations.

mod generated;

pub use generated::*;

/// Who may call each rpc, how REST reaches it, and what the audit log calls it.
pub mod operations {
    use crate::operation::{Body, Method, Need, Operation, Rest};

    include!(concat!(env!("OUT_DIR"), "/mcat.operations.rs"));
}

include!(concat!(env!("OUT_DIR"), "/mcat.macro.rs"));

/// The services' descriptors, for reflection: an encoded `FileDescriptorSet`.
pub const DESCRIPTORS: &[u8] = tonic::include_file_descriptor_set!("mcat");

/// The messages as OpenAPI schemas: a JSON object.
pub const SCHEMAS: &str = include_str!(concat!(env!("OUT_DIR"), "/mcat.schemas.json"));
