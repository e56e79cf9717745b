//! The working tree, and how programs are started in it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Where things are.
pub(crate) struct Repo {
    /// Top of the working tree.
    pub(crate) root: PathBuf,
    /// What cargo builds into.
    pub(crate) target: PathBuf,
}

impl Repo {
    /// Finds the working tree that this command was started from.
    pub(crate) fn find() -> Result<Self> {
        // Set by `cargo run`; the path compiled in is right too unless the tree was moved since.
        let manifest = std::env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = manifest.parent().context("xtask lies in the workspace")?.to_owned();
        let target = match std::env::var_os("CARGO_TARGET_DIR") {
            Some(target) => root.join(target),
            None => root.join("target"),
        };
        Ok(Self { root, target })
    }

    /// Where tools and data that tests need are installed: a folder in `target`, so that nothing outside
    /// the tree changes. It is the same for every target directory.
    pub(crate) fn tools(&self) -> PathBuf {
        self.target.join("tools")
    }

    /// `cargo` of the toolchain that runs this.
    pub(crate) fn cargo(&self) -> Command {
        self.cargo_at("cargo")
    }

    /// This very `cargo`.
    pub(crate) fn cargo_at(&self, program: &str) -> Command {
        let mut command = self.command(program);
        // `cargo run` adds these; a nested cargo that sees them would build its scripts anew.
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
                command.env_remove(&name);
            }
        }
        command.env_remove("LD_LIBRARY_PATH");
        command
    }

    /// Cargo of the nightly toolchain.
    pub(crate) fn nightly_cargo(&self) -> Command {
        let mut command = self.cargo();
        command.env("RUSTUP_TOOLCHAIN", "nightly").env_remove("CARGO");
        command
    }

    /// A program that runs at the top of the tree and reads nothing from the terminal.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.root).stdin(Stdio::null());
        command
    }
}

/// Runs a program to its end, its output going where ours goes.
///
/// # Errors
/// It could not be started, or failed.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let line = line(command);
    let status = command.status().with_context(|| format!("cannot start `{line}`"))?;
    if !status.success() {
        bail!("`{line}` failed: {status}");
    }
    Ok(())
}

/// Runs a program to its end and returns what it wrote to standard output.
///
/// # Errors
/// It could not be started, or failed: then with what it wrote to standard error.
pub(crate) fn read(command: &mut Command) -> Result<String> {
    let line = line(command);
    let output = command.output().with_context(|| format!("cannot start `{line}`"))?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        bail!("`{line}` failed: {}: {}", output.status, errors.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether a program of this name is on the search path.
pub(crate) fn on_path(program: &str) -> bool {
    // Daemons live in sbin, which is not on everybody's path.
    let extra = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).chain(extra).any(|folder| folder.join(program).is_file())
}

/// Whether this process is root.
pub(crate) fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    effective_uid(&status) == Some(0)
}

/// Whether `CI=true`: then leaving a test out is a failure.
pub(crate) fn is_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| value == "true")
}

/// `path` relative to `root` where it lies in it, for messages.
pub(crate) fn relative<'a>(root: &Path, path: &'a Path) -> std::borrow::Cow<'a, str> {
    path.strip_prefix(root).unwrap_or(path).to_string_lossy()
}

fn effective_uid(status: &str) -> Option<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_effective_user_is_the_second_number() {
        let check = |status, expect| assert_eq!(effective_uid(status), expect);
        check("Name:\tx\nUid:\t1000\t0\t0\t0\n", Some(0));
        check("Uid:\t0\t1000\t0\t0\n", Some(1000));
        check("Name:\tx\n", None);
    }

    #[test]
    fn a_failing_program_is_an_error_that_names_it() {
        let error = read(Command::new("sh").args(["-c", "echo why >&2; exit 3"])).unwrap_err().to_string();
        assert!(
            error.contains("sh -c") && error.contains("exit status: 3") && error.ends_with("why"),
            "{error}"
        );
        assert_eq!(read(Command::new("echo").arg("yes")).unwrap(), "yes\n");
    }
}
