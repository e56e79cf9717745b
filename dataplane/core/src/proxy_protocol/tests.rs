//! Tests of both versions: what the specification allows and refuses, and that what is written is read back.

use proptest::prelude::*;

use super::*;
use crate::model::{CustomTlv, ProxyOut, TlvsOut};

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn pair(source: &str, destination: &str) -> Option<Addresses> {
    Some(Addresses { source: address(source), destination: address(destination) })
}

/// All prefixes need more, the whole gives `expect`.
#[track_caller]
fn check(bytes: &[u8], expect: Option<Addresses>) -> Header {
    for end in 0..bytes.len() {
        let progress = parse(&bytes[..end]);
        let Ok(Progress::NeedMore { at_least }) = progress else { panic!("{end}: {progress:?}") };
        assert!((end + 1..=bytes.len()).contains(&at_least), "{at_least} of {end}");
    }
    let behind = [bytes, b"\x16\x03\x01"].concat();
    let Ok(Progress::Done { header, len }) = parse(&behind) else { panic!("{:?}", parse(&behind)) };
    assert_eq!(len, bytes.len());
    assert_eq!(header.addresses, expect);
    header
}

#[track_caller]
fn check_refused(bytes: &[u8], expect: ProxyError) {
    assert_eq!(parse(bytes), Err(expect), "{}", bytes.escape_ascii());
}

/// A version 2 header of a command, a family and a block.
fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let len = u16::try_from(block.len()).unwrap().to_be_bytes();
    [v2::SIGNATURE, &[command, family], &len, block].concat()
}

const IPV4: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 2, 0xc0, 0, 1, 0xbb];

/// A TCP4 header with TLVs.
fn with_tlvs(tlvs: &[u8]) -> Vec<u8> {
    v2(0x21, 0x11, &[&IPV4[..], tlvs].concat())
}

#[test]
fn lines() {
    let header = check(
        b"PROXY TCP4 192.0.2.1 198.51.100.2 49152 443\r\n",
        pair("192.0.2.1:49152", "198.51.100.2:443"),
    );
    assert_eq!((header.version, header.command), (Version::V1, Command::Proxy));
    check(b"PROXY TCP6 2001:db8::1 ::1 0 65535\r\n", pair("[2001:db8::1]:0", "[::1]:65535"));
    check(b"PROXY TCP6 ::ffff:c000:201 ::1 1 2\r\n", pair("192.0.2.1:1", "[::1]:2"));
    check(b"PROXY UNKNOWN\r\n", None);
    check(b"PROXY UNKNOWN whatever \xff comes\r\n", None);
    let longest = format!("PROXY UNKNOWN {}\r\n", "f".repeat(91));
    assert_eq!(longest.len(), 107);
    check(longest.as_bytes(), None);
}

