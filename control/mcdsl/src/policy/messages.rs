//! Policies as messages of `metacircular.policy.v1`, which are the bodies of the REST API as well.

use std::collections::HashMap;

use mc_api::policy as api;

use super::store::Summary;
use super::{
    Decider, DecisionChange, Diff, Document, Effect, Explanation, FieldChange, InvalidField, Pattern, Policy,
    Rule, RuleChange, Warning,
};
use crate::identity::{AccountType, Name, Role};

/// A document from what a client sent, or the first field whose value is invalid.
pub(super) fn document(default: &str, rules: &[api::Rule]) -> Result<Document, InvalidField> {
    let rules = rules.iter().enumerate().map(|(index, message)| rule(&format!("rules[{index}]"), message));
    Ok(Document { default: effect("default", default)?, rules: rules.collect::<Result<_, _>>()? })
}

fn rule(path: &str, message: &api::Rule) -> Result<Rule, InvalidField> {
    let at = |field: &str| format!("{path}.{field}");
    Ok(Rule {
        name: field(&at("name"), Name::parse(&message.name))?,
        priority: message.priority,
        effect: effect(&at("effect"), &message.effect)?,
        roles: list(&at("roles"), &message.roles, str::parse::<Role>)?,
        account_types: list(&at("account_types"), &message.account_types, str::parse::<AccountType>)?,
        accounts: list(&at("accounts"), &message.accounts, Name::parse)?,
        resources: list(&at("resources"), &message.resources, Pattern::parse)?,
        resource_tags: list(&at("resource_tags"), &message.resource_tags, Name::parse)?,
        operations: list(&at("operations"), &message.operations, Pattern::parse)?,
    })
}

fn effect(path: &str, word: &str) -> Result<Effect, InvalidField> {
    field(path, word.parse())
}

/// A parsed value of a field.
pub(super) fn field<T, E: std::error::Error>(path: &str, value: Result<T, E>) -> Result<T, InvalidField> {
    value.map_err(|error| InvalidField { field: path.to_owned(), problem: error.to_string() })
}

/// Words of a list, each with its own path.
pub(super) fn list<T, E: std::error::Error>(
    path: &str,
    words: &[String],
    parse: impl Fn(&str) -> Result<T, E>,
) -> Result<Vec<T>, InvalidField> {
    let read = |(index, word): (usize, &String)| field(&format!("{path}[{index}]"), parse(word));
    words.iter().enumerate().map(read).collect()
}

pub(super) fn rule_message(rule: &Rule) -> api::Rule {
    fn words<T: ToString>(list: &[T]) -> Vec<String> {
        list.iter().map(ToString::to_string).collect()
    }
    api::Rule {
        name: rule.name.to_string(),
        priority: rule.priority,
        effect: rule.effect.as_str().to_owned(),
        roles: rule.roles.iter().map(|role| role.as_str().to_owned()).collect(),
        account_types: rule.account_types.iter().map(|kind| kind.as_str().to_owned()).collect(),
        accounts: words(&rule.accounts),
        resources: words(&rule.resources),
        resource_tags: words(&rule.resource_tags),
        operations: words(&rule.operations),
    }
}

/// A policy with its revision, its rules in the order in which they decide.
pub(super) fn policy_message(
    policy: &Policy,
    revision: i64,
    created_at: i64,
    actor: String,
) -> api::PolicyDocument {
    api::PolicyDocument {
        default: policy.default_effect().as_str().to_owned(),
        rules: policy.rules().iter().map(rule_message).collect(),
        revision,
        created_at,
        actor,
    }
}

pub(super) fn summary_message(summary: Summary) -> api::PolicyRevision {
    let Summary { revision, created_at, actor, default, rules } = summary;
    api::PolicyRevision { revision, created_at, actor, default, rules }
}

/// An explanation, with the tags that the resource was taken to have.
pub(super) fn explanation_message(
    policy: &Policy,
    explanation: Explanation<'_>,
    resource_tags: Vec<String>,
) -> api::ExplainPolicyResponse {
    let (decided_by, deciding_rule) = match explanation.decider {
        Decider::Rule(rule) => ("rule", Some(rule_message(rule))),
        Decider::Default => ("default", None),
        Decider::AdminBypass => ("admin", None),
    };
    api::ExplainPolicyResponse {
        effect: explanation.effect.as_str().to_owned(),
        decided_by: decided_by.to_owned(),
        deciding_rule,
        not_reached: count(policy.rules().len() - explanation.examined.len()),
        examined: explanation
            .examined
            .into_iter()
            .map(|examined| api::ExaminedRule {
                name: examined.rule.name.to_string(),
                priority: examined.rule.priority,
                effect: examined.rule.effect.as_str().to_owned(),
                matches: examined.matches,
                reason: examined.reason,
            })
            .collect(),
        other_matches: explanation.other_matches.into_iter().map(rule_message).collect(),
        resource_tags,
        warnings: Vec::new(),
    }
}

