//! The gRPC door.

mod capabilities;
#[cfg(feature = "dapr")]
mod dapr;
mod otlp;

use std::sync::Arc;

use axum::Router;
use opentelemetry_proto::tonic::collector::{
    logs::v1::logs_service_server::LogsServiceServer, metrics::v1::metrics_service_server::MetricsServiceServer,
    trace::v1::trace_service_server::TraceServiceServer,
};
use tonic::{codec::CompressionEncoding, service::Routes};

use super::Server;

/// The gRPC door; what it does not serve is answered `UNIMPLEMENTED`.
pub fn router(server: &Arc<Server>) -> Router {
    let otlp = otlp::Otlp(Arc::clone(server));
    let bytes_max = server.config.otlp_bytes_max;
    let router = Routes::new(
        TraceServiceServer::new(otlp.clone())
            .accept_compressed(CompressionEncoding::Gzip)
            .max_decoding_message_size(bytes_max),
    )
    .add_service(
        MetricsServiceServer::new(otlp.clone())
            .accept_compressed(CompressionEncoding::Gzip)
            .max_decoding_message_size(bytes_max),
    )
    .add_service(
        LogsServiceServer::new(otlp).accept_compressed(CompressionEncoding::Gzip).max_decoding_message_size(bytes_max),
    )
    .into_axum_router();
    let router = router.merge(capabilities::router().with_state(Arc::clone(server)));
    #[cfg(feature = "dapr")]
    let router = router.merge(dapr::router().with_state(Arc::clone(server)));
    router
}
