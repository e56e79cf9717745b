//! A worker's live connections: what is known of each, and when each must be looked at.
//!
//! One thread owns all of it, so nothing is locked. A connection that waits has one entry here and one
//! task; the sweep reads a dense array of times and touches only the connections that are due.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use mc_core::backend::BackendLive;
use mc_core::outcome::Outcome;
use mc_uring::Socket;
use mc_uring::relay::Flow;
use mc_uring::socket::Keepalive;

use super::in_flight::Requests;
use crate::connections::{ConnectionFilter, ConnectionInfo, Ended};
use crate::snapshot::{ListenerEntry, RouteEntry};

/// What a worker knows of a live connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) id: u64,
    pub(super) slot: Cell<usize>,
    pub(super) listener: Arc<ListenerEntry>,
    pub(super) peer: SocketAddr,
    /// The true client: the peer, or whom its PROXY header names.
    pub(super) client: Cell<SocketAddr>,
    pub(super) socket: Rc<Socket>,
    pub(super) backend_socket: RefCell<Option<Rc<Socket>>>,
    pub(super) target: RefCell<Target>,
    pub(super) phase: Cell<Phase>,
    /// When the phase must be over, in milliseconds of the worker's clock.
    pub(super) deadline_ms: Cell<u64>,
    pub(super) started_us: u64,
    pub(super) hello_us: Cell<u32>,
    pub(super) connect_us: Cell<u32>,
    /// From the client.
    pub(super) up: Flow,
    /// To the client.
    pub(super) down: Flow,
    /// Set by whoever ends the connection from outside its task.
    pub(super) stop: Cell<Option<Outcome>>,
    /// The task that must look again when the connection is ended, or when this process begins to stop.
    pub(super) watching: RefCell<Option<Waker>>,
    /// The client that it is counted for, where clients' connections are limited.
    pub(super) counted: Cell<Option<IpAddr>>,
    /// Set when the current attempt to connect has taken too long.
    pub(super) attempt_over: Cell<bool>,
    /// Nobody reads what the client says, as it has said its last or enough for now: that it is gone shows only when the
    /// connection is looked at.
    pub(super) unread: Cell<bool>,
    /// Its requests that are at backends, where it speaks HTTP.
    pub(super) requests: Rc<Requests>,
    /// Set when both sockets have been given keepalive probes, or none are wanted.
    pub(super) has_keepalive: Cell<bool>,
}

/// Where a connection wants to go, as far as known.
#[derive(Debug, Default)]
pub(super) struct Target {
    /// The name that the client asked for.
    pub(super) name: Box<str>,
    /// The first protocol that the client offers.
    pub(super) alpn: Box<[u8]>,
    pub(super) route: Option<Arc<RouteEntry>>,
    pub(super) backend: Option<Arc<BackendLive>>,
    /// What was wrong, for the log.
    pub(super) detail: Box<str>,
}

impl Target {
    fn goes_to(&self, backend: SocketAddr) -> bool {
        self.backend.as_ref().is_some_and(|it| it.address == backend)
    }
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// PROXY header and ClientHello are read.
    Hello,
    /// The route is on hold.
    Hold,
    /// A backend is connected.
    Connect,
    /// Bytes are relayed.
    Relay,
    /// HTTP is spoken, and the client's next request is waited for.
    Idle,
    /// A refusal was sent, or a client that asked for nothing is left; what still comes is thrown away.
    Refused,
}

/// How long an idle client that is left may take to hear of it, in milliseconds.
const FAREWELL_MS: u64 = 1_000;

/// How often it is looked at whether a client is gone that nobody listens to, in milliseconds.
const LOOK_MS: u64 = 500;

/// Never.
pub(super) const NEVER: u64 = u64::MAX;

impl Connection {
    /// Ends the connection from outside its task.
    pub(super) fn stop(&self, outcome: Outcome) {
        if self.stop.get().is_some() {
            return;
        }
        self.stop.set(Some(outcome));
        self.socket.shutdown(Shutdown::Both);
        if let Some(backend) = &*self.backend_socket.borrow() {
            backend.shutdown(Shutdown::Both);
        }
        self.wake();
    }

