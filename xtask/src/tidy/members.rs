//! Rules about the workspace's members and the pages that speak of them.

use toml::{Table, Value};

use super::{Finding, Tree};
use crate::repo::relative;

/// What is stated once, for all.
const INHERITED: &[&str] = &["version", "edition", "rust-version", "license", "publish"];

pub(super) fn inheritance(tree: &Tree) -> Vec<Finding> {
    manifests(tree).flat_map(|(path, text)| inherits(&path, text)).collect()
}

pub(super) fn architecture(tree: &Tree) -> Vec<Finding> {
    const PAGE: &str = "docs/ARCHITECTURE.md";
    let page = tree.file(PAGE).unwrap_or_default();
    let folders = manifests(tree).filter_map(|(path, _)| path.strip_suffix("/Cargo.toml").map(str::to_owned));
    let missing = folders.filter(|folder| !has_row(page, folder));
    missing
        .map(|folder| Finding::new(PAGE, format!("no table row starts with `{folder}`: say what it is for")))
        .collect()
}

pub(super) fn changelog(tree: &Tree) -> Vec<Finding> {
    unreleased(tree.file("CHANGELOG.md").unwrap_or_default()).into_iter().collect()
}

fn manifests(tree: &Tree) -> impl Iterator<Item = (String, &str)> {
    tree.metadata.workspace_packages().into_iter().filter_map(|package| {
        let path = relative(&tree.root, package.manifest_path.as_std_path()).into_owned();
        let text = tree.file(&path)?;
        Some((path, text))
    })
}

fn inherits(path: &str, text: &str) -> Vec<Finding> {
    let manifest: Table = match toml::from_str(text) {
        Ok(manifest) => manifest,
        Err(error) => return vec![Finding::new(path, error.to_string())],
    };
    let is_inherited = |value: Option<&Value>| {
        value.and_then(|value| value.get("workspace")).and_then(Value::as_bool) == Some(true)
    };
    let package = manifest.get("package");
    let mut findings: Vec<_> = INHERITED
        .iter()
        .filter(|key| !is_inherited(package.and_then(|package| package.get(key))))
        .map(|key| Finding::new(path, format!("write `{key}.workspace = true` in [package]")))
        .collect();
    if !is_inherited(manifest.get("lints")) {
        findings.push(Finding::new(path, "write `workspace = true` in [lints]"));
    }
    if package
        .and_then(|package| package.get("description"))
        .and_then(Value::as_str)
        .is_none_or(str::is_empty)
    {
        findings.push(Finding::new(path, "write a `description` in [package]"));
    }
    for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
        for (name, value) in manifest.get(section).and_then(Value::as_table).into_iter().flatten() {
            if !is_inherited(Some(value)) {
                let what =
                    format!("`{name}` states its own version: put it in the workspace's and inherit it");
                findings.push(Finding::new(path, what));
            }
        }
    }
    findings
}

fn has_row(page: &str, folder: &str) -> bool {
    let starts = [format!("| `{folder}`"), format!("| `{folder}/`")];
    page.lines().any(|line| starts.iter().any(|start| line.starts_with(start)))
}

fn unreleased(text: &str) -> Option<Finding> {
    let has = text.lines().any(|line| line == "## Unreleased" || line == "## [Unreleased]");
    (!has).then(|| {
        Finding::new("CHANGELOG.md", "has no `## Unreleased` section: what changed for users goes there")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "[package]\nname = 'x'\ndescription = 'Does x'\nversion.workspace = true\nedition.workspace = true\n\
        rust-version.workspace = true\nlicense.workspace = true\npublish.workspace = true\n[lints]\nworkspace = true\n\
        [dependencies]\nserde.workspace = true\nhyper = { workspace = true, features = ['http1'] }\n";

    #[test]
    fn a_member_states_nothing_that_the_workspace_states() {
        let check = |from: &str, to: &str, expect: &str| {
            let text = GOOD.replace(from, to);
            let findings = inherits("x/Cargo.toml", &text);
            assert_eq!(findings.len(), usize::from(!expect.is_empty()), "{text}\n{findings:?}");
            assert!(findings.iter().all(|finding| finding.what.contains(expect)), "{findings:?}");
        };
        check("", "", "");
        check("edition.workspace = true", "edition = '2024'", "edition");
        check("license.workspace = true\n", "", "license");
        check("[lints]\nworkspace = true\n", "", "[lints]");
        check("'Does x'", "''", "description");
        check("serde.workspace = true", "serde = '1'", "`serde` states its own version");
    }

    #[test]
    fn a_folder_has_a_row_of_its_own() {
        let check = |page, expect| assert_eq!(has_row(page, "dataplane/core"), expect, "{page}");
        check("| `dataplane/core/` | mc-core |", true);
        check("| `dataplane/core` | mc-core |", true);
        check("| `dataplane/core2` | mc-core |", false);
        check("`dataplane/core` is mentioned", false);
    }

    #[test]
    fn the_changelog_has_a_place_for_what_comes() {
        assert_eq!(unreleased("# Changelog\n\n## Unreleased\n"), None);
        assert!(unreleased("# Changelog\n\n## 1.0.0\n").is_some());
    }
}
