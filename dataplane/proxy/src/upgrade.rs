//! Starts the program that is on disk now as a new process, which takes over from this one: by SIGUSR2, and by the admin API,
//! which returns the result.
//!
//! This process answers, the old one: it knows both ends. The new one tells why it cannot start through a pipe that it has in the
//! place of its standard input ([`REPORT`]), since its log is for people.

use std::fs::File;
use std::io::{self, Read as _};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::pipe::{PipeFlags, pipe_with};
use tokio::sync::{Mutex, watch};

use crate::handover::Identity;

/// Set for a process that is to say on its standard input, which is a pipe to the old one, why it cannot start.
pub const REPORT: &str = "MC_PROXY_REPORT_FAILURE";

/// How long the new process may take. A million routes are read in a few seconds.
const PATIENCE: Duration = Duration::from_secs(180);

/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// The longest reason, in bytes: less than a pipe holds, so that who says it never waits.
const MAX_REASON: usize = 4096;

/// Starts new processes that take over, one at a time. Clones share this.
#[derive(Clone, Debug)]
pub struct Upgrade {
    running: Arc<Mutex<()>>,
    /// Who has taken over.
    successor: watch::Sender<Option<Identity>>,
}

/// Why nobody has taken over.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    /// One is under way.
    #[error("Another upgrade is under way: wait until it is over")]
    Running,
    /// There is no such program.
    #[error("The new mc-proxy cannot be started, and this one goes on")]
    Start(#[source] io::Error),
    /// It ended.
    #[error("The new mc-proxy did not take over, and this one goes on: {0}")]
    Failed(String),
    /// It neither took over nor ended.
    #[error("The new mc-proxy did not take over within {} s and was ended; this one goes on", PATIENCE.as_secs())]
    TooLong,
}

impl Default for Upgrade {
    fn default() -> Self {
        Self { running: Arc::default(), successor: watch::Sender::new(None) }
    }
}

impl Upgrade {
    /// Says that another process has taken over.
    pub fn taken_over(&self, by: Identity) {
        self.successor.send_replace(Some(by));
    }

    /// Starts the program and waits until it has taken over; says who has. What was begun goes on where the caller does not wait.
    ///
    /// # Errors
    /// [`UpgradeError`] says why nobody has, and this process goes on.
    pub async fn run(&self) -> Result<Identity, UpgradeError> {
        let Ok(running) = Arc::clone(&self.running).try_lock_owned() else {
            return Err(UpgradeError::Running);
        };
        let successor = self.successor.subscribe();
        let upgrade = tokio::spawn(async move {
            let _running = running;
            upgrade(successor).await
        });
        upgrade.await.unwrap_or_else(|error| Err(UpgradeError::Failed(error.to_string())))
    }
}

async fn upgrade(mut successor: watch::Receiver<Option<Identity>>) -> Result<Identity, UpgradeError> {
    let (mut child, reason) = start().map_err(UpgradeError::Start)?;
    tracing::info!(pid = child.id(), "started a new process");
    let give_up = tokio::time::sleep(PATIENCE);
    tokio::pin!(give_up);
    loop {
        let found = successor.borrow_and_update().clone();
        if let Some(found) = found {
            // Nobody else asks how it ended, if it does before this process.
            std::thread::spawn(move || child.wait());
            return Ok(found);
        }
        if let Some(status) = child.try_wait().map_err(UpgradeError::Start)? {
            let said = said(reason);
            let why = if said.is_empty() { format!("it ended with {status}, see its log") } else { said };
            return Err(UpgradeError::Failed(why));
        }
        tokio::select! {
            _ = successor.changed() => {}
            () = tokio::time::sleep(LOOK) => {}
            () = &mut give_up => {
                child.kill().map_err(UpgradeError::Start)?;
                child.wait().map_err(UpgradeError::Start)?;
                return Err(UpgradeError::TooLong);
            }
        }
    }
}

/// Starts the program; what it says before it ends can be read.
fn start() -> io::Result<(Child, File)> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
    let program = std::env::args_os().next().unwrap_or_else(|| "mc-proxy".into());
    let mut command = Command::new(program);
    command.args(std::env::args_os().skip(1).filter(|argument| argument != "--take-over")).arg("--take-over");
    command.env(REPORT, "1").stdin(Stdio::from(writer));
    Ok((command.spawn()?, File::from(reader)))
}

/// What a process that has ended said.
fn said(reason: File) -> String {
    let mut bytes = Vec::new();
    reason.take(MAX_REASON as u64).read_to_end(&mut bytes).unwrap_or(0);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Tells the old process why this one cannot start, where one has started it.
pub fn report_failure(reason: &str) {
    if std::env::var_os(REPORT).is_some() {
        let reason = &reason.as_bytes()[..reason.len().min(MAX_REASON)];
        // Where nobody reads, it is in the log all the same.
        rustix::io::write(io::stdin(), reason).unwrap_or(0);
    }
}
