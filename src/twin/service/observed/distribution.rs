//! How measurements are distributed: ever, and in the last minutes.
//!
//! What "p99" means to somebody who looks is the last minutes, so beside the sketch that never forgets lie two that do:
//! one takes what comes for five minutes and then gives way to the next, and both together are the window. Between five
//! and ten minutes are seen, at the price of two sketches and an increment more per sample.

use std::borrow::Cow;

use super::{
    limits::WINDOW_MS,
    page::{Reader, Writer},
    sketch::{COARSE, SCALE, Sketch, Spot},
    tally::Tally,
};
use crate::{model::Timestamp, twin::service::view::DistributionView};

/// Of the bytes in a page, the period before gets at most this part, and the open one this part of what is left.
const BEFORE_SHARE: usize = 8;
const OPEN_SHARE: usize = 3;
/// What each of them gets in any case: some six doublings at their coarsest. What does not fit that is left out.
const PART_BYTES_MIN: usize = 64;

/// Measurements ever, in the last minutes and, for whoever asks, since they were last judged.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Distribution {
    ever: Sketch,
    /// Those of the period that is open.
    open: Sketch,
    period: u64,
    /// Those of the period before it, as in a page: nothing is added to them.
    before: Option<Box<[u8]>>,
    /// Since the last judgement; `None` if nobody judges.
    step: Option<Sketch<COARSE>>,
    /// Counts of explicit histograms in the open period that are in no sketch yet.
    tally: Option<Box<Tally>>,
}

impl Distribution {
    /// One that is judged from time to time.
    #[must_use]
    pub(super) fn judged(self) -> Self {
        Self { step: Some(Sketch::default()), ..self }
    }

    /// Adds a measurement.
    pub(super) fn one(&mut self, at: Timestamp, value: f64) {
        if let Some(spot) = Spot::of(value).filter(|_| value.is_finite()) {
            self.add(at, spot, 1);
            self.ever.add_sum(value);
        }
    }

    /// Adds `count` equal measurements, without their sum.
    pub(super) fn add(&mut self, at: Timestamp, spot: Spot, count: u64) {
        let age = self.age(at);
        self.put(age, spot, count);
    }

    /// Adds to the sum alone: for histograms, which know theirs exactly.
    pub(super) fn add_sum(&mut self, sum: f64) {
        self.ever.add_sum(sum);
    }

    /// Adds the counts of an explicit histogram, without their sum.
    pub(super) fn add_counts(&mut self, at: Timestamp, bounds: &[f64], counts: &[u64], unit_s: f64) {
        let age = self.age(at);
        if age > 0 {
            let mut late = Tally::new(bounds, unit_s);
            late.add(counts);
            return late.drain(|spot, count| self.put(age, spot, count));
        }
        match &mut self.tally {
            Some(tally) if tally.fits(bounds, unit_s) => tally.add(counts),
            Some(_) | None => {
                self.settle();
                self.tally.insert(Box::new(Tally::new(bounds, unit_s))).add(counts);
            }
        }
    }

    /// How many periods ago a time is, after beginning the one it lies in.
    fn age(&mut self, at: Timestamp) -> u64 {
        let period = at.unix_ms() / WINDOW_MS;
        if period > self.period {
            self.settle();
            self.before = (period == self.period + 1 && self.open.count() > 0).then(|| self.open.pack());
            self.open.clear();
            self.period = period;
        }
        self.period - period
    }

    fn put(&mut self, age: u64, spot: Spot, count: u64) {
        self.ever.add_spot(spot, count);
        // What comes a little late is as good as now; later than that it is no news.
        if age <= 1 {
            self.open.add_spot(spot, count);
        }
        if let Some(step) = &mut self.step {
            step.add_spot(spot, count);
        }
    }

    /// Puts what is only counted into the sketches.
    fn settle(&mut self) {
        if let Some(mut tally) = self.tally.take() {
            tally.drain(|spot, count| self.put(0, spot, count));
            self.tally = Some(tally);
        }
    }

