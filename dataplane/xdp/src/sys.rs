//! System calls of bpf(2) that aya does not make.

#![expect(unsafe_code, reason = "system calls")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `BPF_MAP_DELETE_ELEM` of `enum bpf_cmd`.
const MAP_DELETE_ELEM: libc::c_int = 3;

/// The part of `union bpf_attr` that commands on an element take.
#[repr(C)]
struct Element {
    map: u32,
    reserved: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// Empties a place of an array of maps; the map that was there is freed when nobody else has it.
pub(crate) fn empty(map: BorrowedFd<'_>, index: u32) -> io::Result<()> {
    let element = Element {
        map: u32::try_from(map.as_raw_fd()).unwrap_or(u32::MAX),
        reserved: 0,
        key: std::ptr::from_ref(&index) as u64,
        value: 0,
        flags: 0,
    };
    // SAFETY: the command reads as much as it is told, which lives until it returns.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, MAP_DELETE_ELEM, &raw const element, size_of::<Element>()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
