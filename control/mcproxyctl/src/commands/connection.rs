//! Live connections.

use mc_api::mcproxy::client::Client;
use mc_api::mcproxy::{Connection as Live, ConnectionFilter, KillConnectionsRequest, ListConnectionsRequest};
use mcdsl::ctl::{Printer, duration, table};
use mcdsl::terminal::or_dash;
use serde_json::{Value, json};
use tokio_stream::StreamExt as _;

use super::{Asks, moved};
use crate::cli::{Connection, Filter};
use crate::error::Error;

pub(super) async fn run(
    command: Connection,
    client: &mut Client,
    printer: &mut Printer<'_>,
    asks: Asks,
) -> Result<(), Error> {
    match command {
        Connection::List { filter, limit } => {
            let request = ListConnectionsRequest { filter: Some(message(filter, Vec::new())), limit };
            let mut stream = client.list_connections(request).await?.into_inner();
            let mut live = Vec::new();
            while let Some(connection) = stream.next().await {
                live.push(connection?);
            }
            let json = || live.iter().map(view).collect();
            Ok(printer.print(json, || connections_table(&live))?)
        }
        Connection::Kill { ids, filter, all } => {
            let ids: Vec<u64> = ids.into_iter().map(|id| id.0).collect();
            if ids.is_empty() {
                let which = if all { "all connections" } else { "all connections that match" };
                asks.confirm(&format!("Close {which}?"))?;
            }
            let request = KillConnectionsRequest { filter: Some(message(filter, ids)), all };
            let reply = client.kill_connections(request).await?.into_inner();
            Ok(printer.print(|| json!(reply), || format!("{}\n", ended(reply.killed, reply.requests)))?)
        }
    }
}

/// What was ended, in words.
pub(super) fn ended(connections: u64, requests: u64) -> String {
    match requests {
        0 => format!("{connections} connections closed"),
        _ => format!("{connections} connections closed, {requests} requests of others ended"),
    }
}

fn message(filter: Filter, ids: Vec<u64>) -> ConnectionFilter {
    ConnectionFilter {
        ids,
        listener: filter.listener.unwrap_or_default(),
        name: filter.name.unwrap_or_default(),
        client_network: filter.client.map(|network| network.to_string()).unwrap_or_default(),
        backend: filter.backend.map(|address| address.to_string()).unwrap_or_default(),
    }
}

/// Ids are written as in the access log: JSON's numbers would not hold them.
fn view(connection: &Live) -> Value {
    let mut value = json!(connection);
    value["id"] = json!(id_text(connection.id));
    value
}

fn id_text(id: u64) -> String {
    format!("{id:016x}")
}

fn connections_table(live: &[Live]) -> String {
    let rows = live.iter().map(|connection| {
        let [bytes_in, bytes_out] = moved(connection.bytes_in, connection.bytes_out);
        vec![
            id_text(connection.id),
            connection.client.clone(),
            connection.listener.clone(),
            or_dash(&connection.name),
            or_dash(&connection.backend),
            connection.phase.clone(),
            duration(connection.age_ms),
            duration(connection.idle_ms),
            bytes_in,
            bytes_out,
        ]
    });
    let head = ["ID", "CLIENT", "LISTENER", "NAME", "BACKEND", "PHASE", "AGE#", "IDLE#", "IN#", "OUT#"];
    table(&head, &rows.collect::<Vec<_>>())
}
