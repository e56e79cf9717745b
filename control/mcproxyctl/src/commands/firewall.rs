//! The firewall.

use anyhow::Context as _;
use mc_api::mcproxy::client::Client;
use mc_api::mcproxy::{
    Change, FirewallRuleRequest, GetFirewallRequest, SetFirewallRequest, SetRateRequest, TestFirewallRequest,
    WatchDropsRequest,
};
use mc_core::model::{Action, Firewall as Model, FirewallRule, Rate, Subject};
use mcdsl::ctl::{Printer, list, table};
use mcdsl::terminal::or_dash;
use serde::Deserialize;
use serde_json::json;
use tokio_stream::StreamExt as _;

use super::{Asks, read_toml};
use crate::cli::Firewall;
use crate::error::Error;
use crate::parse::subject_text;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    firewall: Model,
}

pub(super) async fn run(
    command: Firewall,
    client: &mut Client,
    printer: &mut Printer<'_>,
    asks: Asks,
) -> Result<(), Error> {
    let change = match command {
        Firewall::Show => return show(client, printer).await,
        Firewall::Watch => return watch(client, printer).await,
        Firewall::Test { address } => {
            let request = TestFirewallRequest { address: address.to_string() };
            let reply = client.test_firewall(request).await?.into_inner();
            let text = || {
                list(&[
                    ("verdict", if reply.allowed { "allowed" } else { "refused" }.to_owned()),
                    ("because", reply.reason.clone()),
                    ("country", or_dash(&reply.country)),
                    ("ASN", if reply.asn == 0 { "-".to_owned() } else { reply.asn.to_string() }),
                ])
            };
            return Ok(printer.print(|| json!(reply), text)?);
        }
        Firewall::Allow(rule) => add(client, Action::Allow, rule.subject.0, rule.comment).await?,
        Firewall::Deny(rule) => add(client, Action::Deny, rule.subject.0, rule.comment).await?,
        Firewall::Remove { action, subject } => {
            let rule =
                FirewallRule { action: action_of(&action), subject: subject.0, comment: String::new() };
            let request = FirewallRuleRequest { rule: Some((&rule).into()) };
            client.remove_firewall_rule(request).await?.into_inner()
        }
        Firewall::Default { action } => {
            // The rest stays as it is: a change in between is noticed by the revision.
            let (mut firewall, revision, _) = get(client).await?;
            firewall.default = action_of(&action);
            set(client, &firewall, Some(revision)).await?
        }
        Firewall::Rate { per_address, address_burst, per_prefix, prefix_burst } => {
            let rate = Rate { per_address, address_burst, per_prefix, prefix_burst };
            client.set_rate(SetRateRequest { rate: Some((&rate).into()) }).await?.into_inner()
        }
        Firewall::Set { file, expect_revision } => {
            let File { firewall } = read_toml(&file)?;
            asks.confirm(&format!("Replace rules, default and rate by those of {}?", file.display()))?;
            set(client, &firewall, expect_revision).await?
        }
    };
    Ok(printer.print(|| json!(change), || format!("live at revision {}\n", change.revision))?)
}

async fn add(
    client: &mut Client,
    action: Action,
    subject: Subject,
    comment: String,
) -> Result<Change, Error> {
    let rule = FirewallRule { action, subject, comment };
    let request = FirewallRuleRequest { rule: Some((&rule).into()) };
    Ok(client.add_firewall_rule(request).await?.into_inner())
}

/// The firewall, the revision, and what is wrong with its rules.
async fn get(client: &mut Client) -> Result<(Model, u64, Vec<String>), Error> {
    let state = client.get_firewall(GetFirewallRequest {}).await?.into_inner();
    let firewall = Model::try_from(state.firewall.unwrap_or_default());
    Ok((firewall.context("the proxy's answer is of a newer version")?, state.revision, state.problems))
}

async fn set(client: &mut Client, firewall: &Model, expected_revision: Option<u64>) -> Result<Change, Error> {
    let request = SetFirewallRequest { firewall: Some(firewall.into()), expected_revision };
    Ok(client.set_firewall(request).await?.into_inner())
}

async fn show(client: &mut Client, printer: &mut Printer<'_>) -> Result<(), Error> {
    let (firewall, revision, problems) = get(client).await?;
    let text = || {
        let rows = firewall.rules.iter().map(|rule| {
            vec![word(rule.action).to_owned(), subject_text(&rule.subject), or_dash(&rule.comment)]
        });
        let limit = |rate: u32, burst: u32| match (rate, burst) {
            (0, _) => "no limit".to_owned(),
            (rate, 0) => format!("{rate}/s"),
            (rate, burst) => format!("{rate}/s, burst {burst}"),
        };
        let rate = &firewall.rate;
        let mut rows_below = vec![
            ("default", word(firewall.default).to_owned()),
            ("per address", limit(rate.per_address, rate.address_burst)),
            ("per prefix", limit(rate.per_prefix, rate.prefix_burst)),
        ];
        rows_below.extend(problems.iter().map(|problem| ("PROBLEM", problem.clone())));
        let rest = list(&rows_below);
        format!("{}\n{rest}", table(&["ACTION", "SUBJECT", "COMMENT"], &rows.collect::<Vec<_>>()))
    };
    Ok(printer.print(|| json!({ "revision": revision, "firewall": firewall, "problems": problems }), text)?)
}

async fn watch(client: &mut Client, printer: &mut Printer<'_>) -> Result<(), Error> {
    let mut drops = client.watch_drops(WatchDropsRequest {}).await?.into_inner();
    while let Some(drop) = drops.next().await {
        let drop = drop?;
        let text = || {
            let lost =
                if drop.lost > 0 { format!(" ({} before it were lost)", drop.lost) } else { String::new() };
            format!(
                "{:<7} {:<15} {} -> {} {}{lost}",
                drop.r#where,
                drop.reason,
                or_dash(&drop.source),
                or_dash(&drop.destination),
                drop.interface
            )
        };
        printer.line(|| json!(drop), text)?;
    }
    Ok(())
}

fn action_of(word: &str) -> Action {
    if word == "deny" { Action::Deny } else { Action::Allow }
}

const fn word(action: Action) -> &'static str {
    match action {
        Action::Allow => "allow",
        Action::Deny => "deny",
    }
}
