//! How long reads took lately: from sled's cache or the page cache a few microseconds, from a disk a thousand times
//! that. Quick ones are worth no hand-over to another thread, slow ones must not hold up a caller's.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Instant,
};

/// Above this mean, reads go to the loaders.
const QUICK_NS: u32 = 50_000;
/// A read's share of the mean: one in so many.
const SHARE: u32 = 16;

/// The running mean of reads, in nanoseconds.
#[derive(Default)]
pub(super) struct Pace(AtomicU32);

impl Pace {
    pub(super) fn is_quick(&self) -> bool {
        self.0.load(Ordering::Relaxed) <= QUICK_NS
    }

    /// Reads, and takes note of how long it took.
    #[expect(clippy::disallowed_methods, reason = "measures the machine; no decision of a twin rests on it")]
    pub(super) fn timed<T>(&self, read: impl FnOnce() -> T) -> T {
        let started = Instant::now();
        let result = read();
        self.took(u32::try_from(started.elapsed().as_nanos()).unwrap_or(u32::MAX));
        result
    }

    fn took(&self, nanos: u32) {
        // Two at once may lose one of them: it is a mean.
        let mean = self.0.load(Ordering::Relaxed);
        self.0.store(mean - mean / SHARE + nanos / SHARE, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_disk_is_noticed_at_once_and_forgiven_after_a_few_quick_reads() {
        let pace = Pace::default();
        (0..100).for_each(|_| pace.took(3_000));
        assert!(pace.is_quick());
        pace.took(1_000_000);
        assert!(!pace.is_quick());
        (0..8).for_each(|_| pace.took(3_000));
        assert!(pace.is_quick());
    }

    #[test]
    fn the_longest_reads_do_not_overflow_the_mean() {
        let pace = Pace::default();
        (0..1_000).for_each(|_| pace.took(u32::MAX));
        assert!(!pace.is_quick());
        assert_eq!(pace.timed(|| 7), 7);
    }
}
