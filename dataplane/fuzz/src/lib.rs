//! What the fuzz targets check, as plain functions over bytes: each panics where a property does not hold.
//!
//! They are here and not in the targets so that the seeds run as ordinary tests, on the stable toolchain.
//! With the feature `planted` each puts a shim with one bug around what it tests; a target that does not
//! find that within a minute is no good.

pub mod admin_validation;
pub mod client_hello;
pub mod http1;
pub mod proxy_protocol;

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
        run_seeds("client_hello", super::client_hello::check);
        run_seeds("proxy_protocol", super::proxy_protocol::check);
        run_seeds("http1", super::http1::check);
        run_seeds("admin_validation", super::admin_validation::check);
    }
}
