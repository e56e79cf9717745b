//! REST: each request asks of [`Mcias`] what its counterpart of gRPC asks, and the OpenAPI document says how.
//!
//! Bodies are the messages of `mcias.proto` as JSON. What goes wrong is a problem document (RFC 9457).

mod accounts;
mod identity;
mod me;
mod site;

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::response::Response;
use axum::routing::get;
use axum::{Json as Plain, Router};
use http::HeaderValue;
use http::header::CACHE_CONTROL;
use http::request::Parts;
use mcdsl::http::{Caller, Json, bearer};
use mcdsl::problem::{Document, Problem};
use utoipa::openapi::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi as _};
use utoipa_axum::router::OpenApiRouter;

use crate::app::{Ask, Mcias};
use crate::config::SMALL;

/// What handlers share.
pub(crate) type App = Arc<Mcias>;

/// What a handler answers.
type Answer<T> = Result<Json<T>, Problem>;

/// Who asks: nobody, or the bearer of a good token.
pub(crate) struct Asking(pub(crate) Ask);

impl FromRequestParts<App> for Asking {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let caller = parts.extensions.get::<Caller>().cloned().expect("every request is surrounded");
        let token = bearer(&parts.headers)?;
        app.ask(caller, token).await.map(Self)
    }
}

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "MCIAS",
        description = "Identity and access: accounts, tokens, roles, login policy. Times are seconds since 1970 (UTC)."
    ),
    components(schemas(Document)),
    modifiers(&Token),
    security(("token" = []))
)]
struct Description;

/// How tokens are shown.
struct Token;

impl Modify for Token {
    fn modify(&self, document: &mut OpenApi) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(scheme));
    }
}

/// The REST API, and the document that describes it at `/openapi.json`.
pub fn router(app: App) -> Router {
    let (router, document) = described();
    let router = router.layer(axum::middleware::map_response(unstored));
    let router = router.route("/openapi.json", get(move || async move { Plain(document) }));
    router.route("/healthz", get(|| async { "ok\n" })).with_state(app)
}

/// Answers hold tokens and who somebody is: nobody on the way keeps them (RFC 9111, section 5.2.2.5).
async fn unstored(mut response: Response) -> Response {
    response.headers_mut().entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// The OpenAPI document.
#[must_use]
pub fn document() -> OpenApi {
    described().1
}

fn described() -> (Router<App>, OpenApi) {
    OpenApiRouter::with_openapi(Description::openapi())
        .merge(identity::routes())
        .merge(me::routes())
        .merge(accounts::routes())
        .merge(site::routes())
        .split_for_parts()
}
