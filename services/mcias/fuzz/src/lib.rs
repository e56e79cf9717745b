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
        run_seeds("account_name", super::account_name::check);
        run_seeds("archive", super::archive::check);
        run_seeds("browser", super::browser::check);
        run_seeds("login_policy", super::login_policy::check);
        run_seeds("password_hash", super::password_hash::check);
        run_seeds("recovery_code", super::recovery_code::check);
        run_seeds("token", super::token::check);
        run_seeds("totp_code", super::totp_code::check);
    }
}
