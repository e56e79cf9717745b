//! Asks MCIAS.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Method, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use mc_api::mcias::{Introspection, IssueTokenRequest, IssuedToken, LoginRequest, LoginResponse};
use rustls::ClientConfig;
use rustls::version::TLS13;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::cache::Cache;
use crate::clock::Clock;
use crate::http::{REQUEST_ID, current_request_id};
use crate::identity::{Account, AccountType, Identity, Name, Roles};
use crate::problem::{Kind, Problem};
use crate::secret::Secret;
use crate::tls::authorities;

/// `[mcias]`: where MCIAS is, and as whom a service asks it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// `https://` and its name, with the port: `https://mcias.svc.example.org:8443`.
    pub server_url: String,
    /// PEM file of the authority that its certificate is checked against.
    pub ca: PathBuf,
    /// File of the token of the service's own system account; read at each use, so that it can be rotated.
    pub token_file: PathBuf,
}

/// Asks MCIAS, and keeps what it says for a short time. Copies share what is kept.
#[derive(Clone, Debug)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    http: HttpClient<HttpsConnector<HttpConnector>, Full<Bytes>>,
    server: Uri,
    token_file: PathBuf,
    cache: Cache,
    clock: Clock,
}

/// Why a client cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Not an address that can be used.
    #[error("mcias.server_url: `{0}` is not `https://` and a name: tokens may only travel encrypted")]
    Address(String),
    /// The authority's file cannot be used.
    #[error("mcias.ca: cannot read {0}: it must hold the authority's certificate as PEM")]
    Authority(PathBuf, #[source] std::io::Error),
}

impl Client {
    /// A client; nothing is asked yet.
    ///
    /// # Errors
    /// The settings cannot be used.
    pub fn new(settings: &Settings, clock: Clock) -> Result<Self, ClientError> {
        let address = || ClientError::Address(settings.server_url.clone());
        let server: Uri = settings.server_url.parse().map_err(|_no_uri| address())?;
        if server.scheme_str() != Some("https") || server.host().is_none() || server.path() != "/" {
            return Err(address());
        }
        let roots = authorities(&settings.ca)
            .map_err(|source| ClientError::Authority(settings.ca.clone(), source))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .expect("the provider knows TLS 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(config).https_only().enable_http2().build();
        // A connection that died without a word is found out, and the next question takes another one.
        let http = HttpClient::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .http2_only(true)
            .http2_keep_alive_interval(Duration::from_secs(10))
            .http2_keep_alive_timeout(PATIENCE)
            .build(connector);
        let cache = Cache::new(KEPT);
        let inner = Inner { http, server, token_file: settings.token_file.clone(), cache, clock };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Who shows this token.
    ///
    /// # Errors
    /// Nobody whom MCIAS lets in, or MCIAS cannot be asked.
    pub async fn validate(&self, token: &Secret) -> Result<Arc<Identity>, Problem> {
        let sha = digest(&SHA256, token.expose().as_bytes());
        let key = sha.as_ref().try_into().expect("SHA-256 has 32 bytes");
        let now = self.inner.clock.elapsed();
        self.inner.cache.get(key, now, self.introspect(token)).await
    }

    /// Logs a person in to this service, which the login policy is asked about. `client_address` in the request is where the
    /// person is, so that failures slow down that address and not this service.
    ///
    /// # Errors
    /// MCIAS refuses, with its reason (`second-factor-required` among them), or cannot be asked.
    pub async fn login(&self, request: &LoginRequest) -> Result<LoginResponse, Problem> {
        self.send(Method::POST, "/v1/login", JSON, json(request)).await
    }

    /// Ends the session of a person's token.
    ///
    /// # Errors
    /// MCIAS refuses, or cannot be asked.
    pub async fn logout(&self, token: &Secret) -> Result<(), Problem> {
        let ended = self.send_as(token, Method::POST, "/v1/me/logout", JSON, Bytes::from_static(b"{}"));
        ended.await.map(|_: mc_api::mcias::Changed| ())
    }

    /// Issues a token of a system account; this service's own must be an admin's for that, which a system account is not:
    /// `as_admin` is the token of a person who asked for it.
    ///
    /// # Errors
    /// MCIAS refuses, or cannot be asked.
    pub async fn issue(
        &self,
        as_admin: &Secret,
        request: &IssueTokenRequest,
    ) -> Result<IssuedToken, Problem> {
        // It becomes part of a path: what is not a name must not lead elsewhere.
        let name = Name::parse(&request.name).map_err(|error| Problem::field("name", error.to_string()))?;
        let path = format!("/v1/accounts/{name}/tokens");
        let mut body = serde_json::to_value(request).expect("a message can be written as JSON");
        body.as_object_mut().map(|body| body.remove("name"));
        self.send_as(as_admin, Method::POST, &path, JSON, json(&body)).await
    }

    async fn introspect(&self, token: &Secret) -> (Result<Arc<Identity>, Problem>, Duration) {
        let body = serde_urlencoded::to_string([("token", token.expose())]).expect("a text can be written");
        let answer = self.send(Method::POST, "/v1/introspect", FORM, body.into()).await;
        let now = self.inner.clock.unix_s();
        match answer {
            Ok(told) => match identity(told) {
                Some((identity, until)) => {
                    let left = Duration::from_secs(u64::try_from(until - now).unwrap_or(0));
                    (Ok(Arc::new(identity)), BELIEVED.min(left))
                }
                None => (Err(Problem::unauthenticated("the token is not valid here: log in again")), REFUSED),
            },
            // What went wrong is nobody's answer: the next one asks again.
            Err(problem) => {
                tracing::warn!(%problem, "MCIAS cannot be asked about a token");
                let detail = "who you are cannot be found out now: MCIAS does not answer; try again later";
                let unavailable = Problem {
                    retry_after: Some(Duration::from_secs(1)),
                    ..Problem::new(Kind::Unavailable, "identity-unavailable", detail)
                };
                (Err(unavailable), Duration::ZERO)
            }
        }
    }

    async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        kind: HeaderValue,
        body: Bytes,
    ) -> Result<T, Problem> {
        let own = Secret::read(&self.inner.token_file).map_err(|error| {
            let file = self.inner.token_file.display();
            unreachable(format!("the token of this service cannot be read from {file}: {error}"))
        })?;
        self.send_as(&own, method, path, kind, body).await
    }

    async fn send_as<T: DeserializeOwned>(
        &self,
        token: &Secret,
        method: Method,
        path: &str,
        kind: HeaderValue,
        body: Bytes,
    ) -> Result<T, Problem> {
        let mut bearer = HeaderValue::from_str(&format!("Bearer {}", token.expose()))
            .map_err(|_characters| unreachable("the token has characters that no token has".to_owned()))?;
        bearer.set_sensitive(true);
        let mut parts = self.inner.server.clone().into_parts();
        parts.path_and_query = Some(path.parse().map_err(|_odd| Problem::not_found("no such account"))?);
        let uri = Uri::from_parts(parts).expect("a scheme, an authority and a path make an address");
        let mut request = http::Request::builder().method(method).uri(uri);
        if let Some(id) = current_request_id() {
            request = request.header(REQUEST_ID, &*id);
        }
        let request = request.header(AUTHORIZATION, bearer).header(CONTENT_TYPE, kind).body(Full::new(body));
        let request = request.expect("each part of the request is one");
        let answered = tokio::time::timeout(PATIENCE, async {
            let response = self.inner.http.request(request).await.map_err(|error| error.to_string())?;
            let status = response.status();
            let later =
                response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
            let body = Limited::new(response.into_body(), MOST).collect().await;
            Ok::<_, String>((status, later, body.map_err(|error| error.to_string())?.to_bytes()))
        });
        let (status, later, body) = match answered.await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(unreachable(error)),
            Err(late) => return Err(unreachable(late.to_string())),
        };
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|error| unreachable(error.to_string()));
        }
        Err(Problem { retry_after: later.map(Duration::from_secs), ..refusal(status, &body) })
    }
}

