//! One client that speaks HTTP: its TLS connection, the route of each request, and what is written of each.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use base64::Engine as _;
use mc_api::mcproxy::{TappedField, TappedHead};
use mc_core::balance::Tried;
use mc_core::content_coding::{self, Coding, Compressible};
use mc_core::hostname::HostName;
use mc_core::http1::{self, Authority};
use mc_core::model::{ClientAuth, Http, Mirror, Mode, Policy, RequestRate};
use mc_core::outcome::RequestOutcome;
use mc_core::policy::{self, Edits, End, FieldRef, Seen};
use mc_core::proxy_protocol::Header;
use mc_core::rate::{Scope, source};
use mc_core::redact;
use mc_uring::Tls;
use mc_uring::tls::Received;

use crate::access_log::{self, Times};
use crate::clock;
use crate::snapshot::RouteEntry;
use crate::stats;
use crate::tls::{Asked, fingerprint};
use crate::worker::Worker;
use crate::worker::connection::Connection;
use crate::worker::phase::linger;

/// A client's connection, once its handshake is over.
pub(super) struct Session {
    pub(super) worker: Rc<Worker>,
    pub(super) connection: Rc<Connection>,
    pub(super) tls: Tls,
    /// TLS was made for a name.
    is_named: bool,
    requests: Cell<u64>,
    /// The client was told a part of something, and must notice that it is one.
    aborted: Cell<bool>,
    /// What the client's own PROXY header carried.
    pub(super) incoming: Option<Box<Header>>,
    /// How the client was asked for a certificate.
    asked: Asked,
    /// The certificate that it has shown.
    client_cert: Option<Box<ClientCert>>,
}

/// A client's verified certificate.
struct ClientCert {
    /// As `Client-Cert` has it (RFC 9440, section 2.1).
    field: Vec<u8>,
    /// SHA-256 in hexadecimal, as the log has it.
    sha256: String,
}

/// What is noted of a request on its way, for the log.
#[derive(Debug)]
pub(super) struct Note {
    pub(super) id: String,
    pub(super) protocol: &'static str,
    /// An answer has no content: the method is HEAD.
    pub(super) to_head: bool,
    pub(super) host: Box<[u8]>,
    pub(super) route: Option<Arc<RouteEntry>>,
    pub(super) backend: Option<SocketAddr>,
    pub(super) status: u16,
    pub(super) detail: String,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    pub(super) started_us: u64,
    pub(super) times: Times,
    /// Policies that apply to it.
    pub(super) applied: policy::Set,
    /// Path and query for its backend, where a policy says others than the client does.
    pub(super) rewritten: Option<Vec<u8>>,
    /// Backends that it must not go to, because of its path.
    pub(super) excluded: Tried,
    /// Backends that took it and did not answer.
    pub(super) failed: Tried,
    /// The backend that has it, by its place.
    pub(super) index: Option<usize>,
    /// The coding that the client likes best, where a policy has responses compressed.
    coding: Option<Coding>,
    /// The backend that its cookie names, by its hash.
    pub(super) sticky: Option<u64>,
    /// The cookie that its client is given.
    pub(super) cookie: Option<String>,
    /// Fields of an answer of our own, where it has any besides the usual ones.
    pub(super) own_fields: Vec<(&'static str, String)>,
    /// The status of an answer of our own, where it is not its outcome's.
    pub(super) own_status: Option<u16>,
}

/// What a client said that the log repeats; empty where it did not say it, or nobody could read it.
#[derive(Clone, Copy, Default)]
pub(super) struct Said<'a> {
    pub(super) method: &'a [u8],
    pub(super) target: &'a [u8],
    pub(super) user_agent: &'a [u8],
    pub(super) referer: &'a [u8],
}

impl Note {
    fn policies(&self) -> &[Policy] {
        self.route.as_ref().map_or(&[], |route| &route.spec.http.policies)
    }

    /// Path and query for the backend of a request that came with `asked`.
    pub(super) fn target<'a>(&'a self, asked: &'a [u8]) -> &'a [u8] {
        self.rewritten.as_deref().unwrap_or(asked)
    }

    /// Where a copy of it goes.
    pub(super) fn mirror(&self) -> Option<&Mirror> {
        self.applied.mirror(self.policies())
    }

