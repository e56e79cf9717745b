//! A worker: one thread, one ring, its own connections; nothing shared but snapshots and counters.
//!
//! It accepts on its own socket of every listener, serves each connection in a task of its own, answers
//! the admin side's commands, and ten times a second looks for connections whose time is over.

mod connect;
mod connection;
mod hello;
mod hold;
mod in_flight;
mod l7;
mod log;
mod phase;
mod serve;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Poll, Waker};
use std::time::Duration;

use arc_swap::{ArcSwap, Cache};
use mc_core::outcome::Outcome;
use mc_core::refusal::Refusals;
use mc_uring::mailbox::Receiver;
use mc_uring::socket::Keepalive;
use mc_uring::{Deadlines, Shared, Socket, listen, runtime};
use tokio::sync::oneshot;

use crate::access_log::LogSink;
use crate::budgets::{Refused, SharedPolicy};
use crate::clock;
use crate::connections::{ConnectionFilter, ConnectionInfo, Ended};
use crate::process::{ConnectionIds, ProcessId};
use crate::snapshot::Snapshot;
use crate::stats::WorkerStats;
use connection::Table;
use log::Log;

/// What a worker is started with.
pub(crate) struct Setup {
    pub(crate) number: u16,
    /// How many workers there are.
    pub(crate) workers: u16,
    pub(crate) snapshot: Arc<ArcSwap<Snapshot>>,
    pub(crate) stats: Arc<WorkerStats>,
    pub(crate) policy: Arc<SharedPolicy>,
    pub(crate) log: LogSink,
    pub(crate) keepalive: Option<Keepalive>,
    pub(crate) inbox: Receiver<Command>,
}

/// What the admin side asks of a worker.
#[derive(Debug)]
pub(crate) enum Command {
    /// Accept on these sockets for the listener with this id.
    Open { listener: u32, sockets: Vec<OwnedFd>, done: oneshot::Sender<()> },
    /// Take what waits on the listener's socket, then close it.
    Close { listener: u32, done: oneshot::Sender<()> },
    /// Say which connections match.
    List { filter: ConnectionFilter, limit: usize, reply: oneshot::Sender<Vec<ConnectionInfo>> },
    /// End the connections that match.
    Kill { filter: ConnectionFilter, outcome: Outcome, reply: oneshot::Sender<Ended> },
    /// Close the connections to this backend that wait for a request.
    CloseIdle { backend: SocketAddr, done: oneshot::Sender<()> },
    /// Close every listener; answer when no connection is left.
    Drain { hurry: bool, done: oneshot::Sender<()> },
    /// Holds have begun or ended: wake those whose hold is over. Answered when nothing is chosen any more that was
    /// judged by the holds of before.
    Holds { done: oneshot::Sender<()> },
    /// Accept nothing more, and leave the queues to another process.
    Retire { done: oneshot::Sender<()> },
}

/// The worker's own state, shared by its tasks.
struct Worker {
    snapshot: RefCell<Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>>,
    stats: Arc<WorkerStats>,
    policy: Arc<SharedPolicy>,
    keepalive: Option<Keepalive>,
    ids: ConnectionIds,
    connections: Table,
    shared: Shared,
    /// Limits of waits for backends.
    deadlines: Deadlines,
    /// What waits because its route is on hold.
    waiters: hold::Waiters,
    random: RefCell<fastrand::Rng>,
    /// Copies of requests that are on their way, by the address of their mirror.
    copies: RefCell<HashMap<SocketAddr, usize>>,
    listeners: RefCell<HashMap<u32, Vec<Rc<Accepting>>>>,
    log: Log,
    pool: l7::Pool,
    /// Backends that refuse connections, and who asks them again.
    refusals: RefCell<Refusals>,
    /// [`crate::budgets::Budgets::missed`] when it was last looked at.
    missed: Cell<u64>,
    draining: RefCell<Vec<oneshot::Sender<()>>>,
    /// Whether connections that wait for a client's next request are closed.
    hurries: Cell<bool>,
}

/// A listener's socket on this worker.
#[derive(Debug)]
struct Accepting {
    socket: Socket,
    closing: Cell<bool>,
    closed: RefCell<Option<Rc<Closed>>>,
    /// The task that accepts.
    waker: RefCell<Option<Waker>>,
}

