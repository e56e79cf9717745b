//! The rule that a relative link in a page leads to a file or folder of the tree.

use std::path::{Component, Path, PathBuf};

use super::{Finding, Tree};

pub(super) fn links(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.texts(".md") {
        for (number, target) in targets(text) {
            let exists = resolve(path, &target).is_some_and(|target| tree.root.join(target).exists());
            if !exists {
                let what = format!("the link to `{target}` leads nowhere");
                findings.push(Finding::new(format!("{path}:{number}"), what));
            }
        }
    }
    findings
}

/// Relative link targets with their line, without what follows `#`.
fn targets(text: &str) -> Vec<(usize, String)> {
    let mut targets = Vec::new();
    let mut in_code = false;
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        if in_code {
            continue;
        }
        for after in line.split("](").skip(1) {
            let Some((target, _)) = after.split_once(')') else { continue };
            let file = target.split('#').next().unwrap_or_default();
            let is_elsewhere = target.contains("://") || target.starts_with("mailto:");
            if !file.is_empty() && !is_elsewhere {
                targets.push((number + 1, file.to_owned()));
            }
        }
    }
    targets
}

/// The target of a link in `page`, relative to the root; `None` where it leaves the tree.
fn resolve(page: &str, target: &str) -> Option<PathBuf> {
    let folder = Path::new(page).parent()?;
    let mut path = PathBuf::new();
    for part in folder.join(target).components() {
        match part {
            Component::Normal(name) => path.push(name),
            Component::CurDir => {}
            Component::ParentDir => path.pop().then_some(())?,
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_targets_are_found() {
        let check = |text, expect: &[(usize, &str)]| {
            let found = targets(text);
            let found: Vec<_> = found.iter().map(|(line, target)| (*line, target.as_str())).collect();
            assert_eq!(found, expect, "{text}");
        };
        check("see [a](b.md) and\n[c](../d.md#part)", &[(1, "b.md"), (2, "../d.md")]);
        check("[web](https://example.org/x) [mail](mailto:a@example.org) [here](#part)", &[]);
        check("```\nroutes[0](x)\n```\n[a](b)", &[(4, "b")]);
    }

    #[test]
    fn a_link_is_relative_to_its_page_and_stays_in_the_tree() {
        let check =
            |page, target, expect: Option<&str>| assert_eq!(resolve(page, target), expect.map(PathBuf::from));
        check("README.md", "docs/x.md", Some("docs/x.md"));
        check("docs/a/x.md", "../y.md", Some("docs/y.md"));
        check("docs/x.md", "../../y.md", None);
        check("docs/x.md", "/etc/passwd", None);
    }
}
