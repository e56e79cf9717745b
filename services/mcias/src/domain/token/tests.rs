//! Tokens: the ways in which JWTs were confused before, each with the error that it must have, and any change of any
//! bit.

use std::sync::LazyLock;

use aws_lc_rs::hmac;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const NOW: i64 = 1_790_000_000;

const ISSUER: &str = "https://mcias.example.org";

/// The first one signs; the second one signs from an hour later on.
static RING: LazyLock<KeyRing> = LazyLock::new(|| {
    KeyRing::new(vec![SigningKey::generate(NOW, NOW + 3600), SigningKey::generate(NOW - 10, NOW - 10)])
});

fn expect() -> Expect<'static> {
    Expect { issuers: &[ISSUER], audience: Some(&["mcr", "mcp"]) }
}

fn claims() -> Claims {
    Claims {
        iss: ISSUER.into(),
        sub: "0b6c7bb7-3f0a-4a3e-9a0e-5f1d5c2f9d11".into(),
        preferred_username: Some("ada".into()),
        aud: vec!["mcdoc".into(), "mcr".into()],
        client_id: "mciasctl".into(),
        iat: NOW,
        nbf: NOW,
        exp: NOW + 900,
        jti: "01890a5d".into(),
    }
}

fn ours() -> Value {
    json!({"typ": "at+jwt", "alg": "EdDSA", "kid": RING.keys()[0].kid})
}

/// With a field set, or taken out where it is null.
fn with(mut object: Value, field: &str, value: Value) -> Value {
    let fields = object.as_object_mut().unwrap();
    if value.is_null() {
        fields.remove(field).unwrap();
    } else {
        fields.insert(field.into(), value);
    }
    object
}

fn payload(field: &str, value: Value) -> String {
    with(json!(claims()), field, value).to_string()
}

fn part(text: &str) -> String {
    BASE64URL_NOPAD.encode(text.as_bytes())
}

/// A token of any header and payload, signed by one of the keys.
fn signed_by(key: &SigningKey, header: &str, payload: &str) -> String {
    let message = format!("{}.{}", part(header), part(payload));
    let pair = Ed25519KeyPair::from_pkcs8(key.pkcs8()).unwrap();
    format!("{message}.{}", BASE64URL_NOPAD.encode(pair.sign(message.as_bytes()).as_ref()))
}

fn signed(header: &Value, payload: &str) -> String {
    signed_by(&RING.keys()[0], &header.to_string(), payload)
}

#[track_caller]
fn refused(token: &str, why: BadToken) {
    assert_eq!(RING.verify(token, &expect(), NOW), Err(why), "{token}");
}

#[test]
fn what_is_signed_is_read() {
    let token = RING.sign(&claims());
    assert_eq!(RING.verify(token.expose(), &expect(), NOW), Ok(claims()));
    assert_eq!(RING.verify(&signed(&ours(), &json!(claims()).to_string()), &expect(), NOW), Ok(claims()));
    let parts: Vec<&str> = token.expose().split('.').collect();
    let decode = |part: &str| {
        serde_json::from_slice::<Value>(&BASE64URL_NOPAD.decode(part.as_bytes()).unwrap()).unwrap()
    };
    assert_eq!(decode(parts[0]), ours());
    assert_eq!(decode(parts[1])["aud"], json!(["mcdoc", "mcr"]));
    let one = Claims { aud: vec!["mcr".into()], ..claims() };
    assert_eq!(
        decode(RING.sign(&one).expose().split('.').nth(1).unwrap())["aud"],
        json!(["mcr"]),
        "one audience is written as an array too"
    );
}

