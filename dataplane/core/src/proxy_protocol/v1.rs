//! Reads the text line of version 1 (section 2.1 of the specification).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Command, Header, Progress, ProxyError, Tlvs, Version, addresses};

/// Reads a line that starts with [`SIGNATURE`].
pub(super) fn parse(received: &[u8]) -> Result<Progress, ProxyError> {
    let seen = &received[..received.len().min(MAX_LINE)];
    let Some(lf) = memchr::memchr(b'\n', seen) else {
        // Only the last byte can be a CR whose LF has not come yet.
        let cr_may_come = memchr::memchr(b'\r', seen).is_none_or(|cr| cr + 1 == seen.len());
        if seen.len() == MAX_LINE || !cr_may_come {
            return Err(ProxyError::LineEnd);
        }
        return Ok(Progress::NeedMore { at_least: received.len() + 1 });
    };
    let line = seen[..lf].strip_suffix(b"\r").ok_or(ProxyError::LineEnd)?;
    if line.contains(&b'\r') {
        return Err(ProxyError::LineEnd);
    }
    Ok(Progress::Done { header: header(&line[SIGNATURE.len()..])?, len: lf + 1 })
}

/// Reads what is between the signature and CR LF.
fn header(line: &[u8]) -> Result<Header, ProxyError> {
    let mut words = line.split(|&byte| byte == b' ');
    if words.next() != Some(b"") {
        return Err(ProxyError::Line("space behind PROXY"));
    }
    let addresses = match words.next() {
        // Whatever follows must be ignored.
        Some(b"UNKNOWN") => None,
        Some(b"TCP4") => Some(endpoints(words, |text| text.parse::<Ipv4Addr>().ok().map(IpAddr::V4))?),
        Some(b"TCP6") => Some(endpoints(words, |text| text.parse::<Ipv6Addr>().ok().map(IpAddr::V6))?),
        _ => return Err(ProxyError::Line("protocol")),
    };
    Ok(Header { version: Version::V1, command: Command::Proxy, addresses, tlvs: Tlvs::default() })
}

fn endpoints<'a>(
    mut words: impl Iterator<Item = &'a [u8]>,
    parse_ip: impl Fn(&str) -> Option<IpAddr>,
) -> Result<super::Addresses, ProxyError> {
    let mut next = |what| {
        let word = words.next().and_then(|word| str::from_utf8(word).ok());
        word.ok_or(ProxyError::Line(what))
    };
    let source = parse_ip(next("source address")?).ok_or(ProxyError::Line("source address"))?;
    let destination =
        parse_ip(next("destination address")?).ok_or(ProxyError::Line("destination address"))?;
    let source_port = port(next("source port")?).ok_or(ProxyError::Line("source port"))?;
    let destination_port = port(next("destination port")?).ok_or(ProxyError::Line("destination port"))?;
    if words.next().is_some() {
        return Err(ProxyError::Line("end behind the destination port"));
    }
    Ok(addresses(SocketAddr::new(source, source_port), SocketAddr::new(destination, destination_port)))
}

/// A decimal number without sign and leading zeros.
fn port(text: &str) -> Option<u16> {
    let canonical = text == "0" || text.starts_with(|first: char| ('1'..='9').contains(&first));
    if canonical { text.parse().ok() } else { None }
}

/// Seeing it means that this is version 1.
pub(super) const SIGNATURE: &[u8] = b"PROXY";
/// The longest line, CR LF included.
const MAX_LINE: usize = 107;
