//! stub
use mc_core::outcome::Outcome;
use std::io::Write as _;
use std::net::SocketAddr;
#[derive(Clone, Debug)]
pub struct LogSink {
    tx: std::sync::mpsc::Sender<Vec<u8>>,
}
#[derive(Debug)]
pub struct Record<'a> {
    pub id: u64,
    pub unix_ms: u64,
    pub client: SocketAddr,
    pub peer: SocketAddr,
    pub listener: &'a str,
    pub name: &'a str,
    pub alpn: &'a [u8],
    pub route: &'a str,
    pub backend: Option<SocketAddr>,
    pub outcome: Outcome,
    pub detail: &'a str,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub hello_us: u64,
    pub connect_us: u64,
    pub duration_us: u64,
}
impl LogSink {
    pub fn new() -> Self {
        let (tx, rx) = std::sync::mpsc::channel::<Vec<u8>>();
        std::thread::spawn(move || {
            let mut f = std::fs::File::create("/tmp/mc.log").unwrap();
            while let Ok(v) = rx.recv() {
                f.write_all(&v).unwrap();
            }
        });
        Self { tx }
    }
    pub fn format(&self, r: &Record<'_>, out: &mut Vec<u8>) {
        writeln!(out, "{{\"id\":{},\"t\":{},\"client\":\"{}\",\"name\":\"{}\",\"backend\":\"{:?}\",\"outcome\":\"{}\",\"detail\":\"{}\",\"in\":{},\"out\":{},\"us\":{}}}", r.id,r.unix_ms,r.client,r.name,r.backend,r.outcome.as_str(),r.detail,r.bytes_in,r.bytes_out,r.duration_us).unwrap();
    }
    pub fn submit(&self, v: Vec<u8>) -> Vec<u8> {
        self.tx.send(v).unwrap();
        Vec::new()
    }
}
pub fn id_text(id: u64) -> String {
    format!("{id:016x}")
}
