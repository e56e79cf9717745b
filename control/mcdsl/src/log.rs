//! What a program says about itself: words for people on a terminal, JSON elsewhere, on standard error.

use std::io::IsTerminal as _;

use serde::{Deserialize, Serialize};

/// `[log]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// The least severe line that is written.
    pub level: Level,
    /// How a line looks.
    pub format: Format,
    /// Whether each request is told, or those alone that fail on our side. A line costs more than many an answer.
    pub access: bool,
}

/// Severity of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Something does not work.
    Error,
    /// Something will not work for long.
    Warn,
    /// What happens to the whole.
    #[default]
    Info,
    /// What happens to one connection or request.
    Debug,
    /// Everything.
    Trace,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Text on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// One JSON object.
    Json,
    /// Words.
    Text,
}

/// The target of a line about a request.
pub const ACCESS: &str = "access";

impl Log {
    /// Has everything that `tracing` is told written so, from now on.
    ///
    /// # Panics
    /// It was set up before.
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
            .with_ansi(terminal);
        match self.format {
            Format::Json => builder.json().init(),
            Format::Auto if !terminal => builder.json().init(),
            Format::Text | Format::Auto => builder.init(),
        }
    }
}

impl Level {
    /// Its word, as the `tracing` filter knows it.
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
