//! Tokens: JWTs (RFC 7519) signed with Ed25519 (RFC 8037), of the kind for access (RFC 9068), and the keys that sign them.
//!
//! Only what MCIAS itself writes is taken: one algorithm, one type, a header of three fields, no more than 4 KiB. Most
//! attacks on JWTs (RFC 8725) live from a reader that lets the token choose: its algorithm, its key, or where to fetch the key. Here there
//! is nothing to choose. The signature, its base64 and the JSON are `jsonwebtoken`'s work.
//!
//! Left out: whether a token was revoked and what its account may do, which the caller looks up; and where keys are stored.

use std::fmt;

use aws_lc_rs::digest::{self, SHA256};
use aws_lc_rs::encoding::{AsDer, Pkcs8V2Der};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use data_encoding::BASE64URL_NOPAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use mcdsl::Secret;
use serde::{Deserialize, Deserializer, Serialize};
use zeroize::Zeroizing;

/// What a token says (RFC 9068, section 2.2). Times are in seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Who issued it: MCIAS's address.
    pub iss: String,
    /// The account's identifier.
    pub sub: String,
    /// The services that it is for. Written as an array always; a string alone is read too (RFC 7519, section 4.1.3).
    #[serde(deserialize_with = "one_or_many")]
    pub aud: Vec<String>,
    /// Who asked for it.
    pub client_id: String,
    /// When it was issued.
    pub iat: i64,
    /// When it becomes good.
    pub nbf: i64,
    /// When it is good no longer.
    pub exp: i64,
    /// Its own identifier.
    pub jti: String,
}

impl Claims {
    /// Whether neither `nbf` nor `iat` is to come, but for 60 s: our clock may have been set back since.
    #[must_use]
    pub fn has_begun(&self, now: i64) -> bool {
        self.nbf.max(self.iat) <= now.saturating_add(LEEWAY_S)
    }
}

/// A key pair that signs tokens.
#[derive(Clone)]
pub struct SigningKey {
    /// Its identifier: the thumbprint of its public part (RFC 7638).
    pub kid: String,
    pkcs8: Zeroizing<Vec<u8>>,
    public: [u8; 32],
    /// When it was made, in seconds since 1970.
    pub created_at: i64,
    /// From when on it signs: later than it was made, so that every reader knows it by then.
    pub signs_from: i64,
}

/// What is given is no Ed25519 key in PKCS#8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the signing key is no Ed25519 key in PKCS#8 (RFC 8410): restore it from a backup, or make a new one"
)]
pub struct BadKey;

/// All keys whose tokens are taken, by when they begin to sign.
#[derive(Clone, Debug)]
pub struct KeyRing(Vec<SigningKey>);

/// Whose tokens are taken, and for whom.
#[derive(Clone, Copy, Debug)]
pub struct Expect<'a> {
    /// Who must have issued it.
    pub issuer: &'a str,
    /// One of these must be in its audience. `None`: that is asked elsewhere.
    pub audience: Option<&'a [&'a str]>,
}

/// Why a token is refused. For logs and metrics: who sent it is told only that it is not good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum BadToken {
    /// It is not written as MCIAS writes them, or too long.
    #[error("it is no token of MCIAS")]
    Malformed,
    /// Its `alg` is another one than `EdDSA`.
    #[error("its algorithm is not EdDSA")]
    WrongAlgorithm,
    /// Its `kid` is missing, or that of no key here.
    #[error("its key is not known")]
    UnknownKey,
    /// Its key has not signed it.
    #[error("its signature is wrong")]
    BadSignature,
    /// Its `iss` is somebody else.
    #[error("it is of another issuer")]
    WrongIssuer,
    /// Its `aud` has none of those that were expected.
    #[error("it is for another audience")]
    WrongAudience,
    /// Its `exp` has come.
    #[error("it has expired")]
    Expired,
    /// Its `nbf` or `iat` is to come.
    #[error("it is not good yet: look at the clocks")]
    NotYet,
    /// Its `typ` is another one than `at+jwt`: it was made for something else (RFC 8725, section 3.11).
    #[error("it is no access token")]
    WrongType,
}

impl SigningKey {
    /// Makes a new one, which signs from `signs_from` on. Both times are in seconds since 1970.
    ///
    /// # Panics
    /// The system has no randomness to give.
    #[must_use]
    pub fn generate(now: i64, signs_from: i64) -> Self {
        let pair = Ed25519KeyPair::generate().expect("the system gives randomness");
        let der: Pkcs8V2Der<'_> = pair.as_der().expect("a fresh key can be written");
        Self::of(&pair, der.as_ref(), now, signs_from)
    }

    /// Reads what [`Self::pkcs8`] gave.
    ///
    /// # Errors
    /// It is no Ed25519 key in PKCS#8.
    pub fn from_pkcs8(der: &[u8], created_at: i64, signs_from: i64) -> Result<Self, BadKey> {
        let pair = Ed25519KeyPair::from_pkcs8(der).map_err(|_not_said_as_it_may_quote_the_key| BadKey)?;
        Ok(Self::of(&pair, der, created_at, signs_from))
    }

    fn of(pair: &Ed25519KeyPair, der: &[u8], created_at: i64, signs_from: i64) -> Self {
        let public: [u8; 32] = pair.public_key().as_ref().try_into().expect("Ed25519's have 32 bytes");
        let pkcs8 = Zeroizing::new(der.to_vec());
        Self { kid: thumbprint(&public), pkcs8, public, created_at, signs_from }
    }

