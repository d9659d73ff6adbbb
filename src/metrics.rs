//! Every metric of a node: name, unit, meaning.
//!
//! Counters on the path of a request are found once, at start; counting is one atomic addition.

use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::{
    encoding::{EncodeLabelSet, MetricEncoder, NoLabelSet},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

/// Which part of the node took a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// The native API.
    Api,
    /// The native API over gRPC.
    ApiGrpc,
    /// OTLP over HTTP.
    OtlpHttp,
    /// OTLP over gRPC.
    OtlpGrpc,
    /// Dapr over HTTP.
    DaprHttp,
    /// Dapr over gRPC.
    DaprGrpc,
    /// Health, metrics, documents.
    Other,
}

impl Door {
    /// Every door.
    pub const ALL: [Self; 7] =
        [Self::Api, Self::OtlpHttp, Self::OtlpGrpc, Self::DaprHttp, Self::DaprGrpc, Self::Other, Self::ApiGrpc];

    const fn index(self) -> usize {
        match self {
            Self::Api => 0,
            Self::OtlpHttp => 1,
            Self::OtlpGrpc => 2,
            Self::DaprHttp => 3,
            Self::DaprGrpc => 4,
            Self::Other => 5,
            Self::ApiGrpc => 6,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::ApiGrpc => "api_grpc",
            Self::OtlpHttp => "otlp_http",
            Self::OtlpGrpc => "otlp_grpc",
            Self::DaprHttp => "dapr_http",
            Self::DaprGrpc => "dapr_grpc",
            Self::Other => "other",
        }
    }
}

/// How often values of each size came, in powers of two; counting is two atomic additions.
#[derive(Debug, Default)]
pub struct Spread {
    counts: [AtomicU64; SIZES],
    sum: AtomicU64,
}

/// Powers of two that are told apart; the last has all that is larger.
const SIZES: usize = 26;

impl Spread {
    /// Counts a value.
    pub fn add(&self, value: u64) {
        let size = usize::try_from(u64::BITS - value.saturating_sub(1).leading_zeros()).unwrap_or(SIZES);
        self.counts[size.min(SIZES - 1)].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// What was counted.
    pub fn read(&self) -> Sizes {
        let counts = std::array::from_fn(|size| self.counts[size].load(Ordering::Relaxed));
        Sizes { counts, sum: self.sum.load(Ordering::Relaxed) }
    }
}

/// What a [`Spread`] has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    counts: [u64; SIZES],
    sum: u64,
}

impl Sizes {
    /// How many values.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Shows them as a histogram; `unit` of the values make one of what is shown.
    pub fn encode(&self, mut encoder: MetricEncoder<'_>, unit: f64) -> Result<(), std::fmt::Error> {
        let bound = |size: usize| if size == SIZES - 1 { f64::MAX } else { wide(1 << size) / unit };
        let buckets: Vec<(f64, u64)> = self.counts.iter().enumerate().map(|(size, n)| (bound(size), *n)).collect();
        encoder.encode_histogram::<NoLabelSet>(wide(self.sum) / unit, self.count(), &buckets, None)
    }
}

#[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "a histogram is shown in floating point")]
fn wide(value: u64) -> f64 {
    value as f64
}

/// A kind of telemetry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Spans.
    Traces,
    /// Data points.
    Metrics,
    /// Log records.
    Logs,
}

impl Signal {
    /// Every signal.
    pub const ALL: [Self; 3] = [Self::Traces, Self::Metrics, Self::Logs];

    const fn index(self) -> usize {
        match self {
            Self::Traces => 0,
            Self::Metrics => 1,
            Self::Logs => 2,
        }
    }

