//! The lines of requests: what the log of a connection cannot tell once it speaks HTTP.

use std::net::SocketAddr;

use mc_core::outcome::RequestOutcome;

use super::{address, decimal, escaped, field, hex, numbers, time};

/// A request that is over.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// What backends and other logs call it.
    pub id: &'a str,
    /// The id of its connection.
    pub connection: u64,
    /// When it ended, in milliseconds since 1970.
    pub unix_ms: u64,
    /// The true client.
    pub client: SocketAddr,
    /// The listener's name.
    pub listener: &'a str,
    /// The route's name; empty where there is none.
    pub route: &'a str,
    /// The last backend that was tried.
    pub backend: Option<SocketAddr>,
    /// `HTTP/1.1`, `HTTP/2.0`.
    pub protocol: &'a str,
    /// The method; empty where it could not be read.
    pub method: &'a [u8],
    /// The host that was asked for.
    pub host: &'a [u8],
    /// Path and query.
    pub target: &'a [u8],
    /// `User-Agent`.
    pub user_agent: &'a [u8],
    /// `Referer`.
    pub referer: &'a [u8],
    /// SHA-256 of the client's verified certificate, in hexadecimal; empty where the route asks for none.
    pub client_cert: &'a str,
    /// The status that the client was told; 0 where it was told nothing.
    pub status: u16,
    /// How it ended.
    pub outcome: RequestOutcome,
    /// What was wrong; empty where nothing was.
    pub detail: &'a str,
    /// Bytes of the request's body, its framing included.
    pub bytes_in: u64,
    /// Bytes of the response's body, its framing included.
    pub bytes_out: u64,
    /// Phases, in microseconds; 0 where it did not come so far.
    pub times: Times,
}

/// How long the phases of a request took, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// From the complete head to a backend's connection.
    pub connect_us: u64,
    /// From there to the response's complete head.
    pub response_us: u64,
    /// From the complete head of the request to the end of everything.
    pub duration_us: u64,
}

/// One JSON object and a line feed.
pub(super) fn json(record: &Request<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"time\":\"");
    time(record.unix_ms, out);
    out.extend_from_slice(b"\",\"request\":\"");
    escaped(record.id.as_bytes(), out);
    out.extend_from_slice(b"\",\"id\":\"");
    hex(record.connection, out);
    out.extend_from_slice(b"\",\"client\":\"");
    address(record.client, out);
    field("listener", record.listener.as_bytes(), out);
    field("route", record.route.as_bytes(), out);
    if let Some(backend) = record.backend {
        out.extend_from_slice(b"\",\"backend\":\"");
        address(backend, out);
    }
    field("protocol", record.protocol.as_bytes(), out);
    field("method", record.method, out);
    field("host", record.host, out);
    field("target", record.target, out);
    field("user_agent", record.user_agent, out);
    field("referer", record.referer, out);
    field("client_cert", record.client_cert.as_bytes(), out);
    field("outcome", record.outcome.as_str().as_bytes(), out);
    field("detail", record.detail.as_bytes(), out);
    out.push(b'"');
    let counted = [
        ("status", record.status.into()),
        ("bytes_in", record.bytes_in),
        ("bytes_out", record.bytes_out),
        ("connect_us", record.times.connect_us),
        ("response_us", record.times.response_us),
        ("duration_us", record.times.duration_us),
    ];
    numbers(&counted, out);
}

/// The "combined" line that every tool for web logs reads, and after it what we know besides: outcome, backend,
/// request id, microseconds.
pub(super) fn combined(record: &Request<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(record.client.ip().to_canonical().to_string().as_bytes());
    out.extend_from_slice(b" - - [");
    time(record.unix_ms, out);
    out.extend_from_slice(b"] \"");
    for (index, word) in [record.method, record.target, record.protocol.as_bytes()].into_iter().enumerate() {
        if index > 0 {
            out.push(b' ');
        }
        escaped(if word.is_empty() { b"-" } else { word }, out);
    }
    out.extend_from_slice(b"\" ");
    decimal(record.status.into(), out);
    out.push(b' ');
    decimal(record.bytes_out, out);
    for word in [record.referer, record.user_agent] {
        out.extend_from_slice(b" \"");
        escaped(if word.is_empty() { b"-" } else { word }, out);
        out.push(b'"');
    }
    out.push(b' ');
    out.extend_from_slice(record.outcome.as_str().as_bytes());
    out.push(b' ');
    match record.backend {
        Some(backend) => address(backend, out),
        None => out.push(b'-'),
    }
    out.push(b' ');
    escaped(record.id.as_bytes(), out);
    out.push(b' ');
    decimal(record.times.duration_us, out);
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Request<'static> {
        Request {
            id: "00000000000000ff-1",
            connection: 255,
            unix_ms: 0,
            client: "192.0.2.1:5".parse().unwrap(),
            listener: "web",
            route: "a.example",
            backend: Some("192.0.2.9:80".parse().unwrap()),
            protocol: "HTTP/1.1",
            method: b"GET",
            host: b"a.example",
            target: b"/x\"\n",
            user_agent: b"",
            referer: b"",
            client_cert: "",
            status: 200,
            outcome: RequestOutcome::Completed,
            detail: "",
            bytes_in: 1,
            bytes_out: 2,
            times: Times { connect_us: 3, response_us: 4, duration_us: 5 },
        }
    }

    #[test]
    fn json_is_one_object() {
        let mut line = Vec::new();
        json(&record(), &mut line);
        let read: serde_json::Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(read["target"], "/x\"\n");
        assert_eq!((read["status"].as_u64(), read["duration_us"].as_u64()), (Some(200), Some(5)));
        assert_eq!(read.get("user_agent"), None);
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
    }

    #[test]
    fn combined_is_what_web_logs_are() {
        let mut line = Vec::new();
        combined(&record(), &mut line);
        assert_eq!(
            String::from_utf8(line).unwrap(),
            "192.0.2.1 - - [1970-01-01T00:00:00.000Z] \"GET /x\\\"\\u000a HTTP/1.1\" 200 2 \"-\" \"-\" completed \
             192.0.2.9:80 00000000000000ff-1 5\n"
        );
    }
}
