//! Starts real parts for tests: proxies, backends, hostile clients, namespaces and other people's programs.
//!
//! A test that uses these speaks over real sockets with the binary that is shipped, so that it outlives
//! every rewrite inside. Everything is blocking `std` with small threads: a test reads from top to bottom.
//! Nothing outlives its guard: processes are killed on drop (and by the kernel should the test process die),
//! namespaces live in file descriptors. Failures panic with what was seen, as tests do.

#[cfg(feature = "local")]
pub mod access;
pub mod backend;
pub mod ca;
pub mod client;
pub mod clock;
pub mod flood;
pub mod flow;
pub mod header;
pub mod hello;
pub mod http;
#[cfg(feature = "local")]
pub mod local;
pub mod logins;
pub mod machine;
pub mod mcias;
pub mod net;
pub mod peer;
pub mod process;
pub mod proxy;
pub mod service;
pub mod trace;

mod tools;

pub use tools::{
    fresh_address, fresh_ip, heavy, lacks, left_out, node, node_script, python_script, rounds, venv,
};

/// Debian packages that the tests need, one a line.
pub const PACKAGES: &str = include_str!("../packages.txt");

/// PyPI packages that the tests need, as pip reads them.
pub const REQUIREMENTS: &str = include_str!("../requirements.txt");

/// npm packages that the tests need, as npm reads them.
pub const NODE_PACKAGES: &str = include_str!("../package.json");

/// Leaves the test out, with a line that says why, where this machine lacks something: `requires!(root, "nginx")`.
/// With `CI=true` lacking something is a failure.
#[macro_export]
macro_rules! requires {
    (root $(, $tool:expr)* $(,)?) => { $crate::requires!(@ true, [$($tool),*]) };
    ($($tool:expr),* $(,)?) => { $crate::requires!(@ false, [$($tool),*]) };
    (@ $root:expr, $tools:expr) => {
        if let Some(reason) = $crate::lacks($root, &$tools) {
            $crate::left_out(&reason);
            return;
        }
    };
}
