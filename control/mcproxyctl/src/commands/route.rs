//! Routes.

use anyhow::Context as _;
use mc_api::mcproxy::client::Client;
use mc_api::mcproxy::{
    AddRouteRequest, HoldRouteRequest, ListHoldsRequest, ListRoutesRequest, ReleaseRouteRequest,
    RemoveRouteRequest, ReplaceRoutesRequest, RouteChange, RouteHold, RouteKey, UpdateRouteRequest,
};
use mc_core::model::{Balance, Check, CheckKind, ClientAuth, Forwarded, Mode, ProxyOut, Route as Model};
use mcdsl::ctl::{Printer, duration, table};
use mcdsl::terminal::or_dash;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio_stream::StreamExt as _;
use tonic::Code;

use super::{Asks, difference_lines, differences, disposition, exists, read_toml, say};
use crate::cli::{Key, Owner, Route, Settings};
use crate::error::Error;

/// Times that a route is read and changed, where others change it, too.
const EDITS: u32 = 20;

/// Routes in one message of a replacement.
const CHUNK: usize = 1000;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    // Not optional: a file that is empty by mistake must not remove every route.
    routes: Vec<Model>,
}

pub(super) async fn run(
    command: Route,
    client: &mut Client,
    printer: &mut Printer<'_>,
    asks: Asks,
) -> Result<(), Error> {
    match command {
        Route::List { listener, contains } => {
            let routes = routes(client, listener.unwrap_or_default(), contains.unwrap_or_default()).await?;
            let holds = client.list_holds(ListHoldsRequest {}).await?.into_inner().holds;
            let listed: Vec<Listed> = routes.into_iter().map(|route| Listed::new(route, &holds)).collect();
            Ok(printer.print(|| json!(listed), || routes_table(&listed))?)
        }
        Route::Show(key) => {
            let route = find(client, &key).await?;
            let toml = toml::to_string(&route).context("a route is TOML")?;
            Ok(printer.print(|| json!(route), || toml)?)
        }
        Route::Add { key, replace, owner, keep_hold, settings } => {
            let mut route = new_route(&key)?;
            apply(&settings, &mut route)?;
            if replace {
                let whole = |old: &mut Model| {
                    old.clone_from(&route);
                    Ok(())
                };
                match edit(client, &key, &owner, keep_hold, whole).await {
                    Err(Error::NotFound(_)) => {}
                    edited => return changed(edited?, printer),
                }
            }
            let request = AddRouteRequest {
                route: Some((&route).into()),
                only_new: true,
                owner: owner.name(),
                override_owner: owner.override_owner,
                keep_hold,
            };
            let added = client.add_route(request).await;
            let added = added
                .map_err(|status| exists(status, &format!("route {}", text_key(&key)), "`route update`"))?;
            changed(Edited { before: None, change: added.into_inner() }, printer)
        }
        Route::Update { key, owner, keep_hold, settings } => {
            let edited = edit(client, &key, &owner, keep_hold, |route| apply(&settings, route));
            changed(edited.await?, printer)
        }
        Route::Remove { key, owner, kill } => {
            let kill_too = if kill { ", and close its connections" } else { "" };
            asks.confirm(&format!("Remove route {}{kill_too}?", text_key(&key)))?;
            let request = RemoveRouteRequest {
                key: Some(message_key(&key)),
                connections: disposition(kill),
                owner: owner.name(),
                override_owner: owner.override_owner,
            };
            remove(client, printer, &text_key(&key), request).await
        }
        Route::Hold { key, time, owner } => hold(client, printer, &key, time.0, &owner).await,
        Route::Release { key, owner } => release(client, printer, &key, &owner).await,
        Route::Replace { file, expect_revision, kill, owner } => {
            let read: File = read_toml(&file)?;
            let (number, file) = (read.routes.len(), file.display());
            asks.confirm(&format!(
                "Replace all routes by the {number} of {file}? Those that are not in it are removed."
            ))?;
            let first = ReplaceRoutesRequest {
                expected_revision: expect_revision,
                connections: disposition(kill),
                routes: Vec::new(),
                owner: owner.name(),
                override_owner: owner.override_owner,
            };
            replace(client, printer, read, first).await
        }
        Route::Export => {
            let routes = routes(client, String::new(), String::new()).await?;
            let toml = toml::to_string(&File { routes }).context("routes are TOML")?;
            Ok(printer.out.write_all(toml.as_bytes())?)
        }
    }
}

