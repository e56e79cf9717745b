//! Reads a request's body within limits, from a budget that all bodies of a server share.
//!
//! A body is read only after everything that can be decided from the head has been. Its bytes are taken from the budget
//! as frames arrive. What the budget cannot hold is refused at once (503 `busy`) instead of queued: a queue of requests
//! would be the same memory under another name. Frames are copied into one buffer, because each is a slice of a larger
//! one that it would keep alive.

use std::net::IpAddr;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Body as _, Frame, SizeHint};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::Caller;
use crate::problem::{Kind, Problem};
use crate::prometheus::Page;
use crate::quota::{Exceeded, Quota, Share};

/// What one body may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyLimits {
    pub max_bytes: usize,
    /// Time until the whole body has arrived.
    pub total_time: Duration,
    /// Time in which no byte arrives.
    pub idle_time: Duration,
}

impl BodyLimits {
    /// Limits for what needs no token.
    pub const SMALL: Self =
        Self { max_bytes: 64 * 1024, total_time: Duration::from_secs(10), idle_time: Duration::from_secs(5) };
}

/// The memory that all bodies in flight of a server may take together. Copies share it.
#[derive(Clone, Debug)]
pub struct BodyBudget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    bytes: Arc<Quota>,
    drains: Arc<Semaphore>,
    streams: Arc<Quota>,
    /// Bytes of bodies whose senders are not known: at most half of all, so that the others are read whatever strangers do.
    strangers: Arc<Quota>,
    refused: [AtomicU64; Refusal::ALL.len()],
}

/// Why a body was not read: a closed list, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    TooLarge,
    Timeout,
    EndedEarly,
    Budget,
    SourceShare,
}

impl Refusal {
    const ALL: [Self; 5] = [Self::TooLarge, Self::Timeout, Self::EndedEarly, Self::Budget, Self::SourceShare];

    const fn label(self) -> &'static str {
        match self {
            Self::TooLarge => "too-large",
            Self::Timeout => "timeout",
            Self::EndedEarly => "ended-early",
            Self::Budget => "budget",
            Self::SourceShare => "source-share",
        }
    }

    fn problem(self, limits: &BodyLimits) -> Problem {
        match self {
            Self::TooLarge => {
                let detail = format!("The body is larger than the {} bytes allowed here.", limits.max_bytes);
                Problem::new(Kind::TooLarge, "too-large", detail)
            }
            Self::Timeout => Problem::new(
                Kind::RequestTimeout,
                "timeout",
                "The body did not arrive in time; send the request again.",
            ),
            Self::EndedEarly => {
                Problem::new(Kind::Invalid, "malformed", "The body ended before it was complete.")
            }
            Self::Budget | Self::SourceShare => Problem {
                retry_after: Some(Duration::from_secs(1)),
                ..Problem::new(
                    Kind::Unavailable,
                    "busy",
                    "The server is reading too many request bodies; nothing was changed. Retry in a second.",
                )
            },
        }
    }
}

impl From<Exceeded> for Refusal {
    fn from(exceeded: Exceeded) -> Self {
        match exceeded {
            Exceeded::Total => Self::Budget,
            Exceeded::Source => Self::SourceShare,
        }
    }
}

/// One source gets this part of the budget, so that it cannot take what all others need.
pub(crate) const SOURCES_AT_LEAST: usize = 4;

/// Refused bodies whose rest is being read at the same time.
const MAX_DRAINS: usize = 64;

/// Streams of gRPC's own services (health, reflection) at the same time.
const MAX_STREAMS: usize = 256;

/// Of these, from one source: who watches needs one.
const MAX_STREAMS_OF_SOURCE: usize = 8;

/// How long such a stream lasts: clients watch again.
const STREAM_TIME: Duration = Duration::from_secs(600);

