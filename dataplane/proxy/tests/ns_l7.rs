//! Two MC-Proxies in a row, each on a host of its own: an edge that passes TLS through or terminates it, and an origin
//! that terminates it. The page's server sees the client itself.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;

use mc_testkit::ca::Ca;
use mc_testkit::net::Host;
use mc_testkit::peer::Peer;
use mc_testkit::proxy::{Config, Proxy};
use mc_testkit::requires;

const NAME: &str = "www.example.org";
const CLIENT: [&str; 2] = ["10.65.96.2", "fd65:96::2"];
const EDGE: [&str; 2] = ["10.65.96.1", "[fd65:96::1]"];

/// Routes of the edge, by the version of IP; `backend` and `http` are what it says about its backend, the origin.
fn edge_routes(config: Config, mode: &str, backend: &str, http: &str) -> Config {
    [("web", "10.65.97.2:443"), ("web6", "[fd65:97::2]:443")].iter().fold(
        config,
        |config, (listener, origin)| {
            let backends = format!("[{{ address = \"{origin}\", proxy_protocol = \"v2\"{backend} }}]");
            config.route_lines(listener, NAME, &format!("mode = \"{mode}\"\nbackends = {backends}\n{http}"))
        },
    )
}

/// client -- edge -- origin -- page, over both versions of IP; `check` sees what the page's server was told.
fn through(mode: &str, backend: &str, edge_verifies: bool) {
    requires!(root, "nsenter", "ip", "curl", "nginx");
    let (client, edge_host, origin_host, page) = (Host::new(), Host::new(), Host::new(), Host::new());
    client.link(&["10.65.96.2/24", "fd65:96::2/64"], &edge_host, &["10.65.96.1/24", "fd65:96::1/64"]);
    edge_host.link(&["10.65.97.1/24", "fd65:97::1/64"], &origin_host, &["10.65.97.2/24", "fd65:97::2/64"]);
    origin_host.link(&["10.65.98.1/24"], &page, &["10.65.98.2/24"]);
    let folder = tempfile::tempdir().unwrap();
    let (ca, address) = (Ca::new(), |text: &str| text.parse::<SocketAddr>().unwrap());
    let ca_file = ca.write(folder.path()).display().to_string();
    let values = [
        ("HTTP1", "10.65.98.2:80".to_owned()),
        ("HTTP2", "10.65.98.2:81".to_owned()),
        ("FILES", folder.path().display().to_string()),
    ];
    let _page = Peer::nginx("nginx_origin.conf", &values, Some(&page));
    let trusted = "proxy_protocol = \"required\"\ntrusted = [\"10.65.97.1/32\", \"fd65:97::1/128\"]";
    let to_page = "mode = \"l7\"\nbackends = [{ address = \"10.65.98.2:80\" }]";
    let origin = Config::new()
        .on(&origin_host)
        .listener_at("web", address("10.65.97.2:443"), trusted)
        .listener_at("web6", address("[fd65:97::2]:443"), trusted)
        .certificate("www", &ca.issue(&[NAME]))
        .route_lines("web", NAME, to_page)
        .route_lines("web6", NAME, to_page);
    let origin = Proxy::start(origin);
    let edge = Config::new()
        .on(&edge_host)
        .listener_at("web", address("0.0.0.0:443"), "")
        .listener_at("web6", address("[::]:443"), "")
        .certificate("www", &ca.issue(&[NAME]));
    let http = if edge_verifies { format!("http = {{ backend_ca = \"{ca_file}\" }}") } else { String::new() };
    let edge = Proxy::start(edge_routes(edge, mode, backend, &http));
    for (family, seen) in CLIENT.iter().enumerate() {
        for version in ["--http1.1", "--http2"] {
            let connect_to = format!("{NAME}:443:{}:443", EDGE[family]);
            let url = format!("https://{NAME}/page");
            let arguments = ["-sS", version, "--retry", "5", "--retry-connrefused", "--cacert", &ca_file];
            let arguments =
                [&arguments, ["--connect-to", &connect_to, "-w", "v%{http_version}", &url].as_slice()]
                    .concat();
            let output = client.output("curl", &arguments);
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let errors = String::from_utf8_lossy(&output.stderr);
            let what =
                format!("{mode} {backend} {version}: {text}{errors}\n{}\n{}", edge.errors(), origin.errors());
            assert!(text.starts_with("GET /page host=www.example.org "), "{what}");
            assert!(text.contains(&format!(" xff={seen} ")), "{what}");
            let forwarded = if family == 0 { format!("for={seen};") } else { format!("for=\"[{seen}]\";") };
            assert!(text.contains(&forwarded), "{what}");
            assert!(text.ends_with(if version == "--http2" { "v2" } else { "v1.1" }), "{what}");
        }
        origin.wait_log("the client itself", |line| {
            line["client"].as_str().is_some_and(|client| client.contains(seen)) && !line["request"].is_null()
        });
    }
}

#[test]
fn an_edge_passes_tls_through_to_an_origin_that_terminates_it() {
    through("l4", "", false);
}

#[test]
fn an_edge_terminates_tls_and_speaks_https_to_an_origin() {
    through("l7", ", protocol = \"https\"", true);
}

#[test]
fn an_edge_terminates_tls_and_speaks_http_2_to_an_origin() {
    through("l7", ", protocol = \"h2\"", true);
}
