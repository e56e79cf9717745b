//! One request on its way: from a client to a backend, whatever version of HTTP each of them speaks, and the response back.
//!
//! It is written once for all pairs of [sides](super::sides): a client is a [`RequestHead`], a [`RequestBody`] and a [`Reply`], a
//! backend an [`Upstream`] with a [`Sender`] and a [`Receiver`]. What frames a body, when a stream or a
//! connection is broken off, and what may be passed on unread are theirs; limits of size and time, upgrades, trailers, coding,
//! copies for a mirror and a client that is gone are said here alone. The request's body goes to the backend while the response
//! comes back: either may end first.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use http::header::HeaderMap;
use mc_core::http1::{RequestLine, Version};
use mc_core::outcome::{Outcome, RequestOutcome};
use mc_core::policy::FieldRef;

use super::backend::{Chosen, failed, lease};
use super::checks;
use super::encode::Coder;
use super::fault::Fault;
use super::mirror::{self, Copied};
use super::session::{Note, Session};
use super::sides::{
    Gone, How, Part, Progress, Receiver, Refused, Reply, RequestBody, RequestHead, ResponseHead, Sender,
    UpError, Upstream, facts,
};
use crate::clock;
use crate::snapshot::RouteEntry;
use crate::worker::in_flight::InFlight;

/// A request, and where its response goes.
pub(super) struct Client<'a, H, B, R> {
    pub(super) head: &'a H,
    pub(super) body: &'a mut B,
    pub(super) reply: &'a mut R,
    /// A copy goes elsewhere, too.
    pub(super) copied: Option<&'a Copied>,
}

