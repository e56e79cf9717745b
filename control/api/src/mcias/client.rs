//! Reaching a MCIAS: over TLS, with a token or without.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Uri};

use super::accounts_client::AccountsClient;
use super::identity_client::IdentityClient;
use super::login_policy_client::LoginPolicyClient;
use super::me_client::MeClient;
use super::signing_keys_client::SigningKeysClient;
use crate::audit::audit_client::AuditClient;
use crate::token::Token;

/// Where a MCIAS is.
#[derive(Clone, Debug)]
pub struct Target {
    /// `https://host:port` of its gRPC address.
    pub url: String,
    /// PEM file of the authority that its certificate is checked against.
    pub ca: PathBuf,
}

/// What calls go through.
pub type Way = InterceptedService<Channel, Token>;

/// Clients of all its services, over one connection.
#[derive(Clone, Debug)]
pub struct Client {
    /// Logging in.
    pub identity: IdentityClient<Way>,
    /// What people do for themselves.
    pub me: MeClient<Way>,
    /// What admins do with accounts.
    pub accounts: AccountsClient<Way>,
    /// The login policy.
    pub policy: LoginPolicyClient<Way>,
    /// Signing keys.
    pub keys: SigningKeysClient<Way>,
    /// The audit log.
    pub audit: AuditClient<Way>,
}

/// Why a MCIAS cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// A file cannot be used.
    #[error("cannot use {0}: it must be the PEM file of the authority of MCIAS's certificate (--ca)")]
    File(PathBuf, #[source] io::Error),
    /// Passwords and tokens would travel in the clear.
    #[error("{0} is not an https:// address: passwords and tokens may only travel encrypted")]
    NotHttps(String),
    /// Anything else, TLS included.
    #[error(
        "cannot connect to {0}: is mcias running there, and is its certificate by the authority of --ca?"
    )]
    Transport(String, #[source] tonic::transport::Error),
}

/// How long an address that does not answer is waited for.
const CONNECT_TIME: Duration = Duration::from_secs(10);

/// How long an answer is waited for.
const CALL_TIME: Duration = Duration::from_secs(60);

/// Connects.
///
/// # Errors
/// [`ConnectError`] says what is not there and what to do.
pub async fn connect(target: &Target, token: Token) -> Result<Client, ConnectError> {
    let Target { url, ca } = target;
    if !url.starts_with("https://") {
        return Err(ConnectError::NotHttps(url.clone()));
    }
    let pem = std::fs::read_to_string(ca).map_err(|error| ConnectError::File(ca.clone(), error))?;
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem));
    let transport = |error| ConnectError::Transport(url.clone(), error);
    let endpoint = Endpoint::from_shared(url.clone()).and_then(|it| it.tls_config(tls)).map_err(transport)?;
    let connector = tower::service_fn(|uri: Uri| async move { dial(&uri).await.map(TokioIo::new) });
    let endpoint = endpoint.connect_timeout(CONNECT_TIME).timeout(CALL_TIME);
    let channel = endpoint.connect_with_connector(connector).await.map_err(transport)?;
    let way = InterceptedService::new(channel, token);
    Ok(Client {
        identity: IdentityClient::new(way.clone()),
        me: MeClient::new(way.clone()),
        accounts: AccountsClient::new(way.clone()),
        policy: LoginPolicyClient::new(way.clone()),
        keys: SigningKeysClient::new(way.clone()),
        audit: AuditClient::new(way),
    })
}

/// Connects to a host. Names under `localhost` are this machine, whatever the resolver says (RFC 6761, section 6.3).
async fn dial(uri: &Uri) -> io::Result<TcpStream> {
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let is_local = host == "localhost" || host.ends_with(".localhost");
    let host = if is_local { "127.0.0.1" } else { host };
    let stream = TcpStream::connect((host, uri.port_u16().unwrap_or(443))).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
