//! The command `serve`: listeners, signals, background work, and the shutdown.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::args::Half;
use super::grpc::Health;
use super::ops::Readiness;
use super::{Configuration as _, Failure, Finding, Service, check, grpc, notify, ops};
use crate::clock::Clock;
use crate::http::Metrics;
use crate::operation::Routes;
use crate::server::{Listener, Stop, stop_on_signal};
use crate::tls::ServerCertificate;

/// How often readiness is checked for gRPC's health service and systemd's status.
const READINESS_INTERVAL: Duration = Duration::from_secs(10);

/// Time that requests to the ops listener have to finish, once everything else has stopped.
const OPS_DRAIN: Duration = Duration::from_secs(1);

/// The paths whose errors are pages: all that are not the API's.
const PAGES: &str = "/";

pub(super) async fn serve<S: Service>(config: S::Config, only: Option<Half>) -> Result<(), Failure> {
    let settings = config.server().clone();
    let stop = stop_on_signal();
    let clock = Clock::system();
    let certificate = ServerCertificate::open(settings.certificate(), clock.clone())?;
    let metrics = Arc::new(Metrics::default());
    let service = Arc::new(S::open(config.clone(), clock.clone()).await?);
    for finding in check::findings::<S>(&config, true) {
        match finding {
            Finding::Error(error) => tracing::error!(error, "`{} check` finds an error", S::NAME),
            Finding::Warning(warning) => tracing::warn!(warning, "`{} check` has a warning", S::NAME),
        }
    }
    let readiness = Arc::new(Readiness::new(Arc::clone(&service), clock.clone()));
    let limits = settings.limits();
    let Routes { api, pages, grpc, routes, mut dialects } = service.routes(limits.clone());
    if only == Some(Half::Api) {
        // Errors as pages link to other pages.
        dialects.retain(|dialect| dialect.prefix != PAGES);
    }
    let middleware = |router: Router| {
        let (limits, metrics, clock) = (limits.clone(), Arc::clone(&metrics), clock.clone());
        crate::http::middleware(router, limits, metrics, clock, &dialects)
    };
    // Written once: a document for each request would take memory and time for each.
    let document = Bytes::from(S::openapi().to_string());
    let document = ([(CONTENT_TYPE, "application/json")], document);
    let api = api.route("/openapi.json", get(move || std::future::ready(document.clone())));
    let http = match only {
        None => api.merge(pages),
        Some(Half::Api) => api,
        Some(Half::Web) => pages,
    };
    let http = middleware(http.route("/healthz", get(|| async { "ok\n" })));
    let tls = certificate.config(&["h2", "http/1.1"]);
    let http_listener = Listener::bind(settings.listen_addr, "listen_addr", Some(tls), &settings).await?;
    let mut status = format!("serving HTTPS at {}", http_listener.address());
    let (own, health) = grpc::router(&routes, S::DESCRIPTORS).await?;
    let grpc_listener = if only == Some(Half::Web) {
        None
    } else {
        let tls = certificate.config(&["h2"]);
        let listener = Listener::bind(settings.grpc_addr, "grpc_addr", Some(tls), &settings).await?;
        status.push_str(&format!(", gRPC at {}", listener.address()));
        Some((listener, middleware(grpc.merge(own))))
    };
    let mut connections = vec![http_listener.metrics()];
    connections.extend(grpc_listener.iter().map(|(listener, _)| listener.metrics()));
    let counters = ops::Counters {
        requests: Arc::clone(&metrics),
        bodies: limits.budget.clone(),
        connections,
        certificate: Arc::clone(&certificate),
    };
    let ops = ops::router(Arc::clone(&service), Arc::clone(&readiness), counters);
    let ops_listener = Listener::bind(settings.metrics_addr, "metrics_addr", None, &settings).await?;
    status.push_str(&format!(", metrics at {}", ops_listener.address()));

    tokio::spawn(Arc::clone(&certificate).watch());
    tokio::spawn(reload_on_signal(certificate, status.clone())?);
    tokio::spawn(notify::watchdog(stop.clone()));
    tracing::info!(version = S::VERSION, "{status}");
    notify::ready(&status);

    let drain = Duration::from_millis(settings.drain_timeout_ms);
    let (stop_ops, ops_stop) = watch::channel(false);
    let serving = async {
        let grpc = async {
            if let Some((listener, router)) = grpc_listener {
                listener.serve(router, stop.clone(), drain).await;
            }
        };
        tokio::join!(
            http_listener.serve(http, stop.clone(), drain),
            grpc,
            service.work(stop.clone()),
            watch_readiness(&readiness, health, status, stop.clone()),
        );
        // It answers until the rest has stopped.
        stop_ops.send_replace(true);
    };
    tokio::join!(serving, ops_listener.serve(ops, ops_stop, OPS_DRAIN));
    Ok(())
}

/// Keeps gRPC's health and systemd's status up to date, until the service stops.
async fn watch_readiness<S: Service>(
    readiness: &Readiness<S>,
    health: Health,
    status: String,
    mut stop: Stop,
) {
    let mut ticks = tokio::time::interval(READINESS_INTERVAL);
    let mut was_ready = true;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = stop.wait_for(|stop| *stop) => break,
        }
        match readiness.get().await {
            Ok(()) if was_ready => {}
            Ok(()) => {
                tracing::info!("ready again");
                health.set(true).await;
                notify::status(&status);
                was_ready = true;
            }
            Err(reason) => {
                if was_ready {
                    tracing::error!(reason, "not ready");
                }
                health.set(false).await;
                notify::status(&format!("not ready: {reason}"));
                was_ready = false;
            }
        }
    }
    readiness.stop();
    notify::stopping();
    health.shut_down().await;
}

/// Reads the certificate again at each SIGHUP.
fn reload_on_signal(
    certificate: Arc<ServerCertificate>,
    status: String,
) -> std::io::Result<impl Future<Output = ()> + Send> {
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(async move {
        while hangup.recv().await.is_some() {
            notify::reloading();
            certificate.reload_and_log();
            notify::ready(&status);
        }
    })
}
