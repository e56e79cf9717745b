//! Reads and discards what is left of a small body that was refused.
//!
//! HTTP/2 lets a server answer early and reset the stream (RFC 9113, section 8.1), but common clients lose the answer
//! then. So up to 64 KiB of the rest are read, for a few seconds, and for a limited number of bodies at the same time.
//! Beyond that the stream is reset, or the HTTP/1.1 connection closed.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Body as _, Frame, SizeHint};
use tokio::sync::Semaphore;

use super::body::BodyBudget;

/// A body whose rest is read once it is dropped.
struct Drained {
    body: Option<Body>,
    slots: Arc<Semaphore>,
}

const MAX_TIME: Duration = Duration::from_secs(5);

const MAX_BYTES: usize = 64 * 1024;

/// A body whose rest is read once it is dropped.
pub(super) fn drained(body: Body, budget: &BodyBudget) -> Body {
    if body.is_end_stream() {
        return body;
    }
    Body::new(Drained { body: Some(body), slots: Arc::clone(budget.drains()) })
}

impl hyper::body::Body for Drained {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let polled = Pin::new(body).poll_frame(cx);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            self.body = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Drop for Drained {
    fn drop(&mut self) {
        let Some(body) = self.body.take().filter(|body| !body.is_end_stream()) else { return };
        let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() else { return };
        // There is a runtime wherever a request is handled; where it is being shut down, so are its connections.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let mut rest = Limited::new(body, MAX_BYTES);
        runtime.spawn(tokio::time::timeout(MAX_TIME, async move {
            let _slot = slot;
            while let Some(Ok(_)) = rest.frame().await {}
        }));
    }
}
