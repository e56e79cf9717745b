//! The access log: one line for each connection that has ended, written without delaying any.
//!
//! A worker formats lines into a buffer of its own and hands the buffer over when it is full or a moment
//! old; one thread has the file. Where the disk cannot keep up, whole buffers are dropped and counted: a log
//! that is incomplete and says so is better than a proxy that waits.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use mc_core::outcome::Outcome;
use serde::Deserialize;

mod request;

pub use request::{Request, Times};

/// A connection that has ended.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Unique, and no other process's ([`crate::process`]); [`id_text`] is how it is written.
    pub id: u64,
    /// When it ended, in milliseconds since 1970.
    pub unix_ms: u64,
    /// The true client.
    pub client: SocketAddr,
    /// Who connected to us.
    pub peer: SocketAddr,
    /// The listener's name.
    pub listener: &'a str,
    /// The name that was asked for; empty where none was.
    pub name: &'a str,
    /// The first protocol that was offered; empty where none was.
    pub alpn: &'a [u8],
    /// The route's name; empty where there is none.
    pub route: &'a str,
    /// The last backend that was tried.
    pub backend: Option<SocketAddr>,
    /// How it ended.
    pub outcome: Outcome,
    /// What was wrong; empty where nothing was.
    pub detail: &'a str,
    /// From the client.
    pub bytes_in: u64,
    /// To the client.
    pub bytes_out: u64,
    /// From accept to the route, in microseconds; 0 where it did not come so far.
    pub hello_us: u64,
    /// From the route to the backend, in microseconds; 0 where it did not come so far.
    pub connect_us: u64,
    /// From accept to the end, in microseconds.
    pub duration_us: u64,
}

/// How a line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// A JSON object.
    #[default]
    Json,
    /// Columns for people: time, id, client, outcome, name, backend, bytes, times.
    Text,
}

/// Where lines go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub enum Target {
    /// `""`: nowhere.
    Off,
    /// `"-"`: standard output.
    #[default]
    Stdout,
    /// A file, made with mode 0640, appended to.
    File(PathBuf),
}

/// Takes lines from any worker.
#[derive(Clone, Debug)]
pub struct LogSink {
    format: Format,
    writer: Option<Arc<Writer>>,
}

#[derive(Debug)]
struct Writer {
    orders: SyncSender<Order>,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What the writing thread shares with those who submit.
#[derive(Debug, Default)]
struct Shared {
    spare: Mutex<Vec<Vec<u8>>>,
    lost: AtomicU64,
    reopen: AtomicBool,
    /// Write what waits, and end.
    stop: AtomicBool,
    has_ended: Mutex<bool>,
    ended: Condvar,
}

#[derive(Debug)]
enum Order {
    Lines(Vec<u8>),
    /// Look at [`Shared::reopen`] and [`Shared::stop`].
    Wake,
}

/// How long shutdown waits for queued lines to be written: the pipe may be full, with a reader that has stopped reading.
const CLOSE_TIME: Duration = Duration::from_secs(2);

/// Buffers that may wait for the disk.
const QUEUE: usize = 256;

/// Buffers kept for the next lines.
const SPARE: usize = 8;

impl From<String> for Target {
    fn from(text: String) -> Self {
        match text.as_str() {
            "" => Self::Off,
            "-" => Self::Stdout,
            _ => Self::File(text.into()),
        }
    }
}

impl LogSink {
    /// Opens the target and starts the thread that writes to it.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn open(target: Target, format: Format) -> io::Result<Self> {
        let output = match &target {
            Target::Off => return Ok(Self { format, writer: None }),
            Target::Stdout => Output::new(io::stdout().as_fd().try_clone_to_owned()?.into(), false),
            Target::File(path) => Output::new(open_file(path)?, true),
        };
        let (orders, received) = sync_channel(QUEUE);
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let write = move || {
            write_all(output, &target, format, &received, &theirs);
            *lock(&theirs.has_ended) = true;
            theirs.ended.notify_all();
        };
        let thread = std::thread::Builder::new().name("access-log".to_owned()).spawn(write)?;
        let writer = Writer { orders, shared, thread: Mutex::new(Some(thread)) };
        Ok(Self { format, writer: Some(Arc::new(writer)) })
    }

    /// Appends the record's line to a worker's buffer.
    pub fn write(&self, record: &Record<'_>, lines: &mut Vec<u8>) {
        if self.writer.is_none() {
            return;
        }
        match self.format {
            Format::Json => json(record, lines),
            Format::Text => text(record, lines),
        }
    }

