//! Installs what tests need: Debian packages where we are root, everything else into `target/tools`.
//!
//! Each package by its name through its ordinary client (apt-get, pip, npm, cargo). Nothing is installed twice,
//! nothing outside `target` but Debian packages. What is missing and cannot be installed is a line that says what to do.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::repo::{Repo, is_root, on_path, read, run};

/// What benchmarks compare with and load by, what one of the peers is built with (sozu: `protoc`), and what explains the
/// figures.
pub(crate) const FOR_BENCHMARKS: &[&str] = &[
    "ethtool",
    "haproxy",
    "libnginx-mod-stream",
    "linux-perf",
    "nftables",
    "nghttp2-client",
    "nginx",
    "protobuf-compiler",
];

/// What the test command needs besides the tests' own packages: C++ for fuzzing, npm for a database.
const FOR_THE_COMMAND: &[&str] = &["g++", "npm"];

/// Debian packages that tests need, one a line. The test kit keeps the list, which knows what it starts.
const PACKAGES: &str = "services/testkit/packages.txt";

/// PyPI packages that tests need, as pip reads them.
const REQUIREMENTS: &str = "services/testkit/requirements.txt";

/// Countries by address, CC0, IPv4 and IPv6 in one file.
const COUNTRIES: &str = "@ip-location-db/geo-whois-asn-country-mmdb";
const COUNTRIES_VERSION: &str = "2.3.2026061719";