    /// With what is only counted in the sketches, which costs a copy if there is any.
    fn settled(&self) -> Cow<'_, Self> {
        let mut settled = Cow::Borrowed(self);
        if self.tally.as_ref().is_some_and(|tally| !tally.is_empty()) {
            settled.to_mut().settle();
        }
        settled
    }

    /// Begins a step without judging the one that ends: another tells of the same.
    pub(super) fn skip(&mut self) {
        self.settle();
        if let Some(step) = &mut self.step {
            step.clear();
        }
    }

    /// The value that a share `q` of those since the last judgement do not pass; this is the next one, if there are at
    /// least `count_min` of them.
    pub(super) fn judge(&mut self, q: f64, count_min: u64) -> Option<f64> {
        self.settle();
        let step = self.step.as_mut().filter(|step| step.count() >= count_min)?;
        let found = step.quantile(q);
        step.clear();
        found
    }

    /// Adds all measurements of another.
    pub(super) fn merge(&mut self, other: &Self) {
        self.settle();
        self.ever.merge(&other.settled().ever);
    }

    /// The sum of all.
    pub(super) fn sum(&self) -> f64 {
        self.ever.sum()
    }

    /// All, and those of the last minutes.
    pub(super) fn view(&self, now: Timestamp) -> (DistributionView, DistributionView) {
        let settled = self.settled();
        (view(&settled.ever), view(&settled.window(now.unix_ms() / WINDOW_MS)))
    }

    fn before(&self) -> Option<Sketch> {
        Sketch::read(&mut Reader::bare(self.before.as_ref()?))
    }

    /// The measurements of the last minutes, as seen in a period.
    fn window(&self, period: u64) -> Sketch {
        match period.saturating_sub(self.period) {
            0 => {
                let mut window = self.before().unwrap_or_default();
                window.merge(&self.open);
                window
            }
            1 => self.open.clone(),
            _ => Sketch::default(),
        }
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.ever.heap_bytes()
            + self.open.heap_bytes()
            + self.before.as_ref().map_or(0, |bytes| bytes.len())
            + self.step.as_ref().map_or(0, Sketch::heap_bytes)
            + self.tally.as_ref().map_or(0, |tally| tally.heap_bytes())
    }

    /// Writes it within about `bytes_max`.
    pub(super) fn write(&self, writer: &mut Writer, bytes_max: usize) {
        let settled = self.settled();
        let part = |sketch: &Sketch, bytes_max: usize| {
            let mut writer = Writer::bare();
            sketch.write(&mut writer, bytes_max);
            if writer.len() > bytes_max.max(PART_BYTES_MIN) {
                writer = Writer::bare();
                Sketch::<SCALE>::default().write(&mut writer, 0);
            }
            writer
        };
        // What one does not need the next one may have.
        let before = part(&settled.before().unwrap_or_default(), bytes_max / BEFORE_SHARE);
        let left = bytes_max.saturating_sub(before.len());
        let open = part(&settled.open, left / OPEN_SHARE);
        settled.ever.write(writer, left.saturating_sub(open.len()));
        writer.number(self.period);
        writer.append(&open);
        writer.append(&before);
    }

    /// Reads what [`Distribution::write`] wrote; pages of version 1 have no window.
    pub(super) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let ever = Sketch::read(reader)?;
        if reader.version() < 2 {
            return Some(Self { ever, ..Self::default() });
        }
        let (period, open, before): (_, _, Sketch) = (reader.number()?, Sketch::read(reader)?, Sketch::read(reader)?);
        let before = (before.count() > 0).then(|| before.pack());
        Some(Self { ever, open, period, before, ..Self::default() })
    }
}

fn view(sketch: &Sketch) -> DistributionView {
    DistributionView {
        count: sketch.count(),
        p50: sketch.quantile(0.5),
        p90: sketch.quantile(0.9),
        p95: sketch.quantile(0.95),
        p99: sketch.quantile(0.99),
        max: sketch.max(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_unix_ms(1_700_000_100_000 + ms)
    }

    fn now(distribution: &Distribution, ms: u64) -> DistributionView {
        distribution.view(at(ms)).1
    }

    #[test]
    fn the_last_minutes_forget_what_was_before_and_the_rest_does_not() {
        let mut distribution = Distribution::default();
        for second in 0..600 {
            distribution.one(at(second * 1000), 0.010);
        }
        for second in 600..1500 {
            distribution.one(at(second * 1000), 0.200);
        }
        let recent = now(&distribution, 1_499_000);
        assert!((recent.p50.unwrap() - 0.2).abs() < 0.002, "{recent:?}");
        assert!((recent.p90.unwrap() - 0.2).abs() < 0.002, "{recent:?}");
        assert!((300..=600).contains(&recent.count), "{recent:?}");
        let (ever, _) = distribution.view(at(1_499_000));
        assert_eq!(ever.count, 1500);
        assert!(distribution.window(0).count() > 0 && (ever.p50.unwrap() - 0.2).abs() < 0.002);
        assert_eq!(now(&distribution, 1_499_000 + 2 * WINDOW_MS).count, 0, "silence is a gap");
    }

    #[test]
    fn a_measurement_that_comes_late_counts_and_a_very_late_one_only_for_all_time() {
        let mut distribution = Distribution::default();
        distribution.one(at(0), 0.1);
        distribution.one(at(WINDOW_MS), 0.1);
        distribution.one(at(0), 0.1);
        distribution.one(Timestamp::ZERO, 0.1);
        assert_eq!(now(&distribution, WINDOW_MS).count, 3);
        assert_eq!(now(&distribution, 2 * WINDOW_MS).count, 2);
        assert_eq!(distribution.view(at(0)).0.count, 4);
    }

    #[test]
    fn counted_histograms_show_before_they_are_spread_and_after() {
        let mut distribution = Distribution::default().judged();
        let bounds = [0.01, 0.1, 1.0];
        for _ in 0..10 {
            distribution.add_counts(at(0), &bounds, &[0, 90, 10, 0], 1.0);
        }
        let (ever, recent) = distribution.view(at(0));
        assert_eq!((ever.count, recent.count), (1000, 1000));
        assert!((0.01..=0.1).contains(&ever.p50.unwrap()) && (0.1..=1.0).contains(&ever.p95.unwrap()));
        assert!((0.1..=1.0).contains(&distribution.judge(0.95, 20).unwrap()));
        assert_eq!(distribution.judge(0.95, 1), None, "judged once");
        // Other bounds, in milliseconds.
        distribution.add_counts(at(1), &[50.0], &[1000, 0], 1e-3);
        assert_eq!(distribution.view(at(1)).0.count, 2000);
        assert!(distribution.judge(1.0, 20).unwrap() < 0.05);
        let mut writer = Writer::page();
        distribution.write(&mut writer, usize::MAX);
        let back = Distribution::read(&mut Reader::page(&writer.done()).unwrap()).unwrap();
        assert_eq!(back.view(at(1)), distribution.view(at(1)));
    }
}
