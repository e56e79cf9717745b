//! Other people's programs beside ours: haproxy, nginx and clients, with the committed configurations of `peers/`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::clock;
use crate::net::Host;
use crate::process::Process;

/// What a program is run under on a kernel that seems to lack a call, or a call's command: see `peers/without.py`.
#[must_use]
pub fn without(what: &str) -> [&str; 3] {
    ["python3", concat!(env!("CARGO_MANIFEST_DIR"), "/peers/without.py"), what]
}

/// What a program is run under to be restricted as by a systemd unit of `deploy/` and these drop-ins: see `peers/unit.py`.
#[must_use]
pub fn unit(name: &str, drop_ins: &[&Path]) -> [String; 3] {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy").join(name);
    let files: Vec<String> = std::iter::once(unit.as_path())
        .chain(drop_ins.iter().copied())
        .map(|it| it.display().to_string())
        .collect();
    ["python3".to_owned(), folder().join("unit.py").display().to_string(), files.join(",")]
}

/// A drop-in of `deploy/`.
#[must_use]
pub fn drop_in(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy").join(path)
}

/// A running haproxy or nginx: ended on drop.
#[derive(Debug)]
pub struct Peer {
    process: Process,
    folder: TempDir,
}

impl Peer {
    /// haproxy with a configuration of `peers/` in which each `@KEY@` takes its value.
    #[must_use]
    pub fn haproxy(config: &str, values: &[(&str, String)], host: Option<&Host>) -> Self {
        let (folder, file) = fill(config, values);
        let mut command = Command::new("/usr/sbin/haproxy");
        command.args(["-db", "-f"]).arg(&file);
        Self::start(&command, folder, "haproxy", host)
    }

    /// nginx with a configuration of `peers/` in which each `@KEY@` takes its value; `@FOLDER@` is a scratch folder.
    #[must_use]
    pub fn nginx(config: &str, values: &[(&str, String)], host: Option<&Host>) -> Self {
        let (folder, file) = fill(config, values);
        let mut command = Command::new("/usr/sbin/nginx");
        command.arg("-p").arg(folder.path()).arg("-c").arg(&file);
        Self::start(&command, folder, "nginx", host)
    }

    fn start(command: &Command, folder: TempDir, name: &str, host: Option<&Host>) -> Self {
        let namespace = host.map(Host::path);
        let process = Process::start(command, folder.path(), name, namespace.as_deref(), false);
        Self { process, folder }
    }

    /// Waits until it accepts connections there.
    ///
    /// # Panics
    /// When it ends, or does not within ten seconds.
    pub fn wait_ready(&mut self, ready: impl Fn() -> bool) {
        clock::wait_for("a peer to listen", clock::PATIENCE, || {
            if let Some(status) = self.process.ended() {
                panic!("the peer ended with {status}: {}{}", self.process.errors(), self.process.output());
            }
            ready().then_some(())
        });
    }

    /// What it logged.
    #[must_use]
    pub fn log(&self) -> String {
        let file = std::fs::read_to_string(self.folder.path().join("access.log")).unwrap_or_default();
        format!("{file}{}{}", self.process.output(), self.process.errors())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // nginx's workers outlive a master that is killed: it is asked first.
        self.process.signal(Signal::SIGTERM);
        for _ in 0..250 {
            if self.process.ended().is_some() {
                return;
            }
            clock::sleep(Duration::from_millis(20));
        }
    }
}

/// Where `peers/` is.
#[must_use]
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("peers")
}

fn fill(config: &str, values: &[(&str, String)]) -> (TempDir, PathBuf) {
    let scratch = tempfile::tempdir().expect("there is room for a test");
    let path = folder().join(config);
    let mut text =
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    for (key, value) in values {
        text = text.replace(&format!("@{key}@"), value);
    }
    text = text.replace("@FOLDER@", &scratch.path().display().to_string());
    if let Some(at) = text.find('@') {
        panic!("{config} wants a value: {}", text[at..].lines().next().unwrap_or_default());
    }
    let file = scratch.path().join(config);
    std::fs::write(&file, text).expect("the test's folder is writable");
    (scratch, file)
}
