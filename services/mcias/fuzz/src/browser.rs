//! What browsers send beside forms: cookies, a form's token, where to go next. Nobody is somebody else by any of it.

use http::header::{COOKIE, HeaderMap, HeaderValue};
use mcdsl::Secret;
use mcdsl::web::{Csrf, Flash, Tone, anonymous_of, session_of};
use url::Url;

/// What signs here.
const KEY: [u8; 32] = [7; 32];

/// What a form's token is bound to here.
const BINDING: &str = "a.b.c";

/// Seeds that are signed: the form's token, and a message's cookie.
#[must_use]
pub fn good() -> (String, String) {
    let csrf = Csrf::new(KEY);
    let flash = Flash::new(Tone::Good, "Done.").cookie(&csrf);
    let flash = flash.to_str().unwrap_or_default().split(';').next().unwrap_or_default().to_owned();
    (csrf.token(&Secret::from(BINDING)), flash)
}

/// Checks one input: a line of cookies, a form's token and a path, each on a line.
pub fn check(input: &[u8]) {
    let mut lines = input.splitn(3, |byte| *byte == b'\n');
    let mut line = || lines.next().unwrap_or_default();
    cookies(line());
    if let Ok(token) = str::from_utf8(line()) {
        let csrf = Csrf::new(KEY);
        let binding = Secret::from(BINDING);
        assert_eq!(csrf.verify(&binding, token), token == csrf.token(&binding), "{token:?}");
    }
    let Some(path) = str::from_utf8(line()).ok().and_then(|text| local(text)) else { return };
    let here = Url::parse("https://mcias.example.org:8443/login").expect("it is an address");
    let there = here.join(path).expect("a path leads somewhere");
    assert_eq!(there.origin(), here.origin(), "{path:?}");
    assert!(HeaderValue::from_str(path).is_ok(), "{path:?}");
}

fn cookies(line: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(line) else { return };
    let headers: HeaderMap = [(COOKIE, value)].into_iter().collect();
    let pairs: Vec<(&[u8], &[u8])> = line
        .split(|byte| *byte == b';')
        .map(<[u8]>::trim_ascii)
        .filter_map(|pair| Some(pair.split_at(pair.iter().position(|byte| *byte == b'=')?)))
        .collect();
    let the_one =
        |name: &str| match *pairs.iter().filter(|(given, _)| *given == name.as_bytes()).collect::<Vec<_>>() {
            [(_, value)] if value.len() > 1 => str::from_utf8(&value[1..]).ok(),
            _ => None,
        };
    let session = session_of(&headers);
    assert_eq!(session.as_ref().map(Secret::expose), the_one("__Host-session"));
    if let Some(anonymous) = anonymous_of(&headers) {
        assert_eq!(Some(anonymous.expose()), the_one("__Host-csrf"));
    }
    let csrf = Csrf::new(KEY);
    if let Some(flash) = Flash::of(&headers, &csrf) {
        let again = flash.cookie(&csrf);
        let again = again.to_str().expect("it is a text").split(';').next().expect("it has a beginning");
        assert_eq!(again.strip_prefix("__Host-flash="), the_one("__Host-flash"));
    }
}

fn local(text: &str) -> Option<&str> {
    // The planted bug: a backslash is no slash.
    #[cfg(feature = "planted")]
    return (text.starts_with('/')
        && !text.starts_with("//")
        && text.bytes().all(|byte| byte.is_ascii_graphic()))
    .then_some(text);
    #[cfg(not(feature = "planted"))]
    mcdsl::web::local_path(text)
}
