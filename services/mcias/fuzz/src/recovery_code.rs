//! Recovery codes as strangers type them: what is accepted is read as by a slow reader that does each step by itself.

use mcdsl::Secret;
use mcias::domain::recovery;

/// Checks one input: a text.
pub fn check(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else { return };
    let plain: String = text
        .chars()
        .filter(|c| !c.is_whitespace() && *c != '-')
        .map(|c| c.to_ascii_lowercase())
        .map(|c| if c == 'o' { '0' } else { c })
        .map(|c| if "il".contains(c) { '1' } else { c })
        .collect();
    let good = |c: char| c.is_ascii_digit() || c.is_ascii_lowercase() && c != 'u';
    let expect = text.len() <= 100 && plain.chars().count() == 16 && plain.chars().all(good);
    let Some(code) = under_test(text) else {
        assert!(!expect, "{text:?}");
        return;
    };
    assert!(expect, "{text:?}");
    assert_eq!(code.expose().replace('-', ""), plain);
    let again = recovery::normalise(code.expose()).expect("the written form is read");
    assert_eq!(again.expose(), code.expose());
    assert_eq!(recovery::digest(&again), recovery::digest(&code));
}

fn under_test(text: &str) -> Option<Secret> {
    // The planted bug: a `u` is taken for a `v`.
    #[cfg(feature = "planted")]
    return recovery::normalise(&text.replace('u', "v"));
    #[cfg(not(feature = "planted"))]
    recovery::normalise(text)
}
