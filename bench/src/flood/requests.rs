//! Requests under a flood: MC-Proxy with its firewall on the interface that both come in by.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use mc_core::model::FirewallRule;
use mc_testkit::net::Host;
use mc_xdp::generate::{Generator, Sink};
use serde::Serialize;

use super::{Cable, Flood, LISTENER, Report, networks};
use crate::cell::http::{make_certificate, write_files};
use crate::cell::{exact, pin, seconds};
use crate::clock::{now_ns, sleep};
use crate::load::h2load::{self, Version};
use crate::load::https::{Https, KIB};
use crate::peer::{Peer, Programs, Proxy, Site, start_web};

/// Where the flood goes while requests are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Flooded {
    /// There is none.
    Nobody,
    /// To another cable, whose other end drops all.
    Sink,
    /// To MC-Proxy's interface.
    McProxy,
}

/// Packets that the kernel is asked for at once: some tenths of a second.
const BURST: u32 = 500_000;

/// MC-Proxy reads half a million rules, and fills its database.
const START_LIMIT: Duration = Duration::from_secs(60);

/// Ended with the measurement.
struct Web(Child);

impl Drop for Web {
    fn drop(&mut self) {
        // Its own process ends its workers' when it is asked to; killed, it could not.
        if let Some(pid) = i32::try_from(self.0.id()).ok().and_then(rustix::process::Pid::from_raw) {
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap_or(());
        }
        drop(self.0.wait());
    }
}

pub(super) fn measure(
    flood: &Flood,
    internet: &Host,
    rules: &[FirewallRule],
    sources: &[Ipv4Addr],
    report: &mut Report,
) -> anyhow::Result<()> {
    let (edge, nowhere) = (Host::new(), Host::new());
    let cable = Cable::between(internet, &edge)?;
    let to_nowhere = Cable::between(internet, &nowhere)?;
    // Requests go to the one, whichever was laid first.
    internet.ip(&format!("route replace {}/32 dev {}", LISTENER.ip(), cable.here));
    let _sink = nowhere.enter(|| Sink::attach(&to_nowhere.there))?;
    let mut to_proxy = Generator::load(cable.target, sources)?;
    let mut to_sink = Generator::load(to_nowhere.target, sources)?;
    let dir = tempfile::tempdir()?;
    let (_web, mut proxy, https) = start(flood, &edge, &cable, rules, dir.path())?;
    let client = https.client(false)?;
    internet.enter(|| wait_until_up(&mut proxy, || https.open(&client)?.get("/1k", KIB)))?;
    let all = [Flooded::Nobody, Flooded::Sink, Flooded::McProxy];
    report.requests = all.map(|flooded| (flooded, Vec::new())).into();
    for round in 0..=flood.rounds {
        for (flooded, samples) in &mut report.requests {
            let before = denied(&edge)?;
            let (rate, sent) = match flooded {
                Flooded::Nobody => (requests(flood, internet)?, 0),
                Flooded::Sink => under(&mut to_sink, flood, internet)?,
                Flooded::McProxy => under(&mut to_proxy, flood, internet)?,
            };
            let dropped = denied(&edge)? - before;
            ensure!(
                *flooded != Flooded::McProxy || dropped * 100 >= sent * 99,
                "MC-Proxy's firewall saw {dropped} packets of {sent}"
            );
            eprintln!("flood: round {round}: {}: {rate:.0} requests/s, {dropped} dropped", flooded.title());
            if round > 0 {
                samples.push(rate);
                if *flooded == Flooded::McProxy {
                    report.flood_rate.push(exact(dropped) * rate / exact(flood.requests));
                }
            }
            proxy.check_runs()?;
        }
    }
    proxy.stop()
}

