//! Policies of routes that terminate TLS: each over both versions of HTTP, with a backend of each.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use mc_testkit::ca::Ca;
use mc_testkit::client::Request;
use mc_testkit::fresh_address;
use mc_testkit::http::{Client, Origin, Then};
use mc_testkit::peer::Peer;
use mc_testkit::proxy::{Config, Proxy};

use super::http1::{NAME, OK, get};

/// Names of routes whose backends speak HTTP/1.1 and HTTP/2.
const NAMES: [&str; 2] = ["http1.example.org", "http2.example.org"];

/// A proxy before one nginx, with two routes that differ in what it is spoken to.
pub(crate) struct Site {
    pub(crate) proxy: Proxy,
    ca: PathBuf,
    _origin: Peer,
}

/// A response, its field names in lower case.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) status: u16,
    pub(crate) fields: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Got {
    fn text(&self) -> &str {
        str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }
}

/// How a request is made: the version of HTTP, and the route's name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way {
    version: &'static str,
    pub(crate) name: &'static str,
}

pub(crate) fn ways() -> impl Iterator<Item = Way> {
    let versions = ["--http1.1", "--http2"];
    versions.into_iter().flat_map(|version| NAMES.map(|name| Way { version, name }))
}

/// A site whose routes have these lines (`http = { ... }`).
pub(crate) fn site(lines: &str) -> Site {
    let ca = Ca::new();
    let addresses = [fresh_address(), fresh_address()];
    let mut config = Config::new().server("workers = 1").listener("web");
    config = config.certificate("www", &ca.issue(&NAMES));
    for (name, (address, protocol)) in NAMES.iter().zip(addresses.iter().zip(["http1", "h2c"])) {
        let route = format!(
            "mode = \"l7\"\nbackends = [{{ address = \"{address}\", protocol = \"{protocol}\" }}]\n{lines}"
        );
        config = config.route_lines("web", name, &route);
    }
    let proxy = Proxy::start(config);
    let files = proxy.root().join("files");
    std::fs::create_dir(&files).unwrap();
    let values = [
        ("HTTP1", addresses[0].to_string()),
        ("HTTP2", addresses[1].to_string()),
        ("FILES", files.display().to_string()),
    ];
    let mut origin = Peer::nginx("nginx_origin.conf", &values, None);
    origin.wait_ready(|| addresses.iter().all(|address| std::net::TcpStream::connect(address).is_ok()));
    let ca = ca.write(proxy.root());
    Site { proxy, ca, _origin: origin }
}

impl Site {
    /// What curl gets for this path with these arguments.
    pub(crate) fn ask(&self, way: Way, path: &str, arguments: &[&str]) -> Got {
        let web: SocketAddr = self.proxy.web();
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--include", "--path-as-is", "--max-time", "20", way.version])
            .args(["--resolve", &format!("{}:{}:{}", way.name, web.port(), web.ip())])
            .arg("--cacert")
            .arg(&self.ca)
            .args(arguments)
            .arg(format!("https://{}:{}{path}", way.name, web.port()))
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{way:?} {path}: {errors}{}", self.proxy.errors());
        let end = output.stdout.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        let head = str::from_utf8(&output.stdout[..end]).unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let field = |line: &str| {
            let (name, value) = line.split_once(':').unwrap();
            (name.to_ascii_lowercase(), value.trim().to_owned())
        };
        Got { status, fields: lines.map(field).collect(), body: output.stdout[end + 4..].to_vec() }
    }

    fn policy_counts(&self, name: &str) -> BTreeMap<String, (u64, u64)> {
        let listed = self.proxy.ctl(&["policy", "list", "--listener", "web", "--name", name]);
        let count = |entry: &serde_json::Value, what: &str| entry[what].as_u64().unwrap();
        let listed = listed.as_array().unwrap().iter();
        listed
            .map(|entry| {
                let name = entry["policy"]["name"].as_str().unwrap().to_owned();
                (name, (count(entry, "applied"), count(entry, "dry_run")))
            })
            .collect()
    }
}

