//! Measures MC-Proxy and its peers side by side, and MCIAS; also drives one load or one backend by hand, for profiling.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line program speaks on its terminal"
)]

use std::net::SocketAddr;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};

use load::bulk::Direction;
use load::{Names, Outcome};

mod backend;
mod cell;
mod clock;
mod content;
mod flood;
mod hello;
mod l4;
mod l7;
mod load;
mod mcias;
mod peer;
mod proc;
mod report;
mod stats;
mod suite;
mod xdp;

/// Measures MC-Proxy and its peers side by side, and MCIAS.
#[derive(Debug, Parser)]
#[command(name = "mc-bench", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measures the rows of the stream path, all proxies in turn.
    L4(suite::Suite<l4::L4>),
    /// Measures the rows of the HTTP path, all proxies in turn.
    L7(suite::Suite<l7::L7>),
    /// Measures what a packet costs the firewall in the kernel. Needs root.
    Xdp(xdp::Xdp),
    /// Measures what a flood costs whoever drops it, nftables beside the firewall in the kernel, and what is left of
    /// requests under it. Needs root.
    Flood(flood::Flood),
    /// Measures what introspections and logins cost MCIAS, and its memory.
    Mcias(mcias::Mcias),
    /// One measurement, in the namespaces that this program was called in.
    #[command(hide = true)]
    Cell {
        /// What to measure, as JSON.
        cell: String,
    },
    /// Serves as a backend until interrupted.
    Backend {
        /// Where to listen.
        #[arg(long)]
        listen: SocketAddr,
        /// What to do after the ClientHello.
        #[arg(long, value_enum)]
        mode: backend::Mode,
    },
    /// Opens connections, each with a ClientHello and an answer of 1 KiB (backend: answer).
    Churn {
        #[command(flatten)]
        target: Target,
        /// Draw names from r0000000.bench.test up to so many instead of --name.
        #[arg(long)]
        spread: Option<u32>,
        /// Send a hello with a post-quantum key share.
        #[arg(long)]
        post_quantum: bool,
        /// Connections at the same time.
        #[arg(long, default_value_t = 32)]
        connections: usize,
        /// Connections in all.
        #[arg(long, default_value_t = 20_000)]
        count: u64,
    },
    /// Round trips on open connections (backend: echo).
    Ping {
        #[command(flatten)]
        target: Target,
        /// Connections at the same time.
        #[arg(long, default_value_t = 1)]
        connections: usize,
        /// Bytes each way.
        #[arg(long, default_value_t = 64)]
        size: usize,
        /// Round trips in all.
        #[arg(long, default_value_t = 20_000)]
        count: u64,
    },
    /// Moves bytes (backend: source for down, sink for up).
    Bulk {
        #[command(flatten)]
        target: Target,
        /// Which way.
        #[arg(long, value_enum, default_value = "down")]
        direction: Direction,
        /// Connections at the same time.
        #[arg(long, default_value_t = 1)]
        connections: u32,
        /// MiB in all.
        #[arg(long, default_value_t = 4096)]
        mib: u64,
    },
    /// Opens connections, sees one echo on each and holds them (backend: echo).
    Idle {
        #[command(flatten)]
        target: Target,
        /// How many.
        #[arg(long, default_value_t = 4_000)]
        connections: usize,
        /// For how long, in seconds.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
    },
}

/// Whom a load is for.
#[derive(Args, Debug)]
struct Target {
    /// The proxy's address.
    #[arg(long)]
    target: SocketAddr,
    /// The name in the ClientHello.
    #[arg(long, default_value = "r0000000.bench.test")]
    name: String,
    /// Also tell the CPU time and memory of this process and its children.
    #[arg(long)]
    pid: Option<u32>,
}

fn main() -> anyhow::Result<()> {
    raise_descriptor_limit();
    match Cli::parse().command {
        Command::L4(l4) => l4.run(),
        Command::L7(l7) => l7.run(),
        Command::Xdp(xdp) => xdp.run(),
        Command::Flood(flood) => flood.run(),
        Command::Mcias(mcias) => mcias.run(),
        Command::Cell { cell } => {
            let cell = serde_json::from_str(&cell).context("reading what to measure")?;
            println!("{}", serde_json::to_string(&cell::run(&cell)?)?);
            Ok(())
        }
        Command::Backend { listen, mode } => {
            let bound = backend::spawn(&[(listen, mode)])?;
            eprintln!("listening on {}", bound[0]);
            loop {
                std::thread::park();
            }
        }
        Command::Churn { target, spread, post_quantum, connections, count } => {
            let names = spread.map_or_else(|| Names::One(target.name.clone()), Names::Spread);
            let churn = load::churn::Churn { target: target.target, names, post_quantum, connections };
            measured(&target, "connections", || churn.run(count))
        }
        Command::Ping { target, connections, size, count } => {
            let streams = open_all(&target, connections)?;
            measured(&target, "round trips", || match &streams[..] {
                [one] => load::ping::latency(one, size, count),
                many => load::ping::many(many, size, count),
            })
        }
        Command::Bulk { target, direction, connections, mib } => measured(&target, "bytes", || {
            load::bulk::run(target.target, &target.name, direction, connections, mib << 20)
        }),
        Command::Idle { target, connections, seconds } => {
            let mut streams = Vec::new();
            measured(&target, "connections", || {
                streams = open_all(&target, connections)?;
                clock::sleep(std::time::Duration::from_secs(seconds));
                Ok(Outcome { done: streams.len() as u64, ..Outcome::default() })
            })
        }
    }
}

/// Takes as many descriptors as we may have; where that is not enough, opening a connection says so.
fn raise_descriptor_limit() {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let all = rustix::process::Rlimit { current: limit.maximum, ..limit };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, all).ok();
}

fn open_all(target: &Target, connections: usize) -> anyhow::Result<Vec<std::net::TcpStream>> {
    let hello = hello::Hello::classic(&target.name);
    (0..connections)
        .map(|index| load::open_echo(target.target, &hello).with_context(|| format!("connection {index}")))
        .collect()
}

/// Runs a load and prints how it went, with what it cost the process asked about.
fn measured(
    target: &Target,
    unit: &str,
    load: impl FnOnce() -> anyhow::Result<Outcome>,
) -> anyhow::Result<()> {
    let pids = target.pid.map(proc::tree).unwrap_or_default();
    let (cpu, pss) = (proc::cpu(&pids), proc::pss_kib(&pids)?);
    let outcome = load()?;
    let seconds = std::time::Duration::from_nanos(outcome.elapsed_ns).as_secs_f64();
    println!("{} {unit} in {seconds:.3} s, {} failed", outcome.done, outcome.failed);
    if let Some(failure) = &outcome.first_failure {
        println!("the first failure: {failure}");
    }
    if !outcome.each_ns.is_empty() {
        let us = |percent| stats::percentile(&outcome.each_ns, percent) / 1000;
        println!("each: {} us p50, {} us p99", us(50), us(99));
    }
    if !pids.is_empty() {
        let cpu = (proc::cpu(&pids) - cpu).as_secs_f64();
        println!("CPU {cpu:.2} s; PSS {pss} KiB before, {} KiB after", proc::pss_kib(&pids)?);
    }
    Ok(())
}