    /// Appends a request's line to a worker's buffer.
    pub fn write_request(&self, record: &Request<'_>, lines: &mut Vec<u8>) {
        if self.writer.is_none() {
            return;
        }
        match self.format {
            Format::Json => request::json(record, lines),
            Format::Text => request::combined(record, lines),
        }
    }

    /// Hands a buffer over and gives an empty one back. Never waits.
    #[must_use]
    pub fn submit(&self, lines: Vec<u8>) -> Vec<u8> {
        let Some(writer) = &self.writer else { return lines };
        match writer.orders.try_send(Order::Lines(lines)) {
            Ok(()) => lock(&writer.shared.spare).pop().unwrap_or_default(),
            Err(
                TrySendError::Full(Order::Lines(mut lines))
                | TrySendError::Disconnected(Order::Lines(mut lines)),
            ) => {
                writer.shared.lose(&lines);
                lines.clear();
                lines
            }
            Err(_) => Vec::new(),
        }
    }

    /// Lines that were dropped because the disk could not keep up.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.writer.as_ref().map_or(0, |writer| writer.shared.lost.load(Ordering::Relaxed))
    }

    /// Opens the file anew, after it was rotated away.
    pub fn reopen(&self) {
        if let Some(writer) = &self.writer {
            writer.shared.reopen.store(true, Ordering::Relaxed);
            // Where the queue is full the thread looks without being woken.
            writer.orders.try_send(Order::Wake).unwrap_or(());
        }
    }

    /// Writes what was submitted and ends the thread. Where nobody takes the lines, gives up after a moment.
    pub fn close(&self) {
        let Some(writer) = &self.writer else { return };
        writer.shared.stop.store(true, Ordering::Relaxed);
        // Where the queue is full the thread looks without being woken.
        writer.orders.try_send(Order::Wake).unwrap_or(());
        let has_ended = lock(&writer.shared.has_ended);
        let waited = writer.shared.ended.wait_timeout_while(has_ended, CLOSE_TIME, |ended| !*ended);
        if waited.is_ok_and(|(ended, _)| !*ended) {
            tracing::error!("nobody reads the access log: its last lines are lost");
            return;
        }
        if let Some(thread) = lock(&writer.thread).take() {
            thread.join().unwrap_or(());
        }
    }
}

/// How a connection's id is written in log, API and PROXY headers.
#[must_use]
pub fn id_text(id: u64) -> String {
    format!("{id:016x}")
}

/// The id that a request gets from us, as logs and backends have it: its connection's, and its number on that.
#[must_use]
pub fn request_id_text(connection: u64, number: u64) -> String {
    // Without `fmt`, which for one of these in each request shows in a profile.
    let mut text = Vec::with_capacity(16 + 1 + 20);
    hex(connection, &mut text);
    text.push(b'-');
    decimal(number, &mut text);
    String::from_utf8(text).expect("digits are ASCII")
}

/// A time in milliseconds since 1970 as its date: `2026-11-23`.
#[must_use]
pub fn date_text(unix_ms: u64) -> String {
    let (year, month, day) = civil(unix_ms / 86_400_000);
    format!("{year:04}-{month:02}-{day:02}")
}

impl Shared {
    fn recycle(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        let mut spare = lock(&self.spare);
        if spare.len() < SPARE {
            spare.push(buffer);
        }
    }

    /// Counts lines that nobody will read.
    fn lose(&self, lines: &[u8]) {
        let lost = lines.iter().filter(|&&byte| byte == b'\n').count();
        self.lost.fetch_add(lost as u64, Ordering::Relaxed);
    }
}

/// What lines are written to.
struct Output {
    file: File,
    /// Nobody else writes to it, so that half a line can be cut off again.
    is_own: bool,
    /// It ends with half a line.
    is_torn: bool,
}

/// Why lines could not be written, and how many bytes of them were: whole lines.
struct Unwritten {
    whole: usize,
    error: io::Error,
}

impl Output {
    const fn new(file: File, is_own: bool) -> Self {
        Self { file, is_own, is_torn: false }
    }

