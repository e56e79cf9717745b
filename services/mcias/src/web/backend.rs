//! MCIAS's own pages log in by its own use cases.

use std::sync::Arc;

use mc_api::mcias::{
    BeginPasskeyLoginRequest, FinishPasskeyLoginRequest, LoginRequest, LoginResponse, LogoutRequest,
};
use mcdsl::Secret;
use mcdsl::context::{Principal, RequestContext};
use mcdsl::permit::Authority as _;
use mcdsl::problem::Problem;
use mcdsl::web::session::{LoggedIn, LoginBackend, PasskeyAnswer, PasskeyChallenge, PasswordLogin};

use crate::app::{Calls, Mcias};

#[derive(Debug)]
pub(super) struct Backend(pub(super) Arc<Mcias>);

impl Backend {
    fn calls(&self, context: &RequestContext) -> Calls {
        Calls::new(Arc::clone(&self.0), context.clone())
    }
}

#[tonic::async_trait]
impl LoginBackend for Backend {
    async fn login(&self, context: &RequestContext, login: PasswordLogin) -> Result<LoggedIn, Problem> {
        let text = |secret: Secret| secret.expose().to_owned();
        let request = LoginRequest {
            username: login.username,
            password: text(login.password),
            totp: login.totp.map(text),
            recovery_code: login.recovery_code.map(text),
            audience: own_audience(),
            client_address: None,
            client_user_agent: None,
        };
        self.calls(context).login(request).await.map(logged_in)
    }

    fn offers_passkeys(&self) -> bool {
        true
    }

    async fn begin_passkey(&self, context: &RequestContext) -> Result<PasskeyChallenge, Problem> {
        self.calls(context).begin_passkey_login(BeginPasskeyLoginRequest {}).await.map(super::challenge)
    }

    async fn finish_passkey(
        &self,
        context: &RequestContext,
        answer: PasskeyAnswer,
    ) -> Result<LoggedIn, Problem> {
        let PasskeyAnswer { ceremony_id, credential } = answer;
        let request = FinishPasskeyLoginRequest {
            ceremony_id,
            credential,
            audience: own_audience(),
            ..FinishPasskeyLoginRequest::default()
        };
        self.calls(context).finish_passkey_login(request).await.map(logged_in)
    }

    async fn logout(&self, context: &RequestContext, token: &Secret) -> Result<(), Problem> {
        let identity = self.0.authenticate(context, token).await?;
        let context =
            RequestContext { principal: Principal::Account(identity), token: None, ..context.clone() };
        self.calls(&context).logout(LogoutRequest {}).await.map(drop)
    }
}

/// A session of a browser is for these pages alone.
fn own_audience() -> Vec<String> {
    vec!["mcias".to_owned()]
}

fn logged_in(response: LoginResponse) -> LoggedIn {
    LoggedIn { token: Secret::from(response.token), expires_at: response.expires_at }
}
