//! What bounds the model and how it judges, in one place.

/// Most series; the rest is `_other`.
pub const SERIES_MAX: usize = 32;
/// Most pairs of operation and version; the rest is `_other`.
pub const PAIRS_MAX: usize = 24;
/// Most dependencies; the rest is `_other`.
pub(super) const EDGES_MAX: usize = 32;
/// A pair that was not seen for so long makes room for a new one; what it counted moves to `_other`.
pub(super) const PAIR_STALE_MS: u64 = 60 * 60 * 1000;
/// Half of what "now" means where percentiles are concerned: they are of between once and twice this time.
pub(super) const WINDOW_MS: u64 = 5 * 60 * 1000;
/// Points into which the measurements of a histogram's bucket are spread.
pub(super) const SPREAD_MAX: u64 = 8;