/// The methods that may be repeated (RFC 9110, section 9.2.2).
const IDEMPOTENT: [&[u8]; 6] = [b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"];

/// 1xx responses before a response.
const MAX_INTERIM: u32 = 100;

/// Begins a copy of the request for another backend, where a policy wants one.
pub(super) fn mirrored<H: RequestHead>(session: &Session, head: &H, note: &Note) -> Option<Copied> {
    if note.mirror().is_none() || head.upgrade().is_some() {
        return None;
    }
    let line = RequestLine { method: head.method(), target: head.target() };
    let edits = note.request_edits();
    mirror::begin(session, note, line, head.framing(), &facts(session, note), edits.apply(head.fields()))
}

/// Finds a backend and has it answer; once more where a kept connection turned out to be closed.
///
/// # Errors
/// No backend answered, or not all of it reached the client. What the client has got is broken off.
pub(super) async fn exchange<H: RequestHead, B: RequestBody, R: Reply>(
    session: &Session,
    route: &Arc<RouteEntry>,
    mut client: Client<'_, H, B, R>,
    note: &mut Note,
) -> Result<RequestOutcome, Fault> {
    // No body to be lost, and a method that may be repeated.
    let is_repeatable = client.body.is_over() && IDEMPOTENT.contains(&client.head.method());
    let in_flight = InFlight::begin(&session.connection.requests);
    let mut repeats = 0;
    let mut route = Arc::clone(route);
    loop {
        let chosen = connect(session, &mut route, &mut client, note, &in_flight, repeats > 0).await?;
        note.times.connect_us = clock::micros() - note.started_us;
        let (is_reused, end) = match chosen {
            Chosen::Http1(lease) => {
                (lease.is_reused(), serve(session, lease, &mut client, note, &in_flight).await)
            }
            Chosen::Http2(channel) => {
                (channel.is_reused(), serve(session, channel, &mut client, note, &in_flight).await)
            }
        };
        if let (Err(fault), Some(index), false) = (&end, note.index, is_reused)
            && fault.outcome == RequestOutcome::BackendClosed
        {
            failed(&session.worker, &route, index);
            note.failed.insert(index);
        }
        match end {
            Err(fault) if is_repeatable && fault.may_repeat(is_reused, repeats, &route) => repeats += 1,
            Err(fault) => {
                if fault.told {
                    client.reply.abort(&fault);
                }
                return Err(fault);
            }
            Ok(outcome) => return Ok(outcome),
        }
    }
}

/// Connects to a backend, for as long as the client is there and nobody has ended the request.
async fn connect<H: RequestHead, B, R: Reply>(
    session: &Session,
    route: &mut Arc<RouteEntry>,
    client: &mut Client<'_, H, B, R>,
    note: &mut Note,
    in_flight: &InFlight,
    fresh: bool,
) -> Result<Chosen, Fault> {
    let connected = {
        let mut lease = pin!(lease(session, route, note, client.head.target(), in_flight, fresh));
        poll_fn(|cx| match lease.as_mut().poll(cx) {
            Poll::Pending if in_flight.poll_ended(cx).is_ready() => Poll::Ready(Err(killed())),
            Poll::Pending => client.reply.poll_gone(cx).map(|()| Err(client_gone(session))),
            Poll::Ready(connected) => Poll::Ready(Ok(connected)),
        })
        .await
    };
    match connected {
        Ok(connected) => {
            connected.map_err(|outcome| Fault::before(outcome, std::mem::take(&mut note.detail)))
        }
        Err(fault) => {
            client.reply.abort(&fault);
            Err(fault)
        }
    }
}

/// An operator has ended the request.
fn killed() -> Fault {
    // RFC 8441, section 5: CANCEL stands for TCP's RST.
    let fault = Fault::amid(RequestOutcome::Killed, "an operator ended it");
    Fault { reset: Some(h2::Reason::CANCEL), ..fault }
}

/// The client is gone, unless an operator has ended its connection.
fn client_gone(session: &Session) -> Fault {
    match session.connection.stop.get() {
        Some(Outcome::Killed) => killed(),
        _ => Fault::amid(RequestOutcome::ClientGone, "the client gave up"),
    }
}

/// Has this backend answer.
async fn serve<H: RequestHead, B: RequestBody, R: Reply, U: Upstream>(
    session: &Session,
    upstream: U,
    client: &mut Client<'_, H, B, R>,
    note: &mut Note,
    in_flight: &InFlight,
) -> Result<RequestOutcome, Fault> {
    let Client { head, body, reply, copied } = client;
    let raw = B::IS_HTTP1 && U::IS_HTTP1;
    let passing = Passing {
        session,
        in_flight,
        copied: *copied,
        raw,
        most: note.most_bytes(),
        progress: Progress::default(),
        is_bound: Cell::new(false),
    };
    let first = body.ready(raw).map_err(|error| passing.failed(error).unwrap_or_else(closed))?;
    if first.as_ref().is_some_and(|part| passing.is_too_large(part)) {
        return Err(Fault::before(RequestOutcome::TooLarge, ""));
    }
    let is_over = first.is_none() && body.is_over();
    if let (true, Some(copied)) = (is_over, copied) {
        copied.finish(raw);
    }
    let (mut sender, mut receiver) = upstream.begin(session, note, *head, raw, is_over).await?;
    let result = {
        let up = pin!(passing.up(*body, &mut sender, first));
        let down = pin!(passing.down(*head, &mut receiver, *reply, note));
        passing.beside(up, down).await
    };
    let result = match result {
        Ok(true) => Ok(passing.tunnel(*body, &mut sender, &mut receiver, *reply, note).await),
        result => result.map(|_| RequestOutcome::Completed),
    };
    note.bytes_in += passing.progress.bytes.get();
    if result.is_err() {
        sender.cancel();
    }
    let is_reusable =
        receiver.is_reusable() && passing.progress.is_delivered.get() && !passing.is_bound.get();
    drop((sender, receiver));
    if result.is_ok() && is_reusable {
        upstream.give_back(session);
    }
    result
}

fn closed() -> Fault {
    Fault::before(RequestOutcome::BackendClosed, "sending the request failed")
}

/// The state of one exchange: shared by the task that sends the request's body and the one that passes the response on.
struct Passing<'a> {
    session: &'a Session,
    in_flight: &'a InFlight,
    copied: Option<&'a Copied>,
    /// The request's body passes as it is framed.
    raw: bool,
    /// Bytes that it may have.
    most: u64,
    progress: Progress,
    /// The backend may have authenticated its connection for this client.
    is_bound: Cell<bool>,
}

