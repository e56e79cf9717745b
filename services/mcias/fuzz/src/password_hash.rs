//! Stored password hashes, as a database that somebody edited would have them: only the one hash of the password is
//! right.
//!
//! Input: the text of a hash. The password is always the same. A fuzzer finds no other hash of it, but other ways to
//! write the same.

use std::sync::LazyLock;

use mcdsl::Secret;
use mcias::domain::password::{Hasher, Params, Verified};

static HASHER: LazyLock<Hasher> = LazyLock::new(|| {
    Hasher::new(Params { memory_kib: 8, passes: 1, lanes: 1 }).expect("the least that there is")
});

/// The hash that is right.
pub static GOOD: LazyLock<String> = LazyLock::new(|| HASHER.hash(&password(), [7; 16]));

fn password() -> Secret {
    Secret::from("gravel orbit mustard")
}

/// Checks one input.
pub fn check(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else { return };
    if is_much_work(text) {
        return;
    }
    if let Verified::Right { rehash } = under_test(text) {
        assert!(text == *GOOD && !rehash, "{text:?}");
    }
}

/// Parameters that are within bounds and take long. What is out of them must be refused at once.
fn is_much_work(text: &str) -> bool {
    let number = |part: &str| part.get(2..).and_then(|digits| digits.parse::<u32>().ok());
    text.split(['$', ',']).any(|part| match (part.get(..2), number(part)) {
        (Some("m="), Some(kib)) => (256..=1024 * 1024).contains(&kib),
        (Some("t="), Some(passes)) => (3..=10).contains(&passes),
        _ => false,
    })
}

fn under_test(text: &str) -> Verified {
    // The planted bug: what comes after the hash is ignored.
    #[cfg(feature = "planted")]
    return HASHER.verify(&password(), text.get(..GOOD.len()).or(Some(text)));
    #[cfg(not(feature = "planted"))]
    HASHER.verify(&password(), Some(text))
}
