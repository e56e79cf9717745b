//! A backend that moves to another port under load: with its route on hold no connection and no request fails, without it
//! some do.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use mc_api::mcproxy as api;
use mc_testkit::backend::{Backend, Expect};
use mc_testkit::ca::Ca;
use mc_testkit::client::Request;
use mc_testkit::clock;
use mc_testkit::http::{Client, Origin, Then};
use mc_testkit::proxy::{Config, Proxy};
use rustls::pki_types::ServerName;

use crate::grpc::{Grpc, route};
use crate::hold::{hold, wait_waiting};

const NAME: &str = "www.example.org";

/// Longer than a request whose backends all refuse waits for one.
const GAP: Duration = Duration::from_millis(2500);

/// What clients have seen.
#[derive(Default)]
struct Seen {
    stop: AtomicBool,
    old: AtomicUsize,
    new: AtomicUsize,
    failed: Mutex<Vec<String>>,
}

impl Seen {
    fn count(&self, answer: io::Result<String>) {
        match answer {
            Ok(name) if name == "old" => drop(self.old.fetch_add(1, Ordering::SeqCst)),
            Ok(name) if name == "new" => drop(self.new.fetch_add(1, Ordering::SeqCst)),
            Ok(other) => self.failed.lock().unwrap().push(other),
            Err(error) => self.failed.lock().unwrap().push(error.to_string()),
        }
    }

    fn failures(&self) -> Vec<String> {
        self.failed.lock().unwrap().clone()
    }
}

/// Runs `client` in so many threads, until the test is over.
fn load(
    seen: &Arc<Seen>,
    threads: usize,
    client: impl Fn(&Seen) + Clone + Send + 'static,
) -> Vec<JoinHandle<()>> {
    let one = |_| {
        let (seen, client) = (Arc::clone(seen), client.clone());
        std::thread::spawn(move || {
            while !seen.stop.load(Ordering::SeqCst) {
                client(&seen);
                clock::sleep_ms(2);
            }
        })
    };
    (0..threads).map(one).collect()
}

/// What a control plane does: hold, stop the old backend, start the new one elsewhere, put the route.
fn relocate<B>(
    proxy: &Proxy,
    held: bool,
    seen: &Seen,
    moving: api::Route,
    old: SocketAddr,
    stop_old: impl FnOnce(),
    start_new: impl FnOnce() -> (SocketAddr, B),
) -> B {
    let grpc = Grpc::connect(&proxy.socket());
    let enough = |count: &AtomicUsize| count.load(Ordering::SeqCst) >= 50;
    clock::wait_until("the old backend to be used", || enough(&seen.old));
    if held {
        hold(&grpc, NAME, 30_000).unwrap();
        clock::wait_until("what is under way to end", || grpc.backend(old).connections == 0);
    }
    stop_old();
    clock::sleep(GAP);
    if held {
        wait_waiting(&grpc, |waiting| waiting > 0);
    }
    let (address, new) = start_new();
    let backends = vec![api::Backend { address: address.to_string(), ..Default::default() }];
    assert!(grpc.add_route(api::Route { backends, ..moving }).unwrap().changed);
    clock::wait_until("the new backend to be used", || enough(&seen.new));
    wait_waiting(&grpc, |waiting| waiting == 0);
    new
}

fn finish(seen: &Seen, threads: Vec<JoinHandle<()>>) {
    seen.stop.store(true, Ordering::SeqCst);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

/// Clients of a route that passes TLS through, each connection for one request. How those failed that did.
fn connections_that_fail(held: bool) -> Vec<String> {
    let ca = Arc::new(Ca::new());
    let certificate = ca.issue(&[NAME]);
    let old = Backend::tls("old", &certificate, Expect::Plain);
    let proxy = Proxy::start(Config::new().listener("web").route(NAME, old.address()));
    let (seen, to) = (Arc::new(Seen::default()), proxy.web());
    let threads = load(&seen, 4, move |seen| {
        let answer = Request::new(&ca, to, NAME).get();
        seen.count(answer.map(|answer| answer["backend"].as_str().unwrap_or_default().to_owned()));
    });
    let (address, moving) = (old.address(), route(NAME, ""));
    let new = relocate(
        &proxy,
        held,
        &seen,
        moving,
        address,
        move || drop(old),
        || {
            let new = Backend::tls("new", &certificate, Expect::Plain);
            (new.address(), new)
        },
    );
    finish(&seen, threads);
    drop(new);
    seen.failures()
}

/// A backend of HTTP/1.1 that can be stopped with all its connections, as a container is.
struct Container {
    origin: Origin,
    streams: Arc<Mutex<Vec<TcpStream>>>,
}

impl Container {
    fn start(name: &'static str) -> Self {
        let streams: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
        let kept = Arc::clone(&streams);
        let origin = Origin::start(move |exchange| {
            if exchange.number == 0 {
                kept.lock().unwrap().push(exchange.stream.try_clone()?);
            }
            exchange.body()?;
            exchange.say(&format!("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{name}"))?;
            Ok(Then::Keep)
        });
        Self { origin, streams }
    }

    fn stop(self) {
        drop(self.origin);
        for stream in self.streams.lock().unwrap().iter() {
            stream.shutdown(Shutdown::Both).ok();
        }
    }
}

/// A client of HTTP/1.1: requests one after the other on one connection, with and without a body.
fn http1(ca: &Ca, to: SocketAddr, seen: &Seen) {
    let requests = [
        format!("GET / HTTP/1.1\r\nHost: {NAME}\r\n\r\n"),
        format!("POST / HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: 5\r\n\r\nhello"),
    ];
    let mut client = match Request::new(ca, to, NAME).alpn(&["http/1.1"]).open() {
        Ok(tls) => Client::on(tls),
        Err(error) => return seen.count(Err(error)),
    };
    for request in requests.iter().cycle().take(20) {
        let answer = client.try_ask(request.as_bytes());
        let is_over = answer.is_err() || seen.stop.load(Ordering::SeqCst);
        seen.count(answer.map(|answer| answer.text()));
        if is_over {
            return;
        }
    }
}

/// A client of HTTP/2: pairs of requests at the same time on one connection.
fn http2(ca: &Ca, to: SocketAddr, seen: &Seen) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let config = Request::new(ca, to, NAME).alpn(&["h2"]).config().unwrap();
    let both = runtime.block_on(async {
        let send = connect2(config, to).await?;
        for _ in 0..10 {
            let (one, other) = tokio::join!(ask2(send.clone(), "GET"), ask2(send.clone(), "POST"));
            let is_over = one.is_err() || other.is_err() || seen.stop.load(Ordering::SeqCst);
            seen.count(one);
            seen.count(other);
            if is_over {
                break;
            }
        }
        Ok(())
    });
    if let Err(error) = both {
        seen.count(Err(error));
    }
}

