//! Backends: one that says who it is and whom it sees, and ones that follow a script.

use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};
use socket2::{Domain, SockRef, Socket, Type};

use crate::ca::Certificate;
use crate::clock;
use crate::header::{self, Header};
use crate::net::Host;
use crate::tools::fresh_address;

/// A TCP server with a thread for each connection. Stops accepting on drop.
#[derive(Debug)]
pub struct Backend {
    address: SocketAddr,
    listener: Arc<TcpListener>,
    stopping: Arc<AtomicBool>,
    accepted: Arc<AtomicUsize>,
    active: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

/// Whether connections start with a PROXY header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// They do not.
    Plain,
    /// Each does.
    Header,
}

impl Backend {
    /// Serves each connection with `serve`, on an address of its own.
    #[must_use]
    pub fn start(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        Self::start_at(fresh_address(), serve)
    }

    /// Serves on this address.
    #[must_use]
    pub fn start_at(address: SocketAddr, serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        Self::serve_on(listen(address), serve)
    }

    /// Serves on this address of a host.
    #[must_use]
    pub fn start_on(
        host: &Host,
        address: SocketAddr,
        serve: impl Fn(TcpStream) + Send + Sync + 'static,
    ) -> Self {
        Self::serve_on(host.enter(|| listen(address)), serve)
    }

