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

use std::io::Write;
use std::path::Path;

use anyhow::Context as _;
use clap::CommandFactory as _;
use mc_api::mcproxy::client::{self, Client, Target};
use mc_api::mcproxy::{Disposition, Event, GetCapabilitiesRequest, GetStatusRequest, WatchEventsRequest};
use mcdsl::ctl::{Printer, duration, list, table};
use mcdsl::terminal::{bytes, or_dash};
use serde_json::json;
use tokio_stream::StreamExt as _;

use crate::cli::{Cli, Command, Reach};
use crate::error::Error;
use crate::top;

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
    let mut client = client::connect(&target(&cli.reach)?).await?;
    let mut printer = Printer::new(out, cli.output);
    match cli.command {
        Command::Status => status(&mut client, &mut printer).await,
        Command::Route(command) => route::run(command, &mut client, &mut printer).await,
        Command::Policy(command) => policy::run(command, &mut client, &mut printer).await,
        Command::Listener(command) => listener::run(command, &mut client, &mut printer).await,
        Command::Firewall(command) => firewall::run(command, &mut client, &mut printer).await,
        Command::Capabilities => capabilities(&mut client, &mut printer).await,
        Command::Certificate(command) => certificate::run(command, &mut client, &mut printer).await,
        Command::Backend(command) => backend::run(command, &mut client, &mut printer).await,
        Command::Connection(command) => connection::run(command, &mut client, &mut printer).await,
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
            ("up", duration(status.uptime_ms)),
            ("revision", status.revision.to_string()),
            ("workers", status.workers.to_string()),
            ("listeners", status.listeners.to_string()),
            ("routes", status.routes.to_string()),
            ("connections", status.connections.to_string()),
            ("countries", database(&status.country_database)),
            ("ASNs", database(&status.asn_database)),
        ];
        rows.extend(status.problems.iter().map(|problem| ("PROBLEM", problem.clone())));
        list(&rows)
    };
    Ok(printer.print(|| json!(status), table)?)
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
        let detail = || serde_json::from_str(&event.detail).unwrap_or(serde_json::Value::Null);
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
