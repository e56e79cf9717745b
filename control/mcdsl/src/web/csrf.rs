//! Whether a form that comes in is one that we gave to this very browser, and not another site's.
//!
//! Each form has a token: a MAC of what the browser proves in a cookie, so nothing is stored. Beside it, what browsers say
//! of where a request comes from is believed when it speaks against the request (W3C Fetch Metadata; RFC 6454, section 7).

use aws_lc_rs::hmac;
use axum::http::{HeaderMap, header};
use data_encoding::BASE64URL_NOPAD;
use zeroize::Zeroizing;

use crate::Secret;

/// What a form's token is called in the form.
pub const CSRF_FIELD: &str = "csrf";

/// The key that signs forms' tokens and the messages for the next page.
pub struct Csrf(hmac::Key);

/// Why a form is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The browser says that another site sent it.
    #[error("the form was sent by another site: open the page here and send it from there")]
    CrossSite,
    /// It has no token, or the browser no cookie that it could be bound to.
    #[error(
        "the form has no token, or the browser no cookie: allow cookies, load the page again and send it again"
    )]
    Absent,
    /// Its token is another session's.
    #[error("the form is from another session: load the page again and send it again")]
    Foreign,
}

impl Csrf {
    /// Takes the key: random, and the same for as long as forms are to be taken, a restart included.
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

    /// Whether this is the token for it. It takes as long for a wrong one as for the right one.
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

/// What a MAC is for: one for the one is none for the other.
#[derive(Clone, Copy, Debug)]
pub(super) enum Purpose {
    Form,
    Flash,
}

impl Purpose {
    /// The bytes under the MAC. Neither name is the beginning of the other, so no two texts give the same.
    fn over(self, text: &[u8]) -> Zeroizing<Vec<u8>> {
        let name: &[u8] = match self {
            Self::Form => b"csrf",
            Self::Flash => b"flash",
        };
        // Of one piece: a vector that grows leaves its old memory behind, with a part of the session's token.
        Zeroizing::new([name, text].concat())
    }
}

/// Whether nothing that the browser says is against it that one of our own pages sent this. `own_origin` is as the browser
/// sees it: `https://mcias.example.org`, with the port where it is not 443, without a slash at the end.
///
/// A browser that is told `Referrer-Policy: no-referrer` says `Origin: null` of our own forms (Fetch, section 3.2): pages
/// must have the policy of [`super::security_headers`].
#[must_use]
pub fn same_origin(headers: &HeaderMap, own_origin: &str) -> bool {
    let mut sites = headers.get_all("sec-fetch-site").into_iter();
    let mut origins = headers.get_all(header::ORIGIN).into_iter();
    sites.all(|site| site == "same-origin" || site == "none") && origins.all(|origin| origin == own_origin)
}

/// Whether a form may be taken. `binding` is what its token has to be bound to, from the request's cookies; `given` is the
/// form's field [`CSRF_FIELD`].
///
/// # Errors
/// [`Refused`] says why not. Nothing of the form may be looked at then.
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
    let (Some(binding), Some(given)) = (binding, given.filter(|given| !given.is_empty())) else {
        return Err(Refused::Absent);
    };
    if csrf.verify(binding, given) { Ok(()) } else { Err(Refused::Foreign) }
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
    fn a_token_is_good_for_its_session_and_key_alone() {
        let (csrf, other) = (Csrf::new([1; 32]), Csrf::new([2; 32]));
        let (ours, theirs) = (Secret::from("a.b.c"), Secret::from("a.b.d"));
        let token = csrf.token(&ours);
        assert!(csrf.verify(&ours, &token));
        assert!(!csrf.verify(&theirs, &token));
        assert!(!other.verify(&ours, &token));
    }

    #[test]
    fn what_is_no_token_is_not_taken() {
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
    fn our_own_pages_and_the_reader_s_own_hand_are_the_same_origin() {
        origin(&[], true);
        origin(&[("sec-fetch-site", "same-origin")], true);
        origin(&[("sec-fetch-site", "none")], true);
        origin(&[("origin", OWN)], true);
        origin(&[("sec-fetch-site", "same-origin"), ("origin", OWN)], true);
    }

    #[test]
    fn others_are_not() {
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
        check(&here, None, Some(&token), Err(Refused::Absent));
        check(&here, Some(&session), None, Err(Refused::Absent));
        check(&here, Some(&session), Some(""), Err(Refused::Absent));
        check(&here, Some(&session), Some("x"), Err(Refused::Foreign));
        check(&here, Some(&Secret::from("d.e.f")), Some(&token), Err(Refused::Foreign));
    }
}
