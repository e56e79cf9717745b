//! What surrounds each gRPC call. It goes the way of HTTP: the same server, the same log, the same limits.
//!
//! Calls are served by tonic; its routes are an axum router, which [`crate::http::surround`] takes as it is. What is here
//! is how a handler reads who is asking and from where.

use tonic::Request;
use tonic::service::RoutesBuilder;

use crate::http::{Caller, bearer};
use crate::problem::Problem;
use crate::secret::Secret;

/// The gRPC services of a server, with health and reflection, as a router for [`crate::http::surround`].
pub fn router(services: RoutesBuilder) -> axum::Router {
    services.routes().prepare().into_axum_router()
}

/// Who is connected, and what this request is called.
///
/// # Panics
/// The call did not come through [`crate::http::surround`].
#[must_use]
pub fn caller<T>(request: &Request<T>) -> Caller {
    request.extensions().get::<Caller>().cloned().expect("every call is surrounded")
}

/// The token that a call shows.
///
/// # Errors
/// It shows something else.
pub fn token<T>(request: &Request<T>) -> Result<Option<Secret>, Problem> {
    bearer(request.metadata().as_ref())
}
