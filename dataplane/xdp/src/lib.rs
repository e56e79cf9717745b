//! Loads, attaches and programs what of MC-Proxy runs in the kernel: the fence around eBPF.
//!
//! What is decided there is `mc_ebpf_abi`'s, and what its tables say is `mc_core::firewall::tables`'; here are the
//! system calls. Everything blocks for moments, and nothing here is for a worker.
//!
//! Left out: when what is attached or changed, which is the caller's to say.

mod firewall;
pub mod generate;
mod generation;
mod interfaces;
mod steering;
mod sys;

pub use firewall::{
    Ask, AttachError, Attached, Firewall, LoadError, MapUse, Mode, PolicyError, Run, Samples, Where, clean,
};
pub use interfaces::{Interface, interfaces};
pub use steering::{Steer, SteerError, Steering};
