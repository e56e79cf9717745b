//! The audit log's chain: each entry's hash covers the one before it, so that no entry can be changed, taken out, put in or moved
//! without every later hash being another one.
//!
//! Who can write to the database can compute all hashes anew. So a hash is noted elsewhere now and then: [`Verifier`] finds out
//! whether it is still in the chain. What was cut off at the end after the last noted one is not found out.
//!
//! Left out: storing, and where hashes are noted.

use aws_lc_rs::digest::{Context, SHA256};
use data_encoding::HEXLOWER;

/// An entry: who did what to what, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// 1, 2, 3 and so on, without a gap.
    pub number: i64,
    /// When, in milliseconds since 1970.
    pub at_ms: i64,
    /// Who did it; `-` where nobody is known.
    pub actor: String,
    /// What was done, such as `login`.
    pub action: String,
    /// To what, such as an account.
    pub target: String,
    /// What came of it, such as `refused`.
    pub outcome: String,
    /// More about it, without secrets.
    pub detail: String,
    /// The address that it came from.
    pub source: String,
    /// The service that asked for it.
    pub service: String,
    /// The request's identifier, as in the logs.
    pub request_id: String,
}

/// An entry's hash: SHA-256.
pub type Hash = [u8; 32];

/// What comes before the first entry.
pub const START: Hash = [0; 32];

/// The hash of an entry that comes after the one with the hash `before`.
#[must_use]
pub fn chain(before: &Hash, entry: &Entry) -> Hash {
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

/// Goes through all entries from the first one on.
#[derive(Clone, Debug)]
pub struct Verifier {
    head: Hash,
    entries: i64,
    /// What is still to be found.
    known: Option<Hash>,
}

/// The chain is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// How many entries it has.
    pub entries: i64,
    /// The hash of the last one; [`START`] where there is none. This is what is to be noted elsewhere.
    pub head: Hash,
}

/// The chain is broken: somebody changed the log, or the disk did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// Entries are missing, or not in their order.
    #[error("entry {expected} of the audit log is missing: entry {found} comes instead of it")]
    Gap {
        /// The number that should have come.
        expected: i64,
        /// The one that came.
        found: i64,
    },
    /// An entry is not what it was, or one before it.
    #[error(
        "entry {number} of the audit log does not have its hash: it was changed, or what comes before it"
    )]
    Changed {
        /// Its number.
        number: i64,
    },
    /// The hash that was noted belongs to no entry.
    #[error(
        "no entry of the audit log has the noted hash {}: the log was written anew, or its end was cut off",
        HEXLOWER.encode(.known)
    )]
    Unknown {
        /// The hash.
        known: Hash,
    },
}

impl Verifier {
    /// Before the first entry. `known` is a hash that was noted elsewhere, and must be found on the way.
    #[must_use]
    pub fn new(known: Option<Hash>) -> Self {
        // Noted before there was any entry.
        Self { head: START, entries: 0, known: known.filter(|known| *known != START) }
    }

    /// The next entry, and the hash that is stored with it.
    ///
    /// # Errors
    /// The chain is broken here. What comes after it says nothing any more.
    pub fn next(&mut self, entry: &Entry, stored: &Hash) -> Result<(), Broken> {
        let expected = self.entries + 1;
        if entry.number != expected {
            return Err(Broken::Gap { expected, found: entry.number });
        }
        let hash = chain(&self.head, entry);
        if hash != *stored {
            return Err(Broken::Changed { number: entry.number });
        }
        if self.known == Some(hash) {
            self.known = None;
        }
        (self.head, self.entries) = (hash, expected);
        Ok(())
    }

    /// How far it came.
    #[must_use]
    pub const fn so_far(&self) -> Verdict {
        Verdict { entries: self.entries, head: self.head }
    }

    /// After the last entry.
    ///
    /// # Errors
    /// The noted hash was not among them.
    pub fn finish(self) -> Result<Verdict, Broken> {
        match self.known {
            Some(known) => Err(Broken::Unknown { known }),
            None => Ok(Verdict { entries: self.entries, head: self.head }),
        }
    }
}

/// Of how an entry is hashed. Another form gets another one, so that no two forms give the same hash.
const VERSION: u8 = 1;

#[cfg(test)]
mod tests {
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

