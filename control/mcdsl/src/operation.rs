//! The table of everything that a service answers: operations, protocols' routes and pages. No router takes a route past it.
//!
//! An operation is stated once, at its rpc (`mc_api::operation`), and registered by one generated line: its REST route, its gRPC method and
//! its part of the OpenAPI document follow. For each route the table looks at the caller's token and at what the route needs before a byte of
//! the body is read; what the handler gets is a [`Permit`].

pub mod document;
mod grpc;
mod json;
mod rest;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use axum::routing::MethodRouter;
use axum::{Router, middleware};
use futures_util::Stream;
use http::request::Parts;
use http::{HeaderMap, Method};
use mc_api::operation::{Need, Operation};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::context::{Principal, RequestContext};
use crate::http::body::Sender;
use crate::http::{Caller, Dialect, Limits};
use crate::permit::{Access, Authority, Permit, authorize};
use crate::problem::{Kind, Problem};
use crate::secret::Secret;

/// A message that is JSON and protobuf alike.
pub trait Message: prost::Message + Default + Serialize + DeserializeOwned + Send + 'static {}

impl<T: prost::Message + Default + Serialize + DeserializeOwned + Send + 'static> Message for T {}

/// Reads the token of a request; `None` where it has none.
pub type Credentials = fn(&HeaderMap) -> Result<Option<Secret>, Problem>;

/// Everything that a service answers.
#[derive(Debug)]
pub struct RouteTable<S> {
    service: Arc<S>,
    limits: Limits,
    api: Router,
    pages: Router,
    grpc: Router,
    routes: Vec<Route>,
    dialects: Vec<Dialect>,
}

/// A route, for who wants to know all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// How it is reached.
    pub transport: Transport,
    /// The method.
    pub method: Method,
    /// The path with its parameters.
    pub pattern: String,
    /// What it needs.
    pub access: Access,
}

/// How a route is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// REST.
    Rest,
    /// gRPC.
    Grpc,
    /// A protocol of its own: ACME, OCI, DNS over HTTPS, a file to download.
    Protocol,
    /// A page for browsers.
    Page,
}

/// A finished table: a router for each transport, and the list of all routes.
#[derive(Debug)]
pub struct Routes {
    /// REST and protocols.
    pub api: Router,
    /// Pages.
    pub pages: Router,
    /// gRPC.
    pub grpc: Router,
    /// Every route.
    pub routes: Vec<Route>,
    /// The forms of errors, for the middleware.
    pub dialects: Vec<Dialect>,
}

/// What all routes of an operation share.
struct Shared<S, T, U> {
    service: Arc<S>,
    operation: &'static Operation,
    limits: Limits,
    target: T,
    use_case: U,
}

impl<S: Authority> RouteTable<S> {
    /// An empty table. `limits` hold where an operation states none.
    #[must_use]
    pub fn new(service: Arc<S>, limits: Limits) -> Self {
        Self {
            service,
            limits,
            api: Router::new(),
            pages: Router::new(),
            grpc: Router::new(),
            routes: Vec::new(),
            dialects: Vec::new(),
        }
    }

