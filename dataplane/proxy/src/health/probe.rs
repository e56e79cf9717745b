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
use tokio_rustls::client::TlsStream;

use super::{CheckKey, CheckTls, http2, judge_status};
use crate::tls::BackendTls;

/// TLS whose certificates are not judged, with the ALPN protocol of a bare handshake (none) and of HTTP.
#[derive(Clone, Debug)]
pub(super) struct Tls {
    bare: Arc<ClientConfig>,
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
}

impl Default for Tls {
    fn default() -> Self {
        let bare = tls_config();
        let with = |alpn: &[u8]| {
            let mut config = bare.clone();
            config.alpn_protocols = vec![alpn.to_vec()];
            Arc::new(config)
        };
        Self { http1: with(b"http/1.1"), http2: with(b"h2"), bare: Arc::new(bare) }
    }
}

/// One check; the error is for people. `backend`: how the backend proves who it is, for [`CheckTls::Verified`].
pub(super) async fn probe(key: &CheckKey, backend: Option<&BackendTls>, tls: &Tls) -> Result<(), String> {
    let connected = TcpStream::connect(key.address).await;
    let mut stream = connected.map_err(|error| format!("cannot connect: {error}"))?;
    if key.proxy_protocol != ProxyOut::Off {
        let local = stream.local_addr().map_err(|error| error.to_string())?;
        let mut header = Vec::new();
        write_for_check(&mut header, key.proxy_protocol, local, key.address);
        let sent = stream.write_all(&header).await;
        sent.map_err(|error| format!("cannot send the PROXY header: {error}"))?;
    }
    match &key.tls {
        CheckTls::Off => request(key, stream).await,
        CheckTls::Unverified => request(key, unverified(key, stream, tls).await?).await,
        CheckTls::Verified { .. } => request(key, verified(key, stream, backend).await?).await,
    }
}

/// What comes after TCP and TLS: nothing, or a request.
async fn request<S>(key: &CheckKey, stream: S) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    match key.check.kind {
        CheckKind::Tcp | CheckKind::Tls => Ok(()),
        _ if key.is_http2 => http2::ask(key, stream).await,
        _ => http1(key, stream).await,
    }
}

/// A handshake whose certificate is not judged.
async fn unverified(key: &CheckKey, stream: TcpStream, tls: &Tls) -> Result<TlsStream<TcpStream>, String> {
    // With an address instead of a name the hello has no name, as the default route's clients have none.
    let name = match ServerName::try_from(key.check.host.clone()) {
        Ok(name) if !key.check.host.is_empty() => name,
        _ => ServerName::from(key.address.ip()),
    };
    let config = match key.check.kind {
        CheckKind::Tls => &tls.bare,
        _ if key.is_http2 => &tls.http2,
        _ => &tls.http1,
    };
    let shaken = TlsConnector::from(Arc::clone(config)).connect(name, stream).await;
    let stream = shaken.map_err(|error| format!("TLS handshake failed: {error}"))?;
    check_alpn(key, stream)
}

/// A handshake as requests make it.
async fn verified(
    key: &CheckKey,
    stream: TcpStream,
    backend: Option<&BackendTls>,
) -> Result<TlsStream<TcpStream>, String> {
    let backend = backend.ok_or("nobody vouches for it: the route names no certificate authority")?;
    let trust = backend.authority.trust().ok_or_else(|| {
        format!("nobody vouches for it: {} cannot be used, see the log", backend.authority.path().display())
    })?;
    let config = if key.is_http2 { &trust.h2 } else { &trust.https };
    let shaken = TlsConnector::from(Arc::clone(config)).connect(backend.name.clone(), stream).await;
    check_alpn(key, shaken.map_err(|error| backend.explain(error).to_string())?)
}

/// HTTP/2 over TLS is what was agreed on.
fn check_alpn(key: &CheckKey, stream: TlsStream<TcpStream>) -> Result<TlsStream<TcpStream>, String> {
    if key.is_http2 && stream.get_ref().1.alpn_protocol() != Some(b"h2") {
        return Err("it does not speak HTTP/2 over TLS: it did not choose h2 by ALPN".to_owned());
    }
    Ok(stream)
}

/// A request over HTTP/1.1.
async fn http1<S>(key: &CheckKey, stream: S) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let say = |what: &'static str| move |error: hyper::Error| format!("{what}: {error}");
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(say("cannot speak HTTP"))?;
    let request = hyper::Request::get(&key.check.path)
        .header(hyper::header::HOST, key.authority())
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
    judge_status(key, answer.map_err(say("no answer"))?.status())
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
