//! Relays between real sockets: bytes untouched through every change of method, ends and resets passed on.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::thread;

use mc_uring::relay::{Flow, relay};
use mc_uring::{Failure, Shared, Socket, runtime};

/// How a relay ended, and what it counted up and down.
type End = (Result<(), &'static str>, u64, u64);

/// Two connections and a relay between their inner ends, on a thread of its own.
fn relayed() -> (TcpStream, TcpStream, thread::JoinHandle<End>) {
    let (client, inner_client) = pair();
    let (backend, inner_backend) = pair();
    let relay = thread::spawn(move || {
        runtime::block_on(async move {
            let (client, backend) = (socket(inner_client), socket(inner_backend));
            let (shared, up, down) = (Shared::new(64 * 1024), Flow::default(), Flow::default());
            let end = relay(&shared, &client, &backend, &up, &down).await;
            let end = end.map_err(|failure| match failure {
                Failure::Client(_) => "client",
                Failure::Backend(_) => "backend",
            });
            (end, up.bytes.get(), down.bytes.get())
        })
        .expect("the kernel gives a ring")
    });
    (client, backend, relay)
}

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let outer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (inner, _) = listener.accept().unwrap();
    inner.set_nonblocking(true).unwrap();
    (outer, inner)
}

fn socket(stream: TcpStream) -> Socket {
    Socket::new(OwnedFd::from(stream)).unwrap()
}

/// Bytes that differ at every place, so that a lost, doubled or moved one shows.
fn pattern(from: u64, buffer: &mut [u8]) {
    for (at, byte) in (from..).zip(buffer) {
        *byte = at.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes()[0];
    }
}

fn send_pattern(mut to: &TcpStream, sizes: impl Iterator<Item = usize>) -> u64 {
    let mut at = 0;
    let mut buffer = vec![0; 1 << 20];
    for size in sizes {
        pattern(at, &mut buffer[..size]);
        to.write_all(&buffer[..size]).unwrap();
        at += size as u64;
    }
    to.shutdown(Shutdown::Write).unwrap();
    at
}

fn receive_pattern(mut from: &TcpStream) -> u64 {
    let mut at = 0;
    let (mut buffer, mut expect) = (vec![0; 1 << 18], vec![0; 1 << 18]);
    loop {
        let read = from.read(&mut buffer).unwrap();
        if read == 0 {
            return at;
        }
        pattern(at, &mut expect[..read]);
        assert!(buffer[..read] == expect[..read], "bytes differ between {at} and {}", at + read as u64);
        at += read as u64;
    }
}

/// Small messages, bulk, small messages, bulk: every change of method, several times.
fn mixed() -> impl Iterator<Item = usize> {
    (0..6).flat_map(|_| std::iter::repeat_n(700, 40).chain(std::iter::repeat_n(1 << 20, 12)))
}

#[test]
fn bytes_are_untouched_both_ways_at_once() {
    let (client, backend, relay) = relayed();
    thread::scope(|scope| {
        let sent_up = scope.spawn(|| send_pattern(&client, mixed()));
        let sent_down = scope.spawn(|| send_pattern(&backend, mixed()));
        let got_up = scope.spawn(|| receive_pattern(&backend));
        let got_down = scope.spawn(|| receive_pattern(&client));
        assert_eq!(sent_up.join().unwrap(), got_up.join().unwrap());
        assert_eq!(sent_down.join().unwrap(), got_down.join().unwrap());
    });
    let total = mixed().sum::<usize>() as u64;
    assert_eq!(relay.join().unwrap(), (Ok(()), total, total));
}

#[test]
fn an_end_is_passed_on_for_its_direction_alone() {
    let (mut client, mut backend, relay) = relayed();
    client.write_all(b"question").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut question = String::new();
    backend.read_to_string(&mut question).unwrap();
    assert_eq!(question, "question");
    // The other direction is open still.
    backend.write_all(b"answer").unwrap();
    drop(backend);
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "answer");
    assert_eq!(relay.join().unwrap(), (Ok(()), 8, 6));
}

#[test]
fn a_reset_is_told_with_its_side() {
    for (side, expect) in [(0, "client"), (1, "backend")] {
        let (client, backend, relay) = relayed();
        let (reset, kept) = if side == 0 { (client, backend) } else { (backend, client) };
        // A close with bytes unread is a reset.
        (&kept).write_all(b"unread").unwrap();
        let mut one = [0];
        (&reset).read_exact(&mut one).unwrap();
        drop(reset);
        assert_eq!(relay.join().unwrap().0, Err(expect));
    }
}
