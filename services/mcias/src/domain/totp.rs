//! Time-based one-time passwords (RFC 6238): six digits of HMAC-SHA-1, a new code every 30 s, as every authenticator
//! app supports them.
//!
//! A code is valid once: the step of the last accepted code is stored, and no code of that step or of an earlier one is
//! accepted again (RFC 6238, section 5.2).
//!
//! Left out: limits on the number of attempts ([`super::throttle`]); without them, six digits are soon guessed.

use std::fmt;

use mcdsl::Secret;
use totp_rs::{Algorithm, Builder, Totp};
use zeroize::Zeroizing;

use super::Name;

/// The secret that an authenticator app shares with us: 160 random bits (RFC 4226, section 4, R6).
#[derive(Clone)]
pub struct TotpSecret(Zeroizing<[u8; 20]>);

/// Why a code is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TotpRefused {
    /// It is not six digits, apart from spaces.
    #[error("a code has 6 digits")]
    Malformed,
    /// It is not the code of the current step, of the one before or of the one after.
    #[error("the code is wrong: enter the one that the app shows now, and check that the clocks are right")]
    Wrong,
    /// It is correct, but it or a later one was used already.
    #[error("the code was used already: wait for the next one")]
    Replayed,
}

impl TotpSecret {
    /// Makes a secret of 160 random bits.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 20]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Restores a secret from [`Self::bytes`]; `None` if these are not 20 bytes.
    #[must_use]
    pub fn try_from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self::from_bytes)
    }

    /// The bytes of the secret, from which all codes follow.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &*self.0
    }

    /// The secret for typing into an app: base32 without padding (RFC 4648, section 6).
    #[must_use]
    pub fn base32(&self) -> Secret {
        Secret::from(data_encoding::BASE32_NOPAD.encode(self.bytes()))
    }

    /// The secret for a QR code: an `otpauth:` URI (Google Authenticator's Key Uri Format).
    ///
    /// A `:` in the issuer's name becomes a space, because it separates the issuer from the account in the URI.
    ///
    /// # Panics
    /// Never: an account's name contains no `:`.
    #[must_use]
    pub fn uri(&self, issuer: &str, account: &Name) -> Secret {
        let uri = self
            .builder()
            .with_issuer(Some(issuer.replace(':', " ")))
            .with_account_name(account.as_str())
            .build()
            .and_then(|totp| totp.to_url())
            .expect("160 bits are enough, and neither name has a `:`");
        Secret::from(uri)
    }

    /// The code of a step: the number of 30 s intervals since 1970.
    #[must_use]
    pub fn code(&self, step: u64) -> Secret {
        Secret::from(self.of_steps().generate(step).to_string())
    }

    fn builder(&self) -> Builder {
        let secret = totp_rs::Secret::new_stack(*self.0);
        Builder::new().with_algorithm(Algorithm::SHA1).with_digits(6).with_secret(secret)
    }

    /// A generator whose time is the step itself, without neighbouring steps.
    fn of_steps(&self) -> Totp {
        self.builder().with_step_duration(1).with_skew(0).build().expect("160 bits are enough")
    }
}

impl fmt::Debug for TotpSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TotpSecret(redacted)")
    }
}

/// Compares a code with those of the current step, of the one before and of the one after: clocks differ, and typing takes time
/// (RFC 6238, section 5.2). All three are compared, each in constant time.
///
/// Spaces do not matter: apps show `123 456`.
///
/// Returns the step of the code: store it, and pass it as `last_step` the next time. `now_s` is in seconds since 1970.
///
/// # Errors
/// The code is malformed, wrong, or was used already.
pub fn check(
    secret: &TotpSecret,
    code: &str,
    now_s: i64,
    last_step: Option<u64>,
) -> Result<u64, TotpRefused> {
    let code = digits(code).ok_or(TotpRefused::Malformed)?;
    let now = u64::try_from(now_s).unwrap_or(0) / STEP_S;
    let totp = secret.of_steps();
    // The latest matching step: if two steps have the same code, both are used up. A fold compares all three.
    let matching = (now.saturating_sub(1)..=now + 1)
        .fold(None, |found, step| totp.check(code.expose(), step).map_or(found, |_| Some(step)));
    match matching {
        None => Err(TotpRefused::Wrong),
        Some(step) if last_step.is_some_and(|last| step <= last) => Err(TotpRefused::Replayed),
        Some(step) => Ok(step),
    }
}

/// The six digits of a code, without spaces around or between them.
fn digits(typed: &str) -> Option<Secret> {
    // Nobody types more than a space at each digit.
    if typed.len() > MAX_TYPED_BYTES {
        return None;
    }
    let digits = Secret::from(typed.chars().filter(|c| !c.is_whitespace()).collect::<String>());
    let text = digits.expose();
    (text.len() == 6 && text.bytes().all(|byte| byte.is_ascii_digit())).then_some(digits)
}

const STEP_S: u64 = 30;

