//! For measurements: frames as fast as the machine can make them, each from another source, and a place where they end.
//!
//! No part of MC-Proxy: `mc-bench flood` runs it (`BPF_PROG_TEST_RUN` with live frames), in namespaces of its own.
#![no_std]
#![no_main]

use core::ptr::read_volatile;

use aya_ebpf::bindings::xdp_action::{XDP_ABORTED, XDP_DROP};
use aya_ebpf::btf_maps::Array;
use aya_ebpf::helpers::generated::{bpf_get_prandom_u32, bpf_redirect};
use aya_ebpf::macros::{btf_map, xdp};
use aya_ebpf::programs::XdpContext;
use mc_ebpf_abi::generate::{CHECKSUM_AT, LENGTH, PORT_AT, SOURCE_AT, SOURCES};

mod rim;

/// The interface that frames go out of; 0: nowhere.
#[unsafe(no_mangle)]
static TARGET: u32 = 0;

/// The sum of the header's other words, from which its checksum follows.
#[unsafe(no_mangle)]
static SUM: u32 = 0;

/// Where frames come from.
#[btf_map]
static FROM: Array<u32, SOURCES> = Array::new();

/// Gives the frame another source and port, and sends it.
#[xdp]
pub fn mc_generate(context: XdpContext) -> u32 {
    // SAFETY: draws a number.
    let random = unsafe { bpf_get_prandom_u32() };
    let Some(source) = FROM.get(random % SOURCES as u32) else { return XDP_ABORTED };
    let source = *source;
    let start = context.data();
    if start + LENGTH > context.data_end() {
        return XDP_ABORTED;
    }
    // SAFETY: the loader may have set it, so it is read as it is.
    let sum = unsafe { read_volatile(&raw const SUM) } + (source >> 16) + (source & 0xffff);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    // SAFETY: the frame is as long, as was just seen.
    unsafe {
        ((start + SOURCE_AT) as *mut u32).write_unaligned(source.to_be());
        ((start + CHECKSUM_AT) as *mut u16).write_unaligned((!(sum as u16)).to_be());
        ((start + PORT_AT) as *mut u16).write_unaligned((random >> 16) as u16);
    }
    // SAFETY: as above.
    match unsafe { read_volatile(&raw const TARGET) } {
        0 => XDP_DROP,
        // SAFETY: the kernel looks for the interface.
        target => unsafe { bpf_redirect(target, 0) as u32 },
    }
}

/// Where frames end that nobody wants: what a frame costs that is not looked at.
#[xdp]
pub fn mc_sink(_context: XdpContext) -> u32 {
    XDP_DROP
}
