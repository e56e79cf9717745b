//! A set of rows, every proxy in turn, round after round.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail, ensure};
use clap::{Args, ValueEnum};

use crate::cell::{Cell, Measured, Row, SYSCTLS, Sizes};
use crate::peer::{Peer, Programs, most_connections};
use crate::report::{Environment, Report};

/// Rows as they are asked for, and as docs/acceptance names them (`l4/new`).
pub(crate) trait Rows: ValueEnum + Clone + PartialEq + Send + Sync + 'static {
    /// The command that measures them, and the name of their section in documents.
    const SUITE: &'static str;

    /// What is measured under this name.
    fn rows(&self) -> Vec<Row>;
}

/// What to measure, with what.
#[derive(Args, Debug)]
pub(crate) struct Suite<R: Rows> {
    /// Only these rows.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<R>,
    #[command(flatten)]
    options: Options,
}

/// What every set of rows may be told.
#[derive(Args, Debug)]
struct Options {
    /// MC-Proxy's program.
    #[arg(long, default_value = "mc-proxy", env = "MC_BENCH_PROXY")]
    mc_proxy: PathBuf,
    /// Its command line.
    #[arg(long, default_value = "mcproxyctl", env = "MC_BENCH_CTL")]
    mcproxyctl: PathBuf,
    /// nginx (Debian: nginx-light libnginx-mod-stream).
    #[arg(long, default_value = "nginx")]
    nginx: PathBuf,
    /// HAProxy (Debian: haproxy).
    #[arg(long, default_value = "haproxy")]
    haproxy: PathBuf,
    /// sozu (cargo install sozu@2.3.3).
    #[arg(long, default_value = "sozu", env = "MC_BENCH_SOZU")]
    sozu: PathBuf,
    /// Times that everything is measured.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// A tenth of the work in one round, to see that it runs: the figures are rough.
    #[arg(long)]
    quick: bool,
    /// Only these proxies.
    #[arg(long, value_enum, value_delimiter = ',')]
    peers: Vec<Peer>,
    /// The proxies' core.
    #[arg(long, default_value_t = 1)]
    proxy_core: u32,
    /// The core of load and backends.
    #[arg(long, default_value_t = 0)]
    load_core: u32,
    /// Where to write everything measured, as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Where to put the table between its markers.
    #[arg(long, num_args = 0..=1, default_missing_value = "docs/performance.md")]
    write_docs: Option<PathBuf>,
}

impl<R: Rows> Suite<R> {
    /// Measures, and tells on standard output.
    ///
    /// # Errors
    /// The machine cannot do it, or something was not answered as it should: the table is told all the same.
    #[expect(clippy::print_stdout, reason = "the table is what the command is for")]
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let options = &self.options;
        let work = std::env::temp_dir().join(format!("mc-bench-{}", std::process::id()));
        let mut report = Report::new(options.environment()?);
        let rows: Vec<Row> = R::value_variants()
            .iter()
            .filter(|row| self.only.is_empty() || self.only.contains(row))
            .flat_map(R::rows)
            .collect();
        let measured = options.measure(&rows, &work, &mut report);
        fs::remove_dir_all(&work).ok();
        measured?;
        let table = report.markdown();
        println!("{table}");
        if let Some(path) = &options.json {
            fs::write(path, serde_json::to_vec_pretty(&report.json())?)
                .with_context(|| format!("writing {}", path.display()))?;
        }
        if let Some(path) = &options.write_docs {
            let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
            fs::write(path, crate::report::replace_section(&text, R::SUITE, &table)?)?;
        }
        ensure!(report.failures.is_empty(), "{} measurements had failures, see above", report.failures.len());
        Ok(())
    }
}

impl Options {
    fn measure(&self, rows: &[Row], work: &Path, report: &mut Report) -> anyhow::Result<()> {
        // Who could not come up with so many routes is not asked for more, nor again.
        let mut most_routes: BTreeMap<Peer, u32> = BTreeMap::new();
        for round in 0..self.rounds() {
            for row in rows {
                for peer in self.order(*row, round) {
                    let most = most_routes.get(&peer).copied().unwrap_or(u32::MAX);
                    if matches!(row, Row::Routes(routes) if *routes >= most) {
                        continue;
                    }
                    let measured = self.cell(peer, *row, work)?;
                    if let (Row::Routes(routes), Some(_)) = (row, &measured.unable) {
                        most_routes.insert(peer, *routes);
                    }
                    progress(round, peer, *row, &measured);
                    report.add(peer, *row, measured);
                }
            }
        }
        Ok(())
    }

    /// Another one goes first in each round.
    fn order(&self, row: Row, round: u32) -> Vec<Peer> {
        let mut peers = self.peers();
        if row == Row::Ping {
            peers.push(Peer::Direct);
        }
        let first = usize::try_from(round).expect("few rounds") % peers.len();
        peers.rotate_left(first);
        peers
    }

