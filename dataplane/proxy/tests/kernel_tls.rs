//! The shipped program on a kernel that has TLS: in a machine of QEMU's (`mc_testkit::machine`), where HTTP/1.1 and HTTP/2
//! go over connections whose keys the kernel has.

use std::path::Path;
use std::process::Command;

use mc_testkit::ca::Ca;
use mc_testkit::client::Request;
use mc_testkit::http::{Client, Origin};
use mc_testkit::machine::Machine;
use mc_testkit::proxy::{Config, Proxy, binary};
use mc_testkit::{left_out, machine, requires};

const NAME: &str = "www.example.org";

/// Sends back the body that it gets, in one piece or in chunks of a mebibyte.
fn echo() -> Origin {
    Origin::start(|exchange| {
        let body = exchange.body()?;
        let text = String::from_utf8_lossy(&body);
        if exchange.target() == "/chunked" {
            exchange.say("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")?;
            for chunk in text.as_bytes().chunks(1 << 20) {
                exchange.say(&format!("{:x}\r\n{}\r\n", chunk.len(), String::from_utf8_lossy(chunk)))?;
            }
            return exchange.say("0\r\n\r\n");
        }
        exchange.say(&format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len()))
    })
}

/// Run in the machine by the test below, and by hand where the kernel has TLS.
#[test]
#[ignore = "needs a kernel with TLS: the test below runs it in a machine that has one"]
fn inside_the_machine() {
    let ca = Ca::new();
    let origin = echo();
    let config = Config::new().listener("web").certificate("www", &ca.issue(&[NAME]));
    let proxy = Proxy::start(config.route_with(NAME, &[origin.address()], "mode = \"l7\""));
    let capabilities = proxy.ctl(&["capabilities"]);
    let kernel_tls = capabilities.as_array().unwrap().iter().find(|it| it["name"] == "kernel_tls").unwrap();
    assert_eq!(kernel_tls["state"], "on", "{capabilities}");
    // Requests on one connection.
    let mut client = Client::on(Request::new(&ca, proxy.web(), NAME).open().unwrap());
    for _ in 0..3 {
        let answer = client.ask("GET / HTTP/1.1\r\nhost: www.example.org\r\n\r\n");
        assert_eq!(answer.status(), 200);
    }
    client.finish();
    proxy.wait_outcome("completed");
    // Much, both ways, over either protocol.
    let folder = tempfile::tempdir().unwrap();
    let (sent, came) = (folder.path().join("sent"), folder.path().join("came"));
    let body: String = (0..1_000_000).map(|number| format!("{number:>12}\n")).collect();
    std::fs::write(&sent, &body).unwrap();
    let ca_file = ca.write(folder.path());
    let (web, port) = (proxy.web(), proxy.web().port());
    let spliced = || proxy.metric("mcproxy_tls_spliced_bytes_total", &[]);
    for (version, target) in [("--http1.1", ""), ("--http1.1", "chunked"), ("--http2", "")] {
        for tls in ["1.2", "1.3"] {
            let before = spliced();
            let status = Command::new("curl")
                .args(["--silent", "--show-error", "--fail", version, "--tls-max", tls, "--max-time", "120"])
                .args(["--connect-to", &format!("{NAME}:{port}:{web}"), "--cacert"])
                .arg(&ca_file)
                .arg("--data-binary")
                .arg(format!("@{}", sent.display()))
                .arg("--output")
                .arg(&came)
                .arg(format!("https://{NAME}:{port}/{target}"))
                .status()
                .unwrap();
            assert!(status.success(), "{version} {tls}");
            assert!(
                std::fs::read_to_string(&came).unwrap() == body,
                "{version} {tls}: other bytes came back"
            );
            let spliced = spliced() - before;
            println!("{version} /{target} over TLS {tls}: {} bytes each way, {spliced} spliced", body.len());
            // Nearly all of it; frames of HTTP/2 are made here.
            assert_eq!(spliced > 12e6, version == "--http1.1", "{version} /{target} {tls}: {spliced}");
        }
    }
    let count = |labels: &[&str]| proxy.metric("mcproxy_tls_connections_total", labels);
    println!("{} in the kernel, {} in user space", count(&["in=\"kernel\""]), count(&["in=\"user_space\""]));
    assert!(count(&["in=\"kernel\""]) >= 5.0, "{}", proxy.metrics());
    for line in proxy.log() {
        assert_eq!(line["outcome"], "completed", "{line}");
    }
}

#[test]
fn http_over_connections_whose_keys_the_kernel_has() {
    let [a, b, c, d, e] = machine::TOOLS;
    requires!(a, b, c, d, e, "curl", "setpriv");
    let Some(mut machine) = Machine::new() else {
        return left_out("needs Debian's kernel in /boot (see services/testkit/packages.txt)");
    };
    machine.load(&["gcm", "ctr", "ghash-generic", "aesni-intel", "tls"]);
    machine.install(&std::env::current_exe().unwrap(), "/programs/deps/test");
    for name in ["mc-proxy", "mcproxyctl"] {
        machine.install(&binary(name), &format!("/programs/{name}"));
    }
    for name in ["curl", "setpriv"] {
        machine.install(&Path::new("/usr/bin").join(name), &format!("/bin/{name}"));
    }
    let test =
        "/programs/deps/test --ignored --exact inside_the_machine --nocapture && echo THE MACHINE SAYS YES";
    let said = machine.run(test);
    println!("{said}");
    assert!(said.contains("THE MACHINE SAYS YES"), "{said}");
}
