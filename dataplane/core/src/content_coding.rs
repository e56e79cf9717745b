//! Whether a response is compressed on its way, how, and what that changes of its head (RFC 9110, sections 8.4 and
//! 12.5.3).
//!
//! Only what a backend sent whole and uncompressed is: never a part of a representation, never what says
//! `no-transform`. The encoders are elsewhere; here is what is decided.

use serde::{Deserialize, Serialize};

/// A way of compressing content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Coding {
    /// Zstandard (RFC 8878).
    Zstd,
    /// Brotli (RFC 7932).
    Br,
    /// gzip (RFC 1952).
    Gzip,
}

/// What is known of a response's head.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// Its status.
    pub status: u16,
    /// It answers a HEAD, or has no content for another reason.
    pub no_content: bool,
    /// Bytes of content below which it is not worth while.
    pub min_bytes: u64,
}

/// What a response that may be compressed says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compressible {
    /// Its `Vary`, `Accept-Encoding` among it.
    pub vary: Vec<u8>,
    /// Its `ETag`, weak: the bytes will be others.
    pub etag: Option<Vec<u8>>,
}

impl Coding {
    /// All, the best first.
    pub const ALL: [Self; 3] = [Self::Zstd, Self::Br, Self::Gzip];

    /// Its name in `Content-Encoding`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Br => "br",
            Self::Gzip => "gzip",
        }
    }
}

/// The coding that a client likes best of those that are `offered`, of equals the first. `accept`: the values of its
/// `Accept-Encoding`; without one nothing is compressed, since clients that say nothing often cannot.
pub fn negotiate<'a>(accept: impl Iterator<Item = &'a [u8]>, offered: &[Coding]) -> Option<Coding> {
    let mut named: [Option<u16>; 3] = [None; 3];
    let mut rest = 0;
    for part in accept.flat_map(|value| value.split(|byte| *byte == b',')) {
        let mut parts = part.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let name = parts.next().unwrap_or_default();
        let Some(quality) = parts.try_fold(1000, |_, parameter| quality(parameter)) else { continue };
        if name == b"*" {
            rest = quality;
        }
        for (coding, named) in Coding::ALL.iter().zip(&mut named) {
            let alias = *coding == Coding::Gzip && name.eq_ignore_ascii_case(b"x-gzip");
            if alias || name.eq_ignore_ascii_case(coding.as_str().as_bytes()) {
                *named = Some(quality);
            }
        }
    }
    let quality_of = |coding: Coding| {
        let place = Coding::ALL.iter().position(|other| *other == coding);
        place.and_then(|place| named[place]).unwrap_or(rest)
    };
    // The last of equals would be taken, so the first come last.
    offered
        .iter()
        .rev()
        .copied()
        .filter(|coding| quality_of(*coding) > 0)
        .max_by_key(|coding| quality_of(*coding))
}

/// `q=0.5` in thousandths (RFC 9110, section 12.4.2).
fn quality(parameter: &[u8]) -> Option<u16> {
    let [b'q' | b'Q', b'=', digits @ ..] = parameter else { return None };
    let (whole, fraction) = match digits {
        [whole] | [whole, b'.'] => (whole, [].as_slice()),
        [whole, b'.', fraction @ ..] if fraction.len() <= 3 => (whole, fraction),
        _ => return None,
    };
    let mut value = 0;
    for place in 0..3 {
        let digit = fraction.get(place).copied().unwrap_or(b'0');
        value = value * 10 + u16::from(digit.is_ascii_digit().then(|| digit - b'0')?);
    }
    match whole {
        b'0' => Some(value),
        b'1' if value == 0 => Some(1000),
        _ => None,
    }
}

/// Whether a response may be compressed, from its head's fields.
pub fn compressible<'a>(
    facts: &Facts,
    types: &[String],
    fields: impl Iterator<Item = (&'a [u8], &'a [u8])>,
) -> Option<Compressible> {
    if facts.no_content || matches!(facts.status, ..200 | 204 | 205 | 206 | 304) {
        return None;
    }
    let mut found = Compressible::default();
    let mut is_listed = false;
    for (name, value) in fields {
        let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
        if is("content-encoding") && !value.eq_ignore_ascii_case(b"identity") || is("content-range") {
            return None;
        }
        if is("cache-control") && has_token(value, "no-transform") {
            return None;
        }
        if is("content-length") {
            let length: Option<u64> = str::from_utf8(value).ok().and_then(|text| text.parse().ok());
            if length.is_none_or(|length| length < facts.min_bytes) {
                return None;
            }
        }
        if is("content-type") {
            let kind = value.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
            is_listed = types.iter().any(|listed| matches_type(kind, listed));
        }
        if is("vary") {
            found.vary.extend_from_slice(if found.vary.is_empty() { b"" } else { b", " });
            found.vary.extend_from_slice(value);
        }
        if is("etag") {
            let weak = if value.starts_with(b"W/") { b"".as_slice() } else { b"W/" };
            found.etag = Some([weak, value].concat());
        }
    }
    if !has_token(&found.vary, "accept-encoding") && !has_token(&found.vary, "*") {
        found.vary.extend_from_slice(if found.vary.is_empty() { b"" } else { b", " });
        found.vary.extend_from_slice(b"Accept-Encoding");
    }
    is_listed.then_some(found)
}

