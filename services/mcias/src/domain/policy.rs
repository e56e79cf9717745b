//! Login policy: which accounts may log in to which services.
//!
//! Rules have a priority and match by account and by service context: the name and tags of the service that asks. Of the rules that match, those of the lowest number
//! decide; where one of them denies, it is denied; where none matches, the default decides.
//!
//! It is asked at login, when a token is issued or looked at, and whenever a session is used again: no session outlives a
//! rule that denies it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{Account, AccountType, Name, Role, ServiceContext as Service};

/// What becomes of a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// It is refused. First, so that it comes before its equals.
    Deny,
    /// It goes on.
    Allow,
}

/// A rule. Each list narrows it; an empty one does not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// What it is called, in answers and in the audit log. No two have the same.
    pub name: Name,
    /// The lowest number decides.
    pub priority: u32,
    /// What it says.
    pub effect: Effect,
    /// The account has one of these roles. A service's has none.
    #[serde(default)]
    pub roles: Vec<Role>,
    /// The account is of one of these types.
    #[serde(default)]
    pub account_types: Vec<AccountType>,
    /// The account has one of these names.
    #[serde(default)]
    pub usernames: Vec<Name>,
    /// The service has one of these names.
    #[serde(default)]
    pub services: Vec<Name>,
    /// The service has all of these tags.
    #[serde(default)]
    pub tags: Vec<Name>,
}

/// All rules, in the order in which they decide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    rules: Vec<Rule>,
    default: Effect,
}

/// Two rules have the same name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("rules[{index}].name: another rule is called `{name}`: give this one another name")]
pub struct SameName {
    /// The second one's place among those given.
    pub index: usize,
    /// What both are called.
    pub name: Name,
}

/// What was decided, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained<'a> {
    /// What becomes of the login.
    pub effect: Effect,
    /// The rule that decided; the default did where there is none.
    pub by: Option<&'a Rule>,
    /// The others that matched, in the order in which they would have decided.
    pub also: Vec<&'a Rule>,
}

impl Policy {
    /// Takes rules in any order.
    ///
    /// # Errors
    /// Two have the same name.
    pub fn new(mut rules: Vec<Rule>, default: Effect) -> Result<Self, SameName> {
        let mut names = BTreeSet::new();
        for (index, Rule { name, .. }) in rules.iter().enumerate() {
            if !names.insert(name) {
                return Err(SameName { index, name: name.clone() });
            }
        }
        // Equals in both do the same: their names only keep what is told the same each time.
        rules.sort_by(|a, b| (a.priority, a.effect, &a.name).cmp(&(b.priority, b.effect, &b.name)));
        Ok(Self { rules, default })
    }

    /// Whether this account may log in to this service.
    #[must_use]
    pub fn decide(&self, account: &Account, service: &Service) -> Effect {
        self.matching(account, service).next().map_or(self.default, |rule| rule.effect)
    }

    /// The same, with the rule that decided and the others that matched.
    #[must_use]
    pub fn explain(&self, account: &Account, service: &Service) -> Explained<'_> {
        let mut matching = self.matching(account, service);
        let by = matching.next();
        Explained { effect: by.map_or(self.default, |rule| rule.effect), by, also: matching.collect() }
    }

    /// What becomes of a login that no rule is about.
    #[must_use]
    pub const fn default_effect(&self) -> Effect {
        self.default
    }

    /// The rules, in the order in which they decide.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    fn matching<'p, 'a>(
        &'p self,
        account: &'a Account,
        service: &'a Service,
    ) -> impl Iterator<Item = &'p Rule> + use<'p, 'a> {
        self.rules.iter().filter(move |rule| rule.matches(account, service))
    }
}

impl Rule {
    /// Whether it is about this account at this service.
    #[must_use]
    pub fn matches(&self, account: &Account, service: &Service) -> bool {
        let account_type = account.account_type();
        (self.roles.is_empty() || self.roles.iter().any(|role| account.roles().has(*role)))
            && (self.account_types.is_empty() || self.account_types.contains(&account_type))
            && (self.usernames.is_empty() || self.usernames.contains(account.name()))
            && (self.services.is_empty() || self.services.contains(&service.name))
            && self.tags.iter().all(|tag| service.tags.contains(tag))
    }
}

#[cfg(test)]
mod tests;
