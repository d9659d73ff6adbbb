//! The OpenTelemetry SDK as any service would use it: configured by its environment variables, W3C propagation, spans,
//! the standard HTTP metric, logs.

use std::time::Duration;

use axum::http::HeaderMap;
use opentelemetry::{
    Context, KeyValue,
    logs::{AnyValue, LogRecord as _, Logger as _, LoggerProvider as _, Severity},
    metrics::{Histogram, MeterProvider as _},
    propagation::{Extractor, Injector, TextMapPropagator as _},
    trace::{SpanKind, Status, TraceContextExt as _, Tracer as _, TracerProvider as _},
};
use opentelemetry_otlp::{LogExporter, MetricExporter, SpanExporter};
use opentelemetry_sdk::{
    Resource,
    logs::{SdkLogger, SdkLoggerProvider},
    metrics::SdkMeterProvider,
    propagation::TraceContextPropagator,
    trace::{SdkTracer, SdkTracerProvider},
};

use super::plan::{BROKER, DATABASE, Uses};

/// Bounds of `http.server.request.duration` as the semantic conventions advise them, in seconds.
const BOUNDS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// What a service tells about itself.
pub(super) struct Telemetry {
    spans: SdkTracerProvider,
    metrics: SdkMeterProvider,
    logs: SdkLoggerProvider,
    tracer: SdkTracer,
    logger: SdkLogger,
    duration: Histogram<f64>,
    propagator: TraceContextPropagator,
}

impl Telemetry {
    /// Sets everything up from the environment; needs a tokio runtime.
    pub(super) fn from_env() -> Result<Self, opentelemetry_otlp::ExporterBuildError> {
        let resource = Resource::builder().build();
        let spans = SdkTracerProvider::builder()
            .with_resource(resource.clone())
            .with_batch_exporter(SpanExporter::builder().with_tonic().build()?)
            .build();
        let metrics = SdkMeterProvider::builder()
            .with_resource(resource.clone())
            .with_periodic_exporter(MetricExporter::builder().with_tonic().build()?)
            .build();
        let logs = SdkLoggerProvider::builder()
            .with_resource(resource)
            .with_batch_exporter(LogExporter::builder().with_tonic().build()?)
            .build();
        let duration = metrics
            .meter("demo")
            .f64_histogram("http.server.request.duration")
            .with_unit("s")
            .with_boundaries(BOUNDS.to_vec())
            .build();
        let (tracer, logger) = (spans.tracer("demo"), logs.logger("demo"));
        Ok(Self { spans, metrics, logs, tracer, logger, duration, propagator: TraceContextPropagator::new() })
    }

    /// Begins the span of a request that came in.
    pub(super) fn server(&self, method: &'static str, route: &'static str, headers: &HeaderMap) -> Context {
        let parent = self.propagator.extract(&Incoming(headers));
        let span = self
            .tracer
            .span_builder(format!("{method} {route}"))
            .with_kind(SpanKind::Server)
            .with_attributes([
                KeyValue::new("http.request.method", method),
                KeyValue::new("http.route", route),
                KeyValue::new("url.path", route),
                KeyValue::new("url.scheme", "http"),
            ])
            .start_with_context(&self.tracer, &parent);
        parent.with_span(span)
    }

    /// Ends it.
    pub(super) fn served(
        &self,
        span: &Context,
        method: &'static str,
        route: &'static str,
        status: u16,
        took: Duration,
    ) {
        let mut attributes = vec![
            KeyValue::new("http.request.method", method),
            KeyValue::new("http.route", route),
            KeyValue::new("url.scheme", "http"),
            KeyValue::new("http.response.status_code", i64::from(status)),
        ];
        if status >= 500 {
            attributes.push(KeyValue::new("error.type", status.to_string()));
        }
        self.duration.record(took.as_secs_f64(), &attributes);
        finish(span, status);
    }

    /// Begins the span of a request that goes out.
    pub(super) fn client(
        &self,
        parent: &Context,
        peer: &'static str,
        method: &'static str,
        headers: &mut HeaderMap,
    ) -> Context {
        let span = self
            .tracer
            .span_builder(method)
            .with_kind(SpanKind::Client)
            .with_attributes([
                KeyValue::new("http.request.method", method),
                KeyValue::new("peer.service", peer),
                KeyValue::new("server.address", peer),
            ])
            .start_with_context(&self.tracer, parent);
        let context = parent.with_span(span);
        self.propagator.inject_context(&context, &mut Outgoing(headers));
        context
    }

    /// Begins the span of a statement or a message, as a driver would.
    pub(super) fn uses(&self, parent: &Context, uses: Uses) -> Context {
        let (kind, name, attributes) = match uses {
            Uses::Table(operation, table) => (
                SpanKind::Client,
                format!("{operation} {table}"),
                vec![
                    KeyValue::new("db.system.name", DATABASE.0),
                    KeyValue::new("db.namespace", DATABASE.1),
                    KeyValue::new("db.operation.name", operation),
                    KeyValue::new("db.collection.name", table),
                ],
            ),
            Uses::Topic(topic) => (
                SpanKind::Producer,
                format!("send {topic}"),
                vec![
                    KeyValue::new("messaging.system", BROKER),
                    KeyValue::new("messaging.operation.name", "send"),
                    KeyValue::new("messaging.operation.type", "send"),
                    KeyValue::new("messaging.destination.name", topic),
                ],
            ),
        };
        let span = self.tracer.span_builder(name).with_kind(kind).with_attributes(attributes);
        parent.with_span(span.start_with_context(&self.tracer, parent))
    }

    /// Logs an error with the trace it belongs to.
    pub(super) fn error(&self, span: &Context, kind: &'static str, message: String) {
        let mut record = self.logger.create_log_record();
        record.set_severity_number(Severity::Error);
        record.set_severity_text("ERROR");
        record.set_body(AnyValue::from(message.clone()));
        record.add_attribute("exception.type", kind);
        record.add_attribute("exception.message", message);
        let context = span.span().span_context().clone();
        record.set_trace_context(context.trace_id(), context.span_id(), Some(context.trace_flags()));
        self.logger.emit(record);
    }

    /// Sends what is left. Blocks.
    pub(super) fn shutdown(&self) {
        // The node may have gone first; then there is nobody to tell.
        drop(self.spans.shutdown());
        drop(self.metrics.shutdown());
        drop(self.logs.shutdown());
    }
}

/// Ends a span of which nothing more is to be said.
pub(super) fn end(span: &Context) {
    span.span().end();
}

/// Ends a span with the status of its response.
pub(super) fn finish(span: &Context, status: u16) {
    let span = span.span();
    span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status)));
    if status >= 500 {
        span.set_attribute(KeyValue::new("error.type", status.to_string()));
        span.set_status(Status::error(""));
    }
    span.end();
}

struct Incoming<'a>(&'a HeaderMap);

impl Extractor for Incoming<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|value| value.to_str().ok())
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(axum::http::HeaderName::as_str).collect()
    }
}

struct Outgoing<'a>(&'a mut HeaderMap);

impl Injector for Outgoing<'_> {
    fn set(&mut self, key: &str, value: String) {
        if let (Ok(name), Ok(value)) = (axum::http::HeaderName::try_from(key), value.try_into()) {
            self.0.insert(name, value);
        }
    }
}