    /// Has the task wake when the connection is ended, or when this process begins to stop.
    pub(super) fn watch(&self, waker: &Waker) {
        match &mut *self.watching.borrow_mut() {
            Some(watching) => watching.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
    }

    /// Whether the connection was ended from outside its task, which wakes when it is.
    pub(super) fn poll_stopped(&self, cx: &Context<'_>) -> Poll<()> {
        if self.stop.get().is_some() {
            return Poll::Ready(());
        }
        self.watch(cx.waker());
        Poll::Pending
    }

    fn wake(&self) {
        if let Some(watching) = self.watching.take() {
            watching.wake();
        }
    }

    /// Ends a connection whose client asks for nothing; says when it must be over. Reading ends, so that the task wakes; writing
    /// goes on, so that it can say so.
    fn leave(&self, outcome: Outcome, now_ms: u64) -> u64 {
        let deadline = now_ms + FAREWELL_MS;
        self.stop.set(Some(outcome));
        self.phase.set(Phase::Refused);
        self.deadline_ms.set(deadline);
        self.socket.shutdown(Shutdown::Read);
        deadline
    }

    /// When bytes last moved, or the connection began.
    fn moved_ms(&self) -> u64 {
        self.up.moved_ms.get().max(self.down.moved_ms.get()).max(self.started_us / 1000)
    }

    /// Since when bytes wait in memory for the client or a backend to take them.
    fn blocked_since_ms(&self) -> Option<u64> {
        [&self.up, &self.down].into_iter().filter_map(Flow::blocked_since_ms).min()
    }

    /// Ends what is over at `now_ms`; says when to look again.
    fn due(&self, now_ms: u64, keepalive: Option<Keepalive>) -> u64 {
        let deadline = self.deadline_ms.get();
        match self.phase.get() {
            phase if self.stop.get().is_some() && phase != Phase::Refused => NEVER,
            Phase::Hello if now_ms >= deadline => {
                // Reading ends, so that the task wakes; writing goes on, so that it can answer.
                self.stop.set(Some(Outcome::HelloTimeout));
                self.socket.shutdown(Shutdown::Read);
                NEVER
            }
            Phase::Connect if now_ms >= deadline => {
                self.attempt_over.set(true);
                if let Some(backend) = &*self.backend_socket.borrow() {
                    backend.shutdown(Shutdown::Both);
                }
                NEVER
            }
            Phase::Relay => {
                self.keep_alive(keepalive);
                self.relay_due(now_ms)
            }
            Phase::Hold => self.relay_due(now_ms),
            Phase::Idle if now_ms >= deadline => self.leave(Outcome::IdleTimeout, now_ms),
            Phase::Refused if now_ms >= deadline => {
                self.socket.shutdown(Shutdown::Both);
                NEVER
            }
            Phase::Hello | Phase::Connect | Phase::Idle | Phase::Refused => deadline,
        }
    }

    /// Turns keepalive on, once. Not at the beginning: five system calls and a timer for each socket are
    /// much of what a short connection costs.
    fn keep_alive(&self, keepalive: Option<Keepalive>) {
        if self.has_keepalive.replace(true) {
            return;
        }
        let Some(keepalive) = keepalive else { return };
        for socket in std::iter::once(&self.socket).chain(&*self.backend_socket.borrow()) {
            // The values were checked when they were configured: it fails only on a socket that is over.
            socket.set_keepalive(keepalive).unwrap_or(());
        }
    }

    fn relay_due(&self, now_ms: u64) -> u64 {
        let deadline = self.deadline_ms.get();
        if now_ms >= deadline {
            self.stop(Outcome::TotalTimeout);
            return NEVER;
        }
        if self.unread.get() && self.socket.take_error().is_err() {
            self.stop(Outcome::ClientReset);
            return NEVER;
        }
        let idle_ms = self.target.borrow().route.as_ref().map_or(0, |route| route.spec.idle_timeout_ms);
        let idle_at = if idle_ms == 0 { NEVER } else { self.moved_ms() + idle_ms };
        if now_ms >= idle_at {
            self.stop(Outcome::IdleTimeout);
            return NEVER;
        }
        let look = if self.unread.get() { now_ms + LOOK_MS } else { NEVER };
        idle_at.min(deadline).min(look)
    }

    /// Whether `filter` means this connection.
    fn matches(&self, filter: &ConnectionFilter) -> bool {
        let target = self.target.borrow();
        let removed = target.route.as_ref().is_some_and(|route| route.live.is_removed());
        (filter.ids.is_empty() || filter.ids.contains(&self.id))
            && filter.listener.as_ref().is_none_or(|name| *name == self.listener.spec.name)
            && filter.name.as_ref().is_none_or(|name| **name == *target.name)
            && filter.client.is_none_or(|network| network.contains(&self.client.get().ip()))
            && filter.backend.is_none_or(|wanted| target.goes_to(wanted) || self.requests.is_at(wanted))
            && (!filter.removed_routes || removed)
    }

    fn info(&self, now_ms: u64) -> ConnectionInfo {
        let target = self.target.borrow();
        let mut backends = self.requests.backends();
        backends.extend(target.backend.as_ref().map(|backend| backend.address));
        ConnectionInfo {
            id: self.id,
            client: self.client.get(),
            peer: self.peer,
            listener: self.listener.spec.name.clone(),
            name: target.name.to_string(),
            route: target.route.as_ref().map_or_else(String::new, |route| route.spec.name.clone()),
            requests: self.requests.count(),
            backends,
            age: Duration::from_millis(now_ms.saturating_sub(self.started_us / 1000)),
            idle: Duration::from_millis(now_ms.saturating_sub(self.moved_ms())),
            bytes_in: self.up.bytes.get(),
            bytes_out: self.down.bytes.get(),
            phase: match self.phase.get() {
                Phase::Hello => "hello",
                Phase::Hold => "hold",
                Phase::Connect => "connect",
                Phase::Relay => "relay",
                Phase::Idle => "idle",
                Phase::Refused => "refused",
            },
        }
    }
}

/// The live connections of one worker.
#[derive(Debug, Default)]
pub(super) struct Table {
    slots: RefCell<Slots>,
}

#[derive(Debug, Default)]
struct Slots {
    // When each is due; `NEVER` for empty slots. Apart from the connections, so that a sweep stays dense.
    due_ms: Vec<u64>,
    connections: Vec<Option<Rc<Connection>>>,
    free: Vec<usize>,
}

impl Table {
    /// Adds a connection, due at its deadline.
    pub(super) fn insert(&self, connection: Rc<Connection>) {
        let mut slots = self.slots.borrow_mut();
        let slot = slots.free.pop().unwrap_or_else(|| {
            slots.due_ms.push(NEVER);
            slots.connections.push(None);
            slots.connections.len() - 1
        });
        connection.slot.set(slot);
        slots.due_ms[slot] = connection.deadline_ms.get();
        slots.connections[slot] = Some(connection);
    }

