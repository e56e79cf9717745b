//! What a listener counts: connections, and those that it refused, by reason.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::prometheus::Page;

/// The counters of one listener.
#[derive(Debug)]
pub struct ConnectionMetrics {
    /// The configuration key of its address.
    listener: &'static str,
    pub(super) open: AtomicU64,
    pub(super) accepted: AtomicU64,
    refused: [AtomicU64; Refusal::ALL.len()],
}

/// Why a connection ended before its first request: a closed list, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Its source has as many connections as one may have.
    SourceLimit,
    /// The PROXY header is missing or malformed.
    ProxyHeader,
    /// The TLS handshake failed.
    Tls,
    /// The PROXY header and the TLS handshake took too long.
    Timeout,
}

impl Refusal {
    const ALL: [Self; 4] = [Self::SourceLimit, Self::ProxyHeader, Self::Tls, Self::Timeout];

    const fn label(self) -> &'static str {
        match self {
            Self::SourceLimit => "source-limit",
            Self::ProxyHeader => "proxy-header",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
        }
    }
}

impl ConnectionMetrics {
    pub(super) fn new(listener: &'static str) -> Self {
        Self { listener, open: AtomicU64::new(0), accepted: AtomicU64::new(0), refused: Default::default() }
    }

    /// Counts a refusal. Whether it is worth a line of the log: the first of its kind, and then each thousandth.
    pub(super) fn refuse(&self, refusal: Refusal) -> bool {
        self.refused[refusal as usize].fetch_add(1, Ordering::Relaxed).is_multiple_of(1000)
    }

    /// Writes the counters of a server's listeners.
    pub fn write(listeners: &[&Self], page: &mut Page) {
        let name = "server_connections";
        page.family(name, "gauge", "Open connections.");
        for one in listeners {
            page.sample(name, &[("listener", one.listener)], one.open.load(Ordering::Relaxed));
        }
        let name = "server_connections_accepted_total";
        page.family(name, "counter", "Connections accepted, before any check.");
        for one in listeners {
            page.sample(name, &[("listener", one.listener)], one.accepted.load(Ordering::Relaxed));
        }
        let name = "server_connections_refused_total";
        page.family(name, "counter", "Connections that ended before their first request, by reason.");
        for one in listeners {
            for reason in Refusal::ALL {
                let labels = [("listener", one.listener), ("reason", reason.label())];
                page.sample(name, &labels, one.refused[reason as usize].load(Ordering::Relaxed));
            }
        }
    }
}