/// Removes a route that the operator calls `name`.
async fn remove(
    client: &mut Client,
    printer: &mut Printer<'_>,
    name: &str,
    request: RemoveRouteRequest,
) -> Result<(), Error> {
    let reply = client.remove_route(request).await?.into_inner();
    if !reply.existed {
        return Err(Error::NotFound(format!("there is no route {name}")));
    }
    let text = || format!("removed at revision {}, {} connections closed\n", reply.revision, reply.killed);
    Ok(printer.print(|| json!(reply), text)?)
}

/// Routes in the order of their keys.
async fn routes(client: &mut Client, listener: String, name_contains: String) -> Result<Vec<Model>, Error> {
    let mut stream = client.list_routes(ListRoutesRequest { listener, name_contains }).await?.into_inner();
    let mut routes = Vec::new();
    while let Some(route) = stream.next().await {
        routes.push(Model::try_from(route?).context("the proxy's answer is of a newer version")?);
    }
    Ok(routes)
}

pub(super) async fn find(client: &mut Client, key: &Key) -> Result<Model, Error> {
    // As the proxy keeps names: lower case, no trailing dot.
    let name = key.name.trim_end_matches('.').to_ascii_lowercase();
    let all = routes(client, key.listener.clone(), name.clone()).await?;
    let found = all.into_iter().find(|route| route.name == name && route.alpn == key.alpn);
    found.ok_or_else(|| Error::NotFound(format!("there is no route {}: see `route list`", text_key(key))))
}

/// A route that was put, and what it was before.
pub(super) struct Edited {
    before: Option<Model>,
    change: RouteChange,
}

/// Reads a route, changes it and puts it back; again where somebody else has changed it in between.
pub(super) async fn edit(
    client: &mut Client,
    key: &Key,
    owner: &Owner,
    keep_hold: bool,
    mut change: impl FnMut(&mut Model) -> Result<(), Error>,
) -> Result<Edited, Error> {
    let mut attempt = 1;
    loop {
        let before = find(client, key).await?;
        let mut route = before.clone();
        change(&mut route)?;
        if let Some(owner) = &owner.owner {
            route.owner.clone_from(owner);
        }
        let request = UpdateRouteRequest {
            route: Some((&route).into()),
            expected: Some((&before).into()),
            owner: owner.name(),
            override_owner: owner.override_owner,
            keep_hold,
        };
        match client.update_route(request).await {
            Err(status) if status.code() == Code::Aborted && attempt < EDITS => attempt += 1,
            reply => return Ok(Edited { before: Some(before), change: reply?.into_inner() }),
        }
    }
}

async fn hold(
    client: &mut Client,
    printer: &mut Printer<'_>,
    key: &Key,
    hold_ms: u64,
    owner: &Owner,
) -> Result<(), Error> {
    let request = HoldRouteRequest {
        key: Some(message_key(key)),
        hold_ms,
        owner: owner.name(),
        override_owner: owner.override_owner,
    };
    client.hold_route(request).await?;
    let text = || format!("{} is on hold for {}\n", text_key(key), duration(hold_ms));
    Ok(printer.print(|| json!({ "hold_ms": hold_ms }), text)?)
}

async fn release(
    client: &mut Client,
    printer: &mut Printer<'_>,
    key: &Key,
    owner: &Owner,
) -> Result<(), Error> {
    let request = ReleaseRouteRequest {
        key: Some(message_key(key)),
        owner: owner.name(),
        override_owner: owner.override_owner,
    };
    let reply = client.release_route(request).await?.into_inner();
    let what = if reply.was_held { "is released" } else { "was not on hold" };
    Ok(printer.print(|| json!(reply), || format!("{} {what}\n", text_key(key)))?)
}

async fn replace(
    client: &mut Client,
    printer: &mut Printer<'_>,
    file: File,
    first: ReplaceRoutesRequest,
) -> Result<(), Error> {
    let total = file.routes.len();
    let mut rest = file.routes.into_iter();
    let mut sent = 0;
    let chunks = std::iter::from_fn(move || {
        let routes: Vec<_> = rest.by_ref().take(CHUNK).map(|route| (&route).into()).collect();
        if routes.is_empty() {
            return None;
        }
        sent += routes.len();
        if total > 100 * CHUNK && sent % (100 * CHUNK) == 0 {
            say(&format!("{sent} of {total} routes sent"));
        }
        Some(ReplaceRoutesRequest { routes, ..Default::default() })
    });
    let messages = tokio_stream::iter(std::iter::once(first).chain(chunks));
    let reply = client.replace_routes(messages).await?.into_inner();
    let text = || {
        let (added, updated, removed) = (reply.added, reply.updated, reply.removed);
        format!("revision {}: {added} added, {updated} updated, {removed} removed\n", reply.revision)
    };
    Ok(printer.print(|| json!(reply), text)?)
}

