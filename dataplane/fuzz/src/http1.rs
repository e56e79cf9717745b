//! HTTP/1.1: pieces do not matter, another parser reads the same, and what is passed on says the same once more.
//!
//! Input: the bytes of a client's connection. Its first head is read as a request, what follows as its body, and the
//! whole once more as a response.

use mc_core::http1::{
    Authority, Body, Decoder, Facts, Forwarded, HeadEnd, Limits, Malformed, Request, RequestLine, Response,
    Step, write_request,
};

const LIMITS: Limits = Limits { head_bytes: 4096, target_bytes: 2048, fields: 50 };

/// Checks one input.
pub fn check(input: &[u8]) {
    let head = HeadEnd::default().find(input, &LIMITS);
    check_prefixes(input, &head);
    let Ok(Some(head)) = head else { return };
    let (rest, head) = (&input[head.end..], &input[head]);
    let mut request = Request::default();
    if request.parse(head, &LIMITS).is_ok() {
        check_other_parser(head, &request);
        check_passed_on(head, &request);
        check_body(request.body, rest);
    }
    let mut response = Response::default();
    if response.parse(head, false, &LIMITS).is_ok() {
        check_body(response.body, rest);
    }
    check_body(Body::Chunked, input);
}

/// The first prefix that says anything says what the whole says.
fn check_prefixes(input: &[u8], whole: &Result<Option<std::ops::Range<usize>>, Malformed>) {
    let mut end = HeadEnd::default();
    for len in 0..=input.len() {
        match end.find(&input[..len], &LIMITS) {
            Ok(None) => {}
            // Too long is known before the end is.
            Err(Malformed::TooLarge(_)) => return,
            decided => return assert_eq!(decided, *whole, "{len} bytes"),
        }
    }
    assert_eq!(*whole, Ok(None));
}

/// What we accept, another reader accepts too, and reads the same names and values.
fn check_other_parser(head: &[u8], request: &Request) {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut other = httparse::Request::new(&mut fields);
    let status = other.parse(head).expect("what we accept others accept");
    assert_eq!(status, httparse::Status::Complete(head.len()), "others read more or less");
    assert_eq!(other.method.map(str::as_bytes), Some(request.method.of(head)));
    let ours = request.section.fields();
    assert_eq!(ours.len(), other.headers.len());
    for (ours, theirs) in ours.iter().zip(other.headers.iter()) {
        assert_eq!(ours.name.of(head), theirs.name.as_bytes());
        assert_eq!(ours.value.of(head), theirs.value);
    }
}

/// What is passed on is one request, with the same meaning, and nothing of the client's connection.
fn check_passed_on(head: &[u8], request: &Request) {
    let host = if request.host.is_empty() { b"a.example" } else { request.host.of(head) };
    let facts = Facts {
        client: [192, 0, 2, 1].into(),
        host,
        request_id: "id",
        forwarded: Forwarded::Set,
        pass_identity_fields: false,
        client_cert: None,
    };
    let line = RequestLine { method: request.method.of(head), target: request.target.of(head) };
    let mut out = Vec::new();
    let passed = passed(request, head);
    write_request(&mut out, line, request.framing(head), None, &facts, passed.iter().copied());
    let found = HeadEnd::default().find(&out, &Limits { head_bytes: 16 * 1024, ..LIMITS });
    assert_eq!(found, Ok(Some(0..out.len())), "{}", String::from_utf8_lossy(&out));
    let mut again = Request::default();
    again.parse(&out, &Limits { fields: 100, ..LIMITS }).expect("what is passed on is a request");
    assert_eq!(again.method.of(&out), line.method);
    assert_eq!(again.target.of(&out), line.target);
    assert_eq!(again.body, request.body);
    assert!(Authority::parse(again.host.of(&out)).is_some());
    for field in again.section.fields() {
        let name = field.name.of(&out);
        let meant = request.section.fields().iter().any(|field| {
            request.section.is_hop_by_hop(field, head) && field.name.of(head).eq_ignore_ascii_case(name)
        });
        let ours = name.starts_with(b"x-forwarded-")
            || [b"forwarded".as_slice(), b"x-real-ip", b"x-request-id"].contains(&name);
        let framing = name == b"Transfer-Encoding";
        assert!(!meant || ours || framing, "{} is passed on", String::from_utf8_lossy(name));
    }
}

type Fields<'a> = Vec<(mc_core::http1::Known, &'a [u8], &'a [u8])>;

fn passed<'a>(request: &'a Request, head: &'a [u8]) -> Fields<'a> {
    #[cfg(not(feature = "planted"))]
    return request.section.end_to_end(head).collect();
    // The planted bug: what `Connection` names is passed on.
    #[cfg(feature = "planted")]
    return request
        .section
        .fields()
        .iter()
        .map(|field| (field.known, field.name.of(head), field.value.of(head)))
        .collect();
}

/// A body's content does not depend on the pieces that it comes in, and what was taken of it is a body of the same
/// content.
fn check_body(body: Body, bytes: &[u8]) {
    let whole = decode(body, &[bytes]);
    let pieces: Vec<&[u8]> = bytes.chunks(1).collect();
    assert_eq!(decode(body, &pieces), whole);
    if let Ok((content, used, true)) = &whole
        && body == Body::Chunked
    {
        let again = decode(body, &[&bytes[..*used]]).expect("what was taken is a body");
        assert_eq!((&again.0, again.1, again.2), (content, *used, true));
    }
}

/// Content, bytes taken, and whether it is over.
fn decode(body: Body, pieces: &[&[u8]]) -> Result<(Vec<u8>, usize, bool), Malformed> {
    let mut decoder = Decoder::new(body, &LIMITS);
    let (mut content, mut held, mut used) = (Vec::new(), Vec::new(), 0);
    for piece in pieces {
        held.extend_from_slice(piece);
        loop {
            let taken = match decoder.next(&held)? {
                Step::Content(len) => {
                    content.extend_from_slice(&held[..len]);
                    len
                }
                Step::Framing(len) => len,
                Step::NeedMore | Step::End => break,
            };
            assert!(taken > 0, "no step takes nothing");
            held.drain(..taken);
            used += taken;
        }
    }
    Ok((content, used, decoder.is_done()))
}
