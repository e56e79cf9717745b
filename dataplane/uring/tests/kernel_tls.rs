//! Kernel TLS for real: in a machine of QEMU's with Debian's kernel and its `tls` module, since the kernel of whoever runs
//! the tests may have none.
//!
//! What runs in the machine is this very test program.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says how it goes"
)]

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use mc_testkit::machine::Machine;
use mc_testkit::{left_out, machine, requires};
use mc_uring::ktls::KernelTls;
use mc_uring::tls::Received;
use mc_uring::{Shared, Socket, Tls, runtime};
use rustls::crypto::aws_lc_rs::{self, cipher_suite};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, StreamOwned, SupportedCipherSuite,
};

/// What goes over each connection, each way.
const VOLUME: usize = 128 << 20;
const LITTLE: usize = 4 << 20;

/// The bytes that go over, over and over: compared by the block.
struct Pattern(Vec<u8>);

struct Certificates {
    server: Arc<ServerConfig>,
    roots: Arc<RootCertStore>,
}

impl Pattern {
    fn new() -> Self {
        let mut word = 7_u64;
        let words = std::iter::repeat_with(|| {
            word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            word.to_be_bytes()
        });
        // Not a power of two, so that a shift by a block would be seen.
        Self(words.take(8191 * 8).flatten().collect())
    }

    /// The next bytes from `at` on.
    fn at(&self, at: usize) -> &[u8] {
        &self.0[at % self.0.len()..]
    }

    /// Checks bytes that came.
    #[track_caller]
    fn check(&self, mut at: usize, mut came: &[u8]) {
        while !came.is_empty() {
            let expect = self.at(at);
            let len = expect.len().min(came.len());
            assert!(came[..len] == expect[..len], "other bytes came than were sent, after {at}");
            (at, came) = (at + len, &came[len..]);
        }
    }
}

impl Certificates {
    fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["www.example.org".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let mut server = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        server.enable_secret_extraction = true;
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        Self { server: Arc::new(server), roots: Arc::new(roots) }
    }

    fn client(
        &self,
        suite: SupportedCipherSuite,
        to: SocketAddr,
    ) -> StreamOwned<ClientConnection, TcpStream> {
        let mut provider = aws_lc_rs::default_provider();
        provider.cipher_suites = vec![suite];
        let config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(Arc::clone(&self.roots))
            .with_no_client_auth();
        let name = ServerName::try_from("www.example.org").unwrap();
        let client = ClientConnection::new(Arc::new(config), name).unwrap();
        StreamOwned::new(client, TcpStream::connect(to).unwrap())
    }
}

/// A server on a ring of its own that hands one connection to the kernel and then does this with it.
fn serve<F: AsyncFnOnce(&Tls, &Shared) + Send + 'static>(
    certificates: &Certificates,
    work: F,
) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let config = Arc::clone(&certificates.server);
    let serving = move || {
        let kernel = KernelTls::probe().unwrap();
        let (stream, _) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        runtime::block_on(async move {
            let shared = Shared::new(64 * 1024);
            let socket = Rc::new(Socket::new(stream.into()).unwrap());
            let tls = Tls::server(socket, config).unwrap();
            let mut plain = Vec::new();
            tls.handshake(&shared, &[], &mut plain).await.unwrap();
            tls.flush(&shared).await.unwrap();
            assert!(plain.is_empty(), "the client waits for a word");
            assert_eq!(tls.offload(&kernel).unwrap(), Ok(()));
            assert!(tls.is_in_kernel());
            work(&tls, &shared).await;
        })
        .unwrap();
    };
    (address, std::thread::spawn(serving))
}

/// Reads until something comes of it.
async fn read(tls: &Tls, shared: &Shared, plain: &mut Vec<u8>) -> std::io::Result<Received> {
    loop {
        tls.readable().await?;
        match tls.try_recv(shared, plain)? {
            Received::Nothing => {}
            received => return Ok(received),
        }
    }
}

/// Says a word to the client, which waits for it: what it sends then comes when the kernel has the keys.
async fn greet(tls: &Tls, shared: &Shared) {
    tls.send_all(shared, b"go").await.unwrap();
}

fn hear(client: &mut StreamOwned<ClientConnection, TcpStream>) {
    let mut word = [0; 2];
    client.read_exact(&mut word).unwrap();
    assert_eq!(&word, b"go");
}

