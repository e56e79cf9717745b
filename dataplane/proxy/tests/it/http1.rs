//! Routes that terminate TLS and speak HTTP/1.1: what passes, what is refused, and what each side sees of the other.
//!
//! Everything is asked over sockets, byte by byte, so that these promises outlive the code that keeps them.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;

use mc_testkit::ca::Ca;
use mc_testkit::client::Request;
use mc_testkit::flow::{Sum, drink, pour};
use mc_testkit::http::{Client, Origin, Response, Then, TlsEnd, values};
use mc_testkit::proxy::{Config, Proxy};
use mc_testkit::{clock, fresh_address, fresh_ip, heavy};
use serde_json::Value;

pub(crate) const NAME: &str = "www.example.org";
const L7: &str = "mode = \"l7\"";
pub(crate) const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A proxy that terminates TLS for one name.
pub(crate) struct Site {
    ca: Ca,
    pub(crate) proxy: Proxy,
}

/// A site with these backends, and one worker: backend connections are kept by each worker for itself.
pub(crate) fn site(to: &[SocketAddr]) -> Site {
    site_with(to, "")
}

pub(crate) fn site_with(to: &[SocketAddr], lines: &str) -> Site {
    let config = Config::new().server("workers = 1");
    let config = config.listener("web").route_with(NAME, to, &format!("{L7}\n{lines}"));
    let ca = Ca::new();
    let config = config.certificate("www", &ca.issue(&[NAME]));
    Site { proxy: Proxy::start(config), ca }
}

impl Site {
    fn request(&self) -> Request<'_> {
        Request::new(&self.ca, self.proxy.web(), NAME).alpn(&["http/1.1"])
    }

    pub(crate) fn client(&self) -> Client {
        let opened = self.request().open();
        Client::on(opened.unwrap_or_else(|error| panic!("{error}; mc-proxy said: {}", self.proxy.errors())))
    }

    /// The log's lines of requests, once there are so many.
    fn wait_requests(&self, count: usize) -> Vec<Value> {
        let of_requests = |line: &Value| !line["request"].is_null();
        clock::wait_for(&format!("{count} requests in the log"), clock::PATIENCE, || {
            let lines: Vec<Value> = self.proxy.log().into_iter().filter(of_requests).collect();
            (lines.len() >= count).then_some(lines)
        })
    }

    /// Waits for the line of a request that ended so.
    pub(crate) fn wait_request(&self, outcome: &str) -> Value {
        self.proxy.wait_log(outcome, |line| !line["request"].is_null() && line["outcome"] == outcome)
    }
}

pub(crate) fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: {NAME}\r\n\r\n")
}

pub(crate) fn post(fields: &str, body: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: {NAME}\r\n{fields}\r\n{body}")
}

/// A backend that answers each target with these bytes, and closes where the flag says so.
pub(crate) fn by_target(answers: &'static [(&'static str, &'static str, Then)]) -> Origin {
    Origin::start(move |exchange| {
        exchange.body()?;
        let found = answers.iter().find(|(target, ..)| *target == exchange.target());
        let (_, answer, then) = found.expect("the test asks for what there is");
        exchange.say(answer)?;
        Ok(*then)
    })
}

