//! `cargo xtask test`: every step that decides whether the tree is good, one summary at the end.
//!
//! A step that fails does not stop the later ones, unless they need what it makes. Everything is built in one
//! configuration (the dev profile, all targets of the workspace), because builds are most of the time.

mod fuzz;
mod output;
mod report;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, bail};

use crate::clock::Stopwatch;
use crate::repo::{Repo, is_ci, run as run_command};
use crate::setup::{self, Tools};
use crate::{ebpf, lint, tidy, up};
use output::{Counts, Group, Reader};
use report::{Report, Row, Verdict};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Format, clippy, tidy and unit tests only, and nothing is installed.
    #[arg(long)]
    quick: bool,
    /// How long each fuzz target runs, in seconds.
    #[arg(long, default_value_t = 60)]
    fuzz_seconds: u32,
}

/// Runs all steps, prints the summary and says whether all is good.
///
/// # Errors
/// None: a step that cannot be run has failed, and is in the summary.
pub(crate) fn run(repo: &Repo, args: &Args) -> Result<bool> {
    let watch = Stopwatch::start();
    let mut report = Report::default();
    let mut tools = if args.quick { Tools::default() } else { report.setup(repo) };
    if !args.quick {
        report.check("ebpf: what runs in the kernel", || ebpf::build(repo).map(drop));
    }
    report.check("format", || lint::format(repo));
    report.check("clippy", || lint::clippy(repo));
    report.check("tidy", || match tidy::run(repo)? {
        true => Ok(()),
        false => bail!("the findings are above"),
    });
    if args.quick {
        report.tests(repo, &tools, &["--lib", "--bins"]);
    } else if report.check("build", || build(repo, &mut tools)) {
        report.tests(repo, &tools, &[]);
        report.check("demo: the lines that `cargo xtask up` prints", || up::check(repo));
    }
    if !args.quick {
        report.check("documentation", || document(repo));
        report.fuzz(repo, args.fuzz_seconds);
    }
    print!("{}", report.render(is_ci(), watch.elapsed()));
    Ok(report.is_good(is_ci()))
}

impl Report {
    /// Runs a step without tests of its own, and says whether it passed.
    fn check(&mut self, step: &str, action: impl FnOnce() -> Result<()>) -> bool {
        eprintln!("== {step}");
        let watch = Stopwatch::start();
        let verdict = match action() {
            Ok(()) => Verdict::Passed,
            Err(error) => Verdict::Failed(format!("{error:#}")),
        };
        let passed = verdict == Verdict::Passed;
        self.add(step, verdict, &watch, Counts::default());
        passed
    }

    fn setup(&mut self, repo: &Repo) -> Tools {
        eprintln!("== setup");
        let watch = Stopwatch::start();
        let tools = setup::for_tests(repo);
        let verdict = match tools.missing.is_empty() {
            true => Verdict::Passed,
            false => Verdict::LeftOut(tools.missing.join("; ")),
        };
        self.add("setup", verdict, &watch, Counts::default());
        tools
    }

    /// `cargo test`, one row for each group of tests.
    fn tests(&mut self, repo: &Repo, tools: &Tools, which: &[&str]) {
        eprintln!("== tests");
        let watch = Stopwatch::start();
        let mut reader = Reader::default();
        let outcome = cargo_test(repo, tools, which, &mut reader);
        for group in Group::ALL {
            let counts = reader.counts(group);
            let verdict = match counts.failed {
                0 => Verdict::Passed,
                n => Verdict::Failed(format!("{n} failed, see target/xtask/tests.log")),
            };
            if counts != Counts::default() {
                self.rows.push(Row { step: group.name().into(), verdict, time: None, counts });
            }
        }
        let verdict = match outcome {
            Err(error) if reader.failures.is_empty() => Verdict::Failed(format!("{error:#}")),
            // Counted where they failed.
            _ => Verdict::Passed,
        };
        self.add("all tests above", verdict, &watch, Counts::default());
        self.failures.append(&mut reader.failures);
        self.left_out.append(&mut reader.left_out);
    }

