//! What is asked of MCIAS, how often, and what is believed; over TLS, with a MCIAS that is told what to say.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::{get, post};
use http::{HeaderMap, Request};
use http_body_util::BodyExt as _;
use tokio::sync::watch;
use tower::ServiceExt as _;

use super::*;
use crate::clock::Clock;
use crate::http::{Form, Json};
use crate::problem::Kind;
use crate::secret::Secret;
use crate::server::Listener;
use crate::tls::{Files, ServerCertificate};

struct Fake {
    folder: tempfile::TempDir,
    asked: Arc<AtomicUsize>,
    answer: Arc<Mutex<serde_json::Value>>,
    /// What the last request was called.
    id: Arc<Mutex<Option<String>>>,
    client: Client,
    clock: Clock,
    stop: watch::Sender<bool>,
}

#[derive(Deserialize)]
struct Asked {
    token: String,
}

fn active() -> serde_json::Value {
    let exp = Clock::system().unix_s() + 3600;
    serde_json::json!({
        "active": true, "sub": "bob", "account_type": "human", "roles": ["user"], "tags": ["staff"],
        "jti": "7", "aud": [], "exp": exp
    })
}

async fn fake() -> Fake {
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let files = Files { certificate: folder.path().join("ca.pem"), key: folder.path().join("key.pem") };
    std::fs::write(&files.certificate, made.cert.pem()).unwrap();
    std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    std::fs::write(folder.path().join("token"), "own-token\n").unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let answer = Arc::new(Mutex::new(active()));
    let id = Arc::new(Mutex::new(None));
    let introspect = {
        let (asked, answer, id) = (Arc::clone(&asked), Arc::clone(&answer), Arc::clone(&id));
        move |headers: HeaderMap, Form(form): Form<Asked>| async move {
            assert_eq!(headers["authorization"], "Bearer own-token");
            *id.lock().unwrap() = headers.get("x-request-id").map(|id| id.to_str().unwrap().to_owned());
            asked.fetch_add(1, Ordering::Relaxed);
            // Long enough for a herd to gather.
            tokio::time::sleep(Duration::from_millis(50)).await;
            let answer = answer.lock().unwrap().clone();
            if form.token == "bad" { Json(serde_json::json!({ "active": false })) } else { Json(answer) }
        }
    };
    let router = Router::new().route("/v1/introspect", post(introspect));
    let certificate = ServerCertificate::open(files.clone(), Clock::system()).unwrap();
    let settings = crate::server::Settings::default();
    let any = "127.0.0.1:0".parse().unwrap();
    let tls = Some(certificate.config(&["h2"]));
    let listener = Listener::bind(any, "listen_addr", tls, &settings).await.unwrap();
    let server_url = format!("https://localhost:{}", listener.address().port());
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(listener.serve(router, stopped, Duration::ZERO));
    let clock = Clock::system();
    let settings = Settings { server_url, ca: files.certificate, token_file: folder.path().join("token") };
    let client = Client::new(&settings, clock.clone()).unwrap();
    Fake { folder, asked, answer, id, client, clock, stop }
}