/// Tokens whose answers are kept at most.
const KEPT: usize = 50_000;

/// How long yes is believed: within this time a revocation is seen everywhere.
const BELIEVED: Duration = Duration::from_secs(30);

/// How long no is believed.
const REFUSED: Duration = Duration::from_secs(5);

/// How long MCIAS is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// The longest answer that is read.
const MOST: usize = 1024 * 1024;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const FORM: HeaderValue = HeaderValue::from_static("application/x-www-form-urlencoded");

fn json(body: &impl Serialize) -> Bytes {
    serde_json::to_vec(body).expect("a message can be written as JSON").into()
}

fn unreachable(what: String) -> Problem {
    Problem::new(Kind::Unavailable, "identity-unavailable", format!("MCIAS cannot be asked: {what}"))
}

/// What an answer says about a token's account, and until when. `None`: it is not active, or the answer makes no sense.
fn identity(answer: Introspection) -> Option<(Identity, i64)> {
    let name = Name::parse(&answer.sub?).ok()?;
    let roles = answer.roles.iter().map(|role| role.parse().ok());
    let roles: Roles = roles.collect::<Option<Vec<_>>>()?.into_iter().collect();
    let account = match answer.account_type?.parse().ok()? {
        AccountType::Human => Account::Human { name, roles },
        AccountType::System if roles == Roles::default() => Account::System { name },
        AccountType::System => return None,
    };
    let expires_at = answer.exp?;
    let identity = Identity {
        account,
        tags: answer.tags.iter().map(|tag| Name::parse(tag).ok()).collect::<Option<_>>()?,
        token_id: answer.jti?,
        audience: Vec::new(),
        service: None,
        authenticated_at: answer.iat?,
        expires_at,
    };
    answer.active.then_some((identity, expires_at))
}

/// MCIAS's problem document, handed on.
fn refusal(status: StatusCode, body: &[u8]) -> Problem {
    #[derive(Deserialize)]
    struct Document {
        detail: String,
        reason: String,
        field: Option<String>,
    }
    let Ok(told) = serde_json::from_slice::<Document>(body) else {
        return unreachable(format!("it answers {status}"));
    };
    let kind = match status.as_u16() {
        400 => Kind::Invalid,
        401 => Kind::Unauthenticated,
        403 => Kind::Forbidden,
        404 => Kind::NotFound,
        409 => Kind::FailedPrecondition,
        429 => Kind::TooMany,
        _ => return unreachable(format!("it answers {status}: {}", told.detail)),
    };
    let reason = REASONS.iter().find(|known| **known == told.reason).copied().unwrap_or("refused");
    Problem { field: told.field, ..Problem::new(kind, reason, told.detail) }
}

/// Reasons that programs act on.
const REASONS: [&str; 6] = [
    "second-factor-required",
    "fresh-login-required",
    "denied-by-policy",
    "too-many-attempts",
    "unauthenticated",
    "forbidden",
];
