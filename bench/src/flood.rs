//! What a flood costs whoever drops it, and what it leaves of requests.
//!
//! SYNs come over a cable between two network namespaces (veth) as fast as one core makes them, all from networks that are
//! denied: by default half a million, the policy of `mc-bench xdp`. The core that makes them also receives them, so that time is
//! CPU time. The same frames go to a program that drops whatever comes, which is what the cable costs; to the shipped
//! program; and to nftables with the same networks, at its two earliest hooks. Each counts what it drops.
//!
//! Then requests are made over the same cable, with MC-Proxy, its backend and its clients on the other core, while the
//! flood goes to that program that drops all, or to MC-Proxy's interface.

use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use ipnet::{IpNet, Ipv4Net};
use mc_core::firewall::Compiled;
use mc_core::firewall::tables::{Places, Tables};
use mc_core::model::{Firewall as Rules, FirewallRule, Subject};
use mc_ebpf_abi::generate::SOURCES;
use mc_ebpf_abi::verdict::Verdict;
use mc_testkit::net::Host;
use mc_xdp::generate::{Generator, Sink, Target};
use mc_xdp::{Ask, Firewall, Mode, Where};
use serde::Serialize;

use crate::cell::pin;
use crate::clock::now_ns;
use crate::stats::Summary;
use crate::xdp::{RATES, rules};

mod requests;

#[derive(Args, Debug)]
pub(crate) struct Flood {
    /// Rounds; a row's figure is the median.
    #[arg(long, default_value_t = 7)]
    rounds: u32,
    /// Packets in a round.
    #[arg(long, default_value_t = 2_000_000)]
    packets: u32,
    /// Requests in a round; 0: only packets are dropped.
    #[arg(long, default_value_t = 100_000)]
    requests: u64,
    /// Networks that are denied.
    #[arg(long, default_value_t = 500_000, value_parser = clap::value_parser!(u32).range(2..))]
    prefixes: u32,
    /// The core that makes and receives the flood.
    #[arg(long, default_value_t = 1)]
    flood_core: u32,
    /// The core of everything else.
    #[arg(long, default_value_t = 0)]
    core: u32,
    /// MC-Proxy.
    #[arg(long, env = "MC_BENCH_PROXY", default_value = "mc-proxy")]
    mc_proxy: PathBuf,
    /// nginx, as the backend.
    #[arg(long, default_value = "nginx")]
    nginx: PathBuf,
    /// Print JSON instead of tables.
    #[arg(long)]
    json: bool,
}

/// All that was measured.
#[derive(Debug, Default, Serialize)]
struct Report {
    /// Nanoseconds for each packet, by who dropped it.
    drops: Vec<(Dropper, Vec<f64>)>,
    /// Requests in a second, by where the flood went meanwhile.
    requests: Vec<(requests::Flooded, Vec<f64>)>,
    /// Packets in a second while the flood went to MC-Proxy.
    flood_rate: Vec<f64>,
}

/// Who drops packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Dropper {
    /// They are made and not sent.
    Nobody,
    /// A program that looks at nothing: the cable alone.
    Sink,
    /// The shipped program.
    McProxy,
    /// nftables where the device hands packets over (`netdev`, `ingress`).
    NftIngress,
    /// nftables before the connection tracker (`inet`, `prerouting`, priority `raw`).
    NftPrerouting,
}

/// The flooded side of one dropper.
struct Edge {
    dropper: Dropper,
    host: Host,
    generator: Generator,
    drops: Drops,
}

/// What drops there.
enum Drops {
    Nothing,
    Sink(#[expect(dead_code, reason = "it drops for as long as it lives")] Sink),
    Xdp(Box<Firewall>),
    Nft,
}

/// Where the flood goes: the same address in every namespace.
const LISTENER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 77, 1, 1), 8443);

impl Flood {
    /// Measures, and prints what came out.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        ensure!(rustix::process::geteuid().is_root(), "floods need root, for namespaces and eBPF");
        let rules = rules(self.prefixes);
        let sources = blocked(&rules);
        let internet = Host::new();
        let mut report = Report::default();
        self.drops(&internet, &rules, &sources, &mut report)?;
        if self.requests > 0 {
            requests::measure(self, &internet, &rules, &sources, &mut report)?;
        }
        if self.json {
            println!("{}", serde_json::to_string_pretty(&report)?);
        } else {
            println!("{}", report.markdown()?);
        }
        Ok(())
    }

    fn drops(
        &self,
        internet: &Host,
        rules: &[FirewallRule],
        sources: &[Ipv4Addr],
        report: &mut Report,
    ) -> anyhow::Result<()> {
        use Dropper::{McProxy, NftIngress, NftPrerouting, Nobody, Sink};
        let mut edges = Vec::new();
        for dropper in [Nobody, Sink, McProxy, NftIngress, NftPrerouting] {
            eprintln!("flood: preparing {}", dropper.title());
            edges.push(Edge::new(dropper, internet, rules, sources)?);
            report.drops.push((dropper, Vec::new()));
        }
        for round in 0..=self.rounds {
            for (edge, (_, samples)) in edges.iter_mut().zip(&mut report.drops) {
                let ns = edge.measure(internet, self.flood_core, self.packets)?;
                eprintln!("flood: round {round}: {}: {ns:.0} ns a packet", edge.dropper.title());
                // The first warms up.
                if round > 0 {
                    samples.push(ns);
                }
            }
        }
        Ok(())
    }
}

