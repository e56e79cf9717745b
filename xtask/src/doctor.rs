//! `cargo xtask doctor`: what this machine offers and lacks, why it matters, and what to do.
//!
//! Probes do the thing where that is harmless (make a ring, make a network namespace) instead of guessing from
//! versions; they change nothing.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;
use serde::Serialize;

use crate::repo::{is_root, on_path, read};
use crate::table::render;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// A table to read, or JSON.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Output {
    Table,
    Json,
}

/// How good it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    /// There.
    Ok,
    /// Something works less well, or a part of the project cannot be built or tested.
    Lacks,
    /// MC-Proxy cannot run.
    Missing,
}

/// Something that was looked at.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Row {
    what: &'static str,
    state: State,
    found: String,
    /// What it is for.
    purpose: &'static str,
    /// What to do; empty where nothing is to be done.
    remedy: String,
}

/// Prints what was found and says whether MC-Proxy can run here.
///
/// # Errors
/// None of the probes fails: what cannot be found out is missing.
pub(crate) fn run(args: &Args) -> Result<bool> {
    let rows = rows();
    match args.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&rows)?),
        Output::Table => {
            let cells: Vec<_> = rows.iter().map(cells).collect();
            print!("{}", render(&["what", "state", "found", "for"], &cells, &[]));
            for row in rows.iter().filter(|row| !row.remedy.is_empty()) {
                println!("\n{}: {}", row.what, row.remedy);
            }
        }
    }
    Ok(rows.iter().all(|row| row.state != State::Missing))
}

fn rows() -> Vec<Row> {
    let mut rows = vec![kernel(&trimmed("/proc/sys/kernel/osrelease"))];
    rows.extend(rings());
    rows.push(open_files(&trimmed("/proc/self/limits")));
    rows.push(low_ports(&trimmed("/proc/sys/net/ipv4/ip_unprivileged_port_start"), capabilities()));
    rows.push(ephemeral_ports(&trimmed("/proc/sys/net/ipv4/ip_local_port_range")));
    rows.push(congestion(&trimmed("/proc/sys/net/ipv4/tcp_congestion_control")));
    rows.extend(bpf());
    rows.push(kernel_tls(&trimmed("/proc/sys/net/ipv4/tcp_available_ulp")));
    rows.push(namespaces());
    rows.push(toolchain());
    rows.extend(TOOLS.iter().map(tool));
    rows
}

/// Programs: name, what for, what to do without.
const TOOLS: &[(&str, &str, &str)] = &[
    ("cargo-deny", "advisories in `cargo xtask lint`", "cargo install cargo-deny --locked"),
    ("haproxy", "tests and benchmarks with peers", "apt-get install haproxy"),
    ("nginx", "tests and benchmarks with peers", "apt-get install nginx libnginx-mod-stream"),
    ("openssl", "tests with another TLS client", "apt-get install openssl"),
    ("curl", "the demo's lines and tests", "apt-get install curl"),
    ("npm", "the country database that tests use", "apt-get install npm"),
    ("perf", "profiles of benchmarks", "apt-get install linux-perf"),
    ("podman", "containers, later", "apt-get install podman netavark slirp4netns uidmap"),
    ("qemu-system-x86_64", "tests of kernel TLS and of an older kernel", "apt-get install qemu-system-x86"),
];

fn kernel(release: &str) -> Row {
    let version = version(release);
    let remedy = "the ring that workers use needs Linux 6.1 or newer";
    let good = version.is_some_and(|version| version >= (6, 1));
    row("kernel", if good { State::Ok } else { State::Missing }, release, "everything", remedy)
}

