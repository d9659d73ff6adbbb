//! A mergeable quantile sketch with a relative error below 1 %, in a bounded number of buckets.
//!
//! Buckets are those of an OpenTelemetry exponential histogram of scale 6: bucket `i` covers (b^i, b^(i+1)] with
//! b = 2^(1/64), so any value is within 0.55 % of its bucket's middle, and exponential histograms of the same or a
//! finer scale merge without loss. Own code rather than `sketches-ddsketch`, whose buckets are 8 bytes each and lie
//! between those of exponential histograms: counts here take 4 bytes in memory and about one and a half in a page.

use super::{
    num,
    page::{Reader, Writer},
};

/// Buckets per doubling: 2^SCALE.
pub(super) const SCALE: i32 = 6;
/// The same of a sketch that is only compared with others like it: any value is within 2.2 % of its bucket's middle.
pub(super) const COARSE: i32 = 4;
/// Most buckets: 20 doublings, or six decades. Beyond them the lowest are folded together.
const BUCKETS_MAX: usize = 1280;
/// The window grows by so many buckets at a time.
const GROWTH: i32 = 16;
/// What is no larger counts as zero: a nanosecond, where values are seconds.
const TINY: f64 = 1e-9;
/// What is larger counts as this.
const HUGE: f64 = 1e15;
/// The buckets of both.
const BUCKET_TINY: i32 = -1914;
const BUCKET_HUGE: i32 = 3189;
/// Coarsest form in a page: 2^6 buckets in one is a doubling.
const SHIFT_MAX: u32 = 6;

/// A measurement whose bucket is known: found once, then added to as many sketches as there are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spot {
    value: f64,
    /// At [`SCALE`]; `None` for what counts as zero.
    bucket: Option<i32>,
}

impl Spot {
    /// `None` for what is no number.
    pub(super) fn of(value: f64) -> Option<Self> {
        let value = value.min(HUGE);
        (!value.is_nan()).then(|| Self { value, bucket: (value > TINY).then(|| bucket_of(value)) })
    }

    /// A measurement of which only its bucket is known. It stretches no maximum: a [`Spot::top`] must follow.
    pub(super) fn of_bucket(bucket: i32) -> Self {
        Self { value: f64::NEG_INFINITY, bucket: (bucket >= BUCKET_TINY).then_some(bucket.min(BUCKET_HUGE)) }
    }

    /// The same for the highest of several buckets: it is taken as large as the middle of it.
    pub(super) fn top(bucket: i32) -> Self {
        Self { value: middle(bucket.clamp(BUCKET_TINY, BUCKET_HUGE), SCALE), ..Self::of_bucket(bucket) }
    }

    /// As fine as a sketch of that scale tells it.
    #[cfg(test)]
    pub(super) fn seen_at(self, scale: i32) -> f64 {
        self.bucket.map_or(0.0, |bucket| middle(bucket >> (SCALE - scale), scale))
    }
}

/// The distribution of measurements.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Sketch<const AT: i32 = SCALE> {
    first: i32,
    buckets: Vec<u32>,
    zeros: u64,
    count: u64,
    sum: f64,
    max: f64,
}

/// The bucket of a positive value.
fn bucket_of(value: f64) -> i32 {
    num::index((value.log2() * f64::from(1 << SCALE)).ceil()) - 1
}

/// The middle of a bucket: the value whose relative distance to both ends is the same.
fn middle(bucket: i32, scale: i32) -> f64 {
    let base = (1.0 / f64::from(1 << scale)).exp2();
    (f64::from(bucket) / f64::from(1 << scale)).exp2() * 2.0 * base / (base + 1.0)
}

impl<const AT: i32> Sketch<AT> {
    /// How many.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Forgets everything, and keeps the room for more.
    pub(super) fn clear(&mut self) {
        self.buckets.fill(0);
        (self.zeros, self.count, self.sum, self.max) = (0, 0, 0.0, 0.0);
    }

    /// Their sum.
    pub(super) fn sum(&self) -> f64 {
        self.sum
    }

    /// The largest; from merged histograms only as fine as their buckets.
    pub(super) fn max(&self) -> Option<f64> {
        (self.count > 0).then_some(self.max)
    }

    /// Adds to the sum alone: what is added to the buckets may know its sum better than they do.
    pub(super) fn add_sum(&mut self, sum: f64) {
        if sum.is_finite() {
            self.sum += sum;
        }
    }

