//! A backend that refuses connections: what it costs, and who waits for it.

use std::net::SocketAddr;

use mc_testkit::ca::Ca;
use mc_testkit::client::Request;
use mc_testkit::http::{Client, Origin};
use mc_testkit::net::Host;
use mc_testkit::proxy::{Config, Proxy};
use mc_testkit::{clock, requires};

use crate::grpc::Grpc;

const NAME: &str = "www.example.org";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A proxy with one worker on a host of its own, where SYNs to its one backend are counted.
struct Site {
    host: Host,
    ca: Ca,
    proxy: Proxy,
    backend: SocketAddr,
}

fn site() -> Site {
    let host = Host::new();
    let (backend, listener): (SocketAddr, SocketAddr) =
        ("127.0.0.2:8080".parse().unwrap(), "127.0.0.1:4433".parse().unwrap());
    host.run("iptables", &["-A", "INPUT", "-p", "tcp", "--syn", "-d", "127.0.0.2", "--dport", "8080"]);
    let ca = Ca::new();
    let config = Config::new()
        .on(&host)
        .server("workers = 1")
        .listener_at("web", listener, "")
        .certificate("www", &ca.issue(&[NAME]))
        .route_with(NAME, &[backend], "mode = \"l7\"");
    let proxy = Proxy::start(config);
    Site { host, ca, proxy, backend }
}

impl Site {
    /// SYNs that the backend's address has got.
    fn syns(&self) -> u64 {
        let text = self.host.run("iptables", &["-L", "INPUT", "-n", "-v", "-x"]);
        let line = text.lines().find(|line| line.contains("dpt:8080"));
        line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap()
    }

    /// The status that a request of its own connection gets.
    fn status(&self) -> u16 {
        let request = Request::new(&self.ca, self.proxy.web(), NAME).alpn(&["http/1.1"]);
        let mut client = Client::on(request.open().unwrap());
        client.ask(format!("GET / HTTP/1.1\r\nHost: {NAME}\r\n\r\n")).status()
    }

    /// Statuses of so many requests at once.
    fn statuses(&self, count: usize) -> Vec<u16> {
        // Threads are on the host of the one that starts them.
        self.host.enter(|| {
            std::thread::scope(|scope| {
                let all: Vec<_> = (0..count).map(|_| scope.spawn(|| self.status())).collect();
                all.into_iter().map(|request| request.join().unwrap()).collect()
            })
        })
    }

    /// How long each request took that the log has, in milliseconds, in order.
    fn times(&self, count: usize) -> Vec<u64> {
        clock::wait_for("the requests in the log", clock::PATIENCE, || {
            let lines = self.proxy.log();
            let requests = lines.iter().filter(|line| !line["request"].is_null());
            let times: Vec<_> =
                requests.filter_map(|line| Some(line["duration_us"].as_u64()? / 1000)).collect();
            (times.len() >= count).then_some(times)
        })
    }
}

#[test]
fn requests_to_a_dead_backend_cost_few_connects_and_are_told_soon() {
    requires!(root, "iptables", "nsenter");
    let site = site();
    let start = clock::now();
    let seconds = || start.elapsed().as_secs();
    // The first finds out that connections are refused: those that come in the same instant could not know.
    let first = std::thread::scope(|scope| {
        let first = scope.spawn(|| site.statuses(1));
        clock::wait_until("a connect to be refused", || site.syns() > 0);
        [site.statuses(50), first.join().unwrap()].concat()
    });
    assert!(first.iter().all(|status| *status == 502), "{first:?}");
    // Eleven while it may be restarting, then two a second; each request for itself would make five hundred.
    let syns = site.syns();
    assert!((5..=20 + 2 * seconds()).contains(&syns), "{syns} connects");
    assert!(site.statuses(50).iter().all(|status| *status == 502));
    let later = site.syns();
    assert!(later <= syns + 10 + 2 * seconds(), "{later} connects after {syns}");
    // That it is dead is known: those of the second half wait for nothing.
    let mut second = site.times(101).split_off(51);
    second.sort_unstable();
    assert!(second[25] < 1_000, "{second:?} ms");
    let failures = Grpc::connect(&site.proxy.socket()).backend(site.backend).failures;
    assert_eq!(failures, later, "what is counted is what was tried");
    // One request at a time finds out when it is back.
    let _origin = site.host.enter(|| Origin::start_at(site.backend, |exchange| exchange.say(OK)));
    clock::wait_until("the backend to be used again", || site.statuses(1) == [200]);
    assert!(site.statuses(20).iter().all(|status| *status == 200));
}

#[test]
fn requests_wait_for_a_backend_that_restarts() {
    requires!(root, "iptables", "nsenter");
    let site = site();
    let statuses = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| site.statuses(40));
        clock::wait_until("a connect to be refused", || site.syns() > 1);
        let origin = site.host.enter(|| Origin::start_at(site.backend, |exchange| exchange.say(OK)));
        (waiting.join().unwrap(), origin)
    });
    assert!(statuses.0.iter().all(|status| *status == 200), "{:?}", statuses.0);
}

#[test]
fn a_backend_that_takes_no_more_connections_still_answers_on_those_that_it_has() {
    requires!(root, "iptables", "nsenter");
    let site = site();
    let origin = site.host.enter(|| {
        Origin::start_at(site.backend, |exchange| {
            clock::sleep_ms(300);
            exchange.say(OK)
        })
    });
    assert_eq!(site.statuses(1), [200]);
    let before = site.syns();
    // New connections are refused from now on; the one that the proxy has is left alone.
    let rule = ["-A", "INPUT", "-p", "tcp", "--syn", "-d", "127.0.0.2", "--dport", "8080"];
    let reject = ["-j", "REJECT", "--reject-with", "tcp-reset"];
    site.host.run("iptables", &[&rule[..], &reject[..]].concat());
    // Of two at a time one is refused a connection, and gets that of the other when it is free.
    clock::wait_until("a connect to be refused", || {
        assert_eq!(site.statuses(2), [200, 200]);
        site.syns() > before
    });
    assert_eq!(origin.accepted(), 1);
}
