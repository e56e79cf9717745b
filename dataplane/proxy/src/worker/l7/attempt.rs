//! Connects to backends that refuse: one request finds out, the others wait for it.
//!
//! What to do is [`mc_core::refusal`]'s to say. Here it is asked before each new connection to a backend and told how that
//! went, also where the request is given up meanwhile.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use mc_core::refusal::{Advice, Again};
use mc_uring::runtime;

use crate::clock;
use crate::worker::Worker;

/// A connect to a backend that is under way.
pub(super) struct Attempt {
    worker: Rc<Worker>,
    backend: SocketAddr,
    is_probe: bool,
}

/// A backend that may be restarting, and when it may be asked again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Restarting {
    backend: SocketAddr,
    at_ms: u64,
}

/// A request that waits for a backend.
struct Waiting<'a> {
    worker: &'a Worker,
    backend: SocketAddr,
}

impl Attempt {
    /// Begins one.
    ///
    /// # Errors
    /// The backend has refused connections a moment ago, and somebody else finds out whether it is back: whether this
    /// request may wait for that.
    pub(super) fn begin(worker: &Rc<Worker>, backend: SocketAddr) -> Result<Self, Option<Restarting>> {
        let mut refusals = worker.refusals.borrow_mut();
        // The ordinary case costs no look at the clock.
        let advice =
            if refusals.is_empty() { Advice::Connect } else { refusals.ask(backend, clock::millis()) };
        if let Advice::Refused(again) = advice {
            return Err(Restarting::of(backend, again));
        }
        Ok(Self { worker: Rc::clone(worker), backend, is_probe: advice == Advice::Probe })
    }

    /// The backend has refused: whether the request may wait for it.
    pub(super) fn refused(mut self) -> Option<Restarting> {
        let is_probe = std::mem::take(&mut self.is_probe);
        let again = self.worker.refusals.borrow_mut().refused(self.backend, is_probe, clock::millis());
        Restarting::of(self.backend, again)
    }

    /// It has ended in another way.
    pub(super) fn ended(mut self) {
        self.is_probe = false;
        let mut refusals = self.worker.refusals.borrow_mut();
        if !refusals.is_empty() {
            refusals.ended(self.backend);
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if self.is_probe {
            self.worker.refusals.borrow_mut().abandoned(self.backend);
        }
    }
}

impl Restarting {
    fn of(backend: SocketAddr, again: Again) -> Option<Self> {
        match again {
            Again::At(at_ms) => Some(Self { backend, at_ms }),
            Again::Never => None,
        }
    }

    /// The one of two that may be asked first.
    pub(super) fn first(one: Option<Self>, other: Option<Self>) -> Option<Self> {
        one.into_iter().chain(other).min_by_key(|restarting| restarting.at_ms)
    }

    /// Waits until the backend may be asked again; `false`: too many do already.
    pub(super) async fn wait(self, worker: &Worker) -> bool {
        if !worker.refusals.borrow_mut().wait(self.backend) {
            return false;
        }
        let _waiting = Waiting { worker, backend: self.backend };
        let pause_ms = self.at_ms.saturating_sub(clock::millis()).max(1);
        runtime::sleep(Duration::from_millis(pause_ms)).await;
        true
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.worker.refusals.borrow_mut().waited(self.backend);
    }
}
