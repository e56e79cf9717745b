//! PROXY protocol headers, written and read without the product's own code: what tests compare it with.
//!
//! Specification: <https://www.haproxy.org/download/2.6/doc/proxy-protocol.txt>.

use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A header as read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// 1 or 2; 0: there was none.
    pub version: u8,
    /// The client; `None` for LOCAL and UNKNOWN.
    pub client: Option<SocketAddr>,
    /// The address that the client connected to.
    pub destination: Option<SocketAddr>,
    /// Type and value, in order.
    pub tlvs: Vec<(u8, Vec<u8>)>,
    /// Whether the CRC32C TLV, where there is one, is right.
    pub crc_ok: Option<bool>,
}

/// PP2_TYPE_ALPN.
pub const ALPN: u8 = 0x01;
/// PP2_TYPE_AUTHORITY.
pub const AUTHORITY: u8 = 0x02;
/// PP2_TYPE_CRC32C.
pub const CRC32C: u8 = 0x03;
/// PP2_TYPE_UNIQUE_ID.
pub const UNIQUE_ID: u8 = 0x05;
/// PP2_TYPE_SSL.
pub const SSL: u8 = 0x20;

impl Header {
    /// The value of the first TLV of a type.
    #[must_use]
    pub fn tlv(&self, kind: u8) -> Option<&[u8]> {
        self.tlvs.iter().find(|(this, _)| *this == kind).map(|(_, value)| value.as_slice())
    }
}

/// A version 1 line.
#[must_use]
pub fn v1(client: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let family = if client.is_ipv4() { "TCP4" } else { "TCP6" };
    let (from, to) = (client.ip(), destination.ip());
    format!("PROXY {family} {from} {to} {} {}\r\n", client.port(), destination.port()).into_bytes()
}

/// A version 2 header with these TLVs, in order.
#[must_use]
pub fn v2(client: SocketAddr, destination: SocketAddr, tlvs: &[(u8, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for ip in [client.ip(), destination.ip()] {
        match ip {
            IpAddr::V4(ip) => body.extend(ip.octets()),
            IpAddr::V6(ip) => body.extend(ip.octets()),
        }
    }
    body.extend(client.port().to_be_bytes());
    body.extend(destination.port().to_be_bytes());
    for (kind, value) in tlvs {
        body.push(*kind);
        body.extend(u16::try_from(value.len()).expect("a TLV is short").to_be_bytes());
        body.extend(*value);
    }
    frame(0x21, if client.is_ipv4() { 0x11 } else { 0x21 }, &body)
}

/// A version 2 header whose last TLV is its checksum.
#[must_use]
pub fn v2_with_crc(client: SocketAddr, destination: SocketAddr, tlvs: &[(u8, &[u8])]) -> Vec<u8> {
    let mut header = v2(client, destination, &[tlvs, &[(CRC32C, &[0; 4])]].concat());
    let crc = crc32c(&header);
    let at = header.len() - 4;
    header[at..].copy_from_slice(&crc.to_be_bytes());
    header
}

/// A version 2 header that speaks for nobody: a health check's.
#[must_use]
pub fn v2_local() -> Vec<u8> {
    frame(0x20, 0x00, &[])
}

fn frame(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).expect("a header is short");
    [SIGNATURE, &[command, family], &length.to_be_bytes(), body].concat()
}

/// Reads a header and not a byte more.
///
/// # Errors
/// The connection's, or `InvalidData` for what is no header.
pub fn read(from: &mut impl Read) -> io::Result<Header> {
    let mut start = [0; 6];
    from.read_exact(&mut start)?;
    if start == *b"PROXY " { read_v1(from) } else { read_v2(from, &start) }
}

fn read_v1(from: &mut impl Read) -> io::Result<Header> {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        let mut byte = [0];
        from.read_exact(&mut byte)?;
        line.push(byte[0]);
        if line.len() > 107 {
            return Err(bad("a version 1 line without end"));
        }
    }
    let line = String::from_utf8_lossy(&line);
    let words: Vec<&str> = line.trim_end().split(' ').collect();
    let [_, from_ip, to_ip, from_port, to_port] = words[..] else {
        return Ok(Header { version: 1, ..Header::default() });
    };
    let address = |ip: &str, port: &str| -> Option<SocketAddr> {
        Some(SocketAddr::new(ip.parse().ok()?, port.parse().ok()?))
    };
    Ok(Header {
        version: 1,
        client: address(from_ip, from_port),
        destination: address(to_ip, to_port),
        ..Header::default()
    })
}

