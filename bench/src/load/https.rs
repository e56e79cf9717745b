//! HTTPS by a client of our own: handshakes full and resumed, large bodies, connections that idle.
//!
//! Blocking threads, each with one connection at a time, and HTTP/1.1 as plain as it can be: what is measured is on the
//! other side. Every client offers the same: TLS 1.3, AES-128-GCM, X25519.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider, kx_group};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned};

use super::{Outcome, STALL};
use crate::clock::now_ns;
use crate::content::{CHUNK, pattern};

/// The name that every proxy has a certificate and a route for.
pub(crate) const HOST: &str = "web.bench.test";

/// How to reach the proxy, and whom to believe.
#[derive(Clone, Debug)]
pub(crate) struct Https {
    target: SocketAddr,
    roots: Arc<RootCertStore>,
}

/// A connection on which requests are made.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: BufReader<StreamOwned<ClientConnection, TcpStream>>,
}

impl Https {
    /// Clients of `target` that believe this certificate.
    ///
    /// # Errors
    /// It is none.
    pub(crate) fn new(target: SocketAddr, root: CertificateDer<'static>) -> anyhow::Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(root)?;
        Ok(Self { target, roots: Arc::new(roots) })
    }

    /// A client that has not been here.
    ///
    /// # Errors
    /// The library cannot do TLS 1.3.
    pub(crate) fn client(&self, resumes: bool) -> anyhow::Result<Arc<ClientConfig>> {
        let mut provider = default_provider();
        provider.cipher_suites = vec![cipher_suite::TLS13_AES_128_GCM_SHA256];
        provider.kx_groups = vec![kx_group::X25519];
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(Arc::clone(&self.roots))
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.resumption = if resumes { Resumption::in_memory_sessions(8) } else { Resumption::disabled() };
        Ok(Arc::new(config))
    }

    /// Connects and finishes the handshake.
    ///
    /// # Errors
    /// It fails, or stalls.
    pub(crate) fn open(&self, client: &Arc<ClientConfig>) -> anyhow::Result<Connection> {
        let mut socket = TcpStream::connect(self.target).context("connecting")?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(STALL))?;
        socket.set_write_timeout(Some(STALL))?;
        let mut tls = ClientConnection::new(Arc::clone(client), ServerName::try_from(HOST)?)?;
        while tls.is_handshaking() {
            tls.complete_io(&mut socket).context("in the handshake")?;
        }
        Ok(Connection { stream: BufReader::with_capacity(CHUNK, StreamOwned::new(tls, socket)) })
    }

    /// Handshakes with a GET each, on `clients` threads.
    ///
    /// # Errors
    /// A thread cannot be had; what fails is in the outcome.
    pub(crate) fn handshakes(&self, clients: u64, count: u64, resumed: bool) -> anyhow::Result<Outcome> {
        let start = now_ns();
        let mut outcome = Outcome::default();
        let done: Vec<anyhow::Result<Outcome>> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..clients).map(|_| scope.spawn(|| self.visit(count / clients, resumed))).collect();
            threads.into_iter().map(|thread| thread.join().expect("the load does not panic")).collect()
        });
        for one in done {
            outcome.merge(one?);
        }
        outcome.elapsed_ns = now_ns() - start;
        Ok(outcome)
    }

    fn visit(&self, count: u64, resumed: bool) -> anyhow::Result<Outcome> {
        let mut outcome = Outcome::default();
        let client = self.client(resumed)?;
        if resumed {
            // The session that is resumed; it is the caller's to leave it out of what is measured.
            self.once(&client, HandshakeKind::Full)?;
        }
        let expect = if resumed { HandshakeKind::Resumed } else { HandshakeKind::Full };
        for _ in 0..count {
            outcome.record(self.once(&client, expect).map_err(|error| format!("{error:#}")));
        }
        Ok(outcome)
    }

    fn once(&self, client: &Arc<ClientConfig>, expect: HandshakeKind) -> anyhow::Result<()> {
        let mut connection = self.open(client)?;
        connection.get("/1k", KIB)?;
        let kind = connection.stream.get_ref().conn.handshake_kind();
        ensure!(kind == Some(expect), "the handshake was {kind:?}, not {expect:?}");
        connection.close()
    }

    /// So many large bodies on one connection.
    ///
    /// # Errors
    /// One does not arrive as it was sent.
    pub(crate) fn bodies(&self, count: u64) -> anyhow::Result<Outcome> {
        let mut connection = self.open(&self.client(false)?)?;
        let start = now_ns();
        for _ in 0..count {
            connection.get("/64m", BODY)?;
        }
        Ok(Outcome { done: count * BODY, elapsed_ns: now_ns() - start, ..Outcome::default() })
    }
}

