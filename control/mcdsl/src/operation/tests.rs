//! Operations by REST and by gRPC through a table, with a service that knows two callers.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use mc_api::mcias::operations::{
    CREATE_ACCOUNT, GET_ACCOUNT, INTROSPECT, LIST_ACCOUNTS, LOGIN, UPDATE_ACCOUNT,
};
use mc_api::mcias::{
    Account as Message, CreateAccountRequest, GetAccountRequest, Introspection, ListAccountsRequest,
    ListAccountsResponse, LoginRequest, LoginResponse, UpdateAccountRequest,
};
use prost::Message as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::json::Fields;
use super::*;
use crate::clock::Clock;
use crate::http::{BodyBudget, BodyLimits, middleware as wrap};
use crate::identity::{Account, Identity, Name, Role};

#[derive(Debug)]
struct Service {
    name: Name,
    /// Whether the token that is good once has been used.
    used: AtomicBool,
}

impl Authority for Service {
    fn service(&self) -> &Name {
        &self.name
    }

    async fn authenticate(
        &self,
        _context: &RequestContext,
        token: &Secret,
    ) -> Result<Arc<Identity>, Problem> {
        let roles = match token.expose() {
            "admin" => vec![Role::Admin],
            "user" => vec![Role::User],
            "once" if !self.used.swap(true, Ordering::Relaxed) => vec![Role::Admin],
            _ => return Err(Problem::unauthenticated("The token is invalid.")),
        };
        Ok(Arc::new(Identity {
            account: Account::Human { name: Name::parse("ada").unwrap(), roles: roles.into_iter().collect() },
            tags: BTreeSet::new(),
            token_id: "7".to_owned(),
            account_id: String::new(),
            audience: Vec::new(),
            service: None,
            authenticated_at: 0,
            expires_at: 0,
        }))
    }

    fn admit(&self, _identity: &Identity) -> Result<(), Problem> {
        Ok(())
    }

    fn is_fresh(&self, _identity: &Identity) -> bool {
        true
    }

    async fn refused(&self, _: &RequestContext, _: &'static str, _: &str, problem: Problem) -> Problem {
        problem
    }
}

fn account(name: &str, revision: i64) -> Message {
    Message { name: name.to_owned(), revision, account_type: "human".to_owned(), ..Message::default() }
}

fn table() -> Routes {
    let body = BodyLimits { max_bytes: 1000, ..BodyLimits::SMALL };
    let limits = Limits { time: Duration::from_secs(5), body, budget: BodyBudget::new(1_000_000) };
    let mut table = RouteTable::new(
        Arc::new(Service { name: Name::parse("test").unwrap(), used: AtomicBool::new(false) }),
        limits,
    );
    table.unary(
        &CREATE_ACCOUNT,
        |r: &CreateAccountRequest| r.name.clone(),
        |_, permit, r: CreateAccountRequest| async move {
            assert_eq!((permit.action(), permit.target()), ("account.create", r.name.as_str()));
            Ok(account(&r.name, 1))
        },
    );
    table.unary(
        &GET_ACCOUNT,
        |r: &GetAccountRequest| r.name.clone(),
        |_, _, r: GetAccountRequest| async move {
            match r.name.as_str() {
                "slow" => std::future::pending().await,
                "panics" => panic!("on purpose"),
                name => Ok(account(name, 7)),
            }
        },
    );
    table.unary(
        &UPDATE_ACCOUNT,
        |r: &UpdateAccountRequest| r.name.clone(),
        |_, _, r: UpdateAccountRequest| async move {
            match r.revision {
                7 => Ok(account(&r.name, 8)),
                _ => Err(Problem::new(Kind::Changed, "changed", "Revision 7 is in force.")),
            }
        },
    );
    table.unary(
        &LIST_ACCOUNTS,
        |_: &ListAccountsRequest| String::new(),
        |_, _, r: ListAccountsRequest| async move {
            let found = format!("{:?} {:?}", r.limit, r.after);
            Ok(ListAccountsResponse { accounts: vec![account(&found, 1)], next: None })
        },
    );
    table.unary(
        &LOGIN,
        |_: &LoginRequest| String::new(),
        |_, _, _: LoginRequest| async move { Ok(LoginResponse::default()) },
    );
    table.unary(
        &INTROSPECT,
        |_: &mc_api::mcias::IntrospectRequest| String::new(),
        |_, _, _| async move { Ok(Introspection::default()) },
    );
    table.finish()
}

fn wrapped(router: Router) -> Router {
    let budget = BodyBudget::new(1_000_000);
    let limits = Limits { time: Duration::from_secs(5), body: BodyLimits::SMALL, budget };
    wrap(router, limits, Arc::default(), Clock::system(), &[])
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Value,
}

