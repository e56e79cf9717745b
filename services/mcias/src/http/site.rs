//! Login policy, audit log and keys.

use axum::extract::State;
use mc_api::mcias::{
    AuditVerdict, Changed, ExplainPolicyRequest, Explanation, ListAuditReply, ListAuditRequest,
    ListKeysReply, Policy, SetPolicyRequest, VerifyAuditRequest,
};
use mcdsl::http::{Json, Path, Query};
use mcdsl::problem::Problem;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Answer, App, Asking};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(get_policy, set_policy))
        .routes(routes!(explain_policy))
        .routes(routes!(list_audit))
        .routes(routes!(verify_audit))
        .routes(routes!(list_keys))
        .routes(routes!(rotate_keys))
        .routes(routes!(withdraw_key))
}

/// The login policy.
#[utoipa::path(
    get,
    path = "/v1/policy",
    tag = "site",
    responses((status = 200, description = "Done.", body = Policy), Problem)
)]
async fn get_policy(State(app): State<App>, Asking(ask): Asking) -> Answer<Policy> {
    app.get_policy(&ask).await.map(Json)
}

/// Replaces the login policy.
#[utoipa::path(
    put,
    path = "/v1/policy",
    tag = "site",
    request_body = SetPolicyRequest,
    responses((status = 200, description = "Done.", body = Policy), Problem)
)]
async fn set_policy(
    State(app): State<App>,
    Asking(ask): Asking,
    Json(body): Json<SetPolicyRequest>,
) -> Answer<Policy> {
    app.set_policy(&ask, body).await.map(Json)
}

/// What the login policy says of an account at a service, and why.
#[utoipa::path(
    post,
    path = "/v1/policy/explain",
    tag = "site",
    request_body = ExplainPolicyRequest,
    responses((status = 200, description = "Done.", body = Explanation), Problem)
)]
async fn explain_policy(
    State(app): State<App>,
    Asking(ask): Asking,
    Json(body): Json<ExplainPolicyRequest>,
) -> Answer<Explanation> {
    app.explain_policy(&ask, body).await.map(Json)
}

/// The audit log, the newest first.
#[utoipa::path(
    get,
    path = "/v1/audit",
    tag = "site",
    params(ListAuditRequest),
    responses((status = 200, description = "Done.", body = ListAuditReply), Problem)
)]
async fn list_audit(
    State(app): State<App>,
    Asking(ask): Asking,
    Query(query): Query<ListAuditRequest>,
) -> Answer<ListAuditReply> {
    app.list_audit(&ask, query).await.map(Json)
}

/// Whether each entry of the audit log follows from the one before.
#[utoipa::path(
    post,
    path = "/v1/audit/verify",
    tag = "site",
    request_body = VerifyAuditRequest,
    responses((status = 200, description = "Done.", body = AuditVerdict), Problem)
)]
async fn verify_audit(
    State(app): State<App>,
    Asking(ask): Asking,
    Json(body): Json<VerifyAuditRequest>,
) -> Answer<AuditVerdict> {
    app.verify_audit(&ask, body).await.map(Json)
}

/// The keys that tokens are signed with.
#[utoipa::path(
    get,
    path = "/v1/keys",
    tag = "site",
    responses((status = 200, description = "Done.", body = ListKeysReply), Problem)
)]
async fn list_keys(State(app): State<App>, Asking(ask): Asking) -> Answer<ListKeysReply> {
    app.list_keys(&ask).await.map(Json)
}

/// Makes a new key, which signs once others had time to fetch it.
#[utoipa::path(
    post,
    path = "/v1/keys/rotate",
    tag = "site",
    responses((status = 200, description = "Done.", body = ListKeysReply), Problem)
)]
async fn rotate_keys(State(app): State<App>, Asking(ask): Asking) -> Answer<ListKeysReply> {
    app.rotate_keys(&ask).await.map(Json)
}

/// Withdraws a key that others may have: whatever it signed is good no more, from now on. Where it signs now, a new one does.
#[utoipa::path(
    delete,
    path = "/v1/keys/{id}",
    tag = "site",
    params(("id" = String, Path, description = "Its id, as in the list of keys.")),
    responses((status = 200, description = "Done.", body = Changed), Problem)
)]
async fn withdraw_key(
    State(app): State<App>,
    Asking(ask): Asking,
    Path(id): Path<String>,
) -> Answer<Changed> {
    app.withdraw_key(&ask, id).await.map(Json)
}
