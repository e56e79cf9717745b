//! The admin side's handle on the workers: opens and closes listeners, lists and kills connections, drains.
//!
//! Every call is a message to each worker's mailbox; a worker answers between two connections.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use mc_core::outcome::Outcome;
use mc_uring::socket::Keepalive;
use mc_uring::{listen, mailbox, runtime};
use tokio::sync::oneshot;

use crate::access_log::LogSink;
use crate::budgets::SharedPolicy;
use crate::connections::{ConnectionFilter, ConnectionInfo, Ended};
use crate::snapshot::{ListenerEntry, Snapshot};
use crate::stats::WorkerStats;
use crate::worker::{self, Command, Setup};

/// All workers.
#[derive(Debug)]
pub struct Workers {
    /// What they see.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// What they count, one each.
    pub stats: Vec<Arc<WorkerStats>>,
    /// What they share besides.
    pub policy: Arc<SharedPolicy>,
    mailboxes: Vec<mailbox::Sender<Command>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// Sockets bound for a listener, at least one for each worker, not yet accepted on here.
#[derive(Debug)]
pub struct Bound {
    /// The address, with the port that the kernel chose where 0 was asked.
    pub address: SocketAddr,
    sockets: Vec<OwnedFd>,
}

/// Why a listener could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another program, or another listener, has it.
    #[error("{0} is in use: stop what listens there (see `ss -ltnp`) or choose another port")]
    InUse(SocketAddr),
    /// Not one of this machine's addresses.
    #[error("{0} is not an address of this machine: see `ip address`, or listen on 0.0.0.0 or [::]")]
    NotOurs(IpAddr),
    /// Ports below 1024 need a privilege.
    #[error(
        "{0} needs CAP_NET_BIND_SERVICE (or root): grant it, lower net.ipv4.ip_unprivileged_port_start, or choose a port from 1024 up"
    )]
    Privileged(SocketAddr),
    /// Anything else.
    #[error("cannot listen on {0}")]
    Other(SocketAddr, #[source] io::Error),
}

