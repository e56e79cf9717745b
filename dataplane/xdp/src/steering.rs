//! Gives connections to listeners whatever address they come to: an sk_lookup program of this network namespace.
//!
//! It ends with this process. A process that takes over attaches its own before that: either chooses among the same
//! sockets.

use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, AsRawFd, BorrowedFd};

use aya::maps::{Array, ArrayOfMaps, MapData, MapError, SockMap};
use aya::programs::{ProgramError, SkLookup};
use aya::{Ebpf, EbpfLoader};
use ipnet::IpNet;
use mc_core::rate::source;
use mc_ebpf_abi::bucket::Source;
use mc_ebpf_abi::policy::Line;
use mc_ebpf_abi::steer::{RULES, Rule};

use crate::firewall::{LoadError, map, not_loaded, refused};

/// The program, loaded and attached.
pub struct Steering {
    /// Holds the program and its link.
    _ebpf: Ebpf,
    rules: ArrayOfMaps<MapData, Array<MapData, Line>>,
    sockets: SockMap<MapData>,
    /// Where the next sockets go: as many places are for those in force.
    free: u16,
}

/// Addresses and ports whose connections a socket gets.
#[derive(Clone, Copy, Debug)]
pub struct Steer<'a> {
    /// Which addresses.
    pub network: IpNet,
    /// The first port.
    pub first: u16,
    /// The last.
    pub last: u16,
    /// A listening socket.
    pub socket: BorrowedFd<'a>,
}

/// Why steering cannot be had, or is not as it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum SteerError {
    /// The program.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// It cannot be attached.
    #[error("steering connections needs CAP_NET_ADMIN and CAP_BPF (or root)")]
    Attach(#[source] Box<ProgramError>),
    /// The network namespace cannot be named.
    #[error("cannot open /proc/thread-self/ns/net")]
    Namespace(#[source] io::Error),
    /// There are too many.
    #[error("{0} sets of steered addresses are more than {RULES}: name wider networks or ranges of ports")]
    TooMany(usize),
    /// The kernel refuses.
    #[error("the kernel does not take the steered addresses")]
    Kernel(#[source] Box<MapError>),
}

/// What was built; empty where it was not.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/mc-steer"));

const PROGRAM: &str = "mc_steer";

impl Steering {
    /// Loads the program and attaches it to this network namespace. Nothing is steered yet.
    ///
    /// # Errors
    /// [`SteerError`]: what is missing.
    pub fn load() -> Result<Self, SteerError> {
        if OBJECT.is_empty() {
            return Err(LoadError::NotBuilt.into());
        }
        let mut ebpf = EbpfLoader::new().load(OBJECT).map_err(refused)?;
        let program = ebpf.program_mut(PROGRAM).and_then(|program| program.try_into().ok());
        let program: &mut SkLookup = program.ok_or(LoadError::Lacks(PROGRAM))?;
        program.load().map_err(not_loaded)?;
        let namespace = File::open("/proc/thread-self/ns/net").map_err(SteerError::Namespace)?;
        program.attach(namespace).map_err(|error| SteerError::Attach(Box::new(error)))?;
        let rules = map(&mut ebpf, "STEER")?;
        let sockets = map(&mut ebpf, "SOCKETS")?;
        Ok(Self { _ebpf: ebpf, rules, sockets, free: 0 })
    }

    /// Says what is steered, all of it.
    ///
    /// # Errors
    /// There are too many, or the kernel refuses; what was said before stays in force.
    pub fn set(&mut self, wanted: &[Steer<'_>]) -> Result<(), SteerError> {
        if wanted.len() > RULES {
            return Err(SteerError::TooMany(wanted.len()));
        }
        let failed = |error: MapError| SteerError::Kernel(Box::new(error));
        let mut rules =
            Array::<_, Line>::create(u32::try_from(RULES).unwrap_or(u32::MAX), 0).map_err(failed)?;
        for (number, steer) in (0_u16..).zip(wanted) {
            // Not where those in force are.
            let socket = number + self.free;
            self.sockets.set(socket.into(), &Fd(steer.socket), 0).map_err(failed)?;
            let (address, mask) = network(steer.network);
            let rule = Rule { address, mask, first: steer.first, last: steer.last, socket };
            rules.set(number.into(), rule.to_line(), 0).map_err(failed)?;
        }
        self.rules.set(0, &rules, 0).map_err(failed)?;
        let rules = u16::try_from(RULES).unwrap_or(u16::MAX);
        self.free = rules - self.free;
        Ok(())
    }
}

/// A descriptor as aya takes it.
struct Fd<'a>(BorrowedFd<'a>);

impl AsRawFd for Fd<'_> {
    fn as_raw_fd(&self) -> i32 {
        self.0.as_fd().as_raw_fd()
    }
}

impl std::fmt::Debug for Steering {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Steering").finish_non_exhaustive()
    }
}

/// A network's address and mask; IPv4 in its mapped form.
fn network(net: IpNet) -> (Source, Source) {
    let mask = match net.netmask() {
        IpAddr::V4(mask) => Source { high: u64::MAX, low: 0xffff_ffff_0000_0000 | u64::from(mask.to_bits()) },
        IpAddr::V6(mask) => source(mask.into()),
    };
    (source(net.network()), mask)
}
