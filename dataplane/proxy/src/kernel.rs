//! The kernel's half of the firewall: keeps what is judged at the network card in step with what was decided here.
//!
//! Whatever cannot be had there is judged in user space alone, as all of it is where no interface is named, and
//! [`Kernel::report`] says so. Nothing here waits for a network; a policy of half a million prefixes takes tenths of a
//! second, on the thread that makes changes.
//!
//! While the kernel rates the connections that come to an address, user space does not do it again ([`Covered`]): it
//! would count those that the kernel has let pass, later than they came, and refuse some of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use mc_core::firewall::Compiled;
use mc_core::firewall::tables::{Places, Tables};
use mc_core::flood::Gate;
use mc_core::model::{Listener, ProxyIn};
use mc_ebpf_abi::policy::{Count, REASONS, Reason};
use mc_ebpf_abi::verdict::Verdict;
use mc_xdp::{
    Ask, AttachError, Attached, Firewall, Interface, LoadError, Mode, Samples, Steer, SteerError, Steering,
    Where,
};

use crate::clock;
use crate::config::{Xdp, XdpMode};
use crate::geoip::GeoIp;
use mcdsl::chain;

/// The kernel's half. One for the process; by default there is none.
#[derive(Debug, Default)]
pub struct Kernel {
    /// Where it is to be, by name.
    wanted: Vec<String>,
    ask: Ask,
    pins: Option<PathBuf>,
    state: Mutex<State>,
    steering: Mutex<Steers>,
}

/// What gives connections to other addresses to listeners.
#[derive(Debug, Default)]
enum Steers {
    /// Nobody has asked for it yet.
    #[default]
    Off,
    /// Not to be had.
    Unavailable(String),
    On(Box<Steering>),
}

/// Local addresses whose connections the kernel rates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Covered(BTreeSet<IpAddr>);

/// What works, for those who ask.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Interfaces, and how it is there, or why not.
    pub interfaces: BTreeMap<String, Result<Attached, String>>,
    /// Why nothing is judged in the kernel at all; empty: there is, or none was asked for.
    pub problem: String,
    /// Whether it outlives this process until the next one takes over.
    pub pinned: bool,
    /// Whether SYN cookies are in use.
    pub cookies: bool,
    /// Whether listeners get what comes to other addresses: why not, empty where they do, `None` where nobody asks for it.
    pub steering: Option<String>,
    /// How long the last change of policy took, in microseconds.
    pub policy_us: u64,
}

#[derive(Debug, Default)]
enum State {
    /// Not asked for.
    #[default]
    Off,
    /// Not to be had.
    Unavailable(String),
    Loaded(Box<Loaded>),
}

#[derive(Debug)]
struct Loaded {
    firewall: Firewall,
    interfaces: BTreeMap<String, Result<Attached, String>>,
    /// Indices of those that it is attached to.
    indices: BTreeMap<String, u32>,
    /// Where we listen, as configured.
    listeners: Vec<Listener>,
    /// What the kernel was last told.
    told: Vec<Where>,
    covered: Covered,
    /// Whether SYN cookies are in use.
    gate: Gate,
    /// What is wrong with the policy in force, and with the listeners, for the kernel; empty: nothing.
    policy_problem: String,
    listeners_problem: String,
    /// Why nothing is judged in the kernel though the program is there; empty: it is.
    aside: String,
    policy_us: u64,
}

impl Covered {
    /// Whether the kernel rates connections to this address.
    #[must_use]
    pub fn contains(&self, local: IpAddr) -> bool {
        self.0.contains(&local.to_canonical())
    }

