//! The gRPC API over [`Admin`]: messages in, messages out, and the only place where a refusal becomes a status.
//!
//! A status' message says what is wrong with what and what to do; where one field is to blame, its path is in
//! the metadata too (`field`), so that nobody parses text.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mc_api::mcproxy as api;
use mc_api::mcproxy::admin_server::{Admin as AdminApi, AdminServer};
use mc_core::model::{ChangedBy, Firewall, FirewallRule, Listener, Mode, Route, RouteKey};
use mc_core::validate::Invalid;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;
use tokio_stream::wrappers::{BroadcastStream, ReceiverStream};
use tokio_stream::{Stream, StreamExt as _};
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Response, Status, Streaming};

use super::Admin;
use super::auth::TokenFile;
use super::error::ChangeError;
use super::events::MAX_WATCHERS;
use super::state::{Existing, MAX_ROUTES, RoutePut};
use crate::connections::Ended;
use crate::handover::Identity;
use crate::stats::TapGuard;
use crate::upgrade::UpgradeError;
use mcdsl::chain;

mod answer;

/// The API as served.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    admin: Admin,
    /// Taps that may be begun.
    taps: Arc<Semaphore>,
}

impl Api {
    /// For a change of routes on behalf of this owner.
    fn on_behalf_of(&self, owner: String, override_owner: bool) -> Admin {
        self.admin.on_behalf_of(ChangedBy { owner, override_owner })
    }
}

/// The service, with its limits.
pub(crate) fn service(admin: Admin) -> AdminServer<Api> {
    AdminServer::new(Api { admin, taps: Arc::new(Semaphore::new(MAX_WATCHERS)) })
        .max_decoding_message_size(MAX_MESSAGE)
}

/// Lets a request over TCP pass that carries the token.
pub(crate) fn authorize(token: &TokenFile, request: Request<()>) -> Result<Request<()>, Status> {
    let given = request.metadata().get("authorization").map(MetadataValue::as_encoded_bytes);
    match token.admits(given) {
        Ok(true) => Ok(request),
        Ok(false) => Err(Status::unauthenticated(
            "give the token of admin.tcp.token_file as `authorization: Bearer ...`",
        )),
        Err(error) => {
            tracing::error!(%error, "no admin call over TCP is admitted");
            Err(Status::unavailable("the proxy cannot read its token file: see its log"))
        }
    }
}

type Reply<T> = Result<Response<T>, Status>;
type Pages<T> = ReceiverStream<Result<T, Status>>;

#[tonic::async_trait]
impl AdminApi for Api {
    type ListRoutesStream = Pages<api::Route>;
    type ListConnectionsStream = Pages<api::Connection>;
    type WatchEventsStream = Pages<api::Event>;
    type WatchDropsStream = Pin<Box<dyn Stream<Item = Result<api::Drop, Status>> + Send>>;
    type TapStream = Pages<api::TappedHead>;

    async fn get_status(&self, _request: Request<api::GetStatusRequest>) -> Reply<api::Status> {
        let admin = self.admin.clone();
        // Old processes are asked, too, and may take a moment.
        let status = tokio::task::spawn_blocking(move || answer::status(&admin)).await;
        status.map(Response::new).map_err(|_stopped| refused(ChangeError::Stopping))
    }

    async fn upgrade(&self, _request: Request<api::UpgradeRequest>) -> Reply<api::UpgradeResponse> {
        let Identity { process, pid, version } = self.admin.upgrade().run().await.map_err(not_upgraded)?;
        Ok(Response::new(api::UpgradeResponse { process, pid, version }))
    }

    async fn add_route(&self, request: Request<api::AddRouteRequest>) -> Reply<api::RouteChange> {
        let request = request.into_inner();
        let route: Route = read(required("route", request.route)?)?;
        let existing = if request.only_new { Existing::None } else { Existing::Any };
        let admin = self.on_behalf_of(request.owner, request.override_owner);
        put_route(&admin, route, existing, request.keep_hold).await
    }

