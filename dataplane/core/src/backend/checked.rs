//! What active checks have found, and a backend as one route sees it.
//!
//! A check belongs to the routes that ask for it: the same address may pass one route's check and fail another's, and
//! a route without a check is not concerned by either. Routes that ask for the very same check share its [`Checked`].
//! What an address's connections tell (ejection) and what an operator says of it (drain) is [`BackendLive`]'s, which all
//! routes that lead there share.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, PoisonError};

use super::{BackendLive, Health};

/// What one check of one backend has found. Written by the task that checks, read by everybody.
#[derive(Debug, Default)]
pub struct Checked {
    /// For workers: whether the backend gets no connection.
    is_down: AtomicBool,
    /// When it came back from down; 0: it was never down.
    back_ms: AtomicU64,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    /// None: no result counts yet.
    health: Option<Health>,
    /// Results in a row that contradict `health`.
    contradictions: u32,
    /// When `health` last changed; 0: never.
    since_ms: u64,
    /// Why the last check failed; none where it passed.
    error: Option<String>,
}

impl Checked {
    /// The check passed. `rise` in a row bring a backend up that was down; the first is enough where nothing was
    /// known. Returns the new health where this changed it.
    pub fn passed(&self, now_ms: u64, rise: u32) -> Option<Health> {
        let mut counts = self.counts();
        counts.error = None;
        let enough = if counts.health.is_none() { 1 } else { rise };
        counts.count(Health::Up, enough, now_ms)?;
        if self.is_down.swap(false, Relaxed) {
            self.back_ms.store(now_ms, Relaxed);
        }
        Some(Health::Up)
    }

    /// The check failed, and why. `fall` in a row take the backend down. Returns the new health where this changed it.
    pub fn failed(&self, now_ms: u64, fall: u32, error: String) -> Option<Health> {
        let mut counts = self.counts();
        counts.error = Some(error);
        counts.count(Health::Down, fall, now_ms)?;
        self.is_down.store(true, Relaxed);
        Some(Health::Down)
    }

    /// Up, down, or unknown.
    #[must_use]
    pub fn health(&self) -> Health {
        self.counts().health.unwrap_or(Health::Unknown)
    }

    /// Whether the backend gets no connection by this check.
    #[must_use]
    pub fn is_down(&self) -> bool {
        self.is_down.load(Relaxed)
    }

    /// Why the last check failed; `None` where it passed.
    #[must_use]
    pub fn last_error(&self) -> Option<String> {
        self.counts().error.clone()
    }

    /// When its health last changed; 0: never.
    #[must_use]
    pub fn since_ms(&self) -> u64 {
        self.counts().since_ms
    }

    fn counts(&self) -> std::sync::MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    /// Counts a result; something where `enough` in a row have turned the health.
    fn count(&mut self, result: Health, enough: u32, now_ms: u64) -> Option<()> {
        if self.health == Some(result) {
            self.contradictions = 0;
            return None;
        }
        self.contradictions += 1;
        if self.contradictions < enough {
            return None;
        }
        *self = Self { health: Some(result), contradictions: 0, since_ms: now_ms, error: self.error.take() };
        Some(())
    }
}

/// A backend as one route sees it.
#[derive(Clone, Debug)]
pub struct RouteBackend {
    /// What is known of the address, whichever routes lead there.
    pub live: Arc<BackendLive>,
    /// What this route's check has found; `None`: it has no check.
    pub checked: Option<Arc<Checked>>,
}

impl RouteBackend {
    /// Whether it gets new connections in the ordinary way: neither down nor ejected nor draining.
    #[must_use]
    pub fn usable(&self, now_ms: u64) -> bool {
        self.allowed() && !self.live.is_ejected(now_ms)
    }

    /// Whether it may get a connection at all, should every other be worse: neither down nor draining.
    #[must_use]
    pub fn allowed(&self) -> bool {
        !self.is_down() && !self.live.draining()
    }

    /// Whether the route's check fails.
    #[must_use]
    pub fn is_down(&self) -> bool {
        self.checked.as_ref().is_some_and(|checked| checked.is_down())
    }

    /// Its share at this moment, in thousandths of the configured weight: a tenth when it comes back from down,
    /// ejected or drain, rising evenly to the whole in `slow_start_ms`. At least 1.
    #[must_use]
    pub fn effective_weight(&self, configured: u32, slow_start_ms: u64, now_ms: u64) -> u32 {
        let came_up_ms = self.checked.as_ref().map_or(0, |checked| checked.back_ms.load(Relaxed));
        let back_ms = self.live.back_since(now_ms).max(came_up_ms);
        let thousandths = if slow_start_ms == 0 || back_ms == 0 {
            1000
        } else {
            let age = now_ms.saturating_sub(back_ms).min(slow_start_ms);
            100 + 900_u64.saturating_mul(age) / slow_start_ms
        };
        let weight = u64::from(configured).saturating_mul(thousandths).max(1);
        u32::try_from(weight).unwrap_or(u32::MAX)
    }
}

impl From<Arc<BackendLive>> for RouteBackend {
    /// Of a route without a check.
    fn from(live: Arc<BackendLive>) -> Self {
        Self { live, checked: None }
    }
}

/// An address's health over all routes that lead there, by `address`, what its connections tell, and what each check has
/// found, with the number of routes that have this check. It is down where it is for every route.
#[must_use]
pub fn overall(address: Health, routes: u64, checks: &[(Health, u64)]) -> Health {
    let down: u64 =
        checks.iter().filter(|(health, _)| *health == Health::Down).map(|(_, routes)| routes).sum();
    let is_up = checks.iter().any(|(health, _)| *health == Health::Up);
    match address {
        _ if down > 0 && down >= routes => Health::Down,
        _ if down > 0 => Health::PartlyDown,
        Health::Unknown if is_up => Health::Up,
        address => address,
    }
}