#[test]
fn keys_take_turns() {
    let [first, second] = RING.keys() else { panic!() };
    let check = |now, key: &SigningKey| assert_eq!(RING.signer(now).kid, key.kid, "{now}");
    check(NOW - 100, first);
    check(NOW, first);
    check(NOW + 3599, first);
    check(NOW + 3600, second);
    // Both are taken at any time.
    let later = Claims { iat: NOW + 3600, nbf: NOW + 3600, exp: NOW + 4500, ..claims() };
    assert_eq!(RING.verify(RING.sign(&later).expose(), &expect(), NOW + 3600), Ok(later));
    let early = RING.sign(&Claims { exp: NOW + 9000, ..claims() });
    assert!(RING.verify(early.expose(), &expect(), NOW + 3700).is_ok());
}

#[test]
fn a_key_is_written_and_named_as_the_rfcs_have_it() {
    // RFC 8037, appendix A.1 and A.3. The DER is that of RFC 8410, section 7.
    let seed = BASE64URL_NOPAD.decode(b"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A").unwrap();
    let prefix = data_encoding::HEXLOWER.decode(b"302e020100300506032b657004220420").unwrap();
    let key = SigningKey::from_pkcs8(&[prefix, seed].concat(), 1, 2).unwrap();
    assert_eq!(key.public_jwk_x(), "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo");
    assert_eq!(key.kid, "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    let made = SigningKey::generate(1, 2);
    let read = SigningKey::from_pkcs8(made.pkcs8(), 1, 2).unwrap();
    assert_eq!((read.kid, read.public), (made.kid.clone(), made.public()));
    assert_eq!(SigningKey::from_pkcs8(&made.pkcs8()[1..], 1, 2).unwrap_err(), BadKey);
    let shown = format!("{made:?} {:?}", KeyRing::new(vec![made.clone()]));
    assert!(shown.contains(&made.kid) && !shown.contains("pkcs8"), "{shown}");
}

#[test]
fn the_algorithm_is_not_the_token_s_choice() {
    let message = |alg: &str| {
        format!(
            "{}.{}",
            part(&with(ours(), "alg", json!(alg)).to_string()),
            part(&json!(claims()).to_string())
        )
    };
    for alg in ["none", "None", "NONE", "eddsa", "EDDSA", "Ed25519", "HS256", "RS256", "ES256", "PS512", ""] {
        let unsigned = message(alg);
        let ours = signed(&with(ours(), "alg", json!(alg)), &json!(claims()).to_string());
        for token in [ours.clone(), format!("{unsigned}.AAAA")] {
            refused(&token, BadToken::WrongAlgorithm);
        }
        refused(&format!("{unsigned}."), BadToken::Malformed);
    }
    // The public key is no secret.
    let public = RING.keys()[0].public();
    let x = RING.keys()[0].public_jwk_x();
    for secret in [&public[..], x.as_bytes()] {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message("HS256").as_bytes());
        let tag = BASE64URL_NOPAD.encode(tag.as_ref());
        refused(&format!("{}.{tag}", message("HS256")), BadToken::WrongAlgorithm);
        refused(&format!("{}.{tag}", message("EdDSA")), BadToken::BadSignature);
    }
    refused(&signed(&with(ours(), "alg", Value::Null), &json!(claims()).to_string()), BadToken::Malformed);
    refused(
        &signed(&with(ours(), "alg", json!(["EdDSA"])), &json!(claims()).to_string()),
        BadToken::Malformed,
    );
}

