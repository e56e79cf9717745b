//! Listeners.

use anyhow::Context as _;
use mc_api::mcproxy::client::Client;
use mc_api::mcproxy::{AddListenerRequest, ListListenersRequest, RemoveListenerRequest};
use mc_core::model::{Listener as Model, ProxyIn, default_hello_timeout_ms, default_max_hello_bytes};
use mcdsl::ctl::{Printer, table};
use mcdsl::terminal::or_dash;
use serde_json::json;

use super::disposition;
use crate::cli::Listener;
use crate::error::Error;

pub(super) async fn run(
    command: Listener,
    client: &mut Client,
    printer: &mut Printer<'_>,
) -> Result<(), Error> {
    match command {
        Listener::List => list(client, printer).await,
        Listener::Add {
            name,
            address,
            proxy_protocol,
            trusted,
            steer,
            hello_timeout_ms,
            max_hello_bytes,
        } => {
            let listener = Model {
                name,
                address,
                proxy_protocol: match proxy_protocol.as_deref() {
                    Some("required") => ProxyIn::Required,
                    Some("optional") => ProxyIn::Optional,
                    _ => ProxyIn::Off,
                },
                trusted,
                steered: steer,
                hello_timeout_ms: hello_timeout_ms.unwrap_or(default_hello_timeout_ms()),
                max_hello_bytes: max_hello_bytes.unwrap_or(default_max_hello_bytes()),
            };
            let request = AddListenerRequest { listener: Some((&listener).into()) };
            let change = client.add_listener(request).await?.into_inner();
            let stored = change.listener.context("the proxy answered without the listener")?;
            let stored = Model::try_from(stored).context("the proxy's answer is of a newer version")?;
            let what = if change.created { "added" } else { "replaced" };
            let json =
                || json!({ "revision": change.revision, "created": change.created, "listener": stored });
            let text =
                || format!("{} {what} on {} at revision {}\n", stored.name, stored.address, change.revision);
            Ok(printer.print(json, text)?)
        }
        Listener::Remove { name, with_routes, kill } => {
            let request = RemoveListenerRequest { name, with_routes, connections: disposition(kill) };
            let change = client.remove_listener(request).await?.into_inner();
            Ok(printer.print(|| json!(change), || format!("removed at revision {}\n", change.revision))?)
        }
    }
}

async fn list(client: &mut Client, printer: &mut Printer<'_>) -> Result<(), Error> {
    let reply = client.list_listeners(ListListenersRequest {}).await?.into_inner();
    let mut listeners = Vec::new();
    for state in reply.listeners {
        let listener = state.listener.context("the proxy answered without the listener")?;
        let listener = Model::try_from(listener).context("the proxy's answer is of a newer version")?;
        listeners.push((listener, state.accepted, state.routes, state.problem));
    }
    let json = || {
        let one = |(listener, accepted, routes, problem): &(Model, u64, u64, String)| json!({ "listener": listener, "accepted": accepted, "routes": routes, "problem": problem });
        listeners.iter().map(one).collect()
    };
    let text = || {
        let rows = listeners.iter().map(|(listener, accepted, routes, problem)| {
            let trusted: Vec<String> = listener.trusted.iter().map(ToString::to_string).collect();
            let form = match listener.proxy_protocol {
                ProxyIn::Off => "off",
                ProxyIn::Required => "required",
                ProxyIn::Optional => "optional",
            };
            vec![
                listener.name.clone(),
                listener.address.to_string(),
                form.to_owned(),
                or_dash(&trusted.join(" ")),
                routes.to_string(),
                accepted.to_string(),
                or_dash(problem),
            ]
        });
        let columns = ["NAME", "ADDRESS", "PROXY", "TRUSTED", "ROUTES#", "ACCEPTED#", "PROBLEM"];
        table(&columns, &rows.collect::<Vec<_>>())
    };
    Ok(printer.print(json, text)?)
}
