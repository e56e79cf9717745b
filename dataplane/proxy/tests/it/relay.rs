//! Bytes both ways: untouched, ends and resets passed on, timeouts kept, memory bounded.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};

use mc_testkit::backend::{Backend, listen, reset_on_close};
use mc_testkit::client::{End, Raw};
use mc_testkit::clock;
use mc_testkit::flow::{Sum, drink, pour};
use mc_testkit::proxy::{Config, Proxy};
use mc_testkit::{fresh_address, heavy};

use crate::common::{assert_alive, hello, open, to};

/// A backend that reads the hello and then does its part of the test, once; what it returns can be waited for.
fn scripted<T: Send + 'static>(
    script: impl Fn(TcpStream) -> T + Send + Sync + 'static,
) -> (Backend, Receiver<T>) {
    let (done, result) = channel();
    let done = Mutex::new(done);
    let length = hello().len();
    let backend = Backend::start(move |mut stream| {
        stream.read_exact(&mut vec![0; length]).unwrap();
        let result = script(stream);
        // A test that has failed does not listen any more.
        done.lock().unwrap().send(result).ok();
    });
    (backend, result)
}

/// Connects and says hello.
fn connect(proxy: &Proxy) -> Raw {
    let mut client = Raw::connect(proxy.web());
    client.send(&hello());
    client
}

fn result<T>(of: &Receiver<T>) -> T {
    of.recv_timeout(clock::PATIENCE).expect("the backend finishes its script")
}

/// Pours into and drinks from one connection at once.
fn both_ways(stream: &TcpStream, bytes: u64, seed: u64) -> (Sum, Sum) {
    std::thread::scope(|scope| {
        let sent = scope.spawn(|| {
            let sent = pour(stream, bytes, seed).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            sent
        });
        let received = drink(stream, u64::MAX).unwrap();
        (sent.join().unwrap(), received)
    })
}

#[test]
fn four_gibibytes_both_ways_at_once() {
    const BYTES: u64 = 4 << 30;
    let _machine = heavy();
    let (backend, theirs) = scripted(|stream| both_ways(&stream, BYTES, 2));
    let proxy = to(backend.address());
    let client = connect(&proxy);
    let ours = both_ways(&client.stream, BYTES, 1);
    let theirs = result(&theirs);
    assert_eq!((ours.0.bytes, theirs.0.bytes), (BYTES, BYTES));
    assert_eq!(ours.0, theirs.1, "what the client sent and the backend got");
    assert_eq!(theirs.0, ours.1, "what the backend sent and the client got");
    let line = proxy.wait_outcome("completed");
    let hello = u64::try_from(hello().len()).unwrap();
    assert_eq!((&line["bytes_in"], &line["bytes_out"]), (&(BYTES + hello).into(), &BYTES.into()));
}

#[test]
fn a_client_that_has_finished_still_gets_the_answer() {
    let (backend, got) = scripted(|mut stream| {
        let got = drink(&stream, u64::MAX).unwrap();
        clock::sleep_ms(200);
        stream.write_all(b"the answer").unwrap();
        got.bytes
    });
    let proxy = to(backend.address());
    let mut client = connect(&proxy);
    client.send(b"the question").finish();
    assert_eq!(result(&got), 12);
    assert_eq!(client.read_to_end(clock::PATIENCE), (b"the answer".to_vec(), End::Fin));
    proxy.wait_outcome("completed");
}

#[test]
fn a_backend_that_has_finished_still_gets_the_rest() {
    let (backend, got) = scripted(|mut stream| {
        stream.write_all(b"I have said all").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        drink(&stream, u64::MAX).unwrap()
    });
    let proxy = to(backend.address());
    let mut client = connect(&proxy);
    assert_eq!(client.read_to_end(clock::PATIENCE), (b"I have said all".to_vec(), End::Fin));
    let sent = pour(&client.stream, 5_000_000, 3).unwrap();
    client.finish();
    assert_eq!(result(&got), sent);
    proxy.wait_outcome("completed");
}

