//! Why a command failed: for a person, for a program (JSON), and as an exit code.

use std::error::Error as StdError;
use std::fmt::Write as _;
use std::io;
use std::path::Path;

use mc_api::client::ConnectError;
use serde_json::{Value, json};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::output::json_text;
use super::{Output, Program};
use crate::terminal::clean_lines;

/// The exit codes of every ctl.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The command is done.
    Done = 0,
    /// The command failed, and no other code fits.
    Failed = 1,
    /// The command line, a file that it names or another input is invalid, whether the command or the server found it.
    Usage = 2,
    /// There is no connection to the server.
    Unreachable = 3,
    /// Something that was named does not exist.
    NotFound = 4,
    /// The user is not logged in, or has no permission.
    NotPermitted = 5,
    /// The change is based on an old state, or the new name is taken.
    Conflict = 6,
    /// A verification found an error.
    Unsound = 7,
}

impl Exit {
    /// Each code, its reason in JSON, and its line in `--help`. This is the one table of exit codes.
    const TABLE: [(Self, &'static str, &'static str); 8] = [
        (Self::Done, "done", "done"),
        (Self::Failed, "failed", "failed, or refused by the server"),
        (Self::Usage, "usage", "invalid input: the command line, a file that it names, or standard input"),
        (Self::Unreachable, "unreachable", "cannot connect to the server"),
        (Self::NotFound, "not-found", "not found"),
        (Self::NotPermitted, "not-permitted", "not logged in, or not permitted"),
        (Self::Conflict, "conflict", "conflict: it changed meanwhile, or it exists"),
        (Self::Unsound, "unsound", "verification failed: the data is not intact"),
    ];

    fn reason(self) -> &'static str {
        Self::TABLE[self as usize].1
    }

    /// The table, as `--help` prints it.
    pub(super) fn help() -> String {
        Self::TABLE.iter().fold("Exit codes:\n".to_owned(), |mut text, (exit, _, help)| {
            writeln!(text, "  {}  {help}", *exit as u8).expect("writing to a String cannot fail");
            text
        })
    }
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.message())]
pub struct Error {
    exit: Exit,
    /// A word for programs: the server's, or that of the exit code.
    reason: String,
    detail: String,
    /// The field that the server complains about.
    field: Option<String>,
    /// What the command line calls the field.
    option: Option<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error that says what happened, to what, and what to do.
    #[must_use]
    pub fn new(exit: Exit, detail: impl Into<String>) -> Self {
        let reason = exit.reason().to_owned();
        Self { exit, reason, detail: detail.into(), field: None, option: None, source: None }
    }

    /// There is no token.
    pub(super) fn not_logged_in() -> Self {
        Self { reason: UNAUTHENTICATED.to_owned(), ..Self::new(Exit::NotPermitted, "Not logged in") }
    }

    /// The command line, or a file that it names, is wrong.
    #[must_use]
    pub fn usage(detail: impl Into<String>) -> Self {
        Self::new(Exit::Usage, detail)
    }

    /// A file cannot be read or written.
    #[must_use]
    pub fn file(what: &str, path: &Path, source: io::Error) -> Self {
        let source = Some(source.into());
        Self { source, ..Self::new(Exit::Failed, format!("Cannot {what} {}", path.display())) }
    }

    /// A file with the CA cannot be used.
    pub(super) fn unusable_ca(file: &Path, source: io::Error) -> Self {
        ConnectError::File(file.to_owned(), source).into()
    }

    /// A question could not be asked, or was not answered: what was called without a terminal needs an option, or more on
    /// standard input.
    #[must_use]
    #[expect(clippy::needless_pass_by_value, reason = "for map_err")]
    pub fn prompt(error: io::Error) -> Self {
        Self::usage(error.to_string())
    }

    /// The exit code.
    #[must_use]
    pub const fn exit(&self) -> Exit {
        self.exit
    }

