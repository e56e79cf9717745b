//! Hands lines from the workers to the one thread that writes them.
//!
//! The lock is held to push or take a buffer, never while anything is written.

use std::collections::VecDeque;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::{Format, Record, format};
use crate::clock;

/// Takes lines from the workers. A clone is the same log.
#[derive(Clone, Debug)]
pub struct LogSink {
    /// None where there is no log.
    shared: Option<Arc<Shared>>,
}

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Standard output.
    Stdout,
    /// A file, appended to; made with mode 0640 where it is not there.
    File(PathBuf),
}

/// The log cannot be written.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot open the access log {path}: create its directory and let the user of mc-proxy write it, or set [access_log] path"
)]
pub struct LogError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: io::Error,
}

struct Shared {
    format: Format,
    state: Mutex<State>,
    /// Something for the writer to do, or done by it.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Vec<u8>>,
    queued_bytes: usize,
    /// Empty buffers with room in them.
    spare: Vec<Vec<u8>>,
    lost: u64,
    reopen: bool,
    closing: bool,
    closed: bool,
}

/// What the writer is to do next.
struct Work {
    buffers: VecDeque<Vec<u8>>,
    lost: u64,
    reopen: bool,
    closing: bool,
}

/// The thread's own.
struct Writer<W> {
    out: W,
    /// Lines that the log itself says to be lost.
    said_lost: u64,
    /// The last write ended within a line.
    torn: bool,
    /// Writing fails, and that was said.
    failing: bool,
}

/// Bytes that wait for the disk at most: some 25,000 lines.
const MAX_QUEUED: usize = 8 << 20;

/// Empty buffers kept for reuse at most.
const MAX_SPARE: usize = 16;

/// How long the end of the process waits for the disk.
const CLOSE_WAIT: Duration = Duration::from_secs(5);

impl LogSink {
    /// Opens the log and starts the thread that writes it.
    ///
    /// # Errors
    /// [`LogError`]: the file cannot be opened.
    pub fn open(target: Target, format: Format) -> Result<Self, LogError> {
        let out = open(&target)?;
        Ok(Self::start(format, out, move || open(&target)))
    }

    /// No log: lines cost nothing and go nowhere.
    #[must_use]
    pub fn off() -> Self {
        Self { shared: None }
    }

    fn start<W: Write + Send + 'static>(
        format: Format,
        out: W,
        reopen: impl Fn() -> Result<W, LogError> + Send + 'static,
    ) -> Self {
        let shared = Arc::new(Shared { format, state: Mutex::default(), changed: Condvar::new() });
        let theirs = Arc::clone(&shared);
        let writer = Writer { out, said_lost: 0, torn: false, failing: false };
        thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || run(&theirs, writer, reopen))
            .expect("a thread can be started at the start");
        Self { shared: Some(shared) }
    }

    /// Appends the record's line to the worker's buffer.
    pub fn format(&self, record: &Record<'_>, out: &mut Vec<u8>) {
        if let Some(shared) = &self.shared {
            format::line(shared.format, record, out);
        }
    }

    /// Takes lines and gives an empty buffer in exchange. Never waits: where too much waits for the disk, the
    /// lines are dropped and counted.
    #[must_use]
    pub fn submit(&self, mut lines: Vec<u8>) -> Vec<u8> {
        let Some(shared) = &self.shared else {
            lines.clear();
            return lines;
        };
        let mut state = shared.lock();
        if state.closing || state.queued_bytes + lines.len() > MAX_QUEUED {
            state.lost += count(&lines);
            lines.clear();
            return lines;
        }
        state.queued_bytes += lines.len();
        state.queue.push_back(lines);
        let spare = state.spare.pop();
        drop(state);
        shared.changed.notify_all();
        spare.unwrap_or_default()
    }

    /// Lines that were lost since the start.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.shared.as_ref().map_or(0, |shared| shared.lock().lost)
    }

    /// Opens the file anew, after what was submitted is written: for a log that was moved away.
    pub fn reopen(&self) {
        if let Some(shared) = &self.shared {
            shared.lock().reopen = true;
            shared.changed.notify_all();
        }
    }

    /// Writes what was submitted and ends the thread; waits five seconds at most. Says whether all was written
    /// in that time. Later lines are lost.
    pub fn close(&self) -> bool {
        let Some(shared) = &self.shared else { return true };
        let mut state = shared.lock();
        state.closing = true;
        shared.changed.notify_all();
        let (state, _) = shared
            .changed
            .wait_timeout_while(state, CLOSE_WAIT, |state| !state.closed)
            .unwrap_or_else(PoisonError::into_inner);
        state.closed
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there is something to do. What is taken still counts as queued until [`Self::written`].
    fn work(&self, known_lost: u64) -> Work {
        let idle = |state: &mut State| {
            state.queue.is_empty() && !state.reopen && !state.closing && state.lost == known_lost
        };
        let mut state = self.changed.wait_while(self.lock(), idle).unwrap_or_else(PoisonError::into_inner);
        Work {
            buffers: std::mem::take(&mut state.queue),
            lost: state.lost,
            reopen: std::mem::take(&mut state.reopen),
            closing: state.closing,
        }
    }

    /// A buffer is done with.
    fn written(&self, mut buffer: Vec<u8>, lost: u64) {
        let mut state = self.lock();
        state.queued_bytes -= buffer.len();
        state.lost += lost;
        if state.spare.len() < MAX_SPARE {
            buffer.clear();
            state.spare.push(buffer);
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("format", &self.format).finish_non_exhaustive()
    }
}

/// Writes until the log is closed.
fn run<W: Write>(shared: &Shared, mut writer: Writer<W>, reopen: impl Fn() -> Result<W, LogError>) {
    let mut known_lost = 0;
    loop {
        let work = shared.work(known_lost);
        known_lost = work.lost;
        for buffer in work.buffers {
            let lost = writer.write(&buffer);
            shared.written(buffer, lost);
        }
        if work.reopen {
            match reopen() {
                Ok(out) => {
                    writer.out = out;
                    writer.torn = false;
                }
                Err(error) => tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "the access log goes on in the file it was in"
                ),
            }
        }
        writer.say_lost(shared.format, work.lost);
        if work.closing {
            shared.lock().closed = true;
            shared.changed.notify_all();
            return;
        }
    }
}

