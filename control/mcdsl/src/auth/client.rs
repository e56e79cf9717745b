//! The client of MCIAS's gRPC API.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use http::Uri;
use mc_api::client::{Connection, Target, connect_lazily};
use mc_api::mcias::identity_client::IdentityClient;
use mc_api::mcias::me_client::MeClient;
use mc_api::mcias::{
    BeginPasskeyLoginRequest, FinishPasskeyLoginRequest, IntrospectRequest, Introspection, LoginRequest,
    LoginResponse, LogoutRequest, PasskeyChallenge,
};
use mc_api::token::Token;
use serde::{Deserialize, Serialize};
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use super::cache::{Cache, Key};
use crate::clock::Clock;
use crate::config::InvalidValue;
use crate::http::current_request_id;
use crate::identity::{Account, AccountType, Identity, Name, Roles};
use crate::problem::{Kind, Problem};
use crate::secret::Secret;
use crate::tls::authorities;

/// `[mcias]`: the address of MCIAS, and the account by which a service calls it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// `https://` and the host and port of MCIAS's gRPC API: `https://mcias.svc.example.org:9443`.
    pub server_url: String,
    /// PEM file of the CA that MCIAS's certificate is checked against.
    pub ca: PathBuf,
    /// File with the token of the service's own system account; read at each use, so that it can be rotated.
    pub token_file: PathBuf,
    /// Whether login pages offer passkeys: MCIAS's `site.passkey_origins` must name the pages' origin.
    pub passkeys: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            server_url: "https://localhost:9443".to_owned(),
            ca: "/etc/ssl/certs/ca-certificates.crt".into(),
            token_file: "mcias.token".into(),
            passkeys: false,
        }
    }
}

impl Settings {
    /// With paths that start at `root` where they are relative: a service's `server.root`.
    #[must_use]
    pub fn in_root(&self, root: &Path) -> Self {
        Self { ca: root.join(&self.ca), token_file: root.join(&self.token_file), ..self.clone() }
    }

    /// What is wrong with the address.
    #[must_use]
    pub fn check(&self) -> Vec<InvalidValue> {
        let wrong = || InvalidValue::new("mcias.server_url", address_error(&self.server_url));
        if is_address(&self.server_url) { Vec::new() } else { vec![wrong()] }
    }

    /// What is wrong with the files, without a call of MCIAS: for `check`.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let token = match Secret::read(&self.token_file) {
            Ok(token) if Token::of(token.expose()).is_some_and(|_| !token.expose().is_empty()) => None,
            Ok(_) => Some("it does not hold a token".to_owned()),
            Err(error) => Some(error.to_string()),
        };
        let token = token.map(|problem| {
            format!(
                "mcias.token_file: cannot use {}: {problem}. `mciasctl token issue` writes it",
                self.token_file.display()
            )
        });
        let ca = authorities(&self.ca).err().map(|source| ClientError::Ca(self.ca.clone(), source));
        ca.map(|error| crate::chain(&error)).into_iter().chain(token).collect()
    }
}

fn is_address(url: &str) -> bool {
    let url: Option<Uri> = url.parse().ok();
    url.is_some_and(|url| url.scheme_str() == Some("https") && url.port().is_some() && url.path() == "/")
}

fn address_error(url: &str) -> String {
    format!("`{url}` is not `https://` with a host and a port: tokens may only travel encrypted")
}

/// A client of MCIAS. Copies share its connection and its cache.
#[derive(Clone, Debug)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    channel: Channel,
    token_file: PathBuf,
    passkeys: bool,
    cache: Cache,
    clock: Clock,
}

/// Why a client cannot be created.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address cannot be used.
    #[error("mcias.server_url: {}", address_error(.0))]
    Address(String),
    /// The CA file cannot be used.
    #[error("mcias.ca: cannot use {0}: it must hold the CA certificate as PEM")]
    Ca(PathBuf, #[source] std::io::Error),
}

