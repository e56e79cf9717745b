//! RFC 9113 sentence by sentence: frames, streams, flow control and messages, each written by hand. The table is
//! `docs/acceptance/rfc9113.md`.
//!
//! `goaway 1` is a connection error of type PROTOCOL_ERROR, and the connection was closed; `reset 1` a stream error, and
//! `alive` says that the connection carried another request after it. RFC 9113 section 5.4 lets a generic error code
//! stand for a more specific one, and section 5.4.1 a connection error for a stream error.

use serde_json::Value;

use super::http2::{site, site_with};

/// What is expected of several cases, each as the fixture names it.
type Expected<'a> = &'a [(&'a str, &'a [&'a str])];

/// Asks for one part of the fixture; sees that each case ends as expected, and that none is left out.
fn check(results: &Value, expected: Expected<'_>) {
    let mut asked = 0;
    for (how, cases) in expected {
        for case in *cases {
            // Messages come with what the backend got.
            let result = &results[case];
            let got = result.as_str().or_else(|| result[0].as_str());
            assert_eq!(got, Some(*how), "{case}");
            asked += 1;
        }
    }
    assert_eq!(
        results.as_object().map(serde_json::Map::len),
        Some(asked),
        "every case is expected to end somehow"
    );
}

#[test]
fn frames_are_checked_one_by_one() {
    let results = site("").part("http2_protocol.py", "frames");
    check(
        &results,
        &[
            (
                "ignored",
                &[
                    "ENABLE_PUSH of 1",
                    "MAX_CONCURRENT_STREAMS of 0",
                    "MAX_FRAME_SIZE of 2^24-1",
                    "PING ACK for nothing",
                    "PRIORITY on an idle stream",
                    "RST_STREAM with an unknown code",
                    "SETTINGS ACK for nothing",
                    "frame of unknown type",
                    "reserved bit",
                    "setting given twice",
                    "unknown setting",
                    "unused flags on PING",
                ],
            ),
            (
                "status 200 alive",
                &[
                    "DATA with padding",
                    "HEADERS with padding and priority",
                    "field block in three frames",
                    "frame of the size allowed",
                    "padding that is not zero",
                    "table size update",
                    "unused flags on HEADERS and DATA",
                ],
            ),
            (
                "goaway 1",
                &[
                    "CONTINUATION after END_HEADERS",
                    "CONTINUATION after nothing",
                    "CONTINUATION of another stream",
                    "CONTINUATION on stream 0",
                    "DATA on stream 0",
                    "DATA padded without a pad length",
                    "DATA with more padding than payload",
                    "DATA with padding of its own length",
                    "DATA within a field block",
                    "ENABLE_PUSH of 2",
                    "GOAWAY of seven bytes",
                    "GOAWAY on a stream",
                    "HEADERS on stream 0",
                    "HEADERS too short for its priority",
                    "HEADERS with more padding than payload",
                    "HEADERS within a field block",
                    "INITIAL_WINDOW_SIZE of 2^31",
                    "MAX_FRAME_SIZE of 2^14-1",
                    "MAX_FRAME_SIZE of 2^24",
                    "PING of nine bytes",
                    "PING of seven bytes",
                    "PING on a stream",
                    "PING within a field block",
                    "PRIORITY of four bytes",
                    "PRIORITY of six bytes",
                    "PRIORITY on stream 0",
                    "PUSH_PROMISE of a client",
                    "PUSH_PROMISE on stream 0",
                    "RST_STREAM of five bytes",
                    "RST_STREAM of three bytes",
                    "RST_STREAM on an idle stream",
                    "RST_STREAM on stream 0",
                    "SETTINGS ACK with a payload",
                    "SETTINGS of five bytes",
                    "SETTINGS on a stream",
                    "WINDOW_UPDATE of 0 on a stream",
                    "WINDOW_UPDATE of 0 on the connection",
                    "WINDOW_UPDATE of five bytes",
                    "WINDOW_UPDATE of three bytes",
                    "WINDOW_UPDATE on an idle stream",
                    "field block that is cut",
                    "field block that is no HPACK",
                    "index beyond the table",
                    "table size above what was offered",
                    "unknown frame within a field block",
                ],
            ),
            ("goaway 6", &["SETTINGS larger than allowed", "frame larger than allowed"]),
            ("reset 1 alive", &["PRIORITY that depends on itself"]),
            // The engine leaves such a field block unread, and ends the connection at the next one that needs it.
            ("reset 1 dead", &["HEADERS that depend on themselves"]),
            ("closed", &["HTTP/1.1 in place of the preface", "invalid preface"]),
            // What is sent on a new connection, and what is answered to SETTINGS and PING: sorted, as PING may come first.
            ("settings", &["first frame"]),
            ("0x20 0 200", &["smaller table"]),
            ("abcdefgh 1 ack ack settings the last 1", &["answers"]),
            (r#"{"3": 128, "4": 262144, "6": 32768, "8": 1}"#, &["settings"]),
        ],
    );
}

#[test]
fn streams_are_open_and_closed_as_told() {
    let results = site("").part("http2_protocol.py", "streams");
    check(
        &results,
        &[
            (
                "ignored",
                &[
                    "PRIORITY on a closed stream",
                    "PRIORITY on a stream half closed",
                    "RST_STREAM on a closed stream",
                    "RST_STREAM on a stream half closed",
                    "RST_STREAM twice",
                    "WINDOW_UPDATE after RST_STREAM",
                    "WINDOW_UPDATE on a closed stream",
                    "WINDOW_UPDATE on a stream half closed",
                    "streams left out",
                ],
            ),
            (
                "reset 5, alive",
                &["DATA after RST_STREAM", "DATA on a closed stream", "DATA on a stream left out"],
            ),
            (
                "goaway 1",
                &[
                    "CONTINUATION on an idle stream",
                    "DATA on a stream half closed",
                    "DATA on an idle stream",
                    "HEADERS after RST_STREAM",
                    "HEADERS on a closed stream",
                    "HEADERS on a stream half closed",
                    "WINDOW_UPDATE on an idle stream",
                    "even stream",
                    "lower stream than before",
                ],
            ),
            ("128 served, reset 7, alive", &["more streams than allowed"]),
            ("reset 1, then status 200", &["frames after a stream error"]),
            ("silence, alive", &["RST_STREAM is not answered"]),
            ("status 200, goaway ['1 0'], closed", &["GOAWAY of a client"]),
            ("3 1", &["last stream of GOAWAY"]),
        ],
    );
}

#[test]
fn flow_control_is_kept_on_both_sides() {
    let results = site("").part("http2_protocol.py", "flow");
    check(
        &results,
        &[
            ("goaway 3", &["connection window beyond 2^31-1", "windows beyond 2^31-1 by a setting"]),
            ("reset 3 alive", &["stream window beyond 2^31-1"]),
            ("reset 3", &["more DATA than the window"]),
            ("status 200", &["empty DATA without a window", "padding counts"]),
            ("1000 500", &["window respected"]),
            ("2000 0 100", &["window that shrinks below nothing"]),
            ("0 3000", &["window that grows with a setting"]),
            ("65535 0 1000", &["connection window is not of SETTINGS"]),
            ("4194304 at most 16384", &["large frames are not sent unasked"]),
            ("4194304 more than 16384", &["smaller frames than allowed"]),
            ("12345678, status 200", &["control frames without a window"]),
        ],
    );
}

#[test]
fn messages_are_well_formed_or_refused() {
    let results = site("").part("http2_protocol.py", "messages");
    let expected: Expected<'_> = &[
        (
            "status 200 alive",
            &[
                "plain",
                "asterisk",
                "content-length right",
                "cookies",
                "host alone",
                "host is :authority with its port",
                ":authority is host with its port",
                "scheme in capitals",
                "te: trailers",
                "trailers",
                "value beyond ASCII",
                // The engine drops pseudo fields of trailers instead of refusing them; nobody sees them.
                "trailers with :status",
                "trailers with a pseudo field",
            ],
        ),
        (
            "status 400 alive",
            &[
                "CONNECT",
                "asterisk for GET",
                "content-length of nothing",
                "content-length twice",
                "host differs from :authority",
                "host with another port",
                "neither :authority nor host",
                "scheme of something else",
                "user in :authority",
                "value of spaces",
                "value that begins with a space",
                "value that ends with a tab",
            ],
        ),
        ("status 431 alive", &["fields larger than allowed"]),
        (
            "reset 1 alive",
            &[
                ":authority twice",
                ":method twice",
                ":path twice",
                ":protocol without CONNECT",
                ":scheme twice",
                ":status in a request",
                "CONNECT with a path",
                "connection",
                "content-length beyond 63 bits",
                "content-length of a request that has ended",
                "content-length too great",
                "content-length too small",
                "empty :authority",
                "empty :path",
                "keep-alive",
                "no :method",
                "no :path",
                "no :scheme",
                "proxy-connection",
                "pseudo field after a field",
                "scheme with more in it",
                "te: gzip",
                "te: trailers, gzip",
                "trailers that do not end",
                "transfer-encoding",
                "upgrade",
            ],
        ),
        // The engine takes these for HPACK that it cannot read, and the whole connection ends.
        (
            "goaway 1",
            &[
                "DATA after trailers",
                "empty name",
                "name beyond ASCII",
                "name in upper case",
                "name with a colon",
                "name with a control character",
                "name with a space",
                "trailers in upper case",
                "trailers twice",
                "unknown pseudo field",
                "value with CR",
                "value with LF",
                "value with NUL",
            ],
        ),
    ];
    check(&results, expected);
    for (how, cases) in expected {
        for case in *cases {
            let got = results[case][1].as_str().unwrap();
            if *how == "status 200 alive" {
                assert_eq!(got.matches(" HTTP/1.1\r\n").count(), 1, "{case}: {got}");
            } else if got.starts_with("POST ") {
                // A body turned out malformed when the head had been passed on: it must not look complete.
                assert!(!got.ends_with("0\r\n\r\n") && !got.contains("x-sum: 2"), "{case}: {got}");
                assert!(!got.contains("Content-Length: 2\r\n\r\nhe"), "{case}: {got}");
            } else {
                assert_eq!(got, "", "{case}: the backend got something");
            }
        }
    }
    let got = |case: &str| results[case][1].as_str().unwrap();
    assert!(got("cookies").contains("\r\ncookie: a=1; b=2; c=3\r\n"), "{}", got("cookies"));
    for case in ["host is :authority with its port", "host alone"] {
        assert!(got(case).contains("\r\nHost: www.example.org\r\n"), "{}", got(case));
    }
    assert!(got("trailers with :status").ends_with("hello\r\n0\r\n\r\n"), "{}", got("trailers with :status"));
    assert!(!got("te: trailers").to_lowercase().contains("\r\nte:"), "{}", got("te: trailers"));
}

#[test]
fn a_client_is_told_when_its_connection_ends() {
    // Whether a request that was on its way was looked at, it can then know (section 6.8).
    let site = site_with("", "http = { keepalive_timeout_ms = 2000 }");
    let result = site.part("http2_protocol.py", "idle");
    assert_eq!(result["ends"], serde_json::json!(["status 200", "status 200"]));
    assert_eq!(result["heard"], serde_json::json!(["3 0"]));
    site.proxy.wait_outcome("idle_timeout");
}

#[test]
fn a_proxy_that_stops_says_so_and_finishes_what_is_under_way() {
    let site = site("");
    let result = site.part("http2_protocol.py", &format!("stop:{}", site.proxy.pid()));
    let heard: Vec<&str> = result["heard"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    // Perhaps first that nothing more should come, in the end what has: while the request is still under way.
    assert!(heard[0].starts_with("goaway"), "{heard:?}");
    let goaways: Vec<&str> = heard.iter().copied().filter(|text| text.starts_with("goaway")).collect();
    assert!(goaways.last() == Some(&"goaway 3 0") && goaways.len() <= 2, "{heard:?}");
    assert!(goaways.len() == 1 || goaways[0] == "goaway 2147483647 0", "{heard:?}");
    assert!(heard.contains(&"status 200") && heard.last() == Some(&"closed"), "{heard:?}");
}
