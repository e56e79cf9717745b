//! The firewall in the kernel: its program and its maps.

use std::collections::HashMap as Map;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use aya::maps::lpm_trie::Key;
use aya::maps::{Array, ArrayOfMaps, LpmTrie, MapData, MapError, PerCpuArray, RingBuf};
use aya::programs::xdp::XdpLinkId;
use aya::programs::{ProgramError, TestRun as _, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfError, EbpfLoader};
use ipnet::IpNet;
use mc_core::firewall::tables::{LongPrefix, Tables};
use mc_core::rate::source;
use mc_ebpf_abi::policy::{
    Count, Endpoint, Header, LISTENER_PROBES, LISTENERS, Line, NO_TABLES, Place, REASONS, ROOT_LINES, Sample,
};

use crate::{generation, sys};

mod attach;

pub use attach::{Ask, AttachError, Attached, Mode, clean};

/// The firewall's program, loaded.
pub struct Firewall {
    ebpf: Ebpf,
    root: Places<Array<MapData, Line>>,
    tables: Places<MapData>,
    longest: Places<LpmTrie<MapData, [u8; 16], u32>>,
    trusted: Places<LpmTrie<MapData, [u8; 20], u32>>,
    counts: PerCpuArray<MapData, [u64; 2]>,
    control: Array<MapData, [u32; 2]>,
    /// The generation in force, as far as it was said.
    header: Header,
    places: Vec<Line>,
    /// Where the next tables and the next peers go: not where those in force are.
    free_tables: u32,
    free_trusted: u32,
    /// Nothing is in force: [`Self::stand_aside`].
    aside: bool,
    links: Map<String, XdpLinkId>,
}

/// An array of maps, each of which can be taken out again.
struct Places<V> {
    maps: ArrayOfMaps<MapData, V>,
    /// The same, for what aya has no call for.
    fd: OwnedFd,
}

/// Dropped packets, as the kernel tells of them.
pub struct Samples(RingBuf<MapData>);

/// Where a listener is to be found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Where {
    /// Address and port; an unspecified address is nowhere.
    pub address: SocketAddr,
    /// Peers that may speak for others, where it takes the PROXY protocol.
    pub trusted: Vec<IpNet>,
}

/// What the program said of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Whether the frame passed.
    pub passed: bool,
    /// What the program returned: an XDP action.
    pub action: u32,
    /// The frame afterwards.
    pub frame: Vec<u8>,
    /// Time of one run.
    pub duration: Duration,
}

