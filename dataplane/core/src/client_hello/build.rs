//! Makes ClientHellos for tests, fuzzing and benchmarks: well-formed ones that a real server reads, and
//! those with one thing wrong. Nothing here runs in the proxy.
//!
//! The same calls make the same bytes. Lengths are the caller's concern: a test that asks for an extension
//! of more than 65535 bytes panics.

/// Describes a ClientHello; [`Self::build`] makes it.
#[derive(Clone, Debug)]
pub struct HelloBuilder {
    legacy_version: u16,
    session_id: Vec<u8>,
    cipher_suites: Vec<u16>,
    /// In the order in which they are sent.
    extensions: Vec<(u16, Vec<u8>)>,
    key_shares: Vec<(u16, usize)>,
    versions: Vec<u16>,
    after: Vec<u8>,
}

impl Default for HelloBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl HelloBuilder {
    /// The hello of a client of TLS 1.2 and 1.3 with an X25519 key share, no name and no ALPN: about 170 bytes.
    #[must_use]
    pub fn new() -> Self {
        Self {
            legacy_version: 0x0303,
            session_id: (0..32).collect(),
            cipher_suites: vec![0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f],
            extensions: Vec::new(),
            key_shares: vec![(X25519, 32)],
            versions: vec![0x0304, 0x0303],
            after: Vec::new(),
        }
    }

    /// Asks for a name, sent as it is given.
    #[must_use]
    pub fn server_name(self, name: impl AsRef<[u8]>) -> Self {
        let entry = [&[0][..], &vec16(name.as_ref())].concat();
        self.extension(0, &vec16(&entry))
    }

    /// Offers application protocols. Names of more than 255 bytes panic.
    #[must_use]
    pub fn alpn(self, protocols: &[&[u8]]) -> Self {
        let list: Vec<u8> = protocols.iter().flat_map(|name| vec8(name)).collect();
        self.extension(16, &vec16(&list))
    }

    /// Offers X25519MLKEM768 first, with its key share of 1216 bytes, as browsers do: the hello no longer
    /// fits one segment.
    #[must_use]
    pub fn post_quantum(mut self) -> Self {
        self.key_shares.insert(0, (X25519_MLKEM768, 1216));
        self
    }

    /// GREASE values (RFC 8701) among cipher suites, versions, groups and extensions.
    #[must_use]
    pub fn grease(mut self) -> Self {
        self.cipher_suites.insert(0, 0x3a3a);
        self.versions.insert(0, 0x6a6a);
        self.key_shares.insert(0, (0x4a4a, 1));
        self.extension(0x1a1a, &[]).extension(0xdada, &[0])
    }

    /// Encrypted Client Hello of the outer kind (RFC 9849), with `payload` bytes of ciphertext.
    #[must_use]
    pub fn ech(self, payload: usize) -> Self {
        let mut body = vec![0, 0, 1, 0, 1, 7];
        body.extend(vec16(&noise(32)));
        body.extend(vec16(&noise(payload)));
        self.extension(0xfe0d, &body)
    }

    /// The padding extension (RFC 7685) with `len` zeros.
    #[must_use]
    pub fn padding(self, len: usize) -> Self {
        self.extension(21, &vec![0; len])
    }

    /// Any extension, in the order of the calls.
    #[must_use]
    pub fn extension(mut self, kind: u16, body: &[u8]) -> Self {
        self.extensions.push((kind, body.to_vec()));
        self
    }

    /// The hello of a client that knows no TLS 1.3: no supported_versions, no key share.
    #[must_use]
    pub fn tls12(mut self) -> Self {
        self.versions.clear();
        self.key_shares.clear();
        self
    }

    /// A session id of `len` bytes; more than 32 are not allowed, which is for the reader to find.
    #[must_use]
    pub fn session_id(mut self, len: u8) -> Self {
        self.session_id = (0..len).collect();
        self
    }

