//! The vocabulary of identity: names, roles, types of accounts, and the identity behind a token.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

/// The account behind a valid token, as MCIAS describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The account, with its name.
    pub account: Account,
    /// The account's identifier, the token's `sub`: a random UUID. No other account ever gets it, whatever its name. Data that belongs to an
    /// account is kept by this.
    pub account_id: String,
    /// The account's tags.
    pub tags: BTreeSet<Name>,
    /// The token's id (`jti`).
    pub token_id: String,
    /// Services that the token is for; empty: all of the platform, as older tokens are.
    pub audience: Vec<String>,
    /// The service that a system account acts for, where it is known.
    pub service: Option<ServiceContext>,
    /// When its owner logged in, or it was issued: seconds since 1970.
    pub authenticated_at: i64,
    /// When the token expires: seconds since 1970.
    pub expires_at: i64,
}

/// An account, as far as decisions go. A system account has no roles, and there is no place to put one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Account {
    /// A person's account.
    Human {
        /// Its name.
        name: Name,
        /// What the person may do.
        roles: Roles,
    },
    /// A service's account. Each service's own policy decides what it may do.
    System {
        /// Its name.
        name: Name,
    },
}

/// The type of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccountType {
    /// A person's.
    Human,
    /// A service's.
    System,
}

/// What a person may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Manages accounts and policies.
    Admin,
    /// Governed by each service's policy.
    User,
    /// Restricted by each service.
    Guest,
}

/// A set of roles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Roles(u8);

/// A service as the login policy sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceContext {
    /// Its name.
    pub name: Name,
    /// Its tags.
    pub tags: BTreeSet<Name>,
}

/// The name of an account, a service or a tag: 1 to 63 lowercase letters, digits and `-`, `_`, `.` or `@` between them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(Box<str>);

/// Why a text is not a name, and what a name looks like.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidName(String);

/// A word that is not of a fixed list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not {kind}; expected {expected}")]
pub struct UnknownWord {
    kind: &'static str,
    expected: &'static str,
}

impl Identity {
    /// Whether the token is for this service.
    #[must_use]
    pub fn is_for(&self, service: &Name) -> bool {
        self.audience.is_empty() || self.audience.iter().any(|name| name == service.as_str())
    }
}

impl Account {
    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &Name {
        match self {
            Self::Human { name, .. } | Self::System { name } => name,
        }
    }

    /// Its type.
    #[must_use]
    pub const fn account_type(&self) -> AccountType {
        match self {
            Self::Human { .. } => AccountType::Human,
            Self::System { .. } => AccountType::System,
        }
    }

    /// Its roles; a system account has none.
    #[must_use]
    pub const fn roles(&self) -> Roles {
        match self {
            Self::Human { roles, .. } => *roles,
            Self::System { .. } => Roles(0),
        }
    }
}

impl AccountType {
    /// `human` or `system`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Human => "human",
            Self::System => "system",
        }
    }
}

impl std::str::FromStr for AccountType {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        [Self::Human, Self::System]
            .into_iter()
            .find(|known| known.as_str() == word)
            .ok_or(UnknownWord { kind: "an account type", expected: "`human` or `system`" })
    }
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Admin, Self::User, Self::Guest];

    /// `admin`, `user` or `guest`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::User => "user",
            Self::Guest => "guest",
        }
    }

    /// What pages call it.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Admin => "Administrator",
            Self::User => "User",
            Self::Guest => "Guest",
        }
    }
}

impl std::str::FromStr for Role {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        Self::ALL
            .into_iter()
            .find(|known| known.as_str() == word)
            .ok_or(UnknownWord { kind: "a role", expected: "`admin`, `user` or `guest`" })
    }
}

impl Roles {
    /// Whether the role is among them.
    #[must_use]
    pub const fn has(self, role: Role) -> bool {
        self.0 & bit(role) != 0
    }

    /// These and this one.
    #[must_use]
    pub const fn with(self, role: Role) -> Self {
        Self(self.0 | bit(role))
    }

    /// Each of them as a word.
    pub fn words(self) -> impl Iterator<Item = &'static str> {
        Role::ALL.into_iter().filter(move |role| self.has(*role)).map(Role::as_str)
    }
}

const fn bit(role: Role) -> u8 {
    1 << role as u8
}

impl FromIterator<Role> for Roles {
    fn from_iter<I: IntoIterator<Item = Role>>(roles: I) -> Self {
        roles.into_iter().fold(Self::default(), Self::with)
    }
}

impl Name {
    /// Reads a name.
    ///
    /// # Errors
    /// It is not a name.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        // The text is not repeated: people type passwords into the wrong field.
        let wrong = |problem: String| Err(InvalidName(problem));
        if text.is_empty() || text.len() > MAX_BYTES {
            return wrong(format!("has {} characters; expected 1 to {MAX_BYTES}", text.chars().count()));
        }
        let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        if !text.chars().all(|c| is_word(c) || BETWEEN.contains(&c)) {
            return wrong("use lowercase letters, digits and - _ . @ only".to_owned());
        }
        if !text.starts_with(is_word) || !text.ends_with(is_word) {
            return wrong("must begin and end with a lowercase letter or a digit".to_owned());
        }
        Ok(Self(text.into()))
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

const MAX_BYTES: usize = 63;

const BETWEEN: [char; 4] = ['-', '_', '.', '@'];

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Name {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        Self::parse(&text)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["a", "7", "mc-proxy", "ada.lovelace@example.org", "a_b", &"x".repeat(63)] {
            assert_eq!(Name::parse(good).unwrap().as_str(), good);
        }
        for (bad, expect) in [
            ("", "1 to 63"),
            (&*"x".repeat(64), "1 to 63"),
            ("Ada", "use lowercase letters"),
            ("a b", "use lowercase letters"),
            ("a\n", "use lowercase letters"),
            ("ä", "use lowercase letters"),
            ("-a", "begin and end"),
            ("a.", "begin and end"),
        ] {
            let problem = Name::parse(bad).unwrap_err().to_string();
            assert!(problem.contains(expect), "{bad:?}: {problem}");
            assert!(bad.len() < 3 || !problem.contains(bad), "it repeats what was typed: {problem}");
        }
        assert!(toml::Value::from("A").try_into::<Name>().is_err());
        assert_eq!(toml::Value::try_from(Name::parse("a").unwrap()).unwrap(), toml::Value::from("a"));
    }

    #[test]
    fn a_system_account_has_no_roles() {
        let name = Name::parse("mcr").unwrap();
        assert_eq!(Account::System { name: name.clone() }.roles(), Roles::default());
        let roles: Roles = [Role::User, Role::Admin, Role::User].into_iter().collect();
        let account = Account::Human { name, roles };
        let has = [Role::Admin, Role::User, Role::Guest].map(|role| account.roles().has(role));
        assert_eq!(has, [true, true, false]);
    }

    #[test]
    fn words_are_read_as_they_are_written() {
        assert_eq!("admin".parse(), Ok(Role::Admin));
        assert_eq!("system".parse(), Ok(AccountType::System));
        let problem = "Admin".parse::<Role>().unwrap_err().to_string();
        assert_eq!(problem, "is not a role; expected `admin`, `user` or `guest`");
        let roles: Roles = [Role::Guest, Role::Admin].into_iter().collect();
        assert_eq!(roles.words().collect::<Vec<_>>(), ["admin", "guest"]);
    }
}
