//! Tests of the parser: what is read, what is refused and with how many bytes, and that splitting changes nothing.

use proptest::prelude::*;

use super::build::{HelloBuilder, records};
use super::*;

const LIMIT: usize = 64 * 1024;

/// What a hello says to a router.
#[derive(Debug, PartialEq, Eq)]
struct Said {
    name: Option<String>,
    alpn: Vec<Vec<u8>>,
    ech: bool,
    record_bytes: usize,
}

fn said(hello: &Hello<'_>) -> Said {
    Said {
        name: hello.server_name().map(ToString::to_string),
        alpn: hello.alpn().map(<[u8]>::to_vec).collect(),
        ech: hello.has_ech(),
        record_bytes: hello.record_bytes(),
    }
}

/// Feeds the bytes in pieces, the parser deciding nothing before it must; `None`: more is needed.
fn feed(bytes: &[u8], ends: impl IntoIterator<Item = usize>) -> Result<Option<Said>, HelloError> {
    let mut parser = Parser::new(LIMIT);
    for end in ends {
        match parser.parse(&bytes[..end])? {
            Progress::Done(hello) => return Ok(Some(said(&hello))),
            Progress::NeedMore { at_least } => assert!(at_least > end, "{at_least} of {end}"),
        }
    }
    Ok(None)
}

fn whole(bytes: &[u8]) -> Result<Option<Said>, HelloError> {
    feed(bytes, [bytes.len()])
}

/// The name that is routed by, in one piece and byte by byte.
#[track_caller]
fn check_name(builder: &HelloBuilder, expect: Result<Option<&str>, Malformed>) {
    let bytes = builder.build();
    let expect = expect.map(|name| name.map(str::to_owned)).map_err(HelloError::Malformed);
    assert_eq!(whole(&bytes).map(|said| said.expect("complete").name), expect);
    assert_eq!(feed(&bytes, 0..=bytes.len()).map(|said| said.expect("complete").name), expect);
}

#[track_caller]
fn check_refused(bytes: &[u8], expect: HelloError) {
    assert_eq!(whole(bytes), Err(expect));
    assert_eq!(feed(bytes, 0..=bytes.len()), Err(expect), "byte by byte");
}

fn named(name: &str) -> HelloBuilder {
    HelloBuilder::new().server_name(name)
}

#[test]
fn names() {
    check_name(&named("example.org"), Ok(Some("example.org")));
    check_name(&named("EXAMPLE.org."), Ok(Some("example.org")));
    check_name(&HelloBuilder::new(), Ok(None));
    check_name(&named("192.0.2.1"), Ok(None));
    check_name(&named("2001:db8::1"), Ok(None));
    check_name(&named("[2001:db8::1]"), Ok(None));
    check_name(&named("192.0.2.256"), Err(Malformed::BadHostName(HostNameError::EndsInNumber)));
    check_name(&named("a\0b.org"), Err(Malformed::BadHostName(HostNameError::BadByte(0))));
    check_name(&named("bücher.org"), Err(Malformed::BadHostName(HostNameError::BadByte(0xc3))));
    check_name(&named(""), Err(Malformed::BadLength("server_name")));
    check_name(&HelloBuilder::new().extension(0, &[]), Err(Malformed::Truncated("server_name")));
    check_name(&HelloBuilder::new().extension(0, &[0, 0]), Err(Malformed::BadLength("server_name")));
    // A name of an unknown type, alone and behind a good one.
    check_name(&HelloBuilder::new().extension(0, &[0, 4, 1, 0, 1, b'a']), Err(Malformed::NoHostName));
    check_name(&HelloBuilder::new().extension(0, &[0, 6, 0, 0, 1, b'a', 9, 9]), Ok(Some("a")));
    let two = [0, 8, 0, 0, 1, b'a', 0, 0, 1, b'b'];
    check_name(&HelloBuilder::new().extension(0, &two), Err(Malformed::SeveralHostNames));
}

#[test]
fn an_address_in_place_of_a_name_is_kept_for_the_log() {
    let bytes = named("192.0.2.1").build();
    let mut parser = Parser::new(LIMIT);
    let Ok(Progress::Done(hello)) = parser.parse(&bytes) else { panic!("complete") };
    assert_eq!(hello.ip_literal(), Some([192, 0, 2, 1].into()));
    assert_eq!(hello.server_name(), None);
}

#[test]
fn everything_a_browser_sends_at_once() {
    let bytes = HelloBuilder::new()
        .grease()
        .server_name("cdn.example.org")
        .alpn(&[b"h2", b"http/1.1"])
        .ech(200)
        .post_quantum()
        .padding(300)
        .build();
    assert!(bytes.len() > 1900);
    let mut parser = Parser::new(LIMIT);
    let Ok(Progress::Done(hello)) = parser.parse(&bytes) else { panic!("complete") };
    assert_eq!(hello.server_name().unwrap().as_str(), "cdn.example.org");
    assert_eq!(hello.alpn().collect::<Vec<_>>(), [&b"h2"[..], b"http/1.1"]);
    assert_eq!(hello.supported_versions().collect::<Vec<_>>(), [0x6a6a, 0x0304, 0x0303]);
    assert!(hello.has_ech());
    assert_eq!((hello.session_id().len(), hello.cipher_suites().len()), (32, 12));
    assert_eq!((hello.record_bytes(), hello.legacy_version()), (bytes.len(), 0x0303));
    assert!(parser.message.is_empty(), "one record is read in place");
}

