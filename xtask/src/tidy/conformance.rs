//! The rule behind the tables of RFCs in `docs/acceptance/`: each section is there, each sentence has a test or a reason.
//!
//! Rows of a table with the header `| section | sentence | test or reason |`, in the RFC's order. The last cell lists
//! tests as `acceptance` reads them, separated by commas; or it says `reason: ...`, why the sentence does not bind us or
//! is met otherwise; or both, where a test shows what a deviation does. A section without a requirement has a row that
//! says so.

use super::references::{Reference, exists};
use super::{Finding, Tree};

const HEADER: &str = "| section | sentence | test or reason |";

/// A page, and the sections of its RFC that it must have rows for, in their order.
struct Table {
    path: &'static str,
    sections: &'static [&'static str],
}

const TABLES: &[Table] = &[
    Table {
        path: "docs/acceptance/rfc9112.md",
        sections: &[
            "2", "2.1", "2.2", "2.3", "3", "3.1", "3.2", "3.2.1", "3.2.2", "3.2.3", "3.2.4", "3.3", "4", "5",
            "5.1", "5.2", "6", "6.1", "6.2", "6.3", "7", "7.1", "7.1.1", "7.1.2", "7.1.3", "7.2", "7.3",
            "7.4", "8", "9", "9.1", "9.2", "9.3", "9.3.1", "9.3.2", "9.4", "9.5", "9.6", "9.7", "9.8", "11",
            "11.1", "11.2", "11.3", "11.4",
        ],
    },
    Table {
        path: "docs/acceptance/rfc9113.md",
        sections: &[
            "4", "4.1", "4.2", "4.3", "4.3.1", "5", "5.1", "5.1.1", "5.1.2", "5.2", "5.2.1", "5.2.2",
            "5.2.3", "5.3", "5.3.1", "5.3.2", "5.4", "5.4.1", "5.4.2", "5.4.3", "5.5", "6", "6.1", "6.2",
            "6.3", "6.4", "6.5", "6.5.1", "6.5.2", "6.5.3", "6.6", "6.7", "6.8", "6.9", "6.9.1", "6.9.2",
            "6.9.3", "6.10", "7", "8", "8.1", "8.1.1", "8.2", "8.2.1", "8.2.2", "8.2.3", "8.3", "8.3.1",
            "8.3.2", "8.4", "8.4.1", "8.4.2", "8.5", "8.6", "8.7", "8.8", "8.8.1", "8.8.2", "8.8.3", "8.8.4",
            "8.8.5",
        ],
    },
];

/// Whether this page is one of an RFC.
pub(super) fn is_table(path: &str) -> bool {
    TABLES.iter().any(|table| table.path == path)
}

pub(super) fn conformance(tree: &Tree) -> Vec<Finding> {
    let exists = |reference: &Reference<'_>| exists(tree, reference);
    let findings = |table: &Table| match tree.file(table.path) {
        Some(text) => page(table, text, &exists),
        None => vec![Finding::new(table.path, "is missing: each section of the RFC has a row there")],
    };
    TABLES.iter().flat_map(findings).collect()
}

