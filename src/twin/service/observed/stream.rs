//! What a point of a metric stream adds to what is known: restarts, duplicates and disorder sorted out.
//!
//! A cumulative stream is known by its start and its last point. A later start, or a value that fell, is a restart: the
//! new value counts as a whole. A point that is not later than the last one adds nothing: the last one contained it. A
//! delta stream is known by the times of its latest points, so that one sent twice counts once.

use super::{
    num,
    page::{Reader, Writer},
};
use crate::model::{
    Timestamp,
    telemetry::{Explicit, Exponential, MetricPoint, Temporality},
};

/// Most streams remembered.
const STREAMS_MAX: usize = 384;
/// Most bytes of remembered histograms.
const BYTES_MAX: usize = 40 * 1024;
/// Delta points remembered per stream.
const RECENT: usize = 8;
/// Most buckets of one histogram.
const BUCKETS_MAX: usize = 4096;
/// The scale that stands for explicit bounds.
const EXPLICIT: i32 = i32::MAX;

/// A histogram in either form: for explicit bounds, `offset` is 0 and buckets are those between the bounds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Counts {
    pub(super) scale: i32,
    pub(super) offset: i32,
    pub(super) zeros: u64,
    pub(super) buckets: Vec<u64>,
    pub(super) count: u64,
    pub(super) sum: f64,
}

impl From<&Explicit> for Counts {
    fn from(histogram: &Explicit) -> Self {
        let buckets = histogram.counts.iter().take(BUCKETS_MAX).copied().collect();
        let sum = histogram.sum.unwrap_or_default();
        Self { scale: EXPLICIT, offset: 0, zeros: 0, buckets, count: histogram.count, sum }
    }
}

impl From<&Exponential> for Counts {
    /// What lies below zero counts as zero: the quantities measured are none that can be negative.
    fn from(histogram: &Exponential) -> Self {
        let below = histogram.negative.counts.iter().fold(0_u64, |sum, count| sum.saturating_add(*count));
        Self {
            scale: histogram.scale.clamp(-20, 20),
            offset: histogram.positive.offset.clamp(-(1 << 26), 1 << 26),
            zeros: histogram.zero_count.saturating_add(below),
            buckets: histogram.positive.counts.iter().take(BUCKETS_MAX).copied().collect(),
            count: histogram.count,
            sum: histogram.sum.unwrap_or_default(),
        }
    }
}

impl Counts {
    /// What this has more than an earlier point of the same stream; `None` if it has less anywhere: a restart.
    fn since(&self, earlier: &Self) -> Option<Self> {
        let shift = if self.scale == earlier.scale { 0 } else { earlier.scale.checked_sub(self.scale)? };
        let is_comparable = (0..=40).contains(&shift) && (self.scale == EXPLICIT) == (earlier.scale == EXPLICIT);
        if !is_comparable || (self.scale == EXPLICIT && self.buckets.len() != earlier.buckets.len()) {
            return None;
        }
        if shift == 0 && self.offset == earlier.offset && self.buckets.len() == earlier.buckets.len() {
            return self.minus(earlier);
        }
        let mut more = self.clone();
        for (bucket, count) in (earlier.offset..).zip(&earlier.buckets).filter(|(_, count)| **count > 0) {
            let place = usize::try_from((bucket >> shift.min(31)) - self.offset).ok()?;
            let left = more.buckets.get_mut(place)?;
            *left = left.checked_sub(*count)?;
        }
        more.zeros = more.zeros.checked_sub(earlier.zeros)?;
        more.count = more.count.checked_sub(earlier.count)?;
        more.sum -= earlier.sum;
        Some(more)
    }

    /// The same between the same buckets, which is how it nearly always is.
    fn minus(&self, earlier: &Self) -> Option<Self> {
        let mut buckets = Vec::with_capacity(self.buckets.len());
        for (now, then) in self.buckets.iter().zip(&earlier.buckets) {
            buckets.push(now.checked_sub(*then)?);
        }
        Some(Self {
            scale: self.scale,
            offset: self.offset,
            zeros: self.zeros.checked_sub(earlier.zeros)?,
            buckets,
            count: self.count.checked_sub(earlier.count)?,
            sum: self.sum - earlier.sum,
        })
    }