impl Accepting {
    /// Waits for a connection, or until the socket is not to be used any more; `false`: the ring is over.
    async fn next(&self) -> bool {
        let mut readable = pin!(self.socket.readable());
        poll_fn(|cx| {
            if self.closing.get() {
                return Poll::Ready(true);
            }
            *self.waker.borrow_mut() = Some(cx.waker().clone());
            readable.as_mut().poll(cx).map(|ready| ready.is_ok())
        })
        .await
    }
}

/// Tells that a listener's sockets are closed, when the last of them is.
#[derive(Debug)]
struct Closed(Option<oneshot::Sender<()>>);

impl Drop for Closed {
    fn drop(&mut self) {
        if let Some(done) = self.0.take() {
            done.send(()).unwrap_or(());
        }
    }
}

/// How often connections are looked at whose time may be over.
const SWEEP: Duration = Duration::from_millis(100);

/// Bytes of the worker's buffer: what one `recv` can bring.
const BUFFER: usize = 64 * 1024;

/// Connections taken in one go before those taken have their turn.
const ACCEPT_BATCH: usize = 64;

/// Connections taken at most when a listener closes: more than its queue can hold.
const ACCEPT_LAST: usize = 8192;

/// How long a worker waits when it has no descriptor left for a client.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Runs a worker on this thread until it has drained.
///
/// # Errors
/// The kernel gives no ring.
pub(crate) fn run(setup: Setup) -> io::Result<()> {
    runtime::block_on(async move {
        let inbox = setup.inbox.on_ring()?;
        let worker = Rc::new(Worker {
            snapshot: RefCell::new(Cache::new(setup.snapshot)),
            stats: setup.stats,
            policy: setup.policy,
            keepalive: setup.keepalive,
            ids: ConnectionIds::new(ProcessId::current(), setup.number, setup.workers),
            connections: Table::default(),
            shared: Shared::new(BUFFER),
            deadlines: Deadlines::default(),
            waiters: hold::Waiters::default(),
            random: RefCell::new(fastrand::Rng::new()),
            copies: RefCell::default(),
            listeners: RefCell::default(),
            log: Log::new(setup.log),
            pool: l7::Pool::default(),
            refusals: RefCell::default(),
            missed: Cell::new(0),
            draining: RefCell::default(),
            hurries: Cell::new(false),
        });
        worker.shared.now_ms.set(clock::millis());
        runtime::spawn(sweep(Rc::clone(&worker)));
        while let Some(command) = inbox.next().await {
            worker.obey(command);
        }
        worker.log.flush();
        Ok(())
    })?
}

/// Keeps the coarse clock, ends what is over, hands the log over.
async fn sweep(worker: Rc<Worker>) {
    loop {
        runtime::sleep(SWEEP).await;
        let now_ms = clock::millis();
        worker.shared.now_ms.set(now_ms);
        worker.connections.sweep(now_ms, worker.keepalive);
        worker.deadlines.sweep(now_ms);
        worker.waiters.sweep(now_ms);
        worker.refusals.borrow_mut().sweep(now_ms);
        let is_short = worker.policy.budgets.memory.is_short();
        if is_short {
            worker.connections.end_unheard(Outcome::Overload);
            worker.connections.end_idle(now_ms, Outcome::Overload);
            // One at a time: what it held is free before the next look, and perhaps that is enough.
            worker.connections.end_most_costly(Outcome::Overload);
        } else if worker.hurries.get() {
            worker.connections.end_idle(now_ms, Outcome::Drained);
        }
        worker.log.flush();
        let missed = worker.policy.budgets.missed.load(Ordering::Relaxed);
        if is_short || worker.missed.replace(missed) != missed {
            worker.pool.clear();
        } else {
            worker.pool.sweep(now_ms);
        }
        if worker.connections.len() == 0 {
            for done in worker.draining.borrow_mut().drain(..) {
                done.send(()).unwrap_or(());
            }
        }
    }
}

