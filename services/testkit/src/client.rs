//! Clients: one that sends any bytes in any pieces and sees how it ends, and one that speaks TLS.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use serde_json::Value;
use socket2::{Domain, Socket, Type};

use crate::backend::reset_on_close;
use crate::ca::{Ca, provider};
use crate::clock;

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The other side finished.
    Fin,
    /// The other side reset it.
    Reset,
    /// Nothing happened for the time that one was ready to wait.
    Silence,
}

/// A client that sends what it is told.
#[derive(Debug)]
pub struct Raw {
    /// The connection, for what has no method here.
    pub stream: TcpStream,
}

impl Raw {
    /// Connects.
    ///
    /// # Panics
    /// When nobody listens.
    #[must_use]
    pub fn connect(to: SocketAddr) -> Self {
        Self::connect_anyhow(None, to)
    }

    /// Connects from this address.
    ///
    /// # Panics
    /// When nobody listens.
    #[must_use]
    pub fn connect_from(from: IpAddr, to: SocketAddr) -> Self {
        Self::connect_anyhow(Some(from), to)
    }

    /// A server that resets at once may do so before the client has noticed that it is connected: then again.
    fn connect_anyhow(from: Option<IpAddr>, to: SocketAddr) -> Self {
        let mut tries = 0;
        loop {
            match Self::try_connect(from, to) {
                Ok(connected) => return connected,
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset && tries < 100 => tries += 1,
                Err(error) => panic!("cannot connect to {to}: {error}"),
            }
        }
    }

    /// Connects, perhaps from a given address, within [`clock::PATIENCE`].
    ///
    /// # Errors
    /// The kernel's.
    pub fn try_connect(from: Option<IpAddr>, to: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        if let Some(from) = from {
            socket.bind(&SocketAddr::new(from, 0).into())?;
        }
        socket.connect_timeout(&to.into(), clock::PATIENCE)?;
        socket.set_tcp_nodelay(true)?;
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(clock::PATIENCE))?;
        Ok(Self { stream })
    }

    /// Sends.
    ///
    /// # Panics
    /// When the other side has gone.
    pub fn send(&mut self, bytes: &[u8]) -> &mut Self {
        self.stream.write_all(bytes).expect("the other side reads");
        self
    }

    /// Sends in pieces of `size` bytes with a pause after each, so that they arrive apart. Stops where the other
    /// side has gone.
    pub fn send_in_pieces(&mut self, bytes: &[u8], size: usize, pause: Duration) -> &mut Self {
        for piece in bytes.chunks(size) {
            if self.stream.write_all(piece).is_err() {
                break;
            }
            clock::sleep(pause);
        }
        self
    }

    /// Says that nothing more will come.
    pub fn finish(&mut self) -> &mut Self {
        self.stream.shutdown(Shutdown::Write).expect("the connection is open");
        self
    }

    /// Reads exactly so many bytes.
    ///
    /// # Panics
    /// When they do not come within ten seconds.
    #[must_use]
    pub fn read_exactly(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.stream.read_exact(&mut bytes).unwrap_or_else(|error| panic!("wanted {length} bytes: {error}"));
        bytes
    }

    /// Reads a line, without its end.
    ///
    /// # Panics
    /// When none comes within ten seconds.
    #[must_use]
    pub fn read_line(&mut self) -> String {
        let mut line = Vec::new();
        loop {
            let byte = self.read_exactly(1)[0];
            if byte == b'\n' {
                return String::from_utf8_lossy(&line).into_owned();
            }
            line.push(byte);
        }
    }

    /// Reads to the end: what came, and how it ended. Waits at most `limit` for each piece.
    pub fn read_to_end(&mut self, limit: Duration) -> (Vec<u8>, End) {
        self.stream.set_read_timeout(Some(limit)).expect("the limit is not zero");
        let mut bytes = Vec::new();
        let mut buffer = [0; 16 * 1024];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return (bytes, End::Fin),
                Ok(length) => bytes.extend(&buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return (bytes, End::Reset),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return (bytes, End::Silence),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => panic!("reading: {error}"),
            }
        }
    }

    /// Finishes and reads to the end.
    pub fn finish_and_read(&mut self) -> (Vec<u8>, End) {
        // The other side may have gone already, and said why.
        self.stream.shutdown(Shutdown::Write).ok();
        self.read_to_end(clock::PATIENCE)
    }

    /// Resets the connection.
    pub fn reset(self) {
        reset_on_close(&self.stream);
    }

    /// Our own end of the connection.
    ///
    /// # Panics
    /// Never on a connected socket.
    #[must_use]
    pub fn local(&self) -> SocketAddr {
        self.stream.local_addr().expect("a connected socket has an address")
    }
}