/// What was found or installed.
#[derive(Debug, Default)]
pub(crate) struct Tools {
    /// Environment variables for tests that say where things are.
    pub(crate) env: Vec<(&'static str, PathBuf)>,
    /// What could not be had, each with its remedy.
    pub(crate) missing: Vec<String>,
}

/// Everything that the test command needs.
pub(crate) fn for_tests(repo: &Repo) -> Tools {
    let mut tools = Tools::default();
    tools.keep(read_list(repo, PACKAGES).and_then(|list| {
        let list: Vec<&str> = list.lines().chain(FOR_THE_COMMAND.iter().copied()).collect();
        packages(repo, &list)
    }));
    let venv = python(repo).context("Python's clients are missing");
    if let Some(venv) = tools.keep(venv) {
        tools.env.push(("MC_VENV", venv));
    }
    let countries = countries(repo).context("the country database is missing");
    if let Some(countries) = tools.keep(countries) {
        tools.env.push(("MC_COUNTRY_MMDB", countries));
    }
    tools
}

/// Installs Debian packages that are not there.
///
/// # Errors
/// Some are missing and cannot be installed: says which, and the line that installs them.
pub(crate) fn packages(repo: &Repo, wanted: &[&str]) -> Result<()> {
    let missing: Vec<&str> = wanted.iter().copied().filter(|package| !is_there(package)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let line = format!("apt-get install --no-install-recommends {}", missing.join(" "));
    anyhow::ensure!(on_path("apt-get"), "install what Debian calls {}", missing.join(", "));
    anyhow::ensure!(is_root(), "missing: {}. As root: {line}", missing.join(", "));
    eprintln!("setup: {line}");
    let apt = || {
        let mut apt = repo.command("apt-get");
        apt.env("DEBIAN_FRONTEND", "noninteractive").arg("--quiet=2");
        apt
    };
    run(apt().arg("update"))?;
    run(apt().args(["install", "--yes", "--no-install-recommends"]).args(&missing))
}

/// Installs a program from crates.io into `target/tools/bin` unless it is on the path.
///
/// # Errors
/// It does not build.
pub(crate) fn cargo_tool(repo: &Repo, name: &str, version: &str) -> Result<PathBuf> {
    let path = repo.tools().join("bin").join(name);
    if !path.is_file() && on_path(name) {
        return Ok(name.into());
    }
    // Up to date where this very version is there already: cargo sees to that.
    let mut install = repo.cargo();
    install.args(["install", "--locked", "--version", version, "--root"]).arg(repo.tools()).arg(name);
    // Its own target folder, kept: an interrupted build goes on where it was.
    install.env("CARGO_TARGET_DIR", repo.tools().join("build"));
    if !path.is_file() {
        eprintln!("setup: cargo install {name} --version {version} (a few minutes)");
        run(&mut install)?;
    }
    Ok(path)
}

impl Tools {
    fn keep<T>(&mut self, result: Result<T>) -> Option<T> {
        result.map_err(|error| self.missing.push(format!("{error:#}"))).ok()
    }
}

/// Whether what a Debian package brings is there, from it or from elsewhere.
fn is_there(package: &str) -> bool {
    if package == "python3-venv" {
        // Debian keeps what makes virtual environments in a package of its own.
        let mut probe = std::process::Command::new("python3");
        return read(probe.args(["-c", "import ensurepip, venv"])).is_ok();
    }
    if package == "linux-image-amd64" {
        // Its file has its version in its name.
        let names = std::fs::read_dir("/boot").into_iter().flatten().flatten();
        return names.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with("vmlinuz-"));
    }
    let sign = sign(package);
    if sign.starts_with('/') { Path::new(sign).exists() } else { on_path(sign) }
}

/// The program or file by which one sees that a package is there.
fn sign(package: &str) -> &str {
    match package {
        "binutils" => "strip",
        "busybox-static" => "busybox",
        "cargo-web" => "/usr/bin/cargo",
        "g++" => "c++",
        "gnutls-bin" => "gnutls-cli",
        "iproute2" => "ip",
        "kmod" => "modprobe",
        "libnginx-mod-stream" => "/usr/lib/nginx/modules/ngx_stream_module.so",
        "linux-perf" => "perf",
        "nghttp2-client" => "h2load",
        "protobuf-compiler" => "protoc",
        "qemu-system-x86" => "qemu-system-x86_64",
        "rust-web-src" => "/usr/lib/rustlib/src/rust/library/core/Cargo.toml",
        "rustc-web" => "/usr/bin/rustc",
        "testssl.sh" => "testssl",
        same => same,
    }
}

fn read_list(repo: &Repo, path: &str) -> Result<String> {
    std::fs::read_to_string(repo.root.join(path)).with_context(|| format!("cannot read {path}"))
}

fn python(repo: &Repo) -> Result<PathBuf> {
    let wanted = read_list(repo, REQUIREMENTS)?;
    let venv = repo.tools().join("venv");
    // The stamp's name and content are what the test kit looks for.
    once(&venv, "requirements.txt", &wanted, || {
        eprintln!("setup: pip install -r {REQUIREMENTS}");
        run(repo.command("python3").args(["-m", "venv", "--clear"]).arg(&venv))?;
        run(repo.command(venv.join("bin/pip")).args(["install", "--quiet", "-r", REQUIREMENTS]))
    })?;
    Ok(venv)
}

fn countries(repo: &Repo) -> Result<PathBuf> {
    let folder = repo.tools().join("npm");
    once(&folder, ".made-for", COUNTRIES_VERSION, || {
        eprintln!("setup: npm install {COUNTRIES}");
        let mut npm = repo.command("npm");
        npm.args(["install", "--silent", "--no-audit", "--no-fund", "--no-save", "--prefix"]).arg(&folder);
        run(npm.arg(format!("{COUNTRIES}@{COUNTRIES_VERSION}")))
    })?;
    let file = folder.join("node_modules").join(COUNTRIES).join("geo-whois-asn-country.mmdb");
    anyhow::ensure!(file.is_file(), "{COUNTRIES} has no {}", file.display());
    Ok(file)
}

/// Runs `make` unless it has succeeded in this folder for the same `wanted` before.
fn once(folder: &Path, stamp: &str, wanted: &str, make: impl FnOnce() -> Result<()>) -> Result<()> {
    let stamp = folder.join(stamp);
    if std::fs::read_to_string(&stamp).is_ok_and(|made| made == wanted) {
        return Ok(());
    }
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    make()?;
    std::fs::write(&stamp, wanted).with_context(|| format!("cannot write {}", stamp.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn something_is_made_once_for_each_wish() {
        let folder = std::env::temp_dir().join(format!("xtask-once-{}", std::process::id()));
        let made = std::cell::Cell::new(0);
        let make = || {
            made.set(made.get() + 1);
            Ok(())
        };
        once(&folder, "stamp", "a", || anyhow::bail!("no network")).unwrap_err();
        once(&folder, "stamp", "a", make).unwrap();
        once(&folder, "stamp", "a", make).unwrap();
        assert_eq!(made.get(), 1);
        once(&folder, "stamp", "b", make).unwrap();
        assert_eq!(made.get(), 2);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_package_is_seen_by_its_program_or_file() {
        let check = |package, expect| assert_eq!(is_there(package), expect, "{package}");
        check("sh", true);
        check("no-such-program", false);
        check("/proc/self/status", true);
        check("/no/such/file", false);
        assert_eq!(sign("iproute2"), "ip");
    }
}
