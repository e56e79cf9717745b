//! Connections over loopback: TLS, certificate reload, PROXY headers, limits and shutdown.

use std::path::Path;

use axum::routing::get;
use mc_core::proxy_protocol::write_v1;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Notify;
use tokio_rustls::TlsConnector;

use super::*;
use crate::clock::Clock;
use crate::http::{Caller, middleware};
use crate::tls::{Files, ServerCertificate};

/// A new self-signed certificate in a folder, and the roots that trust it.
fn certificate(folder: &Path) -> (Files, RootCertStore) {
    let made = rcgen::generate_simple_self_signed(["service.test".to_owned()]).unwrap();
    let files = Files { certificate: folder.join("server.pem"), key: folder.join("server.key") };
    std::fs::write(&files.certificate, made.cert.pem()).unwrap();
    std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    (files, roots)
}

/// A response larger than what socket buffers hold.
const LARGE: usize = 64 * 1024 * 1024;

fn app(begun: Arc<Notify>) -> Router {
    let whoami = |axum::Extension(caller): axum::Extension<Caller>| async move { caller.address.to_string() };
    let slow = move || {
        begun.notify_one();
        async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            "at last"
        }
    };
    let large = || async { "x".repeat(LARGE) };
    let router = Router::new().route("/whoami", get(whoami));
    let router = router.route("/slow", get(slow)).route("/large", get(large));
    middleware(router, Settings::default().limits(), Arc::default(), Clock::system(), &[])
}

struct Served {
    _folder: tempfile::TempDir,
    certificate: Arc<ServerCertificate>,
    files: Files,
    roots: RootCertStore,
    address: SocketAddr,
    stop: watch::Sender<bool>,
    slots: Arc<Semaphore>,
    metrics: Arc<ConnectionMetrics>,
    /// A request for `/slow` is under way.
    begun: Arc<Notify>,
    task: tokio::task::JoinHandle<()>,
}

async fn serve(settings: Settings) -> Served {
    let folder = tempfile::tempdir().unwrap();
    let (files, roots) = certificate(folder.path());
    let certificate = ServerCertificate::open(files.clone(), Clock::system()).unwrap();
    let tls = Some(certificate.config(&["h2", "http/1.1"]));
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = Listener::bind(any, "listen_addr", tls, &settings).await.unwrap();
    let (address, slots, metrics) = (listener.address(), Arc::clone(&listener.slots), listener.metrics());
    let (stop, stopped) = watch::channel(false);
    let begun = Arc::new(Notify::new());
    let task = tokio::spawn(listener.serve(app(Arc::clone(&begun)), stopped, Duration::from_secs(30)));
    Served { _folder: folder, certificate, files, roots, address, stop, slots, metrics, begun, task }
}

/// A connection with TLS, after these bytes in the clear.
async fn connect(
    address: SocketAddr,
    roots: &RootCertStore,
    before: &[u8],
    alpn: &[&str],
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots.clone())
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(before).await?;
    let name = ServerName::try_from("service.test").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

/// One request over one connection, after these bytes in the clear.
async fn request(
    served: &Served,
    roots: &RootCertStore,
    before: &[u8],
    path: &str,
) -> std::io::Result<String> {
    let mut tls = connect(served.address, roots, before, &[]).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: service.test\r\nconnection: close\r\n\r\n");
    tls.write_all(request.as_bytes()).await?;
    let mut text = String::new();
    tls.read_to_string(&mut text).await?;
    Ok(text)
}

#[tokio::test]
async fn reload_takes_a_new_certificate_and_refuses_an_invalid_one() {
    let served = serve(Settings::default()).await;
    assert!(request(&served, &served.roots, b"", "/whoami").await.unwrap().contains("127.0.0.1:"));
    let folder = served.files.certificate.parent().unwrap();
    let (_, new) = certificate(folder);
    served.certificate.reload().unwrap();
    assert!(request(&served, &served.roots, b"", "/whoami").await.is_err());
    assert!(request(&served, &new, b"", "/whoami").await.is_ok());
    std::fs::write(&served.files.certificate, "no certificate").unwrap();
    assert!(served.certificate.reload().is_err());
    assert!(request(&served, &new, b"", "/whoami").await.is_ok());
}

