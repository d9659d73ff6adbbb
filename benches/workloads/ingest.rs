//! Ingest: from OTLP bytes to the twins' models, beside decoding the same bytes alone.

use std::{sync::Arc, time::Duration};

use opentelemetry_proto::tonic::{
    collector::{metrics::v1::ExportMetricsServiceRequest, trace::v1::ExportTraceServiceRequest},
    common::v1::{AnyValue, KeyValue, any_value::Value},
    metrics::v1::{
        AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics,
        ScopeMetrics, metric::Data, number_data_point,
    },
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span::SpanKind},
};
use prost::Message as _;
use service_twin::{
    capability::secrets::seal::NodeKey,
    metrics::{Metrics, Signal},
    model::{Header, Principal, SystemClock},
    runtime::{Config, Runtime},
    server::{self, Phase, Server, identity::Identity, otlp},
    store::memory::MemoryStore,
    token::RootKey,
    twin::{keyring::Keyring, service::Service},
};

use super::{Bars, Client, Contestant, Host, Lap, Plan, Row, Setting, Until, limits::otlp_decode::Decode};

const SPANS: u64 = 512;
const SERVICES: u64 = 20;
const METRICS: u64 = 200;
/// Requests that are decoded at once, for each CPU.
const WINDOW_PER_CPU: u64 = 2;
/// When the first sample was made: 2026-01-01.
const START_NS: u64 = 1_767_225_600_000_000_000;

/// 512 spans of 12 attributes each over 20 services.
pub(crate) fn spans(setting: &Setting) -> Row {
    row(setting, "ingest-spans", Decode::Spans(span_request().into()))
}

/// 200 metrics of 8 attributes each over 20 services, 30 % of them histograms.
pub(crate) fn metrics(setting: &Setting) -> Row {
    row(setting, "ingest-metrics", Decode::Metrics(metric_request().into()))
}

fn row(setting: &Setting, workload: &'static str, bytes: Decode) -> Row {
    let (cpus, host) = (setting.cpus, Host::start(setting.cpus));
    let plan = move |time| {
        let window = WINDOW_PER_CPU * u64::try_from(cpus).unwrap_or(1);
        Plan { window, until: Until::Elapsed(time), timed: false }
    };
    let config = Config { arbiters: cpus, ..Config::default() };
    let builder = Runtime::builder().config(config).store(Arc::new(MemoryStore::new()));
    let runtime = builder.kind::<Service>().kind::<Keyring>().start().expect("a runtime starts");
    let metrics = Arc::new(Metrics::new(|_| ()));
    let server = Server::new(
        runtime.clone(),
        Arc::new(SystemClock),
        metrics,
        server::Config::default(),
        RootKey::generate(),
        NodeKey::draw().0,
    );
    server.enter(Phase::Ready);
    let identity = Identity::without_token(Principal::Operator { key_id: "bench".into() });
    let door = Door { server, identity, bytes: bytes.clone() };
    let ours = Contestant::ours(move |time| {
        let before = turns(&runtime);
        let mut batches = 0;
        let lap = Lap::of(|| {
            let lap = host.run(plan(time), |_| door.clone());
            batches = lap.ops * SERVICES;
            // The last batches are still in the inboxes.
            while turns(&runtime) < before + batches {
                pause(Duration::from_micros(200));
            }
            lap.sum
        });
        assert!(lap.ops > 0, "something was taken");
        lap
    });
    let host = Host::start(cpus);
    let limit = Contestant::limit("decoding alone", move |time| {
        let lap = host.run(plan(time), |_| bytes.clone());
        Lap { ops: lap.sum, ..lap }
    });
    let bars = Bars { limit: Some(0.5), ..Bars::default() };
    Row { workload, driver: "b", durability: "memory", bars, contestants: vec![ours, limit] }
}

/// Turns that service twins had.
fn turns(runtime: &Runtime) -> u64 {
    runtime.counts().iter().filter(|(kind, _)| *kind == "service").map(|(_, counts)| counts.turns).sum()
}

#[expect(clippy::disallowed_methods, reason = "the bench's own thread has nothing else to do")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// What a door does behind its socket.
#[derive(Clone)]
struct Door {
    server: Arc<Server>,
    identity: Identity,
    bytes: Decode,
}

impl Client for Door {
    async fn call(&mut self, _: u64) -> u64 {
        let covers = Server::covers(&self.identity, self.server.now());
        let (signal, translated) = match &self.bytes {
            Decode::Spans(bytes) => {
                let request = ExportTraceServiceRequest::decode(&**bytes).expect("the bytes are OTLP");
                (Signal::Traces, otlp::spans(&request, &covers))
            }
            Decode::Metrics(bytes) => {
                let request = ExportMetricsServiceRequest::decode(&**bytes).expect("the bytes are OTLP");
                (Signal::Metrics, otlp::metrics(&request, &covers))
            }
        };
        let samples: usize = translated.batches.iter().map(service_twin::model::telemetry::Batch::samples).sum();
        let ingested = self.server.ingest(signal, &self.identity, Header::default(), translated).await;
        let refused = ingested.expect("telemetry is taken").refused;
        assert_eq!(refused.items, 0, "nothing is refused: {}", refused.message());
        u64::try_from(samples).expect("a count")
    }
}