    /// A word for programs: `second-factor-required`.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// The same with what this command line calls the field.
    pub(super) fn for_program(mut self, program: &Program) -> Self {
        self.option = self.field.as_deref().map(|field| program.option_of(field).to_owned());
        self
    }

    /// There is a server, and it does not know the call: it is at its REST address, or older than this program.
    fn not_grpc(message: &str) -> Self {
        let detail = "The server does not answer this call: --server must be its gRPC address (port 9443 by default, not that of \
             REST and pages), and it must not be older than this program";
        Self { source: Some(message.into()), ..Self::new(Exit::Failed, detail) }
    }

    /// Whether the reader of standard output has closed it: it has seen enough.
    pub(super) fn is_broken_pipe(&self) -> bool {
        let source = self.source.as_deref().and_then(|source| source.downcast_ref::<io::Error>());
        source.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    }

    fn message(&self) -> String {
        let field = self.option.as_ref().or(self.field.as_ref());
        field.map_or_else(|| self.detail.clone(), |field| format!("{field}: {}", self.detail))
    }

    /// What standard error says about it.
    pub(super) fn report(&self, program: &str, form: Output) -> String {
        if form == Output::Json {
            return json_text(&self.json().to_string());
        }
        let hint = match self.reason.as_str() {
            UNAUTHENTICATED => format!("\nLog in with `{program} login USERNAME`."),
            "fresh-login-required" => {
                format!("\nLog in again with `{program} login USERNAME`, then repeat the command.")
            }
            _ => String::new(),
        };
        // It may quote a server.
        clean_lines(&format!("{program}: {}{hint}", crate::chain(self)))
    }

    fn json(&self) -> Value {
        let source = self.source.as_deref().map(|source| crate::chain(source as &dyn StdError));
        let detail =
            source.map_or_else(|| self.detail.clone(), |source| format!("{}: {source}", self.detail));
        let mut json = json!({ "reason": self.reason, "detail": detail, "exit_code": self.exit as u8 });
        if let Some(field) = &self.field {
            json["field"] = field.as_str().into();
        }
        json
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        let exit = match status.code() {
            Code::Unauthenticated | Code::PermissionDenied => Exit::NotPermitted,
            Code::NotFound => Exit::NotFound,
            Code::Aborted | Code::AlreadyExists => Exit::Conflict,
            Code::InvalidArgument | Code::OutOfRange => Exit::Usage,
            // The connection broke during the call. A server that says so itself leaves no source here.
            Code::Unavailable if StdError::source(&status).is_some() => Exit::Unreachable,
            _ => Exit::Failed,
        };
        let details = status.get_error_details();
        let reason = details.error_info().map(|info| info.reason.clone());
        let violation = details.bad_request().and_then(|request| request.field_violations.first());
        let error = if status.code() == Code::Unimplemented && reason.is_none() {
            Self::not_grpc(status.message())
        } else {
            Self::new(exit, status.message())
        };
        let field = violation.map(|violation| violation.field.clone());
        Self { reason: reason.unwrap_or(error.reason), field, ..error }
    }
}

impl From<ConnectError> for Error {
    fn from(error: ConnectError) -> Self {
        let exit = match error {
            ConnectError::File(..) | ConnectError::NotHttps(_) => Exit::Usage,
            ConnectError::Transport(..) => Exit::Unreachable,
        };
        let detail = error.to_string();
        let source = match error {
            ConnectError::File(_, source) => Some(source.into()),
            ConnectError::Transport(_, source) => Some(source.into()),
            ConnectError::NotHttps(_) => None,
        };
        Self { source, ..Self::new(exit, detail) }
    }
}

/// Standard output failed.
impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self { source: Some(error.into()), ..Self::new(Exit::Failed, "Cannot write to standard output") }
    }
}

/// The reason of errors that a login cures.
const UNAUTHENTICATED: &str = "unauthenticated";