    fn verify(log: &Log, known: Option<Hash>) -> Result<Verdict, Broken> {
        let mut verifier = Verifier::new(known);
        for (entry, hash) in log {
            verifier.next(entry, hash)?;
        }
        verifier.finish()
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
    fn a_noted_hash_must_be_found() {
        let whole = log((1..=3).map(|number| entry(number, "ada", "login")));
        let verdict = Ok(Verdict { entries: 3, head: whole[2].1 });
        for known in [None, Some(START), Some(whole[0].1), Some(whole[2].1)] {
            assert_eq!(verify(&whole, known), verdict);
        }
        let known = whole[2].1;
        let cut = whole[..2].to_vec();
        assert_eq!(verify(&cut, Some(known)), Err(Broken::Unknown { known }));
        // Written anew from the first entry on, in itself it is whole.
        let anew = log((1..=3).map(|number| entry(number, "bob", "login")));
        assert!(verify(&anew, None).is_ok());
        assert_eq!(verify(&anew, Some(known)), Err(Broken::Unknown { known }));
        assert_eq!(verify(&Log::new(), None), Ok(Verdict { entries: 0, head: START }));
        assert_eq!(verify(&Log::new(), Some(known)), Err(Broken::Unknown { known }));
    }

    #[test]
    fn what_is_broken_is_said() {
        let whole = log((1..=3).map(|number| entry(number, "ada", "login")));
        let mut changed = whole.clone();
        changed[1].0.actor = "bob".into();
        let problem = verify(&changed, None).unwrap_err();
        assert_eq!(problem, Broken::Changed { number: 2 });
        let mut short = whole;
        short.remove(1);
        let problem = verify(&short, None).unwrap_err();
        assert_eq!(problem.to_string(), "entry 2 of the audit log is missing: entry 3 comes instead of it");
        let problem = Broken::Unknown { known: START }.to_string();
        assert!(problem.contains(&"0".repeat(64)), "{problem}");
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
        fn a_whole_log_is_whole(whole in any_log(), noted in any::<prop::sample::Index>()) {
            let known = whole[noted.index(whole.len())].1;
            let verdict = verify(&whole, Some(known)).unwrap();
            prop_assert_eq!(verdict.head, whole[whole.len() - 1].1);
            prop_assert_eq!(verdict.entries, i64::try_from(whole.len()).unwrap());
        }

        /// The stored hashes as they were, and the last one noted.
        #[test]
        fn any_change_is_found(whole in any_log(), at in any::<prop::sample::Index>(), field in 0_usize..10, bit in 0_usize..256) {
            let (at, known) = (at.index(whole.len()), Some(whole[whole.len() - 1].1));
            let mut changed = whole.clone();
            change(&mut changed[at].0, field);
            prop_assert!(verify(&changed, None).is_err());
            // All hashes anew from there on.
            let anew = log(changed.into_iter().map(|(entry, _)| entry));
            prop_assert!(verify(&anew, known).is_err());
            let mut other_hash = whole;
            other_hash[at].1[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(verify(&other_hash, None).is_err());
        }

        /// With numbers as they were, and with new ones.
        #[test]
        fn any_removal_insertion_and_swap_is_found(
            whole in any_log(), a in any::<prop::sample::Index>(), b in any::<prop::sample::Index>(), more in any_entry(),
        ) {
            let known = whole[whole.len() - 1].1;
            let (a, b) = (a.index(whole.len()), b.index(whole.len()));
            let mut removed = whole.clone();
            removed.remove(a);
            let mut inserted = whole.clone();
            inserted.insert(a, (more, known));
            let mut twice = whole.clone();
            twice.insert(a, whole[b].clone());
            let mut swapped = whole.clone();
            swapped.swap(a, b);
            for mut odd in [removed, inserted, twice, swapped] {
                if odd == whole {
                    continue;
                }
                prop_assert!(verify(&odd, Some(known)).is_err());
                for (number, (entry, _)) in (1..).zip(&mut odd) {
                    entry.number = number;
                }
                let entries: Vec<Entry> = odd.iter().map(|(entry, _)| entry.clone()).collect();
                let before: Vec<Entry> = whole.iter().map(|(entry, _)| entry.clone()).collect();
                // Equals that changed places are the same log.
                prop_assert!(verify(&odd, Some(known)).is_err() || entries == before);
                // With all hashes anew. What only comes after the noted one is a log that went on.
                if !entries.starts_with(&before) {
                    prop_assert!(verify(&log(entries), Some(known)).is_err());
                }
            }
        }
    }
}
