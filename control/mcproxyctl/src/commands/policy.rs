//! Policies of routes that terminate TLS.

use anyhow::Context as _;
use mc_api::mcproxy::client::Client;
use mc_api::mcproxy::{ListPoliciesRequest, PolicyState};
use mc_core::model::Policy as Model;
use mcdsl::ctl::{Printer, table};
use serde::Deserialize;
use serde_json::{Value, json};

use super::route::{changed, edit, message_key, text_key};
use super::{Asks, read_toml};
use crate::cli::{Key, Owner, Policy};
use crate::error::Error;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    // Not optional: a file that is empty by mistake must not remove every policy.
    policies: Vec<Model>,
}

pub(super) async fn run(
    command: Policy,
    client: &mut Client,
    printer: &mut Printer<'_>,
    asks: Asks,
) -> Result<(), Error> {
    match command {
        Policy::List(key) => list(client, printer, &key).await,
        Policy::Add { key, owner, policy, rule, path, dry_run, before, replace } => {
            let path = path.unwrap_or_else(|| Model::PATH.to_owned());
            let policy = Model { name: policy, dry_run, path, rule: rule.0 };
            change(client, printer, (&key, &owner), |policies| {
                if !replace && policies.iter().any(|other| other.name == policy.name) {
                    let name = &policy.name;
                    return Err(Error::Exists(format!(
                        "policy {name} exists: replace it where it stands with --replace, or see `policy enforce` and `policy dry-run`"
                    )));
                }
                add(policies, policy.clone(), before.as_deref())
            })
            .await
        }
        Policy::Remove { key, owner, policy } => {
            asks.confirm(&format!("Remove policy {policy} of route {}?", text_key(&key)))?;
            change(client, printer, (&key, &owner), |policies| {
                let at = place(policies, &policy)?;
                policies.remove(at);
                Ok(())
            })
            .await
        }
        Policy::Enforce { key, owner, policy } => {
            set_dry_run(client, printer, (&key, &owner), &policy, false).await
        }
        Policy::DryRun { key, owner, policy } => {
            set_dry_run(client, printer, (&key, &owner), &policy, true).await
        }
        Policy::Replace { key, owner, file } => {
            let file: File = read_toml(&file)?;
            let count = file.policies.len();
            asks.confirm(&format!("Replace all policies of route {} by these {count}?", text_key(&key)))?;
            change(client, printer, (&key, &owner), |policies| {
                policies.clone_from(&file.policies);
                Ok(())
            })
            .await
        }
    }
}

async fn list(client: &mut Client, printer: &mut Printer<'_>, key: &Key) -> Result<(), Error> {
    let request = ListPoliciesRequest { key: Some(message_key(key)) };
    let states = client.list_policies(request).await?.into_inner().policies;
    let states = states.into_iter().map(read).collect::<Result<Vec<_>, _>>()?;
    let json = || states.iter().map(|(policy, applied, dry_run)| view(policy, *applied, *dry_run)).collect();
    Ok(printer.print(json, || policies_table(&states))?)
}

fn read(state: PolicyState) -> Result<(Model, u64, u64), Error> {
    let policy = state.policy.context("the proxy answered without the policy")?;
    let policy = Model::try_from(policy).context("the proxy's answer is of a newer version")?;
    Ok((policy, state.applied, state.dry_run))
}

async fn set_dry_run(
    client: &mut Client,
    printer: &mut Printer<'_>,
    of: (&Key, &Owner),
    policy: &str,
    dry_run: bool,
) -> Result<(), Error> {
    change(client, printer, of, |policies| {
        let at = place(policies, policy)?;
        policies[at].dry_run = dry_run;
        Ok(())
    })
    .await
}

/// Reads a route, changes its policies, and puts it back.
async fn change(
    client: &mut Client,
    printer: &mut Printer<'_>,
    (key, owner): (&Key, &Owner),
    mut change: impl FnMut(&mut Vec<Model>) -> Result<(), Error>,
) -> Result<(), Error> {
    let edited = edit(client, key, owner, true, |route| {
        change(&mut route.http.policies).map_err(|error| match error {
            Error::NotFound(what) => Error::NotFound(format!("{}: {what}", text_key(key))),
            error => error,
        })
    });
    changed(edited.await?, printer)
}

fn add(policies: &mut Vec<Model>, policy: Model, before: Option<&str>) -> Result<(), Error> {
    let old = policies.iter().position(|other| other.name == policy.name);
    match (old, before) {
        (Some(old), None) => policies[old] = policy,
        (old, before) => {
            if let Some(old) = old {
                policies.remove(old);
            }
            let at = before.map_or(Ok(policies.len()), |before| place(policies, before))?;
            policies.insert(at, policy);
        }
    }
    Ok(())
}

fn place(policies: &[Model], name: &str) -> Result<usize, Error> {
    let found = policies.iter().position(|policy| policy.name == name);
    found.ok_or_else(|| Error::NotFound(format!("there is no policy {name}: see `policy list`")))
}

fn view(policy: &Model, applied: u64, dry_run: u64) -> Value {
    json!({ "policy": policy, "applied": applied, "dry_run": dry_run })
}

fn policies_table(states: &[(Model, u64, u64)]) -> String {
    let rows: Vec<Vec<String>> = states
        .iter()
        .map(|(policy, applied, dry_run)| {
            let rule = json!(policy.rule);
            let rule = rule.as_object().and_then(|rule| rule.iter().next());
            let rule = rule.map_or_else(String::new, |(kind, value)| format!("{kind} {value}"));
            let state = if policy.dry_run { "dry run" } else { "enforced" };
            vec![
                policy.name.clone(),
                state.to_owned(),
                policy.path.clone(),
                applied.to_string(),
                dry_run.to_string(),
                rule,
            ]
        })
        .collect();
    table(&["NAME", "STATE", "PATH", "APPLIED", "WOULD APPLY", "RULE"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(name: &str) -> Model {
        serde_json::from_value(json!({ "name": name, "methods": ["GET"] })).unwrap()
    }

    #[test]
    fn policies_are_added_where_they_are_wanted() {
        let mut all = Vec::new();
        let check = |all: &mut Vec<Model>, name, before, expect: &str| {
            add(all, policy(name), before).unwrap();
            let names: Vec<&str> = all.iter().map(|policy| policy.name.as_str()).collect();
            assert_eq!(names.join(" "), expect);
        };
        check(&mut all, "a", None, "a");
        check(&mut all, "b", None, "a b");
        check(&mut all, "c", Some("b"), "a c b");
        check(&mut all, "a", None, "a c b");
        check(&mut all, "a", Some("b"), "c a b");
        assert!(matches!(add(&mut all, policy("x"), Some("y")), Err(Error::NotFound(_))));
    }
}
