//! Tokens: JWT access tokens (RFC 7519, RFC 9068) signed with Ed25519 (RFC 8037), and the keys that sign them.
//!
//! Only what MCIAS itself writes is accepted: one algorithm, one type, a header of three fields, at most 4 KiB. Most
//! attacks on JWTs (RFC 8725) exploit a verifier that lets the token choose its algorithm, its key, or where to fetch
//! the key; here there is nothing to choose. `jsonwebtoken` handles signature, base64 and JSON.
//!
//! Left out: whether a token was revoked and what its account may do, which the caller looks up; and where keys are
//! stored.

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

/// The claims of a token (RFC 9068, section 2.2). Times are in seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// The issuer: MCIAS's public URL.
    pub iss: String,
    /// The account's identifier: a UUID. In tokens of before version 4 of the database, the account's name.
    pub sub: String,
    /// The account's name, for people to read (OpenID Connect Core 1.0, section 5.1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preferred_username: Option<String>,
    /// The services that the token is for. Always written as an array; a single string is read as well (RFC 7519, section 4.1.3).
    #[serde(deserialize_with = "one_or_many")]
    pub aud: Vec<String>,
    /// The client that requested the token.
    pub client_id: String,
    /// When the token was issued.
    pub iat: i64,
    /// When the token becomes valid.
    pub nbf: i64,
    /// When the token expires.
    pub exp: i64,
    /// The token's identifier.
    pub jti: String,
}

impl Claims {
    /// Whether neither `nbf` nor `iat` is in the future, with a leeway of 60 s: our clock may have been set back since.
    #[must_use]
    pub fn has_begun(&self, now: i64) -> bool {
        self.nbf.max(self.iat) <= now.saturating_add(LEEWAY_S)
    }
}

/// A key pair that signs tokens.
#[derive(Clone)]
pub struct SigningKey {
    /// The identifier: the thumbprint of the public key (RFC 7638).
    pub kid: String,
    pkcs8: Zeroizing<Vec<u8>>,
    public: [u8; 32],
    /// When the key was created, in seconds since 1970.
    pub created_at: i64,
    /// From when on the key signs: later than its creation, so that every verifier has fetched it by then.
    pub active_from: i64,
}

/// The bytes are not an Ed25519 key in PKCS#8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the signing key is not an Ed25519 key in PKCS#8 (RFC 8410); restore it from a backup, or create a new one"
)]
pub struct BadKey;

/// All keys whose tokens are accepted, in the order in which they begin to sign.
#[derive(Clone, Debug)]
pub struct KeyRing(Vec<SigningKey>);

/// Which tokens are accepted.
#[derive(Clone, Copy, Debug)]
pub struct Expect<'a> {
    /// The issuer must be one of these.
    pub issuers: &'a [&'a str],
    /// The audience must contain one of these. `None`: the caller checks the audience.
    pub audience: Option<&'a [&'a str]>,
}

/// Why a token is invalid. For logs and metrics: the client learns only that it is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum BadToken {
    /// It is not in the form in which MCIAS writes tokens, or too long.
    #[error("it is not a token of MCIAS")]
    Malformed,
    /// `alg` is not `EdDSA`.
    #[error("its algorithm is not EdDSA")]
    WrongAlgorithm,
    /// `kid` is missing or unknown.
    #[error("its key is unknown")]
    UnknownKey,
    /// The key did not sign it.
    #[error("its signature is wrong")]
    BadSignature,
    /// `iss` is another issuer.
    #[error("it is from another issuer")]
    WrongIssuer,
    /// `aud` contains none of the expected services.
    #[error("it is for another audience")]
    WrongAudience,
    /// `exp` has passed.
    #[error("it has expired")]
    Expired,
    /// `nbf` or `iat` is in the future.
    #[error("it is not valid yet: check the clocks")]
    NotYet,
    /// `typ` is not `at+jwt`: it was made for another purpose (RFC 8725, section 3.11).
    #[error("it is not an access token")]
    WrongType,
}

impl SigningKey {
    /// Generates a key that signs from `active_from` on. Both times are in seconds since 1970.
    ///
    /// # Panics
    /// The system provides no randomness.
    #[must_use]
    pub fn generate(now: i64, active_from: i64) -> Self {
        let pair = Ed25519KeyPair::generate().expect("the system provides randomness");
        let der: Pkcs8V2Der<'_> = pair.as_der().expect("a fresh key can be written");
        Self::of(&pair, der.as_ref(), now, active_from)
    }

