//! Rules about single files: their header, their length, words that have no place in them.

use super::{Finding, Tree};

/// Longest file in lines, its tests left out.
const LONGEST: usize = 700;

pub(super) fn headers(tree: &Tree) -> Vec<Finding> {
    tree.texts(".rs").filter_map(|(path, text)| header(path, text)).collect()
}

pub(super) fn lengths(tree: &Tree) -> Vec<Finding> {
    tree.texts(".rs").filter_map(|(path, text)| length(path, text)).collect()
}

pub(super) fn words(tree: &Tree) -> Vec<Finding> {
    // The lock file names the registry in every entry.
    let files = tree.files.iter().filter(|file| file.path != "Cargo.lock");
    files.flat_map(|file| forbidden(&file.path, file.text.as_deref().unwrap_or_default())).collect()
}

fn header(path: &str, text: &str) -> Option<Finding> {
    let first = text.lines().next().unwrap_or_default();
    let says = first.strip_prefix("//! ").is_some_and(|rest| !rest.trim().is_empty());
    (!says).then(|| {
        Finding::new(path, "starts without a `//! ` line: say what the file is for, and why it exists")
    })
}

fn length(path: &str, text: &str) -> Option<Finding> {
    let is_test = path.contains("/tests/") || path.ends_with("/tests.rs") || path.ends_with("_tests.rs");
    let lines = text.lines().take_while(|line| *line != "#[cfg(test)]").count();
    (lines > LONGEST && !is_test).then(|| {
        Finding::new(path, format!("has {lines} lines outside tests, more than {LONGEST}: is it two things?"))
    })
}

fn forbidden(path: &str, text: &str) -> Vec<Finding> {
    // Written in two parts, so that this file passes its own rule.
    let machine = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/tmp", "/bg")];
    let hosts = [
        concat!("index.crates", ".io"),
        concat!("static.crates", ".io"),
        concat!("registry.npmjs", ".org"),
        concat!("pypi", ".org"),
        concat!("files.pythonhosted", ".org"),
        concat!("deb.debian", ".org"),
    ];
    let mut findings = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let place = || format!("{path}:{}", number + 1);
        for word in machine.iter().filter(|word| line.contains(*word)) {
            findings
                .push(Finding::new(place(), format!("`{word}` is a path of one machine: make it relative")));
        }
        for word in hosts.iter().filter(|word| line.contains(*word)) {
            let what = format!("`{word}` is a registry's host: name the package and let its client find it");
            findings.push(Finding::new(place(), what));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_starts_with_its_purpose() {
        let check = |text, bad: bool| assert_eq!(header("x.rs", text).is_some(), bad, "{text:?}");
        check("//! Parses.\nfn main() {}", false);
        check("fn main() {}\n//! Parses.", true);
        check("//!\n//! Parses.", true);
        check("// Parses.", true);
        check("", true);
    }

    #[test]
    fn a_file_is_as_long_as_its_code_without_tests() {
        let check = |path, code: usize, tests: usize, bad: bool| {
            let text = format!("{}#[cfg(test)]\n{}", "x\n".repeat(code), "y\n".repeat(tests));
            assert_eq!(length(path, &text).is_some(), bad, "{path} {code} {tests}");
        };
        check("a/src/x.rs", LONGEST, 0, false);
        check("a/src/x.rs", LONGEST + 1, 0, true);
        check("a/src/x.rs", LONGEST, LONGEST, false);
        check("a/tests/x.rs", LONGEST + 1, 0, false);
        check("a/src/x/tests.rs", LONGEST + 1, 0, false);
    }

    #[test]
    fn paths_of_a_machine_and_hosts_of_registries_are_found_with_their_line() {
        let check = |text: &str, expect: &[&str]| {
            let places: Vec<_> = forbidden("x.md", text).into_iter().map(|finding| finding.place).collect();
            assert_eq!(places, expect, "{text:?}");
        };
        check("in target/tools\nand /srv/mc-proxy", &[]);
        check(concat!("one\nin /wo", "rk/main\n"), &["x.md:2"]);
        check(concat!("from https://pypi", ".org/simple"), &["x.md:1"]);
        check("the crate is on crates.io", &[]);
    }
}
