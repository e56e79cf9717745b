//! Passwords: which are strong enough to be set, and how they are hashed and verified.
//!
//! A password is judged by its length and by how easily it is guessed, not by the kinds of characters in it:
//! composition rules make passwords worse (NIST SP 800-63B-4, section 3.1.1). It is stored as an Argon2id hash (RFC
//! 9106) in a PHC string, which contains its parameters, so that they can be raised without new passwords.
//!
//! The same password has different bytes on different keyboards: `ö` is one character or two. So a password is normalised as the profile
//! OpaqueString says (RFC 8265, section 4.2.2): other spaces become U+0020, and the text is in NFC. Hashes of passwords that were set
//! before are of the text as it was typed: where the two differ, both are tried, and the hash is replaced. Of the profile's characters that are not allowed, only
//! control characters are refused, and only in a new password: which characters are unassigned depends on the version of Unicode.
//!
//! Left out: a pepper (there is no second place to store one), and limits on attempts ([`super::throttle`]). The memory that Argon2 fills, and the copies of zxcvbn and of the normalisation, are reused or freed without being wiped.

use std::fmt;
use std::hint::black_box;
use std::sync::{Mutex, MutexGuard, PoisonError};

use argon2::{Algorithm, Argon2, Block, PasswordHash, Version};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use data_encoding::BASE64_NOPAD;
use icu_normalizer::ComposingNormalizerBorrowed;
use mcdsl::Secret;
use serde::{Deserialize, Serialize};
use zxcvbn::{Score, zxcvbn};

use super::Name;

/// `[passwords]` of the configuration: the cost of one guess at a stolen hash (RFC 9106, section 3.1).
///
/// The defaults are OWASP's minimum for Argon2id: about 20 ms of one processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    /// Memory per hash in KiB: 8 per lane to 1 GiB.
    pub memory_kib: u32,
    /// Passes over that memory: 1 to 10.
    pub passes: u32,
    /// Lanes: 1 to 16. They are computed sequentially.
    pub lanes: u32,
}

impl Params {
    /// The additional cost of hashing with these parameters instead of others, as parameters. `None` if it is too little for a hash.
    fn less(self, others: Self) -> Option<Self> {
        let cost = |params: Self| u64::from(params.memory_kib) * u64::from(params.passes);
        let rest = cost(self).checked_sub(cost(others))? / u64::from(self.passes);
        let memory_kib = u32::try_from(rest).ok()?;
        (memory_kib >= 8 * self.lanes).then_some(Self { memory_kib, ..self })
    }
}

impl Default for Params {
    fn default() -> Self {
        Self { memory_kib: 19_456, passes: 2, lanes: 1 }
    }
}

/// A field of `[passwords]` is out of range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {value} is not between {min} and {max}")]
pub struct BadParams {
    /// The field.
    pub field: &'static str,
    /// Its value.
    pub value: u32,
    /// The lowest valid value.
    pub min: u32,
    /// The highest valid value.
    pub max: u32,
}

/// Why a password is too weak. The text never contains the password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Weak {
    /// It has too few characters.
    #[error("the password has {characters} characters; it needs at least {min}")]
    TooShort {
        /// Its length.
        characters: usize,
        /// The minimum length.
        min: usize,
    },
    /// It is longer than what is hashed for an unauthenticated client.
    #[error("the password has {bytes} bytes; it may have at most {MAX_BYTES}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// It has a character that most forms cannot send.
    #[error("the password has a control character, such as a tab or a line end: leave it out")]
    ControlCharacter,
    /// It is easy to guess.
    #[error("the password is common or easy to guess; use several unrelated words")]
    Common,
    /// It consists mostly of the account's name.
    #[error("the password consists mostly of the account's name; use words that are unrelated to it")]
    Named,
}

