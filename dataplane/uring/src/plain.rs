//! A socket with the waits of [`crate::Tls`], and no TLS.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};

use crate::shared::Shared;
use crate::socket::Socket;
use crate::tls::{Received, Wait, poll_wait};

/// A connection without TLS.
pub struct Plain {
    socket: Rc<Socket>,
    wait: RefCell<Option<Wait>>,
}

impl Plain {
    /// Takes a connected socket over.
    #[must_use]
    pub fn new(socket: Rc<Socket>) -> Self {
        Self { socket, wait: RefCell::new(None) }
    }

    /// The socket beneath.
    #[must_use]
    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    /// As [`crate::Tls::poll_readable`].
    ///
    /// # Errors
    /// The ring was shut down.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        poll_wait(&self.socket, &mut self.wait.borrow_mut(), cx)
    }

    /// Appends what has come, without waiting.
    ///
    /// # Errors
    /// The socket's own.
    pub fn try_recv(&self, shared: &Shared, into: &mut Vec<u8>) -> io::Result<Received> {
        shared.with_buffer(|buffer| match self.socket.recv(buffer) {
            Ok(0) => Ok(Received::End { clean: true }),
            Ok(read) => {
                into.extend_from_slice(&buffer[..read]);
                Ok(Received::Bytes(read))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Received::Nothing),
            Err(error) => Err(error),
        })
    }

    /// Sends all of this.
    ///
    /// # Errors
    /// The socket's own.
    pub async fn send_all(&self, bytes: &[u8]) -> io::Result<()> {
        self.socket.send_all(bytes).await
    }
}

impl std::fmt::Debug for Plain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plain").field("socket", &self.socket).finish_non_exhaustive()
    }
}
