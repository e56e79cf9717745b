//! What an HTTP/2 engine takes for its connection: two buffers in memory.
//!
//! The engine never sees a socket. Whoever owns the wire puts in what TLS brought and takes out what is to be
//! encrypted, once for everything that became ready in a turn of the ring: many small responses become one record
//! and one system call.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use mc_uring::Tls;
use mc_uring::relay::Shared;
use mc_uring::tls::Received;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Both ends of the wire.
#[derive(Clone, Debug, Default)]
pub(super) struct Wire(Rc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    inbound: RefCell<Inbound>,
    outbound: RefCell<Vec<u8>>,
    ended: Cell<bool>,
}

#[derive(Debug, Default)]
struct Inbound {
    bytes: Vec<u8>,
    taken: usize,
}

/// Bytes that the engine may write before somebody takes them.
const OUTBOUND: usize = 128 * 1024;

impl Wire {
    /// Lets `work` append what has come.
    pub(super) fn bring<R>(&self, work: impl FnOnce(&mut Vec<u8>) -> R) -> R {
        let inbound = &mut *self.0.inbound.borrow_mut();
        if inbound.taken > 0 {
            inbound.bytes.drain(..inbound.taken);
            inbound.taken = 0;
        }
        work(&mut inbound.bytes)
    }

    /// Nothing more will come.
    fn end(&self) {
        self.0.ended.set(true);
    }

    /// Whether the engine has taken all that came.
    fn is_drained(&self) -> bool {
        let inbound = self.0.inbound.borrow();
        inbound.taken == inbound.bytes.len()
    }

    /// Room for the engine to write into, unless it has written already: it begins to before it is driven.
    fn lend(&self, room: Vec<u8>) {
        let outbound = &mut *self.0.outbound.borrow_mut();
        if outbound.is_empty() {
            *outbound = room;
        }
    }

    /// What the engine has written since the last time.
    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.outbound.borrow_mut())
    }

    /// Whether the engine has written something.
    fn has_outbound(&self) -> bool {
        !self.0.outbound.borrow().is_empty()
    }
}

/// What carries a wire's bytes.
pub(super) trait Transport {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    fn try_recv(&self, shared: &Shared, into: &mut Vec<u8>) -> io::Result<Received>;
    async fn send_all(&self, shared: &Shared, bytes: &[u8]) -> io::Result<()>;
}

impl Transport for Tls {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_readable(cx)
    }

    fn try_recv(&self, shared: &Shared, into: &mut Vec<u8>) -> io::Result<Received> {
        self.try_recv(shared, into)
    }

    async fn send_all(&self, shared: &Shared, bytes: &[u8]) -> io::Result<()> {
        self.send_all(shared, bytes).await
    }
}

/// Moves bytes between a transport and an engine until `turn`, which lets the engine work, says that it is done. `moved`
/// hears of bytes that came and bytes that went.
pub(super) async fn drive<T>(
    wire: &Wire,
    transport: &impl Transport,
    shared: &Shared,
    moved: impl Fn(usize, usize),
    mut turn: impl FnMut(&mut Context<'_>) -> Poll<T>,
) -> T {
    loop {
        let done = poll_fn(|cx| {
            receive(wire, transport, shared, &moved, cx);
            // The engine writes in its turn alone: the room that it writes into is lent for that, not held.
            wire.lend(shared.take_spare());
            let turn = turn(cx);
            if !wire.has_outbound() {
                shared.give_spare(wire.take());
            }
            match turn {
                Poll::Ready(done) => Poll::Ready(Some(done)),
                Poll::Pending if wire.has_outbound() => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            }
        })
        .await;
        let out = wire.take();
        let sent = transport.send_all(shared, &out).await;
        moved(0, out.len());
        shared.give_spare(out);
        if let Some(done) = done {
            return done;
        }
        if sent.is_err() {
            // The engine tells its streams.
            wire.end();
        }
    }
}

/// Takes what has come, until there is nothing or the engine must have its turn first.
fn receive(
    wire: &Wire,
    transport: &impl Transport,
    shared: &Shared,
    moved: &impl Fn(usize, usize),
    cx: &mut Context<'_>,
) {
    if wire.0.ended.get() {
        return;
    }
    while wire.is_drained() {
        match transport.poll_readable(cx) {
            Poll::Pending => return,
            Poll::Ready(Err(_)) => return wire.end(),
            Poll::Ready(Ok(())) => {}
        }
        match wire.bring(|inbound| transport.try_recv(shared, inbound)) {
            Ok(Received::Nothing) => {}
            Ok(Received::Bytes(len)) => moved(len, 0),
            Ok(Received::End { .. }) | Err(_) => return wire.end(),
        }
    }
    // More may wait in the socket: look again when the engine has taken what is here.
    cx.waker().wake_by_ref();
}

// No waker is kept: the owner polls the engine after it has brought or taken something.
impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let inbound = &mut *self.0.inbound.borrow_mut();
        let there = &inbound.bytes[inbound.taken..];
        if there.is_empty() {
            // Nothing is held for a connection that waits.
            *inbound = Inbound::default();
            return if self.0.ended.get() { Poll::Ready(Ok(())) } else { Poll::Pending };
        }
        let len = there.len().min(into.remaining());
        into.put_slice(&there[..len]);
        inbound.taken += len;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outbound = &mut *self.0.outbound.borrow_mut();
        let room = OUTBOUND.saturating_sub(outbound.len());
        if room == 0 {
            return Poll::Pending;
        }
        let len = room.min(bytes.len());
        outbound.extend_from_slice(&bytes[..len]);
        Poll::Ready(Ok(len))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
