//! From samples to a table for people and a JSON for programs.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::Context as _;
use serde::Serialize;
use serde_json::json;

use crate::cell::{Measured, Row, Sizes};
use crate::peer::Peer;
use crate::stats::Summary;

/// A line of the table.
#[derive(Debug)]
pub(crate) struct Metric {
    /// Its name in JSON and in [`Measured::values`].
    id: &'static str,
    /// What is measured, in which unit.
    title: &'static str,
    /// Digits after the point.
    digits: usize,
    /// What is demanded of MC-Proxy.
    demand: Option<Demand>,
}

/// What MC-Proxy's median, divided by another median of the same run, may be at most.
#[derive(Clone, Copy, Debug)]
struct Demand {
    /// Whose.
    of: Peer,
    /// Of which metric.
    metric: &'static str,
    /// At most.
    at_most: f64,
}

/// Where and how it was measured.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Environment {
    /// Day, UTC.
    pub(crate) date: String,
    /// Kernel's release.
    pub(crate) kernel: String,
    /// Processor's name.
    pub(crate) cpu: String,
    /// Cores that we may use.
    pub(crate) cores: usize,
    /// Load average of the last minute, before: whatever else runs disturbs.
    pub(crate) load: f64,
    /// How often everything was measured.
    pub(crate) rounds: u32,
    /// Whether sizes were cut.
    pub(crate) quick: bool,
    /// How much of everything.
    pub(crate) sizes: Sizes,
    /// Kernel settings of the namespace.
    pub(crate) sysctls: BTreeMap<&'static str, &'static str>,
    /// What each program says it is.
    pub(crate) versions: BTreeMap<Peer, String>,
}

/// All that was measured.
#[derive(Debug)]
pub(crate) struct Report {
    environment: Environment,
    samples: BTreeMap<(String, Peer), Vec<f64>>,
    /// What was not answered as it should.
    pub(crate) failures: Vec<String>,
    unable: Vec<(Row, Peer, String)>,
}

impl Report {
    /// An empty one.
    pub(crate) const fn new(environment: Environment) -> Self {
        Self { environment, samples: BTreeMap::new(), failures: Vec::new(), unable: Vec::new() }
    }

    /// Adds a measurement.
    pub(crate) fn add(&mut self, peer: Peer, row: Row, measured: Measured) {
        for (metric, value) in measured.values {
            self.samples.entry((metric, peer)).or_default().push(value);
        }
        let failures = measured.failures.into_iter();
        self.failures.extend(failures.map(|failure| format!("{row:?}, {}: {failure}", peer.title())));
        self.unable.extend(measured.unable.map(|reason| (row, peer, reason)));
    }

    /// The table with what it was measured on, as Markdown.
    pub(crate) fn markdown(&self) -> String {
        let peers: Vec<Peer> = self.environment.versions.keys().copied().collect();
        let mut text = self.heading();
        let columns: Vec<&str> = peers.iter().map(|peer| peer.title()).collect();
        line(&mut text, format_args!("| | {} | demanded | reached |", columns.join(" | ")));
        line(&mut text, format_args!("|---|{}---|---|", "---|".repeat(peers.len())));
        for metric in METRICS {
            let cells: Vec<String> = peers.iter().map(|peer| self.cell(metric, *peer)).collect();
            if cells.iter().any(|cell| !cell.is_empty()) {
                let (demanded, reached) = self.judged(metric);
                let cells = cells.join(" | ");
                line(&mut text, format_args!("| {} | {cells} | {demanded} | {reached} |", metric.title));
            }
        }
        for (row, peer, reason) in &self.unable {
            line(&mut text, format_args!("\n{}, {row:?}: {reason}.", peer.title()));
        }
        for failure in &self.failures {
            line(&mut text, format_args!("\n**Failed**: {failure}."));
        }
        text
    }

