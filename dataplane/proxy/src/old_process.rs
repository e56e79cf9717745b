//! An old process after a handover: it finishes the connections that it has, and answers questions about them at a socket of
//! its own, `mc-proxy.old.<process>` in the folder of everything that must not be lost.
//!
//! The serving process finds old processes by these names: those that it took over from, earlier ones, and those that a crash left.
//! No list is passed on. An old process goes on if it is not asked.
//!
//! On the wire: a line with an [`Order`], answered with a line with a [`Report`], both JSON.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;

use crate::handover::Identity;
use crate::private_socket::bind_private;
use crate::process::ProcessId;

/// What the sockets' names begin with; the process follows.
const PREFIX: &str = "mc-proxy.old.";

/// The longest line.
const MAX_LINE: u64 = 4096;

/// How long the other side may take.
const PATIENCE: Duration = Duration::from_millis(500);

/// Old processes that are asked at most.
const MAX_ASKED: usize = 64;

/// What an old process is asked to do. It answers with its state in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Nothing.
    Report,
    /// To reopen its access log.
    ReopenLog,
    /// To end within the time to drain.
    Stop,
    /// To end at once.
    StopNow,
}

/// What an old process says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// [`ProcessId`].
    pub process: String,
    /// The system's number of it.
    pub pid: u32,
    /// Its version.
    pub version: String,
    /// Time since the handover, in milliseconds.
    pub since_ms: u64,
    /// Connections that it has left.
    pub connections: u64,
    /// Time until it closes them, in milliseconds; `None`: it waits for as long as they take.
    pub closes_after_ms: Option<u64>,
}

/// An old process that does not answer: its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Silent(pub String);

/// When an old process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Countdown {
    /// When the other process took over.
    since_ms: u64,
    /// When connections are closed; `None`: never.
    deadline_ms: Option<u64>,
    /// The time that a stop leaves them.
    drain_ms: u64,
    /// It is to stop: clients that ask for nothing are not waited for.
    is_stopping: bool,
    /// A signal said so: the next one means at once.
    is_signalled: bool,
}

impl Countdown {
    /// From now on; `limit_ms`: how long connections may take where nobody stops it (0: for as long as they do).
    #[must_use]
    pub fn new(now_ms: u64, limit_ms: u64, drain_ms: u64) -> Self {
        let deadline_ms = (limit_ms > 0).then(|| now_ms.saturating_add(limit_ms));
        Self { since_ms: now_ms, deadline_ms, drain_ms, is_stopping: false, is_signalled: false }
    }

    /// Takes a signal to stop: the first leaves connections the time to drain, the second none.
    pub fn signal(&mut self, now_ms: u64) {
        let order = if self.is_signalled { Order::StopNow } else { Order::Stop };
        self.is_signalled = true;
        self.obey(order, now_ms);
    }

    /// Takes an order. A stop that is ordered again, or after a signal, gives no more time and takes none.
    pub fn obey(&mut self, order: Order, now_ms: u64) {
        let left_ms = match order {
            Order::Report | Order::ReopenLog => return,
            Order::Stop if self.is_stopping => return,
            Order::Stop => self.drain_ms,
            Order::StopNow => 0,
        };
        let at = now_ms.saturating_add(left_ms);
        self.deadline_ms = Some(self.deadline_ms.map_or(at, |deadline| deadline.min(at)));
        self.is_stopping = true;
    }

    /// Whether it is to stop.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.is_stopping
    }

    /// Time until connections are closed; `None`: never.
    #[must_use]
    pub fn left_ms(&self, now_ms: u64) -> Option<u64> {
        self.deadline_ms.map(|deadline| deadline.saturating_sub(now_ms))
    }

    /// What it says of itself, with so many connections left.
    #[must_use]
    pub fn report(&self, now_ms: u64, connections: u64) -> Report {
        let Identity { process, pid, version } = Identity::current();
        let since_ms = now_ms.saturating_sub(self.since_ms);
        Report { process, pid, version, since_ms, connections, closes_after_ms: self.left_ms(now_ms) }
    }
}

/// Where this process, as an old one, is asked. The name goes with it.
#[derive(Debug)]
pub struct OldSocket {
    listener: UnixListener,
    path: PathBuf,
}

/// Asks each old process with this folder; those that are gone are forgotten. Waits: call it where that is allowed.
#[must_use]
pub fn ask_all(root: &Path, order: Order) -> Vec<Result<Report, Silent>> {
    let Ok(entries) = std::fs::read_dir(root) else { return Vec::new() };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let mut processes: Vec<String> = names
        .filter_map(|name| name.strip_prefix(PREFIX).map(str::to_owned))
        .filter(|name| is_process(name))
        .collect();
    processes.sort_unstable();
    processes.truncate(MAX_ASKED);
    let ask = |process: String| {
        let path = root.join(format!("{PREFIX}{process}"));
        let gone = |error: &io::Error| {
            matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
        };
        // It breaks off where it ends at this moment, or has something else to do: that is known when it is asked again.
        match ask(&path, order).or_else(|error| if gone(&error) { Err(error) } else { ask(&path, order) }) {
            Ok(report) => Some(Ok(report)),
            Err(error) if gone(&error) => None,
            Err(_) => Some(Err(Silent(process))),
        }
    };
    // Beside each other: one that hangs takes no more time than all of them.
    std::thread::scope(|scope| {
        let asked: Vec<_> = processes.into_iter().map(|process| scope.spawn(|| ask(process))).collect();
        asked.into_iter().filter_map(|asked| asked.join().ok().flatten()).collect()
    })
}

