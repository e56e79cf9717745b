//! TOTP codes as strangers type them: only six digits are a code, with spaces anywhere, and only a code of the steps around now is right, once.
//!
//! Input: a byte that says which step was used last, then the text.

use mcias::domain::totp::{TotpRefused, TotpSecret, check as check_code};

/// A time of which the codes of the steps around are 081804, 050471 and 266759 (RFC 6238, appendix B).
const NOW_S: i64 = 1_111_111_111;

/// Checks one input.
pub fn check(input: &[u8]) {
    let Some((&mode, text)) = input.split_first() else { return };
    let Ok(text) = str::from_utf8(text) else { return };
    let secret = TotpSecret::from_bytes(*b"12345678901234567890");
    let now = u64::try_from(NOW_S).expect("after 1970") / 30;
    // None, or one of the steps from two before now to one after it.
    let last = (mode & 7).checked_sub(4).map(|back| now + 1 - u64::from(back));
    let found = under_test(&secret, text, last);
    let digits: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    let form = text.len() <= 32 && digits.len() == 6 && digits.bytes().all(|byte| byte.is_ascii_digit());
    assert_eq!(found == Err(TotpRefused::Malformed), !form, "{text:?}");
    let right = (now - 1..=now + 1).rev().find(|step| form && secret.code(*step).expose() == digits);
    let expect = match right {
        None if form => Err(TotpRefused::Wrong),
        None => Err(TotpRefused::Malformed),
        Some(step) if last.is_some_and(|last| step <= last) => Err(TotpRefused::Replayed),
        Some(step) => Ok(step),
    };
    assert_eq!(found, expect, "{text:?}");
}

fn under_test(secret: &TotpSecret, text: &str, last: Option<u64>) -> Result<u64, TotpRefused> {
    // The planted bug: dashes are cut off.
    #[cfg(feature = "planted")]
    return check_code(secret, text.trim_matches('-'), NOW_S, last);
    #[cfg(not(feature = "planted"))]
    check_code(secret, text, NOW_S, last)
}
