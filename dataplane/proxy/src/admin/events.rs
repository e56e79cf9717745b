//! What happens, for those who watch.
//!
//! Anyone may announce, from any thread, and never waits: a watcher who is too slow is told how much was
//! lost. Refusals come at the rate of an attack, so that only a sample of them is announced.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use mc_api::mcproxy::{Drop, Event};
use mc_core::backend::Health;
use mc_core::outcome::Outcome;
use mc_core::rate::address;
use mc_ebpf_abi::policy::{self, Sample};
use serde_json::json;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::clock;
use crate::health::CheckKey;

/// Announces events. A clone announces to the same watchers.
#[derive(Clone, Debug)]
pub struct Events {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    watchers: broadcast::Sender<Event>,
    drops: broadcast::Sender<Drop>,
    revision: AtomicU64,
    /// Refusals by outcome since the last [`Events::tick`].
    refused: [AtomicU32; Outcome::ALL.len()],
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A route is new.
    RouteAdded,
    /// A route has changed.
    RouteUpdated,
    /// A route is gone.
    RouteRemoved,
    /// All routes were replaced.
    RoutesReplaced,
    /// New connections and requests of a route wait.
    RouteHeld,
    /// They no longer do, before their time.
    RouteReleased,
    /// A listener is new or has changed.
    ListenerAdded,
    /// A listener whose address could not be had is open.
    ListenerOpened,
    /// A listener is gone.
    ListenerRemoved,
    /// The firewall has changed.
    FirewallChanged,
    /// A backend's checks pass.
    BackendUp,
    /// A backend's checks fail.
    BackendDown,
    /// Too many connects to a backend failed.
    BackendEjected,
    /// An operator drains a backend.
    BackendDraining,
    /// A backend takes connections again.
    BackendUndrained,
    /// An operator closed connections.
    ConnectionsKilled,
    /// Connections are asked for too fast: SYN cookies are in use.
    FloodBegan,
    /// They are no longer.
    FloodEnded,
    /// A connection was refused.
    Refused,
    /// The watcher was too slow.
    Lost,
}

/// One watcher's events.
#[derive(Debug)]
pub struct Watch {
    events: broadcast::Receiver<Event>,
    shared: Arc<Shared>,
}

impl Default for Events {
    fn default() -> Self {
        Self::new()
    }
}

impl Events {
    /// Nobody watches yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            shared: Arc::new(Shared {
                watchers: broadcast::Sender::new(WATCHER_BACKLOG),
                drops: broadcast::Sender::new(WATCHER_BACKLOG),
                revision: AtomicU64::new(0),
                refused: std::array::from_fn(|_| AtomicU32::new(0)),
            }),
        }
    }

    /// Announces that something happened to `subject` (a key, address or name).
    pub fn announce(&self, kind: Kind, subject: impl Into<String>, detail: &serde_json::Value) {
        if self.shared.watchers.receiver_count() == 0 {
            return;
        }
        let event = self.shared.event(kind, subject.into(), detail.to_string());
        // The last watcher may have left just now: then nobody misses it.
        drop(self.shared.watchers.send(event));
    }

    /// A connection was refused: announced up to ten times a second for each outcome.
    pub fn refused(&self, outcome: Outcome, client: IpAddr, name: &str) {
        if self.shared.watchers.receiver_count() + self.shared.drops.receiver_count() == 0 {
            return;
        }
        let seen = self.shared.refused[outcome as usize].fetch_add(1, Ordering::Relaxed);
        if seen < REFUSALS_A_SECOND {
            self.announce(Kind::Refused, outcome.as_str(), &json!({ "client": client, "name": name }));
            if outcome.is_firewall() {
                self.drop(Drop {
                    r#where: "proxy".to_owned(),
                    source: client.to_string(),
                    reason: outcome.as_str().to_owned(),
                    ..Drop::default()
                });
            }
        }
    }

    /// The kernel has dropped a packet, and tells of it.
    pub fn dropped(&self, sample: &Sample, interface: impl FnOnce() -> Option<String>) {
        if self.shared.drops.receiver_count() == 0 {
            return;
        }
        let end = |[high, low]: [u64; 2], port: u16| match address(high, low) {
            IpAddr::V6(address) if address.is_unspecified() => String::new(),
            address => SocketAddr::new(address, port).to_string(),
        };
        self.drop(Drop {
            r#where: "kernel".to_owned(),
            source: end(sample.source, sample.source_port),
            destination: end(sample.destination, sample.destination_port),
            reason: policy::word(sample.reason).to_owned(),
            interface: interface().unwrap_or_default(),
            ..Drop::default()
        });
    }

    fn drop(&self, drop: Drop) {
        let drop = Drop { unix_ms: clock::unix_millis(), ..drop };
        // The last watcher may have left just now.
        std::mem::drop(self.shared.drops.send(drop));
    }

    /// Watches what the firewall drops from now on. `None` where too many do already.
    #[must_use]
    pub fn watch_drops(&self) -> Option<broadcast::Receiver<Drop>> {
        (self.shared.drops.receiver_count() < MAX_WATCHERS).then(|| self.shared.drops.subscribe())
    }

    /// Too many connects to a backend failed.
    pub fn ejected(&self, backend: SocketAddr) {
        self.announce(Kind::BackendEjected, backend.to_string(), &json!({}));
    }

    /// A check took a backend down, or brought it up, for the routes that ask for this check.
    pub fn checked(&self, check: &CheckKey, health: Health, why: &str) {
        let kind = if health == Health::Down { Kind::BackendDown } else { Kind::BackendUp };
        let detail = json!({ "check": check.to_string(), "error": why });
        self.announce(kind, check.address.to_string(), &detail);
    }

    /// A second has passed: refusals that were not announced are summed up, and counted anew.
    pub fn tick(&self) {
        for outcome in Outcome::ALL {
            let seen = self.shared.refused[outcome as usize].swap(0, Ordering::Relaxed);
            if seen > REFUSALS_A_SECOND {
                let more = seen - REFUSALS_A_SECOND;
                self.announce(Kind::Refused, outcome.as_str(), &json!({ "not_announced": more }));
            }
        }
    }

    /// The revision that events carry from now on.
    pub(crate) fn set_revision(&self, revision: u64) {
        self.shared.revision.store(revision, Ordering::Relaxed);
    }

    /// Watches from now on. `None` where too many do already.
    #[must_use]
    pub fn watch(&self) -> Option<Watch> {
        (self.shared.watchers.receiver_count() < MAX_WATCHERS)
            .then(|| Watch { events: self.shared.watchers.subscribe(), shared: Arc::clone(&self.shared) })
    }
}

