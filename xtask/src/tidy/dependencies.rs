//! Rules about other people's code, by what `deny.toml` says: licences, bans, duplicate versions.
//!
//! cargo-deny reads the same file where it is installed. These rules need only cargo, so that nobody's change
//! passes here and fails there; why they are our own: `docs/decisions/0006-own-licence-check.md`.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use serde::Deserialize;
use spdx::{Expression, LicenseReq, Licensee, ParseMode};

use super::{Finding, Tree};
use crate::repo::{Repo, read};

/// The parts of `deny.toml` that are read here.
#[derive(Deserialize)]
pub(super) struct Deny {
    pub(super) graph: GraphPart,
    licenses: Licenses,
    bans: Bans,
}

#[derive(Deserialize)]
pub(super) struct GraphPart {
    /// Platforms that we build for.
    pub(super) targets: Vec<String>,
}

#[derive(Deserialize)]
struct Licenses {
    allow: Vec<String>,
    /// Licences that are allowed for one crate alone.
    #[serde(default)]
    exceptions: Vec<Exception>,
}

#[derive(Deserialize)]
struct Exception {
    #[serde(rename = "crate")]
    name: String,
    allow: Vec<String>,
}

#[derive(Deserialize)]
struct Bans {
    deny: Vec<Entry>,
    skip: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    /// `name`, or `name@version` in `skip`.
    #[serde(rename = "crate")]
    name: String,
    #[serde(default)]
    reason: String,
}

/// A crate that is built for one of our platforms, at whatever time: run, build or test.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Dependency {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) licence: String,
}

/// Versions before a release that are taken on purpose: name and reason.
const PRERELEASES: &[(&str, &str)] = &[
    ("kbkdf", "crypto-glue of webauthn-rs 0.6 has it; passkeys do not reach it"),
    ("rsa", "crypto-glue of webauthn-rs 0.6 has it, to check what authenticators with RSA keys sign"),
];

pub(super) fn licences(tree: &Tree) -> Vec<Finding> {
    judge_licences(&tree.deny.licenses, &tree.dependencies)
}

pub(super) fn bans(tree: &Tree) -> Vec<Finding> {
    judge_bans(&tree.deny.bans.deny, &tree.dependencies)
}

pub(super) fn duplicates(tree: &Tree) -> Vec<Finding> {
    judge_duplicates(&tree.deny.bans.skip, &tree.dependencies)
}

pub(super) fn prereleases(tree: &Tree) -> Vec<Finding> {
    let taken = |name: &str| PRERELEASES.iter().any(|(known, _)| *known == name);
    let found = tree.dependencies.iter().filter(|dep| is_prerelease(&dep.version) && !taken(&dep.name));
    found
        .map(|dep| Finding::new(dep.spec(), "is a prerelease: take a release, or list it with a reason"))
        .collect()
}

/// Asks cargo what is built for these platforms, with all features of our own. `cargo metadata` would also name crates behind
/// others' features that nobody switched on.
///
/// # Errors
/// Cargo failed.
pub(super) fn resolve(repo: &Repo, targets: &[String]) -> Result<BTreeSet<Dependency>> {
    let mut dependencies = BTreeSet::new();
    for target in targets {
        let mut tree = repo.cargo();
        tree.args([
            "tree",
            "--workspace",
            "--all-features",
            "--prefix",
            "none",
            "--format",
            "{p}|{l}",
            "--target",
            target,
        ]);
        dependencies.extend(read(&mut tree)?.lines().filter_map(Dependency::parse));
    }
    Ok(dependencies)
}

/// Names of the crates that this one runs with, itself included.
///
/// # Errors
/// Cargo failed.
pub(super) fn runs_with(repo: &Repo, member: &str) -> Result<BTreeSet<String>> {
    let mut tree = repo.cargo();
    tree.args(["tree", "--package", member, "--edges", "normal", "--prefix", "none", "--format", "{p}|{l}"]);
    Ok(read(&mut tree)?.lines().filter_map(Dependency::parse).map(|dep| dep.name).collect())
}