const MAX_TYPED_BYTES: usize = 32;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rfc() -> TotpSecret {
        TotpSecret::from_bytes(*b"12345678901234567890")
    }

    #[test]
    fn codes_match_the_rfc_test_vectors() {
        // RFC 6238, Appendix B, SHA-1: the last six of its eight digits.
        for (now_s, code) in [
            (59, "287082"),
            (1_111_111_109, "081804"),
            (1_111_111_111, "050471"),
            (1_234_567_890, "005924"),
            (2_000_000_000, "279037"),
            (20_000_000_000, "353130"),
        ] {
            let step = u64::try_from(now_s).unwrap() / 30;
            assert_eq!(rfc().code(step).expose(), code);
            assert_eq!(check(&rfc(), code, now_s, None), Ok(step));
        }
        // RFC 4226, Appendix D: the counter is the step.
        for (step, code) in (0..).zip(["755224", "287082", "359152", "969429", "338314"]) {
            assert_eq!(rfc().code(step).expose(), code);
        }
    }

    #[test]
    fn a_code_is_valid_one_step_around_and_once() {
        let code = "287082"; // of step 1
        let check = |now_s, last, expect| assert_eq!(check(&rfc(), code, now_s, last), expect, "{now_s}");
        check(-1, None, Ok(1));
        check(0, None, Ok(1));
        check(89, None, Ok(1));
        check(90, None, Err(TotpRefused::Wrong));
        check(i64::MAX, None, Err(TotpRefused::Wrong));
        check(i64::MIN, None, Ok(1));
        check(59, Some(0), Ok(1));
        check(59, Some(1), Err(TotpRefused::Replayed));
        check(59, Some(2), Err(TotpRefused::Replayed));
        check(59, Some(u64::MAX), Err(TotpRefused::Replayed));
    }

    #[test]
    fn malformed_codes_are_refused() {
        for odd in
            ["", "28708", "2870822", "28708a", " 28708", "+28708", "２87082", "287-082", "\0\0\0\0\0\0"]
        {
            assert_eq!(check(&rfc(), odd, 59, None), Err(TotpRefused::Malformed), "{odd:?}");
        }
    }

    #[test]
    fn spaces_in_a_code_do_not_matter() {
        for typed in ["287 082", " 287082 ", "28 70 82", "287\u{a0}082", "2 8 7 0 8 2\n"] {
            assert_eq!(check(&rfc(), typed, 59, None), Ok(1), "{typed:?}");
        }
        let long = format!("287082{}", " ".repeat(MAX_TYPED_BYTES));
        assert_eq!(check(&rfc(), &long, 59, None), Err(TotpRefused::Malformed));
    }

    #[test]
    fn the_uri_configures_an_app() {
        let uri = rfc().uri("Meta: circular", &Name::parse("ada@example.org").unwrap());
        assert_eq!(
            uri.expose(),
            "otpauth://totp/Meta%20%20circular:ada%40example.org?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=Meta%20%20circular"
        );
        assert_eq!(rfc().base32().expose(), "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ");
        assert_eq!(format!("{:?}", rfc()), "TotpSecret(redacted)");
        assert!(TotpSecret::try_from_slice(&[0; 19]).is_none());
        assert_eq!(TotpSecret::try_from_slice(rfc().bytes()).unwrap().bytes(), rfc().bytes());
    }

    proptest! {
        #[test]
        fn the_window_is_one_step_each_way(bytes: [u8; 20], step in 2_u64..1 << 40, away in -5_i64..=5, within in 0_i64..30) {
            let secret = TotpSecret::from_bytes(bytes);
            let code = secret.code(step);
            let now = i64::try_from(step).unwrap() + away;
            let found = check(&secret, code.expose(), now * 30 + within, None);
            // One code in a million is also that of another step, which may be found instead.
            let same = |other: i64| secret.code(u64::try_from(other).unwrap_or(0)).expose() == code.expose();
            let expect = (now - 1..=now + 1).rev().find(|step| same(*step));
            prop_assert_eq!(found.ok(), expect.map(|step| u64::try_from(step).unwrap()));
            prop_assert!(found.is_ok() || away.abs() > 1);
        }

        #[test]
        fn no_code_is_accepted_twice(bytes: [u8; 20], tries in prop::collection::vec((0_i64..300, -1_i64..=1), 1..60)) {
            let secret = TotpSecret::from_bytes(bytes);
            let mut last = None;
            for (now_s, away) in tries {
                let code = secret.code(u64::try_from(now_s / 30 + away).unwrap_or(0));
                if let Ok(step) = check(&secret, code.expose(), now_s, last) {
                    prop_assert!(last.is_none_or(|last| step > last));
                    last = Some(step);
                    prop_assert_eq!(check(&secret, code.expose(), now_s, last), Err(TotpRefused::Replayed));
                }
            }
        }

        #[test]
        fn any_text_is_handled(text in any::<String>(), now_s: i64) {
            let digits = text.chars().filter(char::is_ascii_digit).count();
            prop_assert!(check(&rfc(), &text, now_s, None).is_err() || digits == 6);
        }
    }
}