/// Lines of a route with these policies, each a name and a rule.
pub(crate) fn policies(list: &[(&str, &str)]) -> String {
    let one = |(name, rule): &(&str, &str)| format!("{{ name = \"{name}\", {rule} }}");
    format!("http = {{ policies = [{}] }}", list.iter().map(one).collect::<Vec<_>>().join(", "))
}

#[test]
fn requests_are_refused_as_policies_say() {
    let site = site(&policies(&[
        ("only-read", "methods = [\"GET\", \"HEAD\"]"),
        ("no-bots", "block_user_agent = \"badbot\""),
        ("no-debug", "block_header = { name = \"X-Debug\" }"),
        ("key", "path = \"/internal\", require_header = { name = \"X-Key\", contains = \"abc\" }"),
        ("public", "paths = [\"/public\", \"/internal\"]"),
    ]));
    for way in ways() {
        let check = |path: &str, arguments: &[&str], status: u16| {
            let got = site.ask(way, path, arguments);
            assert_eq!(got.status, status, "{way:?} {path} {arguments:?}: {got:?}");
            assert_eq!(status == 200, got.text().starts_with("GET "), "{way:?} {path}: {got:?}");
            got
        };
        check("/public/x", &[], 200);
        let got = check("/public/x", &["-X", "DELETE"], 405);
        assert_eq!(got.field("allow"), "GET, HEAD");
        assert!(!got.field("x-request-id").is_empty());
        check("/public/x", &["-A", "Some BadBot/1.0"], 403);
        check("/public/x", &["-H", "x-debug: 1"], 403);
        check("/internal", &[], 403);
        check("/internal", &["-H", "X-Key: xABCx"], 200);
        check("//internal", &[], 403);
        check("/%69nternal/x", &[], 403);
        check("/public/../internal", &[], 400);
        check("/public/..;/internal", &[], 400);
        check("/public%2f..%2finternal", &[], 400);
        check("/publication", &[], 404);
    }
    for name in NAMES {
        let counts = site.policy_counts(name);
        let expect = [("only-read", 2), ("no-bots", 2), ("no-debug", 2), ("key", 6), ("public", 2)];
        for (policy, applied) in expect {
            assert_eq!(counts[policy], (applied, 0), "{policy}");
        }
        let labels = [&*format!("name=\"{name}\""), "policy=\"key\"", "state=\"applied\""];
        assert_eq!(site.proxy.metric("mcproxy_route_policy_requests_total", &labels), 6.0);
    }
    let outcomes = ["denied", "not_found", "method_not_allowed", "malformed"];
    for outcome in outcomes {
        let line =
            site.proxy.wait_log(outcome, |line| !line["request"].is_null() && line["outcome"] == outcome);
        assert!(line["backend"].is_null() || line["backend"] == "", "{line}");
    }
}

#[test]
fn a_refusal_leaves_the_connection_open() {
    let site = site(&policies(&[("only-read", "methods = [\"GET\"]")]));
    let web = site.proxy.web();
    let output = Command::new("curl")
        .args(["--silent", "--http1.1", "--resolve", &format!("{}:{}:{}", NAMES[0], web.port(), web.ip())])
        .arg("--cacert")
        .arg(&site.ca)
        .args(["-w", "%{http_code} %{num_connects}\n", "-o", "/dev/null", "-X", "DELETE"])
        .arg(format!("https://{}:{}/a", NAMES[0], web.port()))
        .args(["--next", "--silent", "-w", "%{http_code} %{num_connects}\n", "-o", "/dev/null"])
        .arg("--cacert")
        .arg(&site.ca)
        .args(["--resolve", &format!("{}:{}:{}", NAMES[0], web.port(), web.ip())])
        .arg(format!("https://{}:{}/b", NAMES[0], web.port()))
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "405 1\n200 0\n");
}

