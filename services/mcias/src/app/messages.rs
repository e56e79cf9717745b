//! Messages: of what is stored and decided, and what they say in the domain's terms.

use std::sync::Arc;

use mc_api::mcias as api;
use mcdsl::audit::Event;
use mcdsl::identity::Identity;
use mcdsl::problem::Problem;

use crate::domain::token::{BadToken, Claims};
use crate::domain::{AccountType, InvalidName, Name, Role, Roles};
use crate::store::accounts::{Counts, Deleted, Stored};
use crate::store::factors::StoredPasskey;
use crate::store::tokens::StoredToken;

/// A valid token.
#[derive(Debug)]
pub(super) struct Valid {
    pub(super) claims: Claims,
    pub(super) identity: Arc<Identity>,
}

pub(super) const fn reason_of(error: BadToken) -> &'static str {
    match error {
        BadToken::Malformed => "malformed",
        BadToken::WrongAlgorithm => "wrong-algorithm",
        BadToken::UnknownKey => "unknown-key",
        BadToken::BadSignature => "bad-signature",
        BadToken::WrongIssuer => "wrong-issuer",
        BadToken::WrongAudience => "wrong-audience",
        BadToken::Expired => "expired",
        BadToken::NotYet => "not-yet-valid",
        BadToken::WrongType => "wrong-type",
    }
}

pub(super) fn introspection(valid: &Valid) -> api::Introspection {
    let Valid { claims, identity } = valid;
    api::Introspection {
        active: true,
        sub: Some(identity.account_id.clone()),
        account_type: Some(identity.account.account_type().as_str().to_owned()),
        roles: roles_of(identity.account.roles()),
        tags: identity.tags.iter().map(ToString::to_string).collect(),
        jti: Some(claims.jti.clone()),
        iss: Some(claims.iss.clone()),
        aud: claims.aud.clone(),
        iat: Some(claims.iat),
        nbf: Some(claims.nbf),
        exp: Some(claims.exp),
        username: Some(identity.account.name().to_string()),
        token_type: Some("Bearer".to_owned()),
    }
}

pub(super) fn roles_of(roles: Roles) -> Vec<String> {
    roles.words().map(str::to_owned).collect()
}

/// Words as roles.
pub(super) fn roles(field: &str, words: &[String]) -> Result<Vec<Role>, Problem> {
    each(field, words, str::parse)
}

fn each<T, E: std::fmt::Display, C: FromIterator<T>>(
    field: &str,
    words: &[String],
    read: impl Fn(&str) -> Result<T, E>,
) -> Result<C, Problem> {
    let read = |(index, word): (usize, &String)| {
        read(word).map_err(|error| Problem::field(format!("{field}[{index}]"), error.to_string()))
    };
    if words.len() > MAX_WORDS {
        return Err(Problem::field(
            field,
            format!("has {} entries; expected at most {MAX_WORDS}", words.len()),
        ));
    }
    words.iter().enumerate().map(read).collect()
}

/// Roles, tags or services of one account or token.
const MAX_WORDS: usize = 64;

/// Words as names.
pub(super) fn names<C: FromIterator<Name>>(field: &str, words: &[String]) -> Result<C, Problem> {
    each::<_, InvalidName, _>(field, words, Name::parse)
}

/// A word as an account type.
pub(super) fn account_type(field: &str, word: &str) -> Result<AccountType, Problem> {
    word.parse().map_err(|error: mcdsl::identity::UnknownWord| Problem::field(field, error.to_string()))
}

pub(super) fn account(stored: &Stored, counts: Counts) -> api::Account {
    api::Account {
        name: stored.account.name().to_string(),
        account_type: stored.account.account_type().as_str().to_owned(),
        roles: roles_of(stored.account.roles()),
        tags: stored.tags.iter().map(ToString::to_string).collect(),
        enabled: stored.enabled,
        created_at: stored.created_at,
        service: stored.service.as_ref().map(ToString::to_string),
        has_password: stored.password.is_some(),
        has_totp: stored.has_totp,
        passkeys: counts.passkeys,
        recovery_codes: counts.recovery_codes,
        last_login_at: stored.last_login_at,
        revision: stored.revision,
        id: stored.uuid.to_string(),
    }
}

pub(super) fn deleted_account(deleted: Deleted) -> api::DeletedAccount {
    let account_type = if deleted.system { AccountType::System } else { AccountType::Human };
    api::DeletedAccount {
        name: deleted.name.to_string(),
        id: deleted.uuid.to_string(),
        account_type: account_type.as_str().to_owned(),
        deleted_at: deleted.deleted_at,
    }
}

pub(super) fn session(stored: StoredToken, current: &str) -> api::Session {
    api::Session {
        current: stored.id == current,
        id: stored.id,
        audience: stored.audience,
        service: stored.label,
        created_at: stored.created_at,
        expires_at: stored.expires_at,
        last_used_at: stored.last_used_at,
        source: stored.source,
        method: stored.origin,
        device: stored.device,
    }
}

pub(super) fn token(stored: StoredToken) -> api::Token {
    api::Token {
        id: stored.id,
        label: stored.label,
        audience: stored.audience,
        created_at: stored.created_at,
        expires_at: stored.expires_at,
        last_used_at: stored.last_used_at,
        revoked_at: stored.revoked_at,
        issued_by: stored.origin,
    }
}

pub(super) fn passkey(stored: StoredPasskey) -> api::Passkey {
    api::Passkey {
        id: stored.id,
        label: stored.label,
        created_at: stored.created_at,
        last_used_at: stored.last_used_at,
    }
}

/// How much was changed. Where nothing was, there is no audit entry.
pub(super) fn changed(event: &mut Event, number: usize) -> api::Changed {
    if number == 0 {
        event.unchanged();
    }
    count(number)
}

pub(super) fn count(number: usize) -> api::Changed {
    api::Changed { changed: u32::try_from(number).unwrap_or(u32::MAX) }
}

/// A label that people choose: 1 to 80 characters, none of which moves a cursor.
pub(super) fn label(field: &str, text: &str) -> Result<String, Problem> {
    let text = text.trim();
    let count = text.chars().count();
    if !(1..=80).contains(&count) {
        return Err(Problem::field(field, format!("has {count} characters; expected 1 to 80")));
    }
    if let Some(odd) = text.chars().find(|c| c.is_control() || is_invisible(*c)) {
        return Err(Problem::field(
            field,
            format!("contains U+{:04X}, which cannot be seen", u32::from(odd)),
        ));
    }
    Ok(text.to_owned())
}

/// Characters that change how others are shown, or that nobody sees (Unicode, general category Cf; line and paragraph separators). The joiners within
/// emoji and scripts (U+200C, U+200D) are none of them.
const fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// The size of a page.
pub(super) fn limit(given: Option<u32>) -> Result<u32, Problem> {
    match given.unwrap_or(100) {
        limit @ 1..=1000 => Ok(limit),
        other => Err(Problem::field("limit", format!("{other} is out of range; expected 1 to 1000"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_shows_what_it_is() {
        for good in ["laptop", "Ada's phone", "Schlüssel", "键", "👩\u{200d}🚀"] {
            assert_eq!(label("label", good).unwrap(), good);
        }
        for bad in [
            "",
            "  ",
            "a\u{202e}b",
            "a\u{2066}b",
            "a\u{200b}b",
            "a\nb",
            "\u{1b}[2J",
            "a\u{feff}",
            &"x".repeat(81),
        ] {
            assert!(label("label", bad).is_err(), "{bad:?}");
        }
    }
}
