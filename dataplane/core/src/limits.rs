//! What clients may have at the same time: connections, for as many of which as there are descriptors, and how many
//! each client has, where that is limited.
//!
//! One [`SourceCounts`] counts for the whole proxy, and one for each route with a limit of its own, made when that's first
//! connection comes. What is kept is bounded by the connections that are open: an entry goes with its last
//! one, and memory follows. The map is in shards with a lock each, held for one look-up.
//!
//! A client is an address of IPv4, or a /64 of IPv6 ([`Source::client`]): a limit that counted the addresses which
//! a host may take within that would be none.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use foldhash::HashMap;
use mc_ebpf_abi::bucket::Source;
use mc_ebpf_abi::mix;

use crate::rate::source;

/// How a process divides its descriptors. A connection takes two: the client's and its backend's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptors {
    /// No client and no connection to a backend gets a descriptor of this number or a higher one: they are for operators,
    /// health checks, files, and a process that takes over. The kernel gives the lowest number that is free, so that
    /// a number says how many are in use.
    pub bound: u32,
    /// Connections from clients for which there are enough, whatever else is open.
    pub connections: u32,
}

impl Descriptors {
    /// Of `limit` descriptors (`RLIMIT_NOFILE`).
    #[must_use]
    pub fn of(limit: u64) -> Self {
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        // Once beyond the bound, and once for what the process has open itself: listeners, rings, databases, maps.
        let reserve = (32 + limit / 16).min(384);
        Self { bound: limit.saturating_sub(reserve), connections: (limit / 2).saturating_sub(reserve).max(1) }
    }
}

/// How many there are of something, and may be: connections of all clients, responses that are compressed.
#[derive(Debug)]
pub struct Count {
    open: AtomicU32,
    most: u32,
}

impl Count {
    /// At most so many.
    #[must_use]
    pub const fn new(most: u32) -> Self {
        Self { open: AtomicU32::new(0), most }
    }

    /// Counts one more, unless there are as many as there may be. Whether it was counted; if so, it is matched by one
    /// [`Self::release`].
    #[must_use]
    pub fn acquire(&self) -> bool {
        let fits = self.open.fetch_add(1, Ordering::Relaxed) < self.most;
        if !fits {
            self.release();
        }
        fits
    }

    /// The end of one that was counted.
    pub fn release(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    /// As many as there are.
    #[must_use]
    pub fn open(&self) -> u32 {
        // One that did not fit is counted for a moment.
        self.open.load(Ordering::Relaxed).min(self.most)
    }

    /// As many as there may be.
    #[must_use]
    pub const fn most(&self) -> u32 {
        self.most
    }
}

/// Connections by client.
#[derive(Debug, Default)]
pub struct SourceCounts {
    shards: [Mutex<HashMap<Source, u32>>; SHARDS],
}

const SHARDS: usize = 16;

/// A shard's map that is smaller than this is left as it is.
const SMALL: usize = 64;

impl SourceCounts {
    /// Counts one more connection of the client, unless it has `limit` (0: none may be counted). Whether it was
    /// counted; if so, it is matched by one [`Self::release`].
    #[must_use]
    pub fn acquire(&self, client: IpAddr, limit: u32) -> bool {
        if limit == 0 {
            return false;
        }
        let client = source(client).client();
        let mut counts = self.shard(client);
        let count = counts.entry(client).or_insert(0);
        let fits = *count < limit;
        if fits {
            *count += 1;
        }
        fits
    }

    /// The end of a connection that was counted. One too many does nothing.
    pub fn release(&self, client: IpAddr) {
        let client = source(client).client();
        let mut counts = self.shard(client);
        match counts.get_mut(&client) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                counts.remove(&client);
                if counts.capacity() > SMALL && counts.len() < counts.capacity() / 8 {
                    counts.shrink_to_fit();
                }
            }
        }
    }

    /// The client's connections now.
    #[must_use]
    pub fn count(&self, client: IpAddr) -> u32 {
        let client = source(client).client();
        self.shard(client).get(&client).copied().unwrap_or(0)
    }

    /// Clients that have a connection now.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).len()).sum()
    }

    fn shard(&self, client: Source) -> MutexGuard<'_, HashMap<Source, u32>> {
        let hash = mix(mix(client.high) ^ client.low);
        lock(&self.shards[usize::from(hash.to_le_bytes()[0]) % SHARDS])
    }
}