/// Bytes both ways, and a clean end from either side.
fn bytes_both_ways(certificates: &Certificates, suite: SupportedCipherSuite, volume: usize) {
    let (address, server) = serve(certificates, async move |tls, shared| {
        let pattern = Pattern::new();
        greet(tls, shared).await;
        let (mut plain, mut came) = (Vec::new(), 0);
        while came < volume {
            plain.clear();
            assert!(matches!(read(tls, shared, &mut plain).await.unwrap(), Received::Bytes(_)));
            pattern.check(came, &plain);
            came += plain.len();
        }
        let mut sent = 0;
        while sent < volume {
            let some = pattern.at(sent);
            let len = some.len().min(volume - sent);
            tls.send_all(shared, &some[..len]).await.unwrap();
            sent += len;
        }
        plain.clear();
        let end = read(tls, shared, &mut plain).await.unwrap();
        assert_eq!((end, plain.len()), (Received::End { clean: true }, 0));
        tls.close(shared);
    });
    let mut client = certificates.client(suite, address);
    let pattern = Pattern::new();
    hear(&mut client);
    let mut sent = 0;
    while sent < volume {
        let some = pattern.at(sent);
        let len = some.len().min(volume - sent);
        client.write_all(&some[..len]).unwrap();
        sent += len;
    }
    let (mut buffer, mut came) = (vec![0; 64 * 1024], 0);
    while came < volume {
        let read = client.read(&mut buffer).unwrap();
        assert!(read > 0, "an end after {came}");
        pattern.check(came, &buffer[..read]);
        came += read;
    }
    client.conn.send_close_notify();
    client.flush().unwrap();
    // An end that was said, not just a closed connection: that would be an error.
    assert_eq!(client.read(&mut buffer).unwrap(), 0);
    server.join().unwrap();
}

/// A connection that is cut off is no clean end.
fn a_cut_is_no_end(certificates: &Certificates, suite: SupportedCipherSuite) {
    let (address, server) = serve(certificates, async |tls, shared| {
        greet(tls, shared).await;
        let end = read(tls, shared, &mut Vec::new()).await.unwrap();
        assert_eq!(end, Received::End { clean: false });
    });
    let mut client = certificates.client(suite, address);
    hear(&mut client);
    client.sock.shutdown(Shutdown::Write).unwrap();
    server.join().unwrap();
}

/// Passes bytes on between a client and a server, and changes the last one of what passes once it is told to.
struct Meddler {
    address: SocketAddr,
    /// In what the client sends, and in what the server sends.
    tampers: [Arc<AtomicBool>; 2],
}

impl Meddler {
    fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let tampers = [Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false))];
        let [up, down] = tampers.clone();
        std::thread::spawn(move || {
            let (client, _) = listener.accept().unwrap();
            let server = TcpStream::connect(server).unwrap();
            let back = (server.try_clone().unwrap(), client.try_clone().unwrap());
            std::thread::spawn(move || pass(back.0, back.1, &down));
            pass(client, server, &up);
        });
        Self { address, tampers }
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, tampers: &AtomicBool) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read) = from.read(&mut buffer) {
        if read == 0 {
            break;
        }
        if tampers.load(Ordering::Relaxed) {
            buffer[read - 1] ^= 1;
        }
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    to.shutdown(Shutdown::Write).unwrap_or(());
}

/// What was tampered with ends the connection, and none of it comes through.
fn tampering_is_noticed(certificates: &Certificates, suite: SupportedCipherSuite) {
    let (address, server) = serve(certificates, async |tls, shared| {
        greet(tls, shared).await;
        let mut plain = Vec::new();
        read(tls, shared, &mut plain).await.unwrap_err();
        assert!(plain.is_empty(), "{plain:?}");
        // And so it stays.
        assert!(tls.try_send(shared, b"x").is_err());
    });
    let meddler = Meddler::before(address);
    let mut client = certificates.client(suite, meddler.address);
    hear(&mut client);
    meddler.tampers[0].store(true, Ordering::Relaxed);
    client.write_all(b"hello").unwrap();
    server.join().unwrap();
}

