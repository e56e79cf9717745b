//! Requests through a router with its middleware, without sockets.

use axum::body::Body;
use axum::routing::{get, post};
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use serde::Deserialize;
use serde_json::Value;
use tower::ServiceExt as _;

use super::*;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Note {
    text: String,
    inner: Option<Inner>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Inner {
    numbers: Vec<u8>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    limit: Option<u32>,
}

fn app() -> (Router, Arc<Metrics>) {
    let router = Router::new()
        .route(
            "/note",
            post(|Json(note): Json<Note>| async move {
                format!("{}{:?}", note.text, note.inner.map(|inner| inner.numbers))
            }),
        )
        .route("/form", post(|Form(page): Form<Page>| async move { format!("{:?}", page.limit) }))
        .route("/page", get(|Query(page): Query<Page>| async move { format!("{:?}", page.limit) }))
        .route("/things/{id}", get(|Path(id): Path<u8>| async move { id.to_string() }))
        .route("/panics", get(|| async { panic!("on purpose") as String }))
        .route("/loud/panics", get(|| async { panic!("on purpose") as String }))
        .route("/loud/thing", post(|Json(_): Json<Note>| async {}));
    let metrics = Arc::new(Metrics::default());
    (middleware(router, limits(), Arc::clone(&metrics), Clock::system(), &[capitals()]), metrics)
}

fn limits() -> Limits {
    let body = BodyLimits { max_bytes: 1000, ..BodyLimits::SMALL };
    Limits { time: Duration::from_secs(10), body, budget: BodyBudget::new(100_000) }
}

/// Errors below this path are in capitals.
fn capitals() -> Dialect {
    Dialect::new("/loud", |problem, _request| {
        Some((problem.status(), problem.detail.to_uppercase()).into_response())
    })
}

async fn ask(request: Request<Body>) -> (StatusCode, HeaderMap, String) {
    let response = app().0.oneshot(request).await.unwrap();
    let (status, headers) = (response.status(), response.headers().clone());
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, headers, String::from_utf8(body.to_vec()).unwrap())
}

fn posted(path: &str, kind: &str, body: &str) -> Request<Body> {
    Request::post(path).header(CONTENT_TYPE, kind).body(Body::from(body.to_owned())).unwrap()
}