    /// Writes lines. Where the disk is full in the middle of one, the log ends with the one before.
    fn write(&mut self, lines: &[u8]) -> Result<(), Unwritten> {
        if self.is_torn {
            self.file.write_all(b"\n").map_err(|error| Unwritten { whole: 0, error })?;
            self.is_torn = false;
        }
        let mut written = 0;
        while written < lines.len() {
            let error = match self.file.write(&lines[written..]) {
                Ok(0) => io::ErrorKind::WriteZero.into(),
                Ok(more) => {
                    written += more;
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => error,
            };
            let whole = lines[..written].iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
            self.is_torn = written > whole && !self.cut((written - whole) as u64);
            return Err(Unwritten { whole, error });
        }
        Ok(())
    }

    /// Takes back the last bytes; whether that could be done.
    fn cut(&self, bytes: u64) -> bool {
        let cut = || self.file.set_len(self.file.metadata()?.len().saturating_sub(bytes));
        self.is_own && cut().is_ok()
    }
}

/// The writing thread: until it is told to stop or nobody can submit any more.
fn write_all(mut output: Output, target: &Target, format: Format, orders: &Receiver<Order>, shared: &Shared) {
    // Lost lines that the log itself has told of.
    let mut told = 0;
    let mut failing = false;
    loop {
        let stop = shared.stop.load(Ordering::Relaxed);
        let Some(order) = (if stop { orders.try_recv().ok() } else { orders.recv().ok() }) else { return };
        if shared.reopen.swap(false, Ordering::Relaxed)
            && let Target::File(path) = target
        {
            match open_file(path) {
                Ok(file) => output = Output::new(file, true),
                Err(error) => {
                    tracing::error!(%error, path = %path.display(), "the access log stays open as it was");
                }
            }
        }
        let Order::Lines(lines) = order else { continue };
        let lost = shared.lost.load(Ordering::Relaxed);
        let tell = if lost > told { output.write(&lost_line(format, lost - told)) } else { Ok(()) };
        let written = match tell {
            Ok(()) => {
                told = lost;
                output.write(&lines)
            }
            Err(unwritten) => Err(Unwritten { whole: 0, ..unwritten }),
        };
        match written {
            Ok(()) => failing = false,
            Err(Unwritten { whole, error }) => {
                shared.lose(&lines[whole..]);
                // Said once, not for every buffer, until it works again.
                if !failing {
                    tracing::error!(%error, "the access log cannot be written: lines are lost");
                }
                failing = true;
            }
        }
        shared.recycle(lines);
    }
}

/// What stands in the log where lines are missing.
fn lost_line(format: Format, lost: u64) -> Vec<u8> {
    match format {
        Format::Json => format!("{{\"lost_lines\":{lost}}}\n").into_bytes(),
        Format::Text => format!("# {lost} lines lost\n").into_bytes(),
    }
}

fn open_file(path: &std::path::Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o640).open(path)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One JSON object and a line feed.
fn json(record: &Record<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"time\":\"");
    time(record.unix_ms, out);
    out.extend_from_slice(b"\",\"id\":\"");
    hex(record.id, out);
    out.extend_from_slice(b"\",\"client\":\"");
    address(record.client, out);
    if record.peer != record.client {
        out.extend_from_slice(b"\",\"peer\":\"");
        address(record.peer, out);
    }
    field("listener", record.listener.as_bytes(), out);
    field("name", record.name.as_bytes(), out);
    field("alpn", record.alpn, out);
    field("route", record.route.as_bytes(), out);
    if let Some(backend) = record.backend {
        out.extend_from_slice(b"\",\"backend\":\"");
        address(backend, out);
    }
    out.extend_from_slice(b"\",\"outcome\":\"");
    out.extend_from_slice(record.outcome.as_str().as_bytes());
    field("detail", record.detail.as_bytes(), out);
    out.push(b'"');
    let counted = [
        ("bytes_in", record.bytes_in),
        ("bytes_out", record.bytes_out),
        ("hello_us", record.hello_us),
        ("connect_us", record.connect_us),
        ("duration_us", record.duration_us),
    ];
    numbers(&counted, out);
}

/// Columns, `-` for what is not known.
fn text(record: &Record<'_>, out: &mut Vec<u8>) {
    time(record.unix_ms, out);
    out.push(b' ');
    hex(record.id, out);
    out.push(b' ');
    address(record.client, out);
    out.push(b' ');
    out.extend_from_slice(record.outcome.as_str().as_bytes());
    for word in [record.listener, record.name, record.route] {
        out.push(b' ');
        let start = out.len();
        escaped(if word.is_empty() { b"-" } else { word.as_bytes() }, out);
        // A blank in a name must not begin another column.
        out[start..].iter_mut().filter(|byte| **byte == b' ').for_each(|byte| *byte = b'_');
    }
    out.push(b' ');
    match record.backend {
        Some(backend) => address(backend, out),
        None => out.push(b'-'),
    }
    let times = [record.hello_us, record.connect_us, record.duration_us];
    for value in [record.bytes_in, record.bytes_out].into_iter().chain(times) {
        out.push(b' ');
        decimal(value, out);
    }
    if !record.detail.is_empty() {
        out.extend_from_slice(b" \"");
        escaped(record.detail.as_bytes(), out);
        out.push(b'"');
    }
    out.push(b'\n');
}

