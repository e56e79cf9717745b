//! The folder of certificates, as clients and operators see it.

use std::path::Path;
use std::process::{Command, Stdio};

use base64::Engine as _;
use mc_testkit::ca::{Ca, Certificate};
use mc_testkit::client::Request;
use mc_testkit::clock;
use mc_testkit::fresh_address;
use mc_testkit::http::{Client, Origin, Then};
use mc_testkit::proxy::{Config, Proxy};
use nix::sys::signal::Signal;

use super::http1::{NAME, OK};

fn site(certificate: &Certificate) -> Proxy {
    let config = Config::new().listener("web").certificate("www", certificate);
    Proxy::start(config.route_with(NAME, &[fresh_address()], "mode = \"l7\""))
}

/// Runs openssl in `folder` and returns what it printed.
#[expect(clippy::unwrap_used, reason = "a test's helper")]
fn openssl(folder: &Path, arguments: &str) -> String {
    let mut command = Command::new("openssl");
    command.current_dir(folder).args(arguments.split_whitespace()).stdin(Stdio::null());
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "openssl {arguments}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// The authority's word that the certificate in `cert.pem` is good, DER.
#[expect(clippy::unwrap_used, reason = "a test's helper")]
fn staple(ca: &Ca, folder: &Path) -> Vec<u8> {
    let (_certificate, _key) = (ca.write(folder), ca.write_key(folder));
    let serial = openssl(folder, "x509 -in cert.pem -noout -serial");
    let serial = serial.trim().trim_start_matches("serial=");
    std::fs::write(folder.join("index.txt"), format!("V\t400101000000Z\t\t{serial}\tunknown\t/CN=x\n"))
        .unwrap();
    openssl(folder, "ocsp -issuer ca.pem -cert cert.pem -reqout request.der");
    openssl(
        folder,
        "ocsp -index index.txt -CA ca.pem -rsigner ca.pem -rkey ca.key -reqin request.der -respout staple.der -ndays 1",
    );
    std::fs::read(folder.join("staple.der")).unwrap()
}

#[test]
fn a_client_sees_the_staple_of_the_file() {
    mc_testkit::requires!("openssl");
    let ca = Ca::new();
    let certificate = ca.issue(&[NAME]);
    let files = tempfile::tempdir().unwrap();
    let _written = certificate.write(files.path());
    let staple = staple(&ca, files.path());
    let proxy = site(&certificate);
    let look = || {
        openssl(
            files.path(),
            &format!("s_client -connect {} -servername {NAME} -status -CAfile ca.pem", proxy.web()),
        )
    };
    assert!(look().contains("OCSP response: no response sent"), "{}", look());
    let text = base64::engine::general_purpose::STANDARD.encode(&staple);
    let block = format!("-----BEGIN OCSP RESPONSE-----\n{text}\n-----END OCSP RESPONSE-----\n");
    proxy.replace_bundle("www", &format!("{}{block}", certificate.bundle()));
    clock::wait_until("the staple to be sent", || look().contains("OCSP Response Status: successful"));
    let seen = look();
    assert!(seen.contains("Cert Status: good") && seen.contains("Verify return code: 0"), "{seen}");
}

#[test]
fn operators_see_what_is_in_use_and_until_when() {
    let ca = Ca::new();
    let first = ca.issue_expired(&[NAME, "*.example.org"]);
    let proxy = site(&first);
    let list = || proxy.ctl(&["certificate", "list"])[0].clone();
    let seen = list();
    assert_eq!(seen["file"], "www.pem");
    assert_eq!(seen["names"], serde_json::json!([NAME, "*.example.org"]));
    assert_eq!((&seen["not_before_s"], &seen["not_after_s"]), (&1_577_836_800.into(), &1_609_372_800.into()));
    assert_eq!((&seen["key"], &seen["stapled"]), (&"ECDSA 256".into(), &false.into()));
    let files = tempfile::tempdir().unwrap();
    let _written = first.write(files.path());
    let expect = openssl(files.path(), "x509 -in cert.pem -noout -fingerprint -sha256");
    let expect = expect.trim().rsplit('=').next().unwrap().replace(':', "").to_lowercase();
    assert_eq!(seen["sha256"], expect);
    let metric = proxy.metric("mcproxy_certificate_not_after_seconds", &["file=\"www.pem\""]);
    assert!((metric - 1_609_372_800.0).abs() < 1.0, "{metric}");
    assert!(proxy.metrics().contains("\nmcproxy_ticket_key_age_seconds "));
    let text = proxy.ctl_text(&["certificate", "list"]);
    for word in ["2020-01-01", "2020-12-31", "DAYS LEFT", "-2", "expired"] {
        assert!(text.contains(word), "no {word} in {text}");
    }
    assert_eq!(seen["validity"], "expired");
    assert!(seen["days_left"].as_i64().unwrap() < -2000, "{seen}");
    let warning = format!("Certificate www.pem ({NAME}, *.example.org) expired on 2020-12-31");
    assert!(proxy.errors().contains(&warning), "{}", proxy.errors());
    let reloaded = proxy.ctl(&["certificate", "reload"]);
    assert!(reloaded["warnings"][0].as_str().unwrap().starts_with(&warning), "{reloaded}");
    assert_eq!(proxy.metric("mcproxy_certificate_files", &["state=\"expired\""]), 1.0);
    // What is broken is named, and what was there stays in use.
    proxy.replace_bundle("www", "nothing");
    let output = proxy.ctl_output(&["certificate", "reload"]);
    assert_eq!(output.status.code(), Some(1));
    let seen = list();
    assert!(seen["problem"].as_str().unwrap().contains("has no certificate"), "{seen}");
    assert_eq!(seen["sha256"], expect);
    proxy.replace_certificate("www", &ca.issue(&[NAME]));
    let _reloaded = proxy.ctl(&["certificate", "reload"]);
    let seen = list();
    assert!(seen["problem"] == "" && seen["sha256"] != expect, "{seen}");
}

#[test]
fn a_reload_names_every_broken_file_and_loads_the_others() {
    let ca = Ca::new();
    let mut proxy = site(&ca.issue(&[NAME]));
    proxy.replace_bundle("broken-1", "nothing");
    proxy.replace_bundle("broken-2", &ca.issue(&["b.example"]).pem);
    proxy.replace_certificate("good", &ca.issue(&["good.example"]));
    // What keeps a reader waiting, and what a client of ACME leaves behind that has moved its files.
    let certs = proxy.root().join("certs");
    let pipe = Command::new("mkfifo").arg(certs.join("pipe.pem")).status();
    assert!(pipe.unwrap().success());
    std::os::unix::fs::symlink("nowhere", certs.join("link.pem")).unwrap();
    let reasons = [
        "broken-1.pem: has no certificate",
        "broken-2.pem: has no private key",
        "pipe.pem: cannot be read: it is no regular file",
        "link.pem: cannot be read",
    ];
    let check = |proxy: &Proxy| {
        let output = proxy.ctl_output(&["certificate", "reload"]);
        let (text, errors) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(1), "{text}{errors}");
        assert!(text.contains("2 files are in use"), "{text}");
        assert!(errors.contains("4 certificate files cannot be used"), "{errors}");
        assert!(reasons.iter().all(|reason| errors.contains(reason)), "{errors}");
    };
    check(&proxy);
    // Not only by the reload that reads them first: the proxy looks by itself every two seconds.
    clock::wait_until("the log to name the files", || {
        reasons.iter().all(|reason| proxy.errors().contains(reason))
    });
    check(&proxy);
    let json = proxy.ctl_output(&["--output", "json", "certificate", "reload"]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!((json["files"].as_u64(), json["problems"].as_array().map(Vec::len)), (Some(2), Some(4)));
    assert_eq!(proxy.metric("mcproxy_certificate_files", &["state=\"broken\""]), 4.0);
    assert!(proxy.ctl_text(&["certificate", "list"]).contains("good.example"));
    // SIGHUP says the same in the log.
    let said = |proxy: &Proxy| proxy.errors().matches(reasons[0]).count();
    let before = said(&proxy);
    proxy.process().signal(Signal::SIGHUP);
    clock::wait_until("SIGHUP to name the file", || said(&proxy) > before);
}

#[test]
fn of_two_files_for_one_name_the_valid_one_is_used_and_the_other_is_named() {
    let ca = Ca::new();
    let proxy = site(&ca.issue(&[NAME]));
    proxy.replace_certificate("a-old", &ca.issue_expired(&[NAME]));
    let reloaded = proxy.ctl(&["certificate", "reload"]);
    let warning = "Certificate a-old.pem is not used: www.pem";
    assert!(reloaded["warnings"][0].as_str().unwrap().starts_with(warning), "{reloaded}");
    assert!(proxy.ctl_text(&["certificate", "reload"]).contains(warning));
    let listed = proxy.ctl(&["certificate", "list"]);
    assert_eq!(listed[0]["shadowed"], serde_json::json!([{ "name": NAME, "by": "www.pem" }]));
    assert_eq!(listed[1]["shadowed"], serde_json::json!([]));
    assert!(proxy.ctl_text(&["certificate", "list"]).contains(&format!("{NAME} by www.pem")));
    // The client verifies validity, too.
    let tls = Request::new(&ca, proxy.web(), NAME).alpn(&["http/1.1"]).open();
    assert!(tls.is_ok(), "{:?}", tls.err());
    clock::wait_until("the log to name the file", || proxy.errors().contains(warning));
}

#[test]
fn clients_that_cannot_verify_ecdsa_get_rsa() {
    mc_testkit::requires!("openssl", "curl");
    let ca = Ca::new();
    let files = tempfile::tempdir().unwrap();
    let _ca = ca.write(files.path());
    let origin = Origin::saying(OK, Then::Keep);
    let config = Config::new().listener("web");
    let config =
        config.certificate("a-ecdsa", &ca.issue(&[NAME])).certificate("b-rsa", &ca.issue_rsa(&[NAME]));
    let proxy = Proxy::start(config.route_with(NAME, &[origin.address()], "mode = \"l7\""));
    let check = |arguments: &str, expect: &str| {
        let common = format!("s_client -connect {} -servername {NAME} -CAfile ca.pem", proxy.web());
        let said = openssl(files.path(), &format!("{common} {arguments}"));
        assert!(said.contains("Verify return code: 0 (ok)"), "{arguments}: {said}");
        // The server's key by its size, which every version of openssl prints.
        assert!(said.contains(&format!("Server public key is {expect} bit")), "{arguments}: {said}");
    };
    let (ecdsa, rsa) = ("256", "2048");
    check("", ecdsa);
    check("-sigalgs ecdsa_secp256r1_sha256:rsa_pss_rsae_sha256", ecdsa);
    check("-sigalgs rsa_pss_rsae_sha256", rsa);
    check("-tls1_2", ecdsa);
    check("-tls1_2 -sigalgs RSA+SHA256", rsa);
    // Signature schemes of both types, but suites of RSA alone.
    check("-tls1_2 -cipher ECDHE-RSA-AES128-GCM-SHA256", rsa);
    check("-tls1_2 -cipher ECDHE-ECDSA-AES128-GCM-SHA256", ecdsa);
    // And a browser's like, to the end of a request.
    for cipher in ["ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-GCM-SHA256"] {
        let mut curl = Command::new("curl");
        curl.current_dir(files.path()).args([
            "-sS",
            "--cacert",
            "ca.pem",
            "--tls-max",
            "1.2",
            "--ciphers",
            cipher,
        ]);
        let output = curl
            .args(["--connect-to", &format!("::{}", proxy.web()), &format!("https://{NAME}/")])
            .output()
            .unwrap();
        assert!(output.status.success(), "{cipher}: {}", String::from_utf8_lossy(&output.stderr));
    }
    assert!(proxy.ctl(&["certificate", "list"])[1]["shadowed"].as_array().unwrap().is_empty());
}

#[test]
fn no_handshake_fails_while_certificates_are_replaced_under_load() {
    mc_testkit::requires!("h2load");
    let _machine = mc_testkit::heavy();
    let ca = Ca::new();
    let origin = Origin::saying(OK, Then::Keep);
    let config = Config::new().listener("web").certificate("www", &ca.issue(&[NAME]));
    let proxy = Proxy::start(config.route_with(NAME, &[origin.address()], "mode = \"l7\""));
    // New connections all the time over HTTP/2, 100 a second of ten requests each, and some that stay.
    let load = |arguments: &str| {
        let mut h2load = Command::new("h2load");
        h2load.args(arguments.split_whitespace()).arg(format!("--connect-to={}", proxy.web()));
        h2load.arg(format!("https://{NAME}/")).stdout(Stdio::piped()).spawn().unwrap()
    };
    let mut loads = [load("-c 500 -r 100 -n 5000"), load("-c 4 -m 8 -n 40000")];
    // And over HTTP/1.1, by a client that verifies whom it speaks to.
    let over = std::sync::atomic::AtomicBool::new(false);
    let mut seen = std::collections::HashSet::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                let next = ca.issue(&[NAME]);
                proxy.replace_certificate("www", &next);
                let _reloaded = proxy.ctl_text(&["certificate", "reload"]);
                clock::sleep_ms(100);
            }
        });
        let mut opened = 0;
        // As long as the loads run, and until enough was seen.
        while opened < 100
            || seen.len() < 10
            || loads.iter_mut().any(|load| load.try_wait().unwrap().is_none())
        {
            let tls = Request::new(&ca, proxy.web(), NAME).alpn(&["http/1.1"]).open().unwrap();
            seen.insert(tls.conn.peer_certificates().unwrap()[0].to_vec());
            let mut client = Client::on(tls);
            assert_eq!(client.ask(super::http1::get("/")).status(), 200);
            opened += 1;
        }
        over.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    for (load, requests) in loads.into_iter().zip([5_000, 40_000]) {
        let said = load.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        let all = format!("{requests} succeeded, 0 failed, 0 errored, 0 timeout");
        assert!(said.contains(&all) && said.contains(&format!("{requests} 2xx")), "{said}");
    }
    assert_eq!(proxy.metric("mcproxy_connections_total", &["outcome=\"tls_failed\""]), 0.0);
}
