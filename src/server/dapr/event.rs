//! Events in the messages of `dapr.proto.runtime.v1`.

use dapr::dapr::proto::runtime::v1 as wire;

use super::pubsub::{Handed, Wanted};

/// A message for a subscriber; `path` is the one by which its application tells subscriptions apart.
pub fn topic_event(handed: Handed, wanted: &Wanted, path: String) -> wire::TopicEventRequest {
    let Handed { id, mut event, data, data_content_type } = handed;
    for known in ["id", "data", "data_base64", "datacontenttype", "topic", "pubsubname"] {
        event.remove(known);
    }
    let read = |value: &serde_json::value::RawValue| serde_json::from_str(value.get()).unwrap_or_default();
    let mut text = |name: &str| match event.remove(name).map(|value| read(&value)) {
        Some(serde_json::Value::String(text)) => text,
        Some(_) | None => String::new(),
    };
    let (source, kind, spec_version) = (text("source"), text("type"), text("specversion"));
    let fields = event.into_iter().map(|(name, value)| (name, prost_value(read(&value)))).collect();
    wire::TopicEventRequest {
        id,
        source,
        r#type: kind,
        spec_version,
        data_content_type,
        data,
        topic: wanted.topic.clone(),
        pubsub_name: wanted.component.clone(),
        path,
        extensions: Some(prost_types::Struct { fields }),
    }
}

fn prost_value(value: serde_json::Value) -> prost_types::Value {
    use prost_types::value::Kind;
    let kind = match value {
        serde_json::Value::Null => Kind::NullValue(0),
        serde_json::Value::Bool(value) => Kind::BoolValue(value),
        serde_json::Value::Number(value) => Kind::NumberValue(value.as_f64().unwrap_or_default()),
        serde_json::Value::String(value) => Kind::StringValue(value),
        serde_json::Value::Array(values) => {
            Kind::ListValue(prost_types::ListValue { values: values.into_iter().map(prost_value).collect() })
        }
        serde_json::Value::Object(fields) => {
            let fields = fields.into_iter().map(|(name, value)| (name, prost_value(value))).collect();
            Kind::StructValue(prost_types::Struct { fields })
        }
    };
    prost_types::Value { kind: Some(kind) }
}
