//! What user space and the programs share.

use core::cell::UnsafeCell;
use core::intrinsics::AtomicOrdering::SeqCst;
use core::intrinsics::{atomic_cxchg, atomic_xadd};

use aya_ebpf::btf_maps::{Array, ArrayOfMaps, LpmTrie, LruHashMap, PerCpuArray, RingBuf};
use aya_ebpf::macros::btf_map;
use mc_ebpf_abi::bucket::{SETS, SharedSet, Word};
use mc_ebpf_abi::policy::{Control, Count, Line, Lines, REASONS, ROOT_LINES, Sample, TABLE_LINES, Trusted};

use crate::facts::Facts;

/// `BPF_F_MMAPABLE`: user space writes it in place.
const MMAPABLE: usize = 1 << 10;

/// `BPF_F_NO_PREALLOC`.
const NO_PREALLOC: usize = 1;

/// The root of a generation; see [`mc_ebpf_abi::policy`].
pub(crate) type Root = Array<Line, ROOT_LINES>;

/// The tables of a generation.
pub(crate) type Tables = Array<Line, TABLE_LINES, MMAPABLE>;

/// Prefixes of IPv6 longer than 48 bits, and their classes.
pub(crate) type Longest = LpmTrie<[u8; 16], u32, 1_000_000, NO_PREALLOC>;

/// Peers that may speak for others.
pub(crate) type Peers = LpmTrie<Trusted, u32, 65536, NO_PREALLOC>;

/// The generation in force, or none: then everything passes.
#[btf_map]
pub(crate) static ROOT: ArrayOfMaps<Root, 1> = ArrayOfMaps::new();

/// The tables of the generation in force, and room for those of the next; so with the two below.
#[btf_map]
pub(crate) static TABLES: ArrayOfMaps<Tables, 2> = ArrayOfMaps::new();

#[btf_map]
pub(crate) static LONGEST: ArrayOfMaps<Longest, 2> = ArrayOfMaps::new();

#[btf_map]
pub(crate) static TRUSTED: ArrayOfMaps<Peers, 2> = ArrayOfMaps::new();

/// How fast sources open connections.
#[btf_map]
pub(crate) static BUCKETS: Array<SharedSet<KernelWord>, SETS> = Array::new();

/// What became of frames, by the number of the reason.
#[btf_map]
pub(crate) static COUNTS: PerCpuArray<Count, REASONS> = PerCpuArray::new();

/// What this CPU has read of the frame that it looks at.
#[btf_map]
pub(crate) static FACTS: PerCpuArray<Facts, 1> = PerCpuArray::new();

/// Headers that this CPU works on.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Scratch {
    /// Of IPv4 or IPv6.
    pub(crate) ip: [u32; 10],
    pub(crate) tcp: [u32; 15],
    /// Addresses and ports, as a socket is looked for.
    pub(crate) tuple: [u32; 9],
    pub(crate) macs: [u32; 3],
    pub(crate) reserved: u32,
}

#[btf_map]
pub(crate) static SCRATCH: PerCpuArray<Scratch, 1> = PerCpuArray::new();

/// When the kernel last noted that a listener is in need of cookies, in nanoseconds: by address and port.
#[btf_map]
pub(crate) static MARKS: LruHashMap<[u64; 3], u64, 4096> = LruHashMap::new();

/// When this CPU last gave a sample, in nanoseconds.
#[btf_map]
pub(crate) static SAMPLED: PerCpuArray<u64, 1> = PerCpuArray::new();

/// Some of the dropped packets.
#[btf_map]
pub(crate) static SAMPLES: RingBuf<Sample, 262144> = RingBuf::new();

/// What user space says meanwhile.
#[btf_map]
pub(crate) static CONTROL: Array<Control, 1> = Array::new();

/// 64 bits of a map that other CPUs change too.
#[repr(transparent)]
pub(crate) struct KernelWord(UnsafeCell<u64>);

// SAFETY: it is only reached by the atomic instructions below.
unsafe impl Sync for KernelWord {}

impl Word for KernelWord {
    #[inline(always)]
    fn load(&self) -> u64 {
        // SAFETY: a load of 64 bits is one instruction, and the place is aligned in its map; so below.
        unsafe { self.0.get().read_volatile() }
    }

    #[inline(always)]
    fn exchange(&self, from: u64, to: u64) -> bool {
        // SAFETY: see above.
        let (_, was) = unsafe { atomic_cxchg::<u64, { SeqCst }, { SeqCst }>(self.0.get(), from, to) };
        was
    }

    #[inline(always)]
    fn store(&self, to: u64) {
        // SAFETY: see above.
        unsafe { self.0.get().write_volatile(to) };
    }

    #[inline(always)]
    fn add(&self, what: u64) {
        // SAFETY: see above.
        unsafe { atomic_xadd::<u64, u64, { SeqCst }>(self.0.get(), what) };
    }
}

/// Tables or a root that were looked up.
pub(crate) struct Looked<'a, const LINES: usize, const FLAGS: usize>(
    pub(crate) &'a Array<Line, LINES, FLAGS>,
);

impl<const LINES: usize, const FLAGS: usize> Lines for Looked<'_, LINES, FLAGS> {
    #[inline(always)]
    fn line(&self, index: u32) -> Option<&Line> {
        self.0.get(index)
    }
}
