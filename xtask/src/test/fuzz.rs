//! Runs every fuzz target for a while, as many at once as there are processors.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result};

use super::output::Counts;
use crate::repo::{FUZZ_FOLDERS, Repo, read, run};

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) counts: Counts,
    /// Targets that found something, with where to look.
    pub(super) failures: Vec<String>,
}

/// A fuzz target. No two have the same name.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// The fuzz crate's folder.
    folder: &'static str,
    name: String,
}

/// The targets, from the fuzz crates' manifests.
///
/// # Errors
/// One cannot be read, or names none.
pub(super) fn targets(repo: &Repo) -> Result<Vec<Target>> {
    let mut targets = Vec::new();
    for folder in FUZZ_FOLDERS {
        let manifest = repo.root.join(folder).join("Cargo.toml");
        let text = std::fs::read_to_string(&manifest)
            .with_context(|| format!("cannot read {}", manifest.display()))?;
        let names = target_names(&text)?;
        anyhow::ensure!(!names.is_empty(), "{} names no [[bin]]", manifest.display());
        targets.extend(names.into_iter().map(|name| Target { folder, name }));
    }
    Ok(targets)
}

/// Why fuzzing cannot be done here, with the remedy.
pub(super) fn obstacle(repo: &Repo) -> Option<String> {
    if read(repo.nightly_cargo().arg("--version")).is_err() {
        return Some(
            "needs the nightly toolchain: rustup toolchain install nightly --profile minimal".into(),
        );
    }
    read(fuzz(repo).arg("--version")).err().map(|_| "needs cargo-fuzz: cargo install cargo-fuzz".into())
}

/// Builds all targets, then runs each for `seconds`.
///
/// # Errors
/// They do not build.
pub(super) fn run_all(repo: &Repo, targets: &[Target], seconds: u32) -> Result<Outcome> {
    for folder in FUZZ_FOLDERS {
        run(fuzz(repo).arg("build").args(in_folder(folder)))?;
    }
    let logs = repo.target.join("xtask");
    std::fs::create_dir_all(&logs).with_context(|| format!("cannot make {}", logs.display()))?;
    let at_once = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut outcome = Outcome::default();
    for batch in targets.chunks(at_once) {
        let names: Vec<&str> = batch.iter().map(|target| target.name.as_str()).collect();
        eprintln!("fuzz: {} for {seconds} s", names.join(", "));
        let results: Vec<Result<()>> = std::thread::scope(|scope| {
            let logs = &logs;
            let start = |target: &'_ Target| {
                let target = target.clone();
                scope.spawn(move || one(repo, &target, seconds, logs))
            };
            let running: Vec<_> = batch.iter().map(start).collect();
            running.into_iter().map(|thread| thread.join().expect("a fuzz thread does not panic")).collect()
        });
        for result in results {
            match result {
                Ok(()) => outcome.counts.passed += 1,
                Err(error) => {
                    outcome.counts.failed += 1;
                    outcome.failures.push(format!("{error:#}"));
                }
            }
        }
    }
    Ok(outcome)
}

fn one(repo: &Repo, target: &Target, seconds: u32, logs: &Path) -> Result<()> {
    let Target { folder, name: target } = target;
    let log = logs.join(format!("fuzz-{target}.log"));
    let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut command = fuzz(repo);
    command.arg("run").args(in_folder(folder)).arg(target);
    // What fuzzing found interesting is kept in the first folder; seeds are only read.
    let seeds = repo.root.join(folder).join("seeds").join(target);
    if seeds.is_dir() {
        let corpus = repo.root.join(folder).join("corpus").join(target);
        std::fs::create_dir_all(&corpus).with_context(|| format!("cannot make {}", corpus.display()))?;
        command.arg(corpus).arg(seeds);
    }
    command.args([
        "--",
        &format!("-max_total_time={seconds}"),
        "-max_len=4096",
        "-timeout=10",
        "-print_final_stats=1",
    ]);
    command.stdout(file.try_clone().context("cannot share the log")?).stderr(file);
    let status = command.status().context("cannot start cargo fuzz")?;
    if !status.success() {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let tail: Vec<&str> = text.lines().rev().take(30).collect();
        eprintln!("fuzz: {target}:\n{}", tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
        anyhow::bail!("fuzz target {target}: {status}, see {}", log.display());
    }
    Ok(())
}

fn fuzz(repo: &Repo) -> std::process::Command {
    let mut command = repo.nightly_cargo();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(repo.tools().join("bin")).chain(std::env::split_paths(&path));
    if let Ok(path) = std::env::join_paths(folders) {
        command.env("PATH", path);
    }
    command.arg("fuzz");
    command
}

fn target_names(manifest: &str) -> Result<Vec<String>> {
    #[derive(serde::Deserialize)]
    struct Manifest {
        #[serde(default)]
        bin: Vec<Bin>,
    }
    #[derive(serde::Deserialize)]
    struct Bin {
        name: String,
    }
    let manifest: Manifest = toml::from_str(manifest).context("the fuzz crate's manifest")?;
    Ok(manifest.bin.into_iter().map(|bin| bin.name).collect())
}

/// There is no unsafe code in what is fuzzed: without a sanitizer a minute sees several times as much.
const fn in_folder(folder: &str) -> [&str; 4] {
    ["--fuzz-dir", folder, "--sanitizer", "none"]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_the_manifests_binaries() {
        let check = |text, expect: &[&str]| assert_eq!(target_names(text).unwrap(), expect);
        check(
            "[package]\nname = 'f'\n[[bin]]\nname = 'hello'\npath = 'x'\n[[bin]]\nname = 'proxy'\n",
            &["hello", "proxy"],
        );
        check("[package]\nname = 'f'\n", &[]);
        assert!(target_names("[[bin]").is_err());
    }
}