    fn pack(&self) -> Box<[u8]> {
        let mut writer = Writer::bare_for(32 + 3 * self.buckets.len());
        writer.number(num::zigzag(self.scale));
        writer.number(num::zigzag(self.offset));
        writer.number(self.zeros);
        writer.number(self.count);
        writer.real(self.sum);
        writer.number(num::long(self.buckets.len()));
        self.buckets.iter().for_each(|count| writer.number(*count));
        writer.done().into()
    }

    fn unpack(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::bare(bytes);
        let (scale, offset) = (num::unzigzag(reader.number()?), num::unzigzag(reader.number()?));
        let (zeros, count, sum) = (reader.number()?, reader.number()?, reader.real()?);
        let length = reader.count(BUCKETS_MAX)?;
        let mut buckets = Vec::with_capacity(length);
        for _ in 0..length {
            buckets.push(reader.number()?);
        }
        Some(Self { scale, offset, zeros, buckets, count, sum })
    }
}

/// What is remembered of a stream.
#[derive(Debug)]
enum Memory {
    /// The last total.
    Total(f64),
    /// The last histogram, packed.
    Counts(Box<[u8]>),
    /// The times of the latest points.
    Recent([u32; RECENT]),
}

#[derive(Debug)]
struct Stream {
    id: u64,
    start: Timestamp,
    time: Timestamp,
    memory: Memory,
}

impl Stream {
    fn bytes(&self) -> usize {
        match &self.memory {
            Memory::Counts(bytes) => bytes.len(),
            Memory::Total(_) | Memory::Recent(_) => 0,
        }
    }
}

/// What a point adds.
#[derive(Debug, PartialEq)]
pub(super) struct Increment<T> {
    /// From when.
    pub(super) from: Timestamp,
    /// How much.
    pub(super) more: T,
}

/// The streams of one twin.
#[derive(Debug, Default)]
pub(super) struct Streams {
    /// Sorted by id.
    all: Vec<Stream>,
    bytes: usize,
    /// Streams last heard of before this may have been forgotten; one that began before it is not counted twice.
    forgotten_until: Timestamp,
}

/// How a point relates to what is known of its stream.
enum Standing {
    /// It adds nothing.
    Stale,
    /// First of its stream, or first after a restart: all of it counts, from its start.
    Whole,
    /// First of a stream that may have been counted before: from here on.
    Base,
    /// Goes on from the last one.
    Next,
}

impl Streams {
    /// What a total adds.
    pub(super) fn total(
        &mut self,
        point: &MetricPoint,
        value: f64,
        temporality: Temporality,
    ) -> Option<Increment<f64>> {
        if !value.is_finite() {
            return None;
        }
        if temporality == Temporality::Delta {
            return self.delta(point).map(|from| Increment { from, more: value });
        }
        let (at, standing) = self.standing(point);
        let at = match standing {
            Standing::Stale => return None,
            Standing::Whole | Standing::Base | Standing::Next => at.unwrap_or_else(|at| self.insert(at, point)),
        };
        let stream = &mut self.all[at];
        let (start, from) = (point.start.max(stream.start), stream.time);
        let before = match std::mem::replace(&mut stream.memory, Memory::Total(value)) {
            Memory::Total(before) => before,
            Memory::Counts(_) | Memory::Recent(_) => 0.0,
        };
        (stream.start, stream.time) = (start, point.time);
        match standing {
            Standing::Stale | Standing::Base => None,
            Standing::Next if value >= before => Some(Increment { from, more: value - before }),
            Standing::Next => Some(Increment { from, more: value }),
            Standing::Whole => Some(Increment { from: begin(point), more: value }),
        }
    }

