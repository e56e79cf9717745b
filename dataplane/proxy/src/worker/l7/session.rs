//! One client that speaks HTTP: its TLS connection, the route of each request, and what is written of each.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mc_core::http1::Authority;
use mc_core::model::{Http, Mode};
use mc_core::outcome::RequestOutcome;
use mc_core::proxy_protocol::Header;
use mc_uring::Tls;
use mc_uring::tls::Received;

use crate::access_log::{self, Times};
use crate::clock;
use crate::snapshot::RouteEntry;
use crate::stats;
use crate::worker::Worker;
use crate::worker::connection::Connection;
use crate::worker::serve::linger;

/// A client's connection, once its handshake is over.
pub(super) struct Session {
    pub(super) worker: Rc<Worker>,
    pub(super) connection: Rc<Connection>,
    pub(super) tls: Tls,
    requests: Cell<u64>,
    /// The client was told a part of something, and must notice that it is one.
    aborted: Cell<bool>,
    /// What the client's own PROXY header carried.
    pub(super) incoming: Option<Box<Header>>,
}

/// What is noted of a request on its way, for the log.
#[derive(Debug)]
pub(super) struct Note {
    pub(super) id: String,
    pub(super) protocol: &'static str,
    pub(super) method: Box<[u8]>,
    pub(super) host: Box<[u8]>,
    pub(super) target: Box<[u8]>,
    pub(super) user_agent: Box<[u8]>,
    pub(super) referer: Box<[u8]>,
    pub(super) route: Option<Arc<RouteEntry>>,
    pub(super) backend: Option<SocketAddr>,
    pub(super) status: u16,
    pub(super) detail: String,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    pub(super) started_us: u64,
    pub(super) times: Times,
}

impl Note {
    /// How the request's route speaks HTTP.
    ///
    /// # Panics
    /// There is no route yet.
    pub(super) fn http(&self) -> &Http {
        &self.route.as_ref().expect("a request that is passed on has a route").spec.http
    }

    /// How long its backend may take to answer.
    pub(super) fn response_timeout(&self) -> Duration {
        Duration::from_millis(self.http().response_timeout_ms)
    }

    /// Bytes that its body may have.
    pub(super) fn most_bytes(&self) -> u64 {
        match self.http().max_body_bytes {
            0 => u64::MAX,
            most => most,
        }
    }
}

/// The longest request id of a client that is passed on.
const MAX_ID: usize = 128;

impl Session {
    pub(super) fn new(
        worker: &Rc<Worker>,
        connection: &Rc<Connection>,
        incoming: Option<Box<Header>>,
        tls: Tls,
    ) -> Self {
        Self {
            worker: Rc::clone(worker),
            connection: Rc::clone(connection),
            tls,
            requests: Cell::new(0),
            aborted: Cell::new(false),
            incoming,
        }
    }

    /// Waits for more of what the client says; it is appended to `plain`.
    pub(super) async fn receive(&self, plain: &mut Vec<u8>) -> io::Result<Received> {
        loop {
            self.tls.readable().await?;
            match self.tls.try_recv(&self.worker.shared, plain)? {
                Received::Nothing => {}
                received => return Ok(received),
            }
        }
    }

    /// Sends all of this to the client.
    pub(super) async fn send(&self, bytes: &[u8]) -> io::Result<()> {
        self.tls.send_all(&self.worker.shared, bytes).await?;
        self.connection.down.count(bytes.len(), self.now_ms());
        Ok(())
    }

    /// Says that nothing more is sent, and waits a moment for the client to hear. After [`Self::abort`] nothing is
    /// said: it would make a part look like the whole.
    pub(super) async fn close(&self) {
        if self.aborted.get() {
            return;
        }
        self.tls.close(&self.worker.shared);
        linger(&self.worker, &self.connection).await;
    }

    /// Has the connection reset when it ends.
    pub(super) fn abort(&self) {
        self.aborted.set(true);
        self.connection.socket.reset_on_close();
    }

