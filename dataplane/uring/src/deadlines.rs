//! Time limits for what usually ends long before them.
//!
//! A timer in the runtime would be set and cleared for each of many short waits. Here a wait that has to wait at all
//! leaves a note, and whoever keeps the worker's coarse clock looks through the notes.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Poll, Waker};

/// The waits of one worker that have a limit.
#[derive(Debug, Default)]
pub struct Deadlines(RefCell<Notes>);

#[derive(Debug, Default)]
struct Notes {
    notes: Vec<Option<Note>>,
    free: Vec<usize>,
}

/// What a wait leaves.
#[derive(Debug)]
struct Note {
    limit_ms: u64,
    /// When it is over; unknown before the first sweep.
    at_ms: Option<u64>,
    is_over: bool,
    waker: Waker,
}

/// A note's place, which is free again when the wait is done or given up.
struct Place<'a> {
    of: &'a Deadlines,
    index: usize,
}

impl Deadlines {
    /// The future's value, or `None` where it takes longer than `limit_ms`, in milliseconds: never early, and late by up
    /// to the time between two sweeps, twice. Where the number that `moved` tells has changed in that time, it begins
    /// anew: something else that the wait depends on goes on.
    pub async fn within<F: Future>(
        &self,
        limit_ms: u64,
        moved: impl Fn() -> u64,
        mut future: Pin<&mut F>,
    ) -> Option<F::Output> {
        let mut place: Option<Place<'_>> = None;
        let mut before = moved();
        poll_fn(|cx| {
            if let Poll::Ready(value) = future.as_mut().poll(cx) {
                return Poll::Ready(Some(value));
            }
            let is_over = place.as_ref().is_some_and(|place| place.is_over(cx.waker()));
            if is_over && moved() == before {
                return Poll::Ready(None);
            }
            if place.is_none() || is_over {
                before = moved();
                place = None;
                place = Some(self.note(limit_ms, cx.waker().clone()));
            }
            Poll::Pending
        })
        .await
    }

    /// Wakes those whose time is over.
    pub fn sweep(&self, now_ms: u64) {
        for note in self.0.borrow_mut().notes.iter_mut().flatten() {
            // Counted from the first sweep: the wait began at some time before it.
            let at_ms = *note.at_ms.get_or_insert(now_ms.saturating_add(note.limit_ms));
            if now_ms >= at_ms && !note.is_over {
                note.is_over = true;
                note.waker.wake_by_ref();
            }
        }
    }

    fn note(&self, limit_ms: u64, waker: Waker) -> Place<'_> {
        let notes = &mut *self.0.borrow_mut();
        let index = notes.free.pop().unwrap_or_else(|| {
            notes.notes.push(None);
            notes.notes.len() - 1
        });
        notes.notes[index] = Some(Note { limit_ms, at_ms: None, is_over: false, waker });
        Place { of: self, index }
    }
}

impl Place<'_> {
    /// Whether the time is over; where it is not, `waker` is to hear of it.
    fn is_over(&self, waker: &Waker) -> bool {
        let notes = &mut *self.of.0.borrow_mut();
        let Some(Some(note)) = notes.notes.get_mut(self.index) else { return true };
        note.waker.clone_from(waker);
        note.is_over
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let notes = &mut *self.of.0.borrow_mut();
        notes.notes[self.index] = None;
        notes.free.push(self.index);
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::pin::pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Wake};

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn what_is_ready_leaves_nothing() {
        let deadlines = Deadlines::default();
        let mut ready = pin!(ready(7));
        let mut within = pin!(deadlines.within(0, || 0, ready.as_mut()));
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!(within.as_mut().poll(&mut cx), Poll::Ready(Some(7)));
        assert!(deadlines.0.borrow().notes.is_empty());
    }

    #[test]
    fn the_limit_counts_from_the_first_sweep_and_never_ends_early() {
        let deadlines = Deadlines::default();
        let count = Arc::new(Count::default());
        let waker = Arc::clone(&count).into();
        let mut cx = Context::from_waker(&waker);
        let mut pending = pin!(pending::<()>());
        let mut within = pin!(deadlines.within(250, || 0, pending.as_mut()));
        for (now_ms, expect) in [(1000, 0), (1100, 0), (1249, 0), (1250, 1), (1300, 1)] {
            let is_over = within.as_mut().poll(&mut cx) == Poll::Ready(None);
            assert!(!is_over, "before {now_ms}");
            deadlines.sweep(now_ms);
            assert_eq!(count.0.load(Ordering::Relaxed), expect, "at {now_ms}");
            if expect == 1 {
                break;
            }
        }
        assert_eq!(within.as_mut().poll(&mut cx), Poll::Ready(None));
    }

    #[test]
    fn what_moves_has_more_time() {
        let deadlines = Deadlines::default();
        let mut cx = Context::from_waker(Waker::noop());
        let bytes = std::cell::Cell::new(0);
        let mut pending = pin!(pending::<()>());
        let mut within = pin!(deadlines.within(100, || bytes.get(), pending.as_mut()));
        let mut at = |now_ms| {
            deadlines.sweep(now_ms);
            within.as_mut().poll(&mut cx)
        };
        assert_eq!(at(0), Poll::Pending);
        for now_ms in [100, 200] {
            bytes.set(now_ms);
            assert_eq!([at(now_ms), at(now_ms + 99)], [Poll::Pending; 2], "at {now_ms}");
        }
        // Anew since 200, counted from the next sweep.
        assert_eq!(at(398), Poll::Pending);
        assert_eq!(at(399), Poll::Ready(None));
    }

    #[test]
    fn places_are_used_again() {
        let deadlines = Deadlines::default();
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..3 {
            let mut pending = pin!(pending::<()>());
            let mut within = pin!(deadlines.within(1, || 0, pending.as_mut()));
            assert_eq!(within.as_mut().poll(&mut cx), Poll::Pending);
        }
        assert_eq!(deadlines.0.borrow().notes.len(), 1);
    }
}