impl Dependency {
    /// Reads `name v1.2.3 (from)|licence (*)`.
    fn parse(line: &str) -> Option<Self> {
        let (package, licence) = line.split_once('|')?;
        let (name, rest) = package.split_once(" v")?;
        let version = rest.split(' ').next()?;
        let licence = licence.trim_end_matches("(*)").trim();
        Some(Self { name: name.into(), version: version.into(), licence: licence.into() })
    }

    fn spec(&self) -> String {
        format!("{}@{}", self.name, self.version)
    }
}

fn judge_licences(licenses: &Licenses, dependencies: &BTreeSet<Dependency>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut parse = |text: &String| {
        let parsed = Licensee::parse(text);
        parsed
            .map_err(|error| {
                findings.push(Finding::new("deny.toml", format!("licence {text}: {}", error.reason)));
            })
            .ok()
    };
    let allowed: Vec<_> = licenses.allow.iter().filter_map(&mut parse).collect();
    let excepted: Vec<(&str, Vec<_>)> = licenses
        .exceptions
        .iter()
        .map(|exception| (&*exception.name, exception.allow.iter().filter_map(&mut parse).collect()))
        .collect();
    for (name, _) in &excepted {
        if !dependencies.iter().any(|dep| dep.name == *name) {
            findings
                .push(Finding::new("deny.toml", format!("excepts {name}, which is not there: remove it")));
        }
    }
    for dep in dependencies {
        let own = excepted.iter().filter(|(name, _)| *name == dep.name).flat_map(|(_, licences)| licences);
        let own: Vec<_> = own.collect();
        let is_allowed = |req: &LicenseReq| {
            allowed.iter().chain(own.iter().copied()).any(|licensee| licensee.satisfies(req))
        };
        let judged = Expression::parse_mode(&dep.licence, ParseMode::LAX);
        let what = match judged {
            Ok(expression) if expression.evaluate(is_allowed) => continue,
            Ok(_) => format!("its licence `{}` is not allowed by deny.toml: find another crate", dep.licence),
            Err(_) => format!("its licence `{}` is no SPDX expression: read its files", dep.licence),
        };
        findings.push(Finding::new(dep.spec(), what));
    }
    findings
}

fn judge_bans(deny: &[Entry], dependencies: &BTreeSet<Dependency>) -> Vec<Finding> {
    let banned = |dep: &&Dependency| deny.iter().find(|entry| entry.name == dep.name);
    let found = dependencies.iter().filter_map(|dep| Some((dep, banned(&dep)?)));
    found
        .map(|(dep, entry)| {
            let what =
                format!("is banned: {}. See who brings it: cargo tree -i {}", entry.reason, dep.spec());
            Finding::new(dep.spec(), what)
        })
        .collect()
}

fn judge_duplicates(skip: &[Entry], dependencies: &BTreeSet<Dependency>) -> Vec<Finding> {
    let mut versions = BTreeMap::<&str, Vec<&Dependency>>::new();
    for dep in dependencies {
        versions.entry(&dep.name).or_default().push(dep);
    }
    let skipped = |dep: &Dependency| skip.iter().any(|entry| entry.name == dep.spec());
    let mut findings = Vec::new();
    for several in versions.values().filter(|several| several.len() > 1) {
        let left: Vec<_> = several.iter().filter(|dep| !skipped(dep)).map(|dep| dep.spec()).collect();
        if left.len() > 1 {
            let what =
                "is there in several versions: agree on one, or list all but one in deny.toml with a reason";
            findings.push(Finding::new(left.join(" and "), what));
        }
    }
    for entry in skip {
        let used =
            dependencies.iter().any(|dep| dep.spec() == entry.name && versions[dep.name.as_str()].len() > 1);
        if !used {
            findings.push(Finding::new(
                "deny.toml",
                format!("skips {}, which is no duplicate: remove it", entry.name),
            ));
        }
        if entry.reason.is_empty() {
            findings.push(Finding::new("deny.toml", format!("skips {} without a reason", entry.name)));
        }
    }
    findings
}

