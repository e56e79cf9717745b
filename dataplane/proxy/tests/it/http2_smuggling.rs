//! Requests that try to be more than one, from HTTP/2 to backends of both versions, and responses of backends of
//! HTTP/2 that try the same, to clients of both versions.

use serde_json::Value;

use super::http2::{site, site_with};

/// The cases of a group: how each ended, and what reached the backend.
fn cases<'a>(results: &'a Value, group: &str) -> impl Iterator<Item = (&'a String, &'a str, &'a Value)> {
    let cases = results[group].as_object().unwrap().iter();
    cases.map(|(case, result)| (case, result[0].as_str().unwrap(), &result[1]))
}

const REFUSED: [&str; 4] = ["status 400 alive", "status 421 alive", "reset 1 alive", "goaway 1"];

#[test]
fn no_request_of_http_2_is_another_one_over_http_1() {
    let results = site("").part("http2_smuggling.py", "h1");
    for (case, how, got) in cases(&results, "attacks") {
        assert!(REFUSED.contains(&how), "{case}: {how}");
        let got = got.as_str().unwrap();
        if case.starts_with("length too") {
            // The head had gone when the body turned out to be of another length; nothing of that follows.
            assert!(got.ends_with("\r\n\r\n") && got.matches(" HTTP/1.1\r\n").count() == 1, "{case}: {got}");
        } else {
            assert_eq!(got, "", "{case}: the backend got something");
        }
    }
    for (case, how, got) in cases(&results, "harmless") {
        let got = got.as_str().unwrap();
        assert_eq!((how, got.matches(" HTTP/1.1\r\n").count()), ("status 200 alive", 1), "{case}: {got}");
        assert!(!got.contains("smuggled") && !got.contains("1.2.3.4"), "{case}: {got}");
    }
    for (case, how, got) in cases(&results, "trailers") {
        let got = got.as_str().unwrap();
        match how {
            "status 200 alive" => {
                let trailers = got.split_once("hello\r\n0\r\n").unwrap().1;
                let expected = if case == "only forbidden" { "\r\n" } else { "x-sum: 1\r\n\r\n" };
                assert_eq!(trailers, expected, "{case}");
            }
            // The body must not look complete.
            _ => assert!(REFUSED.contains(&how) && !got.ends_with("0\r\n\r\n"), "{case}: {how}: {got}"),
        }
    }
    for case in ["CRLF", "connection", "transfer-encoding", "white space"] {
        assert_ne!(results["trailers"][case][0], "status 200 alive", "{case}");
    }
    // What belongs to another protocol is sent only once the backend speaks it.
    let [refused, early] = ["refused", "early"].map(|case| &results["upgrades"][case]);
    assert_eq!(refused[0], "status 502 alive");
    // Nor where it speaks something else, or does not prove that it knows the protocol: the client cannot tell.
    for case in ["missing", "wrong", "other"] {
        assert_eq!(results["upgrades"][case][0], "status 502 alive", "{case}");
    }
    let got = refused[1].as_str().unwrap();
    assert!(got.matches("HTTP/1.1").count() == 1 && !got.contains("smuggled"), "{got}");
    assert_eq!(early[0], "early");
    assert!(early[1].as_str().unwrap().ends_with("\r\n\r\nearly"), "{early}");
    assert_eq!(results["upgrades"]["reset"][0], "status 200 reset 8");
}

