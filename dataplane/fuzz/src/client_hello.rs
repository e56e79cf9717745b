//! Differential: our reading of a ClientHello beside that of rustls, in pieces beside the whole, and cut into
//! other records.
//!
//! Input: a byte, then either the bytes of a connection (top bit set) or a handshake message that is cut
//! into records; the low four bits say how many sizes, of one byte each, stand before it.

use mc_core::client_hello::{self as ours, HelloError, Malformed, Parser, Progress};
use rustls::server::Acceptor;
use rustls::{Error, InvalidMessage, PeerIncompatible, PeerMisbehaved};

/// Checks one input.
pub fn check(input: &[u8]) {
    let Some(wire) = wire(input) else { return };
    let ours = read(&wire);
    for step in [1, 7] {
        assert_eq!(read_in_pieces(&wire, step), ours, "in pieces of {step}");
    }
    if let Ok(Some(said)) = &ours {
        check_log_name(&wire, said);
        check_other_records(&wire, said);
    }
    compare(&wire, &ours, &rustls_reads(&wire));
}

/// What a hello says to a router.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Said {
    name: Option<String>,
    address: bool,
    alpn: Vec<Vec<u8>>,
}

/// How rustls reads the same bytes.
#[derive(Debug)]
enum Theirs {
    NeedMore,
    Hello { name: Option<String>, alpn: Vec<Vec<u8>> },
    Refused(Error),
}

fn wire(input: &[u8]) -> Option<Vec<u8>> {
    let (&mode, rest) = input.split_first()?;
    if mode & 0x80 != 0 {
        return Some(rest.to_vec());
    }
    let (sizes, message) = rest.split_at_checked(usize::from(mode & 15))?;
    let sizes: Vec<_> = sizes.iter().map(|&size| usize::from(size).max(1)).collect();
    Some(ours::build::records(message, &sizes))
}

type Ours = Result<Option<Said>, HelloError>;

fn read(wire: &[u8]) -> Ours {
    look(&mut Parser::new(LIMIT), wire)
}

fn read_in_pieces(wire: &[u8], step: usize) -> Ours {
    let mut parser = Parser::new(LIMIT);
    for end in (0..wire.len()).step_by(step) {
        match look(&mut parser, &wire[..end]) {
            Ok(None) => {}
            decided => return decided,
        }
    }
    look(&mut parser, wire)
}

fn look(parser: &mut Parser, wire: &[u8]) -> Ours {
    match parser.parse(wire)? {
        Progress::NeedMore { at_least } => {
            assert!(at_least > wire.len(), "asks for {at_least} of {}", wire.len());
            Ok(None)
        }
        Progress::Done(hello) => {
            assert!(hello.record_bytes() <= wire.len());
            let name = hello.server_name().map(ToString::to_string);
            #[cfg(feature = "planted")]
            let name = name.filter(|_| in_first_record(wire));
            let alpn = hello.alpn().map(<[u8]>::to_vec).collect();
            Ok(Some(Said { name, address: hello.ip_literal().is_some(), alpn }))
        }
    }
}

/// The planted bug: a name that is not wholly in the first record is not seen.
#[cfg(feature = "planted")]
fn in_first_record(wire: &[u8]) -> bool {
    let len = usize::from(u16::from_be_bytes([wire[3], wire[4]]));
    ours::asked_name(&wire[..5 + len]).is_some()
}

/// The log's name is the one that was routed by.
fn check_log_name(wire: &[u8], said: &Said) {
    let asked = ours::asked_name(wire);
    let normal = asked.as_deref().map(|name| name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase());
    match &said.name {
        Some(_) => assert_eq!(normal, said.name),
        None => assert_eq!(asked.is_some(), said.address),
    }
}

/// The same message says the same in other records, with a cut anywhere.
fn check_other_records(wire: &[u8], said: &Said) {
    let message = message(wire);
    let cut = usize::try_from(crc32c::crc32c(wire)).expect("32 bits fit") % message.len();
    let other = read(&ours::build::records(&message, &[cut.max(1)]));
    assert_eq!(other.as_ref(), Ok(&Some(said.clone())), "cut at {cut}");
}

fn rustls_reads(mut wire: &[u8]) -> Theirs {
    let mut acceptor = Acceptor::default();
    while !wire.is_empty() {
        if acceptor.read_tls(&mut wire).is_err() {
            return Theirs::Refused(Error::General("its buffer is full".into()));
        }
        match acceptor.accept() {
            Ok(None) => {}
            Ok(Some(accepted)) => {
                let hello = accepted.client_hello();
                let name = hello.server_name().map(|name| name.strip_suffix('.').unwrap_or(name).to_owned());
                let alpn = hello.alpn().into_iter().flatten().map(<[u8]>::to_vec).collect();
                return Theirs::Hello { name, alpn };
            }
            Err((error, _)) => return Theirs::Refused(error),
        }
    }
    Theirs::NeedMore
}

