//! Logins whose password was right and that wait for a second factor: the password is not sent back to the browser for
//! it.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::challenges::{ChallengeLimits, Challenges};
use crate::secret::Secret;

/// Logins that wait.
#[derive(Debug)]
pub(super) struct PendingLogins(Mutex<Challenges<PendingLogin>>);

/// A login that waits.
#[derive(Debug)]
pub(super) struct PendingLogin {
    /// The browser that began it, by its cookie.
    pub(super) browser: Secret,
    pub(super) username: String,
    pub(super) password: Secret,
}

const LIMITS: ChallengeLimits =
    ChallengeLimits { ttl: Duration::from_secs(180), max: 1000, max_per_source: 100 };

impl Default for PendingLogins {
    fn default() -> Self {
        Self(Mutex::new(Challenges::new(LIMITS)))
    }
}

impl PendingLogins {
    /// Stores a login; the identifier to continue it by.
    pub(super) fn insert(&self, now: Duration, source: IpAddr, login: PendingLogin) -> String {
        let id = uuid::Uuid::new_v4().to_string();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(now, source, id.clone(), login);
        id
    }

    /// Removes and returns a login that this browser began.
    pub(super) fn take(&self, now: Duration, id: &str, browser: &Secret) -> Option<PendingLogin> {
        let mut pending = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pending.take_if(now, id, |login| login.browser.expose() == browser.expose())
    }
}
