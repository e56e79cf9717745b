//! Clients and backends that are slow, or stop in the middle: in every phase their time comes to an end that is known and
//! logged, and meanwhile others are served, by the same worker and on the same connection of HTTP/2.

use std::io::{Read as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mc_testkit::ca::Ca;
use mc_testkit::client::{Raw, Request};
use mc_testkit::clock;
use mc_testkit::flow::{drink, pour};
use mc_testkit::hello::Hello;
use mc_testkit::http::{Client, Origin, Then, TlsEnd};
use mc_testkit::proxy::{Config, Proxy};
use socket2::SockRef;

use super::http1::{NAME, OK, get, post};
use super::http2;

/// Limits that are over soon, and still long beside the pauses of a slow machine.
const LIMITS: &str =
    "idle_timeout_ms = 2000\nhttp = { response_timeout_ms = 1000, keepalive_timeout_ms = 2000 }";

/// Content that no socket's buffers hold.
const BIG: u64 = 64 << 20;

/// A site with one worker and short limits, whose backend stops where the target says so.
struct Site {
    ca: Ca,
    proxy: Proxy,
    origin: Origin,
}

impl Site {
    fn new() -> Self {
        let origin = Origin::start(|exchange| {
            match exchange.target().split('?').next().unwrap_or_default() {
                "/never" => {}
                "/half-head" => {
                    exchange.say("HTTP/1.1 200 OK\r\nContent-Le")?;
                }
                "/half" => {
                    exchange.say("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nthe first half")?;
                }
                "/big" => {
                    exchange.say(&format!("HTTP/1.1 200 OK\r\nContent-Length: {BIG}\r\n\r\n"))?;
                    pour(&mut *exchange.stream, BIG, 7)?;
                }
                "/chat" => {
                    exchange.say(
                        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
                    )?;
                }
                _ => {
                    exchange.body()?;
                    return exchange.say(OK);
                }
            }
            // Says no more, and waits for the proxy to close the connection.
            drink(&mut *exchange.stream, u64::MAX)?;
            Ok(Then::Close)
        });
        let ca = Ca::new();
        let config = Config::new()
            .server("workers = 1")
            .listener_with("web", "hello_timeout_ms = 2000")
            .route_with(NAME, &[origin.address()], &format!("mode = \"l7\"\n{LIMITS}"))
            .certificate("www", &ca.issue(&[NAME]));
        Self { proxy: Proxy::start(config), ca, origin }
    }

    fn client(&self) -> Client {
        Client::on(Request::new(&self.ca, self.proxy.web(), NAME).alpn(&["http/1.1"]).open().unwrap())
    }

    /// Waits for the line of a request that ended so.
    fn wait_request(&self, target: &str, outcome: &str) {
        let is_it = |line: &serde_json::Value| line["target"] == target && line["outcome"] == outcome;
        self.proxy.wait_log(&format!("{target}: {outcome}"), is_it);
    }

    /// Runs these one beside the other, while another client's requests are answered all the time.
    fn beside(&self, phases: &[&(dyn Fn() + Sync)]) {
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let others = scope.spawn(|| {
                let (mut client, mut answered) = (self.client(), 0);
                while !over.load(Ordering::Relaxed) {
                    assert_eq!(client.ask(get("/")).status(), 200);
                    answered += 1;
                    clock::sleep_ms(20);
                }
                answered
            });
            let phases: Vec<_> = phases.iter().map(|phase| scope.spawn(phase)).collect();
            let ends: Vec<_> = phases.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
            over.store(true, Ordering::Relaxed);
            assert!(others.join().unwrap() > 0, "the other client was not served");
            for end in ends {
                end.unwrap();
            }
        });
    }
}

