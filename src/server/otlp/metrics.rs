//! Metric points.

use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    common::v1::{KeyValue, any_value},
    metrics::v1::{
        AggregationTemporality, ExponentialHistogramDataPoint, HistogramDataPoint, Metric, NumberDataPoint,
        SummaryDataPoint, exponential_histogram_data_point as exponential, metric::Data, number_data_point,
    },
};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::{Filler, Refused, Translated, covered, semantics::Facts, time};
use crate::model::{
    ServiceId,
    telemetry::{Buckets, Explicit, Exponential, MetricPoint, Role, Symbol, Temporality, Value},
};

/// Most buckets of one histogram.
const BUCKETS_MAX: usize = 2048;
/// Scales of exponential histograms that are defined (OpenTelemetry metrics data model).
const SCALES: std::ops::RangeInclusive<i32> = -10..=20;
/// `DataPointFlags::NO_RECORDED_VALUE`: a stream that has ended says so with a point without value.
const NO_VALUE: u32 = 1;

/// Translates metric points.
pub fn metrics(request: &ExportMetricsServiceRequest, covers: &dyn Fn(&ServiceId) -> Result<(), String>) -> Translated {
    let mut out = Translated::default();
    let mut scratch = String::new();
    for from in &request.resource_metrics {
        let items = from.scope_metrics.iter().flat_map(|scope| &scope.metrics).map(points).sum();
        let Some(origin) = covered(from.resource.as_ref(), items, &mut out.refused, covers) else { continue };
        let instance = xxh3_64(origin.resource.instance.as_deref().unwrap_or_default().as_bytes());
        let mut filler = Filler::new(origin, &mut out.batches);
        for scope in &from.scope_metrics {
            let scope_name = scope.scope.as_ref().map_or("", |scope| scope.name.as_str());
            let seed = xxh3_64_with_seed(scope_name.as_bytes(), instance);
            for metric in &scope.metrics {
                let mut sink = Sink {
                    metric,
                    stream: xxh3_64_with_seed(metric.name.as_bytes(), seed),
                    role: Role::of(&metric.name),
                    names: None,
                    filler: &mut filler,
                    refused: &mut out.refused,
                    scratch: &mut scratch,
                };
                sink.take();
            }
        }
    }
    out
}

fn points(metric: &Metric) -> usize {
    match &metric.data {
        Some(Data::Gauge(data)) => data.data_points.len(),
        Some(Data::Sum(data)) => data.data_points.len(),
        Some(Data::Histogram(data)) => data.data_points.len(),
        Some(Data::ExponentialHistogram(data)) => data.data_points.len(),
        Some(Data::Summary(data)) => data.data_points.len(),
        None => 0,
    }
}

/// Takes the points of one metric.
struct Sink<'a, 'b> {
    metric: &'a Metric,
    stream: u64,
    role: Role,
    names: Option<(Symbol, Symbol)>,
    filler: &'a mut Filler<'b>,
    refused: &'a mut Refused,
    scratch: &'a mut String,
}

/// What all kinds of point have.
struct Head<'a> {
    attributes: &'a [KeyValue],
    start: u64,
    time: u64,
    flags: u32,
}

impl Sink<'_, '_> {
    fn take(&mut self) {
        match &self.metric.data {
            None => {}
            Some(Data::Gauge(data)) => {
                for point in &data.data_points {
                    self.push(&number_head(point), number(point).map(Value::Gauge));
                }
            }
            Some(Data::Sum(data)) => {
                let (temporality, monotonic) = (temporality(data.aggregation_temporality), data.is_monotonic);
                for point in &data.data_points {
                    let value = number(point)
                        .and_then(|value| temporality.map(|temporality| Value::Sum { value, temporality, monotonic }));
                    self.push(&number_head(point), value);
                }
            }
            Some(Data::Histogram(data)) => {
                let temporality = temporality(data.aggregation_temporality);
                for point in &data.data_points {
                    let head = Head {
                        attributes: &point.attributes,
                        start: point.start_time_unix_nano,
                        time: point.time_unix_nano,
                        flags: point.flags,
                    };
                    self.push(&head, temporality.and_then(|temporality| explicit(point, temporality)));
                }
            }
            Some(Data::ExponentialHistogram(data)) => {
                let temporality = temporality(data.aggregation_temporality);
                for point in &data.data_points {
                    let head = Head {
                        attributes: &point.attributes,
                        start: point.start_time_unix_nano,
                        time: point.time_unix_nano,
                        flags: point.flags,
                    };
                    self.push(&head, temporality.and_then(|temporality| exponential(point, temporality)));
                }
            }
            Some(Data::Summary(data)) => {
                for point in &data.data_points {
                    let head = Head {
                        attributes: &point.attributes,
                        start: point.start_time_unix_nano,
                        time: point.time_unix_nano,
                        flags: point.flags,
                    };
                    self.push(&head, summary(point));
                }
            }
        }
    }

    fn push(&mut self, head: &Head<'_>, value: Result<Value, &'static str>) {
        if head.flags & NO_VALUE != 0 {
            return;
        }
        let value = match value {
            Ok(value) => value,
            Err(reason) => {
                let metric = crate::model::telemetry::cut(&self.metric.name, 64);
                return self.refused.add(1, format!("metric '{metric}': {reason}"));
            }
        };
        let (batch, fresh) = self.filler.batch(0);
        let names = self.names.filter(|_| !fresh);
        let (series, unit) =
            names.unwrap_or_else(|| (batch.symbols.intern(&self.metric.name), batch.symbols.intern(&self.metric.unit)));
        self.names = Some((series, unit));
        let (role, operation, failed, peer) = match self.role {
            Role::Series => (Role::Series, Symbol::OTHER, false, None),
            Role::Duration(kind) => {
                let facts = Facts::of_point(&self.metric.name, head.attributes);
                let kind = facts.kind(kind);
                let operation = facts.operation("", &mut batch.symbols, self.scratch);
                let peer = facts.peer(kind, &mut batch.symbols, self.scratch);
                (Role::Duration(kind), operation, facts.failed(kind), peer)
            }
        };
        batch.metrics.push(MetricPoint {
            stream: stream(self.stream, head.attributes),
            series,
            unit,
            role,
            operation,
            failed,
            peer,
            start: time(head.start),
            time: time(head.time),
            value,
        });
    }
}

