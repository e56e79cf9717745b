//! The phases that a connection enters from several places: bytes are relayed, the route is on hold, the client is left.

use std::net::Shutdown;

use super::Worker;
use super::connection::{Connection, NEVER, Phase};
use crate::clock;
use crate::snapshot::RouteEntry;

/// How long a refused client may take to hear why.
const REFUSED_MS: u64 = 1_000;

/// The age at which a relayed connection is first looked at. Most are over by then, and never pay for what
/// only long ones need.
const LASTING_MS: u64 = 1_000;

/// From here on only the route's timeouts end the connection.
pub(super) fn enter_relay(worker: &Worker, connection: &Connection, route: &RouteEntry) {
    enter(worker, connection, route, Phase::Relay);
}

/// The same while the route is on hold.
pub(super) fn enter_hold(worker: &Worker, connection: &Connection, route: &RouteEntry) {
    enter(worker, connection, route, Phase::Hold);
}

fn enter(worker: &Worker, connection: &Connection, route: &RouteEntry, phase: Phase) {
    let started_ms = connection.started_us / 1000;
    let deadline = match route.spec.total_timeout_ms {
        0 => NEVER,
        total => started_ms + total,
    };
    let now_ms = worker.shared.now_ms.get();
    connection.down.moved_ms.set(now_ms);
    worker.connections.enter(connection, phase, deadline, now_ms + LASTING_MS);
}

/// Says that nothing more is sent, and waits a moment for the client to close: a close with bytes unread would be a
/// reset that overtakes what it was told.
pub(super) async fn linger(worker: &Worker, connection: &Connection) {
    connection.socket.shutdown(Shutdown::Write);
    let deadline = clock::millis() + REFUSED_MS;
    worker.connections.enter(connection, Phase::Refused, deadline, deadline);
    loop {
        let ended = worker.shared.with_buffer(|buffer| match connection.socket.recv(buffer) {
            Ok(read) => read == 0,
            Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
        });
        if ended || connection.socket.readable().await.is_err() {
            return;
        }
    }
}
