//! Policy: which account may do what with which resource, as rules that operators write.
//!
//! A rule has a priority and an effect, and matches by account, resource and operation; each of its lists narrows it, and an empty one does
//! not. Of the rules that match, the lowest priority decides; on a tie, deny wins; where none matches, the default decides. Every service that has a
//! policy has this one, with its own operations and its own kind of resource ([`PolicySpec`]).
//!
//! The engine is pure: no SQL, no clock (SQL is in [`store`] alone). [`Policy::decide`] answers, [`Policy::explain`] answers with every rule it examined and why that
//! did not match, [`decision_changes`] compares a draft with what is in force, [`diff()`] compares two documents.
//!
//! A service implements [`PolicyHost`], and has the operations of `metacircular.policy.v1` and their storage with it.
//!
//! Left out: what a resource is and who the account is. The service says both.

mod diff;
mod explain;
mod host;
mod messages;
mod pattern;
pub mod store;
mod warning;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

pub use crate::draft::parse as parse_draft;
pub use diff::{Diff, FieldChange, RuleChange, diff};
pub use explain::{Decider, DecisionChange, ExaminedRule, Explanation, decision_changes};
pub use host::{Catalog, Current, InForce, LoadError, PolicyHost, RecentUse, Resource, stored_policy};
pub use pattern::{InvalidPattern, Pattern};
pub use warning::{Reference, Warning};

use crate::identity::{Account, AccountType, Name, Role};

/// What a service's policy is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicySpec {
    /// What a resource is called, as the reader knows it: `service` and `services`.
    pub resource_noun: Noun,
    /// The operations that rules may name.
    pub operations: &'static [&'static str],
    /// Characters at which a part of a resource's name ends, which `*` does not match. Empty: a name is one part.
    pub separators: &'static str,
    /// Whether people with role `admin` are allowed everything, whatever the rules say.
    pub admin_bypass: bool,
    /// A policy with more rules is invalid: each decision may look at every rule, and at every entry of their lists, of which there may be
    /// [`ENTRIES_PER_RULE`] for each of these.
    pub max_rules: usize,
}

/// Entries of lists that a policy may have, on average, for each rule that it may have.
pub const ENTRIES_PER_RULE: usize = 4;

/// Entries of one list of a rule. What has more in common is better said by a pattern or a tag.
pub const MAX_ENTRIES_PER_LIST: usize = 200;

/// A word, for one and for many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the words say it")]
pub struct Noun {
    pub one: &'static str,
    pub many: &'static str,
}

/// A decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// First, so that it sorts before an allow of the same priority.
    Deny,
    /// The operation may proceed.
    Allow,
}

/// A rule. Each list narrows it; an empty list does not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Unique within the policy.
    pub name: Name,
    /// The lowest matching priority decides.
    pub priority: u32,
    /// The decision, if this rule decides.
    pub effect: Effect,
    /// The account has one of these roles. System accounts have no roles.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<Role>,
    /// The account is of one of these types.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub account_types: Vec<AccountType>,
    /// The account has one of these names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accounts: Vec<Name>,
    /// The resource matches one of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<Pattern>,
    /// The resource has all of these tags.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resource_tags: Vec<Name>,
    /// The operation matches one of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub operations: Vec<Pattern>,
}

/// A policy as it is written and stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// The decision where no rule matches.
    pub default: Effect,
    /// In any order.
    pub rules: Vec<Rule>,
}

/// A policy that can decide: valid rules, in the order in which they decide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    spec: &'static PolicySpec,
    default: Effect,
    rules: Vec<Rule>,
}

/// What is to be decided.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Question<'a> {
    pub account: &'a Account,
    pub resource: &'a str,
    pub resource_tags: &'a BTreeSet<Name>,
    /// One of [`PolicySpec::operations`].
    pub operation: &'a str,
}

/// A field of a document has an invalid value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct InvalidField {
    /// The path: `rules[2].resources[0]`.
    pub field: String,
    /// What is wrong with its value, and what is expected.
    pub problem: String,
}

/// A word is not an effect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not an effect; expected `allow` or `deny`")]
pub struct UnknownEffect;

impl Effect {
    /// The word used on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Deny => "deny",
            Self::Allow => "allow",
        }
    }
}

impl std::str::FromStr for Effect {
    type Err = UnknownEffect;

    fn from_str(word: &str) -> Result<Self, UnknownEffect> {
        let known = [Self::Allow, Self::Deny].into_iter().find(|effect| effect.as_str() == word);
        known.ok_or(UnknownEffect)
    }
}

