use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest,
        trace::v1::ExportTraceServiceRequest,
    },
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    metrics::v1::{
        AggregationTemporality, Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics,
        Sum, metric::Data, number_data_point,
    },
    trace::v1::{ResourceSpans, ScopeSpans, Span, Status},
};

use super::*;
use crate::model::telemetry::{PeerKind, Role, Severity, SpanKind, Temporality, Value as Measured};

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.into(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

fn named(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.into()))
}

#[expect(clippy::unnecessary_wraps, reason = "as a request carries it")]
fn sender(name: &str) -> Option<Sender> {
    let attributes = vec![named("service.namespace", "shop"), named("service.name", name), named("host.name", "h1")];
    Some(Sender { attributes, ..Sender::default() })
}

fn trace(name: &str, spans: Vec<Span>) -> ExportTraceServiceRequest {
    let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
    let resource = sender(name);
    ExportTraceServiceRequest { resource_spans: vec![ResourceSpans { resource, scope_spans, ..Default::default() }] }
}

fn span(kind: i32, name: &str, attributes: Vec<KeyValue>) -> Span {
    Span {
        span_id: vec![0, 0, 0, 0, 0, 0, 0, 9],
        name: name.into(),
        kind,
        attributes,
        start_time_unix_nano: 1_000_000_000,
        end_time_unix_nano: 1_250_000_000,
        ..Span::default()
    }
}

#[expect(clippy::unnecessary_wraps, reason = "as a key answers")]
fn all(_: &ServiceId) -> Result<(), String> {
    Ok(())
}

fn only(spans_of: Vec<Span>) -> Batch {
    let mut translated = spans(&trace("orders", spans_of), &all);
    assert_eq!(translated.refused, Refused::default());
    translated.batches.remove(0)
}

#[test]
fn a_served_request_is_named_by_method_and_route() {
    let status = attribute("http.response.status_code", Value::IntValue(503));
    let batch = only(vec![span(
        2,
        "GET",
        vec![
            named("http.request.method", "GET"),
            named("http.route", "/orders/{id}"),
            status,
            named("server.address", "me"),
        ],
    )]);
    let sample = batch.spans[0];
    assert_eq!(batch.service.as_str(), "shop/orders");
    assert_eq!(batch.resource.attributes, [("host.name".into(), "h1".into())]);
    assert_eq!(batch.symbols.name(sample.operation), "GET /orders/{id}");
    assert_eq!((sample.kind, sample.failed, sample.status_class), (SpanKind::Server, true, 5));
    assert_eq!((sample.id, sample.duration_ns, sample.end), (9, 250_000_000, Timestamp::from_unix_ms(1_250)));
    assert_eq!(sample.peer, None);
}

#[test]
fn a_call_names_what_it_depends_on() {
    let cases = [
        (vec![named("peer.service", "cart"), named("server.address", "10.0.0.1")], PeerKind::Service, "cart"),
        (
            vec![named("db.system.name", "postgresql"), named("db.namespace", "shop")],
            PeerKind::Database,
            "postgresql/shop",
        ),
        (
            vec![named("messaging.system", "kafka"), named("messaging.destination.name", "t")],
            PeerKind::Messaging,
            "kafka/t",
        ),
        (vec![named("rpc.method", "pkg.Cart/Add")], PeerKind::Service, "pkg.Cart"),
        (
            vec![named("server.address", "cart.local"), attribute("server.port", Value::IntValue(8080))],
            PeerKind::Address,
            "cart.local:8080",
        ),
    ];
    for (attributes, kind, name) in cases {
        let batch = only(vec![span(3, "call", attributes)]);
        let peer = batch.spans[0].peer.unwrap();
        assert_eq!((peer.kind, batch.symbols.name(peer.name)), (kind, name));
    }
}

