//! Finds a backend that takes the connection, and sends it what the client has said so far.

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use mc_core::backend::BackendLive;
use mc_core::balance::{self, Tried};
use mc_core::model::ProxyOut;
use mc_core::outcome::Outcome;
use mc_core::proxy_protocol::{self, Facts, Header};
use mc_uring::Socket;

use super::Worker;
use super::connection::{Connection, Phase};
use super::hello::{Early, Routed};
use crate::access_log;
use crate::clock;
use crate::snapshot::RouteEntry;

/// Counts a connection on a backend for as long as it lives.
pub(super) struct OnBackend(Arc<BackendLive>);

impl OnBackend {
    /// Counts one more.
    pub(super) fn acquire(live: &Arc<BackendLive>) -> Self {
        live.acquire();
        Self(Arc::clone(live))
    }

    /// Whether the backend is to get nothing more.
    pub(super) fn is_draining(&self) -> bool {
        self.0.draining()
    }
}

impl Drop for OnBackend {
    fn drop(&mut self) {
        self.0.release();
    }
}

/// Why one backend did not take the connection.
enum Failed {
    /// Another backend may: nothing was sent yet.
    Connect(io::Error),
    /// It took too long.
    TimedOut,
    /// The connection broke after bytes were sent: it is not repeated elsewhere.
    Broken,
    /// Somebody ended the connection.
    Stopped(Outcome),
    /// This proxy has no descriptor.
    Overload,
}

/// Connects to one of the route's backends and sends it the first bytes.
pub(super) async fn connect(
    worker: &Worker,
    connection: &Connection,
    routed: &mut Routed,
) -> Result<(Rc<Socket>, OnBackend), Outcome> {
    let Routed { route, incoming, early } = routed;
    let route = &*route;
    let mut tried = Tried::default();
    let mut outcome = Outcome::NoBackend;
    for _ in 0..=route.spec.retries {
        let now_ms = clock::millis();
        let Some(index) = pick(worker, connection, route, &tried, now_ms) else { break };
        let live = Arc::clone(&route.backends[index].live);
        let on_backend = OnBackend::acquire(&live);
        connection.target.borrow_mut().backend = Some(Arc::clone(&live));
        let header = header(connection, route, index, incoming.as_deref());
        match attempt(worker, connection, route, index, &header, early).await {
            Ok(socket) => {
                live.connect_ok(now_ms);
                return Ok((socket, on_backend));
            }
            Err(Failed::Stopped(stopped)) => return Err(stopped),
            Err(Failed::Overload) => {
                worker.policy.budgets.missed_descriptor();
                return Err(Outcome::Overload);
            }
            Err(Failed::Broken) => return Err(Outcome::BackendReset),
            Err(Failed::TimedOut) => outcome = Outcome::ConnectTimeout,
            Err(Failed::Connect(error)) => {
                outcome = Outcome::ConnectFailed;
                tracing::debug!(backend = %live.address, %error, "connecting failed");
            }
        }
        if live.connect_failed(clock::millis(), route.spec.eject_after, route.spec.eject_ms) {
            (worker.policy.on_ejected)(live.address);
        }
        tried.insert(index);
    }
    Err(outcome)
}

/// Chooses one of the route's backends that were not tried yet.
pub(super) fn pick(
    worker: &Worker,
    connection: &Connection,
    route: &RouteEntry,
    tried: &Tried,
    now_ms: u64,
) -> Option<usize> {
    let choice = balance::Choice {
        balance: route.spec.balance,
        slow_start_ms: route.spec.slow_start_ms,
        tried: *tried,
        random: worker.random.borrow_mut().u64(..),
        source: balance::source_hash(connection.client.get().ip()),
        now_ms,
    };
    balance::pick(&choice, &route.backends, |index| route.backend(index).weight)
}

/// The PROXY header for this backend; empty where it wants none.
pub(super) fn header(
    connection: &Connection,
    route: &RouteEntry,
    index: usize,
    incoming: Option<&Header>,
) -> Vec<u8> {
    let backend = route.backend(index);
    let mut header = Vec::new();
    if backend.proxy_protocol == ProxyOut::Off {
        return header;
    }
    let target = connection.target.borrow();
    // Whom the client reached: what its own header says, else our address on this connection.
    let reached = incoming.and_then(|header| header.addresses).map(|addresses| addresses.destination);
    let reached = reached.or_else(|| connection.socket.local_address().ok());
    let facts = Facts {
        source: connection.client.get(),
        destination: reached.unwrap_or(connection.listener.spec.address),
        alpn: Some(&*target.alpn).filter(|alpn| !alpn.is_empty()),
        authority: Some(&*target.name).filter(|name| !name.is_empty()),
        id: &access_log::id_text(connection.id),
        incoming: incoming.map(|header| &header.tlvs),
    };
    proxy_protocol::write(&mut header, backend.proxy_protocol, &backend.tlvs, &facts);
    header
}

/// Tries one backend: connects, and sends the header and the first bytes.
async fn attempt(
    worker: &Worker,
    connection: &Connection,
    route: &RouteEntry,
    index: usize,
    header: &[u8],
    early: &mut Early,
) -> Result<Rc<Socket>, Failed> {
    let socket = match Socket::connect(route.backend(index).address) {
        Ok(socket) => Rc::new(socket),
        Err(error) if is_overload(&error) => return Err(Failed::Overload),
        Err(error) => return Err(Failed::Connect(error)),
    };
    *connection.backend_socket.borrow_mut() = Some(Rc::clone(&socket));
    // On this machine and on fast networks the connection is there already: no wait, no copy.
    let mut sent = 0;
    if header.is_empty() {
        let (len, now) = early.with(worker, |bytes| (bytes.len(), socket.send(bytes)));
        match now {
            Ok(now) => sent = now,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(Failed::Connect(error)),
        }
        connection.up.count(sent, worker.shared.now_ms.get());
        if sent == len {
            return Ok(socket);
        }
    }
    connection.attempt_over.set(false);
    let deadline = clock::millis() + route.spec.connect_timeout_ms;
    worker.connections.enter(connection, Phase::Connect, deadline, deadline);
    let bytes = early.keep(worker);
    let begun = sent > 0;
    let header_sent = send_all(connection, &socket, header, begun).await?;
    let rest_sent = send_all(connection, &socket, &bytes[sent..], begun || header_sent > 0).await?;
    connection.up.count(rest_sent, worker.shared.now_ms.get());
    Ok(socket)
}

/// Sends all of `bytes`, waiting for the connection where it must; `begun`: something was sent before.
async fn send_all(
    connection: &Connection,
    socket: &Socket,
    bytes: &[u8],
    begun: bool,
) -> Result<usize, Failed> {
    let mut sent = 0;
    while sent < bytes.len() {
        match socket.send(&bytes[sent..]) {
            Ok(more) => sent += more,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                socket.writable().await.map_err(|_gone| Failed::Broken)?;
            }
            Err(error) => {
                return Err(match connection.stop.get() {
                    Some(outcome) => Failed::Stopped(outcome),
                    None if connection.attempt_over.get() => Failed::TimedOut,
                    None if begun || sent > 0 => Failed::Broken,
                    None => Failed::Connect(error),
                });
            }
        }
    }
    Ok(sent)
}

pub(super) fn is_overload(error: &io::Error) -> bool {
    // EMFILE, ENFILE, ENOBUFS, ENOMEM.
    matches!(error.raw_os_error(), Some(24 | 23 | 105 | 12))
}
