//! What was usual at this hour a week ago, or a day ago: the seasonal-naive expectation.
//!
//! A mean for each hour of the last week, in a byte: an eighth of a doubling is a step, so it is within 4.5 %. Between
//! the middles of two hours everything from the one to the other was usual: whether it went up slowly or at once, and
//! when exactly, is not kept.

use super::{
    num,
    page::{Reader, Writer},
};

const HOUR_MS: u64 = 3_600_000;
const DAY: u64 = 24;
const WEEK: u64 = 7 * DAY;
/// Hours kept: a week and those beside, for the line between middles.
const HOURS: usize = 170;
/// Steps per doubling.
const STEPS: f64 = 8.0;
/// Codes of an hour without anything and of nothing at all; the rest are steps.
const EMPTY: u8 = 0;
const ZERO: u8 = 1;
const FIRST: u8 = 2;
/// Coarsest form in a page: four hours in one.
const SHIFT_MAX: u32 = 2;
/// Forms in a page: codes with how often they come in a row, or each by itself.
const RUNS: u8 = 0;
const EACH: u8 = 0x80;
/// Values have no larger exponents.
const LEAST_MAX: i32 = 1100;
/// No hour lies so far in the future.
const HOUR_MAX: u64 = 1 << 40;

/// The means of the last week's hours.
#[derive(Clone, Debug)]
pub(super) struct Season {
    /// The smallest value that is not zero, as a power of two.
    least: i32,
    /// The hour that is open, and what it saw.
    hour: u64,
    sum: f64,
    weight: f64,
    /// By hour modulo [`HOURS`]; made when the first hour ends.
    means: Option<Box<[u8; HOURS]>>,
}

impl Season {
    /// What its hours take in a page at most.
    pub(super) const BYTES_MAX: usize = HOURS;

    /// For values of at least 2^`least`, and up to 2^31 times that.
    pub(super) fn new(least: i32) -> Self {
        Self { least, hour: 0, sum: 0.0, weight: 0.0, means: None }
    }

    /// For values around this one: up to 2^15 times as large, or as small.
    pub(super) fn around_value(value: f64) -> Self {
        Self::new(num::index(value.abs().log2().floor()).clamp(-LEAST_MAX, LEAST_MAX) - 16)
    }

    /// Whether nothing but zeros was seen.
    pub(super) fn is_empty(&self) -> bool {
        self.means.is_none() && self.sum == 0.0
    }

    /// Whether all of it are numbers.
    pub(super) fn is_sound(&self) -> bool {
        self.sum.is_finite() && self.weight.is_finite()
    }

    /// Takes a value; times must not go back.
    pub(super) fn learn(&mut self, at_ms: u64, value: f64) {
        self.advance(at_ms / HOUR_MS);
        self.sum += value;
        self.weight += 1.0;
    }

    /// Ends the open hour if a later one has begun.
    fn advance(&mut self, hour: u64) {
        if hour <= self.hour {
            return;
        }
        let (last, mean) = (self.hour, self.sum / self.weight);
        if self.weight > 0.0 {
            self.put(last, mean);
        }
        if let Some(means) = &mut self.means {
            let kept = num::long(HOURS);
            (last + 1..hour).rev().take(HOURS).for_each(|hour| means[num::at(hour % kept)] = EMPTY);
        }
        (self.hour, self.sum, self.weight) = (hour, 0.0, 0.0);
    }

    fn put(&mut self, hour: u64, mean: f64) {
        let code = self.code(mean);
        let means = self.means.get_or_insert_with(|| Box::new([EMPTY; HOURS]));
        means[num::at(hour % num::long(HOURS))] = code;
    }

    /// Puts in the mean of an hour before the open one.
    pub(super) fn remember(&mut self, at_ms: u64, mean: f64) {
        let hour = at_ms / HOUR_MS;
        if hour < self.hour && self.hour - hour < num::long(HOURS) {
            self.put(hour, mean);
        }
    }

    /// Whether a value is larger than what it is for.
    pub(super) fn is_beyond(&self, value: f64) -> bool {
        (value.log2() - f64::from(self.least)) * STEPS > f64::from(u8::MAX - FIRST)
    }

    fn code(&self, value: f64) -> u8 {
        if value < 0.0 {
            // There is no code for it, and it is not nothing.
            return EMPTY;
        }
        let steps = (value.log2() - f64::from(self.least)) * STEPS;
        if steps < -0.5 {
            return ZERO;
        }
        num::byte(num::whole(steps.round()).min(u64::from(u8::MAX - FIRST))) + FIRST
    }

