//! What the kernel says of a process and all its children: CPU time and memory.

use std::fs;
use std::time::Duration;

use anyhow::Context as _;

/// The process and all its descendants.
pub(crate) fn tree(root: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid: u32| Some((pid, Stat::read(pid)?.parent)))
        .collect();
    let mut found = vec![root];
    let mut next = 0;
    while next < found.len() {
        let parent = found[next];
        found.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| pid));
        next += 1;
    }
    found
}

/// User and system time of these processes, all their threads included: those that ended, and those that the
/// kernel runs for them (io_uring's). The kernel counts in hundredths of a second.
pub(crate) fn cpu(pids: &[u32]) -> Duration {
    let ticks: u64 = pids.iter().filter_map(|pid| Stat::read(*pid)).map(|stat| stat.ticks).sum();
    Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second())
}

/// Memory of these processes in KiB, what they share counted once (PSS).
///
/// # Errors
/// One of them ended, or is not ours to look at.
pub(crate) fn pss_kib(pids: &[u32]) -> anyhow::Result<u64> {
    let mut sum = 0;
    for pid in pids {
        let path = format!("/proc/{pid}/smaps_rollup");
        let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        sum += parse_pss(&text).with_context(|| format!("{path} has no Pss"))?;
    }
    Ok(sum)
}

fn parse_pss(smaps: &str) -> Option<u64> {
    smaps.lines().find_map(|line| line.strip_prefix("Pss:"))?.trim().strip_suffix(" kB")?.parse().ok()
}

/// What is read of /proc/PID/stat.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    parent: u32,
    ticks: u64,
}

impl Stat {
    fn read(pid: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The command's name, in parentheses, may hold anything: fields are counted from its end.
    fn parse(stat: &str) -> Option<Self> {
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
        Some(Self { parent: fields.get(1)?.parse().ok()?, ticks: number(11)? + number(12)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_with_a_hostile_name() {
        let stat = "42 (a) b (c) S 7 42 42 0 -1 4194304 100 0 0 0 31 11 5 6 20 0 1 0 100 0 0";
        assert_eq!(Stat::parse(stat), Some(Stat { parent: 7, ticks: 42 }));
        assert_eq!(Stat::parse("42 (a) S 7"), None);
    }

    #[test]
    fn pss_of_a_rollup() {
        assert_eq!(parse_pss("0-1 ---p [rollup]\nRss:  90 kB\nPss:    42 kB\nPss_Dirty: 1 kB\n"), Some(42));
    }

    #[test]
    fn we_are_in_our_own_tree() {
        let own = std::process::id();
        assert_eq!(tree(own)[0], own);
        assert!(pss_kib(&[own]).unwrap() > 100);
    }
}