fn rings() -> [Row; 2] {
    let disabled = trimmed("/proc/sys/kernel/io_uring_disabled");
    let plain = io_uring::IoUring::new(8);
    let tuned = io_uring::IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(8);
    let found = |ring: &std::io::Result<io_uring::IoUring>| match ring {
        Ok(_) => "works".to_owned(),
        Err(error) => error.to_string(),
    };
    let remedy = match disabled.as_str() {
        "1" => {
            "kernel.io_uring_disabled is 1: sysctl -w kernel.io_uring_disabled=0, or run in its io_uring_group"
        }
        "2" => "kernel.io_uring_disabled is 2: sysctl -w kernel.io_uring_disabled=0",
        _ => "where the kernel is new enough, a container's seccomp profile forbids it: allow io_uring_*",
    };
    let state =
        |ring: &std::io::Result<io_uring::IoUring>| if ring.is_ok() { State::Ok } else { State::Missing };
    let tuned_remedy = if plain.is_ok() { "needs Linux 6.1 or newer" } else { remedy };
    [
        row("io_uring", state(&plain), found(&plain), "workers", remedy),
        row("SINGLE_ISSUER, DEFER_TASKRUN", state(&tuned), found(&tuned), "workers", tuned_remedy),
    ]
}

fn open_files(limits: &str) -> Row {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let mut words = line.unwrap_or_default().split_whitespace();
    let (soft, hard) = (words.next().unwrap_or("?"), words.next().unwrap_or("?"));
    let enough = hard == "unlimited" || hard.parse::<u64>().is_ok_and(|hard| hard >= 20_000);
    let remedy = "two for each connection (four while it moves bulk): raise the hard limit (`LimitNOFILE=` in the unit, \
                  /etc/security/limits.conf)";
    let state = if enough { State::Ok } else { State::Lacks };
    row(
        "open files",
        state,
        format!("{soft}, may be raised to {hard}"),
        "many connections; the test with 9,500",
        remedy,
    )
}

fn low_ports(start: &str, capabilities: u64) -> Row {
    const NET_BIND_SERVICE: u64 = 1 << 10;
    let may = capabilities & NET_BIND_SERVICE != 0 || start.parse::<u32>().is_ok_and(|start| start <= 443);
    let found = if may { "allowed".to_owned() } else { format!("from {start} up") };
    let remedy = "run as root, grant CAP_NET_BIND_SERVICE (deploy/mc-proxy.service does), or \
                  sysctl -w net.ipv4.ip_unprivileged_port_start=443";
    row("ports below 1024", if may { State::Ok } else { State::Lacks }, found, "listening on 443", remedy)
}

fn ephemeral_ports(range: &str) -> Row {
    let mut bounds = range.split_whitespace().filter_map(|word| word.parse::<u32>().ok());
    let count = bounds.next().zip(bounds.next()).map_or(0, |(low, high)| (high + 1).saturating_sub(low));
    let remedy = "each backend address gets that many connections at most: sysctl -w net.ipv4.ip_local_port_range='1024 65535'";
    let state = if count >= 20_000 { State::Ok } else { State::Lacks };
    row(
        "ports for connections to backends",
        state,
        count.to_string(),
        "many connections to one backend",
        remedy,
    )
}

fn congestion(name: &str) -> Row {
    // Pacing slows a relay over loopback by three, and figures taken so say nothing about the proxy.
    let state = if name == "bbr" { State::Lacks } else { State::Ok };
    let remedy = "bbr paces loopback and slows a benchmark's relay by three: the benchmark sets its own inside its \
                  namespace; by hand, sysctl -w net.ipv4.tcp_congestion_control=cubic";
    row("congestion control", state, name, "benchmarks over loopback", remedy)
}

fn bpf() -> [Row; 2] {
    let btf = Path::new("/sys/kernel/btf/vmlinux").exists();
    let mounted = fs::read_to_string("/proc/mounts").unwrap_or_default().lines().any(|line| {
        let mut words = line.split(' ').skip(1);
        words.next() == Some("/sys/fs/bpf") && words.next() == Some("bpf")
    });
    let state = |good| if good { State::Ok } else { State::Lacks };
    let found = |good| if good { "there" } else { "absent" };
    [
        row(
            "BTF",
            state(btf),
            found(btf),
            "the firewall in the kernel",
            "a kernel with CONFIG_DEBUG_INFO_BTF",
        ),
        row(
            "BPF file system",
            state(mounted),
            found(mounted),
            "a firewall in the kernel that outlives a restart",
            "mount -t bpf bpf /sys/fs/bpf",
        ),
    ]
}

