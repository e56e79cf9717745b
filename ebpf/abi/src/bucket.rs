//! Token buckets for many sources in bounded memory.
//!
//! A bucket is one number: the time at which it will be full again. Taking a token puts that time off by the
//! token's interval, and is refused where that would put it further off than a whole bucket takes. This is
//! exactly the token bucket (ITU-T I.371 calls it the virtual scheduling form of GCRA), without a
//! multiplication or a division when a token is taken, and one word can be exchanged atomically.
//!
//! Buckets lie in sets of four, one cache line each; a source's hash names its set and its tag. Where a set has
//! no room, the bucket that is full first goes: one that is full already is no loss at all, and a flood of new
//! sources does not drive out the one that is being held back.

#[cfg(target_has_atomic = "64")]
use core::sync::atomic::Ordering::Relaxed;

use crate::mix;

/// How fast tokens come and how many a bucket holds, worked out in user space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Limit {
    /// Time for one token, in nanoseconds.
    pub interval_ns: u64,
    /// Time for a whole bucket, in nanoseconds.
    pub capacity_ns: u64,
}

/// One source's bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Entry {
    /// Whose it is; 0: nobody's.
    pub tag: u64,
    /// When it is full again, in nanoseconds on the clock of those who take.
    pub full_at_ns: u64,
}

/// Four buckets in a cache line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct Set(pub [Entry; 4]);

/// A source's place in its set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Which of the four.
    pub index: usize,
    /// Whether it was there.
    pub is_known: bool,
    /// When it is full again; 0 where it was not there.
    pub full_at_ns: u64,
}

/// [`Set`] where many take at the same time and nobody waits. A taker reads the set, decides on the copy and
/// exchanges one word; where another was faster it decides again, and after the last lost race it passes and pays
/// unseen. So a race can let a source pass that was too fast, and, in the instant in which a bucket changes hands,
/// judge one by the bucket before; every state that it can leave is a valid one.
#[derive(Debug, Default)]
#[repr(C)]
pub struct SharedSet<W>([SharedEntry<W>; 4]);

/// [`Entry`] where many take at the same time.
#[derive(Debug, Default)]
#[repr(C)]
struct SharedEntry<W> {
    tag: W,
    full_at_ns: W,
}

/// 64 bits that many read and change at the same time, in no order to other memory. An `AtomicU64` in user space; the
/// kernel's half has the instructions, and no such type.
pub trait Word {
    /// What it is.
    fn load(&self) -> u64;
    /// Makes it `to` where it is `from`; whether it was.
    fn exchange(&self, from: u64, to: u64) -> bool;
    /// Sets it.
    fn store(&self, to: u64);
    /// Adds to it.
    fn add(&self, what: u64);
}

/// Where a source's bucket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Which of the [`SETS`].
    pub set: u32,
    /// Its tag within; never 0.
    pub tag: u64,
}

/// What a bucket counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Scope {
    /// One address.
    Address = 1,
    /// A /24 of IPv4 or a /48 of IPv6.
    Prefix = 2,
}

/// A source: an IPv6 address in two words, one of IPv4 in its mapped form (RFC 4291, section 2.5.5.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Source {
    /// The first 64 bits.
    pub high: u64,
    /// The last 64 bits.
    pub low: u64,
}

/// Sets in a table: 4 MiB.
pub const SETS: usize = 1 << 16;

/// Takes a token from the bucket that is full at `full_at_ns`. Returns the bucket afterwards and whether there
/// was one. A time too far ahead (the limit has changed) counts as an empty bucket.
#[must_use]
#[inline(always)]
pub fn take(full_at_ns: u64, now_ns: u64, limit: &Limit) -> (u64, bool) {
    let latest = now_ns.saturating_add(limit.capacity_ns);
    let full_at_ns = if full_at_ns < now_ns {
        now_ns
    } else if full_at_ns > latest {
        latest
    } else {
        full_at_ns
    };
    let next = full_at_ns.saturating_add(limit.interval_ns);
    if next <= latest { (next, true) } else { (full_at_ns, false) }
}

/// Takes a token from the source's bucket in its set, which gets one if it has none.
#[inline(always)]
pub fn take_in_set(set: &mut Set, tag: u64, now_ns: u64, limit: &Limit) -> bool {
    let found = set.bucket(tag);
    let (full_at_ns, taken) = take(found.full_at_ns, now_ns, limit);
    if let Some(slot) = set.0.get_mut(found.index) {
        *slot = Entry { tag, full_at_ns };
    }
    taken
}

