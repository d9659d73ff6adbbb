//! Observations about one service, free of any wire format.
//!
//! A decoder makes one [`Batch`] per service out of a request. Names are interned once per batch as [`Symbol`]s, so a
//! sample is a few words and a model finds its operation once per batch instead of once per sample.

use compact_str::CompactString;
use hashbrown::HashTable;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::{ServiceId, Timestamp};

/// Most distinct names of one batch; further ones become [`Symbol::OTHER`].
pub const SYMBOLS_MAX: usize = 4096;
/// Longest name kept, in bytes; longer ones are cut.
pub const NAME_BYTES_MAX: usize = 128;
/// Most resource attributes kept of a batch, beside the well-known ones.
pub const RESOURCE_ATTRIBUTES_MAX: usize = 16;
/// Longest log body kept, in bytes; longer ones are cut.
pub const LOG_BODY_BYTES_MAX: usize = 256;
/// Most samples of one batch; a decoder splits what is longer.
pub const SAMPLES_MAX: usize = 256;

/// The observations about one service in one request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Batch {
    /// The service.
    pub service: ServiceId,
    /// Who speaks.
    pub resource: Resource,
    /// The names that the samples refer to.
    pub symbols: Symbols,
    /// Spans, ended.
    pub spans: Vec<SpanSample>,
    /// Metric points.
    pub metrics: Vec<MetricPoint>,
    /// Log records.
    pub logs: Vec<LogSample>,
}

impl Batch {
    /// A batch without samples.
    pub fn new(service: ServiceId) -> Self {
        Self {
            service,
            resource: Resource::default(),
            symbols: Symbols::default(),
            spans: Vec::new(),
            metrics: Vec::new(),
            logs: Vec::new(),
        }
    }

    /// How many samples it holds.
    pub fn samples(&self) -> usize {
        self.spans.len() + self.metrics.len() + self.logs.len()
    }

    /// Bytes it holds beyond its own size, roughly.
    pub fn heap_bytes(&self) -> usize {
        self.symbols.heap_bytes()
            + self.spans.capacity() * size_of::<SpanSample>()
            + self.metrics.iter().map(|point| size_of::<MetricPoint>() + point.value.heap_bytes()).sum::<usize>()
            + self.logs.iter().map(|log| size_of::<LogSample>() + log.body.len()).sum::<usize>()
            + self.resource.attributes.capacity() * size_of::<(CompactString, CompactString)>()
    }
}

/// Facts about the sender that hold for a whole batch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resource {
    /// `service.instance.id`.
    pub instance: Option<CompactString>,
    /// `service.version`.
    pub version: Option<CompactString>,
    /// `deployment.environment.name`, or the older `deployment.environment`.
    pub environment: Option<CompactString>,
    /// Other resource attributes, as text; at most [`RESOURCE_ATTRIBUTES_MAX`].
    pub attributes: Vec<(CompactString, CompactString)>,
}

/// A name of a batch: an index into its [`Symbols`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Symbol(u16);

impl Symbol {
    /// `_other`: what does not fit.
    pub const OTHER: Self = Self(0);

    /// Position in the batch's table.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// The distinct names of a batch; the first is always `_other`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(from = "Vec<CompactString>", into = "Vec<CompactString>")]
pub struct Symbols {
    names: Vec<CompactString>,
    table: HashTable<u16>,
}

impl Default for Symbols {
    fn default() -> Self {
        Self { names: vec![CompactString::const_new(Self::OTHER)], table: HashTable::new() }
    }
}

impl PartialEq for Symbols {
    fn eq(&self, other: &Self) -> bool {
        self.names == other.names
    }
}

impl From<Symbols> for Vec<CompactString> {
    fn from(symbols: Symbols) -> Self {
        symbols.names
    }
}

impl From<Vec<CompactString>> for Symbols {
    /// Takes names in order; what a sender wrote beyond the bound is dropped.
    fn from(names: Vec<CompactString>) -> Self {
        let mut symbols = Self::default();
        for name in names.iter().skip(1) {
            symbols.intern(name);
        }
        symbols
    }
}

impl Symbols {
    /// The name of what does not fit.
    pub const OTHER: &'static str = "_other";

    /// The symbol of a name, cut to [`NAME_BYTES_MAX`]; [`Symbol::OTHER`] for an empty name and when the table is full.
    pub fn intern(&mut self, name: &str) -> Symbol {
        let name = cut(name, NAME_BYTES_MAX);
        if name.is_empty() || name == Self::OTHER {
            return Symbol::OTHER;
        }
        let (names, hash) = (&mut self.names, xxh3_64(name.as_bytes()));
        if let Some(&at) = self.table.find(hash, |&at| names[usize::from(at)] == name) {
            return Symbol(at);
        }
        let Some(at) = u16::try_from(names.len()).ok().filter(|_| names.len() < SYMBOLS_MAX) else {
            return Symbol::OTHER;
        };
        names.push(CompactString::new(name));
        self.table.insert_unique(hash, at, |&at| xxh3_64(names[usize::from(at)].as_bytes()));
        Symbol(at)
    }

