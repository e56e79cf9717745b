//! Challenges that wait for a response, for a limited time and in a limited number, in total and per source address.
//!
//! Anyone may request one without an account. When the limit is reached the oldest of the source that has most is dropped, so that a prompt
//! response succeeds whatever others do: many sources with many each displace their own.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

/// How long challenges wait, and how many.
#[derive(Clone, Copy, Debug)]
pub struct ChallengeLimits {
    /// How long each waits.
    pub ttl: Duration,
    /// How many wait at most.
    pub max: usize,
    /// How many of one source wait at most: of an IPv4 address, or of a /64 of IPv6.
    pub max_per_source: usize,
}

/// Values that wait under a random identifier, which comes back with the response. Times are those of one monotonic clock.
#[derive(Debug)]
pub struct Challenges<T> {
    limits: ChallengeLimits,
    pending: HashMap<String, Pending<T>>,
}

#[derive(Debug)]
struct Pending<T> {
    since: Duration,
    source: IpAddr,
    value: T,
}

impl<T> Challenges<T> {
    /// An empty set.
    #[must_use]
    pub fn new(limits: ChallengeLimits) -> Self {
        Self { limits, pending: HashMap::new() }
    }

    /// Stores `value` under a new identifier.
    pub fn insert(&mut self, now: Duration, source: IpAddr, id: String, value: T) {
        let (source, ttl) = (network(source), self.limits.ttl);
        self.pending.retain(|_, pending| now.saturating_sub(pending.since) < ttl);
        let of_source = self.pending.values().filter(|pending| pending.source == source).count();
        if of_source >= self.limits.max_per_source {
            self.remove_oldest(|pending| pending.source == source);
        } else if self.pending.len() >= self.limits.max {
            let most = self.largest_source();
            self.remove_oldest(|pending| Some(pending.source) == most);
        }
        self.pending.insert(id, Pending { since: now, source, value });
    }

    /// The source of which most wait; of several, the one whose oldest has waited longest.
    fn largest_source(&self) -> Option<IpAddr> {
        let mut counts: HashMap<IpAddr, (usize, Reverse<Duration>)> = HashMap::new();
        for pending in self.pending.values() {
            let (count, oldest) = counts.entry(pending.source).or_insert((0, Reverse(pending.since)));
            *count += 1;
            *oldest = (*oldest).max(Reverse(pending.since));
        }
        counts.into_iter().max_by_key(|(_, rank)| *rank).map(|(source, _)| source)
    }

    fn remove_oldest(&mut self, filter: impl Fn(&Pending<T>) -> bool) {
        let candidates = self.pending.iter().filter(|(_, pending)| filter(pending));
        let oldest = candidates.min_by_key(|(_, pending)| pending.since).map(|(id, _)| id.clone());
        oldest.map(|id| self.pending.remove(&id));
    }

    /// Removes and returns the value under this identifier: each is answered once.
    pub fn take(&mut self, now: Duration, id: &str) -> Option<T> {
        self.take_if(now, id, |_| true)
    }

    /// The same, for a value that meets a condition; another one stays.
    pub fn take_if(&mut self, now: Duration, id: &str, condition: impl FnOnce(&T) -> bool) -> Option<T> {
        self.pending.get(id).filter(|pending| condition(&pending.value))?;
        let pending = self.pending.remove(id)?;
        (now.saturating_sub(pending.since) < self.limits.ttl).then_some(pending.value)
    }
}

/// What counts as one source: an IPv4 address, or a /64 of IPv6, which one host usually has to itself.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: ChallengeLimits =
        ChallengeLimits { ttl: Duration::from_secs(300), max: 6, max_per_source: 3 };

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn at(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    #[test]
    fn many_sources_displace_their_own() {
        let mut challenges = Challenges::new(LIMITS);
        challenges.insert(at(0), ip(1), "mine".to_owned(), 'm');
        for number in 0..100_u8 {
            challenges.insert(at(1), ip(2 + number % 3), format!("{number}"), 'x');
        }
        assert_eq!(challenges.take(at(2), "mine"), Some('m'));
    }

    #[test]
    fn a_challenge_is_answered_once_and_in_time() {
        let mut challenges = Challenges::new(LIMITS);
        challenges.insert(at(0), ip(1), "a".to_owned(), 'a');
        challenges.insert(at(1), ip(1), "b".to_owned(), 'b');
        assert_eq!(challenges.take(at(299), "a"), Some('a'));
        assert_eq!(challenges.take(at(299), "a"), None);
        assert_eq!(challenges.take(at(301), "b"), None);
        assert_eq!(challenges.take(at(301), "c"), None);
    }

    #[test]
    fn a_challenge_that_does_not_meet_the_condition_stays() {
        let mut challenges = Challenges::new(LIMITS);
        challenges.insert(at(0), ip(1), "a".to_owned(), 'a');
        assert_eq!(challenges.take_if(at(1), "a", |value| *value == 'b'), None);
        assert_eq!(challenges.take_if(at(1), "a", |value| *value == 'a'), Some('a'));
    }

    #[test]
    fn a_source_that_requests_many_displaces_its_own() {
        let mut challenges = Challenges::new(LIMITS);
        challenges.insert(at(0), ip(1), "mine".to_owned(), 0);
        for n in 1..=100 {
            challenges.insert(at(n), ip(2), format!("theirs {n}"), n);
        }
        assert_eq!(challenges.pending.len(), 1 + LIMITS.max_per_source);
        assert_eq!(challenges.take(at(100), "theirs 97"), None);
        assert_eq!(challenges.take(at(100), "theirs 98"), Some(98));
        assert_eq!(challenges.take(at(100), "mine"), Some(0));
    }

    #[test]
    fn a_64_is_one_source() {
        let mut challenges = Challenges::new(LIMITS);
        for n in 0..10_u16 {
            let address = IpAddr::from([0x2001, 0xdb8, 0, 0, n, 0, 0, n]);
            challenges.insert(at(n.into()), address, n.to_string(), n);
        }
        challenges.insert(at(10), IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, 0]), "other".to_owned(), 10);
        assert_eq!(challenges.pending.len(), 1 + LIMITS.max_per_source);
    }

    #[test]
    fn the_oldest_is_dropped_at_the_limit() {
        let mut challenges = Challenges::new(LIMITS);
        for n in 0..100 {
            challenges.insert(at(n), ip(u8::try_from(n).unwrap()), n.to_string(), n);
            assert!(challenges.pending.len() <= LIMITS.max);
        }
        assert_eq!(challenges.take(at(100), "93"), None);
        assert_eq!(challenges.take(at(100), "94"), Some(94));
        // Expired ones are dropped as well.
        challenges.insert(at(1000), ip(1), "new".to_owned(), 1);
        assert_eq!(challenges.pending.len(), 1);
    }
}