#[test]
fn paths_are_rewritten_and_clients_sent_elsewhere() {
    let site = site(&policies(&[
        ("strip", "path = \"/api\", rewrite = { prefix = \"/api\", to = \"/\" }"),
        ("version", "rewrite = { prefix = \"/old\", to = \"/v2/new\" }"),
        (
            "moved",
            "path = \"/moved\", redirect = { to = \"https://{host}/here{path}{query}\", status = 308 }",
        ),
        ("home", "path = \"/home\", redirect = { to = \"/\" }"),
    ]));
    for way in ways() {
        let check = |path: &str, uri: &str| {
            let got = site.ask(way, path, &[]);
            assert_eq!(got.text().split(' ').nth(1), Some(uri), "{way:?} {path}: {got:?}");
        };
        check("/", "/");
        check("/api/users?a=b&c", "/users?a=b&c");
        check("/api", "/");
        check("//api/x%20y", "/x%20y");
        check("/apiary", "/apiary");
        check("/old/x", "/v2/new/x");
        let got = site.ask(way, "/moved/a?b=c", &[]);
        let host = format!("{}:{}", way.name, site.proxy.web().port());
        assert_eq!(got.status, 308);
        assert_eq!(got.field("location"), format!("https://{host}/here/moved/a?b=c"));
        let got = site.ask(way, "/home", &[]);
        assert_eq!((got.status, got.field("location")), (302, "/"));
    }
    let line = site.proxy.wait_log("redirected", |line| line["outcome"] == "redirected");
    assert_eq!(line["request"]["status"].as_u64().or(line["status"].as_u64()), Some(308), "{line}");
}

#[test]
fn fields_are_changed_in_both_directions() {
    let site = site(&policies(&[
        ("in", "request_headers = { set = { X-A = \"ours\" }, remove = [\"X-B\"] }"),
        ("out", "response_headers = { set = { X-Frame-Options = \"DENY\" }, remove = [\"X-Powered-By\"] }"),
        ("tls", "hsts = { include_subdomains = true }"),
        ("get", "path = \"/get\", methods = [\"GET\"]"),
    ]));
    for way in ways() {
        let got = site.ask(way, "/", &["-H", "x-a: theirs", "-H", "x-b: theirs"]);
        assert!(got.text().contains(" x-a=ours x-b= "), "{got:?}");
        let check = |got: &Got| {
            assert_eq!(got.field("x-frame-options"), "DENY", "{way:?}");
            assert_eq!(got.field("strict-transport-security"), "max-age=31536000; includeSubDomains");
            assert!(!got.fields.contains_key("x-powered-by"), "{got:?}");
        };
        check(&got);
        // Of answers of our own, too.
        let got = site.ask(way, "/get", &["-X", "PUT"]);
        assert_eq!(got.status, 405);
        check(&got);
    }
}

#[test]
fn our_own_answers_have_the_page_that_is_wanted() {
    let site = site(&policies(&[
        ("get", "path = \"/get\", methods = [\"GET\"]"),
        ("page", "error_page = { statuses = [405], body = \"<p>{status} {reason} {request_id}</p>\" }"),
        ("rest", "error_page = { content_type = \"text/plain\", body = \"sorry\" }"),
        ("tiny", "path = \"/tiny\", max_body_bytes = 3"),
    ]));
    for way in ways() {
        let got = site.ask(way, "/get", &["-X", "PUT", "-H", "X-Request-ID: abc"]);
        assert_eq!((got.status, got.text()), (405, "<p>405 Method Not Allowed abc</p>"));
        assert_eq!(got.field("content-type"), "text/html; charset=utf-8");
        let got = site.ask(way, "/tiny", &["--data", "four"]);
        assert_eq!((got.status, got.text(), got.field("content-type")), (413, "sorry", "text/plain"));
        let got = site.ask(way, "/tiny", &["--data", "thr"]);
        assert_eq!(got.status, 200);
        // The backend's own stays.
        let got = site.ask(way, "/missing", &[]);
        assert_eq!((got.status, got.text()), (404, "the origin's own\n"));
    }
}