    /// What a histogram adds.
    pub(super) fn counts(
        &mut self,
        point: &MetricPoint,
        now: Counts,
        temporality: Temporality,
    ) -> Option<Increment<Counts>> {
        if temporality == Temporality::Delta {
            return self.delta(point).map(|from| Increment { from, more: now });
        }
        let (at, standing) = self.standing(point);
        let at = match standing {
            Standing::Stale => return None,
            Standing::Whole | Standing::Base | Standing::Next => at.unwrap_or_else(|at| self.insert(at, point)),
        };
        let stream = &mut self.all[at];
        let from = stream.time;
        let before = match &stream.memory {
            Memory::Counts(bytes) => Counts::unpack(bytes),
            Memory::Total(_) | Memory::Recent(_) => None,
        };
        let packed = now.pack();
        self.bytes = (self.bytes + packed.len()).saturating_sub(stream.bytes());
        stream.memory = Memory::Counts(packed);
        (stream.start, stream.time) = (point.start.max(stream.start), point.time);
        let increment = match standing {
            Standing::Stale | Standing::Base => None,
            Standing::Next => {
                let more = before.and_then(|before| now.since(&before));
                Some(Increment { from, more: more.unwrap_or(now) })
            }
            Standing::Whole => Some(Increment { from: begin(point), more: now }),
        };
        self.shrink();
        increment
    }

    fn find(&self, id: u64) -> Result<usize, usize> {
        self.all.binary_search_by_key(&id, |stream| stream.id)
    }

    fn standing(&self, point: &MetricPoint) -> (Result<usize, usize>, Standing) {
        let at = self.find(point.stream);
        let standing = match at.ok().map(|at| &self.all[at]) {
            None if point.start == Timestamp::ZERO || point.start < self.forgotten_until => Standing::Base,
            None => Standing::Whole,
            Some(known) if point.start > known.start && known.start > Timestamp::ZERO => Standing::Whole,
            Some(known) if point.start < known.start && point.start > Timestamp::ZERO => Standing::Stale,
            Some(known) if point.time <= known.time => Standing::Stale,
            Some(_) => Standing::Next,
        };
        (at, standing)
    }

    /// When a delta began; `None` if it was counted before, or is too old to tell.
    fn delta(&mut self, point: &MetricPoint) -> Option<Timestamp> {
        let at = self.find(point.stream).unwrap_or_else(|at| self.insert(at, point));
        let stream = &mut self.all[at];
        stream.time = stream.time.max(point.time);
        let Memory::Recent(recent) = &mut stream.memory else {
            stream.memory = Memory::Recent([0; RECENT]);
            return self.delta(point);
        };
        // Seconds would not tell two points apart, and the year does not matter: the low 32 bits wrap in 49 days.
        let time = num::low(point.time.unix_ms()).max(1);
        let oldest = recent.iter().copied().min().unwrap_or_default();
        if recent.contains(&time) || (oldest > 0 && time.wrapping_sub(oldest) > u32::MAX / 2) {
            return None;
        }
        if let Some(place) = recent.iter_mut().min() {
            *place = time;
        }
        Some(begin(point))
    }

    fn insert(&mut self, mut at: usize, point: &MetricPoint) -> usize {
        if self.all.len() >= STREAMS_MAX {
            self.forget_oldest();
            at = self.find(point.stream).unwrap_or_else(|at| at);
        }
        self.all.insert(
            at,
            Stream { id: point.stream, start: point.start, time: Timestamp::ZERO, memory: Memory::Recent([0; RECENT]) },
        );
        at
    }

    fn forget_oldest(&mut self) {
        let Some((at, _)) = self.all.iter().enumerate().min_by_key(|(_, stream)| stream.time) else { return };
        let gone = self.all.remove(at);
        self.bytes = self.bytes.saturating_sub(gone.bytes());
        self.forgotten_until = self.forgotten_until.max(gone.time);
    }

    fn shrink(&mut self) {
        while self.bytes > BYTES_MAX && self.all.len() > 1 {
            self.forget_oldest();
        }
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.all.capacity() * size_of::<Stream>() + self.bytes
    }

