//! Every gRPC service of the platform: messages, clients and servers, one module per service.

pub mod mcias;
pub mod mcproxy;
pub mod token;