#[test]
fn every_phase_of_http_1_comes_to_an_end() {
    let site = Site::new();
    let hello = Hello::to(NAME).bytes();
    site.beside(&[
        // A ClientHello of which a part comes, and one after which nothing does: the handshake has one limit.
        &|| {
            let mut client = Raw::connect(site.proxy.web());
            client.send(&hello[..hello.len() / 2]);
            client.read_to_end(clock::PATIENCE);
            site.proxy.wait_outcome("hello_timeout");
        },
        &|| {
            let mut client = Raw::connect(site.proxy.web());
            client.send(&hello);
            client.read_to_end(clock::PATIENCE);
        },
        // A connection that asks for nothing.
        &|| {
            assert_ne!(site.client().read_to_end().1, TlsEnd::Silence);
            site.proxy.wait_outcome("idle_timeout");
        },
        // A body that stops, whose length is known and is not.
        &|| {
            for fields in ["Content-Length: 100\r\n", "Transfer-Encoding: chunked\r\n"] {
                let mut client = site.client();
                client.send(post(fields, "5\r\nhello\r\n").replace("POST / ", "POST /upload "));
                assert_eq!(client.response(false).status(), 408, "{fields}");
                assert_ne!(client.read_to_end().1, TlsEnd::Silence);
            }
            site.wait_request("/upload", "client_timeout");
        },
        // A body that goes on for longer than the response may take, a little at a time.
        &|| {
            let mut client = site.client();
            client.send(post("Content-Length: 20\r\n", "").replace("POST / ", "POST /drips "));
            for _ in 0..20 {
                clock::sleep_ms(100);
                client.send("x");
            }
            assert_eq!(client.response(false).status(), 200);
            site.wait_request("/drips", "completed");
        },
        // A backend that does not answer, or not completely.
        &|| {
            for target in ["/never", "/half-head"] {
                let mut client = site.client();
                client.send(get(target));
                assert_eq!(client.response(false).status(), 504, "{target}");
                site.wait_request(target, "backend_timeout");
            }
        },
        &|| {
            let mut client = site.client();
            client.send(get("/half"));
            let (got, end) = client.read_to_end();
            assert!(got.ends_with(b"the first half"), "{}", String::from_utf8_lossy(&got));
            assert_eq!(end, TlsEnd::Cut, "a part must not look like all of it");
            site.wait_request("/half", "backend_timeout");
        },
        // The same to a client that has said that it will say no more, and to one that has said more than is read ahead: nobody
        // reads what they say, and yet their time is over.
        &|| {
            let mut client = site.client();
            client.send(get("/half?finished")).finish();
            assert_eq!(client.read_to_end().1, TlsEnd::Cut);
            site.wait_request("/half?finished", "backend_timeout");
        },
        &|| {
            let mut client = site.client();
            client.send(get("/half?pipelined")).send(get("/").repeat(2_000));
            assert_eq!(client.read_to_end().1, TlsEnd::Cut);
            site.wait_request("/half?pipelined", "backend_timeout");
        },
        // A client that nobody reads from either, and that is gone: that is noticed without its time being over.
        &|| {
            for (target, more) in [("/half?gone", ""), ("/half?gone-pipelined", "GET / HTTP/1.1\r\n")] {
                let mut client = site.client();
                client.send(get(target)).send(more.repeat(8_000));
                if more.is_empty() {
                    client.finish();
                }
                // The backend has answered, and says no more.
                assert!(client.tls.read(&mut [0; 1024]).unwrap() > 0);
                SockRef::from(&client.tls.sock).set_linger(Some(Duration::ZERO)).unwrap();
                drop(client);
                site.wait_request(target, "client_gone");
            }
        },
        // A client that does not take its response.
        &|| {
            let mut client = site.client();
            client.send(get("/big"));
            site.wait_request("/big", "client_timeout");
            let (got, end) = client.read_to_end();
            assert!((got.len() as u64) < BIG && end == TlsEnd::Cut, "{} bytes, {end:?}", got.len());
        },
        // Another protocol in which nobody says anything.
        &|| {
            let mut client = site.client();
            client.send(format!(
                "GET /chat HTTP/1.1\r\nHost: {NAME}\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"
            ));
            assert_eq!(client.response(false).status(), 101);
            assert_ne!(client.read_to_end().1, TlsEnd::Silence);
            site.wait_request("/chat", "upgraded");
        },
    ]);
    site.origin.wait_left_alone();
}

#[test]
fn heads_must_come_within_ten_seconds() {
    let site = Site::new();
    site.beside(&[
        &|| {
            let mut client = site.client();
            client.send("GET /stops HTTP/1.1\r\nHo");
            client.tls.sock.set_read_timeout(Some(clock::PATIENCE)).unwrap();
            assert_ne!(client.read_to_end().1, TlsEnd::Silence);
        },
        &|| {
            // One byte after the other: no limit of a pause ends this.
            let mut client = site.client();
            let head = format!("GET /drips HTTP/1.1\r\nHost: {NAME}\r\nX: {}", "x".repeat(1_000));
            let sent = head.bytes().take_while(|byte| {
                clock::sleep_ms(100);
                client.tls.write_all(&[*byte]).and_then(|()| client.tls.flush()).is_ok()
            });
            let sent = sent.count();
            assert!((20..200).contains(&sent), "it could send {sent} bytes");
        },
    ]);
}

#[test]
fn streams_end_by_themselves_while_others_on_their_connection_go_on() {
    for protocol in ["h1", "h2"] {
        let lines = if protocol == "h2" { ", protocol = \"h2c\"" } else { "" };
        let site = http2::site_with(lines, LIMITS);
        let ends = site.part("http2_slow.py", protocol);
        let end = |phase: &str| {
            let phase = &ends[phase];
            assert_eq!(phase["lost"], 0, "{protocol}, {phase}: requests of others");
            phase["how"].as_str().unwrap_or_default().to_owned()
        };
        assert_eq!(end("request body stops"), "status 408", "{protocol}");
        assert_eq!(end("request body drips"), "status 200", "{protocol}");
        assert_eq!(end("no response"), "status 504", "{protocol}");
        // INTERNAL_ERROR: what came is not all of it.
        assert_eq!(end("response stops"), "status 200 reset 2", "{protocol}");
        // CANCEL.
        assert_eq!(end("response is not taken"), "status 200 reset 8", "{protocol}");
        if protocol == "h1" {
            assert_eq!(end("tunnel is silent"), "status 200 reset 8", "{protocol}");
        }
        for phase in ["nothing is asked", "no preface"] {
            assert_eq!(ends[phase]["how"], "closed", "{protocol}, {phase}");
        }
        let outcome = |word| site.proxy.metric("mcproxy_requests_total", &[&format!("outcome=\"{word}\"")]);
        assert_eq!(outcome("client_timeout"), 2.0, "{protocol}");
    }
}