/// A client that sends an alert is gone: here because what it got was tampered with.
fn an_alert_ends_it(certificates: &Certificates, suite: SupportedCipherSuite) {
    let (address, server) = serve(certificates, async |tls, shared| {
        greet(tls, shared).await;
        let mut plain = Vec::new();
        assert_eq!(read(tls, shared, &mut plain).await.unwrap(), Received::Bytes(4));
        tls.send_all(shared, b"this will be another").await.unwrap();
        let error = read(tls, shared, &mut plain).await.unwrap_err();
        assert!(format!("{error:?}").contains("BadRecordMac"), "{error:?}");
    });
    let meddler = Meddler::before(address);
    let mut client = certificates.client(suite, meddler.address);
    hear(&mut client);
    meddler.tampers[1].store(true, Ordering::Relaxed);
    client.write_all(b"next").unwrap();
    client.read(&mut [0; 64]).unwrap_err();
    // The alert waits to be sent.
    client.flush().unwrap_or(());
    client.conn.write_tls(&mut client.sock).unwrap_or(0);
    server.join().unwrap();
}

/// A key update by the client is followed where this kernel can take new keys (Linux 6.14), and else ends the connection,
/// which either side is told.
fn a_key_update_is_followed_or_ends_it(certificates: &Certificates, suite: SupportedCipherSuite) {
    let (address, server) = serve(certificates, async |tls, shared| {
        greet(tls, shared).await;
        let mut plain = Vec::new();
        loop {
            match read(tls, shared, &mut plain).await {
                Ok(Received::Bytes(_)) if plain.ends_with(b"after") => {
                    println!("  the kernel has taken new keys");
                    assert_eq!(plain, b"beforeafter");
                    greet(tls, shared).await;
                    return;
                }
                Ok(Received::Bytes(_)) => assert_eq!(plain, b"before"),
                Ok(other) => panic!("{other:?}"),
                Err(error) => {
                    println!("  this kernel takes no new keys, and the connection has ended: {error}");
                    return;
                }
            }
        }
    });
    let mut client = certificates.client(suite, address);
    hear(&mut client);
    client.write_all(b"before").unwrap();
    client.conn.refresh_traffic_keys().unwrap();
    client.write_all(b"after").unwrap_or(());
    let mut word = [0; 2];
    match client.read_exact(&mut word) {
        Ok(()) => assert_eq!(&word, b"go"),
        Err(error) => println!("  the client: {error}"),
    }
    server.join().unwrap();
}

/// Run in the machine by the test below, and by hand where the kernel has TLS.
#[test]
#[ignore = "needs a kernel with TLS: the test below runs it in a machine that has one"]
fn inside_the_machine() {
    let certificates = Certificates::new();
    println!("{:?}", KernelTls::probe().unwrap());
    for (suite, volume) in [
        (cipher_suite::TLS13_AES_128_GCM_SHA256, VOLUME),
        (cipher_suite::TLS13_AES_256_GCM_SHA384, VOLUME),
        (cipher_suite::TLS13_CHACHA20_POLY1305_SHA256, VOLUME),
        (cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, LITTLE),
        (cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, LITTLE),
        (cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, LITTLE),
    ] {
        println!("{:?}: {} MiB each way", suite.suite(), volume >> 20);
        bytes_both_ways(&certificates, suite, volume);
        a_cut_is_no_end(&certificates, suite);
        tampering_is_noticed(&certificates, suite);
        an_alert_ends_it(&certificates, suite);
        if suite.tls13().is_some() {
            a_key_update_is_followed_or_ends_it(&certificates, suite);
        }
    }
}

/// Ciphers first.
const MODULES: [&str; 8] = [
    "gcm",
    "ctr",
    "ghash-generic",
    "chacha_generic",
    "poly1305_generic",
    "chacha20poly1305",
    "aesni-intel",
    "tls",
];

#[test]
fn debians_kernel_does_tls_for_us() {
    let [a, b, c, d, e] = machine::TOOLS;
    requires!(a, b, c, d, e);
    let Some(mut machine) = Machine::new() else {
        return left_out("needs Debian's kernel in /boot (see services/testkit/packages.txt)");
    };
    machine.load(&MODULES);
    machine.install(&std::env::current_exe().unwrap(), "/test");
    let test = "/test --ignored --exact inside_the_machine --nocapture && echo THE MACHINE SAYS YES";
    let said = machine.run(test);
    println!("{said}");
    assert!(said.contains("THE MACHINE SAYS YES"), "{said}");
}
