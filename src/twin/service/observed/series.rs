//! One metric over time at three resolutions; if nothing else was chosen, 10 s for 10 minutes, 15 min for a day, a day
//! for 90 days.

use compact_str::CompactString;

use super::{
    distribution::Distribution,
    num,
    page::{Reader, Writer},
    usual::Usual,
};
use crate::{
    model::{Timestamp, telemetry::Symbols},
    twin::service::{
        settings::Resolution,
        view::{BaselineView, BinView, SeriesView, TierView},
    },
};

/// Most bins of one resolution.
const BINS_MAX: usize = 512;
/// No bin lies so far in the future.
const NUMBER_MAX: u64 = 1 << 50;
/// What the season of a series takes in a page.
const SEASON_BYTES: usize = 170;
const SEASON_BYTES_TIGHT: usize = 43;
/// Longest name kept in a page, in bytes.
pub(super) const NAME_BYTES_MAX: usize = 64;

/// What a series holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Shape {
    /// Levels: bins hold means.
    #[default]
    Gauge,
    /// Increments: bins hold sums, shown per second.
    Counter,
    /// Measurements: bins hold means.
    Histogram,
}

impl Shape {
    const fn name(self) -> &'static str {
        match self {
            Self::Gauge => "gauge",
            Self::Counter => "counter",
            Self::Histogram => "histogram",
        }
    }
}

/// One bin; without weight it holds nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Bin {
    value: f32,
    min: f32,
    max: f32,
    weight: f32,
}

impl Bin {
    const EMPTY: Self = Self { value: 0.0, min: f32::INFINITY, max: f32::NEG_INFINITY, weight: 0.0 };

    fn stretch(&mut self, value: f32) {
        self.min = self.min.min(value);
        self.max = self.max.max(value);
    }
}

/// One resolution: a ring of bins.
#[derive(Debug)]
struct Tier {
    width_ms: u64,
    newest: u64,
    /// The newest bin's sum and weight, exactly.
    sum: f64,
    weight: f64,
    bins: Box<[Bin]>,
}

impl Tier {
    fn new(resolution: Resolution) -> Self {
        let (width_ms, length) = resolution.shape();
        Self { width_ms, newest: 0, sum: 0.0, weight: 0.0, bins: vec![Bin::EMPTY; length].into() }
    }

    fn slot(&self, number: u64) -> usize {
        num::at(number % num::long(self.bins.len()))
    }

    /// Makes `number` the newest bin if it is newer; says whether it is still kept.
    fn advance(&mut self, number: u64) -> bool {
        if number > self.newest {
            let length = num::long(self.bins.len());
            let first = (self.newest + 1).max(number.saturating_sub(length - 1));
            for number in first..=number {
                let slot = self.slot(number);
                self.bins[slot] = Bin::EMPTY;
            }
            (self.newest, self.sum, self.weight) = (number, 0.0, 0.0);
        }
        self.newest - number < num::long(self.bins.len())
    }

    fn level(&mut self, at: Timestamp, value: f64) {
        let number = at.unix_ms() / self.width_ms;
        if !self.advance(number) {
            return;
        }
        let slot = self.slot(number);
        let bin = &mut self.bins[slot];
        bin.stretch(num::short(value));
        if number == self.newest {
            self.sum += value;
            self.weight += 1.0;
            (bin.value, bin.weight) = (num::short(self.sum / self.weight), num::short(self.weight));
        } else {
            bin.weight += 1.0;
            bin.value += (num::short(value) - bin.value) / bin.weight;
        }
    }

    /// Adds an increment, spread evenly over the time in which it happened.
    fn increment(&mut self, from: Timestamp, to: Timestamp, amount: f64) {
        let (from, to) = (from.unix_ms().min(to.unix_ms()), to.unix_ms());
        // A bin ends where the next begins: what happened up to a border belongs before it.
        let last = to.saturating_sub(u64::from(to > from)) / self.width_ms;
        let elapsed_ms = to - from;
        if elapsed_ms == 0 || from / self.width_ms == last {
            self.put(last, amount, amount * 1e3 / num::real(elapsed_ms.max(1000)));
            return;
        }
        let rate = amount * 1e3 / num::real(elapsed_ms);
        let oldest = last.saturating_sub(num::long(self.bins.len()) - 1).max(from / self.width_ms);
        for number in oldest..=last {
            let start = (number * self.width_ms).max(from);
            let end = ((number + 1) * self.width_ms).min(to);
            self.put(number, amount * num::real(end - start) / num::real(elapsed_ms), rate);
        }
    }

    fn put(&mut self, number: u64, amount: f64, rate: f64) {
        if !self.advance(number) {
            return;
        }
        let slot = self.slot(number);
        let bin = &mut self.bins[slot];
        bin.stretch(num::short(rate));
        bin.weight = 1.0;
        if number == self.newest {
            self.sum += amount;
            self.weight = 1.0;
            bin.value = num::short(self.sum);
        } else {
            bin.value += num::short(amount);
        }
    }

