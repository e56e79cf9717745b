//! A connection's life, from accept to the line in the log.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;

use mc_core::model::Mode;
use mc_core::outcome::Outcome;
use mc_uring::{Failure, Socket, relay, runtime};

use super::Worker;
use super::connect::connect;
use super::connection::{Connection, Phase, Target};
use super::hello::{Refusal, Reply, Routed, hello, route_again};
use super::phase::{enter_relay, linger};
use super::{hold, l7};
use crate::access_log::Record;
use crate::budgets::Refused;
use crate::clock;
use crate::snapshot::RouteEntry;
use crate::stats::RouteLive;

/// Counts a connection on its route, and the client's on it, for as long as it lives.
struct OnRoute {
    live: Arc<RouteLive>,
    source: Option<std::net::IpAddr>,
}

impl Worker {
    /// Takes a new connection and serves it in a task of its own.
    pub(super) fn admit(self: &Rc<Self>, listener: u32, fd: OwnedFd, peer: SocketAddr) {
        let Some(entry) = self.snapshot(|snapshot| snapshot.listener(listener).map(Arc::clone)) else {
            // The listener was removed a moment ago.
            return;
        };
        let Ok(socket) = Socket::new(fd) else { return };
        let budgets = &self.policy.budgets;
        if budgets.memory.is_short() || !budgets.connections.acquire() {
            // Those that are there go on; this one is told at once, and costs nothing more.
            self.stats.outcomes[Outcome::Overload as usize].add(1);
            socket.reset_on_close();
            return;
        }
        self.stats.accepted.add(1);
        entry.count_accepted();
        let started_us = clock::micros();
        let deadline_ms = started_us / 1000 + entry.spec.hello_timeout_ms;
        let connection = Rc::new(Connection {
            id: self.ids.next(),
            slot: Cell::new(0),
            listener: entry,
            peer,
            client: Cell::new(peer),
            socket: Rc::new(socket),
            backend_socket: RefCell::new(None),
            target: RefCell::new(Target::default()),
            phase: Cell::new(Phase::Hello),
            deadline_ms: Cell::new(deadline_ms),
            started_us,
            hello_us: Cell::new(0),
            connect_us: Cell::new(0),
            up: relay::Flow::default(),
            down: relay::Flow::default(),
            stop: Cell::new(None),
            watching: RefCell::default(),
            counted: Cell::new(None),
            attempt_over: Cell::new(false),
            unread: Cell::new(false),
            requests: Rc::default(),
            has_keepalive: Cell::new(false),
        });
        self.connections.insert(Rc::clone(&connection));
        runtime::spawn(serve(Rc::clone(self), connection));
    }

    /// Counts and logs a connection that has ended, and forgets it.
    fn finish(&self, connection: &Connection, outcome: Outcome) {
        self.connections.remove(connection);
        self.policy.budgets.connections.release();
        if let Some(source) = connection.counted.take() {
            self.policy.budgets.sources.release(source);
        }
        let duration_us = clock::micros() - connection.started_us;
        let (up, down) = (connection.up.bytes.get(), connection.down.bytes.get());
        let stats = &self.stats;
        stats.closed.add(1);
        stats.bytes_in.add(up);
        stats.bytes_out.add(down);
        stats.outcomes[outcome as usize].add(1);
        stats.duration.record_us(duration_us);
        let target = connection.target.borrow();
        if let Some(route) = &target.route {
            route.live.counters().ended(outcome, up, down);
        }
        self.log.write(&Record {
            id: connection.id,
            unix_ms: clock::unix_millis(),
            client: connection.client.get(),
            peer: connection.peer,
            listener: &connection.listener.spec.name,
            name: &target.name,
            alpn: &target.alpn,
            route: target.route.as_ref().map_or("", |route| &route.spec.name),
            backend: target.backend.as_ref().map(|backend| backend.address),
            outcome,
            detail: &target.detail,
            bytes_in: up,
            bytes_out: down,
            hello_us: connection.hello_us.get().into(),
            connect_us: connection.connect_us.get().into(),
            duration_us,
        });
        if outcome.is_refusal() {
            self.refused(Refused { outcome, client: connection.client.get(), name: &target.name });
        }
    }
}

