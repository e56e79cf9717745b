//! Writes lines, with nothing that allocates: this runs once for every connection.

use std::io::Write;
use std::net::SocketAddr;

use super::{Format, Record};
use crate::rfc3339::timestamp;

/// Appends the record's line.
pub(super) fn line(format: Format, record: &Record<'_>, out: &mut Vec<u8>) {
    let mut line = Line { format, out };
    line.begin(record.unix_ms);
    match format {
        Format::Json => line.word("outcome", record.outcome.as_str()),
        Format::Text => line.raw(record.outcome.as_str()),
    }
    line.key("id");
    line.quoted(|out| hex(record.id, out));
    line.address("client", record.client);
    if record.peer != record.client {
        line.address("peer", record.peer);
    }
    line.word("listener", record.listener);
    line.chars("name", record.name);
    line.bytes("alpn", record.alpn);
    line.chars("route", record.route);
    if let Some(backend) = record.backend {
        line.address("backend", backend);
    }
    line.chars("detail", record.detail);
    line.number("bytes_in", record.bytes_in);
    line.number("bytes_out", record.bytes_out);
    line.number("hello_us", record.hello_us);
    line.number("connect_us", record.connect_us);
    line.number("duration_us", record.duration_us);
    line.end();
}

/// Appends the line that stands for those that were lost.
pub(super) fn lost(format: Format, unix_ms: u64, lines: u64, out: &mut Vec<u8>) {
    let mut line = Line { format, out };
    line.begin(unix_ms);
    if format == Format::Text {
        line.raw("lost");
    }
    line.number("lost_lines", lines);
    line.end();
}

/// A line that is being written.
struct Line<'a> {
    format: Format,
    out: &'a mut Vec<u8>,
}

impl Line<'_> {
    fn begin(&mut self, unix_ms: u64) {
        match self.format {
            Format::Json => {
                self.out.extend_from_slice(b"{\"time\":\"");
                timestamp(unix_ms, self.out);
                self.out.push(b'"');
            }
            Format::Text => timestamp(unix_ms, self.out),
        }
    }

    fn end(&mut self) {
        match self.format {
            Format::Json => self.out.extend_from_slice(b"}\n"),
            Format::Text => self.out.push(b'\n'),
        }
    }

    /// A word of ours that stands for itself, without a key.
    fn raw(&mut self, word: &str) {
        self.out.push(b' ');
        self.out.extend_from_slice(word.as_bytes());
    }

    fn key(&mut self, key: &str) {
        let (before, after): (&[u8], &[u8]) = match self.format {
            Format::Json => (b",\"", b"\":"),
            Format::Text => (b" ", b"="),
        };
        self.out.extend_from_slice(before);
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(after);
    }

    /// A value that needs quotes in JSON only, and no escapes.
    fn quoted(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if self.format == Format::Json {
            self.out.push(b'"');
        }
        write(self.out);
        if self.format == Format::Json {
            self.out.push(b'"');
        }
    }

    /// A value that is known to need no escapes.
    fn word(&mut self, key: &str, value: &str) {
        self.key(key);
        self.quoted(|out| out.extend_from_slice(value.as_bytes()));
    }

    fn address(&mut self, key: &str, address: SocketAddr) {
        self.key(key);
        self.quoted(|out| socket_address(address, out));
    }

    fn number(&mut self, key: &str, value: u64) {
        self.key(key);
        self.out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    }

    /// Text that may hold anything; left out where empty.
    fn chars(&mut self, key: &str, value: &str) {
        self.anything(key, value.as_bytes(), |out| {
            for char in value.chars() {
                match u8::try_from(char) {
                    Ok(byte) => escaped(byte, out),
                    Err(_) => {
                        for &mut unit in char.encode_utf16(&mut [0; 2]) {
                            escape(unit, out);
                        }
                    }
                }
            }
        });
    }

    /// Bytes that may be anything, each as the character of its number; left out where there are none.
    fn bytes(&mut self, key: &str, value: &[u8]) {
        self.anything(key, value, |out| value.iter().for_each(|&byte| escaped(byte, out)));
    }

    fn anything(&mut self, key: &str, value: &[u8], write_escaped: impl FnOnce(&mut Vec<u8>)) {
        if value.is_empty() {
            return;
        }
        self.key(key);
        let plain = value.iter().all(|&byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\'));
        if plain && self.format == Format::Text {
            // Which `=` ends the key is clear: no key has one.
            self.out.extend_from_slice(value);
            return;
        }
        self.out.push(b'"');
        if plain {
            self.out.extend_from_slice(value);
        } else {
            write_escaped(self.out);
        }
        self.out.push(b'"');
    }
}

/// One character up to U+00FF as it stands inside quotes (RFC 8259, section 7).
fn escaped(byte: u8, out: &mut Vec<u8>) {
    match byte {
        b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
        b' '..=b'~' => out.push(byte),
        _ => escape(u16::from(byte), out),
    }
}

fn escape(unit: u16, out: &mut Vec<u8>) {
    let [high, low] = unit.to_be_bytes();
    out.extend_from_slice(b"\\u");
    out.extend_from_slice(&[high >> 4, high & 15, low >> 4, low & 15].map(hex_digit));
}

/// 16 digits.
fn hex(value: u64, out: &mut Vec<u8>) {
    let digits = value.to_be_bytes().map(|byte| [hex_digit(byte >> 4), hex_digit(byte & 15)]);
    out.extend_from_slice(digits.as_flattened());
}

