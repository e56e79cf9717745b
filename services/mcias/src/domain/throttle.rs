//! Login throttling: a delay that grows with failures, and that an attacker cannot impose on the owner of an account.
//!
//! If failures locked an account, anybody who knows its name could lock it. So each delay belongs to the source of the
//! attempts, and an attempt never delays another source by itself:
//!
//! - The pair of an account and a source has a few failures free. Then it waits 1 s, 2 s, 4 s, up to 15 min after each attempt.
//! - A source that tries many accounts is delayed in the same way, up to 5 min; and up to 10 s where as many of its attempts were refused unseen
//!   within a minute, because too many wait. That is less, as many people may be behind one address.
//! - An account at which many sources fail makes each other source wait up to 30 s: before its first attempt, from the moment at which it
//!   first asked, and then after *its own* last attempt. So many sources with one guess each are delayed too, and the owner on a new device
//!   waits no longer than that.
//!
//! A *familiar* source, one that has logged in to the account before, is subject to the first rule only. The owner at
//! home logs in immediately whatever happens elsewhere, even if the same address attacks other accounts. An attacker
//! who guesses at the same account from the same address does delay the owner there: the two cannot be told apart.
//!
//! A service that logs people in states their address, and can state any. So what each service states is counted apart, as if there were
//! nobody else ([`Origin::stated_by`]): it delays no attempt that comes directly or through another service. As any number of
//! addresses can be made up, there is a limit on failures of unfamiliar ones within an hour for each service as a whole.
//!
//! Six digits are few: an attacker with the password and many sources could guess them. So the codes of a second factor have a delay that
//! belongs to the account, up to 15 min, which nobody can cause without the password. The owner still has recovery codes and passkeys, which
//! are not delayed. Failed codes are remembered for a day: an attacker has about 110 guesses a day, and 14 more after each correct code; three codes in
//! a million are valid at a time.
//!
//! [`Throttle::check`] reserves the attempt: it counts as a failure until [`Throttle::succeeded`] takes it back. So a
//! thousand concurrent attempts count as a thousand, although none has failed yet, and an abandoned attempt counts.
//!
//! With the defaults, one source has at most 320 guesses a day at one account and 660 at all accounts. An attacker with many sources has that
//! many times more; nothing that spares the owner prevents it. That is what [`super::password`] is for. An attacker with the token of a
//! service has 24,000 a day at all accounts together.
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
    /// Failures of unfamiliar sources within an hour, of all that one service states.
    pub service_max_per_hour: u32,
    /// Wrong codes of an account's second factor, after the correct password and from any source, without a delay.
    pub code_free: u32,
    /// The longest delay of an account's codes, in seconds.
    pub code_max_delay_s: u32,
    /// Failures are forgotten after so many seconds without an attempt.
    pub failure_ttl_s: u32,
    /// How many pairs, sources and accounts are remembered, of each: as many again for what all services state. 100,000 take about 40 MB.
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
            service_max_per_hour: 1000,
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

/// Where an attempt comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// The source: of the connection, or as a service states it.
    pub source: Source,
    /// The service that states it.
    pub stated_by: Option<Name>,
}

impl From<IpAddr> for Origin {
    /// An attempt that comes directly.
    fn from(address: IpAddr) -> Self {
        Self { source: Source::from(address), stated_by: None }
    }
}

/// Failures by source and account. Times are since an arbitrary start, the same for all calls.
pub struct Throttle {
    limits: Limits,
    direct: Space,
    /// By the service that states where attempts come from.
    stated: HashMap<Name, Space>,
    codes: Table<Name>,
}

/// Attempts that are counted together, and apart from all others.
struct Space {
    pairs: Table<(Name, Source)>,
    sources: Table<Source>,
    accounts: Table<Name>,
    /// Attempts that were refused unseen.
    turned_away: Table<Source>,
    /// Failures of all unfamiliar sources: of those that a service states.
    rate: Option<Rate>,
    /// When there was an attempt.
    last: Duration,
}

/// Attempts of one key.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    failures: u32,
    /// Reserved attempts that have neither failed nor succeeded yet.
    pending: u32,
    /// Pending attempts that are pending at the source and the account as well. Only pairs use it.
    unfamiliar: u32,
    /// When the last attempt was allowed or failed.
    last: Duration,
    /// When the first attempt was refused because of other sources' failures. Only pairs use it.
    asked: Option<Duration>,
}

/// A limit on how many within an hour: they drain evenly (the generic cell rate algorithm).
struct Rate {
    interval: Duration,
    /// When all are drained.
    empty_at: Duration,
}

/// How long wrong codes are remembered: a pause does not clear them.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// How long refusals of unseen attempts are remembered.
const MINUTE: Duration = Duration::from_secs(60);

/// The longest delay of a source because of refusals of unseen attempts, in seconds.
const TURNED_AWAY_MAX_DELAY_S: u32 = 10;

