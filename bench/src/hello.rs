//! A ClientHello as a current browser sends it, without the rest of TLS.
//!
//! The proxies that are measured read a hello and pass bytes on, so the load needs hellos that look and weigh
//! like real ones (GREASE, the usual extensions, padding to 517 bytes, or a post-quantum key share that makes
//! it span two segments on a real wire), not a TLS stack. Keys are random bytes from a fixed seed: every run
//! sends the same. RFC 8446, section 4.1.2; RFC 8701 (GREASE); RFC 7685 (padding);
//! draft-ietf-tls-ecdhe-mlkem (X25519MLKEM768).

use std::ops::Range;

/// A ClientHello in one TLS record.
#[derive(Clone, Debug)]
pub(crate) struct Hello {
    /// The record, header included.
    pub(crate) bytes: Vec<u8>,
    /// Where the server name stands in it: a name of the same length may be written over it.
    pub(crate) name: Range<usize>,
}

impl Hello {
    /// 517 bytes (more where the name is longer than 100 characters), as browsers sent before post-quantum
    /// key exchange.
    pub(crate) fn classic(name: &str) -> Self {
        build(name, false)
    }

    /// About 1,780 bytes: the same with a key share for X25519MLKEM768 and a GREASE ECH, as they send now.
    pub(crate) fn post_quantum(name: &str) -> Self {
        build(name, true)
    }

    /// Writes another name of the same length over the one inside.
    pub(crate) fn rename(&mut self, name: &str) {
        self.bytes[self.name.clone()].copy_from_slice(name.as_bytes());
    }
}

fn build(name: &str, post_quantum: bool) -> Hello {
    let mut random = fastrand::Rng::with_seed(0x6d63_2d62_656e_6368);
    let mut out = Writer(Vec::with_capacity(2048));
    let mut name_at = 0;
    out.bytes(&[RECORD_HANDSHAKE, 3, 1]);
    out.length16(|out| {
        out.bytes(&[CLIENT_HELLO]);
        out.length24(|out| {
            out.u16(0x0303);
            out.random(&mut random, 32);
            out.length8(|out| out.random(&mut random, 32)); // legacy session id
            out.length16(|out| CIPHERS.iter().for_each(|cipher| out.u16(*cipher)));
            out.bytes(&[1, 0]); // compression: none
            out.length16(|out| name_at = extensions(out, name, post_quantum, &mut random));
        });
    });
    Hello { name: name_at..name_at + name.len(), bytes: out.0 }
}

/// Writes the extensions and returns where the name stands.
fn extensions(out: &mut Writer, name: &str, post_quantum: bool, random: &mut fastrand::Rng) -> usize {
    let mut name_at = 0;
    out.extension(GREASE_FIRST, |_| {});
    out.extension(0, |out| {
        out.length16(|out| {
            out.bytes(&[0]); // host_name
            out.length16(|out| {
                name_at = out.0.len();
                out.bytes(name.as_bytes());
            });
        });
    });
    out.extension(23, |_| {}); // extended_master_secret
    out.extension(0xff01, |out| out.bytes(&[0])); // renegotiation_info
    let groups: &[u16] =
        if post_quantum { &[GREASE_FIRST, X25519_MLKEM768, 29, 23, 24] } else { &[GREASE_FIRST, 29, 23, 24] };
    out.extension(10, |out| out.length16(|out| groups.iter().for_each(|group| out.u16(*group))));
    out.extension(11, |out| out.bytes(&[1, 0])); // ec_point_formats
    out.extension(35, |_| {}); // session_ticket
    out.extension(16, |out| {
        out.length16(|out| {
            out.length8(|out| out.bytes(b"h2"));
            out.length8(|out| out.bytes(b"http/1.1"));
        });
    });
    out.extension(5, |out| out.bytes(&[1, 0, 0, 0, 0])); // status_request: OCSP
    out.extension(13, |out| out.length16(|out| SIGNATURES.iter().for_each(|scheme| out.u16(*scheme))));
    out.extension(18, |_| {}); // signed_certificate_timestamp
    out.extension(51, |out| {
        out.length16(|out| {
            key_share(out, GREASE_FIRST, |out| out.bytes(&[0]));
            if post_quantum {
                key_share(out, X25519_MLKEM768, |out| out.random(random, 1184 + 32));
            }
            key_share(out, 29, |out| out.random(random, 32));
        });
    });
    out.extension(45, |out| out.bytes(&[1, 1])); // psk_key_exchange_modes
    out.extension(43, |out| {
        out.length8(|out| [GREASE_LAST, 0x0304, 0x0303].iter().for_each(|v| out.u16(*v)))
    });
    out.extension(27, |out| out.bytes(&[2, 0, 2])); // compress_certificate: brotli
    if post_quantum {
        // What browsers have sent since they send this key share, too.
        out.extension(17613, |out| out.length16(|out| out.length8(|out| out.bytes(b"h2")))); // ALPS
        out.extension(0xfe0d, |out| {
            out.bytes(&[0, 0, 1, 0, 1, 42]); // encrypted_client_hello, GREASE: outer, HKDF-SHA256, AES-128-GCM
            out.length16(|out| out.random(random, 32));
            out.length16(|out| out.random(random, 208));
        });
    }
    out.extension(GREASE_LAST, |out| out.bytes(&[0]));
    let unpadded = out.0.len() + EXTENSION_HEADER;
    if !post_quantum && unpadded < CLASSIC_LEN {
        out.extension(21, |out| out.0.resize(out.0.len() + CLASSIC_LEN - unpadded, 0));
    }
    name_at
}