    /// What policies change of the request's fields.
    pub(super) fn request_edits(&self) -> Edits<'_> {
        Edits::of_request(self.applied, self.policies())
    }

    /// What is changed of the response's fields.
    pub(super) fn response_edits(&self) -> Edits<'_> {
        Edits::of_response(self.applied, self.policies()).with_cookie(self.cookie.as_deref())
    }

    /// Shows the response's head to those who tap its route.
    pub(super) fn tap_response<'a>(&self, fields: impl Iterator<Item = FieldRef<'a>>) {
        if let Some(tap) = self.route.as_ref().and_then(|route| route.live.tapped()) {
            let duration_us = clock::micros() - self.started_us;
            tap.show(TappedHead {
                response: true,
                status: self.status.into(),
                duration_us,
                ..self.tapped(fields)
            });
        }
    }

    fn tapped<'a>(&self, fields: impl Iterator<Item = FieldRef<'a>>) -> TappedHead {
        let field = |(_, name, value): FieldRef<'a>| TappedField {
            name: redact::text(name).to_ascii_lowercase(),
            value: redact::value(name, value),
        };
        TappedHead {
            unix_ms: clock::unix_millis(),
            request_id: redact::text(self.id.as_bytes()),
            fields: fields.map(field).collect(),
            ..TappedHead::default()
        }
    }

    /// Whether the response may be compressed, and how it is.
    pub(super) fn coding<'a>(
        &self,
        no_content: bool,
        fields: impl Iterator<Item = FieldRef<'a>>,
    ) -> Option<(Compressible, Option<Coding>)> {
        let compress = self.applied.compress(self.policies())?;
        let facts = content_coding::Facts { status: self.status, no_content, min_bytes: compress.min_bytes };
        let fields = fields.map(|(_, name, value)| (name, value));
        let found = content_coding::compressible(&facts, &compress.types, fields)?;
        Some((found, self.coding))
    }

    /// An answer of our own to a request that came to this: its status, the fields that it has besides the usual ones,
    /// its media type and its body.
    pub(super) fn own_answer(&mut self, outcome: RequestOutcome, status: Option<u16>) -> OwnAnswer {
        let status = status.or(self.own_status).unwrap_or(outcome.status());
        self.status = status;
        let reason = http1::reason(status);
        let (content_type, body) = match self.applied.error_page(self.policies(), status) {
            None => ("text/plain".to_owned(), format!("{status} {reason}\n")),
            Some(page) => {
                let body = page.body.replace("{status}", &status.to_string());
                let body = body.replace("{reason}", reason).replace("{request_id}", &self.id);
                (page.content_type.clone(), body)
            }
        };
        self.bytes_out = body.len() as u64;
        OwnAnswer { status, content_type, body }
    }

    /// Notes how a policy ended the request.
    fn ended_by(&mut self, end: End) -> RequestOutcome {
        match end {
            End::Denied => RequestOutcome::Denied,
            End::NotFound => RequestOutcome::NotFound,
            End::Method { allow } => {
                self.own_fields.push(("Allow", allow));
                RequestOutcome::MethodNotAllowed
            }
            End::Rate { retry_after_s } => {
                self.own_fields.push(("Retry-After", retry_after_s.to_string()));
                RequestOutcome::RateLimited
            }
            End::Redirect { status, location } => {
                self.own_fields.push(("Location", location));
                self.own_status = Some(status);
                RequestOutcome::Redirected
            }
            End::Ambiguous(why) => {
                self.detail = why.to_string();
                RequestOutcome::Malformed
            }
        }
    }

    /// Takes this route, and those of its backends that are for the path.
    ///
    /// # Errors
    /// None is.
    pub(super) fn follow(&mut self, route: &Arc<RouteEntry>, target: &[u8]) -> Result<(), RequestOutcome> {
        self.route = Some(Arc::clone(route));
        (self.excluded, self.failed, self.index) = (Tried::default(), Tried::default(), None);
        match policy::backend_path(&route.spec.backends, target) {
            Ok(Some(path)) => {
                for (index, backend) in route.spec.backends.iter().enumerate() {
                    if backend.path != path {
                        self.excluded.insert(index);
                    }
                }
                Ok(())
            }
            Ok(None) => Err(RequestOutcome::NotFound),
            Err(why) => Err(self.ended_by(End::Ambiguous(why))),
        }
    }

    /// Has the client come back to the backend with this hash, where its route wants that.
    pub(super) fn stick(&mut self, hash: u64) {
        let Some(sticky) = self.route.as_ref().and_then(|route| route.spec.http.sticky.as_ref()) else {
            return;
        };
        if self.sticky == Some(hash) {
            self.cookie = None;
            return;
        }
        let mut cookie = format!("{}={hash:016x}; Path=/; HttpOnly; Secure; SameSite=Lax", sticky.cookie);
        if sticky.max_age_s > 0 {
            cookie.push_str(&format!("; Max-Age={}", sticky.max_age_s));
        }
        self.cookie = Some(cookie);
    }

    /// How the request's route speaks HTTP.
    ///
    /// # Panics
    /// There is no route yet.
    pub(super) fn http(&self) -> &Http {
        &self.route.as_ref().expect("a request that is passed on has a route").spec.http
    }

    /// How long nothing may move while its response is passed on, in milliseconds.
    pub(super) fn idle_ms(&self) -> u64 {
        let route = self.route.as_ref().expect("a request that is passed on has a route");
        match route.spec.idle_timeout_ms {
            0 => u64::MAX,
            limit => limit,
        }
    }

    /// Bytes that its body may have.
    pub(super) fn most_bytes(&self) -> u64 {
        let by_policy = self.applied.max_body_bytes(self.policies());
        match by_policy.unwrap_or(self.http().max_body_bytes) {
            0 => u64::MAX,
            most => most,
        }
    }
}

