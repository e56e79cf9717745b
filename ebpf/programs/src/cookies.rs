//! SYN cookies: while SYNs come too fast, they are answered here, and what acknowledges an answer goes to the kernel,
//! which knows its own cookies again. Nothing is remembered in between, and the kernel's queues stay empty.
//!
//! The kernel accepts a cookie only where it has lately been in need of one itself (`tcp_synq_no_recent_overflow`, two
//! minutes). So now and then a SYN goes its way, until the listener's queue is full and the kernel, asked for a cookie
//! for the very socket, notes the need; it sends none then.

use core::ffi::c_void;
use core::ptr::addr_of_mut;

use aya_ebpf::bindings::{bpf_sock, bpf_sock_tuple, iphdr, ipv6hdr, tcphdr, xdp_md};
use aya_ebpf::helpers::generated::{
    bpf_ktime_get_coarse_ns, bpf_sk_release, bpf_skc_lookup_tcp, bpf_tcp_gen_syncookie,
    bpf_tcp_raw_check_syncookie_ipv4, bpf_tcp_raw_check_syncookie_ipv6, bpf_tcp_raw_gen_syncookie_ipv4,
    bpf_tcp_raw_gen_syncookie_ipv6, bpf_xdp_adjust_tail, bpf_xdp_get_buff_len, bpf_xdp_load_bytes,
    bpf_xdp_store_bytes,
};
use mc_ebpf_abi::frame::{Ports, TCP_HEADER};
use mc_ebpf_abi::policy::Reason;
use mc_ebpf_abi::syn_ack;

use crate::facts::Facts;
use crate::maps::{MARKS, SCRATCH, Scratch};

/// How long the kernel is taken to remember that it was in need: half of what it does.
const MARK_NS: u64 = 60_000_000_000;

/// `BPF_F_CURRENT_NETNS`.
const THIS_NAMESPACE: u64 = u64::MAX;

/// `TCP_LISTEN`.
const LISTEN: u32 = 10;

/// The longest TCP header.
const LONGEST: u32 = 60;

/// The shortest frame of Ethernet, without its checksum.
const SHORTEST: u32 = 60;

/// Answers a SYN with a cookie. `None`: it goes its way.
#[inline(never)]
pub(crate) fn answer(context: *mut xdp_md, facts: *const Facts) -> u32 {
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return PASS };
    // SAFETY: this CPU's own, as long as this packet is looked at; so below.
    let (facts, scratch) = unsafe { (&*facts, &mut *scratch) };
    let Some(tcp_len) = load(context, facts, scratch) else { return PASS };
    if !is_marked(context, facts, scratch, tcp_len) {
        return PASS;
    }
    // SAFETY: the helpers read as many bytes as they are told, which are there.
    let made = unsafe {
        if facts.source.is_v4() {
            bpf_tcp_raw_gen_syncookie_ipv4(ip(scratch), tcp(scratch), tcp_len)
        } else {
            bpf_tcp_raw_gen_syncookie_ipv6(ip6(scratch), tcp(scratch), tcp_len)
        }
    };
    if made < 0 {
        return PASS;
    }
    let cookie = made as u32;
    let sequence = u32::from_be(scratch.tcp[1]);
    let syn = Ports { source: facts.source_port, destination: facts.destination_port };
    let segment = syn_ack::tcp(facts.source, facts.destination, syn, sequence, cookie);
    if send(context, facts, scratch, &segment) { SENT } else { DROP }
}

/// Whether a packet that is no SYN may go its way: it is of a connection that the kernel knows, or answers a cookie.
#[inline(never)]
pub(crate) fn check(context: *mut xdp_md, facts: *const Facts) -> u32 {
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return PASS };
    // SAFETY: see above.
    let (facts, scratch) = unsafe { (&*facts, &mut *scratch) };
    if load(context, facts, scratch).is_none() {
        return PASS;
    }
    let socket = lookup(context, facts, scratch);
    if socket.is_null() {
        return PASS;
    }
    // SAFETY: a socket that was found, and is given back.
    let state = unsafe { (*socket).state };
    unsafe { bpf_sk_release(socket.cast()) };
    if state != LISTEN {
        return PASS;
    }
    // SAFETY: see above.
    let known = unsafe {
        if facts.source.is_v4() {
            bpf_tcp_raw_check_syncookie_ipv4(ip(scratch), tcp(scratch))
        } else {
            bpf_tcp_raw_check_syncookie_ipv6(ip6(scratch), tcp(scratch))
        }
    };
    if known == 0 { VALID } else { INVALID }
}

/// What becomes of a packet: a number of [`Reason`], or one of these two.
pub(crate) const PASS: u32 = u32::MAX;
pub(crate) const DROP: u32 = u32::MAX - 1;
pub(crate) const SENT: u32 = Reason::CookieSent as u32;
pub(crate) const VALID: u32 = Reason::CookieValid as u32;
pub(crate) const INVALID: u32 = Reason::CookieInvalid as u32;

/// Copies the headers. The length of TCP's, where it is all there.
#[inline(always)]
fn load(context: *mut xdp_md, facts: &Facts, scratch: &mut Scratch) -> Option<u32> {
    let ip_len = if facts.source.is_v4() { 20 } else { 40 };
    let (network_at, tcp_at) = (u32::from(facts.network_at), u32::from(facts.tcp_at));
    let to = addr_of_mut!(scratch.ip).cast::<c_void>();
    // SAFETY: the helper writes as many bytes as it is told, which there is room for.
    if unsafe { bpf_xdp_load_bytes(context, network_at, to, ip_len) } != 0 {
        return None;
    }
    let to = addr_of_mut!(scratch.tcp).cast::<c_void>();
    // SAFETY: there is room for a header without options.
    if unsafe { bpf_xdp_load_bytes(context, tcp_at, to, TCP_HEADER as u32) } != 0 {
        return None;
    }
    let len = (u32::from_be(scratch.tcp[3]) >> 28) * 4;
    if len < TCP_HEADER as u32 || len > LONGEST {
        return None;
    }
    let to = addr_of_mut!(scratch.tcp).cast::<c_void>();
    // SAFETY: there is room for the longest header, and `len` is no more.
    if unsafe { bpf_xdp_load_bytes(context, tcp_at, to, len) } != 0 {
        return None;
    }
    Some(len)
}

