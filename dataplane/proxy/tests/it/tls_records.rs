//! TLS as no library sends it: messages cut and joined in ways that must not hurt anybody else.

use std::io::{Read as _, Write as _};
use std::sync::Arc;

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use mc_testkit::ca::Ca;
use mc_testkit::client::{Raw, Request};
use mc_testkit::clock::PATIENCE;
use mc_testkit::hello::{Hello, record};
use mc_testkit::http::{Client, Origin};
use mc_testkit::proxy::{Config, Proxy};
use rustls::ConnectionTrafficSecrets as Secrets;

const NAME: &str = "www.example.org";
const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: www.example.org\r\n\r\n";

/// A site with one worker: whatever hurts it is felt by the next client.
fn site(ca: &Ca, origin: &Origin) -> Proxy {
    let config = Config::new().server("workers = 1").listener("web").certificate("www", &ca.issue(&[NAME]));
    Proxy::start(config.route_with(NAME, &[origin.address()], "mode = \"l7\""))
}

/// Whether the next client is served.
fn assert_serves(ca: &Ca, proxy: &Proxy) {
    let mut client = Client::on(Request::new(ca, proxy.web(), NAME).open().unwrap());
    client.send(GET);
    let response = client.try_response(false);
    let response = response.unwrap_or_else(|error| panic!("{error}; mc-proxy said: {}", proxy.errors()));
    assert_eq!(response.status(), 200);
}

/// A record of TLS 1.3 with this content (RFC 8446, section 5.2).
fn encrypted(secrets: &Secrets, sequence: u64, kind: u8, content: &[u8]) -> Vec<u8> {
    let (algorithm, key, iv) = match secrets {
        Secrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
        Secrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
        other => panic!("another suite was agreed on: {}", std::any::type_name_of_val(other)),
    };
    let mut nonce: [u8; 12] = iv.as_ref().try_into().unwrap();
    nonce[4..].iter_mut().zip(sequence.to_be_bytes()).for_each(|(byte, part)| *byte ^= part);
    let mut body = [content, &[kind]].concat();
    let length = u16::try_from(body.len() + 16).unwrap().to_be_bytes();
    let header = [23, 3, 3, length[0], length[1]];
    let key = LessSafeKey::new(UnboundKey::new(algorithm, key.as_ref()).unwrap());
    let nonce = Nonce::assume_unique_for_key(nonce);
    key.seal_in_place_append_tag(nonce, Aad::from(&header), &mut body).unwrap();
    [&header[..], &body].concat()
}

#[test]
fn a_message_that_was_begun_waits_while_answers_are_sent() {
    let (ca, origin) = (Ca::new(), Origin::echoing());
    let proxy = site(&ca, &origin);
    let request = Request::new(&ca, proxy.web(), NAME).alpn(&["http/1.1"]);
    let mut config = Arc::into_inner(request.config().unwrap()).unwrap();
    config.enable_secret_extraction = true;
    let tls = request.open_with(&Arc::new(config)).unwrap();
    let (connection, mut stream) = tls.into_parts();
    let secrets = connection.dangerous_extract_secrets().unwrap();
    let (sequence, secret) = secrets.tx;
    // A request, and the first bytes of a KeyUpdate (type 24).
    let records = [encrypted(&secret, sequence, 23, GET), encrypted(&secret, sequence + 1, 22, &[24, 0, 0])];
    stream.write_all(&records.concat()).unwrap();
    // The session tickets, then the answer.
    let mut answer: Vec<u8> = Vec::new();
    while answer.len() < 300 {
        let mut buffer = [0; 4096];
        let read = stream.read(&mut buffer).unwrap();
        assert!(read > 0, "closed after {} bytes; mc-proxy said: {}", answer.len(), proxy.errors());
        answer.extend(&buffer[..read]);
    }
    assert_serves(&ca, &proxy);
}

#[test]
fn a_handshake_that_fails_with_more_to_come_ends_alone() {
    let (ca, origin) = (Ca::new(), Origin::echoing());
    let proxy = site(&ca, &origin);
    let hello = Hello::to(NAME).message();
    // A complete message behind the hello, in its record and in one of its own.
    let joined = record(22, &[&hello[..], &[20, 0, 0, 0]].concat());
    let apart = [record(22, &hello), record(22, &[20, 0, 0, 0])].concat();
    for bytes in [joined, apart] {
        let mut client = Raw::connect(proxy.web());
        client.send(&bytes);
        let (_, end) = client.read_to_end(PATIENCE);
        assert_ne!(format!("{end:?}"), "Silence");
        assert_serves(&ca, &proxy);
    }
}