    /// Says its name in a line, then sends back whatever it gets until the client finishes.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self::start(say_and_echo(name))
    }

    /// Like [`Self::named`], on this address.
    #[must_use]
    pub fn named_at(address: SocketAddr, name: &str) -> Self {
        Self::start_at(address, say_and_echo(name))
    }

    /// Answers HTTP over TLS with JSON that tells: `backend` (its name), `sni`, `alpn`, `peer` (who connected),
    /// `client` (whom the PROXY header names), `tlvs` and `path`.
    #[must_use]
    pub fn tls(name: &str, certificate: &Certificate, expect: Expect) -> Self {
        Self::start(identify(name, certificate, expect))
    }

    /// Like [`Self::tls`], on this address of a host.
    #[must_use]
    pub fn tls_on(
        host: &Host,
        address: SocketAddr,
        name: &str,
        certificate: &Certificate,
        expect: Expect,
    ) -> Self {
        Self::start_on(host, address, identify(name, certificate, expect))
    }

    fn serve_on(listener: TcpListener, serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let address = listener.local_addr().expect("a bound socket has an address");
        let listener = Arc::new(listener);
        let (stopping, accepted, active) = (Arc::default(), Arc::default(), Arc::default());
        let thread = {
            let (listener, serve) = (Arc::clone(&listener), Arc::new(serve));
            let (stopping, accepted, active) =
                (Arc::clone(&stopping), Arc::clone(&accepted), Arc::clone(&active));
            std::thread::spawn(move || accept_loop(&listener, &stopping, &accepted, &active, &serve))
        };
        Self { address, listener, stopping, accepted, active, thread: Some(thread) }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections that it has accepted.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// Connections that it serves now.
    #[must_use]
    pub fn active(&self) -> usize {
        self.active.load(Ordering::SeqCst)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        // Wakes accept; a listener that is already closed needs no waking.
        SockRef::from(&*self.listener).shutdown(Shutdown::Both).ok();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

fn accept_loop<S: Fn(TcpStream) + Send + Sync + 'static>(
    listener: &TcpListener,
    stopping: &AtomicBool,
    accepted: &AtomicUsize,
    active: &Arc<AtomicUsize>,
    serve: &Arc<S>,
) {
    while !stopping.load(Ordering::SeqCst) {
        let Ok((stream, _)) = listener.accept() else { continue };
        accepted.fetch_add(1, Ordering::SeqCst);
        active.fetch_add(1, Ordering::SeqCst);
        let leave = Leave(Arc::clone(active));
        let serve = Arc::clone(serve);
        std::thread::spawn(move || {
            let _leave = leave;
            serve(stream);
        });
    }
}

/// Counts a connection out, even when its script panics.
struct Leave(Arc<AtomicUsize>);

impl Drop for Leave {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Listens with a long queue, at once after another listener has gone.
///
/// # Panics
/// When the address is taken or not ours.
#[must_use]
pub fn listen(address: SocketAddr) -> TcpListener {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("sockets can be made");
    socket.set_reuse_address(true).expect("SO_REUSEADDR is always there");
    socket.bind(&address.into()).unwrap_or_else(|error| panic!("cannot bind {address}: {error}"));
    socket.listen(4096).unwrap_or_else(|error| panic!("cannot listen on {address}: {error}"));
    socket.into()
}

/// Makes the close of a connection a reset.
pub fn reset_on_close(stream: &TcpStream) {
    SockRef::from(stream).set_linger(Some(Duration::ZERO)).expect("SO_LINGER is always there");
}

fn say_and_echo(name: &str) -> impl Fn(TcpStream) + Send + Sync + use<> {
    let line = format!("{name}\n");
    move |mut stream| {
        // Whatever goes wrong is for the client to notice.
        stream.write_all(line.as_bytes()).and_then(|()| echo(&mut stream)).ok();
    }
}

fn echo(stream: &mut TcpStream) -> io::Result<()> {
    let mut buffer = [0; 16 * 1024];
    loop {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            return stream.shutdown(Shutdown::Write);
        }
        stream.write_all(&buffer[..length])?;
    }
}

fn identify(
    name: &str,
    certificate: &Certificate,
    expect: Expect,
) -> impl Fn(TcpStream) + Send + Sync + use<> {
    let name = name.to_owned();
    let config = certificate.server_config(&["http/1.1"]);
    move |stream| {
        answer(&name, &config, expect, stream).ok();
    }
}

fn answer(
    name: &str,
    config: &Arc<rustls::ServerConfig>,
    expect: Expect,
    mut stream: TcpStream,
) -> io::Result<()> {
    stream.set_read_timeout(Some(clock::PATIENCE))?;
    let peer = stream.peer_addr()?;
    let header = match expect {
        Expect::Header => header::read(&mut stream)?,
        Expect::Plain => Header::default(),
    };
    let connection = rustls::ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
    let mut tls = rustls::StreamOwned::new(connection, stream);
    while tls.conn.is_handshaking() {
        tls.conn.complete_io(&mut tls.sock)?;
    }
    let mut who = json!({
        "backend": name,
        "sni": tls.conn.server_name(),
        "alpn": tls.conn.alpn_protocol().map(String::from_utf8_lossy),
        "peer": peer.to_string(),
        "client": header.client.map(|address| address.to_string()),
        "destination": header.destination.map(|address| address.to_string()),
        "tlvs": tlvs(&header),
        "crc_ok": header.crc_ok,
    });
    while let Some(request) = read_request(&mut tls)? {
        who["path"] = Value::String(request.path);
        let body = format!("{who}\n");
        write!(
            tls,
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )?;
        tls.flush()?;
        if request.last {
            break;
        }
    }
    tls.conn.send_close_notify();
    tls.flush()
}

/// Type in decimal to value, as text where it is text and in hex where not.
fn tlvs(header: &Header) -> Value {
    let one = |(kind, value): &(u8, Vec<u8>)| {
        let hex = || value.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let text = std::str::from_utf8(value).ok().filter(|text| text.chars().all(|c| c.is_ascii_graphic()));
        (kind.to_string(), Value::String(text.map_or_else(hex, str::to_owned)))
    };
    Value::Object(header.tlvs.iter().map(one).collect())
}

/// What an HTTP/1.1 request without a body asks for.
struct Asked {
    path: String,
    /// The client wants the connection to be closed.
    last: bool,
}

/// The next request; `None` when the client has gone.
fn read_request(tls: &mut (impl Read + Write)) -> io::Result<Option<Asked>> {
    let mut lines = BufReader::with_capacity(1, tls).lines();
    let Some(first) = lines.next().transpose()? else { return Ok(None) };
    let mut asked = Asked { path: first.split(' ').nth(1).unwrap_or_default().to_owned(), last: false };
    for line in lines {
        let line = line?;
        if line.is_empty() {
            return Ok(Some(asked));
        }
        asked.last |= line.eq_ignore_ascii_case("connection: close");
    }
    Ok(None)
}
