//! Networks of several hosts on one machine: namespaces joined by veth pairs.
//!
//! A namespace lives in a file descriptor of this process and has no name in `/run/netns`, so that nothing
//! is left behind however a test ends.

use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::sched::{CloneFlags, setns, unshare};

use crate::process::net_argument;

/// A file system for what is pinned in the kernel, at a folder of its own.
#[derive(Debug)]
pub struct BpfFs(tempfile::TempDir);

impl BpfFs {
    /// Mounts one. Needs root.
    ///
    /// # Panics
    /// Where the kernel has none.
    #[must_use]
    pub fn mount() -> Self {
        let folder = tempfile::tempdir().expect("there is room for a test");
        let status = Command::new("mount").args(["-t", "bpf", "bpf"]).arg(folder.path()).status();
        assert!(status.is_ok_and(|status| status.success()), "a bpffs can be mounted");
        Self(folder)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for BpfFs {
    fn drop(&mut self) {
        // What is pinned there ends with it.
        drop(Command::new("umount").arg(self.0.path()).status());
    }
}

/// One host: a network namespace with its loopback up.
#[derive(Clone, Debug)]
pub struct Host {
    namespace: Arc<File>,
}

impl Default for Host {
    fn default() -> Self {
        Self::new()
    }
}

impl Host {
    /// A host without neighbours. Needs root.
    ///
    /// # Panics
    /// Where the kernel does not allow it.
    #[must_use]
    pub fn new() -> Self {
        let make = || {
            unshare(CloneFlags::CLONE_NEWNET).expect("root may make network namespaces");
            File::open("/proc/thread-self/ns/net").expect("a thread has a network namespace")
        };
        let namespace = std::thread::spawn(make).join().expect("making a namespace does not panic");
        let host = Self { namespace: Arc::new(namespace) };
        host.ip("link set lo up");
        host
    }

    /// Joins two hosts by a cable: each gets an interface with these addresses (`10.77.1.1/24`, `fd77:1::1/64`), whose
    /// names are returned.
    pub fn link(&self, ours: &[&str], other: &Self, theirs: &[&str]) -> [String; 2] {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(2, Ordering::Relaxed);
        let (here, there) = (format!("veth{number}"), format!("veth{}", number + 1));
        let queues = "numtxqueues 2 numrxqueues 2";
        let there_in = format!("{there} {queues} netns {}", other.path().display());
        self.ip(&format!("link add {here} {queues} type veth peer name {there_in}"));
        for (host, name, addresses) in [(self, &here, ours), (other, &there, theirs)] {
            for address in addresses {
                // Without duplicate address detection: it would take seconds, and nobody else is there.
                let nodad = if address.contains(':') { "nodad" } else { "" };
                host.ip(&format!("address add {address} dev {name} {nodad}"));
            }
            host.ip(&format!("link set {name} up"));
        }
        [here, there]
    }

    /// Runs `ip` with these arguments on this host.
    pub fn ip(&self, arguments: &str) {
        self.run("ip", &arguments.split_whitespace().collect::<Vec<_>>());
    }

    /// Runs a program on this host to its end.
    ///
    /// # Panics
    /// When it fails.
    pub fn run(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.output(program, arguments);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{program} {arguments:?}: {}\n{out}{err}", output.status);
        out.into_owned()
    }

    /// Runs a program on this host to its end, whatever that is.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn output(&self, program: &str, arguments: &[&str]) -> Output {
        self.command(program).args(arguments).output().expect("nsenter is installed")
    }

    /// A command that will run on this host.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(net_argument(&self.path())).arg("--").arg(program);
        command
    }

    /// Runs code of this process on this host: sockets that it makes belong there and stay there.
    ///
    /// # Panics
    /// When `work` does.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            setns(&*self.namespace, CloneFlags::CLONE_NEWNET).expect("root may enter a namespace");
            work()
        };
        std::thread::scope(|scope| match scope.spawn(inside).join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }

    /// The hardware address of an interface.
    ///
    /// # Panics
    /// When there is no such interface.
    #[must_use]
    pub fn mac(&self, interface: &str) -> String {
        let shown = self.run("ip", &["-json", "link", "show", "dev", interface]);
        let shown: serde_json::Value = serde_json::from_str(&shown).expect("ip prints JSON");
        shown[0]["address"].as_str().expect("an interface has an address").to_owned()
    }

    /// Starts SYNs from made-up sources (of 198.18.0.0/15 or 2001:db8:f100::/40) out of an interface, to a neighbour with
    /// this hardware address.
    ///
    /// # Panics
    /// When Python cannot be started.
    #[must_use]
    pub fn syn_flood(&self, interface: &str, mac: &str, to: SocketAddr, per_s: u32, time: Duration) -> Child {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/syn_flood.py");
        let mut python = self.command("python3");
        python.arg(script).args([interface, mac, &to.ip().to_string(), &to.port().to_string()]);
        python.args([per_s.to_string(), time.as_secs().to_string()]);
        python.stdout(Stdio::null()).spawn().expect("python3 is installed")
    }

    /// The namespace's file, for programs.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.namespace.as_raw_fd()).into()
    }
}