    /// Adds an operation that answers once. `target` names what a request acts on, for the audit log.
    pub fn unary<Req, Res, T, U, F>(&mut self, operation: &'static Operation, target: T, use_case: U)
    where
        Req: Message,
        Res: Message,
        T: Fn(&Req) -> String + Send + Sync + 'static,
        U: Fn(Arc<S>, Permit, Req) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Res, Problem>> + Send + 'static,
    {
        let shared = self.shared(operation, target, use_case);
        let (rest, grpc) = (Arc::clone(&shared), shared);
        self.add(
            operation,
            move |request| rest::unary(Arc::clone(&rest), request),
            move |request| grpc::unary(Arc::clone(&grpc), request),
        );
    }

    /// Adds an operation that answers with a stream: of lines of JSON by REST.
    pub fn stream<Req, Res, T, U, F, St>(&mut self, operation: &'static Operation, target: T, use_case: U)
    where
        Req: Message,
        Res: Message,
        T: Fn(&Req) -> String + Send + Sync + 'static,
        U: Fn(Arc<S>, Permit, Req) -> F + Send + Sync + 'static,
        F: Future<Output = Result<St, Problem>> + Send + 'static,
        St: Stream<Item = Result<Res, Problem>> + Send + 'static,
    {
        let shared = self.shared(operation, target, use_case);
        let (rest, grpc) = (Arc::clone(&shared), shared);
        self.add(
            operation,
            move |request| rest::stream(Arc::clone(&rest), request),
            move |request| grpc::stream(Arc::clone(&grpc), request),
        );
    }

    fn shared<T, U>(&self, operation: &'static Operation, target: T, use_case: U) -> Arc<Shared<S, T, U>> {
        let mut limits = self.limits.clone();
        limits.time = operation.timeout.unwrap_or(limits.time);
        limits.body.max_bytes = operation.max_body_bytes.unwrap_or(limits.body.max_bytes);
        let service = Arc::clone(&self.service);
        Arc::new(Shared { service, operation, limits, target, use_case })
    }

    fn add<A, B, FA, FB>(&mut self, operation: &'static Operation, by_rest: A, by_grpc: B)
    where
        A: Fn(Request) -> FA + Clone + Send + Sync + 'static,
        FA: Future<Output = Result<Response, Problem>> + Send + 'static,
        B: Fn(Request) -> FB + Clone + Send + Sync + 'static,
        FB: Future<Output = Response> + Send + 'static,
    {
        let access = Access::from(operation);
        let handler = std::mem::take(&mut self.grpc);
        self.grpc = handler.route(operation.grpc_path, axum::routing::post(by_grpc));
        self.note(Transport::Grpc, Method::POST, operation.grpc_path, access);
        let Some(rest) = &operation.rest else { return };
        let method = Method::from_bytes(rest.method.as_str().as_bytes()).expect("it is a method");
        let filter = method.clone().try_into().expect("axum routes by it");
        let api = std::mem::take(&mut self.api);
        self.api = api.route(&axum_pattern(rest.path), axum::routing::on(filter, by_rest));
        self.note(Transport::Rest, method, rest.path, access);
    }

    /// Adds a protocol's route. Its handler gets the [`Permit`] as an extension of the request, whose body it reads itself.
    pub fn protocol(
        &mut self,
        method: Method,
        pattern: &str,
        access: Access,
        credentials: Credentials,
        handler: MethodRouter,
    ) {
        let handler = self.guarded(access, credentials, handler);
        self.api = std::mem::take(&mut self.api).route(pattern, handler);
        self.note(Transport::Protocol, method, pattern, access);
    }

    /// Adds a page. Its handler gets the [`Permit`] as an extension of the request.
    pub fn page(
        &mut self,
        method: Method,
        pattern: &str,
        access: Access,
        credentials: Credentials,
        handler: MethodRouter,
    ) {
        let handler = self.guarded(access, credentials, handler);
        self.pages = std::mem::take(&mut self.pages).route(pattern, handler);
        self.note(Transport::Page, method, pattern, access);
    }

    /// Adds the form of the errors below a path.
    pub fn dialect(&mut self, dialect: Dialect) {
        self.dialects.push(dialect);
    }

    /// Adds static files, which anybody may read.
    pub fn files(&mut self, files: Router) {
        self.pages = std::mem::take(&mut self.pages).merge(files);
    }

    fn guarded(&self, access: Access, credentials: Credentials, handler: MethodRouter) -> MethodRouter {
        let (service, time) = (Arc::clone(&self.service), self.limits.time);
        handler.layer(middleware::from_fn(move |request: Request, next: middleware::Next| {
            let service = Arc::clone(&service);
            async move {
                let is_read = request.method().is_safe();
                let mut identity = None;
                let answered = within(time, is_read, async {
                    let (mut parts, body) = request.into_parts();
                    let context = identify(&service, access, credentials, &parts).await?;
                    identity = context.identity().cloned();
                    let permit = authorize(&*service, context.clone(), access, String::new()).await?;
                    parts.extensions.insert(context.clone());
                    parts.extensions.insert(Arc::new(permit));
                    let response = next.run(Request::from_parts(parts, body)).await;
                    match response
                        .extensions()
                        .get::<Problem>()
                        .filter(|problem| problem.reason == FORGED_FORM)
                    {
                        Some(problem) if context.identity().is_some() => {
                            Err(service.refused(&context, "form", "", problem.clone()).await)
                        }
                        _ => Ok(response),
                    }
                });
                let mut response = answered.await.unwrap_or_else(Problem::into_response);
                // For the page that a problem becomes.
                if let Some(identity) = identity {
                    response.extensions_mut().insert(identity);
                }
                response
            }
        }))
    }

    fn note(&mut self, transport: Transport, method: Method, pattern: &str, access: Access) {
        self.routes.push(Route { transport, method, pattern: pattern.to_owned(), access });
    }

    /// The routers, and the list of all routes.
    #[must_use]
    pub fn finish(self) -> Routes {
        let Self { api, pages, grpc, routes, dialects, .. } = self;
        Routes { api, pages, grpc, routes, dialects }
    }
}

/// The reason of a problem with a form that another site may have sent.
pub(crate) const FORGED_FORM: &str = "forged-form";

/// Looks at the caller before anything of the body is read.
async fn admit<S: Authority>(
    service: &Arc<S>,
    access: Access,
    credentials: Credentials,
    parts: &Parts,
    target: String,
) -> Result<Permit, Problem> {
    let context = identify(service, access, credentials, parts).await?;
    authorize(&**service, context, access, target).await
}

/// The request with its caller, whom the token names where the route needs one.
async fn identify<S: Authority>(
    service: &Arc<S>,
    access: Access,
    credentials: Credentials,
    parts: &Parts,
) -> Result<RequestContext, Problem> {
    let caller = parts.extensions.get::<Caller>().expect("the middleware gives each request its caller");
    let mut context = RequestContext {
        client: caller.address,
        request_id: Arc::clone(&caller.request_id),
        external_request_id: caller.external_request_id.clone(),
        user_agent: caller.user_agent.clone(),
        principal: Principal::Public,
        token: None,
    };
    if access.need != Need::Public
        && let Some(token) = credentials(&parts.headers)?
    {
        let identity = service.authenticate(&context, &token).await?;
        context.principal = Principal::Account(identity);
        context.token = Some(Arc::new(token));
    }
    Ok(context)
}

/// Whether a body took so long to arrive that its caller is looked at again: meanwhile their token may have been revoked, or a policy may deny
/// them.
fn is_stale(began: Instant) -> bool {
    began.elapsed() > Duration::from_secs(1)
}

/// What comes of a request within its time.
async fn within<T>(
    time: Duration,
    is_read: bool,
    work: impl Future<Output = Result<T, Problem>>,
) -> Result<T, Problem> {
    tokio::time::timeout(time, work).await.unwrap_or_else(|_elapsed| {
        let detail = if is_read {
            "The request took too long: try again later."
        } else {
            "The request took too long. It may have taken effect: check before you send it again."
        };
        Err(Problem::new(Kind::Timeout, "timeout", detail))
    })
}

/// Who a request's body is counted for.
fn sender(parts: &Parts, permit: &Permit) -> Sender {
    let source =
        parts.extensions.get::<Caller>().map_or(crate::context::LOCAL.ip(), |caller| caller.address.ip());
    Sender { source, is_known: permit.identity().is_some() }
}

/// A path of an operation as axum writes it: `{path*}` is `{*path}`.
fn axum_pattern(path: &str) -> String {
    let mut parts =
        path.split('/').map(|part| match part.strip_suffix("*}").and_then(|part| part.strip_prefix('{')) {
            Some(name) => format!("{{*{name}}}"),
            None => part.to_owned(),
        });
    let first = parts.next().unwrap_or_default();
    parts.fold(first, |text, part| format!("{text}/{part}"))
}
