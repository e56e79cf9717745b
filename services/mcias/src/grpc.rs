//! gRPC: each call asks the same of [`Mcias`] as its counterpart of REST.

use std::sync::Arc;

use mc_api::mcias::{
    Account, AuditVerdict, BeginPasskeyLoginRequest, BeginPasskeyRequest, BeginTotpRequest,
    ChangePasswordRequest, Changed, ConfirmTotpRequest, CreateAccountRequest, DeleteAccountRequest,
    EndAccountSessionRequest, EndAccountSessionsRequest, EndOtherSessionsRequest, EndSessionRequest,
    ExplainPolicyRequest, Explanation, FinishPasskeyLoginRequest, FinishPasskeyRequest, GetAccountRequest,
    GetKeySetRequest, GetLinkRequest, GetMeRequest, GetPolicyRequest, IntrospectRequest, Introspection,
    IssueLinkRequest, IssueTokenRequest, IssuedLink, IssuedToken, KeySet, Link, ListAccountSessionsRequest,
    ListAccountsReply, ListAccountsRequest, ListAuditReply, ListAuditRequest, ListKeysReply, ListKeysRequest,
    ListPasskeysReply, ListPasskeysRequest, ListSessionsReply, ListSessionsRequest, ListTokensReply,
    ListTokensRequest, LoginReply, LoginRequest, LogoutRequest, Passkey, PasskeyChallenge, PasskeyLabel,
    Policy, RecoveryCodes, RedeemLinkReply, RedeemLinkRequest, RemovePasskeyRequest, RemoveTotpRequest,
    RenamePasskeyRequest, ReplaceRecoveryCodesRequest, ResetFactorsRequest, RevokeTokenRequest,
    RotateKeysRequest, SetPolicyRequest, TotpEnrolment, UpdateAccountRequest, VerifyAuditRequest,
    WithdrawKeyRequest,
};
use mc_api::mcias::{accounts_server, identity_server, login_policy_server, me_server, site_server};
use mcdsl::problem::Problem;
use tonic::service::{Routes, RoutesBuilder};
use tonic::{Request, Response, Status};

use crate::app::{Ask, Mcias};
use crate::config::SMALL;

/// Serves the calls.
#[derive(Clone, Debug)]
struct Grpc(Arc<Mcias>);

type Reply<T> = Result<Response<T>, Status>;

/// All of MCIAS's gRPC services.
///
/// # Errors
/// What the services say of themselves cannot be read: a bug of the build.
pub async fn services(app: Arc<Mcias>) -> Result<RoutesBuilder, tonic_reflection::server::Error> {
    let grpc = Grpc(app);
    let most = grpc.0.config().server.max_body_bytes;
    let identity = identity_server::IdentityServer::new(grpc.clone()).max_decoding_message_size(SMALL);
    let me = me_server::MeServer::new(grpc.clone()).max_decoding_message_size(most);
    let accounts = accounts_server::AccountsServer::new(grpc.clone()).max_decoding_message_size(most);
    let policy = login_policy_server::LoginPolicyServer::new(grpc.clone()).max_decoding_message_size(most);
    let site = site_server::SiteServer::new(grpc).max_decoding_message_size(most);
    let (health, service) = tonic_health::server::health_reporter();
    health.set_service_status("", tonic_health::ServingStatus::Serving).await;
    health.set_serving::<identity_server::IdentityServer<Grpc>>().await;
    health.set_serving::<me_server::MeServer<Grpc>>().await;
    health.set_serving::<accounts_server::AccountsServer<Grpc>>().await;
    health.set_serving::<login_policy_server::LoginPolicyServer<Grpc>>().await;
    health.set_serving::<site_server::SiteServer<Grpc>>().await;
    let mut routes: RoutesBuilder = Routes::builder();
    routes.add_service(identity).add_service(me).add_service(accounts).add_service(policy).add_service(site);
    routes.add_service(service);
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(mc_api::mcias::DESCRIPTORS)
        .build_v1()?;
    routes.add_service(reflection);
    Ok(routes)
}

impl Grpc {
    async fn ask<T>(&self, request: &Request<T>) -> Result<Ask, Status> {
        let token = mcdsl::grpc::token(request)?;
        Ok(self.0.ask(mcdsl::grpc::caller(request), token).await?)
    }
}

fn answer<T>(answered: Result<T, Problem>) -> Reply<T> {
    answered.map(Response::new).map_err(Status::from)
}

/// A part of a message that must be there.
fn part<T>(field: &str, part: Option<T>) -> Result<T, Problem> {
    part.ok_or_else(|| Problem::field(field, "it is missing"))
}

fn label(change: Option<PasskeyLabel>) -> Result<String, Problem> {
    part("change", change).map(|change| change.label)
}

#[tonic::async_trait]
impl identity_server::Identity for Grpc {
    async fn login(&self, request: Request<LoginRequest>) -> Reply<LoginReply> {
        let ask = self.ask(&request).await?;
        let body = request.into_inner();
        answer(self.0.login(&ask, body).await)
    }

