//! What testssl.sh finds about a listener that terminates TLS.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use mc_testkit::ca::Ca;
use mc_testkit::heavy;
use mc_testkit::http::Origin;
use mc_testkit::proxy::{Config, Proxy};
use serde_json::Value;

const NAME: &str = "www.example.org";

/// Findings that say nothing about MC-Proxy, by their ids, and why.
const KNOWN: &[(&str, &str)] = &[
    ("cert_chain_of_trust", "the test's authority is known to nobody"),
    ("cert_caIssuers", "and has no address"),
    ("cert_crlDistributionPoints", "nor revocation lists"),
    ("cert_revocation", "nor any other way to revoke"),
    ("cert_extlifeSpan", "the throw-away certificate is valid for as long as rcgen likes"),
    ("cert_validityPeriod", "as above"),
    ("cert_trust", "the name is resolved by the test, not by DNS"),
    ("DNS_CAArecord", "there is no DNS"),
    ("OCSP_stapling", "the certificate has no OCSP responder to ask: `certificates` tests the staple"),
    ("scanTime", "how long it took"),
    ("engine_problem", "of the openssl that testssl.sh uses here"),
    (
        "secure_renego",
        "testssl.sh 3.0 cannot make this handshake with OpenSSL 3: openssl itself is asked below",
    ),
];

#[test]
fn testssl_finds_nothing() {
    mc_testkit::requires!("testssl", "openssl");
    let _alone = heavy();
    let ca = Ca::new();
    let origin = Origin::echoing();
    let config = Config::new().listener("web").certificate("www", &ca.issue(&[NAME]));
    let proxy = Proxy::start(config.route_with(NAME, &[origin.address()], "mode = \"l7\""));
    let (web, report) = (proxy.web(), proxy.root().join("testssl.json"));
    let ca_file = ca.write(proxy.root());
    // Under load a check may fail to connect, which it says as a warning: what is a finding is one the second time, too.
    let mut found = scan(web, &ca_file, &report);
    if !found.is_empty() {
        found = scan(web, &ca_file, &report);
    }
    assert!(found.is_empty(), "{found:#?}");
    let mut openssl = Command::new("openssl");
    openssl.args(["s_client", "-tls1_2", "-servername", NAME, "-connect", &web.to_string()]);
    let output = openssl.stdin(std::process::Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("Secure Renegotiation IS supported"), "{said}");
}

/// What testssl.sh has to say against a server, but for what is known.
fn scan(web: SocketAddr, ca: &Path, report: &Path) -> Vec<Value> {
    // It adds to a report that is there.
    std::fs::remove_file(report).ok();
    // Protocols, suites, forward secrecy, the server's defaults, and all vulnerabilities; no HTTP, which is the route's.
    let output = Command::new("testssl")
        .args(["--quiet", "--color", "0", "--warnings", "off", "--ip", &web.ip().to_string()])
        .args(["-p", "-s", "-f", "-S", "-U"])
        .arg("--add-ca")
        .arg(ca)
        .arg("--jsonfile")
        .arg(report)
        .arg(format!("{NAME}:{}", web.port()))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let text = std::fs::read_to_string(report).unwrap_or_else(|error| panic!("{error}: {said}"));
    let findings: Vec<Value> = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let of = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    let seen = |id: &str| findings.iter().any(|finding| of(finding, "id") == id);
    // It has looked: these are among the first and the last that it says.
    assert!(["TLS1_2", "TLS1_3", "PFS", "RC4"].into_iter().all(seen), "{said}");
    let bad = ["LOW", "MEDIUM", "HIGH", "CRITICAL", "WARN", "FATAL"];
    let is_known = |id: &str| KNOWN.iter().any(|(known, _)| id.starts_with(known));
    findings
        .into_iter()
        .filter(|finding| bad.contains(&of(finding, "severity").as_str()) && !is_known(&of(finding, "id")))
        .collect()
}
