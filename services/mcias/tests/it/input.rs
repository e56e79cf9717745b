//! Invalid input of every kind: each gets a clear problem document, never a server error.

use mc_testkit::mcias::{Answer, Mcias, NAME, PASSWORD};
use serde_json::{Value, json};

const JSON: &str = "application/json";

/// Asserts that the response is a problem document with this status and reason.
fn problem(answer: &Answer, status: u16, reason: &str) {
    let what = format!("{} {:.300}", answer.head, answer.text);
    assert_eq!(answer.status, status, "{what}");
    assert!(answer.head.contains("content-type: application/problem+json\r\n"), "{what}");
    assert_eq!(answer.body["reason"], reason, "{what}");
    assert_eq!(answer.body["status"], status, "{what}");
    assert_eq!(answer.body["type"], format!("urn:metacircular:problem:{reason}"), "{what}");
    for word in ["title", "detail"] {
        assert!(answer.body[word].as_str().is_some_and(|text| !text.is_empty()), "{what}");
    }
    assert!(!answer.text.contains("panicked") && !answer.text.contains(".rs:"), "{what}");
}

#[test]
fn invalid_bodies() {
    let mcias = Mcias::start();
    let check = |kind: &str, body: &[u8], status, reason: &str| {
        problem(&mcias.raw("POST", "/v1/login", "", kind, body), status, reason);
    };
    check(JSON, b"{", 400, "malformed");
    check(JSON, b"[]", 400, "malformed");
    check(JSON, b"[\"ada\",\"x\",null,null,[]]", 400, "malformed");
    check(JSON, b"null", 400, "malformed");
    check(JSON, b"{\"username\":\"ada\",\"password\":\"x\"} x", 400, "malformed");
    check(JSON, b"{\"username\":\"ada\",\"username\":\"bob\",\"password\":\"x\"}", 400, "malformed");
    check(JSON, b"{\"username\":\"ada\"}", 400, "invalid-field");
    check(JSON, b"{\"username\":\"ada\",\"password\":\"x\",\"admin\":true}", 400, "invalid-field");
    check(JSON, b"{\"username\":7,\"password\":\"x\"}", 400, "invalid-field");
    check(JSON, b"{\"username\":\"Ada Lovelace\",\"password\":\"x\"}", 400, "invalid-field");
    check(JSON, b"{\"username\":\"ada\\u0000\",\"password\":\"x\"}", 400, "invalid-field");
    check(JSON, b"{\"username\":\"\xff\",\"password\":\"x\"}", 400, "malformed");
    check(JSON, b"{\"username\":\"ada\",\"password\":\"x\",\"audience\":[\"A\"]}", 400, "invalid-field");
    check(JSON, format!("{{\"audience\":{}", "[".repeat(10_000)).as_bytes(), 400, "malformed");
    check(JSON, "{\"username\":".repeat(5_000).as_bytes(), 400, "malformed");
    // Requests without a token have a small limit; the others have the configured one.
    check(JSON, format!("{{\"username\":\"{}\"", "a".repeat(66_000)).as_bytes(), 413, "too-large");
    let admin = mcias.login("ada");
    for (size, status) in [(900_000, 400), (1_100_000, 413)] {
        let body = json!({ "name": "a".repeat(size), "account_type": "human" });
        let answer = mcias.ask("POST", "/v1/accounts", &admin, &body);
        assert_eq!(answer.status, status, "{size}");
        assert!(answer.text.len() < 500, "a value that is too long is not repeated");
    }
    check("text/plain", b"{}", 415, "media-type");
    check("application/json; charset=utf-16", b"{}", 415, "media-type");
    check("application/x-www-form-urlencoded", b"username=ada", 415, "media-type");
    // No body is an empty one: what is wrong is that a field is missing.
    problem(&mcias.ask("POST", "/v1/login", "", &Value::Null), 400, "invalid-field");
    assert!(!mcias.log().contains("panicked"), "{}", mcias.log());
}

