//! Refusals of the last minutes, coalesced: the first of an account, action and reason is written, the others are counted.

use std::collections::HashMap;
use std::time::Duration;

use super::chain::Entry;

/// What refusals have in common to be coalesced.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Refusal {
    pub(super) account: String,
    pub(super) action: &'static str,
    pub(super) reason: String,
}

/// Refusals of the last minutes. Times are since any start, the same for all calls.
#[derive(Debug, Default)]
pub(super) struct RecentRefusals(HashMap<Refusal, Recent>);

#[derive(Debug)]
struct Recent {
    since: Duration,
    /// The last one that was not written.
    last: Option<Entry>,
    count: u64,
}

/// How many kinds are remembered: beyond that, each refusal is written.
const MAX_KINDS: usize = 10_000;

impl RecentRefusals {
    /// Whether a refusal is to be written now. If not, it is counted.
    pub(super) fn is_due(&mut self, kind: Refusal, entry: &Entry, now: Duration) -> bool {
        if let Some(recent) = self.0.get_mut(&kind)
            // What was counted and is not written yet stays counted.
            && (recent.last.is_some() || now.saturating_sub(recent.since) < super::REFUSALS_WINDOW)
        {
            recent.count += 1;
            recent.last = Some(entry.clone());
            return false;
        }
        if self.0.len() < MAX_KINDS || self.0.contains_key(&kind) {
            self.0.insert(kind, Recent { since: now, last: None, count: 0 });
        }
        true
    }

    /// One entry for the refusals of each kind that were only counted, once its time is over; or for all kinds.
    pub(super) fn take_due(&mut self, now: Duration, all: bool) -> Vec<Entry> {
        let mut due = Vec::new();
        self.0.retain(|_, recent| {
            let is_over = all || now.saturating_sub(recent.since) >= super::REFUSALS_WINDOW;
            if is_over && let Some(mut entry) = recent.last.take() {
                if recent.count > 1 {
                    entry.detail = format!("{} ({} times)", entry.detail, recent.count);
                }
                due.push(entry);
            }
            !is_over
        });
        due
    }
}
