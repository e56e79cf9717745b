//! Round trips on open connections: one at a time for latency, or over many at once for CPU.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use anyhow::ensure;
use mio::{Events, Interest, Poll, Token};

use super::{Outcome, STALL, echo, is_early};
use crate::clock::now_ns;
use crate::content::pattern;

/// `count` round trips of `size` bytes, one after the other; [`Outcome::each_ns`] has the time of each.
///
/// # Errors
/// An echo does not come back as it was sent.
pub(crate) fn latency(stream: &TcpStream, size: usize, count: u64) -> anyhow::Result<Outcome> {
    let mut outcome = Outcome::default();
    let start = now_ns();
    let mut before = start;
    for _ in 0..count {
        echo(stream, size)?;
        let now = now_ns();
        outcome.each_ns.push(now - before);
        before = now;
        outcome.done += 1;
    }
    outcome.elapsed_ns = before - start;
    Ok(outcome)
}

/// `count` round trips of `size` bytes over all of these connections at the same time.
///
/// # Errors
/// A connection ends, stalls, or echoes something else.
pub(crate) fn many(streams: &[TcpStream], size: usize, count: u64) -> anyhow::Result<Outcome> {
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(512);
    let mut pongs = Vec::new();
    for (index, stream) in streams.iter().enumerate() {
        pongs.push(Pong::new(stream, Token(index), &poll)?);
    }
    let message = pattern(0, size);
    let mut scratch = vec![0; size];
    let mut outcome = Outcome::default();
    let start = now_ns();
    let mut begun = 0;
    for pong in pongs.iter_mut().take(usize::try_from(count).unwrap_or(usize::MAX)) {
        pong.stream.write_all(message)?;
        begun += 1;
    }
    while outcome.done < count {
        poll.poll(&mut events, Some(STALL))?;
        ensure!(!events.is_empty(), "stalled after {} of {count} round trips", outcome.done);
        for event in &events {
            let pong = &mut pongs[event.token().0];
            if pong.read(&mut scratch, message)? {
                outcome.done += 1;
                if begun < count {
                    begun += 1;
                    pong.stream.write_all(message)?;
                }
            }
        }
    }
    outcome.elapsed_ns = now_ns() - start;
    Ok(outcome)
}

struct Pong {
    stream: mio::net::TcpStream,
    got: usize,
}

impl Pong {
    fn new(stream: &TcpStream, token: Token, poll: &Poll) -> std::io::Result<Self> {
        let stream = stream.try_clone()?;
        stream.set_nonblocking(true)?;
        let mut stream = mio::net::TcpStream::from_std(stream);
        poll.registry().register(&mut stream, token, Interest::READABLE)?;
        Ok(Self { stream, got: 0 })
    }

    /// Reads on; `true` when the message is back whole.
    fn read(&mut self, scratch: &mut [u8], message: &[u8]) -> anyhow::Result<bool> {
        loop {
            let size = match self.stream.read(&mut scratch[self.got..]) {
                Err(error) if is_early(&error) => return Ok(false),
                result => result?,
            };
            ensure!(size > 0, "closed in the middle of a round trip");
            let from = self.got;
            self.got += size;
            ensure!(
                scratch[from..self.got] == message[from..self.got],
                "the echo differs from what was sent"
            );
            if self.got == message.len() {
                self.got = 0;
                return Ok(true);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{Mode, spawn};
    use crate::hello::Hello;
    use crate::load::open_echo;

    fn streams(count: usize) -> Vec<TcpStream> {
        let target = spawn(&[("127.0.0.1:0".parse().unwrap(), Mode::Echo)]).unwrap()[0];
        std::iter::repeat_with(|| open_echo(target, &Hello::classic("a.test")).unwrap()).take(count).collect()
    }

    #[test]
    fn one_by_one() {
        let outcome = latency(&streams(1)[0], 64, 50).unwrap();
        assert_eq!((outcome.done, outcome.each_ns.len()), (50, 50));
    }

    #[test]
    fn many_at_once_whatever_the_count() {
        let streams = streams(8);
        for count in [3, 8, 500] {
            assert_eq!(many(&streams, 1024, count).unwrap().done, count);
        }
    }
}