#[test]
fn clients_that_ask_too_fast_are_told_when_to_come_back() {
    let site = site(&policies(&[("logins", "path = \"/login\", rate = { requests = 2, per_s = 3600 }")]));
    for name in NAMES {
        let ways: Vec<Way> = ways().filter(|way| way.name == name).collect();
        let statuses = |path| -> Vec<u16> {
            ways.iter().cycle().take(4).map(|way| site.ask(*way, path, &[]).status).collect()
        };
        assert_eq!(statuses("/login"), [200, 200, 429, 429], "both versions take from one bucket");
        assert_eq!(statuses("/"), [200; 4]);
        assert_eq!(site.ask(ways[0], "/login", &[]).field("retry-after"), "1800");
        assert_eq!(site.policy_counts(name)["logins"], (3, 0));
    }
}

#[test]
fn a_dry_run_is_counted_and_bites_when_it_ends() {
    let site = site(&policies(&[("get", "dry_run = true, methods = [\"GET\"]")]));
    let way = ways().next().unwrap();
    assert_eq!(site.ask(way, "/", &["-X", "PUT"]).status, 200);
    assert_eq!(site.ask(way, "/", &[]).status, 200);
    assert_eq!(site.policy_counts(way.name)["get"], (0, 1));
    let key = ["--listener", "web", "--name", way.name];
    let ctl = |words: &[&str]| site.proxy.ctl(&[words, &key].concat());
    ctl(&["policy", "enforce", "get"]);
    assert_eq!(site.ask(way, "/", &["-X", "PUT"]).status, 405);
    assert_eq!(site.policy_counts(way.name)["get"], (1, 1), "counts outlive the change");
    ctl(&["policy", "dry-run", "get"]);
    assert_eq!(site.ask(way, "/", &["-X", "PUT"]).status, 200);
    ctl(&[
        "policy",
        "add",
        "no-head",
        "--rule",
        "methods=[\"GET\",\"PUT\"]",
        "--path",
        "/x",
        "--before",
        "get",
    ]);
    assert_eq!(site.ask(way, "/x", &["--head"]).status, 405);
    let text = site.proxy.ctl_text(&[&["policy", "list"], key.as_slice()].concat());
    assert!(text.find("no-head").unwrap() < text.find("get ").unwrap(), "{text}");
    ctl(&["policy", "remove", "no-head"]);
    assert_eq!(site.ask(way, "/x", &["--head"]).status, 200);
    let none = site.proxy.ctl_output(&[&["policy", "remove", "no-head"], key.as_slice()].concat());
    assert_eq!(none.status.code(), Some(4));
    let file = site.proxy.root().join("policies.toml");
    std::fs::write(&file, "[[policies]]\nname = 'all'\nblock_header = { name = 'X-Bad' }\n").unwrap();
    ctl(&["policy", "replace", file.to_str().unwrap()]);
    assert_eq!(site.policy_counts(way.name).keys().collect::<Vec<_>>(), ["all"]);
}

#[test]
fn backends_are_chosen_by_path() {
    let said = |text: &str| {
        Origin::saying(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len()), Then::Keep)
    };
    let (all, api) = (said("all"), said("api"));
    let site = site("");
    let backends = |first: &str| {
        let words = ["route", "update", "--listener", "web", "--name", NAMES[0], "--backend", first];
        let api = format!("{},path=/api", api.address());
        let _done = site.proxy.ctl_text(&[words.as_slice(), &["--backend", &api]].concat());
    };
    backends(&all.address().to_string());
    for way in ways().filter(|way| way.name == NAMES[0]) {
        let check =
            |path: &str, expect: &str| assert_eq!(site.ask(way, path, &[]).text(), expect, "{way:?} {path}");
        check("/", "all");
        check("/apiary", "all");
        check("/api", "api");
        check("/api/x?y", "api");
        check("//%61pi/x", "api");
        assert_eq!(site.ask(way, "/x/../api", &[]).status, 400);
    }
    backends(&format!("{},path=/www", all.address()));
    for way in ways().filter(|way| way.name == NAMES[0]) {
        assert_eq!(site.ask(way, "/", &[]).status, 404);
        assert_eq!(site.ask(way, "/www", &[]).text(), "all");
    }
}

