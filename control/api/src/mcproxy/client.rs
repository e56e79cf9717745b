//! Reaching an MC-Proxy: over its Unix socket, or over TLS with a token.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Uri};

use super::admin_client::AdminClient;
use crate::token::Token;

/// Where an MC-Proxy is.
#[derive(Clone, Debug)]
pub enum Target {
    /// Its Unix socket.
    Socket(PathBuf),
    /// Its TCP address.
    Tls {
        /// `https://host:port`.
        url: String,
        /// PEM file of the CA that its certificate is checked against.
        ca: PathBuf,
        /// File that holds the bearer token.
        token_file: PathBuf,
    },
}

/// A client of the admin API.
pub type Client = AdminClient<InterceptedService<Channel, Token>>;

/// Why an MC-Proxy cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// There is no socket.
    #[error("{0} does not exist: is mc-proxy running? Start it, or pass --socket")]
    NoSocket(PathBuf),
    /// The socket is somebody else's.
    #[error("{0} may not be opened: it is for the user who runs mc-proxy; use that user, or root")]
    NotPermitted(PathBuf),
    /// Nobody listens.
    #[error("nobody answers at {0}: is mc-proxy running?")]
    NobodyThere(String, #[source] io::Error),
    /// A file cannot be used.
    #[error("cannot use {0}")]
    File(PathBuf, #[source] io::Error),
    /// The token has characters that no token has.
    #[error("{0} holds no token: it must be one line of printable ASCII")]
    Token(PathBuf),
    /// The token would travel in the clear.
    #[error("{0} is not an https:// address: the token may only travel encrypted")]
    NotHttps(String),
    /// Anything else, TLS included.
    #[error("cannot connect to {0}")]
    Transport(String, #[source] tonic::transport::Error),
}

/// Largest message that is accepted: a page of routes.
const MAX_MESSAGE: usize = 16 * 1024 * 1024;

/// How long an address that does not answer is waited for.
const CONNECT_TIME: Duration = Duration::from_secs(10);

/// Connects.
///
/// # Errors
/// [`ConnectError`] says what is not there and what to do.
pub async fn connect(target: &Target) -> Result<Client, ConnectError> {
    let (channel, token) = match target {
        Target::Socket(path) => (over_socket(path.clone()).await?, Token::default()),
        Target::Tls { url, ca, token_file } => {
            if !url.starts_with("https://") {
                return Err(ConnectError::NotHttps(url.clone()));
            }
            let read = |path: &PathBuf| {
                std::fs::read_to_string(path).map_err(|error| ConnectError::File(path.clone(), error))
            };
            let token = Token::of(&read(token_file)?);
            let token = token.ok_or_else(|| ConnectError::Token(token_file.clone()))?;
            let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(ca)?));
            let transport = |error| ConnectError::Transport(url.clone(), error);
            let endpoint = Endpoint::from_shared(url.clone()).and_then(|it| it.tls_config(tls));
            let endpoint = endpoint.map_err(transport)?.connect_timeout(CONNECT_TIME);
            (endpoint.connect().await.map_err(transport)?, token)
        }
    };
    let client = AdminClient::with_interceptor(channel, token);
    Ok(client.max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE))
}

async fn over_socket(path: PathBuf) -> Result<Channel, ConnectError> {
    // A first connection says what is wrong in the system's own words; the transport would hide them.
    if let Err(error) = tokio::net::UnixStream::connect(&path).await {
        return Err(match error.kind() {
            io::ErrorKind::NotFound => ConnectError::NoSocket(path),
            io::ErrorKind::PermissionDenied => ConnectError::NotPermitted(path),
            _ => ConnectError::NobodyThere(path.display().to_string(), error),
        });
    }
    let at = path.display().to_string();
    let connector = tower::service_fn(move |_: Uri| {
        let path = path.clone();
        async move { tokio::net::UnixStream::connect(path).await.map(TokioIo::new) }
    });
    let endpoint = Endpoint::from_static("http://mc-proxy");
    endpoint.connect_with_connector(connector).await.map_err(|error| ConnectError::Transport(at, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_token_travels_only_encrypted() {
        let file = |name: &str| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/proto")).join(name);
        let (ca, token_file) = (file("mcproxy.proto"), file("mcproxy.proto"));
        let target = Target::Tls { url: "http://127.0.0.1:9".to_owned(), ca, token_file };
        assert!(matches!(connect(&target).await, Err(ConnectError::NotHttps(_))));
    }
}
