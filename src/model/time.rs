//! Wall-clock time as data, and the one door through which it is read.

use std::{
    fmt,
    str::FromStr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

/// Milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The Unix epoch; also "always due".
    pub const ZERO: Self = Self(0);
    /// The end of time; also "never".
    pub const MAX: Self = Self(u64::MAX);

    /// Takes milliseconds since the Unix epoch.
    pub const fn from_unix_ms(ms: u64) -> Self {
        Self(ms)
    }

    /// Milliseconds since the Unix epoch.
    pub const fn unix_ms(self) -> u64 {
        self.0
    }

    /// The time `by` later; saturates.
    #[must_use]
    pub fn after(self, by: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX)))
    }

    /// The time `by` earlier; saturates.
    #[must_use]
    pub fn before(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(by.as_millis()).unwrap_or(u64::MAX)))
    }

    /// How long ago `earlier` was; zero if it is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// RFC 3339 in UTC, with milliseconds; what lies behind the year 9999 reads as its end.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = i64::try_from(self.0).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
        write!(f, "{:.3}", time.unwrap_or(jiff::Timestamp::MAX))
    }
}

/// The text is no point in time since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a time is written as RFC 3339 has it, such as 2026-01-31T12:00:00Z, or as milliseconds since 1970")]
pub struct InvalidTime;

/// Reads RFC 3339, with a fraction or an offset if there is one; or milliseconds since 1970.
impl FromStr for Timestamp {
    type Err = InvalidTime;

    fn from_str(text: &str) -> Result<Self, InvalidTime> {
        let time = match text.parse() {
            Ok(ms) => jiff::Timestamp::from_millisecond(ms),
            Err(_) => text.parse(),
        };
        let ms = time.map_err(|_| InvalidTime)?.as_millisecond();
        u64::try_from(ms).map(Self).map_err(|_| InvalidTime)
    }
}

/// Where the runtime reads the time; a simulation hands in its own.
pub trait Clock: Send + Sync + 'static {
    /// The time now.
    fn now(&self) -> Timestamp;
}

/// The machine's wall clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one door through which the time is read")]
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_reads_back_as_it_was_written() {
        for (text, ms) in [
            ("1970-01-01T00:00:00.000Z", 0),
            ("2000-02-29T12:34:56.789Z", 951_827_696_789),
            ("2026-11-23T01:24:02.000Z", 1_795_397_042_000),
            ("9999-12-30T21:59:59.999Z", 253_402_207_199_999),
        ] {
            assert_eq!(text.parse(), Ok(Timestamp(ms)), "{text}");
            assert_eq!(Timestamp(ms).to_string(), text);
        }
        assert!(Timestamp::MAX.to_string().starts_with("9999-12-30T"), "{}", Timestamp::MAX);
    }

    #[test]
    fn offsets_fractions_and_milliseconds_are_understood_and_nonsense_is_not() {
        let noon = "2026-01-31T12:00:00Z".parse::<Timestamp>();
        for same in ["2026-01-31T14:30:00.0+02:30", "2026-01-31T11:00:00-01:00", "1769860800000"] {
            assert_eq!(same.parse(), noon, "{same}");
        }
        for text in [
            "",
            "now",
            "2026-02-30T00:00:00Z",
            "2026-01-01",
            "2026-01-01T00:00:00",
            "2026-01-01T00:00:00.Zx",
            "ü",
            "-5",
            "1969-12-31T23:59:59Z",
            "18446744073709551615",
            "10000-01-01T00:00:00Z",
        ] {
            assert_eq!(text.parse::<Timestamp>(), Err(InvalidTime), "{text}");
        }
    }
}