const HOUR: Duration = Duration::from_secs(3600);

/// Services whose statements are counted apart, at most: then the one that has stated nothing for the longest time is forgotten. Each has
/// this part of [`Limits::entries`].
const MAX_SERVICES: u32 = 32;

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
            direct: Space::new(&limits, None),
            stated: HashMap::new(),
            codes: Table { ttl: DAY, ..Table::new(&limits, limits.entries) },
        }
    }

    /// Reserves an attempt, if one is allowed now. Call [`Self::failed`] or [`Self::succeeded`] afterwards. A refused attempt changes
    /// no delay: trying too early does not prolong it.
    ///
    /// `familiar`: this source has logged in to this account before. Accounts that do not exist are treated the same.
    ///
    /// # Errors
    /// Returns how long to wait.
    pub fn check(
        &mut self,
        account: &Name,
        from: &Origin,
        familiar: bool,
        now: Duration,
    ) -> Result<(), Duration> {
        let limits = self.limits;
        self.space(from, now).check(&limits, account, from.source, familiar, now)
    }

    /// Records that the attempt failed. `familiar` is the same as for [`Self::check`].
    pub fn failed(&mut self, account: &Name, from: &Origin, familiar: bool, now: Duration) {
        let source = from.source;
        let space = self.space(from, now);
        let pair = space.pairs.entry((account.clone(), source), now);
        pair.fail(now);
        if !familiar {
            pair.unfamiliar = pair.unfamiliar.saturating_sub(1);
            space.sources.entry(source, now).fail(now);
            space.accounts.entry(account.clone(), now).fail(now);
        }
    }

    /// Records that the attempt ended without a result, because of another problem.
    pub fn released(&mut self, account: &Name, from: &Origin) {
        if let Some(space) = self.existing(from) {
            space.release(account, from.source);
        }
    }

    /// Records that the attempt was refused unseen because too many wait: that costs an unfamiliar source something, and nobody else.
    pub fn turned_away(&mut self, account: &Name, from: &Origin, now: Duration) {
        if let Some(space) = self.existing(from)
            && space.release(account, from.source)
        {
            space.turned_away.entry(from.source, now).fail(now);
        }
    }

    /// Records that the attempt succeeded: earlier failures of this pair are forgotten. Those of the source are not: an attacker could log in to an
    /// account of their own between guesses.
    pub fn succeeded(&mut self, account: &Name, from: &Origin) {
        let Some(space) = self.existing(from) else { return };
        if let Some(pair) = space.pairs.counts.get_mut(&(account.clone(), from.source)) {
            pair.failures = 0;
            pair.asked = None;
        }
        space.release(account, from.source);
    }

    /// What is counted together with an attempt from there.
    fn space(&mut self, from: &Origin, now: Duration) -> &mut Space {
        let Some(service) = &from.stated_by else { return &mut self.direct };
        if !self.stated.contains_key(service) && self.stated.len() >= MAX_SERVICES as usize {
            let oldest = self.stated.iter().min_by_key(|(_, space)| space.last).map(|(name, _)| name.clone());
            oldest.map(|oldest| self.stated.remove(&oldest));
        }
        let limits = self.limits;
        let space = self.stated.entry(service.clone()).or_insert_with(|| {
            let interval = HOUR / limits.service_max_per_hour.max(1);
            Space::new(&limits, Some(Rate { interval, empty_at: Duration::ZERO }))
        });
        space.last = now;
        space
    }

    fn existing(&mut self, from: &Origin) -> Option<&mut Space> {
        match &from.stated_by {
            None => Some(&mut self.direct),
            Some(service) => self.stated.get_mut(service),
        }
    }

    /// Records a code of an account's second factor, once the password is known to be correct and the code has been compared: a wrong code
    /// counts as a failure, a correct one clears earlier failures.
    ///
    /// # Errors
    /// The code does not count yet, correct or not: returns how long to wait.
    pub fn code(&mut self, account: &Name, right: bool, now: Duration) -> Result<(), Duration> {
        let count = self.codes.get(account, now);
        let wait = count.wait(self.limits.code_free, self.limits.code_max_delay_s, now);
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
            .field("direct", &self.direct)
            .field("stated", &self.stated)
            .field("codes", &self.codes.counts.len())
            .finish()
    }
}

impl fmt::Debug for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Space")
            .field("pairs", &self.pairs.counts.len())
            .field("sources", &self.sources.counts.len())
            .field("accounts", &self.accounts.counts.len())
            .finish_non_exhaustive()
    }
}

impl Space {
    fn new(limits: &Limits, rate: Option<Rate>) -> Self {
        let entries = if rate.is_some() { limits.entries / MAX_SERVICES } else { limits.entries };
        Self {
            pairs: Table::new(limits, entries),
            sources: Table::new(limits, entries),
            accounts: Table::new(limits, entries),
            turned_away: Table { ttl: MINUTE, ..Table::new(limits, entries) },
            rate,
            last: Duration::ZERO,
        }
    }