    fn fuzz(&mut self, repo: &Repo, seconds: u32) {
        eprintln!("== fuzz");
        let watch = Stopwatch::start();
        let mut counts = Counts::default();
        let outcome = match fuzz::obstacle(repo) {
            Some(obstacle) => Ok(Verdict::LeftOut(obstacle)),
            None => fuzz::targets(repo).and_then(|targets| fuzz::run_all(repo, &targets, seconds)).map(
                |outcome| {
                    counts = outcome.counts;
                    if outcome.failures.is_empty() {
                        Verdict::Passed
                    } else {
                        Verdict::Failed(outcome.failures.join("; "))
                    }
                },
            ),
        };
        let verdict = outcome.unwrap_or_else(|error| Verdict::Failed(format!("{error:#}")));
        self.add("fuzz targets", verdict, &watch, counts);
    }

    fn add(&mut self, step: &str, verdict: Verdict, watch: &Stopwatch, counts: Counts) {
        self.rows.push(Row { step: step.into(), verdict, time: Some(watch.elapsed()), counts });
    }
}

/// Everything that tests start or are, in the one configuration that `cargo test` uses too. First programs with
/// a planted fault, which tests must find out; in the same configuration, so that only their own crates are built twice.
fn build(repo: &Repo, tools: &mut Tools) -> Result<()> {
    const PLANTED: &[(&str, &str)] = &[("mc-proxy", "MC_PLANTED_PROXY"), ("mcias", "MC_PLANTED_MCIAS")];
    let build = || {
        let mut build = repo.cargo();
        build.args(["build", "--workspace", "--all-targets"]);
        build
    };
    let features: Vec<_> =
        PLANTED.iter().map(|(program, _)| format!("{program}/planted-early-ack")).collect();
    run_command(build().args(["--features", &features.join(",")]))?;
    for (program, variable) in PLANTED {
        let planted = repo.target.join(format!("xtask/{program}-planted"));
        copy(&repo.target.join("debug").join(program), &planted)?;
        tools.env.push((variable, planted));
    }
    run_command(&mut build())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let what = || format!("cannot copy {} to {}", from.display(), to.display());
    if let Some(folder) = to.parent() {
        std::fs::create_dir_all(folder).with_context(what)?;
    }
    std::fs::copy(from, to).map(|_| ()).with_context(what)
}

fn document(repo: &Repo) -> Result<()> {
    let mut doc = repo.cargo();
    // Most of it is programs, whose readers are their developers.
    doc.args(["doc", "--workspace", "--no-deps", "--document-private-items"])
        .env("RUSTDOCFLAGS", "-D warnings");
    run_command(&mut doc)
}

fn cargo_test(repo: &Repo, tools: &Tools, which: &[&str], reader: &mut Reader) -> Result<()> {
    let logs = repo.target.join("xtask");
    std::fs::create_dir_all(&logs).with_context(|| format!("cannot make {}", logs.display()))?;
    let mut log =
        std::fs::File::create(logs.join("tests.log")).context("cannot write target/xtask/tests.log")?;
    let mut test = repo.cargo();
    test.args(["test", "--workspace", "--no-fail-fast"]).args(which).args(["--", "--show-output"]);
    test.envs(tools.env.iter().map(|(name, path)| (name, path)));
    // One pipe for both streams: cargo says on one which binary runs, the binary on the other how it went.
    let (output, input) = std::io::pipe().context("cannot make a pipe")?;
    test.stdin(Stdio::null()).stdout(input.try_clone().context("cannot share a pipe")?).stderr(input);
    let mut child = test.spawn().context("cannot start cargo test")?;
    // Holds the pipe's writing end: without it, the pipe ends when the last writer does.
    drop(test);
    for line in BufReader::new(output).split(b'\n') {
        let line = line.context("cannot read what cargo test prints")?;
        let line = String::from_utf8_lossy(&line);
        writeln!(log, "{line}").context("cannot write target/xtask/tests.log")?;
        if reader.line(&line) {
            eprintln!("{line}");
        }
    }
    let status = child.wait().context("cargo test")?;
    if !status.success() {
        bail!("cargo test failed ({status}) and no test did: see target/xtask/tests.log");
    }
    Ok(())
}
