//! OTLP over real HTTP and gRPC.
#![expect(clippy::unwrap_used, reason = "helpers of tests, which fail by it")]

use std::io::Write as _;

use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::{ExportLogsServiceRequest, logs_service_client::LogsServiceClient},
        trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse, trace_service_client::TraceServiceClient},
    },
    common::v1::{AnyValue, KeyValue, any_value::Value as Any},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};
use prost::Message as _;
use serde_json::{Value, json};
use tonic::{Code, Request, codec::CompressionEncoding, metadata::MetadataValue};

use crate::{
    api_world::{Answer, World},
    described,
};

pub(crate) fn named(key: &str, value: &str) -> KeyValue {
    let value = Some(AnyValue { value: Some(Any::StringValue(value.into())) });
    KeyValue { key: key.into(), value, ..KeyValue::default() }
}

pub(crate) fn trace(services: &[&str], spans_each: u64) -> ExportTraceServiceRequest {
    let span = |number: u64| Span {
        trace_id: vec![1; 16],
        span_id: (number + 1).to_be_bytes().to_vec(),
        name: "GET /".into(),
        kind: 2,
        start_time_unix_nano: 1_795_397_042_000_000_000,
        end_time_unix_nano: 1_795_397_042_100_000_000,
        ..Span::default()
    };
    let resource_spans = services.iter().map(|service| ResourceSpans {
        resource: Some(Resource {
            attributes: vec![named("service.namespace", "shop"), named("service.name", service)],
            ..Resource::default()
        }),
        scope_spans: vec![ScopeSpans { spans: (0..spans_each).map(span).collect(), ..ScopeSpans::default() }],
        ..ResourceSpans::default()
    });
    ExportTraceServiceRequest { resource_spans: resource_spans.collect() }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

async fn post(world: &World, key: &str, kind: &str, encoding: Option<&str>, body: Vec<u8>) -> Answer {
    let request = world.bare("POST", "/v1/traces").bearer_auth(key).header("content-type", kind);
    let request = if let Some(encoding) = encoding { request.header("content-encoding", encoding) } else { request };
    let answer = Answer::of(request.body(body).send().await.unwrap()).await;
    described::check("POST", "/v1/traces", &answer);
    answer
}

const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";

#[tokio::test]
async fn telemetry_in_every_encoding_brings_its_twin_into_being() {
    let world = World::new().await;
    let operator = world.operator.clone();
    let bytes = |service| trace(&[service], 3).encode_to_vec();
    assert_eq!(post(&world, &operator, PROTOBUF, None, bytes("plain")).await.status, 200);
    let packed = post(&world, &operator, PROTOBUF, Some("gzip"), gzip(&bytes("packed"))).await;
    assert_eq!((packed.status, packed.kind.as_str(), packed.body.len()), (200, PROTOBUF, 0));
    let text = serde_json::to_vec(&trace(&["text"], 3)).unwrap();
    let answer = post(&world, &operator, "application/json; charset=utf-8", None, text).await;
    assert_eq!((answer.status, answer.kind.as_str()), (200, JSON));

    let channel = tonic::transport::Endpoint::from_shared(world.node.url()).unwrap().connect().await.unwrap();
    let mut client = TraceServiceClient::new(channel).send_compressed(CompressionEncoding::Gzip);
    let mut request = Request::new(trace(&["grpc"], 3));
    let bearer: MetadataValue<_> = format!("Bearer {operator}").parse().unwrap();
    request.metadata_mut().insert("authorization", bearer);
    assert_eq!(client.export(request).await.unwrap().into_inner().partial_success, None);

    for service in ["plain", "packed", "text", "grpc"] {
        // A read waits behind what was told before it only once the twin's inbox was drained: ask until it is there.
        let twin = format!("/api/v1/twins/shop/{service}");
        let mut answer = world.send("GET", &twin, Value::Null).await;
        for _ in 0..1000 {
            if answer.status == 200 {
                break;
            }
            tokio::task::yield_now().await;
            answer = world.send("GET", &twin, Value::Null).await;
        }
        assert_eq!(answer.status, 200, "{service}");
    }
}

#[tokio::test]
async fn an_uncovered_service_is_refused_by_name_and_the_rest_is_taken() {
    let world = World::new().await;
    let (_, key) = world.mint(json!({"kind": "service", "service": "shop/orders"})).await;
    let request = trace(&["orders", "cart", "unknown_service"], 2);
    let answer = post(&world, &key, PROTOBUF, None, request.encode_to_vec()).await;
    let partial = ExportTraceServiceResponse::decode(&answer.body[..]).unwrap().partial_success.unwrap();
    assert_eq!((answer.status, partial.rejected_spans), (200, 4));
    assert!(partial.error_message.contains("'shop/cart'"), "{}", partial.error_message);
    assert!(partial.error_message.contains("OTEL_SERVICE_NAME"), "{}", partial.error_message);
    let answer = post(&world, &key, JSON, None, serde_json::to_vec(&request).unwrap()).await;
    // proto3 writes a number of 64 bits as a string.
    assert_eq!(answer.json()["partialSuccess"]["rejectedSpans"], json!("4"), "{}", answer.json());
    let fine = post(&world, &key, JSON, None, serde_json::to_vec(&trace(&["orders"], 2)).unwrap()).await;
    assert_eq!((fine.status, fine.json()), (200, json!({})));
}

#[tokio::test]
async fn a_key_may_bring_only_so_many_twins_into_being() {
    let world = World::with(|config| config.server.new_twins_per_hour = 2).await;
    let (_, key) = world.mint(json!({"kind": "ingest", "namespace": "shop"})).await;
    let answer = post(&world, &key, PROTOBUF, None, trace(&["a", "b", "c"], 1).encode_to_vec()).await;
    let partial = ExportTraceServiceResponse::decode(&answer.body[..]).unwrap().partial_success.unwrap();
    assert_eq!(partial.rejected_spans, 1);
    assert!(partial.error_message.contains("new_twins_per_hour"), "{}", partial.error_message);
    let known = post(&world, &key, PROTOBUF, None, trace(&["a", "b"], 1).encode_to_vec()).await;
    assert_eq!((known.status, known.body.len()), (200, 0));
}

/// Reads a twin until it is there: what was told before a read is drained behind it.
async fn appears(world: &World, twin: &str) -> Value {
    for _ in 0..10_000 {
        let answer = world.send("GET", twin, Value::Null).await;
        if answer.status == 200 {
            return answer.json();
        }
        tokio::task::yield_now().await;
    }
    panic!("'{twin}' does not appear");
}

#[tokio::test]
async fn a_removed_service_that_speaks_again_gets_a_new_twin() {
    let world = World::with(|config| config.server.new_twins_per_hour = 2).await;
    let (_, key) = world.mint(json!({"kind": "ingest", "namespace": "shop"})).await;
    let twin = "/api/v1/twins/shop/orders";
    let bytes = || trace(&["orders"], 1).encode_to_vec();
    assert_eq!(post(&world, &key, PROTOBUF, None, bytes()).await.body.len(), 0);
    appears(&world, twin).await;
    let removed = world.done("DELETE", twin, Value::Null).await;

    assert_eq!(post(&world, &key, PROTOBUF, None, bytes()).await.body.len(), 0);
    let anew = appears(&world, twin).await;
    assert!(anew["revision"].as_u64() > removed["revision"].as_u64(), "{anew}");
    assert_eq!(anew["instances"].as_array().unwrap().len(), 1);

    world.done("DELETE", twin, Value::Null).await;
    let answer = post(&world, &key, PROTOBUF, None, bytes()).await;
    let partial = ExportTraceServiceResponse::decode(&answer.body[..]).unwrap().partial_success.unwrap();
    assert!(partial.error_message.contains("new_twins_per_hour"), "it counts as new: {}", partial.error_message);
    assert_eq!(world.send("GET", twin, Value::Null).await.problem(), (410, "removed".into()));
    let beat = world.send("PUT", &format!("{twin}/instances/i1"), json!({})).await;
    assert_eq!(beat.status, 200, "{:?}", String::from_utf8_lossy(&beat.body));
    assert_eq!(world.send("GET", twin, Value::Null).await.status, 200);
}

#[tokio::test]
async fn what_is_no_otlp_is_refused_with_its_reason() {
    let world = World::new().await;
    let operator = world.operator.clone();
    let good = trace(&["orders"], 1).encode_to_vec();
    let bomb = gzip(&vec![0; 17 << 20]);
    let cases = [
        (PROTOBUF, None, b"\xff\xff\xff".to_vec(), 400, "malformed-body"),
        (JSON, None, b"{\"resourceSpans\":7}".to_vec(), 400, "malformed-body"),
        (PROTOBUF, Some("gzip"), good.clone(), 400, "malformed-body"),
        (PROTOBUF, Some("br"), good.clone(), 415, "unsupported-media-type"),
        ("text/plain", None, good.clone(), 415, "unsupported-media-type"),
        (PROTOBUF, Some("gzip"), bomb, 413, "body-too-large"),
    ];
    for (kind, encoding, body, status, code) in cases {
        let answer = post(&world, &operator, kind, encoding, body).await;
        assert_eq!(answer.problem(), (status, code.to_owned()), "{kind} {encoding:?}");
    }
    let keyless = world.bare("POST", "/v1/logs").header("content-type", PROTOBUF).body(good).send().await.unwrap();
    assert_eq!(Answer::of(keyless).await.problem(), (401, "key-missing".into()));

    let channel = tonic::transport::Endpoint::from_shared(world.node.url()).unwrap().connect().await.unwrap();
    let refused = LogsServiceClient::new(channel).export(ExportLogsServiceRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert!(refused.message().contains("key-missing"), "{}", refused.message());
}

#[tokio::test]
async fn a_body_of_100_mb_is_refused_before_it_is_read() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let world = World::new().await;
    let mut stream = tokio::net::TcpStream::connect(world.node.address()).await.unwrap();
    let head = format!(
        "POST /v1/traces HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\ncontent-type: {PROTOBUF}\r\n\
         content-length: 104857600\r\n\r\n",
        world.operator
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
}
