//! Bodies of any size pass in the same memory.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use mc_testkit::ca::Ca;
use mc_testkit::clock;
use mc_testkit::flow::{Sum, drink, pour};
use mc_testkit::http::{Origin, Then};
use mc_testkit::proxy::{Config, Proxy};
use mc_testkit::{heavy, rounds};

use super::http1::NAME;

const GIB: u64 = 1 << 30;

/// Downloaded over HTTP/1.1 and uploaded over HTTP/2 at the same time by curl, one GiB each or ten with `--long`; what
/// arrives is what was sent, and MC-Proxy is as large as before.
#[test]
fn large_bodies_pass_each_way_in_the_same_memory() {
    mc_testkit::requires!("curl");
    let _machine = heavy();
    let gib = rounds(1, 10);
    let origin = Origin::start(|exchange| {
        let size = exchange.target().trim_start_matches('/').parse().map_err(std::io::Error::other)?;
        if exchange.head.starts_with("GET") {
            exchange.say(&format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n"))?;
            pour(&mut *exchange.stream, size, 7)?;
            return Ok(Then::Close);
        }
        // Not kept: it would not fit.
        let sum = drink(&mut *exchange.stream, size)?;
        let text = format!("{} {}", sum.bytes, sum.crc);
        exchange.say(&format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len()))?;
        Ok(Then::Close)
    });
    let ca = Ca::new();
    let config = Config::new()
        .server("workers = 1")
        .listener("web")
        .route_with(NAME, &[origin.address()], "mode = \"l7\"")
        .certificate("www", &ca.issue(&[NAME]));
    let proxy = Proxy::start(config);
    let files = tempfile::tempdir().unwrap();
    let ca_file = ca.write(files.path());
    let curl = |size: u64, arguments: &[&str]| {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--fail", "--max-time", "600", "--cacert"]).arg(&ca_file);
        curl.args(["--connect-to", &format!("{NAME}:443:{}", proxy.web())]).args(arguments);
        curl.arg(format!("https://{NAME}/{size}")).stdin(Stdio::piped()).stdout(Stdio::piped());
        curl.spawn().unwrap()
    };
    let down = |size: u64| {
        let mut curl = curl(size, &["--http1.1"]);
        let got = drink(curl.stdout.take().unwrap(), u64::MAX).unwrap();
        assert!(curl.wait().unwrap().success());
        let mut expect = Sum::default();
        pour(&mut expect, size, 7).unwrap();
        assert_eq!(got, expect, "down");
    };
    let up = |size: u64| {
        // A length, so that it passes as it is.
        let length = format!("Content-Length: {size}");
        let mut curl = curl(size, &["--http2", "--upload-file", "-", "--header", &length]);
        let mut body = curl.stdin.take().unwrap();
        let sent = pour(&mut body, size, 3).unwrap();
        body.flush().unwrap();
        drop(body);
        let output = curl.wait_with_output().unwrap();
        assert!(output.status.success());
        assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{} {}", sent.bytes, sent.crc), "up");
    };
    // What every transfer shares is there after the first.
    std::thread::scope(|scope| {
        scope.spawn(|| down(GIB / 4));
        scope.spawn(|| up(GIB / 4));
    });
    let before = proxy.rss_kib();
    let (over, most) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                most.fetch_max(proxy.rss_kib(), Ordering::Relaxed);
                clock::sleep_ms(100);
            }
        });
        let transfers = [scope.spawn(|| down(gib * GIB)), scope.spawn(|| up(gib * GIB))];
        let ends = transfers.map(std::thread::ScopedJoinHandle::join);
        over.store(true, Ordering::Relaxed);
        watch.join().unwrap();
        for end in ends {
            end.unwrap();
        }
    });
    let grown = most.load(Ordering::Relaxed).saturating_sub(before);
    assert!(grown < 4 * 1024, "it grew from {before} KiB by {grown} KiB");
}