    async fn begin_passkey_login(
        &self,
        request: Request<BeginPasskeyLoginRequest>,
    ) -> Reply<PasskeyChallenge> {
        answer(self.0.begin_passkey_login(&self.ask(&request).await?))
    }

    async fn finish_passkey_login(&self, request: Request<FinishPasskeyLoginRequest>) -> Reply<LoginReply> {
        let ask = self.ask(&request).await?;
        let body = request.into_inner();
        answer(self.0.finish_passkey_login(&ask, body).await)
    }

    async fn get_link(&self, request: Request<GetLinkRequest>) -> Reply<Link> {
        let body = request.into_inner();
        answer(self.0.get_link(body).await)
    }

    async fn redeem_link(&self, request: Request<RedeemLinkRequest>) -> Reply<RedeemLinkReply> {
        let ask = self.ask(&request).await?;
        let body = request.into_inner();
        answer(self.0.redeem_link(&ask, body).await)
    }

    async fn introspect(&self, request: Request<IntrospectRequest>) -> Reply<Introspection> {
        let ask = self.ask(&request).await?;
        let body = request.into_inner();
        answer(self.0.introspect(&ask, body).await)
    }

    async fn get_key_set(&self, request: Request<GetKeySetRequest>) -> Reply<KeySet> {
        drop(request);
        Ok(Response::new(self.0.key_set()))
    }
}

#[tonic::async_trait]
impl me_server::Me for Grpc {
    async fn get_me(&self, request: Request<GetMeRequest>) -> Reply<Account> {
        let ask = self.ask(&request).await?;
        answer(self.0.get_me(&ask).await)
    }

    async fn change_password(&self, request: Request<ChangePasswordRequest>) -> Reply<Changed> {
        let ask = self.ask(&request).await?;
        let body = request.into_inner();
        answer(self.0.change_password(&ask, body).await)
    }

    async fn begin_totp(&self, request: Request<BeginTotpRequest>) -> Reply<TotpEnrolment> {
        let ask = self.ask(&request).await?;
        answer(self.0.begin_totp(&ask).await)
    }

    async fn confirm_totp(&self, request: Request<ConfirmTotpRequest>) -> Reply<RecoveryCodes> {
        let ask = self.ask(&request).await?;
        let body = request.into_inner();
        answer(self.0.confirm_totp(&ask, body).await)
    }

    async fn remove_totp(&self, request: Request<RemoveTotpRequest>) -> Reply<Changed> {
        let ask = self.ask(&request).await?;
        answer(self.0.remove_totp(&ask).await)
    }

    async fn replace_recovery_codes(
        &self,
        request: Request<ReplaceRecoveryCodesRequest>,
    ) -> Reply<RecoveryCodes> {
        let ask = self.ask(&request).await?;
        answer(self.0.replace_recovery_codes(&ask).await)
    }

    async fn list_passkeys(&self, request: Request<ListPasskeysRequest>) -> Reply<ListPasskeysReply> {
        let ask = self.ask(&request).await?;
        answer(self.0.list_passkeys(&ask).await)
    }

    async fn begin_passkey(&self, request: Request<BeginPasskeyRequest>) -> Reply<PasskeyChallenge> {
        let ask = self.ask(&request).await?;
        answer(self.0.begin_passkey(&ask).await)
    }

    async fn finish_passkey(&self, request: Request<FinishPasskeyRequest>) -> Reply<Passkey> {
        let ask = self.ask(&request).await?;
        let body = request.into_inner();
        answer(self.0.finish_passkey(&ask, body).await)
    }

    async fn rename_passkey(&self, request: Request<RenamePasskeyRequest>) -> Reply<Passkey> {
        let ask = self.ask(&request).await?;
        let body = request.into_inner();
        answer(self.0.rename_passkey(&ask, body.id, &label(body.change)?).await)
    }

    async fn remove_passkey(&self, request: Request<RemovePasskeyRequest>) -> Reply<Changed> {
        let ask = self.ask(&request).await?;
        let body = request.into_inner();
        answer(self.0.remove_passkey(&ask, body.id).await)
    }

    async fn list_sessions(&self, request: Request<ListSessionsRequest>) -> Reply<ListSessionsReply> {
        let ask = self.ask(&request).await?;
        answer(self.0.list_sessions(&ask).await)
    }

    async fn end_session(&self, request: Request<EndSessionRequest>) -> Reply<Changed> {
        let ask = self.ask(&request).await?;
        let body = request.into_inner();
        answer(self.0.end_session(&ask, body.id).await)
    }

    async fn end_other_sessions(&self, request: Request<EndOtherSessionsRequest>) -> Reply<Changed> {
        let ask = self.ask(&request).await?;
        answer(self.0.end_other_sessions(&ask).await)
    }

    async fn logout(&self, request: Request<LogoutRequest>) -> Reply<Changed> {
        let ask = self.ask(&request).await?;
        answer(self.0.logout(&ask).await)
    }
}

#[tonic::async_trait]
impl accounts_server::Accounts for Grpc {
    async fn create_account(&self, request: Request<CreateAccountRequest>) -> Reply<Account> {
        let ask = self.ask(&request).await?;
        let body = request.into_inner();
        answer(self.0.create_account(&ask, body).await)
    }

