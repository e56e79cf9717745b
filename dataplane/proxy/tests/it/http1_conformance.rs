//! RFC 9112 sentence by sentence, as far as `http1.rs` has not asked yet. The table is `docs/acceptance/rfc9112.md`.

use std::io::Write as _;

use mc_testkit::http::{Origin, Then, TlsEnd, values};

use super::http1::{NAME, OK, by_target, get, post, site, site_with};

#[test]
fn whatever_form_a_request_has_it_is_passed_on_in_one() {
    let origin = Origin::saying(OK, Then::Keep);
    let site = site(&[origin.address()]);
    let mut client = site.client();
    let long = format!("/{}", "a".repeat(7_980));
    let with_host = |line: &str| format!("{line}\r\nHost: {NAME}\r\n\r\n");
    let cases: [(String, &str); 10] = [
        // Section 2.2: an empty line before it.
        (format!("\r\n{}", get("/")), "GET / HTTP/1.1"),
        // Section 2.3: our version.
        (
            with_host("GET /old HTTP/1.0").replace("\r\n\r\n", "\r\nConnection: keep-alive\r\n\r\n"),
            "GET /old HTTP/1.1",
        ),
        // Section 3: request lines of 8,000 bytes.
        (get(&long), &format!("GET {long} HTTP/1.1")),
        // Section 3.1: methods that nobody knows, in the case that they have.
        (with_host("get / HTTP/1.1"), "get / HTTP/1.1"),
        (with_host("M-SEARCH / HTTP/1.1"), "M-SEARCH / HTTP/1.1"),
        // Section 3.2: the four forms, but for CONNECT.
        (get("/a?b=c?d"), "GET /a?b=c?d HTTP/1.1"),
        (with_host(&format!("GET https://{NAME}/a?b HTTP/1.1")), "GET /a?b HTTP/1.1"),
        (with_host(&format!("GET HTTP://{NAME} HTTP/1.1")), "GET / HTTP/1.1"),
        (with_host("OPTIONS * HTTP/1.1"), "OPTIONS * HTTP/1.1"),
        // Section 5: names in any case, white space around values or none, bytes beyond ASCII.
        (format!("GET / HTTP/1.1\r\nhOST:{NAME}\r\nX-\u{60}:\t\u{e9} \t\r\n\r\n"), "GET / HTTP/1.1"),
    ];
    for (request, line) in &cases {
        let before = origin.text().len();
        let response = client.ask(request);
        assert_eq!(response.status(), 200, "{request}");
        let got = origin.text()[before..].to_owned();
        assert!(got.starts_with(&format!("{line}\r\n")), "{request:?} became {got:?}");
        assert_eq!(values(&got, "host"), [NAME], "{got}");
    }
    assert!(origin.text().contains("\r\nX-\u{60}: \u{e9}\r\n"), "{}", origin.text());
    assert_eq!(origin.accepted(), 1);
}

#[test]
fn a_status_line_is_written_anew() {
    let origin = by_target(&[
        ("/no-reason", "HTTP/1.1 299\r\nContent-Length: 0\r\n\r\n", Then::Keep),
        ("/known", "HTTP/1.1 404 \r\nContent-Length: 0\r\n\r\n", Then::Keep),
        ("/words", "HTTP/1.1 200 Tr\u{e8}s bien\r\nContent-Length: 0\r\n\r\n", Then::Keep),
        ("/beyond", "HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n", Then::Keep),
        ("/old", "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", Then::Close),
    ]);
    let site = site(&[origin.address()]);
    let mut client = site.client();
    for (target, line) in [
        // The space is there without a reason, too.
        ("/no-reason", "HTTP/1.1 299 \r\n"),
        ("/known", "HTTP/1.1 404 Not Found\r\n"),
        ("/words", "HTTP/1.1 200 Tr\u{e8}s bien\r\n"),
        ("/beyond", "HTTP/1.1 999 Odd\r\n"),
        ("/old", "HTTP/1.1 200 OK\r\n"),
    ] {
        let response = client.ask(get(target));
        assert!(response.head.starts_with(line), "{target}: {}", response.head);
    }
}

#[test]
fn responses_without_content_say_nothing_of_its_framing() {
    let origin = by_target(&[
        ("/204-length", "HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\n", Then::Keep),
        ("/204-chunked", "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", Then::Keep),
        (
            "/103-length",
            "HTTP/1.1 103 Early Hints\r\nContent-Length: 3\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
            Then::Keep,
        ),
        (
            "/103-chunked",
            "HTTP/1.1 103 Early Hints\r\nTransfer-Encoding: chunked\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
            Then::Keep,
        ),
        ("/304-chunked", "HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n", Then::Keep),
    ]);
    let site = site(&[origin.address()]);
    let mut client = site.client();
    for target in ["/204-length", "/204-chunked", "/103-length", "/103-chunked", "/304-chunked"] {
        let mut response = client.ask(get(target));
        let mut heads = response.head.clone();
        if response.status() == 103 {
            response = client.response(false);
            heads.push_str(&response.head);
        }
        assert!(matches!(response.status(), 204 | 304), "{target}: {heads}");
        let heads = heads.to_lowercase();
        assert!(
            !heads.contains("content-length") && !heads.contains("transfer-encoding"),
            "{target}: {heads}"
        );
    }
    // Nothing of one was taken for the next.
    assert_eq!(origin.accepted(), 1);
}

