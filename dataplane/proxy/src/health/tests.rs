//! Checks against servers that answer, fail, hang and lie.

use std::sync::mpsc;

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
    probe(&key, &Tls::default()).await
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

#[test]
fn kinds_are_judged_apart_and_names_of_a_kind_together() {
    use CheckKind::{Http, Tcp};
    use Health::{Down, Unknown, Up};
    let check =
        |all: &[(CheckKind, Health)], expect| assert_eq!(verdict(all.iter().copied()), expect, "{all:?}");
    check(&[], Unknown);
    check(&[(Tcp, Unknown)], Unknown);
    check(&[(Tcp, Up)], Up);
    check(&[(Tcp, Down)], Down);
    check(&[(Tcp, Up), (Http, Down)], Down);
    check(&[(Tcp, Up), (Http, Unknown)], Up);
    check(&[(Http, Down), (Http, Up)], Up);
    check(&[(Http, Down), (Http, Unknown)], Unknown);
    check(&[(Http, Down), (Http, Down)], Down);
}

/// Checks whose answers the test gives.
struct Judged {
    checks: Checks,
    live: Arc<BackendLive>,
    changes: Arc<Mutex<Vec<(Health, String)>>>,
}

const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1);

impl Judged {
    fn new(keys: &[&CheckKey]) -> Self {
        let changes = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&changes);
        let checks = Checks::new(Box::new(move |_, health, reason| {
            told.lock().unwrap().push((health, reason.to_owned()));
        }));
        let live = Arc::new(BackendLive::new(ADDRESS));
        keys.iter().for_each(|key| checks.shared.begin(key, &live));
        Self { checks, live, changes }
    }

    /// One answer after the other: `+` and `-`. What was told meanwhile.
    fn answers(&self, key: &CheckKey, answers: &str) -> Vec<(Health, String)> {
        for answer in answers.chars() {
            let answer = if answer == '+' { Ok(()) } else { Err("it broke".to_owned()) };
            self.checks.shared.judge(key, answer, 1000);
        }
        std::mem::take(&mut *self.changes.lock().unwrap())
    }
}

fn key(kind: &str, host: &str) -> CheckKey {
    let mut key = CheckKey::of(&route(ADDRESS, kind)).next().unwrap();
    host.clone_into(&mut key.check.host);
    key
}

#[test]
fn rise_and_fall_keep_a_flapping_backend_as_it_is() {
    let key = key("tcp", "");
    let judged = Judged::new(&[&key]);
    assert_eq!(judged.answers(&key, "+"), [(Health::Up, String::new())]);
    assert_eq!(judged.answers(&key, "-+-+-+"), []);
    assert_eq!(judged.answers(&key, "--"), [(Health::Down, "it broke".to_owned())]);
    assert_eq!(judged.checks.errors().get(ADDRESS).as_deref(), Some("it broke"));
    assert_eq!(judged.answers(&key, "+-+-+-"), []);
    assert_eq!(judged.answers(&key, "++"), [(Health::Up, String::new())]);
    assert_eq!(judged.checks.errors().get(ADDRESS), None);
}

#[test]
fn a_check_that_ends_does_not_bring_up_what_another_keeps_down() {
    let (tcp, http) = (key("tcp", ""), key("http", ""));
    let judged = Judged::new(&[&tcp, &http]);
    judged.answers(&tcp, "+");
    assert_eq!(judged.answers(&http, "--"), [(Health::Down, "it broke".to_owned())]);
    judged.checks.shared.end(&tcp, 1000);
    assert_eq!(judged.live.health(1000), Health::Down);
    judged.checks.shared.begin(&tcp, &judged.live);
    assert_eq!(judged.answers(&tcp, "++"), []);
    judged.checks.shared.end(&http, 1000);
    assert_eq!(judged.answers(&tcp, ""), [(Health::Up, String::new())]);
    judged.checks.shared.end(&tcp, 1000);
    assert_eq!(judged.live.health(1000), Health::Unknown);
    assert_eq!(judged.checks.errors().get(ADDRESS), None);
    // An answer that was on its way when its check ended.
    assert_eq!(judged.answers(&http, "--"), []);
}

#[test]
fn one_broken_name_does_not_take_the_address_down() {
    let (good, bad) = (key("http", "good.example.org"), key("http", "bad.example.org"));
    let judged = Judged::new(&[&good, &bad]);
    judged.answers(&good, "+");
    assert_eq!(judged.answers(&bad, "----"), []);
    assert_eq!(judged.checks.errors().get(ADDRESS).as_deref(), Some("it broke"));
    assert_eq!(judged.answers(&good, "--"), [(Health::Down, "it broke".to_owned())]);
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
    let live = Arc::new(BackendLive::new(address));
    checks.sync(&CheckKey::of(&route).map(|key| (key, Arc::clone(&live))).collect());
    let change = heard.recv().await.unwrap();
    assert_eq!(change, (Health::Down, "no answer within 30 ms".to_owned()));
}