pub(super) fn changed(edited: Edited, printer: &mut Printer<'_>) -> Result<(), Error> {
    let Edited { before, change } = edited;
    let route = change.route.context("the proxy answered without the route")?;
    let route = Model::try_from(route).context("the proxy's answer is of a newer version")?;
    let changes = before.map(|before| differences(&before, &route)).unwrap_or_default();
    let json = || {
        json!({
            "revision": change.revision, "created": change.created, "changed": change.changed, "route": route,
            "changes": changes,
        })
    };
    let text = || {
        let what = match (change.created, change.changed) {
            (true, _) => "added",
            (false, true) => "changed",
            (false, false) => "already so",
        };
        format!("{} {what} at revision {}\n", route.key(), change.revision) + &difference_lines(&changes)
    };
    Ok(printer.print(json, text)?)
}

fn new_route(key: &Key) -> Result<Model, Error> {
    // The model's defaults stand where TOML's do: in its serde attributes.
    let bare = json!({ "listener": key.listener, "name": key.name, "alpn": key.alpn, "backends": [] });
    Ok(serde_json::from_value(bare).context("a bare route is a route")?)
}

/// Sets what was given.
fn apply(settings: &Settings, route: &mut Model) -> Result<(), Error> {
    fn set<T: Copy>(field: &mut T, value: Option<T>) {
        *field = value.unwrap_or(*field);
    }
    if !settings.backend.is_empty() {
        route.backends = settings.backend.iter().map(|backend| backend.0.clone()).collect();
    }
    route.any_depth |= settings.any_depth;
    let mode = settings.mode.as_deref().map(|mode| if mode == "l7" { Mode::L7 } else { Mode::L4 });
    set(&mut route.mode, mode);
    let balance = settings.balance.as_deref().map(|balance| match balance {
        "random-of-two" => Balance::RandomOfTwo,
        "source-hash" => Balance::SourceHash,
        _ => Balance::LeastConnections,
    });
    set(&mut route.balance, balance);
    set(&mut route.connect_timeout_ms, settings.connect_timeout_ms);
    set(&mut route.retries, settings.retries);
    set(&mut route.idle_timeout_ms, settings.idle_timeout_ms);
    set(&mut route.total_timeout_ms, settings.total_timeout_ms);
    set(&mut route.max_connections, settings.max_connections);
    set(&mut route.max_connections_per_source, settings.max_connections_per_source);
    set(&mut route.eject_after, settings.eject_after);
    set(&mut route.eject_ms, settings.eject_ms);
    set(&mut route.slow_start_ms, settings.slow_start_ms);
    let forwarded = settings.forwarded.as_deref().map(|forwarded| match forwarded {
        "append" => Forwarded::Append,
        "strip" => Forwarded::Strip,
        _ => Forwarded::Set,
    });
    set(&mut route.http.forwarded, forwarded);
    set(&mut route.http.pass_identity_fields, settings.pass_identity_fields);
    set(&mut route.http.response_timeout_ms, settings.response_timeout_ms);
    set(&mut route.http.keepalive_timeout_ms, settings.keepalive_timeout_ms);
    set(&mut route.http.max_body_bytes, settings.max_body_bytes);
    if let Some(ca) = &settings.backend_ca {
        route.http.backend_ca.clone_from(ca);
    }
    let client_auth = settings.client_auth.as_deref().map(|auth| match auth {
        "optional" => ClientAuth::Optional,
        "required" => ClientAuth::Required,
        _ => ClientAuth::Off,
    });
    set(&mut route.http.client_auth, client_auth);
    if let Some(ca) = &settings.client_ca {
        route.http.client_ca.clone_from(ca);
    } else if route.http.client_auth == ClientAuth::Off {
        route.http.client_ca.clear();
    }
    apply_sticky(settings, route)?;
    apply_tlvs(settings, route)?;
    apply_check(settings, route)
}

fn apply_sticky(settings: &Settings, route: &mut Model) -> Result<(), Error> {
    let sticky = &mut route.http.sticky;
    match settings.sticky.as_deref() {
        Some("off") => *sticky = None,
        Some(cookie) => sticky.get_or_insert_default().cookie = cookie.to_owned(),
        None => {}
    }
    match (settings.sticky_max_age_s, sticky) {
        (Some(max_age_s), Some(sticky)) => sticky.max_age_s = max_age_s,
        (Some(_), None) => return Err(Error::Usage("--sticky-max-age-s needs --sticky".to_owned())),
        (None, _) => {}
    }
    Ok(())
}

