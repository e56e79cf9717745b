//! What this machine offers to tests, and addresses that no other test uses.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What the test lacks: root, or a program. `None`: nothing.
#[must_use]
pub fn lacks(root: bool, tools: &[&str]) -> Option<String> {
    if root && !nix::unistd::geteuid().is_root() {
        return Some("needs root".to_owned());
    }
    let missing = tools.iter().find(|tool| find_program(tool).is_none())?;
    Some(format!("needs `{missing}` (see services/testkit/packages.txt)"))
}

/// Says that the running test is left out: a line that the test command counts.
///
/// # Panics
/// With `CI=true`: there every test must run.
#[expect(clippy::print_stdout, reason = "only tests call it, and the test harness reads it")]
pub fn left_out(reason: &str) {
    let current = std::thread::current();
    let test = current.name().unwrap_or("?");
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{test} cannot run here: {reason}");
    println!("LEFT OUT: {test}: {reason}");
}

/// Where a program is: in `PATH`, or where Debian keeps those for root.
fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// A loopback address that no other test of this or another test process uses.
#[must_use]
pub fn fresh_ip() -> IpAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let process = std::process::id();
    let byte = |n: u32| u8::try_from(n % 256).expect("a number below 256");
    // 127.16-239.*.*: 224 processes at a time, 62,500 addresses each.
    let second = 16 + byte(process % 224);
    let third = byte(process / 224 + number / 250);
    IpAddr::V4(Ipv4Addr::new(127, second, third, 2 + byte(number % 250)))
}

/// An address and port that nothing listens on and no other test uses.
#[must_use]
pub fn fresh_address() -> SocketAddr {
    SocketAddr::new(fresh_ip(), 4433)
}

/// Held by a test that fills the machine, so that only one such runs at a time.
pub fn heavy() -> MutexGuard<'static, ()> {
    static HEAVY: Mutex<()> = Mutex::new(());
    HEAVY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long a loop of kills, restarts or floods is: `few` rounds, or `many` with `cargo xtask test --long` (`MC_LONG=1`).
pub fn rounds<T>(few: T, many: T) -> T {
    if std::env::var_os("MC_LONG").is_some() { many } else { few }
}

/// A Python environment with [`crate::REQUIREMENTS`]: `MC_VENV`, or `target/venv`, made at first use.
///
/// # Panics
/// When it cannot be made.
#[must_use]
pub fn venv() -> PathBuf {
    static MAKING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(folder) = std::env::var_os("MC_VENV") {
        return folder.into();
    }
    let folder = target_dir().join("venv");
    let done = folder.join("requirements.txt");
    if std::fs::read_to_string(&done).is_ok_and(|text| text == crate::REQUIREMENTS) {
        return folder;
    }
    run(Command::new("python3").args(["-m", "venv"]).arg(&folder));
    let list = folder.join("wanted.txt");
    std::fs::write(&list, crate::REQUIREMENTS).expect("the environment's folder is ours");
    run(Command::new(folder.join("bin/pip")).args(["install", "--quiet", "-r"]).arg(&list));
    // Written last: an installation that was cut short is done again.
    std::fs::rename(&list, &done).expect("the environment's folder is ours");
    folder
}

/// A folder with the npm packages of [`crate::NODE_PACKAGES`]: `target/node`, made at first use. Scripts find it as `MC_NODE`.
///
/// # Panics
/// When it cannot be made.
#[must_use]
pub fn node() -> PathBuf {
    static MAKING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = target_dir().join("node");
    let done = folder.join("package.json");
    if std::fs::read_to_string(&done).is_ok_and(|text| text == crate::NODE_PACKAGES) {
        return folder;
    }
    let making = target_dir().join("node.new");
    std::fs::create_dir_all(&making).expect("the build's folder is ours");
    std::fs::write(making.join("package.json"), crate::NODE_PACKAGES).expect("the build's folder is ours");
    run(Command::new("npm")
        .args([
            "install",
            "--no-audit",
            "--no-fund",
            "--no-package-lock",
            "--ignore-scripts",
            "--loglevel=error",
        ])
        .current_dir(&making));
    // Renamed last: an installation that was cut short is done again.
    std::fs::remove_dir_all(&folder).unwrap_or(());
    std::fs::rename(&making, &folder).expect("the build's folder is ours");
    folder
}

/// Runs a script of `services/testkit/peers` by Node.js. What it prints as JSON.
///
/// # Panics
/// It fails, or prints something else.
pub fn node_script(script: &str, arguments: &[&str], environment: &[(&str, &str)]) -> serde_json::Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers").join(script);
    let mut command = Command::new("node");
    command.arg(path).args(arguments).env("MC_NODE", node()).envs(environment.iter().copied());
    printed(&mut command)
}

/// Runs a script of `services/testkit/peers` by Python, with [`venv`]. What it prints as JSON.
///
/// # Panics
/// It fails, or prints something else.
pub fn python_script(script: &str, arguments: &[&str], environment: &[(&str, &str)]) -> serde_json::Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers").join(script);
    let mut command = Command::new(venv().join("bin/python"));
    command.arg(path).args(arguments).envs(environment.iter().copied());
    printed(&mut command)
}

fn printed(command: &mut Command) -> serde_json::Value {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let [out, errors] =
        [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned());
    assert!(output.status.success(), "{command:?}: {out}{errors}");
    serde_json::from_str(&out).unwrap_or_else(|error| panic!("{command:?}: {error}: {out}{errors}"))
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The build's target folder.
pub(crate) fn target_dir() -> PathBuf {
    let profile = binaries_dir();
    profile.parent().map_or_else(|| profile.clone(), Path::to_path_buf)
}

/// Where this build's binaries are: beside the folder `deps` of the test executable.
pub(crate) fn binaries_dir() -> PathBuf {
    let test = std::env::current_exe().expect("a running program has a path");
    let mut folder = test.parent().expect("a file is in a folder").to_path_buf();
    if folder.ends_with("deps") {
        folder.pop();
    }
    folder
}
