//! What surrounds each request, whoever answers it: an id, a limit in time, a place where a panic ends, a log line, numbers.
//!
//! Bodies are read by [`Json`] and [`Form`], queries and paths by [`Query`] and [`Path`]: what is wrong with them is said in
//! a [`Problem`], with the field.

mod drain;
mod metrics;
mod read;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use futures_util::FutureExt as _;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue};
use tonic::Code;
use tracing::Instrument as _;

pub use metrics::Metrics;
pub use read::{Form, Json, Path, Query};

use crate::clock::Clock;
use crate::log::ACCESS;
use crate::problem::{Kind, Problem};
use crate::secret::Secret;

/// Header of a request's id. It travels from service to service.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Who is connected, and what this request is called.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The client's address: what the connection or its PROXY header says.
    pub address: SocketAddr,
    /// The request's id.
    pub request_id: Arc<str>,
}

/// The client's address, which the server puts with each request of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// What a request may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Time until its answer begins.
    pub time: Duration,
    /// Bytes of its body.
    pub body: usize,
}

#[derive(Clone, Debug)]
struct Around {
    limits: Limits,
    metrics: Arc<Metrics>,
    clock: Clock,
}

tokio::task_local! {
    /// The id of the request that is being answered.
    static REQUEST: Arc<str>;
}

/// The id of the request that is being answered, to be handed on to whoever is asked meanwhile.
#[must_use]
pub fn current_request_id() -> Option<Arc<str>> {
    REQUEST.try_with(Arc::clone).ok()
}

/// Puts everything around a router that each request needs. The server puts [`Peer`] with each.
pub fn surround(router: Router, limits: Limits, metrics: Arc<Metrics>, clock: Clock) -> Router {
    let around = Around { limits, metrics, clock };
    router
        .fallback(|| async { Problem::not_found("there is nothing at this path") })
        .method_not_allowed_fallback(|| async {
            Problem::new(Kind::Method, "method", "this path takes another method: see the header `allow`")
        })
        .layer(DefaultBodyLimit::max(limits.body))
        .layer(from_fn_with_state(around, answer))
}

/// One request, from its head to the head of its answer.
async fn answer(State(around): State<Around>, mut request: Request, next: Next) -> Response {
    let start = around.clock.elapsed();
    let caller = Caller {
        address: request.extensions().get::<Peer>().map_or(NOWHERE, |peer| peer.0),
        request_id: request_id(request.headers()),
    };
    // The pattern, not the path: paths hold what clients send, and sometimes secrets.
    let matched = request.extensions().get::<MatchedPath>().cloned();
    let route = matched.as_ref().map_or("-", MatchedPath::as_str);
    let method = request.method().clone();
    let is_grpc = is_grpc(request.headers());
    let grpc_path = is_grpc.then(|| request.uri().path().to_owned());
    let id = HeaderValue::from_str(&caller.request_id).expect("an id is made of header characters");
    let span = tracing::info_span!("request", id = &*caller.request_id);
    request.extensions_mut().insert(caller.clone());
    let request = request.map(|body| drain::drained(body, around.limits.body));
    let answered = AssertUnwindSafe(tokio::time::timeout(
        around.limits.time,
        REQUEST.scope(Arc::clone(&caller.request_id), next.run(request)),
    ));
    let problem = match answered.catch_unwind().instrument(span.clone()).await {
        Ok(Ok(response)) => Ok(response),
        Ok(Err(_late)) => Err(Problem::new(Kind::Timeout, "timeout", "it took too long: try again later")),
        // The panic's words went to the log when it happened.
        Err(_panic) => Err(Problem::new(
            Kind::Internal,
            "internal",
            "something went wrong here; the log says what, by the request's id",
        )),
    };
    let mut response = problem.unwrap_or_else(|problem| {
        if is_grpc { tonic::Status::from(problem).into_http() } else { problem.into_response() }
    });
    response.headers_mut().entry(REQUEST_ID).or_insert(id);
    response.headers_mut().entry("x-content-type-options").or_insert(HeaderValue::from_static("nosniff"));
    let took = around.clock.elapsed().saturating_sub(start);
    let outcome = outcome(&response);
    // tonic's patterns are a service each. The path says which method, where there is such a one: not where it was answered before
    // tonic has looked.
    let unknown = [Code::Unimplemented, Code::Unauthenticated, Code::Unavailable, Code::DeadlineExceeded];
    let is_method = route.ends_with("/{*rest}") && !unknown.map(|code| code as u16).contains(&outcome);
    let route = grpc_path.as_deref().filter(|_| is_method).unwrap_or(route);
    around.metrics.count(route, &method, outcome, took);
    let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    let client = caller.address;
    if response.status().is_server_error() {
        tracing::warn!(target: ACCESS, parent: &span, %client, %method, route, status = outcome, took_us, "answered");
    } else {
        tracing::info!(target: ACCESS, parent: &span, %client, %method, route, status = outcome, took_us, "answered");
    }
    response
}

/// The address where nobody is connected: what is asked on the machine itself.
pub const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0);

/// Whether a request is a gRPC call.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// The status: of gRPC where there is one, else HTTP's.
fn outcome(response: &Response) -> u16 {
    let grpc = response.headers().get("grpc-status").and_then(|status| status.to_str().ok()?.parse().ok());
    grpc.unwrap_or_else(|| response.status().as_u16())
}

/// What the client calls the request, where that can be a word in a log; else something new.
fn request_id(headers: &HeaderMap) -> Arc<str> {
    let is_word = |text: &&str| {
        (1..=64).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    let given = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok()).filter(is_word);
    given.map_or_else(|| uuid::Uuid::new_v4().simple().to_string().into(), Into::into)
}

/// The token of `authorization: Bearer <token>` (RFC 6750, section 2.1).
///
/// # Errors
/// Another scheme, or more than one.
pub fn bearer(headers: &HeaderMap) -> Result<Option<Secret>, Problem> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let wrong = || Problem::unauthenticated("the header `authorization` must be `Bearer` and one token");
    if values.next().is_some() {
        return Err(wrong());
    }
    let text = value.to_str().map_err(|_no_text| wrong())?;
    let (scheme, token) = text.split_once(' ').ok_or_else(wrong)?;
    let token = token.trim();
    if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() || token.contains(' ') {
        return Err(wrong());
    }
    Ok(Some(Secret::from(token)))
}
