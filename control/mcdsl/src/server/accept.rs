//! The beginning of a connection: a slot for it, and the address of its client.

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

/// Waits for a slot, then for a connection. `None`: the system could not accept one, which may pass.
pub(super) async fn one(
    socket: &TcpListener,
    slots: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots).acquire_owned().await.expect("the semaphore is never closed");
    match socket.accept().await {
        Ok((stream, address)) => {
            // Responses are written whole: there is nothing to wait for.
            stream.set_nodelay(true).ok();
            Some((stream, address, slot))
        }
        Err(error) => {
            tracing::warn!(%error, "cannot accept a connection");
            // Usually out of file descriptors: retrying at once would only use the processor.
            tokio::time::sleep(Duration::from_millis(50)).await;
            None
        }
    }
}

/// Reads a PROXY header: the client's address, unless the proxy speaks for itself (LOCAL, UNKNOWN), or there is no header where it is
/// optional.
///
/// # Errors
/// The header is missing or malformed, or the connection ended.
pub(super) async fn proxy_header(
    stream: &mut TcpStream,
    is_optional: bool,
) -> io::Result<Option<SocketAddr>> {
    let malformed = |detail: String| io::Error::new(io::ErrorKind::InvalidData, detail);
    // A ClientHello follows the header, and no byte of it may be taken: the header is peeked at first.
    let mut seen = vec![0; 536];
    loop {
        let length = stream.peek(&mut seen).await?;
        match parse(&seen[..length]).map_err(|error| malformed(error.to_string()))? {
            Progress::Done { header, len } => {
                stream.read_exact(&mut seen[..len]).await?;
                return Ok(header.addresses.map(|addresses| addresses.source));
            }
            Progress::NotProxy if is_optional => return Ok(None),
            Progress::NotProxy => return Err(malformed("the proxy sent no PROXY header".to_owned())),
            Progress::NeedMore { .. } if length == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            Progress::NeedMore { at_least } => {
                if at_least > MAX_HEADER {
                    return Err(malformed(format!("a PROXY header of more than {MAX_HEADER} bytes")));
                }
                if seen.len() < at_least {
                    seen.resize(at_least, 0);
                }
                // Peeking does not wait for more.
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }
}

/// The longest PROXY header that is read.
const MAX_HEADER: usize = 4096;

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
