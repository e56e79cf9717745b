//! The beginning of a connection: who it is, what it asks for, whether and where it may go.
//!
//! The first bytes usually come in one piece: they are judged where they are, in the worker's buffer, and
//! nothing is allocated. Only where more must be waited for are they kept.

use std::io;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;

use mc_core::client_hello::reply::reply;
use mc_core::client_hello::{self, Hello};
use mc_core::model::ProxyIn;
use mc_core::outcome::Outcome;
use mc_core::proxy_protocol::{self, Header};
use mc_core::rate::Rates;

use super::Worker;
use super::connection::Connection;
use crate::clock;
use crate::snapshot::RouteEntry;

/// A connection that may go on.
pub(super) struct Routed {
    pub(super) route: Arc<RouteEntry>,
    /// What the client's own PROXY header carried.
    pub(super) incoming: Option<Box<Header>>,
    /// What was read and belongs to the backend.
    pub(super) early: Early,
}

/// Bytes that were read before there was a backend.
pub(super) enum Early {
    /// In the worker's buffer, until the next wait.
    InBuffer(Range<usize>),
    /// Kept.
    Kept(Vec<u8>),
}

/// A connection that may not.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refusal {
    pub(super) outcome: Outcome,
    pub(super) reply: Reply,
}

/// What a refused client is told.
#[derive(Clone, Copy, Debug)]
pub(super) enum Reply {
    /// Nothing: a reset, which costs least.
    Reset,
    /// A TLS alert or a 400; nothing: a bare end.
    Bytes(&'static [u8]),
}

/// What has been read of the beginning.
struct Beginning {
    parser: client_hello::Parser,
    proxy: Proxy,
    /// Bytes of the PROXY header.
    skip: usize,
    incoming: Option<Box<Header>>,
}

/// Whether a PROXY header may still come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Proxy {
    Required,
    Optional,
    Over,
}

/// What the bytes so far amount to.
enum Step {
    More,
    Go(Arc<RouteEntry>),
}

/// Reads until it is clear where the connection goes.
pub(super) async fn hello(worker: &Worker, connection: &Connection) -> Result<Routed, Refusal> {
    let mut beginning = Beginning::new(worker, connection)?;
    // What came may be complete already: a client that was waiting in the queue has said its hello.
    let first = worker.shared.with_buffer(|buffer| {
        let read = received(connection, connection.socket.recv(buffer))?;
        let step = beginning.step(worker, connection, &buffer[..read])?;
        Ok(match step {
            Step::Go(route) => Ok((route, Early::InBuffer(beginning.skip..read))),
            Step::More => Err(buffer[..read].to_vec()),
        })
    })?;
    let (route, early) = match first {
        Ok(routed) => routed,
        Err(kept) => read_on(worker, connection, &mut beginning, kept).await?,
    };
    Ok(Routed { route, incoming: beginning.incoming.take(), early })
}

/// Reads on where the first bytes were not enough.
async fn read_on(
    worker: &Worker,
    connection: &Connection,
    beginning: &mut Beginning,
    mut kept: Vec<u8>,
) -> Result<(Arc<RouteEntry>, Early), Refusal> {
    loop {
        connection.socket.readable().await.map_err(|_gone| Refusal::reset(Outcome::HelloIncomplete))?;
        let step = worker.shared.with_buffer(|buffer| {
            let read = received(connection, connection.socket.recv(buffer))?;
            if read == 0 {
                return Ok(None);
            }
            if kept.is_empty() {
                // The usual case: the client's first bytes, all of them.
                match beginning.step(worker, connection, &buffer[..read])? {
                    Step::Go(route) => return Ok(Some((route, Early::InBuffer(beginning.skip..read)))),
                    Step::More => kept.extend_from_slice(&buffer[..read]),
                }
                return Ok(None);
            }
            kept.extend_from_slice(&buffer[..read]);
            match beginning.step(worker, connection, &kept)? {
                Step::Go(route) => {
                    kept.drain(..beginning.skip);
                    Ok(Some((route, Early::Kept(std::mem::take(&mut kept)))))
                }
                Step::More => Ok(None),
            }
        })?;
        if let Some(routed) = step {
            return Ok(routed);
        }
    }
}

