//! Connections over loopback: TLS, a certificate that changes, PROXY headers, and the end.

use std::path::Path;

use axum::routing::get;
use mc_core::proxy_protocol::write_v1;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;

use super::*;
use crate::clock::Clock;
use crate::http::{Caller, middleware};
use crate::tls::{Files, ServerCertificate};

/// A folder with a new certificate of its own authority; the authority's, to trust it by.
fn certificate(folder: &Path) -> (Files, RootCertStore) {
    let made = rcgen::generate_simple_self_signed(["service.test".to_owned()]).unwrap();
    let files = Files { certificate: folder.join("server.pem"), key: folder.join("server.key") };
    std::fs::write(&files.certificate, made.cert.pem()).unwrap();
    std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    (files, roots)
}

/// Bytes of an answer that no socket holds.
const LARGE: usize = 64 * 1024 * 1024;

fn app() -> Router {
    let whoami = |axum::Extension(caller): axum::Extension<Caller>| async move { caller.address.to_string() };
    let slow = || async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        "at last"
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
    places: Arc<Semaphore>,
    task: tokio::task::JoinHandle<()>,
}

async fn serve(settings: Settings) -> Served {
    let folder = tempfile::tempdir().unwrap();
    let (files, roots) = certificate(folder.path());
    let certificate = ServerCertificate::open(files.clone(), Clock::system()).unwrap();
    let tls = Some(certificate.config(&["h2", "http/1.1"]));
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = Listener::bind(any, "listen_addr", tls, &settings).await.unwrap();
    let (address, places) = (listener.address(), Arc::clone(&listener.places));
    let (stop, stopped) = watch::channel(false);
    let task = tokio::spawn(listener.serve(app(), stopped, Duration::from_secs(5)));
    Served { _folder: folder, certificate, files, roots, address, stop, places, task }
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

/// One request over one connection, after these bytes in the clear; what comes back, or why nothing does.
async fn ask(served: &Served, roots: &RootCertStore, before: &[u8], path: &str) -> std::io::Result<String> {
    let mut tls = connect(served.address, roots, before, &[]).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: service.test\r\nconnection: close\r\n\r\n");
    tls.write_all(request.as_bytes()).await?;
    let mut text = String::new();
    tls.read_to_string(&mut text).await?;
    Ok(text)
}

#[tokio::test]
async fn a_new_certificate_is_shown_without_a_restart_and_a_bad_one_never() {
    let served = serve(Settings::default()).await;
    assert!(ask(&served, &served.roots, b"", "/whoami").await.unwrap().contains("127.0.0.1:"));
    let folder = served.files.certificate.parent().unwrap();
    let (_, new) = certificate(folder);
    served.certificate.reload().unwrap();
    assert!(ask(&served, &served.roots, b"", "/whoami").await.is_err());
    assert!(ask(&served, &new, b"", "/whoami").await.is_ok());
    std::fs::write(&served.files.certificate, "no certificate").unwrap();
    assert!(served.certificate.reload().is_err());
    assert!(ask(&served, &new, b"", "/whoami").await.is_ok());
}

#[tokio::test]
async fn whoever_must_send_a_proxy_header_is_believed_and_nobody_else() {
    let header = |source: &str| {
        let mut bytes = Vec::new();
        write_v1(&mut bytes, source.parse().unwrap(), "192.0.2.1:8443".parse().unwrap());
        bytes
    };
    let from = |network: &str| Settings {
        proxy_protocol: ProxyProtocol::From(vec![network.parse().unwrap()]),
        ..Settings::default()
    };
    let behind = serve(from("127.0.0.0/8")).await;
    let told = ask(&behind, &behind.roots, &header("198.51.100.7:4321"), "/whoami").await.unwrap();
    assert!(told.ends_with("198.51.100.7:4321"), "{told}");
    assert!(ask(&behind, &behind.roots, b"", "/whoami").await.is_err());
    assert!(ask(&behind, &behind.roots, b"PROXY nonsense\r\n", "/whoami").await.is_err());
    for settings in [Settings::default(), from("10.0.0.0/8")] {
        let direct = serve(settings).await;
        assert!(ask(&direct, &direct.roots, &header("198.51.100.7:4321"), "/whoami").await.is_err());
        assert!(ask(&direct, &direct.roots, b"", "/whoami").await.unwrap().contains("127.0.0.1:"));
    }
}

#[tokio::test]
async fn what_is_under_way_when_it_is_told_to_stop_ends_well() {
    let served = serve(Settings::default()).await;
    let (asked, told) = tokio::join!(ask(&served, &served.roots, b"", "/slow"), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        served.stop.send(true).unwrap();
    });
    assert!(asked.unwrap().ends_with("at last"));
    let () = told;
    let address = served.address;
    tokio::time::timeout(Duration::from_secs(5), served.task).await.unwrap().unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn beside_a_client_that_says_nothing_others_are_served() {
    let settings = Settings { max_connections: 2, ..Settings::default() };
    let served = serve(settings).await;
    let silent = TcpStream::connect(served.address).await.unwrap();
    assert!(ask(&served, &served.roots, b"", "/whoami").await.is_ok());
    drop(silent);
}

/// Reads to the end of a connection, which must come.
async fn ends(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> Vec<u8> {
    let mut all = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut all));
    // Cut off is an end too.
    read.await.expect("the server keeps a connection on which nothing moves").ok();
    all
}

/// HTTP/2's connection preface with empty SETTINGS (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// A PING (RFC 9113, section 6.7).
const PING: &[u8] = b"\0\0\x08\x06\0\0\0\0\0by chance";

/// A request whose connection stays.
const ASKED: &[u8] = b"GET /whoami HTTP/1.1\r\nhost: service.test\r\n\r\n";

const IDLE_MS: u64 = 2000;

#[tokio::test]
async fn whoever_says_nothing_loses_their_place() {
    let served = serve(Settings { idle_timeout_ms: IDLE_MS, ..Settings::default() }).await;
    let begun = b"GET /whoami HTTP/1.1\r\nhost: serv".as_slice();
    let check = async |alpn: &str, said: &[u8]| {
        let mut stream = connect(served.address, &served.roots, b"", &[alpn]).await.unwrap();
        stream.write_all(said).await.unwrap();
        let heard = ends(&mut stream).await;
        assert_eq!(heard.starts_with(b"HTTP/1.1 200 "), said == ASKED, "{}", said.escape_ascii());
    };
    // Bytes are no reason to stay, where nothing is asked.
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
        check("http/1.1", ASKED),
        check("http/1.1", begun),
        pings,
    );
    // Whoever goes on, however slowly, is served for longer than that.
    let mut stream = connect(served.address, &served.roots, b"", &["http/1.1"]).await.unwrap();
    for _ in 0..10 {
        stream.write_all(ASKED).await.unwrap();
        assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

#[tokio::test]
async fn whoever_reads_nothing_loses_their_place() {
    let served = serve(Settings { idle_timeout_ms: 300, ..Settings::default() }).await;
    // More than sockets hold is on its way.
    let mut stream = connect(served.address, &served.roots, b"", &["http/1.1"]).await.unwrap();
    stream.write_all(b"GET /large HTTP/1.1\r\nhost: service.test\r\n\r\n").await.unwrap();
    // All places but the one that waits for the next connection.
    let free = served.places.acquire_many(Settings::default().max_connections - 1);
    drop(tokio::time::timeout(Duration::from_secs(20), free).await.expect("its place is kept").unwrap());
    assert!(ends(&mut stream).await.len() < LARGE);
}
