//! Finds the objects that `cargo xtask ebpf` has built, to be embedded.
//!
//! Where they are missing the crate is built without them and says so when it is asked to load: whoever only reads or
//! checks the code needs no second toolchain.

use std::path::{Path, PathBuf};

fn main() {
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo says where"));
    // <target>/<profile>/build/<package>/out
    let folder = out.ancestors().nth(4).unwrap_or(Path::new("target")).join("ebpf");
    for name in ["mc-ebpf", "mc-steer", "mc-generate"] {
        let object = folder.join(name);
        println!("cargo::rerun-if-changed={}", object.display());
        let bytes = std::fs::read(&object).unwrap_or_default();
        if bytes.is_empty() {
            println!("cargo::warning=without {name}: `cargo xtask ebpf` builds what runs in the kernel");
        }
        std::fs::write(out.join(name), bytes).expect("the folder for what is built can be written");
    }
}