#[test]
fn a_status_that_was_set_beats_the_http_status() {
    let not_found = attribute("http.status_code", Value::IntValue(404));
    let unset = span(3, "GET", vec![not_found.clone()]);
    let ok = Span { status: Some(Status { code: 1, message: String::new() }), ..unset.clone() };
    let served = span(2, "GET", vec![not_found]);
    let batch = only(vec![unset, ok, served]);
    assert_eq!(batch.spans.iter().map(|sample| sample.failed).collect::<Vec<_>>(), [true, false, false]);
}

/// Attributes of a call's status; whether it is an error of its server; whether it is one to its client.
fn rpc_statuses() -> Vec<(KeyValue, bool, bool)> {
    let grpc = |code| attribute("rpc.grpc.status_code", Value::IntValue(code));
    let response = |code| named("rpc.response.status_code", code);
    let mut cases: Vec<_> =
        (0..=16).map(|code| (grpc(code), [2, 4, 12, 13, 14, 15].contains(&code), code != 0)).collect();
    cases.extend([
        (response("OK"), false, false),
        (response("UNAVAILABLE"), true, true),
        (response("NOT_FOUND"), false, true),
        (response("14"), true, true),
        (response("-32602"), false, false),
        (named("rpc.connect_rpc.error_code", "data_loss"), true, true),
        (named("rpc.connect_rpc.error_code", "canceled"), false, true),
    ]);
    cases
}

#[test]
fn a_status_of_rpc_is_an_error_of_the_side_that_the_conventions_name() {
    for (status, server, client) in rpc_statuses() {
        let unset = span(2, "Add", vec![status.clone()]);
        let ok = Span { status: Some(Status { code: 1, message: String::new() }), ..unset.clone() };
        let call = span(3, "Add", vec![status.clone()]);
        let spans = only(vec![unset, ok, call]).spans;
        assert_eq!(spans.iter().map(|sample| sample.failed).collect::<Vec<_>>(), [server, false, client], "{status:?}");
        for (name, failed) in [
            ("rpc.server.duration", server),
            ("rpc.server.call.duration", server),
            ("rpc.client.duration", client),
            ("rpc.client.call.duration", client),
        ] {
            let point = HistogramDataPoint {
                attributes: vec![named("rpc.method", "shop.Cart/Add"), status.clone()],
                count: 10,
                sum: Some(0.6),
                bucket_counts: vec![10],
                ..HistogramDataPoint::default()
            };
            let data = Histogram { data_points: vec![point], aggregation_temporality: 1 };
            let metric = Metric { name: name.into(), data: Some(Data::Histogram(data)), ..Metric::default() };
            let batch = metrics(&metric_request(vec![metric]), &all).batches.remove(0);
            assert!(matches!(batch.metrics[0].role, Role::Duration(_)), "{name}");
            assert_eq!(batch.metrics[0].failed, failed, "{name} {status:?}");
        }
    }
}

#[test]
fn a_service_without_name_or_cover_is_refused_by_name_and_the_rest_is_taken() {
    let mut request = trace("orders", vec![span(2, "a", vec![])]);
    for name in ["", "unknown_service", "unknown_service:python", "cart", "a/b"] {
        request.resource_spans.extend(trace(name, vec![span(2, "a", vec![]); 2]).resource_spans);
    }
    let covers = |service: &ServiceId| if service.name() == "cart" { Err("not covered".to_owned()) } else { Ok(()) };
    let translated = spans(&request, &covers);
    assert_eq!((translated.batches.len(), translated.refused.items), (1, 10));
    let message = translated.refused.message();
    assert!(message.contains("OTEL_SERVICE_NAME") && message.contains("'shop/cart': not covered"), "{message}");
    assert!(message.contains("'a/b'"), "{message}");
}

#[test]
fn a_long_request_is_split_and_names_stay_right() {
    let batches = spans(&trace("orders", vec![span(2, "a", vec![]); SAMPLES_MAX + 1]), &all).batches;
    assert_eq!(batches.iter().map(Batch::samples).collect::<Vec<_>>(), [SAMPLES_MAX, 1]);
    assert_eq!(batches[1].symbols.name(batches[1].spans[0].operation), "a");
}

