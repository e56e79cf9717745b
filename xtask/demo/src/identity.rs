//! MCIAS: its configuration, its first admin, its start.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::pki::Authority;
use crate::running::Running;

/// The name of MCIAS.
pub(crate) const NAME: &str = "mcias.localhost";

/// The first admin.
pub(crate) const ADMIN: &str = "ada";

/// A MCIAS that runs, behind MC-Proxy.
pub(crate) struct Identity {
    /// The link with which the first admin sets a password.
    pub(crate) link: String,
    /// REST and pages, for MC-Proxy alone.
    pub(crate) rest: SocketAddr,
    /// gRPC, for MC-Proxy alone.
    pub(crate) grpc: SocketAddr,
    /// Metrics.
    pub(crate) metrics: SocketAddr,
}

impl Identity {
    /// Makes the first admin and starts it, in a folder of its own. `port`: where MC-Proxy listens for it.
    ///
    /// # Errors
    /// It cannot be started.
    pub(crate) async fn start(
        binaries: &Path,
        folder: &Path,
        authority: &Authority,
        port: u16,
        [rest, grpc, metrics]: [SocketAddr; 3],
    ) -> Result<(Self, Running)> {
        let root = folder.join("mcias");
        authority.write(&root.join("certs"), NAME)?;
        let config = root.join("mcias.toml");
        let text = format!(
            "# Made by `cargo xtask up`, anew at each start.\n\
             [server]\nlisten_addr = \"{rest}\"\ngrpc_addr = \"{grpc}\"\nmetrics_addr = \"{metrics}\"\n\
             certificate = \"certs/{NAME}.pem\"\nkey = \"certs/{NAME}.pem\"\n\
             proxy_protocol = {{ from = [\"127.0.0.0/8\"] }}\ndrain_timeout_ms = 1000\n\
             [site]\npublic_url = \"https://{NAME}:{port}\"\nname = \"Metacircular demo\"\n\
             [log]\nlevel = \"warn\"\n"
        );
        std::fs::write(&config, text).with_context(|| format!("cannot write {}", config.display()))?;
        let mcias = |word: &str| {
            let mut command = Command::new(binaries.join("mcias"));
            command.arg(word).arg("--config").arg(&config);
            command
        };
        let made = mcias("init").arg(ADMIN).output().await.context("cannot start mcias")?;
        ensure!(made.status.success(), "mcias init: {}", String::from_utf8_lossy(&made.stderr).trim());
        let link = String::from_utf8_lossy(&made.stdout).trim().to_owned();
        let is_ready = async || TcpStream::connect(metrics).await.is_ok();
        let running = Running::start("mcias", &mut mcias("serve"), is_ready).await?;
        Ok((Self { link, rest, grpc, metrics }, running))
    }
}
