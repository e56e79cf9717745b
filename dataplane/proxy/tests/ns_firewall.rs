//! The firewall in the kernel, as the shipped program sets it up: a client and a proxy on hosts of their own, joined by
//! a cable. What is refused there is refused by silence, and nothing else of the host is touched.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, SocketAddr};
use std::process::Stdio;
use std::time::Duration;

use mc_testkit::backend::{Backend, listen};
use mc_testkit::clock::{PATIENCE, wait_for, wait_until};
use mc_testkit::net::{BpfFs, Host};
use mc_testkit::peer::without;
use mc_testkit::proxy::{Config, Proxy};
use mc_testkit::{requires, rounds};
use nix::sys::signal::Signal;
use serde_json::Value;
use socket2::{Domain, Socket, Type};

/// A client with several addresses, and a host for a proxy.
struct Site {
    client: Host,
    host: Host,
    /// The host's interface, and its hardware address.
    interface: String,
    mac: String,
    /// The client's.
    outer: String,
    backend: Backend,
    pins: BpfFs,
    _peer: mc_xdp::Firewall,
}

const PROXY: &str = "10.65.1.1:443";
const PROXY6: &str = "[fd65:1::1]:443";
const GOOD: &str = "10.65.1.2";
const BAD: &str = "10.65.1.66";
const GOOD6: &str = "fd65:1::2";
const BAD6: &str = "fd65:1:0:0:bad::2";

/// Time for an answer: hosts that have never spoken find each other first.
const LONG: Duration = PATIENCE;

/// Floods are longer than any test, and are stopped by it.
const HOUR: Duration = Duration::from_secs(3600);

/// Time after which there is none.
const SHORT: Duration = Duration::from_millis(400);

impl Site {
    fn new() -> Self {
        let (client, host) = (Host::new(), Host::new());
        let ours = ["10.65.1.2/24", "10.65.1.66/24", "fd65:1::2/48", "fd65:1:0:0:bad::2/48"];
        let [outer, interface] = client.link(&ours, &host, &["10.65.1.1/24", "fd65:1::1/48"]);
        let mac = host.mac(&interface);
        // The way to those whom a flood makes up.
        host.ip("route add 198.18.0.0/15 via 10.65.1.2");
        host.ip("route add 2001:db8:f100::/40 via fd65:1::2");
        // This kind of cable takes what an XDP program sends back only where there is one at the other end too. Without
        // rules it lets everything pass.
        let peer = client.enter(|| {
            let mut peer = mc_xdp::Firewall::load(1).unwrap();
            peer.attach(&outer, mc_xdp::Ask::Any, None).unwrap();
            peer
        });
        let backend = Backend::start_on(&host, "127.0.0.1:8443".parse().unwrap(), |_| {});
        Self { client, host, interface, mac, outer, backend, pins: BpfFs::mount(), _peer: peer }
    }

    fn config(&self, xdp: &str) -> Config {
        let xdp = format!(
            "[xdp]\ninterfaces = [\"{}\"]\npins = \"{}\"\n{xdp}\n",
            self.interface,
            self.pins.path().display()
        );
        self.config_of(&xdp)
    }

    fn config_of(&self, tables: &str) -> Config {
        Config::new()
            .on(&self.host)
            .listener_at("web", "0.0.0.0:443".parse().unwrap(), "")
            .listener_at("web6", "[::]:443".parse().unwrap(), "")
            .route("*", self.backend.address())
            .toml(tables)
    }