fn start(
    flood: &Flood,
    edge: &Host,
    cable: &Cable,
    rules: &[FirewallRule],
    dir: &Path,
) -> anyhow::Result<(Web, Proxy, Https)> {
    let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let (unused, web) = (at(9), at(9005));
    let listen = LISTENER.into();
    let site = Site { listen, answer: unused, echo: unused, sink: unused, source: unused, web };
    let programs = Programs {
        mc_proxy: fs::canonicalize(&flood.mc_proxy).context("--mc-proxy")?,
        mcproxyctl: "mcproxyctl".into(),
        nginx: flood.nginx.clone(),
        haproxy: "haproxy".into(),
        sozu: "sozu".into(),
    };
    write_files(dir)?;
    let https = Https::new(site.listen, make_certificate(dir)?)?;
    Peer::McProxy.configure_http(&site, dir)?;
    let mut config = fs::OpenOptions::new().append(true).open(dir.join("mc-proxy.toml"))?;
    writeln!(config, "[xdp]\ninterfaces = [\"{}\"]\nmode = \"native\"", cable.there)?;
    // Each once: the same twice is a mistake in a configuration.
    for network in networks(rules).collect::<BTreeSet<_>>() {
        writeln!(config, "[[firewall.rules]]\naction = \"deny\"\ncidr = \"{network}\"")?;
    }
    let start = || -> anyhow::Result<_> {
        pin(flood.core)?;
        let web = Web(start_web(&programs, &site, dir)?);
        Ok((web, Peer::McProxy.start(&programs, site, dir, flood.core)?))
    };
    let (web, proxy) = edge.enter(start)?;
    Ok((web, proxy, https))
}

fn wait_until_up(proxy: &mut Proxy, answers: impl Fn() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let start = now_ns();
    while let Err(reason) = answers() {
        proxy.check_runs()?;
        let waited = Duration::from_nanos(now_ns() - start);
        ensure!(waited < START_LIMIT, "MC-Proxy is not up in {} s ({reason:#})", START_LIMIT.as_secs());
        sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Requests in a second.
fn requests(flood: &Flood, internet: &Host) -> anyhow::Result<f64> {
    internet.enter(|| {
        pin(flood.core)?;
        let outcome = h2load::run(LISTENER.into(), Version::Http1, flood.requests)?;
        ensure!(outcome.failed == 0, "{} requests failed: {:?}", outcome.failed, outcome.first_failure);
        Ok(exact(outcome.done) / seconds(outcome.elapsed_ns))
    })
}

/// The same while a generator sends all that it can; with it, how many packets it sent.
fn under(generator: &mut Generator, flood: &Flood, internet: &Host) -> anyhow::Result<(f64, u64)> {
    let over = AtomicBool::new(false);
    let mut send = || -> anyhow::Result<u64> {
        pin(flood.flood_core)?;
        let mut sent = 0;
        while !over.load(Ordering::Relaxed) {
            generator.send(BURST)?;
            sent += u64::from(BURST);
        }
        Ok(sent)
    };
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| internet.enter(&mut send));
        let rate = requests(flood, internet);
        over.store(true, Ordering::Relaxed);
        let sent = sending.join().map_err(|_panic| anyhow::anyhow!("the generator panicked"))?;
        Ok((rate?, sent?))
    })
}

/// Packets that MC-Proxy's firewall in the kernel has denied, as its metrics say.
fn denied(edge: &Host) -> anyhow::Result<u64> {
    let page = edge.enter(|| -> anyhow::Result<String> {
        let mut metrics = TcpStream::connect(("127.0.0.1", 9091))?;
        metrics.write_all(b"GET /metrics HTTP/1.1\r\nHost: metrics\r\nConnection: close\r\n\r\n")?;
        let mut page = String::new();
        metrics.read_to_string(&mut page)?;
        Ok(page)
    })?;
    let lines = page.lines().filter(|line| line.starts_with("mcproxy_xdp_packets_total"));
    let line = lines.into_iter().find(|line| line.contains("denied_cidr"));
    let count =
        line.and_then(|line| line.rsplit(' ').next()).context("MC-Proxy's firewall is not in the kernel")?;
    Ok(count.parse()?)
}

impl Flooded {
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Nobody => "nobody: there is none",
            Self::Sink => "another interface, where all is dropped",
            Self::McProxy => "MC-Proxy's interface",
        }
    }
}
