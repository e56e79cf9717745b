//! Rules about the modules of a crate: those beside each other make no circle, at any depth, and each interface of a service (REST,
//! gRPC, pages) knows the use cases and not the other interfaces.
//!
//! A module and what is inside it count as one for those beside it. Found by the text: `use` with `crate`, `super` or `self`, and
//! such paths in code.

use std::collections::{BTreeMap, BTreeSet};

use super::{Finding, Tree};

/// Modules of services that may not know others, by name.
const FORBIDDEN: &[(&str, &str)] = &[("grpc", "http"), ("web", "http")];

/// A module by its path from the crate's root.
type Module<'a> = Vec<&'a str>;

/// Which module uses which of those beside it, with a file that shows it.
type Edges<'a> = BTreeMap<(&'a str, &'a str), &'a str>;

/// The files of one crate.
#[derive(Default)]
struct Crate<'a> {
    modules: BTreeMap<Module<'a>, (&'a str, &'a str)>,
}

pub(super) fn modules(tree: &Tree) -> Vec<Finding> {
    let mut crates: BTreeMap<&str, Crate<'_>> = BTreeMap::new();
    for (path, text) in tree.texts(".rs") {
        if let Some((root, module)) = place(path) {
            crates.entry(root).or_default().modules.insert(module, (path, text));
        }
    }
    let judge = |(root, members): (&&str, &Crate<'_>)| {
        let is_service = root.starts_with("services/");
        members.beside().into_values().flat_map(|edges| judge(&edges, is_service)).collect::<Vec<_>>()
    };
    crates.iter().flat_map(judge).collect()
}

/// The folder of the crate that a file belongs to, and its module. What starts a program knows all others, and is none.
fn place(path: &str) -> Option<(&str, Module<'_>)> {
    let src = path.find("/src/")? + "/src/".len();
    // Each program of `bin` is a crate.
    let root = match path[src..].strip_prefix("bin/").and_then(|rest| rest.find('/')) {
        Some(name) => src + "bin/".len() + name + 1,
        None => src,
    };
    let file = path[root..].strip_suffix(".rs")?;
    let mut module: Module<'_> = file.split('/').collect();
    if module.last() == Some(&"mod") {
        module.pop();
    }
    let is_none = matches!(module[..], ["lib" | "main"]) || module.contains(&"tests");
    (!is_none).then_some((&path[..root], module))
}

impl<'a> Crate<'a> {
    /// For each module that has modules inside: which of those uses which.
    fn beside(&self) -> BTreeMap<Module<'a>, Edges<'a>> {
        let mut all: BTreeMap<Module<'a>, Edges<'a>> = BTreeMap::new();
        for (user, (path, text)) in &self.modules {
            for used in used(user, text) {
                let Some(used) = self.known(&used) else { continue };
                let common = user.iter().zip(used).take_while(|(one, other)| one == other).count();
                if let (Some(from), Some(to)) = (user.get(common), used.get(common)) {
                    all.entry(user[..common].to_vec()).or_default().insert((from, to), path);
                }
            }
        }
        all
    }

    /// The module in which this path ends.
    fn known(&self, path: &[&'a str]) -> Option<&Module<'a>> {
        (1..=path.len())
            .rev()
            .find_map(|len| self.modules.get_key_value(&path[..len]))
            .map(|(module, _)| module)
    }
}

/// The paths from the crate's root that a module's code names, tests left out.
fn used<'a>(module: &[&'a str], text: &'a str) -> Vec<Module<'a>> {
    let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let mut found = Vec::new();
    for start in ["crate::", "super::", "self::"] {
        for (at, _) in code.match_indices(start) {
            let line = &code[code[..at].rfind('\n').map_or(0, |end| end + 1)..at];
            // A longer path is found by its beginning, and comments use nothing.
            if !line.contains("//")
                && !code[..at].ends_with(|c: char| c == ':' || c == '_' || c.is_alphanumeric())
            {
                expand(module, &[], &code[at..], &mut found);
            }
        }
    }
    found
}

/// Takes one path, or a tree of them in braces, from the beginning of `text`; gives what follows it.
fn expand<'a>(module: &[&'a str], before: &[&'a str], text: &'a str, found: &mut Vec<Module<'a>>) -> &'a str {
    let (mut path, mut rest) = (before.to_vec(), text);
    loop {
        let len = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        if len > 0 {
            path.push(&rest[..len]);
            rest = &rest[len..];
        }
        match rest.strip_prefix("::") {
            Some(more) if more.starts_with('{') => {
                let mut inner = &more[1..];
                loop {
                    inner = expand(module, &path, inner.trim_start(), found);
                    let end = inner.find([',', '}']).unwrap_or(inner.len());
                    inner = inner[end..].strip_prefix(',').map_or(&inner[end..], str::trim_start);
                    if inner.is_empty() || inner.starts_with('}') {
                        return inner.strip_prefix('}').unwrap_or(inner);
                    }
                }
            }
            Some(more) => rest = more,
            None => break,
        }
        if len == 0 {
            break;
        }
    }
    let ups = path.iter().take_while(|part| **part == "super").count();
    let (base, path) = match path.first() {
        Some(&"crate") => (&[][..], &path[1..]),
        Some(&"self") => (module, &path[1..]),
        _ => (&module[..module.len().saturating_sub(ups)], &path[ups..]),
    };
    found.push([base, path].concat());
    rest
}

fn judge(edges: &Edges<'_>, is_service: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    for ((from, to), path) in edges {
        if is_service && FORBIDDEN.contains(&(from, to)) {
            let what = format!("`{from}` uses `{to}`, another interface: move what both need down");
            findings.push(Finding::new(*path, what));
        } else if reaches(edges, to, from) {
            let what = format!("`{from}` uses `{to}`, which reaches back to it: move what both need down");
            findings.push(Finding::new(*path, what));
        }
    }
    findings
}

