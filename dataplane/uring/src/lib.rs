//! The io_uring event loop of the stream path, and all of its unsafe code.
//!
//! The ring says when a socket is ready; bytes move by direct non-blocking calls (`recv`, `send`,
//! `splice`) into one buffer per worker. A connection that waits therefore holds no buffer: two poll
//! operations in the ring are all that it costs. `docs/decisions/0002` has the figures behind this.

#![expect(unsafe_code, reason = "this crate is the fence: it turns descriptors into the ring's own handles")]

pub mod deadlines;
pub mod descriptors;
pub mod ktls;
pub mod listen;
pub mod mailbox;
pub mod pipe;
mod plain;
pub mod relay;
pub mod runtime;
mod shared;
pub mod socket;
pub mod tls;

pub use deadlines::Deadlines;
pub use plain::Plain;
pub use shared::{Failure, Shared};
pub use socket::Socket;
pub use tls::Tls;