/// Whether the kernel knows that this listener is in need of cookies, or is made to know.
#[inline(always)]
fn is_marked(context: *mut xdp_md, facts: &Facts, scratch: &mut Scratch, tcp_len: u32) -> bool {
    // SAFETY: reads a clock.
    let now = unsafe { bpf_ktime_get_coarse_ns() };
    let key = [facts.destination.high, facts.destination.low, facts.destination_port.into()];
    // SAFETY: the value is read at once.
    if let Some(marked) = unsafe { MARKS.get(&key) }
        && now.wrapping_sub(*marked) < MARK_NS
    {
        return true;
    }
    let socket = lookup(context, facts, scratch);
    if socket.is_null() {
        return false;
    }
    let ip_len = if facts.source.is_v4() { 20 } else { 40 };
    let headers = addr_of_mut!(scratch.ip).cast::<c_void>();
    // SAFETY: a socket that was found, and is given back; headers of these lengths.
    let made = unsafe { bpf_tcp_gen_syncookie(socket.cast(), headers, ip_len, tcp(scratch), tcp_len) };
    unsafe { bpf_sk_release(socket.cast()) };
    if made < 0 {
        return false;
    }
    // A full map has forgotten the oldest; then this one is asked for again.
    let _ = MARKS.insert(&key, &now, 0);
    true
}

/// The socket that the packet is for: null, a connection, or a listener.
#[inline(always)]
fn lookup(context: *mut xdp_md, facts: &Facts, scratch: &mut Scratch) -> *mut bpf_sock {
    let ports = (u32::from(facts.source_port) << 16 | u32::from(facts.destination_port)).to_be();
    let tuple = addr_of_mut!(scratch.tuple).cast::<bpf_sock_tuple>();
    // SAFETY: the tuple is as long as it is said to be.
    unsafe {
        if facts.source.is_v4() {
            (scratch.tuple[0], scratch.tuple[1], scratch.tuple[2]) = (scratch.ip[3], scratch.ip[4], ports);
            bpf_skc_lookup_tcp(context.cast(), tuple, 12, THIS_NAMESPACE, 0)
        } else {
            let [_, _, a, b, c, d, e, f, g, h] = scratch.ip;
            scratch.tuple = [a, b, c, d, e, f, g, h, ports];
            bpf_skc_lookup_tcp(context.cast(), tuple, 36, THIS_NAMESPACE, 0)
        }
    }
}

/// Makes the answer of the frame, for it to go back where it came from.
#[inline(always)]
fn send(context: *mut xdp_md, facts: &Facts, scratch: &mut Scratch, segment: &syn_ack::Tcp) -> bool {
    let network_at = u32::from(facts.network_at);
    let ip_len: u32 = if facts.source.is_v4() { 20 } else { 40 };
    if facts.source.is_v4() {
        let header = syn_ack::ipv4(facts.source, facts.destination);
        for (to, from) in scratch.ip.iter_mut().zip(header) {
            *to = from.to_be();
        }
    } else {
        let header = syn_ack::ipv6(facts.source, facts.destination);
        for (to, from) in scratch.ip.iter_mut().zip(header) {
            *to = from.to_be();
        }
    }
    for (to, from) in scratch.tcp.iter_mut().zip(segment) {
        *to = from.to_be();
    }
    let end = network_at + ip_len + u32::from(syn_ack::TCP_LEN);
    let wanted = if end < SHORTEST { SHORTEST } else { end };
    // SAFETY: helpers, each with the frame of this run and memory of the length that it is told.
    unsafe {
        let now = bpf_xdp_get_buff_len(context) as u32;
        if bpf_xdp_adjust_tail(context, (wanted as i32).wrapping_sub(now as i32)) != 0 {
            return false;
        }
        let macs = addr_of_mut!(scratch.macs).cast::<c_void>();
        if bpf_xdp_load_bytes(context, 0, macs, 12) != 0 {
            return false;
        }
        let [a, b, c] = scratch.macs;
        // Six bytes each, in memory's order.
        scratch.macs = [b >> 16 | c << 16, c >> 16 | a << 16, a >> 16 | b << 16];
        if bpf_xdp_store_bytes(context, 0, macs, 12) != 0 {
            return false;
        }
        let ip = addr_of_mut!(scratch.ip).cast::<c_void>();
        if bpf_xdp_store_bytes(context, network_at, ip, ip_len) != 0 {
            return false;
        }
        let tcp = addr_of_mut!(scratch.tcp).cast::<c_void>();
        bpf_xdp_store_bytes(context, network_at + ip_len, tcp, u32::from(syn_ack::TCP_LEN)) == 0
    }
}

fn ip(scratch: &mut Scratch) -> *mut iphdr {
    addr_of_mut!(scratch.ip).cast()
}

fn ip6(scratch: &mut Scratch) -> *mut ipv6hdr {
    addr_of_mut!(scratch.ip).cast()
}

fn tcp(scratch: &mut Scratch) -> *mut tcphdr {
    addr_of_mut!(scratch.tcp).cast()
}