#[tokio::test]
async fn what_a_body_must_be() {
    let check = async |kind: &str, body: &str, status: u16, reason: &str, field: &str| {
        let (got, headers, text) = ask(posted("/note", kind, body)).await;
        assert_eq!(got.as_u16(), status, "{body:.60}: {text}");
        if status != 200 {
            assert_eq!(headers[CONTENT_TYPE], "application/problem+json");
            let problem: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(problem["reason"], reason, "{body:.60}: {text}");
            assert_eq!(problem["field"].as_str().unwrap_or(""), field, "{body:.60}: {text}");
        }
    };
    let json = "application/json";
    check(json, r#"{"text":"a"}"#, 200, "", "").await;
    check("application/json; charset=utf-8", r#"{"text":"a","inner":{"numbers":[1,2]}} "#, 200, "", "").await;
    check("application/json; charset=latin1", r#"{"text":"a"}"#, 415, "media-type", "content-type").await;
    check("text/plain", r#"{"text":"a"}"#, 415, "media-type", "content-type").await;
    check("", r#"{"text":"a"}"#, 415, "media-type", "content-type").await;
    check(json, "", 400, "malformed", "").await;
    check(json, r#"["a",null]"#, 400, "malformed", "").await;
    check(json, r#"{"text":"a"} x"#, 400, "malformed", "").await;
    check(json, r#"{"text":"a","#, 400, "malformed", "").await;
    check(json, r#"{"text":7}"#, 400, "invalid-field", "text").await;
    check(json, r#"{"text":"a","inner":{"numbers":[1,256]}}"#, 400, "invalid-field", "inner.numbers[1]")
        .await;
    check(json, r#"{"text":"a","other":1}"#, 400, "invalid-field", "other").await;
    check(json, r#"{"inner":null}"#, 400, "malformed", "").await;
    check(json, r#"{"text":"a","text":"b"}"#, 400, "malformed", "").await;
    check(json, &format!(r#"{{"text":{}"#, "[".repeat(900)), 400, "invalid-field", "text").await;
    check(json, &format!(r#"{{"text":"{}"}}"#, "a".repeat(2000)), 413, "too-large", "").await;
}

#[tokio::test]
async fn what_forms_queries_and_paths_must_be() {
    let check = async |request: Request<Body>, status: u16, expect: &str| {
        let (got, _, text) = ask(request).await;
        assert!(got.as_u16() == status && text.contains(expect), "{got}: {text}");
    };
    let form = |body| posted("/form", "application/x-www-form-urlencoded", body);
    check(form("limit=7"), 200, "Some(7)").await;
    check(form(""), 200, "None").await;
    check(form("limit=x"), 400, r#""field":"limit""#).await;
    check(form("limit=1&limit=2"), 400, "duplicate field").await;
    check(form("other=1"), 400, "unknown field").await;
    check(posted("/form", "application/json", "{}"), 415, "media-type").await;
    let get = |path| Request::get(path).body(Body::empty()).unwrap();
    check(get("/page?limit=7"), 200, "Some(7)").await;
    check(get("/page?limit=-7"), 400, r#""field":"limit""#).await;
    check(get("/things/7"), 200, "7").await;
    check(get("/things/700"), 400, "malformed").await;
    check(get("/things/%ff"), 400, "malformed").await;
    check(get("/nothing"), 404, "not-found").await;
    check(get("/note"), 405, "other methods").await;
}

#[tokio::test]
async fn a_panic_fails_only_its_own_request() {
    let (app, metrics) = app();
    for (path, status) in [("/panics", 500), ("/things/1", 200)] {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = app.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), status, "{path}");
    }
    let call =
        Request::post("/panics2").header(CONTENT_TYPE, "application/grpc").body(Body::empty()).unwrap();
    drop(app.oneshot(call).await.unwrap());
    let mut page = crate::prometheus::Page::default();
    metrics.write(&mut page);
    for line in [
        r#"http_requests_total{route="/panics",method="GET",status="500"} 1"#,
        r#"http_requests_total{route="/things/{id}",method="GET",status="200"} 1"#,
        r#"http_requests_total{route="-",method="POST",status="12"} 1"#,
        "http_request_seconds_count 3",
    ] {
        assert!(page.text.contains(line), "{line}: {}", page.text);
    }
}

#[tokio::test]
async fn errors_are_in_the_dialect_of_their_path() {
    let check = async |request: Request<Body>, status: u16, expect: &str| {
        let (got, headers, text) = ask(request).await;
        assert!(got.as_u16() == status && text.contains(expect), "{got}: {text}");
        headers
    };
    let get = |path| Request::get(path).body(Body::empty()).unwrap();
    check(get("/loud/nothing"), 404, "THERE IS NOTHING").await;
    check(get("/loud/panics"), 500, "THE SERVER FAILED").await;
    let headers = check(get("/loud/thing"), 405, "OTHER METHODS").await;
    assert_eq!(headers["allow"], "POST");
    check(posted("/loud/thing", "text/plain", ""), 415, "APPLICATION/JSON").await;
    let long = format!(r#"{{"text":"{}"}}"#, "a".repeat(2000));
    check(posted("/loud/thing", "application/json", &long), 413, "LARGER").await;
    check(get("/nothing"), 404, r#""reason":"not-found""#).await;
}

#[tokio::test]
async fn a_call_of_grpc_that_panics_gets_a_status() {
    let router = Router::new().route("/panics", post(|| async { panic!("on purpose") as String }));
    let app = middleware(router, limits(), Arc::default(), Clock::system(), &[]);
    let call = Request::post("/panics").header(CONTENT_TYPE, "application/grpc").body(Body::empty()).unwrap();
    let response = app.oneshot(call).await.unwrap();
    assert_eq!(
        (response.status(), &response.headers()["grpc-status"]),
        (StatusCode::OK, &HeaderValue::from_static("13"))
    );
}

#[tokio::test]
async fn the_client_s_request_id_is_kept_beside_ours() {
    let check = async |given: &'static [u8], kept: Option<&str>| {
        let router = Router::new().route(
            "/",
            get(|request: axum::extract::Request| async move {
                let caller = request.extensions().get::<Caller>().unwrap();
                format!("{} {:?}", caller.request_id, caller.external_request_id)
            }),
        );
        let app = middleware(router, limits(), Arc::default(), Clock::system(), &[]);
        let request = Request::get("/").header(REQUEST_ID, HeaderValue::from_bytes(given).unwrap());
        let response = app.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let ours = response.headers()[REQUEST_ID].to_str().unwrap().to_owned();
        assert!(ours.len() == 32 && ours.as_bytes() != given, "{ours}");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(String::from_utf8_lossy(&body), format!("{ours} {kept:?}"));
    };
    check(b"abc-1_2.3", Some("abc-1_2.3")).await;
    check(b"", None).await;
    check(b"with space", None).await;
    check(&[b'a'; 65], None).await;
    check(b"\xff", None).await;
}

#[test]
fn a_token_is_one_of_its_scheme() {
    let check = |values: &[&'static str], expect: Result<Option<&str>, ()>| {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_static(value));
        }
        let read = bearer(&headers).map(|token| token.map(|token| token.expose().to_owned()));
        assert_eq!(read.map_err(drop), expect.map(|token| token.map(str::to_owned)), "{values:?}");
    };
    check(&[], Ok(None));
    check(&["Bearer abc"], Ok(Some("abc")));
    check(&["bearer abc"], Ok(Some("abc")));
    check(&["Basic abc"], Err(()));
    check(&["Bearer"], Err(()));
    check(&["Bearer "], Err(()));
    check(&["Bearer a b"], Err(()));
    check(&["Bearer a", "Bearer a"], Err(()));
}

#[tokio::test(start_paused = true)]
async fn watchers_have_a_number_and_an_end_and_questions_are_answered() {
    let watch = || async {
        Body::from_stream(futures_util::stream::pending::<Result<bytes::Bytes, std::convert::Infallible>>())
    };
    let router = Router::new()
        .route("/grpc.health.v1.Health/Watch", post(watch))
        .route("/grpc.health.v1.Health/Check", post(|| async { "SERVING" }))
        .layer(axum::middleware::from_fn(body::bound_stream));
    let app = middleware(router, limits(), Arc::default(), Clock::system(), &[]);
    let call = async |method: &str, last: u8| {
        let address = SocketAddr::from(([192, 0, 2, last], 1));
        let call = Request::post(format!("/grpc.health.v1.Health/{method}")).extension(Peer(address));
        app.clone().oneshot(call.body(Body::empty()).unwrap()).await.unwrap()
    };
    let mut open = Vec::new();
    for source in 1..=32 {
        for _ in 0..8 {
            open.push(call("Watch", source).await);
        }
        assert_eq!(call("Watch", source).await.status(), 503, "one source has eight");
    }
    assert!(open.iter().all(|response| response.status() == 200));
    assert_eq!(call("Watch", 33).await.status(), 503);
    assert_eq!(call("Check", 33).await.status(), 200);
    // A stream ends, whatever its client does; and makes room.
    let ended = open.pop().unwrap().into_body().collect().await.unwrap();
    assert!(ended.to_bytes().is_empty());
    assert_eq!(call("Watch", 33).await.status(), 200);
}