    /// Whether there is none, so that nobody need ask.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Kernel {
    /// Loads the program where interfaces are named. What does not work is told of once here, and is no error.
    #[must_use]
    pub fn open(settings: &Xdp, root: &Path) -> Self {
        let pins = pins(settings, root);
        if let Some(pins) = &pins {
            // What an earlier configuration has left behind judges by rules that nobody keeps any more.
            for interface in mc_xdp::clean(pins, &settings.interfaces) {
                tracing::info!(interface, "the firewall is no longer in the kernel there");
            }
        }
        let state = if settings.interfaces.is_empty() {
            State::Off
        } else {
            match Loaded::new(settings.syn_cookies_above) {
                Ok(loaded) => State::Loaded(Box::new(loaded)),
                Err(error) => {
                    let problem = chain(&error);
                    tracing::warn!("the firewall is in user space alone: {problem}");
                    State::Unavailable(problem)
                }
            }
        };
        let ask = match settings.mode {
            XdpMode::Auto => Ask::Any,
            XdpMode::Native => Ask::Only(Mode::Native),
            XdpMode::Generic => Ask::Only(Mode::Generic),
        };
        Self {
            wanted: settings.interfaces.clone(),
            ask,
            pins,
            state: Mutex::new(state),
            steering: Mutex::default(),
        }
    }

    /// Judges by this policy from now on. Where the kernel cannot, it stands aside.
    pub fn set_policy(&self, compiled: &Compiled, geo: &GeoIp) {
        self.with(|loaded| {
            let began = clock::micros();
            let places = if compiled.needs_country() || compiled.needs_asn() {
                geo.places()
            } else {
                Places::default()
            };
            let tables = Tables::new(compiled, &places).map_err(|error| error.to_string());
            let set =
                tables.and_then(|tables| loaded.firewall.set_policy(&tables).map_err(|error| chain(&error)));
            loaded.policy_us = clock::micros() - began;
            loaded.policy_problem = set.err().unwrap_or_default();
            loaded.stand();
        });
    }

    /// Gives connections that come to these addresses to these sockets from now on, and no others.
    ///
    /// # Errors
    /// It cannot be had here; what was so before stays so.
    pub fn set_steering(&self, wanted: &[Steer<'_>]) -> Result<(), SteerError> {
        let mut steers = self.steering.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Steers::Off, []) = (&*steers, wanted) {
            return Ok(());
        }
        if !matches!(&*steers, Steers::On(_)) {
            *steers = match Steering::load() {
                Ok(steering) => Steers::On(Box::new(steering)),
                Err(error) => {
                    *steers = Steers::Unavailable(chain(&error));
                    return Err(error);
                }
            };
        }
        let Steers::On(steering) = &mut *steers else { return Ok(()) };
        steering.set(wanted)
    }

