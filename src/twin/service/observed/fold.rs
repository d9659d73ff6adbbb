//! Takes a batch into what is known.

use std::time::Duration;

use smallvec::SmallVec;

use super::{
    BASELINES, BATCHES, Fact, OPERATIONS, OPERATIONS_MORE, Observed, REST, SERIES, SERIES_PER_PAGE, STREAMS,
    distribution::Distribution,
    edge::Calls,
    num,
    operation::{Source, is_entry, kind_index},
    series::{Series, Shape},
    sketch::{self, Spot},
    stream::{Counts, Increment},
    tally::spread,
};
use crate::model::{
    Timestamp,
    telemetry::{
        Batch, Explicit, LogSample, MetricPoint, Peer, Role, SpanKind, SpanSample, Symbol, Symbols, Temporality, Value,
        seconds_per,
    },
};
use crate::twin::service::core::Alert;

/// How far a sender's clock may be ahead; what lies beyond happened now.
const AHEAD_MAX: Duration = Duration::from_secs(60);
/// A series that was silent for so long makes room for a new one.
const SERIES_STALE: Duration = Duration::from_secs(24 * 60 * 60);

/// Where the names of a batch were found, so that each is looked up once a batch.
struct Memo {
    operations: Places,
    edges: Places,
    series: Places,
}

/// For each symbol: a tag (kind and source, or kind of peer; 0 for none yet) and a position.
type Places = SmallVec<[(u8, u8); 64]>;

impl Memo {
    fn new(symbols: usize) -> Self {
        let places = || SmallVec::from_elem((0, 0), symbols);
        Self { operations: places(), edges: places(), series: places() }
    }
}

fn recall(places: &mut Places, symbol: Symbol, tag: u8, find: impl FnOnce() -> usize) -> usize {
    // A symbol of another batch has no name either.
    let symbol = if symbol.index() < places.len() { symbol } else { Symbol::OTHER };
    let known = places[symbol.index()];
    if known.0 == tag {
        return usize::from(known.1);
    }
    let at = find();
    places[symbol.index()] = (tag, num::byte(num::long(at)));
    at
}

impl Observed {
    /// Folds a batch; answers the alerts that it opened or closed, of which `alerts` are open.
    pub(in crate::twin::service) fn fold(&mut self, batch: &Batch, now: Timestamp, alerts: &[Alert]) -> Vec<Fact> {
        if self.is_repeated(batch) {
            return Vec::new();
        }
        self.samples += num::long(batch.samples());
        let latest = now.after(AHEAD_MAX);
        let fit = |at: Timestamp| if at > latest { now } else { at };
        let version = batch.resource.version.as_deref().unwrap_or_default();
        let version = crate::model::telemetry::cut(version, super::super::limits::VERSION_BYTES_MAX);
        let mut turn = Fold { symbols: &batch.symbols, version, now, memo: Memo::new(batch.symbols.count()) };
        for span in &batch.spans {
            self.span(&mut turn, span, fit(span.end));
        }
        for point in &batch.metrics {
            if fit(point.time) == point.time {
                self.point(&mut turn, point);
            } else {
                let (start, time) = (fit(point.start), fit(point.time));
                self.point(&mut turn, &MetricPoint { start, time, ..point.clone() });
            }
        }
        batch.logs.iter().for_each(|log| self.log(log, fit(log.time)));
        if !batch.spans.is_empty() {
            self.mark_operations();
        }
        self.saved.dirty[REST] |= !batch.spans.is_empty() || !batch.logs.is_empty();
        self.close(now, alerts)
    }

    /// Judges what is complete; answers the alerts that this opened or closed.
    fn close(&mut self, now: Timestamp, alerts: &[Alert]) -> Vec<Fact> {
        let mut facts = Vec::new();
        let is_open = |key: &str| alerts.iter().any(|alert| alert.key == key);
        self.baselines.close(now, is_open, &mut facts);
        if self.operations.close(now, is_open, &mut facts) {
            let orphans = alerts.iter().filter(|alert| self.operations.is_orphan(&alert.key));
            facts.extend(orphans.map(|alert| Fact::Close { key: alert.key.clone() }));
        }
        facts
    }

    /// Operations and what is usual of them are saved together: they name each other.
    fn mark_operations(&mut self) {
        for page in [OPERATIONS, OPERATIONS_MORE, BASELINES] {
            self.saved.dirty[page] = true;
        }
    }