#[test]
fn nothing_is_served_after_the_last_request_of_a_connection() {
    let origin = Origin::echoing();
    let site = site(&[origin.address()]);
    for last in [
        format!("GET /last HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n"),
        format!("GET /last HTTP/1.1\r\nHost: {NAME}\r\nConnection: x\r\nconnection: CLOSE , y\r\n\r\n"),
        format!("GET /last HTTP/1.0\r\nHost: {NAME}\r\n\r\n"),
        format!("GET /last HTTP/1.0\r\nHost: {NAME}\r\nConnection: keep-alive, close\r\n\r\n"),
    ] {
        let mut client = site.client();
        client.send(last.clone() + &get("/after"));
        let response = client.response(false);
        assert_eq!(
            (response.text().as_str(), response.values("connection")),
            ("/last", vec!["close"]),
            "{last}"
        );
        assert_eq!(client.read_to_end(), (Vec::new(), TlsEnd::Clean), "{last}");
    }
    assert!(!origin.text().contains("/after"), "{}", origin.text());
}

#[test]
fn a_request_that_breaks_off_never_looks_complete() {
    let origin = Origin::start(|exchange| {
        exchange.body()?;
        exchange.say(OK)
    });
    let site = site(&[origin.address()]);
    for request in [
        post("Content-Length: 10\r\n", "hello"),
        post("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n"),
        post("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\nX: y\r\n"),
        post("Transfer-Encoding: chunked\r\n", "5\r\nhel"),
    ] {
        // Once with a closure alert and once without.
        for clean in [true, false] {
            let before = origin.text().len();
            let mut client = site.client();
            client.send(&request);
            if clean {
                client.finish();
                let (answer, _) = client.read_to_end();
                assert!(!answer.starts_with(b"HTTP/1.1 200"), "{request}");
            } else {
                mc_testkit::clock::wait_until("the head to arrive", || origin.text().len() > before);
                client.tls.sock.shutdown(std::net::Shutdown::Both).unwrap();
            }
            drop(client);
            origin.wait_left_alone();
            let got = origin.text()[before..].to_owned();
            assert!(!got.ends_with("0\r\n\r\n") && !got.ends_with("\r\n\r\n\r\n"), "{request}: {got}");
        }
    }
    site.wait_request("client_gone");
}

#[test]
fn a_response_that_two_readers_could_read_differently_is_discarded_with_its_connection() {
    for answer in [
        "HTTP/1.1 200 OK\r\nX : a\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\n X: a\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked;q=1\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    ] {
        let origin = Origin::saying(answer, Then::Keep);
        let site = site(&[origin.address()]);
        let mut client = site.client();
        let response = client.ask(get("/"));
        assert_eq!(response.status(), 502, "{answer:?}");
        assert!(!response.text().contains("ok"), "{answer:?}");
        site.wait_request("backend_malformed");
        // It would have been kept otherwise.
        origin.wait_left_alone();
    }
}

#[test]
fn chunk_extensions_are_bounded() {
    let origin = Origin::saying(OK, Then::Keep);
    let site = site(&[origin.address()]);
    let mut client = site.client();
    let few = format!("5;{}\r\nhello\r\n0\r\n\r\n", "a".repeat(8_000));
    assert_eq!(client.ask(post("Transfer-Encoding: chunked\r\n", &few)).status(), 200);
    client.send(post("Transfer-Encoding: chunked\r\n", "5;"));
    // The other side may answer and close before it has all of this.
    client.tls.write_all("a".repeat(20_000).as_bytes()).ok();
    let (answer, _) = client.read_to_end();
    assert!(answer.starts_with(b"HTTP/1.1 400 "), "{}", String::from_utf8_lossy(&answer));
}

#[test]
fn interim_responses_are_bounded() {
    let hints = "HTTP/1.1 103 Early Hints\r\n\r\n";
    let origin = Origin::saying(hints.repeat(1_000) + OK, Then::Close);
    let site = site(&[origin.address()]);
    let mut client = site.client();
    client.send(get("/"));
    let (answer, end) = client.read_to_end();
    let answer = String::from_utf8_lossy(&answer);
    assert_eq!((answer.matches(hints).count(), end), (100, TlsEnd::Clean));
    assert!(answer[100 * hints.len()..].starts_with("HTTP/1.1 502 "), "{answer}");
    site.wait_request("backend_malformed");
}

#[test]
fn a_client_that_asks_for_nothing_hears_that_its_connection_ends() {
    let origin = Origin::saying(OK, Then::Keep);
    let site = site_with(&[origin.address()], "http = { keepalive_timeout_ms = 300 }");
    for asks in [true, false] {
        let mut client = site.client();
        if asks {
            assert_eq!(client.ask(get("/")).status(), 200);
        }
        assert_eq!(client.read_to_end(), (Vec::new(), TlsEnd::Clean), "{asks}");
    }
    site.proxy.wait_outcome("idle_timeout");
    let mut client = site.client();
    assert_eq!(client.ask(get("/")).status(), 200);
    site.proxy.term();
    assert_eq!(client.read_to_end(), (Vec::new(), TlsEnd::Clean));
}
