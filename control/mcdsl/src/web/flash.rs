//! A message for the next page: the result of a form, shown after its redirect.
//!
//! It travels in a signed cookie, so that nothing is stored and nobody else's text is shown as ours.

use axum::http::{HeaderMap, HeaderValue};
use data_encoding::BASE64URL_NOPAD;

use super::cookies::{clear, set, the_one};
use super::csrf::{Csrf, Purpose};
use super::parts::Tone;

/// A message for the next page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flash {
    /// Its tone.
    pub tone: Tone,
    /// Its plain text. Not for secrets: it is signed, but not encrypted.
    pub text: String,
}

impl Flash {
    /// A message for the next page.
    #[must_use]
    pub fn new(tone: Tone, text: impl Into<String>) -> Self {
        Self { tone, text: text.into() }
    }

    /// The `Set-Cookie` that takes it to the next page, within a minute. A text of more than 1,000 bytes is cut.
    ///
    /// # Panics
    /// Never: base64url is a header's text.
    #[must_use]
    pub fn cookie(&self, csrf: &Csrf) -> HeaderValue {
        let text = &self.text[..self.text.floor_char_boundary(MAX_TEXT)];
        let said = [&[self.tone.letter()], text.as_bytes()].concat();
        let signed = [&csrf.sign(Purpose::Flash, &said)[..], &said].concat();
        set(NAME, &BASE64URL_NOPAD.encode(&signed), Some(60)).expect("base64url is a header's text")
    }

    /// The message of a request. `None` where there is none, or its signature is wrong.
    #[must_use]
    pub fn of(headers: &HeaderMap, csrf: &Csrf) -> Option<Self> {
        let signed = BASE64URL_NOPAD.decode(the_one(headers, NAME)?.as_bytes()).ok()?;
        let (tag, said) = signed.split_at_checked(32)?;
        if !csrf.signed(Purpose::Flash, said, tag) {
            return None;
        }
        let (letter, text) = said.split_first()?;
        Some(Self { tone: Tone::of_letter(*letter)?, text: std::str::from_utf8(text).ok()?.to_owned() })
    }

    /// The `Set-Cookie` that removes the message. [`super::Page::respond`] sets it.
    #[must_use]
    pub fn clear() -> HeaderValue {
        clear(NAME)
    }
}

const NAME: &str = "__Host-flash";
const MAX_TEXT: usize = 1000;

#[cfg(test)]
mod tests {
    use axum::http::header;
    use proptest::prelude::*;

    use super::*;

    fn headers(value: &[u8]) -> HeaderMap {
        let line = [b"__Host-flash=", value].concat();
        HeaderValue::from_bytes(&line).map(|line| (header::COOKIE, line)).into_iter().collect()
    }

    /// The cookie as the browser sends it back.
    fn value(flash: &Flash, csrf: &Csrf) -> String {
        let cookie = flash.cookie(csrf).to_str().unwrap().to_owned();
        cookie.strip_prefix("__Host-flash=").unwrap().split(';').next().unwrap().to_owned()
    }

    #[test]
    fn a_message_arrives_unchanged() {
        let csrf = Csrf::new([1; 32]);
        for tone in Tone::ALL {
            let flash = Flash::new(tone, "Account “Ada” <created>; 100 %");
            assert_eq!(Flash::of(&headers(value(&flash, &csrf).as_bytes()), &csrf), Some(flash));
        }
    }

    #[test]
    fn its_cookie_lasts_a_minute() {
        let cookie = Flash::new(Tone::Good, "Saved").cookie(&Csrf::new([1; 32]));
        let expect = "; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age=60";
        assert!(cookie.to_str().unwrap().ends_with(expect));
        assert!(Flash::clear().to_str().unwrap().ends_with("Max-Age=0"));
    }

    #[test]
    fn a_changed_message_is_not_shown() {
        let csrf = Csrf::new([1; 32]);
        let value = value(&Flash::new(Tone::Good, "Saved"), &csrf);
        for at in 0..value.len() {
            let mut bytes = value.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(Flash::of(&headers(&bytes), &csrf), None, "{at}");
        }
        assert_eq!(Flash::of(&headers(value.as_bytes()), &Csrf::new([2; 32])), None);
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let csrf = Csrf::new([1; 32]);
        let value = value(&Flash::new(Tone::Info, "€".repeat(1000)), &csrf);
        assert!(value.len() < 1500);
        let text = Flash::of(&headers(value.as_bytes()), &csrf).unwrap().text;
        assert_eq!(text, "€".repeat(333));
    }

    proptest! {
        #[test]
        fn unsigned_bytes_are_not_shown(bytes: Vec<u8>) {
            prop_assert_eq!(Flash::of(&headers(&bytes), &Csrf::new([1; 32])), None);
        }

        #[test]
        fn unsigned_messages_are_not_shown(tag: [u8; 32], tone in "[nigwb]", text: String) {
            let value = BASE64URL_NOPAD.encode(&[&tag[..], tone.as_bytes(), text.as_bytes()].concat());
            prop_assert_eq!(Flash::of(&headers(value.as_bytes()), &Csrf::new([1; 32])), None);
        }
    }
}
