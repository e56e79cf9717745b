//! A backend's connection, plain or by TLS: what speaks HTTP over it need not know which.

use std::future::poll_fn;
use std::io;
use std::net::Shutdown;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use mc_uring::tls::Received;
use mc_uring::{Plain, Shared, Socket, Tls};

use super::wire::Transport;

/// A connection to a backend.
#[derive(Debug)]
pub(super) enum Stream {
    /// As it is.
    Plain(Plain),
    /// By TLS, after the handshake.
    Tls(Tls),
}

/// What came.
pub(super) enum Came<R> {
    /// Bytes, and what was made of them.
    Bytes(R),
    /// Nothing yet.
    Nothing,
    /// The backend sends no more, and said so.
    End,
}

impl Stream {
    /// A connection without TLS.
    pub(super) fn plain(socket: Socket) -> Self {
        Self::Plain(Plain::new(Rc::new(socket)))
    }

    /// Waits until there is something to read, an end or an error.
    pub(super) async fn readable(&self) -> io::Result<()> {
        poll_fn(|cx| self.poll_readable(cx)).await
    }

    /// Begins to watch a connection that waits for its next request, for [`Self::is_quiet`]. The response will need this
    /// wait in any case: it costs no more than one that begins later.
    pub(super) fn watch(&self) {
        let _pending = self.poll_readable(&mut Context::from_waker(Waker::noop()));
    }

    /// Lets `work` have what has come, at most as much as can be sent on at once. An end that TLS does not vouch for is
    /// an error: something may have been cut off.
    pub(super) fn recv<R>(&self, shared: &Shared, work: impl FnOnce(&[u8]) -> R) -> io::Result<Came<R>> {
        match self {
            Self::Plain(plain) => shared.with_buffer(|buffer| match plain.socket().recv(buffer) {
                Ok(0) => Ok(Came::End),
                Ok(read) => Ok(Came::Bytes(work(&buffer[..read]))),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Came::Nothing),
                Err(error) => Err(error),
            }),
            Self::Tls(tls) => {
                let mut plain = Vec::new();
                match tls.try_recv(shared, &mut plain)? {
                    Received::Bytes(_) => Ok(Came::Bytes(work(&plain))),
                    Received::Nothing => Ok(Came::Nothing),
                    Received::End { clean: true } => Ok(Came::End),
                    Received::End { clean: false } => {
                        Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed without a TLS close_notify"))
                    }
                }
            }
        }
    }

    /// Sends all of `bytes`.
    pub(super) async fn send_all(&self, shared: &Shared, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(plain) => plain.send_all(bytes).await,
            Self::Tls(tls) => tls.send_all(shared, bytes).await,
        }
    }

    /// Says that nothing more is sent. Something may still come.
    pub(super) fn finish(&self, shared: &Shared) {
        match self {
            Self::Plain(plain) => plain.socket().shutdown(Shutdown::Write),
            Self::Tls(tls) => {
                tls.close(shared);
                tls.socket().shutdown(Shutdown::Write);
            }
        }
    }

    /// Whether, as far as is known since [`Self::watch`], it is open and nothing waits to be read: that would be the end,
    /// or a response to nothing. What TLS itself has to say, as new session tickets, does not count.
    pub(super) fn is_quiet(&self, shared: &Shared) -> bool {
        match self.poll_readable(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => true,
            Poll::Ready(Ok(())) => matches!(self.recv(shared, |_| ()), Ok(Came::Nothing)),
            Poll::Ready(Err(_)) => false,
        }
    }
}

impl Transport for Stream {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(plain) => plain.poll_readable(cx),
            Self::Tls(tls) => tls.poll_readable(cx),
        }
    }

    fn try_recv(&self, shared: &Shared, into: &mut Vec<u8>) -> io::Result<Received> {
        match self {
            Self::Plain(plain) => plain.try_recv(shared, into),
            Self::Tls(tls) => tls.try_recv(shared, into),
        }
    }

    async fn send_all(&self, shared: &Shared, bytes: &[u8]) -> io::Result<()> {
        self.send_all(shared, bytes).await
    }
}
