//! HTTP/1.1 byte by byte: a backend that keeps what it got and says what a test wants, and a client over TLS.
//!
//! Neither uses a library that would put right what a proxy got wrong. Both read leniently: what a message must
//! look like is for the test to say.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::backend::{Backend, reset_on_close};
use crate::clock;
use crate::fresh_address;

/// A backend whose answers are up to the test.
#[derive(Debug)]
pub struct Origin {
    backend: Backend,
    got: Arc<Mutex<Vec<Vec<u8>>>>,
}

/// What a backend does with a connection after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Waits for the next request.
    Keep,
    /// Closes it.
    Close,
    /// Resets it.
    Reset,
}

/// A request that waits for its answer.
#[derive(Debug)]
pub struct Exchange<'a> {
    /// The connection, past the request's head. What is read here is not kept.
    pub stream: &'a mut TcpStream,
    /// How many connections came before this one.
    pub connection: usize,
    /// How many requests came before this one on its connection.
    pub number: usize,
    /// The request line and the fields, their ends included.
    pub head: String,
    got: &'a Mutex<Vec<Vec<u8>>>,
}

impl Origin {
    /// Answers each request with `answer`; an error ends the connection.
    #[must_use]
    pub fn start(answer: impl Fn(&mut Exchange<'_>) -> io::Result<Then> + Send + Sync + 'static) -> Self {
        Self::start_at(fresh_address(), answer)
    }

    /// The same at this address.
    #[must_use]
    pub fn start_at(
        address: SocketAddr,
        answer: impl Fn(&mut Exchange<'_>) -> io::Result<Then> + Send + Sync + 'static,
    ) -> Self {
        let got: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
        let kept = Arc::clone(&got);
        let next = AtomicUsize::new(0);
        let backend = Backend::start_at(address, move |mut stream| {
            // Numbers are given and places made in one step, so that they agree.
            let connection = {
                let mut kept = lock(&kept);
                kept.push(Vec::new());
                next.fetch_add(1, Ordering::SeqCst)
            };
            // What went wrong is for the client to notice.
            serve(&mut stream, connection, &kept, &answer).ok();
        });
        Self { backend, got }
    }

    /// Answers each request with these bytes, once its body has come.
    #[must_use]
    pub fn saying(answer: impl Into<Vec<u8>>, then: Then) -> Self {
        let answer = answer.into();
        Self::start(move |exchange| {
            exchange.body()?;
            exchange.stream.write_all(&answer)?;
            Ok(then)
        })
    }

    /// Answers each request with its own target, and keeps the connection.
    #[must_use]
    pub fn echoing() -> Self {
        Self::start(|exchange| {
            exchange.body()?;
            let target = exchange.target().to_owned();
            exchange.say(&format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{target}", target.len()))
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.backend.address()
    }

    /// Connections that it has accepted.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.backend.accepted()
    }

    /// All bytes that came so far, by connection.
    #[must_use]
    pub fn got(&self) -> Vec<Vec<u8>> {
        lock(&self.got).clone()
    }

    /// All bytes that came so far, as text, those of one connection after those of the one before.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.got().concat()).into_owned()
    }

    /// Waits until every connection has ended, so that nothing more can come.
    pub fn wait_left_alone(&self) {
        clock::wait_until("the backend's connections to end", || self.backend.active() == 0);
    }
}

impl Exchange<'_> {
    /// The request's target.
    #[must_use]
    pub fn target(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or_default()
    }

    /// The values of a field.
    #[must_use]
    pub fn values(&self, name: &str) -> Vec<&str> {
        values(&self.head, name)
    }

    /// Reads the request's body; it is returned as it came, its framing included.
    ///
    /// # Errors
    /// The connection's.
    pub fn body(&mut self) -> io::Result<Vec<u8>> {
        let mut from = Kept { stream: &mut *self.stream, connection: self.connection, got: self.got };
        let mut raw = Vec::new();
        if let Some(length) = length(&self.head) {
            from.take(length).read_to_end(&mut raw)?;
        } else if is_chunked(&self.head) {
            read_chunks(&mut from, &mut raw)?;
        }
        Ok(raw)
    }

    /// Says this and keeps the connection.
    ///
    /// # Errors
    /// The connection's.
    pub fn say(&mut self, text: &str) -> io::Result<Then> {
        self.stream.write_all(text.as_bytes())?;
        Ok(Then::Keep)
    }
}

fn lock(got: &Mutex<Vec<Vec<u8>>>) -> std::sync::MutexGuard<'_, Vec<Vec<u8>>> {
    got.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A connection of which every byte that is read is kept.
struct Kept<'a> {
    stream: &'a mut TcpStream,
    connection: usize,
    got: &'a Mutex<Vec<Vec<u8>>>,
}

impl Read for Kept<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.stream.read(buffer)?;
        lock(self.got)[self.connection].extend(&buffer[..read]);
        Ok(read)
    }
}