#[tokio::test]
async fn only_configured_proxies_name_the_client() {
    let from = |network: &str| Settings {
        proxy_protocol: ProxyProtocol::From(vec![network.parse().unwrap()]),
        ..Settings::default()
    };
    let behind = serve(from("127.0.0.0/8")).await;
    let response =
        request(&behind, &behind.roots, &proxy_header("198.51.100.7:4321"), "/whoami").await.unwrap();
    assert!(response.ends_with("198.51.100.7:4321"), "{response}");
    assert!(request(&behind, &behind.roots, b"", "/whoami").await.is_err());
    assert!(request(&behind, &behind.roots, b"PROXY nonsense\r\n", "/whoami").await.is_err());
    // A proxy on this machine, beside clients of this machine.
    let either = ProxyProtocol::OptionalFrom(vec!["127.0.0.0/8".parse().unwrap()]);
    let either = serve(Settings { proxy_protocol: either, ..Settings::default() }).await;
    let response =
        request(&either, &either.roots, &proxy_header("198.51.100.7:4321"), "/whoami").await.unwrap();
    assert!(response.ends_with("198.51.100.7:4321"), "{response}");
    assert!(request(&either, &either.roots, b"", "/whoami").await.unwrap().contains("127.0.0.1:"));
    assert!(request(&either, &either.roots, b"PROXY nonsense\r\n", "/whoami").await.is_err());
    for settings in [Settings::default(), from("10.0.0.0/8")] {
        let direct = serve(settings).await;
        assert!(
            request(&direct, &direct.roots, &proxy_header("198.51.100.7:4321"), "/whoami").await.is_err()
        );
        assert!(request(&direct, &direct.roots, b"", "/whoami").await.unwrap().contains("127.0.0.1:"));
    }
}

#[tokio::test]
async fn shutdown_waits_for_requests_in_progress() {
    let served = serve(Settings::default()).await;
    let (response, ()) = tokio::join!(request(&served, &served.roots, b"", "/slow"), async {
        served.begun.notified().await;
        served.stop.send(true).unwrap();
    });
    assert!(response.unwrap().ends_with("at last"));
    let address = served.address;
    tokio::time::timeout(Duration::from_secs(60), served.task).await.unwrap().unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn silent_client_does_not_block_others() {
    let settings = Settings { max_connections: 2, ..Settings::default() };
    let served = serve(settings).await;
    let silent = TcpStream::connect(served.address).await.unwrap();
    assert!(request(&served, &served.roots, b"", "/whoami").await.is_ok());
    drop(silent);
}

/// Reads until the connection ends, which it must.
async fn ends(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> Vec<u8> {
    let mut all = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut all));
    // A reset is an end too.
    read.await.expect("the server keeps an idle connection").ok();
    all
}

/// HTTP/2's connection preface with empty SETTINGS (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// A PING (RFC 9113, section 6.7).
const PING: &[u8] = b"\0\0\x08\x06\0\0\0\0\0by chance";

/// A request that leaves the connection open.
const REQUEST: &[u8] = b"GET /whoami HTTP/1.1\r\nhost: service.test\r\n\r\n";

const IDLE_MS: u64 = 2000;

