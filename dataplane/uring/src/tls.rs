//! TLS on a socket of the ring.
//!
//! rustls's unbuffered connections keep no buffers of their own: records are read into the worker's buffer,
//! decrypted there, and encrypted into the worker's second one. A connection that waits holds its keys and, now
//! and then, part of a record; nothing else.
//!
//! After the handshake the keys can be handed to the kernel ([`Tls::offload`]), where it takes them: then the socket
//! carries plain bytes, and only records that are no data come through here. Nothing outside this module knows how bytes
//! become records.

use std::cell::RefCell;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use ktls_core::{Context as KernelContext, TlsCryptoInfoRx, TlsCryptoInfoTx};
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::kernel::KernelConnection;
use rustls::pki_types::ServerName;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus, WriteTraffic};
use rustls::{ClientConfig, CommonState, ProtocolVersion, ServerConfig, SupportedCipherSuite};

use crate::ktls::{Budget, InUserSpace, KernelTls};
use crate::shared::{CHUNK, Shared};
use crate::socket::Socket;

mod splice;

pub use splice::Spliced;

/// A TLS connection, ours to accept or to open.
pub struct Tls {
    socket: Rc<Socket>,
    state: RefCell<State>,
    wait: RefCell<Option<Wait>>,
}

/// A wait for the socket that may be asked about and left alone again.
pub(crate) type Wait = Pin<Box<dyn Future<Output = io::Result<()>>>>;

/// Asks about a wait, which is begun where there is none.
pub(crate) fn poll_wait(
    socket: &Rc<Socket>,
    wait: &mut Option<Wait>,
    cx: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    let waiting = wait.get_or_insert_with(|| {
        let socket = Rc::clone(socket);
        Box::pin(async move { socket.readable().await })
    });
    let ready = ready!(waiting.as_mut().poll(cx));
    *wait = None;
    Poll::Ready(ready)
}

struct State {
    // Some kilobytes, and moved about otherwise.
    side: Box<Side>,
    /// The beginning of a record, or of a handshake message, that has not come completely.
    incoming: Vec<u8>,
    /// Records that the socket did not take yet.
    outgoing: Vec<u8>,
    /// The peer has said that it sends no more.
    peer_closed: bool,
    /// What came was no TLS: nothing more can be said, and rustls is not asked again.
    failed: bool,
}

enum Side {
    Server(UnbufferedServerConnection),
    Client(UnbufferedClientConnection),
    /// The kernel has the keys.
    Kernel(KernelContext<KernelConnection<ServerConnectionData>>, Budget, ProtocolVersion),
    /// The keys were on their way to the kernel, and did not arrive.
    Lost,
}

/// What came of reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// So many bytes were appended, at least one.
    Bytes(usize),
    /// Nothing yet.
    Nothing,
    /// The peer sends no more; `clean`: it said so (`close_notify`), rather than just closed.
    End {
        /// Nothing was cut off.
        clean: bool,
    },
}

impl Tls {
    /// Begins as a server. The handshake goes on in [`Self::handshake`].
    ///
    /// # Errors
    /// The configuration is of no use.
    pub fn server(socket: Rc<Socket>, config: Arc<ServerConfig>) -> io::Result<Self> {
        let side = Side::Server(UnbufferedServerConnection::new(config).map_err(invalid)?);
        Ok(Self::new(socket, side))
    }