fn apply_tlvs(settings: &Settings, route: &mut Model) -> Result<(), Error> {
    if settings.tlv.is_empty() && settings.custom_tlv.is_empty() {
        return Ok(());
    }
    let mut any = false;
    for backend in &mut route.backends {
        if backend.proxy_protocol != ProxyOut::V2 {
            continue;
        }
        any = true;
        for tlv in &settings.tlv {
            match tlv.as_str() {
                "alpn" => backend.tlvs.alpn = true,
                "authority" => backend.tlvs.authority = true,
                "unique-id" => backend.tlvs.unique_id = true,
                "crc32c" => backend.tlvs.crc32c = true,
                _ => backend.tlvs.pass = true,
            }
        }
        if !settings.custom_tlv.is_empty() {
            backend.tlvs.custom = settings.custom_tlv.iter().map(|tlv| tlv.0.clone()).collect();
        }
    }
    if any { Ok(()) } else { Err(Error::Usage("--tlv needs a backend with proxy_protocol=v2".to_owned())) }
}

fn apply_check(settings: &Settings, route: &mut Model) -> Result<(), Error> {
    let kind = match settings.check.as_deref() {
        Some("off") => {
            route.check = None;
            return Ok(());
        }
        Some("tls") => Some(CheckKind::Tls),
        Some("http") => Some(CheckKind::Http),
        Some("https") => Some(CheckKind::Https),
        Some("grpc") => Some(CheckKind::Grpc),
        Some(_) => Some(CheckKind::Tcp),
        None => None,
    };
    let details = settings.check_interval_ms.is_some()
        || settings.check_timeout_ms.is_some()
        || settings.check_rise.is_some()
        || settings.check_fall.is_some()
        || settings.check_host.is_some()
        || settings.check_path.is_some()
        || settings.check_service.is_some();
    if kind.is_none() && !details {
        return Ok(());
    }
    if kind.is_none() && route.check.is_none() {
        return Err(Error::Usage("--check says what is checked: tcp, tls, http, https or grpc".to_owned()));
    }
    let fresh = || serde_json::from_value::<Check>(json!({})).context("a bare check is a check");
    let mut check = route.check.take().map_or_else(fresh, Ok)?;
    check.kind = kind.unwrap_or(check.kind);
    check.interval_ms = settings.check_interval_ms.unwrap_or(check.interval_ms);
    check.timeout_ms = settings.check_timeout_ms.unwrap_or(check.timeout_ms);
    check.rise = settings.check_rise.unwrap_or(check.rise);
    check.fall = settings.check_fall.unwrap_or(check.fall);
    check.host = settings.check_host.clone().unwrap_or(check.host);
    check.path = settings.check_path.clone().unwrap_or(check.path);
    if check.kind != CheckKind::Grpc {
        // It was of a check by gRPC, which this one replaces.
        check.service.clear();
    }
    check.service = settings.check_service.clone().unwrap_or(check.service);
    route.check = Some(check);
    Ok(())
}

/// A route, and how long it is on hold.
#[derive(Serialize)]
struct Listed {
    #[serde(flatten)]
    route: Model,
    #[serde(skip_serializing_if = "Option::is_none")]
    hold_left_ms: Option<u64>,
}

impl Listed {
    fn new(route: Model, holds: &[RouteHold]) -> Self {
        let key = RouteKey::from(&route.key());
        let hold = holds.iter().find(|hold| hold.key.as_ref() == Some(&key));
        Self { hold_left_ms: hold.map(|hold| hold.left_ms), route }
    }
}

fn routes_table(routes: &[Listed]) -> String {
    let rows: Vec<Vec<String>> = routes
        .iter()
        .map(|Listed { route, hold_left_ms }| {
            let backends: Vec<String> = route.backends.iter().map(|it| it.address.to_string()).collect();
            let name =
                if route.any_depth { format!("{} (any depth)", route.name) } else { route.name.clone() };
            let mode = if route.mode == Mode::L4 { "l4" } else { "l7" };
            let (alpn, owner) = (or_dash(&route.alpn), or_dash(&route.owner));
            let hold = hold_left_ms.map_or_else(|| "-".to_owned(), duration);
            vec![route.listener.clone(), name, alpn, mode.to_owned(), owner, hold, backends.join(" ")]
        })
        .collect();
    table(&["LISTENER", "NAME", "ALPN", "MODE", "OWNER", "HOLD", "BACKENDS"], &rows)
}

