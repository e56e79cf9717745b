//! The login policy.

use std::path::Path;

use mc_api::mcias::{
    ExplainPolicyRequest, Explanation, GetPolicyRequest, Policy as Message, Rule, SetPolicyRequest,
};
use mcdsl::config::{self, Hints};
use serde_json::json;

use super::{Session, list_or};
use crate::cli::Policy;
use crate::error::Error;

pub(super) async fn run(session: &mut Session<'_>, command: Policy) -> Result<(), Error> {
    match command {
        Policy::Show => {
            let policy = session.client.policy.get_policy(GetPolicyRequest {}).await?.into_inner();
            show(session, &policy)
        }
        Policy::Export => {
            let policy = session.client.policy.get_policy(GetPolicyRequest {}).await?.into_inner();
            Ok(session.printer.print(|| json!(policy), || exported(&policy))?)
        }
        Policy::Set { file } => {
            let policy = session.client.policy.set_policy(read(&file)?).await?.into_inner();
            show(session, &policy)
        }
        Policy::Explain { name, service, tags } => {
            let registered_tags = Some(tags.is_empty());
            let request = ExplainPolicyRequest { username: name, service, tags, registered_tags };
            let explained = session.client.policy.explain_policy(request).await?.into_inner();
            explain(session, &explained)
        }
    }
}

/// What `set` takes: without lists that are empty, so that rules can be added at its end.
fn exported(policy: &Message) -> String {
    let mut tree = toml::Table::try_from(policy).expect("a policy can be written as TOML");
    let is_filled = |value: &mut toml::Value| value.as_array().is_none_or(|list| !list.is_empty());
    if let Some(toml::Value::Array(rules)) = tree.get_mut("rules") {
        for rule in rules.iter_mut().filter_map(toml::Value::as_table_mut) {
            rule.retain(|_key, value| is_filled(value));
        }
    }
    tree.retain(|_key, value| is_filled(value));
    toml::to_string(&tree).expect("a table can be written as TOML")
}

fn read(file: &Path) -> Result<SetPolicyRequest, Error> {
    let text = std::fs::read_to_string(file).map_err(|source| Error::File {
        what: "cannot read the policy",
        path: file.to_owned(),
        source,
    })?;
    parse(&text, &file.display().to_string())
}

fn parse(text: &str, name: &str) -> Result<SetPolicyRequest, Error> {
    let hints = Hints { example: |_key| "", within: |_tree, _path| None };
    config::read(text, name, hints).map_err(|problem| Error::Usage(problem.to_string()))
}

fn show(session: &mut Session<'_>, policy: &Message) -> Result<(), Error> {
    let text = || {
        let rows: Vec<_> = policy.rules.iter().map(|rule| row(rule).to_vec()).collect();
        let head = ["PRIORITY", "EFFECT", "NAME", "MATCHES"];
        let table = mcdsl::terminal::table(&head, &rows);
        format!("{table}revision {}; where none matches: {}\n", policy.revision, policy.default)
    };
    Ok(session.printer.print(|| json!(policy), text)?)
}

fn row(rule: &Rule) -> [String; 4] {
    [rule.priority.to_string(), rule.effect.clone(), rule.name.clone(), matches(rule)]
}

/// What a rule is about, in words.
fn matches(rule: &Rule) -> String {
    let parts = [
        ("role", &rule.roles),
        ("type", &rule.account_types),
        ("account", &rule.usernames),
        ("service", &rule.services),
        ("tags", &rule.tags),
    ];
    let said: Vec<_> = parts
        .iter()
        .filter(|(_, words)| !words.is_empty())
        .map(|(what, words)| format!("{what}={}", words.join(",")))
        .collect();
    if said.is_empty() { "everything".to_owned() } else { said.join(" ") }
}

fn explain(session: &mut Session<'_>, explained: &Explanation) -> Result<(), Error> {
    let by = explained
        .by
        .as_ref()
        .map_or("the default".to_owned(), |rule| format!("{} ({})", rule.name, matches(rule)));
    let also: Vec<_> = explained.also.iter().map(|rule| rule.name.clone()).collect();
    let lines = [
        ("effect", explained.effect.clone()),
        ("by", by),
        ("also match", list_or(&also, "-")),
        ("tags of the service", list_or(&explained.tags, "-")),
    ];
    Ok(session.printer.record(explained, &lines)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_operators_are_shown_can_be_set() {
        let docs = include_str!("../../../../../../docs/mcias.md");
        let start = docs.find("default = \"allow\"").expect("there is an example");
        let example = docs[start..].split("```").next().unwrap();
        let policy = parse(example, "docs").unwrap();
        assert_eq!(policy.rules.len(), 3);
        assert!(policy.rules.iter().all(|rule| !rule.name.is_empty() && rule.priority > 0));
    }
}