fn compare(wire: &[u8], ours: &Ours, theirs: &Theirs) {
    match (ours, theirs) {
        (Ok(Some(said)), Theirs::Hello { name, alpn }) => {
            assert_eq!((&said.name, &said.alpn), (name, alpn), "another reading than that of rustls");
        }
        (Ok(Some(said)), Theirs::Refused(error)) => {
            assert!(may_be_stricter(error, said), "read here, refused by rustls: {error:?}, {said:?}");
            // Without the parts that a router skips, rustls must agree.
            match rustls_reads(&reduced(wire)) {
                Theirs::Hello { name, alpn } => {
                    assert_eq!((&said.name, &said.alpn), (&name, &alpn), "reduced")
                }
                Theirs::Refused(error) if about_whole_hello(&error, said) => {}
                other => panic!("read here, not even reduced by rustls: {other:?}, {said:?}"),
            }
        }
        // The one place where we are stricter: rustls lets plain records be as long as encrypted ones.
        (Err(HelloError::Malformed(Malformed::RecordTooLong(_))), Theirs::Hello { .. }) => {}
        (Ok(Some(_)), Theirs::NeedMore) | (Ok(None) | Err(_), Theirs::Hello { .. }) => {
            panic!("{ours:?} here, {theirs:?} by rustls");
        }
        // Who refuses first, and with what words, may differ.
        (Ok(None) | Err(_), Theirs::NeedMore | Theirs::Refused(_)) => {}
    }
}

/// Why a server that goes on to a handshake may refuse what a router passes on.
fn may_be_stricter(error: &Error, said: &Said) -> bool {
    match error {
        Error::PeerIncompatible(PeerIncompatible::SignatureAlgorithmsExtensionRequired) => true,
        // What both must find.
        Error::InvalidMessage(
            InvalidMessage::DuplicateExtension(_)
            | InvalidMessage::HandshakePayloadTooLarge
            | InvalidMessage::InvalidEmptyPayload
            | InvalidMessage::InvalidServerName
            | InvalidMessage::MessageTooLarge
            | InvalidMessage::UnknownProtocolVersion,
        ) => false,
        // The rest is about extensions that a router has no use for: shown by taking them out.
        Error::InvalidMessage(_) => true,
        error => about_whole_hello(error, said),
    }
}

/// Why a server may refuse a hello that is reduced to what a router reads.
fn about_whole_hello(error: &Error, said: &Said) -> bool {
    match error {
        Error::PeerIncompatible(PeerIncompatible::NullCompressionRequired) => true,
        // Labels that start or end with a hyphen, which exist; names of 253 bytes and a dot; addresses in
        // brackets or with a dot.
        Error::PeerMisbehaved(PeerMisbehaved::ServerNameMustContainOneHostName) => {
            said.address
                || said.name.as_deref().is_some_and(|name| name.len() == 253 || has_edge_hyphen(name))
        }
        _ => false,
    }
}

/// The handshake message in records that are known to be well-formed.
fn message(wire: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    let mut rest = wire;
    while message.len() < 4 || message.len() < 4 + number(&message[1..4]) {
        let (record, later) = rest.split_at(5 + number(&rest[3..5]));
        message.extend(&record[5..]);
        rest = later;
    }
    message
}

/// The same hello with the extensions that a router reads, and the one without which rustls reads none.
/// `wire` is known to be well-formed.
fn reduced(wire: &[u8]) -> Vec<u8> {
    let message = message(wire);
    let mut at = 4 + 2 + 32;
    at += 1 + usize::from(message[at]);
    at += 2 + number(&message[at..at + 2]);
    at += 1 + usize::from(message[at]);
    let mut extensions = vec![0, 13, 0, 4, 0, 2, 4, 3];
    let mut all = message.get(at + 2..).unwrap_or_default();
    while !all.is_empty() {
        let (extension, later) = all.split_at(4 + number(&all[2..4]));
        if matches!(extension[..2], [0, 0 | 16 | 43]) {
            extensions.extend(extension);
        }
        all = later;
    }
    let body = [&message[4..at], &u16_len(&extensions), &extensions].concat();
    ours::build::records(&[&[1, 0], &u16_len(&body)[..], &body].concat(), &[])
}

fn number(bytes: &[u8]) -> usize {
    bytes.iter().fold(0, |number, &byte| number << 8 | usize::from(byte))
}

fn u16_len(bytes: &[u8]) -> [u8; 2] {
    u16::try_from(bytes.len()).expect("inputs are small").to_be_bytes()
}

fn has_edge_hyphen(name: &str) -> bool {
    name.split('.').any(|label| label.starts_with('-') || label.ends_with('-'))
}

const LIMIT: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use mc_core::client_hello::build::HelloBuilder;

    use super::*;

    #[test]
    fn what_the_builder_makes_is_read_by_rustls() {
        let named = HelloBuilder::new().server_name("a.example.org").alpn(&[b"h2", b"http/1.1"]);
        let full = named.clone().grease().ech(180).post_quantum().padding(3_000);
        for hello in [&named, &full, &named.clone().tls12(), &named.clone().session_id(0)] {
            for sizes in [&[][..], &[1, 2, 3], &[100, 90, 80]] {
                let wire = hello.build_records(sizes);
                let Theirs::Hello { name, alpn } = rustls_reads(&wire) else {
                    panic!("{:?}", rustls_reads(&wire))
                };
                assert_eq!(name.as_deref(), Some("a.example.org"));
                assert_eq!(alpn, [&b"h2"[..], b"http/1.1"]);
            }
        }
    }
}