    fn check(
        &mut self,
        limits: &Limits,
        account: &Name,
        source: Source,
        familiar: bool,
        now: Duration,
    ) -> Result<(), Duration> {
        let key = (account.clone(), source);
        let pair = self.pairs.get(&key, now);
        let mut wait = pair.wait(limits.pair_free, limits.pair_max_delay_s, now);
        if !familiar {
            let all = self.sources.get(&source, now);
            wait = wait.max(all.wait(limits.source_free, limits.source_max_delay_s, now));
            let unseen = self.turned_away.get(&source, now);
            wait = wait.max(unseen.wait(limits.source_free, TURNED_AWAY_MAX_DELAY_S, now));
            wait = wait.max(self.rate.as_ref().map_or(Duration::ZERO, |rate| rate.wait(now)));
            // The delay depends on the failures of others, and begins at this pair's last attempt, or when it first asked for one.
            let others = self.accounts.get(account, now).attempts();
            if let Some(delay) = delay(others, limits.account_free, limits.account_max_delay_s) {
                let since = if pair.attempts() > 0 { pair.last } else { self.asked(&key, now) };
                wait = wait.max((since + delay).saturating_sub(now));
            }
        }
        if !wait.is_zero() {
            return Err(wait);
        }
        let pair = self.pairs.entry(key, now);
        pair.reserve(now);
        if !familiar {
            pair.unfamiliar = pair.unfamiliar.saturating_add(1);
            self.sources.entry(source, now).reserve(now);
            self.accounts.entry(account.clone(), now).reserve(now);
            self.rate.iter_mut().for_each(|rate| rate.take(now));
        }
        Ok(())
    }

    /// When a pair first asked for an attempt: now, if it never did.
    fn asked(&mut self, key: &(Name, Source), now: Duration) -> Duration {
        if let Some(asked) = self.pairs.get(key, now).asked {
            return asked;
        }
        let pair = self.pairs.entry(key.clone(), now);
        pair.last = now;
        *pair.asked.insert(now)
    }

    /// Takes back a pending attempt. Returns whether it was pending at the source too.
    fn release(&mut self, account: &Name, source: Source) -> bool {
        let key = (account.clone(), source);
        let Some(pair) = self.pairs.counts.get_mut(&key) else { return false };
        pair.pending = pair.pending.saturating_sub(1);
        let was_unfamiliar = pair.unfamiliar > 0;
        pair.unfamiliar = pair.unfamiliar.saturating_sub(1);
        // What it has waited for stays.
        if pair.attempts() == 0 && pair.asked.is_none() {
            self.pairs.counts.remove(&key);
        }
        if was_unfamiliar {
            self.sources.release(&source);
            self.accounts.release(account);
            self.rate.iter_mut().for_each(Rate::give_back);
        }
        was_unfamiliar
    }
}

impl Rate {
    fn wait(&self, now: Duration) -> Duration {
        (self.empty_at.max(now) + self.interval).saturating_sub(now + HOUR)
    }

    fn take(&mut self, now: Duration) {
        self.empty_at = self.empty_at.max(now) + self.interval;
    }

    fn give_back(&mut self) {
        self.empty_at = self.empty_at.saturating_sub(self.interval);
    }
}

/// The delay after so many attempts: 1 s after the free ones, doubled each time.
fn delay(attempts: u32, free: u32, max_s: u32) -> Option<Duration> {
    let over = attempts.checked_sub(free)?;
    Some(Duration::from_secs(1_u32.checked_shl(over).unwrap_or(u32::MAX).min(max_s).into()))
}

/// Whole seconds, as clients are told: one that waits as long as it was told is not too early.
fn whole_seconds(wait: Duration) -> Duration {
    Duration::from_secs(wait.as_secs() + u64::from(wait.subsec_nanos() > 0))
}

impl Count {
    const fn attempts(&self) -> u32 {
        self.failures.saturating_add(self.pending)
    }

    /// How long to wait from now for the next attempt.
    fn wait(&self, free: u32, max_s: u32, now: Duration) -> Duration {
        let delay = delay(self.attempts(), free, max_s);
        delay.map_or(Duration::ZERO, |delay| whole_seconds((self.last + delay).saturating_sub(now)))
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
    fn new(limits: &Limits, entries: u32) -> Self {
        Self {
            counts: HashMap::new(),
            ttl: Duration::from_secs(limits.failure_ttl_s.into()),
            max: usize::try_from(entries).unwrap_or(usize::MAX).max(1),
        }
    }

    /// Takes back a pending attempt.
    fn release(&mut self, key: &K) {
        let Some(count) = self.counts.get_mut(key) else { return };
        count.pending = count.pending.saturating_sub(1);
        if count.attempts() == 0 {
            self.counts.remove(key);
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
