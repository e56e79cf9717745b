//! The identity behind a token, from MCIAS, for every service but MCIAS itself.
//!
//! A service has one [`Client`]. It introspects each token once in 30 s, however many requests wait for the answer, and
//! remembers a refusal for 5 s. While MCIAS does not answer, nobody is admitted: it fails closed.
//!
//! [`Callers`] makes a service an [`Authority`](crate::permit::Authority) with that client: the service states its name
//! and its database.

mod cache;
mod callers;
mod client;

pub use callers::{Callers, HasCallers};
pub use client::{Client, ClientError, Settings};
