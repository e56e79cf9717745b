//! Heads of messages as they may be shown to an operator: what could be a secret is left out.
//!
//! Values are shown of fields that are known to be harmless; of all others only their length, because nobody knows all
//! names that applications give to credentials. Queries keep their names and lose their values. What a client sent is
//! escaped, so that it cannot speak to a terminal.

use std::fmt::Write as _;

/// A field's value as it may be shown.
#[must_use]
pub fn value(name: &[u8], value: &[u8]) -> String {
    let known = |list: &[&str]| list.iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes()));
    if known(TARGETS) {
        target(value)
    } else if known(HARMLESS) {
        text(value)
    } else {
        format!("<{} bytes>", value.len())
    }
}

/// A request's target, or another URI reference: the values of its query are left out, and whatever follows a `#`.
#[must_use]
pub fn target(target: &[u8]) -> String {
    let end = memchr::memchr(b'#', target).unwrap_or(target.len());
    let target = &target[..end];
    let Some(query) = memchr::memchr(b'?', target) else { return text(target) };
    let mut out = text(&target[..query]);
    for (index, pair) in target[query + 1..].split(|byte| *byte == b'&').enumerate() {
        out.push(if index == 0 { '?' } else { '&' });
        match memchr::memchr(b'=', pair) {
            Some(equals) => {
                out.push_str(&text(&pair[..equals]));
                out.push_str("=…");
            }
            // A value without a name may be one.
            None => out.push_str(if pair.is_empty() { "" } else { "…" }),
        }
    }
    out
}

/// Bytes as text: visible ASCII as it is, all else escaped.
#[must_use]
pub fn text(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for byte in bytes {
        if byte.is_ascii_graphic() && *byte != b'\\' || *byte == b' ' {
            out.push(char::from(*byte));
        } else {
            // Writing to a string cannot fail.
            write!(out, "\\x{byte:02x}").unwrap_or(());
        }
    }
    out
}

/// Fields whose values say nothing that anybody would keep to himself.
const HARMLESS: &[&str] = &[
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "accept-ranges",
    "age",
    "allow",
    "alt-svc",
    "cache-control",
    "connection",
    "content-encoding",
    "content-language",
    "content-length",
    "content-range",
    "content-type",
    "date",
    "etag",
    "expect",
    "expires",
    "grpc-encoding",
    "grpc-status",
    "grpc-timeout",
    "host",
    "if-modified-since",
    "if-none-match",
    "last-modified",
    "origin",
    "range",
    "retry-after",
    "sec-fetch-dest",
    "sec-fetch-mode",
    "sec-fetch-site",
    "sec-websocket-version",
    "server",
    "strict-transport-security",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "vary",
    "x-request-id",
];

/// Fields that are references, with a query perhaps.
const TARGETS: &[&str] = &["content-location", "location", "referer"];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_what_is_harmless_is_shown() {
        let check = |name: &str, given: &str, expect: &str| {
            assert_eq!(value(name.as_bytes(), given.as_bytes()), expect, "{name}");
        };
        check("User-Agent", "curl/8", "curl/8");
        check("Authorization", "Bearer abc", "<10 bytes>");
        check("cookie", "a=b", "<3 bytes>");
        check("X-My-Own", "abc", "<3 bytes>");
        check("location", "/login?token=abc#frag", "/login?token=…");
        check("server", "a\x1b[31m\\", "a\\x1b[31m\\x5c");
    }

    #[test]
    fn queries_keep_their_names() {
        let check = |given: &str, expect: &str| assert_eq!(target(given.as_bytes()), expect);
        check("/a/b", "/a/b");
        check("/a?b=c&d=&e&&f=g=h", "/a?b=…&d=…&…&&f=…");
        check("/a?", "/a?");
        check("/ä", "/\\xc3\\xa4");
    }

    proptest! {
        #[test]
        fn no_value_of_a_query_is_shown(name in "[a-z]{1,5}", secret in "[A-Z0-9%+/]{4,20}") {
            let shown = target(format!("/x?{name}={secret}&{secret}").as_bytes());
            prop_assert!(!shown.contains(&secret));
        }

        #[test]
        fn nothing_speaks_to_a_terminal(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            prop_assert!(text(&bytes).bytes().all(|byte| byte.is_ascii_graphic() || byte == b' '));
            prop_assert!(target(&bytes).chars().all(|it| it == '…' || it.is_ascii_graphic() || it == ' '));
        }
    }
}
