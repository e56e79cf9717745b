//! Login throttling: a delay that grows with failures, and that an attacker cannot impose on the owner of an account.
//!
//! If failures locked an account, anybody who knows its name could lock it. So each delay belongs to the source of the
//! attempts, and an attempt never delays another source by itself:
//!
//! - The pair of an account and a source has a few failures free. Then it waits 1 s, 2 s, 4 s, up to 15 min after each
//!   attempt.
//! - A source that tries many accounts is delayed in the same way, up to 5 min.
//! - An account at which many sources fail makes each of them wait up to 30 s after *its own* last attempt, so that a
//!   new source has one guess instead of five, and the owner on a new device waits no longer than that.
//!
//! A *familiar* source, one that has logged in to the account before, is subject to the first rule only. The owner at
//! home logs in immediately whatever happens elsewhere, even if the same address attacks other accounts. An attacker
//! who guesses at the same account from the same address does delay the owner there: the two cannot be told apart.
//!
//! Six digits are few: an attacker with the password and many sources could guess them. So the codes of a second factor
//! have a delay that belongs to the account, up to 15 min, which nobody can cause without the password. The owner still
//! has recovery codes and passkeys, which are not delayed. Failed codes are remembered for a day: an attacker has about
//! 110 guesses a day, and 14 more after each correct code; three codes in a million are valid at a time.
//!
//! [`Throttle::check`] reserves the attempt: it counts as a failure until [`Throttle::succeeded`] takes it back. So a
//! thousand concurrent attempts count as a thousand, although none has failed yet, and an abandoned attempt counts.
//!
//! With the defaults, one source has at most 320 guesses a day at one account and 660 at all accounts. An attacker with
//! many sources has that many times more; nothing that spares the owner prevents it. That is what [`super::password`]
//! is for. A service that logs people in states their address and is trusted: a holder of its token can name any number
//! of sources.
//!
//! Left out: surviving a restart, and how a source becomes familiar.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Name;

/// `[throttle]` of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Failures of a source at an account without a delay.
    pub pair_free: u32,
    /// The longest delay of a source at an account, in seconds.
    pub pair_max_delay_s: u32,
    /// Failures of a source at unfamiliar accounts without a delay.
    pub source_free: u32,
    /// The longest delay of a source, in seconds.
    pub source_max_delay_s: u32,
    /// Failures of unfamiliar sources at an account without a delay.
    pub account_free: u32,
    /// The longest delay of an unfamiliar source because of other sources' failures, in seconds.
    pub account_max_delay_s: u32,
    /// Wrong codes of an account's second factor, after the correct password and from any source, without a delay.
    pub code_free: u32,
    /// The longest delay of an account's codes, in seconds.
    pub code_max_delay_s: u32,
    /// Failures are forgotten after so many seconds without an attempt.
    pub failure_ttl_s: u32,
    /// How many pairs, sources and accounts are remembered, of each. 100,000 take about 40 MB.
    pub entries: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            pair_free: 5,
            pair_max_delay_s: 15 * 60,
            source_free: 20,
            source_max_delay_s: 5 * 60,
            account_free: 20,
            account_max_delay_s: 30,
            code_free: 5,
            code_max_delay_s: 15 * 60,
            failure_ttl_s: 60 * 60,
            entries: 100_000,
        }
    }
}

/// The source of an attempt: an IPv4 address, or an IPv6 /64, the smallest network that a customer gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Source(IpAddr);

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(v6) => Self(IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64))),
            v4 @ IpAddr::V4(_) => Self(v4),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = if self.0.is_ipv6() { "/64" } else { "" };
        write!(f, "{}{size}", self.0)
    }
}

/// Failures by source and account. Times are since an arbitrary start, the same for all calls.
pub struct Throttle {
    limits: Limits,
    pairs: Table<(Name, Source)>,
    sources: Table<Source>,
    accounts: Table<Name>,
    codes: Table<Name>,
}

/// Attempts of one key.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    failures: u32,
    /// Reserved attempts that have neither failed nor succeeded yet.
    pending: u32,
    /// Pending attempts that are pending at the source as well. Only pairs use it.
    pending_at_source: u32,
    /// When the last attempt was allowed or failed.
    last: Duration,
}

/// How long wrong codes are remembered: a pause does not clear them.
const DAY: Duration = Duration::from_secs(24 * 3600);

struct Table<K> {
    counts: HashMap<K, Count>,
    ttl: Duration,
    max: usize,
}

