//! A copy of a request for another backend, whose answer nobody sees.
//!
//! The copy goes its own way: it never slows the request down and never fails it. Where the mirror falls behind by
//! more than [`MOST`] bytes, is not there, or takes too long, the copy is given up; where [`COPIES`] are on their way
//! to it, others are not begun. Each has a connection of its own, so that no answer can be taken for another's.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use mc_core::http1::{self, Framing, Known, RequestLine, write_request};
use mc_core::policy::FieldRef;
use mc_uring::{Socket, runtime};

use super::session::{Note, Session};
use crate::worker::Worker;

/// The copy of one request.
pub(super) struct Copied(Rc<Queue>);

/// What is on its way to the mirror.
#[derive(Default)]
struct Queue {
    bytes: RefCell<Vec<u8>>,
    /// Content is to be framed in chunks.
    chunked: bool,
    /// Content that is still to come, where the request says its length.
    left: Cell<Option<u64>>,
    /// All of the request is here.
    is_whole: Cell<bool>,
    /// The copy is given up.
    is_lost: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// Bytes that wait for a mirror.
const MOST: usize = 1024 * 1024;

/// Copies that a worker sends to one mirror at the same time: each takes a descriptor, and up to [`MOST`] bytes. Counted for
/// each mirror, so that one that does not answer takes nothing from the others.
const COPIES: usize = 64;

/// How long a copy and its answer may take.
const LIMIT: Duration = Duration::from_secs(30);

/// Begins a copy of the request, where one of its policies wants that and chance says so. `fields` are those that the
/// backend gets.
pub(super) fn begin<'a>(
    session: &Session,
    note: &Note,
    line: RequestLine<'_>,
    framing: Framing<'_>,
    facts: &http1::Facts<'_>,
    fields: impl Iterator<Item = FieldRef<'a>>,
) -> Option<Copied> {
    let mirror = note.mirror()?;
    if session.worker.random.borrow_mut().u8(0..100) >= mirror.percent {
        return None;
    }
    let Some(place) = Place::take(&session.worker, mirror.to) else {
        session.worker.stats.mirror_dropped.add(1);
        return None;
    };
    let chunked = framing == Framing::Chunked;
    let left = match framing {
        Framing::Length(digits) => str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()),
        _ => None,
    };
    let queue = Rc::new(Queue { chunked, left: Cell::new(left), ..Queue::default() });
    // The connection is for this request alone.
    let close = (Known::Other, b"connection".as_slice(), b"close".as_slice());
    let line = RequestLine { target: note.target(line.target), ..line };
    write_request(&mut queue.bytes.borrow_mut(), line, framing, None, facts, fields.chain([close]));
    runtime::spawn(carry(place, Rc::clone(&queue)));
    Some(Copied(queue))
}

impl Copied {
    /// Adds bytes of the body, framed as they are.
    pub(super) fn raw(&self, bytes: &[u8]) {
        self.add(|queue| queue.extend_from_slice(bytes));
        // Whole with its last byte: the backend, which counts too, may answer before the client says that this was all.
        let left = self.0.left.get().map(|left| left.saturating_sub(bytes.len() as u64));
        self.0.left.set(left);
        if left == Some(0) {
            self.0.is_whole.set(true);
        }
    }

    /// Adds content of the body.
    pub(super) fn content(&self, content: &[u8]) {
        if !self.0.chunked || content.is_empty() {
            return self.raw(content);
        }
        self.add(|queue| {
            http1::write_chunk_size(queue, content.len());
            queue.extend_from_slice(content);
            queue.extend_from_slice(b"\r\n");
        });
    }

    /// All of the body was added; `framed`: its framing, too.
    pub(super) fn finish(&self, framed: bool) {
        if self.0.is_whole.get() {
            return;
        }
        if self.0.chunked && !framed {
            self.raw(b"0\r\n\r\n");
        }
        self.0.is_whole.set(true);
        self.wake();
    }

    fn add(&self, add: impl FnOnce(&mut Vec<u8>)) {
        if self.0.is_lost.get() {
            return;
        }
        let mut queue = self.0.bytes.borrow_mut();
        add(&mut queue);
        if queue.len() > MOST {
            self.0.is_lost.set(true);
            *queue = Vec::new();
        }
        drop(queue);
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = self.0.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}

impl Queue {
    /// The next bytes; `None`: there are no more.
    async fn next(self: &Rc<Self>) -> Option<Vec<u8>> {
        poll_fn(|cx| {
            let bytes = std::mem::take(&mut *self.bytes.borrow_mut());
            if self.is_lost.get() {
                Poll::Ready(None)
            } else if !bytes.is_empty() {
                Poll::Ready(Some(bytes))
            } else if self.is_whole.get() || Rc::strong_count(self) == 1 {
                Poll::Ready(None)
            } else {
                *self.waker.borrow_mut() = Some(cx.waker().clone());
                Poll::Pending
            }
        })
        .await
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        // A request that breaks off takes its copy with it.
        if !self.0.is_whole.get() {
            self.0.is_lost.set(true);
            self.wake();
        }
    }
}

/// One of the copies that may be on their way to a mirror.
struct Place {
    worker: Rc<Worker>,
    to: SocketAddr,
}

impl Place {
    fn take(worker: &Rc<Worker>, to: SocketAddr) -> Option<Self> {
        let mut copies = worker.copies.borrow_mut();
        let count = copies.entry(to).or_default();
        if *count >= COPIES {
            return None;
        }
        *count += 1;
        Some(Self { worker: Rc::clone(worker), to })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut copies = self.worker.copies.borrow_mut();
        // A mirror that is no longer configured leaves nothing behind.
        match copies.get_mut(&self.to) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(copies.remove(&self.to)),
        }
    }
}

async fn carry(place: Place, queue: Rc<Queue>) {
    let Place { worker, to } = &place;
    let carried = runtime::timeout(LIMIT, pin!(send(worker, *to, &queue))).await;
    queue.is_lost.set(true);
    match carried {
        Some(Ok(())) => worker.stats.mirrored.add(1),
        Some(Err(error)) => {
            worker.stats.mirror_failed.add(1);
            tracing::debug!(mirror = %to, %error, "a copy of a request was given up");
        }
        None => worker.stats.mirror_failed.add(1),
    }
}

async fn send(worker: &Worker, to: SocketAddr, queue: &Rc<Queue>) -> io::Result<()> {
    let socket = Socket::connect(to)?;
    socket.writable().await?;
    socket.take_error()?;
    while let Some(bytes) = queue.next().await {
        socket.send_all(&bytes).await?;
    }
    if !queue.is_whole.get() {
        // The mirror must not take a part for the whole.
        socket.reset_on_close();
        return Err(io::Error::other("the request broke off, or the mirror fell behind"));
    }
    // Closing earlier could make it give up.
    loop {
        socket.readable().await?;
        let read = worker.shared.with_buffer(|buffer| socket.recv(buffer));
        match read {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}