fn read_v2(from: &mut impl Read, start: &[u8; 6]) -> io::Result<Header> {
    let mut rest = [0; 10];
    from.read_exact(&mut rest)?;
    let fixed = [&start[..], &rest].concat();
    if &fixed[..12] != SIGNATURE {
        return Err(bad("no PROXY header"));
    }
    let mut body = vec![0; usize::from(u16::from_be_bytes([fixed[14], fixed[15]]))];
    from.read_exact(&mut body)?;
    let mut header = Header { version: 2, ..Header::default() };
    if fixed[12] == 0x20 {
        return Ok(header);
    }
    let size = if fixed[13] >> 4 == 1 { 4 } else { 16 };
    let port = |at: usize| u16::from_be_bytes([body[at], body[at + 1]]);
    header.client = Some(SocketAddr::new(ip(&body[..size]), port(2 * size)));
    header.destination = Some(SocketAddr::new(ip(&body[size..2 * size]), port(2 * size + 2)));
    let mut at = 2 * size + 4;
    while at + 3 <= body.len() {
        let length = usize::from(u16::from_be_bytes([body[at + 1], body[at + 2]]));
        let value = body.get(at + 3..at + 3 + length).ok_or_else(|| bad("a TLV past the end"))?;
        header.tlvs.push((body[at], value.to_vec()));
        if body[at] == CRC32C {
            let mut zeroed = [&fixed[..], &body].concat();
            zeroed[16 + at + 3..16 + at + 7].fill(0);
            header.crc_ok = Some(crc32c(&zeroed).to_be_bytes() == value);
        }
        at += 3 + length;
    }
    Ok(header)
}

fn ip(bytes: &[u8]) -> IpAddr {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Ipv4Addr::from(four).into();
    }
    Ipv6Addr::from(<[u8; 16]>::try_from(bytes).expect("4 or 16 bytes")).into()
}

/// RFC 3720, appendix B.4, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82F6_3B78 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &[u8], client: &str, tlvs: usize, crc_ok: Option<bool>) {
        let header = read(&mut &bytes[..]).unwrap();
        assert_eq!(header.client, client.parse().ok());
        assert_eq!((header.tlvs.len(), header.crc_ok), (tlvs, crc_ok));
    }

    #[test]
    fn what_is_written_is_read() {
        let (four, six) = ("192.0.2.1:5".parse().unwrap(), "[2001:db8::1]:6".parse().unwrap());
        check(&v1(four, four), "192.0.2.1:5", 0, None);
        check(&v1(six, six), "[2001:db8::1]:6", 0, None);
        check(&v2(six, six, &[(ALPN, b"h2")]), "[2001:db8::1]:6", 1, None);
        check(&v2_with_crc(four, four, &[(AUTHORITY, b"a")]), "192.0.2.1:5", 2, Some(true));
        check(&v2_local(), "", 0, None);
    }

    #[test]
    fn a_wrong_checksum_is_seen() {
        let four = "192.0.2.1:5".parse().unwrap();
        let mut header = v2_with_crc(four, four, &[]);
        header[16] ^= 1;
        check(&header, "193.0.2.1:5", 1, Some(false));
    }

    #[test]
    fn the_checksum_is_the_standards() {
        // RFC 3720, B.4: 32 bytes of zeroes.
        assert_eq!(crc32c(&[0; 32]), 0x8A91_36AA);
    }
}
