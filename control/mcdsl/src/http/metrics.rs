//! How many requests there were, of which kind, how they ended and how long they took.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::Method;

use crate::prometheus::Page;

/// Upper bounds of the times that are told apart, in microseconds.
const BOUNDS_US: [u64; 9] = [100, 316, 1_000, 3_162, 10_000, 31_623, 100_000, 1_000_000, 10_000_000];

/// Counts requests.
#[derive(Debug, Default)]
pub struct Metrics {
    /// By route, method and status: all of closed lists.
    seen: Mutex<BTreeMap<(String, &'static str, u16), u64>>,
    times: Mutex<Times>,
}

#[derive(Debug, Default)]
struct Times {
    counts: [u64; BOUNDS_US.len() + 1],
    sum_us: u64,
}

impl Metrics {
    /// Counts an answer.
    pub fn count(&self, route: &str, method: &Method, status: u16, took: Duration) {
        let method = KNOWN.iter().find(|known| **known == method.as_str()).copied().unwrap_or("other");
        let key = (route.to_owned(), method, status);
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default() += 1;
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        let at = BOUNDS_US.iter().position(|bound| us <= *bound).unwrap_or(BOUNDS_US.len());
        times.counts[at] += 1;
        times.sum_us = times.sum_us.saturating_add(us);
    }

    /// Writes them.
    pub fn write(&self, page: &mut Page) {
        page.family("http_requests_total", "counter", "Requests answered, gRPC calls among them.");
        for ((route, method, status), count) in &*self.seen.lock().unwrap_or_else(PoisonError::into_inner) {
            let labels = [("route", route.as_str()), ("method", method), ("status", &status.to_string())];
            page.sample("http_requests_total", &labels, *count);
        }
        let times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        let bounds = BOUNDS_US.iter().copied().map(Some).chain([None]);
        page.histogram(
            "http_request_seconds",
            "Time until the answer began.",
            bounds.zip(times.counts),
            times.sum_us,
        );
    }
}

/// What a client can send is not a label.
const KNOWN: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