/// Serves one connection.
async fn serve(worker: Rc<Worker>, connection: Rc<Connection>) {
    let outcome = match hello(&worker, &connection).await {
        Ok(routed) => forward(&worker, &connection, routed).await,
        Err(refusal) => Err(refusal),
    };
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(refusal) => {
            refuse(&worker, &connection, refusal.reply).await;
            refusal.outcome
        }
    };
    worker.finish(&connection, connection.stop.get().unwrap_or(outcome));
}

/// Connects and relays; says how it ended.
async fn forward(
    worker: &Rc<Worker>,
    connection: &Rc<Connection>,
    mut routed: Routed,
) -> Result<Outcome, Refusal> {
    let hello_us = clock::micros() - connection.started_us;
    connection.hello_us.set(u32::try_from(hello_us).unwrap_or(u32::MAX));
    worker.stats.hello_time.record_us(hello_us);
    let (backend, _on_backend, _on_route) = loop {
        if hold::is_held(worker, &routed) {
            Box::pin(hold::wait(worker, connection, &mut routed)).await?;
        }
        let on_route = OnRoute::take(&routed.route, connection)?;
        if routed.route.spec.mode == Mode::L7 {
            // In a box: what HTTP needs must not weigh on connections that only pass through.
            return Box::pin(l7::serve(worker, connection, routed)).await;
        }
        match connect(worker, connection, &mut routed).await {
            Ok((backend, on_backend)) => break (backend, on_backend, on_route),
            Err(outcome) if has_other_backends(worker, connection, &mut routed, outcome)? => {}
            Err(outcome) => return Err(Refusal::told(outcome)),
        }
    };
    let connect_us = clock::micros() - connection.started_us - hello_us;
    connection.connect_us.set(u32::try_from(connect_us).unwrap_or(u32::MAX));
    worker.stats.connect_time.record_us(connect_us);
    enter_relay(worker, connection, &routed.route);
    drop(routed);
    let end =
        relay::relay(&worker.shared, &connection.socket, &backend, &connection.up, &connection.down).await;
    Ok(match (connection.stop.get(), end) {
        (None, Ok(())) => Outcome::Completed,
        // A reset is passed on as a reset.
        (None, Err(Failure::Client(_))) => {
            backend.reset_on_close();
            Outcome::ClientReset
        }
        (None, Err(Failure::Backend(_))) => {
            connection.socket.reset_on_close();
            Outcome::BackendReset
        }
        (Some(outcome), _) => {
            if outcome == Outcome::Killed {
                connection.socket.reset_on_close();
                backend.reset_on_close();
            }
            outcome
        }
    })
}

/// Whether a connection that no backend took, and of which none has got a byte, may be tried again: its route is another by
/// now, or was put on hold.
fn has_other_backends(
    worker: &Worker,
    connection: &Connection,
    routed: &mut Routed,
    outcome: Outcome,
) -> Result<bool, Refusal> {
    if !matches!(outcome, Outcome::NoBackend | Outcome::ConnectFailed | Outcome::ConnectTimeout) {
        return Ok(false);
    }
    let now = route_again(worker, connection, &routed.early)?;
    let is_other = !Arc::ptr_eq(&now, &routed.route);
    routed.route = now;
    Ok(is_other || hold::is_held(worker, routed))
}

/// Tells a client that it was refused.
async fn refuse(worker: &Worker, connection: &Connection, reply: Reply) {
    let Reply::Bytes(bytes) = reply else {
        connection.socket.reset_on_close();
        return;
    };
    if bytes.is_empty() || connection.socket.send(bytes).is_err() {
        return;
    }
    linger(worker, connection).await;
}

impl OnRoute {
    /// Counts the connection on its route, unless that has as many as it may.
    fn take(route: &RouteEntry, connection: &Connection) -> Result<Self, Refusal> {
        let live = &route.live;
        let refuse = |outcome| Err(Refusal::told(outcome));
        if !live.acquire(route.spec.max_connections) {
            return refuse(Outcome::RouteLimit);
        }
        let mut on_route = Self { live: Arc::clone(live), source: None };
        if route.spec.max_connections_per_source > 0 {
            let source = connection.client.get().ip();
            if !live.sources().acquire(source, route.spec.max_connections_per_source) {
                return refuse(Outcome::SourceLimit);
            }
            on_route.source = Some(source);
        }
        live.counters().begun();
        Ok(on_route)
    }
}

impl Drop for OnRoute {
    fn drop(&mut self) {
        self.live.release();
        if let Some(source) = self.source {
            self.live.sources().release(source);
        }
    }
}
