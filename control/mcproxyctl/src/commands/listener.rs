//! Listeners.

use std::net::SocketAddr;

use anyhow::Context as _;
use mc_api::mcproxy::client::Client;
use mc_api::mcproxy::{AddListenerRequest, ListListenersRequest, RemoveListenerRequest};
use mc_core::model::{Listener as Model, ProxyIn, default_hello_timeout_ms, default_max_hello_bytes};
use mcdsl::ctl::{Printer, table};
use mcdsl::terminal::or_dash;
use serde_json::json;

use super::{Asks, difference_lines, differences, disposition, exists};
use crate::cli::{Listener, ListenerSettings};
use crate::error::Error;
use crate::parse::NoneOr;

pub(super) async fn run(
    command: Listener,
    client: &mut Client,
    printer: &mut Printer<'_>,
    asks: Asks,
) -> Result<(), Error> {
    match command {
        Listener::List => list(client, printer).await,
        Listener::Add { name, address, settings, replace } => {
            let new = apply(&settings, fresh(name, address));
            let before = if replace { find(client, &new.name).await? } else { None };
            put(client, printer, &new, before.as_ref()).await
        }
        Listener::Update { name, address, settings } => {
            let Some(before) = find(client, &name).await? else {
                return Err(Error::NotFound(format!("there is no listener {name}: see `listener list`")));
            };
            let address = address.unwrap_or(before.address);
            put(client, printer, &apply(&settings, Model { address, ..before.clone() }), Some(&before)).await
        }
        Listener::Remove { name, with_routes, owner, kill } => {
            let routes = if with_routes { " and all its routes" } else { "" };
            let kill_too = if kill { ", and close its connections" } else { "" };
            asks.confirm(&format!("Remove listener {name}{routes}{kill_too}?"))?;
            let request = RemoveListenerRequest {
                name,
                with_routes,
                connections: disposition(kill),
                owner: owner.name(),
                override_owner: owner.override_owner,
            };
            let change = client.remove_listener(request).await?.into_inner();
            Ok(printer.print(|| json!(change), || format!("removed at revision {}\n", change.revision))?)
        }
    }
}

/// A listener with the defaults.
fn fresh(name: String, address: SocketAddr) -> Model {
    Model {
        name,
        address,
        proxy_protocol: ProxyIn::Off,
        trusted: Vec::new(),
        steered: Vec::new(),
        hello_timeout_ms: default_hello_timeout_ms(),
        max_hello_bytes: default_max_hello_bytes(),
    }
}

/// Sets what was given.
fn apply(settings: &ListenerSettings, mut listener: Model) -> Model {
    match settings.proxy_protocol.as_deref() {
        Some("required") => listener.proxy_protocol = ProxyIn::Required,
        Some("optional") => listener.proxy_protocol = ProxyIn::Optional,
        Some(_) => listener.proxy_protocol = ProxyIn::Off,
        None => {}
    }
    listener.trusted = NoneOr::values(&settings.trusted).unwrap_or(listener.trusted);
    listener.steered = NoneOr::values(&settings.steer).unwrap_or(listener.steered);
    listener.hello_timeout_ms = settings.hello_timeout_ms.unwrap_or(listener.hello_timeout_ms);
    listener.max_hello_bytes = settings.max_hello_bytes.unwrap_or(listener.max_hello_bytes);
    listener
}

async fn find(client: &mut Client, name: &str) -> Result<Option<Model>, Error> {
    let all = client.list_listeners(ListListenersRequest {}).await?.into_inner().listeners;
    let found = all.into_iter().filter_map(|state| state.listener).find(|listener| listener.name == name);
    found.map(|it| Ok(Model::try_from(it).context("the proxy's answer is of a newer version")?)).transpose()
}

/// Adds a listener, or puts it in the place of `before`.
async fn put(
    client: &mut Client,
    printer: &mut Printer<'_>,
    listener: &Model,
    before: Option<&Model>,
) -> Result<(), Error> {
    let request = AddListenerRequest {
        listener: Some(listener.into()),
        only_new: before.is_none(),
        expected: before.map(Into::into),
    };
    let change = client
        .add_listener(request)
        .await
        .map_err(|status| exists(status, &format!("listener {}", listener.name), "`listener update`"))?;
    let change = change.into_inner();
    let stored = change.listener.context("the proxy answered without the listener")?;
    let stored = Model::try_from(stored).context("the proxy's answer is of a newer version")?;
    let changes = before.map(|before| differences(before, &stored)).unwrap_or_default();
    let what = match (change.created, changes.is_empty()) {
        (true, _) => "added",
        (false, false) => "changed",
        (false, true) => "already so",
    };
    let json = || {
        json!({
            "revision": change.revision, "created": change.created, "listener": stored, "changes": changes,
        })
    };
    let text = || {
        let first = format!("{} {what} on {} at revision {}\n", stored.name, stored.address, change.revision);
        first + &difference_lines(&changes)
    };
    Ok(printer.print(json, text)?)
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
