//! Spans.

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    trace::v1::{Span, span, status::StatusCode},
};

use super::{Filler, Translated, covered, semantics::Facts, time};
use crate::model::{
    ServiceId,
    telemetry::{SpanKind, SpanSample, Symbols},
};

/// Translates spans.
pub fn spans(request: &ExportTraceServiceRequest, covers: &dyn Fn(&ServiceId) -> Result<(), String>) -> Translated {
    let mut out = Translated::default();
    let mut scratch = String::new();
    for from in &request.resource_spans {
        let mut left = from.scope_spans.iter().map(|scope| scope.spans.len()).sum();
        let Some(origin) = covered(from.resource.as_ref(), left, &mut out.refused, covers) else { continue };
        let mut filler = Filler::new(origin, &mut out.batches);
        for span in from.scope_spans.iter().flat_map(|scope| &scope.spans) {
            if span.end_time_unix_nano == 0 {
                out.refused.add(1, "a span has no end time");
            } else {
                let (batch, _) = filler.batch(left);
                let sample = sample(span, &mut batch.symbols, &mut scratch);
                batch.spans.push(sample);
            }
            left -= 1;
        }
    }
    out
}

fn sample(span: &Span, symbols: &mut Symbols, scratch: &mut String) -> SpanSample {
    let facts = Facts::of(&span.attributes);
    let kind = match span::SpanKind::try_from(span.kind) {
        Ok(span::SpanKind::Server) => SpanKind::Server,
        Ok(span::SpanKind::Client) => SpanKind::Client,
        Ok(span::SpanKind::Producer) => SpanKind::Producer,
        Ok(span::SpanKind::Consumer) => SpanKind::Consumer,
        Ok(span::SpanKind::Internal | span::SpanKind::Unspecified) | Err(_) => SpanKind::Internal,
    };
    let status = span.status.as_ref().map_or(0, |status| status.code);
    let failed = match StatusCode::try_from(status) {
        Ok(StatusCode::Error) => true,
        Ok(StatusCode::Ok) => false,
        Ok(StatusCode::Unset) | Err(_) => facts.status_failed(kind),
    };
    SpanSample {
        id: span.span_id.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes)),
        operation: facts.operation(&span.name, symbols, scratch),
        kind,
        failed,
        status_class: facts.status_class(),
        duration_ns: span.end_time_unix_nano.saturating_sub(span.start_time_unix_nano),
        end: time(span.end_time_unix_nano),
        peer: facts.peer(kind, symbols, scratch),
    }
}
