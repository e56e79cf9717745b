//! Bulk transfers, every byte compared; one blocking thread for each connection.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;

use anyhow::ensure;

use super::{Outcome, open};
use crate::backend::bulk::{receive, send};
use crate::clock::now_ns;
use crate::hello::Hello;

/// Where the bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Direction {
    /// From the client to the backend.
    Up,
    /// From the backend to the client.
    Down,
}

/// Moves `bytes` over so many connections together; [`Outcome::done`] counts the bytes that arrived right.
///
/// # Errors
/// A connection fails, or a byte is missing or wrong.
pub(crate) fn run(
    target: SocketAddr,
    name: &str,
    direction: Direction,
    connections: u32,
    bytes: u64,
) -> anyhow::Result<Outcome> {
    let start = now_ns();
    let share = bytes / u64::from(connections);
    let threads: Vec<_> = (0..connections)
        .map(|_| {
            let hello = Hello::classic(name);
            std::thread::spawn(move || transfer(target, &hello, direction, share))
        })
        .collect();
    let mut outcome = Outcome::default();
    for thread in threads {
        outcome.done += thread.join().expect("a transfer returns its error")?;
    }
    outcome.elapsed_ns = now_ns() - start;
    Ok(outcome)
}

fn transfer(target: SocketAddr, hello: &Hello, direction: Direction, len: u64) -> anyhow::Result<u64> {
    let mut stream = open(target, hello)?;
    stream.write_all(&len.to_le_bytes())?;
    let right = match direction {
        Direction::Down => receive(&mut stream, len)?,
        Direction::Up => {
            send(&mut stream, len)?;
            let mut right = [0; 8];
            stream.read_exact(&mut right)?;
            u64::from_le_bytes(right)
        }
    };
    ensure!(right == len, "{right} of {len} bytes arrived as they were sent");
    Ok(right)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{Mode, spawn};

    #[test]
    fn both_ways_arrive_whole() {
        let any = "127.0.0.1:0".parse().unwrap();
        let targets = spawn(&[(any, Mode::Sink), (any, Mode::Source)]).unwrap();
        for (target, direction) in [(targets[0], Direction::Up), (targets[1], Direction::Down)] {
            let outcome = run(target, "a.test", direction, 3, 9_000_003).unwrap();
            assert_eq!(outcome.done, 9_000_003);
        }
    }

    #[test]
    fn a_changed_byte_is_a_failure() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let target = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            stream.read_exact(&mut [0; 517 + 8]).unwrap();
            let mut bytes = crate::content::pattern(0, 1000).to_vec();
            bytes[500] ^= 1;
            stream.write_all(&bytes).unwrap();
        });
        let error = run(target, "a.test", Direction::Down, 1, 1000).unwrap_err();
        assert!(error.to_string().contains("of 1000 bytes arrived"), "{error}");
    }
}