fn key_share(out: &mut Writer, group: u16, key: impl FnOnce(&mut Writer)) {
    out.u16(group);
    out.length16(key);
}

/// Bytes with length-prefixed parts, as TLS is made of.
struct Writer(Vec<u8>);

impl Writer {
    fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn u16(&mut self, value: u16) {
        self.bytes(&value.to_be_bytes());
    }

    fn random(&mut self, random: &mut fastrand::Rng, len: usize) {
        self.0.extend(std::iter::repeat_with(|| random.u8(..)).take(len));
    }

    fn extension(&mut self, kind: u16, body: impl FnOnce(&mut Self)) {
        self.u16(kind);
        self.length16(body);
    }

    fn length8(&mut self, body: impl FnOnce(&mut Self)) {
        self.length(1, body);
    }

    fn length16(&mut self, body: impl FnOnce(&mut Self)) {
        self.length(2, body);
    }

    fn length24(&mut self, body: impl FnOnce(&mut Self)) {
        self.length(3, body);
    }

    /// Writes `width` bytes of length, then the body that they count.
    fn length(&mut self, width: usize, body: impl FnOnce(&mut Self)) {
        let start = self.0.len() + width;
        self.0.resize(start, 0);
        body(self);
        let len = (self.0.len() - start).to_be_bytes();
        self.0[start - width..start].copy_from_slice(&len[len.len() - width..]);
    }
}

const RECORD_HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const EXTENSION_HEADER: usize = 4;
/// What browsers pad to: a record of 512 bytes and its header.
const CLASSIC_LEN: usize = 517;
const GREASE_FIRST: u16 = 0x3a3a;
const GREASE_LAST: u16 = 0xdada;
const X25519_MLKEM768: u16 = 0x11ec;
const CIPHERS: [u16; 16] = [
    0x4a4a, 0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc013, 0xc014, 0x009c,
    0x009d, 0x002f, 0x0035,
];
const SIGNATURES: [u16; 8] = [0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601];

#[cfg(test)]
mod tests {
    use super::*;

    /// Walks the hello by its length fields and returns its extensions; panics where they do not fit.
    fn walk(hello: &[u8]) -> Vec<(u16, Vec<u8>)> {
        let mut at = Reader(hello);
        assert_eq!(at.take(3), [22, 3, 1]);
        let mut at = at.part(2, true);
        assert_eq!(at.take(1), [1]);
        let mut at = at.part(3, true);
        assert_eq!(at.take(2), [3, 3]);
        at.take(32);
        assert_eq!(at.part(1, false).0.len(), 32);
        assert_eq!(at.part(2, false).0.len() % 2, 0);
        assert_eq!(at.part(1, false).0, [0]);
        let mut at = at.part(2, true);
        let mut found = Vec::new();
        while !at.0.is_empty() {
            let kind = u16::from_be_bytes(at.take(2).try_into().unwrap());
            found.push((kind, at.part(2, false).0.to_vec()));
        }
        found
    }

    struct Reader<'a>(&'a [u8]);

    impl<'a> Reader<'a> {
        fn take(&mut self, len: usize) -> &'a [u8] {
            let (head, rest) = self.0.split_at(len);
            self.0 = rest;
            head
        }

        /// A part with `width` bytes of length, which is all that is left where `last` says so.
        fn part(&mut self, width: usize, last: bool) -> Self {
            let len = self.take(width).iter().fold(0, |len, byte| len * 256 + usize::from(*byte));
            assert!(!last || len == self.0.len(), "{len} bytes announced, {} there", self.0.len());
            Self(self.take(len))
        }
    }

    fn check_name(hello: &Hello, name: &str) {
        let extensions = walk(&hello.bytes);
        let sni = &extensions.iter().find(|(kind, _)| *kind == 0).expect("a server name").1;
        assert_eq!(&sni[5..], name.as_bytes());
        assert_eq!(&hello.bytes[hello.name.clone()], name.as_bytes());
    }

    #[test]
    fn classic_is_padded_to_what_browsers_send() {
        for name in ["a.test", "some-longer-name.bench.test"] {
            let hello = Hello::classic(name);
            assert_eq!(hello.bytes.len(), 517);
            check_name(&hello, name);
        }
    }

    #[test]
    fn post_quantum_carries_the_large_share() {
        let hello = Hello::post_quantum("a.test");
        assert!((1_700..1_800).contains(&hello.bytes.len()), "{} bytes", hello.bytes.len());
        check_name(&hello, "a.test");
        let shares = walk(&hello.bytes).into_iter().find(|(kind, _)| *kind == 51).unwrap().1;
        assert_eq!(shares.len(), 2 + 5 + (4 + 1216) + (4 + 32));
    }

    #[test]
    fn renaming_keeps_the_rest() {
        let mut hello = Hello::classic("r0000001.bench.test");
        hello.rename("r0999999.bench.test");
        check_name(&hello, "r0999999.bench.test");
        assert_eq!(hello.bytes, Hello::classic("r0999999.bench.test").bytes);
    }
}
