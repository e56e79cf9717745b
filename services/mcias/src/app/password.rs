//! Password hashing with a limit on how many run at a time: a flood of logins takes a fixed amount of memory, and delays nobody else.

use std::sync::Arc;
use std::time::Duration;

use mcdsl::Secret;
use mcdsl::problem::{Kind, Problem};
use tokio::sync::Semaphore;

use super::random;
use crate::config::Passwords;
use crate::domain::Name;
use crate::domain::password::{Hasher, Verified, judge};
use crate::store::accounts::Phc;
use crate::store::factors::NewPassword;

/// Hashes passwords on threads of their own.
#[derive(Debug)]
pub(super) struct Hashing {
    hasher: Arc<Hasher>,
    /// Slots for hashes that run.
    places: Arc<Semaphore>,
    /// Slots for hashes that run or wait.
    queue: Arc<Semaphore>,
}

impl Hashing {
    pub(super) fn new(hasher: Hasher, settings: &Passwords) -> Self {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let places = if settings.concurrent == 0 { cores() } else { usize::from(settings.concurrent) };
        Self {
            hasher: Arc::new(hasher),
            places: Arc::new(Semaphore::new(places)),
            queue: Arc::new(Semaphore::new(places + usize::from(settings.waiting))),
        }
    }

    /// Verifies a password. Takes as long where there is no hash to compare with.
    pub(super) async fn verify(&self, password: Secret, phc: Option<Phc>) -> Result<Verified, Problem> {
        self.run(move |hasher| hasher.verify(&password, phc.as_ref().map(|phc| phc.0.as_str()))).await
    }

    /// Hashes a new password, if it is strong enough. Judging that takes time too.
    pub(super) async fn hash_new(
        &self,
        password: Secret,
        name: Name,
        only_factor: bool,
    ) -> Result<NewPassword, Problem> {
        let judged = self.run(move |hasher| {
            let alone = judge(&password, &name, true).is_ok();
            judge(&password, &name, only_factor)
                .map(|()| NewPassword { phc: Phc(hasher.hash(&password, random())), alone })
        });
        judged.await?.map_err(|weak| Problem::field("password", weak.to_string()))
    }

    /// Hashes a password that is in use.
    pub(super) async fn hash(&self, password: Secret) -> Result<Phc, Problem> {
        self.run(move |hasher| Phc(hasher.hash(&password, random()))).await
    }

    /// Releases memory that no hash uses now.
    pub(super) fn rest(&self) {
        self.hasher.release_memory();
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Hasher) -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let Ok(waiting) = Arc::clone(&self.queue).try_acquire_owned() else {
            let detail = "Too many people log in at the same time: try again in a moment.";
            let problem = Problem::new(Kind::Unavailable, "busy", detail);
            return Err(Problem { retry_after: Some(Duration::from_secs(1)), ..problem });
        };
        let place = Arc::clone(&self.places).acquire_owned().await.expect("the semaphore is never closed");
        let hasher = Arc::clone(&self.hasher);
        // The slots move along: a hash whose request is gone goes on.
        let hashed = tokio::task::spawn_blocking(move || {
            let done = work(&hasher);
            drop((place, waiting));
            done
        });
        hashed.await.map_err(|error| Problem::internal(&error))
    }
}
