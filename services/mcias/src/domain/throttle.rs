//! Slows down guessing: a delay that rises with failures, and that nobody can impose on somebody else.
//!
//! An account that is locked after some failures can be locked by anyone who knows its name. So each delay belongs to where the
//! attempts come from, and an attempt never uses up somebody else's turn:
//!
//! - The pair of an account and a source has a few failures free. Then it waits 1 s, 2 s, 4 s, up to 15 min after each attempt.
//! - A source that tries many accounts does so too, up to 5 min.
//! - An account that many sources fail at makes each of them wait up to 30 s after *its own* last attempt, so that a new
//!   source gets one guess where it had five, and the owner on a new device waits no longer than that.
//!
//! A *familiar* source, one that has logged in to the account before, is subject to the first rule alone. The owner
//! at home logs in at once whatever is done elsewhere, also from the same address to other accounts. Who guesses at the same account
//! from the same address can delay its owner there, though: the two are not told apart.
//!
//! Six digits are few: whoever has somebody's password and many sources would guess them. So the codes of a second factor have a
//! delay that belongs to the account, up to 15 min, which nobody can bring about who does not know the password. Its owner
//! has recovery codes and passkeys meanwhile, which are not delayed. What failed is remembered for a day, so that there are some 110 guesses
//! a day, and 14 more after each right code: three codes in a million are right at a time.
//!
//! [`Throttle::check`] reserves the attempt: it counts as a failure from then on, until [`Throttle::succeeded`] takes it back. So a
//! thousand attempts at once are a thousand attempts, though none has failed yet, and one that is given up is counted.
//!
//! With the defaults, one source has at most 320 guesses a day at an account and 660 at all accounts. An attacker
//! with many sources has that many times more; nothing that spares the owner prevents it. That is what [`super::password`] is for.
//! A service that logs people in says where they are, and is believed: whoever has its token has as many sources as they like to name.
//!
//! Left out: keeping this over a restart, and how a source comes to be familiar.

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
    /// Failures of a source at an account that cost no delay.
    pub pair_free: u32,
    /// The longest delay of a source at an account, in seconds.
    pub pair_max_delay_s: u32,
    /// Failures of a source at accounts that it is not familiar with that cost no delay.
    pub source_free: u32,
    /// The longest delay of a source, in seconds.
    pub source_max_delay_s: u32,
    /// Failures at an account, from unfamiliar sources, that cost them no delay.
    pub account_free: u32,
    /// The longest delay of each unfamiliar source because of what others did, in seconds.
    pub account_max_delay_s: u32,
    /// Wrong codes of a second factor, after the right password, that cost no delay: of an account, wherever they come from.
    pub code_free: u32,
    /// The longest delay of an account's codes, in seconds.
    pub code_max_delay_s: u32,
    /// After so many seconds without an attempt, failures are forgotten.
    pub failure_ttl_s: u32,
    /// Pairs, sources and accounts that are remembered: so many of each. 100,000 take some 40 MB.
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

/// Where an attempt comes from: an IPv4 address, or an IPv6 /64, which is what one customer has at least.
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

/// Who failed where. Times are since any start, the same for all calls.
pub struct Throttle {
    limits: Limits,
    pairs: Table<(Name, Source)>,
    sources: Table<Source>,
    accounts: Table<Name>,
    codes: Table<Name>,
}

/// Attempts that count.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    failures: u32,
    /// Reserved, and neither failed nor succeeded yet.
    pending: u32,
    /// Those among the pending ones that are pending at the source too. Only a pair has any.
    pending_at_source: u32,
    /// When the last one was let through, or failed.
    last: Duration,
}

/// How long wrong codes are remembered: a pause does not make up for them.
const DAY: Duration = Duration::from_secs(24 * 3600);

struct Table<K> {
    counts: HashMap<K, Count>,
    forget: Duration,
    most: usize,
}

impl Throttle {
    /// Nobody has failed yet.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            pairs: Table::new(&limits),
            sources: Table::new(&limits),
            accounts: Table::new(&limits),
            codes: Table { forget: DAY, ..Table::new(&limits) },
        }
    }

    /// Whether an attempt may be made now, which reserves it: what let it through calls [`Self::failed`] or [`Self::succeeded`]
    /// afterwards. A refused attempt changes nothing, so that trying too early prolongs nothing.
    ///
    /// `familiar`: this source has logged in to this account before. An account need not exist: one that does not is
    /// treated the same.
    ///
    /// # Errors
    /// Not yet: how long to wait.
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
            // Others' failures make the delay, this pair's last attempt is where it begins.
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

    /// The attempt failed. `familiar` is what [`Self::check`] was told.
    pub fn failed(&mut self, account: &Name, source: Source, familiar: bool, now: Duration) {
        let pair = self.pairs.entry((account.clone(), source), now);
        pair.fail(now);
        if !familiar {
            pair.pending_at_source = pair.pending_at_source.saturating_sub(1);
            self.sources.entry(source, now).fail(now);
            self.accounts.entry(account.clone(), now).fail(now);
        }
    }

    /// The attempt neither failed nor succeeded: something else came between.
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

    /// The attempt succeeded: what failed before it in this pair is forgotten. The source's own failures are not: who guesses
    /// at others' accounts could log in to their own in between.
    pub fn succeeded(&mut self, account: &Name, source: Source) {
        if let Some(pair) = self.pairs.counts.get_mut(&(account.clone(), source)) {
            pair.failures = 0;
        }
        self.released(account, source);
    }

    /// Whether a code of an account's second factor counts, which is asked once the password was right and it is known
    /// whether the code is: a wrong one counts as a failure, a right one forgets those before it.
    ///
    /// # Errors
    /// Not yet, right or wrong: how long to wait.
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

    /// How long after the last attempt the next one may be made, from now on: 1 s after the free ones, and twice as long each time.
    fn wait(&self, attempts: u32, free: u32, most_s: u32, now: Duration) -> Duration {
        let Some(over) = attempts.checked_sub(free) else { return Duration::ZERO };
        let delay_s = 1_u32.checked_shl(over).unwrap_or(u32::MAX).min(most_s);
        (self.last + Duration::from_secs(delay_s.into())).saturating_sub(now)
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
            forget: Duration::from_secs(limits.failure_ttl_s.into()),
            most: usize::try_from(limits.entries).unwrap_or(usize::MAX).max(1),
        }
    }

    fn get(&self, key: &K, now: Duration) -> Count {
        self.counts.get(key).filter(|count| !self.is_forgotten(count, now)).copied().unwrap_or_default()
    }

    fn entry(&mut self, key: K, now: Duration) -> &mut Count {
        if self.counts.len() >= self.most && !self.counts.contains_key(&key) {
            self.make_room(now);
        }
        let fresh = self.get(&key, now);
        let count = self.counts.entry(key).or_default();
        *count = fresh;
        count
    }

    fn is_forgotten(&self, count: &Count, now: Duration) -> bool {
        now.saturating_sub(count.last) >= self.forget
    }

    /// Forgets what may be forgotten, or else the most harmless tenth: those with the fewest attempts, the oldest first. Who wants
    /// his own failures forgotten must make as many for every other entry.
    fn make_room(&mut self, now: Duration) {
        let forget = self.forget;
        self.counts.retain(|_, count| now.saturating_sub(count.last) < forget);
        let few = self.most / 10 + 1;
        if self.counts.len() + few <= self.most {
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