    async fn update_route(&self, request: Request<api::UpdateRouteRequest>) -> Reply<api::RouteChange> {
        let request = request.into_inner();
        let route: Route = read(required("route", request.route)?)?;
        let expected: Option<Route> = request.expected.map(read).transpose()?;
        let admin = self.on_behalf_of(request.owner, request.override_owner);
        put_route(&admin, route, Existing::Some(expected), request.keep_hold).await
    }

    async fn remove_route(
        &self,
        request: Request<api::RemoveRouteRequest>,
    ) -> Reply<api::RemoveRouteResponse> {
        let request = request.into_inner();
        let kill = kills(request.connections)?;
        let key: RouteKey = required("key", request.key)?.into();
        let admin = self.on_behalf_of(request.owner, request.override_owner);
        let (revision, existed, killed) = admin.remove_route(key, kill).await.map_err(refused)?;
        Ok(Response::new(api::RemoveRouteResponse { revision, existed, killed }))
    }

    async fn hold_route(&self, request: Request<api::HoldRouteRequest>) -> Reply<api::HoldRouteResponse> {
        let request = request.into_inner();
        let key: RouteKey = required("key", request.key)?.into();
        let admin = self.on_behalf_of(request.owner, request.override_owner);
        admin.hold_route(key, request.hold_ms).await.map_err(refused)?;
        Ok(Response::new(api::HoldRouteResponse {}))
    }

    async fn release_route(
        &self,
        request: Request<api::ReleaseRouteRequest>,
    ) -> Reply<api::ReleaseRouteResponse> {
        let request = request.into_inner();
        let key: RouteKey = required("key", request.key)?.into();
        let admin = self.on_behalf_of(request.owner, request.override_owner);
        let was_held = admin.release_route(key).await.map_err(refused)?;
        Ok(Response::new(api::ReleaseRouteResponse { was_held }))
    }

    async fn list_holds(&self, _request: Request<api::ListHoldsRequest>) -> Reply<api::ListHoldsResponse> {
        Ok(Response::new(answer::holds(&self.admin)))
    }

    async fn list_policies(
        &self,
        request: Request<api::ListPoliciesRequest>,
    ) -> Reply<api::ListPoliciesResponse> {
        let key: RouteKey = required("key", request.into_inner().key)?.into();
        let route = self.admin.route(&key).ok_or_else(|| refused(ChangeError::NoRoute(key)))?;
        let states = route.spec.http.policies.iter().zip(&route.policies);
        let policies = states.map(|(policy, live)| api::PolicyState {
            policy: Some(policy.into()),
            applied: live.applied.load(Ordering::Relaxed),
            dry_run: live.dry_run.load(Ordering::Relaxed),
        });
        Ok(Response::new(api::ListPoliciesResponse { policies: policies.collect() }))
    }

    async fn list_routes(&self, request: Request<api::ListRoutesRequest>) -> Reply<Self::ListRoutesStream> {
        let (send, pages) = mpsc::channel(PAGE);
        tokio::spawn(list_routes(self.admin.clone(), request.into_inner(), send));
        Ok(Response::new(ReceiverStream::new(pages)))
    }

    async fn replace_routes(
        &self,
        request: Request<Streaming<api::ReplaceRoutesRequest>>,
    ) -> Reply<api::ReplaceRoutesResponse> {
        let mut messages = request.into_inner();
        let mut first = None;
        let mut routes = Vec::new();
        while let Some(message) = messages.message().await? {
            let disposition = kills(message.connections)?;
            first.get_or_insert((
                message.expected_revision,
                disposition,
                self.on_behalf_of(message.owner, message.override_owner),
            ));
            for route in message.routes {
                let index = routes.len();
                routes.push(Route::try_from(route).map_err(|wrong| {
                    invalid(Invalid { field: format!("routes[{index}].{}", wrong.field), ..wrong })
                })?);
            }
            if routes.len() as u64 > MAX_ROUTES {
                return Err(refused(ChangeError::TooMany { what: "routes", limit: MAX_ROUTES }));
            }
        }
        // No message at all is a broken client, not the wish to remove everything.
        let Some((expected, kill, admin)) = first else {
            return Err(missing(
                "routes",
                "no message came: send at least one, without routes to remove all",
            ));
        };
        let done = admin.replace_routes(routes, expected, kill).await.map_err(refused)?;
        Ok(Response::new(api::ReplaceRoutesResponse {
            revision: done.revision,
            added: done.added,
            updated: done.updated,
            removed: done.removed,
        }))
    }

