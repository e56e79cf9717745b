//! Refusals of the last minutes, coalesced: the first of an account, action and reason is written, the others are counted. Each target and source
//! of them is counted apart, up to a number, so that one refusal does not hide another.

use std::collections::HashMap;
use std::time::Duration;

use super::chain::Entry;

/// What refusals have in common to be coalesced.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Refusal {
    /// Who is refused: an account, or `-`.
    pub(super) account: String,
    pub(super) action: &'static str,
    pub(super) reason: &'static str,
}

/// Refusals that are counted together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Group {
    /// Of one target, from one source.
    Same { kind: Refusal, target: String, source: String },
    /// Of all other targets and sources of a kind.
    Others(Refusal),
    /// Of everybody, once there are too many groups.
    Beyond { action: &'static str, reason: &'static str },
}

/// Refusals of the last minutes. Times are since any start, the same for all calls.
#[derive(Debug, Default)]
pub(super) struct RecentRefusals {
    groups: HashMap<Group, Recent>,
    /// How many groups of one target and source a kind has.
    apart: HashMap<Refusal, usize>,
}

#[derive(Debug)]
struct Recent {
    since: Duration,
    counted: Option<Counted>,
}

/// Refusals that were not written.
#[derive(Debug)]
pub(super) struct Counted {
    group: Group,
    last: Entry,
    count: u64,
}

/// Targets and sources of one kind that are counted apart.
const MAX_APART: usize = 16;

/// How many groups are remembered: each takes less than a KiB.
const MAX_GROUPS: usize = 10_000;

impl RecentRefusals {
    /// Whether a refusal is to be written now. If not, it is counted.
    pub(super) fn is_due(&mut self, kind: Refusal, entry: &Entry, now: Duration) -> bool {
        let group = self.group(kind, entry);
        if let Some(recent) = self.groups.get(&group)
            // What was counted and is not written yet stays counted.
            && (recent.counted.is_some() || now.saturating_sub(recent.since) < super::REFUSALS_WINDOW)
        {
            self.count(group, entry.clone(), 1, now);
            return false;
        }
        self.remember(group, now);
        true
    }

    /// Counts a refusal that was due and could not be written.
    pub(super) fn not_written(&mut self, kind: Refusal, entry: Entry, now: Duration) {
        let group = self.group(kind, &entry);
        self.count(group, entry, 1, now);
    }

    /// What was counted in each group, once its time is over; or in all groups.
    pub(super) fn take_due(&mut self, now: Duration, all: bool) -> Vec<Counted> {
        let mut due = Vec::new();
        let apart = &mut self.apart;
        self.groups.retain(|group, recent| {
            let is_over = all || now.saturating_sub(recent.since) >= super::REFUSALS_WINDOW;
            if is_over {
                due.extend(recent.counted.take());
                if let Group::Same { kind, .. } = group
                    && let Some(count) = apart.get_mut(kind)
                {
                    *count -= 1;
                    if *count == 0 {
                        apart.remove(kind);
                    }
                }
            }
            !is_over
        });
        due
    }

    /// Takes back what could not be written.
    pub(super) fn count_on(&mut self, due: Vec<Counted>, now: Duration) {
        for Counted { group, last, count } in due {
            self.count(group, last, count, now);
        }
    }

    fn group(&self, kind: Refusal, entry: &Entry) -> Group {
        let (target, source) = (entry.target.clone(), entry.source.clone());
        let (action, reason) = (kind.action, kind.reason);
        let apart = self.apart.get(&kind).copied().unwrap_or_default();
        let same = Group::Same { kind: kind.clone(), target, source };
        let group =
            if apart < MAX_APART || self.groups.contains_key(&same) { same } else { Group::Others(kind) };
        if self.groups.len() < MAX_GROUPS || self.groups.contains_key(&group) {
            return group;
        }
        Group::Beyond { action, reason }
    }

    fn count(&mut self, group: Group, entry: Entry, more: u64, now: Duration) {
        self.remember_if_new(&group, now);
        let Some(recent) = self.groups.get_mut(&group) else { return };
        let before = recent.counted.take();
        // The newer entry is the last one.
        let (last, count) = before.map_or((entry.clone(), 0), |before| {
            (if before.last.at_ms > entry.at_ms { before.last } else { entry }, before.count)
        });
        recent.counted = Some(Counted { group, last, count: count + more });
    }

