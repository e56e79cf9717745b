//! What of MC-Proxy runs in the kernel: the firewall at the network card.
//!
//! The rules themselves (how a frame is read, in which order verdicts come, how tokens are taken, how tables are
//! looked up) are [`mc_ebpf_abi`]'s, the same code as in user space. Here are the maps, and what only the kernel can.
#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![allow(internal_features, reason = "atomic exchanges: `core` has no such methods for this target")]

mod cookies;
mod facts;
mod firewall;
mod maps;
mod rim;
mod wire;