impl Passing<'_> {
    /// Passes the request's body on beside the response, which decides when it is over, unless an operator does.
    async fn beside<T>(
        &self,
        mut up: Pin<&mut impl Future<Output = Result<(), UpError>>>,
        mut down: Pin<&mut impl Future<Output = Result<T, Fault>>>,
    ) -> Result<T, Fault> {
        let mut is_sending = true;
        poll_fn(|cx| {
            if is_sending && let Poll::Ready(end) = up.as_mut().poll(cx) {
                is_sending = false;
                if let Some(fault) = end.err().and_then(|error| self.failed(error)) {
                    return Poll::Ready(Err(fault));
                }
            }
            match down.as_mut().poll(cx) {
                Poll::Pending => self.in_flight.poll_ended(cx).map(|()| Err(killed())),
                ready => ready,
            }
        })
        .await
    }

    /// What it means for the request that its body failed. A backend that does not want it may still answer.
    fn failed(&self, error: UpError) -> Option<Fault> {
        let (outcome, detail) = match error {
            UpError::Backend => return None,
            UpError::Client => return Some(self.gone()),
            UpError::TooLarge => (RequestOutcome::TooLarge, String::new()),
            UpError::Malformed(why) => (RequestOutcome::Malformed, why),
        };
        Some(Fault { told: self.progress.is_answering.get(), ..Fault::before(outcome, detail) })
    }

    /// The client is gone, or its connection was ended because nothing moved: then the fault may be the backend's.
    fn gone(&self) -> Fault {
        let progress = &self.progress;
        match self.session.connection.stop.get() {
            Some(Outcome::IdleTimeout) => {}
            Some(Outcome::Overload) => return Fault::amid(RequestOutcome::Overload, "memory is short"),
            _ => return client_gone(self.session),
        }
        let is_clients =
            !progress.is_delivered.get() || (progress.is_answering.get() && self.session.tls.has_unsent());
        if is_clients {
            Fault::amid(RequestOutcome::ClientTimeout, "the client neither sends nor takes anything")
        } else {
            Fault::amid(RequestOutcome::BackendTimeout, "no more of the response in time")
        }
    }

    /// The client takes no more: it left, or took nothing for so long that its connection was ended.
    fn takes_no_more(&self, Gone(why): Gone) -> Fault {
        match self.session.connection.stop.get() {
            Some(Outcome::Killed) => killed(),
            Some(Outcome::IdleTimeout) => Fault::amid(RequestOutcome::ClientTimeout, why),
            Some(Outcome::Overload) => Fault::amid(RequestOutcome::Overload, why),
            _ => Fault::amid(RequestOutcome::ClientGone, why),
        }
    }

    /// Whether the body has more bytes with this part than the route allows.
    fn is_too_large<P: AsRef<[u8]>>(&self, part: &Part<P>) -> bool {
        let (Part::More(piece) | Part::Last(piece)) = part else { return false };
        self.progress.bytes.get() + piece.as_ref().len() as u64 > self.most
    }

    /// Passes the request's body on, then watches whether the client leaves. A response may come before all of it is delivered,
    /// and end this.
    async fn up<B: RequestBody>(
        &self,
        body: &mut B,
        sender: &mut impl Sender,
        first: Option<Part<B::Piece>>,
    ) -> Result<(), UpError> {
        let mut is_last = first.is_none() && body.is_over();
        match first {
            Some(part) => is_last = self.pass(body, sender, part).await?,
            None => sender.flush().await?,
        }
        while !is_last {
            self.progress.waits_for_client.set(true);
            let part = body.next(self.raw).await;
            self.progress.waits_for_client.set(false);
            is_last = self.pass(body, sender, part?).await?;
        }
        self.progress.is_delivered.set(true);
        body.watch().await
    }

    /// Passes a part of the request's body on. Whether it was the last one.
    async fn pass<B: RequestBody>(
        &self,
        body: &mut B,
        sender: &mut impl Sender,
        part: Part<B::Piece>,
    ) -> Result<bool, UpError> {
        if self.is_too_large(&part) {
            return Err(UpError::TooLarge);
        }
        let (piece, is_last) = match part {
            Part::More(piece) => (piece, false),
            Part::Last(piece) => (piece, true),
            Part::End(trailers) => {
                if let Some(copied) = self.copied {
                    copied.finish(self.raw);
                }
                sender.end(trailers).await?;
                return Ok(true);
            }
        };
        let len = piece.as_ref().len();
        self.progress.bytes.set(self.progress.bytes.get() + len as u64);
        if let Some(copied) = self.copied {
            if self.raw {
                copied.raw(piece.as_ref());
            } else {
                copied.content(piece.as_ref());
            }
            if is_last {
                copied.finish(self.raw);
            }
        }
        let up = &self.session.connection.up;
        let piece = up.write(&self.session.worker.shared.now_ms, sender.send(piece, is_last)).await?;
        body.took(len, piece);
        Ok(is_last)
    }

    /// Passes the response on: any number of 1xx, and the response itself. Whether another protocol is spoken from here on.
    async fn down<V: Receiver, R: Reply>(
        &self,
        asked: &impl RequestHead,
        receiver: &mut V,
        reply: &mut R,
        note: &mut Note,
    ) -> Result<bool, Fault> {
        let head = self.final_head(receiver, reply, note).await?;
        if let (Some(route), Some(index)) = (&note.route, note.index) {
            route.backends[index].live.works(self.session.now_ms());
        }
        note.times.response_us = clock::micros() - note.started_us - note.times.connect_us;
        note.status = head.status();
        self.is_bound.set(authenticates_connection(asked, &head));
        let is_switched = is_switched(asked, &head, R::SWITCHED)
            .map_err(|why| Fault::before(RequestOutcome::BackendMalformed, why))?;
        if is_switched {
            note.status = R::SWITCHED;
        }
        let mut coded = note.coding(note.to_head || is_switched || head.has_no_content(), head.all());
        let coder = match &mut coded {
            Some((_, coding)) => Coder::new(coding, &self.session.worker.policy)?,
            None => Coder::none(),
        };
        let is_coded = coder.encodes();
        let is_over = receiver.is_over() && !is_coded && !is_switched;
        let how = How { is_coded, is_over, is_delivered: self.progress.is_delivered.get() };
        // A response in chunks to a client of HTTP/1.0 loses its framing.
        let is_raw = V::IS_HTTP1
            && R::IS_HTTP1
            && !is_coded
            && head.framing(Version::Http11) == head.framing(reply.version());
        {
            let edits = note.response_edits().with_coding(coded);
            note.tap_response(edits.apply(head.fields()));
            reply.begin(head, &edits, how).map_err(|refused| match refused {
                Refused::Gone(gone) => self.takes_no_more(gone),
                Refused::Malformed(why) => Fault::before(RequestOutcome::BackendMalformed, why),
            })?;
        }
        self.progress.is_answering.set(true);
        if is_switched || is_over {
            reply.flush().await.map_err(|gone| self.takes_no_more(gone))?;
            return Ok(is_switched);
        }
        self.content(receiver, reply, coder, is_raw, note).await.map(|()| false)
    }

    /// Waits for the response's head, and passes on the 1xx before it: a client that is not interested ignores them.
    async fn final_head<V: Receiver>(
        &self,
        receiver: &mut V,
        reply: &mut impl Reply,
        note: &Note,
    ) -> Result<V::Head, Fault> {
        let limit_ms = note.http().response_timeout_ms;
        for number in 0.. {
            let head = self.unless_gone(reply, receiver.head(limit_ms, &self.progress)).await?;
            if !(100..200).contains(&head.status()) || head.status() == 101 {
                return Ok(head);
            }
            if number == MAX_INTERIM {
                break;
            }
            reply.interim(&head).await.map_err(|gone| self.takes_no_more(gone))?;
        }
        Err(Fault::before(RequestOutcome::BackendMalformed, "it sends 1xx without end"))
    }

    /// Passes content on until it is over.
    async fn content(
        &self,
        receiver: &mut impl Receiver,
        reply: &mut impl Reply,
        mut coder: Coder,
        is_raw: bool,
        note: &mut Note,
    ) -> Result<(), Fault> {
        if is_raw {
            let held = reply.take_held();
            let relayed = self.unless_gone(reply, receiver.relay(self.session, held, note)).await;
            return relayed.map_err(|fault| match fault.outcome {
                RequestOutcome::ClientGone => self.takes_no_more(Gone(fault.detail)),
                _ => fault,
            });
        }
        loop {
            let (piece, end) = match self.part(receiver, reply, note).await? {
                Part::More(piece) => (piece, None),
                Part::Last(piece) => (piece, Some(HeaderMap::new())),
                Part::End(trailers) => (Bytes::new(), Some(trailers)),
            };
            let len = piece.len();
            let piece = coder.pass(piece, end.is_some())?;
            note.bytes_out += piece.len() as u64;
            let is_last = end.as_ref().is_some_and(HeaderMap::is_empty);
            let sent = self.within(reply.limit_ms(note), pin!(reply.send(piece, is_last))).await;
            match sent {
                Some(sent) => sent.map_err(|gone| self.takes_no_more(gone))?,
                None => {
                    let why = "the client takes no more of the response";
                    return Err(Fault::amid(RequestOutcome::ClientTimeout, why));
                }
            }
            receiver.took(len);
            if let Some(trailers) = end {
                if !is_last {
                    reply.end(trailers).await.map_err(|gone| self.takes_no_more(gone))?;
                }
                return Ok(());
            }
        }
    }

    /// Waits for the next part of a response. What is here already goes along with what is held for the client; nothing is held
    /// while a backend is waited for.
    async fn part(
        &self,
        receiver: &mut impl Receiver,
        reply: &mut impl Reply,
        note: &Note,
    ) -> Result<Part<Bytes>, Fault> {
        let mut next = pin!(receiver.next());
        if let Poll::Ready(part) = poll_fn(|cx| Poll::Ready(next.as_mut().poll(cx))).await {
            return part;
        }
        reply.flush().await.map_err(|gone| self.takes_no_more(gone))?;
        let limit_ms = reply.limit_ms(note);
        let part = self.within(limit_ms, pin!(self.unless_gone(reply, next))).await;
        part.unwrap_or_else(|| {
            Err(Fault::amid(RequestOutcome::BackendTimeout, "no more of the response in time"))
        })
    }

    /// Passes bytes both ways until both sides have finished: what an upgrade leads to is not HTTP. The backend's end is the
    /// end: a client that has finished may still listen, the other way round nothing is left to be said. How it ended.
    async fn tunnel(
        &self,
        body: &mut impl RequestBody,
        sender: &mut impl Sender,
        receiver: &mut impl Receiver,
        reply: &mut impl Reply,
        note: &mut Note,
    ) -> RequestOutcome {
        body.switch();
        receiver.switch();
        let is_raw = self.raw;
        let up = pin!(async {
            loop {
                let (piece, is_last) = match body.next(true).await? {
                    Part::More(piece) => (piece, false),
                    Part::Last(piece) => (piece, true),
                    Part::End(_) => break,
                };
                let len = piece.as_ref().len();
                self.progress.bytes.set(self.progress.bytes.get() + len as u64);
                let piece = sender.send(piece, false).await?;
                body.took(len, piece);
                if is_last {
                    break;
                }
            }
            sender.finish();
            Ok(())
        });
        let end = {
            let down = pin!(async { self.content(receiver, reply, Coder::none(), is_raw, note).await });
            self.beside(up, down).await
        };
        let Err(fault) = end else { return RequestOutcome::Upgraded };
        // RFC 8441, section 5: CANCEL stands for TCP's RST.
        let fault = Fault { reset: Some(h2::Reason::CANCEL), ..fault };
        reply.abort(&fault);
        if fault.outcome == RequestOutcome::Killed { fault.outcome } else { RequestOutcome::Upgraded }
    }

    /// Waits, as long as the client is there.
    async fn unless_gone<T>(
        &self,
        reply: &mut impl Reply,
        waiting: impl Future<Output = Result<T, Fault>>,
    ) -> Result<T, Fault> {
        let mut waiting = pin!(waiting);
        poll_fn(|cx| match waiting.as_mut().poll(cx) {
            Poll::Pending => reply.poll_gone(cx).map(|()| Err(self.gone())),
            ready => ready,
        })
        .await
    }

    /// Waits no longer than `limit_ms` without a byte from the client.
    async fn within<F: Future>(&self, limit_ms: Option<u64>, future: Pin<&mut F>) -> Option<F::Output> {
        match limit_ms {
            None => Some(future.await),
            Some(limit_ms) => {
                let deadlines = &self.session.worker.deadlines;
                deadlines.within(limit_ms, || self.progress.bytes.get(), future).await
            }
        }
    }
}

