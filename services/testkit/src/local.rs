//! A service within the test's process: requests without sockets, and a clock that the test sets.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use http::HeaderMap;
use http::request::Builder;
use http_body_util::BodyExt as _;
use mcdsl::clock::Clock;
use mcdsl::http::{Limits, Metrics, Peer, middleware};
use mcdsl::operation::Route;
use mcdsl::program::Service;
use serde_json::Value;
use tokio::runtime::Runtime;
use tower::ServiceExt as _;

use crate::service::Answer;

/// A service, opened, that waits for requests.
#[derive(Debug)]
pub struct Local {
    /// What the service takes for the time.
    pub clock: Clock,
    /// Everything that it answers.
    pub routes: Vec<Route>,
    router: Router,
    grpc: Router,
    /// What it runs on.
    pub runtime: Runtime,
}

/// What a service runs on within a test.
///
/// # Panics
/// The system gives no more.
#[must_use]
pub fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

impl Local {
    /// Puts what all services have around this one's routes.
    #[must_use]
    pub fn new<S: Service>(service: &Arc<S>, limits: Limits, clock: Clock, runtime: Runtime) -> Self {
        let routes = service.routes(limits.clone());
        let wrap = |router| {
            middleware(router, limits.clone(), Arc::new(Metrics::default()), clock.clone(), &routes.dialects)
        };
        let (router, grpc) = (wrap(routes.api.merge(routes.pages)), wrap(routes.grpc));
        Self { clock, routes: routes.routes, router, grpc, runtime }
    }

    /// Sends a request to REST or a page, from this address.
    ///
    /// # Panics
    /// The request cannot be sent.
    pub fn send(&self, from: [u8; 4], request: Builder, body: String) -> Answer {
        let response = self.exchange(&self.router, from, request, body.into());
        let (parts, body) = response.into_parts();
        let body = self.runtime.block_on(body.collect()).expect("a body").to_bytes();
        let text = String::from_utf8_lossy(&body).into_owned();
        Answer {
            status: parts.status.as_u16(),
            head: format!("{} {:?}", parts.status, parts.headers),
            body: serde_json::from_str(&text).unwrap_or_default(),
            text,
        }
    }

    /// Sends a request with a JSON body (null: no body) and a token (empty: no token).
    pub fn ask(&self, method: &str, path: &str, token: &str, body: &Value) -> Answer {
        self.ask_from([192, 0, 2, 1], method, path, token, body)
    }

    /// The same, from this address.
    pub fn ask_from(&self, from: [u8; 4], method: &str, path: &str, token: &str, body: &Value) -> Answer {
        let request = bearer(http::Request::builder().method(method).uri(path), token);
        if body.is_null() {
            return self.send(from, request, String::new());
        }
        self.send(from, request.header("content-type", "application/json"), body.to_string())
    }

    /// Calls a gRPC method with an empty message. Returns the status code.
    ///
    /// # Panics
    /// The response has no status.
    #[must_use]
    pub fn call(&self, path: &str, token: &str) -> i32 {
        let request = http::Request::builder().method("POST").uri(path);
        let request =
            bearer(request, token).header("content-type", "application/grpc").header("te", "trailers");
        let response = self.exchange(&self.grpc, [192, 0, 2, 1], request, Body::from(vec![0; 5]));
        let code = |headers: &HeaderMap| headers.get("grpc-status")?.to_str().ok()?.parse().ok();
        if let Some(code) = code(response.headers()) {
            return code;
        }
        let body = self.runtime.block_on(response.into_body().collect()).expect("a body");
        body.trailers().and_then(code).expect("a status")
    }

    fn exchange(&self, router: &Router, from: [u8; 4], request: Builder, body: Body) -> http::Response<Body> {
        let mut request = request.body(body).expect("a request");
        request.extensions_mut().insert(Peer(SocketAddr::from((from, 4000))));
        let Ok(response) = self.runtime.block_on(router.clone().oneshot(request));
        response
    }
}

/// Adds a token; an empty one is none.
fn bearer(request: Builder, token: &str) -> Builder {
    if token.is_empty() { request } else { request.header("authorization", format!("Bearer {token}")) }
}
