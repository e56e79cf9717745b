//! What the fuzz targets check, as plain functions over bytes: each panics where a property does not hold.
//!
//! They are here and not in the targets so that the seeds run as ordinary tests, on the stable toolchain.
//! With the feature `planted` each puts a shim with one bug around what it tests; a target that does not
//! find that within a minute is no good.

pub mod account_name;
pub mod archive;
pub mod browser;
pub mod login_policy;
pub mod password_hash;
pub mod recovery_code;
pub mod token;
pub mod totp_code;

use std::sync::LazyLock;

/// Checks one input.
pub type Check = fn(&[u8]);

/// Every target by its name, which is that of its folder in `seeds/`.
pub const TARGETS: &[(&str, Check)] = &[
    ("account_name", account_name::check),
    ("archive", archive::check),
    ("browser", browser::check),
    ("login_policy", login_policy::check),
    ("password_hash", password_hash::check),
    ("recovery_code", recovery_code::check),
    ("token", token::check),
    ("totp_code", totp_code::check),
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

    /// What is mutated is something that is taken, or little would be seen of the rest.
    #[test]
    fn sound_archives_are_among_the_seeds() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds/archive");
        for seed in ["00", "01"] {
            assert!(super::archive::is_taken(&std::fs::read(folder.join(seed)).unwrap()), "{seed}");
        }
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