impl Watch {
    /// The next event; `None` when there will be none.
    pub async fn next(&mut self) -> Option<Event> {
        match self.events.recv().await {
            Ok(event) => Some(event),
            Err(RecvError::Lagged(lost)) => {
                Some(self.shared.event(Kind::Lost, String::new(), json!({ "events": lost }).to_string()))
            }
            Err(RecvError::Closed) => None,
        }
    }
}

impl Shared {
    fn event(&self, kind: Kind, subject: String, detail: String) -> Event {
        Event {
            unix_ms: clock::unix_millis(),
            revision: self.revision.load(Ordering::Relaxed),
            kind: kind.as_str().to_owned(),
            subject,
            detail,
        }
    }
}

impl Kind {
    /// Its word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RouteAdded => "route_added",
            Self::RouteUpdated => "route_updated",
            Self::RouteRemoved => "route_removed",
            Self::RoutesReplaced => "routes_replaced",
            Self::RouteHeld => "route_held",
            Self::RouteReleased => "route_released",
            Self::ListenerAdded => "listener_added",
            Self::ListenerOpened => "listener_opened",
            Self::ListenerRemoved => "listener_removed",
            Self::FirewallChanged => "firewall_changed",
            Self::BackendUp => "backend_up",
            Self::BackendDown => "backend_down",
            Self::BackendEjected => "backend_ejected",
            Self::BackendDraining => "backend_draining",
            Self::BackendUndrained => "backend_undrained",
            Self::ConnectionsKilled => "connections_killed",
            Self::FloodBegan => "flood_began",
            Self::FloodEnded => "flood_ended",
            Self::Refused => "refused",
            Self::Lost => "lost",
        }
    }
}

/// Events that a watcher may be behind before it loses some.
const WATCHER_BACKLOG: usize = 1024;

/// Watchers at the same time.
pub(crate) const MAX_WATCHERS: usize = 64;

/// Refusals that are announced, for each outcome and second.
const REFUSALS_A_SECOND: u32 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    fn drain(watch: &mut Watch) -> Vec<Event> {
        std::iter::from_fn(|| watch.events.try_recv().ok()).collect()
    }

    #[test]
    fn refusals_are_sampled_by_outcome_and_summed_up() {
        let events = Events::default();
        let mut watch = events.watch().unwrap();
        for _ in 0..25 {
            events.refused(Outcome::NoRoute, CLIENT, "a.example.org");
        }
        events.refused(Outcome::NotTls, CLIENT, "");
        let seen = drain(&mut watch);
        assert_eq!(seen.len(), 11);
        assert_eq!(seen[0].kind, "refused");
        assert_eq!(seen[0].subject, "no_route");
        assert_eq!(seen[0].detail, r#"{"client":"192.0.2.1","name":"a.example.org"}"#);
        assert_eq!(seen[10].subject, "not_tls");
        events.tick();
        let seen = drain(&mut watch);
        assert_eq!(seen.len(), 1);
        assert_eq!(seen[0].detail, r#"{"not_announced":15}"#);
        events.refused(Outcome::NoRoute, CLIENT, "");
        assert_eq!(drain(&mut watch).len(), 1);
    }

    #[tokio::test]
    async fn a_slow_watcher_is_told_how_much_it_lost() {
        let events = Events::default();
        events.set_revision(7);
        let mut watch = events.watch().unwrap();
        for _ in 0..WATCHER_BACKLOG + 3 {
            events.announce(Kind::BackendUp, "x", &json!({}));
        }
        let lost = watch.next().await.unwrap();
        assert_eq!((lost.kind.as_str(), lost.detail.as_str()), ("lost", r#"{"events":3}"#));
        let next = watch.next().await.unwrap();
        assert_eq!((next.kind.as_str(), next.revision), ("backend_up", 7));
    }

    #[test]
    fn watchers_are_bounded() {
        let events = Events::default();
        let watchers: Vec<_> = (0..MAX_WATCHERS).map(|_| events.watch().unwrap()).collect();
        assert!(events.watch().is_none());
        drop(watchers);
        assert!(events.watch().is_some());
    }
}
