//! The project's own commands: what a developer, a stranger and CI type is `cargo xtask ...`.
//!
//! One module for each command. This crate stays light (no TLS, no async runtime), so that `cargo xtask tidy`
//! answers soon after a fresh clone; the demo site, which needs both, is its own crate beside it.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line speaks to who typed it")]

mod bench;
mod clock;
mod deploy_files;
mod doctor;
mod ebpf;
mod lint;
mod repo;
mod setup;
mod table;
mod test;
mod tidy;
mod up;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use repo::Repo;

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "The project's own commands")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Builds and runs MC-Proxy with a demo site, and prints lines to try. Ctrl-C stops it.
    Up(up::Args),
    /// Installs what tests need, then runs all of them. One summary at the end.
    Test(test::Args),
    /// Format, clippy, tidy, and cargo-deny where it is installed.
    Lint,
    /// The conventions that no compiler checks.
    Tidy,
    /// Builds what runs in the kernel, to be embedded in mc-proxy.
    Ebpf,
    /// Measures MC-Proxy beside its peers. Further arguments go to the benchmark.
    Bench(bench::Args),
    /// Renders what each service ships (units, container file, example configuration) from `deploy/templates`.
    DeployFiles,
    /// What this machine offers and lacks, and what to do.
    Doctor(doctor::Args),
}

fn main() -> ExitCode {
    let outcome = Repo::find().and_then(|repo| match Cli::parse().command {
        Command::Up(args) => up::run(&repo, &args),
        Command::Test(args) => test::run(&repo, &args),
        Command::Lint => lint::run(&repo),
        Command::Tidy => tidy::run(&repo),
        Command::Ebpf => ebpf::run(&repo),
        Command::Bench(args) => bench::run(&repo, &args),
        Command::DeployFiles => deploy_files::run(&repo),
        Command::Doctor(args) => doctor::run(&args),
    });
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
