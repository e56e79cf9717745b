//! Lets a client read the last response before its connection ends.
//!
//! A socket that is closed while bytes wait in it is reset, and the reset overtakes the response (RFC 9112, section
//! 9.6). A client that still sends a body that was refused would never learn why. So after the end of the response is
//! sent, what still arrives is read and discarded, up to a limit of bytes and time.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// A stream that lingers when it is shut down.
pub(super) struct Lingering<S> {
    stream: S,
    state: State,
}

enum State {
    Open,
    Lingering { left: usize, end: Pin<Box<Sleep>> },
}

const MAX_BYTES: usize = 4 * 1024 * 1024;

const MAX_TIME: Duration = Duration::from_secs(5);

impl<S> Lingering<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, state: State::Open }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lingering<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Lingering<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if matches!(this.state, State::Open) {
            std::task::ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
            this.state = State::Lingering { left: MAX_BYTES, end: Box::pin(sleep(MAX_TIME)) };
        }
        let State::Lingering { left, end } = &mut this.state else { return Poll::Ready(Ok(())) };
        let mut bytes = [0; 4096];
        while *left > 0 && end.as_mut().poll(cx).is_pending() {
            let mut buf = ReadBuf::new(&mut bytes);
            // An error is an end too: the response has been sent.
            let Ok(()) = std::task::ready!(Pin::new(&mut this.stream).poll_read(cx, &mut buf)) else { break };
            if buf.filled().is_empty() {
                break;
            }
            *left = left.saturating_sub(buf.filled().len());
        }
        Poll::Ready(Ok(()))
    }
}
