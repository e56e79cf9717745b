//! What people do for themselves.

use axum::extract::State;
use mc_api::mcias::{
    Account, ChangePasswordRequest, Changed, ConfirmTotpRequest, FinishPasskeyRequest, ListPasskeysReply,
    ListSessionsReply, Passkey, PasskeyChallenge, PasskeyLabel, RecoveryCodes, TotpEnrolment,
};
use mcdsl::http::{Json, Path};
use mcdsl::problem::Problem;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Answer, App, Asking};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(get_me))
        .routes(routes!(change_password))
        .routes(routes!(begin_totp))
        .routes(routes!(confirm_totp))
        .routes(routes!(remove_totp))
        .routes(routes!(replace_recovery_codes))
        .routes(routes!(list_passkeys))
        .routes(routes!(begin_passkey))
        .routes(routes!(finish_passkey))
        .routes(routes!(rename_passkey, remove_passkey))
        .routes(routes!(list_sessions))
        .routes(routes!(end_session))
        .routes(routes!(end_other_sessions))
        .routes(routes!(logout))
}

/// The account of whoever asks.
#[utoipa::path(
    get,
    path = "/v1/me",
    tag = "me",
    responses((status = 200, description = "Done.", body = Account), Problem)
)]
async fn get_me(State(app): State<App>, Asking(ask): Asking) -> Answer<Account> {
    app.get_me(&ask).await.map(Json)
}

/// Replaces the password, and ends every other session.
#[utoipa::path(
    put,
    path = "/v1/me/password",
    tag = "me",
    request_body = ChangePasswordRequest,
    responses((status = 200, description = "Done.", body = Changed), Problem)
)]
async fn change_password(
    State(app): State<App>,
    Asking(ask): Asking,
    Json(body): Json<ChangePasswordRequest>,
) -> Answer<Changed> {
    app.change_password(&ask, body).await.map(Json)
}

/// A new secret for a second factor, which counts once it is confirmed.
#[utoipa::path(
    post,
    path = "/v1/me/totp/begin",
    tag = "me",
    responses((status = 200, description = "Done.", body = TotpEnrolment), Problem)
)]
async fn begin_totp(State(app): State<App>, Asking(ask): Asking) -> Answer<TotpEnrolment> {
    app.begin_totp(&ask).await.map(Json)
}

/// Turns the second factor on.
#[utoipa::path(
    post,
    path = "/v1/me/totp/confirm",
    tag = "me",
    request_body = ConfirmTotpRequest,
    responses((status = 200, description = "Done.", body = RecoveryCodes), Problem)
)]
async fn confirm_totp(
    State(app): State<App>,
    Asking(ask): Asking,
    Json(body): Json<ConfirmTotpRequest>,
) -> Answer<RecoveryCodes> {
    app.confirm_totp(&ask, body).await.map(Json)
}

/// Turns the second factor off.
#[utoipa::path(
    delete,
    path = "/v1/me/totp",
    tag = "me",
    responses((status = 200, description = "Done.", body = Changed), Problem)
)]
async fn remove_totp(State(app): State<App>, Asking(ask): Asking) -> Answer<Changed> {
    app.remove_totp(&ask).await.map(Json)
}

/// New recovery codes; the old ones are void.
#[utoipa::path(
    post,
    path = "/v1/me/recovery-codes",
    tag = "me",
    responses((status = 200, description = "Done.", body = RecoveryCodes), Problem)
)]
async fn replace_recovery_codes(State(app): State<App>, Asking(ask): Asking) -> Answer<RecoveryCodes> {
    app.replace_recovery_codes(&ask).await.map(Json)
}

/// Passkeys of whoever asks.
#[utoipa::path(
    get,
    path = "/v1/me/passkeys",
    tag = "me",
    responses((status = 200, description = "Done.", body = ListPasskeysReply), Problem)
)]
async fn list_passkeys(State(app): State<App>, Asking(ask): Asking) -> Answer<ListPasskeysReply> {
    app.list_passkeys(&ask).await.map(Json)
}

/// A challenge for a new passkey.
#[utoipa::path(
    post,
    path = "/v1/me/passkeys/begin",
    tag = "me",
    responses((status = 200, description = "Done.", body = PasskeyChallenge), Problem)
)]
async fn begin_passkey(State(app): State<App>, Asking(ask): Asking) -> Answer<PasskeyChallenge> {
    app.begin_passkey(&ask).await.map(Json)
}

/// Adds a passkey.
#[utoipa::path(
    post,
    path = "/v1/me/passkeys/finish",
    tag = "me",
    request_body = FinishPasskeyRequest,
    responses((status = 200, description = "Done.", body = Passkey), Problem)
)]
async fn finish_passkey(
    State(app): State<App>,
    Asking(ask): Asking,
    Json(body): Json<FinishPasskeyRequest>,
) -> Answer<Passkey> {
    app.finish_passkey(&ask, body).await.map(Json)
}

/// Calls a passkey something else.
#[utoipa::path(
    patch,
    path = "/v1/me/passkeys/{id}",
    tag = "me",
    params(("id" = String, Path, description = "Its id.")),
    request_body = PasskeyLabel,
    responses((status = 200, description = "Done.", body = Passkey), Problem)
)]
async fn rename_passkey(
    State(app): State<App>,
    Asking(ask): Asking,
    Path(id): Path<String>,
    Json(body): Json<PasskeyLabel>,
) -> Answer<Passkey> {
    app.rename_passkey(&ask, id, &body.label).await.map(Json)
}

/// Removes a passkey.
#[utoipa::path(
    delete,
    path = "/v1/me/passkeys/{id}",
    tag = "me",
    params(("id" = String, Path, description = "Its id.")),
    responses((status = 200, description = "Done.", body = Changed), Problem)
)]
async fn remove_passkey(
    State(app): State<App>,
    Asking(ask): Asking,
    Path(id): Path<String>,
) -> Answer<Changed> {
    app.remove_passkey(&ask, id).await.map(Json)
}

/// Live sessions of whoever asks.
#[utoipa::path(
    get,
    path = "/v1/me/sessions",
    tag = "me",
    responses((status = 200, description = "Done.", body = ListSessionsReply), Problem)
)]
async fn list_sessions(State(app): State<App>, Asking(ask): Asking) -> Answer<ListSessionsReply> {
    app.list_sessions(&ask).await.map(Json)
}

/// Ends a session of whoever asks.
#[utoipa::path(
    delete,
    path = "/v1/me/sessions/{id}",
    tag = "me",
    params(("id" = String, Path, description = "Its id.")),
    responses((status = 200, description = "Done.", body = Changed), Problem)
)]
async fn end_session(State(app): State<App>, Asking(ask): Asking, Path(id): Path<String>) -> Answer<Changed> {
    app.end_session(&ask, id).await.map(Json)
}

/// Ends every session of whoever asks but the one that asks.
#[utoipa::path(
    post,
    path = "/v1/me/sessions/end-others",
    tag = "me",
    responses((status = 200, description = "Done.", body = Changed), Problem)
)]
async fn end_other_sessions(State(app): State<App>, Asking(ask): Asking) -> Answer<Changed> {
    app.end_other_sessions(&ask).await.map(Json)
}

/// Ends the session that asks.
#[utoipa::path(
    post,
    path = "/v1/me/logout",
    tag = "me",
    responses((status = 200, description = "Done.", body = Changed), Problem)
)]
async fn logout(State(app): State<App>, Asking(ask): Asking) -> Answer<Changed> {
    app.logout(&ask).await.map(Json)
}