/// An answer of our own.
pub(super) struct OwnAnswer {
    pub(super) status: u16,
    pub(super) content_type: String,
    pub(super) body: String,
}

/// The longest request id of a client that is passed on.
const MAX_ID: usize = 128;

/// The backend that a `Cookie` field names.
fn sticky_hash(value: &[u8], cookie: &str) -> Option<u64> {
    let mut pairs = value.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    let text = pairs.find_map(|pair| pair.strip_prefix(cookie.as_bytes())?.strip_prefix(b"="))?;
    u64::from_str_radix(str::from_utf8(text).ok()?, 16).ok()
}

/// Whether a client's server name is one: some send an address, which names nobody (RFC 6066, section 3).
pub(super) fn is_name(name: &str) -> bool {
    HostName::parse(name.as_bytes()).is_ok()
}

impl Session {
    pub(super) fn new(
        worker: &Rc<Worker>,
        connection: &Rc<Connection>,
        incoming: Option<Box<Header>>,
        tls: Tls,
        asked: Asked,
    ) -> Self {
        let shown = |common: &rustls::CommonState| {
            let leaf = common.peer_certificates()?.first()?;
            let text = base64::engine::general_purpose::STANDARD.encode(leaf);
            let (field, sha256) = (format!(":{text}:").into_bytes(), fingerprint(leaf));
            Some(Box::new(ClientCert { field, sha256 }))
        };
        Self {
            client_cert: tls.with(shown),
            asked,
            worker: Rc::clone(worker),
            connection: Rc::clone(connection),
            tls,
            is_named: is_name(&connection.target.borrow().name),
            requests: Cell::new(0),
            aborted: Cell::new(false),
            incoming,
        }
    }

    /// The client's verified certificate, where the request's route asks for one, as `Client-Cert` has it.
    pub(super) fn client_cert(&self, note: &Note) -> Option<&[u8]> {
        self.shown_to(note).map(|shown| shown.field.as_slice())
    }

    fn shown_to(&self, note: &Note) -> Option<&ClientCert> {
        let is_asked = note.route.as_ref()?.spec.http.client_auth != ClientAuth::Off;
        self.client_cert.as_deref().filter(|_| is_asked)
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
        self.blocking(self.tls.send_all(&self.worker.shared, bytes)).await?;
        self.connection.down.count(bytes.len(), self.now_ms());
        Ok(())
    }

    /// Waits until the client takes what is written to it: for as long as it does not, it blocks its connection.
    pub(super) async fn blocking<F: Future>(&self, writing: F) -> F::Output {
        self.connection.down.write(&self.worker.shared.now_ms, writing).await
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
        let ours = || access_log::request_id_text(self.connection.id, number);
        Note {
            id: theirs.map_or_else(ours, str::to_owned),
            protocol,
            to_head: false,
            host: Box::default(),
            route: None,
            backend: None,
            status: 0,
            detail: String::new(),
            bytes_in: 0,
            bytes_out: 0,
            started_us: clock::micros(),
            times: Times::default(),
            applied: policy::Set::default(),
            rewritten: None,
            excluded: Tried::default(),
            failed: Tried::default(),
            index: None,
            coding: None,
            sticky: None,
            cookie: None,
            own_fields: Vec::new(),
            own_status: None,
        }
    }

