//! ClientHellos made by hand, in every shape that a route must survive.
//!
//! RFC 8446, section 4.1.2; RFC 6066 (server name); RFC 7301 (ALPN); RFC 7685 (padding); RFC 8701 (GREASE).

/// A ClientHello to be made.
#[derive(Clone, Debug, Default)]
pub struct Hello {
    name: Option<Vec<u8>>,
    alpn: Vec<String>,
    post_quantum: bool,
    padded_to: usize,
}

impl Hello {
    /// One that asks for no name.
    #[must_use]
    pub fn nameless() -> Self {
        Self::default()
    }

    /// One that asks for this name, sent as it is.
    #[must_use]
    pub fn to(name: &str) -> Self {
        Self { name: Some(name.into()), ..Self::default() }
    }

    /// Offers these protocols.
    #[must_use]
    pub fn alpn(mut self, protocols: &[&str]) -> Self {
        self.alpn = protocols.iter().map(|protocol| (*protocol).to_owned()).collect();
        self
    }

    /// With an X25519MLKEM768 key share: too large for one segment.
    #[must_use]
    pub fn post_quantum(mut self) -> Self {
        self.post_quantum = true;
        self
    }

    /// With padding, so that the handshake message has about `bytes` bytes. The server's name comes after it.
    #[must_use]
    pub fn padded_to(mut self, bytes: usize) -> Self {
        self.padded_to = bytes;
        self
    }

    /// The handshake message without records around it.
    #[must_use]
    pub fn message(&self) -> Vec<u8> {
        let mut extensions = Vec::new();
        extension(&mut extensions, 0x5A5A, &[]); // GREASE
        extension(&mut extensions, 43, &[2, 0x03, 0x04]); // supported versions: TLS 1.3
        extension(&mut extensions, 10, &[0, 4, 0x11, 0xEC, 0, 0x1D]); // groups
        extension(&mut extensions, 13, &[0, 2, 0x04, 0x03]); // signatures
        let mut share = Vec::new();
        if self.post_quantum {
            share.extend([0x11, 0xEC]);
            share.extend(prefixed(&[7; 1216]));
        }
        share.extend([0, 0x1D]);
        share.extend(prefixed(&[9; 32]));
        extension(&mut extensions, 51, &prefixed(&share));
        if self.padded_to > 0 {
            let missing = self.padded_to.saturating_sub(extensions.len() + 100);
            extension(&mut extensions, 21, &vec![0; missing]);
        }
        if !self.alpn.is_empty() {
            let list: Vec<u8> =
                self.alpn.iter().flat_map(|protocol| short_prefixed(protocol.as_bytes())).collect();
            extension(&mut extensions, 16, &prefixed(&list));
        }
        if let Some(name) = &self.name {
            extension(&mut extensions, 0, &prefixed(&[&[0], &prefixed(name)[..]].concat()));
        }
        let mut body = vec![3, 3];
        body.extend([0x42; 32]);
        body.extend(short_prefixed(&[0x17; 32]));
        body.extend([0, 4, 0x2A, 0x2A, 0x13, 0x01, 1, 0]); // GREASE, TLS_AES_128_GCM_SHA256; no compression
        body.extend(prefixed(&extensions));
        let length = u32::try_from(body.len()).expect("a hello is short").to_be_bytes();
        [&[1], &length[1..], &body].concat()
    }

    /// The message in records of the greatest length.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        self.records(MAX_RECORD)
    }

    /// The message in records of at most `size` bytes each.
    #[must_use]
    pub fn records(&self, size: usize) -> Vec<u8> {
        self.message().chunks(size).flat_map(|part| record(22, part)).collect()
    }
}

/// One TLS record.
#[must_use]
pub fn record(kind: u8, content: &[u8]) -> Vec<u8> {
    [&[kind, 3, 1], &prefixed(content)[..]].concat()
}

fn extension(into: &mut Vec<u8>, kind: u16, content: &[u8]) {
    into.extend(kind.to_be_bytes());
    into.extend(prefixed(content));
}

fn prefixed(content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).expect("a part of a hello is short");
    [&length.to_be_bytes(), content].concat()
}

fn short_prefixed(content: &[u8]) -> Vec<u8> {
    [&[u8::try_from(content.len()).expect("a name is short")], content].concat()
}

/// RFC 8446, section 5.1.
const MAX_RECORD: usize = 1 << 14;

#[cfg(test)]
mod tests {
    use super::*;

    /// What rustls reads from the bytes, fed as they are.
    fn check(hello: &Hello, bytes: &[u8], name: Option<&str>, alpn: &[&str]) {
        let mut acceptor = rustls::server::Acceptor::default();
        let mut rest = bytes;
        let accepted = loop {
            assert!(acceptor.read_tls(&mut rest).unwrap() > 0, "rustls wants more of {hello:?}");
            if let Some(accepted) = acceptor.accept().map_err(|(error, _)| error).unwrap() {
                break accepted;
            }
        };
        let read = accepted.client_hello();
        assert_eq!(read.server_name(), name);
        let protocols: Vec<&[u8]> = read.alpn().into_iter().flatten().collect();
        assert_eq!(protocols, alpn.iter().map(|protocol| protocol.as_bytes()).collect::<Vec<_>>());
    }

    #[test]
    fn rustls_reads_them() {
        let hello = Hello::to("www.example.org").alpn(&["h2", "http/1.1"]);
        check(&hello, &hello.bytes(), Some("www.example.org"), &["h2", "http/1.1"]);
        check(&hello, &hello.records(50), Some("www.example.org"), &["h2", "http/1.1"]);
        let nameless = Hello::nameless();
        check(&nameless, &nameless.bytes(), None, &[]);
        let large = Hello::to("a.example").post_quantum().padded_to(60 * 1024);
        assert!((60_000..62_000).contains(&large.message().len()));
        check(&large, &large.bytes(), Some("a.example"), &[]);
    }
}
