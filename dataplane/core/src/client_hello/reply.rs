//! What a refused client is told before its connection is closed: a TLS alert, or a 400 where it spoke HTTP.
//!
//! An alert before the handshake is a plaintext record of two bytes (RFC 8446, sections 5.1 and 6), which
//! clients turn into a message that a person can act on; a bare close they report as a network failure, and
//! many try again at once.

use super::{HelloError, Malformed};
use crate::outcome::Outcome;

/// A fatal alert (RFC 8446, section 6.2; RFC 6066, section 9). The number is its description on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Alert {
    /// A message that has no place here.
    UnexpectedMessage = 10,
    /// A record too long.
    RecordOverflow = 22,
    /// A field is well-formed but wrong, or contradicts another.
    IllegalParameter = 47,
    /// The client may not connect: firewall or rate.
    AccessDenied = 49,
    /// A message could not be read, or its length is out of range.
    DecodeError = 50,
    /// What was spoken is no TLS that this side knows.
    ProtocolVersion = 70,
    /// Trouble that is not the client's: no backend, no capacity.
    InternalError = 80,
    /// No service under that name.
    UnrecognizedName = 112,
}

impl Alert {
    /// The alert as the TLS record to send.
    #[must_use]
    pub const fn record(self) -> &'static [u8; 7] {
        const fn fatal(alert: Alert) -> [u8; 7] {
            [21, 3, 3, 0, 2, 2, alert as u8]
        }
        match self {
            Self::UnexpectedMessage => &const { fatal(Self::UnexpectedMessage) },
            Self::RecordOverflow => &const { fatal(Self::RecordOverflow) },
            Self::IllegalParameter => &const { fatal(Self::IllegalParameter) },
            Self::AccessDenied => &const { fatal(Self::AccessDenied) },
            Self::DecodeError => &const { fatal(Self::DecodeError) },
            Self::ProtocolVersion => &const { fatal(Self::ProtocolVersion) },
            Self::InternalError => &const { fatal(Self::InternalError) },
            Self::UnrecognizedName => &const { fatal(Self::UnrecognizedName) },
        }
    }
}

impl HelloError {
    /// The bytes to send before the connection is closed.
    #[must_use]
    pub const fn reply(&self) -> &'static [u8] {
        match self {
            Self::Malformed(why) => why.alert().record(),
            // "The length of the message was incorrect"; record_overflow is about a single record.
            Self::TooLarge { .. } => Alert::DecodeError.record(),
            Self::NotTls => Alert::ProtocolVersion.record(),
            Self::PlainHttp => PLAIN_HTTP.as_bytes(),
        }
    }
}

impl Malformed {
    /// The alert that says it to the client.
    #[must_use]
    pub const fn alert(&self) -> Alert {
        match self {
            Self::NotHandshake(_) | Self::NotClientHello(_) | Self::EmptyRecord | Self::DataAfterHello => {
                Alert::UnexpectedMessage
            }
            Self::RecordTooLong(_) => Alert::RecordOverflow,
            Self::DuplicateExtension(_)
            | Self::NoHostName
            | Self::SeveralHostNames
            | Self::BadHostName(_) => Alert::IllegalParameter,
            Self::RecordVersion(_) | Self::Truncated(_) | Self::BadLength(_) => Alert::DecodeError,
        }
    }
}

/// The bytes to send to a client whose connection ends so before anything was relayed; `None`: just close.
///
/// No reply where the peer is a proxy that broke the PROXY protocol, where it was too slow to know what it
/// speaks, and where something was relayed already. For errors of the hello itself [`HelloError::reply`]
/// says more.
#[must_use]
pub const fn reply(outcome: Outcome) -> Option<&'static [u8]> {
    let alert = match outcome {
        Outcome::NoRoute | Outcome::NoCertificate => Alert::UnrecognizedName,
        Outcome::HelloTooLarge | Outcome::HelloMalformed => Alert::DecodeError,
        Outcome::NotTls => Alert::ProtocolVersion,
        Outcome::PlainHttp => return Some(PLAIN_HTTP.as_bytes()),
        Outcome::DeniedCidr
        | Outcome::DeniedAsn
        | Outcome::DeniedCountry
        | Outcome::DeniedDefault
        | Outcome::RateAddress
        | Outcome::RatePrefix
        | Outcome::SourceLimit => Alert::AccessDenied,
        Outcome::RouteLimit
        | Outcome::NoBackend
        | Outcome::ConnectFailed
        | Outcome::ConnectTimeout
        | Outcome::Overload
        | Outcome::HoldLimit => Alert::InternalError,
        Outcome::Completed
        | Outcome::ClientReset
        | Outcome::BackendReset
        | Outcome::IdleTimeout
        | Outcome::TotalTimeout
        | Outcome::Killed
        | Outcome::Drained
        // rustls has said why.
        | Outcome::TlsFailed
        | Outcome::HelloTimeout
        | Outcome::HelloIncomplete
        | Outcome::ProxyMissing
        | Outcome::ProxyInvalid
        | Outcome::ProxyUntrusted => return None,
    };
    Some(alert.record())
}

/// The answer to HTTP without TLS.
pub const PLAIN_HTTP: &str = "HTTP/1.1 400 Bad Request\r\n\
    Content-Type: text/plain\r\n\
    Content-Length: 40\r\n\
    Connection: close\r\n\
    \r\n\
    This port speaks TLS: use https instead\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alerts_are_fatal_plaintext_records() {
        assert_eq!(Alert::UnrecognizedName.record(), &[21, 3, 3, 0, 2, 2, 112]);
        assert_eq!(reply(Outcome::NoRoute), Some(&[21, 3, 3, 0, 2, 2, 112][..]));
        assert_eq!(reply(Outcome::DeniedCountry), Some(&[21, 3, 3, 0, 2, 2, 49][..]));
        assert_eq!(HelloError::Malformed(Malformed::RecordTooLong(20_000)).reply()[6], 22);
    }

    #[test]
    fn every_refusal_but_those_without_a_tls_peer_is_answered() {
        let silent: Vec<_> =
            Outcome::ALL.into_iter().filter(|o| o.is_refusal() && reply(*o).is_none()).collect();
        let expect = [
            Outcome::TlsFailed,
            Outcome::HelloTimeout,
            Outcome::HelloIncomplete,
            Outcome::ProxyMissing,
            Outcome::ProxyInvalid,
            Outcome::ProxyUntrusted,
        ];
        assert_eq!(silent, expect);
        assert!(Outcome::ALL.into_iter().all(|o| o.is_refusal() || reply(o).is_none()));
    }

    #[test]
    fn the_http_answer_has_the_length_it_says() {
        let (head, body) = PLAIN_HTTP.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{}", body.len());
    }
}