    /// Begins as a client of the server with this name. The handshake goes on in [`Self::handshake`].
    ///
    /// # Errors
    /// The configuration is of no use.
    pub fn client(
        socket: Rc<Socket>,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> io::Result<Self> {
        let side = Side::Client(UnbufferedClientConnection::new(config, name).map_err(invalid)?);
        Ok(Self::new(socket, side))
    }

    fn new(socket: Rc<Socket>, side: Side) -> Self {
        let state = State {
            side: Box::new(side),
            incoming: Vec::new(),
            outgoing: Vec::new(),
            peer_closed: false,
            failed: false,
        };
        Self { socket, state: RefCell::new(state), wait: RefCell::new(None) }
    }

    /// The socket beneath.
    #[must_use]
    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Finishes the handshake. `early`: bytes that were read from the socket before. What the peer says right
    /// after its part of the handshake is appended to `plain`.
    ///
    /// # Errors
    /// `InvalidData` where the handshake failed, with an alert sent; `UnexpectedEof` where the peer left; the
    /// socket's own.
    pub async fn handshake(&self, shared: &Shared, early: &[u8], plain: &mut Vec<u8>) -> io::Result<()> {
        let mut early = early.to_vec();
        let mut came = self.process(&mut early, plain);
        loop {
            let is_over = !self.with(|common| common.is_handshaking());
            if is_over && came.is_ok() && self.has_only_tickets() {
                // They go with the first response, and need no packet of their own.
                return Ok(());
            }
            self.flush(shared).await?;
            came?;
            if is_over {
                return Ok(());
            }
            self.readable().await?;
            came = match self.try_recv(shared, plain) {
                Ok(Received::End { .. }) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => Ok(()),
                Err(error) => Err(error),
            };
        }
    }

    /// Whether what waits to be sent after the handshake is nothing that the peer waits for: a server of TLS 1.3 has sent
    /// its part of the handshake before the client's (RFC 8446, section 2), and has session tickets left.
    fn has_only_tickets(&self) -> bool {
        let is_server = matches!(*self.state.borrow().side, Side::Server(_));
        is_server && self.with(|common| common.protocol_version() == Some(ProtocolVersion::TLSv1_3))
    }

    /// Hands the keys to the kernel, where it takes those of this connection. To be called after the handshake, when
    /// everything is sent; [`Self::with`] is of no use any more then. Encrypting and decrypting are the kernel's from here
    /// on.
    ///
    /// # Errors
    /// The connection is lost: the kernel has taken half of it.
    pub fn offload(&self, kernel: &KernelTls) -> io::Result<Result<(), InUserSpace>> {
        let state = &mut *self.state.borrow_mut();
        let Side::Server(server) = &*state.side else { return Ok(Err(InUserSpace::NoKernelTls)) };
        if !state.incoming.is_empty()
            || !state.outgoing.is_empty()
            || state.peer_closed
            || server.wants_write()
            || server.is_handshaking()
        {
            return Ok(Err(InUserSpace::MidRecord));
        }
        let suite = server.negotiated_cipher_suite().map(|suite| suite.suite());
        if !kernel.takes(server.protocol_version(), suite) {
            return Ok(Err(InUserSpace::CipherSuite));
        }
        if ktls_core::setup_ulp(&*self.socket).is_err() {
            return Ok(Err(InUserSpace::NoKernelTls));
        }
        let Side::Server(server) = std::mem::replace(&mut *state.side, Side::Lost) else {
            unreachable!("it was looked at above")
        };
        let lost = |error: ktls_core::Error| io::Error::other(error);
        let (secrets, session) = server.dangerous_into_kernel_connection().map_err(invalid)?;
        let version = session.protocol_version().into();
        let secrets = ktls_core::ExtractedSecrets::try_from(secrets).map_err(lost)?;
        TlsCryptoInfoTx::new(version, secrets.tx.1, secrets.tx.0)
            .and_then(|keys| keys.set(&*self.socket))
            .map_err(lost)?;
        TlsCryptoInfoRx::new(version, secrets.rx.1, secrets.rx.0)
            .and_then(|keys| keys.set(&*self.socket))
            .map_err(lost)?;
        let limit = match session.negotiated_cipher_suite() {
            SupportedCipherSuite::Tls12(suite) => suite.common.confidentiality_limit,
            SupportedCipherSuite::Tls13(suite) => suite.common.confidentiality_limit,
        };
        let version = session.protocol_version();
        *state.side = Side::Kernel(KernelContext::new(session, None), Budget::of(limit), version);
        Ok(Ok(()))
    }

    /// Whether the kernel has the keys: then what is written to the socket is encrypted, and what is read decrypted.
    #[must_use]
    pub fn is_in_kernel(&self) -> bool {
        matches!(*self.state.borrow().side, Side::Kernel(..))
    }

    /// Waits until there is something to read, an end or an error. Giving the wait up costs nothing: the next one
    /// goes on with it.
    ///
    /// # Errors
    /// The ring was shut down.
    pub async fn readable(&self) -> io::Result<()> {
        poll_fn(|cx| self.poll_readable(cx)).await
    }

    /// As [`Self::readable`].
    ///
    /// # Errors
    /// The ring was shut down.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The end is known, while the socket may stay open and silent for as long as the peer likes.
        if self.state.borrow().peer_closed {
            return Poll::Ready(Ok(()));
        }
        poll_wait(&self.socket, &mut self.wait.borrow_mut(), cx)
    }

