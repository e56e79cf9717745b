//! Runs the fuzz targets by turns, as many at once as there are processors, until the time for all of them is over.
//!
//! No cargo-fuzz and no nightly compiler: what they would add where no sanitizer is used is a handful of flags, which the
//! compiler wrapper `xtask/fuzz-rustc` adds to the crates that are fuzzed. All others are taken from the tests' build.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result};

use super::System;
use super::output::Counts;
use crate::repo::{Repo, run};

/// The crates of fuzz targets, by system and name. Each has a folder of seeds for each of its targets.
const CRATES: &[(System, &str, &str)] =
    &[(System::McProxy, "dataplane/fuzz", "mc-fuzz"), (System::Mcias, "services/mcias/fuzz", "mcias-fuzz")];

/// Longest input in bytes.
const MAX_LEN: u32 = 4096;

/// Longest time for one input in seconds: what takes so long takes as long on every machine.
const TIMEOUT_S: u32 = 60;

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) counts: Counts,
    /// Targets that found something, with where to look.
    pub(super) failures: Vec<String>,
}

/// A fuzz target. No two have the same name.
#[derive(Clone, Debug)]
struct Target {
    name: String,
    seeds: PathBuf,
    program: PathBuf,
}

/// Builds the targets of these systems, then runs them for `seconds` in all.
///
/// # Errors
/// They do not build.
pub(super) fn run_all(repo: &Repo, systems: &[System], seconds: u32) -> Result<Outcome> {
    let crates: Vec<_> = CRATES.iter().filter(|(system, ..)| systems.contains(system)).collect();
    let mut targets = Vec::new();
    for (_, folder, program) in &crates {
        let seeds = repo.root.join(folder).join("seeds");
        for name in names(&seeds)? {
            let program = repo.target.join("debug").join(program);
            targets.push(Target { seeds: seeds.join(&name), name, program });
        }
    }
    if targets.is_empty() {
        return Ok(Outcome::default());
    }
    build(repo)?;
    let at_once = std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(targets.len());
    let each = share(seconds, targets.len(), at_once);
    eprintln!("fuzz: {} targets, {at_once} at a time, {} s each", targets.len(), each.as_secs());
    let (waiting, outcome) = (Mutex::new(targets.into_iter()), Mutex::new(Outcome::default()));
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                let next = || waiting.lock().expect("no thread panics").next();
                while let Some(target) = next() {
                    let result = one(repo, &target, each);
                    let mut outcome = outcome.lock().expect("no thread panics");
                    match result {
                        Ok(()) => outcome.counts.passed += 1,
                        Err(error) => {
                            outcome.counts.failed += 1;
                            outcome.failures.push(format!("{error:#}"));
                        }
                    }
                }
            });
        }
    });
    Ok(outcome.into_inner().expect("no thread panics"))
}

/// All of them, of whichever system: they are built in the tests' configuration, which is the whole workspace's.
fn build(repo: &Repo) -> Result<()> {
    let mut build = repo.cargo();
    build.env("RUSTC_WORKSPACE_WRAPPER", repo.root.join("xtask/fuzz-rustc"));
    build.args(["build", "--workspace"]);
    for (_, _, name) in CRATES {
        build.args(["--features", &format!("{name}/engine"), "--bin", name]);
    }
    run(&mut build)
}

fn names(seeds: &Path) -> Result<Vec<String>> {
    let what = || format!("cannot read {}", seeds.display());
    let mut names = Vec::new();
    for entry in seeds.read_dir().with_context(what)? {
        names.push(entry.with_context(what)?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// The time for each of so many targets, of which some run at once.
fn share(seconds: u32, targets: usize, at_once: usize) -> Duration {
    let turns = targets.div_ceil(at_once);
    let turns = u32::try_from(turns).expect("there are few targets");
    Duration::from_secs(u64::from((seconds / turns).max(1)))
}

fn one(repo: &Repo, target: &Target, time: Duration) -> Result<()> {
    let folder = repo.target.join("fuzz");
    // What was found interesting is kept in the first folder, and is where the next run begins; seeds are only read.
    let corpus = folder.join("corpus").join(&target.name);
    let artifacts = folder.join("artifacts").join(&target.name);
    for folder in [&corpus, &artifacts] {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let log = folder.join(format!("{}.log", target.name));
    let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut command = repo.command(&target.program);
    command.env("MC_FUZZ_TARGET", &target.name).arg(corpus).arg(&target.seeds).args([
        format!("-max_total_time={}", time.as_secs()),
        format!("-max_len={MAX_LEN}"),
        format!("-timeout={TIMEOUT_S}"),
        format!("-artifact_prefix={}/", artifacts.display()),
        "-print_final_stats=1".into(),
    ]);
    command.stdout(file.try_clone().context("cannot share the log")?).stderr(file);
    let status = command.status().with_context(|| format!("cannot start {}", target.program.display()))?;
    if !status.success() {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let tail: Vec<&str> = text.lines().rev().take(30).collect();
        eprintln!("fuzz: {}:\n{}", target.name, tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
        anyhow::bail!("fuzz target {}: {status}, see {}", target.name, log.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_for_all_targets_together() {
        let check = |seconds, targets, at_once, expect| {
            assert_eq!(share(seconds, targets, at_once), Duration::from_secs(expect));
        };
        check(240, 12, 2, 40);
        check(240, 12, 1, 20);
        check(240, 13, 2, 34);
        check(3, 12, 2, 1);
    }

    #[test]
    fn targets_are_the_folders_of_seeds() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("dataplane/fuzz/seeds");
        assert_eq!(names(&folder).unwrap(), ["admin_validation", "client_hello", "http1", "proxy_protocol"]);
        assert!(names(Path::new("/no/such/folder")).is_err());
    }
}