impl<W: Write> Writer<W> {
    /// Writes whole lines; says how many could not be written.
    fn write(&mut self, lines: &[u8]) -> u64 {
        let mut rest = lines;
        if self.torn {
            // Ends the half line, so that it costs no other one.
            match self.out.write_all(b"\n") {
                Ok(()) => self.torn = false,
                Err(error) => return self.failed(&error, rest),
            }
        }
        while !rest.is_empty() {
            match self.out.write(rest) {
                Ok(0) => return self.failed(&io::ErrorKind::WriteZero.into(), rest),
                Ok(written) => {
                    self.torn = rest[written - 1] != b'\n';
                    rest = &rest[written..];
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return self.failed(&error, rest),
            }
        }
        if std::mem::take(&mut self.failing) {
            tracing::info!("the access log can be written again");
        }
        0
    }

    fn failed(&mut self, error: &io::Error, rest: &[u8]) -> u64 {
        if !std::mem::replace(&mut self.failing, true) {
            tracing::error!(%error, "the access log cannot be written: lines are lost");
        }
        count(rest)
    }

    /// Notes lost lines in the log itself.
    fn say_lost(&mut self, format: Format, lost: u64) {
        let more = lost - self.said_lost;
        if more == 0 {
            return;
        }
        let mut line = Vec::new();
        format::lost(format, clock::unix_millis(), more, &mut line);
        if self.write(&line) == 0 {
            self.said_lost = lost;
        }
    }
}

fn open(target: &Target) -> Result<File, LogError> {
    match target {
        Target::Stdout => io::stdout()
            .as_fd()
            .try_clone_to_owned()
            .map(File::from)
            .map_err(|source| LogError { path: PathBuf::from("-"), source }),
        Target::File(path) => open_file(path).map_err(|source| LogError { path: path.clone(), source }),
    }
}

fn open_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

fn count(lines: &[u8]) -> u64 {
    lines.iter().map(|&byte| u64::from(byte == b'\n')).sum()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// A disk that takes a line when it is allowed to, or fails.
    struct Disk {
        may: Receiver<Result<usize, io::ErrorKind>>,
        took: Sender<Vec<u8>>,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let len = self.may.recv().unwrap_or(Ok(usize::MAX))?.min(bytes.len());
            self.took.send(bytes[..len].to_vec()).unwrap();
            Ok(len)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    type Control = (LogSink, Sender<Result<usize, io::ErrorKind>>, Receiver<Vec<u8>>);

    fn on_disk() -> Control {
        let ((allow, may), (took, taken)) = (channel(), channel());
        let sink = LogSink::start(Format::Text, Disk { may, took }, || panic!("nobody asked for it"));
        (sink, allow, taken)
    }

    /// All that the disk took until the log was closed.
    fn all((sink, allow, taken): Control) -> String {
        drop(allow);
        assert!(sink.close());
        let bytes: Vec<u8> = taken.try_iter().flatten().collect();
        String::from_utf8(bytes).unwrap()
    }

    fn submit(sink: &LogSink, lines: &str) {
        assert!(sink.submit(lines.into()).is_empty());
    }

    #[test]
    fn lines_are_written_in_order_and_buffers_come_back() {
        let (sink, allow, taken) = on_disk();
        let mut lines = Vec::with_capacity(4096);
        lines.extend_from_slice(b"one\n");
        assert!(sink.submit(lines).is_empty());
        allow.send(Ok(4)).unwrap();
        assert_eq!(taken.recv().unwrap(), b"one\n");
        while sink.shared.as_ref().unwrap().lock().spare.is_empty() {
            thread::yield_now();
        }
        let buffer = sink.submit(b"two\n".to_vec());
        assert!(buffer.is_empty() && buffer.capacity() >= 4096);
        assert_eq!(all((sink, allow, taken)), "two\n");
    }

    #[test]
    fn a_slow_disk_loses_whole_buffers_and_the_log_says_how_many_lines() {
        let control = on_disk();
        let large = "x\n".repeat(MAX_QUEUED / 8);
        for _ in 0..6 {
            submit(&control.0, &large);
        }
        let lost = 2 * (MAX_QUEUED / 8) as u64;
        assert_eq!(control.0.lost(), lost);
        let text = all(control);
        assert_eq!(text.lines().filter(|&line| line == "x").count(), 4 * MAX_QUEUED / 8);
        let last = text.lines().last().unwrap();
        assert!(last.ends_with(&format!(" lost lost_lines={lost}")), "{last}");
    }

    #[test]
    fn a_full_disk_loses_lines_and_tears_no_other_one() {
        let (sink, allow, taken) = on_disk();
        submit(&sink, "first\nsecond\nthird\n");
        allow.send(Ok(8)).unwrap();
        allow.send(Err(io::ErrorKind::StorageFull)).unwrap();
        assert_eq!(taken.recv().unwrap(), b"first\nse");
        // It tries to say so, and fails to.
        allow.send(Err(io::ErrorKind::StorageFull)).unwrap();
        while sink.lost() == 0 {
            thread::yield_now();
        }
        assert_eq!(sink.lost(), 2);
        submit(&sink, "fourth\n");
        let text = all((sink, allow, taken));
        assert!(text.starts_with("\nfourth\n") && text.ends_with(" lost lost_lines=2\n"), "{text}");
    }

    #[test]
    fn a_log_that_was_moved_away_is_opened_anew() {
        let directory = tempfile::tempdir().unwrap();
        let (path, moved) = (directory.path().join("access.log"), directory.path().join("access.log.1"));
        let sink = LogSink::open(Target::File(path.clone()), Format::Json).unwrap();
        submit(&sink, "old\n");
        fs::rename(&path, &moved).unwrap();
        sink.reopen();
        while !path.exists() {
            thread::yield_now();
        }
        submit(&sink, "new\n");
        assert!(sink.close());
        assert_eq!(
            (fs::read_to_string(moved).unwrap(), fs::read_to_string(&path).unwrap()),
            ("old\n".into(), "new\n".into())
        );
        submit(&sink, "late\n");
        assert_eq!(sink.lost(), 1);
        let again = LogSink::open(Target::File(path.clone()), Format::Json).unwrap();
        submit(&again, "more\n");
        assert!(again.close());
        assert_eq!(fs::read_to_string(&path).unwrap(), "new\nmore\n");
    }

    #[test]
    fn a_directory_that_is_not_there_is_an_error_with_a_remedy() {
        let target = Target::File("/nonexistent/access.log".into());
        let error = LogSink::open(target, Format::Json).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/access.log: create its directory"), "{error}");
    }

    #[test]
    fn no_log_costs_nothing() {
        let sink = LogSink::off();
        submit(&sink, "line\n");
        sink.reopen();
        assert!(sink.close());
        assert_eq!(sink.lost(), 0);
    }
}
