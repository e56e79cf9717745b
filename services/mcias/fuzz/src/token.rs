//! Tokens from strangers: only what was signed is taken, and of that only what says what it should.
//!
//! Input: a byte, then text. Bit 0 clear: a token. No fuzzer can sign, so only the seed itself may be taken. Bit 0 set:
//! a header and a payload with a line feed between them, which are signed here, as if the key were the attacker's.

use std::sync::LazyLock;

use aws_lc_rs::signature::Ed25519KeyPair;
use data_encoding::BASE64URL_NOPAD;
use mcias::domain::token::{BadToken, Claims, Expect, KeyRing, SigningKey};
use serde_json::Value;

/// When tokens are looked at.
pub const NOW: i64 = 1_790_000_000;

/// Whose tokens they are.
pub const ISSUER: &str = "https://mcias.example.org";

/// The key of RFC 8037, appendix A, in the PKCS#8 of RFC 8410, so that seeds stay good.
const KEY: &str =
    "302e020100300506032b6570042204209d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";

static RING: LazyLock<KeyRing> = LazyLock::new(|| {
    let der = data_encoding::HEXLOWER.decode(KEY.as_bytes()).expect("it is hex");
    KeyRing::new(vec![SigningKey::from_pkcs8(&der, 0, 0).expect("it is a key")])
});

/// The one token that is good.
pub static GOOD: LazyLock<String> = LazyLock::new(|| RING.sign(&claims()).expose().to_owned());

/// What the good one says.
#[must_use]
pub fn claims() -> Claims {
    Claims {
        iss: ISSUER.into(),
        sub: "ada".into(),
        preferred_username: None,
        aud: vec!["mcr".into()],
        client_id: "mciasctl".into(),
        iat: NOW,
        nbf: NOW,
        exp: NOW + 900,
        jti: "1".into(),
    }
}

/// The header that is good.
#[must_use]
pub fn header() -> String {
    format!(r#"{{"typ":"at+jwt","alg":"EdDSA","kid":"{}"}}"#, RING.keys()[0].kid)
}

/// Checks one input.
pub fn check(input: &[u8]) {
    let Some((&mode, text)) = input.split_first() else { return };
    let Ok(text) = str::from_utf8(text) else { return };
    if mode & 1 == 0 {
        let taken = under_test(text).is_ok();
        assert!(!taken || text == *GOOD, "{text:?}");
    } else if let Some((header, payload)) = text.split_once('\n') {
        check_signed(header, payload);
    }
}

fn check_signed(header: &str, payload: &str) {
    let [first, second] = [header, payload].map(|part| BASE64URL_NOPAD.encode(part.as_bytes()));
    let message = format!("{first}.{second}");
    let key = &RING.keys()[0];
    let pair = Ed25519KeyPair::from_pkcs8(key.pkcs8()).expect("it was read before");
    let token = format!("{message}.{}", BASE64URL_NOPAD.encode(pair.sign(message.as_bytes()).as_ref()));
    let Ok(claims) = under_test(&token) else { return };
    assert!(token.len() <= 4096);
    let header: Value = serde_json::from_str(header).expect("what is taken is JSON");
    let says = serde_json::json!({"typ": "at+jwt", "alg": "EdDSA", "kid": key.kid});
    assert_eq!(header, says);
    let payload: Value = serde_json::from_str(payload).expect("what is taken is JSON");
    assert_eq!(payload["iss"], ISSUER);
    assert!(
        payload["aud"] == "mcr" || payload["aud"].as_array().is_some_and(|all| all.contains(&"mcr".into()))
    );
    assert!(payload["exp"].as_i64().is_some_and(|exp| exp > NOW && exp == claims.exp));
    assert!(payload["nbf"].as_i64().is_some_and(|nbf| nbf <= NOW + 60 && nbf == claims.nbf));
    assert_eq!(payload["sub"], claims.sub);
    assert_eq!(payload["jti"], claims.jti);
}

fn under_test(token: &str) -> Result<Claims, BadToken> {
    let expect = Expect { issuers: &[ISSUER], audience: Some(&["mcr"]) };
    // The planted bug: tokens do not expire.
    #[cfg(feature = "planted")]
    return match RING.verify(token, &expect, NOW) {
        Err(BadToken::Expired) => RING.verify(token, &expect, i64::MIN + 61).or(Ok(claims())),
        found => found,
    };
    #[cfg(not(feature = "planted"))]
    RING.verify(token, &expect, NOW)
}
