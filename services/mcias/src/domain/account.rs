//! Who there is: accounts of people and of services, and what people may do.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An account, as far as decisions go. A service's carries no roles, and there is no place to put one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Account {
    /// A person's: a password, passkeys, perhaps a second factor.
    Human {
        /// Its name.
        name: Name,
        /// What the person may do.
        roles: Roles,
    },
    /// A service's: tokens that an admin issues. Each service's own policy says what it may do.
    System {
        /// Its name.
        name: Name,
    },
}

/// What a person may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Manages accounts and policies.
    Admin,
    /// As each service's policy says.
    User,
    /// As restricted as each service likes.
    Guest,
}

/// A set of roles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Roles(u8);

/// The name of an account, a service or a tag: 1 to 63 small letters, digits and `-`, `_`, `.` or `@` between them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(Box<str>);

/// Why a text is no name, and what one looks like.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadName(String);

impl Account {
    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &Name {
        match self {
            Self::Human { name, .. } | Self::System { name } => name,
        }
    }

    /// Its roles; none where it is a service's.
    #[must_use]
    pub const fn roles(&self) -> Roles {
        match self {
            Self::Human { roles, .. } => *roles,
            Self::System { .. } => Roles(0),
        }
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
    /// It is none.
    pub fn parse(text: &str) -> Result<Self, BadName> {
        let wrong = |problem: String| Err(BadName(problem));
        if text.is_empty() || text.len() > MOST {
            let count = text.chars().count();
            // What is far too long is not said again.
            let begins = text.chars().take(MOST).collect::<String>();
            return wrong(format!("`{begins}` has {count} characters: a name has 1 to {MOST}"));
        }
        let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        if let Some(odd) = text.chars().find(|c| !is_word(*c) && !BETWEEN.contains(c)) {
            let problem = "a name has small letters, digits and `-`, `_`, `.` or `@` between them";
            return wrong(format!("`{text}` has {odd:?}: {problem}"));
        }
        if !text.starts_with(is_word) || !text.ends_with(is_word) {
            return wrong(format!("`{text}`: a name begins and ends with a letter or a digit"));
        }
        Ok(Self(text.into()))
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

const MOST: usize = 63;

const BETWEEN: [char; 4] = ['-', '_', '.', '@'];

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Name {
    type Error = BadName;

    fn try_from(text: String) -> Result<Self, BadName> {
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
            ("Ada", "'A'"),
            ("a b", "' '"),
            ("a\n", "'\\n'"),
            ("ä", "'ä'"),
            ("-a", "begins and ends"),
            ("a.", "begins and ends"),
        ] {
            let problem = Name::parse(bad).unwrap_err().to_string();
            assert!(problem.contains(expect), "{bad:?}: {problem}");
        }
        assert!(serde_json::from_str::<Name>("\"A\"").is_err());
        assert_eq!(serde_json::to_string(&Name::parse("a").unwrap()).unwrap(), "\"a\"");
    }

    #[test]
    fn a_service_has_no_roles() {
        let name = Name::parse("mcr").unwrap();
        assert_eq!(Account::System { name: name.clone() }.roles(), Roles::default());
        let roles: Roles = [Role::User, Role::Admin, Role::User].into_iter().collect();
        let account = Account::Human { name, roles };
        let has = [Role::Admin, Role::User, Role::Guest].map(|role| account.roles().has(role));
        assert_eq!(has, [true, true, false]);
    }
}
