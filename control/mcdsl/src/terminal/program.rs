//! What `main` of every operator's command line does.
#![expect(clippy::print_stderr, reason = "a command line speaks to who typed it")]

use std::error::Error;
use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use super::clean_lines;

/// Why a command failed.
pub trait Failure: Error + From<io::Error> {
    /// With which code the program exits: see its help.
    fn exit_code(&self) -> u8;

    /// What standard output says, where that is what failed.
    fn output(&self) -> Option<&io::Error>;
}

/// Runs a command to its end: data goes to what it is given, which is standard output, and what went wrong to standard error, after
/// the program's name.
pub fn run<E: Failure>(name: &str, command: impl AsyncFnOnce(&mut dyn Write) -> Result<(), E>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("{name}: {error}");
            return ExitCode::FAILURE;
        }
    };
    let mut out = BufWriter::new(io::stdout().lock());
    let done = runtime.block_on(command(&mut out));
    match done.and_then(|()| Ok(out.flush()?)) {
        Ok(()) => ExitCode::SUCCESS,
        // Who reads our output has seen enough.
        Err(error) if error.output().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            // A server's words are among them.
            eprintln!("{name}: {}", clean_lines(&crate::chain(&error)));
            ExitCode::from(error.exit_code())
        }
    }
}
