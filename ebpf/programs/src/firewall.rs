//! The firewall: what a hostile network sends to a listener dies here, before it costs anything.

use core::ptr::read_volatile;

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_TX};
use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::helpers::generated::{bpf_get_prandom_u32, bpf_ktime_get_coarse_ns};
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use mc_ebpf_abi::bucket::{Limit, Scope, SharedSet, Source};
use mc_ebpf_abi::frame::{self, Parsed, Segment};
use mc_ebpf_abi::policy::{self, Endpoint, Header, Reason, Sample, Trusted};
use mc_ebpf_abi::verdict::{Verdict, rated};

use crate::cookies;
use crate::facts::Facts;
use crate::maps::{
    BUCKETS, CONTROL, COUNTS, FACTS, KernelWord, LONGEST, Looked, ROOT, Root, SAMPLED, SAMPLES, TABLES,
    TRUSTED, Tables,
};
use crate::wire::Frame;

/// Set when the program is loaded to be measured: then each packet comes from another source.
#[unsafe(no_mangle)]
static MEASURE: u32 = 0;

/// Races for a bucket that a packet loses before it passes. Two CPUs seldom meet.
const ATTEMPTS: u32 = 1;

/// Kinds of packets.
const SYN: u32 = 0;
const OTHER: u32 = 1;
const MALFORMED: u32 = 2;
const HIDDEN: u32 = 3;

/// What was decided: a number of [`Verdict`] or [`Reason`], and whether the frame passes.
#[derive(Clone, Copy)]
struct Decision {
    number: u32,
    passes: bool,
}

/// Judges a frame. Whatever goes wrong, it passes: user space judges again.
#[xdp(frags)]
pub fn mc_firewall(context: XdpContext) -> u32 {
    let frame = Frame::new(&context);
    let decision = match (ROOT.get(0), FACTS.get_ptr_mut(0)) {
        (Some(root), Some(facts)) if read(&frame, facts) => {
            let judged = judge(root, facts, context.ingress_ifindex() as u32);
            with_cookies(&context, facts, judged)
        }
        _ => Decision::pass(Reason::Other),
    };
    if let Some(count) = COUNTS.get_ptr_mut(decision.number) {
        // SAFETY: this CPU's own, and nothing interrupts it here.
        let count = unsafe { &mut *count };
        count.packets += 1;
        count.bytes += frame.linear() as u64;
    }
    match decision {
        Decision { number: cookies::SENT, .. } => XDP_TX,
        Decision { passes: true, .. } => XDP_PASS,
        _ => XDP_DROP,
    }
}

/// While cookies are in use: has a SYN that would pass answered, and looks at what says to be of a connection.
#[inline(always)]
fn with_cookies(context: &XdpContext, facts: *const Facts, judged: Decision) -> Decision {
    let established = judged.number == Reason::Established as u32;
    if !judged.passes || !(established || judged.number <= Verdict::AllowedCountry as u32) {
        return judged;
    }
    if !CONTROL.get(0).is_some_and(|control| control.cookies != 0) {
        return judged;
    }
    let number =
        if established { cookies::check(context.ctx, facts) } else { cookies::answer(context.ctx, facts) };
    match number {
        cookies::PASS => judged,
        cookies::VALID => Decision { number, passes: true },
        cookies::DROP => Decision { number: Reason::CookieInvalid as u32, passes: false },
        _ => Decision { number, passes: false },
    }
}