impl Fake {
    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_herd_asks_once_and_all_get_the_answer() {
    let fake = fake().await;
    let one = || {
        let client = fake.client.clone();
        tokio::spawn(async move { client.validate(&Secret::from("good")).await })
    };
    let herd: Vec<_> = (0..100).map(|_| one()).collect();
    for member in herd {
        let identity = member.await.unwrap().unwrap();
        assert_eq!((identity.account.as_str(), identity.account_type), ("bob", AccountType::Human));
        assert!(identity.has(Role::User) && identity.tags.contains("staff"));
        assert!(identity.require(Role::User).is_ok());
        assert_eq!(identity.require(Role::Admin).unwrap_err().kind, Kind::Forbidden);
    }
    assert_eq!(fake.asked(), 1);
    // No is remembered too, and another token is another question.
    for _ in 0..3 {
        let refused = fake.client.validate(&Secret::from("bad")).await.unwrap_err();
        assert_eq!(refused.kind, Kind::Unauthenticated);
    }
    assert_eq!(fake.asked(), 2);
    fake.stop.send(true).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_revoked_is_refused_everywhere_within_30_s() {
    let fake = fake().await;
    let good = || async { fake.client.validate(&Secret::from("good")).await.is_ok() };
    let bad = || async { fake.client.validate(&Secret::from("bad")).await.is_err() };
    assert!(good().await && bad().await);
    assert_eq!(fake.asked(), 2);
    // No is believed for less time: a token that was just issued is taken soon.
    fake.clock.pass(Duration::from_secs(2));
    assert!(good().await && bad().await);
    assert_eq!(fake.asked(), 2);
    fake.clock.pass(Duration::from_secs(3));
    assert!(good().await && bad().await);
    assert_eq!(fake.asked(), 3);
    fake.answer.lock().unwrap()["active"] = false.into();
    fake.clock.pass(Duration::from_secs(15));
    assert!(good().await);
    assert_eq!(fake.asked(), 3);
    fake.clock.pass(Duration::from_secs(10));
    assert!(!good().await);
    assert_eq!(fake.asked(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_over_soon_is_believed_no_longer() {
    let fake = fake().await;
    // It ends now: believed by those who wait for it, and by nobody after them.
    fake.answer.lock().unwrap()["exp"] = fake.clock.unix_s().into();
    for count in 1..=2 {
        assert!(fake.client.validate(&Secret::from("good")).await.is_ok());
        assert_eq!(fake.asked(), count);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_no_sense_or_does_not_come_lets_nobody_in() {
    let fake = fake().await;
    let odd = [
        ("sub", serde_json::Value::Null),
        ("account_type", "robot".into()),
        ("roles", serde_json::json!(["king"])),
        ("jti", serde_json::Value::Null),
        ("exp", serde_json::Value::Null),
        ("active", false.into()),
        // A service with a role: MCIAS never says that.
        ("account_type", "system".into()),
    ];
    for (number, (key, value)) in odd.into_iter().enumerate() {
        let mut answer = active();
        answer[key] = value;
        *fake.answer.lock().unwrap() = answer;
        let refused = fake.client.validate(&Secret::from(format!("token {number}"))).await.unwrap_err();
        assert_eq!(refused.kind, Kind::Unauthenticated, "{key}");
    }
    std::fs::remove_file(fake.folder.path().join("token")).unwrap();
    let refused = fake.client.validate(&Secret::from("other")).await.unwrap_err();
    assert_eq!((refused.kind, refused.reason), (Kind::Unavailable, "identity-unavailable"));
    std::fs::write(fake.folder.path().join("token"), "own-token").unwrap();
    fake.stop.send(true).unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let asked = fake.asked();
    let refused = fake.client.validate(&Secret::from("another")).await.unwrap_err();
    assert_eq!((refused.kind, fake.asked()), (Kind::Unavailable, asked));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_behind_it_knows_who_asks() {
    let fake = fake().await;
    let whoami = |identity: Identity| async move { identity.account };
    let layer = axum::middleware::from_fn_with_state(fake.client.clone(), authenticate);
    let router = Router::new().route("/whoami", get(whoami)).layer(layer).route("/forgotten", get(whoami));
    let check = async |path: &str, token: Option<&str>, status: u16, expect: &str| {
        let mut request = Request::get(path);
        if let Some(token) = token {
            request = request.header("authorization", token);
        }
        let response = router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.status(), status, "{path} {token:?}");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert!(String::from_utf8_lossy(&body).contains(expect), "{path} {token:?}: {body:?}");
    };
    check("/whoami", Some("Bearer good"), 200, "bob").await;
    check("/whoami", Some("Bearer bad"), 401, "log in again").await;
    check("/whoami", Some("Basic good"), 401, "authorization").await;
    check("/whoami", None, 401, "takes a token").await;
    check("/forgotten", Some("Bearer good"), 401, "takes a token").await;
    // A call of gRPC goes the same way, and is refused in its own words.
    let whoami = |request: Request<Body>| async move {
        let call = tonic::Request::from_parts(Default::default(), request.extensions().clone(), ());
        Identity::of(&call).map(|identity| identity.account.clone())
    };
    let layer = axum::middleware::from_fn_with_state(fake.client.clone(), authenticate);
    let calls = Router::new().route("/Calls/Whoami", post(whoami)).layer(layer);
    for (token, status, expect) in [("good", None, "bob"), ("bad", Some("16"), "")] {
        let call = Request::post("/Calls/Whoami").header("content-type", "application/grpc");
        let call = call.header("authorization", format!("Bearer {token}")).body(Body::empty()).unwrap();
        let response = calls.clone().oneshot(call).await.unwrap();
        assert_eq!(response.status(), 200);
        let told = response.headers().get("grpc-status").map(|status| status.to_str().unwrap().to_owned());
        assert_eq!(told.as_deref(), status);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, expect);
    }
    // A request keeps its name when MCIAS is asked because of it.
    let limits = crate::http::Limits { time: Duration::from_secs(5), body: 1000 };
    let router = crate::http::surround(router, limits, Arc::default(), fake.clock.clone());
    let request =
        Request::get("/whoami").header("authorization", "Bearer other").header("x-request-id", "one-name");
    let response = router.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(fake.id.lock().unwrap().as_deref(), Some("one-name"));
}

#[test]
fn a_token_travels_only_encrypted() {
    let check = |server_url: &str| {
        let settings =
            Settings { server_url: server_url.to_owned(), ca: "ca".into(), token_file: "token".into() };
        let refused = Client::new(&settings, Clock::system()).unwrap_err();
        assert!(matches!(refused, ClientError::Address(_)), "{server_url}: {refused:?}");
    };
    check("http://mcias.test:8443");
    check("mcias.test");
    check("https://mcias.test/path");
    check("");
}