    /// Calls this program again in namespaces of its own.
    fn cell(&self, peer: Peer, row: Row, work: &Path) -> anyhow::Result<Measured> {
        let dir = work.join(match row {
            Row::Routes(routes) => format!("{peer:?}-{routes}"),
            _ => format!("{peer:?}"),
        });
        if !matches!(row, Row::Routes(_)) {
            fs::remove_dir_all(&dir).ok();
        }
        fs::create_dir_all(&dir)?;
        let (sizes, programs) = (self.sizes(), self.programs()?);
        let cell =
            Cell { peer, row, sizes, programs, dir, proxy_core: self.proxy_core, load_core: self.load_core };
        let output = Command::new("timeout")
            .args([
                "--kill-after=5",
                "900",
                "unshare",
                "--net",
                "--pid",
                "--fork",
                "--kill-child",
                "--mount-proc",
            ])
            .args(if rustix::process::geteuid().is_root() { None } else { Some("--map-root-user") })
            .arg(std::env::current_exe()?)
            .args(["cell", &serde_json::to_string(&cell)?])
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .context("running unshare (Debian: util-linux)")?;
        if !output.status.success() {
            let failures = vec![format!("the measurement ended with {}", output.status)];
            return Ok(Measured { failures, ..Measured::default() });
        }
        serde_json::from_slice(&output.stdout).context("reading a measurement")
    }

    fn rounds(&self) -> u32 {
        if self.quick { 1 } else { self.rounds.max(1) }
    }

    fn peers(&self) -> Vec<Peer> {
        let all: BTreeSet<Peer> = Peer::value_variants().iter().copied().collect();
        if self.peers.is_empty() { all } else { self.peers.iter().copied().collect() }.into_iter().collect()
    }

    fn sizes(&self) -> Sizes {
        let idle = most_connections();
        let full = Sizes {
            churn: 30_000,
            bulk_mib: 4_096,
            ping: 20_000,
            pong: 200_000,
            idle: idle.min(9_000),
            change_s: 10,
            handshakes: 10_000,
            requests: 300_000,
            bodies: 48,
            idle_http: idle.min(3_000),
        };
        if !self.quick {
            return full;
        }
        Sizes {
            churn: 3_000,
            bulk_mib: 512,
            ping: 2_000,
            pong: 20_000,
            idle: 1_000,
            change_s: 3,
            handshakes: 1_000,
            requests: 30_000,
            bodies: 6,
            idle_http: 500,
        }
    }

    fn programs(&self) -> anyhow::Result<Programs> {
        Ok(Programs {
            mc_proxy: absolute(&self.mc_proxy)?,
            mcproxyctl: absolute(&self.mcproxyctl)?,
            nginx: absolute(&self.nginx)?,
            haproxy: absolute(&self.haproxy)?,
            sozu: absolute(&self.sozu)?,
        })
    }

    fn environment(&self) -> anyhow::Result<Environment> {
        let cores = std::thread::available_parallelism()?.get();
        if cores < 2 {
            bail!("the proxy and its load need a core each, and this machine has {cores}");
        }
        let programs = self.programs()?;
        let version = |peer: Peer| match peer {
            Peer::McProxy => said(&programs.mc_proxy, "--version"),
            Peer::Nginx => said(&programs.nginx, "-v"),
            Peer::Haproxy => said(&programs.haproxy, "-v"),
            Peer::Sozu | Peer::Direct => said(&programs.sozu, "--version"),
        };
        let mut versions = BTreeMap::new();
        for peer in self.peers() {
            versions.insert(peer, version(peer)?);
        }
        let cpus = fs::read_to_string("/proc/cpuinfo")?;
        let model = cpus.lines().find(|line| line.starts_with("model name"));
        Ok(Environment {
            date: said(Path::new("date"), "-uI")?,
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            cpu: model
                .and_then(|line| line.split_once(": "))
                .map_or("unknown", |(_, model)| model)
                .to_owned(),
            cores,
            load: fs::read_to_string("/proc/loadavg")?
                .split(' ')
                .next()
                .and_then(|load| load.parse().ok())
                .unwrap_or(0.0),
            rounds: self.rounds(),
            quick: self.quick,
            sizes: self.sizes(),
            sysctls: SYSCTLS.into_iter().collect(),
            versions,
        })
    }
}

/// A program given by path, from anywhere; one given by name is left to be looked up.
fn absolute(program: &Path) -> anyhow::Result<PathBuf> {
    if program.components().count() == 1 {
        return Ok(program.to_owned());
    }
    program.canonicalize().with_context(|| format!("{} is not there", program.display()))
}

/// The first line that a program says of itself.
fn said(program: &Path, argument: &str) -> anyhow::Result<String> {
    let output = Command::new(program).arg(argument).stdin(Stdio::null()).output().with_context(|| {
        format!(
            "{} cannot be run: install it, say where it is, or leave it out with --peers",
            program.display()
        )
    })?;
    let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    Ok(String::from_utf8_lossy(&text).lines().next().unwrap_or("unknown").trim().to_owned())
}

#[expect(clippy::print_stderr, reason = "a run takes long, and whoever waits wants to see it move")]
fn progress(round: u32, peer: Peer, row: Row, measured: &Measured) {
    let values: Vec<String> =
        measured.values.iter().map(|(name, value)| format!("{name} {value:.3}")).collect();
    let notes = measured.unable.iter().chain(&measured.failures).map(|note| format!(" [{note}]"));
    let (values, notes) = (values.join(", "), notes.collect::<String>());
    eprintln!("round {}: {row:?}, {}: {values}{notes}", round + 1, peer.title());
}
