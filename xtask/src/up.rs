//! `cargo xtask up`: builds MC-Proxy, MCIAS, MCAT and the demo site, then becomes the demo.
//!
//! The demo is a crate of its own (`xtask/demo`), built together with the rest, because it needs TLS and an async
//! runtime and this crate shall not.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::clock::{Stopwatch, words};
use crate::ebpf;
use crate::repo::{Repo, run as run_command};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Runs the printed lines itself, says whether they do what they promise, and stops.
    #[arg(long)]
    check: bool,
    /// Slower to build and faster to run: the release profile.
    #[arg(long)]
    release: bool,
}

/// Builds, then replaces this process.
///
/// # Errors
/// It does not build, or cannot be started.
pub(crate) fn run(repo: &Repo, args: &Args) -> Result<bool> {
    let profile = if args.release { "release" } else { "dev" };
    eprintln!(
        "up: building MC-Proxy, MCIAS, MCAT and the demo site ({profile} profile; minutes the first time)"
    );
    if !ebpf::is_built(repo) {
        eprintln!(
            "up: without what runs in the kernel, which the demo does not need (`cargo xtask ebpf` builds it)"
        );
    }
    let watch = Stopwatch::start();
    let mut build = repo.cargo();
    // Of the whole workspace, because a part would have other features of third-party crates than the tests' build.
    build.args(["build", "--workspace", "--profile", profile]);
    for program in ["mc-proxy", "mcproxyctl", "mcias", "mciasctl", "mcat", "mc-demo"] {
        build.args(["--bin", program]);
    }
    run_command(&mut build)?;
    eprintln!("up: built in {}", words(watch.elapsed()));
    let folder = repo.target.join(if args.release { "release" } else { "debug" });
    let mut demo = demo(repo, &folder);
    if args.check {
        demo.arg("--check");
    }
    Err(demo.exec()).context("cannot start the demo")
}

/// Checks the printed lines with what the test command has built.
///
/// # Errors
/// One does not do what it promises.
pub(crate) fn check(repo: &Repo) -> Result<()> {
    run_command(demo(repo, &repo.target.join("debug")).arg("--check"))
}

fn demo(repo: &Repo, binaries: &Path) -> Command {
    let mut demo = repo.command(binaries.join("mc-demo"));
    demo.arg("--binaries").arg(binaries).arg("--folder").arg(repo.target.join("up"));
    demo
}