#[test]
fn the_key_is_not_the_token_s_choice() {
    let good = json!(claims()).to_string();
    let [first, second] = RING.keys() else { panic!() };
    let kid = |kid: Value| with(ours(), "kid", kid);
    for odd in [
        String::new(),
        SigningKey::generate(0, 0).kid,
        format!("../{}", first.kid),
        format!("{}\0", first.kid),
        format!(" {}", first.kid),
        first.kid.to_lowercase(),
        first.kid[..42].to_owned(),
        "/dev/null".to_owned(),
        "' OR '1'='1".to_owned(),
    ] {
        refused(&signed(&kid(json!(odd)), &good), BadToken::UnknownKey);
    }
    refused(&signed(&kid(Value::Null), &good), BadToken::UnknownKey);
    refused(&signed(&kid(json!(0)), &good), BadToken::Malformed);
    refused(&signed(&kid(json!([first.kid])), &good), BadToken::Malformed);
    refused(&signed_by(second, &ours().to_string(), &good), BadToken::BadSignature);
    refused(&signed(&kid(json!(second.kid)), &good), BadToken::BadSignature);
    // A key, or where to fetch one, in the token itself.
    let mine = SigningKey::generate(0, 0);
    let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": mine.public_jwk_x()});
    for (field, value) in [
        ("jwk", jwk),
        ("jku", json!("https://mallory.example.org/jwks")),
        ("x5u", json!("https://mallory.example.org/cert")),
        ("x5c", json!(["AAAA"])),
        ("crit", json!(["exp"])),
        ("crit", json!([])),
        ("b64", json!(false)),
        ("zip", json!("DEF")),
        ("cty", json!("JWT")),
    ] {
        let header = with(ours(), field, value);
        refused(&signed_by(&mine, &header.to_string(), &good), BadToken::Malformed);
        refused(&signed(&header, &good), BadToken::Malformed);
    }
}

#[test]
fn the_type_is_that_of_an_access_token() {
    for odd in [Value::Null, json!("JWT"), json!("AT+JWT"), json!("id+jwt"), json!("at+jwt "), json!("")] {
        refused(&signed(&with(ours(), "typ", odd), &json!(claims()).to_string()), BadToken::WrongType);
    }
    refused(&signed(&with(ours(), "typ", json!(1)), &json!(claims()).to_string()), BadToken::Malformed);
}

#[test]
fn claims_are_all_there_and_as_expected() {
    let read = |field: &str, value: Value| {
        RING.verify(&signed(&ours(), &payload(field, value)), &expect(), NOW).map(|_| ())
    };
    let check =
        |field, value: Value, expect| assert_eq!(read(field, value.clone()), expect, "{field} {value}");
    use BadToken::{Expired, Malformed, NotYet, WrongAudience, WrongIssuer};
    for field in ["iss", "sub", "aud", "client_id", "iat", "nbf", "exp", "jti"] {
        check(field, Value::Null, Err(Malformed));
        check(field, json!({}), Err(Malformed));
    }
    check("aud", json!(["mcr"]), Ok(()));
    check("aud", json!("mcp"), Ok(()));
    check("aud", json!("mcdoc"), Err(WrongAudience));
    check("aud", json!(["mcdoc", "MCR", "mcr ", "mcr,mcp"]), Err(WrongAudience));
    check("aud", json!([]), Err(WrongAudience));
    check("aud", json!(""), Err(WrongAudience));
    check("aud", json!(["mcr", 1]), Err(Malformed));
    check("iss", json!("https://mcias.example.org/"), Err(WrongIssuer));
    check("iss", json!("https://mallory.example.org"), Err(WrongIssuer));
    check("iss", json!([ISSUER]), Err(Malformed));
    check("exp", json!(NOW + 1), Ok(()));
    check("exp", json!(NOW), Err(Expired));
    check("exp", json!(NOW - 1), Err(Expired));
    check("exp", json!(-1), Err(Expired));
    check("exp", json!(i64::MIN), Err(Expired));
    check("exp", json!(i64::MAX), Ok(()));
    check("exp", json!(u64::MAX), Err(Malformed));
    check("exp", json!(1e300), Err(Malformed));
    check("exp", json!(1_790_000_900.5), Err(Malformed));
    check("exp", json!("1790000900"), Err(Malformed));
    for field in ["nbf", "iat"] {
        check(field, json!(NOW + 60), Ok(()));
        check(field, json!(NOW + 61), Err(NotYet));
        check(field, json!(i64::MAX), Err(NotYet));
        check(field, json!(i64::MIN), Ok(()));
    }
    // What a later version may add is ignored (RFC 7519, section 4).
    check("roles", json!(["admin"]), Ok(()));
    let nobody = Expect { issuers: &[ISSUER], audience: Some(&[]) };
    let token = signed(&ours(), &json!(claims()).to_string());
    assert_eq!(RING.verify(&token, &nobody, NOW), Err(WrongAudience));
    assert!(RING.verify(&token, &Expect { audience: None, ..nobody }, NOW).is_ok());
    assert_eq!(RING.verify(&token, &expect(), i64::MAX), Err(Expired));
    assert_eq!(RING.verify(&token, &expect(), i64::MIN), Err(NotYet));
}