fn serve(
    stream: &mut TcpStream,
    connection: usize,
    got: &Mutex<Vec<Vec<u8>>>,
    answer: &impl Fn(&mut Exchange<'_>) -> io::Result<Then>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    for number in 0.. {
        let head = read_head(&mut Kept { stream: &mut *stream, connection, got })?;
        let mut exchange = Exchange { stream: &mut *stream, connection, number, head, got };
        match answer(&mut exchange)? {
            Then::Keep => {}
            Then::Close => return Ok(()),
            Then::Reset => {
                reset_on_close(stream);
                return Ok(());
            }
        }
    }
    Ok(())
}

/// A head, byte by byte, so that nothing after it is taken.
fn read_head(from: &mut impl Read) -> io::Result<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        from.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// A chunked body, appended to `raw` as it comes; returns its content.
fn read_chunks(from: &mut impl Read, raw: &mut Vec<u8>) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    loop {
        let line = read_line(from, raw)?;
        let size = line.split([';', ' ']).next().unwrap_or_default();
        let size = usize::from_str_radix(size, 16).map_err(io::Error::other)?;
        if size == 0 {
            while !read_line(from, raw)?.is_empty() {}
            return Ok(content);
        }
        let start = raw.len();
        raw.resize(start + size + 2, 0);
        from.read_exact(&mut raw[start..])?;
        content.extend(&raw[start..start + size]);
    }
}

/// A line without its CRLF; appended to `raw` with it.
fn read_line(from: &mut impl Read, raw: &mut Vec<u8>) -> io::Result<String> {
    let start = raw.len();
    let mut byte = [0];
    while !raw[start..].ends_with(b"\r\n") {
        from.read_exact(&mut byte)?;
        raw.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&raw[start..raw.len() - 2]).into_owned())
}

/// The values of a field of this head, each without white space around it.
#[must_use]
pub fn values<'a>(head: &'a str, name: &str) -> Vec<&'a str> {
    let fields = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    fields.filter(|(this, _)| this.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).collect()
}

fn length(head: &str) -> Option<u64> {
    values(head, "content-length").first()?.parse().ok()
}

fn is_chunked(head: &str) -> bool {
    values(head, "transfer-encoding").iter().any(|coding| coding.eq_ignore_ascii_case("chunked"))
}

/// How a connection over TLS ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsEnd {
    /// The other side said that it sends no more.
    Clean,
    /// It closed or reset the connection without saying so: something may be missing.
    Cut,
    /// Nothing happened for ten seconds.
    Silence,
}

/// A client's connection over TLS.
#[derive(Debug)]
pub struct Client {
    /// The connection, for what has no method here.
    pub tls: rustls::StreamOwned<rustls::ClientConnection, TcpStream>,
}

/// A response.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status line and the fields, their ends included.
    pub head: String,
    /// Its body, without the framing.
    pub body: Vec<u8>,
    /// Its body as it came.
    pub raw: Vec<u8>,
}

impl Response {
    /// Its status.
    ///
    /// # Panics
    /// When it is no number.
    #[must_use]
    pub fn status(&self) -> u16 {
        let status = self.head.split(' ').nth(1).and_then(|status| status.trim().parse().ok());
        status.unwrap_or_else(|| panic!("no status in {:?}", self.head))
    }

