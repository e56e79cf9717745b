//! Logging in, and telling others who somebody is.

use axum::extract::{DefaultBodyLimit, State};
use mc_api::mcias::{
    BeginPasskeyLoginRequest, FinishPasskeyLoginRequest, GetLinkRequest, IntrospectRequest, Introspection,
    KeySet, Link, LoginReply, LoginRequest, PasskeyChallenge, RedeemLinkReply, RedeemLinkRequest,
};
use mcdsl::http::{Form, Json};
use mcdsl::problem::Problem;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Answer, App, Asking, SMALL};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(login))
        .routes(routes!(begin_passkey_login))
        .routes(routes!(finish_passkey_login))
        .routes(routes!(get_link))
        .routes(routes!(redeem_link))
        .routes(routes!(introspect))
        .routes(routes!(key_set))
        .layer(DefaultBodyLimit::max(SMALL))
}

/// Password, and a second factor where the account has one. A service that shows its token logs a person in to itself.
#[utoipa::path(
    post,
    path = "/v1/login",
    tag = "identity",
    request_body = LoginRequest,
    security((), ("token" = [])),
    responses((status = 200, description = "Done.", body = LoginReply), Problem)
)]
async fn login(
    State(app): State<App>,
    Asking(ask): Asking,
    Json(body): Json<LoginRequest>,
) -> Answer<LoginReply> {
    app.login(&ask, body).await.map(Json)
}

/// A challenge for any passkey of this site. Takes no token.
#[utoipa::path(
    post,
    path = "/v1/login/passkey/begin",
    tag = "identity",
    request_body = BeginPasskeyLoginRequest,
    security(()),
    responses((status = 200, description = "Done.", body = PasskeyChallenge), Problem)
)]
async fn begin_passkey_login(
    State(app): State<App>,
    Asking(ask): Asking,
    Json(_body): Json<BeginPasskeyLoginRequest>,
) -> Answer<PasskeyChallenge> {
    app.begin_passkey_login(&ask).map(Json)
}

/// The answer to such a challenge.
#[utoipa::path(
    post,
    path = "/v1/login/passkey/finish",
    tag = "identity",
    request_body = FinishPasskeyLoginRequest,
    security((), ("token" = [])),
    responses((status = 200, description = "Done.", body = LoginReply), Problem)
)]
async fn finish_passkey_login(
    State(app): State<App>,
    Asking(ask): Asking,
    Json(body): Json<FinishPasskeyLoginRequest>,
) -> Answer<LoginReply> {
    app.finish_passkey_login(&ask, body).await.map(Json)
}

/// What a one-time link is for. Takes no token.
#[utoipa::path(
    post,
    path = "/v1/link",
    tag = "identity",
    request_body = GetLinkRequest,
    security(()),
    responses((status = 200, description = "Done.", body = Link), Problem)
)]
async fn get_link(State(app): State<App>, Json(body): Json<GetLinkRequest>) -> Answer<Link> {
    app.get_link(body).await.map(Json)
}

/// Sets the password that a one-time link is for, and ends every session of the account. Takes no token.
#[utoipa::path(
    post,
    path = "/v1/link/redeem",
    tag = "identity",
    request_body = RedeemLinkRequest,
    security(()),
    responses((status = 200, description = "Done.", body = RedeemLinkReply), Problem)
)]
async fn redeem_link(
    State(app): State<App>,
    Asking(ask): Asking,
    Json(body): Json<RedeemLinkRequest>,
) -> Answer<RedeemLinkReply> {
    app.redeem_link(&ask, body).await.map(Json)
}

/// RFC 7662: whether a token is good for the service that asks, and whose it is.
#[utoipa::path(
    post,
    path = "/v1/introspect",
    tag = "identity",
    request_body(content = IntrospectRequest, content_type = "application/x-www-form-urlencoded"),
    responses((status = 200, description = "Done.", body = Introspection), Problem)
)]
async fn introspect(
    State(app): State<App>,
    Asking(ask): Asking,
    Form(body): Form<IntrospectRequest>,
) -> Answer<Introspection> {
    app.introspect(&ask, body).await.map(Json)
}

/// RFC 7517: what the signatures of tokens are checked with.
#[utoipa::path(
    get,
    path = "/.well-known/jwks.json",
    tag = "identity",
    security(()),
    responses((status = 200, description = "Done.", body = KeySet))
)]
async fn key_set(State(app): State<App>) -> Result<Json<KeySet>, Problem> {
    Ok(Json(app.key_set()))
}