    /// Writes the most recent streams that fit.
    pub(super) fn write(&self, writer: &mut Writer, bytes_max: usize) {
        let mut newest: Vec<&Stream> = self.all.iter().collect();
        newest.sort_by_key(|stream| std::cmp::Reverse(stream.time));
        let mut body = Writer::bare();
        let (mut count, mut forgotten_until) = (0, self.forgotten_until);
        for stream in newest {
            let mut one = Writer::bare();
            one.fixed(stream.id);
            one.time(stream.start);
            one.time(stream.time);
            match &stream.memory {
                Memory::Total(total) => {
                    one.byte(0);
                    one.real(*total);
                }
                Memory::Counts(bytes) => {
                    one.byte(1);
                    one.bytes(bytes);
                }
                Memory::Recent(recent) => {
                    one.byte(2);
                    for time in recent {
                        one.number(u64::from(*time));
                    }
                }
            }
            if body.len() + one.len() > bytes_max {
                forgotten_until = forgotten_until.max(stream.time);
                continue;
            }
            body.append(&one);
            count += 1;
        }
        writer.time(forgotten_until);
        writer.number(count);
        writer.append(&body);
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let forgotten_until = reader.time()?;
        let count = reader.count(STREAMS_MAX)?;
        let mut all = Vec::with_capacity(count);
        for _ in 0..count {
            let (id, start, time) = (reader.fixed()?, reader.time()?, reader.time()?);
            let memory = match reader.byte()? {
                0 => Memory::Total(reader.real()?),
                1 => Memory::Counts(reader.bytes()?.into()),
                2 => {
                    let mut recent = [0; RECENT];
                    for time in &mut recent {
                        *time = num::small(reader.number()?);
                    }
                    Memory::Recent(recent)
                }
                _ => return None,
            };
            all.push(Stream { id, start, time, memory });
        }
        all.sort_by_key(|stream| stream.id);
        all.dedup_by_key(|stream| stream.id);
        let bytes = all.iter().map(Stream::bytes).sum();
        Some(Self { all, bytes, forgotten_until })
    }
}