    /// Both parts, in PKCS#8 (RFC 5958): whoever has them makes tokens.
    #[must_use]
    pub fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    /// The public part.
    #[must_use]
    pub const fn public(&self) -> [u8; 32] {
        self.public
    }

    /// The public part as a JWK's `x` (RFC 8037, section 2).
    #[must_use]
    pub fn public_jwk_x(&self) -> String {
        BASE64URL_NOPAD.encode(&self.public)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey")
            .field("kid", &self.kid)
            .field("created_at", &self.created_at)
            .field("signs_from", &self.signs_from)
            .finish_non_exhaustive()
    }
}

impl KeyRing {
    /// Takes keys in any order.
    #[must_use]
    pub fn new(mut keys: Vec<SigningKey>) -> Self {
        keys.sort_by(|a, b| (a.signs_from, a.created_at, &a.kid).cmp(&(b.signs_from, b.created_at, &b.kid)));
        Self(keys)
    }

    /// The key that signs now: the latest that has begun to, or else the oldest.
    ///
    /// # Panics
    /// There is no key.
    #[must_use]
    pub fn signer(&self, now: i64) -> &SigningKey {
        let begun = self.0.iter().rev().find(|key| key.signs_from <= now);
        begun.or_else(|| self.0.first()).expect("a ring has a key")
    }

    /// All keys, by when they begin to sign.
    #[must_use]
    pub fn keys(&self) -> &[SigningKey] {
        &self.0
    }

    /// Signs claims, with the key that signs when they were issued.
    ///
    /// # Panics
    /// There is no key.
    #[must_use]
    pub fn sign(&self, claims: &Claims) -> Secret {
        let key = self.signer(claims.iat);
        let mut header = Header::new(Algorithm::EdDSA);
        header.typ = Some(TYPE.to_owned());
        header.kid = Some(key.kid.clone());
        let token = jsonwebtoken::encode(&header, claims, &EncodingKey::from_ed_der(&key.pkcs8));
        Secret::from(token.expect("the key was read before, and claims are texts and numbers"))
    }

    /// Reads a token, if it is good now.
    ///
    /// `nbf` and `iat` may be up to 60 s to come, as our clock may have been set back since; `exp` has no such leeway.
    ///
    /// # Errors
    /// It is not good.
    pub fn verify(&self, token: &str, expect: &Expect<'_>, now: i64) -> Result<Claims, BadToken> {
        let key = self.key_of(token)?;
        let mut validation = Validation::new(Algorithm::EdDSA);
        // They read the clock. What they would have done is done below, by the time that was given.
        (validation.validate_exp, validation.validate_nbf) = (false, false);
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        let claims =
            jsonwebtoken::decode::<Claims>(token, &DecodingKey::from_ed_der(&key.public), &validation)
                .map_err(|error| match error.kind() {
                    ErrorKind::InvalidSignature => BadToken::BadSignature,
                    _ => BadToken::Malformed,
                })?
                .claims;
        let for_one_of = |audience: &[&str]| claims.aud.iter().any(|one| audience.contains(&one.as_str()));
        if claims.iss != expect.issuer {
            Err(BadToken::WrongIssuer)
        } else if expect.audience.is_some_and(|audience| !for_one_of(audience)) {
            Err(BadToken::WrongAudience)
        } else if now >= claims.exp {
            Err(BadToken::Expired)
        } else if !claims.has_begun(now) {
            Err(BadToken::NotYet)
        } else {
            Ok(claims)
        }
    }

    /// Looks at the header alone: what is not ours in form goes no further, and no signature is computed for it.
    fn key_of(&self, token: &str) -> Result<&SigningKey, BadToken> {
        if token.len() > MOST_BYTES {
            return Err(BadToken::Malformed);
        }
        let parts: Vec<&str> = token.splitn(4, '.').collect();
        let [header, payload, signature] = *parts else { return Err(BadToken::Malformed) };
        if payload.is_empty() || signature.is_empty() {
            return Err(BadToken::Malformed);
        }
        let header = BASE64URL_NOPAD.decode(header.as_bytes()).map_err(|_no_base64| BadToken::Malformed)?;
        let OurHeader { alg, typ, kid } =
            serde_json::from_slice(&header).map_err(|_not_as_we_write_it| BadToken::Malformed)?;
        if alg != "EdDSA" {
            return Err(BadToken::WrongAlgorithm);
        }
        if typ.as_deref() != Some(TYPE) {
            return Err(BadToken::WrongType);
        }
        self.0.iter().find(|key| Some(&key.kid) == kid.as_ref()).ok_or(BadToken::UnknownKey)
    }
}

/// The header that we write. RFC 7515, section 4, has readers ignore what they do not know; but no other writer is taken here,
/// and so a `jwk`, `jku`, `x5u` or `crit` is an attack.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OurHeader {
    alg: String,
    typ: Option<String>,
    kid: Option<String>,
}

/// A key's identifier: the SHA-256 of its JWK's required members, in this very form (RFC 7638, section 3; RFC 8037, appendix A.3).
fn thumbprint(public: &[u8; 32]) -> String {
    let jwk = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, BASE64URL_NOPAD.encode(public));
    BASE64URL_NOPAD.encode(digest::digest(&SHA256, jwk.as_bytes()).as_ref())
}

fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }
    Ok(match OneOrMany::deserialize(deserializer)? {
        OneOrMany::One(one) => vec![one],
        OneOrMany::Many(many) => many,
    })
}

const TYPE: &str = "at+jwt";

/// More than any token of ours has, and little enough for anybody to make us read.
const MOST_BYTES: usize = 4096;

const LEEWAY_S: i64 = 60;

#[cfg(test)]
mod tests;