    fn value(&self, hour: u64) -> Option<f64> {
        if hour >= self.hour || self.hour - hour >= num::long(HOURS) {
            return None;
        }
        match self.means.as_ref()?[num::at(hour % num::long(HOURS))] {
            EMPTY => None,
            ZERO => Some(0.0),
            code => Some((f64::from(self.least) + f64::from(code - FIRST) / STEPS).exp2()),
        }
    }

    /// What was at this time a week ago; if that is not known, a day ago.
    pub(super) fn naive(&self, at_ms: u64) -> Option<f64> {
        let (here, there, share) = self.then(at_ms)?;
        Some(here + (there - here) * share)
    }

    /// Of what was usual at this time, what is nearest to a value.
    pub(super) fn nearest(&self, at_ms: u64, value: f64) -> Option<f64> {
        let (here, there, _) = self.then(at_ms)?;
        Some(value.clamp(here.min(there), here.max(there)))
    }

    /// The hours whose middles lie around this time a week or a day ago, and how far it is from the one to the other.
    fn then(&self, at_ms: u64) -> Option<(f64, f64, f64)> {
        [WEEK, DAY].into_iter().find_map(|hours| self.around(at_ms.checked_sub(hours * HOUR_MS)?))
    }

    fn around(&self, at_ms: u64) -> Option<(f64, f64, f64)> {
        let (hour, part) = (at_ms / HOUR_MS, num::real(at_ms % HOUR_MS) / num::real(HOUR_MS));
        let here = self.value(hour)?;
        let (other, share) = if part < 0.5 { (hour.checked_sub(1), 0.5 - part) } else { (Some(hour + 1), part - 0.5) };
        Some((here, other.and_then(|other| self.value(other)).unwrap_or(here), share))
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.means.as_ref().map_or(0, |_| HOURS)
    }

    /// Writes it within about `bytes_max`, with hours put together if need be; without them if that is not enough.
    pub(super) fn write(&self, writer: &mut Writer, bytes_max: usize) {
        writer.number(num::zigzag(self.least));
        writer.number(self.hour);
        writer.real(self.sum);
        writer.real(self.weight);
        let oldest = self.hour.saturating_sub(num::long(HOURS));
        let codes: Vec<u8> = (oldest..self.hour)
            .map(|hour| self.means.as_ref().map_or(EMPTY, |means| means[num::at(hour % num::long(HOURS))]))
            .collect();
        for shift in 0..=SHIFT_MAX {
            let codes = together(&codes, 1 << shift);
            let runs = runs(&codes);
            let (form, bytes) = if runs.len() < codes.len() { (RUNS, runs) } else { (EACH, codes) };
            if bytes.len() <= bytes_max {
                writer.byte(num::byte(u64::from(shift)) | form);
                return writer.bytes(&bytes);
            }
        }
        writer.byte(RUNS);
        writer.bytes(&[]);
    }

    /// Reads what [`Season::write`] wrote.
    pub(super) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let mut season = Self::new(num::unzigzag(reader.number()?).clamp(-LEAST_MAX, LEAST_MAX));
        season.hour = reader.number().filter(|hour| *hour <= HOUR_MAX)?;
        (season.sum, season.weight) = (reader.real()?, reader.real()?);
        let form = reader.byte()?;
        let hours = 1_u64 << u32::from(form & !EACH).min(SHIFT_MAX);
        let bytes = reader.bytes()?;
        let mut hour = season.hour.saturating_sub(num::long(HOURS));
        let mut put = |code: u8, count: u64| {
            let end = (hour + count * hours).min(season.hour);
            if code != EMPTY {
                let means = season.means.get_or_insert_with(|| Box::new([EMPTY; HOURS]));
                (hour..end).for_each(|hour| means[num::at(hour % num::long(HOURS))] = code);
            }
            hour = end;
        };
        if form & EACH == 0 {
            bytes.chunks_exact(2).for_each(|run| put(run[0], u64::from(run[1])));
        } else {
            for code in bytes {
                put(*code, 1);
            }
        }
        Some(season)
    }
}

