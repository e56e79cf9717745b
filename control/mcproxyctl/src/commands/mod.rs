//! One module for each kind of thing that is operated.

mod backend;
mod certificate;
mod connection;
mod firewall;
mod listener;
mod policy;
mod route;
mod stats;
mod tap;
mod top;

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;

use anyhow::Context as _;
use clap::CommandFactory as _;
use mc_api::mcproxy::client::{self, Client, Target};
use mc_api::mcproxy::{
    Disposition, Event, GetCapabilitiesRequest, GetStatusRequest, OldProcess, UpgradeRequest,
    WatchEventsRequest,
};
use mcdsl::ctl::{Printer, duration, list, table};
use mcdsl::terminal::{bytes, or_dash};
use serde::Serialize;
use serde_json::{Value, json};
use tokio_stream::StreamExt as _;
use tonic::{Code, Status};

use crate::cli::{Cli, Command, Reach};
use crate::error::Error;

pub(crate) use backend::health_word;
pub(crate) use stats::refusals;

/// Does what was asked; data goes to `out`.
pub(crate) async fn run(cli: Cli, out: &mut dyn Write) -> Result<(), Error> {
    if let Command::Completion { shell } = cli.command {
        // By way of memory: the generator panics where its writer fails.
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "mcproxyctl", &mut script);
        return Ok(out.write_all(&script)?);
    }
    let asks = Asks { yes: cli.yes };
    let mut client = client::connect(&target(&cli.reach)?).await?;
    let mut printer = Printer::new(out, cli.output);
    match cli.command {
        Command::Status => status(&mut client, &mut printer).await,
        Command::Upgrade => upgrade(&mut client, &mut printer).await,
        Command::Route(command) => route::run(command, &mut client, &mut printer, asks).await,
        Command::Policy(command) => policy::run(command, &mut client, &mut printer, asks).await,
        Command::Listener(command) => listener::run(command, &mut client, &mut printer, asks).await,
        Command::Firewall(command) => firewall::run(command, &mut client, &mut printer, asks).await,
        Command::Capabilities => capabilities(&mut client, &mut printer).await,
        Command::Certificate(command) => certificate::run(command, &mut client, &mut printer).await,
        Command::Backend(command) => backend::run(command, &mut client, &mut printer, asks).await,
        Command::Connection(command) => connection::run(command, &mut client, &mut printer, asks).await,
        Command::Stats { top } => stats::run(top, &mut client, &mut printer).await,
        Command::Events => events(&mut client, &mut printer).await,
        Command::Tap(key) => tap::run(&key, &mut client, &mut printer).await,
        Command::Top { once } => top::run(once, &mut client, &mut printer).await,
        Command::Completion { .. } => Ok(()),
    }
}

fn target(reach: &Reach) -> Result<Target, Error> {
    match (&reach.address, &reach.ca, &reach.token_file) {
        (None, None, None) => Ok(Target::Socket(reach.socket.clone())),
        (Some(url), Some(ca), Some(token_file)) => {
            Ok(Target::Tls { url: url.clone(), ca: ca.clone(), token_file: token_file.clone() })
        }
        _ => Err(Error::Usage("--address, --ca and --token-file go together".to_owned())),
    }
}

async fn status(client: &mut Client, printer: &mut Printer<'_>) -> Result<(), Error> {
    let status = client.get_status(GetStatusRequest {}).await?.into_inner();
    let database = |text: &str| if text.is_empty() { "none configured".to_owned() } else { text.to_owned() };
    let table = || {
        let mut rows = vec![
            ("version", status.version.clone()),
            ("process", format!("{} (pid {})", status.process, status.pid)),
            ("up", duration(status.uptime_ms)),
            ("revision", status.revision.to_string()),
            ("workers", status.workers.to_string()),
            ("listeners", status.listeners.to_string()),
            ("routes", status.routes.to_string()),
            ("on hold", format!("{} routes, {} waiting", status.routes_on_hold, status.waiting)),
            ("connections", status.connections.to_string()),
            ("countries", database(&status.country_database)),
            ("ASNs", database(&status.asn_database)),
        ];
        rows.extend(status.draining.iter().map(|old| ("old process", old_process(old))));
        rows.extend(status.problems.iter().map(|problem| ("PROBLEM", problem.clone())));
        list(&rows)
    };
    Ok(printer.print(|| json!(status), table)?)
}

/// A process that has handed over, in words.
fn old_process(old: &OldProcess) -> String {
    let until = old.closes_after_ms.map_or("until they end".to_owned(), |ms| format!("for {}", duration(ms)));
    let since = duration(old.since_ms);
    let OldProcess { process, pid, version, connections, .. } = old;
    format!("{process} (pid {pid}), version {version}, since {since}: {connections} connections {until}")
}

