//! Jobs: last uses are written, what expired long ago is deleted, tokens that expire soon are warned about, counted refusals are recorded.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mcdsl::problem::Problem;
use mcdsl::prometheus::Page;
use mcdsl::server::Stop;
use rusqlite::Connection;

use super::login::FAMILIAR_S;
use super::{Mcias, locked};
use crate::domain::token::KeyRing;
use crate::store;
use crate::store::tokens::Expiring;

/// Counters, for metrics.
#[derive(Debug, Default)]
pub struct Counters {
    logins: AtomicU64,
    failures: AtomicU64,
    throttled: AtomicU64,
    turned_away: AtomicU64,
    introspections: AtomicU64,
    invalid_tokens: Mutex<BTreeMap<&'static str, u64>>,
    /// Tokens of system accounts that expire soon.
    expiring: Mutex<Vec<Expiring>>,
    /// When each was last warned about.
    warned: Mutex<HashMap<String, Duration>>,
}

impl Counters {
    pub(super) fn logged_in(&self) {
        self.logins.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn login_failed(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn throttled(&self) {
        self.throttled.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn turned_away(&self) {
        self.turned_away.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn introspected(&self) {
        self.introspections.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn invalid_token(&self, reason: &'static str) {
        *locked(&self.invalid_tokens).entry(reason).or_default() += 1;
    }
}

/// How often last uses are written.
const WRITE_INTERVAL: Duration = Duration::from_secs(10);

/// How often expired things are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(600);

/// How often a token that expires soon is warned about.
const WARN_INTERVAL: Duration = Duration::from_secs(24 * 3600);

/// How long the clock must not have been set before anything is deleted by it.
const STABLE_CLOCK: Duration = Duration::from_secs(6 * 3600);

/// How long tokens and keys are kept after they expired, in seconds: so that their owners can see when it was.
const RETENTION_S: i64 = 30 * 24 * 3600;

impl Mcias {
    /// Runs all jobs until it is told to stop.
    pub async fn run_jobs(&self, mut stop: Stop) {
        let mut write = tokio::time::interval(WRITE_INTERVAL);
        let mut sweep = tokio::time::interval(SWEEP_INTERVAL);
        loop {
            tokio::select! {
                _ = write.tick() => {
                    self.hashing.rest();
                    self.log_left_out();
                    self.write_last_used().await;
                    self.write_refusals(false).await;
                }
                _ = sweep.tick() => self.sweep().await,
                _ = stop.wait_for(|stop| *stop) => break,
            }
        }
        self.write_last_used().await;
        self.write_refusals(true).await;
    }

    async fn write_refusals(&self, all: bool) {
        if let Err(problem) = self.db.write_refusals(all).await {
            tracing::warn!(%problem, "refusals could not be recorded");
        }
    }

    /// Writes when tokens were last used.
    async fn write_last_used(&self) {
        let used: Vec<_> = std::mem::take(&mut *locked(&self.last_used)).into_iter().collect();
        if used.is_empty() {
            return;
        }
        let written = self.db.database().write(move |db| store::tokens::used(db, &used)).await;
        if let Err(error) = written {
            tracing::warn!(error = mcdsl::chain(&error), "the last uses of tokens could not be written");
        }
    }

    /// Valid tokens of services that expire soon, the next to expire first: for the pages of admins.
    pub(crate) async fn expiring_tokens(&self) -> Result<Vec<Expiring>, Problem> {
        let now = self.now();
        let soon = now + self.config.tokens.warn_s;
        self.read(move |db| store::tokens::expiring(db, now, soon)).await
    }

    /// Deletes what expired long ago, once the clock can be trusted, and warns about tokens that expire soon.
    pub async fn sweep(&self) {
        let (now, elapsed) = (self.now(), self.clock.elapsed());
        if locked(&self.clock_stability).stable_for(elapsed, now) >= STABLE_CLOCK {
            self.delete_expired(now).await;
        }
        let expiring = match self.expiring_tokens().await {
            Ok(expiring) => expiring,
            Err(problem) => {
                return tracing::warn!(%problem, "tokens that expire soon could not be looked for");
            }
        };
        let mut warned = locked(&self.counters.warned);
        warned.retain(|_, last| elapsed.saturating_sub(*last) < WARN_INTERVAL);
        for Expiring { account, label, id, expires_at } in &expiring {
            if warned.contains_key(id) {
                continue;
            }
            let days = (expires_at - now) / (24 * 3600);
            tracing::warn!(account, label, id, days, "a token expires soon: issue another one");
            warned.insert(id.clone(), elapsed);
        }
        *locked(&self.counters.expiring) = expiring;
    }

    async fn delete_expired(&self, now: i64) {
        let signer = self.keys.load().signer(now).kid.clone();
        let in_use = Arc::clone(&self.keys);
        let delete = move |db: &Connection| {
            let tokens = store::tokens::delete_expired(db, now - RETENTION_S)?;
            store::accounts::delete_familiar(db, now - FAMILIAR_S)?;
            let is_old = |key: &&store::keys::StoredKey| {
                key.id != signer && key.active_from < now && key.verify_until < now - RETENTION_S
            };
            let keys = store::keys::all(db)?;
            let old: Vec<_> = keys.iter().filter(is_old).collect();
            old.iter().try_for_each(|key| store::keys::remove(db, &key.id).map(drop))?;
            Ok::<_, rusqlite::Error>((tokens, old.len(), super::keys::ring(db)?.map(Arc::new)))
        };
        // While the keys are the same, signatures need not be verified again.
        let use_them = move |(_tokens, deleted, ring): &(usize, usize, Option<Arc<KeyRing>>)| {
            ring.iter().filter(|_ring| *deleted > 0).for_each(|ring| in_use.store(Arc::clone(ring)));
        };
        match self.db.database().write_then(delete, use_them).await {
            Ok((0, 0, _)) => {}
            Ok((tokens, keys, _)) => tracing::info!(tokens, keys, "deleted what expired long ago"),
            Err(error) => {
                tracing::warn!(error = mcdsl::chain(&error), "what expired could not be deleted");
            }
        }
    }

    /// Writes the counters.
    pub fn write_metrics(&self, page: &mut Page) {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        page.one("mcias_logins_total", "counter", "Logins that succeeded.", get(&counters.logins));
        page.one("mcias_login_failures_total", "counter", "Logins that failed.", get(&counters.failures));
        let help = "Logins refused without a look at the password, after too many failures.";
        page.one("mcias_logins_throttled_total", "counter", help, get(&counters.throttled));
        let help = "Logins refused because too many passwords waited to be hashed.";
        page.one("mcias_logins_turned_away_total", "counter", help, get(&counters.turned_away));
        let help = "Introspections of valid tokens.";
        page.one("mcias_introspections_total", "counter", help, get(&counters.introspections));
        page.family("mcias_invalid_tokens_total", "counter", "Invalid tokens, by reason.");
        for (reason, count) in &*locked(&counters.invalid_tokens) {
            page.sample("mcias_invalid_tokens_total", &[("reason", reason)], *count);
        }
        page.family(
            "mcias_token_expires_seconds",
            "gauge",
            "When a system account's token expires that expires soon.",
        );
        for Expiring { account, id, expires_at, .. } in &*locked(&counters.expiring) {
            let labels = [("account", account.as_str()), ("id", id.as_str())];
            page.sample("mcias_token_expires_seconds", &labels, expires_at.unsigned_abs());
        }
    }

    /// Whether changes can be stored; the reason why not.
    pub(crate) async fn probe_storage(&self) -> Result<(), String> {
        self.db.database().probe_write().await.map_err(|error| mcdsl::chain(&error))
    }
}
