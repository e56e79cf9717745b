//! Clients that speak HTTP/2: real ones, and one that writes what no client should.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command};

use mc_testkit::ca::Ca;
use mc_testkit::proxy::{Config, Proxy};
use mc_testkit::{fresh_address, venv};
use serde_json::{Value, json};

const NAME: &str = "www.example.org";

/// A proxy that terminates TLS for one name, whose backend is to come.
pub(crate) struct Site {
    pub(crate) proxy: Proxy,
    ca: std::path::PathBuf,
    backend: SocketAddr,
    /// Certificate and key of a backend that speaks TLS.
    backend_tls: Vec<std::path::PathBuf>,
    _files: tempfile::TempDir,
}

pub(crate) fn site(backend_lines: &str) -> Site {
    site_of("", backend_lines, "", false)
}

/// With more lines for the route.
pub(crate) fn site_with(backend_lines: &str, lines: &str) -> Site {
    site_of("", backend_lines, lines, false)
}

/// With more lines for the server and the route.
pub(crate) fn site_by(server: &str, backend_lines: &str, lines: &str) -> Site {
    site_of(server, backend_lines, lines, false)
}

/// A site; `tls`: its backend speaks TLS, with a certificate for the route's name.
fn site_of(server: &str, backend_lines: &str, lines: &str, tls: bool) -> Site {
    let ca = Ca::new();
    let backend = fresh_address();
    let files = tempfile::tempdir().expect("there is room for a test");
    let ca_file = ca.write(files.path());
    let mut lines =
        format!("mode = \"l7\"\nbackends = [{{ address = \"{backend}\"{backend_lines} }}]\n{lines}");
    let mut backend_tls = Vec::new();
    if tls {
        lines += &format!("\nhttp = {{ backend_ca = \"{}\" }}", ca_file.display());
        let (certificate, key) = ca.issue(&[NAME]).write(files.path());
        backend_tls = vec![certificate, key];
    }
    let config = Config::new()
        .server(server)
        .listener("web")
        .certificate("www", &ca.issue(&[NAME]))
        .route_lines("web", NAME, &lines);
    Site { proxy: Proxy::start(config), ca: ca_file, backend, backend_tls, _files: files }
}

impl Site {
    /// A Python program of the fixtures, in the order of arguments that all of them have.
    pub(crate) fn command(&self, program: &str, part: &str) -> Command {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(program);
        let (proxy, backend) = (self.proxy.web(), self.backend);
        let mut command = Command::new(venv().join("bin/python"));
        command
            .arg(path)
            .args([proxy.ip().to_string(), proxy.port().to_string()])
            .args([backend.ip().to_string(), backend.port().to_string()])
            .arg(&self.ca)
            .arg(NAME)
            .args((!part.is_empty()).then_some(part))
            .args(&self.backend_tls);
        command
    }

    #[expect(clippy::unwrap_used, reason = "a test's helper")]
    fn run(&self, program: &str, part: &str) -> String {
        let output = self.command(program, part).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program}: {errors}\n{}", self.proxy.errors());
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, program: &str) -> Value {
        self.part(program, "")
    }

    /// What a program says of one of its parts.
    pub(crate) fn part(&self, program: &str, part: &str) -> Value {
        serde_json::from_str(&self.run(program, part)).expect("the program prints JSON")
    }

    /// A Debian program that asks for the site's page.
    #[expect(clippy::unwrap_used, reason = "a test's helper")]
    fn client(&self, program: &str, arguments: &[&str]) -> String {
        let output = Command::new(program).args(arguments).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{program}: {text}{}", String::from_utf8_lossy(&output.stderr));
        text
    }
}