#[test]
fn no_request_of_http_2_is_another_one_over_http_2() {
    let results = site(", protocol = \"h2c\"").part("http2_smuggling.py", "h2c");
    // Whatever arrives is one request in good order.
    for group in ["attacks", "harmless", "trailers", "upgrades"] {
        for (case, _, got) in cases(&results, group) {
            let got = got.as_array().unwrap();
            assert!(got.len() <= 1, "{case}: {got:?}");
            assert!(got.iter().all(|one| one["wrong"].as_array().unwrap().is_empty()), "{case}: {got:?}");
        }
    }
    for (case, how, got) in cases(&results, "attacks") {
        assert!(REFUSED.contains(&how), "{case}: {how}");
        assert!(got.as_array().unwrap().iter().all(|one| one["ended"] == false), "{case}: {got}");
        assert!(got.as_array().unwrap().is_empty() || case.starts_with("length too"), "{case}: {got}");
    }
    for (case, how, got) in cases(&results, "harmless") {
        assert_eq!((how, &got[0]["ended"]), ("status 200 alive", &true.into()), "{case}: {got}");
        let text = got.to_string();
        assert!(!text.contains("smuggled") && !text.contains("1.2.3.4"), "{case}: {text}");
    }
    for (case, how, got) in cases(&results, "trailers") {
        let expected = match case.as_str() {
            "only forbidden" => serde_json::json!([]),
            "CRLF" | "connection" | "transfer-encoding" | "white space" => {
                assert!(REFUSED.contains(&how), "{case}: {how}");
                assert!(got[0]["ended"] != true, "{case}: {got}");
                continue;
            }
            _ => serde_json::json!([["x-sum", "1"]]),
        };
        assert_eq!((how, &got[0]["trailers"]), ("status 200 alive", &expected), "{case}");
        assert_eq!((&got[0]["body"], &got[0]["ended"]), (&"hello".into(), &true.into()), "{case}");
    }
    // No frames and flags but these: DATA, HEADERS, RST_STREAM, SETTINGS, PING and WINDOW_UPDATE.
    let sent = results["sent"].as_array().unwrap();
    let known = ["0 0", "0 1", "1 4", "1 5", "3 0", "4 0", "4 1", "6 0", "6 1", "8 0"];
    assert!(sent.iter().all(|frame| known.contains(&frame.as_str().unwrap())), "{sent:?}");
    let refused = &results["upgrades"]["refused"];
    assert_eq!((&refused[0], refused[1].as_array().map(Vec::len)), (&"status 502 alive".into(), Some(0)));
}

/// Responses of a backend of HTTP/2 that cannot be passed on at all: the client is told by us.
const NO_RESPONSE: &[&str] = &[
    "101",
    "1xx-that-ends",
    "1xx-without-end",
    "closed-before",
    "connection",
    "crlf-in-value",
    "data-first",
    "even-stream",
    "goaway-refuses",
    "keep-alive",
    "length-and-end",
    "length-of-letters",
    "length-of-nothing",
    "length-twice",
    "no-status",
    "ping-on-stream",
    "push",
    "reset-before",
    "status-late",
    "status-of-letters",
    "status-of-two-digits",
    "status-twice",
    "transfer-encoding",
    "unknown-pseudo",
    "upgrade",
    "upper-case",
    "white-space",
];

/// Those that go wrong after their head: the client sees that they are not complete.
const BROKEN: &[&str] = &[
    "1xx-after-final",
    "204-with-content",
    "304-with-content",
    "closed-within",
    "final-twice",
    "goaway-within",
    "head",
    "length-too-great",
    "length-too-small",
    "reset-as-refused",
    "reset-to-another-version",
    "reset-unknown",
    "reset-within",
    "reset-within-unknown-length",
    "reset-without-error",
    "trailers-connection",
    "trailers-that-do-not-end",
    "trailers-white-space",
];

/// Those that arrive as they should: their status, content and trailers.
const COMPLETE: &[(&str, u16, &str, &str)] = &[
    ("100-with-length", 200, "hello", ""),
    ("103", 200, "hello", ""),
    ("204-with-length", 204, "", ""),
    ("304-with-length", 304, "", ""),
    // What comes behind the end answers nobody.
    ("data-after-end", 200, "hello", ""),
    ("head-after-end", 200, "hello", ""),
    ("fine", 200, "hello", ""),
    ("fine again", 200, "hello", ""),
    ("fine-trailers", 200, "hello", "x-sum"),
    ("hello-201", 201, "hello", ""),
    ("push-enabled", 200, "hello", ""),
    ("unknown-frame", 200, "hello", ""),
    ("trailers-forbidden", 200, "hello", "x-sum"),
    ("trailers-only-forbidden", 200, "hello", ""),
    // The engine drops these pseudo fields instead of refusing the response; nobody sees them.
    ("path-in-response", 200, "hello", ""),
    ("trailers-pseudo", 200, "hello", "x-sum"),
    ("final-twice-at-the-end", 200, "hello", ""),
];

