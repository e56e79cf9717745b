//! The identity behind a token, from MCIAS (RFC 7662). Answers are cached for a short time.
//!
//! A service has one [`Client`]. It asks MCIAS about each token that it has not asked about within 30 s, once for any number of requests that
//! wait for the answer, and caches a refusal for a shorter time. Where MCIAS cannot be reached, nobody is admitted: it fails closed.

mod cache;
mod client;

pub use client::{Client, ClientError, Settings};
