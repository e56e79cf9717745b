//! What admins do with accounts.

use axum::extract::State;
use mc_api::mcias::{
    Account, AccountChange, Changed, CreateAccountRequest, IssuedLink, IssuedToken, ListAccountsReply,
    ListAccountsRequest, ListSessionsReply, ListTokensReply, NewToken,
};
use mcdsl::http::{Json, Path, Query};
use mcdsl::problem::Problem;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Answer, App, Asking};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create_account, list_accounts))
        .routes(routes!(get_account, update_account, delete_account))
        .routes(routes!(issue_link))
        .routes(routes!(reset_factors))
        .routes(routes!(list_account_sessions, end_account_sessions))
        .routes(routes!(end_account_session))
        .routes(routes!(issue_token, list_tokens))
        .routes(routes!(revoke_token))
}

/// Makes an account. A person gets a password by a link.
#[utoipa::path(
    post,
    path = "/v1/accounts",
    tag = "accounts",
    request_body = CreateAccountRequest,
    responses((status = 200, description = "Done.", body = Account), Problem)
)]
async fn create_account(
    State(app): State<App>,
    Asking(ask): Asking,
    Json(body): Json<CreateAccountRequest>,
) -> Answer<Account> {
    app.create_account(&ask, body).await.map(Json)
}

/// Accounts in the order of their names.
#[utoipa::path(
    get,
    path = "/v1/accounts",
    tag = "accounts",
    params(ListAccountsRequest),
    responses((status = 200, description = "Done.", body = ListAccountsReply), Problem)
)]
async fn list_accounts(
    State(app): State<App>,
    Asking(ask): Asking,
    Query(query): Query<ListAccountsRequest>,
) -> Answer<ListAccountsReply> {
    app.list_accounts(&ask, query).await.map(Json)
}

/// An account.
#[utoipa::path(
    get,
    path = "/v1/accounts/{name}",
    tag = "accounts",
    params(("name" = String, Path, description = "The account's name.")),
    responses((status = 200, description = "Done.", body = Account), Problem)
)]
async fn get_account(
    State(app): State<App>,
    Asking(ask): Asking,
    Path(name): Path<String>,
) -> Answer<Account> {
    app.get_account(&ask, &name).await.map(Json)
}

/// Changes what is given.
#[utoipa::path(
    patch,
    path = "/v1/accounts/{name}",
    tag = "accounts",
    params(("name" = String, Path, description = "The account's name.")),
    request_body = AccountChange,
    responses((status = 200, description = "Done.", body = Account), Problem)
)]
async fn update_account(
    State(app): State<App>,
    Asking(ask): Asking,
    Path(name): Path<String>,
    Json(body): Json<AccountChange>,
) -> Answer<Account> {
    app.update_account(&ask, name, body).await.map(Json)
}

/// Removes an account with everything that is its.
#[utoipa::path(
    delete,
    path = "/v1/accounts/{name}",
    tag = "accounts",
    params(("name" = String, Path, description = "The account's name.")),
    responses((status = 200, description = "Done.", body = Changed), Problem)
)]
async fn delete_account(
    State(app): State<App>,
    Asking(ask): Asking,
    Path(name): Path<String>,
) -> Answer<Changed> {
    app.delete_account(&ask, name).await.map(Json)
}

/// Makes a one-time link, with which a person sets a password.
#[utoipa::path(
    post,
    path = "/v1/accounts/{name}/link",
    tag = "accounts",
    params(("name" = String, Path, description = "The account's name.")),
    responses((status = 200, description = "Done.", body = IssuedLink), Problem)
)]
async fn issue_link(
    State(app): State<App>,
    Asking(ask): Asking,
    Path(name): Path<String>,
) -> Answer<IssuedLink> {
    app.issue_link(&ask, name).await.map(Json)
}

/// Takes second factor, recovery codes and passkeys from a person who has lost them.
#[utoipa::path(
    post,
    path = "/v1/accounts/{name}/reset-factors",
    tag = "accounts",
    params(("name" = String, Path, description = "The account's name.")),
    responses((status = 200, description = "Done.", body = Changed), Problem)
)]
async fn reset_factors(
    State(app): State<App>,
    Asking(ask): Asking,
    Path(name): Path<String>,
) -> Answer<Changed> {
    app.reset_factors(&ask, name).await.map(Json)
}

/// A person's live sessions.
#[utoipa::path(
    get,
    path = "/v1/accounts/{name}/sessions",
    tag = "accounts",
    params(("name" = String, Path, description = "The account's name.")),
    responses((status = 200, description = "Done.", body = ListSessionsReply), Problem)
)]
async fn list_account_sessions(
    State(app): State<App>,
    Asking(ask): Asking,
    Path(name): Path<String>,
) -> Answer<ListSessionsReply> {
    app.list_account_sessions(&ask, name).await.map(Json)
}

/// Ends all of a person's sessions.
#[utoipa::path(
    delete,
    path = "/v1/accounts/{name}/sessions",
    tag = "accounts",
    params(("name" = String, Path, description = "The account's name.")),
    responses((status = 200, description = "Done.", body = Changed), Problem)
)]
async fn end_account_sessions(
    State(app): State<App>,
    Asking(ask): Asking,
    Path(name): Path<String>,
) -> Answer<Changed> {
    app.end_account_sessions(&ask, name).await.map(Json)
}

/// Ends a person's session.
#[utoipa::path(
    delete,
    path = "/v1/accounts/{name}/sessions/{id}",
    tag = "accounts",
    params(("name" = String, Path, description = "The account's name."), ("id" = String, Path, description = "Its id.")),
    responses((status = 200, description = "Done.", body = Changed), Problem)
)]
async fn end_account_session(
    State(app): State<App>,
    Asking(ask): Asking,
    Path((name, id)): Path<(String, String)>,
) -> Answer<Changed> {
    app.end_account_session(&ask, name, id).await.map(Json)
}

/// Issues a token of a system account. It is shown this once.
#[utoipa::path(
    post,
    path = "/v1/accounts/{name}/tokens",
    tag = "accounts",
    params(("name" = String, Path, description = "The account's name.")),
    request_body = NewToken,
    responses((status = 200, description = "Done.", body = IssuedToken), Problem)
)]
async fn issue_token(
    State(app): State<App>,
    Asking(ask): Asking,
    Path(name): Path<String>,
    Json(body): Json<NewToken>,
) -> Answer<IssuedToken> {
    app.issue_token(&ask, name, body).await.map(Json)
}

/// Tokens of a system account.
#[utoipa::path(
    get,
    path = "/v1/accounts/{name}/tokens",
    tag = "accounts",
    params(("name" = String, Path, description = "The account's name.")),
    responses((status = 200, description = "Done.", body = ListTokensReply), Problem)
)]
async fn list_tokens(
    State(app): State<App>,
    Asking(ask): Asking,
    Path(name): Path<String>,
) -> Answer<ListTokensReply> {
    app.list_tokens(&ask, name).await.map(Json)
}

/// Revokes a token.
#[utoipa::path(
    delete,
    path = "/v1/accounts/{name}/tokens/{id}",
    tag = "accounts",
    params(("name" = String, Path, description = "The account's name."), ("id" = String, Path, description = "Its id.")),
    responses((status = 200, description = "Done.", body = Changed), Problem)
)]
async fn revoke_token(
    State(app): State<App>,
    Asking(ask): Asking,
    Path((name, id)): Path<(String, String)>,
) -> Answer<Changed> {
    app.revoke_token(&ask, name, id).await.map(Json)
}