    /// Judges what comes to these listeners from now on.
    pub fn set_listeners<'a>(&self, listeners: impl Iterator<Item = &'a Listener>) {
        self.with(|loaded| {
            loaded.listeners = listeners.cloned().collect();
            loaded.told.clear();
            // Where they cannot be listed, `look` says so, and does this once they can.
            if let Ok(interfaces) = mc_xdp::interfaces() {
                loaded.tell(&interfaces);
            }
        });
    }

    /// Looks at the machine's interfaces: attaches to those that have come, and notices what is gone. To be called each
    /// second. Whether [`Self::covered`] is another now.
    pub fn look(&self) -> bool {
        let mut changed = false;
        self.with(|loaded| {
            let interfaces = match mc_xdp::interfaces() {
                Ok(interfaces) => interfaces,
                Err(error) => return loaded.cannot_list(&self.wanted, &error),
            };
            for name in &self.wanted {
                loaded.keep(name, interfaces.get(name), self.ask, self.pins.as_deref());
            }
            changed = loaded.tell(&interfaces);
        });
        changed
    }

    /// Whether there is something to look at.
    #[must_use]
    pub fn is_loaded(&self) -> bool {
        matches!(&*self.lock(), State::Loaded(_))
    }

    /// The name of an interface that it is attached to.
    #[must_use]
    pub fn interface(&self, index: u32) -> Option<String> {
        let mut name = None;
        self.with(|loaded| {
            let found = loaded.indices.iter().find(|(_, known)| **known == index);
            name = found.map(|(name, _)| name.clone());
        });
        name
    }

    /// Looks whether connections are asked for too fast, and has SYNs answered with cookies as long as they are. To be
    /// called ten times a second. `Some`: that has changed.
    pub fn look_for_flood(&self) -> Option<bool> {
        let mut changed = None;
        self.with(|loaded| {
            let Ok(counts) = loaded.firewall.counts() else { return };
            let syns = [
                Verdict::AllowedDefault as usize,
                Verdict::AllowedCidr as usize,
                Verdict::AllowedAsn as usize,
                Verdict::AllowedCountry as usize,
                Reason::CookieSent as usize,
            ];
            let asked = syns.iter().map(|number| counts[*number].packets).sum();
            changed = loaded.gate.look(clock::millis(), asked);
            let Some(on) = changed else { return };
            match loaded.firewall.set_control(on, SAMPLE_INTERVAL) {
                Ok(()) if on => tracing::warn!("a SYN flood: connections are answered with SYN cookies"),
                Ok(()) => tracing::info!("the SYN flood is over"),
                Err(error) => tracing::error!("SYN cookies cannot be switched: {}", chain(&error)),
            }
        });
        changed
    }

    /// Local addresses whose connections the kernel rates.
    #[must_use]
    pub fn covered(&self) -> Arc<Covered> {
        let mut covered = Arc::default();
        self.with(|loaded| covered = Arc::new(loaded.covered.clone()));
        covered
    }

    /// What works.
    #[must_use]
    pub fn report(&self) -> Report {
        let steering = match &*self.steering.lock().unwrap_or_else(PoisonError::into_inner) {
            Steers::Off => None,
            Steers::On(_) => Some(String::new()),
            Steers::Unavailable(problem) => Some(problem.clone()),
        };
        let mut report = Report { steering, ..Report::default() };
        match &*self.lock() {
            State::Off => {}
            State::Unavailable(problem) => {
                report.problem.clone_from(problem);
                report.interfaces =
                    self.wanted.iter().map(|name| (name.clone(), Err(problem.clone()))).collect();
            }
            State::Loaded(loaded) => {
                report.interfaces.clone_from(&loaded.interfaces);
                report.problem.clone_from(&loaded.aside);
                report.pinned = self.pins.is_some();
                report.cookies = loaded.gate.is_on();
                report.policy_us = loaded.policy_us;
            }
        }
        report
    }

    /// What was counted, by number of the reason; `None` where nothing is in the kernel.
    #[must_use]
    pub fn counts(&self) -> Option<[Count; REASONS]> {
        let mut counts = None;
        self.with(|loaded| counts = loaded.firewall.counts().ok());
        counts
    }

    /// Dropped packets from now on. Given once.
    #[must_use]
    pub fn samples(&self) -> Option<Samples> {
        let mut samples = None;
        self.with(|loaded| samples = loaded.firewall.samples());
        samples
    }

    /// Gives no connections to listeners any more that come to other addresses: another process does.
    pub fn stop_steering(&self) {
        *self.steering.lock().unwrap_or_else(PoisonError::into_inner) = Steers::Off;
    }

    /// Attaches again where another process may have taken over and has gone.
    pub fn take_back(&self) {
        self.with(|loaded| {
            let Loaded { indices, interfaces, .. } = loaded;
            // What is not pinned nobody could take.
            let is_ours = |name: &String| {
                interfaces
                    .get(name)
                    .and_then(|how| how.as_ref().ok())
                    .is_some_and(|it| it.not_pinned.is_some())
            };
            let pins = self.pins.is_some();
            indices.retain(|name, _| !pins || is_ours(name));
        });
        self.look();
    }

    /// Takes the firewall off all interfaces: nobody listens behind it any more.
    pub fn close(&self) {
        self.with(|loaded| {
            for name in &self.wanted {
                loaded.firewall.detach(name, self.pins.as_deref());
            }
        });
    }

    fn with(&self, act: impl FnOnce(&mut Loaded)) {
        if let State::Loaded(loaded) = &mut *self.lock() {
            act(loaded);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Loaded {
    fn new(syn_cookies_above: u32) -> Result<Self, LoadError> {
        let mut firewall = Firewall::load(fastrand::u64(..))?;
        if let Err(error) = firewall.set_control(false, SAMPLE_INTERVAL) {
            tracing::warn!("dropped packets are not told of: {}", chain(&error));
        }
        Ok(Self {
            firewall,
            interfaces: BTreeMap::new(),
            indices: BTreeMap::new(),
            listeners: Vec::new(),
            told: Vec::new(),
            covered: Covered::default(),
            gate: Gate::new(syn_cookies_above),
            policy_problem: String::new(),
            listeners_problem: String::new(),
            aside: String::new(),
            policy_us: 0,
        })
    }

    /// Judges in the kernel where it takes both policy and listeners; else stands aside: everything passes to user space,
    /// which judges alone.
    fn stand(&mut self) {
        let problems = [&self.policy_problem, &self.listeners_problem];
        let problem = problems.into_iter().find(|problem| !problem.is_empty()).cloned().unwrap_or_default();
        if problem == self.aside {
            return;
        }
        if problem.is_empty() {
            if let Err(error) = self.firewall.resume() {
                tracing::error!("the firewall stays in user space: {}", chain(&error));
                self.aside = chain(&error);
                return;
            }
            tracing::info!("the firewall is in the kernel again");
        } else {
            tracing::error!("the firewall is in user space alone: {problem}");
            if let Err(error) = self.firewall.stand_aside() {
                tracing::error!(%error, "and the kernel goes on judging by the rules of before");
            }
            self.covered = Covered::default();
        }
        self.aside = problem;
    }

    /// Attaches to an interface that is there and was not, or is another of the same name.
    fn keep(&mut self, name: &str, there: Option<&Interface>, ask: Ask, pins: Option<&Path>) {
        let before = self.interfaces.get(name).cloned();
        if self.indices.get(name).copied() == there.map(|it| it.index) && before.is_some() {
            return;
        }
        if self.indices.remove(name).is_some() {
            self.firewall.detach(name, pins);
        }
        let attached = match there {
            None => Err(AttachError::NoInterface(name.to_owned())),
            Some(_) => self.firewall.attach(name, ask, pins),
        };
        let now = match attached {
            Ok(attached) => {
                self.indices.insert(name.to_owned(), there.map_or(0, |it| it.index));
                if let Some(problem) = &attached.not_pinned {
                    tracing::warn!(interface = name, "the firewall ends with this process: {problem}");
                }
                Ok(attached)
            }
            Err(error) => Err(chain(&error)),
        };
        if before.as_ref() != Some(&now) {
            match &now {
                Ok(attached) => tracing::info!(
                    interface = name,
                    mode = attached.mode.word(),
                    taken_over = attached.taken_over,
                    "the firewall is in the kernel"
                ),
                Err(problem) => tracing::warn!("the firewall is in user space alone: {problem}"),
            }
        }
        self.interfaces.insert(name.to_owned(), now);
    }

    /// Says of each interface that the firewall is not on that the machine's interfaces cannot be listed.
    fn cannot_list(&mut self, wanted: &[String], error: &std::io::Error) {
        let problem = format!(
            "the machine's interfaces cannot be listed: {error}; a systemd unit needs AF_NETLINK in RestrictAddressFamilies"
        );
        for name in wanted.iter().filter(|name| !self.indices.contains_key(*name)) {
            let now = Err(problem.clone());
            if self.interfaces.get(name) != Some(&now) {
                tracing::warn!(interface = name, "the firewall is in user space alone: {problem}");
                self.interfaces.insert(name.clone(), now);
            }
        }
    }

    /// Tells the kernel where we listen, where that is another place than before. Whether what is covered is another.
    fn tell(&mut self, interfaces: &BTreeMap<String, Interface>) -> bool {
        let before = self.covered.clone();
        let local: BTreeSet<IpAddr> = interfaces
            .values()
            .flat_map(|it| &it.addresses)
            .copied()
            .filter(|it| !it.is_loopback())
            .collect();
        let places: Vec<Where> =
            self.listeners.iter().flat_map(|listener| places(listener, &local)).collect();
        if places != self.told {
            let set = self.firewall.set_listeners(&places);
            self.listeners_problem = set.err().map(|error| chain(&error)).unwrap_or_default();
            self.told = places;
            self.stand();
        }
        if self.aside.is_empty() {
            let attached: BTreeSet<&String> = self.indices.keys().collect();
            let through = |(name, it): &(&String, &Interface)| {
                attached.contains(name) || it.lower.iter().any(|lower| attached.contains(lower))
            };
            let covered = interfaces.iter().filter(through).flat_map(|(_, it)| &it.addresses).copied();
            self.covered = Covered(covered.collect());
        }
        self.covered != before
    }
}

/// Where a listener is to be found, on all local addresses where it says so, and which peers the kernel leaves to user
/// space because they speak for others.
fn places(listener: &Listener, local: &BTreeSet<IpAddr>) -> Vec<Where> {
    let trusted = match listener.proxy_protocol {
        ProxyIn::Off => Vec::new(),
        ProxyIn::Required if listener.trusted.is_empty() => vec![
            IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0)),
            IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0)),
        ],
        ProxyIn::Required | ProxyIn::Optional => listener.trusted.clone(),
    };
    let ip = listener.address.ip();
    let ips: Vec<IpAddr> = if ip.is_unspecified() {
        local.iter().copied().filter(|it| it.is_ipv4() == ip.is_ipv4()).collect()
    } else {
        vec![ip]
    };
    let at = |ip| SocketAddr::new(ip, listener.address.port());
    ips.into_iter().map(|ip| Where { address: at(ip), trusted: trusted.clone() }).collect()
}

