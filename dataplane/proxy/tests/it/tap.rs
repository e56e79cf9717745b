//! What is seen of live requests by those who tap a route, and what never is.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use mc_testkit::clock::PATIENCE;
use mc_testkit::proxy::{Proxy, binary};
use serde_json::Value;

use crate::policy::{Way, policies, site, ways};

/// A running `mcproxyctl tap`.
struct Tap {
    child: Child,
    lines: Receiver<String>,
    /// Open, so that it can say why it ends.
    _errors: BufReader<ChildStderr>,
}

impl Tap {
    fn start(proxy: &Proxy, name: &str) -> Self {
        let mut child = Command::new(binary("mcproxyctl"))
            .args(["--output", "json", "--socket"])
            .arg(proxy.socket())
            .args(["tap", "--listener", "web", "--name", name])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // It says that it watches once it does.
        let mut said = String::new();
        let mut errors = BufReader::new(child.stderr.take().unwrap());
        errors.read_line(&mut said).unwrap();
        assert!(said.starts_with("watching web/"), "{said}");
        let (send, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines, _errors: errors }
    }

    fn next(&self) -> (String, Value) {
        let line = self.lines.recv_timeout(PATIENCE).expect("another head");
        let value = serde_json::from_str(&line).unwrap();
        (line, value)
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn of(name: &str) -> impl Iterator<Item = Way> {
    ways().filter(move |way| way.name == name)
}

#[test]
fn heads_are_shown_and_secrets_are_not() {
    let site = site(&policies(&[
        ("get", "path = \"/get\", methods = [\"GET\"]"),
        ("out", "response_headers = { set = { Set-Cookie = \"id=SECRET\" } }"),
    ]));
    for name in ["http1.example.org", "http2.example.org"] {
        let tap = Tap::start(&site.proxy, name);
        for way in of(name) {
            let secrets =
                ["-H", "Authorization: Bearer SECRET", "-H", "Cookie: id=SECRET", "-H", "X-Api-Key: SECRET"];
            let got = site.ask(way, "/a?token=SECRET&SECRET", &secrets);
            assert_eq!(got.status, 200);
            let (line, head) = tap.next();
            assert!(!line.contains("SECRET"), "{line}");
            assert_eq!((&head["method"], &head["response"]), (&"GET".into(), &false.into()), "{line}");
            assert_eq!(head["target"], "/a?token=…&…");
            assert!(!head["request_id"].as_str().unwrap().is_empty(), "{line}");
            let field = |name: &str| {
                let fields = head["fields"].as_array().unwrap().iter();
                fields.filter(|field| field["name"] == name).map(|field| field["value"].clone()).next()
            };
            assert_eq!(field("authorization"), Some("<13 bytes>".into()), "{line}");
            assert!(
                field("user-agent").is_some_and(|agent| agent.as_str().unwrap().starts_with("curl/")),
                "{line}"
            );
            let (line, answer) = tap.next();
            assert!(!line.contains("SECRET"), "{line}");
            assert_eq!(
                (&answer["status"], &answer["request_id"]),
                (&200.into(), &head["request_id"]),
                "{line}"
            );
            // Those that we answer ourselves, too; and nothing of other routes, which the next line would be.
            let other = ways().find(|way| way.name != name).unwrap();
            site.ask(other, "/", &[]);
            site.ask(way, "/get", &["-X", "PUT"]);
            assert_eq!(tap.next().1["method"], "PUT");
            assert_eq!(tap.next().1["status"], 405);
        }
    }
}

#[test]
fn a_slow_watcher_slows_nobody_and_learns_what_it_lost() {
    let site = site("");
    let name = "http1.example.org";
    let tap = Tap::start(&site.proxy, name);
    let signal = |signal: &str| {
        let sent = Command::new("kill").args([signal, &tap.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    };
    signal("-STOP");
    let way = of(name).next().unwrap();
    let web = site.proxy.web();
    let load = Command::new("h2load")
        .args(["-n", "20000", "-c", "4", "-m", "8", &format!("--connect-to={web}")])
        .arg(format!("https://{name}:{}/", web.port()))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&load.stdout);
    assert!(text.contains("20000 succeeded"), "{text}{}", String::from_utf8_lossy(&load.stderr));
    signal("-CONT");
    assert_eq!(site.ask(way, "/last", &[]).status, 200);
    let mut lost = 0;
    loop {
        let (_, head) = tap.next();
        lost += head["lost"].as_u64().unwrap();
        if head["target"] == "/last" {
            break;
        }
    }
    assert!(lost > 1000, "{lost}");
}

#[test]
fn a_tap_ends_with_its_route_and_is_for_routes_that_can_be_seen() {
    let site = site("");
    let name = "http1.example.org";
    let mut tap = Tap::start(&site.proxy, name);
    let key = ["--listener", "web", "--name", name];
    let _done = site.proxy.ctl(&[["route", "remove"].as_slice(), &key].concat());
    let ended = mc_testkit::clock::wait_for("the tap to end", PATIENCE, || tap.child.try_wait().unwrap());
    assert!(ended.success());
    let again = site.proxy.ctl_output(&[["tap"].as_slice(), &key].concat());
    assert_eq!(again.status.code(), Some(4));
    let backend = mc_testkit::fresh_address().to_string();
    let _done = site.proxy.ctl(&[["route", "add", "--backend", &backend].as_slice(), &key].concat());
    let refused = site.proxy.ctl_output(&[["tap"].as_slice(), &key].concat());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("passes TLS through"));
}
