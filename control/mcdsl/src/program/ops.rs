//! The ops listener: metrics, liveness and readiness, for this machine only; and the readiness that it shares with
//! gRPC's health service.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use http::StatusCode;
use tokio::sync::Mutex;

use super::Service;
use crate::clock::Clock;
use crate::http::{BodyBudget, Metrics};
use crate::prometheus::Page;
use crate::server::ConnectionMetrics;
use crate::tls::ServerCertificate;

/// Whether a service can do its work, asked at most once per [`FRESH`].
#[derive(Debug)]
pub(super) struct Readiness<S> {
    service: Arc<S>,
    clock: Clock,
    stopping: AtomicBool,
    /// When the service was asked last, and what it said. Locked while it is asked.
    last: Mutex<Option<(Duration, Result<(), String>)>>,
}

/// How long an outcome is used.
const FRESH: Duration = Duration::from_secs(1);

/// Time that the service has for its outcome.
const TIMEOUT: Duration = Duration::from_secs(5);

impl<S: Service> Readiness<S> {
    pub(super) fn new(service: Arc<S>, clock: Clock) -> Self {
        Self { service, clock, stopping: AtomicBool::new(false), last: Mutex::new(None) }
    }

    /// From now on the service is not ready, as it is stopping.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    pub(super) async fn get(&self) -> Result<(), String> {
        let mut last = self.last.lock().await;
        if self.stopping.load(Ordering::Relaxed) {
            return Err("the service is stopping".to_owned());
        }
        if let Some((at, outcome)) = &*last
            && self.clock.elapsed().saturating_sub(*at) < FRESH
        {
            return outcome.clone();
        }
        let outcome = tokio::time::timeout(TIMEOUT, self.service.ready()).await;
        let outcome = outcome.unwrap_or_else(|_late| {
            Err(format!("the storage did not respond within {} s", TIMEOUT.as_secs()))
        });
        *last = Some((self.clock.elapsed(), outcome.clone()));
        outcome
    }
}

/// What the frame counts of every service.
pub(super) struct Counters {
    pub(super) requests: Arc<Metrics>,
    pub(super) bodies: BodyBudget,
    pub(super) connections: Vec<Arc<ConnectionMetrics>>,
    pub(super) certificate: Arc<ServerCertificate>,
}

impl Counters {
    fn write(&self, page: &mut Page) {
        self.requests.write(page);
        self.bodies.write_metrics(page);
        let connections: Vec<&ConnectionMetrics> = self.connections.iter().map(AsRef::as_ref).collect();
        ConnectionMetrics::write(&connections, page);
        self.certificate.write_metrics(page);
    }
}

/// `/metrics`, `/healthz` and `/readyz`.
pub(super) fn router<S: Service>(
    service: Arc<S>,
    readiness: Arc<Readiness<S>>,
    counters: Counters,
) -> Router {
    let counters = Arc::new(counters);
    let page = move || {
        let mut page = Page::default();
        page.process();
        counters.write(&mut page);
        service.write_metrics(&mut page);
        async move { page.text }
    };
    let ready = move || {
        let readiness = Arc::clone(&readiness);
        async move {
            match readiness.get().await {
                Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
                Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
            }
        }
    };
    Router::new()
        .route("/metrics", get(page))
        .route("/readyz", get(ready))
        .route("/healthz", get(|| async { "ok\n" }))
}
