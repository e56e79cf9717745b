//! The login policy.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use mc_api::client::Connection;
use mc_api::mcias::accounts_client::AccountsClient;
use mc_api::mcias::login_policy_client::LoginPolicyClient;
use mc_api::mcias::{
    ExplainPolicyRequest, Explanation, GetAccountRequest, GetPolicyRequest, Policy as Message, Rule,
    SetPolicyRequest,
};
use mcdsl::config::{self, Hints};
use mcdsl::ctl::{Column, Ctl, Error};
use serde_json::json;

use super::join_or;

#[derive(Debug, Subcommand)]
pub(crate) enum Policy {
    /// Show the policy in force, in the order in which its rules decide
    Show,
    /// Print the policy in force as TOML, for `set`
    Export,
    /// Replace the policy by a TOML file
    #[command(
        after_help = "Example:\n  mciasctl policy export > policy.toml; $EDITOR policy.toml; mciasctl policy set policy.toml"
    )]
    Set {
        /// File, with the `revision` that it was made from
        file: PathBuf,
    },
    /// Explain what the policy decides for an account at a service
    #[command(after_help = "Example:\n  mciasctl policy explain bob --service mcr")]
    Explain {
        /// Account
        name: String,
        /// Service
        #[arg(long)]
        service: String,
        /// Tag of the service, instead of those that it is registered with; repeat for several
        #[arg(long = "tag", value_name = "TAG")]
        tags: Vec<String>,
    },
}

pub(super) async fn run(
    ctl: &mut Ctl<'_>,
    mut policy: LoginPolicyClient<Connection>,
    mut accounts: AccountsClient<Connection>,
    command: Policy,
) -> Result<(), Error> {
    match command {
        Policy::Show => {
            let found = policy.get_policy(GetPolicyRequest {}).await?.into_inner();
            print(ctl, &found)
        }
        Policy::Export => {
            let found = policy.get_policy(GetPolicyRequest {}).await?.into_inner();
            Ok(ctl.printer.print(|| json!(found), || export(&found))?)
        }
        Policy::Set { file } => {
            let set = policy.set_policy(read(&file)?).await?.into_inner();
            print(ctl, &set)
        }
        Policy::Explain { name, service, tags } => {
            let registered_tags = Some(tags.is_empty());
            // An account that does not exist is an error here, not one of the request's fields.
            accounts.get_account(GetAccountRequest { name: name.clone() }).await?;
            let request = ExplainPolicyRequest { username: name, service, tags, registered_tags };
            let explanation = policy.explain_policy(request).await?.into_inner();
            explain(ctl, &explanation)
        }
    }
}

/// What `set` reads: without empty lists, so that rules can be appended.
fn export(policy: &Message) -> String {
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
    let name = file.display().to_string();
    let text = std::fs::read_to_string(file)
        .map_err(|error| Error::usage(format!("Cannot read {name}: {error}")))?;
    parse(&text, &name)
}

fn parse(text: &str, name: &str) -> Result<SetPolicyRequest, Error> {
    let hints = Hints { example: |_key| "", within: |_tree, _path| None };
    let request: SetPolicyRequest =
        config::read(text, name, hints).map_err(|problem| Error::usage(problem.to_string()))?;
    if request.revision.is_none() {
        let detail =
            format!("{name} has no `revision`: start from `mciasctl policy export`, which writes it");
        return Err(Error::usage(detail));
    }
    Ok(request)
}

fn print(ctl: &mut Ctl<'_>, policy: &Message) -> Result<(), Error> {
    let columns =
        [Column::number("PRIORITY"), Column::state("EFFECT"), Column::text("NAME"), Column::text("MATCHES")];
    let cells =
        |rule: &Rule| [rule.priority.to_string(), rule.effect.clone(), rule.name.clone(), matches(rule)];
    let note = format!("Revision {}. If no rule matches: {}.\n", policy.revision, policy.default);
    Ok(ctl.printer.table(policy, &policy.rules, columns, cells, &note)?)
}

/// The conditions of a rule.
fn matches(rule: &Rule) -> String {
    let conditions = [
        ("role", &rule.roles),
        ("type", &rule.account_types),
        ("account", &rule.usernames),
        ("service", &rule.services),
        ("tags", &rule.tags),
    ];
    let filled = conditions.iter().filter(|(_, values)| !values.is_empty());
    let texts: Vec<_> = filled.map(|(name, values)| format!("{name}={}", values.join(","))).collect();
    if texts.is_empty() { "everything".to_owned() } else { texts.join(" ") }
}

fn explain(ctl: &mut Ctl<'_>, explanation: &Explanation) -> Result<(), Error> {
    let rule = |rule: &Rule| format!("rule {} ({})", rule.name, matches(rule));
    let decided_by = explanation.by.as_ref().map_or_else(|| "default: no rule matches".to_owned(), rule);
    let others: Vec<_> = explanation.also.iter().map(|rule| rule.name.clone()).collect();
    let lines = [
        ("effect", explanation.effect.clone()),
        ("decided by", decided_by),
        ("other matches", join_or(&others, "-")),
        ("service tags", join_or(&explanation.tags, "-")),
    ];
    Ok(ctl.printer.record(explanation, &lines)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_docs_can_be_set() {
        let docs = include_str!("../../../../../../docs/mcias.md");
        let start = docs.find("revision = 1 ").expect("the docs have an example");
        let example = docs[start..].split("```").next().unwrap();
        let policy = parse(example, "docs").unwrap();
        assert_eq!(policy.rules.len(), 3);
        assert!(policy.rules.iter().all(|rule| !rule.name.is_empty() && rule.priority > 0));
    }

    #[test]
    fn an_exported_policy_can_be_set_and_needs_its_revision() {
        let rule = Rule {
            name: "no-bob".into(),
            priority: 1,
            effect: "deny".into(),
            usernames: vec!["bob".into()],
            ..Rule::default()
        };
        let policy = Message { default: "allow".into(), rules: vec![rule], revision: 7 };
        let text = export(&policy);
        let request = parse(&text, "policy.toml").unwrap();
        assert_eq!((request.revision, request.rules), (Some(7), policy.rules));
        let without = text.replace("revision = 7\n", "");
        assert!(parse(&without, "policy.toml").unwrap_err().to_string().contains("has no `revision`"));
    }
}