#[test]
fn old_clients_may_send_no_extensions() {
    let mut body = vec![3, 1];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0, 5, 1, 0]);
    let message = [&[1, 0, 0, u8::try_from(body.len()).unwrap()][..], &body].concat();
    assert_eq!(whole(&records(&message, &[])).unwrap().unwrap().name, None);
}

#[test]
fn what_follows_the_hello_is_no_concern() {
    let hello = named("a.example").build();
    let early_data = [&hello[..], &[20, 3, 3, 0, 1, 1, 23, 3, 3, 0x40]].concat();
    assert_eq!(whole(&early_data).unwrap().unwrap().record_bytes, hello.len());
}

#[test]
fn http_is_told_from_garbage() {
    check_refused(b"GET / HTTP/1.1\r\n", HelloError::PlainHttp);
    check_refused(b"OPTIONS * HTTP/1.1\r\n", HelloError::PlainHttp);
    check_refused(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", HelloError::PlainHttp);
    check_refused(b"SSH-2.0-OpenSSH_9.6\r\n", HelloError::NotTls);
    check_refused(b"GETTING", HelloError::NotTls);
    check_refused(b"\x16\x02\x00\x00\x10", HelloError::NotTls);
    // An SSLv2 hello.
    check_refused(b"\x80\x2e\x01\x03\x01\x00\x15", HelloError::NotTls);
    assert_eq!(whole(b"PATC"), Ok(None));
    assert_eq!(whole(b""), Ok(None));
}

#[test]
fn records_that_are_refused() {
    let refused = |bytes: &[u8], why| check_refused(bytes, HelloError::Malformed(why));
    refused(&[21, 3, 3, 0, 2, 2, 40], Malformed::NotHandshake(21));
    refused(&[23, 3, 3, 0, 1, 0], Malformed::NotHandshake(23));
    refused(&[22, 3, 3, 0, 0], Malformed::EmptyRecord);
    refused(&[22, 3, 3, 0x40, 1], Malformed::RecordTooLong(0x4001));
    refused(&[22, 3, 3, 0, 4, 2], Malformed::NotClientHello(2));
    refused(&[22, 3, 3, 0, 5, 1, 0, 0, 0], Malformed::DataAfterHello);
    refused(&[22, 3, 3, 0, 4, 1, 0, 0, 0], Malformed::Truncated("version"));
    refused(&[22, 3, 3, 0, 3, 1, 0, 0, 22, 3, 3, 0, 1, 0], Malformed::Truncated("version"));
    let hello = named("a.example");
    let message_len = hello.message().len();
    refused(&hello.build_records(&[50, 0]), Malformed::EmptyRecord);
    let mut longer = hello.message();
    longer.push(1);
    refused(&records(&longer, &[]), Malformed::DataAfterHello);
    refused(&records(&longer, &[100]), Malformed::DataAfterHello);
    let mut alert = hello.build_records(&[message_len - 10]);
    alert[message_len - 5] = 21;
    refused(&alert, Malformed::NotHandshake(21));
    alert[message_len - 5] = 22;
    alert[message_len - 4] = 2;
    refused(&alert, Malformed::RecordVersion(0x0201));
}

#[test]
fn contents_that_are_refused() {
    let refused = |hello: &HelloBuilder, why| check_refused(&hello.build(), HelloError::Malformed(why));
    let hello = named("a.example");
    refused(&hello.clone().session_id(33), Malformed::BadLength("session id"));
    refused(&hello.clone().trailing(&[0]), Malformed::BadLength("extensions"));
    refused(
        &hello.clone().extension(0xfafa, &[]).extension(0xfafa, &[]),
        Malformed::DuplicateExtension(0xfafa),
    );
    refused(&hello.clone().extension(23, &[]), Malformed::DuplicateExtension(23));
    refused(&hello.clone().alpn(&[]), Malformed::BadLength("ALPN extension"));
    refused(&hello.clone().alpn(&[b"h2", b""]), Malformed::BadLength("ALPN extension"));
    refused(&hello.clone().extension(16, &[0, 3, 2, b'h']), Malformed::Truncated("ALPN extension"));
    refused(&hello.tls12().extension(43, &[3, 3, 4, 3]), Malformed::BadLength("supported_versions"));
}

#[test]
fn duplicates_are_found_among_many_extensions() {
    let mut hello = HelloBuilder::new().tls12();
    for kind in 100..8_000 {
        hello = hello.extension(kind, &[]);
    }
    assert!(whole(&hello.build()).unwrap().is_some());
    for again in [100, 131, 132, 7_999] {
        let twice = hello.clone().extension(again, &[]);
        check_refused(&twice.build(), HelloError::Malformed(Malformed::DuplicateExtension(again)));
    }
}

#[test]
fn too_large_is_refused_as_soon_as_it_is_known() {
    let hello = named("a.example").padding(60_000);
    let bytes = hello.build();
    let limit =
        |limit| Parser::new(limit).parse(&bytes).map(|progress| matches!(progress, Progress::Done(_)));
    assert_eq!(limit(bytes.len()), Ok(true));
    assert_eq!(limit(bytes.len() - 1), Err(HelloError::TooLarge { limit: bytes.len() - 1 }));
    // Nine bytes say how long the message is.
    let early = Parser::new(1_000).parse(&bytes[..9]).map(drop);
    assert_eq!(early, Err(HelloError::TooLarge { limit: 1_000 }));
}

#[test]
fn byte_by_byte_costs_no_more_than_a_look() {
    let bytes = named("a.example").padding(60_000).build_records(&[1; 3_000]);
    let mut parser = Parser::new(2 * LIMIT);
    let mut looks = 0;
    for end in 0..bytes.len() {
        looks += usize::from(end >= parser.need);
        assert!(matches!(parser.parse(&bytes[..end]), Ok(Progress::NeedMore { .. })));
    }
    assert!(looks < 3 * 3_010, "{looks}");
    assert!(matches!(parser.parse(&bytes), Ok(Progress::Done(_))));
    assert!(matches!(parser.parse(&bytes), Ok(Progress::Done(_))), "and again");
}

#[test]
fn a_name_behind_the_hello_was_not_asked_for() {
    let extension = b"\0\0\0\x0e\0\x0c\0\0\x09a.example";
    let hello = HelloBuilder::new().build();
    let another = [&hello[..], &[22, 3, 3, 0, 18], extension].concat();
    assert_eq!(whole(&another).unwrap().unwrap().name, None);
    assert_eq!(asked_name(&another), None);
}

#[test]
fn the_name_is_known_where_the_hello_is_refused_or_cut() {
    let bytes = named("a.example").padding(2_000).build_records(&[40, 60, 30]);
    assert_eq!(asked_name(&bytes).as_deref(), Some("a.example"));
    assert_eq!(asked_name(&bytes[..500]).as_deref(), Some("a.example"));
    assert_eq!(asked_name(&bytes[..90]), None);
    let strange = HelloBuilder::new().server_name(b"a\0\xc3\n\"").session_id(40).build();
    assert_eq!(asked_name(&strange).as_deref(), Some(r#"a\x00\xc3\n\""#));
    assert_eq!(asked_name(b"GET / HTTP/1.1\r\n"), None);
}

fn any_hello() -> impl Strategy<Value = HelloBuilder> {
    let name = proptest::option::of("[a-zA-Z0-9_-]{1,30}(\\.[a-z]{1,20}){0,4}\\.[A-Za-z]{2,10}\\.?");
    let alpn = proptest::collection::vec("[a-z0-9/.]{1,20}", 0..5);
    let flags = any::<[bool; 4]>();
    (name, alpn, flags, 0_usize..20_000).prop_map(|(name, alpn, [grease, ech, pq, tls12], padding)| {
        let mut hello = HelloBuilder::new();
        if tls12 {
            hello = hello.tls12();
        }
        if pq {
            hello = hello.post_quantum();
        }
        if grease {
            hello = hello.grease();
        }
        if let Some(name) = name {
            hello = hello.server_name(name);
        }
        if ech {
            hello = hello.ech(180);
        }
        if !alpn.is_empty() {
            hello = hello.alpn(&alpn.iter().map(String::as_bytes).collect::<Vec<_>>());
        }
        if padding > 10_000 { hello } else { hello.padding(padding) }
    })
}

proptest! {
    #[test]
    fn any_split_reads_the_same(
        hello in any_hello(),
        sizes in proptest::collection::vec(1_usize..3_000, 0..12),
        mut ends in proptest::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let expect = whole(&hello.build()).unwrap().expect("complete");
        let split = hello.build_records(&sizes);
        let mut ends: Vec<_> = ends.drain(..).map(|end| end.index(split.len())).collect();
        ends.sort_unstable();
        let got = feed(&split, ends.into_iter().chain([split.len()])).unwrap().expect("complete");
        prop_assert_eq!(got.record_bytes, split.len());
        prop_assert_eq!((got.name, got.alpn, got.ech), (expect.name, expect.alpn, expect.ech));
    }

    #[test]
    fn any_prefix_needs_more(hello in any_hello(), sizes in proptest::collection::vec(1_usize..500, 0..4), cut in any::<prop::sample::Index>()) {
        let bytes = hello.build_records(&sizes);
        prop_assert_eq!(whole(&bytes[..cut.index(bytes.len())]), Ok(None));
    }

    #[test]
    fn no_bytes_panic_and_feeding_changes_nothing(
        hello in any_hello(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        sizes in proptest::collection::vec(1_usize..200, 0..6),
    ) {
        let mut bytes = hello.build_records(&sizes);
        for (at, value) in changes {
            let at = at.index(bytes.len().min(300));
            bytes[at] = value;
        }
        prop_assert_eq!(whole(&bytes), feed(&bytes, 0..=bytes.len()));
        drop(asked_name(&bytes));
    }
}
