//! The rule behind `docs/acceptance/`: a row says what is required, what shows it, and its state; what it names exists.
//!
//! Rows of a table with the header `| requirement | shown by | state |`. The second cell lists references,
//! separated by commas, in code quotes: `test: folder/file.rs::name`, `bench: l4/name`, `fuzz: target`, `file: path`.
//! The third is `done` or `open: reason`. An open row may name what is to come; a done row names only what is there.

use super::references::{Exists, Reference, exists};
use super::{Finding, Tree, conformance};

const FOLDER: &str = "docs/acceptance/";
const HEADER: &str = "| requirement | shown by | state |";

pub(super) fn acceptance(tree: &Tree) -> Vec<Finding> {
    let exists = |reference: &Reference<'_>| exists(tree, reference);
    let is_ours = |path: &str| path.starts_with(FOLDER) && !conformance::is_table(path);
    let pages = tree.texts(".md").filter(|(path, _)| is_ours(path));
    pages.flat_map(|(path, text)| page(path, text, &exists)).collect()
}

fn page(path: &str, text: &str, exists: Exists<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let (mut in_table, mut rows) = (false, 0);
    for (number, line) in text.lines().enumerate() {
        if !in_table || !line.starts_with('|') {
            in_table = line == HEADER;
        } else if !line.starts_with("|-") {
            rows += 1;
            let found = row(line, exists).err();
            findings.extend(found.map(|what| Finding::new(format!("{path}:{}", number + 1), what)));
        }
    }
    // A page that only introduces the others has no table.
    if rows == 0 && !path.ends_with("/README.md") {
        findings.push(Finding::new(path, format!("has no row under `{HEADER}`")));
    }
    findings
}

fn row(line: &str, exists: Exists<'_>) -> Result<(), String> {
    let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
    let [requirement, shown_by, state] = cells[..] else {
        return Err(format!("has {} cells instead of three", cells.len()));
    };
    if requirement.is_empty() {
        return Err("says no requirement".into());
    }
    let references: Vec<&str> = shown_by.split(',').map(str::trim).filter(|text| !text.is_empty()).collect();
    let references = references.iter().map(|text| Reference::parse(text)).collect::<Result<Vec<_>, _>>()?;
    match state.strip_prefix("open:").map(str::trim) {
        Some("") => Err("is open without a reason".into()),
        Some(_) => Ok(()),
        None if state != "done" => {
            Err(format!("has the state `{state}`, which is neither `done` nor `open: reason`"))
        }
        None if references.is_empty() => Err("is done, and nothing shows it".into()),
        None => match references.iter().find(|reference| !exists(reference)) {
            Some(missing) => Err(format!("names {missing}, which does not exist")),
            None => Ok(()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_judged() {
        let check = |line: &str, expect: &str| {
            let exists = |reference: &Reference<'_>| *reference == Reference::File { path: "there" };
            let error = row(line, &exists).err().unwrap_or_default();
            assert!(error.contains(expect) && error.is_empty() == expect.is_empty(), "{line}: {error}");
        };
        check("| x | `file: there` | done |", "");
        check("| x | `file: there`, `file: there` | done |", "");
        check("| x | `file: gone` | done |", "file gone, which does not exist");
        check("| x | `test: a.rs::f` | done |", "test `f` in a.rs");
        check("| x | | done |", "nothing shows it");
        check("| x | `file: gone` | open: not measured yet |", "");
        check("| x | | open: |", "without a reason");
        check("| x | `file: there` | yes |", "neither");
        check("| x | there | done |", "is none of");
        check("| | `file: there` | done |", "no requirement");
        check("| x | done |", "2 cells");
    }

    #[test]
    fn only_tables_of_requirements_are_read() {
        let rows = "# Page\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n| requirement | shown by | state |\n|---|---|---|\n| x | y | done |\n";
        let findings = page("docs/acceptance/x.md", rows, &|_| true);
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].place, "docs/acceptance/x.md:9");
        assert_eq!(page("docs/acceptance/x.md", "# Page\n", &|_| true).len(), 1);
        assert_eq!(page("docs/acceptance/README.md", "# Page\n", &|_| true), []);
    }
}