/// Bytes that were read, 0 where there are none yet; an end or an error is a refusal.
fn received(connection: &Connection, read: io::Result<usize>) -> Result<usize, Refusal> {
    match read {
        Ok(0) => Err(Refusal::told(connection.stop.get().unwrap_or(Outcome::HelloIncomplete))),
        Ok(read) => Ok(read),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        Err(_reset) => Err(Refusal::reset(connection.stop.get().unwrap_or(Outcome::HelloIncomplete))),
    }
}

impl Beginning {
    /// Judges the peer itself, as far as that can be done before it has said anything.
    fn new(worker: &Worker, connection: &Connection) -> Result<Self, Refusal> {
        let spec = &connection.listener.spec;
        let peer = connection.peer.ip();
        let trusted = || spec.trusted.iter().any(|network| network.contains(&peer.to_canonical()));
        let proxy = match spec.proxy_protocol {
            ProxyIn::Off => Proxy::Over,
            ProxyIn::Required if spec.trusted.is_empty() || trusted() => Proxy::Required,
            ProxyIn::Required => return Err(Refusal::reset(Outcome::ProxyUntrusted)),
            ProxyIn::Optional if trusted() => Proxy::Optional,
            ProxyIn::Optional => Proxy::Over,
        };
        if proxy == Proxy::Over {
            judge(worker, peer, !rated_by_kernel(worker, connection))?;
            count(worker, connection, peer)?;
        }
        let parser = client_hello::Parser::new(usize::try_from(spec.max_hello_bytes).unwrap_or(usize::MAX));
        Ok(Self { parser, proxy, skip: 0, incoming: None })
    }

    /// Looks at all bytes received so far.
    fn step(&mut self, worker: &Worker, connection: &Connection, bytes: &[u8]) -> Result<Step, Refusal> {
        if self.proxy != Proxy::Over && !self.proxy_header(worker, connection, bytes)? {
            return Ok(Step::More);
        }
        let tls = &bytes[self.skip..];
        match self.parser.parse(tls) {
            Ok(client_hello::Progress::NeedMore { .. }) => Ok(Step::More),
            Ok(client_hello::Progress::Done(hello)) => route(worker, connection, &hello).map(Step::Go),
            Err(error) => {
                let mut target = connection.target.borrow_mut();
                target.detail = error.to_string().into();
                target.name = client_hello::asked_name(tls).unwrap_or_default().into();
                Err(Refusal { outcome: error.outcome(), reply: Reply::Bytes(error.reply()) })
            }
        }
    }

    /// Reads the PROXY header; `false`: more bytes are needed.
    fn proxy_header(
        &mut self,
        worker: &Worker,
        connection: &Connection,
        bytes: &[u8],
    ) -> Result<bool, Refusal> {
        match proxy_protocol::parse(bytes) {
            Ok(proxy_protocol::Progress::NeedMore { .. }) => return Ok(false),
            Ok(proxy_protocol::Progress::NotProxy) if self.proxy == Proxy::Required => {
                return Err(Refusal::reset(Outcome::ProxyMissing));
            }
            // A trusted peer that speaks for itself.
            Ok(proxy_protocol::Progress::NotProxy) => judge_peer(worker, connection)?,
            Ok(proxy_protocol::Progress::Done { header, len }) => {
                self.skip = len;
                match header.addresses {
                    Some(addresses) => {
                        connection.client.set(addresses.source);
                        judge(worker, addresses.source.ip(), true)?;
                        count(worker, connection, addresses.source.ip())?;
                    }
                    // A header that names nobody leaves the peer to be judged.
                    None => judge_peer(worker, connection)?,
                }
                self.incoming = Some(Box::new(header));
            }
            Err(error) => {
                connection.target.borrow_mut().detail = error.to_string().into();
                return Err(Refusal::reset(Outcome::ProxyInvalid));
            }
        }
        self.proxy = Proxy::Over;
        Ok(true)
    }
}

/// Asks the firewall about a peer that may speak for others, but speaks for itself: it is exempt from the
/// rate where the listener trusts it by name.
fn judge_peer(worker: &Worker, connection: &Connection) -> Result<(), Refusal> {
    judge(worker, connection.peer.ip(), connection.listener.spec.trusted.is_empty())
}

