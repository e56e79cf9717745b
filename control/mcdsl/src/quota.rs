//! A quota that many sources share: body bytes in flight, connections, streams.
//!
//! There is a limit for all sources together and a lower one for each, so that one source cannot use up what the others
//! need. Nothing waits: what does not fit is refused at once, and the caller says so to its client. IPv6 addresses
//! count by /64, because one host is usually given that many (RFC 6177, section 2; RFC 4862 takes the lower half as it
//! likes).

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The limits, and what is in use.
#[derive(Debug)]
pub(crate) struct Quota {
    max: usize,
    max_per_source: usize,
    used: Mutex<Used>,
}

#[derive(Debug, Default)]
struct Used {
    total: usize,
    /// Only sources that use something.
    by_source: HashMap<IpAddr, usize>,
}

/// Which limit a request for more would exceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exceeded {
    Total,
    Source,
}

/// What one user of the quota holds. It is given back on drop.
#[derive(Debug)]
pub(crate) struct Share {
    quota: Arc<Quota>,
    source: IpAddr,
    amount: usize,
}

impl Quota {
    pub(crate) fn new(max: usize, max_per_source: usize) -> Arc<Self> {
        Arc::new(Self { max, max_per_source, used: Mutex::default() })
    }

    /// A share of this size, which may be zero and [grow](Share::grow).
    pub(crate) fn take(self: &Arc<Self>, source: IpAddr, amount: usize) -> Result<Share, Exceeded> {
        let mut share = Share { quota: Arc::clone(self), source: source_of(source), amount: 0 };
        share.grow(amount)?;
        Ok(share)
    }

    /// What is in use by all sources.
    pub(crate) fn used(&self) -> usize {
        self.lock().total
    }

    fn lock(&self) -> MutexGuard<'_, Used> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    pub(crate) fn grow(&mut self, by: usize) -> Result<(), Exceeded> {
        if by == 0 {
            return Ok(());
        }
        let mut used = self.quota.lock();
        let of_source = used.by_source.get(&self.source).copied().unwrap_or_default();
        if by > self.quota.max_per_source.saturating_sub(of_source) {
            return Err(Exceeded::Source);
        }
        if by > self.quota.max.saturating_sub(used.total) {
            return Err(Exceeded::Total);
        }
        used.total += by;
        used.by_source.insert(self.source, of_source + by);
        drop(used);
        self.amount += by;
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if self.amount == 0 {
            return;
        }
        let mut used = self.quota.lock();
        used.total -= self.amount;
        if let Some(of_source) = used.by_source.get_mut(&self.source) {
            *of_source -= self.amount;
            if *of_source == 0 {
                used.by_source.remove(&self.source);
            }
        }
    }
}

/// The network that an address is counted by.
fn source_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_source_has_its_share_and_all_have_the_whole() {
        let quota = Quota::new(10, 4);
        let first = quota.take(ip("192.0.2.1"), 3).unwrap();
        assert_eq!(quota.take(ip("192.0.2.1"), 2).err(), Some(Exceeded::Source));
        let _mapped = quota.take(ip("::ffff:192.0.2.1"), 1).unwrap();
        assert_eq!(quota.take(ip("192.0.2.1"), 1).err(), Some(Exceeded::Source));
        let _second = quota.take(ip("192.0.2.2"), 4).unwrap();
        assert_eq!(quota.take(ip("192.0.2.3"), 3).err(), Some(Exceeded::Total));
        assert_eq!(quota.used(), 8);
        drop(first);
        let mut third = quota.take(ip("192.0.2.3"), 3).unwrap();
        assert_eq!(third.grow(2), Err(Exceeded::Source));
        third.grow(1).unwrap();
        drop(third);
        assert_eq!(quota.used(), 5);
    }

    #[test]
    fn ipv6_addresses_count_by_64() {
        let quota = Quota::new(10, 1);
        let _held = quota.take(ip("2001:db8:0:1::1"), 1).unwrap();
        assert_eq!(quota.take(ip("2001:db8:0:1:ffff::9"), 1).err(), Some(Exceeded::Source));
        assert!(quota.take(ip("2001:db8:0:2::1"), 1).is_ok());
    }

    #[test]
    fn sources_that_hold_nothing_are_forgotten() {
        let quota = Quota::new(10, 10);
        for last in 0..100 {
            drop(quota.take(ip(&format!("192.0.2.{last}")), 1).unwrap());
        }
        let _empty = quota.take(ip("192.0.2.200"), 0).unwrap();
        assert!(quota.lock().by_source.is_empty());
    }
}