/// The numbers of a line, and its end.
fn numbers(counted: &[(&str, u64)], out: &mut Vec<u8>) {
    for (name, value) in counted {
        out.extend_from_slice(b",\"");
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\":");
        decimal(*value, out);
    }
    out.extend_from_slice(b"}\n");
}

/// Ends the string before and begins the named one; nothing where the value is empty.
fn field(name: &str, value: &[u8], out: &mut Vec<u8>) {
    if value.is_empty() {
        return;
    }
    out.extend_from_slice(b"\",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":\"");
    escaped(value, out);
}

/// What a hostile client sent must neither end a string nor a line: all but printable ASCII as \u00XX.
fn escaped(mut value: &[u8], out: &mut Vec<u8>) {
    let is_plain = |byte: &u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
    loop {
        let run = value.iter().position(|byte| !is_plain(byte)).unwrap_or(value.len());
        out.extend_from_slice(&value[..run]);
        let Some((&byte, rest)) = value[run..].split_first() else { return };
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            _ => {
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            }
        }
        value = rest;
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";

fn hex(value: u64, out: &mut Vec<u8>) {
    let digits: [u8; 16] = std::array::from_fn(|at| HEX[((value >> ((15 - at) * 4)) & 15) as usize]);
    out.extend_from_slice(&digits);
}

fn decimal(mut value: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// `value` with `width` digits.
fn padded(mut value: u64, width: usize, out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + width, b'0');
    for digit in out[start..].iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

fn address(address: SocketAddr, out: &mut Vec<u8>) {
    match address.ip() {
        IpAddr::V4(ip) => {
            for (index, octet) in ip.octets().into_iter().enumerate() {
                if index > 0 {
                    out.push(b'.');
                }
                decimal(u64::from(octet), out);
            }
        }
        // Its shortest form takes more than a line; `fmt` writes it without an allocation.
        IpAddr::V6(ip) => write!(out, "[{ip}]").unwrap_or(()),
    }
    out.push(b':');
    decimal(u64::from(address.port()), out);
}

/// RFC 3339 with milliseconds, UTC.
fn time(unix_ms: u64, out: &mut Vec<u8>) {
    let (days, ms) = (unix_ms / 86_400_000, unix_ms % 86_400_000);
    let (year, month, day) = civil(days);
    padded(year, 4, out);
    out.push(b'-');
    padded(month, 2, out);
    out.push(b'-');
    padded(day, 2, out);
    out.push(b'T');
    padded(ms / 3_600_000, 2, out);
    out.push(b':');
    padded(ms / 60_000 % 60, 2, out);
    out.push(b':');
    padded(ms / 1000 % 60, 2, out);
    out.push(b'.');
    padded(ms % 1000, 3, out);
    out.push(b'Z');
}

/// Year, month and day of a number of days since 1970-01-01, by counting 400-year cycles from a March.
fn civil(days: u64) -> (u64, u64, u64) {
    let from_march_0000 = days + 719_468;
    let (era, day_of_era) = (from_march_0000 / 146_097, from_march_0000 % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record<'static> {
        Record {
            id: 0x1_0000_0000_002a,
            unix_ms: 1_795_478_957_936,
            client: "192.0.2.7:4711".parse().unwrap(),
            peer: "[2001:db8::1]:443".parse().unwrap(),
            listener: "web",
            name: "a\"b\\c\n\u{e9}",
            alpn: b"h2",
            route: "*.example.org",
            backend: Some("10.0.0.2:8443".parse().unwrap()),
            outcome: Outcome::Completed,
            detail: "",
            bytes_in: 0,
            bytes_out: u64::MAX,
            hello_us: 12,
            connect_us: 345,
            duration_us: 6789,
        }
    }

    #[test]
    fn a_line_is_one_json_object_whatever_the_client_sent() {
        let mut out = Vec::new();
        json(&record(), &mut out);
        assert_eq!(out.iter().filter(|&&byte| byte == b'\n').count(), 1);
        let line: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(line["time"], "2026-11-24T00:09:17.936Z");
        assert_eq!(line["id"], id_text(record().id));
        assert_eq!(line["client"], "192.0.2.7:4711");
        assert_eq!(line["peer"], "[2001:db8::1]:443");
        // The bytes of é, one by one.
        assert_eq!(line["name"], "a\"b\\c\n\u{c3}\u{a9}");
        assert_eq!(line["backend"], "10.0.0.2:8443");
        assert_eq!(line["bytes_out"], u64::MAX);
        assert_eq!(line["connect_us"], 345);
        assert!(line.get("detail").is_none());
    }

    #[test]
    fn a_line_of_text_has_its_columns() {
        let mut out = Vec::new();
        text(&Record { name: "", detail: "why not", ..record() }, &mut out);
        let mut shifted = Vec::new();
        text(&Record { name: "a b", ..record() }, &mut shifted);
        assert!(String::from_utf8(shifted).unwrap().contains(" web a_b *.example.org "));
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "2026-11-24T00:09:17.936Z 000100000000002a 192.0.2.7:4711 completed web - *.example.org \
             10.0.0.2:8443 0 18446744073709551615 12 345 6789 \"why not\"\n"
        );
    }

    /// The names in the table below this heading of the reference.
    fn explained(heading: &str) -> Vec<&'static str> {
        let page = include_str!("../../../docs/mc-proxy-reference.md");
        let (_, rest) = page.split_once(heading).unwrap();
        let rows =
            rest.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
        let mut names: Vec<_> = rows.skip(2).filter_map(|row| row.split('`').nth(1)).collect();
        names.sort_unstable();
        names
    }

    fn check_explained(heading: &str, line: &[u8]) {
        let line: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(line).unwrap();
        let mut fields: Vec<&str> = line.keys().map(String::as_str).collect();
        fields.sort_unstable();
        assert_eq!(fields, explained(heading));
    }

    #[test]
    fn every_field_is_in_the_reference() {
        let mut line = Vec::new();
        json(&Record { detail: "why", ..record() }, &mut line);
        check_explained("### Fields of connections", &line);
        let request = Request {
            id: "1-1",
            connection: 1,
            unix_ms: 0,
            client: "192.0.2.1:5".parse().unwrap(),
            listener: "web",
            route: "a.example",
            backend: Some("192.0.2.9:80".parse().unwrap()),
            protocol: "HTTP/1.1",
            method: b"GET",
            host: b"a.example",
            target: b"/",
            user_agent: b"curl",
            referer: b"https://b.example/",
            client_cert: "00",
            status: 200,
            outcome: mc_core::outcome::RequestOutcome::Completed,
            detail: "why",
            bytes_in: 1,
            bytes_out: 2,
            times: Times::default(),
        };
        line.clear();
        request::json(&request, &mut line);
        check_explained("### Fields of requests", &line);
    }

    #[test]
    fn days_become_dates() {
        let check = |days, expect| assert_eq!(civil(days), expect, "{days}");
        check(0, (1970, 1, 1));
        check(11_016, (2000, 2, 29));
        check(11_017, (2000, 3, 1));
        check(20_780, (2026, 11, 23));
        check(47_541, (2100, 3, 1));
    }

    #[test]
    fn lines_reach_the_file_also_after_it_was_rotated_away() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        let sink = LogSink::open(Target::File(path.clone()), Format::Text).unwrap();
        let empty = sink.submit(b"one\n".to_vec());
        assert!(empty.is_empty());
        // The queue is in order: the rename happens after "one" was queued, and "two" comes after reopen.
        while std::fs::read(&path).unwrap() != b"one\n" {
            std::thread::yield_now();
        }
        std::fs::rename(&path, dir.path().join("old.log")).unwrap();
        sink.reopen();
        assert!(sink.submit(b"two\n".to_vec()).is_empty());
        sink.close();
        assert_eq!(std::fs::read(&path).unwrap(), b"two\n");
        assert_eq!(std::fs::read(dir.path().join("old.log")).unwrap(), b"one\n");
        assert_eq!(sink.lost(), 0);
    }

    #[test]
    fn the_log_says_where_lines_are_missing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        let sink = LogSink::open(Target::File(path.clone()), Format::Json).unwrap();
        sink.writer.as_ref().unwrap().shared.lose(b"one\ntwo\n");
        assert!(sink.submit(b"three\n".to_vec()).is_empty());
        assert!(sink.submit(b"four\n".to_vec()).is_empty());
        sink.close();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"lost_lines\":2}\nthree\nfour\n");
    }

    #[test]
    fn lines_for_a_thread_that_is_gone_are_counted_as_lost() {
        let dir = tempfile::tempdir().unwrap();
        let sink = LogSink::open(Target::File(dir.path().join("access.log")), Format::Text).unwrap();
        sink.close();
        assert!(sink.submit(b"one\ntwo\n".to_vec()).is_empty());
        assert_eq!(sink.lost(), 2);
    }
}
