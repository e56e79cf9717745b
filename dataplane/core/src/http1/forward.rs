//! Heads as they are passed on: without what was meant for one connection, with what the backend must know about
//! the client (RFC 9110, section 7.6; RFC 7239).

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::field::{Known, Section};
use super::{Request, Response, Version, reason, write_status_line};

/// What backends are told about clients. Backends believe these fields, so what a client says in them itself counts
/// only where the operator trusts it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Forwarded {
    /// What we know, instead of what the client says.
    #[default]
    Set,
    /// What we know, after what the client says: for an edge behind another proxy.
    Append,
    /// Nothing.
    Strip,
}

/// What is known of a request besides its head.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The true client.
    pub client: IpAddr,
    /// `host` or `host:port` as the client asked for it.
    pub host: &'a [u8],
    /// Names the request in every log on its way.
    pub request_id: &'a str,
    /// How the backend is told.
    pub forwarded: Forwarded,
    /// What the client itself says in fields such as `X-Original-URL` and `Remote-User` passes.
    pub pass_identity_fields: bool,
    /// The client's verified certificate as `Client-Cert` has it (RFC 9440).
    pub client_cert: Option<&'a [u8]>,
}

/// The first line of a request that is passed on.
#[derive(Clone, Copy, Debug)]
pub struct RequestLine<'a> {
    /// The method.
    pub method: &'a [u8],
    /// Path and query, or `*`.
    pub target: &'a [u8],
}

/// How the body that follows a head is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing<'a> {
    /// It has no body and says nothing about one.
    None,
    /// `Content-Length` with this value, as it was written.
    Length(&'a [u8]),
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// It ends with the connection.
    UntilClose,
}

/// Writes a request's head for an HTTP/1.1 backend. `fields` are those of the client's request; those for one
/// connection are left out here. `upgrade`: the protocol that the client wants to switch to.
pub fn write_request<'a>(
    out: &mut Vec<u8>,
    line: RequestLine<'_>,
    framing: Framing<'_>,
    upgrade: Option<&[u8]>,
    facts: &Facts<'_>,
    fields: impl Iterator<Item = (Known, &'a [u8], &'a [u8])>,
) {
    for part in [line.method, b" ", line.target, b" HTTP/1.1\r\n"] {
        out.extend_from_slice(part);
    }
    put(out, b"Host", facts.host);
    for_backend(fields, facts, |name, value| put(out, name, value));
    write_framing(out, framing);
    if let Some(upgrade) = upgrade {
        put(out, b"Connection", b"upgrade");
        put(out, b"Upgrade", upgrade);
    }
    out.extend_from_slice(b"\r\n");
}

/// The fields of a request as its backend gets them, in any version of HTTP: those of the client that go further, and
/// those that say who it is. `Host` and what frames the body are the caller's.
pub fn for_backend<'a>(
    fields: impl Iterator<Item = (Known, &'a [u8], &'a [u8])>,
    facts: &Facts<'_>,
    mut put: impl FnMut(&[u8], &[u8]),
) {
    let mut before = Before::default();
    for (known, name, value) in fields {
        match known {
            Known::Host | Known::ContentLength | Known::XRequestId => {}
            // Ours to say, never the client's (RFC 9440, section 4).
            Known::ClientCert | Known::ClientCertChain => {}
            Known::Forwarded => before.forwarded.push(value),
            Known::XForwardedFor => before.addresses.push(value),
            Known::XForwardedHost => before.host = before.host.or(Some(value)),
            Known::XForwardedProto => before.proto = before.proto.or(Some(value)),
            Known::XRealIp | Known::Identity if facts.pass_identity_fields => put(name, value),
            Known::XRealIp => before.real_ip = before.real_ip.or(Some(value)),
            Known::Identity => {}
            known if known.is_hop_by_hop() => {}
            // To some applications these are the fields above.
            Known::Other if is_disguised(name, facts) => {}
            // A policy's, whose word counts for more than ours.
            Known::Other if name.eq_ignore_ascii_case(b"x-real-ip") => {
                before.has_real_ip = true;
                put(name, value);
            }
            _ => put(name, value),
        }
    }
    before.tell(facts, &mut put);
    put(b"x-request-id", facts.request_id.as_bytes());
    if let Some(certificate) = facts.client_cert {
        put(b"client-cert", certificate);
    }
}