    /// Whether the peer has said that it sends no more.
    pub fn has_ended(&self) -> bool {
        self.state.borrow().peer_closed
    }

    /// Lets `look` see what was negotiated.
    ///
    /// # Panics
    /// The kernel has the keys.
    pub fn with<R>(&self, look: impl FnOnce(&CommonState) -> R) -> R {
        look(self.state.borrow().side.common())
    }

    /// Appends what has come to `plain`, without waiting.
    ///
    /// # Errors
    /// What came is no TLS, or was tampered with (an alert is on its way then); the socket's own.
    pub fn try_recv(&self, shared: &Shared, plain: &mut Vec<u8>) -> io::Result<Received> {
        let before = plain.len();
        let ended = shared.with_buffer(|buffer| {
            let mut state = self.state.borrow_mut();
            if state.peer_closed {
                return Ok(true);
            }
            if let State { side, peer_closed, failed, .. } = &mut *state
                && let Side::Kernel(context, ..) = &mut **side
            {
                return receive(&self.socket, context, buffer, plain, peer_closed)
                    .inspect_err(|_| *failed = true);
            }
            let held = state.incoming.len();
            if held >= buffer.len() {
                // Nobody has a reason to cut a message into so many records.
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "a TLS message takes too many records",
                ));
            }
            let read = match self.socket.recv(&mut buffer[held..]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                read => read?,
            };
            buffer[..held].copy_from_slice(&state.incoming);
            // Given back, not kept: most reads end at the end of a record.
            state.incoming = Vec::new();
            drop(state);
            self.process(&mut buffer[..held + read], plain)?;
            Ok::<_, io::Error>(read == 0)
        })?;
        let state = self.state.borrow();
        if plain.len() > before {
            Ok(Received::Bytes(plain.len() - before))
        } else if ended || state.peer_closed {
            Ok(Received::End { clean: state.peer_closed })
        } else {
            Ok(Received::Nothing)
        }
    }

    /// Takes records apart; what is not complete is kept.
    fn process(&self, records: &mut [u8], plain: &mut Vec<u8>) -> io::Result<()> {
        let state = &mut *self.state.borrow_mut();
        if state.failed {
            return Err(io::ErrorKind::NotConnected.into());
        }
        let State { side, incoming, outgoing, peer_closed, failed } = state;
        let mut used = 0;
        let result = loop {
            let (discard, next) = side.step(&mut records[used..], plain, outgoing, peer_closed);
            used += discard;
            match next {
                Ok(Next::Again) => {}
                Ok(Next::Enough) => break Ok(()),
                Err(error) => break Err(invalid(error)),
            }
        };
        if result.is_err() {
            *failed = true;
            // The alert that says what was wrong waits to be encoded; it is the caller's to close. rustls may still know of
            // messages in these bytes: it must not be shown others.
            while side.common().wants_write() {
                let (discard, next) = side.step(&mut records[used..], plain, outgoing, peer_closed);
                used += discard;
                if next.is_err() {
                    break;
                }
            }
            self.socket.send(outgoing).ok();
            outgoing.clear();
        }
        incoming.extend_from_slice(&records[used..]);
        result
    }

    /// Encrypts and sends all of `bytes`.
    ///
    /// # Errors
    /// The socket's own.
    pub async fn send_all(&self, shared: &Shared, bytes: &[u8]) -> io::Result<()> {
        for chunk in bytes.chunks(CHUNK) {
            self.try_send(shared, chunk)?;
            self.flush(shared).await?;
        }
        Ok(())
    }

    /// Encrypts all of `bytes`, at most four records of them, and sends what the socket takes at once. The rest
    /// waits for [`Self::flush`], before which nothing more should be sent.
    ///
    /// # Errors
    /// The socket's own.
    ///
    /// # Panics
    /// There are more bytes than four records hold.
    pub fn try_send(&self, shared: &Shared, bytes: &[u8]) -> io::Result<()> {
        assert!(bytes.len() <= CHUNK, "the caller sends in chunks");
        if self.is_in_kernel() {
            let state = &mut *self.state.borrow_mut();
            state.spend(&self.socket, bytes.len())?;
            return state.put(&self.socket, bytes);
        }
        shared.with_scratch(|scratch| {
            let state = &mut *self.state.borrow_mut();
            let encrypted = state.write(|mut traffic| traffic.encrypt(bytes, scratch))?;
            state.put(&self.socket, &scratch[..encrypted])
        })
    }

    /// Waits until everything encrypted is sent.
    ///
    /// # Errors
    /// The socket's own.
    pub async fn flush(&self, _shared: &Shared) -> io::Result<()> {
        loop {
            {
                let state = &mut *self.state.borrow_mut();
                let waiting = std::mem::take(&mut state.outgoing);
                state.put(&self.socket, &waiting)?;
                if state.outgoing.is_empty() {
                    return Ok(());
                }
            }
            self.socket.writable().await?;
        }
    }

    /// Whether something encrypted waits to be sent.
    #[must_use]
    pub fn has_unsent(&self) -> bool {
        !self.state.borrow().outgoing.is_empty()
    }

    /// Says that nothing more is sent. What does not fit the socket is dropped: the close says it, too.
    pub fn close(&self, shared: &Shared) {
        if let State { side, outgoing, .. } = &mut *self.state.borrow_mut()
            && let Side::Kernel(context, ..) = &mut **side
        {
            // What was not sent cannot be made up for by a word.
            if outgoing.is_empty() {
                context.shutdown(&*self.socket);
            }
            return;
        }
        shared.with_scratch(|scratch| {
            let state = &mut *self.state.borrow_mut();
            if let Ok(len) = state.write(|mut traffic| traffic.queue_close_notify(scratch)) {
                let mut last = std::mem::take(&mut state.outgoing);
                last.extend_from_slice(&scratch[..len]);
                state.put(&self.socket, &last).ok();
            }
        });
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl State {
    /// Writes records by way of the state in which the connection lets traffic out.
    fn write(
        &mut self,
        mut work: impl FnMut(AnyTraffic<'_>) -> Result<usize, EncryptError>,
    ) -> io::Result<usize> {
        if self.failed {
            return Err(io::ErrorKind::NotConnected.into());
        }
        let Self { side, incoming, outgoing, peer_closed, .. } = self;
        let mut plain = Vec::new();
        let mut enough = false;
        loop {
            // What has come of a message is shown, too: rustls knows of it, and looks for it there.
            let (used, written) = match &mut **side {
                Side::Server(server) => {
                    let UnbufferedStatus { discard, state, .. } = server.process_tls_records(incoming);
                    let written = match state.map_err(invalid)? {
                        ConnectionState::WriteTraffic(traffic) => Some(work(AnyTraffic::Server(traffic))),
                        state => {
                            enough = handle(state, &mut plain, outgoing, peer_closed) == Next::Enough;
                            None
                        }
                    };
                    (discard, written)
                }
                Side::Client(client) => {
                    let UnbufferedStatus { discard, state, .. } = client.process_tls_records(incoming);
                    let written = match state.map_err(invalid)? {
                        ConnectionState::WriteTraffic(traffic) => Some(work(AnyTraffic::Client(traffic))),
                        state => {
                            enough = handle(state, &mut plain, outgoing, peer_closed) == Next::Enough;
                            None
                        }
                    };
                    (discard, written)
                }
                Side::Kernel(..) | Side::Lost => return Err(io::ErrorKind::NotConnected.into()),
            };
            incoming.drain(..used);
            if let Some(written) = written {
                return written.map_err(io::Error::other);
            }
            if enough {
                // Closed, or the handshake is not over.
                return Err(io::ErrorKind::NotConnected.into());
            }
        }
    }

    /// Counts bytes that the kernel is to encrypt.
    fn spend(&mut self, socket: &Socket, bytes: usize) -> io::Result<()> {
        if self.failed {
            return Err(io::ErrorKind::NotConnected.into());
        }
        if let Side::Kernel(context, budget, version) = &mut *self.side
            && !budget.spend(bytes)
        {
            // A new key where that can be (TLS 1.3, Linux 6.14); else the connection has had its time.
            let is_renewed =
                *version == ProtocolVersion::TLSv1_3 && context.refresh_traffic_keys(socket).is_ok();
            if !is_renewed {
                self.failed = true;
                return Err(io::Error::other("as much was sent as one key is good for"));
            }
            *budget = budget.anew();
        }
        Ok(())
    }

    /// Sends records after those that wait.
    fn put(&mut self, socket: &Socket, records: &[u8]) -> io::Result<()> {
        if !self.outgoing.is_empty() {
            self.outgoing.extend_from_slice(records);
            return Ok(());
        }
        let mut sent = 0;
        while sent < records.len() {
            match socket.send(&records[sent..]) {
                Ok(more) => sent += more,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.outgoing.extend_from_slice(&records[sent..]);
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Side {
    fn common(&self) -> &CommonState {
        match self {
            Self::Server(server) => server,
            Self::Client(client) => client,
            Self::Kernel(..) | Self::Lost => panic!("the kernel has the connection: ask before"),
        }
    }

    /// Takes one step with these records; says how many bytes of them are done with.
    fn step(
        &mut self,
        records: &mut [u8],
        plain: &mut Vec<u8>,
        outgoing: &mut Vec<u8>,
        peer_closed: &mut bool,
    ) -> (usize, Result<Next, rustls::Error>) {
        match self {
            Self::Server(server) => {
                let UnbufferedStatus { discard, state, .. } = server.process_tls_records(records);
                (discard, state.map(|state| handle(state, plain, outgoing, peer_closed)))
            }
            Self::Client(client) => {
                let UnbufferedStatus { discard, state, .. } = client.process_tls_records(records);
                (discard, state.map(|state| handle(state, plain, outgoing, peer_closed)))
            }
            Self::Kernel(..) | Self::Lost => (0, Ok(Next::Enough)),
        }
    }
}

/// Reads what the kernel has decrypted, and sees to records that are no data. Whether the connection has ended.
fn receive(
    socket: &Socket,
    context: &mut KernelContext<KernelConnection<ServerConnectionData>>,
    buffer: &mut [u8],
    plain: &mut Vec<u8>,
    peer_closed: &mut bool,
) -> io::Result<bool> {
    loop {
        match socket.recv(buffer) {
            Ok(read) => {
                plain.extend_from_slice(&buffer[..read]);
                return Ok(read == 0);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            // EIO: a record of another kind is next. Whatever else there is ends the connection, with an alert.
            Err(error) => context.handle_io_error(socket, error)?,
        }
        if let Some(came) = context.buffer_mut().drain() {
            plain.extend_from_slice(&came);
        }
        if context.state().is_read_closed() {
            *peer_closed = true;
            return Ok(true);
        }
    }
}

/// The right to write, of either side.
enum AnyTraffic<'c> {
    Server(WriteTraffic<'c, ServerConnectionData>),
    Client(WriteTraffic<'c, ClientConnectionData>),
}

impl AnyTraffic<'_> {
    fn encrypt(&mut self, bytes: &[u8], out: &mut [u8]) -> Result<usize, EncryptError> {
        match self {
            Self::Server(traffic) => traffic.encrypt(bytes, out),
            Self::Client(traffic) => traffic.encrypt(bytes, out),
        }
    }

    fn queue_close_notify(&mut self, out: &mut [u8]) -> Result<usize, EncryptError> {
        match self {
            Self::Server(traffic) => traffic.queue_close_notify(out),
            Self::Client(traffic) => traffic.queue_close_notify(out),
        }
    }
}

/// What a state asks for.
#[derive(PartialEq, Eq)]
enum Next {
    /// Look again.
    Again,
    /// Nothing is left to do with the bytes that are there.
    Enough,
}

/// Does what a state asks for.
fn handle<Data>(
    state: ConnectionState<'_, '_, Data>,
    plain: &mut Vec<u8>,
    outgoing: &mut Vec<u8>,
    peer_closed: &mut bool,
) -> Next {
    match state {
        ConnectionState::ReadTraffic(mut traffic) => {
            while let Some(Ok(record)) = traffic.next_record() {
                plain.extend_from_slice(record.payload);
            }
            Next::Again
        }
        ConnectionState::EncodeTlsData(mut data) => {
            let start = outgoing.len();
            let mut room = 512;
            loop {
                outgoing.resize(start + room, 0);
                match data.encode(&mut outgoing[start..]) {
                    Ok(written) => {
                        outgoing.truncate(start + written);
                        return Next::Again;
                    }
                    Err(EncodeError::InsufficientSize(needed)) => room = needed.required_size,
                    Err(EncodeError::AlreadyEncoded) => {
                        outgoing.truncate(start);
                        return Next::Again;
                    }
                }
            }
        }
        // It is sent when the caller flushes, before anything else.
        ConnectionState::TransmitTlsData(data) => {
            data.done();
            Next::Again
        }
        ConnectionState::PeerClosed => {
            *peer_closed = true;
            Next::Again
        }
        // Early data is never offered; whatever else there will be waits for more bytes.
        _ => Next::Enough,
    }
}

fn invalid(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