    /// Forgets a connection.
    pub(super) fn remove(&self, connection: &Connection) {
        let mut slots = self.slots.borrow_mut();
        let slot = connection.slot.get();
        slots.due_ms[slot] = NEVER;
        slots.connections[slot] = None;
        slots.free.push(slot);
    }

    /// Says that nobody reads what the client says, or that somebody does again.
    pub(super) fn set_unread(&self, connection: &Connection, unread: bool, now_ms: u64) {
        connection.unread.set(unread);
        if unread {
            let due = &mut self.slots.borrow_mut().due_ms[connection.slot.get()];
            *due = (*due).min(now_ms + LOOK_MS);
        }
    }

    /// Enters a phase that must be over at `deadline_ms`, and is looked at no later than `look_ms`.
    pub(super) fn enter(&self, connection: &Connection, phase: Phase, deadline_ms: u64, look_ms: u64) {
        connection.phase.set(phase);
        connection.deadline_ms.set(deadline_ms);
        self.slots.borrow_mut().due_ms[connection.slot.get()] = look_ms.min(deadline_ms);
    }

    /// Number of live connections.
    pub(super) fn len(&self) -> usize {
        let slots = self.slots.borrow();
        slots.connections.len() - slots.free.len()
    }

    /// Ends what is over, and turns keepalive on where connections prove to last.
    pub(super) fn sweep(&self, now_ms: u64, keepalive: Option<Keepalive>) {
        let mut slots = self.slots.borrow_mut();
        let Slots { due_ms, connections, .. } = &mut *slots;
        for (due, connection) in due_ms.iter_mut().zip(connections) {
            if *due <= now_ms
                && let Some(connection) = connection
            {
                *due = connection.due(now_ms, keepalive);
            }
        }
    }

