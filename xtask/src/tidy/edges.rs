//! Rules about which crate may know which: arrows point one way, from programs down to shared bytes.

use std::collections::BTreeSet;

use cargo_metadata::DependencyKind;

use super::{Finding, Tree};

/// How high a crate stands. It may depend on what stands lower, never on its equals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Layer {
    /// Bytes that the kernel and user space share.
    Abi,
    /// Decisions: no socket, no clock, no SQL.
    Core,
    /// What travels between programs, and clients for it.
    Shape,
    /// Unsafe in a small space, servers, stores.
    Fence,
    /// What is started: programs and services. They speak to each other over the wire only.
    Program,
    /// Starts programs for tests, or looks into them. Only tests may depend on it, and what measures.
    Testkit,
}

/// Every crate of the workspace. A new one gets its line here, in the same change as `docs/ARCHITECTURE.md`.
const LAYERS: &[(&str, Layer)] = &[
    ("mc-ebpf-abi", Layer::Abi),
    ("mc-core", Layer::Core),
    ("mc-uring", Layer::Fence),
    ("mc-xdp", Layer::Fence),
    ("mc-api", Layer::Shape),
    ("mcdsl", Layer::Fence),
    ("mc-proxy", Layer::Program),
    ("mcat", Layer::Program),
    ("mcias", Layer::Program),
    ("mcproxyctl", Layer::Program),
    ("mc-bench", Layer::Program),
    ("mc-demo", Layer::Program),
    ("xtask", Layer::Program),
    ("mc-testkit", Layer::Testkit),
    ("mc-fuzz", Layer::Testkit),
    ("mcias-fuzz", Layer::Testkit),
];

/// What would bring a socket, a clock, a runtime or SQL into a pure crate.
const IMPURE: &[&str] = &[
    "tokio",
    "monoio",
    "mio",
    "async-std",
    "socket2",
    "io-uring",
    "hyper",
    "tonic",
    "rusqlite",
    "libsqlite3-sys",
];

pub(super) fn edges(tree: &Tree) -> Vec<Finding> {
    let members: BTreeSet<&str> =
        tree.metadata.workspace_packages().iter().map(|p| p.name.as_str()).collect();
    let mut findings = Vec::new();
    for package in tree.metadata.workspace_packages() {
        let Some(layer) = layer(&package.name) else {
            let what = "has no layer: add it in xtask/src/tidy/edges.rs and to docs/ARCHITECTURE.md";
            findings.push(Finding::new(package.name.as_str(), what));
            continue;
        };
        for dependency in &package.dependencies {
            if members.contains(dependency.name.as_str()) {
                let for_tests = dependency.kind == DependencyKind::Development;
                findings.extend(edge(&package.name, layer, &dependency.name, for_tests));
            }
        }
    }
    findings
}

pub(super) fn purity(tree: &Tree) -> Vec<Finding> {
    tree.pure.iter().flat_map(|(name, runs_with)| impure(name, runs_with)).collect()
}

/// The crates that know no socket, clock, runtime or SQL.
pub(super) fn pure() -> impl Iterator<Item = &'static str> {
    LAYERS.iter().filter(|(_, layer)| *layer <= Layer::Core).map(|(name, _)| *name)
}

fn layer(name: &str) -> Option<Layer> {
    LAYERS.iter().find(|(known, _)| *known == name).map(|(_, layer)| *layer)
}

fn edge(from: &str, layer_from: Layer, to: &str, for_tests: bool) -> Option<Finding> {
    // Whether the other has a layer is found where it is looked at itself.
    let layer_to = layer(to)?;
    // What measures is not shipped either, and lays out hosts as tests do.
    let is_for_us = for_tests || from == "mc-bench";
    let allowed = layer_to < layer_from || (is_for_us && layer_to == Layer::Testkit);
    let what = match layer_to {
        Layer::Testkit => format!("depends on {to}, which is for [dev-dependencies] only, and for mc-bench"),
        Layer::Program => format!("depends on {to}, a program: speak to it over the wire, through mc-api"),
        _ => format!("depends on {to}, which does not stand lower: move what both need down"),
    };
    (!allowed).then(|| Finding::new(from, what))
}

fn impure(name: &str, runs_with: &BTreeSet<String>) -> Vec<Finding> {
    let found = IMPURE.iter().filter(|other| runs_with.contains(**other));
    let what = |other| format!("reaches {other}: a pure crate takes bytes and times as values");
    found.map(|other| Finding::new(name, what(other))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrows_point_down() {
        let check = |from: &str, to: &str, for_tests: bool, allowed: bool| {
            let layer = layer(from).unwrap();
            assert_eq!(edge(from, layer, to, for_tests).is_none(), allowed, "{from} -> {to}");
        };
        check("mc-proxy", "mc-core", false, true);
        check("mc-core", "mc-ebpf-abi", false, true);
        check("mc-api", "mc-core", false, true);
        check("mc-core", "mc-api", false, false);
        check("mc-api", "mc-uring", false, false);
        check("mcproxyctl", "mc-proxy", false, false);
        check("mc-proxy", "mc-testkit", true, true);
        check("mc-proxy", "mc-testkit", false, false);
        check("mc-bench", "mc-testkit", false, true);
        check("mc-bench", "mc-proxy", true, false);
    }

    #[test]
    fn a_pure_crate_runs_with_nothing_impure() {
        let check = |others: &[&str], findings: usize| {
            let others = others.iter().map(|&name| name.to_owned()).collect();
            assert_eq!(impure("mc-core", &others).len(), findings, "{others:?}");
        };
        check(&["mc-core", "serde", "memchr"], 0);
        check(&["mc-core", "helper", "tokio", "mio"], 2);
    }
}