    /// The bins that hold something, oldest first: number and content.
    fn kept(&self) -> impl Iterator<Item = (u64, &Bin)> {
        let oldest = (self.newest + 1).saturating_sub(num::long(self.bins.len()));
        (oldest..=self.newest).map(|number| (number, &self.bins[self.slot(number)])).filter(|(_, bin)| bin.weight > 0.0)
    }

    fn write(&self, writer: &mut Writer, with_extremes: bool) {
        writer.number(self.width_ms);
        writer.number(self.newest);
        writer.real(self.sum);
        writer.real(self.weight);
        writer.byte(u8::from(with_extremes));
        let kept: Vec<_> = self.kept().collect();
        let runs = || kept.chunk_by(|a, b| a.0 + 1 == b.0);
        writer.number(num::long(runs().count()));
        let mut end = 0;
        for run in runs() {
            writer.number(run[0].0 - end);
            writer.number(num::long(run.len()));
            end = run[0].0 + num::long(run.len());
            for (_, bin) in run {
                writer.real3(bin.value);
                if with_extremes {
                    writer.real2(bin.min);
                    writer.real2(bin.max);
                }
            }
        }
    }

    /// Takes back what was saved. Bins of another width, from before other resolutions were chosen, are a gap.
    fn read(resolution: Resolution, last_at: Timestamp, reader: &mut Reader<'_>) -> Option<Self> {
        let mut tier = Self::new(resolution);
        let width_ms = if reader.version() < 3 { None } else { Some(reader.number()?) };
        (tier.newest, tier.sum, tier.weight) = (reader.number()?, reader.real()?, reader.real()?);
        if tier.newest > NUMBER_MAX {
            return None;
        }
        let with_extremes = reader.byte()? == 1;
        let mut number = 0_u64;
        for _ in 0..reader.count(BINS_MAX)? {
            number = number.checked_add(reader.number()?)?;
            // Earlier versions have a number beside each bin, counted from the one before it.
            let run = if width_ms.is_some() { num::long(reader.count(BINS_MAX)?) } else { 1 };
            for number in number..number.checked_add(run)? {
                tier.take(number, with_extremes, reader)?;
            }
            number += if width_ms.is_some() { run } else { 0 };
        }
        // Before version 3 it was to be guessed: counted in another width, the newest bin lies far from the last value.
        let is_same = width_ms.map_or_else(
            || tier.newest.abs_diff(last_at.unix_ms() / tier.width_ms) <= num::long(tier.bins.len()),
            |width_ms| width_ms == tier.width_ms,
        );
        if !is_same {
            return Some(Self::new(resolution));
        }
        if tier.weight > 0.0 {
            let slot = tier.slot(tier.newest);
            tier.bins[slot].weight = num::short(tier.weight);
        }
        Some(tier)
    }

    fn take(&mut self, number: u64, with_extremes: bool, reader: &mut Reader<'_>) -> Option<()> {
        let value = reader.real3()?;
        let (min, max) = if with_extremes { (reader.real2()?, reader.real2()?) } else { (value, value) };
        if number <= self.newest && self.newest - number < num::long(self.bins.len()) {
            let slot = self.slot(number);
            self.bins[slot] = Bin { value, min, max, weight: 1.0 };
        }
        Some(())
    }

    fn view(&self, shape: Shape, last_at: Timestamp) -> TierView {
        let bins = self.kept().map(|(number, bin)| {
            let start = number * self.width_ms;
            let elapsed_ms = last_at.unix_ms().saturating_sub(start).clamp(1000, self.width_ms);
            let value = match shape {
                Shape::Counter => f64::from(bin.value) * 1e3 / num::real(elapsed_ms),
                Shape::Gauge | Shape::Histogram => f64::from(bin.value),
            };
            let [min, max] = [bin.min, bin.max].map(f64::from);
            BinView { start: Timestamp::from_unix_ms(start), value, min, max }
        });
        TierView { width_s: self.width_ms / 1000, bins: bins.collect() }
    }
}

/// A metric at every resolution.
#[derive(Debug)]
pub(super) struct Series {
    pub(super) name: CompactString,
    unit: CompactString,
    shape: Shape,
    last: f64,
    pub(super) last_at: Timestamp,
    measured: Option<Box<Distribution>>,
    tiers: [Tier; 3],
    /// Not of `_other`, of which nothing is usual.
    usual: Option<Box<Usual>>,
}

impl Series {
    pub(super) fn new(name: &str, unit: &str, shape: Shape, resolutions: &[Resolution; 3]) -> Self {
        let measured = (shape == Shape::Histogram).then(Box::default);
        let tiers = resolutions.map(Tier::new);
        let usual = (name != Symbols::OTHER).then(Box::default);
        let (name, unit) = (name.into(), unit.into());
        Self { name, unit, shape, last: 0.0, last_at: Timestamp::ZERO, measured, tiers, usual }
    }