#[test]
fn no_response_of_a_hostile_backend_is_another_one_or_looks_complete() {
    let results = site(", protocol = \"h2c\"").part("http2_hostile.py", "");
    let cases = results.as_object().unwrap();
    // One that sends more than its window, while the client takes nothing, is cut off.
    assert_eq!(results["too-much"]["ended"], "reset 3");
    // What was refused before anything was done with it is sent again, unless its body is gone.
    // A backend that takes no more is not asked.
    let retried = serde_json::json!({
        "GET": "status 200, sent 2",
        "POST": "status 502, sent 1",
        "elsewhere": "status 200",
    });
    assert_eq!(results["retried"], retried);
    assert_eq!(
        cases.len(),
        2 + NO_RESPONSE.len() + BROKEN.len() + COMPLETE.len(),
        "each case is expected to end somehow"
    );
    for (case, result) in cases {
        let text = result.to_string();
        assert!(!text.contains("forged"), "{case}: {text}");
    }
    for case in NO_RESPONSE {
        let (h2, h1) = (&results[case]["h2"], &results[case]["h1"]);
        assert_eq!(
            (&h2["ended"], &h2["fields"][0]),
            (&"end".into(), &serde_json::json!([":status", "502"])),
            "{case}"
        );
        if *case != "1xx-without-end" {
            let got = h1["got"].as_str().unwrap();
            assert!(got.contains("HTTP/1.1 502 Bad Gateway\r\n"), "{case}: {got}");
        }
        assert_eq!(h1["ended"], "end", "{case}");
    }
    for case in BROKEN {
        let (h2, h1) = (&results[case]["h2"], &results[case]["h1"]);
        let ended = h2["ended"].as_str().unwrap();
        // Neither "all is well" nor "it can be sent again".
        assert!(
            ended.starts_with("reset ") && !["reset 0", "reset 7", "reset 13"].contains(&ended),
            "{case}: {ended}"
        );
        let got = h1["got"].as_str().unwrap();
        assert_eq!(h1["ended"], "cut", "{case}: {got}");
        assert!(!got.ends_with("0\r\n\r\n") && got.matches("HTTP/1.1").count() <= 1, "{case}: {got}");
    }
    for (case, status, content, trailer) in COMPLETE {
        let (h2, h1) = (&results[case]["h2"], &results[case]["h1"]);
        assert_eq!(h2["ended"], "end", "{case}");
        assert_eq!(
            (&h2["fields"][0][1], &h2["content"]),
            (&status.to_string().into(), &(*content).into()),
            "{case}"
        );
        assert_eq!(h2["trailers"][0][0].as_str().unwrap_or_default(), *trailer, "{case}");
        let got = h1["got"].as_str().unwrap();
        let (head, body) = got.rsplit_once("HTTP/1.1 ").unwrap().1.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with(&status.to_string()), "{case}: {got}");
        assert_eq!(body.contains("hello"), *content == "hello", "{case}: {got}");
        assert_eq!(body.contains("x-sum: 1"), *trailer == "x-sum", "{case}: {got}");
        // The connection goes on.
        assert_eq!(h1["ended"], "next, end", "{case}: {got}");
    }
    // A length where a status has none would make a client wait for content, or take the next response for it.
    for case in ["100-with-length", "204-with-length"] {
        let got = results[case]["h1"]["got"].as_str().unwrap();
        let first = got.split("\r\n\r\n").next().unwrap();
        assert!(!first.to_lowercase().contains("content-length"), "{case}: {got}");
    }
    assert_eq!(results["204-with-length"]["h2"]["fields"].as_array().map(Vec::len), Some(1));
    assert_eq!(results["103"]["h2"]["interim"], serde_json::json!(["103"]));
}

#[test]
fn a_backend_that_allows_no_streams_is_waited_for_as_long_as_a_response() {
    let site = site_with(", protocol = \"h2c\"", "http = { response_timeout_ms = 300 }");
    assert_eq!(site.part("http2_hostile.py", "none")["how"], "status 504");
}
