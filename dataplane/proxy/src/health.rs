//! Active health checks: one task for each backend that is checked, on the admin side's runtime.
//!
//! A check is what a client would do first: a TCP connection, a TLS handshake, a request. Certificates are not
//! judged: whether a name's certificate is right is the client's business, and a backend with an expired one
//! still answers. Rise and fall are counted by the backend's own state ([`BackendLive`]).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use mc_core::backend::{BackendLive, Health};
use mc_core::model::{Check, CheckKind, ProxyOut, Route};
use mc_core::proxy_protocol::write_for_check;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio_rustls::TlsConnector;

use crate::clock;

/// What is checked and how. Routes that say the same share one check.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CheckKey {
    /// The backend.
    pub address: SocketAddr,
    /// As configured, its host filled in from the route's name.
    pub check: Check,
    /// A backend that expects a PROXY header gets one from checks too.
    pub proxy_protocol: ProxyOut,
}

/// All checks that run.
#[derive(Debug)]
pub struct Checks {
    running: HashMap<CheckKey, Running>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Running {
    task: AbortHandle,
    live: Arc<BackendLive>,
}

/// What every check has at hand.
struct Shared {
    tls: Arc<ClientConfig>,
    errors: Mutex<HashMap<SocketAddr, String>>,
    on_change: OnChange,
}

/// Hears of a backend that went down, and why, or came up. Must not wait.
pub type OnChange = Box<dyn Fn(SocketAddr, Health, &str) + Send + Sync>;

impl Checks {
    /// No checks yet. `on_change` hears of each backend that goes down (and why) or comes up.
    #[must_use]
    pub fn new(on_change: OnChange) -> Self {
        let shared = Shared { tls: Arc::new(tls_config()), errors: Mutex::default(), on_change };
        Self { running: HashMap::new(), shared: Arc::new(shared) }
    }

    /// Starts what is wanted and does not run, ends what runs and is not wanted. Call on a tokio runtime.
    pub fn sync(&mut self, wanted: &HashMap<CheckKey, Arc<BackendLive>>) {
        self.running.retain(|key, running| {
            // The same address may have got a new state, where no route led there for a moment.
            let keep = wanted.get(key).is_some_and(|live| Arc::ptr_eq(live, &running.live));
            if !keep {
                running.task.abort();
                running.live.checks_ended(clock::millis());
                self.shared.forget(key.address);
            }
            keep
        });
        for (key, live) in wanted {
            if !self.running.contains_key(key) {
                let check = run(key.clone(), Arc::clone(live), Arc::clone(&self.shared));
                let task = tokio::spawn(check).abort_handle();
                self.running.insert(key.clone(), Running { task, live: Arc::clone(live) });
            }
        }
    }

    /// Where the errors of failing checks can be read, by address.
    #[must_use]
    pub fn errors(&self) -> CheckErrors {
        CheckErrors(Arc::clone(&self.shared))
    }
}

impl Drop for Checks {
    fn drop(&mut self) {
        for running in self.running.values() {
            running.task.abort();
        }
    }
}

/// Why backends' last checks failed.
#[derive(Clone, Debug)]
pub struct CheckErrors(Arc<Shared>);

impl CheckErrors {
    /// Why the last check of this backend failed; `None` where it passed or there is none.
    #[must_use]
    pub fn get(&self, address: SocketAddr) -> Option<String> {
        self.0.errors.lock().unwrap_or_else(PoisonError::into_inner).get(&address).cloned()
    }
}

impl CheckKey {
    /// The checks that a route wants, one for each backend; none where it has no check.
    pub fn of(route: &Route) -> impl Iterator<Item = Self> + '_ {
        let check = route.check.as_ref().map(|check| {
            // A wildcard or the default names no host that one could ask for.
            let host = if route.name.starts_with('*') { "" } else { &route.name };
            let host = if check.host.is_empty() { host } else { &check.host };
            Check { host: host.to_owned(), ..check.clone() }
        });
        route.backends.iter().filter_map(move |backend| {
            let check = check.clone()?;
            Some(Self { address: backend.address, check, proxy_protocol: backend.proxy_protocol })
        })
    }
}

impl Shared {
    fn remember(&self, address: SocketAddr, error: &str) {
        self.errors.lock().unwrap_or_else(PoisonError::into_inner).insert(address, error.to_owned());
    }

    fn forget(&self, address: SocketAddr) {
        self.errors.lock().unwrap_or_else(PoisonError::into_inner).remove(&address);
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("errors", &self.errors).finish_non_exhaustive()
    }
}

