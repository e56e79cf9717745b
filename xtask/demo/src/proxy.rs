//! MC-Proxy as a child process: its configuration, its start, its end.

use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use crate::lines::Site;
use crate::{has_ipv6, local, local6};

/// A running MC-Proxy; killed should it be dropped.
pub(crate) struct Proxy(Child);

impl Proxy {
    /// Starts it and waits until it serves.
    ///
    /// # Errors
    /// It is not there, or ended; what it said is on standard error.
    pub(crate) async fn start(program: &Path, site: &Site) -> Result<Self> {
        let config = site.folder.join("mc-proxy.toml");
        let text = configuration(site, has_ipv6().await);
        std::fs::write(&config, text).with_context(|| format!("cannot write {}", config.display()))?;
        let mut command = Command::new(program);
        command.arg("--config").arg(&config).kill_on_drop(true);
        let child = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        let mut proxy = Self(child);
        proxy.wait_ready(site).await?;
        Ok(proxy)
    }

    async fn wait_ready(&mut self, site: &Site) -> Result<()> {
        for _ in 0..300 {
            if let Some(status) = self.0.try_wait().context("cannot watch mc-proxy")? {
                bail!("mc-proxy did not start: {status}");
            }
            if greet(&site.socket()).await.is_ok() {
                return Ok(());
            }
            sleep(Duration::from_millis(50)).await;
        }
        bail!("mc-proxy does not serve after 15 s")
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self) -> String {
        self.0.wait().await.map_or_else(|error| error.to_string(), |status: ExitStatus| status.to_string())
    }

    /// Asks it to stop and waits until it has.
    pub(crate) async fn stop(mut self) {
        if let Some(id) = self.0.id() {
            // Where that fails it has ended, or is killed below.
            Command::new("sh").args(["-c", &format!("kill -TERM {id}")]).status().await.ok();
        }
        if timeout(Duration::from_secs(10), self.0.wait()).await.is_err() {
            self.0.kill().await.ok();
        }
    }
}

/// Waits until the admin server answers, which it does when everything else is up. Its socket is there before, and a
/// connection to a listener would be in the log.
async fn greet(socket: &Path) -> std::io::Result<()> {
    /// HTTP/2's client preface and an empty SETTINGS frame (RFC 9113, section 3.4).
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(PREFACE).await?;
    timeout(Duration::from_secs(5), stream.read_u8()).await??;
    Ok(())
}

fn configuration(site: &Site, ipv6: bool) -> String {
    let listener = |name, address| format!("[[listeners]]\nname = \"{name}\"\naddress = \"{address}\"\n");
    let route = |listener| {
        format!(
            "[[routes]]\nlistener = \"{listener}\"\nname = \"{}\"\n\
             backends = [{{ address = \"{}\", proxy_protocol = \"v2\" }}]\n",
            site.name, site.first
        ) + &format!(
            "[[routes]]\nlistener = \"{listener}\"\nname = \"{}\"\nmode = \"l7\"\n\
             backends = [{{ address = \"{}\" }}]\n",
            site.page_name, site.page
        )
    };
    let mut text = format!(
        "# Made by `cargo xtask up`, anew at each start.\n\
         [server]\nroot = \"{}\"\ndrain_timeout_ms = 1000\n\
         [metrics]\nlisten_addr = \"{}\"\n\
         [access_log]\npath = \"access.log\"\nformat = \"text\"\n\
         [log]\nlevel = \"warn\"\n",
        site.folder.display(),
        site.metrics
    );
    text += &listener("web", local(site.port));
    text += &route("web");
    if ipv6 {
        text += &listener("web6", local6(site.port));
        text += &route("web6");
    }
    text
}
