//! Gives connections to our listeners whatever address they come to: any set of addresses and ports, without a socket for
//! each.
//!
//! It runs once for each connection, before the kernel looks for listening sockets of its own: what a rule names is the
//! rule's.
#![no_std]
#![no_main]

use aya_ebpf::btf_maps::{Array, ArrayOfMaps, SockMap};
use aya_ebpf::macros::{btf_map, sk_lookup};
use aya_ebpf::programs::SkLookupContext;
use mc_ebpf_abi::bucket::Source;
use mc_ebpf_abi::policy::{Line, Lines};
use mc_ebpf_abi::steer::{self, RULES};

mod rim;

/// The rules in force.
type Rules = Array<Line, RULES>;

/// The rules, replaced by one write; or none.
#[btf_map]
static STEER: ArrayOfMaps<Rules, 1> = ArrayOfMaps::new();

/// A socket of each listener: the kernel chooses among those that share its address.
#[btf_map]
static SOCKETS: SockMap<1024> = SockMap::new();

const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;
const TCP: u32 = 6;
const PASS: u32 = 1;

struct Looked<'a>(&'a Rules);

impl Lines for Looked<'_> {
    #[inline(always)]
    fn line(&self, index: u32) -> Option<&Line> {
        self.0.get(index)
    }
}

/// Chooses the socket, or leaves it to the kernel.
#[sk_lookup]
pub fn mc_steer(context: SkLookupContext) -> u32 {
    // SAFETY: the context is the kernel's, and these are fields of it that may be read.
    let (family, protocol, port) =
        unsafe { ((*context.lookup).family, (*context.lookup).protocol, (*context.lookup).local_port) };
    if protocol != TCP {
        return PASS;
    }
    let address = match family {
        // SAFETY: as above.
        AF_INET => Source::v4(u32::from_be(unsafe { (*context.lookup).local_ip4 })),
        AF_INET6 => {
            // SAFETY: as above.
            let [a, b, c, d] = unsafe { (*context.lookup).local_ip6 };
            let word =
                |high: u32, low: u32| u64::from(u32::from_be(high)) << 32 | u64::from(u32::from_be(low));
            Source::v6(word(a, b), word(c, d))
        }
        _ => return PASS,
    };
    if let Some(rules) = STEER.get(0)
        && let Some(socket) = steer::find(&Looked(rules), address, port as u16)
    {
        // Where there is no such socket any more, the kernel finds none either, and refuses.
        let _ = SOCKETS.redirect_sk_lookup(&context, socket, 0);
    }
    PASS
}