/// Whether arrows lead from one module to another.
fn reaches<'a>(edges: &Edges<'a>, from: &'a str, to: &str) -> bool {
    let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
    while let Some(module) = next.pop() {
        if module == to {
            return true;
        }
        if seen.insert(module) {
            next.extend(edges.keys().filter(|(user, _)| *user == module).map(|(_, used)| *used));
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_a_module_of_its_crate() {
        let check = |path, expect: Option<(&str, &[&str])>| {
            assert_eq!(place(path), expect.map(|(root, module)| (root, module.to_vec())), "{path}");
        };
        check("services/mcias/src/web/login.rs", Some(("services/mcias/src/", &["web", "login"])));
        check("services/mcias/src/web/mod.rs", Some(("services/mcias/src/", &["web"])));
        check("services/mcias/src/main.rs", None);
        check("services/mcias/src/bin/ctl/commands.rs", Some(("services/mcias/src/bin/ctl/", &["commands"])));
        check("services/mcias/src/bin/ctl/main.rs", None);
        check("services/mcias/src/domain/token/tests.rs", None);
        check("services/mcias/tests/it/main.rs", None);
        check("xtask/src/up.rs", Some(("xtask/src/", &["up"])));
    }

    #[test]
    fn paths_are_found_in_uses_and_in_code() {
        let text = "//! See [`crate::http`].\nuse crate::app::{A, inner::{B, C}, self};\nuse super::super::top::D;\n\
            // crate::not::this\nfn f(a: crate::domain::Name) -> super::Error { self::below::g(); my_crate::x() }\n\
            #[cfg(test)]\nmod tests {\n    use crate::web::X;\n}\n";
        let found: BTreeSet<String> =
            used(&["web", "login"], text).into_iter().map(|path| path.join("::")).collect();
        let expect = [
            "app::A",
            "app::inner::B",
            "app::inner::C",
            "app::self",
            "domain::Name",
            "top::D",
            "web::Error",
            "web::login::below::g",
        ];
        assert_eq!(found, expect.map(str::to_owned).into());
    }

    #[test]
    fn circles_are_found_at_every_depth_and_interfaces_do_not_know_each_other() {
        let check = |files: &[(&'static str, &'static str)], expect: &[&str]| {
            let mut members = Crate::default();
            for (module, text) in files {
                members.modules.insert(module.split("::").collect(), ("file", text));
            }
            let found: Vec<Finding> =
                members.beside().into_values().flat_map(|edges| judge(&edges, true)).collect();
            assert_eq!(found.len(), expect.len(), "{found:?}");
            assert!(found.iter().zip(expect).all(|(finding, part)| finding.what.contains(part)), "{found:?}");
        };
        check(&[("http", "use crate::app::A;"), ("app", "use crate::store;"), ("store", "")], &[]);
        check(&[("grpc", "use crate::http::X;"), ("http", "")], &["`grpc` uses `http`"]);
        let circle =
            [("app", "use crate::store::X;"), ("store", "crate::domain::f()"), ("domain", "use super::app;")];
        check(&circle, &["reaches back"; 3]);
        // A module and what is inside it are one.
        check(&[("app", "use self::me::X;"), ("app::me", "use super::Y;")], &[]);
        check(
            &[("app", ""), ("app::me", "use crate::store;"), ("store", "use crate::app;")],
            &["reaches back"; 2],
        );
        check(&[("app::a", "use super::b::X;"), ("app::b", "use crate::app::a::Y;")], &["reaches back"; 2]);
    }
}
