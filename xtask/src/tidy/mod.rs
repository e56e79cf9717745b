//! The conventions that no compiler checks: each a function from text or metadata to findings.
//!
//! A rule says what is wrong, where, and what to do. It leaves out what rustfmt and clippy see.

mod acceptance;
mod conformance;
mod dependencies;
mod edges;
mod links;
mod members;
mod modules;
mod ports;
mod references;
mod sources;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use cargo_metadata::{Metadata, MetadataCommand};

use crate::repo::{Repo, read};
use dependencies::Dependency;

/// Something that is not as agreed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    /// File (and line, where there is one) or crate.
    pub(crate) place: String,
    /// What is wrong and what to do.
    pub(crate) what: String,
}

/// What the rules look at.
struct Tree {
    root: PathBuf,
    /// Every file that is committed or would be, relative to the root, in order.
    files: Vec<Source>,
    /// The workspace's members and what they ask for.
    metadata: Metadata,
    deny: dependencies::Deny,
    /// Everything that is built for the platforms that `deny.toml` names.
    dependencies: BTreeSet<Dependency>,
    /// What each pure crate runs with.
    pure: BTreeMap<&'static str, BTreeSet<String>>,
}

/// A file of the tree.
struct Source {
    path: String,
    /// `None` where it is not UTF-8.
    text: Option<String>,
}

type Rule = (&'static str, fn(&Tree) -> Vec<Finding>);

/// Every rule by its name.
const RULES: &[Rule] = &[
    ("each .rs file says what it is for", sources::headers),
    ("files stay one thing", sources::lengths),
    ("no machine's paths, no registry's hosts", sources::words),
    ("crates depend downwards only", edges::edges),
    ("the pure crates stay pure", edges::purity),
    ("modules beside each other make no circle", modules::modules),
    ("members inherit from the workspace", members::inheritance),
    ("the architecture page names each member", members::architecture),
    ("the changelog has an Unreleased section", members::changelog),
    ("licences are allowed", dependencies::licences),
    ("no banned crate: one crypto backend", dependencies::bans),
    ("duplicate versions have a reason", dependencies::duplicates),
    ("no prerelease", dependencies::prereleases),
    ("acceptance rows name tests that exist", acceptance::acceptance),
    ("each sentence of an RFC has a test or a reason", conformance::conformance),
    ("relative links lead somewhere", links::links),
    ("each system has default ports of its own", ports::ports),
];

/// Prints what is not as agreed and says whether all is.
///
/// # Errors
/// The tree cannot be read.
pub(crate) fn run(repo: &Repo) -> Result<bool> {
    let tree = Tree::load(repo)?;
    let mut findings = 0;
    for (name, rule) in RULES {
        let mut found = rule(&tree);
        found.sort();
        for Finding { place, what } in &found {
            eprintln!("tidy: {place}: {what} [{name}]");
        }
        findings += found.len();
    }
    eprintln!("tidy: {} rules, {findings} findings in {} files", RULES.len(), tree.files.len());
    Ok(findings == 0)
}

impl Tree {
    fn load(repo: &Repo) -> Result<Self> {
        let deny = std::fs::read_to_string(repo.root.join("deny.toml")).context("cannot read deny.toml")?;
        let deny: dependencies::Deny = toml::from_str(&deny).context("deny.toml")?;
        let metadata =
            MetadataCommand::new().current_dir(&repo.root).no_deps().exec().context("cargo metadata")?;
        let dependencies = dependencies::resolve(repo, &deny.graph.targets)?;
        let mut pure = BTreeMap::new();
        for name in edges::pure() {
            pure.insert(name, dependencies::runs_with(repo, name)?);
        }
        Ok(Self { root: repo.root.clone(), files: files(repo)?, metadata, deny, dependencies, pure })
    }

    fn file(&self, path: &str) -> Option<&str> {
        self.files.iter().find(|file| file.path == path)?.text.as_deref()
    }

    /// Files whose name ends so, with their text.
    fn texts<'a>(&'a self, suffix: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        let files = self.files.iter().filter(move |file| file.path.ends_with(suffix));
        files.filter_map(|file| Some((file.path.as_str(), file.text.as_deref()?)))
    }
}

impl Finding {
    fn new(place: impl Into<String>, what: impl Into<String>) -> Self {
        Self { place: place.into(), what: what.into() }
    }
}

fn files(repo: &Repo) -> Result<Vec<Source>> {
    let mut list = repo.command("git");
    list.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let list = read(&mut list).context("tidy asks git which files are the project's")?;
    let paths: BTreeSet<&str> = list.split('\0').filter(|path| !path.is_empty()).collect();
    let mut files = Vec::with_capacity(paths.len());
    for path in paths {
        match std::fs::read(repo.root.join(path)) {
            Ok(bytes) => files.push(Source { path: path.to_owned(), text: String::from_utf8(bytes).ok() }),
            // Deleted but not yet committed so.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("cannot read {path}")),
        }
    }
    Ok(files)
}