    /// Whether the same batch was folded not long ago: an exporter that heard no answer sends it again.
    fn is_repeated(&mut self, batch: &Batch) -> bool {
        let mix = |hash: u64, value: u64| (hash ^ value).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(23);
        let spans = batch
            .spans
            .iter()
            .fold(0x5eed, |hash, span| mix(mix(hash, span.id), span.end.unix_ms() ^ span.duration_ns));
        let points = batch.metrics.iter().fold(spans, |hash, point| mix(mix(hash, point.stream), point.time.unix_ms()));
        let hash = batch.logs.iter().fold(points, |hash, log| {
            mix(mix(hash, log.time.unix_ms()), xxhash_rust::xxh3::xxh3_64(log.body.as_bytes()))
        });
        if batch.samples() > 0 && self.batches.contains(&hash) {
            return true;
        }
        self.batches[self.batch_next] = hash;
        self.batch_next = (self.batch_next + 1) % BATCHES;
        false
    }

    fn span(&mut self, turn: &mut Fold<'_>, span: &SpanSample, end: Timestamp) {
        let seconds = num::real(span.duration_ns) * 1e-9;
        let at = self.operation(turn, span.operation, span.kind);
        self.operations.red(at, Source::Spans).one(end, seconds, span.failed);
        if is_entry(span.kind) {
            self.baselines.one(end, turn.now, span.failed, seconds);
        }
        if let Some(peer) = span.peer {
            let calls = Calls { source: Source::Spans, count: 1, failed: span.failed, sum_s: seconds, at: end };
            self.calls(turn, peer, calls);
        }
    }

    fn operation(&mut self, turn: &mut Fold<'_>, operation: Symbol, kind: SpanKind) -> usize {
        let (symbols, version, now) = (turn.symbols, turn.version, turn.now);
        let find = || self.operations.find(symbols.name(operation), version, kind, now, self.settings.operations_max);
        recall(&mut turn.memo.operations, operation, kind_index(kind) + 1, find)
    }

    fn calls(&mut self, turn: &mut Fold<'_>, peer: Peer, calls: Calls) {
        let tag = match peer.kind {
            crate::model::telemetry::PeerKind::Service => 1,
            crate::model::telemetry::PeerKind::Database => 2,
            crate::model::telemetry::PeerKind::Messaging => 3,
            crate::model::telemetry::PeerKind::Address => 4,
        };
        let symbols = turn.symbols;
        let at = recall(&mut turn.memo.edges, peer.name, tag, || self.edges.find(symbols.name(peer.name), peer.kind));
        self.edges.add(at, calls);
    }

    fn log(&mut self, log: &LogSample, at: Timestamp) {
        self.logs.take(log, at);
    }

    fn point(&mut self, turn: &mut Fold<'_>, point: &MetricPoint) {
        match &point.value {
            Value::Gauge(value) | Value::Sum { value, temporality: Temporality::Cumulative, monotonic: false } => {
                let at = self.series_of(turn, point, Shape::Gauge);
                self.series[at].level(point.time, *value);
            }
            Value::Sum { value, temporality, .. } => {
                self.saved.dirty[STREAMS] = true;
                let at = self.series_of(turn, point, Shape::Counter);
                if let Some(Increment { from, more }) = self.streams.total(point, *value, *temporality) {
                    self.series[at].increment(from, point.time, more);
                }
            }
            Value::Explicit(histogram) => {
                let increment = self.streams.counts(point, Counts::from(&**histogram), histogram.temporality);
                self.distribution(turn, point, increment, |into, more, unit_s| {
                    add_explicit(into, point.time, histogram, &more.buckets, unit_s);
                });
            }
            Value::Exponential(histogram) => {
                let increment = self.streams.counts(point, Counts::from(&**histogram), histogram.temporality);
                self.distribution(turn, point, increment, |into, more, unit_s| {
                    add_exponential(into, point.time, more, unit_s);
                });
            }
        }
    }

