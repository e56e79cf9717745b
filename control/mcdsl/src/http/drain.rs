//! Bodies that nobody reads to their end: whoever refuses a request does so before its body is there.
//!
//! HTTP/2 lets a server answer early and reset the stream (RFC 9113, section 8.1), but common clients lose the answer then.
//! So what is left of a small body is read and thrown away.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Body as _, Frame, SizeHint};

/// A body whose rest is read once it is dropped.
pub(super) struct Drained {
    body: Option<Body>,
    most: usize,
}

/// How long a rest is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// The body, of which at most `most` bytes are read by nobody.
pub(super) fn drained(body: Body, most: usize) -> Body {
    if body.is_end_stream() { body } else { Body::new(Drained { body: Some(body), most }) }
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
        // There is a runtime wherever a request is answered; where it is being shut down, so are its connections.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let mut rest = Limited::new(body, self.most);
        runtime.spawn(tokio::time::timeout(PATIENCE, async move {
            while let Some(Ok(_)) = rest.frame().await {}
        }));
    }
}
