//! The shipped program under the restrictions of the shipped systemd unit, on a host of its own: what the unit forgets to
//! allow is found here, and not on somebody's machine. `peers/unit.py` makes the restrictions of the unit's own text.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use mc_testkit::ca::Ca;
use mc_testkit::client::Request;
use mc_testkit::clock::{PATIENCE, wait_until};
use mc_testkit::http::{Client, Origin, Then};
use mc_testkit::net::Host;
use mc_testkit::peer::{drop_in, unit};
use mc_testkit::proxy::{Config, Proxy};
use mc_testkit::requires;
use nix::sys::signal::Signal;

const NAME: &str = "www.example.org";
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const GET: &str = "GET / HTTP/1.1\r\nhost: www.example.org\r\n\r\n";
const WEB: &str = "10.65.7.1:443";

/// What the drop-in mounts.
const PINS: &str = "/run/mc-proxy-bpf";

struct Site {
    client: Host,
    host: Host,
    interface: String,
    origin: Origin,
    ca: Ca,
}

impl Site {
    fn new() -> Self {
        let (client, host) = (Host::new(), Host::new());
        let [_, interface] = client.link(&["10.65.7.2/24", "10.65.7.66/24"], &host, &["10.65.7.1/24"]);
        let origin = host.enter(|| Origin::saying(OK, Then::Keep));
        Self { client, host, interface, origin, ca: Ca::new() }
    }

    /// A proxy on the port that only the unit's capabilities open, under the unit with these drop-ins.
    fn config(&self, drop_ins: &[&Path], tables: &str) -> Config {
        let route = format!("mode = \"l7\"\nbackends = [{{ address = \"{}\" }}]", self.origin.address());
        let wrapper = unit("mc-proxy.service", drop_ins);
        Config::new()
            .on(&self.host)
            .under(&wrapper.each_ref().map(String::as_str))
            .listener_at("web", WEB.parse().unwrap(), "")
            .certificate("www", &self.ca.issue(&[NAME]))
            .route_lines("web", NAME, &route)
            .toml(tables)
    }

    fn xdp(&self) -> String {
        format!("[xdp]\ninterfaces = [\"{}\"]\npins = \"{PINS}\"\n", self.interface)
    }

    #[track_caller]
    fn answers(&self) {
        let status = self.client.enter(|| {
            let stream = Request::new(&self.ca, WEB.parse().unwrap(), NAME).open().unwrap();
            Client::on(stream).ask(GET).status()
        });
        assert_eq!(status, 200);
    }
}

/// State and detail of a capability.
fn capability(proxy: &Proxy, name: &str) -> (String, String) {
    let all = proxy.ctl(&["capabilities"]);
    let found = all.as_array().unwrap().iter().find(|it| it["name"] == name);
    let found = found.unwrap_or_else(|| panic!("no {name} among {all}"));
    (found["state"].as_str().unwrap().to_owned(), found["detail"].as_str().unwrap().to_owned())
}

fn pins(proxy: &Proxy) -> usize {
    let root = proxy.root().display().to_string().replace('/', "-").replace('.', "_");
    let folder = format!("/proc/{}/root{PINS}/mc-proxy{root}", proxy.pid());
    std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder}: {error}")).count()
}

#[test]
fn everything_works_under_the_unit_s_restrictions() {
    requires!(root, "nsenter", "ip", "python3", "setpriv", "systemd-analyze");
    let site = Site::new();
    let mut proxy = Proxy::start(site.config(&[], ""));
    site.answers();
    let status = std::fs::read_to_string(format!("/proc/{}/status", proxy.pid())).unwrap();
    assert!(status.contains("Seccomp:\t2") && status.contains("CapEff:\t0000000000000400"), "{status}");
    // What it does only now and then: files and certificates anew, a listener more, a new process in its place.
    proxy.process().signal(Signal::SIGHUP);
    drop(proxy.ctl(&["listener", "add", "more", "10.65.7.1:8443"]));
    assert!(proxy.metric("mcproxy_listeners", &[]) >= 0.0);
    proxy.process().signal(Signal::SIGUSR2);
    assert!(proxy.process().wait(PATIENCE).success(), "{}", proxy.errors());
    site.answers();
    assert_eq!(proxy.errors().matches("\"level\":\"ERROR\"").count(), 0, "{}", proxy.errors());
    assert_eq!(proxy.errors().matches("\"level\":\"WARN\"").count(), 0, "{}", proxy.errors());
}

