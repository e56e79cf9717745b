//! Clients of HTTP/2 that try to cost more than they should: how they end, what memory they take while they last, what
//! their backend sees of them, and whether others are served meanwhile.

use super::http2::site;

/// A flood, how it ends, how many KiB MC-Proxy may grow by for each of its connections, and how many requests of each
/// may reach the backend.
type Flood<'a> = (&'a str, &'a str, u64, u64, u64);

fn check(floods: &[Flood<'_>]) {
    let _machine = mc_testkit::heavy();
    for (flood, how, connections, kib, requests) in floods {
        let site = site("");
        let result = site.part("http2_floods.py", &format!("{flood}:{}", site.proxy.pid()));
        assert_eq!((&result["how"], &result["served"]), (&(*how).into(), &true.into()), "{flood}: {result}");
        // Memory that is asked for once, whatever the flood.
        let most = 8 * 1024 + connections * kib;
        assert!(result["grown"].as_i64().unwrap() < i64::try_from(most).unwrap(), "{flood}: {result}");
        // One is the other client's.
        assert!(result["requests"].as_u64().unwrap() <= 1 + connections * requests, "{flood}: {result}");
    }
}

#[test]
fn floods_are_bounded() {
    let calm = "goaway 11";
    check(&[
        // CVE-2023-44487, and the same with resets that the server is made to send (CVE-2025-8671).
        ("rapid reset", calm, 4, 512, 500),
        ("provoked reset", calm, 4, 2_048, 500),
        // CVE-2024-27316.
        ("continuation", calm, 20, 128, 0),
        ("empty continuation", calm, 20, 128, 0),
        ("empty data", calm, 4, 128, 1),
        ("padded data", calm, 4, 128, 1),
        // CVE-2016-6581: little on the wire, much in memory.
        ("bomb", calm, 20, 256, 0),
        // Answers that nobody reads: what asks for them is not read either.
        ("settings", "held back", 4, 512, 0),
        ("ping", "held back", 4, 512, 0),
        // These have no answer, and cost nothing but the bytes that they are.
        ("priority", "taken", 4, 128, 0),
    ]);
}

#[test]
fn windows_that_are_not_opened_are_bounded() {
    check(&[
        ("closed windows", "held", 8, 16 * 1024, 128),
        ("unread windows", "held", 8, 24 * 1024, 128),
        ("tiny windows", "held", 4, 16 * 1024, 128),
        ("open streams", "held", 8, 4 * 1024, 128),
    ]);
}