impl Throttle {
    /// A throttle without failures.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            pairs: Table::new(&limits),
            sources: Table::new(&limits),
            accounts: Table::new(&limits),
            codes: Table { ttl: DAY, ..Table::new(&limits) },
        }
    }

    /// Reserves an attempt, if one is allowed now. Call [`Self::failed`] or [`Self::succeeded`] afterwards. A refused attempt changes
    /// nothing: trying too early does not prolong the delay.
    ///
    /// `familiar`: this source has logged in to this account before. Accounts that do not exist are treated the same.
    ///
    /// # Errors
    /// Returns how long to wait.
    pub fn check(
        &mut self,
        account: &Name,
        source: Source,
        familiar: bool,
        now: Duration,
    ) -> Result<(), Duration> {
        let limits = self.limits;
        let pair = self.pairs.get(&(account.clone(), source), now);
        let mut wait = pair.wait(pair.attempts(), limits.pair_free, limits.pair_max_delay_s, now);
        if !familiar {
            let all = self.sources.get(&source, now);
            wait = wait.max(all.wait(all.attempts(), limits.source_free, limits.source_max_delay_s, now));
            // The delay depends on the failures of others, and begins at this pair's last attempt.
            let others = self.accounts.get(account, now).attempts();
            if pair.attempts() > 0 {
                wait = wait.max(pair.wait(others, limits.account_free, limits.account_max_delay_s, now));
            }
        }
        if !wait.is_zero() {
            return Err(wait);
        }
        let pair = self.pairs.entry((account.clone(), source), now);
        pair.reserve(now);
        if !familiar {
            pair.pending_at_source = pair.pending_at_source.saturating_add(1);
            self.sources.entry(source, now).reserve(now);
        }
        Ok(())
    }

    /// Records that the attempt failed. `familiar` is the same as for [`Self::check`].
    pub fn failed(&mut self, account: &Name, source: Source, familiar: bool, now: Duration) {
        let pair = self.pairs.entry((account.clone(), source), now);
        pair.fail(now);
        if !familiar {
            pair.pending_at_source = pair.pending_at_source.saturating_sub(1);
            self.sources.entry(source, now).fail(now);
            self.accounts.entry(account.clone(), now).fail(now);
        }
    }

    /// Records that the attempt ended without a result, because of another problem.
    pub fn released(&mut self, account: &Name, source: Source) {
        let key = (account.clone(), source);
        let Some(pair) = self.pairs.counts.get_mut(&key) else { return };
        pair.pending = pair.pending.saturating_sub(1);
        if pair.pending_at_source > 0 {
            pair.pending_at_source -= 1;
            if let Some(all) = self.sources.counts.get_mut(&source) {
                all.pending = all.pending.saturating_sub(1);
            }
        }
        if pair.attempts() == 0 {
            self.pairs.counts.remove(&key);
        }
    }

    /// Records that the attempt succeeded: earlier failures of this pair are forgotten. Those of the source are not: an attacker could log in to an
    /// account of their own between guesses.
    pub fn succeeded(&mut self, account: &Name, source: Source) {
        if let Some(pair) = self.pairs.counts.get_mut(&(account.clone(), source)) {
            pair.failures = 0;
        }
        self.released(account, source);
    }

    /// Records a code of an account's second factor, once the password is known to be correct and the code has been compared: a wrong code
    /// counts as a failure, a correct one clears earlier failures.
    ///
    /// # Errors
    /// The code does not count yet, correct or not: returns how long to wait.
    pub fn code(&mut self, account: &Name, right: bool, now: Duration) -> Result<(), Duration> {
        let count = self.codes.get(account, now);
        let wait = count.wait(count.attempts(), self.limits.code_free, self.limits.code_max_delay_s, now);
        if !wait.is_zero() {
            return Err(wait);
        }
        if right {
            self.codes.counts.remove(account);
        } else {
            self.codes.entry(account.clone(), now).fail(now);
        }
        Ok(())
    }
}

impl fmt::Debug for Throttle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Throttle")
            .field("limits", &self.limits)
            .field("pairs", &self.pairs.counts.len())
            .field("sources", &self.sources.counts.len())
            .field("accounts", &self.accounts.counts.len())
            .field("codes", &self.codes.counts.len())
            .finish()
    }
}

impl Count {
    const fn attempts(&self) -> u32 {
        self.failures.saturating_add(self.pending)
    }

    /// How long to wait from now for the next attempt: 1 s after the free ones, doubled each time. Whole seconds, as clients
    /// are told: one that waits as long as it was told is not too early.
    fn wait(&self, attempts: u32, free: u32, max_s: u32, now: Duration) -> Duration {
        let Some(over) = attempts.checked_sub(free) else { return Duration::ZERO };
        let delay_s = 1_u32.checked_shl(over).unwrap_or(u32::MAX).min(max_s);
        let wait = (self.last + Duration::from_secs(delay_s.into())).saturating_sub(now);
        Duration::from_secs(wait.as_secs() + u64::from(wait.subsec_nanos() > 0))
    }

    const fn reserve(&mut self, now: Duration) {
        self.pending = self.pending.saturating_add(1);
        self.last = now;
    }

    const fn fail(&mut self, now: Duration) {
        self.pending = self.pending.saturating_sub(1);
        self.failures = self.failures.saturating_add(1);
        self.last = now;
    }
}

impl<K: Clone + Eq + Hash> Table<K> {
    fn new(limits: &Limits) -> Self {
        Self {
            counts: HashMap::new(),
            ttl: Duration::from_secs(limits.failure_ttl_s.into()),
            max: usize::try_from(limits.entries).unwrap_or(usize::MAX).max(1),
        }
    }

    fn get(&self, key: &K, now: Duration) -> Count {
        self.counts.get(key).filter(|count| !self.is_forgotten(count, now)).copied().unwrap_or_default()
    }

    fn entry(&mut self, key: K, now: Duration) -> &mut Count {
        if self.counts.len() >= self.max && !self.counts.contains_key(&key) {
            self.evict(now);
        }
        let fresh = self.get(&key, now);
        let count = self.counts.entry(key).or_default();
        *count = fresh;
        count
    }

    fn is_forgotten(&self, count: &Count, now: Duration) -> bool {
        now.saturating_sub(count.last) >= self.ttl
    }

    /// Removes expired entries, or else the least harmful tenth: those with the fewest attempts, oldest first. To have their own failures
    /// forgotten, an attacker must cause as many for every other entry.
    fn evict(&mut self, now: Duration) {
        let ttl = self.ttl;
        self.counts.retain(|_, count| now.saturating_sub(count.last) < ttl);
        let few = self.max / 10 + 1;
        if self.counts.len() + few <= self.max {
            return;
        }
        let mut all: Vec<(u32, Duration, K)> =
            self.counts.iter().map(|(key, count)| (count.attempts(), count.last, key.clone())).collect();
        let few = few.min(all.len());
        all.select_nth_unstable_by_key(few - 1, |(attempts, last, _)| (*attempts, *last));
        for (_, _, key) in all.drain(..few) {
            self.counts.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests;
