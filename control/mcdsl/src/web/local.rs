//! Redirects: to a path of the same service, never to another site.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

/// The text, if it is a path on this host: `/accounts?after=7`. Use it for `?next=`, which anybody can write.
///
/// A browser takes `//host` and `/\host` for another host, and strips tabs and line ends first (WHATWG URL).
#[must_use]
pub fn local_path(text: &str) -> Option<&str> {
    let mut bytes = text.bytes();
    let local = bytes.next() == Some(b'/')
        && !text.starts_with("//")
        && bytes.all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    local.then_some(text)
}

/// 303 See Other (RFC 9110, section 15.4.4): the response to a form that was processed. To `/` where `to` is not a [`local_path`].
#[must_use]
pub fn redirect(to: &str) -> Response {
    let to = local_path(to).unwrap_or("/");
    let to = HeaderValue::from_str(to).expect("a local path has printable ASCII only");
    (StatusCode::SEE_OTHER, [(header::LOCATION, to)]).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, local: bool) {
        assert_eq!(local_path(text).is_some(), local, "{text:?}");
        let response = redirect(text);
        assert_eq!(response.status(), 303);
        assert_eq!(response.headers()["location"], if local { text } else { "/" });
    }

    #[test]
    fn a_path_of_this_host_is_local() {
        for text in ["/", "/accounts", "/accounts/7?after=a%20b&x=//y#z", "/a//b", "/~a"] {
            check(text, true);
        }
    }

    #[test]
    fn what_could_lead_to_another_host_is_not() {
        for text in [
            "",
            "accounts",
            "//evil.example.org",
            "///evil",
            "https://evil.example.org",
            "javascript:alert(1)",
        ] {
            check(text, false);
        }
        for text in [
            "/\\evil",
            "\\/evil",
            "/a\\b",
            "/\t/evil",
            "/\n/evil",
            "/a\r\nset-cookie: x",
            "/a b",
            "/ä",
            "/\u{7f}",
        ] {
            check(text, false);
        }
    }
}
