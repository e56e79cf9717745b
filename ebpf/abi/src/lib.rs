//! What the kernel's half of the firewall and user space share: the verdict's order, the token bucket, how a frame is
//! read, and how the policy lies in memory.
//!
//! One policy, two places of enforcement: user space compiles this for itself and the XDP programs compile it
//! for the kernel, so that a source is judged alike wherever it is met. Hence `no_std`, no allocation, no
//! dependency, no division at run time, no 128-bit arithmetic, no floating point, and nothing that can panic.
//!
//! Left out: how user space looks up networks, countries and systems. It has tables of its own, and compiles those of
//! the kernel from what they say.
#![no_std]
#![expect(
    clippy::cast_possible_truncation,
    reason = "words are taken apart here: what is cut off is meant to be"
)]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

pub mod bucket;
pub mod frame;
pub mod generate;
pub mod policy;
pub mod steer;
pub mod syn_ack;
pub mod verdict;

/// A step and the output function of SplitMix64 (Steele, Lea, Flood 2014): spreads every bit over all 64.
#[must_use]
pub const fn mix(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}