impl BodyBudget {
    /// A budget of so many bytes, of which one source gets a quarter.
    #[must_use]
    pub fn new(max_bytes: usize) -> Self {
        Self(Arc::new(Shared {
            bytes: Quota::new(max_bytes, max_bytes / SOURCES_AT_LEAST),
            drains: Arc::new(Semaphore::new(MAX_DRAINS)),
            streams: Quota::new(MAX_STREAMS, MAX_STREAMS_OF_SOURCE),
            strangers: Quota::new(max_bytes / 2, max_bytes / 2 / SOURCES_AT_LEAST),
            refused: Default::default(),
        }))
    }

    /// Bytes of bodies that are being read or handled.
    #[must_use]
    pub fn bytes_in_flight(&self) -> usize {
        self.0.bytes.used()
    }

    /// Slots for reading the rest of refused bodies.
    pub(super) fn drains(&self) -> &Arc<Semaphore> {
        &self.0.drains
    }

    pub fn write_metrics(&self, page: &mut Page) {
        let help = "Bytes of request bodies that are being read.";
        page.one("http_request_body_bytes_in_flight", "gauge", help, self.bytes_in_flight());
        let name = "http_request_bodies_refused_total";
        page.family(name, "counter", "Request bodies that were not read to their end, by reason.");
        for reason in Refusal::ALL {
            let count = self.0.refused[reason as usize].load(Ordering::Relaxed);
            page.sample(name, &[("reason", reason.label())], count);
        }
    }

    fn count(&self, refusal: Refusal) {
        self.0.refused[refusal as usize].fetch_add(1, Ordering::Relaxed);
    }
}

/// A body, whole, which counts against the budget until it is dropped.
#[derive(Debug)]
pub struct CountedBytes {
    bytes: Vec<u8>,
    /// Of all bodies; and where the sender is not known, of theirs.
    shares: Vec<Share>,
}

impl Deref for CountedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl AsRef<[u8]> for CountedBytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl CountedBytes {
    /// Adds a frame. The buffer doubles, and what it takes is counted, not only what is in it.
    fn push(&mut self, data: &[u8], max_bytes: usize) -> Result<(), Refusal> {
        let (length, capacity) = (self.bytes.len(), self.bytes.capacity());
        let needed = length.saturating_add(data.len());
        if needed > max_bytes {
            return Err(Refusal::TooLarge);
        }
        if needed > capacity {
            let target = needed.max(capacity.saturating_mul(2).min(max_bytes));
            for share in &mut self.shares {
                share.grow(target - capacity)?;
            }
            self.bytes.reserve_exact(target - length);
        }
        self.bytes.extend_from_slice(data);
        Ok(())
    }
}

/// Who sends a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sender {
    /// The address that it is counted for.
    pub source: IpAddr,
    /// Whether an account sends it: strangers together have half of the budget.
    pub is_known: bool,
}

/// Reads a body to its end.
///
/// # Errors
/// 413 `too-large`, by the length in the head before any byte is read; 408 `timeout`; 400 `malformed` where it ends early;
/// 503 `busy` where the budget has no room for it.
pub async fn read(
    body: Body,
    headers: &HeaderMap,
    from: Sender,
    limits: &BodyLimits,
    budget: &BodyBudget,
) -> Result<CountedBytes, Problem> {
    collect(body, headers, from, limits, budget).await.map_err(|refusal| {
        budget.count(refusal);
        refusal.problem(limits)
    })
}

async fn collect(
    mut body: Body,
    headers: &HeaderMap,
    from: Sender,
    limits: &BodyLimits,
    budget: &BodyBudget,
) -> Result<CountedBytes, Refusal> {
    let stated = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    let expected = stated.unwrap_or_default().max(body.size_hint().lower());
    if expected > u64::try_from(limits.max_bytes).unwrap_or(u64::MAX) {
        return Err(Refusal::TooLarge);
    }
    let mut shares = vec![budget.0.bytes.take(from.source, 0)?];
    if !from.is_known {
        shares.push(budget.0.strangers.take(from.source, 0)?);
    }
    let mut read = CountedBytes { bytes: Vec::new(), shares };
    let start = Instant::now();
    let (end, mut idle_end) = (start + limits.total_time, start + limits.idle_time);
    loop {
        let frame = match timeout_at(end.min(idle_end), body.frame()).await {
            Err(_) => return Err(Refusal::Timeout),
            Ok(None) => return Ok(read),
            Ok(Some(frame)) => frame.map_err(|_error| Refusal::EndedEarly)?,
        };
        // Trailers and empty frames are no progress.
        let Some(data) = frame.data_ref().filter(|data| !data.is_empty()) else { continue };
        read.push(data, limits.max_bytes)?;
        idle_end = Instant::now() + limits.idle_time;
    }
}

