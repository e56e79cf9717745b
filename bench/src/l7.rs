//! The rows of the HTTP path.

use clap::ValueEnum;

use crate::cell::Row;
use crate::suite::Rows;

/// Rows of the HTTP path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum L7 {
    /// Full TLS 1.3 handshake and a GET.
    #[value(name = "handshake")]
    Handshake,
    /// The same with a resumed session.
    #[value(name = "resumed")]
    Resumed,
    /// HTTP/1.1 requests on connections that stay.
    #[value(name = "h1")]
    Http1,
    /// HTTP/2 requests.
    #[value(name = "h2")]
    Http2,
    /// Large bodies.
    #[value(name = "bodies")]
    Bodies,
    /// Memory of idle connections.
    #[value(name = "idle-l7")]
    Idle,
}

impl Rows for L7 {
    const SUITE: &'static str = "l7";

    fn rows(&self) -> Vec<Row> {
        vec![match self {
            Self::Handshake => Row::Handshake,
            Self::Resumed => Row::Resumed,
            Self::Http1 => Row::Http1,
            Self::Http2 => Row::Http2,
            Self::Bodies => Row::Bodies,
            Self::Idle => Row::IdleHttp,
        }]
    }
}