    /// The name of a symbol; `_other` for one of another batch.
    pub fn name(&self, symbol: Symbol) -> &str {
        self.names.get(symbol.index()).map_or(Self::OTHER, CompactString::as_str)
    }

    /// How many names there are; at least one.
    pub fn count(&self) -> usize {
        self.names.len()
    }

    fn heap_bytes(&self) -> usize {
        self.names.iter().map(|name| size_of::<CompactString>() + name.len()).sum::<usize>() + self.table.capacity() * 3
    }
}

/// The longest prefix of `text` of at most `bytes_max` bytes that ends between characters.
pub fn cut(text: &str, bytes_max: usize) -> &str {
    if text.len() <= bytes_max {
        return text;
    }
    let end = (0..=bytes_max).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    &text[..end]
}

/// Which side of a call something was measured on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum SpanKind {
    /// Work inside the service.
    #[default]
    Internal,
    /// A request served.
    Server,
    /// A call made.
    Client,
    /// A message sent.
    Producer,
    /// A message processed.
    Consumer,
}

/// What kind of thing a service depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerKind {
    /// Another service, by `peer.service`, `service.peer.name` or the RPC service.
    Service,
    /// A database, by `db.system.name` (and namespace).
    Database,
    /// A messaging system, by `messaging.system` (and destination).
    Messaging,
    /// Only an address is known: `server.address`.
    Address,
}

/// A dependency's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Peer {
    /// What it is.
    pub kind: PeerKind,
    /// What it is called.
    pub name: Symbol,
}

/// One span, reduced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpanSample {
    /// The span id's bits; recognises a batch that was sent twice.
    pub id: u64,
    /// Operation: the span's name, or `METHOD route` where the semantic conventions say so.
    pub operation: Symbol,
    /// Which side.
    pub kind: SpanKind,
    /// Status `Error`, or an HTTP status that means one on this side.
    pub failed: bool,
    /// HTTP status class (1 to 5) or 0.
    pub status_class: u8,
    /// How long it took, in nanoseconds.
    pub duration_ns: u64,
    /// When it ended.
    pub end: Timestamp,
    /// What it called.
    pub peer: Option<Peer>,
}

/// What a metric means to the behaviour model; found by its name, once per metric.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Role {
    /// Anything else: a series of its own.
    #[default]
    Series,
    /// Duration of operations on this side.
    Duration(SpanKind),
}

impl Role {
    /// The role of a metric, by its name in the OpenTelemetry semantic conventions (older names included).
    pub fn of(metric: &str) -> Self {
        match metric {
            "http.server.request.duration"
            | "http.server.duration"
            | "rpc.server.call.duration"
            | "rpc.server.duration" => Self::Duration(SpanKind::Server),
            "http.client.request.duration"
            | "http.client.duration"
            | "rpc.client.call.duration"
            | "rpc.client.duration"
            | "db.client.operation.duration" => Self::Duration(SpanKind::Client),
            "messaging.client.operation.duration" | "messaging.publish.duration" => Self::Duration(SpanKind::Producer),
            "messaging.process.duration" | "messaging.receive.duration" => Self::Duration(SpanKind::Consumer),
            _ => Self::Series,
        }
    }
}

/// Seconds in one of `unit` (UCUM); 1 for seconds and for whatever is no time.
pub fn seconds_per(unit: &str) -> f64 {
    match unit {
        "ms" => 1e-3,
        "us" | "µs" => 1e-6,
        "ns" => 1e-9,
        "min" => 60.0,
        "h" => 3600.0,
        _ => 1.0,
    }
}

/// One point of a metric stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetricPoint {
    /// Hash of metric name, instance and **all** attributes: the stream that cumulative values belong to.
    pub stream: u64,
    /// Series it folds into: the metric's name, with a few low-cardinality attributes as `name{key=value}` if wanted.
    pub series: Symbol,
    /// Unit as written.
    pub unit: Symbol,
    /// What it means.
    pub role: Role,
    /// Operation, for [`Role::Duration`]: `METHOD route`, `rpc.method`, `operation collection`, `operation destination`.
    pub operation: Symbol,
    /// Whether the attributes say these operations failed: `error.type`, or a 5xx status.
    pub failed: bool,
    /// What was called, on the client side.
    pub peer: Option<Peer>,
    /// When a cumulative stream or a delta interval began; [`Timestamp::ZERO`] if unknown.
    pub start: Timestamp,
    /// When it was measured.
    pub time: Timestamp,
    /// What was measured.
    pub value: Value,
}