#[cfg(test)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_codes() {
        for (code, (exit, reason, _)) in Exit::TABLE.iter().enumerate() {
            assert_eq!(*exit as usize, code);
            assert_eq!(exit.reason(), *reason);
        }
    }

    #[test]
    fn every_error_has_its_exit_code() {
        let check = |error: Error, code: u8| assert_eq!(error.exit() as u8, code, "{error}");
        check(Status::invalid_argument("x").into(), 2);
        check(Status::failed_precondition("x").into(), 1);
        check(Status::unavailable("the server says so").into(), 1);
        check(Error::usage("x"), 2);
        check(ConnectError::NotHttps("x".into()).into(), 2);
        check(Status::from_error(Box::new(io::Error::from(io::ErrorKind::ConnectionReset))).into(), 1);
        check(Status::not_found("x").into(), 4);
        check(Status::unauthenticated("x").into(), 5);
        check(Status::permission_denied("x").into(), 5);
        check(Status::aborted("x").into(), 6);
        check(Status::already_exists("x").into(), 6);
    }

    #[test]
    fn an_error_is_a_line_for_people_or_json_for_programs() {
        let mut details = ErrorDetails::with_error_info("exists", "metacircular", []);
        details.add_bad_request_violation("name", "There is an account `mcr`");
        let status = Status::with_error_details(Code::AlreadyExists, "There is an account `mcr`", details);
        let error = Error::from(status);
        assert_eq!(error.report("mciasctl", Output::Table), "mciasctl: name: There is an account `mcr`");
        let json: Value = serde_json::from_str(&error.report("mciasctl", Output::Json)).unwrap();
        let expect = json!({
            "reason": "exists", "detail": "There is an account `mcr`", "field": "name", "exit_code": 6
        });
        assert_eq!(json, expect);
    }

    #[test]
    fn a_field_has_the_name_that_the_command_line_has() {
        let program = Program {
            name: "mciasctl",
            service: "mcias",
            version: "1",
            about: "",
            fields: &[("lifetime_seconds", "--lifetime")],
            examples: "",
            default_server: "",
        };
        let check = |field: &str, expect: &str| {
            let mut details = ErrorDetails::with_error_info("invalid-field", "metacircular", []);
            details.add_bad_request_violation(field, "no");
            let error = Error::from(Status::with_error_details(Code::InvalidArgument, "no", details));
            let error = error.for_program(&program);
            assert_eq!(error.report("mciasctl", Output::Table), format!("mciasctl: {expect}: no"));
            assert_eq!(error.json()["field"], field);
        };
        check("lifetime_seconds", "--lifetime");
        check("after_hash", "--from-checkpoint");
        check("rules[0].name", "rules[0].name");
    }

    #[test]
    fn a_server_that_does_not_know_the_call_may_be_at_another_port() {
        let text =
            Error::from(Status::unimplemented("There is nothing at this path.")).report("ctl", Output::Table);
        assert!(text.contains("9443") && text.ends_with(": There is nothing at this path."), "{text}");
    }

    #[test]
    fn the_cause_is_in_both_forms_and_is_escaped() {
        let error = Error::file("read", Path::new("/a"), io::Error::other("no\x1b[2J"));
        assert_eq!(error.report("ctl", Output::Table), "ctl: Cannot read /a: no\\u{1b}[2J");
        let text = error.report("ctl", Output::Json);
        assert!(!text.contains('\x1b'), "{text:?}");
        let json: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            json,
            json!({ "reason": "failed", "detail": "Cannot read /a: no\x1b[2J", "exit_code": 1 })
        );
    }

    #[test]
    fn errors_that_a_login_cures_name_the_command() {
        let details = ErrorDetails::with_error_info(UNAUTHENTICATED, "metacircular", []);
        let status = Status::with_error_details(Code::Unauthenticated, "The session has ended", details);
        let text = Error::from(status).report("mciasctl", Output::Table);
        assert_eq!(text, "mciasctl: The session has ended\nLog in with `mciasctl login USERNAME`.");
    }
}
