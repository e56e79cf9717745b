//! Protection against forged forms (CSRF): a form must come from a page that this very browser was given.
//!
//! Each form has a token: a MAC of a secret in the browser's cookie, so nothing is stored. In addition a request is
//! refused where the browser states that another site sent it (W3C Fetch Metadata; RFC 6454, section 7).

use aws_lc_rs::hmac;
use axum::http::{HeaderMap, header};
use data_encoding::BASE64URL_NOPAD;
use zeroize::Zeroizing;

use crate::Secret;

/// The name of the token's field in a form.
pub const CSRF_FIELD: &str = "csrf";

/// The key that signs forms' tokens and the messages for the next page.
pub struct Csrf(hmac::Key);

/// Why a form is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The browser says that another site sent it.
    #[error("The form was sent by another site. Open the page here and send it from there.")]
    CrossSite,
    /// It has no token, or the browser has no cookie.
    #[error(
        "The form has no token, or the browser no cookie. Allow cookies, load the page again and send it again."
    )]
    Absent,
    /// Its token is of another session or key, and nothing proves that this site sent it.
    #[error("The form is of another session. Load the page again and send it again.")]
    Foreign,
    /// The same, and the browser states that a page of this site sent it: its session has ended, or the service was restarted.
    #[error("The form has expired. Load the page again and send it again.")]
    Expired,
}

impl Csrf {
    /// A key. Forms expire with it.
    #[must_use]
    pub fn new(key: [u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, Zeroizing::new(key).as_slice()))
    }

    /// The token for a form: base64url of HMAC-SHA-256 over `csrf` and what it is bound to, which is the account's token, or
    /// what [`super::anonymous`] gave.
    #[must_use]
    pub fn token(&self, binding: &Secret) -> String {
        BASE64URL_NOPAD.encode(&self.sign(Purpose::Form, binding.expose().as_bytes()))
    }

    /// Whether this is the token for it, compared in constant time.
    #[must_use]
    pub fn verify(&self, binding: &Secret, given: &str) -> bool {
        let tag = BASE64URL_NOPAD.decode(given.as_bytes()).unwrap_or_default();
        self.signed(Purpose::Form, binding.expose().as_bytes(), &tag)
    }

    pub(super) fn sign(&self, purpose: Purpose, text: &[u8]) -> [u8; TAG] {
        let tag = hmac::sign(&self.0, &purpose.over(text));
        tag.as_ref().try_into().expect("a tag of HMAC-SHA-256 has 32 bytes")
    }

    pub(super) fn signed(&self, purpose: Purpose, text: &[u8], tag: &[u8]) -> bool {
        hmac::verify(&self.0, &purpose.over(text), tag).is_ok()
    }
}

impl std::fmt::Debug for Csrf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Csrf(redacted)")
    }
}

/// What a MAC is for: one purpose's is invalid for the others.
#[derive(Clone, Copy, Debug)]
pub(super) enum Purpose {
    Form,
    Flash,
    /// A passkey's challenge of a browser.
    Ceremony,
}

impl Purpose {
    /// The bytes under the MAC. No name is the beginning of another, so no two texts give the same.
    fn over(self, text: &[u8]) -> Zeroizing<Vec<u8>> {
        let name: &[u8] = match self {
            Self::Form => b"csrf",
            Self::Flash => b"flash",
            Self::Ceremony => b"ceremony",
        };
        // Of one piece: a vector that grows leaves its old memory behind, with a part of the session's token.
        Zeroizing::new([name, text].concat())
    }
}

/// Whether the browser does not state that another site sent this. `own_origin` is as the browser
/// sees it: `https://mcias.example.org`, with the port where it is not 443, without a slash at the end.
///
/// Under `Referrer-Policy: no-referrer` a browser sends `Origin: null` with our own forms (Fetch, section 3.2): pages
/// must have the policy of [`super::security_headers`].
#[must_use]
pub fn same_origin(headers: &HeaderMap, own_origin: &str) -> bool {
    let mut sites = headers.get_all("sec-fetch-site").into_iter();
    let mut origins = headers.get_all(header::ORIGIN).into_iter();
    sites.all(|site| site == "same-origin" || site == "none") && origins.all(|origin| origin == own_origin)
}

/// Whether a form may be processed. `binding` is the secret that its token must be bound to, from the request's cookies; `given` is
/// the form's field [`CSRF_FIELD`].
///
/// # Errors
/// It may not be processed, and none of its other fields used, except to show an [expired](Refused::Expired) one again.
pub fn check_form(
    headers: &HeaderMap,
    csrf: &Csrf,
    binding: Option<&Secret>,
    given: Option<&str>,
    own_origin: &str,
) -> Result<(), Refused> {
    if !same_origin(headers, own_origin) {
        return Err(Refused::CrossSite);
    }
    let Some(given) = given.filter(|given| !given.is_empty()) else { return Err(Refused::Absent) };
    match binding {
        Some(binding) if csrf.verify(binding, given) => Ok(()),
        _ if states_origin(headers) => Err(Refused::Expired),
        Some(_) => Err(Refused::Foreign),
        None => Err(Refused::Absent),
    }
}

