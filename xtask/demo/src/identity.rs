//! MCIAS: its configuration, its first admin, its start.

use std::io::Read as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::pki::Authority;
use crate::running::Running;
use crate::tester;

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
    /// Makes the first admin and starts it, in a folder of its own, with a system account for the tester. `port`: where MC-Proxy listens for
    /// it.
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
             proxy_protocol = {{ optional_from = [\"127.0.0.0/8\"] }}\ndrain_timeout_ms = 1000\n\
             [site]\npublic_url = \"https://{NAME}:{port}\"\nname = \"Metacircular demo\"\n\
             passkey_origins = [\"https://{}:{port}\"]\n\
             [log]\nlevel = \"warn\"\n",
            tester::NAME
        );
        std::fs::write(&config, text).with_context(|| format!("cannot write {}", config.display()))?;
        let mcias = |word: &str| {
            let mut command = Command::new(binaries.join("mcias"));
            command.arg(word).arg("--config").arg(&config);
            command
        };
        let is_ready = async || TcpStream::connect(metrics).await.is_ok();
        // The tester's account is made by an admin, who then loses the password again: whoever tries the demo sets their own.
        let link = init(mcias("init")).await?;
        let running = Running::start("mcias", &mut mcias("serve"), is_ready).await?;
        let made = make_tester(&binaries.join("mciasctl"), folder, grpc, &link).await;
        running.stop().await;
        made?;
        let link = init(mcias("init")).await?;
        let running = Running::start("mcias", &mut mcias("serve"), is_ready).await?;
        Ok((Self { link, rest, grpc, metrics }, running))
    }
}

/// Makes the first admin. The link with which a password is set.
async fn init(mut command: Command) -> Result<String> {
    let made = command.arg(ADMIN).output().await.context("cannot start mcias")?;
    ensure!(made.status.success(), "mcias init: {}", String::from_utf8_lossy(&made.stderr).trim());
    Ok(String::from_utf8_lossy(&made.stdout).trim().to_owned())
}

/// Makes a system account for the tester, and writes its token, as an operator would.
async fn make_tester(mciasctl: &Path, folder: &Path, grpc: SocketAddr, link: &str) -> Result<()> {
    let token = folder.join("setup.token");
    let ctl = async |input: &str, words: &[&str]| {
        let mut command = Command::new(mciasctl);
        command.args(words).arg("--server").arg(format!("https://{grpc}"));
        command.arg("--ca").arg(folder.join("ca.pem")).arg("--token-file").arg(&token);
        command.env("XDG_CONFIG_HOME", folder).env_remove("METACIRCULAR_CONTEXT").kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("cannot start mciasctl")?;
        let mut stdin = child.stdin.take().context("a pipe was asked for")?;
        stdin.write_all(input.as_bytes()).await.context("mciasctl reads nothing")?;
        drop(stdin);
        let output = child.wait_with_output().await.context("mciasctl is gone")?;
        ensure!(
            output.status.success(),
            "mciasctl {}: {}",
            words.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(())
    };
    let password = password()?;
    ctl(&format!("{link}\n{password}\n"), &["password", "redeem", "--stdin"]).await?;
    ctl(&format!("{password}\n"), &["login", ADMIN, "--password-stdin"]).await?;
    ctl("", &["account", "create", "mcat", "--type", "system", "--tag", "login-tester"]).await?;
    let own = folder.join("mcat").join("mcias.token").to_string_lossy().into_owned();
    ctl("", &["token", "issue", "mcat", "--label", "demo", "--out", &own]).await?;
    ctl("", &["logout"]).await
}

/// A password that nobody knows.
fn password() -> Result<String> {
    let mut bytes = [0; 24];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut bytes))
        .context("the system has no randomness")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
