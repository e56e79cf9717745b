//! Finds the objects that `cargo xtask ebpf` has built, to be embedded.
//!
//! Where they are missing the crate is built without them and says so when it is asked to load: whoever only reads or
//! checks the code needs no second toolchain.

use std::path::{Path, PathBuf};

fn main() {
    println!("cargo::rerun-if-env-changed=MC_EBPF_OBJECT");
    let object = std::env::var_os("MC_EBPF_OBJECT")
        .map(PathBuf::from)
        .unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/ebpf/mc-ebpf"));
    println!("cargo::rerun-if-changed={}", object.display());
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo says where")).join("mc-ebpf");
    match std::fs::read(&object) {
        Ok(bytes) => std::fs::write(&out, bytes),
        Err(_) => {
            println!("cargo::warning=without eBPF: `cargo xtask ebpf` builds what runs in the kernel");
            std::fs::write(&out, [])
        }
    }
    .expect("the folder for what is built can be written");
}