fn kernel_tls(available: &str) -> Row {
    let there = available.split_whitespace().any(|name| name == "tls");
    let remedy = "modprobe tls; where the kernel was built without CONFIG_TLS, TLS stays in user space";
    row(
        "kernel TLS",
        if there { State::Ok } else { State::Lacks },
        if there { "there" } else { "absent" },
        "mode l7",
        remedy,
    )
}

fn namespaces() -> Row {
    let root = is_root();
    let flags = if root { "--net" } else { "--user --map-root-user --net" };
    let made = read(Command::new("unshare").args(flags.split(' ')).arg("true"));
    let (state, found) = match (&made, root) {
        (Ok(_), true) => (State::Ok, "can be made"),
        (Ok(_), false) => (State::Lacks, "only inside a user namespace"),
        (Err(_), _) => (State::Lacks, "cannot be made"),
    };
    row("network namespaces", state, found, "namespace tests, benchmarks", "run `cargo xtask test` as root")
}

fn toolchain() -> Row {
    let sysroot = read(Command::new("rustc").env("RUSTUP_TOOLCHAIN", "nightly").args(["--print", "sysroot"]));
    let source =
        sysroot.is_ok_and(|root| Path::new(root.trim()).join("lib/rustlib/src/rust/library").is_dir());
    row(
        "nightly with rust-src",
        if source { State::Ok } else { State::Lacks },
        if source { "there" } else { "absent" },
        "what runs in the kernel, where Debian's rustc-web is not wanted",
        "rustup toolchain install nightly --component rust-src; or Debian's rustc-web, cargo-web and rust-web-src",
    )
}

fn tool(&(name, purpose, remedy): &(&'static str, &'static str, &'static str)) -> Row {
    let there = on_path(name);
    let state = if there { State::Ok } else { State::Lacks };
    row(name, state, if there { "there" } else { "absent" }, purpose, remedy)
}

fn row(
    what: &'static str,
    state: State,
    found: impl Into<String>,
    purpose: &'static str,
    remedy: &str,
) -> Row {
    let remedy = if state == State::Ok { String::new() } else { remedy.to_owned() };
    Row { what, state, found: found.into(), purpose, remedy }
}

fn cells(row: &Row) -> Vec<String> {
    let state = match row.state {
        State::Ok => "ok",
        State::Lacks => "lacks",
        State::Missing => "MISSING",
    };
    vec![row.what.into(), state.into(), row.found.clone(), row.purpose.into()]
}

/// Major and minor version of a kernel release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn capabilities() -> u64 {
    let status = trimmed("/proc/self/status");
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0)
}

fn trimmed(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_compared_by_number() {
        let check = |release, expect| assert_eq!(kernel(release).state, expect, "{release}");
        check("6.18.44-x", State::Ok);
        check("6.1.0-42-amd64", State::Ok);
        check("5.15.0", State::Missing);
        check("10.0.1", State::Ok);
        check("", State::Missing);
    }

    #[test]
    fn the_hard_limit_of_files_counts() {
        let check = |line: &str, expect| assert_eq!(open_files(line).state, expect, "{line}");
        check("Max open files            1024                 20000                files", State::Ok);
        check("Max open files            1024                 4096                 files", State::Lacks);
        check("Max open files            1024                 unlimited            files", State::Ok);
        check("", State::Lacks);
    }

    #[test]
    fn low_ports_need_a_capability_or_a_sysctl() {
        let check = |start, capabilities, expect| assert_eq!(low_ports(start, capabilities).state, expect);
        check("1024", 0, State::Lacks);
        check("1024", 1 << 10, State::Ok);
        check("443", 0, State::Ok);
        check("0", 0, State::Ok);
    }

    #[test]
    fn other_readings() {
        assert_eq!(ephemeral_ports("32768\t60999").found, "28232");
        assert_eq!(ephemeral_ports("32768\t40000").state, State::Lacks);
        assert_eq!(kernel_tls("espintcp mptcp tls").state, State::Ok);
        assert_eq!(kernel_tls("espintcp mptcp").state, State::Lacks);
        assert_eq!(congestion("bbr").state, State::Lacks);
        assert_eq!(congestion("cubic").remedy, "");
    }
}