#[test]
fn a_reset_by_the_client_reaches_the_backend() {
    let (backend, seen) = scripted(|stream| {
        let mut client = Raw { stream };
        client.read_to_end(clock::PATIENCE).1
    });
    let proxy = to(backend.address());
    connect(&proxy).send(b"x");
    let client = connect(&proxy);
    clock::sleep_ms(100);
    client.reset();
    // The first client just went away.
    let ends = [result(&seen), result(&seen)];
    assert!(ends.contains(&End::Reset), "{ends:?}");
    proxy.wait_outcome("client_reset");
}

#[test]
fn a_reset_by_the_backend_reaches_the_client() {
    let (backend, _done) = scripted(|stream| {
        clock::sleep_ms(100);
        reset_on_close(&stream);
    });
    let proxy = to(backend.address());
    let (_, end) = connect(&proxy).read_to_end(clock::PATIENCE);
    assert_eq!(end, End::Reset);
    proxy.wait_outcome("backend_reset");
}

#[test]
fn a_backend_that_dies_in_the_middle_ends_the_connection_and_no_other() {
    // Dies with unread bytes in its queue, as a killed process does.
    let (dying, _done) = scripted(|mut stream| {
        stream.write_all(&[7; 100_000]).unwrap();
        clock::sleep_ms(100);
    });
    let healthy = Backend::named("healthy");
    let config = Config::new()
        .listener("web")
        .route("die.example.org", dying.address())
        .route("www.example.org", healthy.address());
    let proxy = Proxy::start(config);
    let (mut other, _) = open(&proxy);
    // As long as the name that `scripted` expects.
    let mut client = Raw::connect(proxy.web());
    client.send(&mc_testkit::hello::Hello::to("die.example.org").bytes());
    let upload = pour(&client.stream, 1 << 30, 1);
    assert!(upload.is_err(), "a gibibyte went to a dead backend");
    proxy.wait_log("the broken one", |line| {
        line["name"] == "die.example.org" && line["outcome"] == "backend_reset"
    });
    assert_alive(&mut other);
}

#[test]
fn slow_readers_cost_no_memory() {
    const READERS: usize = 40;
    const BYTES: u64 = 16 << 20;
    let _machine = heavy();
    let (backend, sums) = scripted(|stream| {
        let sum = pour(&stream, BYTES, 5).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        sum
    });
    let proxy = to(backend.address());
    // What every connection shares is there after the first.
    drink(&connect(&proxy).stream, u64::MAX).unwrap();
    let before = proxy.rss_kib();
    let clients: Vec<Raw> = (0..READERS).map(|_| connect(&proxy)).collect();
    // Everything between the backends and the readers fills up: 640 MiB want to come.
    clock::sleep_ms(2_000);
    let grown = proxy.rss_kib().saturating_sub(before);
    assert!(grown < 8 * 1024, "{READERS} readers that do not read cost {grown} KiB");
    let mut received = Vec::new();
    for client in &clients {
        received.push(drink(&client.stream, u64::MAX).unwrap());
    }
    // Every backend sent the same.
    let sent = result(&sums);
    assert!(received.iter().all(|sum| *sum == sent), "{sent:?} became {received:?}");
}

#[test]
fn a_quiet_connection_is_closed_and_a_busy_one_is_not() {
    let backend = Backend::named("origin");
    let config =
        Config::new().listener("web").route_with("*", &[backend.address()], "idle_timeout_ms = 3000");
    let proxy = Proxy::start(config);
    let (mut quiet, _) = open(&proxy);
    let (mut busy, _) = open(&proxy);
    let end = std::thread::scope(|scope| {
        let quiet = scope.spawn(|| quiet.read_to_end(clock::PATIENCE).1);
        while !quiet.is_finished() {
            assert_alive(&mut busy);
            clock::sleep_ms(50);
        }
        quiet.join().unwrap()
    });
    assert_ne!(end, End::Silence);
    let line = proxy.wait_outcome("idle_timeout");
    let ms = line["duration_us"].as_f64().unwrap() / 1e3;
    assert!(ms >= 2_900.0, "{line}");
    assert_alive(&mut busy);
}

