//! What a field section of HTTP/2 must be like before it is passed on, where the engine lets it through.

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{self, HeaderMap, HeaderName};
use mc_core::http1::{Known, content_length};

/// Checks the values (RFC 9113, section 8.2.1): one that begins or ends with white space is one that readers of HTTP/1.1
/// and of HTTP/2 do not agree on.
pub(super) fn values(headers: &HeaderMap) -> Result<(), &'static str> {
    let is_blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    let is_padded = |value: &[u8]| is_blank(value.first()) || is_blank(value.last());
    if headers.values().any(|value| is_padded(value.as_bytes())) {
        return Err("a field's value begins or ends with white space");
    }
    Ok(())
}

/// The one `Content-Length`, which is a number.
pub(super) fn length(headers: &HeaderMap) -> Result<Option<&[u8]>, &'static str> {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter().map(http::HeaderValue::as_bytes);
    match (lengths.next(), lengths.next()) {
        (_, Some(_)) => Err("there is more than one Content-Length"),
        (Some(length), None) => match content_length(length) {
            Ok(_) => Ok(Some(length)),
            Err(_) => Err("Content-Length is no number"),
        },
        (None, None) => Ok(None),
    }
}

/// The trailer fields that are passed on: none that decides about a message, or says who the client is, as some readers
/// take trailers for fields of the head.
pub(super) fn trailers(fields: &HeaderMap) -> Result<HeaderMap, &'static str> {
    values(fields)?;
    let fit = fields.iter().filter(|(name, _)| is_fit_trailer(name));
    Ok(fit.map(|(name, value)| (name.clone(), value.clone())).collect())
}

/// Whether a field of this name may be a trailer.
pub(super) fn is_fit_trailer(name: &HeaderName) -> bool {
    let name = name.as_str().as_bytes();
    Known::of(name) == Known::Other && Known::disguised(name) == Known::Other
}

/// The `Sec-WebSocket-Accept` that answers a key (RFC 6455, section 4.2.2).
pub(super) fn accept(key: &str) -> String {
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
    STANDARD.encode(hash)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn values_have_no_white_space_around_them() {
        for (value, is_fit) in
            [("", true), ("a b", true), (" a", false), ("a ", false), ("\ta", false), (" ", false)]
        {
            assert_eq!(values(&headers(&[("x", value)])).is_ok(), is_fit, "{value:?}");
        }
    }

    #[test]
    fn a_length_is_one_number() {
        let read = |fields: &[_]| length(&headers(fields)).map(|length| length.map(<[u8]>::to_vec));
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&[("content-length", "12")]), Ok(Some(b"12".to_vec())));
        for value in ["", "+1", "1, 1", "x", "9223372036854775808"] {
            assert_eq!(read(&[("content-length", value)]), Err("Content-Length is no number"), "{value:?}");
        }
        assert!(read(&[("content-length", "1"), ("content-length", "1")]).is_err());
    }

    /// The example of RFC 6455, section 1.3.
    #[test]
    fn a_key_has_one_answer() {
        assert_eq!(accept("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn trailers_decide_nothing() {
        let fields =
            headers(&[("content-length", "1"), ("x-sum", "2"), ("x-forwarded-for", "3"), ("host", "a")]);
        assert_eq!(trailers(&fields), Ok(headers(&[("x-sum", "2")])));
        assert!(trailers(&headers(&[("x-sum", "1 ")])).is_err());
    }
}