/// A panic under the lock cannot leave a count half changed: it is one number.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Acquires for each address in turn with limit 2 and says which were counted.
    fn check(addresses: &[&str], expect: &[bool]) {
        let counts = SourceCounts::default();
        let counted: Vec<bool> = addresses.iter().map(|a| counts.acquire(a.parse().unwrap(), 2)).collect();
        assert_eq!(counted, expect, "{addresses:?}");
    }

    /// The connections, and those of operators, have descriptors whatever the limit is.
    #[test]
    fn descriptors_are_enough_for_every_connection_and_its_backend() {
        for limit in [0, 1, 100, 150, 256, 1024, 4096, 20_000, 524_288, u64::from(u32::MAX), u64::MAX] {
            let Descriptors { bound, connections } = Descriptors::of(limit);
            let limit = limit.min(u32::MAX.into());
            if limit >= 150 {
                assert!(limit - u64::from(bound) >= 32, "{limit}");
                assert!(
                    u64::from(bound) - 2 * u64::from(connections) >= 32,
                    "{limit}: {bound} {connections}"
                );
            }
            assert!(connections > 0);
        }
        assert_eq!(Descriptors::of(20_000), Descriptors { bound: 19_616, connections: 9_616 });
    }

    #[test]
    fn all_together_are_as_many_as_there_may_be() {
        let count = Count::new(2);
        assert_eq!([(); 4].map(|()| count.acquire()), [true, true, false, false]);
        count.release();
        assert!(count.acquire());
        assert!(!count.acquire());
    }

    #[test]
    fn a_client_is_an_address_of_ipv4_or_a_64_of_ipv6() {
        check(&["192.0.2.1", "192.0.2.1", "192.0.2.1", "192.0.2.2"], &[true, true, false, true]);
        check(&["192.0.2.1", "::ffff:192.0.2.1", "192.0.2.1"], &[true, true, false]);
        check(&["2001:db8::1", "2001:db8::2", "2001:db8::3"], &[true, true, false]);
        check(&["2001:db8::1", "2001:db8:0:1::1", "2001:db8::1"], &[true, true, true]);
        check(&["::192.0.2.1", "192.0.2.1", "192.0.2.1"], &[true, true, true]);
    }

    #[test]
    fn a_released_connection_makes_room_and_nothing_is_left_behind() {
        let counts = SourceCounts::default();
        let client: IpAddr = "192.0.2.1".parse().unwrap();
        assert!(counts.acquire(client, 1));
        assert!(!counts.acquire(client, 1));
        counts.release(client);
        assert_eq!((counts.count(client), counts.clients()), (0, 0));
        assert!(counts.acquire(client, 1));
        assert!(counts.acquire(client, 5), "the limit was raised");
        assert!(!counts.acquire(client, 1), "and lowered");
        counts.release(client);
        counts.release(client);
        counts.release(client);
        assert_eq!(counts.clients(), 0);
        assert!(!counts.acquire(client, 0));
        assert_eq!(counts.clients(), 0);
    }

    #[test]
    fn memory_follows_the_connections() {
        let counts = SourceCounts::default();
        let clients = || (0..100_000_u32).map(|bits| IpAddr::V4(bits.into()));
        let capacity = || counts.shards.iter().map(|shard| lock(shard).capacity()).sum::<usize>();
        assert!(clients().all(|client| counts.acquire(client, 1)));
        assert_eq!(counts.clients(), 100_000);
        assert!(capacity() >= 100_000);
        clients().for_each(|client| counts.release(client));
        assert!(capacity() <= 2 * SHARDS * SMALL, "{}", capacity());
    }

    #[test]
    fn threads_never_exceed_the_limit_and_lose_nothing() {
        let counts = SourceCounts::default();
        let client: IpAddr = "2001:db8::1".parse().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        if counts.acquire(client, 3) {
                            assert!((1..=3).contains(&counts.count(client)));
                            counts.release(client);
                        }
                    }
                });
            }
        });
        assert_eq!(counts.clients(), 0);
    }
}
