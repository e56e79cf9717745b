//! A program that was started: it ends with the demo.

use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

/// A running program; killed should it be dropped.
pub(crate) struct Running {
    name: &'static str,
    child: Child,
}

impl Running {
    /// Starts it, and waits until `is_ready` says so.
    ///
    /// # Errors
    /// It is not there, or ended; what it said is on standard error.
    pub(crate) async fn start(
        name: &'static str,
        command: &mut Command,
        is_ready: impl AsyncFn() -> bool,
    ) -> Result<Self> {
        let child = command.kill_on_drop(true).spawn().with_context(|| format!("cannot start {name}"))?;
        let mut running = Self { name, child };
        for _ in 0..300 {
            if let Some(status) = running.child.try_wait().with_context(|| format!("cannot watch {name}"))? {
                bail!("{name} did not start: {status}");
            }
            if is_ready().await {
                return Ok(running);
            }
            sleep(Duration::from_millis(50)).await;
        }
        bail!("{name} does not serve after 15 s")
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self) -> String {
        let status = self.child.wait().await;
        let how = status.map_or_else(|error| error.to_string(), |status: ExitStatus| status.to_string());
        format!("{} ended by itself: {how}", self.name)
    }

    /// Asks it to stop and waits until it has.
    pub(crate) async fn stop(mut self) {
        if let Some(id) = self.child.id() {
            // Where that fails it has ended, or is killed below.
            Command::new("sh").args(["-c", &format!("kill -TERM {id}")]).status().await.ok();
        }
        if timeout(Duration::from_secs(10), self.child.wait()).await.is_err() {
            self.child.kill().await.ok();
        }
    }
}