#[test]
fn frames_that_no_client_should_send_do_no_harm() {
    let site = site("");
    let results = site.json("http2_raw.py");
    let case = |name: &str| {
        let [how, got] = [0, 1].map(|index| results[name][index].as_str().unwrap_or_default());
        (how, got)
    };
    for name in ["plain", "cookies", "body", "body with length", "trailers", "plain again"] {
        let (how, got) = case(name);
        assert_eq!(how, "status 200", "{name}");
        assert_eq!(got.matches(" HTTP/1.1\r\n").count(), 1, "{name}: {got}");
    }
    assert!(case("cookies").1.contains("cookie: a=1; b=2\r\n"), "{}", case("cookies").1);
    assert!(case("body").1.ends_with("\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), "{}", case("body").1);
    assert!(case("body with length").1.ends_with("\r\n\r\nhello"), "{}", case("body with length").1);
    assert!(case("trailers").1.ends_with("0\r\nx-sum: 1\r\n\r\n"), "{}", case("trailers").1);
    let refused = [
        "value with CRLF",
        "value with LF",
        "value with NUL",
        "name with colon",
        "name with CRLF",
        "name with space",
        "name in upper case",
        "transfer-encoding",
        "connection",
        "upgrade",
        "te other than trailers",
        "path with space",
        "path with a blank",
        "path empty",
        "path missing",
        "path twice",
        "path of another form",
        "method with space",
        "method missing",
        "scheme missing",
        "pseudo after regular",
        "unknown pseudo",
        "another authority",
        "authority with user",
        "authority with path",
        "authority and host differ",
        "host twice",
        "no host at all",
        "length twice",
        "length as list",
        "length with sign",
        "CONNECT",
    ];
    for name in refused {
        let (how, got) = case(name);
        assert_eq!(got, "", "{name}: the backend got something");
        assert!(["status 400", "status 421", "reset 1", "goaway 1"].contains(&how), "{name}: {how}");
    }
    assert_eq!(case("another authority").0, "status 421");
    // Extended CONNECT becomes an upgrade, with the key that HTTP/1.1 asks for.
    let (how, got) = case("websocket");
    assert_eq!(how, "200 welcomeping end");
    assert!(got.starts_with("GET / HTTP/1.1\r\n") && got.contains("\r\nsec-websocket-key: "), "{got}");
    // A body that is not as long as it says: the backend must not take it for complete.
    for name in ["length too great", "length too small"] {
        let (how, got) = case(name);
        assert_eq!(how, "reset 1", "{name}");
        assert!(!got.ends_with("hello"), "{name}: {got}");
    }
    for (name, field) in [
        ("trailers with length", "content-length"),
        ("trailers with encoding", "transfer-encoding"),
        ("trailers with forwarded", "x-forwarded-for: 192"),
        ("trailers with pseudo", ":path"),
    ] {
        assert!(!case(name).1.contains(field), "{name}: {}", case(name).1);
    }
    for (name, how) in [
        ("rapid reset", "goaway 11"),
        ("continuation flood", "goaway 11"),
        ("ping flood", "status 200"),
        ("settings flood", "status 200"),
        ("empty data flood", "goaway 11"),
        ("window overflow", "goaway 3"),
        ("window of nothing", "goaway 1"),
        ("data on no stream", "goaway 1"),
        ("data on stream 0", "goaway 1"),
        ("frame too large", "goaway 6"),
        ("even stream", "goaway 1"),
        ("headers too large", "goaway 1"),
    ] {
        assert_eq!(case(name).0, how, "{name}");
    }
    assert!(site.proxy.rss_kib() < 200 * 1024, "{} KiB after floods", site.proxy.rss_kib());
}

#[test]
fn grpc_passes_in_both_directions() {
    grpc(&site(", protocol = \"h2c\""));
}

#[test]
fn grpc_passes_to_a_backend_of_tls() {
    grpc(&site_of("", ", protocol = \"h2\"", "", true));
}

fn grpc(site: &Site) {
    let results = site.json("grpc_calls.py");
    let expect = serde_json::json!({
        "unary": ["u:hi", "meta", "end"],
        "client": site.proxy.web().ip().to_string(),
        "fail": "NOT_FOUND nothing here",
        "deadline": "DEADLINE_EXCEEDED",
        "deadline seen": true,
        "cancel seen": true,
        "down": 10_000_000,
        "up": "10000000",
        "both": ["e:0", "e:1", "e:2", "e:3", "e:4"],
        "many": 500,
    });
    // Who connects from a loopback address has 127.0.0.1, whatever it connects to.
    let mut results = results;
    if results["client"] == "127.0.0.1" {
        results["client"] = expect["client"].clone();
    }
    assert_eq!(results, expect);
}

#[test]
fn websockets_pass() {
    // What they carry is no body: no limit of a body's size cuts it.
    let small = site_with("", "http = { max_body_bytes = 1 }");
    assert_eq!(small.run("websocket_echo.py", "").trim(), "ok");
    let tls = site_of("", ", protocol = \"https\"", "", true);
    assert_eq!(tls.run("websocket_echo.py", "").trim(), "ok");
}

#[test]
fn trailers_of_http_1_arrive_at_a_backend_of_http_2() {
    let result = site(", protocol = \"h2c\"").json("http1_trailers.py");
    assert_eq!(result["answers"], json!(["HTTP/1.1 200 OK", "HTTP/1.1 200 OK", "HTTP/1.1 200 OK"]));
    let got = json!([7, "abcdefg", [["x-sum", "7"]]]);
    assert_eq!(result["got"], json!([got, got, got]));
}

/// A backend of HTTP/2 that gives a page.
#[expect(clippy::unwrap_used, reason = "a test's helper")]
fn nghttpd(site: &Site, page: &[u8]) -> Child {
    let folder = site.proxy.root().join("pages");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("page"), page).unwrap();
    let server = Command::new("nghttpd")
        .args(["--no-tls", "--address", &site.backend.ip().to_string(), "--htdocs"])
        .arg(&folder)
        .arg(site.backend.port().to_string())
        .spawn()
        .unwrap();
    mc_testkit::clock::wait_until("nghttpd listens", || std::net::TcpStream::connect(site.backend).is_ok());
    server
}

#[test]
fn a_client_that_takes_nothing_stops_nobody_on_its_backends_connection() {
    mc_testkit::requires!("nghttpd");
    let site = site(", protocol = \"h2c\"");
    let mut server = nghttpd(&site, &vec![b'p'; 1 << 20]);
    let result = site.json("http2_stalled.py");
    server.kill().unwrap();
    server.wait().unwrap();
    for who in ["others", "own"] {
        let ends = result[who].as_array().unwrap();
        assert!(!ends.is_empty() && ends.iter().all(|end| end == "status 200"), "{who}: {result}");
    }
}

#[test]
fn debian_clients_load_a_page_over_http_2() {
    mc_testkit::requires!("nghttpd", "nghttp", "h2load", "curl");
    let site = site(", protocol = \"h2c\"");
    let page = vec![b'p'; 300_000];
    let mut server = nghttpd(&site, &page);
    let (proxy, folder) = (site.proxy.web(), site.proxy.root().join("pages"));
    let ca = site.ca.display().to_string();
    let url = format!("https://{NAME}/page");
    let to = format!("{NAME}:443:{}:{}", proxy.ip(), proxy.port());
    // To a backend of HTTP/2 from clients of every version.
    for version in ["--http2", "--http1.1", "--http1.0"] {
        let got = site.client("curl", &["-sS", version, "--cacert", &ca, "--connect-to", &to, &url]);
        assert!(got.as_bytes() == page, "{version}: {} bytes", got.len());
    }
    let upload = folder.join("page").display().to_string();
    for version in ["--http2", "--http1.1"] {
        let data = format!("@{upload}");
        let arguments =
            ["-sS", version, "--cacert", &ca, "--connect-to", &to, "--data-binary", &data, "-o", "/dev/null"];
        let told = site.client("curl", &[&arguments[..], &["-w", "%{http_code}", &url]].concat());
        assert_eq!(told, "200", "{version}");
    }
    let address = format!("https://{proxy}/page");
    let authority = format!(":authority: {NAME}");
    let got = site.client("nghttp", &["--no-verify-peer", "--stat", "-n", "-H", &authority, &address]);
    assert!(got.contains("200"), "{got}");
    let connect_to = proxy.to_string();
    let got =
        site.client("h2load", &["-n", "2000", "-c", "4", "-m", "16", "--connect-to", &connect_to, &url]);
    assert!(got.contains("2000 succeeded, 0 failed, 0 errored, 0 timeout"), "{got}");
    server.kill().unwrap();
    server.wait().unwrap();
}
