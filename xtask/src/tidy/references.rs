//! What tables in `docs/acceptance/` name as showing a requirement: tests, benchmarks, fuzz targets, files.

use super::Tree;

/// Whether what a reference names exists.
pub(super) type Exists<'a> = &'a dyn Fn(&Reference<'_>) -> bool;

/// What shows that a requirement is met.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reference<'a> {
    Test { file: &'a str, name: &'a str },
    Bench { scenario: &'a str },
    Fuzz { target: &'a str },
    File { path: &'a str },
}

pub(super) fn exists(tree: &Tree, reference: &Reference<'_>) -> bool {
    match reference {
        Reference::Test { file, name } => tree.file(file).is_some_and(|text| has_function(text, name)),
        Reference::Bench { scenario } => tree
            .texts(".rs")
            .any(|(path, text)| path.starts_with("bench/src/") && text.contains(&format!("\"{scenario}\""))),
        Reference::Fuzz { target } => {
            let end = format!("/fuzz/src/{target}.rs");
            tree.files.iter().any(|file| file.path.ends_with(&end))
        }
        Reference::File { path } => tree.files.iter().any(|file| file.path == *path),
    }
}

impl<'a> Reference<'a> {
    pub(super) fn parse(text: &'a str) -> Result<Self, String> {
        let unknown = || {
            format!(
                "`{text}` is none of `test: file.rs::name`, `bench: l4/name`, `fuzz: target`, `file: path` in code quotes"
            )
        };
        let inner = text.strip_prefix('`').and_then(|rest| rest.strip_suffix('`')).ok_or_else(unknown)?;
        let (kind, what) = inner.split_once(": ").ok_or_else(unknown)?;
        match kind {
            "test" => what.rsplit_once("::").map(|(file, name)| Self::Test { file, name }),
            "bench" => what.split_once('/').map(|(_, scenario)| Self::Bench { scenario }),
            "fuzz" => Some(Self::Fuzz { target: what }),
            "file" => Some(Self::File { path: what }),
            _ => None,
        }
        .ok_or_else(unknown)
    }
}

impl std::fmt::Display for Reference<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Test { file, name } => write!(f, "the test `{name}` in {file}"),
            Self::Bench { scenario } => write!(f, "the benchmark scenario `{scenario}`"),
            Self::Fuzz { target } => write!(f, "the fuzz target `{target}`"),
            Self::File { path } => write!(f, "the file {path}"),
        }
    }
}

fn has_function(text: &str, name: &str) -> bool {
    text.lines().any(|line| {
        let line = line.trim_start().trim_start_matches("async ");
        let rest = line.strip_prefix("fn ").and_then(|rest| rest.strip_prefix(name));
        rest.is_some_and(|rest| rest.starts_with(['(', '<']))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_read() {
        let check =
            |text, expect: Option<Reference<'_>>| assert_eq!(Reference::parse(text).ok(), expect, "{text}");
        check("`test: a/b.rs::works`", Some(Reference::Test { file: "a/b.rs", name: "works" }));
        check("`bench: l4/bulk`", Some(Reference::Bench { scenario: "bulk" }));
        check("`fuzz: hello`", Some(Reference::Fuzz { target: "hello" }));
        check("`file: LICENSE`", Some(Reference::File { path: "LICENSE" }));
        check("test: a/b.rs::works", None);
        check("`test: works`", None);
        check("`bench: bulk`", None);
        check("`trust me`", None);
    }

    #[test]
    fn a_test_is_a_function_of_exactly_that_name() {
        let check = |text, expect| assert_eq!(has_function(text, "works"), expect, "{text}");
        check("#[test]\n    fn works() {", true);
        check("async fn works() {", true);
        check("fn works_too() {", false);
        check("// fn works()", false);
        check("works();", false);
    }
}