async fn send(request: Request<Body>) -> Answer {
    let response = wrapped(table().api).oneshot(request).await.unwrap();
    let (status, headers) = (response.status(), response.headers().clone());
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    Answer { status, headers, body: serde_json::from_slice(&bytes).unwrap_or(Value::Null) }
}

fn request(method: &str, path: &str, body: &str) -> http::request::Builder {
    let request = Request::builder().method(method).uri(path).header("authorization", "Bearer admin");
    if body.is_empty() { request } else { request.header("content-type", "application/json") }
}

async fn ask(method: &str, path: &str, body: &str) -> Answer {
    send(request(method, path, body).body(Body::from(body.to_owned())).unwrap()).await
}

#[tokio::test]
async fn path_query_and_body_are_one_request() {
    let check = async |method: &str, path: &str, body: &str, status: u16, field: &str| {
        let answer = ask(method, path, body).await;
        let given = answer.body["field"].as_str().unwrap_or_default();
        assert_eq!(
            (answer.status.as_u16(), given),
            (status, field),
            "{method} {path} {body}: {}",
            answer.body
        );
    };
    check("GET", "/v1/accounts?limit=7&after=a%20b", "", 200, "").await;
    check("GET", "/v1/accounts?limit=7&limit=8", "", 400, "limit").await;
    check("GET", "/v1/accounts?limit=x", "", 400, "limit").await;
    check("GET", "/v1/accounts?limit=-1", "", 400, "limit").await;
    check("GET", "/v1/accounts?limit=9007199254740992", "", 400, "limit").await;
    check("GET", "/v1/accounts?other=1", "", 400, "other").await;
    check("GET", "/v1/accounts/%ff", "", 400, "").await;
    let settings = r#"{"enabled":true,"revision":7}"#;
    check("PUT", "/v1/accounts/ada", settings, 200, "").await;
    check("PUT", "/v1/accounts/ada", r#"{"enabled":true,"revision":7,"name":"bob"}"#, 400, "name").await;
    check("PUT", "/v1/accounts/ada", r#"{"enabled":true,"enabled":true,"revision":7}"#, 400, "").await;
    check("PUT", "/v1/accounts/ada", r#"{"revision":7}"#, 400, "enabled").await;
    check("PUT", "/v1/accounts/ada", r#"{"enabled":1,"revision":7}"#, 400, "enabled").await;
    check("PUT", "/v1/accounts/ada", r#"{"enabled":true,"revision":7,"roles":["a",7]}"#, 400, "roles[1]")
        .await;
    check("PUT", "/v1/accounts/ada", r#"{"enabled":true,"revision":7,"admin":true}"#, 400, "admin").await;
    check("PUT", "/v1/accounts/ada", r#"{"enabled":true,"revision":9007199254740992}"#, 400, "").await;
    check("PUT", "/v1/accounts/ada", "[true,7]", 400, "").await;
    check("PUT", "/v1/accounts/ada", "{", 400, "").await;
    check("PUT", "/v1/accounts/ada", &format!("{{\"roles\":{}", "[".repeat(900)), 400, "").await;
    check("PUT", "/v1/accounts/ada", &"a".repeat(1001), 413, "").await;
    check("PUT", "/v1/accounts/ada", "", 400, "enabled").await;
    assert_eq!(ask("GET", "/v1/accounts?limit=7", "").await.body["accounts"][0]["name"], "Some(7) None");
}

#[tokio::test]
async fn a_form_is_a_form() {
    let form = |kind: &str, body: &'static str| {
        let request = Request::post("/v1/introspect").header("content-type", kind);
        request.header("authorization", "Bearer admin").body(Body::from(body)).unwrap()
    };
    // A person is not a service: what the body is does not matter then.
    assert_eq!(send(form("application/x-www-form-urlencoded", "token=x")).await.status, 403);
}

#[tokio::test]
async fn an_edit_states_its_revision() {
    let body = r#"{"enabled":true}"#;
    let put = |tag: &'static str, body: &'static str| {
        send(request("PUT", "/v1/accounts/ada", body).header("if-match", tag).body(Body::from(body)).unwrap())
    };
    let done = put("\"7\"", body).await;
    assert_eq!(done.status, StatusCode::OK);
    assert_eq!(done.headers["etag"], "\"8\"");
    assert_eq!(put("\"6\"", body).await.status, StatusCode::PRECONDITION_FAILED);
    assert_eq!(put("\"7\"", r#"{"enabled":true,"revision":7}"#).await.status, StatusCode::OK);
    assert_eq!(put("\"7\"", r#"{"enabled":true,"revision":6}"#).await.body["field"], "revision");
    for tag in ["7", "*", "\"x\"", "W/\"7\"", "\"+7\"", "\"07\""] {
        assert_eq!(put(tag, body).await.body["field"], "if-match", "{tag}");
    }
    let stale = ask("PUT", "/v1/accounts/ada", r#"{"enabled":true,"revision":6}"#).await;
    assert_eq!(stale.status, StatusCode::CONFLICT);
    assert_eq!(ask("GET", "/v1/accounts/ada", "").await.headers["etag"], "\"7\"");
}

#[tokio::test]
async fn a_revision_is_refused_where_none_is_compared() {
    let list = request("GET", "/v1/accounts?limit=7", "").header("if-match", "\"7\"").body(Body::empty());
    assert_eq!(send(list.unwrap()).await.body["field"], "if-match");
}

#[tokio::test]
async fn a_content_type_given_twice_is_refused() {
    let body = r#"{"enabled":true,"revision":7}"#;
    let put = request("PUT", "/v1/accounts/ada", body).header("content-type", "text/plain").body(body.into());
    assert_eq!(send(put.unwrap()).await.body["field"], "content-type");
}

#[test]
fn a_body_does_not_grow_in_memory() {
    let read = |body: &str| Fields::default().add_json(body.as_bytes()).map_err(|problem| problem.detail);
    let objects = |count: usize| format!(r#"{{"a":[{}]}}"#, vec!["{\"\":0}"; count].join(","));
    assert_eq!(read(&objects(20_000)), Ok(()));
    assert!(read(&objects(30_000)).unwrap_err().contains("too many values"));
    let numbers = |count: usize| format!(r#"{{"a":[{}]}}"#, vec!["0"; count].join(","));
    assert_eq!(read(&numbers(400_000)), Ok(()));
    assert!(read(&numbers(500_000)).unwrap_err().contains("too many values"));
}

/// A body that takes its time, after which the token is another one's.
#[tokio::test(start_paused = true)]
async fn the_caller_of_a_slow_body_is_looked_at_again() {
    let message = GetAccountRequest { name: "ada".to_owned() }.encode_to_vec();
    for (pause, status, code) in [(900, 200, "0"), (1100, 401, "16")] {
        let slowly = |bytes: Vec<u8>| {
            let frames = stream::once(async move {
                tokio::time::sleep(Duration::from_millis(pause)).await;
                Ok::<_, Infallible>(Bytes::from(bytes))
            });
            Body::from_stream(frames)
        };
        let body = slowly(br#"{"enabled":true,"revision":7}"#.to_vec());
        let put = request("PUT", "/v1/accounts/ada", "x").header("authorization", "Bearer once");
        let mut put = put.body(body).unwrap();
        put.headers_mut().insert("authorization", http::HeaderValue::from_static("Bearer once"));
        assert_eq!(send(put).await.status.as_u16(), status, "{pause}");
        let get = Request::post(GET_ACCOUNT.grpc_path).header("content-type", "application/grpc");
        let get = get.header("authorization", "Bearer once").body(slowly(framed(&message))).unwrap();
        let answer = wrapped(table().grpc).oneshot(get).await.unwrap();
        let found = answer.headers().get("grpc-status").map_or("0", |code| code.to_str().unwrap()).to_owned();
        assert_eq!(found, code, "{pause}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_takes_no_longer_than_its_client_waits() {
    let message = GetAccountRequest { name: "slow".to_owned() }.encode_to_vec();
    for (timeout, code) in
        [("1S", "4"), ("100m", "4"), ("99999999H", "4"), ("1", "3"), ("S", "3"), ("+1S", "3")]
    {
        let call = Request::post(GET_ACCOUNT.grpc_path).header("content-type", "application/grpc");
        let call = call.header("authorization", "Bearer admin").header("grpc-timeout", timeout);
        let began = Instant::now();
        let answer =
            wrapped(table().grpc).oneshot(call.body(Body::from(framed(&message))).unwrap()).await.unwrap();
        assert_eq!(answer.headers()["grpc-status"], code, "{timeout}");
        // The time is the test's own.
        assert!(timeout != "1S" || began.elapsed() == Duration::from_secs(1), "{:?}", began.elapsed());
    }
}

#[tokio::test]
async fn what_is_no_grpc_is_told_so() {
    for (kind, status) in
        [("application/json", 415), ("application/grpc-web", 415), ("application/grpc+proto", 200)]
    {
        let message = GetAccountRequest { name: "ada".to_owned() }.encode_to_vec();
        let call = Request::post(GET_ACCOUNT.grpc_path).header("content-type", kind);
        let call = call.header("authorization", "Bearer admin").body(Body::from(framed(&message))).unwrap();
        let answer = wrapped(table().grpc).oneshot(call).await.unwrap();
        assert_eq!(answer.status().as_u16(), status, "{kind}");
    }
}

#[tokio::test]
async fn what_is_created_has_a_location() {
    let answer = ask("POST", "/v1/accounts", r#"{"name":"b@c","account_type":"human"}"#).await;
    assert_eq!(answer.status, StatusCode::CREATED);
    assert_eq!(answer.headers["location"], "/v1/accounts/b%40c");
}

/// A body that must not be looked at.
fn unread() -> Body {
    Body::from_stream(stream::poll_fn(|_| -> std::task::Poll<Option<Result<Bytes, Infallible>>> {
        panic!("the body is read before the caller is known")
    }))
}

#[tokio::test]
async fn the_body_of_a_caller_who_is_refused_is_not_read() {
    for (token, status, code) in [("", 401, 16), ("wrong", 401, 16), ("user", 403, 7)] {
        let routes = table();
        let mut rest = Request::post("/v1/accounts").header("content-type", "application/json");
        let mut grpc = Request::post(CREATE_ACCOUNT.grpc_path).header("content-type", "application/grpc");
        if !token.is_empty() {
            rest = rest.header("authorization", format!("Bearer {token}"));
            grpc = grpc.header("authorization", format!("Bearer {token}"));
        }
        // Without the middleware, which reads a little of what nobody reads.
        let caller = Caller {
            address: crate::context::LOCAL,
            request_id: "r".into(),
            external_request_id: None,
            user_agent: None,
        };
        let rest = rest.extension(caller.clone()).body(unread()).unwrap();
        let answer = routes.api.oneshot(rest).await.unwrap();
        assert_eq!(answer.status().as_u16(), status, "{token}");
        let answer = routes.grpc.oneshot(grpc.extension(caller).body(unread()).unwrap()).await.unwrap();
        assert_eq!(answer.headers()["grpc-status"], code.to_string().as_str(), "{token}");
    }
}

fn framed(message: &[u8]) -> Vec<u8> {
    let mut framed = vec![0];
    framed.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    framed.extend(message);
    framed
}

#[tokio::test]
async fn a_call_of_grpc_has_one_message() {
    let message = GetAccountRequest { name: "ada".to_owned() }.encode_to_vec();
    let framed = framed(&message);
    let call = |body: Vec<u8>| {
        let request = Request::post(GET_ACCOUNT.grpc_path).header("content-type", "application/grpc");
        let request = request.header("authorization", "Bearer admin").body(Body::from(body)).unwrap();
        wrapped(table().grpc).oneshot(request)
    };
    let body = call(framed.clone()).await.unwrap().into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
    assert_eq!(Message::decode(&body.to_bytes()[5..]).unwrap(), account("ada", 7));
    let two = [framed.clone(), framed].concat();
    for malformed in [vec![], vec![0, 0, 0, 0, 9, 1], vec![0, 0, 0, 0, 1, 0xff], two] {
        let answer = call(malformed).await.unwrap();
        assert_ne!(answer.headers().get("grpc-status").map(|code| code == "0"), Some(true));
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_takes_too_long_says_what_may_have_happened() {
    let answer = ask("GET", "/v1/accounts/slow", "").await;
    assert_eq!(answer.status, StatusCode::GATEWAY_TIMEOUT);
    assert!(answer.body["detail"].as_str().unwrap().contains("try again"));
    let error = within(Duration::from_secs(1), false, std::future::pending::<Result<(), Problem>>()).await;
    assert!(error.unwrap_err().detail.contains("may have taken effect"));
}

#[tokio::test]
async fn a_panic_fails_only_its_own_request() {
    assert_eq!(ask("GET", "/v1/accounts/panics", "").await.status, StatusCode::INTERNAL_SERVER_ERROR);
}

#[test]
fn the_rest_of_a_path_may_be_a_parameter() {
    assert_eq!(axum_pattern("/v1/a/{name}"), "/v1/a/{name}");
    assert_eq!(axum_pattern("/v1/a/{path*}"), "/v1/a/{*path}");
}

#[test]
fn the_document_describes_every_operation() {
    let document =
        document::openapi(&[&CREATE_ACCOUNT, &UPDATE_ACCOUNT], &[mc_api::mcias::SCHEMAS], &json!({}));
    let create = &document["paths"]["/v1/accounts"]["post"];
    assert_eq!(
        create["requestBody"]["content"]["application/json"]["schema"]["$ref"],
        "#/components/schemas/CreateAccountRequest"
    );
    assert!(create["responses"]["201"]["headers"]["Location"].is_object());
    let update = &document["paths"]["/v1/accounts/{name}"]["put"];
    let body = &update["requestBody"]["content"]["application/json"]["schema"];
    assert!(body["properties"]["enabled"].is_object() && body["properties"]["name"].is_null(), "{body}");
    assert_eq!(update["parameters"][0]["in"], "path");
    assert!(document["components"]["schemas"]["Problem"].is_object());
    assert!(!update["description"].as_str().unwrap().is_empty());
}