/// Checks a password before it is set: at least 15 characters if it is the only factor, 8 if there is a second one
/// (NIST SP 800-63B-4, section 3.1.1.2), and not common or easy to guess.
///
/// Most take milliseconds, but a text that is made to be slow takes half a second: do not call this on an async thread.
///
/// # Errors
/// The password is too weak.
pub fn judge(password: &Secret, account: &Name, only_factor: bool) -> Result<(), Weak> {
    let password = normalised(password);
    let text = password.expose();
    let min = if only_factor { MIN_ONLY_FACTOR } else { MIN_WITH_SECOND_FACTOR };
    if text.len() > MAX_BYTES {
        return Err(Weak::TooLong { bytes: text.len() });
    }
    let characters = text.chars().count();
    if characters < min {
        return Err(Weak::TooShort { characters, min });
    }
    if text.chars().any(char::is_control) {
        return Err(Weak::ControlCharacter);
    }
    // The whole name, then its parts. The shortest parts are skipped: removing every `a` proves nothing.
    let name = account.as_str();
    let parts = name.split(|c: char| !c.is_ascii_alphanumeric());
    let names: Vec<&str> =
        std::iter::once(name).chain(parts).filter(|part| part.len() >= MIN_NAME_PART).collect();
    let lower = Secret::from(text.to_lowercase());
    let rest = names.iter().fold(lower.clone(), |rest, part| Secret::from(rest.expose().replace(part, "")));
    if rest.expose().len() < lower.expose().len() && rest.expose().chars().count() < MIN_WITH_SECOND_FACTOR {
        return Err(Weak::Named);
    }
    // zxcvbn's time grows faster than the text, and 100 characters are enough to judge.
    let judged = Secret::from(text.chars().take(MAX_JUDGED).collect::<String>());
    let known: Vec<&str> = names.into_iter().chain(["metacircular", "mcias"]).collect();
    if zxcvbn(judged.expose(), &known).score() < Score::Three { Err(Weak::Common) } else { Ok(()) }
}

/// A password as OpaqueString has it (RFC 8265, section 4.2.2), but for the characters that the profile does not allow.
fn normalised(password: &Secret) -> Secret {
    let is_space = |c| {
        matches!(c, '\u{a0}' | '\u{1680}' | '\u{2000}'..='\u{200a}' | '\u{202f}' | '\u{205f}' | '\u{3000}')
    };
    // Most are ASCII, and stay as they are.
    if password.expose().is_ascii() {
        return password.clone();
    }
    let mut spaced = String::with_capacity(password.expose().len());
    spaced.extend(password.expose().chars().map(|c| if is_space(c) { ' ' } else { c }));
    let spaced = Secret::from(spaced);
    Secret::from(ComposingNormalizerBorrowed::new_nfc().normalize(spaced.expose()).into_owned())
}

/// Hashes and verifies passwords.
pub struct Hasher {
    params: Params,
    argon2: Argon2<'static>,
    /// Memory for the next hashes. New memory would have to be cleared by the kernel, which takes as long as a hash; and freeing it after each hash
    /// fragments the allocator's heap, up to a gigabyte under a flood of logins.
    idle: Mutex<Vec<Vec<Block>>>,
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hasher").field("params", &self.params).finish_non_exhaustive()
    }
}

/// The result of a verification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verified {
    /// The password is correct.
    Right {
        /// The hash has weaker parameters than the current ones, or is of a text that was not normalised: hash the password again and
        /// store that.
        rehash: bool,
    },
    /// The password is wrong, or there is none, or the stored text is not a hash of [`Hasher::hash`].
    Wrong,
}

impl Hasher {
    /// Makes a hasher with these parameters.
    ///
    /// # Errors
    /// A parameter is out of range.
    pub fn new(params: Params) -> Result<Self, BadParams> {
        let Params { memory_kib, passes, lanes } = params;
        let within = |field, value, min, max| {
            if (min..=max).contains(&value) { Ok(()) } else { Err(BadParams { field, value, min, max }) }
        };
        within("lanes", lanes, 1, 16)?;
        within("passes", passes, 1, 10)?;
        within("memory_kib", memory_kib, 8 * lanes, 1024 * 1024)?;
        Ok(Self { params, argon2: argon2(params), idle: Mutex::default() })
    }