impl Limit {
    /// `rate` tokens each second, at most `burst` at once (0: as many as `rate`). `None` where `rate` is 0: no
    /// limit. For user space: the kernel is given the result.
    #[must_use]
    pub const fn new(rate: u32, burst: u32) -> Option<Self> {
        if rate == 0 {
            return None;
        }
        // Rounded up, so that the rate is never exceeded.
        let interval_ns = 1_000_000_000_u64.div_ceil(rate as u64);
        let burst = if burst == 0 { rate } else { burst };
        Some(Self { interval_ns, capacity_ns: interval_ns.saturating_mul(burst as u64) })
    }
}

impl Set {
    /// The source's bucket, or the one that makes room for it, as if it were fresh: where, and what is in it.
    ///
    /// Without a branch: what is in a set is nothing that a processor could guess, and a wrong guess costs more than all
    /// four entries. Times stay below 2^63, so that a sign tells which is earlier.
    #[must_use]
    #[inline(always)]
    pub fn bucket(&self, tag: u64) -> Found {
        let [a, b, c, d] = self.0;
        // The first that is full makes room, unless the source has a bucket.
        let (mut first, mut at) = (a.full_at_ns, 0);
        (first, at) = earlier(first, at, b.full_at_ns, 1);
        (first, at) = earlier(first, at, c.full_at_ns, 2);
        (_, at) = earlier(first, at, d.full_at_ns, 3);
        let (is_a, is_b) = (is_zero(a.tag ^ tag), is_zero(b.tag ^ tag));
        let (is_c, is_d) = (is_zero(c.tag ^ tag), is_zero(d.tag ^ tag));
        let known = is_a | is_b | is_c | is_d;
        let index = at & !known | 1 & is_b | 2 & is_c | 3 & is_d;
        let full_at_ns =
            a.full_at_ns & is_a | b.full_at_ns & is_b | c.full_at_ns & is_c | d.full_at_ns & is_d;
        Found { index: below_four(index), is_known: known != 0, full_at_ns }
    }
}

/// The earlier of two times, and its number.
#[inline(always)]
fn earlier(time: u64, number: u64, other: u64, other_number: u64) -> (u64, u64) {
    let is_other = sign(other.wrapping_sub(time));
    (time ^ (time ^ other) & is_other, number ^ (number ^ other_number) & is_other)
}

/// A number of an entry, for certain.
#[inline(always)]
#[cfg_attr(target_arch = "bpf", expect(unsafe_code, reason = "one instruction"))]
fn below_four(number: u64) -> usize {
    #[cfg(not(target_arch = "bpf"))]
    return (number & 3) as usize;
    // The compiler knows that it is, and would leave the mask out; the verifier of Linux 6.1 does not.
    #[cfg(target_arch = "bpf")]
    {
        let mut number = number;
        // SAFETY: masks a register.
        unsafe { core::arch::asm!("{0} &= 3", inout(reg) number, options(pure, nomem, nostack)) };
        number as usize
    }
}

/// All bits where the topmost is set, else none.
#[inline(always)]
#[cfg_attr(target_arch = "bpf", expect(unsafe_code, reason = "one instruction"))]
fn sign(word: u64) -> u64 {
    #[cfg(not(target_arch = "bpf"))]
    return (word.cast_signed() >> 63).cast_unsigned();
    // The compiler knows what it means, and would make branches of it: the kernel's machine has nothing else.
    #[cfg(target_arch = "bpf")]
    {
        let mut mask = word;
        // SAFETY: shifts a register.
        unsafe { core::arch::asm!("{0} s>>= 63", inout(reg) mask, options(pure, nomem, nostack)) };
        mask
    }
}

/// All bits where the word is 0, else none.
#[inline(always)]
fn is_zero(word: u64) -> u64 {
    sign(!word & word.wrapping_sub(1))
}

impl<W: Word> SharedSet<W> {
    /// Has the set brought into the cache while something else is done. In the kernel this is worth it: a table of so
    /// many sets is seldom there.
    #[inline(always)]
    pub fn touch(&self) {
        // A load of the kernel's is not left out though nobody looks at it.
        let _ = self.0[0].tag.load();
    }

    /// Finds the source's bucket.
    #[inline(always)]
    pub fn find(&self, tag: u64) -> Found {
        let [a, b, c, d] = &self.0;
        Set([a.load(), b.load(), c.load(), d.load()]).bucket(tag)
    }

