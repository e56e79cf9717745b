//! What the connections of a worker share: its coarse clock, its buffers and its pipes.

use std::cell::{Cell, RefCell};
use std::io;

use crate::pipe::{Pipe, Pool};

/// What all connections of a worker share.
pub struct Shared {
    /// The worker's coarse clock in milliseconds; the worker keeps it.
    pub now_ms: Cell<u64>,
    pub(crate) buffer: RefCell<Box<[u8]>>,
    scratch: RefCell<Box<[u8]>>,
    spare: Cell<Vec<u8>>,
    pipes: Pool,
}

/// Which side a relay failed on.
#[derive(Debug)]
pub enum Failure {
    /// The first socket.
    Client(io::Error),
    /// The second socket.
    Backend(io::Error),
}

/// Plain bytes encrypted in one go: four full records.
pub(crate) const CHUNK: usize = 4 * 16 * 1024;

/// The same, and what four records add: header, content type, nonce and tag each, and room to spare.
const SCRATCH: usize = CHUNK + 4 * 64;

impl Shared {
    /// A worker's buffer of `bytes`, and no pipes yet.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        Self {
            now_ms: Cell::new(0),
            buffer: RefCell::new(vec![0; bytes].into_boxed_slice()),
            scratch: RefCell::new(vec![0; SCRATCH].into_boxed_slice()),
            spare: Cell::default(),
            pipes: Pool::default(),
        }
    }

    /// Lends the buffer into which TLS encrypts. Its content is lost at the next wait.
    pub(crate) fn with_scratch<R>(&self, work: impl FnOnce(&mut [u8]) -> R) -> R {
        work(&mut self.scratch.borrow_mut())
    }

    /// An empty pipe; to be given back.
    ///
    /// # Errors
    /// No descriptor is left.
    pub(crate) fn take_pipe(&self) -> io::Result<Pipe> {
        self.pipes.take()
    }

    /// Takes a pipe back.
    pub(crate) fn give_pipe(&self, pipe: Pipe) {
        self.pipes.give(pipe);
    }

    /// An empty vector, with room in it where the last one that was given back is not in use.
    pub fn take_spare(&self) -> Vec<u8> {
        self.spare.take()
    }

    /// Gives a vector of [`Self::take_spare`] back, so that the next one need not grow.
    pub fn give_spare(&self, mut spare: Vec<u8>) {
        spare.clear();
        self.spare.set(spare);
    }

    /// Lends the worker's buffer. Its content is lost at the next wait.
    pub fn with_buffer<R>(&self, work: impl FnOnce(&mut [u8]) -> R) -> R {
        work(&mut self.buffer.borrow_mut())
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("now_ms", &self.now_ms).finish_non_exhaustive()
    }
}