fn metric_request(metrics: Vec<Metric>) -> ExportMetricsServiceRequest {
    let scope_metrics = vec![ScopeMetrics { metrics, ..ScopeMetrics::default() }];
    let resource = sender("orders");
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics { resource, scope_metrics, ..Default::default() }],
    }
}

fn sum_of(name: &str, data_points: Vec<NumberDataPoint>) -> Metric {
    let data = Data::Sum(Sum { data_points, aggregation_temporality: 2, is_monotonic: true });
    Metric { name: name.into(), unit: "1".into(), data: Some(data), ..Metric::default() }
}

fn int(value: i64, attributes: Vec<KeyValue>) -> NumberDataPoint {
    NumberDataPoint { attributes, value: Some(number_data_point::Value::AsInt(value)), ..NumberDataPoint::default() }
}

#[test]
fn a_stream_is_its_name_and_its_attributes_in_any_order() {
    let (a, b) = (named("a", "1"), named("b", "2"));
    let points = vec![
        int(1, vec![a.clone(), b.clone()]),
        int(2, vec![b, a.clone()]),
        int(3, vec![a]),
        int(4, vec![named("a", "2"), named("b", "1")]),
    ];
    let batch =
        metrics(&metric_request(vec![sum_of("jobs", points.clone()), sum_of("tasks", points)]), &all).batches.remove(0);
    let streams: Vec<u64> = batch.metrics.iter().map(|point| point.stream).collect();
    assert_eq!(streams[0], streams[1]);
    let distinct: std::collections::BTreeSet<&u64> = streams.iter().collect();
    assert_eq!(distinct.len(), 6);
    assert_eq!(batch.symbols.name(batch.metrics[4].series), "tasks");
    assert_eq!(
        batch.metrics[0].value,
        Measured::Sum { value: 1.0, temporality: Temporality::Cumulative, monotonic: true }
    );
}

#[test]
fn a_duration_histogram_finds_its_operation_and_a_malformed_one_is_refused() {
    let point = HistogramDataPoint {
        attributes: vec![named("http.request.method", "GET"), named("http.route", "/x"), named("error.type", "500")],
        count: 3,
        sum: Some(0.6),
        bucket_counts: vec![1, 2],
        explicit_bounds: vec![0.5],
        ..HistogramDataPoint::default()
    };
    let bad = HistogramDataPoint { explicit_bounds: vec![0.5, 0.1], bucket_counts: vec![1, 1, 1], ..point.clone() };
    let short = HistogramDataPoint { explicit_bounds: vec![], ..point.clone() };
    let data = Histogram {
        data_points: vec![point, bad, short],
        aggregation_temporality: AggregationTemporality::Delta.into(),
    };
    let name = "http.server.request.duration".to_owned();
    let metric = Metric { name, unit: "s".into(), data: Some(Data::Histogram(data)), ..Metric::default() };
    let translated = metrics(&metric_request(vec![metric]), &all);
    let batch = &translated.batches[0];
    let kept = &batch.metrics[0];
    assert_eq!((kept.role, kept.failed), (Role::Duration(SpanKind::Server), true));
    assert_eq!(batch.symbols.name(kept.operation), "GET /x");
    assert_eq!((batch.metrics.len(), translated.refused.items), (1, 2));
    assert!(translated.refused.message().contains("http.server.request.duration"));
}