    async fn add_listener(&self, request: Request<api::AddListenerRequest>) -> Reply<api::ListenerChange> {
        let api::AddListenerRequest { listener, only_new, expected } = request.into_inner();
        let listener: Listener = read(required("listener", listener)?)?;
        let existing = match (only_new, expected) {
            (true, Some(_)) => {
                return Err(missing("only_new", "does not go with expected: leave out one of them"));
            }
            (true, None) => Existing::None,
            (false, Some(expected)) => Existing::Some(Some(read(expected)?)),
            (false, None) => Existing::Any,
        };
        let put = self.admin.put_listener(listener, existing).await.map_err(refused)?;
        let listener = Some((&put.listener).into());
        Ok(Response::new(api::ListenerChange { revision: put.revision, created: put.created, listener }))
    }

    async fn remove_listener(&self, request: Request<api::RemoveListenerRequest>) -> Reply<api::Change> {
        let request = request.into_inner();
        let kill = kills(request.connections)?;
        let admin = self.on_behalf_of(request.owner, request.override_owner);
        change(admin.remove_listener(request.name, request.with_routes, kill).await)
    }

    async fn list_listeners(
        &self,
        _request: Request<api::ListListenersRequest>,
    ) -> Reply<api::ListListenersResponse> {
        Ok(Response::new(answer::listeners(&self.admin)))
    }

    async fn get_firewall(&self, _request: Request<api::GetFirewallRequest>) -> Reply<api::FirewallState> {
        let snapshot = self.admin.snapshot();
        let firewall = Some((&snapshot.firewall.spec).into());
        let problems = snapshot.firewall.problems();
        Ok(Response::new(api::FirewallState { firewall, revision: snapshot.revision, problems }))
    }

    async fn set_firewall(&self, request: Request<api::SetFirewallRequest>) -> Reply<api::Change> {
        let request = request.into_inner();
        let firewall: Firewall = read(required("firewall", request.firewall)?)?;
        change(self.admin.set_firewall(firewall, request.expected_revision).await)
    }

    async fn add_firewall_rule(&self, request: Request<api::FirewallRuleRequest>) -> Reply<api::Change> {
        let rule: FirewallRule = read(required("rule", request.into_inner().rule)?)?;
        change(self.admin.add_rule(rule).await)
    }

    async fn remove_firewall_rule(&self, request: Request<api::FirewallRuleRequest>) -> Reply<api::Change> {
        let rule: FirewallRule = read(required("rule", request.into_inner().rule)?)?;
        change(self.admin.remove_rule(rule).await)
    }

    async fn set_rate(&self, request: Request<api::SetRateRequest>) -> Reply<api::Change> {
        let rate = required("rate", request.into_inner().rate)?;
        change(self.admin.set_rate(rate.into()).await)
    }

    async fn test_firewall(
        &self,
        request: Request<api::TestFirewallRequest>,
    ) -> Reply<api::TestFirewallResponse> {
        let text = request.into_inner().address;
        let address = text.parse().map_err(|_unparsed| {
            missing("address", &format!("`{text}` is no IP address: write 192.0.2.1 or 2001:db8::1"))
        })?;
        Ok(Response::new(answer::test_firewall(&self.admin.snapshot().firewall, address)))
    }

    async fn list_certificates(
        &self,
        _request: Request<api::ListCertificatesRequest>,
    ) -> Reply<api::ListCertificatesResponse> {
        Ok(Response::new(answer::certificates(&self.admin)))
    }

