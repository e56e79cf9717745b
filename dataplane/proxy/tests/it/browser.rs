//! A browser loads a page with everything that pages have, over HTTP/2.

use std::io::Write as _;
use std::process::Command;

use mc_testkit::ca::Ca;
use mc_testkit::http::{Origin, Then};
use mc_testkit::proxy::{Config, Proxy};
use mc_testkit::{heavy, requires};

const NAME: &str = "www.example.org";

const PAGE: &str = r#"<!doctype html><html lang="en"><head><meta charset="utf-8"><title>t</title>
<link rel="stylesheet" href="/style.css"></head><body><p id="said">nothing yet</p><img id="image" src="/dot.svg" alt="">
<script src="/script.js"></script></body></html>"#;

const STYLE: &str = "body { color: rgb(1, 2, 3); }";

const DOT: &str = r#"<svg xmlns="http://www.w3.org/2000/svg" width="7" height="5"></svg>"#;

/// Says in the page what has come of everything that it loads.
const SCRIPT: &str = r#"addEventListener("load", async () => {
  const posted = await (await fetch("/echo", { method: "POST", body: "a body" })).text();
  const streamed = await fetch("/stream");
  let pieces = "";
  const reader = streamed.body.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) { const { done, value } = await reader.read(); if (done) break; pieces += value; }
  document.getElementById("said").textContent = JSON.stringify({
    protocol: performance.getEntriesByType("navigation")[0].nextHopProtocol,
    resources: performance.getEntriesByType("resource").map(it => it.nextHopProtocol),
    color: getComputedStyle(document.body).color,
    image: document.getElementById("image").naturalWidth,
    posted, pieces,
  });
});"#;

fn page() -> Origin {
    Origin::start(|exchange| {
        let body = exchange.body()?;
        let (kind, content) = match exchange.target() {
            "/" => ("text/html", PAGE.to_owned()),
            "/style.css" => ("text/css", STYLE.to_owned()),
            "/script.js" => ("text/javascript", SCRIPT.to_owned()),
            "/dot.svg" => ("image/svg+xml", DOT.to_owned()),
            "/echo" => ("text/plain", format!("{} bytes", body.len())),
            "/stream" => {
                exchange.say(
                    "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n",
                )?;
                for piece in ["one ", "two ", "three"] {
                    exchange.stream.write_all(format!("{:x}\r\n{piece}\r\n", piece.len()).as_bytes())?;
                }
                exchange.say("0\r\n\r\n")?;
                return Ok(Then::Keep);
            }
            _ => return exchange.say("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"),
        };
        exchange.say(&format!(
            "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n{content}",
            content.len()
        ))
    })
}

#[test]
fn chromium_loads_a_page_over_http_2() {
    requires!("chromium");
    let _alone = heavy();
    let origin = page();
    let ca = Ca::new();
    // Compressed on its way, as a page would be.
    let lines = "mode = \"l7\"\nhttp = { policies = [{ name = \"small\", compress = { min_bytes = 10 } }] }";
    let config = Config::new().listener("web").certificate("www", &ca.issue(&[NAME]));
    let proxy = Proxy::start(config.route_with(NAME, &[origin.address()], lines));
    let (profile, web) = (tempfile::tempdir().unwrap(), proxy.web());
    let output = Command::new("chromium")
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .args(["--disable-dev-shm-usage", "--ignore-certificate-errors", "--virtual-time-budget=20000"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("--host-resolver-rules=MAP {NAME} {}", web.ip()))
        .args(["--dump-dom", &format!("https://{NAME}:{}/", web.port())])
        .output()
        .unwrap();
    let dom = String::from_utf8_lossy(&output.stdout);
    let said = dom.split_once("<p id=\"said\">").and_then(|(_, rest)| rest.split_once("</p>"));
    let said = said.unwrap_or_else(|| panic!("{dom}{}", String::from_utf8_lossy(&output.stderr))).0;
    let said: serde_json::Value =
        serde_json::from_str(&said.replace("&quot;", "\"")).expect("the script has run");
    assert_eq!(said["protocol"], "h2", "{said}");
    let resources = said["resources"].as_array().unwrap();
    assert!(resources.len() >= 5 && resources.iter().all(|protocol| protocol == "h2"), "{said}");
    assert_eq!((&said["color"], &said["image"]), (&"rgb(1, 2, 3)".into(), &7.into()), "{said}");
    assert_eq!((&said["posted"], &said["pieces"]), (&"6 bytes".into(), &"one two three".into()), "{said}");
}
