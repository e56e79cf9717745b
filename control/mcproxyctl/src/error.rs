//! Why a command failed, and with which code it exits.

use mc_api::mcproxy::client::ConnectError;
use mcdsl::ctl::Failure;
use tonic::{Code, Status};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The proxy is not there.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The proxy refused; its message says what and why.
    #[error("{}", .0.message())]
    Refused(Status),
    /// Arguments that do not go together.
    #[error("{0}")]
    Usage(String),
    /// No such thing.
    #[error("{0}")]
    NotFound(String),
    /// There is one, and it is not to be replaced.
    #[error("{0}")]
    Exists(String),
    /// The answer to a question was no.
    #[error("nothing was changed")]
    Declined,
    /// Certificate files that cannot be used, each with the reason.
    #[error("{} certificate file{} cannot be used:\n  {}", .0.len(), if .0.len() == 1 { "" } else { "s" }, .0.join("\n  "))]
    Broken(Vec<String>),
    /// A file or the terminal.
    #[error(transparent)]
    Other(#[from] anyhow::Error),
    /// Standard output.
    #[error("cannot write to standard output")]
    Output(#[from] std::io::Error),
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
            Self::Usage(_) => 2,
            Self::Connect(_) => 3,
            Self::NotFound(_) => 4,
            Self::Refused(status) => match status.code() {
                Code::NotFound => 4,
                Code::Aborted | Code::AlreadyExists => 5,
                // The proxy went away in the middle of the call; what it says itself has no source here.
                Code::Unavailable if std::error::Error::source(status).is_some() => 3,
                _ => 1,
            },
            Self::Exists(_) => 5,
            Self::Broken(_) | Self::Declined | Self::Other(_) | Self::Output(_) => 1,
        }
    }

    fn output(&self) -> Option<&std::io::Error> {
        if let Self::Output(error) = self { Some(error) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_those_of_the_help() {
        let check = |error: Error, code| assert_eq!(error.exit_code(), code, "{error}");
        check(Status::invalid_argument("x").into(), 1);
        check(Error::Usage("x".into()), 2);
        check(ConnectError::NoSocket("x".into()).into(), 3);
        check(Status::not_found("x").into(), 4);
        check(Status::aborted("x").into(), 5);
        check(Error::Exists("x".into()), 5);
        check(Error::Declined, 1);
    }
}
