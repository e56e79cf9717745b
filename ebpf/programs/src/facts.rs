//! What is read of a frame before it is judged.

use mc_ebpf_abi::bucket::Source;

/// What a frame says, as far as it matters. It lies in a map between being read and being judged.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Facts {
    pub(crate) source: Source,
    pub(crate) destination: Source,
    pub(crate) source_port: u16,
    /// 0 where it could not be read: then what is looked for is a listener at this address, whatever its port.
    pub(crate) destination_port: u16,
    pub(crate) kind: u32,
    /// Where the headers of IP and TCP start.
    pub(crate) network_at: u16,
    pub(crate) tcp_at: u16,
    pub(crate) reserved: u32,
}