/// Warnings, with paths in the request whose rules these are.
pub(super) fn warning_messages(warnings: Vec<Warning>, rules: &[api::Rule]) -> Vec<api::Warning> {
    let places: HashMap<_, _> = rules.iter().enumerate().map(|(at, rule)| (rule.name.as_str(), at)).collect();
    let message = |warning: Warning| {
        let place = places.get(warning.rule.as_str()).copied().unwrap_or_default();
        api::Warning {
            field: format!("rules[{place}].{}", warning.field),
            value: warning.value,
            message: warning.message,
        }
    };
    warnings.into_iter().map(message).collect()
}

pub(super) fn change_message(change: &DecisionChange<'_>, recent_uses: u32) -> api::DecisionChange {
    api::DecisionChange {
        account: change.question.account.name().to_string(),
        resource: change.question.resource.to_owned(),
        operation: change.question.operation.to_owned(),
        before: change.before.as_str().to_owned(),
        after: change.after.as_str().to_owned(),
        recent_uses,
    }
}

pub(super) fn diff_message(from: i64, to: i64, diff: Diff) -> api::DiffPolicyResponse {
    let field = |change: FieldChange| api::FieldChange {
        field: change.field.to_owned(),
        before: change.before,
        after: change.after,
    };
    let rule = |change: RuleChange| api::RuleChange {
        name: change.name.to_string(),
        fields: change.fields.into_iter().map(field).collect(),
    };
    api::DiffPolicyResponse {
        from,
        to,
        default: diff.default.map(field),
        added: diff.added.iter().map(rule_message).collect(),
        removed: diff.removed.iter().map(rule_message).collect(),
        changed: diff.changed.into_iter().map(rule).collect(),
    }
}

fn count(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(change: impl Fn(&mut api::Rule)) -> Vec<api::Rule> {
        let mut rule = api::Rule { name: "a".to_owned(), effect: "deny".to_owned(), ..api::Rule::default() };
        let other = api::Rule { name: "b".to_owned(), ..rule.clone() };
        change(&mut rule);
        vec![other, rule]
    }

    #[test]
    fn an_invalid_value_is_named_with_its_path() {
        let words = |list: &[&str]| -> Vec<String> { list.iter().map(ToString::to_string).collect() };
        for (rules, expected) in [
            (message(|rule| rule.name = "A".to_owned()), "rules[1].name: use lowercase letters"),
            (
                message(|rule| rule.effect = "no".to_owned()),
                "rules[1].effect: is not an effect; expected `allow` or `deny`",
            ),
            (
                message(|rule| rule.roles = words(&["user", "root"])),
                "rules[1].roles[1]: is not a role; expected `admin`, `user` or `guest`",
            ),
            (
                message(|rule| rule.account_types = words(&["robot"])),
                "rules[1].account_types[0]: is not an account type; expected `human` or `system`",
            ),
            (
                message(|rule| rule.accounts = words(&["a", "b", "?"])),
                "rules[1].accounts[2]: use lowercase letters",
            ),
            (
                message(|rule| rule.resources = words(&["{user}"])),
                "rules[1].resources[0]: `{user}` contains a brace",
            ),
            (message(|rule| rule.resource_tags = words(&[""])), "rules[1].resource_tags[0]: "),
            (message(|rule| rule.operations = words(&["a b"])), "rules[1].operations[0]: `a b` contains ' '"),
        ] {
            let error = document("allow", &rules).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
        let error = document("perhaps", &[]).unwrap_err().to_string();
        assert_eq!(error, "default: is not an effect; expected `allow` or `deny`");
    }

    #[test]
    fn a_rule_comes_back_as_it_was_sent() {
        let words = |list: &[&str]| -> Vec<String> { list.iter().map(ToString::to_string).collect() };
        let sent = api::Rule {
            name: "a".to_owned(),
            priority: 7,
            effect: "allow".to_owned(),
            roles: words(&["user", "admin"]),
            account_types: words(&["human"]),
            accounts: words(&["ada"]),
            resources: words(&["team/*", "{account}/**"]),
            resource_tags: words(&["prod"]),
            operations: words(&["push"]),
        };
        let document = document("deny", std::slice::from_ref(&sent)).unwrap();
        assert_eq!(rule_message(&document.rules[0]), sent);
    }
}