/// Connects, within a runtime.
async fn connect2(
    config: Arc<rustls::ClientConfig>,
    to: SocketAddr,
) -> io::Result<h2::client::SendRequest<Bytes>> {
    let stream = tokio::net::TcpStream::connect(to).await?;
    let name = ServerName::try_from(NAME).unwrap();
    let tls = tokio_rustls::TlsConnector::from(config).connect(name, stream).await?;
    let (send, connection) = h2::client::handshake(tls).await.map_err(io::Error::other)?;
    tokio::spawn(connection);
    Ok(send)
}

async fn ask2(send: h2::client::SendRequest<Bytes>, method: &str) -> io::Result<String> {
    let request = http::Request::builder().method(method).uri(format!("https://{NAME}/")).body(()).unwrap();
    let mut send = send.ready().await.map_err(io::Error::other)?;
    let has_body = method == "POST";
    let (response, mut body) = send.send_request(request, !has_body).map_err(io::Error::other)?;
    if has_body {
        body.send_data(Bytes::from_static(b"hello"), true).map_err(io::Error::other)?;
    }
    let mut response = response.await.map_err(io::Error::other)?.into_body();
    let mut text = Vec::new();
    while let Some(data) = response.data().await {
        text.extend(data.map_err(io::Error::other)?);
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Clients of HTTP/1.1 and HTTP/2 of a route that terminates TLS. How those requests failed that did.
fn requests_that_fail(held: bool) -> Vec<String> {
    let ca = Arc::new(Ca::new());
    let old = Container::start("old");
    let address = old.origin.address();
    let config = Config::new().listener("web").certificate("www", &ca.issue(&[NAME]));
    let proxy = Proxy::start(config.route_with(NAME, &[address], "mode = \"l7\""));
    let (seen, to) = (Arc::new(Seen::default()), proxy.web());
    let other = Arc::clone(&ca);
    let mut threads = load(&seen, 4, move |seen| http1(&ca, to, seen));
    threads.extend(load(&seen, 3, move |seen| http2(&other, to, seen)));
    let moving = api::Route { mode: api::Mode::L7.into(), ..route(NAME, "") };
    let new = relocate(
        &proxy,
        held,
        &seen,
        moving,
        address,
        move || old.stop(),
        || {
            let new = Container::start("new");
            (new.origin.address(), new)
        },
    );
    finish(&seen, threads);
    drop(new);
    seen.failures()
}

#[test]
fn connections_wait_for_a_backend_that_moves() {
    assert_eq!(connections_that_fail(true), Vec::<String>::new());
}

#[test]
fn connections_fail_where_a_backend_moves_without_a_hold() {
    assert!(!connections_that_fail(false).is_empty());
}

#[test]
fn requests_wait_for_a_backend_that_moves() {
    assert_eq!(requests_that_fail(true), Vec::<String>::new());
}

#[test]
fn requests_fail_where_a_backend_moves_without_a_hold() {
    assert!(!requests_that_fail(false).is_empty());
}

/// One request is given up while its connection goes on, then the connection is.
#[test]
fn a_client_of_http2_that_leaves_waits_no_longer() {
    let (ca, origin) = (Ca::new(), Origin::echoing());
    let config = Config::new().listener("web").certificate("www", &ca.issue(&[NAME]));
    let proxy = Proxy::start(config.route_with(NAME, &[origin.address()], "mode = \"l7\""));
    let grpc = Grpc::connect(&proxy.socket());
    hold(&grpc, NAME, 30_000).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let config = Request::new(&ca, proxy.web(), NAME).alpn(&["h2"]).config().unwrap();
    let send = runtime.block_on(connect2(config, proxy.web())).unwrap();
    let asking = |method: &'static str| {
        let send = send.clone();
        runtime.spawn(async move { ask2(send, method).await })
    };
    let (given_up, _kept) = (asking("GET"), asking("POST"));
    wait_waiting(&grpc, |waiting| waiting == 2);
    given_up.abort();
    wait_waiting(&grpc, |waiting| waiting == 1);
    drop(runtime);
    wait_waiting(&grpc, |waiting| waiting == 0);
    assert_eq!(origin.accepted(), 0);
}
