//! Which bytes may stand where (RFC 9110, section 5.5 and 5.6.2; RFC 3986).

/// Whether each byte may stand in a token: `tchar`.
static TOKEN: [bool; 256] = table(b"!#$%&'*+-.^_`|~", true, false);

/// Whether each byte may stand in a request target: what RFC 3986 lets a URI have, and what browsers leave as it is
/// in a query. No space, no control character, nothing beyond ASCII.
static TARGET: [bool; 256] = table(b"!#$%&'()*+,-./:;<=>?@[\\]^_`{|}~\"", true, false);

/// Whether each byte may stand in a field's value: visible, space, tab, and beyond ASCII.
static VALUE: [bool; 256] = table(b"!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~ \t", true, true);

const fn table(also: &[u8], alphanumeric: bool, beyond: bool) -> [bool; 256] {
    let mut table = [false; 256];
    let mut index = 0;
    while index < 256 {
        #[expect(clippy::cast_possible_truncation, reason = "below 256")]
        let byte = index as u8;
        table[index] = (alphanumeric && byte.is_ascii_alphanumeric()) || (beyond && byte >= 0x80);
        index += 1;
    }
    let mut index = 0;
    while index < also.len() {
        table[also[index] as usize] = true;
        index += 1;
    }
    table
}

/// Whether these bytes are a token: at least one `tchar`.
#[must_use]
pub(crate) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|byte| TOKEN[usize::from(*byte)])
}

/// Whether these bytes may be a request target.
#[must_use]
pub fn is_target(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|byte| TARGET[usize::from(*byte)])
}

/// Whether these bytes may be a field's value.
#[must_use]
pub(crate) fn is_value(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| VALUE[usize::from(*byte)])
}