#[test]
fn request_bodies_pass_as_they_are_framed() {
    let origin = Origin::start(|exchange| {
        let raw = exchange.body()?;
        exchange.say(&format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", raw.len()))?;
        exchange.stream.write_all(&raw)?;
        Ok(Then::Keep)
    });
    let site = site(&[origin.address()]);
    let mut client = site.client();
    let chunked = "4;x=\"y;z\"\r\nWiki\r\nA\r\npedia\r\n\0\r\n\r\n0;last\r\nX-Sum: 1\r\nX-Other: 2\r\n\r\n";
    for (request, body) in [
        (get("/"), ""),
        (post("Content-Length: 5\r\n", "hello"), "hello"),
        (post("Content-Length: 0\r\n", ""), ""),
        (post("", ""), ""),
        (post("Transfer-Encoding: chunked\r\n", chunked), chunked),
        (post("Transfer-Encoding: Chunked\r\n", "0\r\n\r\n"), "0\r\n\r\n"),
        (get("/after"), ""),
    ] {
        let response = client.ask(&request);
        assert_eq!((response.status(), response.text().as_str()), (200, body), "{request:?}");
    }
    // One after the other on one connection.
    assert_eq!(origin.accepted(), 1);
}

#[test]
fn bodies_may_come_in_pieces_of_any_size() {
    let origin = Origin::start(|exchange| {
        let raw = exchange.body()?;
        exchange.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        let chunk = format!("{:x}\r\n{}\r\n0\r\n\r\n", raw.len(), String::from_utf8_lossy(&raw));
        for byte in chunk.bytes() {
            exchange.stream.write_all(&[byte])?;
        }
        Ok(Then::Keep)
    });
    let site = site(&[origin.address()]);
    let mut client = site.client();
    for request in [
        post("Content-Length: 30\r\n", "012345678901234567890123456789"),
        post("Transfer-Encoding: chunked\r\n", "5;a\r\n01234\r\n3\r\n567\r\n0\r\nX: y\r\n\r\n"),
    ] {
        for byte in request.bytes() {
            client.send([byte]);
        }
        let body = request.split_once("\r\n\r\n").unwrap().1;
        assert_eq!(client.response(false).text(), body);
    }
}

#[test]
fn responses_keep_their_framing() {
    const CHUNKED: &str = "4;x=y\r\nWiki\r\n5\r\npedia\r\n0\r\nX-Sum: 1\r\n\r\n";
    let origin = by_target(&[
        ("/length", "HTTP/1.1 200 Fine\r\nContent-Length: 5\r\nETag: \"a\"\r\n\r\nhello", Then::Keep),
        ("/empty", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Then::Keep),
        (
            "/chunked",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
             4;x=y\r\nWiki\r\n5\r\npedia\r\n0\r\nX-Sum: 1\r\n\r\n",
            Then::Keep,
        ),
        ("/204", "HTTP/1.1 204 No Content\r\n\r\n", Then::Keep),
        ("/304", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nETag: \"a\"\r\n\r\n", Then::Keep),
        ("/head", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", Then::Keep),
        ("/head-chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Then::Keep),
        ("/close", "HTTP/1.1 200 OK\r\n\r\nuntil the end", Then::Close),
        ("/old", "HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nold", Then::Close),
        ("/closing", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", Then::Close),
    ]);
    let site = site(&[origin.address()]);
    // Method, target, status, body as it comes, and whether the client's connection stays open.
    for (method, target, status, raw, stays) in [
        ("GET", "/length", 200, "hello", true),
        ("GET", "/empty", 200, "", true),
        ("GET", "/chunked", 200, CHUNKED, true),
        ("GET", "/204", 204, "", true),
        ("GET", "/304", 304, "", true),
        ("HEAD", "/head", 200, "", true),
        ("HEAD", "/head-chunked", 200, "", true),
        ("GET", "/close", 200, "until the end", false),
        ("GET", "/old", 200, "old", true),
        ("GET", "/closing", 200, "ok", true),
    ] {
        let mut client = site.client();
        let response = client.ask(format!("{method} {target} HTTP/1.1\r\nHost: {NAME}\r\n\r\n"));
        let got = String::from_utf8_lossy(&response.raw).into_owned();
        assert_eq!((response.status(), got.as_str()), (status, raw), "{target}");
        assert!(response.head.starts_with("HTTP/1.1 "), "{target}: {}", response.head);
        match target {
            "/length" => {
                assert!(response.head.starts_with("HTTP/1.1 200 Fine\r\n"), "{}", response.head);
                assert_eq!(response.values("etag"), ["\"a\""]);
            }
            // What the body would have been, and is not.
            "/304" | "/head" => assert_eq!(response.values("content-length"), ["5"], "{target}"),
            _ => {}
        }
        if stays {
            assert_eq!(client.ask(get("/204")).status(), 204, "{target}");
        } else {
            assert_eq!(response.values("connection"), ["close"], "{target}");
            assert_eq!(client.read_to_end(), (Vec::new(), TlsEnd::Clean), "{target}");
        }
    }
}

#[test]
fn clients_of_http_1_0_get_what_they_can_read() {
    let origin = by_target(&[
        (
            "/chunked",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nWiki\r\n5\r\npedia\r\n0\r\n\r\n",
            Then::Keep,
        ),
        (
            "/hints",
            "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            Then::Keep,
        ),
        ("/length", OK, Then::Keep),
    ]);
    let site = site(&[origin.address()]);
    let ask = |client: &mut Client, target: &str, fields: &str| {
        client.ask(format!("GET {target} HTTP/1.0\r\n{fields}\r\n"))
    };
    let host = format!("Host: {NAME}\r\n");
    let keep = format!("{host}Connection: keep-alive\r\n");
    // Chunks are for those who know them: content alone, and then the end, whatever the client would have liked.
    for fields in [&host, &keep] {
        let mut client = site.client();
        let response = ask(&mut client, "/chunked", fields);
        assert_eq!((response.text().as_str(), response.values("transfer-encoding").len()), ("Wikipedia", 0));
        assert_eq!(response.values("connection"), ["close"]);
        assert_eq!(client.read_to_end(), (Vec::new(), TlsEnd::Clean));
    }
    // No 1xx either.
    let mut client = site.client();
    assert_eq!(ask(&mut client, "/hints", &keep).status(), 200);
    // Kept where the client asks for it, and told so.
    let response = ask(&mut client, "/length", &keep);
    assert_eq!((response.text().as_str(), response.values("connection")), ("ok", vec!["keep-alive"]));
    // Without Host: TLS has said for whom it is.
    let response = ask(&mut client, "/length", "");
    assert_eq!((response.text().as_str(), response.values("connection")), ("ok", vec!["close"]));
    assert_eq!(client.read_to_end(), (Vec::new(), TlsEnd::Clean));
    let text = origin.text();
    let last = &text[text.rfind("GET ").unwrap()..];
    assert_eq!(values(last, "host"), [NAME], "{last}");
    assert!(last.starts_with("GET /length HTTP/1.1\r\n"), "{last}");
}

#[test]
fn interim_responses_are_passed_on() {
    let origin = Origin::start(|exchange| {
        if exchange.values("expect") == ["100-continue"] {
            exchange.say("HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let body = String::from_utf8_lossy(&exchange.body()?).into_owned();
        exchange.say("HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n")?;
        exchange.say("HTTP/1.1 103 Early Hints\r\nLink: </script.js>\r\n\r\n")?;
        exchange.say(&format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
    });
    let site = site(&[origin.address()]);
    let mut client = site.client();
    client.send(post("Content-Length: 5\r\nExpect: 100-continue\r\n", ""));
    // The backend waits for the body, and the client for the backend.
    assert_eq!(client.response(false).status(), 100);
    client.send("hello");
    for link in ["</style.css>", "</script.js>"] {
        let hints = client.response(false);
        assert_eq!((hints.status(), hints.values("link")), (103, vec![link]));
    }
    let response = client.response(false);
    assert_eq!((response.status(), response.text().as_str()), (200, "hello"));
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let origin = Origin::echoing();
    let site = site(&[origin.address()]);
    let mut client = site.client();
    let requests: String = (0..50)
        .map(|number| match number % 2 {
            0 => get(&format!("/{number}")),
            // A body that would be taken for a request, were it not read to its end.
            _ => post(&format!("Content-Length: {}\r\n", get("/smuggled").len()), &get("/smuggled"))
                .replace("POST / ", &format!("POST /{number} ")),
        })
        .collect();
    client.send(&requests);
    for number in 0..50 {
        assert_eq!(client.response(false).text(), format!("/{number}"));
    }
    assert_eq!(origin.accepted(), 1);
}

#[test]
fn connections_are_kept_on_both_sides() {
    let origin = Origin::echoing();
    let site = site(&[origin.address()]);
    for _ in 0..3 {
        let mut client = site.client();
        for number in 0..5 {
            assert_eq!(client.ask(get(&format!("/{number}"))).text(), format!("/{number}"));
        }
    }
    assert_eq!(origin.accepted(), 1, "fifteen requests of three clients share a connection");
}

#[test]
fn a_client_that_asks_for_the_end_gets_it() {
    let origin = Origin::echoing();
    let site = site(&[origin.address()]);
    let mut client = site.client();
    let response = client.ask(format!("GET /1 HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n"));
    assert_eq!((response.text().as_str(), response.values("connection")), ("/1", vec!["close"]));
    assert_eq!(client.read_to_end(), (Vec::new(), TlsEnd::Clean));
    // One that has said all it has to say still hears the answers, and then the end: TCP stays open meanwhile.
    let mut client = site.client();
    client.send(get("/1") + &get("/2")).finish();
    assert_eq!((client.response(false).text(), client.response(false).text()), ("/1".into(), "/2".into()));
    assert_eq!(client.read_to_end(), (Vec::new(), TlsEnd::Clean));
    assert_eq!(origin.accepted(), 1);
}

#[test]
fn backends_learn_who_asks_and_nothing_of_the_client_s_connection() {
    let origin = Origin::saying(OK, Then::Keep);
    let site = site(&[origin.address()]);
    let from = fresh_ip();
    let mut client = Client::on(site.request().from(from).open().unwrap());
    client.ask(
        "GET /a?b=c&d HTTP/1.1\r\nHost: WWW.example.org\r\nUser-Agent: test/1\r\nCookie: a=b\r\nCookie: c=d\r\n\
         X-Forwarded-For: 192.0.2.1\r\nx-forwarded-for: 192.0.2.2\r\nX-Forwarded-Proto: http\r\n\
         X-Forwarded-Host: evil.example\r\nForwarded: for=192.0.2.3\r\nX-Real-IP: 192.0.2.4\r\nX_Real_IP: 192.0.2.5\r\n\
         True-Client-IP: 192.0.2.6\r\nX-Original-URL: /admin\r\nRemote-User: root\r\nREMOTE_USER: root\r\nProxy: evil:1\r\n\
         Connection: keep-alive, X-Private , x-other\r\nX-Private: 1\r\nX-Other: 2\r\nKeep-Alive: timeout=5\r\n\
         Proxy-Connection: keep-alive\r\nTE: trailers\r\nUpgrade: websocket\r\nX-Kept: \t spaces  inside \t\r\n\r\n",
    );
    let head = origin.text();
    assert!(head.starts_with("GET /a?b=c&d HTTP/1.1\r\n"), "{head}");
    let forwarded = format!("for={from};proto=https;host=\"WWW.example.org\"");
    let from = from.to_string();
    for (name, expected) in [
        ("host", &["WWW.example.org"] as &[&str]),
        ("user-agent", &["test/1"]),
        ("cookie", &["a=b", "c=d"]),
        ("x-kept", &["spaces  inside"]),
        ("x-forwarded-for", &[&from]),
        ("x-forwarded-proto", &["https"]),
        ("x-forwarded-host", &["WWW.example.org"]),
        ("forwarded", &[&forwarded]),
        ("x-real-ip", &[&from]),
        ("x_real_ip", &[]),
        ("true-client-ip", &[]),
        ("x-original-url", &[]),
        ("remote-user", &[]),
        ("remote_user", &[]),
        ("proxy", &[]),
        ("connection", &[]),
        ("keep-alive", &[]),
        ("proxy-connection", &[]),
        ("te", &[]),
        ("upgrade", &[]),
        ("x-private", &[]),
        ("x-other", &[]),
        ("content-length", &[]),
        ("transfer-encoding", &[]),
    ] {
        assert_eq!(values(&head, name), expected, "{name} in {head}");
    }
}

#[test]
fn clients_learn_nothing_of_the_backend_s_connection() {
    let origin = Origin::saying(
        "HTTP/1.1 200 OK\r\nConnection: X-Hop, keep-alive\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n\
         Set-Cookie: a=b\r\nSet-Cookie: c=d\r\nContent-Length: 2\r\n\r\nok",
        Then::Keep,
    );
    let site = site(&[origin.address()]);
    let response = site.client().ask(get("/"));
    for (name, expected) in [
        ("connection", &[] as &[&str]),
        ("x-hop", &[]),
        ("keep-alive", &[]),
        ("set-cookie", &["a=b", "c=d"]),
        ("content-length", &["2"]),
    ] {
        assert_eq!(response.values(name), expected, "{name} in {}", response.head);
    }
}

#[test]
fn each_request_has_an_id_that_backend_and_log_share() {
    let origin = Origin::saying(OK, Then::Keep);
    let site = site(&[origin.address()]);
    let mut client = site.client();
    let with = |id: &str| format!("GET / HTTP/1.1\r\nHost: {NAME}\r\nX-Request-Id: {id}\r\n\r\n");
    let long = "a".repeat(129);
    let asked = [get("/"), with("theirs-1"), get("/"), with("two words"), with(&long)];
    for request in &asked {
        client.ask(request);
    }
    let logged: Vec<Value> =
        site.wait_requests(asked.len()).into_iter().map(|line| line["request"].clone()).collect();
    let text = origin.text();
    let heads = text.split_terminator("\r\n\r\n");
    let seen: Vec<Value> = heads.flat_map(|head| values(head, "x-request-id")).map(Value::from).collect();
    assert_eq!(seen, logged);
    assert_eq!(seen[1], "theirs-1");
    let mut ids: Vec<&str> = seen.iter().map(|id| id.as_str().unwrap()).collect();
    // What is no id is not passed on, and what is made is made once.
    assert!(!ids.contains(&"two words") && !ids.contains(&long.as_str()) && !ids.contains(&""), "{ids:?}");
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), asked.len());
}

/// Requests that two readers could read in two ways, or that nobody should read: what the client is told.
fn corpus() -> Vec<(String, u16)> {
    let line = |line: &str| format!("{line}\r\nHost: {NAME}\r\n\r\n");
    let field = |field: &str| format!("POST /bad HTTP/1.1\r\nHost: {NAME}\r\n{field}\r\n\r\n");
    let chunks = |body: &str| field("Transfer-Encoding: chunked") + body;
    let mut cases = vec![
        // Two lengths.
        (field("Content-Length: 4\r\nTransfer-Encoding: chunked") + "0\r\n\r\n", 400),
        (field("Transfer-Encoding: chunked\r\nContent-Length: 4") + "0\r\n\r\n", 400),
        (field("Content-Length: 0\r\nContent-Length: 44"), 400),
        (field("Content-Length: 4\r\nContent-Length: 4") + "abcd", 400),
        (field("Content-Length: 4, 4") + "abcd", 400),
        // Lengths that are none.
        (field("Content-Length: +4") + "abcd", 400),
        (field("Content-Length: -1"), 400),
        (field("Content-Length: 0x4") + "abcd", 400),
        (field("Content-Length: 4 4") + "abcd", 400),
        (field("Content-Length:"), 400),
        (field("Content-Length: \"4\"") + "abcd", 400),
        (field("Content-Length: 18446744073709551620") + "abcd", 400),
        // Transfer codings that some take for chunked and some do not.
        (field("Transfer-Encoding: xchunked"), 501),
        (field("Transfer-Encoding: chunked, chunked"), 501),
        (field("Transfer-Encoding: gzip, chunked"), 501),
        (field("Transfer-Encoding: chunked, identity"), 501),
        (field("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"), 501),
        (field("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity"), 501),
        (field("Transfer-Encoding: chunked;q=1"), 501),
        (field("Transfer-Encoding: chunked x"), 501),
        (field("Transfer-Encoding: 'chunked'"), 501),
        (field("Transfer-Encoding:"), 501),
        (field("Transfer-Encoding: \u{b}chunked"), 400),
        (field("Transfer-Encoding: chunked\u{c}"), 400),
        (field("Transfer-Encoding: chunked\0"), 400),
        (field("Transfer-Encoding:\r\n chunked"), 400),
        (field("X: y\r\n Transfer-Encoding: chunked"), 400),
        (field("X: y\rTransfer-Encoding: chunked"), 400),
        (field("Transfer-Encoding : chunked"), 400),
        (field("Transfer-Encoding\t: chunked"), 400),
        (format!("POST /bad HTTP/1.0\r\nHost: {NAME}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 400),
        // Fields for this connection alone that are not.
        (field("Connection: Content-Length\r\nContent-Length: 4") + "abcd", 400),
        (field("Connection: close, Transfer-Encoding\r\nTransfer-Encoding: chunked") + "0\r\n\r\n", 400),
        (field("Connection: Host"), 400),
        // Lines.
        (format!("GET /bad HTTP/1.1\nHost: {NAME}\n\n"), 400),
        (format!("GET /bad HTTP/1.1\r\nHost: {NAME}\n\r\n"), 400),
        (format!("GET /bad HTTP/1.1\r\nHost: {NAME}\r\n\n"), 400),
        (format!("GET /bad HTTP/1.1\rHost: {NAME}\r\r"), 400),
        (format!("\r\n\r\nGET /bad HTTP/1.1\r\nHost: {NAME}\r\n\r\n"), 400),
        (field("X: a\r\n b"), 400),
        (field("X: a\r\n\tb"), 400),
        (field("X : a"), 400),
        (field(": a"), 400),
        (field("X"), 400),
        (field("X: a\0b"), 400),
        (field("X\0: a"), 400),
        (field("X: a\u{7f}b"), 400),
        (field("X\u{e9}: a"), 400),
        // Hosts.
        (format!("GET /bad HTTP/1.1\r\nHost: {NAME}\r\nHost: {NAME}\r\n\r\n"), 400),
        (format!("GET /bad HTTP/1.1\r\nHost: {NAME}\r\nhost: evil.example\r\n\r\n"), 400),
        ("GET /bad HTTP/1.1\r\n\r\n".into(), 400),
        ("GET /bad HTTP/1.1\r\nHost:\r\n\r\n".into(), 400),
        (format!("GET /bad HTTP/1.1\r\nHost: {NAME}, evil.example\r\n\r\n"), 400),
        (format!("GET /bad HTTP/1.1\r\nHost: {NAME}/x\r\n\r\n"), 400),
        (format!("GET /bad HTTP/1.1\r\nHost: evil.example@{NAME}\r\n\r\n"), 400),
        (format!("GET /bad HTTP/1.1\r\nHost: {NAME}:x\r\n\r\n"), 400),
        (format!("GET /bad HTTP/1.1\r\n Host: {NAME}\r\n\r\n"), 400),
        ("GET /bad HTTP/1.1\r\nHost: evil.example\r\n\r\n".into(), 421),
        ("GET /bad HTTP/1.0\r\nHost: evil.example\r\n\r\n".into(), 421),
        ("GET https://evil.example/bad HTTP/1.1\r\nHost: evil.example\r\n\r\n".into(), 421),
        (line("GET https://evil.example/bad HTTP/1.1"), 400),
        (line(&format!("GET https://{NAME}:444/bad HTTP/1.1")), 400),
        (line(&format!("GET https://evil@{NAME}/bad HTTP/1.1")), 400),
        // Request lines.
        (line("GET  /bad HTTP/1.1"), 400),
        (line("GET /bad  HTTP/1.1"), 400),
        (line("GET /bad HTTP/1.1 "), 400),
        (line(" GET /bad HTTP/1.1"), 400),
        (line("GET\t/bad\tHTTP/1.1"), 400),
        (line("GET /bad /worse HTTP/1.1"), 400),
        (line("GET /bad"), 400),
        (line("GET /bad#x HTTP/1.1"), 400),
        (line("GET /bad\0 HTTP/1.1"), 400),
        (line("GET bad HTTP/1.1"), 400),
        (line("GET * HTTP/1.1"), 400),
        (line("G@T /bad HTTP/1.1"), 400),
        (line(&format!("CONNECT {NAME}:443 HTTP/1.1")), 400),
        (line("GET /bad HTTP/2.0"), 505),
        (line("GET /bad HTTP/1.2"), 505),
        (line("GET /bad HTTP/0.9"), 505),
        (line("GET /bad http/1.1"), 400),
        (line("GET /bad HTTP/1.1x"), 400),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(), 505),
        // Sizes.
        (line(&format!("GET /bad{} HTTP/1.1", "d".repeat(20_000))), 414),
        (field(&format!("X: {}", "y".repeat(40_000))), 431),
        (field(&"X: y\r\n".repeat(120)), 431),
    ];
    // Chunks.
    for body in [
        "",
        "x\r\n",
        "-1\r\n",
        "0x1\r\na\r\n",
        " 1\r\na\r\n",
        "+1\r\na\r\n",
        "1\na\r\n",
        "1\r\na\n",
        "1\r\nab\r\n",
        "3\r\nabcd\r\n",
        "1;a\nb\r\na\r\n",
        "1;\0\r\na\r\n",
        "1 0\r\na\r\n",
        "1\ta\r\na\r\n",
        "1\r\r\na\r\n",
        "ffffffffffffffff1\r\n",
        "10000000000000001\r\na\r\n",
        "0\r\nX: 1\n\r\n",
        "0\r\n folded\r\n\r\n",
        "0\r\nX : 1\r\n\r\n",
        "0\r\nContent-Length: 4\r\n\r\n",
        "0\r\nTransfer-Encoding: chunked\r\n\r\n",
        "0\r\nHost: evil.example\r\n\r\n",
        "0\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n",
    ] {
        // What comes next is no chunk either: the empty one is the request itself.
        cases.push((chunks(&format!("5\r\nhello\r\n{body}")), 400));
        cases.push((chunks(body), 400));
    }
    cases
}

#[test]
fn what_could_be_read_in_two_ways_is_refused_and_never_reaches_a_backend() {
    let origin = Origin::saying(OK, Then::Keep);
    let site = site(&[origin.address()]);
    let cases = corpus();
    for (request, status) in &cases {
        let mut client = site.client();
        assert_eq!(client.ask(get("/good")).status(), 200);
        // Behind it what an attacker would like to be taken for a request.
        client.send(request.clone() + &get("/smuggled"));
        let (answer, end) = client.read_to_end();
        let answer = String::from_utf8_lossy(&answer);
        let shown: String = request.chars().take(200).collect();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{shown:?} got {answer:?}, {end:?}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{shown:?} got {answer:?}");
        assert_eq!(end, TlsEnd::Clean, "{shown:?}");
    }
    for line in site.wait_requests(2 * cases.len()) {
        let good = line["target"] == "/good";
        assert_eq!(line["outcome"] == "completed", good, "{line}");
    }
    // Nothing is on its way any more.
    drop(site);
    origin.wait_left_alone();
    let text = origin.text();
    let heads: Vec<&str> = text.split_terminator("\r\n\r\n").collect();
    assert!(heads.iter().all(|head| head.starts_with("GET /good HTTP/1.1\r\n")), "{text}");
    assert_eq!(heads.len(), cases.len());
}

#[test]
fn a_body_that_turns_out_malformed_ends_both_connections() {
    let origin = Origin::start(|exchange| {
        let answers = exchange.target() == "/answered";
        if answers {
            exchange.say("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhello")?;
        }
        exchange.body()?;
        exchange.say(OK)
    });
    let site = site(&[origin.address()]);
    let open = |target: &str| {
        let mut client = site.client();
        let head = post("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n");
        client.send(head.replace("POST / ", &format!("POST {target} ")));
        client
    };
    // Before the answer: there is one, and it is ours.
    let mut client = open("/unanswered");
    clock::wait_until("the first chunk to arrive", || origin.text().ends_with("5\r\nhello\r\n"));
    client.send("5\r\nhello, and more\r\n0\r\n\r\n".to_owned() + &get("/smuggled"));
    let (answer, end) = client.read_to_end();
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert_eq!((answer.matches("HTTP/1.1").count(), end), (1, TlsEnd::Clean), "{answer}");
    // Amid the answer: nothing else can be said any more, and what was said must not look complete.
    let mut client = open("/answered");
    let mut begun = [0; 16];
    client.tls.read_exact(&mut begun).unwrap();
    client.send("x\r\n");
    let (rest, end) = client.read_to_end();
    let rest = String::from_utf8_lossy(&rest);
    assert!(!rest.contains("HTTP/1.1"), "{rest}");
    assert_eq!(end, TlsEnd::Cut);
    origin.wait_left_alone();
    assert!(!origin.text().contains("smuggled"));
    let outcomes: Vec<Value> =
        site.wait_requests(2).into_iter().map(|line| line["outcome"].clone()).collect();
    assert_eq!(outcomes, ["malformed", "malformed"]);
}

#[test]
fn a_backend_that_says_no_http_is_a_bad_gateway() {
    let closed = "backend_closed";
    let malformed = "backend_malformed";
    for (answer, outcome) in [
        ("", closed),
        ("HTTP/1.1 200 OK\r\nContent-Le", malformed),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nok", malformed),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", malformed),
        ("HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\nok", malformed),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok", malformed),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", malformed),
        ("HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n", malformed),
        ("HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n", malformed),
        ("HTTP/1.1 200 OK\nContent-Length: 2\n\nok", malformed),
        ("HTTP/1.1 20 OK\r\n\r\n", malformed),
        ("HTTP/1.1 099 No\r\n\r\n", malformed),
        ("HTTP/1.1  200 OK\r\n\r\n", malformed),
        ("HTTP/2.0 200 OK\r\n\r\n", malformed),
        ("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", malformed),
        ("220 mail.example.org ESMTP\r\n\r\n", malformed),
        ("<html>hello</html>\r\n\r\n", malformed),
    ] {
        let origin = Origin::saying(answer, Then::Close);
        let site = site(&[origin.address()]);
        let mut client = site.client();
        let response = client.ask(get("/"));
        assert_eq!(response.status(), 502, "{answer:?}");
        assert_eq!(client.read_to_end(), (Vec::new(), TlsEnd::Clean), "{answer:?}");
        let line = site.wait_request(outcome);
        assert_eq!(line["status"], 502, "{line}");
    }
}

#[test]
fn another_backend_takes_the_request_where_one_cannot_be_reached() {
    let origin = Origin::echoing();
    let site = site(&[fresh_address(), origin.address()]);
    let mut client = site.client();
    for number in 0..8 {
        let response = client.ask(get(&format!("/{number}")));
        assert_eq!((response.status(), response.text()), (200, format!("/{number}")));
    }
}

#[test]
fn without_a_backend_the_client_is_told_so() {
    // One that should be there and is not; one that is known to be down.
    let check = "check = { kind = \"tcp\", interval_ms = 250, timeout_ms = 250, rise = 2, fall = 2 }";
    for (lines, status, outcome) in [("", 502, "connect_failed"), (check, 503, "no_backend")] {
        let site = site_with(&[fresh_address()], lines);
        clock::wait_until(outcome, || {
            let mut client = site.client();
            let response = client.ask(get("/"));
            assert_eq!(client.read_to_end(), (Vec::new(), TlsEnd::Clean));
            response.status() == status
        });
        assert_eq!(site.wait_request(outcome)["status"], status);
    }
}

#[test]
fn a_response_that_was_cut_short_does_not_look_complete() {
    let length = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello";
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    let within = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n50\r\nhello";
    let malformed = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    for (answer, more, version, then) in [
        (length, "", "1.1", Then::Close),
        (length, "", "1.1", Then::Reset),
        (chunked, "", "1.1", Then::Close),
        (within, "", "1.1", Then::Reset),
        // Without its chunks it would end with the connection: any end but a clean one, then.
        (chunked, "", "1.0", Then::Close),
        (within, "", "1.0", Then::Reset),
        (malformed, "x\r\n", "1.0", Then::Close),
        (malformed, "x\r\n", "1.1", Then::Close),
        ("HTTP/1.1 200 OK\r\n\r\nhello", "", "1.1", Then::Reset),
    ] {
        let origin = Origin::start(move |exchange| {
            exchange.say(answer)?;
            // Apart from the head, which has been passed on by then.
            clock::sleep_ms(100);
            exchange.say(more)?;
            Ok(then)
        });
        let site = site(&[origin.address()]);
        let mut client = site.client();
        client.send(format!("GET / HTTP/{version}\r\nHost: {NAME}\r\n\r\n"));
        let (got, end) = client.read_to_end();
        let got = String::from_utf8_lossy(&got);
        let what = format!("{answer:?} {more:?} {version} {then:?}: {got:?}");
        assert_eq!(end, TlsEnd::Cut, "{what}");
        assert!(!got.ends_with("0\r\n\r\n") && got.matches("HTTP/1.1").count() <= 1, "{what}");
        let outcome = if more.is_empty() { "backend_cut" } else { "backend_malformed" };
        site.wait_request(outcome);
    }
}

#[test]
fn a_kept_connection_that_is_dead_costs_no_request_and_repeats_none_that_might_count() {
    let get = get("/second");
    for (request, status, attempts) in [
        (get.clone(), 200, 2),
        (get.replace("GET", "HEAD"), 200, 2),
        (get.replace("GET", "DELETE"), 200, 2),
        (get.replace("GET", "POST"), 502, 1),
        (get.replace("GET", "PATCH"), 502, 1),
        (post("Content-Length: 5\r\n", "hello").replace("POST /", "POST /second"), 502, 1),
        (post("Content-Length: 5\r\n", "hello").replace("POST /", "PUT /second"), 502, 1),
    ] {
        for then in [Then::Close, Then::Reset] {
            // The second request of a connection finds it dead only after it was sent: nobody can know before.
            let origin = Origin::start(move |exchange| {
                exchange.body()?;
                if exchange.number == 1 {
                    return Ok(then);
                }
                let is_head = exchange.head.starts_with("HEAD");
                exchange.say(if is_head { "HTTP/1.1 200 OK\r\n\r\n" } else { OK })
            });
            let site = site(&[origin.address()]);
            let mut client = site.client();
            assert_eq!(client.ask(self::get("/first")).status(), 200);
            assert_eq!(client.ask(&request).status(), status, "{request:?} {then:?}");
            let sent = origin.text().matches(" /second HTTP/1.1\r\n").count();
            assert_eq!((sent, origin.accepted()), (attempts, attempts), "{request:?} {then:?}");
        }
    }
}

#[test]
fn a_request_is_sent_again_to_another_backend_than_the_one_that_closed() {
    let closing = Origin::start(|exchange| {
        exchange.body()?;
        Ok(Then::Close)
    });
    let origin = Origin::saying(OK, Then::Keep);
    let site = site(&[closing.address(), origin.address()]);
    for number in 0..100 {
        assert_eq!(site.client().ask(get("/")).status(), 200, "{number}");
    }
    // It is asked less and less: it fails each time that it is.
    assert!((1..40).contains(&closing.accepted()), "{} times", closing.accepted());
}

/// Some backends know who it is by the connection (NTLM, Negotiate): nobody else's request goes there.
#[test]
fn a_connection_that_its_backend_has_authenticated_is_nobody_elses() {
    let origin = Origin::start(|exchange| {
        if exchange.target() == "/asks" {
            let ask = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic\r\nWWW-Authenticate: NTLM\r\nContent-Length: 0\r\n\r\n";
            return exchange.say(ask);
        }
        exchange.say(OK)
    });
    let site = site(&[origin.address()]);
    let mut client = site.client();
    let log_in =
        |scheme: &str| format!("GET / HTTP/1.1\r\nHost: {NAME}\r\nAuthorization: {scheme} abc\r\n\r\n");
    for (request, is_bound) in [
        (get("/"), false),
        (log_in("Bearer"), false),
        (log_in("Negotiate"), true),
        (log_in("nTlm"), true),
        (get("/asks"), true),
        (get("/"), false),
    ] {
        client.ask(&request);
        let accepted = origin.accepted();
        client.ask(get("/"));
        assert_eq!(origin.accepted() > accepted, is_bound, "{request}");
    }
}

#[test]
fn a_connection_that_the_backend_has_closed_is_not_used_again() {
    let origin = Origin::start(|exchange| {
        exchange.body()?;
        exchange.say(OK)?;
        // It does not say so, as many do not.
        Ok(Then::Close)
    });
    let site = site(&[origin.address()]);
    let mut client = site.client();
    for _ in 0..3 {
        assert_eq!(client.ask(post("Content-Length: 5\r\n", "hello")).status(), 200);
        origin.wait_left_alone();
        // The end is on its way from one process to another.
        clock::sleep_ms(50);
    }
    assert_eq!(origin.accepted(), 3);
}

#[test]
fn what_a_backend_says_behind_its_response_answers_nobody() {
    let forged = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged";
    for pieces in [vec![format!("{OK}{forged}")], vec![OK[..OK.len() - 1].to_owned(), format!("k{forged}")]] {
        let origin = Origin::start(move |exchange| {
            if exchange.connection == 0 {
                for piece in &pieces {
                    exchange.say(piece)?;
                    clock::sleep_ms(100);
                }
                return Ok(Then::Keep);
            }
            exchange.say(OK)
        });
        let site = site(&[origin.address()]);
        let mut client = site.client();
        for _ in 0..3 {
            assert_eq!(client.ask(get("/")).text(), "ok");
        }
        assert_eq!(origin.accepted(), 2);
    }
}

#[test]
fn an_answer_before_the_end_of_the_body_reaches_a_client_that_is_still_sending() {
    let origin = Origin::start(|exchange| {
        exchange.say("HTTP/1.1 413 Content Too Large\r\nContent-Length: 6\r\n\r\nenough")?;
        drink(&mut *exchange.stream, u64::MAX)?;
        Ok(Then::Close)
    });
    let site = site(&[origin.address()]);
    let mut client = site.client();
    client.send(post("Content-Length: 1000000000\r\n", ""));
    // It looks only after it has sent a good deal, as many do; the other side may have closed by then.
    pour(&mut client.tls, 4 << 20, 1).ok();
    let response = client.response(false);
    assert_eq!((response.status(), response.text().as_str()), (413, "enough"));
}

#[test]
fn what_was_not_sent_of_a_body_is_no_request() {
    // The backend answers at once and takes nothing of the body. For some size the last piece of it is what waits
    // for room: sizes on both sides of what all buffers hold together.
    let origin = Origin::start(|exchange| {
        clock::sleep_ms(100);
        exchange.say("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")?;
        clock::sleep_ms(100);
        drink(&mut *exchange.stream, u64::MAX)?;
        Ok(Then::Close)
    });
    let site = site(&[origin.address()]);
    let smuggled = get("/smuggled");
    let check = |size: usize| {
        let mut client = site.client();
        let length = size / smuggled.len() * smuggled.len();
        let body = smuggled.repeat(length / smuggled.len());
        client.send(post(&format!("Content-Length: {length}\r\n"), ""));
        client.tls.write_all(body.as_bytes()).ok();
        client.finish();
        assert_eq!(client.response(false).status(), 200);
        let (rest, _) = client.read_to_end();
        assert!(rest.is_empty(), "{length}: {}", String::from_utf8_lossy(&rest));
    };
    std::thread::scope(|scope| {
        for first in 0..8 {
            scope.spawn(move || (first..128).step_by(8).for_each(|step| check(32 * 1024 * (step + 1))));
        }
    });
    assert!(site.wait_requests(128).iter().all(|line| line["target"] == "/"));
}

#[test]
fn an_upgrade_passes_bytes_both_ways() {
    let origin = Origin::start(|exchange| {
        if exchange.values("upgrade") != ["websocket"] || exchange.values("connection") != ["upgrade"] {
            return exchange.say("HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n");
        }
        assert_eq!(exchange.values("sec-websocket-key"), ["x"]);
        exchange.say(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: y\r\n\r\n\x01early\0",
        )?;
        let mut buffer = [0; 4096];
        loop {
            let read = exchange.stream.read(&mut buffer)?;
            if read == 0 {
                exchange.say("bye")?;
                return Ok(Then::Close);
            }
            exchange.stream.write_all(&buffer[..read])?;
        }
    });
    let site = site(&[origin.address()]);
    let upgrade = |protocol: &str| {
        format!(
            "GET /chat HTTP/1.1\r\nHost: {NAME}\r\nConnection: keep-alive, Upgrade\r\nUpgrade: {protocol}\r\n\
             Sec-WebSocket-Key: x\r\n\r\n"
        )
    };
    let mut client = site.client();
    // What the client says at once is the new protocol's, too.
    client.send(upgrade("websocket") + "first");
    let response = client.response(false);
    assert_eq!((response.status(), response.values("sec-websocket-accept")), (101, vec!["y"]));
    assert_eq!((response.values("upgrade"), response.values("connection").len()), (vec!["websocket"], 1));
    let mut early = [0; 12];
    client.tls.read_exact(&mut early).unwrap();
    assert_eq!(&early, b"\x01early\0first");
    let bytes: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    for piece in bytes.chunks(999) {
        client.send(piece);
        let mut echo = vec![0; piece.len()];
        client.tls.read_exact(&mut echo).unwrap();
        assert_eq!(echo, piece);
    }
    client.finish();
    assert_eq!(client.read_to_end().0, b"bye");
    let line = site.wait_request("upgraded");
    assert_eq!((&line["status"], &line["target"]), (&101.into(), &"/chat".into()), "{line}");
    // HTTP/2 in the clear would be requests that nobody has looked at.
    assert_eq!(site.client().ask(upgrade("h2c")).status(), 426);
    assert!(!origin.text().contains("h2c"), "{}", origin.text());
}

#[test]
fn large_bodies_arrive_whole() {
    const BYTES: u64 = 64 << 20;
    let _machine = heavy();
    let origin = Origin::start(|exchange| {
        let sum = if exchange.head.starts_with("POST") {
            drink(&mut *exchange.stream, BYTES)?
        } else {
            exchange.say(&format!("HTTP/1.1 200 OK\r\nContent-Length: {BYTES}\r\n\r\n"))?;
            pour(&mut *exchange.stream, BYTES, 7)?;
            return Ok(Then::Keep);
        };
        let text = format!("{} {}", sum.bytes, sum.crc);
        exchange.say(&format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len()))
    });
    let site = site(&[origin.address()]);
    let mut client = site.client();
    client.send(post(&format!("Content-Length: {BYTES}\r\n"), ""));
    let sent = pour(&mut client.tls, BYTES, 3).unwrap();
    assert_eq!(client.response(false).text(), format!("{BYTES} {}", sent.crc));
    client.send(get("/"));
    let head = client.response(true);
    assert_eq!(head.values("content-length"), [BYTES.to_string()]);
    let received = drink(&mut client.tls, BYTES).unwrap();
    let mut expected = Sum::default();
    pour(&mut expected, BYTES, 7).unwrap();
    assert_eq!(received, expected);
    assert_eq!(origin.accepted(), 1);
}

#[test]
fn those_who_do_not_read_cost_no_memory() {
    const EACH: usize = 20;
    const BYTES: u64 = 16 << 20;
    let _machine = heavy();
    let origin = Origin::start(|exchange| {
        if exchange.head.starts_with("POST") {
            // Takes nothing while the test measures.
            clock::sleep_ms(4_000);
            drink(&mut *exchange.stream, BYTES)?;
            return exchange.say(OK);
        }
        exchange.say(&format!("HTTP/1.1 200 OK\r\nContent-Length: {BYTES}\r\n\r\n"))?;
        pour(&mut *exchange.stream, BYTES, 7)?;
        Ok(Then::Keep)
    });
    let site = site(&[origin.address()]);
    // What every connection shares is there after the first.
    site.client().ask(get("/"));
    let before = site.proxy.rss_kib();
    std::thread::scope(|scope| {
        let mut readers: Vec<Client> = (0..EACH).map(|_| site.client()).collect();
        for reader in &mut readers {
            reader.send(get("/"));
        }
        for _ in 0..EACH {
            scope.spawn(|| {
                let mut writer = site.client();
                writer.send(post(&format!("Content-Length: {BYTES}\r\n"), ""));
                pour(&mut writer.tls, BYTES, 3).unwrap();
                assert_eq!(writer.response(false).status(), 200);
            });
        }
        // Everything between them fills up: 320 MiB want to come, and 320 MiB want to go.
        clock::sleep_ms(2_500);
        let grown = site.proxy.rss_kib().saturating_sub(before);
        assert!(grown < 16 * 1024, "{EACH} clients and {EACH} backends that do not read cost {grown} KiB");
        for mut reader in readers {
            assert_eq!(reader.response(false).body.len() as u64, BYTES);
        }
    });
}

#[test]
fn a_wildcard_certificate_serves_its_names_and_no_others() {
    let ca = Ca::new();
    let origin = Origin::saying(OK, Then::Keep);
    let (wildcard, own) = (ca.issue(&["*.example.org"]), ca.issue(&["own.example.org"]));
    let config = Config::new()
        .listener("web")
        .route_with("*", &[origin.address()], L7)
        .certificate("wildcard", &wildcard)
        .certificate("own", &own);
    let proxy = Proxy::start(config);
    for (name, certificate) in [
        ("www.example.org", Some(&wildcard)),
        ("WWW.Example.org", Some(&wildcard)),
        ("own.example.org", Some(&own)),
        ("example.org", None),
        ("a.b.example.org", None),
        ("example.com", None),
    ] {
        let opened = Request::new(&ca, proxy.web(), name).open();
        let Some(certificate) = certificate else {
            assert!(opened.is_err(), "{name}");
            proxy.wait_log(name, |line| line["name"] == name && line["outcome"] == "no_certificate");
            continue;
        };
        let mut client = Client::on(opened.unwrap());
        let shown = client.tls.conn.peer_certificates().unwrap()[0].clone();
        assert!(certificate.is(&shown), "{name} got another certificate");
        let response = client.ask(format!("GET / HTTP/1.1\r\nHost: {name}\r\n\r\n"));
        assert_eq!(response.status(), 200, "{name}");
    }
}

#[test]
fn a_certificate_is_replaced_while_connections_come() {
    let origin = Origin::saying(OK, Then::Keep);
    let site = site(&[origin.address()]);
    let mut old_client = site.client();
    let next = site.ca.issue(&[NAME]);
    let serves_next = || {
        // Each handshake succeeds, and so does the request.
        let mut client = site.client();
        assert_eq!(client.ask(get("/")).status(), 200);
        next.is(&client.tls.conn.peer_certificates().unwrap()[0])
    };
    assert!((0..10).all(|_| !serves_next()));
    site.proxy.replace_certificate("www", &next);
    clock::wait_until("the new certificate to be served", serves_next);
    assert!((0..10).all(|_| serves_next()));
    assert_eq!(old_client.ask(get("/")).status(), 200);
    // A file that is of no use leaves the certificate as it was.
    std::fs::write(site.proxy.root().join("certs/www.pem"), "no certificate").unwrap();
    clock::wait_until("the log to tell of it", || site.proxy.errors().contains("www.pem"));
    assert!((0..10).all(|_| serves_next()));
}

#[test]
fn sessions_are_resumed_even_after_a_restart() {
    use rustls::HandshakeKind::{Full, Resumed};
    let origin = Origin::saying(OK, Then::Keep);
    let mut site = site(&[origin.address()]);
    let config = site.request().config().unwrap();
    let kind = |site: &Site| {
        let mut client = Client::on(site.request().open_with(&config).unwrap());
        // Tickets come after the handshake.
        assert_eq!(client.ask(get("/")).status(), 200);
        client.tls.conn.handshake_kind()
    };
    assert_eq!([kind(&site), kind(&site)], [Some(Full), Some(Resumed)]);
    site.proxy.term();
    site.proxy.process().wait(clock::PATIENCE);
    site.proxy.restart();
    assert_eq!(kind(&site), Some(Resumed));
    let keys = std::fs::metadata(site.proxy.root().join("ticket-keys")).unwrap();
    assert_eq!(keys.permissions().mode() & 0o7777, 0o600);
}

#[test]
fn a_changed_route_holds_from_the_next_request_on() {
    let named = |name: &str| Origin::saying(OK.replace("ok", name), Then::Keep);
    let (one, two) = (named("01"), named("02"));
    let site = site(&[one.address()]);
    let mut client = site.client();
    assert_eq!(client.ask(get("/")).text(), "01");
    let key = ["--listener", "web", "--name", NAME];
    let backend = two.address().to_string();
    let _added = site.proxy.ctl_text(&[&["route", "update"], &key[..], &["--backend", &backend]].concat());
    clock::wait_until("the new backend to answer", || client.ask(get("/")).text() == "02");
    let _removed = site.proxy.ctl_text(&[&["route", "remove"], &key[..]].concat());
    let mut last: Option<Response> = None;
    clock::wait_until("the route to be gone", || {
        let response = client.ask(get("/"));
        let gone = response.status() != 200;
        last = Some(response);
        gone
    });
    assert_eq!(last.map(|response| response.status()), Some(421));
    assert_eq!(client.read_to_end(), (Vec::new(), TlsEnd::Clean));
    site.wait_request("no_route");
}

#[test]
fn the_access_log_has_a_line_for_each_request() {
    let origin = Origin::echoing();
    let site = site(&[origin.address()]);
    let from = fresh_ip();
    let mut client = Client::on(site.request().from(from).open().unwrap());
    client.ask(format!(
        "GET /a?b=\"c\" HTTP/1.1\r\nHost: {NAME}\r\nUser-Agent: test/1\r\nReferer: https://example.com/\r\n\r\n"
    ));
    client.ask(post("Content-Length: 5\r\n", "hello"));
    client.ask("GET /bad HTTP/1.1\r\n\r\n");
    drop(client);
    let connection = site.proxy.wait_log("the connection", |line| line["request"].is_null());
    let lines = site.wait_requests(3);
    let keys = ["method", "target", "status", "outcome", "bytes_in", "bytes_out", "user_agent", "referer"];
    let expected = [
        serde_json::json!(["GET", "/a?b=\"c\"", 200, "completed", 0, 8, "test/1", "https://example.com/"]),
        // What there is not is left out.
        serde_json::json!(["POST", "/", 200, "completed", 5, 1, null, null]),
    ];
    for (line, expected) in lines.iter().zip(&expected) {
        let got: Value = keys.iter().map(|key| line[key].clone()).collect();
        assert_eq!(got, *expected, "{line}");
        assert_eq!((&line["host"], &line["route"]), (&NAME.into(), &NAME.into()), "{line}");
        assert_eq!(line["backend"], origin.address().to_string(), "{line}");
        assert_eq!(line["protocol"], "HTTP/1.1");
    }
    assert_eq!((&lines[2]["status"], &lines[2]["outcome"]), (&400.into(), &"malformed".into()));
    assert_ne!(lines[2]["detail"], "");
    for line in &lines {
        assert_eq!(line["id"], connection["id"], "{line}");
        assert_eq!(line["client"], connection["client"], "{line}");
        assert!(line["client"].as_str().unwrap().starts_with(&format!("{from}:")), "{line}");
    }
    assert_eq!(lines.len(), 3);
}

#[test]
fn a_route_says_how_http_is_spoken() {
    let origin = Origin::echoing();
    let site = site_with(&[origin.address()], "http = { forwarded = \"append\", max_body_bytes = 5 }");
    let mut client = site.client();
    let mine = "X-Forwarded-For: 192.0.2.9\r\n";
    client.send(format!("GET / HTTP/1.1\r\nHost: {NAME}\r\n{mine}\r\n"));
    assert_eq!(client.response(false).status(), 200);
    let got = values(&origin.text(), "x-forwarded-for").join("|");
    assert!(got.starts_with("192.0.2.9, 127."), "{got}");
    client.send(post("Content-Length: 5\r\n", "hello"));
    assert_eq!(client.response(false).status(), 200);
    // It is refused before a byte of it is asked for.
    client.send(post("Content-Length: 6\r\nExpect: 100-continue\r\n", ""));
    assert_eq!(client.response(false).status(), 413);
    assert_eq!(client.read_to_end().1, TlsEnd::Clean);
    assert_eq!(site.wait_request("too_large")["status"], 413);
    let mut client = site.client();
    client.send(post("Transfer-Encoding: chunked\r\n", ""));
    client.send("6\r\nhello!\r\n");
    assert_eq!(client.response(false).status(), 413);
    assert_eq!(origin.text().matches("hello!").count(), 0, "{}", origin.text());
    // The next request of a live connection is under what holds by then.
    let mut client = site.client();
    client.send(get("/"));
    assert_eq!(client.response(false).status(), 200);
    let backend = origin.address().to_string();
    let route = ["route", "update", "--listener", "web", "--name", NAME, "--forwarded", "strip", "--backend"];
    let changed = site.proxy.ctl(&[&route[..], &[&backend, "--max-body-bytes", "0"]].concat());
    assert_eq!(changed["changed"], true, "{changed}");
    client.send(post("Content-Length: 6\r\n", "hello!"));
    assert_eq!(client.response(false).status(), 200);
    let last = origin.text().rsplit("POST").next().unwrap().to_lowercase();
    assert!(!last.contains("forwarded"), "{last}");
}

#[test]
fn backends_and_clients_that_take_too_long_are_given_up() {
    let origin = Origin::start(|exchange| {
        exchange.body()?;
        // Never answers: reads until the proxy closes the connection.
        drink(&mut *exchange.stream, u64::MAX)?;
        Ok(Then::Close)
    });
    let site =
        site_with(&[origin.address()], "http = { response_timeout_ms = 200, keepalive_timeout_ms = 2000 }");
    let mut client = site.client();
    client.send(get("/"));
    assert_eq!(client.response(false).status(), 504);
    assert_eq!(site.wait_request("backend_timeout")["status"], 504);
    // One that asks for nothing.
    let mut client = site.client();
    assert_ne!(client.read_to_end().1, TlsEnd::Silence);
    site.proxy.wait_outcome("idle_timeout");
}

#[test]
fn a_proxy_that_stops_ends_what_is_idle_and_finishes_what_is_not() {
    let origin = Origin::start(|exchange| {
        exchange.body()?;
        if exchange.target() == "/slow" {
            clock::sleep_ms(700);
        }
        exchange.say(OK)
    });
    let mut site = site(&[origin.address()]);
    let mut idle = site.client();
    idle.send(get("/"));
    assert_eq!(idle.response(false).status(), 200);
    let mut busy = site.client();
    busy.send(get("/slow"));
    clock::wait_until("the backend is asked", || origin.text().contains("/slow"));
    site.proxy.term();
    let response = busy.response(false);
    assert_eq!(response.status(), 200);
    assert_eq!(response.values("connection"), ["close"]);
    assert_ne!(idle.read_to_end().1, TlsEnd::Silence);
    let status = site.proxy.process().wait(clock::PATIENCE);
    assert!(status.success(), "{status}");
}

#[test]
fn wrk_gets_an_answer_to_each_request() {
    mc_testkit::requires!("wrk");
    let _alone = heavy();
    let origin = Origin::saying(OK, Then::Keep);
    let ca = Ca::new();
    // wrk knows no name but the one that it looks up, which here is an address: TLS has none, and Host says it.
    let config = Config::new().listener("web").certificate("default", &ca.issue(&[NAME]));
    let proxy = Proxy::start(config.route_with("*", &[origin.address()], L7));
    let url = format!("https://{}/", proxy.web());
    let wrk = std::process::Command::new("wrk")
        .args(["-t1", "-c16", "-d2s", "-H", &format!("Host: {NAME}"), &url])
        .output()
        .unwrap();
    let got = String::from_utf8_lossy(&wrk.stdout);
    let all_well = got.contains("requests in") && !got.contains("Non-2xx") && !got.contains("Socket errors");
    assert!(all_well, "{got}{}{:?}", proxy.errors(), proxy.log().first());
    let of = |outcome: &str| proxy.metric("mcproxy_requests_total", &[&format!("outcome=\"{outcome}\"")]);
    assert!(of("completed") > 0.0, "{got}");
    // Those that were under way when wrk left are the client's.
    let others = ["backend_closed", "connect_failed", "malformed", "backend_timeout"];
    assert!(others.iter().all(|outcome| of(outcome) == 0.0), "{got}");
}
