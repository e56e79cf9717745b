//! Clients of HTTP/2 that try to cost more than they should: how they end, what memory they take while they last, what
//! their backend sees of them, and whether others are served meanwhile.

use mc_testkit::clock::wait_until;

use super::http2::{site, site_by};

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

/// A thousand responses that are compressed for clients that take nothing cost a GiB where nobody counts them. Those that are
/// compressed are bounded, the others pass as they are.
#[test]
fn compressing_is_bounded_by_memory() {
    let (result, proxy) = under(200, "compressed");
    assert!(result["most"].as_u64().unwrap() < 300 * 1024, "{result}");
    assert_eq!(result["served"], true, "{result}");
    let limit = proxy.metric("mcproxy_compressing_limit", &[]);
    assert!((30.0..50.0).contains(&limit), "{limit}");
    wait_until("all to be over", || proxy.metric("mcproxy_compressing", &[]) == 0.0);
}

/// If memory is short nevertheless, the connection that has blocked longest is closed first, and others are served.
#[test]
fn where_memory_is_short_the_longest_blocked_go_first() {
    let (result, proxy) = under(64, "compressed");
    assert!(result["most"].as_u64().unwrap() < 160 * 1024, "{result}");
    assert!(result["ended"].as_u64().unwrap() > 0, "{result}");
    assert_eq!(result["served"], true, "{result}");
    assert!(proxy.metric("mcproxy_connections_total", &["outcome=\"overload\""]) > 0.0);
    wait_until("memory to suffice", || proxy.metric("mcproxy_memory_short", &[]) == 0.0);
}

/// So do requests whose heads wait for a backend that does not answer: who has most of them goes.
#[test]
fn where_memory_is_short_who_has_most_requests_goes() {
    let (result, proxy) = under(45, "waiting");
    assert!(result["ended"].as_u64().unwrap() > 0, "{result}");
    assert_eq!(result["served"], true, "{result}");
    wait_until("memory to suffice", || proxy.metric("mcproxy_memory_short", &[]) == 0.0);
}

/// Has clients take the memory of a proxy with this limit in MiB, in this way.
fn under(mib: u64, way: &str) -> (serde_json::Value, mc_testkit::proxy::Proxy) {
    let _machine = mc_testkit::heavy();
    let server = format!("workers = 2\nmax_memory_bytes = {}\n", mib << 20);
    let policies = "http = { policies = [{ name = \"small\", compress = {} }] }";
    let site = site_by(&server, "", policies);
    let result = site.part("http2_memory.py", &format!("{way}:{}", site.proxy.pid()));
    (result, site.proxy)
}
