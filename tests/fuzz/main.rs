//! The fuzz targets on generated, valid and damaged input. Coverage-guided runs are for `cargo fuzz` by hand.
#![cfg(all(feature = "server", feature = "cli"))]

#[cfg(feature = "dapr")]
#[expect(clippy::unwrap_used, reason = "helpers of tests, which fail by it")]
mod doors;
#[expect(unreachable_pub, clippy::type_complexity, reason = "a library of its own for cargo-fuzz")]
#[path = "../../fuzz/src/lib.rs"]
mod targets;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value::Value},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};
use proptest::{collection::vec, prelude::*, sample::Index};
use prost::Message as _;
use service_twin::{
    model::{ServiceId, Timestamp, rights::Attenuation},
    token::{PREFIX, RootKey, attenuate},
    twin::keyring::Covers,
};
use targets::TARGETS;

/// Cases of each property.
const CASES: u32 = 2048;

/// A token with a block that narrows it.
fn token() -> String {
    let covers = Covers::Service { service: ServiceId::parse("shop/orders").expect("an id") };
    let by = Attenuation { instances: Some(vec!["orders-1".into()]), ..Attenuation::default() };
    let token = RootKey::generate().mint("0123456789abcdef", &covers, Timestamp::ZERO, &by).expect("a token");
    attenuate(&token, &by).expect("it can be narrowed")
}

/// Bytes that some target takes whole.
fn seeds() -> Vec<Vec<u8>> {
    let attribute = KeyValue {
        key: "service.name".into(),
        value: Some(AnyValue { value: Some(Value::StringValue("orders".into())) }),
        ..KeyValue::default()
    };
    let resource = Resource { attributes: vec![attribute.clone()], ..Resource::default() };
    let span = Span {
        name: "GET /".into(),
        span_id: vec![7; 8],
        trace_id: vec![9; 16],
        attributes: vec![attribute],
        end_time_unix_nano: 1,
        ..Span::default()
    };
    let scope_spans = vec![ScopeSpans { spans: vec![span; 600], ..ScopeSpans::default() }];
    let spans = ResourceSpans { resource: Some(resource), scope_spans, ..ResourceSpans::default() };
    let request = ExportTraceServiceRequest { resource_spans: vec![spans] };
    vec![
        include_bytes!("../golden/frame-1.bin").to_vec(),
        serde_json::to_vec(&request).expect("a request prints"),
        request.encode_to_vec(),
        br#"{"replicas":3,"limits":{"cpu":"2","none":null},"list":[1,2.5,"\u00fc"]}"#.to_vec(),
        br#"[{"a":{"b":null,"c":[null]},"d":1,"e":null},5,{"a":7,"e":{"f":1}},{"a":{"b":2,"x":null},"d":{}},null,[]]"#
            .to_vec(),
        b"apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: { name: store }\nspec:\n  type: state.redis\n  \
          metadata:\n  - name: key\n    secretKeyRef: { name: a, key: b }\nscopes: [orders]\n---\n\
          apiVersion: dapr.io/v2alpha1\nkind: Subscription\nmetadata: { name: s }\n\
          spec: { pubsubname: p, topic: t, routes: { rules: [{ match: x, path: /y }], default: /z } }\n"
            .to_vec(),
        b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_vec(),
        b"default/orders".to_vec(),
        token().into_bytes(),
        URL_SAFE_NO_PAD.decode(&token()[PREFIX.len()..]).expect("a token is base64"),
        b"2026-11-23T01:02:03.456Z".to_vec(),
    ]
}

fn every_target(bytes: &[u8]) {
    for (_, target) in TARGETS {
        target(bytes);
    }
}

#[test]
fn every_target_takes_what_is_valid() {
    for seed in &seeds() {
        every_target(seed);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_target_takes_any_bytes(bytes in vec(any::<u8>(), 0..512)) {
        every_target(&bytes);
    }

    #[test]
    fn every_target_takes_any_text(text in "\\PC{0,64}") {
        every_target(text.as_bytes());
    }

    #[test]
    fn every_target_takes_what_is_damaged(
        seed in any::<Index>(),
        cut in any::<Index>(),
        flips in vec((any::<Index>(), any::<u8>()), 0..4),
    ) {
        let seeds = seeds();
        let mut bytes = seed.get(&seeds).clone();
        // A cut in one case of two; the other keeps the length, so that checks behind it are reached.
        if flips.len() % 2 == 1 {
            bytes.truncate(cut.index(bytes.len()));
        }
        for (at, with) in flips {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] ^= with;
            }
        }
        every_target(&bytes);
    }
}