    /// Whether the client should go elsewhere with its next request: this process stops.
    pub(super) fn is_draining(&self) -> bool {
        self.worker.is_draining()
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.worker.shared.now_ms.get()
    }

    /// Begins a note; `id`: what the client calls the request, if it does.
    pub(super) fn note(&self, protocol: &'static str, id: Option<&[u8]>) -> Note {
        let number = self.requests.get() + 1;
        self.requests.set(number);
        let is_fit =
            |id: &&[u8]| (1..=MAX_ID).contains(&id.len()) && id.iter().all(|byte| byte.is_ascii_graphic());
        let theirs = id.filter(is_fit).and_then(|id| str::from_utf8(id).ok());
        let ours = || format!("{}-{number}", access_log::id_text(self.connection.id));
        Note {
            id: theirs.map_or_else(ours, str::to_owned),
            protocol,
            method: Box::default(),
            host: Box::default(),
            target: Box::default(),
            user_agent: Box::default(),
            referer: Box::default(),
            route: None,
            backend: None,
            status: 0,
            detail: String::new(),
            bytes_in: 0,
            bytes_out: 0,
            started_us: clock::micros(),
            times: Times::default(),
        }
    }

    /// The route that a request for `host` takes now. The connection's name is what TLS was made for: a request for
    /// another host is refused, so that neither a certificate nor a policy is borrowed (RFC 9110, section 15.5.20).
    pub(super) fn route(&self, host: &[u8]) -> Result<Arc<RouteEntry>, RequestOutcome> {
        let mut target = self.connection.target.borrow_mut();
        if !target.name.is_empty() && !host.is_empty() {
            let asked = Authority::parse(host).ok_or(RequestOutcome::Malformed)?;
            if !asked.same_host(&target.name) {
                return Err(RequestOutcome::Misdirected);
            }
        }
        let name = Some(&*target.name).filter(|name| !name.is_empty());
        let offers = std::iter::once(&*target.alpn).filter(|alpn| !alpn.is_empty());
        let found = self.worker.snapshot(|snapshot| {
            snapshot.routes.lookup(self.connection.listener.id, name, offers).map(Arc::clone)
        });
        let found = found.filter(|route| route.spec.mode == Mode::L7).ok_or(RequestOutcome::NoRoute)?;
        // Another one may have taken its place while the connection lives.
        target.route = Some(Arc::clone(&found));
        Ok(found)
    }

    /// How long the client may take until its next request, in milliseconds.
    pub(super) fn keepalive_ms(&self) -> u64 {
        let target = self.connection.target.borrow();
        target.route.as_ref().map_or(0, |route| route.spec.http.keepalive_timeout_ms)
    }

    /// Counts and logs a request that is over.
    pub(super) fn finish(&self, mut note: Note, outcome: RequestOutcome) {
        note.times.duration_us = clock::micros() - note.started_us;
        let counted = &self.worker.stats;
        counted.requests[stats::class(note.status)].add(1);
        counted.request_outcomes[outcome as usize].add(1);
        counted.request_time.record_us(note.times.duration_us);
        if let Some(route) = &note.route {
            route.live.counters().request(note.status);
        }
        self.worker.log.request(&access_log::Request {
            id: &note.id,
            connection: self.connection.id,
            unix_ms: clock::unix_millis(),
            client: self.connection.client.get(),
            listener: &self.connection.listener.spec.name,
            route: note.route.as_ref().map_or("", |route| &route.spec.name),
            backend: note.backend,
            protocol: note.protocol,
            method: &note.method,
            host: &note.host,
            target: &note.target,
            user_agent: &note.user_agent,
            referer: &note.referer,
            status: note.status,
            outcome,
            detail: &note.detail,
            bytes_in: note.bytes_in,
            bytes_out: note.bytes_out,
            times: note.times,
        });
    }
}