    /// Adds `count` equal values, without their sum.
    pub(super) fn add_spot(&mut self, spot: Spot, count: u64) {
        if count == 0 {
            return;
        }
        self.max = if self.count == 0 { spot.value } else { self.max.max(spot.value) };
        self.count = self.count.saturating_add(count);
        match spot.bucket {
            None => self.zeros = self.zeros.saturating_add(count),
            Some(bucket) => self.place(bucket >> (SCALE - AT), count),
        }
    }

    fn place(&mut self, bucket: i32, count: u64) {
        let at = self.room_for(bucket);
        self.buckets[at] = self.buckets[at].saturating_add(num::small(count));
    }

    /// The position of a bucket, after making room for it.
    fn room_for(&mut self, bucket: i32) -> usize {
        let length = num::span(self.buckets.len());
        let offset = bucket - self.first;
        if (0..length).contains(&offset) {
            return num::slot(offset);
        }
        if self.buckets.is_empty() {
            self.first = bucket - GROWTH / 2;
            self.buckets = vec![0; num::slot(GROWTH)];
        } else if offset < 0 {
            let room = num::span(BUCKETS_MAX) - length;
            let more = (GROWTH - offset).min(room);
            let mut grown = vec![0; num::slot(more)];
            grown.append(&mut self.buckets);
            self.buckets = grown;
            self.first -= more;
        } else {
            let wanted = offset + 1 + GROWTH;
            let excess = num::slot((wanted - num::span(BUCKETS_MAX)).max(0));
            let mut grown = Vec::with_capacity(num::slot(wanted) - excess);
            let (folded, kept) = self.buckets.split_at(excess.min(self.buckets.len()));
            grown.extend_from_slice(kept);
            grown.resize(num::slot(wanted) - excess, 0);
            grown[0] = folded.iter().fold(grown[0], |sum, count| sum.saturating_add(*count));
            self.buckets = grown;
            self.first += num::span(excess);
        }
        num::slot((bucket - self.first).max(0)).min(self.buckets.len() - 1)
    }

    /// Adds all measurements of another.
    pub(super) fn merge(&mut self, other: &Self) {
        self.max = if self.count == 0 { other.max } else { self.max.max(other.max) };
        self.zeros = self.zeros.saturating_add(other.zeros);
        self.count = self.count.saturating_add(other.count);
        self.sum += other.sum;
        // From the top, so that the window is wide enough at once.
        for (bucket, count) in (other.first..).zip(&other.buckets).rev_nonzero() {
            self.place(bucket, u64::from(count));
        }
    }

    /// The value below which a share `q` of the measurements lies; `None` without any.
    pub(super) fn quantile(&self, q: f64) -> Option<f64> {
        let counted = self.buckets.iter().map(|count| u64::from(*count)).sum::<u64>().saturating_add(self.zeros);
        if counted == 0 {
            return None;
        }
        let rank = num::whole(q.clamp(0.0, 1.0) * num::real(counted - 1));
        let mut seen = self.zeros;
        if rank < seen {
            return Some(0.0);
        }
        for (bucket, count) in (self.first..).zip(&self.buckets) {
            seen = seen.saturating_add(u64::from(*count));
            if rank < seen {
                return Some(middle(bucket, AT).min(self.max));
            }
        }
        Some(self.max)
    }

    /// Bytes on the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        self.buckets.capacity() * size_of::<u32>()
    }

    /// Writes it within about `bytes_max`, with buckets made coarser if need be.
    pub(super) fn write(&self, writer: &mut Writer, bytes_max: usize) {
        for shift in 0..=SHIFT_MAX {
            let mut body = Writer::bare();
            self.write_shifted(&mut body, shift);
            if body.len() <= bytes_max || shift == SHIFT_MAX {
                writer.append(&body);
                return;
            }
        }
    }

    fn write_shifted(&self, writer: &mut Writer, shift: u32) {
        let mut coarse: Vec<(i32, u64)> = Vec::new();
        for (bucket, count) in (self.first..).zip(&self.buckets).filter(|(_, count)| **count > 0) {
            match coarse.last_mut() {
                Some((last, sum)) if *last == bucket >> shift => *sum += u64::from(*count),
                Some(_) | None => coarse.push((bucket >> shift, u64::from(*count))),
            }
        }
        writer.byte(num::byte(u64::from(shift)));
        writer.number(self.zeros);
        writer.number(self.count);
        writer.real(self.sum);
        writer.real(self.max);
        writer.number(num::long(coarse.len()));
        let mut previous = 0;
        for (bucket, count) in coarse {
            writer.number(num::zigzag(bucket - previous));
            writer.number(count);
            previous = bucket;
        }
    }

    /// The same as bytes, which are fewer, as fine as it is.
    pub(super) fn pack(&self) -> Box<[u8]> {
        let mut writer = Writer::bare();
        self.write_shifted(&mut writer, 0);
        writer.done().into()
    }

    /// Reads what [`Sketch::write`] wrote.
    pub(super) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let shift = u32::from(reader.byte()?).min(SHIFT_MAX);
        let mut sketch = Self { zeros: reader.number()?, count: reader.number()?, ..Self::default() };
        (sketch.sum, sketch.max) = (reader.real()?, reader.real()?);
        let length = reader.count(BUCKETS_MAX)?;
        let mut bucket = 0_i32;
        for _ in 0..length {
            bucket = bucket.checked_add(num::unzigzag(reader.number()?))?;
            let count = reader.number()?;
            if bucket.abs() > 4096 {
                return None;
            }
            sketch.place((bucket << shift) + ((1 << shift) >> 1), count);
        }
        Some(sketch)
    }
}