    /// Hashes a password, normalised, to a PHC string of Argon2id, version 19. The salt must be random and used once.
    ///
    /// # Panics
    /// Memory is exhausted.
    #[must_use]
    pub fn hash(&self, password: &Secret, salt: [u8; 16]) -> String {
        let Params { memory_kib, passes, lanes } = self.params;
        let output =
            self.output(&self.argon2, &normalised(password), &salt).expect("the parameters were checked");
        let [salt, output] = [&salt[..], &output].map(|bytes| BASE64_NOPAD.encode(bytes));
        format!("$argon2id$v=19$m={memory_kib},t={passes},p={lanes}${salt}${output}")
    }

    /// Verifies a password against a stored hash, in constant time: normalised, and as it was typed where that differs.
    ///
    /// `phc` is `None` for an account that does not exist or has no password: that takes as long, so that the time does not reveal which
    /// accounts exist.
    #[must_use]
    pub fn verify(&self, password: &Secret, phc: Option<&str>) -> Verified {
        let stored = phc.and_then(read);
        let normal = normalised(password);
        let typed = (normal.expose() != password.expose()).then_some(password);
        if let Some(params) = self.is_right(&normal, stored.as_ref()) {
            let rehash = params.memory_kib < self.params.memory_kib || params.passes < self.params.passes;
            return Verified::Right { rehash };
        }
        match typed.and_then(|typed| self.is_right(typed, stored.as_ref())) {
            Some(_params) => Verified::Right { rehash: true },
            None => Verified::Wrong,
        }
    }

    /// The parameters of the stored hash, if it is of this text. Takes as long for every hash that it is not, and without one.
    fn is_right(&self, text: &Secret, stored: Option<&StoredHash>) -> Option<Params> {
        let Some((params, salt, expected)) = stored else {
            black_box(self.output(&self.argon2, text, &[0; 16]));
            return None;
        };
        let output = self.output(&argon2(*params), text, salt);
        if output.is_some_and(|output| verify_slices_are_equal(&output, expected).is_ok()) {
            return Some(*params);
        }
        // An old hash may be cheaper than the current parameters, which an account that does not exist takes: the difference is made up for.
        if let Some(rest) = self.params.less(*params) {
            black_box(self.output(&argon2(rest), text, &[0; 16]));
        }
        None
    }

    /// Frees the memory that no hash uses now.
    pub fn release_memory(&self) {
        self.idle().clear();
    }

