//! For measurements: a flood of SYNs over IPv4, as fast as one CPU can make them, and a place where they end.
//!
//! The kernel sends frames that it builds itself (`BPF_PROG_TEST_RUN` with live frames, Linux 5.18): no packet is copied
//! from user space, and what is measured is whom they reach.

use std::net::{Ipv4Addr, SocketAddrV4};

use aya::maps::Array;
use aya::programs::xdp::XdpLinkId;
use aya::programs::{TestRun as _, TestRunAttrs, TestRunOptions, Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader};
use mc_ebpf_abi::generate::{LENGTH, SOURCES};

use crate::firewall::{LoadError, map, not_loaded, refused};

/// A source of frames.
#[derive(Debug)]
pub struct Generator {
    ebpf: Ebpf,
    frame: Vec<u8>,
}

/// A place where frames end at once, for as long as it lives.
#[derive(Debug)]
pub struct Sink {
    _ebpf: Ebpf,
    _link: XdpLinkId,
}

/// Whom a flood is for.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The index of the interface, in the namespace of whoever calls [`Generator::send`]; 0: frames are made, and go
    /// nowhere.
    pub interface: u32,
    /// The hardware address at its other end.
    pub mac: [u8; 6],
    /// The listener.
    pub to: SocketAddrV4,
}

/// What was built; empty where it was not.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/mc-generate"));

/// Frames between two pauses in which the kernel does what they gave it to do.
const BATCH: u32 = 64;

impl Generator {
    /// Makes frames for `target` from these sources, drawn at random.
    ///
    /// # Errors
    /// It was not built, or the kernel does not take it.
    ///
    /// # Panics
    /// There are no sources.
    pub fn load(target: Target, sources: &[Ipv4Addr]) -> Result<Self, LoadError> {
        if OBJECT.is_empty() {
            return Err(LoadError::NotBuilt);
        }
        let (frame, sum) = syn(target);
        let mut loader = EbpfLoader::new();
        loader.override_global("TARGET", &target.interface, true).override_global("SUM", &sum, true);
        let mut ebpf = loader.load(OBJECT).map_err(refused)?;
        program(&mut ebpf, "mc_generate")?.load().map_err(not_loaded)?;
        let mut from: Array<_, u32> = map(&mut ebpf, "FROM")?;
        for (index, source) in (0..SOURCES).zip(sources.iter().cycle()) {
            let index = u32::try_from(index).unwrap_or(u32::MAX);
            from.set(index, source.to_bits(), 0).map_err(|error| refused(error.into()))?;
        }
        Ok(Self { ebpf, frame })
    }

    /// Sends so many frames, and returns when the kernel has done on this CPU what they gave it to do.
    ///
    /// # Errors
    /// The kernel cannot: it is older than 5.18.
    pub fn send(&mut self, count: u32) -> Result<(), LoadError> {
        let mut options = TestRunOptions::new();
        options.data_in = Some(&self.frame);
        options.repeat = count;
        options.attrs = TestRunAttrs::new().xdp_live_frames(BATCH);
        program(&mut self.ebpf, "mc_generate")?.test_run(options).map_err(not_loaded)?;
        Ok(())
    }
}

impl Sink {
    /// Attaches one to an interface of this thread's namespace, in its driver.
    ///
    /// # Errors
    /// It was not built, or the kernel or the driver does not take it.
    pub fn attach(interface: &str) -> Result<Self, LoadError> {
        let mut ebpf = EbpfLoader::new().load(OBJECT).map_err(refused)?;
        let sink = program(&mut ebpf, "mc_sink")?;
        sink.load().map_err(not_loaded)?;
        let link = sink.attach(interface, XdpMode::Driver).map_err(not_loaded)?;
        Ok(Self { _ebpf: ebpf, _link: link })
    }
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut Xdp, LoadError> {
    let program = ebpf.program_mut(name).and_then(|program| program.try_into().ok());
    program.ok_or(LoadError::Lacks(name))
}

/// A SYN without a source, and the sum of its IP header's words (RFC 1071).
fn syn(target: Target) -> (Vec<u8>, u32) {
    let mut frame = Vec::with_capacity(LENGTH);
    frame.extend(target.mac);
    frame.extend([2, 0, 0, 0, 0, 1, 8, 0]);
    frame.extend([0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, 0, 0, 0, 0]);
    frame.extend(target.to.ip().octets());
    frame.extend([0, 0]);
    frame.extend(target.to.port().to_be_bytes());
    frame.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]);
    let words = frame[14..34].chunks_exact(2);
    let sum = words.map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
    (frame, sum)
}
