//! `cargo xtask bench`: builds what is measured, installs what it is measured beside, and runs `mc-bench`.

use anyhow::Result;

use crate::ebpf;
use crate::repo::{Repo, run as run_command};
use crate::setup;

/// The version whose figures the ratios are taken from.
const SOZU: &str = "2.3.3";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// `l4`, `l7`, `xdp`, `flood` or `mcias`, and what `mc-bench l4 --help` lists.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    args: Vec<String>,
}

/// Runs the benchmark; its table and JSON are its own.
///
/// # Errors
/// Something does not build, cannot be installed, or the benchmark failed.
pub(crate) fn run(repo: &Repo, args: &Args) -> Result<bool> {
    let is_mcias = args.args.first().is_some_and(|suite| suite == "mcias");
    let asks_for_help = args.args.iter().any(|arg| matches!(arg.as_str(), "--help" | "-h"));
    if !asks_for_help && !is_mcias {
        ebpf::build_if_possible(repo);
    }
    run_command(repo.cargo().args([
        "build",
        "--release",
        "--package",
        "mc-bench",
        "--package",
        "mcproxyctl",
    ]))?;
    let mut bench = repo.command(repo.target.join("release/mc-bench"));
    bench.args(&args.args);
    if is_mcias && !asks_for_help {
        run_command(repo.cargo().args(["build", "--release", "--package", "mcias"]))?;
        setup::packages(repo, &["nghttp2-client"])?;
        bench.env("MC_BENCH_MCIAS", repo.target.join("release/mcias"));
    } else if !asks_for_help {
        eprintln!(
            "bench: building mc-proxy as it is shipped (fat LTO, one codegen unit): some minutes the first time"
        );
        run_command(repo.cargo().args(["build", "--profile", "proxy", "--package", "mc-proxy"]))?;
        setup::packages(repo, setup::FOR_BENCHMARKS)?;
        let sozu = setup::cargo_tool(repo, "sozu", SOZU)?;
        bench.env("MC_BENCH_PROXY", repo.target.join("proxy/mc-proxy"));
        bench.env("MC_BENCH_CTL", repo.target.join("release/mcproxyctl"));
        bench.env("MC_BENCH_SOZU", sozu);
    }
    run_command(&mut bench)?;
    Ok(true)
}