    /// `None` if the salt is shorter than those of [`Self::hash`].
    fn output(&self, argon2: &Argon2<'_>, password: &Secret, salt: &[u8]) -> Option<[u8; OUTPUT_BYTES]> {
        let mut memory = self.idle().pop().unwrap_or_default();
        memory.resize(argon2.params().block_count(), Block::default());
        let mut output = [0; OUTPUT_BYTES];
        let password = password.expose().as_bytes();
        let done = argon2.hash_password_into_with_memory(password, salt, &mut output, &mut memory);
        self.idle().push(memory);
        done.ok().map(|()| output)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Vec<Block>>> {
        // A panic cannot leave a push or a pop half done.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The parameters of new hashes.
    #[must_use]
    pub const fn params(&self) -> Params {
        self.params
    }
}

/// Argon2id with checked parameters.
fn argon2(Params { memory_kib, passes, lanes }: Params) -> Argon2<'static> {
    let params = argon2::Params::new(memory_kib, passes, lanes, Some(OUTPUT_BYTES))
        .expect("the checked ranges are within Argon2's");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

/// Parameters, salt and output.
type StoredHash = (Params, Vec<u8>, Vec<u8>);

/// Parses a stored hash into parameters, salt and output. Refuses any that [`Hasher::hash`] cannot have written: an edited database must
/// not make the server allocate a terabyte.
fn read(phc: &str) -> Option<StoredHash> {
    let stored = PasswordHash::new(phc).ok()?;
    let inner = argon2::Params::try_from(&stored).ok()?;
    let params = Params { memory_kib: inner.m_cost(), passes: inner.t_cost(), lanes: inner.p_cost() };
    let Params { memory_kib, passes, lanes } = params;
    // Only the canonical form: a number written differently, or another parameter, is not from `hash`.
    let ours = phc.starts_with(&format!("$argon2id$v=19$m={memory_kib},t={passes},p={lanes}$"))
        && inner.output_len() == Some(OUTPUT_BYTES)
        && Hasher::new(params).is_ok();
    let (salt, output) = (stored.salt?, stored.hash?);
    ours.then(|| (params, salt.to_vec(), output.as_bytes().to_vec()))
}

const MIN_ONLY_FACTOR: usize = 15;

const MIN_WITH_SECOND_FACTOR: usize = 8;

const MAX_BYTES: usize = 1024;

const MIN_NAME_PART: usize = 3;

/// Characters that zxcvbn is given.
const MAX_JUDGED: usize = 100;

const OUTPUT_BYTES: usize = 32;

#[cfg(test)]
mod tests {
    use argon2::password_hash::PasswordHasher as _;

    use proptest::prelude::*;

    use super::*;

    const SMALL: Params = Params { memory_kib: 8, passes: 1, lanes: 1 };

    fn hasher(params: Params) -> Hasher {
        Hasher::new(params).unwrap()
    }

    #[test]
    fn a_password_is_judged_by_length_and_guessability() {
        let ada = Name::parse("ada.lovelace").unwrap();
        let check = |text: &str, only_factor, expect| {
            assert_eq!(judge(&Secret::from(text), &ada, only_factor), expect, "{text:?}");
        };
        let short = |characters, min| Err(Weak::TooShort { characters, min });
        check("", true, short(0, 15));
        check("Kf7#pw2!xQ9_zM", true, short(14, 15));
        check("Kf7#pw2!xQ9_zM", false, Ok(()));
        check("Kf7#pw2!xQ9_zMv", true, Ok(()));
        check("Kf7#pw2", false, short(7, 8));
        // Characters count, not bytes; no kind of character is required.
        check("åäöåäöå", false, short(7, 8));
        check("gravel orbit mustard seven", true, Ok(()));
        check("пингвин чайник река", true, Ok(()));
        for common in [
            "passwordpassword",
            "123456789012345",
            "qwertyuiopasdfghjkl",
            "aaaaaaaaaaaaaaaaaaaa",
            "metacircularmcias",
            "monkeymonkeymonkey",
        ] {
            check(common, true, Err(Weak::Common));
        }
        check("password", false, Err(Weak::Common));
        check("P4ssword2001!", false, Err(Weak::Common));
        check("dragonfly19", false, Err(Weak::Common));
        check("ada.lovelace1815", true, Err(Weak::Named));
        check("Ada.LovelaceADA.LOVELACE", true, Err(Weak::Named));
        check("lovelace-1815", false, Err(Weak::Named));
        check("ada.lovelace gravel orbit mustard", true, Ok(()));
        check(&"é".repeat(512), true, Err(Weak::Common));
        check(&"x".repeat(1025), true, Err(Weak::TooLong { bytes: 1025 }));
    }

    #[test]
    fn a_password_is_the_same_on_every_keyboard() {
        let hasher = hasher(SMALL);
        let (composed, decomposed) =
            ("gr\u{fc}ner \u{d6}lberg-\u{ac00}", "gru\u{308}ner\u{a0}O\u{308}lberg-\u{1100}\u{1161}");
        let phc = hasher.hash(&Secret::from(decomposed), [1; 16]);
        assert_eq!(phc, hasher.hash(&Secret::from(composed), [1; 16]));
        for text in [composed, decomposed] {
            assert_eq!(
                hasher.verify(&Secret::from(text), Some(&phc)),
                Verified::Right { rehash: false },
                "{text:?}"
            );
        }
        // Compatibility characters and case stay different (RFC 8265, section 4.2.2).
        for (a, b) in [("\u{fb01}sh", "fish"), ("\u{ff21}", "A"), ("Stra\u{df}e", "STRASSE")] {
            assert_ne!(normalised(&Secret::from(a)).expose(), normalised(&Secret::from(b)).expose());
        }
        let ada = Name::parse("ada").unwrap();
        let tabbed = Secret::from("gravel orbit\tmustard seven");
        assert_eq!(judge(&tabbed, &ada, true), Err(Weak::ControlCharacter));
        // What is counted is what is stored: seven characters, however they are typed.
        let seven = Secret::from("u\u{308}".repeat(7));
        assert_eq!(judge(&seven, &ada, false), Err(Weak::TooShort { characters: 7, min: 8 }));
    }

    #[test]
    fn a_hash_of_a_text_that_was_not_normalised_is_right_and_is_replaced() {
        let hasher = hasher(SMALL);
        let typed = Secret::from("gru\u{308}ner berg");
        let raw = hasher.output(&hasher.argon2, &typed, &[1; 16]).unwrap();
        let [salt, output] = [&[1; 16][..], &raw].map(|bytes| BASE64_NOPAD.encode(bytes));
        let phc = format!("$argon2id$v=19$m=8,t=1,p=1${salt}${output}");
        assert_eq!(hasher.verify(&typed, Some(&phc)), Verified::Right { rehash: true });
        assert_eq!(hasher.verify(&Secret::from("other gru\u{308}n"), Some(&phc)), Verified::Wrong);
        let replaced = hasher.hash(&typed, [2; 16]);
        assert_eq!(hasher.verify(&typed, Some(&replaced)), Verified::Right { rehash: false });
        assert_eq!(hasher.verify(&typed, None), Verified::Wrong);
    }

    #[test]
    fn the_error_does_not_contain_the_password() {
        let problem = judge(&Secret::from("hunter2hunter2"), &Name::parse("a").unwrap(), true).unwrap_err();
        assert_eq!(problem.to_string(), "the password has 14 characters; it needs at least 15");
    }

    #[test]
    fn the_cost_that_a_cheaper_hash_saves_is_computed() {
        let check = |now: (u32, u32), old: (u32, u32), expect: Option<(u32, u32)>| {
            let params = |(memory_kib, passes)| Params { memory_kib, passes, lanes: 1 };
            assert_eq!(params(now).less(params(old)), expect.map(params), "{now:?} {old:?}");
        };
        check((19_456, 2), (19_456, 2), None);
        check((65_536, 2), (19_456, 2), Some((46_080, 2)));
        check((19_456, 3), (19_456, 1), Some((12_970, 3)));
        check((19_456, 2), (65_536, 2), None);
        check((19_456, 1), (9_728, 2), None);
        check((1024 * 1024, 10), (8, 1), Some((1_048_575, 10)));
    }

    #[test]
    fn parameters_out_of_range_are_refused() {
        let check = |memory_kib, passes, lanes, expect: Option<&str>| {
            let problem = Hasher::new(Params { memory_kib, passes, lanes }).err().map(|e| e.to_string());
            assert_eq!(problem.as_deref(), expect);
        };
        check(8, 1, 1, None);
        check(128, 10, 16, None);
        check(7, 1, 1, Some("memory_kib: 7 is not between 8 and 1048576"));
        check(127, 1, 16, Some("memory_kib: 127 is not between 128 and 1048576"));
        check(1_048_577, 1, 1, Some("memory_kib: 1048577 is not between 8 and 1048576"));
        check(8, 0, 1, Some("passes: 0 is not between 1 and 10"));
        check(8, 11, 1, Some("passes: 11 is not between 1 and 10"));
        check(8, 1, 0, Some("lanes: 0 is not between 1 and 16"));
        check(8, 1, u32::MAX, Some("lanes: 4294967295 is not between 1 and 16"));
        assert!(serde_json::from_str::<Params>(r#"{"memory": 1}"#).is_err());
        assert_eq!(serde_json::from_str::<Params>("{}").unwrap(), Params::default());
    }

    #[test]
    fn a_hash_is_a_phc_string_of_argon2id() {
        let hash = hasher(Params::default()).hash(&Secret::from("correct horse"), *b"0123456789abcdef");
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$MDEyMzQ1Njc4OWFiY2RlZg$"), "{hash}");
        assert_eq!(hash.len(), 97);
    }

    #[test]
    fn the_reference_implementation_s_hash_is_read() {
        // From test.c of phc-winner-argon2: `password` with `somesalt`.
        let output = "nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";
        let phc = format!("$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ${output}");
        let verified = hasher(SMALL).verify(&Secret::from("password"), Some(&phc));
        assert_eq!(verified, Verified::Right { rehash: false });
    }

    #[test]
    fn only_the_password_is_right() {
        let hasher = hasher(SMALL);
        let hash = hasher.hash(&Secret::from("one"), [1; 16]);
        let check = |password: &str, phc, expect| {
            assert_eq!(hasher.verify(&Secret::from(password), phc), expect, "{password} {phc:?}");
        };
        check("one", Some(&hash), Verified::Right { rehash: false });
        check("One", Some(&hash), Verified::Wrong);
        check("", Some(&hash), Verified::Wrong);
        check("one", None, Verified::Wrong);
        // What is no hash of ours is never right, and never too much work.
        let changed = |from: &str, to: &str| {
            assert!(hash.contains(from));
            hash.replace(from, to)
        };
        for odd in [
            "",
            "one",
            "$argon2id$v=19$m=8,t=1,p=1",
            &changed("argon2id", "argon2i"),
            &changed("v=19", "v=16"),
            &changed("$v=19", ""),
            &changed("m=8", "m=4294967295"),
            &changed("t=1", "t=4294967295"),
            &changed("p=1", "p=536870912"),
            &changed("p=1", "p=1,keyid=AAAA"),
            &changed("m=8,t=1", "t=1,m=8"),
            &hash[..hash.len() - 20],
        ] {
            check("one", Some(odd), Verified::Wrong);
        }
    }

    #[test]
    fn a_shorter_hash_of_the_password_is_not_taken() {
        let inner = argon2::Params::new(8, 1, 1, Some(12)).unwrap();
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, inner);
        let phc = argon2.hash_password_with_salt(b"one", &[1; 16]).unwrap().to_string();
        assert_eq!(hasher(SMALL).verify(&Secret::from("one"), Some(&phc)), Verified::Wrong);
    }

    #[test]
    fn weaker_hashes_are_rehashed() {
        let now = Params { memory_kib: 64, passes: 2, lanes: 1 };
        let check = |memory_kib, passes, lanes, rehash| {
            let password = Secret::from("one");
            let hash = hasher(Params { memory_kib, passes, lanes }).hash(&password, [2; 16]);
            assert_eq!(hasher(now).verify(&password, Some(&hash)), Verified::Right { rehash });
        };
        check(64, 2, 1, false);
        check(63, 2, 1, true);
        check(64, 1, 1, true);
        check(128, 3, 2, false);
    }

    #[test]
    fn memory_is_reused_and_released() {
        let large = Params { memory_kib: 64, ..SMALL };
        let (one, other) = (Secret::from("one"), Secret::from("other"));
        let it = hasher(large);
        let first = it.hash(&one, [3; 16]);
        // The memory holds remains of another password or of a larger hash.
        drop(it.hash(&other, [4; 16]));
        let small = hasher(SMALL).hash(&one, [3; 16]);
        assert_eq!(it.verify(&one, Some(&small)), Verified::Right { rehash: true });
        assert_eq!(it.hash(&one, [3; 16]), first);
        assert_eq!(it.idle().iter().map(Vec::len).collect::<Vec<_>>(), [64]);
        it.release_memory();
        assert_eq!(it.idle().len(), 0);
        assert_eq!(it.hash(&one, [3; 16]), first);
    }

    proptest! {
        #[test]
        fn any_text_as_a_hash_is_refused_without_a_panic(phc in r"\$?(argon2id)?\$(v=19)?\$m=[0-9]{1,3},t=[0-9],p=[0-9]\$[A-Za-z0-9+/]{0,30}\$[A-Za-z0-9+/]{0,50}") {
            prop_assert_eq!(hasher(SMALL).verify(&Secret::from("x"), Some(&phc)), Verified::Wrong);
        }

        #[test]
        fn judging_never_panics(text in any::<String>(), only in any::<bool>()) {
            judge(&Secret::from(text), &Name::parse("ada").unwrap(), only).ok();
        }
    }
}