/// Middleware for the services that come with gRPC (health, reflection), whose messages tonic reads. Their calls may be streams
/// that last as long as a connection: their number and the bytes of their requests are limited.
pub(crate) async fn bound_stream(request: Request, next: Next) -> Result<Response, Problem> {
    // One question and its answer: who monitors gets it, however many watch.
    if request.uri().path() == "/grpc.health.v1.Health/Check" {
        return Ok(next
            .run(request.map(|body| Body::new(Limited::new(body, BodyLimits::SMALL.max_bytes))))
            .await);
    }
    let extensions = request.extensions();
    let source = extensions.get::<Caller>().expect("every call passes the middleware").address.ip();
    let budget = extensions.get::<BodyBudget>().expect("every call passes the middleware").clone();
    let share = budget.0.streams.take(source, 1).map_err(|exceeded| {
        let refusal = Refusal::from(exceeded);
        budget.count(refusal);
        Problem {
            retry_after: Some(Duration::from_secs(10)),
            ..Problem::new(
                Kind::Unavailable,
                "busy",
                "Too many streams of health and reflection are open. Retry later.",
            )
        }
    })?;
    let request = request.map(|body| Body::new(Limited::new(body, BodyLimits::SMALL.max_bytes)));
    let response = next.run(request).await;
    let end = Box::pin(tokio::time::sleep(STREAM_TIME));
    Ok(response.map(|body| Body::new(Held { body, end, _share: share })))
}

/// The body of a response that counts as a stream until it ends, or its time is over.
struct Held {
    body: Body,
    end: Pin<Box<tokio::time::Sleep>>,
    _share: Share,
}

impl hyper::body::Body for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.end.as_mut().poll(cx).is_ready() {
            // Without trailers: clients see a stream that broke, and begin another one.
            return Poll::Ready(None);
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::{StreamExt as _, stream};
    use http::HeaderValue;

    use super::*;

    const LIMITS: BodyLimits = BodyLimits {
        max_bytes: 1000,
        total_time: Duration::from_secs(10),
        idle_time: Duration::from_secs(2),
    };

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    /// A body in frames of these sizes, each after a pause.
    fn frames(sizes: &[usize], pause: Duration) -> Body {
        let frames = stream::iter(sizes.to_vec()).then(move |size| async move {
            tokio::time::sleep(pause).await;
            Ok::<_, Infallible>(Bytes::from(vec![b'a'; size]))
        });
        Body::from_stream(frames)
    }

    fn known(source: IpAddr) -> Sender {
        Sender { source, is_known: true }
    }

    async fn check(body: Body, budget: &BodyBudget, expect: Result<usize, (u16, &str)>) {
        let read = read(body, &HeaderMap::new(), known(ip(1)), &LIMITS, budget).await;
        let outcome = read.as_ref().map(|bytes| bytes.len());
        assert_eq!(outcome.map_err(|problem| (problem.status().as_u16(), problem.reason)), expect);
    }

