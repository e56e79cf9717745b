//! The access log: one line for each connection that has ended, whatever became of it.
//!
//! A worker formats lines into a buffer of its own, which costs it no allocation and no system call, and hands
//! full buffers to one thread that writes them. Where the disk is slower than the lines come, buffers are
//! dropped and counted, and the log says how many: the data path never waits.
//!
//! A line is a JSON object or `key=value` text. What clients chose (names, protocols) is escaped to printable
//! ASCII, so that no line can be forged and no terminal be steered. Keys without a value are left out.

mod format;
mod sink;

use std::net::SocketAddr;

use mc_core::outcome::Outcome;

pub use sink::{LogError, LogSink, Target};

/// A connection that has ended.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Unique in this process; in the log as [`id_text`].
    pub id: u64,
    /// When it ended, in milliseconds since 1970.
    pub unix_ms: u64,
    /// The true client.
    pub client: SocketAddr,
    /// Who connected to us; left out where it is the client.
    pub peer: SocketAddr,
    /// The listener's name.
    pub listener: &'a str,
    /// The name that the client asked for, as it came; empty where it did not.
    pub name: &'a str,
    /// The first protocol that the client offered, as it came; empty where it did not.
    pub alpn: &'a [u8],
    /// The route's name; empty where none was found.
    pub route: &'a str,
    /// Where it went; none where it went nowhere.
    pub backend: Option<SocketAddr>,
    /// How it ended.
    pub outcome: Outcome,
    /// What was wrong, where the outcome does not say it all; else empty.
    pub detail: &'a str,
    /// Bytes from the client.
    pub bytes_in: u64,
    /// Bytes to the client.
    pub bytes_out: u64,
    /// From accept to a complete ClientHello, in microseconds; 0 where none came.
    pub hello_us: u64,
    /// From the route's choice to a connected backend, in microseconds; 0 where none was.
    pub connect_us: u64,
    /// From accept to the end, in microseconds.
    pub duration_us: u64,
}

/// How a line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// A JSON object.
    #[default]
    Json,
    /// Time and outcome, then `key=value`.
    Text,
}

/// A connection's id as the log has it: 16 hexadecimal digits, the first four of which are the worker.
#[must_use]
pub fn id_text(id: u64) -> String {
    format!("{id:016x}")
}
