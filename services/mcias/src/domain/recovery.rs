//! Recovery codes: ten codes for the day on which the second factor is lost, each good once.
//!
//! A code is 80 random bits, written in Crockford's base32 without the letters that are taken for digits: what is misread
//! is read right again ([`normalise`]). Only its digest is kept.
//!
//! Left out: which codes were used. Whoever keeps the digests deletes the one that was.

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

/// A code as it was typed, as [`generate`] wrote it: without regard to case, spaces and dashes, with `o` for `0`, `i` and `l` for `1`.
/// `None` where it is no code.
#[must_use]
pub fn normalise(text: &str) -> Option<Secret> {
    if text.len() > MOST_TYPED {
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

/// What is kept of a code that [`generate`] or [`normalise`] gave: its SHA-256.
///
/// A slow hash is for passwords, of which a guesser tries the likely ones first. All 2^80 codes are as likely, which is
/// more than anybody can try, however quick each try is; and a slow one would have to be done for each of ten digests.
#[must_use]
pub fn digest(code: &Secret) -> [u8; 32] {
    let digest = digest::digest(&SHA256, code.expose().as_bytes());
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// In groups of four.
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

/// Longer than any code with its dashes and some spaces, so that nobody makes us read a megabyte.
const MOST_TYPED: usize = 100;

/// Crockford's, in small letters: no `i`, `l`, `o` (taken for digits) nor `u`.
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
        // By hand: five bits each of 00000 00100 10001 10100 ...
        assert_eq!(codes[2].expose(), "04hm-asw9-nf6y-y093");
    }

    #[test]
    fn a_code_is_read_as_it_is_typed() {
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
    fn the_digest_is_sha_256_of_the_code_as_it_is_written() {
        // By `printf 0000-0000-0000-0000 | sha256sum`.
        let hex = data_encoding::HEXLOWER.encode(&digest(&normalise("0000000000000000").unwrap()));
        assert_eq!(hex, "b62b8a01912021d73348e6d07f0201afc9eb88b0bf1f30ffb9608b3ab05a79c7");
    }

    proptest! {
        #[test]
        fn every_code_is_read_back(random in prop::collection::vec(any::<u8>(), 100)) {
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
        fn what_is_read_is_read_the_same_again(text in any::<String>()) {
            if let Some(code) = normalise(&text) {
                let again = normalise(code.expose()).unwrap();
                prop_assert_eq!(again.expose(), code.expose());
            }
        }
    }
}