#[test]
fn invalid_tokens() {
    let mcias = Mcias::start();
    let other = Mcias::start();
    let (admin, foreign) = (mcias.login("ada"), other.login("ada"));
    let parts: Vec<&str> = admin.split('.').collect();
    let none = data_encoding::BASE64URL_NOPAD.encode(b"{\"alg\":\"none\",\"typ\":\"at+jwt\"}");
    let bad = [
        foreign,
        format!("{}.{}.", parts[0], parts[1]),
        format!("{none}.{}.", parts[1]),
        format!("{}.{}.{}", parts[0], parts[1], parts[2].chars().rev().collect::<String>()),
        format!("{admin}."),
        "x".to_owned(),
        "a.b.c".to_owned(),
        "x".repeat(20_000),
    ];
    for token in &bad {
        problem(&mcias.ask("GET", "/v1/me", token, &Value::Null), 401, "unauthenticated");
    }
    problem(&mcias.ask("GET", "/v1/me", "", &Value::Null), 401, "unauthenticated");
    for fields in [
        "authorization: Basic YWRhOng=\r\n".to_owned(),
        "authorization: Bearer\r\n".to_owned(),
        format!("authorization: Bearer {admin} {admin}\r\n"),
        format!("authorization: Bearer {admin}\r\nauthorization: Bearer {admin}\r\n"),
    ] {
        let answer = mcias.raw_with("GET", "/v1/me", &fields, "", b"");
        problem(&answer, 401, "unauthenticated");
        assert!(answer.head.contains("www-authenticate: Bearer\r\n"), "{}", answer.head);
    }
    // Introspection needs a system account, and a form as in RFC 7662.
    let service = mcias.service(&admin, "mcr", &[]);
    problem(&mcias.introspect("", &admin), 401, "unauthenticated");
    problem(&mcias.introspect(&admin, &admin), 403, "forbidden");
    let form = "application/x-www-form-urlencoded";
    let ask = |kind: &str, body: &str| mcias.raw("POST", "/v1/introspect", &service, kind, body.as_bytes());
    problem(&ask(form, "x=1"), 400, "invalid-field");
    problem(&ask(form, "token_type_hint=access_token"), 400, "invalid-field");
    problem(&ask(form, &format!("token={admin}&token={admin}")), 400, "invalid-field");
    problem(&ask(JSON, "{\"token\":\"x\"}"), 415, "media-type");
    for token in &bad {
        let told = mcias.introspect(&service, token);
        assert_eq!((told.status, &told.body["active"]), (200, &json!(false)), "{}", told.text);
    }
    // A system account has no admin's or person's operations.
    problem(&mcias.ask("GET", "/v1/accounts", &service, &Value::Null), 403, "forbidden");
    problem(&mcias.ask("GET", "/v1/me/sessions", &service, &Value::Null), 403, "forbidden");
}

#[test]
fn invalid_paths_methods_and_queries() {
    let mcias = Mcias::start();
    let admin = mcias.login("ada");
    let check = |method: &str, path: &str, status, reason: &str| {
        problem(&mcias.ask(method, path, &admin, &Value::Null), status, reason);
    };
    check("GET", "/v2/login", 404, "not-found");
    check("GET", "/v1/accounts/nobody", 404, "not-found");
    check("GET", "/v1/accounts/a%2fb", 404, "not-found");
    check("GET", "/v1/accounts/%00", 404, "not-found");
    check("GET", "/v1/accounts/%ff", 400, "malformed");
    check("GET", &format!("/v1/accounts/{}", "a".repeat(8000)), 404, "not-found");
    check("GET", "/v1/accounts?limit=0", 400, "invalid-field");
    check("GET", "/v1/accounts?limit=1001", 400, "invalid-field");
    check("GET", "/v1/accounts?limit=x", 400, "invalid-field");
    check("GET", "/v1/accounts?limit=1&limit=2", 400, "invalid-field");
    check("GET", "/v1/accounts?account_type=robot", 400, "invalid-field");
    check("GET", "/v1/accounts?other=1", 400, "invalid-field");
    check("GET", "/v1/audit?before=99999999999999999999", 400, "invalid-field");
    check("GET", "/v1/login", 405, "method");
    check("PATCH", "/v1/accounts/ada", 405, "method");
    let head = mcias.ask("GET", "/v1/login", "", &Value::Null).head;
    assert!(head.contains("allow: POST\r\n"), "{head}");
    // A head that is too long is refused before it becomes a request.
    let long = mcias.raw_with("GET", "/v1/me", &format!("x: {}\r\n", "a".repeat(40_000)), "", b"");
    assert_eq!(long.status, 431, "{}", long.head);
    let chunked = "POST /v1/login HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
    let body = json!({ "username": "ada", "password": PASSWORD }).to_string();
    let answer = mcias.connect().ask(format!("{chunked}{:x}\r\n{body}\r\n0\r\n\r\n", body.len()));
    assert_eq!(answer.status(), 200, "{}", answer.head);
}

#[test]
fn stalled_clients_do_not_delay_others() {
    let mcias = Mcias::start();
    let mut stalled = Vec::new();
    for _ in 0..200 {
        let mut client = mcias.connect();
        client.send(format!("POST /v1/login HTTP/1.1\r\nhost: {NAME}\r\ncontent-length: 100\r\n"));
        stalled.push(client);
    }
    let silent: Vec<_> = (0..100).map(|_| std::net::TcpStream::connect(mcias.rest).unwrap()).collect();
    let admin = mcias.login("ada");
    assert_eq!(mcias.ask("GET", "/v1/me", &admin, &Value::Null).status, 200);
    drop((stalled, silent));
}
