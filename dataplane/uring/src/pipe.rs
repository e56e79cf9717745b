//! Pipes for splice(2), kept in a small pool: making one costs as much as moving a megabyte.

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;

use rustix::pipe::{PipeFlags, SpliceFlags};

use crate::descriptors;
use crate::socket::Socket;

/// Pipes that wait for the next bulk transfer, at most; more are closed.
const POOLED: usize = 64;

/// A pipe and how much is in it.
#[derive(Debug)]
pub struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    filled: usize,
}

/// Empty pipes of one worker.
#[derive(Debug, Default)]
pub struct Pool {
    idle: RefCell<Vec<Pipe>>,
}

impl Pool {
    /// An empty pipe.
    ///
    /// # Errors
    /// No descriptors left.
    pub fn take(&self) -> io::Result<Pipe> {
        if let Some(pipe) = self.idle.borrow_mut().pop() {
            return Ok(pipe);
        }
        let (read, write) = rustix::pipe::pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC)?;
        let (read, write) = (descriptors::within(read)?, descriptors::within(write)?);
        Ok(Pipe { read, write, filled: 0 })
    }

    /// Takes a pipe back. One that still holds bytes of a connection that ended is closed.
    pub fn give(&self, pipe: Pipe) {
        let mut idle = self.idle.borrow_mut();
        if pipe.filled == 0 && idle.len() < POOLED {
            idle.push(pipe);
        }
    }
}

impl Pipe {
    /// Bytes in the pipe.
    #[must_use]
    pub fn filled(&self) -> usize {
        self.filled
    }

    /// Moves what the socket has into the pipe; 0: the other side has finished.
    ///
    /// # Errors
    /// `WouldBlock` where the socket has nothing or the pipe no room, or the connection's error.
    pub fn fill(&mut self, from: &Socket, most: usize) -> io::Result<usize> {
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        let moved = rustix::pipe::splice(from, None, &self.write, None, most, flags)?;
        self.filled += moved;
        Ok(moved)
    }

    /// Moves what the pipe has into the socket.
    ///
    /// # Errors
    /// `WouldBlock` where the socket has no room, or the connection's error.
    pub fn drain(&mut self, to: &Socket) -> io::Result<usize> {
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        let moved = rustix::pipe::splice(&self.read, None, to, None, self.filled, flags)?;
        self.filled -= moved;
        Ok(moved)
    }
}
