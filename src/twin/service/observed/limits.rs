//! What bounds the model and how it judges, in one place.

/// Most dependencies; the rest is `_other`.
pub(super) const EDGES_MAX: usize = 32;
/// A pair that was not seen for so long makes room for a new one; what it counted moves to `_other`.
pub(super) const PAIR_STALE_MS: u64 = 60 * 60 * 1000;
/// Half of what "now" means where percentiles are concerned: they are of between once and twice this time.
pub(super) const WINDOW_MS: u64 = 5 * 60 * 1000;
/// Points into which the measurements of a histogram's bucket are spread.
pub(super) const SPREAD_MAX: u64 = 8;

/// How fast key series are judged, and how fast what is usual follows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Length of a step.
    pub(super) step_ms: u64,
    /// Weight of a new value, once warm.
    pub(super) alpha: f64,
    /// Weight of what is an alert or may become one: otherwise three bad steps would be usual. Not none: the level may
    /// have come to stay.
    pub(super) alpha_open: f64,
    /// Steps before anything deviates.
    pub(super) warm: u32,
    /// Deviating steps in a row that open an alert.
    pub(super) open_after: u8,
    /// Calm steps in a row that close it.
    pub(super) close_after: u8,
}

/// Of a service as a whole: half a minute of trouble is an alert, a minute of calm its end.
pub(super) const SERVICE: Pace =
    Pace { step_ms: 5_000, alpha: 0.01, alpha_open: 0.001, warm: 24, open_after: 6, close_after: 12 };
/// Of one operation, which may have a request now and then only.
pub(super) const OPERATION: Pace =
    Pace { step_ms: 60_000, alpha: 0.05, alpha_open: 0.005, warm: 10, open_after: 3, close_after: 3 };
/// Standard deviations that make a deviation, and those that end it.
pub(super) const FAR: f64 = 4.0;
pub(super) const NEAR: f64 = 2.0;
/// Share of errors that is an alert whatever was usual, and the share at which the service does not work.
pub(super) const ERRORS_ALWAYS: f64 = 0.1;
pub(super) const ERRORS_BROKEN: f64 = 0.5;
/// So many failures in a step, with that share, are no accident.
pub(super) const ERRORS_SURE: f64 = 10.0;
/// Fewest requests in a step whose share of errors says anything.
pub(super) const REQUESTS_MIN: f64 = 5.0;
/// Fewest measurements of which 95 % says anything.
pub(super) const MEASUREMENTS_MIN: u64 = 20;
/// How late metrics may come.
pub(super) const METRICS_LATE_MS: u64 = 75_000;
/// How late spans may come at least and at most; between them, twice as late as they lately did.
pub(super) const SPANS_LATE_MS: (u64, u64) = (3_000, 15_000);
/// Longest key of an alert, in bytes: what names an operation beyond that is cut.
pub(super) const ALERT_KEY_BYTES_MAX: usize = super::super::limits::SUBJECT_BYTES_MAX;
