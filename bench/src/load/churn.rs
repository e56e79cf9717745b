//! New connections: connect, ClientHello, an answer of 1 KiB, close; some at the same time, on one thread.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use super::{Names, Outcome, STALL, is_early, route_name};
use crate::clock::now_ns;
use crate::content::{ANSWER_LEN, answer};
use crate::hello::Hello;

/// What is asked.
#[derive(Clone, Debug)]
pub(crate) struct Churn {
    /// The proxy, or a backend.
    pub(crate) target: SocketAddr,
    /// Names asked for.
    pub(crate) names: Names,
    /// Whether hellos carry a post-quantum key share.
    pub(crate) post_quantum: bool,
    /// Connections at the same time.
    pub(crate) connections: usize,
}

impl Churn {
    /// Opens `count` connections in all.
    ///
    /// # Errors
    /// The event queue cannot be made; failed connections are counted in the outcome.
    pub(crate) fn run(&self, count: u64) -> anyhow::Result<Outcome> {
        let mut numbers = 0..count;
        self.run_while(|| numbers.next().is_some())
    }

    /// Opens connections for as long as `more` says so: it is asked before each.
    ///
    /// # Errors
    /// The event queue cannot be made.
    pub(crate) fn run_while(&self, mut more: impl FnMut() -> bool) -> anyhow::Result<Outcome> {
        let start = now_ns();
        let mut poll = Poll::new()?;
        let mut events = Events::with_capacity(512);
        let mut outcome = Outcome::default();
        let mut names = NamePicker::new(self);
        let mut slots: Vec<Option<Slot>> = Vec::new();
        slots.resize_with(self.connections, || None);
        for (index, slot) in slots.iter_mut().enumerate() {
            *slot = self.next(Token(index), &poll, &mut names, &mut more, &mut outcome);
        }
        while slots.iter().any(Option::is_some) {
            poll.poll(&mut events, Some(STALL))?;
            if events.is_empty() {
                stalled(&slots, &mut outcome);
                break;
            }
            for event in &events {
                let slot = &mut slots[event.token().0];
                let Some(result) = slot.as_mut().and_then(Slot::advance) else { continue };
                outcome.each_ns.push(now_ns() - slot.as_ref().map_or(0, |slot| slot.started_ns));
                outcome.record(result);
                *slot = None;
                *slot = self.next(event.token(), &poll, &mut names, &mut more, &mut outcome);
            }
        }
        outcome.elapsed_ns = now_ns() - start;
        Ok(outcome)
    }

    /// The next connection under way, or `None` when there are to be no more.
    fn next(
        &self,
        token: Token,
        poll: &Poll,
        names: &mut NamePicker,
        more: &mut impl FnMut() -> bool,
        outcome: &mut Outcome,
    ) -> Option<Slot> {
        while more() {
            match Slot::start(self.target, token, poll, names) {
                Ok(slot) => return Some(slot),
                Err(error) => outcome.record(Err(format!("connecting: {error}"))),
            }
        }
        None
    }
}

/// Draws names and knows the answer to each hello.
struct NamePicker {
    hello: Hello,
    answer: [u8; ANSWER_LEN],
    spread: u32,
    random: fastrand::Rng,
}

impl NamePicker {
    fn new(churn: &Churn) -> Self {
        let (name, spread) = match &churn.names {
            Names::One(name) => (name.clone(), 0),
            Names::Spread(count) => (route_name(0), *count),
        };
        let hello = if churn.post_quantum { Hello::post_quantum(&name) } else { Hello::classic(&name) };
        Self { answer: answer(&hello.bytes), hello, spread, random: fastrand::Rng::with_seed(7) }
    }

    fn draw(&mut self) {
        if self.spread > 0 {
            self.hello.rename(&route_name(self.random.u32(..self.spread)));
            self.answer = answer(&self.hello.bytes);
        }
    }
}

/// One connection.
struct Slot {
    stream: TcpStream,
    started_ns: u64,
    hello: Vec<u8>,
    sent: usize,
    expect: [u8; ANSWER_LEN],
    got: [u8; ANSWER_LEN],
    got_len: usize,
}

impl Slot {
    fn start(target: SocketAddr, token: Token, poll: &Poll, names: &mut NamePicker) -> std::io::Result<Self> {
        names.draw();
        let started_ns = now_ns();
        let mut stream = TcpStream::connect(target)?;
        poll.registry().register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        let hello = names.hello.bytes.clone();
        let got = [0; ANSWER_LEN];
        let mut slot = Self { stream, started_ns, hello, sent: 0, expect: names.answer, got, got_len: 0 };
        // On loopback the handshake is often over by now, which saves a turn of the event queue.
        // A failure here shows again at the first event.
        slot.send().ok();
        Ok(slot)
    }

    /// Goes as far as the socket lets it, and says how it ended once it did.
    fn advance(&mut self) -> Option<Result<(), String>> {
        self.exchange()
            .map_err(|error| format!("after {} bytes of the answer: {error}", self.got_len))
            .transpose()
    }

    fn exchange(&mut self) -> Result<Option<()>, String> {
        if let Err(error) = self.send() {
            return if is_early(&error) { Ok(None) } else { Err(error.to_string()) };
        }
        loop {
            match self.stream.read(&mut self.got[self.got_len..]) {
                Ok(0) => return Err("closed early".to_owned()),
                Ok(size) => self.got_len += size,
                Err(error) if is_early(&error) => return Ok(None),
                Err(error) => return Err(error.to_string()),
            }
            if self.got_len == ANSWER_LEN {
                let right = self.got == self.expect;
                return if right { Ok(Some(())) } else { Err("not the answer to this hello".to_owned()) };
            }
        }
    }

    fn send(&mut self) -> std::io::Result<()> {
        while self.sent < self.hello.len() {
            self.sent += self.stream.write(&self.hello[self.sent..])?;
        }
        Ok(())
    }
}

fn stalled(slots: &[Option<Slot>], outcome: &mut Outcome) {
    for slot in slots.iter().flatten() {
        outcome.record(Err(format!("stalled after {} bytes of the answer", slot.got_len)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{Mode, spawn};

    fn churn(mode: Mode) -> Churn {
        let listen = [("127.0.0.1:0".parse().unwrap(), mode)];
        let target = spawn(&listen).unwrap()[0];
        Churn { target, names: Names::Spread(50), post_quantum: true, connections: 4 }
    }

    #[test]
    fn counts_what_was_answered() {
        let outcome = churn(Mode::Answer).run(100).unwrap();
        assert_eq!((outcome.done, outcome.failed), (100, 0), "{:?}", outcome.first_failure);
        assert_eq!(outcome.each_ns.len(), 100);
    }

    #[test]
    fn another_answer_is_a_failure() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let target = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            // Right for another hello: as from a proxy that mixes connections up.
            let other = answer(&Hello::classic("other.test").bytes);
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                stream.read_exact(&mut [0; 517]).unwrap();
                stream.write_all(&other).unwrap();
            }
        });
        let names = Names::One("a.test".to_owned());
        let outcome = Churn { target, names, post_quantum: false, connections: 2 }.run(3).unwrap();
        assert_eq!((outcome.done, outcome.failed), (0, 3));
        assert!(outcome.first_failure.unwrap().contains("not the answer"));
    }

    #[test]
    fn refused_connections_are_failures() {
        let mut churn = churn(Mode::Answer);
        churn.target = "127.0.0.1:1".parse().unwrap();
        let outcome = churn.run(10).unwrap();
        assert_eq!((outcome.done, outcome.failed), (0, 10));
    }
}