    /// The route that a request for `host` takes now. The connection's name is what TLS was made for: a request for
    /// another host is refused, so that neither a certificate nor a policy is borrowed (RFC 9110, section 15.5.20). While
    /// memory is short there is none.
    pub(super) fn route(&self, host: &[u8]) -> Result<Arc<RouteEntry>, RequestOutcome> {
        if self.worker.policy.budgets.memory.is_short() {
            return Err(RequestOutcome::Overload);
        }
        let mut target = self.connection.target.borrow_mut();
        if self.is_named && !host.is_empty() {
            let asked = Authority::parse(host).ok_or(RequestOutcome::Malformed)?;
            if !asked.same_host(&target.name) {
                return Err(RequestOutcome::Misdirected);
            }
        }
        let name = Some(&*target.name).filter(|_| self.is_named);
        let offers = std::iter::once(&*target.alpn).filter(|alpn| !alpn.is_empty());
        let found = self.worker.snapshot(|snapshot| {
            snapshot.routes.lookup(self.connection.listener.id, name, offers).map(Arc::clone)
        });
        let found = found.filter(|route| route.spec.mode == Mode::L7).ok_or(RequestOutcome::NoRoute)?;
        // It may ask for certificates since, by other authorities, or have got other ones itself: the client must be
        // asked anew, on another connection.
        let asks = found.asked();
        if !asks.is_nothing() && asks != self.asked {
            return Err(RequestOutcome::Misdirected);
        }
        // Another one may have taken its place while the connection lives.
        target.route = Some(Arc::clone(&found));
        Ok(found)
    }

    /// Has the route's policies judge a request: what they say of it is noted and counted.
    ///
    /// # Errors
    /// The request ends here.
    pub(super) fn judge<'a, F, I>(&self, note: &mut Note, seen: &Seen<'a, F>) -> Result<(), RequestOutcome>
    where
        F: Fn() -> I,
        I: Iterator<Item = FieldRef<'a>>,
    {
        let Some(route) = note.route.clone() else { return Ok(()) };
        if let Some(tap) = route.live.tapped() {
            tap.show(TappedHead {
                client: self.connection.client.get().to_string(),
                protocol: note.protocol.to_owned(),
                method: redact::text(seen.method),
                host: redact::text(seen.host),
                target: redact::target(seen.target),
                ..note.tapped((seen.fields)())
            });
        }
        if !route.policies.is_empty() {
            let client = policy::rated(self.connection.client.get().ip());
            let allowed = |index: usize, rate: &RequestRate| {
                let owner = route.policies[index].owner;
                let limit = rate.limit();
                let table = &self.worker.policy.request_rates;
                table.take_of(owner, source(client), Scope::Address, clock::nanos(), &limit)
            };
            let decision = policy::decide(&route.spec.http.policies, seen, allowed);
            for (set, is_dry) in [(decision.applied, false), (decision.dry, true)] {
                for live in set.places().filter_map(|index| route.policies.get(index)) {
                    let counter = if is_dry { &live.dry_run } else { &live.applied };
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            }
            note.applied = decision.applied;
            if let Some(compress) = decision.applied.compress(&route.spec.http.policies) {
                let accept =
                    (seen.fields)().filter(|(_, name, _)| name.eq_ignore_ascii_case(b"accept-encoding"));
                note.coding = content_coding::negotiate(accept.map(|(_, _, value)| value), &compress.codings);
            }
            note.rewritten = decision.target;
            if let Some(end) = decision.end {
                return Err(note.ended_by(end));
            }
        }
        note.follow(&route, seen.target)?;
        if let Some(sticky) = &route.spec.http.sticky {
            let mut cookies = (seen.fields)().filter(|(_, name, _)| name.eq_ignore_ascii_case(b"cookie"));
            note.sticky = cookies.find_map(|(_, _, value)| sticky_hash(value, &sticky.cookie));
        }
        Ok(())
    }

    /// How long the client may take until its next request, in milliseconds.
    pub(super) fn keepalive_ms(&self) -> u64 {
        let target = self.connection.target.borrow();
        target.route.as_ref().map_or(0, |route| route.spec.http.keepalive_timeout_ms)
    }

    /// Counts and logs a request that is over.
    pub(super) fn finish(&self, mut note: Note, said: Said<'_>, outcome: RequestOutcome) {
        note.times.duration_us = clock::micros() - note.started_us;
        let counted = &self.worker.stats;
        counted.requests[stats::class(note.status)].add(1);
        counted.request_outcomes[outcome as usize].add(1);
        counted.request_time.record_us(note.times.duration_us);
        if note.times.response_us > 0 {
            counted.request_connect_time.record_us(note.times.connect_us);
            counted.request_response_time.record_us(note.times.response_us);
        }
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
            method: said.method,
            host: &note.host,
            target: said.target,
            user_agent: said.user_agent,
            referer: said.referer,
            client_cert: self.shown_to(&note).map_or("", |shown| &shown.sha256),
            status: note.status,
            outcome,
            detail: &note.detail,
            bytes_in: note.bytes_in,
            bytes_out: note.bytes_out,
            times: note.times,
        });
    }
}
