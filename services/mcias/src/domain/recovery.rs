//! Recovery codes: ten codes for when the second factor is lost, each usable once.
//!
//! A code is 80 random bits in Crockford's base32, which leaves out letters that look like digits: [`normalise`]
//! accepts those in place of the digits. Only its digest is stored.
//!
//! Left out: which codes were used. The caller deletes the digest of a used code.

use std::sync::LazyLock;

use aws_lc_rs::digest::{self, SHA256};
use data_encoding::{Encoding, Specification};
use mcdsl::Secret;
use zeroize::{Zeroize, Zeroizing};

/// Ten codes from 800 random bits, like `0g5s-k8zq-4mtw-x7ya`. They are shown once.
#[must_use]
pub fn generate(mut random: [u8; 100]) -> Vec<Secret> {
    let codes = random.chunks_exact(CODE_BYTES).map(|bytes| write(&ENCODING.encode(bytes))).collect();
    random.zeroize();
    codes
}

/// The code that was typed, in the form of [`generate`]: case, spaces and dashes do not matter, `o` is `0`, `i` and `l` are `1`.
/// `None` if the text is not a code.
#[must_use]
pub fn normalise(text: &str) -> Option<Secret> {
    if text.len() > MAX_TYPED_BYTES {
        return None;
    }
    let mut plain = Zeroizing::new(String::with_capacity(CODE_CHARACTERS));
    for c in text.chars().filter(|c| *c != '-' && !c.is_whitespace()) {
        let c = match c.to_ascii_lowercase() {
            'o' => '0',
            'i' | 'l' => '1',
            c => c,
        };
        if plain.len() == CODE_CHARACTERS || !ALPHABET.contains(c) {
            return None;
        }
        plain.push(c);
    }
    (plain.len() == CODE_CHARACTERS).then(|| write(&plain))
}

/// The digest to store of a code from [`generate`] or [`normalise`]: its SHA-256.
///
/// A slow hash protects passwords, because an attacker tries the likely ones first. All 2^80 codes are equally likely, too many to try
/// however fast each attempt is; and a slow hash would have to be computed for each of ten digests.
#[must_use]
pub fn digest(code: &Secret) -> [u8; 32] {
    let digest = digest::digest(&SHA256, code.expose().as_bytes());
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// Writes a code in groups of four characters.
fn write(plain: &str) -> Secret {
    let mut code = String::with_capacity(CODE_CHARACTERS + CODE_CHARACTERS / 4);
    for (at, c) in plain.chars().enumerate() {
        if at > 0 && at % 4 == 0 {
            code.push('-');
        }
        code.push(c);
    }
    Secret::from(code)
}

const CODE_BYTES: usize = 10;

const CODE_CHARACTERS: usize = 16;

/// Longer than any code with dashes and some spaces: a client cannot make the server read a megabyte.
const MAX_TYPED_BYTES: usize = 100;

/// Crockford's alphabet in lowercase: without `i`, `l`, `o` (they look like digits) and `u`.
const ALPHABET: &str = "0123456789abcdefghjkmnpqrstvwxyz";

static ENCODING: LazyLock<Encoding> = LazyLock::new(|| {
    let mut specification = Specification::new();
    specification.symbols.push_str(ALPHABET);
    specification.encoding().expect("32 different symbols")
});

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ten_codes_are_written_in_groups() {
        let mut random = [0; 100];
        random[10..20].fill(0xff);
        random[20..30].copy_from_slice(&[0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, 0x01, 0x23]);
        let codes = generate(random);
        assert_eq!(codes.len(), 10);
        assert_eq!(codes[0].expose(), "0000-0000-0000-0000");
        assert_eq!(codes[1].expose(), "zzzz-zzzz-zzzz-zzzz");
        // Computed by hand: five bits each of 00000 00100 10001 10100 ...
        assert_eq!(codes[2].expose(), "04hm-asw9-nf6y-y093");
    }

    #[test]
    fn typed_codes_are_normalised() {
        let check = |text: &str, expect: Option<&str>| {
            assert_eq!(normalise(text).as_ref().map(Secret::expose), expect, "{text:?}");
        };
        let code = Some("0123-4567-89ab-cdef");
        check("0123-4567-89ab-cdef", code);
        check(" 0123456789ABCDEF\n", code);
        check("o-i-2-3 4567 89aB\u{a0}CdEf", code);
        check("OL234567 89ab cdef", code);
        check("0123-4567-89ab-cde", None);
        check("0123-4567-89ab-cdef0", None);
        check("0123-4567-89ab-cdeu", None);
        check("0123_4567_89ab_cdef", None);
        check("", None);
        check("٠123-4567-89ab-cdef", None);
        check(&format!("0123456789abcdef{}", " ".repeat(85)), None);
    }

    #[test]
    fn the_digest_is_sha_256_of_the_normalised_code() {
        // Computed with `printf 0000-0000-0000-0000 | sha256sum`.
        let hex = data_encoding::HEXLOWER.encode(&digest(&normalise("0000000000000000").unwrap()));
        assert_eq!(hex, "b62b8a01912021d73348e6d07f0201afc9eb88b0bf1f30ffb9608b3ab05a79c7");
    }

    proptest! {
        #[test]
        fn every_generated_code_is_accepted(random in prop::collection::vec(any::<u8>(), 100)) {
            let codes = generate(random.try_into().unwrap());
            let digests: BTreeSet<_> = codes.iter().map(digest).collect();
            prop_assert_eq!(digests.len(), codes.iter().map(Secret::expose).collect::<BTreeSet<_>>().len());
            for code in codes {
                let typed = code.expose().to_uppercase().replace('-', " ").replace('0', "O").replace('1', "l");
                let read = normalise(&typed).unwrap();
                prop_assert_eq!(read.expose(), code.expose());
            }
        }

        #[test]
        fn normalising_twice_changes_nothing(text in any::<String>()) {
            if let Some(code) = normalise(&text) {
                let again = normalise(code.expose()).unwrap();
                prop_assert_eq!(again.expose(), code.expose());
            }
        }
    }
}
