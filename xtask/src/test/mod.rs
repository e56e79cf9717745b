//! `cargo xtask test`: every step that decides whether the tree is good, one summary at the end.
//!
//! A step that fails does not stop the later ones, unless they need what it makes. Every crate is compiled once, in the dev
//! profile, for clippy, tests and the programs that tests start, because compiling is most of the time.

mod build;
mod fuzz;
mod output;
mod programs;
mod report;

use anyhow::{Result, bail};

use crate::clock::Stopwatch;
use crate::repo::{Repo, is_ci};
use crate::setup::{self, Tools};
use crate::{ebpf, lint, tidy, up};
use build::Lints;
use output::{Counts, Group, Reader};
use programs::Runner;
use report::{Report, Row, Verdict};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Format, clippy, tidy and unit tests only, and nothing is installed.
    #[arg(long, conflicts_with_all = ["only", "long", "fuzz_seconds"])]
    quick: bool,
    /// The tests and fuzz targets of this system only. May be given several times.
    #[arg(long, value_name = "SYSTEM")]
    only: Vec<System>,
    /// Loops of kills, restarts and floods take as many rounds as shall be shown, and not ten or so.
    #[arg(long)]
    long: bool,
    /// For how long fuzz targets run, all of them together.
    #[arg(long, value_name = "SECONDS", default_value_t = 240)]
    fuzz_seconds: u32,
}

/// What is tested together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum System {
    McProxy,
    Mcias,
    Mcat,
    Mcdsl,
    /// What no user sees: this command, the demo, benchmarks, the test kit.
    Tools,
}

impl System {
    const ALL: [Self; 5] = [Self::McProxy, Self::Mcias, Self::Mcat, Self::Mcdsl, Self::Tools];

    /// The system that a crate belongs to.
    fn of(package: &str) -> Self {
        match package {
            "mcdsl" | "mc-api" => Self::Mcdsl,
            "xtask" | "mc-demo" | "mc-bench" | "mc-testkit" => Self::Tools,
            "mcat" => Self::Mcat,
            name if name.starts_with("mcias") => Self::Mcias,
            _ => Self::McProxy,
        }
    }
}

/// Runs all steps, prints the summary and says whether all is good.
///
/// # Errors
/// None: a step that cannot be run has failed, and is in the summary.
pub(crate) fn run(repo: &Repo, args: &Args) -> Result<bool> {
    let watch = Stopwatch::start();
    let mut report = Report::default();
    if args.quick {
        report.check("format", || lint::format(repo));
        report.check("clippy", || lint::clippy(repo));
        report.tidy(repo);
        report.tests("unit tests", || Runner { repo, env: Vec::new() }.quick());
    } else {
        let systems = if args.only.is_empty() { &System::ALL[..] } else { &args.only };
        let tools = report.setup(repo);
        if systems.contains(&System::McProxy) {
            report.check("ebpf: what runs in the kernel", || ebpf::build(repo).map(drop));
        }
        report.check("format", || lint::format(repo));
        report.tidy(repo);
        report.built(repo, args, systems, tools);
        report.fuzz(repo, systems, args.fuzz_seconds);
        report.notes.push(notes(args));
    }
    print!("{}", report.render(is_ci(), watch.elapsed()));
    Ok(report.is_good(is_ci()))
}

/// What this run was, beside the ordinary one.
fn notes(args: &Args) -> String {
    let loops = if args.long { "long loops (--long)" } else { "short loops (all rounds: --long)" };
    format!("{loops}, {} s of fuzzing over all targets (--fuzz-seconds)", args.fuzz_seconds)
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

    fn tidy(&mut self, repo: &Repo) {
        self.check("tidy", || match tidy::run(repo)? {
            true => Ok(()),
            false => bail!("the findings are above"),
        });
    }

    /// What needs the build.
    fn built(&mut self, repo: &Repo, args: &Args, systems: &[System], tools: Tools) {
        let mut programs = Vec::new();
        let mut build = |lints| {
            programs = build::all(repo, lints)?;
            Ok(())
        };
        let is_built = self.check("build, clippy and documentation", || build(Lints::Deny))
            // A finding is no reason to run no test.
            || self.check("build with findings as warnings", || build(Lints::Warn));
        if !is_built {
            return;
        }
        programs.retain(|program| systems.contains(&System::of(&program.package)));
        let mut env = tools.env;
        if args.long {
            env.push(("MC_LONG", "1".into()));
        }
        let runner = Runner { repo, env };
        self.tests("all tests above", || runner.run(&programs));
        if args.only.is_empty() {
            self.tests("all examples above", || runner.examples());
            self.check("demo: the lines that `cargo xtask up` prints", || up::check(repo));
        }
    }

    /// Tests, one row for each group, and one for the time of all.
    fn tests(&mut self, step: &str, run: impl FnOnce() -> Result<Reader>) {
        eprintln!("== tests");
        let watch = Stopwatch::start();
        let (mut reader, verdict) = match run() {
            // Counted where they failed.
            Ok(reader) => (reader, Verdict::Passed),
            Err(error) => (Reader::default(), Verdict::Failed(format!("{error:#}"))),
        };
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
        self.add(step, verdict, &watch, Counts::default());
        self.failures.append(&mut reader.failures);
        self.left_out.append(&mut reader.left_out);
        self.times.append(&mut reader.times);
    }

    fn fuzz(&mut self, repo: &Repo, systems: &[System], seconds: u32) {
        eprintln!("== fuzz");
        let watch = Stopwatch::start();
        let (counts, verdict) = match fuzz::run_all(repo, systems, seconds) {
            Ok(outcome) if outcome.failures.is_empty() => (outcome.counts, Verdict::Passed),
            Ok(outcome) => (outcome.counts, Verdict::Failed(outcome.failures.join("; "))),
            Err(error) => (Counts::default(), Verdict::Failed(format!("{error:#}"))),
        };
        self.add("fuzz targets", verdict, &watch, counts);
    }

    fn add(&mut self, step: &str, verdict: Verdict, watch: &Stopwatch, counts: Counts) {
        self.rows.push(Row { step: step.into(), verdict, time: Some(watch.elapsed()), counts });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_crate_belongs_to_a_system() {
        let check = |package, system| assert_eq!(System::of(package), system, "{package}");
        check("mc-core", System::McProxy);
        check("mcproxyctl", System::McProxy);
        check("mc-fuzz", System::McProxy);
        check("mcat", System::Mcat);
        check("mcias", System::Mcias);
        check("mcias-fuzz", System::Mcias);
        check("mc-api", System::Mcdsl);
        check("mc-testkit", System::Tools);
    }
}
