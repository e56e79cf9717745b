//! `mciasctl`: operates MCIAS from the command line, and is how a person logs in from one.
#![expect(clippy::print_stderr, reason = "a command line speaks to who typed it")]

mod cli;
mod commands;
mod error;
mod token_file;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    mcdsl::terminal::run("mciasctl", async |out| commands::run(cli, out).await)
}
