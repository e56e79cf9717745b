//! MC-Proxy's administration: messages, client and server, and how they become the model.

pub mod client;
pub mod convert;
mod generated;

pub use generated::*;