/// A request over TLS.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    ca: &'a Ca,
    to: SocketAddr,
    name: String,
    from: Option<IpAddr>,
    alpn: Vec<Vec<u8>>,
    header: Vec<u8>,
}

impl<'a> Request<'a> {
    /// A request for the host `name` (an IP address: no name is sent) to a server at `to`.
    #[must_use]
    pub fn new(ca: &'a Ca, to: SocketAddr, name: &str) -> Self {
        Self { ca, to, name: name.to_owned(), from: None, alpn: Vec::new(), header: Vec::new() }
    }

    /// From this address.
    #[must_use]
    pub fn from(mut self, from: IpAddr) -> Self {
        self.from = Some(from);
        self
    }

    /// Offers these protocols.
    #[must_use]
    pub fn alpn(mut self, protocols: &[&str]) -> Self {
        self.alpn = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        self
    }

    /// Sends these bytes before anything else.
    #[must_use]
    pub fn header(mut self, header: Vec<u8>) -> Self {
        self.header = header;
        self
    }

    /// Connects, shakes hands, asks, and reads what [`crate::backend::Backend::tls`] answers.
    ///
    /// # Errors
    /// Whatever went wrong on the way.
    pub fn get(&self) -> io::Result<Value> {
        let mut tls = self.open()?;
        tls.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")?;
        let mut text = Vec::new();
        while !text.ends_with(b"}\n") {
            let mut buffer = [0; 4096];
            let length = tls.read(&mut buffer)?;
            if length == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            text.extend(&buffer[..length]);
        }
        let body = text.windows(4).position(|end| end == b"\r\n\r\n").map_or(0, |at| at + 4);
        serde_json::from_slice(&text[body..]).map_err(io::Error::other)
    }

    /// Connects and shakes hands.
    ///
    /// # Errors
    /// Whatever went wrong on the way.
    pub fn open(&self) -> io::Result<rustls::StreamOwned<rustls::ClientConnection, TcpStream>> {
        self.open_with(&self.config()?)
    }

    /// What a connection is made with. Connections that share it resume each other's sessions.
    ///
    /// # Errors
    /// The provider of cryptography's.
    pub fn config(&self) -> io::Result<Arc<rustls::ClientConfig>> {
        let mut config = rustls::ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_root_certificates(self.ca.roots())
            .with_no_client_auth();
        config.alpn_protocols.clone_from(&self.alpn);
        Ok(Arc::new(config))
    }

    /// Connects and shakes hands with what [`Self::config`] made.
    ///
    /// # Errors
    /// Whatever went wrong on the way.
    pub fn open_with(
        &self,
        config: &Arc<rustls::ClientConfig>,
    ) -> io::Result<rustls::StreamOwned<rustls::ClientConnection, TcpStream>> {
        let name = ServerName::try_from(self.name.clone()).map_err(io::Error::other)?;
        let connection = rustls::ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
        let mut stream = Raw::try_connect(self.from, self.to)?.stream;
        stream.write_all(&self.header)?;
        let mut tls = rustls::StreamOwned::new(connection, stream);
        while tls.conn.is_handshaking() {
            tls.conn.complete_io(&mut tls.sock)?;
        }
        Ok(tls)
    }
}