impl Client {
    /// Creates a client, which connects at its first call. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// The settings cannot be used.
    pub fn new(settings: &Settings, clock: Clock) -> Result<Self, ClientError> {
        let address = || ClientError::Address(settings.server_url.clone());
        if !is_address(&settings.server_url) {
            return Err(address());
        }
        authorities(&settings.ca).map_err(|source| ClientError::Ca(settings.ca.clone(), source))?;
        let target = Target { url: settings.server_url.clone(), ca: settings.ca.clone() };
        let channel = connect_lazily(&target, CONNECT_TIMEOUT).map_err(|_error| address())?;
        let cache = Cache::new(MAX_CACHED);
        let (token_file, passkeys) = (settings.token_file.clone(), settings.passkeys);
        let inner = Inner { channel, token_file, passkeys, cache, clock };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The identity behind a token, if the token is valid for this service and the login policy admits the account.
    ///
    /// # Errors
    /// The token is refused, or MCIAS does not answer.
    pub async fn validate(&self, token: &Secret) -> Result<Arc<Identity>, Problem> {
        let now = self.inner.clock.elapsed();
        self.inner.cache.get(key_of(token), now, self.introspect(token)).await
    }

    /// Logs a person in to this service. `client_address` in the request is the person's, so that failed logins delay that address and not
    /// this service.
    ///
    /// # Errors
    /// MCIAS refuses, with its reason (`second-factor-required` among them), or does not answer.
    pub async fn login(&self, request: LoginRequest) -> Result<LoginResponse, Problem> {
        self.call(request, async |connection, request| IdentityClient::new(connection).login(request).await)
            .await
    }

    /// Whether pages may offer passkeys.
    #[must_use]
    pub fn offers_passkeys(&self) -> bool {
        self.inner.passkeys
    }

    /// A challenge for any passkey of the site.
    ///
    /// # Errors
    /// MCIAS refuses, or does not answer.
    pub async fn begin_passkey(&self) -> Result<PasskeyChallenge, Problem> {
        let request = BeginPasskeyLoginRequest {};
        self.call(request, async |connection, request| {
            IdentityClient::new(connection).begin_passkey_login(request).await
        })
        .await
    }

    /// Logs a person in to this service by the answer to a challenge.
    ///
    /// # Errors
    /// As [`Client::login`].
    pub async fn finish_passkey(&self, request: FinishPasskeyLoginRequest) -> Result<LoginResponse, Problem> {
        self.call(request, async |connection, request| {
            IdentityClient::new(connection).finish_passkey_login(request).await
        })
        .await
    }

    /// Calls MCIAS in the service's own name, for what only some services ask: with its token, the id of the request that it is called for,
    /// and a limit of time.
    ///
    /// # Errors
    /// MCIAS refuses, or does not answer.
    pub async fn call<Q, A>(
        &self,
        request: Q,
        call: impl AsyncFnOnce(Connection, Request<Q>) -> Result<Response<A>, Status>,
    ) -> Result<A, Problem> {
        match within_timeout(call(self.as_service()?, with_request_id(request))).await {
            // What is wrong with a person's login has a reason of its own: this is about the service's token.
            Err(problem) if problem.reason == "unauthenticated" => Err(unavailable(&problem)),
            answer => answer,
        }
    }

    /// Whether MCIAS answers this service: for the readiness of one that can do nothing without.
    ///
    /// # Errors
    /// It does not, or the service's token is invalid.
    pub async fn ready(&self) -> Result<(), Problem> {
        let own = Secret::read(&self.inner.token_file).unwrap_or_else(|_error| Secret::from(""));
        let (answer, _) = self.introspect(&own).await;
        match answer {
            Err(problem) if problem.kind == Kind::Unavailable => Err(problem),
            _ => Ok(()),
        }
    }

    /// Ends the session of a person's token.
    ///
    /// # Errors
    /// MCIAS refuses, or does not answer.
    pub async fn logout(&self, token: &Secret) -> Result<(), Problem> {
        let invalid = || Problem::unauthenticated("The token is invalid.");
        let token_of_person = Token::of(token.expose()).ok_or_else(invalid)?;
        let mut client = MeClient::with_interceptor(self.inner.channel.clone(), token_of_person);
        let ended = within_timeout(client.logout(with_request_id(LogoutRequest {}))).await;
        self.inner.cache.remove(&key_of(token));
        ended.map(|_| ())
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.inner.clock
    }

    /// A connection with the service's own token.
    fn as_service(&self) -> Result<Connection, Problem> {
        let file = &self.inner.token_file;
        let token = Secret::read(file).map_err(|error| {
            unavailable(&format!("the service's own token cannot be read from {}: {error}", file.display()))
        })?;
        let token = Token::of(token.expose())
            .ok_or_else(|| unavailable(&format!("{} does not hold a token", file.display())))?;
        Ok(Connection::new(self.inner.channel.clone(), token))
    }

    /// The answer about a token, and for how long it may be cached.
    async fn introspect(&self, token: &Secret) -> (Result<Arc<Identity>, Problem>, Duration) {
        let request = IntrospectRequest { token: token.expose().to_owned(), token_type_hint: None };
        let answer = match self.as_service() {
            Ok(connection) => {
                let mut client = IdentityClient::new(connection);
                let answer = within_timeout(client.introspect(with_request_id(request))).await;
                // Whatever MCIAS refuses here, it refuses the service and not the caller.
                answer.map_err(|problem| unavailable(&problem))
            }
            Err(problem) => Err(problem),
        };
        match answer.map(identity) {
            Ok(Some(identity)) => {
                let left = identity.expires_at.saturating_sub(self.inner.clock.unix_s());
                let left = Duration::from_secs(u64::try_from(left).unwrap_or(0));
                (Ok(Arc::new(identity)), MAX_AGE.min(left))
            }
            Ok(None) => {
                let detail = "The token is invalid, or the login policy denies access: log in again.";
                (Err(Problem::unauthenticated(detail)), REFUSAL_MAX_AGE)
            }
            // The next request tries again.
            Err(problem) => (Err(problem), Duration::ZERO),
        }
    }
}

/// Number of tokens in the cache.
const MAX_CACHED: usize = 50_000;

/// How long an identity is cached: within this time every service notices a revocation.
const MAX_AGE: Duration = Duration::from_secs(30);

/// How long a refusal is cached.
const REFUSAL_MAX_AGE: Duration = Duration::from_secs(5);

/// Time for an attempt to connect. Shorter than [`TIMEOUT`]: the call that starts an attempt gets its error, and not a later one.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Time for a call, connecting included.
const TIMEOUT: Duration = Duration::from_secs(5);

fn key_of(token: &Secret) -> Key {
    digest(&SHA256, token.expose().as_bytes()).as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// A request with the id of the request that it is made for.
fn with_request_id<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    let id = current_request_id().and_then(|id| MetadataValue::try_from(&*id).ok());
    if let Some(id) = id {
        request.metadata_mut().insert("x-request-id", id);
    }
    request
}

async fn within_timeout<T>(call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Problem> {
    match tokio::time::timeout(TIMEOUT, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => {
            Err(Problem::from_status(&status).unwrap_or_else(|| unavailable(&crate::chain(&status))))
        }
        Err(_) => Err(unavailable(&format!("no answer within {} s", TIMEOUT.as_secs()))),
    }
}

/// MCIAS cannot be used now. The cause goes to the log: it is nothing to a caller.
fn unavailable(cause: &dyn std::fmt::Display) -> Problem {
    tracing::warn!(%cause, "MCIAS cannot be used");
    let detail = "The identity service (MCIAS) is unavailable: try again later.";
    let retry_after = Some(Duration::from_secs(1));
    Problem { retry_after, ..Problem::new(Kind::Unavailable, "identity-unavailable", detail) }
}

/// The identity that an answer describes. `None`: the token is not active, or the answer makes no sense.
fn identity(answer: Introspection) -> Option<Identity> {
    if !answer.active {
        return None;
    }
    let name = Name::parse(&answer.username?).ok()?;
    let roles: Roles = answer.roles.iter().map(|role| role.parse().ok()).collect::<Option<_>>()?;
    let account = match answer.account_type?.parse().ok()? {
        AccountType::Human => Account::Human { name, roles },
        AccountType::System if roles == Roles::default() => Account::System { name },
        AccountType::System => return None,
    };
    // The issuer as the audience stands for the whole platform.
    let issuer = answer.iss;
    let audience = answer.aud.into_iter().filter(|audience| issuer.as_ref() != Some(audience)).collect();
    Some(Identity {
        account,
        account_id: answer.sub?,
        tags: answer.tags.iter().map(|tag| Name::parse(tag).ok()).collect::<Option<_>>()?,
        token_id: answer.jti?,
        audience,
        service: None,
        authenticated_at: answer.iat?,
        expires_at: answer.exp?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn active() -> Introspection {
        Introspection {
            active: true,
            sub: Some("0b6c7bb7-3f0a-4a3e-9a0e-5f1d5c2f9d11".to_owned()),
            username: Some("bob".to_owned()),
            account_type: Some("human".to_owned()),
            roles: vec!["user".to_owned()],
            tags: vec!["staff".to_owned()],
            jti: Some("7".to_owned()),
            iss: Some("https://mcias.test".to_owned()),
            aud: vec!["mcr".to_owned()],
            iat: Some(1),
            exp: Some(2),
            ..Introspection::default()
        }
    }

    #[test]
    fn an_answer_is_an_identity_or_nobody() {
        let found = identity(active()).unwrap();
        assert_eq!(
            (found.account.name().as_str(), found.audience.as_slice()),
            ("bob", &["mcr".to_owned()][..])
        );
        assert_eq!((found.authenticated_at, found.expires_at), (1, 2));
        let everywhere = Introspection { aud: vec!["https://mcias.test".to_owned()], ..active() };
        assert_eq!(identity(everywhere).unwrap().audience, Vec::<String>::new());
        let odd: [fn(&mut Introspection); 8] = [
            |answer| answer.active = false,
            |answer| answer.sub = None,
            |answer| answer.account_type = Some("robot".to_owned()),
            // MCIAS never gives a system account a role.
            |answer| answer.account_type = Some("system".to_owned()),
            |answer| answer.roles = vec!["king".to_owned()],
            |answer| answer.jti = None,
            |answer| answer.iat = None,
            |answer| answer.exp = None,
        ];
        for (number, change) in odd.into_iter().enumerate() {
            let mut answer = active();
            change(&mut answer);
            assert_eq!(identity(answer), None, "{number}");
        }
    }

    #[test]
    fn a_token_travels_only_encrypted() {
        let refused = |server_url: &str| {
            let settings = Settings {
                server_url: server_url.to_owned(),
                ca: "ca".into(),
                token_file: "token".into(),
                passkeys: false,
            };
            Client::new(&settings, Clock::system()).unwrap_err()
        };
        for url in [
            "http://mcias.test:9443",
            "mcias.test:9443",
            "https://mcias.test:9443/v1",
            "https://mcias.test",
            "",
        ] {
            assert!(matches!(refused(url), ClientError::Address(_)), "{url}");
        }
        assert!(matches!(refused("https://mcias.test:9443"), ClientError::Ca(..)));
    }
}