impl Edge {
    fn new(
        dropper: Dropper,
        internet: &Host,
        rules: &[FirewallRule],
        sources: &[Ipv4Addr],
    ) -> anyhow::Result<Self> {
        let host = Host::new();
        let cable = Cable::between(internet, &host)?;
        let target = match dropper {
            Dropper::Nobody => Target { interface: 0, ..cable.target },
            _ => cable.target,
        };
        let generator = Generator::load(target, sources).context("the generator")?;
        let drops = match dropper {
            Dropper::Nobody => Drops::Nothing,
            Dropper::Sink => Drops::Sink(host.enter(|| Sink::attach(&cable.there))?),
            Dropper::McProxy => Drops::Xdp(Box::new(firewall(&host, &cable.there, rules)?)),
            Dropper::NftIngress | Dropper::NftPrerouting => {
                nftables(&host, dropper, &cable.there, rules)?;
                Drops::Nft
            }
        };
        Ok(Self { dropper, host, generator, drops })
    }

    /// Nanoseconds for each of so many packets.
    fn measure(&mut self, internet: &Host, core: u32, packets: u32) -> anyhow::Result<f64> {
        let before = self.dropped()?;
        let generator = &mut self.generator;
        let send = || -> anyhow::Result<u64> {
            pin(core)?;
            let start = now_ns();
            generator.send(packets)?;
            Ok(now_ns() - start)
        };
        let ns = internet.enter(send)?;
        if let (Some(before), Some(after)) = (before, self.dropped()?) {
            let dropped = after - before;
            ensure!(dropped == u64::from(packets), "{} dropped {dropped} of {packets}", self.dropper.title());
        }
        Ok(Duration::from_nanos(ns).as_secs_f64() * 1e9 / f64::from(packets))
    }

    /// Packets that were dropped so far, where they are counted.
    fn dropped(&self) -> anyhow::Result<Option<u64>> {
        match &self.drops {
            Drops::Nothing | Drops::Sink(_) => Ok(None),
            Drops::Xdp(firewall) => Ok(Some(firewall.counts()?[Verdict::DeniedCidr as usize].packets)),
            Drops::Nft => {
                let told = self.host.run("nft", &["list", "counters"]);
                let packets = told.split_once("packets ").and_then(|(_, rest)| rest.split(' ').next());
                Ok(Some(packets.context("nft tells of no counter")?.parse()?))
            }
        }
    }
}

/// A cable to an edge.
struct Cable {
    target: Target,
    /// The interface in the internet.
    here: String,
    /// The interface at the edge.
    there: String,
}

impl Cable {
    /// Lays one, of two queues, as a network card has several: each core sends into one of its own.
    fn between(internet: &Host, edge: &Host) -> anyhow::Result<Self> {
        let [here, there] = internet.link(&["10.77.1.2/24"], edge, &["10.77.1.1/24"]);
        for (queue, cores) in [(0, 1), (1, 2)] {
            let file = format!("/sys/class/net/{here}/queues/tx-{queue}/xps_cpus");
            // What /sys shows is of the namespace in which it was mounted.
            let script = format!("mount -t sysfs sysfs /sys && echo {cores} > {file}");
            internet.run("unshare", &["--mount", "sh", "-c", &script]);
        }
        // Frames are received in the kernel's poll loop, as from a network card, with a program there or without.
        edge.run("ethtool", &["-K", &there, "gro", "on"]);
        let index = internet.run("ip", &["-json", "link", "show", "dev", &here]);
        let index: serde_json::Value = serde_json::from_str(&index)?;
        let interface = index[0]["ifindex"].as_u64().context("ip tells of no index")?;
        let mac: Vec<u8> =
            edge.mac(&there).split(':').map(|byte| u8::from_str_radix(byte, 16)).collect::<Result<_, _>>()?;
        let mac = mac.try_into().ok().context("an address of six bytes")?;
        Ok(Self { target: Target { interface: interface.try_into()?, mac, to: LISTENER }, here, there })
    }
}

/// The shipped program with its policy, on an interface.
fn firewall(host: &Host, interface: &str, rules: &[FirewallRule]) -> anyhow::Result<Firewall> {
    let mut firewall = Firewall::load(fastrand::u64(..)).context("see `mcproxyctl capabilities`")?;
    let address = (*LISTENER.ip(), LISTENER.port()).into();
    firewall.set_listeners(&[Where { address, trusted: Vec::new() }])?;
    let rules = Rules { rules: rules.to_vec(), rate: RATES, ..Rules::default() };
    firewall.set_policy(&Tables::new(&Compiled::new(&rules), &Places::default())?)?;
    host.enter(|| firewall.attach(interface, Ask::Only(Mode::Native), None).map(|_| ()))?;
    Ok(firewall)
}

