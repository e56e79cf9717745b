//! The rule that every system has default ports of its own, and that the page of ports has them all.

use std::collections::{BTreeMap, BTreeSet};

use super::{Finding, Tree};

const PAGE: &str = "docs/ports.md";

/// Files that state default ports.
const EXAMPLES: &str = "deploy/config/";

pub(super) fn ports(tree: &Tree) -> Vec<Finding> {
    let examples: Vec<(&str, BTreeSet<u16>)> = tree
        .texts(".toml")
        .filter_map(|(path, text)| Some((path.strip_prefix(EXAMPLES)?, listening(text))))
        .collect();
    let Some(page) = tree.file(PAGE) else {
        return vec![Finding::new(PAGE, "is missing: it has a table of all default ports")];
    };
    check(&examples, &table(page))
}

fn check(examples: &[(&str, BTreeSet<u16>)], table: &BTreeSet<u16>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut taken: BTreeMap<u16, &str> = BTreeMap::new();
    for (file, ports) in examples {
        for &port in ports {
            if let Some(other) = taken.insert(port, file) {
                let what =
                    format!("port {port} is also {other}'s default: choose another and list it in {PAGE}");
                findings.push(Finding::new(format!("{EXAMPLES}{file}"), what));
            }
            if !table.contains(&port) {
                let what = format!("default port {port} is not in the table of {PAGE}: add it");
                findings.push(Finding::new(format!("{EXAMPLES}{file}"), what));
            }
        }
    }
    for port in table.iter().filter(|port| !taken.contains_key(port)) {
        let what = format!("port {port} is in no example in {EXAMPLES}: remove it or correct it");
        findings.push(Finding::new(PAGE, what));
    }
    findings
}

/// Ports that an example listens on, those in lines that are commented out too: `address` of a listener, and every
/// `..._addr`.
fn listening(text: &str) -> BTreeSet<u16> {
    let mut table = "";
    let mut ports = BTreeSet::new();
    for line in text.lines().map(|line| line.trim_start_matches('#')) {
        if line.starts_with('[') {
            table = line;
        }
        let Some((key, value)) = line.split_once(" = ") else { continue };
        if key.ends_with("_addr") || (key == "address" && table == "[[listeners]]") {
            let port = value.trim_matches('"').rsplit(':').next();
            ports.extend(port.and_then(|port| port.parse::<u16>().ok()));
        }
    }
    ports
}

/// The numbers in the third column of a table.
fn table(page: &str) -> BTreeSet<u16> {
    let rows = page.lines().filter(|line| line.starts_with("| "));
    rows.filter_map(|row| row.split('|').nth(3)?.trim().parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_that_are_listened_on_are_found() {
        let text = "listen_addr = \"0.0.0.0:1\"\n#metrics_addr = \"127.0.0.1:2\"\n# grpc_addr\n[[listeners]]\n#address = \"[::]:3\"\n\
                    [[routes.backends]]\naddress = \"192.0.2.1:4\"";
        assert_eq!(listening(text), BTreeSet::from([1, 2, 3]));
        assert_eq!(table("| a | b | default | c |\n|---|---|---|---|\n| x | `k` | 12 | y |\n"), [12].into());
    }

    #[test]
    fn a_port_that_two_systems_share_or_that_is_not_listed_is_a_finding() {
        let check = |a: &[u16], b: &[u16], listed: &[u16], expect: &[&str]| {
            let examples = [("a.toml", a.iter().copied().collect()), ("b.toml", b.iter().copied().collect())];
            let found = check(&examples, &listed.iter().copied().collect());
            assert_eq!(found.len(), expect.len(), "{found:?}");
            assert!(found.iter().zip(expect).all(|(it, word)| it.what.contains(word)), "{found:?}");
        };
        check(&[1, 2], &[3], &[1, 2, 3], &[]);
        check(&[1, 2], &[2], &[1, 2], &["port 2 is also a.toml's"]);
        check(&[1], &[2], &[1], &["default port 2 is not in the table"]);
        check(&[1], &[2], &[1, 2, 9], &["port 9 is in no example"]);
    }
}
