//! Every gRPC service of the platform: messages, clients and operations, one module per service.

pub mod audit;
pub mod client;
pub mod mcat;
pub mod mcias;
pub mod mcproxy;
pub mod operation;
pub mod policy;
pub mod token;