/// Whether a field's name stands for another that is not passed on as the client says it.
fn is_disguised(name: &[u8], facts: &Facts<'_>) -> bool {
    match Known::disguised(name) {
        Known::Other => false,
        Known::XRealIp | Known::Identity => !facts.pass_identity_fields,
        _ => true,
    }
}

/// Writes a response's head for an HTTP/1.1 client. `words`: what its status is called, where the backend has said so.
/// `fields`: those of the backend's that go further. `connection`: what it says besides, `close` or `keep-alive`.
/// `upgrade`: the protocol that a 101 switches to.
pub fn write_response<'a>(
    out: &mut Vec<u8>,
    status: u16,
    words: &[u8],
    fields: impl Iterator<Item = (Known, &'a [u8], &'a [u8])>,
    framing: Framing<'_>,
    connection: Option<&[u8]>,
    upgrade: Option<&[u8]>,
) {
    let words = if words.is_empty() { reason(status).as_bytes() } else { words };
    write_status_line(out, status, words);
    for (_, name, value) in fields {
        put(out, name, value);
    }
    write_framing(out, framing);
    if let Some(upgrade) = upgrade {
        put(out, b"Upgrade", upgrade);
        put(out, b"Connection", b"upgrade");
    } else if let Some(connection) = connection {
        put(out, b"Connection", connection);
    }
    out.extend_from_slice(b"\r\n");
}

impl Section {
    /// The fields that go further than this connection, `Content-Length` left out: framing is made anew.
    pub fn end_to_end<'a>(
        &'a self,
        head: &'a [u8],
    ) -> impl Iterator<Item = (Known, &'a [u8], &'a [u8])> + 'a {
        self.fields
            .iter()
            .filter(|field| field.known != Known::ContentLength && !self.is_hop_by_hop(field, head))
            .map(|field| (field.known, field.name.of(head), field.value.of(head)))
    }
}

impl Request {
    /// How its body is framed, to be passed on as it is.
    #[must_use]
    pub fn framing<'a>(&self, head: &'a [u8]) -> Framing<'a> {
        framing(&self.section, head, self.body)
    }
}

impl Response {
    /// How its body is framed for a client that speaks `version`.
    #[must_use]
    pub fn framing<'a>(&self, head: &'a [u8], version: Version) -> Framing<'a> {
        if self.is_informational() || self.status == 204 {
            // RFC 9110, section 8.6: these say nothing about a length, whatever a backend thinks.
            return Framing::None;
        }
        match framing(&self.section, head, self.body) {
            Framing::Chunked if version == Version::Http10 => Framing::UntilClose,
            framing => framing,
        }
    }
}

fn framing<'a>(section: &Section, head: &'a [u8], body: super::Body) -> Framing<'a> {
    match body {
        super::Body::Chunked => Framing::Chunked,
        super::Body::UntilClose => Framing::UntilClose,
        // Also without a body: the length that a HEAD or a 304 tells, and the 0 of a POST.
        super::Body::None | super::Body::Length(_) => match section.single(Known::ContentLength) {
            Ok(Some(length)) => Framing::Length(length.of(head)),
            _ => Framing::None,
        },
    }
}

fn write_framing(out: &mut Vec<u8>, framing: Framing<'_>) {
    match framing {
        Framing::None | Framing::UntilClose => {}
        Framing::Length(length) => put(out, b"Content-Length", length),
        Framing::Chunked => put(out, b"Transfer-Encoding", b"chunked"),
    }
}

fn put(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// What the client said about itself, or a proxy before us.
#[derive(Default)]
struct Before<'a> {
    forwarded: Vec<&'a [u8]>,
    addresses: Vec<&'a [u8]>,
    host: Option<&'a [u8]>,
    proto: Option<&'a [u8]>,
    real_ip: Option<&'a [u8]>,
    /// `X-Real-IP` was passed on already: a policy has set it.
    has_real_ip: bool,
}