    async fn reload_certificates(
        &self,
        _request: Request<api::ReloadCertificatesRequest>,
    ) -> Reply<api::ReloadCertificatesResponse> {
        let workers = Arc::clone(self.admin.workers());
        let reloaded = tokio::task::spawn_blocking(move || workers.policy.tls.reload()).await;
        let reloaded = reloaded.map_err(|_stopped| Status::unavailable("mc-proxy is stopping"))?;
        reloaded.log();
        let problems = reloaded.problems.iter().map(ToString::to_string).collect();
        Ok(Response::new(api::ReloadCertificatesResponse {
            files: reloaded.files as u64,
            problems,
            warnings: reloaded.warnings,
        }))
    }

    async fn list_backends(
        &self,
        _request: Request<api::ListBackendsRequest>,
    ) -> Reply<api::ListBackendsResponse> {
        Ok(Response::new(answer::backends(&self.admin)))
    }

    async fn drain_backend(
        &self,
        request: Request<api::DrainBackendRequest>,
    ) -> Reply<api::DrainBackendResponse> {
        let request = request.into_inner();
        let address = answer::socket_address("address", &request.address).map_err(invalid)?;
        if request.kill && !request.drain {
            return Err(missing("kill", "is only for a backend that drains: set drain, or leave kill out"));
        }
        let drained = self.admin.drain_backend(address, request.drain, request.kill).await;
        let (revision, ended) = drained.map_err(refused)?;
        let Ended { connections: killed, requests } = ended;
        Ok(Response::new(api::DrainBackendResponse { revision, killed, requests }))
    }