/// Walks buckets from the highest that holds something.
trait RevNonzero {
    fn rev_nonzero(self) -> impl Iterator<Item = (i32, u32)>;
}

impl<'a, I: Iterator<Item = (i32, &'a u32)>> RevNonzero for I {
    fn rev_nonzero(self) -> impl Iterator<Item = (i32, u32)> {
        let mut all: Vec<_> = self.filter(|(_, count)| **count > 0).map(|(bucket, count)| (bucket, *count)).collect();
        all.reverse();
        all.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    impl Sketch {
        fn add(&mut self, value: f64) {
            if let Some(spot) = Spot::of(value) {
                self.add_spot(spot, 1);
                self.add_sum(value);
            }
        }
    }

    fn exact(values: &[f64], q: f64) -> f64 {
        values[num::at(num::whole(q * num::real(num::long(values.len() - 1))))]
    }

    proptest! {
        #[test]
        fn every_quantile_is_within_one_percent(
            mut values in proptest::collection::vec(1e-5_f64..9.0, 1..400),
            q in 0.0_f64..=1.0,
        ) {
            let mut sketch = Sketch::default();
            for value in &values {
                sketch.add(*value);
            }
            values.sort_by(f64::total_cmp);
            let (found, expected) = (sketch.quantile(q).unwrap(), exact(&values, q));
            prop_assert!((found - expected).abs() <= 0.01 * expected, "{found} for {expected}");
        }

        #[test]
        fn a_coarse_sketch_is_within_two_and_a_half_percent(values in proptest::collection::vec(1e-5_f64..9.0, 1..200)) {
            let mut sketch = Sketch::<COARSE>::default();
            for value in &values {
                let spot = Spot::of(*value).unwrap();
                prop_assert!((spot.seen_at(COARSE) - value).abs() <= 0.025 * value);
                sketch.add_spot(spot, 1);
            }
            let greatest = values.iter().copied().fold(0.0, f64::max);
            let found = sketch.quantile(1.0).unwrap();
            prop_assert!((found - greatest).abs() <= 0.025 * greatest, "{found} for {greatest}");
        }

        #[test]
        // Within what a sketch tells apart: of folded buckets, the order says where they lie.
        fn merging_is_adding_and_pages_keep_it(
            left in proptest::collection::vec(1e-3_f64..100.0, 0..200),
            right in proptest::collection::vec(1e-3_f64..100.0, 0..200),
        ) {
            let of = |values: &[f64]| {
                let mut sketch = Sketch::default();
                for value in values {
                    sketch.add(*value);
                }
                sketch
            };
            let mut merged = of(&left);
            merged.merge(&of(&right));
            let all = of(&[left, right].concat());
            for q in [0.0, 0.5, 0.9, 0.99, 1.0] {
                prop_assert_eq!(merged.quantile(q), all.quantile(q));
            }
            let mut writer = Writer::bare();
            merged.write(&mut writer, usize::MAX);
            let bytes = writer.done();
            let back: Sketch = Sketch::read(&mut Reader::bare(&bytes)).unwrap();
            prop_assert_eq!(back.count, merged.count);
            for q in [0.0, 0.5, 0.99, 1.0] {
                prop_assert_eq!(back.quantile(q), merged.quantile(q));
            }
        }

        #[test]
        fn it_is_bounded_and_total(values in proptest::collection::vec(any::<f64>(), 0..300)) {
            let mut sketch = Sketch::default();
            for value in &values {
                sketch.add(*value);
            }
            prop_assert!(sketch.buckets.len() <= BUCKETS_MAX);
            let mut writer = Writer::bare();
            sketch.write(&mut writer, 100);
            prop_assert!(writer.len() <= 300);
        }
    }
}
