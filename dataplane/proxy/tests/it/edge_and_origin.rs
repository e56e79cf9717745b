//! The page "edge, origin and services": its files and commands as they stand there, with other addresses.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use mc_testkit::ca::Ca;
use mc_testkit::http::{Origin, Then};
use mc_testkit::mcias::Mcias;
use mc_testkit::proxy::{Config, Proxy};
use mc_testkit::{fresh_address, requires};

use super::http1::OK;

const PAGE: &str = include_str!("../../../../docs/mc-proxy-edge-and-origin.md");

/// The page's blocks of this language, in their order.
fn blocks(language: &str) -> Vec<&'static str> {
    let start = format!("```{language}\n");
    let starts = PAGE.split(start.as_str()).skip(1);
    starts.map(|rest| rest.split_once("```").unwrap().0).collect()
}

/// The text with each of these replaced; all of them must be there.
fn replaced(text: &str, pairs: &[(&str, &str)]) -> String {
    let mut text = text.to_owned();
    for (from, to) in pairs {
        assert!(text.contains(from), "no {from} in {text}");
        text = text.replace(from, to);
    }
    text
}

/// Fetches a URL whose host is at `edge`. The address that the client has is the last argument.
fn curl(edge: SocketAddr, ca: &Path, url: &str, from: &str) -> String {
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--cacert"]).arg(ca).args([
        "--interface",
        from,
        "--connect-to",
        &format!("::{edge}"),
        url,
    ]);
    let output = curl.output().unwrap();
    assert!(output.status.success(), "{url}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a command of the page on a proxy.
fn page_command(proxy: &Proxy, line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().skip(1).collect();
    proxy.ctl_text(&words)
}

#[test]
fn the_page_works_as_it_stands() {
    requires!("curl");
    let (edge_address, origin_address) = (fresh_address(), fresh_address());
    let files = tempfile::tempdir().unwrap();
    let ca = Ca::new();
    let ca_file = ca.write(files.path());
    let (app, wiki) = (Origin::saying(OK, Then::Keep), Origin::saying(OK, Then::Keep));
    let toml = blocks("toml");
    let [edge_toml, origin_toml, mcias_toml] = toml[..] else { panic!("{} files", toml.len()) };
    let from = mcias_toml.lines().find_map(|line| line.strip_prefix("proxy_protocol = ")).unwrap();
    let mcias = Mcias::start_with("", &[("MCIAS_SERVER_PROXY_PROTOCOL", from)]);

    let (edge_text, origin_text) = (edge_address.to_string(), origin_address.to_string());
    let edge = Config::new().toml(&replaced(
        edge_toml,
        &[
            ("0.0.0.0:443", &edge_text),
            ("10.8.0.2:4443", &origin_text),
            // The name of the tests' MCIAS is not below example.org.
            ("name = \"*.example.org\"\nany_depth = true", "name = \"*\""),
        ],
    ));
    let origin = Config::new().certificate("app", &ca.issue(&["app.example.org"])).toml(&replaced(
        origin_toml,
        &[
            ("10.8.0.2:4443", &origin_text),
            ("10.8.0.1/32", "127.0.0.1/32"),
            ("127.0.0.1:8080", &app.address().to_string()),
            ("127.0.0.1:8443", &mcias.rest.to_string()),
            ("mcias.example.org", "mcias.test"),
        ],
    ));
    let (edge, origin) = (Proxy::start(edge), Proxy::start(origin));

    let shell = blocks("sh");
    let [looks, commands, add] = shell[..] else { panic!("{} blocks of commands", shell.len()) };
    let urls: Vec<&str> = looks.lines().filter_map(|line| line.strip_prefix("curl -sS ")).collect();
    let [app_url, mcias_url] = urls[..] else { panic!("{urls:?}") };
    assert_eq!(curl(edge_address, &ca_file, app_url, "127.0.0.9"), "ok");
    assert!(app.text().to_lowercase().contains("x-forwarded-for: 127.0.0.9"), "{}", app.text());
    let mcias_url = replaced(mcias_url, &[("mcias.example.org", "mcias.test")]);
    let health = curl(edge_address, &mcias.ca_file(), &mcias_url, "127.0.0.9");
    assert!(!health.is_empty());
    for proxy in [&edge, &origin] {
        for line in commands.lines() {
            let _printed = page_command(proxy, line);
        }
    }
    let line = origin.wait_log("the client at the origin", |line| line["name"] == "mcias.test");
    assert!(line["client"].as_str().unwrap().starts_with("127.0.0.9:"), "{line}");
    assert!(line["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{line}");

    // A new service needs nothing at the edge.
    origin.replace_certificate("wiki", &ca.issue(&["wiki.example.org"]));
    let add = replaced(add.trim(), &[("127.0.0.1:8081", &wiki.address().to_string())]);
    let _added = page_command(&origin, &add);
    let _reloaded = origin.ctl(&["certificate", "reload"]);
    assert_eq!(curl(edge_address, &ca_file, "https://wiki.example.org/", "127.0.0.9"), "ok");
}

#[test]
fn outcomes_are_those_that_the_page_names() {
    let origin_address = fresh_address();
    let [edge_toml, origin_toml, _] = blocks("toml")[..] else { panic!("three files") };
    let edge_address = fresh_address();
    let edge = Proxy::start(Config::new().toml(&replaced(
        edge_toml,
        &[("0.0.0.0:443", &edge_address.to_string()), ("10.8.0.2:4443", &origin_address.to_string())],
    )));
    let connect = |name: &str| {
        let hello = mc_testkit::hello::Hello::to(name).bytes();
        let mut client = mc_testkit::client::Raw::connect(edge_address);
        client.send(&hello);
        let _end = client.read_to_end(mc_testkit::clock::PATIENCE);
    };
    connect("www.example.net");
    let _line = edge.wait_outcome("no_route");
    // Nobody is at home.
    connect("app.example.org");
    let _line = edge.wait_outcome("connect_failed");
    let origin = |trusted: &str| {
        let pairs = [("10.8.0.2:4443", &*origin_address.to_string()), ("10.8.0.1/32", trusted)];
        Proxy::start(Config::new().toml(&replaced(origin_toml, &pairs)))
    };
    let distrustful = origin("192.0.2.1/32");
    connect("app.example.org");
    let _line = distrustful.wait_outcome("proxy_untrusted");
    drop(distrustful);
    let without_certificate = origin("127.0.0.1/32");
    connect("app.example.org");
    let _line = without_certificate.wait_outcome("no_certificate");
    let mut silent = mc_testkit::client::Raw::connect(origin_address);
    silent.send(&mc_testkit::hello::Hello::to("app.example.org").bytes());
    let _line = without_certificate.wait_outcome("proxy_missing");
}