impl Owner {
    /// As requests have it.
    pub(super) fn name(&self) -> String {
        self.owner.clone().unwrap_or_default()
    }
}

pub(super) fn message_key(key: &Key) -> RouteKey {
    RouteKey { listener: key.listener.clone(), name: key.name.clone(), alpn: key.alpn.clone() }
}

pub(super) fn text_key(key: &Key) -> String {
    mc_core::model::RouteKey::from(message_key(key)).to_string()
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    fn settings(words: &str) -> Settings {
        let base = "mcproxyctl route add --listener web --name a.test";
        let cli = Cli::try_parse_from(base.split(' ').chain(words.split_whitespace())).unwrap();
        let Command::Route(Route::Add { settings, .. }) = cli.command else { panic!("it is an add") };
        settings
    }

    fn route(words: &str) -> Result<Model, Error> {
        let key = Key { listener: "web".into(), name: "a.test".into(), alpn: String::new() };
        let mut route = new_route(&key)?;
        apply(&settings(words), &mut route)?;
        Ok(route)
    }

    #[test]
    fn what_is_not_given_has_its_default() {
        let route = route("--backend 10.0.0.2:443").unwrap();
        let toml = "listener = 'web'\nname = 'a.test'\nbackends = [{ address = '10.0.0.2:443' }]";
        assert_eq!(route, toml::from_str(toml).unwrap());
    }

    #[test]
    fn what_is_given_is_set_and_the_rest_stays() {
        let mut it = route("--backend 10.0.0.2:443,proxy_protocol=v2 --tlv authority,crc32c --custom-tlv 224=x --check http --check-path /up --retries 0").unwrap();
        assert!(it.backends[0].tlvs.authority && it.backends[0].tlvs.crc32c && !it.backends[0].tlvs.alpn);
        assert_eq!(it.backends[0].tlvs.custom[0].kind, 224);
        apply(&settings("--check-fall 9"), &mut it).unwrap();
        let check = it.check.as_ref().unwrap();
        assert_eq!((check.kind, check.fall, check.path.as_str()), (CheckKind::Http, 9, "/up"));
        assert_eq!(it.retries, 0);
        apply(&settings("--check grpc --check-service a.B"), &mut it).unwrap();
        let check = it.check.as_ref().unwrap();
        assert_eq!((check.kind, check.service.as_str(), check.fall), (CheckKind::Grpc, "a.B", 9));
        apply(&settings("--check tcp"), &mut it).unwrap();
        assert_eq!(it.check.as_ref().unwrap().service, "");
        apply(&settings("--check off"), &mut it).unwrap();
        assert_eq!(it.check, None);
        apply(&settings("--sticky --sticky-max-age-s 5"), &mut it).unwrap();
        let sticky = it.http.sticky.clone().unwrap();
        assert_eq!((sticky.cookie.as_str(), sticky.max_age_s), ("mc-backend", 5));
        apply(&settings("--backend-ca ca.pem --client-auth required --client-ca cl.pem"), &mut it).unwrap();
        assert_eq!((it.http.client_auth, it.http.client_ca.as_str()), (ClientAuth::Required, "cl.pem"));
        apply(&settings("--client-auth off"), &mut it).unwrap();
        assert_eq!((it.http.client_auth, it.http.client_ca.as_str()), (ClientAuth::Off, ""));
        apply(&settings("--sticky off"), &mut it).unwrap();
        assert_eq!(it.http.backend_ca, "ca.pem");
        assert_eq!(it.http.sticky, None);
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        assert!(matches!(route("--backend 10.0.0.2:443 --tlv alpn"), Err(Error::Usage(_))));
        assert!(matches!(route("--backend 10.0.0.2:443 --check-path /x"), Err(Error::Usage(_))));
        assert!(matches!(route("--backend 10.0.0.2:443 --sticky-max-age-s 5"), Err(Error::Usage(_))));
    }

    #[test]
    fn what_is_exported_can_be_read_again() {
        let routes = vec![route("--backend 10.0.0.2:443 --check tls --slow-start-ms 5").unwrap()];
        let text = toml::to_string(&File { routes: routes.clone() }).unwrap();
        assert_eq!(toml::from_str::<File>(&text).unwrap().routes, routes);
    }
}