#[test]
fn a_cookie_keeps_a_client_with_its_backend() {
    let said = |text: &str| {
        Origin::saying(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len()), Then::Keep)
    };
    let site = site("");
    let origins = [said("a"), said("b"), said("c")];
    let addresses: Vec<String> = origins.iter().map(|origin| origin.address().to_string()).collect();
    let backends: Vec<&str> = addresses.iter().flat_map(|address| ["--backend", address]).collect();
    let words = [
        "route",
        "update",
        "--listener",
        "web",
        "--name",
        NAMES[0],
        "--sticky",
        "sid",
        "--sticky-max-age-s",
        "60",
    ];
    let _done = site.proxy.ctl_text(&[words.as_slice(), &backends].concat());
    let ways: Vec<Way> = ways().filter(|way| way.name == NAMES[0]).collect();
    let first = site.ask(ways[0], "/", &[]);
    let cookie = first.field("set-cookie").to_owned();
    assert!(
        cookie.starts_with("sid=") && cookie.contains("; HttpOnly; Secure; SameSite=Lax; Max-Age=60"),
        "{cookie}"
    );
    let pair = cookie.split(';').next().unwrap().to_owned();
    for _ in 0..10 {
        for way in &ways {
            let got = site.ask(*way, "/", &["-H", &format!("Cookie: x=y; {pair}")]);
            assert_eq!(got.text(), first.text());
            assert_eq!(got.field("set-cookie"), "", "it has one");
        }
    }
    // Its backend goes: another takes over, and says so.
    let gone = ["a", "b", "c"].iter().position(|text| *text == first.text()).unwrap();
    let _done = site.proxy.ctl_text(&["backend", "drain", &addresses[gone]]);
    let got = site.ask(ways[0], "/", &["-H", &format!("Cookie: {pair}")]);
    assert_ne!(got.text(), first.text());
    assert!(got.field("set-cookie").starts_with("sid="), "{got:?}");
    // What nobody has set is nobody's.
    let got = site.ask(ways[0], "/", &["-H", "Cookie: sid=zzz"]);
    assert!(got.field("set-cookie").starts_with("sid="), "{got:?}");
}

#[test]
fn a_share_of_the_requests_goes_to_a_mirror_too() {
    let mirror =
        Origin::saying("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n", Then::Close);
    let to = format!("mirror = {{ to = \"{}\" }}", mirror.address());
    let strip = "rewrite = { prefix = \"/api\", to = \"/v2\" }, path = \"/api\"";
    let site = site(&policies(&[
        ("strip", strip),
        ("copy", &to),
        ("in", "request_headers = { set = { X-A = \"ours\" } }"),
    ]));
    let big = site.proxy.root().join("big");
    std::fs::write(&big, vec![b'x'; 300_000]).unwrap();
    let big = big.display().to_string();
    let mut sent = 0;
    let wait = |sent: usize| {
        site.proxy.wait_metric("mcproxy_mirrored_requests_total", &["state=\"answered\""], sent as f64);
        String::from_utf8(mirror.got()[sent - 1].clone()).unwrap()
    };
    for way in ways() {
        assert_eq!(site.ask(way, "/api/x", &[]).status, 200);
        sent += 1;
        let copy = wait(sent);
        assert!(copy.starts_with("GET /v2/x HTTP/1.1\r\n"), "{copy}");
        assert!(copy.contains(&format!("Host: {}", way.name)) && copy.contains("X-A: ours\r\n"), "{copy}");
        assert_eq!(site.ask(way, "/", &["--data", "hello"]).status, 200);
        sent += 1;
        assert!(wait(sent).ends_with("\r\n\r\nhello"));
        let got =
            site.ask(way, "/files/up", &["-T", &big, "-H", "Expect:", "-H", "Transfer-Encoding: chunked"]);
        assert!(matches!(got.status, 201 | 204), "{got:?}");
        sent += 1;
        let copy = wait(sent);
        assert_eq!(
            copy.matches('x').count() - copy[..copy.find("\r\n\r\n").unwrap()].matches('x').count(),
            300_000
        );
    }
    // A mirror that is not there is nobody's trouble.
    drop(mirror);
    let way = ways().next().unwrap();
    let gone = format!("mirror={{to=\"{}\",percent=100}}", fresh_address());
    let _done = site.proxy.ctl(&[
        "policy",
        "add",
        "--listener",
        "web",
        "--name",
        way.name,
        "copy",
        "--replace",
        "--rule",
        &gone,
    ]);
    assert_eq!(site.ask(way, "/", &[]).status, 200);
    site.proxy.wait_metric("mcproxy_mirrored_requests_total", &["state=\"given_up\""], 1.0);
}

