//! One check, made once: what a client would do first.

use std::sync::Arc;

use hyper_util::rt::TokioIo;
use mc_core::model::{CheckKind, ProxyOut};
use mc_core::proxy_protocol::write_for_check;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::CheckKey;

/// TLS for checks, with the ALPN protocol of a bare handshake (none) and of HTTP.
#[derive(Clone, Debug)]
pub(super) struct Tls {
    bare: Arc<ClientConfig>,
    http: Arc<ClientConfig>,
}

impl Default for Tls {
    fn default() -> Self {
        let bare = tls_config();
        let mut http = bare.clone();
        http.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self { bare: Arc::new(bare), http: Arc::new(http) }
    }
}

/// One check; the error is for people.
pub(super) async fn probe(key: &CheckKey, tls: &Tls) -> Result<(), String> {
    let connected = TcpStream::connect(key.address).await;
    let mut stream = connected.map_err(|error| format!("cannot connect: {error}"))?;
    if key.proxy_protocol != ProxyOut::Off {
        let local = stream.local_addr().map_err(|error| error.to_string())?;
        let mut header = Vec::new();
        write_for_check(&mut header, key.proxy_protocol, local, key.address);
        let sent = stream.write_all(&header).await;
        sent.map_err(|error| format!("cannot send the PROXY header: {error}"))?;
    }
    match key.check.kind {
        CheckKind::Tcp => Ok(()),
        CheckKind::Tls => handshake(key, stream, &tls.bare).await.map(drop),
        CheckKind::Http => request(key, stream).await,
        CheckKind::Https => request(key, handshake(key, stream, &tls.http).await?).await,
    }
}

async fn handshake(
    key: &CheckKey,
    stream: TcpStream,
    tls: &Arc<ClientConfig>,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, String> {
    // With an address instead of a name the hello has no name, as the default route's clients have none.
    let name = match ServerName::try_from(key.check.host.clone()) {
        Ok(name) if !key.check.host.is_empty() => name,
        _ => ServerName::from(key.address.ip()),
    };
    let connector = TlsConnector::from(Arc::clone(tls));
    connector.connect(name, stream).await.map_err(|error| format!("TLS handshake failed: {error}"))
}

async fn request<S>(key: &CheckKey, stream: S) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let say = |what: &'static str| move |error: hyper::Error| format!("{what}: {error}");
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(say("cannot speak HTTP"))?;
    let host = if key.check.host.is_empty() { key.address.to_string() } else { key.check.host.clone() };
    let request = hyper::Request::get(&key.check.path)
        .header(hyper::header::HOST, host)
        .header(hyper::header::USER_AGENT, "mc-proxy-check")
        .header(hyper::header::CONNECTION, "close")
        .body(String::new())
        .map_err(|error| format!("the check's path or host cannot be sent: {error}"))?;
    // The connection moves while the request waits, and is dropped with it.
    let mut connection = std::pin::pin!(connection);
    let mut answer = std::pin::pin!(sender.send_request(request));
    let answer = tokio::select! {
        answer = &mut answer => answer,
        ended = &mut connection => match ended {
            // The connection may end with the answer already there.
            Ok(()) => answer.await,
            Err(error) => Err(error),
        },
    };
    let status = answer.map_err(say("no answer"))?.status();
    if (200..400).contains(&status.as_u16()) {
        Ok(())
    } else {
        Err(format!("GET {} answered {status}", key.check.path))
    }
}

/// TLS that accepts any certificate: whether a name's certificate is right is the client's to judge, and a backend
/// with an expired one still answers.
fn tls_config() -> ClientConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("the provider has suites for the default versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth()
}

/// Checks that the server has the key of the certificate it shows, and nothing else.
#[derive(Debug)]
struct AnyCertificate(Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &rustls::pki_types::CertificateDer<'_>,
        _intermediates: &[rustls::pki_types::CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &rustls::pki_types::CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &rustls::pki_types::CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