#[test]
fn with_the_drop_in_the_firewall_is_in_the_kernel_and_outlives_a_crash() {
    requires!(root, "nsenter", "ip", "python3", "setpriv", "systemd-analyze", "mount");
    let site = Site::new();
    let drop_in = drop_in("mc-proxy.service.d/xdp.conf");
    let proxy = Proxy::start(site.config(&[&drop_in], &site.xdp()));
    site.answers();
    assert_eq!(capability(&proxy, "xdp").0, "on");
    let (mode, detail) = capability(&proxy, &format!("xdp:{}", site.interface));
    assert_eq!((mode.as_str(), detail.as_str()), ("native", "outlives a restart"), "{}", proxy.errors());
    assert_eq!(pins(&proxy), 1);
    drop(proxy.ctl(&["firewall", "deny", "10.65.7.66/32"]));
    let packet = |reason: &str| proxy.metric("mcproxy_xdp_packets_total", &[&format!("reason=\"{reason}\"")]);
    let knocked = site
        .client
        .command("curl")
        .args(["-s", "-m", "20", "--interface", "10.65.7.66"])
        .arg(format!("http://{WEB}/"))
        .spawn();
    let mut knocked = knocked.unwrap();
    wait_until("the kernel to drop what is denied", || packet("denied_cidr") >= 1.0);
    knocked.kill().unwrap();
    knocked.wait().unwrap();
    site.answers();
}

/// What a unit forbids is said where somebody looks: in the log and in `capabilities`.
#[test]
fn what_the_unit_forbids_is_said() {
    requires!(root, "nsenter", "ip", "python3", "setpriv", "systemd-analyze");
    let site = Site::new();
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let (xdp, without) = (drop_in("mc-proxy.service.d/xdp.conf"), folder.path().join("without.conf"));
    let name = format!("xdp:{}", site.interface);
    let cases = [
        // The interfaces cannot be listed.
        ("RestrictAddressFamilies=\nRestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX", "AF_NETLINK"),
        // The program cannot be loaded.
        (
            "CapabilityBoundingSet=\nAmbientCapabilities=\nCapabilityBoundingSet=CAP_NET_BIND_SERVICE\n\
          AmbientCapabilities=CAP_NET_BIND_SERVICE",
            "CAP_BPF",
        ),
    ];
    for (lines, remedy) in cases {
        std::fs::write(&without, format!("[Service]\n{lines}\n")).unwrap();
        let proxy = Proxy::start(site.config(&[&xdp, &without], &site.xdp()));
        site.answers();
        for row in ["xdp", &name] {
            assert_eq!(capability(&proxy, row).0, "off", "{lines}");
        }
        let (_, detail) = capability(&proxy, &name);
        assert!(detail.contains(remedy), "{detail}");
        let told = proxy.errors();
        let told = told.lines().filter(|line| line.contains("user space alone") && line.contains(remedy));
        assert!(told.count() >= 1, "{}", proxy.errors());
        assert!(proxy.metric("mcproxy_xdp_attached", &[]) < 1.0);
        assert!(
            proxy.metrics().contains(&format!(
                "mcproxy_xdp_attached{{interface=\"{}\",mode=\"off\"}} 0",
                site.interface
            ))
        );
    }
}

/// The bpffs of systemd is for root alone: what is printed then leads to one that is not.
#[test]
fn a_bpffs_of_root_s_alone_is_named_with_its_remedy() {
    requires!(root, "nsenter", "ip", "python3", "setpriv", "systemd-analyze", "mount");
    let site = Site::new();
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let (xdp, root_s) = (drop_in("mc-proxy.service.d/xdp.conf"), folder.path().join("root.conf"));
    std::fs::write(&root_s, format!("[Service]\nExecStartPre=+/bin/chown root:root {PINS}\n")).unwrap();
    let proxy = Proxy::start(site.config(&[&xdp, &root_s], &site.xdp()));
    let (mode, detail) = capability(&proxy, &format!("xdp:{}", site.interface));
    assert_eq!(mode, "native");
    for part in ["ends with this process", "Permission denied", "[xdp] pins", "xdp.conf"] {
        assert!(detail.contains(part), "{part}: {detail}");
    }
    assert!(proxy.errors().contains("Permission denied"), "{}", proxy.errors());
}
