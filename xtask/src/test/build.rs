//! The one build that the test command needs: every crate is compiled once, by clippy, which is the compiler with more lints.
//!
//! Third-party crates are those of an ordinary `cargo build`. Those of the workspace are compiled by `xtask/test-rustc`, which
//! looks at the documentation too. What it writes is what the compiler writes, with one difference: pointers are not checked
//! for alignment and null, which a plain `cargo test` does.

use std::io::BufReader;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use cargo_metadata::{Message, TargetKind};

use super::output::Group;
use crate::repo::Repo;

/// A program with tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TestProgram {
    pub(super) package: String,
    /// `mcias tests/it` or `mcias lib`.
    pub(super) name: String,
    pub(super) group: Group,
    pub(super) program: PathBuf,
    /// The package's folder, in which its tests run.
    pub(super) folder: PathBuf,
}

/// What clippy finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lints {
    /// Is an error.
    Deny,
    /// Is printed. Used after the other has failed, so that tests run all the same.
    Warn,
}

/// Sets what makes cargo compile the workspace with clippy. The same for all that shall use the same build.
pub(super) fn with_clippy<'a>(command: &'a mut Command, repo: &Repo, lints: Lints) -> &'a mut Command {
    command.env("RUSTC_WORKSPACE_WRAPPER", repo.root.join("xtask/test-rustc"));
    match lints {
        // As `cargo clippy` does.
        Lints::Deny => command.env("CLIPPY_ARGS", "-Dwarnings__CLIPPY_HACKERY__").env("MC_RUSTDOC", "1"),
        Lints::Warn => command.env("CLIPPY_ARGS", ""),
    }
}

/// Builds all targets of the workspace. Always all of them, because a part would be built with other features of
/// third-party crates, which would be compiled once more.
///
/// # Errors
/// Something does not compile, or has a finding where they are errors.
pub(super) fn all(repo: &Repo, lints: Lints) -> Result<Vec<TestProgram>> {
    let mut build = repo.cargo();
    build.args(["build", "--workspace", "--all-targets", "--message-format=json-render-diagnostics"]);
    with_clippy(&mut build, repo, lints).arg("--keep-going").stdout(Stdio::piped());
    let mut child = build.spawn().context("cannot start cargo build")?;
    let output = child.stdout.take().context("cargo's output")?;
    let mut programs = Vec::new();
    for message in Message::parse_stream(BufReader::new(output)) {
        programs.extend(program(message.context("cannot read what cargo build prints")?));
    }
    let status = child.wait().context("cargo build")?;
    if !status.success() {
        bail!("what is wrong is said above");
    }
    programs.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(programs)
}

fn program(message: Message) -> Option<TestProgram> {
    let Message::CompilerArtifact(artifact) = message else { return None };
    if !artifact.profile.test {
        return None;
    }
    let program = artifact.executable?.into_std_path_buf();
    let folder = artifact.manifest_path.parent()?.as_std_path().to_owned();
    let is = |kind: TargetKind| artifact.target.kind.contains(&kind);
    let target = &artifact.target.name;
    let (group, part) = match () {
        () if is(TargetKind::Test) && target.starts_with("ns_") => {
            (Group::Namespace, format!("tests/{target}"))
        }
        () if is(TargetKind::Test) => (Group::Integration, format!("tests/{target}")),
        () if is(TargetKind::Bin) => (Group::Unit, format!("bin {target}")),
        () if is(TargetKind::Example) => (Group::Unit, format!("example {target}")),
        () => (Group::Unit, "lib".into()),
    };
    let package = package(&artifact.package_id.repr)?;
    Some(TestProgram { name: format!("{package} {part}"), package, group, program, folder })
}

/// The name in `path+file:///folder#name@version`, where the name is left out if it is the folder's.
fn package(id: &str) -> Option<String> {
    let (path, rest) = id.split_once('#')?;
    let name = rest.split_once('@').map_or_else(|| path.rsplit('/').next(), |(name, _)| Some(name));
    name.map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_named_by_its_id() {
        let check = |id, expect: Option<&str>| assert_eq!(package(id).as_deref(), expect, "{id}");
        check("path+file:///x/dataplane/core#mc-core@0.1.0", Some("mc-core"));
        check("path+file:///x/xtask#0.1.0", Some("xtask"));
        check("xtask 0.1.0", None);
    }

    #[test]
    fn test_programs_are_found_among_what_cargo_prints() {
        let artifact = |kind: &str, name: &str, test: bool| {
            format!(
                r#"{{"reason":"compiler-artifact","package_id":"path+file:///x/mcias#0.1.0","manifest_path":"/x/mcias/Cargo.toml",
                "target":{{"kind":["{kind}"],"crate_types":["bin"],"name":"{name}","src_path":"/x/mcias/a.rs","edition":"2024","doc":true,"doctest":true,"test":true}},
                "profile":{{"opt_level":"0","debuginfo":1,"debug_assertions":true,"overflow_checks":true,"test":{test}}},
                "features":[],"filenames":["/x/a"],"executable":"/x/a","fresh":true}}"#
            )
        };
        let check = |kind, name, test, expect: Option<(&str, Group)>| {
            let found = program(serde_json::from_str(&artifact(kind, name, test)).unwrap());
            let found = found.as_ref().map(|found| (found.name.as_str(), found.group));
            assert_eq!(found, expect, "{kind} {name}");
        };
        check("lib", "mcias", true, Some(("mcias lib", Group::Unit)));
        check("bin", "mciasctl", true, Some(("mcias bin mciasctl", Group::Unit)));
        check("test", "it", true, Some(("mcias tests/it", Group::Integration)));
        check("test", "ns_edge", true, Some(("mcias tests/ns_edge", Group::Namespace)));
        check("bin", "mciasctl", false, None);
    }
}