fn hex_digit(digit: u8) -> u8 {
    b"0123456789abcdef"[usize::from(digit)]
}

fn socket_address(address: SocketAddr, out: &mut Vec<u8>) {
    let SocketAddr::V4(v4) = address else {
        return write!(out, "{address}").expect("a vector takes all");
    };
    for (index, octet) in v4.ip().octets().into_iter().enumerate() {
        if index > 0 {
            out.push(b'.');
        }
        out.extend_from_slice(itoa::Buffer::new().format(octet).as_bytes());
    }
    out.push(b':');
    out.extend_from_slice(itoa::Buffer::new().format(v4.port()).as_bytes());
}

#[cfg(test)]
mod tests {
    use mc_core::outcome::Outcome;
    use serde_json::{Value, json};

    use super::*;

    fn record() -> Record<'static> {
        Record {
            id: 0x0001_0000_0000_002a,
            unix_ms: 1_782_993_296_789,
            client: "192.0.2.10:51000".parse().unwrap(),
            peer: "[2001:db8::7]:443".parse().unwrap(),
            listener: "web",
            name: "a.example.org",
            alpn: b"h2",
            route: "*.example.org",
            backend: Some("10.255.0.1:8443".parse().unwrap()),
            outcome: Outcome::Completed,
            detail: "",
            bytes_in: 0,
            bytes_out: u64::MAX,
            hello_us: 1,
            connect_us: 22,
            duration_us: 333,
        }
    }

    fn written(format: Format, record: &Record<'_>) -> String {
        let mut out = Vec::new();
        line(format, record, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn parsed(record: &Record<'_>) -> Value {
        let line = written(Format::Json, record);
        assert!(line.bytes().filter(|&byte| byte == b'\n').count() == 1 && line.ends_with('\n'));
        assert!(line.trim_end().bytes().all(|byte| matches!(byte, b' '..=b'~')), "{line}");
        serde_json::from_str(&line).unwrap()
    }

    #[test]
    fn a_json_line_says_all() {
        let expect = json!({
            "time": "2026-07-02T11:54:56.789Z",
            "outcome": "completed",
            "id": "000100000000002a",
            "client": "192.0.2.10:51000",
            "peer": "[2001:db8::7]:443",
            "listener": "web",
            "name": "a.example.org",
            "alpn": "h2",
            "route": "*.example.org",
            "backend": "10.255.0.1:8443",
            "bytes_in": 0,
            "bytes_out": u64::MAX,
            "hello_us": 1,
            "connect_us": 22,
            "duration_us": 333,
        });
        assert_eq!(parsed(&record()), expect);
    }

    #[test]
    fn what_is_empty_is_left_out() {
        let client = record().client;
        let bare = Record { peer: client, name: "", alpn: b"", route: "", backend: None, ..record() };
        let keys: Vec<String> = parsed(&bare).as_object().unwrap().keys().cloned().collect();
        let numbers = ["bytes_in", "bytes_out", "client", "connect_us", "duration_us", "hello_us"];
        assert_eq!(keys, [&numbers[..], &["id", "listener", "outcome", "time"]].concat());
    }

    #[test]
    fn a_text_line_says_all() {
        let refused = Record { outcome: Outcome::HelloMalformed, detail: "bad \"length\"", ..record() };
        assert_eq!(
            written(Format::Text, &refused),
            "2026-07-02T11:54:56.789Z hello_malformed id=000100000000002a client=192.0.2.10:51000 \
             peer=[2001:db8::7]:443 listener=web name=a.example.org alpn=h2 route=*.example.org \
             backend=10.255.0.1:8443 detail=\"bad \\\"length\\\"\" bytes_in=0 bytes_out=18446744073709551615 \
             hello_us=1 connect_us=22 duration_us=333\n"
        );
    }

    #[test]
    fn what_a_client_chose_cannot_forge_a_line() {
        let every_char: String =
            (0..0x300).filter_map(char::from_u32).chain("\u{2028}\u{1F600}".chars()).collect();
        let every_byte: Vec<u8> = (0..=255).collect();
        let hostile = Record { name: &every_char, alpn: &every_byte, ..record() };
        let value = parsed(&hostile);
        assert_eq!(value["name"], every_char);
        assert_eq!(value["alpn"], every_byte.iter().map(|&byte| char::from(byte)).collect::<String>());
        let forged = Record { name: "x\n2026-07-02T11:54:56.789Z completed id=1", ..record() };
        let text = written(Format::Text, &forged);
        assert!(text.contains(r#" name="x\u000a2026-07-02T11:54:56.789Z completed id=1" "#), "{text}");
        assert_eq!(text.lines().count(), 1);
    }

    #[test]
    fn each_address_is_written_as_it_is_read() {
        for text in ["0.0.0.0:0", "255.255.255.255:65535", "1.20.0.100:80", "[::]:1", "[::ffff:1.2.3.4]:5"] {
            let mut out = Vec::new();
            socket_address(text.parse().unwrap(), &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), text);
        }
    }

    #[test]
    fn lost_lines_are_a_line() {
        let mut out = Vec::new();
        lost(Format::Json, 0, 12, &mut out);
        lost(Format::Text, 0, 12, &mut out);
        let expect = "{\"time\":\"1970-01-01T00:00:00.000Z\",\"lost_lines\":12}\n1970-01-01T00:00:00.000Z lost lost_lines=12\n";
        assert_eq!(String::from_utf8(out).unwrap(), expect);
    }
}