    /// Everything, for programs.
    pub(crate) fn json(&self) -> serde_json::Value {
        let metrics: Vec<_> = METRICS.iter().filter_map(|metric| self.json_metric(metric)).collect();
        json!({
            "environment": self.environment,
            "metrics": metrics,
            "failures": self.failures,
            "unable": self.unable.iter()
                .map(|(row, peer, reason)| json!({ "row": row, "proxy": peer, "reason": reason }))
                .collect::<Vec<_>>(),
        })
    }

    fn heading(&self) -> String {
        let Environment { date, kernel, cpu, cores, rounds, quick, load, versions, .. } = &self.environment;
        let busy = if *load > 0.5 { format!(" **Load average before: {load}.**") } else { String::new() };
        let versions: Vec<&str> = versions.values().map(String::as_str).collect();
        let rough = if *quick { " **Quick: rough figures.**" } else { "" };
        format!(
            "{date}, Linux {kernel}, {cpu}, {cores} cores; {}. Median of {rounds} rounds (smallest to \
             largest).{rough}{busy}\n\n",
            versions.join("; ")
        )
    }

    fn cell(&self, metric: &Metric, peer: Peer) -> String {
        let Some(Summary { median, min, max, .. }) = Summary::of(&self.samples_of(metric.id, peer)) else {
            return String::new();
        };
        let digits = metric.digits;
        if self.environment.rounds == 1 {
            return format!("{median:.digits$}");
        }
        format!("{median:.digits$} ({min:.digits$} to {max:.digits$})")
    }

    /// What is demanded and whether it was reached, in words; both empty where nothing is or cannot be told.
    fn judged(&self, metric: &Metric) -> (String, String) {
        let Some(demand) = metric.demand else { return Default::default() };
        let whom = if demand.of == Peer::McProxy { "its 10 routes" } else { demand.of.title() };
        let demanded = format!("at most {:.2} of {whom}", demand.at_most);
        let reached = match self.ratio(metric.id, demand) {
            Some(ratio) if ratio <= demand.at_most => format!("yes: {ratio:.2}"),
            Some(ratio) => format!("**no: {ratio:.2}**"),
            None => String::new(),
        };
        (demanded, reached)
    }

    fn ratio(&self, metric: &str, demand: Demand) -> Option<f64> {
        let ours = Summary::of(&self.samples_of(metric, Peer::McProxy))?;
        let theirs = Summary::of(&self.samples_of(demand.metric, demand.of))?;
        Some(ours.median / theirs.median)
    }

    fn json_metric(&self, metric: &Metric) -> Option<serde_json::Value> {
        let peers = self.environment.versions.keys();
        let proxies: BTreeMap<Peer, _> = peers
            .filter_map(|peer| {
                let samples = self.samples_of(metric.id, *peer);
                let summary = Summary::of(&samples)?;
                Some((*peer, json!({ "samples": samples, "summary": summary })))
            })
            .collect();
        let demand = metric.demand.map(|demand| {
            let ratio = self.ratio(metric.id, demand);
            let reached = ratio.map(|ratio| ratio <= demand.at_most);
            json!({ "of": demand.of, "metric": demand.metric, "at_most": demand.at_most, "ratio": ratio,
                    "reached": reached })
        });
        (!proxies.is_empty())
            .then(|| json!({ "id": metric.id, "title": metric.title, "proxies": proxies, "demand": demand }))
    }

    /// The samples of a metric; of a round trip's latency, what the proxy adds to the direct one of its round.
    fn samples_of(&self, metric: &str, peer: Peer) -> Vec<f64> {
        let samples = |peer| self.samples.get(&(metric.to_owned(), peer)).cloned().unwrap_or_default();
        let ours = samples(peer);
        if !metric.starts_with("ping_") {
            return ours;
        }
        ours.iter().zip(samples(Peer::Direct)).map(|(proxied, direct)| proxied - direct).collect()
    }
}

