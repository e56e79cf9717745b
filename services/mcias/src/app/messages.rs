//! What is decided and stored, as messages.

use mc_api::mcias as api;
use mcdsl::problem::Problem;

use super::{Bearer, named};
use crate::domain::policy::{AccountType, Effect, Rule};
use crate::domain::token::BadToken;
use crate::domain::{Account, Role, Roles};
use crate::store::accounts::{Counts, Stored};
use crate::store::factors::StoredPasskey;
use crate::store::tokens::StoredToken;

pub(super) const fn word_of(error: BadToken) -> &'static str {
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

pub(super) fn introspection(bearer: &Bearer) -> api::Introspection {
    let claims = &bearer.claims;
    api::Introspection {
        active: true,
        sub: Some(claims.sub.clone()),
        account_type: Some(type_of(&bearer.account).to_owned()),
        roles: roles_of(bearer.account.roles()),
        tags: bearer.tags.iter().map(ToString::to_string).collect(),
        jti: Some(claims.jti.clone()),
        iss: Some(claims.iss.clone()),
        aud: claims.aud.clone(),
        iat: Some(claims.iat),
        nbf: Some(claims.nbf),
        exp: Some(claims.exp),
        username: Some(claims.sub.clone()),
        token_type: Some("Bearer".to_owned()),
    }
}

pub(super) fn inactive() -> api::Introspection {
    api::Introspection::default()
}

pub(super) const fn type_of(account: &Account) -> &'static str {
    match account {
        Account::Human { .. } => "human",
        Account::System { .. } => "system",
    }
}

const ROLES: [(Role, &str); 3] = [(Role::Admin, "admin"), (Role::User, "user"), (Role::Guest, "guest")];

pub(super) fn roles_of(roles: Roles) -> Vec<String> {
    ROLES.iter().filter(|(role, _)| roles.has(*role)).map(|(_, word)| (*word).to_owned()).collect()
}

/// Words as roles.
pub(super) fn roles(field: &str, words: &[String]) -> Result<Vec<Role>, Problem> {
    let read = |(index, word): (usize, &String)| {
        let known = ROLES.iter().find(|(_, known)| known == word).map(|(role, _)| *role);
        let wrong = || format!("`{word}` is no role: `admin`, `user` and `guest` are");
        known.ok_or_else(|| Problem::field(format!("{field}[{index}]"), wrong()))
    };
    words.iter().enumerate().map(read).collect()
}

/// Words as names, in a field that lists them.
pub(super) fn names<C: FromIterator<crate::domain::Name>>(
    field: &str,
    words: &[String],
) -> Result<C, Problem> {
    let read = |(index, word): (usize, &String)| {
        let wrong =
            |error: crate::domain::BadName| Problem::field(format!("{field}[{index}]"), error.to_string());
        crate::domain::Name::parse(word).map_err(wrong)
    };
    words.iter().enumerate().map(read).collect()
}

/// A word as a type of accounts.
pub(super) fn account_type(field: &str, word: &str) -> Result<AccountType, Problem> {
    match word {
        "human" => Ok(AccountType::Human),
        "system" => Ok(AccountType::System),
        _ => Err(Problem::field(field, format!("`{word}` is no type: `human` and `system` are"))),
    }
}

fn effect(field: &str, word: &str) -> Result<Effect, Problem> {
    match word {
        "allow" => Ok(Effect::Allow),
        "deny" => Ok(Effect::Deny),
        _ => Err(Problem::field(field, format!("`{word}` is neither `allow` nor `deny`"))),
    }
}

pub(super) const fn effect_of(effect: Effect) -> &'static str {
    match effect {
        Effect::Allow => "allow",
        Effect::Deny => "deny",
    }
}

pub(super) fn rule(index: usize, rule: &api::Rule) -> Result<Rule, Problem> {
    let at = |field: &str| format!("rules[{index}].{field}");
    let types = rule.account_types.iter().enumerate();
    let types = types.map(|(n, word)| account_type(&format!("rules[{index}].account_types[{n}]"), word));
    let name = named("name", &rule.name).map_err(|problem| Problem { field: Some(at("name")), ..problem })?;
    Ok(Rule {
        name,
        priority: rule.priority,
        effect: effect(&at("effect"), &rule.effect)?,
        roles: roles(&at("roles"), &rule.roles)?,
        account_types: types.collect::<Result<_, _>>()?,
        usernames: names(&at("usernames"), &rule.usernames)?,
        services: names(&at("services"), &rule.services)?,
        tags: names(&at("tags"), &rule.tags)?,
    })
}

pub(super) fn default_effect(word: &str) -> Result<Effect, Problem> {
    effect("default", word)
}

pub(super) fn rule_of(rule: &Rule) -> api::Rule {
    let texts = |names: &[crate::domain::Name]| names.iter().map(ToString::to_string).collect();
    let types = rule.account_types.iter().map(|kind| match kind {
        AccountType::Human => "human".to_owned(),
        AccountType::System => "system".to_owned(),
    });
    api::Rule {
        name: rule.name.to_string(),
        priority: rule.priority,
        effect: effect_of(rule.effect).to_owned(),
        roles: roles_of(rule.roles.iter().copied().collect()),
        account_types: types.collect(),
        usernames: texts(&rule.usernames),
        services: texts(&rule.services),
        tags: texts(&rule.tags),
    }
}

pub(super) fn account(stored: &Stored, counts: Counts) -> api::Account {
    api::Account {
        name: stored.account.name().to_string(),
        account_type: type_of(&stored.account).to_owned(),
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

pub(super) fn changed(count: usize) -> api::Changed {
    api::Changed { changed: u32::try_from(count).unwrap_or(u32::MAX) }
}

/// What people call things: 1 to 80 characters, none of which moves a cursor.
pub(super) fn label(field: &str, text: &str) -> Result<String, Problem> {
    let text = text.trim();
    let count = text.chars().count();
    if !(1..=80).contains(&count) {
        return Err(Problem::field(field, format!("it has {count} characters: 1 to 80 are needed")));
    }
    if let Some(odd) = text.chars().find(|c| c.is_control()) {
        return Err(Problem::field(field, format!("it has {odd:?}, which is no printable character")));
    }
    Ok(text.to_owned())
}

/// How many entries a page has.
pub(super) fn limit(given: Option<u32>) -> Result<u32, Problem> {
    match given.unwrap_or(100) {
        limit @ 1..=1000 => Ok(limit),
        other => Err(Problem::field("limit", format!("{other} is out of range: 1 to 1000 are taken"))),
    }
}
