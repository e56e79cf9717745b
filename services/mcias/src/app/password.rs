//! Password hashing with a limit on how many run at a time: a flood of logins takes a fixed amount of memory, delays no other request, and
//! leaves people at familiar addresses their part of the queue ([`crate::domain::queue`]).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mcdsl::Secret;
use mcdsl::problem::{Kind, Problem};
use tokio::sync::oneshot;

use super::{locked, random};
use crate::config::Passwords;
use crate::domain::Name;
use crate::domain::password::{Hasher, Verified, judge};
use crate::domain::queue::{Entered, Places, Queue, Share, Ticket};
use crate::domain::throttle::Source;
use crate::store::accounts::Phc;
use crate::store::factors::NewPassword;

/// Hashes passwords on threads of their own.
#[derive(Debug)]
pub(super) struct Hashing {
    hasher: Arc<Hasher>,
    line: Arc<Mutex<Line>>,
}

/// Hashes that run and wait, and whom to wake.
#[derive(Debug)]
struct Line {
    queue: Queue,
    waiting: HashMap<Ticket, oneshot::Sender<()>>,
}

/// A place in the line, given back on drop.
#[derive(Debug)]
struct Place {
    line: Arc<Mutex<Line>>,
    share: Share,
    /// Where it had to wait.
    ticket: Option<Ticket>,
}

/// The reason of a problem where too many passwords wait to be hashed.
pub(super) const BUSY: &str = "busy";

impl Share {
    /// The share of somebody who is known already: by a session, a link, or the password itself.
    pub(super) fn of_known(ip: IpAddr) -> Self {
        Self { source: Source::from(ip), familiar: true }
    }
}

impl Hashing {
    pub(super) fn new(hasher: Hasher, settings: &Passwords) -> Self {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let running = if settings.concurrent == 0 { cores() } else { usize::from(settings.concurrent) };
        let queue = Queue::new(Places { running, waiting: usize::from(settings.waiting) });
        Self { hasher: Arc::new(hasher), line: Arc::new(Mutex::new(Line { queue, waiting: HashMap::new() })) }
    }

    /// Verifies a password. Takes as long where there is no hash to compare with.
    pub(super) async fn verify(
        &self,
        share: Share,
        password: Secret,
        phc: Option<Phc>,
    ) -> Result<Verified, Problem> {
        self.run(share, move |hasher| hasher.verify(&password, phc.as_ref().map(|phc| phc.0.as_str()))).await
    }

    /// Hashes a new password, if it is strong enough. Judging that takes time too.
    pub(super) async fn hash_new(
        &self,
        share: Share,
        password: Secret,
        name: Name,
        only_factor: bool,
    ) -> Result<NewPassword, Problem> {
        let judged = self.run(share, move |hasher| {
            let alone = judge(&password, &name, true).is_ok();
            judge(&password, &name, only_factor)
                .map(|()| NewPassword { phc: Phc(hasher.hash(&password, random())), alone })
        });
        judged.await?.map_err(|weak| Problem::field("password", weak.to_string()))
    }

    /// Hashes a password that is in use.
    pub(super) async fn hash(&self, share: Share, password: Secret) -> Result<Phc, Problem> {
        self.run(share, move |hasher| Phc(hasher.hash(&password, random()))).await
    }

    /// Releases memory that no hash uses now.
    pub(super) fn rest(&self) {
        self.hasher.release_memory();
    }

    async fn run<T: Send + 'static>(
        &self,
        share: Share,
        work: impl FnOnce(&Hasher) -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let place = Place::take(&self.line, share).await?;
        let hasher = Arc::clone(&self.hasher);
        // The place moves along: a hash whose request is gone goes on.
        let hashed = tokio::task::spawn_blocking(move || {
            let done = work(&hasher);
            drop(place);
            done
        });
        hashed.await.map_err(|error| Problem::internal(&error))
    }
}

impl Place {
    /// A place in which a hash may run, once it is its turn.
    async fn take(line: &Arc<Mutex<Line>>, share: Share) -> Result<Self, Problem> {
        let (place, turn) = {
            let mut locked = locked(line);
            let (ticket, turn) = match locked.queue.enter(share).map_err(|_full| busy())? {
                Entered::Runs => (None, None),
                Entered::Waits(ticket) => {
                    let (wake, turn) = oneshot::channel();
                    locked.waiting.insert(ticket, wake);
                    (Some(ticket), Some(turn))
                }
            };
            (Self { line: Arc::clone(line), share, ticket }, turn)
        };
        if let Some(turn) = turn {
            turn.await.expect("it is sent before it is dropped: the place is in the queue until then");
        }
        Ok(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut line = locked(&self.line);
        // Its client may be gone while it waits.
        if let Some(ticket) = self.ticket
            && line.queue.left(self.share, ticket)
        {
            line.waiting.remove(&ticket);
            return;
        }
        if let Some(next) = line.queue.ended()
            && let Some(wake) = line.waiting.remove(&next)
        {
            // Where that client is gone too, its own place ends.
            wake.send(()).unwrap_or(());
        }
    }
}

fn busy() -> Problem {
    let detail = "Too many people log in at the same time: try again in a moment.";
    let problem = Problem::new(Kind::Unavailable, BUSY, detail);
    Problem { retry_after: Some(Duration::from_secs(1)), ..problem }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::mpsc;

    use super::*;
    use crate::domain::password::Params;

    #[tokio::test]
    async fn a_place_whose_client_is_gone_is_used_by_the_next_one() {
        let hasher = Hasher::new(Params { memory_kib: 8, passes: 1, lanes: 1 }).unwrap();
        let settings = Passwords { concurrent: 1, waiting: 8, ..Passwords::default() };
        let hashing = Arc::new(Hashing::new(hasher, &settings));
        let share = Share::of_known(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let (go_on, blocked) = mpsc::channel::<()>();
        let start = |work: Box<dyn FnOnce() + Send>| {
            let hashing = Arc::clone(&hashing);
            tokio::spawn(async move { hashing.run(share, move |_hasher| work()).await })
        };
        let first = start(Box::new(move || blocked.recv().unwrap()));
        let wait_for = |waiting: usize| {
            let line = Arc::clone(&hashing.line);
            async move {
                while locked(&line).waiting.len() != waiting {
                    tokio::task::yield_now().await;
                }
            }
        };
        let gone = start(Box::new(|| panic!("its client is gone")));
        wait_for(1).await;
        let last = start(Box::new(|| ()));
        wait_for(2).await;
        gone.abort();
        assert!(gone.await.unwrap_err().is_cancelled());
        wait_for(1).await;
        // Nobody waits for the one that runs any more, and it goes on.
        first.abort();
        go_on.send(()).unwrap();
        last.await.unwrap().unwrap();
        // All places are free again.
        start(Box::new(|| ())).await.unwrap().unwrap();
        assert!(locked(&hashing.line).waiting.is_empty());
    }
}