impl Connection {
    /// Gets the file at `path`, which has the first `len` bytes of the pattern.
    ///
    /// # Errors
    /// Another answer, or another content.
    pub(crate) fn get(&mut self, path: &str, len: u64) -> anyhow::Result<()> {
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\nUser-Agent: mc-bench\r\nAccept: */*\r\n\r\n");
        self.stream.get_mut().write_all(request.as_bytes())?;
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        ensure!(line.starts_with("HTTP/1.1 200"), "the answer was {:?}", line.trim_end());
        let mut length = None;
        loop {
            line.clear();
            ensure!(self.stream.read_line(&mut line)? > 0, "closed within the head");
            if line.trim_end().is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = Some(value.trim().parse::<u64>()?);
            }
        }
        ensure!(length == Some(len), "the content's length was {length:?}, not {len}");
        let mut got = 0;
        while got < len {
            let there = self.stream.fill_buf()?;
            ensure!(!there.is_empty(), "closed after {got} of {len} bytes");
            let size = there.len().min(usize::try_from(len - got).unwrap_or(CHUNK));
            ensure!(there[..size] == *pattern(got, size), "other bytes than were sent, after {got}");
            self.stream.consume(size);
            got += size as u64;
        }
        Ok(())
    }

    /// Says that this was all, and waits until the other side says so, too.
    fn close(mut self) -> anyhow::Result<()> {
        let stream = self.stream.get_mut();
        stream.conn.send_close_notify();
        stream.flush()?;
        stream.sock.shutdown(std::net::Shutdown::Write)?;
        // How it closes is its own affair.
        stream.sock.read_to_end(&mut Vec::new()).map(drop).or(Ok(()))
    }
}

/// Bytes of the small file.
pub(crate) const KIB: u64 = 1024;
/// Bytes of the large one.
pub(crate) const BODY: u64 = 64 << 20;

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use rustls::pki_types::PrivateKeyDer;
    use rustls::{ServerConfig, ServerConnection};

    use super::*;

    /// A server that answers each request with these bytes, with session tickets or without.
    fn serve(content: Vec<u8>, tickets: usize) -> Https {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate =
            rcgen::CertificateParams::new(vec![HOST.to_owned()]).unwrap().self_signed(&key).unwrap();
        let root = certificate.der().clone();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![root.clone()], key)
            .unwrap();
        config.send_tls13_tickets = tickets;
        let (config, content) = (Arc::new(config), Arc::new(content));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
                let mut stream = BufReader::new(StreamOwned::new(connection, socket));
                let content = Arc::clone(&content);
                std::thread::spawn(move || answer(&mut stream, &content).ok());
            }
        });
        Https::new(target, root).unwrap()
    }

    fn answer(
        stream: &mut BufReader<StreamOwned<ServerConnection, TcpStream>>,
        content: &[u8],
    ) -> std::io::Result<()> {
        let mut line = String::new();
        while stream.read_line(&mut line)? > 0 {
            if line == "\r\n" {
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", content.len());
                stream.get_mut().write_all(head.as_bytes())?;
                stream.get_mut().write_all(content)?;
            }
            line.clear();
        }
        Ok(())
    }

    #[test]
    fn counts_what_was_answered() {
        let https = serve(pattern(0, 1024).to_vec(), 2);
        for resumed in [false, true] {
            let outcome = https.handshakes(2, 10, resumed).unwrap();
            assert_eq!((outcome.done, outcome.failed), (10, 0), "{:?}", outcome.first_failure);
        }
        let mut connection = https.open(&https.client(false).unwrap()).unwrap();
        assert!((0..3).all(|_| connection.get("/1k", KIB).is_ok()));
    }

    #[test]
    fn other_content_is_a_failure() {
        let mut content = pattern(0, 1024).to_vec();
        content[1000] ^= 1;
        for content in [content, pattern(0, 1023).to_vec()] {
            let outcome = serve(content, 0).handshakes(1, 3, false).unwrap();
            assert_eq!((outcome.done, outcome.failed), (0, 3));
        }
    }

    #[test]
    fn a_session_that_is_not_resumed_is_a_failure() {
        let outcome = serve(pattern(0, 1024).to_vec(), 0).handshakes(1, 3, true).unwrap();
        assert_eq!((outcome.done, outcome.failed), (0, 3));
        assert!(outcome.first_failure.unwrap().contains("not Resumed"));
    }
}