/// When what a point counts as a whole began.
fn begin(point: &MetricPoint) -> Timestamp {
    if point.start == Timestamp::ZERO { point.time } else { point.start.min(point.time) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::telemetry::{Role, Symbol, Value};

    fn point(stream: u64, start: u64, time: u64) -> MetricPoint {
        MetricPoint {
            stream,
            series: Symbol::OTHER,
            unit: Symbol::OTHER,
            role: Role::Series,
            operation: Symbol::OTHER,
            failed: false,
            peer: None,
            start: Timestamp::from_unix_ms(start),
            time: Timestamp::from_unix_ms(time),
            value: Value::Gauge(0.0),
        }
    }

    proptest! {
        /// Runs of a counter, each with its start and its points; sent with every point repeated, and shuffled within
        /// a window: the total never exceeds the truth, and meets it once the last point of each run was seen in order.
        #[test]
        fn a_counter_over_restarts_counts_every_step_once(
            runs in proptest::collection::vec(proptest::collection::vec(0_u32..100, 1..10), 1..5),
            doubled in any::<bool>(),
            late in 0_usize..3,
        ) {
            let (mut streams, mut time, mut truth) = (Streams::default(), 1000, 0.0);
            let mut points = Vec::new();
            for steps in &runs {
                let (start, mut value) = (time, 0.0);
                for step in steps {
                    time += 10;
                    value += f64::from(*step);
                    points.push((start, time, value));
                }
                truth += value;
                time += 5;
            }
            let mut seen = 0.0;
            for (place, sent) in points.iter().enumerate() {
                let old = &points[place.saturating_sub(late)];
                for (start, time, value) in [sent, if doubled { sent } else { old }, old] {
                    let added = streams.total(&point(7, *start, *time), *value, Temporality::Cumulative);
                    seen += added.map_or(0.0, |increment| increment.more);
                }
            }
            prop_assert!((seen - truth).abs() < 1e-6, "{} for {}", seen, truth);
        }

        #[test]
        fn deltas_count_once_each_in_any_order(order in Just((0_u64..7).collect::<Vec<_>>()).prop_shuffle()) {
            let mut streams = Streams::default();
            let mut seen = 0.0;
            for number in order.iter().chain(&order) {
                let (start, time) = (1000 + number * 10, 1010 + number * 10);
                let added = streams.total(&point(1, start, time), 1.0, Temporality::Delta);
                seen += added.map_or(0.0, |increment| increment.more);
            }
            prop_assert!((seen - 7.0_f64).abs() < 1e-9);
        }

        #[test]
        fn exponential_histograms_subtract_across_scales(
            first in proptest::collection::vec(0_u64..5, 1..40),
            offset in -20_i32..20,
            more in proptest::collection::vec((0_usize..40, 1_u64..5), 0..10),
            shift in 0_u32..3,
        ) {
            let mut second = first.clone();
            second.resize(40, 0);
            for (place, count) in &more {
                second[*place] += count;
            }
            let added: u64 = more.iter().map(|(_, count)| count).sum();
            let earlier = Counts { scale: 4, offset, buckets: first.clone(), count: first.iter().sum(), ..Counts::default() };
            let mut coarse: Vec<u64> = vec![0; 64];
            for (bucket, count) in (offset..).zip(&second) {
                coarse[num::slot((bucket >> shift) - (offset >> shift))] += count;
            }
            let later = Counts {
                scale: 4 - num::span(num::at(u64::from(shift))),
                offset: offset >> shift,
                buckets: coarse,
                count: second.iter().sum(),
                ..Counts::default()
            };
            let difference = later.since(&earlier).unwrap();
            prop_assert_eq!(difference.buckets.iter().sum::<u64>(), added);
            prop_assert_eq!(difference.count, added);
            prop_assert_eq!(earlier.since(&later).is_none(), added > 0 || shift > 0);
        }
    }

    #[test]
    fn a_value_that_falls_without_a_new_start_is_a_restart() {
        let mut streams = Streams::default();
        let mut add = |time, value| {
            streams.total(&point(1, 500, time), value, Temporality::Cumulative).map_or(0.0, |increment| increment.more)
        };
        assert_eq!((add(1000, 10.0), add(1010, 4.0), add(1010, 4.0), add(1020, 5.0)), (10.0, 4.0, 0.0, 1.0));
    }

    #[test]
    fn a_forgotten_stream_is_not_counted_twice() {
        let mut streams = Streams::default();
        streams.total(&point(0, 10, 20), 5.0, Temporality::Cumulative);
        for id in 1..=num::long(STREAMS_MAX) {
            streams.total(&point(id, 10, 1000 + id), 1.0, Temporality::Cumulative);
        }
        assert_eq!(streams.total(&point(0, 10, 5000), 7.0, Temporality::Cumulative), None);
        let next = streams.total(&point(0, 10, 5010), 8.0, Temporality::Cumulative).unwrap();
        assert!((next.more - 1.0).abs() < 1e-9);
    }

    #[test]
    fn what_was_saved_goes_on_where_it_was() {
        let mut streams = Streams::default();
        streams.total(&point(1, 10, 20), 5.0, Temporality::Cumulative);
        let now = Counts { scale: EXPLICIT, buckets: vec![1, 2, 3], count: 6, sum: 1.5, ..Counts::default() };
        streams.counts(&point(2, 10, 20), now.clone(), Temporality::Cumulative);
        let mut writer = Writer::bare();
        streams.write(&mut writer, 1000);
        let mut back = Streams::read(&mut Reader::bare(&writer.done())).unwrap();
        let more = back.total(&point(1, 10, 30), 9.0, Temporality::Cumulative).unwrap().more;
        assert!((more - 4.0).abs() < 1e-9);
        let later = Counts { buckets: vec![1, 2, 4], count: 7, sum: 2.0, ..now };
        let more = back.counts(&point(2, 10, 30), later, Temporality::Cumulative).unwrap().more;
        assert_eq!((more.buckets, more.count, more.sum), (vec![0, 0, 1], 1, 0.5));
    }
}