/// The stream of a point: its attributes in whatever order they came.
fn stream(seed: u64, attributes: &[KeyValue]) -> u64 {
    attributes.iter().fold(seed, |sum, attribute| {
        let key = xxh3_64_with_seed(attribute.key.as_bytes(), seed);
        let value = attribute.value.as_ref().and_then(|value| value.value.as_ref());
        sum.wrapping_add(value.map_or(key, |value| value_hash(value, key)))
    })
}

fn value_hash(value: &any_value::Value, seed: u64) -> u64 {
    use any_value::Value as Any;
    let hash = |bytes: &[u8]| xxh3_64_with_seed(bytes, seed);
    match value {
        Any::StringValue(text) => hash(text.as_bytes()),
        Any::BytesValue(bytes) => hash(bytes),
        Any::BoolValue(truth) => hash(&[u8::from(*truth)]),
        Any::IntValue(number) => hash(&number.to_le_bytes()),
        Any::DoubleValue(number) => hash(&number.to_bits().to_le_bytes()),
        Any::StringValueStrindex(index) => hash(&index.to_le_bytes()),
        Any::ArrayValue(array) => array
            .values
            .iter()
            .filter_map(|value| value.value.as_ref())
            .fold(seed, |seed, value| value_hash(value, seed)),
        Any::KvlistValue(list) => stream(seed, &list.values),
    }
}

fn number_head(point: &NumberDataPoint) -> Head<'_> {
    Head {
        attributes: &point.attributes,
        start: point.start_time_unix_nano,
        time: point.time_unix_nano,
        flags: point.flags,
    }
}

#[expect(
    clippy::cast_precision_loss,
    clippy::as_conversions,
    reason = "a measurement beyond 2^53 may lose its last bits"
)]
fn number(point: &NumberDataPoint) -> Result<f64, &'static str> {
    match point.value {
        Some(number_data_point::Value::AsDouble(value)) if value.is_finite() => Ok(value),
        Some(number_data_point::Value::AsDouble(_)) => Err("a value is not a finite number"),
        Some(number_data_point::Value::AsInt(value)) => Ok(value as f64),
        None => Err("a point has no value"),
    }
}

fn temporality(number: i32) -> Result<Temporality, &'static str> {
    match AggregationTemporality::try_from(number) {
        Ok(AggregationTemporality::Delta) => Ok(Temporality::Delta),
        Ok(AggregationTemporality::Cumulative) => Ok(Temporality::Cumulative),
        Ok(AggregationTemporality::Unspecified) | Err(_) => Err("the aggregation temporality is missing"),
    }
}

fn explicit(point: &HistogramDataPoint, temporality: Temporality) -> Result<Value, &'static str> {
    let (bounds, counts) = (&point.explicit_bounds, &point.bucket_counts);
    if counts.len() > BUCKETS_MAX {
        return Err("a histogram has more than 2,048 buckets");
    }
    let shaped = if counts.is_empty() { bounds.is_empty() } else { counts.len() == bounds.len() + 1 };
    if !shaped {
        return Err("a histogram must have one bucket more than bounds");
    }
    let rising = bounds.windows(2).all(|pair| pair[0] < pair[1]) && bounds.iter().all(|bound| !bound.is_nan());
    if !rising {
        return Err("the bounds of a histogram must rise");
    }
    Ok(Value::Explicit(Box::new(Explicit {
        temporality,
        bounds: bounds.clone(),
        counts: counts.clone(),
        sum: point.sum.filter(|sum| sum.is_finite()),
        count: point.count,
    })))
}

fn exponential(point: &ExponentialHistogramDataPoint, temporality: Temporality) -> Result<Value, &'static str> {
    if !SCALES.contains(&point.scale) {
        return Err("the scale of an exponential histogram is between -10 and 20");
    }
    let buckets = |from: &Option<exponential::Buckets>| match from {
        Some(from) if from.bucket_counts.len() > BUCKETS_MAX => Err("a histogram has more than 2,048 buckets"),
        Some(from) => Ok(Buckets { offset: from.offset, counts: from.bucket_counts.clone() }),
        None => Ok(Buckets::default()),
    };
    Ok(Value::Exponential(Box::new(Exponential {
        temporality,
        scale: point.scale,
        zero_count: point.zero_count,
        positive: buckets(&point.positive)?,
        negative: buckets(&point.negative)?,
        sum: point.sum.filter(|sum| sum.is_finite()),
        count: point.count,
    })))
}

/// Of a summary, count and sum are kept: quantiles of several senders cannot be merged.
fn summary(point: &SummaryDataPoint) -> Result<Value, &'static str> {
    if !point.sum.is_finite() {
        return Err("a sum is not a finite number");
    }
    Ok(Value::Explicit(Box::new(Explicit {
        temporality: Temporality::Cumulative,
        bounds: Vec::new(),
        counts: Vec::new(),
        sum: Some(point.sum),
        count: point.count,
    })))
}