    /// Takes a token from the source's bucket as it was found, which it gets if it has none. Loses at most `ATTEMPTS`
    /// races.
    #[inline(always)]
    pub fn take<const ATTEMPTS: u32>(&self, mut found: Found, tag: u64, now_ns: u64, limit: &Limit) -> bool {
        for _ in 0..ATTEMPTS {
            let (full_at_ns, taken) = take(found.full_at_ns, now_ns, limit);
            if !taken {
                return false;
            }
            let slot = &self.0[found.index & 3];
            if !found.is_known {
                slot.tag.store(tag);
                slot.full_at_ns.store(full_at_ns);
                return true;
            }
            if slot.full_at_ns.exchange(found.full_at_ns, full_at_ns) {
                return true;
            }
            found = self.find(tag);
        }
        // There was a token each time and another took it first. It passes, and is paid for unseen.
        self.0[found.index & 3].full_at_ns.add(limit.interval_ns);
        true
    }
}

impl<W: Word> SharedEntry<W> {
    #[inline(always)]
    fn load(&self) -> Entry {
        Entry { tag: self.tag.load(), full_at_ns: self.full_at_ns.load() }
    }
}

#[cfg(target_has_atomic = "64")]
impl Word for core::sync::atomic::AtomicU64 {
    fn load(&self) -> u64 {
        self.load(Relaxed)
    }

    fn exchange(&self, from: u64, to: u64) -> bool {
        self.compare_exchange(from, to, Relaxed, Relaxed).is_ok()
    }

    fn store(&self, to: u64) {
        self.store(to, Relaxed);
    }

    fn add(&self, what: u64) {
        self.fetch_add(what, Relaxed);
    }
}

impl Source {
    /// An address of IPv4.
    #[must_use]
    #[inline(always)]
    pub const fn v4(bits: u32) -> Self {
        Self { high: 0, low: 0xffff_0000_0000 | bits as u64 }
    }

    /// An address of IPv6; a mapped one is that of IPv4.
    #[must_use]
    #[inline(always)]
    pub const fn v6(high: u64, low: u64) -> Self {
        Self { high, low }
    }

    /// Whether it is an address of IPv4.
    #[must_use]
    #[inline(always)]
    pub const fn is_v4(self) -> bool {
        self.high == 0 && self.low >> 32 == 0xffff
    }

    /// Its prefix: /24 of IPv4, /48 of IPv6.
    #[must_use]
    #[inline(always)]
    pub const fn prefix(self) -> Self {
        if self.is_v4() {
            Self { high: 0, low: self.low & !0xff }
        } else {
            Self { high: self.high & !0xffff, low: 0 }
        }
    }

    /// What counts as one client where connections are kept for long: itself, or its /64 of IPv6, within which
    /// a host may take as many addresses as it likes (RFC 8981).
    #[must_use]
    #[inline(always)]
    pub const fn client(self) -> Self {
        if self.is_v4() { self } else { Self { high: self.high, low: 0 } }
    }

    /// Where the bucket of this scope is. `seed` is secret, so that nobody can choose a source that shares a
    /// bucket or a set with another.
    #[must_use]
    #[inline(always)]
    pub const fn place(self, scope: Scope, seed: u64) -> Place {
        let source = match scope {
            Scope::Address => self,
            Scope::Prefix => self.prefix(),
        };
        let hash = mix(mix(seed.rotate_left(scope as u32 * 16) ^ source.high) ^ source.low);
        // The top bits name the set; the lowest is given up so that no tag is 0.
        Place { set: (hash >> 48) as u32, tag: hash | 1 }
    }
}

#[cfg(test)]
mod tests {
    use core::sync::atomic::AtomicU64;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// How many of the takes at these times (milliseconds) succeed.
    fn check(rate: u32, burst: u32, times_ms: impl IntoIterator<Item = u64>, expect: usize) {
        let limit = Limit::new(rate, burst).unwrap();
        let mut bucket = 0;
        let mut taken = 0;
        for ms in times_ms {
            let (next, ok) = take(bucket, SECOND + ms * 1_000_000, &limit);
            bucket = next;
            taken += usize::from(ok);
        }
        assert_eq!(taken, expect, "rate {rate}, burst {burst}");
    }

    #[test]
    fn a_burst_and_then_the_rate() {
        check(10, 5, [0; 20], 5);
        check(10, 0, [0; 20], 10);
        check(10, 5, [0, 0, 0, 0, 0, 99, 100, 100, 199, 200], 7);
        check(10, 1, 0..1000, 10);
        check(10, 5, 0..1000, 14);
        check(1000, 1, 0..1000, 1000);
        check(1, 1, [0, 999, 1000, 1000, 1_000_000, 1_000_000], 3);
    }

