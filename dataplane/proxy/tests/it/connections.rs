//! What an operator does with live connections and requests: finds them by their backend, ends them, lets a backend drain; and
//! the ids by which they are called.

use std::collections::BTreeSet;
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use mc_testkit::backend::Backend;
use mc_testkit::ca::Ca;
use mc_testkit::client::{Raw, Request};
use mc_testkit::clock;
use mc_testkit::http::{Client, Exchange, Origin, Then};
use mc_testkit::proxy::{Config, Proxy};
use serde_json::{Value, json};

use super::common::{assert_alive, greet, open, to};
use super::http1::{NAME, get};

/// A site with a backend for `/a` and one for `/b`, and one worker: backend connections are kept by each worker for itself.
struct Site {
    ca: Ca,
    proxy: Proxy,
    a: Origin,
    b: Origin,
    /// Lets `/slow` be answered to its end.
    release: Arc<AtomicBool>,
}

impl Site {
    fn new() -> Self {
        let release = Arc::new(AtomicBool::new(false));
        let [a, b] = [Arc::clone(&release), Arc::clone(&release)]
            .map(|release| Origin::start(move |exchange| answer(exchange, &release)));
        let lines = format!(
            "mode = \"l7\"\nbackends = [{{ address = \"{}\", path = \"/a\" }}, {{ address = \"{}\", path = \"/b\" }}]",
            a.address(),
            b.address()
        );
        let ca = Ca::new();
        let config = Config::new().server("workers = 1").listener("web").route_lines("web", NAME, &lines);
        let proxy = Proxy::start(config.certificate("www", &ca.issue(&[NAME])));
        Self { ca, proxy, a, b, release }
    }

    fn client(&self) -> Client {
        Client::on(Request::new(&self.ca, self.proxy.web(), NAME).alpn(&["http/1.1"]).open().unwrap())
    }

