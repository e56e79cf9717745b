//! The audit log's chain: each entry's hash covers the hash before it, so that an entry cannot be changed, removed, inserted or moved without
//! changing every later hash.
//!
//! Who can write to the database can recompute all hashes. So a checkpoint, an entry's number and hash, is kept elsewhere now and then, and
//! verification starts from it. Entries cut off after the last checkpoint are not detected.

use aws_lc_rs::digest::{Context, SHA256};

/// An entry: who did what to what, and the outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// From 1, without gaps.
    pub number: i64,
    /// Milliseconds since 1970.
    pub at_ms: i64,
    /// The account that did it; `-` where it is not known.
    pub actor: String,
    /// What was done: `login`.
    pub action: String,
    /// What it was done to: an account.
    pub target: String,
    /// `done` or `refused`.
    pub outcome: String,
    /// Details, without secrets.
    pub detail: String,
    /// The client's address.
    pub source: String,
    /// The service through which it was requested.
    pub service: String,
    /// The request's id, as in the logs.
    pub request_id: String,
}

/// An entry's hash: SHA-256.
pub type Hash = [u8; 32];

/// The hash before the first entry.
pub const START: Hash = [0; 32];

/// The hash of an entry that follows the one with the hash `before`.
#[must_use]
pub(super) fn chain(before: &Hash, entry: &Entry) -> Hash {
    let Entry { number, at_ms, actor, action, target, outcome, detail, source, service, request_id } = entry;
    let mut hash = Context::new(&SHA256);
    hash.update(&[VERSION]);
    hash.update(before);
    hash.update(&number.to_be_bytes());
    hash.update(&at_ms.to_be_bytes());
    // Each with its length: else `ab` and `c` were the same as `a` and `bc`.
    for text in [actor, action, target, outcome, detail, source, service, request_id] {
        let bytes = u64::try_from(text.len()).expect("a length fits in 64 bits");
        hash.update(&bytes.to_be_bytes());
        hash.update(text.as_bytes());
    }
    hash.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// An entry with its hash: where a verification starts, or where it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The entry's number; 0 before the first.
    pub number: i64,
    /// Its hash; [`START`] before the first.
    pub hash: Hash,
}

/// Where the chain is broken: somebody changed the log, or the disk did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// Entries are missing, or not in order.
    #[error("Entry {expected} of the audit log is missing: entry {found} follows entry {}.", .expected - 1)]
    Gap {
        /// The number that should have come.
        expected: i64,
        /// The one that came.
        found: i64,
    },
    /// An entry, or one before it, is not what it was.
    #[error(
        "Entry {number} of the audit log does not match its hash: it, or an entry before it, was changed."
    )]
    Changed {
        /// Its number.
        number: i64,
    },
    /// The entry of a checkpoint is not there, or has another hash.
    #[error(
        "Entry {number} of the audit log does not have the hash of the checkpoint: the log was rewritten, or its end was cut off."
    )]
    Checkpoint {
        /// Its number.
        number: i64,
    },
}

impl Checkpoint {
    /// Before the first entry.
    pub const FIRST: Self = Self { number: 0, hash: START };

    /// Verifies the entry that follows, with the hash that is stored with it.
    ///
    /// # Errors
    /// The chain is broken here. What follows proves nothing.
    pub fn next(&mut self, entry: &Entry, stored: &Hash) -> Result<(), Broken> {
        let expected = self.number + 1;
        if entry.number != expected {
            return Err(Broken::Gap { expected, found: entry.number });
        }
        let hash = chain(&self.hash, entry);
        if hash != *stored {
            return Err(Broken::Changed { number: entry.number });
        }
        *self = Self { number: expected, hash };
        Ok(())
    }
}

