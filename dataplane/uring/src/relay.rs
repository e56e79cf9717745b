//! Moves bytes between two sockets, each direction by itself, until both have finished or one has failed.
//!
//! Untouched and in order; a direction that ends is passed on as an end of that direction alone; a reset is
//! told to the caller, who passes it on. Nothing is read that cannot be written: the slower side sets the
//! pace, and at most one buffer or one pipe a direction is held, and only while it has bytes.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::net::Shutdown;
use std::pin::pin;
use std::task::Poll;

use mc_core::relay::{Choice, Method};

use crate::pipe::Pipe;
use crate::runtime::yield_now;
use crate::shared::{Failure, Shared};
use crate::socket::Socket;

/// What one direction has moved. The relay writes, others on the same worker read.
#[derive(Debug, Default)]
pub struct Flow {
    /// Bytes passed on.
    pub bytes: Cell<u64>,
    /// When bytes last moved, by [`Shared::now_ms`].
    pub moved_ms: Cell<u64>,
    /// Writes that wait until the receiver takes more, each with bytes in this process's memory (those in pipes are the
    /// kernel's).
    blocked: Cell<u32>,
    /// Since when there has been at least one of them.
    blocked_since_ms: Cell<u64>,
}

/// A write that waits, for as long as this lives.
struct Blocked<'a>(&'a Flow);

/// Which side of a direction failed.
enum Side {
    From(io::Error),
    To(io::Error),
}

/// Bytes moved in one go before others have their turn.
const TURN: usize = 1024 * 1024;

/// Relays until both directions have finished; the caller then closes both sockets.
///
/// # Errors
/// The side that failed, and how.
pub async fn relay(
    shared: &Shared,
    client: &Socket,
    backend: &Socket,
    up: &Flow,
    down: &Flow,
) -> Result<(), Failure> {
    let mut up = pin!(pump(shared, client, backend, up));
    let mut down = pin!(pump(shared, backend, client, down));
    let (mut up_done, mut down_done) = (false, false);
    poll_fn(move |cx| {
        if !up_done && let Poll::Ready(end) = up.as_mut().poll(cx) {
            end.map_err(|side| match side {
                Side::From(error) => Failure::Client(error),
                Side::To(error) => Failure::Backend(error),
            })?;
            up_done = true;
            if !down_done {
                backend.shutdown(Shutdown::Write);
            }
        }
        if !down_done && let Poll::Ready(end) = down.as_mut().poll(cx) {
            end.map_err(|side| match side {
                Side::From(error) => Failure::Backend(error),
                Side::To(error) => Failure::Client(error),
            })?;
            down_done = true;
            if !up_done {
                client.shutdown(Shutdown::Write);
            }
        }
        // The direction that ends last needs no shutdown of its own: the close that follows says it.
        if up_done && down_done { Poll::Ready(Ok(())) } else { Poll::Pending }
    })
    .await
}

/// One direction, from the first byte to the end.
async fn pump(shared: &Shared, from: &Socket, to: &Socket, flow: &Flow) -> Result<(), Side> {
    let mut choice = Choice::new();
    loop {
        from.readable().await.map_err(Side::From)?;
        let go_on = match choice.method() {
            Method::Copy => copy(shared, from, to, flow, &mut choice).await?,
            Method::Splice => splice(shared, from, to, flow, &mut choice).await?,
        };
        if !go_on {
            return Ok(());
        }
    }
}

/// Copies what one read brings; `false`: the end.
async fn copy(
    shared: &Shared,
    from: &Socket,
    to: &Socket,
    flow: &Flow,
    choice: &mut Choice,
) -> Result<bool, Side> {
    let left = {
        let mut buffer = shared.buffer.borrow_mut();
        let read = match from.recv(&mut buffer) {
            Ok(0) => return Ok(false),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
            Err(error) => return Err(Side::From(error)),
        };
        choice.copied(read);
        let sent = accept_would_block(to.send(&buffer[..read])).map_err(Side::To)?;
        flow.count(sent, shared.now_ms.get());
        if sent == read {
            return Ok(true);
        }
        Box::<[u8]>::from(&buffer[sent..read])
    };
    flow.write(&shared.now_ms, send_all(shared, to, &left, flow)).await?;
    Ok(true)
}

/// Sends what did not fit at once.
async fn send_all(shared: &Shared, to: &Socket, mut left: &[u8], flow: &Flow) -> Result<(), Side> {
    while !left.is_empty() {
        to.writable().await.map_err(Side::To)?;
        let sent = accept_would_block(to.send(left)).map_err(Side::To)?;
        flow.count(sent, shared.now_ms.get());
        left = &left[sent..];
    }
    Ok(())
}

/// Splices until the source is empty or the turn is over; `false`: the end.
async fn splice(
    shared: &Shared,
    from: &Socket,
    to: &Socket,
    flow: &Flow,
    choice: &mut Choice,
) -> Result<bool, Side> {
    let Ok(mut pipe) = shared.take_pipe() else {
        choice.cannot_splice();
        return Ok(true);
    };
    let end = splice_turn(shared, &mut pipe, from, to, flow, choice).await;
    shared.give_pipe(pipe);
    end
}

async fn splice_turn(
    shared: &Shared,
    pipe: &mut Pipe,
    from: &Socket,
    to: &Socket,
    flow: &Flow,
    choice: &mut Choice,
) -> Result<bool, Side> {
    let mut turn = 0;
    loop {
        match pipe.fill(from, TURN) {
            Ok(0) => return Ok(false),
            Ok(moved) => turn += moved,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                choice.spliced(turn);
                return Ok(true);
            }
            Err(error) => return Err(Side::From(error)),
        }
        while pipe.filled() > 0 {
            match accept_would_block(pipe.drain(to)).map_err(Side::To)? {
                0 => to.writable().await.map_err(Side::To)?,
                moved => flow.count(moved, shared.now_ms.get()),
            }
        }
        if turn >= TURN {
            yield_now().await;
            turn = 0;
        }
    }
}

fn accept_would_block(moved: io::Result<usize>) -> io::Result<usize> {
    match moved {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        other => other,
    }
}

impl Flow {
    /// Counts bytes that were passed on.
    pub fn count(&self, bytes: usize, now_ms: u64) {
        self.bytes.set(self.bytes.get() + bytes as u64);
        self.moved_ms.set(now_ms);
    }

    /// Waits for a write. Where it does not succeed at once, the flow counts as blocked until it does.
    pub async fn write<F: Future>(&self, now_ms: &Cell<u64>, writing: F) -> F::Output {
        let mut writing = pin!(writing);
        let mut blocked = None;
        poll_fn(|cx| {
            let written = writing.as_mut().poll(cx);
            if written.is_pending() && blocked.is_none() {
                blocked = Some(self.block(now_ms.get()));
            }
            written
        })
        .await
    }

    /// Since when at least one write has waited without a break; `None`: none waits.
    #[must_use]
    pub fn blocked_since_ms(&self) -> Option<u64> {
        (self.blocked.get() > 0).then(|| self.blocked_since_ms.get())
    }

    fn block(&self, now_ms: u64) -> Blocked<'_> {
        if self.blocked.replace(self.blocked.get() + 1) == 0 {
            self.blocked_since_ms.set(now_ms);
        }
        Blocked(self)
    }
}

impl Drop for Blocked<'_> {
    fn drop(&mut self) {
        self.0.blocked.set(self.0.blocked.get() - 1);
    }
}