/// Why the program cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It was not built.
    #[error("this mc-proxy was built without eBPF (`cargo xtask ebpf`)")]
    NotBuilt,
    /// Not permitted.
    #[error("loading eBPF needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON (or root)")]
    NotPermitted(#[source] Box<EbpfError>),
    /// The kernel does not take it.
    #[error("this kernel does not take the firewall's program or maps (Linux 6.1 or newer is needed)")]
    Kernel(#[source] Box<EbpfError>),
    /// The kernel's verifier does not take it.
    #[error("this kernel's verifier refuses the firewall's program (Linux 6.1 or newer is needed): {0}")]
    Verifier(String),
    /// No descriptor is left.
    #[error("no descriptor is left for the firewall's maps: raise the limit of open files")]
    NoDescriptor(#[source] io::Error),
    /// The object has no such part: it is of another version.
    #[error("the eBPF object has no {0}: build it anew with `cargo xtask ebpf`")]
    Lacks(&'static str),
}

/// Why a generation is not in force. The one before is.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// Too many listeners, or by ill luck too many that belong in the same places.
    #[error("the kernel's half has no room for {0} listeners: it has {LISTENERS} places")]
    TooMany(usize),
    /// The kernel refuses.
    #[error("the kernel does not take the {what}")]
    Kernel {
        /// Which part.
        what: &'static str,
        /// Why: no memory, most likely.
        #[source]
        source: MapError,
    },
}

/// Why a map could not be changed or read.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the kernel's map of {what}")]
pub struct MapUse {
    what: &'static str,
    #[source]
    source: MapError,
}

/// What was built; empty where it was not.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/mc-ebpf"));

const PROGRAM: &str = "mc_firewall";

/// `BPF_F_NO_PREALLOC`.
const NO_PREALLOC: u32 = 1;

/// Prefixes of IPv6 longer than 48 bits, at most.
const LONGEST: u32 = 1_000_000;

/// Networks of trusted peers, at most.
const PEERS: u32 = 65_536;

impl Firewall {
    /// Loads the program and makes its maps. Nothing is attached, and everything would pass. `seed` is random and secret.
    ///
    /// # Errors
    /// [`LoadError`]: what is missing.
    pub fn load(seed: u64) -> Result<Self, LoadError> {
        Self::load_with(seed, false)
    }

    /// As [`Self::load`], to be measured: the program takes each packet for one from another source.
    ///
    /// # Errors
    /// As there.
    pub fn load_to_measure(seed: u64) -> Result<Self, LoadError> {
        Self::load_with(seed, true)
    }

    fn load_with(seed: u64, measure: bool) -> Result<Self, LoadError> {
        if OBJECT.is_empty() {
            return Err(LoadError::NotBuilt);
        }
        let measure = u32::from(measure);
        let mut ebpf =
            EbpfLoader::new().override_global("MEASURE", &measure, true).load(OBJECT).map_err(refused)?;
        program(&mut ebpf)?.load().map_err(not_loaded)?;
        Ok(Self {
            root: Places::take(&mut ebpf, "ROOT")?,
            tables: Places::take(&mut ebpf, "TABLES")?,
            longest: Places::take(&mut ebpf, "LONGEST")?,
            trusted: Places::take(&mut ebpf, "TRUSTED")?,
            counts: map(&mut ebpf, "COUNTS")?,
            control: map(&mut ebpf, "CONTROL")?,
            ebpf,
            header: Header { seed, tables: NO_TABLES, ..Header::default() },
            places: vec![Line::default(); ROOT_LINES - 1],
            free_tables: 0,
            free_trusted: 0,
            aside: false,
            links: Map::new(),
        })
    }

    /// How many instructions the verifier went through, which is bounded by a million.
    ///
    /// # Errors
    /// The kernel does not say (before Linux 5.16).
    pub fn instructions(&self) -> io::Result<u32> {
        let info = self.program().info().map_err(io::Error::other)?;
        info.verified_instruction_count().ok_or_else(|| io::Error::from(io::ErrorKind::Unsupported))
    }

    /// Puts a policy into force: built aside, then swapped by one write, so that no packet is judged by two.
    ///
    /// # Errors
    /// No memory, most likely. The policy before stays in force.
    pub fn set_policy(&mut self, tables: &Tables) -> Result<(), PolicyError> {
        let free = self.free_tables;
        let mut header = Header { tables: NO_TABLES, ..tables.header };
        (header.seed, header.trusted) = (self.header.seed, self.header.trusted);
        if !tables.lines.is_empty() {
            let failed = |source| PolicyError::Kernel { what: "policy's tables", source };
            self.longest.maps.set(free, &longest(&tables.longest).map_err(failed)?, 0).map_err(failed)?;
            self.tables
                .maps
                .set(free, &generation::make(&tables.lines).map_err(failed)?, 0)
                .map_err(failed)?;
            header.tables = free;
        }
        let before = self.header.tables;
        self.put(header, self.places.clone())?;
        self.free_tables = 1 - free;
        if before != NO_TABLES {
            // Memory only: nobody reads them any more.
            self.tables.empty(before).unwrap_or(());
            self.longest.empty(before).unwrap_or(());
        }
        Ok(())
    }

    /// Says where we listen, all of it.
    ///
    /// # Errors
    /// There is no room. What was said before stays in force.
    pub fn set_listeners(&mut self, listeners: &[Where]) -> Result<(), PolicyError> {
        let failed = |source| PolicyError::Kernel { what: "trusted peers", source };
        let mut peers = LpmTrie::create(PEERS, NO_PREALLOC).map_err(failed)?;
        let mut places = vec![Line::default(); ROOT_LINES - 1];
        for (number, listener) in (1..).zip(listeners) {
            let trusted = if listener.trusted.is_empty() { 0 } else { number };
            let address = source(listener.address.ip());
            for (port, trusted) in [(listener.address.port(), trusted), (0, 0)] {
                let place = Place { endpoint: Endpoint { address, port }, trusted };
                if !take_place(&mut places, place) {
                    return Err(PolicyError::TooMany(listeners.len()));
                }
            }
            for net in &listener.trusted {
                let (len, key) = trusted_key(number, *net);
                peers.insert(&Key::new(len, key), 0, 0).map_err(failed)?;
            }
        }
        let header = Header { trusted: self.free_trusted, ..self.header };
        self.trusted.maps.set(header.trusted, &peers, 0).map_err(failed)?;
        self.put(header, places)?;
        self.free_trusted = 1 - header.trusted;
        Ok(())
    }

    /// Lets everything pass, whatever policy and listeners are set, until [`Self::resume`].
    ///
    /// # Errors
    /// The kernel refuses, which it has no reason to.
    pub fn stand_aside(&mut self) -> io::Result<()> {
        self.aside = true;
        match self.root.empty(0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }

    /// Judges by the policy and for the listeners that were set last.
    ///
    /// # Errors
    /// No memory, most likely. It goes on standing aside.
    pub fn resume(&mut self) -> Result<(), PolicyError> {
        let (header, places) = (self.header, std::mem::take(&mut self.places));
        let published = self.publish(header, &places);
        self.places = places;
        self.aside = published.is_err();
        published
    }

    /// Makes this the generation in force, or to be. When it returns, the last packet is through that was judged by the
    /// one before.
    fn put(&mut self, header: Header, places: Vec<Line>) -> Result<(), PolicyError> {
        if !self.aside {
            self.publish(header, &places)?;
        }
        (self.header, self.places) = (header, places);
        Ok(())
    }

    fn publish(&mut self, header: Header, places: &[Line]) -> Result<(), PolicyError> {
        let failed = |source| PolicyError::Kernel { what: "policy", source };
        let lines = u32::try_from(ROOT_LINES).unwrap_or(u32::MAX);
        let mut root = Array::create(lines, 0).map_err(failed)?;
        root.set(0, header.to_line(), 0).map_err(failed)?;
        for (index, line) in (1..).zip(places) {
            if *line != Line::default() {
                root.set(index, line, 0).map_err(failed)?;
            }
        }
        self.root.maps.set(0, &root, 0).map_err(failed)
    }

    /// Sets the least time between two samples of a CPU (zero: no samples), and whether SYNs are answered with cookies.
    ///
    /// # Errors
    /// The kernel refuses, which it has no reason to.
    pub fn set_control(&mut self, cookies: bool, sample: Duration) -> Result<(), MapUse> {
        let sample_ns = u32::try_from(sample.as_nanos()).unwrap_or(u32::MAX);
        let control = [u32::from(cookies), sample_ns];
        self.control.set(0, control, 0).map_err(|source| MapUse { what: "settings", source })
    }

    /// What was counted since the program was loaded, by number of the reason.
    ///
    /// # Errors
    /// The kernel refuses, which it has no reason to.
    pub fn counts(&self) -> Result<[Count; REASONS], MapUse> {
        let mut all = [Count::default(); REASONS];
        for (index, count) in (0..).zip(&mut all) {
            let each = self.counts.get(&index, 0).map_err(|source| MapUse { what: "counters", source })?;
            for [packets, bytes] in each.iter() {
                count.packets += packets;
                count.bytes += bytes;
            }
        }
        Ok(all)
    }

    /// Dropped packets from now on. Given once.
    #[must_use]
    pub fn samples(&mut self) -> Option<Samples> {
        self.ebpf.take_map("SAMPLES").and_then(|map| RingBuf::try_from(map).ok()).map(Samples)
    }

    /// Runs the program on a frame, which goes nowhere.
    ///
    /// # Errors
    /// The kernel refuses the frame: it is shorter than an Ethernet header, or too long.
    pub fn run(&self, frame: &[u8], repeat: u32) -> io::Result<Run> {
        // Room for what the program may add.
        let mut out = vec![0; frame.len() + 256];
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        options.data_out = Some(&mut out);
        options.repeat = repeat;
        let result = self.program().test_run(options).map_err(io_error)?;
        out.truncate(result.data_size_out as usize);
        Ok(Run {
            passed: result.return_value == XDP_PASS,
            action: result.return_value,
            frame: out,
            duration: result.duration,
        })
    }

    fn program(&self) -> &Xdp {
        let program = self.ebpf.program(PROGRAM).and_then(|program| program.try_into().ok());
        program.expect("it was there when it was loaded")
    }

    fn program_mut(&mut self) -> &mut Xdp {
        program(&mut self.ebpf).unwrap_or_else(|_| unreachable!("it was there when it was loaded"))
    }
}

impl<V> Places<V>
where
    ArrayOfMaps<MapData, V>: TryFrom<aya::maps::Map, Error = MapError>,
{
    fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Self, LoadError> {
        let Some(aya::maps::Map::ArrayOfMaps(data)) = ebpf.take_map(name) else {
            return Err(LoadError::Lacks(name));
        };
        let fd = data.fd().as_fd().try_clone_to_owned().map_err(LoadError::NoDescriptor)?;
        let maps = aya::maps::Map::ArrayOfMaps(data)
            .try_into()
            .map_err(|error| LoadError::Kernel(Box::new(EbpfError::MapError(error))))?;
        Ok(Self { maps, fd })
    }

    fn empty(&self, index: u32) -> io::Result<()> {
        sys::empty(self.fd.as_fd(), index)
    }
}

impl Samples {
    /// The next, if there is one.
    pub fn take(&mut self) -> Option<Sample> {
        let item = self.0.next()?;
        let bytes: &[u8; 48] = item.as_array()?;
        Some(Sample::from_bytes(bytes))
    }
}

impl std::fmt::Debug for Firewall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Firewall").field("interfaces", &self.links.keys()).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Samples {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Samples").finish_non_exhaustive()
    }
}