/// Reads a frame. Whether there is something to judge.
#[inline(always)]
fn read(frame: &Frame, facts: *mut Facts) -> bool {
    let read = match frame::parse(frame) {
        Parsed::Tcp(packet) => {
            let Some(ports) = frame::ports(frame, &packet) else { return false };
            Facts {
                source: packet.source,
                destination: packet.destination,
                source_port: ports.source,
                destination_port: ports.destination,
                kind: match frame::segment(frame, &packet) {
                    Segment::Syn => SYN,
                    Segment::Other => OTHER,
                    Segment::Malformed => MALFORMED,
                },
                network_at: packet.network_at as u16,
                tcp_at: packet.tcp_at as u16,
                reserved: 0,
            }
        }
        Parsed::Hidden(destination) => Facts {
            source: Source { high: 0, low: 0 },
            destination,
            source_port: 0,
            destination_port: 0,
            kind: HIDDEN,
            network_at: 0,
            tcp_at: 0,
            reserved: 0,
        },
        Parsed::Other => return false,
    };
    // SAFETY: this CPU's own, as long as this packet is looked at.
    unsafe { *facts = read };
    true
}

#[inline(always)]
fn judge(root: &Root, facts: *const Facts, interface: u32) -> Decision {
    // SAFETY: see above. Read as it lies there: what the verifier knows of how each field came about would have it go
    // through all that follows once for each way of reading a frame.
    let facts = unsafe {
        Facts {
            source: read_volatile(&raw const (*facts).source),
            destination: read_volatile(&raw const (*facts).destination),
            source_port: read_volatile(&raw const (*facts).source_port),
            destination_port: read_volatile(&raw const (*facts).destination_port),
            kind: read_volatile(&raw const (*facts).kind),
            network_at: 0,
            tcp_at: 0,
            reserved: 0,
        }
    };
    let endpoint = Endpoint { address: facts.destination, port: facts.destination_port };
    let Some(listener) = policy::listener(&Looked(root), endpoint) else {
        return Decision::pass(Reason::Other);
    };
    let decision = ours(root, &facts, listener);
    if !decision.passes {
        tell(&Sample {
            source: [facts.source.high, facts.source.low],
            destination: [facts.destination.high, facts.destination.low],
            source_port: facts.source_port,
            destination_port: facts.destination_port,
            reason: decision.number,
            interface,
            reserved: 0,
        });
    }
    decision
}

/// Judges what is for a listener of ours.
#[inline(always)]
fn ours(root: &Root, facts: &Facts, listener: u32) -> Decision {
    let Some(line) = root.get(0) else { return Decision::pass(Reason::Other) };
    let header = Header::from_line(line);
    if facts.kind == HIDDEN {
        return Decision::drop(Reason::Hidden);
    }
    if listener != 0 && is_trusted(header.trusted, listener, facts.source) {
        return Decision::pass(Reason::Trusted);
    }
    if facts.kind == MALFORMED {
        return Decision::drop(Reason::Malformed);
    }
    let source = measured(facts.source);
    let tables = TABLES.get(header.tables);
    if let Some(tables) = tables {
        // SAFETY: reads a word of the line, which nobody may leave out.
        policy::touch(&Looked(tables), source, |line| unsafe { _ = read_volatile(line.as_ptr()) });
    }
    if facts.kind != SYN || header.address.interval_ns | header.prefix.interval_ns == 0 {
        let Some(judged) = judged(tables, &header, source) else {
            return Decision::pass(Reason::Established);
        };
        return match facts.kind {
            SYN => Decision::of(judged),
            _ if judged.passes() => Decision::pass(Reason::Established),
            _ => Decision::of(judged),
        };
    }
    // The buckets are on their way while the tables are read: each is a cache miss, and one wait is enough.
    let Some(address) = bucket(source, Scope::Address, header.seed) else {
        return Decision::pass(Reason::Other);
    };
    let Some(prefix) = bucket(source, Scope::Prefix, header.seed) else {
        return Decision::pass(Reason::Other);
    };
    let Some(judged) = judged(tables, &header, source) else { return Decision::pass(Reason::Other) };
    // SAFETY: reads a clock, that of the last tick: to wait for the exact one would cost as much as all the rest.
    let now = unsafe { bpf_ktime_get_coarse_ns() };
    Decision::of(rated(judged, || address.take(now, &header.address), || prefix.take(now, &header.prefix)))
}

