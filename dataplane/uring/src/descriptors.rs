//! Descriptors that connections never get, so that operators find one when clients have taken all others.
//!
//! The kernel gives the lowest number that is free: a descriptor with a high number says that nearly all are in use. The
//! bound is the process's, as the limit of descriptors is.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};

static BOUND: AtomicI32 = AtomicI32::new(i32::MAX);

/// From now on, no connection and no pipe gets a descriptor of this number or a higher one.
pub fn keep_from(number: u32) {
    BOUND.store(i32::try_from(number).unwrap_or(i32::MAX), Ordering::Relaxed);
}

/// Gives a new descriptor on, unless it is one of those that are kept.
///
/// # Errors
/// `EMFILE`, as if there were no other.
pub(crate) fn within(fd: OwnedFd) -> io::Result<OwnedFd> {
    if fd.as_raw_fd() < BOUND.load(Ordering::Relaxed) { Ok(fd) } else { Err(rustix::io::Errno::MFILE.into()) }
}