    async fn list_accounts(&self, request: Request<ListAccountsRequest>) -> Reply<ListAccountsReply> {
        let ask = self.ask(&request).await?;
        let body = request.into_inner();
        answer(self.0.list_accounts(&ask, body).await)
    }

    async fn get_account(&self, request: Request<GetAccountRequest>) -> Reply<Account> {
        let ask = self.ask(&request).await?;
        let body = request.into_inner();
        answer(self.0.get_account(&ask, &body.name).await)
    }

    async fn update_account(&self, request: Request<UpdateAccountRequest>) -> Reply<Account> {
        let ask = self.ask(&request).await?;
        let body = request.into_inner();
        answer(self.0.update_account(&ask, body.name, part("change", body.change)?).await)
    }

    async fn delete_account(&self, request: Request<DeleteAccountRequest>) -> Reply<Changed> {
        let ask = self.ask(&request).await?;
        let body = request.into_inner();
        answer(self.0.delete_account(&ask, body.name).await)
    }

    async fn issue_link(&self, request: Request<IssueLinkRequest>) -> Reply<IssuedLink> {
        let ask = self.ask(&request).await?;
        let body = request.into_inner();
        answer(self.0.issue_link(&ask, body.name).await)
    }

    async fn reset_factors(&self, request: Request<ResetFactorsRequest>) -> Reply<Changed> {
        let ask = self.ask(&request).await?;
        let body = request.into_inner();
        answer(self.0.reset_factors(&ask, body.name).await)
    }

    async fn list_account_sessions(
        &self,
        request: Request<ListAccountSessionsRequest>,
    ) -> Reply<ListSessionsReply> {
        let ask = self.ask(&request).await?;
        let body = request.into_inner();
        answer(self.0.list_account_sessions(&ask, body.name).await)
    }

    async fn end_account_sessions(&self, request: Request<EndAccountSessionsRequest>) -> Reply<Changed> {
        let ask = self.ask(&request).await?;
        let body = request.into_inner();
        answer(self.0.end_account_sessions(&ask, body.name).await)
    }

    async fn end_account_session(&self, request: Request<EndAccountSessionRequest>) -> Reply<Changed> {
        let ask = self.ask(&request).await?;
        let body = request.into_inner();
        answer(self.0.end_account_session(&ask, body.name, body.id).await)
    }

    async fn issue_token(&self, request: Request<IssueTokenRequest>) -> Reply<IssuedToken> {
        let ask = self.ask(&request).await?;
        let body = request.into_inner();
        answer(self.0.issue_token(&ask, body.name, part("token", body.token)?).await)
    }

    async fn list_tokens(&self, request: Request<ListTokensRequest>) -> Reply<ListTokensReply> {
        let ask = self.ask(&request).await?;
        let body = request.into_inner();
        answer(self.0.list_tokens(&ask, body.name).await)
    }

    async fn revoke_token(&self, request: Request<RevokeTokenRequest>) -> Reply<Changed> {
        let ask = self.ask(&request).await?;
        let body = request.into_inner();
        answer(self.0.revoke_token(&ask, body.name, body.id).await)
    }
}

#[tonic::async_trait]
impl login_policy_server::LoginPolicy for Grpc {
    async fn get_policy(&self, request: Request<GetPolicyRequest>) -> Reply<Policy> {
        let ask = self.ask(&request).await?;
        answer(self.0.get_policy(&ask).await)
    }

    async fn set_policy(&self, request: Request<SetPolicyRequest>) -> Reply<Policy> {
        let ask = self.ask(&request).await?;
        let body = request.into_inner();
        answer(self.0.set_policy(&ask, body).await)
    }

    async fn explain_policy(&self, request: Request<ExplainPolicyRequest>) -> Reply<Explanation> {
        let ask = self.ask(&request).await?;
        let body = request.into_inner();
        answer(self.0.explain_policy(&ask, body).await)
    }
}

#[tonic::async_trait]
impl site_server::Site for Grpc {
    async fn list_audit(&self, request: Request<ListAuditRequest>) -> Reply<ListAuditReply> {
        let ask = self.ask(&request).await?;
        let body = request.into_inner();
        answer(self.0.list_audit(&ask, body).await)
    }

    async fn verify_audit(&self, request: Request<VerifyAuditRequest>) -> Reply<AuditVerdict> {
        let ask = self.ask(&request).await?;
        let body = request.into_inner();
        answer(self.0.verify_audit(&ask, body).await)
    }

    async fn list_keys(&self, request: Request<ListKeysRequest>) -> Reply<ListKeysReply> {
        let ask = self.ask(&request).await?;
        answer(self.0.list_keys(&ask).await)
    }

    async fn rotate_keys(&self, request: Request<RotateKeysRequest>) -> Reply<ListKeysReply> {
        let ask = self.ask(&request).await?;
        answer(self.0.rotate_keys(&ask).await)
    }

    async fn withdraw_key(&self, request: Request<WithdrawKeyRequest>) -> Reply<Changed> {
        let ask = self.ask(&request).await?;
        let body = request.into_inner();
        answer(self.0.withdraw_key(&ask, body.id).await)
    }
}
