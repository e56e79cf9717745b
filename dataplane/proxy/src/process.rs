//! Which process this is: a number drawn at its start, which its connection ids, its request ids and its log lines begin with.
//!
//! Two processes count their connections side by side after a handover, and so do an edge and the proxy behind it: what one of
//! them calls a connection, no other one does. A process id of the system would not do, since it says nothing on another machine.
//!
//! A connection's id has 64 bits: 24 of its process, then 40 that count. They last for a million million connections; then
//! the count starts again at 0. A worker counts in steps of the number of workers, so that nothing is shared between them.

use std::cell::Cell;
use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::OnceLock;

/// Bits of an id that count.
const COUNTED: u32 = 40;

/// Bits of an id that name the process.
const NAMED: u32 = u64::BITS - COUNTED;

/// A running mc-proxy: six hexadecimal digits, with which its ids begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProcessId(u32);

/// Hands out a worker's connection ids.
#[derive(Debug)]
pub struct ConnectionIds {
    process: ProcessId,
    /// How many workers count.
    step: u64,
    next: Cell<u64>,
}

impl ProcessId {
    /// This process.
    #[must_use]
    pub fn current() -> Self {
        static CURRENT: OnceLock<ProcessId> = OnceLock::new();
        // The standard library seeds its hash tables with random bytes of the system.
        *CURRENT.get_or_init(|| Self::of(RandomState::new().hash_one(std::process::id())))
    }

    /// The process that handed out this connection's id.
    #[must_use]
    pub fn of(connection: u64) -> Self {
        Self(u32::try_from(connection >> COUNTED).expect("24 bits are left"))
    }
}

impl fmt::Display for ProcessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:0width$x}", self.0, width = NAMED as usize / 4)
    }
}

impl ConnectionIds {
    /// Those of a worker, of so many workers of a process.
    #[must_use]
    pub fn new(process: ProcessId, worker: u16, workers: u16) -> Self {
        Self { process, step: u64::from(workers.max(1)), next: Cell::new(u64::from(worker) + 1) }
    }

    /// The next id.
    pub fn next(&self) -> u64 {
        let number = self.next.get();
        self.next.set(number.wrapping_add(self.step));
        (u64::from(self.process.0) << COUNTED) | (number & ((1 << COUNTED) - 1))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ids_begin_with_their_process_and_no_two_workers_share_one() {
        let process = ProcessId(0x00f_1a3);
        let mut seen = BTreeSet::new();
        for worker in 0..3 {
            let ids = ConnectionIds::new(process, worker, 3);
            for _ in 0..1000 {
                let id = ids.next();
                assert_eq!(ProcessId::of(id), process);
                assert!(crate::access_log::id_text(id).starts_with(&process.to_string()));
                assert!(seen.insert(id), "{id:x} was handed out twice");
            }
        }
        assert_eq!(process.to_string(), "00f1a3");
    }

    #[test]
    fn a_count_that_overflows_starts_at_0_and_keeps_the_process() {
        let ids = ConnectionIds::new(ProcessId(0xff_ffff), 0, 1);
        ids.next.set((1 << COUNTED) - 1);
        assert_eq!([ids.next(), ids.next()], [u64::MAX, 0xffff_ff00_0000_0000]);
    }

    #[test]
    fn a_process_keeps_its_id() {
        assert_eq!(ProcessId::current(), ProcessId::current());
    }
}
