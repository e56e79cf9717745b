//! How long nothing has moved over a connection: whoever neither sends nor reads does not keep a place.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// A stream, and when bytes last moved over it.
pub(super) struct Watched<S> {
    stream: S,
    moved: Arc<Moved>,
}

/// When bytes last moved.
pub(super) struct Moved {
    start: Instant,
    /// Milliseconds after `start`.
    last: AtomicU64,
}

impl<S> Watched<S> {
    pub(super) fn new(stream: S) -> (Self, Arc<Moved>) {
        let moved = Arc::new(Moved { start: Instant::now(), last: AtomicU64::new(0) });
        (Self { stream, moved: Arc::clone(&moved) }, moved)
    }
}

impl Moved {
    /// Counts as if something moved.
    pub(super) fn now(&self) {
        let ms = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(ms, Ordering::Relaxed);
    }

    /// Returns once nothing has moved for so long.
    pub(super) async fn nothing_for(&self, time: Duration) {
        loop {
            let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
            let still = self.start.elapsed().saturating_sub(last);
            if still >= time {
                return;
            }
            tokio::time::sleep(time.saturating_sub(still)).await;
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.moved.now();
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        if matches!(polled, Poll::Ready(Ok(written)) if written > 0) {
            self.moved.now();
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
