//! Messages from any thread to a worker that sleeps in its ring.

use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc;

use crate::socket::Socket;

/// The end that sends, for any thread.
#[derive(Debug)]
pub struct Sender<T> {
    queue: mpsc::Sender<T>,
    wake: UnixStream,
}

/// The worker's end, before it has a ring.
#[derive(Debug)]
pub struct Receiver<T> {
    queue: mpsc::Receiver<T>,
    wake: UnixStream,
}

/// The worker's end on its ring.
#[derive(Debug)]
pub struct Inbox<T> {
    queue: mpsc::Receiver<T>,
    wake: Socket,
}

/// A mailbox.
///
/// # Errors
/// No descriptors left.
pub fn mailbox<T>() -> io::Result<(Sender<T>, Receiver<T>)> {
    let (send, recv) = mpsc::channel();
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    theirs.set_nonblocking(true)?;
    Ok((Sender { queue: send, wake: ours }, Receiver { queue: recv, wake: theirs }))
}

impl<T> Sender<T> {
    /// Sends. `false`: the worker is gone.
    pub fn send(&self, message: T) -> bool {
        if self.queue.send(message).is_err() {
            return false;
        }
        // A full pipe means that the worker has wake-ups waiting already.
        drop((&self.wake).write(&[0]));
        true
    }
}

impl<T> Receiver<T> {
    /// Moves to the worker's ring. Call on the worker.
    ///
    /// # Errors
    /// See [`Socket::new`].
    pub fn on_ring(self) -> io::Result<Inbox<T>> {
        Ok(Inbox { queue: self.queue, wake: Socket::new(OwnedFd::from(self.wake))? })
    }
}

impl<T> Inbox<T> {
    /// The next message; `None` when every sender is gone.
    pub async fn next(&self) -> Option<T> {
        loop {
            match self.queue.try_recv() {
                Ok(message) => return Some(message),
                Err(mpsc::TryRecvError::Disconnected) => return None,
                Err(mpsc::TryRecvError::Empty) => {}
            }
            self.wake.readable().await.ok()?;
            let mut ticks = [0; 64];
            // Messages are taken from the queue; how many wake-ups came with them does not matter.
            if let Ok(0) = self.wake.recv(&mut ticks) {
                return self.queue.try_recv().ok();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::mailbox;

    #[test]
    fn messages_from_another_thread_arrive_in_order_and_the_end_is_seen() {
        let (send, recv) = mailbox().unwrap();
        let sender = std::thread::spawn(move || {
            for n in 0..10_000_u32 {
                assert!(send.send(n));
            }
        });
        crate::runtime::block_on(async move {
            let inbox = recv.on_ring().unwrap();
            let mut expect = 0;
            while let Some(n) = inbox.next().await {
                assert_eq!(n, expect);
                expect += 1;
            }
            assert_eq!(expect, 10_000);
        })
        .unwrap();
        sender.join().unwrap();
    }
}
