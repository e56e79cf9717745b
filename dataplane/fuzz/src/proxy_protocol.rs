//! PROXY headers: any prefix says the same or less, and what is read can be written and read again.
//!
//! Input: a byte, then either the bytes of a connection (top bit set) or the block of a version 2 header,
//! which is made around it: bits 0 and 1 choose command and family, bit 2 puts the right checksum into a
//! final CRC32C TLV.

use std::net::SocketAddr;

use mc_core::proxy_protocol::{
    Addresses, Header, Outgoing, Progress, ProxyError, Version, kind, parse, write_v1, write_v2,
};

/// Checks one input.
pub fn check(input: &[u8]) {
    let Some(wire) = wire(input) else { return };
    let whole = parse(&wire);
    check_prefixes(&wire, &whole);
    if let Ok(Progress::Done { header, len }) = whole {
        check_size(&header, len, &wire);
        check_round_trip(&header);
    }
}

fn wire(input: &[u8]) -> Option<Vec<u8>> {
    let (&mode, rest) = input.split_first()?;
    if mode & 0x80 != 0 {
        return Some(rest.to_vec());
    }
    let [command, family] = [[0x21, 0x11], [0x21, 0x21], [0x21, 0x31], [0x20, 0x00]][usize::from(mode & 3)];
    let len = u16::try_from(rest.len()).ok()?;
    let mut wire = [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[command, family], &len.to_be_bytes(), rest].concat();
    if mode & 4 != 0 {
        wire.extend([3, 0, 4, 0, 0, 0, 0]);
        wire[14..16].copy_from_slice(&len.checked_add(7)?.to_be_bytes());
        let crc = crc32c::crc32c(&wire);
        let at = wire.len() - 4;
        wire[at..].copy_from_slice(&crc.to_be_bytes());
    }
    Some(wire)
}

/// The first prefix that says anything says what the whole says.
fn check_prefixes(wire: &[u8], whole: &Result<Progress, ProxyError>) {
    let mut next = 0;
    while next <= wire.len() {
        let progress = parse(&wire[..next]);
        if let Ok(Progress::NeedMore { at_least }) = progress {
            assert!(at_least > next, "asks for {at_least} of {next}");
            next += 1;
            continue;
        }
        assert_eq!(progress, *whole, "{next} bytes");
        return;
    }
    assert!(matches!(whole, Ok(Progress::NeedMore { .. })));
}

/// Version 2: addresses and TLVs fill the block, none is lost and none made up.
fn check_size(header: &Header, len: usize, wire: &[u8]) {
    assert!(len <= wire.len());
    if header.version == Version::V1 {
        assert!(len <= 107 && wire[..len].ends_with(b"\r\n") && header.tlvs.is_empty());
        return;
    }
    let addresses = match wire[13] {
        _ if wire[12] == 0x20 => return,
        0x11 | 0x12 => 12,
        0x21 | 0x22 => 36,
        0x31 | 0x32 => 216,
        _ => return,
    };
    let tlvs: usize = tlvs_of(header).iter().map(|(_, value)| 3 + value.len()).sum();
    assert_eq!(16 + addresses + tlvs, len);
}

fn check_round_trip(header: &Header) {
    let somewhere: SocketAddr = "192.0.2.1:1".parse().expect("an address");
    let addresses = header.addresses.unwrap_or(Addresses { source: somewhere, destination: somewhere });
    let mut line = Vec::new();
    write_v1(&mut line, addresses.source, addresses.destination);
    let (read, len) = must_read(&line);
    assert_eq!((read.addresses, len), (Some(addresses), line.len()));

    for crc32c in [false, true] {
        let first = rewrite(addresses, header, crc32c);
        let expect: Vec<_> = tlvs_of(header)
            .into_iter()
            .filter(|(kind, _)| !matches!(*kind, kind::CRC32C | kind::NOOP))
            .collect();
        // Where addresses grow, the last TLVs of a header of almost 65535 bytes have no room.
        if expect.iter().map(|(_, value)| 3 + value.len()).sum::<usize>() < 60_000 {
            let mut got = tlvs_of(&first);
            if crc32c {
                assert_eq!(got.pop().map(|(kind, _)| kind), Some(kind::CRC32C));
            }
            assert_eq!(got, expect);
        }
        assert_eq!(rewrite(addresses, &first, crc32c), first, "written twice");
    }
}

/// What a backend reads when the header is passed on.
fn rewrite(addresses: Addresses, header: &Header, crc32c: bool) -> Header {
    let outgoing = Outgoing {
        source: addresses.source,
        destination: addresses.destination,
        alpn: None,
        authority: None,
        unique_id: None,
        custom: &[],
        pass: Some(&header.tlvs),
        crc32c,
    };
    let mut out = Vec::new();
    write_v2(&mut out, &outgoing);
    let (header, len) = must_read(&out);
    assert_eq!((header.addresses, len), (Some(addresses), out.len()));
    header
}

fn must_read(bytes: &[u8]) -> (Header, usize) {
    match parse(bytes) {
        Ok(Progress::Done { header, len }) => (header, len),
        other => panic!("{} cannot be read back: {other:?}", bytes.escape_ascii()),
    }
}

fn tlvs_of(header: &Header) -> Vec<(u8, Vec<u8>)> {
    let all: Vec<_> = header.tlvs.iter().map(|tlv| (tlv.kind, tlv.value.to_vec())).collect();
    #[cfg(feature = "planted")]
    let all = ignore_last_length(all);
    all
}

/// The planted bug: a last TLV is taken to have content, whatever its length says.
#[cfg(feature = "planted")]
fn ignore_last_length(mut all: Vec<(u8, Vec<u8>)>) -> Vec<(u8, Vec<u8>)> {
    all.pop_if(|(_, value)| value.is_empty());
    all
}