#[tokio::test]
async fn idle_connections_are_closed() {
    let served = serve(Settings { idle_timeout_ms: IDLE_MS, ..Settings::default() }).await;
    let partial = b"GET /whoami HTTP/1.1\r\nhost: serv".as_slice();
    let check = async |alpn: &str, sent: &[u8]| {
        let mut stream = connect(served.address, &served.roots, b"", &[alpn]).await.unwrap();
        stream.write_all(sent).await.unwrap();
        let received = ends(&mut stream).await;
        assert_eq!(received.starts_with(b"HTTP/1.1 200 "), sent == REQUEST, "{}", sent.escape_ascii());
    };
    // Bytes without a request do not keep a connection.
    let pings = async {
        let stream = connect(served.address, &served.roots, b"", &["h2"]).await.unwrap();
        let (mut from, mut to) = tokio::io::split(stream);
        to.write_all(PREFACE).await.unwrap();
        let pings = async {
            while to.write_all(PING).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::join!(ends(&mut from), pings)
    };
    tokio::join!(
        check("http/1.1", b""),
        check("h2", b""),
        check("h2", PREFACE),
        check("http/1.1", REQUEST),
        check("http/1.1", partial),
        pings,
    );
    // A client that sends requests, however slowly, keeps its connection.
    let mut stream = connect(served.address, &served.roots, b"", &["http/1.1"]).await.unwrap();
    for _ in 0..10 {
        stream.write_all(REQUEST).await.unwrap();
        assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

#[tokio::test]
async fn client_that_does_not_read_loses_its_slot() {
    let served = serve(Settings { idle_timeout_ms: 300, ..Settings::default() }).await;
    // The response is larger than socket buffers.
    let mut stream = connect(served.address, &served.roots, b"", &["http/1.1"]).await.unwrap();
    stream.write_all(b"GET /large HTTP/1.1\r\nhost: service.test\r\n\r\n").await.unwrap();
    // All slots but the one that waits for the next connection.
    let free = served.slots.acquire_many(Settings::default().max_connections - 1);
    drop(tokio::time::timeout(Duration::from_secs(20), free).await.expect("the slot is kept").unwrap());
    assert!(ends(&mut stream).await.len() < LARGE);
}

fn proxy_header(source: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_v1(&mut bytes, source.parse().unwrap(), "192.0.2.1:8443".parse().unwrap());
    bytes
}

/// A metric's line, by its beginning.
fn metric(served: &Served, name: &str) -> u64 {
    let mut page = crate::prometheus::Page::default();
    ConnectionMetrics::write(&[&served.metrics], &mut page);
    let line = page.text.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_else(|| panic!("{name}: {}", page.text)).trim().parse().unwrap()
}

#[tokio::test]
async fn a_source_has_its_own_limit_of_connections() {
    let served = serve(Settings {
        proxy_protocol: ProxyProtocol::From(vec!["127.0.0.0/8".parse().unwrap()]),
        max_connections_per_source: 2,
        ..Settings::default()
    })
    .await;
    let open = async |source: &str| {
        connect(served.address, &served.roots, &proxy_header(source), &["http/1.1"]).await
    };
    let first = open("198.51.100.7:1").await.unwrap();
    let _second = open("198.51.100.7:2").await.unwrap();
    assert!(open("198.51.100.7:3").await.is_err());
    let _other = open("198.51.100.8:1").await.unwrap();
    let refused = r#"server_connections_refused_total{listener="listen_addr",reason="source-limit"}"#;
    assert_eq!(metric(&served, refused), 1);
    drop(first);
    while metric(&served, r#"server_connections{listener="listen_addr"}"#) > 2 {
        tokio::task::yield_now().await;
    }
    assert!(open("198.51.100.7:4").await.is_ok());
    // Connections from this machine are not counted.
    let direct = serve(Settings { max_connections_per_source: 1, ..Settings::default() }).await;
    let _held = connect(direct.address, &direct.roots, b"", &["http/1.1"]).await.unwrap();
    assert!(request(&direct, &direct.roots, b"", "/whoami").await.is_ok());
}

#[tokio::test]
async fn refused_connections_are_counted_by_reason() {
    let served = serve(Settings {
        proxy_protocol: ProxyProtocol::From(vec!["127.0.0.0/8".parse().unwrap()]),
        ..Settings::default()
    })
    .await;
    assert!(connect(served.address, &served.roots, b"nonsense", &[]).await.is_err());
    let header = proxy_header("198.51.100.7:1");
    assert!(connect(served.address, &RootCertStore::empty(), &header, &[]).await.is_err());
    for (reason, expect) in [("proxy-header", 1), ("tls", 1), ("source-limit", 0), ("timeout", 0)] {
        let name =
            format!("server_connections_refused_total{{listener=\"listen_addr\",reason=\"{reason}\"}}");
        while metric(&served, &name) < expect {
            tokio::task::yield_now().await;
        }
        assert_eq!(metric(&served, &name), expect, "{reason}");
    }
    assert_eq!(metric(&served, r#"server_connections_accepted_total{listener="listen_addr"}"#), 2);
}

#[tokio::test]
async fn http2_connections_announce_small_limits() {
    let served = serve(Settings::default()).await;
    let mut stream = connect(served.address, &served.roots, b"", &["h2"]).await.unwrap();
    stream.write_all(PREFACE).await.unwrap();
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(head[3], 4, "SETTINGS come first");
    let mut payload = vec![0; usize::from(head[2])];
    stream.read_exact(&mut payload).await.unwrap();
    let setting = |id: u8| {
        let entry = payload.chunks(6).find(|entry| entry[..2] == [0, id]).unwrap();
        u32::from_be_bytes(entry[2..].try_into().unwrap())
    };
    // RFC 9113, section 6.5.2.
    assert_eq!((setting(3), setting(4), setting(6)), (MAX_STREAMS, STREAM_WINDOW, HEAD_BYTES));
}