#[test]
fn responses_are_compressed_where_the_backend_did_not() {
    let site = site(&policies(&[("small", "compress = {}"), ("page", "error_page = { body = \"sorry\" }")]));
    let text = "some text that repeats itself, and so can be made small\n".repeat(5_000);
    for (name, content) in [("text", text.as_str()), ("tiny", "tiny")] {
        std::fs::write(site.proxy.root().join("files").join(name), content).unwrap();
    }
    for way in ways() {
        let plain = site.ask(way, "/files/text", &[]);
        assert_eq!((plain.field("content-encoding"), plain.text()), ("", text.as_str()));
        assert_eq!(plain.field("vary"), "Accept-Encoding", "caches must know");
        for coding in ["gzip", "br", "zstd"] {
            let accept = format!("Accept-Encoding: {coding}");
            let got = site.ask(way, "/files/text", &["-H", &accept]);
            assert_eq!(got.field("content-encoding"), coding, "{way:?} {got:?}");
            assert!(got.body.len() < text.len() / 20, "{way:?} {coding}: {} bytes", got.body.len());
            assert_eq!(got.field("etag"), format!("W/{}", plain.field("etag")), "{way:?} {coding}");
            assert_eq!((got.field("content-length"), got.field("accept-ranges")), ("", ""));
            // What curl knows of it decodes itself.
            if coding != "zstd" {
                let got = site.ask(way, "/files/text", &["-H", &accept, "--compressed"]);
                assert_eq!(got.text(), text, "{way:?} {coding}");
            }
        }
        let stays = |path: &str, arguments: &[&str]| {
            let all = [&["-H", "Accept-Encoding: gzip"], arguments].concat();
            let got = site.ask(way, path, &all);
            assert_eq!(got.field("content-encoding"), "", "{way:?} {path} {arguments:?}");
            got
        };
        assert_eq!(stays("/files/tiny", &[]).text(), "tiny");
        let part = stays("/files/text", &["-r", "0-3"]);
        assert_eq!((part.status, part.text(), part.field("accept-ranges")), (206, "some", ""));
        let head = stays("/files/text", &["--head"]);
        assert_eq!(head.field("content-length"), text.len().to_string());
    }
}

