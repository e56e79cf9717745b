//! A non-blocking socket whose readiness comes from the ring.

use std::cell::Cell;
use std::io;
use std::mem::ManuallyDrop;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::time::Duration;

use monoio::net::UnixStream;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto, sockopt};

use crate::descriptors;

/// A non-blocking socket on this worker's ring.
///
/// Reading and writing are direct calls that answer [`io::ErrorKind::WouldBlock`]; [`Self::readable`] and
/// [`Self::writable`] wait in the ring.
#[derive(Debug)]
pub struct Socket {
    // monoio's `UnixStream` is its smallest handle with `readable` and `writable`: a counted descriptor.
    // Nothing of it is used that would mind that the descriptor is a TCP socket.
    handle: ManuallyDrop<UnixStream>,
    // Waits that began and did not end: while there is one, the ring still knows the descriptor.
    waits: Cell<u32>,
}

/// When a connection on which nothing arrives is probed, and given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Silence before the first probe.
    pub idle: Duration,
    /// Time between probes.
    pub interval: Duration,
    /// Probes without an answer after which the connection is reset.
    pub probes: u32,
}

impl Socket {
    /// Takes over a non-blocking descriptor. Call on a worker.
    ///
    /// # Errors
    /// None today; the ring may refuse in future.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        // SAFETY: `fd` is open and owned, and its ownership passes to the `UnixStream`.
        let stream = unsafe { std::os::unix::net::UnixStream::from_raw_fd(fd.into_raw_fd()) };
        Ok(Self { handle: ManuallyDrop::new(UnixStream::from_std(stream)?), waits: Cell::new(0) })
    }

    /// Starts connecting, for a caller that speaks first. The socket is writable when it is connected or has
    /// failed ([`Self::take_error`]).
    ///
    /// # Errors
    /// No descriptor, no route, or refused at once.
    pub fn connect(to: SocketAddr) -> io::Result<Self> {
        let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let fd = rustix::net::socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
        let fd = descriptors::within(fd)?;
        sockopt::set_tcp_nodelay(&fd, true)?;
        // The acknowledgement that ends the handshake waits for the caller's first bytes and travels with
        // them: one packet and one wake-up of the other side less.
        sockopt::set_tcp_quickack(&fd, false)?;
        match rustix::net::connect(&fd, &to) {
            Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Self::new(fd),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until there is something to read, an end or an error.
    ///
    /// # Errors
    /// The ring was shut down.
    pub async fn readable(&self) -> io::Result<()> {
        self.waits.set(self.waits.get() + 1);
        let ready = self.handle.readable(false).await;
        self.waits.set(self.waits.get() - 1);
        ready
    }

    /// Waits until there is room to write, or an error.
    ///
    /// # Errors
    /// The ring was shut down.
    pub async fn writable(&self) -> io::Result<()> {
        self.waits.set(self.waits.get() + 1);
        let ready = self.handle.writable(false).await;
        self.waits.set(self.waits.get() - 1);
        ready
    }

    /// Reads what is there; 0 bytes: the other side has finished.
    ///
    /// # Errors
    /// `WouldBlock`, or the connection's error.
    pub fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::net::recv(self, buffer, RecvFlags::DONTWAIT)?.1)
    }

    /// Whether the other side is gone, without reading what it has sent: it has finished and nothing of it waits to be
    /// read, or it has reset the connection.
    #[must_use]
    pub fn is_abandoned(&self) -> bool {
        match rustix::net::recv(self, &mut [0_u8; 1], RecvFlags::DONTWAIT | RecvFlags::PEEK) {
            Ok((_, read)) => read == 0,
            Err(error) => error == rustix::io::Errno::CONNRESET,
        }
    }

    /// Writes what fits.
    ///
    /// # Errors
    /// `WouldBlock` (also while connecting), or the connection's error.
    pub fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::net::send(self, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?)
    }

    /// Writes all of this, waiting where it does not fit.
    ///
    /// # Errors
    /// The connection's error.
    pub async fn send_all(&self, bytes: &[u8]) -> io::Result<()> {
        let mut sent = 0;
        while sent < bytes.len() {
            match self.send(&bytes[sent..]) {
                Ok(more) => sent += more,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable().await?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The error that waits on the socket, if any. Taking it clears it.
    ///
    /// # Errors
    /// That error.
    pub fn take_error(&self) -> io::Result<()> {
        Ok(sockopt::socket_error(self)??)
    }

    /// Finishes one direction or both. Whoever waits on the socket wakes.
    pub fn shutdown(&self, how: Shutdown) {
        let how = match how {
            Shutdown::Read => rustix::net::Shutdown::Read,
            Shutdown::Write => rustix::net::Shutdown::Write,
            Shutdown::Both => rustix::net::Shutdown::Both,
        };
        // It fails only where the connection is gone already, which is what was wanted.
        rustix::net::shutdown(self, how).unwrap_or(());
    }

    /// Turns keepalive probes on.
    ///
    /// # Errors
    /// A value that the kernel refuses.
    pub fn set_keepalive(&self, keepalive: Keepalive) -> io::Result<()> {
        sockopt::set_tcp_keepidle(self, keepalive.idle)?;
        sockopt::set_tcp_keepintvl(self, keepalive.interval)?;
        sockopt::set_tcp_keepcnt(self, keepalive.probes)?;
        sockopt::set_socket_keepalive(self, true)?;
        Ok(())
    }

    /// Makes the coming close a reset: the other side learns that this is no orderly end.
    pub fn reset_on_close(&self) {
        // It fails only on what is no TCP socket.
        sockopt::set_socket_linger(self, Some(Duration::ZERO)).unwrap_or(());
    }

    /// Our address on this connection.
    ///
    /// # Errors
    /// The socket is no IP socket.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        Ok(SocketAddr::try_from(rustix::net::getsockname(self)?)?)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the handle keeps the descriptor open for as long as `self` lives.
        unsafe { BorrowedFd::borrow_raw(self.handle.as_raw_fd()) }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // SAFETY: `drop` runs once and `handle` is not used after it.
        let handle = unsafe { ManuallyDrop::take(&mut self.handle) };
        if self.waits.get() == 0 {
            // Nothing of it is in the ring: closing directly costs less than a close through the ring,
            // and the descriptor is free when this returns.
            let fd = handle.into_raw_fd();
            // SAFETY: `into_raw_fd` gave up the only ownership of an open descriptor.
            drop(unsafe { OwnedFd::from_raw_fd(fd) });
        } else {
            // A wait was given up: monoio cancels it and closes when the ring has let go.
            drop(handle);
        }
    }
}
