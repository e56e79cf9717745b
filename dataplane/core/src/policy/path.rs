//! Paths, in the one form in which they are compared.
//!
//! `/admin`, `//admin` and `/%61dmin` are one path to most backends. What a policy says of one of them it must say of
//! all, so paths are compared decoded and with single slashes; what backends read differently from each other
//! (`/./`, `/../`, an encoded slash or backslash, `..;`, and parameters of segments where they make a difference) is refused
//! where a route decides by path.

use std::borrow::Cow;

/// A path that backends may read differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AmbiguousPath {
    /// A segment `.` or `..`, also encoded or with parameters.
    #[error("the path has a segment . or .., which backends resolve differently")]
    Dots,
    /// `%2F`, `%5C`, a backslash or a NUL.
    #[error("the path has an encoded slash, a backslash or a NUL, which backends read differently")]
    Separator,
    /// Segments with parameters (`/admin;x`), without which the path is another one to what is decided.
    #[error("the path has a segment with parameters (;), which some backends leave out")]
    Parameters,
    /// `%` without two hexadecimal digits.
    #[error("the path has a % that no two hexadecimal digits follow")]
    Percent,
}

/// The path of a target (path and query), decoded, with single slashes. A target that is none (`*`) stays as it is.
///
/// # Errors
/// Backends may read it differently.
pub fn canonical(target: &[u8]) -> Result<Cow<'_, [u8]>, AmbiguousPath> {
    let end = memchr::memchr(b'?', target).unwrap_or(target.len());
    let raw = &target[..end];
    if raw.contains(&b'\\') {
        return Err(AmbiguousPath::Separator);
    }
    let plain = memchr::memchr(b'%', raw).is_none() && !raw.windows(2).any(|pair| pair == b"//");
    let path = if plain { Cow::Borrowed(raw) } else { Cow::Owned(decode(raw)?) };
    for segment in path.split(|byte| *byte == b'/') {
        let name = segment.split(|byte| *byte == b';').next().unwrap_or_default();
        if name == b"." || name == b".." {
            return Err(AmbiguousPath::Dots);
        }
    }
    Ok(path)
}

fn decode(raw: &[u8]) -> Result<Vec<u8>, AmbiguousPath> {
    let mut path = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let [first, after @ ..] = rest {
        rest = after;
        let byte = match first {
            b'%' => {
                let (value, after) = hex(rest).ok_or(AmbiguousPath::Percent)?;
                if matches!(value, b'/' | b'\\' | 0) {
                    return Err(AmbiguousPath::Separator);
                }
                rest = after;
                value
            }
            b'/' if path.last() == Some(&b'/') => continue,
            other => *other,
        };
        path.push(byte);
    }
    Ok(path)
}

fn hex(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let [high, low, rest @ ..] = bytes else { return None };
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some((digit(*high)? << 4 | digit(*low)?, rest))
}

/// Whether a path is `prefix` or below it. A prefix that ends with a slash is only for what is below.
///
/// # Errors
/// It is one with its parameters (RFC 3986, section 3.3) and not without, or the other way round: some backends leave them
/// out of the path.
pub fn is_within(path: &[u8], prefix: &str) -> Result<bool, AmbiguousPath> {
    let is_within = is_below(path, prefix);
    let is_plain = memchr::memchr(b';', path).is_none() || prefix.contains(';');
    if is_plain || is_below(&without_parameters(path), prefix) == is_within {
        return Ok(is_within);
    }
    Err(AmbiguousPath::Parameters)
}

fn is_below(path: &[u8], prefix: &str) -> bool {
    let Some(rest) = path.strip_prefix(prefix.as_bytes()) else { return false };
    rest.is_empty() || rest[0] == b'/' || prefix.ends_with('/') || prefix.is_empty()
}

fn without_parameters(path: &[u8]) -> Vec<u8> {
    let segments = path.split(|byte| *byte == b'/');
    let names = segments.map(|segment| segment.split(|byte| *byte == b';').next().unwrap_or_default());
    names.collect::<Vec<_>>().join(&b'/')
}