    /// Restores a key from [`Self::pkcs8`].
    ///
    /// # Errors
    /// The bytes are not an Ed25519 key in PKCS#8.
    pub fn from_pkcs8(der: &[u8], created_at: i64, active_from: i64) -> Result<Self, BadKey> {
        // The cause may quote the key.
        let pair = Ed25519KeyPair::from_pkcs8(der).map_err(|_error| BadKey)?;
        Ok(Self::of(&pair, der, created_at, active_from))
    }

    fn of(pair: &Ed25519KeyPair, der: &[u8], created_at: i64, active_from: i64) -> Self {
        let public: [u8; 32] =
            pair.public_key().as_ref().try_into().expect("an Ed25519 public key has 32 bytes");
        let pkcs8 = Zeroizing::new(der.to_vec());
        Self { kid: thumbprint(&public), pkcs8, public, created_at, active_from }
    }

    /// The key pair in PKCS#8 (RFC 5958), with which anybody can make tokens.
    #[must_use]
    pub fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    /// The public key.
    #[must_use]
    pub const fn public(&self) -> [u8; 32] {
        self.public
    }

    /// The public key as `x` of a JWK (RFC 8037, section 2).
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
            .field("active_from", &self.active_from)
            .finish_non_exhaustive()
    }
}

impl KeyRing {
    /// Makes a ring of keys in any order.
    #[must_use]
    pub fn new(mut keys: Vec<SigningKey>) -> Self {
        keys.sort_by(|a, b| {
            (a.active_from, a.created_at, &a.kid).cmp(&(b.active_from, b.created_at, &b.kid))
        });
        Self(keys)
    }

    /// The key that signs now: the latest active one, or else the oldest.
    ///
    /// # Panics
    /// There is no key.
    #[must_use]
    pub fn signer(&self, now: i64) -> &SigningKey {
        let begun = self.0.iter().rev().find(|key| key.active_from <= now);
        begun.or_else(|| self.0.first()).expect("a ring has a key")
    }

    /// All keys, in the order in which they begin to sign.
    #[must_use]
    pub fn keys(&self) -> &[SigningKey] {
        &self.0
    }

    /// Signs claims with the key that is active at the time of issue.
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
        Secret::from(token.expect("the key was parsed before, and claims are texts and numbers"))
    }

    /// Verifies a token and returns its claims.
    ///
    /// `nbf` and `iat` have a leeway of 60 s, as our clock may have been set back since; `exp` has none.
    ///
    /// # Errors
    /// The token is invalid.
    pub fn verify(&self, token: &str, expect: &Expect<'_>, now: i64) -> Result<Claims, BadToken> {
        let key = self.key_of(token)?;
        let mut validation = Validation::new(Algorithm::EdDSA);
        // `jsonwebtoken` would read the clock: times are checked below, against `now`.
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
        if !expect.issuers.contains(&claims.iss.as_str()) {
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

    /// Finds the key by the header alone: no signature is computed for a token that is not in MCIAS's form.
    fn key_of(&self, token: &str) -> Result<&SigningKey, BadToken> {
        if token.len() > MAX_BYTES {
            return Err(BadToken::Malformed);
        }
        let parts: Vec<&str> = token.splitn(4, '.').collect();
        let [header, payload, signature] = *parts else { return Err(BadToken::Malformed) };
        if payload.is_empty() || signature.is_empty() {
            return Err(BadToken::Malformed);
        }
        let header = BASE64URL_NOPAD.decode(header.as_bytes()).map_err(|_error| BadToken::Malformed)?;
        let OurHeader { alg, typ, kid } =
            serde_json::from_slice(&header).map_err(|_error| BadToken::Malformed)?;
        if alg != "EdDSA" {
            return Err(BadToken::WrongAlgorithm);
        }
        if typ.as_deref() != Some(TYPE) {
            return Err(BadToken::WrongType);
        }
        self.0.iter().find(|key| Some(&key.kid) == kid.as_ref()).ok_or(BadToken::UnknownKey)
    }
}

/// The header that MCIAS writes. RFC 7515, section 4, lets readers ignore unknown fields; but no other issuer is accepted here, so a `jwk`,
/// `jku`, `x5u` or `crit` is an attack.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OurHeader {
    alg: String,
    typ: Option<String>,
    kid: Option<String>,
}

/// A key's identifier: the SHA-256 of its JWK's required members in exactly this form (RFC 7638, section 3; RFC 8037, appendix A.3).
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

/// More than any token of MCIAS has, and few enough to read from an unauthenticated client.
const MAX_BYTES: usize = 4096;

const LEEWAY_S: i64 = 60;

#[cfg(test)]
mod tests;
