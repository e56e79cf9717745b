//! What is valid and yet probably a mistake: a rule for something that does not exist.

use super::explain::list;
use super::{Policy, Rule};
use crate::identity::{AccountType, Name};

/// Something that a rule names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reference<'a> {
    /// An account, by its name.
    Account(&'a Name),
    /// A resource, by its full name: patterns name none.
    Resource(&'a str),
    /// A tag of resources.
    ResourceTag(&'a Name),
}

/// A rule that probably does not do what it was written for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The name of the rule.
    pub rule: Name,
    /// The path within the rule: `accounts[0]`.
    pub field: String,
    /// The value that the warning is about.
    pub value: String,
    /// What is the matter.
    pub message: String,
}

impl Policy {
    /// What the rules name and does not exist, in the order of the rules. Operations are known here; of the rest, the service knows.
    pub fn warnings(&self, exists: impl Fn(Reference<'_>) -> bool) -> Vec<Warning> {
        self.rules.iter().flat_map(|rule| self.rule_warnings(rule, &exists)).collect()
    }

    fn rule_warnings(&self, rule: &Rule, exists: &impl Fn(Reference<'_>) -> bool) -> Vec<Warning> {
        let mut warnings = Vec::new();
        let mut warn = |list: &str, index: usize, value: &str, message: String| {
            let field = format!("{list}[{index}]");
            warnings.push(Warning { rule: rule.name.clone(), field, value: value.to_owned(), message });
        };
        if !rule.roles.is_empty() && *rule.account_types == [AccountType::System] {
            let message = "the rule never matches: system accounts have no roles".to_owned();
            warn("account_types", 0, AccountType::System.as_str(), message);
        }
        for (index, name) in rule.accounts.iter().enumerate() {
            if !exists(Reference::Account(name)) {
                warn("accounts", index, name.as_str(), format!("there is no account `{name}`"));
            }
        }
        let noun = self.spec.resource_noun;
        for (index, pattern) in rule.resources.iter().enumerate() {
            if let Some(name) = pattern.literal().filter(|name| !exists(Reference::Resource(name))) {
                warn("resources", index, name, format!("there is no {} `{name}`", noun.one));
            }
        }
        for (index, tag) in rule.resource_tags.iter().enumerate() {
            if !exists(Reference::ResourceTag(tag)) {
                warn("resource_tags", index, tag.as_str(), format!("no {} has the tag `{tag}`", noun.one));
            }
        }
        for (index, pattern) in rule.operations.iter().enumerate() {
            if !self.spec.operations.iter().any(|operation| pattern.matches(operation, "", "")) {
                let known = list(self.spec.operations, "and");
                let message = format!("there is no operation `{pattern}`; the operations are {known}");
                warn("operations", index, pattern.as_str(), message);
            }
        }
        warnings
    }
}