#[test]
fn lines_that_are_refused() {
    let line =
        |line: &str, what| check_refused(format!("PROXY{line}\r\n").as_bytes(), ProxyError::Line(what));
    line("", "protocol");
    line("X TCP4", "space behind PROXY");
    line("  TCP4 1.2.3.4 1.2.3.4 1 1", "protocol");
    line(" UDP4 1.2.3.4 1.2.3.4 1 1", "protocol");
    line(" UNKNOWNX", "protocol");
    line(" TCP4", "source address");
    line(" TCP4 ::1 1.2.3.4 1 1", "source address");
    line(" TCP4 01.2.3.4 1.2.3.4 1 1", "source address");
    line(" TCP4 1.2.3.4  1.2.3.4 1 1", "destination address");
    line(" TCP6 ::1 1.2.3.4 1 1", "destination address");
    line(" TCP6 fe80::1%eth0 ::1 1 1", "source address");
    line(" TCP4 1.2.3.4 1.2.3.4 01 1", "source port");
    line(" TCP4 1.2.3.4 1.2.3.4 +1 1", "source port");
    line(" TCP4 1.2.3.4 1.2.3.4 1 65536", "destination port");
    line(" TCP4 1.2.3.4 1.2.3.4 1", "destination port");
    line(" TCP4 1.2.3.4 1.2.3.4 1 ", "destination port");
    line(" TCP4 1.2.3.4 1.2.3.4 1 1 ", "end behind the destination port");
    check_refused(b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1\n", ProxyError::LineEnd);
    check_refused(b"PROXY TCP4 1.2.3.4\r1.2.3.4", ProxyError::LineEnd);
    check_refused(b"PROXY UNKNOWN \r \r\n", ProxyError::LineEnd);
    check_refused(format!("PROXY UNKNOWN {}", "f".repeat(93)).as_bytes(), ProxyError::LineEnd);
    check_refused(format!("PROXY UNKNOWN {}\r\n", "f".repeat(92)).as_bytes(), ProxyError::LineEnd);
}

#[test]
fn what_is_no_header_is_seen_at_once() {
    for bytes in [&b"\x16"[..], b"G", b"PO", b"PROXZ", b"\r\n\r\n\0\r\nQUIT\r", b"\n"] {
        assert_eq!(parse(bytes), Ok(Progress::NotProxy), "{}", bytes.escape_ascii());
    }
    assert_eq!(parse(b"PROX"), Ok(Progress::NeedMore { at_least: 5 }));
}

#[test]
fn binary_headers() {
    let header = check(&v2(0x21, 0x11, &IPV4), pair("192.0.2.1:49152", "198.51.100.2:443"));
    assert_eq!((header.version, header.command), (Version::V2, Command::Proxy));
    let mut ipv6 = [0; 36];
    ipv6[15] = 1;
    ipv6[16..32].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 7]);
    ipv6[35] = 9;
    check(&v2(0x21, 0x21, &ipv6), pair("[::1]:0", "192.0.2.7:9"));
    // What counts as no address: LOCAL whatever it carries, UNSPEC, datagrams, UNIX.
    assert_eq!(check(&v2(0x20, 0xff, b"ignored"), None).command, Command::Local);
    check(&v2(0x20, 0x00, &[]), None);
    check(&v2(0x21, 0x00, b"ignored"), None);
    check(&v2(0x21, 0x10, b"ignored"), None);
    check(&v2(0x21, 0x12, &IPV4), None);
    check(&v2(0x21, 0x31, &[0; 216]), None);
}

#[test]
fn binary_headers_that_are_refused() {
    check_refused(&v2(0x11, 0x11, &IPV4)[..13], ProxyError::Version(1));
    check_refused(&v2(0x22, 0x11, &IPV4)[..13], ProxyError::Command(2));
    check_refused(&v2(0x21, 0x41, &IPV4)[..14], ProxyError::Family(0x41));
    check_refused(&v2(0x21, 0x13, &IPV4)[..14], ProxyError::Family(0x13));
    check_refused(&v2(0x21, 0x11, &IPV4[..11]), ProxyError::AddressLength);
    check_refused(&v2(0x21, 0x21, &[0; 35]), ProxyError::AddressLength);
    check_refused(&v2(0x21, 0x31, &[0; 215]), ProxyError::AddressLength);
    check_refused(&with_tlvs(&[1]), ProxyError::TlvLength);
    check_refused(&with_tlvs(&[1, 0, 3, b'h', b'2']), ProxyError::TlvLength);
    check_refused(&with_tlvs(&[3, 0, 3, 0, 0, 0]), ProxyError::Tlv(kind::CRC32C));
    check_refused(&with_tlvs(&[3, 0, 4, 0, 0, 0, 0]), ProxyError::Checksum);
    check_refused(&with_tlvs(&[&[5, 0, 129][..], &[7; 129]].concat()), ProxyError::Tlv(kind::UNIQUE_ID));
    check_refused(&with_tlvs(&[0x20, 0, 4, 1, 0, 0, 0]), ProxyError::Tlv(kind::SSL));
    check_refused(&with_tlvs(&[0x20, 0, 8, 1, 0, 0, 0, 0, 0x21, 0, 1]), ProxyError::Tlv(kind::SSL));
}

