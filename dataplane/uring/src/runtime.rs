//! One monoio runtime for one worker, with a ring built for it.
//!
//! monoio's default ring lets any thread submit and interrupts the worker for completions; that doubles
//! the cost of a connection. `SINGLE_ISSUER` and `DEFER_TASKRUN` (Linux 6.1) make completions wait until
//! the worker asks for them.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use monoio::{IoUringDriver, RuntimeBuilder};

/// Submissions that fit before the kernel must be entered.
const SUBMISSIONS: u32 = 1024;

/// Completions that fit before the kernel must keep them aside.
const COMPLETIONS: u32 = 16 * 1024;

/// Runs `future` and what it spawns on this thread until it is done.
///
/// # Errors
/// The kernel has no io_uring, forbids it, or lacks the flags (before Linux 6.1).
pub fn block_on<F: Future>(future: F) -> io::Result<F::Output> {
    let mut ring = io_uring::IoUring::builder();
    ring.setup_single_issuer().setup_defer_taskrun().setup_cqsize(COMPLETIONS).setup_clamp();
    let mut runtime = RuntimeBuilder::<IoUringDriver>::new()
        .uring_builder(ring)
        .with_entries(SUBMISSIONS)
        .enable_timer()
        .build()?;
    Ok(runtime.block_on(future))
}

/// Whether the kernel gives this process a ring as [`block_on`] builds it.
///
/// # Errors
/// Why it does not.
pub fn probe() -> io::Result<()> {
    let mut ring = io_uring::IoUring::<io_uring::squeue::Entry, io_uring::cqueue::Entry>::builder();
    ring.setup_single_issuer().setup_defer_taskrun();
    ring.build(8).map(drop)
}

/// Runs `future` beside the caller on this worker.
pub fn spawn(future: impl Future<Output = ()> + 'static) {
    drop(monoio::spawn(future));
}

/// Waits for about `duration`.
pub async fn sleep(duration: Duration) {
    monoio::time::sleep(duration).await;
}

/// The future's value, or `None` where it takes longer.
pub async fn timeout<F: Future>(limit: Duration, future: F) -> Option<F::Output> {
    monoio::time::timeout(limit, future).await.ok()
}

/// Lets everything else that is ready run first.
pub async fn yield_now() {
    struct YieldNow(bool);
    impl Future for YieldNow {
        type Output = ();
        fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
            if self.0 {
                return Poll::Ready(());
            }
            self.0 = true;
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    }
    YieldNow(false).await;
}