const XDP_PASS: u32 = 2;

fn program(ebpf: &mut Ebpf) -> Result<&mut Xdp, LoadError> {
    let program = ebpf.program_mut(PROGRAM).and_then(|program| program.try_into().ok());
    program.ok_or(LoadError::Lacks(PROGRAM))
}

pub(crate) fn map<M: TryFrom<aya::maps::Map>>(ebpf: &mut Ebpf, name: &'static str) -> Result<M, LoadError> {
    ebpf.take_map(name).and_then(|map| map.try_into().ok()).ok_or(LoadError::Lacks(name))
}

fn longest(prefixes: &[LongPrefix]) -> Result<LpmTrie<MapData, [u8; 16], u32>, MapError> {
    let mut trie = LpmTrie::create(LONGEST, NO_PREALLOC)?;
    for LongPrefix { bits, len, class } in prefixes {
        trie.insert(&Key::new(u32::from(*len), bits.to_be_bytes()), u32::from(*class), 0)?;
    }
    Ok(trie)
}

/// A network of peers as a key: the listener's number, then the address, of IPv4 in its mapped form.
fn trusted_key(listener: u32, net: IpNet) -> (u32, [u8; 20]) {
    let (address, len) = match net.addr() {
        IpAddr::V4(v4) => (v4.to_ipv6_mapped(), u32::from(net.prefix_len()) + 96),
        IpAddr::V6(v6) => (v6, u32::from(net.prefix_len())),
    };
    let mut key = [0; 20];
    key[..4].copy_from_slice(&listener.to_be_bytes());
    key[4..].copy_from_slice(&address.octets());
    (len + 32, key)
}

