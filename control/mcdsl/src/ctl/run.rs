//! Runs a command to its end. For ctls that have not moved to [`super::main`] yet.
#![expect(clippy::print_stderr, reason = "a command line speaks to who typed it")]

use std::error::Error;
use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use crate::terminal::clean_lines;

/// Why a command failed.
pub trait Failure: Error + From<io::Error> {
    /// The exit code of the program.
    fn exit_code(&self) -> u8;

    /// The error of standard output, if that is what failed.
    fn output(&self) -> Option<&io::Error>;
}

/// Runs a command. It writes data to its argument, which is standard output; errors go to standard error.
pub fn run<E: Failure>(name: &str, command: impl AsyncFnOnce(&mut dyn Write) -> Result<(), E>) -> ExitCode {
    match block_on(command) {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of standard output has seen enough.
        Err(error) if error.output().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            // It may quote a server.
            eprintln!("{name}: {}", clean_lines(&crate::chain(&error)));
            ExitCode::from(error.exit_code())
        }
    }
}

/// Runs a command on a runtime of its own.
pub(super) fn block_on<E: From<io::Error>>(
    command: impl AsyncFnOnce(&mut dyn Write) -> Result<(), E>,
) -> Result<(), E> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut out = BufWriter::new(io::stdout().lock());
    runtime.block_on(command(&mut out))?;
    Ok(out.flush()?)
}
