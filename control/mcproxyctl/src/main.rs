//! `mcproxyctl`: operates MC-Proxy from the command line.
#![expect(clippy::print_stderr, reason = "a command line speaks to who typed it")]

mod cli;
mod commands;
mod error;
mod parse;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    mcdsl::ctl::run("mcproxyctl", async |out| commands::run(cli, out).await)
}
