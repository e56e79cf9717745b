//! The demo site of `cargo xtask up`: throw-away certificates, three backends, MCIAS and MCAT, MC-Proxy in front of them, and
//! lines to paste into another terminal.
//!
//! Everything it writes is in one folder; everything it starts ends with it. With `--check` it runs the printed lines
//! itself, so that what is promised is tested.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line speaks to who typed it")]

mod backend;
mod check;
mod identity;
mod lines;
mod page;
mod pki;
mod proxy;
mod running;
mod tester;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::Parser;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use identity::Identity;
use lines::Site;
use running::Running;
use tester::Tester;

/// The name that is passed through to a TLS backend.
const NAME: &str = "demo.localhost";

/// The name for which MC-Proxy itself terminates TLS.
const PAGE: &str = "page.localhost";

#[derive(Parser)]
#[command(name = "mc-demo", about)]
struct Cli {
    /// Where mc-proxy, mcproxyctl, mcias, mciasctl and mcat are.
    #[arg(long)]
    binaries: PathBuf,
    /// Where to put certificate, configuration, database and logs.
    #[arg(long)]
    folder: PathBuf,
    /// Runs the printed lines, says whether they do what they promise, and stops.
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let outcome =
        runtime.context("cannot start a runtime").and_then(|runtime| runtime.block_on(run(&Cli::parse())));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("up: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: &Cli) -> Result<()> {
    let folder = fresh(&cli.folder)?;
    let authority = pki::Authority::make(&folder.join("ca.pem"))?;
    let tls = Arc::new(authority.server(NAME)?);
    authority.write(&folder.join("certs"), PAGE)?;
    let first = backend::start("first", Arc::clone(&tls)).await?;
    let second = backend::start("second", tls).await?;
    let port = free_port(4443).await?;
    let grpc_port = free_port(4444).await?;
    let own = [free_port(0).await?, free_port(0).await?, free_port(9092).await?].map(local);
    tester::prepare(&folder, &authority)?;
    let (identity, mut mcias) = Identity::start(&cli.binaries, &folder, &authority, port, own).await?;
    let own = [free_port(0).await?, free_port(0).await?, free_port(9093).await?].map(local);
    let (tester, mut mcat) = Tester::start(&cli.binaries, &folder, identity.grpc, port, own).await?;
    let site = Site {
        binaries: std::path::absolute(&cli.binaries)?,
        grpc_port,
        identity,
        tester,
        name: NAME,
        page_name: PAGE,
        port,
        metrics: local(free_port(9091).await?),
        first,
        second,
        page: page::start().await?,
        folder,
    };
    let mut proxy = proxy::start(&cli.binaries.join("mc-proxy"), &site).await?;
    let outcome = if cli.check {
        check::run(&site).await
    } else {
        wait(&site, [&mut proxy, &mut mcias, &mut mcat]).await
    };
    proxy.stop().await;
    mcat.stop().await;
    mcias.stop().await;
    outcome
}

/// Prints the lines and waits for Ctrl-C.
async fn wait(site: &Site, [proxy, mcias, mcat]: [&mut Running; 3]) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut hangup = signal(SignalKind::hangup()).context("cannot wait for SIGHUP")?;
    println!("{}", site.text());
    tokio::select! {
        ended = proxy.ended() => anyhow::bail!(ended),
        ended = mcias.ended() => anyhow::bail!(ended),
        ended = mcat.ended() => anyhow::bail!(ended),
        interrupted = tokio::signal::ctrl_c() => interrupted.context("cannot wait for Ctrl-C")?,
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
    eprintln!("\nup: stopping");
    Ok(())
}

/// The folder, empty, by its full name.
fn fresh(folder: &std::path::Path) -> Result<PathBuf> {
    use std::io::ErrorKind::NotFound;
    use std::os::unix::fs::DirBuilderExt;
    let folder = std::path::absolute(folder).context("the working directory is gone")?;
    match std::fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != NotFound => {
            return Err(error).with_context(|| format!("cannot empty {}", folder.display()));
        }
        _ => {}
    }
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}

/// This port where it is free on both loopback addresses, another one where it is not.
async fn free_port(wanted: u16) -> Result<u16> {
    for port in [wanted, 0, 0, 0] {
        let Ok(listener) = TcpListener::bind(local(port)).await else { continue };
        let port = listener.local_addr().context("a bound socket has an address")?.port();
        if TcpListener::bind(local6(port)).await.is_ok() || !has_ipv6().await {
            if port != wanted && wanted != 0 {
                eprintln!("up: port {wanted} is taken: using {port}");
            }
            return Ok(port);
        }
    }
    anyhow::bail!("found no port that is free on 127.0.0.1 and [::1]")
}

/// Whether this machine has an IPv6 loopback address. Containers often have none.
async fn has_ipv6() -> bool {
    TcpListener::bind(local6(0)).await.is_ok()
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn local6(port: u16) -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], port))
}
