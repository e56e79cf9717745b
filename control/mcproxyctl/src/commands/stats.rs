//! Counters.

use mc_api::mcproxy::client::Client;
use mc_api::mcproxy::{GetStatsRequest, RouteStats, Stats};
use mc_core::outcome::Outcome;
use mcdsl::ctl::{Printer, duration, list, table};
use mcdsl::terminal::{bytes, or_dash};
use serde_json::json;

use super::moved;
use crate::error::Error;

pub(super) async fn run(top: u32, client: &mut Client, printer: &mut Printer<'_>) -> Result<(), Error> {
    let stats = client.get_stats(GetStatsRequest { top }).await?.into_inner();
    Ok(printer.print(|| json!(stats), || text(&stats))?)
}

fn text(stats: &Stats) -> String {
    let head = list(&[
        ("up", duration(stats.uptime_ms)),
        ("revision", stats.revision.to_string()),
        ("accepted", stats.accepted.to_string()),
        ("active", stats.active.to_string()),
        ("in", bytes(stats.bytes_in)),
        ("out", bytes(stats.bytes_out)),
    ]);
    let outcomes: Vec<Vec<String>> = Outcome::ALL
        .iter()
        .filter_map(|outcome| {
            Some((outcome, stats.outcomes.get(outcome.as_str()).filter(|&&count| count > 0)?))
        })
        .map(|(outcome, count)| vec![outcome.as_str().to_owned(), count.to_string()])
        .collect();
    let outcomes = table(&["OUTCOME", "CONNECTIONS#"], &outcomes);
    format!("{head}\n{outcomes}\n{}", routes_table(&stats.routes))
}

fn routes_table(routes: &[RouteStats]) -> String {
    let rows = routes.iter().map(|route| {
        let key = route.key.clone().unwrap_or_default();
        let [bytes_in, bytes_out] = moved(route.bytes_in, route.bytes_out);
        let numbers = [route.active, route.total, route.failed].map(|number| number.to_string());
        let [active, total, failed] = numbers;
        vec![key.listener, key.name, or_dash(&key.alpn), active, total, failed, bytes_in, bytes_out]
    });
    let head = ["LISTENER", "NAME", "ALPN", "ACTIVE#", "TOTAL#", "FAILED#", "IN#", "OUT#"];
    table(&head, &rows.collect::<Vec<_>>())
}

/// Refusals by reason, the most frequent first.
pub(crate) fn refusals(stats: &Stats) -> Vec<(&'static str, u64)> {
    let refusals = Outcome::ALL.iter().filter(|outcome| outcome.is_refusal());
    let mut counts: Vec<(&str, u64)> = refusals
        .map(|outcome| (outcome.as_str(), stats.outcomes.get(outcome.as_str()).copied().unwrap_or(0)))
        .filter(|(_, count)| *count > 0)
        .collect();
    counts.sort_by_key(|(word, count)| (std::cmp::Reverse(*count), *word));
    counts
}