/// Whether this is what a process is called: nothing else is asked, or removed.
fn is_process(name: &str) -> bool {
    name.len() == 6 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Connects, unless more wait already than may: one that hangs keeps nobody waiting.
fn connect(path: &Path) -> io::Result<UnixStream> {
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.connect(&socket2::SockAddr::unix(path)?)?;
    socket.set_nonblocking(false)?;
    Ok(OwnedFd::from(socket).into())
}

fn ask(path: &Path, order: Order) -> io::Result<Report> {
    let mut stream = connect(path).inspect_err(|error| {
        if error.kind() == io::ErrorKind::ConnectionRefused {
            std::fs::remove_file(path).unwrap_or(());
        }
    })?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = serde_json::to_vec(&order)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut answer = String::new();
    BufReader::new(stream.take(MAX_LINE)).read_line(&mut answer)?;
    Ok(serde_json::from_str(&answer)?)
}

impl OldSocket {
    /// Makes this process one that can be asked.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn bind(root: &Path) -> io::Result<Self> {
        let path = root.join(format!("{PREFIX}{}", ProcessId::current()));
        // It gets its name when it listens: one that refuses connections is taken for a dead process's.
        let unnamed = path.with_added_extension("new");
        let listener = bind_private(&unnamed)?;
        std::fs::rename(&unnamed, &path)?;
        Ok(Self { listener, path })
    }

    /// Waits for the next order, and answers with what `report` then says.
    ///
    /// Whoever waits for the other side is given up where another branch is ready: an order that was cut off is asked again.
    pub async fn next(&self, mut report: impl FnMut(Order) -> Report) {
        let Ok((mut stream, _)) = self.listener.accept().await else {
            // No descriptor is left: perhaps there is one later.
            return tokio::time::sleep(PATIENCE).await;
        };
        let talk = async {
            let (read, mut write) = stream.split();
            let mut line = String::new();
            tokio::io::BufReader::new(read.take(MAX_LINE)).read_line(&mut line).await?;
            let mut answer = serde_json::to_vec(&report(serde_json::from_str(&line)?))?;
            answer.push(b'\n');
            write.write_all(&answer).await
        };
        if let Ok(Err(error)) = tokio::time::timeout(PATIENCE, talk).await {
            tracing::debug!(%error, "what this process was asked as an old one could not be answered");
        }
    }
}

impl Drop for OldSocket {
    fn drop(&mut self) {
        std::fs::remove_file(&self.path).unwrap_or(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report { process: ProcessId::current().to_string(), pid: 7, connections: 3, ..Report::default() }
    }

    /// A file that is no socket refuses a connection as a dead process's socket does.
    #[test]
    fn files_of_other_names_are_left_alone() {
        let root = tempfile::tempdir().unwrap();
        let [backup, dead] = ["toml", "0123ab"].map(|end| root.path().join(format!("{PREFIX}{end}")));
        std::fs::write(&backup, "mine").unwrap();
        drop(std::os::unix::net::UnixListener::bind(&dead).unwrap());
        assert_eq!(ask_all(root.path(), Order::Report).len(), 0);
        assert!(backup.exists() && !dead.exists());
    }

    #[test]
    fn a_stop_leaves_the_time_to_drain_and_a_second_signal_none() {
        let mut countdown = Countdown::new(1000, 0, 300);
        assert_eq!((countdown.left_ms(9000), countdown.is_stopping()), (None, false));
        // Ordered by who serves, and signalled by the service manager: that is one stop.
        countdown.obey(Order::Stop, 2000);
        countdown.signal(2100);
        countdown.obey(Order::Stop, 2200);
        assert_eq!((countdown.left_ms(2200), countdown.is_stopping()), (Some(100), true));
        countdown.signal(2250);
        assert_eq!(countdown.left_ms(2250), Some(0));
    }

    #[test]
    fn a_stop_gives_no_more_time_than_was_left() {
        let mut countdown = Countdown::new(1000, 500, 300_000);
        countdown.obey(Order::Report, 1100);
        assert!(!countdown.is_stopping());
        countdown.obey(Order::Stop, 1400);
        assert_eq!(countdown.report(1400, 7).closes_after_ms, Some(100));
        countdown.obey(Order::StopNow, 1450);
        assert_eq!(countdown.left_ms(1450), Some(0));
    }

    #[tokio::test]
    async fn orders_arrive_and_are_answered() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().to_owned();
        let socket = OldSocket::bind(&root).unwrap();
        let asked = tokio::task::spawn_blocking(move || ask_all(&root, Order::Stop));
        let mut heard = Vec::new();
        socket
            .next(|order| {
                heard.push(order);
                report()
            })
            .await;
        assert_eq!(asked.await.unwrap(), [Ok(report())]);
        assert_eq!(heard, [Order::Stop]);
    }

    #[tokio::test]
    async fn one_that_is_gone_is_forgotten_and_one_that_is_stuck_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let left_behind = folder.path().join(format!("{PREFIX}0000aa"));
        drop(std::os::unix::net::UnixListener::bind(&left_behind).unwrap());
        let socket = OldSocket::bind(folder.path()).unwrap();
        let process = ProcessId::current().to_string();
        let root = folder.path().to_owned();
        let asked = tokio::task::spawn_blocking(move || ask_all(&root, Order::Report)).await.unwrap();
        assert_eq!(asked, [Err(Silent(process))]);
        assert!(!left_behind.exists());
        drop(socket);
        assert_eq!(ask_all(folder.path(), Order::Report), []);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
