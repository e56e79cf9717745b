//! Connections to services over TLS, with a token or without.
//!
//! A generated client takes a [`Connection`]: `AccountsClient::new(connection.clone())`. Clones share one connection.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Uri};

use crate::token::Token;

/// The address of a service.
#[derive(Clone, Debug)]
pub struct Target {
    /// `https://host:port` of its gRPC address.
    pub url: String,
    /// PEM file with the CA certificates that its certificate is checked against.
    pub ca: PathBuf,
}

/// A connection that adds the token to each call.
pub type Connection = InterceptedService<Channel, Token>;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The CA file is missing or unreadable.
    #[error("Cannot use {0}: --ca must name a PEM file with the CA certificate of the server")]
    File(PathBuf, #[source] io::Error),
    /// Passwords and tokens would travel unencrypted.
    #[error("{0} is not an https:// address: passwords and tokens may only travel encrypted")]
    NotHttps(String),
    /// TCP or TLS failed.
    #[error(
        "Cannot connect to {0}: check that the server is running, and that --ca is the CA of its certificate"
    )]
    Transport(String, #[source] tonic::transport::Error),
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

const CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// Connects to a service.
///
/// # Errors
/// [`ConnectError`] says what is wrong and what to do.
pub async fn connect(target: &Target, token: Token) -> Result<Connection, ConnectError> {
    let Target { url, ca } = target;
    if !url.starts_with("https://") {
        return Err(ConnectError::NotHttps(url.clone()));
    }
    let pem = std::fs::read_to_string(ca).map_err(|error| ConnectError::File(ca.clone(), error))?;
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem));
    let transport = |error| ConnectError::Transport(url.clone(), error);
    let endpoint = Endpoint::from_shared(url.clone()).and_then(|it| it.tls_config(tls)).map_err(transport)?;
    let connector = tower::service_fn(|uri: Uri| async move { dial(&uri).await.map(TokioIo::new) });
    let endpoint = endpoint.connect_timeout(CONNECT_TIMEOUT).timeout(CALL_TIMEOUT);
    let channel = endpoint.connect_with_connector(connector).await.map_err(transport)?;
    Ok(InterceptedService::new(channel, token))
}

/// Connects to a host. Names under `localhost` are this machine, even if the resolver disagrees (RFC 6761, section 6.3).
async fn dial(uri: &Uri) -> io::Result<TcpStream> {
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let is_local = host == "localhost" || host.ends_with(".localhost");
    let host = if is_local { "127.0.0.1" } else { host };
    let stream = TcpStream::connect((host, uri.port_u16().unwrap_or(443))).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