    fn note(&mut self, at: Timestamp, value: f64) {
        if let Some(usual) = &mut self.usual {
            usual.note(at, value);
        }
    }

    /// What is expected of it.
    pub(super) fn baseline(&self, now: Timestamp) -> Option<BaselineView> {
        self.usual.as_ref()?.view(&self.name, now)
    }

    /// Takes a level.
    pub(super) fn level(&mut self, at: Timestamp, value: f64) {
        if !value.is_finite() {
            return;
        }
        if at >= self.last_at {
            (self.last, self.last_at) = (value, at);
        }
        self.note(at, value);
        self.tiers.iter_mut().for_each(|tier| tier.level(at, value));
    }

    /// Takes an increment that happened between two times.
    pub(super) fn increment(&mut self, from: Timestamp, to: Timestamp, amount: f64) {
        if !amount.is_finite() {
            return;
        }
        self.last += amount;
        self.last_at = self.last_at.max(to);
        self.note(to, amount * 1e3 / num::real(to.unix_ms().saturating_sub(from.unix_ms()).max(1000)));
        self.tiers.iter_mut().for_each(|tier| tier.increment(from, to, amount));
    }

    /// Takes measurements: their distribution goes into what `with` fills, their mean into the bins.
    pub(super) fn measure(&mut self, at: Timestamp, count: u64, mean: f64, with: impl FnOnce(&mut Distribution)) {
        with(self.measured.get_or_insert_default());
        if mean.is_finite() {
            self.note(at, mean);
            self.tiers.iter_mut().for_each(|tier| tier.level(at, mean));
        }
        self.last += num::real(count);
        self.last_at = self.last_at.max(at);
    }

    pub(super) fn heap_bytes(&self) -> usize {
        let bins: usize = self.tiers.iter().map(|tier| tier.bins.len()).sum();
        bins * size_of::<Bin>()
            + self.measured.as_ref().map_or(0, |measured| size_of::<Distribution>() + measured.heap_bytes())
            + self.usual.as_ref().map_or(0, |usual| usual.heap_bytes())
            + [&self.name, &self.unit]
                .into_iter()
                .filter(|text| text.is_heap_allocated())
                .map(CompactString::len)
                .sum::<usize>()
    }

    pub(super) fn write(&self, writer: &mut Writer, is_tight: bool) {
        writer.text(&self.name, NAME_BYTES_MAX);
        writer.text(&self.unit, NAME_BYTES_MAX / 4);
        writer.byte(match self.shape {
            Shape::Gauge => 0,
            Shape::Counter => 1,
            Shape::Histogram => 2,
        });
        writer.real(self.last);
        writer.time(self.last_at);
        for (place, tier) in self.tiers.iter().enumerate() {
            tier.write(writer, place == 1 || (place == 2 && !is_tight));
        }
        if let Some(measured) = &self.measured {
            measured.write(writer, if is_tight { 160 } else { 480 });
        }
        writer.byte(u8::from(self.usual.is_some()));
        if let Some(usual) = &self.usual {
            usual.write(writer, if is_tight { SEASON_BYTES_TIGHT } else { SEASON_BYTES });
        }
    }

    pub(super) fn read(resolutions: &[Resolution; 3], reader: &mut Reader<'_>) -> Option<Self> {
        let (name, unit) = (reader.text()?, reader.text()?);
        let shape = match reader.byte()? {
            0 => Shape::Gauge,
            1 => Shape::Counter,
            2 => Shape::Histogram,
            _ => return None,
        };
        let (last, last_at) = (reader.real()?, reader.time()?);
        let [fine, middle, coarse] = *resolutions;
        let mut tier = |resolution| Tier::read(resolution, last_at, reader);
        let tiers = [tier(fine)?, tier(middle)?, tier(coarse)?];
        let measured = if shape == Shape::Histogram { Some(Box::new(Distribution::read(reader)?)) } else { None };
        let usual = if reader.version() < 2 {
            (name != Symbols::OTHER).then(Box::default)
        } else if reader.byte()? == 1 {
            Some(Box::new(Usual::read(reader)?))
        } else {
            None
        };
        Some(Self { name, unit, shape, last, last_at, measured, tiers, usual })
    }

    pub(super) fn view(&self, now: Timestamp) -> SeriesView {
        let (ever, window) = self.measured.as_ref().map(|measured| measured.view(now)).unzip();
        SeriesView {
            name: self.name.clone(),
            unit: self.unit.clone(),
            shape: CompactString::const_new(self.shape.name()),
            last: self.last,
            p50: window.as_ref().and_then(|window| window.p50),
            p99: window.as_ref().and_then(|window| window.p99),
            ever,
            last_at: self.last_at,
            tiers: self.tiers.iter().map(|tier| tier.view(self.shape, self.last_at)).collect(),
        }
    }
}