/// A repeatable sequence (`SplitMix64`).
struct Draw(u64);

impl Draw {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % below
    }
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.into(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

fn text(key: &str, value: impl Into<String>) -> KeyValue {
    attribute(key, Value::StringValue(value.into()))
}

fn number(key: &str, value: u64) -> KeyValue {
    attribute(key, Value::IntValue(i64::try_from(value).unwrap_or(i64::MAX)))
}

#[expect(clippy::unnecessary_wraps, reason = "as a request carries it")]
fn resource(service: u64) -> Option<Resource> {
    let attributes = vec![
        text("service.name", format!("service-{service:02}")),
        text("service.namespace", "bench"),
        text("service.instance.id", format!("instance-{service:02}")),
        text("service.version", "1.4.2"),
        text("telemetry.sdk.language", "rust"),
    ];
    Some(Resource { attributes, ..Resource::default() })
}

fn span_request() -> Vec<u8> {
    let mut draw = Draw(1);
    let resource_spans = (0..SERVICES).map(|service| {
        let spans = (0..SPANS).filter(|span| span % SERVICES == service).map(|span| {
            let (operation, failed) = (draw.next(10), draw.next(50) == 0);
            let start = START_NS + span * 1_000_000;
            let attributes = vec![
                text("http.request.method", if operation % 2 == 0 { "GET" } else { "POST" }),
                text("http.route", format!("/orders/{{id}}/{operation}")),
                text("url.path", format!("/orders/{span}/{operation}")),
                text("url.scheme", "https"),
                number("http.response.status_code", if failed { 500 } else { 200 }),
                text("server.address", "orders.internal"),
                number("server.port", 8_443),
                text("client.address", "10.0.0.17"),
                text("user_agent.original", "bench/1.0"),
                text("network.protocol.version", "1.1"),
                number("http.request.body.size", draw.next(10_000)),
                text("tenant", format!("tenant-{}", draw.next(100))),
            ];
            Span {
                trace_id: u128::from(span + 1).to_be_bytes().to_vec(),
                span_id: (span + 1).to_be_bytes().to_vec(),
                name: format!("GET /orders/{{id}}/{operation}"),
                kind: i32::from(SpanKind::Server),
                start_time_unix_nano: start,
                end_time_unix_nano: start + 1_000_000 + draw.next(40_000_000),
                attributes,
                status: failed.then(|| Status { code: 2, message: "failed".into() }),
                ..Span::default()
            }
        });
        let scope_spans = vec![ScopeSpans { spans: spans.collect(), ..ScopeSpans::default() }];
        ResourceSpans { resource: resource(service), scope_spans, ..ResourceSpans::default() }
    });
    ExportTraceServiceRequest { resource_spans: resource_spans.collect() }.encode_to_vec()
}

fn metric_request() -> Vec<u8> {
    let mut draw = Draw(2);
    let resource_metrics = (0..SERVICES).map(|service| {
        let metrics = (0..METRICS).filter(|metric| metric % SERVICES == service).map(|metric| {
            let of_service = metric / SERVICES;
            let attributes: Vec<_> = (0..8).map(|at| text(&format!("label.{at}"), format!("value-{at}"))).collect();
            let (start_time_unix_nano, time_unix_nano) = (START_NS, START_NS + 10_000_000_000);
            let data = if of_service < 3 {
                let bucket_counts: Vec<u64> = (0..13).map(|_| draw.next(20)).collect();
                let point = HistogramDataPoint {
                    attributes,
                    start_time_unix_nano,
                    time_unix_nano,
                    count: bucket_counts.iter().sum(),
                    sum: Some(12.5),
                    bucket_counts,
                    explicit_bounds: vec![0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 7.5, 10.0],
                    ..HistogramDataPoint::default()
                };
                let aggregation_temporality = i32::from(AggregationTemporality::Delta);
                Data::Histogram(Histogram { data_points: vec![point], aggregation_temporality })
            } else {
                let value = i64::try_from(draw.next(1_000)).unwrap_or(0);
                let value = Some(number_data_point::Value::AsInt(value));
                let point = NumberDataPoint {
                    attributes,
                    start_time_unix_nano,
                    time_unix_nano,
                    value,
                    ..NumberDataPoint::default()
                };
                Data::Gauge(Gauge { data_points: vec![point] })
            };
            Metric { name: format!("bench.metric.{of_service}"), data: Some(data), ..Metric::default() }
        });
        let scope_metrics = vec![ScopeMetrics { metrics: metrics.collect(), ..ScopeMetrics::default() }];
        ResourceMetrics { resource: resource(service), scope_metrics, ..ResourceMetrics::default() }
    });
    ExportMetricsServiceRequest { resource_metrics: resource_metrics.collect() }.encode_to_vec()
}