fn has_token(value: &[u8], token: &str) -> bool {
    value.split(|byte| *byte == b',').any(|part| part.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

/// `text/*`, `*+json`, or a type as it is.
fn matches_type(kind: &[u8], listed: &str) -> bool {
    let listed = listed.as_bytes();
    let ignoring_case =
        |part: Option<&[u8]>, other: &[u8]| part.is_some_and(|part| part.eq_ignore_ascii_case(other));
    match listed {
        [start @ .., b'*'] => ignoring_case(kind.get(..start.len()), start),
        [b'*', end @ ..] => ignoring_case(kind.len().checked_sub(end.len()).map(|at| &kind[at..]), end),
        exact => kind.eq_ignore_ascii_case(exact),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Coding::{Br, Gzip, Zstd};
    use super::*;

    fn choose(accept: &str) -> Option<Coding> {
        negotiate(std::iter::once(accept.as_bytes()), &Coding::ALL)
    }

    #[test]
    fn the_best_that_is_accepted_is_chosen() {
        let check = |accept, expect| assert_eq!(choose(accept), expect, "{accept}");
        check("gzip, deflate, br, zstd", Some(Zstd));
        check("gzip, br", Some(Br));
        check("gzip;q=1, br;q=0.5", Some(Gzip));
        check("GZIP; q=0.001", Some(Gzip));
        check("x-gzip", Some(Gzip));
        check("*", Some(Zstd));
        check("*;q=0.5, zstd;q=0, br;q=0", Some(Gzip));
        check("identity", None);
        check("", None);
        check("gzip;q=0", None);
        check("gzip;q=2, br;q=x, zstd;q=0.0001", None);
        assert_eq!(negotiate(std::iter::empty(), &Coding::ALL), None);
        assert_eq!(negotiate([b"br".as_slice(), b"gzip"].into_iter(), &[Gzip, Br]), Some(Gzip));
    }

    const FACTS: Facts = Facts { status: 200, no_content: false, min_bytes: 100 };

    fn may(facts: Facts, fields: &[(&str, &str)]) -> Option<Compressible> {
        let types = ["text/*", "*+json", "application/json"].map(str::to_owned);
        let fields = fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        compressible(&facts, &types, fields)
    }

    #[test]
    fn what_may_be_compressed_is() {
        let check =
            |fields: &[(&str, &str)], expect| assert_eq!(may(FACTS, fields).is_some(), expect, "{fields:?}");
        check(&[("content-type", "text/html; charset=utf-8")], true);
        check(&[("Content-Type", "application/problem+json")], true);
        check(&[("content-type", "application/JSON")], true);
        check(&[("content-type", "image/png")], false);
        check(&[], false);
        let html = ("content-type", "text/html");
        check(&[html, ("content-length", "99")], false);
        check(&[html, ("content-length", "100")], true);
        check(&[html, ("content-encoding", "gzip")], false);
        check(&[html, ("content-encoding", "identity")], true);
        check(&[html, ("cache-control", "public, No-Transform")], false);
        check(&[html, ("content-range", "bytes 0-1/2")], false);
        for status in [101, 204, 206, 304] {
            assert_eq!(may(Facts { status, ..FACTS }, &[html]), None, "{status}");
        }
        assert_eq!(may(Facts { no_content: true, ..FACTS }, &[html]), None);
        assert!(may(Facts { status: 404, ..FACTS }, &[html]).is_some());
    }

    #[test]
    fn its_head_says_that_it_varies_and_that_its_bytes_are_others() {
        let html = ("content-type", "text/html");
        let found = may(FACTS, &[html, ("etag", "\"a\""), ("vary", "Cookie"), ("vary", "Origin")]).unwrap();
        assert_eq!(found.vary, b"Cookie, Origin, Accept-Encoding");
        assert_eq!(found.etag.unwrap(), b"W/\"a\"");
        let found = may(FACTS, &[html, ("etag", "W/\"a\""), ("vary", "accept-encoding")]).unwrap();
        assert_eq!((found.vary, found.etag.unwrap()), (b"accept-encoding".to_vec(), b"W/\"a\"".to_vec()));
    }

    proptest! {
        #[test]
        fn nothing_is_chosen_that_was_not_named(accept in "[a-z*;q=0-9., ]{0,40}") {
            if let Some(coding) = choose(&accept) {
                prop_assert!(accept.contains(coding.as_str()) || accept.contains('*'));
            }
        }
    }
}