/// What the policy says of a source by its address.
#[inline(always)]
fn judged(tables: Option<&Tables>, header: &Header, source: Source) -> Option<Verdict> {
    let class = match tables {
        Some(tables) => policy::class(&Looked(tables), source, || longest(header.tables, source)),
        None => header.default,
    };
    Verdict::from_number(class.into())
}

/// A bucket: the set that it is in, and where.
#[derive(Clone, Copy)]
struct Bucket<'a> {
    set: &'a SharedSet<KernelWord>,
    tag: u64,
}

/// Finds a source's bucket.
#[inline(always)]
fn bucket<'a>(source: Source, scope: Scope, seed: u64) -> Option<Bucket<'a>> {
    let place = source.place(scope, seed);
    let set = BUCKETS.get(place.set)?;
    set.touch();
    Some(Bucket { set, tag: place.tag })
}

impl Bucket<'_> {
    /// Whether there is a token. Of no limit (an interval of 0) there always is.
    #[inline(always)]
    fn take(self, now_ns: u64, limit: &Limit) -> bool {
        self.set.take::<ATTEMPTS>(self.set.find(self.tag), self.tag, now_ns, limit)
    }
}

/// Whether a peer may speak for others to this listener.
#[inline(always)]
fn is_trusted(peers: u32, listener: u32, source: Source) -> bool {
    let Some(peers) = TRUSTED.get(peers) else { return false };
    let key = Trusted { listener: listener.to_be_bytes(), address: octets(source) };
    peers.get(&Key::new(160, key)).is_some()
}

/// The class of a source of IPv6 among prefixes longer than 48 bits.
#[inline(always)]
fn longest(trie: u32, source: Source) -> Option<u8> {
    let trie = LONGEST.get(trie)?;
    trie.get(&Key::new(128, octets(source))).map(|class| *class as u8)
}

#[inline(always)]
fn octets(source: Source) -> [u8; 16] {
    // SAFETY: 16 bytes either way.
    unsafe { core::mem::transmute([source.high.to_be(), source.low.to_be()]) }
}

/// The source, or while being measured another each time: of IPv4 all of it, of IPv6 what follows the first 16 bits.
#[inline(always)]
fn measured(source: Source) -> Source {
    // SAFETY: the loader may have set it, so it is read as it is.
    if unsafe { read_volatile(&raw const MEASURE) } == 0 {
        return source;
    }
    // SAFETY: draws a number.
    let random = || u64::from(unsafe { bpf_get_prandom_u32() });
    if source.is_v4() {
        Source::v4(random() as u32)
    } else {
        Source::v6(source.high & !0xffff_ffff_ffff | random() << 16, random())
    }
}

/// Tells of a dropped packet, unless this CPU has told of one a moment ago.
#[inline(always)]
fn tell(sample: &Sample) {
    let Some(control) = CONTROL.get(0) else { return };
    let Some(last) = SAMPLED.get_ptr_mut(0) else { return };
    if control.sample_ns == 0 {
        return;
    }
    // SAFETY: reads a clock.
    let now = unsafe { bpf_ktime_get_coarse_ns() };
    // SAFETY: this CPU's own, and nothing interrupts it here.
    let last = unsafe { &mut *last };
    if now - *last < u64::from(control.sample_ns) {
        return;
    }
    *last = now;
    // A full ring loses it: nobody reads.
    let _ = SAMPLES.output_untyped::<Sample>(sample, 0);
}

impl Decision {
    #[inline(always)]
    fn of(verdict: Verdict) -> Self {
        Self { number: verdict as u32, passes: verdict.passes() }
    }

    #[inline(always)]
    fn pass(reason: Reason) -> Self {
        Self { number: reason as u32, passes: true }
    }

    #[inline(always)]
    fn drop(reason: Reason) -> Self {
        Self { number: reason as u32, passes: false }
    }
}
