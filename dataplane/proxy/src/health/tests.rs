//! Checks against servers that answer, fail, hang and lie.

use std::sync::{Mutex, mpsc};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
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
                if let Some(answer) = answer
                    && stream.read(&mut buffer).await.is_ok()
                {
                    // A check that has what it wants hangs up.
                    stream.write_all(answer).await.unwrap_or(());
                }
            });
        }
    });
    address
}

async fn probe_once(address: SocketAddr, kind: &str) -> Result<(), String> {
    let key = CheckKey::of(&route(address, kind)).next().unwrap();
    probe(&key, None, &Tls::default()).await
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
                if stream.read(&mut buffer).await.is_err() {
                    continue;
                }
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
                stream.write_all(answer).await.unwrap_or(());
                stream.shutdown().await.unwrap_or(());
            }
        }
    });
    assert_eq!(probe_once(address, "tls").await, Ok(()));
    assert_eq!(probe_once(address, "https").await, Ok(()));
    assert_eq!(names.lock().unwrap()[0].as_deref(), Some("app.example.org"));
    let plain = server(Some(b"hello")).await;
    assert!(probe_once(plain, "tls").await.unwrap_err().starts_with("TLS handshake failed"));
}

/// What a route's check of its one backend writes to.
fn target(address: SocketAddr) -> Target {
    Target { live: Arc::new(BackendLive::new(address)), checked: Arc::default(), tls: None }
}

#[tokio::test]
async fn a_backend_goes_down_and_comes_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let (told, heard) = mpsc::channel();
    let told = Mutex::new(told);
    let mut checks = Checks::new(Box::new(move |key, health, reason| {
        told.lock().unwrap().send((key.address, health, reason.to_owned())).unwrap();
    }));
    let target = target(address);
    checks.sync(&CheckKey::of(&route(address, "tcp")).map(|key| (key, target.clone())).collect());
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
    assert!(target.checked.is_down() && target.checked.last_error().is_some());
    let _listener = TcpListener::bind(address).await.unwrap();
    assert_eq!(next().await.1, Health::Up);
    assert_eq!((target.checked.is_down(), target.checked.last_error()), (false, None));
}

#[test]
fn a_backend_that_comes_up_is_no_longer_ejected_and_one_that_stays_up_is() {
    let key = CheckKey::of(&route(ADDRESS, "tcp")).next().unwrap();
    let target = target(ADDRESS);
    assert!(target.live.connect_failed(1000, 1, 10_000));
    assert_eq!(judge(&key, &target, Ok(()), 1001), Some(Health::Up));
    assert!(target.live.is_ejected(1001), "requests failed though the check passes");
    for _ in 0..2 {
        judge(&key, &target, Err("it broke".to_owned()), 1002);
    }
    assert!(target.checked.is_down());
    for _ in 0..2 {
        judge(&key, &target, Ok(()), 1003);
    }
    assert!(!target.checked.is_down() && !target.live.is_ejected(1003));
}

const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1);

#[test]
fn routes_that_ask_for_the_same_share_a_check() {
    let key = |name: &str, lines: &str| {
        let text = format!("listener = 'web'\nname = '{name}'\n{lines}");
        CheckKey::of(&toml::from_str(&text).unwrap()).next().unwrap()
    };
    let same = |a: &CheckKey, b: &CheckKey, expect: bool| assert_eq!(a == b, expect, "{a:?} {b:?}");
    let l4 = |name: &str, check: &str| {
        key(name, &format!("backends = [{{ address = '10.0.0.1:1' }}]\ncheck = {{ {check} }}"))
    };
    // A connection has no name.
    same(&l4("a.org", ""), &l4("b.org", "path = '/x'"), true);
    same(&l4("a.org", ""), &l4("b.org", "interval_ms = 2500"), false);
    same(&l4("a.org", "kind = 'tls'"), &l4("b.org", "kind = 'tls'"), false);
    same(&l4("a.org", "kind = 'tls', host = 'c.org'"), &l4("b.org", "kind = 'tls', host = 'c.org'"), true);
    same(&l4("a.org", "kind = 'http', host = 'c.org'"), &l4("b.org", "kind = 'http', host = 'c.org'"), true);
    same(&l4("a.org", "kind = 'http'"), &l4("a.org", "kind = 'http', path = '/x'"), false);
    let l7 = |name: &str, backend: &str, ca: &str| {
        let lines = "http.backend_ca = 'CA'\ncheck = { kind = 'http', host = 'c.org' }".replace("CA", ca);
        key(name, &format!("mode = 'l7'\nbackends = [{{ address = '10.0.0.1:1', {backend} }}]\n{lines}"))
    };
    let named = "protocol = 'h2', server_name = 'x.org'";
    same(&l7("a.org", named, "ca.pem"), &l7("b.org", named, "ca.pem"), true);
    same(&l7("a.org", named, "ca.pem"), &l7("b.org", named, "other.pem"), false);
    same(&l7("a.org", "protocol = 'h2'", "ca.pem"), &l7("b.org", "protocol = 'h2'", "ca.pem"), false);
    same(&l7("a.org", named, "ca.pem"), &l7("a.org", "protocol = 'h2c'", "ca.pem"), false);
    same(&l7("a.org", "protocol = 'h2c'", ""), &l7("a.org", "protocol = 'http1'", ""), false);
}

#[tokio::test]
async fn a_backend_that_takes_connections_and_says_nothing_is_down() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let mut checks = Checks::new(Box::new(move |_, health, reason| {
        told.send((health, reason.to_owned())).unwrap();
    }));
    let mut route = route(address, "http");
    route.check.as_mut().unwrap().timeout_ms = 30;
    checks.sync(&CheckKey::of(&route).map(|key| (key, target(address))).collect());
    let change = heard.recv().await.unwrap();
    assert_eq!(change, (Health::Down, "no answer within 30 ms".to_owned()));
}
