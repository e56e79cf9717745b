//! MC-Proxy: its configuration and its start.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::process::Command;
use tokio::time::timeout;

use crate::lines::Site;
use crate::running::Running;
use crate::{has_ipv6, identity, local, local6, tester};

/// Starts it and waits until it serves.
///
/// # Errors
/// It is not there, or ended; what it said is on standard error.
pub(crate) async fn start(program: &Path, site: &Site) -> Result<Running> {
    let config = site.folder.join("mc-proxy.toml");
    let text = configuration(site, has_ipv6().await);
    std::fs::write(&config, text).with_context(|| format!("cannot write {}", config.display()))?;
    let mut command = Command::new(program);
    let socket = site.socket();
    Running::start("mc-proxy", command.arg("--config").arg(&config), async || greet(&socket).await.is_ok())
        .await
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
    let services = |listener, mcias, mcat| {
        let route = |(name, address): (&str, SocketAddr)| {
            format!(
                "[[routes]]\nlistener = \"{listener}\"\nname = \"{name}\"\n\
                 backends = [{{ address = \"{address}\", proxy_protocol = \"v2\" }}]\n"
            )
        };
        [(identity::NAME, mcias), (tester::NAME, mcat)].map(route).concat()
    };
    let web = |listener| services(listener, site.identity.rest, site.tester.rest);
    let grpc = |listener| services(listener, site.identity.grpc, site.tester.grpc);
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
    text += &(route("web") + &web("web"));
    text += &listener("grpc", local(site.grpc_port));
    text += &grpc("grpc");
    if ipv6 {
        text += &listener("web6", local6(site.port));
        text += &(route("web6") + &web("web6"));
        text += &listener("grpc6", local6(site.grpc_port));
        text += &grpc("grpc6");
    }
    text
}