#[test]
fn what_makes_no_sense_is_refused_with_its_field() {
    let site = site("");
    let check = |rule: &str, field: &str| {
        let words = ["policy", "add", "--listener", "web", "--name", NAMES[0], "p", "--rule", rule];
        let output = site.proxy.ctl_output(&words);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{rule}: {errors}");
        assert!(errors.contains(&format!("http.policies[0].{field}: ")), "{rule}: {errors}");
    };
    check("methods=[]", "methods");
    check("methods=[\"G T\"]", "methods");
    check("paths=[\"api\"]", "paths");
    check("paths=[\"/a/../b\"]", "paths");
    check("rewrite={prefix=\"/a\",to=\"b\"}", "rewrite.to");
    check("redirect={to=\"//evil.example\"}", "redirect.to");
    check("redirect={to=\"/{path}\"}", "redirect.to");
    check("redirect={to=\"/x\",status=200}", "redirect.status");
    check("rate={requests=0}", "rate.requests");
    check("max_body_bytes=0", "max_body_bytes");
    check("request_headers={set={Host=\"x\"}}", "request_headers.set");
    check("response_headers={set={X=\"a\\r\\nb\"}}", "response_headers.set");
    check("response_headers={remove=[\"Transfer-Encoding\"]}", "response_headers.set");
    check("require_header={name=\"a b\"}", "require_header.name");
    check("error_page={statuses=[200],body=\"x\"}", "error_page.statuses");
    check("compress={codings=[\"gzip\",\"gzip\"]}", "compress.codings");
    check("compress={types=[\"a*b\"]}", "compress.types");
    check("mirror={to=\"127.0.0.1:0\"}", "mirror.to");
    check("mirror={to=\"127.0.0.1:80\",percent=0}", "mirror.percent");
}

#[test]
fn a_mirror_that_never_answers_takes_a_few_descriptors_and_no_other_mirrors_copies() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let answering = Origin::saying(OK, Then::Close);
    let origin = Origin::saying(OK, Then::Keep);
    let ca = Ca::new();
    let lines = |to: SocketAddr| {
        format!(
            "mode = \"l7\"\nhttp = {{ policies = [{{ name = \"copy\", mirror = {{ to = \"{to}\" }} }}] }}"
        )
    };
    let config =
        Config::new().server("workers = 1").listener("web").certificate("www", &ca.issue(&[NAME, NAMES[0]]));
    let config = config.route_with(NAME, &[origin.address()], &lines(silent.local_addr().unwrap()));
    let proxy = Proxy::start(config.route_with(NAMES[0], &[origin.address()], &lines(answering.address())));
    let client = |name| Client::on(Request::new(&ca, proxy.web(), name).alpn(&["http/1.1"]).open().unwrap());
    let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", proxy.pid())).unwrap().count();
    let mut kept = client(NAME);
    let before = descriptors();
    for _ in 0..300 {
        assert_eq!(kept.ask(get("/")).status(), 200);
    }
    assert!(descriptors() < before + 80, "{} and {before} descriptors", descriptors());
    proxy.wait_metric("mcproxy_mirrored_requests_total", &["state=\"dropped\""], 300.0 - 64.0);
    let request = get("/").replace(NAME, NAMES[0]);
    assert_eq!(client(NAMES[0]).ask(request).status(), 200);
    proxy.wait_metric("mcproxy_mirrored_requests_total", &["state=\"answered\""], 1.0);
}

#[test]
fn a_mirror_gets_what_its_backend_did_not_wait_for() {
    let mirror = Origin::saying("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Then::Close);
    let to = format!("{{ name = \"copy\", mirror = {{ to = \"{}\" }} }}", mirror.address());
    let site = super::http2::site_with("", &format!("http = {{ policies = [{to}] }}"));
    assert_eq!(site.part("http2_slow.py", "early")["how"], "status 200");
    // The request, and one that asks whether the connection lives.
    site.proxy.wait_metric("mcproxy_mirrored_requests_total", &["state=\"answered\""], 2.0);
    assert!(mirror.text().contains("\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), "{}", mirror.text());
}

#[test]
fn what_several_operators_add_at_the_same_time_is_all_there() {
    let site = site("");
    let name = ways().next().unwrap().name;
    std::thread::scope(|scope| {
        for operator in 0..8 {
            let proxy = &site.proxy;
            scope.spawn(move || {
                let (policy, rule) = (format!("p{operator}"), "methods=[\"GET\"]");
                let key = ["--listener", "web", "--name", name];
                let _added = proxy.ctl(&[&["policy", "add"], &key[..], &[&*policy, "--rule", rule]].concat());
            });
        }
    });
    assert_eq!(site.policy_counts(name).len(), 8);
}
