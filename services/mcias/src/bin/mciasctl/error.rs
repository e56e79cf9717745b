//! Why a command failed, and with which code it exits.

use std::path::PathBuf;

use mc_api::mcias::client::ConnectError;
use mcdsl::problem::Received;
use mcdsl::terminal::Failure;
use tonic::{Code, Status};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// MCIAS is not there.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// MCIAS refused; its message says what and why.
    #[error("{}", words(.0))]
    Refused(Status),
    /// Arguments that do not go together, or values that are none.
    #[error("{0}")]
    Usage(String),
    /// A file.
    #[error("{what} {path}")]
    File {
        /// What cannot be done, and what to do.
        what: &'static str,
        /// With which.
        path: PathBuf,
        /// The system's word.
        #[source]
        source: std::io::Error,
    },
    /// Others can read the token.
    #[error("{0} can be read by others: `chmod 600` it, and log in again")]
    Exposed(PathBuf),
    /// The audit log is broken.
    #[error("the audit log is not intact: {0}")]
    Broken(String),
    /// Somebody said no.
    #[error("nothing was done")]
    No,
    /// The terminal.
    #[error(transparent)]
    Terminal(std::io::Error),
    /// Standard output.
    #[error("cannot write to standard output")]
    Output(#[from] std::io::Error),
}

/// What the server says, with the field that it is about.
fn words(status: &Status) -> String {
    let field = Received::of(status).field;
    field.map_or_else(|| status.message().to_owned(), |field| format!("{field}: {}", status.message()))
}

// Not a source: its own `Display` would say the message a second time.
impl From<Status> for Error {
    fn from(status: Status) -> Self {
        Self::Refused(status)
    }
}

impl Failure for Error {
    /// See the help of the command.
    fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Connect(ConnectError::File(..) | ConnectError::NotHttps(_)) => 2,
            Self::Connect(_) => 3,
            Self::Exposed(_) => 4,
            Self::Broken(_) => 5,
            Self::Refused(status) => match status.code() {
                Code::Unauthenticated => 4,
                Code::Aborted | Code::AlreadyExists | Code::FailedPrecondition => 6,
                Code::NotFound => 7,
                // It went away in the middle of the call; what it says itself has no source here.
                Code::Unavailable if std::error::Error::source(status).is_some() => 3,
                _ => 1,
            },
            Self::File { .. } | Self::No | Self::Terminal(_) | Self::Output(_) => 1,
        }
    }

    fn output(&self) -> Option<&std::io::Error> {
        if let Self::Output(error) = self { Some(error) } else { None }
    }
}

impl Error {
    /// Whether MCIAS gave this reason.
    pub(crate) fn has_reason(&self, reason: &str) -> bool {
        matches!(self, Self::Refused(status) if Received::of(status).reason == reason)
    }
}