    /// Bytes behind the extensions, where none belong.
    #[must_use]
    pub fn trailing(mut self, bytes: &[u8]) -> Self {
        self.after = bytes.to_vec();
        self
    }

    /// The handshake message without records.
    #[must_use]
    pub fn message(&self) -> Vec<u8> {
        let mut body = self.legacy_version.to_be_bytes().to_vec();
        body.extend(noise(32));
        body.extend(vec8(&self.session_id));
        body.extend(vec16(&u16s(&self.cipher_suites)));
        body.extend(vec8(&[0]));
        body.extend(vec16(&self.extension_block()));
        body.extend(&self.after);
        let len = u32::try_from(body.len()).expect("a hello is below 16 MiB").to_be_bytes();
        assert_eq!(len[0], 0, "a hello is below 16 MiB");
        [&[1], &len[1..], &body].concat()
    }

    /// The hello in as few records as hold it: one, up to 2^14 bytes.
    #[must_use]
    pub fn build(&self) -> Vec<u8> {
        self.build_records(&[])
    }

    /// The hello in records with contents of these sizes, one after the other; what is left comes in records
    /// that are as long as may be. A size of 0 makes an empty record, which is not allowed.
    #[must_use]
    pub fn build_records(&self, sizes: &[usize]) -> Vec<u8> {
        records(&self.message(), sizes)
    }

    fn extension_block(&self) -> Vec<u8> {
        let groups: Vec<u16> = self.key_shares.iter().map(|(group, _)| *group).chain([P256]).collect();
        let mut block = Vec::new();
        for (kind, body) in &self.extensions {
            push_extension(&mut block, *kind, body);
        }
        push_extension(&mut block, 10, &vec16(&u16s(&groups)));
        push_extension(&mut block, 11, &vec8(&[0]));
        push_extension(&mut block, 13, &vec16(&u16s(&[0x0403, 0x0804, 0x0401, 0x0807])));
        push_extension(&mut block, 23, &[]);
        if !self.versions.is_empty() {
            push_extension(&mut block, 43, &vec8(&u16s(&self.versions)));
            push_extension(&mut block, 45, &vec8(&[1]));
        }
        if !self.key_shares.is_empty() {
            let shares: Vec<u8> = self
                .key_shares
                .iter()
                .flat_map(|(group, len)| [group.to_be_bytes().to_vec(), vec16(&noise(*len))].concat())
                .collect();
            push_extension(&mut block, 51, &vec16(&shares));
        }
        block
    }
}

/// Cuts a handshake message into records with contents of `sizes`, and of 2^14 bytes for what is left.
#[must_use]
pub fn records(message: &[u8], sizes: &[usize]) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len() + 5 * (sizes.len() + 1));
    let mut rest = message;
    let mut sizes = sizes.iter().copied();
    while !rest.is_empty() {
        let size = sizes.next().unwrap_or(1 << 14).min(rest.len());
        let (content, later) = rest.split_at(size);
        // The version of a first record is 3.1 for the sake of old servers (RFC 8446, section 5.1).
        out.extend([22, 3, 1]);
        out.extend(vec16(content));
        rest = later;
    }
    out
}

fn push_extension(block: &mut Vec<u8>, kind: u16, body: &[u8]) {
    block.extend(kind.to_be_bytes());
    block.extend(vec16(body));
}

fn u16s(values: &[u16]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_be_bytes()).collect()
}

fn vec8(content: &[u8]) -> Vec<u8> {
    let len = u8::try_from(content.len()).expect("at most 255 bytes");
    [&[len], content].concat()
}

fn vec16(content: &[u8]) -> Vec<u8> {
    let len = u16::try_from(content.len()).expect("at most 65535 bytes");
    [&len.to_be_bytes(), content].concat()
}

/// Bytes that look random and are always the same.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(next).take(len).collect()
}

const P256: u16 = 0x0017;
const X25519: u16 = 0x001d;
const X25519_MLKEM768: u16 = 0x11ec;
