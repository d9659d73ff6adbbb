//! Counts of explicit histograms, before they become measurements.
//!
//! Points of one stream have the same bounds, so adding them up costs an addition a bucket; spreading a bucket's counts
//! over a sketch costs about thirty times that, and is put off until somebody looks.

use super::{limits::SPREAD_MAX, num, sketch::Spot};

/// Counts between bounds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Tally {
    bounds: Box<[f64]>,
    /// What turns the bounds into seconds.
    unit_s: f64,
    counts: Box<[u64]>,
}

impl Tally {
    pub(super) fn new(bounds: &[f64], unit_s: f64) -> Self {
        Self { bounds: bounds.into(), unit_s, counts: vec![0; bounds.len() + 1].into() }
    }

    /// Whether counts between those bounds can be added.
    pub(super) fn fits(&self, bounds: &[f64], unit_s: f64) -> bool {
        *self.bounds == *bounds && self.unit_s.to_bits() == unit_s.to_bits()
    }

    /// Adds counts; those beyond the last bound's belong to nobody.
    pub(super) fn add(&mut self, counts: &[u64]) {
        for (sum, count) in self.counts.iter_mut().zip(counts) {
            *sum = sum.saturating_add(*count);
        }
    }

    /// Whether nothing was counted since it was last drained.
    pub(super) fn is_empty(&self) -> bool {
        self.counts.iter().all(|count| *count == 0)
    }

    pub(super) fn heap_bytes(&self) -> usize {
        size_of::<Self>() + size_of_val(&*self.bounds) + size_of_val(&*self.counts)
    }

    /// Takes out what was counted. Between two bounds it is spread evenly over a few points, as a quantile read from such a histogram would be.
    pub(super) fn drain(&mut self, mut into: impl FnMut(Spot, u64)) {
        for (place, count) in self.counts.iter_mut().enumerate().filter(|(_, count)| **count > 0) {
            let count = std::mem::take(count);
            let high = self.bounds.get(place).copied();
            let low = place.checked_sub(1).and_then(|below| self.bounds.get(below)).copied();
            let (low, high) = match (low, high) {
                (Some(low), Some(high)) => (low, high),
                (None, Some(high)) => (high.min(0.0), high),
                // Beyond the last bound nothing is known but that it is more.
                (Some(low), None) => (low, low),
                (None, None) => continue,
            };
            spread(low * self.unit_s, high * self.unit_s, count, &mut into);
        }
    }
}

/// Spreads a count evenly over a few points between two values.
pub(super) fn spread(low: f64, high: f64, count: u64, into: &mut impl FnMut(Spot, u64)) {
    let points = count.min(if high > low { SPREAD_MAX } else { 1 });
    for point in 0..points {
        let share = count / points + u64::from(point < count % points);
        let value = low + (high - low) * (num::real(point) + 0.5) / num::real(points);
        if let Some(spot) = Spot::of(value) {
            into(spot, share);
        }
    }
}
