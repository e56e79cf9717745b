//! Tables of what is read and refused, and properties that hold for any pieces.

use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits { head_bytes: 4096, target_bytes: 1024, fields: 20 };

fn request(text: &str) -> Result<Request, Malformed> {
    let head = HeadEnd::default().find(text.as_bytes(), &LIMITS)?.expect("a complete head");
    let mut request = Request::default();
    request.parse(&text.as_bytes()[head], &LIMITS)?;
    Ok(request)
}

fn response(text: &str, to_head: bool) -> Result<Response, Malformed> {
    let head = HeadEnd::default().find(text.as_bytes(), &LIMITS)?.expect("a complete head");
    let mut response = Response::default();
    response.parse(&text.as_bytes()[head], to_head, &LIMITS)?;
    Ok(response)
}

#[test]
fn reads_what_clients_send() {
    let text = "POST /a/b?c=%20&d=e HTTP/1.1\r\nHost: Example.org:8443\r\nAccept:*/*\r\nX-Empty:\r\n\
                Content-Length:  5 \t\r\nConnection: keep-alive, X-Mine\r\nx-mine: 1\r\nExpect: 100-Continue\r\n\r\n";
    let request = request(text).unwrap();
    let head = text.as_bytes();
    assert_eq!(request.method.of(head), b"POST");
    assert_eq!(request.target.of(head), b"/a/b?c=%20&d=e");
    assert_eq!(request.host.of(head), b"Example.org:8443");
    assert_eq!(request.version, Version::Http11);
    assert_eq!(request.body, Body::Length(5));
    assert!(request.persistent && request.expects_continue && request.upgrade.is_none());
    assert_eq!(request.section.values(head, "accept").collect::<Vec<_>>(), [b"*/*"]);
    assert_eq!(request.section.values(head, "x-empty").collect::<Vec<_>>(), [b""]);
    let forwarded: Vec<_> = request
        .section
        .fields()
        .iter()
        .filter(|field| !request.section.is_hop_by_hop(field, head))
        .map(|field| String::from_utf8_lossy(field.name.of(head)))
        .collect();
    assert_eq!(forwarded, ["Host", "Accept", "X-Empty", "Content-Length", "Expect"]);
}

#[test]
fn brings_targets_to_one_form() {
    let cases = [
        ("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n", "/", "a.example"),
        ("GET http://a.example/x?y HTTP/1.1\r\nHost: A.example\r\n\r\n", "/x?y", "a.example"),
        ("GET HTTPS://a.example:443/ HTTP/1.1\r\nHost: a.example:443\r\n\r\n", "/", "a.example:443"),
        ("GET https://a.example HTTP/1.1\r\nHost: a.example\r\n\r\n", "/", "a.example"),
        ("OPTIONS * HTTP/1.1\r\nHost: a.example\r\n\r\n", "*", "a.example"),
        ("GET / HTTP/1.0\r\n\r\n", "/", ""),
        ("\r\nGET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", "/", "[::1]:80"),
    ];
    for (text, target, host) in cases {
        let read = request(text).unwrap_or_else(|error| panic!("{text:?}: {error}"));
        let head = text.strip_prefix("\r\n").unwrap_or(text).as_bytes();
        assert_eq!(
            (read.target.of(head), read.host.of(head)),
            (target.as_bytes(), host.as_bytes()),
            "{text:?}"
        );
    }
}

#[test]
fn knows_how_long_a_connection_lives() {
    let cases = [
        ("1.1", "", true),
        ("1.1", "Connection: close\r\n", false),
        ("1.1", "Connection: keep-alive, Close\r\n", false),
        ("1.0", "", false),
        ("1.0", "Connection: Keep-Alive\r\n", true),
    ];
    for (version, fields, persistent) in cases {
        let text = format!("GET / HTTP/{version}\r\nHost: a\r\n{fields}\r\n");
        assert_eq!(request(&text).unwrap().persistent, persistent, "{text:?}");
    }
}

#[test]
fn switches_to_other_protocols_but_not_to_http_2_in_the_clear() {
    let cases = [
        ("Upgrade: websocket\r\nConnection: Upgrade\r\n", Some("websocket")),
        ("Upgrade: websocket\r\n", None),
        ("Upgrade: h2c\r\nConnection: Upgrade\r\n", None),
        ("Upgrade: websocket, H2C\r\nConnection: Upgrade\r\n", None),
    ];
    for (fields, expected) in cases {
        let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let upgrade = request(&text).unwrap().upgrade;
        assert_eq!(upgrade.map(|span| span.of(text.as_bytes())), expected.map(str::as_bytes), "{text:?}");
    }
}