async fn upgrade(client: &mut Client, printer: &mut Printer<'_>) -> Result<(), Error> {
    let new = client.upgrade(UpgradeRequest {}).await?.into_inner();
    let text =
        || format!("mc-proxy {} has taken over: process {} (pid {})\n", new.version, new.process, new.pid);
    Ok(printer.print(|| json!(new), text)?)
}

async fn capabilities(client: &mut Client, printer: &mut Printer<'_>) -> Result<(), Error> {
    let capabilities = client.get_capabilities(GetCapabilitiesRequest {}).await?.into_inner().capabilities;
    let text = || {
        let rows = capabilities.iter().map(|it| vec![it.name.clone(), it.state.clone(), or_dash(&it.detail)]);
        table(&["CAPABILITY", "STATE", "DETAIL"], &rows.collect::<Vec<_>>())
    };
    Ok(printer.print(|| json!(capabilities), text)?)
}

async fn events(client: &mut Client, printer: &mut Printer<'_>) -> Result<(), Error> {
    let mut events = client.watch_events(WatchEventsRequest {}).await?.into_inner();
    while let Some(event) = events.next().await {
        let event: Event = event?;
        let detail = || serde_json::from_str(&event.detail).unwrap_or(Value::Null);
        let json = || {
            json!({
                "unix_ms": event.unix_ms, "revision": event.revision, "kind": event.kind,
                "subject": event.subject, "detail": detail(),
            })
        };
        let text = || format!("{:<18} {} {}", event.kind, or_dash(&event.subject), event.detail);
        printer.line(json, text)?;
    }
    Ok(())
}

/// Asks before what cannot be taken back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asks {
    /// Whether `--yes` was given.
    yes: bool,
}

impl Asks {
    /// Asks, unless `--yes` was given.
    fn confirm(self, question: &str) -> Result<(), Error> {
        if self.yes || mcdsl::terminal::confirm(question).map_err(anyhow::Error::from)? {
            return Ok(());
        }
        Err(Error::Declined)
    }
}

/// What a refusal to replace says here: where `what` exists, it is changed by another command.
fn exists(status: Status, what: &str, update: &str) -> Error {
    match status.code() {
        Code::AlreadyExists => Error::Exists(format!(
            "{what} exists: change it with {update}, or replace it as a whole with --replace"
        )),
        _ => status.into(),
    }
}

/// A setting that is another than before.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Difference {
    setting: String,
    /// JSON; `None`: it was not set.
    before: Option<Value>,
    after: Option<Value>,
}

/// In what two settings of the same kind differ.
fn differences<T: Serialize>(before: &T, after: &T) -> Vec<Difference> {
    fn collect(at: &str, before: Option<&Value>, after: Option<&Value>, found: &mut Vec<Difference>) {
        if before == after {
            return;
        }
        let none = serde_json::Map::new();
        let (left, right) = match (before, after) {
            (Some(Value::Object(left)), Some(Value::Object(right))) => (left, right),
            (Some(Value::Object(left)), None) => (left, &none),
            (None, Some(Value::Object(right))) => (&none, right),
            _ => {
                let setting = at.to_owned();
                found.push(Difference { setting, before: before.cloned(), after: after.cloned() });
                return;
            }
        };
        let keys: BTreeSet<&String> = left.keys().chain(right.keys()).collect();
        for key in keys {
            let at = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
            collect(&at, left.get(key), right.get(key), found);
        }
    }
    let mut found = Vec::new();
    collect("", Some(&json!(before)), Some(&json!(after)), &mut found);
    found
}

/// A line for each.
fn difference_lines(changes: &[Difference]) -> String {
    let word = |value: &Option<Value>| value.as_ref().map_or("default".to_owned(), ToString::to_string);
    let line = |it: &Difference| format!("  {}: {} -> {}\n", it.setting, word(&it.before), word(&it.after));
    changes.iter().map(line).collect()
}

/// What becomes of connections.
fn disposition(kill: bool) -> i32 {
    i32::from(if kill { Disposition::Kill } else { Disposition::Drain })
}

/// Says on standard error what was done, where no data says it.
fn say(what: &str) {
    eprintln!("{what}");
}

/// A TOML file as a type of ours.
fn read_toml<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, Error> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(toml::from_str(&text).with_context(|| format!("{} is not as it must be", path.display()))?)
}

/// `in / out` in words.
fn moved(bytes_in: u64, bytes_out: u64) -> [String; 2] {
    [bytes(bytes_in), bytes(bytes_out)]
}