/// Checks one backend again and again.
async fn run(key: CheckKey, live: Arc<BackendLive>, shared: Arc<Shared>) {
    let interval = Duration::from_millis(key.check.interval_ms.max(1));
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let timeout = Duration::from_millis(key.check.timeout_ms);
        let result = match tokio::time::timeout(timeout, probe(&key, &shared.tls)).await {
            Ok(result) => result,
            Err(_elapsed) => Err(format!("no answer within {} ms", key.check.timeout_ms)),
        };
        let now_ms = clock::millis();
        let (change, reason) = match &result {
            Ok(()) => {
                shared.forget(key.address);
                (live.check_passed(now_ms, key.check.rise), "")
            }
            Err(error) => {
                shared.remember(key.address, error);
                (live.check_failed(now_ms, key.check.fall), error.as_str())
            }
        };
        if let Some(health) = change {
            tracing::info!(backend = %key.address, ?health, reason, "health changed");
            (shared.on_change)(key.address, health, reason);
        }
        // Checks that began together, at a start or a change, drift apart.
        let jitter = fastrand::u64(..=key.check.interval_ms / 10);
        tokio::time::sleep(Duration::from_millis(jitter)).await;
    }
}

/// One check; the error is for people.
async fn probe(key: &CheckKey, tls: &Arc<ClientConfig>) -> Result<(), String> {
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
        CheckKind::Tls => handshake(key, stream, tls).await.map(drop),
        CheckKind::Http => request(key, stream).await,
        CheckKind::Https => request(key, handshake(key, stream, tls).await?).await,
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

/// TLS that accepts any certificate; see the module's first lines.
fn tls_config() -> ClientConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("the provider has suites for the default versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    use super::*;

    fn route(address: SocketAddr, kind: &str) -> Route {
        let text = format!(
            "listener = 'web'\nname = 'app.example.org'\nbackends = [{{ address = '{address}' }}]\n\
             check = {{ kind = '{kind}', interval_ms = 20, timeout_ms = 400, rise = 2, fall = 2 }}"
        );
        toml::from_str(&text).unwrap()
    }

    /// Answers every connection with these bytes after the first read; none: closes at once.
    async fn server(answer: Option<&'static [u8]>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut buffer = [0; 4096];
                    if let Some(answer) = answer {
                        let _ = stream.read(&mut buffer).await;
                        let _ = stream.write_all(answer).await;
                    }
                });
            }
        });
        address
    }

    async fn probe_once(address: SocketAddr, kind: &str) -> Result<(), String> {
        let key = CheckKey::of(&route(address, kind)).next().unwrap();
        probe(&key, &Arc::new(tls_config())).await
    }

    #[tokio::test]
    async fn http_is_up_from_200_to_399_and_says_what_else_came() {
        let ok = server(Some(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n")).await;
        assert_eq!(probe_once(ok, "http").await, Ok(()));
        let bad = server(Some(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")).await;
        assert_eq!(probe_once(bad, "http").await.unwrap_err(), "GET / answered 503 Service Unavailable");
        let garbage = server(Some(b"220 smtp ready\r\n")).await;
        assert!(probe_once(garbage, "http").await.unwrap_err().starts_with("no answer"));
        let closes = server(None).await;
        assert!(probe_once(closes, "http").await.is_err());
        assert_eq!(probe_once(closes, "tcp").await, Ok(()));
    }

    #[tokio::test]
    async fn tls_needs_a_handshake_and_judges_no_certificate() {
        let key = rcgen::generate_simple_self_signed(vec!["other.example".to_owned()]).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![key.cert.der().clone()],
                rustls::pki_types::PrivateKeyDer::Pkcs8(key.signing_key.serialize_der().into()),
            )
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let names = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&names);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if let Ok(mut stream) = acceptor.accept(stream).await {
                    seen.lock().unwrap().push(stream.get_ref().1.server_name().map(str::to_owned));
                    let mut buffer = [0; 4096];
                    let _ = stream.read(&mut buffer).await;
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
                    let _ = stream.shutdown().await;
                }
            }
        });
        assert_eq!(probe_once(address, "tls").await, Ok(()));
        assert_eq!(probe_once(address, "https").await, Ok(()));
        assert_eq!(names.lock().unwrap()[0].as_deref(), Some("app.example.org"));
        let plain = server(Some(b"hello")).await;
        assert!(probe_once(plain, "tls").await.unwrap_err().starts_with("TLS handshake failed"));
    }

    #[tokio::test]
    async fn a_backend_goes_down_comes_up_and_counts_as_up_when_nobody_checks_it() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let (told, heard) = mpsc::channel();
        let told = Mutex::new(told);
        let mut checks = Checks::new(Box::new(move |address, health, reason| {
            told.lock().unwrap().send((address, health, reason.to_owned())).unwrap();
        }));
        let live = Arc::new(BackendLive::new(address));
        let wanted: HashMap<_, _> =
            CheckKey::of(&route(address, "tcp")).map(|key| (key, Arc::clone(&live))).collect();
        checks.sync(&wanted);
        let next = || async {
            loop {
                match heard.try_recv() {
                    Ok(change) => return change,
                    Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        };
        let (at, health, reason) = next().await;
        assert_eq!((at, health), (address, Health::Down));
        assert!(reason.starts_with("cannot connect"), "{reason}");
        assert!(checks.errors().get(address).is_some());
        let _listener = TcpListener::bind(address).await.unwrap();
        assert_eq!(next().await.1, Health::Up);
        assert_eq!(checks.errors().get(address), None);
        checks.sync(&HashMap::new());
        assert!(live.allowed());
        assert_eq!(live.health(clock::millis()), Health::Unknown);
    }
}