impl Before<'_> {
    fn tell(&self, facts: &Facts<'_>, put: &mut impl FnMut(&[u8], &[u8])) {
        if facts.forwarded == Forwarded::Strip {
            return;
        }
        let append = facts.forwarded == Forwarded::Append;
        let client = facts.client.to_canonical();
        // Once: writing an address costs more than the rest of this.
        let address = client.to_string();
        let mut value = Vec::with_capacity(128);
        let begin = |value: &mut Vec<u8>, before: &[&[u8]]| {
            value.clear();
            for before in before.iter().filter(|before| append && !before.is_empty()) {
                value.extend_from_slice(before);
                value.extend_from_slice(b", ");
            }
        };
        begin(&mut value, &self.addresses);
        value.extend_from_slice(address.as_bytes());
        put(b"x-forwarded-for", &value);
        if !facts.pass_identity_fields && !self.has_real_ip {
            put(b"x-real-ip", self.real_ip.filter(|_| append).unwrap_or(address.as_bytes()));
        }
        put(b"x-forwarded-proto", self.proto.filter(|_| append).unwrap_or(b"https"));
        put(b"x-forwarded-host", self.host.filter(|_| append).unwrap_or(facts.host));
        begin(&mut value, &self.forwarded);
        // RFC 7239, section 6: IPv6 in brackets, and so in quotes.
        let (before, after) = if client.is_ipv4() { ("for=", "") } else { ("for=\"[", "]\"") };
        for part in [before, &address, after] {
            value.extend_from_slice(part.as_bytes());
        }
        value.extend_from_slice(b";proto=https;host=\"");
        value.extend_from_slice(facts.host);
        value.push(b'"');
        put(b"forwarded", &value);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Limits;
    use super::*;

    const HEAD: &str = "POST /x HTTP/1.1\r\nHost: a.example\r\nX-Forwarded-For: 9.9.9.9\r\nforwarded: for=9.9.9.9\r\n\
                        Connection: close, X-Private\r\nX-Private: 1\r\nKeep-Alive: 5\r\nTE: trailers\r\n\
                        Content-Length: 0\r\nX-Request-Id: theirs\r\nCookie: c=1\r\n\r\n";

    fn facts(client: &str, forwarded: Forwarded) -> Facts<'static> {
        Facts {
            client: client.parse().unwrap(),
            host: b"a.example",
            request_id: "ours",
            forwarded,
            pass_identity_fields: false,
            client_cert: None,
        }
    }

    fn forward(forwarded: Forwarded) -> String {
        let head = HEAD.as_bytes();
        let mut request = Request::default();
        request.parse(head, &Limits::default()).unwrap();
        let facts = facts("::ffff:192.0.2.1", forwarded);
        let mut out = Vec::new();
        let line = RequestLine { method: b"POST", target: b"/x" };
        write_request(&mut out, line, request.framing(head), None, &facts, request.section.end_to_end(head));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn says_who_the_client_is_and_nothing_of_the_connection() {
        assert_eq!(
            forward(Forwarded::Set),
            "POST /x HTTP/1.1\r\nHost: a.example\r\nCookie: c=1\r\n\
             x-forwarded-for: 192.0.2.1\r\nx-real-ip: 192.0.2.1\r\nx-forwarded-proto: https\r\nx-forwarded-host: a.example\r\n\
             forwarded: for=192.0.2.1;proto=https;host=\"a.example\"\r\nx-request-id: ours\r\n\
             Content-Length: 0\r\n\r\n"
        );
    }

    #[test]
    fn what_applications_take_for_our_fields_is_left_out() {
        let facts = facts("192.0.2.1", Forwarded::Append);
        let names = [
            "Client_Cert",
            "client_cert-chain",
            "X_Forwarded_For",
            "x-forwarded_proto",
            "X_Request_ID",
            "Content_Length",
            "Transfer_Encoding",
            "FORWARDED_",
            "X_Real_IP",
            "X_Auth_Request_User",
            "SSL_CLIENT_VERIFY",
            "X_Other",
            "_",
        ];
        let fields = names.iter().map(|name| (Known::of(name.as_bytes()), name.as_bytes(), b"1".as_slice()));
        let mut passed = Vec::new();
        for_backend(fields, &facts, |name, _value| passed.push(String::from_utf8_lossy(name).into_owned()));
        let kept: Vec<_> = passed.iter().filter(|name| name.contains('_')).collect();
        assert_eq!(kept, ["FORWARDED_", "X_Other", "_"]);
    }

    #[test]
    fn appends_to_what_a_trusted_proxy_said() {
        let text = forward(Forwarded::Append);
        assert!(text.contains("x-forwarded-for: 9.9.9.9, 192.0.2.1\r\n"), "{text}");
        assert!(text.contains("forwarded: for=9.9.9.9, for=192.0.2.1;proto=https"), "{text}");
    }

    #[test]
    fn clients_do_not_say_who_they_are() {
        let names = [
            "Proxy",
            "Remote-User",
            "True-Client-IP",
            "X-Auth-Request-Preferred-Username-Which-Is-Long",
            "X-Forwarded-Client-Cert",
            "X-Forwarded-Port",
            "X-ORIGINAL-URL",
            "x-real-ip",
            "X-SSL-Client-Verify",
            "X_Original_URL",
            "X-Requested-With",
            "Proxy-Status",
            "Remote-Users",
            "Referer",
        ];
        let mut facts = facts("192.0.2.1", Forwarded::Set);
        let passed = |facts: &Facts<'_>| {
            let mut passed = Vec::new();
            let fields =
                names.iter().map(|name| (Known::of(name.as_bytes()), name.as_bytes(), b"theirs".as_slice()));
            for_backend(fields, facts, |name, value| {
                if value == b"theirs" {
                    passed.push(String::from_utf8_lossy(name).into_owned());
                }
            });
            passed
        };
        assert_eq!(passed(&facts), names[10..]);
        facts.forwarded = Forwarded::Append;
        assert_eq!(passed(&facts), [&names[10..], &["x-real-ip"]].concat(), "the trusted proxy's");
        facts.pass_identity_fields = true;
        assert_eq!(passed(&facts), names);
    }

    #[test]
    fn a_policy_says_more_than_we_do() {
        let facts = facts("192.0.2.1", Forwarded::Set);
        let fields = [("X-Real-IP", "203.0.113.1"), ("Remote-User", "guest")]
            .map(|(name, value)| (Known::Other, name.as_bytes(), value.as_bytes()));
        let mut passed = Vec::new();
        for_backend(fields.into_iter(), &facts, |name, value| {
            passed.push((name.to_ascii_lowercase(), value.to_vec()))
        });
        let values = |wanted: &str| -> Vec<_> {
            passed
                .iter()
                .filter(|(name, _)| name == wanted.as_bytes())
                .map(|(_, value)| String::from_utf8_lossy(value))
                .collect()
        };
        assert_eq!(
            (values("x-real-ip"), values("remote-user")),
            (vec!["203.0.113.1".into()], vec!["guest".into()])
        );
    }

    #[test]
    fn strips_where_the_backend_is_to_know_nothing() {
        let text = forward(Forwarded::Strip);
        assert!(!text.to_lowercase().contains("forwarded") && !text.contains("x-real-ip"), "{text}");
    }

    #[test]
    fn passes_responses_on() {
        let head = b"HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nETag: \"a\"\r\n\r\n";
        let mut response = Response::default();
        response.parse(head, false, &Limits::default()).unwrap();
        let mut out = Vec::new();
        let fields = response.section.end_to_end(head);
        let framing = response.framing(head, Version::Http11);
        let words = response.reason.of(head);
        write_response(&mut out, response.status, words, fields, framing, Some(b"close"), None);
        let expected =
            "HTTP/1.1 200 OK\r\nETag: \"a\"\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
        assert_eq!(response.framing(head, Version::Http10), Framing::UntilClose);
        let head = b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n";
        response.parse(head, false, &Limits::default()).unwrap();
        assert_eq!(response.framing(head, Version::Http11), Framing::None);
    }
}