#[test]
fn nothing_is_said_twice() {
    let key = &RING.keys()[0];
    let good = json!(claims()).to_string();
    for (field, value) in [("alg", "none"), ("alg", "EdDSA"), ("kid", "x"), ("typ", "at+jwt")] {
        let header = ours().to_string().replacen('{', &format!(r#"{{"{field}":"{value}","#), 1);
        refused(&signed_by(key, &header, &good), BadToken::Malformed);
    }
    for (field, value) in [("sub", r#""root""#), ("exp", "9999999999"), ("aud", r#""mcr""#), ("iss", "\"\"")]
    {
        let doubled = good.replacen('{', &format!(r#"{{"{field}":{value},"#), 1);
        refused(&signed(&ours(), &doubled), BadToken::Malformed);
        let doubled = format!(r#"{},"{field}":{value}}}"#, &good[..good.len() - 1]);
        refused(&signed(&ours(), &doubled), BadToken::Malformed);
    }
}

#[test]
fn the_form_is_the_one_we_write() {
    let token = RING.sign(&claims());
    let token = token.expose();
    let parts: Vec<&str> = token.split('.').collect();
    let [header, payload, signature] = *parts else { panic!() };
    for odd in [
        String::new(),
        ".".into(),
        "..".into(),
        "...".into(),
        format!("{header}.{payload}"),
        format!("{header}.{payload}."),
        format!("{header}..{signature}"),
        format!(".{payload}.{signature}"),
        format!("{token}."),
        format!(".{token}"),
        format!("{token}.{signature}"),
        format!("{header}.{header}.{payload}.{signature}"),
        format!("{token}="),
        format!("{token}=="),
        format!("{header}=.{payload}.{signature}"),
        format!(" {token}"),
        format!("{token}\n"),
        format!("{header}.{payload}.{}", &signature[..signature.len() - 1]),
        format!("{header}.{payload}.\u{e9}"),
        token.replace('.', "\u{ff0e}"),
        format!("{}.{payload}.{signature}", part("[]")),
        format!("{}.{payload}.{signature}", part("null")),
        format!("{}.{payload}.{signature}", part(&"[".repeat(2000))),
    ] {
        refused(&odd, BadToken::Malformed);
    }
    // serde reads an array as a struct too.
    let array = json!(["EdDSA", "at+jwt", RING.keys()[0].kid]);
    refused(&signed(&array, &json!(claims()).to_string()), BadToken::Malformed);
    let Claims { iss, sub, preferred_username, aud, client_id, iat, nbf, exp, jti } = claims();
    let array = json!([iss, sub, preferred_username, aud, client_id, iat, nbf, exp, jti]);
    refused(&signed(&ours(), &array.to_string()), BadToken::Malformed);
    refused(&signed(&ours(), "null"), BadToken::Malformed);
    refused(&signed(&ours(), "[]"), BadToken::Malformed);
    refused(&signed(&ours(), &"[".repeat(2000)), BadToken::Malformed);
    refused(&signed(&ours(), "\u{0}"), BadToken::Malformed);
    refused(&format!("{header}.{payload}.{}", &signature[..40]), BadToken::BadSignature);
    refused(&format!("{header}.{payload}.{}", "A".repeat(86)), BadToken::BadSignature);
}

#[test]
fn a_token_has_at_most_4096_bytes() {
    let of = |bytes: usize| {
        let sub = "x".repeat(bytes);
        RING.sign(&Claims { sub, ..claims() }).expose().to_owned()
    };
    let room = (1..4096).rev().find(|n| of(*n).len() <= 4096).unwrap();
    assert!(RING.verify(&of(room), &expect(), NOW).is_ok());
    refused(&of(room + 4), BadToken::Malformed);
}

#[test]
fn a_signature_has_one_form() {
    let token = RING.sign(&claims());
    let (message, signature) = token.expose().rsplit_once('.').unwrap();
    // 64 bytes leave four bits of the last character unused: they must be zero.
    const SYMBOLS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let last = SYMBOLS.iter().position(|symbol| *symbol == signature.as_bytes()[85]).unwrap();
    assert_eq!(last % 16, 0);
    for bits in 1..16 {
        let other = char::from(SYMBOLS[last + bits]);
        refused(&format!("{message}.{}{other}", &signature[..85]), BadToken::Malformed);
    }
    // S and S plus the order of the group are the same to a careless reader (RFC 8032, section 5.1.7).
    let order = data_encoding::HEXLOWER
        .decode(b"edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010")
        .unwrap();
    let mut bytes = BASE64URL_NOPAD.decode(signature.as_bytes()).unwrap();
    let mut carry = 0;
    for (byte, added) in bytes[32..].iter_mut().zip(order) {
        let sum = u16::from(*byte) + u16::from(added) + carry;
        *byte = sum.to_le_bytes()[0];
        carry = sum >> 8;
    }
    assert_eq!(carry, 0);
    refused(&format!("{message}.{}", BASE64URL_NOPAD.encode(&bytes)), BadToken::BadSignature);
}

#[test]
fn every_flip_of_one_bit_is_refused() {
    let token = RING.sign(&claims());
    for at in 0..token.expose().len() * 8 {
        let mut bytes = token.expose().as_bytes().to_vec();
        bytes[at / 8] ^= 1 << (at % 8);
        if let Ok(text) = String::from_utf8(bytes) {
            assert!(RING.verify(&text, &expect(), NOW).is_err(), "bit {at}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_text_is_refused(text in any::<String>()) {
        prop_assert!(RING.verify(&text, &expect(), NOW).is_err());
    }

    #[test]
    fn any_parts_are_refused(a in any::<Vec<u8>>(), b in any::<Vec<u8>>(), c in any::<Vec<u8>>(), our_header: bool) {
        let header = if our_header { ours().to_string().into_bytes() } else { a };
        let token = [header, b, c].map(|part| BASE64URL_NOPAD.encode(&part)).join(".");
        prop_assert!(RING.verify(&token, &expect(), NOW).is_err());
    }

    /// Also where the signature is good: any payload is answered, and is taken only if it says what it should.
    #[test]
    fn any_signed_payload_is_answered(bytes in any::<Vec<u8>>()) {
        let text = String::from_utf8_lossy(&bytes);
        prop_assert_eq!(RING.verify(&signed(&ours(), &text), &expect(), NOW), Err(BadToken::Malformed));
    }

    #[test]
    fn what_is_signed_is_read_back(sub in any::<String>(), aud in prop::collection::vec("[a-z]{0,5}", 0..5), iat: i32, lasts in 1_i64..100_000) {
        let iat = i64::from(iat);
        let claims = Claims { sub, aud, iat, nbf: iat, exp: iat + lasts, ..claims() };
        let any = Expect { issuers: &[ISSUER], audience: None };
        let token = RING.sign(&claims);
        prop_assert_eq!(RING.verify(token.expose(), &any, iat), Ok(claims.clone()));
        prop_assert_eq!(RING.verify(token.expose(), &any, iat + lasts - 1), Ok(claims));
        prop_assert_eq!(RING.verify(token.expose(), &any, iat + lasts), Err(BadToken::Expired));
    }
}