/// Whether a sum or histogram starts over with every point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Temporality {
    /// The point covers start to time.
    Delta,
    /// The point covers everything since the stream began.
    Cumulative,
}

/// What a metric point holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Value {
    /// A present level.
    Gauge(f64),
    /// A total; one that is not monotonic and cumulative is a level, too.
    Sum {
        /// The total.
        value: f64,
        /// Of what span of time.
        temporality: Temporality,
        /// Whether it never falls.
        monotonic: bool,
    },
    /// A histogram with explicit bounds.
    Explicit(Box<Explicit>),
    /// An exponential histogram.
    Exponential(Box<Exponential>),
}

impl Value {
    fn heap_bytes(&self) -> usize {
        match self {
            Self::Gauge(_) | Self::Sum { .. } => 0,
            Self::Explicit(histogram) => {
                size_of::<Explicit>() + (histogram.bounds.len() + histogram.counts.len()) * size_of::<u64>()
            }
            Self::Exponential(histogram) => {
                size_of::<Exponential>()
                    + (histogram.positive.counts.len() + histogram.negative.counts.len()) * size_of::<u64>()
            }
        }
    }
}

/// A histogram with explicit bounds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explicit {
    /// Of what span of time.
    pub temporality: Temporality,
    /// Upper, inclusive bounds, ascending.
    pub bounds: Vec<f64>,
    /// One more than bounds; or empty if only count and sum are known.
    pub counts: Vec<u64>,
    /// Sum of the measurements, if known.
    pub sum: Option<f64>,
    /// Number of measurements.
    pub count: u64,
}

/// An exponential histogram: bucket `i` covers (base^(offset+i), base^(offset+i+1)] with base 2^(2^-scale).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Exponential {
    /// Of what span of time.
    pub temporality: Temporality,
    /// Resolution; each step up doubles the buckets.
    pub scale: i32,
    /// Measurements at or near zero.
    pub zero_count: u64,
    /// Buckets above zero.
    pub positive: Buckets,
    /// Buckets below zero.
    pub negative: Buckets,
    /// Sum of the measurements, if known.
    pub sum: Option<f64>,
    /// Number of measurements.
    pub count: u64,
}

/// A run of adjacent exponential buckets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Buckets {
    /// Index of the first one.
    pub offset: i32,
    /// Their counts.
    pub counts: Vec<u64>,
}

/// How bad a log record is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Severity numbers 1 to 4.
    Trace,
    /// 5 to 8.
    Debug,
    /// 9 to 12, and unspecified.
    #[default]
    Info,
    /// 13 to 16.
    Warn,
    /// 17 to 20.
    Error,
    /// 21 to 24.
    Fatal,
}

impl Severity {
    /// Every severity, mildest first.
    pub const ALL: [Self; 6] = [Self::Trace, Self::Debug, Self::Info, Self::Warn, Self::Error, Self::Fatal];

    /// Position in [`Severity::ALL`].
    pub const fn index(self) -> usize {
        match self {
            Self::Trace => 0,
            Self::Debug => 1,
            Self::Info => 2,
            Self::Warn => 3,
            Self::Error => 4,
            Self::Fatal => 5,
        }
    }

    /// From an OTLP severity number.
    pub const fn from_number(number: i32) -> Self {
        match number {
            1..=4 => Self::Trace,
            5..=8 => Self::Debug,
            13..=16 => Self::Warn,
            17..=20 => Self::Error,
            21..=24 => Self::Fatal,
            _ => Self::Info,
        }
    }
}

/// One log record, reduced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogSample {
    /// When.
    pub time: Timestamp,
    /// How bad.
    pub severity: Severity,
    /// The body as text, cut to [`LOG_BODY_BYTES_MAX`]; may be left empty below [`Severity::Error`].
    pub body: CompactString,
    /// `exception.type`.
    pub exception: Option<CompactString>,
    /// The trace it belongs to.
    pub trace_id: Option<[u8; 16]>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_symbol_and_the_table_is_bounded() {
        let mut symbols = Symbols::default();
        let get = symbols.intern("GET /");
        assert_eq!(symbols.intern("GET /"), get);
        assert_eq!(symbols.name(get), "GET /");
        assert_eq!(symbols.intern(""), Symbol::OTHER);
        for number in 0..2 * SYMBOLS_MAX {
            symbols.intern(&number.to_string());
        }
        assert_eq!(symbols.count(), SYMBOLS_MAX);
        assert_eq!(symbols.intern("one more"), Symbol::OTHER);
        assert_eq!(symbols.name(Symbol::OTHER), "_other");
    }

    #[test]
    fn a_long_name_is_cut_between_characters() {
        assert_eq!(cut("größe", 4), "grö");
        assert_eq!(cut("größe", 3), "gr");
    }
}