    /// A client whose WebSocket is open.
    fn websocket(&self, path: &str) -> Client {
        let mut client = self.client();
        client.send(format!(
            "GET {path}/chat HTTP/1.1\r\nHost: {NAME}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        ));
        assert_eq!(client.response(false).status(), 101);
        assert_echoes(&mut client);
        client
    }

    /// Connections that have something to do with this backend.
    fn at(&self, backend: SocketAddr) -> Vec<Value> {
        let list = self.proxy.ctl(&["connection", "list", "--backend", &backend.to_string()]);
        list.as_array().unwrap().clone()
    }

    fn drain(&self, backend: SocketAddr, more: &[&str]) -> Value {
        self.proxy.ctl(&[&["backend", "drain", &backend.to_string()], more].concat())
    }
}

/// Switches to an echo, or answers: `/slow` with a half, until it is released.
fn answer(exchange: &mut Exchange<'_>, release: &AtomicBool) -> io::Result<Then> {
    if exchange.values("upgrade") == ["websocket"] {
        exchange
            .say("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")?;
        let mut buffer = [0; 64];
        loop {
            match exchange.stream.read(&mut buffer)? {
                0 => return Ok(Then::Close),
                read => exchange.stream.write_all(&buffer[..read])?,
            }
        }
    }
    if !exchange.target().ends_with("/slow") {
        return exchange.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    }
    exchange.say("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf-")?;
    exchange.stream.set_read_timeout(Some(Duration::from_millis(20)))?;
    while !release.load(Ordering::Relaxed) {
        match exchange.stream.read(&mut [0]) {
            Ok(_) => return Ok(Then::Close),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    exchange.stream.set_read_timeout(None)?;
    exchange.say("other")
}

fn assert_echoes(client: &mut Client) {
    client.send("still there?");
    let mut echo = [0; 12];
    client.tls.read_exact(&mut echo).unwrap();
    assert_eq!(&echo, b"still there?");
}

fn is_request(line: &Value) -> bool {
    !line["request"].is_null()
}

#[test]
fn websockets_are_found_by_their_backend_and_ended_with_it() {
    let site = Site::new();
    let (mut a, mut b) = (site.websocket("/a"), site.websocket("/b"));
    let mut idle = site.client();
    assert_eq!(idle.ask(get("/a")).status(), 200);
    // A client that asks for nothing is connected to no backend.
    let found = site.at(site.a.address());
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(
        (&found[0]["backend"], &found[0]["requests"]),
        (&json!(site.a.address().to_string()), &json!(1))
    );
    // A drain leaves them alone.
    let drained = site.drain(site.a.address(), &[]);
    assert_eq!((&drained["killed"], &drained["requests"]), (&json!(0), &json!(0)));
    assert_echoes(&mut a);
    assert_eq!(site.client().ask(get("/a")).status(), 503);
    // Killed is what is there, and nothing else.
    let killed = site.drain(site.a.address(), &["--kill"]);
    assert_eq!((&killed["killed"], &killed["requests"]), (&json!(1), &json!(0)));
    a.read_to_end();
    site.a.wait_left_alone();
    assert_echoes(&mut b);
    assert_eq!(idle.ask(get("/b")).status(), 200);
    let line = site.proxy.wait_log("the request", |line| is_request(line) && line["outcome"] == "killed");
    assert_eq!(line["backend"], site.a.address().to_string());
    site.proxy.wait_log("the connection", |line| !is_request(line) && line["outcome"] == "killed");
    assert_eq!(site.at(site.a.address()), Vec::<Value>::new());
    let killed = site.proxy.ctl(&["connection", "kill", "--backend", &site.b.address().to_string()]);
    assert_eq!(killed["killed"], 1);
    b.read_to_end();
}

#[test]
fn a_request_that_is_answered_while_its_backend_drains_is_its_connection_s_last() {
    let site = Site::new();
    let address = site.a.address();
    let mut client = site.client();
    client.send(get("/a/slow"));
    clock::wait_until("the request to arrive", || site.at(address).len() == 1);
    site.drain(address, &[]);
    site.release.store(true, Ordering::Relaxed);
    assert_eq!(client.response(false).text(), "half-other");
    drop(site.proxy.ctl(&["backend", "undrain", &address.to_string()]));
    assert_eq!(client.ask(get("/a")).status(), 200);
    assert_eq!(site.a.accepted(), 2);
    // One that waits for its next request is closed at once.
    site.drain(address, &[]);
    drop(site.proxy.ctl(&["backend", "undrain", &address.to_string()]));
    assert_eq!(client.ask(get("/a")).status(), 200);
    assert_eq!(site.a.accepted(), 3);
}

/// Connections over HTTP/2 are kept for long, and shared.
#[test]
fn a_backend_of_http_2_that_drains_loses_its_connection_when_it_has_answered() {
    let backend = Backend::start(serve_h2c);
    let ca = Ca::new();
    let lines = format!(
        "mode = \"l7\"\nbackends = [{{ address = \"{}\", protocol = \"h2c\" }}]\n",
        backend.address()
    );
    let config = Config::new().server("workers = 1").listener("web").route_lines("web", NAME, &lines);
    let proxy = Proxy::start(config.certificate("www", &ca.issue(&[NAME])));
    let mut client = Client::on(Request::new(&ca, proxy.web(), NAME).alpn(&["http/1.1"]).open().unwrap());
    assert_eq!(client.ask(get("/")).status(), 200);
    assert_eq!(client.ask(get("/")).status(), 200);
    assert_eq!((backend.accepted(), backend.active()), (1, 1));
    let drained = clock::now();
    drop(proxy.ctl(&["backend", "drain", &backend.address().to_string()]));
    clock::wait_until("the connection to be closed", || backend.active() == 0);
    assert!(drained.elapsed() < Duration::from_secs(25), "it was closed because it was idle");
}

/// Answers every request over HTTP/2 with 200.
fn serve_h2c(stream: std::net::TcpStream) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    stream.set_nonblocking(true).unwrap();
    runtime.block_on(async move {
        let stream = tokio::net::TcpStream::from_std(stream).unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            respond.send_response(http::Response::new(()), true).unwrap();
        }
    });
}

/// A request over HTTP/2, once its response has begun.
async fn asked(client: &h2::client::SendRequest<Bytes>, path: &str) -> h2::RecvStream {
    let request = http::Request::get(format!("https://{NAME}{path}")).body(()).unwrap();
    let mut client = client.clone().ready().await.unwrap();
    let (response, _) = client.send_request(request, true).unwrap();
    let response = response.await.unwrap();
    assert_eq!(response.status(), 200);
    response.into_body()
}

/// All of a response's content.
async fn content(mut body: h2::RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut all = Vec::new();
    while let Some(piece) = body.data().await {
        all.extend_from_slice(&piece?);
    }
    Ok(all)
}

#[test]
fn of_a_connection_of_http_2_only_the_requests_at_the_backend_end() {
    let site = Site::new();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let config = Request::new(&site.ca, site.proxy.web(), NAME).alpn(&["h2"]).config().unwrap();
    let client = runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(site.proxy.web()).await.unwrap();
        let name = NAME.try_into().unwrap();
        let tls = tokio_rustls::TlsConnector::from(config).connect(name, stream).await.unwrap();
        let (client, connection) = h2::client::handshake(tls).await.unwrap();
        tokio::spawn(connection);
        client
    });
    let [one, two, other] =
        ["/a/slow", "/a/slow", "/b/slow"].map(|path| runtime.block_on(asked(&client, path)));
    let found = site.at(site.a.address());
    let both = [site.a.address(), site.b.address()];
    let both: BTreeSet<String> = both.iter().map(ToString::to_string).collect();
    let shown: BTreeSet<String> =
        found[0]["backend"].as_str().unwrap().split(", ").map(str::to_owned).collect();
    assert_eq!((found.len(), &found[0]["requests"], shown), (1, &json!(3), both));
    let killed = site.proxy.ctl(&["connection", "kill", "--backend", &site.a.address().to_string()]);
    assert_eq!((&killed["killed"], &killed["requests"]), (&json!(0), &json!(2)));
    for body in [one, two] {
        let error = runtime.block_on(content(body)).unwrap_err();
        assert_eq!(error.reason(), Some(h2::Reason::CANCEL), "{error}");
    }
    site.a.wait_left_alone();
    site.release.store(true, Ordering::Relaxed);
    assert_eq!(runtime.block_on(content(other)).unwrap(), b"half-other");
    // The same connection goes on, and its backend, too, which does not drain.
    let more = runtime.block_on(asked(&client, "/a"));
    assert_eq!(runtime.block_on(content(more)).unwrap(), b"ok");
    let of = |outcome: &str| {
        let log = site.proxy.log();
        log.iter().filter(|line| is_request(line) && line["outcome"] == outcome).count()
    };
    clock::wait_until("four requests in the log", || (of("killed"), of("completed")) == (2, 2));
}