#[test]
fn a_duration_of_a_database_or_a_broker_is_named_as_its_span_would_be() {
    let kafka = |more: &[(&str, &str)]| {
        let head = [named("messaging.system", "kafka"), named("messaging.destination.name", "orders")];
        head.into_iter().chain(more.iter().map(|(key, value)| named(key, value))).collect::<Vec<_>>()
    };
    let operation = "messaging.operation.name";
    let kind = "messaging.operation.type";
    let (db, call) = ("db.client.operation.duration", "messaging.client.operation.duration");
    let mysql = |more: &[(&str, &str)]| {
        let head = [named("db.system.name", "mysql")];
        head.into_iter().chain(more.iter().map(|(key, value)| named(key, value))).collect::<Vec<_>>()
    };
    let cases = [
        (db, mysql(&[("db.query.summary", "SELECT a b"), ("db.namespace", "s")]), SpanKind::Client, "SELECT a b"),
        (db, mysql(&[("db.operation.name", "CALL"), ("db.stored_procedure.name", "p")]), SpanKind::Client, "CALL p"),
        (db, mysql(&[("db.namespace", "shop")]), SpanKind::Client, "shop"),
        (db, mysql(&[]), SpanKind::Client, "mysql"),
        (call, kafka(&[(operation, "send"), (kind, "send")]), SpanKind::Producer, "send orders"),
        (call, kafka(&[(operation, "poll"), (kind, "receive")]), SpanKind::Client, "poll orders"),
        (call, kafka(&[(operation, "ack"), (kind, "settle")]), SpanKind::Client, "ack orders"),
        (call, kafka(&[(kind, "receive")]), SpanKind::Client, "receive orders"),
        ("messaging.process.duration", kafka(&[(operation, "handle")]), SpanKind::Consumer, "handle orders"),
        ("messaging.process.duration", kafka(&[]), SpanKind::Consumer, "process orders"),
        ("messaging.publish.duration", kafka(&[]), SpanKind::Producer, "publish orders"),
        ("messaging.receive.duration", kafka(&[]), SpanKind::Consumer, "receive orders"),
    ];
    for (name, attributes, kind, operation) in cases {
        let point = HistogramDataPoint { attributes, count: 1, sum: Some(0.1), ..HistogramDataPoint::default() };
        let data = Histogram { data_points: vec![point], aggregation_temporality: 1 };
        let metric = Metric { name: name.into(), data: Some(Data::Histogram(data)), ..Metric::default() };
        let batch = metrics(&metric_request(vec![metric]), &all).batches.remove(0);
        let found = (batch.metrics[0].role, batch.symbols.name(batch.metrics[0].operation));
        assert_eq!(found, (Role::Duration(kind), operation), "{name}");
    }
}

#[test]
fn a_log_keeps_its_body_only_if_it_is_an_error() {
    let record = |severity_number, severity_text: &str, body: &str| LogRecord {
        severity_number,
        severity_text: severity_text.into(),
        body: Some(AnyValue { value: Some(Value::StringValue(body.into())) }),
        observed_time_unix_nano: 5_000_000,
        trace_id: vec![1; 16],
        attributes: vec![named("exception.type", "Boom")],
        ..LogRecord::default()
    };
    let log_records = vec![record(9, "", "hello"), record(17, "", "broken"), record(0, "ERROR", &"ü".repeat(400))];
    let scope_logs = vec![ScopeLogs { log_records, ..ScopeLogs::default() }];
    let resource = sender("orders");
    let request =
        ExportLogsServiceRequest { resource_logs: vec![ResourceLogs { resource, scope_logs, ..Default::default() }] };
    let batch = logs(&request, &all).batches.remove(0);
    assert_eq!((batch.logs[0].severity, batch.logs[0].body.as_str()), (Severity::Info, ""));
    assert_eq!((batch.logs[1].severity, batch.logs[1].body.as_str()), (Severity::Error, "broken"));
    assert_eq!(batch.logs[2].severity, Severity::Error);
    assert_eq!(batch.logs[2].body.len(), 256);
    assert_eq!((batch.logs[1].exception.as_deref(), batch.logs[1].time), (Some("Boom"), Timestamp::from_unix_ms(5)));
}
