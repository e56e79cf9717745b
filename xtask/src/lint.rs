//! `cargo xtask lint`: what can be seen to be wrong without running anything.

use anyhow::Result;

use crate::repo::{Repo, on_path, run as run_command};
use crate::tidy;

/// Runs every check, also after one has failed, and says whether all passed.
///
/// # Errors
/// None: what goes wrong is printed, and the next check is run.
pub(crate) fn run(repo: &Repo) -> Result<bool> {
    let mut good = true;
    let mut check = |name: &str, outcome: Result<bool>| {
        good &= outcome.unwrap_or_else(|error| {
            eprintln!("lint: {name}: {error:#}");
            false
        });
    };
    check("format", format(repo).map(|()| true));
    check("clippy", clippy(repo).map(|()| true));
    check("tidy", tidy::run(repo));
    if on_path("cargo-deny") {
        check("cargo-deny", deny(repo).map(|()| true));
    } else {
        eprintln!(
            "lint: without cargo-deny, tidy has judged licences, bans and duplicates, and nobody advisories"
        );
    }
    Ok(good)
}

/// Formatting.
///
/// # Errors
/// Something is not formatted.
pub(crate) fn format(repo: &Repo) -> Result<()> {
    run_command(repo.cargo().args(["fmt", "--all", "--check"]))?;
    // A workspace of its own, for another toolchain; it looks like the rest.
    run_command(repo.cargo().args(["fmt", "--manifest-path", "ebpf/programs/Cargo.toml", "--check"]))
}

/// Lints, warnings as errors.
///
/// # Errors
/// There is one.
pub(crate) fn clippy(repo: &Repo) -> Result<()> {
    run_command(repo.cargo().args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))
}

fn deny(repo: &Repo) -> Result<()> {
    run_command(repo.cargo().args(["deny", "check", "bans", "licenses", "sources"]))?;
    // Advisories need their database: judged where it was fetched before.
    let advisories = run_command(repo.cargo().args(["deny", "check", "--disable-fetch", "advisories"]));
    if let Err(error) = advisories {
        eprintln!("lint: advisories: {error:#} (fetch their database with `cargo deny fetch`)");
    }
    Ok(())
}
