//! Translates OTLP requests into batches of observations, one service and sender each. Pure: it neither reads a socket
//! nor knows who may send what; the caller says which services are covered.
//!
//! Names follow the OpenTelemetry semantic conventions 1.30 and, where SDKs in use still send them, older ones.

mod logs;
mod metrics;
mod semantics;
mod spans;

use std::borrow::Cow;

use compact_str::CompactString;
pub use logs::logs;
pub use metrics::metrics;
use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, KeyValue, any_value::Value},
    resource::v1::Resource as Sender,
};
pub use spans::spans;

use crate::model::{
    InvalidKey, ServiceId, Timestamp,
    telemetry::{Batch, NAME_BYTES_MAX, RESOURCE_ATTRIBUTES_MAX, Resource, SAMPLES_MAX, cut},
};

/// Most different reasons that one answer lists.
const REASONS_MAX: usize = 8;

/// A request as batches, and what of it was refused.
#[derive(Debug, Default, PartialEq)]
pub struct Translated {
    /// What is to be told, at most [`SAMPLES_MAX`] samples each.
    pub batches: Vec<Batch>,
    /// What was refused.
    pub refused: Refused,
}

/// How many items were refused and why; becomes `partial_success`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// Spans, data points or log records.
    pub items: u64,
    reasons: Vec<Cow<'static, str>>,
}

impl Refused {
    /// Counts refused items under a reason.
    pub fn add(&mut self, items: usize, reason: impl Into<Cow<'static, str>>) {
        self.items += u64::try_from(items).unwrap_or(u64::MAX);
        let reason = reason.into();
        if self.reasons.len() < REASONS_MAX && !self.reasons.contains(&reason) {
            self.reasons.push(reason);
        }
    }

    /// The reasons in one line; empty if nothing was refused.
    pub fn message(&self) -> String {
        self.reasons.join("; ")
    }
}

/// Who sends: the service, if its name can be used, and the facts that hold for all its samples.
struct Origin {
    service: ServiceId,
    resource: Resource,
}

/// What SDKs send when nobody told them a name.
const UNKNOWN: &str = "unknown_service";

fn origin(sender: Option<&Sender>) -> Result<Origin, Cow<'static, str>> {
    let (mut name, mut namespace) = ("", "");
    let mut resource = Resource::default();
    for attribute in sender.map_or(&[][..], |sender| &sender.attributes) {
        let Some(value) = text(attribute) else { continue };
        let kept = || Some(CompactString::new(cut(value, NAME_BYTES_MAX)));
        match attribute.key.as_str() {
            "service.name" => name = value,
            "service.namespace" => namespace = value,
            "service.instance.id" => resource.instance = kept(),
            "service.version" => resource.version = kept(),
            "deployment.environment.name" => resource.environment = kept(),
            "deployment.environment" => resource.environment = resource.environment.or_else(kept),
            key if resource.attributes.len() < RESOURCE_ATTRIBUTES_MAX && !key.is_empty() => {
                let key = CompactString::new(cut(key, NAME_BYTES_MAX));
                resource.attributes.push((key, CompactString::new(cut(value, NAME_BYTES_MAX))));
            }
            _ => {}
        }
    }
    if name.is_empty() || name == UNKNOWN || name.strip_prefix(UNKNOWN).is_some_and(|rest| rest.starts_with(':')) {
        return Err("a resource has no service.name (set OTEL_SERVICE_NAME)".into());
    }
    let service = ServiceId::new(namespace, name).map_err(|error| misnamed(namespace, name, &error))?;
    Ok(Origin { service, resource })
}

fn misnamed(namespace: &str, name: &str, error: &InvalidKey) -> String {
    let (namespace, name) = (cut(namespace, NAME_BYTES_MAX), cut(name, NAME_BYTES_MAX));
    format!("service.namespace '{namespace}' with service.name '{name}' is no service id: {error}")
}

/// The origin if its name can be used and `covers` agrees; otherwise counts `items` as refused.
fn covered(
    sender: Option<&Sender>,
    items: usize,
    refused: &mut Refused,
    covers: &dyn Fn(&ServiceId) -> Result<(), String>,
) -> Option<Origin> {
    if items == 0 {
        return None;
    }
    let origin = origin(sender).and_then(|origin| match covers(&origin.service) {
        Ok(()) => Ok(origin),
        Err(reason) => Err(format!("service '{}': {reason}", origin.service).into()),
    });
    match origin {
        Ok(origin) => Some(origin),
        Err(reason) => {
            refused.add(items, reason);
            None
        }
    }
}

/// Fills batches of one origin, a new one whenever one is full.
struct Filler<'a> {
    origin: Origin,
    into: &'a mut Vec<Batch>,
    first: usize,
}

impl<'a> Filler<'a> {
    fn new(origin: Origin, into: &'a mut Vec<Batch>) -> Self {
        let first = into.len();
        Self { origin, into, first }
    }

    /// The batch that takes the next sample, and whether it is a fresh one, whose names are not interned yet.
    /// `left` samples are still to come.
    fn batch(&mut self, left: usize) -> (&mut Batch, bool) {
        let fresh = match self.into.get(self.first..).and_then(<[Batch]>::last) {
            Some(last) => last.samples() >= SAMPLES_MAX,
            None => true,
        };
        if fresh {
            let mut batch = Batch::new(self.origin.service.clone());
            batch.resource = self.origin.resource.clone();
            self.into.push(batch);
        }
        let batch = self.into.last_mut().expect("one was just pushed, or found");
        if fresh {
            batch.spans.reserve(left.min(SAMPLES_MAX));
        }
        (batch, fresh)
    }
}

/// An attribute's value, if it is a text.
fn text(attribute: &KeyValue) -> Option<&str> {
    match attribute.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text),
        Value::BoolValue(_)
        | Value::IntValue(_)
        | Value::DoubleValue(_)
        | Value::ArrayValue(_)
        | Value::KvlistValue(_)
        | Value::BytesValue(_)
        | Value::StringValueStrindex(_) => None,
    }
}

/// A whole number, also if it was sent as a text or a double.
#[expect(clippy::cast_possible_truncation, clippy::as_conversions, reason = "a saturating cast is what is wanted")]
fn integer(value: &AnyValue) -> Option<i64> {
    match value.value.as_ref()? {
        Value::IntValue(number) => Some(*number),
        Value::DoubleValue(number) => Some(*number as i64),
        Value::StringValue(text) => text.parse().ok(),
        Value::BoolValue(_)
        | Value::ArrayValue(_)
        | Value::KvlistValue(_)
        | Value::BytesValue(_)
        | Value::StringValueStrindex(_) => None,
    }
}

/// Unix nanoseconds, as OTLP has them.
fn time(nanos: u64) -> Timestamp {
    Timestamp::from_unix_ms(nanos / 1_000_000)
}

#[cfg(test)]
mod tests;
