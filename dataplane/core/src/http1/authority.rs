//! A host with or without a port, as `Host` and `:authority` have it (RFC 9110, section 7.2; RFC 3986, 3.2.2).

use std::net::Ipv6Addr;

/// A host and perhaps a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authority<'a> {
    /// A name, an IPv4 address, or an IPv6 address in brackets, as it was written.
    pub host: &'a str,
    /// The port that was written.
    pub port: Option<u16>,
}

impl<'a> Authority<'a> {
    /// Reads `host` or `host:port`. User information, percent-encoding and everything else that two readers could
    /// take for different hosts is refused.
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let text = str::from_utf8(bytes).ok()?;
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let end = rest.find(']')?;
                rest[..end].parse::<Ipv6Addr>().ok()?;
                let host = &text[..end + 2];
                let after = &text[end + 2..];
                (host, if after.is_empty() { None } else { Some(after.strip_prefix(':')?) })
            }
            None => match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            },
        };
        let is_name_byte = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        if !host.starts_with('[') && (host.is_empty() || !host.bytes().all(is_name_byte)) {
            return None;
        }
        let port = match port {
            // "host:" is what RFC 3986 allows for the default port.
            None | Some("") => None,
            Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => Some(port.parse().ok()?),
            Some(_) => return None,
        };
        Some(Self { host, port })
    }

    /// Whether both are the same host; a trailing dot and case do not count.
    #[must_use]
    pub fn same_host(&self, name: &str) -> bool {
        let trim = |name: &'a str| name.strip_suffix('.').unwrap_or(name);
        let other = name.strip_suffix('.').unwrap_or(name);
        trim(self.host).eq_ignore_ascii_case(other)
    }
}
