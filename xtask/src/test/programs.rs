//! Runs the test programs, as many at once as there are processors: most of them wait for most of their time.

use std::fs::File;
use std::io::{BufRead, BufReader, PipeReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use anyhow::{Context, Result};

use super::build::{self, TestProgram};
use super::output::{Group, Reader};
use crate::clock::Stopwatch;
use crate::repo::Repo;

/// How tests are run.
pub(super) struct Runner<'a> {
    pub(super) repo: &'a Repo,
    /// Variables that say where things are, and how long loops shall be.
    pub(super) env: Vec<(&'static str, PathBuf)>,
}

/// What is said, and to whom.
struct Spoken {
    reader: Reader,
    log: File,
}

impl Runner<'_> {
    /// Runs these programs.
    ///
    /// # Errors
    /// The log cannot be written.
    pub(super) fn run(&self, programs: &[TestProgram]) -> Result<Reader> {
        let at_once = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let spoken = Mutex::new(Spoken { reader: Reader::default(), log: self.log()? });
        // Those that take longest first, so that none of them is alone at the end.
        let mut order: Vec<&TestProgram> = programs.iter().collect();
        order.sort_by_key(|program| std::cmp::Reverse(program.group as usize));
        let waiting = Mutex::new(order.into_iter());
        std::thread::scope(|scope| {
            for _ in 0..at_once {
                scope.spawn(|| {
                    let next = || waiting.lock().expect("no thread panics").next();
                    while let Some(program) = next() {
                        let watch = Stopwatch::start();
                        let said = self.one(program);
                        let mut spoken = spoken.lock().expect("no thread panics");
                        spoken.hear(program, said);
                        spoken.reader.times.push((watch.elapsed(), format!("all of {}", program.name)));
                    }
                });
            }
        });
        Ok(spoken.into_inner().expect("no thread panics").reader)
    }

    /// Examples in comments, by `cargo test`, which alone knows how.
    ///
    /// # Errors
    /// They cannot be built.
    pub(super) fn examples(&self) -> Result<Reader> {
        let mut test = self.repo.cargo();
        test.args(["test", "--doc", "--workspace", "--no-fail-fast"]);
        build::with_clippy(&mut test, self.repo, build::Lints::Deny);
        let output = test.stderr(Stdio::inherit()).output().context("cannot start cargo test")?;
        let mut reader = Reader::default();
        reader.start(Group::Doc, "examples in comments");
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            if reader.line(line) {
                eprintln!("{line}");
            }
        }
        anyhow::ensure!(
            output.status.success() || !reader.failures.is_empty(),
            "cargo test: {}",
            output.status
        );
        Ok(reader)
    }

    /// Unit tests only, as `cargo test` builds and runs them.
    ///
    /// # Errors
    /// They do not compile.
    pub(super) fn quick(&self) -> Result<Reader> {
        let (mut log, mut reader) = (self.log()?, Reader::default());
        let mut test = self.repo.cargo();
        test.args(["test", "--workspace", "--no-fail-fast", "--lib", "--bins", "--", "--show-output"]);
        // One pipe for both streams: cargo says on one which binary runs, the binary on the other how it went.
        let (output, mut child) = piped(test)?;
        for line in output.split(b'\n') {
            let line = line.context("cannot read what cargo test prints")?;
            let line = String::from_utf8_lossy(&line);
            writeln!(log, "{line}").context("cannot write target/xtask/tests.log")?;
            if reader.line(&line) {
                eprintln!("{line}");
            }
        }
        let status = child.wait().context("cargo test")?;
        anyhow::ensure!(status.success() || !reader.failures.is_empty(), "cargo test: {status}");
        Ok(reader)
    }

    fn log(&self) -> Result<File> {
        let logs = self.repo.target.join("xtask");
        std::fs::create_dir_all(&logs).with_context(|| format!("cannot make {}", logs.display()))?;
        File::create(logs.join("tests.log")).context("cannot write target/xtask/tests.log")
    }

    /// Runs a program; its lines, and whether it succeeded.
    fn one(&self, program: &TestProgram) -> Result<(Vec<String>, bool)> {
        let mut test = self.repo.command(&program.program);
        // The variable lets libtest of a stable toolchain tell how long each test took.
        test.env("RUSTC_BOOTSTRAP", "1").args(["-Zunstable-options", "--report-time", "--show-output"]);
        test.current_dir(&program.folder).env("CARGO_MANIFEST_DIR", &program.folder);
        test.envs(self.env.iter().map(|(name, value)| (name, value)));
        let (output, mut child) = piped(test)?;
        let mut lines = Vec::new();
        for line in output.split(b'\n') {
            lines
                .push(String::from_utf8_lossy(&line.context("cannot read what a test prints")?).into_owned());
        }
        Ok((lines, child.wait().context("cannot wait for a test")?.success()))
    }
}

/// Starts a program with one pipe for both streams, so that lines stand in the order in which they were written.
fn piped(mut command: Command) -> Result<(BufReader<PipeReader>, Child)> {
    let (output, input) = std::io::pipe().context("cannot make a pipe")?;
    command.stdout(input.try_clone().context("cannot share a pipe")?).stderr(input);
    let program = command.get_program().to_string_lossy().into_owned();
    // The command holds the pipe's writing end, and is dropped here: the pipe ends when the last writer does.
    let child = command.spawn().with_context(|| format!("cannot start {program}"))?;
    Ok((BufReader::new(output), child))
}

impl Spoken {
    /// Takes what a program has said.
    fn hear(&mut self, program: &TestProgram, said: Result<(Vec<String>, bool)>) {
        let (lines, is_good) = said.unwrap_or_else(|error| (vec![format!("{error:#}")], false));
        eprintln!("     Running {}", program.name);
        self.reader.start(program.group, &program.name);
        let failures = self.reader.failures.len();
        let heading = format!("     Running {}", program.name);
        for line in std::iter::once(&heading).chain(&lines) {
            // A log that cannot be written is no reason to stop.
            writeln!(self.log, "{line}").ok();
        }
        for line in &lines {
            if self.reader.line(line) {
                eprintln!("{line}");
            }
        }
        if !is_good && failures == self.reader.failures.len() {
            // It was killed, or ended before its tests did.
            self.reader.fail(format!("{} ended before its tests did", program.name));
        }
    }
}
