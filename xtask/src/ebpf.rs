//! `cargo xtask ebpf`: builds what of MC-Proxy runs in the kernel, to be embedded in `mc-proxy`.
//!
//! That takes a compiler with the library's sources, because nobody ships `core` for the kernel's machine, and a linker
//! (bpf-linker) built against the LLVM of that compiler. Either is had in one of two ways: rustup's nightly with
//! `rust-src`, or Debian's `rustc-web`, which is what a machine without rustup gets. The linker is built once.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::clock::{Stopwatch, words};
use crate::repo::{Repo, read, run as run_command};
use crate::setup;

/// Debian's compiler, its cargo, and the library's sources.
const PACKAGES: &[&str] = &["rustc-web", "cargo-web", "rust-web-src"];

/// What is built, by the names of the programs.
const OBJECTS: [&str; 3] = ["mc-ebpf", "mc-steer", "mc-generate"];

const BPF_LINKER: &str = "0.13.0";

/// Little-endian machines, which all that MC-Proxy runs on are.
const TARGET: &str = "bpfel-unknown-none";

/// What cargo adds of its own: the instructions that Linux 5.12 and newer has (atomic exchanges among them), and the
/// types of maps.
const FLAGS: &str = "-C debuginfo=2 -C link-arg=--btf -C target-cpu=v3";

/// A compiler that can do it.
struct Toolchain {
    maker: Maker,
    /// Its library of LLVM, and which version that is.
    llvm: PathBuf,
    major: String,
}

/// Whose compiler it is.
enum Maker {
    Rustup,
    Debian,
}

/// Builds the objects, and says where they are.
///
/// # Errors
/// There is no toolchain, and none can be installed; or they do not build.
pub(crate) fn run(repo: &Repo) -> Result<bool> {
    let watch = Stopwatch::start();
    let folder = build(repo)?;
    eprintln!("ebpf: {} in {}", folder.display(), words(watch.elapsed()));
    Ok(true)
}

/// As [`run`].
///
/// # Errors
/// As there.
pub(crate) fn build(repo: &Repo) -> Result<PathBuf> {
    let toolchain = Toolchain::find(repo)?;
    let linker = toolchain.linker(repo)?;
    let folder = repo.target.join("ebpf");
    let mut build = toolchain.cargo(repo);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = linker.parent().map(Path::to_owned).into_iter().chain(std::env::split_paths(&path));
    build
        .current_dir(repo.root.join("ebpf/programs"))
        .env("PATH", std::env::join_paths(path).context("the search path")?)
        .env("CARGO_TARGET_DIR", folder.join("build"))
        .env("RUSTFLAGS", FLAGS)
        .args(["build", "--quiet", "--release", "--locked", "--target", TARGET, "-Z", "build-std=core"]);
    run_command(&mut build)?;
    for name in OBJECTS {
        let built = folder.join("build").join(TARGET).join("release").join(name);
        let object = folder.join(name);
        let bytes = std::fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
        // Left alone where it is the same, so that what embeds it is not built again.
        if std::fs::read(&object).ok().as_ref() != Some(&bytes) {
            std::fs::write(&object, bytes).with_context(|| format!("cannot write {}", object.display()))?;
        }
    }
    Ok(folder)
}

/// Whether the objects are there.
pub(crate) fn is_built(repo: &Repo) -> bool {
    OBJECTS.iter().all(|name| repo.target.join("ebpf").join(name).is_file())
}

/// Builds the objects where that can be. Without them the program works, and judges in user space alone.
pub(crate) fn build_if_possible(repo: &Repo) {
    eprintln!("ebpf: building what runs in the kernel");
    if let Err(error) = build(repo) {
        eprintln!("ebpf: left out: {error:#}");
    }
}

