//! The loads: what is asked of a proxy, each answer checked.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};

use crate::content::{ANSWER_LEN, answer, pattern};
use crate::hello::Hello;

pub(crate) mod bulk;
pub(crate) mod churn;
pub(crate) mod h2load;
pub(crate) mod https;
pub(crate) mod ping;

/// Which name a connection asks for.
#[derive(Clone, Debug)]
pub(crate) enum Names {
    /// Always this one.
    One(String),
    /// One of so many drawn at random: [`route_name`] of 0 to this.
    Spread(u32),
}

/// The name of route number `index`: all have the same length.
pub(crate) fn route_name(index: u32) -> String {
    format!("r{index:07}.bench.test")
}

/// How a load went.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Units (connections, round trips, bytes) that were answered rightly.
    pub(crate) done: u64,
    /// Units that were not.
    pub(crate) failed: u64,
    /// What became of the first that failed.
    pub(crate) first_failure: Option<String>,
    /// How long it took, in nanoseconds.
    pub(crate) elapsed_ns: u64,
    /// How long each unit took, in nanoseconds, where that is of interest.
    #[serde(skip)]
    pub(crate) each_ns: Vec<u64>,
}

impl Outcome {
    /// Counts one unit.
    pub(crate) fn record(&mut self, result: Result<(), String>) {
        match result {
            Ok(()) => self.done += 1,
            Err(reason) => {
                self.failed += 1;
                self.first_failure.get_or_insert(reason);
            }
        }
    }

    /// Adds what others did at the same time.
    pub(crate) fn merge(&mut self, other: Self) {
        self.done += other.done;
        self.failed += other.failed;
        self.first_failure = self.first_failure.take().or(other.first_failure);
        self.elapsed_ns = self.elapsed_ns.max(other.elapsed_ns);
        self.each_ns.extend(other.each_ns);
    }
}

/// Opens a connection to an echoing backend and sees one echo come back.
///
/// # Errors
/// The connection fails, stalls for [`STALL`] or echoes something else.
pub(crate) fn open_echo(target: SocketAddr, hello: &Hello) -> anyhow::Result<TcpStream> {
    let stream = open(target, hello)?;
    echo(&stream, 64).context("the first echo")?;
    Ok(stream)
}

/// Opens a connection to an answering backend and sees the answer to this hello.
///
/// # Errors
/// The connection fails, nothing comes within a second, or not the answer.
pub(crate) fn ask(target: SocketAddr, hello: &Hello) -> anyhow::Result<()> {
    let mut stream = open(target, hello)?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    let mut got = [0; ANSWER_LEN];
    stream.read_exact(&mut got).context("reading the answer")?;
    ensure!(got == answer(&hello.bytes), "not the answer to this hello");
    Ok(())
}

/// Opens a connection and sends the hello.
fn open(target: SocketAddr, hello: &Hello) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect(target).with_context(|| format!("connecting to {target}"))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(STALL))?;
    stream.set_write_timeout(Some(STALL))?;
    stream.write_all(&hello.bytes)?;
    Ok(stream)
}

/// Sends `size` bytes and sees the same come back.
///
/// # Errors
/// Nothing came, or something else.
pub(crate) fn echo(mut stream: &TcpStream, size: usize) -> anyhow::Result<()> {
    let sent = pattern(0, size);
    stream.write_all(sent)?;
    let mut got = [0; MAX_ECHO];
    stream.read_exact(&mut got[..size])?;
    ensure!(got[..size] == *sent, "the echo of {size} bytes differs from what was sent");
    Ok(())
}

/// Whether a non-blocking socket has merely nothing to do yet.
fn is_early(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected)
}

/// Where nothing moves for so long, a load gives up and says so.
pub(crate) const STALL: Duration = Duration::from_secs(10);
/// The largest [`echo`].
const MAX_ECHO: usize = 4096;