impl Workers {
    /// Starts `count` workers with nothing to do yet.
    ///
    /// # Errors
    /// The kernel gives no ring (see `cargo xtask doctor`) or no thread.
    pub fn start(
        count: u16,
        snapshot: Arc<ArcSwap<Snapshot>>,
        policy: Arc<SharedPolicy>,
        log: &LogSink,
        keepalive: Option<Keepalive>,
    ) -> io::Result<Self> {
        runtime::probe()?;
        let mut workers =
            Self { snapshot, stats: Vec::new(), policy, mailboxes: Vec::new(), threads: Mutex::default() };
        for number in 0..count {
            let (mailbox, inbox) = mailbox::mailbox()?;
            let stats = Arc::new(WorkerStats::default());
            let setup = Setup {
                number,
                workers: count,
                snapshot: Arc::clone(&workers.snapshot),
                stats: Arc::clone(&stats),
                policy: Arc::clone(&workers.policy),
                log: log.clone(),
                keepalive,
                inbox,
            };
            let thread = std::thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
                if let Err(error) = worker::run(setup) {
                    tracing::error!(%error, number, "a worker has stopped");
                }
            })?;
            workers.stats.push(stats);
            workers.mailboxes.push(mailbox);
            workers.threads.get_mut().unwrap_or_else(PoisonError::into_inner).push(thread);
        }
        Ok(workers)
    }

    /// Binds one socket for each worker: nothing is accepted until [`Self::open`].
    ///
    /// # Errors
    /// [`BindError`] says why; nothing stays bound.
    pub fn bind(&self, address: SocketAddr) -> Result<Bound, BindError> {
        let bound = listen::bind(address, self.mailboxes.len());
        let (sockets, address) = bound.map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => BindError::InUse(address),
            io::ErrorKind::AddrNotAvailable => BindError::NotOurs(address.ip()),
            io::ErrorKind::PermissionDenied => BindError::Privileged(address),
            _ => BindError::Other(address, error),
        })?;
        Ok(Bound { address, sockets })
    }

    /// Takes a listener's sockets from another process, and binds more where there are more workers than sockets.
    ///
    /// # Errors
    /// [`BindError`] says why.
    pub fn adopt(&self, address: SocketAddr, mut sockets: Vec<OwnedFd>) -> Result<Bound, BindError> {
        let missing = self.mailboxes.len().saturating_sub(sockets.len());
        sockets.extend(listen::join(address, missing).map_err(|error| BindError::Other(address, error))?);
        Ok(Bound { address, sockets })
    }

    /// Accepts on the bound sockets from now on. Returns when every worker does.
    pub async fn open(&self, listener: Arc<ListenerEntry>, bound: Bound) {
        // Each socket has a queue of its own, and needs somebody who takes from it.
        let mut shares: Vec<Vec<OwnedFd>> = self.mailboxes.iter().map(|_| Vec::new()).collect();
        for (number, socket) in bound.sockets.into_iter().enumerate() {
            shares[number % self.mailboxes.len()].push(socket);
        }
        let mut shares = shares.into_iter();
        let ask = |done| {
            let sockets = shares.next().expect("there is a share for each worker");
            Command::Open { listener: listener.id, sockets, done }
        };
        self.ask(ask).await;
    }

    /// Takes nothing more from any listener, and leaves what waits in the queues to the process that has them now.
    pub async fn retire(&self) {
        self.ask(|done| Command::Retire { done }).await;
    }

    /// Has every worker see that holds have begun or ended. When this returns, what does not wait for a hold that has begun
    /// is counted on its backend.
    pub async fn look_at_holds(&self) {
        self.ask(|done| Command::Holds { done }).await;
    }

    /// Stops accepting on the listener with this id, after what waits in its queues was taken.
    pub async fn close(&self, listener: u32) {
        self.ask(|done| Command::Close { listener, done }).await;
    }

    /// Live connections that match, at most `limit` (0: all).
    pub async fn list(&self, filter: ConnectionFilter, limit: usize) -> Vec<ConnectionInfo> {
        let ask = |reply| Command::List { filter: filter.clone(), limit, reply };
        let mut found = self.ask(ask).await.concat();
        if limit > 0 {
            found.truncate(limit);
        }
        found
    }

    /// Closes the connections to this backend that wait for a request.
    pub async fn close_idle(&self, backend: SocketAddr) {
        self.ask(|done| Command::CloseIdle { backend, done }).await;
    }

    /// Closes live connections that match, and ends requests of those that several share; says how many.
    pub async fn kill(&self, filter: ConnectionFilter) -> Ended {
        self.end(&filter, Outcome::Killed).await
    }

    /// Accepts nothing more and waits until no connection is left; those that are left after `time` are
    /// closed. Says how many were. `hurry`: those that wait for a client's next request are closed at once.
    pub async fn drain(&self, time: Duration, hurry: bool) -> u64 {
        match tokio::time::timeout(time, self.drained(hurry)).await {
            Ok(()) => 0,
            Err(_late) => self.close_all().await,
        }
    }

    /// Accepts nothing more and waits until no connection is left. `hurry`: as of [`Self::drain`].
    pub async fn drained(&self, hurry: bool) {
        self.ask(|done| Command::Drain { hurry, done }).await;
    }

    /// Closes all connections; says how many there were.
    pub async fn close_all(&self) -> u64 {
        let killed = self.end(&ConnectionFilter::default(), Outcome::Drained).await.connections;
        // They are gone when their tasks have run once more.
        drop(tokio::time::timeout(Duration::from_secs(2), self.drained(true)).await);
        killed
    }

    /// Connections that there are.
    #[must_use]
    pub fn connections(&self) -> u64 {
        let count = |stats: &Arc<WorkerStats>| {
            // Read in this order, a connection that ends in between cannot make it negative.
            let closed = stats.closed.get();
            stats.accepted.get().saturating_sub(closed)
        };
        self.stats.iter().map(count).sum()
    }

    /// Ends the workers' threads and waits for them.
    pub fn join(mut self) {
        self.mailboxes.clear();
        for thread in self.threads.get_mut().unwrap_or_else(PoisonError::into_inner).drain(..) {
            // A worker that panicked has said so already.
            thread.join().unwrap_or(());
        }
    }

    async fn end(&self, filter: &ConnectionFilter, outcome: Outcome) -> Ended {
        let ask = |reply| Command::Kill { filter: filter.clone(), outcome, reply };
        let add = |sum: Ended, more: Ended| Ended {
            connections: sum.connections + more.connections,
            requests: sum.requests + more.requests,
        };
        self.ask(ask).await.into_iter().fold(Ended::default(), add)
    }

    /// Asks every worker and waits for all answers.
    async fn ask<T>(&self, mut command: impl FnMut(oneshot::Sender<T>) -> Command) -> Vec<T> {
        let asked = self.mailboxes.iter().map(|mailbox| {
            let (reply, answer) = oneshot::channel();
            mailbox.send(command(reply));
            answer
        });
        let mut answers = Vec::with_capacity(self.mailboxes.len());
        for answer in asked.collect::<Vec<_>>() {
            answers.extend(answer.await.ok());
        }
        answers
    }
}

impl Bound {
    /// The same sockets once more, for another process.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn sockets(&self) -> io::Result<Vec<OwnedFd>> {
        self.sockets.iter().map(OwnedFd::try_clone).collect()
    }
}
