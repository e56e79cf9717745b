//! What is done without being asked: last uses written, what has ended forgotten, tokens that end soon warned about.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mcdsl::prometheus::Page;
use mcdsl::server::Stop;
use rusqlite::Connection;

use super::login::FAMILIAR_S;
use super::{Mcias, locked};
use crate::domain::token::KeyRing;
use crate::store;
use crate::store::tokens::Expiring;

/// What is counted.
#[derive(Debug, Default)]
pub struct Counters {
    logins: AtomicU64,
    failures: AtomicU64,
    turned_away: AtomicU64,
    introspections: AtomicU64,
    bad_tokens: Mutex<BTreeMap<&'static str, u64>>,
    /// Tokens of services that end soon.
    expiring: Mutex<Vec<Expiring>>,
    /// When the log was last told of each.
    warned: Mutex<HashMap<String, Duration>>,
}

impl Counters {
    pub(super) fn logged_in(&self) {
        self.logins.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn login_failed(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn turned_away(&self) {
        self.turned_away.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn introspected(&self) {
        self.introspections.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn bad_token(&self, why: &'static str) {
        *locked(&self.bad_tokens).entry(why).or_default() += 1;
    }
}

/// How often last uses are written.
const WRITE: Duration = Duration::from_secs(10);

/// How often what has ended is looked for.
const LOOK: Duration = Duration::from_secs(600);

/// How often the log is told of tokens that end soon.
const WARN: Duration = Duration::from_secs(24 * 3600);

/// How long the clock must not have been set before anything is forgotten by what it says.
const STEADY: Duration = Duration::from_secs(6 * 3600);

/// How long tokens and keys are kept after their end, in seconds: so that their owners can see when it was.
const KEPT_S: i64 = 30 * 24 * 3600;

impl Mcias {
    /// Does all of it, until it is told to stop.
    pub async fn work(&self, mut stop: Stop) {
        let mut write = tokio::time::interval(WRITE);
        let mut look = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                _ = write.tick() => {
                    self.hashing.rest();
                    self.write_uses().await;
                }
                _ = look.tick() => self.look().await,
                _ = stop.wait_for(|stop| *stop) => break,
            }
        }
        self.write_uses().await;
    }

    /// Writes when tokens were last seen.
    async fn write_uses(&self) {
        let seen: Vec<_> = std::mem::take(&mut *locked(&self.seen)).into_iter().collect();
        if seen.is_empty() {
            return;
        }
        let written = self.db.write(move |db| store::tokens::used(db, &seen)).await;
        if let Err(error) = written {
            tracing::warn!(error = mcdsl::chain(&error), "when tokens were last used could not be written");
        }
    }

    /// Forgets what has ended long ago, once the clock may be believed, and warns of tokens that end soon.
    pub async fn look(&self) {
        let (now, elapsed) = (self.now(), self.clock.elapsed());
        if locked(&self.steady).lasts(elapsed, now) >= STEADY {
            self.forget(now).await;
        }
        let warn = now + self.config.tokens.warn_s;
        let expiring = match self.db.read(move |db| store::tokens::expiring(db, now, warn)).await {
            Ok(expiring) => expiring,
            Err(error) => {
                return tracing::warn!(
                    error = mcdsl::chain(&error),
                    "tokens that end soon could not be looked for"
                );
            }
        };
        let mut warned = locked(&self.counters.warned);
        warned.retain(|_, last| elapsed.saturating_sub(*last) < WARN);
        for Expiring { account, label, id, expires_at } in &expiring {
            if warned.contains_key(id) {
                continue;
            }
            let days = (expires_at - now) / (24 * 3600);
            tracing::warn!(account, label, id, days, "a token ends soon: issue another one");
            warned.insert(id.clone(), elapsed);
        }
        *locked(&self.counters.expiring) = expiring;
    }

    async fn forget(&self, now: i64) {
        let signer = self.keys.load().signer(now).kid.clone();
        let in_use = Arc::clone(&self.keys);
        let forget = move |db: &Connection| {
            let tokens = store::tokens::forget(db, now - KEPT_S)?;
            store::accounts::forget_familiar(db, now - FAMILIAR_S)?;
            let old = |key: &&store::keys::StoredKey| {
                key.id != signer && key.signs_from < now && key.needed_until < now - KEPT_S
            };
            let keys = store::keys::all(db)?;
            let old: Vec<_> = keys.iter().filter(old).collect();
            old.iter().try_for_each(|key| store::keys::remove(db, &key.id).map(drop))?;
            Ok::<_, rusqlite::Error>((tokens, old.len(), super::site::ring(db)?.map(Arc::new)))
        };
        // As long as they are the same, what they have signed need not be checked again.
        let use_them = move |(_tokens, gone, ring): &(usize, usize, Option<Arc<KeyRing>>)| {
            ring.iter().filter(|_ring| *gone > 0).for_each(|ring| in_use.store(Arc::clone(ring)));
        };
        match self.db.write_then(forget, use_them).await {
            Ok((0, 0, _)) => {}
            Ok((tokens, keys, _)) => tracing::info!(tokens, keys, "forgot what had ended long ago"),
            Err(error) => {
                tracing::warn!(error = mcdsl::chain(&error), "what has ended could not be forgotten")
            }
        }
    }

    /// Writes what is counted.
    pub fn write_metrics(&self, page: &mut Page) {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        page.one("mcias_logins_total", "counter", "Logins that succeeded.", get(&counters.logins));
        page.one("mcias_login_failures_total", "counter", "Logins that failed.", get(&counters.failures));
        let help = "Logins turned away unheard, after too many failures.";
        page.one("mcias_logins_turned_away_total", "counter", help, get(&counters.turned_away));
        let help = "Tokens found good for a service that asked.";
        page.one("mcias_introspections_total", "counter", help, get(&counters.introspections));
        page.family("mcias_bad_tokens_total", "counter", "Tokens that were not good, by what was wrong.");
        for (why, count) in &*locked(&counters.bad_tokens) {
            page.sample("mcias_bad_tokens_total", &[("why", why)], *count);
        }
        page.family(
            "mcias_token_expires_seconds",
            "gauge",
            "When a system account's token ends that ends soon.",
        );
        for Expiring { account, label, id, expires_at } in &*locked(&counters.expiring) {
            let labels = [("account", account.as_str()), ("label", label.as_str()), ("id", id.as_str())];
            page.sample("mcias_token_expires_seconds", &labels, expires_at.unsigned_abs());
        }
    }

    /// Whether the database answers.
    pub async fn is_ready(&self) -> bool {
        self.db.read(|db| db.query_row("SELECT 1", [], |_| Ok(()))).await.is_ok()
    }
}
