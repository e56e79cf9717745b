//! The middleware around each request: an id, the limits of its body, an end for panics, a log line, metrics, and the
//! dialect that its errors are written in.
//!
//! Bodies are read by [`body::read`]; [`Json`] and [`Form`], [`Query`] and [`Path`] read requests of pages and
//! protocols.

pub mod body;
mod drain;
mod lines;
mod metrics;
mod read;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use futures_util::FutureExt as _;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Uri};
use tonic::Status;
use tracing::Instrument as _;

pub use body::{BodyBudget, BodyLimits, CountedBytes};
pub use metrics::{Metrics, RouteLabel};
pub(crate) use read::is_kind;
pub use read::{Form, Json, Path, Query};

use crate::clock::Clock;
use crate::context::LOCAL;
use crate::identity::Identity;
use crate::log::ACCESS;
use crate::problem::{Kind, Problem};
use crate::secret::Secret;

/// Header of a request's id.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The client of a request, and the request's ids.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The client's address: of the connection, or of its PROXY header.
    pub address: SocketAddr,
    /// Our id of the request.
    pub request_id: Arc<str>,
    /// The id that the client gave it, where it is a word that can be logged.
    pub external_request_id: Option<Arc<str>>,
    /// The client's `user-agent`, cut to 200 characters: what a person recognises a device by, and nothing that can be relied on.
    pub user_agent: Option<Arc<str>>,
}

/// The client's address, which the server attaches to each request of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// What requests may take. Copies share the budget of bodies.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Time until the response begins.
    pub time: Duration,
    /// Limits of a body, where its route has no others.
    pub body: BodyLimits,
    /// What all bodies may take together.
    pub budget: BodyBudget,
}

/// The form of the errors below a path: of refused tokens, unknown paths, timeouts and panics too.
#[derive(Clone)]
pub struct Dialect {
    /// The paths begin with this.
    pub prefix: &'static str,
    /// Writes a problem in this form, as the request asks for it. `None`: as a problem document.
    pub write: Arc<Write>,
}

type Write = dyn Fn(&Problem, &RequestHead) -> Option<Response> + Send + Sync;

impl Dialect {
    /// The form of the errors below `prefix`.
    pub fn new(
        prefix: &'static str,
        write: impl Fn(&Problem, &RequestHead) -> Option<Response> + Send + Sync + 'static,
    ) -> Self {
        Self { prefix, write: Arc::new(write) }
    }
}

impl std::fmt::Debug for Dialect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dialect").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

/// What a request is, without its body.
#[derive(Clone, Debug)]
pub struct RequestHead {
    /// Its method.
    pub method: Method,
    /// Its address.
    pub uri: Uri,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its sender, where the route knows: pages about problems have the navigation of who sees them.
    pub identity: Option<Arc<Identity>>,
}

#[derive(Clone, Debug)]
struct Middleware {
    limits: Limits,
    metrics: Arc<Metrics>,
    clock: Clock,
    dialects: Arc<[Dialect]>,
    lines: Arc<lines::Lines>,
}

tokio::task_local! {
    /// The id of the request that is handled.
    static REQUEST: Arc<str>;
}

/// The id of the request that is handled, to be sent to services that are called for it.
#[must_use]
pub fn current_request_id() -> Option<Arc<str>> {
    REQUEST.try_with(Arc::clone).ok()
}

/// Puts the middleware around a router. The server attaches [`Peer`] to each request. Of several dialects whose prefix fits, the longest counts;
/// where none does, problems are problem documents. gRPC calls get a status.
pub fn middleware(
    router: Router,
    limits: Limits,
    metrics: Arc<Metrics>,
    clock: Clock,
    dialects: &[Dialect],
) -> Router {
    let mut dialects = dialects.to_vec();
    dialects.sort_by_key(|dialect| std::cmp::Reverse(dialect.prefix.len()));
    let state = Middleware { limits, metrics, clock, dialects: dialects.into(), lines: Arc::default() };
    router
        .fallback(|| async { Problem::not_found("There is nothing at this path.") })
        .method_not_allowed_fallback(|| async {
            Problem::new(Kind::Method, "method", "This path takes other methods: see the header `allow`.")
        })
        .layer(from_fn_with_state(state, handle))
}