fn page(table: &Table, text: &str, exists: &dyn Fn(&Reference<'_>) -> bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    let (mut in_table, mut last) = (false, 0);
    let mut seen = vec![false; table.sections.len()];
    for (number, line) in text.lines().enumerate() {
        if !in_table || !line.starts_with('|') {
            in_table = line == HEADER;
            continue;
        }
        if line.starts_with("|-") {
            continue;
        }
        let place = || format!("{}:{}", table.path, number + 1);
        match row(line, table, exists) {
            Ok(index) if index < last => findings.push(Finding::new(place(), "comes after a later section")),
            Ok(index) => {
                last = index;
                seen[index] = true;
            }
            Err(what) => findings.push(Finding::new(place(), what)),
        }
    }
    for (section, seen) in table.sections.iter().zip(seen) {
        if !seen {
            findings.push(Finding::new(table.path, format!("has no row for section {section}")));
        }
    }
    findings
}

/// Judges one row; says which of the table's sections it is for.
fn row(line: &str, table: &Table, exists: &dyn Fn(&Reference<'_>) -> bool) -> Result<usize, String> {
    let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
    let [section, sentence, shown] = cells[..] else {
        return Err(format!("has {} cells instead of three", cells.len()));
    };
    let index = table.sections.iter().position(|known| *known == section);
    let index =
        index.ok_or_else(|| format!("names the section `{section}`, which this table does not cover"))?;
    if sentence.is_empty() {
        return Err("has no sentence".into());
    }
    let (tests, reason) = match shown.split_once("reason:") {
        Some((tests, reason)) => (tests, Some(reason.trim())),
        None => (shown, None),
    };
    if reason.is_some_and(str::is_empty) {
        return Err("gives a reason that says nothing".into());
    }
    let tests: Vec<&str> = tests.split(',').map(str::trim).filter(|test| !test.is_empty()).collect();
    if tests.is_empty() && reason.is_none() {
        return Err("has neither a test nor a reason".into());
    }
    for test in tests {
        let reference = Reference::parse(test)?;
        if !matches!(reference, Reference::Test { .. } | Reference::Fuzz { .. }) {
            return Err(format!("names {reference}, which is no test"));
        }
        if !exists(&reference) {
            return Err(format!("names {reference}, which does not exist"));
        }
    }
    Ok(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: Table = Table { path: "docs/acceptance/rfc1.md", sections: &["1", "1.1", "1.2", "1.10"] };

    fn findings(rows: &[&str]) -> Vec<String> {
        let exists = |reference: &Reference<'_>| {
            matches!(
                reference,
                Reference::Test { file: "a.rs", name: "there" } | Reference::Fuzz { target: "there" }
            )
        };
        let text = format!("# RFC 1\n\n{HEADER}\n|---|---|---|\n{}\n", rows.join("\n"));
        page(&TABLE, &text, &exists)
            .into_iter()
            .map(|finding| format!("{} {}", finding.place, finding.what))
            .collect()
    }

    const GOOD: [&str; 5] = [
        "| 1 | MUST | `test: a.rs::there` |",
        "| 1.1 | MUST | `test: a.rs::there`, `fuzz: there` |",
        "| 1.1 | MAY | reason: we do not |",
        "| 1.2 | SHOULD | `test: a.rs::there`, reason: another code, which the RFC allows |",
        "| 1.10 | no requirement | reason: an example |",
    ];

    #[test]
    fn a_complete_table_is_in_order() {
        assert_eq!(findings(&GOOD), [""; 0]);
    }

    #[test]
    fn a_gap_is_found() {
        for left_out in [0, 3, 4] {
            let mut rows = GOOD.to_vec();
            let row = rows.remove(left_out);
            let section = row.split('|').nth(1).unwrap().trim();
            assert_eq!(
                findings(&rows),
                [format!("docs/acceptance/rfc1.md has no row for section {section}")]
            );
        }
        // One of two rows of a section is no gap that a list of sections could know of.
        assert_eq!(findings(&[&GOOD[..2], &GOOD[3..]].concat()), [""; 0]);
        // Rows outside the table do not count.
        let text = "| a | b |\n|---|---|\n| 1 | MUST | reason: x |\n";
        assert_eq!(page(&TABLE, text, &|_| true).len(), TABLE.sections.len());
    }

    #[test]
    fn rows_are_judged() {
        let check = |row: &str, expected: &str| {
            let mut rows = GOOD.to_vec();
            rows.insert(4, row);
            let found = findings(&rows);
            let is_as_expected = found.len() == 1 && found[0].contains(expected);
            assert!(is_as_expected, "{row}: {found:?}");
        };
        check("| 1.2 | MUST | `test: a.rs::gone` |", "test `gone` in a.rs, which does not exist");
        check("| 1.2 | MUST | `test: a.rs::there`, `fuzz: gone` |", "which does not exist");
        check("| 1.2 | MUST | `file: a.rs` |", "is no test");
        check("| 1.2 | MUST | trust me |", "is none of");
        check("| 1.2 | MUST | reason: |", "says nothing");
        check("| 1.2 | MUST | |", "neither a test nor a reason");
        check("| 1.2 | | reason: x |", "no sentence");
        check("| 1.3 | MUST | reason: x |", "does not cover");
        check("| | MUST | reason: x |", "does not cover");
        check("| 1.1 | MUST | reason: x |", "after a later section");
        check("| 1.2 | MUST |", "2 cells");
    }

    #[test]
    fn section_numbers_rise() {
        let number =
            |section: &str| section.split('.').map(|part| part.parse::<u32>().unwrap()).collect::<Vec<_>>();
        for table in TABLES {
            assert!(table.sections.is_sorted_by_key(|section| number(section)), "{}", table.path);
        }
    }
}