#[test]
fn an_extended_connect_names_one_protocol() {
    for (protocol, expected) in [
        ("websocket", true),
        ("connect-udp", true),
        ("h2c", false),
        ("H2C", false),
        ("", false),
        ("websocket, h2c", false),
        ("websocket\r\nX: y", false),
    ] {
        assert_eq!(may_become(protocol.as_bytes()), expected, "{protocol:?}");
    }
}

#[test]
fn refuses_what_two_readers_could_read_differently() {
    use Malformed as M;
    let line = |line: &str| format!("{line}\r\nHost: a\r\n\r\n");
    let field = |field: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n");
    let cases = [
        (line("GET  / HTTP/1.1"), M::StartLine),
        (line("GET / HTTP/1.1 "), M::StartLine),
        (line("GET /"), M::StartLine),
        (line(" GET / HTTP/1.1"), M::StartLine),
        (line("GET\t/\tHTTP/1.1"), M::StartLine),
        (line("GET / http/1.1"), M::StartLine),
        (line("GET / HTTP/1.10"), M::StartLine),
        (line("GET / HTTP/2.0"), M::Version),
        (line("GET / HTTP/1.2"), M::Version),
        (line("G(T / HTTP/1.1"), M::Method),
        (line("GET /\u{e9} HTTP/1.1"), M::Target),
        (line("GET /a#b HTTP/1.1"), M::Target),
        (line("GET a HTTP/1.1"), M::Target),
        (line("GET * HTTP/1.1"), M::Target),
        (line("CONNECT a:443 HTTP/1.1"), M::Target),
        (line("GET http://b/ HTTP/1.1"), M::HostDisagrees),
        (line("GET http://a@b/ HTTP/1.1"), M::Target),
        (line("OPTIONS http://a HTTP/1.1"), M::Target),
        (line("GET http://a?b HTTP/1.1"), M::Target),
        (line("GET ftp://a/ HTTP/1.1"), M::Target),
        (line("GET / HTTP/1.1\r"), M::BareCr),
        ("GET / HTTP/1.1\nHost: a\r\n\r\n".into(), M::BareLf),
        ("GET / HTTP/1.1\r\nHost: a\n\r\n".into(), M::BareLf),
        ("GET / HTTP/1.1\r\nHost: a\r\n\n".into(), M::BareLf),
        ("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n".into(), M::StartLine),
        ("GET / HTTP/1.1\r\n\r\n".into(), M::NoHost),
        ("GET / HTTP/1.1\r\n Host: a\r\n\r\n".into(), M::Folded),
        (field("Host: b"), M::RepeatedHost),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n".into(), M::RepeatedHost),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n".into(), M::Host),
        ("GET / HTTP/1.1\r\nHost:\r\n\r\n".into(), M::Host),
        ("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n".into(), M::Host),
        ("GET / HTTP/1.1\r\nHost: a:99999\r\n\r\n".into(), M::Host),
        ("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n".into(), M::Host),
        (field("X: 1\r\n folded"), M::Folded),
        (field("X : 1"), M::FieldName),
        (field("X\t: 1"), M::FieldName),
        (field(": 1"), M::FieldName),
        (field("X"), M::NoColon),
        (field("X: a\0b"), M::FieldValue),
        (field("X: a\rb"), M::BareCr),
        (field("X: a\x7fb"), M::FieldValue),
        (field("Content-Length: 1\r\nContent-Length: 1"), M::RepeatedLength),
        (field("Content-Length: 1\r\nContent-Length: 2"), M::RepeatedLength),
        (field("Content-Length: 1, 1"), M::RepeatedLength),
        (field("Content-Length: +1"), M::Length),
        (field("Content-Length: -1"), M::Length),
        (field("Content-Length: 0x1"), M::Length),
        (field("Content-Length: 1 1"), M::Length),
        (field("Content-Length:"), M::Length),
        (field("Content-Length: 9223372036854775808"), M::Length),
        (field("Content-Length: 99999999999999999999"), M::Length),
        (field("Content-Length: 1\r\nTransfer-Encoding: chunked"), M::LengthAndEncoding),
        (field("Transfer-Encoding: chunked\r\nContent-Length: 0"), M::LengthAndEncoding),
        (field("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"), M::Encoding),
        (field("Transfer-Encoding: chunked, chunked"), M::Encoding),
        (field("Transfer-Encoding: gzip, chunked"), M::Encoding),
        (field("Transfer-Encoding: identity"), M::Encoding),
        (field("Transfer-Encoding: xchunked"), M::Encoding),
        (field("Transfer-Encoding: \"chunked\""), M::Encoding),
        (field("Transfer-Encoding:"), M::Encoding),
        (field("Transfer_Encoding : chunked"), M::FieldName),
        ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".into(), M::EncodingInHttp10),
        (field("Connection: close, Content-Length\r\nContent-Length: 3"), M::Connection),
        (field("Connection: host"), M::Connection),
        (field("Connection: a b"), M::Connection),
    ];
    for (text, expected) in cases {
        assert_eq!(request(&text).err(), Some(expected), "{text:?}");
    }
}

