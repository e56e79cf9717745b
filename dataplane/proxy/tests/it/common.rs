//! What several themes use.

use std::net::SocketAddr;

use mc_testkit::client::{End, Raw};
use mc_testkit::clock::PATIENCE;
use mc_testkit::hello::Hello;
use mc_testkit::proxy::{Config, Proxy};

/// A proxy with one listener `web` whose every name leads to `backend`.
pub(crate) fn to(backend: SocketAddr) -> Proxy {
    Proxy::start(Config::new().listener("web").route("*", backend))
}

/// The first bytes of a client that asks for `www.example.org`.
pub(crate) fn hello() -> Vec<u8> {
    Hello::to("www.example.org").bytes()
}

/// A connection that has been routed and is open: the backend's name was heard.
pub(crate) fn open(proxy: &Proxy) -> (Raw, String) {
    greet(Raw::connect(proxy.web()))
}

/// Says hello on a connection and hears the backend's name and the hello's echo.
pub(crate) fn greet(mut client: Raw) -> (Raw, String) {
    let hello = hello();
    client.send(&hello);
    let name = client.read_line();
    assert!(client.read_exactly(hello.len()) == hello, "the backend got other bytes than the client sent");
    (client, name)
}

/// Whether an open connection to a named backend still carries bytes.
pub(crate) fn assert_alive(client: &mut Raw) {
    client.send(b"still there?");
    assert_eq!(client.read_exactly(12), b"still there?");
}

/// Sends these bytes and sees the end.
pub(crate) fn ask(proxy: &Proxy, bytes: &[u8]) -> (Vec<u8>, End) {
    let mut client = Raw::connect(proxy.web());
    client.send(bytes);
    client.read_to_end(PATIENCE)
}

/// A fatal TLS alert with this description (RFC 8446, section 6).
pub(crate) fn alert(description: u8) -> Vec<u8> {
    vec![21, 3, 3, 0, 2, 2, description]
}

/// Waits until so many connections have ended with this outcome, in the metrics too.
pub(crate) fn wait_counted(proxy: &Proxy, outcome: &str, at_least: f64) {
    proxy.wait_metric("mcproxy_connections_total", &[&format!("outcome=\"{outcome}\"")], at_least);
}
