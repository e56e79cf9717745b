//! Backends.

use mc_api::mcproxy::client::Client;
use mc_api::mcproxy::{BackendState, DrainBackendRequest, Health, ListBackendsRequest};
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
pub(crate) fn health_word(backend: &BackendState) -> &'static str {
    match backend.health() {
        Health::Up => "up",
        Health::Down => "down",
        Health::Ejected => "ejected",
        Health::Unknown => "unknown",
    }
}

fn view(backend: &BackendState) -> Value {
    let mut value = json!(backend);
    value["health"] = json!(health_word(backend));
    value
}

fn backends_table(backends: &[BackendState]) -> String {
    let rows = backends.iter().map(|backend| {
        let drain = if backend.draining { ", draining" } else { "" };
        vec![
            backend.address.clone(),
            format!("{}{drain}", health_word(backend)),
            duration(backend.since_ms),
            backend.connections.to_string(),
            backend.total.to_string(),
            backend.failures.to_string(),
            backend.routes.to_string(),
            or_dash(&backend.last_error),
        ]
    });
    let head = ["ADDRESS", "HEALTH", "SINCE", "ACTIVE#", "TOTAL#", "FAILED#", "ROUTES#", "LAST ERROR"];
    table(&head, &rows.collect::<Vec<_>>())
}
