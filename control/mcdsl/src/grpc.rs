//! gRPC's own services beside a service's operations: health and reflection.

use axum::middleware::from_fn;
use tonic_health::ServingStatus;
use tonic_health::server::{HealthReporter, health_reporter};

use crate::http::body::bound_stream;

/// Health and reflection (v1 and v1alpha) for these gRPC services, as a router beside their operations. `descriptors`: encoded
/// `FileDescriptorSet`s. The reporter says when the service does not serve.
///
/// # Errors
/// The descriptors cannot be read: a bug of the build.
pub async fn router(
    services: &[&'static str],
    descriptors: &[&'static [u8]],
) -> Result<(axum::Router, HealthReporter), tonic_reflection::server::Error> {
    let (reporter, health) = health_reporter();
    set_status(&reporter, services, ServingStatus::Serving).await;
    let reflection = || {
        descriptors.iter().fold(tonic_reflection::server::Builder::configure(), |builder, set| {
            builder.register_encoded_file_descriptor_set(set)
        })
    };
    let mut routes = tonic::service::Routes::builder();
    routes
        .add_service(health)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?);
    let router = routes.routes().prepare().into_axum_router().layer(from_fn(bound_stream));
    Ok((router, reporter))
}

/// Says of each of these services, and of the server as a whole, whether it serves.
pub async fn set_status(reporter: &HealthReporter, services: &[&'static str], status: ServingStatus) {
    reporter.set_service_status("", status).await;
    for service in services {
        reporter.set_service_status(*service, status).await;
    }
}
