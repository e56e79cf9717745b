//! What an HTTP/2 engine takes for its connection: two buffers in memory.
//!
//! The engine never sees a socket. Whoever owns the wire puts in what TLS brought and takes out what is to be
//! encrypted, once for everything that became ready in a turn of the ring: many small responses become one record
//! and one system call.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use mc_uring::tls::Received;
use mc_uring::{Shared, Tls};
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
/// hears of bytes that came and bytes that went. While nothing more can be sent, what comes is still read: two that both wait
/// for the other to read would wait for ever.
pub(super) async fn drive<T>(
    wire: &Wire,
    transport: &impl Transport,
    shared: &Shared,
    moved: impl Fn(usize, usize),
    mut turn: impl FnMut(&mut Context<'_>) -> Poll<T>,
) -> T {
    loop {
        let mut done = poll_fn(|cx| {
            if receive(wire, transport, shared, &moved, cx) {
                // More may wait in the socket: look again when the engine has taken what is here.
                cx.waker().wake_by_ref();
            }
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
        let mut out = wire.take();
        loop {
            let sent = {
                let mut sending = pin!(transport.send_all(shared, &out));
                poll_fn(|cx| {
                    let sent = sending.as_mut().poll(cx);
                    if sent.is_pending() && done.is_none() {
                        let has_come = receive(wire, transport, shared, &moved, cx);
                        if let Poll::Ready(end) = turn(cx) {
                            done = Some(end);
                        }
                        // An engine whose own room is full takes nothing, and has its turn when something was sent.
                        if has_come && wire.is_drained() {
                            cx.waker().wake_by_ref();
                        }
                    }
                    sent
                })
                .await
            };
            moved(0, out.len());
            shared.give_spare(std::mem::take(&mut out));
            if sent.is_err() {
                // The engine tells its streams.
                wire.end();
                wire.take();
            }
            out = wire.take();
            if out.is_empty() {
                break;
            }
        }
        if let Some(done) = done {
            return done;
        }
    }
}

/// Takes what has come, until there is nothing or the engine must have its turn first: whether it must.
fn receive(
    wire: &Wire,
    transport: &impl Transport,
    shared: &Shared,
    moved: &impl Fn(usize, usize),
    cx: &mut Context<'_>,
) -> bool {
    if wire.0.ended.get() {
        return false;
    }
    while wire.is_drained() {
        match transport.poll_readable(cx) {
            Poll::Pending => return false,
            Poll::Ready(Err(_)) => {
                wire.end();
                return false;
            }
            Poll::Ready(Ok(())) => {}
        }
        match wire.bring(|inbound| transport.try_recv(shared, inbound)) {
            Ok(Received::Nothing) => {}
            Ok(Received::Bytes(len)) => moved(len, 0),
            Ok(Received::End { .. }) | Err(_) => {
                wire.end();
                return false;
            }
        }
    }
    true
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

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::task::Waker;

    use bytes::Bytes;

    use super::*;

    /// One direction of a connection whose buffers are small.
    #[derive(Default)]
    struct Pipe {
        bytes: RefCell<VecDeque<u8>>,
        wakers: RefCell<Vec<Waker>>,
    }

    const ROOM: usize = 2_000;

    impl Pipe {
        fn wait<T>(&self, cx: &Context<'_>) -> Poll<T> {
            self.wakers.borrow_mut().push(cx.waker().clone());
            Poll::Pending
        }

        fn wake(&self) {
            self.wakers.take().into_iter().for_each(Waker::wake);
        }
    }

    struct End {
        from: Rc<Pipe>,
        to: Rc<Pipe>,
    }

    impl Transport for End {
        fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            if self.from.bytes.borrow().is_empty() { self.from.wait(cx) } else { Poll::Ready(Ok(())) }
        }

        fn try_recv(&self, _: &Shared, into: &mut Vec<u8>) -> io::Result<Received> {
            let bytes = self.from.bytes.take();
            into.extend(&bytes);
            self.from.wake();
            Ok(if bytes.is_empty() { Received::Nothing } else { Received::Bytes(bytes.len()) })
        }

        async fn send_all(&self, _: &Shared, mut bytes: &[u8]) -> io::Result<()> {
            poll_fn(|cx| {
                let mut pipe = self.to.bytes.borrow_mut();
                let len = bytes.len().min(ROOM - pipe.len());
                pipe.extend(&bytes[..len]);
                drop(pipe);
                bytes = &bytes[len..];
                self.to.wake();
                if bytes.is_empty() { Poll::Ready(Ok(())) } else { self.to.wait(cx) }
            })
            .await
        }
    }

    /// Large bodies go both ways at the same time between two that write before they read.
    #[tokio::test]
    async fn two_that_cannot_write_read() {
        const BODY: usize = 1_000_000;
        let (up, down) = (Rc::new(Pipe::default()), Rc::new(Pipe::default()));
        let client_end = End { from: Rc::clone(&down), to: Rc::clone(&up) };
        let server_end = End { from: up, to: down };
        let shared = Shared::new(1024);
        let (client_wire, server_wire) = (Wire::default(), Wire::default());
        let window = 1 << 24;
        let mut client = h2::client::Builder::new();
        client.initial_window_size(window).initial_connection_window_size(window);
        let (sender, mut connection) = client.handshake::<_, Bytes>(client_wire.clone()).await.unwrap();
        let mut server = h2::server::Builder::new();
        server.initial_window_size(window).initial_connection_window_size(window);
        let mut handshake = pin!(server.handshake::<_, Bytes>(server_wire.clone()));
        let mut engine = None;
        let mut served = Vec::new();
        let serving = drive(
            &server_wire,
            &server_end,
            &shared,
            |_, _| {},
            |cx| {
                if engine.is_none() {
                    match handshake.as_mut().poll(cx) {
                        Poll::Ready(ready) => engine = Some(ready.unwrap()),
                        Poll::Pending => return Poll::Pending,
                    }
                }
                while let Poll::Ready(Some(asked)) = engine.as_mut().unwrap().poll_accept(cx) {
                    let (request, mut respond): (http::Request<h2::RecvStream>, _) = asked.unwrap();
                    let mut send = respond.send_response(http::Response::new(()), false).unwrap();
                    send.send_data(Bytes::from(vec![b'd'; BODY]), true).unwrap();
                    served.push((request, send));
                }
                Poll::<()>::Pending
            },
        );
        let driving = drive(
            &client_wire,
            &client_end,
            &shared,
            |_, _| {},
            |cx| Pin::new(&mut connection).poll(cx).map(|_ended| ()),
        );
        let asking = async {
            let mut sender = sender.ready().await.unwrap();
            let (response, mut send) = sender.send_request(http::Request::new(()), false).unwrap();
            send.send_data(Bytes::from(vec![b'u'; BODY]), true).unwrap();
            let mut body = response.await.unwrap().into_body();
            let mut got = 0;
            while let Some(data) = body.data().await {
                got += data.unwrap().len();
            }
            got
        };
        tokio::select! {
            got = asking => assert_eq!(got, BODY),
            () = serving => panic!("the server has ended"),
            () = driving => panic!("the client has ended"),
            () = tokio::time::sleep(std::time::Duration::from_secs(60)) => panic!("both wait"),
        }
    }
}