#[test]
fn a_connection_ends_at_the_route_s_greatest_age() {
    let backend = Backend::named("origin");
    let config =
        Config::new().listener("web").route_with("*", &[backend.address()], "total_timeout_ms = 700");
    let proxy = Proxy::start(config);
    let (mut client, _) = open(&proxy);
    while client.stream.write_all(b"x").is_ok() {
        clock::sleep_ms(20);
    }
    let line = proxy.wait_outcome("total_timeout");
    let ms = line["duration_us"].as_f64().unwrap() / 1e3;
    assert!(ms >= 650.0, "{line}");
}

#[test]
fn bytes_of_every_value_pass_in_small_and_large_pieces() {
    let backend = Backend::named("origin");
    let proxy = to(backend.address());
    let (client, _) = open(&proxy);
    let sent = std::thread::scope(|scope| {
        let stream = &client.stream;
        let sending = scope.spawn(move || {
            let mut sum = Sum::default();
            let mut writer = stream;
            // Every length around the sizes of buffers and pipes, then bulk, then small again.
            for length in (1..600).chain([16_383, 16_384, 65_535, 65_536, 65_537, 3_000_000]).chain(1..100) {
                let bytes: Vec<u8> = (0..=255).cycle().skip(length % 251).take(length).collect();
                writer.write_all(&bytes).unwrap();
                sum.add(&bytes);
            }
            stream.shutdown(Shutdown::Write).unwrap();
            sum
        });
        let received = drink(stream, u64::MAX).unwrap();
        let sent = sending.join().unwrap();
        assert_eq!(received, sent);
        sent
    });
    assert!(sent.bytes > 3_000_000);
}

#[test]
fn clients_and_backends_get_keepalive() {
    mc_testkit::requires!("ss");
    let backend = Backend::named("origin");
    let proxy = to(backend.address());
    let (client, _) = open(&proxy);
    // It comes with the second second.
    let check = |filter: &[&str]| {
        clock::wait_until("keepalive is on", || {
            let output = std::process::Command::new("ss").args(["-tnoH"]).args(filter).output().unwrap();
            String::from_utf8_lossy(&output.stdout).contains("timer:(keepalive")
        });
    };
    check(&["src", &proxy.web().to_string(), "dst", &client.local().to_string()]);
    check(&["dst", &backend.address().to_string()]);
}

#[test]
fn nine_thousand_five_hundred_connections() {
    const CONNECTIONS: usize = 9_500;
    let _machine = heavy();
    // By hand: a thread for each would weigh more than the proxy.
    let address = fresh_address();
    let listener = listen(address);
    let proxy = to(address);
    let hello = hello();
    let before = proxy.rss_kib();
    let mut clients = Vec::with_capacity(CONNECTIONS);
    let mut backends = Vec::with_capacity(CONNECTIONS);
    for number in 0..CONNECTIONS {
        let mut client = Raw::connect(proxy.web());
        client.send(&hello).send(&u64::try_from(number).unwrap().to_le_bytes());
        clients.push(client);
        // Taken as they come: the queue is no part of the test.
        let (backend, _) = listener.accept().unwrap();
        backend.set_read_timeout(Some(clock::PATIENCE)).unwrap();
        backends.push(Raw { stream: backend });
    }
    // Each backend hears its client's number and says it back, so that no two are mixed up.
    for backend in &mut backends {
        let said = backend.read_exactly(hello.len() + 8);
        backend.send(&said[hello.len()..]);
    }
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.read_exactly(8), u64::try_from(number).unwrap().to_le_bytes());
    }
    let each = (proxy.rss_kib() - before) * 1024 / u64::try_from(CONNECTIONS).unwrap();
    println!("{each} bytes of user memory for each idle connection");
    assert!(each < 4096, "{each} bytes of user memory for each idle connection");
    let status = crate::grpc::Grpc::connect(&proxy.socket()).status();
    assert_eq!(status.connections, u64::try_from(CONNECTIONS).unwrap());
    // They are all still there, the first and the last.
    for number in [0, CONNECTIONS / 2, CONNECTIONS - 1] {
        clients[number].send(b"bye").finish();
    }
}
