//! The log on standard error: text on a terminal, JSON elsewhere.

use std::io::IsTerminal as _;

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
        let access = match self.level {
            _ if self.access => "info",
            Level::Error => "error",
            _ => "warn",
        };
        let filter = tracing_subscriber::EnvFilter::new(format!("{},{ACCESS}={access}", self.level.as_str()));
        let terminal = std::io::stderr().is_terminal();
        let builder = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            // A line that cannot be written (a full disk, a pipe whose reader has gone) would be reported on standard error too,
            // by a macro that panics there.
            .log_internal_errors(false)
            .with_ansi(terminal);
        match self.format {
            Format::Json => builder.json().init(),
            Format::Auto if !terminal => builder.json().init(),
            Format::Text | Format::Auto => builder.init(),
        }
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