    /// What becomes of a connection from this address of the client's: `Ok`, or refused, or no answer.
    fn connect(&self, from: &str, to: &str, time: Duration) -> std::io::Result<()> {
        let (from, to): (IpAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
        self.client.enter(|| {
            let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
            socket.bind(&SocketAddr::new(from, 0).into())?;
            socket.connect_timeout(&to.into(), time)
        })
    }

    #[track_caller]
    fn open(&self, from: &str, to: &str) {
        let connected = self.connect(from, to, LONG);
        assert!(connected.is_ok(), "{from} to {to}: {connected:?}");
    }

    #[track_caller]
    fn silent(&self, from: &str, to: &str) {
        let error = self.connect(from, to, SHORT).expect_err("it is refused");
        assert_eq!(error.kind(), std::io::ErrorKind::TimedOut, "{from} to {to}: {error}");
    }

    /// Starts SYNs from made-up sources to an address of the host.
    fn flood(&self, to: &str, per_s: u32, time: Duration) -> std::process::Child {
        self.client.syn_flood(&self.outer, &self.mac, to.parse().unwrap(), per_s, time)
    }

    /// A counter of the host's kernel.
    fn counter(&self, name: &str) -> u64 {
        let text = self.host.run("cat", &["/proc/net/netstat"]);
        let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
        let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
        let at = names.split(' ').position(|it| it == name).unwrap();
        values.split(' ').nth(at).unwrap().parse().unwrap()
    }

    /// User space answers, be it by a reset.
    #[track_caller]
    fn answered(&self, from: &str, to: &str) {
        if let Err(error) = self.connect(from, to, LONG) {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{from} to {to}: {error}");
        }
    }

    /// Whether there is an XDP program on the host's interface.
    fn has_program(&self) -> bool {
        self.host.run("ip", &["-json", "link", "show", "dev", &self.interface]).contains("\"xdp\"")
    }
}

/// The state and detail of a capability.
fn capability(proxy: &Proxy, name: &str) -> (String, String) {
    let all = proxy.ctl(&["capabilities"]);
    let found = all.as_array().unwrap().iter().find(|it| it["name"] == name);
    let found = found.unwrap_or_else(|| panic!("no {name} among {all}"));
    (found["state"].as_str().unwrap().to_owned(), found["detail"].as_str().unwrap().to_owned())
}

fn dropped(proxy: &Proxy, reason: &str) -> f64 {
    proxy.metric("mcproxy_xdp_packets_total", &[&format!("reason=\"{reason}\"")])
}

#[test]
fn who_is_denied_gets_no_answer_from_listeners_and_every_answer_from_others() {
    requires!(root, "mount");
    let site = Site::new();
    let ssh = site.host.enter(|| listen("10.65.1.1:22".parse().unwrap()));
    let proxy = Proxy::start(site.config(""));
    let how = capability(&proxy, &format!("xdp:{}", site.interface));
    assert_eq!(how, ("native".to_owned(), "outlives a restart".to_owned()));
    for (from, to) in [(GOOD, PROXY), (BAD, PROXY), (GOOD6, PROXY6), (BAD6, PROXY6)] {
        site.open(from, to);
    }
    let mut watch =
        proxy.ctl_command(&["--output", "json", "firewall", "watch"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    drop(proxy.ctl(&["firewall", "deny", &format!("{BAD}/32")]));
    drop(proxy.ctl(&["firewall", "deny", "fd65:1:0:0:bad::/80"]));
    for (from, to) in [(BAD, PROXY), (BAD6, PROXY6)] {
        site.silent(from, to);
    }
    for (from, to) in [(GOOD, PROXY), (GOOD6, PROXY6), (BAD, "10.65.1.1:22"), (GOOD, "10.65.1.1:22")] {
        site.open(from, to);
    }
    assert!(dropped(&proxy, "denied_cidr") >= 2.0);
    let told: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!((&told["where"], &told["reason"]), (&"kernel".into(), &"denied_cidr".into()), "{told}");
    assert!(told["source"].as_str().unwrap().starts_with(&format!("{BAD}:")), "{told}");
    assert_eq!((&told["destination"], &told["interface"]), (&PROXY.into(), &site.interface.as_str().into()));
    watch.kill().unwrap();
    watch.wait().unwrap();
    // A listener that comes is guarded, one that goes is not.
    drop(proxy.ctl(&["listener", "add", "more", "10.65.1.1:8443"]));
    site.silent(BAD, "10.65.1.1:8443");
    site.open(GOOD, "10.65.1.1:8443");
    drop(proxy.ctl(&["listener", "remove", "more"]));
    let error = site.connect(BAD, "10.65.1.1:8443", LONG).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "{error}");
    drop(proxy.ctl(&["firewall", "remove", "deny", &format!("{BAD}/32")]));
    site.open(BAD, PROXY);
    drop(ssh);
}

#[test]
fn the_kernel_rates_and_user_space_does_not_do_it_again() {
    requires!(root, "mount");
    let site = Site::new();
    let proxy = Proxy::start(site.config("[firewall.rate]\nper_address = 1\naddress_burst = 5\n"));
    for _ in 0..5 {
        site.open(GOOD, PROXY);
    }
    site.silent(GOOD, PROXY);
    assert!(dropped(&proxy, "rate_address") >= 1.0);
    site.open(BAD, PROXY);
    assert!(proxy.metric("mcproxy_connections_total", &["outcome=\"rate_address\""]) < 1.0);
    // What comes by another way than the guarded interface is rated in user space.
    site.host.enter(|| {
        // Five are let through, and one more for each second that this takes.
        for _ in 0..20 {
            std::net::TcpStream::connect("127.0.0.1:443").unwrap();
        }
    });
    proxy.wait_metric("mcproxy_connections_total", &["outcome=\"rate_address\""], 3.0);
}

#[test]
fn a_crash_leaves_it_in_force_and_whoever_returns_takes_it_over() {
    requires!(root, "mount");
    let site = Site::new();
    let rule = format!("[firewall]\nrules = [{{ action = \"deny\", cidr = \"{BAD}/32\" }}]");
    let mut proxy = Proxy::start(site.config(&rule));
    site.silent(BAD, PROXY);
    proxy.process().kill9();
    assert!(site.has_program(), "it ended with the process");
    // Nobody listens: who is not denied is told so, who is denied hears nothing.
    wait_until("the sockets to be closed", || {
        site.connect(GOOD, PROXY, LONG)
            .is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
    });
    site.silent(BAD, PROXY);
    proxy.restart();
    assert!(proxy.errors().contains("\"taken_over\":true"), "{}", proxy.errors());
    site.silent(BAD, PROXY);
    drop(proxy.ctl(&["firewall", "remove", "deny", &format!("{BAD}/32")]));
    site.open(BAD, PROXY);
    // A stop takes it away: no rule outlives its owner.
    proxy.term();
    assert!(proxy.process().wait(PATIENCE).success());
    assert!(!site.has_program());
}

/// A proxy that is started without it removes what a crash has left.
#[test]
fn what_is_no_longer_configured_is_removed() {
    requires!(root, "mount");
    let site = Site::new();
    let rule = format!("[firewall]\nrules = [{{ action = \"deny\", cidr = \"{BAD}/32\" }}]");
    let proxy = Proxy::start(site.config(&rule));
    let root = proxy.into_root();
    assert!(site.has_program());
    let without = format!("[xdp]\npins = \"{}\"", site.pins.path().display());
    let proxy = Proxy::try_start_in(root, site.config_of(&without)).unwrap();
    assert!(!site.has_program());
    assert_eq!(capability(&proxy, "xdp").0, "off");
    site.answered(BAD, PROXY);
    proxy.wait_outcome("denied_cidr");
}

#[test]
fn an_interface_may_vanish_and_come_back() {
    requires!(root, "mount");
    let mut site = Site::new();
    let proxy = Proxy::start(site.config(""));
    drop(proxy.ctl(&["firewall", "deny", &format!("{BAD}/32")]));
    let name = format!("xdp:{}", site.interface);
    site.host.ip(&format!("link delete {}", site.interface));
    wait_until("the proxy to notice", || capability(&proxy, &name).0 == "off");
    assert!(capability(&proxy, &name).1.contains("there is no interface"));
    let [_, interface] = site.client.link(&["10.65.2.2/24"], &site.host, &["10.65.2.1/24"]);
    site.host.ip(&format!("link set {interface} down"));
    site.host.ip(&format!("link set {interface} name {}", site.interface));
    site.host.ip(&format!("link set {} up", site.interface));
    wait_until("the proxy to attach again", || capability(&proxy, &name).0 == "native");
    site.interface = interface;
    drop(proxy.ctl(&["firewall", "deny", "10.65.2.2/32"]));
    site.silent("10.65.2.2", "10.65.2.1:443");
}

#[test]
fn two_proxies_do_not_take_an_interface_from_each_other() {
    requires!(root, "mount");
    let site = Site::new();
    let first = Proxy::start(site.config(""));
    let xdp =
        format!("[xdp]\ninterfaces = [\"{}\"]\npins = \"{}\"\n", site.interface, site.pins.path().display());
    let second = Proxy::start(
        Config::new().on(&site.host).listener_at("web", "10.65.1.1:9443".parse().unwrap(), "").toml(&xdp),
    );
    let name = format!("xdp:{}", site.interface);
    let (state, detail) = capability(&second, &name);
    assert_eq!(state, "off");
    assert!(detail.contains("has an XDP program of somebody else"), "{detail}");
    drop(second.ctl(&["firewall", "deny", &format!("{BAD}/32")]));
    site.open(BAD, PROXY);
    site.answered(BAD, "10.65.1.1:9443");
    second.wait_outcome("denied_cidr");
    drop(second);
    assert_eq!(capability(&first, &name).0, "native");
}

#[test]
fn generic_mode_does_the_same() {
    requires!(root, "mount");
    let site = Site::new();
    let proxy = Proxy::start(site.config("mode = \"generic\""));
    assert_eq!(capability(&proxy, &format!("xdp:{}", site.interface)).0, "generic");
    drop(proxy.ctl(&["firewall", "deny", &format!("{BAD}/32")]));
    site.silent(BAD, PROXY);
    site.open(GOOD, PROXY);
}

#[test]
fn without_a_bpffs_it_works_and_ends_with_the_process() {
    requires!(root, "mount");
    let site = Site::new();
    let folder = tempfile::tempdir().unwrap();
    let xdp =
        format!("[xdp]\ninterfaces = [\"{}\"]\npins = \"{}\"\n", site.interface, folder.path().display());
    let mut proxy = Proxy::start(site.config_of(&xdp));
    let (state, detail) = capability(&proxy, &format!("xdp:{}", site.interface));
    assert_eq!(state, "native");
    assert!(detail.contains("ends with this process") && detail.contains("is not a bpffs"), "{detail}");
    drop(proxy.ctl(&["firewall", "deny", &format!("{BAD}/32")]));
    site.silent(BAD, PROXY);
    proxy.process().signal(Signal::SIGKILL);
    proxy.process().wait(PATIENCE);
    wait_until("the program to go", || !site.has_program());
}

/// A policy that the kernel has no room for, and a kernel that lends nothing, leave user space to judge alone.
#[test]
fn without_the_right_to_load_it_user_space_judges_alone() {
    requires!(root, "mount", "setpriv");
    let site = Site::new();
    let rule = format!("[firewall]\nrules = [{{ action = \"deny\", cidr = \"{BAD}/32\" }}]");
    let without = ["setpriv", "--bounding-set", "-sys_admin,-bpf,-perfmon"];
    let proxy = Proxy::start(site.config(&rule).under(&without));
    let (state, detail) = capability(&proxy, "xdp");
    assert_eq!(state, "off");
    assert!(detail.contains("CAP_BPF"), "{detail}");
    assert!(!site.has_program());
    site.answered(BAD, PROXY);
    proxy.wait_outcome("denied_cidr");
}

/// On a kernel that lacks something, what it lacks is said, and user space judges where the kernel does not.
#[test]
fn a_kernel_that_lacks_something_is_made_up_for() {
    requires!(root, "mount", "python3");
    let site = Site::new();
    let rule = format!("[firewall]\nrules = [{{ action = \"deny\", cidr = \"{BAD}/32\" }}]");
    let check = |lacks: &str, name: &str, state: &str, says: &str| {
        wait_until("the one before to end", || !site.has_program());
        let proxy = Proxy::start(site.config(&rule).under(&without(lacks)));
        let (is, detail) = capability(&proxy, name);
        assert_eq!(is, state, "without {lacks}: {detail}");
        assert!(detail.contains(says), "without {lacks}: {detail}");
        if site.has_program() {
            site.silent(BAD, PROXY);
        } else {
            site.answered(BAD, PROXY);
            proxy.wait_outcome("denied_cidr");
        }
        site.open(GOOD, PROXY);
    };
    let interface = format!("xdp:{}", site.interface);
    // All of bpf(2); then commands of `enum bpf_cmd`: maps, programs, pins, test runs (which it does not need).
    check("bpf", "xdp", "off", "Function not implemented");
    check("bpf:0", "xdp", "off", "does not take");
    check("bpf:5", "xdp", "off", "does not take");
    check("bpf:6", &interface, "native", "ends with this process");
    check("bpf:10", &interface, "native", "outlives a restart");
}

/// An interface whose driver knows nothing of XDP.
#[test]
fn where_the_driver_cannot_the_stack_does_it() {
    requires!(root, "mount");
    let site = Site::new();
    let (inner, outer) = ("10.66.1.1:443", "10.66.1.2");
    site.host.ip("link add br0 type bridge");
    site.host.ip(&format!("link set {} master br0", site.interface));
    site.host.ip("address add 10.66.1.1/24 dev br0");
    site.host.ip("link set br0 up");
    site.client.ip(&format!("address add {outer}/24 dev {}", site.outer));
    let xdp = format!("[xdp]\ninterfaces = [\"br0\"]\npins = \"{}\"\n", site.pins.path().display());
    let proxy = Proxy::start(site.config_of(&xdp));
    assert_eq!(capability(&proxy, "xdp:br0").0, "generic");
    site.open(outer, inner);
    drop(proxy.ctl(&["firewall", "deny", &format!("{outer}/32")]));
    site.silent(outer, inner);
}

/// What the kernel has no room for, user space judges alone, until there is room.
#[test]
fn listeners_that_do_not_fit_leave_it_to_user_space_until_they_fit() {
    requires!(root, "mount");
    let site = Site::new();
    for number in 0..40 {
        site.host.ip(&format!("address add 10.65.2.{number}/32 dev {}", site.interface));
    }
    let rule = format!("[firewall]\nrules = [{{ action = \"deny\", cidr = \"{BAD}/32\" }}]");
    let proxy = Proxy::start(site.config(&rule));
    let interface = format!("xdp:{}", site.interface);
    assert_eq!(capability(&proxy, &interface).0, "native");
    site.silent(BAD, PROXY);
    let ports = 2000..2060;
    for port in ports.clone() {
        drop(proxy.ctl(&["listener", "add", &format!("more{port}"), &format!("0.0.0.0:{port}")]));
    }
    let (state, detail) = capability(&proxy, "xdp");
    assert_eq!(state, "off", "{detail}");
    assert!(detail.contains("no room for") && detail.contains("listeners"), "{detail}");
    site.answered(BAD, PROXY);
    proxy.wait_outcome("denied_cidr");
    // Another policy does not bring back what does not fit.
    drop(proxy.ctl(&["firewall", "deny", "10.65.1.67/32"]));
    site.answered(BAD, PROXY);
    assert_eq!(capability(&proxy, "xdp").0, "off");
    for port in ports {
        drop(proxy.ctl(&["listener", "remove", &format!("more{port}")]));
    }
    assert_eq!(capability(&proxy, &interface).0, "native");
    site.silent(BAD, PROXY);
    site.open(GOOD, PROXY);
}

/// A database that is replaced, cut off or overwritten while it is read and compiled: whoever is denied by all that are
/// whole is denied all the time, and whoever is not is served all the time.
#[test]
fn a_database_may_be_replaced_while_it_is_compiled() {
    requires!(root, "mount");
    let site = Site::new();
    let (swiss, german) = ("192.0.2.9", "198.51.100.9");
    for address in [swiss, german] {
        site.client.ip(&format!("address add {address}/32 dev {}", site.outer));
        site.host.ip(&format!("route add {address}/32 via 10.65.1.2"));
    }
    let fixture = |name: &str| {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
        std::fs::read(path).unwrap()
    };
    let (one, other) = (fixture("country.mmdb"), fixture("country-maxmind.mmdb"));
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("country.mmdb");
    std::fs::write(&database, &one).unwrap();
    let tables = format!(
        "[geoip]\ncountry_database = \"{}\"\n[firewall]\nrules = [{{ action = \"deny\", country = \"CH\" }}]",
        database.display()
    );
    let mut proxy = Proxy::start(site.config(&tables));
    site.silent(swiss, PROXY);
    site.open(german, PROXY);
    for round in 0..12_usize {
        let next = [&one, &other][round % 2];
        // In place, so that it may be read half written: cut off, then the rest.
        std::fs::write(&database, &next[..next.len() / 2]).unwrap();
        proxy.process().signal(Signal::SIGHUP);
        std::fs::write(&database, next).unwrap();
        proxy.process().signal(Signal::SIGHUP);
        site.silent(swiss, PROXY);
        site.open(german, PROXY);
    }
    std::fs::write(&database, b"no database").unwrap();
    proxy.process().signal(Signal::SIGHUP);
    wait_until("it to be told of", || proxy.errors().contains("the GeoIP databases stay as they were"));
    site.silent(swiss, PROXY);
    site.open(german, PROXY);
    assert_eq!(capability(&proxy, &format!("xdp:{}", site.interface)).0, "native");
    assert!(dropped(&proxy, "denied_country") >= 12.0);
}

/// During a flood from made-up sources every client is served, over IPv4 and IPv6, and the kernel sends no cookie itself.
#[test]
fn a_syn_flood_hurts_nobody() {
    requires!(root, "mount");
    let site = Site::new();
    let proxy = Proxy::start(site.config("syn_cookies_above = 5000"));
    site.open(GOOD, PROXY);
    site.open(GOOD6, PROXY6);
    let mut floods = [site.flood(PROXY, 10_000, HOUR), site.flood(PROXY6, 10_000, HOUR)];
    proxy.wait_metric("mcproxy_xdp_syn_cookies", &[], 1.0);
    // Until the kernel has noted the need for both.
    proxy.wait_metric("mcproxy_xdp_packets_total", &["cookie_sent"], 20_000.0);
    let sent = site.counter("SyncookiesSent");
    // The long run: more than the two minutes for which the kernel remembers that it was in need of cookies.
    let rounds = rounds(40, 600);
    for _ in 0..rounds {
        assert!(floods.iter_mut().all(|flood| flood.try_wait().unwrap().is_none()), "the flood has ended");
        site.open(GOOD, PROXY);
        site.open(GOOD6, PROXY6);
        mc_testkit::clock::sleep_ms(250);
    }
    for flood in &mut floods {
        flood.kill().unwrap();
        flood.wait().unwrap();
    }
    assert_eq!(site.counter("SyncookiesSent"), sent, "the kernel has sent cookies");
    assert!(site.counter("SyncookiesRecv") >= rounds, "clients were served without a cookie");
    wait_for("the flood to be over", PATIENCE, || {
        (proxy.metric("mcproxy_xdp_syn_cookies", &[]) < 1.0).then_some(())
    });
    site.open(GOOD, PROXY);
}

/// There is no moment at which who is denied gets an answer.
#[test]
fn a_new_process_takes_over_the_firewall_in_the_kernel() {
    requires!(root, "mount");
    let site = Site::new();
    let mut proxy = Proxy::start(site.config(""));
    drop(proxy.ctl(&["firewall", "deny", &format!("{BAD}/32")]));
    for _ in 0..3 {
        let mut old = proxy.take_over();
        site.silent(BAD, PROXY);
        site.open(GOOD, PROXY);
        assert!(old.wait(PATIENCE).success());
        assert!(site.has_program());
        site.silent(BAD, PROXY);
    }
    drop(proxy.ctl(&["firewall", "remove", "deny", &format!("{BAD}/32")]));
    site.open(BAD, PROXY);
}

/// A listener gets what comes to addresses and ports on which nobody listens, and a new process goes on with it.
#[test]
fn connections_to_other_addresses_are_steered_to_a_listener() {
    requires!(root, "mount");
    let site = Site::new();
    site.host.ip("route add local 198.51.100.0/24 dev lo");
    site.host.ip("-6 route add local 2001:db8:5::/64 dev lo");
    site.client.ip("route add 198.51.100.0/24 via 10.65.1.1");
    site.client.ip("-6 route add 2001:db8:5::/64 via fd65:1::1");
    let mut proxy = Proxy::start(site.config_of(""));
    let refused = |to: &str| {
        let error = site.connect(GOOD, to, LONG).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "{to}: {error}");
    };
    refused("198.51.100.7:8443");
    let update =
        ["listener", "update", "web", "--steer", "198.51.100.0/25:8000-8999", "--steer", "198.51.100.200:1"];
    drop(proxy.ctl(&update));
    drop(proxy.ctl(&["listener", "update", "web6", "--steer", "[2001:db8:5::/64]:1-65535"]));
    assert_eq!(capability(&proxy, "steering").0, "on");
    let reached = |proxy: &Proxy| {
        for (from, to) in [
            (GOOD, "198.51.100.0:8000"),
            (GOOD, "198.51.100.127:8999"),
            (GOOD, "198.51.100.200:1"),
            (GOOD, PROXY),
            (GOOD6, "[2001:db8:5::1234]:1"),
            (GOOD6, "[2001:db8:5:0:ffff::]:65535"),
            (GOOD6, PROXY6),
        ] {
            site.open(from, to);
        }
        for to in ["198.51.100.128:8000", "198.51.100.7:7999", "198.51.100.7:9000", "198.51.100.200:2"] {
            refused(to);
        }
        assert_eq!(proxy.ctl(&["listener", "list"])[0]["listener"]["steered"].as_array().unwrap().len(), 2);
    };
    reached(&proxy);
    let mut old = proxy.take_over();
    reached(&proxy);
    assert!(old.wait(PATIENCE).success());
    reached(&proxy);
    // Less is steered, and then nothing.
    drop(proxy.ctl(&["listener", "update", "web", "--steer", "none"]));
    refused("198.51.100.7:8443");
    site.open(GOOD6, "[2001:db8:5::1234]:1");
    drop(proxy.ctl(&["listener", "remove", "web6", "--with-routes"]));
    let error = site.connect(GOOD6, "[2001:db8:5::1234]:1", LONG).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "{error}");
    // Too many are refused as a whole.
    let many: Vec<String> = (1..=65).map(|port| format!("--steer=198.51.100.7:{port}")).collect();
    let mut words = vec!["listener", "update", "web"];
    words.extend(many.iter().map(String::as_str));
    let output = proxy.ctl_output(&words);
    assert!(!output.status.success());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("65 sets of steered addresses are more than 64"), "{errors}");
    refused("198.51.100.7:1");
}
