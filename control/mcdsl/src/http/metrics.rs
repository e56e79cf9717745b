//! Counts requests by route, method and status, and measures their time.
//!
//! Labels come from closed lists. What a client sends is never one: each new value would be a time series of its own.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::extract::MatchedPath;
use http::Method;

use crate::prometheus::Page;

/// Upper bounds of the histogram's buckets, in microseconds.
const BOUNDS_US: [u64; 9] = [100, 316, 1_000, 3_162, 10_000, 31_623, 100_000, 1_000_000, 10_000_000];

#[derive(Debug, Default)]
pub struct Metrics {
    requests: Mutex<BTreeMap<String, ByAnswer>>,
    times: Mutex<Times>,
}

/// Number of requests by method and status.
type ByAnswer = BTreeMap<(&'static str, u16), u64>;

#[derive(Debug, Default)]
struct Times {
    counts: [u64; BOUNDS_US.len() + 1],
    sum_us: u64,
}

/// A route as a label: a registered one, by its type.
#[derive(Clone, Copy, Debug)]
pub enum RouteLabel<'a> {
    /// A name in the code: an operation's, a gRPC method's.
    Static(&'static str),
    /// A pattern of the router.
    Matched(&'a MatchedPath),
}

impl RouteLabel<'_> {
    /// No route matches.
    pub const NONE: Self = Self::Static("-");

    fn as_str(&self) -> &str {
        match self {
            Self::Static(name) => name,
            Self::Matched(path) => path.as_str(),
        }
    }
}

impl Metrics {
    /// Counts a response. The status is gRPC's where there is one.
    pub fn count(&self, route: RouteLabel<'_>, method: &Method, status: u16, took: Duration) {
        let key =
            (METHODS.iter().find(|known| **known == method.as_str()).copied().unwrap_or("other"), status);
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        match requests.get_mut(route.as_str()) {
            Some(of_route) => *of_route.entry(key).or_default() += 1,
            None => drop(requests.insert(route.as_str().to_owned(), BTreeMap::from([(key, 1)]))),
        }
        drop(requests);
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = BOUNDS_US.iter().position(|bound| us <= *bound).unwrap_or(BOUNDS_US.len());
        times.counts[bucket] += 1;
        times.sum_us = times.sum_us.saturating_add(us);
    }

    pub fn write(&self, page: &mut Page) {
        page.family("http_requests_total", "counter", "Requests answered, including gRPC calls.");
        for (route, of_route) in &*self.requests.lock().unwrap_or_else(PoisonError::into_inner) {
            for ((method, status), count) in of_route {
                let labels = [("route", route.as_str()), ("method", method), ("status", &status.to_string())];
                page.sample("http_requests_total", &labels, *count);
            }
        }
        let times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        let bounds = BOUNDS_US.iter().copied().map(Some).chain([None]);
        page.histogram(
            "http_request_seconds",
            "Time until the response began.",
            bounds.zip(times.counts),
            times.sum_us,
        );
    }
}

/// Other methods are counted as `other`.
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
