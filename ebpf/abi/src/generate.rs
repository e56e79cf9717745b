//! What the generator of frames for measurements and its loader agree on: a SYN over IPv4 in Ethernet.

/// Bytes of a frame.
pub const LENGTH: usize = 14 + 20 + 20;

/// Where its IP header's checksum is.
pub const CHECKSUM_AT: usize = 14 + 10;

/// Where its source is.
pub const SOURCE_AT: usize = 14 + 12;

/// Where its source port is.
pub const PORT_AT: usize = 14 + 20;

/// Sources that frames come from.
pub const SOURCES: usize = 65_536;
