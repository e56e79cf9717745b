//! Backends.

use mc_api::mcproxy::client::Client;
use mc_api::mcproxy::{BackendState, CheckState, DrainBackendRequest, Health, ListBackendsRequest};
use mcdsl::ctl::{Printer, duration, table};
use mcdsl::terminal::or_dash;
use serde_json::{Value, json};

use super::Asks;
use super::connection::ended;
use crate::cli::Backend;
use crate::error::Error;

pub(super) async fn run(
    command: Backend,
    client: &mut Client,
    printer: &mut Printer<'_>,
    asks: Asks,
) -> Result<(), Error> {
    let request = match command {
        Backend::List => {
            let backends = client.list_backends(ListBackendsRequest {}).await?.into_inner().backends;
            let json = || backends.iter().map(view).collect();
            return Ok(printer.print(json, || backends_table(&backends))?);
        }
        Backend::Drain { address, kill } => {
            if kill {
                asks.confirm(&format!("Close all connections to {address}?"))?;
            }
            DrainBackendRequest { address: address.to_string(), drain: true, kill }
        }
        Backend::Undrain { address } => {
            DrainBackendRequest { address: address.to_string(), drain: false, kill: false }
        }
    };
    let kill = request.kill;
    let reply = client.drain_backend(request).await?.into_inner();
    let text = || match kill {
        false => format!("live at revision {}\n", reply.revision),
        true => format!("live at revision {}; {}\n", reply.revision, ended(reply.killed, reply.requests)),
    };
    Ok(printer.print(|| json!(reply), text)?)
}

/// Health in a word.
pub(crate) fn health_word(health: Health) -> &'static str {
    match health {
        Health::Up => "up",
        Health::Down => "down",
        Health::PartlyDown => "partly down",
        Health::Ejected => "ejected",
        Health::Unknown => "unknown",
    }
}

/// A check below its backend.
fn check_row(check: &CheckState) -> Vec<String> {
    let names = check.some_routes.iter().map(|key| match key.alpn.as_str() {
        "" => format!("{}/{}", key.listener, key.name),
        alpn => format!("{}/{}#{alpn}", key.listener, key.name),
    });
    let named = u64::try_from(check.some_routes.len()).unwrap_or(u64::MAX);
    let more = check.routes.saturating_sub(named);
    let more = (more > 0).then(|| format!("{more} more"));
    let routes = names.chain(more).collect::<Vec<_>>().join(", ");
    let colon = if check.last_error.is_empty() { "" } else { ": " };
    vec![
        format!("  {}", check.summary),
        health_word(check.health()).to_owned(),
        duration(check.since_ms),
        String::new(),
        String::new(),
        String::new(),
        check.routes.to_string(),
        format!("{routes}{colon}{}", check.last_error),
    ]
}

fn view(backend: &BackendState) -> Value {
    let mut value = json!(backend);
    value["health"] = json!(health_word(backend.health()));
    for (check, value) in backend.checks.iter().zip(value["checks"].as_array_mut().into_iter().flatten()) {
        value["health"] = json!(health_word(check.health()));
    }
    value
}

fn backends_table(backends: &[BackendState]) -> String {
    let rows = backends.iter().flat_map(|backend| {
        let drain = if backend.draining { ", draining" } else { "" };
        let row = vec![
            backend.address.clone(),
            format!("{}{drain}", health_word(backend.health())),
            duration(backend.since_ms),
            backend.connections.to_string(),
            backend.total.to_string(),
            backend.failures.to_string(),
            backend.routes.to_string(),
            or_dash(&backend.last_error),
        ];
        // Where it is down for some routes only, each check says for which.
        let differs = backend.health() == Health::PartlyDown;
        let checks = backend.checks.iter().filter(move |_| differs).map(check_row);
        std::iter::once(row).chain(checks)
    });
    let head = ["ADDRESS", "HEALTH", "SINCE", "ACTIVE#", "TOTAL#", "FAILED#", "ROUTES#", "LAST ERROR"];
    table(&head, &rows.collect::<Vec<_>>())
}