/// Whether a backend may take what comes next on its connection for this client's: NTLM and Negotiate authenticate
/// connections (RFC 4559, section 6). Such a connection carries nobody else's requests.
fn authenticates_connection(asked: &impl RequestHead, head: &impl ResponseHead) -> bool {
    let is_bound = |value: &[u8]| {
        ["ntlm", "negotiate"].iter().any(|scheme| {
            value.get(..scheme.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(scheme.as_bytes()))
        })
    };
    let asks =
        |(_, name, value): FieldRef<'_>| name.eq_ignore_ascii_case(b"www-authenticate") && is_bound(value);
    asked.authorization().any(is_bound) || (head.status() == 401 && head.all().any(asks))
}

/// Whether the response switches protocols as the client has asked; `switched`: the status that tells it so.
///
/// # Errors
/// It switches to something else, or would be taken for a switch and is none.
fn is_switched(
    asked: &impl RequestHead,
    head: &impl ResponseHead,
    switched: u16,
) -> Result<bool, &'static str> {
    let Some(wanted) = asked.upgrade() else {
        return if head.status() == 101 {
            Err("101 to a request that did not ask for it")
        } else {
            Ok(false)
        };
    };
    if head.status() != 101 {
        // To an extended CONNECT any success says that the other protocol is spoken (RFC 8441, section 4).
        let is_misread = switched != 101 && (200..300).contains(&head.status());
        return if is_misread { Err("it does not switch protocols") } else { Ok(false) };
    }
    let is_wanted = |name: &[u8]| {
        wanted.split(|byte| *byte == b',').any(|wanted| wanted.trim_ascii().eq_ignore_ascii_case(name))
    };
    if !head.upgrade().is_some_and(is_wanted) {
        return Err("101 to another protocol than the client asked for");
    }
    if let Some(key) = asked.websocket_key() {
        let mut answers =
            head.all().filter(|(_, name, _)| name.eq_ignore_ascii_case(b"sec-websocket-accept"));
        let is_right = answers.next().is_some_and(|(_, _, value)| value == checks::accept(key).as_bytes());
        if !is_right || answers.next().is_some() {
            return Err("its Sec-WebSocket-Accept does not fit the key");
        }
    }
    Ok(true)
}
