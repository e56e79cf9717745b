//! MCAT, which asks MCIAS: its configuration and its start. Its account and token are made where MCIAS is started.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, Result};
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::pki::Authority;
use crate::running::Running;

/// The name of MCAT: below that of MCIAS, whose passkeys it asks for. Browsers take no domain above that, as `localhost` is nobody's.
pub(crate) const NAME: &str = "mcat.mcias.localhost";

/// A MCAT that runs, behind MC-Proxy.
pub(crate) struct Tester {
    /// REST and pages, for MC-Proxy alone.
    pub(crate) rest: SocketAddr,
    /// gRPC, for MC-Proxy alone.
    pub(crate) grpc: SocketAddr,
    /// Metrics.
    pub(crate) metrics: SocketAddr,
}

/// Prepares its folder, for the token.
///
/// # Errors
/// The folder cannot be made.
pub(crate) fn prepare(folder: &Path, authority: &Authority) -> Result<()> {
    authority.write(&folder.join("mcat").join("certs"), NAME)
}

impl Tester {
    /// Starts it. `mcias`: where it asks; `port`: where MC-Proxy listens for it.
    ///
    /// # Errors
    /// It cannot be started.
    pub(crate) async fn start(
        binaries: &Path,
        folder: &Path,
        mcias: SocketAddr,
        port: u16,
        [rest, grpc, metrics]: [SocketAddr; 3],
    ) -> Result<(Self, Running)> {
        let config = folder.join("mcat").join("mcat.toml");
        let text = format!(
            "# Made by `cargo xtask up`, anew at each start.\n\
             [server]\nlisten_addr = \"{rest}\"\ngrpc_addr = \"{grpc}\"\nmetrics_addr = \"{metrics}\"\n\
             certificate = \"certs/{NAME}.pem\"\nkey = \"certs/{NAME}.pem\"\n\
             proxy_protocol = {{ from = [\"127.0.0.0/8\"] }}\ndrain_timeout_ms = 1000\n\
             [site]\npublic_url = \"https://{NAME}:{port}\"\n\
             [mcias]\nserver_url = \"https://{}\"\nca = \"{}\"\npasskeys = true\n\
             [log]\nlevel = \"warn\"\n",
            mcias,
            folder.join("ca.pem").display()
        );
        std::fs::write(&config, text).with_context(|| format!("cannot write {}", config.display()))?;
        let mut command = Command::new(binaries.join("mcat"));
        command.arg("serve").arg("--config").arg(&config);
        let is_ready = async || TcpStream::connect(metrics).await.is_ok();
        let running = Running::start("mcat", &mut command, is_ready).await?;
        Ok((Self { rest, grpc, metrics }, running))
    }
}
