//! Child processes that end with their guard, whatever happens to the test.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::clock;

/// A running program: killed on drop.
#[derive(Debug)]
pub struct Process {
    child: Child,
    output: PathBuf,
    errors: PathBuf,
}

impl Process {
    /// Starts a program that writes what it says to `<name>.out` and `<name>.err` in `folder` (appending).
    /// It starts in the network namespace at `namespace`, if one is given, and as `nobody` if asked.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(
        command: &Command,
        folder: &Path,
        name: &str,
        namespace: Option<&Path>,
        nobody: bool,
    ) -> Self {
        let (output, errors) = (folder.join(format!("{name}.out")), folder.join(format!("{name}.err")));
        let open = |path: &Path| -> File {
            File::options().create(true).append(true).open(path).expect("the test's folder is writable")
        };
        // A death signal outlives exec but not a change of user: setpriv changes the user first.
        let mut guarded = Command::new("setpriv");
        if nobody {
            guarded.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        }
        guarded.args(["--pdeathsig", "KILL", "--"]);
        if let Some(namespace) = namespace {
            guarded.arg("nsenter").arg(net_argument(namespace)).arg("--");
        }
        guarded.arg(command.get_program()).args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => guarded.env(key, value),
                None => guarded.env_remove(key),
            };
        }
        if let Some(folder) = command.get_current_dir() {
            guarded.current_dir(folder);
        }
        guarded.stdin(Stdio::null()).stdout(open(&output)).stderr(open(&errors));
        let child = spawn(guarded).unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        Self { child, output, errors }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote to standard output so far.
    #[must_use]
    pub fn output(&self) -> String {
        std::fs::read(&self.output)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// What it wrote to standard error so far.
    #[must_use]
    pub fn errors(&self) -> String {
        std::fs::read(&self.errors)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("process ids are small"));
        // It may have ended by itself: then there is nothing to tell it.
        kill(pid, signal).ok();
    }

    /// Whether each of its threads is stopped, as by SIGSTOP: a signal is sent before it has an effect.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).into_iter().flatten();
        let states: Vec<_> = threads
            .flatten()
            .filter_map(|thread| std::fs::read_to_string(thread.path().join("stat")).ok())
            // The state follows the name, which is in parentheses and may contain any character.
            .filter_map(|stat| stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next()))
            .collect();
        !states.is_empty() && states.iter().all(|state| *state == 'T')
    }

    /// Whether it has ended, and how.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it still runs after `limit`.
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        clock::wait_for("a process to end", limit, || self.ended())
    }

    /// Ends it at once, as a power cut would.
    pub fn kill9(&mut self) {
        self.child.kill().expect("a child can be killed");
        self.child.wait().expect("a child can be waited for");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// How `nsenter` is told a namespace.
pub(crate) fn net_argument(namespace: &Path) -> String {
    format!("--net={}", namespace.display())
}

/// The kernel's death signal follows the parent *thread*, and tests' threads end before their process: one
/// thread that never ends starts all children.
fn spawn(command: Command) -> io::Result<Child> {
    type Request = (Command, Sender<io::Result<Child>>);
    static SPAWNER: OnceLock<Mutex<Sender<Request>>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (requests, inbox): (Sender<Request>, Receiver<Request>) = channel();
        std::thread::spawn(move || {
            for (mut command, reply) in inbox {
                // Nobody waits for the reply only when the test has panicked.
                reply.send(command.spawn()).ok();
            }
        });
        Mutex::new(requests)
    });
    let (reply, answer) = channel();
    spawner
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .send((command, reply))
        .expect("the spawner never ends");
    answer.recv().expect("the spawner answers")
}
