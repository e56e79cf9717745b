//! The log on standard error: text on a terminal, JSON elsewhere.

use std::borrow::Cow;
use std::io::{self, IsTerminal as _, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// `[log]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// The lowest severity that is written.
    pub level: Level,
    /// The format of a line.
    pub format: Format,
    /// Whether each request is logged, or only those that fail with a server error. A line costs more than many responses.
    pub access: bool,
}

/// Severity of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Something does not work.
    Error,
    /// Something will stop working soon.
    Warn,
    /// Events that concern the whole service.
    #[default]
    Info,
    /// Events of one connection or request.
    Debug,
    /// Everything.
    Trace,
}

/// The format of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Text on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// One JSON object per line.
    Json,
    /// Text.
    Text,
}

/// The `tracing` target of lines about requests.
pub const ACCESS: &str = "access";

impl Log {
    /// Makes this the subscriber of all `tracing` events of the process.
    ///
    /// # Panics
    /// There is a subscriber already.
    pub fn set_up(self) {
        self.set_up_with(None);
    }

    /// The same, where several processes write to one log: each line names its process.
    ///
    /// # Panics
    /// There is a subscriber already.
    pub fn set_up_as(self, process: &str) {
        self.set_up_with(Some(process.into()));
    }

    fn set_up_with(self, process: Option<Arc<str>>) {
        let access = match self.level {
            _ if self.access => "info",
            Level::Error => "error",
            _ => "warn",
        };
        let filter = tracing_subscriber::EnvFilter::new(format!("{},{ACCESS}={access}", self.level.as_str()));
        let terminal = io::stderr().is_terminal();
        let json = match self.format {
            Format::Json => true,
            Format::Auto => !terminal,
            Format::Text => false,
        };
        let builder = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(move || Lines { json, process: process.clone() })
            // A line that cannot be written (a full disk, a pipe whose reader has gone) would be reported on standard error too,
            // by a macro that panics there.
            .log_internal_errors(false)
            .with_ansi(terminal);
        if json { builder.json().init() } else { builder.init() }
    }
}

/// Standard error, a line at a time. A full pipe does not block the program: after [`ROOM_TIME`] lines are dropped and counted.
struct Lines {
    json: bool,
    /// Whose lines they are, where several write.
    process: Option<Arc<str>>,
}

/// Lines that were dropped since the last that was written.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// How long a reader may take to make room before lines are dropped.
const ROOM_TIME: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
const NO_TIME: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

impl Lines {
    /// The line with its process.
    fn named<'a>(&self, line: &'a [u8]) -> Cow<'a, [u8]> {
        let Some(process) = &self.process else { return line.into() };
        let rest = if self.json { line.strip_prefix(b"{") } else { Some(line) };
        let Some(rest) = rest else { return line.into() };
        let begin = if self.json { format!("{{\"process\":\"{process}\",") } else { format!("{process} ") };
        [begin.as_bytes(), rest].concat().into()
    }

    /// Whether there is room for a line. Where lines have been dropped, nobody waits a second time.
    fn has_room(error: &io::Stderr) -> bool {
        let time = if DROPPED.load(Ordering::Relaxed) > 0 { NO_TIME } else { ROOM_TIME };
        let mut poll = [PollFd::new(error, PollFlags::OUT)];
        let mut found = rustix::event::poll(&mut poll, Some(&time));
        while found == Err(Errno::INTR) {
            // A signal came meanwhile: it is not waited for again.
            found = rustix::event::poll(&mut poll, Some(&NO_TIME));
        }
        // What cannot be asked is written to.
        found != Ok(0)
    }
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut error = io::stderr();
        if !Self::has_room(&error) {
            DROPPED.fetch_add(1, Ordering::Relaxed);
            return Ok(line.len());
        }
        let dropped = DROPPED.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            let message = "lines of this log were dropped: nobody read them";
            let told = if self.json {
                format!(
                    "{{\"level\":\"WARN\",\"fields\":{{\"message\":\"{message}\",\"lines\":{dropped}}}}}\n"
                )
            } else {
                format!("WARN {message} lines={dropped}\n")
            };
            error.write_all(&self.named(told.as_bytes()))?;
        }
        error.write_all(&self.named(line))?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Level {
    /// The name that a `tracing` filter uses.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_its_process_where_there_are_several() {
        let check = |json, process: Option<&str>, line: &str, expect: &str| {
            let lines = Lines { json, process: process.map(Arc::from) };
            assert_eq!(lines.named(line.as_bytes()), expect.as_bytes());
        };
        check(
            true,
            Some("00f1a3"),
            "{\"level\":\"INFO\"}\n",
            "{\"process\":\"00f1a3\",\"level\":\"INFO\"}\n",
        );
        check(false, Some("00f1a3"), "INFO running\n", "00f1a3 INFO running\n");
        check(true, None, "{\"level\":\"INFO\"}\n", "{\"level\":\"INFO\"}\n");
    }
}