    /// Ends those that have not said yet what they want.
    pub(super) fn end_unheard(&self, outcome: Outcome) {
        let slots = self.slots.borrow();
        let unheard = |connection: &&Rc<Connection>| connection.phase.get() == Phase::Hello;
        slots.connections.iter().flatten().filter(unheard).for_each(|connection| connection.stop(outcome));
    }

    /// Ends the connection that has had bytes in memory for longest that somebody does not take; where there is none, the one
    /// with the most requests in flight, which wait for their backends with their heads in memory.
    pub(super) fn end_most_costly(&self, outcome: Outcome) {
        let slots = self.slots.borrow();
        let live = || slots.connections.iter().flatten().filter(|connection| connection.stop.get().is_none());
        let blocked = live().filter_map(|connection| Some((connection.blocked_since_ms()?, connection)));
        let longest = blocked.min_by_key(|(since_ms, _)| *since_ms).map(|(_, connection)| connection);
        let many = live().map(|connection| (connection.requests.count(), connection));
        let many = many.filter(|(count, _)| *count > 1).max_by_key(|(count, _)| *count);
        if let Some(costly) = longest.or(many.map(|(_, connection)| connection)) {
            costly.stop(outcome);
        }
    }

    /// Ends connections whose client has nothing under way.
    pub(super) fn end_idle(&self, now_ms: u64, outcome: Outcome) {
        let mut slots = self.slots.borrow_mut();
        let Slots { due_ms, connections, .. } = &mut *slots;
        for (due, connection) in due_ms.iter_mut().zip(connections) {
            if let Some(connection) = connection
                && connection.phase.get() == Phase::Idle
            {
                *due = connection.leave(outcome, now_ms);
            }
        }
    }

    /// Wakes those to whom it matters that this process stops.
    pub(super) fn wake(&self) {
        self.slots.borrow().connections.iter().flatten().for_each(|connection| connection.wake());
    }

    /// Connections that match, at most `limit` (0: all).
    pub(super) fn list(&self, filter: &ConnectionFilter, limit: usize, now_ms: u64) -> Vec<ConnectionInfo> {
        let slots = self.slots.borrow();
        let live = slots.connections.iter().flatten().filter(|connection| connection.matches(filter));
        live.take(if limit == 0 { usize::MAX } else { limit }).map(|live| live.info(now_ms)).collect()
    }

    /// Ends connections that match; says how many. Where those to a backend are meant, a connection of HTTP/2 goes on, without
    /// its requests that are there.
    pub(super) fn kill(&self, filter: &ConnectionFilter, outcome: Outcome) -> Ended {
        let slots = self.slots.borrow();
        let mut ended = Ended::default();
        for connection in slots.connections.iter().flatten() {
            if connection.stop.get().is_some() || !connection.matches(filter) {
                continue;
            }
            match filter.backend {
                Some(backend) if connection.requests.is_multiplexed() => {
                    ended.requests += connection.requests.end(backend);
                }
                _ => {
                    connection.stop(outcome);
                    ended.connections += 1;
                }
            }
        }
        ended
    }
}