/// One request, from its head to the head of its response.
async fn handle(State(middleware): State<Middleware>, mut request: Request, next: Next) -> Response {
    let start = middleware.clock.elapsed();
    let caller = Caller {
        address: request.extensions().get::<Peer>().map_or(LOCAL, |peer| peer.0),
        request_id: uuid::Uuid::new_v4().simple().to_string().into(),
        external_request_id: external_request_id(request.headers()),
        user_agent: user_agent(request.headers()),
    };
    // The pattern, not the path: paths hold what clients send, and sometimes secrets.
    let matched = request.extensions().get::<MatchedPath>().cloned();
    let route = matched.as_ref().map_or("-", MatchedPath::as_str);
    let mut head = RequestHead {
        method: request.method().clone(),
        uri: request.uri().clone(),
        headers: request.headers().clone(),
        identity: None,
    };
    let is_grpc = is_grpc(&head.headers);
    let path = head.uri.path();
    let dialect = middleware.dialects.iter().find(|dialect| path.starts_with(dialect.prefix)).cloned();
    let id = HeaderValue::from_str(&caller.request_id).expect("an id is made of header characters");
    let external = caller.external_request_id.as_deref().unwrap_or_default();
    let span = tracing::info_span!("request", id = &*caller.request_id, external_id = external);
    request.extensions_mut().insert(caller.clone());
    request.extensions_mut().insert(middleware.limits.body);
    request.extensions_mut().insert(middleware.limits.budget.clone());
    let request = request.map(|body| drain::drained(body, &middleware.limits.budget));
    let work = AssertUnwindSafe(REQUEST.scope(Arc::clone(&caller.request_id), next.run(request)));
    let mut response = match work.catch_unwind().instrument(span.clone()).await {
        Ok(response) => response,
        // Its message went to the log when it happened.
        Err(_panic) => {
            let detail =
                "The server failed to handle the request. Its log has the cause, under the request's id.";
            Problem::new(Kind::Internal, "internal", detail).into_response()
        }
    };
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        head.identity = response.extensions_mut().remove();
        response = in_dialect(response, problem, is_grpc, matched.is_some(), dialect, &head);
    }
    response.headers_mut().insert(REQUEST_ID, id);
    response.headers_mut().entry("x-content-type-options").or_insert(HeaderValue::from_static("nosniff"));
    let took = middleware.clock.elapsed().saturating_sub(start);
    let outcome = outcome(&response);
    let label = matched.as_ref().map_or(RouteLabel::NONE, RouteLabel::Matched);
    middleware.metrics.count(label, &head.method, outcome, took);
    let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    let (client, method) = (caller.address, &head.method);
    if response.status().is_server_error() && !middleware.lines.admits(middleware.clock.elapsed()) {
        // A flood that is refused must not fill the disk either.
    } else if response.status().is_server_error() {
        tracing::warn!(target: ACCESS, parent: &span, %client, %method, route, status = outcome, took_us, "answered");
    } else {
        tracing::info!(target: ACCESS, parent: &span, %client, %method, route, status = outcome, took_us, "answered");
    }
    response
}

/// A problem document in the form that belongs to its path. Headers of the document stay: `allow`, `retry-after`.
fn in_dialect(
    document: Response,
    problem: Problem,
    is_grpc: bool,
    is_routed: bool,
    dialect: Option<Dialect>,
    head: &RequestHead,
) -> Response {
    if is_grpc {
        // What clients expect of a method that is not there.
        let is_unknown = matches!(problem.kind, Kind::NotFound | Kind::Method) && !is_routed;
        let status = if is_unknown { Status::unimplemented(problem.detail) } else { Status::from(problem) };
        return status.into_http();
    }
    let Some(mut written) = dialect.and_then(|dialect| (dialect.write)(&problem, head)) else {
        return document;
    };
    for (name, value) in document.headers() {
        if *name != CONTENT_TYPE && *name != CONTENT_LENGTH && !written.headers().contains_key(name) {
            written.headers_mut().append(name, value.clone());
        }
    }
    written
}

/// Whether a request is a gRPC call (the protocol's specification, "Requests").
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.strip_prefix("application/grpc").is_some_and(|rest| rest.is_empty() || rest.starts_with(['+', ';']))
}

/// The status: of gRPC where there is one, else HTTP's.
fn outcome(response: &Response) -> u16 {
    let grpc = response.headers().get("grpc-status").and_then(|status| status.to_str().ok()?.parse().ok());
    grpc.unwrap_or_else(|| response.status().as_u16())
}

/// The client's id of the request, where it can be a word in a log.
fn external_request_id(headers: &HeaderMap) -> Option<Arc<str>> {
    let is_word = |text: &&str| {
        (1..=64).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    headers.get(REQUEST_ID).and_then(|value| value.to_str().ok()).filter(is_word).map(Into::into)
}

/// What the client says it is, where that can be printed (RFC 9110, section 10.1.5).
fn user_agent(headers: &HeaderMap) -> Option<Arc<str>> {
    let text = headers.get(USER_AGENT)?.to_str().ok()?;
    Some(text.get(..text.len().min(200))?.into())
}

/// The token of `authorization: Bearer <token>` (RFC 6750, section 2.1).
///
/// # Errors
/// Another scheme, or more than one.
pub fn bearer(headers: &HeaderMap) -> Result<Option<Secret>, Problem> {
    let Some((scheme, token)) = authorization(headers)? else { return Ok(None) };
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(not_authorization());
    }
    Ok(Some(Secret::from(token)))
}

/// The same, or the password of `authorization: Basic` (RFC 7617), which is the token of the account that its username names (RFC 6749,
/// section 2.3.1). The token says whose it is: the username is not looked at.
///
/// # Errors
/// Another scheme, or more than one.
pub fn bearer_or_basic(headers: &HeaderMap) -> Result<Option<Secret>, Problem> {
    let Some((scheme, credentials)) = authorization(headers)? else { return Ok(None) };
    if !scheme.eq_ignore_ascii_case("basic") {
        return bearer(headers);
    }
    let read = || {
        let bytes = zeroize::Zeroizing::new(data_encoding::BASE64.decode(credentials.as_bytes()).ok()?);
        let (_, password) = std::str::from_utf8(&bytes).ok()?.split_once(':')?;
        // Tokens have no character that a form would escape.
        (!password.is_empty()).then(|| Secret::from(password))
    };
    read().map(Some).ok_or_else(not_authorization)
}

/// Scheme and credentials of the only header `authorization`.
fn authorization(headers: &HeaderMap) -> Result<Option<(&str, &str)>, Problem> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let text = value.to_str().ok().filter(|_| values.next().is_none());
    let parts = text.and_then(|text| text.split_once(' ')).map(|(scheme, rest)| (scheme, rest.trim()));
    let is_one = |(_, rest): &(&str, &str)| !rest.is_empty() && !rest.contains(' ');
    parts.filter(is_one).map(Some).ok_or_else(not_authorization)
}

fn not_authorization() -> Problem {
    Problem::unauthenticated("The header `authorization` must be `Bearer` and one token.")
}
