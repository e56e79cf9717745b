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

const PING_INTERVAL: Duration = Duration::from_secs(10);

/// Connects to a service.
///
/// # Errors
/// [`ConnectError`] says what is wrong and what to do.
pub async fn connect(target: &Target, token: Token) -> Result<Connection, ConnectError> {
    let endpoint = endpoint(target)?.connect_timeout(CONNECT_TIMEOUT).timeout(CALL_TIMEOUT);
    let connector = tower::service_fn(|uri: Uri| async move { dial(&uri).await.map(TokioIo::new) });
    let connected = endpoint.connect_with_connector(connector).await;
    let channel = connected.map_err(|error| ConnectError::Transport(target.url.clone(), error))?;
    Ok(InterceptedService::new(channel, token))
}

/// A channel for a program that calls a service for as long as it runs: it connects at the first call, and connects again after a connection
/// was lost. Pings find a connection that is dead without an error. An attempt to connect ends after `timeout`; calls have no time limit of
/// their own.
///
/// # Errors
/// [`ConnectError`] says which part of the target cannot be used.
pub fn connect_lazily(target: &Target, timeout: Duration) -> Result<Channel, ConnectError> {
    let endpoint = endpoint(target)?
        .connect_timeout(timeout)
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(timeout)
        .keep_alive_while_idle(true);
    let connector = tower::service_fn(|uri: Uri| async move { dial(&uri).await.map(TokioIo::new) });
    Ok(endpoint.connect_with_connector_lazy(connector))
}

fn endpoint(target: &Target) -> Result<Endpoint, ConnectError> {
    let Target { url, ca } = target;
    if !url.starts_with("https://") {
        return Err(ConnectError::NotHttps(url.clone()));
    }
    let pem = std::fs::read_to_string(ca).map_err(|error| ConnectError::File(ca.clone(), error))?;
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem));
    // The person whose session it is recognises it by the program's name.
    let program = std::env::current_exe().ok().and_then(|path| Some(path.file_name()?.to_str()?.to_owned()));
    let endpoint = Endpoint::from_shared(url.clone())
        .and_then(|endpoint| endpoint.user_agent(program.unwrap_or_default()))
        .and_then(|endpoint| endpoint.tls_config(tls));
    endpoint.map_err(|error| ConnectError::Transport(url.clone(), error))
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