    async fn list_connections(
        &self,
        request: Request<api::ListConnectionsRequest>,
    ) -> Reply<Self::ListConnectionsStream> {
        let request = request.into_inner();
        let filter = answer::filter(request.filter.unwrap_or_default()).map_err(invalid)?;
        let limit = usize::try_from(request.limit).unwrap_or(usize::MAX);
        let found = self.admin.connections(filter, limit).await;
        let (send, pages) = mpsc::channel(PAGE);
        tokio::spawn(async move {
            for connection in found {
                if send.send(Ok(answer::connection(connection))).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(pages)))
    }

    async fn kill_connections(
        &self,
        request: Request<api::KillConnectionsRequest>,
    ) -> Reply<api::KillConnectionsResponse> {
        let request = request.into_inner();
        let filter = request.filter.unwrap_or_default();
        if !request.all && filter == api::ConnectionFilter::default() {
            return Err(missing(
                "filter",
                "is empty, which would close every connection: set all if that is meant",
            ));
        }
        let filter = answer::filter(filter).map_err(invalid)?;
        let Ended { connections: killed, requests } = self.admin.kill(filter).await;
        Ok(Response::new(api::KillConnectionsResponse { killed, requests }))
    }

    async fn get_stats(&self, request: Request<api::GetStatsRequest>) -> Reply<api::Stats> {
        let top = match request.into_inner().top {
            0 => 100,
            top => usize::try_from(top).unwrap_or(usize::MAX),
        };
        let admin = self.admin.clone();
        // It looks at every route: not on the thread that serves.
        let stats = tokio::task::spawn_blocking(move || answer::stats(&admin, top)).await;
        stats.map(Response::new).map_err(|_stopped| refused(ChangeError::Stopping))
    }

    async fn tap(&self, request: Request<api::TapRequest>) -> Reply<Self::TapStream> {
        let key: RouteKey = required("key", request.into_inner().key)?.into();
        let route = self.admin.route(&key).ok_or_else(|| refused(ChangeError::NoRoute(key.clone())))?;
        if route.spec.mode != Mode::L7 {
            let problem = "the route passes TLS through, and nothing of it can be seen: tap one of mode l7";
            return Err(invalid(Invalid { field: "key".to_owned(), problem: problem.to_owned() }));
        }
        let taps = Arc::clone(&self.taps);
        let Ok(one) = taps.try_acquire_owned() else {
            return Err(refused(ChangeError::TooMany { what: "taps", limit: MAX_WATCHERS as u64 }));
        };
        let (send, heads) = mpsc::channel(16);
        tokio::spawn(tap(self.admin.clone(), key, route.live.tap(), send, one));
        Ok(Response::new(ReceiverStream::new(heads)))
    }

    async fn get_capabilities(
        &self,
        _request: Request<api::GetCapabilitiesRequest>,
    ) -> Reply<api::Capabilities> {
        Ok(Response::new(answer::capabilities(&self.admin)))
    }

    async fn watch_drops(&self, _request: Request<api::WatchDropsRequest>) -> Reply<Self::WatchDropsStream> {
        let Some(watch) = self.admin.events().watch_drops().map(BroadcastStream::new) else {
            return Err(refused(ChangeError::TooMany { what: "watchers", limit: MAX_WATCHERS as u64 }));
        };
        let mut lost = 0;
        let drops = watch.filter_map(move |came| match came {
            Ok(drop) => Some(Ok(api::Drop { lost: std::mem::take(&mut lost), ..drop })),
            Err(BroadcastStreamRecvError::Lagged(more)) => {
                lost += more;
                None
            }
        });
        Ok(Response::new(Box::pin(drops)))
    }

    async fn watch_events(
        &self,
        _request: Request<api::WatchEventsRequest>,
    ) -> Reply<Self::WatchEventsStream> {
        let Some(mut watch) = self.admin.events().watch() else {
            return Err(refused(ChangeError::TooMany { what: "watchers", limit: MAX_WATCHERS as u64 }));
        };
        let (send, events) = mpsc::channel(16);
        tokio::spawn(async move {
            loop {
                let event = tokio::select! {
                    event = watch.next() => event,
                    () = send.closed() => return,
                };
                let Some(event) = event else { return };
                if send.send(Ok(event)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(events)))
    }
}

/// Sends heads until the watcher leaves or the route is removed.
async fn tap(
    admin: Admin,
    key: RouteKey,
    mut tap: TapGuard,
    send: mpsc::Sender<Result<api::TappedHead, Status>>,
    _one: OwnedSemaphorePermit,
) {
    let mut lost = 0;
    let mut look = tokio::time::interval(TAP_LOOK);
    loop {
        let came = tokio::select! {
            came = tap.heads.recv() => came,
            () = send.closed() => return,
            _ = look.tick() => match admin.route(&key) {
                Some(route) if Arc::ptr_eq(&route.live, &tap.live) => continue,
                _ => return,
            },
        };
        match came {
            Ok(head) => {
                if send.send(Ok(api::TappedHead { lost, ..head })).await.is_err() {
                    return;
                }
                lost = 0;
            }
            Err(RecvError::Lagged(more)) => lost += more,
            Err(RecvError::Closed) => return,
        }
    }
}

/// How often a tap looks whether its route is there.
const TAP_LOOK: Duration = Duration::from_secs(1);

/// Sends routes page by page: none is held while the caller reads slowly, and each is sent at most once.
async fn list_routes(
    admin: Admin,
    request: api::ListRoutesRequest,
    send: mpsc::Sender<Result<api::Route, Status>>,
) {
    let named = !request.listener.is_empty();
    let mut after = named.then(|| RouteKey {
        listener: request.listener.clone(),
        name: String::new(),
        alpn: String::new(),
    });
    loop {
        let page = admin.routes_after(after.as_ref(), PAGE);
        let Some(last) = page.last() else { return };
        after = Some(last.spec.key());
        for entry in page {
            if named && entry.spec.listener != request.listener {
                return;
            }
            if entry.spec.name.contains(&request.name_contains)
                && send.send(Ok((&entry.spec).into())).await.is_err()
            {
                return;
            }
        }
        // A million routes that do not match must not keep others waiting.
        tokio::task::yield_now().await;
    }
}

/// A message's meaning.
fn read<M, T: TryFrom<M, Error = Invalid>>(message: M) -> Result<T, Status> {
    T::try_from(message).map_err(invalid)
}

fn required<T>(field: &str, value: Option<T>) -> Result<T, Status> {
    value.ok_or_else(|| missing(field, "is missing: set it"))
}

/// Whether connections are to be closed.
fn kills(disposition: i32) -> Result<bool, Status> {
    match api::Disposition::try_from(disposition) {
        Ok(api::Disposition::Drain) => Ok(false),
        Ok(api::Disposition::Kill) => Ok(true),
        Err(_) => Err(missing(
            "connections",
            &format!("{disposition} is not known: 0 lets them drain, 1 closes them"),
        )),
    }
}

/// Puts a route, and ends its hold: its backends are where they shall be.
async fn put_route(
    admin: &Admin,
    route: Route,
    existing: Existing<Route>,
    keep_hold: bool,
) -> Reply<api::RouteChange> {
    let put = admin.put_route(route, existing).await.map_err(refused)?;
    let RoutePut { revision, created, changed, route } = put;
    if !keep_hold {
        // Where MC-Proxy stops meanwhile, all holds end.
        admin.release_put(route.key()).await.unwrap_or(());
    }
    Ok(Response::new(api::RouteChange { revision, created, changed, route: Some((&route).into()) }))
}

fn change(revision: Result<u64, ChangeError>) -> Reply<api::Change> {
    Ok(Response::new(api::Change { revision: revision.map_err(refused)? }))
}

fn missing(field: &str, problem: &str) -> Status {
    invalid(Invalid { field: field.to_owned(), problem: problem.to_owned() })
}

fn invalid(wrong: Invalid) -> Status {
    refused(ChangeError::Invalid(wrong))
}

fn not_upgraded(error: UpgradeError) -> Status {
    let code = if matches!(error, UpgradeError::Running) { Code::Aborted } else { Code::FailedPrecondition };
    tracing::error!("{}", chain(&error));
    Status::new(code, chain(&error))
}

/// What a refusal is in gRPC.
fn refused(error: ChangeError) -> Status {
    let (code, field) = match &error {
        ChangeError::Invalid(wrong) => (Code::InvalidArgument, Some(wrong.field.as_str())),
        ChangeError::NoRoute(_) => (Code::NotFound, Some("route")),
        ChangeError::NoListener(_) => (Code::NotFound, Some("name")),
        ChangeError::RouteExists(_) | ChangeError::ListenerExists(_) => {
            (Code::AlreadyExists, Some("only_new"))
        }
        ChangeError::NoRule => (Code::NotFound, Some("rule")),
        ChangeError::NoBackend(_) => (Code::NotFound, Some("address")),
        ChangeError::OtherRoute(_) | ChangeError::OtherListener(_) => (Code::Aborted, Some("expected")),
        ChangeError::Revision { .. } => (Code::Aborted, Some("expected_revision")),
        ChangeError::Owned { .. } => (Code::FailedPrecondition, Some("owner")),
        ChangeError::HasRoutes { .. } => (Code::FailedPrecondition, Some("with_routes")),
        ChangeError::AddressTaken { .. } | ChangeError::Bind { .. } => {
            (Code::FailedPrecondition, Some("listener.address"))
        }
        ChangeError::Steer { .. } => (Code::FailedPrecondition, Some("listener.steered")),
        ChangeError::TooMany { .. } => (Code::ResourceExhausted, None),
        ChangeError::Store(_) | ChangeError::Stopping => (Code::Unavailable, None),
    };
    if let ChangeError::Store(_) = &error {
        tracing::error!(error = chain(&error), "a change was refused");
    }
    let mut status = Status::new(code, chain(&error));
    if let Some(field) = field.and_then(|field| MetadataValue::try_from(field).ok()) {
        status.metadata_mut().insert("field", field);
    }
    status
}

/// Largest message that is read, in bytes: a hundred thousand routes. More come in several.
const MAX_MESSAGE: usize = 16 << 20;

/// Entries that are looked up, and at most wait to be sent, at a time.
const PAGE: usize = 512;
