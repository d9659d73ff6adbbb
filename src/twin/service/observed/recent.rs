//! How often something happened in the last five minutes, and how often it failed.

use super::{
    limits::OPERATION,
    num,
    page::{Reader, Writer},
};
use crate::model::Timestamp;

/// Bins of the rate, and their width: five minutes.
pub(super) const BINS: usize = 30;
const BIN_MS: u64 = 10_000;
/// Most that a page knows of a bin: what three bytes hold, 200,000 requests a second.
const BIN_MAX: u64 = (1 << 21) - 1;

/// How often lately.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Recent {
    newest: u64,
    bins: [(f32, f32); BINS],
}

impl Default for Recent {
    fn default() -> Self {
        Self { newest: 0, bins: [(0.0, 0.0); BINS] }
    }
}

impl Recent {
    pub(super) fn add(&mut self, from: Timestamp, to: Timestamp, count: f64, errors: f64) {
        let last = to.unix_ms() / BIN_MS;
        self.advance(last);
        if from == to {
            return self.put(last, num::short(count), num::short(errors));
        }
        let first = (from.unix_ms() / BIN_MS).min(last);
        let share = 1.0 / num::real(last - first + 1);
        let oldest = first.max(last.saturating_sub(num::long(BINS) - 1));
        for number in oldest..=last {
            self.put(number, num::short(count * share), num::short(errors * share));
        }
    }

    fn put(&mut self, number: u64, count: f32, errors: f32) {
        if self.newest - number < num::long(BINS) {
            let bin = &mut self.bins[num::at(number % num::long(BINS))];
            bin.0 += count;
            bin.1 += errors;
        }
    }

    fn advance(&mut self, number: u64) {
        if number > self.newest {
            let first = (self.newest + 1).max(number.saturating_sub(num::long(BINS) - 1));
            (first..=number).for_each(|number| self.bins[num::at(number % num::long(BINS))] = (0.0, 0.0));
            self.newest = number;
        }
    }

    /// Counts and errors of a step of [`OPERATION`].
    pub(super) fn step(&self, start_ms: u64) -> (f64, f64) {
        let bins = (start_ms / BIN_MS..(start_ms + OPERATION.step_ms) / BIN_MS)
            .filter(|number| *number <= self.newest && self.newest - number < num::long(BINS));
        bins.map(|number| self.bins[num::at(number % num::long(BINS))])
            .fold((0.0, 0.0), |(count, errors), (c, e)| (count + f64::from(c), errors + f64::from(e)))
    }

    /// Counts and errors of the last five minutes.
    pub(super) fn sums(&self, now: Timestamp) -> (f64, f64) {
        let oldest = self.newest.max(now.unix_ms() / BIN_MS).saturating_sub(num::long(BINS) - 1);
        (oldest..=self.newest)
            .map(|number| self.bins[num::at(number % num::long(BINS))])
            .fold((0.0, 0.0), |(count, errors), (c, e)| (count + f64::from(c), errors + f64::from(e)))
    }

    /// Writes the bins as whole numbers. What is left of one is handed to the next: counts that were spread thinly over
    /// bins add up to what they were.
    pub(super) fn write(&self, writer: &mut Writer) {
        writer.number(self.newest);
        self.whole().iter().flatten().for_each(|number| writer.number(*number));
    }

    fn whole(&self) -> [[u64; 2]; BINS] {
        let mut whole = [[0; 2]; BINS];
        let (mut counts, mut failures) = (0.0, 0.0);
        let newest = num::at(self.newest % num::long(BINS));
        // From the oldest on.
        for at in (newest + 1..BINS).chain(0..=newest) {
            counts += f64::from(self.bins[at].0);
            failures += f64::from(self.bins[at].1);
            let count = num::whole(counts.round()).min(BIN_MAX);
            // No more fail than there are; the rest fails in the next bin.
            let failed = num::whole(failures.round()).min(count);
            whole[at] = [count, failed];
            // What a page cannot hold is lost, and not the next one's.
            counts = (counts - num::real(count)).min(0.5);
            failures = (failures - num::real(failed)).min(1.0);
        }
        whole
    }

    /// Reads what [`Recent::write`] wrote.
    pub(super) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let mut recent = Self { newest: reader.number()?, ..Self::default() };
        for bin in &mut recent.bins {
            *bin = (num::short(num::real(reader.number()?)), num::short(num::real(reader.number()?)));
        }
        Some(recent)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bins_made_whole_add_up_and_no_more_fail_than_there_are(
            parts in proptest::collection::vec((0_u64..300_000, 0_u64..60_000, 1_u32..50, 0_u32..50), 1..20),
        ) {
            let mut recent = Recent::default();
            for (from, length, count, failed) in &parts {
                let (from, to) = (Timestamp::from_unix_ms(*from), Timestamp::from_unix_ms(from + length));
                recent.add(from, to, f64::from(*count), f64::from(*failed.min(count)));
            }
            let now = Timestamp::from_unix_ms(recent.newest * BIN_MS);
            let (count, failed) = recent.sums(now);
            let whole = recent.whole();
            prop_assert!(whole.iter().all(|[count, failed]| failed <= count));
            let sum = |place: usize| whole.iter().map(|bin| num::real(bin[place])).sum::<f64>();
            prop_assert!((sum(0) - count).abs() < 0.6 && (sum(1) - failed).abs() < 1.6, "{whole:?}: {count}, {failed}");
        }
    }
}
