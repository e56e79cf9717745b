//! What every gRPC listener serves beside the service's own methods: health (`grpc.health.v1`) and reflection (v1 and
//! v1alpha).

use std::collections::BTreeSet;

use axum::Router;
use axum::middleware::from_fn;
use tonic::server::NamedService as _;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};
use tonic_reflection::server::{Builder, Error};

use crate::http::body::bound_stream;
use crate::operation::{Route, Transport};

/// Sets the health of all services of the listener, and of the empty name, which stands for the whole.
#[derive(Debug)]
pub(super) struct Health {
    reporter: HealthReporter,
    services: BTreeSet<String>,
}

impl Health {
    /// All services serve until something else is known.
    async fn new(services: &BTreeSet<String>) -> Self {
        let mut services = services.clone();
        services.insert(String::new());
        let health = Self { reporter: HealthReporter::new(), services };
        health.set(true).await;
        health
    }

    pub(super) async fn set(&self, is_serving: bool) {
        let status = if is_serving { ServingStatus::Serving } else { ServingStatus::NotServing };
        for service in &self.services {
            self.reporter.set_service_status(service, status).await;
        }
    }

    /// Reports NOT_SERVING to those who watch, and ends their streams, which would otherwise last as long as the drain may.
    pub(super) async fn shut_down(mut self) {
        self.set(false).await;
        for service in &self.services {
            self.reporter.clear_service_status(service).await;
        }
    }
}

/// Health and reflection for the gRPC services of these routes.
///
/// # Errors
/// The descriptors cannot be parsed: a bug of the build.
pub(super) async fn router(
    routes: &[Route],
    descriptors: &[&'static [u8]],
) -> Result<(Router, Health), Error> {
    let services = services(routes);
    let health = Health::new(&services).await;
    let service = HealthServer::new(HealthService::from_health_reporter(health.reporter.clone()));
    let reflection = || {
        let mut builder = Builder::configure()
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .with_service_name(HealthServer::<HealthService>::NAME)
            .with_service_name("grpc.reflection.v1.ServerReflection")
            .with_service_name("grpc.reflection.v1alpha.ServerReflection");
        for set in descriptors {
            builder = builder.register_encoded_file_descriptor_set(set);
        }
        services.iter().fold(builder, Builder::with_service_name)
    };
    let mut own = tonic::service::Routes::builder();
    own.add_service(service).add_service(reflection().build_v1()?).add_service(reflection().build_v1alpha()?);
    let router = own.routes().prepare().into_axum_router().layer(from_fn(bound_stream));
    Ok((router, health))
}

/// The services that have a method among these routes: `/<service>/<method>`.
fn services(routes: &[Route]) -> BTreeSet<String> {
    let calls = routes.iter().filter(|route| route.transport == Transport::Grpc);
    calls.filter_map(|route| route.pattern.split('/').nth(1)).map(str::to_owned).collect()
}