impl Toolchain {
    fn find(repo: &Repo) -> Result<Self> {
        if let Some(sysroot) = nightly(repo)
            && sysroot.join("lib/rustlib/src/rust/library/core").is_dir()
        {
            let mut rustc = repo.command("rustc");
            rustc.env("RUSTUP_TOOLCHAIN", "nightly");
            return Self::with(Maker::Rustup, &mut rustc, &sysroot.join("lib"));
        }
        setup::packages(repo, PACKAGES).context(
            "eBPF needs `rustup component add rust-src --toolchain nightly`, or Debian's rustc-web",
        )?;
        let folder = format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH);
        Self::with(Maker::Debian, &mut repo.command(DEBIAN_RUSTC), Path::new(&folder))
    }

    /// This compiler, with its LLVM, which is in `folder`.
    fn with(maker: Maker, rustc: &mut Command, folder: &Path) -> Result<Self> {
        let said = read(rustc.arg("-vV"))?;
        let version = said.lines().find_map(|line| line.strip_prefix("LLVM version: "));
        let version = version.context("rustc does not say which LLVM it has")?;
        let (major, minor) = version.split_once('.').context("the version of LLVM has one part only")?;
        let name = format!("libLLVM.so.{major}.{}", minor.split('.').next().unwrap_or_default());
        let of_rust = |release: &str| folder.join(format!("{name}-rust-{release}"));
        let release = said.lines().find_map(|line| line.strip_prefix("release: ")).unwrap_or_default();
        // rustup's has the compiler's own version in its name.
        let llvm = [folder.join(&name), of_rust(release)].into_iter().find(|path| path.is_file());
        let llvm = llvm.with_context(|| format!("there is no {name} in {}", folder.display()))?;
        Ok(Self { maker, llvm, major: major.to_owned() })
    }

    fn cargo(&self, repo: &Repo) -> Command {
        match self.maker {
            Maker::Rustup => repo.nightly_cargo(),
            Maker::Debian => {
                let mut cargo = repo.cargo_at("/usr/bin/cargo");
                // Building the library is allowed to nightly compilers only, by name.
                cargo.env("RUSTC_BOOTSTRAP", "1").env("RUSTC", DEBIAN_RUSTC);
                cargo
            }
        }
    }

    /// The linker, built against this compiler's LLVM, kept in `target/tools`.
    fn linker(&self, repo: &Repo) -> Result<PathBuf> {
        let name = self.llvm.file_name().context("a file")?.to_string_lossy().into_owned();
        let folder = repo.tools().join("bpf-linker").join(&name);
        let linker = folder.join("bin/bpf-linker");
        if linker.is_file() {
            return Ok(linker);
        }
        eprintln!("ebpf: cargo install bpf-linker --version {BPF_LINKER} for {name} (a minute)");
        // What looks for LLVM looks for a folder of it.
        let lib = folder.join("llvm/lib");
        std::fs::create_dir_all(&lib).with_context(|| format!("cannot make {}", lib.display()))?;
        let link = lib.join("libLLVM.so");
        if !link.is_symlink() {
            std::os::unix::fs::symlink(&self.llvm, &link)
                .with_context(|| format!("cannot make {}", link.display()))?;
        }
        let found_at_run_time = self.llvm.parent().context("a folder")?.display();
        let mut install = repo.cargo();
        install
            .args(["install", "--locked", "--version", BPF_LINKER, "--no-default-features"])
            .args(["--features", &format!("llvm-{}", self.major), "--root"])
            .arg(&folder)
            .arg("bpf-linker")
            .env("LLVM_PREFIX", folder.join("llvm"))
            .env("RUSTFLAGS", format!("-C link-arg=-Wl,-rpath,{found_at_run_time}"))
            .env("CARGO_TARGET_DIR", repo.tools().join("build"));
        run_command(&mut install)?;
        Ok(linker)
    }
}

const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

/// Where rustup's nightly is.
fn nightly(repo: &Repo) -> Option<PathBuf> {
    let mut rustc = repo.command("rustc");
    rustc.env("RUSTUP_TOOLCHAIN", "nightly").args(["--print", "sysroot"]);
    Some(read(&mut rustc).ok()?.trim().into())
}