/// The mean code of so many hours each, of those that are not empty.
fn together(codes: &[u8], hours: usize) -> Vec<u8> {
    let mean = |group: &[u8]| {
        let filled = || group.iter().filter(|code| **code != EMPTY).map(|code| u64::from(*code));
        num::byte(filled().sum::<u64>().checked_div(num::long(filled().count())).unwrap_or(u64::from(EMPTY)))
    };
    codes.chunks(hours).map(mean).collect()
}

/// Codes and how often each comes in a row.
fn runs(codes: &[u8]) -> Vec<u8> {
    let run = |run: &[u8]| [run[0], num::byte(num::long(run.len()))];
    codes.chunk_by(|a, b| a == b).flat_map(run).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A Thursday at midnight.
    const START: u64 = 473_000 * HOUR_MS;

    fn at(hour: u64) -> u64 {
        START + hour * HOUR_MS
    }

    /// Four values an hour for so many hours.
    fn learned(hours: u64, value: impl Fn(u64) -> f64) -> Season {
        let mut season = Season::new(-10);
        for quarter in 0..hours * 4 {
            season.learn(START + quarter * HOUR_MS / 4, value(quarter / 4));
        }
        season.learn(at(hours), value(hours));
        season
    }

    fn is_near(found: Option<f64>, expected: f64) -> bool {
        found.is_some_and(|found| (found - expected).abs() <= 0.045 * expected)
    }

    #[test]
    fn a_week_ago_counts_before_yesterday_and_nothing_before_both() {
        let by_day = |hour: u64| 10.0 * num::real(1 + (hour / 24) % 7);
        assert_eq!(learned(20, by_day).naive(at(20)), None);
        assert!(is_near(learned(36, by_day).naive(at(36) + HOUR_MS / 2), 10.0), "yesterday");
        assert!(is_near(learned(6 * 24 + 12, by_day).naive(at(6 * 24 + 12)), 60.0), "still yesterday");
        assert!(is_near(learned(7 * 24 + 12, by_day).naive(at(7 * 24 + 12)), 10.0), "last week");
        assert!(is_near(learned(15 * 24 + 12, by_day).naive(at(15 * 24 + 12)), 20.0), "the week before is forgotten");
    }

    #[test]
    fn a_negative_mean_is_a_gap_and_not_nothing() {
        let season = learned(26, |hour| if hour < 2 { -5.0 } else { 5.0 });
        assert_eq!((season.naive(at(24)), season.value(START / HOUR_MS)), (None, None));
        assert!(is_near(season.naive(at(26)), 5.0));
    }

    #[test]
    fn an_hour_without_anything_is_a_gap() {
        let mut season = learned(24, |_| 5.0);
        season.learn(at(24 + 30), 5.0);
        assert_eq!(season.naive(at(24 + 30)), None, "a day ago nothing was");
        assert!(is_near(season.naive(at(7 * 24 + 1)), 5.0));
        season.learn(at(100 * 24), 5.0);
        assert!((0..200).all(|hour| season.naive(at(100 * 24 - hour)).is_none()));
    }

    proptest! {
        #[test]
        fn a_slope_is_followed_and_pages_keep_it(wave in 0.1_f64..0.8, level in 1_f64..1e4, minute in 60_u64..1440) {
            let of = |hours: f64| level * (1.0 + wave * (std::f64::consts::TAU * hours / 24.0).sin());
            let season = learned(7 * 24 + minute / 60, |hour| of(num::real(hour) + 0.5));
            let (then, hours) = (at(7 * 24) + minute * 60_000, num::real(minute) / 60.0);
            let expected = of(hours);
            let found = season.naive(then).unwrap();
            prop_assert!((found - expected).abs() <= 0.045 * expected + 0.02 * level, "{found} for {expected}");
            let nearest = season.nearest(then, expected).unwrap();
            prop_assert!((nearest - expected).abs() <= (found - expected).abs() + 1e-9);
            let mut writer = Writer::bare();
            season.write(&mut writer, usize::MAX);
            let bytes = writer.done();
            let back = Season::read(&mut Reader::bare(&bytes)).unwrap();
            prop_assert_eq!(back.naive(then), Some(found));
            let mut writer = Writer::bare();
            season.write(&mut writer, 90);
            prop_assert!(writer.len() <= 90 + 28);
        }

        #[test]
        fn any_value_is_kept_within_its_step(value in 1e-3_f64..1e6) {
            let season = learned(2, |_| value);
            prop_assert!(is_near(season.value(START / HOUR_MS), value));
        }
    }
}