#[test]
fn refuses_what_is_too_large() {
    let long = "a".repeat(1500);
    assert_eq!(
        request(&format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n")).err(),
        Some(Malformed::TargetTooLong(1024))
    );
    let many = "X: 1\r\n".repeat(20);
    assert_eq!(
        request(&format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n")).err(),
        Some(Malformed::TooManyFields(20))
    );
    let wide = format!("X: {}\r\n", "b".repeat(5000));
    assert_eq!(
        request(&format!("GET / HTTP/1.1\r\nHost: a\r\n{wide}\r\n")).err(),
        Some(Malformed::TooLarge(4096))
    );
    // Before the head is complete, too.
    assert_eq!(HeadEnd::default().find(&[b'a'; 4097], &LIMITS), Err(Malformed::TooLarge(4096)));
    assert_eq!(Malformed::TooLarge(1).status(), 431);
    assert_eq!(Malformed::TargetTooLong(1).status(), 414);
    assert_eq!(Malformed::Version.status(), 505);
    assert_eq!(Malformed::Encoding.status(), 501);
    assert_eq!(Malformed::BareLf.status(), 400);
}

#[test]
fn knows_how_a_response_ends() {
    let cases = [
        ("200 OK", "Content-Length: 3\r\n", false, Body::Length(3), true),
        ("200 OK", "Content-Length: 3\r\n", true, Body::None, true),
        ("200 OK", "Transfer-Encoding: chunked\r\n", false, Body::Chunked, true),
        ("200 OK", "", false, Body::UntilClose, false),
        ("204 No Content", "", false, Body::None, true),
        ("304 Not Modified", "Content-Length: 3\r\n", false, Body::None, true),
        ("103 Early Hints", "", false, Body::None, true),
        ("200", "Content-Length: 0\r\nConnection: close\r\n", false, Body::None, false),
    ];
    for (status, fields, to_head, body, persistent) in cases {
        let text = format!("HTTP/1.1 {status}\r\n{fields}\r\n");
        let read = response(&text, to_head).unwrap();
        assert_eq!((read.body, read.persistent), (body, persistent), "{text:?}");
    }
}

#[test]
fn refuses_responses_that_two_readers_could_read_differently() {
    use Malformed as M;
    let cases = [
        ("HTTP/1.1 20 OK\r\n\r\n", M::Status),
        ("HTTP/1.1 2000 OK\r\n\r\n", M::StartLine),
        ("HTTP/1.1  200 OK\r\n\r\n", M::Status),
        ("HTTP/1.1 2x0 OK\r\n\r\n", M::Status),
        ("HTTP/1.1 099 OK\r\n\r\n", M::Status),
        ("HTTP/1.1 200 O\x01K\r\n\r\n", M::StartLine),
        ("ICY 200 OK\r\n\r\n", M::StartLine),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", M::RepeatedLength),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", M::LengthAndEncoding),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", M::Encoding),
        ("HTTP/1.1 200 OK\nX: 1\r\n\r\n", M::BareLf),
    ];
    for (text, expected) in cases {
        assert_eq!(response(text, false).err(), Some(expected), "{text:?}");
    }
}

/// Content, trailers, what was left, and whether the body was over.
type Decoded = (Vec<u8>, Vec<u8>, Vec<u8>, bool);

/// Reads a whole body that arrives in these pieces: its content, its trailers and what was left.
fn decode(body: Body, pieces: &[&[u8]]) -> Result<Decoded, Malformed> {
    let mut decoder = Decoder::new(body, &LIMITS);
    let mut content = Vec::new();
    let mut held = Vec::new();
    for piece in pieces {
        held.extend_from_slice(piece);
        loop {
            match decoder.next(&held)? {
                Step::Content(len) => content.extend(held.drain(..len)),
                Step::Framing(len) => drop(held.drain(..len)),
                Step::NeedMore | Step::End => break,
            }
        }
    }
    Ok((content, decoder.trailers().to_vec(), held, decoder.is_done()))
}

#[test]
fn tells_content_from_framing() {
    let chunked = b"4;x=\"y\"\r\nWiki\r\n0005 \r\npedia\r\n0\r\nX-Sum: 1\r\n\r\nGET /";
    let (content, trailers, left, done) = decode(Body::Chunked, &[chunked]).unwrap();
    assert_eq!(content, b"Wikipedia");
    assert_eq!(trailers, b"X-Sum: 1\r\n");
    assert_eq!(left, b"GET /");
    assert!(done);
    let (content, _, left, done) = decode(Body::Length(3), &[b"ab", b"cd"]).unwrap();
    assert_eq!((content.as_slice(), left.as_slice(), done), (b"abc".as_slice(), b"d".as_slice(), true));
    let (content, _, _, done) = decode(Body::UntilClose, &[b"ab", b"cd"]).unwrap();
    assert_eq!((content.as_slice(), done), (b"abcd".as_slice(), false));
    assert!(decode(Body::None, &[b"x"]).unwrap().3);
}

#[test]
fn content_may_be_passed_on_without_a_look() {
    let mut decoder = Decoder::new(Body::Length(10), &LIMITS);
    assert_eq!(decoder.ahead(), 10);
    decoder.skip(4);
    assert_eq!((decoder.ahead(), decoder.next(b"abcdefgh")), (6, Ok(Step::Content(6))));
    assert!(decoder.is_done());
    decoder.skip(1);
    assert!(decoder.is_done());
    let mut decoder = Decoder::new(Body::Length(10), &LIMITS);
    decoder.skip(10);
    assert!(decoder.is_done());
    // In chunks, no more than to the end of one; what frames them is looked at.
    let mut decoder = Decoder::new(Body::Chunked, &LIMITS);
    assert_eq!(decoder.ahead(), 0);
    assert_eq!(decoder.next(b"5\r\n"), Ok(Step::Framing(3)));
    assert_eq!(decoder.ahead(), 5);
    decoder.skip(5);
    assert_eq!((decoder.ahead(), decoder.next(b"x")), (0, Err(Malformed::ChunkEnd)));
    let mut decoder = Decoder::new(Body::UntilClose, &LIMITS);
    decoder.skip(1_000);
    assert_eq!(decoder.ahead(), u64::MAX);
    assert!(decoder.ends_with_connection());
}

#[test]
fn refuses_malformed_chunks() {
    use Malformed as M;
    let cases: &[(&[u8], M)] = &[
        (b"\r\n", M::ChunkSize),
        (b"x\r\n", M::ChunkSize),
        (b"-1\r\n", M::ChunkSize),
        (b"0x1\r\n", M::ChunkSize),
        (b" 1\r\n", M::ChunkSize),
        (b"1\n", M::ChunkSize),
        (b"1\r\r\n", M::ChunkEnd),
        (b"1;a\nb\r\n", M::ChunkEnd),
        (b"1;\0\r\n", M::ChunkEnd),
        (b"1 0\r\n", M::ChunkEnd),
        (b"1\ta\r\n", M::ChunkEnd),
        (b"1000000000000000\r\n", M::ChunkSize),
        (b"2\r\nabc\r\n", M::ChunkEnd),
        (b"2\r\nab\n", M::ChunkEnd),
        (b"0\r\nX: 1\n\r\n", M::BareLf),
        (b"0\r\n folded\r\n\r\n", M::Folded),
        (b"0\r\nContent-Length: 1\r\n\r\n", M::Trailer),
        (b"0\r\nTransfer-Encoding: chunked\r\n\r\n", M::Trailer),
        (b"0\r\nHost: b\r\n\r\n", M::Trailer),
        (b"0\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n", M::Trailer),
        (b"0\r\nX : b\r\n\r\n", M::FieldName),
    ];
    for (body, expected) in cases {
        assert_eq!(
            decode(Body::Chunked, &[body]).err(),
            Some(*expected),
            "{:?}",
            String::from_utf8_lossy(body)
        );
    }
    let extensions = [b"1;".as_slice(), &[b'a'; 20_000]].concat();
    assert_eq!(decode(Body::Chunked, &[&extensions]).err(), Some(M::ChunkExtensions));
    for name in [
        "X_Real_IP",
        "x_forwarded_for",
        "Remote_User",
        "Client_Cert",
        "Content_Length",
        "X_Original-URL",
        "Proxy",
    ] {
        let trailers = format!("0\r\n{name}: 1\r\n\r\n");
        assert_eq!(decode(Body::Chunked, &[trailers.as_bytes()]).err(), Some(M::Trailer), "{name}");
    }
    let trailers = [b"0\r\n".as_slice(), &b"X: 1\r\n".repeat(1000)].concat();
    assert_eq!(decode(Body::Chunked, &[&trailers]).err(), Some(M::TooLarge(4096)));
}

#[test]
fn reads_authorities() {
    let cases = [
        ("a.example", Some(("a.example", None))),
        ("a.example:", Some(("a.example", None))),
        ("127.0.0.1:80", Some(("127.0.0.1", Some(80)))),
        ("[::1]", Some(("[::1]", None))),
        ("[::1]:443", Some(("[::1]", Some(443)))),
        ("", None),
        (":80", None),
        ("a:b", None),
        ("a:80:80", None),
        ("[::1", None),
        ("[x]", None),
        ("a%2eb", None),
        ("a/b", None),
        ("a?", None),
    ];
    for (text, expected) in cases {
        let expected = expected.map(|(host, port)| Authority { host, port });
        assert_eq!(Authority::parse(text.as_bytes()), expected, "{text:?}");
    }
    assert!(Authority::parse(b"A.Example.").unwrap().same_host("a.example"));
}

#[test]
fn writes_chunk_sizes() {
    for (size, text) in [(0, "0\r\n"), (15, "f\r\n"), (16, "10\r\n"), (65536, "10000\r\n")] {
        let mut out = Vec::new();
        write_chunk_size(&mut out, size);
        assert_eq!(out, text.as_bytes());
    }
}

proptest! {
    #[test]
    fn pieces_do_not_matter_to_a_body(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..6),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let mut body = Vec::new();
        for chunk in &chunks {
            write_chunk_size(&mut body, chunk.len());
            body.extend_from_slice(chunk);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(b"0\r\nA: b\r\n\r\nrest");
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(body.len())).collect();
        cuts.extend([0, body.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &body[pair[0]..pair[1]]).collect();
        let (content, trailers, left, done) = decode(Body::Chunked, &pieces).unwrap();
        prop_assert_eq!(content, chunks.concat());
        prop_assert_eq!(trailers, b"A: b\r\n");
        prop_assert_eq!(left, b"rest");
        prop_assert!(done);
    }

    #[test]
    fn pieces_do_not_matter_to_the_end_of_a_head(head in "[ -~]{0,30}(\r?\n){0,2}[ -~]{0,30}\r\n\r\n.{0,9}", cut in any::<prop::sample::Index>()) {
        let bytes = head.as_bytes();
        let whole = HeadEnd::default().find(bytes, &LIMITS);
        let mut end = HeadEnd::default();
        let cut = cut.index(bytes.len());
        let split = match end.find(&bytes[..cut], &LIMITS) {
            Ok(None) => end.find(bytes, &LIMITS),
            decided => decided,
        };
        prop_assert_eq!(whole, split);
    }

    #[test]
    fn nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(Some(head)) = HeadEnd::default().find(&bytes, &LIMITS) {
            let head = &bytes[head];
            let mut request = Request::default();
            if request.parse(head, &LIMITS).is_ok() {
                prop_assert!(Authority::parse(request.host.of(head)).is_some() || request.version == Version::Http10);
            }
            Response::default().parse(head, false, &LIMITS).ok();
        }
        decode(Body::Chunked, &[&bytes]).ok();
    }
}