#[test]
fn tlvs_by_name() {
    let ssl =
        [&[7, 0, 0, 0, 0, 0x21, 0, 7][..], b"TLSv1.3", &[0x22, 0, 2], b"me", &[0x23, 0, 1, b'c']].concat();
    let ssl_len = u8::try_from(ssl.len()).unwrap();
    let tlvs = [
        &[1, 0, 2, b'h', b'2', 2, 0, 3, b'a', b'.', b'b', 4, 0, 1, 0, 5, 0, 1, 0xff, 0x20, 0, ssl_len][..],
        &ssl,
        &[0x30, 0, 2, b'n', b's', 0xe0, 0, 0],
    ]
    .concat();
    let header = check(&with_tlvs(&tlvs), pair("192.0.2.1:49152", "198.51.100.2:443"));
    let tlvs = &header.tlvs;
    assert_eq!((tlvs.alpn(), tlvs.authority(), tlvs.netns()), (Some(&b"h2"[..]), Some("a.b"), Some("ns")));
    assert_eq!((tlvs.unique_id(), tlvs.get(0xe0), tlvs.get(0xe1)), (Some(&[0xff][..]), Some(&[][..]), None));
    let ssl = tlvs.ssl().unwrap();
    assert!(ssl.is_tls() && ssl.is_verified());
    assert_eq!((ssl.version(), ssl.common_name(), ssl.cipher()), (Some("TLSv1.3"), Some("me"), Some("c")));
    assert_eq!((ssl.signature_algorithm(), ssl.key_algorithm()), (None, None));
    assert_eq!(tlvs.iter().count(), 7);
}

/// Computed with an independent bitwise CRC32C (polynomial 0x82f63b78).
#[test]
fn the_checksum_covers_the_header_with_zeros_in_its_place() {
    let mut header = with_tlvs(&[3, 0, 4, 0, 0, 0, 0, 0xe0, 0, 1, b'x']);
    let mut crc = u32::MAX;
    for byte in &header {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    header[31..35].copy_from_slice(&(!crc).to_be_bytes());
    check(&header, pair("192.0.2.1:49152", "198.51.100.2:443"));
    let twice = [&header[16..], &[3, 0, 4, 0, 0, 0, 0][..]].concat();
    assert!(matches!(parse(&v2(0x21, 0x11, &twice)), Err(ProxyError::Checksum)));
    for at in [16, 27, 38] {
        let mut wrong = header.clone();
        wrong[at] ^= 1;
        check_refused(&wrong, ProxyError::Checksum);
    }
}

#[track_caller]
fn check_line(source: &str, destination: &str, expect: &str) {
    let mut out = b"before".to_vec();
    write_v1(&mut out, address(source), address(destination));
    assert_eq!(str::from_utf8(&out).unwrap(), format!("before{expect}\r\n"));
}

#[test]
fn written_lines() {
    check_line("192.0.2.1:1", "198.51.100.2:443", "PROXY TCP4 192.0.2.1 198.51.100.2 1 443");
    check_line("[2001:db8::1]:1", "[::1]:443", "PROXY TCP6 2001:db8::1 ::1 1 443");
    check_line("192.0.2.1:1", "[::1]:443", "PROXY TCP6 ::ffff:c000:201 ::1 1 443");
    check_line("[::ffff:192.0.2.1]:1", "198.51.100.2:443", "PROXY TCP4 192.0.2.1 198.51.100.2 1 443");
}

#[test]
fn checks_say_local() {
    let mut out = Vec::new();
    write_for_check(&mut out, ProxyOut::V2, address("192.0.2.1:1"), address("192.0.2.2:2"));
    assert_eq!(check(&out, None).command, Command::Local);
    out.clear();
    write_for_check(&mut out, ProxyOut::V1, address("192.0.2.1:1"), address("192.0.2.2:2"));
    check(&out, pair("192.0.2.1:1", "192.0.2.2:2"));
}

/// What a backend gets when these TLVs came in: type and value of each.
fn passed(incoming: &[u8], wanted: &TlvsOut) -> Vec<(u8, Vec<u8>)> {
    let Ok(Progress::Done { header, .. }) = parse(&with_tlvs(incoming)) else { panic!("valid") };
    let facts = Facts {
        source: address("192.0.2.1:1"),
        destination: address("[2001:db8::1]:2"),
        alpn: Some(b"h2"),
        authority: None,
        id: "id-7",
        incoming: Some(&header.tlvs),
    };
    let mut out = b"before".to_vec();
    write(&mut out, ProxyOut::V2, wanted, &facts);
    let header = check(&out[6..], pair("192.0.2.1:1", "[2001:db8::1]:2"));
    header.tlvs.iter().map(|tlv| (tlv.kind, tlv.value.to_vec())).collect()
}

#[test]
fn own_values_win_over_passed_ones() {
    let incoming = [
        1, 0, 1, b'x', 2, 0, 1, b'n', 4, 0, 0, 5, 0, 1, 9, 0x30, 0, 1, b'm', 0xe0, 0, 1, 1, 0xe1, 0, 1, 2,
        0x55, 0, 0,
    ];
    let tlv = |kind: u8, value: &[u8]| (kind, value.to_vec());
    assert_eq!(passed(&incoming, &TlvsOut::default()), []);
    let all = TlvsOut {
        alpn: true,
        authority: true,
        unique_id: true,
        crc32c: true,
        pass: true,
        custom: vec![CustomTlv { kind: 0xe1, value: "own".into() }],
    };
    let got = passed(&incoming, &all);
    let expect = [
        tlv(kind::ALPN, b"h2"),
        tlv(kind::UNIQUE_ID, &[9]),
        tlv(0xe1, b"own"),
        tlv(kind::AUTHORITY, b"n"),
        tlv(kind::NETNS, b"m"),
        tlv(0xe0, &[1]),
        tlv(0x55, b""),
    ];
    assert_eq!(got[..7], expect);
    assert_eq!((got.len(), got[7].0), (8, kind::CRC32C));
    let own = TlvsOut { alpn: true, unique_id: true, ..TlvsOut::default() };
    assert_eq!(passed(&[], &own), [tlv(kind::ALPN, b"h2"), tlv(kind::UNIQUE_ID, b"id-7")]);
}

#[test]
fn what_does_not_fit_is_left_out() {
    // The largest block there is, with IPv4 addresses: with those of IPv6 its big TLV has no room.
    let big = u16::MAX - 12 - 3 - 4;
    let incoming = [&[0xe2][..], &big.to_be_bytes(), &vec![0; usize::from(big)], &[0xe3, 0, 1, 5]].concat();
    let wanted = TlvsOut { pass: true, crc32c: true, ..TlvsOut::default() };
    let got = passed(&incoming, &wanted);
    assert_eq!(got.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), [0xe3, kind::CRC32C]);
}

