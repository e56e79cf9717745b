//! The beginning of a connection: a place for it, and who is at its other end.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use mc_core::proxy_protocol::{Progress, parse};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::server::TlsStream;

use super::ProxyProtocol;

/// Waits for a place, then for a connection. `None`: the system refused one, which may pass.
pub(super) async fn one(
    socket: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.expect("the places are never closed");
    match socket.accept().await {
        Ok((stream, address)) => {
            // Answers are whole when they are written: nothing is gained by waiting for more.
            stream.set_nodelay(true).ok();
            Some((stream, address, place))
        }
        Err(error) => {
            tracing::warn!(%error, "cannot take a connection");
            // Out of descriptors, mostly: trying again at once would only burn the processor.
            tokio::time::sleep(Duration::from_millis(50)).await;
            None
        }
    }
}

/// The client's address: what the PROXY header says, where this peer must send one.
///
/// # Errors
/// The header is missing or malformed, or the connection ended.
pub(super) async fn client(
    stream: &mut TcpStream,
    address: SocketAddr,
    proxy: &ProxyProtocol,
) -> io::Result<SocketAddr> {
    let is_proxy = match proxy {
        ProxyProtocol::Off => false,
        ProxyProtocol::From(networks) => {
            networks.iter().any(|network| network.contains(&address.ip().to_canonical()))
        }
    };
    if !is_proxy {
        return Ok(SocketAddr::new(address.ip().to_canonical(), address.port()));
    }
    let malformed = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    // A header is followed by a ClientHello, of which not a byte may be taken: what is there is looked at first.
    let mut seen = vec![0; 536];
    loop {
        let there = stream.peek(&mut seen).await?;
        match parse(&seen[..there]).map_err(|error| malformed(error.to_string()))? {
            Progress::Done { header, len } => {
                stream.read_exact(&mut seen[..len]).await?;
                return Ok(header.addresses.map_or(address, |addresses| addresses.source));
            }
            Progress::NotProxy => return Err(malformed("the proxy sent no PROXY header".to_owned())),
            Progress::NeedMore { .. } if there == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            Progress::NeedMore { at_least } => {
                if at_least > MOST {
                    return Err(malformed(format!("a PROXY header of more than {MOST} bytes")));
                }
                if seen.len() < at_least {
                    seen.resize(at_least, 0);
                }
                // More is on its way: peeking does not wait for it.
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }
}

/// The longest PROXY header that is taken.
const MOST: usize = 4096;

/// A connection, with TLS or without.
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