    fn remember_if_new(&mut self, group: &Group, now: Duration) {
        if !self.groups.contains_key(group) {
            self.remember(group.clone(), now);
        }
    }

    fn remember(&mut self, group: Group, now: Duration) {
        if let Group::Same { kind, .. } = &group
            && !self.groups.contains_key(&group)
        {
            *self.apart.entry(kind.clone()).or_default() += 1;
        }
        self.groups.insert(group, Recent { since: now, counted: None });
    }
}

impl Counted {
    /// The entry for all of them: the last one, with their number.
    pub(super) fn entry(&self) -> Entry {
        let mut entry = self.last.clone();
        let of = match self.group {
            Group::Same { .. } => "",
            Group::Others(_) => ", of several targets or sources",
            Group::Beyond { .. } => ", of several accounts",
        };
        if self.count > 1 {
            entry.detail = format!("{} ({} times{of})", entry.detail, self.count);
        }
        entry
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(account: &str, target: &str, source: &str, at_ms: i64) -> Entry {
        Entry {
            number: 0,
            at_ms,
            actor: account.to_owned(),
            action: "token.introspect".to_owned(),
            target: target.to_owned(),
            outcome: "refused".to_owned(),
            detail: "forbidden".to_owned(),
            source: source.to_owned(),
            service: "mcias".to_owned(),
            request_id: String::new(),
        }
    }

    fn refuse(recent: &mut RecentRefusals, account: &str, target: &str, source: &str) -> bool {
        let kind = Refusal { account: account.to_owned(), action: "token.introspect", reason: "forbidden" };
        recent.is_due(kind, &entry(account, target, source, 1), Duration::ZERO)
    }

    fn written(recent: &mut RecentRefusals) -> Vec<String> {
        let due = recent.take_due(super::super::REFUSALS_WINDOW, false);
        let mut written: Vec<_> =
            due.iter().map(Counted::entry).map(|it| format!("{} {}", it.target, it.detail)).collect();
        written.sort();
        written
    }

    #[test]
    fn a_target_does_not_hide_another_and_many_are_one_entry() {
        let mut recent = RecentRefusals::default();
        assert!(refuse(&mut recent, "mcr", "ada", "192.0.2.1"));
        assert!(refuse(&mut recent, "mcr", "bob", "192.0.2.1"));
        assert!(refuse(&mut recent, "mcr", "bob", "192.0.2.2"), "another source");
        for _ in 0..3 {
            assert!(!refuse(&mut recent, "mcr", "ada", "192.0.2.1"));
        }
        assert_eq!(written(&mut recent), ["ada forbidden (3 times)"]);
        assert!(recent.groups.is_empty() && recent.apart.is_empty());
        let due = (0..1000).filter(|at| refuse(&mut recent, "mcr", &format!("a{at}"), "192.0.2.1")).count();
        assert_eq!(due, MAX_APART + 1, "one more for all others");
        assert_eq!(written(&mut recent), ["a999 forbidden (983 times, of several targets or sources)"]);
    }

    #[test]
    fn many_accounts_take_bounded_memory_and_entries() {
        let mut recent = RecentRefusals::default();
        let due = (0..MAX_GROUPS + 1000).filter(|at| refuse(&mut recent, &format!("a{at}"), "x", "")).count();
        assert_eq!((due, recent.groups.len()), (MAX_GROUPS + 1, MAX_GROUPS + 1));
        assert_eq!(written(&mut recent), ["x forbidden (999 times, of several accounts)"]);
    }

    #[test]
    fn what_could_not_be_written_is_counted_on() {
        let mut recent = RecentRefusals::default();
        let kind = Refusal { account: "mcr".to_owned(), action: "token.introspect", reason: "forbidden" };
        assert!(refuse(&mut recent, "mcr", "ada", ""));
        recent.not_written(kind, entry("mcr", "ada", "", 1), Duration::ZERO);
        assert!(!refuse(&mut recent, "mcr", "ada", ""));
        let due = recent.take_due(Duration::ZERO, true);
        // Another one in the meantime has a count of its own, from 1.
        assert!(refuse(&mut recent, "mcr", "ada", ""));
        assert!(!refuse(&mut recent, "mcr", "ada", ""));
        recent.count_on(due, Duration::ZERO);
        assert_eq!(written(&mut recent), ["ada forbidden (3 times)"]);
    }
}