/// The same policy for nftables: networks are sets of intervals, which is what its manual has for them.
fn nftables(host: &Host, hook: Dropper, interface: &str, rules: &[FirewallRule]) -> anyhow::Result<()> {
    let (family, place) = match hook {
        Dropper::NftIngress => ("netdev", format!("hook ingress device {interface} priority -500")),
        Dropper::NftPrerouting => ("inet", "hook prerouting priority raw".to_owned()),
        _ => bail!("{} is not nftables", hook.title()),
    };
    let networks = |is_ipv4: bool| {
        let of_family = networks(rules).filter(|network| network.addr().is_ipv4() == is_ipv4);
        of_family.map(|network| network.to_string()).collect::<Vec<_>>().join(", ")
    };
    let port = LISTENER.port();
    let text = format!(
        "table {family} guard {{
             counter denied {{ }}
             set denied4 {{ type ipv4_addr; flags interval; auto-merge; elements = {{ {} }}; }}
             set denied6 {{ type ipv6_addr; flags interval; auto-merge; elements = {{ {} }}; }}
             chain arriving {{
                 type filter {place}; policy accept;
                 tcp dport {port} ip saddr @denied4 counter name denied drop
                 tcp dport {port} ip6 saddr @denied6 counter name denied drop
             }}
         }}\n",
        networks(true),
        networks(false)
    );
    let file = tempfile::NamedTempFile::new()?;
    fs::write(file.path(), text)?;
    host.run("nft", &["-f", &file.path().display().to_string()]);
    Ok(())
}

fn networks(rules: &[FirewallRule]) -> impl Iterator<Item = IpNet> {
    rules.iter().filter_map(|rule| match rule.subject {
        Subject::Cidr(network) => Some(network),
        _ => None,
    })
}

/// Addresses of IPv4 that the rules deny, spread over them.
fn blocked(rules: &[FirewallRule]) -> Vec<Ipv4Addr> {
    let mut random = fastrand::Rng::with_seed(11);
    let networks: Vec<Ipv4Net> = networks(rules)
        .filter_map(|network| match network {
            IpNet::V4(network) => Some(network),
            IpNet::V6(_) => None,
        })
        .collect();
    let within = |network: &Ipv4Net| {
        let host = random.u32(..) & network.hostmask().to_bits();
        Ipv4Addr::from_bits(network.network().to_bits() | host)
    };
    let mut random = fastrand::Rng::with_seed(12);
    let chosen = random.choose_multiple(networks.iter(), SOURCES);
    chosen.into_iter().map(within).collect()
}

impl Dropper {
    const fn title(self) -> &'static str {
        match self {
            Self::Nobody => "nobody: frames are made and not sent",
            Self::Sink => "a program that drops whatever comes",
            Self::McProxy => "MC-Proxy's firewall",
            Self::NftIngress => "nftables, ingress",
            Self::NftPrerouting => "nftables, prerouting",
        }
    }
}

impl Report {
    fn median(&self, of: Dropper) -> f64 {
        let samples = self.drops.iter().find(|(dropper, _)| *dropper == of);
        samples.and_then(|(_, samples)| Summary::of(samples)).map_or(f64::NAN, |summary| summary.median)
    }

    fn markdown(&self) -> anyhow::Result<String> {
        let mut text =
            "| who drops | ns a packet | without making it | without the cable |\n|---|---|---|---|\n"
                .to_owned();
        let (made, sink) = (self.median(Dropper::Nobody), self.median(Dropper::Sink));
        for (dropper, samples) in &self.drops {
            let Some(Summary { median, min, max, .. }) = Summary::of(samples) else { continue };
            let less = |other: f64| format!("{:.0}", median - other);
            // What the other rows are compared with has nothing to be compared with itself.
            let (received, judged) = match dropper {
                Dropper::Nobody => (String::new(), String::new()),
                Dropper::Sink => (less(made), String::new()),
                _ => (less(made), less(sink)),
            };
            let title = dropper.title();
            writeln!(text, "| {title} | {median:.0} ({min:.0} to {max:.0}) | {received} | {judged} |")?;
        }
        if !self.requests.is_empty() {
            text.push_str("\n| the flood goes to | requests/s |\n|---|---|\n");
        }
        for (flooded, samples) in &self.requests {
            let Some(Summary { median, min, max, .. }) = Summary::of(samples) else { continue };
            writeln!(text, "| {} | {median:.0} ({min:.0} to {max:.0}) |", flooded.title())?;
        }
        if let Some(rate) = Summary::of(&self.flood_rate) {
            writeln!(text, "\nMC-Proxy's interface got {:.2} million packets a second.", rate.median / 1e6)?;
        }
        Ok(text)
    }
}