/// Version of the way in which an entry is hashed. Another way gets another number, so that no two ways give the same hash.
const VERSION: u8 = 1;

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn entry(number: i64, actor: &str, action: &str) -> Entry {
        let [actor, action] = [actor, action].map(str::to_owned);
        Entry {
            number,
            at_ms: 1_790_000_000_000,
            actor,
            action,
            target: "mcr".into(),
            outcome: "ok".into(),
            detail: String::new(),
            source: "192.0.2.1".into(),
            service: "mcias".into(),
            request_id: "r1".into(),
        }
    }

    type Log = Vec<(Entry, Hash)>;

    fn log(entries: impl IntoIterator<Item = Entry>) -> Log {
        let mut head = START;
        let hashed = |entry| {
            head = chain(&head, &entry);
            (entry, head)
        };
        entries.into_iter().map(hashed).collect()
    }

    fn verify(log: &Log, from: Checkpoint) -> Result<Checkpoint, Broken> {
        let mut verified = from;
        for (entry, hash) in &log[usize::try_from(from.number).unwrap().min(log.len())..] {
            verified.next(entry, hash)?;
        }
        Ok(verified)
    }

    /// A checkpoint of an entry, as it was.
    fn checkpoint(log: &Log, at: usize) -> Checkpoint {
        Checkpoint { number: log[at].0.number, hash: log[at].1 }
    }

    /// Whether a log is found out: by itself, or by the checkpoint.
    fn is_found_out(log: &Log, kept: Checkpoint) -> bool {
        let there = log.iter().any(|(entry, hash)| entry.number == kept.number && *hash == kept.hash);
        !there || verify(log, Checkpoint::FIRST).is_err()
    }

    #[test]
    fn the_hash_is_of_this_form() {
        // By hand, with Python's hashlib: 01, 32 zeros, 1 and the time in 8 bytes each, then each text after its length in 8.
        let hex = HEXLOWER.encode(&chain(&START, &entry(1, "ada", "login")));
        assert_eq!(hex, "84fc91f20eb34efd17c43ff6b2a1d3a7f8650f23f320998d8e10b678470a5ff8");
    }

    #[test]
    fn where_a_text_ends_is_part_of_it() {
        let hashes = [("ab", "c"), ("a", "bc"), ("abc", ""), ("", "abc"), ("ab\0", "c")]
            .map(|(actor, action)| chain(&START, &entry(1, actor, action)));
        assert!((0..5).all(|a| (0..a).all(|b| hashes[a] != hashes[b])));
    }

    #[test]
    fn verification_goes_on_from_a_checkpoint() {
        let whole = log((1..=3).map(|number| entry(number, "ada", "login")));
        let end = checkpoint(&whole, 2);
        for from in [Checkpoint::FIRST, checkpoint(&whole, 0), checkpoint(&whole, 1), end] {
            assert_eq!(verify(&whole, from), Ok(end));
        }
        // Rewritten from the first entry on, it is whole in itself, and not behind the checkpoint.
        let rewritten = log((1..=3).map(|number| entry(number, "bob", "login")));
        assert!(verify(&rewritten, Checkpoint::FIRST).is_ok());
        assert_eq!(verify(&rewritten, checkpoint(&whole, 1)), Err(Broken::Changed { number: 3 }));
    }

    #[test]
    fn a_break_is_named() {
        let whole = log((1..=3).map(|number| entry(number, "ada", "login")));
        let mut changed = whole.clone();
        changed[1].0.actor = "bob".into();
        assert_eq!(verify(&changed, Checkpoint::FIRST), Err(Broken::Changed { number: 2 }));
        let mut short = whole;
        short.remove(1);
        let problem = verify(&short, Checkpoint::FIRST).unwrap_err();
        assert_eq!(problem.to_string(), "Entry 2 of the audit log is missing: entry 3 follows entry 1.");
    }

    fn any_entry() -> impl Strategy<Value = Entry> {
        (any::<i64>(), [(); 8].map(|()| "[ab]{0,2}")).prop_map(|(at_ms, texts)| {
            let [actor, action, target, outcome, detail, source, service, request_id] = texts;
            Entry { number: 0, at_ms, actor, action, target, outcome, detail, source, service, request_id }
        })
    }

    fn any_log() -> impl Strategy<Value = Log> {
        vec(any_entry(), 1..8)
            .prop_map(|entries| log((1..).zip(entries).map(|(number, entry)| Entry { number, ..entry })))
    }

    /// Each of an entry's fields in turn.
    fn change(entry: &mut Entry, field: usize) {
        let Entry { number, at_ms, actor, action, target, outcome, detail, source, service, request_id } =
            entry;
        let texts = [actor, action, target, outcome, detail, source, service, request_id];
        match field {
            0 => *number += 1,
            1 => *at_ms = at_ms.wrapping_add(1),
            _ => texts.into_iter().nth(field - 2).unwrap().push('a'),
        }
    }

    proptest! {
        #[test]
        fn a_whole_log_is_whole(whole in any_log(), from in any::<prop::sample::Index>()) {
            let end = checkpoint(&whole, whole.len() - 1);
            prop_assert_eq!(verify(&whole, Checkpoint::FIRST), Ok(end));
            prop_assert_eq!(verify(&whole, checkpoint(&whole, from.index(whole.len()))), Ok(end));
        }

        /// With the stored hashes as they were, and with all of them recomputed against a checkpoint of the end.
        #[test]
        fn any_change_is_found(whole in any_log(), at in any::<prop::sample::Index>(), field in 0_usize..10, bit in 0_usize..256) {
            let (at, kept) = (at.index(whole.len()), checkpoint(&whole, whole.len() - 1));
            let mut changed = whole.clone();
            change(&mut changed[at].0, field);
            prop_assert!(verify(&changed, Checkpoint::FIRST).is_err());
            prop_assert!(is_found_out(&log(changed.into_iter().map(|(entry, _)| entry)), kept));
            let mut other_hash = whole;
            other_hash[at].1[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(verify(&other_hash, Checkpoint::FIRST).is_err());
        }

        /// With numbers as they were, and renumbered.
        #[test]
        fn any_removal_insertion_and_swap_is_found(
            whole in any_log(), a in any::<prop::sample::Index>(), b in any::<prop::sample::Index>(), more in any_entry(),
        ) {
            let kept = checkpoint(&whole, whole.len() - 1);
            let (a, b) = (a.index(whole.len()), b.index(whole.len()));
            let mut removed = whole.clone();
            removed.remove(a);
            let mut inserted = whole.clone();
            inserted.insert(a, (more, kept.hash));
            let mut twice = whole.clone();
            twice.insert(a, whole[b].clone());
            let mut swapped = whole.clone();
            swapped.swap(a, b);
            for mut odd in [removed, inserted, twice, swapped] {
                if odd == whole {
                    continue;
                }
                prop_assert!(is_found_out(&odd, kept));
                for (number, (entry, _)) in (1..).zip(&mut odd) {
                    entry.number = number;
                }
                let entries: Vec<Entry> = odd.iter().map(|(entry, _)| entry.clone()).collect();
                let before: Vec<Entry> = whole.iter().map(|(entry, _)| entry.clone()).collect();
                // Equal entries that changed places are the same log.
                prop_assert!(is_found_out(&odd, kept) || entries == before);
                // With all hashes recomputed. What only follows the checkpoint is a log that went on.
                if !entries.starts_with(&before) {
                    prop_assert!(is_found_out(&log(entries), kept));
                }
            }
        }
    }
}
