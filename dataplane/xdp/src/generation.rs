//! The tables of a generation: an array in the kernel that is filled in place before anybody reads it.

#![expect(unsafe_code, reason = "memory that the kernel shares")]

use std::os::fd::AsFd as _;

use aya::maps::{MapData, MapError};
use aya_obj::generated::bpf_map_type::BPF_MAP_TYPE_ARRAY;
use mc_ebpf_abi::policy::Line;
use rustix::mm::{MapFlags, ProtFlags};

/// `BPF_F_MMAPABLE`, as the outer map's template has it.
const FLAGS: u32 = 1 << 10;

/// Makes an array of these lines.
pub(crate) fn make(lines: &[Line]) -> Result<MapData, MapError> {
    let count = u32::try_from(lines.len()).unwrap_or(u32::MAX);
    let array = aya_obj::Map::new_from_params(BPF_MAP_TYPE_ARRAY as u32, 4, 64, count, FLAGS);
    let array = MapData::create(array, "mc_tables", None)?;
    // A line at a time would be a system call for each.
    copy(&array, lines).map_err(|error| MapError::IoError(error.into()))?;
    Ok(array)
}

fn copy(array: &MapData, lines: &[Line]) -> rustix::io::Result<()> {
    let len = size_of_val(lines);
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new mapping anywhere, of an array that has as many lines and allows to be mapped.
    let start = unsafe {
        rustix::mm::mmap(std::ptr::null_mut(), len, protection, MapFlags::SHARED, array.fd().as_fd(), 0)
    }?;
    // SAFETY: the mapping is `len` bytes long, as `lines` is, aligned to a page, and nobody else's.
    unsafe { std::ptr::copy_nonoverlapping(lines.as_ptr(), start.cast::<Line>(), lines.len()) };
    // SAFETY: the mapping made above, to which nothing refers any more.
    unsafe { rustix::mm::munmap(start, len) }
}