/// Counts the connection for its client, unless that has as many as it may.
fn count(worker: &Worker, connection: &Connection, client: IpAddr) -> Result<(), Refusal> {
    let budgets = &worker.policy.budgets;
    if budgets.per_source == 0 {
        return Ok(());
    }
    if !budgets.sources.acquire(client, budgets.per_source) {
        return Err(Refusal::reset(Outcome::SourceLimit));
    }
    connection.counted.set(Some(client));
    Ok(())
}

/// Whether the kernel has rated the connection already, by the address that it came to.
fn rated_by_kernel(worker: &Worker, connection: &Connection) -> bool {
    worker.snapshot(|snapshot| {
        if snapshot.covered.is_empty() || !snapshot.firewall.compiled.needs_rate() {
            return false;
        }
        let listener = connection.listener.spec.address.ip();
        let local = match listener.is_unspecified() {
            true => connection.socket.local_address().map(|address| address.ip()),
            false => Ok(listener),
        };
        local.is_ok_and(|local| snapshot.covered.contains(local))
    })
}

/// Asks the firewall about an address, `rated` or not.
fn judge(worker: &Worker, address: IpAddr, rated: bool) -> Result<(), Refusal> {
    let decision = worker.snapshot(|snapshot| {
        let firewall = &snapshot.firewall;
        let rates = || Rates { table: &worker.policy.rates, now_ns: clock::nanos() };
        let rates = (rated && firewall.compiled.needs_rate()).then(rates);
        firewall.compiled.verdict(address, || firewall.geo.lookup(address), rates)
    });
    match decision.outcome() {
        None => Ok(()),
        Some(outcome) => Err(Refusal::reset(outcome)),
    }
}

/// Finds the route for a complete hello.
fn route(worker: &Worker, connection: &Connection, hello: &Hello<'_>) -> Result<Arc<RouteEntry>, Refusal> {
    let mut target = connection.target.borrow_mut();
    if let Some(name) = hello.server_name() {
        target.name = name.as_str().into();
    } else if let Some(literal) = hello.ip_literal() {
        target.name = literal.to_string().into();
    }
    target.alpn = hello.alpn().next().unwrap_or_default().into();
    let name = hello.server_name().map(|name| name.as_str());
    let found = worker.snapshot(|snapshot| {
        snapshot.routes.lookup(connection.listener.id, name, hello.alpn()).map(Arc::clone)
    });
    let Some(route) = found else {
        return Err(Refusal::told(Outcome::NoRoute));
    };
    target.route = Some(Arc::clone(&route));
    Ok(route)
}

/// Finds the route of a connection once more: it may be another by now.
pub(super) fn route_again(
    worker: &Worker,
    connection: &Connection,
    early: &Early,
) -> Result<Arc<RouteEntry>, Refusal> {
    let max = usize::try_from(connection.listener.spec.max_hello_bytes).unwrap_or(usize::MAX);
    early.with(worker, |bytes| match client_hello::Parser::new(max).parse(bytes) {
        Ok(client_hello::Progress::Done(hello)) => route(worker, connection, &hello),
        // It was complete before.
        Ok(client_hello::Progress::NeedMore { .. }) | Err(_) => Err(Refusal::reset(Outcome::HelloMalformed)),
    })
}

impl Early {
    /// The bytes, for as long as nothing waits.
    pub(super) fn with<R>(&self, worker: &Worker, look: impl FnOnce(&[u8]) -> R) -> R {
        match self {
            Self::InBuffer(range) => worker.shared.with_buffer(|buffer| look(&buffer[range.clone()])),
            Self::Kept(bytes) => look(bytes),
        }
    }

    /// Keeps the bytes, since there will be a wait.
    pub(super) fn keep(&mut self, worker: &Worker) -> &[u8] {
        if let Self::InBuffer(_) = self {
            *self = Self::Kept(self.with(worker, <[u8]>::to_vec));
        }
        let Self::Kept(bytes) = self else { unreachable!("they are kept now") };
        bytes
    }
}

impl Refusal {
    pub(super) const fn reset(outcome: Outcome) -> Self {
        Self { outcome, reply: Reply::Reset }
    }

    /// Tells the client what fits the outcome.
    pub(super) fn told(outcome: Outcome) -> Self {
        Self { outcome, reply: Reply::Bytes(reply(outcome).unwrap_or_default()) }
    }
}
