//! Rules about the rooms of a service, which are the modules at its top: arrows between them make no circle, and each way
//! to ask (REST, gRPC, pages) knows the use cases and not the other ways.

use std::collections::{BTreeMap, BTreeSet};

use super::{Finding, Tree};

/// Rooms that may not know others, by name.
const FORBIDDEN: &[(&str, &str)] = &[("grpc", "http"), ("web", "http")];

/// Which room uses which, with a file that shows it.
type Edges<'a> = BTreeMap<(&'a str, &'a str), &'a str>;

pub(super) fn rooms(tree: &Tree) -> Vec<Finding> {
    let mut services: BTreeMap<&str, Edges<'_>> = BTreeMap::new();
    for (path, text) in tree.texts(".rs") {
        if let Some((service, room)) = place(path) {
            let edges = services.entry(service).or_default();
            edges.extend(
                used(text).into_iter().filter(|other| *other != room).map(|other| ((room, other), path)),
            );
        }
    }
    services.values().flat_map(judge).collect()
}

/// The service and the room that a file belongs to. What starts the program knows all rooms, and is none.
fn place(path: &str) -> Option<(&str, &str)> {
    let (service, file) = path.strip_prefix("services/")?.split_once("/src/")?;
    let room = file.split('/').next()?;
    let room = room.strip_suffix(".rs").unwrap_or(room);
    let is_test = file.contains("/tests/") || file.ends_with("/tests.rs");
    (!service.contains('/') && !is_test && !matches!(room, "bin" | "lib" | "main")).then_some((service, room))
}

/// The names that come after `crate::` in code that is no test's.
fn used(text: &str) -> BTreeSet<&str> {
    let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    let after = lines.flat_map(|line| line.split("crate::").skip(1));
    let end = |rest: &str| rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
    // Not names of types and constants at the top.
    let is_room = |name: &&str| name.starts_with(|c: char| c.is_ascii_lowercase());
    after.map(|rest| &rest[..end(rest)]).filter(is_room).collect()
}

fn judge(edges: &Edges<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for ((from, to), path) in edges {
        if FORBIDDEN.contains(&(from, to)) {
            let what = format!("`{from}` uses `crate::{to}`, another way to ask: move what both need down");
            findings.push(Finding::new(*path, what));
        } else if reaches(edges, to, from) {
            let what = format!("`{from}` uses `crate::{to}`, which reaches back to it: rooms make no circle");
            findings.push(Finding::new(*path, what));
        }
    }
    findings
}

/// Whether arrows lead from one room to another.
fn reaches<'a>(edges: &Edges<'a>, from: &'a str, to: &str) -> bool {
    let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
    while let Some(room) = next.pop() {
        if room == to {
            return true;
        }
        if seen.insert(room) {
            next.extend(edges.keys().filter(|(user, _)| *user == room).map(|(_, used)| *used));
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_belongs_to_the_module_at_the_top() {
        let check = |path, expect| assert_eq!(place(path), expect, "{path}");
        check("services/mcias/src/web/login.rs", Some(("mcias", "web")));
        check("services/mcias/src/web.rs", Some(("mcias", "web")));
        check("services/mcias/src/main.rs", None);
        check("services/mcias/src/bin/mciasctl/main.rs", None);
        check("services/mcias/src/domain/token/tests.rs", None);
        check("services/mcias/fuzz/src/token.rs", None);
        check("control/mcdsl/src/web.rs", None);
    }

    #[test]
    fn what_a_file_uses_stands_after_crate() {
        let text = "//! See [`crate::http`].\nuse crate::app::{A, B};\nfn f(a: crate::domain::Name) -> crate::Error {}\n\
            #[cfg(test)]\nmod tests {\n    use crate::web::X;\n}\n";
        assert_eq!(used(text), BTreeSet::from(["app", "domain"]));
    }

    #[test]
    fn rooms_make_no_circle_and_ways_to_ask_do_not_know_each_other() {
        let check = |edges: &[(&'static str, &'static str)], expect: &[&str]| {
            let edges = edges.iter().map(|edge| (*edge, "file")).collect();
            let found = judge(&edges);
            assert_eq!(found.len(), expect.len(), "{found:?}");
            assert!(found.iter().zip(expect).all(|(finding, part)| finding.what.contains(part)), "{found:?}");
        };
        check(&[("http", "app"), ("app", "store"), ("store", "domain"), ("app", "domain")], &[]);
        check(&[("grpc", "http"), ("web", "app")], &["`grpc` uses `crate::http`"]);
        check(&[("app", "store"), ("store", "domain"), ("domain", "app")], &["circle", "circle", "circle"]);
    }
}