/// Puts the table of these rows between its markers in a document.
///
/// # Errors
/// The document lacks a marker.
pub(crate) fn replace_section(document: &str, suite: &str, table: &str) -> anyhow::Result<String> {
    let [begin, end] = ["begin", "end"].map(|word| format!("<!-- mc-bench {suite}: {word} -->"));
    let (before, rest) =
        document.split_once(&begin).with_context(|| format!("the document lacks {begin}"))?;
    let (_, after) = rest.split_once(&end).with_context(|| format!("the document lacks {end}"))?;
    Ok(format!("{before}{begin}\n{table}{end}{after}"))
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("writing to a string");
}

const fn metric(id: &'static str, title: &'static str, digits: usize) -> Metric {
    Metric { id, title, digits, demand: None }
}

const fn bound(id: &'static str, title: &'static str, digits: usize, of: Peer, at_most: f64) -> Metric {
    Metric { id, title, digits, demand: Some(Demand { of, metric: id, at_most }) }
}

/// The lines of the table. A million routes may cost what a run's noise is (5 %) more than ten.
const METRICS: &[Metric] = &[
    bound("new", "New connections, CPU-s per 1,000", 4, Peer::Nginx, 0.83),
    bound("pq", "... with a post-quantum ClientHello", 4, Peer::Nginx, 0.83),
    bound("bulk_1_down", "Bulk to the client, 1 connection, CPU-s per GiB", 3, Peer::Sozu, 0.50),
    bound("bulk_1_up", "Bulk to the backend, 1 connection", 3, Peer::Sozu, 0.50),
    bound("bulk_16_down", "Bulk to the client, 16 connections", 3, Peer::Sozu, 0.50),
    bound("bulk_16_up", "Bulk to the backend, 16 connections", 3, Peer::Sozu, 0.50),
    metric("rate_1_down", "Rate to the client, 1 connection, GiB/s", 2),
    metric("rate_1_up", "Rate to the backend, 1 connection", 2),
    metric("rate_16_down", "Rate to the client, 16 connections", 2),
    metric("rate_16_up", "Rate to the backend, 16 connections", 2),
    metric("ping_p50", "Added to a 64-byte round trip, p50, us", 0),
    metric("ping_p99", "Added to a 64-byte round trip, p99, us", 0),
    metric("pong", "1 KiB round trips over 64 connections, CPU-s per 100,000", 3),
    bound("idle", "Idle connection, KiB (PSS)", 2, Peer::Haproxy, 1.0),
    metric("start_10", "Start with 10 routes, s", 3),
    metric("start_100000", "Start with 100,000 routes, s", 3),
    metric("start_1000000", "Start with 1,000,000 routes, s", 3),
    metric("mib_10", "Memory with 10 routes, MiB (PSS)", 1),
    metric("mib_100000", "Memory with 100,000 routes, MiB", 1),
    metric("mib_1000000", "Memory with 1,000,000 routes, MiB", 1),
    metric("new_10", "New connections with 10 routes, CPU-s per 1,000", 4),
    metric("new_100000", "New connections with 100,000 routes", 4),
    Metric {
        demand: Some(Demand { of: Peer::McProxy, metric: "new_10", at_most: 1.05 }),
        ..metric("new_1000000", "New connections with 1,000,000 routes", 4)
    },
    metric("changes_made", "Routes added under load", 0),
    metric("changes_ms", "Until one is acknowledged, p50, ms", 1),
    metric("changes_new", "New connections meanwhile", 0),
    metric("changes_failed", "... of which failed", 0),
    metric("changes_lost", "Streams lost, of 50", 0),
    bound("handshake", "Full TLS 1.3 handshake and a GET, CPU-s per 1,000", 4, Peer::Sozu, 0.71),
    bound("resumed", "Resumed TLS 1.3 handshake and a GET", 4, Peer::Sozu, 0.74),
    bound("h1", "HTTP/1.1 over TLS, 1 KiB, CPU-s per 100,000", 3, Peer::Nginx, 0.91),
    bound("h2", "HTTP/2 over TLS, 1 KiB, CPU-s per 100,000", 3, Peer::Haproxy, 0.96),
    bound("bodies", "64 MiB bodies over TLS, CPU-s per GiB", 3, Peer::Haproxy, 0.63),
    bound("idle_l7", "Idle connection after a GET over TLS, KiB (PSS)", 2, Peer::Nginx, 0.82),
    metric("h1_rate", "HTTP/1.1, requests per second", 0),
    metric("h2_rate", "HTTP/2, requests per second", 0),
    metric("bodies_rate", "64 MiB bodies, GiB/s", 2),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn report(rounds: u32) -> Report {
        let sizes = Sizes {
            churn: 1,
            bulk_mib: 1,
            ping: 1,
            pong: 1,
            idle: 1,
            change_s: 1,
            handshakes: 1,
            requests: 1,
            bodies: 1,
            idle_http: 1,
        };
        let versions = [(Peer::McProxy, "ours 1".to_owned()), (Peer::Nginx, "nginx 2".to_owned())].into();
        Report::new(Environment {
            date: "2001-02-03".to_owned(),
            kernel: "6".to_owned(),
            cpu: "cpu".to_owned(),
            cores: 2,
            load: 0.0,
            rounds,
            quick: false,
            sizes,
            sysctls: BTreeMap::new(),
            versions,
        })
    }

    fn add(report: &mut Report, peer: Peer, metric: &str, values: &[f64]) {
        for value in values {
            let values = [(metric.to_owned(), *value)].into();
            report.add(peer, Row::New, Measured { values, ..Measured::default() });
        }
    }

    #[test]
    fn table_judges_the_ratio_of_medians() {
        let mut report = report(3);
        add(&mut report, Peer::McProxy, "new", &[0.04, 0.03, 0.05]);
        add(&mut report, Peer::Nginx, "new", &[0.05, 0.05, 0.06]);
        add(&mut report, Peer::McProxy, "pq", &[0.05, 0.05, 0.05]);
        add(&mut report, Peer::Nginx, "pq", &[0.05, 0.05, 0.05]);
        let table = report.markdown();
        let new = "| New connections, CPU-s per 1,000 | 0.0400 (0.0300 to 0.0500) | 0.0500 (0.0500 to 0.0600) | \
                   at most 0.83 of nginx | yes: 0.80 |";
        assert!(table.contains(new), "{table}");
        assert!(table.contains("| at most 0.83 of nginx | **no: 1.00** |"), "{table}");
        assert!(!table.contains("Idle"), "a row without samples: {table}");
    }

    #[test]
    fn latency_is_what_the_proxy_adds() {
        let mut report = report(2);
        add(&mut report, Peer::McProxy, "ping_p50", &[100.0, 110.0]);
        add(&mut report, Peer::Direct, "ping_p50", &[40.0, 30.0]);
        assert_eq!(report.samples_of("ping_p50", Peer::McProxy), [60.0, 80.0]);
    }

    #[test]
    fn failures_are_told() {
        let mut report = report(1);
        let failures = vec!["7 failed".to_owned()];
        report.add(Peer::Nginx, Row::Bulk, Measured { failures, ..Measured::default() });
        assert!(report.markdown().contains("**Failed**: Bulk, nginx: 7 failed."));
        assert_eq!(report.json()["failures"][0], "Bulk, nginx: 7 failed");
    }

    #[test]
    fn json_has_samples_and_verdict() {
        let mut report = report(1);
        add(&mut report, Peer::McProxy, "new", &[0.04]);
        add(&mut report, Peer::Nginx, "new", &[0.08]);
        let json = report.json();
        assert_eq!(json["metrics"][0]["proxies"]["mc-proxy"]["samples"][0], 0.04);
        assert_eq!(json["metrics"][0]["demand"]["reached"], true);
    }

    #[test]
    fn section_is_replaced_between_markers() {
        let document = "a\n<!-- mc-bench l7: begin -->\nold\n<!-- mc-bench l7: end -->\nb\n";
        let replaced = replace_section(document, "l7", "new\n").unwrap();
        assert_eq!(replaced, document.replace("old", "new"));
        assert_eq!(replace_section(&replaced, "l7", "new\n").unwrap(), replaced);
        assert!(replace_section(document, "l4", "new").is_err());
    }
}
