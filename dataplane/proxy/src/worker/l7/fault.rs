//! Why a response was not passed on, or not all of it.

use h2::Reason;
use mc_core::outcome::RequestOutcome;

use crate::snapshot::RouteEntry;

/// A response that was not passed on, or not all of it.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) outcome: RequestOutcome,
    /// The client has got a part of it.
    pub(super) told: bool,
    pub(super) detail: String,
    /// How a backend of HTTP/2 broke its response off.
    pub(super) reset: Option<Reason>,
}

impl Fault {
    /// The client knows of nothing yet.
    pub(super) fn before(outcome: RequestOutcome, detail: impl ToString) -> Self {
        Self { outcome, told: false, detail: detail.to_string(), reset: None }
    }

    /// The client has got a part.
    pub(super) fn amid(outcome: RequestOutcome, detail: impl ToString) -> Self {
        Self { told: true, ..Self::before(outcome, detail) }
    }

    /// Whether a request that may be repeated is sent once more: the backend had closed a kept connection, or went down
    /// with the request. It was not answered, and has no effect, or the same one however often it is sent (RFC 9110,
    /// section 9.2.2).
    pub(super) fn may_repeat(&self, reused: bool, repeats: u32, route: &RouteEntry) -> bool {
        // A kept connection may be found closed whatever the backend's state.
        self.outcome == RequestOutcome::BackendClosed
            && repeats < route.spec.retries.max(u32::from(reused && repeats == 0))
    }
}
