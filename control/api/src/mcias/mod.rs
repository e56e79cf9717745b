//! MCIAS's messages, which are the bodies of its REST API as well, its clients and its servers.

pub mod client;
mod generated;
mod secrets;

pub use generated::*;

/// What the services say of themselves: an encoded `FileDescriptorSet`, for reflection.
pub const DESCRIPTORS: &[u8] = tonic::include_file_descriptor_set!("mcias");
