//! The cookies that hold secrets: the session's token, and a browser's random id, which stands in for it before a
//! login.
//!
//! Their names begin with `__Host-`, so that no other host can set them (RFC 6265bis, section 4.1.3.2). Cookies are
//! parsed byte by byte: a parser that strips Unicode white space would accept a name that the browser does not protect.

use std::time::Duration;

use aws_lc_rs::rand;
use axum::http::{HeaderMap, HeaderValue, header};
use data_encoding::BASE64URL_NOPAD;

use crate::Secret;

/// The `Set-Cookie` of a session's token. `None`: it has characters that no token has.
#[must_use]
pub fn session_cookie(token: &Secret, lifetime: Duration) -> Option<HeaderValue> {
    let sound = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~+/=".contains(&byte);
    if token.expose().is_empty() || !token.expose().bytes().all(sound) {
        return None;
    }
    set(SESSION, token.expose(), Some(lifetime.as_secs()))
}

/// The `Set-Cookie` that removes the session's token.
#[must_use]
pub fn clear_session() -> HeaderValue {
    clear(SESSION)
}

/// The session's token of a request. `None` where there is none, and where there are two: one of them is not ours.
#[must_use]
pub fn session_of(headers: &HeaderMap) -> Option<Secret> {
    the_one(headers, SESSION).map(Secret::from)
}

/// A new id for a browser, to which forms' tokens are bound before a login, with its `Set-Cookie`: 32 random bytes in base64url.
///
/// # Panics
/// The system has no randomness.
#[must_use]
pub fn anonymous() -> (Secret, HeaderValue) {
    let mut bytes = [0; ANONYMOUS_BYTES];
    rand::fill(&mut bytes).expect("the system gives random bytes");
    let value = BASE64URL_NOPAD.encode(&bytes);
    let cookie = set(ANONYMOUS, &value, None).expect("base64url is a header's text");
    (Secret::from(value), cookie)
}

/// The id that [`anonymous`] gave this browser. `None` where it is malformed, or there twice.
#[must_use]
pub fn anonymous_of(headers: &HeaderMap) -> Option<Secret> {
    let value = the_one(headers, ANONYMOUS)?;
    let bytes = BASE64URL_NOPAD.decode(value.as_bytes()).ok()?;
    (bytes.len() == ANONYMOUS_BYTES).then(|| Secret::from(value))
}

/// A `Set-Cookie` with the attributes of all our cookies; without an age, it lasts until the browser closes.
pub(super) fn set(name: &str, value: &str, max_age_s: Option<u64>) -> Option<HeaderValue> {
    let age = max_age_s.map(|seconds| format!("; Max-Age={seconds}")).unwrap_or_default();
    let text = format!("{name}={value}; Path=/; Secure; HttpOnly; SameSite=Strict{age}");
    let mut header = HeaderValue::try_from(text).ok()?;
    header.set_sensitive(true);
    Some(header)
}

/// A `Set-Cookie` that removes a cookie.
pub(super) fn clear(name: &str) -> HeaderValue {
    set(name, "", Some(0)).expect("the names of our cookies are a header's text")
}

/// A cookie's value, if it is there once and not empty.
pub(super) fn the_one<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let all = headers.get_all(header::COOKIE).into_iter();
    let pairs = all.flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    let mut values = pairs.filter_map(|pair| {
        let pair = pair.trim_ascii();
        let at = pair.iter().position(|byte| *byte == b'=')?;
        let (given, value) = pair.split_at(at);
        (given == name.as_bytes()).then(|| value.get(1..).unwrap_or_default())
    });
    let value = values.next()?;
    if value.is_empty() || values.next().is_some() {
        return None;
    }
    std::str::from_utf8(value).ok()
}

const SESSION: &str = "__Host-session";
const ANONYMOUS: &str = "__Host-csrf";
const ANONYMOUS_BYTES: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[&[u8]]) -> HeaderMap {
        let value = |line: &&[u8]| (header::COOKIE, HeaderValue::from_bytes(line).unwrap());
        lines.iter().map(value).collect()
    }

    fn check(lines: &[&[u8]], expect: Option<&str>) {
        assert_eq!(session_of(&headers(lines)).as_ref().map(Secret::expose), expect, "{lines:?}");
    }

    #[test]
    fn the_session_is_found_among_other_cookies() {
        check(&[b"__Host-session=a.b.c"], Some("a.b.c"));
        check(&[b"x=1; __Host-session=a.b.c; y=2"], Some("a.b.c"));
        // HTTP/2 may send a line for each.
        check(&[b"x=1", b"__Host-session=a.b.c"], Some("a.b.c"));
        // Some other cookie's strange bytes do not log anybody out.
        check(&[b"x=\xff\xfe; bare; __Host-session=a=b"], Some("a=b"));
    }

    #[test]
    fn two_sessions_count_as_none() {
        check(&[b"__Host-session=a; __Host-session=b"], None);
        check(&[b"__Host-session=a; __Host-session=a"], None);
        check(&[b"__Host-session=a", b"__Host-session=b"], None);
        check(&[b"__Host-session=a; __Host-session="], None);
    }

    #[test]
    fn other_cookies_are_no_session() {
        check(&[], None);
        check(&[b"__Host-session"], None);
        check(&[b"__Host-session="], None);
        check(&[b"__host-session=a"], None);
        check(&[b"x__Host-session=a"], None);
        check(&[b"__Host-session=\xff"], None);
        // U+2000 before the name: the browser sees no prefix in it, so another host can have set it.
        check(&[b"x=1; \xe2\x80\x80__Host-session=a"], None);
        check(&[b"\xe2\x80\x80__Host-session=a; __Host-session=b"], Some("b"));
    }

    #[test]
    fn the_session_cookie_is_hidden_from_scripts_and_other_sites() {
        let token = Secret::from("eyJh.eyJz.c2ln");
        let cookie = session_cookie(&token, Duration::from_secs(3600)).unwrap();
        let expect = "__Host-session=eyJh.eyJz.c2ln; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age=3600";
        assert_eq!(cookie, expect);
        assert_eq!(format!("{cookie:?}"), "Sensitive");
    }

    #[test]
    fn a_token_cannot_add_attributes() {
        for text in ["", "a; Domain=example.org", "a b", "a,b", "a\"", "a\r\nx: y", "ä"] {
            assert_eq!(session_cookie(&Secret::from(text), Duration::from_secs(1)), None, "{text:?}");
        }
    }

    #[test]
    fn a_session_is_removed_at_once() {
        assert_eq!(clear_session(), "__Host-session=; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age=0");
    }

    #[test]
    fn a_browser_id_is_read_back() {
        let (secret, cookie) = anonymous();
        let (pair, rest) = cookie.to_str().unwrap().split_once(';').unwrap();
        assert_eq!(rest, " Path=/; Secure; HttpOnly; SameSite=Strict");
        let back = anonymous_of(&headers(&[pair.as_bytes()])).unwrap();
        assert_eq!(back.expose(), secret.expose());
        assert_ne!(anonymous().0.expose(), secret.expose());
    }

    #[test]
    fn a_malformed_browser_id_is_ignored() {
        for line in [&b"__Host-csrf=short"[..], b"__Host-csrf=", b"__Host-csrf=AAAA", b"__Host-session=a"] {
            assert!(anonymous_of(&headers(&[line])).is_none());
        }
    }
}
