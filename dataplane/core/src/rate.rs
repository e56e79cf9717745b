//! How fast sources open connections: token buckets that all workers share and nobody waits for.
//!
//! The buckets and their arithmetic are [`mc_ebpf_abi::bucket`]'s, the same that the kernel's half counts with.
//!
//! 4 MiB for a quarter of a million buckets, allocated when they are first needed.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;

use mc_ebpf_abi::bucket::{self, Place, SETS};
pub use mc_ebpf_abi::bucket::{Limit, Scope, Source};

use crate::model::{Rate, RequestRate};

/// The buckets of all sources, kept while the firewall's rules change.
#[derive(Debug)]
pub struct RateTable {
    seed: u64,
    sets: OnceLock<Box<[SharedSet]>>,
}

/// What is taken, worked out from [`Rate`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Of each address; `None`: no limit.
    pub address: Option<Limit>,
    /// Of each /24 or /48; `None`: no limit.
    pub prefix: Option<Limit>,
}

/// The table and the time: what a verdict needs in order to take tokens.
#[derive(Clone, Copy, Debug)]
pub struct Rates<'a> {
    /// Where the buckets are.
    pub table: &'a RateTable,
    /// The time in nanoseconds on a clock that never goes back and that all workers share.
    pub now_ns: u64,
}

/// [`bucket::SharedSet`] in a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct SharedSet(bucket::SharedSet<AtomicU64>);

/// Races for one bucket that a connection loses before it passes without looking again.
const ATTEMPTS: u32 = 16;

impl RateTable {
    /// A table in which every bucket is full. `seed` is random and secret, so that nobody can choose a source
    /// that shares a bucket with another.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed, sets: OnceLock::new() }
    }

    /// Allocates the buckets: called when a rate is configured, so that no worker has to at the first token.
    pub fn prepare(&self) {
        self.sets();
    }

    /// Takes a token from the source's bucket. Whether there was one.
    pub fn take(&self, source: Source, scope: Scope, now_ns: u64, limit: &Limit) -> bool {
        self.take_of(0, source, scope, now_ns, limit)
    }

    /// As [`Self::take`], where many limits share the table: `owner` says whose bucket it is.
    pub fn take_of(&self, owner: u64, source: Source, scope: Scope, now_ns: u64, limit: &Limit) -> bool {
        let Place { set, tag } = source.place(scope, self.seed ^ owner);
        let set = &self.sets()[set as usize % SETS].0;
        set.take::<ATTEMPTS>(set.find(tag), tag, now_ns, limit)
    }

    fn sets(&self) -> &[SharedSet] {
        self.sets.get_or_init(|| std::iter::repeat_with(SharedSet::default).take(SETS).collect())
    }
}

impl Limits {
    /// What [`Rate`] says.
    #[must_use]
    pub fn new(rate: &Rate) -> Self {
        Self {
            address: Limit::new(rate.per_address, rate.address_burst),
            prefix: Limit::new(rate.per_prefix, rate.prefix_burst),
        }
    }

    /// Whether there is no limit at all.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.address.is_none() && self.prefix.is_none()
    }
}

impl RequestRate {
    /// As it is taken.
    ///
    /// # Panics
    /// It lets nothing pass, which validation refuses.
    #[must_use]
    pub fn limit(&self) -> Limit {
        let limit = Limit::new(self.requests, self.burst).expect("a rate of no request was refused");
        let seconds = u64::from(self.per_s);
        Limit {
            interval_ns: limit.interval_ns * seconds,
            capacity_ns: limit.capacity_ns.saturating_mul(seconds),
        }
    }
}

impl Rates<'_> {
    /// Takes a token where there is a limit. Whether there was one.
    pub(crate) fn take(&self, source: Source, scope: Scope, limit: Option<&Limit>) -> bool {
        limit.is_none_or(|limit| self.table.take(source, scope, self.now_ns, limit))
    }
}

/// An address as the buckets know it: one of IPv4 is itself, however it is written.
#[must_use]
pub fn source(address: IpAddr) -> Source {
    match address.to_canonical() {
        IpAddr::V4(address) => Source::v4(address.to_bits()),
        IpAddr::V6(address) => {
            let [a, b, c, d, e, f, g, h] = address.segments().map(u64::from);
            Source::v6(a << 48 | b << 32 | c << 16 | d, e << 48 | f << 32 | g << 16 | h)
        }
    }
}

/// The address that [`source`] made these words of.
#[must_use]
pub fn address(high: u64, low: u64) -> IpAddr {
    Ipv6Addr::from_bits((high as u128) << 64 | low as u128).to_canonical()
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::AtomicU32;
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// Admits `takes` of `address` at one moment.
    fn admitted(table: &RateTable, address: &str, now_ns: u64, takes: u32, limit: &Limit) -> u32 {
        let source = source(address.parse().unwrap());
        let taken = (0..takes).filter(|_| table.take(source, Scope::Address, now_ns, limit)).count();
        u32::try_from(taken).unwrap()
    }

    #[test]
    fn each_address_has_its_own_bucket_however_it_is_written() {
        let table = RateTable::new(7);
        let limit = Limit::new(10, 5).unwrap();
        assert_eq!(admitted(&table, "192.0.2.1", SECOND, 9, &limit), 5);
        assert_eq!(admitted(&table, "192.0.2.2", SECOND, 9, &limit), 5);
        assert_eq!(admitted(&table, "::ffff:192.0.2.1", SECOND, 9, &limit), 0);
        assert_eq!(admitted(&table, "2001:db8::1", SECOND, 9, &limit), 5);
        assert_eq!(admitted(&table, "2001:db8::2", SECOND, 9, &limit), 5);
        assert_eq!(admitted(&table, "192.0.2.1", SECOND + SECOND / 5, 9, &limit), 2);
    }

    #[test]
    fn a_flood_of_others_does_not_free_the_one_who_is_held_back() {
        let table = RateTable::new(7);
        let limit = Limit::new(1, 3).unwrap();
        assert_eq!(admitted(&table, "192.0.2.1", SECOND, 5, &limit), 3);
        for bits in 0..1_000_000 {
            table.take(Source::v4(bits), Scope::Address, SECOND, &limit);
        }
        assert_eq!(admitted(&table, "192.0.2.1", SECOND, 5, &limit), 0);
    }

    /// Four threads take 50,000 each, the clock moving on by `step_ns` at each take. How many were admitted.
    fn admitted_together(limit: Limit, step_ns: u64) -> u32 {
        let table = RateTable::new(7);
        let (clock, admitted, start) = (AtomicU64::new(SECOND), AtomicU32::new(0), Barrier::new(4));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    start.wait();
                    for _ in 0..50_000 {
                        let now = clock.fetch_add(step_ns, Relaxed);
                        let taken = table.take(Source::v4(1), Scope::Address, now, &limit);
                        admitted.fetch_add(u32::from(taken), Relaxed);
                    }
                });
            }
        });
        admitted.into_inner()
    }

    /// The slack of four: at the last token each thread may be one that has lost its races.
    #[test]
    fn threads_together_get_the_burst_and_rate_times_time() {
        let burst = admitted_together(Limit::new(1, 100_000).unwrap(), 0);
        assert!((100_000..=100_004).contains(&burst), "{burst}: a token was given twice, or lost");
        // 200,000 steps of 10 us: 2 s.
        let both = admitted_together(Limit::new(1000, 100).unwrap(), 10_000);
        assert!((2000..=2100 + 4).contains(&both), "{both}");
    }
}
