//! How much memory this process has taken, and what it sheds when that is too much.
//!
//! What is counted is what the allocator has given out, in pages: it falls at once when connections end, which the
//! resident memory of a process does not. Buffers of sockets are the kernel's, which bounds them itself (`net.ipv4.tcp_mem`).

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// The memory that may be taken, and what has been.
#[derive(Debug)]
pub struct Memory {
    most: u64,
    used: AtomicU64,
    short: AtomicBool,
}

/// How often it is looked at while most of it is free, and else: a fast network fills 10 MiB in 10 ms.
const LOOK: Duration = Duration::from_millis(100);
const CLOSE_LOOK: Duration = Duration::from_millis(10);

impl Memory {
    /// At most so many bytes.
    #[must_use]
    pub const fn new(most: u64) -> Self {
        Self { most, used: AtomicU64::new(0), short: AtomicBool::new(false) }
    }

    /// As many as may be taken.
    #[must_use]
    pub const fn most(&self) -> u64 {
        self.most
    }

    /// As many as were taken when it was last looked at.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Whether new connections are refused and those that ask for nothing are ended.
    #[must_use]
    pub fn is_short(&self) -> bool {
        self.short.load(Ordering::Relaxed)
    }

    /// Looks at it for as long as the process runs.
    pub async fn watch(&self) {
        loop {
            tokio::time::sleep(if self.used() > self.most / 2 { CLOSE_LOOK } else { LOOK }).await;
            if let Some(used) = taken() {
                self.note(used);
            }
        }
    }

    fn note(&self, used: u64) {
        self.used.store(used, Ordering::Relaxed);
        let (was, most) = (self.is_short(), self.most);
        let is = is_short(was, used, most);
        if is != was {
            self.short.store(is, Ordering::Relaxed);
            if is {
                tracing::warn!(used, most, "memory is short: new connections are refused, idle ones ended");
            } else {
                tracing::info!(used, most, "memory suffices again");
            }
        }
    }
}

/// What the allocator has given out, in bytes of whole pages; `None` where it is another one, as in tests.
fn taken() -> Option<u64> {
    tikv_jemalloc_ctl::epoch::advance().ok()?;
    tikv_jemalloc_ctl::stats::active::read().ok().map(|bytes| bytes as u64)
}

/// It is short from `most` on, until there is a twentieth to spare: what came and went at the edge would otherwise
/// switch it with every connection.
fn is_short(was: bool, used: u64, most: u64) -> bool {
    if was { used > most - most / 20 } else { used > most }
}

/// The most that this process should take where nobody has said: four fifths of the machine's memory, or of what its
/// control groups allow. Without /proc there is no limit.
#[must_use]
pub fn default_most() -> u64 {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let machine = total(&read("/proc/meminfo"));
    let group = group_limit(&read("/proc/self/cgroup"), Path::new("/sys/fs/cgroup"));
    machine.into_iter().chain(group).min().map_or(u64::MAX, |bytes| bytes / 5 * 4)
}

/// `MemTotal` in bytes (proc_meminfo(5)).
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The least `memory.max` of the process's control group and those above it (cgroups(7), version 2), mounted at `root`.
fn group_limit(cgroup: &str, root: &Path) -> Option<u64> {
    let own = cgroup.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let limits = Path::new(own).ancestors().filter_map(|group| {
        std::fs::read_to_string(root.join(group).join("memory.max")).ok()?.trim().parse().ok()
    });
    limits.min()
}

#[cfg(test)]
mod tests {
    use super::{Memory, default_most, group_limit, is_short, total};

    #[test]
    fn it_is_short_until_there_is_some_to_spare() {
        let steps = [90, 100, 101, 99, 96, 95, 99, 101].map(|used| (used, 100));
        let mut short = false;
        let seen = steps.map(|(used, most)| {
            short = is_short(short, used, most);
            short
        });
        assert_eq!(seen, [false, false, true, true, true, false, false, true]);
        assert!(!is_short(true, u64::MAX - u64::MAX / 20, u64::MAX));
        let memory = Memory::new(100);
        memory.note(101);
        assert!(memory.is_short());
        assert_eq!(memory.used(), 101);
    }

    #[test]
    fn the_narrowest_control_group_counts() {
        let root = tempfile::tempdir().unwrap();
        let limit = |cgroup: &str| group_limit(cgroup, root.path());
        assert_eq!(limit("0::/system.slice/mc-proxy.service\n"), None);
        let service = root.path().join("system.slice/mc-proxy.service");
        std::fs::create_dir_all(&service).unwrap();
        std::fs::write(service.join("memory.max"), "max\n").unwrap();
        assert_eq!(limit("0::/system.slice/mc-proxy.service\n"), None);
        std::fs::write(root.path().join("system.slice/memory.max"), "1000\n").unwrap();
        assert_eq!(limit("0::/system.slice/mc-proxy.service\n"), Some(1000));
        std::fs::write(service.join("memory.max"), "500\n").unwrap();
        assert_eq!(limit("1:cpu:/\n0::/system.slice/mc-proxy.service\n"), Some(500));
        assert_eq!(limit("0::/\n"), None);
        assert_eq!(limit(""), None);
    }

    #[test]
    fn the_machine_has_a_limit() {
        assert_eq!(total("MemTotal:       16384 kB\nMemFree:  1 kB\n"), Some(16_777_216));
        assert_eq!(total(""), None);
        assert!((1 << 20..u64::MAX).contains(&default_most()));
    }
}
