//! What the fuzz targets check, as plain functions over bytes: each panics where a property does not hold.
//!
//! They are here and not in the targets so that the seeds run as ordinary tests, on the stable toolchain.
//! With the feature `planted` each puts a shim with one bug around what it tests; a target that does not
//! find that within a minute is no good.

pub mod admin_validation;
pub mod client_hello;
pub mod http1;
pub mod proxy_protocol;

use std::sync::LazyLock;

/// Checks one input.
pub type Check = fn(&[u8]);

/// Every target by its name, which is that of its folder in `seeds/`.
pub const TARGETS: &[(&str, Check)] = &[
    ("admin_validation", admin_validation::check),
    ("client_hello", client_hello::check),
    ("http1", http1::check),
    ("proxy_protocol", proxy_protocol::check),
];

/// The target that `MC_FUZZ_TARGET` names.
///
/// # Panics
/// There is none of this name.
#[must_use]
pub fn chosen() -> Check {
    static CHOSEN: LazyLock<Check> = LazyLock::new(|| {
        let name = std::env::var("MC_FUZZ_TARGET").unwrap_or_default();
        let target = TARGETS.iter().find(|(known, _)| *known == name);
        target.unwrap_or_else(|| panic!("MC_FUZZ_TARGET: there is no target `{name}`")).1
    });
    *CHOSEN
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    /// Every seed of a target passes.
    fn run_seeds(target: &str, check: fn(&[u8])) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target);
        let mut seeds = 0;
        for entry in folder.read_dir().unwrap() {
            check(&std::fs::read(entry.unwrap().path()).unwrap());
            seeds += 1;
        }
        assert!(seeds >= 5, "{seeds} seeds in {}", folder.display());
    }

    #[test]
    fn seeds_pass() {
        for (target, check) in super::TARGETS {
            run_seeds(target, *check);
        }
        let folders = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").read_dir().unwrap();
        assert_eq!(folders.count(), super::TARGETS.len());
    }
}