    fn distribution(
        &mut self,
        turn: &mut Fold<'_>,
        point: &MetricPoint,
        increment: Option<Increment<Counts>>,
        add: impl FnOnce(&mut Distribution, &Counts, f64),
    ) {
        self.saved.dirty[STREAMS] = true;
        let Some(Increment { from, more }) = increment.filter(|increment| increment.more.count > 0) else { return };
        let Role::Duration(kind) = point.role else {
            let at = self.series_of(turn, point, Shape::Histogram);
            let mean = more.sum / num::real(more.count);
            self.series[at].measure(point.time, more.count, mean, |into| add(into, &more, 1.0));
            return;
        };
        let unit_s = seconds_per(turn.symbols.name(point.unit));
        let at = self.operation(turn, point.operation, kind);
        let red = self.operations.red(at, Source::Metrics);
        red.note(from, point.time, more.count, point.failed);
        red.durations.add_sum(more.sum * unit_s);
        add(&mut red.durations, &more, unit_s);
        self.mark_operations();
        self.saved.dirty[REST] |= point.peer.is_some();
        let (count, failed, sum_s) = (more.count, point.failed, more.sum * unit_s);
        if is_entry(kind) {
            self.baselines.many(from, point.time, count, failed, sum_s);
        }
        if let Some(peer) = point.peer {
            self.calls(turn, peer, Calls { source: Source::Metrics, count, failed, sum_s, at: point.time });
        }
    }

    /// The position of a point's series; what finds no room is counted in `_other`.
    fn series_of(&mut self, turn: &mut Fold<'_>, point: &MetricPoint, shape: Shape) -> usize {
        let (symbols, now) = (turn.symbols, turn.now);
        let find = || self.find_series(symbols.name(point.series), symbols.name(point.unit), shape, now);
        let at = recall(&mut turn.memo.series, point.series, 1, find);
        self.saved.dirty[SERIES + at / SERIES_PER_PAGE] = true;
        at
    }

    fn find_series(&mut self, name: &str, unit: &str, shape: Shape, now: Timestamp) -> usize {
        let name = crate::model::telemetry::cut(name, super::series::NAME_BYTES_MAX);
        if let Some(at) = self.series.iter().position(|series| series.name == name) {
            return at;
        }
        let unit = if unit == Symbols::OTHER { "" } else { unit };
        let tiers = &self.settings.resolutions;
        let other = self.series.iter().position(|series| series.name == Symbols::OTHER);
        if self.series.len() - usize::from(other.is_some()) < self.settings.series_max {
            self.series.push(Series::new(name, unit, shape, tiers));
            return self.series.len() - 1;
        }
        let named = self.series.iter().enumerate().filter(|(_, series)| series.name != Symbols::OTHER);
        let oldest = named.min_by_key(|(_, series)| series.last_at);
        if let Some((at, _)) = oldest.filter(|(_, series)| series.last_at.after(SERIES_STALE) < now) {
            self.series[at] = Series::new(name, unit, shape, tiers);
            return at;
        }
        other.unwrap_or_else(|| {
            self.series.push(Series::new(Symbols::OTHER, "", Shape::Gauge, tiers));
            self.series.len() - 1
        })
    }
}

/// What stays the same while a batch is folded.
struct Fold<'a> {
    symbols: &'a Symbols,
    version: &'a str,
    now: Timestamp,
    memo: Memo,
}

fn add_explicit(into: &mut Distribution, at: Timestamp, histogram: &Explicit, counts: &[u64], unit_s: f64) {
    if !histogram.bounds.is_empty() {
        return into.add_counts(at, &histogram.bounds, counts, unit_s);
    }
    // Nothing is known but their mean.
    let mean = histogram.sum.unwrap_or_default() / num::real(histogram.count.max(1));
    let count = counts.iter().fold(0_u64, |sum, count| sum.saturating_add(*count));
    if let Some(spot) = Spot::of(mean * unit_s) {
        into.add(at, spot, count);
    }
}

fn add_exponential(into: &mut Distribution, at: Timestamp, more: &Counts, unit_s: f64) {
    if let Some(zero) = Spot::of(0.0) {
        into.add(at, zero, more.zeros);
    }
    // In seconds a power of two is no longer one; with another unit values are placed one by one.
    let is_native = (unit_s - 1.0).abs() < f64::EPSILON;
    let filled = || (more.offset..).zip(&more.buckets).filter(|(_, count)| **count > 0);
    if is_native && more.scale >= sketch::SCALE {
        let ours = |bucket: i32| bucket >> (more.scale - sketch::SCALE).min(31);
        let mut filled = filled().peekable();
        while let Some((bucket, count)) = filled.next() {
            let spot = if filled.peek().is_some() { Spot::of_bucket } else { Spot::top };
            into.add(at, spot(ours(bucket)), *count);
        }
        return;
    }
    for (bucket, count) in filled() {
        let edge = |bucket: i32| (f64::from(bucket) * (-f64::from(more.scale)).exp2()).exp2() * unit_s;
        spread(edge(bucket), edge(bucket.saturating_add(1)), *count, &mut |spot, count| into.add(at, spot, count));
    }
}