    /// Its name in paths and labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Traces => "traces",
            Self::Metrics => "metrics",
            Self::Logs => "logs",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByDoor {
    door: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByStatus {
    door: &'static str,
    status: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BySignal {
    signal: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByDecision {
    capability: &'static str,
    operation: &'static str,
    decision: &'static str,
}

const STATUS_CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// The counters of one node.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Vec<Counter>,
    durations: Vec<Histogram>,
    accepted: Vec<Counter>,
    refused: Vec<Counter>,
    decisions: Family<ByDecision, Counter>,
    /// Requests refused for their key.
    pub keys_refused: Counter,
    /// Open connections.
    pub connections: Gauge,
    /// Connections turned away because too many were open.
    pub connections_refused: Counter,
    /// Open event and command streams.
    pub streams: Gauge,
}

impl Metrics {
    /// Registers every metric; `more` adds what other parts of the node can tell.
    pub fn new(more: impl FnOnce(&mut Registry)) -> Self {
        let mut registry = Registry::default();
        let requests = Family::<ByStatus, Counter>::default();
        let durations = Family::<ByDoor, Histogram>::new_with_constructor(|| {
            Histogram::new(exponential_buckets(0.000_05, 4.0, 10))
        });
        let (accepted, refused) = (Family::<BySignal, Counter>::default(), Family::<BySignal, Counter>::default());
        let metrics = Self {
            requests: Door::ALL
                .iter()
                .flat_map(|door| STATUS_CLASSES.map(|status| ByStatus { door: door.name(), status }))
                .map(|labels| requests.get_or_create(&labels).clone())
                .collect(),
            durations: Door::ALL
                .iter()
                .map(|door| durations.get_or_create(&ByDoor { door: door.name() }).clone())
                .collect(),
            decisions: Family::default(),
            accepted: by_signal(&accepted),
            refused: by_signal(&refused),
            keys_refused: Counter::default(),
            connections: Gauge::default(),
            connections_refused: Counter::default(),
            streams: Gauge::default(),
            registry: Registry::default(),
        };
        let mut of = |name, help, metric: Registered| match metric {
            Registered::Counter(metric) => registry.register(name, help, metric),
            Registered::Gauge(metric) => registry.register(name, help, metric),
        };
        of("twin_keys_refused", "Requests refused for their key", Registered::Counter(metrics.keys_refused.clone()));
        of("twin_connections", "Open connections", Registered::Gauge(metrics.connections.clone()));
        of(
            "twin_connections_refused",
            "Connections turned away because too many were open",
            Registered::Counter(metrics.connections_refused.clone()),
        );
        of("twin_streams", "Open event and command streams", Registered::Gauge(metrics.streams.clone()));
        registry.register("twin_requests", "Requests answered, by door and status class", requests);
        registry.register_with_unit("twin_request_duration", "Time to answer, by door", Unit::Seconds, durations);
        registry.register(
            "twin_capability_decisions",
            "Capability requests ruled on, by capability, operation and decision",
            metrics.decisions.clone(),
        );
        registry.register("twin_ingest_accepted", "Spans, data points and log records taken", accepted);
        registry.register("twin_ingest_refused", "Spans, data points and log records refused", refused);
        more(&mut registry);
        Self { registry, ..metrics }
    }

    /// Counts a request that was answered.
    pub fn answered(&self, door: Door, status: u16, seconds: f64) {
        let class = usize::from(status / 100).clamp(1, STATUS_CLASSES.len()) - 1;
        self.requests[door.index() * STATUS_CLASSES.len() + class].inc();
        self.durations[door.index()].observe(seconds);
    }

    /// Counts a capability request that was ruled on.
    pub fn decided(&self, capability: &'static str, operation: &'static str, is_allowed: bool) {
        let decision = if is_allowed { "allowed" } else { "denied" };
        self.decisions.get_or_create(&ByDecision { capability, operation, decision }).inc();
    }

    /// Counts telemetry items.
    pub fn ingested(&self, signal: Signal, accepted: u64, refused: u64) {
        self.accepted[signal.index()].inc_by(accepted);
        self.refused[signal.index()].inc_by(refused);
    }

    /// Everything in the text format of `OpenMetrics` 1.0.
    pub fn text(&self) -> String {
        let mut out = String::with_capacity(4096);
        prometheus_client::encoding::text::encode(&mut out, &self.registry).expect("a String takes everything");
        out
    }
}

enum Registered {
    Counter(Counter),
    Gauge(Gauge),
}

fn by_signal(family: &Family<BySignal, Counter>) -> Vec<Counter> {
    Signal::ALL.iter().map(|signal| family.get_or_create(&BySignal { signal: signal.name() }).clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_counted_with_those_up_to_the_next_power_of_two() {
        let spread = Spread::default();
        for value in [0, 1, 2, 3, 4, 5, u64::MAX >> 8] {
            spread.add(value);
        }
        let sizes = spread.read();
        assert_eq!((sizes.counts[..4].to_vec(), sizes.counts[SIZES - 1]), (vec![2, 1, 2, 1], 1));
        assert_eq!(sizes.count(), 7);
    }

    #[test]
    fn what_is_counted_is_shown() {
        let metrics = Metrics::new(|_| {});
        metrics.answered(Door::Api, 404, 0.001);
        metrics.ingested(Signal::Logs, 3, 2);
        let text = metrics.text();
        for line in [
            "twin_requests_total{door=\"api\",status=\"4xx\"} 1",
            "twin_ingest_accepted_total{signal=\"logs\"} 3",
            "twin_ingest_refused_total{signal=\"logs\"} 2",
            "twin_request_duration_seconds_count{door=\"api\"} 1",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }
}