impl Worker {
    fn obey(self: &Rc<Self>, command: Command) {
        match command {
            Command::Open { listener, sockets, done } => {
                for socket in sockets {
                    match Socket::new(socket) {
                        Ok(socket) => self.open(listener, socket),
                        Err(error) => {
                            tracing::error!(%error, "a listener's socket cannot be put on the ring")
                        }
                    }
                }
                done.send(()).unwrap_or(());
            }
            Command::Close { listener, done } => self.close(listener, Some(done)),
            Command::List { filter, limit, reply } => {
                let found = self.connections.list(&filter, limit, clock::millis());
                reply.send(found).unwrap_or(());
            }
            Command::Kill { filter, outcome, reply } => {
                reply.send(self.connections.kill(&filter, outcome)).unwrap_or(());
            }
            Command::Holds { done } => {
                self.waiters.sweep(self.shared.now_ms.get());
                done.send(()).unwrap_or(());
            }
            Command::CloseIdle { backend, done } => {
                self.pool.close_idle(backend);
                done.send(()).unwrap_or(());
            }
            Command::Retire { done } => {
                for accepting in self.listeners.borrow_mut().drain().flat_map(|(_, all)| all) {
                    // What waits in its queue is the other process's. Where that crashes, nobody else must have the socket: who
                    // connects is refused, and the next process finds the port free.
                    accepting.closing.set(true);
                    if let Some(waker) = accepting.waker.take() {
                        waker.wake();
                    }
                }
                done.send(()).unwrap_or(());
            }
            Command::Drain { hurry, done } => {
                self.hurries.set(hurry);
                let open: Vec<u32> = self.listeners.borrow().keys().copied().collect();
                for listener in open {
                    self.close(listener, None);
                }
                self.draining.borrow_mut().push(done);
                self.connections.wake();
            }
        }
    }

    fn open(self: &Rc<Self>, listener: u32, socket: Socket) {
        let accepting = Rc::new(Accepting {
            socket,
            closing: Cell::new(false),
            closed: RefCell::default(),
            waker: RefCell::default(),
        });
        self.listeners.borrow_mut().entry(listener).or_default().push(Rc::clone(&accepting));
        runtime::spawn(accept(Rc::clone(self), listener, accepting));
    }

    fn close(self: &Rc<Self>, listener: u32, done: Option<oneshot::Sender<()>>) {
        let all = self.listeners.borrow_mut().remove(&listener).unwrap_or_default();
        // Where it was never opened here, that is said at once.
        let closed = Rc::new(Closed(done));
        for accepting in all {
            accepting.closing.set(true);
            *accepting.closed.borrow_mut() = Some(Rc::clone(&closed));
            // What waits in the queue is taken before the socket is shut, which wakes the accepting task.
            self.take_waiting(listener, &accepting.socket, ACCEPT_LAST);
            accepting.socket.shutdown(std::net::Shutdown::Both);
        }
    }

    /// Takes up to `most` waiting connections; `false`: there is no descriptor for more.
    fn take_waiting(self: &Rc<Self>, listener: u32, socket: &Socket, most: usize) -> bool {
        for _ in 0..most {
            match listen::accept(socket) {
                Ok((fd, peer)) => self.admit(listener, fd, peer),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock | io::ErrorKind::InvalidInput => return true,
                    io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted => {}
                    _ => {
                        self.policy.budgets.missed_descriptor();
                        self.stats.outcomes[Outcome::Overload as usize].add(1);
                        return false;
                    }
                },
            }
        }
        true
    }

    /// Whether this process stops.
    fn is_draining(&self) -> bool {
        !self.draining.borrow().is_empty()
    }

    /// The snapshot that decides now.
    fn snapshot<R>(&self, look: impl FnOnce(&Snapshot) -> R) -> R {
        look(self.snapshot.borrow_mut().load())
    }

    fn refused(&self, refused: Refused<'_>) {
        (self.policy.on_refused)(refused);
    }
}

/// Accepts on one socket until it is closed.
async fn accept(worker: Rc<Worker>, listener: u32, accepting: Rc<Accepting>) {
    while accepting.next().await && !accepting.closing.get() {
        if !worker.take_waiting(listener, &accepting.socket, ACCEPT_BATCH) {
            runtime::sleep(ACCEPT_PAUSE).await;
        }
    }
    let closed = accepting.closed.borrow_mut().take();
    // This is the last reference: the port is free when the caller hears of it.
    drop(accepting);
    drop(closed);
}