/// Writes a place down where it is looked for. Whether there was room.
fn take_place(lines: &mut [Line], place: Place) -> bool {
    let words = place.to_words();
    let home = place.endpoint.home();
    for probe in 0..LISTENER_PROBES {
        let (line, at) = Endpoint::place(home, probe);
        let there = &mut lines[line as usize - 1][at..at + 4];
        // An address may have several listeners; with a port it has one.
        if there[2] == 0 || there[..3] == words[..3] {
            there.copy_from_slice(&words);
            return true;
        }
    }
    false
}

pub(crate) fn refused(error: EbpfError) -> LoadError {
    match chain_errno(&error) {
        Some(rustix::io::Errno::PERM | rustix::io::Errno::ACCESS) => LoadError::NotPermitted(Box::new(error)),
        _ => LoadError::Kernel(Box::new(error)),
    }
}

pub(crate) fn not_loaded(error: ProgramError) -> LoadError {
    match &error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            let last: Vec<&str> = log.lines().rev().take(4).collect();
            let last: Vec<&str> = last.into_iter().rev().collect();
            LoadError::Verifier(format!("{io_error}: {}", last.join(" | ")))
        }
        _ => refused(error.into()),
    }
}

/// The number that the kernel gave, wherever in the chain it is.
fn errno(error: &ProgramError) -> Option<rustix::io::Errno> {
    chain_errno(error)
}

fn chain_errno(error: &(dyn std::error::Error + 'static)) -> Option<rustix::io::Errno> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return io.raw_os_error().map(rustix::io::Errno::from_raw_os_error);
        }
        next = error.source();
    }
    None
}

fn io_error(error: ProgramError) -> io::Error {
    match errno(&error) {
        Some(errno) => errno.into(),
        None => io::Error::other(error),
    }
}