impl Policy {
    /// Makes a document ready to decide.
    ///
    /// # Errors
    /// Returns an error if there are too many rules or entries of their lists, or two rules of the same name.
    pub fn new(spec: &'static PolicySpec, document: Document) -> Result<Self, InvalidField> {
        let Document { default, mut rules } = document;
        if rules.len() > spec.max_rules {
            let problem = format!("there are {} rules; a policy has at most {}", rules.len(), spec.max_rules);
            return Err(InvalidField { field: "rules".to_owned(), problem });
        }
        let max_entries = spec.max_rules * ENTRIES_PER_RULE;
        let mut entries = 0;
        for (index, rule) in rules.iter().enumerate() {
            for (list, length) in rule.lists() {
                entries += length;
                if length > MAX_ENTRIES_PER_LIST {
                    let problem =
                        format!("there are {length} entries; a list has at most {MAX_ENTRIES_PER_LIST}");
                    return Err(InvalidField { field: format!("rules[{index}].{list}"), problem });
                }
            }
        }
        if entries > max_entries {
            let problem =
                format!("their lists have {entries} entries together; a policy has at most {max_entries}");
            return Err(InvalidField { field: "rules".to_owned(), problem });
        }
        let mut names = BTreeSet::new();
        for (index, Rule { name, .. }) in rules.iter().enumerate() {
            if !names.insert(name) {
                let problem = format!("another rule is named `{name}`; rule names must be unique");
                return Err(InvalidField { field: format!("rules[{index}].name"), problem });
            }
        }
        // The name makes the order independent of the order in which the rules were written.
        rules.sort_by(|a, b| (a.priority, a.effect, &a.name).cmp(&(b.priority, b.effect, &b.name)));
        Ok(Self { spec, default, rules })
    }

    /// The decision.
    #[must_use]
    pub fn decide(&self, question: &Question<'_>) -> Effect {
        if self.is_bypassed(question) {
            return Effect::Allow;
        }
        let deciding = self.rules.iter().find(|rule| rule.matches(self.spec, question));
        deciding.map_or(self.default, |rule| rule.effect)
    }

    /// The decision where no rule matches.
    #[must_use]
    pub const fn default_effect(&self) -> Effect {
        self.default
    }

    /// The rules, in the order in which they decide.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// How much work a decision is at most: rules, entries of their lists, and tokens of patterns.
    fn work(&self) -> usize {
        self.rules.iter().map(Rule::work).sum()
    }

    fn is_bypassed(&self, question: &Question<'_>) -> bool {
        self.spec.admin_bypass && question.account.roles().has(Role::Admin)
    }
}

impl Rule {
    /// Its lists by their names, with their lengths.
    #[must_use]
    pub fn lists(&self) -> [(&'static str, usize); 6] {
        [
            ("roles", self.roles.len()),
            ("account_types", self.account_types.len()),
            ("accounts", self.accounts.len()),
            ("resources", self.resources.len()),
            ("resource_tags", self.resource_tags.len()),
            ("operations", self.operations.len()),
        ]
    }

    fn work(&self) -> usize {
        let patterns = self.resources.iter().chain(&self.operations).map(Pattern::work);
        let others =
            self.roles.len() + self.account_types.len() + self.accounts.len() + self.resource_tags.len();
        1 + others + patterns.sum::<usize>()
    }

    /// Whether the rule is about this question.
    #[must_use]
    pub fn matches(&self, spec: &PolicySpec, question: &Question<'_>) -> bool {
        Criterion::ALL.iter().all(|criterion| criterion.is_met(self, spec, question))
    }
}

/// A list of a rule, as a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Criterion {
    Role,
    AccountType,
    Account,
    Resource,
    ResourceTags,
    Operation,
}

impl Criterion {
    const ALL: [Self; 6] =
        [Self::Role, Self::AccountType, Self::Account, Self::Resource, Self::ResourceTags, Self::Operation];

    /// Whether the rule leaves this open.
    const fn is_open(self, rule: &Rule) -> bool {
        match self {
            Self::Role => rule.roles.is_empty(),
            Self::AccountType => rule.account_types.is_empty(),
            Self::Account => rule.accounts.is_empty(),
            Self::Resource => rule.resources.is_empty(),
            Self::ResourceTags => rule.resource_tags.is_empty(),
            Self::Operation => rule.operations.is_empty(),
        }
    }

    fn is_met(self, rule: &Rule, spec: &PolicySpec, question: &Question<'_>) -> bool {
        if self.is_open(rule) {
            return true;
        }
        let Question { account, resource, resource_tags, operation } = *question;
        let any = |patterns: &[Pattern], text: &str, separators: &str| {
            patterns.iter().any(|pattern| pattern.matches(text, account.name().as_str(), separators))
        };
        match self {
            Self::Role => rule.roles.iter().any(|role| account.roles().has(*role)),
            Self::AccountType => rule.account_types.contains(&account.account_type()),
            Self::Account => rule.accounts.contains(account.name()),
            Self::Resource => any(&rule.resources, resource, spec.separators),
            Self::ResourceTags => rule.resource_tags.iter().all(|tag| resource_tags.contains(tag)),
            Self::Operation => any(&rule.operations, operation, ""),
        }
    }
}
