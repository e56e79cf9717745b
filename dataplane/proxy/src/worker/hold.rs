//! Connections and requests that wait because their route is on hold.
//!
//! Each has a task that waits here, at most [`MAX_WAITING`] on a worker. They are looked at when the admin side says that
//! holds have changed, and at each sweep: those whose hold is over wake and look their route up again, and so do those
//! whose client has left.

use std::cell::RefCell;
use std::future::poll_fn;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use mc_core::hold::{MAX_WAITING, MAX_WAITING_PER_CLIENT};
use mc_core::limits::SourceCounts;
use mc_core::model::Mode;
use mc_core::outcome::Outcome;
use mc_uring::Socket;

use super::Worker;
use super::connection::Connection;
use super::hello::{Refusal, Routed, route_again};
use super::phase::enter_hold;
use crate::stats::{RouteLive, WorkerStats};

/// Those of one worker that wait.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    slots: RefCell<Slots>,
    /// How many each client has.
    clients: SourceCounts,
}

#[derive(Debug, Default)]
struct Slots {
    slots: Vec<Option<Waiter>>,
    free: Vec<usize>,
}

#[derive(Debug)]
struct Waiter {
    live: Arc<RouteLive>,
    client: IpAddr,
    /// The client's socket, where nobody else reads from it meanwhile.
    socket: Option<Rc<Socket>>,
    has_left: bool,
    waker: Waker,
}

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waited {
    /// The hold is over: the route is to be looked up again.
    Over,
    /// The client has left, or its connection was ended.
    Gone,
    /// As many wait already as may.
    Full,
}

/// A waiter's slot, which is free again when the wait is over or given up.
struct Place<'a> {
    of: &'a Waiters,
    stats: &'a WorkerStats,
    index: usize,
}

impl Waiters {
    /// Waits until the route is on hold no more. `socket`: the client's, where nobody else reads from it; `poll_gone`:
    /// whether the client has left, or was ended.
    pub(super) async fn wait(
        &self,
        worker: &Worker,
        live: &Arc<RouteLive>,
        client: IpAddr,
        socket: Option<&Rc<Socket>>,
        mut poll_gone: impl FnMut(&mut Context<'_>) -> Poll<()>,
    ) -> Waited {
        let mut place: Option<Place<'_>> = None;
        poll_fn(|cx| {
            if poll_gone(cx).is_ready() || place.as_ref().is_some_and(|place| place.has_left(cx.waker())) {
                return Poll::Ready(Waited::Gone);
            }
            if !live.hold.is_on(worker.shared.now_ms.get()) {
                return Poll::Ready(Waited::Over);
            }
            if place.is_none() {
                let waiter = Waiter {
                    live: Arc::clone(live),
                    client,
                    socket: socket.cloned(),
                    has_left: false,
                    waker: cx.waker().clone(),
                };
                match self.enter(waiter, &worker.stats) {
                    Some(entered) => place = Some(entered),
                    None => return Poll::Ready(Waited::Full),
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Wakes those whose hold is over or whose client has left.
    pub(super) fn sweep(&self, now_ms: u64) {
        for waiter in self.slots.borrow_mut().slots.iter_mut().flatten() {
            if waiter.socket.as_ref().is_some_and(|socket| socket.is_abandoned()) {
                waiter.has_left = true;
            }
            if waiter.has_left || !waiter.live.hold.is_on(now_ms) {
                waiter.waker.wake_by_ref();
            }
        }
    }

    fn enter<'a>(&'a self, waiter: Waiter, stats: &'a WorkerStats) -> Option<Place<'a>> {
        let Slots { slots, free } = &mut *self.slots.borrow_mut();
        if slots.len() - free.len() >= MAX_WAITING
            || !self.clients.acquire(waiter.client, MAX_WAITING_PER_CLIENT)
        {
            return None;
        }
        waiter.live.hold.wait();
        stats.hold_waits.add(1);
        let index = free.pop().unwrap_or_else(|| {
            slots.push(None);
            slots.len() - 1
        });
        slots[index] = Some(waiter);
        Some(Place { of: self, stats, index })
    }
}

impl Place<'_> {
    /// Whether the client has left; `waker` is to hear of it.
    fn has_left(&self, waker: &Waker) -> bool {
        let Slots { slots, .. } = &mut *self.of.slots.borrow_mut();
        let waiter = slots[self.index].as_mut().expect("a place has its waiter until it is dropped");
        waiter.waker.clone_from(waker);
        waiter.has_left
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let Slots { slots, free } = &mut *self.of.slots.borrow_mut();
        if let Some(waiter) = slots[self.index].take() {
            waiter.live.hold.leave();
            self.of.clients.release(waiter.client);
        }
        free.push(self.index);
        self.stats.hold_waits_over.add(1);
    }
}

/// Waits while the route of a connection that passes through is on hold, and looks its route up again. What terminates TLS waits
/// request by request.
///
/// # Errors
/// The connection ends here: there is no route any more, its client has left, or too many wait.
pub(super) async fn wait(
    worker: &Worker,
    connection: &Connection,
    routed: &mut Routed,
) -> Result<(), Refusal> {
    while is_held(worker, routed) {
        routed.early.keep(worker);
        // Of a backend that did not take it.
        drop(connection.backend_socket.take());
        enter_hold(worker, connection, &routed.route);
        let gone = |cx: &mut Context<'_>| connection.poll_stopped(cx);
        let (live, client) = (&routed.route.live, connection.client.get().ip());
        match worker.waiters.wait(worker, live, client, Some(&connection.socket), gone).await {
            Waited::Over => routed.route = route_again(worker, connection, &routed.early)?,
            Waited::Gone => return Err(Refusal::reset(Outcome::ClientReset)),
            Waited::Full => return Err(Refusal::told(Outcome::HoldLimit)),
        }
    }
    Ok(())
}

/// Whether a connection has to wait.
pub(super) fn is_held(worker: &Worker, routed: &Routed) -> bool {
    routed.route.spec.mode == Mode::L4 && routed.route.live.hold.is_on(worker.shared.now_ms.get())
}
