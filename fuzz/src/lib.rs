//! What bytes from outside meet first. Each target takes any bytes and must neither panic nor break its law.
//!
//! `cargo fuzz run records` (nightly, by hand) explores with coverage; `tests/fuzz` runs the same targets on generated
//! and damaged input with every test run.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use opentelemetry_proto::tonic::collector::{
    logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest, trace::v1::ExportTraceServiceRequest,
};
use prost::Message as _;
use serde_json::Value;
use service_twin::{
    cli::run::resources::{self, Resources},
    model::{Key, RequestKey, ServiceId, Timestamp, TraceParent, rights::Attenuation, telemetry::SAMPLES_MAX},
    server::otlp::{self, Translated},
    token,
    twin::{
        from_bytes,
        keyring::Entry,
        record::{self, Section},
        service::{
            Service,
            json::{Json, delta, merge},
        },
        to_bytes,
    },
};

/// A target by its name.
pub const TARGETS: [(&str, fn(&[u8])); 6] =
    [("records", records), ("otlp", otlp), ("json", json), ("ids", ids), ("tokens", tokens), ("resources", resources)];

/// Frames and the states in them: damage is found, and what decodes encodes again.
pub fn records(bytes: &[u8]) {
    if let Ok(record) = record::decode(bytes) {
        assert_eq!(record::head(bytes).ok(), Some(record.head), "the head alone reads as the whole does");
        for section in [Section::State, Section::Outbox, Section::Ring, Section::Journal] {
            record.section(section).inspect(|bytes| states(bytes));
        }
    }
    states(bytes);
}

fn states(bytes: &[u8]) {
    if let Ok(service) = from_bytes::<Service>(bytes) {
        assert!(from_bytes::<Service>(&to_bytes(&service)).is_ok(), "what decodes encodes again");
    }
    if let Ok(entry) = from_bytes::<Entry>(bytes) {
        assert!(from_bytes::<Entry>(&to_bytes(&entry)).is_ok(), "what decodes encodes again");
    }
}

/// OTLP requests in both encodings: whatever comes becomes bounded batches and counted refusals.
pub fn otlp(bytes: &[u8]) {
    let covers = |_: &ServiceId| Ok(());
    let bounded = |translated: &Translated| {
        assert!(translated.batches.iter().all(|batch| batch.samples() <= SAMPLES_MAX), "a batch is bounded");
    };
    let traces = [ExportTraceServiceRequest::decode(bytes).ok(), serde_json::from_slice(bytes).ok()];
    traces.iter().flatten().for_each(|request| bounded(&otlp::spans(request, &covers)));
    let metrics = [ExportMetricsServiceRequest::decode(bytes).ok(), serde_json::from_slice(bytes).ok()];
    metrics.iter().flatten().for_each(|request| bounded(&otlp::metrics(request, &covers)));
    let logs = [ExportLogsServiceRequest::decode(bytes).ok(), serde_json::from_slice(bytes).ok()];
    logs.iter().flatten().for_each(|request| bounded(&otlp::logs(request, &covers)));
}

/// JSON bodies: what is parsed prints as it was, and a delta merged into whatever was reported leaves none.
pub fn json(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(json) = Json::parse(text) else { return };
    if !json.is_shallow() {
        return;
    }
    assert_eq!(Json::parse(json.text()).ok().as_ref(), Some(&json));
    let desired = json.value();
    assert_eq!(delta(&desired, &desired), None, "what is as desired lacks nothing");
    // Of a list the first is desired and the others are what may have been reported; a desired null is an absent member.
    let parts = desired.as_array().map_or(&[][..], Vec::as_slice);
    let pairs = parts.iter().skip(1).map(|reported| (&parts[0], reported.clone()));
    for (desired, mut reported) in pairs.chain([(&desired, Value::Null)]) {
        if let Some(missing) = delta(desired, &reported) {
            merge(&mut reported, &missing);
        }
        assert_eq!(delta(desired, &reported), None, "{desired} merged into what was reported");
    }
}

/// Ids, keys, headers, times: what is taken reads back as it was written.
pub fn ids(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(key) = Key::parse(text) {
        assert_eq!(Key::parse(key.as_str()).ok(), Some(key));
    }
    if let Ok(service) = ServiceId::parse(text) {
        assert_eq!(ServiceId::new(service.namespace(), service.name()).ok(), Some(service.clone()));
        assert_eq!(ServiceId::parse(service.as_str()).ok(), Some(service));
    }
    if let Some(trace) = TraceParent::parse(text) {
        assert_eq!(TraceParent::parse(&trace.to_string()), Some(trace));
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        assert_eq!(time.to_string().parse(), Ok(time));
    }
    drop(RequestKey::from_uuid_v7(text));
}

/// Tokens, as text and as what the text holds: whatever can be read can be narrowed, unless it is sealed, and says less then.
pub fn tokens(bytes: &[u8]) {
    let text = std::str::from_utf8(bytes).map(str::to_owned);
    let encoded = format!("{}{}", token::PREFIX, URL_SAFE_NO_PAD.encode(bytes));
    let by = Attenuation { expires_at: Some(Timestamp::from_unix_ms(1000)), ..Attenuation::default() };
    for text in text.into_iter().chain([encoded]) {
        let Ok(said) = token::show(&text) else { continue };
        if let Ok(narrowed) = token::attenuate(&text, &by) {
            let narrowed = token::show(&narrowed).expect("what we wrote can be read");
            assert_eq!((&narrowed.id, &narrowed.covers), (&said.id, &said.covers));
            assert!(narrowed.rights.expires_at <= by.expires_at && !narrowed.rights.is_whole());
        }
    }
}

/// Dapr's resource files: what is read is for this service, and what is refused is so on one line.
pub fn resources(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut read = Resources::default();
    if let Err(error) = resources::read("file", text, "orders", &mut read) {
        assert!(!error.to_string().contains('\n'), "{error}");
    }
    let is_for_it = |scopes: &[String]| scopes.is_empty() || scopes.iter().any(|scope| scope == "orders");
    assert!(read.components.iter().all(|component| is_for_it(&component.scopes)));
    assert!(read.subscriptions.iter().all(|subscription| is_for_it(&subscription.scopes)));
    drop(resources::choose(&mut read, true));
}