    /// The values of a field.
    #[must_use]
    pub fn values(&self, name: &str) -> Vec<&str> {
        values(&self.head, name)
    }

    /// Its body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Client {
    /// A client on this connection.
    #[must_use]
    pub fn on(tls: rustls::StreamOwned<rustls::ClientConnection, TcpStream>) -> Self {
        Self { tls }
    }

    /// Sends.
    ///
    /// # Panics
    /// When the other side has gone.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.tls.write_all(bytes.as_ref()).and_then(|()| self.tls.flush()).expect("the other side reads");
        self
    }

    /// Sends a request and reads the response to it.
    ///
    /// # Panics
    /// When there is none.
    pub fn ask(&mut self, request: impl AsRef<[u8]>) -> Response {
        let request = request.as_ref();
        let to_head = request.starts_with(b"HEAD ");
        self.send(request);
        self.response(to_head)
    }

    /// The same where it may fail.
    ///
    /// # Errors
    /// The connection's.
    pub fn try_ask(&mut self, request: &[u8]) -> io::Result<Response> {
        self.tls.write_all(request)?;
        self.tls.flush()?;
        self.try_response(request.starts_with(b"HEAD "))
    }

    /// Reads the next response; one `to_head` has no body. A body without a length goes to the end.
    ///
    /// # Panics
    /// When it does not come, or not all of it.
    pub fn response(&mut self, to_head: bool) -> Response {
        self.try_response(to_head).unwrap_or_else(|error| panic!("no response: {error}"))
    }

    /// The same where it may fail.
    ///
    /// # Errors
    /// The connection's; `UnexpectedEof` where it ended within the response.
    pub fn try_response(&mut self, to_head: bool) -> io::Result<Response> {
        let mut response = Response { head: read_head(&mut self.tls)?, body: Vec::new(), raw: Vec::new() };
        let status = response.status();
        if to_head || status < 200 || matches!(status, 204 | 304) {
            return Ok(response);
        }
        if is_chunked(&response.head) {
            response.body = read_chunks(&mut self.tls, &mut response.raw)?;
            return Ok(response);
        }
        match length(&response.head) {
            Some(length) => {
                let length = usize::try_from(length).map_err(io::Error::other)?;
                response.raw.resize(length, 0);
                self.tls.read_exact(&mut response.raw)?;
            }
            None => {
                self.tls.read_to_end(&mut response.raw)?;
            }
        }
        response.body.clone_from(&response.raw);
        Ok(response)
    }

    /// Reads to the end: what came, and how it ended.
    ///
    /// # Panics
    /// When it ends in a way that there is no word for.
    pub fn read_to_end(&mut self) -> (Vec<u8>, TlsEnd) {
        let mut bytes = Vec::new();
        let mut buffer = [0; 16 * 1024];
        loop {
            match self.tls.read(&mut buffer) {
                Ok(0) => return (bytes, TlsEnd::Clean),
                Ok(read) => bytes.extend(&buffer[..read]),
                Err(error) => match error.kind() {
                    io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => {
                        return (bytes, TlsEnd::Cut);
                    }
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => return (bytes, TlsEnd::Silence),
                    io::ErrorKind::Interrupted => {}
                    _ => panic!("reading: {error}"),
                },
            }
        }
    }

    /// Says that nothing more will come, and goes on listening; the connection beneath stays open.
    ///
    /// # Panics
    /// When the other side has gone.
    pub fn finish(&mut self) -> &mut Self {
        self.tls.conn.send_close_notify();
        self.tls.flush().expect("the other side reads");
        self
    }

    /// Whether nothing is said for a while: the connection is open, and no answer is on its way.
    ///
    /// # Panics
    /// When the connection has no timeouts.
    pub fn is_silent_for(&mut self, time: Duration) -> bool {
        let before = self.tls.sock.read_timeout().expect("a socket has timeouts");
        self.tls.sock.set_read_timeout(Some(time)).expect("the time is not zero");
        let silent =
            matches!(self.tls.read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock);
        self.tls.sock.set_read_timeout(before).expect("it was one before");
        silent
    }
}
