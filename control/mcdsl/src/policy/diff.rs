//! What differs between two documents, rule by rule and field by field.

use std::collections::BTreeMap;

use super::{Document, Rule};
use crate::identity::{AccountType, Name, Role};

/// What differs. Rules are the same if they have the same name: a rule that is renamed is removed and added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Diff {
    pub default: Option<FieldChange>,
    pub added: Vec<Rule>,
    pub removed: Vec<Rule>,
    pub changed: Vec<RuleChange>,
}

/// A rule that is in both documents, and differs.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct RuleChange {
    pub name: Name,
    pub fields: Vec<FieldChange>,
}

/// A field that differs. A field that is not a list has one value.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct FieldChange {
    pub field: &'static str,
    pub before: Vec<String>,
    pub after: Vec<String>,
}

/// Compares two documents. Rules are in the order of their names: their order in a document decides nothing.
#[must_use]
pub fn diff(before: &Document, after: &Document) -> Diff {
    let by_name = |document: &Document| -> BTreeMap<Name, Rule> {
        document.rules.iter().map(|rule| (rule.name.clone(), rule.clone())).collect()
    };
    let (mut old, new) = (by_name(before), by_name(after));
    let mut diff = Diff {
        default: change(
            "default",
            vec![before.default.as_str().to_owned()],
            vec![after.default.as_str().to_owned()],
        ),
        ..Diff::default()
    };
    for (name, rule) in new {
        match old.remove(&name) {
            None => diff.added.push(rule),
            Some(earlier) => {
                let fields = changed_fields(&earlier, &rule);
                if !fields.is_empty() {
                    diff.changed.push(RuleChange { name, fields });
                }
            }
        }
    }
    diff.removed.extend(old.into_values());
    diff
}

fn changed_fields(before: &Rule, after: &Rule) -> Vec<FieldChange> {
    let pairs = fields(before).into_iter().zip(fields(after));
    pairs.filter_map(|((field, before), (_, after))| change(field, before, after)).collect()
}

fn change(field: &'static str, before: Vec<String>, after: Vec<String>) -> Option<FieldChange> {
    (before != after).then_some(FieldChange { field, before, after })
}

/// Every field of a rule but its name, as words.
fn fields(rule: &Rule) -> [(&'static str, Vec<String>); 8] {
    fn words<T: ToString>(list: &[T]) -> Vec<String> {
        list.iter().map(ToString::to_string).collect()
    }
    let Rule {
        name: _,
        priority,
        effect,
        roles,
        account_types,
        accounts,
        resources,
        resource_tags,
        operations,
    } = rule;
    [
        ("priority", words(&[priority])),
        ("effect", words(&[effect.as_str()])),
        ("roles", words(&roles.iter().copied().map(Role::as_str).collect::<Vec<_>>())),
        ("account_types", words(&account_types.iter().copied().map(AccountType::as_str).collect::<Vec<_>>())),
        ("accounts", words(accounts)),
        ("resources", words(resources)),
        ("resource_tags", words(resource_tags)),
        ("operations", words(operations)),
    ]
}