fn any_address() -> impl Strategy<Value = SocketAddr> {
    (any::<std::net::IpAddr>(), any::<u16>()).prop_map(|(ip, port)| canonical(SocketAddr::new(ip, port)))
}

proptest! {
    #[test]
    fn a_written_line_is_read_back(source in any_address(), destination in any_address()) {
        let mut out = Vec::new();
        write_v1(&mut out, source, destination);
        prop_assert!(out.len() <= 104);
        check(&out, Some(Addresses { source, destination }));
    }

    #[test]
    fn a_written_header_is_read_back(
        (source, destination) in (any_address(), any_address()),
        alpn in proptest::option::of("[a-z0-9/.]{1,20}"),
        authority in proptest::option::of("[a-z.]{1,60}"),
        unique_id in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..=128)),
        values in proptest::collection::vec("[a-z]{0,40}", 0..4),
        crc32c in any::<bool>(),
    ) {
        let custom: Vec<_> = (0xe0..).zip(values).map(|(kind, value)| CustomTlv { kind, value }).collect();
        let mut out = Vec::new();
        write_v2(&mut out, &Outgoing {
            source,
            destination,
            alpn: alpn.as_deref().map(str::as_bytes),
            authority: authority.as_deref(),
            unique_id: unique_id.as_deref(),
            custom: &custom,
            pass: None,
            crc32c,
        });
        let header = check(&out, Some(Addresses { source, destination }));
        prop_assert_eq!(header.tlvs.alpn(), alpn.as_deref().map(str::as_bytes));
        prop_assert_eq!(header.tlvs.authority(), authority.as_deref());
        prop_assert_eq!(header.tlvs.unique_id(), unique_id.as_deref());
        prop_assert_eq!(header.tlvs.get(kind::CRC32C).is_some(), crc32c);
        for custom in &custom {
            prop_assert_eq!(header.tlvs.get(custom.kind), Some(custom.value.as_bytes()));
        }
    }

    #[test]
    fn no_bytes_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), version in 0..3) {
        let start = match version { 0 => v1::SIGNATURE, 1 => v2::SIGNATURE, _ => &[] };
        bytes.splice(0..0, start.iter().copied());
        drop(parse(&bytes));
    }
}