/// Whether the browser says at all where a request comes from.
fn states_origin(headers: &HeaderMap) -> bool {
    headers.contains_key(header::ORIGIN)
        || headers.get_all("sec-fetch-site").into_iter().any(|site| site == "same-origin")
}

const TAG: usize = 32;

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    const OWN: &str = "https://mcias.example.org";

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let line = |&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value));
        lines.iter().map(line).collect()
    }

    #[test]
    fn a_token_is_the_mac_that_others_compute() {
        // printf 'csrfa.b.c' | openssl dgst -sha256 -mac HMAC -macopt hexkey:0707.. -binary | basenc --base64url
        let csrf = Csrf::new([7; 32]);
        assert_eq!(csrf.token(&Secret::from("a.b.c")), "kX67ntl43xI7dVFWt548jOPkErOb859dqqgmtCD1LOU");
    }

    #[test]
    fn a_token_is_valid_for_its_session_and_key_alone() {
        let (csrf, other) = (Csrf::new([1; 32]), Csrf::new([2; 32]));
        let (ours, theirs) = (Secret::from("a.b.c"), Secret::from("a.b.d"));
        let token = csrf.token(&ours);
        assert!(csrf.verify(&ours, &token));
        assert!(!csrf.verify(&theirs, &token));
        assert!(!other.verify(&ours, &token));
    }

    #[test]
    fn an_invalid_token_is_refused() {
        let csrf = Csrf::new([1; 32]);
        let session = Secret::from("a.b.c");
        let token = csrf.token(&session);
        let flash = BASE64URL_NOPAD.encode(&csrf.sign(Purpose::Flash, b"a.b.c"));
        for given in ["", "x", "ä", &token[..42], &format!("{token}="), &format!("{token}A"), &flash] {
            assert!(!csrf.verify(&session, given), "{given}");
        }
    }

    #[test]
    fn the_key_is_not_shown() {
        assert_eq!(format!("{:?}", Csrf::new([1; 32])), "Csrf(redacted)");
    }

    fn origin(lines: &[(&'static str, &'static str)], expect: bool) {
        assert_eq!(same_origin(&headers(lines), OWN), expect, "{lines:?}");
    }

    #[test]
    fn own_pages_and_the_address_bar_are_the_same_origin() {
        origin(&[], true);
        origin(&[("sec-fetch-site", "same-origin")], true);
        origin(&[("sec-fetch-site", "none")], true);
        origin(&[("origin", OWN)], true);
        origin(&[("sec-fetch-site", "same-origin"), ("origin", OWN)], true);
    }

    #[test]
    fn other_sites_are_not() {
        origin(&[("sec-fetch-site", "cross-site")], false);
        // A neighbour under the same domain is another service.
        origin(&[("sec-fetch-site", "same-site")], false);
        origin(&[("sec-fetch-site", "")], false);
        origin(&[("origin", "https://evil.example.org")], false);
        origin(&[("origin", "http://mcias.example.org")], false);
        origin(&[("origin", "https://mcias.example.org:8443")], false);
        origin(&[("origin", "null")], false);
        origin(&[("sec-fetch-site", "cross-site"), ("origin", OWN)], false);
        origin(&[("sec-fetch-site", "same-origin"), ("origin", "https://evil.example.org")], false);
        origin(&[("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")], false);
        origin(&[("origin", OWN), ("origin", "https://evil.example.org")], false);
    }

    #[test]
    fn a_form_is_refused_with_the_reason() {
        let csrf = Csrf::new([1; 32]);
        let session = Secret::from("a.b.c");
        let token = csrf.token(&session);
        let (here, there) = (headers(&[("origin", OWN)]), headers(&[("sec-fetch-site", "cross-site")]));
        let check = |headers: &HeaderMap, binding: Option<&Secret>, given: Option<&str>, expect| {
            assert_eq!(check_form(headers, &csrf, binding, given, OWN), expect);
        };
        check(&here, Some(&session), Some(&token), Ok(()));
        check(&there, Some(&session), Some(&token), Err(Refused::CrossSite));
        let silent = HeaderMap::new();
        check(&silent, Some(&session), Some(&token), Ok(()));
        check(&silent, None, Some(&token), Err(Refused::Absent));
        check(&here, Some(&session), None, Err(Refused::Absent));
        check(&here, Some(&session), Some(""), Err(Refused::Absent));
        check(&silent, Some(&session), Some("x"), Err(Refused::Foreign));
        let own_hand = headers(&[("sec-fetch-site", "none")]);
        check(&own_hand, Some(&session), Some("x"), Err(Refused::Foreign));
        for stated in [here, headers(&[("sec-fetch-site", "same-origin")])] {
            check(&stated, Some(&session), Some("x"), Err(Refused::Expired));
            check(&stated, Some(&Secret::from("d.e.f")), Some(&token), Err(Refused::Expired));
            check(&stated, None, Some(&token), Err(Refused::Expired));
        }
    }
}
