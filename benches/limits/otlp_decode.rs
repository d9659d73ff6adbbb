//! Limit of ingest: decoding the same OTLP bytes, and nothing else.

use std::sync::Arc;

use opentelemetry_proto::tonic::collector::{
    metrics::v1::ExportMetricsServiceRequest, trace::v1::ExportTraceServiceRequest,
};
use prost::Message;

use super::super::Client;

/// Decodes a request again and again; each call answers the samples in it.
#[derive(Clone)]
pub(crate) enum Decode {
    Spans(Arc<[u8]>),
    Metrics(Arc<[u8]>),
}

impl Client for Decode {
    async fn call(&mut self, _: u64) -> u64 {
        let samples = match self {
            Self::Spans(bytes) => {
                let request = ExportTraceServiceRequest::decode(&**bytes).expect("the bytes are OTLP");
                let scopes = request.resource_spans.iter().flat_map(|of| &of.scope_spans);
                scopes.map(|scope| scope.spans.len()).sum::<usize>()
            }
            Self::Metrics(bytes) => {
                let request = ExportMetricsServiceRequest::decode(&**bytes).expect("the bytes are OTLP");
                let scopes = request.resource_metrics.iter().flat_map(|of| &of.scope_metrics);
                scopes.map(|scope| scope.metrics.len()).sum::<usize>()
            }
        };
        u64::try_from(samples).expect("a count")
    }
}
