//! What the login pages ask: MCIAS's own use cases in MCIAS, and [`Client`] in every other service.

use mc_api::mcias::{FinishPasskeyLoginRequest, LoginRequest};
use serde::{Deserialize, Serialize};

use crate::auth::Client;
use crate::context::RequestContext;
use crate::problem::Problem;
use crate::secret::Secret;

/// A login by password.
#[derive(Clone, Debug)]
pub struct PasswordLogin {
    /// The account's name.
    pub username: String,
    /// Its password.
    pub password: Secret,
    /// Six digits of the authenticator app.
    pub totp: Option<Secret>,
    /// Instead of `totp`.
    pub recovery_code: Option<Secret>,
}

/// A login that succeeded.
#[derive(Clone, Debug)]
pub struct LoggedIn {
    /// The session's token.
    pub token: Secret,
    /// When it expires: seconds since 1970.
    pub expires_at: i64,
}

/// A challenge for the browser's authenticator.
#[derive(Clone, Debug, Serialize)]
pub struct PasskeyChallenge {
    /// Comes back with the answer.
    pub ceremony_id: String,
    /// JSON text of the options, under `publicKey` (WebAuthn Level 3, section 5.1).
    pub options: String,
}

/// The authenticator's answer.
#[derive(Clone, Debug, Deserialize)]
pub struct PasskeyAnswer {
    /// The challenge's.
    pub ceremony_id: String,
    /// JSON text of the credential.
    pub credential: String,
}

/// Logs people in to one service, in the context of which the login policy decides.
#[tonic::async_trait]
pub trait LoginBackend: std::fmt::Debug + Send + Sync + 'static {
    /// Logs a person in by password. `second-factor-required` is the reason where a code is missing and all else is right.
    async fn login(&self, context: &RequestContext, login: PasswordLogin) -> Result<LoggedIn, Problem>;

    /// Whether the login page offers passkeys, which are bound to one host name.
    fn offers_passkeys(&self) -> bool {
        false
    }

    /// A challenge for any passkey of this host.
    async fn begin_passkey(&self, _context: &RequestContext) -> Result<PasskeyChallenge, Problem> {
        Err(Problem::not_found("Login by passkey is not offered here."))
    }

    /// Logs a person in by passkey.
    async fn finish_passkey(
        &self,
        _context: &RequestContext,
        _answer: PasskeyAnswer,
    ) -> Result<LoggedIn, Problem> {
        Err(Problem::not_found("Login by passkey is not offered here."))
    }

    /// Ends the session of a token.
    async fn logout(&self, context: &RequestContext, token: &Secret) -> Result<(), Problem>;
}

/// Passkeys are bound to a domain: other services' pages offer them where MCIAS is configured so.
#[tonic::async_trait]
impl LoginBackend for Client {
    async fn login(&self, context: &RequestContext, login: PasswordLogin) -> Result<LoggedIn, Problem> {
        let text = |secret: Secret| secret.expose().to_owned();
        let request = LoginRequest {
            username: login.username,
            password: text(login.password),
            totp: login.totp.map(text),
            recovery_code: login.recovery_code.map(text),
            // MCIAS takes the service that asks.
            audience: Vec::new(),
            client_address: Some(context.client.ip().to_string()),
            client_user_agent: context.user_agent.as_deref().map(str::to_owned),
        };
        let response = Self::login(self, request).await?;
        Ok(LoggedIn { token: Secret::from(response.token), expires_at: response.expires_at })
    }

    fn offers_passkeys(&self) -> bool {
        Self::offers_passkeys(self)
    }

    async fn begin_passkey(&self, _context: &RequestContext) -> Result<PasskeyChallenge, Problem> {
        let challenge = Self::begin_passkey(self).await?;
        Ok(PasskeyChallenge { ceremony_id: challenge.ceremony_id, options: challenge.options })
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
            client_address: Some(context.client.ip().to_string()),
            client_user_agent: context.user_agent.as_deref().map(str::to_owned),
            ..FinishPasskeyLoginRequest::default()
        };
        let response = Self::finish_passkey(self, request).await?;
        Ok(LoggedIn { token: Secret::from(response.token), expires_at: response.expires_at })
    }

    async fn logout(&self, _context: &RequestContext, token: &Secret) -> Result<(), Problem> {
        Self::logout(self, token).await
    }
}
