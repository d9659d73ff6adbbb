//! OTLP over gRPC.

use std::{sync::Arc, time::Duration};

use opentelemetry_proto::tonic::collector::{
    logs::v1::{
        ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse, logs_service_server::LogsService,
    },
    metrics::v1::{
        ExportMetricsPartialSuccess, ExportMetricsServiceRequest, ExportMetricsServiceResponse,
        metrics_service_server::MetricsService,
    },
    trace::v1::{
        ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::TraceService,
    },
};
use tonic::{Request, Response, Status, async_trait};

use crate::{
    metrics::Signal,
    model::ServiceId,
    server::{
        Server,
        connection::Connection,
        otlp::{self, Refused, Translated},
        problem::Problem,
    },
};

/// The three services of OTLP.
#[derive(Clone)]
pub(super) struct Otlp(pub(super) Arc<Server>);

type Translate<Q> = fn(&Q, &dyn Fn(&ServiceId) -> Result<(), String>) -> Translated;

impl Otlp {
    async fn take<Q>(&self, request: Request<Q>, signal: Signal, translate: Translate<Q>) -> Result<Refused, Status> {
        let server = &self.0;
        let connection = Connection::of(request.extensions());
        let identity = server.identify(request.metadata().as_ref(), &connection).await.map_err(status)?;
        server.ready().map_err(status)?;
        let now = server.now();
        let header = identity.header().with_deadline(now.after(Duration::from_secs(server.config.deadline_s)));
        let translated = translate(request.get_ref(), &Server::covers(&identity, now));
        let accepted = server.ingest(signal, &identity, header, translated).await.map_err(status)?;
        Ok(accepted.refused)
    }
}

/// A problem as a status. OTLP senders repeat `RESOURCE_EXHAUSTED` only if told when, so what passes is `UNAVAILABLE`.
fn status(problem: Problem) -> Status {
    problem.into()
}

fn partial<P>(refused: &Refused, make: impl FnOnce(i64, String) -> P) -> Option<P> {
    let items = i64::try_from(refused.items).unwrap_or(i64::MAX);
    (items > 0).then(|| make(items, refused.message()))
}

#[async_trait]
impl TraceService for Otlp {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let refused = self.take(request, Signal::Traces, otlp::spans).await?;
        let partial_success = partial(&refused, |rejected_spans, error_message| ExportTracePartialSuccess {
            rejected_spans,
            error_message,
        });
        Ok(Response::new(ExportTraceServiceResponse { partial_success }))
    }
}

#[async_trait]
impl MetricsService for Otlp {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        let refused = self.take(request, Signal::Metrics, otlp::metrics).await?;
        let partial_success = partial(&refused, |rejected_data_points, error_message| ExportMetricsPartialSuccess {
            rejected_data_points,
            error_message,
        });
        Ok(Response::new(ExportMetricsServiceResponse { partial_success }))
    }
}

#[async_trait]
impl LogsService for Otlp {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        let refused = self.take(request, Signal::Logs, otlp::logs).await?;
        let partial_success = partial(&refused, |rejected_log_records, error_message| ExportLogsPartialSuccess {
            rejected_log_records,
            error_message,
        });
        Ok(Response::new(ExportLogsServiceResponse { partial_success }))
    }
}