/// The folder in which what is to outlive this process is pinned: one for each root, since each is its own proxy's.
fn pins(settings: &Xdp, root: &Path) -> Option<PathBuf> {
    if settings.pins.as_os_str().is_empty() {
        return None;
    }
    let root = std::fs::canonicalize(root).unwrap_or_else(|_| root.to_owned());
    let name = root.to_string_lossy().trim_matches('/').replace('/', "-");
    // A dot would be refused there.
    Some(settings.pins.join(format!("mc-proxy-{}", name.replace('.', "_"))))
}

/// Least time between two samples of a CPU.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(address: &str, proxy_protocol: ProxyIn, trusted: &[&str]) -> Listener {
        let toml = format!("name = \"x\"\naddress = \"{address}\"");
        let mut listener: Listener = toml::from_str(&toml).unwrap();
        listener.proxy_protocol = proxy_protocol;
        listener.trusted = trusted.iter().map(|net| net.parse().unwrap()).collect();
        listener
    }

    #[track_caller]
    fn check(listener: &Listener, expect: &[(&str, usize)]) {
        let local = ["192.0.2.1", "198.51.100.1", "2001:db8::1", "fe80::1"].map(|ip| ip.parse().unwrap());
        let found = places(listener, &local.into_iter().collect());
        let found: Vec<(String, usize)> =
            found.iter().map(|place| (place.address.to_string(), place.trusted.len())).collect();
        let expect: Vec<(String, usize)> =
            expect.iter().map(|(at, count)| ((*at).to_owned(), *count)).collect();
        assert_eq!(found, expect);
    }

    #[test]
    fn a_listener_is_where_it_says_or_on_all_addresses_of_its_family() {
        check(&listener("203.0.113.9:443", ProxyIn::Off, &[]), &[("203.0.113.9:443", 0)]);
        check(&listener("0.0.0.0:443", ProxyIn::Off, &[]), &[("192.0.2.1:443", 0), ("198.51.100.1:443", 0)]);
        check(&listener("[::]:443", ProxyIn::Off, &[]), &[("[2001:db8::1]:443", 0), ("[fe80::1]:443", 0)]);
    }

    #[test]
    fn whoever_may_speak_for_others_is_left_to_user_space() {
        let at = "203.0.113.9:443";
        check(&listener(at, ProxyIn::Required, &["10.0.0.0/8"]), &[(at, 1)]);
        check(&listener(at, ProxyIn::Required, &[]), &[(at, 2)]);
        check(&listener(at, ProxyIn::Optional, &["10.0.0.0/8", "fd00::/8"]), &[(at, 2)]);
        check(&listener(at, ProxyIn::Optional, &[]), &[(at, 0)]);
    }

    #[test]
    fn each_root_has_its_own_pins() {
        let settings = Xdp { pins: "/sys/fs/bpf".into(), ..Xdp::default() };
        let of = |root: &str| pins(&settings, Path::new(root)).unwrap();
        assert_eq!(of("/no/such.d/mc-proxy"), Path::new("/sys/fs/bpf/mc-proxy-no-such_d-mc-proxy"));
        assert_eq!(pins(&Xdp { pins: PathBuf::new(), ..Xdp::default() }, Path::new("/")), None);
    }
}
