//! Requests in flight: which of a connection's requests are at which backend, so that an operator finds and can end them.
//!
//! A client that speaks HTTP is connected to no backend: each of its requests goes to one, from when that is chosen until the
//! response is over. Over HTTP/1.1 it has one at a time, and what ends the request ends the connection. Over HTTP/2 it has many, and
//! each is ended alone.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// A connection's requests in flight.
#[derive(Debug, Default)]
pub(super) struct Requests {
    /// The connection outlives its requests, and each can be ended alone: HTTP/2.
    is_multiplexed: Cell<bool>,
    /// By [`InFlight::slot`]. There are few, and finding a free place among them costs less than a list of those.
    slots: RefCell<Vec<Option<Slot>>>,
}

#[derive(Debug, Default)]
struct Slot {
    /// Where it goes, or tries to go, once that is chosen.
    backend: Option<SocketAddr>,
    is_ended: bool,
    waker: Option<Waker>,
}

/// A request, for as long as it is in flight.
#[derive(Debug)]
pub(super) struct InFlight {
    requests: Rc<Requests>,
    slot: usize,
}

impl Requests {
    /// Says that the connection speaks HTTP/2.
    pub(super) fn multiplex(&self) {
        self.is_multiplexed.set(true);
    }

    /// Whether each request can be ended alone.
    pub(super) fn is_multiplexed(&self) -> bool {
        self.is_multiplexed.get()
    }

    /// Whether one goes to this backend.
    pub(super) fn is_at(&self, backend: SocketAddr) -> bool {
        self.slots.borrow().iter().flatten().any(|slot| slot.goes_to(backend))
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.slots.borrow().iter().flatten().count()
    }

    /// Where they go, each backend once.
    pub(super) fn backends(&self) -> Vec<SocketAddr> {
        let mut all: Vec<_> = self.slots.borrow().iter().flatten().filter_map(|slot| slot.backend).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Ends those that go to this backend; says how many.
    pub(super) fn end(&self, backend: SocketAddr) -> u64 {
        let mut ended = 0;
        for slot in self.slots.borrow_mut().iter_mut().flatten().filter(|slot| slot.goes_to(backend)) {
            slot.is_ended = true;
            ended += 1;
            if let Some(waker) = slot.waker.take() {
                waker.wake();
            }
        }
        ended
    }

    fn begin(&self) -> usize {
        let mut slots = self.slots.borrow_mut();
        if let Some(free) = slots.iter().position(Option::is_none) {
            slots[free] = Some(Slot::default());
            return free;
        }
        if slots.is_empty() {
            // Most connections never have a second one.
            slots.reserve_exact(1);
        }
        slots.push(Some(Slot::default()));
        slots.len() - 1
    }
}

impl Slot {
    fn goes_to(&self, backend: SocketAddr) -> bool {
        !self.is_ended && self.backend == Some(backend)
    }
}

impl InFlight {
    /// Begins a request, which goes nowhere yet.
    pub(super) fn begin(requests: &Rc<Requests>) -> Self {
        Self { requests: Rc::clone(requests), slot: requests.begin() }
    }

    /// Says where it goes from now on.
    pub(super) fn goes_to(&self, backend: SocketAddr) {
        if let Some(slot) = &mut self.requests.slots.borrow_mut()[self.slot] {
            slot.backend = Some(backend);
        }
    }

    /// Whether it was ended alone; the task wakes when it is.
    pub(super) fn poll_ended(&self, cx: &Context<'_>) -> Poll<()> {
        let requests = &self.requests;
        if !requests.is_multiplexed() {
            return Poll::Pending;
        }
        let Some(slot) = &mut requests.slots.borrow_mut()[self.slot] else { return Poll::Pending };
        if slot.is_ended {
            return Poll::Ready(());
        }
        match &mut slot.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.requests.slots.borrow_mut()[self.slot] = None;
    }
}