    #[tokio::test(start_paused = true)]
    async fn limits_of_size_and_time() {
        let budget = BodyBudget::new(100_000);
        let at_once = Duration::ZERO;
        check(Body::empty(), &budget, Ok(0)).await;
        check(Body::from("abc"), &budget, Ok(3)).await;
        check(frames(&[500, 0, 500], at_once), &budget, Ok(1000)).await;
        check(frames(&[500, 501], at_once), &budget, Err((413, "too-large"))).await;
        let slow = Duration::from_millis(1900);
        check(frames(&[1; 5], slow), &budget, Ok(5)).await;
        check(frames(&[1; 6], slow), &budget, Err((408, "timeout"))).await;
        check(frames(&[1, 1], Duration::from_millis(2100)), &budget, Err((408, "timeout"))).await;
        check(frames(&[1, 0, 0, 1], Duration::from_millis(900)), &budget, Err((408, "timeout"))).await;
        let broken = stream::iter([Ok(Bytes::from("a")), Err(std::io::Error::other("gone"))]);
        check(Body::from_stream(broken), &budget, Err((400, "malformed"))).await;
        assert_eq!(budget.bytes_in_flight(), 0);
        let mut page = Page::default();
        budget.write_metrics(&mut page);
        for line in [
            "http_request_body_bytes_in_flight 0",
            r#"http_request_bodies_refused_total{reason="too-large"} 1"#,
            r#"http_request_bodies_refused_total{reason="timeout"} 3"#,
            r#"http_request_bodies_refused_total{reason="ended-early"} 1"#,
            r#"http_request_bodies_refused_total{reason="budget"} 0"#,
        ] {
            assert!(page.text.contains(line), "{line}: {}", page.text);
        }
    }

    #[tokio::test]
    async fn a_stated_length_is_refused_before_a_byte_is_read() {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_LENGTH, HeaderValue::from_static("1001"));
        let unread = Body::from_stream(stream::poll_fn(|_| -> Poll<Option<Result<Bytes, Infallible>>> {
            panic!("the body is read")
        }));
        let budget = BodyBudget::new(100_000);
        let problem = read(unread, &headers, known(ip(1)), &LIMITS, &budget).await.unwrap_err();
        assert_eq!(problem.status(), 413);
    }

    #[tokio::test]
    async fn what_the_budget_cannot_hold_is_refused_at_once() {
        let budget = BodyBudget::new(2000);
        let read = async |source, size| {
            let body = frames(&[size], Duration::ZERO);
            let read = read(body, &HeaderMap::new(), known(ip(source)), &LIMITS, &budget).await;
            read.map_err(|problem| (problem.status().as_u16(), problem.reason, problem.retry_after))
        };
        let busy = (503, "busy", Some(Duration::from_secs(1)));
        // A quarter for one source.
        let mut held = vec![read(1, 500).await.unwrap()];
        assert_eq!(read(1, 1).await.err(), Some(busy));
        for source in 2..=4 {
            held.push(read(source, 500).await.unwrap());
        }
        assert_eq!(read(5, 1).await.err(), Some(busy));
        assert_eq!(budget.bytes_in_flight(), 2000);
        held.pop();
        assert!(read(5, 500).await.is_ok());
        drop(held);
        assert_eq!(budget.bytes_in_flight(), 0);
    }

    #[tokio::test]
    async fn strangers_leave_half_to_others() {
        let budget = BodyBudget::new(4000);
        let read = async |source, is_known| {
            let body = frames(&[500], Duration::ZERO);
            let from = Sender { source: ip(source), is_known };
            read(body, &HeaderMap::new(), from, &LIMITS, &budget).await
        };
        let mut held = Vec::new();
        for source in 1..=4 {
            held.push(read(source, false).await.unwrap());
            assert_eq!(read(source, false).await.unwrap_err().reason, "busy", "an eighth for one source");
        }
        assert_eq!(read(5, false).await.unwrap_err().reason, "busy");
        for source in 1..=4 {
            held.push(read(source, true).await.unwrap());
        }
        assert_eq!(budget.bytes_in_flight(), 4000);
        drop(held);
        assert_eq!(budget.bytes_in_flight(), 0);
    }

    #[tokio::test]
    async fn the_whole_buffer_is_counted() {
        let budget = BodyBudget::new(100_000);
        let body = frames(&[300, 1], Duration::ZERO);
        let held = read(body, &HeaderMap::new(), known(ip(1)), &LIMITS, &budget).await.unwrap();
        assert_eq!((held.len(), held.bytes.capacity()), (301, 600));
        assert_eq!(budget.bytes_in_flight(), 600);
    }
}
