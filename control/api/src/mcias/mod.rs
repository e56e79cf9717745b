//! MCIAS's messages, which are the bodies of its REST API as well, its clients and its servers.

mod generated;
mod secrets;

pub use generated::*;