/// The target with `prefix`, which its canonical path lies within, replaced by `to`. The query stays as it is.
#[must_use]
pub(super) fn replace_prefix(target: &[u8], canonical: &[u8], prefix: &str, to: &str) -> Vec<u8> {
    let rest = canonical[prefix.len()..].strip_prefix(b"/").unwrap_or(&canonical[prefix.len()..]);
    let mut out = Vec::with_capacity(target.len() + to.len());
    out.extend_from_slice(to.as_bytes());
    let below = !rest.is_empty() || canonical.len() > prefix.len();
    if below && !out.ends_with(b"/") {
        out.push(b'/');
    }
    for byte in rest {
        // What a path has as it is (RFC 3986, section 3.3); the rest was encoded before, and is again.
        if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/".contains(byte) {
            out.push(*byte);
        } else {
            const HEX: &[u8; 16] = b"0123456789ABCDEF";
            out.extend_from_slice(&[b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
    }
    if let Some(query) = memchr::memchr(b'?', target) {
        out.extend_from_slice(&target[query..]);
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_path_has_one_form() {
        let check = |target: &str, expect: &str| {
            assert_eq!(canonical(target.as_bytes()).as_deref(), Ok(expect.as_bytes()), "{target}");
        };
        check("/", "/");
        check("/admin?x=//..", "/admin");
        check("//admin///x", "/admin/x");
        check("/%61dmin", "/admin");
        check("/a%25b", "/a%b");
        check("*", "*");
        check("/a/.hidden/..x", "/a/.hidden/..x");
    }

    #[test]
    fn what_backends_read_differently_is_refused() {
        let check = |target: &str, expect| assert_eq!(canonical(target.as_bytes()), Err(expect), "{target}");
        check("/a/../admin", AmbiguousPath::Dots);
        check("/a/..", AmbiguousPath::Dots);
        check("/./admin", AmbiguousPath::Dots);
        check("/a/%2e%2E/admin", AmbiguousPath::Dots);
        check("/a/..;x=1/admin", AmbiguousPath::Dots);
        check("/a%2fadmin", AmbiguousPath::Separator);
        check("/a%5Cadmin", AmbiguousPath::Separator);
        check("/a\\admin", AmbiguousPath::Separator);
        check("/a%00", AmbiguousPath::Separator);
        check("/a%2", AmbiguousPath::Percent);
        check("/a%zz", AmbiguousPath::Percent);
    }

    #[test]
    fn a_prefix_ends_where_a_segment_does() {
        let check = |path: &str, prefix, expect| {
            assert_eq!(is_within(path.as_bytes(), prefix), Ok(expect), "{path} {prefix}");
        };
        check("/api", "/api", true);
        check("/api/users", "/api", true);
        check("/apiary", "/api", false);
        check("/api", "/api/", false);
        check("/api/x", "/api/", true);
        check("/anything", "/", true);
        check("/anything", "", true);
        check("*", "/", false);
    }

    #[test]
    fn prefixes_are_replaced() {
        let check = |target: &str, prefix, to, expect: &str| {
            let path = canonical(target.as_bytes()).unwrap();
            let replaced = replace_prefix(target.as_bytes(), &path, prefix, to);
            assert_eq!(String::from_utf8(replaced).unwrap(), expect, "{target} {prefix} {to}");
        };
        check("/api/users?a=1", "/api", "/", "/users?a=1");
        check("/api", "/api", "/", "/");
        check("/api/", "/api", "/v2", "/v2/");
        check("/api", "/api", "/v2", "/v2");
        check("/api/x", "/api/", "/v2/", "/v2/x");
        check("//api/a%20b%25", "/api", "/v2", "/v2/a%20b%25");
        check("/x", "/", "/base", "/base/x");
    }

    proptest! {
        /// However a path is written, it is compared as the same.
        #[test]
        fn no_way_of_writing_a_path_dodges_it(
            segments in proptest::collection::vec("[a-zA-Z0-9_~-]{1,6}", 1..5),
            choices in proptest::collection::vec(any::<u8>(), 64),
        ) {
            let plain = format!("/{}", segments.join("/"));
            let mut written = String::new();
            for (byte, choice) in plain.bytes().zip(choices.iter().cycle()) {
                match (byte, choice % 4) {
                    (b'/', 0) => written.push_str("//"),
                    (b'/', _) => written.push('/'),
                    (byte, 0) => written.push_str(&format!("%{byte:02x}")),
                    (byte, 1) => written.push_str(&format!("%{byte:02X}")),
                    (byte, _) => written.push(char::from(byte)),
                }
            }
            let path = canonical(written.as_bytes()).unwrap();
            prop_assert_eq!(&*path, plain.as_bytes());
        }

        /// What stands for a prefix is a target again, whose path is the same below it.
        #[test]
        fn replaced_targets_are_targets(path in "/[ -~&&[^?#]]{0,20}", query in "(\\?[a-z=&%]{0,9})?") {
            let target = format!("{}{query}", path.replace(' ', "%20"));
            let Ok(path) = canonical(target.as_bytes()) else { return Ok(()) };
            let replaced = replace_prefix(target.as_bytes(), &path, "/", "/new");
            prop_assert!(crate::http1::is_target(&replaced));
            prop_assert!(replaced.ends_with(query.as_bytes()));
            let again = canonical(&replaced).unwrap();
            let below: &[u8] = if *path == *b"/" { b"" } else { &path };
            prop_assert_eq!(again.strip_prefix(b"/new".as_slice()).unwrap(), below);
        }
    }
}