    #[test]
    fn time_that_goes_back_or_jumps_and_ends_of_the_range_are_harmless() {
        let limit = Limit::new(10, 2).unwrap();
        assert_eq!(take(5 * SECOND, SECOND, &limit), (SECOND + 2 * limit.interval_ns, false));
        assert!(!take(u64::MAX, SECOND, &limit).1);
        assert_eq!(take(u64::MAX, u64::MAX, &limit), (u64::MAX, true));
        let widest = Limit::new(1, u32::MAX).unwrap();
        assert_eq!(take(0, 0, &widest), (SECOND, true));
        assert_eq!(Limit::new(0, 5), None);
        assert_eq!(Limit::new(u32::MAX, 1).unwrap().interval_ns, 1);
    }

    #[test]
    fn the_bucket_that_is_full_first_makes_room() {
        let limit = Limit::new(1, 3).unwrap();
        let mut set = Set::default();
        let now = 10 * SECOND;
        for (tag, takes) in [(11, 3), (12, 1), (13, 2), (14, 3)] {
            for _ in 0..takes {
                assert!(take_in_set(&mut set, tag, now, &limit));
            }
        }
        assert!(!take_in_set(&mut set, 11, now, &limit));
        assert!(take_in_set(&mut set, 15, now, &limit));
        assert_eq!(set.0.map(|entry| entry.tag), [11, 15, 13, 14]);
        // A flood of others takes turns in one slot: the two that are held back stay so.
        for tag in 100..200 {
            assert!(take_in_set(&mut set, tag, now, &limit));
        }
        assert!(!take_in_set(&mut set, 11, now, &limit));
        assert!(!take_in_set(&mut set, 14, now, &limit));
    }

    #[test]
    fn a_set_in_atomics_decides_as_the_plain_one() {
        let limit = Limit::new(3, 2).unwrap();
        let (shared, mut plain) = (SharedSet::<AtomicU64>::default(), Set::default());
        let mut random = 1;
        let mut refused = 0;
        for step in 0..10_000 {
            random = mix(random);
            let (tag, now) = (1 + random % 7, SECOND + step * SECOND / 20);
            let taken = shared.take::<16>(shared.find(tag), tag, now, &limit);
            assert_eq!(taken, take_in_set(&mut plain, tag, now, &limit), "step {step}");
            refused += u32::from(!taken);
        }
        assert!((1000..9000).contains(&refused), "{refused} refused: the test says little");
    }

    #[test]
    fn an_entry_is_16_bytes_and_a_set_a_cache_line() {
        assert_eq!((size_of::<Entry>(), size_of::<Set>(), align_of::<Set>()), (16, 64, 64));
        assert_eq!((size_of::<SharedEntry<AtomicU64>>(), size_of::<SharedSet<AtomicU64>>()), (16, 64));
    }

    #[test]
    fn prefixes_are_24_and_48() {
        let v4 = |a: [u8; 4]| Source::v4(u32::from_be_bytes(a));
        assert_eq!(v4([192, 0, 2, 7]).prefix(), v4([192, 0, 2, 0]));
        assert_ne!(v4([192, 0, 3, 7]).prefix(), v4([192, 0, 2, 0]));
        assert_eq!(Source::v6(0x2001_0db8_1234_5678, 9).prefix(), Source::v6(0x2001_0db8_1234_0000, 0));
        let mapped = Source::v6(0, 0xffff_c000_0207);
        assert_eq!(mapped, v4([192, 0, 2, 7]));
        assert_eq!(mapped.client(), mapped);
        assert_eq!(Source::v6(1, 2).client(), Source::v6(1, 0));
        assert!(!Source::v6(0, 0xc000_0207).is_v4(), "compatible, not mapped");
    }

    #[test]
    fn places_are_spread_and_depend_on_seed_and_scope() {
        let mut seen = [0_u32; 16];
        for bits in 0..16_000 {
            let place = Source::v4(bits << 8).place(Scope::Address, 1);
            assert!((place.set as usize) < SETS && place.tag != 0);
            seen[place.set as usize % 16] += 1;
        }
        assert!(seen.iter().all(|count| (850..1150).contains(count)), "{seen:?}");
        let source = Source::v4(256);
        assert_ne!(source.place(Scope::Address, 1), source.place(Scope::Address, 2));
        assert_ne!(source.place(Scope::Address, 1), source.place(Scope::Prefix, 1));
        assert_eq!(source.place(Scope::Prefix, 1), Source::v4(300).place(Scope::Prefix, 1));
    }
}
