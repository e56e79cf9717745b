//! The rows of the HTTP path: every proxy terminates TLS with the same certificate, before the same web server.

use std::fs;

use anyhow::Context as _;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::CertificateDer;

use super::{Bench, REST, Row, START_LIMIT, WARM_UP, exact, seconds, sleep};
use crate::content::{CHUNK, pattern};
use crate::load::Outcome;
use crate::load::h2load::{self, Version};
use crate::load::https::{BODY, HOST, Https, KIB};
use crate::peer::{self, Proxy};
use crate::proc;

/// Makes the measurement.
pub(super) fn run(bench: &mut Bench<'_>) -> anyhow::Result<()> {
    let dir = &bench.cell.dir;
    write_files(dir)?;
    // It ends with the namespace.
    drop(peer::start_web(&bench.cell.programs, &bench.site, dir)?);
    let https = Https::new(bench.site.listen, make_certificate(dir)?)?;
    bench.cell.peer.configure_http(&bench.site, dir)?;
    let client = https.client(false)?;
    let mut proxy = bench.start_until(START_LIMIT, || https.open(&client)?.get("/1k", KIB))?;
    let (target, sizes) = (bench.site.listen, bench.cell.sizes);
    match bench.cell.row {
        Row::Handshake => bench.handshakes(&https, &mut proxy, "handshake", false),
        Row::Resumed => bench.handshakes(&https, &mut proxy, "resumed", true),
        Row::Http1 => bench.requests(&mut proxy, "h1", |count| h2load::run(target, Version::Http1, count)),
        Row::Http2 => bench.requests(&mut proxy, "h2", |count| h2load::run(target, Version::Http2, count)),
        Row::Bodies => {
            https.bodies(1)?;
            let (outcome, cpu) = bench.cost(&mut proxy, || https.bodies(sizes.bodies))?;
            let gib = exact(outcome.done) / exact(1 << 30);
            bench.set("bodies", cpu / gib);
            bench.set("bodies_rate", gib / seconds(outcome.elapsed_ns));
            // The log is not looked at: so few lines may wait in a buffer, and the other rows have seen them written.
            Ok(())
        }
        _ => bench.idle_http(&https, &mut proxy),
    }
}

impl Bench<'_> {
    fn handshakes(
        &mut self,
        https: &Https,
        proxy: &mut Proxy,
        metric: &str,
        resumed: bool,
    ) -> anyhow::Result<()> {
        self.count(&https.handshakes(CLIENTS, WARM_UP, resumed)?);
        let count = self.cell.sizes.handshakes;
        let (outcome, cpu) = self.cost(proxy, || https.handshakes(CLIENTS, count, resumed))?;
        self.set(metric, cpu / exact(outcome.done.max(1)) * 1e3);
        self.check_log(proxy, outcome.done);
        Ok(())
    }

    fn requests(
        &mut self,
        proxy: &mut Proxy,
        metric: &str,
        load: impl Fn(u64) -> anyhow::Result<Outcome>,
    ) -> anyhow::Result<()> {
        self.count(&load(WARM_UP)?);
        let (outcome, cpu) = self.cost(proxy, || load(self.cell.sizes.requests))?;
        self.set(metric, cpu / exact(outcome.done.max(1)) * 1e5);
        self.set(&format!("{metric}_rate"), exact(outcome.done) / seconds(outcome.elapsed_ns));
        self.check_log(proxy, outcome.done);
        Ok(())
    }

    fn idle_http(&mut self, https: &Https, proxy: &mut Proxy) -> anyhow::Result<()> {
        // So that code and tables that every proxy touches once are in memory before.
        self.count(&https.handshakes(CLIENTS, WARM_UP, false)?);
        sleep(REST);
        let pids = proxy.pids();
        let before = proc::pss_kib(&pids)?;
        let client = https.client(false)?;
        let mut connections = Vec::new();
        for index in 0..self.cell.sizes.idle_http {
            let mut connection = https.open(&client).with_context(|| format!("idle connection {index}"))?;
            connection.get("/1k", KIB)?;
            connections.push(connection);
        }
        sleep(REST);
        let after = proc::pss_kib(&pids)?;
        self.set("idle_l7", (exact(after) - exact(before)) / f64::from(self.cell.sizes.idle_http));
        // They were established and idle, not dead.
        let dead = connections.iter_mut().filter_map(|connection| connection.get("/1k", KIB).err()).count();
        if dead > 0 {
            self.measured.failures.push(format!("{dead} idle connections were dead"));
        }
        proxy.check_runs()
    }
}

/// What the web server serves: the beginning of the pattern, short and long.
pub(crate) fn write_files(dir: &std::path::Path) -> anyhow::Result<()> {
    let web = dir.join("web");
    fs::create_dir_all(&web)?;
    for (name, len) in [("1k", KIB), ("64m", BODY)] {
        let mut file = fs::File::create(web.join(name))?;
        let mut at = 0;
        while at < len {
            let size = usize::try_from(len - at).unwrap_or(CHUNK).min(CHUNK);
            std::io::Write::write_all(&mut file, pattern(at, size))?;
            at += size as u64;
        }
    }
    Ok(())
}

/// A certificate of its own (ECDSA P-256), in the files that the proxies read.
pub(crate) fn make_certificate(dir: &std::path::Path) -> anyhow::Result<CertificateDer<'static>> {
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(vec![HOST.to_owned()])?.self_signed(&key)?;
    let (pem, key_pem) = (certificate.pem(), key.serialize_pem());
    fs::create_dir_all(dir.join("certs"))?;
    fs::write(dir.join("cert.pem"), &pem)?;
    fs::write(dir.join("key.pem"), &key_pem)?;
    for both in ["both.pem", "certs/web.pem"] {
        fs::write(dir.join(both), format!("{pem}{key_pem}"))?;
    }
    Ok(certificate.der().clone())
}

/// Clients that come at the same time.
const CLIENTS: u64 = 20;