/// The backend is silent while TLS is to be spoken: the request waits for its connection.
#[test]
fn a_request_that_waits_for_its_backend_is_ended_and_never_sent() {
    let backend = Backend::start(|mut stream| drop(stream.read_to_end(&mut Vec::new())));
    let ca = Ca::new();
    let files = tempfile::tempdir().unwrap();
    let lines = format!(
        "mode = \"l7\"\nconnect_timeout_ms = 60000\nbackends = [{{ address = \"{}\", protocol = \"https\" }}]\n\
         http = {{ backend_ca = \"{}\" }}",
        backend.address(),
        ca.write(files.path()).display()
    );
    let config = Config::new().listener("web").route_lines("web", NAME, &lines);
    let proxy = Proxy::start(config.certificate("www", &ca.issue(&[NAME])));
    let mut client = Client::on(Request::new(&ca, proxy.web(), NAME).alpn(&["http/1.1"]).open().unwrap());
    client.send(get("/"));
    clock::wait_until("the backend to be asked", || backend.active() == 1);
    let address = backend.address().to_string();
    assert_eq!(proxy.ctl(&["backend", "drain", &address, "--kill"])["killed"], 1);
    client.read_to_end();
    clock::wait_until("the backend to be left alone", || backend.active() == 0);
    proxy.wait_log("the request", |line| is_request(line) && line["outcome"] == "killed");
}

/// The first connection of each of two processes, and its first request.
#[test]
fn ids_begin_with_their_process() {
    let site = Site::new();
    let mut site = site;
    let ask = |site: &Site| assert_eq!(site.client().ask(get("/a")).status(), 200);
    ask(&site);
    let before = site.proxy.ctl(&["status"])["process"].clone();
    let old = site.proxy.take_over();
    ask(&site);
    let after = site.proxy.ctl(&["status"])["process"].clone();
    assert_ne!(before, after);
    let lines = clock::wait_for("both connections and their requests in the log", clock::PATIENCE, || {
        let lines = site.proxy.log();
        (lines.len() >= 4).then_some(lines)
    });
    let ids: BTreeSet<&str> = lines.iter().map(|line| line["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 2, "{ids:?}");
    for process in [&before, &after] {
        let process = process.as_str().unwrap();
        assert_eq!(process.len(), 6, "{process}");
        let of: Vec<_> =
            lines.iter().filter(|line| line["id"].as_str().unwrap().starts_with(process)).collect();
        assert_eq!(of.len(), 2, "{process}: {lines:?}");
        let request = of.iter().find(|line| is_request(line)).unwrap();
        assert_eq!(request["request"], format!("{}-1", request["id"].as_str().unwrap()));
        // The backend was told the same, and each line of the process's own log says who writes it.
        assert!(site.a.text().contains(request["request"].as_str().unwrap()));
        assert!(site.proxy.errors().contains(&format!("{{\"process\":\"{process}\",")));
    }
    let unnamed: Vec<String> = site
        .proxy
        .errors()
        .lines()
        .filter(|line| !line.starts_with("{\"process\":\""))
        .map(str::to_owned)
        .collect();
    assert_eq!(unnamed, Vec::<String>::new());
    drop(old);
}

#[test]
fn an_id_that_a_person_has_typed_closes_its_connection_alone() {
    let backend = Backend::named("origin");
    let proxy = to(backend.address());
    let ((mut first, _), (mut second, _)) = (open(&proxy), greet(Raw::connect(proxy.web())));
    let list = proxy.ctl(&["connection", "list"]);
    let of = |client: &Raw| {
        let all = list.as_array().unwrap().iter();
        let mut found = all.filter(|it| it["client"] == client.local().to_string());
        found.next().unwrap()["id"].as_str().unwrap().to_owned()
    };
    let id = of(&first);
    assert_eq!(id.len(), 16, "{id}");
    assert_eq!(proxy.ctl(&["connection", "kill", &id.to_uppercase()])["killed"], 1);
    first.read_to_end(clock::PATIENCE);
    assert_alive(&mut second);
    assert_eq!(proxy.wait_outcome("killed")["id"], id);
}
