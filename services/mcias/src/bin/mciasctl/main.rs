//! `mciasctl`: operates MCIAS from the command line, and is how a person logs in from one.
#![expect(clippy::print_stderr, reason = "a command line speaks to who typed it")]

mod cli;
mod commands;
mod error;
mod token_file;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser;
use mcdsl::terminal::clean_lines;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("mciasctl: {error}");
            return ExitCode::FAILURE;
        }
    };
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let done = runtime.block_on(commands::run(cli, &mut out));
    let done = done.and_then(|()| Ok(out.flush()?));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // Who reads our output has seen enough.
        Err(error::Error::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            let code = error.exit_code();
            // The server's words are among them.
            eprintln!("mciasctl: {}", clean_lines(&mcdsl::chain(&error)));
            ExitCode::from(code)
        }
    }
}