fn is_prerelease(version: &str) -> bool {
    // What follows `+` is about the build, not about readiness.
    version.split('+').next().is_some_and(|version| version.contains('-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deps(list: &[(&str, &str, &str)]) -> BTreeSet<Dependency> {
        let one = |(name, version, licence): &(&str, &str, &str)| Dependency {
            name: (*name).into(),
            version: (*version).into(),
            licence: (*licence).into(),
        };
        list.iter().map(one).collect()
    }

    fn entry(name: &str, reason: &str) -> Entry {
        Entry { name: name.into(), reason: reason.into() }
    }

    #[test]
    fn lines_of_cargo_tree() {
        let check = |line, expect: Option<(&str, &str, &str)>| {
            let expect = expect.and_then(|expect| deps(&[expect]).pop_first());
            assert_eq!(Dependency::parse(line), expect, "{line}");
        };
        check("syn v2.0.1|MIT OR Apache-2.0", Some(("syn", "2.0.1", "MIT OR Apache-2.0")));
        check("syn v2.0.1|MIT (*)", Some(("syn", "2.0.1", "MIT")));
        check("logos-derive v0.16.1 (proc-macro)|MIT", Some(("logos-derive", "0.16.1", "MIT")));
        check("xtask v0.1.0 (/home/me/xtask)|Apache-2.0", Some(("xtask", "0.1.0", "Apache-2.0")));
        check("", None);
    }

    #[test]
    fn licences_are_judged_as_expressions() {
        let check = |licence: &str, allowed: bool| {
            let licenses = Licenses {
                allow: vec!["MIT".to_owned(), "Apache-2.0".to_owned()],
                exceptions: vec![Exception { name: "y".to_owned(), allow: vec!["MPL-2.0".to_owned()] }],
            };
            let both = deps(&[("x", "1.0.0", licence), ("y", "1.0.0", "MPL-2.0")]);
            let findings = judge_licences(&licenses, &both);
            assert_eq!(findings.is_empty(), allowed, "{licence}: {findings:?}");
        };
        check("MIT", true);
        check("MIT/Apache-2.0", true);
        check("AGPL-3.0-only OR MIT", true);
        check("AGPL-3.0-only", false);
        check("AGPL-3.0-only AND MIT", false);
        check("GPL-3.0-only", false);
        // Of another crate.
        check("MPL-2.0", false);
        check("", false);
        check("whatever", false);
    }

    #[test]
    fn a_banned_crate_is_found() {
        let deny = [entry("ring", "one crypto backend")];
        assert_eq!(judge_bans(&deny, &deps(&[("rustls", "1.0.0", "MIT")])), []);
        let found = judge_bans(&deny, &deps(&[("ring", "0.17.0", "MIT")]));
        assert!(found.len() == 1 && found[0].what.contains("one crypto backend"), "{found:?}");
    }

    #[test]
    fn a_duplicate_needs_a_reason_and_a_reason_a_duplicate() {
        let check = |skip: &[Entry], versions: &[(&str, &str, &str)], findings: usize| {
            let found = judge_duplicates(skip, &deps(versions));
            assert_eq!(found.len(), findings, "{found:?}");
        };
        let (old, new) = (("syn", "2.0.1", "MIT"), ("syn", "3.0.0", "MIT"));
        check(&[], &[new], 0);
        check(&[], &[old, new], 1);
        check(&[entry("syn@2.0.1", "derive macros of x")], &[old, new], 0);
        check(&[entry("syn@2.0.1", "")], &[old, new], 1);
        check(&[entry("syn@2.0.1", "derive macros of x")], &[new], 1);
        check(&[entry("syn@3.0.0", "x")], &[new], 1);
    }

    #[test]
    fn a_prerelease_is_told_from_build_metadata() {
        let check = |version, expect| assert_eq!(is_prerelease(version), expect, "{version}");
        check("1.0.0", false);
        check("1.0.0-rc.1", true);
        check("0.7.1+5.3.1-0-g81034ce", false);
        check("0.2.0-beta+1", true);
    }
}
